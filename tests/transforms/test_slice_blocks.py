# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Blocks of volumes: every drawn voxel is traced back to its place in the volume."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, Lambdad

from monai_sliceinterp.transforms import RandSliceBlocks, RandSliceBlocksd, slice_block
from tests.transforms.volumes import check_error, coded, decode
from tests.volumes import oblique

SPACING = (0.7, 0.9, 1.3)
KEYS = {"image", "label", "factor", "slice_spacing", "slice_thickness", "in_plane_spacing"}


def scan(shape=(20, 24, 30), channels=1, spacing=SPACING, rotated=False, dtype=torch.float32):
    """Coded volume with an affine."""
    affine = oblique(spacing) if rotated else np.diag([*spacing, 1.0])
    return MetaTensor(coded(*shape, channels).to(dtype), affine=torch.tensor(affine))


def line(found, axis):
    """The places along one axis of a block, if they change along that axis only, else None."""
    places = found.movedim(axis, -1)
    first = places.reshape(-1, places.shape[-1])[0]
    return first.tolist() if torch.equal(places, first.expand_as(places)) else None


def trace(block, patch, num_slices, shape=(20, 24, 30), spacing=SPACING, channels=1):
    """Check a block of a coded volume; return its factor, axis, stride, flips, transposition and first places."""
    image, label, factor = block["image"], block["label"], block["factor"]
    assert set(block) >= KEYS and isinstance(factor, int)
    assert type(image) is type(label) is torch.Tensor and image.dtype == label.dtype == torch.float32
    assert label.shape == (channels, *patch, factor * (num_slices - 1) + 1)
    assert image.shape == (channels, *patch, num_slices)
    assert image.is_contiguous() and label.is_contiguous()
    assert torch.equal(image, label[..., ::factor])
    channel, places = decode(label)
    assert line(channel, 0) == list(range(channels))
    # each axis of the block follows one axis of the volume, in equal steps, without leaving it
    origin = []
    for k in range(1, 4):
        varying = [axis for axis in range(3) if len((places[axis].movedim(k, -1)[0, 0, 0]).unique()) > 1]
        assert len(varying) == (label.shape[k] > 1)
        origin.append(varying[0] if varying else None)
    # an axis of one voxel, of which there is one at most, follows the axis that no other follows
    origin = [axis if axis is not None else ({0, 1, 2} - set(origin)).pop() for axis in origin]
    assert sorted(origin) == [0, 1, 2]
    steps = []
    for k, axis in enumerate(origin, 1):
        indices = line(places[axis], k)
        assert indices and min(indices) >= 0 and max(indices) < shape[axis]
        (step,) = set(np.diff(indices).tolist()) or {1}
        steps.append(step)
    # pixels are neighbors in-plane; slices are a stride apart
    assert abs(steps[0]) == abs(steps[1]) == 1
    stride = abs(steps[2])
    wanted = np.float32(spacing[origin[2]] * stride * factor)
    assert block["slice_spacing"].dtype == block["in_plane_spacing"].dtype == torch.float32
    assert block["slice_spacing"].shape == () and block["in_plane_spacing"].shape == (2,)
    assert block["slice_spacing"].item() == pytest.approx(wanted, rel=1e-6)
    in_plane = [spacing[origin[0]], spacing[origin[1]]]
    assert block["in_plane_spacing"].tolist() == pytest.approx(in_plane, rel=1e-6)
    turned = {"flips": tuple(step < 0 for step in steps), "transposed": origin[0] > origin[1]}
    corner = tuple(int(place.min()) for place in places)
    return {"factor": factor, "axis": origin[2], "stride": stride, "corner": corner, **turned}


def draw(sampler, volume, calls, patch, num_slices, **expected):
    return [trace(block, patch, num_slices, **expected) for _ in range(calls) for block in sampler(volume)]


class TestSliceBlock:
    def test_by_hand(self):
        volume = torch.arange(2 * 4 * 5 * 6).reshape(2, 4, 5, 6)  # the value is ((c 4 + x) 5 + y) 6 + z
        block = slice_block(volume, axis=2, corner=(1, 2, 1), shape=(2, 1, 3), stride=2)
        assert block.tolist() == [[[[43, 45, 47]], [[73, 75, 77]]], [[[163, 165, 167]], [[193, 195, 197]]]]
        block = slice_block(volume, axis=1, corner=(1, 0, 4), shape=(1, 2, 3), stride=2)
        assert block[0].tolist() == [[[34, 46, 58], [35, 47, 59]]]
        block = slice_block(volume, axis=0, corner=(0, 1, 3), shape=(2, 1, 2), stride=3)
        assert block[1].tolist() == [[[129, 219]], [[135, 225]]]


