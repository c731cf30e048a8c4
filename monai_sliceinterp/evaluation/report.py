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

"""The report of an evaluation: tables, tests and pictures in words that stand for themselves, as Markdown and HTML."""

from __future__ import annotations

import base64
import html
import math
import mimetypes
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from monai_sliceinterp.evaluation.labels import format_value, merit, metric_label
from monai_sliceinterp.evaluation.notes import measurement_notes
from monai_sliceinterp.evaluation.scores import Score
from monai_sliceinterp.evaluation.statistics import MethodSummary, MethodTest
from monai_sliceinterp.files import atomic_path

__all__ = ["write_report"]

_PICTURE_NOTE = (
    "Where three planes are shown, axial is the plane of the slices, coronal and sagittal are the cuts across them, as "
    "if the slices were axial. Differences are a result minus the truth."
)
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


class _Picture(NamedTuple):
    title: str
    link: str
    data: str


@dataclass
class _Section:
    title: str
    paragraphs: list[str] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    tables: list[_Table] = field(default_factory=list)
    pictures: list[_Picture] = field(default_factory=list)
    details: bool = False  # long tables that are folded, and left out of the Markdown


def write_report(
    scores: Sequence[Score],
    tests: Sequence[MethodTest],
    summaries: Sequence[MethodSummary],
    pictures: Mapping[str, str | Path],
    settings: Mapping[str, str],
    failures: Sequence[str],
    output_dir: str | Path,
    confidence: float = 0.95,
    title: str = "Evaluation of slice interpolation",
) -> tuple[Path, Path]:
    """Write ``report.md`` and ``report.html``.

    The HTML holds its pictures and needs no other file, script or network; the Markdown links to the pictures.

    Args:
        scores: all rows.
        tests: all tests that were corrected together.
        summaries: means; a table is written for each of their metrics.
        pictures: files (png, svg, jpg) by their titles.
        settings: what else a reader has to know, by name.
        failures: a line for each volume or method that failed.
        output_dir: folder of the reports, which is made if it is missing.
        confidence: level of the intervals in ``tests``.
        title: heading of the report.

    Returns:
        The Markdown and the HTML file.

    Raises:
        ValueError: if there are no scores, or a picture is missing or not an image.

    Example:
        >>> import tempfile
        >>> row = Score("v", "g", "subsample x2", "linear", 31.234, 0.9, 33.0)
        >>> mean = MethodSummary("psnr", "subsample x2", "g", "linear", 1, 31.234, float("nan"))
        >>> markdown, page = write_report([row], [], [mean], {}, {"window": "-1024 to 2976"}, [], tempfile.mkdtemp())
        >>> "| g | subsample x2 | 1 | **31.23** |" in markdown.read_text(encoding="utf-8")
        True
        >>> page.name
        'report.html'
    """
    if not scores:
        raise ValueError("there are no scores to report.")
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    methods = list(dict.fromkeys(score.method for score in scores))
    metrics = list(dict.fromkeys(summary.metric for summary in summaries))
    sections = [
        _Section("In short", points=_findings(scores, tests, summaries, failures)),
        _Section(
            "Scores",
            [
                "Mean ± standard deviation over the volumes of a group; the best mean of a row is bold (several where "
                "they are equal as shown). n is the number of volumes."
            ],
            tables=[_mean_table(summaries, metric, methods) for metric in metrics],
        ),
    ]
    if tests:
        tested = list(dict.fromkeys(test.metric for test in tests))
        sections.append(_Section("Tests", [_test_note(tests, confidence)], tables=[_tests(tests, m) for m in tested]))
    if pictures:
        shown = [_picture(name, Path(path), folder) for name, path in pictures.items()]
        sections.append(_Section("Pictures", [_PICTURE_NOTE], pictures=shown))
    sections.append(
        _Section("How it was measured", points=measurement_notes([score.protocol for score in scores], metrics))
    )
    if settings:
        rows = [[_Cell(name), _Cell(text)] for name, text in settings.items()]
        sections.append(
            _Section("Settings", tables=[_Table("What the evaluation was run with", ["setting", "value"], rows, 2)])
        )
    sections.append(_Section("Failures", [] if failures else ["None."], list(failures)))
    every = [_volume_table(scores, metric, methods) for metric in metrics]
    sections.append(_Section("Every volume", tables=every, details=True))

    written = []
    for name in ("report.md", "report.html"):
        text = _TEMPLATES.get_template(f"{name}.j2").render(title=title, sections=sections)
        with atomic_path(folder / name) as part:
            part.write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written[0], written[1]


