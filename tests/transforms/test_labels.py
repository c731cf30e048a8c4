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

import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose, CopyItemsd

from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.transforms import (
    InvertibleScaleIntensityRangePercentilesd,
    LoadVolumed,
    RestoreVolumed,
    SaveVolumed,
    ThroughPlaneLastd,
)
from monai_sliceinterp.transforms.label_interpolation import interpolate_labels
from monai_sliceinterp.transforms.labels import InterpolateLabeld, LoadLabeld


def discs(*radii, size, dtype=np.uint8, spacing=(1.0, 1.0)):
    """A disc in the middle of every slice; ``spacing`` makes it a circle in mm."""
    y, x = np.mgrid[:size, :size] - size // 2
    return np.stack([np.hypot(y * spacing[0], x * spacing[1]) <= radius for radius in radii], -1).astype(dtype)


AFFINE = np.array([[-0.8, 0, 0.1, 30], [0, 0.9, 0.2, -20], [0.05, 0, 4.0, 7], [0, 0, 0, 1.0]])


def write(path, array, affine=AFFINE):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def scan(path, shape, affine=AFFINE):
    return write(path, np.random.default_rng(0).integers(0, 900, shape).astype(np.int16), affine)


def pipeline(source, label, output_dir, factor=2, axis=None):
    """The way of a volume and its label through a bundle."""
    inferer = SplineSliceInferer(factor=factor)
    preprocessing = Compose(
        [
            LoadVolumed("image"),
            CopyItemsd("image", names="observed"),
            LoadLabeld("observed", label),
            ThroughPlaneLastd("image", axis=axis),
            InvertibleScaleIntensityRangePercentilesd("image"),
        ]
    )
    post = Compose(
        [
            RestoreVolumed("pred", preprocessing, inferer),
            InterpolateLabeld("segmentation", inferer),
            SaveVolumed(["pred", "segmentation"], output_dir, ["interp", "interp_label"]),
        ]
    )
    data = list_data_collate([preprocessing({"image": str(source)})])  # as an engine does
    data["pred"] = inferer(data["image"])
    return post(decollate_batch(data)[0])


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
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
            "scan_interp.nii.gz",
            "scan_interp_label.nii.gz",
        ]
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
        scan(tmp_path / "scan.nii", values.shape, affine)
        write(tmp_path / "seg.nii", values, affine)
        result = pipeline(tmp_path / "scan.nii", tmp_path / "seg.nii", tmp_path / "out", axis=2)
        found = result["segmentation"].numpy()[0]
        np.testing.assert_array_equal(found, interpolate_labels(values, OutputGrid.from_factor(2, 2), (3.0, 1.0)))

    def test_folder_of_labels(self, tmp_path):
        labels = tmp_path / "labels"
        labels.mkdir()
        for k, name in enumerate("ab"):
            scan(tmp_path / f"{name}.nii.gz", (9, 8, 3))
            write(labels / f"{name}.nii{'.gz' * k}", np.full((9, 8, 3), k + 1, np.uint8))
            write(labels / f"{name}_other.nii.gz", np.full((9, 8, 3), 9, np.uint8))
        for k, name in enumerate("ab"):
            result = pipeline(tmp_path / f"{name}.nii.gz", str(labels), tmp_path / "out")
            saved = tmp_path / "out" / f"{name}_interp_label.nii.gz"
            assert result["segmentation"].meta["saved_to"] == str(saved)
            assert (np.asarray(nib.load(saved).dataobj) == k + 1).all()


def loaded(path):
    return CopyItemsd("image", names="observed")(LoadVolumed("image")({"image": str(path)}))


