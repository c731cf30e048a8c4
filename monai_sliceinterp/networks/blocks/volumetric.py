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

"""Blocks of volumetric networks: halving and doubling of the resolution, self-attention."""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn
from torch.nn import functional as F

from monai_sliceinterp.precision import in_float32

__all__ = ["DoublingBlock", "HalvingBlock", "SelfAttentionBlock"]


def _activation(negative_slope: float) -> tuple[str, dict[str, Any]]:
    return "leakyrelu", {"negative_slope": negative_slope, "inplace": True}


class HalvingBlock(nn.Sequential):
    """Block of a 4x4x4 convolution with stride 2, batch normalization and leaky ReLU (VTS, section 3.2).

    Args:
        in_channels: channels of the input ``(B, in_channels, H, W, N)``, even sizes.
        out_channels: channels of the output ``(B, out_channels, H / 2, W / 2, N / 2)``.
        normalize: use batch normalization; the first layer of a critic has none.
        negative_slope: slope of the leaky ReLU.

    Example:
        >>> HalvingBlock(1, 8)(torch.zeros(2, 1, 8, 8, 6)).shape
        torch.Size([2, 8, 4, 4, 3])
    """

    def __init__(
        self, in_channels: int, out_channels: int, normalize: bool = True, negative_slope: float = 0.2
    ) -> None:
        super().__init__(
            Convolution(
                spatial_dims=3,
                in_channels=in_channels,
                out_channels=out_channels,
                strides=2,
                kernel_size=4,
                padding=1,
                adn_ordering="NA",
                norm="batch" if normalize else None,
                act=_activation(negative_slope),
                bias=not normalize,
            )
        )

    def forward(self, input: Tensor) -> Tensor:  # named as in nn.Sequential
        """Halve the resolution of ``input``."""
        kind = input.device.type
        if input.shape[-1] > 2 or kind != "cpu" or not torch.is_autocast_enabled(kind):
            return super().forward(input)
        # one voxel remains along the last axis: with AMX, oneDNN reads memory that it has not written (up to its 3.12)
        with in_float32(input.device):
            return super().forward(input.float())


class DoublingBlock(nn.Module):
    """Block of trilinear upsampling by 2, a joined skip, a 3x3x3 convolution, batch normalization and leaky ReLU.

    The paper upsamples trilinearly because transposed convolutions leave checkerboard patterns (VTS, section 3.2). Its
    4x4x4 kernels cannot be centered at stride 1; 3x3x3 kernels can.

    Args:
        in_channels: channels of the input ``(B, in_channels, h, w, n)``.
        skip_channels: channels of the skip ``(B, skip_channels, 2 h, 2 w, 2 n)``.
        out_channels: channels of the output, of the skip's size.
        normalize: use batch normalization.
        negative_slope: slope of the leaky ReLU.

    Example:
        >>> DoublingBlock(8, 4, 4)(torch.zeros(1, 8, 2, 2, 3), torch.zeros(1, 4, 4, 4, 6)).shape
        torch.Size([1, 4, 4, 4, 6])
    """

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        out_channels: int,
        normalize: bool = True,
        negative_slope: float = 0.2,
    ) -> None:
        super().__init__()
        self.upsample = nn.Upsample(scale_factor=2, mode="trilinear", align_corners=False)
        self.convolution = Convolution(
            spatial_dims=3,
            in_channels=in_channels + skip_channels,
            out_channels=out_channels,
            kernel_size=3,
            adn_ordering="NA",
            norm="batch" if normalize else None,
            act=_activation(negative_slope),
            bias=not normalize,
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Double the resolution of features ``x`` and join them with ``skip``."""
        return self.convolution(torch.cat([self.upsample(x), skip], dim=1))


class SelfAttentionBlock(nn.Module):
    """Block of self-attention over all voxels, as in Zhang et al., "Self-Attention GANs" (VTS, section 3.2).

    Queries and keys have an eighth of the channels. The attended features are added with a learned weight that starts
    at zero, so that a network first learns from local cues.

    Args:
        channels: channels of the volume ``(B, channels, h, w, n)``; the output has its shape.

    Example:
        >>> SelfAttentionBlock(16)(torch.zeros(1, 16, 4, 4, 3)).shape
        torch.Size([1, 16, 4, 4, 3])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow = max(channels // 8, 1)
        self.projection = nn.Conv3d(channels, 2 * self.narrow + channels, kernel_size=1)
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Attend over all voxels of features ``(B, channels, h, w, n)`` and add the result to them."""
        sizes = (self.narrow, self.narrow, x.shape[1])
        tokens = self.projection(x).flatten(2).transpose(1, 2)
        query, key, value = tokens.split(sizes, dim=-1)
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # not divided by a root, as there
        return x + self.weight * attended.transpose(1, 2).reshape(x.shape)
