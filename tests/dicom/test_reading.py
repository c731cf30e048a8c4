# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import errno
import re
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from monai.transforms import Orientation
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.fileset import FileSet
from pydicom.uid import (
    ComprehensiveSRStorage,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ParametricMapStorage,
    RLELossless,
    RTDoseStorage,
    SegmentationStorage,
)
from scipy.spatial.transform import Rotation

from monai_sliceinterp.dicom import read_dicom
from monai_sliceinterp.dicom.frames import HEADER_TAGS
from monai_sliceinterp.dicom.series import dicom_series, has_dicom, is_dicom, series_headers
from monai_sliceinterp.geometry import slice_geometry
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.transforms import LoadVolume, LoadVolumed, SaveVolumed
from tests.dicom_series import LOCALIZER, SECRETS, remove_preamble, retag, set_tags, stack_affine, write_series
from tests.volumes import oblique

SHAPE = (6, 7, 5)
ARRAY = np.random.default_rng(0).integers(-1024, 3000, SHAPE)
OBLIQUE, CORONAL = oblique(), np.eye(4)
CORONAL[:3, :3] = Rotation.from_euler("x", 90, degrees=True).as_matrix() @ np.diag([0.7, 0.9, 4.0])
AXIAL = np.diag([-0.7, -0.9, 4.0, 1.0])
OWN_POSITION = "each is taken at its own position."
NO_PLACE = (
    "a slice without position, orientation or pixel spacing; expected the DICOM tags "
    "(0020,0032), (0020,0037) and (0028,0030)."
)


