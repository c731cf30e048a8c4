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

"""DICOM segmentations (SEG objects), read as labels on the grid of the image that they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from monai.data.utils import orientation_ras_lps
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from monai_sliceinterp.dicom.decoding import stored_pixels
from monai_sliceinterp.dicom.frames import DicomError, frames_of
from monai_sliceinterp.dicom.series import is_dicom, open_dicom
from monai_sliceinterp.geometry import compose_affine

__all__ = ["read_segmentation", "segmentation_file"]

_OFF_GRID = 0.05
"""Corners of a frame may be this far, in voxels, off those of the image: positions are rounded."""


def segmentation_file(path: Path) -> Path | None:
    """Return the DICOM segmentation that a path means: itself, or the one file of a folder; None if it is none.

    Example:
        >>> segmentation_file(Path("setup.cfg"))
    """
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    if len(files) != 1 or not files[0].is_file() or not is_dicom(files[0]):
        return None
    header = open_dicom(files[0], stop_before_pixels=True, specific_tags=["SOPClassUID"])
    return files[0] if str(header.get("SOPClassUID", "")) == SegmentationStorage else None


def read_segmentation(path: Path, affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[Any]:
    """Read a DICOM segmentation onto the grid of an image.

    Args:
        path: the file, whose frames lie in planes of the image.
        affine: affine of the image, 4x4, RAS, mm.
        shape: its size (X, Y, Z).

    Returns:
        Segment numbers ``(X, Y, Z)``, uint8 or uint16; where segments overlap, the higher number. Fractional segments
        count where they exceed a half.

    Raises:
        ValueError: with one line that names the file, if it is damaged, or a frame lies off the grid of the image.
    """
    try:
        return _read(path, affine, shape)
    except DicomError as error:
        raise ValueError(f"{path}: {error}") from error


def _read(path: Path, affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[Any]:
    data = open_dicom(path)
    data.PhotometricInterpretation = "MONOCHROME2"
    frames = frames_of(data, path)
    numbers = [_segment(data, group) for group in data.get("PerFrameFunctionalGroupsSequence") or []]
    if len(numbers) != len(frames):
        raise DicomError("its frames do not tell their segments; expected a segment number for each.")
    pixels = stored_pixels(path)
    most = int(data.get("MaximumFractionalValue") or 1) if data.get("SegmentationType") == "FRACTIONAL" else 1
    labels = np.zeros(shape, np.uint8 if max(numbers, default=0) < 256 else np.uint16)
    to_image = np.linalg.inv(orientation_ras_lps(np.asarray(affine, dtype=np.float64)))
    for frame, number in sorted(zip(frames, numbers, strict=True), key=lambda pair: pair[1]):
        directions = np.column_stack([*frame.directions, frame.normal])
        corners = compose_affine(directions, (*frame.spacing, 1.0), frame.position)
        columns, rows = frame.shape
        ends = np.array([[0, 0, 0, 1], [columns - 1, 0, 0, 1], [0, rows - 1, 0, 1]], dtype=np.float64).T
        places = (to_image @ corners @ ends)[:3].T
        whole = np.rint(places).astype(int)
        along = (whole[1:] - whole[0]).astype(bool)
        inside = ((whole >= 0) & (whole < shape)).all()
        if not inside or abs(places - whole).max() > _OFF_GRID or (along.sum(axis=1) > 1).any():
            raise DicomError("its frames do not lie on the grid of the image; expected the segmentation of this scan.")
        mask = pixels[frame.index] > most / 2
        labels[_cells(whole, mask)] = number
    return labels


def _cells(corners: NDArray[np.integer], mask: NDArray[np.bool_]) -> tuple[NDArray[np.integer], ...]:
    """Indices in the image of the pixels of a frame that are set; its corners are first, last column, last row."""
    rows, columns = np.nonzero(mask)
    counts = np.maximum(np.array(mask.shape)[::-1] - 1, 1)  # steps along the columns, along the rows
    steps = (corners[1:] - corners[0]) // counts[:, None]
    return tuple(corners[0][:, None] + steps[0][:, None] * columns + steps[1][:, None] * rows)


def _segment(data: Dataset, group: Dataset) -> int:
    """Segment number of a frame."""
    for source in (group, *(data.get("SharedFunctionalGroupsSequence") or [])):
        for item in source.get("SegmentIdentificationSequence") or []:
            return int(item.ReferencedSegmentNumber)
    raise DicomError("a frame tells no segment; expected a segment number for each.")
