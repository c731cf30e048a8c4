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

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, Lambdad

from monai_sliceinterp import transforms
from monai_sliceinterp.transforms import (
    RandSliceGroup,
    RandSliceGroupd,
    RandSliceGroups,
    RandSliceGroupsd,
    slice_group,
)


def coded(height=9, width=12, num_slices=11, channels=1):
    """Volume whose value tells channel, slice, row and column."""
    c, h, w, n = np.meshgrid(*map(np.arange, (channels, height, width, num_slices)), indexing="ij")
    return torch.tensor(((c * 64 + n) * 64 + h) * 64 + w, dtype=torch.float32)


def decode(image):
    """Channel, slice, row and column of every value, each ``(channels, h, w)``."""
    code = image.long()
    return code // 64**3, code // 64**2 % 64, code // 64 % 64, code % 64


def check_sample(sample, size, count, patch, channels=1):
    """Check a sample of a coded volume; return the slices in the order of the group, row and column."""
    height, width, num_slices = size
    assert set(sample) == {"image", "label", "alpha"}
    assert sample["image"].shape == (2 * channels, *patch) and sample["label"].shape == ((count - 2) * channels, *patch)
    for value in sample.values():
        assert type(value) is torch.Tensor and value.dtype == torch.float32 and value.is_contiguous()
    image, label = (sample[key].unflatten(0, (-1, channels)) for key in ("image", "label"))
    group = torch.cat([image[:1], label, image[1:]])  # in order: (n, C, h, w)
    channel, slices, rows, columns = decode(group)
    assert torch.equal(channel, torch.arange(channels)[:, None, None].expand_as(channel))
    # slices: all of one distance, one way or the other
    indices = slices[:, 0, 0, 0].tolist()
    assert torch.equal(slices, slices[:, :1, :1, :1].expand_as(slices))
    (stride,) = {after - before for before, after in zip(indices, indices[1:], strict=False)}
    assert stride != 0 and min(indices) >= 0 and max(indices) < num_slices
    # the same in-plane window in all, border repeated past the end
    row, column = rows.min().item(), columns.min().item()
    for found, start, length, extent, axis in ((rows, row, height, patch[0], 2), (columns, column, width, patch[1], 3)):
        expected = (start + torch.arange(extent)).clamp(max=length - 1)
        assert torch.equal(found.movedim(axis, -1), expected.expand_as(found.movedim(axis, -1)))
        assert start + extent <= length or start == 0
    # alpha: how far from the first to the second of the pair
    ends = (indices[0], indices[-1])
    expected = [(index - ends[0]) / (ends[1] - ends[0]) for index in indices[1:-1]]
    assert sample["alpha"].tolist() == pytest.approx(expected, abs=1e-7)
    return tuple(indices), row, column


class TestSliceGroup:
    def test_order(self):
        """Slices as asked for, also one twice."""
        volume = coded(channels=2)
        group = slice_group(volume, [7, 2, 2, 10], corner=(1, 2), patch_size=(3, 4))
        expected = torch.stack([volume[:, 1:4, 2:6, k] for k in (7, 2, 2, 10)])
        assert group.shape == (4, 2, 3, 4) and torch.equal(group, expected)

    @pytest.mark.parametrize(("corner", "patch"), [((7, 9), (4, 6)), ((0, 10), (9, 5)), ((8, 0), (5, 12))])
    def test_padding(self, corner, patch):
        """The border is repeated at the far ends only."""
        volume = coded(channels=2)
        group = slice_group(volume, [3, 0], corner, patch)
        rows = (corner[0] + torch.arange(patch[0])).clamp(max=8)
        columns = (corner[1] + torch.arange(patch[1])).clamp(max=11)
        assert torch.equal(group, torch.stack([volume[..., k][:, rows][:, :, columns] for k in (3, 0)]))

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.float64, torch.float16])
    @pytest.mark.parametrize("patch", [(3, 4), (12, 20)])
    def test_types(self, dtype, patch):
        volume = (coded() % 251).to(dtype)
        for given in (volume, MetaTensor(volume, affine=torch.eye(4))):
            group = slice_group(given, [1, 0], (0, 0), patch)
            assert type(group) is torch.Tensor and group.dtype == torch.float32 and group.is_contiguous()
            inside = group[..., : min(patch[0], 9), : min(patch[1], 12)]
            expected = volume.float()[:, : patch[0], : patch[1], [1, 0]].permute(3, 0, 1, 2)
            assert torch.equal(inside, expected)

    def test_copy(self):
        volume = coded()
        slice_group(volume, [0, 1], (0, 0), (9, 12)).zero_()
        slice_group(volume[..., :1], [0], (0, 0), (9, 12)).zero_()
        assert torch.equal(volume, coded())


