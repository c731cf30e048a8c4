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

"""Scores by pretrained models of human judgment: optional, by the packages that contain these models."""

from __future__ import annotations

import torch
from monai.losses import PerceptualLoss
from torch import Tensor, nn

from monai_sliceinterp.checks import one_of
from monai_sliceinterp.metrics.mean import MeanScoreMetric

__all__ = ["PERCEPTUAL_SCORES", "PerceptualMetric"]

PERCEPTUAL_SCORES = ("lpips", "niqe", "ma")

_PYIQA_NAMES = {"niqe": "niqe", "ma": "nrqm"}

_NIQE_SIZE = 96  # pixels of the blocks that NIQE takes its statistics from


class PerceptualMetric(MeanScoreMetric):
    """Metric that averages a perceptual score of slices, used like MONAI's metrics.

    These models have learned from photographs. On medical images they show little more than sharpness; read them beside
    PSNR, SSIM and VIF, not instead.

    Args:
        name: "lpips": learned perceptual similarity with VGG-16 features, 0 for equal images, smaller is better (see
            :class:`monai.losses.PerceptualLoss`). "niqe": natural image quality evaluator, smaller is
            better. "ma": the quality of super-resolved images by Ma et al. (NRQM), 0 to 10, larger is better. The last
            two look at the image alone, not at the reference.
        data_range: intensities are clipped to [0, ``data_range``] and scaled to what the model expects.
        device: where the model runs.

    Raises:
        ValueError: for an unknown score.
        ImportError: if the package of the score or its pretrained weights cannot be had.

    Example:
        >>> PerceptualMetric("fid")
        Traceback (most recent call last):
        ...
        ValueError: unknown perceptual score 'fid'; expected one of lpips, niqe, ma.
    """

    def __init__(self, name: str, data_range: float = 1.0, device: str | torch.device = "cpu") -> None:
        super().__init__()
        self.name = one_of("perceptual score", name, PERCEPTUAL_SCORES)
        self.data_range, self.device = data_range, torch.device(device)
        model = _lpips_model() if name == "lpips" else _pyiqa_model(name, self.device)
        self.model = model.to(self.device).eval()

    @torch.no_grad()
    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Score slices ``(K, C, H, W)``, each channel on its own: ``(K, C)``."""
        shape = tuple(y_pred.shape)
        if len(shape) != 4:
            raise ValueError(f"a perceptual score takes slices (K, C, H, W), got shape {shape}.")
        if self.name == "niqe" and min(shape[-2:]) < _NIQE_SIZE:
            raise ValueError(f"NIQE needs slices of at least {_NIQE_SIZE} x {_NIQE_SIZE} pixels, got {shape[-2:]}.")
        images = self._as_photographs(y_pred)
        # one at a time: bounds the memory, and not every model takes a batch
        if self.name == "lpips":
            if y is None or tuple(y.shape) != shape:
                raise ValueError(f"LPIPS needs references of the slices' shape {shape}.")
            pairs = zip(images, self._as_photographs(y), strict=True)
            # pretrained networks expect [-1, 1]
            values = [float(self.model(2 * image[None] - 1, 2 * reference[None] - 1)) for image, reference in pairs]
        else:
            values = [float(self.model(image[None])) for image in images]
        return torch.tensor(values).reshape(shape[:2])

    def _as_photographs(self, slices: Tensor) -> Tensor:
        """Slices as color images ``(K C, 3, H, W)`` in [0, 1]."""
        images = slices.flatten(0, 1)[:, None].float().clamp(0, self.data_range) / self.data_range
        return images.expand(-1, 3, -1, -1).to(self.device)


def _lpips_model() -> nn.Module:
    try:
        return PerceptualLoss(spatial_dims=2, network_type="vgg", is_fake_3d=False)
    except (ImportError, RuntimeError, OSError) as error:  # packages that do not import, weights that do not download
        raise ImportError(
            "the score 'lpips' needs the packages lpips and torchvision and their pretrained weights "
            f'(pip install "monai_sliceinterp[perceptual]"). Cause: {error}'
        ) from error


def _pyiqa_model(name: str, device: torch.device) -> nn.Module:
    try:
        from pyiqa import create_metric

        model: nn.Module = create_metric(_PYIQA_NAMES[name], device=device)
    except (ImportError, RuntimeError, OSError) as error:  # does not import, or its weights do not download
        raise ImportError(
            f"the score {name!r} needs the package pyiqa and its pretrained weights, which it downloads once "
            f'(pip install "monai_sliceinterp[iqa]"). Cause: {error}'
        ) from error
    return model
