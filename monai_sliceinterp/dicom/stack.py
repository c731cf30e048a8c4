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

"""The stack that the images of a DICOM series make up: its slices in order, and their geometry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from monai.data.utils import orientation_ras_lps
from numpy.typing import NDArray

from monai_sliceinterp.dicom.frames import TRAITS, DicomError, Frame
from monai_sliceinterp.geometry import compose_affine, nominal_positions

__all__ = ["differing_traits", "group_by_position", "main_plane", "sort_into_volumes", "stack_geometry"]

_PARALLEL = 1e-3
"""Direction cosines of parallel slices differ by less than this; some writers round them to three digits."""

_MAJORITY = 0.75
"""Images of another plane are left out where at least this fraction of the series is in one plane."""

_SAME_POSITION = 0.01
"""Images closer than this fraction of the mean gap are at one position."""

_SIDEWAYS_MM = 0.2
"""Slices may be this far off a straight line: the rounding to 0.1 mm in three directions, of the slice and the ends."""


def main_plane(frames: Sequence[Frame]) -> list[Frame]:
    """Pick the images that make up the stack: not localizers, nor a few images of another plane.

    Args:
        frames: images of a series, in any order.

    Returns:
        Parallel images of one size and pixel spacing, in the order given.

    Raises:
        DicomError: if several planes, stacks or frames of reference are mixed, so that it is not clear which one is
            meant.
    """
    images = [frame for frame in frames if not frame.is_localizer] or list(frames)
    planes: list[list[Frame]] = []
    for frame in images:
        plane = next((plane for plane in planes if _parallel(plane[0], frame)), None)
        if plane is None:
            planes.append([frame])
        else:
            plane.append(frame)
    main = max(planes, key=len)
    if len(main) < _MAJORITY * len(images):
        raise DicomError(
            f"the images of the DICOM series are not parallel or differ in size or pixel spacing "
            f"({len(planes)} kinds); expected one stack."
        )
    for what, values in (
        ("stacks", {frame.stack for frame in main}),
        ("frames of reference", {frame.frame_of_reference for frame in main}),
    ):
        if len(values) > 1:
            raise DicomError(f"the DICOM series holds {len(values)} {what}; expected one.")
    return main


def _parallel(one: Frame, other: Frame) -> bool:
    return (
        one.shape == other.shape
        and np.allclose(one.spacing, other.spacing, rtol=1e-3, atol=0)
        and bool(abs(one.directions - other.directions).max() < _PARALLEL)
    )


def group_by_position(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Sort parallel images along their normal and group those at one position.

    Args:
        frames: parallel images.

    Returns:
        One list per position, in ascending order along the normal; images at one position in the order given.
    """
    normal = frames[0].normal
    heights = np.array([frame.position @ normal for frame in frames])
    order = np.argsort(heights, kind="stable")
    gaps = np.diff(heights[order])
    closest = _SAME_POSITION * max(float(gaps.mean()), 1e-6) if len(gaps) else 0.0
    groups = [[frames[order[0]]]]
    for k, gap in zip(order[1:], gaps, strict=True):
        if gap <= closest:
            groups[-1].append(frames[k])
        else:
            groups.append([frames[k]])
    return groups


def differing_traits(groups: Sequence[Sequence[Frame]]) -> list[str]:
    """Name the tags in which images at one position differ.

    Args:
        groups: images by position, see :func:`group_by_position`.
    """
    return [name for name in TRAITS if any(len({f.traits.get(name) for f in group}) > 1 for group in groups)]


def sort_into_volumes(groups: Sequence[Sequence[Frame]]) -> tuple[list[list[Frame]], list[str]]:
    """Sort the images at each position into the volumes of one 4D scan, by the tags in which they differ.

    Taken are the first tags with the same values at every position (b-values, echoes, kernels), as many as it takes to
    tell the images apart, and where these do not, the first tag that does at each position (times).

    Args:
        groups: images by position, see :func:`group_by_position`.

    Returns:
        The slices of every volume, in the order of the positions, and the names of the tags by which volumes ascend.

    Raises:
        DicomError: if there are not as many images at each position, or no tag tells them apart.
    """
    counts = sorted({len(group) for group in groups})
    if len(counts) > 1:
        raise DicomError(
            f"the DICOM series has {counts[0]} to {counts[-1]} images at one position; expected as many at each for "
            "one 4D scan."
        )
    names = differing_traits(groups)
    everywhere = [
        name for name in names if len({tuple(sorted(f.traits.get(name, "") for f in group)) for group in groups}) == 1
    ]
    for keys in (*(everywhere[: k + 1] for k in range(len(everywhere))), *([name] for name in names)):
        if all(len({_rank(frame, keys) for frame in group}) == counts[0] for group in groups):
            ordered = [sorted(group, key=lambda frame: _rank(frame, keys)) for group in groups]
            return [list(volume) for volume in zip(*ordered, strict=True)], keys
    raise DicomError("the DICOM series has several images at one position, and no tag tells them apart.")


def _rank(frame: Frame, names: Sequence[str]) -> tuple[tuple[float, str], ...]:
    """Values of tags to sort by: numbers by their size, texts behind them."""
    values = [frame.traits.get(name, "") for name in names]
    return tuple((float(value), "") if _is_number(value) else (np.inf, value) for value in values)


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def stack_geometry(frames: Sequence[Frame]) -> tuple[NDArray[np.float64], tuple[float, ...] | None]:
    """Compute the affine of a stack, and the positions of its slices where these are unevenly spaced.

    Args:
        frames: parallel images at N >= 2 positions, in ascending order along the normal.

    Returns:
        The affine, 4x4, RAS, mm, for arrays ``(X, Y, Z)``, sheared where a tilted gantry shifts the slices, with the
        nominal gap as its step; and N positions in units of that step, or None, see
        :func:`monai_sliceinterp.geometry.nominal_positions`.

    Raises:
        DicomError: if the slices do not lie on one line.
    """
    first = frames[0]
    corners = np.array([frame.position for frame in frames])
    heights = (corners - corners[0]) @ first.normal
    line = (corners[-1] - corners[0]) / heights[-1]
    aside = float(np.linalg.norm(corners - corners[0] - heights[:, None] * line, axis=1).max())
    if aside > _SIDEWAYS_MM:
        raise DicomError(
            f"the DICOM slices are shifted by up to {aside:.3g} mm off a line; expected one straight stack."
        )
    gap, positions = nominal_positions(heights)
    affine = compose_affine(np.column_stack([*first.directions, line]), (*first.spacing, gap), corners[0])
    return orientation_ras_lps(affine) + 0.0, positions
