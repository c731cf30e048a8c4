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

"""Sharpness of synthesized slices, relative to the true ones."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gradient_magnitude", "relative_sharpness"]


def gradient_magnitude(images: Tensor) -> Tensor:
    """Compute the mean length of the in-plane gradient, by central differences.

    Args:
        images: ``(K, C, H, W)``, at least 2 x 2 pixels, any value range.

    Returns:
        A float64 scalar, in intensities per pixel.

    Raises:
        ValueError: if the images are smaller.

    Example:
        >>> gradient_magnitude(torch.arange(4.0).expand(1, 1, 3, 4)).item()
        1.0
    """
    if min(images.shape[-2:]) < 2:
        raise ValueError(f"a gradient needs images of at least 2 x 2 pixels, got {tuple(images.shape[-2:])}.")
    down, right = torch.gradient(images.double(), dim=(-2, -1))
    return torch.hypot(down, right).mean()


def relative_sharpness(pred: Tensor, truth: Tensor) -> Tensor:
    """Compute the sharpness of images relative to the true ones: the ratio of their mean gradient magnitudes.

    1 is as sharp as the truth, less is blurred, more is sharper or noisier. Edges in the wrong place are not noticed.

    Args:
        pred: slices ``(K, C, H, W)``.
        truth: the true slices, of the same shape.

    Returns:
        A float64 scalar; NaN where the truth is constant.

    Example:
        >>> ramp = torch.arange(8.0).expand(1, 1, 8, 8)
        >>> relative_sharpness(0.5 * ramp, ramp).item()
        0.5
    """
    true = gradient_magnitude(truth)
    return gradient_magnitude(pred) / true if true > 0 else torch.full_like(true, float("nan"))
