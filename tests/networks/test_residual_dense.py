# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Residual dense blocks and networks: sizes, layout and wiring."""

import pytest
import torch
from torch.nn import functional as F

from monai_sliceinterp.networks.blocks import ResidualDenseBlock, ResidualDenseNetwork
from tests.networks.helpers import EXACT, conv_count, count, rand

SMALL = {"channels": 8, "num_blocks": 2, "num_layers": 3, "growth": 4}
CONV = {2: F.conv2d, 3: F.conv3d}
DIMS = pytest.mark.parametrize("dims", [2, 3])


def block_count(channels, growth, layers, taps):
    dense = conv_count([(channels + index * growth, growth) for index in range(layers)], taps)
    return dense + conv_count([(channels + layers * growth, channels)], 1)


def network_count(inputs, outputs, channels, num_blocks, num_layers, growth, taps):
    convolutions = [(inputs, channels), (channels, channels), (channels, channels)]
    total = conv_count(convolutions if outputs is None else [*convolutions, (channels, outputs)], taps)
    total += conv_count([(num_blocks * channels, channels)], 1)
    return total + num_blocks * block_count(channels, growth, num_layers, taps)


def apply_conv(conv, image, dims):
    """The layer's weights in a plain convolution, so that stride, dilation, groups and padding are checked too."""
    return CONV[dims](image, conv.weight, conv.bias, padding=conv.weight.shape[-1] // 2)


def block_by_hand(block, image, dims):
    maps = [image]
    for layer in block.layers:
        maps.append(apply_conv(layer, torch.cat(maps, 1), dims).clamp(min=0))
    return image + apply_conv(block.fusion, torch.cat(maps, 1), dims)


class TestBlock:
    @DIMS
    def test_wiring(self, dims):
        """Every layer sees the input and all layers before it, in that order."""
        torch.manual_seed(0)
        block = ResidualDenseBlock(dims, channels=6, growth=3, num_layers=4).double()
        image = rand(2, 6, *(5, 4, 3)[:dims]) - 0.5
        torch.testing.assert_close(block(image), block_by_hand(block, image, dims), **EXACT)


class TestNetwork:
    @DIMS
    @pytest.mark.parametrize(
        "change", [{}, {"num_blocks": 1}, {"num_blocks": 4}, {"num_layers": 1}, {"growth": 7}, {"channels": 5}]
    )
    @pytest.mark.parametrize(("inputs", "outputs"), [(3, None), (2, 1), (1, 4)])
    def test_parameter_count(self, dims, change, inputs, outputs):
        sizes = {**SMALL, **change}
        network = ResidualDenseNetwork(dims, inputs, outputs, **sizes)
        assert count(network) == network_count(inputs, outputs, taps=3**dims, **sizes)

    @DIMS
    @pytest.mark.parametrize("outputs", [None, 1, 2])
    @pytest.mark.parametrize("blocks", [1, 3])
    def test_wiring(self, dims, outputs, blocks):
        """Two convolutions, blocks in a row, all of them fused, plus the first convolution's features."""
        torch.manual_seed(0)
        network = ResidualDenseNetwork(dims, 3, outputs, **{**SMALL, "num_blocks": blocks}).double()
        image = rand(2, 3, *(5, 4, 3)[:dims]) - 0.5
        shallow = apply_conv(network.first, image, dims)
        features, collected = apply_conv(network.second, shallow, dims), []
        for block in network.blocks:
            features = block_by_hand(block, features, dims)
            collected.append(features)
        fused = apply_conv(network.fusion[0], torch.cat(collected, 1), dims)
        expected = apply_conv(network.fusion[1], fused, dims) + shallow
        assert len(collected) == blocks
        if outputs is not None:
            expected = apply_conv(network.last, expected, dims)
        found = network(image)
        assert found.shape[1] == (8 if outputs is None else outputs)
        torch.testing.assert_close(found, expected, **EXACT)
