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

"""Decode the pixels of DICOM images, and turn stored units into values."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import pixel_array
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
    generate_uid,
)

from monai_sliceinterp.dicom.frames import DicomError, Frame
from monai_sliceinterp.dicom.series import open_dicom
from monai_sliceinterp.files import reason

__all__ = ["read_voxels", "rescaled", "stored_pixels"]

_PIXEL_TAGS = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
)


def stored_pixels(path: Path) -> NDArray:
    """Decode the stored units of a DICOM image, whatever its transfer syntax.

    Args:
        path: DICOM file.

    Returns:
        ``(frames, rows, columns)`` in the type they are stored in.

    Raises:
        DicomError: if the file is damaged or its compression unknown.
    """
    data = open_dicom(path)
    try:
        if "TransferSyntaxUID" not in data.file_meta:  # a file without preamble
            is_little = data.original_encoding[1]
            data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
        syntax = data.file_meta.TransferSyntaxUID
        with _quiet():
            pixels = _with_itk(data) if syntax.is_compressed and syntax != RLELossless else pixel_array(data, raw=True)
    except Exception as error:  # each decoder has exceptions of its own
        raise DicomError(
            f"{path.name}: its pixels cannot be decoded ({reason(error)}); expected a whole file."
        ) from error
    return pixels.reshape(-1, *pixels.shape[-2:])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep pydicom from logging the traceback of an error that is reported in one line."""
    logger = logging.getLogger("pydicom")
    level, silent = logger.level, logging.CRITICAL + 1
    if level == silent:  # each change of the level makes all loggers ask for theirs anew
        yield
        return
    logger.setLevel(silent)
    try:
        yield
    finally:
        logger.setLevel(level)


def _with_itk(data: Dataset) -> NDArray:
    """Decode with SimpleITK. It gets the pixels alone, as it would rescale all frames by the first one's slope."""
    plain = Dataset()
    for keyword in _PIXEL_TAGS:
        if keyword in data:
            plain[keyword] = data[keyword]
    plain.SOPClassUID = (
        MultiFrameGrayscaleByteSecondaryCaptureImageStorage
        if data.BitsAllocated == 8
        else MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    )
    plain.SOPInstanceUID = generate_uid()
    plain.file_meta = FileMetaDataset()
    plain.file_meta.TransferSyntaxUID = data.file_meta.TransferSyntaxUID
    plain.file_meta.MediaStorageSOPClassUID = plain.SOPClassUID
    plain.file_meta.MediaStorageSOPInstanceUID = plain.SOPInstanceUID
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pixels.dcm"
        plain.save_as(path, enforce_file_format=True)
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def rescaled(stored: NDArray, slope: float, intercept: float) -> NDArray:
    """Convert stored units to values: ``slope * stored + intercept``.

    Args:
        stored: any shape.
        slope: value per stored unit.
        intercept: value of a stored zero.

    Returns:
        The values: the input itself for slope 1 and intercept 0, integers of 64 bits where all three are integers,
        else float32.

    Example:
        >>> rescaled(np.array([0, 1000], np.uint16), 1, -1024).tolist()
        [-1024, -24]
    """
    if slope == 1 and intercept == 0:
        return stored
    if stored.dtype.kind in "iu" and float(slope).is_integer() and float(intercept).is_integer():
        return stored.astype(np.int64) * int(slope) + int(intercept)
    return (stored.astype(np.float64) * slope + intercept).astype(np.float32)


def _rescale_into(values: NDArray, stored: NDArray, slope: float, intercept: float) -> None:
    """Write what :func:`rescaled` gives into an array that holds it."""
    if slope == 1 and float(intercept).is_integer() and stored.dtype.kind in "iu" and values.dtype.kind in "iu":
        np.add(stored, int(intercept), out=values, dtype=np.int64, casting="unsafe")  # block by block
    else:
        values[...] = rescaled(stored, slope, intercept)


def read_voxels(frames: Sequence[Frame]) -> NDArray:
    """Read the values of a stack, each slice with its own slope and intercept.

    Args:
        frames: slices of one size.

    Returns:
        ``(X, Y, Z)``: columns, rows, slices. The type is the stored one where nothing is rescaled, else the smallest of
        int16, int32 and int64 that holds all values where these are integers, else float32.

    Raises:
        DicomError: if pixels cannot be decoded.
    """
    in_file: dict[Path, list[int]] = {}
    for k, frame in enumerate(frames):
        in_file.setdefault(frame.path, []).append(k)
    slices: dict[int, NDArray] = {}
    with _quiet():
        for path, numbers in in_file.items():
            pixels = stored_pixels(path)
            slices.update({k: pixels[frames[k].index] for k in numbers})
    columns, rows = frames[0].shape
    voxels = np.empty((len(frames), rows, columns), dtype=_smallest_type(frames, slices))
    for k, frame in enumerate(frames):
        _rescale_into(voxels[k], slices.pop(k), frame.slope, frame.intercept)
    return voxels.T


def _smallest_type(frames: Sequence[Frame], slices: Mapping[int, NDArray]) -> np.dtype:
    if all(frame.slope == 1 and frame.intercept == 0 for frame in frames):
        return np.result_type(*(values.dtype for values in slices.values()))
    ends = [
        rescaled(np.array([slices[k].min(), slices[k].max()]), frame.slope, frame.intercept)
        for k, frame in enumerate(frames)
    ]
    if any(end.dtype.kind == "f" for end in ends):
        return np.dtype(np.float32)
    low, high = min(int(end.min()) for end in ends), max(int(end.max()) for end in ends)
    return next(
        np.dtype(kind)
        for kind in (np.int16, np.int32, np.int64)
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max
    )