class TestRandSliceGroup:
    @pytest.mark.parametrize(("count", "stride"), [(3, 1), (5, 1), (5, 2), (7, 1), (3, 5), (11, 1)])
    @pytest.mark.parametrize("patch", [(4, 5), (9, 12), (1, 3)])
    def test_sample(self, patch, count, stride):
        sampler = RandSliceGroup(count, patch, stride).set_random_state(seed=0)
        seen = [check_sample(sampler(coded()), (9, 12, 11), count, patch) for _ in range(200)]
        assert {abs(indices[1] - indices[0]) for indices, *_ in seen} == {stride}
        assert {min(indices) for indices, *_ in seen} == set(range(11 - stride * (count - 1)))  # all places occur
        assert {row for _, row, _ in seen} == set(range(9 - patch[0] + 1))
        assert {column for *_, column in seen} == set(range(12 - patch[1] + 1))
        assert 70 < sum(indices[0] > indices[1] for indices, *_ in seen) < 130

    def test_defaults_of_the_paper(self):
        """Seven slices, of which five are to be made, next to each other."""
        sample = RandSliceGroup(patch_size=4)(coded())
        indices, *_ = check_sample(sample, (9, 12, 11), 7, (4, 4))
        assert abs(indices[1] - indices[0]) == 1
        assert sample["alpha"].tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])
        assert RandSliceGroup().patch_size == (128, 128)

    def test_uniform(self):
        """Chi-squared of positions in the plane and of first slices; all are as likely, borders too."""
        sampler = RandSliceGroup(5, (4, 8)).set_random_state(seed=0)
        draws = 3000
        seen = [check_sample(sampler(coded()), (9, 12, 11), 5, (4, 8)) for _ in range(draws)]
        for values, places in (
            ([(row, column) for _, row, column in seen], 6 * 5),
            ([min(indices) for indices, *_ in seen], 7),
            ([(min(indices), row) for indices, row, _ in seen], 7 * 6),  # independent
            ([(indices[0] > indices[1], column) for indices, _, column in seen], 2 * 5),
        ):
            counts = Counter(values)
            assert len(counts) == places
            expected = draws / places
            chi = sum((number - expected) ** 2 / expected for number in counts.values())
            assert chi < places - 1 + 4 * np.sqrt(2 * (places - 1)), values[:3]

    @pytest.mark.parametrize("reverse_prob", [0.0, 0.2, 1.0])
    def test_order(self, reverse_prob):
        sampler = RandSliceGroup(4, 3, 2, reverse_prob).set_random_state(seed=0)
        groups = [check_sample(sampler(coded()), (9, 12, 11), 4, (3, 3))[0] for _ in range(200)]
        share = sum(indices[0] > indices[1] for indices in groups) / 200
        assert share == reverse_prob if reverse_prob in (0, 1) else abs(share - reverse_prob) < 0.09
        assert {len(indices) for indices in groups} == {4}

    @pytest.mark.parametrize("size", [(9, 12), (3, 12), (9, 2), (1, 1), (5, 5)])
    def test_patch_larger_than_the_volume(self, size):
        volume = coded(*size)
        check_sample(RandSliceGroup(5, (10, 12))(volume), (*size, 11), 5, (10, 12))
        check_sample(RandSliceGroup(5, 32)(volume), (*size, 11), 5, (32, 32))

    def test_whole_slices(self):
        sampler = RandSliceGroup(5, None)
        for size in ((7, 5), (4, 6)):  # whatever their size
            assert check_sample(sampler(coded(*size)), (*size, 11), 5, size)[1:] == (0, 0)

    @pytest.mark.parametrize("reverse_prob", [0.0, 1.0])
    def test_channels(self, reverse_prob):
        """All of a slice's channels together, in their order, whatever that of the slices is."""
        sampler = RandSliceGroup(4, 4, reverse_prob=reverse_prob)
        indices, *_ = check_sample(sampler(coded(channels=3)), (9, 12, 11), 4, (4, 4), channels=3)
        assert (indices[0] > indices[1]) == bool(reverse_prob)

    def test_strides_that_do_not_fit_are_left_out(self):
        sampler = RandSliceGroup(5, 3, stride=[4, 1, 2, 3]).set_random_state(seed=0)
        for num_slices, expected in (
            (5, {1}),
            (8, {1}),
            (9, {1, 2}),
            (12, {1, 2}),
            (13, {1, 2, 3}),
            (17, {1, 2, 3, 4}),
        ):
            found = Counter()
            for _ in range(80):
                sample = sampler(coded(num_slices=num_slices))
                indices, *_ = check_sample(sample, (9, 12, num_slices), 5, (3, 3))
                found[abs(indices[1] - indices[0])] += 1
            assert set(found) == expected
            assert min(found.values()) > 0.4 * 80 / len(expected)

    @pytest.mark.parametrize(("stride", "smallest"), [(1, 1), (3, 3), ([3, 2], 2), ((5,), 5)])
    def test_just_enough_slices(self, stride, smallest):
        needed = 4 * smallest + 1
        check_sample(RandSliceGroup(5, 4, stride)(coded(num_slices=needed)), (9, 12, needed), 5, (4, 4))
        message = f"groups of 5 slices at stride {smallest} need {needed} slices, the volume has {needed - 1}"
        with pytest.raises(ValueError, match=message):
            RandSliceGroup(5, 4, stride)(coded(num_slices=needed - 1))

    @pytest.mark.parametrize("build", [lambda: RandSliceGroup(4, 4, (1, 2)), lambda: RandSliceGroups(3, 4, 4, (1, 2))])
    def test_reproducible(self, build):
        sampler, runs = build(), []

        def draw():
            samples = sampler(coded())
            samples = samples if isinstance(samples, list) else [samples]
            return torch.stack([sample["image"] for sample in samples])

        for seed in (5, 5, 6):
            sampler.set_random_state(seed=seed)
            runs.append(torch.stack([draw() for _ in range(10)]))
        assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
        again = sampler(coded(), randomize=False)
        again = again[0] if isinstance(again, list) else again
        assert torch.equal(again["image"], runs[2][-1][-1])

    def test_global_seeds_have_no_say(self):
        sampler, runs = RandSliceGroup(4, 4), []
        for seed in (1, 2):
            np.random.seed(seed)
            torch.manual_seed(seed)
            sampler.set_random_state(seed=3)
            runs.append(torch.stack([sampler(coded())["image"] for _ in range(5)]))
        assert torch.equal(*runs)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"num_slices": 2}, "a group needs 3 slices or more, got 2"),
            ({"num_slices": 4.5}, "a group needs 3 slices or more, got 4.5"),
            ({"num_slices": True}, "a group needs 3 slices or more, got True"),
            ({"stride": 0}, "stride must be one or more positive integers, got 0"),
            ({"stride": 1.5}, "stride must be one or more positive integers, got 1.5"),
            ({"stride": True}, "stride must be one or more positive integers, got True"),
            ({"stride": []}, r"stride must be one or more positive integers, got \[\]"),
            ({"stride": [1, -1]}, r"stride must be one or more positive integers, got \[1, -1\]"),
            ({"patch_size": 0}, r"patch_size must be a positive height and width, got \(0, 0\)"),
            ({"patch_size": (4,)}, r"patch_size must be a positive height and width, got \(4,\)"),
            ({"patch_size": (4, -1)}, r"patch_size must be a positive height and width, got \(4, -1\)"),
            ({"reverse_prob": 1.1}, r"reverse_prob must be within \[0, 1\], got 1.1"),
            ({"reverse_prob": -0.1}, r"reverse_prob must be within \[0, 1\], got -0.1"),
            ({"reverse_prob": float("nan")}, r"reverse_prob must be within \[0, 1\], got nan"),
        ],
    )
    def test_errors(self, wrong, message):
        for build in (
            lambda: RandSliceGroup(**wrong),
            lambda: RandSliceGroups(2, **wrong),
            lambda: RandSliceGroupd("image", **wrong),
            lambda: RandSliceGroupsd("image", 2, **wrong),
        ):
            with pytest.raises(ValueError, match=message):
                build()

    @pytest.mark.parametrize("number", [3.0, np.int64(3)])
    def test_whole_numbers_of_other_types(self, number):
        sampler = RandSliceGroup(number, 4, stride=[number])
        assert check_sample(sampler(coded()), (9, 12, 11), 3, (4, 4))


