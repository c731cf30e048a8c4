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

"""Variational autoencoders of slices, with which HRINet and ASI are compared."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from monai_sliceinterp.networks.nets.asi import ASIAutoencoder
from monai_sliceinterp.networks.nets.hrinet import HRINetAutoencoder
from monai_sliceinterp.networks.nets.latent import Codes, LatentInterpolator

__all__ = [
    "VariationalASIAutoencoder",
    "VariationalHRINetAutoencoder",
    "VariationalInterpolator",
    "gaussian_divergence",
]


class VariationalInterpolator(LatentInterpolator):
    """Base of variational autoencoders (VAE) of slices, whose codes are normal distributions.

    A subclass defines :meth:`distributions` and ``decode``. In training mode codes are sampled from their
    distributions; in evaluation mode, and in :meth:`encode`, they are the means.

    Example:
        >>> class Squares(VariationalInterpolator):
        ...     in_channels = 1
        ...
        ...     def distributions(self, image):
        ...         return (image.square(),), (torch.zeros_like(image),)
        ...
        ...     def decode(self, codes, size=None):
        ...         return codes[0].sqrt()
        >>> Squares().eval()(torch.tensor([1.0, 7.0]).reshape(1, 2, 1, 1)).item()
        5.0
    """

    @abstractmethod
    def distributions(self, image: Tensor) -> tuple[Codes, Codes]:
        """Compute means and log variances of the codes of slices ``(B, C, H, W)``."""

    def encode(self, image: Tensor) -> Codes:
        """Encode slices ``(B, C, H, W)`` in [0, 1] to the means of their codes."""
        return self.distributions(image)[0]

    def forward(  # type: ignore[override]
        self, image: Tensor, alpha: float | Tensor = 0.5, reconstruct: bool = False, divergence: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Synthesize the slice at ``alpha`` between the two slices of each pair, as :class:`LatentInterpolator` does.

        Args:
            image: see :class:`LatentInterpolator`.
            alpha: see :class:`LatentInterpolator`.
            reconstruct: see :class:`LatentInterpolator`.
            divergence: also return the divergence of every slice's codes from a standard normal distribution
                ``(2 B,)``, see :func:`gaussian_divergence`.
        """
        self._check_pairs(image)
        means, log_variances = self.distributions(torch.cat(image.chunk(2, dim=1)))
        codes = means
        if self.training:
            codes = tuple(
                mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
                for mean, log_variance in zip(means, log_variances, strict=True)
            )
        output = self.synthesize(codes, alpha, image.shape[-2:], reconstruct)
        return (output, gaussian_divergence(means, log_variances)) if divergence else output


class VariationalHRINetAutoencoder(VariationalInterpolator, HRINetAutoencoder):
    """Variational autoencoder (VAE) with the layers of :class:`HRINetAutoencoder`, for comparison.

    The bottlenecks return mean and log variance of every code, see :class:`VariationalInterpolator`.

    Args:
        in_channels: see :class:`HRINetAutoencoder`.
        channels: see :class:`HRINetAutoencoder`.
        latent_channels: see :class:`HRINetAutoencoder`; one level makes the usual VAE.
        negative_slope: see :class:`HRINetAutoencoder`.
        init_gain: see :class:`HRINetAutoencoder`.
        stem: see :class:`HRINetAutoencoder`.
        shortcut: see :class:`HRINetAutoencoder`; it leads to the means.
        in_plane_size: see :class:`HRINetAutoencoder`.

    Example:
        >>> network = VariationalHRINetAutoencoder(channels=(4, 4), latent_channels=(2,))
        >>> output, divergence = network(torch.rand(3, 2, 16, 16), divergence=True)
        >>> tuple(output.shape), tuple(divergence.shape)
        ((3, 1, 16, 16), (6,))
    """

    def _bottleneck_channels(self, count: int) -> int:
        return 2 * count

    def distributions(self, image: Tensor) -> tuple[Codes, Codes]:
        """Compute means and log variances of the codes of slices ``(B, C, H, W)`` in [0, 1], level by level."""
        means, log_variances = zip(*(maps.chunk(2, dim=1) for maps in self.feature_maps(image)), strict=True)
        return means, log_variances


class VariationalASIAutoencoder(VariationalInterpolator, ASIAutoencoder):
    """Variational autoencoder (VAE) with the layers of :class:`ASIAutoencoder`, for comparison (ASI, section VI-A).

    Two linear layers of the encoder's output give means and log variances, at every place of the code alike, so that
    slices of any size are accepted.

    Args:
        in_channels: see :class:`ASIAutoencoder`.
        channels: see :class:`ASIAutoencoder`.
        latent_channels: see :class:`ASIAutoencoder`.
        negative_slope: see :class:`ASIAutoencoder`.

    Example:
        >>> network = VariationalASIAutoencoder(channels=(4, 4), latent_channels=2)
        >>> output, divergence = network(torch.rand(3, 2, 16, 16), divergence=True)
        >>> tuple(output.shape), tuple(divergence.shape)
        ((3, 1, 16, 16), (6,))
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: Sequence[int] = (32, 64),
        latent_channels: int = 128,
        negative_slope: float = 0.2,
    ) -> None:
        super().__init__(in_channels, channels, latent_channels, negative_slope)
        self.mean, self.log_variance = (nn.Conv2d(latent_channels, latent_channels, 1) for _ in range(2))

    def distributions(self, image: Tensor) -> tuple[Codes, Codes]:
        """Compute mean and log variance of the code of slices ``(B, C, H, W)`` in [0, 1]."""
        (features,) = ASIAutoencoder.encode(self, image)
        return (self.mean(features),), (self.log_variance(features),)


def gaussian_divergence(means: Codes, log_variances: Codes) -> Tensor:
    """Compute the Kullback-Leibler divergence of normal distributions from the standard one.

    Args:
        means: each ``(B, ...)``.
        log_variances: logarithms of the variances, of the same shapes.

    Returns:
        The divergence of each sample, summed over its codes, ``(B,)``.

    Example:
        >>> gaussian_divergence((torch.tensor([[0.0], [2.0]]),), (torch.zeros(2, 1),)).tolist()
        [0.0, 2.0]
    """
    parts = [
        0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).flatten(1).sum(dim=1)
        for mean, log_variance in zip(means, log_variances, strict=True)
    ]
    return torch.stack(parts).sum(dim=0)
