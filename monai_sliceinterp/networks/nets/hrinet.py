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

"""HRINet and the autoencoders it is measured against: feature maps of slices are mixed at several levels.

Li J, Koh JC, Lee WS: HRINet: Alternative Supervision Network for High-Resolution CT Image Interpolation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from monai_sliceinterp.networks.blocks.autoencoder import fan_in_normal_, pad_to_multiple
from monai_sliceinterp.networks.blocks.block_cosine import BlockCosineShortcut
from monai_sliceinterp.networks.nets.latent import Codes, LatentInterpolator

__all__ = ["HRINetAutoencoder", "InterpolationCritic", "VariationalHRINetAutoencoder", "gaussian_divergence"]


def _convolutions(in_channels: int, out_channels: int, negative_slope: float) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.LeakyReLU(negative_slope, inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        nn.LeakyReLU(negative_slope, inplace=True),
    ]


def _unshuffle(stem: int) -> list[nn.Module]:
    return [nn.PixelUnshuffle(stem)] if stem > 1 else []


def _shuffle(stem: int) -> list[nn.Module]:
    return [nn.PixelShuffle(stem)] if stem > 1 else []


class HRINetAutoencoder(LatentInterpolator):
    """HRINet's autoencoder: the feature maps of the lowest levels, not only the last code, are mixed (section 3.1).

    Encoder: per scale two 3x3 convolutions with leaky ReLU and 2x2 average pooling. From 1/16 of the size on, a
    convolution to few channels (the bottleneck of Figure 2b) gives one feature map per level. The decoder starts from
    the lowest one, and joins the next with what it has made at each doubling (nearest neighbor) up to 1/16. Sizes of
    the default for 256 x 256 pixels are 16 x 16 x 16, 8 x 8 x 8 and 4 x 4 x 8 (Table 1); for 512 x 512 the paper has 4
    channels at the last level.

    With one level this is the autoencoder of ACAI, or, trained without its critic, the plain autoencoder (AE).

    Slices of any height and width are accepted: they are padded inside by repeating the border and cropped again. The
    layers between the levels, their widths and the activation are not in the paper; they follow ACAI's code.

    Args:
        in_channels: image channels of a slice.
        channels: channels at full size, 1/2, 1/4, ...; after the last one follows the first level.
        latent_channels: channels of the feature map of each level.
        negative_slope: slope of the leaky ReLU.
        init_gain: scale of the first weights: 1 as in ACAI's code; the square root of 2 keeps activations from
            vanishing where nothing normalizes them, and trains faster at first.
        stem: 2 makes 2 x 2 pixels channels of one before the first convolution and takes them apart after the last one,
            so that ``channels`` begin at half the size: as deep, and twice as fast. 1: at full size.
        shortcut: run a linear transform of blocks past the convolutions, between the slice and the highest level's map,
            see :class:`monai_sliceinterp.networks.blocks.BlockCosineShortcut`. The untrained network then already
            reconstructs, and learns what the transform cannot, in a fraction of the steps.

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
    ) -> None:
        super().__init__()
        if not channels or not latent_channels or min(*channels, *latent_channels, in_channels, stem) < 1:
            raise ValueError(
                f"expected positive numbers of channels, got in_channels={in_channels}, channels={tuple(channels)}, "
                f"latent_channels={tuple(latent_channels)}, stem={stem}."
            )
        self.in_channels, self.latent_channels = in_channels, tuple(latent_channels)
        block = stem * 2 ** len(channels)
        self.multiple = block * 2 ** (len(latent_channels) - 1)
        self.encoder = nn.Sequential(*_unshuffle(stem))
        before = in_channels * stem**2
        for width in channels:
            self.encoder.extend([*_convolutions(before, width, negative_slope), nn.AvgPool2d(2)])
            before = width
        width = channels[-1]
        self.levels, self.bottlenecks = nn.ModuleList(), nn.ModuleList()
        for level, count in enumerate(latent_channels):
            self.levels.append(
                nn.Sequential(nn.AvgPool2d(2) if level else nn.Identity(), *_convolutions(width, width, negative_slope))
            )
            self.bottlenecks.append(nn.Conv2d(width, self._bottleneck_channels(count), 3, padding=1))
        self.joints = nn.ModuleList()
        above = 0
        for count in reversed(latent_channels):
            self.joints.append(
                nn.Sequential(*_convolutions(above + count, width, negative_slope), nn.Upsample(scale_factor=2))
            )
            above = width
        self.decoder = nn.Sequential()
        before = width
        for index, width in enumerate(reversed(channels)):
            if index:
                self.decoder.append(nn.Upsample(scale_factor=2))
            self.decoder.extend(_convolutions(before, width, negative_slope))
            before = width
        last = nn.Conv2d(channels[0], in_channels * stem**2, 3, padding=1)
        self.decoder.extend([last, *_shuffle(stem)])
        fan_in_normal_(self, negative_slope, gain=init_gain)
        self.shortcut: BlockCosineShortcut | None = None
        if shortcut:
            self.shortcut = BlockCosineShortcut(in_channels, block, latent_channels[0])
            for convolution in (self.bottlenecks[0], last):  # what is learned beside it begins with nothing
                nn.init.zeros_(convolution.weight)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _bottleneck_channels(self, count: int) -> int:
        """Channels that the encoder gives for a feature map of ``count`` channels."""
        return count

    def feature_maps(self, image: Tensor) -> Codes:
        """Give what the bottlenecks make of slices ``(B, C, H, W)``, from the highest level to the lowest."""
        image = pad_to_multiple(image, self.multiple)
        features = self.encoder(image)
        maps = []
        for level, bottleneck in zip(self.levels, self.bottlenecks, strict=True):
            features = level(features)
            maps.append(bottleneck(features))
        if self.shortcut is not None:
            linear = self.shortcut.encode(image)
            # a variational bottleneck gives log variances behind the means
            maps[0] = torch.cat([maps[0][:, : linear.shape[1]] + linear, maps[0][:, linear.shape[1] :]], dim=1)
        return tuple(maps)

    def encode(self, image: Tensor) -> Codes:
        """Encode slices ``(B, C, H, W)`` in [0, 1] to one feature map per level, from the highest to the lowest."""
        return self.feature_maps(image)

    def decode(self, codes: Codes, size: Sequence[int] | None = None) -> Tensor:
        """Decode feature maps to slices ``(B, C, H, W)``, cropped to ``size`` (H, W) when it is given."""
        features = codes[-1][:, :0]
        for code, joint in zip(reversed(codes), self.joints, strict=True):
            features = joint(torch.cat([features, code], dim=1))
        image = self.decoder(features)
        if self.shortcut is not None:
            image = image + self.shortcut.decode(codes[0])
        return image if size is None else image[..., : size[0], : size[1]]


