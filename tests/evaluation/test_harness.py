# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""The whole run: which volumes, in which order, what is written, and what goes on when something fails."""

import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from monai_sliceinterp.data import write_phantoms
from monai_sliceinterp.evaluation import harness, presentation, score_table
from monai_sliceinterp.evaluation.harness import run_evaluation
from monai_sliceinterp.evaluation.methods import Method, find_methods
from monai_sliceinterp.evaluation.presentation import check_curve, curve_points, settings_in_words
from monai_sliceinterp.evaluation.settings import EvaluationSettings, VolumeItem
from monai_sliceinterp.evaluation.volume import VolumeResult, evaluate_volume, load_thin
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.metrics import METRICS, Metric
from monai_sliceinterp.networks.nets import ASIAutoencoder
from tests.evaluation.helpers import FakeMetric, read_csv, rows


def save(path, seed=0, count=5, low=0.0, high=1000.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = low + (high - low) * np.random.default_rng(seed).random((14, 13, count))
    nib.save(nib.Nifti1Image(array.astype(np.float32), np.diag([1, 1, 4, 1])), path)
    return path


def make_settings(data, out, methods=("linear", "cubic"), **settings):
    given = {"factors": [2], "quick": True, "panels": 0, "sweep": 0, "device": "cpu", **settings}
    return EvaluationSettings([str(data)], list(methods), out, **given)


NAMES = ["volume", "protocol", "method"]


class TestSettings:
    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ({"window": (100.0, -100.0)}, r"the window must be two ascending intensities, got \(100.0, -100.0\)"),
            ({"window": (1.0, 1.0)}, "the window must be two ascending intensities"),
            ({"crop": 10}, r"crop must be 0 or at least 11 pixels \(SSIM's window\), got 10"),
            ({"crop": -1}, "crop must be 0 or at least 11"),
            ({"workers": 0}, "workers must be a positive integer, got 0"),
            ({"panels": -1}, "panels must be an integer of at least 0, got -1"),
            ({"sweep": 1}, "sweep must be an integer of at least 2, or 0 for none, got 1"),
            ({"axis": 3}, "axis must be 0, 1 or 2, got 3"),
            ({"perceptual": ["lpips", "fid"]}, "unknown perceptual score 'fid'; expected one of lpips, niqe"),
        ],
    )
    def test_bad(self, setting, message):
        with pytest.raises(ValueError, match=message):
            make_settings("data", "out", **setting)

    def test_limits_that_are_fine(self):
        settings = make_settings("data", "out", crop=11, workers=1, sweep=2, axis=0, window=(0.0, 0.1), seed=7)
        assert "panels: volumes that panels are drawn of." in settings.__doc__
        random, slabs = replace(settings, protocols=["random", "fwhm"]).make_protocols()
        assert random.settings["random"]["seed"] == 7 and "seed" not in str(slabs.settings)

    @pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
    def test_missing_package(self, tmp_path, monkeypatch, package):
        """Told before anything is computed or written."""
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
        settings = make_settings(save(tmp_path / "a.nii"), tmp_path / "out")
        with pytest.raises(ImportError, match=rf'needs {package}; install it by: pip install "monai_sliceinterp\[eval'):
            run_evaluation(settings, progress=False)
        assert not (tmp_path / "out").exists()


class TestVolumes:
    def names(self, *data, **settings):
        found = EvaluationSettings([str(path) for path in data], ["linear"], "out", **settings).volumes()
        assert [item.number for item in found] == list(range(len(found)))
        return [(item.name, item.group) for item in found]

    def test_folders_and_files(self, tmp_path):
        for name in ("b/z.nii", "b/y.nii.gz", "a/x.nii", "c.nii"):
            save(tmp_path / "data" / name)
        (tmp_path / "data" / "notes.txt").write_text("")
        assert self.names(tmp_path / "data") == [("x", "a"), ("y", "b"), ("z", "b"), ("c", "data")]
        of_b, data = [("y", "b"), ("z", "b")], tmp_path / "data"
        assert self.names(data / "c.nii", data / "b") == [("c", "data"), *of_b]
        assert self.names(data / "b", data) == [*of_b, ("x", "a"), ("c", "data")]

    def test_subjects(self, tmp_path):
        for name in ("sub1_a.nii", "sub1_b.nii", "sub2.nii", "sub3.nii"):
            save(tmp_path / "data" / name)
        assert [name for name, _ in self.names(tmp_path, subjects=["sub3", "sub1"])] == ["sub1_a", "sub1_b", "sub3"]
        with pytest.raises(
            ValueError, match="data: no file name starts with 'sub4'; expected the subjects of the data"
        ):
            self.names(tmp_path / "data", subjects=["sub1", "sub4"])

    def test_names_are_distinct(self, tmp_path):
        """Equal file names are told apart by their folders, equal ends of paths are refused."""
        for name in ("s1/anat/t1.nii", "s2/anat/t1.nii", "s2/anat/t2.nii"):
            save(tmp_path / name)
        assert self.names(tmp_path) == [("s1_anat_t1_nii", "anat"), ("s2_anat_t1_nii", "anat"), ("t2", "anat")]
        save(tmp_path / "more" / "s1" / "anat" / "t1.nii")
        with pytest.raises(ValueError, match=r"t1.nii: cannot be told from .*t1.nii by name; rename it or its folder"):
            self.names(tmp_path)


