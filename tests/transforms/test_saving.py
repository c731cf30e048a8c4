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

import os
import stat
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CopyItemsd

from monai_sliceinterp.files import file_stem
from monai_sliceinterp.geometry import slice_geometry
from monai_sliceinterp.inferers import LatentSliceInferer, MultiViewSliceInferer, SplineSliceInferer
from monai_sliceinterp.networks.nets import SAINT, ASIAutoencoder
from monai_sliceinterp.transforms import (
    DisagreementMapd,
    InvertibleScaleIntensityRanged,
    InvertibleScaleIntensityRangePercentilesd,
    LoadVolume,
    LoadVolumed,
    RestoreVolumed,
    SaveVolumed,
    ThroughPlaneLastd,
    cast_to,
    save_nifti,
)
from tests.transforms.scans import full_range, oblique, real_scans, write_nifti


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
        """The largest int64 is no floating-point number; nothing may turn negative for it."""
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


def test_file_stem(tmp_path, monkeypatch):
    for suffix in (".nii", ".NII.GZ", ".mha", ".mhd", ".nrrd", ".nhdr", ".dcm"):
        assert file_stem(f"/x/y{suffix}") == "y"
    assert file_stem("folder.v2") == "folder.v2" and file_stem("x/folder/") == "folder"
    assert file_stem(Path("x.nii.gz.nii")) == "x.nii.gz"
    (tmp_path / "patient" / "series").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "patient" / "series")
    assert file_stem(".") == "series" and file_stem("..") == "patient"


