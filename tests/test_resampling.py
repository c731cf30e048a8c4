# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from scipy import ndimage
from scipy.interpolate import CubicSpline

from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.resampling import (
    FWHM_PER_SIGMA,
    INTERPOLATION_MODES,
    SLAB_PROFILES,
    apply_to_slices,
    apply_weights,
    interpolation_weights,
    slab_weights,
)

SCIPY = {"linear": {"order": 1, "mode": "nearest"}, "cubic": {"order": 3, "mode": "mirror"}}
some = settings(max_examples=40, deadline=None, derandomize=True)


def lanczos(x):
    return 3 * np.sin(np.pi * x) * np.sin(np.pi * x / 3) / (np.pi * x) ** 2


class TestInterpolation:
    @pytest.mark.parametrize("num_slices", [2, 3, 4, 7, 30, 100])
    @pytest.mark.parametrize("mode", SCIPY)
    def test_equals_scipy(self, mode, num_slices):
        rng = np.random.default_rng(num_slices)
        slices = rng.normal(size=num_slices)
        positions = np.r_[0, num_slices - 1, rng.uniform(0, num_slices - 1, 50), np.arange(num_slices)]
        expected = ndimage.map_coordinates(slices, positions[None], **SCIPY[mode])
        found = slices @ interpolation_weights(num_slices, positions, mode)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)

    @pytest.mark.parametrize(("num_slices", "position"), [(10, 4.3), (6, 0.4), (6, 1.5), (6, 4.8)])
    def test_lanczos_by_hand(self, num_slices, position):
        """Of six taps, those beyond the ends go to the first and the last slice."""
        taps = {n: lanczos(n - position) for n in range(-3, num_slices + 3) if abs(n - position) < 3}
        expected = np.zeros(num_slices)
        for n, weight in taps.items():
            expected[min(max(n, 0), num_slices - 1)] += weight / sum(taps.values())
        found = interpolation_weights(num_slices, [position], "lanczos")[:, 0]
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        assert (found[expected == 0] == 0).all()

    @given(st.integers(2, 60), st.sampled_from(INTERPOLATION_MODES))
    @some
    def test_integer_positions_reproduce_slices(self, num_slices, mode):
        weights = interpolation_weights(num_slices, np.arange(num_slices), mode)
        np.testing.assert_allclose(weights, np.eye(num_slices), rtol=0, atol=1e-8)

    def test_errors(self):
        for function in (interpolation_weights, lambda *arguments: slab_weights(*arguments, fwhm=1.0)):
            for positions in ([-0.01], [0, 4.01], [np.nan], [5]):
                with pytest.raises(ValueError, match=r"within \[0, 4\]"):
                    function(5, positions)
        with pytest.raises(ValueError, match="'nearest'; expected one of linear, cubic, lanczos"):
            interpolation_weights(5, [1], "nearest")


