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
                part = padded[
                    :,
                    :,
                    i : i + stride * (sizes[0] - 1) + 1 : stride,
                    j : j + stride * (sizes[1] - 1) + 1 : stride,
                    k : k + stride * (sizes[2] - 1) + 1 : stride,
                ]
                result = result + torch.einsum("oc,bcxyz->boxyz", weight[:, :, i, j, k], part)
    return result


class TestHalving:
    @pytest.mark.parametrize("normalize", [True, False])
    @pytest.mark.parametrize("slope", [0.2, 0.05])
    def test_by_hand(self, normalize, slope):
        torch.manual_seed(0)
        block = HalvingBlock(2, 3, normalize, slope).double()
        image = rand(2, 2, 6, 4, 8) - 0.5
        conv = block[0].conv
        assert (conv.bias is None) is normalize and conv.weight.shape == (3, 2, 4, 4, 4)
        expected = conv_by_hand(image, conv.weight, 2)
        assert expected.shape == (2, 3, 3, 2, 4)
        if normalize:
            expected = batch_normalized(expected)
        else:
            expected = expected + conv.bias[None, :, None, None, None]
        torch.testing.assert_close(block(image), leaky(expected, slope), **EXACT)

    def test_evaluation_by_hand(self):
        torch.manual_seed(0)
        block = HalvingBlock(1, 2).double().eval()
        layer = block[0].adn.N
        as_trained(layer)
        image = rand(1, 1, 4, 6, 4)
        expected = normalized(conv_by_hand(image, block[0].conv.weight, 2), layer.state_dict())
        torch.testing.assert_close(block(image), leaky(expected, 0.2), **EXACT)


class TestDoubling:
    @pytest.mark.parametrize("normalize", [True, False])
    @pytest.mark.parametrize("slope", [0.2, 0.05])
    def test_by_hand(self, normalize, slope):
        torch.manual_seed(0)
        block = DoublingBlock(3, 2, 4, normalize, slope).double()
        below, skip = rand(2, 3, 2, 3, 1) - 0.5, rand(2, 2, 4, 6, 2, seed=1) - 0.5
        copies = below.clone(), skip.clone()
        upsampled = torch.zeros(2, 3, 4, 6, 2, dtype=torch.float64)
        for i in range(4):
            for j in range(6):
                for k in range(2):
                    value = 0
                    for corner in range(8):
                        weight, place = 1.0, []
                        for position, bit, size in ((i, corner & 1, 2), (j, corner >> 1 & 1, 3), (k, corner >> 2, 1)):
                            at = (position + 0.5) / 2 - 0.5
                            low = math.floor(at)
                            weight *= at - low if bit else 1 - (at - low)
                            place.append(min(max(low + bit, 0), size - 1))
                        value = value + weight * below[:, :, place[0], place[1], place[2]]
                    upsampled[:, :, i, j, k] = value
        conv = block.convolution.conv
        assert (conv.bias is None) is normalize and conv.weight.shape == (4, 5, 3, 3, 3)
        expected = conv_by_hand(torch.cat([upsampled, skip], 1), conv.weight, 1)
        expected = batch_normalized(expected) if normalize else expected + conv.bias[:, None, None, None]
        torch.testing.assert_close(block(below, skip), leaky(expected, slope), **EXACT)
        assert torch.equal(below, copies[0]) and torch.equal(skip, copies[1])

    def test_evaluation_by_hand(self):
        torch.manual_seed(0)
        block = DoublingBlock(2, 1, 2).double().eval()
        layer = block.convolution.adn.N
        as_trained(layer)
        below, skip = torch.ones(1, 2, 1, 1, 1, dtype=torch.float64), rand(1, 1, 2, 2, 2)
        joined = torch.cat([below.expand(-1, -1, 2, 2, 2), skip], dim=1)
        expected = normalized(conv_by_hand(joined, block.convolution.conv.weight, 1), layer.state_dict())
        torch.testing.assert_close(block(below, skip), leaky(expected, 0.2), **EXACT)


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

    def test_attends_everywhere(self):
        """A change of one voxel is felt by all others, and by its own volume alone."""
        torch.manual_seed(0)
        block = SelfAttentionBlock(8).double()
        with torch.no_grad():
            block.weight.fill_(1.0)
        image = rand(2, 8, 3, 3, 3)
        changed = image.clone()
        changed[0, :, 2, 2, 2] += 1
        difference = (block(changed) - block(image)).abs().amax(1)
        assert difference[0].min() > 1e-6 and difference[1].max() < 1e-12

    def test_gradients(self):
        torch.manual_seed(0)
        block = SelfAttentionBlock(16).double()
        image = rand(1, 16, 2, 2, 2)
        (block(image) ** 2).sum().backward()
        assert block.weight.grad.abs() > 0 and not block.projection.weight.grad.any()
        with torch.no_grad():
            block.weight.fill_(0.5)
        (block(image) ** 2).sum().backward()
        assert (block.projection.weight.grad.abs().amax((1, 2, 3, 4)) > 0).all()


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
        before = network.layers[0].running_mean.clone(), network.layers[0].running_var.clone()
        found = network(image)
        moved = [
            not torch.equal(old, new)
            for old, new in zip(before, (network.layers[0].running_mean, network.layers[0].running_var), strict=True)
        ]
        assert moved == [not frozen] * 2
        dropped = found == 0
        assert 0.3 < dropped.double().mean() < 0.7  # half of 256 voxels
        whole = normalized(image, network.layers[0].state_dict())
        if not frozen:
            whole = batch_normalized(image) * (network.layers[0].weight + 0)[None, :, None, None, None]
            whole = whole + network.layers[0].bias[None, :, None, None, None]
        torch.testing.assert_close(found[~dropped], 2 * whole[~dropped], **EXACT)

    def test_inside_another_network(self):
        """As in a wrapper for distributed training: its train() reaches the network."""
        inner = Mixed()
        inner.normalization_frozen = True
        outer = nn.Sequential(inner, nn.BatchNorm3d(2)).train()
        assert not inner.layers[0].training and outer[1].training and inner.layers[1].training
