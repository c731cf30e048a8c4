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

"""Super-resolution along the slices by upsampling modules: what the networks that SAINT is compared with share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from monai_sliceinterp import checks
from monai_sliceinterp.networks.blocks.blended_interpolation import blended_interpolation

__all__ = ["SliceSuperResolution", "smallest_multiple"]

_ROUNDING = 1e-6
"""Positions of one phase differ by rounding from gap to gap."""


def smallest_multiple(factors: Sequence[int], alpha: Tensor) -> int:
    """Choose the smallest of a network's factors whose rows are at all positions.

    A factor that divides another is had by leaving rows out, as SAINT's authors test networks for a factor of 4 at a
    factor of 2 (section 4.1).

    Args:
        factors: upsampling factors that the network has.
        alpha: fractions of the gap, ``(M,)`` in [0, 1].

    Raises:
        ValueError: if none has rows at all positions.

    Example:
        >>> smallest_multiple((4, 6), torch.tensor([0.0, 0.5, 1.0]))
        4
        >>> smallest_multiple((4,), torch.tensor([0.2]))
        Traceback (most recent call last):
        ...
        ValueError: the network has slices at multiples of 1/4 of a gap, not at 0.2; expected a factor of 1, 2 or 4.
    """
    for factor in sorted(set(factors)):
        steps = alpha.to(torch.float64) * factor
        if bool(((steps - steps.round()).abs() <= _ROUNDING * factor).all()):
            return factor
    able = sorted({part for factor in factors for part in range(1, factor + 1) if factor % part == 0})
    rest = [float(part) for part in alpha if not any(_is_whole(float(part) * factor, factor) for factor in factors)]
    named = f"{rest[0]:.4g}" if rest else "all positions together"
    parts = " or ".join(f"1/{factor}" for factor in sorted(set(factors)))
    known = f"{', '.join(map(str, able[:-1]))} or {able[-1]}"
    raise ValueError(
        f"the network has slices at multiples of {parts} of a gap, not at {named}; expected a factor of {known}."
    )


def _is_whole(steps: float, factor: int) -> bool:
    return abs(steps - round(steps)) <= _ROUNDING * factor


class SliceSuperResolution(nn.Module):
    """Base of networks that make K times the rows of an image at once, for one or several fixed factors K.

    In 2D the images are those of a view, rows along the slice axis, each with its two neighbors (SAINT, section 3.2.3);
    in 3D they are volumes. Observed slices are copied (eq. 5). A subclass defines :meth:`upsample`.

    Args:
        spatial_dims: 2 or 3.
        factors: upsampling factors that the network has modules for.
        residual: add the network's output to :func:`blended_interpolation` of the slices, instead of synthesizing the
            whole intensity as the publications do.
        intensity_center: see :class:`monai_sliceinterp.networks.nets.AnisotropicMetaInterpolation`.
        intensity_scale: likewise.

    Raises:
        ValueError: if ``spatial_dims`` is neither 2 nor 3, or a factor is below 2.
    """

    def __init__(
        self,
        spatial_dims: int,
        factors: Sequence[int],
        residual: bool = True,
        intensity_center: float = 0.25,
        intensity_scale: float = 0.25,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}.")
        self.spatial_dims = spatial_dims
        self.factors = tuple(sorted(set(checks.positive_integers("factors", factors, least=2))))
        self.residual = checks.switch("residual", residual)
        self.intensity_center = intensity_center
        self.intensity_scale = checks.positive("intensity_scale", intensity_scale)
        self.in_channels = 3 if spatial_dims == 2 else 1

    @abstractmethod
    def upsample(self, image: Tensor, factor: int) -> Tensor:
        """Compute ``(B, 1, K N, ...)`` from images ``(B, in_channels, N, ...)`` around 0, by one of :attr:`factors`."""

    def forward(
        self,
        image: Tensor,
        factor: int = 4,
        slice_spacing: float | Tensor = 4.0,
        in_plane_spacing: float | Tensor | Sequence[float | Tensor] = 1.0,
    ) -> Tensor:
        """Interpolate images by an integer factor.

        Args:
            image: in 2D ``(B, 3, N, L)``, the previous, the current and the next image of a view, rows along the slice
                axis; in 3D ``(B, 1, H, W, N)``, slices last. Intensities in [0, 1].
            factor: upsampling factor, one of the network's or one that divides one of them.
            slice_spacing: not used: these networks do not know it.
            in_plane_spacing: likewise.

        Returns:
            ``(B, 1, K (N - 1) + 1, L)`` or ``(B, 1, H, W, K (N - 1) + 1)``.

        Raises:
            ValueError: if the image has another shape, or the network cannot do the factor.
        """
        factor = checks.positive_integer("factor", int(factor))
        rows = image.movedim(-1, 2) if self.spatial_dims == 3 and image.ndim == 5 else image
        self._check(rows, image)
        # no list of positions: a trace is valid for any number of rows
        gaps = rows.shape[2] - 1
        positions = torch.arange(factor * gaps + 1, dtype=torch.float64) / factor
        lower = positions.floor().long().clamp(max=gaps - 1)
        known = smallest_multiple(self.factors, torch.arange(factor, dtype=torch.float64) / factor)
        result = self._synthesize(rows, lower, positions - lower, known)[:, None]
        return result.movedim(2, -1) if self.spatial_dims == 3 else result

    def interpolate(
        self,
        image: Tensor,
        lower: Tensor,
        alpha: Tensor,
        slice_spacing: float | Tensor = 4.0,
        in_plane_spacing: float | Tensor = 1.0,
        step: float = 0.0,
    ) -> Tensor:
        """Interpolate images at positions on the grid of one of the network's factors.

        Args:
            image: ``(B, in_channels, N, ...)``, rows or slices first.
            lower: index of the row before each position, ``(M,)`` int64, ascending, at most N - 2.
            alpha: fraction of the gap from that row, ``(M,)`` in [0, 1]. Positions on a row (0 or 1) copy it.
            slice_spacing: not used.
            in_plane_spacing: not used.
            step: not used.

        Returns:
            ``(B, M, ...)``.

        Raises:
            ValueError: if the image has another shape, or none of the factors has rows at all positions.
        """
        self._check(image, image)
        return self._synthesize(image, lower, alpha, smallest_multiple(self.factors, alpha))

    def _check(self, rows: Tensor, image: Tensor) -> None:
        if rows.ndim != 2 + self.spatial_dims or rows.shape[1] != self.in_channels or rows.shape[2] < 2:
            expected = (
                "images with both neighbors (B, 3, N, L)" if self.spatial_dims == 2 else "volumes (B, 1, H, W, N)"
            )
            raise ValueError(f"expected {expected} and N of 2 or more, got shape {tuple(image.shape)}.")

    def _synthesize(self, image: Tensor, lower: Tensor, alpha: Tensor, factor: int) -> Tensor:
        """Compute the rows ``(B, M, ...)`` at positions on the grid of a factor."""
        center = image[:, self.in_channels // 2]
        memory_format = torch.channels_last if self.spatial_dims == 2 else torch.channels_last_3d
        scaled = ((image - self.intensity_center) / self.intensity_scale).contiguous(memory_format=memory_format)
        index = (lower * factor + (alpha * factor).round().long()).to(image.device)
        learned = self.upsample(scaled, factor)[:, 0, index]
        if self.residual:
            base = blended_interpolation(center.flatten(2), lower, alpha).unflatten(2, center.shape[2:])
        else:
            base = torch.full_like(learned, self.intensity_center, dtype=center.dtype)
        result = base + self.intensity_scale * learned.to(base.dtype)
        nearest = (lower + alpha.round().long()).to(image.device)
        observed = ((alpha - alpha.round()).abs() < _ROUNDING).to(image.device)
        return torch.where(observed.reshape(-1, *[1] * (center.ndim - 2)), center[:, nearest], result)

    def _prepare(self, last: nn.Module) -> None:
        """Start near the interpolation that the output is added to; put channels innermost, which is faster."""
        if self.residual:
            with torch.no_grad():
                last.weight.mul_(0.1)  # type: ignore[operator]
                last.bias.zero_()  # type: ignore[operator]
        memory_format = torch.channels_last if self.spatial_dims == 2 else torch.channels_last_3d
        self.to(memory_format=memory_format)  # type: ignore[call-overload]
