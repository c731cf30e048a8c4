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

"""Read a DICOM series or a multi-frame object as one volume."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import MetaKeys, SpaceKeys
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from monai_sliceinterp.dicom.decoding import read_voxels, rescaled, stored_pixels
from monai_sliceinterp.dicom.frames import DicomError, Frame, frames_of
from monai_sliceinterp.dicom.series import series_headers
from monai_sliceinterp.dicom.stack import (
    differing_traits,
    group_by_position,
    main_plane,
    sort_into_volumes,
    stack_geometry,
)
from monai_sliceinterp.dicom.summary import summarize_headers
from monai_sliceinterp.geometry import SLICE_DIRECTION, nominal_positions

__all__ = ["read_dicom"]

_MAX_GAPS = 3.0
"""Widest gap, in nominal ones, that is taken without being asked for."""

_ROUNDED_MM = 0.1
"""Positions are rounded to this."""

_COPY_MM = 1e-3
"""A copy of an image lies within this distance of it."""

_CLOCK = ("AcquisitionTime", "ContentTime")
"""Times of day, which say something of the patient."""


def read_dicom(
    path: str | Path, series: str | None = None, max_gap_mm: float | None = None
) -> tuple[NDArray, dict[str, Any]]:
    """Read the one DICOM series of a folder, or a multi-frame file.

    Slices are put in order by their position along the normal. Slopes and intercepts are applied slice by slice.
    Localizers, a few images of another plane, and copies of images are left out, and a warning reports how many.

    Args:
        path: folder, or file; see :func:`monai_sliceinterp.dicom.series.series_headers`.
        series: of a folder with several, the series instance UID, or its number, from 1, in the order of the UIDs.
            None: the one that is a stack of at least two parallel slices; a warning names it if there are others.
            "4d", or "2:4d" for the second series, takes images at one position as the frames of a 4D scan.
        max_gap_mm: largest distance of neighboring slices in mm; None: three times the nominal one, beyond which too
            many slices are missing.

    Returns:
        The voxels ``(X, Y, Z)``, see :func:`monai_sliceinterp.dicom.decoding.read_voxels`, or ``(X, Y, Z, frames)`` of
        several volumes, in the order of their tags, which a warning names; and metadata: ``affine``
        (RAS, mm, sheared where a tilted gantry shifts the slices), ``dicom_files`` (paths in the order of the slices,
        a multi-frame file once), ``SliceThickness`` in mm where the slices agree, and, where slices are missing or
        unevenly spaced, ``slice_positions`` in units of the affine's step along ``slice_positions_axis`` 2; and
        ``slice_direction`` (3,), across the planes, in RAS. Nothing that identifies the patient.

    Raises:
        ValueError: with one line that names the path, if there is not one series that makes up one stack of at least
            two slices.

    Example:
        >>> read_dicom("docs")
        Traceback (most recent call last):
        ...
        ValueError: docs: expected a folder with one DICOM series, found 0: none.
    """
    path = Path(path)
    try:
        return _read(path, series, max_gap_mm)
    except DicomError as error:
        raise ValueError(f"{path}: {error}") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); expected a readable DICOM series.") from error


def _read(path: Path, chosen: str | None, max_gap_mm: float | None) -> tuple[NDArray, dict[str, Any]]:
    chosen, _, kind = (chosen or "").rpartition(":") if (chosen or "").lower().endswith("4d") else (chosen, "", "")
    headers = _one_series(path, chosen or None)
    if len(headers) == 1 and int(headers[0][1].get("NumberOfFrames") or 1) == 1:
        columns, rows = headers[0][1].Columns, headers[0][1].Rows
        raise DicomError(
            f"has a single slice ({columns} x {rows} x 1); interpolation needs at least 2, in one folder or one file."
        )
    frames = [frame for file, header in headers for frame in frames_of(header, file)]
    stack = main_plane(frames)
    if len(stack) < len(frames):
        _warn(path, f"{len(frames) - len(stack)} localizers or images of another plane are left out.")
    groups = group_by_position(stack)
    volumes = _volumes(path, groups) if kind and max(map(len, groups)) > 1 else [_without_copies(groups)]
    slices = volumes[0]
    if len(slices) < 2:
        raise DicomError("all images of the DICOM series are at one position; expected at least 2 slices.")
    if len(slices) * len(volumes) < len(stack):
        _warn(path, f"{len(stack) - len(slices)} images are copies of others at the same position and are left out.")
    affine, positions = stack_geometry(slices)
    _check_gaps(slices, max_gap_mm)
    voxels = read_voxels([frame for volume in volumes for frame in volume])
    if len(volumes) > 1:
        voxels = voxels.T.reshape(len(volumes), len(slices), *voxels.shape[1::-1]).T
    meta: dict[str, Any] = {
        MetaKeys.AFFINE: affine,
        MetaKeys.ORIGINAL_AFFINE: affine.copy(),
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.SPATIAL_SHAPE: np.asarray(voxels.shape[:3]),
        SLICE_DIRECTION: affine[:3, 2] / np.linalg.norm(affine[:3, 2]),
        "dicom_files": list(dict.fromkeys(str(frame.path) for volume in volumes for frame in volume)),
    }
    if positions is not None:
        gaps = np.diff([frame.position @ slices[0].normal for frame in slices])
        _warn(path, f"the slices are {gaps.min():.4g} to {gaps.max():.4g} mm apart; each is taken at its own position.")
        meta["slice_positions"], meta["slice_positions_axis"] = positions, 2
    thickness = {frame.thickness for frame in slices}
    if len(thickness) == 1 and None not in thickness:
        meta["SliceThickness"] = thickness.pop()
    return voxels, meta


def _one_series(path: Path, chosen: str | None) -> list[tuple[Path, Dataset]]:
    """Headers of the series that is meant."""
    series = dict(sorted(series_headers(path).items()))
    if chosen is None and len(series) == 1:
        return next(iter(series.values()))
    uid = list(series)[int(chosen) - 1] if chosen and chosen.isdigit() and 0 < int(chosen) <= len(series) else chosen
    if uid in series:
        return series[uid]
    summaries = summarize_headers(series)
    names = "; ".join(summary.phrase for summary in summaries) or "none"
    if chosen is not None:
        raise DicomError(f"has no series {chosen}; expected the number or UID of one of {names}.")
    stacks = [summary for summary in summaries if summary.spacing is not None]
    if len(stacks) != 1:
        hint = "; --series NUMBER chooses one" if series else ""
        raise DicomError(f"expected a folder with one DICOM series, found {len(series)}: {names}{hint}.")
    left_out = "; ".join(summary.phrase for summary in summaries if summary is not stacks[0])
    _warn(path, f"series {stacks[0].phrase} is taken, the only stack; left out: {left_out}.")
    return series[stacks[0].uid]


def _check_gaps(slices: Sequence[Frame], max_gap_mm: float | None) -> None:
    """Check that there are no holes of many slices, which interpolation would fill with what was never seen."""
    heights = np.array([frame.position @ slices[0].normal for frame in slices])
    gaps = np.diff(heights)
    nominal = nominal_positions(heights)[0]
    limit = _MAX_GAPS * nominal + _ROUNDED_MM if max_gap_mm is None else max_gap_mm
    widest = int(gaps.argmax())
    if gaps[widest] > limit:
        raise DicomError(
            f"{gaps[widest]:.4g} mm lie between slices {widest + 1} and {widest + 2} of {len(slices)}, which are "
            f"{nominal:.4g} mm apart elsewhere: about {round(gaps[widest] / nominal) - 1} slices are missing; expected "
            f"gaps of at most {limit:.4g} mm, or a larger --max_gap_mm."
        )


def _volumes(path: Path, groups: Sequence[Sequence[Frame]]) -> list[list[Frame]]:
    """Sort images into the volumes of a 4D scan, and report by what."""
    apart = max(np.linalg.norm(group[0].position - frame.position) for group in groups for frame in group)
    if apart > _COPY_MM:
        raise DicomError(f"images at one position are up to {apart:.3g} mm apart; expected volumes of one geometry.")
    volumes, names = sort_into_volumes(groups)
    values = "; ".join(", ".join(frame.traits.get(name, "none") for name in names) for frame, *_ in volumes)
    shown = "" if any(name in _CLOCK for name in names) else f": {values}"
    _warn(path, f"{len(volumes)} volumes are the frames of a 4D scan, in the order of {', '.join(names)}{shown}.")
    return volumes


def _without_copies(groups: Sequence[Sequence[Frame]]) -> list[Frame]:
    """Take one image of each position, where the others are copies of it."""
    for first, *others in groups:
        for other in others:
            if np.linalg.norm(first.position - other.position) > _COPY_MM or not np.array_equal(
                _values(first), _values(other)
            ):
                alike = len({len(group) for group in groups}) == 1
                way = "--series 4d takes them as one 4D scan" if alike else "move each into a folder of its own"
                differing = ", ".join(differing_traits(groups)) or "their pixels"
                raise DicomError(
                    f"the DICOM series has several images at one position, which differ in {differing}; "
                    f"expected one volume, not time frames or echoes: {way}."
                )
    return [group[0] for group in groups]


def _values(frame: Frame) -> NDArray:
    return rescaled(stored_pixels(frame.path)[frame.index], frame.slope, frame.intercept)


def _warn(path: Path, what: str) -> None:
    warnings.warn(f"{path}: {what}", stacklevel=5)
