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

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor, decollate_batch, list_data_collate
from scipy.spatial.transform import Rotation
from torch import nn
from tqdm import tqdm

from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.inferers import MultiViewSliceInferer, SplineSliceInferer, base
from monai_sliceinterp.networks.blocks.views import VIEW_DIRECTIONS
from monai_sliceinterp.networks.nets import SAINT

SIZE = {"channels": 8, "num_blocks": 1, "num_layers": 2, "growth": 4}
SPACING = (0.7, 1.1, 4.0)
networks: dict[tuple, SAINT] = {}


def make_network(num_views=2, spatial_dims=2, edge="replicate", size=SIZE, dtype=torch.float64):
    """A network far from its start, where AMI is an interpolation and RFN the mean; float64 for sharp comparisons."""
    key = (num_views, spatial_dims, edge, size["channels"], dtype)
    if key not in networks:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = SAINT(size, {**size, "spatial_dims": spatial_dims}, num_views, edge)
        with torch.no_grad():
            for parameter in (*network.ami.filter_generation.parameters(), *network.rfn.network.last.parameters()):
                parameter.mul_(2)
            network.ami.filter_generation.layers[-1].weight.mul_(4)
            network.rfn.network.last.weight.mul_(5)
            network.rfn.network.last.bias.fill_(0.3)
        networks[key] = network.to(dtype).eval()
    return networks[key]


def rand(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def make_scan(*shape, spacing=SPACING, seed=0, dtype=torch.float64, **meta):
    """Scan ``(B, C, H, W, N)`` with intensities in [0, 1]."""
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    return MetaTensor(rand(*shape, seed=seed, dtype=dtype), affine=affine, meta=meta)


def infer(scan, network=None, **options):
    result = MultiViewSliceInferer(**options)(scan, make_network() if network is None else network)
    return result.as_tensor() if isinstance(result, MetaTensor) else result


def single_views(scan, network, **options):
    """What each view says, ``(views, B, C, H, W, M)``."""
    return torch.stack([infer(scan, network, fuse=False, views=(name,), **options) for name in network.directions])


def close(found, expected, atol=1e-10):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def check_error(kind, named, function, *args, **kwargs):
    with pytest.raises(kind, match=named) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)


class Wrapper:
    """What DataParallel and DistributedDataParallel look like."""

    def __init__(self, module):
        self.module = module

    def __call__(self, *args, **kwargs):
        raise AssertionError("the wrapper itself must not be called")


class TestEqualsTheNetwork:
    @pytest.mark.parametrize("fuse", [True, False])
    @pytest.mark.parametrize("factor", [2, 5])
    @pytest.mark.parametrize("edge", ["replicate", "zero"])
    @pytest.mark.parametrize("num_views", [2, 4])
    def test_forward(self, num_views, edge, factor, fuse):
        network = make_network(num_views, edge=edge)
        scan = make_scan(1, 1, 9, 7, 4)
        with torch.no_grad():
            expected = network(scan.as_tensor(), factor, SPACING[2], SPACING[:2], fuse)
        found = infer(scan, network, factor=factor, fuse=fuse)
        assert found.shape == (1, 1, 9, 7, 3 * factor + 1)
        close(found, expected)
        # the comparison is worth something: this is far from linear interpolation, and fusing from the mean
        linear = SplineSliceInferer(factor=factor, mode="linear")(scan).as_tensor()
        assert abs(found - linear).mean() > 0.01
        assert abs(found - infer(scan, network, factor=factor, fuse=not fuse)).mean() > 0.01

    @pytest.mark.parametrize("num_views", [2, 4])
    def test_fusion_in_3d(self, num_views):
        """The fusion network sees neighboring slices, observed ones among them, as it did in training."""
        network = make_network(num_views, spatial_dims=3)
        scan = make_scan(1, 1, 9, 7, 4)
        with torch.no_grad():
            expected = network(scan.as_tensor(), 3, SPACING[2], SPACING[:2])
        close(infer(scan, network, factor=3), expected)

    def test_fusion_in_3d_without_observed_slices(self):
        network = make_network(spatial_dims=3)
        scan = make_scan(1, 1, 9, 7, 4)
        with torch.no_grad():
            expected = network(scan.as_tensor(), 3, SPACING[2], SPACING[:2])
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
        with torch.no_grad():
            expected = network(scan.as_tensor(), factor, spacing[2], spacing[:2], fuse)
        close(infer(scan, network, factor=factor, fuse=fuse, batch_size=batch_size), expected)

    @pytest.mark.parametrize("size", [(1, 1), (1, 6), (6, 1), (3, 3), (5, 11), (33, 2)])
    def test_small_and_odd_sizes(self, size):
        for num_views in (2, 4):
            network = make_network(num_views)
            scan = make_scan(1, 1, *size, 2)
            with torch.no_grad():
                expected = network(scan.as_tensor(), 3, SPACING[2], SPACING[:2])
            found = infer(scan, network, factor=3)
            assert found.shape == (1, 1, *size, 4)
            close(found, expected)

    def test_single_precision(self):
        scan = make_scan(1, 1, 12, 9, 4)
        found = infer(scan.float(), make_network(dtype=torch.float32), factor=3)
        assert found.dtype == torch.float32
        close(found.double(), infer(scan, factor=3), atol=1e-5)
        assert torch.equal(found[..., ::3], scan.as_tensor().float())

    def test_samples_and_channels_are_interpolated_one_by_one(self):
        scan = make_scan(2, 3, 6, 5, 3)
        found = infer(scan, factor=3)
        assert found.shape == (2, 3, 6, 5, 7)
        for b in range(2):
            for c in range(3):
                close(found[b, c], infer(scan[b : b + 1, c : c + 1], factor=3)[0, 0])
        with torch.no_grad():
            expected = make_network()(scan.as_tensor().flatten(0, 1)[:, None], 3, SPACING[2], SPACING[:2])
        close(found.flatten(0, 1)[:, None], expected)

    def test_wrapper_is_taken_off(self):
        scan = make_scan(1, 1, 6, 5, 3)
        assert torch.equal(infer(scan, Wrapper(make_network()), factor=2), infer(scan, factor=2))
        network = nn.DataParallel(make_network())
        assert torch.equal(infer(scan, network, factor=2), infer(scan, factor=2))

    def test_no_gradient(self):
        scan = make_scan(1, 1, 6, 5, 3)
        assert not MultiViewSliceInferer(factor=2)(scan, make_network()).requires_grad

    def test_input_and_network_are_left_alone(self):
        scan = make_scan(1, 1, 6, 5, 3)
        before, weights = scan.as_tensor().clone(), [p.clone() for p in make_network().parameters()]
        result = MultiViewSliceInferer(factor=2, value_range=(0.2, 0.8), disagreement=True)(scan, make_network())
        result += 1
        assert torch.equal(scan.as_tensor(), before) and scan.pixdim.tolist() == pytest.approx(SPACING)
        assert all(torch.equal(p, q) for p, q in zip(make_network().parameters(), weights, strict=True))


