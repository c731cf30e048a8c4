# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""One volume: what is scored, what is kept, and what goes wrong; the slices between two neighbors."""

import json
import math
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_sliceinterp.data import write_phantoms
from monai_sliceinterp.evaluation import compare, score_table
from monai_sliceinterp.evaluation.cuts import panel_path, read_views
from monai_sliceinterp.evaluation.methods import Method, find_methods
from monai_sliceinterp.evaluation.panels import central_slices, read_sweep, write_sweeps
from monai_sliceinterp.evaluation.settings import EvaluationSettings, VolumeItem
from monai_sliceinterp.evaluation.volume import evaluate_volume, load_thin
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.metrics import score_volume
from monai_sliceinterp.transforms import LoadVolume
from tests.evaluation.helpers import FakeMetric

QUICK = {"quick": True, "panels": 0, "factors": [2]}


def save(path, array, spacing=(1.0, 1.0, 3.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*spacing, 1.0])), path)
    return path


def rand(*shape, low=0.0, high=1.0, seed=0):
    return (low + (high - low) * np.random.default_rng(seed).random(shape)).astype(np.float32)


def make_settings(path, out, methods=("linear",), **settings):
    return EvaluationSettings([str(path)], list(methods), out, **{**QUICK, **settings})


def make_item(path, number=0):
    return VolumeItem(str(path), path.name.removesuffix(".gz").removesuffix(".nii"), path.parent.name, number)


class Spy:
    """A method that counts its calls and answers with linear interpolation, a little wrong."""

    def __init__(self, name="spy", fingerprint="1", error=None, offset=0.0):
        self.calls = []
        self.error, self.offset = error, offset
        self.method = Method(name, fingerprint, torch.device("cpu"), self)

    def __call__(self, thick, factor):
        self.calls.append((thick, factor))
        if self.error is not None:
            raise self.error
        return SplineSliceInferer(factor=factor, mode="linear")(thick[None])[0] + self.offset


def scores_of(result):
    return list(score_table(result.scores).itertuples())


class TestLoadThin:
    def test_percentiles(self, tmp_path):
        """Those of the whole volume, also where only a part is scored."""
        array = rand(20, 24, 6, low=-150, high=900)
        array[:2] = 5000
        thin = load_thin(save(tmp_path / "a.nii", array), make_settings(tmp_path, "out", crop=14))
        low, high = np.percentile(array, [1, 99])
        assert thin.window == pytest.approx((low, high)) and thin.window_from == "1st to 99th percentile"
        expected = np.clip((array[3:17, 5:19] - low) / (high - low), 0, 1)
        np.testing.assert_allclose(thin.image.numpy()[0], expected, atol=1e-6)
        assert thin.image.dtype == torch.float32 and thin.body is None and thin.axis == 2
        assert thin.image.affine[:3, 3].tolist() == [3, 5, 0]

    @pytest.mark.parametrize(("least", "taken_as"), [(-200.0, "1st to 99th percentile"), (-201.0, "HU")])
    def test_ct_is_told_by_its_air(self, tmp_path, least, taken_as):
        array = rand(12, 12, 4, low=0, high=3500)
        array[0, 0, 0] = least
        thin = load_thin(save(tmp_path / "a.nii", array), make_settings(tmp_path, "out"))
        assert thin.window_from == taken_as
        if taken_as == "HU":
            assert thin.window == (-1024, 2976)
            np.testing.assert_allclose(thin.image.numpy()[0], np.clip((array + 1024) / 4000, 0, 1), atol=1e-6)
            assert thin.image.max() == 1

    def test_given_window(self, tmp_path):
        array = rand(12, 12, 4, low=-1000, high=1000)
        thin = load_thin(save(tmp_path / "a.nii", array), make_settings(tmp_path, "out", window=(-500.0, 500.0)))
        assert (thin.window, thin.window_from) == ((-500, 500), "as given")
        np.testing.assert_allclose(thin.image.numpy()[0], np.clip(array / 1000 + 0.5, 0, 1), atol=1e-6)

    @pytest.mark.parametrize(("axis", "order"), [(None, (1, 2, 0)), (1, (0, 2, 1))])
    def test_axis(self, tmp_path, axis, order):
        array = rand(5, 13, 12)
        path = save(tmp_path / "a.nii", array, (3.0, 2.0, 1.0))
        thin = load_thin(path, make_settings(tmp_path, "out", axis=axis, window=(0.0, 1.0)))
        np.testing.assert_allclose(thin.image.numpy()[0], array.transpose(order), atol=1e-6)
        assert thin.axis == order[-1]

    def test_body(self, tmp_path):
        """A threshold in the scan's units; the largest part of what is in the crop, holes filled."""
        array = np.full((30, 30, 5), -1000, np.float32)
        array[8:24, 8:24] = 40
        array[12:16, 12:16] = -900
        path = save(tmp_path / "a.nii", array)
        body = load_thin(path, make_settings(tmp_path, "out", crop=20, body=-500.0)).body
        expected = np.zeros((20, 20, 5), bool)
        expected[3:19, 3:19] = True
        assert body.dtype == torch.bool and np.array_equal(body.numpy()[0], expected)
        assert not load_thin(path, make_settings(tmp_path, "out", body=50.0)).body.any()

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (np.nan, "has 1 NaN or infinite voxels; expected finite intensities"),
            (7, "all voxels are 7; expected an image"),
        ],
    )
    def test_unusable(self, tmp_path, value, message):
        array = rand(12, 12, 4) if math.isnan(value) else np.full((12, 12, 4), value, np.float32)
        array[3, 3, 3] = value
        with pytest.raises(ValueError, match=rf"a.nii: {message}"):
            load_thin(save(tmp_path / "a.nii", array), make_settings(tmp_path, "out"))


