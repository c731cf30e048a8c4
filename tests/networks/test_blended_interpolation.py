# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Interpolation along rows: the mean of a linear and a cubic kernel."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_sliceinterp.networks.blocks import blended_interpolation
from tests.networks.helpers import EXACT, blend_by_hand, keys_kernel, rand

POSITIONS = st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1)), min_size=1, max_size=6)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(2, 7), columns=st.integers(1, 3), batch=st.integers(1, 2), positions=POSITIONS)
def test_mean_of_linear_and_cubic(count, columns, batch, positions):
    image = rand(batch, count, columns)
    lower = torch.tensor([min(low, count - 2) for low, _ in positions])
    alpha = torch.tensor([part for _, part in positions], dtype=torch.float64)
    found = blended_interpolation(image, lower, alpha)
    assert found.shape == (batch, len(positions), columns) and found.dtype == image.dtype
    torch.testing.assert_close(found, blend_by_hand(image, lower, alpha), **EXACT)


def test_reference_kernel():
    """The kernel that the test compares with is interpolating, sums to 1 and reproduces parabolas."""
    assert [keys_kernel(x) for x in (-2, -1, 0, 1, 2)] == [0, 0, 1, 0, 0]
    for part in (0.25, 0.37, 0.5):
        weights = [keys_kernel(part - tap) for tap in (-1, 0, 1, 2)]
        assert sum(weights) == pytest.approx(1)
        assert sum(w * tap**2 for w, tap in zip(weights, (-1, 0, 1, 2), strict=True)) == pytest.approx(part**2)


def test_taps():
    """At 1/2: linear (0, 1/2, 1/2, 0) and cubic (-1/16, 9/16, 9/16, -1/16)."""
    weights = blended_interpolation(torch.eye(4)[None], torch.tensor([1]), torch.tensor([0.5]))[0, 0]
    torch.testing.assert_close(weights, torch.tensor([-1, 17, 17, -1]) / 32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_dtype_of_the_image(dtype):
    found = blended_interpolation(rand(1, 4, 2).to(dtype), torch.tensor([1]), torch.tensor([0.3]).double())
    assert found.dtype == dtype
