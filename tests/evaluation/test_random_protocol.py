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

"""Scores of restored volumes: all slices count, and what is drawn for a volume is the same for every method."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import IgniteMetricHandler
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn

from monai_sliceinterp.evaluation import BASELINES, MethodComparison, compare, score_volume
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.metrics import SynthesizedSliceMetric, body_mask, synthesized_pairs
from monai_sliceinterp.transforms import Degrader, RandDegrader

RANDOM = {"factor": 4, "random": {"sigma_range": [0, 3.2], "noise_range": [0, 0.005], "seed": 3}}
SUBSAMPLE = {"factor": 4, "random": {"sigma_range": [0, 0], "seed": 3}}
"""Nothing is random but the phase."""


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def make_volume(num_slices=23, channels=1, seed=0, spacing=1.5):
    affine = torch.diag(torch.tensor([1.0, 1.0, spacing, 1.0]))
    values = 0.1 + 0.8 * rand(channels, 14, 13, num_slices, seed=seed)
    return {"image": MetaTensor(values, affine=affine, meta={"filename_or_obj": f"group/{seed}.nii.gz"})}


def spy(calls, result=None):
    """Methods that note what they are given, and answer with a spline or ``result(thick, factor)``."""

    def make(factor):
        def interpolate(thick):
            calls.append(thick)
            return (result or (lambda x, k: SplineSliceInferer(factor=k, mode="linear")(x)))(thick, factor)

        return interpolate

    return make


def oracle(thin):
    """A method that knows the thin volume; it reads from the affine which slices are asked for."""

    def result(thick, factor):
        first = round(float(np.linalg.solve(np.asarray(thin.affine), np.asarray(thick.affine[:, 3]))[2]))
        count = factor * (thick.shape[-1] - 1) + 1
        return thin[None, ..., first : first + count]

    return result


def given(volumes, protocols, number_of_methods=1, **options):
    """What methods are given, and the scores."""
    calls: list = []
    methods = {f"spy {k}": spy(calls) for k in range(number_of_methods)}
    return calls, compare(volumes, methods, protocols, progress=False, **options)


def same(first, second):
    return torch.equal(first.as_tensor(), second.as_tensor()) and torch.equal(first.affine, second.affine)


OPTIONS = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


class TestObservedSlices:
    @pytest.mark.parametrize(("count", "length"), [(9, 9), (9, 12), (5, 7), (1, 4)])
    def test_pairs(self, count, length):
        pred, truth = rand(2, 3, 4, count), rand(2, 3, 4, length, seed=1)
        first, second = synthesized_pairs(MetaTensor(pred), truth, 4, include_observed=True)
        assert type(first) is type(second) is torch.Tensor
        assert torch.equal(first, pred.permute(3, 0, 1, 2).reshape(2 * count, 1, 3, 4))
        assert torch.equal(second, truth[..., :count].permute(3, 0, 1, 2).reshape(2 * count, 1, 3, 4))

    def test_factor_one(self):
        """Nothing is synthesized, but there is something to score."""
        volume = rand(1, 3, 4, 5)
        assert len(synthesized_pairs(volume, volume, 1, include_observed=True)[0]) == 5
        with pytest.raises(ValueError, match="no synthesized slice"):
            synthesized_pairs(volume, volume, 1)

    def test_default_is_without(self):
        pred, truth = rand(1, 3, 4, 9), rand(1, 3, 4, 11, seed=1)
        for pairs in (synthesized_pairs(pred, truth, 4), synthesized_pairs(pred, truth, 4, include_observed=False)):
            for found, volume in zip(pairs, (pred, truth), strict=True):
                assert torch.equal(found, volume[..., [1, 2, 3, 5, 6, 7]].permute(3, 0, 1, 2))

    @pytest.mark.parametrize(("count", "length"), [(9, 8), (9, 13)])
    def test_not_of_one_volume(self, count, length):
        with pytest.raises(ValueError, match="does not belong to a truth"):
            synthesized_pairs(rand(1, 3, 4, count), rand(1, 3, 4, length), 4, include_observed=True)

    @pytest.mark.parametrize("data_range", [1.0, 20.0])
    @pytest.mark.parametrize("length", [9, 11])
    @pytest.mark.parametrize("observed", [True, False])
    def test_metric(self, observed, length, data_range):
        """Mean over volumes of their scores by scikit-image; intensities outside the range are clipped."""
        truth = data_range * (1.2 * rand(2, 2, 15, 14, length) - 0.1)
        pred = data_range * (1.2 * rand(2, 2, 15, 14, 9, seed=1) - 0.1)
        pred[..., ::4] = truth[..., :9:4] + 0.01 * data_range  # observed slices are better
        slices = [k for k in range(9) if observed or k % 4]
        values: dict = {"psnr": [], "ssim": []}
        for one, other in zip(*(x.clamp(0, data_range).double().numpy() for x in (truth, pred)), strict=True):
            images = [np.moveaxis(x[..., slices], -1, 0).reshape(-1, 15, 14) for x in (one, other)]
            values["psnr"].append(peak_signal_noise_ratio(*images, data_range=data_range))
            pairs = zip(*images, strict=True)
            values["ssim"].append(np.mean([structural_similarity(*p, data_range=data_range, **OPTIONS) for p in pairs]))
        for name, expected in values.items():
            metric = SynthesizedSliceMetric(name, 4, data_range, observed)
            metric(pred, truth)
            assert metric.aggregate().item() == pytest.approx(np.mean(expected), rel=1e-5, abs=1e-5)
            if not observed:
                default = SynthesizedSliceMetric(name, 4, data_range)
                default(pred, truth)
                assert torch.equal(default.aggregate(), metric.aggregate())

    def test_in_an_engine(self):
        volumes = [rand(1, 1, 15, 14, 9, seed=k) for k in range(3)]

        def step(engine, truth):
            pred = truth.clone()
            pred[..., ::4] += 0.1  # nothing but observed slices is wrong
            return pred.clamp(0, 1), truth

        evaluator = Engine(step)
        for name, observed in (("every", True), ("between", False)):
            metric = SynthesizedSliceMetric("psnr", 4, include_observed=observed)
            IgniteMetricHandler(metric_fn=metric, output_transform=lambda pair: pair).attach(evaluator, name)
        evaluator.run([0.9 * volume for volume in volumes])
        assert evaluator.state.metrics["between"] == math.inf
        assert evaluator.state.metrics["every"] == pytest.approx(20 + 10 * math.log10(9 / 3), abs=1e-3)

    @pytest.mark.parametrize("length", [9, 12])
    def test_score_volume(self, length):
        truth, pred = rand(2, 14, 13, length), rand(2, 14, 13, 9, seed=1)
        pred[..., ::4] = 0.9 * truth[..., :9:4]
        body = rand(2, 14, 13, length, seed=2) > 0.4
        found = score_volume(pred, truth, 4, body=body, include_observed=True)
        images = [np.moveaxis(x[..., :9].numpy(), -1, 1).reshape(-1, 14, 13) for x in (truth, pred, body)]
        psnr = peak_signal_noise_ratio(*images[:2], data_range=1.0)
        assert found["psnr"] == pytest.approx(psnr) and found["psnr_volume"] == pytest.approx(psnr)
        maps, values = [], []
        for one, other, mask in zip(*images, strict=True):
            mean, each = structural_similarity(one, other, data_range=1.0, full=True, **OPTIONS)
            values.append(mean)
            maps.append(each[5:-5, 5:-5][mask[5:-5, 5:-5]])
        assert found["ssim"] == pytest.approx(np.mean(values), abs=1e-5)
        assert found["ssim_body"] == pytest.approx(np.concatenate(maps).mean(), abs=1e-5)
        error = ((images[0] - images[1]).astype(np.float64) ** 2)[images[2]].mean()
        assert found["psnr_body"] == pytest.approx(-10 * np.log10(error), rel=1e-5)
        between = score_volume(pred, truth, 4, body=body)
        assert between == score_volume(pred, truth, 4, body=body, include_observed=False)
        assert between["psnr_volume"] == found["psnr_volume"]
        assert all(between[name] < found[name] - 1e-3 for name in ("psnr", "ssim", "psnr_body", "ssim_body"))


class TestWhatIsDrawn:
    def test_same_for_every_method(self):
        calls, scores = given([make_volume()], [RANDOM], 3)
        assert [score.method for score in scores] == [*BASELINES, "spy 0", "spy 1", "spy 2"]
        assert len(calls) == 3 and same(calls[0], calls[1]) and same(calls[0], calls[2])
        found = {score.method: score.psnr for score in scores}
        assert found["linear"] == found["spy 0"] == found["spy 2"]  # the baselines get it too
        assert {score.protocol for score in scores} == {"random x4"}
        assert {(score.volume, score.group) for score in scores} == {("0", "group")}

    def test_reproducible(self):
        volumes = [make_volume(seed=k) for k in range(3)]
        first, scores = given(volumes, [RANDOM])
        np.random.seed(7)
        torch.manual_seed(7)
        second, again = given(volumes, [RANDOM])
        assert all(same(*pair) for pair in zip(first, second, strict=True))
        assert [(s.psnr, s.ssim) for s in scores] == [(s.psnr, s.ssim) for s in again]

    def test_global_random_state_is_left_alone(self):
        numpy, pytorch = np.random.get_state()[1].copy(), torch.get_rng_state()
        given([make_volume()], [RANDOM])
        assert (np.random.get_state()[1] == numpy).all() and torch.equal(torch.get_rng_state(), pytorch)

    def test_order_of_protocols(self):
        """Nor does it matter which others there are, or how many methods."""
        volumes = [make_volume(33, seed=k) for k in range(3)]
        others = [{"factor": 2, "fwhm": 0}, {**RANDOM, "factor": 8}]
        alone, _ = given(volumes, [RANDOM])
        for protocols in ([RANDOM, *others], [*others, RANDOM], [others[1], RANDOM, others[0]]):
            calls, scores = given(volumes, protocols, 2)
            place = protocols.index(RANDOM)
            for number, expected in enumerate(alone):
                assert same(calls[6 * number + 2 * place], expected)
            assert len({score.protocol for score in scores}) == 3

    def test_protocol_is_left_alone(self):
        protocol = {"factor": 4, "random": {"sigma_range": [0, 3.2], "noise_range": [0, 0.005], "seed": 3}}
        given([make_volume(), make_volume()], [protocol])
        assert protocol == RANDOM

    def test_volumes_differ(self):
        """The same volume several times: each is degraded in its own way."""
        calls, scores = given([make_volume() for _ in range(12)], [RANDOM])
        thickness = [round(float(call.meta["slice_thickness"]), 4) for call in calls]
        assert len(set(thickness)) == 12
        assert 0 < min(thickness) < 3 and max(thickness) > 6  # of at most 3.2 * 2.355 * 1.5 mm
        assert {round(float(call.affine[2, 3]) / 1.5) for call in calls} == {0, 1, 2, 3}
        assert len({score.psnr for score in scores if score.method == "linear"}) == 12

    def test_a_volume_left_out_does_not_shift_the_others(self):
        thin = [make_volume(seed=k) for k in range(3)]
        with_small = [make_volume(4), *thin[1:]]
        expected, _ = given(thin, [RANDOM])
        calls, scores = given(with_small, [RANDOM])
        assert len(calls) == 2 and len(scores) == 2 * 4
        assert same(calls[0], expected[1]) and same(calls[1], expected[2])

    @pytest.mark.parametrize("number", [0, 1])
    def test_seeds(self, number):
        volumes = [make_volume(), make_volume()]
        seeds = [{}, {"seed": 0}, {"seed": 1}, {"seed": 2}]
        calls = [given(volumes, [{"factor": 4, "random": {"sigma_range": [0, 3], **k}}])[0][number] for k in seeds]
        assert same(calls[0], calls[1])
        thickness = {float(call.meta["slice_thickness"]) for call in calls[1:]}
        assert len(thickness) == 3

    def test_defaults_are_the_degraders(self):
        """Slabs of 0 to 3.2 voxels, no noise."""
        calls, _ = given([make_volume() for _ in range(30)], [{"factor": 4, "random": {}}])
        sigmas = [float(call.meta["slice_thickness"]) / 1.5 / 2.35482 for call in calls]
        assert 0 <= min(sigmas) < 0.5 and 2.7 < max(sigmas) <= 3.2
        constant = {"image": MetaTensor(torch.full((1, 12, 12, 23), 0.5))}
        (thick,), _ = given([constant], [{"factor": 4, "random": {}}])
        torch.testing.assert_close(thick.as_tensor(), torch.full((1, 1, 12, 12, thick.shape[-1]), 0.5))

    def test_arguments_of_the_degrader(self):
        """What is drawn is what a degrader with the same settings may draw, at the thin volume's spacing."""
        thin = make_volume(40)["image"]
        settings = {"fwhm_range": [4.5, 4.5], "profiles": ["box"], "random_phase": False}
        (thick,), _ = given([{"image": thin}], [{"factor": 5, "random": settings}])
        expected = Degrader(factor=5, fwhm=4.5, profile="box")(thin).thick
        torch.testing.assert_close(thick[0].as_tensor(), expected.as_tensor())
        assert thick.affine[2, 2] == 7.5 and thick.meta["slice_thickness"] == 4.5

    def test_unknown_settings(self):
        with pytest.raises(TypeError, match="blurriness"):
            compare([make_volume()], {}, [{"factor": 4, "random": {"blurriness": 3}}], progress=False)

    def test_different_protocols_differ_in_name(self):
        """Else their scores would be pooled in one row of the table."""
        weak, strong = ({"factor": 4, "random": {"sigma_range": [k, k]}} for k in (0.2, 3))
        _, scores = given([make_volume()], [weak, strong])
        assert len({score.psnr for score in scores if score.method == "linear"}) == 2
        assert len({score.protocol for score in scores}) == 2


