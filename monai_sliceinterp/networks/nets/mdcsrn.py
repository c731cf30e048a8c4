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

"""Multi-level densely connected super-resolution network (mDCSRN), with which SAINT is compared.

Chen Y, Shi F, Christodoulou AG, Xie Y, Zhou Z, Li D: Efficient and Accurate MRI Super-Resolution Using a Generative
Adversarial Network and 3D Multi-Level Densely Connected Network. MICCAI 2018.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import ADN
from monai.networks.layers import Conv
from torch import Tensor, nn

from monai_sliceinterp import checks
from monai_sliceinterp.networks.blocks.slice_upsampling import SliceUpsampler
from monai_sliceinterp.networks.nets.super_resolution import SliceSuperResolution

__all__ = ["MDCSRN", "DenselyConnectedUnits"]


class DenselyConnectedUnits(nn.Module):
    """Units of batch normalization, ELU and a 3x3x3 convolution, each of which sees the outputs of all before it.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        growth: channels k that every unit adds.
        num_units: number of units.

    Example:
        >>> DenselyConnectedUnits(3, in_channels=4, growth=2, num_units=3)(torch.zeros(2, 4, 5, 5, 5)).shape
        torch.Size([2, 10, 5, 5, 5])
    """

    def __init__(self, spatial_dims: int, in_channels: int, growth: int, num_units: int) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        self.units = nn.ModuleList(
            nn.Sequential(
                ADN("NA", channels, act="ELU", norm="batch", norm_dim=spatial_dims),
                conv(channels, growth, 3, padding=1),
            )
            for channels in range(in_channels, in_channels + num_units * growth, growth)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Compute ``(B, in_channels + num_units * growth, ...)``, the input and all outputs, from the input."""
        features = image
        for unit in self.units:
            features = torch.cat([features, unit(features)], dim=1)
        return features


class MDCSRN(SliceSuperResolution):
    """Multi-level densely connected super-resolution network (mDCSRN), in 3D, with RDN's upsampling along the slices.

    The first convolution makes 2 k channels. Each dense block gets, compressed to 2 k channels by a 1x1x1 convolution,
    the outputs of the first convolution and of all blocks before it; all of them go to the upsampling, which replaces
    the last convolution of the original (SAINT, section 4). With the default sizes it has 2,929,281 parameters (SAINT,
    table 2: 2.98 M).

    Args:
        spatial_dims: 3; 2 for the images of a view with their neighbors.
        factors: the one upsampling factor that the network is made for. It also does those that divide it.
        growth: growth rate k.
        num_blocks: dense blocks.
        num_units: units of a block.
        upsampling_channels: channels of the upsampling.
        residual: see :class:`SliceSuperResolution`.
        intensity_center: see :class:`SliceSuperResolution`.
        intensity_scale: see :class:`SliceSuperResolution`.

    Raises:
        ValueError: if a size is not positive, or there is not one factor.

    Example:
        >>> network = MDCSRN(growth=2, num_blocks=2, num_units=2, upsampling_channels=4).eval()
        >>> network(torch.rand(1, 1, 12, 10, 3)).shape
        torch.Size([1, 1, 12, 10, 9])
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        factors: Sequence[int] = (4,),
        growth: int = 16,
        num_blocks: int = 6,
        num_units: int = 10,
        upsampling_channels: int = 32,
        residual: bool = True,
        intensity_center: float = 0.25,
        intensity_scale: float = 0.25,
    ) -> None:
        super().__init__(spatial_dims, factors, residual, intensity_center, intensity_scale)
        if len(self.factors) != 1:
            raise ValueError(f"factors must be the one factor that mDCSRN is made for, such as [4], got {factors!r}.")
        for name, size in (("growth", growth), ("num_blocks", num_blocks), ("num_units", num_units)):
            checks.positive_integer(name, size)
        conv = Conv[Conv.CONV, spatial_dims]
        narrow, wide = 2 * growth, (2 + num_units) * growth
        self.first = conv(self.in_channels, narrow, 3, padding=1)
        self.blocks = nn.ModuleList(
            DenselyConnectedUnits(spatial_dims, narrow, growth, num_units) for _ in range(num_blocks)
        )
        self.compressors = nn.ModuleList(conv(narrow + number * wide, narrow, 1) for number in range(1, num_blocks))
        self.upsampler = SliceUpsampler(spatial_dims, narrow + num_blocks * wide, self.factors, upsampling_channels)
        self._prepare(self.upsampler.last)

    def upsample(self, image: Tensor, factor: int) -> Tensor:
        """Compute features of all levels, then upsample them, see :meth:`SliceSuperResolution.upsample`."""
        features = self.first(image)
        collected = torch.cat([features, self.blocks[0](features)], dim=1)
        for compress, block in zip(self.compressors, self.blocks[1:], strict=True):
            collected = torch.cat([collected, block(compress(collected))], dim=1)
        return self.upsampler(collected, factor)
