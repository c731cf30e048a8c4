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

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from monai_sliceinterp.inferers import SplineSliceInferer

SCIPY = {"linear": {"order": 1, "mode": "nearest"}, "cubic": {"order": 3, "mode": "mirror"}}
MODES = ("linear", "cubic", "lanczos")
SPACING = (0.7, 0.9, 4.0)


def make_scan(values):
    return MetaTensor(values, affine=torch.diag(torch.tensor([*SPACING, 1.0], dtype=torch.float64)))


def band_limited(positions):
    """Smooth field ``(1, 1, 12, 10, len(positions))`` within [0, 1], mirrored at the ends of 33 slices."""
    rng = np.random.default_rng(0)
    z = np.asarray(positions, dtype=np.float64)
    waves = np.array([np.cos(np.pi * k * z / 32) for k in range(1, 9)])
    field = np.tensordot(rng.normal(size=(12, 10, 8)), waves, 1)
    return torch.tensor(0.5 + field / 19, dtype=torch.float32)[None, None]


def psnr(first, second):
    return -10 * np.log10(float(((first.double() - second.double()) ** 2).mean()))


class TestKernels:
    @pytest.mark.parametrize("how", [{"factor": 2}, {"factor": 5}, {"spacing": 1.1}, {}])
    @pytest.mark.parametrize("mode", SCIPY)
    def test_equals_scipy_on_a_volume(self, mode, how):
        values = torch.randn(2, 2, 5, 6, 80, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        result = SplineSliceInferer(**how, mode=mode)(make_scan(values))
        step = 1 / how["factor"] if "factor" in how else how.get("spacing", 0.7) / 4.0
        positions = np.arange(result.shape[-1]) * step
        assert positions[-1] <= 79 + 1e-9 and positions[-1] + step > 79 + 1e-9
        places = np.stack(np.meshgrid(range(5), range(6), positions, indexing="ij"))
        for sample, channel in np.ndindex(2, 2):
            expected = ndimage.map_coordinates(values[sample, channel].numpy(), places, **SCIPY[mode])
            np.testing.assert_allclose(result[sample, channel].numpy(), expected, rtol=0, atol=1e-7)

    def test_default_is_cubic(self):
        values = torch.randn(1, 1, 4, 4, 9, generator=torch.Generator().manual_seed(2))
        cubic = SplineSliceInferer(factor=2, mode="cubic")(values)
        assert torch.equal(SplineSliceInferer(factor=2)(values), cubic)
        for mode in ("linear", "lanczos"):
            assert not torch.allclose(SplineSliceInferer(factor=2, mode=mode)(values), cubic, atol=1e-2)


class TestAlignment:
    def test_band_limited_field(self):
        """Cubic interpolation of a band-limited field is near the truth; of one shifted by half a slice it is not."""
        thick = band_limited(range(33))
        truth = band_limited(np.arange(65) / 2)
        assert truth.min() >= 0 and truth.max() <= 1 and truth.std() > 0.1
        result = SplineSliceInferer(factor=2)(thick)
        assert psnr(result[..., 1::2], truth[..., 1::2]) > 50
        for shift in (-0.5, 0.5):
            shifted = band_limited(np.arange(65) / 2 + shift)
            assert psnr(result[..., 1::2], shifted[..., 1::2]) < 35


@pytest.mark.parametrize("mode", ["quintic", "", None])
def test_unknown_mode(mode):
    with pytest.raises(ValueError, match=f"unknown interpolation mode {mode!r}; expected one of linear") as caught:
        SplineSliceInferer(factor=2, mode=mode)
    assert "\n" not in str(caught.value)
