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

import gzip
import os
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import list_data_collate
from scipy.spatial.transform import Rotation

from monai_sliceinterp import transforms
from monai_sliceinterp.dicom import read_dicom
from monai_sliceinterp.geometry import slice_geometry
from monai_sliceinterp.transforms import LoadVolume, LoadVolumed, dicom_series
from tests.dicom_series import write_series
from tests.volumes import oblique, whole_range, write_nifti

SHAPE = (6, 7, 5)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
ITK_SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr")
IN_MEMORY = {"uint16": torch.int32, "uint32": torch.int64}  # torch computes with few unsigned types


def voxels(dtype, shape=SHAPE):
    return whole_range(dtype, shape)


def itk_affine(image):
    """Affine of a SimpleITK image in RAS."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (image.GetDimension(), -1))[:3, :3] * image.GetSpacing()[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    return LPS_TO_RAS @ affine


def write_itk(path, values, spacing=(0.7, 0.9, 4.0)):
    image = sitk.GetImageFromArray(values.T, isVector=False)
    dim = values.ndim
    direction = np.eye(dim)
    direction[:3, :3] = Rotation.from_euler("xyz", [10, -25, 40], degrees=True).as_matrix()
    image.SetSpacing([*spacing, 2.5][:dim])
    image.SetOrigin([5.0, -6.0, 7.0, 0.0][:dim])
    image.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(image, str(path))
    return image


def patched(path, *changes):
    """Overwrite bytes of a file: pairs of a place and what goes there."""
    content = bytearray(path.read_bytes())
    for place, part in changes:
        content[place : place + len(part)] = part
    path.write_bytes(content)
    return path


NO_PIXDIM, NO_QFORM, NO_FORM = (80, bytes(12)), (252, bytes(2)), (252, bytes(4))


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
    return message


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"]
)
@pytest.mark.parametrize(("suffix", "write"), [(".nii", write_nifti), (".nrrd", write_itk)])
def test_types(tmp_path, suffix, write, dtype):
    values, path = voxels(dtype), tmp_path / f"scan{suffix}"
    write(path, values)
    volume = LoadVolume()(path)
    assert volume.dtype == IN_MEMORY.get(dtype, getattr(torch, dtype)) and volume.meta["stored_dtype"] == dtype
    np.testing.assert_array_equal(volume.numpy()[0], values)


class TestNifti:
    @pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    def test_affine_and_values(self, tmp_path, suffix, kind):
        values = voxels(np.int16)
        volume = LoadVolume()(write_nifti(tmp_path / f"scan{suffix}", values, kind=kind))
        assert volume.shape == (1, *SHAPE) and volume.dtype == torch.int16
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
        values = voxels(np.dtype(dtype).newbyteorder("="))
        nib.save(nib.Nifti1Image(values.astype(dtype), oblique(), header), tmp_path / "scan.nii")
        assert (tmp_path / "scan.nii").read_bytes()[:4] == b"\x00\x00\x01\x5c"
        volume = LoadVolume()(tmp_path / "scan.nii")
        np.testing.assert_array_equal(volume.numpy()[0], values)
        np.testing.assert_allclose(volume.affine, oblique(), rtol=0, atol=1e-4)

    def test_slope(self, tmp_path):
        stored = voxels(np.int16)
        path = write_nifti(tmp_path / "scan.nii", stored)
        volume = LoadVolume()(patched(path, (112, np.array([0.5, -1024], "<f4").tobytes())))  # scl_slope, scl_inter
        assert volume.dtype == torch.float64
        np.testing.assert_array_equal(volume.numpy()[0], 0.5 * stored - 1024)

    @pytest.mark.parametrize("frames", [1, 4])
    @pytest.mark.parametrize(("unit", "seconds"), [("sec", 0.04), ("msec", 4e-5), ("unknown", 0.04)])
    def test_time_series(self, tmp_path, frames, unit, seconds):
        values = voxels(np.int16, (*SHAPE, frames))
        path = write_nifti(tmp_path / "cine.nii.gz", values, units=("mm", unit), frame_spacing=0.04)
        volume = LoadVolume()(path)
        assert volume.shape == (frames, *SHAPE)
        for frame in range(frames):
            np.testing.assert_array_equal(volume.numpy()[frame], values[..., frame])
        assert volume.meta["original_ndim"] == 4
        assert volume.meta["frame_spacing"] == pytest.approx(seconds, rel=1e-6)
        np.testing.assert_allclose(volume.affine, oblique(), rtol=0, atol=1e-4)

    @pytest.mark.parametrize(("unit", "scale"), [("mm", 1.0), ("micron", 1e-3), ("meter", 1e3), ("unknown", 1.0)])
    def test_units_of_length(self, tmp_path, unit, scale):
        volume = LoadVolume()(write_nifti(tmp_path / "scan.nii", voxels(np.int16), units=(unit,)))
        np.testing.assert_allclose(volume.affine[:3], scale * oblique()[:3], rtol=1e-5)
        assert volume.affine[3].tolist() == [0, 0, 0, 1]

    def test_sform_stands_in_for_missing_pixdim(self, tmp_path):
        """The sform is a full description; a zero pixdim beside it is no fault."""
        path = write_nifti(tmp_path / "scan.nii", voxels(np.int16))
        patched(path, NO_PIXDIM, NO_QFORM)
        np.testing.assert_allclose(LoadVolume()(path).affine, oblique(), rtol=0, atol=1e-4)

    def test_sform_goes_before_pixdim(self, tmp_path):
        """Where the two contradict each other, the affine is the one nibabel and the standard take."""
        path = write_nifti(tmp_path / "scan.nii", voxels(np.int16))
        patched(path, (80, np.array([1, 1, 1], "<f4").tobytes()))
        np.testing.assert_array_equal(LoadVolume()(path).affine, nib.load(path).affine)
        assert slice_geometry(LoadVolume()(path)).slice_spacing == pytest.approx(4.0)


class TestItk:
    @pytest.mark.parametrize("suffix", ITK_SUFFIXES)
    def test_affine_and_values(self, tmp_path, suffix):
        values = voxels(np.int16)
        image = write_itk(tmp_path / f"scan{suffix}", values)
        volume = LoadVolume()(tmp_path / f"scan{suffix}")
        np.testing.assert_array_equal(volume.numpy()[0], values)
        np.testing.assert_allclose(volume.affine, itk_affine(image), rtol=0, atol=1e-9)
        np.testing.assert_allclose(volume.pixdim, image.GetSpacing(), rtol=1e-9)
        # the physical position of a voxel is the one SimpleITK tells, in RAS
        place = np.asarray(volume.affine) @ [2, 3, 4, 1]
        np.testing.assert_allclose(place[:3], image.TransformIndexToPhysicalPoint((2, 3, 4)) * np.array([-1, -1, 1]))

    @pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
    def test_time_series(self, tmp_path, suffix):
        values = voxels(np.int16, (*SHAPE, 3))
        image = write_itk(tmp_path / f"cine{suffix}", values)
        volume = LoadVolume()(tmp_path / f"cine{suffix}")
        np.testing.assert_array_equal(volume.numpy(), np.moveaxis(values, 3, 0))
        assert volume.meta["frame_spacing"] == 2.5 and volume.meta["original_ndim"] == 4
        np.testing.assert_allclose(volume.affine, itk_affine(image), rtol=0, atol=1e-9)

    def test_same_as_nifti(self, tmp_path):
        """One image, three formats, one volume."""
        image = write_itk(tmp_path / "scan.mha", voxels(np.int16))
        sitk.WriteImage(image, str(tmp_path / "scan.nii.gz"))
        sitk.WriteImage(image, str(tmp_path / "scan.nrrd"))
        first, *others = (LoadVolume()(tmp_path / f"scan{suffix}") for suffix in (".mha", ".nii.gz", ".nrrd"))
        for other in others:
            assert torch.equal(first.as_tensor(), other.as_tensor())
            torch.testing.assert_close(first.affine, other.affine, rtol=0, atol=1e-4)


class TestDicom:
    """What is read is the matter of :mod:`tests.dicom`; here, that it becomes a volume."""

    values = np.random.default_rng(0).integers(-1000, 1000, SHAPE)

    @pytest.mark.parametrize("multi_frame", [False, True])
    @pytest.mark.parametrize("modality", ["CT", "MR"])
    @pytest.mark.filterwarnings("ignore:.*each is taken at its own position")
    @pytest.mark.parametrize("options", [{}, {"drop": [2]}, {"slope": 2.5, "intercept": 0}, {"tilt": 12}])
    def test_as_read(self, tmp_path, modality, multi_frame, options):
        options = {"modality": modality, "multi_frame": multi_frame, "thickness": 6.0, **options}
        files = write_series(tmp_path / "s", self.values, oblique(), **options)
        (tmp_path / "s" / "notes.txt").write_text("not DICOM")
        for source in (files[0] if multi_frame else tmp_path / "s", tmp_path / "s"):
            array, meta = read_dicom(source)
            volume = LoadVolume()(source)
            np.testing.assert_array_equal(volume.numpy()[0], array)
            np.testing.assert_array_equal(volume.affine, meta["affine"])
            assert str(volume.dtype) == f"torch.{array.dtype}" and volume.meta["stored_dtype"] == str(array.dtype)
            assert volume.meta["filename_or_obj"] == str(source) and volume.meta["original_ndim"] == 3
            geometry = slice_geometry(volume)
            assert geometry.thickness == 6.0 and geometry.slice_spacing == pytest.approx(4.0)
            for key in ("dicom_files", "slice_positions", "slice_positions_axis"):
                assert volume.meta.get(key) == meta.get(key)

    def test_two_series(self, tmp_path):
        for uid, description, count in (("1.2.3", "T1 axial", 5), ("1.2.4", "", 3)):
            write_series(
                tmp_path, self.values[..., :count], oblique(), series_uid=uid, description=description, prefix=uid
            )
        check_error(tmp_path, "found 2", "1.2.3 (T1 axial, 5 files)", "1.2.4 (no description, 3 files)")
        assert dicom_series(tmp_path) == {"1.2.3": "T1 axial, 5 files", "1.2.4": "no description, 3 files"}

    def test_for_training(self, tmp_path):
        """Samples of stacks of different length make a batch; uneven ones are refused."""
        scans = []
        for count in (3, 5):
            write_series(tmp_path / str(count), self.values[..., :count], oblique())
            scans.append(LoadVolumed("image", for_training=True)({"image": tmp_path / str(count)}))
        patches = [{"image": scan["image"][:, :4, :4, :2]} for scan in scans]
        assert list_data_collate(patches)["image"].shape == (2, 1, 4, 4, 2)
        folder = tmp_path / "uneven"
        write_series(folder, self.values, oblique(), drop=[2])
        message = f"{re.escape(str(folder))}: its slices are unevenly spaced or some are missing; expected even gaps"
        with pytest.warns(UserWarning, match="apart"), pytest.raises(ValueError, match=message):
            LoadVolume(for_training=True)(folder)

    def test_errors(self, tmp_path):
        path, *others = write_series(tmp_path, self.values, oblique())
        check_error(path, "has a single slice (6 x 7 x 1)")
        others[0].write_bytes(others[0].read_bytes()[:-40])
        check_error(tmp_path, others[0].name)

    @pytest.mark.parametrize("names", [[], ["notes.txt"], ["below/x.dcm"]])
    def test_empty_folder(self, tmp_path, names, capfd):
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("hello")
        check_error(tmp_path, "expected a folder with one DICOM series, found 0: none")
        assert dicom_series(tmp_path) == {}
        assert capfd.readouterr().err == ""


class TestErrors:
    def test_missing(self, tmp_path):
        check_error(tmp_path / "no.nii.gz", "no such file or folder")

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz", *ITK_SUFFIXES, ".txt", ""])
    @pytest.mark.parametrize("content", ["", "hello world\nline two\n" * 100])
    def test_text(self, tmp_path, suffix, content):
        path = tmp_path / f"scan{suffix}"
        path.write_text(content)
        check_error(path)

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    @pytest.mark.parametrize("kept", [5, 10, 40, 348, 0.5, 0.95])
    def test_truncated(self, tmp_path, suffix, kept):
        path = write_nifti(tmp_path / f"scan{suffix}", voxels(np.float64))
        content = path.read_bytes()
        path.write_bytes(content[: kept if kept > 1 else int(kept * len(content))])
        check_error(path, "cannot be read as an image")

    def test_shorter_than_the_header_claims(self, tmp_path):
        """A whole gzip file with half of an image; and one that would take more memory than there is."""
        content = write_nifti(tmp_path / "scan.nii", voxels(np.int16)).read_bytes()
        path = tmp_path / "half.nii.gz"
        path.write_bytes(gzip.compress(content[:500]))
        check_error(path, f"it holds 500 bytes and its header tells of {len(content)}")
        huge = np.full(3, 32767, "<i2").tobytes()  # dim
        path.write_bytes(gzip.compress(content[:42] + huge + content[48:]))
        check_error(path, f"it holds {len(content)} bytes and its header tells of {352 + 2 * 32767**3}")

    @pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".mhd"])
    def test_truncated_itk(self, tmp_path, suffix):
        path = tmp_path / f"scan{suffix}"
        write_itk(path, voxels(np.int16))
        data = path.with_suffix(".raw") if suffix == ".mhd" else path
        data.write_bytes(data.read_bytes()[:-100])
        check_error(path, "cannot be read as an image")

    def test_gz_that_is_none(self, tmp_path):
        path = write_nifti(tmp_path / "scan.nii", voxels(np.int16))
        shutil.copy(path, tmp_path / "plain.nii.gz")
        check_error(tmp_path / "plain.nii.gz", "cannot be read as an image")

    @pytest.mark.parametrize(
        ("shape", "named"),
        [
            ((6, 7), "2 dimensions (6 x 7)"),
            ((6, 7, 5, 2, 3), "5 dimensions (6 x 7 x 5 x 2 x 3)"),
            ((6, 7, 1), "single slice (6 x 7 x 1)"),
            ((1, 7, 6), "single slice (1 x 7 x 6)"),
            ((6, 1, 7, 4), "single slice (6 x 1 x 7 x 4)"),
        ],
    )
    def test_shape(self, tmp_path, shape, named):
        check_error(write_nifti(tmp_path / "scan.nii", np.ones(shape, np.int16)), named)

    def test_flat_itk(self, tmp_path):
        sitk.WriteImage(sitk.GetImageFromArray(np.ones((6, 7), np.int16)), str(tmp_path / "flat.mha"))
        check_error(tmp_path / "flat.mha", "2 dimensions (7 x 6)")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("suffix", [".nii.gz", ".mha"])
    def test_not_finite(self, tmp_path, value, dtype, suffix):
        values = voxels(dtype)
        values[1, 2, 3] = values[0, 0, 0] = value
        path = tmp_path / f"scan{suffix}"
        write_nifti(path, values) if suffix == ".nii.gz" else write_itk(path, values)
        check_error(path, "has 2 NaN or infinite voxels")

    @pytest.mark.parametrize("axis", [0, 1, 2])
    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    def test_zero_pixdim_without_sform(self, tmp_path, axis, suffix):
        path = write_nifti(tmp_path / "scan.nii", voxels(np.int16), np.diag([1.0, 2.0, 3.0, 1.0]))
        content = patched(path, (80 + 4 * axis, bytes(4)), NO_FORM).read_bytes()
        path = tmp_path / f"bad{suffix}"
        path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
        check_error(path, "spacing is zero or missing")

    @pytest.mark.parametrize(("axis", "shown"), [(0, "0 x"), (1, "x 0 x"), (2, "x 0 mm")])
    def test_zero_pixdim_with_sform(self, tmp_path, axis, shown):
        """An sform that has the zero too, on its diagonal."""
        path = write_nifti(tmp_path / "scan.nii", voxels(np.int16), np.diag([1.0, 2.0, 3.0, 1.0]))
        patched(path, (80 + 4 * axis, bytes(4)), (280 + 16 * axis + 4 * axis, bytes(4)))
        check_error(path, "spacing is zero or missing", shown)

    def test_not_finite_affine(self, tmp_path):
        path = write_nifti(tmp_path / "scan.nii", voxels(np.int16), np.diag([1.0, 2.0, 3.0, 1.0]))
        check_error(patched(path, (280, np.array(np.nan, "<f4").tobytes())), "NaN or infinite entries")

    @pytest.mark.parametrize("suffix", [".nii", ".mha", ".nrrd"])
    @pytest.mark.parametrize("kind", ["complex", "rgb", "vector"])
    def test_not_gray_values(self, tmp_path, suffix, kind):
        shape = SHAPE[::-1]
        if kind == "complex":
            image = sitk.GetImageFromArray((np.ones(shape) + 1j).astype(np.complex64))
        else:
            dtype = np.uint8 if kind == "rgb" else np.float32
            image = sitk.GetImageFromArray(np.ones((*shape, 3), dtype), isVector=True)
        path = tmp_path / f"scan{suffix}"
        sitk.WriteImage(image, str(path))
        check_error(path, "5 dimensions" if suffix == ".nii" and kind != "complex" else "are not gray values")

    def test_rgb_nifti(self, tmp_path):
        dtype = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
        nib.save(nib.Nifti1Image(np.zeros(SHAPE, dtype), oblique()), tmp_path / "scan.nii")
        check_error(tmp_path / "scan.nii", "are not gray values")


def test_dictionary(tmp_path):
    path = write_nifti(tmp_path / "a.nii", voxels(np.int16))
    write_itk(tmp_path / "b.mha", voxels(np.uint8))
    data = {"image": str(path), "label": tmp_path / "b.mha", "other": 3}
    loaded = LoadVolumed(["image", "label", "none"], allow_missing_keys=True)(data)
    assert loaded["image"].dtype == torch.int16 and loaded["label"].dtype == torch.uint8 and loaded["other"] == 3
    assert data["image"] == str(path)
    with pytest.raises(KeyError, match="none"):
        LoadVolumed(["image", "none"])(data)
    for name in ("LoadVolume", "SaveVolume", "RestoreVolume"):
        dictionary = getattr(transforms, f"{name}d")
        assert getattr(transforms, f"{name}D") is dictionary and getattr(transforms, f"{name}Dict") is dictionary


def without_spacing(path, values=None):
    """A file whose header tells no spacing."""
    values = voxels(np.int16) if values is None else values
    if path.name.endswith((".nii", ".nii.gz")):
        plain = write_nifti(path.with_name("plain.nii"), values, np.diag([1.0, 2.0, 3.0, 1.0]))
        content = patched(plain, NO_PIXDIM, NO_FORM).read_bytes()
        path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    else:
        write_itk(path, values)
        keep = [x for x in path.read_bytes().split(b"\n") if not x.startswith((b"ElementSpacing", b"space directions"))]
        path.write_bytes(b"\n".join(keep))
    return path


class TestGivenSpacing:
    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr"])
    @pytest.mark.parametrize(("spacing", "expected"), [((0.7, 0.9, 4.0), [0.7, 0.9, 4.0]), (2, [2.0, 2.0, 2.0])])
    def test_used_where_the_file_tells_none(self, tmp_path, suffix, spacing, expected):
        path = without_spacing(tmp_path / f"scan{suffix}")
        check_error(path, "the spacing is zero or missing in the header")
        volume = LoadVolume(spacing=spacing)(path)
        np.testing.assert_array_equal(volume.numpy()[0], voxels(np.int16))
        np.testing.assert_allclose(volume.pixdim, expected, rtol=1e-6)
        again = LoadVolumed("image", spacing=spacing)({"image": path})["image"]
        assert torch.equal(volume.affine, again.affine)

    def test_direction_of_the_file_stays(self, tmp_path):
        path = without_spacing(tmp_path / "scan.mha")
        rotation = Rotation.from_euler("xyz", [10, -25, 40], degrees=True).as_matrix()
        expected = LPS_TO_RAS[:3, :3] @ rotation @ np.diag([0.7, 0.9, 4.0])
        np.testing.assert_allclose(LoadVolume([0.7, 0.9, 4.0])(path).affine[:3, :3], expected, atol=1e-6)

    @pytest.mark.parametrize(("unit", "code"), [("micron", 3), ("meter", 1)])
    def test_millimeters_whatever_the_units(self, tmp_path, unit, code):
        path = patched(without_spacing(tmp_path / "scan.nii"), (123, bytes([code])))
        assert nib.load(path).header.get_xyzt_units()[0] == unit
        np.testing.assert_allclose(LoadVolume((0.7, 0.9, 4))(path).pixdim, [0.7, 0.9, 4], rtol=1e-6)

    @pytest.mark.parametrize("name", ["scan.nii", "scan.mha", "series"])
    def test_a_file_with_a_spacing(self, tmp_path, name):
        path = tmp_path / name
        if name == "series":
            write_series(path, voxels(np.int8), np.diag([-0.7, -0.9, 4, 1]))
        else:
            write_nifti(path, voxels(np.int16)) if name == "scan.nii" else write_itk(path, voxels(np.int16))
        with pytest.raises(ValueError, match=r"has a spacing of its own \(0.7 x 0.9 x 4 mm\); expected none") as caught:
            LoadVolume(spacing=4.0)(path)
        assert str(caught.value).startswith(f"{path}: ")

    @pytest.mark.parametrize("spacing", [0, -1, np.nan, np.inf, (1, 1), (1, 1, 0), "", "x", (1, 1, 1, 1), []])
    def test_not_a_spacing(self, spacing):
        with pytest.raises(ValueError, match="expected one positive number of mm, or three"):
            LoadVolume(spacing=spacing)


class TestNaN:
    @pytest.mark.parametrize("suffix", [".nii.gz", ".mha"])
    def test_allowed(self, tmp_path, suffix):
        values = voxels(np.float32)
        values[1, 2, 3] = np.nan
        path = tmp_path / f"scan{suffix}"
        write_nifti(path, values) if suffix == ".nii.gz" else write_itk(path, values)
        np.testing.assert_array_equal(LoadVolumed("image", allow_nan=True)({"image": path})["image"].numpy()[0], values)
        check_error(path, "has 1 NaN or infinite voxels")

    @pytest.mark.parametrize("value", [np.inf, -np.inf])
    def test_infinite_ones_are_not(self, tmp_path, value):
        values = voxels(np.float32)
        values[1, 2, 3], values[0, 0, 0] = value, np.nan
        path = write_nifti(tmp_path / "scan.nii", values)
        with pytest.raises(ValueError, match="scan.nii: has 1 infinite voxels; expected finite intensities or NaN"):
            LoadVolume(allow_nan=True)(path)


@pytest.mark.skipif(not os.environ.get("SLICEINTERP_DATA"), reason="SLICEINTERP_DATA names no folder of scans")
def test_real_scans():
    folders = sorted(path for path in Path(os.environ["SLICEINTERP_DATA"]).iterdir() if path.is_dir())
    files = [file for folder in folders for file in sorted(folder.glob("*.nii.gz"))[:1]]
    assert files
    for file in files:
        volume, image = LoadVolume()(file), nib.load(file)
        values = np.asarray(image.dataobj)
        values = np.moveaxis(values, 3, 0) if values.ndim == 4 else values[None]
        np.testing.assert_array_equal(volume.numpy(), values)
        np.testing.assert_array_equal(volume.affine, image.affine)
        assert volume.meta["stored_dtype"] == str(values.dtype)
