# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Cuts through volumes, the files that keep them, and the panels and strips that show them."""

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from monai_sliceinterp.evaluation.cuts import (
    add_views,
    holds_views,
    panel_cuts,
    panel_path,
    read_views,
    slice_view,
    volume_cuts,
)
from monai_sliceinterp.evaluation.panels import panel, sweep_strip
from monai_sliceinterp.preview.planes import View
from monai_sliceinterp.preview.windows import DisplayWindow
from tests.evaluation.helpers import LONG, METHODS, check_layout, overlap, words

SPACING = (1.0, 2.0, 5.0)
PLANES = ("axial", "coronal", "sagittal")  # of volumes whose slices are axial


def affine(*signs, order=(0, 1, 2)):
    """Axes of the volume that run along axes of the patient, in either direction."""
    matrix = torch.zeros(4, 4, dtype=torch.float64)
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        matrix[world, axis] = sign * SPACING[axis]
    matrix[3, 3] = 1
    return matrix


def position(matrix, shape):
    """Volumes that hold x, y and z of each voxel in mm."""
    index = torch.stack([*torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")])
    return (matrix[:3, :3] @ index.reshape(3, -1)).reshape(3, *shape)


SIGNS = [(1, 1, 1), (-1, -1, 1), (1, -1, -1), (-1, 1, -1)]


class TestViews:
    @pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (0, 2, 1), (1, 2, 0)])
    @pytest.mark.parametrize("signs", SIGNS)
    def test_slices_as_readers_know_them(self, signs, order):
        """Columns run to the patient's left (or posterior), rows to posterior (or inferior), whatever the file has."""
        matrix = affine(*signs, order=order)
        coordinates = position(matrix, (4, 6, 3))[..., 1]
        columns, rows = sorted(order[:2])
        for world, axis in ((columns, 1), (rows, 0)):
            image, aspect = slice_view(coordinates[world], matrix)
            steps = np.diff(image, axis=axis)
            spacing = SPACING[order.index(world)]
            np.testing.assert_allclose(steps, -spacing, atol=1e-5)
            assert (np.diff(image, axis=1 - axis) == 0).all()
            assert aspect == pytest.approx(SPACING[order.index(rows)] / SPACING[order.index(columns)])
        assert image.dtype == np.float32

    @pytest.mark.parametrize("signs", SIGNS)
    def test_cuts_across(self, signs):
        """Rows are slices from superior on; the cuts lie in the middle."""
        matrix = affine(*signs)
        x, y, z = position(matrix, (4, 6, 5))
        for plane, (across, fixed, middle, aspect) in {
            "coronal": (x, y, y[0, 3, 0], 5.0),
            "sagittal": (y, x, x[2, 0, 0], 2.5),
        }.items():
            cuts = [volume_cuts(volume[None], matrix, 2)[plane] for volume in (across, z, fixed)]
            assert all(cut[1] == aspect for cut in cuts)
            np.testing.assert_allclose(np.diff(cuts[1][0], axis=0), -5, atol=1e-5)
            assert (np.diff(cuts[0][0], axis=1) < 0).all() and (np.diff(cuts[0][0], axis=0) == 0).all()
            assert (cuts[2][0] == float(middle)).all()

    @pytest.mark.parametrize(
        ("count", "factor", "middle"), [(5, 2, 1), (5, 4, 2), (7, 2, 3), (9, 4, 3), (9, 8, 4), (3, 2, 1)]
    )
    def test_the_slice_is_a_synthesized_one(self, count, factor, middle):
        volume = torch.arange(float(count)).expand(2, 3, 4, count)
        assert (volume_cuts(volume, torch.eye(4), factor)["axial"][0] == middle).all()

    def test_planes_are_named_by_anatomy(self):
        coronal_slices = affine(1, -1, 1, order=(0, 2, 1))
        cuts = volume_cuts(torch.rand(1, 4, 6, 5), coronal_slices, 2)
        assert list(cuts) == ["coronal", "axial", "sagittal"]
        assert [view.image.shape for view in cuts.values()] == [(6, 4), (5, 4), (6, 5)]

    def test_first_channel(self):
        volume = torch.stack([torch.zeros(3, 4, 5), torch.ones(3, 4, 5)])
        assert all((image == 0).all() for image, _ in volume_cuts(volume, torch.eye(4), 2).values())


