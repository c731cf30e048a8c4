# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""The table of scores, means and tests; the tests' arithmetic against counting and the normal distribution."""

import math

import numpy as np
import pandas as pd
import pytest

from monai_sliceinterp.evaluation import (
    bootstrap_interval,
    compare_methods,
    holm_correction,
    paired_difference,
    score_table,
    signed_rank_p_value,
    summarize,
    write_table,
)
from monai_sliceinterp.metrics import METRICS
from tests.evaluation.helpers import read_csv, rows

LINEAR = [20.0, 25.0, 30.0, 22.0, 28.0]
CUBIC = [21.0, 24.0, 31.0, 23.0, 27.5]
MINE = [21.5, 24.25, 31.75, 25.0, 29.0]
THREE = {"linear": LINEAR, "cubic": CUBIC, "mine": MINE}
inf = math.inf


def outcomes(values, *arguments, metrics=("psnr",), **settings):
    """The tests of methods, a row each."""
    table = score_table(rows(values) if isinstance(values, dict) else values)
    return list(compare_methods(table, *arguments, metrics=metrics, **settings).itertuples())


class TestTests:
    def test_arithmetic(self):
        linear, cubic = outcomes(THREE)
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
        gains, intervals = np.subtract(MINE, CUBIC), set()
        for settings in ({"resamples": 77}, {"resamples": 77, "seed": 5}, {"resamples": 77, "confidence": 0.6}, {}):
            test = outcomes(THREE, **settings)[1]
            assert (test.low, test.high) == bootstrap_interval(gains, **settings)
            intervals.add((test.low, test.high))
        assert len(intervals) == 4
        # whatever else is tested
        assert next(t for t in outcomes(THREE, ["cubic"]) if t.method == "mine").low == outcomes(THREE)[1].low

    def test_baselines_are_not_tested(self):
        four = dict.fromkeys(("linear", "cubic", "lanczos", "mine"), MINE)
        for baselines, pairs in (
            (["linear", "cubic"], [(m, b) for m in ("lanczos", "mine") for b in ("linear", "cubic")]),
            (["lanczos", "absent"], [("linear", "lanczos"), ("cubic", "lanczos"), ("mine", "lanczos")]),
            (["absent"], []),
        ):
            assert [(t.method, t.baseline) for t in outcomes(four, baselines)] == pairs
        assert compare_methods(score_table()).empty

    def test_defaults(self):
        tests = compare_methods(score_table(rows(THREE, ssim=0.5)))
        pairs = [(metric, baseline) for metric in ("psnr", "ssim") for baseline in ("linear", "cubic")]
        assert tests[["metric", "baseline"]].values.tolist() == [list(pair) for pair in pairs]

    def test_smaller_is_better(self):
        scores = rows({"linear": [3.0, 4.0, 5.0], "mine": [1.0, 3.5, 4.0]}, "rmse_body")
        (test,) = outcomes(scores, metrics=["rmse_body"])
        assert test.mean_difference == pytest.approx(3.5 / 3) and test.wins == 3 and test.p_value == 1 / 8
        assert 0 < test.low < test.high

    def test_pairs_are_of_the_same_volume(self):
        """Whatever the order of the scores."""
        scores = rows({"linear": LINEAR}) + rows({"mine": [value + 1 for value in LINEAR]})[::-1]
        (test,) = outcomes(scores)
        assert (test.mean_difference, test.low, test.high, test.wins) == (1, 1, 1, 5)

    def test_failed_volumes_do_not_count(self):
        """A volume that either method has no score for is left out of that pair only."""
        mine = [21.0, 99.0, 31.0, math.nan, None]
        first, second = outcomes({"linear": [20.0, None, 30.0, 22.0, 28.0], "cubic": CUBIC, "mine": mine})
        assert (first.n, first.wins, first.mean_difference) == (2, 2, 1)
        assert (second.n, second.wins, second.mean_difference) == (3, 1, pytest.approx((0 + 75 + 0) / 3))
        # no volume in common, no test
        assert outcomes({"linear": [1.0, None], "mine": [None, 2.0]}) == []

    def test_a_metric_nobody_has(self):
        assert [t.metric for t in outcomes({"linear": LINEAR, "mine": MINE}, metrics=["psnr_body", "psnr"])] == ["psnr"]

    def test_groups_and_protocols_are_apart(self):
        scores = []
        for group, protocol, gain in (("a", "x2", 1.0), ("b", "x2", 2.0), ("a", "x4", -1.0)):
            mine = [value + gain for value in LINEAR]
            scores += rows({"linear": LINEAR, "mine": mine}, protocol=protocol, group=group, ssim=0.5)
        tests = outcomes(scores, metrics=["psnr", "ssim"])
        assert [test.metric for test in tests] == 3 * ["psnr"] + 3 * ["ssim"]
        places = [(test.group, test.protocol, test.mean_difference) for test in tests[:3]]
        assert places == [("a", "x2", 1.0), ("b", "x2", 2.0), ("a", "x4", -1.0)]
        assert [t.n for t in tests] == [5] * 6
        # Holm over all six: 1/32, 1/32, 1 and three of equal scores
        assert [t.p_value for t in tests] == [1 / 32, 1 / 32, 1, 1, 1, 1]
        assert [t.p_adjusted for t in tests] == holm_correction([1 / 32, 1 / 32, 1, 1, 1, 1]).tolist()
        assert tests[0].p_adjusted == 6 / 32

    def test_one_volume(self):
        (test,) = outcomes({"linear": [20.0], "mine": [21.0]})
        assert (test.n, test.wins, test.mean_difference, test.p_value) == (1, 1, 1, 0.5)
        assert math.isnan(test.low) and math.isnan(test.high)

    @pytest.mark.filterwarnings("error")
    def test_exact_results(self):
        """An infinite PSNR wins over a finite one and ties with another."""
        (test,) = outcomes({"linear": [20.0, inf, 21.0], "mine": [inf, inf, 22.0]})
        assert (test.mean_difference, test.wins, test.p_value) == (inf, 2, 1 / 4) and math.isnan(test.low)
        (test,) = outcomes({"linear": [20.0, inf], "mine": [inf, 20.0]})
        assert math.isnan(test.mean_difference) and test.wins == 1 and test.p_value > 0.5
        for values in ([inf] * 3, LINEAR):
            (test,) = outcomes({"linear": values, "mine": values})
            assert (test.mean_difference, test.low, test.high, test.wins, test.p_value) == (0, 0, 0, 0, 1)
            assert test.p_adjusted == 1

    def test_sharpness_has_no_better_direction(self):
        with pytest.raises(ValueError, match="sharpness has no better direction: 1 is as sharp as the truth"):
            compare_methods(score_table(rows(THREE)), metrics=["sharpness"])


