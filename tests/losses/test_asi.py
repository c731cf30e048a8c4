# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from monai_sliceinterp.losses import ASILoss, MixedDistance


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mse(first, second):
    return ((first - second) ** 2).mean()


class TestEquation3:
    @pytest.mark.parametrize("channels", [1, 2])
    @pytest.mark.parametrize(("weight", "reconstruction"), [(1.0, 1.0), (0.05, 1.0), (3.0, 0.5), (2.0, 0.0)])
    def test_by_hand(self, channels, weight, reconstruction):
        pred, target = rand(4, 3 * channels, 8, 9), rand(4, 3 * channels, 8, 9, seed=1)
        ends = slice(0, 2 * channels)  # both slices of the pair
        between = slice(2 * channels, 3 * channels)
        expected = reconstruction * mse(pred[:, ends], target[:, ends]) + weight * mse(
            pred[:, between], target[:, between]
        )
        loss = ASILoss(synthesis_weight=weight, reconstruction_weight=reconstruction)
        assert loss(pred, target).item() == pytest.approx(expected.item(), rel=1e-9)

    @pytest.mark.parametrize("data_range", [1.0, 4.0])
    def test_which_distance_where(self, data_range):
        """Each on its own slices, one channel at a time."""
        pred, target = rand(2, 6, 16, 16).float(), rand(2, 6, 16, 16, seed=1).float()
        distances = {"reconstruction": "ssim", "synthesis": {"l1": 1.0, "ssim": 0.2}}
        loss = ASILoss(**distances, synthesis_weight=0.3, data_range=data_range)
        first, second = (MixedDistance(distance, data_range=data_range) for distance in distances.values())
        recon, synth = first(pred[:, :4], target[:, :4]), second(pred[:, 4:], target[:, 4:])
        assert loss(pred, target).item() == pytest.approx((recon + 0.3 * synth).item(), rel=1e-5)

    @pytest.mark.parametrize("channels", [1, 2])
    def test_without_synthesis(self, channels):
        """Lambda zero: the synthesized slice does not matter at all."""
        loss = ASILoss(synthesis="lpips", synthesis_weight=0)  # and what it would need is not loaded
        pred, target = rand(2, 3 * channels, 8, 8).requires_grad_(), rand(2, 3 * channels, 8, 8, seed=1)
        value = loss(pred, target)
        value.backward()
        assert value.item() == pytest.approx(mse(pred[:, : 2 * channels], target[:, : 2 * channels]).item())
        assert (pred.grad[:, 2 * channels :] == 0).all() and (pred.grad[:, : 2 * channels] != 0).all()
        target[:, 2 * channels :] = float("nan")
        assert loss(pred, target).item() == value.item()


class TestErrors:
    @pytest.mark.parametrize("channels", [1, 2, 4])
    def test_channels(self, channels):
        with pytest.raises(ValueError, match=f"two slices and the one between, got {channels}"):
            ASILoss()(rand(2, channels, 8, 8), rand(2, channels, 8, 8))

    def test_shapes(self):
        with pytest.raises(ValueError, match="differ in shape"):
            ASILoss()(rand(2, 3, 8, 8), rand(2, 3, 8, 7))

    @pytest.mark.parametrize("weight", [-1.0, float("nan")])
    @pytest.mark.parametrize("name", ["synthesis_weight", "reconstruction_weight"])
    def test_weights(self, name, weight):
        with pytest.raises(ValueError, match=f"{name} must be zero or a positive number, got {weight}"):
            ASILoss(**{name: weight})

    @pytest.mark.parametrize("which", ["reconstruction", "synthesis"])
    def test_unknown_distance(self, which):
        with pytest.raises(ValueError, match="unknown distance 'vgg'"):
            ASILoss(**{which: "vgg"})