class TestPanelCuts:
    @pytest.mark.parametrize(
        ("factor", "nearest"), [(2, [0, 0, 1, 1, 2]), (3, [0, 0, 1, 1, 1, 2, 2]), (4, [0, 0, 0, 1, 1, 1, 1, 2, 2])]
    )
    def test_input_in_steps(self, factor, nearest):
        """The nearest thick slice, of two the earlier one."""
        count = 2 * factor + 1
        thick = torch.tensor([10.0, 11.0, 12.0]).expand(1, 4, 6, 3)
        truth = MetaTensor(torch.arange(float(count + 1)).expand(1, 4, 6, count + 1), affine=affine(1, 1, 1))
        cuts = panel_cuts(torch.rand(1, 4, 6, count), thick, truth, factor)
        assert {name: tuple(views) for name, views in cuts.items()} == dict.fromkeys(("truth", "input", "pred"), PLANES)
        for plane in ("coronal", "sagittal"):
            assert cuts["input"][plane].image[::-1, 0].tolist() == [10 + k for k in nearest]
            # the slice past the last is left out
            assert cuts["truth"][plane].image[::-1, 0].tolist() == list(range(count))
        for views in cuts.values():
            assert [view.aspect for view in views.values()] == [2, 5, 2.5]
            assert all(view.image.dtype == np.float32 for view in views.values())

    def test_path(self, tmp_path):
        assert panel_path(tmp_path, "a b", "fwhm 4 mm x3") == tmp_path / "panels" / "a b_fwhm_4_mm_x3.npz"


class TestFile:
    def views(self, value=1.0, truth=0.0, aspect=1.0):
        image = np.ones((3, 4), np.float32)
        images = {"truth": truth * image, "input": image, "pred": value * image}
        return {name: {"axial": View(picture, aspect)} for name, picture in images.items()}

    def test_methods_come_together(self, tmp_path):
        """In the order asked for, the input first and the truth last; what is not asked for stays out."""
        path = tmp_path / "new" / "panel.npz"
        assert not holds_views(path, "a", "1") and read_views(path, ["a"]) == {}
        for value, name in enumerate("bac"):
            add_views(path, self.views(value, aspect=2.5), name, {"key": name})
        assert list(read_views(path, ["a", "b"])) == ["input", "a", "b", "truth"]
        found = read_views(path, ["a", "b", "c", "d"])
        assert [found[name]["axial"].image[0, 0] for name in "abc"] == [1, 0, 2]
        assert all(found[name]["axial"].aspect == 2.5 for name in "abc")
        assert all(holds_views(path, name, {"key": name}) for name in "abc")
        assert not holds_views(path, "a", {"key": "b"}) and not holds_views(path, "d", {"key": "d"})
        assert [file.name for file in path.parent.iterdir()] == ["panel.npz"]

    def test_replaced(self, tmp_path):
        for value, key in ((1, "old"), (2, "new")):
            add_views(tmp_path / "p.npz", self.views(value), "a", key)
        assert read_views(tmp_path / "p.npz", ["a"])["a"]["axial"].image[0, 0] == 2
        assert holds_views(tmp_path / "p.npz", "a", "new") and not holds_views(tmp_path / "p.npz", "a", "old")

    @pytest.mark.parametrize("change", [{"truth": 0.5}, {"aspect": 0.5}])
    def test_another_truth(self, tmp_path, change):
        """What was made from other slices is not shown beside this one."""
        path = tmp_path / "p.npz"
        add_views(path, self.views(), "a", "1")
        add_views(path, self.views(**change), "b", "1")
        assert not holds_views(path, "a", "1") and "a" not in read_views(path, ["a"])
        assert holds_views(path, "b", "1")

    def test_file_of_an_older_version(self, tmp_path):
        path = tmp_path / "p.npz"
        np.savez(path, **{"truth|axial": np.ones((2, 2)), "key|a": "1"})
        assert not holds_views(path, "a", "1") and read_views(path, ["a"]) == {}
        add_views(path, self.views(), "a", "1")
        assert holds_views(path, "a", "1")