class TestBlocks:
    @pytest.mark.parametrize("rotated", [False, True])
    def test_everything_is_drawn(self, rotated):
        sampler = RandSliceBlocks(8, (3, 10), num_slices=3, factors=(2, 4), max_spacing=3.0).set_random_state(0)
        drawn = draw(sampler, scan(rotated=rotated), 60, (3, 10), 3)
        assert len(drawn) == 480
        # up to 4 x 0.7, 3 x 0.9, 2 x 1.3 mm; at factor 4 nine slices reach over 8 strides of 19, 23 or 29 gaps
        possible = {(2, axis, stride) for axis, most in ((0, 4), (1, 3), (2, 2)) for stride in range(1, most + 1)}
        possible |= {(4, axis, stride) for axis in range(3) for stride in (1, 2)}
        assert {(d["factor"], d["axis"], d["stride"]) for d in drawn} == possible
        for axis in range(3):
            found = [d for d in drawn if d["axis"] == axis]
            assert 110 < len(found) < 210  # a third each, whatever the number of strides
            assert len({d["flips"] for d in found}) == 8
            assert 0.3 < np.mean([d["transposed"] for d in found]) < 0.7
        assert np.all(np.abs(np.mean([d["flips"] for d in drawn], axis=0) - 0.5) < 0.12)
        # the corner goes wherever the block fits: with 9 slices at stride 2 the x axis has 4 places left
        corners = {d["corner"][0] for d in drawn if (d["factor"], d["axis"], d["stride"]) == (4, 0, 2)}
        assert corners == {0, 1, 2, 3}

    def test_factors(self):
        """All blocks of a call have one factor; it is drawn as often as it is written."""
        sampler = RandSliceBlocks(2, (3, 10), 3, factors=(4, 2, 4, 4)).set_random_state(0)
        counts = Counter()
        for _ in range(400):
            (factor,) = {block["factor"] for block in sampler(scan())}
            counts[factor] += 1
        assert 265 < counts[4] < 335 and counts[2] == 400 - counts[4]

    def test_phase_of_the_thinning_is_random(self):
        sampler = RandSliceBlocks(10, (3, 10), 3, factors=[2], any_axis=False, max_spacing=4.0).set_random_state(0)
        drawn = draw(sampler, scan(), 20, (3, 10), 3)
        phases = {(d["stride"], d["corner"][2] % d["stride"]) for d in drawn}
        assert phases == {(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)}

    def test_spacing_at_the_limit(self):
        """A spacing that just reaches the limit counts, whatever rounding makes of the quotient."""
        assert 0.3 / 0.1 < 3
        volume = scan((20, 20, 20), spacing=(0.05, 0.05, 0.1))
        sampler = RandSliceBlocks(1, (3, 10), 3, [2], max_spacing=0.3, any_axis=False)
        assert sampler.choices(volume, 2) == [(2, 1), (2, 2), (2, 3)]
        for max_spacing, axes in ((0.1, {0, 1, 2}), (0.0999, {2})):
            sampler = RandSliceBlocks(1, (3, 10), 3, [2], max_spacing=max_spacing)
            assert {axis for axis, _ in sampler.choices(volume, 2)} == axes

    @pytest.mark.parametrize("axis", [0, 1, 2])
    @pytest.mark.parametrize(("thick", "any_axis", "strides"), [(5.0, True, {1}), (1.4, False, {1, 2})])
    def test_only_the_through_plane_axis(self, axis, thick, any_axis, strides):
        """Thick slices are what there is: they are used as they are, but nothing else of such a volume."""
        spacing = [0.7, 0.9]
        spacing.insert(axis, thick)
        sampler = RandSliceBlocks(10, (3, 10), 3, [2], max_spacing=3.0, any_axis=any_axis).set_random_state(0)
        drawn = draw(sampler, scan(spacing=spacing), 5, (3, 10), 3, spacing=spacing)
        assert {(d["axis"], d["stride"]) for d in drawn} == {(axis, stride) for stride in strides}

    def test_configured_axis(self):
        """It holds where slices are finer than pixels, too (SAINT trains on slices from 0.7 mm)."""
        volume = scan(spacing=(0.9, 0.9, 0.7))
        for axis in range(3):
            sampler = RandSliceBlocks(8, (3, 8), 3, [2], any_axis=False, axis=axis).set_random_state(0)
            assert {block["axis"] for block in draw(sampler, volume, 2, (3, 8), 3, spacing=(0.9, 0.9, 0.7))} == {axis}

    def test_remaining_slices(self):
        """Section 4 of SAINT: dense volumes are thinned out as long as enough slices remain."""
        volume = scan((20, 24, 30), spacing=(1.0, 1.0, 1.0))
        for least, strides in ((0, {1, 2, 3}), (10, {1, 2, 3}), (11, {1, 2}), (16, {1}), (60, {1})):
            sampler = RandSliceBlocks(30, (3, 8), 3, [2], any_axis=False, min_remaining_slices=least)
            sampler.set_random_state(0)
            found = draw(sampler, volume, 1, (3, 8), 3, spacing=(1.0, 1.0, 1.0))
            assert {block["stride"] for block in found} == strides

    @pytest.mark.parametrize(("flip_prob", "expected"), [(0.0, {False}), (1.0, {True})])
    def test_flips(self, flip_prob, expected):
        sampler = RandSliceBlocks(8, (3, 8), 3, [2], flip_prob=flip_prob).set_random_state(0)
        flips = [flip for block in draw(sampler, scan(), 2, (3, 8), 3) for flip in block["flips"]]
        assert set(flips) == expected

    def test_sheared_stack(self):
        """The slices of a tilted gantry are as far apart as their planes, not as the step from one to the next."""
        affine = scan().affine
        affine[1, 2] = 1.3  # a step of 1.3 mm along y with every slice
        volume = MetaTensor(scan().as_tensor(), affine=affine)
        assert volume.pixdim[2] == pytest.approx(1.3 * 2**0.5)
        sampler = RandSliceBlocks(10, (3, 10), 3, [2], any_axis=False, max_spacing=1.3).set_random_state(0)
        draw(sampler, volume, 2, (3, 10), 3)

    @given(
        st.tuples(*[st.integers(2, 24)] * 3),
        st.permutations([0.61, 0.83, 1.17]),
        st.tuples(st.integers(1, 6), st.integers(1, 6)).filter(lambda patch: patch != (1, 1)),
        st.integers(2, 4),
        st.lists(st.integers(2, 5), min_size=1, max_size=3),
        st.floats(0.5, 4.0),
        st.booleans(),
        st.integers(0, 2**31),
    )
    @settings(max_examples=80, deadline=None, derandomize=True)
    def test_any_geometry(self, shape, spacing, patch, num_slices, factors, max_spacing, any_axis, seed):
        sampler = RandSliceBlocks(3, patch, num_slices, factors, max_spacing, any_axis=any_axis).set_random_state(seed)
        volume = scan(shape, channels=2, spacing=spacing)

        def fits(factor, axis):
            sides = sorted(size for k, size in enumerate(shape) if k != axis)
            wide = all(size >= wanted for size, wanted in zip(sides, sorted(patch), strict=True))
            return wide and shape[axis] > factor * (num_slices - 1)

        through_plane = spacing.index(1.17)
        axes = range(3) if any_axis and max_spacing >= 1.17 else [through_plane]
        usable = {factor: {axis for axis in axes if fits(factor, axis)} for factor in factors}
        if not any(usable.values()):
            check_error("is too small for blocks", sampler, volume)
            return
        for block in sampler(volume):
            found = trace(block, patch, num_slices, shape, spacing, channels=2)
            assert found["factor"] in factors and found["axis"] in usable[found["factor"]]
            assert found["stride"] == 1 or found["stride"] * spacing[found["axis"]] <= max_spacing + 1e-4

    @given(st.integers(2, 40), st.integers(2, 6), st.integers(2, 5), st.floats(0.1, 6.0), st.floats(0.1, 6.0))
    @settings(max_examples=80, deadline=None, derandomize=True)
    def test_choices(self, length, factor, num_slices, spacing, max_spacing):
        """Strides straight from the definition: within the spacing, and within the volume."""
        assume(abs(max_spacing / spacing - round(max_spacing / spacing)) > 1e-3)  # no matter of rounding
        volume = scan((4, 4, length), spacing=(spacing / 2, spacing / 2, spacing))
        sampler = RandSliceBlocks(1, (2, 2), num_slices, [factor], max_spacing, any_axis=False)
        strides = [stride for stride in range(1, 100) if stride == 1 or stride * spacing <= max_spacing]
        expected = [(2, stride) for stride in strides if factor * stride * (num_slices - 1) < length]
        assert sampler.choices(volume, factor) == expected

    def test_channels_and_types(self):
        for volume in (scan(channels=3), scan(channels=3, dtype=torch.int32), scan(channels=3, dtype=torch.float64)):
            sampler = RandSliceBlocks(4, (3, 10), 3, [2]).set_random_state(0)
            draw(sampler, volume, 3, (3, 10), 3, channels=3)

    def test_blocks_are_copies(self):
        volume = scan()
        for block in RandSliceBlocks(20, (3, 10), 3, [2]).set_random_state(0)(volume):
            block["label"] += 1
            assert torch.equal(block["image"], block["label"][..., ::2] - 1)
            block["image"] += 1
        assert torch.equal(volume.as_tensor(), scan().as_tensor())


