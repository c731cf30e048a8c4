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

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from monai_sliceinterp.evaluation import (
    bootstrap_interval,
    holm_correction,
    paired_difference,
    signed_rank_p_value,
)


def by_counting(difference):
    """The exact one-sided p-value: which share of all sign patterns has a rank sum as large."""
    values = [value for value in difference if value != 0]
    ranks = stats.rankdata(np.abs(values))
    found = sum(rank for rank, value in zip(ranks, values, strict=True) if value > 0)
    sums = [
        sum(r for r, up in zip(ranks, signs, strict=True) if up)
        for signs in itertools.product((0, 1), repeat=len(ranks))
    ]
    return np.mean([total >= found for total in sums])


class TestPairedDifference:
    def test_infinite_scores(self):
        inf = math.inf
        found = paired_difference([1.0, inf, 3.0, inf, -inf], [3.0, 2.0, inf, inf, -inf])
        assert found.tolist() == [-2.0, inf, -inf, 0.0, 0.0]

    def test_integers(self):
        found = paired_difference([3, 4], [1, 4])
        assert found.tolist() == [2.0, 0.0] and found.dtype == np.float64


class TestSignedRank:
    @pytest.mark.parametrize("n", [1, 2, 5, 10, 25])
    def test_all_better(self, n):
        """One of the 2^n patterns of signs."""
        assert signed_rank_p_value(0.1 * np.arange(1, n + 1)) == pytest.approx(0.5**n, rel=1e-9)

    def test_all_worse(self):
        assert signed_rank_p_value([-1.0, -2.0, -3.0]) == 1

    @pytest.mark.parametrize(
        "difference",
        [
            [1.0, -2.0, 3.0, 4.0, 5.0],  # rank 2 lost: patterns that lose {}, {1} or {2}, 3 of 32
            [-1.0, 2.0, 3.0, 4.0, 5.0],
            [-5.0, 1.0, 2.0, 3.0, 4.0, 6.0, 7.0],
            [-2.0, -1.0, 0.5],
        ],
    )
    def test_by_counting(self, difference):
        assert signed_rank_p_value(difference) == pytest.approx(by_counting(difference), rel=1e-9)

    def test_on_paper(self):
        assert signed_rank_p_value([1.0, -2.0, 3.0, 4.0, 5.0]) == pytest.approx(3 / 32)

    def test_as_scipy(self):
        difference = np.random.default_rng(0).normal(0.3, 1, 30)
        expected = stats.wilcoxon(difference, alternative="greater").pvalue
        assert signed_rank_p_value(difference) == expected
        assert signed_rank_p_value(-difference) == stats.wilcoxon(difference, alternative="less").pvalue

    def test_ties_and_zeros(self):
        """Zeros are dropped, equal sizes share their rank."""
        assert signed_rank_p_value([0.0, 1.0, 0.0, 2.0, 3.0]) == pytest.approx(1 / 8)
        assert signed_rank_p_value([1.0, 1.0, 1.0]) == pytest.approx(1 / 8)
        # ranks 1.5, 1.5, 3, 4, the loss of 1.5: sums of losses up to 1.5 are {}, and either 1.5
        assert signed_rank_p_value([-1.0, 1.0, 2.0, 3.0]) == pytest.approx(3 / 16)

    def test_infinite(self):
        """An exact result has the highest rank."""
        assert signed_rank_p_value([math.inf, 1.0, -2.0, 3.0]) == signed_rank_p_value([9.0, 1.0, -2.0, 3.0])

    def test_no_difference(self):
        assert signed_rank_p_value([0.0, 0.0]) == 1


class TestHolm:
    def test_by_hand(self):
        # sorted .01 .02 .03 .04, times 4 3 2 1: .04 .06 .06 .04, never falling
        assert holm_correction([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
        assert holm_correction([0.005, 0.04, 0.03]) == pytest.approx([0.015, 0.06, 0.06])

    def test_at_most_one(self):
        assert holm_correction([0.5, 0.6, 0.9]).tolist() == [1.0, 1.0, 1.0]

    def test_single_and_none(self):
        assert holm_correction([0.03]).tolist() == [0.03]
        assert holm_correction([]).tolist() == []

    def test_equal_values(self):
        assert holm_correction([0.02, 0.02]).tolist() == [0.04, 0.04]

    def test_input_is_kept(self):
        values = np.array([0.4, 0.1])
        holm_correction(values)
        assert values.tolist() == [0.4, 0.1]


class TestBootstrap:
    def test_covers(self):
        """About 95 of 100 intervals hold the true mean, about half of those at a level of 0.5."""
        draw = np.random.default_rng(0)
        samples = draw.normal(0.5, 1.0, (300, 40))
        shares = []
        for confidence in (0.95, 0.5):
            ends = [bootstrap_interval(sample, confidence, resamples=300) for sample in samples]
            shares.append(np.mean([low <= 0.5 <= high for low, high in ends]))
        assert 0.9 < shares[0] < 0.98 and 0.42 < shares[1] < 0.58

    def test_normal_sample(self):
        """With many values, the interval is that of the normal distribution."""
        sample = np.random.default_rng(1).normal(3.0, 2.0, 400)
        low, high = bootstrap_interval(sample)
        half = 1.96 * sample.std() / 20
        assert low == pytest.approx(sample.mean() - half, abs=0.01) and high == pytest.approx(
            sample.mean() + half, abs=0.01
        )

    def test_two_values_by_hand(self):
        """Means of draws from {0, 1}: 0, 1/2, 1 with shares 1/4, 1/2, 1/4."""
        assert bootstrap_interval([0.0, 1.0], 0.95) == (0.0, 1.0)
        assert bootstrap_interval([0.0, 1.0], 0.4) == (0.5, 0.5)

    def test_constant(self):
        assert bootstrap_interval([0.25] * 5) == (0.25, 0.25)

    def test_seed(self):
        sample = np.random.default_rng(2).normal(size=12)
        assert bootstrap_interval(sample, seed=3) == bootstrap_interval(sample, seed=3)
        assert bootstrap_interval(sample, seed=3) != bootstrap_interval(sample, seed=4)
        assert bootstrap_interval(sample, resamples=50) != bootstrap_interval(sample, resamples=500)
        before = np.random.get_state()[1].copy()
        bootstrap_interval(sample)
        assert (np.random.get_state()[1] == before).all()

    @pytest.mark.parametrize("sample", [[], [1.0], [1.0, math.inf, 2.0], [1.0, math.nan]])
    def test_none(self, sample):
        low, high = bootstrap_interval(sample)
        assert math.isnan(low) and math.isnan(high)
