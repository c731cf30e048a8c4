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

"""Blocks of the volumetric networks, and batch normalization that can be frozen."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_sliceinterp.networks.blocks import DoublingBlock, FreezableNormalization, HalvingBlock, SelfAttentionBlock
from tests.networks.helpers import EXACT, as_trained, leaky, normalized, rand


def batch_normalized(x):
    mean, var = x.mean((0, 2, 3, 4), keepdim=True), x.var((0, 2, 3, 4), keepdim=True, unbiased=False)
    return (x - mean) / torch.sqrt(var + 1e-5)


def conv_by_hand(x, weight, stride):
    """Convolution with one voxel of zeros around, by a sum over all voxels of the kernel."""
    padded = F.pad(x, (1,) * 6)
    kernel = weight.shape[2]
    sizes = [(n + 2 - kernel) // stride + 1 for n in x.shape[2:]]
    result = 0
    for i in range(kernel):
        for j in range(kernel):
            for k in range(kernel):
                x, y, z = (
                    slice(first, first + stride * (size - 1) + 1, stride)
                    for first, size in zip((i, j, k), sizes, strict=True)
                )
                result = result + torch.einsum("oc,bcxyz->boxyz", weight[:, :, i, j, k], padded[:, :, x, y, z])
    return result


def after_convolution(x, layer, mode, slope):
    """Bias or normalization, then leaky ReLU."""
    if mode == "bias":
        return leaky(x + layer.conv.bias[None, :, None, None, None], slope)
    return leaky(batch_normalized(x) if mode == "batch" else normalized(x, layer.adn.N.state_dict()), slope)


def upsampled(x):
    """Trilinear upsampling by 2 with aligned voxel areas, by a sum over eight neighbors for each voxel."""
    sizes = x.shape[2:]
    result = torch.zeros(*x.shape[:2], *(2 * n for n in sizes), dtype=x.dtype)
    for index in np.ndindex(*result.shape[2:]):
        for corner in np.ndindex(2, 2, 2):
            weight, source = 1.0, []
            for position, bit, size in zip(index, corner, sizes, strict=True):
                at = (position + 0.5) / 2 - 0.5
                low = math.floor(at)
                weight *= at - low if bit else 1 - (at - low)
                source.append(min(max(low + bit, 0), size - 1))
            result[(slice(None), slice(None), *index)] += weight * x[(slice(None), slice(None), *source)]
    return result


def build(block_class, mode, *args):
    torch.manual_seed(0)
    block = block_class(*args).double()
    return as_trained(block) if mode == "running" else block


@pytest.mark.parametrize("mode", ["bias", "batch", "running"])
@pytest.mark.parametrize("slope", [0.2, 0.05])
class TestResolution:
    def test_halving(self, mode, slope):
        block, image = build(HalvingBlock, mode, 2, 3, mode != "bias", slope), rand(2, 2, 6, 4, 8) - 0.5
        weight = block[0].conv.weight
        assert weight.shape == (3, 2, 4, 4, 4) and (block[0].conv.bias is None) is (mode != "bias")
        expected = after_convolution(conv_by_hand(image, weight, 2), block[0], mode, slope)
        copy = image.clone()
        torch.testing.assert_close(block(image), expected, **EXACT)
        assert torch.equal(image, copy) and expected.shape == (2, 3, 3, 2, 4)

    def test_doubling(self, mode, slope):
        block = build(DoublingBlock, mode, 3, 2, 4, mode != "bias", slope)
        below, skip = rand(2, 3, 2, 3, 1) - 0.5, rand(2, 2, 4, 6, 2, seed=1) - 0.5
        weight = block.convolution.conv.weight
        assert weight.shape == (4, 5, 3, 3, 3) and (block.convolution.conv.bias is None) is (mode != "bias")
        joined = conv_by_hand(torch.cat([upsampled(below), skip], 1), weight, 1)
        expected = after_convolution(joined, block.convolution, mode, slope)
        copies = below.clone(), skip.clone()
        torch.testing.assert_close(block(below, skip), expected, **EXACT)
        assert torch.equal(below, copies[0]) and torch.equal(skip, copies[1])


class TestSelfAttention:
    @pytest.mark.parametrize(("channels", "narrow"), [(16, 2), (24, 3), (8, 1), (3, 1)])
    def test_by_hand(self, channels, narrow):
        torch.manual_seed(0)
        block = SelfAttentionBlock(channels).double()
        image = rand(2, channels, 3, 2, 4) - 0.5
        assert torch.equal(block(image), image)  # the weight starts at zero
        with torch.no_grad():
            block.weight.fill_(0.7)
        weight, bias = block.projection.weight[:, :, 0, 0, 0], block.projection.bias
        assert len(weight) == len(bias) == 2 * narrow + channels
        found = block(image)
        for b in range(2):
            voxels = image[b].reshape(channels, 24)
            projected = weight @ voxels + bias[:, None]
            scores = projected[:narrow].T @ projected[narrow : 2 * narrow] / math.sqrt(narrow)
            attention = torch.softmax(scores, dim=1)  # (who asks, who answers)
            expected = voxels + 0.7 * (projected[2 * narrow :] @ attention.T)
            torch.testing.assert_close(found[b].reshape(channels, 24), expected, **EXACT)


class Mixed(FreezableNormalization):
    """Every kind of layer that behaves otherwise in training."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm3d(2), nn.Dropout(0.5), nn.Sequential(nn.SyncBatchNorm(2)))
        self.flat, self.lines, self.groups = nn.BatchNorm2d(2), nn.BatchNorm1d(2), nn.GroupNorm(1, 2)

    def forward(self, x):
        return self.layers[1](self.layers[0](x))


class TestFreezable:
    def test_modes(self):
        network = Mixed()
        assert not network.normalization_frozen and network.training
        norms = [network.layers[0], network.layers[2][0], network.flat, network.lines]
        others = [network, network.layers, network.layers[1], network.layers[2], network.groups]

        def modes(layers):
            return {layer.training for layer in layers}

        network.normalization_frozen = True
        assert network.train() is network
        assert modes(norms) == {False} and modes(others) == {True}
        assert network.eval() is network
        assert modes(norms) == modes(others) == {False}
        network.normalization_frozen = False
        network.train()
        assert modes(norms) == modes(others) == {True}
        network.train(False)
        assert modes(norms) == modes(others) == {False}

    @pytest.mark.parametrize("frozen", [True, False])
    def test_statistics_and_dropout(self, frozen):
        torch.manual_seed(0)
        network = Mixed().double()
        as_trained(network.layers[0])
        network.normalization_frozen = frozen
        network.train()
        image = rand(2, 2, 4, 4, 4)
        norm = network.layers[0]
        before = norm.running_mean.clone(), norm.running_var.clone()
        found = network(image)
        assert [torch.equal(*pair) for pair in zip(before, (norm.running_mean, norm.running_var), strict=True)] == [
            frozen
        ] * 2
        dropped = found == 0
        assert 0.3 < dropped.double().mean() < 0.7  # half of 256 voxels
        whole = normalized(image, network.layers[0].state_dict())
        if not frozen:
            weight, bias = (value[None, :, None, None, None] for value in network.layers[0].parameters())
            whole = batch_normalized(image) * weight + bias
        torch.testing.assert_close(found[~dropped], 2 * whole[~dropped], **EXACT)

    def test_inside_another_network(self):
        """As in a wrapper for distributed training: its train() reaches the network."""
        inner = Mixed()
        inner.normalization_frozen = True
        outer = nn.Sequential(inner, nn.BatchNorm3d(2)).train()
        assert not inner.layers[0].training and outer[1].training and inner.layers[1].training