class TestLoadLabel:
    def refusal(self, tmp_path, label):
        source = tmp_path / "scan.nii.gz"
        if not source.exists():
            scan(source, (9, 8, 3))
        with pytest.raises(ValueError) as caught:
            LoadLabeld("observed", label)(loaded(source))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_missing(self, tmp_path):
        assert self.refusal(tmp_path, tmp_path / "no.nii") == f"{tmp_path / 'no.nii'}: no such file or folder."

    def test_none_for_the_scan(self, tmp_path):
        (tmp_path / "labels").mkdir()
        write(tmp_path / "labels" / "other.nii.gz", np.ones((9, 8, 3), np.uint8))
        message = self.refusal(tmp_path, tmp_path / "labels")
        assert message.startswith(
            f"{tmp_path / 'scan.nii.gz'}: expected one label {tmp_path / 'labels' / 'scan'}.nii.gz"
        )
        assert message.endswith("found none.")

    def test_two_for_the_scan(self, tmp_path):
        (tmp_path / "labels").mkdir()
        for suffix in (".nii", ".nii.gz"):
            write(tmp_path / "labels" / f"scan{suffix}", np.ones((9, 8, 3), np.uint8))
        assert self.refusal(tmp_path, tmp_path / "labels").endswith("found scan.nii, scan.nii.gz.")

    def test_shape(self, tmp_path):
        path = write(tmp_path / "seg.nii", np.ones((9, 8, 4), np.uint8))
        expected = f"{path}: is 9 x 8 x 4 voxels large; expected 9 x 8 x 3 as {tmp_path / 'scan.nii.gz'}."
        assert self.refusal(tmp_path, path) == expected

    def test_four_dimensions(self, tmp_path):
        for frames in (1, 2):
            path = write(tmp_path / "seg.nii", np.ones((9, 8, 3, frames), np.uint8))
            assert self.refusal(tmp_path, path) == f"{path}: has 4 dimensions; expected a label of 3."

    @pytest.mark.parametrize(
        ("change", "distance"),
        [
            (np.diag([1, 1, 1.01, 1]), "0.0801"),
            (np.diag([-1.0, 1, 1, 1]), "12.8"),
            (np.array([[1, 0, 0, 0.06], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "0.0481"),
        ],
    )
    def test_affine(self, tmp_path, change, distance):
        path = write(tmp_path / "seg.nii", np.ones((9, 8, 3), np.uint8), AFFINE @ change)
        expected = f"{path}: lies {distance} mm away from {tmp_path / 'scan.nii.gz'}; expected the same affine."
        assert self.refusal(tmp_path, path) == expected

    def test_rounded_affine(self, tmp_path):
        """Less than a twentieth of a voxel is a matter of how headers are written."""
        source = scan(tmp_path / "scan.nii.gz", (9, 8, 3))
        near = AFFINE.copy()
        near[0, 3] += 0.039
        path = write(tmp_path / "seg.nii", np.ones((9, 8, 3), np.uint8), near)
        assert LoadLabeld("observed", path)(loaded(source))["segmentation"].shape == (1, 9, 8, 3)

    def test_fractions(self, tmp_path):
        values = np.ones((9, 8, 3), np.float32)
        values[1, 2, 2] = 0.5
        path = write(tmp_path / "seg.nii", values)
        assert self.refusal(tmp_path, path) == f"{path}: has voxels that are not whole numbers; expected labels."

    def test_not_an_image(self, tmp_path):
        (tmp_path / "seg.nii").write_text("text")
        assert self.refusal(tmp_path, tmp_path / "seg.nii").startswith(f"{tmp_path / 'seg.nii'}: cannot be read")

    def test_keys(self, tmp_path):
        source = scan(tmp_path / "scan.nii.gz", (9, 8, 3))
        path = write(tmp_path / "seg.nii", np.ones((9, 8, 3), np.uint8))
        data = loaded(source)
        result = LoadLabeld("image", path, label_key="organ")(data)
        assert set(result) == {"image", "observed", "organ"} and set(data) == {"image", "observed"}
        assert result["organ"].meta["filename_or_obj"] == str(source)
        assert set(LoadLabeld(["no", "image"], path, allow_missing_keys=True)(data)) == {*data, "segmentation"}
        with pytest.raises(KeyError, match="no"):
            LoadLabeld("no", path)(data)
        inferer = SplineSliceInferer(factor=2)
        thin = InterpolateLabeld(["organ", "no"], inferer, allow_missing_keys=True)(result)["organ"]
        assert isinstance(thin, MetaTensor) and thin.shape == (1, 9, 8, 5) and result["organ"].shape == (1, 9, 8, 3)
        with pytest.raises(KeyError, match="no"):
            InterpolateLabeld(["organ", "no"], inferer)(result)
