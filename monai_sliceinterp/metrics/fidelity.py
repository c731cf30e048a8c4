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

"""Visual information fidelity: the share of a reference's information that an image still contains."""

from __future__ import annotations

import torch
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_sliceinterp.metrics.mean import MeanScoreMetric
from monai_sliceinterp.metrics.windows import window_means

__all__ = ["VIF_SIZE", "VIFMetric", "visual_information_fidelity"]

VIF_SIZE = 41
"""Pixels that an image needs in both directions for four scales."""

_WINDOWS = (17, 9, 5, 3)  # pixels of the Gaussian window at each scale, five standard deviations wide
_NOISE = 2.0  # variance of the observer's noise, in squared gray levels of 256
_TINY = 1e-10  # variance that is none, in the same unit
_FLAT = 1e-6  # fraction of the data range; a reference that varies less holds nothing but rounding
_IMAGES_AT_ONCE = 8  # bounds the memory, which is over 20 times an image in float64


@torch.no_grad()
def visual_information_fidelity(pred: Tensor, truth: Tensor, data_range: float = 1.0, extend: bool = False) -> Tensor:
    """Compute the pixel-domain visual information fidelity (VIF) of images.

    The multi-scale form in the pixel domain (Sheikh and Bovik, "Image information and visual quality", 2006): four
    scales, Gaussian windows of 17, 9, 5 and 3 pixels, an observer whose noise has a variance of 2 where intensities
    span 255. It is computed in float64: in flat regions the variances are differences of nearly equal numbers, and
    float32 is wrong in the fourth digit there. The windows are applied along rows and columns in turn, which makes it
    fast enough for all slices of a volume.

    Args:
        pred: images ``(K, C, H, W)``, at least 41 x 41 pixels; every channel is an image of its own.
        truth: the references, of the same shape.
        data_range: largest possible intensity difference.
        extend: extend images that are smaller than 41 pixels by their mirror images, at their end, to that size.

    Returns:
        ``(K, C)`` float64: 1 for an image equal to its reference, 0 where nothing of it is left; above 1 for an image
        with more contrast than its reference. NaN where the reference is constant (to 1e-6 of ``data_range``): it holds
        no information that could be kept or lost. Leave these out of a mean (``nanmean``).

    Raises:
        ValueError: if the shapes differ, the images are too small, or an intensity is not finite.

    Example:
        >>> image = torch.rand(1, 1, 48, 48, generator=torch.Generator().manual_seed(0))
        >>> round(visual_information_fidelity(image, image).item(), 6)
        1.0
        >>> round(visual_information_fidelity(image / 2, image).item(), 3)
        0.813
    """
    if pred.shape != truth.shape or pred.ndim != 4:
        raise ValueError(
            f"VIF compares images (K, C, H, W) of one shape, got {tuple(pred.shape)} and {tuple(truth.shape)}."
        )
    if extend:
        pred, truth = _extended(pred), _extended(truth)
    if min(pred.shape[-2:]) < VIF_SIZE:
        raise ValueError(f"VIF needs images of at least {VIF_SIZE} x {VIF_SIZE} pixels, got {tuple(pred.shape[-2:])}.")
    for images, what in ((pred, "images"), (truth, "references")):
        if not torch.isfinite(images).all():
            raise ValueError(f"VIF is not defined for {what} with NaN or infinite intensities.")
    images, references = (convert_to_tensor(part, track_meta=False).flatten(0, 1) for part in (pred, truth))
    batches = zip(images.split(_IMAGES_AT_ONCE), references.split(_IMAGES_AT_ONCE), strict=True)
    values = torch.cat([_fidelity(image, reference, data_range) for image, reference in batches])
    return values.reshape(pred.shape[:2])


class VIFMetric(MeanScoreMetric):
    """Metric that averages the visual information fidelity of images, see :func:`visual_information_fidelity`.

    MONAI has no VIF; this one is used like its other metrics. Images with a constant reference do not count.

    Args:
        data_range: largest possible intensity difference.

    Example:
        >>> metric = VIFMetric()
        >>> image = torch.rand(2, 1, 48, 48)
        >>> _ = metric(image, image)
        >>> round(metric.aggregate().item(), 6)
        1.0
    """

    def __init__(self, data_range: float = 1.0) -> None:
        super().__init__()
        self.data_range = data_range

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None) -> Tensor:  # type: ignore[override]
        if y is None:
            raise ValueError("VIF needs references to compare the images with.")
        return visual_information_fidelity(y_pred, y, self.data_range)


def _extended(images: Tensor) -> Tensor:
    """Extend images ``(..., H, W)`` by their mirror images, one after another, to the size that VIF needs."""
    for axis in (-2, -1):
        length = images.shape[axis]
        if length < VIF_SIZE:
            index = torch.arange(VIF_SIZE, device=images.device) % (2 * length)
            images = images.index_select(axis, torch.minimum(index, 2 * length - 1 - index))
    return images


def _fidelity(images: Tensor, references: Tensor, data_range: float) -> Tensor:
    """Compute the VIF of images ``(K, H, W)``."""
    span = references.amax(dim=(-2, -1)) - references.amin(dim=(-2, -1))
    pair = torch.stack([images, references]).double() * (255.0 / data_range)
    shared = total = torch.zeros(len(images), dtype=pair.dtype, device=pair.device)
    for scale, size in enumerate(_WINDOWS):
        if scale:
            pair = window_means(pair, size, size / 5, stride=2)
        scale_shared, scale_total = _information(pair[0], pair[1], size)
        shared, total = shared + scale_shared, total + scale_total
    return (shared / total).masked_fill(span <= _FLAT * data_range, torch.nan)


def _information(image: Tensor, reference: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Compute the information that images ``(K, H, W)`` keep, and that of their references, in decimal digits."""
    fields = torch.stack([image, reference, image**2, reference**2, image * reference])
    mean, reference_mean, square, reference_square, product = window_means(fields, size, size / 5)
    variance = (square - mean**2).clamp(min=0)
    reference_variance = (reference_square - reference_mean**2).clamp(min=0)
    covariance = product - mean * reference_mean
    # the image as gain * reference + residual; where it is inverted or the reference is flat, it keeps nothing
    gain = covariance / (reference_variance + _TINY)
    flat = reference_variance < _TINY
    gain = gain.masked_fill(flat | (gain < 0), 0)
    residual = (variance - gain * covariance).clamp(min=_TINY)
    reference_variance = reference_variance.masked_fill(flat, 0)
    shared = torch.log10(1 + gain**2 * reference_variance / (residual + _NOISE))
    total = torch.log10(1 + reference_variance / _NOISE)
    return shared.sum(dim=(-2, -1)), total.sum(dim=(-2, -1))