class TestSlab:
    @pytest.mark.parametrize("num_slices", [1, 2, 9, 40])
    @pytest.mark.parametrize("fwhm", [0.3, 1.0, 4.0, 11.0])
    @pytest.mark.parametrize("truncated", [4.0, 2.5])
    def test_equals_dense_convolution(self, num_slices, fwhm, truncated):
        slices = np.random.default_rng(0).normal(size=num_slices)
        sigma = fwhm / (2 * np.sqrt(2 * np.log(2)))
        radius = int(np.ceil(truncated * sigma))
        expected = ndimage.gaussian_filter1d(slices, sigma, mode="nearest", radius=radius)
        found = slices @ slab_weights(num_slices, np.arange(num_slices), fwhm, truncated)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)

    def test_width_is_the_full_width_at_half_maximum(self):
        weights = slab_weights(41, [20.0], fwhm=8.0)[:, 0]
        assert weights.argmax() == 20
        np.testing.assert_allclose(weights[[16, 24]], weights[20] / 2, rtol=1e-12)
        assert pytest.approx(2.354820045) == FWHM_PER_SIGMA

    @given(st.integers(1, 50), st.floats(0, 20), st.lists(st.floats(0, 1), min_size=1, max_size=10))
    @some
    def test_constant_between_slices_too(self, num_slices, fwhm, fractions):
        weights = slab_weights(num_slices, np.array(fractions) * (num_slices - 1), fwhm)
        np.testing.assert_allclose(weights.sum(0), 1, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("profile", SLAB_PROFILES)
    @pytest.mark.parametrize("fwhm", [0.0, 0.3, 1.0, 3.3, 4.0])
    def test_center_of_mass_between_slices(self, fwhm, profile):
        positions = np.array([12.0, 14.25, 15.5])
        found = np.arange(30) @ slab_weights(30, positions, fwhm, profile=profile)
        np.testing.assert_allclose(found, positions, rtol=0, atol=1e-3)
        assert (slab_weights(30, np.arange(30), fwhm, profile=profile) >= 0).all()

    def test_box_is_the_mean_of_thin_slices(self):
        for width, expected in ((3, [0, 0, 0, 1 / 3, 1 / 3]), (4, [0, 0, 0.125, 0.25, 0.25])):
            weights = slab_weights(9, [4.0], float(width), profile="box")[:, 0]
            np.testing.assert_allclose(weights, [*expected, *expected[-2::-1]], atol=1e-12)

    @pytest.mark.parametrize(
        ("profile", "fwhm"),
        [("box", 0.2), ("box", 1.0), *(("gaussian", fwhm) for fwhm in (0.0, 1e-300, 1e-3, 0.02, 0.04))],
    )
    def test_thin_slab_is_the_slice(self, profile, fwhm):
        np.testing.assert_array_equal(slab_weights(5, np.arange(5), fwhm, profile=profile), np.eye(5))

    @pytest.mark.parametrize("fwhm", [0.0, 1e-3])
    def test_narrow_slab_between_slices_is_the_spline(self, fwhm):
        places = [0.2, 1.7, 2.5]
        np.testing.assert_allclose(slab_weights(6, places, fwhm), interpolation_weights(6, places, "cubic"), atol=1e-9)

    def test_errors(self):
        for fwhm in (-1.0, float("nan"), float("inf")):
            with pytest.raises(ValueError, match=f"got {fwhm!r}"):
                slab_weights(5, [1], fwhm)
        with pytest.raises(ValueError, match="unknown slab profile 'triangle'; expected one of gaussian, box"):
            slab_weights(5, [1], 1.0, profile="triangle")


class TestApply:
    @pytest.mark.parametrize("factor", [1, 3, 8])
    @pytest.mark.parametrize("mode", INTERPOLATION_MODES)
    def test_equals_dense_product(self, mode, factor):
        grid = OutputGrid.from_factor(45, factor)
        weights = interpolation_weights(45, grid.positions, mode)
        volume = torch.rand(2, 3, 4, 45, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        found = apply_weights(volume, weights)
        assert found.shape == (2, 3, 4, len(grid))
        np.testing.assert_allclose(found, volume.numpy() @ weights, rtol=0, atol=1e-12)

    def test_any_matrix(self):
        rng = np.random.default_rng(0)
        weights = rng.normal(size=(50, 130)) * (rng.random((50, 130)) < 0.1)
        weights[:, 64:96] = 0  # a whole block of zeros
        volume = rng.normal(size=(3, 50))
        found = apply_weights(torch.tensor(volume), weights)
        np.testing.assert_allclose(found, volume @ weights, rtol=0, atol=1e-12)

    def test_slices_off_the_band_are_not_read(self):
        volume = torch.full((1, 200), float("nan"))
        volume[:, 90:120] = 1.0
        found = apply_weights(volume, interpolation_weights(200, [100.5, 101.5], "lanczos"))
        np.testing.assert_allclose(found, [[1, 1]], rtol=1e-6)

    @pytest.mark.parametrize(
        ("dtype", "expected"),
        [
            *((dtype, dtype) for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)),
            *((dtype, torch.float32) for dtype in (torch.uint8, torch.int16, torch.int32)),
        ],
    )
    def test_type(self, dtype, expected):
        volume = torch.arange(8, dtype=dtype).reshape(2, 4)
        found = apply_weights(volume, interpolation_weights(4, [0.5, 2.25], "linear"))
        assert found.dtype == expected and found.device == volume.device
        assert found.tolist() == [[0.5, 2.25], [4.5, 6.25]]
        half = apply_weights(volume > 0, interpolation_weights(4, [0.5], "linear"))
        assert half.dtype == torch.float32 and half.tolist() == [[0.5], [1.0]]

    def test_gradient(self):
        volume = torch.rand(2, 6, dtype=torch.float64, requires_grad=True)
        weights = interpolation_weights(6, [0.5, 3.2, 4.9], "cubic")
        apply_weights(volume, weights).sum().backward()
        np.testing.assert_allclose(volume.grad, np.broadcast_to(weights.sum(1), (2, 6)), atol=1e-12)

    def test_metatensor(self):
        volume = MetaTensor(torch.rand(1, 3, 3, 4), affine=torch.diag(torch.tensor([1.0, 1.0, 5.0, 1.0])))
        for positions in ([0, 1.5], []):
            weights = interpolation_weights(4, positions)
            found = apply_weights(volume, weights).as_tensor()
            assert found.shape == (1, 3, 3, len(positions)) and found.dtype == torch.float32
            assert torch.equal(found, apply_weights(volume.as_tensor(), weights))

    @pytest.mark.parametrize("shape", [(3, 4), (5,), (0, 2)])
    def test_errors(self, shape):
        with pytest.raises(ValueError, match="do not fit a volume with 5 slices") as caught:
            apply_weights(torch.rand(2, 5), np.ones(shape))
        assert "\n" not in str(caught.value)


class TestUnevenSlices:
    @pytest.mark.parametrize("num_slices", [2, 3, 4, 25])
    def test_natural_spline(self, num_slices):
        rng = np.random.default_rng(num_slices)
        slices = np.cumsum(rng.uniform(0.3, 3.0, num_slices))
        positions = np.sort(rng.uniform(0, num_slices - 1, 40))
        weights = interpolation_weights(num_slices, positions, "cubic", slices)
        places = np.interp(positions, np.arange(num_slices), slices)
        expected = CubicSpline(slices, np.eye(num_slices), bc_type="natural")(places).T
        np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-7)
        np.testing.assert_allclose(weights.sum(axis=0), 1, rtol=0, atol=1e-12)
        np.testing.assert_allclose(slices @ weights, places, rtol=0, atol=1e-6)

    def test_far_slices_are_not_read(self):
        weights = interpolation_weights(200, [100.5], "cubic", np.cumsum(np.tile([1.0, 2.0], 100)))
        assert 10 < (weights != 0).sum() < 60

    def test_linear_needs_no_positions(self):
        positions = [0, 0.3, 1.25, 2]
        uneven = interpolation_weights(3, positions, "linear", [0, 1, 5])
        np.testing.assert_array_equal(uneven, interpolation_weights(3, positions, "linear"))

    def test_refused(self):
        with pytest.raises(ValueError, match="'lanczos' needs evenly spaced slices.*expected linear or cubic"):
            interpolation_weights(3, [0.5], "lanczos", [0, 1, 5])
        with pytest.raises(ValueError, match="unknown interpolation mode"):
            interpolation_weights(3, [0.5], "nearest", [0, 1, 5])