class TestScores:
    def test_phase(self):
        """The truth begins at the first kept slice: who knows it is perfect, whatever the phase."""
        volumes = [make_volume(seed=k) for k in range(10)]
        phases = []
        for number, volume in enumerate(volumes):
            calls: list = []
            methods = {"oracle": spy(calls, oracle(volume["image"]))}
            before = [make_volume(4)] * number  # too small, but they count
            scores = compare([*before, volume], methods, [SUBSAMPLE], progress=False)
            (thick,) = calls
            phase = round(float(thick.affine[2, 3]) / 1.5)
            phases.append(phase)
            assert torch.equal(thick[0].as_tensor(), volume["image"].as_tensor()[..., phase::4])
            assert thick.affine[2, 2] == 6.0
            assert scores[-1].method == "oracle" and scores[-1].psnr == scores[-1].psnr_volume == math.inf
            assert scores[-1].ssim == pytest.approx(1)
            assert max(score.psnr for score in scores[:-1]) < 30
        assert set(phases) == {0, 1, 2, 3}

    def test_without_random_phase(self):
        volume = make_volume()
        protocol = {"factor": 4, "random": {"sigma_range": [0, 0], "random_phase": False}}
        for number in range(4):
            calls, _ = given([*[make_volume(4)] * number, volume], [protocol])
            assert torch.equal(calls[0][0].as_tensor(), volume["image"].as_tensor()[..., ::4])

    def test_all_slices_are_scored(self):
        """By hand, with slices at observed positions that are wrong, and the slices past the last one left out."""
        volume = make_volume(24, channels=2)
        volume["image"][:, 7:] *= 0.2
        calls: list = []
        methods = {"spoiled": spy(calls, lambda x, k: 0.9 * SplineSliceInferer(factor=k, mode="cubic")(x))}
        scores = compare([volume], methods, [RANDOM], progress=False, body_threshold=0.3)
        phase = round(float(calls[0].affine[2, 3]) / 1.5)
        pred = 0.9 * SplineSliceInferer(factor=4, mode="cubic")(calls[0])[0].as_tensor()
        truth = volume["image"].as_tensor()[..., phase : phase + pred.shape[-1]]
        error = (pred.clamp(0, 1) - truth).double() ** 2
        expected = -10 * math.log10(error.mean())
        found = scores[-1]
        assert found.psnr == pytest.approx(expected, rel=1e-6)
        assert found.psnr_volume == pytest.approx(expected, rel=1e-6)
        between = [k for k in range(pred.shape[-1]) if k % 4]
        assert abs(expected + 10 * math.log10(error[..., between].mean())) > 0.05
        body = body_mask(volume["image"], 0.3)[..., phase : phase + pred.shape[-1]]
        assert 0.2 < body.float().mean() < 0.95
        assert found.psnr_body == pytest.approx(-10 * math.log10(error[body].mean()), rel=1e-5)
        by_hand = score_volume(pred, truth, 4, body=body, include_observed=True)
        assert found.ssim_body == by_hand["ssim_body"] and abs(found.ssim_body - found.ssim) > 0.01
        images = [np.moveaxis(x.numpy(), -1, 0).reshape(-1, 14, 13) for x in (truth, pred)]
        pairs = zip(*images, strict=True)
        ssim = np.mean([structural_similarity(*pair, data_range=1.0, **OPTIONS) for pair in pairs])
        assert found.ssim == pytest.approx(ssim, abs=1e-5)

    def test_other_protocols_score_what_is_synthesized(self):
        """Beside a random one, too."""
        volume = make_volume()
        sub = {"factor": 4, "fwhm": 0}
        (_, alone), (_, beside) = given([volume], [sub]), given([volume], [RANDOM, sub])
        assert [s.psnr for s in beside[4:]] == [s.psnr for s in alone]
        assert [s.protocol for s in beside] == 4 * ["random x4"] + 4 * ["subsample x4"]
        for score in alone:  # 6 of 21 slices are observed
            assert score.psnr_volume - score.psnr == pytest.approx(10 * math.log10(21 / 15), abs=1e-3)
        assert all(score.psnr == pytest.approx(score.psnr_volume, rel=1e-5) for score in beside[:4])

    @pytest.mark.parametrize("sigma", [0.005, 0.05])
    @pytest.mark.parametrize("factor", [1, 2, 4])
    def test_noise(self, factor, sigma):
        """Linear interpolation of noise: alpha ** 2 + (1 - alpha) ** 2 of its variance, all of it where observed."""
        thin = MetaTensor(torch.full((1, 64, 64, 25), 0.5))
        protocol = {"factor": factor, "random": {"sigma_range": [0, 0], "noise_range": [sigma, sigma]}}
        (thick,), scores = given([{"image": thin}], [protocol])
        assert float((thick.as_tensor() - 0.5).std()) == pytest.approx(sigma, rel=0.02)
        count = factor * (thick.shape[-1] - 1) + 1
        alphas = np.arange(count) % factor / factor
        expected = -20 * math.log10(sigma) - 10 * math.log10(np.mean(alphas**2 + (1 - alphas) ** 2))
        assert scores[0].method == "linear" and scores[0].psnr == pytest.approx(expected, abs=0.3)

    def test_noise_differs_between_volumes(self):
        thin = MetaTensor(torch.full((1, 16, 16, 9), 0.5))
        protocol = {"factor": 4, "random": {"sigma_range": [0, 0], "noise_range": [0.01, 0.01], "random_phase": False}}
        (first, second), _ = given([{"image": thin}, {"image": thin}], [protocol])
        correlation = np.corrcoef(first.flatten().numpy(), second.flatten().numpy())[0, 1]
        assert abs(correlation) < 0.15

    @pytest.mark.parametrize(
        ("num_slices", "factors"), [(2, []), (4, []), (5, [4]), (8, [4]), (9, [4, 8]), (12, [4, 8])]
    )
    def test_too_few_slices(self, num_slices, factors):
        protocols = [{**RANDOM, "factor": factor} for factor in (4, 8)]
        for number in range(4):  # whatever the phase drawn
            volumes = [*[make_volume(2)] * number, make_volume(num_slices)]
            scores = compare(volumes, {}, protocols, progress=False)
            assert [score.protocol for score in scores] == [f"random x{k}" for k in factors for _ in BASELINES]
            assert all(math.isfinite(score.psnr) for score in scores)

    def test_intensity_range(self):
        """Noise is in the volumes' units, and PSNR is of their range."""
        thin = MetaTensor(torch.full((1, 64, 64, 9), 50.0))
        protocol = {"factor": 4, "random": {"sigma_range": [0, 0], "noise_range": [2, 2], "random_phase": False}}
        _, scores = given([{"image": thin}], [protocol], data_range=100.0)
        alphas = np.arange(9) % 4 / 4
        expected = 20 * math.log10(50) - 10 * math.log10(np.mean(alphas**2 + (1 - alphas) ** 2))
        assert scores[0].psnr == pytest.approx(expected, abs=0.3)

    def test_in_a_method_comparison(self, tmp_path):
        volumes = [make_volume(seed=k) for k in range(2)]

        def inferer(factor):
            return lambda volume, network: network(SplineSliceInferer(factor=factor, mode="cubic")(volume))

        network = nn.Module()
        network.weight = nn.Parameter(torch.zeros(()))
        network.forward = lambda x: x + network.weight.detach()
        table = MethodComparison(volumes, network, inferer, [RANDOM], "mine", tmp_path).run(progress=False)
        (row,) = table.splitlines()[2:]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[:3] == ["group", "random x4", "2"] and cells[4] == cells[6]

    def test_degrader_alone_does_the_same(self):
        """The oracle of this file: the thick volume belongs to its phase and width by the affine and the metadata."""
        thin = make_volume(40)["image"]
        (thick,), _ = given([{"image": thin}], [{"factor": 4, "random": {"sigma_range": [0.5, 3]}}])
        phase = round(float(thick.affine[2, 3]) / 1.5)
        expected = Degrader(factor=4, fwhm=float(thick.meta["slice_thickness"]), phase=phase)(thin).thick
        torch.testing.assert_close(thick[0].as_tensor(), expected.as_tensor())
        drawn = RandDegrader(factors=(4,), sigma_range=(0.5, 3)).set_random_state(seed=0)(thin)
        assert torch.equal(drawn.thick.as_tensor(), thick[0].as_tensor())
