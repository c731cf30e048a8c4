# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Protocols: their names, what they make of a volume, and that draws are the same for every method."""

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_sliceinterp.evaluation import BASELINES, compare, make_protocols, read_protocols
from monai_sliceinterp.evaluation.protocols import PROTOCOLS
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.metrics import body_mask, score_volume
from monai_sliceinterp.transforms import Degrader, RandDegrader

RANDOM = {"factor": 4, "random": {"sigma_range": [0, 3.2], "noise_range": [0, 0.005], "seed": 3}}


def make_volume(num_slices=23, channels=1, seed=0, spacing=1.5):
    affine = torch.diag(torch.tensor([1.0, 1.0, spacing, 1.0]))
    values = torch.rand(channels, 14, 13, num_slices, generator=torch.Generator().manual_seed(seed))
    return {"image": MetaTensor(0.1 + 0.8 * values, affine=affine, meta={"filename_or_obj": f"group/{seed}.nii.gz"})}


def constant(value, size=64, num_slices=9):
    return {"image": MetaTensor(torch.full((1, size, size, num_slices), value))}


def titles(protocols):
    return [protocol.title for protocol in protocols]


class TestByName:
    def test_names_then_factors(self):
        protocols = make_protocols(["fwhm", "subsample", "leave_one_out", "random"], [4, 2], seed=7)
        slabs = {"sigma_range": [0.0, 3.2], "noise_range": [0.0, 0.005], "seed": 7}
        assert {protocol.title: dict(protocol.settings) for protocol in protocols} == {
            "fwhm x4": {"factor": 4},
            "fwhm x2": {"factor": 2},
            "subsample x4": {"factor": 4, "fwhm": 0},
            "subsample x2": {"factor": 2, "fwhm": 0},
            "leave-one-out": {"protocol": "leave_one_out", "phase": 0},
            "leave-one-out from 1": {"protocol": "leave_one_out", "phase": 1},
            "random x4": {"factor": 4, "random": slabs},
            "random x2": {"factor": 2, "random": slabs},
        }
        assert [p.factor for p in protocols] == [4, 2, 4, 2, 2, 2, 4, 2]
        assert [p.include_observed for p in protocols] == [False] * 6 + [True] * 2
        assert [p.identity(5).get("number") for p in protocols] == [None] * 6 + [5] * 2

    def test_leave_one_out_needs_no_factor(self):
        assert make_protocols(["leave_one_out"], []) == make_protocols(["leave_one_out"], [2, 3])

    @pytest.mark.parametrize(
        ("names", "factors", "message"),
        [
            *(
                (["subsample"], [2, k], f"factor must be an integer of at least 2, got {k!r}")
                for k in (1, 0, -2, "2", True)
            ),
            (["subsampel"], [2], "unknown protocol 'subsampel'; .*leave_one_out; did you mean 'subsample'?"),
            (["leave_one_out", "subsample"], [], "nothing to evaluate; expected at least one protocol and one factor"),
            ([], [2], "nothing to evaluate"),
            (["fwhm", "subsample", "fwhm"], [2], "protocol 'fwhm' is given twice; expected different ones"),
            (["fwhm"], [4, 2, 4], "factor 4 is given twice; expected different ones"),
        ],
    )
    def test_misuse(self, names, factors, message):
        with pytest.raises(ValueError, match=message):
            make_protocols(names, factors)

    @pytest.mark.parametrize("count", range(2, 11))
    @pytest.mark.parametrize("name", PROTOCOLS)
    def test_enough_slices(self, name, count):
        """As many as degrading takes, whatever is drawn."""
        for protocol in make_protocols([name], [2, 4, 7]):
            possible = True
            for number in range(4 if name == "random" else 1):
                try:
                    possible &= protocol.trial(make_volume(count)["image"], number).thick.shape[-1] >= 2
                except ValueError:
                    possible = False
            assert protocol.can_score(count) == possible


class TestSettings:
    def test_titles(self):
        """Different protocols differ in name; one that has a title keeps it, and is what it was."""
        settings = [{"factor": 2, "fwhm": 3.5}, {"factor": 2, "fwhm": 0, "phase": 1}]
        protocols = read_protocols([*settings, RANDOM, {**RANDOM, "title": "mine"}])
        assert titles(protocols) == ["fwhm 3.5 mm x2", "subsample x2 from 1", "random x4", "mine"]
        assert protocols[2].settings == protocols[3].settings and read_protocols(protocols) == protocols
        thin = make_volume()["image"]
        assert torch.equal(*(protocol.trial(thin, 3).thick.as_tensor() for protocol in protocols[2:]))
        weak, strong = ({"factor": 4, "random": {"sigma_range": [k, k]}} for k in (0.2, 3))
        assert RANDOM["random"]["seed"] == 3, "the settings are left alone"
        assert titles(read_protocols([weak, strong])) == [f"random x4 (sigma_range {[k, k]})" for k in (0.2, 3)]

    @pytest.mark.parametrize("setting", ["fwhm", "phase", "factors"])
    def test_other_settings_of_random_ones_are_refused(self, setting):
        settings = {"factor": 4, "random": {}, "title": "mine"}
        (settings["random"] if setting == "factors" else settings)[setting] = 0
        with pytest.raises(ValueError, match=f"a random protocol takes no '{setting}'; expected a factor, and ranges"):
            read_protocols([settings])

    @pytest.mark.parametrize("settings", [{"factor": 4, "random": {"blurriness": 3}}, {"factor": 4, "blurriness": 3}])
    def test_unknown(self, settings):
        with pytest.raises(TypeError, match="blurriness"):
            read_protocols([settings])


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
        return thin[None, ..., first : first + factor * (thick.shape[-1] - 1) + 1]

    return result


