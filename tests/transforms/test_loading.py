# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

import gzip
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import list_data_collate
from scipy.spatial.transform import Rotation

from monai_sliceinterp.geometry import slice_geometry
from monai_sliceinterp.transforms import LoadVolume, LoadVolumed, dicom_series, loading
from tests.dicom_series import write_series
from tests.transforms.volumes import real_scans
from tests.volumes import LPS_TO_RAS, itk_affine, oblique, whole_range, write_nifti

SHAPE = (6, 7, 5)
SPACING = (0.7, 0.9, 4.0)
ITK_SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr")
TYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]
IN_MEMORY = {"uint16": torch.int32, "uint32": torch.int64}  # torch computes with few unsigned types
NO_FORMS = {252: bytes(4)}  # qform_code, sform_code
NO_SPACING = "spacing is zero or missing"


def write(path, values=None, spacing=SPACING):
    """An oblique volume in the format of the file's name; returns the image of SimpleITK."""
    values = whole_range(np.int16, SHAPE) if values is None else values
    if path.name.endswith((".nii", ".nii.gz")):
        write_nifti(path, values, oblique(spacing))
        return None
    image = sitk.GetImageFromArray(values.T, isVector=False)
    dim = values.ndim
    direction = np.eye(dim)
    direction[:3, :3] = Rotation.from_euler("xyz", [10, -25, 40], degrees=True).as_matrix()
    image.SetSpacing([*spacing, 2.5][:dim])
    image.SetOrigin([5.0, -6.0, 7.0, 0.0][:dim])
    image.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(image, str(path))
    return image