class TestThickness:
    """Slabs of random width, on volumes that tell the place (code), the width (square) and the weights (noise)."""

    shape, num_slices, factor = (9, 8, 60), 4, 4

    def volume(self, axis=2):
        """Code, squared index of the slice, and noise, with slices along an axis; Gaussian slabs keep the code."""
        code = scan(self.shape, dtype=torch.float64).as_tensor()
        index = torch.arange(60, dtype=torch.float64).expand(1, *self.shape)
        noise = torch.rand(1, *self.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        values = torch.cat([code, index**2, noise]).movedim(3, axis + 1)
        spacing = [1.0, 1.0]
        spacing.insert(axis, 1.5)
        return MetaTensor(values, affine=torch.diag(torch.tensor([*spacing, 1.0])))

    def widths(self, block):
        """Check the slices of a block that lie far enough from its ends; return the width and the stride."""
        label = block["label"].double()
        assert torch.equal(block["image"], block["label"][..., :: self.factor])
        count = label.shape[-1]
        middle = slice(4, count - 4)  # slabs of two gaps reach 3.4 gaps to either side
        channel, places = decode(label[:1, ..., middle].round())
        assert (channel == 0).all()
        first, second, *_ = found = line(places[2], 3)
        stride = abs(second - first)
        assert len(set(np.diff(found).tolist())) == 1
        spread = label[1, ..., middle] - torch.tensor(found, dtype=torch.float64) ** 2
        variance = spread.mean().item()
        torch.testing.assert_close(spread, torch.full_like(spread, variance), rtol=0, atol=2e-3)
        assert block["slice_spacing"].item() == 1.5 * stride * self.factor  # the spacing is that of the centers
        if variance > 0.6:  # narrower ones are hardly Gaussian on the grid
            noise = self.volume()[2].as_tensor()[places[0][0, :, :, 0], places[1][0, :, :, 0]]
            for position, image in zip(found, label[2, ..., middle].movedim(-1, 0), strict=True):
                weights = torch.exp(-((torch.arange(60) - position) ** 2) / (2 * variance)).double()
                torch.testing.assert_close(image, noise @ (weights / weights.sum()), rtol=0, atol=2e-3)
        return 2.354820045 * variance**0.5 / stride, stride

    @pytest.mark.parametrize("axis", [0, 2])
    @pytest.mark.parametrize("most", [1.2, 2.0])
    def test_slabs(self, most, axis):
        options = {"max_spacing": 6.0, "max_thickness": most, "any_axis": False}
        sampler = RandSliceBlocks(40, (3, 5), self.num_slices, [self.factor], **options).set_random_state(0)
        blocks = sampler(self.volume(axis))
        assert {tuple(block["label"].shape) for block in blocks} == {(3, 3, 5, 13)}
        widths, strides = zip(*map(self.widths, blocks), strict=True)
        assert set(strides) == {1, 2, 3, 4}
        # drawn anew for each block between 0 and the most, whatever the stride
        assert 0 <= min(widths) < 0.25 * most and 0.8 * most < max(widths) < 1.01 * most
        assert 0.35 < np.mean(widths) / most < 0.65
        assert len(set(np.round(widths, 3))) > 30

    @pytest.mark.parametrize("most", [0.0, 2.0])
    def test_integers(self, most):
        """Neither slabs nor the contrast of int16 intensities are computed in int16."""
        values = (torch.arange(20**3).reshape(1, 20, 20, 20) % 2 * 30000).to(torch.int16)
        sampler = RandSliceBlocks(9, (3, 10), 3, [2], max_thickness=most, any_axis=not most).set_random_state(0)
        for block in sampler(MetaTensor(values)):
            label = block["label"]
            assert label.dtype == torch.float32 and 0 <= label.min() <= label.max() <= 30000
            assert most or label.max() == 30000


class TestContrast:
    def volume(self, shape=(12, 12, 40)):
        """Constant but for one slab at the end of the slice axis."""
        values = torch.full((1, *shape), 0.5)
        values[..., -2:] = torch.rand(1, *shape[:2], 2, generator=torch.Generator().manual_seed(0))
        return MetaTensor(values, affine=torch.diag(torch.tensor([1.0, 1.0, 2.0, 1.0])))

    def share(self, **options):
        """Share of blocks with contrast."""
        sampler = RandSliceBlocks(100, (4, 4), 3, [2], max_spacing=1.0, **options).set_random_state(0)
        return np.mean([block["label"].std().item() > 0 for block in sampler(self.volume())])

    def test_blocks_without_contrast_are_drawn_anew(self):
        # of the 36 places along the slices, 2 touch the slab
        assert self.share(max_tries=1) < 0.15
        assert 0.25 < self.share(max_tries=10) < 0.65
        assert self.share(max_tries=500) == 1
        assert self.share(min_contrast=0.0, max_tries=500) < 0.15

    def test_threshold(self):
        values = torch.zeros(1, 8, 8, 60)
        values[..., 30::2], values[..., :30:2] = 2.0, 0.2  # blocks with a standard deviation of 1 and of 0.1
        volume = MetaTensor(values, affine=torch.diag(torch.tensor([1.0, 1.0, 2.0, 1.0])))
        for threshold, low, high in ((0.09, 0.3, 0.7), (0.2, 0.99, 1.0)):
            sampler = RandSliceBlocks(100, (4, 4), 3, [2], 1.0, min_contrast=threshold, max_tries=200)
            strong = [block["label"].std() > 0.2 for block in sampler.set_random_state(0)(volume)]
            assert low < np.mean(strong) <= high

    @pytest.mark.parametrize("max_tries", [1, 7])
    def test_tries_end(self, max_tries, monkeypatch):
        """A volume without any contrast is sampled all the same, after the given number of tries."""
        calls = []

        def count(*args, **kwargs):
            calls.append(kwargs["corner"])
            return slice_block(*args, **kwargs)

        volume = MetaTensor(torch.full((1, 20, 20, 20), 0.3))
        sampler = RandSliceBlocks(3, (3, 10), 3, [2], max_tries=max_tries).set_random_state(0)
        monkeypatch.setattr("monai_sliceinterp.transforms.slice_blocks.slice_block", count)
        sampler.randomize(volume)
        assert len(calls) == 3 * max_tries
        assert max_tries == 1 or len(set(map(tuple, calls))) > max_tries
        blocks = sampler(volume)
        assert len(blocks) == 3
        assert all((block["label"] == 0.3).all() for block in blocks)


class TestErrors:
    @pytest.mark.parametrize("shape", [(20, 24, 12), (2, 24, 30), (20, 2, 30), (9, 9, 30), (1, 1, 1)])
    def test_volume_too_small(self, shape):
        volume, size = scan(shape), "x".join(map(str, shape))
        pattern = f"a volume of {size} voxels is too small for blocks of 4 slices at factor 4 and 3x10 pixels"
        options = {"num_samples": 1, "patch_size": (3, 10), "num_slices": 4, "factors": (6, 4), "any_axis": False}
        check_error("^" + pattern, RandSliceBlocks(**options), volume)
        check_error("^ct: " + pattern, RandSliceBlocksd("ct", **options), {"ct": volume})
        volume.meta["filename_or_obj"] = "data/scan 1.nii.gz"
        check_error("^data/scan 1.nii.gz: " + pattern, RandSliceBlocksd("ct", **options), {"ct": volume})

    def test_too_small_for_the_large_factor(self):
        sampler = RandSliceBlocks(2, (3, 10), 4, (6, 6, 6, 4, 2), any_axis=False).set_random_state(0)
        counts = Counter(sampler(scan((20, 24, 13)))[0]["factor"] for _ in range(100))
        assert set(counts) == {4, 2} and min(counts.values()) > 30
        # with 18 gaps the large factor is back
        counts = Counter(sampler(scan((20, 24, 19)))[0]["factor"] for _ in range(100))
        assert counts[6] > 40

    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            ({"num_samples": 0}, "num_samples must be a positive integer, got 0"),
            ({"max_tries": 0}, "max_tries must be a positive integer, got 0"),
            ({"patch_size": (3,)}, r"patch_size must be 2 positive integers, got \(3,\)"),
            ({"patch_size": (3, 0)}, "patch_size"),
            ({"patch_size": (3, 4, 5)}, "patch_size"),
            ({"num_slices": 1}, "num_slices must be an integer of at least 2, got 1"),
            ({"factors": ()}, r"factors must be one or more integers of at least 2, got \(\)"),
            ({"factors": (4, 1)}, r"factors must be one or more integers of at least 2, got \(4, 1\)"),
            ({"factors": [2.5]}, "factors"),
            ({"factors": [True]}, "factors"),
            ({"max_spacing": 0}, "max_spacing must be a positive number of mm, got 0"),
            ({"max_spacing": -1.0}, "max_spacing"),
            ({"max_spacing": float("nan")}, "max_spacing"),
            ({"max_thickness": -0.1}, "max_thickness must be zero or a positive number, got -0.1"),
            ({"max_thickness": float("inf")}, "max_thickness"),
            ({"max_thickness": float("nan")}, "max_thickness"),
        ],
    )
    def test_parameters(self, wrong, named):
        check_error(named, RandSliceBlocks, **wrong)
        check_error(named, RandSliceBlocksd, "image", **wrong)

    def test_several_keys(self):
        check_error(r"expected one key, got \('image', 'label'\)", RandSliceBlocksd, ["image", "label"])

    def test_missing_key(self):
        with pytest.raises(KeyError, match="gone"):
            RandSliceBlocksd("gone")({"image": scan()})
        data = {"image": scan(), "subject": 3}
        (item,) = RandSliceBlocksd("gone", allow_missing_keys=True)(data)
        assert set(item) == {"image", "subject"} and item["image"] is data["image"]