def read(path, array=None, affine=OBLIQUE, warning=None):
    """Read, compare if there is what to compare with, and expect the one warning, or none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        voxels, meta = read_dicom(path)
    assert [str(w.message) for w in caught] == ([] if warning is None else [f"{path}: {warning}"])
    if array is not None:
        np.testing.assert_array_equal(voxels, array)
        np.testing.assert_allclose(meta["affine"], affine, rtol=0, atol=1e-9)
    return voxels, meta


def check_error(path, *named):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=r"\.$") as caught:
            read_dicom(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert [text for text in named if text not in message] == [], message
    assert [secret for secret in SECRETS if secret in message] == []


class TestRegular:
    @pytest.mark.parametrize("modality", ["CT", "MR"])
    @pytest.mark.parametrize("affine", [OBLIQUE, AXIAL, CORONAL], ids=["oblique", "axial", "coronal"])
    def test_as_simpleitk_reads_it(self, tmp_path, modality, affine):
        paths = write_series(tmp_path / "s", ARRAY, affine, modality=modality, thickness=6.0)
        voxels, meta = read(tmp_path / "s", ARRAY, affine)
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "s"))
        image = sitk.ReadImage(names)
        np.testing.assert_array_equal(voxels, sitk.GetArrayFromImage(image).T)
        for index in [(0, 0, 0), (5, 6, 4), (2, 3, 1)]:
            place = np.array(image.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
            np.testing.assert_allclose((meta["affine"] @ [*index, 1])[:3], place, rtol=0, atol=1e-4)
        assert meta["dicom_files"] == list(names) == [str(path) for path in paths]
        assert meta["dicom_files"] != sorted(meta["dicom_files"])  # neither name nor instance number gives the order
        assert meta["SliceThickness"] == 6.0 and "slice_positions" not in meta
        assert not any(secret in str(meta) for secret in SECRETS)

    @pytest.mark.parametrize(
        "options",
        [
            {"drop": [2, 3, 4]},
            {"tilt": -17},
            {"tags": {"SliceThickness": [4, 4, 4, 6, 6]}},
            {"tags": {"SeriesDate": ["20200101"] * 3 + ["20200102"] * 2}},  # GDCM takes these for two series
            {"tags": {"ImageType": LOCALIZER["ImageType"]}},  # of all
            {"multi_frame": True, "frame_order": [3, 0, 4, 2, 1], "intercept": [-1024, -1000, -900, -800, -1024]},
        ],
        ids=["two slices", "tilted gantry", "thickness", "date", "only localizers", "order of frames"],
    )
    def test_no_slice_is_lost(self, tmp_path, options):
        write_series(tmp_path, ARRAY, OBLIQUE, **options)
        count = 5 - len(options.get("drop", ()))
        _, meta = read(tmp_path, ARRAY[..., :count], stack_affine(OBLIQUE, tilt=options.get("tilt", 0)))
        assert ("SliceThickness" in meta) == ("SliceThickness" not in options.get("tags", ()))

    def test_slices_against_the_normal(self, tmp_path):
        """Slices are put along the normal, so a left-handed array comes back flipped, each slice in its place."""
        affine = OBLIQUE @ np.diag([1, 1, -1, 1])
        paths = write_series(tmp_path, ARRAY, affine)
        voxels, meta = read(tmp_path)
        np.testing.assert_array_equal(voxels, ARRAY[..., ::-1])
        for k in (0, 4):
            np.testing.assert_allclose(meta["affine"] @ [1, 2, k, 1], affine @ [1, 2, 4 - k, 1], atol=1e-9)
        assert meta["dicom_files"] == [str(path) for path in reversed(paths)]

    def test_without_preamble(self, tmp_path):
        for path in write_series(tmp_path, ARRAY, OBLIQUE):
            remove_preamble(path)
        read(tmp_path, ARRAY)


class TestUneven:
    @pytest.mark.parametrize("tilt", [0, 17])
    @pytest.mark.parametrize(("drop", "gap"), [([1], 8), ([8], 8), ([1, 2], 12), ([2, 6], 8)])
    def test_missing_slices(self, tmp_path, drop, gap, tilt):
        array = np.concatenate([ARRAY, ARRAY[..., ::-1] + 1], axis=2)
        present = [k for k in range(10) if k not in drop]
        write_series(tmp_path, array, OBLIQUE, drop=drop, tilt=tilt)
        warning = f"the slices are 4 to {gap} mm apart; {OWN_POSITION}"
        _, meta = read(tmp_path, array[..., present], stack_affine(OBLIQUE, tilt=tilt), warning)
        assert meta["slice_positions"] == tuple(map(float, present)) and meta["slice_positions_axis"] == 2

    @pytest.mark.parametrize("tilt", [0, 17])
    def test_uneven_gaps(self, tmp_path, tilt):
        """The step is the median gap, and every slice lies where its file says."""
        distances = np.array([0.0, 3.0, 4.0, 5.5, 9.0])
        paths = write_series(tmp_path, ARRAY, OBLIQUE, positions=distances, tilt=tilt)
        warning = f"the slices are 1 to 3.5 mm apart; {OWN_POSITION}"
        _, meta = read(tmp_path, ARRAY, stack_affine(OBLIQUE, 2.25, tilt), warning)
        assert meta["slice_positions"] == pytest.approx(distances / 2.25, abs=1e-8)  # gaps 3, 1, 1.5, 3.5
        assert meta["slice_positions"][0] == 0.0
        for path, position in zip(paths, meta["slice_positions"], strict=True):
            place = np.array(pydicom.dcmread(path).ImagePositionPatient, float) * (-1, -1, 1)
            np.testing.assert_allclose((meta["affine"] @ [0, 0, position, 1])[:3], place, rtol=0, atol=1e-6)

    @pytest.mark.parametrize(("spacing", "drop"), [(0.625, []), (0.625, [3]), (1.25, [1, 2]), (3.3, [])])
    @pytest.mark.filterwarnings(f"ignore:.*{OWN_POSITION}")
    def test_positions_rounded_to_a_tenth(self, tmp_path, spacing, drop):
        """Rounding is no unevenness: 0.6 and 0.7 mm are an even 0.625 mm, with or without a missing slice."""
        distances = np.round(spacing * np.arange(9), 1)
        assert len(set(np.diff(distances).round(3))) > 1 or spacing == 3.3
        array = np.concatenate([ARRAY, ARRAY[..., :4] + 1], axis=2)
        write_series(tmp_path, array, AXIAL, positions=distances, drop=drop)
        meta = read_dicom(tmp_path)[1]
        assert meta["affine"][2, 2] == pytest.approx(distances[-1] / 8)
        positions = tuple(float(k) for k in range(9) if k not in drop)
        assert meta.get("slice_positions") == (positions if drop else None)

    @pytest.mark.parametrize(
        ("gap", "moved", "is_even"), [(4, 0.09, True), (4, 0.12, False), (0.1, 0.015, True), (0.1, 0.03, False)]
    )
    def test_limit(self, tmp_path, gap, moved, is_even):
        """0.1 mm, and a fifth of the gap between thin slices."""
        write_series(tmp_path, ARRAY, AXIAL, positions=gap * np.arange(5) + moved * np.array([0, 0, 1, 0, 0]))
        text = f"the slices are {gap - moved:g} to {gap + moved:g} mm apart; {OWN_POSITION}"
        meta = read(tmp_path, warning=None if is_even else text)[1]
        assert ("slice_positions" in meta) is not is_even

    @pytest.mark.parametrize("positions", [None, [0, 3, 4, 5, 9]])
    @pytest.mark.filterwarnings(f"ignore:.*{OWN_POSITION}")
    def test_not_on_a_line(self, tmp_path, positions):
        paths = write_series(tmp_path, ARRAY, AXIAL, positions=positions, tilt=10)
        place = pydicom.dcmread(paths[2]).ImagePositionPatient
        retag(paths[2], ImagePositionPatient=[place[0] + 0.5, *place[1:]])
        check_error(tmp_path, "shifted by up to 0.5 mm off a line")
        retag(paths[2], ImagePositionPatient=[place[0] + 0.1, *place[1:]])  # rounding
        assert read_dicom(tmp_path)[0].shape == SHAPE


class TestMixed:
    def test_copies(self, tmp_path):
        paths = write_series(tmp_path, ARRAY, OBLIQUE, duplicates=[0, 3])
        warning = "2 images are copies of others at the same position and are left out."
        _, meta = read(tmp_path, ARRAY, OBLIQUE, warning)
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
        write_series(tmp_path, ARRAY, OBLIQUE, duplicates=range(5), duplicate_offset=1, duplicate_tags=tags)
        check_error(tmp_path, "several images at one position", named, "--series 4d takes them as one 4D scan")

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            # the same stored units mean other values
            ({"duplicates": [1], "duplicate_tags": {"RescaleSlope": "2"}}, "position, which differ in their pixels"),
            # the same pixels at the same height, but shifted within the plane, are no copy
            ({"duplicates": [1], "duplicate_tags": {"ImagePositionPatient": (5, 0, 4)}}, "images at one position"),
            ({"drop": [1, 2, 3, 4], "duplicates": [0, 0]}, "all images of the DICOM series are at one position"),
            ({"tags": {"FrameOfReferenceUID": ["1.2", "1.3", "1.2", "1.2", "1.2"]}}, "holds 2 frames of reference;"),
            # a header that promises much is found out before memory is taken for it
            ({"tags": {"Rows": 65535, "Columns": 65535}}, "its pixels cannot be decoded"),
        ],
        ids=["slope", "beside", "one place", "frames of reference", "huge"],
    )
    def test_no_stack(self, tmp_path, options, named):
        write_series(tmp_path, ARRAY, AXIAL, **options)
        check_error(tmp_path, named)

    @pytest.mark.parametrize(
        ("is_added", "image_type", "count"), [(True, "LOCALIZER", 5), (True, "OTHER", 5), (False, "LOCALIZER", 4)]
    )
    def test_localizer(self, tmp_path, is_added, image_type, count):
        """Images of another plane, and those that call themselves localizers, even where they would fit."""
        paths = write_series(tmp_path, ARRAY, AXIAL, localizer=is_added)
        retag(paths[-1], ImageType=["ORIGINAL", "PRIMARY", image_type])
        warning = "1 localizers or images of another plane are left out."
        _, meta = read(tmp_path, ARRAY[..., :count], AXIAL, warning)
        assert str(paths[-1]) not in meta["dicom_files"]

    @pytest.mark.parametrize(
        "tags", [{"ImageOrientationPatient": (1, 0, 0, 0, 0, -1)}, {"PixelSpacing": (0.5, 0.5)}, {"Rows": 5}]
    )
    def test_two_stacks(self, tmp_path, tags):
        """Neither is the stack that is meant."""
        write_series(tmp_path, ARRAY, AXIAL, series_uid="1.2")
        write_series(tmp_path, ARRAY, AXIAL, series_uid="1.2", drop=[1, 2], prefix="B", tags=tags)
        check_error(tmp_path, "not parallel or differ in size or pixel spacing (2 kinds)")


class TestMultiFrame:
    @pytest.mark.parametrize("modality", ["CT", "MR"])
    @pytest.mark.parametrize(
        "options", [{}, {"drop": [1]}, {"tilt": 12}, {"positions": [0, 3, 4, 5.5, 9]}, {"slope": [1, 2, 1, 3, 1]}]
    )
    @pytest.mark.filterwarnings(f"ignore:.*{OWN_POSITION}")
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

    @pytest.mark.parametrize(
        ("stacks", "times", "count", "named"),
        [
            ([1, 1, 1, 1, 2], [1, 1, 1, 1, 1], 5, "holds 2 stacks; expected one"),
            ([1] * 10, [1] * 5 + [2] * 5, 10, "images at one position, which differ in TemporalPositionIndex"),
            ([1] * 5, [1] * 5, 4, "has 5 frames and tells the position of 4"),
            ([1] * 5, [1] * 5, 0, "has 5 frames and tells the position of 0"),
        ],
    )
    def test_no_stack(self, tmp_path, stacks, times, count, named):
        order = [0, 1, 2, 3, 4] * (len(times) // 5)
        (path,) = write_series(tmp_path, ARRAY, OBLIQUE, multi_frame=True, frame_order=order)
        data = pydicom.dcmread(path)
        data.PixelData = data.PixelData[:-2] + b"\7\0"  # no copy
        frames = list(data.PerFrameFunctionalGroupsSequence)
        for frame, stack, time in zip(frames, stacks, times, strict=True):
            content = frame.FrameContentSequence[0]
            content.StackID, content.TemporalPositionIndex = str(stack), time
        data.PerFrameFunctionalGroupsSequence = frames[:count]
        data.save_as(path)
        check_error(path, named)


class TestValues:
    @pytest.mark.parametrize(
        ("slopes", "intercepts", "kind"),
        [([1, 2, 3, 4, 5], [0, -10, 20, -30, 40], np.int16), ([1, 1, 0.37, 1, 1.5], [0.25] * 5, np.float32)],
    )
    def test_slope_and_intercept_of_each_slice(self, tmp_path, slopes, intercepts, kind):
        array = np.random.default_rng(1).integers(-900, 900, SHAPE) * np.array(slopes) + intercepts
        write_series(tmp_path, array, OBLIQUE, slope=slopes, intercept=intercepts)
        voxels, _ = read(tmp_path)
        assert voxels.dtype == kind
        np.testing.assert_allclose(voxels, array, rtol=0 if kind == np.int16 else 1e-6)

    @pytest.mark.parametrize(
        ("low", "high", "options", "kind"),
        [
            (-2000, 3071, {"intercept": -1024}, np.int16),  # padding outside the field of view is kept
            (-32767, 32766, {"intercept": -1}, np.int16),
            (-32768, 32768, {"slope": 2, "intercept": 0}, np.int32),
            (-5, 70000, {"slope": 5, "intercept": 0}, np.int32),
            (0, 3 * 10**9, {"slope": 10**6, "intercept": 0}, np.int64),
            (0, 2**15 - 1, {"modality": "MR"}, np.int16),
            (0, 2**15 - 1, {"modality": "MR", "intercept": 0}, np.int16),
            (0, 2**16 - 1, {"modality": "MR", "signed": False}, np.uint16),
            (0, 2**16 - 1, {"modality": "MR", "signed": False, "intercept": 0}, np.uint16),
        ],
    )
    def test_smallest_type(self, tmp_path, low, high, options, kind):
        array = np.random.default_rng(0).choice([low, high], SHAPE)
        write_series(tmp_path, array, OBLIQUE, **options)
        assert read(tmp_path, array)[0].dtype == kind

    @pytest.mark.parametrize(
        "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless]
    )
    @pytest.mark.parametrize("multi_frame", [False, True])
    def test_transfer_syntax(self, tmp_path, syntax, multi_frame):
        write_series(tmp_path, ARRAY, OBLIQUE, transfer_syntax=syntax, multi_frame=multi_frame)
        assert read(tmp_path, ARRAY)[0].dtype == np.int16

    @pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
    @pytest.mark.parametrize("signed", [True, False])
    @pytest.mark.parametrize("multi_frame", [False, True])
    def test_compressed(self, tmp_path, compressor, signed, multi_frame):
        """Each slice has its own intercept, also where a reader would take the first one's for all."""
        # a picture: the encoder breaks down on a few voxels of noise
        array = np.add.outer(np.add.outer(np.arange(32), 5 * np.arange(36)), [0, 300, -300, 900, -900])
        options = {"intercept": [-1024, -1100, -1200, -1024, -1500], "signed": signed}
        single = write_series(tmp_path / "single", array, OBLIQUE, **options)
        encoded = []
        for path in single:
            image = sitk.GetImageFromArray(pydicom.dcmread(path).pixel_array[None])
            sitk.WriteImage(image, str(tmp_path / "x.dcm"), useCompression=True, compressor=compressor)
            compressed = pydicom.dcmread(tmp_path / "x.dcm")
            encoded.append(next(generate_frames(compressed.PixelData, number_of_frames=1)))
        assert compressed.file_meta.TransferSyntaxUID.is_compressed
        paths = write_series(tmp_path / "multi", array, OBLIQUE, multi_frame=True, **options) if multi_frame else single
        for k, path in enumerate(paths):
            data = pydicom.dcmread(path)
            data.PixelData = encapsulate(encoded if multi_frame else [encoded[k]])
            data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
            data.file_meta.TransferSyntaxUID = compressed.file_meta.TransferSyntaxUID
            data.save_as(path)
        read(paths[0].parent, array)

    @pytest.mark.parametrize("representation", [0, 1])
    def test_unused_bits(self, tmp_path, representation):
        """Old files keep other things in the bits beside the stored ones; GDCM leaves them out too."""
        paths = write_series(tmp_path, ARRAY, OBLIQUE, intercept=0)
        rng = np.random.default_rng(0)
        for path in paths:
            noise = rng.integers(0, 65536, 42).astype(np.uint16).tobytes()
            retag(path, BitsStored=12, HighBit=11, PixelRepresentation=representation, PixelData=noise)
        read(tmp_path, sitk.GetArrayFromImage(sitk.ReadImage([str(path) for path in paths])).T)