def patch(path, changes, affine=None):
    """A NIfTI file with other bytes at some places of its header."""
    plain = path.with_name("plain.nii")
    values = whole_range(np.int16, SHAPE)
    write_nifti(plain, values, np.diag([1.0, 2.0, 3.0, 1.0]) if affine is None else affine)
    content = bytearray(plain.read_bytes())
    for offset, value in changes.items():
        content[offset : offset + len(value)] = value
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def check_error(path, *named):
    """Loading fails with one line that begins with the file's name; the dictionary version says the same."""
    with pytest.raises(ValueError) as caught:
        LoadVolume()(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    for text in named:
        assert text in message
    with pytest.raises(ValueError) as again:
        LoadVolumed("image")({"image": str(path)})
    assert str(again.value) == message


class TestNifti:
    @pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    def test_affine_and_values(self, tmp_path, suffix, kind):
        values = whole_range(np.int16, SHAPE)
        volume = LoadVolume()(write_nifti(tmp_path / f"scan{suffix}", values, oblique(), kind=kind))
        assert volume.shape == (1, *SHAPE)
        np.testing.assert_array_equal(volume.numpy()[0], values)
        np.testing.assert_allclose(volume.affine, oblique(), rtol=0, atol=1e-4)  # NIfTI holds float32
        assert volume.affine.dtype == torch.float64
        assert slice_geometry(volume).slice_spacing == pytest.approx(4.0)
        assert volume.meta["filename_or_obj"] == str(tmp_path / f"scan{suffix}")
        assert volume.meta["original_ndim"] == 3 and "frame_spacing" not in volume.meta

    @pytest.mark.parametrize("dtype", [">i2", ">f4", ">u2"])
    def test_big_endian(self, tmp_path, dtype):
        header = nib.Nifti1Header(endianness=">")
        header.set_data_dtype(dtype)
        values = whole_range(np.dtype(dtype).newbyteorder("="), SHAPE)
        nib.save(nib.Nifti1Image(values.astype(dtype), oblique(), header), tmp_path / "scan.nii")
        assert (tmp_path / "scan.nii").read_bytes()[:4] == b"\x00\x00\x01\x5c"
        volume = LoadVolume()(tmp_path / "scan.nii")
        np.testing.assert_array_equal(volume.numpy()[0], values)
        np.testing.assert_allclose(volume.affine, oblique(), rtol=0, atol=1e-4)

    def test_slope(self, tmp_path):
        path = patch(tmp_path / "scan.nii", {112: np.array([0.5, -1024], "<f4").tobytes()})  # scl_slope, scl_inter
        volume = LoadVolume()(path)
        assert volume.dtype == torch.float32
        np.testing.assert_array_equal(volume.numpy()[0], 0.5 * whole_range(np.int16, SHAPE) - 1024)

    @pytest.mark.parametrize("frames", [1, 4])
    @pytest.mark.parametrize(("unit", "seconds"), [("sec", 0.04), ("msec", 4e-5), ("unknown", 0.04)])
    def test_time_series(self, tmp_path, frames, unit, seconds):
        values = whole_range(np.int16, (*SHAPE, frames))
        path = write_nifti(tmp_path / "cine.nii.gz", values, oblique(), units=("mm", unit), frame_spacing=0.04)
        volume = LoadVolume()(path)
        np.testing.assert_array_equal(volume.numpy(), np.moveaxis(values, 3, 0))
        assert volume.meta["original_ndim"] == 4
        assert volume.meta["frame_spacing"] == pytest.approx(seconds, rel=1e-6)
        np.testing.assert_allclose(volume.affine, oblique(), rtol=0, atol=1e-4)

    @pytest.mark.parametrize(("unit", "scale"), [("mm", 1.0), ("micron", 1e-3), ("meter", 1e3), ("unknown", 1.0)])
    def test_units_of_length(self, tmp_path, unit, scale):
        path = write_nifti(tmp_path / "scan.nii", whole_range(np.int16, SHAPE), oblique(), units=(unit, None))
        volume = LoadVolume()(path)
        np.testing.assert_allclose(volume.affine[:3], scale * oblique()[:3], rtol=1e-5)
        assert volume.affine[3].tolist() == [0, 0, 0, 1]

    @pytest.mark.parametrize("steps", [(0, 0, 0), (1, 1, 1)])
    def test_sform_goes_before_pixdim(self, tmp_path, steps):
        """The sform is a full description; where pixdim is zero or contradicts it, nibabel takes the sform, too."""
        changes = {80: np.array(steps, "<f4").tobytes(), 252: bytes(2)}  # pixdim, qform_code
        path = patch(tmp_path / "scan.nii", changes, oblique())
        volume = LoadVolume()(path)
        np.testing.assert_allclose(volume.affine, oblique(), rtol=0, atol=1e-4)
        np.testing.assert_array_equal(volume.affine, nib.load(path).affine)
        assert slice_geometry(volume).slice_spacing == pytest.approx(4.0)


class TestItk:
    @pytest.mark.parametrize("suffix", ITK_SUFFIXES)
    def test_affine_and_values(self, tmp_path, suffix):
        image = write(tmp_path / f"scan{suffix}")
        volume = LoadVolume()(tmp_path / f"scan{suffix}")
        np.testing.assert_array_equal(volume.numpy()[0], whole_range(np.int16, SHAPE))
        np.testing.assert_allclose(volume.affine, itk_affine(image), rtol=0, atol=1e-9)
        np.testing.assert_allclose(volume.pixdim, image.GetSpacing(), rtol=1e-9)
        # the physical position of a voxel is the one SimpleITK tells, in RAS
        place = np.asarray(volume.affine) @ [2, 3, 4, 1]
        np.testing.assert_allclose(place[:3], image.TransformIndexToPhysicalPoint((2, 3, 4)) * np.array([-1, -1, 1]))

    @pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
    def test_time_series(self, tmp_path, suffix):
        values = whole_range(np.int16, (*SHAPE, 3))
        image = write(tmp_path / f"cine{suffix}", values)
        volume = LoadVolume()(tmp_path / f"cine{suffix}")
        np.testing.assert_array_equal(volume.numpy(), np.moveaxis(values, 3, 0))
        assert volume.meta["frame_spacing"] == 2.5 and volume.meta["original_ndim"] == 4
        np.testing.assert_allclose(volume.affine, itk_affine(image), rtol=0, atol=1e-9)


@pytest.mark.parametrize("suffix", [".nii", ".nrrd"])
@pytest.mark.parametrize("dtype", TYPES)
def test_types(tmp_path, dtype, suffix):
    values = whole_range(dtype, SHAPE)
    write(tmp_path / f"scan{suffix}", values)
    volume = LoadVolume()(tmp_path / f"scan{suffix}")
    assert volume.dtype == IN_MEMORY.get(dtype, getattr(torch, dtype))
    assert volume.meta["stored_dtype"] == dtype
    np.testing.assert_array_equal(volume.numpy()[0], values)


class TestDicom:
    """Beside what tests/dicom/test_reading.py checks."""

    @pytest.mark.parametrize("modality", ["CT", "MR"])
    @pytest.mark.parametrize("multi_frame", [False, True])
    def test_series(self, tmp_path, modality, multi_frame):
        """The folder, and also the file where one holds the whole stack."""
        values = np.random.default_rng(0).integers(-1000, 1000, SHAPE)
        options = {"modality": modality, "thickness": 6.0, "multi_frame": multi_frame}
        paths = write_series(tmp_path / "s", values, oblique(), **options)
        (tmp_path / "s" / "notes.txt").write_text("not DICOM")
        for source in [*paths[: int(multi_frame)], tmp_path / "s"]:
            volume = LoadVolume()(source)
            assert volume.dtype == torch.int16 and volume.meta["stored_dtype"] == "int16"
            np.testing.assert_array_equal(volume.numpy()[0], values)
            np.testing.assert_allclose(volume.affine, oblique(), rtol=0, atol=1e-9)
            assert volume.meta["dicom_files"] == [str(path) for path in paths]
            assert volume.meta["filename_or_obj"] == str(source) and volume.meta["original_ndim"] == 3
            geometry = slice_geometry(volume)
            assert (geometry.axis, geometry.thickness) == (2, 6.0)  # thickness is not spacing
            assert geometry.slice_spacing == pytest.approx(4.0, abs=1e-5)
            assert geometry.in_plane_spacing == pytest.approx((0.7, 0.9))

    def test_for_training(self, tmp_path):
        """Samples of stacks of different length make a batch; uneven ones are refused."""
        scans = []
        for count in (4, 6):
            folder = tmp_path / str(count)
            write_series(folder, np.arange(5 * 6 * count).reshape(5, 6, count), np.diag([-0.7, -0.9, 4, 1]))
            scans.append(LoadVolumed("image", for_training=True)({"image": folder}))
        patches = [{"image": scan["image"][:, :4, :4, :2]} for scan in scans]
        assert list_data_collate(patches)["image"].shape == (2, 1, 4, 4, 2)
        folder = tmp_path / "uneven"
        write_series(folder, np.arange(150).reshape(5, 6, 5), np.diag([-0.7, -0.9, 4, 1]), drop=[2])
        message = f"{re.escape(str(folder))}: its slices are unevenly spaced or some are missing; expected even gaps"
        with pytest.warns(UserWarning, match="apart"), pytest.raises(ValueError, match=message):
            LoadVolume(for_training=True)(folder)
        with pytest.warns(UserWarning, match="uneven: the slices are 4 to 8 mm apart"):
            volume = LoadVolume()(folder)
        assert volume.shape == (1, 5, 6, 4) and slice_geometry(volume).slice_spacing == 4.0
        assert volume.meta["slice_positions"] == (0.0, 1.0, 3.0, 4.0) and volume.meta["slice_positions_axis"] == 2

    @pytest.mark.parametrize("names", [[], ["notes.txt"], ["below/x.dcm"]])
    def test_empty_folder(self, tmp_path, names, capfd):
        folder = tmp_path / "folder"
        folder.mkdir()
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("hello")
        check_error(folder, "expected a folder with one DICOM series, found 0: none")
        check_error(folder / "missing", "no such file or folder")
        assert dicom_series(folder) == {}
        assert capfd.readouterr().err == ""


class TestErrors:
    """Beside the files of tests/bundles/test_malformed_inputs.py."""

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz", *ITK_SUFFIXES, ".txt", ""])
    @pytest.mark.parametrize("content", ["", "hello world\nline two\n" * 100])
    def test_text(self, tmp_path, suffix, content):
        path = tmp_path / f"scan{suffix}"
        path.write_text(content)
        check_error(path)

    @pytest.mark.parametrize(
        ("suffix", "length"),
        [
            *((".nii.gz", length) for length in (5, 40, 0.5, 0.95)),
            *((".nii", length) for length in (10, 348, 0.5, 0.95)),
            *((suffix, 0.95) for suffix in (".mha", ".nrrd", ".mhd")),
        ],
    )
    def test_truncated(self, tmp_path, suffix, length):
        path = tmp_path / f"scan{suffix}"
        write(path, whole_range(np.float64, SHAPE))
        data = path.with_suffix(".raw") if suffix == ".mhd" else path
        content = data.read_bytes()
        data.write_bytes(content[: length if length > 1 else int(length * len(content))])
        check_error(path, "cannot be read as an image" if suffix in (".nii", ".nii.gz") else "its header tells of 1680")

    def test_gz_that_is_none(self, tmp_path):
        write(tmp_path / "scan.nii")
        check_error((tmp_path / "scan.nii").rename(tmp_path / "plain.nii.gz"), "cannot be read as an image")

    @pytest.mark.parametrize(
        ("suffix", "shape", "named"),
        [
            (".nii", (6, 7), "2 dimensions (6 x 7)"),
            (".mha", (6, 7), "2 dimensions (6 x 7)"),
            (".nii", (6, 7, 5, 2, 3), "5 dimensions (6 x 7 x 5 x 2 x 3)"),
            (".nii", (6, 7, 1), "single slice (6 x 7 x 1)"),
            (".nii", (1, 7, 6), "single slice (1 x 7 x 6)"),
            (".nii", (6, 1, 7, 4), "single slice (6 x 1 x 7 x 4)"),
        ],
    )
    def test_shape(self, tmp_path, suffix, shape, named):
        path, values = tmp_path / f"scan{suffix}", np.ones(shape, np.int16)
        if suffix == ".nii":
            write_nifti(path, values, oblique())
        else:
            sitk.WriteImage(sitk.GetImageFromArray(values.T), str(path))
        check_error(path, named)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("suffix", [".nii.gz", ".mha"])
    def test_not_finite(self, tmp_path, value, dtype, suffix):
        values = whole_range(dtype, SHAPE)
        values[1, 2, 3] = values[0, 0, 0] = value
        path = tmp_path / f"scan{suffix}"
        write(path, values)
        check_error(path, "has 2 NaN or infinite voxels")
        if np.isnan(value):
            loaded = LoadVolumed("image", allow_nan=True)({"image": path})["image"]
            np.testing.assert_array_equal(loaded.numpy()[0], values)
        else:
            values[1, 2, 3] = np.nan
            write(path, values)
            text = f"scan{suffix}: has 1 infinite voxels; expected finite intensities or NaN"
            with pytest.raises(ValueError, match=text):
                LoadVolume(allow_nan=True)(path)

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            # pixdim, with neither qform nor sform
            *(({80 + 4 * axis: bytes(4), **NO_FORMS}, (NO_SPACING,)) for axis in range(3)),
            # pixdim and the diagonal of the sform
            ({80: bytes(4), 280: bytes(4)}, (NO_SPACING, "0 x")),
            ({84: bytes(4), 300: bytes(4)}, (NO_SPACING, "x 0 x")),
            ({88: bytes(4), 320: bytes(4)}, (NO_SPACING, "x 0 mm")),
            ({280: np.array(np.nan, "<f4").tobytes()}, ("NaN or infinite entries",)),
        ],
    )
    def test_no_affine(self, tmp_path, suffix, changes, named):
        check_error(patch(tmp_path / f"bad{suffix}", changes), *named)

    @pytest.mark.parametrize("suffix", [".nii", ".mha", ".nrrd"])
    @pytest.mark.parametrize("kind", ["complex", "rgb", "vector"])
    def test_not_gray_values(self, tmp_path, suffix, kind):
        shape, path = SHAPE[::-1], tmp_path / f"scan{suffix}"
        if kind == "complex":
            image = sitk.GetImageFromArray((np.ones(shape) + 1j).astype(np.complex64))
        else:
            dtype = np.uint8 if kind == "rgb" else np.float32
            image = sitk.GetImageFromArray(np.ones((*shape, 3), dtype), isVector=True)
        sitk.WriteImage(image, str(path))
        check_error(path, "5 dimensions" if suffix == ".nii" and kind != "complex" else "are not gray values")

    @pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no such file on this system")
    def test_failing_disk(self):
        """A file that is there, and cannot be read."""
        check_error(Path("/proc/self/mem"), "cannot be read (Input/output error); expected a readable image file.")


