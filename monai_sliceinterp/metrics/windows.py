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

"""Local means of images under a Gaussian window, in the precision that local variances need."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from monai_sliceinterp.resampling import apply_weights

__all__ = ["window_means"]


def window_means(images: Tensor, size: int, sigma: float, stride: int = 1) -> Tensor:
    """Compute the means of images under a Gaussian window, wherever the window lies inside the image.

    Rows and columns are averaged in turn. A local variance is a difference of such means, nearly equal where an image
    is flat: take float64 for it.

    Args:
        images: ``(..., H, W)``.
        size: pixels of the window in both directions, odd.
        sigma: standard deviation of the window in pixels.
        stride: step of the window in pixels.

    Returns:
        ``(..., H', W')`` with ``H' = (H - size) // stride + 1``, in the images' type.

    Example:
        >>> import torch
        >>> window_means(torch.eye(4), size=3, sigma=1000.0)
        tensor([[0.3333, 0.2222],
                [0.2222, 0.3333]])
    """
    for _ in range(2):  # along W, then along H
        images = apply_weights(images, _weights(images.shape[-1], size, sigma, stride)).transpose(-1, -2)
    return images


def _weights(length: int, size: int, sigma: float, stride: int) -> NDArray[np.float64]:
    """Matrix ``(length, M)`` whose columns are the window at 0, ``stride``, ... up to the end."""
    taps = np.exp(-0.5 * ((np.arange(size) - size // 2) / sigma) ** 2)
    starts = np.arange(0, length - size + 1, stride)
    weights = np.zeros((length, len(starts)))
    weights[starts + np.arange(size)[:, None], np.arange(len(starts))] = (taps / taps.sum())[:, None]
    return weights
