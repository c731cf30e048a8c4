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

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from scipy.spatial.transform import Rotation

from monai_sliceinterp.dicom import read_dicom
from tests.dicom_series import PATIENT_ID, stack_affine, write_series

SHAPE = (6, 7, 5)
ARRAY = np.random.default_rng(0).integers(-1024, 3000, SHAPE)
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [10, -25, 40], degrees=True).as_matrix() @ np.diag([0.7, 0.9, 4.0])
OBLIQUE[:3, 3] = (-100, 20, 300)
AXIAL = np.diag([-0.7, -0.9, 4.0, 1.0])


def read(path, warning=None):
    """Read, and expect the one warning, or none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        voxels, meta = read_dicom(path)
    assert [str(w.message) for w in caught] == ([] if warning is None else [f"{path}: {warning}"])
    return voxels, meta


def check_error(path, *named):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=r"\.$") as caught:
            read_dicom(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    for text in named:
        assert text in message, message
    for secret in ("Phantom", PATIENT_ID, "19000101", "ACC-001", "Referrer"):
        assert secret not in message
    return message


def retag(path, **tags):
    data = pydicom.dcmread(path)
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    data.save_as(path)


class TestRegular:
    @pytest.mark.parametrize("modality", ["CT", "MR"])
    @pytest.mark.parametrize("affine", [OBLIQUE, AXIAL], ids=["oblique", "axial"])
    def test_as_simpleitk_reads_it(self, tmp_path, modality, affine):
        paths = write_series(tmp_path, ARRAY, affine, modality=modality, thickness=6.0)
        voxels, meta = read(tmp_path)
        np.testing.assert_array_equal(voxels, ARRAY)
        np.testing.assert_allclose(meta["affine"], affine, rtol=0, atol=1e-9)
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
        image = sitk.ReadImage(names)
        np.testing.assert_array_equal(voxels, sitk.GetArrayFromImage(image).T)
        for index in [(0, 0, 0), (5, 6, 4), (2, 3, 1)]:
            place = np.array(image.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
            np.testing.assert_allclose((meta["affine"] @ [*index, 1])[:3], place, rtol=0, atol=1e-4)
        assert meta["dicom_files"] == list(names) == [str(path) for path in paths]
        assert meta["dicom_files"] != sorted(meta["dicom_files"])  # neither name nor instance number gives the order
        assert meta["SliceThickness"] == 6.0 and "slice_positions" not in meta

    def test_slices_against_the_normal(self, tmp_path):
        """Slices are put along the normal, so a left-handed array comes back flipped, each slice in its place."""
        affine = OBLIQUE @ np.diag([1, 1, -1, 1])
        paths = write_series(tmp_path, ARRAY, affine)
        voxels, meta = read(tmp_path)
        np.testing.assert_array_equal(voxels, ARRAY[..., ::-1])
        np.testing.assert_allclose(meta["affine"] @ [1, 2, 0, 1], affine @ [1, 2, 4, 1], atol=1e-9)
        np.testing.assert_allclose(meta["affine"] @ [1, 2, 4, 1], affine @ [1, 2, 0, 1], atol=1e-9)
        assert meta["dicom_files"] == [str(path) for path in reversed(paths)]

    def test_two_slices(self, tmp_path):
        write_series(tmp_path, ARRAY[..., :2], OBLIQUE)
        voxels, meta = read(tmp_path)
        np.testing.assert_array_equal(voxels, ARRAY[..., :2])
        np.testing.assert_allclose(meta["affine"], OBLIQUE, atol=1e-9)

    def test_nothing_of_the_patient(self, tmp_path):
        write_series(tmp_path / "s", ARRAY, OBLIQUE)
        text = str(read(tmp_path / "s")[1])
        assert not any(secret in text for secret in ("Phantom", PATIENT_ID, "19000101", "ACC-001", "Referrer"))

    def test_thickness_that_differs(self, tmp_path):
        write_series(tmp_path, ARRAY, OBLIQUE, tags={"SliceThickness": [4, 4, 4, 6, 6]})
        assert "SliceThickness" not in read(tmp_path)[1]

    def test_tilted_gantry(self, tmp_path):
        write_series(tmp_path, ARRAY, OBLIQUE, tilt=-17)
        voxels, meta = read(tmp_path)
        np.testing.assert_array_equal(voxels, ARRAY)
        np.testing.assert_allclose(meta["affine"], stack_affine(OBLIQUE, tilt=-17), rtol=0, atol=1e-9)


class TestUneven:
    @pytest.mark.parametrize("tilt", [0, 17])
    @pytest.mark.parametrize(("drop", "gap"), [([1], 8), ([8], 8), ([1, 2], 12), ([2, 6], 8)])
    def test_missing_slices(self, tmp_path, drop, gap, tilt):
        array = np.concatenate([ARRAY, ARRAY[..., ::-1] + 1], axis=2)
        kept = [k for k in range(10) if k not in drop]
        write_series(tmp_path, array, OBLIQUE, drop=drop, tilt=tilt)
        warning = f"the slices are 4 to {gap} mm apart; each is taken at its own position."
        voxels, meta = read(tmp_path, warning)
        np.testing.assert_array_equal(voxels, array[..., kept])
        np.testing.assert_allclose(meta["affine"], stack_affine(OBLIQUE, tilt=tilt), rtol=0, atol=1e-9)
        assert meta["slice_positions"] == tuple(map(float, kept)) and meta["slice_positions_axis"] == 2

    @pytest.mark.parametrize("tilt", [0, 17])
    def test_uneven_gaps(self, tmp_path, tilt):
        """The step is the median gap, and every slice lies where its file says."""
        distances = np.array([0.0, 3.0, 4.0, 5.5, 9.0])
        paths = write_series(tmp_path, ARRAY, OBLIQUE, positions=distances, tilt=tilt)
        voxels, meta = read(tmp_path, "the slices are 1 to 3.5 mm apart; each is taken at its own position.")
        np.testing.assert_array_equal(voxels, ARRAY)
        assert meta["slice_positions"] == pytest.approx(distances / 2.25, abs=1e-8)  # gaps 3, 1, 1.5, 3.5
        assert meta["slice_positions"][0] == 0.0
        np.testing.assert_allclose(meta["affine"], stack_affine(OBLIQUE, 2.25, tilt), rtol=0, atol=1e-9)
        for path, position in zip(paths, meta["slice_positions"], strict=True):
            place = np.array(pydicom.dcmread(path).ImagePositionPatient, float) * (-1, -1, 1)
            np.testing.assert_allclose((meta["affine"] @ [0, 0, position, 1])[:3], place, rtol=0, atol=1e-6)

    @pytest.mark.parametrize(("spacing", "drop"), [(0.625, []), (0.625, [3]), (1.25, [1, 2]), (3.3, [])])
    def test_positions_rounded_to_a_tenth(self, tmp_path, spacing, drop):
        """Rounding is no unevenness: 0.6 and 0.7 mm are an even 0.625 mm, with or without a missing slice."""
        distances = np.round(spacing * np.arange(9), 1)
        assert len(set(np.diff(distances).round(3))) > 1 or spacing == 3.3
        array = np.concatenate([ARRAY, ARRAY[..., :4] + 1], axis=2)
        kept = [k for k in range(9) if k not in drop]
        write_series(tmp_path, array, AXIAL, positions=distances, drop=drop)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            meta = read_dicom(tmp_path)[1]
        assert meta["affine"][2, 2] == pytest.approx(distances[-1] / 8)
        assert meta.get("slice_positions") == (tuple(map(float, kept)) if drop else None)

    @pytest.mark.parametrize(("moved", "is_even"), [(0.09, True), (0.12, False)])
    def test_limit(self, tmp_path, moved, is_even):
        write_series(tmp_path, ARRAY, AXIAL, positions=[0, 4, 8 + moved, 12, 16])
        text = f"the slices are {4 - moved:g} to {4 + moved:g} mm apart; each is taken at its own position."
        meta = read(tmp_path, None if is_even else text)[1]
        assert ("slice_positions" in meta) is not is_even

    @pytest.mark.parametrize(("moved", "is_even"), [(0.015, True), (0.03, False)])
    def test_limit_of_thin_slices(self, tmp_path, moved, is_even):
        """A fifth of the gap: 0.1 mm would be a whole slice here."""
        write_series(tmp_path, ARRAY, AXIAL, positions=[0, 0.1, 0.2 + moved, 0.3, 0.4])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert ("slice_positions" in read_dicom(tmp_path)[1]) is not is_even

    @pytest.mark.parametrize("positions", [None, [0, 3, 4, 5, 9]])
    def test_not_on_a_line(self, tmp_path, positions):
        paths = write_series(tmp_path, ARRAY, AXIAL, positions=positions, tilt=10)
        place = pydicom.dcmread(paths[2]).ImagePositionPatient
        retag(paths[2], ImagePositionPatient=[place[0] + 0.5, *place[1:]])
        check_error(tmp_path, "shifted by up to 0.5 mm off a line")
        retag(paths[2], ImagePositionPatient=[place[0] + 0.1, *place[1:]])  # rounding
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert read_dicom(tmp_path)[0].shape == SHAPE


class TestMixed:
    def test_copies(self, tmp_path):
        paths = write_series(tmp_path, ARRAY, OBLIQUE, duplicates=[0, 3])
        warning = "2 images are copies of others at the same position and are left out."
        voxels, meta = read(tmp_path, warning)
        np.testing.assert_array_equal(voxels, ARRAY)
        np.testing.assert_allclose(meta["affine"], OBLIQUE, atol=1e-9)
        assert len(meta["dicom_files"]) == 5 and {str(p) for p in paths[1:3]} <= set(meta["dicom_files"])

    @pytest.mark.parametrize(
        ("tags", "named"),
        [
            ({}, "differ in their pixels"),
            ({"EchoNumbers": 2}, "differ in EchoNumbers;"),
            ({"TriggerTime": "30", "TemporalPositionIdentifier": 2}, "TriggerTime, TemporalPositionIdentifier;"),
            ({"AcquisitionNumber": 7}, "differ in AcquisitionNumber;"),
            ({"ImageType": ("ORIGINAL", "PRIMARY", "PHASE")}, "differ in ImageType;"),
        ],
    )
    def test_several_images_at_one_position(self, tmp_path, tags, named):
        options = {"duplicates": range(5), "duplicate_offset": 1, "duplicate_tags": tags}
        write_series(tmp_path, ARRAY, OBLIQUE, **options)
        check_error(tmp_path, "several images at one position", named, "time frames or echoes")

    def test_copy_with_another_slope(self, tmp_path):
        """The same stored units mean other values."""
        write_series(tmp_path, ARRAY, OBLIQUE, duplicates=[1], duplicate_tags={"RescaleSlope": "2"})
        check_error(tmp_path, "several images at one position, which differ in their pixels")

    def test_same_height_beside(self, tmp_path):
        """The same pixels at the same height, but shifted within the plane, are no copy."""
        paths = write_series(tmp_path, ARRAY, AXIAL, duplicates=[1])
        place = pydicom.dcmread(paths[-1]).ImagePositionPatient
        retag(paths[-1], ImagePositionPatient=[place[0] + 5, *place[1:]])
        check_error(tmp_path, "several images at one position")

    def test_one_place(self, tmp_path):
        write_series(tmp_path, ARRAY, AXIAL, drop=[1, 2, 3, 4], duplicates=[0, 0])
        check_error(tmp_path, "all images of the DICOM series are at one position")

    @pytest.mark.parametrize("is_told", [True, False])
    def test_localizer(self, tmp_path, is_told):
        paths = write_series(tmp_path, ARRAY, AXIAL, localizer=True)
        if not is_told:
            retag(paths[-1], ImageType=["ORIGINAL", "PRIMARY", "OTHER"])
        voxels, meta = read(tmp_path, "1 localizers or images of another plane are left out.")
        np.testing.assert_array_equal(voxels, ARRAY)
        np.testing.assert_allclose(meta["affine"], AXIAL, atol=1e-9)
        assert str(paths[-1]) not in meta["dicom_files"]

    def test_localizer_in_the_same_plane(self, tmp_path):
        """What calls itself a localizer is none of the slices, even where it would fit."""
        paths = write_series(tmp_path, ARRAY, AXIAL)
        retag(paths[-1], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
        voxels, _ = read(tmp_path, "1 localizers or images of another plane are left out.")
        np.testing.assert_array_equal(voxels, ARRAY[..., :4])

    def test_only_localizers(self, tmp_path):
        write_series(tmp_path, ARRAY, AXIAL, tags={"ImageType": ("ORIGINAL", "PRIMARY", "LOCALIZER")})
        np.testing.assert_array_equal(read(tmp_path)[0], ARRAY)

    @pytest.mark.parametrize("tag", ["ImageOrientationPatient", "PixelSpacing", "Rows"])
    def test_two_stacks(self, tmp_path, tag):
        """Neither is the stack that is meant."""
        value = {"ImageOrientationPatient": (1, 0, 0, 0, 0, -1), "PixelSpacing": (0.5, 0.5), "Rows": 5}[tag]
        write_series(tmp_path, ARRAY, AXIAL, series_uid="1.2")
        write_series(tmp_path, ARRAY, AXIAL, series_uid="1.2", drop=[1, 2], prefix="B", tags={tag: value})
        check_error(tmp_path, "not parallel or differ in size or pixel spacing (2 kinds)")

    def test_frames_of_reference(self, tmp_path):
        paths = write_series(tmp_path, ARRAY, AXIAL)
        retag(paths[0], FrameOfReferenceUID="1.2.3")
        check_error(tmp_path, "holds 2 frames of reference; expected one")

    def test_two_series(self, tmp_path):
        write_series(tmp_path, ARRAY, AXIAL, series_uid="1.2.3", description="thick")
        write_series(tmp_path, ARRAY, AXIAL, series_uid="1.2.4", prefix="B")
        check_error(tmp_path, "with one DICOM series, found 2: 1.2.4 (phantom, 5 files); 1.2.3 (thick, 5 files).")


class TestMultiFrame:
    @pytest.mark.parametrize("modality", ["CT", "MR"])
    @pytest.mark.parametrize(
        "options", [{}, {"drop": [1]}, {"tilt": 12}, {"positions": [0, 3, 4, 5.5, 9]}, {"slope": [1, 2, 1, 3, 1]}]
    )
    @pytest.mark.filterwarnings("ignore:.*each is taken at its own position")
    def test_as_single_files(self, tmp_path, modality, options):
        options = {"intercept": -1024, "thickness": 5.5, "modality": modality, **options}
        write_series(tmp_path / "single", ARRAY, OBLIQUE, **options)
        (path,) = write_series(tmp_path / "multi", ARRAY, OBLIQUE, multi_frame=True, **options)
        single, meta = read_dicom(tmp_path / "single")
        for source in (path, path.parent):
            voxels, found = read_dicom(source)
            assert voxels.dtype == single.dtype
            np.testing.assert_array_equal(voxels, single)
            np.testing.assert_array_equal(found["affine"], meta["affine"])
            assert found["dicom_files"] == [str(path)]
            for key in ("slice_positions", "SliceThickness"):
                assert found.get(key) == meta.get(key)

    def test_order_of_frames(self, tmp_path):
        order = [3, 0, 4, 2, 1]
        intercepts = [-1024, -1000, -900, -800, -1024]
        options = {"frame_order": order, "intercept": intercepts, "slope": 1}
        (path,) = write_series(tmp_path, ARRAY, OBLIQUE, multi_frame=True, **options)
        voxels, meta = read(path)
        np.testing.assert_array_equal(voxels, ARRAY)
        np.testing.assert_allclose(meta["affine"], OBLIQUE, atol=1e-9)

    def test_time_frames(self, tmp_path):
        (path,) = write_series(tmp_path, ARRAY, OBLIQUE, multi_frame=True, frame_order=[0, 1, 2, 3, 4, 0, 1, 2, 3, 4])
        data = pydicom.dcmread(path)
        values = np.frombuffer(data.PixelData, np.int16).copy()
        values[-1] += 1
        data.PixelData = values.tobytes()
        for k, group in enumerate(data.PerFrameFunctionalGroupsSequence):
            group.FrameContentSequence[0].TemporalPositionIndex = 1 + k // 5
        data.save_as(path)
        check_error(path, "several images at one position, which differ in TemporalPositionIndex")

    def test_stacks(self, tmp_path):
        (path,) = write_series(tmp_path, ARRAY, OBLIQUE, multi_frame=True)
        data = pydicom.dcmread(path)
        data.PerFrameFunctionalGroupsSequence[0].FrameContentSequence[0].StackID = "2"
        data.save_as(path)
        check_error(path, "holds 2 stacks; expected one")

    @pytest.mark.parametrize("kept", [0, 4])
    def test_frames_without_position(self, tmp_path, kept):
        (path,) = write_series(tmp_path, ARRAY, OBLIQUE, multi_frame=True)
        data = pydicom.dcmread(path)
        data.PerFrameFunctionalGroupsSequence = list(data.PerFrameFunctionalGroupsSequence)[:kept]
        data.save_as(path)
        check_error(path, f"has 5 frames and tells the position of {kept}")


class TestValues:
    def test_slope_and_intercept_of_each_slice(self, tmp_path):
        stored = np.random.default_rng(1).integers(-900, 900, SHAPE)
        slopes, intercepts = np.array([1, 2, 3, 4, 5]), np.array([0, -10, 20, -30, 40])
        array = stored * slopes + intercepts
        write_series(tmp_path, array, OBLIQUE, slope=slopes, intercept=intercepts)
        voxels, _ = read(tmp_path)
        assert voxels.dtype == np.int16
        np.testing.assert_array_equal(voxels, array)

    def test_fractions(self, tmp_path):
        stored = np.random.default_rng(1).integers(-900, 900, SHAPE)
        slopes = np.array([1, 1, 0.37, 1, 1.5])
        write_series(tmp_path, stored * slopes + 0.25, OBLIQUE, slope=slopes, intercept=0.25)
        voxels, _ = read(tmp_path)
        assert voxels.dtype == np.float32
        np.testing.assert_allclose(voxels, stored * slopes + 0.25, rtol=1e-6)

    @pytest.mark.parametrize(
        ("low", "high", "slope", "intercept", "kind"),
        [
            (-2000, 3071, 1, -1024, np.int16),  # padding outside the field of view is kept
            (-32768, 32767, 1, -1, np.int16),
            (-32768, 32768, 2, 0, np.int32),
            (-5, 70000, 5, 0, np.int32),
            (0, 3 * 10**9, 10**6, 0, np.int64),
        ],
    )
    def test_smallest_type(self, tmp_path, low, high, slope, intercept, kind):
        array = np.full(SHAPE, low)
        array[0, 0, 4] = high
        if slope > 1:
            array = array // slope * slope
        if low == -32768 and intercept:
            array[array == low] += 1  # one more does not fit into the stored type
            array[0, 0, 4] -= 1
        write_series(tmp_path, array, OBLIQUE, slope=slope, intercept=intercept)
        voxels, _ = read(tmp_path)
        assert voxels.dtype == kind
        np.testing.assert_array_equal(voxels, array)

    @pytest.mark.parametrize("intercept", [None, 0])
    @pytest.mark.parametrize(("signed", "kind"), [(True, np.int16), (False, np.uint16)])
    def test_as_stored(self, tmp_path, signed, kind, intercept):
        array = abs(ARRAY) * 15
        array[0, 0, 0] = np.iinfo(kind).max
        array[array > np.iinfo(kind).max] = 7
        write_series(tmp_path, array, OBLIQUE, modality="MR", signed=signed, intercept=intercept)
        voxels, _ = read(tmp_path)
        assert voxels.dtype == kind
        np.testing.assert_array_equal(voxels, array)

    @pytest.mark.parametrize(
        "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless]
    )
    @pytest.mark.parametrize("multi_frame", [False, True])
    def test_transfer_syntax(self, tmp_path, syntax, multi_frame):
        write_series(tmp_path, ARRAY, OBLIQUE, transfer_syntax=syntax, multi_frame=multi_frame)
        voxels, meta = read(tmp_path)
        assert voxels.dtype == np.int16
        np.testing.assert_array_equal(voxels, ARRAY)
        np.testing.assert_allclose(meta["affine"], OBLIQUE, atol=1e-9)

    @pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
    @pytest.mark.parametrize("signed", [True, False])
    @pytest.mark.parametrize("multi_frame", [False, True])
    def test_compressed(self, tmp_path, compressor, signed, multi_frame):
        """Each slice has its own intercept, also where a reader would take the first one's for all."""
        # a picture: the encoder breaks down on a few voxels of noise
        array = np.add.outer(np.add.outer(np.arange(32), 5 * np.arange(36)), [0, 300, -300, 900, -900])
        options = {"intercept": [-1024, -1100, -1200, -1024, -1500], "signed": signed}
        single = write_series(tmp_path / "single", array, OBLIQUE, **options)
        encoded, syntax = [], ""
        for path in single:
            data = pydicom.dcmread(path)
            image = sitk.GetImageFromArray(data.pixel_array[None])
            sitk.WriteImage(image, str(tmp_path / "x.dcm"), useCompression=True, compressor=compressor)
            compressed = pydicom.dcmread(tmp_path / "x.dcm")
            syntax = compressed.file_meta.TransferSyntaxUID
            encoded.append(next(generate_frames(compressed.PixelData, number_of_frames=1)))
        assert syntax.is_compressed
        paths = single
        if multi_frame:
            paths = write_series(tmp_path / "multi", array, OBLIQUE, multi_frame=True, **options)
        for k, path in enumerate(paths):
            data = pydicom.dcmread(path)
            data.PixelData = encapsulate(encoded if multi_frame else [encoded[k]])
            data["PixelData"].VR = "OB"
            data["PixelData"].is_undefined_length = True
            data.file_meta.TransferSyntaxUID = syntax
            data.save_as(path)
        np.testing.assert_array_equal(read(paths[0].parent)[0], array)

    @pytest.mark.parametrize("representation", [0, 1])
    def test_unused_bits(self, tmp_path, representation):
        """Old files keep other things in the bits beside the stored ones; GDCM leaves them out too."""
        paths = write_series(tmp_path, ARRAY, OBLIQUE, intercept=0)
        rng = np.random.default_rng(0)
        for path in paths:
            noise = rng.integers(0, 65536, 42).astype(np.uint16).tobytes()
            retag(path, BitsStored=12, HighBit=11, PixelRepresentation=representation, PixelData=noise)
        expected = sitk.GetArrayFromImage(sitk.ReadImage([str(path) for path in paths])).T
        np.testing.assert_array_equal(read(tmp_path)[0], expected)

    def test_without_preamble(self, tmp_path):
        for path in write_series(tmp_path, ARRAY, OBLIQUE):
            length = pydicom.dcmread(path).file_meta.FileMetaInformationGroupLength
            path.write_bytes(path.read_bytes()[144 + length :])
        np.testing.assert_array_equal(read(tmp_path)[0], ARRAY)


