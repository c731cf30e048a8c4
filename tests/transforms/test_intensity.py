# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose

from monai_sliceinterp.transforms import (
    InvertibleScaleIntensityRange,
    InvertibleScaleIntensityRanged,
    InvertibleScaleIntensityRangePercentiles,
    InvertibleScaleIntensityRangePercentilesd,
    RandSigmoidContrast,
    RandSigmoidContrastd,
    ThroughPlaneLastd,
    sigmoid_curve,
)
from tests.transforms.volumes import check_error

EPS = np.finfo(np.float32).eps


def make_image(shape=(1, 12, 11, 5), seed=0, width=400.0, offset=-300.0):
    values = np.random.default_rng(seed).gamma(1.5, width, size=shape) + offset
    return MetaTensor(torch.tensor(values, dtype=torch.float32), affine=torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0])))


SCALERS = [InvertibleScaleIntensityRange(-1000, 2000)]
SCALERS += [InvertibleScaleIntensityRangePercentiles(*limits) for limits in ((), (0, 100))]


class TestScaling:
    @pytest.mark.parametrize("scaler", SCALERS)
    def test_round_trip(self, scaler):
        image = make_image()
        source = image.clone()
        scaled = scaler(image)
        assert scaled.dtype == torch.float32 and torch.equal(scaled.affine, image.affine)
        back = scaler.inverse(scaled)
        low, high = scaler.range_of(source)
        largest = max(abs(low), abs(high), float(abs(source).max()))
        np.testing.assert_allclose(back.numpy(), source.numpy(), rtol=0, atol=3 * EPS * largest)
        assert torch.equal(image.as_tensor(), source.as_tensor()) and image.applied_operations == []
        assert back.applied_operations == []

    @pytest.mark.parametrize("scaler", SCALERS)
    @pytest.mark.parametrize(("dtype", "low", "high"), [(torch.int16, -32768, 32768), (torch.uint8, 0, 256)])
    def test_integers_come_back_exactly(self, scaler, dtype, low, high):
        image = torch.randint(low, high, (1, 9, 9, 4), generator=torch.Generator().manual_seed(0)).to(dtype)
        scaled = scaler(MetaTensor(image))
        assert scaled.dtype == torch.float32
        assert torch.equal(scaler.inverse(scaled).as_tensor().round().to(dtype), image)

    @pytest.mark.parametrize("clip", [False, True])
    def test_range(self, clip):
        values = torch.tensor([[-2000.0, -1000, 500, 1000, 1500]])
        scaled = InvertibleScaleIntensityRange(-1000, 1000, clip=clip)(values)
        expected = [[0, 0, 0.75, 1, 1]] if clip else [[-0.5, 0, 0.75, 1, 1.25]]
        np.testing.assert_allclose(scaled, expected, rtol=0, atol=1e-7)

    @pytest.mark.parametrize("clip", [False, True])
    @pytest.mark.parametrize(("lower", "upper"), [(1, 99), (2.5, 97), (0, 100), (0, 50)])
    def test_percentiles_equal_numpy(self, lower, upper, clip):
        image = make_image((3, 9, 9, 5))  # frames share the scaling
        image[2] *= 3
        low, high = np.percentile(image.numpy().astype(np.float64), [lower, upper])
        expected = (image.numpy().astype(np.float64) - low) / (high - low)
        scaler = InvertibleScaleIntensityRangePercentiles(lower, upper, clip)
        scaled = scaler(image)
        np.testing.assert_allclose(scaled, expected.clip(0, 1) if clip else expected, rtol=1e-5, atol=1e-5)
        back = image.numpy().clip(low, high) if clip else image.numpy()  # what was clipped is at the range's ends
        np.testing.assert_allclose(scaler.inverse(scaled), back, rtol=1e-5, atol=1e-3)
        assert (scaled.min() == 0) == (clip or lower == 0)

    @pytest.mark.parametrize("value", [0.0, 7.3, -1024.0, 1e6])
    @pytest.mark.parametrize("clip", [False, True])
    def test_constant_image(self, value, clip):
        image = MetaTensor(torch.full((1, 4, 4, 3), value))
        scaler = InvertibleScaleIntensityRangePercentiles(clip=clip)
        scaled = scaler(image)
        assert (scaled == 0).all()
        assert torch.equal(scaler.inverse(scaled).as_tensor(), image.as_tensor())

    def test_mostly_background(self):
        """Both percentiles are the background: the range of the whole image is taken instead."""
        image = torch.zeros(1, 20, 20, 5)
        image[0, 3, 4, 2] = 50.0
        scaled = InvertibleScaleIntensityRangePercentiles(1, 99)(image)
        assert scaled.isfinite().all() and scaled.max() == 1 and scaled.sum() == 1

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_not_finite(self, value):
        image = make_image()
        image[0, 0, 0, 0] = value
        check_error("NaN or infinite", InvertibleScaleIntensityRangePercentiles(0, 100), image)

    def test_errors(self):
        for low, high in ((1, 1), (2, 1), (float("nan"), 1)):
            check_error(f"a_min < a_max, got {low} and {high}", InvertibleScaleIntensityRange, low, high)
        for low, high in ((-1, 99), (50, 50), (99, 1), (1, 101)):
            check_error(f"got {low} and {high}", InvertibleScaleIntensityRangePercentiles, low, high)

    def test_other_transforms_info_is_not_taken(self):
        scaled = SCALERS[1](make_image())
        with pytest.raises(RuntimeError, match="Range"):
            SCALERS[0].inverse(scaled)


