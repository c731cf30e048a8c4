# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""DICOM segmentations as labels."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage, generate_uid

from monai_sliceinterp.dicom.segmentation import read_segmentation, segmentation_file
from monai_sliceinterp.transforms import LoadLabeld, LoadVolume
from tests.dicom_series import write_series

AFFINE = np.array([[0.8, 0, 0, -20], [0, 0.7, 0, 12], [0, 0, 5, -30], [0, 0, 0, 1.0]])
LABEL = np.zeros((9, 8, 4), np.uint8)
LABEL[2:6, 1:5, 1:3] = 1
LABEL[6:8, 3:7, 2:] = 2


def item(**elements):
    data = Dataset()
    for name, value in elements.items():
        setattr(data, name, Sequence([value]) if isinstance(value, Dataset) else value)
    return data


def write_segmentation(path, label=LABEL, affine=AFFINE, kind="BINARY", flip=False):
    """One frame for each segment and slice where it is; bits packed, as most writers do."""
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    label = label[:, ::-1] if flip else label
    if flip:
        lps = lps @ np.array([[1, 0, 0, 0], [0, -1, 0, label.shape[1] - 1], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    frames, groups = [], []
    for number in range(1, int(label.max()) + 1):
        for k in np.flatnonzero((label == number).any((0, 1))):
            frames.append((label[..., k] == number).T)
            position = (lps @ [0, 0, k, 1])[:3]
            groups.append(
                item(
                    PlanePositionSequence=item(ImagePositionPatient=position.tolist()),
                    SegmentIdentificationSequence=item(ReferencedSegmentNumber=number),
                )
            )
    pixels = np.stack(frames)
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.SeriesInstanceUID, data.Modality, data.SegmentationType = generate_uid(), "SEG", kind
    data.NumberOfFrames, data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    bits = 1 if kind == "BINARY" else 8
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    directions = (lps[:3, :2] / spacing[:2]).T.ravel().tolist()
    data.SharedFunctionalGroupsSequence = Sequence(
        [
            item(
                PixelMeasuresSequence=item(PixelSpacing=[spacing[1], spacing[0]], SliceThickness=spacing[2]),
                PlaneOrientationSequence=item(ImageOrientationPatient=directions),
            )
        ]
    )
    data.PerFrameFunctionalGroupsSequence = Sequence(groups)
    if bits == 1:
        packed = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    else:
        data.MaximumFractionalValue = 200
        packed = (pixels * 150 + 40).astype(np.uint8).tobytes()
    data.PixelData = packed + b"\0" * (len(packed) % 2)
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
@pytest.mark.parametrize("flip", [False, True])
def test_on_the_grid_of_the_image(tmp_path, kind, flip):
    path = write_segmentation(tmp_path / "seg.dcm", kind=kind, flip=flip)
    np.testing.assert_array_equal(read_segmentation(path, AFFINE, LABEL.shape), LABEL)
    assert segmentation_file(path) == segmentation_file(tmp_path) == path


def test_label_of_a_series(tmp_path):
    """Also where the image's slices run the other way than the segmentation's frames."""
    write_series(tmp_path / "scan", np.zeros(LABEL.shape, np.int16), AFFINE)
    image = LoadVolume()(tmp_path / "scan")
    path = write_segmentation(tmp_path / "seg.dcm", affine=image.affine.numpy(), flip=True)
    label = LoadLabeld("image", path)({"image": image})["segmentation"]
    np.testing.assert_array_equal(label.numpy()[0], LABEL)
    np.testing.assert_array_equal(label.affine, image.affine)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda data: setattr(data, "PerFrameFunctionalGroupsSequence", Sequence([])), "tells the position of 0"),
        (lambda data: [group.__delattr__("SegmentIdentificationSequence") for group in _groups(data)], "no segment"),
        (lambda data: setattr(_groups(data)[0].PlanePositionSequence[0], "ImagePositionPatient", [1, 2, 3]), "grid"),
        (lambda data: setattr(data, "PixelData", b"12"), "cannot be decoded"),
        (
            lambda data: _without_groups(data),
            "its frames do not tell their segments; expected a segment number for each.$",
        ),
    ],
)
def test_refused(tmp_path, change, text):
    path = write_segmentation(tmp_path / "seg.dcm")
    data = pydicom.dcmread(path)
    change(data)
    data.save_as(path)
    with pytest.raises(ValueError, match=f"seg.dcm: .*{text}"):
        read_segmentation(path, AFFINE, LABEL.shape)


def _without_groups(data):
    """One frame, whose place is told as in other images."""
    for group in (_groups(data)[0], data.SharedFunctionalGroupsSequence[0]):
        for name in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"):
            data.update(group[name][0] if name in group else {})
    data.NumberOfFrames = 1
    del data.PerFrameFunctionalGroupsSequence


def _groups(data):
    return data.PerFrameFunctionalGroupsSequence
