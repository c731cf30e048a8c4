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

"""File formats: what NIfTI, MetaImage, NRRD and TIFF files hold, read and written without a fact lost or invented."""

from __future__ import annotations

from .itk_images import SPACELESS_SUFFIXES, read_itk_image, write_itk_image
from .nifti import NIFTI_HEADER, nifti_image, read_nifti, write_nifti

__all__ = [
    "NIFTI_HEADER",
    "SPACELESS_SUFFIXES",
    "nifti_image",
    "read_itk_image",
    "read_nifti",
    "write_itk_image",
    "write_nifti",
]
