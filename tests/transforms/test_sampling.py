# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Groups and pairs of slices: every drawn pixel is traced back to its place in the volume."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, Lambdad

from monai_sliceinterp.transforms import RandSliceGroups, RandSliceGroupsd, RandSlicePairs, RandSlicePairsd, slice_group
from tests.transforms.volumes import check_error, coded, decode

FULL = (9, 12, 11)  # size of a coded volume


def check_sample(sample, size, count, patch, channels=1, fractional=False):
    """Check a sample of a coded volume; return the slices in the order of the group, row and column."""
    height, width, num_slices = size
    assert set(sample) == {"image", "label", "alpha"}
    assert sample["image"].shape == (2 * channels, *patch) and sample["label"].shape == ((count - 2) * channels, *patch)
    for value in sample.values():
        assert type(value) is torch.Tensor and value.dtype == torch.float32 and value.is_contiguous()
    image, label = (sample[key].unflatten(0, (-1, channels)) for key in ("image", "label"))
    group = torch.cat([image[:1], label, image[1:]])  # in order: (n, C, h, w)
    channel, (rows, columns, slices) = decode(group)
    assert torch.equal(channel, torch.arange(channels)[:, None, None].expand_as(channel))
    indices = slices[:, 0, 0, 0].tolist()
    assert torch.equal(slices, slices[:, :1, :1, :1].expand_as(slices))
    # one distance, one way or the other
    steps = {after - before for before, after in zip(indices, indices[1:], strict=False)}
    assert len({step > 0 for step in steps}) == 1 and 0 not in steps and (fractional or len(steps) == 1)
    assert min(indices) >= 0 and max(indices) < num_slices
    # the same in-plane window in all, border repeated past the end
    row, column = rows.min().item(), columns.min().item()
    for found, start, length, extent, axis in ((rows, row, height, patch[0], 2), (columns, column, width, patch[1], 3)):
        expected = (start + torch.arange(extent)).clamp(max=length - 1)
        assert torch.equal(found.movedim(axis, -1), expected.expand_as(found.movedim(axis, -1)))
        assert start + extent <= length or start == 0
    # alpha: how far from the first to the second of the pair
    first, *between, last = indices
    expected = [(index - first) / (last - first) for index in between]
    assert sample["alpha"].reshape(-1).tolist() == pytest.approx(expected, abs=1e-7)
    return tuple(indices), row, column


def trace(sampler, volume=None, calls=1, count=3, patch=(4, 4), **options):
    """Draw and check samples; return their slices, rows and columns."""
    volume = coded() if volume is None else volume
    size = tuple(volume.shape[1:])
    return [check_sample(s, size, count, patch, **options) for _ in range(calls) for s in sampler(volume)]


def check_uniform(values, choices):
    """Chi-squared of draws that are all as likely."""
    counts = Counter(values)
    assert len(counts) == choices
    expected = len(values) / choices
    chi = sum((number - expected) ** 2 / expected for number in counts.values())
    assert chi < choices - 1 + 4 * np.sqrt(2 * (choices - 1)), values[:3]


class TestSliceGroup:
    @pytest.mark.parametrize(
        ("corner", "patch"), [((1, 2), (3, 4)), ((7, 9), (4, 6)), ((0, 10), (9, 5)), ((8, 0), (5, 12))]
    )
    def test_order_and_padding(self, corner, patch):
        """Slices as asked for, also one twice; the border is repeated at the far ends only."""
        volume = coded(channels=2)
        group = slice_group(volume, [7, 2, 2, 10], corner, patch)
        rows = (corner[0] + torch.arange(patch[0])).clamp(max=8)
        columns = (corner[1] + torch.arange(patch[1])).clamp(max=11)
        expected = torch.stack([volume[..., k][:, rows][:, :, columns] for k in (7, 2, 2, 10)])
        assert group.shape == (4, 2, *patch) and torch.equal(group, expected)

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.float64, torch.float16])
    @pytest.mark.parametrize("patch", [(3, 4), (12, 20)])
    def test_types(self, dtype, patch):
        volume = (coded() % 251).to(dtype)
        for image in (volume, MetaTensor(volume, affine=torch.eye(4))):
            group = slice_group(image, [1, 0], (0, 0), patch)
            assert type(group) is torch.Tensor and group.dtype == torch.float32 and group.is_contiguous()
            inside = group[..., : min(patch[0], 9), : min(patch[1], 12)]
            expected = volume.float()[:, : patch[0], : patch[1], [1, 0]].permute(3, 0, 1, 2)
            assert torch.equal(inside, expected)

    def test_copy(self):
        volume = coded()
        slice_group(volume, [0, 1], (0, 0), (9, 12)).zero_()
        slice_group(volume[..., :1], [0], (0, 0), (9, 12)).zero_()
        assert torch.equal(volume, coded())


