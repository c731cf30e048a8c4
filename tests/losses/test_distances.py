# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import nn

from monai_sliceinterp.losses import MixedDistance, distances
from tests.engines.helpers import rand


def similarity(first, second, data_range=1.0):
    """Mean structural similarity over a batch of one-channel slices, by scikit-image."""
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": data_range}
    pairs = zip(first.double().numpy(), second.double().numpy(), strict=True)
    return np.mean([structural_similarity(a[0], b[0], **options) for a, b in pairs])


class TestFormulas:
    def test_mse_l1_and_log_rmse(self):
        first, second = rand(3, 2, 8, 9), rand(3, 2, 8, 9, seed=1)
        for name, expected in (("mse", ((first - second) ** 2).mean()), ("l1", abs(first - second).mean())):
            assert MixedDistance(name)(first, second).item() == pytest.approx(expected.item(), rel=1e-5)
        each = ((first - second) ** 2).flatten(1).mean(dim=1).sqrt().log()
        assert MixedDistance("log_rmse")(first, second).item() == pytest.approx(each.mean().item(), rel=1e-4)
        assert MixedDistance()(first, second) == MixedDistance("mse")(first, second)

    @pytest.mark.parametrize("data_range", [1.0, 3.0])
    def test_ssim(self, data_range):
        first = rand(3, 1, 20, 24)
        second = (first + 0.2 * rand(3, 1, 20, 24, seed=1)).clamp(0, 1)
        expected = 1 - similarity(first, second, data_range)
        assert 0.01 < expected < 0.9
        found = MixedDistance("ssim", data_range=data_range)(first, second).item()
        assert found == pytest.approx(expected, abs=1e-4)

    def test_volumes(self):
        first, second = rand(1, 1, 14, 14, 14), rand(1, 1, 14, 14, 14, seed=1)
        distance = MixedDistance({"mse": 1.0, "ssim": 1.0}, spatial_dims=3)
        assert distance(first, first).item() == pytest.approx(0, abs=1e-6)
        assert distance(first, second).item() > 0.5

    def test_weights(self):
        first, second = rand(2, 1, 16, 16), rand(2, 1, 16, 16, seed=1)
        parts = {name: MixedDistance(name)(first, second).item() for name in ("mse", "l1", "ssim")}
        weights = {"mse": 0.5, "l1": 3, "ssim": 0.02}
        found = MixedDistance(weights)(first, second).item()
        assert found == pytest.approx(sum(weights[name] * parts[name] for name in parts), rel=1e-5)
        assert len({round(part, 6) for part in parts.values()}) == 3

    def test_zero_weight_is_not_computed(self):
        distance = MixedDistance({"mse": 2.0, "ssim": 0, "lpips": 0.0})
        assert list(distance.terms) == ["mse"] and distance.weights == {"mse": 2.0}
        small = rand(1, 1, 4, 4), rand(1, 1, 4, 4, seed=1)  # smaller than SSIM's window
        assert MixedDistance({})(*small).item() == 0
        assert distance(*small).item() == pytest.approx(2 * ((small[0] - small[1]) ** 2).mean().item(), rel=1e-5)


class FakePerceptual(nn.Module):
    """Substitute for MONAI's loss that records its arguments."""

    def __init__(self, spatial_dims, **kwargs):
        super().__init__()
        self.options = {"spatial_dims": spatial_dims, **kwargs}
        self.seen = []

    def forward(self, image, target):
        self.seen.append((image, target))
        return (image - target).abs().mean()


class TestPerceptual:
    @pytest.mark.parametrize("data_range", [1.0, 255.0])
    def test_input_is_mapped(self, monkeypatch, data_range):
        monkeypatch.setattr(distances, "PerceptualLoss", FakePerceptual)
        distance = MixedDistance({"lpips": 0.05, "mse": 1.0}, data_range=data_range)
        image, target = data_range * rand(2, 1, 8, 8), data_range * rand(2, 1, 8, 8, seed=1)
        image[0, 0, 0, :2] = torch.tensor([0.0, data_range])
        found = distance(image, target).item()
        fake = distance.terms["lpips"]
        assert fake.options == {"spatial_dims": 2, "network_type": "vgg", "is_fake_3d": False}
        ((seen, other),) = fake.seen
        assert (seen.min(), seen.max()) == (-1, 1)
        torch.testing.assert_close((seen + 1) / 2 * data_range, image)
        torch.testing.assert_close((other + 1) / 2 * data_range, target)
        expected = 0.05 * 2 * abs(image - target).mean() / data_range + ((image - target) ** 2).mean()
        assert found == pytest.approx(expected.item(), rel=1e-5)

    def test_volumes_are_compared_slice_by_slice(self, monkeypatch):
        monkeypatch.setattr(distances, "PerceptualLoss", FakePerceptual)
        distance = MixedDistance("lpips", spatial_dims=3)
        assert distance.terms["lpips"].options["is_fake_3d"] is True

    @pytest.mark.parametrize(
        "error",
        [
            ImportError("required package `lpips` is not installed"),
            RuntimeError("operator torchvision::nms does not exist"),
            OSError("<urlopen error>"),
        ],
    )
    def test_unavailable(self, monkeypatch, error):
        def fail(*args, **kwargs):
            raise error

        monkeypatch.setattr(distances, "PerceptualLoss", fail)
        with pytest.raises(ImportError) as caught:
            MixedDistance({"mse": 1.0, "lpips": 0.1})
        message = str(caught.value)
        assert 'pip install "monai_sliceinterp[perceptual]"' in message and str(error) in message
        assert "\n" not in message and caught.value.__cause__ is error


class TestErrors:
    @pytest.mark.parametrize("weights", ["huber", {"mse": 1.0, "huber": 0.1}, ""])
    def test_unknown_name(self, weights):
        with pytest.raises(
            ValueError, match="unknown distance .*; expected one of mse, l1, log_rmse, ssim, lpips"
        ) as caught:
            MixedDistance(weights)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("weight", [-0.1, float("nan")])
    def test_bad_weight(self, weight):
        with pytest.raises(
            ValueError, match=f"the weight of distance 'l1' must be zero or a positive number, got {weight}"
        ):
            MixedDistance({"mse": 1.0, "l1": weight})

    def test_shapes(self):
        with pytest.raises(ValueError, match=r"\(2, 1, 8, 8\) and \(2, 1, 8, 9\)"):
            MixedDistance("mse")(rand(2, 1, 8, 8), rand(2, 1, 8, 9))
        with pytest.raises(ValueError, match="differ in shape"):  # would broadcast
            MixedDistance("mse")(rand(2, 1, 8, 8), rand(1, 1, 8, 8))
