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

import csv
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_sliceinterp.evaluation import METRICS, SMALLER_IS_BETTER, Score, score_volume, write_rows, write_scores
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.metrics import slice_score

PLAIN = {"psnr", "ssim", "rmse", "mse", "sharpness", "psnr_volume"}
DETAILS = {"vif"} | {f"{name}_{plane}" for name in ("ssim", "vif") for plane in ("volume", "coronal", "sagittal")}


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def images_at(volume, axis, indices=None):
    """Cut a volume (C, H, W, N) one index after the other: (K C, 1, ., .)."""
    wanted = range(volume.shape[axis]) if indices is None else indices
    return torch.cat([volume.select(axis, k)[:, None] for k in wanted])


class TestDetails:
    @pytest.mark.parametrize("channels", [1, 2])
    @pytest.mark.parametrize("data_range", [1.0, 30.0])
    def test_by_slices(self, data_range, channels):
        """Every score is that of the images it is about; slices left over at the end belong to none."""
        truth = data_range * rand(channels, 43, 45, 44)
        pred = truth[..., :43] + 0.3 * data_range * (rand(channels, 43, 45, 43, seed=1) - 0.4)
        pred[:, :20] = truth[:, :20, :, :43]  # so that the planes differ
        pred[:, :, :9] += 0.2 * data_range
        pred[..., ::6] = truth[..., :43:6]
        found = score_volume(pred, truth, 3, data_range, detailed=True)
        pred, truth = pred.clamp(0, data_range), truth.clamp(0, data_range)[..., :43]
        between = [k for k in range(43) if k % 3]
        parts = {"": (3, between), "_volume": (3, None), "_coronal": (2, None), "_sagittal": (1, None)}
        for suffix, (axis, indices) in parts.items():
            pair = [images_at(volume, axis, indices) for volume in (pred, truth)]
            for name in ("ssim", "vif"):
                expected = slice_score(*pair, name, data_range).item()
                assert found[name + suffix] == pytest.approx(expected, rel=1e-5), (name, suffix)
        mean_square = ((pred - truth).double() ** 2).mean().item()
        assert found["psnr_volume"] == pytest.approx(10 * math.log10(data_range**2 / mean_square), rel=1e-6)
        error = (pred - truth)[..., between].double()
        assert found["mse"] == pytest.approx((error**2).mean().item(), rel=1e-5)
        assert found["rmse"] == pytest.approx((error**2).mean().sqrt().item(), rel=1e-5)
        values = [found[name + suffix] for name in ("ssim", "vif") for suffix in parts]
        assert np.diff(sorted(values)).min() > 1e-4  # none can be mistaken for another

    def test_only_on_request(self):
        truth, pred = rand(1, 41, 41, 41), rand(1, 41, 41, 41, seed=1)
        body = rand(1, 41, 41, 41, seed=2) > 0.5
        plain, detailed = (score_volume(pred, truth, 2, body=body, detailed=flag) for flag in (False, True))
        assert set(plain) == PLAIN | {"psnr_body", "ssim_body", "rmse_body"}
        assert set(detailed) - set(plain) == DETAILS
        assert {name: detailed[name] for name in plain} == plain
        assert set(score_volume(pred, truth, 2, detailed=True)) == PLAIN | DETAILS
        Score("v", "g", "p", "m", **detailed)
        assert all(type(value) is float for value in detailed.values())

    def test_errors_inside_the_body(self):
        truth = rand(1, 16, 16, 5)
        body = torch.zeros(1, 16, 16, 5, dtype=torch.bool)
        body[:, 4:12] = True
        pred = truth + torch.where(body, 0.01, 0.3)
        truth = truth + 1
        scores = score_volume(pred + 1, truth, 2, 4.0, body, detailed=True)
        assert scores["rmse_body"] == pytest.approx(0.01, rel=1e-4)
        assert scores["rmse"] == pytest.approx(math.sqrt((0.01**2 + 0.3**2) / 2), rel=1e-4)

    def test_all_slices_where_none_is_given(self):
        """With observed slices among the scored ones, the slices' scores are those of the whole volume."""
        truth, pred = rand(1, 41, 42, 7), rand(1, 41, 42, 7, seed=1)
        scores = score_volume(pred, truth, 3, include_observed=True, detailed=True)
        assert scores["ssim"] == scores["ssim_volume"] and scores["vif"] == scores["vif_volume"]
        assert scores["rmse"] == pytest.approx(((pred - truth) ** 2).mean().sqrt().item(), rel=1e-5)

    def test_thin_stacks(self):
        """What is too small for a window has no score; the others are there."""
        sizes = {(41, 41, 9): {"ssim_coronal", "ssim_sagittal", "vif_coronal", "vif_sagittal"}}
        sizes[41, 41, 39] = {"vif_coronal", "vif_sagittal"}
        sizes[40, 41, 41] = {"vif", "vif_volume", "vif_coronal"}
        sizes[41, 40, 41] = {"vif", "vif_volume", "vif_sagittal"}
        sizes[11, 11, 11] = {"vif", "vif_volume", "vif_coronal", "vif_sagittal"}
        for size, missing in sizes.items():
            truth = rand(1, *size)
            scores = score_volume(truth / 2, truth, 2, detailed=True)
            assert {name for name, value in scores.items() if math.isnan(value)} == missing, size

    def test_constant_slices_have_no_fidelity(self):
        truth, pred = rand(1, 41, 41, 5), rand(1, 41, 41, 5, seed=1)
        truth[..., 3] = 0.5
        scores = score_volume(pred, truth, 2, detailed=True)
        alone = score_volume(pred[..., :3], truth[..., :3], 2, detailed=True)
        assert scores["vif"] == alone["vif"] and math.isfinite(scores["ssim"])
        scores = score_volume(pred, torch.full_like(truth, 0.5), 2, detailed=True)
        assert math.isnan(scores["vif"]) and math.isnan(scores["vif_volume"])

    def test_identical(self):
        truth = rand(2, 41, 43, 42)
        scores = score_volume(truth, MetaTensor(truth), 41, detailed=True)
        assert scores["rmse"] == scores["mse"] == 0 and scores["psnr"] == scores["psnr_volume"] == math.inf
        assert all(scores[name] == pytest.approx(1, abs=1e-6) for name in DETAILS - {"rmse", "mse"})

    def test_clips(self):
        truth = (rand(1, 41, 41, 5) > 0.5).float()
        scores = score_volume(3 * truth - 1, truth, 2, detailed=True)
        assert scores["rmse"] == 0 and scores["vif"] == scores["vif_volume"] == pytest.approx(1, abs=1e-6)


