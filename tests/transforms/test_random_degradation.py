# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Degradations drawn at random: what is drawn, for which keys, and in pipelines."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor
from monai.transforms import Compose

from monai_sliceinterp.transforms import Degrader, Degraderd, RandDegrader, RandDegraderd
from tests.transforms.volumes import SPACING, check_error, make_volume

INPUTS = ("factor", "fwhm", "profile", "phase", "noise", "seed")


def draws(degrader, count, num_slices=33):
    """Parameters of several degradations of a volume."""
    return [degrader(torch.rand(1, 2, 2, num_slices)).parameters for _ in range(count)]


class TestRandDegrader:
    SETTINGS = {"factors": (2, 3, 5), "fwhm_range": (1.0, 4.0), "noise_range": (0.5, 2.0), "axes": (0, -1)}
    SETTINGS["profiles"] = ("gaussian", "box", "none")

    def test_draws(self):
        degrader = RandDegrader(**self.SETTINGS).set_random_state(0)
        volume = MetaTensor(torch.rand(1, 16, 3, 17))
        seen = {name: Counter() for name in ("factor", "phase", "profile", "axis", "seed")}
        widths, noises = [], []
        for _ in range(600):
            thick, thin, parameters = degrader(volume)
            factor, phase = parameters["factor"], parameters["phase"]
            axis = 0 if thick.shape[1] < 16 else 2
            assert thick.shape[axis + 1] == (volume.shape[axis + 1] - 1 - phase) // factor + 1 >= 2
            assert thick.shape[2] == 3 and thick.shape[3 - axis] == volume.shape[3 - axis]
            assert thin.shape[axis + 1] == factor * (thick.shape[axis + 1] - 1) + 1
            for name, value in {**parameters, "phase": (factor, phase), "axis": axis}.items():
                if name in seen:
                    seen[name][value] += 1
            if parameters["profile"] == "none":
                assert parameters["fwhm"] == 0
            else:
                widths.append(parameters["fwhm"])
                assert thick.meta["slice_thickness"] == parameters["fwhm"]
            noises.append(parameters["noise"])
        # uniform: each of k choices within 5 standard deviations of 600 / k
        for name, count in (("factor", 3), ("profile", 3), ("axis", 2)):
            share = 1 / count
            assert len(seen[name]) == count
            assert all(abs(n - 600 * share) < 5 * math.sqrt(600 * share) for n in seen[name].values())
        assert set(seen["phase"]) == {(f, p) for f in (2, 3, 5) for p in range(f)}
        assert len(seen["seed"]) == 600
        for values, low, high in ((widths, 1.0, 4.0), (noises, 0.5, 2.0)):
            span = high - low
            assert low <= min(values) < low + 0.05 * span and high - 0.05 * span < max(values) <= high
            assert np.mean(values) == pytest.approx((low + high) / 2, abs=0.08 * span)

    @pytest.mark.parametrize(
        ("options", "name", "low", "high"),
        [
            ({"factors": (4,), "sigma_range": (1.0, 1.5)}, "sigma", 1.0, 1.5),
            ({"factors": (4,), "gap_range": (1.0, 2.0), "profiles": ("box",)}, "fwhm", 2.0, 3.0),
            ({"factor_range": (2.0, 3.5)}, "factor", 2.0, 3.5),
            ({"factor_range": (3, 3)}, "factor", 3, 3),
            ({"fwhm_range": (2, 2)}, "fwhm", 2, 2),
            ({"noise_range": (1, 1)}, "noise", 1, 1),
        ],
    )
    def test_ranges(self, options, name, low, high):
        found = draws(RandDegrader(**options).set_random_state(0), 100)
        values = [p[name] for p in found]
        margin = 0.1 * (high - low)
        assert low - 1e-9 <= min(values) <= low + margin and high - margin <= max(values) <= high + 1e-9
        assert len(set(values)) == (1 if low == high else 100)
        assert all(p["slice_spacing"] == p["factor"] and p["phase"] < p["factor"] for p in found)

    def test_no_random_phase(self):
        degrader = RandDegrader(random_phase=False).set_random_state(0)
        assert {p["phase"] for p in draws(degrader, 30)} == {0}

    def test_factors_written_twice_are_drawn_twice_as_often(self):
        counts = Counter(p["factor"] for p in draws(RandDegrader((4, 4, 2)).set_random_state(0), 300, 9))
        assert 160 < counts[4] < 240

    @pytest.mark.parametrize("num_slices", [5, 6, 8, 9, 10])
    def test_small_volumes_draw_what_fits(self, num_slices):
        found = draws(RandDegrader().set_random_state(0), 60, num_slices)
        assert {p["factor"] for p in found} == ({4} if num_slices < 9 else {4, 8})
        for factor in (4, 8):
            expected = {phase for phase in range(factor) if phase + factor <= num_slices - 1}
            assert {p["phase"] for p in found if p["factor"] == factor} == expected
        if num_slices < 8:  # real factors too
            found = draws(RandDegrader(factor_range=(3.2, 4.0)).set_random_state(0), 60, num_slices)
            assert {p["phase"] for p in found} == set(range(num_slices - 4))

    def test_volume_too_small(self):
        degrader = RandDegrader().set_random_state(0)
        for num_slices in (1, 2, 4):
            check_error(f"4 slices of {num_slices} ", degrader, torch.rand(1, 2, 2, num_slices))
        check_error("of 3 ", RandDegrader(factor_range=(3, 4)), torch.rand(1, 2, 2, 3))

    def test_the_drawn_axis_decides_what_fits(self):
        degrader = RandDegrader(axes=(0, 2)).set_random_state(0)
        found = set()
        for _ in range(60):
            thick, _, parameters = degrader(torch.rand(1, 6, 2, 40))
            found.add((thick.shape[1] < 6, parameters["factor"]))
            assert thick.shape[3] == 40 or thick.shape[1] == 6
        assert found == {(True, 4), (False, 4), (False, 8)}

    def test_same_state_same_draws(self):
        """The draws depend on the state alone, and are those of a Degrader with the parameters that are returned."""
        volume = make_volume(18, axis=1)

        def run(seed):
            degrader = RandDegrader(**{**self.SETTINGS, "axes": (1,)}, restore_grid=True).set_random_state(seed)
            results = [degrader(volume) for _ in range(6)]
            again = degrader(volume, randomize=False)
            assert torch.equal(again.thick, results[-1].thick) and again.parameters == results[-1].parameters
            return results

        for first, second in zip(run(3), run(3), strict=True):
            assert torch.equal(first.thick, second.thick) and torch.equal(first.thin, second.thin)
            assert first.parameters == second.parameters and first.thick.shape == first.thin.shape
            again = Degrader(**{name: first.parameters[name] for name in INPUTS}, restore_grid=True, axis=1)(volume)
            assert torch.equal(again.thin, first.thin)
            np.testing.assert_allclose(again.thick, first.thick, rtol=1e-5, atol=1e-5)
        assert [f.parameters for f in run(3)] != [f.parameters for f in run(4)]
        assert len({f.parameters["seed"] for f in run(3)}) == 6

    @pytest.mark.parametrize("restore", [False, True])
    @pytest.mark.parametrize("axes", [(0,), (-1,), (0, 1, 2)])
    def test_probability_zero_gives_the_input_back(self, restore, axes):
        volume = MetaTensor(100 * torch.rand(2, 6, 7, 8), meta={"slice_thickness": 0.7})
        settings = {"factors": (2,), "noise_range": (1, 2), "restore_grid": restore, "axes": axes, "prob": 0.0}
        thick, thin, parameters = RandDegrader(**settings)(volume)
        assert torch.equal(thick, volume) and torch.equal(thin, volume)
        assert thick.meta["slice_thickness"] == 0.7
        np.testing.assert_array_equal(thick.affine, volume.affine)
        expected = {"factor": 1, "fwhm": 0, "profile": "none", "phase": 0, "noise": 0, "sigma": 0, "slice_spacing": 1}
        assert {name: parameters[name] for name in expected} == expected

    def test_probability(self):
        degrader = RandDegrader(factors=(2,), prob=0.3).set_random_state(0)
        count = sum(p["factor"] == 2 for p in draws(degrader, 400, 9))
        assert abs(count - 120) < 5 * math.sqrt(400 * 0.3 * 0.7)
        parameters = RandDegrader(axes=(0,), prob=0.0)(make_volume(axis=0)).parameters
        assert parameters["slice_spacing"] == SPACING  # of the drawn axis

    @pytest.mark.parametrize("name", ["factor_range", "sigma_range", "fwhm_range", "gap_range", "noise_range"])
    @pytest.mark.parametrize("limits", [(4, 2), (-1, 4), (1, math.inf), (math.nan, 4), (1, math.nan), (2,), (2, 3, 4)])
    def test_bad_ranges(self, name, limits):
        check_error(f"{name} must be two ascending numbers that are not negative, got", RandDegrader, **{name: limits})

    @pytest.mark.parametrize(
        ("options", "pattern"),
        [
            ({"factors": ()}, "at least one factor, one profile and one axis"),
            ({"axes": ()}, "at least one factor, one profile and one axis"),
            ({"profiles": ()}, "at least one factor, one profile and one axis"),
            ({"factor_range": (0.5, 2)}, "factor must be a number of 1 or more, got 0.5"),
            ({"axes": (3,)}, "axis 3"),
            ({"axes": (-4,)}, "axis -4"),
        ],
    )
    def test_nothing_to_draw_from(self, options, pattern):
        check_error(pattern, RandDegrader, **options)


