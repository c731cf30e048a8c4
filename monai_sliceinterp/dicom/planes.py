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

"""Planes of a stack of slices in DICOM's terms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from monai_sliceinterp.geometry import axis_spacing, spatial_affine

__all__ = ["PERPENDICULAR", "SlicePlanes"]

PERPENDICULAR = 1e-4
"""Largest cosine of the angle between rows and columns: 0.05 mm over 500 mm, well above the rounding of affines."""


@dataclass(frozen=True)
class SlicePlanes:
    """Planes of a stack of slices in DICOM's terms; slices ascend along the normal of their planes.

    Attributes:
        orientation: ``(2, 3)`` unit vectors along a row and along a column, LPS.
        pixel_spacing: distance of rows and distance of columns in mm.
        positions: ``(M, 3)`` center of each slice's first pixel in mm, LPS, ascending along the normal.
        order: ``(M,)`` index in the array of each slice.
    """

    orientation: NDArray[np.float64]
    pixel_spacing: tuple[float, float]
    positions: NDArray[np.float64]
    order: NDArray[np.int64]

    @classmethod
    def create(cls, affine: ArrayLike | Tensor, axis: int, count: int) -> SlicePlanes:
        """Compute the planes of an array, whose first axis but ``axis`` runs along the rows (over the columns).

        Args:
            affine: 4x4 matrix in mm, RAS.
            axis: array axis along which slices are stacked.
            count: number of slices.

        Raises:
            ValueError: if rows and columns are not perpendicular.

        Example:
            >>> SlicePlanes.create(np.diag([0.5, 0.75, 2.0, 1.0]), axis=2, count=2).positions.tolist()
            [[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]]
        """
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ spatial_affine(affine)
        in_plane = [k for k in range(3) if k != axis]
        lengths = axis_spacing(affine)[in_plane]
        orientation = (lps[:3, in_plane] / lengths).T
        cosine = abs(float(orientation[0] @ orientation[1]))
        if cosine > PERPENDICULAR:
            angle = np.degrees(np.arccos(cosine))
            raise ValueError(f"rows and columns meet at {angle:.2f} degrees along axis {axis}; DICOM needs 90 degrees.")
        order = np.arange(count)
        if np.cross(*orientation) @ lps[:3, axis] < 0:
            order = order[::-1]
        positions = lps[:3, 3] + order[:, None] * lps[:3, axis]
        return cls(orientation + 0.0, (float(lengths[1]), float(lengths[0])), positions + 0.0, order)

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit normal of the planes ``(3,)``, LPS."""
        normal = np.cross(*self.orientation)
        return normal / np.linalg.norm(normal)