class TestRun:
    def test_outputs(self, heads, tmp_path):
        """Everything that is promised is there; numbers in the tables are those returned."""
        out, methods = tmp_path / "new" / "out", ["linear", "cubic", "lanczos"]
        settings = make_settings(heads, out, methods, factors=[2, 4], quick=False, panels=1, sweep=2, body=200.0)
        result = run_evaluation(settings, progress=False)
        assert result.failures == [] and result.report == out / "report.html" and len(result.scores) == 3 * 2 * 3
        files = {"report.html", "report.md", "scores.csv", "statistics.csv", "summary.csv"}
        assert {path.name for path in out.iterdir()} == files | {"panels", "pictures", "sweeps", "volumes"}
        order = [(row["volume"], row["protocol"], row["method"]) for row in read_csv(out / "scores.csv")]
        names = [f"head_00{k}" for k in range(3)]
        titles = ["subsample x2", "subsample x4"]
        assert order == [(name, title, method) for name in names for title in titles for method in methods]
        assert [float(row["psnr"]) for row in read_csv(out / "scores.csv")] == result.scores["psnr"].tolist()
        tests = read_csv(out / "statistics.csv")
        assert {row["metric"] for row in tests} == {"psnr", "ssim", "psnr_body", "ssim_body"}
        assert {(row["method"], row["baseline"]) for row in tests} == {("lanczos", "linear"), ("lanczos", "cubic")}
        means = {(r["metric"], r["protocol"], r["method"]): float(r["mean"]) for r in read_csv(out / "summary.csv")}
        cubic = result.scores.query("protocol == 'subsample x4' and method == 'cubic'")
        for metric in ("psnr", "rmse_body", "ssim_volume", "seconds"):
            assert means[metric, "subsample x4", "cubic"] == pytest.approx(cubic[metric].mean())
        assert {"ssim_coronal"} == {metric for metric, _, _ in means if metric in ("lpips", "ssim_coronal")}
        pictures = sorted(path.name for path in (out / "pictures").iterdir())
        panels = [f"panel_head_000_subsample_x{k}.png" for k in (2, 4)]
        boxes = [f"box_{metric}.png" for metric in ("psnr", "psnr_body", "ssim", "ssim_body")]
        assert pictures == [*boxes, "cost.png", *panels, "sweep_0.png", "sweep_1.png", "sweep_2.png"]
        report = (out / "report.md").read_text(encoding="utf-8")
        for name in pictures:
            assert f"(pictures/{name})" in report
        for words in ("1st to 99th percentile", "lanczos", "subsample x4", "PyTorch"):
            assert words in report and words in result.report.read_text(encoding="utf-8")

    def test_ct_and_mr_of_one_folder(self, tmp_path):
        """They are neither averaged nor drawn together; the scores of volumes keep the name of the folder."""
        for kind in ("head", "torso"):
            write_phantoms(tmp_path / "all", kind, range(2), shape=(24, 22, 9), spacing=(14.0, 14.0, 14.0))
        run_evaluation(
            make_settings(tmp_path / "all", tmp_path / "out", ("linear", "lanczos"), panels=3), progress=False
        )
        assert {row["group"] for row in read_csv(tmp_path / "out" / "scores.csv")} == {"all"}
        groups = {"all, CT", "all, not CT"}
        assert {row["group"] for row in read_csv(tmp_path / "out" / "summary.csv")} == groups
        pictures = {path.name for path in (tmp_path / "out" / "pictures").iterdir()}
        assert {"box_psnr_ct.png", "box_psnr_not_ct.png", "cost_ct.png", "cost_not_ct.png"} <= pictures
        report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
        assert "- linear: the mean of the two neighboring slices" in report and "too few volumes for a test" in report
        panels = {
            name: Image.open(tmp_path / "out" / "pictures" / name).size[1] for name in pictures if "panel" in name
        }
        assert panels["panel_torso_000_subsample_x2.png"] > 1.3 * panels["panel_head_000_subsample_x2.png"]

    def test_a_new_metric_is_one_entry(self, heads, tmp_path, no_pictures, monkeypatch):
        def mae(pred, truth, data_range, mask):
            return (pred - truth).abs().mean()

        monkeypatch.setitem(METRICS, "mae", Metric("MAE", "MAE: mean absolute error.", mae, better="smaller"))
        result = run_evaluation(make_settings(heads, tmp_path), progress=False)
        assert result.scores["mae"].between(1e-3, result.scores["rmse"]).all()
        assert {"mae"} <= {row["metric"] for row in read_csv(tmp_path / "summary.csv")}
        report = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert ">MAE</" in report and "<li>MAE: mean absolute error." in report

    def test_again(self, heads, tmp_path, no_pictures, monkeypatch):
        """Nothing is computed, and all is written once more."""
        settings = make_settings(heads, tmp_path)
        first = run_evaluation(settings, progress=False)
        (tmp_path / "scores.csv").unlink()
        monkeypatch.setattr(Method, "interpolate", lambda *args: pytest.fail("computed"))
        again = run_evaluation(settings, progress=False)
        assert again.scores.equals(first.scores) and len(read_csv(tmp_path / "scores.csv")) == 6

    def test_failures(self, tmp_path, no_pictures, capsys):
        """Each is told in a line; the rest goes on, and the report knows."""
        for name, count in (("a.nii", 5), ("b.nii", 2), ("d.nii", 3)):
            save(tmp_path / "data" / name, count=count)
        (tmp_path / "data" / "c.nii").write_bytes(b"nothing")
        result = run_evaluation(make_settings(tmp_path / "data", tmp_path / "out", factors=[2, 4]), progress=False)
        scored = [("a", "subsample x2"), ("a", "subsample x4"), ("d", "subsample x2")]
        found = result.scores[NAMES].values.tolist()
        assert found == [[*place, method] for place in scored for method in ("linear", "cubic")]
        few, unreadable = result.failures
        assert few == f"{tmp_path}/data/b.nii: has 2 slices, too few for subsample x2, subsample x4."
        assert "c.nii: cannot be read as an image" in unreadable
        left_out = f"left out: {tmp_path}/data/d.nii: too few slices for subsample x4"
        assert capsys.readouterr().err.splitlines() == [f"failed: {few}", f"failed: {unreadable}", left_out]
        for name in ("report.md", "report.html"):
            assert "has 2 slices, too few" in (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert "d: subsample x4" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")

    def test_picture_that_fails(self, heads, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(presentation, "_draw", lambda *args: ({}, ["a: sweep by b: too hard"]))
        result = run_evaluation(make_settings(heads, tmp_path), progress=False)
        assert result.failures == ["a: sweep by b: too hard"] and len(result.scores) == 6
        assert capsys.readouterr().err == "failed: a: sweep by b: too hard\n"
        assert "sweep by b: too hard" in result.report.read_text(encoding="utf-8")

    def test_baselines(self, heads, tmp_path, no_pictures):
        settings = make_settings(heads, tmp_path, ["linear", "cubic", "lanczos"], baselines=["lanczos"])
        run_evaluation(settings, progress=False)
        found = {(row["method"], row["baseline"]) for row in read_csv(tmp_path / "statistics.csv")}
        assert found == {("linear", "lanczos"), ("cubic", "lanczos")}

    def test_perceptual(self, heads, tmp_path, no_pictures, monkeypatch):
        made = []
        monkeypatch.setattr(harness, "PerceptualMetric", lambda name, **more: made.append((name, more)) or FakeMetric())
        result = run_evaluation(make_settings(heads, tmp_path, perceptual=["ma"]), progress=False)
        assert made == [("ma", {"device": torch.device("cpu")})]
        assert result.scores["ma"].tolist() == [1, 2, 3, 4, 5, 6] and result.scores["lpips"].isna().all()
        assert "ma" in {row["metric"] for row in read_csv(tmp_path / "summary.csv")}

    def test_reconstruction(self, heads, tmp_path, tiny_bundle, no_pictures):
        """Observed slices through encoder and decoder; methods that copy them have no such scores. Tests on request."""
        settings = make_settings(
            heads, tmp_path, ["cubic", str(tiny_bundle)], reconstruction=True, quick=False, tests=["ssim_sagittal"]
        )
        scores = run_evaluation(settings, progress=False).scores
        network = ASIAutoencoder(channels=(2,), latent_channels=2).eval()
        network.load_state_dict(torch.load(tiny_bundle / "models" / "model.pt", weights_only=True))
        thin = load_thin(settings.volumes()[0].path, settings)
        observed = thin.image.as_tensor()[0, ..., ::2].permute(2, 0, 1)[:, None]
        low, high = (float(np.percentile(observed.numpy(), level)) for level in (1, 99))
        unit = (observed - low) / (high - low)
        with torch.no_grad():
            made = network.decode(network.encode(unit.clamp(0, 1)), unit.shape[-2:]) + unit - unit.clamp(0, 1)
        error = (made * (high - low) + low).clamp(0, 1) - observed
        own = scores[scores["method"] != "cubic"]["psnr_reconstruction"].tolist()
        assert own[0] == pytest.approx(-10 * math.log10(error.square().mean().item()), abs=0.01)
        assert scores[scores["method"] == "cubic"]["psnr_reconstruction"].isna().all()
        assert {row["metric"] for row in read_csv(tmp_path / "statistics.csv")} == {"ssim_sagittal"}


class TestProcesses:
    def test_real_ones(self, heads, tmp_path, tiny_bundle):
        """A process loads methods of its own; its results, and the scores it keeps, are those of this process."""
        settings = make_settings(heads, tmp_path / "one", ["linear", str(tiny_bundle)], protocols=["random"])
        items = settings.volumes()[1:]
        found = {r.item.number: r for r in harness._in_pool(items, replace(settings, output_dir=tmp_path / "two"), 1)}
        methods = find_methods(settings.methods)
        for item in items:
            expected = evaluate_volume(item, settings, methods)
            assert found[item.number].failures == expected.failures == [] and len(expected.scores) == 2
            one, two = score_table(expected.scores), score_table(found[item.number].scores)
            assert one[NAMES].equals(two[NAMES])
            np.testing.assert_allclose(one[["psnr", "ssim"]], two[["psnr", "ssim"]], rtol=0, atol=1e-5)
        assert len(list((tmp_path / "two" / "volumes").iterdir())) == 2

    def items(self, tmp_path, count=3):
        return [VolumeItem(str(save(tmp_path / f"{k}.nii", k)), str(k), "g", k) for k in range(count)]

    def test_order_does_not_matter(self, tmp_path, no_pictures, monkeypatch):
        for item in self.items(tmp_path / "data"):
            assert Path(item.path).exists()
        settings = make_settings(tmp_path / "data", tmp_path / "one")
        one = run_evaluation(settings, progress=False)
        calls = []

        def pool(items, settings, workers):
            calls.append((len(items), workers))
            harness._start_worker(settings, torch.get_num_threads())
            yield from (harness._work(item) for item in reversed(items))

        monkeypatch.setattr(harness, "_in_pool", pool)
        several = run_evaluation(replace(settings, workers=8, output_dir=tmp_path / "several"), progress=False)
        assert calls == [(3, 3)]
        found = [result.scores.drop(columns=["seconds", "memory"]) for result in (one, several)]
        assert len(found[0]) == 6 and found[0].equals(found[1])

    def test_real_one_that_is_killed(self, tmp_path):
        """By what it runs: nothing comes of it, and nothing is raised."""
        settings = make_settings(tmp_path, tmp_path / "out", segment="sh -c 'kill -9 $PPID' {input} {output}")
        assert list(harness._in_pool(self.items(tmp_path, 1), settings, 1)) == []

    def test_process_that_is_ended(self, tmp_path, monkeypatch):
        """The volume that ends processes is lost, and no other."""
        items, calls = self.items(tmp_path, 4), []

        def pool(items, settings, workers):
            calls.append(([item.number for item in items], workers))
            for item in items:
                if item.number == 2:  # the pool is gone
                    return
                yield VolumeResult(item)

        monkeypatch.setattr(harness, "_in_pool", pool)
        settings = make_settings(tmp_path, tmp_path / "out", workers=2)
        results = list(harness._in_processes(items, settings))
        assert [result.item.number for result in results] == [0, 1, 2, 3]
        assert calls == [([0, 1, 2, 3], 2), ([2], 1), ([3], 1)]
        failures = [line for result in results for line in result.failures]
        assert failures == [f"{items[2].path}: its process was ended, probably as memory ran out; try fewer workers."]


class TestWords:
    def results(self, *windows):
        items = [VolumeItem(f"{k}.nii", f"v{k}", "g", k) for k in range(len(windows))]
        return [
            VolumeResult(i, window=w, axis=i.number % 2 if w else None) for i, w in zip(items, windows, strict=True)
        ]

    def test_windows_and_axes(self):
        settings = make_settings("data", "out")
        words = settings_in_words(self.results("0 to 1 (HU)", "0 to 1 (HU)", ""), settings)
        assert words["intensities scored"] == "0 to 1 (HU): all volumes" and words["data"] == "3 volumes in data"
        assert words["slice axis in the files"] == "0: v0; 1: v1"
        words = settings_in_words(self.results("0 to 1 (HU)", "0 to 2 (HU)", "0 to 1 (HU)"), settings)
        assert words["intensities scored"] == "0 to 1 (HU): v0, v2; 0 to 2 (HU): v1"

    def test_settings(self):
        results = self.results("a", "a")
        results[1].skipped = ["subsample x4", "fwhm x4"]
        words = settings_in_words(results, make_settings("data", "out", crop=64, body=-500.0, workers=3, seed=5))
        assert words["left out for too few slices"] == "v1: subsample x4, fwhm x4"
        assert words["pixels scored"] == "central 64 x 64" and words["seed"] == "5"
        assert words["body"] == "largest region above -500, holes filled"
        assert words["computed on"] == "cpu, 3 processes at a time"
        words = settings_in_words(self.results("a"), make_settings("data", "out"))
        assert (words["pixels scored"], words["body"], words["computed on"]) == ("all", "not told apart", "cpu")
        assert words["left out for too few slices"] == "nothing"


class TestPictures:
    @pytest.fixture
    def drawn(self, monkeypatch):
        """What is asked of the pictures, by kind."""
        asked = {name: [] for name in ("box_plots", "cost_plot", "panel", "sweep_strip")}
        for name, calls in asked.items():
            monkeypatch.setattr(presentation, name, lambda *args, calls=calls: calls.append(args))
        return asked

    def test_all_of_a_run(self, tmp_path, drawn, monkeypatch):
        """The strip is of the first volume that was scored, by the methods that could make it."""
        save(tmp_path / "data" / "a.nii", count=2)
        for name in "bc":
            save(tmp_path / "data" / f"{name}.nii", seed=1)

        def linear(thick, factor):
            return SplineSliceInferer(factor=factor, mode="linear")(thick[None])[0]

        def lazy(thick, factor):
            if factor != 2:
                raise ValueError("only by 2")
            return linear(thick, factor)

        methods = [Method(run.__name__, "", torch.device("cpu"), run) for run in (linear, lazy)]
        settings = make_settings(tmp_path / "data", tmp_path / "out", panels=2, sweep=4, protocols=["leave_one_out"])
        (tmp_path / "out").mkdir()
        results = [evaluate_volume(item, settings, methods) for item in settings.volumes()]
        scores = score_table(row for result in results for row in result.scores).assign(vif=0.5, niqe=math.inf)
        metrics = ["psnr", "vif", "niqe"]
        pictures, failures = presentation._draw(results, settings, methods, scores, metrics)
        assert [args[1] for args in drawn["box_plots"]] == ["psnr", "vif"]  # NIQE is infinite everywhere
        assert [args[0].equals(scores) for args in drawn["cost_plot"]] == [True]
        assert [args[2] for args in drawn["panel"]] == ["b, leave-one-out", "b, leave-one-out from 1"]
        assert [list(views) for views, *_ in drawn["panel"]] == [["input", "linear", "lazy", "truth"]] * 2
        ((slices, fractions, path, title, aspect),) = drawn["sweep_strip"]
        assert len(slices) == 5 and fractions == [0, 0.25, 0.5, 0.75, 1] and aspect == 1
        assert title == "b: linear between two slices" and path == tmp_path / "out" / "pictures" / "sweep_0.png"
        assert failures == [f"{tmp_path}/data/b.nii: sweep by lazy: only by 2"]
        assert list(pictures) == ["PSNR (dB)", "VIF", "Time and memory", *(args[2] for args in drawn["panel"]), title]
        assert len(set(pictures.values())) == len(pictures)

    @pytest.mark.parametrize("metric", ["niqe", "vif"])
    def test_metrics(self, heads, tmp_path, drawn, monkeypatch, metric):
        settings = make_settings(heads, tmp_path, perceptual=["niqe"])
        results = [evaluate_volume(item, settings, find_methods(["linear"])) for item in settings.volumes()]
        scores = score_table(row for result in results for row in result.scores).assign(**{metric: 0.5})
        monkeypatch.setattr(
            "monai_sliceinterp.evaluation.report.write_report", lambda *args, guide: (args[-1], args[-1])
        )
        presentation.present(results, scores, settings, find_methods(["linear"]))
        assert [args[1] for args in drawn["box_plots"]] == ["psnr", "ssim", metric]


class TestCurve:
    METHODS = {"asi@10": 33.0, "asi@0.5": 30.0, "b@1e-2": 20.0, "b@-3": 21.0}

    def points(self, scores):
        methods = find_methods([f"{name}=linear" for name in dict.fromkeys(row["method"] for row in scores)])
        return curve_points(score_table(scores), "psnr", methods)

    def test_points(self):
        """Means over volumes in the order of the parameter; methods that are on no curve do not count."""
        scores = rows({name: [value, value + 1] for name, value in self.METHODS.items()})
        others = rows(dict.fromkeys(("linear", "asi", "asi@", "asi@x", "@1"), [1.0]))
        assert self.points(scores + others) == {"asi": [(0.5, 30.5), (10.0, 33.5)], "b": [(-3.0, 21.5), (0.01, 20.5)]}

    def test_protocols_apart(self):
        higher = {name: [value + 10] for name, value in self.METHODS.items()}
        lower = {name: [value] for name, value in self.METHODS.items()}
        points = self.points(rows(lower, protocol="p") + rows(higher, protocol="q"))
        assert list(points) == ["asi, p", "asi, q", "b, p", "b, q"] and points["asi, q"] == [(0.5, 40.0), (10.0, 43.0)]

    def test_values_that_are_not_finite(self):
        scores = rows({"a@1": [math.inf, math.nan, 30.0]})
        assert self.points(scores) == {"a": [(1.0, 30.0)]} and self.points(scores[:2]) == {}

    def test_nothing_on_the_curve(self, heads, tmp_path):
        settings = make_settings(heads, tmp_path / "out", ["linear", "cubic"], curve="lambda")
        with pytest.raises(ValueError, match="no method lies on the curve over 'lambda'; name them SERIES@NUMBER=PATH"):
            run_evaluation(settings, progress=False)
        check_curve(settings, find_methods(["asi@0.25=linear"]))
        check_curve(replace(settings, curve=""), [])

    def test_drawn(self, heads, tmp_path, monkeypatch):
        drawn = []
        monkeypatch.setattr(presentation, "parameter_curve", lambda *args, **kwargs: drawn.append((args, kwargs)))
        for name in ("box_plots", "cost_plot"):
            monkeypatch.setattr(presentation, name, lambda *args: None)
        monkeypatch.setattr(
            "monai_sliceinterp.evaluation.report.write_report", lambda *args, guide: (args[-1], args[-1])
        )
        methods = ["a@0.1=linear", "a@1=cubic", "a@2=lanczos", "cubic"]
        run_evaluation(make_settings(heads, tmp_path, methods, curve="lambda"), progress=False)
        assert [args[2] for args, _ in drawn] == ["PSNR (dB)", "SSIM"]
        assert [number for number, _ in drawn[0][0][0]["a"]] == [0.1, 1, 2]
        assert all(args[1] == "lambda" and kwargs == {"logx": True} for args, kwargs in drawn)
        run_evaluation(make_settings(heads, tmp_path, methods), progress=False)
        assert len(drawn) == 2  # no curve was asked for
