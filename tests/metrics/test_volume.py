# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Scores of interpolated volumes, and what readers are told of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from monai_sliceinterp.metrics import (
    LEAVE_ONE_OUT,
    METRICS,
    REGIONS,
    score_reconstruction,
    score_volume,
    slice_score,
)
from tests.engines.helpers import rand

PLAIN = {"psnr", "ssim", "rmse", "mse", "sharpness", "flicker", "psnr_volume"}
INSIDE = {"psnr_body", "ssim_body", "rmse_body"}
DETAILS = {"vif"} | {f"{name}_{plane}" for name in ("ssim", "vif") for plane in ("volume", "coronal", "sagittal")}


def images_at(volume, axis, indices=None):
    """Cut a volume (C, H, W, N) one index after the other: (K C, 1, ., .)."""
    wanted = range(volume.shape[axis]) if indices is None else indices
    return torch.cat([volume.select(axis, k)[:, None] for k in wanted])


class TestPlain:
    @pytest.mark.parametrize("include_observed", [False, True])
    @pytest.mark.parametrize("data_range", [1.0, 50.0])
    def test_which_voxels(self, data_range, include_observed):
        """Which slices count, and of them what is inside; slices left over at the end do not."""
        truth, pred = data_range * rand(2, 16, 17, 8), data_range * rand(2, 16, 17, 7, seed=1)
        pred[..., ::3] = 0.9 * truth[..., :7:3]
        body = rand(2, 16, 17, 8, seed=2) > 0.6
        scores = score_volume(pred, truth, 3, data_range, body, include_observed)
        slices = [k for k in range(7) if include_observed or k % 3]
        first, second, inside = (images_at(volume, 3, slices) for volume in (pred, truth, body))
        for suffix, mask in (("", None), ("_body", inside)):
            for name in ("psnr", "ssim", "rmse"):
                expected = slice_score(first, second, name, data_range, mask)
                assert scores[name + suffix] == pytest.approx(expected.item(), rel=1e-5)
        whole = peak_signal_noise_ratio(truth[..., :7].numpy(), pred.numpy(), data_range=data_range)
        assert scores["psnr_volume"] == pytest.approx(whole)
        without = score_volume(pred, truth, 3, data_range, include_observed=include_observed)
        assert without == {name: scores[name] for name in PLAIN} and set(scores) == PLAIN | INSIDE
        assert abs(scores["psnr_body"] - scores["psnr"]) > 1e-3 and abs(scores["ssim_body"] - scores["ssim"]) > 1e-4

    def test_clips(self):
        truth, body = (rand(1, 41, 41, 5) > 0.5).float(), torch.ones(1, 41, 41, 5, dtype=torch.bool)
        for pair in ((3 * truth - 1, truth), (truth, 3 * truth - 1)):
            scores = score_volume(*pair, 2, body=body, detailed=True)
            assert scores["psnr"] == scores["psnr_body"] == scores["psnr_volume"] == math.inf and scores["rmse"] == 0
            assert scores["vif"] == scores["vif_volume"] == pytest.approx(1, abs=1e-6)


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
        error = (pred - truth)[..., between].double()
        assert found["mse"] == pytest.approx((error**2).mean().item(), rel=1e-5)
        assert found["rmse"] == pytest.approx((error**2).mean().sqrt().item(), rel=1e-5)
        values = [found[name + suffix] for name in ("ssim", "vif") for suffix in parts]
        assert np.diff(sorted(values)).min() > 1e-4  # none can be mistaken for another

    def test_only_on_request(self):
        truth, pred = rand(1, 41, 41, 41), rand(1, 41, 41, 41, seed=1)
        body = rand(1, 41, 41, 41, seed=2) > 0.5
        plain, detailed = (score_volume(pred, truth, 2, body=body, detailed=flag) for flag in (False, True))
        assert set(plain) == PLAIN | INSIDE and set(detailed) - set(plain) == DETAILS
        assert {name: detailed[name] for name in plain} == plain
        assert all(type(value) is float for value in detailed.values())

    @pytest.mark.parametrize(
        ("size", "missing"),
        [
            ((41, 41, 3), set()),
            ((41, 40, 41), {"vif", "vif_volume"}),
            ((11, 11, 11), {"vif", "vif_volume"}),
        ],
    )
    def test_too_small_for_a_window(self, size, missing):
        scores = score_volume(rand(1, *size) / 2, rand(1, *size), 2, detailed=True)
        assert {name for name, value in scores.items() if math.isnan(value)} == missing

    @pytest.mark.parametrize(("rows", "window"), [(9, 9), (10, 9), (19, 11), (4, 3)])
    def test_cuts_of_few_slices(self, rows, window):
        """SSIM by scikit-image with the largest odd window that fits; VIF of what NumPy extends symmetrically."""
        truth, pred = rand(1, 43, 45, rows), rand(1, 43, 45, rows, seed=1)
        pred[..., ::3] = truth[..., ::3]
        found = score_volume(pred[..., :rows], truth, 1, include_observed=True, detailed=True)
        sigma = 1.5 * window / 11
        options = {"gaussian_weights": True, "sigma": sigma, "truncate": (window // 2) / sigma, "data_range": 1.0}
        for name, axis in (("sagittal", 1), ("coronal", 2)):
            pairs = [
                [volume.select(axis, k)[0].double().numpy() for volume in (pred, truth)]
                for k in range(pred.shape[axis])
            ]
            values, border = [], window // 2
            for first, second in pairs:
                _, full = structural_similarity(first, second, full=True, use_sample_covariance=False, **options)
                values.append(full[border : full.shape[0] - border, border : full.shape[1] - border].mean())
            assert found[f"ssim_{name}"] == pytest.approx(np.mean(values), abs=1e-6)
            extended = [
                torch.from_numpy(np.pad(np.stack(images), ((0, 0), (0, 0), (0, 41 - rows)), "symmetric"))[:, None]
                for images in zip(*pairs, strict=True)
            ]
            assert found[f"vif_{name}"] == pytest.approx(slice_score(*extended, "vif").item(), rel=1e-5)

    def test_reconstruction(self):
        """Of all slices that were given, each once."""
        observed = rand(2, 41, 42, 5)
        pred = 0.9 * observed
        found = score_reconstruction(pred, observed, detailed=True)
        images = [images_at(volume, 3) for volume in (pred, observed)]
        for name in ("psnr", "ssim", "vif"):
            assert found[f"{name}_reconstruction"] == pytest.approx(slice_score(*images, name).item(), rel=1e-6)
        assert set(score_reconstruction(pred[:, :12], observed[:, :12], detailed=True)) == set(found)
        with pytest.raises(ValueError, match="the computed slices have shape"):
            score_reconstruction(pred[..., 1:], observed)

    def test_constant_slices_have_no_fidelity(self):
        truth, pred = rand(1, 41, 41, 5), rand(1, 41, 41, 5, seed=1)
        truth[..., 3] = 0.5
        scores = score_volume(pred, truth, 2, detailed=True)
        alone = score_volume(pred[..., :3], truth[..., :3], 2, detailed=True)
        assert scores["vif"] == alone["vif"] and math.isfinite(scores["ssim"])
        scores = score_volume(pred, torch.full_like(truth, 0.5), 2, detailed=True)
        assert math.isnan(scores["vif"]) and math.isnan(scores["vif_volume"])


class TestMisuse:
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_not_finite(self, value):
        good = rand(1, 12, 12, 5)
        bad = good.clone()
        bad[0, 3, 4, 0] = bad[0, 3, 4, 2] = value
        for pair, name in (((bad, good), "interpolated volume"), ((good, bad), "truth")):
            with pytest.raises(ValueError, match=f"the {name} has 2 of 720 voxels that are NaN or infinite"):
                score_volume(*pair, 2)

    @pytest.mark.parametrize(
        ("truth", "factor", "message"),
        [
            ((1, 12, 13, 5), 2, r"\(1, 12, 12, 5\) does not belong to a truth of shape \(1, 12, 13, 5\)"),
            ((1, 12, 12, 8), 3, r"does not belong to a truth of shape \(1, 12, 12, 8\) at factor 3"),
            ((1, 12, 12, 5), 1, "no synthesized slice to score"),
        ],
    )
    def test_shapes(self, truth, factor, message):
        with pytest.raises(ValueError, match=message):
            score_volume(rand(1, 12, 12, 5), rand(*truth), factor)

    def test_mask_and_small_slices(self):
        volume = rand(1, 12, 12, 5)
        with pytest.raises(ValueError, match=r"mask has shape \(1, 12, 12, 4\); expected .* \(1, 12, 12, 5\)"):
            score_volume(volume, volume, 2, body=volume[..., :4] > 0.5)
        with pytest.raises(ValueError, match="SSIM's window needs slices of at least 11 x 11 pixels"):
            score_volume(volume[:, :, :10], volume[:, :, :10], 2)


class TestEntries:
    def test_columns(self):
        names = ["psnr", "ssim", "psnr_volume", "psnr_body", "ssim_body", "rmse", "mse", "vif", "sharpness"]
        names += ["flicker", "rmse_body"]
        names += [f"{name}_{plane}" for name in ("ssim", "vif") for plane in ("volume", "coronal", "sagittal")]
        again = [f"{name}_reconstruction" for name in ("psnr", "ssim", "vif")]
        assert list(METRICS) == [*names, *again, "lpips", "niqe", "ma", "dice", "seconds", "memory"]
        smaller = {"rmse", "flicker", "mse", "rmse_body", "lpips", "niqe", "seconds", "memory"}
        assert {name for name, metric in METRICS.items() if metric.better == "smaller"} == smaller
        assert {metric.region for metric in METRICS.values()} == set(REGIONS)
        computed = {name for name, metric in METRICS.items() if metric.score}
        assert computed == PLAIN | INSIDE | DETAILS | set(again)

    @pytest.mark.parametrize(
        ("name", "label"),
        [
            ("psnr_body", "PSNR (dB), inside the body"),
            ("ssim_volume", "SSIM, whole volume"),
            ("vif_sagittal", "VIF, cuts across slices (sagittal where these are axial)"),
            ("seconds", "Time (s)"),
        ],
    )
    def test_labels(self, name, label):
        assert METRICS[name].label == label

    @pytest.mark.parametrize(
        ("metric", "value", "text"),
        [
            ("psnr", 31.2349, "31.23"),
            ("psnr_body", 31.235001, "31.24"),
            ("ssim_coronal", 0.98765432, "0.9877"),
            ("rmse", 0.0123456, "0.01235"),
            ("mse", 0.000152399, "1.52e-04"),
            ("niqe", 4.56789, "4.57"),
            ("lpips", 0.123456, "0.1235"),
            ("seconds", 0.012345, "0.0123"),
            ("seconds", 1234.5678, "1235"),
            ("memory", 1234.5678, "1234.6"),
            ("psnr", math.inf, "∞"),
            ("psnr", -math.inf, "-∞"),
            ("ssim", math.nan, "–"),
            ("psnr", -0.001, "0.00"),
            ("psnr", -0.01, "-0.01"),
        ],
    )
    def test_rounding(self, metric, value, text):
        assert METRICS[metric].format(value) == text


class TestLeaveOneOut:
    @pytest.mark.parametrize("count", [3, 4, 5, 8, 9])
    def test_every_inner_slice_once(self, count):
        thin = MetaTensor(rand(1, 12, 12, count), affine=torch.diag(torch.tensor([1, 1, 2.0, 1])))
        left_out = []
        for phase, protocol in enumerate(LEAVE_ONE_OUT):
            if not protocol.can_score(count):
                with pytest.raises(ValueError, match=f"at least {phase + 3} of them, the volume has {count}"):
                    protocol.trial(thin)
                continue
            trial = protocol.trial(thin)
            assert torch.equal(trial.thick.as_tensor(), thin.as_tensor()[..., phase::2])
            assert trial.thick.affine[2, 2] == 4 and trial.thick.affine[2, 3] == 2 * phase
            assert trial.score(thin[..., phase : phase + 2 * trial.thick.shape[-1] - 1])["psnr"] == math.inf
            left_out += range(phase + 1, phase + 2 * (trial.thick.shape[-1] - 1), 2)
        assert sorted(left_out) == list(range(1, count - 1))

    def test_uneven_slices(self):
        thin = MetaTensor(rand(1, 12, 12, 4), meta={"slice_positions": (0.0, 1.0, 3.0, 4.0), "slice_positions_axis": 2})
        with pytest.raises(ValueError, match="unevenly spaced or some are missing; expected even gaps to leave"):
            LEAVE_ONE_OUT[0].trial(thin)
