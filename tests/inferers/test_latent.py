# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import weakref

import pytest
import torch
from monai.data import MetaTensor

from monai_sliceinterp.inferers import LatentSliceInferer, SplineSliceInferer
from monai_sliceinterp.networks.nets import ASIAutoencoder, LatentInterpolator

BATCH_SIZES = [1, 2, 3, 7, 0]


class Fake(LatentInterpolator):
    """A network whose codes are the slice and its double, so that mixing codes is linear interpolation."""

    in_channels = 1

    def __init__(self, offset=0.0):
        super().__init__()
        self.offset = offset
        self.encoded, self.alphas, self.batches, self.sizes = [], [], [], []

    def encode(self, image):
        self.encoded.append(image.clone())
        return image.clone(), 2 * image

    def mix(self, earlier, later, alpha):
        self.alphas += alpha.tolist()
        return super().mix(earlier, later, alpha)

    def decode(self, codes, size=None):
        assert torch.equal(2 * codes[0], codes[1])
        self.batches.append(len(codes[0]))
        self.sizes.append(tuple(size))
        return codes[0] + self.offset


def integers(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-1000, 3000, shape, generator=generator).to(dtype)


def linear(volume, positions):
    """Linear interpolation along the last axis, straight from the definition."""
    slices = []
    for position in positions:
        first = min(int(position), volume.shape[-1] - 2)
        alpha = position - first
        slices.append((1 - alpha) * volume[..., first] + alpha * volume[..., first + 1])
    return torch.stack(slices, dim=-1)


class TestLinear:
    """With the slice as its code the result is linear interpolation."""

    @pytest.mark.parametrize("batch_size", BATCH_SIZES)
    @pytest.mark.parametrize("factor", [2, 4])
    @pytest.mark.parametrize("shape", [(1, 1, 8, 8, 11), (2, 3, 5, 7, 4), (1, 2, 1, 3, 2), (1, 1, 9, 2, 3)])
    def test_exact(self, shape, factor, batch_size):
        volume = integers(*shape)  # integers and quarters of them: no rounding
        result = LatentSliceInferer(factor=factor, batch_size=batch_size)(volume, Fake())
        count = factor * (shape[-1] - 1) + 1
        assert torch.equal(result, linear(volume, [k / factor for k in range(count)]))
        assert torch.equal(result, SplineSliceInferer(factor=factor, mode="linear")(volume))

    @pytest.mark.parametrize("keep", [True, False])
    @pytest.mark.parametrize("how", [{"factor": 3}, {"spacing": 1.3}, {"spacing": 2.4}, {}])
    def test_any_position(self, how, keep):
        affine = torch.diag(torch.tensor([0.9, 0.8, 3.6, 1.0], dtype=torch.float64))
        scan = MetaTensor(integers(1, 2, 6, 5, 9, dtype=torch.float64), affine=affine)
        network = Fake()
        result = LatentSliceInferer(**how, batch_size=4, keep_observed=keep)(scan, network)
        target = how.get("spacing", 1.2 if how else 0.8)
        positions = [k * target / 3.6 for k in range(result.shape[-1])]
        assert positions[-1] <= 8 + 1e-9 < 8 + target / 3.6 < positions[-1] + 2 * target / 3.6
        torch.testing.assert_close(result.as_tensor(), linear(scan.as_tensor(), positions), rtol=0, atol=1e-8)
        expected = SplineSliceInferer(**how, mode="linear")(scan)
        torch.testing.assert_close(result.as_tensor(), expected.as_tensor(), rtol=0, atol=1e-8)
        torch.testing.assert_close(result.affine, expected.affine)
        # each synthesized slice had its own alpha, in order
        wanted = [p for p in positions if not keep or abs(p - round(p)) > 1e-9]
        found = torch.tensor(network.alphas).reshape(2, -1)
        assert found.shape[1] == len(wanted)
        fractions = torch.tensor([p - min(int(p + 1e-9), 7) for p in wanted])
        torch.testing.assert_close(found, fractions.expand(2, -1), rtol=0, atol=1e-6)


