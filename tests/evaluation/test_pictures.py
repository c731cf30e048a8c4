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

import importlib.util
import math
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.text import Text
from PIL import Image

from monai_sliceinterp import evaluation
from monai_sliceinterp.evaluation import Score
from monai_sliceinterp.evaluation.pictures import (
    PLANES,
    box_plots,
    cost_plot,
    method_colors,
    metric_label,
    panel,
    parameter_curve,
    sweep_strip,
)

METHODS = ["linear", "cubic", "lanczos", "asi", "saint", "hrinet", "vts"]
LONG = "vts_small_finetuned_on_our_own_data_of_2024"


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would be written; they are not rendered."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **kwargs: figures.append(figure))
    return figures


def rendered_texts(figure):
    """Texts of a figure that are drawn, each with the pixels it covers."""
    boxes = {}
    draw = Text.draw

    def watch(text, renderer, *args, **kwargs):
        if text.get_visible() and text.get_text().strip():
            boxes[text] = (text.get_text(), text.get_window_extent(renderer))
        draw(text, renderer, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", watch)
        FigureCanvasAgg(figure).draw()
    return list(boxes.values())


def overlap(first, second):
    """Whether two boxes share more than a pixel in both directions."""
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    return width >= 1 and height >= 1


def check_layout(figure):
    """All texts are taken literally, inside the figure and apart from each other; return them."""
    boxes = rendered_texts(figure)
    assert not [text for text in figure.findobj(Text) if "$" in text.get_text() and text.get_parse_math()]
    for k, (text, box) in enumerate(boxes):
        assert box.x0 >= -1 and box.y0 >= -1, text
        assert box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, text
        for other, second in boxes[:k]:
            assert not overlap(box, second), (text, other)
    return boxes


def words(figure):
    return [text.get_text() for text in figure.findobj(Text)]


def rows(values, protocol="p", group="g", metric="psnr"):
    """Scores by method, one volume after the other."""
    return [
        Score(f"v{k}", group, protocol, method, **{"psnr": 0.0, "ssim": 0.0, "psnr_volume": 0.0, metric: value})
        for method, series in values.items()
        for k, value in enumerate(series)
    ]


def make_rows(volumes, protocols, methods, groups=1):
    rng = np.random.default_rng(0)
    return [
        Score(f"v{v}", f"group {v % groups}", protocol, method, float(rng.normal(30 + k, 2)), 0.9, 0.0)
        for v in range(volumes)
        for protocol in protocols
        for k, method in enumerate(methods)
    ]


class TestColors:
    def test_a_method_has_its_color_everywhere(self):
        few, many = method_colors(["saint", "cubic"]), method_colors([*METHODS, "mine"])
        assert few == {name: many[name] for name in ("saint", "cubic")}

    def test_distinct(self):
        names = [*METHODS, *(f"own{k}" for k in range(8))]
        colors = method_colors(names)
        assert list(colors) == names and len(set(colors.values())) == 15

    def test_more_methods_than_colors(self):
        colors = method_colors([f"own{k}" for k in range(9)])
        assert colors["own8"] == colors["own0"]

    @pytest.mark.parametrize("deficiency", ["protan", "deutan"])
    def test_color_blind_readers(self, deficiency):
        """The bundles' colors, seen with dichromatic eyes (Viénot, Brettel and Mollon 1999), stay apart."""
        to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
        see = np.eye(3)
        if deficiency == "protan":
            see[0] = [0, 2.02344, -2.52581]
        else:
            see[1] = [0.494207, 0, 1.24827]
        matrix = np.linalg.inv(to_lms) @ see @ to_lms
        np.testing.assert_allclose(matrix @ np.ones(3), 1, atol=0.02)  # white and grays stay what they are
        linear = [np.array(to_rgb(color)) ** 2.2 for color in method_colors(METHODS).values()]
        seen = [np.clip(matrix @ color, 0, 1) ** (1 / 2.2) for color in linear]
        assert min(np.linalg.norm(a - b) for k, a in enumerate(seen) for b in seen[:k]) > 0.2


class TestLabels:
    def test_metrics(self):
        assert metric_label("psnr_body") == "PSNR (dB), inside the body"
        assert metric_label("ssim_volume") == "SSIM, whole volume"
        assert metric_label("vif_sagittal") == "VIF, sagittal cuts"
        assert metric_label("seconds") == "Time (s)"


class TestFiles:
    @pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
    def test_formats(self, tmp_path, suffix, start):
        box_plots(make_rows(3, ["p"], ["a"]), "psnr", tmp_path / f"boxes.{suffix}")
        assert (tmp_path / f"boxes.{suffix}").read_bytes().startswith(start)
        assert len(list(tmp_path.iterdir())) == 1

    def test_never_half_a_file(self, tmp_path, monkeypatch):
        (tmp_path / "boxes.png").write_text("older")

        def savefig(figure, path, **kwargs):
            Path(path).write_text("half")
            raise OSError("no space left")

        monkeypatch.setattr(Figure, "savefig", savefig)
        with pytest.raises(OSError, match="no space left"):
            box_plots(make_rows(2, ["p"], ["a"]), "psnr", tmp_path / "boxes.png")
        assert (tmp_path / "boxes.png").read_text() == "older" and len(list(tmp_path.iterdir())) == 1

    @pytest.mark.parametrize("name", ["boxes.xyz", "boxes"])
    def test_unknown_format(self, tmp_path, name):
        with pytest.raises(ValueError, match="is not supported"):
            box_plots(make_rows(3, ["p"], ["a"]), "psnr", tmp_path / name)
        assert not list(tmp_path.iterdir())

    def test_the_users_style_is_left_alone_and_does_not_matter(self, tmp_path):
        scores = make_rows(3, ["p"], ["a"])
        box_plots(scores, "psnr", tmp_path / "first.png")
        with matplotlib.rc_context({"font.size": 20, "savefig.bbox": "tight", "axes.facecolor": "red"}):
            before = dict(matplotlib.rcParams)
            box_plots(scores, "psnr", tmp_path / "second.png")
            with pytest.raises(ValueError, match="no finite value"):
                box_plots(scores, "vif", tmp_path / "third.png")
            assert dict(matplotlib.rcParams) == before
        assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()

    def test_no_pyplot(self, tmp_path, monkeypatch):
        """No state that is shared with the user's own figures."""
        monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
        box_plots(make_rows(2, ["p"], ["a"]), "psnr", tmp_path / "boxes.png")
        assert "matplotlib.pyplot" not in sys.modules

    def test_without_matplotlib(self, tmp_path, monkeypatch):
        """The modules can be imported, and drawing says what is missing."""
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        for name in ("labels", "drawing", "charts", "pictures"):
            source = Path(evaluation.__file__).with_name(f"{name}.py")
            spec = importlib.util.spec_from_file_location(f"fresh_{name}", source)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        with pytest.raises(ImportError, match=r'pip install "monai_sliceinterp\[evaluation\]"'):
            module.parameter_curve({"a": [(1, 2)]}, "x", "y", tmp_path / "curve.png")


class TestBoxPlots:
    VALUES = {"linear": [30.0, 31.0, 33.0, 32.0, 45.0], "saint": [31.0, 31.5, 34.0, 33.0, 36.0]}

    def test_boxes_are_quartiles(self, tmp_path, drawn):
        """By hand: sorted 30 31 32 33 45 has quartiles 31, 32, 33; 45 is beyond 33 + 1.5 * 2, so a dot only."""
        box_plots(rows(self.VALUES), "psnr", tmp_path / "boxes.png")
        (axis,) = drawn[0].axes
        boxes = [patch for patch in axis.patches if isinstance(patch, PathPatch)]
        spans = [(box.get_path().vertices[:, 1].min(), box.get_path().vertices[:, 1].max()) for box in boxes]
        assert spans == [(31, 33), (31.5, 34)]
        assert [to_hex(box.get_facecolor()) for box in boxes] == list(method_colors(list(self.VALUES)).values())
        lines = [line.get_ydata() for line in axis.lines]
        assert any(np.array_equal(line, [32, 32]) for line in lines)  # median
        assert any(np.array_equal(line, [33, 33]) for line in lines)  # whisker's cap, or the second median
        assert max(np.max(line) for line in lines if len(line) == 2) == 36

    def test_every_volume_is_a_dot_in_its_box(self, tmp_path, drawn):
        box_plots(rows(self.VALUES), "psnr", tmp_path / "boxes.png")
        (axis,) = drawn[0].axes
        dots = [line for line in axis.lines if line.get_marker() == "o"]
        assert [list(line.get_ydata()) for line in dots] == list(self.VALUES.values())
        for place, line in enumerate(dots):
            assert np.abs(line.get_xdata() - place).max() <= 0.25
            assert len(set(line.get_xdata())) == 5
        np.testing.assert_allclose(dots[1].get_xdata() - 1, dots[0].get_xdata())  # a volume has one place in all boxes

    def test_left_out(self, tmp_path, drawn):
        values = {"linear": [30.0, 31.0, 32.0], "oracle": [math.inf, math.inf, 90.0], "mine": [math.nan, 33.0, 34.0]}
        box_plots(rows(values), "psnr", tmp_path / "boxes.png")
        (axis,) = drawn[0].axes
        dots = [list(line.get_ydata()) for line in axis.lines if line.get_marker() == "o"]
        assert dots == [[30, 31, 32], [90], [33, 34]]
        caption = " ".join(drawn[0].get_supxlabel().split())
        assert caption.endswith("Left out: 2 exact (infinite), 1 without a value.")
        assert axis.get_xticklabels()[0].get_text() == "p\nn = 1 to 3"
        check_layout(drawn[0])

    def test_nothing_left_out(self, tmp_path, drawn):
        box_plots(rows(self.VALUES), "psnr", tmp_path / "boxes.png")
        assert "Left out" not in drawn[0].get_supxlabel()
        assert drawn[0].axes[0].get_xticklabels()[0].get_text() == "p\nn = 5"

    def test_a_method_without_values_keeps_its_place(self, tmp_path, drawn):
        box_plots(rows({"linear": [30.0], "cubic": [math.nan], "saint": [32.0]}), "psnr", tmp_path / "boxes.png")
        dots = [line.get_xdata().tolist() for line in drawn[0].axes[0].lines if line.get_marker() == "o"]
        assert dots == [[0], [], [2]]

    @pytest.mark.parametrize(
        ("metric", "start"),
        [("psnr", "Larger is"), ("rmse", "Smaller is"), ("rmse_body", "Smaller is"), ("sharpness", "Closer to 1 is")],
    )
    def test_which_way_is_better(self, tmp_path, drawn, metric, start):
        box_plots(rows(self.VALUES, metric=metric), metric, tmp_path / "boxes.png")
        assert drawn[0].get_supxlabel().startswith(f"{start} better.")
        assert drawn[0].axes[0].get_ylabel() == metric_label(metric)

    def test_protocols_are_groups_of_boxes(self, tmp_path, drawn):
        scores = [score for protocol in ("one", "two") for score in rows(self.VALUES, protocol)]
        box_plots(scores, "psnr", tmp_path / "boxes.png")
        (axis,) = drawn[0].axes
        places = [float(np.mean(line.get_xdata()).round()) for line in axis.lines if line.get_marker() == "o"]
        assert places == [0, 1, 3, 4]
        assert [label.get_text() for label in axis.get_xticklabels()] == ["one\nn = 5", "two\nn = 5"]
        np.testing.assert_allclose(axis.get_xticks(), [0.5, 3.7])

    def test_groups_have_rows(self, tmp_path, drawn):
        box_plots(make_rows(6, ["p", "q"], ["a", "b"], groups=3), "psnr", tmp_path / "boxes.png")
        assert [axis.get_title("left") for axis in drawn[0].axes] == ["group 0", "group 1", "group 2"]
        for axis in drawn[0].axes:
            assert [len(line.get_ydata()) for line in axis.lines if line.get_marker() == "o"] == [2] * 4

    @pytest.mark.parametrize(("volumes", "groups"), [(14, 7), (3, 3)])
    def test_many_or_single_groups_share_a_row(self, tmp_path, drawn, volumes, groups):
        box_plots(make_rows(volumes, ["p"], ["a"], groups), "psnr", tmp_path / "boxes.png")
        (axis,) = drawn[0].axes
        assert [len(line.get_ydata()) for line in axis.lines if line.get_marker() == "o"] == [volumes]
        assert f"Volumes of {groups} groups together." in " ".join(drawn[0].get_supxlabel().split())

    def test_many_protocols_are_wrapped(self, tmp_path, drawn):
        protocols = [f"subsample x{k}" for k in range(2, 14)]
        box_plots(make_rows(2, protocols, METHODS), "psnr", tmp_path / "boxes.png")
        assert [len(axis.get_xticks()) for axis in drawn[0].axes] == [6, 6]
        assert drawn[0].get_figwidth() < 16
        names = [label.get_text().split("\n")[0] for axis in drawn[0].axes for label in axis.get_xticklabels()]
        assert names == protocols

    @pytest.mark.parametrize(
        ("volumes", "protocols", "methods", "groups", "title"),
        [
            (1, ["subsample x2"], ["saint"], 1, ""),
            (12, ["subsample x2", "subsample x4", "subsample x6", "fwhm x4"], METHODS, 1, "all volumes"),
            (
                6,
                ["subsample x2", "random x4 (noise_range [0.0, 0.005], sigma_range [0.0, 3.2])"],
                [*METHODS, LONG],
                2,
                "t",
            ),
            (4, [f"fwhm {k}.5 mm x{k}" for k in range(2, 9)], [LONG, LONG + "_$2$_" + "x" * 60], 1, LONG),
        ],
    )
    def test_layout(self, tmp_path, drawn, volumes, protocols, methods, groups, title):
        box_plots(make_rows(volumes, protocols, methods, groups), "psnr", tmp_path / "boxes.png", title)
        texts = check_layout(drawn[0])
        shown = "".join("".join(text for text, _ in texts).split())
        for name in [*protocols, *methods, title]:
            assert "".join(name.split()) in shown

    def test_nothing_finite(self, tmp_path):
        with pytest.raises(ValueError, match="no finite value of 'psnr' to draw"):
            box_plots(rows({"oracle": [math.inf, math.nan]}), "psnr", tmp_path / "boxes.png")
        with pytest.raises(ValueError, match="no finite value of 'ssim' to draw"):
            box_plots([], "ssim", tmp_path / "boxes.png")
        assert not list(tmp_path.iterdir())


def make_arrays(methods=("linear", "saint"), height=20, width=30, count=9, aspects=(1.0, 2.5, 3.0), seed=0):
    """Arrays of a panel; coronal and sagittal ones have the slices as rows."""
    rng = np.random.default_rng(seed)
    shapes = dict(zip(PLANES, [(height, width), (count, width), (count, height)], strict=True))
    arrays = {
        f"{what}|{plane}": rng.random(shape).astype(np.float32)
        for what in ("truth", *methods, "input")
        for plane, shape in shapes.items()
    }
    return arrays | {f"aspect|{plane}": np.float32(aspect) for plane, aspect in zip(PLANES, aspects, strict=True)}


def shown_images(figure):
    """Axes that show an image, in the order from left to right and top to bottom, a band after the other."""
    axes = [axis for axis in figure.axes if axis.images and not axis.axison]
    return sorted(axes, key=lambda axis: (-round(axis.get_position(original=True).y1, 4), axis.get_position().x0))


class TestPanel:
    def test_what_is_where(self, tmp_path, drawn):
        arrays = make_arrays()
        panel(arrays, tmp_path / "panel.png", "scan, subsample x4")
        axes = shown_images(drawn[0])
        columns = ["input", "linear", "saint", "truth"]
        expected = [arrays[f"{what}|{plane}"] for plane in PLANES for what in columns]
        differences = [
            arrays[f"{what}|{plane}"] - arrays[f"truth|{plane}"] for plane in PLANES for what in columns[:-1]
        ]
        assert len(axes) == len(expected) + len(differences)
        for axis, image in zip(axes, [*expected, *differences], strict=True):
            np.testing.assert_allclose(axis.images[0].get_array(), image, atol=1e-6)
        assert [axis.get_title() for axis in axes[:4]] == columns
        assert not any(axis.get_title() for axis in axes[4:])
        assert "scan, subsample x4" in words(drawn[0])

    def test_scales(self, tmp_path, drawn):
        """One gray scale from the truth, one signed scale for all methods and planes; the input does not stretch it."""
        arrays = make_arrays()
        arrays["truth|axial"] *= 0.5
        arrays["input|axial"] += 40
        panel(arrays, tmp_path / "panel.png")
        axes = shown_images(drawn[0])
        truth = np.concatenate([arrays[f"truth|{plane}"].ravel() for plane in PLANES]).astype(np.float64)
        errors = [
            arrays[f"{name}|{plane}"] - arrays[f"truth|{plane}"] for plane in PLANES for name in ("linear", "saint")
        ]
        limit = np.quantile(np.abs(np.concatenate([image.ravel() for image in errors])), 0.995)
        for axis in axes[:12]:
            np.testing.assert_allclose(axis.images[0].get_clim(), np.quantile(truth, [0.005, 0.995]), rtol=1e-6)
            assert axis.images[0].get_cmap().name == "gray"
        for axis in axes[12:]:
            np.testing.assert_allclose(axis.images[0].get_clim(), [-limit, limit], rtol=1e-6)
            assert axis.images[0].get_cmap().name == "RdBu_r"

    def test_chosen_scales(self, tmp_path, drawn):
        panel(make_arrays(), tmp_path / "panel.png", window=(0.2, 0.3), limit=0.05)
        axes = shown_images(drawn[0])
        assert {axis.images[0].get_clim() for axis in axes[:12]} == {(0.2, 0.3)}
        assert {axis.images[0].get_clim() for axis in axes[12:]} == {(-0.05, 0.05)}

    def test_color_bars(self, tmp_path, drawn):
        panel(make_arrays(), tmp_path / "panel.png")
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
        arrays = make_arrays(aspects=aspects)
        panel(arrays, tmp_path / "panel.png")
        for axis in shown_images(drawn[0]):
            axis.apply_aspect()
            box = axis.get_window_extent()
            rows, columns = axis.images[0].get_array().shape
            plane = {(20, 30): "axial", (9, 30): "coronal", (9, 20): "sagittal"}[rows, columns]
            found = box.height / rows / (box.width / columns)
            assert found == pytest.approx(arrays[f"aspect|{plane}"], rel=1e-3)

    def test_orientation(self, tmp_path, drawn):
        """Axial images from their first row down, cuts from the first slice up."""
        panel(make_arrays(), tmp_path / "panel.png")
        origins = [axis.images[0].origin for axis in shown_images(drawn[0])]
        assert origins == ["upper"] * 4 + ["lower"] * 8 + ["upper"] * 3 + ["lower"] * 6

    def test_first_row_is_on_top_in_the_file(self, tmp_path):
        image = np.zeros((10, 10))
        image[:5] = 1
        panel({"truth|axial": image, "a|axial": image}, tmp_path / "panel.png", window=(0, 1))
        pixels = np.asarray(Image.open(tmp_path / "panel.png").convert("L"))
        band = pixels[: pixels.shape[0] // 2]
        column = band[:, band.shape[1] // 4]
        dark = np.flatnonzero(column < 10)
        assert len(dark) > 50 and dark.min() > len(column) * 0.4
        panel({"truth|coronal": image, "a|coronal": image}, tmp_path / "panel.png", window=(0, 1))
        pixels = np.asarray(Image.open(tmp_path / "panel.png").convert("L"))
        column = pixels[: pixels.shape[0] // 2][:, pixels.shape[1] // 4]
        assert np.flatnonzero(column < 10).max() < len(column) * 0.75

    @pytest.mark.parametrize(
        ("methods", "title"),
        [
            (["saint"], "lungfcp_01_0001, " + "random x4 (noise, sigma) " * 8),
            (METHODS, ""),
            (["linear", LONG, LONG + "_$x^2$", "x" * 40, *METHODS[3:]], "lungfcp_01_0001, subsample x4"),
        ],
    )
    def test_layout(self, tmp_path, drawn, methods, title):
        panel(make_arrays(methods), tmp_path / "panel.png", title)
        texts = check_layout(drawn[0])
        shown = "".join("".join(text for text, _ in texts).split())
        assert all(name in shown for name in [*methods, "".join(title.split())])
        images = [axis.get_window_extent() for axis in drawn[0].axes]
        assert not [text for text, box in texts if any(overlap(box, image) for image in images)]

    def test_images_do_not_overlap(self, tmp_path, drawn):
        panel(make_arrays(aspects=(1.0, 20.0, 0.01)), tmp_path / "panel.png")
        boxes = [axis.get_window_extent() for axis in drawn[0].axes]
        for k, box in enumerate(boxes):
            assert box.x1 <= drawn[0].bbox.x1 and box.y0 >= 0
            assert not any(overlap(box, second) for second in boxes[:k])

    def test_some_planes_and_no_input(self, tmp_path, drawn):
        arrays = {key: image for key, image in make_arrays().items() if "input" not in key and "coronal" not in key}
        panel(arrays, tmp_path / "panel.png")
        assert len(shown_images(drawn[0])) == 2 * 3 + 2 * 2

    def test_input_alone(self, tmp_path, drawn):
        image = np.linspace(0, 1, 100).reshape(10, 10)
        panel({"truth|axial": image, "input|axial": image + 0.25}, tmp_path / "panel.png")
        assert shown_images(drawn[0])[-1].images[0].get_clim() == pytest.approx((-0.25, 0.25))

    def test_exact_and_constant(self, tmp_path, drawn):
        image = np.full((12, 12), 0.5)
        panel({"truth|axial": image, "a|axial": image}, tmp_path / "panel.png")
        first, _, difference = shown_images(drawn[0])
        assert first.images[0].get_clim() == (0, 1)
        assert difference.images[0].get_clim() == (-1e-3, 1e-3)

    def test_size_of_the_file(self, tmp_path):
        """A noisy scan of 512 x 512 pixels stays below 2 MB."""
        rng = np.random.default_rng(0)
        ramp = np.linspace(0, 1, 512)
        smooth = 0.25 + 0.1 * np.sin(20 * ramp)[:, None] * np.sin(25 * ramp)
        arrays = {
            f"{what}|{plane}": (smooth[: 512 if plane == "axial" else 100] + rng.normal(0, 0.003, (1, 512))).astype(
                "f4"
            )
            for what in ("truth", "input", *METHODS)
            for plane in PLANES
        }
        panel(arrays, tmp_path / "panel.png")
        assert (tmp_path / "panel.png").stat().st_size < 2e6
        assert max(Image.open(tmp_path / "panel.png").size) < 2500

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"truth|axial": None, "truth|coronal": None, "truth|sagittal": None}, "needs a 'truth'"),
            ({"saint|coronal": None}, "the truth has the planes axial, coronal, sagittal, 'saint' has axial, sagittal"),
            ({"saint|axial": np.zeros((20, 29))}, r"one shape \(20, 30\), got \(20, 29\) for 'saint\|axial'"),
            (
                {f"{what}|axial": np.zeros((1, 2, 3)) for what in ("truth", "input", "linear", "saint")},
                "expected 2D images",
            ),
            ({"linear|coronal": np.full((9, 30), np.nan)}, r"'linear\|coronal' has values that are not finite"),
            ({"truth|coronal": np.full((9, 30), np.inf)}, r"'truth\|coronal' has values that are not finite"),
            ({"saint|oblique": np.zeros((20, 30))}, "a plane of axial, coronal, sagittal, got 'saint|oblique'"),
            ({"saint": np.zeros((20, 30))}, "names like 'linear|axial'.* got 'saint'"),
            ({"aspect|axial": 0.0}, "over its width must be positive, got 0 for axial"),
            ({"aspect|axial": math.nan}, "over its width must be positive, got nan for axial"),
        ],
    )
    def test_bad_arrays(self, tmp_path, change, message):
        arrays = {key: value for key, value in (make_arrays() | change).items() if value is not None}
        with pytest.raises(ValueError, match=message):
            panel(arrays, tmp_path / "panel.png")
        assert not list(tmp_path.iterdir())

    def test_bad_scales(self, tmp_path):
        arrays = make_arrays()
        with pytest.raises(ValueError, match=r"two ascending intensities, got \(0.4, 0.4\)"):
            panel(arrays, tmp_path / "panel.png", window=(0.4, 0.4))
        with pytest.raises(ValueError, match="limit of the differences must be positive, got 0"):
            panel(arrays, tmp_path / "panel.png", limit=0)
        with pytest.raises(ValueError, match="something to compare with it, got truth"):
            panel({"truth|axial": np.zeros((3, 3))}, tmp_path / "panel.png")


