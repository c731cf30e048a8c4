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

import csv
import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import stats
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn

from monai_sliceinterp.evaluation import (
    BASELINES,
    METRICS,
    MethodComparison,
    Score,
    compare,
    format_scores,
    score_volume,
    write_scores,
)
from monai_sliceinterp.inferers import LatentSliceInferer, SplineSliceInferer
from monai_sliceinterp.metrics import body_mask, slice_score
from monai_sliceinterp.networks.nets import ASIAutoencoder
from monai_sliceinterp.transforms import degrade

SUBSAMPLE = {"factor": 2, "fwhm": 0}


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def make_volume(num_slices=9, channels=1, seed=0, name="group/scan.nii.gz", spacing=2.0):
    affine = torch.diag(torch.tensor([1.0, 1.0, spacing, 1.0]))
    values = rand(channels, 14, 13, num_slices, seed=seed)
    return {"image": MetaTensor(values, affine=affine, meta={"filename_or_obj": name})}


def recorder(result):
    """A method that notes its inputs and answers with ``result(volume, factor)``."""
    calls = []

    def make(factor):
        def interpolate(volume):
            calls.append((factor, volume))
            return result(volume, factor)

        return interpolate

    return make, calls


def truth_of(volume, first=0):
    """A method that knows the answer."""
    return lambda thick, factor: volume["image"][None, ..., first : first + factor * (thick.shape[-1] - 1) + 1]


def by_method(scores):
    return {score.method: score for score in scores}


class TestScoreVolume:
    def test_identical(self):
        truth = rand(2, 12, 12, 6)
        scores = score_volume(truth[..., :5], truth, factor=2)
        exact = {"rmse": 0.0, "mse": 0.0, "sharpness": 1.0}
        assert scores == {"psnr": math.inf, "ssim": pytest.approx(1.0), "psnr_volume": math.inf, **exact}

    @pytest.mark.parametrize("data_range", [1.0, 50.0])
    @pytest.mark.parametrize("sigma", [0.01, 0.05])
    def test_known_noise(self, sigma, data_range):
        truth = (0.5 + torch.zeros(1, 64, 64, 9)) * data_range
        noise = sigma * data_range * torch.randn(1, 64, 64, 9, generator=torch.Generator().manual_seed(0))
        noise[..., ::2] = 0  # observed slices are exact
        scores = score_volume(truth + noise, truth, factor=2, data_range=data_range)
        assert scores["psnr"] == pytest.approx(-20 * math.log10(sigma), abs=0.15)
        # 4 of 9 slices are noisy
        assert scores["psnr_volume"] == pytest.approx(-20 * math.log10(sigma) + 10 * math.log10(9 / 4), abs=0.15)

    def test_by_hand(self):
        truth, pred = rand(2, 14, 13, 8), rand(2, 14, 13, 7, seed=1)
        scores = score_volume(pred, truth, factor=3)
        pairs = [(truth[c, ..., k].numpy(), pred[c, ..., k].numpy()) for c in range(2) for k in (1, 2, 4, 5)]
        together = [np.stack(images) for images in zip(*pairs, strict=True)]
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
        assert scores["psnr"] == pytest.approx(peak_signal_noise_ratio(*together, data_range=1.0))
        assert scores["ssim"] == pytest.approx(np.mean([structural_similarity(*p, **options) for p in pairs]), abs=1e-5)
        whole = peak_signal_noise_ratio(truth[..., :7].numpy(), pred.numpy(), data_range=1.0)
        assert scores["psnr_volume"] == pytest.approx(whole)

    def test_clips(self):
        truth = (rand(1, 12, 12, 5) > 0.5).float()
        assert score_volume(3 * truth - 1, truth, factor=2)["psnr_volume"] == math.inf
        assert score_volume(truth, 3 * truth - 1, factor=2)["psnr"] == math.inf


