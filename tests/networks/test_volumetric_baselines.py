# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""SRCNN and Pix2Pix in 3D."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_sliceinterp.networks.nets import SRCNN3D, Pix2Pix3D
from tests.networks.helpers import EXACT, count, leaky, normalized, padded_to, rand, trained


def extended(x, amount):
    """Repeat the faces of a volume at both ends."""
    for axis in (2, 3, 4):
        first, last = x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1)
        x = torch.cat([*[first] * amount, x, *[last] * amount], dim=axis)
    return x


class TestSRCNN:
    @pytest.mark.parametrize("size", [(9, 7, 6), (1, 4, 12)])
    def test_by_hand(self, size):
        network = trained(SRCNN3D, (3, 2), intensity_center=0.3, intensity_scale=0.6)
        image = rand(2, 1, *size)
        state = network.state_dict()
        x = (image - 0.3) / 0.6
        x = F.conv3d(extended(x, 4), state["layers.0.weight"], state["layers.0.bias"]).clamp(min=0)
        x = torch.einsum("oc,bcxyz->boxyz", state["layers.2.weight"][:, :, 0, 0, 0], x)
        x = (x + state["layers.2.bias"][:, None, None, None]).clamp(min=0)
        x = F.conv3d(extended(x, 2), state["layers.4.weight"], state["layers.4.bias"])
        found = network(image)
        assert found.shape == image.shape
        torch.testing.assert_close(found, x * 0.6 + 0.3, **EXACT)

    def test_number_of_parameters(self):
        with torch.device("meta"):
            network = SRCNN3D()
        assert count(network) == (9**3 + 1) * 64 + (64 + 1) * 32 + (32 * 5**3 + 1)
        assert count(SRCNN3D((4, 2))) == (9**3 + 1) * 4 + (4 + 1) * 2 + (2 * 5**3 + 1)


def pix2pix_by_hand(state, image, levels, slope=0.2, center=0.5, scale=0.5):
    x, skips = (image - center) / scale, []
    for level in range(levels):
        name, normalize = f"encoder.{level}.0", 0 < level < levels - 1
        bias = None if normalize else state[f"{name}.conv.bias"]
        x = F.conv3d(x, state[f"{name}.conv.weight"], bias, stride=2, padding=1)
        x = normalized(x, state, f"{name}.adn.N.") if normalize else x
        x = leaky(x, slope)
        skips.append(x)
    assert x.shape[2:] == (1, 1, 1)
    skips.pop()
    for step in range(levels - 1):
        x = F.conv_transpose3d(x.clamp(min=0), state[f"decoder.{step}.conv.weight"], stride=2, padding=1)
        x = normalized(x, state, f"decoder.{step}.adn.N.")
        x = torch.cat([x, skips.pop()], dim=1)
    last = f"decoder.{levels - 1}.conv"
    x = F.conv_transpose3d(x.clamp(min=0), state[f"{last}.weight"], state[f"{last}.bias"], stride=2, padding=1)
    return torch.tanh(x) * scale + center


class TestPix2Pix:
    @pytest.mark.parametrize("size", [4, 8, 32])
    def test_by_hand(self, size):
        network = trained(Pix2Pix3D, 2, size)
        image = rand(2, 1, size, size, size)
        copy = image.clone()
        found = network(image)
        assert torch.equal(image, copy)
        levels = {4: 2, 8: 3, 32: 5}[size]
        torch.testing.assert_close(found, pix2pix_by_hand(network.state_dict(), image, levels), **EXACT)

    def test_settings_by_hand(self):
        network = trained(Pix2Pix3D, 2, 8, 0.1, 0.4, intensity_center=10.0, intensity_scale=100.0)
        image = 100 * rand(1, 1, 8, 8, 8)
        expected = pix2pix_by_hand(network.state_dict(), image, 3, 0.4, 10.0, 100.0)
        torch.testing.assert_close(network(image), expected, rtol=1e-9, atol=1e-7)

    @pytest.mark.parametrize(("size", "levels"), [(4, 2), (8, 3), (16, 4), (64, 6), (128, 7)])
    def test_levels(self, size, levels):
        """Strided convolutions until one voxel is left; widths double up to eight times the first."""
        network = Pix2Pix3D(1, size).eval()
        assert len(network.encoder) == len(network.decoder) == levels and network.multiple == size
        assert [block[0].conv.out_channels for block in network.encoder] == [1, 2, 4, 8, 8, 8, 8][:levels]
        if size <= 16:
            shapes = []
            for block in network.encoder:
                block.register_forward_hook(lambda layer, args, output: shapes.append(tuple(output.shape[2:])))
            network(torch.rand(1, 1, size, size, size))
            assert shapes == [(size // 2 ** (k + 1),) * 3 for k in range(levels)] and shapes[-1] == (1, 1, 1)

    def test_number_of_parameters(self):
        """Of size 16 and first width 2: 2, 4, 8 and 16 channels."""
        encoder = 64 * (1 * 2 + 2 * 4 + 4 * 8 + 8 * 16) + 2 + 16 + 2 * (4 + 8)
        decoder = 64 * (16 * 8 + 16 * 4 + 8 * 2 + 4 * 1) + 2 * (8 + 4 + 2) + 1
        assert count(Pix2Pix3D(2, 16)) == encoder + decoder

    def test_default(self):
        with torch.device("meta"):
            network = Pix2Pix3D()
        assert [block[0].conv.out_channels for block in network.encoder] == [64, 128, 256, 512, 512, 512, 512]
        assert {layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)} == {0.5}

    @pytest.mark.parametrize("size", [(5, 8, 3), (17, 9, 8), (1, 1, 1), (8, 8, 16)])
    def test_any_size(self, size):
        """Padded by repeating the far border."""
        network = trained(Pix2Pix3D, 2, 8)
        image = rand(2, 1, *size)
        found = network(image)
        assert found.shape == image.shape
        torch.testing.assert_close(found, network(padded_to(image, 8))[..., : size[0], : size[1], : size[2]], **EXACT)

    def test_dropout(self):
        """Only in training, in the two innermost levels above the bottom, and still where normalization is frozen."""
        torch.manual_seed(0)
        network = trained(Pix2Pix3D, 2, 32, dropout=0.3)
        assert [hasattr(block.adn, "D") for block in network.decoder[:-1]] == [False, True, True, False]
        assert {layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)} == {0.3}
        image = rand(2, 1, 32, 32, 32)
        assert torch.equal(network(image), network(image))
        network.normalization_frozen = True
        network.train()
        statistics = {name: value.clone() for name, value in network.state_dict().items()}
        first, second = network(image), network(image)
        assert not torch.allclose(first, second)
        assert all(torch.equal(value, statistics[name]) for name, value in network.state_dict().items())
        without = Pix2Pix3D(2, 32, dropout=0.0).double()
        without.load_state_dict(network.state_dict())
        without.normalization_frozen = True
        assert torch.equal(without.train()(image), without.eval()(image))

    @pytest.mark.parametrize("size", [4, 16])
    def test_gradients(self, size):
        """Of a single volume too: the single voxel at the bottom is not normalized."""
        torch.manual_seed(0)
        network = Pix2Pix3D(2, size).double().train()
        target = rand(1, 1, size, size, size, seed=1)
        ((network(rand(1, 1, size, size, size)) - target) ** 2).mean().backward()
        assert [name for name, value in network.named_parameters() if not value.grad.any()] == []
