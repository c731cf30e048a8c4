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

"""Report of an evaluation: tables, tests and pictures with what is needed to read them, as Markdown and HTML."""

from __future__ import annotations

import base64
import html
import math
import mimetypes
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from monai_sliceinterp.files import atomic_path
from monai_sliceinterp.metrics import METRICS, REGIONS, Protocol

__all__ = ["measurement_notes", "write_report"]

_PICTURE_NOTE = (
    "Where three planes are shown, the first one is that of the slices and the others cut across them; they are named "
    "by anatomy. Differences are a result minus the truth."
)
_SCORE_NOTE = (
    "Mean ± standard deviation over the volumes of a group; the best mean of a row is bold (several where they are "
    "equal as shown). n is the number of volumes."
)
_TEST_NOTE = (
    "Each method is compared with each baseline on the same volumes. Difference: mean over volumes, positive where "
    "the method is better; interval: {confidence:g} % bootstrap interval of this mean; wins: volumes on which the "
    "method is better. p: one-sided Wilcoxon signed-rank test that the method is better; adjusted p: Holm's correction "
    "over all {count} tests of this report, bold below 0.05. With n volumes p cannot be smaller than 1 / 2^n: less "
    "than five are too few."
)
_OPEN = {"Scores": 2, "Tests": 1}
"""Metrics whose tables are shown; those of the others are folded at the end."""

_TOO_FEW = "too few volumes for a test"
_SIGNIFICANT = 0.05
_FINDINGS = 12  # sentences; more groups and protocols than that are counted


class _Cell(NamedTuple):
    text: str
    best: bool = False


class _Table(NamedTuple):
    """A table whose first ``texts`` columns are words."""

    caption: str
    head: list[str]
    rows: list[list[_Cell]]
    texts: int


@dataclass
class _Section:
    title: str
    paragraphs: list[str] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    tables: list[_Table] = field(default_factory=list)
    pictures: list[dict[str, str]] = field(default_factory=list)
    details: bool = False  # long tables that are folded, and left out of the Markdown


def measurement_notes(protocols: Sequence[Protocol], metrics: Sequence[str]) -> list[str]:
    """Describe in sentences how volumes were degraded and scored, for readers of a report."""
    regions = {METRICS[name].region for name in metrics if METRICS[name].compared}
    notes = [
        "Volumes are degraded by a protocol, every method restores the slices from the same thick volume, and the "
        "result is compared with the slices of the original volume.",
        *(protocol.note for protocol in protocols if protocol.note),
        "Intensities are scaled to the data range 0 to 1 and clipped to it, the truth and all results alike.",
        *(metric.note for name, metric in METRICS.items() if name in metrics),
        *(region.note for name, region in REGIONS.items() if name in regions),
    ]
    return list(dict.fromkeys(notes))