def make_views(methods=("linear", "saint"), height=20, width=30, count=9, aspects=(1.0, 2.5, 3.0), seed=0):
    """Views of a panel; coronal and sagittal ones have the slices as rows."""
    rng = np.random.default_rng(seed)
    planes = list(zip(PLANES, [(height, width), (count, width), (count, height)], aspects, strict=True))
    names = ("truth", *methods, "input")
    return {name: {p: View(rng.random(shape).astype("f4"), aspect) for p, shape, aspect in planes} for name in names}


def shown_images(figure):
    """Axes that show an image, in the order from left to right and top to bottom, a band after the other."""
    axes = [axis for axis in figure.axes if axis.images and not axis.axison]
    return sorted(axes, key=lambda axis: (-round(axis.get_position(original=True).y1, 4), axis.get_position().x0))


def limits(axis):
    return axis.images[0].get_clim()


def single(**images):
    return {name: {"axial": View(image)} for name, image in images.items()}


class TestPanel:
    def test_places(self, tmp_path, drawn):
        views = make_views()
        panel(views, tmp_path / "panel.png", "scan, subsample x4")
        axes = shown_images(drawn[0])
        columns = ["input", "linear", "saint", "truth"]
        expected = [views[name][plane].image for plane in PLANES for name in columns]
        truths = views["truth"]
        differences = [views[name][plane].image - truths[plane].image for plane in PLANES for name in columns[:-1]]
        assert len(axes) == len(expected) + len(differences)
        for axis, image in zip(axes, [*expected, *differences], strict=True):
            np.testing.assert_allclose(axis.images[0].get_array(), image, atol=1e-6)
        assert [axis.get_title() for axis in axes[:4]] == columns
        assert not any(axis.get_title() for axis in axes[4:])
        assert "scan, subsample x4" in words(drawn[0])
        assert {axis.images[0].origin for axis in axes} == {"upper"}

    def test_scales(self, tmp_path, drawn):
        """One gray scale from the truth, one signed scale for all methods and planes; the input does not stretch it."""
        views = make_views()
        views["truth"]["axial"].image[:] *= 0.5
        views["input"]["axial"].image[:] += 40
        panel(views, tmp_path / "panel.png")
        axes = shown_images(drawn[0])
        images = ([views[name][plane].image.ravel() for plane in PLANES] for name in ("truth", "linear", "saint"))
        truth, *others = (np.concatenate(parts).astype(np.float64) for parts in images)
        limit = np.quantile(np.abs(np.concatenate(others) - np.tile(truth, 2)), 0.995)
        for axis in axes[:12]:
            np.testing.assert_allclose(limits(axis), np.quantile(truth, [0.005, 0.995]), rtol=1e-6)
            assert axis.images[0].get_cmap().name == "gray"
        for axis in axes[12:]:
            np.testing.assert_allclose(limits(axis), [-limit, limit], rtol=1e-6)
            assert axis.images[0].get_cmap().name == "RdBu_r"

    def test_windows(self, tmp_path, drawn):
        """The images once in each window, and the differences."""
        windows = [DisplayWindow("body", 0.2, 0.3), DisplayWindow("lung", 0.0, 0.25)]
        panel(make_views(), tmp_path / "panel.png", "scan", windows)
        shown = [limits(axis) for axis in shown_images(drawn[0])]
        assert shown[:24] == [(0.2, 0.3)] * 12 + [(0.0, 0.25)] * 12 and len(shown) == 33
        assert "body" in words(drawn[0]) and "lung" in words(drawn[0])
        check_layout(drawn[0])

    def test_color_bars(self, tmp_path, drawn):
        panel(make_views(), tmp_path / "panel.png")
        bars = [axis for axis in drawn[0].axes if axis.axison]
        assert [bar.get_ylabel() for bar in bars] == ["intensity", "difference"]
        images = shown_images(drawn[0])
        for bar, band in zip(bars, (images[:12], images[12:]), strict=True):  # as high as their images
            places = [axis.get_position(original=True) for axis in band]
            assert bar.get_position().y0 == pytest.approx(min(place.y0 for place in places))
            assert bar.get_position().y1 == pytest.approx(max(place.y1 for place in places))

    @pytest.mark.parametrize("aspects", [(1.0, 2.5, 3.0), (0.5, 1.0, 1.0), (1.2, 0.3, 9.0)])
    def test_physical_proportions(self, tmp_path, drawn, aspects):
        """A pixel is as high over its width as it is said to be, on paper too."""
        panel(make_views(aspects=aspects), tmp_path / "panel.png")
        for axis in shown_images(drawn[0]):
            axis.apply_aspect()
            box = axis.get_window_extent()
            rows, columns = axis.images[0].get_array().shape
            plane = [(20, 30), (9, 30), (9, 20)].index((rows, columns))
            assert box.height / rows / (box.width / columns) == pytest.approx(aspects[plane], rel=1e-3)

    @pytest.mark.parametrize(
        ("methods", "title"),
        [
            (["saint"], "lungfcp_01_0001, " + "random x4 (noise, sigma) " * 8),
            (METHODS, ""),
            (["linear", LONG, LONG + "_$x^2$", "x" * 40, *METHODS[3:]], "lungfcp_01_0001, subsample x4"),
        ],
    )
    def test_layout(self, tmp_path, drawn, methods, title):
        panel(make_views(methods, aspects=(1.0, 20.0, 0.01)), tmp_path / "panel.png", title)
        texts = check_layout(drawn[0])
        shown = "".join("".join(text for text, _ in texts).split())
        assert all(name in shown for name in [*methods, "".join(title.split())])
        images = [axis.get_window_extent() for axis in drawn[0].axes]
        assert not [text for text, box in texts if any(overlap(box, image) for image in images)]
        for k, box in enumerate(images):
            assert box.x1 <= drawn[0].bbox.x1 and box.y0 >= 0
            assert not any(overlap(box, second) for second in images[:k])

    def test_some_planes_and_no_input(self, tmp_path, drawn):
        views = {name: {plane: part[plane] for plane in PLANES[::2]} for name, part in make_views().items()}
        del views["input"]
        panel(views, tmp_path / "panel.png")
        assert len(shown_images(drawn[0])) == 2 * 3 + 2 * 2

    def test_input_alone_exact_and_constant(self, tmp_path, drawn):
        ramp, flat = np.linspace(0, 1, 100).reshape(10, 10), np.full((12, 12), 0.5)
        panel(single(truth=ramp, input=ramp + 0.25), tmp_path / "panel.png")
        assert limits(shown_images(drawn[0])[-1]) == pytest.approx((-0.25, 0.25))
        panel(single(truth=flat, a=flat), tmp_path / "panel.png")
        first, _, difference = shown_images(drawn[1])
        assert limits(first) == (0, 1) and limits(difference) == (-1e-3, 1e-3)

    def test_size_of_the_file(self, tmp_path):
        """A noisy scan of 512 x 512 pixels stays below 2 MB."""
        rng = np.random.default_rng(0)
        ramp = np.linspace(0, 1, 512)
        smooth = 0.25 + 0.1 * np.sin(20 * ramp)[:, None] * np.sin(25 * ramp)
        views = {name: {} for name in ("truth", "input", *METHODS)}
        for images in views.values():
            for plane, rows in zip(PLANES, (512, 100, 100), strict=True):
                images[plane] = View((smooth[:rows] + rng.normal(0, 0.003, (1, 512))).astype("f4"))
        panel(views, tmp_path / "panel.png")
        assert (tmp_path / "panel.png").stat().st_size < 2e6
        assert max(Image.open(tmp_path / "panel.png").size) < 2500

    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            ("truth", None, "needs a 'truth'"),
            ("saint", {"coronal": None}, "has the planes axial, coronal, sagittal, 'saint' has axial, sagittal"),
            ("saint", {"axial": np.zeros((20, 29))}, r"one shape \(20, 30\), got \(20, 29\) for 'axial view of saint'"),
            ("truth", {"axial": np.zeros((1, 2, 3))}, "expected 2D images"),
            ("linear", {"coronal": np.full((9, 30), np.nan)}, "'coronal view of linear' has values that are not"),
            ("truth", {"coronal": np.full((9, 30), np.inf)}, "'coronal view of truth' has values that are not finite"),
            ("saint", {"oblique": np.zeros((20, 30))}, "'saint' has axial, coronal, oblique, sagittal"),
        ],
    )
    def test_bad_views(self, tmp_path, name, change, message):
        views = make_views()
        part = views.pop(name)
        if change:
            images = {plane: view.image for plane, view in part.items()} | change
            views[name] = {plane: View(image) for plane, image in images.items() if image is not None}
        with pytest.raises(ValueError, match=message):
            panel(views, tmp_path / "panel.png")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("aspect", [0.0, math.nan])
    def test_bad_aspect(self, tmp_path, aspect):
        with pytest.raises(ValueError, match=f"width of a pixel of axial must be a positive number, got {aspect}"):
            panel(make_views(aspects=(aspect, 1.0, 1.0)), tmp_path / "panel.png")
        with pytest.raises(ValueError, match="something to compare with it, got truth"):
            panel(single(truth=np.zeros((3, 3))), tmp_path / "panel.png")


