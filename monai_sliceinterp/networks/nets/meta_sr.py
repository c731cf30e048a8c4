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

"""Meta-SR along the slices: filters generated from positions, with which SAINT's AMI is compared.

Hu X, Mu H, Zhang X, Wang Z, Tan T, Sun J: Meta-SR: A Magnification-Arbitrary Network for Super-Resolution. CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from monai_sliceinterp import checks
from monai_sliceinterp.networks.nets.ami import AnisotropicMetaInterpolation
from monai_sliceinterp.precision import PreciseConv2d

__all__ = ["MetaSR", "PositionFilterGenerator"]


class PositionFilterGenerator(nn.Module):
    """Two fully connected layers that generate filters from positions (Meta-SR's Weight Prediction).

    The original's input is the offset along both axes of the image and 1 / r. Along the pixels of a slice nothing is
    magnified, and that offset is always 0: it is left out.

    Args:
        out_channels: channels of the features that the filters are applied to.
        kernel_size: odd size k of the filters.
        hidden_channels: neurons of the hidden layer.
        gain: factor on the last layer's initial weights, see
            :class:`monai_sliceinterp.networks.blocks.FilterGenerator`.

    Example:
        >>> PositionFilterGenerator(out_channels=8)(torch.tensor([[0.25, 0.25], [0.5, 0.25]])).shape
        torch.Size([1, 2, 8, 3, 3])
    """

    def __init__(
        self, out_channels: int = 64, kernel_size: int = 3, hidden_channels: int = 256, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        # 1x1 convolutions over a row of positions are fully connected layers
        checks.positive_integer("hidden_channels", hidden_channels)
        last = PreciseConv2d(hidden_channels, out_channels * kernel_size**2, 1)
        self.layers = nn.Sequential(PreciseConv2d(2, hidden_channels, 1), nn.ReLU(), last)
        with torch.no_grad():
            for parameter in last.parameters():
                parameter.mul_(gain)

    def forward(self, positions: Tensor) -> Tensor:
        """Generate filters ``(1, R, out_channels, k, k)`` from offset in the gap and 1 / r, ``(R, 2)``."""
        filters = self.layers(positions.T[None, :, :, None])[0, :, :, 0].T
        return filters.reshape(1, len(positions), -1, self.kernel_size, self.kernel_size)


class MetaSR(AnisotropicMetaInterpolation):
    """Meta-SR along the slices: RDN's features and filters generated from the position in a gap and the factor.

    The Location Projection gives every output row the input row before it, its offset behind that and 1 / r. For each
    position a filter is generated and applied to the features there. Rows of one offset have the same filter, which is
    generated once. Any factor and any target spacing is possible; the voxel spacing in mm, which AMI knows, is not
    used. With the default sizes it has 2,806,912 parameters (SAINT, table 1: 2.81 M).

    Args:
        channels: see :class:`AnisotropicMetaInterpolation`.
        num_blocks: see :class:`AnisotropicMetaInterpolation`.
        num_layers: see :class:`AnisotropicMetaInterpolation`.
        growth: see :class:`AnisotropicMetaInterpolation`.
        kernel_size: see :class:`AnisotropicMetaInterpolation`.
        hidden_channels: neurons of the filter generator's hidden layer.
        residual: see :class:`AnisotropicMetaInterpolation`.
        intensity_center: see :class:`AnisotropicMetaInterpolation`.
        intensity_scale: see :class:`AnisotropicMetaInterpolation`.

    Raises:
        ValueError: if a size is not positive, or ``kernel_size`` is even.

    Example:
        >>> network = MetaSR(channels=8, num_blocks=1, num_layers=2, growth=4)
        >>> network(torch.rand(2, 3, 7, 40), factor=5).shape
        torch.Size([2, 1, 31, 40])
    """

    def __init__(
        self,
        channels: int = 64,
        num_blocks: int = 6,
        num_layers: int = 8,
        growth: int = 32,
        kernel_size: int = 3,
        hidden_channels: int = 256,
        residual: bool = True,
        intensity_center: float = 0.25,
        intensity_scale: float = 0.25,
    ) -> None:
        super().__init__(
            channels,
            num_blocks,
            num_layers,
            growth,
            kernel_size,
            residual=residual,
            intensity_center=intensity_center,
            intensity_scale=intensity_scale,
        )
        gain = 0.1 if residual else 1.0
        self.filter_generation = PositionFilterGenerator(channels, kernel_size, hidden_channels, gain)

    def generate_filters(
        self,
        offsets: Sequence[float],
        slice_spacing: float | Tensor,
        in_plane_spacing: float | Tensor,
        step: float,
    ) -> Tensor:
        """Generate the filters of R offsets in a gap, ``(1, R, channels, k, k)``; spacings in mm are not used."""
        positions = torch.tensor([[offset, step] for offset in offsets])
        return self.filter_generation(positions.to(next(self.filter_generation.parameters())))
