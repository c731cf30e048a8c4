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

"""Whole volumes view by view: what comes out is what the network says of the volume at once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.inferers import MultiViewSliceInferer, SplineSliceInferer
from monai_sliceinterp.networks.blocks.views import VIEW_DIRECTIONS
from monai_sliceinterp.networks.nets import SAINT
from tests.inferers.common import (
    SMALL,
    SPACING,
    check_error,
    close,
    make_saint,
    make_scan,
    oblique,
    plain,
    rand,
    straight,
)

networks: dict[tuple, SAINT] = {}


def make_network(num_views=2, spatial_dims=2, edge="replicate", size=SMALL, dtype=torch.float64):
    """The network of such parameters, always the same."""
    key = (num_views, spatial_dims, edge, size["channels"], dtype)
    if key not in networks:
        networks[key] = make_saint(num_views, spatial_dims, edge, size, dtype)
    return networks[key]


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
        between = ~OutputGrid.from_factor(4, 3).is_observed
        close(found[..., between], expected[..., between])
        mean = infer(scan, network, factor=3, fuse=False)
        views = single_views(scan, network, factor=3)[:, 0, 0].movedim(-1, 1)
        with torch.no_grad():
            close(found[0], network.rfn(views[None])[0].movedim(1, -1))
        assert abs(found - mean).mean() > 0.01

    @given(
        st.integers(1, 9),
        st.integers(1, 9),
        st.integers(2, 4),
        st.integers(2, 4),
        st.sampled_from([2, 4]),
        st.booleans(),
        st.integers(0, 3),
        st.tuples(st.floats(0.3, 2.0), st.floats(0.3, 2.0), st.floats(2.1, 8.0)),
    )
    @settings(max_examples=25, deadline=None, derandomize=True)
    def test_any_geometry(self, height, width, num_slices, factor, num_views, fuse, batch_size, spacing):
        network = make_network(num_views)
        spacing = [round(value, 4) for value in spacing]  # affines are read to seven digits
        scan = make_scan(1, 1, height, width, num_slices, spacing=spacing)
        expected = by_network(scan, factor, network, spacing, fuse)
        close(infer(scan, network, factor=factor, fuse=fuse, batch_size=batch_size), expected)

    @pytest.mark.parametrize("num_views", [2, 4])
    @pytest.mark.parametrize("size", [(1, 1), (1, 6), (6, 1), (3, 3), (5, 11), (33, 2)])
    def test_small_and_odd_sizes(self, size, num_views):
        network, scan = make_network(num_views), make_scan(1, 1, *size, 2)
        found = infer(scan, network, factor=3)
        assert found.shape == (1, 1, *size, 4)
        close(found, by_network(scan, 3, network))

    def test_single_precision(self):
        scan = make_scan(1, 1, 12, 9, 4)
        found = infer(scan.float(), make_network(dtype=torch.float32), factor=3)
        assert found.dtype == torch.float32
        close(found.double(), infer(scan, factor=3), atol=1e-5)
        assert torch.equal(found[..., ::3], scan.as_tensor().float())

    def test_samples_and_channels(self):
        scan = make_scan(2, 3, 6, 5, 3)
        flat = MetaTensor(scan.as_tensor().flatten(0, 1)[:, None], affine=scan.affine)
        close(infer(scan, factor=3).flatten(0, 1)[:, None], by_network(flat, 3))


class TestPositions:
    def test_isotropic(self):
        result = MultiViewSliceInferer()(make_scan(1, 1, 7, 6, 5, spacing=(1.1, 1.0, 4.0)), make_network())
        assert result.shape == (1, 1, 7, 6, 17) and result.pixdim.tolist() == pytest.approx([1.1, 1, 1])

    @pytest.mark.parametrize("num_views", [2, 4])
    @pytest.mark.parametrize(("step", "factor"), [(3, 8), (2, 5)])
    def test_any_spacing(self, step, factor, num_views):
        """Slices 3/8 of a gap apart are every third one of those by factor 8, wherever they lie."""
        network = make_network(num_views)
        scan = make_scan(1, 1, 7, 6, 5)
        found = MultiViewSliceInferer(spacing=4.0 * step / factor)(scan, network)
        close(found.as_tensor(), infer(scan, network, factor=factor)[..., ::step])
        assert found.pixdim.tolist() == pytest.approx([0.7, 1.1, 4.0 * step / factor])

    @pytest.mark.parametrize("options", [{}, {"fuse": False}])
    @pytest.mark.parametrize("spatial_dims", [2, 3])
    @pytest.mark.parametrize("value_range", [None, (0.0, 1.0)])
    def test_observed_slices_are_bit_exact(self, options, spatial_dims, value_range):
        scan = 3.7 * make_scan(1, 2, 7, 6, 7) - 1.3  # far beyond the range the network knows
        found = infer(scan, make_network(4, spatial_dims), spacing=3.0, value_range=value_range, **options)
        assert torch.equal(found[..., ::4], scan.as_tensor()[..., ::3])

    def test_observed_slices_made_by_the_network(self):
        """Without keep_observed they are what the fusion makes of the views' copies of them."""
        scan = make_scan(1, 1, 7, 6, 4)
        kept = infer(scan, factor=3)
        found = infer(scan, factor=3, keep_observed=False)
        between = ~OutputGrid.from_factor(4, 3).is_observed
        close(found[..., between], kept[..., between])
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

        def spy(image, lower, alpha, slice_spacing, in_plane_spacing):
            seen.append((image.shape[3], float(slice_spacing), round(float(in_plane_spacing), 6)))
            return interpolate(image, lower, alpha, slice_spacing, in_plane_spacing)

        monkeypatch.setattr(network.ami, "interpolate", spy)
        infer(scan, network, **options)
        monkeypatch.undo()
        return seen

    def test_each_view_gets_its_own(self, monkeypatch):
        """Images of the view along the rows run along W, those along the columns along H, diagonal ones along both."""
        scan, network = make_scan(1, 1, 5, 7, 3, spacing=(0.3, 0.4, 2.5)), make_network(4)
        found = self.record(monkeypatch, scan, network, factor=2, batch_size=100)
        assert found == [(7, 2.5, 0.4), (5, 2.5, 0.3), (5, 2.5, 0.5), (5, 2.5, 0.5)]
        names = list(VIEW_DIRECTIONS)
        for name, expected in zip(names, found, strict=True):
            options = {"factor": 2, "batch_size": 100, "fuse": False, "views": (name,)}
            assert self.record(monkeypatch, scan, network, **options) == [expected]
        # the output's spacing changes nothing about it
        assert self.record(monkeypatch, scan, network, spacing=0.8, batch_size=100) == found

    def test_axis_that_runs_backwards(self):
        """An axis that runs backwards has a positive spacing all the same."""
        scan = make_scan(1, 1, 9, 6, 4)
        flipped = MetaTensor(scan.as_tensor().flip(2), affine=straight((-0.7, 1.1, 4.0)))
        close(infer(flipped, factor=3, fuse=False), by_network(flipped, 3, fuse=False), atol=1e-6)

    def test_orientation_does_not_matter(self):
        scan = make_scan(1, 1, 9, 6, 4)
        turned = MetaTensor(scan.as_tensor(), affine=oblique())
        close(infer(turned, factor=3), infer(scan, factor=3), atol=1e-6)

    def test_slices_are_last_whatever_the_spacings(self):
        """Slices are along the last axis even where another spacing is larger."""
        scan = make_scan(1, 1, 9, 6, 4, spacing=(5.0, 1.1, 4.0))
        close(infer(scan, factor=3), by_network(scan, 3, spacing=(5.0, 1.1, 4.0)))

    def test_tilted_gantry(self):
        """Planes are closer than the step from slice to slice, and the distance of the planes counts."""
        affine = straight()
        affine[1, 2] = 1.5
        scan = make_scan(1, 1, 9, 6, 4)
        close(infer(MetaTensor(scan.as_tensor(), affine=affine), factor=3), infer(scan, factor=3))


