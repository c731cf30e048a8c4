# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""DICOM series for tests: ``from tests.dicom_series import write_series``."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
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
SECRETS = ("Phantom", PATIENT_ID, "19000101", "ACC-001", "Referrer")
LOCALIZER = {"ImageType": ("ORIGINAL", "PRIMARY", "LOCALIZER"), "ImageOrientationPatient": (1, 0, 0, 0, 0, -1)}


def stack_affine(affine: np.ndarray, step: float | None = None, tilt: float = 0.0) -> np.ndarray:
    """Affine (RAS, mm) of a series whose slices are ``step`` mm apart, tilted as in :func:`write_series`."""
    result = np.array(affine, dtype=np.float64)
    length = np.linalg.norm(result[:3, 2])
    along, across = result[:3, 2] / length, result[:3, 1] / np.linalg.norm(result[:3, 1])
    result[:3, 2] = (along + np.tan(np.radians(tilt)) * across) * (length if step is None else step)
    return result


def dataset(*sources: Dataset, **tags: Any) -> Dataset:
    """A data set with copies of the elements of others, and with tags as in :func:`set_tags`."""
    data = Dataset()
    for source in sources:
        data.update(copy.deepcopy(source))
    return set_tags(data, tags)


def set_tags(data: Dataset, tags: Mapping[str, Any]) -> Dataset:
    """Set tags by keyword; a tuple is multi-valued, None removes the tag."""
    for keyword, value in tags.items():
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, list(value) if isinstance(value, tuple) else value)
    return data


def retag(path: Path, **tags: Any) -> None:
    """Change tags of a file."""
    set_tags(pydicom.dcmread(path), tags).save_as(path)