class TestStreaming:
    @pytest.mark.parametrize("batch_size", BATCH_SIZES)
    @pytest.mark.parametrize("num_slices", [2, 3, 7, 8, 15])
    def test_each_slice_is_encoded_once(self, num_slices, batch_size):
        volume = integers(2, 2, 4, 4, num_slices)
        network = Fake()
        LatentSliceInferer(factor=5, batch_size=batch_size)(volume, network)
        expected = volume.permute(0, 1, 4, 2, 3).reshape(-1, 1, 4, 4)
        assert torch.equal(torch.cat(network.encoded), expected)
        assert sum(network.batches) == 2 * 2 * 4 * (num_slices - 1)
        if batch_size:
            assert max(network.batches) <= batch_size
            assert max(map(len, network.encoded)) <= batch_size
        assert set(network.sizes) == {(4, 4)}

    @pytest.mark.parametrize("num_slices", [2, 5, 7, 8])
    def test_batch_size_does_not_matter(self, num_slices):
        torch.manual_seed(0)
        network = ASIAutoencoder(channels=(4, 5), latent_channels=6).eval()
        volume = torch.rand(1, 1, 13, 10, num_slices)
        results = [LatentSliceInferer(factor=3, batch_size=size)(volume, network) for size in BATCH_SIZES]
        for result in results[1:]:
            torch.testing.assert_close(result, results[0], rtol=0, atol=2e-6)
        pairs = torch.stack([volume[0, 0, :, :, :-1], volume[0, 0, :, :, 1:]]).permute(3, 0, 1, 2)
        for step in (1, 2):  # and is what the network says of each pair
            expected = network(pairs, alpha=step / 3)[:, 0].permute(1, 2, 0)
            torch.testing.assert_close(results[0][0, 0, :, :, step::3], expected, rtol=0, atol=2e-6)

    def test_default_batch_is_bounded(self):
        network = Fake()
        LatentSliceInferer(factor=2)(torch.zeros(1, 1, 512, 512, 6), network)
        assert max(network.batches) == 1
        network = Fake()
        LatentSliceInferer(factor=2)(torch.zeros(1, 1, 16, 16, 6), network)
        assert network.batches == [5]

    @pytest.mark.parametrize("batch_size", [1, 3])
    def test_codes_alive_do_not_grow_with_the_volume(self, batch_size):
        def peak(num_slices):
            references = []

            class Code(torch.Tensor):
                """Codes and everything computed from them report themselves."""

                @classmethod
                def __torch_function__(cls, func, types, args=(), kwargs=None):
                    result = super().__torch_function__(func, types, args, kwargs)
                    if isinstance(result, Code):
                        references.append(weakref.ref(result))
                    return result

            most = 0

            class Network(Fake):
                def encode(self, image):
                    self.look()
                    codes = tuple(code.as_subclass(Code) for code in super().encode(image))
                    references.extend(weakref.ref(code) for code in codes)
                    return codes

                def decode(self, codes, size=None):
                    self.look()
                    return super().decode(codes, size).as_subclass(torch.Tensor)

                def look(self):
                    nonlocal most
                    alive = [reference() for reference in references]
                    most = max(most, sum(len(code) for code in alive if code is not None and code.ndim == 4))

            LatentSliceInferer(factor=2, batch_size=batch_size)(torch.rand(1, 1, 4, 4, num_slices), Network())
            assert len(references) > num_slices
            return most

        few, many = peak(12), peak(120)
        assert few == many <= 16 * (batch_size + 1)


def test_low_precision_codes():
    class Half(Fake):
        def decode(self, codes, size=None):
            return super().decode(codes, size).half()

    volume = integers(1, 1, 4, 4, 3) % 64
    result = LatentSliceInferer(factor=2)(volume, Half())
    assert result.dtype == torch.float32
    assert torch.equal(result, LatentSliceInferer(factor=2)(volume, Fake()))