class TestPositions:
    def test_factor_equals_spacing(self):
        scan = make_scan(1, 1, 7, 6, 5)
        by_factor = MultiViewSliceInferer(factor=4)(scan, make_network())
        by_spacing = MultiViewSliceInferer(spacing=1.0)(scan, make_network())
        assert torch.equal(by_factor.as_tensor(), by_spacing.as_tensor())
        assert torch.equal(by_factor.affine, by_spacing.affine)
        by_nothing = MultiViewSliceInferer()(make_scan(1, 1, 7, 6, 5, spacing=(1.1, 1.0, 4.0)), make_network())
        assert by_nothing.shape == by_spacing.shape and by_nothing.pixdim.tolist() == pytest.approx([1.1, 1, 1])

    @pytest.mark.parametrize("num_views", [2, 4])
    @pytest.mark.parametrize(("step", "factor"), [(3, 8), (2, 5)])
    def test_any_spacing(self, step, factor, num_views):
        """Slices 3/8 of a gap apart are every third one of those by factor 8, wherever they lie."""
        network = make_network(num_views)
        scan = make_scan(1, 1, 7, 6, 5)
        found = MultiViewSliceInferer(spacing=4.0 * step / factor)(scan, network)
        close(found.as_tensor(), infer(scan, network, factor=factor)[..., ::step])
        assert found.pixdim.tolist() == pytest.approx([0.7, 1.1, 4.0 * step / factor])

    @pytest.mark.parametrize("options", [{"factor": 3}, {"spacing": 3.0}, {"factor": 3, "fuse": False}])
    @pytest.mark.parametrize("spatial_dims", [2, 3])
    def test_observed_slices_are_bit_exact(self, options, spatial_dims):
        scan = make_scan(1, 2, 7, 6, 7)
        scan = (scan * 3.7 - 1.3).clone()  # far beyond the range the network knows
        network = make_network(4, spatial_dims)
        for value_range in (None, (0.0, 1.0)):
            found = infer(scan, network, value_range=value_range, **options)
            expected = scan.as_tensor() if "factor" in options else scan.as_tensor()[..., ::3]
            assert torch.equal(found[..., :: 3 if "factor" in options else 4], expected)

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

    def test_factor_one(self):
        scan = make_scan(1, 2, 7, 6, 4)
        assert torch.equal(infer(scan, factor=1), scan.as_tensor())


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

    def test_each_spacing_matters(self):
        """Another spacing along H changes only what sees that axis, and so on."""
        network = make_network(4)
        values = rand(1, 1, 8, 8, 4)

        def views(*spacing):
            affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
            return single_views(MetaTensor(values, affine=affine), network, factor=4)

        reference = views(0.7, 1.1, 4.0)
        for spacing, changed in (
            ((0.9, 1.1, 4.0), [False, True, True, True]),
            ((0.7, 1.4, 4.0), [True, False, True, True]),
            ((0.7, 1.1, 5.0), [True, True, True, True]),
        ):
            difference = abs(views(*spacing) - reference).flatten(1).max(1).values
            assert (difference > 1e-3).tolist() == changed
            assert (difference[~torch.tensor(changed)] == 0).all()

    def test_transposed_scan(self):
        """Rows of the one are columns of the other: their mean is transposed, with the spacings."""
        scan = make_scan(1, 1, 9, 6, 4)
        swapped = MetaTensor(
            scan.as_tensor().transpose(2, 3).contiguous(),
            affine=torch.diag(torch.tensor([1.1, 0.7, 4.0, 1.0], dtype=torch.float64)),
        )
        close(infer(swapped, factor=3, fuse=False), infer(scan, factor=3, fuse=False).transpose(2, 3))
        views, other = (single_views(image, make_network(), factor=3) for image in (scan, swapped))
        close(other.flip(0), views.transpose(3, 4))
        # a scan transposed without its affine gives something else
        wrong = MetaTensor(swapped.as_tensor(), affine=scan.affine)
        assert abs(infer(wrong, factor=3, fuse=False) - infer(swapped, factor=3, fuse=False)).max() > 1e-3

    def test_axis_that_runs_backwards(self):
        """An axis that runs backwards has a positive spacing all the same."""
        scan = make_scan(1, 1, 9, 6, 4)
        flipped = MetaTensor(scan.as_tensor().flip(2), affine=torch.diag(torch.tensor([-0.7, 1.1, 4.0, 1.0])))
        found = infer(flipped, factor=3, fuse=False)
        with torch.no_grad():
            close(found, make_network()(flipped.as_tensor(), 3, 4.0, (0.7, 1.1), fuse=False), atol=1e-6)

    def test_orientation_does_not_matter(self):
        scan = make_scan(1, 1, 9, 6, 4)
        affine = np.eye(4)
        affine[:3, :3] = Rotation.from_euler("xyz", [10, -25, 40], degrees=True).as_matrix() @ np.diag(SPACING)
        affine[:3, 3] = (-100, 20, 300)
        turned = MetaTensor(scan.as_tensor(), affine=torch.tensor(affine))
        close(infer(turned, factor=3), infer(scan, factor=3), atol=1e-6)

    def test_slices_are_last_whatever_the_spacings(self):
        """Slices are along the last axis even where another spacing is larger."""
        spacing = (5.0, 1.1, 4.0)
        scan = make_scan(1, 1, 9, 6, 4, spacing=spacing)
        with torch.no_grad():
            close(infer(scan, factor=3), make_network()(scan.as_tensor(), 3, 4.0, spacing[:2]))

    def test_tilted_gantry(self):
        """Planes are closer than the step from slice to slice, and the distance of the planes counts."""
        affine = torch.diag(torch.tensor([*SPACING, 1.0], dtype=torch.float64))
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

    def test_collated_batch(self):
        items = [{"image": make_scan(1, 6, 5, 3, seed=k, filename_or_obj=f"{k}.nii")} for k in range(2)]
        batch = list_data_collate(items)["image"]
        inferer = MultiViewSliceInferer(factor=2, disagreement=True)
        parts = decollate_batch(inferer(batch, make_network()))
        for number, (part, item) in enumerate(zip(parts, items, strict=True)):
            alone = inferer(item["image"][None], make_network())[0]
            close(part.as_tensor(), alone.as_tensor())
            close(part.meta["disagreement"], alone.meta["disagreement"][0])
            assert part.shape == (1, 6, 5, 5) and part.meta["filename_or_obj"] == f"{number}.nii"
            assert part.affine.shape == (4, 4) and part.pixdim.tolist() == pytest.approx([0.7, 1.1, 2.0])

    @pytest.mark.parametrize("progress", [True, False])
    def test_progress_counts_synthesized_slices(self, monkeypatch, progress):
        bars = []

        class Bar(tqdm):
            def __init__(self, *args, **kwargs):
                self.screen = io.StringIO()
                super().__init__(*args, file=self.screen, **kwargs)
                bars.append(self)

        monkeypatch.setattr(base, "tqdm", Bar)
        for options, count in (({}, 3 * 4), ({"keep_observed": False}, 17), ({"fuse": False, "batch_size": 5}, 12)):
            infer(make_scan(2, 3, 4, 5, 5), factor=4, progress=progress, **options)
            if progress:
                assert bars[-1].n == bars[-1].total == 2 * 3 * count
            assert ("slice" in bars[-1].screen.getvalue()) == progress


