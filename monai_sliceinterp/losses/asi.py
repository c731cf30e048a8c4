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

"""Training loss of ASI."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from monai_sliceinterp import checks
from monai_sliceinterp.losses.distances import MixedDistance

__all__ = ["ASILoss"]


class ASILoss(nn.Module):
    """Loss of ASI: reconstruction loss plus weighted synthesis loss (ASI, eq. 3).

    The reconstruction loss compares the two slices of a pair with their reconstructions, the synthesis loss compares
    the true slice between them with the slice decoded from the mixed codes. (Eq. 3 has the reconstruction of the slice
    between; the slices of the pair are encoded anyway, and the text of the paper describes their reconstruction.)

    Args:
        reconstruction: distance of the reconstruction loss; a name or weights by name, see
            :class:`monai_sliceinterp.losses.MixedDistance`.
        synthesis: distance of the synthesis loss; the paper's is "lpips".
        synthesis_weight: lambda of eq. 3, zero or positive. It depends on the distance: 0.05 for "lpips" (paper,
            cardiac), 1 for "mse" and a little "ssim".
        reconstruction_weight: weight of the reconstruction loss, 1 in the paper; 0 for networks with exact
            reconstructions.
        data_range: largest possible intensity difference.

    Raises:
        ValueError: for an unknown distance or a negative weight.

    Example:
        >>> loss = ASILoss(synthesis={"mse": 1.0, "ssim": 0.02})
        >>> triple = torch.rand(4, 3, 32, 32)  # earlier slice, later slice, slice between
        >>> loss(triple, triple).item() < 1e-6
        True
    """

    def __init__(
        self,
        reconstruction: str | Mapping[str, float] = "mse",
        synthesis: str | Mapping[str, float] = "mse",
        synthesis_weight: float = 1.0,
        reconstruction_weight: float = 1.0,
        data_range: float = 1.0,
    ) -> None:
        super().__init__()
        self.synthesis_weight = checks.not_negative("synthesis_weight", synthesis_weight)
        self.reconstruction_weight = checks.not_negative("reconstruction_weight", reconstruction_weight)
        self.reconstruction = MixedDistance(reconstruction, data_range=data_range)
        self.synthesis = MixedDistance(synthesis if synthesis_weight > 0 else "mse", data_range=data_range)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            pred: ``(B, 3 C, H, W)`` as a latent interpolator returns it with ``reconstruct=True``: the reconstructions
                of both slices, then the synthesized slice; C channels each.
            target: ``(B, 3 C, H, W)``: the slices themselves in the same order.

        Returns:
            The loss, a scalar.

        Raises:
            ValueError: if the shapes differ or the channels are not a multiple of three.
        """
        if pred.shape[1] % 3:
            raise ValueError(f"expected the channels of two slices and the one between, got {pred.shape[1]}.")
        *ends, synthesized = pred.chunk(3, dim=1)
        *true_ends, between = target.chunk(3, dim=1)
        loss = self.reconstruction_weight * self.reconstruction(torch.cat(ends), torch.cat(true_ends))
        if self.synthesis_weight > 0:
            loss = loss + self.synthesis_weight * self.synthesis(synthesized, between)
        return loss