def test_extended_precision(tmp_path, monkeypatch):
    """As nibabel reads it where the machine has it."""
    write(tmp_path / "scan.nii")
    read = loading._read_file

    def read_extended(*args):
        array, *rest = read(*args)
        return array.astype(np.longdouble), *rest

    monkeypatch.setattr(loading, "_read_file", read_extended)
    volume = LoadVolume()(tmp_path / "scan.nii")
    assert volume.dtype == torch.float64 and volume.meta["stored_dtype"] == "float64"
    np.testing.assert_array_equal(volume.numpy()[0], whole_range(np.int16, SHAPE))


class TestDictionary:
    def test_keys(self, tmp_path):
        write(tmp_path / "a.nii")
        write(tmp_path / "b.mha", whole_range(np.uint8, SHAPE))
        data = {"image": str(tmp_path / "a.nii"), "label": tmp_path / "b.mha", "other": 3}
        loaded = LoadVolumed(["image", "label", "none"], allow_missing_keys=True)(data)
        assert loaded["image"].dtype == torch.int16 and loaded["label"].dtype == torch.uint8 and loaded["other"] == 3
        assert data["image"] == str(tmp_path / "a.nii")
        with pytest.raises(KeyError, match="none"):
            LoadVolumed(["image", "none"])(data)


