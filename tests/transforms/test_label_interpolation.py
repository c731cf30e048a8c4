# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.spatial.distance import cdist

from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.transforms.label_interpolation import interpolate_labels

MM = (1.0, 1.0)


def disc(radius, center, size=49, spacing=MM):
    """A disc, round in mm."""
    y, x = np.mgrid[:size, :size]
    return np.hypot((y - center[0]) * spacing[0], (x - center[1]) * spacing[1]) <= radius


def discs(*radii, size=49, centers=None, dtype=np.uint8, spacing=MM):
    """A disc in every slice."""
    centers = centers or [(size // 2, size // 2)] * len(radii)
    return np.stack([disc(*one, size, spacing) for one in zip(radii, centers, strict=True)], -1).astype(dtype)


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


def halfway(labels, spacing=MM, factor=2):
    """Labels between two slices."""
    return interpolate_labels(labels, OutputGrid.from_factor(2, factor), spacing)[..., 1:-1].squeeze(-1)


def radii_of(found):
    return np.sqrt(found.sum((0, 1)) / np.pi)


def mixed_distance(first, second, alpha, spacing):
    """Mixed signed distances of one label that overlaps in both slices, by all pairs of pixels."""
    pixels = np.argwhere(np.ones(first.shape)) * spacing
    maps = []
    for shape in (first, second):
        flat = shape.ravel().astype(bool)
        far = cdist(pixels, pixels)
        inside = far[:, ~flat].min(1) - min(spacing) / 2
        outside = min(spacing) / 2 - far[:, flat].min(1)
        maps.append(np.where(flat, inside, outside).reshape(first.shape))
    return (1 - alpha) * maps[0] + alpha * maps[1]


def dice(found, expected):
    return 2 * (found & expected).sum() / (found.sum() + expected.sum())


class TestStaying:
    @pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 1.0), (1.0, 2.5)])
    @pytest.mark.parametrize("alpha", [0.2, 0.5, 0.9])
    @pytest.mark.parametrize("radii", [(5, 8), (0, 8)])
    def test_definition(self, spacing, alpha, radii):
        """Against distances between all pixels; a single pixel is enough for an overlap."""
        labels = discs(*radii, size=20, centers=[(9, 12), (11, 9)])
        found = interpolate_labels(labels, OutputGrid(2, 0.5, (0.0, alpha, 1.0)), spacing)[..., 1]
        mixed = mixed_distance(labels[..., 0], labels[..., 1], alpha, spacing)
        clear = abs(mixed) > 1e-9
        np.testing.assert_array_equal(found[clear], (mixed > 0)[clear])
        assert 0 < found.sum() < found.size or (radii[0] == 0 and alpha == 0.2)

    def test_cone(self):
        """Every gap has its own two slices, and radii grow evenly in each."""
        radii = (5, 12, 12, 3, 9)
        found = interpolate_labels(discs(*radii), OutputGrid.from_factor(5, 4), MM)
        np.testing.assert_allclose(radii_of(found), np.interp(np.arange(17) / 4, range(5), radii), atol=0.35)

    def test_ball(self):
        radii = np.sqrt(20**2 - np.arange(-19, 20) ** 2)
        ball = discs(*radii)
        found = interpolate_labels(ball[..., ::2], OutputGrid.from_factor(20, 2), MM)
        assert dice(found[..., 1::2], ball[..., 1::2]) > 0.985

    def test_anisotropic_pixels(self):
        """A circle in mm stays one; with the spacings exchanged it would not."""
        spacing = (2.0, 1.0)
        found = halfway(discs(8, 18, size=61, spacing=spacing), spacing)
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

    def test_holes_are_shapes_too(self):
        found = halfway(discs(20, 20) - discs(4, 10))
        assert np.sqrt((disc(20, (24, 24)) & (found == 0)).sum() / np.pi) == pytest.approx(7, abs=0.3)

    def test_rotating_bar(self):
        """It shares its center with itself: nothing moves, and ITK is not asked."""
        y, x = np.mgrid[-30:31, -30:31]
        bars = []
        for angle in (0, 0.1, 0.2):
            along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
            bars.append((abs(along) < 25) & (abs(across) < 5))
        assert dice(halfway(np.stack(bars[::2], -1).astype(np.uint8)) > 0, bars[1]) > 0.92


