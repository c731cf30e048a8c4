# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from monai_sliceinterp.metrics import (
    SLICE_SCORES,
    SynthesizedSliceMetric,
    slice_score,
    synthesized_pairs,
    visual_information_fidelity,
)
from tests.engines.helpers import rand

PIXEL_SCORES = ("psnr", "ssim", "rmse", "mse")  # those scikit-image has, and which a mask can restrict


def by_skimage(name, pred, truth, data_range):
    first, second = truth.double().numpy(), pred.double().numpy()
    if name == "psnr":
        return peak_signal_noise_ratio(first, second, data_range=data_range)
    if name in ("rmse", "mse"):
        return mean_squared_error(first, second) ** (0.5 if name == "rmse" else 1)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return structural_similarity(first, second, data_range=data_range, **options)


def numbered(channels, num_slices, start=0):
    """Every voxel tells its slice and channel: 100 * channel + slice."""
    codes = 100.0 * torch.arange(channels)[:, None] + torch.arange(num_slices) + start
    return codes[:, None, None].expand(channels, 3, 4, num_slices)


class TestPairs:
    @pytest.mark.parametrize("include_observed", [False, True])
    @pytest.mark.parametrize("factor", [1, 2, 3, 4])
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("thick", [1, 2, 5])
    def test_which_slices(self, factor, channels, thick, include_observed):
        count = factor * (thick - 1) + 1
        wanted = [k for k in range(count) if include_observed or k % factor]
        for leftover in range(factor if wanted else 0):
            truth = numbered(channels, count + leftover)
            pred = numbered(channels, count, start=0.5)
            first, second = synthesized_pairs(MetaTensor(pred), truth, factor, include_observed)
            assert type(first) is type(second) is torch.Tensor
            assert first.shape == second.shape == (channels * len(wanted), 1, 3, 4)
            codes = sorted(second[:, 0, 0, 0].tolist())
            assert codes == sorted(100.0 * c + k for c in range(channels) for k in wanted)
            assert torch.equal(first, second + 0.5)  # slice by slice

    @pytest.mark.parametrize(
        ("pred", "truth", "message"),
        [
            ((1, 4, 4, 9), (1, 4, 4, 8), "does not belong to a truth of shape .* at factor 4"),  # more than there are
            ((1, 4, 4, 9), (1, 4, 4, 13), "does not belong"),  # one more slice could have been interpolated
            ((1, 4, 4, 9), (1, 4, 5, 9), "does not belong"),
            ((2, 4, 4, 9), (1, 4, 4, 9), "does not belong"),
            ((1, 4, 4, 1), (1, 4, 4, 1), "volume of 1 slices at factor 4 has no synthesized slice to score"),
        ],
    )
    def test_not_of_one_volume(self, pred, truth, message):
        with pytest.raises(ValueError, match=message):
            synthesized_pairs(torch.zeros(pred), torch.zeros(truth), 4)


