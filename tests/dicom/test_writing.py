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

from __future__ import annotations

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
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID, PositronEmissionTomographyImageStorage
from scipy.spatial.transform import Rotation

from monai_sliceinterp.dicom import read_dicom
from monai_sliceinterp.dicom import writing as module
from monai_sliceinterp.dicom.attributes import may_hold
from monai_sliceinterp.dicom.encoding import PixelEncoding, decimal_string
from monai_sliceinterp.dicom.planes import SlicePlanes
from monai_sliceinterp.dicom.writing import write_dicom_series
from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.transforms import save_nifti
from tests.dicom_series import PATIENT_ID, PATIENT_NAME, stack_affine, write_series

SHAPE = (9, 7, 4)
DIAGONAL = np.array([[0.7, 0, 0, -100], [0, 0.8, 0, -50], [0, 0, 4, 30], [0, 0, 0, 1.0]])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [10, -25, 30], degrees=True).as_matrix() @ np.diag([0.7, 0.8, 4])
OBLIQUE[:3, 3] = (-120.123456, 20, 300)
MEASURED = "slice interpolation by x"


def voxels(shape=SHAPE, dtype=np.int16, seed=0):
    return np.random.default_rng(seed).integers(-1000, 3000, shape).astype(dtype)


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


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path / "scan", voxels(), DIAGONAL)


def written(tmp_path, affine=DIAGONAL, files=None, axis=2, factor=2, array=None, name="out", **options):
    """Write a series derived from one that is made here, and read the headers."""
    files = write_series(tmp_path / "scan", voxels(), affine) if files is None else files
    image, observed = interpolated(affine, factor, axis, array)
    options = {"observed": observed, "derivation": MEASURED, **options}
    paths = write_dicom_series(image, files, tmp_path / name, axis=axis, **options)
    return image, paths, [pydicom.dcmread(path) for path in paths]


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
        image, _, _ = written(tmp_path, affine, axis=axis)
        save_nifti(image, tmp_path / "a.nii.gz")
        saved = nib.load(tmp_path / "a.nii.gz")
        for reader in READERS:
            assert_same_space(reader(tmp_path / "out"), (saved.get_fdata(), saved.affine))

    def test_readers_see_integers(self, tmp_path):
        written(tmp_path)
        assert by_simpleitk(tmp_path / "out")[0].dtype == np.int16

    @pytest.mark.parametrize("modality", ["CT", "MR"])
    def test_floating_point(self, tmp_path, modality):
        """All readers apply the slope and intercept, also of an MR image."""
        array = np.random.default_rng(0).normal(3e-4, 1e-4, (9, 7, 7)).astype(np.float32)
        array[0, 0, 0] = 0.01
        files = write_series(tmp_path / "scan", voxels(), DIAGONAL, modality=modality)
        written(tmp_path, files=files, array=array)
        step = (float(array.max()) - float(array.min())) / 65535
        for reader in READERS:
            found, _ = reader(tmp_path / "out")
            assert 0.3 * step < abs(found - array.astype(np.float64)).max() <= 0.501 * step

    def test_tilted(self, tmp_path):
        """Each slice is where the sheared affine puts it, the spacing is that of the planes."""
        affine = stack_affine(DIAGONAL, tilt=20)
        files = write_series(tmp_path / "scan", voxels(), DIAGONAL, tilt=20)
        image, _, data = written(tmp_path, affine, files=files)
        for k, item in enumerate(data):
            shift = np.tan(np.radians(20)) * 2 * k
            np.testing.assert_allclose(item.ImagePositionPatient, (100, 50 - shift, 30 + 2 * k), rtol=0, atol=1e-6)
            assert item.SpacingBetweenSlices == pytest.approx(2, abs=1e-6)
            assert item.SliceLocation == pytest.approx(30 + 2 * k, abs=1e-6)
        for reader in (by_pydicom, by_this_package):
            assert_same_space(reader(tmp_path / "out"), (image[0].numpy(), image.affine.numpy()))

    @pytest.mark.parametrize(
        ("count", "first", "last"), [(7, "0001", "0007"), (9999, "0001", "9999"), (10000, "00001", "10000")]
    )
    def test_names(self, count, first, last):
        assert module._file_name(1, count) == f"{first}.dcm" and module._file_name(count, count) == f"{last}.dcm"


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

    def test_ascending(self):
        for axis in range(3):
            for flips in ((), (0,), (1,), (2,), (0, 2)):
                planes = SlicePlanes.create(flipped(OBLIQUE, *flips), axis, 4)
                assert (np.diff(planes.positions @ planes.normal) > 0).all()

    @pytest.mark.parametrize(("degrees", "good"), [(0.004, True), (0.01, False), (5, False)])
    def test_perpendicular(self, degrees, good):
        affine = np.eye(4)
        affine[0, 1] = np.tan(np.radians(degrees))
        if good:
            SlicePlanes.create(affine, 2, 2)
        else:
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

    @pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
    def test_types(self, dtype):
        array = np.array([[[0, 1, 100]]], dtype=dtype)
        assert PixelEncoding.create(array).encode(array).tolist() == [[[0, 1, 100]]]

    @pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e6, 1e30])
    @pytest.mark.parametrize("offset", [0.0, -3.0, 1000.0])
    def test_error(self, scale, offset):
        array = (np.random.default_rng(0).uniform(0, 1, (3, 20, 20)) + offset) * scale
        encoding = PixelEncoding.create(array)
        pixels = encoding.encode(array)
        assert pixels.min() == 0 and pixels.max() == 65535
        step = (array.max() - array.min()) / 65535
        assert abs(pixels * encoding.slope + encoding.intercept - array).max() <= 0.501 * step

    def test_never_wraps_around(self):
        """The ends may not fit where the decimal strings have too few digits."""
        for shift in (0.0, 5e-6):
            array = (1e9 + shift + np.array([1.23e-5, 4.23e-5])).reshape(1, 1, 2)
            low, high = PixelEncoding.create(array).encode(array).ravel().tolist()
            assert low < 10000 and high > 55000

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, bad):
        array = np.zeros((3, 2, 2))
        array[1, 0, 1] = bad
        with pytest.raises(ValueError, match="NaN or infinite"):
            PixelEncoding.create(array)

    def test_decimal_string(self):
        for value in (1 / 3, -1 / 3, 1e-9 / 7, -123.45678901234567, 1e30 / 3, 2):
            assert len(decimal_string(value)) <= 16 and float(decimal_string(value)) == pytest.approx(value, rel=1e-9)


