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

"""SAINT: views of a volume are interpolated by filters generated from the voxel spacing, then fused.

Peng C, Lin WA, Liao H, Chellappa R, Zhou SK: SAINT: Spatially Aware Interpolation NeTwork for Medical Slice Synthesis.
CVPR 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.networks.blocks.generated_filters import (
    FilterGenerator,
    apply_generated_filters,
    filter_distance_matrix,
)
from monai_sliceinterp.networks.blocks.residual_dense import ResidualDenseNetwork
from monai_sliceinterp.networks.blocks.views import (
    EDGES,
    VIEW_DIRECTIONS,
    from_view,
    neighbor_triples,
    to_view,
    view_spacing,
)

__all__ = ["SAINT", "AnisotropicMetaInterpolation", "ResidualFusionNetwork", "blended_interpolation"]


def blended_interpolation(image: Tensor, lower: Tensor, alpha: Tensor) -> Tensor:
    """Mean of linear and four-tap cubic (Catmull-Rom) interpolation along the rows, which are replicated at both ends.

    It rings less than a cubic kernel and blurs less than a linear one; it reproduces constants and, inside, ramps.

    Args:
        image: ``(B, N, L)``.
        lower: index of the row before each position, ``(M,)`` int64.
        alpha: fraction of the gap from that row, ``(M,)`` in [0, 1].

    Returns:
        ``(B, M, L)``.

    Example:
        >>> ramp = torch.arange(4.0).reshape(1, 4, 1)
        >>> blended_interpolation(ramp, torch.tensor([1]), torch.tensor([0.25])).item()
        1.25
    """
    t = alpha.to(image)
    linear = torch.stack([torch.zeros_like(t), 1 - t, t, torch.zeros_like(t)])
    cubic = torch.stack(
        [
            t * (t * (2 - t) - 1),
            t * t * (3 * t - 5) + 2,
            t * (t * (4 - 3 * t) + 1),
            t * t * (t - 1),
        ]
    )
    weights = 0.5 * linear + 0.25 * cubic
    rows = lower.to(image.device)
    last = image.shape[1] - 1
    result = torch.zeros((), dtype=image.dtype, device=image.device)
    for tap, weight in enumerate(weights):
        result = result + weight[:, None] * image[:, (rows + tap - 1).clamp(0, last)]
    return result


class AnisotropicMetaInterpolation(nn.Module):
    """AMI: interpolates the images of a view along their rows by filters generated from the spacing (SAINT, 3.2).

    A residual dense network learns features of an image and its two neighbors in the view; for every position between
    two rows a filter is generated from the distances in mm and applied to the features. Rows that are observed are
    copied (eq. 5). One network serves every factor and every spacing. In the paper's size, the default, it has
    2,787,712 parameters.

    Args:
        channels: feature channels G0.
        num_blocks: residual dense blocks D.
        num_layers: layers C of a block.
        growth: growth rate G.
        kernel_size: odd size k of the generated filters.
        filter_channels: channels between the layers of the filter generator.
        residual: add the network's output to :func:`blended_interpolation` of the rows, instead of synthesizing the
            whole intensity as in the paper.
        intensity_center: intensity, on the input's scale, that the network sees as 0.
        intensity_scale: difference of intensity that it sees as 1. With the window [-1024, 2976] HU scaled to [0, 1],
            the defaults are water and 1000 HU.

    Raises:
        ValueError: if a size is not usable.

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
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"the filter size must be odd, got {kernel_size!r}.")
        if not intensity_scale > 0:
            raise ValueError(f"intensity_scale must be positive, got {intensity_scale!r}.")
        self.kernel_size, self.residual = kernel_size, residual
        self.intensity_center, self.intensity_scale = intensity_center, intensity_scale
        self.feature_learning = ResidualDenseNetwork(2, 3, None, channels, num_blocks, num_layers, growth)
        self.filter_generation = FilterGenerator(channels, filter_channels, gain=0.1 if residual else 1.0)
        # convolutions of few channels are a good deal faster with channels innermost, on CPU and GPU
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
        offsets = [round(offset, 6) for offset in OutputGrid.from_factor(2, factor).positions[1:-1]]
        center, gaps, factor = image[:, 1], image.shape[2] - 1, int(factor)
        if factor == 1:
            return center[:, None].clone()
        # every gap has the same offsets: without lists of positions, a trace holds for any number of rows
        positions = torch.arange(factor * gaps + 1, dtype=torch.float64) / factor
        lower = positions.floor().long().clamp(max=gaps - 1)
        base = self._base(center, lower, positions - lower)
        features = self._features(image)
        filters = self._filters(offsets, slice_spacing, in_plane_spacing, features)
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
    ) -> Tensor:
        """Interpolate images of a view at any positions.

        Args:
            image: ``(B, 3, N, L)``, see :meth:`forward`.
            lower: index of the row before each position, ``(M,)`` int64, ascending, at most N - 2.
            alpha: fraction of the gap from that row, ``(M,)`` in [0, 1]. Positions on a row (0 or 1) copy it.
            slice_spacing: distance of the rows in mm, a number or ``(B,)``.
            in_plane_spacing: distance of the columns in mm, a number or ``(B,)``.

        Returns:
            ``(B, M, L)``.

        Raises:
            ValueError: if the image has not three channels and two rows, or the spacings do not fit the batch.
        """
        self._check(image, slice_spacing, in_plane_spacing)
        # rounding may leave a position right beside a row, too close for filters of its own
        alpha = torch.where((alpha - alpha.round()).abs() < 1e-6, alpha.round(), alpha)
        center = image[:, 1]
        base = self._base(center, lower, alpha)
        features = self._features(image)
        learned = torch.zeros_like(base)
        for gaps, offsets, outputs in _groups(lower, alpha):
            first = gaps[0]
            rows = features[:, :, first : gaps[-1] + 1 + 2 * (self.kernel_size // 2)]
            synthesized = apply_generated_filters(
                rows, self._filters(offsets, slice_spacing, in_plane_spacing, features)
            )
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
        """Return what the learned part is added to, ``(B, M, L)``."""
        if self.residual:
            return blended_interpolation(center, lower, alpha)
        return center.new_full((center.shape[0], lower.shape[0], center.shape[2]), self.intensity_center)

    def _features(self, image: Tensor) -> Tensor:
        """Return features ``(B, channels, N + k - 1, L)`` of images, zero past their first and last row."""
        reach = self.kernel_size // 2
        scaled = ((image - self.intensity_center) / self.intensity_scale).contiguous(memory_format=torch.channels_last)
        return F.pad(self.feature_learning(scaled), (0, 0, reach, reach))

    def _filters(
        self,
        offsets: Sequence[float],
        slice_spacing: float | Tensor,
        in_plane_spacing: float | Tensor,
        features: Tensor,
    ) -> Tensor:
        """Generate the filters of R offsets in a gap, ``(B or 1, R, channels, k, k)``."""
        distances = filter_distance_matrix(offsets, slice_spacing, in_plane_spacing, self.kernel_size)
        return self.filter_generation(distances.to(features))


class ResidualFusionNetwork(nn.Module):
    """RFN: refines the mean of the views slice by slice (SAINT, section 3.3, eq. 10).

    With the default sizes, those of the authors' code, it has 371,105 parameters.

    Args:
        num_views: number of views.
        spatial_dims: 2 refines every slice on its own, 3 (the paper's alternative) the volume.
        channels: feature channels G0.
        num_blocks: residual dense blocks D.
        num_layers: layers C of a block.
        growth: growth rate G.
        intensity_center: see :class:`AnisotropicMetaInterpolation`.
        intensity_scale: see :class:`AnisotropicMetaInterpolation`.

    Example:
        >>> network = ResidualFusionNetwork(num_blocks=1, num_layers=2)
        >>> network(torch.rand(4, 2, 30, 20)).shape
        torch.Size([4, 1, 30, 20])
    """

    def __init__(
        self,
        num_views: int = 2,
        spatial_dims: int = 2,
        channels: int = 64,
        num_blocks: int = 4,
        num_layers: int = 6,
        growth: int = 12,
        intensity_center: float = 0.25,
        intensity_scale: float = 0.25,
    ) -> None:
        super().__init__()
        if not intensity_scale > 0:
            raise ValueError(f"intensity_scale must be positive, got {intensity_scale!r}.")
        self.num_views, self.spatial_dims = num_views, spatial_dims
        self.intensity_center, self.intensity_scale = intensity_center, intensity_scale
        self.network = ResidualDenseNetwork(spatial_dims, num_views, 1, channels, num_blocks, num_layers, growth)
        last = self.network.last
        assert last is not None
        with torch.no_grad():  # starts close to the mean of the views
            last.weight.mul_(0.1)
            last.bias.zero_()
        memory_format = torch.channels_last if spatial_dims == 2 else torch.channels_last_3d
        self.to(memory_format=memory_format)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        """Fuse slices seen by the views ``(B, num_views, H, W)`` (volumes in 3D), in [0, 1], to ``(B, 1, H, W)``."""
        memory_format = torch.channels_last if self.spatial_dims == 2 else torch.channels_last_3d
        scaled = ((image - self.intensity_center) / self.intensity_scale).contiguous(memory_format=memory_format)
        return image.mean(dim=1, keepdim=True) + self.intensity_scale * self.network(scaled)


class SAINT(nn.Module):
    """SAINT: AMI on two or four views of a volume, then RFN on what the views agree and disagree about.

    :meth:`forward` interpolates small volumes at once, for training, export and checks; whole scans go through
    :class:`monai_sliceinterp.inferers.MultiViewSliceInferer`, which needs little memory.

    Args:
        ami: settings of :class:`AnisotropicMetaInterpolation`.
        rfn: settings of :class:`ResidualFusionNetwork`; its number of views is set here.
        num_views: 2 (rows and columns) or 4 (diagonals too, the paper's variant).
        edge: what replaces the missing neighbor of the first and last image of a view, "replicate" or "zero".

    Raises:
        ValueError: if a setting is not usable.

    Example:
        >>> small = {"channels": 8, "num_blocks": 1, "num_layers": 2, "growth": 4}
        >>> network = SAINT(ami=small, rfn=small)
        >>> network(torch.rand(1, 1, 20, 16, 3), factor=2, slice_spacing=5.0, in_plane_spacing=(0.8, 0.8)).shape
        torch.Size([1, 1, 20, 16, 5])
    """

    def __init__(
        self,
        ami: dict | None = None,
        rfn: dict | None = None,
        num_views: int = 2,
        edge: str = "replicate",
    ) -> None:
        super().__init__()
        if num_views not in (2, 4):
            raise ValueError(f"num_views must be 2 or 4, got {num_views!r}.")
        if edge not in EDGES:
            raise ValueError(f"unknown edge {edge!r}; expected one of {', '.join(EDGES)}.")
        self.directions = VIEW_DIRECTIONS[:num_views]
        self.edge = edge
        self.ami = AnisotropicMetaInterpolation(**(ami or {}))
        self.rfn = ResidualFusionNetwork(num_views=num_views, **(rfn or {}))

    def forward(
        self,
        image: Tensor,
        factor: int = 4,
        slice_spacing: float | Tensor = 4.0,
        in_plane_spacing: Sequence[float | Tensor] = (1.0, 1.0),
        fuse: bool = True,
    ) -> Tensor:
        """Interpolate volumes by an integer factor.

        Args:
            image: ``(B, 1, H, W, N)``, slices last, intensities in [0, 1].
            factor: upsampling factor K.
            slice_spacing: distance of the slices in mm, a number or ``(B,)``.
            in_plane_spacing: distances of the pixels along H and W in mm, numbers or ``(B,)``.
            fuse: refine the mean of the views by RFN; else the mean is returned.

        Returns:
            ``(B, 1, H, W, K (N - 1) + 1)``; the observed slices are copied.

        Raises:
            ValueError: if the image is not such a volume, or the spacings do not fit the batch.
        """
        for value in (slice_spacing, *in_plane_spacing):
            if torch.as_tensor(value).numel() not in (1, len(image)):
                raise ValueError(f"spacings must be one number or one for each of {len(image)} volumes, got {value!r}.")
        if image.ndim != 5 or image.shape[1] != 1:
            raise ValueError(f"expected volumes (B, 1, H, W, N), got shape {tuple(image.shape)}.")
        if image.shape[-1] < 2:
            raise ValueError(f"interpolation needs at least 2 slices, got {image.shape[-1]}.")
        slices = image[:, 0].movedim(-1, 1)
        batch, _, *size = slices.shape
        views = []
        for direction in self.directions:
            images = to_view(slices, direction)
            count = images.shape[1]
            triples = torch.cat([neighbor_triples(sample, edge=self.edge) for sample in images])
            across, along = (
                value.repeat_interleave(count) if value.numel() == batch > 1 else value
                for value in (torch.as_tensor(slice_spacing), view_spacing(direction, in_plane_spacing))
            )
            between = self.ami(triples, factor, across, along)[:, 0]
            views.append(from_view(between.unflatten(0, (batch, count)), direction, size))
        stack = torch.stack(views, dim=1)  # (B, views, M, H, W)
        result = self.fuse(stack) if fuse else stack.mean(dim=1)
        observed = (torch.arange(result.shape[1], device=image.device) % factor == 0)[:, None, None]
        exact = stack[:, 0]  # observed rows are copies in every view
        return torch.where(observed, exact, result).movedim(1, -1)[:, None]

    def fuse(self, views: Tensor) -> Tensor:
        """Fuse slices synthesized by the views, ``(B, num_views, M, H, W)``, to ``(B, M, H, W)``."""
        if self.rfn.spatial_dims == 3:
            return self.rfn(views)[:, 0]
        batch = views.shape[0]
        return self.rfn(views.transpose(1, 2).flatten(0, 1))[:, 0].unflatten(0, (batch, -1))


def _groups(lower: Tensor, alpha: Tensor) -> list[tuple[list[int], list[float], list[int]]]:
    """Sort positions by what filters they need: gaps with the same offsets are filtered together.

    Returns:
        Gaps (ascending), their common offsets (to 1e-6), and the positions' numbers, gap by gap. Positions on a row are
        left out.
    """
    in_gap: dict[int, list[tuple[float, int]]] = {}
    for number, (gap, offset) in enumerate(zip(lower.tolist(), alpha.tolist(), strict=True)):
        if 0 < offset < 1:
            in_gap.setdefault(gap, []).append((offset, number))
    groups: dict[tuple[float, ...], tuple[list[int], list[int]]] = {}
    for gap, entries in in_gap.items():
        # offsets of the same phase differ by rounding from gap to gap
        gaps, numbers = groups.setdefault(tuple(round(offset, 6) for offset, _ in entries), ([], []))
        gaps.append(gap)
        numbers.extend(number for _, number in entries)
    return [(gaps, list(offsets), numbers) for offsets, (gaps, numbers) in groups.items()]
