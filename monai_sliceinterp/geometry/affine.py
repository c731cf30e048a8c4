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

"""Affines: matrices that take voxel indices to millimeters, column k being the step along array axis k."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = [
    "AXIS_TIE",
    "SPACING_TIE",
    "axis_spacing",
    "compose_affine",
    "corner_distance",
    "plane_names",
    "scaled_affine",
    "spatial_affine",
    "through_plane_axis",
]

AXIS_TIE = 0.1
"""Spacings that differ by less than this fraction do not tell along which axis slices are stacked."""

SPACING_TIE = 0.01
"""Spacings that differ by less than this fraction count as equal."""

_PLANES = ("sagittal", "coronal", "axial")  # across x, y and z

_STRAIGHT = float(np.cos(np.radians(15.0)))
"""Cosine of the tilt from which on a plane is oblique."""


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


def axis_spacing(affine: ArrayLike | Tensor) -> NDArray[np.float64]:
    """Compute the distance of voxel neighbors along each array axis, ``(3,)`` in mm.

    Args:
        affine: 4x4 matrix in mm.

    Example:
        >>> axis_spacing(np.diag([0.8, -0.8, 5.0, 1.0])).tolist()
        [0.8, 0.8, 5.0]
    """
    return np.linalg.norm(spatial_affine(affine)[:3, :3], axis=0)


def through_plane_axis(affine: ArrayLike | Tensor) -> int:
    """Find the array axis along which slices are stacked: the one with the largest spacing.

    Spacings within 10 % of the largest are tied with it, and the last of the tied axes is taken.

    Args:
        affine: 4x4 matrix in mm.

    Example:
        >>> through_plane_axis(np.diag([5.0, 0.8, 0.8, 1.0]))
        0
        >>> through_plane_axis(np.eye(4))
        2
    """
    lengths = axis_spacing(affine)
    return int(np.flatnonzero(lengths >= (1.0 - AXIS_TIE) * lengths.max())[-1])


def compose_affine(directions: ArrayLike, spacing: ArrayLike, origin: ArrayLike) -> NDArray[np.float64]:
    """Compose an affine from directions, spacing and origin.

    Args:
        directions: ``(3, 3)``, column k being the direction of array axis k.
        spacing: distance of voxel neighbors along each array axis, ``(3,)`` in mm.
        origin: center of the first voxel, ``(3,)`` in mm.

    Example:
        >>> compose_affine(np.eye(3), [1.0, 1.0, 5.0], [0.0, 0.0, 7.0])[2].tolist()
        [0.0, 0.0, 5.0, 7.0]
    """
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(directions) * np.asarray(spacing)
    affine[:3, 3] = origin
    return affine


def corner_distance(one: ArrayLike | Tensor, other: ArrayLike | Tensor, shape: Iterable[int]) -> float:
    """Compute how far in mm two affines put the corners of an array apart at most.

    Args:
        one: 4x4 matrix in mm.
        other: 4x4 matrix in mm.
        shape: size of the array (X, Y, Z).

    Example:
        >>> corner_distance(np.eye(4), np.diag([1.0, 1.0, 2.0, 1.0]), (4, 4, 6))
        5.0
    """
    corners = np.array([(*corner, 1.0) for corner in np.ndindex(2, 2, 2)]) * [*np.subtract(tuple(shape), 1), 1]
    apart = (np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)) @ corners.T
    return float(np.linalg.norm(apart[:3], axis=0).max())


def plane_names(affine: ArrayLike | Tensor) -> tuple[str, str, str]:
    """Name the anatomical planes that lie across the array axes: "axial", "coronal" or "sagittal".

    A plane that is tilted by more than 15 degrees, as those of a short-axis heart scan are, is "oblique axial" or the
    like, by what it is nearest to.

    Args:
        affine: 4x4 matrix in mm (RAS).

    Returns:
        The name of the plane with a constant index along each axis, three different ones.

    Example:
        >>> plane_names(np.diag([0.7, 0.7, 5.0, 1.0]))
        ('sagittal', 'coronal', 'axial')
    """
    matrix = spatial_affine(affine)[:3, :3]
    normals = np.linalg.inv(matrix).T  # column k: across the plane of the two other axes
    cosines = np.abs(normals) / np.linalg.norm(normals, axis=0)
    nearest = max(permutations(range(3)), key=lambda worlds: sum(cosines[world, k] for k, world in enumerate(worlds)))
    first, second, third = (
        f"{'' if cosines[world, k] > _STRAIGHT else 'oblique '}{_PLANES[world]}" for k, world in enumerate(nearest)
    )
    return first, second, third


def scaled_affine(affine: ArrayLike | Tensor, axis: int, step: float, start: float = 0.0) -> NDArray[np.float64]:
    """Compute the affine after resampling one array axis.

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


def _in_mm(lengths: NDArray[np.float64]) -> str:
    return " x ".join(f"{length:g}" for length in lengths) + " mm"