def band_limited(positions, half=0):
    """A field of cosines along the slices, flat at slices 0 and 64, of no period shorter than 12 slices."""
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(20.0), indexing="ij")
    phase = (rows / 5).sin() + (columns / 4).cos()
    waves = [
        torch.cos(math.pi * k * (positions + half) / 64) * torch.cos(phase * k + k)[..., None] for k in (1, 4, 7, 10)
    ]
    return 0.5 + 0.1 * torch.stack(waves).sum(dim=0)[None]


class TestAlignment:
    def interpolated(self, mode):
        truth = band_limited(torch.arange(65.0))
        assert truth.min() > 0.05 and truth.max() < 0.95
        return SplineSliceInferer(factor=2, mode=mode)(truth[None, ..., ::2])[0], truth

    def test_cubic_b_spline_reproduces_a_band_limited_field(self):
        pred, truth = self.interpolated("cubic")
        scores = score_volume(pred, truth, 2, detailed=True)
        assert scores["psnr"] > 50 and scores["psnr_volume"] > 50 and scores["ssim"] > 0.999
        assert score_volume(self.interpolated("linear")[0], truth, 2)["psnr"] < scores["psnr"] - 10

    @pytest.mark.parametrize("shift", [-0.5, 0.5, 1.0])
    def test_shifts_are_seen(self, shift):
        """Slices half a fine or a thick slice off cost over 25 dB."""
        pred, truth = self.interpolated("cubic")
        right, wrong = (score_volume(p, truth, 2) for p in (pred, band_limited(torch.arange(65.0), shift)))
        assert wrong["psnr"] < right["psnr"] - 25 and wrong["ssim"] < right["ssim"]
        assert wrong["psnr_volume"] < right["psnr_volume"] - 25

    def test_one_slice_late(self):
        pred, truth = self.interpolated("cubic")
        assert score_volume(pred.roll(1, dims=-1), truth, 2)["psnr"] < score_volume(pred, truth, 2)["psnr"] - 25


