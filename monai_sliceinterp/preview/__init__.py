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

"""Look at a result: a picture and a page with the scan before and after interpolation."""

from __future__ import annotations

from monai_sliceinterp.preview.files import check_preview_files, preview_files, write_preview_files
from monai_sliceinterp.preview.pair import ScanPair, load_pair
from monai_sliceinterp.preview.picture import write_preview
from monai_sliceinterp.preview.planes import View, plane_view
from monai_sliceinterp.preview.viewer import write_viewer
from monai_sliceinterp.preview.windows import DisplayWindow, display_windows, is_ct
