# Copyright (c) monai_sliceinterp contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""SAINT and its parts: blended interpolation, AMI, RFN."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.networks.blocks.views import from_view, neighbor_triples, to_view
from monai_sliceinterp.networks.nets.saint import (
    SAINT,
    AnisotropicMetaInterpolation,
    ResidualFusionNetwork,
    blended_interpolation,
)

SMALL = {"channels": 8, "num_blocks": 1, "num_layers": 2, "growth": 4}
TINY = {**SMALL, "filter_channels": (8, 8)}
EXACT = {"rtol": 1e-10, "atol": 1e-10}
SINGLE = {"rtol": 1e-6, "atol": 1e-6}  # where the reference's distances are not in float32
KNOWN = {"slice_spacing": 5.0, "in_plane_spacing": 0.8}
BOTH = pytest.mark.parametrize("residual", [True, False])


def rand(*shape, seed=0):
    """Intensities in float64, so that what is equal on paper is equal to ten digits."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def trained(network: nn.Module) -> nn.Module:
    """The network in float64 with what training does to it: no trivial bias, no last layer that starts near zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.normal_(module.bias, std=0.1)
    ami = getattr(network, "ami", network)
    if isinstance(ami, AnisotropicMetaInterpolation):
        nn.init.normal_(ami.filter_generation.layers[-1].weight, std=0.05)
    return network.double().eval()


def build_ami(seed=0, **kwargs):
    torch.manual_seed(seed)
    return trained(AnisotropicMetaInterpolation(**{**TINY, **kwargs}))


def build_saint(seed=0, ami=None, rfn=None, **kwargs):
    torch.manual_seed(seed)
    return trained(SAINT(ami={**TINY, **(ami or {})}, rfn={**SMALL, **(rfn or {})}, **kwargs))


def keys_kernel(distance: float) -> float:
    """Keys' cubic convolution kernel with a = -0.5, which is Catmull-Rom."""
    a, x = -0.5, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def blend_by_hand(image, lower, alpha):
    """Mean of linear and cubic interpolation: for each position, a sum over all rows of the replicated image."""
    count, margin = image.shape[1], 3
    padded = torch.cat([image[:, :1]] * margin + [image] + [image[:, -1:]] * margin, dim=1)
    results = []
    for low, part in zip(lower.tolist(), alpha.tolist(), strict=True):
        value = 0
        for row in range(-margin, count + margin):
            away = low + part - row
            weight = 0.5 * max(0.0, 1 - abs(away)) + 0.5 * keys_kernel(away)
            value = value + weight * padded[:, row + margin]
        results.append(value)
    return torch.stack(results, dim=1)


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
    parts = [
        network.interpolate(image, low[None], part[None], slice_spacing, in_plane_spacing)
        for low, part in zip(grid.lower, grid.alpha, strict=True)
    ]
    return torch.cat(parts, dim=1)