def given(volumes, protocols, number_of_methods=1, **options):
    """Volumes that methods are given, and the scores."""
    calls: list = []
    methods = {f"spy {k}": spy(calls) for k in range(number_of_methods)}
    return calls, compare(volumes, methods, protocols, progress=False, **options)


def phase_of(thick):
    return round(float(thick.affine[2, 3]) / 1.5)


def same(first, second):
    return torch.equal(first.as_tensor(), second.as_tensor()) and torch.equal(first.affine, second.affine)


class TestDraws:
    def test_same_for_every_method(self):
        calls, scores = given([make_volume()], [RANDOM], 3)
        assert scores["method"].tolist() == [*BASELINES, "spy 0", "spy 1", "spy 2"]
        assert len(calls) == 3 and same(calls[0], calls[1]) and same(calls[0], calls[2])
        found = scores.set_index("method")["psnr"]
        assert found["linear"] == found["spy 0"] == found["spy 2"]  # the baselines get it too
        assert set(scores["protocol"]) == {"random x4"}

    def test_reproducible_and_without_global_state(self):
        volumes = [make_volume(seed=k) for k in range(3)]
        first, scores = given(volumes, [RANDOM])
        np.random.seed(7)
        torch.manual_seed(7)
        state = np.random.get_state()[1].copy(), torch.get_rng_state()
        second, again = given(volumes, [RANDOM])
        assert all(same(*pair) for pair in zip(first, second, strict=True)) and scores.equals(again)
        assert (np.random.get_state()[1] == state[0]).all() and torch.equal(torch.get_rng_state(), state[1])

    def test_order_of_protocols(self):
        """Nor does it matter which others there are, or how many methods."""
        volumes = [make_volume(33, seed=k) for k in range(3)]
        others = [{"factor": 2, "fwhm": 0}, {**RANDOM, "factor": 8}]
        alone, _ = given(volumes, [RANDOM])
        for protocols in ([RANDOM, *others], [*others, RANDOM], [others[1], RANDOM, others[0]]):
            calls, scores = given(volumes, protocols, 2)
            place = protocols.index(RANDOM)
            assert all(same(calls[6 * number + 2 * place], expected) for number, expected in enumerate(alone))
            assert scores["protocol"].nunique() == 3

    def test_volumes_differ(self):
        """The same volume several times: each is degraded in its own way."""
        calls, scores = given([make_volume() for _ in range(12)], [RANDOM])
        thickness = [round(float(call.meta["slice_thickness"]), 4) for call in calls]
        assert len(set(thickness)) == 12
        assert 0 < min(thickness) < 3 and max(thickness) > 6  # of at most 3.2 * 2.355 * 1.5 mm
        assert {phase_of(call) for call in calls} == {0, 1, 2, 3}
        assert scores.loc[scores["method"] == "linear", "psnr"].nunique() == 12

    def test_a_volume_left_out_does_not_shift_the_others(self):
        thin = [make_volume(seed=k) for k in range(3)]
        expected, _ = given(thin, [RANDOM])
        calls, scores = given([make_volume(4), *thin[1:]], [RANDOM])
        assert len(calls) == 2 and len(scores) == 2 * 4
        assert same(calls[0], expected[1]) and same(calls[1], expected[2])

    @pytest.mark.parametrize("number", [0, 1])
    def test_seeds(self, number):
        volumes = [make_volume(), make_volume()]
        seeds = [{}, {"seed": 0}, {"seed": 1}, {"seed": 2}]
        calls = [given(volumes, [{"factor": 4, "random": {"sigma_range": [0, 3], **k}}])[0][number] for k in seeds]
        assert same(calls[0], calls[1])
        assert len({float(call.meta["slice_thickness"]) for call in calls[1:]}) == 3

    @pytest.mark.parametrize(
        "settings", [{}, {"sigma_range": [0.5, 3]}, {"fwhm_range": [4.5, 4.5], "profiles": ["box"]}]
    )
    def test_degraders_alone_do_the_same(self, settings):
        """The oracle of this file: the thick volume belongs to its phase and width by the affine and the metadata."""
        thin = make_volume(40)["image"]
        (thick,), _ = given([{"image": thin}], [{"factor": 4, "random": settings}])
        fwhm, profile = float(thick.meta["slice_thickness"]), settings.get("profiles", ["gaussian"])[0]
        expected = Degrader(factor=4, fwhm=fwhm, profile=profile, phase=phase_of(thick))(thin).thick
        torch.testing.assert_close(thick[0].as_tensor(), expected.as_tensor())
        drawn = RandDegrader(factors=(4,), **settings).set_random_state(seed=0)(thin)
        assert torch.equal(drawn.thick.as_tensor(), thick[0].as_tensor())