class TestSeeds:
    def test_reproducible(self):
        """The array and the dictionary transform, alone and in a Compose, draw the same from the same state."""
        options = (6, (3, 10), 3, (2, 4, 3))
        sampler, dictionary, runs = RandSliceBlocks(*options), RandSliceBlocksd("image", *options), []
        for seed in (5, 5, 6):
            assert dictionary.set_random_state(state=np.random.RandomState(seed)) is dictionary
            sampler.set_random_state(seed=seed)
            labels = []
            for _ in range(4):
                for expected, found in zip(sampler(scan()), dictionary({"image": scan()}), strict=True):
                    assert set(found) == KEYS and found["factor"] == expected["factor"]
                    assert all(torch.equal(found[key], expected[key]) for key in KEYS - {"factor"})
                    labels.append(expected["label"])
            runs.append(labels)
        assert all(map(torch.equal, runs[0], runs[1]))
        assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(runs[0], runs[2], strict=True))
        assert len({str(label.tolist()) for label in runs[0]}) > 20  # and the calls of a run differ
        again = sampler(scan(), randomize=False)
        assert all(torch.equal(block["label"], label) for block, label in zip(again, runs[2][-6:], strict=True))

    def test_options_reach_the_sampler(self):
        options = {"num_samples": 3, "patch_size": (4, 5), "num_slices": 6, "factors": (7, 8), "max_spacing": 1.5}
        options |= {"max_thickness": 1.7, "any_axis": False, "min_contrast": 0.3, "max_tries": 4}
        sampler = RandSliceBlocksd("image", **options).transform
        assert {key: getattr(sampler, key) for key in options} == options


