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

"""Convolutional blocks shared by the slice autoencoders."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "DecoderBlock",
    "EncoderBlock",
    "convolution_pair",
    "fan_in_normal_",
    "pad_to_multiple",
    "shuffle",
    "unshuffle",
]


def fan_in_normal_(module: nn.Module, negative_slope: float = 0.2, gain: float = 1.0) -> None:
    """Initialize the convolutions of a network for leaky ReLU, in place (ASI, section IV).

    Weights are drawn from a zero-mean normal distribution with standard deviation ``gain / sqrt(n_l (1 + slope^2))``,
    where ``n_l`` is the number of incoming connections of the layer; biases are zero. Batch normalization keeps its
    scale of one and shift of zero.

    Args:
        module: network to initialize.
        negative_slope: slope of the leaky ReLU for negative inputs.
        gain: 1 for networks with batch normalization, which sets the scale of the activations; the square root of 2
            for those without, in which activations then neither vanish nor grow from layer to layer (He et al. 2015).

    Example:
        >>> conv = nn.Conv2d(64, 32, 3)
        >>> fan_in_normal_(conv)
        >>> abs(conv.weight.std().item() * math.sqrt(64 * 9 * 1.04) - 1) < 0.1
        True
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            fan_in = layer.weight[0].numel()
            nn.init.normal_(layer.weight, std=gain / math.sqrt(fan_in * (1.0 + negative_slope**2)))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pad the spatial sizes of a batch to a multiple by repeating the border at their far ends.

    Args:
        image: slices ``(B, C, H, W)`` or volumes ``(B, C, H, W, N)``, any value range.
        multiple: the padded sizes are multiples of this number.

    Returns:
        The padded batch, or the input itself if its sizes are multiples already.

    Example:
        >>> pad_to_multiple(torch.ones(1, 1, 5, 8), 4).shape
        torch.Size([1, 1, 8, 8])
    """
    missing = [-size % multiple for size in image.shape[2:]]
    padding = [amount for size in reversed(missing) for amount in (0, size)]
    # an exported network must pad inputs of any size
    exporting = torch.jit.is_tracing() or torch.compiler.is_exporting()
    return F.pad(image, padding, mode="replicate") if exporting or any(missing) else image


def convolution_pair(in_channels: int, out_channels: int, negative_slope: float = 0.2) -> list[nn.Module]:
    """Create the layers of two 3x3 convolutions, each with leaky ReLU.

    Args:
        in_channels: channels of the input ``(B, in_channels, H, W)``.
        out_channels: channels of the output ``(B, out_channels, H, W)``.
        negative_slope: slope of the leaky ReLU.

    Example:
        >>> nn.Sequential(*convolution_pair(1, 8))(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 8, 16, 16])
    """
    return [
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.LeakyReLU(negative_slope, inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        nn.LeakyReLU(negative_slope, inplace=True),
    ]


def unshuffle(stem: int) -> list[nn.Module]:
    """Create the layer that rearranges ``stem`` x ``stem`` pixels into channels, or none for a stem of 1.

    Example:
        >>> nn.Sequential(*unshuffle(2))(torch.zeros(1, 1, 4, 6)).shape
        torch.Size([1, 4, 2, 3])
    """
    return [nn.PixelUnshuffle(stem)] if stem > 1 else []


def shuffle(stem: int) -> list[nn.Module]:
    """Create the layer that rearranges channels into ``stem`` x ``stem`` pixels, or none for a stem of 1.

    Example:
        >>> nn.Sequential(*shuffle(2))(torch.zeros(1, 4, 2, 3)).shape
        torch.Size([1, 1, 4, 6])
    """
    return [nn.PixelShuffle(stem)] if stem > 1 else []


class EncoderBlock(nn.Sequential):
    """Block of two 3x3 convolutions with leaky ReLU, batch normalization and 2x2 average pooling (ASI, III-B).

    Args:
        in_channels: channels of the input ``(B, in_channels, H, W)``.
        out_channels: channels of the output ``(B, out_channels, H / 2, W / 2)``.
        negative_slope: slope of the leaky ReLU.

    Example:
        >>> EncoderBlock(1, 32)(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 32, 8, 8])
    """

    def __init__(self, in_channels: int, out_channels: int, negative_slope: float = 0.2) -> None:
        super().__init__(
            *convolution_pair(in_channels, out_channels, negative_slope),
            nn.BatchNorm2d(out_channels),
            nn.AvgPool2d(2),
        )


class DecoderBlock(nn.Sequential):
    """Block of two 3x3 convolutions with leaky ReLU, batch normalization and 2x2 nearest upsampling (ASI, III-B).

    Args:
        in_channels: channels of the input ``(B, in_channels, H, W)``.
        out_channels: channels of the output ``(B, out_channels, 2 H, 2 W)``.
        negative_slope: slope of the leaky ReLU.

    Example:
        >>> DecoderBlock(128, 64)(torch.zeros(2, 128, 8, 8)).shape
        torch.Size([2, 64, 16, 16])
    """

    def __init__(self, in_channels: int, out_channels: int, negative_slope: float = 0.2) -> None:
        super().__init__(
            *convolution_pair(in_channels, out_channels, negative_slope),
            nn.BatchNorm2d(out_channels),
            nn.Upsample(scale_factor=2, mode="nearest"),
        )