class TestSweepStrip:
    def slices(self, count):
        return [np.full((12, 16), 0.1) * k for k in range(count)]

    @pytest.mark.parametrize(("count", "rows"), [(1, 1), (3, 1), (9, 1), (10, 2)])
    def test_slices(self, tmp_path, drawn, count, rows):
        slices = [np.random.default_rng(k).random((12, 16)) for k in range(count)]
        fractions = np.linspace(0, 1, count)
        sweep_strip(slices, fractions, tmp_path / "sweep.png", "saint, scan", aspect=0.8)
        axes = drawn[0].axes
        assert len(axes) == count
        for axis, image in zip(axes, slices, strict=True):
            np.testing.assert_array_equal(axis.images[0].get_array(), image)
        assert len({round(axis.get_position(original=True).y0, 3) for axis in axes}) == rows
        low, high = np.quantile(np.stack(slices), [0.005, 0.995])
        assert axes[-1].images[0].get_clim() == pytest.approx((low, high))
        box = axes[0].get_window_extent()
        assert box.height / 12 / (box.width / 16) == pytest.approx(0.8, rel=1e-3)
        texts = check_layout(drawn[0])
        assert not [text for text, box in texts if any(overlap(box, axis.get_window_extent()) for axis in axes)]

    def test_labels_and_window(self, tmp_path, drawn):
        sweep_strip(self.slices(3), [0, 1 / 3, 1], tmp_path / "sweep.png", window=(0.25, 0.5))
        assert [axis.get_title() for axis in drawn[0].axes] == ["α = 0", "α = 0.333", "α = 1"]
        assert {axis.images[0].get_clim() for axis in drawn[0].axes} == {(0.25, 0.5)}

    def test_bad_input(self, tmp_path):
        path = tmp_path / "sweep.png"
        with pytest.raises(ValueError, match="one fraction for each slice, got 3 slices, 2 fractions"):
            sweep_strip(self.slices(3), [0, 1], path)
        with pytest.raises(ValueError, match="got 0 slices"):
            sweep_strip([], [], path)
        with pytest.raises(ValueError, match=r"one shape \(12, 16\), got \(12, 15\) for 'slice 1'"):
            sweep_strip([np.zeros((12, 16)), np.zeros((12, 15))], [0, 1], path)
        with pytest.raises(ValueError, match="'slice 0' has values that are not finite"):
            sweep_strip([np.full((12, 16), np.nan)], [0], path)
        with pytest.raises(ValueError, match="over its width must be positive"):
            sweep_strip(self.slices(2), [0, 1], path, aspect=-1)
        with pytest.raises(ValueError, match="two ascending intensities"):
            sweep_strip(self.slices(2), [0, 1], path, window=(1, 0))
        assert not list(tmp_path.iterdir())