def by_scikit_image(first, second, inside, data_range=1.0):
    """PSNR and SSIM of images ``(K, H, W)`` over the pixels inside, where SSIM's window lies within the image."""
    first, second, inside = (np.asarray(images) for images in (first, second, inside))
    psnr = 10 * np.log10(data_range**2 / np.mean((first - second).astype(np.float64)[inside] ** 2))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
    values = []
    for image, truth, mask in zip(first, second, inside, strict=True):
        similarity = structural_similarity(truth, image, data_range=data_range, **options)[1]
        values.append(similarity[5:-5, 5:-5][mask[5:-5, 5:-5]])
    return psnr, np.concatenate(values).mean()


class TestBody:
    @pytest.mark.parametrize("data_range", [1.0, 50.0])
    def test_by_hand(self, data_range):
        """Only synthesized slices count, and of them what is inside; slices left over at the end do not."""
        truth, pred = data_range * rand(2, 16, 17, 8), data_range * rand(2, 16, 17, 7, seed=1)
        body = rand(2, 16, 17, 8, seed=2) > 0.6
        scores = score_volume(pred, truth, 3, data_range, body)
        synthesized = [1, 2, 4, 5]
        images = [volume[..., synthesized].permute(0, 3, 1, 2).flatten(0, 1) for volume in (pred, truth, body)]
        psnr, ssim = by_scikit_image(*images, data_range)
        assert scores["psnr_body"] == pytest.approx(psnr, rel=1e-5)
        assert scores["ssim_body"] == pytest.approx(ssim, abs=1e-5)
        whole = score_volume(pred, truth, 3, data_range)
        assert {key: scores[key] for key in whole} == whole
        assert set(scores) - set(whole) == {"psnr_body", "ssim_body", "rmse_body"}
        assert abs(scores["psnr_body"] - whole["psnr"]) > 1e-3 and abs(scores["ssim_body"] - whole["ssim"]) > 1e-4

    @pytest.mark.parametrize("phase", [0, 1])
    @pytest.mark.parametrize("threshold", [0.3, 0.6])
    def test_compare(self, threshold, phase):
        """The mask is that of the thin volume, from the first kept slice on, for every method."""
        volume = make_volume(9)
        volume["image"][:, 3:8, 3:8] += 0.5
        protocol = {"factor": 3, "fwhm": 0, "phase": phase}
        make, calls = recorder(lambda thick, k: SplineSliceInferer(factor=k, mode="linear")(thick) * 0.9)
        scores = by_method(compare([volume], {"mine": make}, [protocol], progress=False, body_threshold=threshold))
        body = body_mask(volume["image"], threshold)[..., phase:]
        assert 0.05 < body.float().mean() < 0.95
        pred = 0.9 * SplineSliceInferer(factor=3, mode="linear")(calls[0][1])[0]
        expected = score_volume(pred, volume["image"][..., phase:], 3, body=body)
        assert scores["mine"].psnr_body == expected["psnr_body"] and scores["mine"].ssim_body == expected["ssim_body"]
        assert all(math.isfinite(score.psnr_body) and math.isfinite(score.ssim_body) for score in scores.values())
        without = by_method(compare([volume], {"mine": make}, [protocol], progress=False))
        for name, score in without.items():
            assert math.isnan(score.psnr_body) and math.isnan(score.ssim_body)
            assert (score.psnr, score.ssim) == (scores[name].psnr, scores[name].ssim)

    def test_intensities_are_clipped(self):
        truth, body = (rand(1, 12, 12, 5) > 0.5).float(), torch.ones(1, 12, 12, 5, dtype=torch.bool)
        assert score_volume(3 * truth - 1, truth, 2, body=body)["psnr_body"] == math.inf

    def test_nobody_there(self):
        """A volume of air has no score inside the body, but still one of its slices."""
        volume = make_volume(9)
        scores = compare([volume], {}, [SUBSAMPLE], progress=False, body_threshold=2.0)
        assert all(math.isnan(score.psnr_body) and math.isnan(score.ssim_body) for score in scores)
        assert all(math.isfinite(score.psnr) for score in scores)


