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
from dataclasses import astuple, fields

import numpy as np
import pytest

from monai_sliceinterp.evaluation import (
    MethodSummary,
    MethodTest,
    Score,
    bootstrap_interval,
    holm_correction,
    statistics,
    summarize,
    write_rows,
)


def rows(method, psnr, *, protocol="p", group="g", **others):
    """Scores of volumes v0, v1, ...; None where the method failed."""
    return [
        Score(
            f"v{k}",
            group,
            protocol,
            method,
            value,
            **{"ssim": 0.5, "psnr_volume": 0.0, **{n: v[k] for n, v in others.items()}},
        )
        for k, value in enumerate(psnr)
        if value is not None
    ]


def only(results, **wanted):
    found = [result for result in results if all(getattr(result, name) == value for name, value in wanted.items())]
    assert len(found) == 1
    return found[0]


LINEAR = [20.0, 25.0, 30.0, 22.0, 28.0]
CUBIC = [21.0, 24.0, 31.0, 23.0, 27.5]
MINE = [21.5, 24.25, 31.75, 25.0, 29.0]


class TestTests:
    def found(self, **settings):
        scores = rows("linear", LINEAR) + rows("cubic", CUBIC) + rows("mine", MINE)
        return statistics.test_methods(scores, **{"metrics": ["psnr"], **settings})

    def test_arithmetic(self):
        linear, cubic = self.found()
        assert (linear.method, linear.baseline, cubic.baseline) == ("mine", "linear", "cubic")
        # gains over linear 1.5, -0.75, 1.75, 3, 1; over cubic 0.5, 0.25, 0.75, 2, 1.5
        assert linear.mean_difference == pytest.approx(1.3) and cubic.mean_difference == pytest.approx(1.0)
        assert (linear.wins, cubic.wins) == (4, 5) and (linear.n, cubic.n) == (5, 5)
        assert cubic.p_value == 1 / 32
        assert linear.p_value == 2 / 32  # the smallest is lost: that pattern of signs, and the one of all better
        assert cubic.p_adjusted == 2 / 32 and linear.p_adjusted == 2 / 32
        assert (cubic.low, cubic.high) == bootstrap_interval([0.5, 0.25, 0.75, 2.0, 1.5])
        assert cubic.low < 1.0 < cubic.high and linear.low < 1.3 < linear.high

    def test_settings_of_the_interval(self):
        gains, found = np.subtract(MINE, CUBIC), set()
        for settings in ({"resamples": 77}, {"resamples": 77, "seed": 5}, {"resamples": 77, "confidence": 0.6}, {}):
            test = self.found(**settings)[1]
            assert (test.low, test.high) == bootstrap_interval(gains, **settings)
            found.add((test.low, test.high))
        assert len(found) == 4
        # whatever else is tested
        assert only(self.found(baselines=["cubic"]), method="mine").low == self.found()[1].low

    def test_baselines_are_not_tested(self):
        scores = [s for name in ("linear", "cubic", "lanczos", "mine") for s in rows(name, MINE)]
        pairs = [(t.method, t.baseline) for t in statistics.test_methods(scores, metrics=["psnr"])]
        assert pairs == [("lanczos", "linear"), ("lanczos", "cubic"), ("mine", "linear"), ("mine", "cubic")]
        pairs = [(t.method, t.baseline) for t in statistics.test_methods(scores, ["lanczos", "absent"], ["psnr"])]
        assert pairs == [("linear", "lanczos"), ("cubic", "lanczos"), ("mine", "lanczos")]
        assert statistics.test_methods(scores, ["absent"]) == [] == statistics.test_methods([])

    def test_defaults(self):
        tests = statistics.test_methods(rows("linear", LINEAR) + rows("cubic", CUBIC) + rows("mine", MINE))
        assert [(t.metric, t.baseline) for t in tests] == [
            ("psnr", "linear"),
            ("psnr", "cubic"),
            ("ssim", "linear"),
            ("ssim", "cubic"),
        ]

    @pytest.mark.parametrize("metric", ["rmse", "mse", "rmse_body", "lpips", "niqe", "seconds", "memory"])
    def test_smaller_is_better(self, metric):
        scores = rows("linear", [0.0] * 3, **{metric: [3.0, 4.0, 5.0]}) + rows(
            "mine", [0.0] * 3, **{metric: [1.0, 3.5, 4.0]}
        )
        (test,) = statistics.test_methods(scores, ["linear"], [metric])
        assert test.mean_difference == pytest.approx(3.5 / 3) and test.wins == 3 and test.p_value == 1 / 8
        assert 0 < test.low < test.high

    @pytest.mark.parametrize("metric", ["psnr_body", "ssim_volume", "vif_coronal"])
    def test_larger_is_better(self, metric):
        scores = rows("linear", [0.0] * 2, **{metric: [3.0, 4.0]}) + rows("mine", [0.0] * 2, **{metric: [1.0, 4.5]})
        (test,) = statistics.test_methods(scores, ["linear"], [metric])
        assert test.mean_difference == -0.75 and test.wins == 1 and test.p_value == 3 / 4

    def test_pairs_are_of_the_same_volume(self):
        """Whatever the order of the scores."""
        scores = rows("linear", LINEAR) + rows("mine", [value + 1 for value in LINEAR])[::-1]
        (test,) = statistics.test_methods(scores, metrics=["psnr"])
        assert (test.mean_difference, test.low, test.high, test.wins) == (1, 1, 1, 5)

    def test_failed_volumes_do_not_count(self):
        """A volume that either method has no score for is left out of that pair only."""
        linear = rows("linear", [20.0, None, 30.0, 22.0, 28.0])
        cubic = rows("cubic", CUBIC)
        mine = rows("mine", [21.0, 99.0, 31.0, math.nan, None])
        tests = statistics.test_methods(linear + cubic + mine, metrics=["psnr"])
        first, second = only(tests, baseline="linear"), only(tests, baseline="cubic")
        assert (first.n, first.wins, first.mean_difference) == (2, 2, 1)
        assert (second.n, second.wins, second.mean_difference) == (3, 1, pytest.approx((0 + 75 + 0) / 3))
        # no volume in common, no test
        assert statistics.test_methods(rows("linear", [1.0, None]) + rows("mine", [None, 2.0]), metrics=["psnr"]) == []

    def test_a_metric_nobody_has(self):
        scores = rows("linear", LINEAR) + rows("mine", MINE)
        assert [t.metric for t in statistics.test_methods(scores, metrics=["psnr_body", "psnr"])] == ["psnr"]

    def test_groups_and_protocols_are_apart(self):
        scores = []
        for group, protocol, gain in (("a", "x2", 1.0), ("b", "x2", 2.0), ("a", "x4", -1.0)):
            scores += rows("linear", LINEAR, group=group, protocol=protocol)
            scores += rows("mine", [value + gain for value in LINEAR], group=group, protocol=protocol)
        tests = statistics.test_methods(scores, metrics=["psnr", "ssim"])
        assert [(t.metric, t.group, t.protocol, t.mean_difference) for t in tests[:3]] == [
            ("psnr", "a", "x2", 1.0),
            ("psnr", "b", "x2", 2.0),
            ("psnr", "a", "x4", -1.0),
        ]
        assert [t.n for t in tests] == [5] * 6
        # Holm over all six: 1/32, 1/32, 1 and three of equal scores
        assert [t.p_value for t in tests] == [1 / 32, 1 / 32, 1, 1, 1, 1]
        assert [t.p_adjusted for t in tests] == holm_correction([1 / 32, 1 / 32, 1, 1, 1, 1]).tolist()
        assert tests[0].p_adjusted == 6 / 32

    def test_one_volume(self):
        (test,) = statistics.test_methods(rows("linear", [20.0]) + rows("mine", [21.0]), metrics=["psnr"])
        assert (test.n, test.wins, test.mean_difference, test.p_value) == (1, 1, 1, 0.5)
        assert math.isnan(test.low) and math.isnan(test.high)

    @pytest.mark.filterwarnings("error")
    def test_exact_results(self):
        """An infinite PSNR wins over a finite one and ties with another."""
        inf = math.inf
        scores = rows("linear", [20.0, inf, 21.0]) + rows("mine", [inf, inf, 22.0])
        (test,) = statistics.test_methods(scores, metrics=["psnr"])
        assert (test.mean_difference, test.wins, test.p_value) == (inf, 2, 1 / 4)
        assert math.isnan(test.low)
        scores = rows("linear", [20.0, inf]) + rows("mine", [inf, 20.0])
        (test,) = statistics.test_methods(scores, metrics=["psnr"])
        assert math.isnan(test.mean_difference) and test.wins == 1 and test.p_value > 0.5
        (test,) = statistics.test_methods(rows("linear", [inf] * 3) + rows("mine", [inf] * 3), metrics=["psnr"])
        assert (test.mean_difference, test.low, test.high, test.wins, test.p_value) == (0, 0, 0, 0, 1)

    def test_ties(self):
        (test,) = statistics.test_methods(rows("linear", LINEAR) + rows("mine", LINEAR), metrics=["psnr"])
        assert (test.mean_difference, test.wins, test.p_value, test.p_adjusted) == (0, 0, 1, 1)


