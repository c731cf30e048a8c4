# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Anisotropic meta interpolation, against SAINT's equations one position at a time."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.networks.nets import AnisotropicMetaInterpolation
from tests.networks.helpers import EXACT, blend_by_hand, check_error, count, rand, trained

SMALL = {"channels": 8, "num_blocks": 1, "num_layers": 2, "growth": 4}
TINY = {**SMALL, "filter_channels": (8, 8)}
SINGLE = {"rtol": 1e-6, "atol": 1e-6}  # for references whose distances are not in float32
KNOWN = {"slice_spacing": 5.0, "in_plane_spacing": 0.8}
BOTH = pytest.mark.parametrize("residual", [True, False])


def build_ami(**kwargs):
    network = trained(AnisotropicMetaInterpolation, **{**TINY, **kwargs})
    nn.init.normal_(network.filter_generation.layers[-1].weight, std=0.05)
    return network


def ami_by_hand(network, image, positions, slice_spacing, in_plane_spacing):
    """AMI at each position: Algorithm 1, the filter, and for every pixel the sum over the taps (eq. 4 to 8)."""
    center, scale, size = network.intensity_center, network.intensity_scale, network.kernel_size
    reach, rows = size // 2, image.shape[2]
    features = F.pad(network.feature_learning((image - center) / scale), (reach, reach, reach, reach))
    results = []
    for position in positions:
        low = min(math.floor(position), rows - 2)
        part = position - low
        if part in (0, 1):
            results.append(image[:, 1, low + int(part)])
            continue
        distances = [
            [math.hypot((i - reach - part) * slice_spacing, (j - reach) * in_plane_spacing) for j in range(size)]
            for i in range(size)
        ]
        taps = network.filter_generation(torch.tensor(distances)[None, None].double())[0, 0]
        value = 0
        for i in range(size):
            for j in range(size):
                # row low of the image is row low + reach of the padded features, the middle tap's
                patch = features[:, :, low + i, j : j + image.shape[3]]
                value = value + (taps[:, i, j, None] * patch).sum(1)
        if network.residual:
            base = blend_by_hand(image[:, 1], torch.tensor([low]), torch.tensor([part], dtype=torch.float64))[:, 0]
        else:
            base = center
        results.append(base + scale * value)
    return torch.stack(results, dim=1)


def one_at_a_time(network, image, grid, slice_spacing, in_plane_spacing):
    places, spacings = zip(grid.lower, grid.alpha, strict=True), (slice_spacing, in_plane_spacing)
    return torch.cat([network.interpolate(image, low[None], part[None], *spacings) for low, part in places], dim=1)


