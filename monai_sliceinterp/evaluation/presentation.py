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

from collections.abc import Mapping, Sequence
from pathlib import Path

import monai
import numpy as np
import pandas as pd
import torch

from monai_sliceinterp.evaluation.charts import box_plots, cost_plot, parameter_curve
from monai_sliceinterp.evaluation.cuts import panel_path, read_views
from monai_sliceinterp.evaluation.methods import Method, find_device
from monai_sliceinterp.evaluation.panels import panel, read_sweep, sweep_strip, write_sweeps
from monai_sliceinterp.evaluation.settings import EvaluationSettings
from monai_sliceinterp.evaluation.statistics import compare_methods, summarize, write_table
from monai_sliceinterp.evaluation.volume import VolumeResult
from monai_sliceinterp.metrics import METRICS
from monai_sliceinterp.preview.planes import View
from monai_sliceinterp.preview.windows import BODY, LUNG, DisplayWindow, display_windows

__all__ = ["check_curve", "curve_points", "present", "settings_in_words", "split_groups", "unit_windows"]

_TESTED = ("psnr", "ssim", "psnr_body", "ssim_body", "dice")
"""Metrics on which methods are tested; few, as the p-values are corrected for the number of tests."""


def check_curve(settings: EvaluationSettings, methods: Sequence[Method]) -> None:
    """Check that a method lies on the curve that is asked for."""
    if settings.curve and not any(method.series for method in methods):
        raise ValueError(
            f"no method lies on the curve over {settings.curve!r}; name them SERIES@NUMBER=PATH, for instance asi@0.25."
        )


def curve_points(scores: pd.DataFrame, metric: str, methods: Sequence[Method]) -> dict[str, list[tuple[float, float]]]:
    """Compute the mean scores of methods called SERIES@NUMBER over all volumes, for curves over the number.

    Returns:
        Pairs of number and mean by series and, if there are several, protocol.
    """
    several = scores["protocol"].nunique() > 1
    places = {method.name: (method.series, method.number) for method in methods if method.series}
    finite = scores[np.isfinite(scores[metric]) & scores["method"].isin(list(places))]
    curves: dict[tuple[str, float], float] = {}
    for (name, protocol), values in finite.groupby(["method", "protocol"])[metric]:
        series, number = places[name]
        curves[f"{series}, {protocol}" if several else series, number] = float(values.mean())
    points: dict[str, list[tuple[float, float]]] = {}
    for (series, number), mean in sorted(curves.items()):
        points.setdefault(series, []).append((number, mean))
    return points


def split_groups(scores: pd.DataFrame, kinds: Mapping[str, str]) -> pd.DataFrame:
    """Make two groups of one that holds CT and other scans, whose scores have no common meaning.

    Args:
        scores: see :func:`monai_sliceinterp.evaluation.score_table`.
        kinds: kind of each volume, by name.

    Example:
        >>> table = pd.DataFrame({"volume": ["a", "b", "c"], "group": ["x", "x", "y"]})
        >>> split_groups(table, {"a": "CT", "b": "not CT", "c": "CT"})["group"].tolist()
        ['x, CT', 'x, not CT', 'y']
    """
    kind = scores["volume"].map(dict(kinds))
    mixed = kind.groupby(scores["group"]).transform("nunique") > 1
    return scores.assign(group=scores["group"].where(~mixed, scores["group"] + ", " + kind))


def unit_windows(truth: Mapping[str, View], result: VolumeResult) -> list[DisplayWindow]:
    """Choose the windows of a panel in the unit range of its views: those of CT, none for other scans."""
    if result.limits is None or result.kind != "CT":
        return []
    low, high = result.limits
    images = [view.image * (high - low) + low for view in truth.values()]
    windows = dict.fromkeys(window for image in images for window in display_windows(image) if window in (BODY, LUNG))
    return [
        DisplayWindow(f"{name}, {a:g} to {b:g} HU", (a - low) / (high - low), (b - low) / (high - low))
        for name, a, b in windows
    ]


def settings_in_words(results: Sequence[VolumeResult], settings: EvaluationSettings) -> dict[str, str]:
    """Describe how was evaluated, for the report."""
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
        "protocols": ", ".join(protocol.title for protocol in settings.make_protocols()),
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
    """List pairs of value and name, each value once with the names that have it."""
    names: dict[str, list[str]] = {}
    for value, name in values:
        names.setdefault(value, []).append(name)
    if len(names) == 1:
        return f"{values[0][0]}: all volumes"
    return "; ".join(f"{value}: {', '.join(some)}" for value, some in names.items())


