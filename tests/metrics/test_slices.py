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
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import IgniteMetricHandler
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from monai_sliceinterp.metrics import (
    SLICE_SCORES,
    SynthesizedSliceMetric,
    slice_score,
    synthesized_pairs,
    visual_information_fidelity,
)

PIXEL_SCORES = ("psnr", "ssim", "rmse", "mse")  # those scikit-image has, and which a mask can restrict


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


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
            first, second = synthesized_pairs(pred, truth, factor, include_observed)
            assert first.shape == second.shape == (channels * len(wanted), 1, 3, 4)
            codes = sorted(second[:, 0, 0, 0].tolist())
            assert codes == sorted(100.0 * c + k for c in range(channels) for k in wanted)
            assert torch.equal(first, second + 0.5)  # slice by slice

    def test_plain_tensors_come_back(self):
        truth = MetaTensor(rand(1, 4, 4, 5))
        for pair in (synthesized_pairs(truth, truth, 2), synthesized_pairs(truth.as_tensor(), truth, 2)):
            assert [type(part) for part in pair] == [torch.Tensor, torch.Tensor]
            assert torch.equal(pair[0][:, 0], truth.as_tensor()[0, :, :, 1::2].permute(2, 0, 1))

    @pytest.mark.parametrize(
        ("pred", "truth"),
        [
            ((1, 4, 4, 9), (1, 4, 4, 8)),  # more than there are
            ((1, 4, 4, 9), (1, 4, 4, 13)),  # one more slice could have been interpolated
            ((1, 4, 4, 9), (1, 4, 5, 9)),
            ((2, 4, 4, 9), (1, 4, 4, 9)),
        ],
    )
    def test_not_of_one_volume(self, pred, truth):
        with pytest.raises(ValueError, match="does not belong to a truth of shape .* at factor 4"):
            synthesized_pairs(torch.zeros(pred), torch.zeros(truth), 4)

    @pytest.mark.parametrize(("count", "factor"), [(1, 4), (5, 1)])
    def test_nothing_to_score(self, count, factor):
        volume = torch.zeros(1, 4, 4, count)
        with pytest.raises(ValueError, match=f"volume of {count} slices at factor {factor} has no synthesized slice"):
            synthesized_pairs(volume, volume, factor)


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

    def test_more_slices_than_are_computed_at_once(self):
        """SSIM is computed in blocks of slices."""
        truth, pred = rand(70, 1, 12, 13), rand(70, 1, 12, 13, seed=1)
        each = [by_skimage("ssim", p[0], t[0], 1.0) for p, t in zip(pred, truth, strict=True)]
        assert slice_score(pred, truth, "ssim").item() == pytest.approx(np.mean(each), abs=1e-6)

    def test_bright_flat_regions(self):
        """Where float32 has the fewest digits for variances: SSIM is still right to 1e-6."""
        truth = torch.ones(2, 1, 40, 40)
        truth[:, :, 25:] = 0.2
        pred = (truth - 0.004 * rand(2, 1, 40, 40)).clamp(0, 1)
        each = [by_skimage("ssim", p[0], t[0], 1.0) for p, t in zip(pred, truth, strict=True)]
        assert slice_score(pred, truth, "ssim").item() == pytest.approx(np.mean(each), abs=1e-6)

    @pytest.mark.parametrize("shift", [0.1, -0.25])
    def test_known_shift(self, shift):
        truth = 0.3 + 0.4 * rand(3, 1, 16, 16)
        for data_range in (1.0, 4.0):
            found = {name: slice_score(truth + shift, truth, name, data_range).item() for name in PIXEL_SCORES}
            assert found["psnr"] == pytest.approx(20 * np.log10(data_range / abs(shift)), rel=1e-6)
            assert found["rmse"] == pytest.approx(abs(shift), rel=1e-6)
            assert found["mse"] == pytest.approx(shift**2, rel=1e-6)

    @pytest.mark.parametrize("sigma", [0.01, 0.2])
    def test_known_noise(self, sigma):
        """White noise of standard deviation sigma costs 20 log10(1 / sigma) dB, within what 160,000 pixels leave."""
        truth = rand(10, 1, 128, 125)
        noise = sigma * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
        relative = 5 / np.sqrt(2 * truth.numel())  # five standard deviations of a sample's standard deviation
        assert slice_score(truth + noise, truth, "rmse").item() == pytest.approx(sigma, rel=relative)
        decibels = 20 * np.log10(1 + relative)
        assert slice_score(truth + noise, truth, "psnr").item() == pytest.approx(-20 * np.log10(sigma), abs=decibels)

    def test_low_precision_is_computed_in_float32(self):
        truth = rand(2, 1, 16, 16).half()
        pred = (truth + 0.1).half()
        for name in PIXEL_SCORES:
            assert torch.equal(slice_score(pred, truth, name), slice_score(pred.float(), truth.float(), name))

    def test_perfect(self):
        image = rand(2, 1, 41, 41)
        assert slice_score(image, image, "psnr").item() == float("inf")
        assert slice_score(image, image, "ssim").item() == pytest.approx(1.0)
        assert slice_score(image, image, "vif").item() == pytest.approx(1.0)
        assert slice_score(image, image, "rmse").item() == slice_score(image, image, "mse").item() == 0
        one = torch.zeros(2, 1, 16, 16)
        one[1] += 0.1  # an empty slice that is met exactly does not make the whole infinite
        assert slice_score(one, 0 * one, "psnr").item() == pytest.approx(20 + 10 * np.log10(2), rel=1e-5)

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
        truth = rand(3, 2, 45, 42)
        pred = truth + torch.tensor([0.01, 0.1, 0.5])[:, None, None, None] * rand(3, 2, 45, 42, seed=1)
        each = visual_information_fidelity(pred, truth)
        assert each.min() < 0.5 < each.max()
        found = slice_score(pred, truth, "vif")
        assert found.shape == () and found.dtype == torch.float32
        assert found.item() == pytest.approx(each.mean().item(), rel=1e-6)
        assert slice_score(40 * pred, 40 * truth, "vif", 40.0).item() == pytest.approx(found.item(), rel=1e-5)

    def test_constant_truth_does_not_count(self):
        truth = rand(3, 1, 41, 43)
        pred = truth + 0.1 * rand(3, 1, 41, 43, seed=1)
        expected = slice_score(pred[:2], truth[:2], "vif")
        truth[2] = 0.7
        assert torch.equal(slice_score(pred, truth, "vif"), expected)
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

    @pytest.mark.parametrize("data_range", [1.0, 40.0])
    def test_psnr_by_numpy(self, data_range):
        pred, truth = self.pair(data_range=data_range)
        mask = discs(4, 1, 24, 19)
        error = (pred - truth).double().numpy()[mask.numpy()]
        for name, value in (("mse", np.mean(error**2)), ("rmse", np.sqrt(np.mean(error**2)))):
            assert slice_score(pred, truth, name, data_range, mask).item() == pytest.approx(value, rel=1e-6)
        expected = 10 * np.log10(data_range**2 / np.mean(error**2))
        found = slice_score(pred, truth, "psnr", data_range, mask)
        assert found.shape == () and found.dtype == torch.float32
        assert found.item() == pytest.approx(expected, rel=1e-6)
        assert abs(found - slice_score(pred, truth, "psnr", data_range)) > 0.1

    @pytest.mark.parametrize("channels", [1, 2])
    @pytest.mark.parametrize("data_range", [1.0, 40.0])
    def test_ssim_by_scikit_image(self, data_range, channels):
        """The mean of scikit-image's map over the masked pixels whose window lies inside the slice."""
        pred, truth = self.pair(channels, data_range)
        mask = discs(4, channels, 24, 19)
        mask[0, :, :, :4] = True  # these do not count: their windows leave the slice
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
        inside = np.zeros((24, 19), bool)
        inside[5:-5, 5:-5] = True
        values = []
        for k in range(4):
            for c in range(channels):
                first, second = truth[k, c].double().numpy(), pred[k, c].double().numpy()
                _, similarity = structural_similarity(first, second, data_range=data_range, **options)
                values.append(similarity[inside & mask[k, c].numpy()])
        assert len({len(part) for part in values}) > 1  # so that a mean of slices' means is another number
        found = slice_score(pred, truth, "ssim", data_range, mask)
        assert found.shape == () and found.dtype == torch.float32
        assert found.item() == pytest.approx(np.concatenate(values).mean(), abs=1e-5)
        assert abs(found - slice_score(pred, truth, "ssim", data_range)) > 1e-3

    @pytest.mark.parametrize("name", PIXEL_SCORES)
    def test_everything(self, name):
        pred, truth = self.pair()
        whole = torch.ones(4, 1, 24, 19, dtype=torch.bool)
        expected = slice_score(pred, truth, name)
        torch.testing.assert_close(slice_score(pred, truth, name, mask=whole), expected)

    @pytest.mark.parametrize("name", PIXEL_SCORES)
    def test_what_lies_outside_does_not_count(self, name):
        """Errors further from the mask than SSIM's window change nothing."""
        pred, truth = self.pair()
        mask = torch.zeros(4, 1, 24, 19, dtype=torch.bool)
        mask[:, :, 6:9, 6:13] = True
        worse = pred.clone()
        worse[:, :, 14:] += 5
        torch.testing.assert_close(
            slice_score(worse, truth, name, mask=mask), slice_score(pred, truth, name, mask=mask)
        )
        assert (slice_score(worse, truth, name) < slice_score(pred, truth, name)) == (name in ("psnr", "ssim"))
        assert slice_score(worse, truth, name) != slice_score(pred, truth, name)

    @pytest.mark.parametrize("name", PIXEL_SCORES)
    def test_nothing(self, name):
        pred, truth = self.pair()
        assert slice_score(pred, truth, name, mask=torch.zeros_like(pred, dtype=torch.bool)).isnan()

    def test_exact_inside(self):
        pred, truth = self.pair()
        mask = discs(4, 1, 24, 19)
        assert slice_score(torch.where(mask, truth, pred), truth, "psnr", mask=mask).item() == float("inf")


