# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""SAINT and its fusion network: views, mean, fusion, spacings."""

import math
import warnings

import pytest
import torch
from torch import nn

from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.networks.blocks.views import from_view, neighbor_triples, to_view
from monai_sliceinterp.networks.nets import SAINT, ResidualFusionNetwork
from tests.networks.helpers import EXACT, check_error, count, rand, trained

SMALL = {"channels": 8, "num_blocks": 1, "num_layers": 2, "growth": 4}
TINY = {**SMALL, "filter_channels": (8, 8)}
SINGLE = {"rtol": 1e-6, "atol": 1e-6}  # for references whose distances are not in float32
ALL = ("rows", "columns", "diagonal", "antidiagonal")


def build_saint(ami=None, rfn=None, **kwargs):
    network = trained(SAINT, ami={**TINY, **(ami or {})}, rfn={**SMALL, **(rfn or {})}, **kwargs)
    nn.init.normal_(network.ami.filter_generation.layers[-1].weight, std=0.05)
    return network


class TestRFN:
    def test_parameter_count(self):
        assert count(ResidualFusionNetwork()) == 371_105
        # two more views are two more input channels of the first convolution
        assert count(ResidualFusionNetwork(num_views=4)) == 371_105 + 9 * 2 * 64

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
        network = trained(ResidualFusionNetwork, 2, dims, **SMALL, intensity_center=0.4, intensity_scale=0.5)
        image = rand(2, 2, *(6, 5, 4)[:dims])
        expected = (image[:, :1] + image[:, 1:]) / 2 + 0.5 * network.network((image - 0.4) / 0.5)
        torch.testing.assert_close(network(image), expected, **EXACT)
        assert (network(image) - image.mean(1, keepdim=True)).abs().max() > 0.01


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
        given = (grid.lower, grid.alpha, slice_spacing, spacing)
        images = [network.ami.interpolate(triple[None], *given) for triple in triples]
        total = total + from_view(torch.cat(images), direction, volume.shape[:2])
    return (total / len(directions)).permute(1, 2, 0)


VARIANTS = pytest.mark.parametrize(
    "settings_", [{}, {"num_views": 4}, {"rfn": {"spatial_dims": 3}}, {"edge": "zero"}, {"ami": {"residual": False}}]
)


class TestSAINT:
    def test_parameter_count(self):
        assert count(SAINT()) == 3_158_817
        assert SAINT(ami=SMALL, rfn=SMALL).directions == ("rows", "columns")
        assert SAINT(ami=SMALL, rfn=SMALL, num_views=4).directions == ALL

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

    @pytest.mark.parametrize("dims", [2, 3])
    @pytest.mark.parametrize("views", [2, 4])
    def test_fusion(self, dims, views):
        """RFN sees the views in order, slice by slice or as a volume with the slices first."""
        network = build_saint(num_views=views, rfn={"spatial_dims": dims})
        image = rand(2, 1, 4, 5, 3)
        with torch.no_grad():
            found = network(image, 2, 5.0, (0.7, 0.9))
            for sample in range(2):
                given = (network, image[sample, 0], 2, 5.0, (0.7, 0.9))
                stack = torch.stack(
                    [mean_by_hand(*given, [direction]) for direction in ALL[:views]]
                )  # (views, H, W, M)
                if dims == 3:
                    fused = network.rfn(stack.permute(0, 3, 1, 2)[None])[0, 0].permute(1, 2, 0)
                else:
                    fused = torch.cat([network.rfn(stack[None, ..., k])[0] for k in range(5)]).permute(1, 2, 0)
                torch.testing.assert_close(found[sample, 0, ..., 1::2], fused[..., 1::2], **SINGLE)
                assert (fused - stack.mean(0))[..., 1::2].abs().max() > 0.01

    @pytest.mark.parametrize("views", [2, 4])
    @pytest.mark.parametrize("across", [[5.0, 2.5, 3.0], [4.0] * 3])
    @pytest.mark.parametrize(("first", "second"), [([0.6, 0.7, 0.8], [1.2, 0.5, 2.0]), ([0.6, 0.7, 0.8], [0.9] * 3)])
    def test_per_sample_spacings(self, views, across, first, second):
        """Numbers and tensors may be mixed."""
        network, image = build_saint(num_views=views), rand(3, 1, 4, 5, 3)
        one, *pair = (torch.tensor(value) if len(set(value)) > 1 else value[0] for value in (across, first, second))
        with torch.no_grad():
            found = network(image, 2, one, pair)
            alone = [network(image[k, None], 2, across[k], (first[k], second[k])) for k in range(3)]
            torch.testing.assert_close(found, torch.cat(alone), **SINGLE)
            assert (found - network(image, 2, one, pair[::-1])).abs().max() > 1e-4

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

    def test_defaults(self):
        network = build_saint()
        image = rand(1, 1, 4, 5, 2)
        with torch.no_grad():
            expected = network(image, factor=4, slice_spacing=4.0, in_plane_spacing=(1.0, 1.0), fuse=True)
            assert torch.equal(network(image), expected)
            zero = build_saint(edge="zero")
            assert network.edge == "replicate" and not torch.equal(zero(image), expected)

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

    @pytest.mark.parametrize("shape", [(1, 4, 5, 3), (1, 2, 4, 5, 3), (4, 5, 3), (1, 1, 1, 4, 5, 3)])
    def test_wrong_shape(self, shape):
        assert str(shape) in check_error(r"\(B, 1, H, W, N\)", build_saint(), rand(*shape))

    def test_wrong_arguments(self):
        network, image, three = build_saint(), rand(2, 1, 4, 5, 3), torch.ones(3)
        check_error("at least 2 slices, got 1", network, image[..., :1])
        for factor in (0, 2.5, -2):
            check_error(f"factor must be a positive integer, got {factor}", network, image, factor)
        for spacings in ((three, (1.0, 1.0)), (5.0, (three, 1.0)), (5.0, (1.0, three))):
            check_error("spacings must be one number or one for each of 2 volumes", network, image, 2, *spacings)