class VariationalHRINetAutoencoder(HRINetAutoencoder):
    """A variational autoencoder (VAE) with the layers of :class:`HRINetAutoencoder`, for comparison.

    The bottlenecks give mean and log variance of every code. Codes are drawn from these in training mode, where losses
    need them; else, and in :meth:`encode`, they are the means.

    Args:
        in_channels: see :class:`HRINetAutoencoder`.
        channels: see :class:`HRINetAutoencoder`.
        latent_channels: see :class:`HRINetAutoencoder`; one level makes the usual VAE.
        negative_slope: see :class:`HRINetAutoencoder`.
        init_gain: see :class:`HRINetAutoencoder`.
        stem: see :class:`HRINetAutoencoder`.
        shortcut: see :class:`HRINetAutoencoder`; it leads to the means.

    Example:
        >>> network = VariationalHRINetAutoencoder(channels=(4, 4), latent_channels=(2,))
        >>> output, divergence = network(torch.rand(3, 2, 16, 16), divergence=True)
        >>> tuple(output.shape), tuple(divergence.shape)
        ((3, 1, 16, 16), (6,))
    """

    def _bottleneck_channels(self, count: int) -> int:
        return 2 * count

    def encode(self, image: Tensor) -> Codes:
        """Encode slices ``(B, C, H, W)`` in [0, 1] to the means of their codes."""
        return tuple(parameters.chunk(2, dim=1)[0] for parameters in self.feature_maps(image))

    def forward(  # type: ignore[override]
        self, image: Tensor, alpha: float | Tensor = 0.5, reconstruct: bool = False, divergence: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Synthesize as :meth:`LatentInterpolator.forward` does.

        Args:
            image: see :class:`LatentInterpolator`.
            alpha: see :class:`LatentInterpolator`.
            reconstruct: see :class:`LatentInterpolator`.
            divergence: also return the divergence of every slice's codes from a standard normal distribution
                ``(2 B,)``, see :func:`gaussian_divergence`.
        """
        self._check_pairs(image)
        means, log_variances = zip(
            *(parameters.chunk(2, dim=1) for parameters in self.feature_maps(torch.cat(image.chunk(2, dim=1)))),
            strict=True,
        )
        codes = means
        if self.training:
            codes = tuple(
                mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
                for mean, log_variance in zip(means, log_variances, strict=True)
            )
        output = self.synthesize(codes, alpha, image.shape[-2:], reconstruct)
        return (output, gaussian_divergence(means, log_variances)) if divergence else output


def gaussian_divergence(means: Codes, log_variances: Codes) -> Tensor:
    """Kullback-Leibler divergence of normal distributions from the standard one, summed over a sample's codes.

    Args:
        means: each ``(B, ...)``.
        log_variances: logarithms of the variances, of the same shapes.

    Returns:
        ``(B,)``.

    Example:
        >>> gaussian_divergence((torch.tensor([[0.0], [2.0]]),), (torch.zeros(2, 1),)).tolist()
        [0.0, 2.0]
    """
    parts = [
        0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).flatten(1).sum(dim=1)
        for mean, log_variance in zip(means, log_variances, strict=True)
    ]
    return torch.stack(parts).sum(dim=0)


class InterpolationCritic(nn.Module):
    """ACAI's critic, HRINet's D1: estimates from a slice how far it was interpolated.

    The layers of the encoder of :class:`HRINetAutoencoder`, whose output is averaged to one number.

    Args:
        in_channels: image channels of a slice.
        channels: channels at full size, 1/2, 1/4, ...
        latent_channels: channels that are averaged.
        negative_slope: slope of the leaky ReLU.
        init_gain: scale of the first weights: 1 as in ACAI's code; the square root of 2 keeps activations from
            vanishing where nothing normalizes them, and trains faster at first.
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
        if not channels or min(*channels, latent_channels, in_channels, stem) < 1:
            raise ValueError(
                f"expected positive numbers of channels, got in_channels={in_channels}, channels={tuple(channels)}, "
                f"latent_channels={latent_channels}, stem={stem}."
            )
        self.multiple = stem * 2 ** len(channels)
        self.layers = nn.Sequential(*_unshuffle(stem))
        before = in_channels * stem**2
        for width in channels:
            self.layers.extend([*_convolutions(before, width, negative_slope), nn.AvgPool2d(2)])
            before = width
        self.layers.extend(_convolutions(before, before, negative_slope))
        self.layers.append(nn.Conv2d(before, latent_channels, 3, padding=1))
        fan_in_normal_(self, negative_slope, gain=init_gain)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        """Estimate for slices ``(B, C, H, W)`` the folded coefficient ``(B,)``: 0 for real ones, up to 0.5."""
        return self.layers(pad_to_multiple(image, self.multiple)).mean(dim=(1, 2, 3))
