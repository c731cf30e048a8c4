# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

import os
import stat
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor

from monai_sliceinterp.files import file_stem
from monai_sliceinterp.geometry import slice_geometry
from monai_sliceinterp.inferers import LatentSliceInferer, SplineSliceInferer
from monai_sliceinterp.networks.nets import ASIAutoencoder
from monai_sliceinterp.transforms import LoadVolume, SaveVolumed, cast_to, save_nifti
from tests.transforms.volumes import real_scans
from tests.volumes import interpolate, oblique, whole_range, write_nifti

TYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]


def make_image(shape=(1, 5, 6, 4), dtype=torch.int16, **meta):
    values = torch.randint(-100, 100, shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return MetaTensor(values, affine=torch.tensor(oblique()), meta={"filename_or_obj": "in/scan.nii.gz", **meta})


class TestCast:
    @pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.uint16, torch.uint32])
    @pytest.mark.parametrize("source", [torch.float32, torch.float64])
    def test_limits(self, dtype, source):
        limits = torch.iinfo(dtype)
        values = torch.tensor([-1e30, 1e30, limits.min, limits.max, float("-inf"), float("inf"), 7], dtype=source)
        expected = [limits.min, limits.max, limits.min, limits.max, limits.min, limits.max, 7]
        found = cast_to(values, dtype)
        assert found.dtype == dtype and found.numpy().tolist() == expected

    @pytest.mark.parametrize("source", [torch.float32, torch.float64])
    def test_int64_limits(self, source):
        """The largest int64 is not a floating-point number; nothing may turn negative for it."""
        low, high, past = cast_to(torch.tensor([-1e30, 1e30, 2.0**63], dtype=source), torch.int64).tolist()
        assert low == -(2**63) and high == past and 0.999 * 2**63 < high < 2**63

    @pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64, torch.uint8])
    def test_rounding(self, dtype):
        values = torch.tensor([0.49, 0.51, 1.5, 2.5, 3.4999, 100.0])
        assert cast_to(values, dtype).tolist() == [0, 1, 2, 2, 3, 100]
        if dtype != torch.uint8:
            assert cast_to(-values, dtype).tolist() == [0, -1, -2, -2, -3, -100]

    @pytest.mark.parametrize(
        ("dtype", "values"),
        [
            (torch.int32, [2**31 - 1, -(2**31), 2**31 - 200, 16777217, 123456789]),
            (torch.int64, [2**53, -(2**53), 2**40 + 1]),
        ],
    )
    def test_integers_of_float64_stay_exact(self, dtype, values):
        assert cast_to(torch.tensor(values, dtype=torch.float64), dtype).tolist() == values

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
    def test_floating_point(self, dtype):
        values = torch.tensor([-1.25, 0.3, 1e4])
        assert torch.equal(cast_to(values, dtype), values.to(dtype))


class TestFileStem:
    @pytest.mark.parametrize(
        ("path", "stem"),
        [
            ("scans/a.b.nii.gz", "a.b"),
            ("a.NII.GZ", "a"),
            ("a.nii", "a"),
            ("/x/y.mha", "y"),
            ("y.mhd", "y"),
            ("y.nrrd", "y"),
            ("y.nhdr", "y"),
            ("y.dcm", "y"),
            ("folder.v2", "folder.v2"),
            ("x/folder/", "folder"),
            (Path("x.nii.gz.nii"), "x.nii.gz"),
        ],
    )
    def test_names(self, path, stem):
        assert file_stem(path) == stem

    def test_here_and_above(self, tmp_path, monkeypatch):
        (tmp_path / "patient" / "series").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "patient" / "series")
        assert file_stem(".") == "series" and file_stem("..") == "patient"


