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

"""DICOM series for tests: ``from tests.dicom_series import write_series``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
    generate_uid,
)
from pydicom.valuerep import format_number_as_ds

STORAGE = {"CT": (CTImageStorage, EnhancedCTImageStorage), "MR": (MRImageStorage, EnhancedMRImageStorage)}
PATIENT_NAME, PATIENT_ID = "Phantom^Test", "PHANTOM-001"


def stack_affine(affine: np.ndarray, step: float | None = None, tilt: float = 0.0) -> np.ndarray:
    """Affine (RAS, mm) of a series whose slices are ``step`` mm apart, tilted as in :func:`write_series`."""
    result = np.array(affine, dtype=np.float64)
    length = np.linalg.norm(result[:3, 2])
    along, across = result[:3, 2] / length, result[:3, 1] / np.linalg.norm(result[:3, 1])
    result[:3, 2] = (along + np.tan(np.radians(tilt)) * across) * (length if step is None else step)
    return result


def write_series(
    folder: str | Path,
    array: np.ndarray,
    affine: np.ndarray,
    *,
    modality: str = "CT",
    drop: Sequence[int] = (),
    positions: Sequence[float] | None = None,
    tilt: float = 0.0,
    thickness: float | None = None,
    slope: float | Sequence[float] = 1.0,
    intercept: float | Sequence[float] | None = None,
    multi_frame: bool = False,
    frame_order: Sequence[int] | None = None,
    duplicates: Sequence[int] = (),
    duplicate_offset: int = 0,
    duplicate_tags: Mapping[str, Any] | None = None,
    localizer: bool = False,
    signed: bool = True,
    series_uid: str | None = None,
    study_uid: str | None = None,
    frame_uid: str | None = None,
    description: str = "phantom",
    transfer_syntax: str = ExplicitVRLittleEndian,
    tags: Mapping[str, Any] | None = None,
    prefix: str = "IM",
    seed: int = 0,
) -> list[Path]:
    """Write a CT or MR series, one file a slice, each slice at its own position, files named in shuffled order.

    Args:
        folder: written to, made if it is missing. Call twice (with another ``prefix``) for two series in one folder.
        array: ``(X, Y, Z)`` values (HU for CT); stored is ``(array - intercept) / slope``, rounded to 16 bits.
        affine: 4x4, RAS, mm. In-plane axes must be perpendicular. Left-handed means slices against the normal.
        modality: "CT" or "MR".
        drop: slices that are missing.
        positions: Z distances from the first slice in mm along the third axis; None: the affine's.
        tilt: gantry tilt in degrees: slices shift along the second axis by ``tan(tilt)`` times their distance.
        thickness: SliceThickness in mm; None: the affine's slice spacing.
        slope: RescaleSlope, one or one per slice.
        intercept: RescaleIntercept, one or one per slice; None: -1024 for CT, and for MR no rescale tags at all.
        multi_frame: one enhanced object, with what is the same in all frames in the shared functional groups.
        frame_order: order of its frames (indices of kept slices); None: in order of position.
        duplicates: slices written twice; ``duplicate_offset`` is added to the second one's stored values, and
            ``duplicate_tags`` are set there.
        localizer: add an image of another orientation to the series.
        signed: PixelRepresentation.
        series_uid: UID of the series, as ``study_uid`` of the study and ``frame_uid`` of the frame of reference.
        description: SeriesDescription.
        transfer_syntax: UID: explicit or implicit little endian, explicit big endian, or RLE.
        tags: more tags by keyword; a list has one value per slice, a tuple is multi-valued, None removes the tag.
        prefix: beginning of the file names.
        seed: of the order of file names.

    Returns:
        Paths in the order of the slices in ``array``, then those of the duplicates and the localizer.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    num_slices = array.shape[2]
    if intercept is None and modality == "CT":
        intercept = -1024.0
    slopes = np.broadcast_to(slope, num_slices)
    intercepts = None if intercept is None else np.broadcast_to(intercept, num_slices)
    steps = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)
    along = stack_affine(affine, 1.0, tilt)
    distances = steps[2] * np.arange(num_slices) if positions is None else np.asarray(positions, dtype=np.float64)
    places = [(along[:3, 3] + d * along[:3, 2]) * (-1, -1, 1) + 0.0 for d in distances]
    orientation = [x for axis in (0, 1) for x in np.asarray(affine)[:3, axis] / steps[axis] * (-1, -1, 1) + 0.0]
    thickness = steps[2] if thickness is None else thickness
    kept = [k for k in range(num_slices) if k not in drop]
    kind = np.int16 if signed else np.uint16

    def stored(k: int) -> np.ndarray:
        offset = 0.0 if intercepts is None else intercepts[k]
        values = np.round((array[:, :, k].T - offset) / slopes[k])
        limits = np.iinfo(kind)
        assert limits.min <= values.min() and values.max() <= limits.max, "the stored values do not fit into 16 bits"
        return values.astype(kind)

    common = _common(modality, description, study_uid, series_uid, frame_uid)
    common.Rows, common.Columns = array.shape[1], array.shape[0]
    common.PixelRepresentation = int(signed)

    if multi_frame:
        order = kept if frame_order is None else list(frame_order)
        data = _copy(common)
        data.NumberOfFrames = len(order)
        data.InstanceNumber = 1
        data.SharedFunctionalGroupsSequence = [Dataset()]
        shared = data.SharedFunctionalGroupsSequence[0]
        shared.PixelMeasuresSequence = [_measures(steps, thickness)]
        shared.PlaneOrientationSequence = [_with(ImageOrientationPatient=_ds(orientation))]
        data.PerFrameFunctionalGroupsSequence = []
        same = intercepts is None or (len(set(slopes)) == 1 and len(set(intercepts)) == 1)
        if intercepts is not None and same:
            shared.PixelValueTransformationSequence = [_rescale(slopes[0], intercepts[0], modality)]
        for k in order:
            content = _with(FrameAcquisitionNumber=1, StackID="1", InStackPositionNumber=kept.index(k) + 1)
            frame = _with(FrameContentSequence=[content])
            frame.PlanePositionSequence = [_with(ImagePositionPatient=_ds(places[k]))]
            if not same:
                frame.PixelValueTransformationSequence = [_rescale(slopes[k], intercepts[k], modality)]
            data.PerFrameFunctionalGroupsSequence.append(frame)
        _set(data, tags, 0)
        path = folder / f"{prefix}_0000.dcm"
        return [_save(data, np.stack([stored(k) for k in order]), path, STORAGE[modality][1], transfer_syntax)]

    count = len(kept) + len(duplicates) + int(localizer)
    numbers = iter(np.random.default_rng(seed).permutation(count).tolist())
    paths = []

    def save(data: Dataset, pixels: np.ndarray) -> None:
        path = folder / f"{prefix}_{next(numbers):04d}.dcm"
        paths.append(_save(data, pixels, path, STORAGE[modality][0], transfer_syntax))

    for copy, k in [(False, k) for k in kept] + [(True, k) for k in duplicates]:
        data = _copy(common)
        data.InstanceNumber = len(paths) + 1
        data.AcquisitionNumber = 1
        data.ImagePositionPatient, data.ImageOrientationPatient = _ds(places[k]), _ds(orientation)
        data.update(_measures(steps, thickness))
        data.SliceLocation = _ds([distances[k]])[0]
        if intercepts is not None:
            data.update(_rescale(slopes[k], intercepts[k], modality))
        _set(data, tags, k)
        _set(data, duplicate_tags if copy else None, k)
        save(data, stored(k) + kind(duplicate_offset if copy else 0))
    if localizer:
        data = _copy(common)
        data.InstanceNumber = len(paths) + 1
        data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        data.ImagePositionPatient, data.ImageOrientationPatient = _ds(places[0]), _ds([1, 0, 0, 0, 0, -1])
        data.update(_measures(steps, thickness))
        if intercepts is not None:
            data.update(_rescale(slopes[0], intercepts[0], modality))
        save(data, stored(0))
    return paths


