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

"""The output grid: where the slices of an interpolated volume lie between those of its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from monai_sliceinterp.checks import positive, positive_integer
from monai_sliceinterp.geometry.affine import SPACING_TIE, scaled_affine
from monai_sliceinterp.geometry.slices import SliceGeometry, check_slice_positions

__all__ = ["FLOAT32_TOLERANCE", "GRID_TOLERANCE", "OutputGrid", "paste_observed"]

GRID_TOLERANCE = 1e-3
"""A difference below this, in gaps, is only rounding: a target spacing that divides the input's to within it means
that factor, and an input slice this close to an output slice is that slice. DICOM writes positions as decimal text, of
which three digits after the point are common: the gaps of an even stack then seem to differ."""

FLOAT32_TOLERANCE = 5e-7
"""Spacings whose ratio is this close to a ratio of small integers have that ratio (affines are often float32)."""

_SLICES_AT_ONCE = 16  # copied at once: bounds the memory, and reads volumes with slices last in runs

_ROUNDING = 1e-9
"""Positions closer than this to a slice, in gaps, are on it."""


_MOST_SLICES = 100_000
"""No scan needs more slices; a spacing or a factor that asks for them is mistyped."""


@dataclass(frozen=True)
class OutputGrid:
    """Positions of the output slices, in units of the gap between input slices.

    The output slices are evenly spaced in mm. Where the input slices are not, a position still is the index of the
    earlier input slice plus the fraction of the gap to the next one: 2.5 is the middle between the slices 2 and 3,
    however far these are apart.

    Nothing is extrapolated: positions lie within ``[0, num_slices - 1]``, the first one is 0. Build one with
    :meth:`from_factor`, :meth:`from_spacing`, or :meth:`create`, which chooses by what the user gave.

    Attributes:
        num_slices: number N of input slices.
        step: distance of the output slices in units of the affine's step, which is the gap of an evenly spaced input
            and the nominal gap of others.
        positions: position of every output slice, ascending.
        slice_positions: position of every input slice in units of the affine's step; None where these are even.
    """

    num_slices: int
    step: float
    positions: tuple[float, ...]
    slice_positions: tuple[float, ...] | None = None

    @classmethod
    def from_factor(cls, num_slices: int, factor: int, slice_positions: Sequence[float] | None = None) -> OutputGrid:
        """Create the grid with ``factor`` output gaps per input gap: ``factor * (num_slices - 1) + 1`` slices.

        Args:
            num_slices: number of input slices, at least 2.
            factor: upsampling factor, a positive integer.
            slice_positions: positions of unevenly spaced input slices in units of the nominal gap, which then is the
                gap that is divided, see :func:`monai_sliceinterp.geometry.slice_positions`.

        Raises:
            ValueError: if the factor is not a positive integer, there are fewer than two slices, or the slice
                positions do not fit them.

        Example:
            >>> OutputGrid.from_factor(2, 4).positions
            (0.0, 0.25, 0.5, 0.75, 1.0)
            >>> OutputGrid.from_factor(3, 2, slice_positions=(0, 1, 3)).positions
            (0.0, 0.5, 1.0, 1.25, 1.5, 1.75, 2.0)
        """
        whole = positive_integer("the factor", factor, why=" such as 2 or 4")
        return cls._even(num_slices, Fraction(whole), _uneven(num_slices, slice_positions))

    @classmethod
    def from_spacing(
        cls,
        num_slices: int,
        slice_spacing: float,
        target_spacing: float,
        slice_positions: Sequence[float] | None = None,
    ) -> OutputGrid:
        """Create the grid with a given distance of the output slices.

        Slices lie at ``i * target_spacing / slice_spacing`` for every i inside the observed range. When the spacing
        divides the input's to within float32 rounding, this is the grid of :meth:`from_factor`.

        Args:
            num_slices: number of input slices, at least 2.
            slice_spacing: input slice spacing in mm, the nominal one of unevenly spaced slices.
            target_spacing: output slice spacing in mm, at most the input's.
            slice_positions: see :meth:`from_factor`.

        Raises:
            ValueError: if a spacing is not positive, the target is coarser than the input, there are fewer than two
                slices, or the slice positions do not fit them.

        Example:
            >>> OutputGrid.from_spacing(3, slice_spacing=5.0, target_spacing=2.0).positions
            (0.0, 0.4, 0.8, 1.2, 1.6, 2.0)
        """
        for name, value in (("target", target_spacing), ("slice", slice_spacing)):
            positive(f"the {name} spacing", value, "mm")
        ratio = slice_spacing / target_spacing
        if ratio < 1.0 - GRID_TOLERANCE:
            raise ValueError(
                f"the target spacing {target_spacing:g} mm is coarser than the input's {slice_spacing:g} mm; "
                f"expected at most {slice_spacing:g} mm."
            )
        factor = max(round(ratio), 1)
        uneven = _uneven(num_slices, slice_positions)
        length = num_slices - 1 if uneven is None else uneven[-1]
        # the drift of a ratio that only float32 rounding keeps from an integer, summed up over the whole stack
        if abs(ratio - factor) * length < GRID_TOLERANCE * factor:
            return cls._even(num_slices, Fraction(factor), uneven)
        # a ratio of small integers is kept exact, so that rounding does not add up to a lost or missed observed slice
        exact = Fraction(ratio).limit_denominator(32)
        if abs(float(exact) - ratio) > FLOAT32_TOLERANCE * ratio:
            exact = Fraction(ratio)
        return cls._even(num_slices, exact, uneven)

    @classmethod
    def _even(cls, num_slices: int, per_gap: Fraction, slice_positions: tuple[float, ...] | None) -> OutputGrid:
        """Grid with ``per_gap`` output slices in every (nominal) gap."""
        slices, gaps = per_gap.numerator, per_gap.denominator
        step = gaps / slices
        length = num_slices - 1 if slice_positions is None else slice_positions[-1]
        if not length * float(per_gap) < _MOST_SLICES:
            raise ValueError(
                f"{num_slices} slices would become about {length * float(per_gap):.3g}; expected at most "
                f"{_MOST_SLICES:,}: a smaller factor, or a larger spacing."
            )
        if slice_positions is None:
            count = (num_slices - 1) * slices // gaps + 1
            return cls(num_slices, step, tuple(_tidy_position(index * gaps / slices) for index in range(count)))
        # a fine grid has no two slices on one of the input
        tolerance = min(GRID_TOLERANCE, step / 4)
        count = int((slice_positions[-1] + tolerance) / step) + 1
        nominal = np.array([index * gaps / slices for index in range(count)])
        positions = tuple(_in_index_units(nominal, np.array(slice_positions), tolerance).tolist())
        return cls(num_slices, step, positions, slice_positions)

    @classmethod
    def create(
        cls,
        num_slices: int,
        geometry: SliceGeometry,
        factor: int | None = None,
        spacing: float | None = None,
        default_spacing: float | None = None,
        slice_positions: Sequence[float] | None = None,
    ) -> OutputGrid:
        """Create the grid from a factor, from a target spacing, or, with neither, isotropic.

        Isotropic means the smaller in-plane spacing, unless another default is given. A stack whose slice spacing is
        already within 1 % of it, or finer, keeps its grid.

        Args:
            num_slices: number of input slices, at least 2.
            geometry: slice geometry of the input.
            factor: upsampling factor, or None.
            spacing: output slice spacing in mm, or None.
            default_spacing: output slice spacing in mm where neither is given; None: isotropic.
            slice_positions: positions of unevenly spaced input slices, see :meth:`from_factor`.

        Raises:
            ValueError: if both are given, or the one given is not usable.

        Example:
            >>> from monai_sliceinterp.geometry import slice_geometry
            >>> geometry = slice_geometry(np.diag([1.0, 1.0, 3.0, 1.0]))
            >>> len(OutputGrid.create(5, geometry))
            13
        """
        if factor is not None and spacing is not None:
            raise ValueError(f"give a factor or a spacing, not both (got factor {factor!r}, spacing {spacing!r} mm).")
        if factor is not None:
            return cls.from_factor(num_slices, factor, slice_positions)
        if spacing is not None:
            return cls.from_spacing(num_slices, geometry.slice_spacing, spacing, slice_positions)
        target = min(geometry.in_plane_spacing) if default_spacing is None else default_spacing
        if geometry.slice_spacing <= target * (1.0 + SPACING_TIE):
            return cls.from_factor(num_slices, 1, slice_positions)
        return cls.from_spacing(num_slices, geometry.slice_spacing, target, slice_positions)

    def __len__(self) -> int:
        """Return the number of output slices."""
        return len(self.positions)

    @property
    def _positions(self) -> Tensor:
        """The positions as a tensor ``(len,)`` float64."""
        return torch.tensor(self.positions, dtype=torch.float64)

    @property
    def lower(self) -> Tensor:
        """Index of the earlier input slice of each output slice, ``(len,)`` int64, at most ``num_slices - 2``."""
        return self._positions.floor().long().clamp(max=self.num_slices - 2)

    @property
    def alpha(self) -> Tensor:
        """Fraction of the gap from the earlier input slice, ``(len,)`` float64 in [0, 1]."""
        return self._positions - self.lower

    @property
    def gap_width(self) -> Tensor:
        """Width of the gap in which each output slice lies, in units of the affine's step, ``(len,)`` float64."""
        if self.slice_positions is None:
            return torch.ones(len(self), dtype=torch.float64)
        return torch.tensor(self.slice_positions, dtype=torch.float64).diff()[self.lower]

    @property
    def is_observed(self) -> Tensor:
        """Which output slices are input slices, ``(len,)`` bool."""
        positions = self._positions
        return positions == positions.round()

    @property
    def observed_source(self) -> Tensor:
        """Input slice of each observed output slice, ``(is_observed.sum(),)`` int64."""
        return self._positions[self.is_observed].long()

    def affine(self, affine: ArrayLike | Tensor, axis: int = 2) -> NDArray[np.float64]:
        """Compute the affine of the output: the origin stays, the step along ``axis`` shrinks."""
        return scaled_affine(affine, axis, self.step)


