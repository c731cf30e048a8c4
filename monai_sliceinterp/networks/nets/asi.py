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

"""Autoencoding for Semantic Interpolation (ASI): slices are mixed in the latent space of a convolutional autoencoder.

Sander J, de Vos BD, Isgum I: Autoencoding Low-Resolution MRI for Semantically Smooth Interpolation of Anisotropic MRI.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from monai_sliceinterp import checks
from monai_sliceinterp.networks.blocks.autoencoder import DecoderBlock, EncoderBlock, fan_in_normal_, pad_to_multiple
from monai_sliceinterp.networks.blocks.normalization import FreezableNormalization
from monai_sliceinterp.networks.nets.latent import Codes, LatentInterpolator
from monai_sliceinterp.precision import PreciseConv2d

__all__ = ["ASIAutoencoder", "ResidualASIAutoencoder"]


class ASIAutoencoder(FreezableNormalization, LatentInterpolator):
    """Convolutional autoencoder of ASI, as in section III-B of the paper.

    The encoder has a block of two 3x3 convolutions, batch normalization and 2x2 average pooling per entry of
    ``channels``, then two convolutions to the latent code, the last one linear. The decoder mirrors it with
    nearest-neighbor upsampling, and ends in a sigmoid. With the default sizes the code has 128 channels at a quarter of
    the in-plane size, an overcomplete representation, and the network has 434,785 parameters.

    Slices of any height and width are accepted: they are padded internally by repeating the border, and cropped again.

    Args:
        in_channels: image channels of a slice, 1 for a gray-value scan.
        channels: number of kernels of each pooled block.
        latent_channels: channels of the code.
        negative_slope: slope of the leaky ReLU for negative inputs.
        in_plane_spacing: size in mm of the pixels it is trained on, which inferers then show it, 1.4 in the paper; 0:
            any.

    Raises:
        ValueError: if ``channels`` is empty, any size is not positive, or ``in_plane_spacing`` negative.

    Example:
        >>> network = ASIAutoencoder().eval()
        >>> slices = torch.rand(2, 1, 61, 47)  # two neighboring slices, intensities in [0, 1]
        >>> codes = network.encode(slices)
        >>> network.decode(codes, size=(61, 47)).shape
        torch.Size([2, 1, 61, 47])
        >>> network(torch.rand(3, 2, 61, 47), alpha=0.25).shape  # three pairs, one slice synthesized for each
        torch.Size([3, 1, 61, 47])
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: Sequence[int] = (32, 64),
        latent_channels: int = 128,
        negative_slope: float = 0.2,
        in_plane_spacing: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_plane_spacing = checks.not_negative("in_plane_spacing", in_plane_spacing, "mm")
        self.in_channels = checks.positive_integer("in_channels", in_channels)
        channels = checks.positive_integers("channels", channels)
        checks.positive_integer("latent_channels", latent_channels)
        self.multiple = 2 ** len(channels)
        sizes = (in_channels, *channels)
        self.encoder = nn.Sequential(
            *(EncoderBlock(before, after, negative_slope) for before, after in zip(sizes, sizes[1:], strict=False)),
            nn.Conv2d(channels[-1], latent_channels, 3, padding=1),
            nn.LeakyReLU(negative_slope, inplace=True),
            nn.Conv2d(latent_channels, latent_channels, 3, padding=1),
        )
        sizes = (latent_channels, *reversed(channels))
        self.decoder = nn.Sequential(
            *(DecoderBlock(before, after, negative_slope) for before, after in zip(sizes, sizes[1:], strict=False)),
            nn.Conv2d(channels[0], channels[0], 3, padding=1),
            nn.LeakyReLU(negative_slope, inplace=True),
            PreciseConv2d(channels[0], in_channels, 3, padding=1),
        )
        fan_in_normal_(self, negative_slope)
        # convolutions of few channels on large planes are much faster with channels innermost, on CPU and GPU
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, image: Tensor) -> Codes:
        """Encode slices ``(B, C, H, W)`` in [0, 1] to one code ``(B, latent_channels, h, w)``."""
        return (self.encoder(pad_to_multiple(image, self.multiple)),)

    def decode(self, codes: Codes, size: Sequence[int] | None = None) -> Tensor:
        """Decode codes to slices ``(B, C, H, W)`` in (0, 1), cropped to ``size`` (H, W) if it is given."""
        image = torch.sigmoid(self.decoder(codes[0]))
        return image if size is None else image[..., : size[0], : size[1]]


class ResidualASIAutoencoder(ASIAutoencoder):
    """Autoencoder of ASI that interpolates the residuals of its reconstructions linearly.

    This is not in the paper. The code of a slice x contains, beside the latent code z, the residual x - g(z) of its
    reconstruction; mixing two codes mixes the residuals linearly, and decoding adds them back. The synthesized slice is
    thus the linear blend of both slices plus the difference between the decoded mixture and the blend of both
    reconstructions: it equals the observed slices at both ends of the gap, and fine detail does not depend on the
    bottleneck. The layers are those of :class:`ASIAutoencoder`, so that weights of one load into the other; training
    needs only the synthesis loss, as reconstructions are exact. Values outside [0, 1] are preserved.

    Args:
        in_channels: image channels of a slice, 1 for a gray-value scan.
        channels: number of kernels of each pooled block.
        latent_channels: channels of the code.
        negative_slope: slope of the leaky ReLU for negative inputs.
        in_plane_spacing: see :class:`ASIAutoencoder`.

    Example:
        >>> network = ResidualASIAutoencoder().eval()
        >>> pair = torch.rand(1, 2, 30, 30)
        >>> torch.allclose(network(pair, alpha=0.0), pair[:, :1], atol=1e-6)
        True
    """

    def encode(self, image: Tensor) -> Codes:
        """Encode slices ``(B, C, H, W)`` to a latent code and the residual ``(B, C, H, W)`` of its reconstruction."""
        codes = super().encode(image)
        return (*codes, image - super().decode(codes, image.shape[-2:]))

    def decode(self, codes: Codes, size: Sequence[int] | None = None) -> Tensor:
        """Decode codes to slices ``(B, C, H, W)`` and add the residual; cropped to ``size`` (H, W) if it is given."""
        code, residual = codes
        height, width = residual.shape[-2:] if size is None else size
        return super().decode((code,), (height, width)) + residual[..., :height, :width]

    def forward(self, image: Tensor, alpha: float | Tensor = 0.5, reconstruct: bool = False) -> Tensor:
        """Synthesize slices as :class:`ASIAutoencoder` does; reconstructions are the slices of the pair themselves."""
        between = super().forward(image, alpha)
        return torch.cat([image, between], dim=1) if reconstruct else between
