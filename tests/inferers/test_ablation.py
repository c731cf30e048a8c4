# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_sliceinterp.inferers import MultiViewSliceInferer, ViewAblation
from monai_sliceinterp.networks.nets import SAINT
from tests.inferers import common
from tests.inferers.common import check_error, oblique, plain, rand

SIZE = {"channels": 6, "num_blocks": 1, "num_layers": 2, "growth": 4}
PARTS = ["AMI rows", "AMI columns", "mean of views", "spacing x0.25", "saint"]
NETWORKS = {
    "two views": {},
    "four views": {"num_views": 4},
    "3D": {"rfn": {**SIZE, "spatial_dims": 3}},
    "zero edge": {"edge": "zero", "ami": {**SIZE, "residual": False}},
}


def build(seed=0, **settings):
    """A network whose views and fusion do much, unlike one that has just been initialized."""
    torch.manual_seed(seed)
    network = SAINT(**{"ami": SIZE, "rfn": SIZE, **settings}).eval()
    with torch.no_grad():
        network.rfn.network.last.weight.mul_(10)
    return network


def make_scan(low=0.4, high=0.6, spacing=(0.8, 1.1, 4.0), size=(13, 11), num_slices=4):
    """A volume on an oblique grid; by default the networks do not leave [0, 1] for it."""
    values = rand(1, 1, *size, num_slices, dtype=torch.float32)
    return MetaTensor(low + (high - low) * values, affine=oblique(spacing))


def close(first, second, atol=1e-6):
    common.close(first, second, atol)


def differ(first, second):
    return (plain(first) - plain(second)).abs().max() > 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_parts(name):
    """Every part is what the inferer makes of it."""
    network, scan = build(**NETWORKS[name]), make_scan()
    found = ViewAblation(factor=3)(scan, network)
    directions = {f"AMI {direction}": direction for direction in network.directions}
    assert list(found) == [*directions, "mean of views", "spacing x0.25", "saint"]
    for title, direction in directions.items():
        close(found[title], MultiViewSliceInferer(3, fuse=False, views=(direction,))(scan, network), 0)
    close(found["mean of views"], MultiViewSliceInferer(3, fuse=False)(scan, network))
    close(found["saint"], MultiViewSliceInferer(3)(scan, network))
    values = list(found.values())
    for result in values:
        assert result.shape == (1, 1, 13, 11, 10) and not result.requires_grad
        assert torch.equal(plain(result)[..., ::3], plain(scan))
    assert all(differ(a, b) for k, a in enumerate(values) for b in values[:k])


@pytest.mark.parametrize(("factor", "misstated"), [(2, 4.0), (3, 0.5), (2, 2.5)])
def test_misstated_spacing(factor, misstated):
    network, scan = build(), make_scan()
    before = scan.affine.clone()
    found = ViewAblation(factor=factor, misstated=misstated)(scan, network)
    misstating = make_scan(spacing=(0.8, 1.1, 4.0 * misstated))
    close(found[f"spacing x{misstated:g}"], MultiViewSliceInferer(factor)(misstating, network))
    assert differ(found[f"spacing x{misstated:g}"], found["saint"])
    assert torch.equal(scan.affine, before)


def test_names():
    scan, network = make_scan(), build()
    assert list(ViewAblation(factor=2, method="mine")(scan, network)) == [*PARTS[:-1], "mine"]
    assert list(ViewAblation(factor=2, misstated=None)(scan, network)) == [*PARTS[:-2], "saint"]


@pytest.mark.parametrize(
    ("low", "high", "window"),
    [
        pytest.param(0.4, 0.6, (0.0, 1.0), id="inside"),
        pytest.param(0.0, 1.0, (0.0, 1.0), id="overshoot"),  # as in air, where a view easily falls below 0
        pytest.param(0.0, 1.0, (0.3, 0.7), id="excess"),
    ],
)
def test_limited_to_a_range(low, high, window):
    """The inferer limits what comes out of the network, not what the views hand to the fusion."""
    network, scan = build(), make_scan(low, high)
    found = ViewAblation(factor=3, value_range=window)(scan, network)
    close(found["mean of views"], MultiViewSliceInferer(3, fuse=False, value_range=window)(scan, network))
    close(found["saint"], MultiViewSliceInferer(3, value_range=window)(scan, network))


def test_settings_reach_the_inferer():
    """Results do not depend on the batch."""
    network, scan = build(), make_scan()
    for first, second in zip(
        ViewAblation(factor=3)(scan, network).values(),
        ViewAblation(factor=3, batch_size=2)(scan, network).values(),
        strict=True,
    ):
        close(first, second)
    with pytest.raises(ValueError, match="batch_size"):
        ViewAblation(factor=3, batch_size=-1)(scan, network)


@pytest.mark.parametrize("shape", [(2, 1), (1, 2)])
def test_one_volume_at_a_time(shape):
    scan = make_scan()
    several = MetaTensor(plain(scan).expand(*shape, -1, -1, -1).clone(), affine=scan.affine)
    check_error(ValueError, "expected one volume of one channel", ViewAblation(factor=2), several, build())