class TestScores:
    @pytest.mark.parametrize("protocol", ["subsample", "fwhm", "random", "leave_one_out"])
    def test_as_compare(self, heads, tmp_path, protocol):
        """The same scores as the comparison that bundles print, for each protocol."""
        path = heads / "head_001.nii.gz"
        methods = ["linear", "cubic", "lanczos"]
        settings = make_settings(path, tmp_path, methods, protocols=[protocol], factors=[2, 4], body=300.0)
        thin = load_thin(path, settings)
        result = evaluate_volume(make_item(path, 1), settings, find_methods(methods))
        low, high = thin.window
        # compare counts volumes: the one before has this one's place in random draws
        volumes = [{"image": MetaTensor(torch.rand(1, 12, 12, 9))}, {"image": thin.image}]
        protocols = settings.make_protocols()
        expected = compare(volumes, {}, protocols, progress=False, body_threshold=(300 - low) / (high - low))
        expected = expected[expected["volume"] == "head_001"].assign(group="mr").reset_index(drop=True)
        found = score_table(result.scores)
        assert not result.failures and len(found) == 3 * len(protocols)
        assert found[["volume", "group", "protocol", "method"]].equals(expected.iloc[:, :4])
        names = ["psnr", "ssim", "psnr_volume", "psnr_body", "ssim_body"]
        np.testing.assert_allclose(found[names], expected[names], rtol=0, atol=2e-5)
        assert (found["seconds"] > 0).all() and (found["memory"] >= 0).all()

    def test_units_and_geometry(self, heads, tmp_path):
        """A method gets the thick volume in the scan's units, clipped to the window, with its spacing."""
        path, spy = heads / "head_000.nii.gz", Spy()
        array = np.asarray(nib.load(path).dataobj, dtype=np.float32)
        evaluate_volume(make_item(path), make_settings(path, tmp_path, protocols=["leave_one_out"]), [spy.method])
        low, high = np.percentile(array, [1, 99])
        assert [factor for _, factor in spy.calls] == [2, 2]
        for phase, (thick, _) in enumerate(spy.calls):
            expected = np.clip(array, low, high)[..., phase::2]
            np.testing.assert_allclose(thick.numpy()[0], expected, atol=1e-3 * (high - low))
            assert thick.applied_operations == [] and thick.affine[2, 2] == 18
            assert thick.affine[2, 3] == pytest.approx(float(LoadVolume()(path).affine[2, 3]) + 9 * phase)

    def test_detailed(self, heads, tmp_path):
        path = heads / "head_000.nii.gz"
        item, methods = make_item(path), find_methods(["cubic"])
        settings = make_settings(path, tmp_path, quick=False, body=200.0)
        (score,) = scores_of(evaluate_volume(item, settings, methods))
        thin = load_thin(path, settings)
        pred = SplineSliceInferer(factor=2)(thin.image[None, ..., ::2])[0]
        expected = score_volume(pred, thin.image, 2, 1.0, thin.body, detailed=True)
        for name, value in expected.items():
            assert getattr(score, name) == pytest.approx(value, rel=1e-4, nan_ok=True)
        assert math.isfinite(score.rmse) and math.isfinite(score.ssim_volume) and math.isfinite(score.rmse_body)
        (quick,) = scores_of(evaluate_volume(item, make_settings(path, tmp_path), methods))
        assert math.isnan(quick.ssim_volume) and quick.psnr == score.psnr

    def test_perceptual(self, heads, tmp_path):
        """Slices that are scored go to the metric as pairs; every method starts anew."""
        path, metric, spy = heads / "head_000.nii.gz", FakeMetric(), Spy(offset=30.0)
        settings = make_settings(path, tmp_path, factors=[4])
        result = evaluate_volume(make_item(path), settings, [Spy("a").method, spy.method], {"lpips": metric})
        assert [score["lpips"] for score in result.scores] == [1, 2]
        assert not any("niqe" in score for score in result.scores)
        thin = load_thin(path, settings).image.as_tensor()
        for calls in metric.seen:
            ((pred, truth),) = calls
            assert torch.equal(truth, thin[..., [1, 2, 3, 5, 6, 7]].permute(3, 0, 1, 2)) and pred.shape == truth.shape
        assert (metric.seen[0][0][0] < metric.seen[1][0][0]).any() and metric.seen[1][0][0].max() <= 1