class TestScore:
    @pytest.mark.parametrize("name", PIXEL_SCORES)
    @pytest.mark.parametrize(("data_range", "noise"), [(1.0, 0.05), (1.0, 0.4), (255.0, 0.1)])
    def test_equal_scikit_image(self, name, data_range, noise):
        """PSNR, RMSE and MSE from the error of all slices together, SSIM as the mean over slices; to 1e-6."""
        truth = data_range * rand(4, 1, 24, 17)
        amount = noise * data_range * torch.tensor([0.2, 1.0, 0.5, 0.1])[:, None, None, None]
        pred = truth + amount * (rand(4, 1, 24, 17, seed=1) - 0.5)
        each = [by_skimage(name, p[0], t[0], data_range) for p, t in zip(pred, truth, strict=True)]
        expected = np.mean(each) if name == "ssim" else by_skimage(name, pred, truth, data_range)
        found = slice_score(pred, truth, name, data_range)
        assert found.shape == () and found.dtype == torch.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        for k in range(4):
            single = slice_score(pred[k, None], truth[k, None], name, data_range)
            np.testing.assert_allclose(single, each[k], rtol=1e-6)
        assert name in ("ssim", "mse") or abs(np.mean(each) - expected) > 0.03 * expected

    def test_bright_flat_regions(self):
        """Where float32 has the fewest digits for variances: SSIM is still right to 1e-6."""
        truth = torch.ones(2, 1, 40, 40)
        truth[:, :, 25:] = 0.2
        pred = (truth - 0.004 * rand(2, 1, 40, 40)).clamp(0, 1)
        each = [by_skimage("ssim", p[0], t[0], 1.0) for p, t in zip(pred, truth, strict=True)]
        assert slice_score(pred, truth, "ssim").item() == pytest.approx(np.mean(each), abs=1e-6)

    def test_low_precision_is_computed_in_float32(self):
        truth = rand(2, 1, 16, 16).half()
        pred = (truth + 0.1).half()
        for name in PIXEL_SCORES:
            assert torch.equal(slice_score(pred, truth, name), slice_score(pred.float(), truth.float(), name))

    @pytest.mark.parametrize(
        ("name", "size", "message"),
        [
            ("ssim", (10, 16), r"SSIM's window needs slices of at least 11 x 11 pixels, got \(10, 16\)"),
            ("vif", (41, 40), r"VIF's window needs slices of at least 41 x 41 pixels, got \(41, 40\)"),
            ("nrmse", (10, 16), "unknown score 'nrmse'; expected one of psnr, ssim, rmse, mse, vif"),
            ("vif", (41, 41), "VIF is a score of whole slices and takes no mask"),
        ],
    )
    def test_errors(self, name, size, message):
        image = rand(2, 1, *size)
        with pytest.raises(ValueError, match=message):
            slice_score(image, image, name, mask=image > 0.5)

    @pytest.mark.parametrize("name", SLICE_SCORES)
    def test_shapes(self, name):
        image = rand(2, 1, 41, 41)
        with pytest.raises(ValueError, match=r"differ in shape: \(2, 1, 41, 41\) and \(1, 1, 41, 41\)"):
            slice_score(image, image[:1], name)  # would broadcast
        with pytest.raises(ValueError, match="mask and slices differ in shape"):
            slice_score(image, image, name, mask=image[:1] > 0.5)


class TestFidelity:
    def test_mean_over_slices(self):
        """A constant truth does not count."""
        truth = rand(3, 2, 45, 42)
        pred = truth + torch.tensor([0.01, 0.1, 0.5])[:, None, None, None] * rand(3, 2, 45, 42, seed=1)
        each = visual_information_fidelity(pred, truth)
        assert each.min() < 0.5 < each.max()
        found = slice_score(pred, truth, "vif")
        assert found.shape == () and found.dtype == torch.float32
        assert found.item() == pytest.approx(each.mean().item(), rel=1e-6)
        assert slice_score(40 * pred, 40 * truth, "vif", 40.0).item() == pytest.approx(found.item(), rel=1e-5)
        truth[2] = 0.7
        assert torch.equal(slice_score(pred, truth, "vif"), slice_score(pred[:2], truth[:2], "vif"))
        assert slice_score(pred[2:], truth[2:], "vif").isnan()


def discs(*shape):
    """A mask with a disc in every slice, larger from slice to slice."""
    rows, columns = torch.meshgrid(torch.arange(shape[2]) - 9.0, torch.arange(shape[3]) - 10.0, indexing="ij")
    radii = 2.5 + torch.arange(shape[0])[:, None, None, None]
    return (torch.hypot(rows, columns) < radii).expand(shape).clone()


class TestMask:
    def pair(self, channels=1, data_range=1.0):
        truth = data_range * rand(4, channels, 24, 19)
        amount = data_range * torch.tensor([0.2, 1.0, 0.5, 0.1])[:, None, None, None]
        return truth + amount * (rand(4, channels, 24, 19, seed=1) - 0.5), truth

    @pytest.mark.parametrize("channels", [1, 2])
    @pytest.mark.parametrize("data_range", [1.0, 40.0])
    def test_by_numpy_and_scikit_image(self, data_range, channels):
        """Pixel errors inside; the mean of scikit-image's SSIM over pixels inside whose window lies in the slice."""
        pred, truth = self.pair(channels, data_range)
        mask = discs(4, channels, 24, 19)
        mask[0, :, :, :4] = True  # these do not count for SSIM: their windows leave the slice
        square = np.mean((pred - truth).double().numpy()[mask.numpy()] ** 2)
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
        values = []
        for images in zip(*(part.flatten(0, 1).numpy() for part in (truth.double(), pred.double(), mask)), strict=True):
            _, similarity = structural_similarity(*images[:2], data_range=data_range, **options)
            values.append(similarity[5:-5, 5:-5][images[2][5:-5, 5:-5]])
        assert len({len(part) for part in values}) > 1  # so that a mean of slices' means is another number
        expected = {"mse": square, "rmse": np.sqrt(square), "psnr": 10 * np.log10(data_range**2 / square)}
        for name, value in {**expected, "ssim": np.concatenate(values).mean()}.items():
            found = slice_score(pred, truth, name, data_range, mask)
            assert found.shape == () and found.dtype == torch.float32
            assert found.item() == pytest.approx(value, rel=1e-6, abs=1e-5 if name == "ssim" else 0)
            assert abs(found - slice_score(pred, truth, name, data_range)) > 1e-3 * abs(found)

    @pytest.mark.parametrize("name", PIXEL_SCORES)
    def test_everything_and_nothing(self, name):
        pred, truth = self.pair()
        whole = torch.ones_like(pred, dtype=torch.bool)
        torch.testing.assert_close(slice_score(pred, truth, name, mask=whole), slice_score(pred, truth, name))
        assert slice_score(pred, truth, name, mask=~whole).isnan()
        mask = discs(4, 1, 24, 19)
        exact = slice_score(torch.where(mask, truth, pred), truth, "psnr", mask=mask)
        assert exact.item() == float("inf")


