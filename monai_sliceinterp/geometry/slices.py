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


"""The slices of a volume as its metadata describes them: axis, spacing, thickness and positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from monai_sliceinterp.checks import positive
from monai_sliceinterp.geometry.affine import spatial_affine, through_plane_axis

__all__ = [
    "SLICE_DIRECTION",
    "SLICE_POSITION_KEYS",
    "SliceGeometry",
    "check_slice_positions",
    "known_slice_axis",
    "nominal_positions",
    "slice_geometry",
    "slice_positions",
    "slice_thickness",
]

SLICE_POSITION_KEYS = ("slice_positions", "slice_positions_axis")
"""Entries of the metadata of a stack whose slices are not evenly spaced, see :func:`slice_positions`."""

SLICE_DIRECTION = "slice_direction"
"""Entry of the metadata of a volume whose source tells along which axis its slices are stacked, as DICOM does: the
direction of that axis, ``(3,)`` in RAS, which stays right when array axes are permuted or flipped."""

_UNEVEN_MM = 0.1
"""Slices this close to their positions on an even grid are evenly spaced.

Many writers round positions to 0.1 mm, which moves a slice and the ends of the grid by up to 0.05 mm each. Gaps are not
a measure of that: at 0.625 mm, rounding makes them 0.6 and 0.7 mm in an even stack.
"""

_UNEVEN_FRACTION = 0.2
"""The same in gaps, for thin slices. A missing slice moves others by at least a third of a gap."""

_ALONG = 0.99
"""Cosine of the angle between an axis and the direction of the slices, if it is theirs."""

_THICKNESS_KEYS = ("slice_thickness", "SliceThickness", "0018|0050", "00180050")


@dataclass(frozen=True)
class SliceGeometry:
    """Physical layout of a stack of parallel slices.

    Attributes:
        axis: spatial array axis (0, 1 or 2) along which slices are stacked.
        in_plane_spacing: distance between voxel neighbors along the two other axes, in their order, in mm.
        slice_spacing: distance between neighboring slice planes along their normal, in mm. For a sheared stack
            (tilted gantry) this is less than the length of the step from slice to slice.
        thickness: slice thickness (width of the slab profile) in mm, None where the metadata has none.
    """

    axis: int
    in_plane_spacing: tuple[float, float]
    slice_spacing: float
    thickness: float | None = None


def slice_thickness(meta: Mapping[str, Any]) -> float | None:
    """Read the slice thickness in mm from metadata; None where they have none.

    DICOM keeps thickness (width of the slab) and spacing (distance of the slabs) apart; NIfTI has only spacing.
    Looked up are ``slice_thickness``, ``SliceThickness`` and the DICOM tag (0018,0050) as the ITK and pydicom readers
    write it. A thickness of zero, which some writers put there, counts as none, and so do several that differ.

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
            values = np.unique(np.ravel(value)).tolist()
            value = values[0] if len(values) == 1 else None
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
        axis: through-plane axis 0, 1 or 2; negative numbers count from the last one. None: the axis that the metadata
            tell, see :func:`known_slice_axis`, else the one with the largest spacing, see :func:`through_plane_axis`.
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
        known = known_slice_axis(image)
        axis = through_plane_axis(affine) if known is None else known
    elif isinstance(axis, bool) or axis not in range(-3, 3):
        raise ValueError(f"axis {axis!r} is not a spatial axis; expected 0, 1 or 2.")
    axis = int(axis) % 3
    for name, value in (("spacing", spacing), ("thickness", thickness)):
        if value is not None:
            positive(f"the slice {name}", value, "mm")
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


def known_slice_axis(image: Any) -> int | None:
    """Find the array axis along which the metadata of a volume say that its slices are stacked.

    That is the axis of unevenly spaced slices, or the one along :data:`SLICE_DIRECTION`, which readers note where the
    source tells it: the planes of DICOM images, the slice dimension of a NIfTI header.

    Args:
        image: MetaTensor; anything else tells nothing.

    Returns:
        0, 1 or 2; None where nothing is told, or no axis runs that way.

    Example:
        >>> from monai.data import MetaTensor
        >>> known_slice_axis(MetaTensor(np.zeros((1, 8, 8, 8)), meta={"slice_direction": (0.0, 1.0, 0.0)}))
        1
    """
    meta = getattr(image, "meta", {})
    if meta.get("slice_positions") is not None:
        axes = np.unique(np.ravel(meta.get("slice_positions_axis", -1))).tolist()
        return axes[0] if len(axes) == 1 and axes[0] in range(3) else None
    if meta.get(SLICE_DIRECTION) is None:
        return None
    direction = np.asarray(meta[SLICE_DIRECTION], dtype=np.float64).reshape(-1, 3)[0]
    steps = spatial_affine(image.affine)[:3, :3]
    cosines = np.abs(direction @ (steps / np.linalg.norm(steps, axis=0)))
    return int(cosines.argmax()) if cosines.max() > _ALONG else None


