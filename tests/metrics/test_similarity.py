# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import signal
from skimage.metrics import structural_similarity as by_skimage

from monai_sliceinterp.metrics import structural_similarity
from monai_sliceinterp.metrics.windows import window_means


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestWindowMeans:
    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize(("size", "sigma"), [(3, 0.6), (11, 1.5), (17, 3.4)])
    @pytest.mark.parametrize("shape", [(17, 17), (40, 23), (22, 31)])
    def test_convolution(self, shape, size, sigma, stride):
        image = rand(2, 3, *shape)
        offsets = np.arange(size) - (size - 1) / 2
        window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * sigma**2))
        found = window_means(image, size, sigma, stride)
        for k in range(2):
            for c in range(3):
                full = signal.convolve2d(image[k, c].numpy(), window / window.sum(), mode="valid")
                np.testing.assert_allclose(found[k, c], full[::stride, ::stride], atol=1e-12)
        assert found.shape == (2, 3, (shape[0] - size) // stride + 1, (shape[1] - size) // stride + 1)


class TestSimilarity:
    @pytest.mark.parametrize("data_range", [1.0, 255.0])
    @pytest.mark.parametrize("shape", [(11, 11), (12, 30), (33, 16)])
    def test_scikit_image(self, shape, data_range):
        """The whole map, for more images than are computed at once."""
        truth, pred = data_range * rand(9, 2, *shape), data_range * rand(9, 2, *shape, seed=1)
        pred[::2] = truth[::2] + 0.1 * pred[::2]
        found = structural_similarity(MetaTensor(pred), truth, data_range)
        assert type(found) is torch.Tensor and found.dtype == torch.float64
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
        for k in range(9):
            for c in range(2):
                pair = (truth[k, c].numpy(), pred[k, c].numpy())
                expected = by_skimage(*pair, data_range=data_range, **options)[1][5:-5, 5:-5]
                np.testing.assert_allclose(found[k, c], expected, atol=1e-10)

    def test_errors(self):
        with pytest.raises(ValueError, match=r"at least 11 x 11 pixels, got \(11, 10\)"):
            structural_similarity(rand(1, 1, 11, 10), rand(1, 1, 11, 10))
        with pytest.raises(ValueError, match=r"of one shape, got \(2, 1, 12, 12\) and \(1, 1, 12, 12\)"):
            structural_similarity(rand(2, 1, 12, 12), rand(1, 1, 12, 12))
