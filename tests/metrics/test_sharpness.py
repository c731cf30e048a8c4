# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Sharpness of slices relative to the true ones."""

from __future__ import annotations

import math

import pytest
import torch

from monai_sliceinterp.metrics import gradient_magnitude, relative_sharpness


def noise(seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 1, 20, 17, generator=torch.Generator().manual_seed(seed))


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