class TestMoving:
    @pytest.mark.parametrize("factor", [2, 3, 4, 5, 8])
    @pytest.mark.parametrize("shift", [(0, 20), (-11, 13)])
    def test_disc(self, factor, shift):
        """It goes straight to its new place and keeps its size, at any position; signed distances make it thin."""
        start = np.array([30, 14])
        labels = discs(12, 12, size=60, centers=[start, start + shift])
        found = interpolate_labels(labels, OutputGrid.from_factor(2, factor), MM)
        for index in range(factor + 1):
            center = np.argwhere(found[..., index]).mean(0)
            np.testing.assert_allclose(center, start + np.multiply(shift, index / factor), atol=1)
            assert found[..., index].sum() == pytest.approx(labels[..., 0].sum(), rel=0.06)
        thin = mixed_distance(labels[..., 0], labels[..., 1], 0.5, MM) > 0
        assert factor > 2 or thin.sum() < 0.8 * found[..., 1].sum()

    @pytest.mark.parametrize("spacing", [(3.0, 1.0), (1.0, 2.0), (1.0, 1.3)])
    def test_anisotropic_pixels(self, spacing):
        """A disc in mm that moves and grows is one in between."""
        size = 90
        centers = [(40 / spacing[0], 30 / spacing[1]), (40 / spacing[0], 50 / spacing[1])]
        found = halfway(discs(12, 18, size=size, centers=centers, spacing=spacing), spacing)
        expected = disc(15, (40 / spacing[0], 40 / spacing[1]), size, spacing)
        assert dice(found > 0, expected) > 0.9

    def test_crossing(self):
        """Two tubes of one label that go against each other; each keeps its own way."""
        y = np.mgrid[:60, :60][0]
        tubes = [disc(6, (15, 10 + 4 * k), 60) | disc(6, (42, 50 - 4 * k), 60) for k in range(5)]
        found = interpolate_labels(np.stack(tubes[::2], -1).astype(np.uint8), OutputGrid.from_factor(3, 2), MM)
        for k in (1, 3):
            for half in (y < 30, y >= 30):
                assert dice((found[..., k] > 0) & half, tubes[k] & half) > 0.9

    def test_branch(self):
        trunk = [disc(9, (24, 24 - a)) | disc(9, (24, 24 + a)) for a in (2, 4.5, 7)]
        assert dice(halfway(np.stack(trunk[::2], -1).astype(np.uint8)) > 0, trunk[1]) > 0.95

    def test_among_other_labels(self):
        """A part moves through background; a label that is in both slices is not drawn over."""
        labels = 2 * np.ones((40, 60, 2), np.uint8)
        labels[8:32] = 0
        labels[discs(10, 10, size=60, centers=[(20, 18), (20, 34)])[:40] == 1] = 1
        found = halfway(labels)
        np.testing.assert_array_equal(found == 2, (labels == 2).all(-1))
        assert dice(found == 1, disc(10, (20, 26), 60)[:40] & (found != 2)) > 0.9

    def test_small_over_large(self):
        labels = np.zeros((60, 60, 2), np.uint8)
        for k in (0, 1):
            labels[disc(14, (22 + 14 * k, 28), 60), k] = 9
            labels[disc(5, (28 - 4 * k, 28 + 6 * k), 60), k] = 3
        assert (halfway(labels) == 3).sum() > 40

    def test_error_of_itk(self, monkeypatch):
        """One line, without ITK's file and line."""
        import itk

        class Failing:
            def __getattr__(self, name):
                return lambda *_: None

            def Update(self):
                raise RuntimeError("/itk/itkThing.cxx:9:\nITK ERROR: Thing(0x1): no memory")

        class Template(dict):
            def __getitem__(self, key):
                return type("Filter", (), {"New": Failing})

        monkeypatch.setattr(itk, "MorphologicalContourInterpolator", Template())
        with pytest.raises(RuntimeError, match=r"^ITK cannot interpolate a label: ITK ERROR: Thing\(0x1\): no memory$"):
            halfway(discs(6, 6, centers=[(20, 20), (20, 28)]))

    def test_process(self):
        """ITK is loaded for a part that moves, not for what stays in place; the process ends in peace."""
        code = """
import sys, numpy as np, monai_sliceinterp.transforms as transforms
from monai_sliceinterp.geometry import OutputGrid
labels = np.zeros((60, 60, 3), np.uint8)
labels[5:15, 5:15, 0] = labels[5:15, 5:17, 1:] = 1
modules = lambda: sum(name.startswith("itk.") and name.endswith("Python") for name in sys.modules)
for shift in (0, 5):
    for row in (0, 30):
        labels[20 + row : 28 + row, 20:28, :2] = 1
        labels[20 + row : 28 + row, 20 + shift : 28 + shift, 1:] = 1
        labels[20 + row : 28 + row, 20 : 20 + shift, 1:] = 0
    transforms.interpolate_labels(labels, OutputGrid.from_factor(3, 4), (1.0, 1.0))
    print(modules() > 0)"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["False", "True"], "")


class TestRealLabels:
    @pytest.mark.skipif("SLICEINTERP_DATA" not in os.environ, reason="SLICEINTERP_DATA is not set")
    @pytest.mark.parametrize(("factor", "margin"), [(2, -0.005), (4, 0.01)])
    def test_bones(self, factor, margin):
        """With slices of bones left out, better than ITK for the whole; than signed distances where parts move far."""
        import itk

        scan = nib.load(os.path.join(os.environ["SLICEINTERP_DATA"], "ct", "acrin_flt_breast_001_0.nii.gz"))
        image = ndimage.gaussian_filter(np.asarray(scan.dataobj[..., 40:81]).astype(np.float32), (0.6, 0.6, 0.3))
        bones = image > 220
        observed = bones[..., ::factor]
        count = observed.shape[-1]
        found = interpolate_labels(observed.astype(np.uint8), OutputGrid.from_factor(count, factor), MM) > 0

        maps = []
        for slices in np.moveaxis(observed, -1, 0):
            inside, outside = (ndimage.distance_transform_edt(part) for part in (slices, ~slices))
            maps.append(inside - outside)
        mixed = ndimage.zoom(np.stack(maps, -1), (1, 1, found.shape[-1] / count), order=1) > 0

        stack = np.zeros((found.shape[-1], *bones.shape[:2]), np.int16)
        stack[::factor] = np.moveaxis(observed, -1, 0)
        for start in range(0, len(stack) - 1, factor):  # gap by gap: see `_follow`
            gap = stack[start : start + factor + 1]
            gap[:] = itk.array_from_image(itk.morphological_contour_interpolator(itk.image_from_array(gap), axis=2))
        morphological = np.moveaxis(stack, 0, -1) > 0

        left_out = np.arange(found.shape[-1]) % factor != 0
        methods = (found, mixed, morphological)
        ours, distances, contours = (dice(one[..., left_out], bones[..., left_out]) for one in methods)
        assert ours > contours + 0.01
        assert ours > distances + margin


volumes = st.one_of(
    st.builds(
        blobs,
        seed=st.integers(0, 10**6),
        count=st.integers(2, 9),
        slices=st.integers(2, 3),
        shape=st.tuples(st.integers(12, 40), st.integers(12, 40)),
    ),
    arrays(np.int16, st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(2, 3)), elements=st.integers(-1, 2)),
)
spacings = st.tuples(*[st.sampled_from([0.4, 0.7, 1.0, 1.5])] * 2)


class TestSlices:
    @settings(max_examples=60, deadline=None)
    @given(labels=volumes, factor=st.integers(1, 9), spacing=spacings)
    def test_promises(self, labels, factor, spacing):
        grid = OutputGrid.from_factor(labels.shape[-1], factor)
        before = labels.copy()
        found = interpolate_labels(labels, grid, spacing)
        np.testing.assert_array_equal(labels, before)
        assert found.shape == (*labels.shape[:2], len(grid)) and found.dtype == labels.dtype
        np.testing.assert_array_equal(found[..., ::factor], labels)
        for gap in range(labels.shape[-1] - 1):
            first, second = labels[..., gap : gap + 1], labels[..., gap + 1 : gap + 2]
            between = found[..., gap * factor : (gap + 1) * factor + 1]
            known = np.unique([first, second, np.zeros_like(first)])
            assert np.isin(between, known).all()
            own = (between == first) | (between == second)
            assert (own | (first == 0) | (second == 0)).all()  # no hole, and nothing drawn over what is labeled
        np.testing.assert_array_equal(interpolate_labels(labels, grid, spacing), found)
        np.testing.assert_array_equal(interpolate_labels(labels[..., ::-1], grid, spacing)[..., ::-1], found)

    @pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64])
    @pytest.mark.parametrize("moves", [0, 8])
    def test_types(self, dtype, moves):
        """The largest value of each type, also beyond what ITK's filter takes."""
        labels = discs(6, 6 if moves else 9, centers=[(20, 20), (20, 20 + moves)], dtype=dtype)
        found = interpolate_labels(labels * np.iinfo(dtype).max, OutputGrid.from_factor(2, 3), MM)
        assert found.dtype == dtype and set(np.unique(found)) == {0, np.iinfo(dtype).max}
        np.testing.assert_array_equal(found > 0, interpolate_labels(labels, OutputGrid.from_factor(2, 3), MM) > 0)
        if np.iinfo(dtype).min < 0:
            negative = interpolate_labels(-labels, OutputGrid.from_factor(2, 3), MM)
            np.testing.assert_array_equal(negative < 0, found > 0)

    def test_tensors(self):
        labels = blobs(3, slices=3)
        grid = OutputGrid.from_factor(3, 3)
        found = interpolate_labels(torch.tensor(labels, dtype=torch.int32), grid, MM)
        assert found.dtype == torch.int32
        np.testing.assert_array_equal(found.numpy(), interpolate_labels(labels, grid, MM))

    def test_target_spacing(self):
        """The slices of the input that the grid meets are copied."""
        labels = np.random.default_rng(0).integers(-9, 9, (7, 8, 4)).astype(np.int16)
        grid = OutputGrid.from_spacing(4, 5.0, 2.0)
        found = interpolate_labels(labels, grid, MM)
        np.testing.assert_array_equal(found[..., grid.is_observed.numpy()], labels[..., grid.observed_source.numpy()])

    def test_unchanged_slices(self):
        labels = np.repeat(blobs(1, slices=1), 2, axis=2)
        assert (interpolate_labels(labels, OutputGrid.from_factor(2, 3), MM) == labels[..., :1]).all()

    @pytest.mark.parametrize("seed", range(6))
    def test_turned_slices(self, seed):
        labels = blobs(seed)
        grid = OutputGrid.from_factor(2, 4)
        found = interpolate_labels(labels, grid, (0.7, 1.1))
        turned = interpolate_labels(labels.transpose(1, 0, 2), grid, (1.1, 0.7)).transpose(1, 0, 2)
        flipped = interpolate_labels(labels[::-1], grid, (0.7, 1.1))[::-1]
        for other in (turned, flipped):  # ITK's way of parts that move knows the order of the axes
            assert (other != found).mean() < 0.005

    def test_uneven_stack(self):
        """Only the positions count, however they came about."""
        grid = OutputGrid.from_factor(3, 2, slice_positions=(0.0, 1.0, 3.0))
        assert grid.positions == (0.0, 0.5, 1.0, 1.25, 1.5, 1.75, 2.0)
        found = interpolate_labels(discs(4, 14, 6), grid, MM)
        np.testing.assert_allclose(radii_of(found), [4, 9, 14, 12, 10, 8, 6], atol=0.4)