class TestResume:
    def evaluate(self, path, out, spies, number=0, steps=None, **settings):
        item = make_item(path, number)
        report = (lambda text: None) if steps is None else steps.append
        return evaluate_volume(item, make_settings(path, out, **settings), [spy.method for spy in spies], report=report)

    def psnr(self, *arguments, **settings):
        return self.evaluate(*arguments, **settings).scores[0]["psnr"]

    def test_nothing_is_computed_twice(self, heads, tmp_path, monkeypatch):
        path, spy, other, steps = heads / "head_000.nii.gz", Spy(), Spy("other"), []
        first = self.evaluate(path, tmp_path, [spy], quick=False)
        assert len(spy.calls) == 1
        again = self.evaluate(path, tmp_path, [spy, other], factors=[2, 4], quick=False, steps=steps)
        assert len(spy.calls) == 2 and [factor for _, factor in other.calls] == [2, 4]
        expected = ["subsample x2, other", "subsample x4, spy", "subsample x4, other"]
        assert steps == ["head_000", *(f"head_000: {step}" for step in expected)]
        found = [(row["protocol"], row["method"]) for row in again.scores]
        assert found == [(f"subsample x{k}", name) for k in (2, 4) for name in ("spy", "other")]
        np.testing.assert_equal(first.scores[0], again.scores[0])
        monkeypatch.setattr("monai_sliceinterp.evaluation.volume.load_thin", lambda *args: pytest.fail("loaded"))
        last = self.evaluate(path, tmp_path, [other], factors=[4], quick=False)
        assert [(row["protocol"], row["method"]) for row in last.scores] == [("subsample x4", "other")]
        assert (last.window, last.axis) == (first.window, 2) and "(1st to 99th percentile)" in last.window

    def test_file(self, heads, tmp_path):
        """Any reader of JSON can read it, also where numbers are not finite."""
        path = heads / "head_000.nii.gz"

        def know_it(thick, factor):
            low, high = np.percentile(np.asarray(nib.load(path).dataobj), [1, 99])
            return LoadVolume()(path).float().clamp(float(low), float(high))

        oracle = Method("oracle", "weights" * 9, torch.device("cpu"), know_it)
        result = evaluate_volume(make_item(path), make_settings(path, tmp_path, quick=False), [oracle])
        (file,) = (tmp_path / "volumes").iterdir()
        content = json.loads(file.read_text(encoding="utf-8"), parse_constant=lambda text: pytest.fail(text))
        (entry,) = content["scores"]
        assert file.name.startswith("head_000-") and content["about"]["slices"] == 9
        assert content["about"]["path"] == str(path) and "(1st to 99th percentile)" in content["about"]["window"]
        protocol = {"factor": 2, "fwhm": 0}
        assert entry["identity"] == {"method": "oracle", "fingerprint": ("weights" * 9)[:16], "protocol": protocol}
        assert float(entry["values"]["psnr"]) > 90
        assert entry["values"]["vif"] == "nan" and math.isnan(result.scores[0]["vif"])

    @pytest.mark.parametrize(
        ("change", "matters"),
        [
            ({"window": (0.0, 500.0)}, True),
            ({"crop": 16}, True),
            ({"axis": 2}, True),
            ({"body": 100.0}, True),
            ({"quick": False}, True),
            ({"perceptual": ["lpips"]}, True),
            ({"sweep": 4}, False),
            ({"workers": 2}, False),
            ({"seed": 3}, False),
            ({"baselines": ["linear"]}, False),
        ],
    )
    def test_other_settings(self, heads, tmp_path, change, matters):
        """Scores under other settings are kept beside, unless the scores do not depend on them."""
        path, spy = heads / "head_000.nii.gz", Spy()
        for settings in ({}, change, {}):
            self.evaluate(path, tmp_path, [spy], **settings)
        assert len(spy.calls) == len(list((tmp_path / "volumes").iterdir())) == 1 + matters

    def test_other_weights(self, heads, tmp_path):
        path, old, new = heads / "head_000.nii.gz", Spy(), Spy(fingerprint="2", offset=20.0)
        before, after, again = (self.psnr(path, tmp_path, [spy]) for spy in (old, new, old))
        assert before == again != after and len(old.calls) == len(new.calls) == 1

    def test_another_file_of_the_name(self, tmp_path):
        path, spy = tmp_path / "data" / "a.nii", Spy()
        save(path, rand(16, 16, 5))
        before = self.psnr(path, tmp_path, [spy])
        save(path, rand(16, 16, 5, seed=1))
        os.utime(path, ns=(1, 1))
        assert before != self.psnr(path, tmp_path, [spy]) and len(spy.calls) == 2

    @pytest.mark.parametrize(("protocol", "calls"), [("random", 2), ("subsample", 1)])
    @pytest.mark.parametrize("setting", ["number", "seed"])
    def test_random_protocols(self, heads, tmp_path, protocol, calls, setting):
        """What is drawn depends on the place among the volumes, and on the seed."""
        path, spy = heads / "head_000.nii.gz", Spy()
        given = ({"protocols": [protocol], setting: k} for k in (0, 1, 0))
        first, other, again = (self.psnr(path, tmp_path, [spy], **settings) for settings in given)
        assert len(spy.calls) == calls and first == again and (first == other) == (calls == 1)