def paste_observed(output: Tensor, image: Tensor, grid: OutputGrid) -> Tensor:
    """Copy the observed slices into an interpolated volume, in place and bit for bit.

    Args:
        output: ``(..., M)``, slices last.
        image: ``(..., N)`` the input slices, of the output's type.
        grid: the output grid.

    Returns:
        ``output``.

    Raises:
        ValueError: if types or slice counts do not fit, so that the copy would not be exact.

    Example:
        >>> grid = OutputGrid.from_factor(2, 2)
        >>> paste_observed(torch.zeros(3), torch.tensor([7.0, 9.0]), grid).tolist()
        [7.0, 0.0, 9.0]
    """
    if output.dtype != image.dtype or output.shape[-1] != len(grid) or image.shape[-1] != grid.num_slices:
        raise ValueError(
            f"{image.shape[-1]} observed slices of {image.dtype} do not fit an output of {output.shape[-1]} slices of "
            f"{output.dtype}; expected {grid.num_slices} and {len(grid)} slices of one type."
        )
    indices, sources = grid.is_observed.nonzero()[:, 0], grid.observed_source
    if all(_lie_apart(part) for part in (output, image)):
        for index, source in zip(indices.tolist(), sources.tolist(), strict=True):
            output[..., index].squeeze().copy_(image[..., source].squeeze())  # as matrices, copied block by block
        return output
    for index, source in zip(indices.split(_SLICES_AT_ONCE), sources.split(_SLICES_AT_ONCE), strict=True):
        output[..., index.to(output.device)] = image[..., source.to(image.device)]
    return output