class TestSummaries:
    def test_by_hand(self):
        scores = rows("linear", [20.0, 22.0, 27.0], ssim=[0.5, 0.7, 0.9]) + rows("mine", [30.0, None, math.nan])
        found = summarize(scores, ["psnr", "ssim"])
        assert [(s.metric, s.method, s.n) for s in found] == [
            ("psnr", "linear", 3),
            ("psnr", "mine", 1),
            ("ssim", "linear", 3),
            ("ssim", "mine", 2),
        ]
        assert found[0] == MethodSummary("psnr", "p", "g", "linear", 3, 23.0, pytest.approx(math.sqrt(13)))
        assert found[2].mean == pytest.approx(0.7) and found[2].std == pytest.approx(0.2)
        assert found[1].mean == 30 and math.isnan(found[1].std)

    def test_groups_and_protocols_are_apart(self):
        scores = [
            s for g in "ab" for p in ("x2", "x4") for s in rows("m", [float(ord(g)), len(p + g)], group=g, protocol=p)
        ]
        found = summarize(scores, ["psnr"])
        assert [(s.group, s.protocol) for s in found] == [("a", "x2"), ("a", "x4"), ("b", "x2"), ("b", "x4")]
        assert [s.mean for s in found] == [(97 + 3) / 2, (97 + 3) / 2, (98 + 3) / 2, (98 + 3) / 2]

    @pytest.mark.filterwarnings("error")
    def test_infinite(self):
        (found,) = summarize(rows("m", [20.0, math.inf]), ["psnr"])
        assert found.mean == math.inf and math.isnan(found.std)

    def test_nothing_to_average(self):
        assert summarize(rows("m", [20.0]), ["vif"]) == [] == summarize([])


class TestMisuse:
    @pytest.mark.parametrize("function", [statistics.test_methods, summarize])
    def test_unknown_metric(self, function):
        for name in ("pnsr", "volume"):
            with pytest.raises(
                ValueError, match=f"unknown metric '{name}'; expected one of psnr, ssim, .*memory"
            ) as caught:
                function(rows("m", [20.0]), metrics=[name])
            assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("function", [statistics.test_methods, summarize])
    def test_scored_twice(self, function):
        with pytest.raises(ValueError, match="volume 'v0' of group 'g' has two scores of 'm' under 'p'; expected one"):
            function(rows("m", [20.0]) + rows("m", [20.0]))


def test_written(tmp_path):
    scores = rows("linear", LINEAR) + rows("mine", MINE)
    for results, kind in ((statistics.test_methods(scores), MethodTest), (summarize(scores), MethodSummary)):
        write_rows(results, tmp_path / "rows.csv")
        with (tmp_path / "rows.csv").open(newline="") as file:
            read = list(csv.reader(file))
        assert read[0] == [field.name for field in fields(kind)]
        assert read[1:] == [[str(value) for value in astuple(result)] for result in results]
        assert all(type(value) in (str, int, float) for result in results for value in astuple(result))