class TestApplyToSlices:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16])
    @pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
    def test_any_order_in_memory(self, dtype, order):
        """Not a bit differs from the product with a contiguous volume."""
        stack = (torch.randn(40, 7, 5, generator=torch.Generator().manual_seed(0)) * 100).to(dtype)
        weights = interpolation_weights(40, np.linspace(3.1, 22.9, 50), "cubic")
        inverse = [order.index(k) for k in range(3)]
        laid_out = stack.permute(order).contiguous().permute(inverse)
        found = apply_to_slices(laid_out, weights)
        assert torch.equal(found, apply_weights(stack.movedim(0, -1), weights).movedim(-1, 0))
        assert found.shape == (50, 7, 5)

    def test_only_slices_with_a_weight_are_read(self):
        stack = torch.full((9, 2), float("nan"))
        stack[3:5] = 6.0
        assert apply_to_slices(stack, interpolation_weights(9, [3.25, 3.5], "linear")).tolist() == [[6, 6], [6, 6]]

    def test_no_weights(self):
        assert apply_to_slices(torch.ones(3, 4), np.zeros((3, 2))).tolist() == torch.zeros(2, 4).tolist()
        assert apply_to_slices(torch.ones(3, 4), np.zeros((3, 0))).shape == (0, 4)
        with pytest.raises(ValueError, match="do not fit a volume with 3 slices"):
            apply_to_slices(torch.ones(3, 4), np.ones((4, 2)))
