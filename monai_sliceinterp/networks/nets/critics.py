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

"""Critic of mixed slices, for the training of HRINet and ACAI."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from monai_sliceinterp import checks
from monai_sliceinterp.networks.blocks.autoencoder import convolution_pair, fan_in_normal_, pad_to_multiple, unshuffle

__all__ = ["InterpolationCritic"]


class InterpolationCritic(nn.Module):
    """Critic of ACAI, HRINet's D1, that estimates the mixing coefficient from a slice (HRINet, eq. 2).

    It has the layers of the encoder of :class:`HRINetAutoencoder`, whose output is averaged to one number.

    Args:
        in_channels: image channels of a slice.
        channels: channels at full size, 1/2, 1/4, ...
        latent_channels: channels that are averaged.
        negative_slope: slope of the leaky ReLU.
        init_gain: scale of the first weights: 1 as in ACAI's code; the square root of 2 keeps activations from
            vanishing without normalization, and trains faster at first.
        stem: see :class:`HRINetAutoencoder`.

    Raises:
        ValueError: if a number of channels or ``stem`` is not positive.

    Example:
        >>> InterpolationCritic(channels=(4, 8))(torch.rand(3, 1, 50, 41)).shape
        torch.Size([3])
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: Sequence[int] = (32, 64, 128, 256),
        latent_channels: int = 16,
        negative_slope: float = 0.2,
        init_gain: float = 1.0,
        stem: int = 1,
    ) -> None:
        super().__init__()
        for name, size in (("in_channels", in_channels), ("latent_channels", latent_channels), ("stem", stem)):
            checks.positive_integer(name, size)
        channels = checks.positive_integers("channels", channels)
        self.multiple = stem * 2 ** len(channels)
        self.layers = nn.Sequential(*unshuffle(stem))
        before = in_channels * stem**2
        for width in channels:
            self.layers.extend([*convolution_pair(before, width, negative_slope), nn.AvgPool2d(2)])
            before = width
        self.layers.extend(convolution_pair(before, before, negative_slope))
        self.layers.append(nn.Conv2d(before, latent_channels, 3, padding=1))
        fan_in_normal_(self, negative_slope, gain=init_gain)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        """Estimate the folded coefficients ``(B,)`` of slices ``(B, C, H, W)``: 0 for true slices, up to 0.5."""
        return self.layers(pad_to_multiple(image, self.multiple)).mean(dim=(1, 2, 3))
