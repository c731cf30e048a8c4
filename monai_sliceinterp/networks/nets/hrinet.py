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

"""HRINet: the feature maps of slices are mixed at several levels of an autoencoder.

Li J, Koh JC, Lee WS: HRINet: Alternative Supervision Network for High-Resolution CT Image Interpolation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from monai_sliceinterp import checks
from monai_sliceinterp.networks.blocks.autoencoder import (
    convolution_pair,
    fan_in_normal_,
    pad_to_multiple,
    shuffle,
    unshuffle,
)
from monai_sliceinterp.networks.blocks.block_cosine import BlockCosineShortcut
from monai_sliceinterp.networks.nets.latent import Codes, LatentInterpolator
from monai_sliceinterp.precision import PreciseConv2d

__all__ = ["HRINetAutoencoder"]


class HRINetAutoencoder(LatentInterpolator):
    """Slice autoencoder of HRINet, whose feature maps of the lowest levels are mixed, not only the code (section 3.1).

    The encoder has two 3x3 convolutions with leaky ReLU and 2x2 average pooling per scale. From 1/16 of the size on, a
    convolution to few channels (the bottleneck of Figure 2b) gives one feature map per level. The decoder starts from
    the lowest map and joins its features with the next map at each doubling (nearest neighbor) up to 1/16. Sizes of the
    default for 256 x 256 pixels are 16 x 16 x 16, 8 x 8 x 8 and 4 x 4 x 8 (Table 1); for 512 x 512 the paper has 4
    channels at the last level.

    With one level this is the autoencoder of ACAI or, trained without its critic, the plain autoencoder (AE).

    Slices of any height and width are accepted: they are padded internally by repeating the border, and cropped again.
    The layers between the levels, their widths and the activation are not in the paper; they follow ACAI's code.

    Args:
        in_channels: image channels of a slice.
        channels: channels at full size, 1/2, 1/4, ...; the first level follows the last one.
        latent_channels: channels of the feature map of each level.
        negative_slope: slope of the leaky ReLU.
        init_gain: scale of the first weights: 1 as in ACAI's code; the square root of 2 keeps activations from
            vanishing without normalization, and trains faster at first.
        stem: 2 rearranges 2 x 2 pixels into channels before the first convolution and back after the last one, so that
            ``channels`` begin at half the size: as deep, and twice as fast. 1: at full size.
        shortcut: add a linear transform of pixel blocks parallel to the convolutions, between the slice and the highest
            level's map, see :class:`monai_sliceinterp.networks.blocks.BlockCosineShortcut`. The untrained network then
            reconstructs already, and learns what the transform cannot, in a fraction of the steps.
        in_plane_size: height and width that slices are resized to before it is trained on them, which inferers then
            show it, 256 or 512 in the paper; 0: any.

    Raises:
        ValueError: if ``channels`` or ``latent_channels`` is empty or has a number that is not positive, or ``stem`` is
            not positive.

    Example:
        >>> network = HRINetAutoencoder(channels=(4, 4, 8, 8)).eval()
        >>> [tuple(code.shape[1:]) for code in network.encode(torch.rand(1, 1, 256, 256))]
        [(16, 16, 16), (8, 8, 8), (8, 4, 4)]
        >>> network(torch.rand(2, 2, 100, 61), alpha=0.25).shape
        torch.Size([2, 1, 100, 61])
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: Sequence[int] = (32, 64, 128, 256),
        latent_channels: Sequence[int] = (16, 8, 8),
        negative_slope: float = 0.2,
        init_gain: float = 1.0,
        stem: int = 1,
        shortcut: bool = False,
        in_plane_size: int = 0,
    ) -> None:
        super().__init__()
        self.in_plane_size = checks.positive_integer("in_plane_size", in_plane_size, least=0)
        self.in_channels = checks.positive_integer("in_channels", in_channels)
        channels = checks.positive_integers("channels", channels)
        self.latent_channels = latent_channels = checks.positive_integers("latent_channels", latent_channels)
        checks.positive_integer("stem", stem)
        block = stem * 2 ** len(channels)
        self.multiple = block * 2 ** (len(latent_channels) - 1)
        self.encoder = nn.Sequential(*unshuffle(stem))
        before = in_channels * stem**2
        for width in channels:
            self.encoder.extend([*convolution_pair(before, width, negative_slope), nn.AvgPool2d(2)])
            before = width
        width = channels[-1]
        self.levels, self.bottlenecks = nn.ModuleList(), nn.ModuleList()
        for level, count in enumerate(latent_channels):
            self.levels.append(
                nn.Sequential(
                    nn.AvgPool2d(2) if level else nn.Identity(), *convolution_pair(width, width, negative_slope)
                )
            )
            self.bottlenecks.append(nn.Conv2d(width, self._bottleneck_channels(count), 3, padding=1))
        self.joints = nn.ModuleList()
        above = 0
        for count in reversed(latent_channels):
            self.joints.append(
                nn.Sequential(*convolution_pair(above + count, width, negative_slope), nn.Upsample(scale_factor=2))
            )
            above = width
        self.decoder = nn.Sequential()
        before = width
        for index, width in enumerate(reversed(channels)):
            if index:
                self.decoder.append(nn.Upsample(scale_factor=2))
            self.decoder.extend(convolution_pair(before, width, negative_slope))
            before = width
        last = PreciseConv2d(channels[0], in_channels * stem**2, 3, padding=1)
        self.decoder.extend([last, *shuffle(stem)])
        fan_in_normal_(self, negative_slope, gain=init_gain)
        self.shortcut: BlockCosineShortcut | None = None
        if checks.switch("shortcut", shortcut):
            self.shortcut = BlockCosineShortcut(in_channels, block, latent_channels[0])
            for convolution in (self.bottlenecks[0], last):  # the convolutions contribute nothing at first
                nn.init.zeros_(convolution.weight)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _bottleneck_channels(self, count: int) -> int:
        """Compute the number of bottleneck channels for a feature map of ``count`` channels."""
        return count

    def feature_maps(self, image: Tensor) -> Codes:
        """Compute the output of the bottlenecks for slices ``(B, C, H, W)``, from the highest level to the lowest."""
        image = pad_to_multiple(image, self.multiple)
        features = self.encoder(image)
        maps = []
        for level, bottleneck in zip(self.levels, self.bottlenecks, strict=True):
            features = level(features)
            maps.append(bottleneck(features))
        if self.shortcut is not None:
            linear = self.shortcut.encode(image)
            # a variational bottleneck returns log variances behind the means
            maps[0] = torch.cat([maps[0][:, : linear.shape[1]] + linear, maps[0][:, linear.shape[1] :]], dim=1)
        return tuple(maps)

    def encode(self, image: Tensor) -> Codes:
        """Encode slices ``(B, C, H, W)`` in [0, 1] to one feature map per level, from the highest to the lowest."""
        return self.feature_maps(image)

    def decode(self, codes: Codes, size: Sequence[int] | None = None) -> Tensor:
        """Decode feature maps to slices ``(B, C, H, W)``, cropped to ``size`` (H, W) if it is given."""
        features = codes[-1][:, :0]
        for code, joint in zip(reversed(codes), self.joints, strict=True):
            features = joint(torch.cat([features, code], dim=1))
        image = self.decoder(features)
        if self.shortcut is not None:
            image = image + self.shortcut.decode(codes[0])
        return image if size is None else image[..., : size[0], : size[1]]
