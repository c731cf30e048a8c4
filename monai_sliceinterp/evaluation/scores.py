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
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from scipy import stats
from torch import Tensor

from monai_sliceinterp.files import atomic_path
from monai_sliceinterp.metrics import slice_score, synthesized_pairs
from monai_sliceinterp.metrics.slices import SLICE_SCORES

__all__ = ["Score", "format_scores", "score_volume", "write_scores"]

REGIONS = ("slices", "body")
"""What scores are about: whole synthesised slices, or what of them lies inside the body."""


@dataclass(frozen=True)
class Score:
    """Scores of one method on one volume under one protocol.

    Attributes:
        volume: file name without suffix.
        group: what the volume belongs to, for instance its folder.
        protocol: how it was degraded, for instance "subsample x2".
        method: name of the method.
        psnr: PSNR of the synthesised slices together, in dB.
        ssim: mean SSIM of the synthesised slices.
        psnr_volume: PSNR over all voxels, observed slices included, in dB.
        psnr_body: like ``psnr``, inside the body only; NaN where no body was asked for.
        ssim_body: like ``ssim``, inside the body only.
    """

    volume: str
    group: str
    protocol: str
    method: str
    psnr: float
    ssim: float
    psnr_volume: float
    psnr_body: float = float("nan")
    ssim_body: float = float("nan")


def score_volume(
    pred: Tensor,
    truth: Tensor,
    factor: int,
    data_range: float = 1.0,
    body: Tensor | None = None,
    observed: bool = False,
) -> dict[str, float]:
    """Score an interpolated volume.

    Args:
        pred: ``(C, H, W, M)``, interpolated from every ``factor``-th slice of ``truth``.
        truth: ``(C, H, W, N)``.
        factor: the upsampling factor.
        data_range: largest possible intensity difference; intensities are clipped to [0, ``data_range``].
        body: mask of the body, of the truth's shape; the scores inside it are added where it is given.
        observed: score the slices at observed positions too, which thick slices do not show as they are.

    Returns:
        "psnr" and "ssim" of the synthesised slices, "psnr_volume" and so on, see :class:`Score`.

    Example:
        >>> import torch
        >>> truth = torch.zeros(1, 16, 16, 5)
        >>> round(score_volume(truth + 0.1, truth, factor=2)["psnr"], 3)
        20.0
    """
    pred, truth = (volume.as_tensor() if isinstance(volume, MetaTensor) else volume for volume in (pred, truth))
    pred, truth = pred.float().clamp(0, data_range), truth.float().clamp(0, data_range)
    first, second = synthesized_pairs(pred, truth, factor, observed)
    mse = float(((pred - truth[..., : pred.shape[-1]]).double() ** 2).mean())
    scores = {name: float(slice_score(first, second, name, data_range)) for name in SLICE_SCORES}
    scores["psnr_volume"] = float(10 * np.log10(data_range**2 / mse)) if mse > 0 else float("inf")
    if body is not None:
        mask, _ = synthesized_pairs(body[..., : pred.shape[-1]], body, factor, observed)
        for name in SLICE_SCORES:
            scores[f"{name}_body"] = float(slice_score(first, second, name, data_range, mask))
    return scores


def format_scores(scores: Sequence[Score], method: str, region: str = "slices") -> str:
    """Tabulate mean scores for each group and protocol, and test a method against the better of linear and cubic.

    Args:
        scores: as :func:`compare` returns them.
        method: the method under test.
        region: "slices" or "body".

    Returns:
        A Markdown table: PSNR (dB) and SSIM of the synthesised slices of every method as mean over volumes, the gain of
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
        tied = psnr[method] == psnr[best]  # also where both are infinite
        difference = np.subtract(psnr[method], psnr[best], out=np.zeros(len(tied)), where=~tied)
        p_value = float(stats.wilcoxon(difference, alternative="greater").pvalue) if difference.any() else 1.0
        cells = [group, protocol, str(len(difference))]
        cells += [f"{psnr[name].mean():.2f} / {ssim[name].mean():.4f}" for name in names]
        cells += [f"{difference.mean():+.2f} dB over {best}", f"{int((difference > 0).sum())} of {len(difference)}"]
        lines.append("| " + " | ".join([*cells, f"{p_value:.2g}"]) + " |")
    return "\n".join(lines)


def write_scores(scores: Sequence[Score], path: str | Path) -> None:
    """Write scores as CSV, one row for each volume, protocol and method.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "scores.csv"
        >>> write_scores([Score("v", "g", "p", "linear", 20.0, 0.5, 20.0)], file)
        >>> file.read_text().splitlines()[1]
        'v,g,p,linear,20.0,0.5,20.0,nan,nan'
    """
    with atomic_path(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(Score.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(asdict(score) for score in scores)