def make_pairs():
    """Volumes of different sizes and noise, as an evaluator hands them over: lists of (pred, truth)."""
    pairs = []
    for number, (thick, noise) in enumerate([(2, 0.1), (9, 0.3), (3, 0.6)]):
        truth = rand(1, 1, 14, 15, 3 * (thick - 1) + 1 + number, seed=number)
        pred = truth[..., : 3 * (thick - 1) + 1] + noise * rand(1, 1, 14, 15, 3 * (thick - 1) + 1, seed=10 + number)
        pairs.append((pred, truth))
    return pairs


def expected_mean(pairs, name):
    """Mean over volumes of the score of their synthesized slices, intensities clipped."""
    means = []
    for pred, truth in pairs:
        wanted = [k for k in range(pred.shape[-1]) if k % 3]
        first, second = pred[0, 0, ..., wanted].clamp(0, 1), truth[0, 0, ..., wanted].clamp(0, 1)
        if name == "ssim":
            each = [by_skimage(name, first[..., k], second[..., k], 1.0) for k in range(len(wanted))]
            means.append(np.mean(each))
        else:
            means.append(by_skimage(name, first, second, 1.0))
    return np.mean(means)


class TestMetric:
    @pytest.mark.parametrize("name", PIXEL_SCORES)
    def test_every_volume_counts_the_same(self, name):
        pairs = make_pairs()
        metric = SynthesizedSliceMetric(name, factor=3)
        for pred, truth in pairs:
            metric(pred, truth)
        found = metric.aggregate()
        assert found.ndim == 0
        assert found.item() == pytest.approx(expected_mean(pairs, name), rel=1e-5)
        # pooled over slices it would be another number
        slices = torch.cat([torch.stack(synthesized_pairs(p[0], t[0], 3)) for p, t in pairs], dim=1).clamp(0, 1)
        assert abs(slice_score(*slices, name).item() - found.item()) > 1e-3

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
            metric(pred, truth)
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

    @pytest.mark.parametrize("data_range", [1.0, 100.0])
    def test_clips(self, data_range):
        truth = torch.zeros(1, 1, 16, 16, 3)
        truth[..., :8, :] = data_range
        pred = truth.clone()
        pred[truth == 0] = -7 * data_range
        pred[truth > 0] = 1.1 * data_range
        metric = SynthesizedSliceMetric("psnr", factor=2, data_range=data_range)
        metric(pred, truth)
        assert metric.aggregate().item() == float("inf")
        metric.reset()
        metric(pred.clamp(0, data_range) * 0.9, truth)
        assert metric.aggregate().item() == pytest.approx(-10 * np.log10(0.5 * 0.1**2), rel=1e-5)
        metric.reset()
        metric(truth, pred)  # the truth's intensities are clipped too
        assert metric.aggregate().item() == float("inf")

    @pytest.mark.parametrize("name", PIXEL_SCORES)
    def test_in_an_ignite_engine(self, name):
        """A second run starts anew; MONAI's engines hand over lists of single volumes (C, H, W, M)."""
        pairs = make_pairs()
        evaluator = Engine(lambda engine, batch: ([batch[0][0]], [batch[1][0]]))
        handler = IgniteMetricHandler(metric_fn=SynthesizedSliceMetric(name, factor=3), output_transform=lambda x: x)
        handler.attach(evaluator, name)
        for part in (pairs, pairs[:1]):
            state = evaluator.run(part)
            assert state.metrics[name] == pytest.approx(expected_mean(part, name), rel=1e-5)

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