class TestSeveralResults:
    def test_scored_by_name(self):
        volume = make_volume(9)
        make, _ = recorder(
            lambda thick, k: {
                "exact": truth_of(volume)(thick, k),
                "linear again": SplineSliceInferer(factor=k, mode="linear")(thick),
            }
        )
        protocols = [SUBSAMPLE, {"factor": 4, "fwhm": 0}]
        scores = compare([volume], {"mine": make}, protocols, progress=False)
        assert [score.method for score in scores] == 2 * [*BASELINES, "exact", "linear again"]
        for part in (scores[:5], scores[5:]):
            found = by_method(part)
            assert found["exact"].psnr == math.inf
            assert found["linear again"].psnr == found["linear"].psnr

    def test_beside_others(self):
        volume = make_volume(9)
        several, _ = recorder(lambda thick, k: {"a": truth_of(volume)(thick, k), "b": truth_of(volume)(thick, k)})
        single, _ = recorder(truth_of(volume))
        scores = compare([volume], {"several": several, "single": single}, [SUBSAMPLE], progress=False)
        assert [score.method for score in scores] == [*BASELINES, "a", "b", "single"]

    def test_in_a_method_comparison(self, tmp_path):
        """The table tests the method among the results; the others are columns."""
        network = Offset()

        def inferer(factor):
            def interpolate(volume, network):
                result = SplineSliceInferer(factor=factor, mode="cubic")(volume)
                return {"half": result / 2 + network.weight, "mine": result + network.weight}

            return interpolate

        with torch.no_grad():
            table = MethodComparison([make_volume(9)], network, inferer, [SUBSAMPLE], "mine", tmp_path).run(False)
        row = dict(zip(cells(table.splitlines()[0]), cells(table.splitlines()[2]), strict=True))
        assert list(row)[3:8] == [*BASELINES, "half", "mine"]
        assert row["mine"] == row["cubic"] != row["half"]
        with (tmp_path / "scores.csv").open() as file:
            assert [line["method"] for line in csv.DictReader(file)] == [*BASELINES, "half", "mine"]


class TestProtocols:
    @pytest.mark.parametrize("factor", [2, 3, 4])
    def test_subsample(self, factor):
        volume = make_volume(10)
        make, calls = recorder(lambda thick, k: SplineSliceInferer(factor=k, mode="linear")(thick))
        scores = compare([volume], {"mine": make}, [{"factor": factor, "fwhm": 0}], progress=False)
        ((given, thick),) = calls
        assert given == factor
        assert torch.equal(thick.as_tensor(), volume["image"].as_tensor()[None, ..., ::factor])
        assert thick.affine[2, 2] == 2.0 * factor
        assert [score.method for score in scores] == [*BASELINES, "mine"]
        assert {(score.volume, score.group, score.protocol) for score in scores} == {
            ("scan", "group", f"subsample x{factor}")
        }
        found = by_method(scores)
        assert found["mine"].psnr == found["linear"].psnr
        assert len({score.psnr for score in scores}) == 3

    @pytest.mark.parametrize(("fwhm", "in_gaps", "title"), [(None, 3.0, "fwhm x3"), (4.0, 2.0, "fwhm 4 mm x3")])
    def test_slabs(self, fwhm, in_gaps, title):
        """Slabs as wide as the target spacing, or of a width in mm; the affine has 2 mm."""
        volume = make_volume(10)
        protocol = {"factor": 3} if fwhm is None else {"factor": 3, "fwhm": fwhm}
        make, calls = recorder(truth_of(volume))
        scores = compare([volume], {"mine": make}, [protocol], progress=False)
        ((factor, thick),) = calls
        assert factor == 3 and thick.shape == (1, 1, 14, 13, 4)
        torch.testing.assert_close(thick[0].as_tensor(), degrade(volume["image"].as_tensor(), 3, in_gaps))
        assert {score.protocol for score in scores} == {title}

    def test_several(self):
        volumes = [make_volume(9, name="a/one.nii"), make_volume(9, seed=1, name="b/two.mha")]
        protocols = [SUBSAMPLE, {"factor": 4, "fwhm": 0}, {"factor": 2}, {"factor": 2, "fwhm": 3.0}]
        scores = compare(volumes, {}, protocols, progress=False)
        assert len(scores) == 2 * 4 * 3
        keys = {(score.volume, score.group, score.protocol, score.method) for score in scores}
        assert len(keys) == len(scores)
        assert {key[:2] for key in keys} == {("one", "a"), ("two", "b")}

    @pytest.mark.parametrize(("num_slices", "scored"), [(2, 0), (3, 1), (4, 1), (5, 2), (8, 2)])
    def test_too_few_slices(self, num_slices, scored):
        protocols = [SUBSAMPLE, {"factor": 4, "fwhm": 0}]
        scores = compare([make_volume(num_slices)], {}, protocols, progress=False)
        assert len(scores) == 3 * scored
        assert len({score.protocol for score in scores}) == scored

    @pytest.mark.parametrize("phase", [1, 2])
    def test_phase(self, phase):
        """The truth starts where the thick volume does."""
        volume = make_volume(9)
        make, _ = recorder(truth_of(volume, first=phase))
        scores = by_method(
            compare([volume], {"mine": make}, [{"factor": 3, "fwhm": 0, "phase": phase}], progress=False)
        )
        assert scores["mine"].psnr == math.inf and scores["mine"].protocol == f"subsample x3 from {phase}"
        assert scores["linear"].psnr < 30

    def test_nameless_volumes_are_numbered(self):
        volumes = [{"image": MetaTensor(rand(1, 12, 12, 5))}, {"image": MetaTensor(rand(1, 12, 12, 5, seed=1))}]
        assert [s.volume for s in compare(volumes, {}, [SUBSAMPLE], progress=False)] == ["0"] * 3 + ["1"] * 3