class TestBlendedInterpolation:
    places = st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1)), min_size=1, max_size=6)

    @settings(max_examples=30, deadline=None)
    @given(count=st.integers(2, 7), columns=st.integers(1, 3), batch=st.integers(1, 2), places=places)
    def test_mean_of_linear_and_cubic(self, count, columns, batch, places):
        image = rand(batch, count, columns)
        lower = torch.tensor([min(low, count - 2) for low, _ in places])
        alpha = torch.tensor([part for _, part in places], dtype=torch.float64)
        found = blended_interpolation(image, lower, alpha)
        assert found.shape == (batch, len(places), columns) and found.dtype == image.dtype
        torch.testing.assert_close(found, blend_by_hand(image, lower, alpha), **EXACT)

    def test_reference_kernel(self):
        """The kernel that the test compares with is interpolating, sums to 1 and reproduces parabolas."""
        assert [keys_kernel(x) for x in (-2, -1, 0, 1, 2)] == [0, 0, 1, 0, 0]
        for part in (0.25, 0.37, 0.5):
            weights = [keys_kernel(part - tap) for tap in (-1, 0, 1, 2)]
            assert sum(weights) == pytest.approx(1)
            assert sum(w * tap**2 for w, tap in zip(weights, (-1, 0, 1, 2), strict=True)) == pytest.approx(part**2)

    def test_taps(self):
        """At 1/2: linear (0, 1/2, 1/2, 0) and cubic (-1/16, 9/16, 9/16, -1/16)."""
        weights = blended_interpolation(torch.eye(4)[None], torch.tensor([1]), torch.tensor([0.5]))[0, 0]
        torch.testing.assert_close(weights, torch.tensor([-1, 17, 17, -1]) / 32)

    @settings(max_examples=20, deadline=None)
    @given(count=st.integers(2, 6), value=st.floats(-3, 3), places=places)
    def test_constants_stay(self, count, value, places):
        image = torch.full((1, count, 2), value, dtype=torch.float64)
        lower = torch.tensor([min(low, count - 2) for low, _ in places])
        alpha = torch.tensor([part for _, part in places], dtype=torch.float64)
        found = blended_interpolation(image, lower, alpha)
        torch.testing.assert_close(found, torch.full_like(found, value), **EXACT)

    def test_ramps_stay_inside(self):
        image = (3 * torch.arange(6.0, dtype=torch.float64) - 4)[None, :, None]
        lower = torch.arange(1, 4).repeat_interleave(5)
        alpha = torch.tensor([0, 0.2, 0.37, 0.5, 1]).double().repeat(3)
        found = blended_interpolation(image, lower, alpha)
        torch.testing.assert_close(found[0, :, 0], 3 * (lower + alpha) - 4, **EXACT)
        # in the outermost gaps the repeated row bends the ramp
        edge = blended_interpolation(image, torch.tensor([0, 4]), torch.tensor([0.5, 0.5]))[0, :, 0]
        torch.testing.assert_close(edge - torch.tensor([-2.5, 9.5]), torch.tensor([-3.0, 3.0]).double() / 32)

    @pytest.mark.parametrize("count", [2, 3, 5])
    def test_ends_hit_the_rows(self, count):
        image, lower = rand(2, count, 3), torch.arange(count - 1)
        zeros, ones = torch.zeros(count - 1), torch.ones(count - 1)
        torch.testing.assert_close(blended_interpolation(image, lower, zeros), image[:, :-1], **EXACT)
        torch.testing.assert_close(blended_interpolation(image, lower, ones), image[:, 1:], **EXACT)

    def test_turned_round(self):
        image, lower = rand(1, 5, 2), torch.tensor([0, 1, 2, 3])
        alpha = torch.tensor([0.1, 0.37, 0.5, 0.8], dtype=torch.float64)
        turned = blended_interpolation(image.flip(1), 3 - lower, 1 - alpha)
        torch.testing.assert_close(turned, blended_interpolation(image, lower, alpha), **EXACT)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
    def test_dtype_of_the_image(self, dtype):
        found = blended_interpolation(rand(1, 4, 2).to(dtype), torch.tensor([1]), torch.tensor([0.3]).double())
        assert found.dtype == dtype


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
        if factor > 1:
            # what lies between is not a copy
            assert (out[:, 0, 1:2] - image[:, 1, :1]).abs().min() > 0

    def test_observed_rows_of_float32(self):
        torch.manual_seed(0)
        image = rand(2, 3, 4, 6).float()
        assert torch.equal(AnisotropicMetaInterpolation(**TINY)(image, 3)[:, 0, ::3], image[:, 1])

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

    @pytest.mark.parametrize(
        ("rows", "across", "target"),
        [
            (6, 5.0, 2.0),  # two kinds of gap in turn: 0.4, 0.8 and 0.2, 0.6
            (7, 5.0, 3.0),
            (9, 3.0, 2.0),
            (8, 5.0, 0.7),
            (6, math.pi, math.sqrt(2)),  # no two gaps alike
            (6, math.e, 1.0),
            (2, 5.0, 2.0),
            (3, 1.05, 1.0),  # a gap without a position between its rows
        ],
    )
    def test_arbitrary_positions(self, rows, across, target):
        network = build_ami()
        image, grid = rand(2, 3, rows, 5), OutputGrid.from_spacing(rows, across, target)
        found = network.interpolate(image, grid.lower, grid.alpha, across, 0.8)
        assert found.shape == (2, len(grid), 5)
        torch.testing.assert_close(found, one_at_a_time(network, image, grid, across, 0.8), **EXACT)

    @settings(max_examples=25, deadline=None)
    @given(
        rows=st.integers(2, 6),
        places=st.lists(
            st.tuples(st.integers(0, 4), st.sampled_from([0.0, 0.25, 0.37, 0.5, 2 / 3, 1.0])), min_size=1, max_size=10
        ),
    )
    def test_any_set_of_positions(self, rows, places):
        """Gaps that are left out, repeated positions, and equal offsets in gaps far apart."""
        network = build_ami()
        places = sorted((min(low, rows - 2), part) for low, part in places)
        lower = torch.tensor([low for low, _ in places])
        alpha = torch.tensor([part for _, part in places], dtype=torch.float64)
        image = rand(2, 3, rows, 3)
        found = network.interpolate(image, lower, alpha, 4.0, 0.8)
        for number in range(len(places)):
            alone = network.interpolate(image, lower[number, None], alpha[number, None], 4.0, 0.8)
            torch.testing.assert_close(found[:, number, None], alone, **EXACT)

    def test_per_sample_spacings_in_groups(self):
        """Every kind of gap gets its filters for every sample."""
        network = build_ami()
        image, grid = rand(3, 3, 6, 5), OutputGrid.from_spacing(6, 5.0, 2.0)
        across, along = torch.tensor([5.0, 2.5, 7.0]), torch.tensor([0.7, 0.9, 1.6])
        found = network.interpolate(image, grid.lower, grid.alpha, across, along)
        for sample in range(3):
            alone = network.interpolate(
                image[sample, None], grid.lower, grid.alpha, across[sample].item(), along[sample].item()
            )
            torch.testing.assert_close(found[sample, None], alone, **EXACT)

    @pytest.mark.parametrize(("across", "along"), [(5.0, 0.7), ([5.0, 2.0], 0.7), (5.0, [0.7, 2.0])])
    def test_batch_is_samples_alone(self, across, along):
        network = build_ami()
        image = rand(2, 3, 4, 6)
        found = network(image, 3, torch.tensor(across), torch.tensor(along))
        for sample in range(2):
            one = [value[sample] if isinstance(value, list) else value for value in (across, along)]
            torch.testing.assert_close(found[sample, None], network(image[sample, None], 3, *one), **EXACT)

    def test_position_beside_a_row(self):
        """An offset may be below 1 in float64 but not in the float32 of the distances: it is on the row."""
        network = build_ami()
        image = rand(1, 3, 4, 2)
        alpha = torch.tensor([0.5, 1 - 7e-15, 7e-15], dtype=torch.float64)
        assert alpha[1] < 1 == alpha[1].float()
        with torch.no_grad():
            out = network.interpolate(image, torch.tensor([0, 1, 3 - 1]), alpha, 5.0, 0.51)
        assert out.isfinite().all() and torch.equal(out[:, 1:], image[:, 1, [2, 2]])

    @BOTH
    def test_gradients_reach_every_parameter(self, residual):
        torch.manual_seed(0)
        network = AnisotropicMetaInterpolation(**SMALL, residual=residual)
        image = rand(2, 3, 4, 6).float().requires_grad_()
        network(image, 4, torch.tensor([5.0, 3.0]), 0.8).square().mean().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None and abs(parameter.grad).max() > 1e-8, name
        # all three images of a triple count, whatever the residual
        assert (image.grad.abs().amax(dim=(0, 2, 3)) > 0).all()

    def test_learns(self):
        torch.manual_seed(0)
        network = AnisotropicMetaInterpolation(**TINY)
        columns = torch.linspace(0, 5, 12)
        fine = 0.25 + 0.2 * torch.sin(columns + torch.arange(13)[:, None] * 0.45)
        image = fine[::4].expand(1, 3, 4, 12)
        base = blended_interpolation(
            image[:, 1], *(getattr(OutputGrid.from_factor(4, 4), k) for k in ("lower", "alpha"))
        )
        optimizer = torch.optim.Adam(network.parameters(), 3e-3)
        for _ in range(40):
            loss = F.mse_loss(network(image, 4, 4.0, 1.0)[0, 0], fine)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss.item() < 0.5 * F.mse_loss(base[0], fine).item()

    @BOTH
    def test_spacing_changes_the_output(self, residual):
        network = build_ami(residual=residual)
        image = rand(1, 3, 4, 6)
        reference = network(image, 2, 5.0, 0.7)
        for across, along in ((2.5, 0.7), (5.0, 1.4), (0.7, 5.0)):
            out = network(image, 2, across, along)
            assert torch.equal(out[:, :, ::2], reference[:, :, ::2])
            assert (out - reference)[:, :, 1::2].abs().max() > 1e-4

    def test_default_spacings(self):
        network = build_ami()
        image = rand(1, 3, 3, 4)
        assert torch.equal(network(image), network(image, factor=4, slice_spacing=4.0, in_plane_spacing=1.0))

    def test_residual(self):
        """One adds to the interpolation what the other adds to the constant intensity_center."""
        residual, whole = build_ami(residual=True), build_ami(residual=False)
        whole.load_state_dict(residual.state_dict())
        image, grid = rand(2, 3, 4, 5), OutputGrid.from_factor(4, 4)
        base = blended_interpolation(image[:, 1], grid.lower, grid.alpha)
        learned = whole(image, 4)[:, 0] - 0.25
        inside = ~grid.is_observed
        assert learned[:, inside].abs().max() > 0.01
        torch.testing.assert_close(residual(image, 4)[:, 0, inside], (base + learned)[:, inside], **EXACT)

    @BOTH
    def test_zero_filters(self, residual):
        """Without filters AMI is the interpolation, or flat."""
        network = build_ami(residual=residual, intensity_center=0.3)
        for parameter in network.filter_generation.layers[-1].parameters():
            nn.init.zeros_(parameter)
        image, grid = rand(2, 3, 3, 5), OutputGrid.from_factor(3, 3)
        base = blended_interpolation(image[:, 1], grid.lower, grid.alpha)
        expected = base if residual else torch.full_like(base, 0.3)
        inside = ~grid.is_observed
        torch.testing.assert_close(network(image, 3)[:, 0, inside], expected[:, inside], **EXACT)

    def test_start(self):
        """The residual network starts near the interpolation: its filters are a tenth of the other's."""
        torch.manual_seed(0)
        residual = AnisotropicMetaInterpolation(**SMALL).double()
        torch.manual_seed(0)
        whole = AnisotropicMetaInterpolation(**SMALL, residual=False).double()
        distances = 3 * rand(1, 2, 3, 3)
        torch.testing.assert_close(residual.filter_generation(distances), 0.1 * whole.filter_generation(distances))

    @BOTH
    def test_intensity_scale(self, residual):
        """The network sees (image - center) / scale, whatever the image's scale: HU and [0, 1] give the same."""
        unit = build_ami(residual=residual, intensity_center=0.0, intensity_scale=1.0)
        image = 2 * rand(2, 3, 4, 5) - 1
        expected = unit(image, 3)
        for center, scale in ((0.25, 0.25), (0.0, 1000.0), (-3.0, 0.5)):
            network = build_ami(residual=residual, intensity_center=center, intensity_scale=scale)
            network.load_state_dict(unit.state_dict())
            out = network(image * scale + center, 3)
            torch.testing.assert_close((out - center) / scale, expected, **EXACT)

    def test_neighbors_matter(self):
        """Previous and next image are told apart, and only the current one is copied."""
        network = build_ami()
        image = rand(1, 3, 4, 6)
        out, swapped = network(image, 2), network(image.flip(1), 2)
        assert torch.equal(out[:, :, ::2], swapped[:, :, ::2])
        assert (out - swapped)[:, :, 1::2].abs().max() > 1e-4

    def test_row_order_matters(self):
        """Features of rows that are turned round differ: the filters are not applied upside down by chance."""
        network = build_ami()
        image = rand(1, 3, 4, 6)
        assert (network(image, 2) - network(image.flip(2), 2).flip(2)).abs().max() > 1e-4

    def test_all_positions_observed(self):
        network = build_ami()
        image = rand(2, 3, 4, 5)
        lower, alpha = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])
        assert torch.equal(network.interpolate(image, lower, alpha, 4.0, 1.0), image[:, 1, [0, 1, 2, 2, 3]])

    def test_float32_positions(self):
        network = build_ami()
        image, lower = rand(1, 3, 4, 5), torch.tensor([0, 1, 2])
        double = torch.tensor([0.0, 0.25, 0.5], dtype=torch.float64)
        found = network.interpolate(image, lower, double.float(), 4.0, 1.0)
        assert torch.equal(found, network.interpolate(image, lower, double, 4.0, 1.0))

    def test_input_is_left_alone(self):
        image = rand(1, 3, 4, 5)
        build_ami()(image, 2)
        assert torch.equal(image, rand(1, 3, 4, 5))

    @pytest.mark.parametrize(
        "shape", [(1, 3, 1, 5), (1, 2, 4, 5), (1, 1, 4, 5), (1, 4, 3, 5), (3, 4, 5), (1, 3, 4), (1, 3, 4, 5, 2)]
    )
    def test_wrong_shape(self, shape):
        network = build_ami()
        with pytest.raises(ValueError, match=r"\(B, 3, N, L\)") as caught:
            network.interpolate(rand(*shape), torch.tensor([0]), torch.tensor([0.5]), 4.0, 1.0)
        assert str(shape) in str(caught.value) and "\n" not in str(caught.value)
        with pytest.raises(ValueError):
            network(rand(*shape))

    @pytest.mark.parametrize("factor", [0, -1, 1.5, True])
    def test_wrong_factor(self, factor):
        with pytest.raises(ValueError, match="factor must be a positive integer"):
            build_ami()(rand(1, 3, 3, 4), factor)

    @pytest.mark.parametrize("spacing", [0.0, -2.0, math.nan])
    def test_wrong_spacing(self, spacing):
        network = build_ami()
        for wrong in ({"slice_spacing": spacing}, {"in_plane_spacing": spacing}):
            with pytest.raises(ValueError, match="positive number of mm"):
                network(rand(1, 3, 3, 4), 2, **wrong)

    @pytest.mark.parametrize("batch", [1, 2])
    def test_wrong_number_of_spacings(self, batch):
        """A volume's three spacings in place of the slices': no sample's result may be made from another's distance."""
        network = build_ami()
        image = rand(batch, 3, 3, 4)
        three = torch.tensor([0.8, 0.8, 5.0])
        for wrong in ({"slice_spacing": three}, {"in_plane_spacing": three}):
            with pytest.raises((ValueError, RuntimeError)):
                network.interpolate(image, torch.tensor([0]), torch.tensor([0.5]), **{**KNOWN, **wrong})

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"kernel_size": 2}, "must be odd, got 2"),
            ({"kernel_size": 0}, "must be odd, got 0"),
            ({"kernel_size": -3}, "must be odd, got -3"),
            ({"intensity_scale": 0.0}, "intensity_scale must be positive"),
            ({"intensity_scale": -1.0}, "intensity_scale must be positive"),
            ({"intensity_scale": math.nan}, "intensity_scale must be positive"),
            ({"num_blocks": 0}, "positive sizes"),
            ({"growth": 0}, "positive sizes"),
            ({"num_layers": -1}, "positive sizes"),
        ],
    )
    def test_wrong_settings(self, wrong, message):
        with pytest.raises(ValueError, match=message) as caught:
            AnisotropicMetaInterpolation(**{**TINY, **wrong})
        assert "\n" not in str(caught.value)

    def test_seed_and_state_dict(self, tmp_path):
        network, same, other = build_ami(seed=3), build_ami(seed=3), build_ami(seed=4)
        image = rand(1, 3, 3, 5)
        assert torch.equal(network(image, 3), same(image, 3))
        assert not torch.allclose(network(image, 3), other(image, 3))
        torch.save(network.state_dict(), tmp_path / "model.pt")
        other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        assert torch.equal(network(image, 3), other(image, 3))


