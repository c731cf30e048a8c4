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

"""Where image metadata becomes numbers: through-plane axis, slice spacing and thickness, output grid, affine.

Conventions: an affine is a 4x4 matrix that takes voxel indices to millimetres; its column k is the step between
neighbours along array axis k. Positions along the through-plane axis are in units of the input gap, so that slice n
sits at position n. Everything here is a pure function of numbers; nothing else in the package derives spacing,
positions or affines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = [
    "OutputGrid",
    "SliceGeometry",
    "scaled_affine",
    "slice_geometry",
    "slice_thickness",
    "spatial_affine",
    "through_plane_axis",
]

AXIS_TIE = 0.01
"""Spacings that differ by less than this fraction count as equal."""

GRID_TOLERANCE = 1e-3
"""A target spacing that divides the input's means that factor if the last slice is off by less than this, in gaps."""

FLOAT32_TOLERANCE = 5e-7
"""Spacings whose ratio is this close to a ratio of small integers have that ratio (affines are often float32)."""

_ROUNDING = 1e-9
"""Positions closer than this to a slice, in gaps, are on it."""

_THICKNESS_KEYS = ("slice_thickness", "SliceThickness", "0018|0050", "00180050")


@dataclass(frozen=True)
class SliceGeometry:
    """Physical layout of a stack of parallel slices.

    Attributes:
        axis: spatial array axis (0, 1 or 2) along which slices are stacked.
        in_plane_spacing: distance between voxel neighbours along the two other axes, in their order, in mm.
        slice_spacing: distance between neighbouring slice planes along their normal, in mm. For a sheared stack
            (tilted gantry) this is less than the length of the step from slice to slice.
        thickness: slice thickness (width of the slab profile) in mm, None where the metadata does not tell.
    """

    axis: int
    in_plane_spacing: tuple[float, float]
    slice_spacing: float
    thickness: float | None = None


def spatial_affine(affine: ArrayLike | Tensor) -> NDArray[np.float64]:
    """Check an affine and return it as a 4x4 float64 array.

    Args:
        affine: 4x4 matrix in mm, or a stack of one or more identical ones ``(B, 4, 4)`` as a batch carries it.

    Raises:
        ValueError: if the matrix is not 4x4, has NaN or infinite entries, or spans no volume (a zero spacing).

    Example:
        >>> spatial_affine(np.diag([1, 1, 5, 1])).shape
        (4, 4)
    """
    matrix = np.asarray(affine.detach().cpu() if isinstance(affine, Tensor) else affine, dtype=np.float64)
    if matrix.ndim == 3 and len(matrix) and np.allclose(matrix, matrix[:1]):
        matrix = matrix[0]
    if matrix.shape != (4, 4):
        raise ValueError(f"the affine must be one 4x4 matrix, got shape {matrix.shape}.")
    if not np.isfinite(matrix).all():
        raise ValueError("the affine has NaN or infinite entries; expected finite spacings in mm.")
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if lengths.min() <= 0:
        raise ValueError(f"the spacing is zero or missing: {_in_mm(lengths)}; expected three positive spacings.")
    if abs(np.linalg.det(matrix[:3, :3] / lengths)) < 1e-6:
        raise ValueError("the affine is singular: two array axes point the same way; expected three directions.")
    return matrix


def through_plane_axis(affine: ArrayLike | Tensor) -> int:
    """Return the array axis along which slices are stacked: the one with the largest spacing.

    Spacings within 1 % of the largest are tied with it, and the last of the tied axes is taken.

    Args:
        affine: 4x4 matrix in mm.

    Example:
        >>> through_plane_axis(np.diag([5.0, 0.8, 0.8, 1.0]))
        0
        >>> through_plane_axis(np.eye(4))
        2
    """
    lengths = np.linalg.norm(spatial_affine(affine)[:3, :3], axis=0)
    return int(np.flatnonzero(lengths >= (1.0 - AXIS_TIE) * lengths.max())[-1])


def slice_thickness(meta: Mapping[str, Any]) -> float | None:
    """Return the slice thickness in mm where the metadata has it, else None.

    DICOM keeps thickness (width of the slab) and spacing (distance of the slabs) apart; NIfTI has only spacing.
    Looked up are ``slice_thickness``, ``SliceThickness`` and the DICOM tag (0018,0050) as the ITK and pydicom readers
    write it. A thickness of zero, which some writers put there, tells nothing.

    Args:
        meta: metadata of a MetaTensor.

    Raises:
        ValueError: if there is an entry that is negative or not a number.

    Example:
        >>> slice_thickness({"0018|0050": "5.0 "})
        5.0
    """
    for key in _THICKNESS_KEYS:
        value: Any = meta.get(key)
        if isinstance(value, Mapping):  # pydicom's JSON form {"vr": "DS", "Value": [5.0]}
            value = value.get("Value")
        if isinstance(value, list | tuple | np.ndarray | Tensor):  # several values, or those of a batch
            value = np.unique(np.ravel(value)).tolist()
            if len(value) < 2:
                value = value[0] if value else None
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        try:
            thickness = float(value)
        except (TypeError, ValueError):
            thickness = float("nan")
        if thickness == 0:
            continue
        if not thickness > 0 or np.isinf(thickness):
            raise ValueError(f"slice thickness {key} = {value!r} is not a positive number of mm.")
        return thickness
    return None