class TestSaveNifti:
    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    def test_header(self, tmp_path, suffix):
        image, path = make_image(), tmp_path / f"a{suffix}"
        save_nifti(image, path)
        saved = nib.load(path)
        np.testing.assert_array_equal(np.asarray(saved.dataobj), image.numpy()[0])
        header = saved.header
        assert header.get_xyzt_units() == ("mm", "sec") and header.get_data_dtype() == np.int16
        assert int(header["qform_code"]) == int(header["sform_code"]) == 1
        np.testing.assert_allclose(saved.get_sform(), oblique(), rtol=0, atol=1e-4)
        np.testing.assert_allclose(saved.get_qform(), oblique(), rtol=0, atol=1e-4)
        np.testing.assert_allclose(header.get_zooms(), (0.7, 0.9, 4.0), rtol=1e-6)
        assert np.isnan(header["scl_slope"]) or header["scl_slope"] in (0, 1)
        assert (path.read_bytes()[:2] == b"\x1f\x8b") == (suffix == ".nii.gz")
        other = sitk.ReadImage(str(path))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(other).T, image.numpy()[0])
        place = (oblique() @ [3, 2, 1, 1])[:3] * (-1, -1, 1)
        np.testing.assert_allclose(other.TransformIndexToPhysicalPoint((3, 2, 1)), place, rtol=0, atol=1e-3)

    def test_sheared_affine(self, tmp_path):
        """The sform holds what the qform cannot."""
        image = make_image()
        image.affine[:3, 2] += image.affine[:3, 1] * 2
        save_nifti(image, tmp_path / "a.nii")
        np.testing.assert_allclose(nib.load(tmp_path / "a.nii").affine, image.affine, rtol=0, atol=1e-4)

    @pytest.mark.parametrize(
        ("values", "meta", "expected"),
        [
            # few programs read 64-bit integers
            ([0, 2**31 - 1, -(2**31)], {}, "int32"),
            ([0, 2**31], {}, "float64"),
            ([0, -(2**31) - 1], {}, "float64"),
            ([-(2**63), 5], {}, "float64"),
            ([2**53, -(2**53)], {}, "float64"),
            # torch computes with few unsigned types; what does not fit is not bent
            ([0, 2**16 - 1], {"stored_dtype": "uint16"}, "uint16"),
            ([0, 2**32 - 1], {"stored_dtype": "uint32"}, "uint32"),
            ([-1, 2**16 - 1], {"stored_dtype": "uint16"}, "int32"),
            ([-1, 2**32 - 1], {"stored_dtype": "uint32"}, "float64"),
        ],
    )
    def test_int64(self, tmp_path, values, meta, expected):
        volume = torch.zeros(1, 3, 3, 3, dtype=torch.int64)
        volume.view(-1)[: len(values)] = torch.tensor(values)
        save_nifti(MetaTensor(volume, affine=torch.eye(4), meta=meta), tmp_path / "a.nii")
        saved = nib.load(tmp_path / "a.nii")
        assert saved.get_data_dtype() == expected
        np.testing.assert_array_equal(np.asarray(saved.dataobj).astype(np.int64), volume.numpy()[0])

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
    def test_replaces_and_leaves_nothing_else(self, tmp_path, mask):
        """The permissions follow the umask, which is left as it was."""
        (tmp_path / "a.nii").write_text("old")
        before = os.umask(mask)
        try:
            save_nifti(make_image(), tmp_path / "a.nii")
            assert os.umask(mask) == mask
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "a.nii").stat().st_mode) == 0o666 & ~mask
        assert os.listdir(tmp_path) == ["a.nii"] and nib.load(tmp_path / "a.nii").shape == (5, 6, 4)

    @pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
    @pytest.mark.parametrize("existing", [True, False])
    def test_failure(self, tmp_path, monkeypatch, error, existing):
        path, names = tmp_path / "a.nii.gz", []
        if existing:
            path.write_text("old")

        def fail(image, part):
            names.append(Path(part).name)
            Path(part).write_bytes(b"half")
            raise error

        monkeypatch.setattr(nib, "save", fail)
        with pytest.raises(type(error)):
            save_nifti(make_image(), path)
        assert {file.name: file.read_text() for file in tmp_path.iterdir()} == ({path.name: "old"} if existing else {})
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
        with pytest.raises(KeyError, match="other"):
            SaveVolumed(["pred", "other"], tmp_path / "c", ["a", "b"])({"pred": make_image()})
        images = {"pred": make_image(), "label": make_image()}
        saved = SaveVolumed(["pred", "label"], str(tmp_path), ["interp", "label"])(images)
        for key, name in (("pred", "scan_interp.nii.gz"), ("label", "scan_label.nii.gz")):
            assert saved[key].meta["saved_to"] == str(tmp_path / name)

    @pytest.mark.parametrize("postfix", ["interp", ["interp", "interp"], ["a", "b", "c"]])
    def test_a_name_for_each_key(self, tmp_path, postfix):
        with pytest.raises(ValueError, match="expected one for each|must have length 2"):
            SaveVolumed(["pred", "label"], tmp_path, postfix)

    def test_overwrite(self, tmp_path):
        """Nothing is replaced unless that is asked for, and a check writes nothing."""
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
        SaveVolumed("pred", tmp_path / "out").check("somewhere/scan.nii")
        assert path.read_text() == "old" and os.listdir(tmp_path) == [path.name]
        save = SaveVolumed("pred", tmp_path, overwrite=True)
        save.check("somewhere/scan.nii")
        save({"pred": make_image()})
        np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), make_image().numpy()[0])

    @pytest.mark.parametrize("link", [os.symlink, os.link])
    @pytest.mark.parametrize("overwrite", [True, False])
    def test_input_is_never_replaced(self, tmp_path, link, overwrite):
        source, path = tmp_path / "scan.nii.gz", tmp_path / "scan_interp.nii.gz"
        source.write_text("input")
        link(source, path)
        save, image = SaveVolumed("pred", tmp_path, overwrite=overwrite), make_image(filename_or_obj=str(source))
        for action, argument in ((save.check, source), (save, {"pred": image})):
            with pytest.raises(ValueError) as caught:
                action(argument)
            assert str(caught.value) == f"{path}: is the input itself; expected another output_dir."
        assert source.read_text() == path.read_text() == "input"
        path.unlink()
        path.symlink_to(tmp_path / "gone")  # a broken link in the way
        with pytest.raises(ValueError, match="exists already"):
            SaveVolumed("pred", tmp_path)({"pred": image})

    @pytest.mark.parametrize(("ndim", "shape"), [(3, (5, 6, 4)), (4, (5, 6, 4, 1))])
    def test_single_frame(self, tmp_path, ndim, shape):
        SaveVolumed("pred", tmp_path)({"pred": make_image(original_ndim=ndim)})
        assert nib.load(tmp_path / "scan_interp.nii.gz").shape == shape