class TestParameterCurve:
    POINTS = {"subsample x2": [(1, 31.0), (0.01, 30.0), (0.1, 31.5)], "subsample x4": [(0.01, 27.0), (1, 28.0)]}

    @pytest.mark.parametrize("logx", [False, True])
    def test_curves(self, tmp_path, drawn, logx):
        parameter_curve(self.POINTS, "lambda", "PSNR (dB)", tmp_path / "curve.png", logx=logx, title="asi")
        (axis,) = drawn[0].axes
        assert [line.get_xydata().tolist() for line in axis.lines] == [
            [[0.01, 30], [0.1, 31.5], [1, 31]],
            [[0.01, 27], [1, 28]],
        ]
        assert len({line.get_color() for line in axis.lines}) == len({line.get_marker() for line in axis.lines}) == 2
        assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_title()) == ("lambda", "PSNR (dB)", "asi")
        assert axis.get_xscale() == ("log" if logx else "linear")
        assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == list(self.POINTS)
        check_layout(drawn[0])

    @pytest.mark.parametrize("xs", [(0.001, 1000), (2, 3), (0.5, 0.6), (1e-5, 3e-4)])
    def test_logarithmic_ticks(self, tmp_path, drawn, xs):
        """At least one plain number is in sight, whatever the range."""
        parameter_curve({"asi": [(x, 30 + k) for k, x in enumerate(xs)]}, "x", "y", tmp_path / "curve.png", logx=True)
        (axis,) = drawn[0].axes
        low, high = axis.get_xlim()
        ticks = [value for value in axis.get_xticks() if low <= value <= high]
        labels = [text.get_text() for text in axis.get_xticklabels()]
        assert ticks and all(f"{value:g}" in labels for value in ticks)
        assert not drawn[0].legends
        check_layout(drawn[0])

    def test_bad_points(self, tmp_path):
        path = tmp_path / "curve.png"
        for points in ({}, {"asi": []}):
            with pytest.raises(ValueError, match="no point to draw"):
                parameter_curve(points, "x", "y", path)
        with pytest.raises(ValueError, match=r"'asi' has \(0, 30\)"):
            parameter_curve({"asi": [(0, 30)]}, "x", "y", path, logx=True)
        with pytest.raises(ValueError, match=r"finite numbers; 'asi' has \(1, inf\)"):
            parameter_curve({"asi": [(1, math.inf)]}, "x", "y", path)
        parameter_curve({"asi": [(0, 30)]}, "x", "y", path)  # fine on a linear axis