class TestRFN:
    def test_parameter_count(self):
        assert count(ResidualFusionNetwork()) == 371_105
        assert count(AnisotropicMetaInterpolation()) + count(ResidualFusionNetwork()) == 3_158_817
        # two more views are two more input channels of the first convolution
        assert count(ResidualFusionNetwork(num_views=4)) == 371_105 + 9 * 2 * 64

    @pytest.mark.parametrize("dims", [2, 3])
    @pytest.mark.parametrize("views", [2, 4])
    def test_zeroed_last_layer(self, dims, views):
        network = ResidualFusionNetwork(views, dims, **SMALL).double()
        for parameter in network.network.last.parameters():
            nn.init.zeros_(parameter)
        image = rand(2, views, *(6, 5, 4)[:dims])
        out = network(image)
        assert out.shape == (2, 1, *(6, 5, 4)[:dims])
        torch.testing.assert_close(out, image.sum(1, keepdim=True) / views, **EXACT)

    @pytest.mark.parametrize("dims", [2, 3])
    def test_starts_near_the_mean(self, dims):
        torch.manual_seed(0)
        network = ResidualFusionNetwork(2, dims, **SMALL).double()
        last = network.network.last
        bound = 1 / math.sqrt(8 * 3**dims)  # of PyTorch's own initialization
        assert (last.bias == 0).all()
        assert 0.05 * bound < last.weight.abs().max() <= 0.1 * bound

    @pytest.mark.parametrize("dims", [2, 3])
    def test_scale(self, dims):
        """Output = mean of the views + scale * network((views - center) / scale)."""
        torch.manual_seed(0)
        network = trained(ResidualFusionNetwork(2, dims, **SMALL, intensity_center=0.4, intensity_scale=0.5))
        image = rand(2, 2, *(6, 5, 4)[:dims])
        expected = (image[:, :1] + image[:, 1:]) / 2 + 0.5 * network.network((image - 0.4) / 0.5)
        torch.testing.assert_close(network(image), expected, **EXACT)
        assert (network(image) - image.mean(1, keepdim=True)).abs().max() > 0.01

    @pytest.mark.parametrize("dims", [2, 3])
    @pytest.mark.parametrize("views", [2, 4])
    def test_gradients_reach_every_parameter(self, dims, views):
        torch.manual_seed(0)
        network = ResidualFusionNetwork(views, dims, **SMALL)
        image = rand(2, views, *(6, 5, 4)[:dims]).float().requires_grad_()
        network(image).square().mean().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None and abs(parameter.grad).max() > 1e-8, name
        assert (image.grad.abs().flatten(2).amax(dim=(0, 2)) > 0).all()

    def test_dimensions(self):
        """2D networks treat slices one by one, 3D ones look beyond a slice."""
        torch.manual_seed(0)
        flat, solid = ResidualFusionNetwork(2, 2, **SMALL), ResidualFusionNetwork(2, 3, **SMALL)
        batch = rand(3, 2, 5, 4).float()
        alone = torch.cat([flat(part) for part in batch.split(1)])
        torch.testing.assert_close(flat(batch), alone)
        volume = rand(1, 2, 3, 5, 4).float()
        changed = volume.clone()
        changed[:, :, 0] = 0
        assert (solid(changed) - solid(volume))[:, :, 1].abs().max() > 1e-6

    @pytest.mark.parametrize("views", [0, -1])
    def test_errors(self, views):
        with pytest.raises(ValueError, match="positive sizes"):
            ResidualFusionNetwork(num_views=views, **SMALL)


