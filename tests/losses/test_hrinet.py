# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from monai_sliceinterp.losses import EncoderFeatureLoss
from monai_sliceinterp.networks.nets import HRINetAutoencoder, VariationalHRINetAutoencoder
from tests.engines.helpers import rand


def build(network_class=HRINetAutoencoder, **kwargs):
    """Network whose maps of all levels are of the same size, so that each counts."""
    torch.manual_seed(0)
    network = network_class(**{"channels": (4, 6), "latent_channels": (3, 5, 2), **kwargs})
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.bias, std=0.2)
            module.weight.data *= 1.6
    return network


@pytest.mark.parametrize("network_class", [HRINetAutoencoder, VariationalHRINetAutoencoder])
@pytest.mark.parametrize(("channels", "size"), [(1, (16, 16)), (2, (13, 10))])
class TestByHand:
    def test_levels_count_the_same(self, channels, size, network_class):
        """Eq. 6: mean squared distances of the maps; each level's mean, not each number, has the same weight."""
        network = build(network_class, in_channels=channels)
        pred, target = rand(3, channels, *size), rand(3, channels, *size, seed=1)
        found, wanted = copy.deepcopy(network).eval().feature_maps(pred), network.feature_maps(target)
        parts = [((first - second) ** 2).mean().item() for first, second in zip(found, wanted, strict=True)]
        assert len(parts) == 3 and min(parts) > 1e-6 * max(parts)
        loss = EncoderFeatureLoss(network)(pred, target)
        assert loss.shape == () and loss.dtype == torch.float32
        assert loss.item() == pytest.approx(sum(parts) / 3, rel=1e-4)

    def test_gradient(self, channels, size, network_class):
        """Down to what is predicted; the encoder and the target take none."""
        network = build(network_class, in_channels=channels)
        pred, target = (rand(1, channels, *size, seed=seed).requires_grad_() for seed in (0, 1))
        EncoderFeatureLoss(network)(pred, target).backward()
        assert (pred.grad != 0).any(dim=(0, 2, 3)).all()
        assert target.grad is None and all(parameter.grad is None for parameter in network.parameters())


class TestFrozen:
    def test_network(self):
        """The network itself is frozen; not even statistics move."""
        network = build().train()
        before = copy.deepcopy(network.state_dict())
        loss = EncoderFeatureLoss(network)
        assert loss.network is network and not network.training
        assert not any(parameter.requires_grad for parameter in loss.parameters())
        loss(rand(2, 1, 16, 16), rand(2, 1, 16, 16, seed=1))
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    @pytest.mark.parametrize("mode", [True, False])
    def test_stays_in_evaluation_mode(self, mode):
        loss = EncoderFeatureLoss(build())
        assert loss.train(mode) is loss
        assert loss.training is mode
        assert not any(module.training for module in loss.network.modules())
        nn.ModuleList([loss]).train()  # as a part of something else
        assert not any(module.training for module in loss.network.modules())
        assert loss.eval() is loss and not loss.training
