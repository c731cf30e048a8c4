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

"""Distances between images, chosen by name, as terms of losses."""

from __future__ import annotations

from collections.abc import Mapping

from monai.losses import PerceptualLoss, SSIMLoss
from torch import Tensor, nn

from monai_sliceinterp import checks

__all__ = ["DISTANCES", "MixedDistance"]

DISTANCES = ("mse", "l1", "log_rmse", "ssim", "lpips")


class MixedDistance(nn.Module):
    """Weighted sum of image distances.

    Args:
        weights: weight of each distance by name, or one name. "mse": mean squared error; "l1": mean absolute error;
            "log_rmse": natural logarithm of each sample's root mean squared error, which is its PSNR but for a factor:
            samples with small errors have as much weight as those with large ones; "ssim":
            one minus the structural similarity; "lpips": learned perceptual similarity with VGG-16 features (needs the
            packages ``lpips`` and ``torchvision`` and their pretrained weights; imported only if named).
        spatial_dims: 2 for slices ``(B, C, H, W)``, 3 for volumes.
        data_range: largest possible intensity difference, for "ssim" and "lpips".

    Raises:
        ValueError: for an unknown name or a negative weight.
        ImportError: if "lpips" is named but not available.

    Example:
        >>> import torch
        >>> distance = MixedDistance({"mse": 1.0, "ssim": 0.02})
        >>> image = torch.rand(2, 1, 16, 16)
        >>> round(distance(image, image).item(), 6)
        0.0
    """

    def __init__(
        self, weights: str | Mapping[str, float] = "mse", spatial_dims: int = 2, data_range: float = 1.0
    ) -> None:
        super().__init__()
        named = {weights: 1.0} if isinstance(weights, str) else dict(weights)
        for name, weight in named.items():
            checks.one_of("distance", name, DISTANCES)
            checks.not_negative(f"the weight of distance {name!r}", weight)
        self.weights = {name: float(weight) for name, weight in named.items() if weight > 0}
        self.data_range = data_range
        self.terms = nn.ModuleDict({name: _term(name, spatial_dims, data_range) for name in self.weights})

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Compute the distance of ``image`` and ``target``, both ``(B, C, H, W[, D])``, as a scalar.

        Raises:
            ValueError: if the shapes differ.
        """
        if image.shape != target.shape:
            raise ValueError(f"image and target differ in shape: {tuple(image.shape)} and {tuple(target.shape)}.")
        total = image.new_zeros(())
        for name, term in self.terms.items():
            if name == "lpips":  # pretrained networks expect [-1, 1]
                value = term(2 * image / self.data_range - 1, 2 * target / self.data_range - 1)
            else:
                value = term(image, target)
            total = total + self.weights[name] * value
        return total


_LEAST_SQUARE = 1e-7  # squared errors below this count as equal


class _LogRMSE(nn.Module):
    """Logarithm of the root mean squared error of each sample, mean over the samples."""

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        return (image - target).square().flatten(1).mean(dim=1).add(_LEAST_SQUARE).log().mean() / 2


def _term(name: str, spatial_dims: int, data_range: float) -> nn.Module:
    if name == "mse":
        return nn.MSELoss()
    if name == "l1":
        return nn.L1Loss()
    if name == "log_rmse":
        return _LogRMSE()
    if name == "ssim":
        return SSIMLoss(spatial_dims, data_range=data_range)
    try:
        return PerceptualLoss(spatial_dims, network_type="vgg", is_fake_3d=spatial_dims == 3)
    except (ImportError, RuntimeError, OSError) as error:  # packages that do not import, weights that do not download
        raise ImportError(
            "the distance 'lpips' needs the packages lpips and torchvision and their pretrained weights "
            f'(pip install "monai_sliceinterp[perceptual]"); "mse", "l1" and "ssim" need nothing. Cause: {error}'
        ) from error