def write_report(
    scores: pd.DataFrame,
    tests: pd.DataFrame,
    summaries: pd.DataFrame,
    pictures: Mapping[str, str | Path],
    settings: Mapping[str, str],
    failures: Sequence[str],
    output_dir: str | Path,
    notes: Sequence[str] = (),
    confidence: float = 0.95,
    title: str = "Evaluation of slice interpolation",
    guide: Mapping[str, str] | None = None,
) -> tuple[Path, Path]:
    """Write ``report.md`` and ``report.html``.

    The HTML holds its pictures and needs no other file, script or network; the Markdown links to the pictures.

    Args:
        scores: see :func:`monai_sliceinterp.evaluation.score_table`.
        tests: see :func:`monai_sliceinterp.evaluation.compare_methods`.
        summaries: see :func:`monai_sliceinterp.evaluation.summarize`; a table is written for each metric.
        pictures: files (png, svg, jpg) by their titles.
        settings: what else a reader has to know, by name.
        failures: a line for each volume or method that failed.
        output_dir: folder of the reports, which is made if it is missing.
        notes: how it was measured, see :func:`measurement_notes`.
        confidence: level of the intervals in ``tests``.
        title: heading of the report.
        guide: what each method does and what it is for, by name.

    Returns:
        The Markdown and the HTML file.
    """
    if scores.empty:
        raise ValueError("there are no scores to report.")
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    methods, metrics = list(scores["method"].unique()), list(summaries["metric"].unique())
    sections = [_Section("In short", points=_findings(scores, tests, summaries, failures))]
    if guide:
        sections.append(_Section("Methods", points=[f"{name}: {text}" for name, text in guide.items()]))
    note = _TEST_NOTE.format(count=len(tests), confidence=100 * confidence)
    means = [_mean_table(name, part, methods) for name, part in summaries.groupby("metric", sort=False)]
    compared = [_test_table(name, part) for name, part in tests.groupby("metric", sort=False)] if len(tests) else []
    folded = []
    for name, text, tables in (("Scores", _SCORE_NOTE, means), ("Tests", note, compared)):
        if tables or name == "Scores":
            sections.append(_Section(name, [text], tables=tables[: _OPEN[name]]))
        if tables[_OPEN[name] :]:
            folded.append(_Section(f"More {name.lower()}", tables=tables[_OPEN[name] :], details=True))
    if pictures:
        shown = [_picture(name, Path(path), folder) for name, path in pictures.items()]
        sections.append(_Section("Pictures", [_PICTURE_NOTE], pictures=shown))
    sections.append(_Section("How it was measured", points=list(notes)))
    if settings:
        rows = [[_Cell(name), _Cell(text)] for name, text in settings.items()]
        table = _Table("What the evaluation was run with", ["setting", "value"], rows, 2)
        sections.append(_Section("Settings", tables=[table]))
    sections.append(_Section("Failures", [] if failures else ["None."], list(failures)))
    every = [_volume_table(name, scores, methods) for name in metrics]
    sections += [*folded, _Section("Every volume", tables=every, details=True)]

    written = []
    for name in ("report.md", "report.html"):
        text = _TEMPLATES.get_template(f"{name}.j2").render(title=title, sections=sections)
        with atomic_path(folder / name) as part:
            part.write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written[0], written[1]


def _findings(scores: pd.DataFrame, tests: pd.DataFrame, summaries: pd.DataFrame, failures: Sequence[str]) -> list[str]:
    """Write what was compared, and which method is best by the first metric."""
    volumes = len(scores.groupby(["group", "volume"]))
    counts = [(volumes, "volume"), (scores["protocol"].nunique(), "protocol"), (scores["method"].nunique(), "method")]
    lines = [", ".join(f"{count} {word}{'s' * (count != 1)}" for count, word in counts) + "."]
    if failures:
        count = len(failures)
        lines.append(f"{count} failure{'s' * (count != 1)}, see there: what failed is not in the tables.")
    if summaries.empty:
        return lines
    metric = str(summaries["metric"].iloc[0])
    first = summaries[(summaries["metric"] == metric) & summaries["mean"].notna()]
    rows = {place: row.set_index("method") for place, row in first.groupby(["group", "protocol"], sort=False)}
    rows = {place: row for place, row in rows.items() if len(row) > 1}
    if len(rows) <= _FINDINGS:
        return lines + [_finding(metric, str(g), str(p), row["mean"], tests) for (g, p), row in rows.items()]
    wins = pd.Series([_best(metric, row["mean"]) for row in rows.values()]).value_counts()
    tally = ", ".join(f"{method} {count}" for method, count in wins.items())
    return [*lines, f"Best mean {METRICS[metric].title} of {len(rows)} groups and protocols: {tally}."]


def _finding(metric: str, group: str, protocol: str, means: pd.Series, tests: pd.DataFrame) -> str:
    """Write which mean of a row is the best, and what it gains over the better baseline."""
    best = _best(metric, means)
    text = f"{group}, {protocol}: {best} has the best mean {METRICS[metric].title}, "
    text += _with_unit(metric, METRICS[metric].format(means[best]))
    columns = ["metric", "group", "protocol", "method"]
    against = tests[(tests[columns] == [metric, group, protocol, best]).all(axis=1)].set_index("baseline")
    rivals = means[means.index.isin(against.index)]
    if len(rivals):
        baseline = _best(metric, rivals)
        test = against.loc[baseline]
        text += (
            f"; over {baseline} {_with_unit(metric, _signed(metric, test['mean_difference']))}, better on "
            f"{test['wins']} of {test['n']} volumes, "
            + (_TOO_FEW if _too_few(test["n"]) else f"adjusted p = {_p_value(test['p_adjusted'])}")
        )
    return f"{text}."


def _best(metric: str, means: pd.Series) -> str:
    """Find the method with the best of the means of one metric."""
    return str(means.map(METRICS[metric].merit).idxmax())


