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

"""Zip files of bundles as a model zoo hosts them, and folders as repositories on Hugging Face hold them."""

from __future__ import annotations

from monai_sliceinterp.zoo.checks import check_bundle
from monai_sliceinterp.zoo.huggingface import model_card, write_repository
from monai_sliceinterp.zoo.layout import bundle_files
from monai_sliceinterp.zoo.metadata import check_metadata
from monai_sliceinterp.zoo.packing import MODEL_INFO, PackedBundle, pack_bundles, write_archive

__all__ = [
    "MODEL_INFO",
    "PackedBundle",
    "bundle_files",
    "check_bundle",
    "check_metadata",
    "model_card",
    "pack_bundles",
    "write_archive",
    "write_repository",
]
