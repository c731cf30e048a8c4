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

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_sliceinterp.networks.blocks.autoencoder import fan_in_normal_, pad_to_multiple
from monai_sliceinterp.networks.nets.asi import ASIAutoencoder, ResidualASIAutoencoder
from monai_sliceinterp.networks.nets.latent import mix_codes

BOTH = pytest.mark.parametrize("network_class", [ASIAutoencoder, ResidualASIAutoencoder])
SMALL = {"channels": (4, 6), "latent_channels": 8}


def build(network_class=ASIAutoencoder, seed=0, **kwargs):
    """Small network in evaluation mode whose parameters and statistics are those of a trained one: none is trivial."""
    torch.manual_seed(seed)
    network = network_class(**{**SMALL, **kwargs}).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.3, 1.0)
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.bias, std=0.1)
    nn.init.normal_(network.decoder[-1].weight, std=0.3)
    return network


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class TestArchitecture:
    """Section III-B of the paper."""

    def test_parameter_count(self):
        # nine weights a kernel: encoder 1-32-32-64-64-128-128, decoder 128-64-64-32-32-32-1
        widths = [(1, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
        widths += [(128, 64), (64, 64), (64, 32), (32, 32), (32, 32), (32, 1)]
        expected = sum(9 * before * after + after for before, after in widths) + 2 * 2 * (32 + 64)
        assert expected == 434_785
        for network_class in (ASIAutoencoder, ResidualASIAutoencoder):
            assert sum(parameter.numel() for parameter in network_class().parameters()) == expected

    @BOTH
    @pytest.mark.parametrize("slope", [0.2, 0.01])
    def test_layers(self, network_class, slope):
        def block(before, after, resize):
            return [("conv", before, after), slope, ("conv", after, after), slope, ("norm", after), resize]

        def describe(layer):
            if isinstance(layer, nn.Conv2d):
                assert (layer.kernel_size, layer.padding, layer.stride) == ((3, 3), (1, 1), (1, 1))
                assert layer.padding_mode == "zeros" and layer.bias is not None
                return ("conv", layer.in_channels, layer.out_channels)
            if isinstance(layer, nn.LeakyReLU):
                return layer.negative_slope
            if isinstance(layer, nn.BatchNorm2d):
                return ("norm", layer.num_features)
            if isinstance(layer, nn.AvgPool2d):
                return ("average", layer.kernel_size, layer.stride)
            assert isinstance(layer, nn.Upsample)
            return (layer.mode, layer.scale_factor)

        network = network_class(negative_slope=slope)
        leaves = lambda part: [describe(layer) for layer in part.modules() if not list(layer.children())]  # noqa: E731
        down, up = ("average", 2, 2), ("nearest", 2)
        assert leaves(network.encoder) == [
            *block(1, 32, down),
            *block(32, 64, down),
            ("conv", 64, 128),
            slope,
            ("conv", 128, 128),  # linear
        ]
        assert leaves(network.decoder) == [
            *block(128, 64, up),
            *block(64, 32, up),
            ("conv", 32, 32),
            slope,
            ("conv", 32, 1),
        ]

    def test_code(self):
        network = ASIAutoencoder().eval()
        codes = network.encode(rand(2, 1, 32, 24))
        assert [tuple(code.shape) for code in codes] == [(2, 128, 8, 6)]
        assert codes[0].numel() > 2 * 32 * 24  # overcomplete
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

    @pytest.mark.parametrize("slope", [0.2, 0.01])
    def test_initialization(self, slope):
        torch.manual_seed(0)
        network = ASIAutoencoder(negative_slope=slope)
        convs = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
        assert len(convs) == 12
        for layer in convs:
            fan_in, count = 9 * layer.in_channels, layer.weight.numel()
            std = 1 / math.sqrt(fan_in * (1 + slope**2))
            # five standard errors of a sample's standard deviation and mean
            assert layer.weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * count))
            assert abs(layer.weight.mean().item()) < 5 * std / math.sqrt(count)
            if count > 1000:  # normal, not uniform
                assert (abs(layer.weight) > 2 * std).float().mean().item() == pytest.approx(0.0455, abs=0.02)
            assert (layer.bias == 0).all()
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                assert (layer.weight == 1).all() and (layer.bias == 0).all()

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
        assert network.encode(rand(2, 3, 17, 8))[0].shape == (2, 7, 3, 1)
        assert network(rand(2, 6, 17, 9), reconstruct=True).shape == (2, 9, 17, 9)

    @BOTH
    @pytest.mark.parametrize(
        "wrong", [{"channels": ()}, {"channels": (4, 0)}, {"in_channels": 0}, {"latent_channels": -1}]
    )
    def test_errors(self, network_class, wrong):
        with pytest.raises(ValueError, match="positive channel counts") as caught:
            network_class(**wrong)
        assert "\n" not in str(caught.value)