def _with_unit(metric: str, number: str) -> str:
    return f"{number} {METRICS[metric].unit}".rstrip()


def _signed(metric: str, value: float) -> str:
    return ("+" if value > 0 else "") + METRICS[metric].format(value)


def _too_few(count: int) -> bool:
    """Whether no differences of so many volumes could be significant."""
    return 0.5**count > _SIGNIFICANT


def _p_value(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2g}"


def _cells(metric: str, means: pd.Series, stds: pd.Series | None = None) -> list[_Cell]:
    """Make the cells of one row, the best values bold; values that look the same are both the best."""
    texts = means.map(METRICS[metric].format)
    best = texts[_best(metric, means.dropna())] if means.notna().any() else None
    spreads = [""] * len(means) if stds is None else [f" ± {METRICS[metric].format(x)}" * (x == x) for x in stds]
    return [_Cell(text + spread, text == best) for text, spread in zip(texts, spreads, strict=True)]


def _mean_table(metric: str, summaries: pd.DataFrame, methods: Sequence[str]) -> _Table:
    """Tabulate means: groups and protocols down, methods across."""
    names = [name for name in methods if name in set(summaries["method"])]
    rows = []
    for (group, protocol), part in summaries.groupby(["group", "protocol"], sort=False):
        row = part.set_index("method").reindex(names)
        count = " to ".join(str(number) for number in dict.fromkeys((part["n"].min(), part["n"].max())))
        rows.append([_Cell(group), _Cell(protocol), _Cell(count), *_cells(metric, row["mean"], row["std"])])
    return _Table(METRICS[metric].label, ["group", "protocol", "n", *names], rows, 2)


def _volume_table(metric: str, scores: pd.DataFrame, methods: Sequence[str]) -> _Table:
    """Tabulate every volume's scores."""
    rows = []
    for names, part in scores.groupby(["group", "volume", "protocol"], sort=False):
        row = part.set_index("method")[metric].reindex(methods)
        rows.append([*(_Cell(name) for name in names), *_cells(metric, row)])
    return _Table(f"{METRICS[metric].label} of every volume", ["group", "volume", "protocol", *methods], rows, 3)


def _test_table(metric: str, tests: pd.DataFrame) -> _Table:
    """Tabulate the tests on one metric; adjusted p-values below 0.05 are bold."""
    rows = []
    for test in tests.itertuples():
        low, high = (METRICS[metric].format(value) for value in (test.low, test.high))
        texts = [
            *(test.group, test.protocol, test.method, test.baseline, str(test.n)),
            _signed(metric, test.mean_difference),
            "–" if math.isnan(test.low) else f"{low} to {high}",
            f"{test.wins} of {test.n}",
        ]
        values = [_Cell(_p_value(test.p_value)), _Cell(_p_value(test.p_adjusted), test.p_adjusted < _SIGNIFICANT)]
        rows.append([*map(_Cell, texts), *([_Cell(_TOO_FEW), _Cell("–")] if _too_few(test.n) else values)])
    head = ["group", "protocol", "method", "baseline", "n", "difference", "interval", "wins", "p", "adjusted p"]
    return _Table(f"{METRICS[metric].label}: methods against baselines", head, rows, 4)


def _picture(title: str, path: Path, folder: Path) -> dict[str, str]:
    """Read a picture."""
    kind = mimetypes.guess_type(path.name)[0] or ""
    if not path.is_file() or not kind.startswith("image/"):
        raise ValueError(f"{path}: expected an image file (png, svg, jpg) for the picture {title!r}.")
    link = quote(Path(os.path.relpath(path, folder)).as_posix())
    data = base64.b64encode(path.read_bytes()).decode()
    return {"title": title, "link": link, "data": f"data:{kind};base64,{data}"}


def _escape_markdown(text: str) -> str:
    r"""Show a text as it is: no HTML, no emphasis, no table cells.

    Example:
        >>> print(_escape_markdown("a_b *c* <b>|x"))
        a_b \*c\* &lt;b&gt;&#124;x
    """
    text = re.sub(r"([\\`*\[\]#]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", " ".join(text.split()))
    return html.escape(text, quote=False).replace("|", "&#124;")


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=lambda name: name is not None and name.endswith(".html.j2"),
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)
_TEMPLATES.filters["md"] = _escape_markdown