class TestSweepStrip:
    @pytest.mark.parametrize(("count", "rows"), [(1, 1), (3, 1), (9, 1), (10, 2)])
    def test_slices(self, tmp_path, drawn, count, rows):
        slices = [np.random.default_rng(k).random((12, 16)) for k in range(count)]
        fractions = np.linspace(0, 1, count)
        sweep_strip(slices, fractions, tmp_path / "sweep.png", "saint, scan", aspect=0.8)
        axes = drawn[0].axes
        assert [axis.get_title() for axis in axes] == [f"α = {fraction:.3g}" for fraction in fractions]
        for axis, image in zip(axes, slices, strict=True):
            np.testing.assert_array_equal(axis.images[0].get_array(), image)
        assert len({round(axis.get_position(original=True).y0, 3) for axis in axes}) == rows
        assert limits(axes[-1]) == pytest.approx(np.quantile(np.stack(slices), [0.005, 0.995]))
        box = axes[0].get_window_extent()
        assert box.height / 12 / (box.width / 16) == pytest.approx(0.8, rel=1e-3)
        texts = check_layout(drawn[0])
        assert not [text for text, box in texts if any(overlap(box, axis.get_window_extent()) for axis in axes)]

    @pytest.mark.parametrize(
        ("shapes", "fractions", "aspect", "message"),
        [
            ([(12, 16)] * 3, [0, 1], 1.0, "one fraction for each slice, got 3 slices, 2 fractions"),
            ([], [], 1.0, "got 0 slices"),
            ([(12, 16), (12, 15)], [0, 1], 1.0, r"one shape \(12, 16\), got \(12, 15\) for 'slice 1'"),
            ([(12, 16)], [0], -1, "width of a pixel of the slices must be a positive number, got -1"),
        ],
    )
    def test_bad_input(self, tmp_path, shapes, fractions, aspect, message):
        with pytest.raises(ValueError, match=message):
            sweep_strip([np.zeros(shape) for shape in shapes], fractions, tmp_path / "sweep.png", aspect=aspect)
        with pytest.raises(ValueError, match="'slice 0' has values that are not finite"):
            sweep_strip([np.full((12, 16), np.nan)], [0], tmp_path / "sweep.png")
        assert not list(tmp_path.iterdir())
