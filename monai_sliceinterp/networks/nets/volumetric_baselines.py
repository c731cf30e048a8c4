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

"""SRCNN and Pix2Pix in 3D, with which Virtual Thin Slice is compared (section 4.2 of its paper)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn
from torch.nn import functional as F

from monai_sliceinterp import checks
from monai_sliceinterp.networks.blocks.volumetric import HalvingBlock
from monai_sliceinterp.networks.nets.vts import VolumeTranslator

__all__ = ["SRCNN3D", "Pix2Pix3D"]


class SRCNN3D(VolumeTranslator):
    """SRCNN's 9-1-5 network with three-dimensional kernels: three convolutions and two ReLUs.

    Args:
        channels: channels after the first and the second layer; the original has 64 and 32.
        intensity_center: see :class:`monai_sliceinterp.networks.nets.VolumeTranslator`.
        intensity_scale: see :class:`monai_sliceinterp.networks.nets.VolumeTranslator`.
        in_plane_spacing: see :class:`monai_sliceinterp.networks.nets.VolumeTranslator`.

    Raises:
        ValueError: if ``channels`` is not a pair of positive numbers.

    Example:
        >>> SRCNN3D(channels=(4, 2))(torch.rand(1, 1, 12, 10, 9)).shape
        torch.Size([1, 1, 12, 10, 9])
    """

    def __init__(
        self,
        channels: Sequence[int] = (64, 32),
        intensity_center: float = 0.5,
        intensity_scale: float = 0.5,
        in_plane_spacing: float = 0.0,
    ) -> None:
        super().__init__(intensity_center, intensity_scale, in_plane_spacing)
        checks.positive_integers("channels", channels, count=2)
        self.layers = nn.Sequential(
            # replicated borders: zeros would darken or brighten the volume towards its faces
            nn.Conv3d(1, channels[0], 9, padding=4, padding_mode="replicate"),
            nn.ReLU(inplace=True),
            nn.Conv3d(channels[0], channels[1], 1),
            nn.ReLU(inplace=True),
            nn.Conv3d(channels[1], 1, 5, padding=2, padding_mode="replicate"),
        )
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def translate(self, image: Tensor) -> Tensor:
        """Restore volumes on the network's scale, see :class:`monai_sliceinterp.networks.nets.VolumeTranslator`."""
        return self.layers(image)


class Pix2Pix3D(VolumeTranslator):
    """Generator of Pix2Pix with 4x4x4 kernels: strided convolutions down to one voxel, and transposed ones back.

    The U-Net of Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", in 3D: leaky ReLU
    downwards, ReLU and dropout of the innermost levels upwards, skips by concatenation, tanh at the end.

    Args:
        channels: channels of the first level; each level doubles them, up to eight times as many.
        size: size of the training volumes, a power of two; after ``log2(size)`` levels one voxel is left.
        dropout: dropout probability of the two innermost levels above the bottom.
        negative_slope: slope of the leaky ReLU.
        intensity_center: see :class:`monai_sliceinterp.networks.nets.VolumeTranslator`.
        intensity_scale: see :class:`monai_sliceinterp.networks.nets.VolumeTranslator`.
        in_plane_spacing: see :class:`monai_sliceinterp.networks.nets.VolumeTranslator`.

    Raises:
        ValueError: if ``channels`` is not positive, or ``size`` not a power of two of at least 4.

    Example:
        >>> Pix2Pix3D(channels=4, size=16).eval()(torch.rand(1, 1, 16, 16, 9)).shape
        torch.Size([1, 1, 16, 16, 9])
    """

    def __init__(
        self,
        channels: int = 64,
        size: int = 128,
        dropout: float = 0.5,
        negative_slope: float = 0.2,
        intensity_center: float = 0.5,
        intensity_scale: float = 0.5,
        in_plane_spacing: float = 0.0,
    ) -> None:
        super().__init__(intensity_center, intensity_scale, in_plane_spacing)
        checks.positive_integer("channels", channels)
        if size < 4 or size & (size - 1):
            raise ValueError(f"size must be a power of two of at least 4, got {size!r}.")
        levels = size.bit_length() - 1
        self.multiple = size
        widths = [channels * min(2**level, 8) for level in range(levels)]
        inputs = [1, *widths[:-1]]
        # a single voxel has no statistics: the outermost and the innermost level go without normalization
        self.encoder = nn.ModuleList(
            HalvingBlock(before, after, 0 < level < levels - 1, negative_slope)
            for level, (before, after) in enumerate(zip(inputs, widths, strict=True))
        )
        self.decoder = nn.ModuleList()
        for level in reversed(range(levels)):
            below = widths[level] if level == levels - 1 else 2 * widths[level]
            self.decoder.append(
                Convolution(
                    spatial_dims=3,
                    in_channels=below,
                    out_channels=inputs[level],
                    strides=2,
                    kernel_size=4,
                    padding=1,
                    output_padding=0,
                    is_transposed=True,
                    conv_only=level == 0,
                    adn_ordering="ND",
                    norm="batch",
                    dropout=dropout if levels - 4 < level < levels - 1 else None,
                    bias=level == 0,
                )
            )
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def translate(self, image: Tensor) -> Tensor:
        """Restore volumes on the network's scale, see :class:`monai_sliceinterp.networks.nets.VolumeTranslator`."""
        features = [image]
        for block in self.encoder:
            features.append(block(features[-1]))
        result = features.pop()
        for block in self.decoder[:-1]:
            result = torch.cat([block(F.relu(result)), features.pop()], dim=1)
        return torch.tanh(self.decoder[-1](F.relu(result)))
