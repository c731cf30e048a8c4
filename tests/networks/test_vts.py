# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Virtual Thin Slice: its generator and its discriminator."""

import functools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_sliceinterp.networks.nets import VTSDiscriminator, VTSGenerator
from monai_sliceinterp.networks.nets.vts import CONDITION_CHANNELS, VolumeTranslator
from tests.networks import helpers
from tests.networks.helpers import check_error, count, leaky, normalized, rand

EXACT = {"rtol": 1e-9, "atol": 1e-9}

trained = functools.partial(helpers.trained, gain=3.0)


def doubled(x):
    """Trilinear upsampling by 2 with voxel areas aligned: per axis 1/4 and 3/4 of the two neighbors."""
    for axis in (2, 3, 4):
        first, last = x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1)
        before = torch.cat([first, x.narrow(axis, 0, x.shape[axis] - 1)], dim=axis)
        after = torch.cat([x.narrow(axis, 1, x.shape[axis] - 1), last], dim=axis)
        x = torch.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], dim=axis + 1).flatten(axis, axis + 1)
    return x


def by_hand(state, image, levels, stem, high_frequency=True, residual_scale=0.1, slope=0.2, center=0.5, scale=0.5):
    """The generator from its weights, in plain torch, with replicated borders at the far ends."""
    x = (image - center) / scale
    for axis in (2, 3, 4):
        missing = math.ceil(x.shape[axis] / 2**levels) * 2**levels - x.shape[axis]
        x = torch.cat([x, *[x.narrow(axis, x.shape[axis] - 1, 1)] * missing], dim=axis)
    padded, skips = x, []
    for level in range(levels):
        skips.append(x)
        x = F.conv3d(x, state[f"encoder.{level}.0.conv.weight"], stride=2, padding=1)
        x = leaky(normalized(x, state, f"encoder.{level}.0.adn.N."), slope)
    if stem:
        skips[0] = padded
        for layer in (0, 2):
            weight, bias = state[f"stem.{layer}.weight"], state[f"stem.{layer}.bias"]
            assert weight.shape[0] == stem and weight.shape[2:] == (3, 3, 3)
            skips[0] = leaky(F.conv3d(skips[0], weight, bias, padding=1), slope)
    for level in range(levels):
        name = f"decoder.{level}.convolution"
        x = torch.cat([doubled(x), skips.pop()], dim=1)
        if stem and level == levels - 1:
            x = F.conv3d(x, state[f"{name}.conv.weight"], state[f"{name}.conv.bias"], padding=1)
        else:
            x = normalized(F.conv3d(x, state[f"{name}.conv.weight"], padding=1), state, f"{name}.adn.N.")
        x = leaky(x, slope)
    x = F.conv3d(x, state["head.weight"], state["head.bias"], padding=1 if stem else 0)
    if high_frequency:
        x = residual_scale * x + padded
    return (x * scale + center)[:, :, : image.shape[2], : image.shape[3], : image.shape[4]]