class TestBatches:
    @pytest.mark.parametrize("num_views", [2, 4])
    @pytest.mark.parametrize("fuse", [True, False])
    def test_batch_size_does_not_matter(self, num_views, fuse):
        network = make_network(num_views, dtype=torch.float32)
        scan = make_scan(1, 1, 11, 8, 5, dtype=torch.float32)
        one, *others = (infer(scan, network, factor=3, fuse=fuse, batch_size=size) for size in (1, 3, 0, 1000))
        for other in others:
            close(other, one, atol=1e-6)

    def sizes(self, monkeypatch, scan, spatial_dims=2, **options):
        """Sizes of the batches of images that AMI and RFN were given."""
        network, images, slices = make_network(spatial_dims=spatial_dims), [], []
        interpolate, fuse = network.ami.interpolate, network.rfn.forward

        def look_at_images(image, *args):
            images.append(len(image))
            return interpolate(image, *args)

        def look_at_slices(image):
            slices.append(len(image) if spatial_dims == 2 else image.shape[2])
            return fuse(image)

        monkeypatch.setattr(network.ami, "interpolate", look_at_images)
        monkeypatch.setattr(network.rfn, "forward", look_at_slices)
        infer(scan, network, **options)
        monkeypatch.undo()
        return images, slices

    def test_sizes(self, monkeypatch):
        scan = make_scan(1, 1, 10, 7, 3)
        images, slices = self.sizes(monkeypatch, scan, factor=5, batch_size=3)
        assert images == [3, 3, 3, 1, 3, 3, 1] and slices == [3, 3, 2]  # 10 rows, 7 columns, 8 new slices
        assert self.sizes(monkeypatch, scan, factor=5, batch_size=1) == ([1] * 17, [1] * 8)
        assert self.sizes(monkeypatch, scan, factor=5) == ([10, 7], [8])

    def test_default_is_bounded(self, monkeypatch):
        # 64 slices of 32 x 48: images of 3072 and 2048 pixels, slices of 1536
        images, slices = self.sizes(monkeypatch, make_scan(1, 1, 32, 48, 64), factor=2)
        assert images == [2] * 16 + [4] * 12 and slices == [5] * 12 + [3]
        # larger than the bound: one by one
        images, slices = self.sizes(monkeypatch, make_scan(1, 1, 2, 4100, 3), factor=2, views=("rows",), fuse=False)
        assert images == [1, 1] and slices == []

    def test_volume_is_fused_at_once_in_3d(self, monkeypatch):
        _, slices = self.sizes(monkeypatch, make_scan(1, 1, 5, 4, 3), 3, factor=3, batch_size=1, keep_observed=False)
        assert slices == [7]


