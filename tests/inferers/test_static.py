# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""What does not change from slice to slice is interpolated linearly, the rest as if nothing were left out."""

import pytest
import torch
from torch.nn import functional as F

from monai_sliceinterp.inferers import MultiViewSliceInferer, SplineSliceInferer, VolumetricSliceInferer
from monai_sliceinterp.inferers.static import changing_box, changing_pixels, network_weights
from tests.inferers.common import make_saint, make_scan, plain, straight

AROUND = (80, 75, 40, 90)  # pixels left, right, above and below
CHANGING = (..., slice(40, 60), slice(80, 92), slice(None))


def scan_in_air(air=0.2):
    scan = make_scan(1, 1, 20, 12, 4)
    padded = F.pad(scan.as_tensor(), (0, 0, *AROUND), value=air)
    padded[0, 0, 5, 7, 2] += 2e-4  # less than a HU of 4000, and than a 4000th of the range below
    return scan.__class__(padded, affine=straight())


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("num_views", [2, 4])
def test_changing_part_is_the_network_and_the_rest_linear(num_views, fuse):
    scan, network = scan_in_air(), make_saint(num_views)
    found = plain(MultiViewSliceInferer(3, value_range=(-8, 8), fuse=fuse, disagreement=True)(scan, network))
    whole = MultiViewSliceInferer(3, value_range=(-8, 8), fuse=fuse)
    whole.static_tolerance = 0.0
    expected = plain(whole(scan, network))
    linear = plain(SplineSliceInferer(3, mode="linear")(scan))
    torch.testing.assert_close(found[CHANGING], expected[CHANGING], rtol=0, atol=1e-12)
    assert (expected - linear)[0, 0, :20].abs().max() > 1e-3  # a network is not exact in air
    outside = torch.ones_like(found, dtype=torch.bool)
    outside[..., 23:77, 63:109, :] = False
    if not fuse:  # within its box, the fusion network has its say of air
        torch.testing.assert_close(found[outside], linear[outside], rtol=0, atol=1e-12)
        step = (found - linear)[0, 0, :32, 86].diff(dim=0).abs().max()  # no seam: what the network says of air fades
        assert step < 0.2 * (expected - linear)[0, 0, :32, 86].abs().max()
    torch.testing.assert_close(found[..., 77:, :, :], linear[..., 77:, :, :], rtol=0, atol=1e-12)


def test_volume_that_does_not_change_needs_no_network():
    def network(windows):
        raise AssertionError("was called")

    scan = make_scan(1, 1, 40, 30, 1).expand(1, 1, 40, 30, 3)
    thin = VolumetricSliceInferer(2, value_range=(0, 1))(scan.clone(), network)
    torch.testing.assert_close(plain(thin), plain(scan)[..., :1].expand(1, 1, 40, 30, 5))


def test_marks_and_parts():
    slices = torch.zeros(3, 128, 200)
    slices[1, 60, 100] = 0.5
    changing = changing_pixels(slices, 0.4)
    assert changing.nonzero().tolist() == [[60, 100]] and not changing_pixels(slices, 0.5).any()
    weights = network_weights(changing)
    assert weights[52:69, 92:109].min() == 1 and weights[:44].max() == weights[:, 117:].max() == 0
    assert changing_box(changing) == (slice(0, 80), slice(48, 128)) and changing_box(changing & False) is None
