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

"""Scores of interpolated volumes."""

from __future__ import annotations

from monai_sliceinterp.metrics.body import BODY_THRESHOLD, body_mask
from monai_sliceinterp.metrics.fidelity import VIFMetric, visual_information_fidelity
from monai_sliceinterp.metrics.mean import MeanScoreMetric
from monai_sliceinterp.metrics.perceptual import PERCEPTUAL_SCORES, PerceptualMetric
from monai_sliceinterp.metrics.protocol import LEAVE_ONE_OUT, Protocol, Trial, every_second_slice
from monai_sliceinterp.metrics.reconstruction import score_reconstruction
from monai_sliceinterp.metrics.sharpness import flicker, gradient_magnitude, relative_sharpness
from monai_sliceinterp.metrics.similarity import structural_similarity
from monai_sliceinterp.metrics.slices import (
    SLICE_SCORES,
    SMALLEST_SLICE,
    SynthesizedSliceMetric,
    slice_score,
    synthesized_pairs,
)
from monai_sliceinterp.metrics.volume import METRICS, REGIONS, Metric, Region, score_volume
