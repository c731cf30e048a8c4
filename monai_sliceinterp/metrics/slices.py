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

"""Scores of the synthesized slices of interpolated volumes."""

from __future__ import annotations

import torch
from monai.metrics.regression import MSEMetric, PSNRMetric, RMSEMetric
from torch import Tensor

from monai_sliceinterp.checks import one_of
from monai_sliceinterp.metrics.fidelity import VIF_SIZE, visual_information_fidelity
from monai_sliceinterp.metrics.mean import MeanScoreMetric
from monai_sliceinterp.metrics.similarity import SSIM_SIZE, fitting_window, structural_similarity

__all__ = ["SLICE_SCORES", "SMALLEST_SLICE", "SynthesizedSliceMetric", "slice_score", "synthesized_pairs"]

SLICE_SCORES = ("psnr", "ssim", "rmse", "mse", "vif")

SMALLEST_SLICE = {"ssim": SSIM_SIZE, "vif": VIF_SIZE}
"""Pixels that a slice needs in both directions for a score."""


def synthesized_pairs(
    pred: Tensor, truth: Tensor, factor: int, include_observed: bool = False
) -> tuple[Tensor, Tensor]:
    """Select the synthesized slices of an interpolated volume and the true ones, as batches of slices.

    Args:
        pred: ``(C, H, W, M)``, interpolated by ``factor`` from every ``factor``-th slice of ``truth``.
        truth: ``(C, H, W, N)``; slices past the last observed one, which nothing can interpolate, are left out.
        factor: the upsampling factor.
        include_observed: select the slices at observed positions too, as thick slices do not show them as they are.

    Returns:
        Two tensors ``(K C, 1, H, W)``.

    Raises:
        ValueError: if the shapes do not belong together or there is no synthesized slice.

    Example:
        >>> volume = torch.rand(1, 8, 8, 10)
        >>> tuple(synthesized_pairs(volume[..., :9], volume, factor=4)[0].shape)
        (6, 1, 8, 8)
    """
    count = pred.shape[-1]
    if pred.shape[:-1] != truth.shape[:-1] or not count <= truth.shape[-1] < count + factor:
        raise ValueError(
            f"an interpolated volume of shape {tuple(pred.shape)} does not belong to a truth of shape "
            f"{tuple(truth.shape)} at factor {factor}."
        )
    index = torch.tensor([k for k in range(count) if include_observed or k % factor], device=pred.device)
    if not len(index):
        raise ValueError(f"a volume of {count} slices at factor {factor} has no synthesized slice to score.")
    # plain tensors: the slices of several volumes are pooled, their metadata means nothing here
    picked = (
        torch.as_tensor(volume)[..., index].permute(3, 0, 1, 2).flatten(0, 1)[:, None] for volume in (pred, truth)
    )
    first, second = (volume.as_tensor() if hasattr(volume, "as_tensor") else volume for volume in picked)
    return first, second


