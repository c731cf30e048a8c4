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

"""DICOM series: reading as volumes, and writing of derived series."""

from __future__ import annotations

from monai_sliceinterp.dicom.frames import DicomError, Frame, frames_of
from monai_sliceinterp.dicom.reading import read_dicom
from monai_sliceinterp.dicom.series import dicom_series, is_dicom, open_dicom, series_headers
from monai_sliceinterp.dicom.stack import stack_geometry