def without_spacing(path, unit=2):
    """A file whose header tells no spacing, only, for NIfTI, the code of its unit."""
    if path.name.endswith((".nii", ".nii.gz")):
        return patch(path, {80: bytes(12), 123: bytes([unit]), **NO_FORMS})
    write(path)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(x for x in lines if not x.startswith((b"ElementSpacing", b"space directions"))))
    return path


class TestGivenSpacing:
    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz", *ITK_SUFFIXES])
    @pytest.mark.parametrize("spacing", [SPACING, 2])
    def test_used_where_the_file_tells_none(self, tmp_path, suffix, spacing):
        path = without_spacing(tmp_path / f"scan{suffix}")
        check_error(path, "the spacing is zero or missing in the header")
        volume = LoadVolume(spacing=spacing)(path)
        np.testing.assert_array_equal(volume.numpy()[0], whole_range(np.int16, SHAPE))
        np.testing.assert_allclose(volume.pixdim, np.broadcast_to(spacing, 3), rtol=1e-6)
        again = LoadVolumed("image", spacing=spacing)({"image": path})["image"]
        assert torch.equal(volume.affine, again.affine)
        if suffix in (".mha", ".mhd"):  # the direction of the file stays
            expected = (LPS_TO_RAS @ oblique() / [*SPACING, 1])[:3, :3] * spacing
            np.testing.assert_allclose(volume.affine[:3, :3], expected, atol=1e-6)

    @pytest.mark.parametrize(("unit", "code"), [("micron", 3), ("meter", 1)])
    def test_millimeters_whatever_the_units(self, tmp_path, unit, code):
        path = without_spacing(tmp_path / "scan.nii", code)
        assert nib.load(path).header.get_xyzt_units()[0] == unit
        np.testing.assert_allclose(LoadVolume(SPACING)(path).pixdim, SPACING, rtol=1e-6)

    @pytest.mark.parametrize("name", ["scan.nii", "scan.mha", "series"])
    def test_a_file_with_a_spacing(self, tmp_path, name):
        path = tmp_path / name
        write_series(path, whole_range(np.int8, SHAPE), oblique()) if name == "series" else write(path)
        with pytest.raises(
            ValueError, match=r"has a spacing of its own \(0.7 x 0.9 x 4 mm\); expected no other one"
        ) as caught:
            LoadVolume(spacing=4.0)(path)
        assert str(caught.value).startswith(f"{path}: ")

    @pytest.mark.parametrize("spacing", [0, -1, np.nan, np.inf, (1, 1), (1, 1, 0), "", "x", (1, 1, 1, 1), []])
    def test_not_a_spacing(self, spacing):
        with pytest.raises(ValueError, match="expected one positive number of mm, or three"):
            LoadVolume(spacing=spacing)