class TestSeveralLabels:
    def test_three_that_meet(self):
        """The plain rule leaves this pixel to the background, as no mixed distance is positive."""
        labels = np.zeros((24, 24, 2), np.uint8)
        labels[:, :8, 0], labels[:, 8:16, 0], labels[:, 16:, 0] = 1, 2, 3
        labels[:, :8, 1], labels[:, 8:16, 1], labels[:, 16:, 1] = 3, 1, 2
        assert halfway(labels).all()

    def test_no_notch_between_labels(self):
        """The outer border of two labels that touch moves as that of one, also where they take turns."""
        labels = np.zeros((40, 40, 2), np.uint8)
        labels[:20, :10, 0], labels[20:, :10, 0] = 1, 2
        labels[:8, :30, 1], labels[8:, :30, 1] = 1, 2
        np.testing.assert_array_equal((halfway(labels) != 0).sum(1), 20)

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
        others = discs(6, 6, size=60, centers=[(45, 40), (44, 47)])
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
        label = {"nothing": 0, "another label": 2, "the same label far away": 1}[other]
        labels += label * discs(6, 6, size=70, centers=[(55, 55), (55, 55)])
        labels = labels[..., ::-1] if swapped else labels
        radii = radii_of(interpolate_labels(labels, OutputGrid.from_factor(2, 6), MM)[:40, :40])
        np.testing.assert_allclose(radii[::-1] if swapped else radii, [12, 10, 8, 6, 4, 2, 0], atol=0.6)

    def test_too_far(self):
        """A part that overlaps with nothing is not followed: it vanishes where it is."""
        found = halfway(discs(6, 6, centers=[(24, 10), (24, 38)]))
        assert found[24, 10] and found[24, 38] and not found[:, 20:29].any()

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
        labels[..., 1] = np.where(disc(12, (24, 24)), others, 1)
        found = interpolate_labels(labels, OutputGrid.from_factor(2, 4), MM)
        np.testing.assert_allclose(radii_of(found != 1), [0, 3, 6, 9, 12], atol=0.6)

    def test_one_filled_slice_after_another(self):
        labels = np.ones((6, 6, 2), np.uint8)
        labels[..., 1] = 2
        found = interpolate_labels(labels, OutputGrid.from_factor(2, 4), MM)
        assert [np.unique(found[..., k]).tolist() for k in range(5)] == [[1], [1], [1], [2], [2]]


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
def test_refused(labels, spacing, message):
    for kind in (labels, torch.tensor(labels)):
        with pytest.raises(ValueError, match=message):
            interpolate_labels(kind, OutputGrid.from_factor(3, 2), spacing)
