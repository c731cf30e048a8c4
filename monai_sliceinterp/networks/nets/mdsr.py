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

"""Multi-scale deep super-resolution (MDSR) along the slices, with which SAINT is compared.

Lim B, Son S, Kim H, Nah S, Lee KM: Enhanced Deep Residual Networks for Single Image Super-Resolution. CVPRW 2017.
"""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.layers import Conv
from torch import Tensor, nn

from monai_sliceinterp import checks
from monai_sliceinterp.networks.blocks.slice_upsampling import SliceUpsampler
from monai_sliceinterp.networks.nets.super_resolution import SliceSuperResolution

__all__ = ["MDSR", "PlainResidualBlock"]


class PlainResidualBlock(nn.Module):
    """Two convolutions with a ReLU between them and a skip connection, without normalization (EDSR, figure 2c).

    Args:
        spatial_dims: 2 or 3.
        channels: channels of input and output.
        kernel_size: odd size of the kernels.

    Example:
        >>> import torch
        >>> PlainResidualBlock(2, channels=4)(torch.zeros(1, 4, 7, 5)).shape
        torch.Size([1, 4, 7, 5])
    """

    def __init__(self, spatial_dims: int, channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        self.layers = nn.Sequential(
            conv(channels, channels, kernel_size, padding=kernel_size // 2),
            nn.ReLU(),
            conv(channels, channels, kernel_size, padding=kernel_size // 2),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Compute features of the same shape from features ``(B, channels, ...)``."""
        return image + self.layers(image)


class MDSR(SliceSuperResolution):
    """Multi-scale super-resolution (MDSR): one body of residual blocks, with a head and an upsampling for each factor.

    Every factor has two residual blocks of 5x5 kernels before the shared body and an upsampling along the slices behind
    it (SAINT, sections 2.1 and 4). With the default sizes it has 2,926,977 parameters in 2D (SAINT, table 1: 2.92 M).
    In 3D with 32 channels and 29 blocks it has 2,880,577 (table 2: 2.88 M).

    Args:
        spatial_dims: 2 for the images of a view with their neighbors, 3 for volumes.
        factors: upsampling factors that the network is made for. It also does those that divide one of them.
        channels: feature channels.
        num_blocks: residual blocks of the shared body.
        residual: see :class:`SliceSuperResolution`.
        intensity_center: see :class:`SliceSuperResolution`.
        intensity_scale: see :class:`SliceSuperResolution`.

    Raises:
        ValueError: if a size is not positive, or a factor is below 2.

    Example:
        >>> import torch
        >>> network = MDSR(channels=8, num_blocks=1)
        >>> network(torch.rand(2, 3, 5, 20), factor=6).shape
        torch.Size([2, 1, 25, 20])
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        factors: Sequence[int] = (4, 6),
        channels: int = 64,
        num_blocks: int = 24,
        residual: bool = True,
        intensity_center: float = 0.25,
        intensity_scale: float = 0.25,
    ) -> None:
        super().__init__(spatial_dims, factors, residual, intensity_center, intensity_scale)
        checks.positive_integer("channels", channels)
        checks.positive_integer("num_blocks", num_blocks)
        conv = Conv[Conv.CONV, spatial_dims]
        self.head = conv(self.in_channels, channels, 3, padding=1)
        self.preprocessing = nn.ModuleDict(
            {
                str(factor): nn.Sequential(*(PlainResidualBlock(spatial_dims, channels, 5) for _ in range(2)))
                for factor in self.factors
            }
        )
        self.body = nn.Sequential(
            *(PlainResidualBlock(spatial_dims, channels) for _ in range(num_blocks)),
            conv(channels, channels, 3, padding=1),
        )
        self.upsampler = SliceUpsampler(spatial_dims, channels, self.factors)
        self._prepare(self.upsampler.last)

    def upsample(self, image: Tensor, factor: int) -> Tensor:
        """Compute features by the factor's blocks and the body, see :meth:`SliceSuperResolution.upsample`."""
        features = self.preprocessing[str(factor)](self.head(image))
        return self.upsampler(features + self.body(features), factor)
