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

"""Scores of the observed slices, as a method makes them itself."""

from __future__ import annotations

import math

from monai.data import MetaTensor
from torch import Tensor

from monai_sliceinterp.metrics.volume import METRICS

__all__ = ["score_reconstruction"]


def score_reconstruction(
    pred: Tensor, observed: Tensor, data_range: float = 1.0, detailed: bool = False
) -> dict[str, float]:
    """Compute the scores of observed slices that a method computes itself, as ASI's Table I has them ("Rec").

    Args:
        pred: ``(C, H, W, N)``, what the method makes of the slices where it must not copy them.
        observed: the slices it was given, of the same shape.
        data_range: largest possible intensity difference; intensities are clipped to [0, ``data_range``].
        detailed: add VIF.

    Returns:
        PSNR, SSIM and VIF by their names in :data:`METRICS`; an infinite PSNR of a method that computes what it was
        given.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> scores = score_reconstruction(torch.full((1, 16, 16, 3), 0.1), torch.zeros(1, 16, 16, 3))
        >>> {name: round(value, 3) for name, value in scores.items()}
        {'psnr_reconstruction': 20.0, 'ssim_reconstruction': 0.01}
    """
    first, second = (
        (volume.as_tensor() if isinstance(volume, MetaTensor) else volume).float().clamp(0, data_range)
        for volume in (pred, observed)
    )
    if first.shape != second.shape:
        raise ValueError(
            f"the computed slices have shape {tuple(first.shape)}; expected that of the observed ones, "
            f"{tuple(second.shape)}."
        )
    images = tuple(volume.movedim(3, 0).flatten(0, 1)[:, None] for volume in (first, second))
    scores = {}
    for name, metric in METRICS.items():
        if metric.region == "reconstruction" and metric.score is not None and (detailed or not metric.detailed):
            small = min(images[0].shape[-2:]) < metric.smallest
            scores[name] = math.nan if small else float(metric.score(*images, data_range=data_range, mask=None))
    return scores