class TestGenerator:
    @pytest.mark.parametrize("size", [(32, 16, 16), (17, 31, 9), (1, 5, 3), (20, 18, 1)])
    @pytest.mark.parametrize("high_frequency", [True, False])
    @pytest.mark.parametrize("stem", [0, 3])
    def test_by_hand(self, size, high_frequency, stem):
        """Any size, those of a single slice too."""
        network = trained(VTSGenerator, (2, 3, 4, 5), stem, high_frequency)
        image = rand(2, 1, *size)
        found = network(image)
        assert found.shape == image.shape and found.dtype == image.dtype
        expected = by_hand(network.state_dict(), image, 4, stem, high_frequency)
        torch.testing.assert_close(found, expected, **EXACT)
        assert (expected - image).abs().max() > 0.01

    @pytest.mark.parametrize("stem", [0, 1, 4])
    def test_settings_by_hand(self, stem):
        """Other depth, slope and intensities."""
        network = trained(VTSGenerator, (3, 2), stem, True, 0.7, 0.35, 40.0, 300.0)
        image = 1000 * rand(1, 1, 7, 8, 5) - 400
        expected = by_hand(network.state_dict(), image, 2, stem, True, 0.7, 0.35, 40.0, 300.0)
        torch.testing.assert_close(network(image), expected, rtol=1e-9, atol=1e-6)

    @pytest.mark.parametrize("mode", [True, False])
    @pytest.mark.parametrize("stem", [0, 3])
    def test_untrained_is_the_identity(self, mode, stem):
        network = VTSGenerator((2, 3, 4), stem).train(mode)
        # exact in binary: with center and scale 1/2 neither shift nor scaling rounds these values
        image = torch.randint(0, 1025, (2, 1, 17, 24, 9), generator=torch.Generator().manual_seed(0)) / 1024
        assert torch.equal(network(image), image)
        torch.testing.assert_close(network(image / 3), image / 3, rtol=0, atol=1e-7)

    def test_untrained_whole_intensity(self):
        torch.manual_seed(0)
        network = VTSGenerator((2, 3), high_frequency=False).eval()
        image = rand(1, 1, 8, 8, 8).float()
        found = network(image)
        assert (found - image).abs().mean() > 0.05
        assert network.head.weight.abs().min() > 0

    @pytest.mark.parametrize("channels", [(64, 128, 256, 512), (16, 32, 64, 128)])
    def test_number_of_parameters(self, channels):
        """Strided convolutions and their norms; convolutions after joining and their norms; the head."""
        a, b, c, d = channels
        encoder = 64 * (a + a * b + b * c + c * d) + 2 * (a + b + c + d)
        decoder = 27 * ((d + c) * c + (c + b) * b + (b + a) * a + (a + 1) * a) + 2 * (c + b + a + a)
        with torch.device("meta"):
            assert count(VTSGenerator(channels)) == encoder + decoder + a + 1

    @pytest.mark.parametrize("channels", [(16, 32, 64, 128), (4,)])
    def test_number_of_parameters_with_stem(self, channels):
        """The last level joins the stem's channels and gives as many, with biases instead of norms."""
        with torch.device("meta"):
            network, plain = VTSGenerator(channels, 12), VTSGenerator(channels)
        first = channels[0]
        stem = 27 * (12 + 12 * 12) + 2 * 12
        last, head = 27 * (first + 12) * 12 + 12, 27 * 12 + 1
        assert count(network) - count(plain) == stem + last + head - (27 * (first + 1) * first + 2 * first + first + 1)

    def test_defaults(self):
        with torch.device("meta"):
            network = VTSGenerator()
        assert [block[0].conv.out_channels for block in network.encoder] == [64, 128, 256, 512]
        assert isinstance(network.stem, nn.Identity) and network.head.kernel_size == (1, 1, 1)
        assert network.multiple == 16 and network.high_frequency and network.residual_scale == 0.1
        assert (network.intensity_center, network.intensity_scale) == (0.5, 0.5)
        assert {layer.negative_slope for layer in network.modules() if isinstance(layer, nn.LeakyReLU)} == {0.2}

    @pytest.mark.filterwarnings("ignore:Converting a tensor")
    def test_trace(self):
        network, image = trained(VTSGenerator, (2, 3)), rand(1, 1, 9, 8, 6)
        traced = torch.jit.trace(network, image)
        other = rand(1, 1, 9, 8, 6, seed=1)
        torch.testing.assert_close(traced(other), network(other), **EXACT)
        assert not torch.allclose(traced(other), network(image))

    def test_abstract(self):
        with pytest.raises(NotImplementedError):
            VolumeTranslator()(torch.zeros(1, 1, 2, 2, 2))


def attended_by_hand(x, state, name, narrow):
    """Self-attention of all voxels, one after the other."""
    weight, bias = state[f"{name}.projection.weight"][:, :, 0, 0, 0], state[f"{name}.projection.bias"]
    voxels = x.flatten(2)
    result = torch.zeros_like(voxels)
    for b in range(len(x)):
        projected = weight @ voxels[b] + bias[:, None]
        query, key, value = projected[:narrow], projected[narrow : 2 * narrow], projected[2 * narrow :]
        for n in range(voxels.shape[2]):
            likeness = torch.exp((query[:, n, None] * key).sum(0))
            result[b, :, n] = (value * likeness / likeness.sum()).sum(1)
    return x + state[f"{name}.weight"] * result.reshape(x.shape)


