# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import warnings
from datetime import datetime, timedelta, timezone
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from monai.data import ITKReader, MetaTensor
from pydicom.tag import Tag
from pydicom.uid import UID, PositronEmissionTomographyImageStorage
from scipy.spatial.transform import Rotation

from monai_sliceinterp.dicom import read_dicom
from monai_sliceinterp.dicom import writing as module
from monai_sliceinterp.dicom.attributes import may_hold
from monai_sliceinterp.dicom.derivation import SourceSeries
from monai_sliceinterp.dicom.encoding import PixelEncoding, decimal_string
from monai_sliceinterp.dicom.planes import SlicePlanes
from monai_sliceinterp.dicom.writing import write_dicom_series
from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.transforms import save_nifti
from tests.dicom_series import PATIENT_ID, PATIENT_NAME, STORAGE, dataset, retag, stack_affine, write_series

SHAPE = (9, 7, 4)
DIAGONAL = np.array([[0.7, 0, 0, -100], [0, 0.8, 0, -50], [0, 0, 4, 30], [0, 0, 0, 1.0]])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [10, -25, 30], degrees=True).as_matrix() @ np.diag([0.7, 0.8, 4])
OBLIQUE[:3, 3] = (-120.123456, 20, 300)
MEASURED = "slice interpolation by x"


def voxels(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).integers(-1000, 3000, shape).astype(np.int16)


def flipped(affine, *axes):
    """The same box of voxels with array axes reversed."""
    result = affine.copy()
    for axis in axes:
        result[:3, 3] += result[:3, axis] * (SHAPE[axis] - 1)
        result[:3, axis] *= -1
    return result


def interpolated(affine, factor=2, axis=2, array=None, **meta):
    """A volume with ``factor`` times the slices, on the grid of the package."""
    shape = list(SHAPE)
    grid = OutputGrid.from_factor(shape[axis], factor)
    shape[axis] = len(grid)
    array = voxels(shape, seed=1) if array is None else array
    image = MetaTensor(torch.as_tensor(array)[None], affine=torch.tensor(grid.affine(affine, axis)), meta=meta)
    return image, grid.is_observed.tolist()


def make_series(folder, affine=DIAGONAL, **options):
    return write_series(folder / "scan", voxels(), affine, **options)


@pytest.fixture
def series(tmp_path):
    return make_series(tmp_path)


def written(files, affine=DIAGONAL, axis=2, factor=2, array=None, name="out", **options):
    """Write a series derived from another, beside its folder; returns the volume and the data sets in the files."""
    image, observed = interpolated(affine, factor, axis, array)
    options = {"observed": observed, "derivation": MEASURED, **options}
    paths = write_dicom_series(image, files, files[0].parents[1] / name, axis=axis, **options)
    return image, [pydicom.dcmread(path) for path in paths]


def headers(files, **options):
    return written(files, **options)[1]


def by_simpleitk(folder):
    reader = sitk.ImageSeriesReader()
    (uid,) = reader.GetGDCMSeriesIDs(str(folder))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), uid))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, np.diag([-1, -1, 1, 1]) @ affine


def by_itk(folder):
    reader = ITKReader()
    array, meta = reader.get_data(reader.read(str(folder)))
    return array, np.asarray(meta["affine"])


def by_pydicom(folder):
    """Only from positions, orientations and spacings, as the standard tells it."""
    data = sorted((pydicom.dcmread(path) for path in folder.iterdir()), key=lambda item: item.InstanceNumber)
    first, last = (np.array(data[k].ImagePositionPatient, dtype=float) for k in (0, -1))
    lps = np.eye(4)
    row, column = np.reshape(data[0].ImageOrientationPatient, (2, 3)).astype(float)
    lps[:3, 0] = row * float(data[0].PixelSpacing[1])
    lps[:3, 1] = column * float(data[0].PixelSpacing[0])
    lps[:3, 2] = (last - first) / (len(data) - 1)
    lps[:3, 3] = first
    images = [
        item.pixel_array * float(item.get("RescaleSlope", 1)) + float(item.get("RescaleIntercept", 0)) for item in data
    ]
    return np.stack(images).T, np.diag([-1, -1, 1, 1]) @ lps


