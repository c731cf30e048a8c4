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
"""Is a method better than another on the same volumes, or was it luck: the arithmetic of paired tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

__all__ = ["bootstrap_interval", "holm_correction", "paired_difference", "signed_rank_p_value"]


def paired_difference(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Subtract scores of the same volumes; equal scores differ by 0, also where both are infinite.

    Example:
        >>> paired_difference([25.0, np.inf, np.inf], [24.0, 30.0, np.inf]).tolist()
        [1.0, inf, 0.0]
    """
    minuend, subtrahend = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    return np.subtract(minuend, subtrahend, out=np.zeros(minuend.shape), where=minuend != subtrahend)


def signed_rank_p_value(difference: ArrayLike) -> float:
    """Test by Wilcoxon's signed ranks, one-sided, whether paired differences tend to be positive.

    Args:
        difference: one number for each pair; zeros say nothing and are dropped, infinite ones have the highest ranks.

    Returns:
        The p-value: the probability of ranks as much in favor, or more, if either sign were as likely; 1 if all
        differences are zero. With n pairs it cannot be smaller than 1 / 2^n.

    Example:
        >>> signed_rank_p_value([0.1, 0.5, 0.2, 0.4, 0.3])  # 1 of the 32 patterns of signs
        0.03125
    """
    values = np.asarray(difference, dtype=np.float64)
    return float(stats.wilcoxon(values, alternative="greater").pvalue) if values.any() else 1.0


def holm_correction(p_values: ArrayLike) -> NDArray[np.float64]:
    """Correct p-values for the number of tests by Holm's step-down procedure.

    Rejecting where the corrected value is at most 0.05 makes even one false discovery among all tests no likelier than
    5 %, whatever their dependence. The smallest of m p-values is multiplied by m, the next by m - 1, and so on; none
    becomes smaller than one before it, nor larger than 1.

    Example:
        >>> holm_correction([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def bootstrap_interval(
    values: ArrayLike, confidence: float = 0.95, resamples: int = 9999, seed: int = 0
) -> tuple[float, float]:
    """Confidence interval of a mean by the percentile bootstrap.

    Args:
        values: the sample.
        confidence: probability with which such intervals hold the true mean. With few values it is less: the bootstrap
            knows no others than those.
        resamples: number of samples drawn with replacement.
        seed: seed of the draws; the same values and seed give the same interval.

    Returns:
        Its ends; NaN for less than two values, or if one is not finite.

    Example:
        >>> low, high = bootstrap_interval([1.0, 2.0, 3.0, 4.0])
        >>> 1 < low < 2.5 < high < 4
        True
    """
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) < 2 or not np.isfinite(sample).all():
        return float("nan"), float("nan")
    result = stats.bootstrap(
        (sample,),
        np.mean,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        vectorized=True,
        random_state=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
