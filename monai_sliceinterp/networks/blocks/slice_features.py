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


"""Blocks of networks that compute features of slices once, and mix them at any position in the gaps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PositionFilters", "SliceBlock", "convolve_plane"]


class SliceBlock(nn.Module):
    """Residual block: an in-plane 3x3 convolution, one along three slices, and an in-plane 3x3 convolution.

    Slices past the ends of the stack are copies of the first and the last one.

    Args:
        channels: channels of the features.

    Example:
        >>> SliceBlock(4)(torch.rand(1, 4, 3, 8, 8)).shape
        torch.Size([1, 4, 3, 8, 8])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(channels, channels, (1, 3, 3), padding=(0, 1, 1))
        self.across = nn.Conv3d(channels, channels, (3, 1, 1))
        self.last = nn.Conv3d(channels, channels, (1, 3, 3), padding=(0, 1, 1))
        with torch.no_grad():  # many blocks in a row begin close to the identity
            self.last.weight.mul_(0.1)
            if self.last.bias is not None:
                self.last.bias.zero_()

    def forward(self, features: Tensor) -> Tensor:
        """Compute features ``(B, C, N, h, w)`` from such of a whole stack."""
        within = F.relu(self.first(features))
        padded = torch.cat([within[:, :, :1], within, within[:, :, -1:]], dim=2)
        return features + self.last(F.relu(self.across(padded)))

    def stream(self, features: Iterable[Tensor]) -> Iterator[Tensor]:
        """Compute the same slice by slice: from features ``(B, C, h, w)`` of one slice after another.

        Only three slices are in memory, whatever the length of the stack.
        """
        weight = self.across.weight.transpose(1, 2).flatten(1, 2)  # of three slices' channels
        window: list[Tensor] = []
        center: Tensor | None = None

        def output(image: Tensor, around: list[Tensor]) -> Tensor:
            hidden = F.conv2d(torch.cat(around, dim=1), weight, self.across.bias)
            return image + convolve_plane(self.last, F.relu(hidden))

        for following in features:
            within = F.relu(convolve_plane(self.first, following))
            window = [*window[-2:], within] if window else [within, within]
            if center is not None:
                yield output(center, window)
            center = following
        if center is not None:
            yield output(center, [*window[-2:], window[-1]])


def convolve_plane(layer: nn.Conv3d, image: Tensor) -> Tensor:
    """Apply an in-plane convolution to single slices ``(B, C, h, w)``, which is faster in two dimensions."""
    return F.conv2d(image, layer.weight[:, :, 0], layer.bias, padding=1)


class PositionFilters(nn.Module):
    """Network that generates, for a position in a gap, the weights of the features of the four slices around it.

    SAINT's idea, filters that depend on position and spacings, at the end of the network: one set of features serves
    every position, every factor and every voxel size.

    Args:
        channels: channels of the features.
        num_banks: weighted sums for each channel.
        hidden_channels: width of the two hidden layers.

    Example:
        >>> PositionFilters(8)(torch.tensor([0.5]), 5.0, 1.0, 0.0).shape
        torch.Size([1, 2, 8, 4])
    """

    def __init__(self, channels: int, num_banks: int = 2, hidden_channels: int = 64) -> None:
        super().__init__()
        self.size = (num_banks, channels, 4)
        last = nn.Linear(hidden_channels, num_banks * channels * 4)
        self.layers = nn.Sequential(
            nn.Linear(6, hidden_channels), nn.ReLU(), nn.Linear(hidden_channels, hidden_channels), nn.ReLU(), last
        )
        with torch.no_grad():  # mean and difference of the two nearest slices at first
            last.weight.mul_(0.1)
            start = torch.zeros(self.size)
            start[:, :, 1:3] = 0.5
            start[1::2, :, 1] = -0.5
            last.bias.copy_(start.flatten())

    def forward(
        self,
        alpha: Tensor,
        slice_spacing: Tensor | float,
        in_plane_spacing: Tensor | float,
        slice_thickness: Tensor | float,
    ) -> Tensor:
        """Generate weights.

        Args:
            alpha: fractions of the gap from the earlier slice ``(P,)``.
            slice_spacing: width of the gap in mm, a number or ``(P,)``.
            in_plane_spacing: mean distance of the pixels in mm, likewise.
            slice_thickness: in mm, likewise; 0 where it is not known.

        Returns:
            ``(P, num_banks, channels, 4)``, for the slices -1, 0, 1 and 2 gaps past the earlier one.
        """
        across, along, thickness = (
            torch.as_tensor(value, dtype=alpha.dtype, device=alpha.device).expand(alpha.shape)
            for value in (slice_spacing, in_plane_spacing, slice_thickness)
        )
        numbers = [
            2 * alpha - 1,
            4 * alpha * (1 - alpha),
            across.log() / 2,
            along.log(),
            (across / along).log() / 2,
            thickness / across,
        ]
        return self.layers(torch.stack(numbers, dim=1)).unflatten(1, self.size)
