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

"""Mask of the patient's body in a CT scan."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

__all__ = ["BODY_THRESHOLD", "body_mask"]

BODY_THRESHOLD = -500.0
"""HU between air and soft tissue."""


def body_mask(volume: Tensor, threshold: float = BODY_THRESHOLD) -> Tensor:
    """Mark the body: the largest connected region above a threshold, with its cavities (lungs) filled slice by slice.

    Args:
        volume: ``(C, H, W, N)``, slices last, in HU or scaled like the threshold.
        threshold: lowest intensity of tissue.

    Returns:
        ``(C, H, W, N)`` bool. All False where nothing is above the threshold.

    Example:
        >>> scan = torch.full((1, 8, 8, 3), -1000.0)
        >>> scan[:, 1:7, 1:7] = 40.0
        >>> scan[:, 3:5, 3:5] = -850.0  # lung
        >>> int(body_mask(scan).sum())
        108
    """
    plain = volume.as_tensor() if hasattr(volume, "as_tensor") else volume
    masks = []
    for channel in plain.cpu().numpy() > threshold:
        labels, count = ndimage.label(channel)
        if count > 1:
            channel = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
        masks.append(np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(channel, -1, 0)], axis=-1))
    return torch.from_numpy(np.stack(masks)).to(plain.device)