def slice_geometry(
    image: Any, axis: int | None = None, spacing: float | None = None, thickness: float | None = None
) -> SliceGeometry:
    """Read the slice geometry from an image's affine and metadata.

    Args:
        image: MetaTensor (its ``affine`` and ``meta`` are used), or a 4x4 affine in mm.
        axis: through-plane axis 0, 1 or 2; negative numbers count from the last one. None: the axis with the largest
            spacing, see :func:`through_plane_axis`.
        spacing: slice spacing in mm that overrides the affine's.
        thickness: slice thickness in mm that overrides the metadata's.

    Raises:
        ValueError: if the affine, the axis or a given length is not usable.

    Example:
        >>> slice_geometry(np.diag([0.7, 0.7, 5.0, 1.0]))
        SliceGeometry(axis=2, in_plane_spacing=(0.7, 0.7), slice_spacing=5.0, thickness=None)
    """
    affine = spatial_affine(getattr(image, "affine", image))
    if axis is None:
        axis = through_plane_axis(affine)
    elif isinstance(axis, bool) or axis not in range(-3, 3):
        raise ValueError(f"axis {axis!r} is not a spatial axis; expected 0, 1 or 2.")
    axis = int(axis) % 3
    for name, value in (("spacing", spacing), ("thickness", thickness)):
        if value is not None and not (isinstance(value, Real) and 0 < float(value) < np.inf):
            raise ValueError(f"the slice {name} must be a positive number of mm, got {value!r}.")
    steps = affine[:3, :3]
    first, second = (steps[:, k] for k in range(3) if k != axis)
    normal = np.cross(first, second)
    gap = abs(float(steps[:, axis] @ normal)) / float(np.linalg.norm(normal))
    if thickness is None:
        thickness = slice_thickness(getattr(image, "meta", {}))
    return SliceGeometry(
        axis=axis,
        in_plane_spacing=(_tidy(np.linalg.norm(first)), _tidy(np.linalg.norm(second))),
        slice_spacing=_tidy(gap if spacing is None else spacing),
        thickness=thickness,
    )


def scaled_affine(affine: ArrayLike | Tensor, axis: int, step: float, start: float = 0.0) -> NDArray[np.float64]:
    """Return the affine after resampling one array axis.

    Args:
        affine: 4x4 matrix in mm of the input.
        axis: the resampled spatial axis.
        step: distance of the new samples in units of the old ones.
        start: position of the first new sample in units of the old ones; 0 keeps the origin.

    Example:
        >>> scaled_affine(np.diag([1.0, 1.0, 4.0, 1.0]), axis=2, step=0.25)[2, 2]
        np.float64(1.0)
    """
    result = spatial_affine(affine).copy()
    result[:3, 3] += result[:3, axis] * start
    result[:3, axis] *= step
    return result


