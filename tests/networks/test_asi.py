# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

import math

import pytest
import torch
from torch import nn

from monai_sliceinterp.networks.blocks.autoencoder import fan_in_normal_, pad_to_multiple
from monai_sliceinterp.networks.nets import ASIAutoencoder, ResidualASIAutoencoder
from tests.networks.helpers import rand, trained

BOTH = pytest.mark.parametrize("network_class", [ASIAutoencoder, ResidualASIAutoencoder])
SMALL = {"channels": (4, 6), "latent_channels": 8}


def build(network_class=ASIAutoencoder, seed=0, **kwargs):
    network = trained(network_class, seed=seed, **{**SMALL, **kwargs})
    nn.init.normal_(network.decoder[-1].weight, std=0.3)
    return network


class TestArchitecture:
    """Beside what ``tests/papers/test_asi.py`` states."""

    def test_code(self):
        network = ASIAutoencoder().eval()
        codes = network.encode(rand(2, 1, 32, 24).float())
        assert [tuple(code.shape) for code in codes] == [(2, 128, 8, 6)]
        assert codes[0].numel() > 2 * 32 * 24  # overcomplete
        image = rand(1, 1, 8, 12).float()
        assert pad_to_multiple(image, 4) is image  # multiples are not padded
        torch.testing.assert_close(network.encode(image)[0], network.encoder(image))
        assert codes[0].min() < -0.3 * codes[0].max() < 0  # a leaky ReLU would have flattened one side

    @pytest.mark.parametrize("scale", [1.0, 1000.0])
    def test_output_range(self, scale):
        network = build()
        out = network(scale * (rand(3, 2, 16, 16) - 0.5), reconstruct=True)
        assert out.min() >= 0 and out.max() <= 1
        # the last layer is a sigmoid and nothing else
        logits = network.decoder(network.encoder(scale * (rand(3, 1, 16, 16) - 0.5)))
        codes = network.encode(scale * (rand(3, 1, 16, 16) - 0.5))
        torch.testing.assert_close(network.decode(codes), 1 / (1 + torch.exp(-logits)))

    def test_initialization_of_other_layers(self):
        network = nn.Sequential(nn.Conv1d(64, 64, 5, bias=False), nn.Conv3d(16, 32, 3), nn.Linear(4, 4))
        linear = network[2].weight.clone()
        fan_in_normal_(network, 0.0)
        assert network[0].weight.std().item() == pytest.approx(1 / math.sqrt(320), rel=0.05)
        assert network[1].weight.std().item() == pytest.approx(1 / math.sqrt(16 * 27), rel=0.05)
        assert torch.equal(network[2].weight, linear)

    @BOTH
    def test_other_sizes(self, network_class):
        network = network_class(in_channels=3, channels=(4, 5, 6), latent_channels=7).eval()
        assert network.multiple == 8
        assert network.encode(rand(2, 3, 17, 8).float())[0].shape == (2, 7, 3, 1)
        assert network(rand(2, 6, 17, 9).float(), reconstruct=True).shape == (2, 9, 17, 9)


def test_one_pass_for_batch_normalization():
    """ASI's decoder normalizes reconstructions and mixtures with common statistics, seen once a step."""
    network = build(ASIAutoencoder).train()
    network(rand(2, 2, 8, 8), reconstruct=True)
    counts = {layer.num_batches_tracked.item() for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)}
    assert counts == {1}


class TestResidual:
    @pytest.mark.parametrize("size", [(8, 8), (7, 13)])
    def test_meets_the_slices_at_both_ends(self, size):
        network = build(ResidualASIAutoencoder)
        pair = 3 * rand(2, 2, *size) - 1  # also outside [0, 1]
        out = network(pair, alpha=torch.tensor([0.0, 1.0]), reconstruct=True)
        torch.testing.assert_close(out[0, 2], pair[0, 0])
        torch.testing.assert_close(out[1, 2], pair[1, 1])
        assert torch.equal(out[:, :2], pair)

    def test_adds_to_the_blend_what_decoding_adds_to_blending(self):
        network, plain = build(ResidualASIAutoencoder), build(ASIAutoencoder)
        plain.load_state_dict(network.state_dict())  # the layers are the same
        pair = rand(2, 2, 8, 12)
        recon = plain(pair, alpha=0.25, reconstruct=True)
        blend = 0.75 * (pair[:, :1] - recon[:, :1]) + 0.25 * (pair[:, 1:] - recon[:, 1:2])
        assert abs(blend).mean() > 0.01
        torch.testing.assert_close(network(pair, alpha=0.25), recon[:, 2:] + blend)