def slice_score(
    pred: Tensor, truth: Tensor, name: str, data_range: float = 1.0, mask: Tensor | None = None, fit: bool = False
) -> Tensor:
    """Compute a score of a batch of slices against the truth.

    Args:
        pred: slices ``(K, C, H, W)``.
        truth: slices of the same shape.
        name: "psnr": peak signal-to-noise ratio in dB, from the mean squared error over all slices together. (A mean of
            single slices' PSNR would be infinite as soon as one empty slice is reproduced exactly.) "mse", "rmse": that
            mean squared error, and its root in the unit of the intensities. "ssim": mean structural similarity of the
            slices, with a Gaussian window of 11 pixels, sigma 1.5. "vif": mean visual information fidelity of the
            slices whose truth is not constant, see :func:`monai_sliceinterp.metrics.visual_information_fidelity`.
        data_range: largest possible intensity difference.
        mask: pixels that count, of the slices' shape; all where None. SSIM counts those whose window lies inside the
            slice and is centered on them.
        fit: where slices are smaller than the window, take for SSIM the largest odd window that fits, and for VIF the
            slices extended by their mirror images; else this is an error.

    Returns:
        The score, a float32 scalar; an infinite PSNR where all slices are identical, NaN where no pixel counts, and for
        "vif" where every slice's truth is constant.

    Raises:
        ValueError: for an unknown score, different shapes, slices too small for the window, or a mask for "vif".

    Example:
        >>> slice_score(torch.zeros(2, 1, 16, 16), torch.full((2, 1, 16, 16), 0.1), "psnr").item()
        20.0
    """
    one_of("score", name, SLICE_SCORES)
    if pred.shape != truth.shape:
        raise ValueError(f"slices and truth differ in shape: {tuple(pred.shape)} and {tuple(truth.shape)}.")
    if mask is not None and mask.shape != truth.shape:
        raise ValueError(f"mask and slices differ in shape: {tuple(mask.shape)} and {tuple(truth.shape)}.")
    size, needed = tuple(pred.shape[-2:]), SMALLEST_SLICE.get(name, 0)
    if min(size) < needed and not fit:
        raise ValueError(f"{name.upper()}'s window needs slices of at least {needed} x {needed} pixels, got {size}.")
    if name == "vif":
        if mask is not None:
            raise ValueError("VIF is a score of whole slices and takes no mask.")
        return visual_information_fidelity(pred, truth, data_range, fit).nanmean().float()
    if name == "ssim":
        window = fitting_window(size)
        similarity = structural_similarity(pred, truth, data_range, window)
        if mask is not None:
            border = window // 2
            height, width = similarity.shape[-2:]
            similarity = similarity[mask[..., border : border + height, border : border + width]]
        return similarity.mean().float()
    pred, truth = pred.float(), truth.float()
    first, second = (pred, truth) if mask is None else (pred[mask], truth[mask])
    metric = {"psnr": PSNRMetric(max_val=data_range), "rmse": RMSEMetric(), "mse": MSEMetric()}[name]
    return torch.as_tensor(metric(first[None], second[None])).reshape(())  # all slices as one item


class SynthesizedSliceMetric(MeanScoreMetric):
    """Metric that averages over volumes the score of their synthesized slices, see :func:`slice_score`.

    Every volume counts the same, however many slices it has; one whose true slices are all constant has no VIF and does
    not count there. For use with ``IgniteMetricHandler``.

    Args:
        name: one of the scores of :func:`slice_score`: "psnr", "ssim", "rmse", "mse" or "vif".
        factor: the upsampling factor the volumes were interpolated by.
        data_range: largest possible intensity difference; intensities are clipped to [0, ``data_range``] first.
        include_observed: score the slices at observed positions too, see :func:`synthesized_pairs`.

    Example:
        >>> metric = SynthesizedSliceMetric("psnr", factor=2)
        >>> truth = torch.zeros(1, 1, 16, 16, 5)
        >>> _ = metric(truth + 0.1, truth)
        >>> round(metric.aggregate().item(), 3)
        20.0
    """

    def __init__(self, name: str, factor: int, data_range: float = 1.0, include_observed: bool = False) -> None:
        super().__init__()
        self.name, self.factor = one_of("score", name, SLICE_SCORES), factor
        self.data_range, self.include_observed = data_range, include_observed

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None) -> Tensor:  # type: ignore[override]
        if y is None or y_pred.ndim != 5:
            raise ValueError(f"expected volumes (B, C, H, W, M) and their truth, got shape {tuple(y_pred.shape)}.")
        scores = []
        for pred, truth in zip(y_pred, y, strict=True):
            first, second = synthesized_pairs(pred, truth, self.factor, self.include_observed)
            limits = (0.0, self.data_range)
            scores.append(slice_score(first.clamp(*limits), second.clamp(*limits), self.name, self.data_range))
        return torch.stack(scores)[:, None]

    def aggregate(self) -> Tensor:
        """Return the mean over the volumes seen since the last reset; NaN if none of them has a score."""
        # a constant truth has no VIF; any other NaN is the network's and has to be seen
        return super().aggregate() if self.name == "vif" else self.scores().mean()
