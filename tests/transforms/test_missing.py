# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.transforms import missing
from monai_sliceinterp.transforms.missing import FillMissingd, fill_missing, has_missing, mark_missing

NAN, INF = float("nan"), float("inf")
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("place", [0, 7, 500, 998, 999])
def test_has_missing(dtype, place):
    volume = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert not has_missing(volume)
    volume[place] = NAN
    assert has_missing(volume) and has_missing(volume.reshape(10, 4, 25).permute(2, 0, 1))


class TestFillMissing:
    @pytest.mark.parametrize("dtype", FLOATS)
    def test_smallest_finite_value(self, dtype):
        """Infinite voxels stay, and what comes out is a copy."""
        volume = torch.tensor([[NAN, 3.0, -5.0, INF], [7.0, NAN, NAN, -INF]], dtype=dtype)
        filled = fill_missing(volume)
        assert filled.dtype == dtype and filled.tolist() == [[-5, 3, -5, INF], [7, -5, -5, -INF]]
        assert volume.isnan().sum() == 3

    @pytest.mark.parametrize("values", [[1.0, -2.0], [1, -2], [INF, 1.0, -INF], [True], []])
    def test_nothing_missing_is_no_copy(self, values):
        volume = torch.tensor(values)
        assert not has_missing(volume) and fill_missing(volume) is volume

    @pytest.mark.parametrize("values", [[NAN, NAN], [NAN, INF]])
    def test_nothing_known(self, values):
        for volume, name in (
            (torch.tensor(values), "the volume"),
            (MetaTensor(torch.tensor(values), meta={"filename_or_obj": "scan.nii.gz"}), "scan.nii.gz"),
        ):
            with pytest.raises(ValueError, match=rf"^{name}: has no finite voxel.*expected an image") as caught:
                fill_missing(volume)
            assert "\n" not in str(caught.value)

    def test_dictionary(self):
        volume = MetaTensor(torch.tensor([NAN, 1.0]), affine=torch.eye(4) * 2, meta={"note": "kept"})
        data = {"image": volume, "other": volume}
        filled = FillMissingd(["image", "none"], allow_missing_keys=True)(data)
        assert filled["image"].as_tensor().tolist() == [1, 1] and filled["other"] is volume
        assert filled["image"].meta["note"] == "kept" and torch.equal(filled["image"].affine, volume.affine)
        with pytest.raises(KeyError):
            FillMissingd("none")(data)
        assert missing.FillMissingD is missing.FillMissingDict is FillMissingd


class TestMarkMissing:
    def test_by_hand(self):
        observed = torch.tensor([[1.0, NAN, 3.0, 4.0], [NAN, 2.0, 3.0, NAN], [1.0, 2.0, 3.0, 4.0]])
        output = torch.zeros(3, 7)
        assert mark_missing(output, observed, OutputGrid.from_factor(4, 2)) is output
        expected = [[0, 1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 0]]
        assert output.isnan().int().tolist() == expected

    @pytest.mark.parametrize(
        ("grid", "observed", "expected"),
        [
            # at 0.4 of the gap no output slice but the first is on a slice until 2.0
            (OutputGrid.from_spacing(4, 5.0, 2.0), [1.0, 2.0, NAN, 4.0], [0, 0, 0, 1, 1, 1, 1, 1]),
            (OutputGrid.from_factor(3, 1, slice_positions=(0, 1, 3)), [1.0, 2.0, NAN], [0, 0, 1, 1]),
            (OutputGrid.from_factor(3, 1, slice_positions=(0, 1, 3)), [NAN, 2.0, 3.0], [1, 0, 0, 0]),
        ],
    )
    def test_slices_between(self, grid, observed, expected):
        output = mark_missing(torch.zeros(len(grid)), torch.tensor(observed), grid)
        assert output.isnan().int().tolist() == expected

    @pytest.mark.parametrize("factor", [1, 2, 3])
    def test_random_against_linear_interpolation(self, factor):
        """NaN is where linear interpolation of slices with NaN in them is."""
        rng = np.random.default_rng(factor)
        observed = np.where(rng.random((30, 6)) < 0.3, np.nan, 1.0)
        grid = OutputGrid.from_factor(6, factor)
        output = mark_missing(torch.zeros(30, len(grid)), torch.tensor(observed), grid)
        for index, position in enumerate(grid.positions):
            low, high = int(np.floor(position)), int(np.ceil(position))
            np.testing.assert_array_equal(output[:, index].isnan(), np.isnan(observed[:, low] + observed[:, high]))
