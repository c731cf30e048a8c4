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

"""Upright grids for sheared stacks, whose slices are shifted in their planes as those of a tilted gantry are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from monai_sliceinterp.geometry.affine import axis_spacing, compose_affine, corner_distance, spatial_affine

__all__ = ["UprightGrid"]

_UPRIGHT = 1e-3
"""A stack with corners closer to the upright grid than this fraction of the smallest voxel edge is not sheared."""


@dataclass(frozen=True)
class UprightGrid:
    """The grid with right angles whose slices lie in the planes of a sheared stack, and hold all of its voxels.

    Attributes:
        affine: 4x4 matrix in mm (RAS). The first in-plane axis, both in-plane spacings and the planes are those of the
            stack; its voxel (0, 0, 0) is one of the grid.
        shape: size of the grid, ``(X, Y, Z)``; along the slices that of the stack.
        to_source: 4x4 matrix that takes indices of the grid to those of the stack, slices to slices.
    """

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]
    to_source: NDArray[np.float64]

    @classmethod
    def create(cls, affine: ArrayLike | Tensor, axis: int, shape: Sequence[int]) -> UprightGrid | None:
        """Create the upright grid of a stack.

        Args:
            affine: 4x4 matrix in mm (RAS) of the stack.
            axis: array axis along which its slices are stacked: 0, 1 or 2.
            shape: its size, ``(X, Y, Z)``.

        Returns:
            The grid; None where the stack is not sheared.

        Raises:
            ValueError: if the affine is not usable.

        Example:
            >>> tilted = np.array([[1.0, 0, 0, 0], [0, 1, 2, 0], [0, 0, 5, 0], [0, 0, 0, 1]])
            >>> grid = UprightGrid.create(tilted, axis=2, shape=(8, 8, 4))
            >>> grid.shape, grid.affine[:3, 2].tolist()
            ((8, 14, 4), [0.0, 0.0, 5.0])
            >>> UprightGrid.create(np.diag([1.0, 1.0, 5.0, 1.0]), axis=2, shape=(8, 8, 4)) is None
            True
        """
        source, size = spatial_affine(affine), np.array(shape[:3])
        steps, lengths = source[:3, :3], axis_spacing(source)
        first, second = (k for k in range(3) if k != axis)
        directions = np.empty((3, 3))
        directions[:, first] = steps[:, first] / lengths[first]
        across = steps[:, second] - (steps[:, second] @ directions[:, first]) * directions[:, first]
        directions[:, second] = across / np.linalg.norm(across)
        normal = np.cross(directions[:, first], directions[:, second])
        gap = float(steps[:, axis] @ normal)
        directions[:, axis] = np.sign(gap) * normal
        lengths[axis] = abs(gap)
        upright = compose_affine(directions, lengths, source[:3, 3])
        if corner_distance(source, upright, shape[:3]) <= _UPRIGHT * lengths.min():
            return None
        corners = np.array(list(itertools.product(*((0, length - 1) for length in size)))).T
        reached = np.linalg.solve(upright[:3, :3], steps @ corners)
        low, high = np.floor(reached.min(axis=1) + _UPRIGHT), np.ceil(reached.max(axis=1) - _UPRIGHT)
        low[axis], high[axis] = 0, size[axis] - 1
        upright[:3, 3] += upright[:3, :3] @ low
        to_source = np.asarray(np.linalg.solve(source, upright), dtype=np.float64)
        to_source[axis] = np.eye(4)[axis]
        return cls(upright, tuple((high - low + 1).astype(int).tolist()), to_source)
