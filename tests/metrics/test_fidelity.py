# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage
from torchmetrics.functional.image import visual_information_fidelity as vif_by_torchmetrics

from monai_sliceinterp.metrics import VIFMetric, visual_information_fidelity


def by_torchmetrics(pred, truth):
    """Of images in [0, 1], in float64."""
    return vif_by_torchmetrics(255 * pred.double(), 255 * truth.double()).item()


def scene(height, width, seed=0):
    """Smooth structure in [0, 1], with a black region, a white one and a faint texture, as scans have them."""
    draw = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(draw.normal(size=(height, width)), 2)
    image = (image - image.min()) / np.ptp(image)
    image[: height // 4] = 0
    image[:, : width // 5] = 1
    image[-height // 5 :] = 0.5 + 0.01 * draw.normal(size=image[-height // 5 :].shape)
    return image


def degraded(image, kind):
    draw = np.random.default_rng(9)
    if kind == "noise":
        return np.clip(image + 0.03 * draw.normal(size=image.shape), 0, 1)
    if kind == "blur":
        return ndimage.gaussian_filter(image, 1.2)
    if kind == "contrast":
        return np.clip(0.5 + 1.4 * (image - 0.5), 0, 1)
    if kind == "inverted":
        return 1 - image
    return np.roll(image, 1, axis=1)


KINDS = ["noise", "blur", "contrast", "inverted", "shift"]


def as_images(*images):
    return torch.stack([torch.as_tensor(image) for image in images])[:, None]


class TestAgainstOthers:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("shape", [(41, 41), (64, 47), (45, 90)])
    def test_float64(self, shape, kind):
        truth = scene(*shape)
        pair = as_images(degraded(truth, kind)), as_images(truth)
        found = visual_information_fidelity(*pair)
        assert found.shape == (1, 1) and found.dtype == torch.float64
        assert found.item() == pytest.approx(by_torchmetrics(*pair), abs=1e-9)

    @pytest.mark.parametrize("kind", KINDS)
    def test_float32_images(self, kind):
        """Volumes are float32, in any range; to 1e-4 of float64 all the same."""
        truth = scene(60, 52)
        pair = as_images(degraded(truth, kind)), as_images(truth)
        for data_range in (1.0, 4000.0):
            rounded = [(data_range * images).float() for images in pair]
            found = visual_information_fidelity(*rounded, data_range)
            assert found.dtype == torch.float64 and found.item() == pytest.approx(by_torchmetrics(*pair), abs=1e-4)
            # the rest is the rounding of the images themselves
            expected = by_torchmetrics(*(images.double() / data_range for images in rounded))
            assert found.item() == pytest.approx(expected, abs=1e-9)

    def test_each_image_and_channel_on_its_own(self):
        """More images than are computed at once, with channels."""
        truth = torch.as_tensor(np.stack([scene(41, 43, seed) for seed in range(18)]).reshape(9, 2, 41, 43))
        amount = torch.linspace(0.01, 0.3, 18, dtype=torch.float64).reshape(9, 2, 1, 1)
        pred = truth + amount * torch.rand(truth.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        found = visual_information_fidelity(pred, truth)
        pairs = zip(pred.flatten(0, 1)[:, None, None], truth.flatten(0, 1)[:, None, None], strict=True)
        np.testing.assert_allclose(found.flatten(), [by_torchmetrics(*pair) for pair in pairs], atol=1e-9)


class TestMeaning:
    def test_all_or_nothing_left(self):
        truth = as_images(scene(48, 48))
        for pred, expected in ((truth, 1), (1 - truth, 0), (torch.full_like(truth, 0.4), 0)):
            assert visual_information_fidelity(pred, truth).item() == pytest.approx(expected, abs=1e-9)


class TestConstantTruth:
    @pytest.mark.parametrize("value", [0.0, 0.1, 0.7, 1.0])
    def test_no_information(self, value):
        """There is nothing to keep: no value, whatever the image, and no infinite one."""
        truth = torch.full((1, 1, 41, 45), value)
        for pred in (truth, as_images(scene(41, 45)).float(), torch.zeros_like(truth)):
            assert visual_information_fidelity(pred, truth).isnan().all()

    @pytest.mark.parametrize("data_range", [1.0, 4000.0])
    def test_rounding_is_no_information(self, data_range):
        noise = torch.rand(1, 1, 41, 41, generator=torch.Generator().manual_seed(0))
        for amount, empty in ((5e-7, True), (1e-4, False)):
            truth = data_range * (0.5 + amount * noise.double())
            assert visual_information_fidelity(0 * truth, truth, data_range).isnan().item() is empty

    def test_a_corner_that_no_window_sees_is_no_information(self):
        truth = torch.full((1, 1, 41, 41), 0.5, dtype=torch.float64)
        truth[..., 0, 0] += 2e-6
        assert visual_information_fidelity(0 * truth, truth).isnan().all()

    def test_others_keep_theirs(self):
        truth = as_images(scene(41, 41), np.full((41, 41), 0.7), scene(41, 41, 2))
        pred = as_images(*(degraded(image, "blur") for image in truth[:, 0].numpy()))
        found = visual_information_fidelity(pred, truth)
        assert found[1].isnan() and found[0].isfinite() and found[2].isfinite()
        alone = visual_information_fidelity(pred[[0, 2]], truth[[0, 2]])
        torch.testing.assert_close(found[[0, 2]], alone)


class TestErrors:
    @pytest.mark.parametrize("shape", [(1, 1, 40, 60), (1, 1, 60, 40)])
    def test_small(self, shape):
        with pytest.raises(ValueError, match=r"at least 41 x 41 pixels, got \(\d+, \d+\)"):
            visual_information_fidelity(torch.zeros(shape), torch.zeros(shape))

    @pytest.mark.parametrize(
        "shapes", [((2, 1, 41, 41), (1, 1, 41, 41)), ((1, 1, 41, 41), (1, 1, 41, 42)), ((41, 41), (41, 41))]
    )
    def test_shapes(self, shapes):
        with pytest.raises(ValueError, match=r"images \(K, C, H, W\) of one shape, got \("):
            visual_information_fidelity(*map(torch.zeros, shapes))

    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_not_finite(self, value):
        good = as_images(scene(41, 41))
        bad = good.clone()
        bad[0, 0, 3, 4] = value
        with pytest.raises(ValueError, match="not defined for images with NaN or infinite"):
            visual_information_fidelity(bad, good)
        with pytest.raises(ValueError, match="not defined for references with NaN or infinite"):
            visual_information_fidelity(good, bad)


class TestMetric:
    def test_mean_of_images_with_a_value(self):
        truth = as_images(scene(41, 41), np.full((41, 41), 0.7), scene(41, 41, 2)).float()
        pred = truth + 0.05 * torch.rand(truth.shape, generator=torch.Generator().manual_seed(0))
        values = visual_information_fidelity(pred, truth)
        metric = VIFMetric()
        assert torch.equal(metric(pred[:2], truth[:2]).isnan(), torch.tensor([[False], [True]]))
        metric([pred[2]], [truth[2]])  # decollated
        assert metric.aggregate().item() == pytest.approx((values[0] + values[2]).item() / 2, abs=1e-6)
        metric.reset()
        metric(pred[1:2], truth[1:2])
        assert metric.aggregate().isnan()

    def test_data_range(self):
        truth = MetaTensor(100 * as_images(scene(41, 41)).float())
        pred = 0.5 * truth
        metric = VIFMetric(data_range=100)
        metric(pred, truth)
        expected = visual_information_fidelity(pred, truth, 100)
        assert type(expected) is torch.Tensor
        expected = expected.item()
        assert metric.aggregate().item() == pytest.approx(expected, abs=1e-6)
        assert abs(expected - visual_information_fidelity(pred, truth, 1).item()) > 0.01

    def test_errors(self):
        with pytest.raises(ValueError, match="nothing has been scored yet"):
            VIFMetric().aggregate()
        with pytest.raises(ValueError, match="VIF needs references"):
            VIFMetric()(torch.zeros(1, 1, 41, 41))
