# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Networks that know pixels of one size: what they are shown, and how their result comes back."""

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Resize, Spacing
from torch import nn

from monai_sliceinterp.inferers import LatentSliceInferer, SplineSliceInferer, VolumetricSliceInferer
from monai_sliceinterp.networks.nets import LatentInterpolator


def scan(spacing=(0.6, 1.7, 4.0), shape=(61, 30, 4)):
    values = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    return MetaTensor(values, affine=torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64)))


class Adds(nn.Module):
    """Notes what it is shown and adds a number."""

    def __init__(self, number, in_plane_spacing=0.0):
        super().__init__()
        self.number, self.in_plane_spacing, self.seen = number, in_plane_spacing, []

    def forward(self, image):
        self.seen.append(image.clone())
        return image + self.number


class Pixels(LatentInterpolator):
    """Codes are the slices, brighter by a number."""

    in_channels = 1

    def __init__(self, number=0.0, **grid):
        super().__init__()
        self.number, self.seen = number, []
        vars(self).update(grid)

    def encode(self, image):
        self.seen.append(image.clone())
        return (image + self.number,)

    def decode(self, codes, size=None):
        assert tuple(codes[0].shape[-2:]) == tuple(size)
        return codes[0]


def test_volumetric():
    """Shown is what MONAI's Spacing makes of the spline; the difference comes back, and all detail stays."""
    image, network = scan(), Adds(0.25, in_plane_spacing=1.0)
    found = VolumetricSliceInferer(factor=4)(image, network)
    spline = SplineSliceInferer(factor=4, mode="cubic", keep_observed=False)(image)
    torch.testing.assert_close(found.as_tensor(), spline.as_tensor() + 0.25, atol=1e-5, rtol=0)
    expected = Spacing((1.0, 1.0, 0.0), mode="bilinear")(spline[0])[0].as_tensor()
    (seen,) = network.seen
    size = [min(a, b) for a, b in zip(expected.shape, seen.shape[2:], strict=True)]
    assert size[0] >= 36 and size[1] >= 50
    torch.testing.assert_close(seen[0, 0, : size[0], : size[1]], expected[: size[0], : size[1]], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.affine, spline.affine)


@pytest.mark.parametrize(("says", "asked"), [(0.0, None), (1.0, 0), (0.6, None)])
def test_scans_own_pixels(says, asked):
    """Where the network knows any, or the scan's; 0 asks for them."""
    image, network = scan((0.6, 0.6, 4.0)), Adds(0.0, says)
    VolumetricSliceInferer(factor=2, in_plane_spacing=asked)(image, network)
    assert network.seen[0].shape[2:] == (64, 32, 7)  # padded to the stride of the windows


@pytest.mark.parametrize("keep_observed", [False, True])
@pytest.mark.parametrize("grid", [{"in_plane_spacing": 1.4}, {"in_plane_size": 24}])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_latent(grid, keep_observed, batch_size):
    """A network that does nothing leaves linear interpolation in all its detail; what it adds comes back."""
    image, network = scan(), Pixels(0.2, **grid)
    found = LatentSliceInferer(factor=3, keep_observed=keep_observed, batch_size=batch_size)(image, network)
    linear = SplineSliceInferer(factor=3, mode="linear")(image).as_tensor()
    expected = linear + 0.2
    if keep_observed:
        expected[..., ::3] = linear[..., ::3]
    torch.testing.assert_close(found.as_tensor(), expected, atol=1e-5, rtol=0)
    seen = torch.cat(network.seen)[:, 0].movedim(0, -1)
    if "in_plane_size" in grid:
        shown = Resize((24, 24, -1), mode="trilinear")(image[0])[0].as_tensor()
    else:
        shown = Spacing((1.4, 1.4, 0.0), mode="bilinear")(image[0])[0].as_tensor()
    size = [min(a, b) for a, b in zip(shown.shape[:2], seen.shape[:2], strict=True)]
    torch.testing.assert_close(seen[: size[0], : size[1]], shown[: size[0], : size[1]], atol=1e-5, rtol=0)


def test_errors():
    with pytest.raises(ValueError, match="in_plane_spacing must be zero or a positive number"):
        VolumetricSliceInferer(in_plane_spacing=-1)
    with pytest.raises(ValueError, match="a plain tensor has no pixel size, and the network knows pixels of 1 mm"):
        VolumetricSliceInferer(factor=2)(torch.rand(1, 1, 8, 8, 3), Adds(0.0, 1.0))