class TestValueRange:
    def test_excess_is_interpolated_linearly(self):
        scan = make_scan(1, 2, 6, 5, 4)
        scan = (3 * scan - 1).clone()
        inside = MetaTensor(scan.as_tensor().clamp(0, 1), affine=scan.affine)
        excess = MetaTensor(scan.as_tensor() - inside.as_tensor(), affine=scan.affine)
        assert excess.min() < -0.8 and excess.max() > 0.8
        expected = infer(inside, factor=3).clamp(0, 1)  # the network's own part stays within its range
        assert expected.min() == 0 and expected.max() == 1
        expected += SplineSliceInferer(factor=3, mode="linear")(excess).as_tensor()
        found = infer(scan, factor=3, value_range=(0.0, 1.0))
        close(found, expected)
        assert abs(found - infer(scan, factor=3)).mean() > 0.01

    def test_within_the_range_only_overshoot_changes(self):
        scan = make_scan(1, 1, 6, 5, 4)
        found, free = infer(scan, factor=3, value_range=(0.0, 1.0)), infer(scan, factor=3)
        assert free.min() < 0 and free.max() > 1
        assert torch.equal(found, free.clamp(0, 1))


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

    @pytest.mark.parametrize("views", [("diagonal",), ("rows", "coronal"), (), "rows"])
    def test_unknown(self, views):
        """A network of two views has no diagonal ones."""
        named = "unknown views.*expected some of rows, columns"
        check_error(ValueError, named, infer, make_scan(1, 1, 5, 4, 3), factor=2, fuse=False, views=views)

    @pytest.mark.parametrize("views", [("rows",), ("rows", "columns")])
    def test_fusion_needs_all(self, views):
        check_error(ValueError, "the fusion network needs all views", MultiViewSliceInferer, factor=2, views=views)