class TestMethods:
    @pytest.mark.parametrize("protocol", [SUBSAMPLE, {"factor": 3, "fwhm": 0}])
    def test_ramp(self, protocol):
        """Linear and cubic interpolation are aligned with the truth: a ramp along z is met."""
        values = (torch.arange(61.0) / 60).expand(1, 12, 12, 61)
        scores = by_method(compare([{"image": MetaTensor(values)}], {}, [protocol], progress=False))
        assert scores["linear"].psnr > 120
        assert scores["cubic"].psnr > 50  # its mirrored ends bend
        assert scores["cubic"].psnr_volume > 50

    def test_perfect_method_wins(self):
        volumes = [make_volume(9, seed=k, name=f"g/{k}.nii") for k in range(6)]
        answers = iter([volume for volume in volumes for _ in range(2)])
        scores = compare(
            volumes,
            {"oracle": lambda factor: lambda thick: truth_of(next(answers))(thick, factor)},
            [SUBSAMPLE, {"factor": 4, "fwhm": 0}],
            progress=False,
        )
        oracle = [score for score in scores if score.method == "oracle"]
        assert len(oracle) == 12 and all(score.psnr == math.inf for score in oracle)
        assert all(score.ssim == pytest.approx(1) for score in oracle)
        for row in format_scores(scores, "oracle").splitlines()[2:]:
            assert "| 6 of 6 |" in row and "+inf dB" in row
            assert row.endswith(f"| {1 / 2**6:.2g} |")

    def test_channels_are_pooled(self):
        both = make_volume(9, channels=2)
        each = [{"image": both["image"][k, None]} for k in range(2)]
        found = by_method(compare([both], {}, [SUBSAMPLE], progress=False))
        parts = compare(each, {}, [SUBSAMPLE], progress=False)
        for name in BASELINES:
            errors = [10 ** (-score.psnr / 10) for score in parts if score.method == name]
            assert found[name].psnr == pytest.approx(-10 * math.log10(np.mean(errors)), rel=1e-6)
            similarities = [score.ssim for score in parts if score.method == name]
            assert found[name].ssim == pytest.approx(np.mean(similarities), rel=1e-6)
            assert errors[0] != errors[1] and similarities[0] != similarities[1]


def rows(method, values, protocol="p", group="g", ssim=0.5):
    return [Score(f"v{k}", group, protocol, method, value, ssim, 0.0) for k, value in enumerate(values)]


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


