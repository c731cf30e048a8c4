# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from monai_sliceinterp.metrics import PERCEPTUAL_SCORES, PerceptualMetric, perceptual
from tests.engines.helpers import rand


class Model(nn.Module):
    """Notes what it is given; its score is the mean of the first image."""

    def __init__(self, *args, **kwargs):
        super().__init__()
        self.made_with, self.seen = (args, kwargs), []

    def forward(self, *images):
        assert not self.training and not torch.is_grad_enabled()
        self.seen.append(images)
        return images[0].mean().reshape(1, 1)


@pytest.fixture
def pyiqa(monkeypatch):
    """A stand-in for the package, with the models that were made."""
    module = ModuleType("pyiqa")
    module.made = []

    def create_metric(name, device=None):
        module.made.append(Model(name, device))
        return module.made[-1]

    module.create_metric = create_metric
    monkeypatch.setitem(sys.modules, "pyiqa", module)
    return module


@pytest.fixture
def lpips(monkeypatch):
    made = []

    def make(*args, **kwargs):
        made.append(Model(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(perceptual, "PerceptualLoss", make)
    return made


class TestReferenceFree:
    @pytest.mark.parametrize(("name", "called"), [("niqe", "niqe"), ("ma", "nrqm")])
    @pytest.mark.parametrize("data_range", [1.0, 50.0])
    def test_what_the_model_is_given(self, pyiqa, name, called, data_range):
        """One color image in [0, 1] at a time, each channel an image of its own."""
        slices = data_range * (2 * rand(2, 3, 96, 97) - 0.5)
        metric = PerceptualMetric(name, data_range)
        found = metric(slices)
        (model,) = pyiqa.made
        assert model.made_with == ((called, torch.device("cpu")), {})
        assert len(model.seen) == 6
        expected = (slices / data_range).clamp(0, 1).flatten(0, 1)
        for (image,), single in zip(model.seen, expected, strict=True):
            assert image.shape == (1, 3, 96, 97) and image.dtype == torch.float32
            torch.testing.assert_close(image[0], single.expand(3, -1, -1))
        torch.testing.assert_close(found, expected.mean(dim=(1, 2)).reshape(2, 3))
        assert metric.aggregate().item() == pytest.approx(expected.mean().item(), rel=1e-5)

    def test_a_reference_changes_nothing(self, pyiqa):
        slices = rand(2, 1, 96, 96)
        metric = PerceptualMetric("ma")
        assert torch.equal(metric(slices, 1 - slices), metric(slices))

    def test_slices_without_a_score_do_not_count(self, pyiqa):
        metric = PerceptualMetric("ma")
        slices = rand(3, 1, 12, 12)
        slices[1] = torch.nan
        metric(slices)
        assert metric.aggregate().item() == pytest.approx(slices[[0, 2]].mean().item(), rel=1e-5)

    def test_small_slices(self, pyiqa):
        with pytest.raises(ValueError, match=r"NIQE needs slices of at least 96 x 96 pixels, got \(96, 95\)"):
            PerceptualMetric("niqe")(rand(1, 1, 96, 95))


class TestLearnedDistance:
    @pytest.mark.parametrize("data_range", [1.0, 50.0])
    def test_what_the_model_is_given(self, lpips, data_range):
        """Pairs in [-1, 1], one at a time."""
        slices, references = data_range * rand(2, 2, 20, 21), data_range * (1.5 * rand(2, 2, 20, 21, seed=1) - 0.2)
        metric = PerceptualMetric("lpips", data_range)
        found = metric(slices, references)
        (model,) = lpips
        assert model.made_with[1]["network_type"] == "vgg" and len(model.seen) == 4
        given = [(2 * (images / data_range).clamp(0, 1) - 1).flatten(0, 1) for images in (slices, references)]
        for (image, reference), first, second in zip(model.seen, *given, strict=True):
            torch.testing.assert_close(image, first.expand(1, 3, -1, -1), atol=1e-6, rtol=0)
            torch.testing.assert_close(reference, second.expand(1, 3, -1, -1), atol=1e-6, rtol=0)
        torch.testing.assert_close(found, given[0].mean(dim=(1, 2)).reshape(2, 2), atol=1e-6, rtol=0)

    @pytest.mark.parametrize("references", [None, rand(1, 1, 20, 21)])
    def test_references_are_needed(self, lpips, references):
        with pytest.raises(ValueError, match=r"LPIPS needs references of the slices' shape \(2, 1, 20, 21\)"):
            PerceptualMetric("lpips")(rand(2, 1, 20, 21), references)


class TestErrors:
    @pytest.mark.parametrize("name", ["niqe", "ma"])
    def test_no_package(self, monkeypatch, name):
        monkeypatch.setitem(sys.modules, "pyiqa", None)
        with pytest.raises(ImportError, match=f"the score '{name}' needs the package pyiqa .*monai_sliceinterp.iqa"):
            PerceptualMetric(name)

    @pytest.mark.parametrize("error", [OSError("<urlopen error>"), RuntimeError("no torchvision::nms")])
    def test_no_weights(self, monkeypatch, pyiqa, error):
        def fail(*args, **kwargs):
            raise error

        monkeypatch.setattr(pyiqa, "create_metric", fail)
        with pytest.raises(ImportError, match="its pretrained weights") as caught:
            PerceptualMetric("niqe")
        assert str(error) in str(caught.value) and caught.value.__cause__ is error

    def test_no_lpips(self, monkeypatch):
        def fail(*args, **kwargs):
            raise ImportError("required package `lpips` is not installed")

        monkeypatch.setattr(perceptual, "PerceptualLoss", fail)
        with pytest.raises(ImportError, match=r'lpips and torchvision .*pip install "monai_sliceinterp\[perceptual\]"'):
            PerceptualMetric("lpips")

    def test_unknown(self):
        with pytest.raises(ValueError, match="unknown perceptual score 'psnr'; expected one of lpips, niqe, ma"):
            PerceptualMetric("psnr")

    @pytest.mark.parametrize("name", PERCEPTUAL_SCORES)
    def test_volumes(self, pyiqa, lpips, name):
        volume = rand(1, 1, 96, 96, 3)
        with pytest.raises(ValueError, match=r"takes slices \(K, C, H, W\), got shape \(1, 1, 96, 96, 3\)"):
            PerceptualMetric(name)(volume, volume)