def by_this_package(folder):
    array, meta = read_dicom(folder)
    return array, meta["affine"]


READERS = [by_simpleitk, by_itk, by_pydicom, by_this_package]


def assert_same_space(found, expected):
    """Equal voxels at equal places, whatever the order of the array's axes."""
    ours, theirs = (
        nib.as_closest_canonical(nib.Nifti1Image(np.float64(array), affine)) for array, affine in (found, expected)
    )
    np.testing.assert_array_equal(ours.get_fdata(), theirs.get_fdata())
    np.testing.assert_allclose(ours.affine, theirs.affine, rtol=0, atol=1e-4)


class TestRoundTrip:
    @pytest.mark.parametrize(
        ("affine", "axis"),
        [
            (DIAGONAL, 2),
            (flipped(DIAGONAL, 0), 1),
            (flipped(DIAGONAL, 0, 1), 2),
            (flipped(DIAGONAL, 0, 1, 2), 0),
            (OBLIQUE, 0),
            (OBLIQUE, 1),
            (OBLIQUE, 2),
            (flipped(OBLIQUE, 1), 2),
        ],
        ids=["plain", "x", "xy", "xyz", "oblique 0", "oblique 1", "oblique 2", "oblique y"],
    )
    def test_equals_nifti(self, tmp_path, affine, axis):
        image, _ = written(make_series(tmp_path, affine), affine, axis=axis)
        save_nifti(image, tmp_path / "a.nii.gz")
        saved = nib.load(tmp_path / "a.nii.gz")
        for reader in READERS:
            assert_same_space(reader(tmp_path / "out"), (saved.get_fdata(), saved.affine))
        assert by_simpleitk(tmp_path / "out")[0].dtype == np.int16  # others see integers

    @pytest.mark.parametrize("modality", ["CT", "MR"])
    def test_floating_point(self, tmp_path, modality):
        """All readers apply the slope and intercept, also of an MR image."""
        array = np.random.default_rng(0).normal(3e-4, 1e-4, (9, 7, 7)).astype(np.float32)
        array[0, 0, 0] = 0.01
        written(make_series(tmp_path, modality=modality), array=array)
        step = (float(array.max()) - float(array.min())) / 65535
        for reader in READERS:
            found, _ = reader(tmp_path / "out")
            assert 0.3 * step < abs(found - array.astype(np.float64)).max() <= 0.501 * step

    def test_tilted(self, tmp_path):
        """Each slice is where the sheared affine puts it, the spacing is that of the planes."""
        image, data = written(make_series(tmp_path, tilt=20), stack_affine(DIAGONAL, tilt=20))
        for k, item in enumerate(data):
            shift = np.tan(np.radians(20)) * 2 * k
            np.testing.assert_allclose(item.ImagePositionPatient, (100, 50 - shift, 30 + 2 * k), rtol=0, atol=1e-6)
            assert item.SpacingBetweenSlices == pytest.approx(2, abs=1e-6)
            assert item.SliceLocation == pytest.approx(30 + 2 * k, abs=1e-6)
        for reader in (by_pydicom, by_this_package):
            assert_same_space(reader(tmp_path / "out"), (image[0].numpy(), image.affine.numpy()))


class TestPlanes:
    def test_by_hand(self):
        """A coronal stack: rows run along x, columns along z, slices backwards along y."""
        affine = np.array([[2.0, 0, 0, 10], [0, 3, 0, 20], [0, 0, 5, 30], [0, 0, 0, 1]])
        planes = SlicePlanes.create(affine, axis=1, count=3)
        assert planes.orientation.tolist() == [[-1, 0, 0], [0, 0, 1]]
        assert planes.pixel_spacing == (5.0, 2.0)  # of rows first
        assert planes.normal.tolist() == [0, 1, 0]  # (-x) x z = y
        # y of the patient grows to the back in LPS, and the array's to the front
        assert planes.order.tolist() == [2, 1, 0]
        assert planes.positions.tolist() == [[-10, -26, 30], [-10, -23, 30], [-10, -20, 30]]

    def test_perpendicular(self):
        affine = np.eye(4)
        affine[0, 1] = np.tan(np.radians(0.004))
        SlicePlanes.create(affine, 2, 2)
        for degrees in (0.01, 5):
            affine[0, 1] = np.tan(np.radians(degrees))
            with pytest.raises(ValueError, match=r"rows and columns meet at \d+\.\d\d degrees along axis 2"):
                SlicePlanes.create(affine, 2, 2)
            SlicePlanes.create(affine, 0, 2)  # from slice to slice a shear is fine


