# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Charts: what is drawn where, and that all texts are in place."""

import importlib.util
import math
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch

from monai_sliceinterp import evaluation
from monai_sliceinterp.evaluation import score_table
from monai_sliceinterp.evaluation.charts import box_plots, cost_plot, method_colors, parameter_curve
from monai_sliceinterp.metrics import METRICS
from tests.evaluation.helpers import LONG, METHODS, check_layout, rows, words


def make_table(volumes, protocols, methods, groups=1):
    rng = np.random.default_rng(0)
    return score_table(
        {"volume": f"v{v}", "group": f"group {v % groups}", "protocol": protocol, "method": method}
        | {"psnr": float(rng.normal(30 + k, 2))}
        for v in range(volumes)
        for protocol in protocols
        for k, method in enumerate(methods)
    )


class TestColors:
    def test_baselines_are_gray_and_others_in_order(self):
        colors = method_colors(["a", "linear", "b", *(f"own{k}" for k in range(13))])
        assert method_colors(["a", "b"]) == {name: colors[name] for name in "ab"}
        assert len(set(colors.values())) == 13 and colors["own10"] == colors["a"]  # twelve colors, and a gray
        assert len(set(to_rgb(colors["linear"]))) == 1

    @pytest.mark.parametrize("deficiency", ["protan", "deutan"])
    def test_color_blind_readers(self, deficiency):
        """The first colors, seen with dichromatic eyes (Viénot, Brettel and Mollon 1999), stay apart."""
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


class TestFiles:
    @pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
    def test_formats(self, tmp_path, suffix, start):
        box_plots(make_table(3, ["p"], ["a"]), "psnr", tmp_path / f"boxes.{suffix}")
        assert (tmp_path / f"boxes.{suffix}").read_bytes().startswith(start)
        assert len(list(tmp_path.iterdir())) == 1

    def test_never_half_a_file(self, tmp_path, monkeypatch):
        (tmp_path / "boxes.png").write_text("older")

        def savefig(figure, path, **kwargs):
            Path(path).write_text("half")
            raise OSError("no space left")

        monkeypatch.setattr(Figure, "savefig", savefig)
        with pytest.raises(OSError, match="no space left"):
            box_plots(make_table(2, ["p"], ["a"]), "psnr", tmp_path / "boxes.png")
        assert (tmp_path / "boxes.png").read_text() == "older" and len(list(tmp_path.iterdir())) == 1

    @pytest.mark.parametrize("name", ["boxes.xyz", "boxes"])
    def test_unknown_format(self, tmp_path, name):
        with pytest.raises(ValueError, match="is not supported"):
            box_plots(make_table(3, ["p"], ["a"]), "psnr", tmp_path / name)
        assert not list(tmp_path.iterdir())

    def test_the_users_style_is_left_alone_and_does_not_matter(self, tmp_path):
        scores = make_table(3, ["p"], ["a"])
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
        box_plots(make_table(2, ["p"], ["a"]), "psnr", tmp_path / "boxes.png")
        assert "matplotlib.pyplot" not in sys.modules

    def test_without_matplotlib(self, tmp_path, monkeypatch):
        """The modules can be imported, and drawing says what is missing."""
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        for name in ("charts", "cuts", "panels"):
            source = Path(evaluation.__file__).with_name(f"{name}.py")
            spec = importlib.util.spec_from_file_location(f"fresh_{name}", source)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        with pytest.raises(ImportError, match=r"a picture needs matplotlib; install it by: pip .*\[plot\]"):
            parameter_curve({"a": [(1, 2)]}, "x", "y", tmp_path / "curve.png")


@pytest.fixture
def boxes(tmp_path, drawn):
    """Draws box plots; the figure, and for each of its axes the dots of every box."""

    def draw(values, metric="psnr"):
        table = score_table(rows(values, metric)) if isinstance(values, dict) else values
        box_plots(table, metric, tmp_path / "boxes.png")
        return drawn[-1], [[line for line in axis.lines if line.get_marker() == "o"] for axis in drawn[-1].axes]

    return draw


