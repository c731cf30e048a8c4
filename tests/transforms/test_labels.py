# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor
from monai.transforms import CopyItemsd

from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.transforms import LoadVolumed, SaveVolumed
from monai_sliceinterp.transforms.label_interpolation import interpolate_labels
from monai_sliceinterp.transforms.labels import InterpolateLabeld, LoadLabeld
from tests.volumes import interpolate, preprocess


def discs(*radii, size, dtype=np.uint8, spacing=(1.0, 1.0)):
    """A disc in the middle of every slice; ``spacing`` makes it a circle in mm."""
    y, x = np.mgrid[:size, :size] - size // 2
    return np.stack([np.hypot(y * spacing[0], x * spacing[1]) <= radius for radius in radii], -1).astype(dtype)


AFFINE = np.array([[-0.8, 0, 0.1, 30], [0, 0.9, 0.2, -20], [0.05, 0, 4.0, 7], [0, 0, 0, 1.0]])
SHAPE = (9, 8, 3)
LABEL = np.ones(SHAPE, np.uint8)
HALF = np.where(np.arange(216).reshape(SHAPE) == 58, 0.5, 1.0)
AWAY = "mm away from {scan}; expected the same grid."


def write(path, array, affine=AFFINE):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def scan(path, shape=SHAPE, affine=AFFINE):
    return write(path, np.random.default_rng(0).integers(0, 900, shape).astype(np.int16), affine)


def pipeline(source, label, output_dir, factor=2, axis=None):
    """The way of a volume and its label through a bundle."""
    preprocessing = preprocess(axis=axis, original=[LoadLabeld("original", label)])
    save = SaveVolumed(["pred", "segmentation"], output_dir, ["interp", "interp_label"])
    steps = (InterpolateLabeld("segmentation"), save)
    return interpolate(source, SplineSliceInferer(factor=factor), *steps, preprocessing=preprocessing)


class TestPipeline:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
    @pytest.mark.parametrize("frames", [0, 2])
    def test_label_beside_the_output(self, tmp_path, axis, dtype, frames):
        columns = [0, 1]
        columns.insert(axis, 2)
        affine = AFFINE[:, [*columns, 3]]
        values = np.moveaxis(discs(3, 8, 5, 5, size=21, dtype=dtype)[:19] * 5, -1, axis)
        scan(tmp_path / "scan.nii.gz", (*values.shape, *([frames] if frames else [])), affine)
        write(tmp_path / "seg.nii", values, affine)
        result = pipeline(tmp_path / "scan.nii.gz", tmp_path / "seg.nii", tmp_path / "out", factor=3)
        names = sorted(path.name for path in (tmp_path / "out").iterdir())
        assert names == ["scan_interp.nii.gz", "scan_interp_label.nii.gz"]
        image, label = (nib.load(result[key].meta["saved_to"]) for key in ("pred", "segmentation"))
        assert label.shape == image.shape[:3] and label.shape[axis] == 10
        assert label.get_data_dtype() == dtype
        np.testing.assert_array_equal(label.affine, image.affine)
        found, observed = (np.moveaxis(array, axis, -1) for array in (np.asarray(label.dataobj), values))
        np.testing.assert_array_equal(found[..., ::3], observed)
        spacing = np.linalg.norm(AFFINE[:3, :2], axis=0)
        expected = interpolate_labels(observed.astype(np.int64), OutputGrid.from_factor(4, 3), tuple(spacing))
        np.testing.assert_array_equal(found, expected)
        assert set(np.unique(found)) == {0, 5}

    def test_chosen_axis(self, tmp_path):
        """Slices need not be stacked along the axis with the largest spacing."""
        affine = np.diag([3.0, 1.0, 2.0, 1.0])
        values = discs(8, 18, size=61, spacing=(3.0, 1.0))
        source = scan(tmp_path / "scan.nii", values.shape, affine)
        result = pipeline(source, write(tmp_path / "seg.nii", values, affine), tmp_path / "out", axis=2)
        expected = interpolate_labels(values, OutputGrid.from_factor(2, 2), (3.0, 1.0))
        np.testing.assert_array_equal(result["segmentation"].numpy()[0], expected)

    def test_folder_of_labels(self, tmp_path):
        labels = tmp_path / "labels"
        labels.mkdir()
        for k, name in enumerate("ab"):
            scan(tmp_path / f"{name}.nii.gz")
            write(labels / f"{name}.nii{'.gz' * k}", LABEL * (k + 1))
            write(labels / f"{name}_other.nii.gz", LABEL * 9)
        for k, name in enumerate("ab"):
            result = pipeline(tmp_path / f"{name}.nii.gz", str(labels), tmp_path / "out")
            saved = tmp_path / "out" / f"{name}_interp_label.nii.gz"
            assert result["segmentation"].meta["saved_to"] == str(saved)
            assert (np.asarray(nib.load(saved).dataobj) == k + 1).all()