class TestDictionary:
    def test_other_keys_are_kept(self):
        volume = scan()
        data = {"ct": volume, "subject": "s1", "label": "overwritten"}
        items = RandSliceBlocksd("ct", 4, (3, 10), 3, [2]).set_random_state(0)(data)
        assert len(items) == 4
        for item in items:
            assert set(item) == KEYS | {"ct", "subject"} and item["subject"] == "s1"
            assert torch.equal(item["ct"], item["image"])
            trace(item, (3, 10), 3)
        assert len({tuple(item["label"].flatten().tolist()) for item in items}) == 4
        assert set(data) == {"ct", "subject", "label"} and data["ct"] is volume and data["label"] == "overwritten"

    @pytest.mark.parametrize("dataset", [Dataset, CacheDataset])
    @pytest.mark.parametrize("workers", [0, 1])
    def test_loader(self, dataset, workers):
        calls = []
        note = Lambdad("image", lambda image: calls.append(1) or image)
        chain = Compose([note, RandSliceBlocksd("image", 3, (3, 10), 3, [2])]).set_random_state(seed=0)
        options = {"progress": False} if dataset is CacheDataset else {}
        items = [{"image": scan()} for _ in range(2)]
        loader = DataLoader(dataset(items, chain, **options), batch_size=2, num_workers=workers)
        drawn = []
        for batch in (*loader, *loader):
            assert batch["image"].shape == (6, 1, 3, 10, 3)
            for k in range(6):
                sample = {key: batch[key][k] for key in KEYS - {"factor"}}
                drawn.append(str(trace({**sample, "factor": int(batch["factor"][k])}, (3, 10), 3)))
        assert len(drawn) == 12 and len(set(drawn)) > 9
        if dataset is CacheDataset:  # the volumes are cached, the blocks are not
            assert len(calls) == 2


