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

"""The source of a derived DICOM series: attributes to take over, and references to its instances."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)

from monai_sliceinterp.dicom.attributes import may_hold
from monai_sliceinterp.dicom.frames import DicomError, Frame, frames_of
from monai_sliceinterp.dicom.series import open_dicom
from monai_sliceinterp.dicom.stack import main_plane

__all__ = ["SourceSeries", "SourceSlice", "code_item", "reference_item"]

_SINGLE_FRAME = {
    CTImageStorage: CTImageStorage,
    EnhancedCTImageStorage: CTImageStorage,
    LegacyConvertedEnhancedCTImageStorage: CTImageStorage,
    MRImageStorage: MRImageStorage,
    EnhancedMRImageStorage: MRImageStorage,
    LegacyConvertedEnhancedMRImageStorage: MRImageStorage,
}
_WINDOW = ("VOILUTFunction", "WindowCenter", "WindowCenterWidthExplanation", "WindowWidth")
# attributes in the functional groups of an enhanced object, and what they are called in a single-frame one
_LIFTED = {
    **{keyword: keyword for keyword in _WINDOW},
    "EchoTrainLength": "EchoTrainLength",
    "EffectiveEchoTime": "EchoTime",
    "FlipAngle": "FlipAngle",
    "FrameLaterality": "ImageLaterality",
    "InversionTimes": "InversionTime",
    "KVP": "KVP",
    "RepetitionTime": "RepetitionTime",
    "RescaleType": "RescaleType",
}
_SCANNING_SEQUENCES = {"SPIN": "SE", "GRADIENT": "GR", "BOTH": ["SE", "GR"]}
_PARALLEL = 1e-3
"""Largest cosine between a normal and the directions of parallel planes."""


@dataclass(frozen=True, eq=False)
class SourceSlice:
    """One slice of the source.

    Attributes:
        frame: its position and thickness.
        sop_class: UID of its storage class.
        sop_instance: UID of its instance.
        name: what to call it in a text.
        is_instance: whether it is a whole instance, not a frame of one.
        image_type: values of ImageType.
        window: attributes of its window.
    """

    frame: Frame
    sop_class: UID
    sop_instance: UID
    name: str
    is_instance: bool
    image_type: tuple[str, ...]
    window: Dataset


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """The series from which another is derived.

    Attributes:
        slices: its slices, without localizers.
        common: attributes that a derived instance takes over: those of patient, study, frame of reference, equipment
            and acquisition that are the same in all slices. What differs from slice to slice (times, exposure, table
            positions, ...) does not hold for slices in between. Private attributes are left out.
        storage_class: UID of the single-frame CT or MR storage class.
    """

    slices: tuple[SourceSlice, ...]
    common: Dataset
    storage_class: UID

    @classmethod
    def read(cls, files: Sequence[str | Path]) -> SourceSeries:
        """Read the headers of a series.

        Args:
            files: its files, at least one; or the one file of a multi-frame object.

        Raises:
            ValueError: if one is not DICOM or not a CT or MR image.
        """
        common: Dataset | None = None
        slices = []
        lossy = False
        for path in files:
            for data, item in _slices(Path(path)):
                slices.append(item)
                lossy = lossy or data.get("LossyImageCompression") == "01"
                if common is None:
                    common = Dataset()
                    for element in filter(lambda element: may_hold(element.tag), data):
                        common.add(element)
                _keep_equal(common, data)
        if common is None:
            raise ValueError("there is no source to derive from; expected at least one DICOM file.")
        if lossy:
            common.LossyImageCompression = "01"
        try:
            plane = set(map(id, main_plane([item.frame for item in slices])))
        except DicomError as error:
            raise ValueError(f"{Path(files[0]).parent}: {error}") from error
        slices = [item for item in slices if id(item.frame) in plane]
        return cls(tuple(slices), common, _SINGLE_FRAME[slices[0].sop_class])

    def along(self, normal: NDArray[np.float64]) -> list[tuple[float, SourceSlice]]:
        """Sort the slices by their distance along a normal; none if their planes are not perpendicular to it.

        Args:
            normal: unit vector ``(3,)``, LPS.

        Returns:
            Distances from the origin in mm, with the slices.
        """
        if abs(self.slices[0].frame.directions @ normal).max() > _PARALLEL:
            return []
        pairs = [(float(item.frame.position @ normal), item) for item in self.slices]
        return sorted(pairs, key=lambda pair: pair[0])


def _slices(path: Path) -> Iterator[tuple[Dataset, SourceSlice]]:
    """Read the slices of a file, each with attributes named as in a single-frame object."""
    header = open_dicom(path, stop_before_pixels=True)
    storage = UID(header.get("SOPClassUID", ""))
    if storage not in _SINGLE_FRAME:
        kind = storage.name or "not an image"
        raise ValueError(f"{path}: is {kind}; expected a CT or MR image for output_format dicom; nifti writes any.")
    try:
        header.remove_private_tags()
        frames = frames_of(header, path)
    except DicomError as error:  # which begins with the name
        raise ValueError(f"{path.parent}/{error}") from error
    groups = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = _lifted((header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0])
    if "EchoPulseSequence" in header:
        shared.ScanningSequence = _SCANNING_SEQUENCES.get(header.EchoPulseSequence, "RM")
    for frame in frames:
        data = header
        if groups:
            data = Dataset()
            for part in (header, shared, _lifted(groups[frame.index])):
                data.update(part)
        window = Dataset()
        for keyword in _WINDOW:
            if keyword in data:
                window.add(data[keyword])
        number = data.get("InstanceNumber")
        instance = f"instance {data.SOPInstanceUID if number is None else number}"
        yield (
            data,
            SourceSlice(
                frame=frame,
                sop_class=storage,
                sop_instance=data.SOPInstanceUID,
                name=f"frame {frame.index + 1}" if groups else instance,
                is_instance=not groups,
                image_type=tuple(data.get("ImageType") or ()),
                window=window,
            ),
        )


def _lifted(groups: Dataset) -> Dataset:
    """Collect attributes from functional groups."""
    result = Dataset()
    for group in groups:
        for keyword, name in _LIFTED.items():
            if group.VR == "SQ" and group.value and keyword in group.value[0]:
                setattr(result, name, group.value[0][keyword].value)
    return result


def _keep_equal(common: Dataset, data: Dataset) -> None:
    """Drop what another slice has not, or has otherwise; texts were decoded by the character set of the first."""
    for element in list(common):
        if element.keyword != "SpecificCharacterSet" and element != data.get(element.tag):
            del common[element.tag]


def code_item(name: str) -> Dataset:
    """Make an item of a code sequence.

    Args:
        name: DICOM's own code (DCM), as pydicom calls it.

    Example:
        >>> code_item("SpatialResampling").CodeValue
        '113085'
    """
    from pydicom.sr.codedict import codes  # large tables, which reading does not need

    code, item = getattr(codes.DCM, name), Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def reference_item(source: SourceSlice, whole: bool = False) -> Dataset:
    """Create an item of SourceImageSequence.

    Args:
        source: the slice referred to.
        whole: refer to the whole instance, not to the frame.
    """
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.sop_class, source.sop_instance
    if not source.is_instance and not whole:
        item.ReferencedFrameNumber = source.frame.index + 1
    item.PurposeOfReferenceCodeSequence = [code_item("SourceImageForImageProcessingOperation")]
    return item
