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

"""What is behind ``monai_sliceinterp.interpolate`` and the command ``sliceinterp``: a scan, a method, its config."""

from __future__ import annotations

from monai_sliceinterp.interpolation.choice import SCORES, Choice, choose_method, kind_of
from monai_sliceinterp.interpolation.configs import (
    ADAPTABLE,
    CLASSICAL_CONFIGS,
    adapted_method,
    classical_settings,
    inference_files,
    read_inference,
    set_values,
)
from monai_sliceinterp.interpolation.pipeline import BundlePipeline
from monai_sliceinterp.interpolation.scan import CT_BELOW, MODALITIES, ScanFacts, scan_facts