class TestReceptiveField:
    """A tiny network whose output sees 5 pixels to either side along a view's images and 1 across, then 5 in RFN.

    Features see 4 pixels (four 3x3 convolutions), generated filters 1 more; RFN has five 3x3 convolutions. The image
    next to one of a diagonal view is 1 pixel away along W, so 11 pixels are enough for any number of views.
    """

    tiny = {"channels": 4, "num_blocks": 1, "num_layers": 1, "growth": 2}
    reach = 11

    @pytest.mark.parametrize("num_views", [2, 4])
    def test_padding(self, num_views):
        """A scan in a constant border gives the same however wide the border is, from the receptive field on."""
        network = make_network(num_views, size=self.tiny)
        values = rand(1, 1, 8, 6, 3)

        def inner(pad):
            padded = nn.functional.pad(values, (0, 0, pad, pad, pad, pad), value=0.4)
            scan = MetaTensor(padded, affine=make_scan(1, 1, 1, 1, 2).affine)
            return infer(scan, network, factor=3)[:, :, pad : pad + 8, pad : pad + 6]

        close(inner(self.reach), inner(self.reach + 6))
        assert abs(inner(2) - inner(self.reach)).max() > 1e-3

    @pytest.mark.parametrize("num_views", [2, 4])
    def test_crop(self, num_views):
        network, scan = make_network(num_views, size=self.tiny), make_scan(1, 1, 34, 36, 3)
        crop = MetaTensor(scan.as_tensor()[:, :, 3:30, 4:32].clone(), affine=scan.affine)
        whole, part = infer(scan, network, factor=3)[:, :, 3:30, 4:32], infer(crop, network, factor=3)
        inside = slice(self.reach, -self.reach)
        assert part[:, :, inside, inside].shape == (1, 1, 5, 6, 7)
        close(part[:, :, inside, inside], whole[:, :, inside, inside])
        assert abs(part - whole).max() > 1e-3


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


