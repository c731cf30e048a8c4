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

"""Tables, pictures and the report of an evaluation."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import monai
import torch

from monai_sliceinterp.evaluation.cuts import panel_path, read_panel
from monai_sliceinterp.evaluation.methods import Method, find_device
from monai_sliceinterp.evaluation.pictures import (
    box_plots,
    cost_plot,
    metric_label,
    panel,
    parameter_curve,
    sweep_strip,
)
from monai_sliceinterp.evaluation.scores import METRICS, Score, write_rows, write_scores
from monai_sliceinterp.evaluation.settings import EvaluationSettings
from monai_sliceinterp.evaluation.statistics import summarize, test_methods
from monai_sliceinterp.evaluation.sweep import read_sweep, write_sweeps
from monai_sliceinterp.evaluation.volume import VolumeResult

__all__ = ["check_curve", "curve_points", "present", "settings_in_words"]

_ON_A_CURVE = re.compile(r"(.+)@([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)")


def check_curve(settings: EvaluationSettings, methods: Sequence[Method]) -> None:
    """Check that there is something to draw if a curve is asked for.

    Raises:
        ValueError: if no method has a name like SERIES@NUMBER.
    """
    if settings.curve and not any(_ON_A_CURVE.fullmatch(method.name) for method in methods):
        raise ValueError(
            f"no method lies on the curve over {settings.curve!r}; name them SERIES@NUMBER=PATH, for instance asi@0.25."
        )


def curve_points(scores: Sequence[Score], metric: str) -> dict[str, list[tuple[float, float]]]:
    """Average the scores of methods called SERIES@NUMBER over all volumes, for curves over the number.

    Args:
        scores: the scores.
        metric: name of the metric.

    Returns:
        Pairs of number and mean by series and, if there are several, protocol.

    Example:
        >>> rows = [Score("v", "g", "p", f"asi@{x}", 30.0 + x, 0.9, 0.0) for x in (0.5, 2.0)]
        >>> curve_points(rows, "psnr")
        {'asi': [(0.5, 30.5), (2.0, 32.0)]}
    """
    several = len({score.protocol for score in scores}) > 1
    values: dict[tuple[str, float], list[float]] = {}
    for score in scores:
        match, value = _ON_A_CURVE.fullmatch(score.method), float(getattr(score, metric))
        if match and math.isfinite(value):
            series = f"{match[1]}, {score.protocol}" if several else match[1]
            values.setdefault((series, float(match[2])), []).append(value)
    points: dict[str, list[tuple[float, float]]] = {}
    for (series, number), found in sorted(values.items()):
        points.setdefault(series, []).append((number, sum(found) / len(found)))
    return points


def settings_in_words(results: Sequence[VolumeResult], settings: EvaluationSettings) -> dict[str, str]:
    """Tell how was evaluated, for the report."""
    read = [result for result in results if result.axis is not None]
    skipped = [f"{result.item.name}: {', '.join(result.skipped)}" for result in results if result.skipped]
    device = find_device(settings.device)
    gpu = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    memory = "by how much the process grew at most while it ran, after its weights were loaded"
    if gpu:
        memory = f"of a network: most that tensors held on the GPU at a time, weights included; of others: {memory}"
    return {
        "data": f"{len(results)} volumes in {', '.join(map(str, settings.data))}",
        "methods": ", ".join(settings.methods),
        "protocols": ", ".join(settings.titles),
        "slice axis in the files": _shared([(str(result.axis), result.item.name) for result in read]),
        "intensities scored": _shared([(result.window, result.item.name) for result in read]),
        "pixels scored": f"central {settings.crop} x {settings.crop}" if settings.crop else "all",
        "body": "not told apart" if settings.body is None else f"largest region above {settings.body:g}, holes filled",
        "left out for too few slices": "; ".join(skipped) or "nothing",
        "computed on": f"{device}{gpu}" + (f", {settings.workers} processes at a time" if settings.workers > 1 else ""),
        "memory": memory,
        "rounding": "results are scored in floating point, not rounded to the type the scans were stored in",
        "slices between two": "from the two in the middle of the first volume and one more on either side",
        "seed": str(settings.seed),
        "versions": f"MONAI {monai.__version__}, PyTorch {torch.__version__}",
    }


def _shared(values: Sequence[tuple[str, str]]) -> str:
    """Tell pairs of value and name, each value once with the names that have it."""
    names: dict[str, list[str]] = {}
    for value, name in values:
        names.setdefault(value, []).append(name)
    return "; ".join(f"{value}: {'all volumes' if len(names) == 1 else ', '.join(own)}" for value, own in names.items())


def present(
    results: Sequence[VolumeResult], settings: EvaluationSettings, methods: Sequence[Method]
) -> tuple[Path, list[str]]:
    """Write tables, pictures and the report to the output folder.

    Returns:
        The report, and what went wrong with the pictures, a line each.
    """
    from monai_sliceinterp.evaluation.report import write_report  # needs jinja2, which the tables do not

    output_dir = Path(settings.output_dir)
    scores = [score for result in results for score in result.scores]
    known = [metric for metric in METRICS if any(not math.isnan(getattr(score, metric)) for score in scores)]
    tested = [metric for metric in ("psnr", "ssim", "psnr_body", "ssim_body") if metric in known]
    tests = test_methods(scores, settings.baselines, tested, settings.seed)
    summaries = summarize(scores, known)
    write_scores(scores, output_dir / "scores.csv")
    write_rows(summaries, output_dir / "summary.csv")
    write_rows(tests, output_dir / "statistics.csv")
    drawn = [metric for metric in (*tested, "vif", *settings.perceptual) if metric in known]
    pictures, failures = _draw(results, settings, methods, scores, drawn)
    failed = [line for result in results for line in result.failures] + failures
    words = settings_in_words(results, settings)
    _, report = write_report(scores, tests, summaries, pictures, words, failed, output_dir)
    return report, failures


def _draw(
    results: Sequence[VolumeResult],
    settings: EvaluationSettings,
    methods: Sequence[Method],
    scores: Sequence[Score],
    metrics: Sequence[str],
) -> tuple[dict[str, Path], list[str]]:
    """Draw the pictures; by title, in the order of the report, and what went wrong."""
    folder = Path(settings.output_dir) / "pictures"
    folder.mkdir(exist_ok=True)
    pictures: dict[str, Path] = {}
    failures: list[str] = []

    def place(title: str, name: str) -> Path:
        pictures[title] = folder / f"{name}.png"
        return pictures[title]

    for metric in metrics:
        if any(math.isfinite(getattr(score, metric)) for score in scores):
            box_plots(scores, metric, place(metric_label(metric), f"box_{metric}"))
    for metric in metrics if settings.curve else ():
        points = curve_points(scores, metric)
        if points:
            numbers = [number for pairs in points.values() for number, _ in pairs]
            wide = min(numbers) > 0 and max(numbers) >= 20 * min(numbers)
            label = metric_label(metric)
            path = place(f"{label} over {settings.curve}", f"curve_{metric}")
            parameter_curve(points, settings.curve, label, path, logx=wide)
    cost_plot(scores, place("Time and memory", "cost"))
    for result in results[: settings.panels]:
        for protocol in dict.fromkeys(score.protocol for score in result.scores):
            file = panel_path(settings.output_dir, result.item.name, protocol)
            arrays = read_panel(file, [s.method for s in result.scores if s.protocol == protocol])
            title = f"{result.item.name}, {protocol}"
            panel(arrays, place(title, f"panel_{file.stem}"), title)
    scored = [result for result in results if result.scores]
    if settings.sweep:
        file, failures = write_sweeps(scored[0].item, settings, methods)
        for number, method in enumerate(methods):
            if file.is_file() and any(name.startswith(f"{method.name}|") for name in read_panel(file, [method.name])):
                slices, aspect = read_sweep(file, method.name)
                title = f"{scored[0].item.name}: {method.name} between two slices"
                fractions = [k / settings.sweep for k in range(settings.sweep + 1)]
                sweep_strip(slices, fractions, place(title, f"sweep_{number}"), title, aspect)
    return pictures, failures
