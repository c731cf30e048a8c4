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

from monai_sliceinterp.transforms import (
    RandSlicePair,
    RandSlicePaird,
    RandSlicePairs,
    RandSlicePairsd,
    slice_pair,
)


def coded(height=9, width=12, num_slices=8, channels=1):
    """Volume whose value tells channel, slice, row and column."""
    c, h, w, n = np.meshgrid(*map(np.arange, (channels, height, width, num_slices)), indexing="ij")
    return torch.tensor(((c * 64 + n) * 64 + h) * 64 + w, dtype=torch.float32)


def decode(image):
    """Channel, slice, row and column of every value, each ``(channels, h, w)``."""
    code = image.long()
    return code // 64**3, code // 64**2 % 64, code // 64 % 64, code % 64


def check_sample(sample, size, gap, patch, fractional=False):
    """Check a sample of a coded one-channel volume; return lower, upper, middle, row and column."""
    height, width, num_slices = size
    (_, slices, rows, columns), (_, middle, *place) = decode(sample["image"]), decode(sample["label"])
    assert sample["image"].shape == (2, *patch) and sample["label"].shape == (1, *patch)
    assert sample["image"].dtype == sample["label"].dtype == torch.float32
    assert type(sample["image"]) is type(sample["label"]) is torch.Tensor
    (lower,), (upper,), (middle,) = (x.unique().tolist() for x in (slices[0], slices[1], middle))
    assert min(lower, upper) >= 0 and max(lower, upper) < num_slices
    assert abs(upper - lower) == 2 * gap
    # the same in-plane window in all three, border repeated past the end
    row, column = rows.min().item(), columns.min().item()
    for found, start, length, extent, axis in ((rows, row, height, patch[0], 1), (columns, column, width, patch[1], 2)):
        expected = (start + torch.arange(extent)).clamp(max=length - 1)
        assert torch.equal(found.movedim(axis, -1), expected.expand_as(found.movedim(axis, -1)))
        assert start + extent <= length or start == 0
    assert torch.equal(place[0], rows[:1]) and torch.equal(place[1], columns[:1])
    # alpha is the way from the first slice of the pair
    alpha = sample["alpha"]
    assert alpha.shape == () and alpha.dtype == torch.float32
    assert alpha.item() == np.float32((middle - lower) / (upper - lower))
    assert min(lower, upper) < middle < max(lower, upper)
    if not fractional:
        assert middle == (lower + upper) / 2 and alpha == 0.5
    return lower, upper, middle, row, column


