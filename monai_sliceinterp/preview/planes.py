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

"""Images of planes as readers of scans know them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from monai.config import NdarrayOrTensor
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from monai_sliceinterp.geometry import axis_spacing, spatial_affine

__all__ = ["View", "is_flipped", "plane_axes", "plane_view"]


class View(NamedTuple):
    """Image ``(H, W)`` of a volume, first row on top, and the height of its pixels over their width."""

    image: NDArray[Any]
    aspect: float = 1.0


def plane_axes(affine: ArrayLike | Tensor, axis: int) -> tuple[int, int]:
    """Return which array axes run down and across an image of a plane.

    Args:
        affine: 4x4 matrix in mm (RAS).
        axis: array axis across the plane.

    Example:
        >>> plane_axes(np.diag([0.7, 0.7, 5.0, 1.0]), axis=0)
        (2, 1)
    """
    matrix = spatial_affine(affine)[:3, :3]
    first, second = (k for k in range(3) if k != axis)
    world = [int(np.abs(matrix[:, k]).argmax()) for k in (first, second)]
    return (first, second) if world[0] > world[1] else (second, first)


def is_flipped(affine: ArrayLike | Tensor, axis: int) -> bool:
    """Check whether an array axis runs to the patient's right, anterior or superior, unlike rows and columns."""
    direction = spatial_affine(affine)[:3, axis]
    return bool(direction[np.abs(direction).argmax()] > 0)


def plane_view(volume: NdarrayOrTensor, affine: ArrayLike | Tensor, axis: int, index: int) -> View:
    """Cut a volume along a plane.

    Rows run from anterior or superior on, columns from the patient's right or anterior on.

    Args:
        volume: ``(X, Y, Z)``, in any order of axes.
        affine: its affine in mm (RAS).
        axis: array axis across the plane.
        index: place along that axis.

    Example:
        >>> view = plane_view(np.arange(24).reshape(2, 3, 4), np.diag([1.0, 1.0, 5.0, 1.0]), axis=0, index=0)
        >>> view.image[0].tolist(), view.aspect  # the topmost row, from anterior on
        ([11.0, 7.0, 3.0], 5.0)
    """
    rows, columns = plane_axes(affine, axis)
    image = np.asarray(volume)[tuple(index if k == axis else slice(None) for k in range(3))]
    image = image if rows < columns else image.T
    image = np.flip(image, tuple(place for place, k in enumerate((rows, columns)) if is_flipped(affine, k)))
    spacing = axis_spacing(affine)
    return View(np.ascontiguousarray(image, dtype=np.float32), float(spacing[rows] / spacing[columns]))