class TestDictionary:
    def test_all_keys_are_degraded_alike(self):
        first, second = make_volume(17, seed=1, channels=1), make_volume(17, seed=2, channels=3)
        settings = {**TestRandDegrader.SETTINGS, "axes": (-1,), "restore_grid": True}
        degrader = RandDegraderd(["image", "label"], thin_keys=["a", "b"], **settings).set_random_state(0)
        seen = set()
        for _ in range(12):
            found = degrader({"image": first, "label": second})
            parameters = found["degradation"]
            seen.add((parameters["factor"], parameters["phase"], parameters["profile"]))
            for number, (key, thin, source) in enumerate((("image", "a", first), ("label", "b", second))):
                again = {name: parameters[name] for name in INPUTS}
                again["seed"] += number  # each key has noise of its own
                expected = Degrader(**again, restore_grid=True)(source)
                np.testing.assert_allclose(found[key], expected.thick, rtol=1e-5, atol=1e-5)
                assert torch.equal(found[thin], expected.thin)
        assert len(seen) > 6

    def test_the_first_key_decides_what_fits(self):
        degrader = RandDegraderd(["a", "b"], random_phase=False).set_random_state(0)
        small, large = torch.rand(1, 2, 2, 6), torch.rand(1, 2, 2, 40)
        assert {degrader({"a": small, "b": large})["degradation"]["factor"] for _ in range(20)} == {4}
        assert {degrader({"a": large, "b": large})["degradation"]["factor"] for _ in range(20)} == {4, 8}

    def test_probability_counts_for_all_keys(self):
        degrader = RandDegraderd(["a", "b"], factors=(2,), prob=0.5).set_random_state(0)
        shapes = Counter()
        for _ in range(40):
            found = degrader({"a": torch.rand(1, 2, 2, 20), "b": torch.rand(1, 2, 2, 20)})
            assert found["a"].shape == found["b"].shape
            shapes[found["a"].shape[-1] == 20] += 1
        assert min(shapes.values()) > 8


