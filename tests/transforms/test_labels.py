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

import time

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose, CopyItemsd
from scipy.spatial.distance import cdist

from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.transforms import (
    InvertibleScaleIntensityRangePercentilesd,
    LoadVolumed,
    RestoreVolumed,
    SaveVolumed,
    ThroughPlaneLastd,
)
from monai_sliceinterp.transforms.labels import InterpolateLabeld, LoadLabeld, interpolate_labels

MM = (1.0, 1.0)


def discs(*radii, size=49, centers=None, dtype=np.uint8, spacing=MM):
    """A disc in every slice; ``spacing`` makes it a circle in mm."""
    y, x = np.mgrid[:size, :size]
    middle = size // 2
    slices = []
    for k, radius in enumerate(radii):
        a, b = centers[k] if centers else (middle, middle)
        slices.append(np.hypot((y - a) * spacing[0], (x - b) * spacing[1]) <= radius)
    return np.stack(slices, -1).astype(dtype)


def blobs(seed, count=5, slices=2, shape=(30, 36)):
    """Regions of random smooth shape that touch each other, some of them background."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    centers = rng.uniform(0, min(shape), (count, 2))
    result = []
    for _ in range(slices):
        centers = centers + rng.normal(0, 3, centers.shape)
        distances = [np.hypot(y - a, x - b) for a, b in centers]
        result.append(np.argmin(distances, 0))
    return np.stack(result, -1).astype(np.uint8)


def brute_force(first, second, alpha, spacing):
    """Mixed signed distances of one label that overlaps in both slices, by all pairs of pixels."""
    places = np.argwhere(np.ones(first.shape)) * spacing
    maps = []
    for shape in (first, second):
        flat = shape.ravel().astype(bool)
        far = cdist(places, places)
        inside = far[:, ~flat].min(1) - min(spacing) / 2
        outside = min(spacing) / 2 - far[:, flat].min(1)
        maps.append(np.where(flat, inside, outside).reshape(first.shape))
    return (1 - alpha) * maps[0] + alpha * maps[1]


class TestShapes:
    @pytest.mark.parametrize(("alpha", "index"), [(0.25, 1), (0.5, 2), (0.75, 3)])
    def test_concentric_discs(self, alpha, index):
        """The disc between those of radius 10 and 20 has a radius in between, to a pixel."""
        found = interpolate_labels(discs(10, 20), OutputGrid.from_factor(2, 4), MM)[..., index]
        radius = 10 + 10 * alpha
        distance = np.hypot(*(np.mgrid[:49, :49] - 24))
        assert found[distance <= radius - 0.75].all() and not found[distance >= radius + 0.75].any()
        assert np.sqrt(found.sum() / np.pi) == pytest.approx(radius, abs=0.2)

    @pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 1.0), (1.0, 2.5)])
    @pytest.mark.parametrize("alpha", [0.2, 0.5, 0.9])
    @pytest.mark.parametrize("radii", [(5, 8), (0, 8)])
    def test_definition(self, spacing, alpha, radii):
        """Against distances between all pixels; a single pixel is enough for an overlap."""
        labels = discs(*radii, size=20, centers=[(8, 12), (11, 9)])
        grid = OutputGrid(2, 0.5, (0.0, alpha, 1.0))
        found = interpolate_labels(labels, grid, spacing)[..., 1]
        mixed = brute_force(labels[..., 0], labels[..., 1], alpha, spacing)
        clear = abs(mixed) > 1e-9
        np.testing.assert_array_equal(found[clear], (mixed > 0)[clear])
        assert 0 < found.sum() < found.size or (radii[0] == 0 and alpha == 0.2)

    def test_anisotropic_pixels(self):
        """A circle in mm stays one; with the spacings exchanged it would not."""
        spacing = (2.0, 1.0)
        labels = discs(8, 18, size=61, spacing=spacing)
        found = interpolate_labels(labels, OutputGrid.from_factor(2, 2), spacing)[..., 1]
        assert found.any(1).sum() == pytest.approx(26 / 2, abs=1.1)
        assert found.any(0).sum() == pytest.approx(26, abs=1.1)

    def test_moving_edge(self):
        """Half of a slice, from edge to edge: its border moves evenly and stays straight."""
        labels = np.zeros((12, 40, 2), np.int16)
        labels[:, :10, 0] = labels[:, :30, 1] = 7
        found = interpolate_labels(labels, OutputGrid.from_factor(2, 4), MM)
        for index, width in enumerate((10, 15, 20, 25, 30)):
            assert (found[..., index] == 7).all(0).sum() == pytest.approx(width, abs=0.5)
            assert set(found[..., index].sum(0).tolist()) <= {0, 84}

    def test_many_slices(self):
        """Every gap has its own two slices."""
        radii = (5, 12, 12, 3, 9)
        found = interpolate_labels(discs(*radii), OutputGrid.from_factor(5, 2), MM)
        sizes = np.sqrt(found.sum((0, 1)) / np.pi)
        np.testing.assert_allclose(sizes[1::2], np.convolve(radii, [0.5, 0.5], "valid"), atol=0.35)

    def test_holes_are_shapes_too(self):
        labels = discs(20, 20) - discs(4, 10)
        found = interpolate_labels(labels, OutputGrid.from_factor(2, 2), MM)[..., 1]
        assert np.sqrt((discs(20)[..., 0] - found).sum() / np.pi) == pytest.approx(7, abs=0.3)


class TestSlices:
    @pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64])
    def test_types(self, dtype):
        labels = discs(6, 9, dtype=dtype) * np.iinfo(dtype).max
        found = interpolate_labels(labels, OutputGrid.from_factor(2, 3), MM)
        assert found.dtype == dtype and set(np.unique(found)) == {0, np.iinfo(dtype).max}

    def test_negative_labels(self):
        found = interpolate_labels(-discs(6, 9, dtype=np.int16), OutputGrid.from_factor(2, 2), MM)
        np.testing.assert_array_equal(-found, interpolate_labels(discs(6, 9), OutputGrid.from_factor(2, 2), MM))

    def test_tensors(self):
        labels = blobs(3, slices=3)
        grid = OutputGrid.from_factor(3, 3)
        found = interpolate_labels(torch.tensor(labels, dtype=torch.int32), grid, MM)
        assert found.dtype == torch.int32
        np.testing.assert_array_equal(found.numpy(), interpolate_labels(labels, grid, MM))

    @pytest.mark.parametrize("grid", [OutputGrid.from_factor(4, 3), OutputGrid.from_spacing(4, 5.0, 2.0)])
    def test_observed_slices(self, grid):
        labels = np.random.default_rng(0).integers(-9, 9, (7, 8, 4)).astype(np.int16)
        before = labels.copy()
        found = interpolate_labels(labels, grid, MM)
        np.testing.assert_array_equal(found[..., grid.is_observed.numpy()], labels[..., grid.observed_source.numpy()])
        np.testing.assert_array_equal(labels, before)
        assert found.shape == (7, 8, len(grid))

    @pytest.mark.parametrize("value", [0, 3])
    def test_constant(self, value):
        found = interpolate_labels(np.full((6, 5, 3), value, np.uint8), OutputGrid.from_factor(3, 4), MM)
        assert found.shape == (6, 5, 9) and (found == value).all()

    def test_unchanged_slices(self):
        labels = np.repeat(blobs(1, slices=1), 2, axis=2)
        found = interpolate_labels(labels, OutputGrid.from_factor(2, 3), MM)
        assert (found == labels[..., :1]).all()

    @pytest.mark.parametrize("seed", range(6))
    @pytest.mark.parametrize("factor", [3, 7, 8])
    def test_swapped_slices(self, seed, factor):
        """Also where rounding would settle a tie."""
        squares = np.zeros((30, 30, 6), np.uint8)
        squares[3:13, 3:13, 2:4] = 1
        squares[15:25, 15:25, :3] = squares[12:28, 15:25, 3:] = 2
        for labels, spacing in ((blobs(seed), (0.7, 1.1)), (blobs(seed), MM), (squares, MM)):
            grid = OutputGrid.from_factor(labels.shape[-1], factor)
            found = interpolate_labels(labels, grid, spacing)
            np.testing.assert_array_equal(interpolate_labels(labels[..., ::-1], grid, spacing)[..., ::-1], found)

    @pytest.mark.parametrize("seed", range(6))
    def test_turned_slices(self, seed):
        labels = blobs(seed)
        grid = OutputGrid.from_factor(2, 4)
        found = interpolate_labels(labels, grid, (0.7, 1.1))
        np.testing.assert_array_equal(
            interpolate_labels(labels.transpose(1, 0, 2), grid, (1.1, 0.7)), found.transpose(1, 0, 2)
        )
        np.testing.assert_array_equal(interpolate_labels(labels[::-1], grid, (0.7, 1.1)), found[::-1])

    def test_uneven_stack(self):
        """Only the positions count, however they came about."""
        labels = discs(4, 14, 6)
        grid = OutputGrid.from_factor(3, 2, slice_positions=(0.0, 1.0, 3.0))
        assert grid.positions == (0.0, 0.5, 1.0, 1.25, 1.5, 1.75, 2.0)
        sizes = np.sqrt(interpolate_labels(labels, grid, MM).sum((0, 1)) / np.pi)
        np.testing.assert_allclose(sizes, [4, 9, 14, 12, 10, 8, 6], atol=0.4)

    def test_factor_one(self):
        labels = blobs(0, slices=3)
        np.testing.assert_array_equal(interpolate_labels(labels, OutputGrid.from_factor(3, 1), MM), labels)


class TestSeveralLabels:
    @pytest.mark.parametrize("seed", range(8))
    def test_no_new_labels_and_no_flicker(self, seed):
        """A pixel has a label of its own two slices, or background; what it has left does not come back."""
        labels = blobs(seed, count=7)
        found = interpolate_labels(labels, OutputGrid.from_factor(2, 16), MM)
        first, second = labels[..., :1], labels[..., 1:]
        assert ((found == first) | (found == second) | (found == 0)).all()
        runs = 1 + (np.diff(found.astype(int), axis=-1) != 0).sum(-1)
        different = np.array([len(np.unique(pixel)) for pixel in found.reshape(-1, 17)]).reshape(runs.shape)
        np.testing.assert_array_equal(runs, different)
        assert runs.max() >= 2

    @pytest.mark.parametrize("seed", range(8))
    def test_no_holes(self, seed):
        """What is covered in both slices is covered between them, whichever labels meet there."""
        labels = blobs(seed, count=9) + 1
        assert interpolate_labels(labels, OutputGrid.from_factor(2, 8), MM).all()
        labels = np.where(discs(12, 14, size=36)[:30] == 1, labels, 0)
        found = interpolate_labels(labels, OutputGrid.from_factor(2, 8), MM)
        assert found[(labels != 0).all(-1)].all()

    def test_three_that_meet(self):
        """The plain rule leaves this pixel to the background, as no mixed distance is positive."""
        labels = np.zeros((24, 24, 2), np.uint8)
        labels[:, :8, 0], labels[:, 8:16, 0], labels[:, 16:, 0] = 1, 2, 3
        labels[:, :8, 1], labels[:, 8:16, 1], labels[:, 16:, 1] = 3, 1, 2
        assert interpolate_labels(labels, OutputGrid.from_factor(2, 2), MM)[..., 1].all()

    def test_no_notch_between_labels(self):
        """The outer border of two labels that touch moves as that of one, also where they take turns."""
        labels = np.zeros((40, 40, 2), np.uint8)
        labels[:20, :10, 0], labels[20:, :10, 0] = 1, 2
        labels[:8, :30, 1], labels[8:, :30, 1] = 1, 2
        found = interpolate_labels(labels, OutputGrid.from_factor(2, 2), MM)[..., 1]
        np.testing.assert_array_equal((found != 0).sum(1), 20)

    def test_labels_that_take_turns(self):
        """Between them the border moves evenly."""
        labels = np.ones((10, 40, 2), np.uint8)
        labels[:, 10:, 0] = labels[:, 30:, 1] = 2
        found = interpolate_labels(labels, OutputGrid.from_factor(2, 4), MM)
        np.testing.assert_allclose((found == 1).all(0).sum(0), (10, 15, 20, 25, 30), atol=1)
        assert ((found == 1) | (found == 2)).all()

    def test_a_label_does_not_mind_the_others(self):
        """Far from other labels it is what it would be alone."""
        alone = discs(4, 10, size=60, centers=[(14, 14), (16, 15)])
        others = discs(6, 3, size=60, centers=[(45, 45), (44, 47)])
        grid = OutputGrid.from_factor(2, 5)
        found = interpolate_labels(alone + 2 * others, grid, MM)
        np.testing.assert_array_equal(found == 1, interpolate_labels(alone, grid, MM) == 1)
        np.testing.assert_array_equal(found == 2, interpolate_labels(others, grid, MM) == 1)


class TestVanishing:
    @pytest.mark.parametrize("swapped", [False, True])
    @pytest.mark.parametrize("other", ["nothing", "another label", "the same label far away"])
    def test_shrinks_evenly(self, swapped, other):
        """A disc that is in one slice only becomes a cone, whatever else there is."""
        labels = discs(12, 0, size=70, centers=[(16, 16), (16, 16)])
        labels[..., 1] = 0
        labels += {"nothing": 0, "another label": 2, "the same label far away": 1}[other] * discs(
            6, 6, size=70, centers=[(55, 55), (55, 55)]
        )
        labels = labels[..., ::-1] if swapped else labels
        found = interpolate_labels(labels, OutputGrid.from_factor(2, 6), MM)[:40, :40]
        sizes = np.sqrt(found.sum((0, 1)) / np.pi)
        np.testing.assert_allclose(sizes[::-1] if swapped else sizes, [12, 10, 8, 6, 4, 2, 0], atol=0.6)

    def test_parts_shrink_on_their_own(self):
        """A small part is there as long as a large one."""
        labels = discs(10, 0, size=60, centers=[(15, 15), (0, 0)]) | discs(3, 0, size=60, centers=[(45, 45), (0, 0)])
        labels[..., 1] = 0
        found = interpolate_labels(labels, OutputGrid.from_factor(2, 10), MM)
        assert found[:30, :30, 9].any() and found[30:, 30:, 9].any()
        assert (np.diff(found.astype(int), axis=-1) <= 0).all()

    def test_parts_that_touch_at_a_corner_are_one(self):
        labels = np.zeros((20, 20, 2), np.uint8)
        labels[2:10, 2:10, 0] = labels[10:18, 10:18, 0] = labels[10:18, 10:18, 1] = 1
        alone = interpolate_labels(labels * (np.arange(20) < 10)[:, None, None], OutputGrid.from_factor(2, 4), MM)
        found = interpolate_labels(labels, OutputGrid.from_factor(2, 4), MM)
        assert found[9, 9].tolist() == [1, 1, 0, 0, 0] and found[2, 2].tolist() == [1, 0, 0, 0, 0]
        assert (found[:10, :10] != alone[:10, :10]).any()

    def test_single_pixel(self):
        labels = np.zeros((9, 9, 2), np.uint8)
        labels[4, 5, 0] = 1
        found = interpolate_labels(labels, OutputGrid.from_factor(2, 4), MM)
        assert found.sum((0, 1)).tolist() == [1, 1, 1, 1, 0]

    @pytest.mark.parametrize("others", [0, 2])
    def test_filled_slice(self, others):
        """A label that fills its slice has no border: what is left open in the other one closes evenly."""
        labels = np.ones((49, 49, 2), np.uint8)
        labels[..., 1] = np.where(discs(12)[..., 0] == 1, others, 1)
        found = interpolate_labels(labels, OutputGrid.from_factor(2, 4), MM)
        sizes = np.sqrt((found != 1).sum((0, 1)) / np.pi)
        np.testing.assert_allclose(sizes, [0, 3, 6, 9, 12], atol=0.6)

    def test_one_filled_slice_after_another(self):
        labels = np.ones((6, 6, 2), np.uint8)
        labels[..., 1] = 2
        found = interpolate_labels(labels, OutputGrid.from_factor(2, 4), MM)
        assert [np.unique(found[..., k]).tolist() for k in range(5)] == [[1], [1], [1], [2], [2]]


class TestArguments:
    @pytest.mark.parametrize(
        ("labels", "spacing", "message"),
        [
            (np.zeros((4, 4, 3), np.float32), MM, "expected integer labels"),
            (np.zeros((4, 4, 3), bool), MM, "expected integer labels"),
            (np.zeros((1, 4, 4, 3), np.uint8), MM, "expected integer labels"),
            (np.zeros((4, 4, 2), np.uint8), MM, "2 slices of labels do not fit a grid of 3 slices"),
            (np.zeros((4, 4, 3), np.uint8), (0.0, 1.0), "two positive numbers of mm"),
            (np.zeros((4, 4, 3), np.uint8), (1.0, float("nan")), "two positive numbers of mm"),
        ],
    )
    def test_refused(self, labels, spacing, message):
        for kind in (labels, torch.tensor(labels)):
            with pytest.raises(ValueError, match=message):
                interpolate_labels(kind, OutputGrid.from_factor(3, 2), spacing)

    def test_time(self):
        """A large slice takes no longer for what does not change."""
        labels = np.zeros((512, 512, 20), np.uint8)
        labels[100:400, 100:400] = 1
        labels[200:220, 200:220, ::2] = 2
        start = time.process_time()
        interpolate_labels(labels, OutputGrid.from_factor(20, 5), MM)
        assert time.process_time() - start < 10


AFFINE = np.array([[-0.8, 0, 0.1, 30], [0, 0.9, 0.2, -20], [0.05, 0, 4.0, 7], [0, 0, 0, 1.0]])
SHAPE = (9, 8, 3)
LABEL = np.ones(SHAPE, np.uint8)


def write(path, array, affine=AFFINE):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def scan(path, shape=SHAPE, affine=AFFINE):
    return write(path, np.random.default_rng(0).integers(0, 900, shape).astype(np.int16), affine)


def pipeline(source, label, output_dir, factor=2, axis=None):
    """The way of a volume and its label through a bundle."""
    preprocessing = Compose(
        [
            LoadVolumed("image"),
            CopyItemsd("image", names="original"),
            LoadLabeld("original", label),
            ThroughPlaneLastd("image", axis=axis),
            InvertibleScaleIntensityRangePercentilesd("image"),
        ]
    )
    post = [
        RestoreVolumed("pred", preprocessing),
        InterpolateLabeld("segmentation"),
        SaveVolumed(["pred", "segmentation"], output_dir, ["interp", "interp_label"]),
    ]
    data = list_data_collate([preprocessing({"image": str(source)})])  # as an engine does
    data["pred"] = SplineSliceInferer(factor=factor)(data["image"])
    return Compose(post)(decollate_batch(data)[0])


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
            (np.ones((*SHAPE, 1), np.uint8), np.eye(4), "has 4 dimensions; expected a label of 3."),
            (np.ones((*SHAPE, 2), np.uint8), np.eye(4), "has 4 dimensions; expected a label of 3."),
            (
                np.where(np.arange(216).reshape(SHAPE) == 58, 0.5, 1.0),
                np.eye(4),
                "has voxels that are not whole numbers; expected labels.",
            ),
            *(
                (LABEL, change, f"lies {distance} mm away from {{scan}}; expected the same affine.")
                for change, distance in (
                    (np.diag([1, 1, 1.01, 1]), "0.0801"),
                    (np.diag([-1.0, 1, 1, 1]), "12.8"),
                    (np.array([[1, 0, 0, 0.06], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "0.0481"),
                )
            ),
        ],
    )
    def test_unfit(self, tmp_path, data, array, change, message):
        path = write(tmp_path / "seg.nii", array, AFFINE @ change)
        assert self.refusal(data, path) == f"{path}: " + message.format(scan=tmp_path / "scan.nii.gz")

    @pytest.mark.parametrize(
        ("names", "found"),
        [(["other.nii.gz"], "none"), (["scan.nii", "scan.nii.gz"], "scan.nii, scan.nii.gz")],
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
