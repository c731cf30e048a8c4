# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Batch normalization that can be frozen; the blocks themselves are tested with the networks, by hand."""

import pytest
import torch
from torch import nn

from monai_sliceinterp.networks.blocks import FreezableNormalization
from tests.networks.helpers import EXACT, as_trained, normalized, rand


def batch_normalized(x):
    mean, var = x.mean((0, 2, 3, 4), keepdim=True), x.var((0, 2, 3, 4), keepdim=True, unbiased=False)
    return (x - mean) / torch.sqrt(var + 1e-5)


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
        mean, var = norm.running_mean.clone(), norm.running_var.clone()
        found = network(image)
        assert torch.equal(mean, norm.running_mean) == torch.equal(var, norm.running_var) == frozen
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