@dataclass(frozen=True)
class OutputGrid:
    """Positions of the output slices, in units of the gap between input slices.

    Nothing is extrapolated: positions lie within ``[0, num_slices - 1]``, the first one is 0. Build one with
    :meth:`from_factor`, :meth:`from_spacing`, or :meth:`create`, which chooses by what the user gave.

    Attributes:
        num_slices: number N of input slices.
        step: distance of the output slices in units of the input gap.
        positions: position of every output slice, ascending.
    """

    num_slices: int
    step: float
    positions: tuple[float, ...]

    @classmethod
    def from_factor(cls, num_slices: int, factor: int) -> OutputGrid:
        """Grid with ``factor`` output gaps per input gap: ``factor * (num_slices - 1) + 1`` slices.

        Args:
            num_slices: number of input slices, at least 2.
            factor: upsampling factor, a positive integer.

        Raises:
            ValueError: if the factor is not a positive integer or there are fewer than two slices.

        Example:
            >>> OutputGrid.from_factor(2, 4).positions
            (0.0, 0.25, 0.5, 0.75, 1.0)
        """
        if isinstance(factor, bool) or not isinstance(factor, Real) or not 1 <= factor < np.inf or factor % 1:
            raise ValueError(f"the factor must be a positive integer such as 2 or 4, got {factor!r}.")
        _check_count(num_slices)
        count = int(factor)
        return cls(num_slices, 1.0 / count, tuple(i / count for i in range(count * (num_slices - 1) + 1)))

    @classmethod
    def from_spacing(cls, num_slices: int, slice_spacing: float, target_spacing: float) -> OutputGrid:
        """Grid with a given distance of the output slices.

        Slices lie at ``i * target_spacing / slice_spacing`` for every i inside the observed range. When the spacing
        divides the input's to within float32 rounding, this is the grid of :meth:`from_factor`.

        Args:
            num_slices: number of input slices, at least 2.
            slice_spacing: input slice spacing in mm.
            target_spacing: output slice spacing in mm, at most the input's.

        Raises:
            ValueError: if a spacing is not positive, the target is coarser than the input, or there are fewer than
                two slices.

        Example:
            >>> OutputGrid.from_spacing(3, slice_spacing=5.0, target_spacing=2.0).positions
            (0.0, 0.4, 0.8, 1.2, 1.6, 2.0)
        """
        for name, value in (("target", target_spacing), ("slice", slice_spacing)):
            if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < np.inf:
                raise ValueError(f"the {name} spacing must be a positive number of mm, got {value!r}.")
        _check_count(num_slices)
        ratio = slice_spacing / target_spacing
        if ratio < 1.0 - GRID_TOLERANCE:
            raise ValueError(
                f"the target spacing {target_spacing:g} mm is coarser than the input's {slice_spacing:g} mm; "
                f"expected at most {slice_spacing:g} mm."
            )
        factor = max(round(ratio), 1)
        # the drift of a ratio that only float32 rounding keeps from an integer, summed up over the whole stack
        if abs(ratio - factor) * (num_slices - 1) < GRID_TOLERANCE * factor:
            return cls.from_factor(num_slices, factor)
        # a ratio of small integers is kept exact, so that rounding does not add up to a lost or missed observed slice
        exact = Fraction(ratio).limit_denominator(32)
        if abs(float(exact) - ratio) > FLOAT32_TOLERANCE * ratio:
            exact = Fraction(ratio)
        count = (num_slices - 1) * exact.numerator // exact.denominator + 1
        positions = tuple(_tidy_position(float(index / exact)) for index in range(count))
        return cls(num_slices, float(1 / exact), positions)

    @classmethod
    def create(
        cls,
        num_slices: int,
        geometry: SliceGeometry,
        factor: int | None = None,
        spacing: float | None = None,
        default_spacing: float | None = None,
    ) -> OutputGrid:
        """Grid from a factor, from a target spacing, or, with neither, isotropic.

        Isotropic means the smaller in-plane spacing, unless another default is given. A stack whose slice spacing is
        already within 1 % of it, or finer, keeps its grid.

        Args:
            num_slices: number of input slices, at least 2.
            geometry: slice geometry of the input.
            factor: upsampling factor, or None.
            spacing: output slice spacing in mm, or None.
            default_spacing: output slice spacing in mm where neither is given; None: isotropic.

        Raises:
            ValueError: if both are given, or the one given is not usable.

        Example:
            >>> geometry = slice_geometry(np.diag([1.0, 1.0, 3.0, 1.0]))
            >>> len(OutputGrid.create(5, geometry))
            13
        """
        if factor is not None and spacing is not None:
            raise ValueError(f"give a factor or a spacing, not both (got factor {factor!r}, spacing {spacing!r} mm).")
        if factor is not None:
            return cls.from_factor(num_slices, factor)
        if spacing is not None:
            return cls.from_spacing(num_slices, geometry.slice_spacing, spacing)
        target = min(geometry.in_plane_spacing) if default_spacing is None else default_spacing
        if geometry.slice_spacing <= target * (1.0 + AXIS_TIE):
            return cls.from_factor(num_slices, 1)
        return cls.from_spacing(num_slices, geometry.slice_spacing, target)

    def __len__(self) -> int:
        """Return the number of output slices."""
        return len(self.positions)

    @property
    def _places(self) -> Tensor:
        """The positions as a tensor ``(len,)`` float64."""
        return torch.tensor(self.positions, dtype=torch.float64)

    @property
    def lower(self) -> Tensor:
        """Index of the earlier input slice of each output slice, ``(len,)`` int64, at most ``num_slices - 2``."""
        return self._places.floor().long().clamp(max=self.num_slices - 2)

    @property
    def alpha(self) -> Tensor:
        """Fraction of the gap from the earlier input slice, ``(len,)`` float64 in [0, 1]."""
        return self._places - self.lower

    @property
    def is_observed(self) -> Tensor:
        """Which output slices are input slices, ``(len,)`` bool."""
        places = self._places
        return places == places.round()

    @property
    def observed_source(self) -> Tensor:
        """Input slice of each observed output slice, ``(is_observed.sum(),)`` int64."""
        return self._places[self.is_observed].long()

    def affine(self, affine: ArrayLike | Tensor, axis: int = 2) -> NDArray[np.float64]:
        """Return the affine of the output: the origin stays, the step along ``axis`` shrinks."""
        return scaled_affine(affine, axis, self.step)


def _check_count(num_slices: int) -> None:
    if num_slices < 2:
        raise ValueError(f"interpolation needs at least 2 slices, got {num_slices}.")


def _tidy_position(position: float) -> float:
    """Move a position that only rounding keeps from a slice onto it, so that the slice counts as observed."""
    return float(round(position)) if abs(position - round(position)) < _ROUNDING else position


def _tidy(value: Any) -> float:
    """Drop the rounding noise of float32 affines (0.69999998807 -> 0.7) far below any physical meaning."""
    return float(f"{float(value):.7g}")


def _in_mm(lengths: NDArray[np.float64]) -> str:
    return " x ".join(f"{length:g}" for length in lengths) + " mm"
