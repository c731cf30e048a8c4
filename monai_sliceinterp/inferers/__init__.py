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

"""Interpolation of whole volumes."""

from __future__ import annotations

from monai_sliceinterp.inferers.ablation import ViewAblation
from monai_sliceinterp.inferers.base import SliceInterpolationInferer, SliceStack
from monai_sliceinterp.inferers.blocks import BlockSliceInferer
from monai_sliceinterp.inferers.latent import LatentSliceInferer
from monai_sliceinterp.inferers.mixed_precision import MixedPrecisionInferer
from monai_sliceinterp.inferers.mixture import MixtureSliceInferer
from monai_sliceinterp.inferers.motion import MotionSliceInferer
from monai_sliceinterp.inferers.multi_view import MultiViewSliceInferer
from monai_sliceinterp.inferers.spline import SplineSliceInferer
from monai_sliceinterp.inferers.volumetric import VolumetricSliceInferer
