# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Whole volumes view by view: what comes out is what the network says of the volume at once."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.inferers import MultiViewSliceInferer, SplineSliceInferer
from monai_sliceinterp.networks.blocks.views import VIEW_DIRECTIONS
from tests.inferers.common import (
    SPACING,
    check_error,
    close,
    make_saint,
    make_scan,
    oblique,
    plain,
    rand,
    sheared,
    straight,
)

make_network = functools.cache(make_saint)
BETWEEN = ~OutputGrid.from_factor(4, 3).is_observed


def infer(scan, network=None, **options):
    return plain(MultiViewSliceInferer(**options)(scan, make_network() if network is None else network))


def by_network(scan, factor, network=None, spacing=SPACING, fuse=True):
    """What the network makes of the volume at once."""
    with torch.no_grad():
        return (network or make_network())(scan.as_tensor(), factor, spacing[2], spacing[:2], fuse)


def single_views(scan, network, **options):
    """What each view says, ``(views, B, C, H, W, M)``."""
    return torch.stack([infer(scan, network, fuse=False, views=(name,), **options) for name in network.directions])


class TestEqualsTheNetwork:
    @pytest.mark.parametrize("fuse", [True, False])
    @pytest.mark.parametrize("factor", [2, 5])
    @pytest.mark.parametrize("edge", ["replicate", "zero"])
    @pytest.mark.parametrize("num_views", [2, 4])
    def test_forward(self, num_views, edge, factor, fuse):
        network = make_network(num_views, edge=edge)
        scan = make_scan(1, 1, 9, 7, 4)
        found = infer(scan, network, factor=factor, fuse=fuse)
        assert found.shape == (1, 1, 9, 7, 3 * factor + 1)
        close(found, by_network(scan, factor, network, fuse=fuse))
        # the comparison is worth something: this is far from linear interpolation, and fusing from the mean
        linear = SplineSliceInferer(factor=factor, mode="linear")(scan).as_tensor()
        assert abs(found - linear).mean() > 0.01
        assert abs(found - infer(scan, network, factor=factor, fuse=not fuse)).mean() > 0.01

    @pytest.mark.parametrize("num_views", [2, 4])
    def test_fusion_in_3d(self, num_views):
        """The fusion network sees neighboring slices, observed ones among them, as it did in training."""
        network, scan = make_network(num_views, spatial_dims=3), make_scan(1, 1, 9, 7, 4)
        expected = by_network(scan, 3, network)
        close(infer(scan, network, factor=3), expected)
        found = infer(scan, network, factor=3, keep_observed=False)
        close(found[..., BETWEEN], expected[..., BETWEEN])
        views = single_views(scan, network, factor=3)[:, 0, 0].movedim(-1, 1)
        with torch.no_grad():
            close(found[0], network.rfn(views[None])[0].movedim(1, -1))
        assert abs(found - infer(scan, network, factor=3, fuse=False)).mean() > 0.01

    @given(
        *[st.integers(1, 11)] * 2,
        *[st.integers(2, 4)] * 2,
        st.sampled_from([2, 4]),
        st.booleans(),
        st.integers(0, 3),
        st.tuples(st.floats(0.3, 2.0), st.floats(0.3, 2.0), st.floats(2.1, 8.0)),
    )
    @example(1, 1, 2, 3, 2, True, 0, SPACING)
    @example(1, 6, 2, 3, 4, True, 0, SPACING)
    @example(6, 1, 2, 3, 4, True, 0, SPACING)
    @example(33, 2, 2, 3, 2, True, 0, SPACING)
    @settings(max_examples=25, deadline=None, derandomize=True)
    def test_any_geometry(self, height, width, num_slices, factor, num_views, fuse, batch_size, spacing):
        network = make_network(num_views)
        spacing = [round(value, 4) for value in spacing]  # affines are read to seven digits
        scan = make_scan(1, 1, height, width, num_slices, spacing=spacing)
        expected = by_network(scan, factor, network, spacing, fuse)
        close(infer(scan, network, factor=factor, fuse=fuse, batch_size=batch_size), expected)

    def test_single_precision(self):
        scan = make_scan(1, 1, 12, 9, 4)
        found = infer(scan.float(), make_network(dtype=torch.float32), factor=3)
        assert found.dtype == torch.float32
        close(found.double(), infer(scan, factor=3), atol=1e-5)


