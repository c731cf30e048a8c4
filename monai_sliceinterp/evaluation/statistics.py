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
"""What many scores say together: means, paired tests against baselines, and how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from monai_sliceinterp.evaluation.scores import METRICS, SMALLER_IS_BETTER, Score, write_rows
from monai_sliceinterp.evaluation.significance import (
    bootstrap_interval,
    holm_correction,
    paired_difference,
    signed_rank_p_value,
)

__all__ = ["MethodSummary", "MethodTest", "summarize", "test_methods", "write_rows"]


@dataclass(frozen=True)
class MethodSummary:
    """Mean of a metric over volumes.

    Attributes:
        metric: name of the metric, a field of :class:`Score`.
        protocol: how the volumes were degraded.
        group: what the volumes belong to.
        method: name of the method.
        n: number of volumes with a score; those without (NaN) are left out.
        mean: mean over these volumes.
        std: standard deviation of the volumes (divisor n - 1); NaN for one volume or infinite scores.
    """

    metric: str
    protocol: str
    group: str
    method: str
    n: int
    mean: float
    std: float


@dataclass(frozen=True)
class MethodTest:
    """Comparison of a method with a baseline on the same volumes.

    Attributes:
        metric: name of the metric, a field of :class:`Score`.
        protocol: how the volumes were degraded.
        group: what the volumes belong to.
        method: name of the method.
        baseline: name of the method it is compared with.
        n: number of volumes that both have a score for.
        mean_difference: mean over these volumes of how much better the method is, in the metric's unit: positive is
            better, whether large or small values of the metric are good.
        low: lower end of the bootstrap interval of ``mean_difference``, see :func:`bootstrap_interval`.
        high: its upper end.
        wins: number of volumes on which the method is better.
        p_value: of the one-sided Wilcoxon signed-rank test that the method is better.
        p_adjusted: the p-value corrected for all tests that were made together, by Holm's procedure.
    """

    metric: str
    protocol: str
    group: str
    method: str
    baseline: str
    n: int
    mean_difference: float
    low: float
    high: float
    wins: int
    p_value: float
    p_adjusted: float


def summarize(scores: Sequence[Score], metrics: Sequence[str] = ("psnr", "ssim")) -> list[MethodSummary]:
    """Average scores over the volumes of each group, for each metric, protocol and method.

    Args:
        scores: as :func:`monai_sliceinterp.evaluation.compare` returns them.
        metrics: names of numeric fields of :class:`Score`.

    Returns:
        The means, metric by metric in the order of the scores. Where no volume has a score there is no entry.

    Raises:
        ValueError: for an unknown metric, or if a volume was scored twice.

    Example:
        >>> rows = [Score(name, "g", "p", "asi", value, 0.9, 0.0) for name, value in (("a", 30.0), ("b", 34.0))]
        >>> summary = summarize(rows, ["psnr"])[0]
        >>> summary.n, summary.mean, round(summary.std, 4)
        (2, 32.0, 2.8284)
    """
    summaries = []
    for metric in metrics:
        for (group, protocol), methods in _by_volume(scores, metric).items():
            for method, found in methods.items():
                values = np.array(list(found.values()))
                if len(values):
                    std = float(values.std(ddof=1)) if len(values) > 1 and np.isfinite(values).all() else float("nan")
                    mean = float(values.mean())
                    summaries.append(MethodSummary(metric, protocol, group, method, len(values), mean, std))
    return summaries


def test_methods(
    scores: Sequence[Score],
    baselines: Sequence[str] = ("linear", "cubic"),
    metrics: Sequence[str] = ("psnr", "ssim"),
    seed: int = 0,
    resamples: int = 9999,
    confidence: float = 0.95,
) -> list[MethodTest]:
    """Test every method against every baseline, for each metric, group and protocol.

    Args:
        scores: as :func:`monai_sliceinterp.evaluation.compare` returns them.
        baselines: names of the methods the others are compared with, and which are not tested themselves. One that has
            no scores is left out.
        metrics: names of numeric fields of :class:`Score`.
        seed: seed of the bootstrap; the interval of one test does not depend on which others are made.
        resamples: number of bootstrap samples.
        confidence: level of the bootstrap intervals.

    Returns:
        The tests, metric by metric in the order of the scores. A volume that one of the two methods has no score for
        does not count; without any volume in common there is no test.

    Raises:
        ValueError: for an unknown metric, or if a volume was scored twice.

    Example:
        >>> rows = [
        ...     Score(str(volume), "g", "p", name, 30.0 + gain * (volume + 1), 0.9, 0.0)
        ...     for volume in range(5)
        ...     for name, gain in (("linear", 0.0), ("asi", 0.5))
        ... ]
        >>> test = test_methods(rows, metrics=["psnr"])[0]
        >>> test.method, test.baseline, test.n, test.wins, test.mean_difference, test.p_value
        ('asi', 'linear', 5, 5, 1.5, 0.03125)
    """
    if "sharpness" in metrics:
        raise ValueError("sharpness has no better direction: 1 is as sharp as the truth; expected another metric.")
    tests = []
    for metric in metrics:
        sign = -1.0 if metric in SMALLER_IS_BETTER else 1.0
        for (group, protocol), methods in _by_volume(scores, metric).items():
            for method in (name for name in methods if name not in baselines):
                for baseline in (name for name in baselines if name in methods):
                    shared = [volume for volume in methods[method] if volume in methods[baseline]]
                    if not shared:
                        continue
                    pairs = np.array([(methods[method][volume], methods[baseline][volume]) for volume in shared])
                    gain = sign * paired_difference(pairs[:, 0], pairs[:, 1])
                    low, high = bootstrap_interval(gain, confidence, resamples, seed)
                    wins, p_value = int((gain > 0).sum()), signed_rank_p_value(gain)
                    names = (metric, protocol, group, method, baseline)
                    tests.append(MethodTest(*names, len(gain), _mean(gain), low, high, wins, p_value, p_value))
    adjusted = holm_correction([test.p_value for test in tests])
    return [replace(test, p_adjusted=float(value)) for test, value in zip(tests, adjusted, strict=True)]


def _mean(values: np.ndarray) -> float:
    """Mean; NaN where infinite gains meet infinite losses."""
    with np.errstate(invalid="ignore"):
        return float(values.mean())


def _by_volume(scores: Sequence[Score], metric: str) -> dict[tuple[str, str], dict[str, dict[str, float]]]:
    """Values of a metric that are not NaN: by group and protocol, then by method, then by volume."""
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; expected one of {', '.join(METRICS)}.")
    table: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    seen = set()
    for score in scores:
        key = (score.group, score.protocol, score.method, score.volume)
        if key in seen:
            raise ValueError(
                f"volume {score.volume!r} of group {score.group!r} has two scores of {score.method!r} under "
                f"{score.protocol!r}; expected one."
            )
        seen.add(key)
        found = table.setdefault((score.group, score.protocol), {}).setdefault(score.method, {})
        value = float(getattr(score, metric))
        if not np.isnan(value):
            found[score.volume] = value
    return table