class TestSeveralSamples:
    def test_array(self):
        sampler = RandSliceGroups(6, 5, (4, 3), (1, 2)).set_random_state(seed=0)
        samples = sampler(coded())
        assert len(samples) == 6
        assert len({check_sample(sample, (9, 12, 11), 5, (4, 3)) for sample in samples}) > 1
        (batch,) = DataLoader(Dataset([coded(), coded()], Compose([sampler])), batch_size=2)
        assert batch["image"].shape == (12, 2, 4, 3) and batch["alpha"].shape == (12, 3)

    @pytest.mark.parametrize("dataset", [Dataset, CacheDataset])
    @pytest.mark.parametrize("workers", [0, 1])
    def test_loader_flattens(self, dataset, workers):
        """Samples of several volumes of different sizes make one batch, each with what else is known of its volume."""
        calls = []
        chain = Compose(
            [
                Lambdad("image", lambda image: calls.append(1) or image),
                RandSliceGroupsd("image", 3, 5, (4, 5), (1, 2)),
                Lambdad("image", lambda image: image + 0 * len(image), track_meta=False),  # of each sample on its own
            ]
        ).set_random_state(seed=0)
        sizes = [(9, 12, 11), (9, 12, 5), (5, 7, 9), (4, 4, 6)]
        meta = {"filename_or_obj": "scan.nii.gz"}
        items = [{"image": MetaTensor(coded(*size), meta=meta), "subject": k} for k, size in enumerate(sizes)]
        options = {"progress": False} if dataset is CacheDataset else {}
        loader = DataLoader(dataset(items, chain, **options), batch_size=2, num_workers=workers)
        epochs = [list(loader), list(loader)]
        drawn = []
        for batch in epochs[0] + epochs[1]:
            assert batch["image"].shape == (6, 2, 4, 5) and batch["label"].shape == (6, 3, 4, 5)
            assert batch["alpha"].shape == (6, 3) and set(batch) == {"image", "label", "alpha", "subject"}
            for k in range(6):
                sample = {key: batch[key][k] for key in ("image", "label", "alpha")}
                subject = batch["subject"][k].item()
                drawn.append((subject, *check_sample(sample, sizes[subject], 5, (4, 5))))
        assert [subject for subject, *_ in drawn] == 2 * [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
        assert drawn[:12] != drawn[12:]
        if dataset is CacheDataset:  # the volumes are cached, the samples are not
            assert len(calls) == 4

    def test_reproducible_in_compose(self):
        chain = Compose([RandSliceGroupsd("image", 5, 5, patch_size=4)])
        runs = []
        for seed in (1, 1, 2):
            chain.set_random_state(seed=seed)
            runs.append(torch.stack([sample["image"] for sample in chain({"image": coded()})]))
        assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])

    @pytest.mark.parametrize("number", [0, -1])
    def test_number(self, number):
        for build in (lambda: RandSliceGroups(number), lambda: RandSliceGroupsd("image", number)):
            with pytest.raises(ValueError, match=f"num_samples must be positive, got {number}"):
                build()