class TestEncoding:
    @pytest.mark.parametrize(
        ("values", "signed", "slope", "intercept"),
        [
            ([0, 65535], False, 1, 0),
            ([-32768, 32767], True, 1, 0),
            ([-1, 32767], True, 1, 0),
            ([-1, 32768], False, 1, -1),
            ([100000, 165535], False, 1, 100000),
            ([-1000.0, 3000.0], True, 1, 0),
            ([7, 7], False, 1, 0),
            ([-0.25, -0.25], False, 1, -0.25),
            ([0, 65536], False, 65536 / 65535, 0),
            ([0.5, 1], False, 0.5 / 65535, 0.5),
        ],
    )
    def test_choice(self, values, signed, slope, intercept):
        array = np.array(values).reshape(2, 1, 1)
        encoding = PixelEncoding.create(array)
        assert (encoding.signed, encoding.intercept) == (signed, intercept)
        assert encoding.slope == pytest.approx(slope, rel=1e-9)
        pixels = encoding.encode(array)
        assert pixels.dtype == np.dtype("<i2" if signed else "<u2")
        error = abs(pixels * encoding.slope + encoding.intercept - array).max()
        assert error <= (0 if slope == 1 else 0.50001 * slope)

    @pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e6, 1e30])
    @pytest.mark.parametrize("offset", [0.0, -3.0, 1000.0])
    def test_error(self, scale, offset):
        array = (np.random.default_rng(0).uniform(0, 1, (3, 20, 20)) + offset) * scale
        encoding = PixelEncoding.create(array)
        pixels = encoding.encode(array)
        assert pixels.min() == 0 and pixels.max() == 65535
        step = (array.max() - array.min()) / 65535
        assert abs(pixels * encoding.slope + encoding.intercept - array).max() <= 0.501 * step

    @pytest.mark.parametrize("shift", [0.0, 5e-6])
    def test_never_wraps_around(self, shift):
        """The ends may not fit where the decimal strings have too few digits."""
        array = (1e9 + shift + np.array([1.23e-5, 4.23e-5])).reshape(1, 1, 2)
        low, high = PixelEncoding.create(array).encode(array).ravel().tolist()
        assert low < 10000 and high > 55000

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, bad):
        array = np.zeros((3, 2, 2))
        array[1, 0, 1] = bad
        with pytest.raises(ValueError, match="NaN or infinite"):
            PixelEncoding.create(array)

    @pytest.mark.parametrize("value", [1 / 3, -1 / 3, 1e-9 / 7, -123.45678901234567, 1e30 / 3, 2])
    def test_decimal_string(self, value):
        assert len(decimal_string(value)) <= 16 and float(decimal_string(value)) == pytest.approx(value, rel=1e-9)


