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

"""Computation of a network in mixed precision, with the result in that of its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai.inferers import SimpleInferer
from torch import Tensor

from monai_sliceinterp.precision import amp_setting, autocast_to, network_dtype

__all__ = ["MixedPrecisionInferer"]


class MixedPrecisionInferer(SimpleInferer):
    """Inferer that computes a network in mixed precision, for MONAI's trainers.

    Their own ``amp`` is for CUDA, and computes the loss in mixed precision too. Here the network alone is: what it
    returns has the type of its input, so that the loss is computed in float32, and processors that multiply bfloat16
    train faster.

    Args:
        amp: precision of the network, see :func:`monai_sliceinterp.precision.network_dtype`. A trainer needs its own
            ``amp`` beside it where :func:`monai_sliceinterp.precision.needs_loss_scaling`.

    Raises:
        ValueError: if ``amp`` is not true, false or "auto".

    Example:
        >>> import torch
        >>> image = torch.rand(1, 1, 8, 8)
        >>> result = MixedPrecisionInferer(amp=True)(image, torch.nn.Conv2d(1, 1, 3))
        >>> result.dtype
        torch.float32
    """

    def __init__(self, amp: bool | str = "auto") -> None:
        super().__init__()
        self.amp = amp_setting(amp)

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Return the network's output for ``inputs``, in their type."""
        with autocast_to(network_dtype(self.amp, inputs.device), inputs.device):
            result: Tensor = super().__call__(inputs, network, *args, **kwargs)
        return result.to(inputs.dtype)
