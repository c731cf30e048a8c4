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

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor
from tqdm import tqdm

from monai_sliceinterp.geometry import AXIS_TIE, OutputGrid, SliceGeometry
from monai_sliceinterp.inferers.base import SliceInterpolationInferer, check_batch_size, images_per_batch
from monai_sliceinterp.networks.blocks.views import from_view, neighbor_triples, to_view, view_spacing
from monai_sliceinterp.networks.nets.saint import SAINT

__all__ = ["MultiViewSliceInferer"]

_PIXELS_PER_BATCH = {"cpu": 8 * 1024, "cuda": 1024 * 1024}
"""Pixels of view images, or of slices to fuse, computed at once by default: what fits a CPU's cache is fastest."""


class MultiViewSliceInferer(SliceInterpolationInferer):
    """Interpolate every view of a volume in batches of its images, then fuse the views slice by slice.

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
        disagreement: keep how much the views disagree, see :attr:`disagreement_map`.
        progress: show a progress bar for every view and for the fusion.

    Attributes:
        disagreement_map: with ``disagreement``, the standard deviation of the views at every voxel of the last output,
            of its shape, on its intensity scale; 0 on observed slices. Large values show where the result is
            uncertain.

    Raises:
        ValueError: if a parameter is out of range.

    Example:
        >>> size = {"channels": 8, "num_blocks": 1, "num_layers": 2, "growth": 4}
        >>> network = SAINT(ami=size, rfn=size).eval()
        >>> scan = MetaTensor(torch.rand(1, 1, 32, 24, 5), affine=torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0])))
        >>> thin = MultiViewSliceInferer(spacing=1.0)(scan, network)
        >>> tuple(thin.shape), thin.pixdim.tolist()
        ((1, 1, 32, 24, 17), [1.0, 1.0, 1.0])
    """

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
        progress: bool = False,
    ) -> None:
        super().__init__(factor, spacing, keep_observed, value_range, progress)
        if fuse and views is not None:
            raise ValueError("the fusion network needs all views: give views only together with fuse=False.")
        self.batch_size, self.fuse, self.disagreement = check_batch_size(batch_size), fuse, disagreement
        self.views = None if views is None else tuple(views)
        self.disagreement_map: Tensor | None = None
        self._maps: list[Tensor] = []

    def __call__(self, inputs: Tensor, network: Callable[..., Any] | None = None, *args: Any, **kwargs: Any) -> Tensor:
        """Interpolate ``inputs`` ``(B, C, H, W, N)``, see the base class."""
        self._maps, self.disagreement_map = [], None
        output = super().__call__(inputs, network, *args, **kwargs)
        if self.disagreement:
            plain = output.as_tensor() if isinstance(output, MetaTensor) else output
            maps: Any = torch.zeros_like(plain)
            if self._maps:  # there are none where nothing had to be synthesized
                maps = torch.stack(self._maps).unflatten(0, tuple(inputs.shape[:2])).movedim(2, -1)
            if isinstance(output, MetaTensor):
                maps = MetaTensor(maps).copy_meta_from(output)
                maps.affine = output.affine.clone()
            self.disagreement_map = maps
        self._maps = []
        return output

    @torch.no_grad()
    def synthesize(
        self,
        slices: Tensor,
        grid: OutputGrid,
        geometry: SliceGeometry | None,
        wanted: Tensor,
        network: Callable[..., Any] | None,
        write: Callable[[Tensor, Tensor], None],
    ) -> None:
        """Fill the wanted slices of one channel."""
        saint = getattr(network, "module", network)  # the network may be wrapped for distributed training
        if not isinstance(saint, SAINT):
            raise TypeError(f"expected a SAINT network, got {type(network).__name__}.")
        if geometry is None:
            raise ValueError("a plain tensor has no spacing, which SAINT needs: give a MetaTensor with its affine.")
        unknown = set(self.views or ()) - set(saint.directions)
        if unknown or self.views == ():
            raise ValueError(f"unknown views {self.views!r}; expected some of {', '.join(saint.directions)}.")
        size = slices.shape[-2:]
        # fusion in 3D needs the observed slices, between which the others lie
        together = self.fuse and saint.rfn.spatial_dims == 3
        places = torch.arange(len(grid)) if together else wanted
        slices = slices.contiguous()  # small beside the views, which gather images across the slices
        views = [
            self._interpolate_view(slices, direction, grid, places, geometry, saint)
            for direction in self.views or saint.directions
        ]
        if self.disagreement:
            self._maps.append(slices.new_zeros(len(grid), *size))
        count = images_per_batch(self.batch_size, size[0] * size[1], _PIXELS_PER_BATCH, slices.device)
        count = len(places) if together else count
        for batch in torch.arange(len(places)).split(count):
            part = slice(int(batch[0]), int(batch[-1]) + 1)
            stack = torch.stack([view[part] for view in views])
            result = saint.fuse(stack[None])[0] if self.fuse else stack.mean(dim=0)
            indices = places[part]
            if together:
                indices, stack, result = wanted, stack[:, wanted], result[wanted]
            self.look_at(indices, stack)
            write(indices, result)

    def look_at(self, indices: Tensor, views: Tensor) -> None:
        """Look at the views ``(views, k, H, W)`` of output slices ``indices`` before they are let go."""
        if self.disagreement:
            self._maps[-1][indices.to(views.device)] = views.std(dim=0, correction=0)

    def _interpolate_view(
        self, slices: Tensor, direction: str, grid: OutputGrid, places: Tensor, geometry: SliceGeometry, saint: SAINT
    ) -> Tensor:
        """Synthesize the output slices ``places`` ``(M, H, W)`` from one view."""
        images = to_view(slices, direction)
        along = view_spacing(direction, geometry.in_plane_spacing)
        lower, alpha = grid.lower[places], grid.alpha[places]
        groups = _by_gap_width(grid, places)
        count = images_per_batch(self.batch_size, images[0].numel(), _PIXELS_PER_BATCH, slices.device)
        # filled as slices, so that the views are fused without another copy
        output = slices.new_empty(len(images), len(places), images.shape[2])
        begins = range(0, len(images), count)
        for begin in tqdm(begins, desc=f"view of {direction}", unit="batch", disable=not self.progress, leave=False):
            end = min(begin + count, len(images))
            triples = neighbor_triples(images, begin, end, saint.edge)
            for width, chosen in groups:
                output[begin:end, chosen] = saint.ami.interpolate(
                    triples, lower[chosen], alpha[chosen], width * geometry.slice_spacing, along
                )
        return from_view(output, direction, slices.shape[-2:])


def _by_gap_width(grid: OutputGrid, places: Tensor) -> list[tuple[float, Tensor]]:
    """Group output slices by the width of the gap in which they lie.

    Args:
        grid: the output grid.
        places: output indices, ``(M,)`` int64.

    Returns:
        Groups whose gaps differ by less than 1 %: their mean width in units of the nominal gap, and which of ``places``
        they are, ascending.
    """
    widths = grid.gap_width[places]
    groups = []
    left = torch.ones_like(widths, dtype=torch.bool)
    while left.any():
        chosen = left & (widths < widths[left].min() * (1.0 + AXIS_TIE))
        groups.append((float(widths[chosen].unique().mean()), chosen.nonzero()[:, 0]))
        left &= ~chosen
    return groups