# of the image modules of the standard: what needs a value, and what may be empty
FILLED = [
    *("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", "Modality", "FrameOfReferenceUID"),
    *("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "Rows", "Columns", "PixelRepresentation"),
    *("PixelData", "SliceThickness", "ImageType", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"),
    *("BitsStored", "HighBit"),
]
PRESENT = [
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("ReferringPhysicianName", "AccessionNumber", "SeriesNumber", "PatientPosition", "PositionReferenceIndicator"),
    *("Manufacturer", "InstanceNumber", "AcquisitionNumber"),
]
FILLED_IN = {"CT": ["RescaleIntercept", "RescaleSlope", "RescaleType"], "MR": ["ScanningSequence", "SequenceVariant"]}
MR_TIMING = ["ScanOptions", "MRAcquisitionType", "EchoTime", "RepetitionTime", "EchoTrainLength"]
PRESENT_IN = {"CT": ["KVP"], "MR": MR_TIMING}


class TestHeader:
    @pytest.mark.parametrize("multi_frame", [False, True])
    @pytest.mark.parametrize("modality", ["CT", "MR"])
    def test_whole_image(self, tmp_path, modality, multi_frame):
        tags = {"PatientComments": "kept", "ProtocolName": "protocol"}
        files = make_series(tmp_path, modality=modality, multi_frame=multi_frame, tags=tags)
        source, data = pydicom.dcmread(files[0]), headers(files)
        for item in data:
            for keyword in FILLED + FILLED_IN[modality]:
                assert item.get(keyword) not in (None, ""), keyword
            for keyword in PRESENT + PRESENT_IN[modality]:
                assert keyword in item, keyword
            assert item.SOPClassUID == item.file_meta.MediaStorageSOPClassUID == STORAGE[modality][0]
            assert item.file_meta.MediaStorageSOPInstanceUID == item.SOPInstanceUID
            assert item.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
            assert item.Modality == modality
            for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate", *tags):
                assert item[keyword].value == source[keyword].value
            assert (item.Rows, item.Columns) == (7, 9)
            assert [float(x) for x in item.PixelSpacing] == [0.8, 0.7]
            assert item.SpacingBetweenSlices == 2 and item.SliceThickness == 4
            assert (item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation) == (16, 16, 15, 1)
            assert len(item.PixelData) == 126
            assert "NumberOfFrames" not in item and "PerFrameFunctionalGroupsSequence" not in item
            assert item.SeriesNumber == 1003 and item.SeriesDescription == "phantom interpolated"
        assert [item.InstanceNumber for item in data] == list(range(1, 8))
        if modality == "CT":
            assert data[0].KVP == 120 and data[0].RescaleType == "HU"
        else:
            assert data[0].EchoTime == 80 and data[0].ScanningSequence == "SE" and "RescaleSlope" not in data[0]

    def test_uids(self, series):
        source, data = [pydicom.dcmread(path) for path in series], headers(series)
        instances = [item.SOPInstanceUID for item in data]
        assert len({*instances, *(item.SOPInstanceUID for item in source)}) == 7 + 4
        (uid,) = {item.SeriesInstanceUID for item in data}
        assert all(UID(x).is_valid for x in (*instances, uid))
        assert uid not in {source[0].SeriesInstanceUID, headers(series, name="again")[0].SeriesInstanceUID}

    def test_source_lacks_what_is_required(self, tmp_path):
        tags = dict.fromkeys(("PatientBirthDate", "FrameOfReferenceUID", "ScanningSequence", "SequenceVariant"))
        tags |= {"EchoTime": None, "SeriesNumber": None, "SeriesDescription": None, "PatientPosition": None}
        data = headers(make_series(tmp_path, modality="MR", tags=tags))
        (uid,) = {item.FrameOfReferenceUID for item in data}
        assert UID(uid).is_valid and (data[0].ScanningSequence, data[0].SequenceVariant) == ("RM", "NONE")
        assert data[0].EchoTime is None and data[0].PatientBirthDate == "" and data[0].SeriesNumber == 1000
        assert data[0].PatientPosition == "" and data[0].SeriesDescription == "interpolated"

    def test_enhanced_mr(self, tmp_path):
        (path,) = make_series(tmp_path, modality="MR", multi_frame=True)
        source = pydicom.dcmread(path)
        for name in ("EchoTime", "RepetitionTime", "EchoTrainLength", "ScanningSequence", "SequenceVariant"):
            delattr(source, name)
        source.EchoPulseSequence = "BOTH"
        timing = dataset(RepetitionTime=2500, FlipAngle=12, EchoTrainLength=7)
        source.SharedFunctionalGroupsSequence[0].MRTimingAndRelatedParametersSequence = [timing]
        for k, frame in enumerate(source.PerFrameFunctionalGroupsSequence):
            frame.MREchoSequence = [dataset(EffectiveEchoTime=30)]
            frame.FrameVOILUTSequence = [dataset(WindowCenter=10 * k, WindowWidth=100)]
        source.save_as(path)
        data = headers([path])
        first = data[0]
        assert (first.EchoTime, first.RepetitionTime, first.FlipAngle, first.EchoTrainLength) == (30, 2500, 12, 7)
        assert list(first.ScanningSequence) == ["SE", "GR"]
        assert [float(x.WindowCenter) for x in data] == [0, 10, 10, 20, 20, 30, 30]

    @pytest.mark.parametrize("length", [0, 10, 51, 52, 64])
    def test_description_fits(self, tmp_path, length):
        data = headers(make_series(tmp_path, description="d" * length))
        assert data[0].SeriesDescription == f"{'d' * min(length, 51)} interpolated".strip()

    def test_times(self, tmp_path):
        first, *_ = headers(make_series(tmp_path, tags={"TimezoneOffsetFromUTC": "+1345"}))
        found = datetime.strptime(f"{first.ContentDate}{first.ContentTime}+1345", "%Y%m%d%H%M%S.%f%z")
        assert abs(found - datetime.now(timezone.utc)) < timedelta(minutes=1)
        assert first.StudyTime == "030405" and first.SeriesTime == first.ContentTime
        headers(make_series(tmp_path / "odd", tags={"TimezoneOffsetFromUTC": "odd"}))

    @pytest.mark.parametrize(
        ("character_set", "texts"),
        [
            ("ISO_IR 192", {"PatientName": "Wang^XiaoDong=王^小东", "StudyDescription": "Übung"}),
            (["ISO_IR 192", "GB18030", "GB18030", "ISO_IR 192"], {"StudyDescription": "小东"}),
        ],
    )
    def test_texts_of_other_scripts(self, tmp_path, character_set, texts):
        """Also where the texts are the same in all slices, only encoded otherwise."""
        data = headers(make_series(tmp_path, tags={"SpecificCharacterSet": character_set, **texts}))
        for keyword, text in texts.items():
            assert {str(item[keyword].value) for item in data} == {text}

    def test_contributing_equipment(self, tmp_path):
        tags = {"ContributingEquipmentSequence": (dataset(Manufacturer="Earlier"),)}
        first, second = headers(make_series(tmp_path, tags=tags))[3].ContributingEquipmentSequence
        assert first.Manufacturer == "Earlier" and second.ManufacturerModelName == "monai_sliceinterp"
        assert second.PurposeOfReferenceCodeSequence[0].CodeValue == "109102" and second.SoftwareVersions


class TestWhatIsKept:
    def test_same_in_all_slices(self, tmp_path):
        differing = {"AcquisitionTime": ["1", "2", "3", "4"], "XRayTubeCurrent": [100, 100, 100, 101]}
        tags = {"BodyPartExamined": "CHEST", "AcquisitionDate": "20200102", "ContrastBolusAgent": "a", **differing}
        files = make_series(tmp_path, tags=tags)
        retag(files[2], ContrastBolusAgent=None)
        for item in headers(files):
            assert item.BodyPartExamined == "CHEST" and item.AcquisitionDate == "20200102"
            assert not {"ContrastBolusAgent", *differing} & {e.keyword for e in item}

    def test_removed(self, tmp_path):
        inner = dataset(Manufacturer="x")
        inner.add_new(Tag(0x00110010), "LO", "PRIVATE")
        removed = {
            "LargestImagePixelValue": 5,
            "SmallestImagePixelValue": 1,
            "PixelPaddingValue": 3,
            "IconImageSequence": (dataset(Rows=1),),
            "ReferencedImageSequence": (dataset(ReferencedSOPInstanceUID="1.2"),),
            "RealWorldValueMappingSequence": (dataset(LUTLabel="x"),),
            "TemporalPositionIdentifier": 1,
            "ImagesInAcquisition": 4,
            "InstanceCreatorUID": "1.2.3",
            "DigitalSignaturesSequence": (dataset(MACIDNumber=1),),
        }
        tags = {"ContributingEquipmentSequence": (inner,), "LossyImageCompression": ["00", "00", "01", "00"], **removed}
        files = make_series(tmp_path, tags=tags)
        for path in files:
            data = pydicom.dcmread(path)
            data.add_new(Tag(0x00110010), "LO", "PRIVATE")
            data.add_new(Tag(0x00111001), "LO", "secret")
            data.add_new(Tag(0x60000010), "US", 5)
            data.save_as(path)
        for data in headers(files):
            assert not {element.keyword for element in data} & set(removed)
            groups = {element.tag.group for element in data.iterall()}
            assert all(group % 2 == 0 for group in groups) and max(groups - {0x7FE0}) < 0x6000
            content = Path(data.filename).read_bytes()
            assert b"secret" not in content and b"PRIVATE" not in content
            assert data.LossyImageCompression == "01"

    def test_may_hold(self):
        taken = ("PatientName", "StudyInstanceUID", "KVP", "EchoTime", "StudyDate", "SpecificCharacterSet")
        own = ("SeriesInstanceUID", "Rows", "WindowCenter", "PixelData", "SliceLocation", "SourceImageSequence")
        assert [name for name in (*taken, *own) if may_hold(Tag(name))] == list(taken)

    def test_window_and_thickness_of_the_nearest_slice(self, tmp_path):
        tags = {"WindowCenter": [10, 20, 30, 40], "WindowWidth": 400, "SliceThickness": ["5", "6", "7", "8"]}
        data = headers(make_series(tmp_path, tags=tags), factor=4)
        nearest = [0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3]
        assert [float(x.WindowCenter) for x in data] == [10.0 * (k + 1) for k in nearest]
        assert [float(x.SliceThickness) for x in data] == [5.0 + k for k in nearest]
        assert {float(x.WindowWidth) for x in data} == {400}

    @pytest.mark.parametrize(
        ("options", "expected"),
        [({}, 7.5), ({"thickness": 2.0}, 2.0), ({"axis": 0}, None)],  # across the source's slices nothing is known
    )
    def test_thickness(self, tmp_path, options, expected):
        data = headers(make_series(tmp_path, thickness=7.5), **options)
        assert {x.SliceThickness for x in data} == {expected}

    @pytest.mark.parametrize("multi_frame", [False, True])
    def test_odd_values_are_not_told(self, tmp_path, multi_frame):
        """Values against the standard are taken over; no warning shows a patient's data."""
        files = make_series(tmp_path, multi_frame=multi_frame)
        if multi_frame:
            source = pydicom.dcmread(files[0])
            with pydicom.config.disable_value_validation():
                anatomy = dataset(FrameLaterality="Miller99, the left side")  # too long, and not in capitals
                source.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]
                source.save_as(files[0])
        for path in files if not multi_frame else ():
            text = path.read_bytes().replace(b"19000101", b"Miller99").replace(b"ACC-001 ", b"ACC\\001 ")
            path.write_bytes(text.replace(b"IS\x02\x003 ", b"IS\x02\x00x "))
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            data = headers(files)
        assert not [w for w in shown if "Miller" in str(w.message) or PATIENT_ID in str(w.message)]
        assert b"Miller99" in Path(data[0].filename).read_bytes()


def sources(data, files):
    """Which of the files every slice is said to come from."""
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in files]
    return [[uids.index(ref.ReferencedSOPInstanceUID) for ref in item.SourceImageSequence] for item in data]