class TestCostPlot:
    def scores(self, costs):
        return [
            Score(f"v{k}", "g", "p", method, 30.0, 0.9, 0.0, seconds=seconds, memory=memory)
            for method, pairs in costs.items()
            for k, (seconds, memory) in enumerate(pairs)
        ]

    def test_dots_and_medians(self, tmp_path, drawn):
        costs = {"linear": [(0.02, 10.0), (0.04, 12.0), (0.03, 0.0)], LONG: [(30.0, 1500.0), (50.0, 2500.0)]}
        cost_plot(self.scores(costs), tmp_path / "cost.png", "one core")
        time, memory = drawn[0].axes
        for axis, index in ((time, 0), (memory, 1)):
            for row, (name, pairs) in enumerate(costs.items()):
                places, values = axis.collections[row].get_offsets().T[::-1]
                np.testing.assert_allclose(values, [pair[index] for pair in pairs])
                assert np.abs(places - row).max() <= 0.25
                assert to_hex(axis.collections[row].get_facecolor()[0]) == method_colors(list(costs))[name]
        assert [list(line.get_xdata()) for line in time.lines] == [[0.03, 0.03], [40, 40]]
        assert [list(line.get_xdata()) for line in memory.lines] == [[10, 10], [2000, 2000]]
        shown = words(drawn[0])
        assert {"0.03 s", "40 s", "10.0 MiB", "2000.0 MiB", "one core"} <= set(shown)
        assert time.get_xscale() == "log" and memory.get_xlim()[0] == 0
        assert time.get_ylim()[0] > time.get_ylim()[1]  # the first method is on top
        check_layout(drawn[0])

    def test_missing_values(self, tmp_path, drawn):
        cost_plot(
            self.scores({"a": [(1.0, math.nan), (math.nan, math.nan)], "b": [(2.0, math.nan)]}), tmp_path / "c.png"
        )
        (axis,) = drawn[0].axes
        assert [len(dots.get_offsets()) for dots in axis.collections] == [1, 1]
        assert axis.get_xlabel() == "time per volume (s)"
        check_layout(drawn[0])

    def test_a_method_without_values(self, tmp_path, drawn):
        cost_plot(self.scores({"a": [(1.0, 5.0)], "b": [(math.nan, math.nan)]}), tmp_path / "cost.png")
        assert [len(dots.get_offsets()) for dots in drawn[0].axes[0].collections] == [1, 0]

    def test_nothing_known(self, tmp_path):
        with pytest.raises(ValueError, match="neither times nor memory"):
            cost_plot([Score("v", "g", "p", "a", 30.0, 0.9, 0.0)], tmp_path / "cost.png")