class TestRandSlicePair:
    @pytest.mark.parametrize("fractional", [False, True])
    @pytest.mark.parametrize("gap", [1, 2, 3])
    @pytest.mark.parametrize("patch", [(4, 4), (9, 12), (1, 5), (7, 3)])
    def test_sample(self, patch, gap, fractional):
        sampler = RandSlicePair(patch, gap, fractional).set_random_state(seed=0)
        seen = [check_sample(sampler(coded()), (9, 12, 8), gap, patch, fractional) for _ in range(200)]
        lowest = {min(lower, upper) for lower, upper, *_ in seen}
        assert lowest == set(range(8 - 2 * gap))  # every pair of slices occurs
        assert {row for *_, row, _ in seen} == set(range(9 - patch[0] + 1))
        assert {column for *_, column in seen} == set(range(12 - patch[1] + 1))
        assert 70 < sum(lower > upper for lower, upper, *_ in seen) < 130
        offsets = {middle - min(lower, upper) for lower, upper, middle, *_ in seen}
        assert offsets == (set(range(1, 2 * gap)) if fractional else {gap})

    @pytest.mark.parametrize("reverse_prob", [0.0, 1.0])
    def test_order(self, reverse_prob):
        sampler = RandSlicePair(3, gap=3, fractional=True, reverse_prob=reverse_prob).set_random_state(seed=0)
        alphas = Counter()
        for _ in range(100):
            lower, upper, middle, *_ = check_sample(sample := sampler(coded()), (9, 12, 8), 3, (3, 3), True)
            assert (lower > upper) == bool(reverse_prob)
            alphas[round(6 * sample["alpha"].item(), 4)] += 1
        assert set(alphas) == {1, 2, 3, 4, 5} and min(alphas.values()) > 5

    @pytest.mark.parametrize("size", [(9, 12), (3, 12), (9, 2), (1, 1), (5, 5)])
    def test_patch_larger_than_the_volume(self, size):
        volume = coded(*size)
        check_sample(RandSlicePair((10, 12))(volume), (*size, 8), 1, (10, 12))
        check_sample(RandSlicePair(32)(volume), (*size, 8), 1, (32, 32))

    def test_whole_slices(self):
        *_, row, column = check_sample(RandSlicePair(None)(coded(7, 5)), (7, 5, 8), 1, (7, 5))
        assert (row, column) == (0, 0)

    def test_channels(self):
        sample = RandSlicePair(4).set_random_state(seed=0)(coded(channels=3))
        channel, slices, *_ = decode(sample["image"])
        assert channel[:, 0, 0].tolist() == [0, 1, 2, 0, 1, 2]  # the first slice's channels, then the second's
        assert len(slices[:3].unique()) == len(slices[3:].unique()) == 1 and slices[0, 0, 0] != slices[3, 0, 0]
        assert decode(sample["label"])[0][:, 0, 0].tolist() == [0, 1, 2]

    def test_other_types(self):
        volume = coded()
        for other in (volume.to(torch.int32), MetaTensor(volume), volume.double()):
            check_sample(RandSlicePair(4)(other), (9, 12, 8), 1, (4, 4))

    def test_samples_are_copies(self):
        volume = coded()
        sample = RandSlicePair(None)(volume)
        sample["image"] += 1
        sample["label"] += 1
        assert torch.equal(volume, coded())

    def test_reproducible(self):
        sampler = RandSlicePair(4, gap=2, fractional=True)
        runs = []
        for seed in (5, 5, 6):
            sampler.set_random_state(seed=seed)
            runs.append(torch.stack([sampler(coded())["image"] for _ in range(10)]))
        assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
        again = sampler(coded(), randomize=False)["image"]
        assert torch.equal(again, runs[2][-1])

    @pytest.mark.parametrize("gap", [1, 2])
    def test_just_enough_slices(self, gap):
        check_sample(RandSlicePair(4, gap)(coded(num_slices=2 * gap + 1)), (9, 12, 2 * gap + 1), gap, (4, 4))
        for transform in (RandSlicePair(4, gap), lambda x, gap=gap: RandSlicePaird("x", 4, gap)({"x": x})):
            with pytest.raises(ValueError, match=f"gap {gap} needs {2 * gap + 1} slices, the volume has {2 * gap}"):
                transform(coded(num_slices=2 * gap))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"gap": 0},
            {"gap": 1.5},
            {"gap": True},
            {"patch_size": 0},
            {"patch_size": (4,)},
            {"patch_size": (4, -1)},
            {"reverse_prob": 1.1},
        ],
    )
    def test_errors(self, wrong):
        (name,) = wrong
        with pytest.raises(ValueError, match=name):
            RandSlicePair(**wrong)
        with pytest.raises(ValueError, match=name):
            RandSlicePairsd("image", num_samples=2, **wrong)

    def test_slice_pair(self):
        pair, between = slice_pair(coded(channels=2), 6, 2, 3, corner=(1, 2), patch_size=(3, 4))
        volume = coded(channels=2)[:, 1:4, 2:6]
        assert torch.equal(pair, torch.cat([volume[..., 6], volume[..., 2]])) and torch.equal(between, volume[..., 3])