class TestTable:
    LINEAR = [20.0, 25.0, 30.0, 22.0, 28.0]
    CUBIC = [21.0, 24.0, 31.0, 23.0, 27.5]
    MINE = [21.5, 24.25, 30.5, 25.0, 29.0]

    def table(self):
        scores = rows("linear", self.LINEAR, ssim=0.4) + rows("cubic", self.CUBIC) + rows("mine", self.MINE, ssim=0.75)
        return format_scores(scores, "mine").splitlines()

    def test_arithmetic(self):
        head, rule, row = self.table()
        assert cells(head) == ["group", "protocol", "n", "linear", "cubic", "mine", "gain", "wins", "p"]
        assert cells(rule) == ["---"] * 9
        assert cells(row)[:-1] == [
            "g",
            "p",
            "5",
            "25.00 / 0.4000",
            "25.30 / 0.5000",
            "26.05 / 0.7500",
            "+0.75 dB over cubic",  # the better of the two by mean
            "4 of 5",
        ]

    def test_p_value(self):
        difference = np.subtract(self.MINE, self.CUBIC)
        expected = stats.wilcoxon(difference, alternative="greater").pvalue
        assert cells(self.table()[2])[-1] == f"{expected:.2g}"
        # ranks of |d| = .5, .25, .5, 2, 1.5: the one loss is the rank 2.5, so sums up to 2.5 count, among 32 signs
        assert 0.05 < expected < 0.25

    def test_p_value_by_counting(self):
        """All five differences positive and distinct: one of the 32 sign patterns."""
        scores = rows("linear", [10] * 5) + rows("cubic", [11] * 5) + rows("mine", [12, 13, 14, 15, 16])
        assert cells(format_scores(scores, "mine").splitlines()[2])[-1] == f"{1 / 32:.2g}"

    def test_better_baseline_per_row(self):
        scores = rows("linear", [30.0], "a") + rows("cubic", [29.0], "a") + rows("mine", [28.0], "a")
        scores += rows("linear", [20.0], "b") + rows("cubic", [21.0], "b") + rows("mine", [24.5], "b")
        first, second = (cells(line) for line in format_scores(scores, "mine").splitlines()[2:])
        assert first[1] == "a" and first[6:8] == ["-2.00 dB over linear", "0 of 1"]
        assert second[1] == "b" and second[6:8] == ["+3.50 dB over cubic", "1 of 1"]

    def test_groups_are_not_mixed(self):
        scores = []
        for group, shift in (("heart", 0.0), ("head", 10.0)):
            for name, value in (("linear", 20.0), ("cubic", 21.0), ("mine", 22.0)):
                scores += rows(name, [value + shift] * 2, group=group)
        found = [cells(line) for line in format_scores(scores, "mine").splitlines()[2:]]
        assert [row[0] for row in found] == ["heart", "head"]
        assert [row[2:6] for row in found] == [
            ["2", f"{20 + s:.2f} / 0.5000", f"{21 + s:.2f} / 0.5000", f"{22 + s:.2f} / 0.5000"] for s in (0, 10)
        ]

    @pytest.mark.parametrize("value", [25.0, math.inf])
    def test_tie(self, value):
        """Equal scores, infinite ones too: no gain, no win, no significance."""
        scores = rows("linear", [20.0, 20.0]) + rows("cubic", [value] * 2) + rows("mine", [value] * 2)
        assert cells(format_scores(scores, "mine").splitlines()[2])[6:] == ["+0.00 dB over cubic", "0 of 2", "1"]


class TestRegion:
    def scores(self):
        return [
            Score("v", "g", "p", name, 20.0 + k, 0.5, 20.0, 30.0 - 2 * k, 0.9 - k / 10)
            for k, name in enumerate(["linear", "cubic", "mine"])
        ]

    def test_inside_the_body(self):
        """Means, the better baseline, the gain and the wins are all of the region's scores."""
        row = cells(format_scores(self.scores(), "mine", "body").splitlines()[2])
        assert row[3:] == ["30.00 / 0.9000", "28.00 / 0.8000", "26.00 / 0.7000", "-4.00 dB over linear", "0 of 1", "1"]
        row = cells(format_scores(self.scores(), "mine").splitlines()[2])
        assert row[3:] == ["20.00 / 0.5000", "21.00 / 0.5000", "22.00 / 0.5000", "+1.00 dB over cubic", "1 of 1", "0.5"]
        assert format_scores(self.scores(), "mine") == format_scores(self.scores(), "mine", region="slices")

    def test_unknown(self):
        with pytest.raises(ValueError, match="unknown region 'lung'; expected one of slices, body"):
            format_scores(self.scores(), "mine", "lung")