class TestErrors:
    @pytest.mark.parametrize(
        ("tags", "named"),
        [
            ({"ImagePositionPatient": None}, NO_PLACE),
            ({"ImageOrientationPatient": None}, NO_PLACE),
            ({"PixelSpacing": None}, NO_PLACE),
            ({"ImagePositionPatient": ["1", "2"]}, "ImagePositionPatient is not 3 numbers"),
            ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "not two perpendicular unit vectors"),
            ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "not two perpendicular unit vectors"),
            ({"PixelSpacing": ["0", "1"]}, "pixel spacing is zero or negative"),
            ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME1 voxels are not gray values that grow"),
            ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "RGB voxels are not gray values"),
            ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR voxels are not gray values"),
            ({"ModalityLUTSequence": [Dataset()]}, "has a table of values; expected a rescale slope"),
            ({"PixelData": None}, "its pixels cannot be decoded"),
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

    @pytest.mark.parametrize("lost", [1, 40, 84])
    @pytest.mark.parametrize("multi_frame", [False, True])
    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
    def test_truncated(self, tmp_path, lost, multi_frame, syntax):
        paths = write_series(tmp_path, ARRAY, OBLIQUE, multi_frame=multi_frame, transfer_syntax=syntax)
        paths[0].write_bytes(paths[0].read_bytes()[: -lost - 8 * (syntax == RLELossless)])
        check_error(tmp_path, paths[0].name)

    def test_size_is_no_number(self, tmp_path):
        path, *_ = write_series(tmp_path, ARRAY, OBLIQUE)
        rows = b"\x28\0\x10\0"
        path.write_bytes(path.read_bytes().replace(rows + b"US", rows + b"LO"))
        with pytest.raises(ValueError) as caught:
            read_dicom(tmp_path)
        assert str(caught.value) == f"{path}: its Rows is no number; expected a whole DICOM file."

    def test_folder_that_cannot_be_read(self, tmp_path, monkeypatch):
        def refuse(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        monkeypatch.setattr(Path, "iterdir", refuse)
        with pytest.raises(ValueError) as caught:
            read_dicom(tmp_path)
        assert str(caught.value) == f"{tmp_path}: cannot be read (Permission denied); expected a readable DICOM series."

    def test_single_slice(self, tmp_path):
        path, *others = write_series(tmp_path, ARRAY, OBLIQUE)
        check_error(path, "has a single slice (6 x 7 x 1)", "in one folder or one file")
        for other in others:
            other.unlink()
        check_error(tmp_path, "has a single slice (6 x 7 x 1)")


class TestSeries:
    def test_two_series(self, tmp_path):
        """Their descriptions, and headers without the patient; hidden files are passed over."""
        paths = write_series(tmp_path, ARRAY, AXIAL, series_uid="1.2.3", description="T1  axial")
        hidden, *_ = write_series(tmp_path, ARRAY, AXIAL, series_uid="1.2.4", description="", prefix="B")
        hidden.rename(hidden.with_name(".part.dcm"))
        assert dicom_series(tmp_path) == {"1.2.4": "no description, 4 files", "1.2.3": "T1 axial, 5 files"}
        headers = series_headers(tmp_path)["1.2.3"]
        assert [path for path, _ in headers] == sorted(paths)
        for _, header in headers:
            assert {element.keyword for element in header} <= {*HEADER_TAGS, "SpecificCharacterSet"}
            assert "Phantom" not in str(header) and header.Rows == 7
        text = "found 2: 1: T1 axial (CT, 6 x 7 x 5 voxels of 0.7 x 0.9 x 4 mm); 2: no description (CT, 6 x 7 x 4"
        with pytest.raises(ValueError) as caught:
            read_dicom(tmp_path)
        assert f"expected a folder with one DICOM series, {text}" in str(caught.value), str(caught.value)
        assert str(caught.value).endswith("; --series NUMBER chooses one.") and "1.2.3" not in str(caught.value)

    def test_what_is_no_image(self, tmp_path):
        assert not has_dicom(tmp_path) and dicom_series(tmp_path) == {}
        contents = {
            "notes.txt": b"hello",
            "empty.dcm": b"",
            "values.raw": b"\x08\x00\x05\x00" * 99,  # begins as a DICOM file without preamble may
            "zeros.raw": b"\x08\x00\x05\x00" + bytes(4),
        }
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
            assert not is_dicom(tmp_path / name)
        (report,) = write_series(tmp_path, ARRAY, AXIAL, drop=[1, 2, 3, 4])
        data = set_tags(pydicom.dcmread(report), {"Rows": None, "Columns": None, "PixelData": None})
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
        data.save_as(report)
        assert is_dicom(report)
        paths = write_series(tmp_path / "below", ARRAY, AXIAL)
        assert has_dicom(tmp_path / "below") and not has_dicom(tmp_path) and has_dicom(tmp_path, nested=True)
        assert dicom_series(tmp_path) == dicom_series(tmp_path / "below")  # as a folder without images of its own
        disk = FileSet()
        for path in paths:
            disk.add(path)
        disk.write(tmp_path / "disk")
        assert is_dicom(tmp_path / "disk" / "DICOMDIR") and not has_dicom(tmp_path / "disk")

    @pytest.mark.parametrize("length", [200, 500, 900])
    def test_cut_off_header(self, tmp_path, length):
        """A slice is not lost because its file is cut off."""
        path, *_ = write_series(tmp_path, ARRAY, AXIAL)
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(ValueError, match=r"expected a whole one\.$") as caught:
            dicom_series(tmp_path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


class TestDamagedTransfer:
    @pytest.mark.parametrize("which", [0, 2, -1])
    @pytest.mark.parametrize(
        "content", [b"", b"<!DOCTYPE html><p>503", bytes(5000), bytes(128) + b"DICM", bytes(128) + b"DICM" + bytes(20)]
    )
    @pytest.mark.parametrize("suffix", [".dcm", ""])
    def test_file_of_the_series(self, tmp_path, which, content, suffix):
        """A file that is named as its neighbors and holds no image is an error that names it."""
        for path in write_series(tmp_path, ARRAY, AXIAL):
            path.rename(path.with_suffix(suffix))
        path = sorted(tmp_path.iterdir())[which]
        path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
            read_dicom(tmp_path)
        assert "\n" not in str(caught.value)

    def test_other_files(self, tmp_path):
        write_series(tmp_path, ARRAY, AXIAL)
        for name in ("notes.txt", "LICENSE", "scan.json"):
            (tmp_path / name).write_text("something")
        np.testing.assert_array_equal(read_dicom(tmp_path)[0], ARRAY)

    def test_hole(self, tmp_path):
        write_series(tmp_path, ARRAY, AXIAL, positions=[0, 1, 2, 6, 7])
        with pytest.raises(ValueError, match=r"4 mm lie between slices 3 and 4 of 5, .* about 3 slices are missing"):
            read_dicom(tmp_path)
        assert read_dicom(tmp_path, max_gap_mm=4.5)[1]["slice_positions"] == (0, 1, 2, 6, 7)

    def test_slope_of_zero(self, tmp_path):
        retag(write_series(tmp_path, ARRAY, AXIAL)[1], RescaleSlope=0)
        with pytest.raises(ValueError, match="the rescale slope is 0"):
            read_dicom(tmp_path)


class TestWhichSeries:
    @pytest.fixture
    def study(self, tmp_path):
        """A CT, its scout, a second reconstruction and a dose report."""
        write_series(tmp_path, ARRAY, AXIAL, series_uid="1.2.3", description="CT")
        write_series(tmp_path, ARRAY, AXIAL, series_uid="1.2.4", description="scout", prefix="S", drop=[1, 2, 3, 4])
        return tmp_path

    @pytest.mark.parametrize("placed", [True, False])
    def test_only_stack(self, study, placed):
        """The other series is told of, also where it has no place in space."""
        for path in study.glob("S*") if not placed else ():
            retag(path, ImagePositionPatient=None)
        with pytest.warns(
            UserWarning, match=r"series 1: CT \(.* mm\) is taken, .* 2: scout \(.*, 1 image, no stack of slices\)"
        ):
            values, _ = read_dicom(study)
        np.testing.assert_array_equal(values, ARRAY)

    @pytest.mark.parametrize("series", ["2", "1.2.5"])
    def test_chosen(self, study, series):
        write_series(study, ARRAY + 1, AXIAL, series_uid="1.2.5", description="bone", prefix="B")
        with pytest.raises(ValueError, match="found 3: 1: CT .*; 3: bone .*; --series NUMBER"):
            read_dicom(study)
        series = "3" if series == "2" else series
        np.testing.assert_array_equal(read_dicom(study, series)[0], ARRAY + 1)
        with pytest.raises(ValueError, match="has no series 9; expected the number or UID of one of 1: CT "):
            read_dicom(study, "9")

    @pytest.mark.parametrize(
        "storage", [SegmentationStorage, RTDoseStorage, ParametricMapStorage, EncapsulatedPDFStorage]
    )
    def test_no_image(self, tmp_path, storage):
        path, *_ = write_series(tmp_path, ARRAY, AXIAL, drop=[1, 2, 3, 4])
        data = pydicom.dcmread(path)
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = storage
        if storage == EncapsulatedPDFStorage:
            set_tags(data, {"Rows": None, "Columns": None, "PixelData": None})
        data.save_as(path)
        hint = "a segmentation goes to --label" if storage == SegmentationStorage else "object; expected an image"
        with pytest.raises(ValueError, match=hint):
            read_dicom(path)
        assert dicom_series(tmp_path) == {}

    def test_slices_along_the_acquired_axis(self, tmp_path):
        """Whatever the spacing: also where slices lie closer than pixels."""
        affine = AXIAL @ np.diag([1, 1, 0.01, 1])
        write_series(tmp_path, ARRAY, affine)
        volume = LoadVolume()(tmp_path)
        assert slice_geometry(volume).axis == 2
        turned = Orientation("SRA")(volume)
        assert slice_geometry(turned).axis == 0 and turned.shape[1] == 5


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("DiffusionBValue", (0.0, 1000.0)),
        ("ConvolutionKernel", ("B30f", "B70f")),
        ("KVP", ("80", "140")),
        ("AcquisitionTime", ("100000", "100105")),
        ("EchoTime", ("2.3", "4.6")),
        ("InversionTime", ("300", "900")),
    ],
)
def test_what_differs_at_one_position(tmp_path, tag, values):
    for prefix, value in zip("AB", values, strict=True):
        for path in write_series(tmp_path, ARRAY + ord(prefix), AXIAL, series_uid="1.2.3", prefix=prefix):
            retag(path, FrameOfReferenceUID="1.2", **{tag: value})
    with pytest.raises(ValueError, match=f"which differ in .*{tag}.*; expected one volume"):
        read_dicom(tmp_path)
    with pytest.warns(UserWarning, match=f"2 volumes are the frames of a 4D scan, in the order of .*{tag}"):
        voxels, meta = read_dicom(tmp_path, series="4d")
    np.testing.assert_array_equal(voxels, np.stack([ARRAY + ord("A"), ARRAY + ord("B")], -1))
    np.testing.assert_allclose(meta["affine"], AXIAL, atol=1e-6)


