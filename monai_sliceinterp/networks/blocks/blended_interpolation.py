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

"""Interpolation along the rows of images to which SAINT's network adds what it has learned."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["blended_interpolation"]


def blended_interpolation(image: Tensor, lower: Tensor, alpha: Tensor) -> Tensor:
    """Interpolate along the rows by the mean of a linear and a four-tap cubic (Catmull-Rom) kernel.

    The mean rings less than a cubic kernel and blurs less than a linear one; it reproduces constants and, away from the
    ends, ramps. Rows are replicated at both ends.

    Args:
        image: ``(B, N, L)``.
        lower: index of the row before each position, ``(M,)`` int64.
        alpha: fraction of the gap from that row, ``(M,)`` in [0, 1].

    Returns:
        ``(B, M, L)``.

    Example:
        >>> ramp = torch.arange(4.0).reshape(1, 4, 1)
        >>> blended_interpolation(ramp, torch.tensor([1]), torch.tensor([0.25])).item()
        1.25
    """
    t = alpha.to(image)
    linear = torch.stack([torch.zeros_like(t), 1 - t, t, torch.zeros_like(t)])
    cubic = torch.stack(
        [
            t * (t * (2 - t) - 1),
            t * t * (3 * t - 5) + 2,
            t * (t * (4 - 3 * t) + 1),
            t * t * (t - 1),
        ]
    )
    weights = 0.5 * linear + 0.25 * cubic
    rows = lower.to(image.device)
    last = image.shape[1] - 1
    result = torch.zeros((), dtype=image.dtype, device=image.device)
    for tap, weight in enumerate(weights):
        result = result + weight[:, None] * image[:, (rows + tap - 1).clamp(0, last)]
    return result
