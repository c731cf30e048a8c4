# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Optical flow between slices: known motion, scikit-image's TV-L1, symmetry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.registration import optical_flow_tvl1

from monai_sliceinterp.optical_flow import gap_motion, motion_compensated, symmetric_flow, warp_confidence, warp_images


def texture(seed=0, size=(96, 80)):
    """Smooth image of unit contrast."""
    image = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=size), 4.0)
    return (image - image.min()) / (image.max() - image.min())


def field(size=(96, 80), length=3.0):
    """Smooth displacement ``(2, H, W)`` of up to ``length`` pixels."""
    rows, columns = np.meshgrid(*(np.linspace(0, np.pi, n) for n in size), indexing="ij")
    return length * np.stack([np.sin(rows) * np.sin(columns), -np.sin(rows) * np.cos(columns)])


def displaced(image, flow):
    places = np.stack(np.meshgrid(*(range(n) for n in image.shape), indexing="ij")) + flow
    return ndimage.map_coordinates(image, places, order=3, mode="nearest")


def batch(*images):
    return torch.tensor(np.stack(images), dtype=torch.float32)[:, None]


class TestWarp:
    @pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
    def test_whole_pixels(self, mode):
        image = torch.rand(2, 1, 9, 7, generator=torch.Generator().manual_seed(0))
        flow = torch.zeros(2, 2, 9, 7)
        flow[:, 0], flow[:, 1] = 2.0, -1.0
        found = warp_images(image, flow, mode)
        torch.testing.assert_close(found[:, :, :7, 1:], image[:, :, 2:, :-1], rtol=0, atol=1e-5)
        torch.testing.assert_close(found[:, :, 7:, 1:], image[:, :, -1:, :-1].expand(-1, -1, 2, -1), rtol=0, atol=1e-5)

    def test_equals_scipy(self):
        image, flow = texture(), field()
        found = warp_images(batch(image), torch.tensor(flow[None], dtype=torch.float32))[0, 0].numpy()
        places = np.stack(np.meshgrid(*(range(n) for n in image.shape), indexing="ij")) + flow
        expected = ndimage.map_coordinates(image, places, order=1, mode="nearest")
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


class TestFlow:
    def test_finds_a_known_motion_as_scikit_image_does(self):
        """``earlier(x - u / 2) = later(x + u / 2)`` of one middle image; inside, errors are far below the motion."""
        true, middle = field(), texture()
        # displaced by half of the way to either side
        pair = [displaced(middle, sign * true / 2) for sign in (1, -1)]
        found = symmetric_flow(batch(pair[0]), batch(pair[1]), attachment=15.0)[0].numpy()
        forth, back = optical_flow_tvl1(pair[0], pair[1]), optical_flow_tvl1(pair[1], pair[0])
        inside = np.s_[:, 12:-12, 12:-12]
        error = np.abs(found - true)[inside].mean()
        reference = np.abs((forth - back) / 2 - true)[inside].mean()
        assert error < 0.25 < 0.3 * np.abs(true)[inside].mean()
        assert error < 1.2 * reference + 0.05

    def test_exchange_changes_the_sign(self):
        earlier, later = batch(texture(0)), batch(texture(1))
        forth, back = symmetric_flow(earlier, later), symmetric_flow(later, earlier)
        assert forth.abs().max() > 1
        torch.testing.assert_close(forth, -back, rtol=0, atol=1e-4)

    def test_samples_one_by_one(self):
        earlier, later = batch(texture(0), texture(2)), batch(texture(1), texture(3))
        together = symmetric_flow(earlier, later)
        for k in range(2):
            alone = symmetric_flow(earlier[k, None], later[k, None])
            torch.testing.assert_close(together[k, None], alone, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("size", [(1, 1), (2, 9), (15, 3), (33, 31)])
    def test_small_images(self, size):
        pair = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0))
        flow, confidence = gap_motion(pair[:1], pair[1:])
        assert flow.shape == (1, 2, *size) and confidence.shape == (1, 1, *size) and flow.isfinite().all()

    @pytest.mark.parametrize("wrong", [{"attachment": 0}, {"tightness": -1}, {"num_warps": 0}, {"num_iterations": 1.5}])
    def test_wrong_settings(self, wrong):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            symmetric_flow(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), **wrong)


class TestCompensation:
    def test_follows_the_motion(self):
        """A quarter of the way, the slice is the middle one displaced by a quarter: one flow for all positions."""
        true, middle = field(length=4.0), texture()
        pair = [batch(displaced(middle, sign * true / 2)) for sign in (1, -1)]
        flow = torch.tensor(true[None], dtype=torch.float32)
        for fraction in (0.25, 0.5, 0.75):
            found = motion_compensated(*pair, flow, torch.ones(1, 1, 96, 80), torch.tensor([fraction]))
            expected = batch(displaced(middle, (0.5 - fraction) * true))
            linear = torch.lerp(*pair, fraction)
            inside = np.s_[:, :, 8:-8, 8:-8]
            error, without = ((image - expected)[inside].abs().mean() for image in (found, linear))
            assert error < 0.5 * without

    @pytest.mark.parametrize("fraction", [0.0, 1.0])
    def test_ends_are_the_slices(self, fraction):
        earlier, later = batch(texture(0)), batch(texture(1))
        flow, confidence = gap_motion(earlier, later)
        found = motion_compensated(earlier, later, flow, confidence, torch.tensor([fraction]))
        torch.testing.assert_close(found, later if fraction else earlier, rtol=0, atol=1e-5)

    def test_linear_where_nothing_is_gained(self):
        earlier, later = batch(texture(0)), batch(texture(1))
        wrong = torch.full((1, 2, 96, 80), 9.0)
        confidence = warp_confidence(earlier, earlier, wrong)
        assert confidence.max() == 0
        found = motion_compensated(earlier, later, wrong, confidence, torch.tensor([0.3]))
        torch.testing.assert_close(found, torch.lerp(earlier, later, 0.3), rtol=0, atol=1e-6)
