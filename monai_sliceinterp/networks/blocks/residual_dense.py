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

"""Residual dense blocks and the residual dense network.

Zhang Y, Tian Y, Kong Y, Zhong B, Fu Y: Residual Dense Network for Image Super-Resolution. CVPR 2018.
"""

from __future__ import annotations

import torch
from monai.networks.layers import Conv
from torch import Tensor, nn

from monai_sliceinterp import checks

__all__ = ["ResidualDenseBlock", "ResidualDenseNetwork"]


class ResidualDenseBlock(nn.Module):
    """Block of densely connected 3x3 convolutions with ReLU, fused by a 1x1 convolution, with a skip connection.

    Args:
        spatial_dims: 2 or 3.
        channels: channels G0 of input and output.
        growth: channels G that every layer adds.
        num_layers: number C of layers.

    Raises:
        ValueError: if a size is not positive.

    Example:
        >>> ResidualDenseBlock(2, channels=8, growth=4, num_layers=3)(torch.zeros(1, 8, 7, 5)).shape
        torch.Size([1, 8, 7, 5])
    """

    def __init__(self, spatial_dims: int = 2, channels: int = 64, growth: int = 32, num_layers: int = 8) -> None:
        super().__init__()
        for name, size in (("channels", channels), ("growth", growth), ("num_layers", num_layers)):
            checks.positive_integer(name, size)
        conv = Conv[Conv.CONV, spatial_dims]
        self.layers = nn.ModuleList(
            conv(channels + index * growth, growth, 3, padding=1) for index in range(num_layers)
        )
        self.fusion = conv(channels + num_layers * growth, channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Compute features of the same shape from features ``(B, channels, ...)``."""
        features = image
        for layer in self.layers:
            features = torch.cat([features, torch.relu(layer(features))], dim=1)
        return image + self.fusion(features)


class ResidualDenseNetwork(nn.Module):
    """Residual dense network (RDN) without upsampling: two convolutions, D residual dense blocks, global fusion.

    The outputs of all blocks are fused by a 1x1 and a 3x3 convolution and added to the first convolution's features.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the output, made from the features by one more 3x3 convolution. None returns the
            features themselves, with ``channels`` channels.
        channels: channels G0 of the features.
        num_blocks: number D of residual dense blocks.
        num_layers: number C of layers in a block.
        growth: channels G that every layer adds.

    Raises:
        ValueError: if a size is not positive.

    Example:
        >>> network = ResidualDenseNetwork(2, in_channels=2, out_channels=1, channels=8, num_blocks=2, growth=4)
        >>> network(torch.zeros(1, 2, 9, 7)).shape
        torch.Size([1, 1, 9, 7])
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 3,
        out_channels: int | None = None,
        channels: int = 64,
        num_blocks: int = 6,
        num_layers: int = 8,
        growth: int = 32,
    ) -> None:
        super().__init__()
        sizes = {"in_channels": in_channels, "channels": channels, "num_blocks": num_blocks}
        for name, size in (sizes if out_channels is None else {**sizes, "out_channels": out_channels}).items():
            checks.positive_integer(name, size)
        conv = Conv[Conv.CONV, spatial_dims]
        self.first = conv(in_channels, channels, 3, padding=1)
        self.second = conv(channels, channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            ResidualDenseBlock(spatial_dims, channels, growth, num_layers) for _ in range(num_blocks)
        )
        self.fusion = nn.Sequential(conv(num_blocks * channels, channels, 1), conv(channels, channels, 3, padding=1))
        self.last = None if out_channels is None else conv(channels, out_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Compute ``(B, out_channels, ...)``, or features ``(B, channels, ...)``, from ``(B, in_channels, ...)``."""
        shallow = self.first(image)
        features, collected = self.second(shallow), []
        for block in self.blocks:
            features = block(features)
            collected.append(features)
        features = self.fusion(torch.cat(collected, dim=1)) + shallow
        return features if self.last is None else self.last(features)
