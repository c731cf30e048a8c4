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

"""The table of an evaluation: a row for each volume, protocol and method, a column for each metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from monai_sliceinterp.checks import one_of
from monai_sliceinterp.files import atomic_path
from monai_sliceinterp.metrics import METRICS

__all__ = ["IDENTITY", "score_table", "tidy_scores", "write_table"]

IDENTITY = ["volume", "group", "protocol", "method"]
"""Columns that say what a row is the score of: file name without suffix, what the volume belongs to (its folder), title
of the protocol, name of the method."""


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

    Example:
        >>> row = {"volume": "v", "group": "g", "protocol": "p", "method": "linear", "psnr": 20.0}
        >>> tidy_scores(score_table([row]), ["psnr", "ssim"]).values.tolist()
        [['psnr', 'p', 'g', 'linear', 'v', 20.0]]
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
            table.to_csv(part, index=False, na_rep="nan", lineterminator="\r\n")