class TestSaveNifti:
    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    def test_header(self, tmp_path, suffix):
        image = make_image()
        save_nifti(image, tmp_path / f"a{suffix}")
        saved = nib.load(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(np.asarray(saved.dataobj), image.numpy()[0])
        header = saved.header
        assert header.get_xyzt_units() == ("mm", "sec")
        assert int(header["qform_code"]) == int(header["sform_code"]) == 1
        np.testing.assert_allclose(saved.get_sform(), oblique(), rtol=0, atol=1e-4)
        np.testing.assert_allclose(saved.get_qform(), oblique(), rtol=0, atol=1e-4)
        np.testing.assert_allclose(header.get_zooms(), (0.7, 0.9, 4.0), rtol=1e-6)
        assert header.get_data_dtype() == np.int16
        assert np.isnan(header["scl_slope"]) or header["scl_slope"] in (0, 1)
        assert ((tmp_path / f"a{suffix}").read_bytes()[:2] == b"\x1f\x8b") == (suffix == ".nii.gz")
        image.affine[:3, 2] += image.affine[:3, 1] * 2  # a shear, which the sform holds and the qform cannot
        save_nifti(image, tmp_path / f"a{suffix}")
        np.testing.assert_allclose(nib.load(tmp_path / f"a{suffix}").affine, image.affine, rtol=0, atol=1e-4)

    def test_other_readers_agree(self, tmp_path):
        image = make_image()
        save_nifti(image, tmp_path / "a.nii.gz")
        read = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read).T, image.numpy()[0])
        place = np.asarray(image.affine) @ [3, 2, 1, 1]
        found = read.TransformIndexToPhysicalPoint((3, 2, 1))
        np.testing.assert_allclose(found, place[:3] * (-1, -1, 1), rtol=0, atol=1e-3)

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([0, 2**31 - 1, -(2**31)], "int32"),
            ([0, 2**31], "float64"),
            ([0, -(2**31) - 1], "float64"),
            ([-(2**63), 5], "float64"),
            ([2**53, -(2**53)], "float64"),
        ],
    )
    def test_int64(self, tmp_path, values, expected):
        """Few programs read 64-bit integers."""
        volume = torch.zeros(1, 3, 3, 3, dtype=torch.int64)
        volume.view(-1)[: len(values)] = torch.tensor(values)
        save_nifti(MetaTensor(volume, affine=torch.eye(4)), tmp_path / "a.nii")
        saved = nib.load(tmp_path / "a.nii")
        assert saved.get_data_dtype() == expected
        np.testing.assert_array_equal(np.asarray(saved.dataobj).astype(np.int64), volume.numpy()[0])

    @pytest.mark.parametrize(("stored", "memory"), [("uint16", torch.int32), ("uint32", torch.int64)])
    def test_unsigned_types_come_back(self, tmp_path, stored, memory):
        image = make_image(dtype=memory, stored_dtype=stored).abs()
        image[0, 0, 0, 0] = np.iinfo(stored).max
        save_nifti(image, tmp_path / "a.nii")
        saved = nib.load(tmp_path / "a.nii")
        assert saved.get_data_dtype() == stored
        np.testing.assert_array_equal(np.asarray(saved.dataobj), image.numpy()[0])
        # what does not fit is not bent
        image[0, 0, 0, 1] = -1
        save_nifti(image, tmp_path / "b.nii")
        assert np.asarray(nib.load(tmp_path / "b.nii").dataobj)[0, 0, 1] == -1

    @pytest.mark.parametrize(("channels", "ndim", "shape"), [(1, 3, 3), (1, 4, 4), (3, 3, 4), (3, 4, 4)])
    def test_frames(self, tmp_path, channels, ndim, shape):
        image = make_image((channels, 5, 6, 4), frame_spacing=0.035)
        save_nifti(image, tmp_path / "a.nii.gz", ndim=ndim)
        saved = nib.load(tmp_path / "a.nii.gz")
        assert saved.ndim == shape
        values = np.asarray(saved.dataobj).reshape(5, 6, 4, channels)
        np.testing.assert_array_equal(np.moveaxis(values, 3, 0), image.numpy())
        if shape == 4:
            assert saved.header["pixdim"][4] == np.float32(0.035)
        np.testing.assert_allclose(saved.affine, oblique(), rtol=0, atol=1e-4)

    @pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
    def test_permissions_follow_the_umask(self, tmp_path, mask):
        before = os.umask(mask)
        try:
            save_nifti(make_image(), tmp_path / "a.nii")
            assert os.umask(mask) == mask  # and is left as it was
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "a.nii").stat().st_mode) == 0o666 & ~mask

    def test_replaces_and_leaves_nothing_else(self, tmp_path):
        (tmp_path / "a.nii.gz").write_text("old")
        save_nifti(make_image(), tmp_path / "a.nii.gz")
        assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]
        assert nib.load(tmp_path / "a.nii.gz").shape == (5, 6, 4)

    @pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
    @pytest.mark.parametrize("existing", [True, False])
    def test_failure(self, tmp_path, monkeypatch, error, existing):
        if existing:
            (tmp_path / "a.nii.gz").write_text("old")
        names = []

        def fail(image, stream):
            names.extend(path.name for path in tmp_path.iterdir() if path.name != "a.nii.gz")
            stream.write(b"half")
            raise error

        monkeypatch.setattr(nib.Nifti1Image, "to_stream", fail)
        with pytest.raises(type(error)):
            save_nifti(make_image(), tmp_path / "a.nii.gz")
        assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"] * existing
        if existing:
            assert (tmp_path / "a.nii.gz").read_text() == "old"
        assert names[0].startswith(".a.part-") and names[0].endswith(".nii.gz")  # hidden while it is written

    def test_no_folder(self, tmp_path):
        with pytest.raises(OSError):
            save_nifti(make_image(), tmp_path / "no" / "a.nii")