class TestBatches:
    @pytest.mark.parametrize(
        "scaler",
        [
            InvertibleScaleIntensityRangePercentilesd("image"),
            InvertibleScaleIntensityRanged("image", a_min=-500, a_max=1500),
        ],
    )
    def test_inverse_of_decollated_items(self, scaler):
        chain = Compose([ThroughPlaneLastd("image", axis=0), scaler])
        items = [{"image": make_image(seed=seed, width=100.0 * 10**seed)} for seed in range(3)]
        loader = DataLoader(Dataset(items, chain), batch_size=3, collate_fn=list_data_collate)
        (batch,) = loader
        assert batch["image"].shape == (3, 1, 11, 5, 12)
        # as a network's output: one value changed in scaled units
        batch["image"][:, 0, 0, 0, 0] = 0.5
        for item, source in zip(decollate_batch(batch), items, strict=True):
            low, high = scaler.transform.range_of(source["image"])
            expected = source["image"].numpy().copy()
            expected[0, 0, 0, 0] = (low + high) / 2
            back = chain.inverse(item)["image"]
            largest = max(abs(low), abs(high), abs(expected).max())
            np.testing.assert_allclose(back.numpy(), expected, rtol=0, atol=3 * EPS * largest)
            assert torch.equal(back.affine, source["image"].affine)
            assert back.applied_operations == []

    def test_keys(self):
        data = {"a": make_image(), "b": make_image(seed=1), "c": "text"}
        scaler = InvertibleScaleIntensityRangePercentilesd(["a", "b", "z"], lower=0, upper=100, allow_missing_keys=True)
        scaled = scaler(data)
        assert scaled["c"] == "text" and scaled["a"].max() == 1 and scaled["b"].max() == 1
        back = scaler.inverse(scaled)
        for key in "ab":
            np.testing.assert_allclose(back[key], data[key].numpy(), rtol=0, atol=3 * EPS * abs(data[key]).max().item())
        with pytest.raises(KeyError, match="z"):
            InvertibleScaleIntensityRangePercentilesd(["a", "z"])(data)


class TestSigmoidContrast:
    @pytest.mark.parametrize("gain", [0.1, 2.5, 7.5, 20.0])
    @pytest.mark.parametrize("cutoff", [0.0, 0.25, 0.6, 1.0])
    def test_curve(self, gain, cutoff):
        x = torch.linspace(0, 1, 1001)
        y = sigmoid_curve(x, gain, cutoff)
        np.testing.assert_allclose(y[[0, -1]], [0, 1], rtol=0, atol=1e-6)
        assert (y.diff() >= -1e-7).all() and y.min() >= 0 and y.max() <= 1
        wide = x.double().numpy()
        expected = 1 / (1 + np.exp(-gain * (wide - cutoff)))
        expected = (expected - expected[0]) / (expected[-1] - expected[0])
        np.testing.assert_allclose(y, expected, rtol=0, atol=5e-5)
        if 0 < cutoff < 1:
            assert y.diff().argmax() == pytest.approx(1000 * cutoff, abs=25 if gain > 1 else 1000)

    def test_one_curve_for_all_keys(self):
        augment = RandSigmoidContrastd(["image", "label", "gone"], prob=1.0, allow_missing_keys=True)
        augment.set_random_state(seed=1)
        x = torch.rand(1, 8, 8)
        for _ in range(5):
            data = {"image": x, "label": x.clone(), "alpha": 0.5}
            out = augment(data)
            assert torch.equal(out["image"], out["label"]) and out["alpha"] == 0.5
            assert torch.equal(data["image"], x) and not torch.equal(out["image"], x)
            np.testing.assert_allclose(out["image"], sigmoid_curve(x, *augment.transform.curve))

    @pytest.mark.parametrize("prob", [0.0, 0.3, 1.0])
    def test_probability_and_ranges(self, prob):
        x = torch.linspace(0, 1, 9)
        augment = RandSigmoidContrast(prob=prob, gain=(3, 4), cutoff=(0.4, 0.5)).set_random_state(seed=0)
        changed, drawn = [], []
        for _ in range(300):
            changed.append(not torch.equal(augment(x), x))
            drawn.append(augment.curve)
        assert np.mean(changed) == (prob if prob in (0, 1) else pytest.approx(prob, abs=0.1))
        gains, cutoffs = zip(*drawn, strict=True)
        for values, (low, high) in ((gains, (3, 4)), (cutoffs, (0.4, 0.5))):
            assert low <= min(values) < low + 0.1 * (high - low)
            assert high >= max(values) > high - 0.1 * (high - low)

    @pytest.mark.parametrize("augment", [RandSigmoidContrastd("x", prob=0.5), Compose([RandSigmoidContrastd("x")])])
    def test_reproducible(self, augment):
        data = {"x": torch.rand(50)}
        runs = []
        for seed in (3, 3, 4):
            augment.set_random_state(seed=seed)
            runs.append(torch.stack([augment(data)["x"] for _ in range(10)]))
        assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])

    def test_errors(self):
        for wrong in ({"gain": (0, 1)}, {"gain": (3, 2)}, {"cutoff": (-0.1, 1)}, {"cutoff": (0.5, 1.1)}):
            check_error("need 0 < gain and cutoff", RandSigmoidContrast, **wrong)
