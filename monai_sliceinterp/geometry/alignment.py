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

"""How two stacks of the same anatomy lie to each other, one with more slices than the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sliceinterp.geometry.affine import axis_spacing, corner_distance, scaled_affine, spatial_affine
from monai_sliceinterp.geometry.slices import slice_geometry, slice_positions

__all__ = ["SAME_PLACE", "slice_indices", "stack_axis"]

SAME_PLACE = 0.05
"""Corners of two volumes on one grid may be apart by this fraction of the smallest voxel edge: headers are rounded."""


def stack_axis(scan: Any, thin: Any) -> int:
    """Find the axis along which one of two volumes has more slices than the other.

    Args:
        scan: MetaTensor ``(C, X, Y, Z)``; where both have as many voxels, its slice axis is taken.
        thin: MetaTensor ``(C, X, Y, Z)`` whose axes run as those of the scan.

    Raises:
        ValueError: if they differ along several axes.

    Example:
        >>> from monai.data import MetaTensor
        >>> stack_axis(MetaTensor(np.zeros((1, 8, 9, 3))), MetaTensor(np.zeros((1, 8, 9, 5))))
        2
    """
    differing = [k for k in range(3) if scan.shape[k + 1] != thin.shape[k + 1]]
    if len(differing) > 1:
        sizes = [" x ".join(map(str, volume.shape[1:])) for volume in (thin, scan)]
        raise ValueError(f"is {sizes[0]} voxels large; expected {sizes[1]}, but for the number of slices.")
    return differing[0] if differing else slice_geometry(scan).axis


def slice_indices(scan: Any, thin: Any, axis: int) -> NDArray[np.float64]:
    """Compute where the slices of a scan lie in a volume with other slices of the same planes.

    Args:
        scan: MetaTensor ``(C, X, Y, Z)``, its slices evenly spaced or not.
        thin: MetaTensor ``(C, X, Y, Z)`` on the same grid but for its slices, which are evenly spaced.
        axis: axis of the slices.

    Returns:
        For every slice of the scan its index in the other volume, with a fraction.

    Raises:
        ValueError: if the planes of the two differ by more than headers are rounded.

    Example:
        >>> from monai.data import MetaTensor
        >>> scan = MetaTensor(np.zeros((1, 8, 9, 3)), affine=np.diag([1.0, 1.0, 4.0, 1.0]))
        >>> thin = MetaTensor(np.zeros((1, 8, 9, 5)), affine=np.diag([1.0, 1.0, 2.0, 1.0]))
        >>> slice_indices(scan, thin, axis=2).tolist()
        [0.0, 2.0, 4.0]
    """
    relative = np.linalg.solve(spatial_affine(scan.affine), spatial_affine(thin.affine))
    step, start = float(relative[axis, axis]), float(relative[axis, 3])
    apart = corner_distance(scaled_affine(scan.affine, axis, step, start), thin.affine, thin.shape[1:])
    if not apart <= SAME_PLACE * axis_spacing(thin.affine).min():
        raise ValueError(f"its planes lie up to {apart:.3g} mm beside those of the scan; expected the same ones.")
    positions = slice_positions(scan, axis) or range(scan.shape[axis + 1])
    return (np.asarray(positions, dtype=np.float64) - start) / step