class TestSaveVolumed:
    def test_name_and_folder(self, tmp_path):
        save = SaveVolumed(["other", "pred"], tmp_path / "a" / "b", ["thick", "thin"], allow_missing_keys=True)
        saved = save({"pred": make_image(), "image": 3})
        path = tmp_path / "a" / "b" / "scan_thin.nii.gz"
        assert saved["pred"].meta["saved_to"] == str(path) and path.is_file() and saved["image"] == 3
        saved = SaveVolumed("pred", str(tmp_path))({"pred": make_image()})
        assert saved["pred"].meta["saved_to"] == str(tmp_path / "scan_interp.nii.gz")
        with pytest.raises(KeyError, match="other"):
            SaveVolumed(["pred", "other"], tmp_path, ["a", "b"])({"pred": make_image()})

    def test_a_name_for_each_key(self, tmp_path):
        data = {"pred": make_image(), "label": make_image()}
        saved = SaveVolumed(["pred", "label"], tmp_path, ["interp", "label"])(data)
        names = [Path(saved[key].meta["saved_to"]).name for key in ("pred", "label")]
        assert names == ["scan_interp.nii.gz", "scan_label.nii.gz"]
        for postfix in ("interp", ["interp", "interp"]):
            with pytest.raises(ValueError, match="expected one for each"):
                SaveVolumed(["pred", "label"], tmp_path, postfix)
        with pytest.raises(ValueError):
            SaveVolumed(["pred", "label"], tmp_path, ["a", "b", "c"])

    def test_overwrite(self, tmp_path):
        """Nothing is replaced unless that is asked for."""
        path = tmp_path / "scan_interp.nii.gz"
        path.write_text("old")
        refusal = f"{path}: exists already; expected another output_dir, or --overwrite true."
        for save in (SaveVolumed("pred", tmp_path), SaveVolumed(["new", "pred"], tmp_path, ["new", "interp"])):
            with pytest.raises(ValueError) as caught:
                save.check("somewhere/scan.mha")
            assert str(caught.value) == refusal
            save.check("somewhere/other.mha")
        with pytest.raises(ValueError) as caught:
            SaveVolumed("pred", tmp_path)({"pred": make_image()})
        assert str(caught.value) == refusal
        assert path.read_text() == "old" and [file.name for file in tmp_path.iterdir()] == [path.name]
        save = SaveVolumed("pred", tmp_path, overwrite=True)
        save.check("somewhere/scan.nii")
        save({"pred": make_image()})
        np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), make_image().numpy()[0])

    def test_long_name(self, tmp_path):
        """As long as names may be, beside temporary ones, and one byte longer: an umlaut has two."""
        save = SaveVolumed("pred", tmp_path)
        longest = 255 - len("_interp.nii.gz")
        save({"pred": make_image(filename_or_obj=f"{'a' * longest}.mha")})
        name = f"ä{'a' * (longest - 1)}"
        with pytest.raises(ValueError) as caught:
            save.check(f"{name}.mha")
        told = "is a name of more than 255 bytes; expected a shorter input name."
        assert str(caught.value) == f"{name}_interp.nii.gz: {told}" and len(list(tmp_path.iterdir())) == 1

    def test_check_writes_nothing(self, tmp_path):
        SaveVolumed("pred", tmp_path / "out").check(tmp_path / "scan.nii")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("link", [os.symlink, os.link])
    @pytest.mark.parametrize("overwrite", [True, False])
    def test_input_is_never_replaced(self, tmp_path, link, overwrite):
        source, path = tmp_path / "scan.nii.gz", tmp_path / "scan_interp.nii.gz"
        source.write_text("input")
        link(source, path)
        save = SaveVolumed("pred", tmp_path, overwrite=overwrite)
        for action in (lambda: save.check(source), lambda: save({"pred": make_image(filename_or_obj=str(source))})):
            with pytest.raises(ValueError) as caught:
                action()
            assert str(caught.value) == f"{path}: is the input itself; expected another output_dir."
        assert source.read_text() == path.read_text() == "input"

    def test_broken_link_in_the_way(self, tmp_path):
        (tmp_path / "scan_interp.nii.gz").symlink_to(tmp_path / "gone")
        source = tmp_path / "scan.nii.gz"
        source.write_text("input")
        with pytest.raises(ValueError, match="exists already"):
            SaveVolumed("pred", tmp_path)({"pred": make_image(filename_or_obj=str(source))})

    @pytest.mark.parametrize(("ndim", "shape"), [(3, (5, 6, 4)), (4, (5, 6, 4, 1))])
    def test_single_frame(self, tmp_path, ndim, shape):
        SaveVolumed("pred", tmp_path)({"pred": make_image(original_ndim=ndim)})
        assert nib.load(tmp_path / "scan_interp.nii.gz").shape == shape