def present(
    results: Sequence[VolumeResult], scores: pd.DataFrame, settings: EvaluationSettings, methods: Sequence[Method]
) -> tuple[Path, list[str]]:
    """Write tables, pictures and the report to the output folder.

    Returns:
        The report, and a line for each picture that failed.
    """
    from monai_sliceinterp.evaluation.report import measurement_notes, write_report  # jinja2: not for tables alone

    output_dir = Path(settings.output_dir)
    write_table(scores, output_dir / "scores.csv")
    kinds = {result.item.name: result.kind for result in results}
    scores = split_groups(scores, kinds)
    known = [metric for metric in METRICS if scores[metric].notna().any()]
    tested = [metric for metric in _TESTED if metric in known]
    tests = compare_methods(scores, settings.baselines, tested, settings.seed)
    summaries = summarize(scores, known)
    for table, name in ((summaries, "summary"), (tests, "statistics")):
        write_table(table, output_dir / f"{name}.csv")
    shown = [metric for metric in (*tested, "vif", *settings.perceptual) if metric in known]
    pictures, failures = _draw(results, settings, methods, scores, shown)
    guide = {method.name: method.about for method in methods if method.about}
    lines = [line for result in results for line in result.failures] + failures
    words = settings_in_words(results, settings)
    titles = set(scores["protocol"])
    notes = measurement_notes([one for one in settings.make_protocols() if one.title in titles], known)
    _, report = write_report(scores, tests, summaries, pictures, words, lines, output_dir, notes, guide=guide)
    return report, failures


def _draw(
    results: Sequence[VolumeResult],
    settings: EvaluationSettings,
    methods: Sequence[Method],
    scores: pd.DataFrame,
    metrics: Sequence[str],
) -> tuple[dict[str, Path], list[str]]:
    """Draw the pictures; by title, in the order of the report, and a line for each that failed."""
    folder = Path(settings.output_dir) / "pictures"
    folder.mkdir(exist_ok=True)
    pictures: dict[str, Path] = {}
    failures: list[str] = []

    def place(title: str, name: str) -> Path:
        pictures[title] = folder / f"{name}.png"
        return pictures[title]

    kinds = scores["volume"].map({result.item.name: result.kind for result in results})
    for kind, part in scores.groupby(kinds, sort=False):  # CT and other scans are never drawn or averaged together
        ending = f", {kind}" if kinds.nunique() > 1 else ""
        mark = ending.replace(", ", "_").replace(" ", "_").lower()
        for metric in metrics:
            if np.isfinite(part[metric]).any():
                box_plots(part, metric, place(METRICS[metric].label + ending, f"box_{metric}{mark}"))
        for metric in metrics if settings.curve else ():
            points = curve_points(part, metric, methods)
            if points:
                numbers = [number for pairs in points.values() for number, _ in pairs]
                wide = min(numbers) > 0 and max(numbers) >= 20 * min(numbers)
                label = METRICS[metric].label
                path = place(f"{label} over {settings.curve}{ending}", f"curve_{metric}{mark}")
                parameter_curve(points, settings.curve, label, path, logx=wide)
        cost_plot(part, place(f"Time and memory{ending}", f"cost{mark}"))
    for result in results[: settings.panels]:
        for protocol in dict.fromkeys(row["protocol"] for row in result.scores):
            file = panel_path(settings.output_dir, result.item.name, protocol)
            names = [row["method"] for row in result.scores if row["protocol"] == protocol]
            title = f"{result.item.name}, {protocol}"
            cuts = read_views(file, names)
            panel(cuts, place(title, f"panel_{file.stem}"), title, unit_windows(cuts["truth"], result))
    first = next((result for result in results if result.scores), None)
    if settings.sweep and first is not None:
        file, failures = write_sweeps(first.item, settings, methods)
        fractions = [k / settings.sweep for k in range(settings.sweep + 1)]
        for number, method in enumerate(methods):
            views = read_sweep(file, method.name)
            if views:
                title = f"{first.item.name}: {method.name} between two slices"
                images = [view.image for view in views]
                sweep_strip(images, fractions, place(title, f"sweep_{number}"), title, views[0].aspect)
    return pictures, failures
