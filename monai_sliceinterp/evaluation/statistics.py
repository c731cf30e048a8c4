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

"""The table of scores, and its statistics: means, and paired tests against baselines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from monai_sliceinterp.checks import one_of
from monai_sliceinterp.files import atomic_path, no_formula
from monai_sliceinterp.metrics import METRICS

__all__ = [
    "IDENTITY",
    "bootstrap_interval",
    "compare_methods",
    "holm_correction",
    "paired_difference",
    "score_table",
    "signed_rank_p_value",
    "summarize",
    "tidy_scores",
    "write_table",
]

IDENTITY = ["volume", "group", "protocol", "method"]
"""Columns that say what a row is the score of: file name without suffix, what the volume belongs to (its folder), title
of the protocol, name of the method."""

_PLACE = ["metric", "protocol", "group"]
_SUMMARY = [*_PLACE, "method", "n", "mean", "std"]
_COMPARISON = [*_PLACE, "method", "baseline", "n", "mean_difference", "low", "high", "wins", "p_value"]


def score_table(rows: Iterable[Mapping[str, Any]] = ()) -> pd.DataFrame:
    """Make the table of scores; NaN where a row has no score.

    Args:
        rows: values by column, see :data:`IDENTITY` and :data:`monai_sliceinterp.metrics.METRICS`.

    Raises:
        ValueError: for a column that is not among these.

    Example:
        >>> table = score_table([{"volume": "v", "group": "g", "protocol": "p", "method": "linear", "psnr": 20.0}])
        >>> table.loc[0, ["method", "psnr", "ssim"]].tolist()
        ['linear', np.float64(20.0), np.float64(nan)]
    """
    entries = [dict(row) for row in rows]
    columns = [*IDENTITY, *METRICS]
    for name in dict.fromkeys(name for entry in entries for name in entry):
        one_of("column", name, columns)
    return pd.DataFrame(entries, columns=columns).astype(dict.fromkeys(IDENTITY, str) | dict.fromkeys(METRICS, float))


def tidy_scores(table: pd.DataFrame, metrics: Iterable[str]) -> pd.DataFrame:
    """Turn the table of scores into one with a row for each score that is not NaN.

    Args:
        table: see :func:`score_table`.
        metrics: the metrics, in the order of the result.

    Returns:
        Columns "metric", "protocol", "group", "method", "volume" and "value"; metric by metric, and the rows of a group
        and protocol together, in the order in which the table has them first.

    Raises:
        ValueError: for an unknown metric, or if a volume was scored twice.
    """
    names = [one_of("metric", name, METRICS) for name in metrics]
    twice = table[table.duplicated(IDENTITY)]
    if len(twice):
        volume, group, protocol, method = twice.iloc[0][IDENTITY]
        raise ValueError(
            f"volume {volume!r} of group {group!r} has two scores of {method!r} under {protocol!r}; expected one."
        )
    blocks = table.groupby(["group", "protocol"], sort=False).ngroup().sort_values(kind="stable").index
    long = table.loc[blocks].melt(IDENTITY, names, var_name="metric").dropna(subset="value")
    return long[["metric", "protocol", "group", "method", "volume", "value"]]


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table as CSV, whole or not at all; one without rows makes an empty file.

    Texts that a spreadsheet would run, as it does ``=1+1`` in the name of a file, begin with a ' there.

    Args:
        table: scores, or results of :mod:`monai_sliceinterp.evaluation.statistics`.
        path: the file; its folder must exist.

    Raises:
        OSError: if the file cannot be written.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "scores.csv"
        >>> row = {"volume": "v", "group": "g", "protocol": "p", "method": "linear", "psnr": 20.0, "ssim": 0.5}
        >>> write_table(score_table([row]), file)
        >>> file.read_text().splitlines()[1]
        'v,g,p,linear,20.0,0.5,nan,nan,...'
    """
    with atomic_path(path) as part:
        if len(table):
            texts = table.select_dtypes(exclude="number").columns
            table.assign(**{name: table[name].map(no_formula) for name in texts}).to_csv(
                part, index=False, na_rep="nan", lineterminator="\r\n"
            )


def summarize(table: pd.DataFrame, metrics: Sequence[str] = ("psnr", "ssim")) -> pd.DataFrame:
    """Compute means over the volumes of each group, for each metric, protocol and method.

    Args:
        table: scores, see :func:`monai_sliceinterp.evaluation.compare`.
        metrics: names of metrics.

    Returns:
        A row for each mean, metric by metric in the order of the scores: "metric", "protocol", "group", "method", "n"
        (number of volumes with a score; those without are left out), "mean" over these volumes, and "std", their
        standard deviation (divisor n - 1), NaN for one volume or infinite scores. Where no volume has a score there is
        no row.

    Raises:
        ValueError: for an unknown metric, or if a volume was scored twice.

    Example:
        >>> from monai_sliceinterp.evaluation import score_table
        >>> names = {"group": "g", "protocol": "p", "method": "asi"}
        >>> scores = score_table({**names, "volume": v, "psnr": x} for v, x in (("a", 30.0), ("b", 34.0)))
        >>> summarize(scores, ["psnr"])[["n", "mean", "std"]].round(4).values.tolist()
        [[2.0, 32.0, 2.8284]]
    """
    rows = []
    for names, part in tidy_scores(table, metrics).groupby([*_PLACE, "method"], sort=False)["value"]:
        values = part.to_numpy()
        spread = float(values.std(ddof=1)) if len(values) > 1 and np.isfinite(values).all() else float("nan")
        rows.append((*names, len(values), float(values.mean()), spread))
    return pd.DataFrame(rows, columns=_SUMMARY)