class TestErrors:
    @pytest.mark.parametrize("tag", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
    def test_no_geometry(self, tmp_path, tag):
        paths = write_series(tmp_path, ARRAY, OBLIQUE)
        data = pydicom.dcmread(paths[3])
        delattr(data, tag)
        data.save_as(paths[3])
        check_error(tmp_path, f"{paths[3].name}: a slice without position", "(0020,0032), (0020,0037) and (0028,0030)")

    @pytest.mark.parametrize(
        ("tags", "named"),
        [
            ({"ImagePositionPatient": ["1", "2"]}, "ImagePositionPatient is not 3 numbers"),
            ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "not two perpendicular unit vectors"),
            ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "not two perpendicular unit vectors"),
            ({"PixelSpacing": ["0", "1"]}, "pixel spacing is zero or negative"),
            ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME1 voxels are not gray values that grow"),
            ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "RGB voxels are not gray values"),
            ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR voxels are not gray values"),
        ],
    )
    def test_tags(self, tmp_path, tags, named):
        paths = write_series(tmp_path, ARRAY, OBLIQUE)
        retag(paths[1], **tags)
        check_error(tmp_path, f"{paths[1].name}: ", named)

    @pytest.mark.parametrize(
        ("keyword", "value"),
        [("PixelSpacing", b"a\\b "), ("ImagePositionPatient", b"1\\nan\\2 "), ("RescaleSlope", b"x ")],
    )
    def test_not_a_number(self, tmp_path, keyword, value):
        paths = write_series(tmp_path, ARRAY, OBLIQUE)
        data = pydicom.dcmread(paths[1])
        tag = pydicom.datadict.tag_for_keyword(keyword)
        data._dict[tag] = pydicom.dataelem.RawDataElement(pydicom.tag.Tag(tag), "DS", len(value), value, 0, False, True)
        data.save_as(paths[1])
        check_error(tmp_path, f"{paths[1].name}: {keyword} is not ")

    def test_table_of_values(self, tmp_path):
        paths = write_series(tmp_path, ARRAY, OBLIQUE)
        retag(paths[0], ModalityLUTSequence=[pydicom.Dataset()])
        check_error(tmp_path, "has a table of values; expected a rescale slope")

    @pytest.mark.parametrize("lost", [1, 40, 84])
    @pytest.mark.parametrize("multi_frame", [False, True])
    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
    def test_truncated(self, tmp_path, lost, multi_frame, syntax):
        paths = write_series(tmp_path, ARRAY, OBLIQUE, multi_frame=multi_frame, transfer_syntax=syntax)
        paths[0].write_bytes(paths[0].read_bytes()[: -lost - 8 * (syntax == RLELossless)])
        check_error(tmp_path, paths[0].name)

    def test_no_pixels(self, tmp_path):
        paths = write_series(tmp_path, ARRAY, OBLIQUE)
        data = pydicom.dcmread(paths[0])
        del data.PixelData
        data.save_as(paths[0])
        check_error(tmp_path, f"{paths[0].name}: its pixels cannot be decoded")

    def test_huge_dimensions(self, tmp_path):
        """A header that promises much is found out before memory is taken for it."""
        write_series(tmp_path, ARRAY, OBLIQUE, tags={"Rows": 65535, "Columns": 65535})
        check_error(tmp_path, "its pixels cannot be decoded")

    def test_single_slice(self, tmp_path):
        path, *others = write_series(tmp_path, ARRAY, OBLIQUE)
        check_error(path, "has a single slice (6 x 7 x 1)", "in one folder or one file")
        for other in others:
            other.unlink()
        check_error(tmp_path, "has a single slice (6 x 7 x 1)")

    def test_no_series(self, tmp_path):
        check_error(tmp_path, "expected a folder with one DICOM series, found 0: none")
