# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""HRINet's autoencoder, its variational form and its critic."""

import math

import numpy as np
import pytest
import torch
from scipy import fft
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from monai_sliceinterp.networks.nets import HRINetAutoencoder, InterpolationCritic, VariationalHRINetAutoencoder
from monai_sliceinterp.networks.nets.variational import gaussian_divergence
from tests.networks.helpers import check_error, conv_count, count, leaky, padded_to, rand, trained

SMALL = {"channels": (4, 6), "latent_channels": (3, 5, 2)}
ACAI = {"channels": (4, 6), "latent_channels": (3,)}
FORMS = [
    SMALL,
    ACAI,
    {"channels": (5,), "latent_channels": (2, 4)},
    {"channels": (4, 6), "latent_channels": (3, 2), "stem": 2, "shortcut": True},
    {"channels": (4,), "latent_channels": (5,), "stem": 3},
    {"channels": (4,), "latent_channels": (2, 2), "shortcut": True},
]


def build(network_class=HRINetAutoencoder, seed=0, **kwargs):
    return trained(network_class, seed=seed, gain=1.6, **{**SMALL, **kwargs})


def unshuffled(image, size):
    """Blocks of ``size`` x ``size`` pixels as channels."""
    batch, channels, height, width = image.shape
    blocks = image.reshape(batch, channels, height // size, size, width // size, size)
    return blocks.permute(0, 1, 3, 5, 2, 4).reshape(batch, channels * size**2, height // size, width // size)


def shuffled(image, size):
    batch, channels, height, width = image.shape
    blocks = image.reshape(batch, channels // size**2, size, size, height, width)
    return blocks.permute(0, 1, 4, 2, 5, 3).reshape(batch, channels // size**2, height * size, width * size)


class Plain:
    """The network of Figure 2b in plain torch, which takes its convolutions one after another."""

    def __init__(self, network, slope=0.2, stem=1):
        self.slope, self.stem = slope, stem
        self.state = network.state_dict()
        names = [name.removesuffix(".weight") for name in self.state if name.endswith(".weight")]
        self.linear = any(name.startswith("shortcut") for name in names)
        self.left = {name.split(".")[0]: [] for name in names if not name.startswith("shortcut")}
        for part, rest in self.left.items():
            rest += [name for name in names if name.startswith(part)]

    def conv(self, part, x, active=True):
        name = self.left[part].pop(0)
        x = F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], padding=1)
        return leaky(x, self.slope) if active else x

    def twice(self, part, x):
        return self.conv(part, self.conv(part, x))

    def shortcut(self, part, x):
        return F.conv2d(x, self.state[f"shortcut.{part}.weight"], self.state[f"shortcut.{part}.bias"])

    @staticmethod
    def down(x):
        return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4

    @staticmethod
    def up(x):
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    def encode(self, image, scales, levels):
        image = padded_to(image, self.stem * 2 ** (scales + levels - 1))
        x = unshuffled(image, self.stem)
        for _ in range(scales):
            x = self.down(self.twice("encoder", x))
        maps = []
        for level in range(levels):
            x = self.twice("levels", self.down(x) if level else x)
            maps.append(self.conv("bottlenecks", x, active=False))
        if self.linear:
            maps[0] = maps[0] + self.shortcut("analysis", unshuffled(image, self.stem * 2**scales))
        return maps

    def decode(self, maps, scales):
        x = None
        for code in maps[::-1]:
            x = self.up(self.twice("joints", code if x is None else torch.cat([x, code], dim=1)))
        for scale in range(scales):
            x = self.twice("decoder", self.up(x) if scale else x)
        x = shuffled(self.conv("decoder", x, active=False), self.stem)
        assert not any(self.left.values())  # all used
        return x + shuffled(self.shortcut("synthesis", maps[0]), self.stem * 2**scales) if self.linear else x


class TestArchitecture:
    @pytest.mark.parametrize(
        ("size", "latent_channels", "expected"),
        [
            (256, (16, 8, 8), [(16, 16, 16), (8, 8, 8), (8, 4, 4)]),
            (512, (16, 8, 4), [(16, 32, 32), (8, 16, 16), (4, 8, 8)]),
            (256, (16,), [(16, 16, 16)]),  # ACAI
            (512, (16,), [(16, 32, 32)]),
        ],
    )
    @torch.no_grad()
    def test_table_1(self, size, latent_channels, expected):
        network = HRINetAutoencoder(channels=(2, 2, 2, 2), latent_channels=latent_channels).eval()
        image = rand(1, 1, size, size).float()
        assert [tuple(code.shape[1:]) for code in network.encode(image)] == expected
        assert network.decode(network.encode(image)).shape == image.shape

    def test_parameter_count(self):
        """3x3 kernels and biases of all convolutions, by hand."""
        encoder = [(1, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)]
        levels = 6 * [(256, 256)] + [(256, 16), (256, 8), (256, 8)]
        joints = [(8, 256), (256, 256), (264, 256), (256, 256), (272, 256), (256, 256)]
        decoder = [(256, 256), (256, 256), (256, 128), (128, 128), (128, 64), (64, 64), (64, 32), (32, 32), (32, 1)]
        expected = conv_count(encoder + levels + joints + decoder, 9)
        assert expected == count(HRINetAutoencoder()) == 9_571_809
        # a VAE's bottlenecks have twice the channels
        assert count(VariationalHRINetAutoencoder()) == expected + (9 * 256 + 1) * 32
        # the critic has the layers of the encoder of one level
        assert count(InterpolationCritic()) == conv_count([*encoder, *2 * [(256, 256)], (256, 16)], 9)
        widths = [(1, 4), (4, 4), (4, 6), (6, 6), (6, 6), (6, 6), (6, 3)]
        widths += [(3, 6), (6, 6), (6, 6), (6, 6), (6, 4), (4, 4), (4, 1)]
        assert count(HRINetAutoencoder(**ACAI)) == conv_count(widths, 9)

    @pytest.mark.parametrize("setting", FORMS)
    @pytest.mark.parametrize("in_channels", [1, 2])
    @pytest.mark.parametrize(("size", "slope"), [((16, 32), 0.2), ((13, 21), 0.05), ((1, 2), 0.2)])
    @torch.no_grad()
    def test_in_plain_torch(self, setting, in_channels, size, slope):
        network = build(in_channels=in_channels, negative_slope=slope, **setting)
        image = 2 * rand(3, in_channels, *size) - 0.5
        plain = Plain(network, slope, setting.get("stem", 1))
        scales, levels = len(setting["channels"]), len(setting["latent_channels"])
        maps = plain.encode(image, scales, levels)
        for found, expected, channels in zip(network.encode(image), maps, setting["latent_channels"], strict=True):
            assert found.shape[1] == channels
            torch.testing.assert_close(found, expected)
        decoded = plain.decode(maps, scales)
        assert decoded.std() > 1e-3
        torch.testing.assert_close(network.decode(network.encode(image)), decoded)
        torch.testing.assert_close(network.decode(network.encode(image), size), decoded[..., : size[0], : size[1]])

    @pytest.mark.parametrize("stem", [1, 2])
    @pytest.mark.parametrize("levels", [1, 2])
    @torch.no_grad()
    def test_untrained_with_a_shortcut_is_the_block_cosine_transform(self, stem, levels):
        channels = (4, 4) if stem == 2 else (4, 4, 4)  # blocks of 8 x 8 pixels
        network = HRINetAutoencoder(1, channels, (64, 3)[:levels], stem=stem, shortcut=True).eval()
        image = rand(2, 1, 16, 32).float()
        blocks = image.reshape(2, 2, 8, 4, 8).numpy()
        spectrum = fft.dctn(blocks, axes=(2, 4), norm="ortho").transpose(0, 2, 4, 1, 3).reshape(2, 64, 2, 4)
        found = np.sort(network.encode(image)[0].numpy(), axis=1)
        np.testing.assert_allclose(found, np.sort(spectrum / 8**0.5, axis=1), atol=1e-5)  # all, in some order
        torch.testing.assert_close(network(torch.cat([image, image], dim=1), 0.3), image)
        few = HRINetAutoencoder(1, channels, (1,), stem=stem, shortcut=True).eval()
        means = torch.from_numpy(blocks.mean(axis=(2, 4)))[:, None].repeat_interleave(8, 2).repeat_interleave(8, 3)
        torch.testing.assert_close(few(torch.cat([image, image], dim=1)), means)

    def test_variational_shortcut_leads_to_the_means(self):
        torch.manual_seed(0)
        setting = {"channels": (4,), "latent_channels": (3,), "shortcut": True}
        network = VariationalHRINetAutoencoder(**setting).eval()
        means, log_variances = network.feature_maps(rand(1, 1, 8, 8).float())[0].chunk(2, dim=1)
        assert (means != 0).all() and (log_variances == 0).all()


class TestVariational:
    @pytest.mark.parametrize("training", [False, True])
    def test_encode_returns_the_means(self, training):
        network, image = build(VariationalHRINetAutoencoder).train(training), rand(2, 1, 16, 16)
        maps, codes = network.feature_maps(image), network.encode(image)
        assert [code.shape[1] for code in codes] == [3, 5, 2] and [part.shape[1] for part in maps] == [6, 10, 4]
        assert all(torch.equal(part[:, : code.shape[1]], code) for part, code in zip(maps, codes, strict=True))

    def test_output_of_training(self):
        """What is drawn is mixed and decoded, also for the reconstructions."""
        network = build(VariationalHRINetAutoencoder).train()
        pair = rand(2, 2, 16, 16)
        torch.manual_seed(5)
        out = network(pair, 0.25, reconstruct=True)
        torch.manual_seed(5)
        codes = []
        for part in network.feature_maps(torch.cat(pair.chunk(2, dim=1))):
            mean, log_variance = part.chunk(2, dim=1)
            codes.append(mean + log_variance.exp().sqrt() * torch.randn_like(mean))
        middle = [0.75 * code[:2] + 0.25 * code[2:] for code in codes]
        torch.testing.assert_close(out[:, 2:], network.decode(tuple(middle)))
        torch.testing.assert_close(out[:, :1], network.decode(tuple(code[:2] for code in codes)))
        torch.testing.assert_close(out[:, 1:2], network.decode(tuple(code[2:] for code in codes)))

    @pytest.mark.parametrize("training", [False, True])
    def test_divergence_of_the_network(self, training):
        network = build(VariationalHRINetAutoencoder).train(training)
        pair = rand(3, 2, 13, 10)
        out, divergence = network(pair, rand(3, 2), reconstruct=True, divergence=True)
        assert out.shape == (3, 4, 13, 10) and divergence.shape == (6,)
        expected = torch.zeros(6, dtype=torch.float64)
        for part in network.feature_maps(torch.cat([pair[:, :1], pair[:, 1:]])):
            mean, log_variance = part.chunk(2, dim=1)
            expected += kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(dim=(1, 2, 3))
        torch.testing.assert_close(divergence, expected, rtol=1e-4, atol=1e-5)
        assert len(divergence.unique()) == 6 and divergence.requires_grad

    def test_divergence(self):
        """0.5 (m^2 + v - 1 - log v), summed over all codes of a sample."""
        means = (torch.tensor([[1.0, -2.0], [0.0, 0.0]]), torch.tensor([[[3.0]], [[0.5]]]))
        log_variances = (torch.tensor([[4.0, 1.0], [1.0, 1.0]]).log(), torch.tensor([[[0.25]], [[1.0]]]).log())
        first = 0.5 * ((1 + 4 - 1 - math.log(4)) + 4 + (9 + 0.25 - 1 - math.log(0.25)))
        assert gaussian_divergence(means, log_variances).tolist() == pytest.approx([first, 0.125])
        check_error("zip", gaussian_divergence, means, log_variances[:1])

    def test_wrong_channels_in_training(self):
        network = build(VariationalHRINetAutoencoder).train()
        check_error("needs 2 channels", network, rand(1, 4, 8, 8), divergence=True)


class TestCritic:
    @pytest.mark.parametrize("in_channels", [1, 2])
    @pytest.mark.parametrize("size", [(1, 1), (3, 8), (4, 12), (13, 10), (33, 2)])
    @torch.no_grad()
    def test_in_plain_torch(self, size, in_channels):
        """Layers of the encoder, whose output is averaged."""
        setting = {"channels": (4, 6), "latent_channels": 3, "in_channels": in_channels, "negative_slope": 0.1}
        critic = build(InterpolationCritic, **setting)
        image = rand(3, in_channels, *size)
        plain = Plain(critic, 0.1)
        x = padded_to(image, 4)
        for _ in range(2):
            x = plain.down(plain.twice("layers", x))
        x = plain.conv("layers", plain.twice("layers", x), active=False)
        assert plain.left == {"layers": []}
        assert x.shape == (3, 3, -(-size[0] // 4), -(-size[1] // 4))
        found = critic(image)
        assert found.shape == (3,) and found.std() > 1e-5
        torch.testing.assert_close(found, x.flatten(1).mean(dim=1))