def _lie_apart(volume: Tensor) -> bool:
    """Whether slices ``(..., N)`` lie one after the other in memory; strides of axes of length 1 tell nothing."""
    strides = [step for step, length in zip(volume.stride(), volume.shape, strict=True) if length > 1]
    return volume.stride(-1) >= max(strides, default=0)


def _uneven(num_slices: int, slice_positions: Sequence[float] | None) -> tuple[float, ...] | None:
    """Check the slices; return their positions, or None where only rounding keeps them from being even."""
    if num_slices < 2:
        raise ValueError(f"interpolation needs at least 2 slices, got {num_slices}.")
    if slice_positions is None:
        return None
    positions = check_slice_positions(num_slices, slice_positions)
    return None if np.allclose(positions, range(num_slices), rtol=0.0, atol=GRID_TOLERANCE) else positions


def _in_index_units(nominal: NDArray[np.float64], slices: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    """Convert from nominal gaps to the index of the slice before plus the fraction of the gap, exact on a slice."""
    lower = np.clip(np.searchsorted(slices, nominal, side="right") - 1, 0, len(slices) - 2)
    alpha = (nominal - slices[lower]) / np.diff(slices)[lower]
    nearest = lower + (alpha > 0.5)
    # the last one may be past the last slice by as much as the tolerance and its rounding
    return np.where(abs(nominal - slices[nearest]) < tolerance, nearest, np.minimum(lower + alpha, len(slices) - 1))


def _tidy_position(position: float) -> float:
    """Move a position that only rounding keeps from a slice onto it, so that the slice counts as observed."""
    return float(round(position)) if abs(position - round(position)) < _ROUNDING else position
