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

"""Precision in which networks compute: bfloat16 where the processor multiplies it faster, float32 elsewhere."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from monai_sliceinterp.checks import switch

__all__ = [
    "PreciseConv2d",
    "amp_setting",
    "autocast_to",
    "dtype_name",
    "in_float32",
    "needs_loss_scaling",
    "network_dtype",
]

_AUTO = "auto"


def amp_setting(value: Any) -> bool | str:
    """Read the setting of mixed precision: true, false or "auto".

    Raises:
        ValueError: if it is none of these.

    Example:
        >>> amp_setting("auto"), amp_setting("false")
        ('auto', False)
    """
    try:
        return _AUTO if value == _AUTO else switch("amp", value)
    except ValueError:
        raise ValueError(f"amp must be auto, true or false, got {value!r}.") from None


def network_dtype(amp: bool | str, device: torch.device | str) -> torch.dtype:
    """Decide in which type the layers of a network compute.

    Args:
        amp: false: float32; true: bfloat16, and float16 on a GPU without it; "auto": bfloat16 where the device has
            instructions for it, else float32.
        device: where the network computes.

    Example:
        >>> network_dtype(False, "cpu"), network_dtype(True, "cpu")
        (torch.float32, torch.bfloat16)
    """
    if amp is False:
        return torch.float32
    if torch.device(device).type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else (torch.float32 if amp == _AUTO else torch.float16)
    return torch.bfloat16 if amp is True or _has_fast_bfloat16(torch.device(device)) else torch.float32


def needs_loss_scaling(amp: bool | str, device: torch.device | str) -> bool:
    """Whether gradients could vanish in the type in which the layers of a network compute: float16's are scaled.

    Example:
        >>> needs_loss_scaling(True, "cpu")  # bfloat16 has the range of float32
        False
    """
    return network_dtype(amp_setting(amp), device) == torch.float16


def _has_fast_bfloat16(device: torch.device) -> bool:
    """Whether a device is a processor that multiplies bfloat16 (AVX512-BF16, AMX): elsewhere that is emulated."""
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a type.

    Example:
        >>> dtype_name(torch.bfloat16)
        'bfloat16'
    """
    return str(dtype).removeprefix("torch.")


def autocast_to(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """Make the context in which the layers of a network compute in ``dtype``; float32 changes nothing.

    Example:
        >>> layer, image = torch.nn.Linear(2, 2), torch.ones(1, 2)
        >>> with autocast_to(torch.bfloat16, image.device):
        ...     layer(image).dtype
        torch.bfloat16
    """
    reduced = dtype != torch.float32
    return torch.autocast(device.type, dtype=dtype if reduced else None, enabled=reduced)


def in_float32(device: torch.device) -> AbstractContextManager[Any]:
    """Make the context of what a network computes in float32 also where its layers compute in another type.

    Example:
        >>> image = torch.ones(1, 2)
        >>> with torch.autocast("cpu"), in_float32(image.device):
        ...     (image @ image.T).dtype
        torch.float32
    """
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


class PreciseConv2d(nn.Conv2d):
    """Convolution that is computed in float32 in mixed precision too.

    For the last layer of a network whose output is the image itself, which would be as coarse as bfloat16 (8 HU in CT),
    and for layers with little to compute.

    Example:
        >>> with torch.autocast("cpu"):
        ...     PreciseConv2d(1, 1, 3)(torch.ones(1, 1, 3, 3)).dtype
        torch.float32
    """

    def forward(self, image: Tensor) -> Tensor:
        """Convolve images ``(B, C, H, W)``."""
        if not torch.is_autocast_enabled(image.device.type):
            return super().forward(image)
        with in_float32(image.device):
            return super().forward(image.to(self.weight.dtype))