def remove_preamble(path: Path) -> None:
    """Leave a file without preamble and meta information, as old writers do."""
    path.write_bytes(path.read_bytes()[144 + pydicom.dcmread(path).file_meta.FileMetaInformationGroupLength :])
    assert path.read_bytes()[:4] == b"\x08\x00\x08\x00"


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
) -> list[Path]:
    """Write a CT or MR series, one file a slice, each slice at its own position, files named in shuffled order.

    Args:
        folder: made if it is missing. Call twice (with another ``prefix`` of the names) for two series in one folder.
        array: ``(X, Y, Z)`` values (HU for CT); stored is ``(array - intercept) / slope``, rounded to 16 bits.
        affine: 4x4, RAS, mm. In-plane axes must be perpendicular. Left-handed means slices against the normal.
        modality: "CT" or "MR".
        drop: slices that are missing.
        positions: Z distances from the first slice in mm along the third axis; None: the affine's.
        tilt: gantry tilt in degrees: slices shift along the second axis by ``tan(tilt)`` times their distance.
        thickness: SliceThickness in mm; None: the affine's slice spacing.
        slope, intercept: of the rescale, one or one per slice; no intercept: -1024 for CT, for MR no rescale tags.
        multi_frame: one enhanced object, with what is the same in all frames in the shared functional groups.
        frame_order: order of its frames (indices of the slices that are there); None: in order of position.
        duplicates: slices written twice; ``duplicate_offset`` is added to the second one's stored values, and
            ``duplicate_tags`` are set there.
        localizer: add an image of another orientation to the series.
        signed: PixelRepresentation.
        series_uid, study_uid, frame_uid: UIDs of the series, the study and the frame of reference.
        description: SeriesDescription.
        transfer_syntax: UID: explicit or implicit little endian, explicit big endian, or RLE.
        tags: more tags, see :func:`set_tags`; a list has one value per slice.
        prefix: beginning of the file names.

    Returns:
        Paths in the order of the slices in ``array``, then those of the duplicates and the localizer.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    count, kind = array.shape[2], np.dtype(np.int16 if signed else np.uint16)
    if intercept is None and modality == "CT":
        intercept = -1024.0
    slopes, intercepts = np.broadcast_to(slope, count), np.broadcast_to(0 if intercept is None else intercept, count)
    axes, along = np.asarray(affine)[:3, :3], stack_affine(affine, 1.0, tilt)
    steps = np.linalg.norm(axes, axis=0)
    distances = steps[2] * np.arange(count) if positions is None else np.asarray(positions, dtype=np.float64)
    places = [_ds((along[:3, 3] + d * along[:3, 2]) * (-1, -1, 1) + 0.0) for d in distances]
    orientation = _ds(((axes / steps).T[:2] * (-1, -1, 1) + 0.0).ravel())
    measures = dataset(
        PixelSpacing=_ds(steps[1::-1]),  # between rows first
        SliceThickness=_ds(steps[2] if thickness is None else thickness),
        SpacingBetweenSlices=_ds(steps[2]),
    )
    common = _common(modality, description, study_uid, series_uid, frame_uid)
    common.Rows, common.Columns, common.PixelRepresentation = array.shape[1], array.shape[0], int(signed)
    present = [k for k in range(count) if k not in drop]

    def rescale(k: int) -> Dataset:
        if intercept is None:
            return Dataset()
        unit = "HU" if modality == "CT" else "US"
        return dataset(RescaleSlope=_ds(slopes[k]), RescaleIntercept=_ds(intercepts[k]), RescaleType=unit)

    def stored(k: int) -> np.ndarray:
        values = np.round((array[:, :, k].T - intercepts[k]) / slopes[k])
        limits = np.iinfo(kind)
        assert limits.min <= values.min() and values.max() <= limits.max, "the stored values do not fit into 16 bits"
        return values.astype(kind)

    def tags_of(k: int) -> dict[str, Any]:
        return {name: value[k] if isinstance(value, list) else value for name, value in (tags or {}).items()}

    if multi_frame:
        order = present if frame_order is None else list(frame_order)
        is_same = len(set(zip(slopes, intercepts, strict=True))) == 1
        plane = dataset(ImageOrientationPatient=orientation)
        shared = dataset(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[plane])
        if is_same and intercept is not None:
            shared.PixelValueTransformationSequence = [rescale(0)]
        frames = []
        for k in order:
            content = dataset(FrameAcquisitionNumber=1, StackID="1", InStackPositionNumber=present.index(k) + 1)
            position = dataset(ImagePositionPatient=places[k])
            frames.append(dataset(FrameContentSequence=[content], PlanePositionSequence=[position]))
            if not is_same:
                frames[-1].PixelValueTransformationSequence = [rescale(k)]
        data = dataset(common, NumberOfFrames=len(order), InstanceNumber=1)
        data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = [shared], frames
        pixels, path = np.stack([stored(k) for k in order]), folder / f"{prefix}_0000.dcm"
        return [_save(set_tags(data, tags_of(0)), pixels, path, STORAGE[modality][1], transfer_syntax)]

    images = [(k, 0, {}) for k in present] + [(k, duplicate_offset, duplicate_tags or {}) for k in duplicates]
    if localizer:
        images.append((0, 0, LOCALIZER))
    paths = []
    for number, (k, offset, changes) in zip(np.random.default_rng(0).permutation(len(images)), images, strict=True):
        data = dataset(common, measures, rescale(k), InstanceNumber=len(paths) + 1, AcquisitionNumber=1)
        data.ImagePositionPatient, data.ImageOrientationPatient = places[k], orientation
        data.SliceLocation = _ds(distances[k])
        set_tags(data, {**tags_of(k), **changes})
        path = folder / f"{prefix}_{number:04d}.dcm"
        paths.append(_save(data, stored(k) + kind.type(offset), path, STORAGE[modality][0], transfer_syntax))
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


def _ds(values: float | np.ndarray) -> str | list[str]:
    """Decimal strings, which have 16 characters at most."""
    return [_ds(value) for value in values] if np.ndim(values) else format_number_as_ds(float(values))


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