def chain(source, output_dir, inferer, network=None, axis=None):
    """The way of a volume through a bundle; returns the written image."""
    save = SaveVolumed("pred", output_dir, overwrite=True)
    return nib.load(interpolate(source, inferer, save, network=network, axis=axis)["pred"].meta["saved_to"])


def asi():
    torch.manual_seed(0)
    return ASIAutoencoder(channels=(2,), latent_channels=3).eval()


class TestChain:
    @pytest.mark.parametrize("frames", [0, 1, 3])
    @pytest.mark.parametrize("dtype", TYPES)
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_observed_slices_are_bit_exact(self, tmp_path, axis, dtype, frames):
        spacing, shape = np.array([0.7, 0.9, 0.8]), np.array([7, 8, 6])
        spacing[axis], shape[axis] = 4.0, 4
        values = whole_range(dtype, (*shape, *([frames] if frames else [])))
        affine = oblique(spacing)
        write_nifti(tmp_path / "scan.nii.gz", values, affine, frame_spacing=0.04 if frames else None)
        for how, network in (({"factor": 3}, None), ({"spacing": 2.0}, asi())):
            inferer = SplineSliceInferer(**how) if network is None else LatentSliceInferer(**how, value_range=(0, 1))
            saved = chain(tmp_path / "scan.nii.gz", tmp_path / "out", inferer, network)
            factor = how.get("factor", 2)
            expected = list(values.shape)
            expected[axis] = 3 * factor + 1
            assert list(saved.shape) == expected
            assert saved.get_data_dtype() == dtype
            found = np.moveaxis(np.asarray(saved.dataobj), axis, 0)
            np.testing.assert_array_equal(found[::factor], np.moveaxis(values, axis, 0))
            # every slice lies where it should, the axes stay in their order
            for index in (0, 1, 3 * factor):
                voxel, source = np.array([2.0, 3, 1, 1]), np.array([2.0, 3, 1, 1])
                voxel[axis], source[axis] = index, index / factor
                np.testing.assert_allclose(saved.affine @ voxel, affine @ source, rtol=0, atol=1e-3)
            if frames:
                assert saved.header["pixdim"][4] == np.float32(0.04)

    @pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
    def test_other_formats(self, tmp_path, suffix):
        """What comes in as another format goes out as NIfTI, at the same places."""
        values = whole_range("uint16", (6, 7, 4))
        image = sitk.GetImageFromArray(values.T)
        image.SetSpacing((0.7, 0.8, 4.0))
        image.SetOrigin((5, 6, 7))
        sitk.WriteImage(image, str(tmp_path / f"scan{suffix}"))
        saved = chain(tmp_path / f"scan{suffix}", tmp_path / "out", SplineSliceInferer(factor=2))
        assert saved.get_data_dtype() == np.uint16 and saved.shape == (6, 7, 7)
        np.testing.assert_array_equal(np.asarray(saved.dataobj)[..., ::2], values)
        place = image.TransformContinuousIndexToPhysicalPoint((2, 3, 1.5)) * np.array([-1, -1, 1])
        np.testing.assert_allclose((saved.affine @ [2, 3, 3, 1])[:3], place, rtol=0, atol=1e-4)


@pytest.mark.parametrize("file", real_scans(), ids=lambda file: file.name)
def test_real_scans(tmp_path, file):
    """They keep their type, orientation and observed slices."""
    source = nib.load(file)
    axis = slice_geometry(LoadVolume()(file)).axis
    saved = chain(file, tmp_path, SplineSliceInferer(factor=2, mode="linear"))
    assert saved.get_data_dtype() == np.asarray(source.dataobj).dtype
    assert nib.aff2axcodes(saved.affine) == nib.aff2axcodes(source.affine)
    found, values = (np.moveaxis(np.asarray(image.dataobj), axis, 0) for image in (saved, source))
    np.testing.assert_array_equal(found[::2], values)