class TestPanels:
    def test_first_volumes(self, heads, tmp_path):
        spies = [Spy("a"), Spy("b", offset=50.0)]
        for number in range(3):
            path = heads / f"head_00{number}.nii.gz"
            settings = make_settings(path, tmp_path, panels=2)
            evaluate_volume(make_item(path, number), settings, [spy.method for spy in spies])
        names = sorted(file.name for file in (tmp_path / "panels").iterdir())
        assert names == ["head_000_subsample_x2.npz", "head_001_subsample_x2.npz"]
        views = read_views(panel_path(tmp_path, "head_001", "subsample x2"), ["a", "b"])
        thin = load_thin(heads / "head_001.nii.gz", make_settings(heads, tmp_path)).image
        truth = np.asarray(thin[0, :, 11].T)
        linear = np.asarray(SplineSliceInferer(factor=2, mode="linear")(thin[None, ..., ::2])[0, 0, :, 11].T)
        for name, expected in (("truth", truth), ("a", linear), ("input", truth[[0, 0, 2, 2, 4, 4, 6, 6, 8]])):
            np.testing.assert_allclose(views[name]["coronal"].image[::-1, ::-1], expected, atol=1e-5)
        first, second = (views[name]["axial"].image for name in "ab")
        assert (second >= first).all() and second.max() <= 1
        assert views["a"]["coronal"].aspect == pytest.approx(9 / 8)

    def test_made_when_asked_for_later(self, heads, tmp_path):
        path, spy = heads / "head_000.nii.gz", Spy()
        for panels, calls in ((0, 1), (1, 2), (1, 2), (0, 2)):
            evaluate_volume(make_item(path), make_settings(path, tmp_path, panels=panels), [spy.method])
            assert len(spy.calls) == calls
        panel_path(tmp_path, "head_000", "subsample x2").unlink()
        evaluate_volume(make_item(path), make_settings(path, tmp_path, panels=1), [spy.method])
        assert len(spy.calls) == 3


