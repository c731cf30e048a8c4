# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Mixing of latent codes, and what holds for every network that interpolates slices by it."""

import math

import pytest
import torch
from torch import nn

from monai_sliceinterp.networks import nets
from tests.networks.helpers import check_error, padded_to, rand, trained

NETWORKS = {
    "asi": (nets.ASIAutoencoder, 8, 4),  # class, channels of the codes, multiple that sizes are padded to
    "asi, residual": (nets.ResidualASIAutoencoder, 8, 4),
    "hrinet": (nets.HRINetAutoencoder, (3, 5, 2), 16),
    "hrinet, one level": (nets.HRINetAutoencoder, (3,), 4),
    "vae": (nets.VariationalHRINetAutoencoder, (3, 5, 2), 16),
}


def build(name, in_channels=1):
    network_class, latent_channels, _ = NETWORKS[name]
    network = trained(network_class, in_channels, (4, 6), latent_channels, gain=1.6)
    if "asi" in name:
        nn.init.normal_(network.decoder[-1].weight, std=0.3)
    return network


class Toy(nets.LatentInterpolator):
    """Codes of two shapes, none of which is mixed like pixels; records what it is called with."""

    def __init__(self, in_channels=1):
        super().__init__()
        self.in_channels = in_channels
        self.encoded, self.decoded, self.sizes = [], [], []

    def encode(self, image):
        self.encoded.append(image.clone())
        return torch.exp(2 * image), image.mean(dim=(2, 3)) ** 2

    def decode(self, codes, size=None):
        self.decoded.append(len(codes[0]))
        self.sizes.append(size if size is None else tuple(size))
        return torch.log(codes[0]) + 3 * codes[1][..., None, None]


def by_hand(earlier, later, alpha):
    """The result of Toy for slices ``(C, H, W)``."""
    spread = (1 - alpha) * torch.exp(2 * earlier) + alpha * torch.exp(2 * later)
    squares = [part.mean(dim=(1, 2)) ** 2 for part in (earlier, later)]
    return torch.log(spread) + 3 * ((1 - alpha) * squares[0] + alpha * squares[1])[:, None, None]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("reconstruct", [False, True])
@pytest.mark.parametrize(
    "alpha",
    [
        0.3,
        1,
        torch.tensor(0.7),
        torch.tensor([0.1, 0.5, 1.0]),
        torch.tensor([[0.1], [0.5], [1.0]]),
        torch.tensor([[0.1, 0.2], [0.3, 0.0], [1.0, 0.6]]),
        torch.tensor([[0.1, 0.2, 0.9], [0.3, 0.0, 0.8], [1.0, 0.6, 0.7]]),  # as many as pairs
        torch.linspace(0, 1, 15, dtype=torch.float64).reshape(3, 5),
    ],
)
def test_forward(alpha, reconstruct, channels):
    """Every number of the result; each slice is encoded once, earlier ones first, and all is decoded at once."""
    network, pairs = Toy(channels), rand(3, 2 * channels, 4, 5).float()
    copies = pairs.clone(), torch.as_tensor(alpha).clone()
    found = network(pairs, alpha, reconstruct)
    fractions = torch.as_tensor(alpha, dtype=torch.float32)
    fractions = fractions.expand(3).reshape(3, 1) if fractions.ndim < 2 else fractions
    assert found.shape == (3, (fractions.shape[1] + 2 * reconstruct) * channels, 4, 5)
    for k in range(3):
        earlier, later = pairs[k].chunk(2)
        slices = [by_hand(earlier, earlier, 0.0), by_hand(later, later, 0.0)] if reconstruct else []
        slices += [by_hand(earlier, later, fraction) for fraction in fractions[k]]
        torch.testing.assert_close(found[k], torch.cat(slices))
    assert torch.equal(pairs, copies[0]) and torch.equal(torch.as_tensor(alpha), copies[1])
    (encoded,) = network.encoded
    assert torch.equal(encoded, torch.cat([pairs[:, :channels], pairs[:, channels:]]))
    assert network.decoded == [3 * (fractions.shape[1] + 2 * reconstruct)] and network.sizes == [(4, 5)]