class TestLoadLabel:
    @pytest.fixture
    def data(self, tmp_path):
        image = LoadVolumed("image")({"image": str(scan(tmp_path / "scan.nii.gz"))})
        return CopyItemsd("image", names="original")(image)

    def refusal(self, data, label):
        with pytest.raises(ValueError) as caught:
            LoadLabeld("original", label)(data)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    @pytest.mark.parametrize(
        ("array", "change", "message"),
        [
            (np.ones((9, 8, 4), np.uint8), np.eye(4), "is 9 x 8 x 4 voxels large; expected 9 x 8 x 3 as {scan}."),
            (np.ones((*SHAPE, 2), np.uint8), np.eye(4), "has 2 frames; expected a label of one."),
            (HALF, np.eye(4), "has voxels that are not whole numbers; expected labels."),
            (LABEL, np.diag([1, 1, 1.01, 1]), f"lies 0.0801 {AWAY}"),
            (LABEL, np.diag([-1.0, 1, 1, 1]), f"lies 6.41 {AWAY}"),
            (LABEL, np.eye(4) + 0.06 * np.outer(*np.eye(4)[[0, 3]]), f"lies 0.0481 {AWAY}"),
        ],
    )
    def test_unfit(self, tmp_path, data, array, change, message):
        path = write(tmp_path / "seg.nii", array, AFFINE @ change)
        assert self.refusal(data, path) == f"{path}: " + message.format(scan=tmp_path / "scan.nii.gz")

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
    @pytest.mark.parametrize("flips", [(), (0,), (1, 2), (0, 1, 2)])
    def test_axes_that_run_another_way(self, tmp_path, data, order, flips):
        """The same voxels as another converter writes them."""
        label = np.random.default_rng(0).integers(0, 5, SHAPE).astype(np.uint8)
        matrix = np.eye(4)
        for axis in flips:
            matrix[axis, axis], matrix[axis, 3] = -1, SHAPE[axis] - 1
        affine = (AFFINE @ matrix)[:, [*order, 3]]
        path = write(tmp_path / "seg.nii", np.flip(label, flips).transpose(order), affine)
        result = LoadLabeld("original", path)(data)
        np.testing.assert_array_equal(result["segmentation"].numpy()[0], label)
        np.testing.assert_allclose(result["segmentation"].affine, result["original"].affine, atol=1e-5)

    @pytest.mark.parametrize("off", [3e-10, 9e-4])
    def test_rounded(self, tmp_path, data, off):
        """Values that get_fdata() of a scaled label leaves."""
        label = np.random.default_rng(0).integers(0, 5, SHAPE)
        path = write(tmp_path / "seg.nii", label - off * (label == 3))
        with pytest.warns(UserWarning, match=r"seg.nii: values up to .* off a whole number are rounded"):
            result = LoadLabeld("original", path)(data)["segmentation"]
        assert result.meta["stored_dtype"] == "uint8"
        np.testing.assert_array_equal(result.numpy()[0], label)

    @pytest.mark.parametrize(
        ("names", "found"), [(["other.nii.gz"], "none"), (["scan.nii", "scan.nii.gz"], "scan.nii, scan.nii.gz")]
    )
    def test_not_one_for_the_scan(self, tmp_path, data, names, found):
        (tmp_path / "labels").mkdir()
        for name in names:
            write(tmp_path / "labels" / name, LABEL)
        message = self.refusal(data, tmp_path / "labels")
        expected = f"{tmp_path / 'scan.nii.gz'}: expected one label {tmp_path / 'labels' / 'scan'}.nii.gz"
        assert message.startswith(expected) and message.endswith(f"found {found}.")

    def test_unreadable(self, tmp_path, data):
        path = tmp_path / "seg.nii"
        assert self.refusal(data, path) == f"{path}: no such file or folder."
        path.write_text("text")
        assert self.refusal(data, path).startswith(f"{path}: cannot be read")

    def test_keys(self, tmp_path, data):
        near = AFFINE.copy()
        near[0, 3] += 0.039  # less than a twentieth of a voxel is a matter of how headers are written
        path = write(tmp_path / "seg.nii", LABEL, near)
        result = LoadLabeld("image", path, label_key="organ")(data)
        assert set(result) == {"image", "original", "organ"} and set(data) == {"image", "original"}
        assert result["organ"].meta["filename_or_obj"] == str(tmp_path / "scan.nii.gz")
        assert set(LoadLabeld(["no", "image"], path, allow_missing_keys=True)(data)) == {*data, "segmentation"}
        with pytest.raises(KeyError, match="no"):
            LoadLabeld("no", path)(data)
        result["thin"] = SplineSliceInferer(factor=2)(data["image"][None].float())[0]
        thin = InterpolateLabeld(["organ", "no"], "thin", allow_missing_keys=True)(result)["organ"]
        assert isinstance(thin, MetaTensor) and thin.shape == (1, 9, 8, 5) and result["organ"].shape == (1, *SHAPE)
        with pytest.raises(KeyError, match="no"):
            InterpolateLabeld(["organ", "no"], "thin")(result)
        with pytest.raises(ValueError, match="scan.nii.gz: has no 'num_source_slices' in its metadata"):
            InterpolateLabeld("organ", "image")(result)
