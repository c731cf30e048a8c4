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

"""Interpolation of whole volumes block by block, by networks that make thin volumes of thick ones in 3D."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from monai_sliceinterp.checks import positive_integer, positive_integers
from monai_sliceinterp.inferers.base import SliceInterpolationInferer, SliceStack
from monai_sliceinterp.networks.nets.super_resolution import SliceSuperResolution

__all__ = ["BlockSliceInferer"]


class BlockSliceInferer(SliceInterpolationInferer):
    """Inferer that interpolates the thick volume in blocks by a 3D network, each with a margin that is cut off.

    So the 3D networks are applied that SAINT is compared with (section 4: mDCSRN in cubes of 64 x 64 x 64 voxels with
    a margin of three on every side). Blocks are not blended; where the margin is smaller than the network's field of
    view, they may be seen, as figure 7 of the paper shows.

    The network's factors decide what can be asked for: a factor or a spacing that it cannot do raises its error.

    Args:
        factor: upsampling factor; or
        spacing: output slice spacing in mm. With neither the output is isotropic.
        roi_size: largest height, width and number of thick slices of a block, its margins included.
        margin: voxels of context on every side of a block, where the volume goes on.
        keep_observed: copy the observed slices; else they are the network's, which copies them too.
        value_range: see :class:`monai_sliceinterp.inferers.SliceInterpolationInferer`.
        progress: show a progress bar.
        amp: precision of the network, see :func:`monai_sliceinterp.precision.network_dtype`.

    Raises:
        ValueError: if a parameter is out of range, or the margins leave nothing of a block.

    Example:
        >>> from monai.data import MetaTensor
        >>> from monai_sliceinterp.networks.nets import RDN
        >>> network = RDN(spatial_dims=3, channels=4, num_blocks=1, num_layers=1, growth=2).eval()
        >>> scan = MetaTensor(torch.rand(1, 1, 32, 24, 5), affine=torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0])))
        >>> thin = BlockSliceInferer(factor=4, roi_size=(24, 24, 8), margin=2)(scan, network)
        >>> tuple(thin.shape), thin.pixdim.tolist()
        ((1, 1, 32, 24, 17), [1.0, 1.0, 1.0])
    """

    def __init__(
        self,
        factor: int | None = None,
        spacing: float | None = None,
        roi_size: Sequence[int] = (96, 96, 32),
        margin: int = 4,
        keep_observed: bool = True,
        value_range: tuple[float, float] | None = None,
        progress: bool = False,
        amp: bool | str = False,
    ) -> None:
        super().__init__(factor, spacing, keep_observed, value_range, progress, amp)
        self.roi_size = positive_integers("roi_size", roi_size, count=3, least=2)
        self.margin = positive_integer("margin", margin, least=0)
        if min(*self.roi_size[:2], self.roi_size[2] - 1) <= 2 * self.margin:
            raise ValueError(f"roi_size {self.roi_size} leaves nothing between margins of {margin}; expected more.")

    @torch.no_grad()
    def synthesize(self, stack: SliceStack, network: Callable[..., Any] | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Compute the wanted slices of one channel."""
        net = getattr(network, "module", network)  # the network may be wrapped for distributed training
        if not isinstance(net, SliceSuperResolution) or net.spatial_dims != 3:
            raise TypeError(f"expected a network that upsamples volumes in 3D, such as RDN, got {type(net).__name__}.")
        slices, grid = stack.slices, stack.grid
        count, height, width = slices.shape
        lower, alpha = grid.lower[stack.wanted], grid.alpha[stack.wanted]
        # blocks along the slices are cut between gaps: neighbors share a slice
        for inside, around in _blocks(count - 1, self.roi_size[2] - 1, self.margin):
            chosen = ((lower >= inside.start) & (lower < inside.stop)).nonzero()[:, 0]
            if not len(chosen):
                continue
            output = slices.new_empty(len(chosen), height, width)
            part = slices[around.start : around.stop + 1]
            for rows, more_rows in _blocks(height, self.roi_size[0], self.margin):
                for columns, more_columns in _blocks(width, self.roi_size[1], self.margin):
                    block = part[:, more_rows, more_columns]
                    with self.network_precision(slices.device):
                        made = net.interpolate(block[None, None], lower[chosen] - around.start, alpha[chosen])[0]
                    output[:, rows, columns] = made[:, _within(rows, more_rows), _within(columns, more_columns)]
            yield stack.wanted[chosen], output


def _blocks(length: int, most: int, margin: int) -> list[tuple[slice, slice]]:
    """Divide a length evenly into blocks of at most ``most`` with their margins; each without and with these."""
    if length <= most:
        return [(slice(0, length), slice(0, length))]
    count = -(-length // (most - 2 * margin))
    ends = [length * number // count for number in range(count + 1)]
    return [
        (slice(begin, end), slice(max(begin - margin, 0), min(end + margin, length)))
        for begin, end in zip(ends, ends[1:], strict=False)
    ]


def _within(inner: slice, outer: slice) -> slice:
    """Shift a slice to where it lies within another."""
    return slice(inner.start - outer.start, inner.stop - outer.start)
