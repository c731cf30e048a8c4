# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Sharpness of slices relative to the true ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import laplace

from monai_sliceinterp.metrics import flicker, gradient_magnitude, relative_sharpness


def noise(shape: tuple[int, ...] = (2, 1, 20, 17), seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_gradient_of_a_plane() -> None:
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(5.0), indexing="ij")
    assert gradient_magnitude((3 * rows - 4 * columns + 7)[None, None]).item() == pytest.approx(5.0, abs=1e-12)
    assert gradient_magnitude(torch.full((1, 1, 4, 4), 0.3)).item() == 0.0


def test_scale_and_offset() -> None:
    truth = noise()
    assert relative_sharpness(truth, truth).item() == 1.0
    assert relative_sharpness(2 * truth + 5, truth).item() == pytest.approx(2.0, rel=1e-6)
    assert relative_sharpness(truth.flip(-1), truth).item() == pytest.approx(1.0, rel=1e-12)


def test_bright_regions_keep_their_precision() -> None:
    truth = noise() + 1e4
    expected = torch.hypot(*torch.gradient(truth.double(), dim=(-2, -1))).mean()
    assert gradient_magnitude(truth).item() == pytest.approx(expected.item(), rel=1e-12)


def test_constant_truth_has_none() -> None:
    assert math.isnan(relative_sharpness(noise(), torch.ones(2, 1, 20, 17)).item())


def test_too_small() -> None:
    with pytest.raises(ValueError, match="at least 2 x 2 pixels, got \\(1, 5\\)"):
        gradient_magnitude(torch.zeros(1, 1, 1, 5))


class TestFlicker:
    def test_of_linear_interpolation(self):
        """A mean of two slices has the noise of one times the root of a half; the observed ones keep theirs."""
        truth = noise((41, 1, 64, 64))
        pred = truth.clone()
        pred[1::2] = (truth[:-1:2] + truth[2::2]) / 2
        shares = np.ones(41)
        shares[1::2] = np.sqrt(0.5)
        assert flicker(pred, truth).item() == pytest.approx(np.log(shares).std(), rel=0.05)

    def test_against_scipy(self):
        pred, truth = noise((5, 2, 9, 11), seed=1), noise((5, 2, 9, 11), seed=2)
        detail = [[laplace(image)[1:-1, 1:-1] for image in images.flatten(0, 1).numpy()] for images in (pred, truth)]
        shares = [np.sqrt((one**2).mean() / (other**2).mean()) for one, other in zip(*detail, strict=True)]
        assert flicker(pred, truth).item() == pytest.approx(np.log(shares).std(), rel=1e-5)

    def test_none(self):
        """As sharp as the truth, or as blurred in every slice; slices without detail do not count."""
        truth = noise((6, 1, 12, 12))
        truth[2] = 0.5
        assert flicker(truth, truth).item() == 0 and flicker(3 * truth, truth).item() == pytest.approx(0, abs=1e-6)
        assert math.isnan(flicker(truth[2:4], truth[2:4]).item())

    def test_small_slices(self):
        with pytest.raises(ValueError, match="at least 3 x 3 pixels, got \\(2, 9\\)"):
            flicker(torch.zeros(2, 1, 2, 9), torch.zeros(2, 1, 2, 9))
