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

"""How scores and methods are called, rounded and colored, in tables and pictures alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

from monai_sliceinterp.evaluation.scores import SMALLER_IS_BETTER

__all__ = ["PLANES", "better_is", "format_value", "merit", "method_colors", "metric_label"]

PLANES = ("axial", "coronal", "sagittal")
"""Planes of a panel: the slices' own, and the two that cut across the slices."""

# Gray baselines; the methods in colors that stay apart for color-blind readers (of Okabe and Ito, and of Tol).
_COLORS = {
    "linear": "#d9d9d9",
    "cubic": "#a6a6a6",
    "lanczos": "#595959",
    "asi": "#0072b2",
    "saint": "#d55e00",
    "hrinet": "#009e73",
    "vts": "#e69f00",
}
_OTHER_COLORS = ("#56b4e9", "#332288", "#cc79a7", "#661100", "#999933", "#44aa99", "#882255", "#f0e442")

_METRICS = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "rmse": "RMSE",
    "mse": "MSE",
    "vif": "VIF",
    "sharpness": "Sharpness",
    "lpips": "LPIPS",
    "niqe": "NIQE",
    "seconds": "Time (s)",
    "memory": "Memory (MiB)",
}
_PARTS = {"volume": "whole volume", "body": "inside the body", **{plane: f"{plane} cuts" for plane in PLANES}}
_DECIMALS = {"psnr": 2, "ssim": 4, "rmse": 5, "vif": 4, "sharpness": 3, "lpips": 4, "niqe": 2, "memory": 1}


def metric_label(metric: str) -> str:
    """Name a metric for readers.

    Example:
        >>> metric_label("psnr"), metric_label("ssim_coronal"), metric_label("nrqm")
        ('PSNR (dB)', 'SSIM, coronal cuts', 'nrqm')
    """
    name, _, part = metric.partition("_")
    label = _METRICS.get(name, name)
    return f"{label}, {_PARTS.get(part, part)}" if part else label


def merit(metric: str, value: float) -> float:
    """Return a number that is the larger the better a score is.

    Example:
        >>> merit("psnr", 30.0), merit("rmse", 0.25), merit("sharpness", 1.5)
        (30.0, -0.25, -0.5)
    """
    if metric == "sharpness":
        return -abs(value - 1)
    return -value if metric in SMALLER_IS_BETTER else value


def better_is(metric: str) -> str:
    """Say which scores are good.

    Example:
        >>> better_is("psnr"), better_is("rmse"), better_is("sharpness")
        ('larger is better', 'smaller is better', 'closer to 1 is better')
    """
    if metric == "sharpness":
        return "closer to 1 is better"
    return "smaller is better" if metric in SMALLER_IS_BETTER else "larger is better"


def method_colors(names: Sequence[str]) -> dict[str, str]:
    """Give every method its color: the known ones always the same, others by their order.

    Example:
        >>> method_colors(["mine", "cubic", "saint"])
        {'mine': '#56b4e9', 'cubic': '#a6a6a6', 'saint': '#d55e00'}
    """
    others = [name for name in dict.fromkeys(names) if name not in _COLORS]
    free = {name: _OTHER_COLORS[k % len(_OTHER_COLORS)] for k, name in enumerate(others)}
    return {name: _COLORS.get(name) or free[name] for name in dict.fromkeys(names)}


def format_value(metric: str, value: float) -> str:
    """Round a score as it is shown.

    Example:
        >>> format_value("psnr", 31.2345), format_value("mse", 0.00012345), format_value("ssim", float("nan"))
        ('31.23', '1.23e-04', '–')
    """
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    name = metric.partition("_")[0]
    if name in _DECIMALS:
        return f"{round(value, _DECIMALS[name]) + 0.0:.{_DECIMALS[name]}f}"  # the sum makes 0 of -0
    return f"{value:.2e}" if name == "mse" else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
