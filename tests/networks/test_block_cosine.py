# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch

from monai_sliceinterp.networks.blocks import BlockCosineShortcut, block_cosine_basis


@pytest.mark.parametrize(("size", "count"), [(1, 1), (2, 4), (5, 25), (16, 16)])
def test_basis_is_orthonormal(size, count):
    vectors = block_cosine_basis(size, count).reshape(count, -1)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(count), atol=1e-12)


def test_basis_in_closed_form():
    size, places = 6, np.arange(6)
    basis = block_cosine_basis(size, 36)
    constant = np.full(size, size**-0.5)
    first, second = (np.sqrt(2 / size) * np.cos(np.pi * k * (2 * places + 1) / (2 * size)) for k in (1, 2))
    pairs = ((constant, constant), (constant, first), (first, constant), (first, first), (constant, second))
    np.testing.assert_allclose(basis[:5], [np.outer(*pair) for pair in pairs], atol=1e-12)


@pytest.mark.parametrize("count", [0, 10])
def test_wrong_counts(count):
    with pytest.raises(ValueError, match=f"3 x 3 pixels has 1 to 9 frequencies, got count={count}"):
        block_cosine_basis(3, count)


@pytest.mark.parametrize("in_channels", [1, 2, 3])
@torch.no_grad()
def test_all_frequencies_reconstruct(in_channels):
    shortcut = BlockCosineShortcut(in_channels, size=4, count=16 * in_channels)
    image = torch.rand(2, in_channels, 8, 12)
    torch.testing.assert_close(shortcut.decode(shortcut.encode(image)), image)


@torch.no_grad()
def test_channels_share_the_code_in_turns():
    shortcut = BlockCosineShortcut(2, size=4, count=3)
    image = torch.zeros(1, 2, 4, 4)
    image[:, 1] = 1.0
    # sums over a block of 16 pixels, over its side for an orthonormal basis, and half of that
    torch.testing.assert_close(shortcut.encode(image).flatten(), torch.tensor([0.0, 2.0, 0.0]))
    image[:, 0] = torch.arange(4.0)
    assert shortcut.encode(image).flatten()[2] != 0


@torch.no_grad()
def test_codes_of_a_constant_do_not_grow_with_the_block_as_sums_do():
    for size in (4, 16):
        code = BlockCosineShortcut(1, size, 2).encode(torch.ones(1, 1, size, size)).flatten()
        torch.testing.assert_close(code, torch.tensor([size**0.5, 0.0]), atol=1e-5, rtol=0)


def test_gradients_reach_all_weights():
    shortcut = BlockCosineShortcut(1, size=2, count=2)
    shortcut.decode(shortcut.encode(torch.rand(1, 1, 4, 4))).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in shortcut.parameters())