class TestShortVolumes:
    def test_as_many_slices_as_there_are(self):
        volume = scan((20, 24, 7), spacing=(1, 1, 8))
        sampler = RandSliceBlocks(2, (8, 8), num_slices=6, factors=[2, 3, 6, 7], max_spacing=3, min_slices=2)
        found = {
            (block["factor"], block["image"].shape[-1])
            for seed in range(40)
            for block in sampler.set_random_state(seed)(volume)
        }
        assert found == {(2, 4), (3, 3), (6, 2)}
        with pytest.raises(ValueError, match="too small for blocks of 6 slices at factor 2"):
            RandSliceBlocks(2, (8, 8), num_slices=6, factors=[2])(volume)
        with pytest.raises(ValueError, match="too small for blocks of 2 slices at factor 7"):
            RandSliceBlocks(2, (8, 8), num_slices=6, factors=[7], min_slices=2)(volume)

    def test_enough_slices_change_nothing(self):
        with_least, without = (
            RandSliceBlocks(4, (8, 8), 3, [2, 3], 3.0, 1.0, min_slices=least).set_random_state(0)(scan())
            for least in (2, None)
        )
        assert all(torch.equal(a["label"], b["label"]) for a, b in zip(with_least, without, strict=True))


class TestDraws:
    def test_probability_of_slabs(self):
        sampler = RandSliceBlocks(200, (8, 8), 3, [2], max_thickness=2.0, thickness_prob=0.3).set_random_state(0)
        told = torch.stack([block["slice_thickness"] for block in sampler(scan())])
        assert 0.2 < (told > 0).float().mean() < 0.4

    def test_thickness_is_told_in_mm(self):
        sampler = RandSliceBlocks(20, (8, 8), 3, [2], max_thickness=2.0, any_axis=False).set_random_state(0)
        for draw, block in zip(sampler.draws, blocks := sampler(scan()), strict=False):
            assert float(block["slice_thickness"]) == pytest.approx(draw["thickness"] * draw["stride"] * 1.3)
        assert len(blocks) == 20

    def test_one_channel(self):
        blocks = RandSliceBlocks(30, (8, 8), 3, [2], draw_channel=True).set_random_state(0)(scan(channels=3))
        assert {int(decode(block["label"])[0].unique()) for block in blocks} == {0, 1, 2}
        assert all(block["label"].shape[0] == 1 for block in blocks)
