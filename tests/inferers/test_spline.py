# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_sliceinterp.inferers import SplineSliceInferer
from tests.inferers.common import check_error, make_scan, rand

SCIPY = {"linear": {"order": 1, "mode": "nearest"}, "cubic": {"order": 3, "mode": "mirror"}}


class TestKernels:
    @pytest.mark.parametrize("how", [{"factor": 2}, {"factor": 5}, {"spacing": 1.1}, {}])
    @pytest.mark.parametrize("mode", SCIPY)
    def test_equals_scipy_on_a_volume(self, mode, how):
        values = make_scan(2, 2, 5, 6, 80)
        result = SplineSliceInferer(**how, mode=mode)(values)
        step = 1 / how["factor"] if "factor" in how else how.get("spacing", 0.7) / 4.0
        positions = np.arange(result.shape[-1]) * step
        assert positions[-1] <= 79 + 1e-9 and positions[-1] + step > 79 + 1e-9
        places = np.stack(np.meshgrid(range(5), range(6), positions, indexing="ij"))
        for sample, channel in np.ndindex(2, 2):
            expected = ndimage.map_coordinates(values[sample, channel].numpy(), places, **SCIPY[mode])
            np.testing.assert_allclose(result[sample, channel].numpy(), expected, rtol=0, atol=1e-7)

    def test_default_is_cubic(self):
        values = rand(1, 1, 4, 4, 9)
        cubic = SplineSliceInferer(factor=2, mode="cubic")(values)
        assert torch.equal(SplineSliceInferer(factor=2)(values), cubic)
        for mode in ("linear", "lanczos"):
            assert not torch.allclose(SplineSliceInferer(factor=2, mode=mode)(values), cubic, atol=1e-2)


@pytest.mark.parametrize("mode", ["quintic", "", None])
def test_unknown_mode(mode):
    named = f"unknown interpolation mode {mode!r}; expected one of linear"
    check_error(ValueError, named, SplineSliceInferer, factor=2, mode=mode)