REQUIRED = {
    "CT": {
        *("ImageType", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit"),
        *("RescaleIntercept", "RescaleSlope", "RescaleType"),
    },
    "MR": {
        *("ImageType", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit"),
        *("ScanningSequence", "SequenceVariant"),
    },
}
FOR_BOTH = {
    *("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", "Modality", "FrameOfReferenceUID"),
    *("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "Rows", "Columns", "PixelRepresentation"),
    *("PixelData", "SliceThickness", "KVP"),
}
MAY_BE_EMPTY = {
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("ReferringPhysicianName", "AccessionNumber", "SeriesNumber", "PatientPosition", "PositionReferenceIndicator"),
    *("Manufacturer", "InstanceNumber", "AcquisitionNumber"),
}
EMPTY_IN = {"CT": {"KVP"}, "MR": {"ScanOptions", "MRAcquisitionType", "EchoTime", "RepetitionTime", "EchoTrainLength"}}
STORAGE = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}


class TestHeader:
    @pytest.mark.parametrize("multi_frame", [False, True])
    @pytest.mark.parametrize("modality", ["CT", "MR"])
    def test_whole_image(self, tmp_path, modality, multi_frame):
        tags = {"PatientComments": "kept", "ProtocolName": "protocol"}
        files = write_series(
            tmp_path / "scan", voxels(), DIAGONAL, modality=modality, multi_frame=multi_frame, tags=tags
        )
        source = pydicom.dcmread(files[0])
        _, _, data = written(tmp_path, files=files)
        assert len(data) == 7
        for item in data:
            for keyword in (REQUIRED[modality] | FOR_BOTH) - {"KVP"}:
                assert item.get(keyword) not in (None, ""), keyword
            for keyword in MAY_BE_EMPTY | EMPTY_IN[modality]:
                assert keyword in item, keyword
            assert item.SOPClassUID == item.file_meta.MediaStorageSOPClassUID == STORAGE[modality]
            assert item.file_meta.MediaStorageSOPInstanceUID == item.SOPInstanceUID
            assert item.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
            assert item.Modality == modality
            for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate", *tags):
                assert item[keyword].value == source[keyword].value
            assert (item.Rows, item.Columns) == (7, 9)
            assert [float(x) for x in item.PixelSpacing] == [0.8, 0.7]
            assert item.SpacingBetweenSlices == 2 and item.SliceThickness == 4
            assert (item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation) == (16, 16, 15, 1)
            assert item.PixelData is not None and len(item.PixelData) == 126
            assert "NumberOfFrames" not in item and "PerFrameFunctionalGroupsSequence" not in item
            assert item.SeriesNumber == 1003 and item.SeriesDescription == "phantom interpolated"
        assert [item.InstanceNumber for item in data] == list(range(1, 8))
        if modality == "CT":
            assert data[0].KVP == 120 and data[0].RescaleType == "HU"
        else:
            assert data[0].EchoTime == 80 and data[0].ScanningSequence == "SE" and "RescaleSlope" not in data[0]

    def test_uids(self, tmp_path, series):
        _, _, data = written(tmp_path, files=series)
        source = [pydicom.dcmread(path) for path in series]
        instances = [item.SOPInstanceUID for item in data]
        assert len({*instances, *(item.SOPInstanceUID for item in source)}) == 7 + 4
        assert len({item.SeriesInstanceUID for item in data}) == 1
        assert data[0].SeriesInstanceUID != source[0].SeriesInstanceUID
        for uid in (*instances, data[0].SeriesInstanceUID):
            assert UID(uid).is_valid
        _, _, again = written(tmp_path, files=series, name="again")
        assert again[0].SeriesInstanceUID != data[0].SeriesInstanceUID

    def test_source_lacks_what_is_required(self, tmp_path):
        tags = dict.fromkeys(("PatientBirthDate", "FrameOfReferenceUID", "ScanningSequence", "SequenceVariant"))
        tags |= {"EchoTime": None, "SeriesNumber": None, "SeriesDescription": None, "PatientPosition": None}
        files = write_series(tmp_path / "scan", voxels(), DIAGONAL, modality="MR", tags=tags)
        _, _, data = written(tmp_path, files=files)
        assert len({item.FrameOfReferenceUID for item in data}) == 1 and UID(data[0].FrameOfReferenceUID).is_valid
        assert (data[0].ScanningSequence, data[0].SequenceVariant) == ("RM", "NONE")
        assert data[0].EchoTime is None and data[0].PatientBirthDate == "" and data[0].SeriesNumber == 1000
        assert data[0].PatientPosition == ""
        assert data[0].SeriesDescription == "interpolated"

    def test_enhanced_mr(self, tmp_path):
        files = write_series(tmp_path / "scan", voxels(), DIAGONAL, modality="MR", multi_frame=True)
        (path,) = files
        source = pydicom.dcmread(path)
        for name in ("EchoTime", "RepetitionTime", "EchoTrainLength", "ScanningSequence", "SequenceVariant"):
            delattr(source, name)
        source.EchoPulseSequence = "BOTH"
        shared, frames = source.SharedFunctionalGroupsSequence[0], source.PerFrameFunctionalGroupsSequence
        shared.MRTimingAndRelatedParametersSequence = [item(RepetitionTime=2500, FlipAngle=12, EchoTrainLength=7)]
        for k, frame in enumerate(frames):
            frame.MREchoSequence = [item(EffectiveEchoTime=30)]
            frame.FrameVOILUTSequence = [item(WindowCenter=10 * k, WindowWidth=100)]
        source.save_as(path)
        _, _, data = written(tmp_path, files=files)
        first = data[0]
        assert (first.EchoTime, first.RepetitionTime, first.FlipAngle, first.EchoTrainLength) == (30, 2500, 12, 7)
        assert list(first.ScanningSequence) == ["SE", "GR"]
        assert [float(x.WindowCenter) for x in data] == [0, 10, 10, 20, 20, 30, 30]

    @pytest.mark.parametrize("length", [0, 10, 51, 52, 64])
    def test_description_fits(self, tmp_path, length):
        files = write_series(tmp_path / "scan", voxels(), DIAGONAL, description="d" * length)
        _, _, data = written(tmp_path, files=files)
        assert data[0].SeriesDescription == f"{'d' * min(length, 51)} interpolated".strip()

    def test_times(self, tmp_path):
        files = write_series(tmp_path / "scan", voxels(), DIAGONAL, tags={"TimezoneOffsetFromUTC": "+1345"})
        _, _, data = written(tmp_path, files=files)
        found = datetime.strptime(f"{data[0].ContentDate}{data[0].ContentTime}+1345", "%Y%m%d%H%M%S.%f%z")
        assert abs(found - datetime.now(timezone.utc)) < timedelta(minutes=1)
        assert data[0].StudyTime == "030405" and data[0].SeriesTime == data[0].ContentTime
        files = write_series(tmp_path / "odd", voxels(), DIAGONAL, tags={"TimezoneOffsetFromUTC": "odd"})
        written(tmp_path, files=files, name="odd_out")

    def test_texts_of_other_scripts(self, tmp_path):
        tags = {
            "SpecificCharacterSet": "ISO_IR 192",
            "PatientName": "Wang^XiaoDong=王^小东",
            "StudyDescription": "Übung",
        }
        files = write_series(tmp_path / "scan", voxels(), DIAGONAL, tags=tags)
        _, _, data = written(tmp_path, files=files)
        assert str(data[0].PatientName) == tags["PatientName"] and data[0].StudyDescription == "Übung"

    def test_character_set_that_differs(self, tmp_path):
        """The texts are the same in all slices, only encoded otherwise."""
        tags = {"SpecificCharacterSet": ["ISO_IR 192", "GB18030", "GB18030", "ISO_IR 192"], "StudyDescription": "小东"}
        files = write_series(tmp_path / "scan", voxels(), DIAGONAL, tags=tags)
        _, _, data = written(tmp_path, files=files)
        assert {found.StudyDescription for found in data} == {"小东"}

    def test_contributing_equipment(self, tmp_path):
        before = item(Manufacturer="Earlier")
        files = write_series(tmp_path / "scan", voxels(), DIAGONAL, tags={"ContributingEquipmentSequence": (before,)})
        _, _, data = written(tmp_path, files=files)
        first, second = data[3].ContributingEquipmentSequence
        assert first.Manufacturer == "Earlier" and second.ManufacturerModelName == "monai_sliceinterp"
        assert second.PurposeOfReferenceCodeSequence[0].CodeValue == "109102" and second.SoftwareVersions


def item(**tags):
    data = Dataset()
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    return data


class TestWhatIsKept:
    def test_same_in_all_slices(self, tmp_path):
        tags = {
            "AcquisitionTime": ["1", "2", "3", "4"],
            "XRayTubeCurrent": [100, 100, 100, 101],
            "ContrastBolusAgent": "a",
            "BodyPartExamined": "CHEST",
            "AcquisitionDate": "20200102",
        }
        files = write_series(tmp_path / "scan", voxels(), DIAGONAL, tags=tags)
        lacking = pydicom.dcmread(files[2])
        del lacking.ContrastBolusAgent
        lacking.save_as(files[2])
        _, _, data = written(tmp_path, files=files)
        for found in data:
            assert found.BodyPartExamined == "CHEST" and found.AcquisitionDate == "20200102"
            assert not {"AcquisitionTime", "XRayTubeCurrent", "ContrastBolusAgent"} & {e.keyword for e in found}

    def test_removed(self, tmp_path):
        inner = item(Manufacturer="x")
        inner.add_new(Tag(0x00110010), "LO", "PRIVATE")
        tags = {
            "LargestImagePixelValue": 5,
            "SmallestImagePixelValue": 1,
            "PixelPaddingValue": 3,
            "IconImageSequence": (item(Rows=1),),
            "ReferencedImageSequence": (item(ReferencedSOPInstanceUID="1.2"),),
            "RealWorldValueMappingSequence": (item(LUTLabel="x"),),
            "TemporalPositionIdentifier": 1,
            "ImagesInAcquisition": 4,
            "InstanceCreatorUID": "1.2.3",
            "DigitalSignaturesSequence": (item(MACIDNumber=1),),
            "ContributingEquipmentSequence": (inner,),
            "LossyImageCompression": ["00", "00", "01", "00"],
        }
        files = write_series(tmp_path / "scan", voxels(), DIAGONAL, tags=tags)
        for path in files:
            data = pydicom.dcmread(path)
            data.add_new(Tag(0x00110010), "LO", "PRIVATE")
            data.add_new(Tag(0x00111001), "LO", "secret")
            data.add_new(Tag(0x60000010), "US", 5)
            data.save_as(path)
        _, paths, found = written(tmp_path, files=files)
        for data, path in zip(found, paths, strict=True):
            kept = {element.keyword for element in data}
            assert not kept & (set(tags) - {"ContributingEquipmentSequence", "LossyImageCompression"})
            assert not any(
                element.tag.is_private or element.tag.group >= 0x6000
                for element in data.iterall()
                if element.tag.group != 0x7FE0
            )
            assert b"secret" not in path.read_bytes() and b"PRIVATE" not in path.read_bytes()
            assert data.LossyImageCompression == "01"

    def test_may_hold(self):
        for keyword in ("PatientName", "StudyInstanceUID", "KVP", "EchoTime", "StudyDate", "SpecificCharacterSet"):
            assert may_hold(Tag(keyword)), keyword
        for keyword in (
            "SeriesInstanceUID",
            "Rows",
            "WindowCenter",
            "PixelData",
            "SliceLocation",
            "SourceImageSequence",
        ):
            assert not may_hold(Tag(keyword)), keyword

    def test_window_and_thickness_of_the_nearest_slice(self, tmp_path):
        tags = {"WindowCenter": [10, 20, 30, 40], "WindowWidth": 400, "SliceThickness": ["5", "6", "7", "8"]}
        files = write_series(tmp_path / "scan", voxels(), DIAGONAL, tags=tags)
        _, _, data = written(tmp_path, files=files, factor=4)
        nearest = [0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3]
        assert [float(x.WindowCenter) for x in data] == [10.0 * (k + 1) for k in nearest]
        assert [float(x.SliceThickness) for x in data] == [5.0 + k for k in nearest]
        assert {float(x.WindowWidth) for x in data} == {400}

    def test_thickness(self, tmp_path):
        files = write_series(tmp_path / "scan", voxels(), DIAGONAL, thickness=7.5)
        assert {float(x.SliceThickness) for x in written(tmp_path, files=files)[2]} == {7.5}
        given = written(tmp_path, files=files, thickness=2.0, name="thin")[2]
        assert {float(x.SliceThickness) for x in given} == {2.0}
        other = written(tmp_path, files=files, axis=0, name="other")[2]
        assert {x.SliceThickness for x in other} == {None}  # across the source's slices nothing is known

    def test_odd_values_are_not_told(self, tmp_path):
        """Values against the standard are taken over; no warning shows a patient's data."""
        files = write_series(tmp_path / "scan", voxels(), DIAGONAL)
        for path in files:
            text = path.read_bytes().replace(b"19000101", b"Miller99").replace(b"ACC-001 ", b"ACC\\001 ")
            path.write_bytes(text.replace(b"IS\x02\x003 ", b"IS\x02\x00x "))
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            _, paths, _ = written(tmp_path, files=files)
        assert not [w for w in shown if "Miller" in str(w.message) or PATIENT_ID in str(w.message)]
        assert b"Miller99" in paths[0].read_bytes()

    def test_odd_values_of_frames_are_not_told(self, tmp_path):
        (path,) = write_series(tmp_path / "scan", voxels(), DIAGONAL, multi_frame=True)
        source = pydicom.dcmread(path)
        with pydicom.config.disable_value_validation():
            anatomy = item(FrameLaterality="Miller, the left side")  # too long, and not in capitals
            source.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]
            source.save_as(path)
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            _, paths, _ = written(tmp_path, files=[path])
        assert not [w for w in shown if "Miller" in str(w.message)]
        assert b"Miller" in paths[0].read_bytes()


class TestOrigin:
    def test_observed_and_synthesized(self, tmp_path, series):
        _, _, data = written(tmp_path, files=series, factor=4)
        uids = [pydicom.dcmread(path).SOPInstanceUID for path in series]
        for k, found in enumerate(data):
            lower, part = divmod(k, 4)
            expected = [uids[lower]] if part == 0 else uids[lower : lower + 2]
            assert [ref.ReferencedSOPInstanceUID for ref in found.SourceImageSequence] == expected
            assert {ref.ReferencedSOPClassUID for ref in found.SourceImageSequence} == {STORAGE["CT"]}
            for ref in found.SourceImageSequence:
                assert ref.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
                assert "ReferencedFrameNumber" not in ref
            assert list(found.ImageType) == ["DERIVED", "SECONDARY", "AXIAL", "SYNTHESIZED" if part else "OBSERVED"]
            assert found.ImageComments == ("synthesized slice" if part else "observed slice")
            place = f"computed at {part / 4:g} of the gap between instance {lower + 1} and instance {lower + 2}"
            place = place if part else f"copied from instance {lower + 1}"
            assert found.DerivationDescription == f"{MEASURED}; {found.ImageComments}, {place}"
            assert found.DerivationCodeSequence[0].CodeValue == "113085"

    def test_restored(self, tmp_path, series):
        """Where no slice is copied, those at the place of a source slice are synthesized, too."""
        _, _, data = written(tmp_path, files=series, observed=[False] * 7)
        assert {found.ImageType[3] for found in data} == {"SYNTHESIZED"}
        assert data[2].DerivationDescription.endswith("computed at the place of instance 2")
        assert [len(found.SourceImageSequence) for found in data] == [1, 2, 1, 2, 1, 2, 1]

    def test_against_the_normal(self, tmp_path):
        """Instances are numbered along the normal, whichever way the array runs."""
        affine = flipped(DIAGONAL, 2)
        files = write_series(tmp_path / "scan", voxels(), affine)
        image, observed = interpolated(affine)
        observed[0] = False  # the array's first slice is the last instance
        paths = write_dicom_series(image, files, tmp_path / "out", axis=2, observed=observed, derivation="x")
        data = [pydicom.dcmread(path) for path in paths]
        assert [x.InstanceNumber for x in data] == [1, 2, 3, 4, 5, 6, 7]
        assert (np.diff([float(x.SliceLocation) for x in data]) > 0).all()
        assert [x.ImageType[3] == "OBSERVED" for x in data] == [True, False, True, False, True, False, False]
        source = pydicom.dcmread(files[3])  # the array's last slice
        assert data[0].SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
        np.testing.assert_array_equal(data[0].pixel_array, image[0, :, :, -1].numpy().T)

    def test_uneven(self, tmp_path):
        """Neighbors and fractions come from the positions."""
        files = write_series(tmp_path / "scan", voxels(), DIAGONAL, positions=[0, 2, 8, 12])
        _, _, data = written(tmp_path, files=files, observed=[True, True, False, False, True, False, True])
        uids = [pydicom.dcmread(path).SOPInstanceUID for path in files]
        found = [[uids.index(ref.ReferencedSOPInstanceUID) for ref in x.SourceImageSequence] for x in data]
        assert found == [[0], [1], [1, 2], [1, 2], [2], [2, 3], [3]]
        assert "at 0.3333 of the gap between instance 2 and instance 3" in data[2].DerivationDescription

    @pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
    def test_frames(self, tmp_path, order):
        files = write_series(tmp_path / "scan", voxels(), DIAGONAL, multi_frame=True, frame_order=order)
        _, _, data = written(tmp_path, files=files)
        frames = [order.index(k) + 1 for k in range(4)]
        for k, found in enumerate(data):
            expected = frames[k // 2 : k // 2 + 1 + k % 2]
            assert [ref.ReferencedFrameNumber for ref in found.SourceImageSequence] == expected
        uid = pydicom.dcmread(files[0]).SOPInstanceUID
        assert {ref.ReferencedSOPInstanceUID for x in data for ref in x.SourceImageSequence} == {uid}
        assert f"between frame {frames[0]} and frame {frames[1]}" in data[1].DerivationDescription
        assert f"copied from frame {frames[1]}" in data[2].DerivationDescription

    @pytest.mark.parametrize("multi_frame", [False, True])
    def test_other_axis(self, tmp_path, multi_frame):
        files = write_series(tmp_path / "scan", voxels(), DIAGONAL, multi_frame=multi_frame)
        _, _, data = written(tmp_path, files=files, axis=1)
        for found in data:
            assert len(found.SourceImageSequence) == len(files)
            assert not any("ReferencedFrameNumber" in ref for ref in found.SourceImageSequence)
            assert found.DerivationDescription.endswith("from the whole series")

    def test_localizer_is_no_source(self, tmp_path):
        files = write_series(tmp_path / "scan", voxels(), DIAGONAL, localizer=True)
        _, _, data = written(tmp_path, files=files)
        localizer = pydicom.dcmread(files[-1]).SOPInstanceUID
        assert [len(found.SourceImageSequence) for found in data] == [1, 2, 1, 2, 1, 2, 1]
        assert localizer not in {ref.ReferencedSOPInstanceUID for x in data for ref in x.SourceImageSequence}

    def test_kind_of_mr_image(self, tmp_path):
        files = write_series(
            tmp_path / "scan",
            voxels(),
            DIAGONAL,
            modality="MR",
            tags={"ImageType": ("ORIGINAL", "PRIMARY", "PHASE MAP")},
        )
        assert list(written(tmp_path, files=files)[2][0].ImageType[2:]) == ["PHASE MAP", "OBSERVED"]
        files = write_series(
            tmp_path / "short", voxels(), DIAGONAL, modality="MR", tags={"ImageType": ("ORIGINAL", "PRIMARY")}
        )
        assert written(tmp_path, files=files, name="o2")[2][0].ImageType[2] == "OTHER"


class TestErrors:
    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"files": []}, r"scan\.nii: is not DICOM; expected a DICOM input for output_format dicom"),
            ({"observed": [True]}, r"scan\.nii: expected 7 entries of observed, one a slice, got 1"),
            ({"channels": 2}, r"scan\.nii: has shape \(2, 9, 7, 7\); expected one 3D volume"),
            ({"nan": True}, r"scan\.nii: there are NaN or infinite"),
            ({"shear": True}, r"scan\.nii: rows and columns meet at 71\.57 degrees along axis 2; DICOM needs 90"),
        ],
    )
    def test_one_line(self, tmp_path, series, change, text):
        image, observed = interpolated(DIAGONAL, filename_or_obj="scan.nii")
        if "channels" in change:
            image = MetaTensor(image.expand(2, -1, -1, -1), affine=image.affine, meta=image.meta)
        if "nan" in change:
            image = image.to(torch.float32)
            image[0, 1, 2, 3] = float("nan")
        if "shear" in change:
            affine = image.affine.clone()
            affine[0, 1] = 0.8 / 3
            image.affine = affine
        files, observed = change.get("files", series), change.get("observed", observed)
        with pytest.raises(ValueError, match=text) as error:
            write_dicom_series(image, files, tmp_path / "out", axis=2, observed=observed, derivation="x")
        assert "\n" not in str(error.value)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["scan"]

    def test_source_of_another_kind(self, tmp_path, series):
        for path in series:
            data = pydicom.dcmread(path)
            data.SOPClassUID = PositronEmissionTomographyImageStorage
            data.save_as(path)
        with pytest.raises(
            ValueError, match=r"IM_\d+\.dcm: is Positron Emission .*; expected a CT or MR image"
        ) as error:
            written(tmp_path, files=series)
        assert PATIENT_NAME not in str(error.value)

    def test_source_that_is_no_image(self, tmp_path):
        (tmp_path / "text.dcm").write_text("no DICOM at all")
        with pytest.raises(ValueError, match=r"text\.dcm: "):
            written(tmp_path, files=[tmp_path / "text.dcm"])
        assert not (tmp_path / "out").exists()

    def test_mixed_planes(self, tmp_path):
        files = write_series(tmp_path / "scan", voxels(), DIAGONAL)
        coronal = np.array([[0, 0, 4, 0], [0.8, 0, 0, 0], [0, 0.7, 0, 0], [0, 0, 0, 1.0]])
        files += write_series(tmp_path / "scan", voxels(), coronal, prefix="B")
        with pytest.raises(ValueError, match=r"scan: .* expected one stack"):
            written(tmp_path, files=files)


