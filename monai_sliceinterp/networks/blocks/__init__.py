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

"""Building blocks of the networks."""

from __future__ import annotations

from monai_sliceinterp.networks.blocks.autoencoder import DecoderBlock, EncoderBlock, fan_in_normal_, pad_to_multiple
from monai_sliceinterp.networks.blocks.blended_interpolation import blended_interpolation
from monai_sliceinterp.networks.blocks.block_cosine import BlockCosineShortcut, block_cosine_basis
from monai_sliceinterp.networks.blocks.generated_filters import (
    FilterGenerator,
    apply_generated_filters,
    filter_distance_matrix,
)
from monai_sliceinterp.networks.blocks.normalization import FreezableNormalization
from monai_sliceinterp.networks.blocks.residual_dense import ResidualDenseBlock, ResidualDenseNetwork
from monai_sliceinterp.networks.blocks.slice_features import PositionFilters, SliceBlock
from monai_sliceinterp.networks.blocks.slice_upsampling import SliceUpsampler, shuffle_phases
from monai_sliceinterp.networks.blocks.views import from_view, neighbor_triples, to_view, view_spacing
from monai_sliceinterp.networks.blocks.volumetric import DoublingBlock, HalvingBlock, SelfAttentionBlock
