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
from torch.nn import functional as F

__all__ = ["flicker", "gradient_magnitude", "relative_sharpness"]


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


def flicker(pred: Tensor, truth: Tensor) -> Tensor:
    """Compute how unevenly the fine detail of the true slices is kept from slice to slice.

    Fine detail, texture and noise alike, is the root mean square of the in-plane Laplacian. The score is the standard
    deviation over all slices of a volume, observed ones included, of the logarithm of their detail relative to the true
    slices': 0 where every slice has the same share of it; about 0.25 where every second slice lost 40 %, which a reader
    who scrolls sees as flicker, and in a cut across the slices as stripes.

    Args:
        pred: all slices of a volume ``(K, C, H, W)``, at least 3 x 3 pixels, any value range.
        truth: the true slices, of the same shape. Slices in which one of both has no detail do not count.

    Returns:
        A float64 scalar; NaN where fewer than two slices count.

    Raises:
        ValueError: if the images are smaller.

    Example:
        >>> truth = torch.rand(4, 1, 16, 16)
        >>> round(flicker(torch.cat([truth[:2], 0.5 * truth[2:]]), truth).item(), 4)
        0.3466
    """
    if min(truth.shape[-2:]) < 3:
        raise ValueError(f"fine detail needs images of at least 3 x 3 pixels, got {tuple(truth.shape[-2:])}.")
    shares = (_detail(pred) / _detail(truth)).log()
    shares = shares[shares.isfinite()]
    return shares.std(correction=0) if len(shares) > 1 else shares.new_full((), float("nan"))


def _detail(images: Tensor) -> Tensor:
    """Compute the root mean square of the Laplacian of each slice."""
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    slices = images.flatten(0, 1)[:, None].double()
    return F.conv2d(slices, kernel.to(slices.device)[None, None]).square().mean(dim=(1, 2, 3)).sqrt()
