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

"""Volumes to work with: the embedded phantoms, and lists of volumes on disk."""

from __future__ import annotations

from monai_sliceinterp.data.phantom import PHANTOM_KINDS, make_phantom, phantom_intensity, write_phantoms
from monai_sliceinterp.data.splits import split_volumes, subjects_of, tested_volumes
from monai_sliceinterp.data.volumes import (
    BODY_PARTS,
    find_volumes,
    training_volumes,
    volumes_per_batch,
    with_body_parts,
)