def mean_by_hand(network, volume, factor, slice_spacing, in_plane_spacing, directions, edge="replicate"):
    """Views of one volume (H, W, N), every image on its own, then their mean (H, W, M)."""
    slices = volume.permute(2, 0, 1)
    first, second = in_plane_spacing
    along = {"rows": second, "columns": first}
    grid = OutputGrid.from_factor(volume.shape[-1], factor)
    total = 0
    for direction in directions:
        triples = neighbor_triples(to_view(slices, direction), edge=edge)
        spacing = along.get(direction, math.hypot(first, second))
        images = [
            network.ami.interpolate(triple[None], grid.lower, grid.alpha, slice_spacing, spacing) for triple in triples
        ]
        total = total + from_view(torch.cat(images), direction, volume.shape[:2])
    return (total / len(directions)).permute(1, 2, 0)


ALL = ("rows", "columns", "diagonal", "antidiagonal")
VARIANTS = pytest.mark.parametrize(
    "settings_", [{}, {"num_views": 4}, {"rfn": {"spatial_dims": 3}}, {"edge": "zero"}, {"ami": {"residual": False}}]
)


class TestSAINT:
    def test_parameter_count(self):
        assert count(SAINT()) == 3_158_817
        assert SAINT(ami=SMALL, rfn=SMALL).directions == ("rows", "columns")
        assert SAINT(ami=SMALL, rfn=SMALL, num_views=4).directions == ALL

    def test_settings_go_where_they_belong(self):
        network = SAINT(ami={**SMALL, "kernel_size": 5, "residual": False}, rfn={**SMALL, "growth": 7}, num_views=4)
        assert network.ami.kernel_size == 5 and network.ami.residual is False
        assert count(network.rfn) == count(ResidualFusionNetwork(4, **{**SMALL, "growth": 7}))

    @VARIANTS
    @pytest.mark.parametrize("fuse", [True, False])
    @pytest.mark.parametrize(("size", "factor"), [((5, 7, 3), 2), ((6, 4, 2), 3), ((1, 3, 2), 4), ((3, 1, 4), 1)])
    def test_shape_and_observed_slices(self, settings_, fuse, size, factor):
        network = build_saint(**settings_)
        image = rand(2, 1, *size)
        with torch.no_grad():
            out = network(image, factor, 5.0, (0.7, 0.9), fuse=fuse)
        assert out.shape == (2, 1, *size[:2], factor * (size[2] - 1) + 1) and out.dtype == image.dtype
        assert torch.equal(out[..., ::factor], image)
        assert out.isfinite().all()

    @settings(max_examples=10, deadline=None)
    @given(st.integers(1, 8), st.integers(1, 8), st.integers(2, 5), st.integers(1, 4), st.sampled_from([2, 4]))
    def test_any_size(self, height, width, slices, factor, views):
        network = build_saint(num_views=views)
        image = rand(1, 1, height, width, slices)
        with torch.no_grad():
            out = network(image, factor)
        assert out.shape == (1, 1, height, width, factor * (slices - 1) + 1)
        assert torch.equal(out[..., ::factor], image)

    @pytest.mark.parametrize("views", [2, 4])
    @pytest.mark.parametrize("edge", ["replicate", "zero"])
    @pytest.mark.parametrize("size", [(4, 6, 3), (6, 4, 3)])
    def test_mean_of_views(self, views, edge, size):
        network = build_saint(num_views=views, edge=edge)
        image = rand(2, 1, *size)
        with torch.no_grad():
            found = network(image, 3, 4.3, (0.6, 1.1), fuse=False)
            for sample in range(2):
                expected = mean_by_hand(network, image[sample, 0], 3, 4.3, (0.6, 1.1), ALL[:views], edge)
                torch.testing.assert_close(found[sample, 0], expected, **SINGLE)

    @pytest.mark.parametrize("views", [2, 4])
    def test_views_differ(self, views):
        """The comparison above means something: each view says something else."""
        network = build_saint(num_views=views)
        image = rand(1, 1, 5, 5, 3)
        spacing = (0.6, 1.1)
        with torch.no_grad():
            each = [mean_by_hand(network, image[0, 0], 2, 5.0, spacing, [direction]) for direction in ALL[:views]]
        for first in range(views):
            for second in range(first):
                assert (each[first] - each[second])[..., 1].abs().max() > 1e-3

    @pytest.mark.parametrize("dims", [2, 3])
    @pytest.mark.parametrize("views", [2, 4])
    def test_fusion(self, dims, views):
        """RFN sees the views in order, slice by slice or as a volume with the slices first."""
        network = build_saint(num_views=views, rfn={"spatial_dims": dims})
        image = rand(2, 1, 4, 5, 3)
        with torch.no_grad():
            found = network(image, 2, 5.0, (0.7, 0.9))
            for sample in range(2):
                stack = torch.stack(
                    [
                        mean_by_hand(network, image[sample, 0], 2, 5.0, (0.7, 0.9), [direction])
                        for direction in ALL[:views]
                    ]
                )  # (views, H, W, M)
                if dims == 3:
                    fused = network.rfn(stack.permute(0, 3, 1, 2)[None])[0, 0].permute(1, 2, 0)
                else:
                    fused = torch.cat([network.rfn(stack[None, ..., k])[0] for k in range(5)]).permute(1, 2, 0)
                torch.testing.assert_close(found[sample, 0, ..., 1::2], fused[..., 1::2], **SINGLE)
                assert (fused - stack.mean(0))[..., 1::2].abs().max() > 0.01

    @pytest.mark.parametrize("dims", [2, 3])
    def test_fuse(self, dims):
        network = build_saint(rfn={"spatial_dims": dims})
        views = rand(2, 2, 3, 4, 5)
        fused = network.fuse(views)
        assert fused.shape == (2, 3, 4, 5)
        if dims == 2:
            for sample in range(2):
                for number in range(3):
                    alone = network.rfn(views[sample, None, :, number])[0, 0]
                    torch.testing.assert_close(fused[sample, number], alone, **EXACT)
        else:
            torch.testing.assert_close(fused[1], network.rfn(views[1:])[0, 0], **EXACT)

    @pytest.mark.parametrize("views", [2, 4])
    def test_per_sample_spacings(self, views):
        network = build_saint(num_views=views)
        image = rand(3, 1, 4, 5, 3)
        across = torch.tensor([5.0, 2.5, 3.0])
        first, second = torch.tensor([0.6, 0.7, 0.8]), torch.tensor([1.2, 0.5, 2.0])
        with torch.no_grad():
            alone = [
                network(image[k, None], 2, across[k].item(), (first[k].item(), second[k].item())) for k in range(3)
            ]
            found = network(image, 2, across, (first, second))
            torch.testing.assert_close(found, torch.cat(alone), **SINGLE)
            # numbers and tensors may be mixed
            mixed = network(image, 2, 4.0, (first, 0.9))
            alone = [network(image[k, None], 2, 4.0, (first[k].item(), 0.9)) for k in range(3)]
            torch.testing.assert_close(mixed, torch.cat(alone), **SINGLE)
            mixed = network(image, 2, across, (0.6, 0.9))
            alone = [network(image[k, None], 2, across[k].item(), (0.6, 0.9)) for k in range(3)]
            torch.testing.assert_close(mixed, torch.cat(alone), **SINGLE)
        assert (found - network(image, 2, across.flip(0), (first, second))).abs().max() > 1e-4

    def test_one_element_spacings(self):
        """A batch of one with collated metadata, and one spacing for a whole batch."""
        network = build_saint()
        image = rand(2, 1, 4, 5, 3)
        one = [torch.tensor([value]) for value in (5.0, 0.7, 0.9)]
        with torch.no_grad():
            for part in (image[:1], image):
                found = network(part, 2, one[0], (one[1], one[2]))
                assert torch.equal(found, network(part, 2, 5.0, (0.7, 0.9)))
                assert torch.equal(found, network(part, 2, torch.tensor(5.0), (torch.tensor(0.7), 0.9)))

    def test_in_plane_spacing(self):
        """The rows view's images run along W: W's spacing is theirs, and H's spacing is the columns view's."""
        network = build_saint()
        image = rand(1, 1, 4, 5, 3)
        seen = []

        def record(images, factor, across, along):
            seen.append((images.shape, float(across), float(along)))
            return images.new_zeros(len(images), 1, factor * (images.shape[2] - 1) + 1, images.shape[3])

        network.ami.forward = record
        network(image, 2, 5.0, (0.6, 1.1), fuse=False)
        assert [shape for shape, _, _ in seen] == [(4, 3, 3, 5), (5, 3, 3, 4)]
        assert [spacings[0] for _, *spacings in seen] == [5.0, 5.0]
        assert [spacings[1] for _, *spacings in seen] == pytest.approx([1.1, 0.6])

    def test_transposed_volume(self):
        """H and W and their spacings swapped: so is the output, because both views share one network."""
        network = build_saint()
        image = rand(2, 1, 5, 4, 3)
        with torch.no_grad():
            out = network(image, 3, 5.0, (0.6, 1.4), fuse=False)
            swapped = network(image.transpose(2, 3), 3, 5.0, (1.4, 0.6), fuse=False)
            torch.testing.assert_close(swapped.transpose(2, 3), out, **EXACT)
            wrong = network(image.transpose(2, 3), 3, 5.0, (0.6, 1.4), fuse=False)
        assert (wrong.transpose(2, 3) - out).abs().max() > 1e-4

    @pytest.mark.parametrize("fuse", [True, False])
    def test_batch_is_samples_alone(self, fuse):
        network = build_saint(rfn={"spatial_dims": 3})
        image = rand(2, 1, 4, 5, 3)
        with torch.no_grad():
            alone = [network(part, 2, 5.0, (0.7, 0.9), fuse) for part in image.split(1)]
            torch.testing.assert_close(network(image, 2, 5.0, (0.7, 0.9), fuse), torch.cat(alone), **EXACT)

    def test_edge(self):
        """The edge reaches no further than the first and last image of each view."""
        repeated, zero = build_saint(), build_saint(edge="zero")
        image = rand(2, 1, 6, 5, 3) + 0.1
        with torch.no_grad():
            difference = (repeated(image, 2, fuse=False) - zero(image, 2, fuse=False))[:, 0]
        inner = difference[:, 1:-1, 1:-1]
        assert (inner == 0).all()
        assert (difference[..., ::2] == 0).all()
        between = difference[..., 1::2].abs()
        for border in (between[:, 0], between[:, -1], between[:, :, 0], between[:, :, -1]):
            assert border.amax(dim=-1).min() > 1e-6

    def test_zero_edge_is_air(self):
        """A border of air makes the kinds of edge agree."""
        repeated, zero = build_saint(), build_saint(edge="zero")
        image = F.pad(rand(1, 1, 4, 3, 3), (0, 0, 1, 1, 1, 1))
        with torch.no_grad():
            torch.testing.assert_close(repeated(image, 2), zero(image, 2), **EXACT)

    def test_defaults(self):
        network = build_saint()
        image = rand(1, 1, 4, 5, 2)
        with torch.no_grad():
            expected = network(image, factor=4, slice_spacing=4.0, in_plane_spacing=(1.0, 1.0), fuse=True)
            assert torch.equal(network(image), expected)
            zero = build_saint(edge="zero")
            assert network.edge == "replicate" and not torch.equal(zero(image), expected)

    @pytest.mark.parametrize("residual", [True, False])
    @pytest.mark.parametrize("views", [2, 4])
    def test_gradients_reach_every_parameter(self, residual, views):
        torch.manual_seed(0)
        network = SAINT(ami={**SMALL, "residual": residual}, rfn=SMALL, num_views=views)
        network(rand(1, 1, 4, 5, 3).float(), 2).square().mean().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None and abs(parameter.grad).max() > 1e-8, name

    def test_no_grad(self):
        network = build_saint()
        image = rand(1, 1, 4, 5, 3)
        expected = network(image, 2)
        assert expected.requires_grad
        with torch.no_grad():
            found = network(image, 2)
        assert not found.requires_grad and torch.equal(found, expected)
        with torch.inference_mode():
            assert torch.equal(network(image, 2), expected)

    @pytest.mark.parametrize("settings_", [{}, {"num_views": 4, "rfn": {"spatial_dims": 3}}])
    def test_trace(self, settings_):
        """A trace holds for the factor and spacing that it was made for, and for any number of slices."""

        class Fixed(nn.Module):
            def __init__(self):
                super().__init__()
                self.network = build_saint(**settings_)

            def forward(self, image):
                return self.network(image, 3, 5.0, (0.7, 0.9))

        fixed = Fixed()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer says that grid and spacing become constants
            traced = torch.jit.trace(fixed, (rand(2, 1, 4, 5, 3),))
        for slices in (2, 3, 5):
            image = rand(2, 1, 4, 5, slices, seed=1)
            torch.testing.assert_close(traced(image), fixed(image), **EXACT)
        assert not torch.allclose(fixed(image), fixed.network(image, 3, 2.0, (0.7, 0.9)))

    def test_autocast(self):
        """Observed slices are copied in mixed precision too, and the rest is close."""
        network = build_saint().float()
        image = rand(1, 1, 4, 5, 3).float()
        with torch.no_grad():
            expected = network(image, 2)
            with torch.autocast("cpu", torch.bfloat16):
                found = network(image, 2)
        assert found.dtype == torch.float32 and torch.equal(found[..., ::2], image)
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)

    def test_input_is_left_alone(self):
        for edge in ("replicate", "zero"):
            image = rand(1, 1, 4, 5, 3)
            build_saint(edge=edge)(image, 2)
            assert torch.equal(image, rand(1, 1, 4, 5, 3))

    @pytest.mark.parametrize("shape", [(1, 4, 5, 3), (1, 2, 4, 5, 3), (4, 5, 3), (1, 1, 1, 4, 5, 3)])
    def test_wrong_shape(self, shape):
        with pytest.raises(ValueError, match=r"\(B, 1, H, W, N\)") as caught:
            build_saint()(rand(*shape))
        assert str(shape) in str(caught.value) and "\n" not in str(caught.value)

    def test_one_slice(self):
        with pytest.raises(ValueError, match="at least 2 slices, got 1"):
            build_saint()(rand(1, 1, 4, 5, 1))

    @pytest.mark.parametrize("factor", [0, 2.5, -2])
    def test_wrong_factor(self, factor):
        with pytest.raises(ValueError, match="factor must be a positive integer"):
            build_saint()(rand(1, 1, 4, 5, 3), factor)

    @pytest.mark.parametrize("views", [0, 1, 3, 5, -2])
    def test_wrong_number_of_views(self, views):
        with pytest.raises(ValueError, match=f"must be 2 or 4, got {views}") as caught:
            SAINT(ami=SMALL, rfn=SMALL, num_views=views)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("edge", ["", "reflect", "Zero"])
    def test_unknown_edge(self, edge):
        with pytest.raises(ValueError, match="unknown edge .*replicate, zero") as caught:
            SAINT(ami=SMALL, rfn=SMALL, edge=edge)
        assert "\n" not in str(caught.value)

    def test_seed_and_state_dict(self, tmp_path):
        network, same, other = build_saint(seed=3), build_saint(seed=3), build_saint(seed=4)
        image = rand(1, 1, 4, 5, 3)
        assert torch.equal(network(image, 2), same(image, 2))
        assert not torch.allclose(network(image, 2), other(image, 2))
        torch.save(network.state_dict(), tmp_path / "model.pt")
        other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        assert torch.equal(network(image, 2), other(image, 2))