class TestSeveralSamples:
    def test_array(self):
        sampler = RandSlicePairs(6, patch_size=4, gap=2, fractional=True).set_random_state(seed=0)
        samples = sampler(coded())
        assert len({check_sample(sample, (9, 12, 8), 2, (4, 4), True) for sample in samples}) > 1
        assert len(samples) == 6
        loader = DataLoader(Dataset([coded(), coded()], Compose([sampler])), batch_size=2)
        (batch,) = loader
        assert batch["image"].shape == (12, 2, 4, 4) and batch["alpha"].shape == (12,)

    @pytest.mark.parametrize("dataset", [Dataset, CacheDataset])
    @pytest.mark.parametrize("workers", [0, 1])
    def test_loader_flattens(self, dataset, workers):
        calls = []
        chain = Compose(
            [
                Lambdad("image", lambda image: calls.append(1) or image),
                RandSlicePairsd("image", num_samples=3, patch_size=(4, 5), gap=2, fractional=True),
            ]
        ).set_random_state(seed=0)
        items = [{"image": MetaTensor(coded()), "subject": f"s{k}"} for k in range(4)]
        options = {"progress": False} if dataset is CacheDataset else {}
        loader = DataLoader(dataset(items, chain, **options), batch_size=2, num_workers=workers)
        epochs = [list(loader), list(loader)]
        drawn = []
        for batch in epochs[0] + epochs[1]:
            assert batch["image"].shape == (6, 2, 4, 5) and batch["label"].shape == (6, 1, 4, 5)
            assert batch["alpha"].shape == (6,) and len(batch["subject"]) == 6
            for k in range(6):
                sample = {key: batch[key][k] for key in ("image", "label", "alpha")}
                drawn.append(check_sample(sample, (9, 12, 8), 2, (4, 5), True))
        assert len(epochs[0]) == 2 and len(set(drawn)) > 12
        if dataset is CacheDataset:  # the volumes are cached, the samples are not
            assert len(calls) == 4

    def test_reproducible_in_compose(self):
        chain = Compose([RandSlicePairsd("image", num_samples=5, patch_size=4)])
        runs = []
        for seed in (1, 1, 2):
            chain.set_random_state(seed=seed)
            runs.append(torch.stack([sample["image"] for sample in chain({"image": coded()})]))
        assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])

    @pytest.mark.parametrize("number", [0, -1])
    def test_number(self, number):
        for build in (lambda: RandSlicePairs(number), lambda: RandSlicePairsd("image", number)):
            with pytest.raises(ValueError, match=f"num_samples must be positive, got {number}"):
                build()


class TestDictionary:
    def test_several_keys_share_the_draw(self):
        sampler = RandSlicePaird(["image", "mask"], patch_size=4, gap=2, fractional=True).set_random_state(seed=0)
        data = {"image": coded(), "mask": coded(channels=2) + 64**3, "subject": "s"}
        for _ in range(20):
            sample = sampler(data)
            assert set(sample) == {"image", "label", "mask", "mask_label", "alpha", "subject"}
            check_sample({key: sample[key] for key in ("image", "label", "alpha")}, (9, 12, 8), 2, (4, 4), True)
            for image, mask, channels in (("image", "mask", 2), ("label", "mask_label", 1)):
                one, two = decode(sample[image]), decode(sample[mask])
                assert two[0][:, 0, 0].tolist() == [1, 2] * channels
                for found, expected in zip(two[1:], one[1:], strict=True):
                    assert torch.equal(found[::2], expected) and torch.equal(found[1::2], expected)
        assert data["image"].shape == (1, 9, 12, 8)

    def test_missing_key(self):
        sampler = RandSlicePaird(["gone", "image"], patch_size=4, allow_missing_keys=True)
        check_sample(sampler({"image": coded()}), (9, 12, 8), 1, (4, 4))
        with pytest.raises(KeyError, match="gone"):
            RandSlicePaird(["gone", "image"])({"image": coded()})

    def test_sizes_differ(self):
        with pytest.raises(ValueError, match=r"'mask' has size \(9, 12, 7\), 'image' has \(9, 12, 8\)"):
            RandSlicePaird(["image", "mask"], patch_size=4)({"image": coded(), "mask": coded(num_slices=7)})

    @pytest.mark.parametrize("keys", ["label", ["image", "label"], ["image", "alpha"], ["a", "b", "b_label"]])
    def test_keys_that_samples_would_overwrite(self, keys):
        with pytest.raises(ValueError, match="overwrite each other"):
            RandSlicePaird(keys)
        with pytest.raises(ValueError, match="overwrite each other"):
            RandSlicePairsd(keys, num_samples=2)