def slice_positions(image: Any, axis: int) -> tuple[float, ...] | None:
    """Read the positions of the slices of an unevenly spaced stack; None where they are evenly spaced.

    The metadata of such a stack has ``slice_positions``, the position of every slice along the stack in units of the
    affine's step, beginning with 0, and ``slice_positions_axis``, the spatial axis along which they are stacked. The
    affine's step then is the nominal gap. Both entries may have gone through a batch.

    Args:
        image: MetaTensor ``(..., X, Y, Z)``; anything else has no such positions.
        axis: through-plane axis 0, 1 or 2.

    Raises:
        ValueError: if the positions belong to another axis, do not fit the number of slices, are not finite and
            ascending from 0, or differ within a batch.

    Example:
        >>> from monai.data import MetaTensor
        >>> meta = {"slice_positions": (0.0, 1.0, 3.0), "slice_positions_axis": 2}
        >>> slice_positions(MetaTensor(np.zeros((1, 8, 8, 3)), meta=meta), axis=2)
        (0.0, 1.0, 3.0)
    """
    meta = getattr(image, "meta", {})
    entry: Any = meta.get("slice_positions")
    if entry is None:
        return None
    axes = np.unique(np.ravel(meta.get("slice_positions_axis", -1))).tolist()  # one for every volume of a batch
    if len(axes) != 1 or axes[0] not in range(3):
        raise ValueError(f"slice_positions_axis {', '.join(map(str, axes))} is not a spatial axis; expected 0, 1 or 2.")
    if axes[0] != axis:
        raise ValueError(
            f"the uneven slices along axis {axes[0]} would lie in-plane; expected axis {axes[0]}, not {axis}."
        )
    positions = [np.unique(np.ravel(position)) for position in entry]
    if any(len(position) != 1 for position in positions):
        raise ValueError("the volumes of a batch have different slice positions; expected one volume at a time.")
    return check_slice_positions(image.shape[axis - 3], [float(position[0]) for position in positions])


def check_slice_positions(num_slices: int, slice_positions: Sequence[float]) -> tuple[float, ...]:
    """Check the positions of slices, in units of the nominal gap, and return them as numbers.

    Args:
        num_slices: number of slices.
        slice_positions: position of every slice.

    Raises:
        ValueError: if there is not one for each slice, or they are not finite and ascending from 0.

    Example:
        >>> check_slice_positions(3, [0, 1, 3])
        (0.0, 1.0, 3.0)
    """
    positions = tuple(float(position) for position in slice_positions)
    if len(positions) != num_slices:
        raise ValueError(
            f"{len(positions)} slice positions do not fit {num_slices} slices; expected one for each slice."
        )
    if not np.isfinite(positions).all() or positions[0] != 0 or (np.diff(positions) <= 0).any():
        shown = ", ".join(f"{position:g}" for position in positions[:8]) + (", ..." if num_slices > 8 else "")
        raise ValueError(f"the slice positions must be finite and ascend from 0, got {shown}.")
    return positions


def nominal_positions(heights: ArrayLike) -> tuple[float, tuple[float, ...] | None]:
    """Compute the nominal gap of a stack and the positions of its slices in units of it.

    The nominal gap is the distance of neighboring slices where the others are whole multiples of it (slices are
    missing), and else the median distance.

    Args:
        heights: heights of N >= 2 slices along their normal in mm, ascending.

    Returns:
        The gap in mm; and None where the slices are evenly spaced, else N positions, the first one 0.

    Example:
        >>> nominal_positions([5.0, 7.0, 9.0])
        (2.0, None)
        >>> nominal_positions([5.0, 7.0, 9.0, 13.0])
        (2.0, (0.0, 1.0, 2.0, 4.0))
    """
    distances = np.asarray(heights, dtype=np.float64) - np.asarray(heights, dtype=np.float64)[0]
    gaps = np.diff(distances)
    gap = float(np.median(gaps))
    positions = np.concatenate([[0.0], np.cumsum(np.maximum(np.round(gaps / gap), 1.0))])
    even_gap = distances[-1] / positions[-1]
    if abs(distances - positions * even_gap).max() <= min(_UNEVEN_MM, _UNEVEN_FRACTION * even_gap):
        gap = float(even_gap)
    else:
        positions = np.round(distances / gap, 9)  # far below any meaning, so that 1.9999999999999 is 2
    is_even = np.array_equal(positions, np.arange(len(positions)))
    return gap, None if is_even else tuple(positions.tolist())


def _tidy(value: Any) -> float:
    """Drop the rounding noise of float32 affines (0.69999998807 -> 0.7) far below any physical meaning."""
    return float(f"{float(value):.7g}")
