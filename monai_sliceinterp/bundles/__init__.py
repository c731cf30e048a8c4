# Copyright (c) monai_sliceinterp contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Bundles on this machine: what a user calls them, where they are found, and how they are read and fetched."""

from __future__ import annotations

from monai_sliceinterp.bundles.finding import (
    BUNDLES_VARIABLE,
    INFERENCE,
    bundle_roots,
    cache_folder,
    config_folder,
    find_bundle,
    find_bundles,
    read_metadata,
    unpacked,
)
from monai_sliceinterp.bundles.naming import CLASSICAL, MethodText, overlay_files, parse_method
