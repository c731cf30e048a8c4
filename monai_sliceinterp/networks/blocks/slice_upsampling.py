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

"""Upsampling along the slices by sub-pixel convolution and periodic shuffling.

Shi W, Caballero J, Huszar F et al.: Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
Convolutional Neural Network. CVPR 2016. SAINT (sections 3.2.2 and 4) makes it anisotropic.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers import Conv
from torch import Tensor, nn

from monai_sliceinterp import checks

__all__ = ["SliceUpsampler", "shuffle_phases"]


def shuffle_phases(phases: Tensor) -> Tensor:
    """Interleave K feature maps row by row (periodic shuffling along one axis; SAINT, eq. 6).

    Args:
        phases: ``(B, K, C, N, ...)``: for every row of the thick image K rows of the thin one.

    Returns:
        ``(B, C, K N, ...)``.

    Example:
        >>> phases = torch.tensor([[[[0.0, 2.0]], [[1.0, 3.0]]]])
        >>> shuffle_phases(phases).tolist()
        [[[0.0, 1.0, 2.0, 3.0]]]
    """
    return phases.movedim(1, 3).flatten(2, 3)


class SliceUpsampler(nn.Module):
    """Block that makes an image with K times the rows from features: a 3x3 convolution for each factor, and a last one.

    The features themselves are those of the observed rows, so that the convolution of a factor K only makes K - 1 maps.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the features.
        factors: upsampling factors K; each has a convolution of its own, as in MDSR. The last one is shared.
        channels: channels of the maps; where they differ from ``in_channels``, a 1x1 convolution comes first. None:
            they are the same.

    Raises:
        ValueError: if a size is not positive, or a factor is below 2.

    Example:
        >>> SliceUpsampler(2, in_channels=8, factors=(4, 6))(torch.zeros(1, 8, 5, 9), factor=6).shape
        torch.Size([1, 1, 30, 9])
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, factors: Sequence[int], channels: int | None = None
    ) -> None:
        super().__init__()
        checks.positive_integer("in_channels", in_channels)
        channels = in_channels if channels is None else checks.positive_integer("upsampling_channels", channels)
        conv = Conv[Conv.CONV, spatial_dims]
        self.reduction = nn.Identity() if channels == in_channels else conv(in_channels, channels, 1)
        self.phases = nn.ModuleDict(
            {str(factor): conv(channels, channels * (factor - 1), 3, padding=1) for factor in sorted(set(factors))}
        )
        self.last = conv(channels, 1, 3, padding=1)

    def forward(self, features: Tensor, factor: int) -> Tensor:
        """Compute ``(B, 1, K N, ...)`` from features ``(B, in_channels, N, ...)`` by one of the factors."""
        reduced = self.reduction(features)
        phases = torch.cat([reduced, self.phases[str(factor)](reduced)], dim=1).unflatten(1, (factor, -1))
        return self.last(shuffle_phases(phases))