def critic_by_hand(state, image, condition, levels, attention=True, slope=0.2, center=0.5, scale=0.5):
    """The discriminator from its weights: thick, thin, condition; the first layer without normalization."""
    zero = torch.zeros_like(image[:, :1])
    constant = [zero + condition[:, k, None, None, None, None] for k in range(condition.shape[1])]
    x = torch.cat([(image[:, :1] - center) / scale, (image[:, 1:] - center) / scale, *constant], dim=1)
    for level in range(levels):
        bias = state["layers.0.0.conv.bias"] if level == 0 else None
        x = F.conv3d(x, state[f"layers.{level}.0.conv.weight"], bias, stride=2, padding=1)
        x = leaky(normalized(x, state, f"layers.{level}.0.adn.N.") if level else x, slope)
    if attention:
        x = attended_by_hand(x, state, f"layers.{levels}", max(x.shape[1] // 8, 1))
    last = levels + attention
    return F.conv3d(x, state[f"layers.{last}.weight"], state[f"layers.{last}.bias"], padding=1)


class TestDiscriminator:
    @pytest.mark.parametrize("attention", [True, False])
    @pytest.mark.parametrize(("channels", "size"), [((2, 3, 16), (16, 8, 24)), ((4,), (4, 6, 8))])
    def test_by_hand(self, channels, size, attention):
        critic = trained(VTSDiscriminator, channels, attention=attention)
        image, condition = rand(2, 2, *size), rand(2, 8, seed=1)
        copy = condition.clone()
        found = critic(image, condition)
        assert found.shape == (2, 1, *(n // 2 ** len(channels) for n in size)) and torch.equal(condition, copy)
        expected = critic_by_hand(critic.state_dict(), image, condition, len(channels), attention)
        torch.testing.assert_close(found, expected, **EXACT)

    def test_settings_by_hand(self):
        critic = trained(VTSDiscriminator, (2, 3), 5, True, False, 0.4, intensity_center=-50.0, intensity_scale=200.0)
        image, condition = 1000 * rand(1, 2, 8, 8, 8) - 500, rand(1, 5, seed=1)
        expected = critic_by_hand(critic.state_dict(), image, condition, 2, True, 0.4, -50.0, 200.0)
        torch.testing.assert_close(critic(image, condition), expected, **EXACT)

    @pytest.mark.parametrize("mode", [True, False])
    def test_whole(self, mode):
        critic = trained(VTSDiscriminator, (2, 3))
        whole = VTSDiscriminator((2, 3), whole=True).double()
        whole.load_state_dict(critic.state_dict())
        image, condition = rand(3, 2, 8, 12, 16), rand(3, 8, seed=1)
        patches = critic.train(mode)(image, condition)
        found = whole.train(mode)(image, condition)
        assert patches.shape == (3, 1, 2, 3, 4) and found.shape == (3, 1)
        torch.testing.assert_close(found, patches.flatten(1).sum(1, keepdim=True) / 24, **EXACT)

    def test_unknown_condition(self):
        """It is one of zeros; integers do as well as floats."""
        critic, image = trained(VTSDiscriminator, (2, 3)), rand(2, 2, 8, 8, 8)
        assert CONDITION_CHANNELS == critic.condition_channels == 8
        assert torch.equal(critic(image), critic(image, torch.zeros(2, 8, dtype=torch.int64)))

    def test_no_condition(self):
        critic = trained(VTSDiscriminator, (2, 3), condition_channels=0)
        assert critic.layers[0][0].conv.in_channels == 2
        image = rand(1, 2, 8, 8, 8)
        expected = critic_by_hand(critic.state_dict(), image, torch.zeros(1, 0), 2)
        torch.testing.assert_close(critic(image), expected, **EXACT)
        check_error("created with condition_channels=0", critic, image, torch.zeros(1, 8))

    @pytest.mark.parametrize("shape", [(1, 1, 8, 8, 8), (2, 8, 8, 8)])
    def test_no_pair_of_volumes(self, shape):
        check_error(r"expected thick and thin volumes \(B, 2, H, W, N\)", VTSDiscriminator((2,)), torch.zeros(shape))

    @pytest.mark.parametrize("shape", [(2, 7), (2, 9), (1, 8), (3, 8), (8,), (2, 8, 1)])
    def test_wrong_condition(self, shape):
        critic, image = VTSDiscriminator((2,)), torch.zeros(2, 2, 4, 4, 4)
        assert str(shape) in check_error(r"expected a condition \(2, 8\), got \(", critic, image, torch.zeros(shape))

    def test_gradients(self):
        """Every parameter learns; what attention projects does once its weight has moved away from zero."""
        torch.manual_seed(0)
        critic = VTSDiscriminator((2, 3, 16))
        optimizer = torch.optim.SGD(critic.parameters(), 0.1)
        image, condition = rand(2, 2, 16, 16, 16).float(), rand(2, 8, seed=1).float()
        for step in range(2):
            optimizer.zero_grad()
            (critic(image, condition) ** 2).mean().backward()
            without = {name for name, value in critic.named_parameters() if not value.grad.any()}
            assert without == ({"layers.3.projection.weight", "layers.3.projection.bias"} if step == 0 else set())
            optimizer.step()

    def test_number_of_parameters(self):
        expected = 64 * (10 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 64 + 2 * (128 + 256 + 512)
        expected += 27 * 512 + 1
        with torch.device("meta"):
            plain, attentive = VTSDiscriminator(attention=False), VTSDiscriminator()
        assert count(plain) == expected
        # queries and keys of 64 channels, values of 512, and the weight
        assert count(attentive) == expected + (512 + 1) * (64 + 64 + 512) + 1