class TestPositions:
    @pytest.mark.parametrize("num_views", [2, 4])
    @pytest.mark.parametrize(("step", "factor"), [(3, 8), (2, 5)])
    def test_any_spacing(self, step, factor, num_views):
        """Slices 3/8 of a gap apart are every third one of those by factor 8, wherever they lie."""
        network = make_network(num_views)
        scan = make_scan(1, 1, 7, 6, 5)
        found = MultiViewSliceInferer(spacing=4.0 * step / factor)(scan, network)
        close(found.as_tensor(), infer(scan, network, factor=factor)[..., ::step])
        assert found.pixdim.tolist() == pytest.approx([0.7, 1.1, 4.0 * step / factor])

    def test_observed_slices_made_by_the_network(self):
        """Without keep_observed they are what the fusion makes of the views' copies of them."""
        scan = make_scan(1, 1, 7, 6, 4)
        kept = infer(scan, factor=3)
        found = infer(scan, factor=3, keep_observed=False)
        close(found[..., BETWEEN], kept[..., BETWEEN])
        copies = scan.as_tensor()[0, 0].permute(2, 0, 1)[:, None].expand(-1, 2, -1, -1)
        with torch.no_grad():
            close(found[0, 0, ..., ::3], make_network().rfn(copies)[:, 0].permute(1, 2, 0))
        assert abs(found - kept)[..., ::3].mean() > 0.01
        # the mean of copies is a copy
        close(infer(scan, factor=3, keep_observed=False, fuse=False), infer(scan, factor=3, fuse=False))


class TestSpacing:
    def record(self, monkeypatch, scan, network, **options):
        """Slice and in-plane spacing that AMI was given for each number of columns of a view's images."""
        seen = []
        interpolate = network.ami.interpolate

        def spy(image, lower, alpha, slice_spacing, in_plane_spacing, step):
            seen.append((image.shape[3], float(slice_spacing), round(float(in_plane_spacing), 6)))
            return interpolate(image, lower, alpha, slice_spacing, in_plane_spacing, step)

        with monkeypatch.context() as patch:
            patch.setattr(network.ami, "interpolate", spy)
            infer(scan, network, batch_size=100, **options)
        return seen

    def test_each_view_gets_its_own(self, monkeypatch):
        """Images of the view along the rows run along W, those along the columns along H, diagonal ones along both."""
        scan, network = make_scan(1, 1, 5, 7, 3, spacing=(0.3, 0.4, 2.5)), make_network(4)
        found = self.record(monkeypatch, scan, network, factor=2)
        assert found == [(7, 2.5, 0.4), (5, 2.5, 0.3), (5, 2.5, 0.5), (5, 2.5, 0.5)]
        for name, expected in zip(VIEW_DIRECTIONS, found, strict=True):
            assert self.record(monkeypatch, scan, network, factor=2, fuse=False, views=(name,)) == [expected]
        # the output's spacing changes nothing about it
        assert self.record(monkeypatch, scan, network, spacing=0.8) == found

    @pytest.mark.parametrize(
        ("affine", "spacing", "atol"),
        [
            (straight((-0.7, 1.1, 4.0)), SPACING, 1e-6),  # an axis that runs backwards
            (oblique(), SPACING, 1e-6),
            (straight((5.0, 1.1, 4.0)), (5.0, 1.1, 4.0), 1e-10),  # slices are last whatever the spacings
            (sheared(), SPACING, 1e-10),  # the distance of the planes counts
        ],
    )
    def test_affines(self, affine, spacing, atol):
        scan = make_scan(1, 1, 9, 6, 4)
        close(infer(MetaTensor(scan.as_tensor(), affine=affine), factor=3), by_network(scan, 3, spacing=spacing), atol)


class TestBatches:
    @pytest.mark.parametrize(
        ("shape", "options", "images", "slices"),
        [
            # 10 rows, 7 columns, 8 new slices
            ((10, 7, 3), {"factor": 5, "batch_size": 3}, [3, 3, 3, 1, 3, 3, 1], [3, 3, 2]),
            ((10, 7, 3), {"factor": 5, "batch_size": 1}, [1] * 17, [1] * 8),
            ((10, 7, 3), {"factor": 5}, [10, 7], [8]),
            # the default is bounded: images of 3072 and 2048 pixels, slices of 1536
            ((32, 48, 64), {"factor": 2}, [2] * 16 + [4] * 12, [5] * 12 + [3]),
            # larger than the bound: one by one
            ((2, 4100, 3), {"factor": 2, "views": ("rows",), "fuse": False}, [1, 1], []),
            # fused at once in 3D
            ((5, 4, 3), {"factor": 3, "batch_size": 1, "keep_observed": False}, [1] * 9, [7]),
        ],
    )
    def test_sizes(self, monkeypatch, shape, options, images, slices):
        """Sizes of the batches of images that AMI and RFN are given."""
        spatial_dims = 3 if slices == [7] else 2
        network, seen, fused = make_network(spatial_dims=spatial_dims), [], []
        interpolate, fuse = network.ami.interpolate, network.rfn.forward
        monkeypatch.setattr(
            network.ami, "interpolate", lambda image, *args: (seen.append(len(image)), interpolate(image, *args))[1]
        )
        monkeypatch.setattr(
            network.rfn,
            "forward",
            lambda image: (fused.append(image.shape[0 if spatial_dims == 2 else 2]), fuse(image))[1],
        )
        infer(make_scan(1, 1, *shape), network, **options)
        assert (seen, fused) == (images, slices)