class TestVolumesOfOneSeries:
    """A series of several volumes as one 4D scan."""

    @pytest.fixture()
    def b_values(self, tmp_path):
        """Three volumes, whose b-values are not in the order of the files."""
        for prefix, value in zip("ABC", (1000.0, 0.0, 50.0), strict=True):
            for path in write_series(tmp_path, ARRAY + int(value), AXIAL, series_uid="1.2.3", prefix=prefix):
                retag(path, FrameOfReferenceUID="1.2", DiffusionBValue=value, AcquisitionTime=f"10{ord(prefix)}00")
        return tmp_path

    @pytest.mark.parametrize("series", ["4d", "1:4d", "1.2.3:4D"])
    def test_interpolated_frame_by_frame(self, b_values, series):
        load = LoadVolumed("image", series=series)
        with pytest.warns(UserWarning, match="DiffusionBValue: 0.0; 50.0; 1000.0"):
            volume = load({"image": b_values})["image"]
        assert volume.shape == (3, *SHAPE) and volume.meta["original_ndim"] == 4
        for frame, value in zip(volume, (0, 50, 1000), strict=True):
            np.testing.assert_array_equal(frame, ARRAY + value)
        thin = SplineSliceInferer(factor=2)(volume[None].float())[0]
        saved = SaveVolumed("pred", b_values / "out")({"pred": thin})["pred"].meta["saved_to"]
        image = nib.load(saved)
        assert image.shape == (*SHAPE[:2], 2 * SHAPE[2] - 1, 3) and image.header.get_xyzt_units() == ("mm", "unknown")
        np.testing.assert_array_equal(image.dataobj[:, :, ::2], np.moveaxis(volume.numpy(), 0, -1))

    def test_refused(self, b_values):
        files = sorted(b_values.glob("B*"))
        retag(files[0], ImagePositionPatient=[0.3, 0, 0])
        with pytest.raises(ValueError, match="mm apart; expected volumes of one geometry"):
            read_dicom(b_values, series="4d")
        files[0].unlink()
        with pytest.raises(ValueError, match="has 2 to 3 images at one position; expected as many at each"):
            read_dicom(b_values, series="4d")

    def test_nothing_tells_them_apart(self, tmp_path):
        write_series(tmp_path, ARRAY, AXIAL, duplicates=range(5), duplicate_offset=1)
        with pytest.raises(ValueError) as caught:
            read_dicom(tmp_path, series="4d")
        text = "the DICOM series has several images at one position, and no tag tells them apart."
        assert str(caught.value) == f"{tmp_path}: {text}"

    def test_one_volume(self, tmp_path):
        write_series(tmp_path, ARRAY, AXIAL)
        assert read_dicom(tmp_path, series="4d")[0].shape == SHAPE