class TestFolder:
    def test_failure_leaves_nothing(self, tmp_path, series, monkeypatch):
        save = module._save

        def fail(data, kind, path):
            if data.InstanceNumber == 4:
                assert not (tmp_path / "out").exists()
                assert sum(1 for _ in path.parent.iterdir()) == 3
                raise OSError("disk full")
            save(data, kind, path)

        monkeypatch.setattr(module, "_save", fail)
        with pytest.raises(OSError, match="disk full"):
            written(tmp_path, files=series)
        assert [path.name for path in tmp_path.iterdir()] == ["scan"]

    def test_failure_leaves_the_older_series(self, tmp_path, series, monkeypatch):
        written(tmp_path, files=series)
        before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        monkeypatch.setattr(module, "_save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            written(tmp_path, files=series, overwrite=True)
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before

    def test_exists(self, tmp_path, series):
        _, _, first = written(tmp_path, files=series, factor=4)
        with pytest.raises(ValueError, match=r"out: exists already; expected a new folder, or overwrite=True"):
            written(tmp_path, files=series)
        assert len(list((tmp_path / "out").iterdir())) == 13
        _, _, second = written(tmp_path, files=series, overwrite=True)
        assert len(list((tmp_path / "out").iterdir())) == 7
        assert first[0].SeriesInstanceUID != second[0].SeriesInstanceUID
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "scan"]

    @pytest.mark.parametrize("kind", ["file", "folder"])
    def test_other_things_are_not_replaced(self, tmp_path, series, kind):
        out = tmp_path / "out"
        if kind == "file":
            out.write_text("x")
        else:
            out.mkdir()
            (out / "notes.txt").write_text("x")
        with pytest.raises(ValueError, match="out: holds more than a DICOM series"):
            written(tmp_path, files=series, overwrite=True)
        assert out.exists()

    def test_permissions(self, tmp_path, series):
        written(tmp_path, files=series)
        (tmp_path / "plain").mkdir()
        assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode

    def test_names_tell_no_patient(self, tmp_path, series):
        _, paths, _ = written(tmp_path, files=series)
        assert [path.name for path in paths] == [f"{k:04d}.dcm" for k in range(1, 8)]
        assert all(path == Path(tmp_path / "out" / path.name) for path in paths)