class TestGroups:
    @pytest.mark.parametrize(("count", "stride"), [(3, 1), (5, 1), (5, 2), (7, 1), (3, 5), (11, 1)])
    @pytest.mark.parametrize("patch", [(4, 5), (9, 12), (1, 3)])
    def test_sample(self, patch, count, stride):
        seen = trace(RandSliceGroups(200, count, patch, stride).set_random_state(seed=0), count=count, patch=patch)
        assert {abs(indices[1] - indices[0]) for indices, *_ in seen} == {stride}
        assert {min(indices) for indices, *_ in seen} == set(range(11 - stride * (count - 1)))  # all places occur
        assert {row for _, row, _ in seen} == set(range(9 - patch[0] + 1))
        assert {column for *_, column in seen} == set(range(12 - patch[1] + 1))
        assert 70 < sum(indices[0] > indices[1] for indices, *_ in seen) < 130

    def test_uniform(self):
        """Positions in the plane and first slices are all as likely, borders too, and independent."""
        seen = trace(RandSliceGroups(3000, 5, (4, 8)).set_random_state(seed=0), count=5, patch=(4, 8))
        check_uniform([(row, column) for _, row, column in seen], 6 * 5)
        check_uniform([min(indices) for indices, *_ in seen], 7)
        check_uniform([(min(indices), row) for indices, row, _ in seen], 7 * 6)
        check_uniform([(indices[0] > indices[1], column) for indices, _, column in seen], 2 * 5)

    @pytest.mark.parametrize("reverse_prob", [0.0, 0.2, 1.0])
    def test_order(self, reverse_prob):
        sampler = RandSliceGroups(200, 4, 3, 2, reverse_prob).set_random_state(seed=0)
        seen = trace(sampler, coded(channels=3), count=4, patch=(3, 3), channels=3)
        share = sum(indices[0] > indices[1] for indices, *_ in seen) / 200
        assert share == reverse_prob if reverse_prob in (0, 1) else abs(share - reverse_prob) < 0.09

    @pytest.mark.parametrize("size", [(9, 12), (3, 12), (9, 2), (1, 1), (5, 5)])
    @pytest.mark.parametrize("build", [partial(RandSliceGroups, num_slices=3), RandSlicePairs])
    def test_patch_larger_than_the_volume(self, size, build):
        for patch in ((10, 12), (32, 32)):
            trace(build(patch_size=patch), coded(*size), patch=patch)
        ((_, *corner),) = trace(build(patch_size=None), coded(*size), patch=size)  # whole slices
        assert corner == [0, 0]

    def test_strides_that_do_not_fit_are_left_out(self):
        sampler = RandSliceGroups(80, 5, 3, stride=[4, 1, 2, 3]).set_random_state(seed=0)
        for num_slices, largest in ((5, 1), (8, 1), (9, 2), (12, 2), (13, 3), (17, 4)):
            seen = trace(sampler, coded(num_slices=num_slices), count=5, patch=(3, 3))
            counts = Counter(abs(indices[1] - indices[0]) for indices, *_ in seen)
            assert set(counts) == set(range(1, largest + 1)) and min(counts.values()) > 0.4 * 80 / largest

    @pytest.mark.parametrize(("stride", "smallest"), [(1, 1), (3, 3), ([3, 2], 2), ((5,), 5)])
    def test_just_enough_slices(self, stride, smallest):
        for count, build in ((5, partial(RandSliceGroups, 1, 5, 4)), (3, partial(RandSlicePairs, 1, 4))):
            needed = (count - 1) * smallest + 1
            trace(build(stride), coded(num_slices=needed), count=count)
            pattern = f"group of {count} slices at distance {smallest} needs {needed} slices, the volume has "
            check_error(f"{pattern}{needed - 1}", build(stride), coded(num_slices=needed - 1))

    @pytest.mark.parametrize("number", [3.0, np.int64(3)])
    def test_whole_numbers_of_other_types(self, number):
        trace(RandSliceGroups(number, number, 4, stride=[number]))

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"num_slices": 2}, "num_slices must be an integer of at least 3, got 2"),
            ({"num_slices": 4.5}, "num_slices must be an integer of at least 3, got 4.5"),
            ({"num_slices": True}, "num_slices must be an integer of at least 3, got True"),
            ({"num_samples": 0}, "num_samples must be a positive integer, got 0"),
            ({"num_samples": -1}, "num_samples must be a positive integer, got -1"),
            ({"stride": 0}, "stride must be one or more positive integers, got 0"),
            ({"stride": 1.5}, "stride must be one or more positive integers, got 1.5"),
            ({"stride": True}, "stride must be one or more positive integers, got True"),
            ({"stride": []}, r"stride must be one or more positive integers, got \[\]"),
            ({"stride": [1, -1]}, r"stride must be one or more positive integers, got \[1, -1\]"),
            ({"patch_size": 0}, r"patch_size must be 2 positive integers, got \(0, 0\)"),
            ({"patch_size": (4,)}, r"patch_size must be 2 positive integers, got \(4,\)"),
            ({"patch_size": (4, -1)}, r"patch_size must be 2 positive integers, got \(4, -1\)"),
            ({"reverse_prob": 1.1}, r"reverse_prob must be a number from 0 to 1, got 1.1"),
            ({"reverse_prob": float("nan")}, r"reverse_prob must be a number from 0 to 1, got nan"),
            ({"gap": 1.5}, "gap must be one or more positive integers, got 1.5"),
            ({"max_distance": 0}, "max_distance must be a positive number of mm, got 0"),
            ({"fractional": "maybe"}, "fractional must be true or false, got 'maybe'"),
        ],
    )
    def test_errors(self, wrong, message):
        if set(wrong) <= {"num_slices", "num_samples", "stride", "patch_size", "reverse_prob"}:
            check_error(message, RandSliceGroups, **wrong)
            check_error(message, RandSliceGroupsd, "image", **wrong)
        if not set(wrong) & {"num_slices", "stride"}:
            check_error(message, RandSlicePairs, **wrong)
            check_error(message, RandSlicePairsd, "image", **wrong)