class TestSummaries:
    def test_by_hand(self):
        linear = rows({"linear": [20.0, 22.0, 27.0]}, ssim=[0.5, 0.7, 0.9])
        found = summarize(score_table(linear + rows({"mine": [30.0, None, math.nan]}, ssim=0.5)), ["psnr", "ssim"])
        expected = [[metric, method] for metric in ("psnr", "ssim") for method in ("linear", "mine")]
        assert found[["metric", "method"]].values.tolist() == expected
        assert found["n"].tolist() == [3, 1, 3, 2]
        np.testing.assert_allclose(found["mean"], [23, 30, 0.7, 0.5])
        np.testing.assert_allclose(found["std"], [math.sqrt(13), math.nan, 0.2, 0])

    def test_groups_and_protocols_are_apart(self):
        """Together, in the order of the table, also where a method comes in late."""
        places = [(group, protocol) for group in "ab" for protocol in ("x2", "x4")]
        scores = []
        for k, (group, protocol) in enumerate(places):
            scores += rows({"m": [float(k), 3.0]}, protocol=protocol, group=group)
        scores += rows({"late": [9.0]}, protocol="x2", group="a")
        found = summarize(score_table(scores), ["psnr"])
        assert list(zip(found["group"], found["protocol"], strict=True)) == [places[0], *places]
        assert found["mean"].tolist() == [1.5, 9, 2, 2.5, 3] and found["method"][1] == "late"

    @pytest.mark.filterwarnings("error")
    def test_infinite_and_none(self):
        (found,) = summarize(score_table(rows({"m": [20.0, inf]})), ["psnr"]).itertuples()
        assert found.mean == inf and math.isnan(found.std)
        assert summarize(score_table(rows({"m": [20.0]})), ["vif"]).empty and summarize(score_table()).empty