class TestBoxPlots:
    VALUES = {"linear": [30.0, 31.0, 33.0, 32.0, 45.0], "saint": [31.0, 31.5, 34.0, 33.0, 36.0]}

    def test_boxes_are_quartiles(self, boxes):
        """By hand: sorted 30 31 32 33 45 has quartiles 31, 32, 33; 45 is beyond 33 + 1.5 * 2, so a dot only."""
        figure, _ = boxes(self.VALUES)
        (axis,) = figure.axes
        patches = [patch for patch in axis.patches if isinstance(patch, PathPatch)]
        spans = [(patch.get_path().vertices[:, 1].min(), patch.get_path().vertices[:, 1].max()) for patch in patches]
        assert spans == [(31, 33), (31.5, 34)]
        assert [to_hex(patch.get_facecolor()) for patch in patches] == list(method_colors(list(self.VALUES)).values())
        lines = [line.get_ydata() for line in axis.lines]
        assert any(np.array_equal(line, [32, 32]) for line in lines)  # median
        assert any(np.array_equal(line, [33, 33]) for line in lines)  # whisker's cap, or the second median
        assert max(np.max(line) for line in lines if len(line) == 2) == 36

    def test_every_volume_is_a_dot_in_its_box(self, boxes):
        figure, (dots,) = boxes(self.VALUES)
        assert [list(line.get_ydata()) for line in dots] == list(self.VALUES.values())
        for place, line in enumerate(dots):
            assert np.abs(line.get_xdata() - place).max() <= 0.25
            assert len(set(line.get_xdata())) == 5
        np.testing.assert_allclose(dots[1].get_xdata() - 1, dots[0].get_xdata())  # a volume has one place in all boxes
        assert "Left out" not in figure.get_supxlabel()
        assert figure.axes[0].get_xticklabels()[0].get_text() == "p\nn = 5"

    def test_left_out(self, boxes):
        mine, oracle = [math.nan, 33.0, 34.0], [math.inf, math.inf, 90.0]
        figure, (dots,) = boxes({"linear": [30.0, 31.0, 32.0], "oracle": oracle, "mine": mine, "none": [math.nan]})
        assert [list(line.get_ydata()) for line in dots] == [[30, 31, 32], [90], [33, 34], []]
        caption = " ".join(figure.get_supxlabel().split())
        assert caption.endswith("Left out: 2 exact (infinite), 2 without a value.")
        assert figure.axes[0].get_xticklabels()[0].get_text() == "p\nn = 1 to 3"
        check_layout(figure)

    @pytest.mark.parametrize(
        ("metric", "start"),
        [("psnr", "Larger is"), ("rmse", "Smaller is"), ("rmse_body", "Smaller is"), ("sharpness", "Closer to 1 is")],
    )
    def test_which_way_is_better(self, boxes, metric, start):
        figure, _ = boxes(self.VALUES, metric)
        assert figure.get_supxlabel().startswith(f"{start} better.")
        assert figure.axes[0].get_ylabel() == METRICS[metric].label

    def test_protocols_are_groups_of_boxes(self, boxes):
        scores = [score for protocol in ("one", "two") for score in rows(self.VALUES, protocol=protocol)]
        figure, (dots,) = boxes(score_table(scores))
        (axis,) = figure.axes
        assert [float(np.mean(line.get_xdata()).round()) for line in dots] == [0, 1, 3, 4]
        assert [label.get_text() for label in axis.get_xticklabels()] == ["one\nn = 5", "two\nn = 5"]
        np.testing.assert_allclose(axis.get_xticks(), [0.5, 3.7])

    @pytest.mark.parametrize(("volumes", "groups", "separate"), [(6, 3, True), (14, 7, False), (3, 3, False)])
    def test_groups_have_rows(self, boxes, volumes, groups, separate):
        """Many groups, and groups of one volume, share a row."""
        figure, dots = boxes(make_table(volumes, ["p", "q"], ["a", "b"], groups))
        names = [f"group {k}" for k in range(groups)]
        assert [axis.get_title("left") for axis in figure.axes] == (names if separate else [""])
        counts = [[len(line.get_ydata()) for line in row] for row in dots]
        assert counts == ([[2] * 4] * 3 if separate else [[volumes] * 4])
        merged = f"Volumes of {groups} groups together." in " ".join(figure.get_supxlabel().split())
        assert merged != separate

    def test_many_protocols_are_wrapped(self, boxes):
        protocols = [f"subsample x{k}" for k in range(2, 14)]
        figure, _ = boxes(make_table(2, protocols, METHODS))
        assert [len(axis.get_xticks()) for axis in figure.axes] == [6, 6] and figure.get_figwidth() < 16
        names = [label.get_text().split("\n")[0] for axis in figure.axes for label in axis.get_xticklabels()]
        assert names == protocols

    @pytest.mark.parametrize(
        ("volumes", "protocols", "methods", "groups"),
        [
            (1, ["subsample x2"], ["saint"], 1),
            (12, ["subsample x2", "subsample x4", "subsample x6", "fwhm x4"], METHODS, 1),
            (6, ["fwhm x2", "random x4 (noise_range [0.0, 0.005], sigma_range [0.0, 3.2])"], [*METHODS, LONG], 2),
            (4, [f"fwhm {k}.5 mm x{k}" for k in range(2, 9)], [LONG, LONG + "_$2$_" + "x" * 60], 1),
        ],
    )
    def test_layout(self, boxes, volumes, protocols, methods, groups):
        figure, _ = boxes(make_table(volumes, protocols, methods, groups))
        shown = "".join("".join(text for text, _ in check_layout(figure)).split())
        assert all("".join(name.split()) in shown for name in [*protocols, *methods])

    def test_nothing_finite(self, tmp_path):
        for table, metric in ((score_table(rows({"oracle": [math.inf, math.nan]})), "psnr"), (score_table(), "ssim")):
            with pytest.raises(ValueError, match=f"no finite value of '{metric}' to draw"):
                box_plots(table, metric, tmp_path / "boxes.png")
        assert not list(tmp_path.iterdir())


