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

"""Charts of an evaluation."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from monai_sliceinterp.metrics import METRICS
from monai_sliceinterp.preview.drawing import drawing, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["box_plots", "cost_plot", "method_colors", "parameter_curve"]

_BASELINE_COLORS = {
    "linear": "#d9d9d9",
    "cubic": "#a6a6a6",
    "lanczos": "#595959",
    "motion": "#8c6d31",
    "blurred": "#e7cb94",
}
# the first ones stay apart for color-blind readers, too
_COLORS = ["#0072b2", "#d55e00", "#009e73", "#e69f00", "#56b4e9", "#332288", "#cc79a7", "#661100"]
_COLORS += ["#999933", "#44aa99", "#882255", "#f0e442"]
_BOXES_PER_ROW = 42
_WIDTH = 9.4  # inches: the page's, at least


def _add_caption(figure: Figure, text: str, width: float) -> None:
    """Add small text below a figure of a width in inches."""
    figure.supxlabel(textwrap.fill(text, int(width / 0.068)), fontsize=7.5, color="#404040")


def method_colors(names: Sequence[str]) -> dict[str, str]:
    """Choose a color for every method: grays for the baselines, for others by their order.

    Example:
        >>> method_colors(["mine", "cubic", "other"])
        {'mine': '#0072b2', 'cubic': '#a6a6a6', 'other': '#d55e00'}
    """
    others = [name for name in dict.fromkeys(names) if name not in _BASELINE_COLORS]
    chosen = {name: _COLORS[k % len(_COLORS)] for k, name in enumerate(others)}
    return {name: _BASELINE_COLORS.get(name) or chosen[name] for name in dict.fromkeys(names)}


def box_plots(table: pd.DataFrame, metric: str, path: str | Path) -> None:
    """Draw one box for each method and a group of boxes for each protocol, with the single volumes as dots.

    Groups of volumes get rows of their own, unless there are more than six or each holds one volume only: then all
    volumes share a row. Infinite values (exact results) and missing ones are left out, and the caption says so.

    Args:
        table: scores, see :func:`monai_sliceinterp.evaluation.score_table`.
        metric: name of the metric to draw, for instance "psnr".
        path: the file; its suffix says the format (png, svg, pdf). Its folder must exist.

    Raises:
        ValueError: if there is no finite value.
        ImportError: without matplotlib.

    Example:
        >>> import tempfile
        >>> from monai_sliceinterp.evaluation import score_table
        >>> file = Path(tempfile.mkdtemp()) / "psnr.png"
        >>> names = {"group": "g", "protocol": "subsample x2"}
        >>> rows = [{**names, "volume": f"v{k}", "method": name, "psnr": 30.0 + k} for k in range(5) for name in "ab"]
        >>> box_plots(score_table(rows), "psnr", file)
        >>> file.read_bytes()[1:4]
        b'PNG'
    """
    finite = table[np.isfinite(table[metric])]
    if finite.empty:
        raise ValueError(f"there is no finite value of {metric!r} to draw; leave this metric out.")
    methods, protocols, groups = (
        list(part.unique()) for part in (table["method"], finite["protocol"], finite["group"])
    )
    volume_numbers = finite.groupby(["group", "volume"], sort=False).ngroup()
    finite = finite.assign(shift=((volume_numbers * 0.618 + 0.5) % 1 - 0.5) * 0.5)  # a volume's dots have one place
    separate = 1 < len(groups) <= 6 and volume_numbers.nunique() > len(groups)
    per_row = max(1, _BOXES_PER_ROW // len(methods))
    rows = [
        (group, protocols[begin : begin + per_row])
        for group in (groups if separate else [None])
        for begin in range(0, len(protocols), per_row)
    ]
    colors = method_colors(methods)
    pitch = len(methods) + 1.2  # from one protocol to the next, in boxes
    width = max(_WIDTH, 1.1 + 0.27 * pitch * min(per_row, len(protocols)))
    with drawing(path, width, 0.9 + 2.9 * len(rows)) as figure:
        axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
        for axis, (group, shown) in zip(axes, rows, strict=True):
            part = finite if group is None else finite[finite["group"] == group]
            ticks = []
            for place, protocol in enumerate(shown):
                boxes = part[part["protocol"] == protocol]
                for k, name in enumerate(methods):
                    cell = boxes[boxes["method"] == name]
                    _draw_box(axis, place * pitch + k, cell[metric].to_numpy(), colors[name])
                    dots = place * pitch + k + cell["shift"].to_numpy()
                    axis.plot(dots, cell[metric].to_numpy(), "o", ms=2.8, mfc="white", mec="black", mew=0.5, zorder=4)
                ticks.append(f"{wrap(protocol, round(3.6 * pitch))}\n{_count_text(boxes['method'].value_counts())}")
            axis.set_xticks([place * pitch + (len(methods) - 1) / 2 for place in range(len(shown))], ticks)
            axis.set_xlim(-1.1, (len(shown) - 1) * pitch + len(methods) + 0.1)
            axis.tick_params(axis="x", length=0)
            axis.grid(axis="y")
            axis.set_ylabel(METRICS[metric].label)
            axis.margins(y=0.08)
            if group is not None:
                axis.set_title(group, loc="left", fontsize=9)
        from matplotlib.patches import Patch

        handles = [Patch(facecolor=colors[name], edgecolor="#303030", linewidth=0.8) for name in methods]
        labels = [wrap(name, 24) for name in methods]
        columns = max(1, int(width / (0.65 + 0.085 * max(len(line) for label in labels for line in label.split("\n")))))
        figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)
        merged = f" Volumes of {len(groups)} groups together." if len(groups) > 1 and not separate else ""
        caption = (
            f"{METRICS[metric].better.capitalize()} is better. Boxes: quartiles and median, whiskers up to 1.5 "
            f"interquartile ranges; dots: volumes.{merged}{_left_out(table[metric])}"
        )
        _add_caption(figure, caption, width)


def parameter_curve(
    points: Mapping[str, Sequence[tuple[float, float]]],
    xlabel: str,
    ylabel: str,
    path: str | Path,
    logx: bool = False,
) -> None:
    """Draw a score over a parameter: points are pairs of parameter and score by the name of their curve."""
    if not any(points.values()):
        raise ValueError("there is no point to draw.")
    for name, pairs in points.items():
        for x, y in pairs:
            if not np.isfinite([x, y]).all() or (logx and x <= 0):
                kind = "finite numbers, the first one positive" if logx else "finite numbers"
                raise ValueError(f"points must be {kind}; {name!r} has ({x:g}, {y:g}).")
    colors = method_colors(list(points))
    with drawing(path, _WIDTH, 4.2) as figure:
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
        if len(points) > 1:
            figure.legend(loc="outside right upper", frameon=False)


def cost_plot(table: pd.DataFrame, path: str | Path) -> None:
    """Draw the time and the memory that methods take: one dot for each volume and protocol, a bar at the median.

    A quantity that no row of the table has is left out.
    """
    labels = {"seconds": "time per volume (s)", "memory": "memory (MiB)"}
    quantities = [name for name in labels if np.isfinite(table[name]).any()]
    if not quantities:
        raise ValueError("the scores have neither times nor memory to draw.")
    methods = list(table["method"].unique())
    colors = method_colors(methods)
    width = _WIDTH
    with drawing(path, width, 1.5 + 0.34 * len(methods)) as figure:
        axes = figure.subplots(1, len(quantities), squeeze=False, sharey=True)[0]
        for axis, name in zip(axes, quantities, strict=True):
            for row, method in enumerate(methods):
                values = table.loc[table["method"] == method, name].to_numpy()
                values = values[np.isfinite(values)]
                shift = ((np.arange(len(values)) * 0.618 + 0.5) % 1 - 0.5) * 0.5
                axis.scatter(values, row + shift, s=22, color=colors[method], edgecolor="#303030", linewidth=0.5)
                if len(values):
                    middle = float(np.median(values))
                    axis.plot([middle, middle], [row - 0.38, row + 0.38], color="black", lw=2, zorder=3)
                    text = f"{METRICS[name].format(middle)} {METRICS[name].unit}"
                    axis.text(1.02, row, text, transform=axis.get_yaxis_transform(), va="center")
            if name == "seconds":
                axis.set_xscale("log")
                _plain_log_ticks(axis)
            else:
                axis.set_xlim(left=0)
            axis.set_xlabel(labels[name])
            axis.grid(axis="x")
        axes[0].set_yticks(range(len(methods)), [wrap(name, 24) for name in methods])
        axes[0].set_ylim(len(methods) - 0.4, -0.6)
        _add_caption(figure, "Dots: volumes and protocols; bars and numbers: medians.", width)


def _draw_box(axis: Axes, position: float, values: np.ndarray, color: str) -> None:
    line = {"color": "#303030", "linewidth": 0.8}
    box = {"facecolor": color, "edgecolor": "#303030", "linewidth": 0.8}
    median = {"color": "black", "linewidth": 1.4}
    style: dict[str, Any] = {"boxprops": box, "medianprops": median, "whiskerprops": line, "capprops": line}
    # every volume is drawn as a dot, so there are no fliers
    style |= {"widths": 0.78, "patch_artist": True, "manage_ticks": False, "showfliers": False}
    axis.boxplot([values], positions=[position], **style)


def _plain_log_ticks(axis: Axes) -> None:
    """Label a logarithmic x axis with plain numbers, at least one of them within a short range."""
    from matplotlib import ticker

    low, high = axis.get_xlim()
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(ticker.NullLocator())


def _left_out(values: pd.Series) -> str:
    """Count the values that are not drawn, in words."""
    exact, missing = int(np.isinf(values).sum()), int(values.isna().sum())
    parts = [f"{exact} exact (infinite)"] * (exact > 0) + [f"{missing} without a value"] * (missing > 0)
    return f" Left out: {', '.join(parts)}." if parts else ""


def _count_text(counts: pd.Series) -> str:
    low, high = (counts.min(), counts.max()) if len(counts) else (0, 0)
    return f"n = {high}" if low == high else f"n = {low} to {high}"