class TestTable:
    @pytest.mark.parametrize("function", [compare_methods, summarize])
    def test_misuse(self, function):
        scores = rows({"m": [20.0]})
        for name in ("pnsr", "volume"):
            with pytest.raises(ValueError, match=f"unknown metric '{name}'; expected one of psnr, ssim, .*memory"):
                function(score_table(scores), metrics=[name])
        with pytest.raises(ValueError, match="volume 'v0' of group 'g' has two scores of 'm' under 'p'; expected one"):
            function(score_table(scores + scores))
        with pytest.raises(ValueError, match="unknown column 'pnsr'; .*did you mean 'psnr'"):
            score_table([{**scores[0], "pnsr": 1.0}])

    def test_nothing_is_assumed(self):
        (row,) = score_table(rows({"m": [1.0]})).itertuples()
        assert all(math.isnan(getattr(row, name)) for name in METRICS if name != "psnr")

    def test_scores_in_a_file(self, tmp_path):
        table = score_table(rows({"m": [20.5, 0.1 + 0.2]}, group='g "x", y', ssim=[inf, 1e-7]))
        write_table(table, tmp_path / "scores.csv")
        read = read_csv(tmp_path / "scores.csv")
        assert list(read[0]) == ["volume", "group", "protocol", "method", *METRICS]
        assert [row["volume"] for row in read] == ["v0", "v1"] and read[0]["group"] == 'g "x", y'
        for name in METRICS:
            np.testing.assert_array_equal([float(row[name]) for row in read], table[name])
        assert (read[0]["ssim"], read[0]["vif"], read[1]["psnr"]) == ("inf", "nan", str(0.1 + 0.2))
        assert b"\r\n" in (tmp_path / "scores.csv").read_bytes()

    @pytest.mark.parametrize("name", ["=cmd|'calc'!A1", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "=1,2"])
    def test_no_formulas(self, tmp_path, name):
        """A spreadsheet shows such names and does not run them; numbers may be negative."""
        table = score_table(rows({name: [-20.5]}, group=name))
        write_table(table, tmp_path / "scores.csv")
        (row,) = read_csv(tmp_path / "scores.csv")
        assert row["group"] == row["method"] == f"'{name}" and row["psnr"] == "-20.5" and row["volume"] == "v0"

    def test_results_in_a_file(self, tmp_path):
        scores = score_table(rows(THREE, ssim=0.5))
        for table in (compare_methods(scores), summarize(scores)):
            write_table(table, tmp_path / "rows.csv")
            read = read_csv(tmp_path / "rows.csv")
            assert [list(row.values()) for row in read] == [[str(value) for value in row] for row in table.values]
        write_table(compare_methods(score_table()), tmp_path / "none.csv")
        assert (tmp_path / "none.csv").read_text() == ""

    def test_a_failure_leaves_the_older_file(self, tmp_path, monkeypatch):
        write_table(score_table(rows({"m": [1.0]})), tmp_path / "rows.csv")
        before = (tmp_path / "rows.csv").read_text()

        def fail(table, path, **options):
            path.write_text("half")
            raise OSError("no space left")

        monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
        with pytest.raises(OSError, match="no space left"):
            write_table(score_table(rows({"m": [2.0]})), tmp_path / "rows.csv")
        assert (tmp_path / "rows.csv").read_text() == before and len(list(tmp_path.iterdir())) == 1


class TestSignedRank:
    def test_differences(self):
        found = paired_difference([1.0, inf, 3.0, inf, -inf], [3.0, 2.0, inf, inf, -inf])
        assert found.tolist() == [-2.0, inf, -inf, 0.0, 0.0]
        found = paired_difference([3, 4], [1, 4])
        assert found.tolist() == [2.0, 0.0] and found.dtype == np.float64

    @pytest.mark.parametrize(
        ("difference", "expected"),
        [
            ([1.0, -2.0, 3.0, 4.0, 5.0], 3 / 32),
            ([0.0, 1.0, 0.0, 2.0, 3.0], 1 / 8),  # zeros are dropped
            ([1.0, 1.0, 1.0], 1 / 8),  # equal sizes share their rank
            # ranks 1.5, 1.5, 3, 4, the loss of 1.5: sums of losses up to 1.5 are {}, and either 1.5
            ([-1.0, 1.0, 2.0, 3.0], 3 / 16),
            ([0.0, 0.0], 1.0),
            ([inf, 1.0, -2.0, 3.0], 3 / 16),  # an exact result has the highest rank
        ],
    )
    def test_on_paper(self, difference, expected):
        assert signed_rank_p_value(difference) == pytest.approx(expected)


class TestHolm:
    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            # sorted .01 .02 .03 .04, times 4 3 2 1: .04 .06 .06 .04, never falling
            ([0.04, 0.01, 0.03, 0.02], [0.06, 0.04, 0.06, 0.06]),
            ([0.005, 0.04, 0.03], [0.015, 0.06, 0.06]),
            ([0.5, 0.6, 0.9], [1.0, 1.0, 1.0]),
            ([0.02, 0.02], [0.04, 0.04]),
            ([0.03], [0.03]),
            ([], []),
        ],
    )
    def test_by_hand(self, values, expected):
        before = np.array(values)
        assert holm_correction(before) == pytest.approx(expected)
        assert before.tolist() == values


class TestBootstrap:
    def test_normal_sample(self):
        """With many values, the interval is that of the normal distribution."""
        sample = np.random.default_rng(1).normal(3.0, 2.0, 400)
        for confidence, width in ((0.95, 1.96), (0.5, 0.674)):
            half = width * sample.std() / 20
            found = bootstrap_interval(sample, confidence)
            np.testing.assert_allclose(found, [sample.mean() - half, sample.mean() + half], atol=0.01)

    def test_seed(self):
        sample = np.random.default_rng(2).normal(size=12)
        before = np.random.get_state()[1].copy()
        assert bootstrap_interval(sample, seed=3) == bootstrap_interval(sample, seed=3)
        assert bootstrap_interval(sample, seed=3) != bootstrap_interval(sample, seed=4)
        assert bootstrap_interval(sample, resamples=50) != bootstrap_interval(sample, resamples=500)
        assert (np.random.get_state()[1] == before).all()

    @pytest.mark.parametrize("sample", [[], [1.0], [1.0, inf, 2.0], [1.0, math.nan]])
    def test_none(self, sample):
        assert all(math.isnan(end) for end in bootstrap_interval(sample))
