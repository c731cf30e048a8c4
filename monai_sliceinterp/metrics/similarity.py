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

"""Structural similarity of images as a map, exact also where images are flat."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_sliceinterp.metrics.windows import window_means

__all__ = ["SSIM_SIZE", "fitting_window", "structural_similarity"]

SSIM_SIZE = 11
"""Pixels of the Gaussian window, which an image needs in both directions."""

_SIGMA = 1.5
_IMAGES_AT_ONCE = 8  # bounds the memory, which is over 20 times an image in float64


def fitting_window(size: Sequence[int]) -> int:
    """Compute the pixels of the window for images of a size ``(H, W)``: 11, or the largest odd number that fits.

    Example:
        >>> fitting_window((140, 140)), fitting_window((140, 10))
        (11, 9)
    """
    return min(SSIM_SIZE, min(size) - (min(size) + 1) % 2)


def structural_similarity(pred: Tensor, truth: Tensor, data_range: float = 1.0, window: int = SSIM_SIZE) -> Tensor:
    """Compute the structural similarity (SSIM) of images at the pixels whose window lies inside the image.

    With the constants of Wang et al. ("Image quality assessment", 2004): a Gaussian window of 11 pixels with a standard
    deviation of 1.5, K1 = 0.01, K2 = 0.03. Equal to scikit-image's with ``gaussian_weights`` and without
    ``use_sample_covariance``. MONAI's ``compute_ssim_and_cs`` computes the same in float32, which is wrong in the fifth
    digit of the mean where bright regions are flat, and takes longer.

    Args:
        pred: images ``(K, C, H, W)``, at least 11 x 11 pixels.
        truth: images of the same shape.
        data_range: largest possible intensity difference.
        window: pixels of the window, an odd number; its standard deviation is in proportion, 1.5 for 11 pixels.

    Returns:
        ``(K, C, H - 10, W - 10)`` float64, at most 1; for another window less its pixels but one.

    Raises:
        ValueError: if the shapes differ or the images are too small.

    Example:
        >>> image = torch.rand(1, 1, 12, 14)
        >>> similarity = structural_similarity(image, image)
        >>> tuple(similarity.shape), round(similarity.mean().item(), 6)
        ((1, 1, 2, 4), 1.0)
    """
    if pred.shape != truth.shape:
        raise ValueError(f"SSIM compares images of one shape, got {tuple(pred.shape)} and {tuple(truth.shape)}.")
    if min(pred.shape[-2:]) < window:
        raise ValueError(f"SSIM needs images of at least {window} x {window} pixels, got {tuple(pred.shape[-2:])}.")
    pred, truth = (convert_to_tensor(images, track_meta=False) for images in (pred, truth))
    batches = zip(pred.split(_IMAGES_AT_ONCE), truth.split(_IMAGES_AT_ONCE), strict=True)
    return torch.cat([_similarity(first.double(), second.double(), data_range, window) for first, second in batches])


def _similarity(first: Tensor, second: Tensor, data_range: float, window: int) -> Tensor:
    fields = torch.stack([first, second, first**2, second**2, first * second])
    mean, other_mean, square, other_square, product = window_means(fields, window, _SIGMA * window / SSIM_SIZE)
    variances = square - mean**2 + other_square - other_mean**2
    covariance = product - mean * other_mean
    level, contrast = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean * other_mean + level) / (mean**2 + other_mean**2 + level)
    return luminance * (2 * covariance + contrast) / (variances + contrast)