def _findings(
    scores: Sequence[Score], tests: Sequence[MethodTest], summaries: Sequence[MethodSummary], failures: Sequence[str]
) -> list[str]:
    """Say what was compared, and which method is best by the first metric."""
    volumes = len({(score.group, score.volume) for score in scores})
    counts = [
        (volumes, "volume"),
        (len({s.protocol for s in scores}), "protocol"),
        (len({s.method for s in scores}), "method"),
    ]
    found = [", ".join(f"{count} {word}{'s' * (count != 1)}" for count, word in counts) + "."]
    if failures:
        found.append(
            f"{len(failures)} failure{'s' * (len(failures) != 1)}, see there: what failed is not in the tables."
        )
    first = [summary for summary in summaries if summary.metric == summaries[0].metric and not math.isnan(summary.mean)]
    rows = [
        [summary for summary in first if (summary.group, summary.protocol) == place]
        for place in dict.fromkeys((summary.group, summary.protocol) for summary in first)
    ]
    rows = [row for row in rows if len(row) > 1]
    if len(rows) <= _FINDINGS:
        return found + [_finding(row, tests) for row in rows]
    wins = Counter(_best(row).method for row in rows).most_common()
    tally = ", ".join(f"{method} {count}" for method, count in wins)
    return [*found, f"Best mean {_score_name(first[0].metric)} of {len(rows)} groups and protocols: {tally}."]


def _finding(row: Sequence[MethodSummary], tests: Sequence[MethodTest]) -> str:
    """Say which mean of a row is the best, and what it gains over the better baseline."""
    best = _best(row)
    place = (best.metric, best.group, best.protocol, best.method)
    text = f"{best.group}, {best.protocol}: {best.method} has the best mean {_score_name(best.metric)}, "
    text += _with_unit(best.metric, format_value(best.metric, best.mean))
    against = {test.baseline: test for test in tests if (test.metric, test.group, test.protocol, test.method) == place}
    rivals = [summary for summary in row if summary.method in against]
    if rivals:
        test = against[_best(rivals).method]
        text += (
            f"; over {test.baseline} {_with_unit(test.metric, _signed(test.metric, test.mean_difference))}, better on "
            f"{test.wins} of {test.n} volumes, adjusted p = {_p_value(test.p_adjusted)}"
        )
    return f"{text}."


def _best(row: Sequence[MethodSummary]) -> MethodSummary:
    """Return the best of the means of one metric."""
    return max(row, key=lambda summary: merit(summary.metric, summary.mean))


def _score_name(metric: str) -> str:
    return metric_label(metric).replace(" (dB)", "")


def _with_unit(metric: str, number: str) -> str:
    return number + " dB" * metric.startswith("psnr")


def _signed(metric: str, value: float) -> str:
    return "+" * (value > 0) + format_value(metric, value)


def _p_value(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2g}"


def _best_cells(metric: str, values: Sequence[float], texts: Sequence[str]) -> list[_Cell]:
    """Make cells of one row, the best values bold; values that look the same are both the best."""
    known = [value for value in values if not math.isnan(value)]
    best = format_value(metric, max(known, key=lambda value: merit(metric, value))) if known else None
    shown = [format_value(metric, value) for value in values]
    return [_Cell(text, value == best) for text, value in zip(texts, shown, strict=True)]