class TestErrors:
    @pytest.mark.parametrize("kind", [torch.int16, torch.uint8, torch.bool])
    def test_not_floating_point(self, kind):
        scan = MetaTensor(torch.zeros(1, 1, 5, 4, 3, dtype=kind))
        check_error(ValueError, f"expected floating point volumes, got {kind}", infer, scan, factor=2)

    @pytest.mark.parametrize("shape", [(5, 4, 3), (1, 5, 4, 3), (1, 1, 1, 5, 4, 3)])
    def test_not_a_batch_of_volumes(self, shape):
        check_error(ValueError, r"expected volumes \(B, C, H, W, N\)", infer, MetaTensor(torch.zeros(shape)), factor=2)

    def test_one_slice(self):
        check_error(ValueError, "at least 2 slices, got 1", infer, make_scan(1, 1, 5, 4, 1), factor=2)

    @pytest.mark.parametrize("options", [{"factor": 2}, {"factor": 2, "fuse": False}])
    def test_plain_tensor(self, options):
        named = "a plain tensor has no spacing, which SAINT needs: give a MetaTensor with its affine"
        check_error(ValueError, named, infer, rand(1, 1, 5, 4, 3), **options)

    @pytest.mark.parametrize("options", [{"spacing": 1.0}, {}])
    def test_plain_tensor_without_a_factor(self, options):
        check_error(ValueError, "a MetaTensor with its affine", infer, rand(1, 1, 5, 4, 3), **options)

    @pytest.mark.parametrize("network", [None, nn.Identity(), lambda image: image, Wrapper(nn.Identity())])
    def test_not_saint(self, network):
        named = f"expected a SAINT network, got {type(network).__name__}"
        inferer = MultiViewSliceInferer(factor=2)
        check_error(TypeError, named, inferer, make_scan(1, 1, 5, 4, 3), network)

    def test_part_of_saint(self):
        inferer = MultiViewSliceInferer(factor=2)
        for part in (make_network().ami, make_network().rfn):
            check_error(TypeError, "expected a SAINT network", inferer, make_scan(1, 1, 5, 4, 3), part)

    @pytest.mark.parametrize("batch_size", [-1, 1.5, "2", True, None])
    def test_batch_size(self, batch_size):
        named = f"batch_size must be an integer of at least 0.*got {batch_size!r}"
        check_error(ValueError, named, MultiViewSliceInferer, factor=2, batch_size=batch_size)

    def test_options_of_the_base_class(self):
        check_error(ValueError, "not both", MultiViewSliceInferer, factor=2, spacing=1.0)
        check_error(ValueError, "value_range must be ascending", MultiViewSliceInferer, value_range=(1.0, 0.0))
