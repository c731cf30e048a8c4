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

"""What does not change from slice to slice (air, padding) is interpolated linearly; networks compute the rest.

Between two slices whose intensities differ by no more than a tolerance, every interpolation that does not overshoot is
linear interpolation to that tolerance: a network has nothing to add there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from monai_sliceinterp.inferers.base import SliceStack

__all__ = [
    "STATIC_TOLERANCE",
    "changing_box",
    "changing_part",
    "changing_pixels",
    "linear_between",
    "network_weights",
    "static_change",
    "synthesize_changing",
]

STATIC_TOLERANCE = 1.0 / 4000.0
"""Largest change from slice to slice of what is static, as a fraction of the range of values: 1 HU of 4000."""

_MARGIN = 16
"""Pixels around what changes that networks compute; over the outer half of them their result fades."""

_STRIDE = 16
"""Parts begin at multiples of this, so that networks that halve the resolution see the same pixels together."""

_SMALLEST = 64
"""Length of a part at least: short ones take longer for a pixel."""

_WORTHWHILE = 0.9
"""Largest share of the pixels that a box may have: what saves less is not worth another result."""

_COPIED = 2**26  # voxels up to which a part is copied, for what reads it
_SLICES_AT_ONCE = 8


def static_change(share: float, value_range: tuple[float, float] | None) -> float:
    """Compute the largest change from slice to slice of what is static; 0, nothing is, without a range of values.

    Args:
        share: the change as a fraction of the range.
        value_range: lowest and highest value.

    Example:
        >>> static_change(STATIC_TOLERANCE, (-1000.0, 3000.0)), static_change(STATIC_TOLERANCE, None)
        (1.0, 0.0)
    """
    return 0.0 if value_range is None else share * (value_range[1] - value_range[0])


def changing_pixels(slices: Tensor, tolerance: float) -> Tensor:
    """Mark the pixels whose intensity changes between any two neighboring slices.

    Args:
        slices: ``(N, H, W)``.
        tolerance: largest difference of neighbors that is no change.

    Returns:
        ``(H, W)`` bool.

    Example:
        >>> changing_pixels(torch.tensor([[[0.0, 1.0]], [[0.1, 2.0]]]), tolerance=0.2)
        tensor([[False,  True]])
    """
    changing = torch.zeros(slices.shape[1:], dtype=torch.bool, device=slices.device)
    for before, after in pairwise(slices):
        changing |= (after - before).abs_() > tolerance
    return changing


def network_weights(changing: Tensor) -> Tensor:
    """Compute how much the network counts at each pixel, linear interpolation being the rest.

    Args:
        changing: ``(H, W)`` bool, see :func:`changing_pixels`.

    Returns:
        ``(H, W)`` float32: 1 up to 8 pixels around what changes, from there falling to 0 at 17 pixels.

    Example:
        >>> changing = torch.zeros(1, 40, dtype=torch.bool)
        >>> changing[0, 0] = True
        >>> network_weights(changing)[0, [8, 12, 16, 17]].mul(9).round().tolist()
        [9.0, 5.0, 1.0, 0.0]
    """
    fade = _MARGIN // 4
    grown = changing[None, None].float()
    for size in ((2 * (_MARGIN - fade) + 1, 1), (1, 2 * (_MARGIN - fade) + 1)):
        grown = F.max_pool2d(grown, size, stride=1, padding=(size[0] // 2, size[1] // 2))
    padded = F.pad(grown, (fade, fade, fade, fade), mode="replicate")
    return F.avg_pool2d(padded, 2 * fade + 1, stride=1)[0, 0]


def changing_part(line: Tensor, margin: int = 0) -> slice | None:
    """Compute the part of a line that has to be computed: from the first marked pixel to the last.

    Args:
        line: ``(L,)`` bool.
        margin: pixels beside them that are computed, too.

    Returns:
        The part, None where nothing is marked. Its ends are multiples of 16 or those of the line, and it has 64 pixels
        where the line has.

    Example:
        >>> line = torch.zeros(256, dtype=torch.bool)
        >>> line[84:166] = True
        >>> changing_part(line), changing_part(line, margin=16)
        (slice(80, 176, None), slice(64, 192, None))
    """
    marked = torch.nonzero(line)[:, 0]
    if not len(marked):
        return None
    end = int(marked[-1]) + 1 + margin
    begin = max(0, min(int(marked[0]) - margin, min(end, len(line)) - _SMALLEST))
    begin -= begin % _STRIDE
    end = max(end, begin + _SMALLEST)
    return slice(begin, min(end + -end % _STRIDE, len(line)))


def changing_box(changing: Tensor) -> tuple[slice, slice] | None:
    """Compute the box of pixels ``(H, W)`` that have to be computed, with a margin; None where nothing changes.

    Example:
        >>> changing_box(torch.ones(8, 9, dtype=torch.bool))
        (slice(0, 8, None), slice(0, 9, None))
    """
    rows, columns = (changing_part(changing.any(dim=dim), _MARGIN) for dim in (1, 0))
    return None if rows is None or columns is None else (rows, columns)


def linear_between(slices: Tensor, lower: Tensor, alpha: Tensor) -> Tensor:
    """Interpolate linearly between slices.

    Args:
        slices: ``(N, ...)``.
        lower: index of the slice before each position, ``(M,)`` int64, at most N - 2.
        alpha: fraction of the gap from it, ``(M,)``.

    Returns:
        ``(M, ...)``.

    Example:
        >>> linear_between(torch.tensor([0.0, 1.0]), torch.tensor([0]), torch.tensor([0.25]))
        tensor([0.2500])
    """
    before = lower.to(slices.device)
    weight = alpha.to(slices).reshape(-1, *[1] * (slices.ndim - 1))
    return torch.lerp(slices[before], slices[before + 1], weight)


def synthesize_changing(
    synthesize: Callable[[SliceStack, Any], Iterator[tuple[Tensor, Tensor]]],
    stack: SliceStack,
    network: Any,
    tolerance: float,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Synthesize slices within the box that holds all that changes from slice to slice, and interpolate the rest.

    Args:
        synthesize: the method, see :meth:`monai_sliceinterp.inferers.SliceInterpolationInferer.synthesize`.
        stack: the channel's slices and what is wanted of them.
        network: the network.
        tolerance: see :func:`changing_pixels`; 0 leaves nothing out. Boxes of more than 0.9 of the pixels are not made.

    Yields:
        Output indices ``(k,)`` and the images ``(k, H, W)`` for them.
    """
    slices, grid = stack.slices, stack.grid
    if tolerance <= 0 or len(slices) < 2:
        yield from synthesize(stack, network)
        return
    height, width = slices.shape[1:]
    changing = changing_pixels(slices, tolerance)
    box = changing_box(changing)
    if box is None:
        for indices in stack.wanted.split(_SLICES_AT_ONCE):
            yield indices, linear_between(slices, grid.lower[indices], grid.alpha[indices])
        return
    rows, columns = box
    inner = slices[:, rows, columns]
    if inner[0].numel() > _WORTHWHILE * height * width:
        yield from synthesize(stack, network)
        return
    if inner.numel() <= _COPIED:
        inner = inner.contiguous()
    weights = network_weights(changing)[rows, columns].to(slices)
    maps = {name: values[:, rows, columns] for name, values in stack.maps.items()}
    for indices, images in synthesize(replace(stack, slices=inner, maps=maps), network):
        result = linear_between(slices, grid.lower[indices], grid.alpha[indices])
        part = result[:, rows, columns]
        part.copy_(torch.lerp(part, images.to(result), weights))
        del images, part
        yield indices, result