class TestFailures:
    def test_one_method(self, heads, tmp_path):
        """The others are scored; another time only what failed is tried again."""
        path, spy, broken = heads / "head_000.nii.gz", Spy(), Spy("broken", error=RuntimeError("first\nsecond"))
        settings = make_settings(path, tmp_path, factors=[2, 4])
        result = evaluate_volume(make_item(path), settings, [broken.method, spy.method])
        found = [(row["protocol"], row["method"]) for row in result.scores]
        assert found == [("subsample x2", "spy"), ("subsample x4", "spy")]
        assert result.failures == [f"{path}: subsample x{k}, broken: first" for k in (2, 4)]
        broken.error = None
        result = evaluate_volume(make_item(path), settings, [broken.method, spy.method])
        assert len(result.scores) == 4 and not result.failures and len(spy.calls) == 2

    def test_result_that_is_not_finite(self, heads, tmp_path, capsys):
        path, spy = heads / "head_000.nii.gz", Spy(offset=math.nan)
        (failure,) = evaluate_volume(make_item(path), make_settings(path, tmp_path), [spy.method]).failures
        expected = "made NaN or infinite intensities; expected finite ones."
        assert failure == f"{path}: subsample x2, spy: spy: {expected}" and capsys.readouterr().err == ""

    def test_bug_in_a_method(self, heads, tmp_path, capsys):
        """Its author sees where it is."""
        path = heads / "head_000.nii.gz"
        method = Method("new", "", torch.device("cpu"), lambda thick, factor: None + factor)
        (failure,) = evaluate_volume(make_item(path), make_settings(path, tmp_path), [method]).failures
        assert failure.startswith(f"{path}: subsample x2, new: unsupported operand type")
        error = capsys.readouterr().err
        assert error.startswith("Traceback") and "lambda thick, factor: None + factor" in error

    @pytest.mark.parametrize("kind", ["missing", "broken", "nan"])
    def test_volume(self, tmp_path, kind):
        path = tmp_path / "a.nii"
        if kind == "broken":
            path.write_bytes(b"no image" * 100)
        if kind == "nan":
            save(path, rand(12, 12, 4) * np.float32(np.nan))
        result = evaluate_volume(make_item(path), make_settings(path, tmp_path / "out"), [Spy().method])
        assert not result.scores and len(result.failures) == 1 and result.axis is None
        assert f"{path}: {path}" not in result.failures[0] and str(path) in result.failures[0]
        assert "\n" not in result.failures[0]

    @pytest.mark.parametrize(("count", "skipped"), [(2, 2), (3, 1), (4, 1), (5, 0)])
    def test_too_few_slices(self, tmp_path, count, skipped):
        path = save(tmp_path / "a.nii", rand(12, 12, count))
        settings = make_settings(path, tmp_path / "out", factors=[2, 4])
        result = evaluate_volume(make_item(path), settings, [Spy().method])
        assert result.skipped == ["subsample x2", "subsample x4"][2 - skipped :]
        assert len(result.scores) == 2 - skipped
        expected = [f"{path}: has 2 slices, too few for subsample x2, subsample x4."] if skipped == 2 else []
        assert result.failures == expected


