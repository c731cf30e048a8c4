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

"""Interpolation of whole volumes view by view, as SAINT does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from monai_sliceinterp.checks import switch
from monai_sliceinterp.geometry import DISAGREEMENT, SPACING_TIE, OutputGrid
from monai_sliceinterp.inferers.base import (
    SliceInterpolationInferer,
    SliceStack,
    check_batch_size,
    images_per_batch,
)
from monai_sliceinterp.inferers.static import (
    STATIC_TOLERANCE,
    changing_part,
    changing_pixels,
    linear_between,
    network_weights,
    static_change,
)
from monai_sliceinterp.networks.blocks.views import from_view, neighbor_triples, to_view, view_spacing
from monai_sliceinterp.networks.nets.saint import SAINT
from monai_sliceinterp.progress import progress_bar

__all__ = ["MultiViewSliceInferer"]

_PIXELS_PER_BATCH = {"cpu": 8 * 1024, "cuda": 1024 * 1024}
"""Pixels of view images, or of slices to fuse, computed at once by default: what fits a CPU's cache is fastest."""


class MultiViewSliceInferer(SliceInterpolationInferer):
    """Inferer that interpolates every view of a volume in batches of its images, then fuses the views slice by slice.

    Memory is bounded by the views themselves (one copy of the output each) beside one batch.

    The network makes its filters for one slice spacing. Where the slices are unevenly spaced, the gaps of one width (to
    1 %) are done together, each width in a pass of its own.

    Args:
        factor: upsampling factor; or
        spacing: output slice spacing in mm. With neither the output is isotropic.
        batch_size: images of a view, or slices to fuse, that are computed at once; 0 chooses by their size.
        keep_observed: copy the observed slices; else they are what the network makes of its copies.
        value_range: intensities the network was trained on, see
            :class:`monai_sliceinterp.inferers.SliceInterpolationInferer`.
        fuse: refine the mean of the views by the fusion network; else the mean is the result.
        views: names of the views to use, all of the network's by default. Fusing needs all of them.
        disagreement: put how much the views disagree into the output's metadata, as ``disagreement``: the standard
            deviation of the views at every voxel, of the output's shape, on its intensity scale; 0 on observed slices
            that are kept. Large values show where the result is uncertain.
        progress: show a progress bar, or "lines" of text, for every view and for the fusion.
        amp: precision of the network, see :func:`monai_sliceinterp.precision.network_dtype`.

    Raises:
        ValueError: if a parameter is out of range.

    Example:
        >>> size = {"channels": 8, "num_blocks": 1, "num_layers": 2, "growth": 4}
        >>> network = SAINT(ami=size, rfn=size).eval()
        >>> from monai.data import MetaTensor
        >>> scan = MetaTensor(torch.rand(1, 1, 32, 24, 5), affine=torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0])))
        >>> thin = MultiViewSliceInferer(spacing=1.0)(scan, network)
        >>> tuple(thin.shape), thin.pixdim.tolist()
        ((1, 1, 32, 24, 17), [1.0, 1.0, 1.0])
    """

    static_tolerance = STATIC_TOLERANCE

    def __init__(
        self,
        factor: int | None = None,
        spacing: float | None = None,
        batch_size: int = 0,
        keep_observed: bool = True,
        value_range: tuple[float, float] | None = None,
        fuse: bool = True,
        views: Sequence[str] | None = None,
        disagreement: bool = False,
        progress: bool | str = False,
        amp: bool | str = False,
    ) -> None:
        super().__init__(factor, spacing, keep_observed, value_range, progress, amp)
        self.fuse, self.disagreement = switch("fuse", fuse), switch("disagreement", disagreement)
        if self.fuse and views is not None:
            raise ValueError("the fusion network needs all views: give views only together with fuse=False.")
        self.batch_size = check_batch_size(batch_size)
        self.views = None if views is None else tuple(views)
        if self.disagreement:
            self.maps = (DISAGREEMENT,)

    @torch.no_grad()
    def synthesize(self, stack: SliceStack, network: Callable[..., Any] | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Compute the wanted slices of one channel."""
        saint = getattr(network, "module", network)  # the network may be wrapped for distributed training
        if not isinstance(saint, SAINT):
            raise TypeError(f"expected a SAINT network, got {type(network).__name__}.")
        for indices, views in self.interpolate_views(stack, saint):
            with self.network_precision(views.device):
                result = saint.fuse(views[None])[0] if self.fuse else views.mean(dim=0)
            if len(indices) > len(stack.wanted):  # observed slices, which were needed for the fusion in 3D
                indices, views, result = stack.wanted, views[:, stack.wanted], result[stack.wanted]
            if self.disagreement:
                stack.maps[DISAGREEMENT][indices.to(views.device)] = views.std(dim=0, correction=0)
            yield indices, result

    def interpolate_views(self, stack: SliceStack, saint: SAINT) -> Iterator[tuple[Tensor, Tensor]]:
        """Interpolate the views of one channel, and cut them into batches of slices.

        Args:
            stack: the channel's slices and what is wanted of them.
            saint: the network.

        Yields:
            Output indices ``(k,)``, ascending, and the views ``(views, k, H, W)`` of these slices: all slices at once
            for a fusion in 3D, else some of those that are wanted.
        """
        unknown = set(self.views or ()) - set(saint.directions)
        if unknown or self.views == ():
            raise ValueError(f"unknown views {self.views!r}; expected some of {', '.join(saint.directions)}.")
        size = stack.slices.shape[-2:]
        # fusion in 3D needs the observed slices, between which the others lie
        together = self.fuse and saint.rfn is not None and saint.rfn.spatial_dims == 3
        indices = torch.arange(len(stack.grid)) if together else stack.wanted
        slices = stack.slices.contiguous()  # small beside the views, which gather images across the slices
        weights = self._weights(slices)
        views = [
            self._interpolate_view(replace(stack, slices=slices), weights, direction, indices, saint)
            for direction in self.views or saint.directions
        ]
        count = images_per_batch(self.batch_size, size[0] * size[1], _PIXELS_PER_BATCH, slices.device)
        for batch in torch.arange(len(indices)).split(len(indices) if together else count):
            part = slice(int(batch[0]), int(batch[-1]) + 1)
            yield indices[part], torch.stack([view[part] for view in views])

    def _weights(self, slices: Tensor) -> Tensor:
        """Compute how much the network counts at the pixels ``(H, W)``."""
        tolerance = static_change(self.static_tolerance, self.value_range)
        if tolerance <= 0:
            return slices.new_ones(slices.shape[1:])
        return network_weights(changing_pixels(slices, tolerance)).to(slices)

    def _interpolate_view(
        self, stack: SliceStack, weights: Tensor, direction: str, indices: Tensor, saint: SAINT
    ) -> Tensor:
        """Synthesize the output slices ``indices`` ``(M, H, W)`` from one view."""
        slices, grid, geometry = stack.slices, stack.grid, stack.geometry
        if geometry is None:
            raise ValueError("a plain tensor has no spacing, which SAINT needs: give a MetaTensor with its affine.")
        images = to_view(slices, direction)
        along = view_spacing(direction, geometry.in_plane_spacing)
        lower, alpha = grid.lower[indices], grid.alpha[indices]
        groups = _by_gap_width(grid, indices)
        count = images_per_batch(self.batch_size, images[0].numel(), _PIXELS_PER_BATCH, slices.device)
        # filled as slices, so that the views are fused without another copy
        output = slices.new_empty(len(images), len(indices), images.shape[2])
        weights = to_view(weights[None], direction)[:, 0]
        begins = range(0, len(images), count)
        for begin in progress_bar(self.progress, begins, desc=f"view of {direction}", unit="batch"):
            end = min(begin + count, len(images))
            part = changing_part((weights[begin:end] > 0).any(dim=0))
            mixed = part is None or bool((weights[begin:end] < 1).any())
            if mixed:
                output[begin:end] = linear_between(images[begin:end].movedim(1, 0), lower, alpha).movedim(0, 1)
            if part is None:
                continue
            triples = neighbor_triples(images, begin, end, saint.edge)[..., part]
            for width, chosen in groups:
                with self.network_precision(slices.device):
                    rows = saint.ami.interpolate(  # type: ignore[operator]
                        triples, lower[chosen], alpha[chosen], width * geometry.slice_spacing, along, grid.step / width
                    )
                if mixed:
                    weight = weights[begin:end, None, part]
                    rows = torch.lerp(output[begin:end, chosen, part], rows, weight)
                output[begin:end, chosen, part] = rows
        return from_view(output, direction, slices.shape[-2:])


def _by_gap_width(grid: OutputGrid, indices: Tensor) -> list[tuple[float, Tensor]]:
    """Group output slices by the width of the gap in which they lie.

    Args:
        grid: the output grid.
        indices: output indices, ``(M,)`` int64.

    Returns:
        Groups whose gaps differ by less than 1 %: their mean width in units of the nominal gap, and which of
        ``indices`` they are, ascending.
    """
    widths = grid.gap_width[indices]
    groups = []
    left = torch.ones_like(widths, dtype=torch.bool)
    while left.any():
        chosen = left & (widths < widths[left].min() * (1.0 + SPACING_TIE))
        groups.append((float(widths[chosen].unique().mean()), chosen.nonzero()[:, 0]))
        left &= ~chosen
    return groups