@BOTH
class TestSizes:
    @pytest.mark.parametrize("size", [(n, 21 - n) for n in range(1, 21)] + [(1, 1), (3, 3), (61, 47)])
    def test_any_size(self, network_class, size):
        """What is added inside is the repeated border, at the far ends, and is cropped again."""
        network = build(network_class)
        pair = rand(2, 2, *size)
        out = network(pair, alpha=0.3, reconstruct=True)
        assert out.shape == (2, 3, *size) and out.isfinite().all()
        rows = torch.arange(-(-size[0] // 4) * 4).clamp(max=size[0] - 1)
        columns = torch.arange(-(-size[1] // 4) * 4).clamp(max=size[1] - 1)
        padded = network(pair[:, :, rows][..., columns], alpha=0.3, reconstruct=True)
        torch.testing.assert_close(out, padded[..., : size[0], : size[1]])

    def test_multiples_are_not_padded(self, network_class):
        network = build(network_class)
        image = rand(1, 1, 8, 12)
        assert pad_to_multiple(image, 4) is image
        torch.testing.assert_close(network.encode(image)[0], network.encoder(image))
        assert network.decode(network.encode(image)).shape == image.shape


@BOTH
class TestMixing:
    def test_ends_are_reconstructions(self, network_class):
        network = build(network_class)
        pair = rand(3, 2, 13, 10)
        alone = torch.cat([network.decode(network.encode(part), (13, 10)) for part in pair.chunk(2, 1)], dim=1)
        assert not torch.allclose(alone[:, 0], alone[:, 1], atol=1e-3)
        for alpha in (0.0, 1.0):
            out = network(pair, alpha=alpha, reconstruct=True)
            torch.testing.assert_close(out[:, :2], alone)
            torch.testing.assert_close(out[:, 2], alone[:, int(alpha)])
            torch.testing.assert_close(network(pair, alpha=alpha), alone[:, int(alpha), None])

    @pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 0.9])
    def test_swap(self, network_class, alpha):
        network = build(network_class, in_channels=2)
        pair = rand(2, 4, 8, 8)
        torch.testing.assert_close(network(pair[:, [2, 3, 0, 1]], alpha=alpha), network(pair, alpha=1 - alpha))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_one_alpha_per_pair(self, network_class, dtype):
        network = build(network_class)
        pair = rand(4, 2, 9, 9)
        alpha = torch.tensor([0.0, 0.25, 0.6, 1.0], dtype=dtype)
        out = network(pair, alpha=alpha)
        each = torch.cat([network(pair[k, None], alpha=alpha[k].item()) for k in range(4)])
        torch.testing.assert_close(out, each)
        torch.testing.assert_close(network(pair, alpha=alpha[:, None]), out)
        torch.testing.assert_close(network(pair), network(pair, alpha=torch.tensor(0.5)))

    def test_layout_of_reconstructions(self, network_class):
        network = build(network_class, in_channels=2)
        pair = rand(3, 4, 8, 12)
        out = network(pair, alpha=0.3, reconstruct=True)
        earlier, later = network.encode(pair[:, :2]), network.encode(pair[:, 2:])
        between = tuple(0.7 * first + 0.3 * second for first, second in zip(earlier, later, strict=True))
        expected = [network.decode(codes) for codes in (earlier, later, between)]
        assert out.shape == (3, 6, 8, 12)
        torch.testing.assert_close(out, torch.cat(expected, dim=1))
        torch.testing.assert_close(network(pair, alpha=0.3), expected[2])

    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_wrong_channels(self, network_class, channels):
        with pytest.raises(ValueError, match=f"needs 2 channels .*got {channels}") as caught:
            build(network_class)(rand(1, channels, 8, 8))
        assert "\n" not in str(caught.value)

    def test_input_is_left_alone(self, network_class):
        pair = rand(1, 2, 8, 8)
        build(network_class)(pair, reconstruct=True)
        assert torch.equal(pair, rand(1, 2, 8, 8))


def test_one_pass_for_batch_normalization():
    """ASI's decoder normalizes reconstructions and mixtures with common statistics, seen once a step."""
    network = build(ASIAutoencoder).train()
    network(rand(2, 2, 8, 8), reconstruct=True)
    counts = {layer.num_batches_tracked.item() for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)}
    assert counts == {1}


@BOTH
class TestTraining:
    def test_gradients_reach_every_parameter(self, network_class):
        network = build(network_class).train()
        out = network(rand(4, 2, 16, 16), alpha=rand(4), reconstruct=True)
        F.mse_loss(out, rand(4, 3, 16, 16, seed=1)).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None and abs(parameter.grad).max() > 1e-8, name

    def test_learns(self, network_class):
        torch.manual_seed(0)
        network = network_class(**SMALL)
        rows = torch.linspace(0, 6, 16)
        shifts = torch.tensor([0.0, 0.8, 1.6])
        slices = (0.5 + 0.4 * torch.sin(rows[None, :] + shifts[:, None]))[None, :, :, None].expand(2, 3, 16, 16)
        pair, target = slices[:, [0, 2]], slices[:, [0, 2, 1]]
        optimizer = torch.optim.Adam(network.parameters(), 1e-2)
        losses = []
        for _ in range(80):
            loss = F.mse_loss(network(pair, reconstruct=True), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.4 * losses[0]

    def test_state_dict(self, network_class, tmp_path):
        network = build(network_class)
        other = build(network_class, seed=1)
        pair = rand(2, 2, 11, 9)
        assert not torch.allclose(network(pair), other(pair))
        torch.save(network.state_dict(), tmp_path / "model.pt")
        other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        assert torch.equal(network(pair, reconstruct=True), other(pair, reconstruct=True))


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

    def test_constant_stays_constant(self):
        pair = torch.full((1, 2, 12, 12), 0.37)
        torch.testing.assert_close(build(ResidualASIAutoencoder)(pair, alpha=0.3), pair[:, :1])


class TestMixCodes:
    @pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, torch.tensor(0.3), torch.tensor([0.1, 0.9])])
    def test_levels(self, alpha):
        earlier = (rand(2, 3, 4, 5), rand(2, 7), rand(2, 1, 2, 3, 4).double())
        later = tuple(rand(*code.shape, seed=1).to(code.dtype) for code in earlier)
        mixed = mix_codes(earlier, later, alpha)
        assert len(mixed) == 3
        weights = torch.as_tensor(alpha, dtype=torch.float64).expand(2)
        for first, second, found in zip(earlier, later, mixed, strict=True):
            assert found.dtype == first.dtype
            for k in range(2):
                expected = (1 - weights[k]) * first[k].double() + weights[k] * second[k].double()
                torch.testing.assert_close(found[k].double(), expected, rtol=1e-5, atol=1e-6)

    def test_ends_are_exact(self):
        earlier, later = (rand(3, 5),), (rand(3, 5, seed=1),)
        assert torch.equal(mix_codes(earlier, later, 0.0)[0], earlier[0])
        assert torch.equal(mix_codes(earlier, later, 1.0)[0], later[0])

    def test_levels_must_match(self):
        with pytest.raises(ValueError, match="zip"):
            mix_codes((rand(1, 2),), (rand(1, 2), rand(1, 2)), 0.5)
