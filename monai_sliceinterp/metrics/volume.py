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

"""Scores of interpolated volumes, each described in one entry of :data:`METRICS`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_sliceinterp.metrics.sharpness import flicker, relative_sharpness
from monai_sliceinterp.metrics.slices import SMALLEST_SLICE, slice_score, synthesized_pairs

__all__ = ["METRICS", "REGIONS", "Metric", "Region", "score_volume"]


class Region(NamedTuple):
    """Part of a volume that a score is about: its name for readers, and a sentence on it."""

    label: str
    note: str


_CUTS = (
    "Cuts across slices: the volume cut along the two in-plane axes, so that observed and synthesized slices "
    "are rows of one image. Where they have fewer rows than the window of a score, SSIM takes the largest odd window "
    "that fits (11 rows otherwise), and VIF extends them by their mirror images to 41 rows."
)

REGIONS = {
    "slices": Region(
        "", "Scores without a further name are over the synthesized slices only, in the slices' own plane."
    ),
    "volume": Region("whole volume", "Whole volume: over all slices, observed ones included."),
    "body": Region("inside the body", "Inside the body: over the synthesized slices' voxels that are tissue only."),
    "coronal": Region("cuts across slices (coronal where these are axial)", _CUTS),
    "sagittal": Region("cuts across slices (sagittal where these are axial)", _CUTS),
    "reconstruction": Region(
        "observed slices computed",
        "Observed slices computed: the slices that a method was given, as it makes them itself where it must not copy "
        "them (an autoencoder's reconstructions), against what it was given.",
    ),
}
"""Parts of a volume that are scored. Cuts at a fixed second in-plane index are called coronal, as they are of axial
slices stored as x, y, z; those at a fixed first index sagittal."""


@dataclass(frozen=True)
class Metric:
    """Score of an interpolated volume.

    Attributes:
        name: name for readers.
        note: a sentence for readers on how it is measured.
        score: called with images, their truth ``(K, 1, H, W)``, ``data_range`` and ``mask``; None for what is measured
            elsewhere: time, memory, and the scores of pretrained models.
        better: which values are good.
        unit: unit, where there is one.
        style: format specification of its values.
        region: what it is about, see :data:`REGIONS`.
        detailed: whether it takes several times as long as the others, and is computed on request only.
        smallest: pixels that images need in both directions.
        compared: whether it describes the result, not the effort.

    Example:
        >>> METRICS["psnr_body"].label, METRICS["psnr_body"].format(31.2345), METRICS["psnr_body"].merit(31.2345)
        ('PSNR (dB), inside the body', '31.23', 31.2345)
    """

    name: str
    note: str
    score: Callable[..., Tensor] | None = None
    better: Literal["larger", "smaller", "closer to 1"] = "larger"
    unit: str = ""
    style: str = ".4f"
    region: str = "slices"
    detailed: bool = False
    smallest: int = 0
    compared: bool = True

    def of(self, region: str, detailed: bool = False) -> Metric:
        """Return the same score of another region."""
        return replace(self, region=region, detailed=detailed)

    @property
    def title(self) -> str:
        """Name with the region, without the unit."""
        return ", ".join(part for part in (self.name, REGIONS[self.region].label) if part)

    @property
    def label(self) -> str:
        """Name with unit and region."""
        name = f"{self.name} ({self.unit})" if self.unit else self.name
        return ", ".join(part for part in (name, REGIONS[self.region].label) if part)

    def merit(self, value: float) -> float:
        """Return a number that is the larger the better a score is.

        Example:
            >>> METRICS["psnr"].merit(30.0), METRICS["rmse"].merit(0.25), METRICS["sharpness"].merit(1.5)
            (30.0, -0.25, -0.5)
        """
        return {"larger": value, "smaller": -value, "closer to 1": -abs(value - 1)}[self.better]

    def format(self, value: float) -> str:
        """Round a score as it is shown.

        Example:
            >>> METRICS["psnr"].format(31.2345), METRICS["mse"].format(0.00012345), METRICS["ssim"].format(math.nan)
            ('31.23', '1.23e-04', '–')
        """
        if math.isnan(value):
            return "–"
        if math.isinf(value):
            return "∞" if value > 0 else "-∞"
        style = ".0f" if self.style == ".3g" and abs(value) >= 1000 else self.style
        text = f"{value:{style}}"
        return text.lstrip("-") if float(text) == 0 else text  # no -0.00


def _sharpness(pred: Tensor, truth: Tensor, data_range: float, mask: Tensor | None) -> Tensor:
    return relative_sharpness(pred, truth)


def _flicker(pred: Tensor, truth: Tensor, data_range: float, mask: Tensor | None) -> Tensor:
    return flicker(pred, truth)


_PSNR = Metric(
    "PSNR",
    "PSNR: from the mean squared error over all synthesized slices of a volume together, not averaged slice by slice; "
    "larger is better.",
    partial(slice_score, name="psnr"),
    unit="dB",
    style=".2f",
)
_SSIM = Metric(
    "SSIM",
    "SSIM: mean structural similarity of the slices, a Gaussian window of 11 pixels; larger is better.",
    partial(slice_score, name="ssim"),
    smallest=SMALLEST_SLICE["ssim"],
)
_RMSE = Metric(
    "RMSE",
    "RMSE: root of the mean squared error, in units of the data range; smaller is better.",
    partial(slice_score, name="rmse"),
    better="smaller",
    style=".5f",
)
_VIF = Metric(
    "VIF",
    "VIF: mean visual information fidelity of the slices in the pixel domain; 1 is a perfect slice, larger is better.",
    partial(slice_score, name="vif"),
    detailed=True,
    smallest=SMALLEST_SLICE["vif"],
)
_SSIM_CUTS, _VIF_CUTS = (
    replace(metric, score=partial(slice_score, name=name, fit=True), smallest=1)
    for name, metric in (("ssim", _SSIM), ("vif", _VIF))
)

METRICS: dict[str, Metric] = {
    "psnr": _PSNR,
    "ssim": _SSIM,
    "psnr_volume": _PSNR.of("volume"),
    "psnr_body": _PSNR.of("body"),
    "ssim_body": _SSIM.of("body"),
    "rmse": _RMSE,
    "mse": Metric(
        "MSE",
        "MSE: mean squared error, in units of the squared data range; smaller is better.",
        partial(slice_score, name="mse"),
        better="smaller",
        style=".2e",
    ),
    "vif": _VIF,
    "sharpness": Metric(
        "Sharpness",
        "Sharpness: mean gradient magnitude of the slices over that of the true ones; 1 is as sharp, less is blurred, "
        "more is noise or edges that are not there.",
        _sharpness,
        better="closer to 1",
        style=".3f",
    ),
    "flicker": Metric(
        "Flicker",
        "Flicker: how unevenly the slices keep the fine detail of the true ones, the standard deviation of its "
        "logarithm; 0 is none, smaller is better.",
        _flicker,
        better="smaller",
        style=".3f",
        region="volume",
    ),
    "rmse_body": _RMSE.of("body"),
    "ssim_volume": _SSIM.of("volume", detailed=True),
    "ssim_coronal": _SSIM_CUTS.of("coronal", detailed=True),
    "ssim_sagittal": _SSIM_CUTS.of("sagittal", detailed=True),
    "vif_volume": _VIF.of("volume", detailed=True),
    "vif_coronal": _VIF_CUTS.of("coronal", detailed=True),
    "vif_sagittal": _VIF_CUTS.of("sagittal", detailed=True),
    "psnr_reconstruction": _PSNR.of("reconstruction"),
    "ssim_reconstruction": _SSIM.of("reconstruction"),
    "vif_reconstruction": _VIF.of("reconstruction", detailed=True),
    "lpips": Metric(
        "LPIPS", "LPIPS: mean learned perceptual distance of the slices; smaller is better.", better="smaller"
    ),
    "niqe": Metric(
        "NIQE",
        "NIQE: natural image quality evaluator, which knows no truth; smaller is better.",
        better="smaller",
        style=".2f",
    ),
    "ma": Metric(
        "Ma",
        "Ma: quality of super-resolved images by Ma et al. (NRQM), which knows no truth, 0 to 10; larger is better.",
        style=".2f",
    ),
    "dice": Metric(
        "Dice",
        "Dice: overlap of a segmentation of the result with the reference, both on the thick volume's own slices; mean "
        "over labels, larger is better.",
    ),
    "seconds": Metric(
        "Time",
        "Time: of the interpolation of one volume; it depends on the machine.",
        better="smaller",
        unit="s",
        style=".3g",
        compared=False,
    ),
    "memory": Metric(
        "Memory",
        "Memory: peak during the interpolation of one volume, in MiB; it depends on the machine.",
        better="smaller",
        unit="MiB",
        style=".1f",
        compared=False,
    ),
}
"""Metrics by the name of their column in tables, in the order of the columns."""


def score_volume(
    pred: Tensor,
    truth: Tensor,
    factor: int,
    data_range: float = 1.0,
    body: Tensor | None = None,
    include_observed: bool = False,
    detailed: bool = False,
) -> dict[str, float]:
    """Compute the scores of an interpolated volume.

    Args:
        pred: ``(C, H, W, M)``, interpolated from every ``factor``-th slice of ``truth``.
        truth: ``(C, H, W, N)``.
        factor: the upsampling factor.
        data_range: largest possible intensity difference; intensities are clipped to [0, ``data_range``].
        body: mask of the body, of the truth's shape; the scores inside it are added where it is given.
        include_observed: score the slices at observed positions too, which thick slices do not show as they are.
        detailed: add VIF, and the scores of all slices and of the cuts across them, which takes several times as long.

    Returns:
        Scores by their names in :data:`METRICS`. A detailed score is NaN where it is not defined: VIF where slices are
        smaller than 41 pixels either way, or where the truth is constant in all of them. Cuts across few slices are
        scored with ``fit``, see :func:`monai_sliceinterp.metrics.slice_score`.

    Raises:
        ValueError: if the shapes do not belong together, a volume has NaN or infinite voxels, or the slices are too
            small for SSIM.

    Example:
        >>> truth = torch.zeros(1, 16, 16, 5)
        >>> round(score_volume(truth + 0.1, truth, factor=2)["psnr"], 3)
        20.0
    """
    pred, truth = (volume.as_tensor() if isinstance(volume, MetaTensor) else volume for volume in (pred, truth))
    for volume, name in ((pred, "interpolated volume"), (truth, "truth")):
        if not torch.isfinite(volume).all():
            count = int((~torch.isfinite(volume)).sum())
            raise ValueError(f"the {name} has {count} of {volume.numel()} voxels that are NaN or infinite.")
    if body is not None and body.shape != truth.shape:
        raise ValueError(
            f"the body mask has shape {tuple(body.shape)}; expected that of the truth, {tuple(truth.shape)}."
        )
    pred, truth = pred.float().clamp(0, data_range), truth.float().clamp(0, data_range)
    count = pred.shape[-1]
    slices = synthesized_pairs(pred, truth, factor, include_observed)
    images: dict[str, tuple[Tensor, Tensor]] = {"slices": slices, "body": slices}
    masks: dict[str, Tensor] = {}
    if body is not None:
        masks["body"], _ = synthesized_pairs(body[..., :count], body, factor, include_observed)
    scores = {}
    for name, metric in METRICS.items():
        if metric.score is None or (metric.detailed and not detailed) or (metric.region == "body" and body is None):
            continue
        if metric.region == "reconstruction":  # of other images, see score_reconstruction
            continue
        if metric.region not in images:
            axis = {"coronal": 2, "sagittal": 1}.get(metric.region)
            if axis is None:
                images[metric.region] = synthesized_pairs(pred, truth, factor, include_observed=True)
            else:
                images[metric.region] = _cuts(pred, axis), _cuts(truth[..., :count], axis)
        first, second = images[metric.region]
        if metric.detailed and min(first.shape[-2:]) < metric.smallest:
            scores[name] = math.nan
        else:
            value = metric.score(first, second, data_range=data_range, mask=masks.get(metric.region))
            scores[name] = float(value)
    return scores


def _cuts(volume: Tensor, axis: int) -> Tensor:
    """Cut a volume ``(C, H, W, M)`` at every index of an axis: images ``(K C, 1, ., .)``."""
    return volume.movedim(axis, 0).flatten(0, 1)[:, None]
