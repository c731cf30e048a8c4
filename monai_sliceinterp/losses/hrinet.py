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

"""Perceptual loss of HRINet: the distance of slices in the feature maps of a trained encoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_sliceinterp.networks.nets.hrinet import HRINetAutoencoder

__all__ = ["EncoderFeatureLoss"]


class EncoderFeatureLoss(nn.Module):
    """Perceptual loss: mean squared distance of the feature maps of all levels of a frozen encoder (HRINet, eq. 6).

    The encoder is that of the autoencoder after stage I. All levels have the same weight.

    Args:
        network: autoencoder that is frozen, a second one beside the one that is trained. Its weights must be loaded
            before training.

    Example:
        >>> loss = EncoderFeatureLoss(HRINetAutoencoder(channels=(4, 4), latent_channels=(2, 2)))
        >>> slices = torch.rand(2, 1, 16, 16)
        >>> loss(slices, slices).item()
        0.0
    """

    def __init__(self, network: HRINetAutoencoder) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Any:
        """Set the training mode of the loss; the encoder stays in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of slices ``(B, C, H, W)`` in [0, 1]."""
        with torch.no_grad():
            true_maps = self.network.feature_maps(target)
        distances = map(F.mse_loss, self.network.feature_maps(pred), true_maps)
        return torch.stack(list(distances)).mean()
