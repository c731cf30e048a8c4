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

"""Scores of interpolated volumes, and the tables made of them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from monai_sliceinterp.evaluation.significance import paired_difference, signed_rank_p_value
from monai_sliceinterp.files import atomic_path
from monai_sliceinterp.metrics import score_volume

__all__ = [
    "METRICS",
    "SMALLER_IS_BETTER",
    "Score",
    "format_scores",
    "score_volume",
    "write_rows",
    "write_scores",
]

REGIONS = ("slices", "body")
"""What scores are about: whole synthesized slices, or what of them lies inside the body."""

_NOT_SCORED = float("nan")


@dataclass(frozen=True)
class Score:
    """Scores of one method on one volume under one protocol; NaN where there is none.

    Attributes:
        volume: file name without suffix.
        group: what the volume belongs to, for instance its folder.
        protocol: how it was degraded, for instance "subsample x2".
        method: name of the method.
        psnr: PSNR of the synthesized slices together, in dB.
        ssim: mean SSIM of the synthesized slices.
        psnr_volume: PSNR over all voxels, observed slices included, in dB.
        psnr_body: like ``psnr``, inside the body only; NaN where no body was asked for.
        ssim_body: like ``ssim``, inside the body only.
        rmse: root of the mean squared error of the synthesized slices, in the unit of the intensities.
        mse: mean squared error of the synthesized slices.
        vif: mean visual information fidelity of the synthesized slices.
        sharpness: mean gradient magnitude of the synthesized slices over that of the true ones; 1 is as sharp.
        rmse_body: like ``rmse``, inside the body only.
        ssim_volume: mean SSIM of all slices, observed ones included.
        ssim_coronal: mean SSIM of the cuts across the slices at fixed second in-plane index (coronal for axial slices
            stored as x, y, z); observed and synthesized slices are rows of these cuts.
        ssim_sagittal: mean SSIM of the cuts across the slices at fixed first in-plane index.
        vif_volume: mean VIF of all slices.
        vif_coronal: mean VIF of the same cuts as ``ssim_coronal``.
        vif_sagittal: mean VIF of the same cuts as ``ssim_sagittal``.
        lpips: mean learned perceptual distance of the synthesized slices; smaller is better.
        niqe: mean natural image quality evaluator of the synthesized slices; smaller is better.
        seconds: time of the interpolation.
        memory: peak memory of the interpolation in MiB.
    """

    volume: str
    group: str
    protocol: str
    method: str
    psnr: float
    ssim: float
    psnr_volume: float
    psnr_body: float = _NOT_SCORED
    ssim_body: float = _NOT_SCORED
    rmse: float = _NOT_SCORED
    mse: float = _NOT_SCORED
    vif: float = _NOT_SCORED
    sharpness: float = _NOT_SCORED
    rmse_body: float = _NOT_SCORED
    ssim_volume: float = _NOT_SCORED
    ssim_coronal: float = _NOT_SCORED
    ssim_sagittal: float = _NOT_SCORED
    vif_volume: float = _NOT_SCORED
    vif_coronal: float = _NOT_SCORED
    vif_sagittal: float = _NOT_SCORED
    lpips: float = _NOT_SCORED
    niqe: float = _NOT_SCORED
    seconds: float = _NOT_SCORED
    memory: float = _NOT_SCORED


METRICS = tuple(field.name for field in fields(Score) if field.type == "float")
"""Names of the scores, in the order of the columns."""

SMALLER_IS_BETTER = ("rmse", "mse", "rmse_body", "lpips", "niqe", "seconds", "memory")
"""The scores of which a smaller one is better."""


def format_scores(scores: Sequence[Score], method: str, region: str = "slices") -> str:
    """Tabulate mean scores for each group and protocol, and test a method against the better of linear and cubic.

    Args:
        scores: as :func:`compare` returns them.
        method: the method under test.
        region: "slices" or "body".

    Returns:
        A Markdown table: PSNR (dB) and SSIM of the synthesized slices of every method as mean over volumes, the gain of
        ``method`` over the better of linear and cubic, on how many volumes it wins, and the p-value of the one-sided
        Wilcoxon signed-rank test on PSNR.

    Example:
        >>> rows = [
        ...     Score("v", "g", "p", name, 20.0 + k, 0.5, 20.0) for k, name in enumerate(["linear", "cubic", "asi"])
        ... ]
        >>> print(format_scores(rows, "asi").splitlines()[-1])
        | g | p | 1 | 20.00 / 0.5000 | 21.00 / 0.5000 | 22.00 / 0.5000 | +1.00 dB over cubic | 1 of 1 | 0.5 |
    """
    if region not in REGIONS:
        raise ValueError(f"unknown region {region!r}; expected one of {', '.join(REGIONS)}.")
    suffix = "_body" if region == "body" else ""
    names = list(dict.fromkeys(score.method for score in scores))
    head = ["group", "protocol", "n", *names, "gain", "wins", "p"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for group, protocol in dict.fromkeys((score.group, score.protocol) for score in scores):
        rows = [score for score in scores if (score.group, score.protocol) == (group, protocol)]
        psnr, ssim = (
            {name: np.array([getattr(row, key) for row in rows if row.method == name]) for name in names}
            for key in ("psnr" + suffix, "ssim" + suffix)
        )
        best = max((name for name in ("linear", "cubic") if name in psnr), key=lambda name: psnr[name].mean())
        difference = paired_difference(psnr[method], psnr[best])
        cells = [group, protocol, str(len(difference))]
        cells += [f"{psnr[name].mean():.2f} / {ssim[name].mean():.4f}" for name in names]
        cells += [f"{difference.mean():+.2f} dB over {best}", f"{int((difference > 0).sum())} of {len(difference)}"]
        lines.append("| " + " | ".join([*cells, f"{signed_rank_p_value(difference):.2g}"]) + " |")
    return "\n".join(lines)


def write_scores(scores: Sequence[Score], path: str | Path) -> None:
    """Write scores as CSV, one row for each volume, protocol and method.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "scores.csv"
        >>> write_scores([Score("v", "g", "p", "linear", 20.0, 0.5, 20.0)], file)
        >>> file.read_text().splitlines()[1]
        'v,g,p,linear,20.0,0.5,20.0,nan,nan,...'
    """
    write_rows(scores, path)


def write_rows(rows: Sequence[Any], path: str | Path) -> None:
    """Write dataclasses of one kind as CSV, a column for each field; no rows make an empty file.

    Args:
        rows: for instance scores, or the results of :func:`monai_sliceinterp.evaluation.test_methods`.
        path: the file; its folder must exist.

    Raises:
        OSError: if the file cannot be written.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "rows.csv"
        >>> write_rows([Score("v", "g", "p", "linear", 20.0, 0.5, 20.0)], file)
        >>> file.read_text()[:25]
        'volume,group,protocol,met'
    """
    with atomic_path(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=[field.name for row in rows[:1] for field in fields(row)])
        if rows:
            writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