@pytest.mark.parametrize("file", real_scans(), ids=lambda file: file.name)
def test_real_scans(file):
    volume, image = LoadVolume()(file), nib.load(file)
    values = np.asarray(image.dataobj)
    values = np.moveaxis(values, 3, 0) if values.ndim == 4 else values[None]
    np.testing.assert_array_equal(volume.numpy(), values)
    np.testing.assert_array_equal(volume.affine, image.affine)
    assert volume.meta["stored_dtype"] == str(values.dtype)


@pytest.mark.parametrize("values", [[0, 1e300], [1e12, 1e12 + 100], [2**31 - 60, 2**31 - 1]])
def test_values_that_float32_cannot_tell_apart(tmp_path, values):
    """They would become infinite, or lose all detail, without a word; a constant volume has no detail."""
    dtype = np.int32 if isinstance(values[0], int) and values[1] < 2**31 and values[0] else np.float64
    array = np.resize(np.array(values, dtype), (4, 4, 4))
    write_nifti(tmp_path / "scan.nii", array)
    with pytest.raises(ValueError, match=r"scan.nii: has values from .* which 32-bit floats cannot compute with"):
        LoadVolume()(tmp_path / "scan.nii")
    array[:] = min(values)
    write_nifti(tmp_path / "scan.nii", array)
    assert LoadVolume()(tmp_path / "scan.nii").shape == (1, 4, 4, 4)