class TestDisagreement:
    def run(self, scan, network, **settings):
        output = MultiViewSliceInferer(**{"factor": 3, "disagreement": True, **settings})(scan, network)
        return output, output.meta["disagreement"]

    @pytest.mark.parametrize("num_views", [2, 4])
    @pytest.mark.parametrize("options", [{"factor": 3}, {"spacing": 1.5}, {"factor": 3, "batch_size": 2}])
    def test_standard_deviation_of_the_views(self, num_views, options):
        network, scan = make_network(num_views), make_scan(1, 1, 7, 6, 4)
        output, spread = self.run(scan, network, **{"factor": None, **options})
        assert spread.shape == output.shape and spread.dtype == output.dtype
        close(spread, single_views(scan, network, **options).std(dim=0, correction=0))
        # 0 where there is nothing to disagree about, and only there
        observed = OutputGrid.from_factor(4, 3).is_observed if "factor" in options else torch.arange(9) % 8 == 0
        assert (spread[..., observed] == 0).all()
        assert (spread[..., ~observed] > 0).double().mean() > 0.99
        # and looking does not change what is seen
        close(output.as_tensor(), infer(scan, network, **options))

    @pytest.mark.parametrize(
        "options", [{"fuse": False}, {"keep_observed": False}, {"fuse": False, "views": ("rows",)}]
    )
    def test_other_settings(self, options):
        scan = make_scan(1, 1, 7, 6, 4)
        spread = self.run(scan, make_network(), **options)[1]
        expected = single_views(scan, make_network(), factor=3).std(dim=0, correction=0)
        close(spread, torch.zeros_like(expected) if "views" in options else expected)
        assert (spread[..., ::3] == 0).all()

    def test_fusion_in_3d(self):
        network, scan = make_network(4, spatial_dims=3), make_scan(1, 1, 7, 6, 4)
        close(self.run(scan, network)[1], single_views(scan, network, factor=3).std(dim=0, correction=0))

    def test_samples_and_channels(self):
        scan = make_scan(2, 3, 6, 5, 3)
        spread = self.run(scan, make_network())[1]
        assert spread.shape == (2, 3, 6, 5, 7)
        for b in range(2):
            for c in range(3):
                close(spread[b, c], self.run(scan[b : b + 1, c : c + 1], make_network())[1][0, 0])

    def test_scale_of_the_intensities(self):
        """Where the input exceeds the network's range, the excess is common to all views."""
        scan = (3 * make_scan(1, 1, 6, 5, 4) - 1).clone()
        inside = MetaTensor(scan.as_tensor().clamp(0, 1), affine=scan.affine)
        views = single_views(inside, make_network(), factor=3)
        close(self.run(scan, make_network(), value_range=(0.0, 1.0))[1], views.std(dim=0, correction=0))

    def test_only_on_request(self):
        output = MultiViewSliceInferer(factor=3, disagreement="false")(make_scan(1, 1, 6, 5, 3), make_network())
        assert "disagreement" not in output.meta

    @pytest.mark.parametrize("options", [{"factor": 1}, {"factor": None}])
    def test_nothing_to_synthesize(self, options):
        """A scan that is thin already passes through, and nothing disagrees."""
        scan = make_scan(1, 2, 6, 5, 3, spacing=(0.7, 1.1, 0.7))
        output, spread = self.run(scan, make_network(), **options)
        assert torch.equal(output.as_tensor(), scan.as_tensor())
        assert spread.shape == scan.shape and (spread == 0).all()


@pytest.mark.parametrize("options", [{"factor": 2}, {"factor": 2, "fuse": False}])
def test_plain_tensor(options):
    named = "a plain tensor has no spacing, which SAINT needs: give a MetaTensor with its affine"
    check_error(ValueError, named, infer, rand(1, 1, 5, 4, 3), **options)


@pytest.mark.parametrize("name", ["fuse", "disagreement"])
def test_switches(name):
    assert getattr(MultiViewSliceInferer(factor=2, **{name: "True"}), name) is True
    assert getattr(MultiViewSliceInferer(factor=2, **{name: "false"}), name) is False
    check_error(ValueError, f"{name} must be true or false, got 'maybe'", MultiViewSliceInferer, **{name: "maybe"})
