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

"""Frames of a DICOM image as its header describes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

__all__ = ["HEADER_TAGS", "TRAITS", "DicomError", "Frame", "frames_of"]

TRAITS = (
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "EchoNumbers",
    "EchoTime",
    "EffectiveEchoTime",
    "TriggerTime",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "AcquisitionNumber",
    "FrameAcquisitionNumber",
    "ImageType",
    "FrameType",
    "ConvolutionKernel",
    "KVP",
    "ReconstructionDiameter",
    "InversionTime",
    "FlipAngle",
    "AcquisitionTime",
    "ContentTime",
)
"""Tags that distinguish images at one position: b-values, echoes, time frames, kinds of reconstruction."""

_MACROS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "FrameContentSequence",
    "MREchoSequence",
    "MRDiffusionSequence",
    "CTReconstructionSequence",
    "CTXRayDetailsSequence",
    "MRImageFrameTypeSequence",
    "CTImageFrameTypeSequence",
)

HEADER_TAGS = (
    "SOPClassUID",
    "SeriesInstanceUID",
    "SeriesDescription",
    "FrameOfReferenceUID",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    *TRAITS,
)
"""All that is read of a header: nothing of it identifies a patient."""


class DicomError(ValueError):
    """Error in a DICOM series, described in one line without the path the user gave.

    Example:
        >>> raise DicomError("has a single slice.")
        Traceback (most recent call last):
        ...
        monai_sliceinterp.dicom.frames.DicomError: has a single slice.
    """


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a DICOM series: a file, or a frame of a multi-frame object.

    Attributes:
        path: file.
        index: number of the frame in the file, from 0.
        position: center of the first voxel in mm, DICOM's axes (LPS), ``(3,)``.
        directions: unit vectors (LPS) along which the column number and the row number grow, ``(2, 3)``.
        spacing: distance of neighboring columns and of neighboring rows in mm.
        shape: number of columns and of rows, the order of array axes.
        thickness: slice thickness in mm, None where the header has none.
        slope: value per stored unit.
        intercept: value of a stored zero.
        frame_of_reference: UID of the space of the position.
        stack: name of the stack within a multi-frame object.
        is_localizer: whether the header calls it a localizer.
        traits: the :data:`TRAITS` the header has.
    """

    path: Path
    index: int
    position: NDArray[np.float64]
    directions: NDArray[np.float64]
    spacing: tuple[float, float]
    shape: tuple[int, int]
    thickness: float | None
    slope: float
    intercept: float
    frame_of_reference: str
    stack: str
    is_localizer: bool
    traits: dict[str, str]

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector (LPS) across the slice, ``(3,)``."""
        return np.cross(*self.directions)


def frames_of(header: Dataset, path: Path) -> list[Frame]:
    """Read the frames of an image from its header.

    Values of a frame are looked for in its own functional groups, in the shared ones, and in the header itself.

    Args:
        header: data set, without pixels.
        path: its file.

    Raises:
        DicomError: if the image is not gray, a frame has no position, orientation or pixel spacing, or one of these is
            not usable.

    Example:
        >>> header = Dataset()
        >>> header.Rows, header.Columns, header.PixelSpacing = 8, 9, [0.5, 0.7]
        >>> header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        >>> header.ImagePositionPatient, header.ImageOrientationPatient = [1, 2, 3], [1, 0, 0, 0, 1, 0]
        >>> (frame,) = frames_of(header, Path("a.dcm"))
        >>> frame.shape, frame.spacing, frame.normal.tolist()
        ((9, 8), (0.7, 0.5), [0.0, 0.0, 1.0])
    """
    colors = header.get("PhotometricInterpretation", "no photometric interpretation")
    if header.get("SamplesPerPixel", 1) != 1 or colors != "MONOCHROME2":
        raise DicomError(f"{path.name}: {colors} voxels are not gray values that grow; expected MONOCHROME2.")
    if header.get("ModalityLUTSequence"):
        raise DicomError(f"{path.name}: has a table of values; expected a rescale slope and intercept.")
    count = int(header.get("NumberOfFrames") or 1)
    groups = header.get("PerFrameFunctionalGroupsSequence") or []
    if not groups and count == 1:
        return [_frame([header], header, path, 0)]
    if len(groups) != count:
        raise DicomError(f"{path.name}: has {count} frames and tells the position of {len(groups)}; expected of all.")
    shared = _macros((header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0])
    return [_frame([*_macros(group), *shared, header], header, path, k) for k, group in enumerate(groups)]


def _macros(group: Dataset) -> list[Dataset]:
    return [group[name][0] for name in _MACROS if group.get(name)]


def _frame(sources: Sequence[Dataset], header: Dataset, path: Path, index: int) -> Frame:
    position = _numbers(sources, "ImagePositionPatient", 3, path)
    orientation = _numbers(sources, "ImageOrientationPatient", 6, path)
    spacing = _numbers(sources, "PixelSpacing", 2, path)
    if position is None or orientation is None or spacing is None:
        raise DicomError(
            f"{path.name}: a slice without position, orientation or pixel spacing; expected the DICOM tags "
            f"(0020,0032), (0020,0037) and (0028,0030)."
        )
    directions = orientation.reshape(2, 3)
    lengths = np.linalg.norm(directions, axis=1)
    if abs(lengths - 1).max() > 0.01 or abs(directions[0] @ directions[1]) > 0.01:
        raise DicomError(f"{path.name}: ImageOrientationPatient is not two perpendicular unit vectors.")
    if spacing.min() <= 0:
        raise DicomError(f"{path.name}: the pixel spacing is zero or negative; expected two distances in mm.")
    thickness, slope, intercept = (
        _numbers(sources, keyword, 1, path) for keyword in ("SliceThickness", "RescaleSlope", "RescaleIntercept")
    )
    if slope is not None and slope[0] == 0:
        raise DicomError(f"{path.name}: the rescale slope is 0, which makes all values one; expected another number.")
    traits = {name: str(value) for name in TRAITS if (value := _find(sources, name)) is not None}
    return Frame(
        path=path,
        index=index,
        position=position,
        directions=directions / lengths[:, None],
        spacing=(float(spacing[1]), float(spacing[0])),  # DICOM: between rows, then between columns
        shape=(int(header.Columns), int(header.Rows)),
        thickness=None if thickness is None else float(thickness[0]),
        slope=1.0 if slope is None else float(slope[0]),
        intercept=0.0 if intercept is None else float(intercept[0]),
        frame_of_reference=str(header.get("FrameOfReferenceUID", "")),
        stack=str(_find(sources, "StackID")),
        is_localizer="LOCALIZER" in traits.get("ImageType", "") + traits.get("FrameType", ""),
        traits=traits,
    )


def _find(sources: Sequence[Dataset], keyword: str) -> Any:
    """Value of a tag in the first data set that has it, None where none has."""
    return next((data[keyword].value for data in sources if keyword in data and not data[keyword].is_empty), None)


def _numbers(sources: Sequence[Dataset], keyword: str, count: int, path: Path) -> NDArray[np.float64] | None:
    try:
        value = _find(sources, keyword)
        if value is None:
            return None
        numbers = np.asarray(value, dtype=np.float64).reshape(count)
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    if not np.isfinite(numbers).all():
        raise DicomError(f"{path.name}: {keyword} is not {'a number' if count == 1 else f'{count} numbers'}.")
    return numbers
