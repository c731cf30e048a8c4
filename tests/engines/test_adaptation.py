# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""A network is adapted to a scan, by its seed alone, from the same start each time, and only where that helps."""

import functools
import json

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from monai_sliceinterp import interpolate
from monai_sliceinterp.engines import AdaptNetworkd, adaptation_text, split_for_guard
from monai_sliceinterp.geometry import read_adaptation
from monai_sliceinterp.inferers import MixtureSliceInferer
from monai_sliceinterp.networks.nets import MixtureNetwork
from monai_sliceinterp.transforms import RandSliceBlocksd

AFFINE = torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0], dtype=torch.float64))


@functools.cache
def make_scan(num_slices=7, seed=0):
    """Waves that move and grow from slice to slice: no interpolation between two slices gets them right."""
    x, y = torch.meshgrid(torch.arange(64.0), torch.arange(40.0), indexing="ij")
    slices = [
        0.5 + 0.4 * torch.sin((x + 3 * n) / (3 + 0.2 * n) + seed) * torch.cos(y / 4 + n) for n in range(num_slices)
    ]
    return MetaTensor(torch.stack(slices, dim=-1)[None], affine=AFFINE)


def make_transform(network, rate=3e-3, loss=None, **settings):
    sampler = RandSliceBlocksd("image", num_samples=2, patch_size=(24, 24), num_slices=3, min_slices=2, factors=[2])
    optimizer = functools.partial(torch.optim.AdamW, lr=rate)
    return AdaptNetworkd("image", network, MixtureSliceInferer(), sampler, loss or nn.L1Loss(), optimizer, **settings)


def vector(network):
    return torch.cat([parameter.detach().reshape(-1) for parameter in network.parameters()])


def adapted(network, scan=None, **settings):
    """The weights that are used, and what is told."""
    result = make_transform(network, **settings)({"image": make_scan() if scan is None else scan})["image"]
    return vector(network), read_adaptation(result.meta)


def make_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MixtureNetwork(8, 1).eval()


def test_what_helps_is_used():
    """By the seed alone: neither the state of torch nor the scans before matter."""
    start, network = vector(make_network()), make_network()
    first, record = adapted(network, steps=12, seed=3)
    assert record["used"] and record["psnr_after"] > record["psnr_before"] + 0.05 and not torch.equal(first, start)
    assert (record["steps"], record["seed"]) == (12, 3) and not network.training
    torch.manual_seed(7)
    state, transform = torch.get_rng_state(), make_transform(make_network(), steps=12, seed=3)
    for scan in (make_scan(seed=1), make_scan()):
        told = read_adaptation(transform({"image": scan})["image"].meta)
    assert told == record and torch.equal(vector(transform.network), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(adapted(make_network(), steps=12, seed=4)[0], first)


def test_what_harms_is_undone():
    start = vector(make_network())
    weights, record = adapted(make_network(), loss=lambda image, target: -nn.functional.l1_loss(image, target), steps=8)
    assert not record["used"] and record["psnr_after"] < record["psnr_before"] and torch.equal(weights, start)
    assert "not used" in adaptation_text(record)


@pytest.mark.parametrize(
    ("scan", "reason"),
    [
        (make_scan(2), "2 slices, of which none can be left out"),
        (make_scan()[:, :20], "slices of 20 x 10 pixels"),
        (make_scan()[..., :14, :], "slices that leave 14 pixels beside their middle to learn from; it takes 16"),
        (
            MetaTensor(make_scan(), affine=AFFINE, meta={"slice_positions": [0, 1, 3], "slice_positions_axis": 2}),
            "uneven",
        ),
    ],
)
def test_what_cannot_be_adapted_to(scan, reason):
    """It is said why, and the network stays as it is."""
    start = vector(make_network())
    weights, record = adapted(make_network(), scan)
    assert reason in record["reason"] and torch.equal(weights, start)
    assert adaptation_text(record).startswith("not adapted: ")


def test_guarded_part():
    """The parts are all of the scan, and no voxel is in two of them."""
    scan = torch.arange(2 * 10 * 7 * 3.0).reshape(2, 7, 10, 3)
    sides, middle = split_for_guard(scan)
    assert torch.equal(torch.cat([sides[0], middle, sides[1]], dim=2), scan) and middle.shape[2] == 2


def test_function():
    thin = interpolate(make_scan(), factor=2, adapt=2)
    record = json.loads(thin.meta["adaptation"])
    assert record["steps"] == 2 and thin.shape == (1, 64, 40, 13)
    with pytest.raises(ValueError, match="cubic.* has no network to adapt to a scan; expected mixture"):
        interpolate(make_scan(), method="cubic", factor=2, adapt=True)
    with pytest.raises(ValueError, match=r"^a network is adapted to one volume; expected one key, got \('a', 'b'\)\.$"):
        AdaptNetworkd(["a", "b"], *[None] * 5)
