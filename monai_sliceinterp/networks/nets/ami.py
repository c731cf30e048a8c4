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

"""Anisotropic meta interpolation (AMI), the first stage of SAINT: filters generated from the voxel spacing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_sliceinterp import checks
from monai_sliceinterp.networks.blocks.blended_interpolation import blended_interpolation
from monai_sliceinterp.networks.blocks.generated_filters import (
    FilterGenerator,
    apply_generated_filters,
    filter_distance_matrix,
    odd_kernel_size,
)
from monai_sliceinterp.networks.blocks.residual_dense import ResidualDenseNetwork

__all__ = ["AnisotropicMetaInterpolation"]


class AnisotropicMetaInterpolation(nn.Module):
    """Anisotropic meta interpolation (AMI) of the images of a view, by filters generated from the spacing (SAINT, 3.2).

    A residual dense network computes features of an image and its two neighbors in the view; for every position between
    two rows a filter is generated from the distances in mm and applied to the features. Observed rows are copied
    (eq. 5). One network serves every factor and every spacing. In the paper's size, the default, it has 2,787,712
    parameters.

    Args:
        channels: feature channels G0.
        num_blocks: residual dense blocks D.
        num_layers: layers C of a block.
        growth: growth rate G.
        kernel_size: odd size k of the generated filters.
        filter_channels: channels between the layers of the filter generator.
        residual: add the network's output to :func:`blended_interpolation` of the rows, instead of synthesizing the
            whole intensity as the paper does.
        intensity_center: intensity, on the input's scale, that the network sees as 0.
        intensity_scale: difference of intensity that it sees as 1. With the window [-1024, 2976] HU scaled to [0, 1],
            the defaults are water and 1000 HU.

    Raises:
        ValueError: if a size is not positive, or ``kernel_size`` is even.

    Example:
        >>> network = AnisotropicMetaInterpolation(channels=8, num_blocks=1, num_layers=2, growth=4)
        >>> coronal = torch.rand(2, 3, 7, 40)  # two images with their neighbors: 7 slices, 40 pixels in-plane
        >>> network(coronal, factor=4, slice_spacing=5.0, in_plane_spacing=0.8).shape
        torch.Size([2, 1, 25, 40])
    """

    def __init__(
        self,
        channels: int = 64,
        num_blocks: int = 6,
        num_layers: int = 8,
        growth: int = 32,
        kernel_size: int = 3,
        filter_channels: Sequence[int] = (32, 64, 64, 64),
        residual: bool = True,
        intensity_center: float = 0.25,
        intensity_scale: float = 0.25,
    ) -> None:
        super().__init__()
        self.kernel_size, self.residual = odd_kernel_size(kernel_size), residual
        self.intensity_center = intensity_center
        self.intensity_scale = checks.positive("intensity_scale", intensity_scale)
        self.feature_learning = ResidualDenseNetwork(2, 3, None, channels, num_blocks, num_layers, growth)
        self.filter_generation: nn.Module = FilterGenerator(channels, filter_channels, gain=0.1 if residual else 1.0)
        # convolutions of few channels are much faster with channels innermost, on CPU and GPU
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self,
        image: Tensor,
        factor: int = 4,
        slice_spacing: float | Tensor = 4.0,
        in_plane_spacing: float | Tensor = 1.0,
    ) -> Tensor:
        """Interpolate images of a view by an integer factor (SAINT, eq. 4 to 6).

        Args:
            image: ``(B, 3, N, L)``: the previous, the current and the next image of a view, rows along the slice axis,
                intensities in [0, 1].
            factor: upsampling factor K.
            slice_spacing: distance of the rows in mm, a number or ``(B,)``.
            in_plane_spacing: distance of the columns in mm, a number or ``(B,)``.

        Returns:
            ``(B, 1, K (N - 1) + 1, L)``.

        Raises:
            ValueError: if the factor is not a positive integer, and see :meth:`interpolate`.
        """
        self._check(image, slice_spacing, in_plane_spacing)
        factor = checks.positive_integer("factor", factor)
        center, gaps = image[:, 1], image.shape[2] - 1
        if factor == 1:
            return center[:, None].clone()
        offsets = [round(k / factor, 6) for k in range(1, factor)]  # rounded as in _groups
        # every gap has the same offsets: without lists of positions, a trace is valid for any number of rows
        positions = torch.arange(factor * gaps + 1, dtype=torch.float64) / factor
        lower = positions.floor().long().clamp(max=gaps - 1)
        base = self._base(center, lower, positions - lower)
        features = self._features(image)
        filters = self.generate_filters(offsets, slice_spacing, in_plane_spacing, 1 / factor)
        learned = apply_generated_filters(features[:, :, :-1], filters).transpose(1, 2).to(base.dtype)
        between = base[:, :-1].unflatten(1, (gaps, factor))[:, :, 1:] + self.intensity_scale * learned
        rows = torch.cat([center[:, :-1, None], between], dim=2).flatten(1, 2)
        return torch.cat([rows, center[:, -1:]], dim=1)[:, None]

    def interpolate(
        self,
        image: Tensor,
        lower: Tensor,
        alpha: Tensor,
        slice_spacing: float | Tensor,
        in_plane_spacing: float | Tensor,
        step: float = 0.25,
    ) -> Tensor:
        """Interpolate images of a view at any positions.

        Args:
            image: ``(B, 3, N, L)``, see :meth:`forward`.
            lower: index of the row before each position, ``(M,)`` int64, ascending, at most N - 2.
            alpha: fraction of the gap from that row, ``(M,)`` in [0, 1]. Positions on a row (0 or 1) copy it.
            slice_spacing: distance of the rows in mm, a number or ``(B,)``.
            in_plane_spacing: distance of the columns in mm, a number or ``(B,)``.
            step: distance of the output rows in gaps, 1 / K. AMI does without it, Meta-SR does not.

        Returns:
            ``(B, M, L)``.

        Raises:
            ValueError: if the image does not have three channels and two rows, or the spacings do not fit the batch.
        """
        self._check(image, slice_spacing, in_plane_spacing)
        # rounding may put a position right beside a row, too close for filters
        alpha = torch.where((alpha - alpha.round()).abs() < 1e-6, alpha.round(), alpha)
        center = image[:, 1]
        base = self._base(center, lower, alpha)
        features = self._features(image)
        learned = torch.zeros_like(base)
        for gaps, offsets, outputs in _groups(lower, alpha):
            first = gaps[0]
            rows = features[:, :, first : gaps[-1] + 1 + 2 * (self.kernel_size // 2)]
            filters = self.generate_filters(offsets, slice_spacing, in_plane_spacing, step)
            synthesized = apply_generated_filters(rows, filters)
            chosen = synthesized[:, :, [gap - first for gap in gaps]]
            learned[:, outputs] = chosen.transpose(1, 2).flatten(1, 2).to(learned.dtype)
        result = base + self.intensity_scale * learned
        observed = torch.nonzero((alpha == 0) | (alpha == 1))[:, 0]
        if len(observed):
            result[:, observed] = center[:, (lower + alpha.round().long())[observed].to(center.device)]
        return result

    @staticmethod
    def _check(image: Tensor, slice_spacing: float | Tensor, in_plane_spacing: float | Tensor) -> None:
        if image.ndim != 4 or image.shape[1] != 3 or image.shape[2] < 2:
            raise ValueError(
                f"expected images with both neighbors (B, 3, N, L) and N of 2 or more, got {tuple(image.shape)}."
            )
        for name, value in (("slice_spacing", slice_spacing), ("in_plane_spacing", in_plane_spacing)):
            if torch.as_tensor(value).numel() not in (1, image.shape[0]):
                raise ValueError(
                    f"{name} must be one number or one for each of {image.shape[0]} images, got {value!r}."
                )

    def _base(self, center: Tensor, lower: Tensor, alpha: Tensor) -> Tensor:
        """Compute the intensities ``(B, M, L)`` that the learned part is added to."""
        if self.residual:
            return blended_interpolation(center, lower, alpha)
        return center.new_full((center.shape[0], lower.shape[0], center.shape[2]), self.intensity_center)

    def _features(self, image: Tensor) -> Tensor:
        """Compute features ``(B, channels, N + k - 1, L)`` of images, zero beyond their first and last row."""
        reach = self.kernel_size // 2
        scaled = ((image - self.intensity_center) / self.intensity_scale).contiguous(memory_format=torch.channels_last)
        return F.pad(self.feature_learning(scaled), (0, 0, reach, reach))

    def generate_filters(
        self,
        offsets: Sequence[float],
        slice_spacing: float | Tensor,
        in_plane_spacing: float | Tensor,
        step: float,
    ) -> Tensor:
        """Generate the filters of R offsets in a gap, ``(B or 1, R, channels, k, k)``; ``step`` is not used."""
        distances = filter_distance_matrix(offsets, slice_spacing, in_plane_spacing, self.kernel_size)
        return self.filter_generation(distances.to(next(self.filter_generation.parameters())))


def _groups(lower: Tensor, alpha: Tensor) -> list[tuple[list[int], list[float], list[int]]]:
    """Group positions by the filters they need: gaps with the same offsets are filtered together.

    Returns:
        Gaps (ascending), their common offsets (to 1e-6), and the indices of the positions, gap by gap. Positions on a
        row are omitted.
    """
    in_gap: dict[int, list[tuple[float, int]]] = {}
    for index, (gap, offset) in enumerate(zip(lower.tolist(), alpha.tolist(), strict=True)):
        if 0 < offset < 1:
            in_gap.setdefault(gap, []).append((offset, index))
    groups: dict[tuple[float, ...], tuple[list[int], list[int]]] = {}
    for gap, entries in in_gap.items():
        # offsets of the same phase differ by rounding from gap to gap
        gaps, indices = groups.setdefault(tuple(round(offset, 6) for offset, _ in entries), ([], []))
        gaps.append(gap)
        indices.extend(index for _, index in entries)
    return [(gaps, list(offsets), indices) for offsets, (gaps, indices) in groups.items()]