def _mean_table(summaries: Sequence[MethodSummary], metric: str, methods: Sequence[str]) -> _Table:
    """Tabulate means: groups and protocols down, methods across."""
    found = {(s.group, s.protocol, s.method): s for s in summaries if s.metric == metric}
    names = [name for name in methods if any(key[2] == name for key in found)]
    rows = []
    for group, protocol in dict.fromkeys(key[:2] for key in found):
        row = [found.get((group, protocol, name)) for name in names]
        texts = [
            "–"
            if cell is None
            else format_value(metric, cell.mean)
            + ("" if math.isnan(cell.std) else f" ± {format_value(metric, cell.std)}")
            for cell in row
        ]
        counts = sorted({cell.n for cell in row if cell is not None})
        cells = _best_cells(metric, [math.nan if cell is None else cell.mean for cell in row], texts)
        count = " to ".join(str(number) for number in dict.fromkeys((counts[0], counts[-1])))
        rows.append([_Cell(group), _Cell(protocol), _Cell(count), *cells])
    return _Table(metric_label(metric), ["group", "protocol", "n", *names], rows, 2)


def _volume_table(scores: Sequence[Score], metric: str, methods: Sequence[str]) -> _Table:
    """Tabulate every volume's scores."""
    found = {(s.group, s.volume, s.protocol, s.method): float(getattr(s, metric)) for s in scores}
    rows = []
    for group, volume, protocol in dict.fromkeys(key[:3] for key in found):
        values = [found.get((group, volume, protocol, name), math.nan) for name in methods]
        cells = _best_cells(metric, values, [format_value(metric, value) for value in values])
        rows.append([_Cell(group), _Cell(volume), _Cell(protocol), *cells])
    return _Table(f"{metric_label(metric)} of every volume", ["group", "volume", "protocol", *methods], rows, 3)


def _tests(tests: Sequence[MethodTest], metric: str) -> _Table:
    """Tabulate the tests on one metric; adjusted p-values below 0.05 are bold."""
    rows = []
    for test in (test for test in tests if test.metric == metric):
        low, high = (format_value(metric, value) for value in (test.low, test.high))
        interval = "–" if math.isnan(test.low) else f"{low} to {high}"
        words = [test.group, test.protocol, test.method, test.baseline]
        numbers = [
            str(test.n),
            _signed(metric, test.mean_difference),
            interval,
            f"{test.wins} of {test.n}",
            _p_value(test.p_value),
        ]
        rows.append(
            [*(_Cell(text) for text in words + numbers), _Cell(_p_value(test.p_adjusted), test.p_adjusted < 0.05)]
        )
    head = ["group", "protocol", "method", "baseline", "n", "difference", "interval", "wins", "p", "adjusted p"]
    return _Table(f"{metric_label(metric)}: methods against baselines", head, rows, 4)


def _test_note(tests: Sequence[MethodTest], confidence: float) -> str:
    return (
        "Each method is compared with each baseline on the same volumes. Difference: mean over volumes, positive where "
        f"the method is better; interval: {100 * confidence:g} % bootstrap interval of this mean; wins: volumes on "
        "which the method is better. p: one-sided Wilcoxon signed-rank test that the method is better; adjusted p: "
        f"Holm's correction over all {len(tests)} tests of this report, bold below 0.05. With n volumes p cannot be "
        "smaller than 1 / 2^n."
    )


def _picture(title: str, path: Path, folder: Path) -> _Picture:
    """Read a picture."""
    kind = mimetypes.guess_type(path.name)[0] or ""
    if not path.is_file() or not kind.startswith("image/"):
        raise ValueError(f"{path}: expected an image file (png, svg, jpg) for the picture {title!r}.")
    link = quote(Path(os.path.relpath(path, folder)).as_posix())
    return _Picture(title, link, f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}")


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