def chain(source, output_dir, inferer, network=None, axis=None):
    """The way of a volume through a bundle; returns the written image."""
    preprocessing = Compose(
        [
            LoadVolumed("image"),
            CopyItemsd("image", names="original"),
            ThroughPlaneLastd("image", axis=axis),
            InvertibleScaleIntensityRangePercentilesd("image", lower=1, upper=99),
        ]
    )
    post = Compose([RestoreVolumed("pred", preprocessing), SaveVolumed("pred", output_dir, overwrite=True)])
    data = preprocessing({"image": str(source)})
    observed, affine = data["original"].as_tensor().clone(), data["original"].affine.clone()
    data["pred"] = inferer(data["image"][None], network)[0]
    result = post(data)
    assert torch.equal(data["original"].as_tensor(), observed) and torch.equal(data["original"].affine, affine)
    assert result["pred"].dtype == observed.dtype
    return nib.load(result["pred"].meta["saved_to"])


def thick(axis, step=4.0):
    """Affine and shape of a scan whose slices are stacked along an axis."""
    spacing, shape = np.array([0.7, 0.9, 0.8]), np.array([7, 8, 6])
    spacing[axis], shape[axis] = step, 4
    return oblique(spacing), tuple(shape)


def asi():
    torch.manual_seed(0)
    return ASIAutoencoder(channels=(2,), latent_channels=3).eval()