def _common(modality: str, description: str, study: str | None, series: str | None, frame: str | None) -> Dataset:
    """What all objects of a series have in common."""
    data = Dataset()
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = PATIENT_NAME, PATIENT_ID, "19000101", "O"
    data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20200102", "030405", "1", "ACC-001"
    data.ReferringPhysicianName = "Referrer^Test"
    data.StudyInstanceUID = study or generate_uid()
    data.SeriesInstanceUID, data.SeriesNumber, data.SeriesDescription = series or generate_uid(), 3, description
    data.SeriesDate, data.SeriesTime, data.ContentDate, data.ContentTime = "20200102", "030405", "20200102", "030406"
    data.Modality, data.Manufacturer, data.PatientPosition = modality, "Test", "HFS"
    data.FrameOfReferenceUID, data.PositionReferenceIndicator = frame or generate_uid(), ""
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL" if modality == "CT" else "M"]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    if modality == "CT":
        data.KVP = "120"
    else:
        data.ScanningSequence, data.SequenceVariant, data.ScanOptions, data.MRAcquisitionType = "SE", "NONE", "", "2D"
        data.EchoTime, data.RepetitionTime, data.EchoTrainLength = "80", "3000", 1
    return data


def _measures(steps: np.ndarray, thickness: float) -> Dataset:
    between_columns, between_rows, between_slices = steps
    return _with(
        PixelSpacing=_ds([between_rows, between_columns]),
        SliceThickness=_ds([thickness])[0],
        SpacingBetweenSlices=_ds([between_slices])[0],
    )


def _rescale(slope: float, intercept: float, modality: str) -> Dataset:
    kind = "HU" if modality == "CT" else "US"
    return _with(RescaleSlope=_ds([slope])[0], RescaleIntercept=_ds([intercept])[0], RescaleType=kind)


def _ds(values: Sequence[float] | np.ndarray) -> list[str]:
    """Decimal strings, which have 16 characters at most."""
    return [format_number_as_ds(float(value)) for value in values]


def _with(**tags: Any) -> Dataset:
    data = Dataset()
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    return data


def _copy(common: Dataset) -> Dataset:
    data = Dataset()
    data.update(common)
    return data


def _set(data: Dataset, tags: Mapping[str, Any] | None, k: int) -> None:
    for keyword, value in (tags or {}).items():
        value = value[k] if isinstance(value, list) else value
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, list(value) if isinstance(value, tuple) else value)


def _save(data: Dataset, pixels: np.ndarray, path: Path, storage: str, syntax: str) -> Path:
    data.SOPClassUID, data.SOPInstanceUID = storage, generate_uid()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = storage, data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    data.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if syntax == ExplicitVRBigEndian else "<")).tobytes()
    data["PixelData"].VR = "OW"
    if syntax == RLELossless:
        data.compress(RLELossless, generate_instance_uid=False)
    data.save_as(path, enforce_file_format=True)
    return path
