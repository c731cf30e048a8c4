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

"""Batch normalization whose statistics can be frozen."""

from __future__ import annotations

from torch import nn
from typing_extensions import Self

__all__ = ["FreezableNormalization"]

BATCH_NORMALIZATION = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class FreezableNormalization(nn.Module):
    """Base of networks whose batch normalization can use its running statistics while the rest is trained.

    Attributes:
        normalization_frozen: if true, batch normalization stays in evaluation mode when the network is set to
            training mode. :class:`monai_sliceinterp.handlers.FreezeNormalizationHandler` sets it after a warm-up.

    Example:
        >>> class Network(FreezableNormalization):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.norm = nn.BatchNorm2d(2)
        >>> network = Network()
        >>> network.normalization_frozen = True
        >>> network.train().training, network.norm.training
        (True, False)
    """

    def __init__(self) -> None:
        super().__init__()
        self.normalization_frozen = False

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; with ``normalization_frozen``, batch normalization stays in evaluation mode."""
        super().train(mode)
        if self.normalization_frozen:
            for layer in self.modules():
                if isinstance(layer, BATCH_NORMALIZATION):
                    layer.eval()
        return self
