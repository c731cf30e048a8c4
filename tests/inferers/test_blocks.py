# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Interpolation block by block with margins."""

import pytest
import torch

from monai_sliceinterp.inferers import BlockSliceInferer
from monai_sliceinterp.inferers.blocks import _blocks
from monai_sliceinterp.networks.nets import MDSR, RDN
from tests.inferers.common import Wrapper, check_error, close, make_scan
from tests.networks.helpers import trained

NETWORK = trained(
    RDN, spatial_dims=3, channels=3, num_blocks=1, num_layers=1, growth=2, upsampling_channels=2, residual=False
)
REACH = 6  # of its convolutions, in voxels


@pytest.mark.parametrize("how", [{"factor": 4}, {"factor": 2}, {"spacing": 1.0}, {"factor": 1}])
def test_blocks_are_not_seen(how):
    """With margins as wide as the network sees, the result is that of the whole volume; else it is not."""
    scan = make_scan(1, 1, 30, 27, 19)
    factor = how.get("factor", 4)
    expected = NETWORK(scan.as_tensor(), factor=factor)
    for roi_size in ((16, 18, 14), (64, 64, 64)):
        found = BlockSliceInferer(**how, roi_size=roi_size, margin=REACH)(scan, Wrapper(NETWORK))
        close(found.as_tensor(), expected)
        assert torch.equal(found[..., ::factor].as_tensor(), scan.as_tensor())
        assert float(found.pixdim[2]) == pytest.approx(4.0 / factor)
    narrow = BlockSliceInferer(**how, roi_size=(16, 18, 14), margin=0)(scan, NETWORK)
    assert torch.allclose(narrow.as_tensor(), expected) == (factor == 1)
    close(BlockSliceInferer(**how, keep_observed=False, margin=REACH)(scan, NETWORK).as_tensor(), expected)


def test_gaps_without_a_slice_to_make(monkeypatch):
    """Of a series whose fourth slice is missing: the block of the slices before is passed over."""
    scan = make_scan(1, 1, 12, 11, 5, slice_positions=(0.0, 1.0, 2.0, 4.0, 5.0), slice_positions_axis=2)
    seen, interpolate = [], NETWORK.interpolate
    monkeypatch.setattr(NETWORK, "interpolate", lambda block, *at: seen.append(block) or interpolate(block, *at))
    found = BlockSliceInferer(1, roi_size=(64, 64, 3), margin=0)(scan, NETWORK)
    assert torch.equal(found[..., [0, 1, 2, 4, 5]].as_tensor(), scan.as_tensor()) and found.shape[-1] == 6
    (block,) = seen
    assert torch.equal(block[0, 0], scan.as_tensor()[0, 0, ..., 2:].movedim(-1, 0))


@pytest.mark.parametrize(("length", "most", "margin"), [(10, 10, 4), (11, 10, 4), (100, 64, 3), (7, 3, 1), (30, 8, 0)])
def test_division(length, most, margin):
    """Blocks follow one another; with their margins they stay within the volume and the largest size."""
    blocks = _blocks(length, most, margin)
    assert [k for inner, _ in blocks for k in range(length)[inner]] == list(range(length))
    for inner, outer in blocks:
        assert 0 <= outer.start == max(inner.start - margin * (len(blocks) > 1), 0)
        assert inner.stop <= outer.stop <= length and outer.stop - outer.start <= most


def test_errors():
    scan = make_scan(1, 1, 8, 7, 3)
    check_error(ValueError, "expected a factor of 1, 2 or 4", BlockSliceInferer(factor=3), scan, NETWORK)
    check_error(ValueError, "not at 0.4; expected a factor", BlockSliceInferer(spacing=1.6), scan, NETWORK)
    check_error(TypeError, "upsamples volumes in 3D, such as RDN, got MDSR", BlockSliceInferer(factor=2), scan, MDSR())
    check_error(ValueError, "leaves nothing between margins of 4", BlockSliceInferer, roi_size=(64, 64, 9))
    check_error(ValueError, "roi_size must be 3 .*integers", BlockSliceInferer, roi_size=(64, 64))
    check_error(ValueError, "margin must be an integer of at least 0, got -1", BlockSliceInferer, margin=-1)