class TestOrigin:
    def test_observed_and_synthesized(self, series):
        data = headers(series, factor=4)
        assert sources(data, series) == [[k // 4] if k % 4 == 0 else [k // 4, k // 4 + 1] for k in range(13)]
        for k, found in enumerate(data):
            lower, part = divmod(k, 4)
            for ref in found.SourceImageSequence:
                assert ref.ReferencedSOPClassUID == STORAGE["CT"][0] and "ReferencedFrameNumber" not in ref
                assert ref.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
            assert list(found.ImageType) == ["DERIVED", "SECONDARY", "AXIAL", "SYNTHESIZED" if part else "OBSERVED"]
            assert found.ImageComments == ("synthesized slice" if part else "observed slice")
            place = f"computed at {part / 4:g} of the gap between instance {lower + 1} and instance {lower + 2}"
            place = place if part else f"copied from instance {lower + 1}"
            assert found.DerivationDescription == f"{MEASURED}; {found.ImageComments}, {place}"
            assert found.DerivationCodeSequence[0].CodeValue == "113085"

    @pytest.mark.parametrize("localizer", [False, True])
    def test_restored(self, tmp_path, localizer):
        """Where no slice is copied, those at the place of a source slice are synthesized; a localizer is no source."""
        files = make_series(tmp_path, localizer=localizer)
        data = headers(files, observed=[False] * 7)
        assert {found.ImageType[3] for found in data} == {"SYNTHESIZED"}
        assert data[2].DerivationDescription.endswith("computed at the place of instance 2")
        assert sources(data, files) == [[0], [0, 1], [1], [1, 2], [2], [2, 3], [3]]

    def test_against_the_normal(self, tmp_path):
        """Instances are numbered along the normal, whichever way the array runs."""
        affine = flipped(DIAGONAL, 2)
        files = make_series(tmp_path, affine)
        observed = [False, False, True, False, True, False, True]  # the array's first slice is the last instance
        image, data = written(files, affine, observed=observed)
        assert [x.InstanceNumber for x in data] == [1, 2, 3, 4, 5, 6, 7]
        assert (np.diff([float(x.SliceLocation) for x in data]) > 0).all()
        assert [x.ImageType[3] == "OBSERVED" for x in data] == observed[::-1]
        assert sources(data, files)[0] == [3]  # the array's last slice
        np.testing.assert_array_equal(data[0].pixel_array, image[0, :, :, -1].numpy().T)

    def test_uneven(self, tmp_path):
        """Neighbors and fractions come from the positions."""
        files = make_series(tmp_path, positions=[0, 2, 8, 12])
        data = headers(files, observed=[True, True, False, False, True, False, True])
        assert sources(data, files) == [[0], [1], [1, 2], [1, 2], [2], [2, 3], [3]]
        assert "at 0.3333 of the gap between instance 2 and instance 3" in data[2].DerivationDescription

    @pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
    def test_frames(self, tmp_path, order):
        files = make_series(tmp_path, multi_frame=True, frame_order=order)
        data, frames = headers(files), [order.index(k) + 1 for k in range(4)]
        for k, found in enumerate(data):
            expected = frames[k // 2 : k // 2 + 1 + k % 2]
            assert [ref.ReferencedFrameNumber for ref in found.SourceImageSequence] == expected
        assert {number for numbers in sources(data, files) for number in numbers} == {0}
        assert f"between frame {frames[0]} and frame {frames[1]}" in data[1].DerivationDescription
        assert f"copied from frame {frames[1]}" in data[2].DerivationDescription

    @pytest.mark.parametrize("multi_frame", [False, True])
    def test_other_axis(self, tmp_path, multi_frame):
        files = make_series(tmp_path, multi_frame=multi_frame)
        for found in headers(files, axis=1):
            assert len(found.SourceImageSequence) == len(files)
            assert not any("ReferencedFrameNumber" in ref for ref in found.SourceImageSequence)
            assert found.DerivationDescription.endswith("from the whole series")

    @pytest.mark.parametrize(("kinds", "expected"), [(("PHASE MAP",), "PHASE MAP"), ((), "OTHER")])
    def test_kind_of_mr_image(self, tmp_path, kinds, expected):
        files = make_series(tmp_path, modality="MR", tags={"ImageType": ("ORIGINAL", "PRIMARY", *kinds)})
        assert list(headers(files)[0].ImageType[2:]) == [expected, "OBSERVED"]


class TestErrors:
    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"files": []}, r"scan\.nii: is not DICOM; expected a DICOM input for output_format dicom"),
            ({"observed": [True]}, r"scan\.nii: expected 7 entries of observed, one a slice, got 1"),
            ({"channels": 2}, r"scan\.nii: has shape \(2, 9, 7, 7\); expected one 3D volume"),
            ({"value": float("nan")}, r"scan\.nii: there are NaN or infinite"),
            ({"shear": 0.8 / 3}, r"scan\.nii: rows and columns meet at 71\.57 degrees along axis 2; DICOM needs 90"),
        ],
    )
    def test_one_line(self, tmp_path, series, change, text):
        image, observed = interpolated(DIAGONAL, filename_or_obj="scan.nii")
        affine, values = image.affine.clone(), image.as_tensor().float().expand(change.get("channels", 1), -1, -1, -1)
        affine[0, 1] = change.get("shear", 0)
        values[0, 1, 2, 3] = change.get("value", 7)
        image = MetaTensor(values, affine=affine, meta=image.meta)
        options = {"observed": change.get("observed", observed), "derivation": "x"}
        with pytest.raises(ValueError, match=text) as error:
            write_dicom_series(image, change.get("files", series), tmp_path / "out", axis=2, **options)
        assert "\n" not in str(error.value)
        assert os.listdir(tmp_path) == ["scan"]

    def test_source_of_another_kind(self, series):
        for path in series:
            retag(path, SOPClassUID=PositronEmissionTomographyImageStorage)
        text = r"IM_\d+\.dcm: is Positron Emission .*; expected a CT or MR image"
        with pytest.raises(ValueError, match=text) as error:
            written(series)
        assert PATIENT_NAME not in str(error.value)

    def test_source_that_cannot_be_derived_from(self, series):
        """A header that is damaged after it was read; no file at all."""
        retag(series[1], PixelSpacing=None)
        with pytest.raises(ValueError) as error:
            written(series)
        place = "a slice without position, orientation or pixel spacing; expected the DICOM tags"
        assert str(error.value).startswith(f"{series[1]}: {place} (0020,0032), ")
        with pytest.raises(
            ValueError, match=r"^there is no source to derive from; expected at least one DICOM file\.$"
        ):
            SourceSeries.read([])

    def test_source_that_is_no_image(self, tmp_path):
        path = tmp_path / "scan" / "text.dcm"
        path.parent.mkdir()
        path.write_text("no DICOM at all")
        with pytest.raises(ValueError, match=r"text\.dcm: "):
            written([path])
        assert not (tmp_path / "out").exists()

    def test_mixed_planes(self, tmp_path, series):
        coronal = np.array([[0, 0, 4, 0], [0.8, 0, 0, 0], [0, 0.7, 0, 0], [0, 0, 0, 1.0]])
        with pytest.raises(ValueError, match=r"scan: .* expected one stack"):
            written(series + make_series(tmp_path, coronal, prefix="B"))