class TestSweep:
    @pytest.mark.parametrize(
        ("count", "begin", "end", "first"), [(2, 0, 2, 0), (3, 0, 3, 0), (4, 0, 4, 1), (5, 0, 4, 1), (9, 2, 6, 1)]
    )
    def test_central_slices(self, count, begin, end, first):
        values, affine = torch.arange(float(count)).expand(1, 4, 4, count), torch.diag(torch.tensor([1, 1, 5.0, 1]))
        part, found = central_slices(MetaTensor(values, affine=affine))
        assert part[0, 0, 0].tolist() == list(range(begin, end)) and found == first
        assert part.affine[2].tolist() == [0, 0, 5, 5 * begin]

    def test_strip(self, heads, tmp_path):
        """From the one observed slice to the other, in between what a method makes of them."""
        path, spy, other = heads / "head_000.nii.gz", Spy(), Spy("other", error=ValueError("too hard"))
        settings = make_settings(path, tmp_path, sweep=4)
        file, failures = write_sweeps(make_item(path), settings, [spy.method, other.method])
        assert failures == [f"{path}: sweep by other: too hard"]
        views = read_sweep(file, "spy")
        thick = load_thin(path, settings).image[0, ..., ::2].numpy().transpose(1, 0, 2)[::-1, ::-1]  # 5 slices
        assert [view.aspect for view in views] == [1] * 5 and read_sweep(file, "other") == []
        for k, view in enumerate(views):
            expected = thick[..., 1] + k / 4 * (thick[..., 2] - thick[..., 1])
            np.testing.assert_allclose(view.image, expected, atol=1e-5)
        ((given, factor),) = spy.calls
        assert factor == 4 and given.shape[-1] == 4

    def test_kept(self, heads, tmp_path):
        """Strips are made again for other settings only; no slice of a longer one is left."""
        path, spy = heads / "head_000.nii.gz", Spy()
        more = [Spy("more"), spy]
        for sweep, spies, calls in ((4, [spy], 1), (4, [spy], 1), (3, [spy], 2), (3, more, 2), (3, [spy], 2)):
            settings = make_settings(path, tmp_path, sweep=sweep)
            file, _ = write_sweeps(make_item(path), settings, [one.method for one in spies])
            assert len(spy.calls) == calls and len(read_sweep(file, "spy")) == sweep + 1
        write_sweeps(make_item(path), make_settings(path, tmp_path, sweep=3, factors=[4]), [spy.method])
        assert len(spy.calls) == 3

    @pytest.mark.parametrize("there", [True, False])
    def test_volume_that_cannot_be_shown(self, tmp_path, there):
        item = make_item(tmp_path / "a.nii")
        if there:
            save(Path(item.path), rand(12, 12, 2))
        _, failures = write_sweeps(item, make_settings(tmp_path, tmp_path), [Spy().method])
        assert len(failures) == 1 and item.path in failures[0]


def test_series(tmp_path):
    """Frames of a time series are channels."""
    path = write_phantoms(tmp_path / "data", "heart", 0, (16, 14, 5), (8.0, 8.0, 12.0), num_frames=2)[0]
    result = evaluate_volume(make_item(path), make_settings(path, tmp_path, quick=False, panels=1), [Spy().method])
    assert not result.failures and math.isfinite(result.scores[0]["psnr"])