class TestMetric:
    @pytest.mark.parametrize("data_range", [1.0, 20.0])
    @pytest.mark.parametrize("length", [9, 11])
    @pytest.mark.parametrize("include_observed", [True, False])
    def test_observed_slices(self, include_observed, length, data_range):
        """Mean over volumes of their scores by scikit-image; intensities outside the range are clipped."""
        truth = data_range * (1.2 * rand(2, 2, 15, 14, length) - 0.1)
        pred = data_range * (1.2 * rand(2, 2, 15, 14, 9, seed=1) - 0.1)
        pred[..., ::4] = truth[..., :9:4] + 0.01 * data_range  # observed slices are better
        slices = [k for k in range(9) if include_observed or k % 4]
        for name in ("psnr", "ssim"):
            expected = []
            for pair in zip(pred, truth, strict=True):
                images = [volume.clamp(0, data_range)[..., slices].movedim(-1, 0).flatten(0, 1) for volume in pair]
                each = [by_skimage(name, *image, data_range) for image in zip(*images, strict=True)]
                expected.append(np.mean(each) if name == "ssim" else by_skimage(name, *images, data_range))
            metric = SynthesizedSliceMetric(name, 4, data_range, include_observed)
            metric(pred, truth)
            assert metric.aggregate().item() == pytest.approx(np.mean(expected), rel=1e-5, abs=1e-5)

    def test_fidelity(self):
        """Every volume counts the same, and one whose truth is constant does not."""
        metric = SynthesizedSliceMetric("vif", factor=2)
        volumes = [rand(1, 1, 41, 42, count, seed=count) for count in (3, 7)]
        expected = []
        for truth in volumes:
            pred = truth + 0.05 * truth.shape[-1] * rand(*truth.shape, seed=1)
            metric([pred[0]], [truth[0]])  # as engines hand them over
            first, second = (volume.clamp(0, 1)[0, :, :, :, 1::2].permute(3, 0, 1, 2) for volume in (pred, truth))
            expected.append(visual_information_fidelity(first, second).mean().item())
        assert abs(expected[0] - expected[1]) > 0.05
        assert metric.aggregate().item() == pytest.approx(np.mean(expected), rel=1e-6)
        metric(volumes[0], torch.full_like(volumes[0], 0.5))
        assert metric.aggregate().item() == pytest.approx(np.mean(expected), rel=1e-6)
        metric.reset()
        metric(volumes[0], torch.full_like(volumes[0], 0.5))
        assert metric.aggregate().isnan()

    @pytest.mark.parametrize("name", PIXEL_SCORES)
    def test_a_network_that_gives_nan_is_seen(self, name):
        truth = rand(1, 1, 14, 15, 5)
        metric = SynthesizedSliceMetric(name, factor=2)
        metric(truth / 2, truth)
        metric(truth * torch.nan, truth)
        assert metric.aggregate().isnan()

    def test_errors(self):
        with pytest.raises(ValueError, match="unknown score 'lpips'; expected one of psnr, ssim, rmse, mse, vif"):
            SynthesizedSliceMetric("lpips", factor=2)
        metric = SynthesizedSliceMetric("psnr", factor=2)
        with pytest.raises(ValueError, match="nothing has been scored yet"):
            metric.aggregate()
        with pytest.raises(ValueError, match=r"expected volumes \(B, C, H, W, M\)"):
            metric(rand(1, 8, 8, 5), rand(1, 8, 8, 5))
        with pytest.raises(ValueError, match="and their truth"):
            metric(rand(1, 1, 8, 8, 5))
        with pytest.raises(ValueError, match="zip"):
            metric(rand(2, 1, 8, 8, 5), rand(1, 1, 8, 8, 5))