class TestFiles:
    def test_csv_round_trip(self, tmp_path):
        volume = make_volume(9, name='a, b/scan "x".nii')
        scores = compare([volume], {}, [SUBSAMPLE], progress=False, body_threshold=0.2)
        write_scores(scores, tmp_path / "scores.csv")
        with (tmp_path / "scores.csv").open(newline="") as file:
            read = list(csv.DictReader(file))
        back = [Score(**{key: float(v) if key in METRICS else v for key, v in row.items()}) for row in read]
        assert str(back) == str(scores) and len(back) == 3  # as text, where NaN is equal to itself
        assert back[0].group == "a, b"


class Offset(nn.Module):
    """Counts its uses; must be in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class TestMethodComparison:
    def test_files_and_table(self, tmp_path):
        volumes = [make_volume(9, seed=k, name=f"g/{k}.nii") for k in range(2)]
        seen = []

        def inferer(factor):
            def interpolate(volume, network):
                seen.append((factor, network.training))
                return SplineSliceInferer(factor=factor, mode="linear")(volume) + network.weight.detach()

            return interpolate

        network = Offset().train()
        comparison = MethodComparison(volumes, network, inferer, [SUBSAMPLE], "mine", tmp_path / "new" / "out")
        table = comparison.run(progress=False)
        assert seen == [(2, False), (2, False)]
        assert (tmp_path / "new" / "out" / "scores.md").read_text() == table + "\n"
        lines = (tmp_path / "new" / "out" / "scores.csv").read_text().splitlines()
        assert len(lines) == 1 + 2 * 4
        row = dict(zip(cells(table.splitlines()[0]), cells(table.splitlines()[2]), strict=True))
        assert row["mine"] == row["linear"] and row["n"] == "2"

    def test_second_table_for_the_body(self, tmp_path):
        volume = make_volume(9)
        volume["image"][:, :4] *= 0.1
        arguments = ([volume], Offset(), lambda factor: lambda thick, network: SplineSliceInferer(factor)(thick))
        comparison = MethodComparison(*arguments, [SUBSAMPLE], "mine", tmp_path, body_threshold=0.4)
        table = comparison.run(progress=False)
        assert (tmp_path / "scores.md").read_text() == table + "\n"
        whole, body = table.split("\n\ninside the body:\n")
        assert whole == MethodComparison(*arguments, [SUBSAMPLE], "mine").run(progress=False)
        with (tmp_path / "scores.csv").open() as file:
            lines = {line["method"]: line for line in csv.DictReader(file)}
        for part, suffix in ((whole, ""), (body, "_body")):
            row = dict(zip(cells(part.splitlines()[0]), cells(part.splitlines()[2]), strict=True))
            for name in BASELINES:
                psnr, ssim = (float(lines[name][key + suffix]) for key in ("psnr", "ssim"))
                assert row[name] == f"{psnr:.2f} / {ssim:.4f}"
        thin, mask = volume["image"].as_tensor()[0], body_mask(volume["image"], 0.4)[0]
        linear = (thin[..., :-1:2] + thin[..., 2::2]) / 2
        first, second, inside = (
            images.movedim(-1, 0)[:, None] for images in (linear, thin[..., 1::2], mask[..., 1::2])
        )
        expected = slice_score(first, second, "psnr", mask=inside).item()
        assert float(lines["linear"]["psnr_body"]) == pytest.approx(expected, rel=1e-5)

    def test_latent_network(self):
        torch.manual_seed(0)
        network = ASIAutoencoder(channels=(2,), latent_channels=2)
        volume = make_volume(5)
        table = MethodComparison([volume], network, LatentSliceInferer, [SUBSAMPLE], "asi").run(progress=False)
        row = dict(zip(cells(table.splitlines()[0]), cells(table.splitlines()[2]), strict=True))
        thick = volume["image"].as_tensor()[None, ..., ::2]
        pred = LatentSliceInferer(factor=2)(thick, network.eval())[0]
        expected = score_volume(pred, volume["image"], 2)
        assert row["asi"] == f"{expected['psnr']:.2f} / {expected['ssim']:.4f}"