class TestDictionary:
    @pytest.mark.parametrize("key", ["image", "volume"])
    def test_keys(self, key):
        data = {key: MetaTensor(coded()), "subject": "s", "spacing": torch.ones(3)}
        single = RandSliceGroupd(key, 5, (4, 3)).set_random_state(seed=0)(data)
        several = RandSliceGroupsd(key, 4, 5, (4, 3)).set_random_state(seed=0)(data)
        assert len(several) == 4 and torch.equal(several[0]["image"], single["image"])
        for sample in (single, *several):
            assert set(sample) == {key, "image", "label", "alpha", "subject", "spacing"}
            assert sample["subject"] == "s" and sample["spacing"] is data["spacing"]
            check_sample({name: sample[name] for name in ("image", "label", "alpha")}, (9, 12, 11), 5, (4, 3))
            assert torch.equal(sample[key], sample["image"])
        assert torch.equal(data[key].as_tensor(), coded()) and set(data) == {key, "subject", "spacing"}

    def test_as_the_array_version(self):
        one, other = RandSliceGroup(4, 5, (1, 3), 0.3), RandSliceGroupd("image", 4, 5, (1, 3), 0.3)
        for seed in range(5):
            one.set_random_state(seed=seed)
            other.set_random_state(seed=seed)
            for _ in range(4):
                first, second = one(coded()), other({"image": coded()})
                assert set(first) == set(second) and all(torch.equal(first[key], second[key]) for key in first)
        many, lists = RandSliceGroups(3, 4, 5, (1, 3), 0.3), RandSliceGroupsd("image", 3, 4, 5, (1, 3), 0.3)
        first, second = many.set_random_state(seed=1)(coded()), lists.set_random_state(seed=1)({"image": coded()})
        assert all(torch.equal(one["label"], two["label"]) for one, two in zip(first, second, strict=True))

    def test_random_state(self):
        """A state may be given, and the transform is returned."""
        sampler = RandSliceGroupsd("image", 2, 5, 4)
        assert sampler.set_random_state(seed=1) is sampler
        first = sampler({"image": coded()})
        again = sampler.set_random_state(state=np.random.RandomState(1))({"image": coded()})
        assert torch.equal(first[1]["image"], again[1]["image"])

    def test_too_few_slices(self):
        """The message tells the file, or else the key, how many there are and how many are needed."""
        scan = MetaTensor(coded(num_slices=6), meta={"filename_or_obj": "folder/scan_7.nii.gz"})
        message = "need 7 slices, the volume has 6"
        for sampler in (RandSliceGroupd("volume"), RandSliceGroupsd("volume", 2)):
            with pytest.raises(ValueError, match=rf"^folder/scan_7\.nii\.gz: .*{message}") as caught:
                sampler({"volume": scan})
            assert "\n" not in str(caught.value)
            for plain in (coded(num_slices=6), MetaTensor(coded(num_slices=6))):
                with pytest.raises(ValueError, match=f"^volume: .*{message}"):
                    sampler({"volume": plain})

    def test_missing_key(self):
        data = {"subject": "s"}
        assert RandSliceGroupd("image", allow_missing_keys=True)(data) == data
        assert RandSliceGroupsd("image", 2, allow_missing_keys=True)(data) == [data, data]
        for sampler in (RandSliceGroupd("image"), RandSliceGroupsd("image", 2)):
            with pytest.raises(KeyError, match="image"):
                sampler(data)

    @pytest.mark.parametrize("keys", [["image", "mask"], []])
    def test_one_key(self, keys):
        for build in (lambda: RandSliceGroupd(keys), lambda: RandSliceGroupsd(keys, 2)):
            with pytest.raises(ValueError, match="key"):
                build()

    @pytest.mark.parametrize("key", ["label", "alpha"])
    def test_key_that_the_sample_would_overwrite(self, key):
        """As the pairs of RandSlicePaird: not a sample whose label is the pair itself."""
        for build in (lambda: RandSliceGroupd(key, 5, 4), lambda: RandSliceGroupsd(key, 2, 5, 4)):
            with pytest.raises(ValueError, match="overwrite"):
                build()

    def test_aliases(self):
        assert transforms.RandSliceGroupD is transforms.RandSliceGroupDict is RandSliceGroupd
        assert transforms.RandSliceGroupsD is transforms.RandSliceGroupsDict is RandSliceGroupsd

    def test_parameters_arrive(self):
        for sampler in (
            RandSliceGroupd("image", 4, (3, 2), (2, 1), 0.25).sampler,
            RandSliceGroupsd("image", 2, 4, (3, 2), (2, 1), 0.25).sampler,
            RandSliceGroups(2, 4, (3, 2), (2, 1), 0.25),
        ):
            assert (sampler.num_slices, sampler.patch_size, sampler.reverse_prob) == (4, (3, 2), 0.25)
            assert sampler.strides == (1, 2)