class TestPairs:
    @pytest.mark.parametrize("fractional", [False, True])
    @pytest.mark.parametrize("gap", [1, 2, 3])
    @pytest.mark.parametrize("patch", [(4, 4), (9, 12), (1, 5)])
    def test_sample(self, patch, gap, fractional):
        sampler = RandSlicePairs(200, patch, gap, fractional).set_random_state(seed=0)
        seen = trace(sampler, coded(num_slices=8), patch=patch, fractional=fractional)
        assert {abs(upper - lower) for (lower, _, upper), *_ in seen} == {2 * gap}
        assert {min(indices) for indices, *_ in seen} == set(range(8 - 2 * gap))  # every pair of slices occurs
        assert 70 < sum(lower > upper for (lower, _, upper), *_ in seen) < 130
        offsets = {middle - min(lower, upper) for (lower, middle, upper), *_ in seen}
        assert offsets == (set(range(1, 2 * gap)) if fractional else {gap})
        assert sampler(coded())[0]["alpha"].shape == ()

    @pytest.mark.parametrize("reverse_prob", [0.0, 1.0])
    def test_fractions(self, reverse_prob):
        sampler = RandSlicePairs(400, 3, 3, fractional=True, reverse_prob=reverse_prob).set_random_state(seed=0)
        samples = sampler(coded())
        check_uniform([round(6 * sample["alpha"].item(), 4) for sample in samples], 5)
        for sample in samples:
            (lower, _, upper), *_ = check_sample(sample, FULL, 3, (3, 3), fractional=True)
            assert (lower > upper) == bool(reverse_prob)

    @pytest.mark.parametrize(
        ("spacing", "gaps"), [(1.0, {1, 2, 4}), (2.0, {1, 2}), (2.01, {1}), (4.0, {1}), (9.0, {1})]
    )
    def test_distance_in_mm(self, spacing, gaps):
        """Larger gaps are not drawn, but the smallest one always may be."""
        volume = MetaTensor(coded(), affine=torch.diag(torch.tensor([1.0, 1.0, spacing, 1.0])))
        sampler = RandSlicePairs(60, 4, gap=(1, 2, 4), max_distance=4.0).set_random_state(seed=0)
        assert {abs(upper - lower) // 2 for (lower, _, upper), *_ in trace(sampler, volume)} == gaps

    def test_channels(self):
        """All of a slice's channels together, or one of them."""
        volume = coded(channels=3)
        trace(RandSlicePairs(5, 4), volume, channels=3)
        channels = []
        for sample in RandSlicePairs(300, 4, draw_channel=True).set_random_state(seed=0)(volume):
            (channel,) = decode(torch.cat([sample["image"], sample["label"]]))[0].unique().tolist()
            channels.append(channel)
            check_sample({**sample, **{k: sample[k] - channel * 64**3 for k in ("image", "label")}}, FULL, 3, (4, 4))
        check_uniform(channels, 3)


BUILDS = [partial(RandSliceGroups, 6, 3, 4, (1, 2)), partial(RandSlicePairs, 6, 4, (1, 2))]
DICTIONARIES = [partial(RandSliceGroupsd, num_slices=3, stride=(1, 2)), partial(RandSlicePairsd, gap=(1, 2))]


@pytest.mark.parametrize(("build", "dictionary"), list(zip(BUILDS, DICTIONARIES, strict=True)))
class TestBoth:
    """What holds for groups and pairs alike, here for groups of three, which are the same."""

    def test_reproducible(self, build, dictionary):
        """By the state alone: not by the generators of numpy and torch."""
        sampler, runs = build(), []
        other = Compose([dictionary("image", num_samples=6, patch_size=4)])
        for seed in (5, 5, 6):
            np.random.seed(len(runs))
            torch.manual_seed(len(runs))
            sampler.set_random_state(seed=seed)
            other.set_random_state(seed=seed)
            samples = [sample["image"] for _ in range(4) for sample in [*sampler(coded()), *other({"image": coded()})]]
            runs.append(torch.stack(samples))
        assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
        again = sampler(coded(), randomize=False)
        assert torch.equal(torch.stack([sample["image"] for sample in again]), runs[2][-12:-6])

    def test_as_the_array_version(self, build, dictionary):
        for seed in range(3):
            one, other = build().set_random_state(seed=seed), dictionary("image", num_samples=6, patch_size=4)
            assert other.set_random_state(state=np.random.RandomState(seed)) is other
            for _ in range(3):
                for first, second in zip(one(coded()), other({"image": coded()}), strict=True):
                    assert set(first) == set(second) and all(torch.equal(first[key], second[key]) for key in first)

    def test_groups_of_three_are_pairs(self, build, dictionary):
        first, second = (one().set_random_state(seed=3)(coded()) for one in BUILDS)
        for group, pair in zip(first, second, strict=True):
            assert all(torch.equal(group[key], pair[key]) for key in ("image", "label"))
            assert torch.equal(group["alpha"], pair["alpha"][None])

    def test_samples_are_copies(self, build, dictionary):
        volume = coded()
        for sample in dictionary("image", patch_size=None)({"image": volume}):
            sample["image"] += 1
            sample["label"] += 1
        assert torch.equal(volume, coded())

    @pytest.mark.parametrize("dataset", [Dataset, CacheDataset])
    @pytest.mark.parametrize("workers", [0, 1])
    def test_loader_flattens(self, build, dictionary, dataset, workers):
        """Samples of several volumes of different sizes make one batch, each with what else is known of its volume."""
        calls = []
        note = Lambdad("image", lambda image: calls.append(1) or image)
        each = Lambdad("image", lambda image: image + 0 * len(image), track_meta=False)  # of each sample on its own
        chain = Compose([note, dictionary("image", num_samples=3, patch_size=(4, 5)), each]).set_random_state(seed=0)
        sizes = [FULL, (9, 12, 5), (5, 7, 9), (4, 4, 6)]
        items = [{"image": MetaTensor(coded(*size)), "subject": k} for k, size in enumerate(sizes)]
        options = {"progress": False} if dataset is CacheDataset else {}
        loader = DataLoader(dataset(items, chain, **options), batch_size=2, num_workers=workers)
        seen = []
        for batch in [*loader, *loader]:
            assert batch["image"].shape == (6, 2, 4, 5) and batch["label"].shape == (6, 1, 4, 5)
            assert len(batch["alpha"]) == 6 and set(batch) == {"image", "label", "alpha", "subject"}
            for k in range(6):
                sample = {key: batch[key][k] for key in ("image", "label", "alpha")}
                subject = batch["subject"][k].item()
                seen.append((subject, *check_sample(sample, sizes[subject], 3, (4, 5))))
        assert [subject for subject, *_ in seen] == 2 * [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
        assert seen[:12] != seen[12:]
        if dataset is CacheDataset:  # the volumes are cached, the samples are not
            assert len(calls) == 4

    def test_several_keys_share_the_draw(self, build, dictionary):
        sampler = dictionary(["scan", "mask"], num_samples=20, patch_size=4).set_random_state(seed=0)
        data = {"scan": coded(), "mask": coded(channels=2) + 64**3, "subject": "s"}
        for sample in sampler(data):
            assert set(sample) == {"scan", "label", "mask", "mask_label", "alpha", "subject"}
            check_sample({"image": sample["scan"], "label": sample["label"], "alpha": sample["alpha"]}, FULL, 3, (4, 4))
            for image, mask, channels in (("scan", "mask", 2), ("label", "mask_label", 1)):
                (_, one), (channel, two) = decode(sample[image]), decode(sample[mask])
                assert channel[:, 0, 0].tolist() == [1, 2] * channels
                for found, expected in zip(two, one, strict=True):
                    assert torch.equal(found[::2], expected) and torch.equal(found[1::2], expected)
        assert set(data) == {"scan", "mask", "subject"} and torch.equal(data["scan"], coded())

    def test_missing_key(self, build, dictionary):
        sampler = dictionary(["gone", "image"], num_samples=2, patch_size=4, allow_missing_keys=True)
        for sample in sampler({"image": coded()}):
            check_sample(sample, FULL, 3, (4, 4))
        assert sampler({"subject": "s"}) == [{"subject": "s"}] * 2
        with pytest.raises(KeyError, match="gone"):
            dictionary(["gone", "image"])({"image": coded()})

    def test_errors_name_the_file_or_the_key(self, build, dictionary):
        scan = MetaTensor(coded(num_slices=2), meta={"filename_or_obj": "folder/scan_7.nii.gz"})
        sampler = dictionary("image")
        check_error(r"^folder/scan_7\.nii\.gz: .*needs 3 slices, the volume has 2", sampler, {"image": scan})
        for plain in (coded(num_slices=2), MetaTensor(coded(num_slices=2))):
            check_error("^image: .*needs 3 slices, the volume has 2", sampler, {"image": plain})
        data = {"image": coded(), "mask": coded(num_slices=7)}
        check_error(r"^mask: size \(9, 12, 7\) differs from \(9, 12, 11\)", dictionary(["image", "mask"]), data)

    @pytest.mark.parametrize("keys", ["label", "alpha", ["image", "label"], ["image", "alpha"], ["a", "b", "b_label"]])
    def test_keys_that_samples_would_overwrite(self, build, dictionary, keys):
        check_error("overwrite each other", dictionary, keys)


def test_parameters_arrive():
    groups = RandSliceGroupsd("image", 2, 4, (3, 2), (2, 1), 0.25).transform
    assert (groups.num_samples, groups.num_slices, groups.patch_size) == (2, 4, (3, 2))
    assert (groups.strides, groups.reverse_prob) == ((1, 2), 0.25)
    pairs = RandSlicePairsd("image", 3, 5, 2, True, 0.25, 4.5, True).transform
    assert (pairs.num_samples, pairs.num_slices, pairs.patch_size, pairs.strides) == (3, 3, (5, 5), (2,))
    assert (pairs.fractional, pairs.reverse_prob, pairs.max_distance, pairs.draw_channel) == (True, 0.25, 4.5, True)


def test_patches_that_are_all_border():
    with pytest.raises(ValueError, match="patches of 4096 x 4096 are nothing but repeated border of slices of 40 x 30"):
        RandSlicePairs(patch_size=4096)(torch.rand(1, 40, 30, 5))