class TestPipelines:
    SETTINGS = {"factors": (2, 3), "noise_range": (0, 1), "restore_grid": True, "extrapolate": True}

    @pytest.mark.parametrize("workers", [0, 2])
    def test_data_loader(self, workers):
        items = [{"image": make_volume(12, seed=k, filename_or_obj=f"{k}.nii")} for k in range(4)]

        def run(seed):
            dataset = Dataset(items, Compose([RandDegraderd("image", thin_keys="thin", **self.SETTINGS)]))
            generator = torch.Generator().manual_seed(seed)
            torch.manual_seed(seed)
            return list(DataLoader(dataset, batch_size=2, num_workers=workers, generator=generator))

        batches = run(0)
        assert len(batches) == 2
        for number, batch in enumerate(batches):
            assert batch["image"].shape == batch["thin"].shape == (2, 2, 4, 3, 12)
            assert isinstance(batch["image"], MetaTensor)
            drawn = batch["degradation"]
            assert drawn["profile"] == ["gaussian", "gaussian"]
            assert all(len(drawn[name]) == 2 for name in drawn)
            for k in range(2):
                assert torch.equal(batch["thin"][k].as_tensor(), items[2 * number + k]["image"].as_tensor())
                again = {name: drawn[name][k] if name == "profile" else drawn[name][k].item() for name in INPUTS}
                rebuilt = Degrader(**again, restore_grid=True, extrapolate=True)(items[2 * number + k]["image"])
                np.testing.assert_allclose(batch["image"][k], rebuilt.thick, rtol=1e-4, atol=1e-3)
        seeds = [seed for batch in batches for seed in batch["degradation"]["seed"].tolist()]
        assert len(set(seeds)) == 4
        assert seeds == [seed for batch in run(0) for seed in batch["degradation"]["seed"].tolist()]
        assert seeds != [seed for batch in run(1) for seed in batch["degradation"]["seed"].tolist()]

    def test_cache_dataset(self):
        items = [{"image": make_volume(24, seed=k)} for k in range(2)]
        fixed = Degraderd("image", thin_keys="truth", factor=2, sigma=1.0)
        random = RandDegraderd("image", thin_keys="thin", parameters_key="drawn", **self.SETTINGS)
        dataset = CacheDataset(items, Compose([fixed, random]), progress=False)
        dataset.transform.set_random_state(0)
        for k in range(2):
            halved = Degrader(2, sigma=1.0)(items[k]["image"])
            drawn = [dataset[k] for _ in range(3)]
            for found in drawn:  # drawn anew each time, from what is in the cache
                assert torch.equal(found["truth"].as_tensor(), halved.thin.as_tensor())
                assert torch.equal(found["thin"].as_tensor(), halved.thick.as_tensor())
                assert found["degradation"]["factor"] == 2.0
            assert len({found["drawn"]["seed"] for found in drawn}) == 3
