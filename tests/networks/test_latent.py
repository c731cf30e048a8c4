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

import pytest
import torch

from monai_sliceinterp.networks.nets import ASIAutoencoder, HRINetAutoencoder, LatentInterpolator
from monai_sliceinterp.networks.nets.asi import ResidualASIAutoencoder


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class Toy(LatentInterpolator):
    """Codes of two shapes, none of which is mixed like pixels; with what was asked of it."""

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
    """What Toy makes of slices ``(C, H, W)``."""
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
class TestForward:
    def test_by_hand(self, alpha, reconstruct, channels):
        """Every number of the result, pair by pair and place by place."""
        pairs = rand(3, 2 * channels, 4, 5)
        kept = alpha.clone() if isinstance(alpha, torch.Tensor) else alpha
        found = Toy(channels)(pairs, alpha, reconstruct)
        places = torch.as_tensor(alpha, dtype=torch.float32)
        places = places.expand(3).reshape(3, 1) if places.ndim < 2 else places
        assert found.shape == (3, (places.shape[1] + 2 * reconstruct) * channels, 4, 5)
        for k in range(3):
            earlier, later = pairs[k].chunk(2)
            slices = [by_hand(earlier, earlier, 0.0), by_hand(later, later, 0.0)] if reconstruct else []
            slices += [by_hand(earlier, later, place) for place in places[k]]
            torch.testing.assert_close(found[k], torch.cat(slices))
        assert torch.equal(pairs, rand(3, 2 * channels, 4, 5))
        assert torch.equal(torch.as_tensor(kept), torch.as_tensor(alpha))

    def test_calls(self, alpha, reconstruct, channels):
        """Each slice is encoded once, earlier ones first, and all is decoded at once."""
        network = Toy(channels)
        pairs = rand(3, 2 * channels, 4, 5)
        network(pairs, alpha, reconstruct)
        (encoded,) = network.encoded
        assert torch.equal(encoded, torch.cat([pairs[:, :channels], pairs[:, channels:]]))
        count = alpha.shape[1] if isinstance(alpha, torch.Tensor) and alpha.ndim == 2 else 1
        assert network.decoded == [3 * (count + 2 * reconstruct)] and network.sizes == [(4, 5)]


class TestSynthesize:
    def test_codes(self):
        """From codes alone, in a size of one's own."""
        network = Toy()
        pairs = rand(2, 2, 4, 4)
        codes = network.encode(torch.cat(pairs.chunk(2, dim=1)))
        alpha = rand(2, 3, seed=1)
        found = network.synthesize(codes, alpha, (3, 2), reconstruct=True)
        assert network.sizes == [(3, 2)]
        torch.testing.assert_close(found, Toy()(pairs, alpha, reconstruct=True))

    @pytest.mark.parametrize("alpha", [0.25, torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])])
    def test_own_mixing(self, alpha):
        """A subclass may mix otherwise; nothing is mixed beside."""

        class Nearest(Toy):
            def mix(self, earlier, later, alpha):
                assert all(len(code) == len(alpha) for code in earlier) if isinstance(alpha, torch.Tensor) else True
                return later

        pairs = rand(2, 2, 4, 5)
        found = Nearest()(pairs, alpha, reconstruct=True)
        _, later = found[:, :1], found[:, 1:2]
        count = alpha.shape[1] if isinstance(alpha, torch.Tensor) else 1
        assert torch.equal(found[:, 2:], later.expand(-1, count, -1, -1))
        assert not torch.allclose(found[:, :1], later)

    def test_gradient_of_alpha(self):
        """Places of several slices may be learned: each gradient is that of its own slice."""
        alpha = rand(2, 3, seed=1).requires_grad_()
        pairs = rand(2, 2, 4, 5)
        out = Toy()(pairs, alpha)
        out[1, 2].sum().backward()
        assert alpha.grad[1, 2] != 0
        alpha.grad[1, 2] = 0
        assert (alpha.grad == 0).all()

    @pytest.mark.parametrize("shape", [(3,), (3, 2), (2, 3, 1)])
    def test_alpha_of_another_batch(self, shape):
        with pytest.raises((ValueError, RuntimeError)):
            Toy()(rand(2, 2, 4, 5), rand(*shape), reconstruct=True)

    def test_several_alphas_of_a_single_pair(self):
        """``(T,)`` is one per pair: for one pair it is not several, whose layout would be another."""
        with pytest.raises((ValueError, RuntimeError)):
            Toy()(rand(1, 2, 4, 5), rand(4), reconstruct=True)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("given", [1, 2, 3, 4, 5])
def test_channels_of_a_pair(channels, given):
    network = Toy(channels)
    if given == 2 * channels:
        assert network(rand(1, given, 4, 5)).shape == (1, channels, 4, 5)
        return
    with pytest.raises(
        ValueError, match=rf"needs {2 * channels} channels \(2 x in_channels\), got {given}\."
    ) as caught:
        network(rand(1, given, 4, 5))
    assert network.encoded == [] and "\n" not in str(caught.value)


@pytest.mark.parametrize("reconstruct", [False, True])
@pytest.mark.parametrize(
    ("network_class", "latent_channels"),
    [(ASIAutoencoder, 6), (ResidualASIAutoencoder, 6), (HRINetAutoencoder, (3, 2))],
)
def test_several_alphas_are_single_ones(network_class, latent_channels, reconstruct):
    """Of every network derived, in evaluation mode."""
    torch.manual_seed(0)
    network = network_class(2, (4, 4), latent_channels).eval()
    for parameter in network.parameters():
        parameter.data *= 2  # else what goes in hardly matters before training
    pairs, alpha = rand(3, 4, 11, 6), rand(3, 4, seed=1)
    found = network(pairs, alpha, reconstruct=reconstruct)
    ends = [network(pairs, 0.5, reconstruct=True)[:, :4]] if reconstruct else []
    single = [network(pairs, alpha[:, k]) for k in range(4)]
    torch.testing.assert_close(found, torch.cat([*ends, *single], dim=1))
    assert (single[0] - single[1]).abs().max() > 1e-3
