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

"""Put the slices of a DICOM series in order, and tell where they lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from monai.data.utils import orientation_ras_lps
from numpy.typing import NDArray

from monai_sliceinterp.dicom.errors import DicomError
from monai_sliceinterp.dicom.frames import TRAITS, Frame

__all__ = ["differing_traits", "main_plane", "same_place", "stack_geometry"]

_PARALLEL = 1e-3
"""Direction cosines of parallel slices differ by less than this; some writers round them to three digits."""

_MAJORITY = 0.75
"""Images of another plane are left out where at least this fraction of the series is in one plane."""

_SAME_PLACE = 0.01
"""Images closer than this fraction of the mean gap are at one place."""

_UNEVEN_MM = 0.1
"""Slices this close to their places on an even grid are evenly spaced.

Many writers round positions to 0.1 mm, which moves a slice and the ends of the grid by up to 0.05 mm each. Gaps are no
measure of that: at 0.625 mm, rounding makes them 0.6 and 0.7 mm in an even stack.
"""

_UNEVEN_FRACTION = 0.2
"""The same in gaps, for thin slices. A missing slice moves others by at least a third of a gap."""

_SIDEWAYS_MM = 0.2
"""Slices may be this far off a straight line: that rounding in three directions, for the slice and the ends."""


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


def same_place(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Sort parallel images by their position along the normal and put those of one place together.

    Args:
        frames: parallel images.

    Returns:
        One list per place, in ascending order along the normal; images of one place in the order given.
    """
    normal = frames[0].normal
    heights = np.array([frame.position @ normal for frame in frames])
    order = np.argsort(heights, kind="stable")
    gaps = np.diff(heights[order])
    closest = _SAME_PLACE * max(float(gaps.mean()), 1e-6) if len(gaps) else 0.0
    places = [[frames[order[0]]]]
    for k, gap in zip(order[1:], gaps, strict=True):
        if gap <= closest:
            places[-1].append(frames[k])
        else:
            places.append([frames[k]])
    return places


def differing_traits(places: Sequence[Sequence[Frame]]) -> list[str]:
    """Name the tags in which images of one place differ.

    Args:
        places: images by place, see :func:`same_place`.
    """
    return [name for name in TRAITS if any(len({f.traits.get(name) for f in place}) > 1 for place in places)]


def stack_geometry(frames: Sequence[Frame]) -> tuple[NDArray[np.float64], tuple[float, ...] | None]:
    """Tell where the slices of a stack lie.

    Args:
        frames: parallel images at N >= 2 places, in ascending order along the normal.

    Returns:
        The affine, 4x4, RAS, mm, for arrays ``(X, Y, Z)``, sheared where a tilted gantry shifts the slices; and None,
        or, where slices are missing or unevenly spaced, N positions in units of the affine's step along the last axis,
        the first one 0. The step is then the distance of neighboring slices where the others are whole multiples of
        it (slices are missing), and else the median distance.

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
    gaps = np.diff(heights)
    gap = float(np.median(gaps))
    places = np.concatenate([[0.0], np.cumsum(np.maximum(np.round(gaps / gap), 1.0))])
    even_gap = heights[-1] / places[-1]
    if abs(heights - places * even_gap).max() <= min(_UNEVEN_MM, _UNEVEN_FRACTION * even_gap):
        gap = float(even_gap)
    else:
        places = np.round(heights / gap, 9)  # far below any meaning, so that 1.9999999999999 is 2
    affine = np.eye(4)
    affine[:3, :2] = first.directions.T * first.spacing
    affine[:3, 2] = line * gap
    affine[:3, 3] = corners[0]
    is_even = np.array_equal(places, np.arange(len(frames)))
    return orientation_ras_lps(affine) + 0.0, None if is_even else tuple(places.tolist())