class TestScores:
    @pytest.mark.parametrize("random_phase", [True, False])
    def test_phase(self, random_phase):
        """The truth begins at the first kept slice: who knows it is perfect, whatever the phase."""
        settings = {"factor": 4, "random": {"sigma_range": [0, 0], "seed": 3, "random_phase": random_phase}}
        phases = set()
        for number in range(10):
            volume, calls = make_volume(seed=number), []
            before = [make_volume(4)] * number  # too small, but they count
            methods = {"oracle": spy(calls, oracle(volume["image"]))}
            scores = compare([*before, volume], methods, [settings], progress=False)
            (thick,) = calls
            phases.add(phase_of(thick))
            assert torch.equal(thick[0].as_tensor(), volume["image"].as_tensor()[..., phase_of(thick) :: 4])
            assert thick.affine[2, 2] == 6.0
            *others, last = scores.itertuples()
            assert last.method == "oracle" and last.psnr == last.psnr_volume == math.inf
            assert last.ssim == pytest.approx(1) and max(score.psnr for score in others) < 30
        assert phases == ({0, 1, 2, 3} if random_phase else {0})

    def test_all_slices_are_scored(self):
        """Also those at observed positions, which are wrong here, but none past the last one."""
        volume = make_volume(24, channels=2)
        volume["image"][:, 7:] *= 0.2
        calls: list = []
        methods = {"spoiled": spy(calls, lambda x, k: 0.9 * SplineSliceInferer(factor=k, mode="cubic")(x))}
        scores = compare([volume], methods, [RANDOM], progress=False, body_threshold=0.3)
        pred = 0.9 * SplineSliceInferer(factor=4, mode="cubic")(calls[0])[0].as_tensor()
        span = slice(phase_of(calls[0]), phase_of(calls[0]) + pred.shape[-1])
        truth, body = volume["image"].as_tensor()[..., span], body_mask(volume["image"], 0.3)[..., span]
        assert 0.2 < body.float().mean() < 0.95
        *_, found = scores.itertuples()
        whole, between = (score_volume(pred, truth, 4, body=body, include_observed=flag) for flag in (True, False))
        assert {name: getattr(found, name) for name in whole} == whole
        assert all(abs(whole[name] - between[name]) > 1e-3 for name in ("psnr", "ssim", "psnr_body", "ssim_body"))

    def test_other_protocols_score_what_is_synthesized(self):
        """Beside a random one, too."""
        volume, sub = make_volume(), {"factor": 4, "fwhm": 0}
        (_, alone), (_, beside) = given([volume], [sub]), given([volume], [RANDOM, sub])
        assert beside["psnr"].tolist()[4:] == alone["psnr"].tolist()
        assert beside["protocol"].tolist() == 4 * ["random x4"] + 4 * ["subsample x4"]
        # 6 of 21 slices are observed
        np.testing.assert_allclose(alone["psnr_volume"] - alone["psnr"], 10 * math.log10(21 / 15), atol=1e-3)
        np.testing.assert_allclose(beside["psnr"][:4], beside["psnr_volume"][:4], rtol=1e-5)

    @pytest.mark.parametrize("data_range", [1.0, 100.0])
    @pytest.mark.parametrize("sigma", [0.005, 0.05])
    @pytest.mark.parametrize("factor", [1, 2, 4])
    def test_noise(self, factor, sigma, data_range):
        """Linear interpolation of noise: alpha ** 2 + (1 - alpha) ** 2 of its variance, all of it where observed."""
        noise = [sigma * data_range] * 2
        protocol = {"factor": factor, "random": {"sigma_range": [0, 0], "noise_range": noise}}
        thin = constant(0.5 * data_range, num_slices=25)
        (thick,), scores = given([thin], [protocol], data_range=data_range)
        assert float((thick.as_tensor() - 0.5 * data_range).std()) == pytest.approx(noise[0], rel=0.02)
        alphas = np.arange(factor * (thick.shape[-1] - 1) + 1) % factor / factor
        expected = -20 * math.log10(sigma) - 10 * math.log10(np.mean(alphas**2 + (1 - alphas) ** 2))
        assert scores["method"][0] == "linear" and scores["psnr"][0] == pytest.approx(expected, abs=0.3)