class TestSynthesize:
    def test_codes(self):
        """From codes alone, in a size of one's choice."""
        network = Toy()
        pairs, alpha = rand(2, 2, 4, 4), rand(2, 3, seed=1)
        codes = network.encode(torch.cat(pairs.chunk(2, dim=1)))
        found = network.synthesize(codes, alpha, (3, 2), reconstruct=True)
        assert network.sizes == [(3, 2)]
        torch.testing.assert_close(found, Toy()(pairs, alpha, reconstruct=True))

    @pytest.mark.parametrize("alpha", [0.25, torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])])
    def test_other_mixing(self, alpha):
        """A subclass may mix in another way; nothing is mixed beside it."""

        class Nearest(Toy):
            def mix(self, earlier, later, alpha):
                assert not isinstance(alpha, torch.Tensor) or all(len(code) == len(alpha) for code in earlier)
                return later

        found = Nearest()(rand(2, 2, 4, 5), alpha, reconstruct=True)
        count = alpha.shape[1] if isinstance(alpha, torch.Tensor) else 1
        assert torch.equal(found[:, 2:], found[:, 1:2].expand(-1, count, -1, -1))
        assert not torch.allclose(found[:, :1], found[:, 1:2])

    def test_gradient_of_alpha(self):
        """Positions of several slices may be learned: each gradient is that of its slice."""
        alpha = rand(2, 3, seed=1).requires_grad_()
        Toy()(rand(2, 2, 4, 5), alpha)[1, 2].sum().backward()
        assert alpha.grad[1, 2] != 0
        alpha.grad[1, 2] = 0
        assert (alpha.grad == 0).all()

    @pytest.mark.parametrize(("pairs", "shape"), [(2, (3,)), (2, (3, 2)), (2, (2, 3, 1)), (1, (4,))])
    def test_wrong_alpha(self, pairs, shape):
        """``(T,)`` is one per pair: for one pair it is not several, whose layout would be another."""
        with pytest.raises((ValueError, RuntimeError)):
            Toy()(rand(pairs, 2, 4, 5), rand(*shape), reconstruct=True)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_channels_of_a_pair(channels, number):
    network, pairs = Toy(channels), rand(1, number, 4, 5)
    if number == 2 * channels:
        assert network(pairs).shape == (1, channels, 4, 5)
    else:
        check_error(rf"needs {2 * channels} channels \(2 x in_channels\), got {number}\.", network, pairs)
        assert network.encoded == []


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
class TestEveryNetwork:
    @pytest.mark.parametrize(
        "size", [*((n, 21 - n) for n in range(1, 21)), (1, 1), (3, 3), (16, 16), (61, 47), (1, 40)]
    )
    def test_any_size(self, name, size):
        """Slices are padded by their repeated border, at the far ends, and cropped again."""
        network, multiple = build(name), NETWORKS[name][2]
        assert network.multiple == multiple
        pair, alpha = rand(2, 2, *size), rand(2, 2, seed=1)
        out = network(pair, alpha, reconstruct=True)
        assert out.shape == (2, 4, *size) and out.isfinite().all()
        padded = network(padded_to(pair, multiple), alpha, reconstruct=True)
        torch.testing.assert_close(out, padded[..., : size[0], : size[1]])

    @pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 0.9, 1.0])
    def test_mixture(self, name, alpha):
        """The decoded convex combination of all codes; at both ends a reconstruction; the same from the other end."""
        network, pair = build(name, 2), rand(3, 4, 13, 10)
        earlier, later = (network.encode(part) for part in pair.chunk(2, dim=1))
        between = tuple((1 - alpha) * first + alpha * second for first, second in zip(earlier, later, strict=True))
        parts = [network.decode(codes, (13, 10)) for codes in (earlier, later, between)]
        assert abs(parts[0] - parts[1]).max() > 1e-3
        torch.testing.assert_close(network(pair, alpha, reconstruct=True), torch.cat(parts, dim=1))
        torch.testing.assert_close(network(pair, alpha), parts[2])
        torch.testing.assert_close(network(pair[:, [2, 3, 0, 1]], 1 - alpha), parts[2])
        if alpha in (0.2, 0.5):
            for level in range(len(between)):  # each code matters
                for other in (earlier, later):
                    codes = [*between]
                    codes[level] = other[level]
                    assert (network.decode(tuple(codes), (13, 10)) - parts[2]).abs().max() > 1e-5

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_several_alphas(self, name, dtype):
        """They give what single ones give, pair by pair."""
        network, pairs, alpha = build(name, 2), rand(3, 4, 11, 6), rand(3, 4, seed=1).to(dtype)
        ends = network(pairs, 0.5, reconstruct=True)[:, :4]
        slices = [[network(pairs[k, None], alpha[k, j].item())[0] for j in range(4)] for k in range(3)]
        each = torch.stack([torch.cat(parts) for parts in slices])
        torch.testing.assert_close(network(pairs, alpha, reconstruct=True), torch.cat([ends, each], dim=1))
        torch.testing.assert_close(network(pairs, alpha), each)
        torch.testing.assert_close(network(pairs, alpha[:, 1]), each[:, 2:4])
        torch.testing.assert_close(network(pairs), network(pairs, torch.tensor(0.5, dtype=dtype)))
        assert (each[:, :2] - each[:, 2:4]).abs().max() > 1e-3


