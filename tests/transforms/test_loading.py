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
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from scipy.spatial.transform import Rotation

from monai_sliceinterp import transforms
from monai_sliceinterp.geometry import slice_geometry
from monai_sliceinterp.transforms import LoadVolume, LoadVolumed, dicom_series
from tests.dicom_series import write_series

SHAPE = (6, 7, 5)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
ITK_SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr")
IN_MEMORY = {"uint16": torch.int32, "uint32": torch.int64}  # torch computes with few unsigned types


def oblique(spacing=(0.7, 0.9, 4.0)):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [10, -25, 40], degrees=True).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = (-100, 20, 300)
    return affine


def voxels(dtype, shape=SHAPE, seed=0):
    """Values over the whole range of a type, its ends included."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return (rng.normal(size=shape) * 1000).astype(dtype)
    limits = np.iinfo(dtype)
    values = rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    values.flat[:2] = limits.min, limits.max
    return values


def write_nifti(path, values, affine=None, kind=nib.Nifti1Image, **header):
    image = kind(values, oblique() if affine is None else affine, dtype=values.dtype)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path


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


def write_dicom(
    folder, num_slices=5, uid=None, positions=None, names=None, orientation=None, description="", first=0, **tags
):
    """A DICOM series with one file a slice; slice k has the value k + its column. ``tags`` may be lists by slice."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = uid or generate_uid()
    frame = np.eye(3) if orientation is None else orientation
    for k in range(num_slices):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = MRImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid()
        data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3", uid
        data.Modality, data.PatientID, data.SeriesDate, data.SeriesDescription = "MR", "x", "20200101", description
        data.SeriesNumber, data.InstanceNumber = 1, k + 1
        data.Rows, data.Columns, data.PixelSpacing = 6, 7, [0.8, 0.9]
        data.SliceThickness = "3.5"
        place = (10, 20, 30) + 4.0 * k * frame[:, 2] if positions is None else positions[k]
        data.ImagePositionPatient = [f"{x:.9g}" for x in place]
        data.ImageOrientationPatient = [f"{x:.9g}" for x in (*frame[:, 0], *frame[:, 1])]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.PixelData = (np.arange(7, dtype=np.int16) + 100 * (k + first)).repeat(6).reshape(7, 6).T.tobytes()
        for tag, value in tags.items():
            value = value[k] if isinstance(value, list) else value
            if value is None:
                delattr(data, tag)
            else:
                setattr(data, tag, value)
        data.save_as(folder / f"{(names or range(100))[k]:03d}_{first}.dcm", enforce_file_format=True)
    return uid


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

    @pytest.mark.parametrize(
        "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"]
    )
    def test_types(self, tmp_path, dtype):
        values = voxels(dtype)
        volume = LoadVolume()(write_nifti(tmp_path / "scan.nii", values))
        assert volume.dtype == IN_MEMORY.get(dtype, getattr(torch, dtype))
        assert volume.meta["stored_dtype"] == dtype
        np.testing.assert_array_equal(volume.numpy()[0], values)

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
        content = bytearray(path.read_bytes())
        content[112:120] = np.array([0.5, -1024], "<f4").tobytes()  # scl_slope, scl_inter
        path.write_bytes(content)
        volume = LoadVolume()(path)
        assert volume.dtype == torch.float64
        np.testing.assert_array_equal(volume.numpy()[0], 0.5 * stored - 1024)

    @pytest.mark.parametrize("frames", [1, 4])
    @pytest.mark.parametrize(("unit", "seconds"), [("sec", 0.04), ("msec", 4e-5), ("unknown", 0.04)])
    def test_time_series(self, tmp_path, frames, unit, seconds):
        values = voxels(np.int16, (*SHAPE, frames))
        image = nib.Nifti1Image(values, oblique())
        image.header.set_xyzt_units("mm", unit)
        image.header["pixdim"][4] = 0.04
        nib.save(image, tmp_path / "cine.nii.gz")
        volume = LoadVolume()(tmp_path / "cine.nii.gz")
        assert volume.shape == (frames, *SHAPE)
        for frame in range(frames):
            np.testing.assert_array_equal(volume.numpy()[frame], values[..., frame])
        assert volume.meta["original_ndim"] == 4
        assert volume.meta["frame_spacing"] == pytest.approx(seconds, rel=1e-6)
        np.testing.assert_allclose(volume.affine, oblique(), rtol=0, atol=1e-4)

    @pytest.mark.parametrize(("unit", "scale"), [("mm", 1.0), ("micron", 1e-3), ("meter", 1e3), ("unknown", 1.0)])
    def test_units_of_length(self, tmp_path, unit, scale):
        image = nib.Nifti1Image(voxels(np.int16), oblique())
        image.header.set_xyzt_units(unit)
        nib.save(image, tmp_path / "scan.nii")
        volume = LoadVolume()(tmp_path / "scan.nii")
        np.testing.assert_allclose(volume.affine[:3], scale * oblique()[:3], rtol=1e-5)
        assert volume.affine[3].tolist() == [0, 0, 0, 1]

    def test_sform_stands_in_for_missing_pixdim(self, tmp_path):
        """The sform is a full description; a zero pixdim beside it is no fault."""
        path = write_nifti(tmp_path / "scan.nii", voxels(np.int16))
        content = bytearray(path.read_bytes())
        content[80:92] = bytes(12)
        content[252:254] = bytes(2)  # qform_code
        path.write_bytes(content)
        np.testing.assert_allclose(LoadVolume()(path).affine, oblique(), rtol=0, atol=1e-4)

    def test_sform_goes_before_pixdim(self, tmp_path):
        """Where the two contradict each other, the affine is the one nibabel and the standard take."""
        path = write_nifti(tmp_path / "scan.nii", voxels(np.int16))
        content = bytearray(path.read_bytes())
        content[80:92] = np.array([1, 1, 1], "<f4").tobytes()
        path.write_bytes(content)
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

    @pytest.mark.parametrize(
        "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"]
    )
    def test_types(self, tmp_path, dtype):
        values = voxels(dtype)
        write_itk(tmp_path / "scan.nrrd", values)
        volume = LoadVolume()(tmp_path / "scan.nrrd")
        assert volume.dtype == IN_MEMORY.get(dtype, getattr(torch, dtype))
        assert volume.meta["stored_dtype"] == dtype
        np.testing.assert_array_equal(volume.numpy()[0], values)

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
    def values(self, num_slices=5, first=0):
        index = np.arange(num_slices) + first
        return np.broadcast_to(np.arange(7)[:, None, None] + 100 * index, (7, 6, num_slices))

    @pytest.mark.parametrize("rotation", [None, (10, -25, 40), (90, 0, 0)])
    def test_series(self, tmp_path, rotation):
        """Slices are in order of position, whatever their names; the affine is SimpleITK's, in RAS."""
        frame = None if rotation is None else Rotation.from_euler("xyz", rotation, degrees=True).as_matrix()
        uid = write_dicom(tmp_path / "series", names=[3, 1, 4, 0, 2], orientation=frame)
        (tmp_path / "series" / "notes.txt").write_text("not DICOM")
        volume = LoadVolume()(tmp_path / "series")
        assert volume.shape == (1, 7, 6, 5) and volume.dtype == torch.int16
        np.testing.assert_array_equal(volume.numpy()[0], self.values())
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "series"), uid)
        np.testing.assert_allclose(volume.affine, itk_affine(sitk.ReadImage(names)), rtol=0, atol=1e-5)
        geometry = slice_geometry(volume)
        assert (geometry.axis, geometry.thickness) == (2, 3.5)  # thickness is not spacing
        assert geometry.slice_spacing == pytest.approx(4.0, abs=1e-5)
        assert geometry.in_plane_spacing == pytest.approx((0.9, 0.8))
        assert volume.meta["filename_or_obj"] == str(tmp_path / "series")
        assert volume.meta["original_ndim"] == 3

    def test_descending_positions(self, tmp_path):
        write_dicom(tmp_path / "s", positions=[(0, 0, -4.0 * k) for k in range(5)])
        volume = LoadVolume()(tmp_path / "s")
        for k in range(5):  # each slice lies where its file says
            index = int((volume[0, 0, 0] == 100 * k).nonzero())
            np.testing.assert_allclose(np.asarray(volume.affine) @ [0, 0, index, 1], [0, 0, -4 * k, 1], atol=1e-9)

    def test_tilted_gantry(self, tmp_path):
        """The stack is sheared: every slice lies where its file says, and spacing is measured along the normal."""
        write_dicom(tmp_path / "s", positions=[(1, 2 + 1.5 * k, 4.0 * k) for k in range(5)])
        volume = LoadVolume()(tmp_path / "s")
        for k in range(5):
            found = np.asarray(volume.affine) @ [0, 0, k, 1]
            np.testing.assert_allclose(found, [-1, -(2 + 1.5 * k), 4 * k, 1], atol=1e-9)
        assert slice_geometry(volume).slice_spacing == 4.0

    def test_slope(self, tmp_path):
        write_dicom(tmp_path / "s", RescaleSlope="2", RescaleIntercept="-1024")
        np.testing.assert_array_equal(LoadVolume()(tmp_path / "s").numpy()[0], 2 * self.values() - 1024)

    @pytest.mark.parametrize(
        "tags",
        [{"SliceThickness": ["4", "4", "4", "6", "6"]}, {"SeriesDate": ["20200101"] * 3 + ["20200102"] * 2}],
    )
    def test_no_slice_is_lost(self, tmp_path, tags):
        """All slices of the series are read, even where their tags differ."""
        write_dicom(tmp_path / "s", **tags)
        volume = LoadVolume()(tmp_path / "s")
        np.testing.assert_array_equal(volume.numpy()[0], self.values())
        assert slice_geometry(volume).slice_spacing == 4.0
        assert slice_geometry(volume).thickness == (None if "SliceThickness" in tags else 3.5)

    def test_nearly_even_positions(self, tmp_path):
        """Positions are rounded in files; that is no gap."""
        write_dicom(tmp_path / "s", positions=[(0, 0, z) for z in (0, 3.99, 8.01, 12, 16.02)])
        assert slice_geometry(LoadVolume()(tmp_path / "s")).slice_spacing == pytest.approx(4.005)

    def test_two_series(self, tmp_path):
        first = write_dicom(tmp_path / "s", description="T1 axial")
        second = write_dicom(tmp_path / "s", num_slices=3, first=5)
        message = check_error(tmp_path / "s", "expected a folder with one DICOM series, found 2")
        assert f"{first} (T1 axial, 5 files)" in message and f"{second} (no description, 3 files)" in message
        found = dicom_series(tmp_path / "s")
        assert found == {first: "T1 axial, 5 files", second: "no description, 3 files"}

    def test_missing_slice(self, tmp_path):
        """Every slice keeps its place, in units of the affine's step."""
        write_dicom(tmp_path / "s")
        (tmp_path / "s" / "002_0.dcm").unlink()
        with pytest.warns(UserWarning, match="s: the slices are 4 to 8 mm apart"):
            volume = LoadVolume()(tmp_path / "s")
        assert volume.shape == (1, 7, 6, 4) and slice_geometry(volume).slice_spacing == 4.0
        assert volume.meta["slice_positions"] == (0.0, 1.0, 3.0, 4.0) and volume.meta["slice_positions_axis"] == 2

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

    @pytest.mark.parametrize("modality", ["CT", "MR"])
    def test_multi_frame_file(self, tmp_path, modality):
        """One file holds the whole stack; the folder it is in means the same."""
        values = np.random.default_rng(0).integers(-1000, 1000, SHAPE)
        (path,) = write_series(tmp_path / "s", values, oblique(), modality=modality, thickness=6.0, multi_frame=True)
        for source in (path, path.parent):
            volume = LoadVolume()(source)
            assert volume.dtype == torch.int16 and volume.meta["stored_dtype"] == "int16"
            np.testing.assert_array_equal(volume.numpy()[0], values)
            np.testing.assert_allclose(volume.affine, oblique(), rtol=0, atol=1e-9)
            assert volume.meta["dicom_files"] == [str(path)] and slice_geometry(volume).thickness == 6.0
            assert volume.meta["filename_or_obj"] == str(source)

    def test_time_frames(self, tmp_path):
        write_dicom(tmp_path / "s", 6, positions=[(0, 0, 4.0 * (k // 2)) for k in range(6)])
        check_error(tmp_path / "s", "several images at one position")

    def test_localizer(self, tmp_path):
        uid = write_dicom(tmp_path / "s", 3)
        frame = Rotation.from_euler("x", 90, degrees=True).as_matrix()
        write_dicom(tmp_path / "s", 3, uid=uid, orientation=frame, first=3)
        check_error(tmp_path / "s", "not parallel")

    @pytest.mark.parametrize("tag", ["ImagePositionPatient", "PixelSpacing"])
    def test_no_geometry(self, tmp_path, tag):
        write_dicom(tmp_path / "s", **{tag: None})
        check_error(tmp_path / "s", "(0020,0032)", "(0028,0030)")

    @pytest.mark.parametrize("num_slices", [1])
    def test_single_slice(self, tmp_path, num_slices):
        write_dicom(tmp_path / "s", num_slices)
        check_error(tmp_path / "s", "has a single slice (7 x 6 x 1)")
        check_error(tmp_path / "s" / "000_0.dcm", "has a single slice")

    def test_damaged_slice(self, tmp_path):
        write_dicom(tmp_path / "s")
        path = tmp_path / "s" / "002_0.dcm"
        path.write_bytes(path.read_bytes()[:-40])
        check_error(tmp_path / "s")

    @pytest.mark.parametrize("names", [[], ["notes.txt"], ["below/x.dcm"]])
    def test_empty_folder(self, tmp_path, names, capfd):
        folder = tmp_path / "folder"
        folder.mkdir()
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("hello")
        check_error(folder, "expected a folder with one DICOM series, found 0: none")
        assert dicom_series(folder) == {}
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

    @pytest.mark.parametrize("kept", [5, 40, 0.5, 0.95])
    def test_truncated_gz(self, tmp_path, kept):
        path = write_nifti(tmp_path / "scan.nii.gz", voxels(np.float64))
        content = path.read_bytes()
        path.write_bytes(content[: kept if kept > 1 else int(kept * len(content))])
        check_error(path, "cannot be read as an image")

    @pytest.mark.parametrize("kept", [10, 348, 0.5, 0.95])
    def test_truncated(self, tmp_path, kept):
        path = write_nifti(tmp_path / "scan.nii", voxels(np.float64))
        content = path.read_bytes()
        path.write_bytes(content[: kept if kept > 1 else int(kept * len(content))])
        check_error(path, "cannot be read as an image")

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
        content = bytearray(path.read_bytes())
        content[80 + 4 * axis : 84 + 4 * axis] = bytes(4)
        content[252:256] = bytes(4)  # qform_code, sform_code
        path = tmp_path / f"bad{suffix}"
        path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
        check_error(path, "spacing is zero or missing")

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_zero_pixdim_with_sform(self, tmp_path, axis):
        """An sform that has the zero too."""
        path = write_nifti(tmp_path / "scan.nii", voxels(np.int16), np.diag([1.0, 2.0, 3.0, 1.0]))
        content = bytearray(path.read_bytes())
        content[80 + 4 * axis : 84 + 4 * axis] = bytes(4)
        start = 280 + 16 * axis + 4 * axis  # the sform's diagonal
        content[start : start + 4] = bytes(4)
        path.write_bytes(content)
        check_error(path, "spacing is zero or missing", "x 0 x" if axis == 1 else "0 x" if axis == 0 else "x 0 mm")

    def test_not_finite_affine(self, tmp_path):
        path = write_nifti(tmp_path / "scan.nii", voxels(np.int16), np.diag([1.0, 2.0, 3.0, 1.0]))
        content = bytearray(path.read_bytes())
        content[280:284] = np.array(np.nan, "<f4").tobytes()
        path.write_bytes(content)
        check_error(path, "NaN or infinite entries")

    @pytest.mark.parametrize("suffix", [".mha", ".mhd"])
    def test_no_element_spacing(self, tmp_path, suffix):
        path = tmp_path / f"scan{suffix}"
        write_itk(path, voxels(np.int16))
        LoadVolume()(path)
        lines = path.read_bytes().split(b"\n")
        path.write_bytes(b"\n".join(line for line in lines if not line.startswith(b"ElementSpacing")))
        check_error(path, "spacing is zero or missing in the header")

    @pytest.mark.parametrize("suffix", [".nrrd", ".nhdr"])
    def test_no_space_directions(self, tmp_path, suffix):
        path = tmp_path / f"scan{suffix}"
        write_itk(path, voxels(np.int16))
        lines = path.read_bytes().split(b"\n")
        kept = [line for line in lines if not line.startswith((b"space", b"kinds"))]
        path.write_bytes(b"\n".join(kept))
        check_error(path, "spacing is zero or missing in the header")

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


class TestDictionary:
    def test_keys(self, tmp_path):
        path = write_nifti(tmp_path / "a.nii", voxels(np.int16))
        write_itk(tmp_path / "b.mha", voxels(np.uint8))
        data = {"image": str(path), "label": tmp_path / "b.mha", "other": 3}
        loaded = LoadVolumed(["image", "label"])(data)
        assert loaded["image"].dtype == torch.int16 and loaded["label"].dtype == torch.uint8 and loaded["other"] == 3
        assert data["image"] == str(path)

    def test_missing_keys(self, tmp_path):
        path = write_nifti(tmp_path / "a.nii", voxels(np.int16))
        assert LoadVolumed(["image", "label"], allow_missing_keys=True)({"image": path})["image"].shape == (1, *SHAPE)
        with pytest.raises(KeyError, match="label"):
            LoadVolumed(["image", "label"])({"image": path})

    def test_aliases(self):
        for name in ("LoadVolume", "SaveVolume", "RestoreVolume"):
            dictionary = getattr(transforms, f"{name}d")
            assert getattr(transforms, f"{name}D") is dictionary and getattr(transforms, f"{name}Dict") is dictionary


def without_spacing(path, values=None):
    """A file whose header tells no spacing."""
    values = voxels(np.int16) if values is None else values
    if path.name.endswith((".nii", ".nii.gz")):
        plain = path.with_name("plain.nii")
        write_nifti(plain, values, np.diag([1.0, 2.0, 3.0, 1.0]))
        content = bytearray(plain.read_bytes())
        content[80:92] = bytes(12)
        content[252:256] = bytes(4)  # qform_code, sform_code
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
        path = without_spacing(tmp_path / "scan.nii")
        content = bytearray(path.read_bytes())
        content[123] = code
        path.write_bytes(content)
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


def scans():
    """The first file of every folder of real scans."""
    root = os.environ.get("SLICEINTERP_DATA")
    folders = sorted(path for path in Path(root).iterdir() if path.is_dir()) if root else []
    return [file for folder in folders for file in sorted(folder.glob("*.nii.gz"))[:1]]


@pytest.mark.skipif(not os.environ.get("SLICEINTERP_DATA"), reason="SLICEINTERP_DATA names no folder of scans")
def test_real_scans():
    files = scans()
    assert files
    for file in files:
        volume, image = LoadVolume()(file), nib.load(file)
        values = np.asarray(image.dataobj)
        values = np.moveaxis(values, 3, 0) if values.ndim == 4 else values[None]
        np.testing.assert_array_equal(volume.numpy(), values)
        np.testing.assert_array_equal(volume.affine, image.affine)
        assert volume.meta["stored_dtype"] == str(values.dtype)
