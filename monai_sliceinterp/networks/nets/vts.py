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

"""Virtual Thin Slice (VTS): a 3D conditional GAN that synthesizes thin slices from thick ones.

Kudo A, Kitamura Y, Li Y, Iizuka S, Simo-Serra E: Virtual Thin Slice: 3D Conditional GAN-based Super-Resolution for CT
Slice Interval.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from monai_sliceinterp import checks
from monai_sliceinterp.networks.blocks.autoencoder import pad_to_multiple
from monai_sliceinterp.networks.blocks.normalization import FreezableNormalization
from monai_sliceinterp.networks.blocks.volumetric import DoublingBlock, HalvingBlock, SelfAttentionBlock

__all__ = ["CONDITION_CHANNELS", "VTSDiscriminator", "VTSGenerator", "VolumeTranslator"]

CONDITION_CHANNELS = 8
"""Four body parts, two slice intervals, two scales of the slab width (VTS, section 3.4)."""


class VolumeTranslator(FreezableNormalization):
    """Base of networks that restore a thin-slice volume from a thick-slice volume on the same grid.

    A subclass defines :meth:`translate` and sets ``multiple``; sizes are padded to its multiples internally.

    Args:
        intensity_center: intensity, on the input's scale, that the network sees as 0.
        intensity_scale: difference of intensity that it sees as 1. With the window [-2048, 2048] HU scaled to [0, 1],
            the defaults show it the paper's [-1, 1].
        in_plane_spacing: size in mm of the pixels it is trained on, which inferers then show it, 1 in the paper; 0:
            any.

    Raises:
        ValueError: if the scale is not positive, or ``in_plane_spacing`` negative.

    Example:
        >>> class Square(VolumeTranslator):
        ...     def translate(self, image):
        ...         return image.square()
        >>> Square()(torch.full((1, 1, 2, 2, 2), 0.75)).mean().item()
        0.625
    """

    multiple = 1

    def __init__(
        self, intensity_center: float = 0.5, intensity_scale: float = 0.5, in_plane_spacing: float = 0.0
    ) -> None:
        super().__init__()
        self.intensity_center = intensity_center
        self.in_plane_spacing = checks.not_negative("in_plane_spacing", in_plane_spacing, "mm")
        self.intensity_scale = checks.positive("intensity_scale", intensity_scale)

    def translate(self, image: Tensor) -> Tensor:
        """Restore volumes ``(B, 1, H, W, N)`` whose sizes are multiples of ``multiple``, on the network's scale."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        """Restore volumes ``(B, 1, H, W, N)`` of any size, interpolated to the fine grid; the output has their size.

        Raises:
            ValueError: if the input is not a batch of such volumes.
        """
        if image.ndim != 5 or image.shape[1] != 1:
            raise ValueError(f"expected volumes (B, 1, H, W, N), got shape {tuple(image.shape)}.")
        padded = pad_to_multiple((image - self.intensity_center) / self.intensity_scale, self.multiple)
        height, width, count = image.shape[2:]
        result = self.translate(padded)[..., :height, :width, :count]
        return result * self.intensity_scale + self.intensity_center


class VTSGenerator(VolumeTranslator):
    """Generator of Virtual Thin Slice (section 3.2): a 3D encoder-decoder that predicts the missing high frequencies.

    Four strided convolutions halve the resolution down to 1/16; trilinear upsampling and convolutions restore it, with
    the encoder's features joined at every resolution. The output is added to the input, the thick volume interpolated
    to the fine grid by a cubic B-spline: the network predicts only the high frequencies. It is fully convolutional.

    Args:
        channels: channels at 1/2, 1/4, ... of the resolution. The paper's first is 64.
        stem_channels: channels of two convolutions at full resolution, whose features are the last skip. They and the
            last level have no normalization: beside features of unit variance, the fine detail of the image, a
            hundredth of that, would be learned very slowly. 0: the last skip is the image, all levels are normalized.
        high_frequency: add the output to the input; if false, the output is the whole intensity (the paper's ablation).
        residual_scale: factor of the output before it is added. With the default, 1 corresponds to about 200 HU, the
            magnitude of the missing detail; with 1, as in the paper, the learning rate must be ten times smaller.
        negative_slope: slope of the leaky ReLU.
        intensity_center: see :class:`VolumeTranslator`.
        intensity_scale: see :class:`VolumeTranslator`.
        in_plane_spacing: see :class:`VolumeTranslator`.

    Raises:
        ValueError: if ``channels`` is empty, or a size is not positive.

    Example:
        >>> network = VTSGenerator(channels=(4, 8)).eval()
        >>> network(torch.rand(1, 1, 30, 21, 17)).shape
        torch.Size([1, 1, 30, 21, 17])
    """

    def __init__(
        self,
        channels: Sequence[int] = (64, 128, 256, 512),
        stem_channels: int = 0,
        high_frequency: bool = True,
        residual_scale: float = 0.1,
        negative_slope: float = 0.2,
        intensity_center: float = 0.5,
        intensity_scale: float = 0.5,
        in_plane_spacing: float = 0.0,
    ) -> None:
        super().__init__(intensity_center, intensity_scale, in_plane_spacing)
        channels = checks.positive_integers("channels", channels)
        checks.positive_integer("stem_channels", stem_channels, least=0)
        self.high_frequency = checks.switch("high_frequency", high_frequency)
        self.residual_scale = checks.positive("residual_scale", residual_scale)
        self.multiple = 2 ** len(channels)
        inputs = (1, *channels[:-1])
        self.encoder = nn.ModuleList(
            HalvingBlock(before, after, negative_slope=negative_slope)
            for before, after in zip(inputs, channels, strict=True)
        )
        # from 1/16 upwards; each level has as many channels as the encoder at its resolution
        skips = (stem_channels or 1, *channels[:-1])
        outputs = (stem_channels or channels[0], *channels[:-1])
        self.decoder = nn.ModuleList(
            DoublingBlock(below, skip, out, level > 0 or not stem_channels, negative_slope)
            for level, (below, skip, out) in reversed(list(enumerate(zip(channels, skips, outputs, strict=True))))
        )
        self.stem: nn.Module = nn.Identity()
        if stem_channels:
            self.stem = nn.Sequential(
                nn.Conv3d(1, stem_channels, kernel_size=3, padding=1),
                nn.LeakyReLU(negative_slope, inplace=True),
                nn.Conv3d(stem_channels, stem_channels, kernel_size=3, padding=1),
                nn.LeakyReLU(negative_slope, inplace=True),
            )
        self.head = nn.Conv3d(outputs[0], 1, kernel_size=3 if stem_channels else 1, padding=1 if stem_channels else 0)
        if high_frequency:  # the untrained network is the identity
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        # convolutions of few channels on large volumes are much faster with channels innermost
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def translate(self, image: Tensor) -> Tensor:
        """Restore volumes on the network's scale, see :class:`VolumeTranslator`."""
        features, result = [self.stem(image)], image
        for block in self.encoder:
            result = block(result)
            features.append(result)
        result = features.pop()
        for block in self.decoder:
            result = block(result, features.pop())
        result = self.head(result)
        return image + self.residual_scale * result if self.high_frequency else result


class VTSDiscriminator(nn.Module):
    """Discriminator of Virtual Thin Slice between true and generated thin volumes, given the thick one and a condition.

    The condition (body part, slice interval, slab width) is repeated as constant channels beside the two volumes
    (section 3.4). Four strided convolutions are followed by self-attention (section 3.2) and a convolution to one
    number per patch, or one for the whole volume.

    Args:
        channels: channels at 1/2, 1/4, ... of the resolution.
        condition_channels: length of the condition vector; 0: none (the paper's ablation).
        attention: use self-attention.
        whole: average the patches to one number per volume.
        negative_slope: slope of the leaky ReLU.
        intensity_center: see :class:`VolumeTranslator`.
        intensity_scale: see :class:`VolumeTranslator`.
        in_plane_spacing: see :class:`VolumeTranslator`.

    Raises:
        ValueError: if ``channels`` is empty, or a size is not positive.

    Example:
        >>> critic = VTSDiscriminator(channels=(4, 8))
        >>> thick, thin = torch.rand(2, 2, 1, 16, 16, 16)
        >>> critic(torch.cat([thick, thin], dim=1), torch.zeros(2, 8)).shape
        torch.Size([2, 1, 4, 4, 4])
    """

    def __init__(
        self,
        channels: Sequence[int] = (64, 128, 256, 512),
        condition_channels: int = CONDITION_CHANNELS,
        attention: bool = True,
        whole: bool = False,
        negative_slope: float = 0.2,
        intensity_center: float = 0.5,
        intensity_scale: float = 0.5,
    ) -> None:
        super().__init__()
        channels = checks.positive_integers("channels", channels)
        self.condition_channels = checks.positive_integer("condition_channels", condition_channels, least=0)
        self.intensity_scale = checks.positive("intensity_scale", intensity_scale)
        self.intensity_center, self.whole = intensity_center, whole
        inputs = (2 + condition_channels, *channels[:-1])
        layers: list[nn.Module] = [
            HalvingBlock(before, after, normalize=number > 0, negative_slope=negative_slope)
            for number, (before, after) in enumerate(zip(inputs, channels, strict=True))
        ]
        if checks.switch("attention", attention):
            layers.append(SelfAttentionBlock(channels[-1]))
        layers.append(nn.Conv3d(channels[-1], 1, kernel_size=3, padding=1))
        self.layers = nn.Sequential(*layers)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Tensor:
        """Compute the logits of pairs of a thick and a thin volume.

        Args:
            image: the thick volume on the fine grid and the thin one ``(B, 2, H, W, N)``, sizes that are multiples of
                ``2 ** len(channels)``.
            condition: ``(B, condition_channels)``; None: unknown (zeros).

        Returns:
            Logits, large if the thin volume looks true: ``(B, 1, h, w, n)``, or ``(B, 1)`` for whole volumes.

        Raises:
            ValueError: if the volumes or the condition do not fit.
        """
        if image.ndim != 5 or image.shape[1] != 2:
            raise ValueError(f"expected thick and thin volumes (B, 2, H, W, N), got shape {tuple(image.shape)}.")
        scaled = (image - self.intensity_center) / self.intensity_scale
        if condition is not None and not self.condition_channels:
            raise ValueError("the discriminator takes no condition: it was created with condition_channels=0.")
        if self.condition_channels:
            if condition is None:
                condition = image.new_zeros(len(image), self.condition_channels)
            if condition.shape != (len(image), self.condition_channels):
                raise ValueError(
                    f"expected a condition ({len(image)}, {self.condition_channels}), got {tuple(condition.shape)}."
                )
            constant = condition.to(scaled)[:, :, None, None, None].expand(-1, -1, *image.shape[2:])
            scaled = torch.cat([scaled, constant], dim=1)
        result = self.layers(scaled)
        return result.mean(dim=(2, 3, 4)) if self.whole else result
