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

"""Base of networks that interpolate slices by mixing latent codes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Codes", "LatentInterpolator", "mix_codes"]

Codes = tuple[Tensor, ...]
"""Codes of a batch of slices: one or more feature maps ``(B, ...)``, for instance one per level."""


def mix_codes(earlier: Codes, later: Codes, alpha: float | Tensor) -> Codes:
    """Mix the codes of two slices by the convex combination ``(1 - alpha) * earlier + alpha * later`` (ASI, eq. 1).

    Args:
        earlier: codes of the earlier slices, each ``(B, ...)``.
        later: codes of the later slices, of the same shapes.
        alpha: fraction of the gap from the earlier slice, in [0, 1]; one number, or one per sample ``(B,)``.

    Returns:
        The mixed codes, of the same shapes.

    Example:
        >>> mixed = mix_codes((torch.zeros(2, 1),), (torch.ones(2, 1),), torch.tensor([0.25, 1.0]))
        >>> mixed[0].tolist()
        [[0.25], [1.0]]
    """
    mixed = []
    for first, second in zip(earlier, later, strict=True):
        weight = torch.as_tensor(alpha, dtype=first.dtype, device=first.device)
        mixed.append(torch.lerp(first, second, weight.reshape(-1, *[1] * (first.ndim - 1))))
    return tuple(mixed)


class LatentInterpolator(nn.Module):
    """Base of networks that encode slices, mix the codes of two of them and decode the mixture.

    A subclass sets ``in_channels`` and defines :meth:`encode` and :meth:`decode`. :meth:`forward` is for training,
    export and checks; whole volumes are interpolated by :class:`monai_sliceinterp.inferers.LatentSliceInferer`, which
    encodes every slice only once.

    Example:
        >>> class Squares(LatentInterpolator):
        ...     in_channels = 1
        ...
        ...     def encode(self, image):
        ...         return (image.square(),)
        ...
        ...     def decode(self, codes, size=None):
        ...         return codes[0].sqrt()
        >>> pair = torch.tensor([1.0, 7.0]).reshape(1, 2, 1, 1)
        >>> Squares()(pair, alpha=0.5).item()
        5.0
    """

    in_channels: int

    @abstractmethod
    def encode(self, image: Tensor) -> Codes:
        """Encode slices ``(B, C, H, W)`` to codes of batch size B."""

    @abstractmethod
    def decode(self, codes: Codes, size: Sequence[int] | None = None) -> Tensor:
        """Decode codes to slices ``(B, C, H, W)``, cropped to ``size`` (H, W) if it is given."""

    def mix(self, earlier: Codes, later: Codes, alpha: float | Tensor) -> Codes:
        """Mix the codes of two slices; see :func:`mix_codes`."""
        return mix_codes(earlier, later, alpha)

    def forward(self, image: Tensor, alpha: float | Tensor = 0.5, reconstruct: bool = False) -> Tensor:
        """Synthesize the slice at ``alpha`` between the two slices of each pair.

        Args:
            image: pairs of slices ``(B, 2 C, H, W)``: the earlier slice's C channels, then the later slice's.
            alpha: fraction of the gap from the earlier slice, in [0, 1]; one number, one per pair ``(B,)``, or several
                per pair ``(B, T)``.
            reconstruct: also return the reconstructions of both slices, which the training losses need.

        Returns:
            The synthesized slices ``(B, C, H, W)``, or ``(B, T C, H, W)``; with ``reconstruct`` the channels hold the
            reconstruction of the earlier slice, of the later slice, and the synthesized ones: ``(B, (2 + T) C, H, W)``.

        Raises:
            ValueError: if the number of channels is not twice ``in_channels``.
        """
        self._check_pairs(image)
        codes = self.encode(torch.cat(image.chunk(2, dim=1)))
        return self.synthesize(codes, alpha, image.shape[-2:], reconstruct)

    def synthesize(self, codes: Codes, alpha: float | Tensor, size: Sequence[int], reconstruct: bool = False) -> Tensor:
        """Synthesize slices from the codes of the earlier slices, followed by the later ones; see :meth:`forward`."""
        pairs = codes[0].shape[0] // 2
        if isinstance(alpha, Tensor) and (alpha.ndim > 2 or (alpha.ndim and alpha.numel() > 1 and len(alpha) != pairs)):
            raise ValueError(
                f"alpha must be a number, ({pairs},) or ({pairs}, T) for {pairs} pairs, got shape {tuple(alpha.shape)}."
            )
        earlier, later = tuple(code[:pairs] for code in codes), tuple(code[pairs:] for code in codes)
        count = 1
        if isinstance(alpha, Tensor) and alpha.ndim == 2:  # one after another, each for all pairs
            count = alpha.shape[1]
            earlier, later = (
                tuple(code.repeat(count, *[1] * (code.ndim - 1)) for code in part) for part in (earlier, later)
            )
            alpha = alpha.T.flatten()
        mixed = self.mix(earlier, later, alpha)
        if not reconstruct:
            decoded = self.decode(mixed, size)
            return decoded if count == 1 else torch.cat(decoded.chunk(count), dim=1)
        # one decoder call for all, so that batch normalization sees reconstructions and mixtures alike
        decoded = self.decode(tuple(torch.cat(parts) for parts in zip(codes, mixed, strict=True)), size)
        return torch.cat(decoded.chunk(2 + count), dim=1)

    def _check_pairs(self, image: Tensor) -> None:
        if image.shape[1] != 2 * self.in_channels:
            raise ValueError(
                f"a pair of slices needs {2 * self.in_channels} channels (2 x in_channels), got {image.shape[1]}."
            )
