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

"""Charts of an evaluation: box plots of scores, scores over a parameter, and what the methods cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_sliceinterp.evaluation.drawing import add_caption, drawing, wrap
from monai_sliceinterp.evaluation.labels import better_is, format_value, method_colors, metric_label
from monai_sliceinterp.evaluation.scores import Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["box_plots", "cost_plot", "parameter_curve"]

_BOXES_PER_ROW = 42


def box_plots(scores: Sequence[Score], metric: str, path: str | Path, title: str = "") -> None:
    """Draw one box for each method and a group of boxes for each protocol, with the single volumes as dots.

    Groups of volumes get rows of their own, unless there are more than six or each holds one volume only: then all
    volumes share a row. Infinite values (exact results) and missing ones are left out, and the caption says so.

    Args:
        scores: rows, see :class:`monai_sliceinterp.evaluation.Score`; may also be another class with the attributes
            volume, group, protocol, method and the metric.
        metric: name of the attribute to draw, for instance "psnr".
        path: the file; its suffix says the format (png, svg, pdf). Its folder must exist.
        title: shown on top.

    Raises:
        ValueError: if there is no finite value.
        ImportError: without matplotlib.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "psnr.png"
        >>> rows = [Score(f"v{k}", "g", "subsample x2", name, 30.0 + k, 0.9, 32.0) for k in range(5) for name in "ab"]
        >>> box_plots(rows, "psnr", file)
        >>> file.read_bytes()[1:4]
        b'PNG'
    """
    kept = [score for score in scores if np.isfinite(getattr(score, metric))]
    if not kept:
        raise ValueError(f"there is no finite value of {metric!r} to draw; leave this metric out.")
    methods = list(dict.fromkeys(score.method for score in scores))
    protocols = list(dict.fromkeys(score.protocol for score in kept))
    groups = list(dict.fromkeys(score.group for score in kept))
    volumes = {name: k for k, name in enumerate(dict.fromkeys((score.group, score.volume) for score in kept))}
    separate = 1 < len(groups) <= 6 and len(volumes) > len(groups)
    per_row = max(1, _BOXES_PER_ROW // len(methods))
    rows = [
        (group, protocols[begin : begin + per_row])
        for group in (groups if separate else [None])
        for begin in range(0, len(protocols), per_row)
    ]
    colors = method_colors(methods)
    pitch = len(methods) + 1.2  # from one protocol to the next, in boxes
    width = max(5.5, 1.1 + 0.27 * pitch * min(per_row, len(protocols)))
    with drawing(path, width, 0.9 + 2.9 * len(rows)) as figure:
        axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
        for axis, (group, shown) in zip(axes, rows, strict=True):
            part = [score for score in kept if group in (None, score.group)]
            counts = []
            for place, protocol in enumerate(shown):
                found = [[s for s in part if (s.protocol, s.method) == (protocol, name)] for name in methods]
                counts.append(_count_text([len(rows) for rows in found if rows]))
                for k, (name, cell) in enumerate(zip(methods, found, strict=True)):
                    values = [getattr(score, metric) for score in cell]
                    _draw_box(axis, place * pitch + k, values, colors[name])
                    shift = [((volumes[score.group, score.volume] * 0.618 + 0.5) % 1 - 0.5) * 0.5 for score in cell]
                    places = np.add(place * pitch + k, shift)
                    axis.plot(places, values, "o", ms=2.8, mfc="white", mec="black", mew=0.5, zorder=4)
            names = [wrap(name, round(3.6 * pitch)) for name in shown]
            ticks = [f"{name}\n{count}" for name, count in zip(names, counts, strict=True)]
            axis.set_xticks([place * pitch + (len(methods) - 1) / 2 for place in range(len(shown))], ticks)
            axis.set_xlim(-1.1, (len(shown) - 1) * pitch + len(methods) + 0.1)
            axis.tick_params(axis="x", length=0)
            axis.grid(axis="y")
            axis.set_ylabel(metric_label(metric))
            axis.margins(y=0.08)
            if group is not None:
                axis.set_title(group, loc="left", fontsize=9)
        handles = [_swatch(colors[name]) for name in methods]
        labels = [wrap(name, 24) for name in methods]
        columns = max(1, int(width / (0.65 + 0.085 * max(len(line) for label in labels for line in label.split("\n")))))
        legend = figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False, title=title)
        legend.get_title().set_fontsize(11)
        merged = f" Volumes of {len(groups)} groups together." if len(groups) > 1 and not separate else ""
        caption = (
            f"{better_is(metric).capitalize()}. Boxes: quartiles and median, whiskers up to 1.5 interquartile ranges; "
            "dots: volumes."
            f"{merged}{_left_out([getattr(score, metric) for score in scores])}"
        )
        add_caption(figure, caption, width)


def parameter_curve(
    points: Mapping[str, Sequence[tuple[float, float]]],
    xlabel: str,
    ylabel: str,
    path: str | Path,
    logx: bool = False,
    title: str = "",
) -> None:
    """Draw how a score depends on a parameter, one curve for each series.

    Args:
        points: pairs of parameter and score by the name of the series; drawn in the order of the parameter.
        xlabel: the parameter.
        ylabel: the score.
        path: the file, see :func:`box_plots`.
        logx: logarithmic axis of the parameter.
        title: shown on top.

    Raises:
        ValueError: if there is no point, if one is not finite, or if a parameter is not positive with ``logx``.
        ImportError: without matplotlib.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "lambda.svg"
        >>> parameter_curve({"asi": [(0.01, 31.0), (0.1, 31.6), (1, 31.2)]}, "lambda", "PSNR (dB)", file, logx=True)
        >>> file.exists()
        True
    """
    if not any(points.values()):
        raise ValueError("there is no point to draw.")
    for name, pairs in points.items():
        for x, y in pairs:
            if not np.isfinite([x, y]).all() or (logx and x <= 0):
                kind = "finite numbers, the first one positive" if logx else "finite numbers"
                raise ValueError(f"points must be {kind}; {name!r} has ({x:g}, {y:g}).")
    colors = method_colors(list(points))
    with drawing(path, 5.5, 3.6) as figure:
        axis = figure.subplots()
        for (name, pairs), marker in zip(points.items(), "os^Dv<>Ph*Xp" * len(points), strict=False):
            x, y = np.array(sorted(pairs), dtype=np.float64).reshape(-1, 2).T
            axis.plot(x, y, marker=marker, ms=5, color=colors[name], mec="#303030", mew=0.5, label=name)
        if logx:
            axis.set_xscale("log")
            _plain_log_ticks(axis)
        axis.set_xlabel(xlabel)
        axis.set_ylabel(ylabel)
        axis.grid()
        axis.set_title(title)
        if len(points) > 1:
            figure.legend(loc="outside right upper", frameon=False)


def cost_plot(scores: Sequence[Score], path: str | Path, title: str = "") -> None:
    """Draw the time and the memory that methods take: one dot for each volume and protocol, a bar at the median.

    Args:
        scores: rows with "seconds" and "memory" (MiB); a quantity that no row has is left out.
        path: the file, see :func:`box_plots`.
        title: shown on top.

    Raises:
        ValueError: if no row has a time or a memory.
        ImportError: without matplotlib.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "cost.png"
        >>> cost_plot([Score("v", "g", "p", "linear", 30.0, 0.9, 32.0, seconds=0.2)], file)
        >>> file.exists()
        True
    """
    quantities = [
        (key, label, unit)
        for key, label, unit in (("seconds", "time per volume (s)", "s"), ("memory", "memory (MiB)", "MiB"))
        if any(np.isfinite(getattr(score, key)) for score in scores)
    ]
    if not quantities:
        raise ValueError("the scores have neither times nor memory to draw.")
    methods = list(dict.fromkeys(score.method for score in scores))
    colors = method_colors(methods)
    with drawing(path, 1.5 + 3.9 * len(quantities), 1.5 + 0.34 * len(methods)) as figure:
        axes = figure.subplots(1, len(quantities), squeeze=False, sharey=True)[0]
        for axis, (key, label, unit) in zip(axes, quantities, strict=True):
            for row, name in enumerate(methods):
                values = np.array([getattr(score, key) for score in scores if score.method == name])
                values = values[np.isfinite(values)]
                shift = [((k * 0.618 + 0.5) % 1 - 0.5) * 0.5 for k in range(len(values))]
                axis.scatter(values, np.add(row, shift), s=22, color=colors[name], edgecolor="#303030", linewidth=0.5)
                if len(values):
                    middle = float(np.median(values))
                    axis.plot([middle, middle], [row - 0.38, row + 0.38], color="black", lw=2, zorder=3)
                    text = f"{format_value(key, middle)} {unit}"
                    axis.text(1.02, row, text, transform=axis.get_yaxis_transform(), va="center")
            if key == "seconds":
                axis.set_xscale("log")
                _plain_log_ticks(axis)
            else:
                axis.set_xlim(left=0)
            axis.set_xlabel(label)
            axis.grid(axis="x")
        axes[0].set_yticks(range(len(methods)), [wrap(name, 24) for name in methods])
        axes[0].set_ylim(len(methods) - 0.4, -0.6)
        if title:
            figure.suptitle(title)
        add_caption(figure, "Dots: volumes and protocols; bars and numbers: medians.", 1.5 + 3.9 * len(quantities))


def _draw_box(axis: Axes, position: float, values: Sequence[float], color: str) -> None:
    line = {"color": "#303030", "linewidth": 0.8}
    axis.boxplot(
        [values],
        positions=[position],
        widths=0.78,
        patch_artist=True,
        manage_ticks=False,
        showfliers=False,  # every volume is drawn as a dot
        boxprops={"facecolor": color, "edgecolor": "#303030", "linewidth": 0.8},
        medianprops={"color": "black", "linewidth": 1.4},
        whiskerprops=line,
        capprops=line,
    )


def _swatch(color: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=color, edgecolor="#303030", linewidth=0.8)


def _plain_log_ticks(axis: Axes) -> None:
    """Label a logarithmic x axis with plain numbers, at least one of them within a short range."""
    from matplotlib import ticker

    low, high = axis.get_xlim()
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(ticker.NullLocator())


def _left_out(values: Sequence[float]) -> str:
    """Say which values are not drawn."""
    exact, missing = int(np.isinf(values).sum()), int(np.isnan(values).sum())
    parts = [f"{exact} exact (infinite)"] * (exact > 0) + [f"{missing} without a value"] * (missing > 0)
    return f" Left out: {', '.join(parts)}." if parts else ""


def _count_text(counts: Sequence[int]) -> str:
    """Tell how many volumes the boxes of a protocol stand for."""
    low, high = min(counts, default=0), max(counts, default=0)
    return f"n = {high}" if low == high else f"n = {low} to {high}"