class TestFolder:
    @pytest.mark.parametrize("overwrite", [False, True])
    def test_failure_leaves_nothing(self, tmp_path, series, monkeypatch, overwrite):
        """An older series stays as it was."""
        out, save = tmp_path / "out", module._save

        def content():
            return {path.name: path.read_bytes() for path in out.iterdir()} if out.exists() else None

        def fail(data, kind, path):
            if data.InstanceNumber == 4:
                assert content() == before and sum(1 for _ in path.parent.iterdir()) == 3
                raise OSError("disk full")
            save(data, kind, path)

        if overwrite:
            written(series)
        before, names = content(), sorted(os.listdir(tmp_path))
        monkeypatch.setattr(module, "_save", fail)
        with pytest.raises(OSError, match="disk full"):
            written(series, overwrite=overwrite)
        assert content() == before and sorted(os.listdir(tmp_path)) == names

    def test_exists(self, tmp_path, series):
        first, out = headers(series, factor=4), tmp_path / "out"
        with pytest.raises(ValueError, match=r"out: exists already; expected a new folder, or overwrite=True"):
            written(series)
        assert len(os.listdir(out)) == 13
        second = headers(series, overwrite=True)
        assert sorted(os.listdir(out)) == [f"{k:04d}.dcm" for k in range(1, 8)]  # which tell no patient
        assert [Path(item.filename) for item in second] == sorted(out.iterdir())
        assert first[0].SeriesInstanceUID != second[0].SeriesInstanceUID
        assert sorted(os.listdir(tmp_path)) == ["out", "scan"]
        (tmp_path / "plain").mkdir()
        assert out.stat().st_mode == (tmp_path / "plain").stat().st_mode

    @pytest.mark.parametrize(
        ("count", "first", "last"), [(7, "0001", "0007"), (9999, "0001", "9999"), (10000, "00001", "10000")]
    )
    def test_names(self, count, first, last):
        assert module._file_name(1, count) == f"{first}.dcm" and module._file_name(count, count) == f"{last}.dcm"

    @pytest.mark.parametrize("name", ["out", "out/notes.txt"])
    def test_other_things_are_not_replaced(self, tmp_path, series, name):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
        with pytest.raises(ValueError, match="out: holds more than a DICOM series"):
            written(series, overwrite=True)
        assert (tmp_path / name).read_text() == "x"