class TestParameterCurve:
    POINTS = {"subsample x2": [(1, 31.0), (0.01, 30.0), (0.1, 31.5)], "subsample x4": [(0.01, 27.0), (1, 28.0)]}

    @pytest.mark.parametrize("logx", [False, True])
    def test_curves(self, tmp_path, drawn, logx):
        parameter_curve(self.POINTS, "lambda", "PSNR (dB)", tmp_path / "curve.png", logx=logx)
        (axis,) = drawn[0].axes
        found = [line.get_xydata().tolist() for line in axis.lines]
        assert found == [[[0.01, 30], [0.1, 31.5], [1, 31]], [[0.01, 27], [1, 28]]]
        assert len({line.get_color() for line in axis.lines}) == len({line.get_marker() for line in axis.lines}) == 2
        assert (axis.get_xlabel(), axis.get_ylabel()) == ("lambda", "PSNR (dB)")
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

    @pytest.mark.parametrize(
        ("points", "logx", "message"),
        [
            ({}, False, "no point to draw"),
            ({"asi": []}, False, "no point to draw"),
            ({"asi": [(0, 30)]}, True, r"'asi' has \(0, 30\)"),
            ({"asi": [(1, math.inf)]}, False, r"finite numbers; 'asi' has \(1, inf\)"),
        ],
    )
    def test_bad_points(self, tmp_path, points, logx, message):
        with pytest.raises(ValueError, match=message):
            parameter_curve(points, "x", "y", tmp_path / "curve.png", logx=logx)


class TestCostPlot:
    def draw(self, costs, folder, drawn):
        scores = []
        for method, pairs in costs.items():
            scores += rows({method: [pair[0] for pair in pairs]}, "seconds", memory=[pair[1] for pair in pairs])
        cost_plot(score_table(scores), folder / "cost.png")
        check_layout(drawn[-1])
        return drawn[-1]

    def test_dots_and_medians(self, tmp_path, drawn):
        costs = {"linear": [(0.02, 10.0), (0.04, 12.0), (0.03, 0.0)], LONG: [(30.0, 1500.0), (50.0, 2500.0)]}
        figure = self.draw(costs, tmp_path, drawn)
        time, memory = figure.axes
        for axis, index in ((time, 0), (memory, 1)):
            for row, (name, pairs) in enumerate(costs.items()):
                places, values = axis.collections[row].get_offsets().T[::-1]
                np.testing.assert_allclose(values, [pair[index] for pair in pairs])
                assert np.abs(places - row).max() <= 0.25
                assert to_hex(axis.collections[row].get_facecolor()[0]) == method_colors(list(costs))[name]
        assert [list(line.get_xdata()) for line in time.lines] == [[0.03, 0.03], [40, 40]]
        assert [list(line.get_xdata()) for line in memory.lines] == [[10, 10], [2000, 2000]]
        assert {"0.03 s", "40 s", "10.0 MiB", "2000.0 MiB"} <= set(words(figure))
        assert time.get_xscale() == "log" and memory.get_xlim()[0] == 0
        assert time.get_ylim()[0] > time.get_ylim()[1]  # the first method is on top

    def test_missing_values(self, tmp_path, drawn):
        """A quantity that nobody has is left out; a method without values keeps its row."""
        none = (math.nan, math.nan)
        figure = self.draw({"a": [(1.0, math.nan), none], "b": [none]}, tmp_path, drawn)
        (axis,) = figure.axes
        assert [len(dots.get_offsets()) for dots in axis.collections] == [1, 0]
        assert axis.get_xlabel() == "time per volume (s)"
        with pytest.raises(ValueError, match="neither times nor memory"):
            self.draw({"a": [none]}, tmp_path, drawn)
