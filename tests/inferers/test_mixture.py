# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Volumes interpolated by the mixture network: slice by slice as all at once."""

from __future__ import annotations

import pytest
import torch

from monai_sliceinterp.inferers import MixtureSliceInferer
from monai_sliceinterp.networks.nets import ASIAutoencoder, MixtureNetwork
from tests.inferers.common import Wrapper, check_error, close, make_scan
from tests.networks.helpers import trained

SMALL = {"channels": 8, "num_blocks": 3}


@pytest.mark.parametrize("count", [2, 3, 4, 9])
def test_equals_the_network(count):
    network, scan = trained(MixtureNetwork, **SMALL), make_scan(1, 1, 15, 18, count)
    expected = network(scan.as_tensor(), 3, 4.0, (0.7, 1.1), 2.5)
    for batch_size in (0, 1):
        close(MixtureSliceInferer(3, slice_thickness=2.5, batch_size=batch_size)(scan, network), expected, atol=1e-9)
    close(MixtureSliceInferer(3, slice_thickness=2.5)(scan, Wrapper(network)), expected, atol=1e-9)


def test_features_are_computed_once(monkeypatch):
    network, read = trained(MixtureNetwork, **SMALL), []
    stream = network.stream
    monkeypatch.setattr(network, "stream", lambda slices: stream(read.append(1) or slice_ for slice_ in slices))
    MixtureSliceInferer(8)(make_scan(1, 1, 8, 8, 5), network)
    assert len(read) == 5


def test_wide_gaps(monkeypatch):
    """The network is told the width of the gap that it fills."""
    network = trained(MixtureNetwork, **SMALL)
    told = []
    network.filters.register_forward_hook(lambda _, numbers, __: told.extend(numbers[1].tolist()))
    scan = make_scan(1, 1, 8, 8, 3, slice_positions=(0.0, 1.0, 3.0), slice_positions_axis=2)
    MixtureSliceInferer(2)(scan, network)
    assert told == pytest.approx([4.0] + 3 * [8.0])


def test_gaps_without_a_slice_to_make(monkeypatch):
    """Of a series with a missing slice: there alone motion is looked for, between the slices of that gap."""
    network, seen = trained(MixtureNetwork, **SMALL), []
    motion = network.motion
    monkeypatch.setattr(network, "motion", lambda *pair: seen.append(pair) or motion(*pair))
    scan = make_scan(1, 1, 8, 8, 4, slice_positions=(0.0, 1.0, 3.0, 4.0), slice_positions_axis=2)
    found = MixtureSliceInferer(1)(scan, network)
    assert torch.equal(found[..., [0, 1, 3, 4]].as_tensor(), scan.as_tensor()) and found.shape[-1] == 5
    ((first, second),) = seen
    assert torch.equal(first[0, 0], scan.as_tensor()[0, 0, ..., 1]) and torch.equal(
        second[0, 0], scan.as_tensor()[0, 0, ..., 2]
    )


def test_errors():
    scan = make_scan(1, 1, 8, 8, 3)
    check_error(ValueError, "slice_thickness", MixtureSliceInferer, 2, slice_thickness=-1)
    check_error(
        TypeError, "expected a MixtureNetwork, got ASIAutoencoder", MixtureSliceInferer(2), scan, ASIAutoencoder()
    )
    check_error(TypeError, "got NoneType", MixtureSliceInferer(2), scan)
    check_error(
        ValueError,
        "a plain tensor has no spacing",
        MixtureSliceInferer(2),
        torch.zeros(1, 1, 8, 8, 3),
        MixtureNetwork(**SMALL),
    )