class TestAMI:
    def test_parameter_count(self):
        network = AnisotropicMetaInterpolation()
        assert count(network.filter_generation) == 129_600
        assert count(network) == 2_787_712
        assert count(AnisotropicMetaInterpolation(residual=False, kernel_size=5)) == 2_787_712

    def test_sizes(self):
        network = AnisotropicMetaInterpolation(channels=6, num_blocks=2, num_layers=3, growth=5, filter_channels=(4, 7))
        assert count(network.filter_generation) == (9 * 4 + 4) + (9 * 4 * 7 + 7) + (9 * 7 * 6 + 6)
        block = sum(9 * (6 + 5 * k) * 5 + 5 for k in range(3)) + 21 * 6 + 6
        expected = (9 * 3 * 6 + 6) + (9 * 36 + 6) + 2 * block + (12 * 6 + 6) + (9 * 36 + 6)
        assert count(network.feature_learning) == expected

    @BOTH
    @pytest.mark.parametrize("factor", [1, 2, 3, 4])
    @pytest.mark.parametrize("size", [(2, 1), (2, 6), (3, 7), (5, 4)])
    def test_observed_rows_are_copied(self, residual, factor, size):
        network = build_ami(residual=residual)
        image = rand(2, 3, *size)
        out = network(image, factor, 5.0, 0.7)
        assert out.shape == (2, 1, factor * (size[0] - 1) + 1, size[1]) and out.dtype == image.dtype
        assert torch.equal(out[:, 0, ::factor], image[:, 1])
        single = network.float()(image.float(), factor, 5.0, 0.7)
        assert single.dtype == torch.float32 and torch.equal(single[:, 0, ::factor], image[:, 1].float())
        if factor > 1:
            # what lies between is not a copy
            assert (out[:, 0, 1:2] - image[:, 1, :1]).abs().min() > 0

    @BOTH
    @pytest.mark.parametrize("kernel_size", [1, 3, 5])
    @pytest.mark.parametrize(("rows", "positions"), [(2, [0.37]), (5, [0, 0.25, 0.9, 1, 1.6, 2.5, 3.25, 3.8, 4])])
    def test_by_hand(self, residual, kernel_size, rows, positions):
        network = build_ami(residual=residual, kernel_size=kernel_size, intensity_center=0.4, intensity_scale=0.3)
        image = rand(2, 3, rows, 5)
        grid = OutputGrid(rows, 0.5, tuple(positions))
        found = network.interpolate(image, grid.lower, grid.alpha, 4.3, 0.8)
        expected = ami_by_hand(network, image, positions, 4.3, 0.8)
        torch.testing.assert_close(found, expected, **SINGLE)

    @pytest.mark.parametrize("factor", [2, 3, 5, 6])
    @pytest.mark.parametrize("rows", [2, 5])
    def test_forward_is_interpolate_on_the_grid(self, factor, rows):
        network = build_ami()
        image, grid = rand(2, 3, rows, 5), OutputGrid.from_factor(rows, factor)
        expected = network.interpolate(image, grid.lower, grid.alpha, 5.0, 0.7)
        assert torch.equal(network(image, factor, 5.0, 0.7)[:, 0], expected)
        torch.testing.assert_close(expected, one_at_a_time(network, image, grid, 5.0, 0.7), **EXACT)

    @settings(max_examples=25, deadline=None)
    @given(
        rows=st.integers(2, 6),
        positions=st.lists(
            st.tuples(st.integers(0, 4), st.sampled_from([0.0, 0.25, 0.37, 0.5, 2 / 3, 1.0])), min_size=1, max_size=10
        ),
    )
    def test_any_set_of_positions(self, rows, positions):
        """Gaps that are left out, repeated positions, and equal offsets in gaps far apart."""
        network = build_ami()
        positions = sorted((min(low, rows - 2), part) for low, part in positions)
        lower = torch.tensor([low for low, _ in positions])
        alpha = torch.tensor([part for _, part in positions], dtype=torch.float64)
        image = rand(2, 3, rows, 3)
        found = network.interpolate(image, lower, alpha, 4.0, 0.8)
        for number in range(len(positions)):
            alone = network.interpolate(image, lower[number, None], alpha[number, None], 4.0, 0.8)
            torch.testing.assert_close(found[:, number, None], alone, **EXACT)

    @pytest.mark.parametrize("across", [5.0, [5.0, 2.5, 7.0]])
    @pytest.mark.parametrize("along", [0.7, [0.7, 0.9, 1.6]])
    def test_per_sample_spacings(self, across, along):
        """Every kind of gap gets its filters for every sample."""
        network = build_ami()
        image, grid = rand(3, 3, 6, 5), OutputGrid.from_spacing(6, 5.0, 2.0)
        spacings = torch.tensor(across), torch.tensor(along)
        found = network.interpolate(image, grid.lower, grid.alpha, *spacings), network(image, 3, *spacings)
        for k in range(3):
            one = [value[k] if isinstance(value, list) else value for value in (across, along)]
            alone = network.interpolate(image[k, None], grid.lower, grid.alpha, *one)
            torch.testing.assert_close(found[0][k, None], alone, **EXACT)
            torch.testing.assert_close(found[1][k, None], network(image[k, None], 3, *one), **EXACT)

    @pytest.mark.parametrize("batch", [1, 2])
    @pytest.mark.parametrize("factor", [2, 3])
    def test_gradients_of_few_filters(self, batch, factor):
        """One image and one filter are a case of their own for PyTorch on a CPU."""
        network = AnisotropicMetaInterpolation(32, 4, 6, 16)
        network(torch.rand(batch, 3, 6, 40), factor=factor).square().mean().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())

    def test_position_beside_a_row(self):
        """An offset may be below 1 in float64 but not in the float32 of the distances: it is on the row."""
        network = build_ami()
        image = rand(1, 3, 4, 2)
        alpha = torch.tensor([0.5, 1 - 7e-15, 7e-15], dtype=torch.float64)
        assert alpha[1] < 1 == alpha[1].float()
        with torch.no_grad():
            out = network.interpolate(image, torch.tensor([0, 1, 3 - 1]), alpha, 5.0, 0.51)
        assert out.isfinite().all() and torch.equal(out[:, 1:], image[:, 1, [2, 2]])

    def test_defaults(self):
        network, image = build_ami(), rand(1, 3, 3, 4)
        assert torch.equal(network(image), network(image, factor=4, slice_spacing=4.0, in_plane_spacing=1.0))

    def test_start(self):
        """The residual network starts near the interpolation: its filters are a tenth of the other's."""
        torch.manual_seed(0)
        residual = AnisotropicMetaInterpolation(**SMALL).double()
        torch.manual_seed(0)
        whole = AnisotropicMetaInterpolation(**SMALL, residual=False).double()
        distances = 3 * rand(1, 2, 3, 3)
        torch.testing.assert_close(residual.filter_generation(distances), 0.1 * whole.filter_generation(distances))

    @pytest.mark.parametrize(
        "shape", [(1, 3, 1, 5), (1, 2, 4, 5), (1, 1, 4, 5), (1, 4, 3, 5), (3, 4, 5), (1, 3, 4), (1, 3, 4, 5, 2)]
    )
    def test_wrong_shape(self, shape):
        network, positions = build_ami(), (torch.tensor([0]), torch.tensor([0.5]), 4.0, 1.0)
        assert str(shape) in check_error(r"\(B, 3, N, L\)", network.interpolate, rand(*shape), *positions)
        check_error(None, network, rand(*shape))

    @pytest.mark.parametrize("factor", [0, -1, 1.5, True])
    def test_wrong_factor(self, factor):
        check_error(f"factor must be a positive integer, got {factor}", build_ami(), rand(1, 3, 3, 4), factor)

    @pytest.mark.parametrize("name", ["slice_spacing", "in_plane_spacing"])
    def test_wrong_spacings(self, name):
        """A volume's three spacings are no slice's: no sample's result may depend on another's distance."""
        network, image = build_ami(), rand(2, 3, 3, 4)
        for spacing in (0.0, -2.0, math.nan):
            check_error("positive number of mm", network, image, 2, **{name: spacing})
        three, positions = {name: torch.tensor([0.8, 0.8, 5.0])}, (torch.tensor([0]), torch.tensor([0.5]))
        for part in (image, image[:1]):
            check_error(f"{name} must be one number or", network.interpolate, part, *positions, **{**KNOWN, **three})