class TestChain:
    @pytest.mark.parametrize("frames", [0, 1, 3])
    @pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_observed_slices_are_bit_exact(self, tmp_path, axis, dtype, frames):
        affine, shape = thick(axis)
        values = full_range(dtype, (*shape, *([frames] if frames else [])))
        write_nifti(tmp_path / "scan.nii.gz", values, affine, frame_spacing=0.04 if frames else None)
        for inferer, network, factor in (
            (SplineSliceInferer(factor=3), None, 3),
            (LatentSliceInferer(spacing=2.0, value_range=(0, 1)), asi(), 2),
        ):
            saved = chain(tmp_path / "scan.nii.gz", tmp_path / "out", inferer, network)
            assert saved.shape == (*shape[:axis], 3 * factor + 1, *values.shape[axis + 1 :])
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

    @pytest.mark.parametrize("axis", [0, 1, 2])
    @pytest.mark.parametrize(("how", "step"), [({"factor": 4}, 1.25), ({"spacing": 1.3}, 1.3), ({}, None)])
    def test_physical_positions(self, tmp_path, axis, how, step):
        """A linear function of the position in mm is one after interpolation, at the places the new affine tells."""
        affine, shape = thick(axis, 5.0)

        def ramp(shape, affine):
            index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
            return (index @ affine[:3, :3].T + affine[:3, 3]) @ [3.0, -5.0, 7.0]

        write_nifti(tmp_path / "scan.nii", ramp(shape, affine), affine)
        saved = chain(tmp_path / "scan.nii", tmp_path / "out", SplineSliceInferer(**how, mode="linear"))
        assert saved.shape[axis] > 10
        np.testing.assert_allclose(saved.get_fdata(), ramp(saved.shape, saved.affine), rtol=0, atol=2e-2)
        assert np.delete(saved.shape, axis).tolist() == np.delete(shape, axis).tolist()
        step = step or np.delete([0.7, 0.9, 0.8], axis).min()  # isotropic
        assert slice_geometry(saved.affine, axis=axis).slice_spacing == pytest.approx(step, rel=1e-5)

    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32"])
    def test_overshoot_is_limited_to_the_stored_type(self, tmp_path, dtype):
        """Cubic interpolation overshoots at both ends of the range; nothing wraps around."""
        limits = np.iinfo(dtype)
        values = np.full((4, 5, 8), limits.min, dtype)
        values[..., [1, 2, 5, 6]] = limits.max
        write_nifti(tmp_path / "scan.nii", values, np.diag([1, 1, 4, 1.0]))
        saved = chain(tmp_path / "scan.nii", tmp_path / "out", SplineSliceInferer(factor=2))
        assert saved.get_data_dtype() == dtype
        found = np.asarray(saved.dataobj)
        assert (found[..., 3] == limits.max).all()  # between two of the highest: more than that
        middle = found[..., 7].astype(np.float64)
        assert (middle < limits.min + 0.2 * (limits.max - float(limits.min))).all()

    def test_without_observed_slices(self, tmp_path):
        values = full_range("int16", (6, 7, 4))
        write_nifti(tmp_path / "scan.nii", values, np.diag([1, 1, 4, 1.0]))
        inferer = LatentSliceInferer(factor=2, keep_observed=False)
        saved = chain(tmp_path / "scan.nii", tmp_path / "out", inferer, asi())
        assert saved.shape == (6, 7, 7)
        assert (np.asarray(saved.dataobj)[..., ::2] != values).mean() > 0.9

    @pytest.mark.parametrize("axis", [0, 1])
    def test_axis_that_the_user_gave(self, tmp_path, axis):
        values = full_range("int16", (5, 6, 7))
        write_nifti(tmp_path / "scan.nii", values, np.eye(4))
        saved = chain(tmp_path / "scan.nii", tmp_path / "out", SplineSliceInferer(factor=2), axis=axis)
        np.testing.assert_array_equal(np.asarray(saved.dataobj).take(range(0, 2 * (5 + axis) - 1, 2), axis), values)

    @pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
    def test_other_formats(self, tmp_path, suffix):
        """What comes in as another format goes out as NIfTI, at the same places."""
        values = full_range("uint16", (6, 7, 4))
        image = sitk.GetImageFromArray(values.T)
        image.SetSpacing((0.7, 0.8, 4.0))
        image.SetOrigin((5, 6, 7))
        sitk.WriteImage(image, str(tmp_path / f"scan{suffix}"))
        saved = chain(tmp_path / f"scan{suffix}", tmp_path / "out", SplineSliceInferer(factor=2))
        assert saved.get_data_dtype() == np.uint16 and saved.shape == (6, 7, 7)
        np.testing.assert_array_equal(np.asarray(saved.dataobj)[..., ::2], values)
        place = image.TransformContinuousIndexToPhysicalPoint((2, 3, 1.5)) * np.array([-1, -1, 1])
        np.testing.assert_allclose((saved.affine @ [2, 3, 3, 1])[:3], place, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("file", real_scans(os.path.getsize), ids=lambda file: file.name)
    def test_real_scan(self, tmp_path, file):
        """It keeps its type, orientation and observed slices."""
        source, axis = nib.load(file), slice_geometry(LoadVolume()(file)).axis
        saved = chain(file, tmp_path, SplineSliceInferer(factor=2, mode="linear"))
        assert saved.get_data_dtype() == np.asarray(source.dataobj).dtype
        assert nib.aff2axcodes(saved.affine) == nib.aff2axcodes(source.affine)
        found, values = (np.moveaxis(np.asarray(image.dataobj), axis, 0) for image in (saved, source))
        np.testing.assert_array_equal(found[::2], values)


def saint(num_views=2):
    torch.manual_seed(0)
    size = {"channels": 4, "num_blocks": 1, "num_layers": 2, "growth": 4}
    return SAINT(ami=size, rfn=size, num_views=num_views).eval()


def each_view(image, network, **how):
    """What every view of the network makes of a frame, in HU without the window's offset."""
    inferers = [MultiViewSliceInferer(**how, fuse=False, views=(view,)) for view in network.directions]
    return [4000 * inferer(image[None], network)[0, 0].numpy() for inferer in inferers]


class TestDisagreement:
    WINDOW = (-1024.0, 2976.0)

    def run(self, source, output_dir, network, **settings):
        """The way of a volume through the bundle; returns the written images, and what was interpolated."""
        scale = InvertibleScaleIntensityRanged("image", *self.WINDOW)
        preprocessing = Compose(
            [LoadVolumed("image"), CopyItemsd("image", names="original"), ThroughPlaneLastd("image"), scale]
        )
        data = preprocessing({"image": str(source)})
        data["pred"] = MultiViewSliceInferer(disagreement=True, **settings)(data["image"][None], network)[0]
        before = data["pred"].as_tensor().clone()
        mapped = DisagreementMapd("pred", preprocessing)(data)
        assert torch.equal(mapped["pred"].as_tensor(), before) and "disagreement" not in data
        save = SaveVolumed(["pred", "disagreement"], output_dir, ["interp", "disagreement"])
        save(RestoreVolumed("pred", preprocessing)(mapped))
        names = [f"scan_{postfix}.nii.gz" for postfix in ("disagreement", "interp")]
        assert sorted(os.listdir(output_dir)) == names
        return *(nib.load(output_dir / name) for name in names), data["image"]

    @pytest.mark.parametrize(
        ("axis", "dtype", "frames"),
        [(0, "int16", 0), (1, "int16", 0), (2, "int16", 0), (0, "uint8", 3), (1, "float32", 1), (2, "float64", 3)],
    )
    @pytest.mark.parametrize("views", [2, 4])
    def test_standard_deviation_of_the_views(self, tmp_path, axis, dtype, frames, views):
        """In HU, without the window's offset, in the axis order of the input, at the places of the output."""
        affine, shape = thick(axis)
        shape = (*shape, frames) if frames else shape
        values = np.random.default_rng(0).integers(*((0, 200) if dtype == "uint8" else (-900, 2000)), shape)
        source, network = tmp_path / "scan.nii.gz", saint(views)
        write_nifti(source, values.astype(dtype), affine, frame_spacing=0.04 if frames else None)
        doubt, pred, image = self.run(source, tmp_path / "out", network, factor=3)
        assert pred.get_data_dtype() == dtype and doubt.get_data_dtype() == np.float32
        assert doubt.shape == pred.shape == (*shape[:axis], 10, *shape[axis + 1 :])
        np.testing.assert_array_equal(doubt.affine, pred.affine)
        volumes = np.moveaxis(np.asarray(doubt.dataobj).reshape(*pred.shape[:3], -1), (3, axis), (0, -1))
        for found, frame in zip(volumes, image, strict=True):
            each = each_view(frame[None], network, factor=3)
            np.testing.assert_allclose(found, np.std(each, axis=0), rtol=0, atol=2e-3)
            if views == 2:
                np.testing.assert_allclose(found, np.abs(each[0] - each[1]) / 2, rtol=0, atol=2e-3)
            assert (found[..., ::3] == 0).all() and (found >= 0).all()
            assert (np.delete(found, np.s_[::3], axis=-1) > 0).mean() > 0.99

    def test_interpolated_volume_is_the_same(self, tmp_path):
        """With and without the map, and with intensities far outside the window."""
        values = np.random.default_rng(0).integers(-3000, 4000, (6, 7, 4)).astype(np.int16)
        how = {"factor": 2, "value_range": (0.0, 1.0)}
        source = write_nifti(tmp_path / "scan.nii", values, oblique())
        doubt, pred, image = self.run(source, tmp_path / "out", saint(), **how)
        without = MultiViewSliceInferer(**how)(image[None], saint())[0, 0].numpy()
        np.testing.assert_allclose(np.asarray(pred.dataobj), without * 4000 - 1024, rtol=0, atol=0.51)
        np.testing.assert_array_equal(np.asarray(pred.dataobj)[..., ::2], values)
        # the views see the window: what lies outside is interpolated linearly and no cause to disagree
        write_nifti(source, values.clip(-1024, 2976), oblique())
        clipped, _, _ = self.run(source, tmp_path / "clipped", saint(), **how)
        np.testing.assert_array_equal(np.asarray(doubt.dataobj), np.asarray(clipped.dataobj))

    def test_names(self):
        preprocessing = Compose([InvertibleScaleIntensityRanged("scan", *self.WINDOW)])
        data = preprocessing({"scan": make_image()})
        data["thin"] = MultiViewSliceInferer(factor=2, disagreement=True)(data["scan"][None], saint())[0]
        result = DisagreementMapd("thin", preprocessing, image_key="scan", map_key="doubt")(data)
        assert set(result) == {"scan", "thin", "doubt"} and result["doubt"].shape == (1, 5, 6, 7)
        assert torch.equal(result["doubt"].affine, result["thin"].affine)
        assert result["doubt"].meta["filename_or_obj"] == "in/scan.nii.gz"
        assert "disagreement" in DisagreementMapd(["thin", "no"], preprocessing, "scan", allow_missing_keys=True)(data)
        with pytest.raises(KeyError, match="no"):
            DisagreementMapd(["thin", "no"], preprocessing, "scan")(data)
        text = "carries no disagreement of the views; expected disagreement=True"
        with pytest.raises(ValueError, match=text) as caught:
            DisagreementMapd("scan", preprocessing, "scan")(data)
        assert "\n" not in str(caught.value)