def compare_methods(
    table: pd.DataFrame,
    baselines: Sequence[str] = ("linear", "cubic"),
    metrics: Sequence[str] = ("psnr", "ssim"),
    seed: int = 0,
    resamples: int = 9999,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Test every method against every baseline, for each metric, group and protocol.

    Args:
        table: scores, see :func:`monai_sliceinterp.evaluation.compare`.
        baselines: names of the methods the others are compared with, and which are not tested themselves. One that has
            no scores is left out.
        metrics: names of metrics.
        seed: seed of the bootstrap; the interval of one test does not depend on which others are made.
        resamples: number of bootstrap samples.
        confidence: level of the bootstrap intervals.

    Returns:
        A row for each test, metric by metric in the order of the scores: "metric", "protocol", "group", "method",
        "baseline"; "n", the number of volumes that both have a score for; "mean_difference" over these, in the metric's
        unit, positive where the method is better, whether large or small values are good; "low" and "high", the ends of
        its bootstrap interval, see :func:`bootstrap_interval`; "wins", the number of volumes on which the method is
        better; "p_value" of the one-sided Wilcoxon signed-rank test that it is; "p_adjusted", corrected for all tests
        of the table by :func:`holm_correction`. Without any volume in common there is no test.

    Raises:
        ValueError: for an unknown metric, one without a better direction, or if a volume was scored twice.

    Example:
        >>> from monai_sliceinterp.evaluation import score_table
        >>> scores = score_table(
        ...     {"volume": v, "group": "g", "protocol": "p", "method": name, "psnr": 30.0 + gain * (v + 1)}
        ...     for v in range(5)
        ...     for name, gain in (("linear", 0.0), ("asi", 0.5))
        ... )
        >>> tests = compare_methods(scores, metrics=["psnr"])
        >>> tests[["method", "baseline", "n", "wins", "mean_difference", "p_value"]].values.tolist()
        [['asi', 'linear', 5, 5, 1.5, 0.03125]]
    """
    rows = []
    tidy = tidy_scores(table, metrics)
    for name in metrics:
        if METRICS[name].better == "closer to 1":
            raise ValueError(f"{name} has no better direction: 1 is as sharp as the truth; expected another metric.")
    for place, part in tidy.groupby(_PLACE, sort=False):
        sign = -1.0 if METRICS[place[0]].better == "smaller" else 1.0
        methods, volumes = part["method"].unique(), part["volume"].unique()
        wide = part.pivot(index="volume", columns="method", values="value").loc[volumes]
        for method in (name for name in methods if name not in baselines):
            for baseline in (name for name in baselines if name in methods):
                shared = wide[[method, baseline]].dropna().to_numpy()
                if not len(shared):
                    continue
                gain = sign * paired_difference(shared[:, 0], shared[:, 1])
                with np.errstate(invalid="ignore"):  # NaN where infinite gains meet infinite losses
                    mean = float(gain.mean())
                low, high = bootstrap_interval(gain, confidence, resamples, seed)
                wins = int((gain > 0).sum())
                rows.append((*place, method, baseline, len(gain), mean, low, high, wins, signed_rank_p_value(gain)))
    tests = pd.DataFrame(rows, columns=_COMPARISON)
    return tests.assign(p_adjusted=holm_correction(tests["p_value"]))


def paired_difference(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Compute differences of scores of the same volumes; equal scores differ by 0, also where both are infinite.

    Example:
        >>> paired_difference([25.0, np.inf, np.inf], [24.0, 30.0, np.inf]).tolist()
        [1.0, inf, 0.0]
    """
    minuend, subtrahend = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    return np.subtract(minuend, subtrahend, out=np.zeros(minuend.shape), where=minuend != subtrahend)


def signed_rank_p_value(difference: ArrayLike) -> float:
    """Compute the p-value of Wilcoxon's one-sided signed-rank test that paired differences tend to be positive.

    Args:
        difference: one number for each pair; zeros are dropped, infinite ones have the highest ranks.

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
    """Compute a confidence interval of a mean by the percentile bootstrap.

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
    options = {"method": "percentile", "vectorized": True, "random_state": np.random.default_rng(seed)}
    result = stats.bootstrap((sample,), np.mean, n_resamples=resamples, confidence_level=confidence, **options)
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