class TestViews:
    @pytest.mark.parametrize("num_views", [2, 4])
    def test_mean_of_the_views(self, num_views):
        network, scan = make_network(num_views), make_scan(1, 1, 7, 6, 3)
        views = single_views(scan, network, factor=3)
        assert len(views) == num_views
        for first in range(num_views):  # no two views are the same
            for second in range(first):
                assert abs(views[first] - views[second]).mean() > 1e-3
        close(infer(scan, network, factor=3, fuse=False), views.mean(0))
        for names in (("columns", "rows"), network.directions[1:], list(network.directions[:1])):
            chosen = [network.directions.index(name) for name in names]
            close(infer(scan, network, factor=3, fuse=False, views=names), views[chosen].mean(0))

    def test_one_view_is_that_view_alone(self):
        """The view along the rows: each row with its neighbors through AMI, at the spacing along W."""
        network, scan = make_network(), make_scan(1, 1, 7, 6, 3)
        slices = scan.as_tensor()[0, 0]
        for name, lines, along in (("rows", slices, 1.1), ("columns", slices.transpose(0, 1), 0.7)):
            padded = torch.cat([lines[:1], lines, lines[-1:]])
            triples = torch.stack([padded[k : k + 3] for k in range(len(lines))]).transpose(2, 3)
            with torch.no_grad():
                expected = network.ami(triples, 4, 4.0, along)[:, 0].transpose(1, 2)
            expected = expected if name == "rows" else expected.transpose(0, 1)
            close(infer(scan, network, factor=4, fuse=False, views=(name,))[0, 0], expected)


class TestDisagreement:
    def run(self, scan, network=None, **options):
        output = MultiViewSliceInferer(disagreement=True, **options)(scan, network or make_network())
        return output, output.meta["disagreement"]

    @pytest.mark.parametrize(
        ("num_views", "spatial_dims", "options"),
        [
            *((views, 2, how) for views in (2, 4) for how in ({"factor": 3}, {"spacing": 1.5})),
            *((views, 2, {"factor": 3, "batch_size": 2}) for views in (2, 4)),
            (4, 3, {"factor": 3}),
            (2, 2, {"factor": 3, "fuse": False}),
            (2, 2, {"factor": 3, "keep_observed": False}),
        ],
    )
    def test_standard_deviation_of_the_views(self, num_views, spatial_dims, options):
        network, scan = make_network(num_views, spatial_dims), make_scan(1, 1, 7, 6, 4)
        output, spread = self.run(scan, network, **options)
        assert spread.shape == output.shape and spread.dtype == output.dtype
        how = {key: value for key, value in options.items() if key in ("factor", "spacing")}
        close(spread, single_views(scan, network, **how).std(dim=0, correction=0))
        # 0 where there is nothing to disagree about, and only there
        observed = ~BETWEEN if "factor" in how else torch.arange(9) % 8 == 0
        assert (spread[..., observed] == 0).all()
        assert (spread[..., ~observed] > 0).double().mean() > 0.99
        # and looking does not change what is seen
        close(output.as_tensor(), infer(scan, network, **options))

    @pytest.mark.parametrize(
        ("options", "count"), [({}, 3), ({"factor": 1}, 3), ({"factor": 3, "fuse": False, "views": ("rows",)}, 7)]
    )
    def test_nothing_disagrees(self, options, count):
        """A scan that is thin already passes through; one view has no other one to disagree with."""
        scan = make_scan(1, 2, 6, 5, 3, spacing=(0.7, 1.1, 0.7))
        output, spread = self.run(scan, **options)
        assert torch.equal(output[..., :: count // 2].as_tensor(), scan.as_tensor())
        assert spread.shape == (1, 2, 6, 5, count) and (spread == 0).all()


@pytest.mark.parametrize(
    ("scan", "options", "named"),
    [
        *(
            # a network of two views has no diagonal ones
            (make_scan(1, 1, 5, 4, 3), {"fuse": False, "views": views}, "unknown views.*expected some of rows, columns")
            for views in (("diagonal",), ("rows", "coronal"), (), "rows")
        ),
        *((None, {"views": views}, "the fusion network needs all views") for views in (("rows",), ("rows", "columns"))),
        *(
            (rand(1, 1, 5, 4, 3), {"fuse": fuse}, "a plain tensor has no spacing, which SAINT needs: give a MetaTensor")
            for fuse in (True, False)
        ),
    ],
)
def test_refused(scan, options, named):
    check_error(ValueError, named, infer, scan, factor=2, **options)


@pytest.mark.parametrize("name", ["fuse", "disagreement"])
def test_switches(name):
    for text, value in (("True", True), ("false", False)):
        inferer = MultiViewSliceInferer(factor=2, **{name: text})
        assert getattr(inferer, name) is value
        output = inferer(make_scan(1, 1, 6, 5, 3), make_network())
        assert ("disagreement" in output.meta) == inferer.disagreement
    check_error(ValueError, f"{name} must be true or false, got 'maybe'", MultiViewSliceInferer, **{name: "maybe"})