class TestMixCodes:
    @pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, torch.tensor(0.3), torch.tensor([0.1, 0.9])])
    def test_levels(self, alpha):
        earlier = (rand(2, 3, 4, 5).float(), rand(2, 7).float(), rand(2, 1, 2, 3, 4))
        later = tuple(rand(*code.shape, seed=1).to(code.dtype) for code in earlier)
        mixed = nets.mix_codes(earlier, later, alpha)
        assert len(mixed) == 3
        weights = torch.as_tensor(alpha, dtype=torch.float64).expand(2)
        for first, second, found in zip(earlier, later, mixed, strict=True):
            assert found.dtype == first.dtype
            for k in range(2):
                expected = (1 - weights[k]) * first[k].double() + weights[k] * second[k].double()
                torch.testing.assert_close(found[k].double(), expected, rtol=1e-5, atol=1e-6)

    def test_ends_are_exact(self):
        earlier, later = (rand(3, 5),), (rand(3, 5, seed=1),)
        assert torch.equal(nets.mix_codes(earlier, later, 0.0)[0], earlier[0])
        assert torch.equal(nets.mix_codes(earlier, later, 1.0)[0], later[0])

    def test_levels_must_match(self):
        with pytest.raises(ValueError, match="zip"):
            nets.mix_codes((rand(1, 2),), (rand(1, 2), rand(1, 2)), 0.5)


@pytest.mark.parametrize("slope", [0.2, 0.01, 0.5])
@pytest.mark.parametrize(
    ("network_class", "settings", "layers"),
    [
        (nets.ASIAutoencoder, {}, 12),
        (nets.HRINetAutoencoder, {"channels": (16, 32), "latent_channels": (8, 8)}, 19),
        (nets.InterpolationCritic, {"channels": (16, 32)}, 7),
    ],
)
def test_initialization(network_class, settings, layers, slope):
    """Normal, by the number of incoming connections of each convolution (ASI, section IV); norms are the identity."""
    torch.manual_seed(0)
    network = network_class(negative_slope=slope, **settings)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == layers
    for layer in convolutions:
        count, std = layer.weight.numel(), 1 / math.sqrt(9 * layer.in_channels * (1 + slope**2))
        # five standard errors of a sample's standard deviation and mean
        assert layer.weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * count))
        assert abs(layer.weight.mean().item()) < 5 * std / math.sqrt(count)
        if count > 1000:  # normal, not uniform
            assert (abs(layer.weight) > 2 * std).float().mean().item() == pytest.approx(0.0455, abs=0.02)
        assert (layer.bias == 0).all() and layer.weight.is_contiguous(memory_format=torch.channels_last)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all() and (layer.bias == 0).all()
        if isinstance(layer, nn.LeakyReLU):
            assert layer.negative_slope == slope