class TestMisuse:
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_not_finite(self, value):
        good = rand(1, 12, 12, 5)
        bad = good.clone()
        bad[0, 3, 4, 0] = bad[0, 3, 4, 2] = value
        with pytest.raises(
            ValueError, match="interpolated volume has 2 of 720 voxels that are NaN or infinite"
        ) as caught:
            score_volume(bad, good, 2)
        assert "\n" not in str(caught.value)
        with pytest.raises(ValueError, match="the truth has 2 of 720 voxels that are NaN or infinite"):
            score_volume(good, bad, 2)

    def test_shapes(self):
        volume = rand(1, 12, 12, 5)
        with pytest.raises(ValueError, match=r"\(1, 12, 12, 5\) does not belong to a truth of shape \(1, 12, 13, 5\)"):
            score_volume(volume, rand(1, 12, 13, 5), 2)
        with pytest.raises(ValueError, match=r"does not belong to a truth of shape \(1, 12, 12, 8\) at factor 3"):
            score_volume(volume, rand(1, 12, 12, 8), 3)
        with pytest.raises(ValueError, match=r"mask has shape \(1, 12, 12, 4\); expected .* \(1, 12, 12, 5\)"):
            score_volume(volume, volume, 2, body=volume[..., :4] > 0.5)

    def test_small_slices(self):
        volume = rand(1, 12, 10, 5)
        with pytest.raises(ValueError, match="SSIM's window needs slices of at least 11 x 11 pixels"):
            score_volume(volume, volume, 2)

    def test_nothing_synthesized(self):
        volume = rand(1, 12, 12, 5)
        with pytest.raises(ValueError, match="no synthesized slice to score"):
            score_volume(volume, volume, 1)


class TestScore:
    def test_columns(self):
        names = ["psnr", "ssim", "psnr_volume", "psnr_body", "ssim_body", "rmse", "mse", "vif", "sharpness"]
        names += ["rmse_body"]
        names += [f"{name}_{plane}" for name in ("ssim", "vif") for plane in ("volume", "coronal", "sagittal")]
        assert list(METRICS) == [*names, "lpips", "niqe", "seconds", "memory"]
        assert set(SMALLER_IS_BETTER) == {"rmse", "mse", "rmse_body", "lpips", "niqe", "seconds", "memory"}

    def test_nothing_is_assumed(self):
        score = Score("v", "g", "p", "m", 1.0, 2.0, 3.0)
        assert all(math.isnan(getattr(score, name)) for name in METRICS[3:])


@dataclass
class Row:
    name: str
    count: int
    value: float


class TestFiles:
    def test_scores(self, tmp_path):
        scores = [Score("a, b", 'g "x"', "p", "m", 20.5, 0.1 + 0.2, math.inf), Score("c", "g", "p", "m", 1.0, 2.0, 3.0)]
        write_scores(scores, tmp_path / "scores.csv")
        with (tmp_path / "scores.csv").open(newline="") as file:
            first, second = csv.DictReader(file)
        assert list(first) == ["volume", "group", "protocol", "method", *METRICS]
        assert (first["volume"], first["group"], second["volume"]) == ("a, b", 'g "x"', "c")
        for row, score in ((first, scores[0]), (second, scores[1])):
            for name in METRICS:
                np.testing.assert_equal(float(row[name]), getattr(score, name))

    def test_rows(self, tmp_path):
        write_rows([Row("a", 1, 0.5), Row("b", 2, math.nan)], tmp_path / "rows.csv")
        assert (tmp_path / "rows.csv").read_text().split() == ["name,count,value", "a,1,0.5", "b,2,nan"]

    def test_no_rows(self, tmp_path):
        write_rows([], tmp_path / "rows.csv")
        assert (tmp_path / "rows.csv").read_text() == ""

    def test_a_failure_leaves_the_older_file(self, tmp_path):
        write_rows([Row("a", 1, 0.5)], tmp_path / "rows.csv")
        before = (tmp_path / "rows.csv").read_text()
        with pytest.raises(ValueError, match="fields not in fieldnames"):
            write_rows([Row("b", 1, 0.5), Score("v", "g", "p", "m", 1.0, 2.0, 3.0)], tmp_path / "rows.csv")
        assert (tmp_path / "rows.csv").read_text() == before
        assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
