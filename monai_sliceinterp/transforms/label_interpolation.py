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

"""Interpolate segmentations by their shape: by signed distances what stays in place, by ITK what moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from monai_sliceinterp.geometry import OutputGrid

__all__ = ["interpolate_labels"]

Labels = TypeVar("Labels", Tensor, NDArray[Any])
_Spacing = tuple[float, float]
_Mask = NDArray[np.bool_]
_Box = tuple[slice, ...]

_TIE = 1e-6
"""Distances in mm that differ by less are equal: fractions such as 1/3 are rounded."""

_GAIN = 0.2
"""A part of a label moves if a shift to the same centroid adds this fraction of its smaller slice to the overlap."""

_PAIR = np.zeros((3, 3, 3), dtype=bool)
"""Neighbors of a pixel in a pair of slices: those around it in its own, and the same pixel of the other."""
_PAIR[1] = _PAIR[:, 1, 1] = True

_STEPS = (2, 4, 8, 16, 32)
"""Steps into which ITK's filter may divide a gap: it halves, so that halves of halves lie where they should."""


def interpolate_labels(labels: Labels, grid: OutputGrid, in_plane_spacing: _Spacing) -> Labels:
    """Interpolate a segmentation by the shape of its labels.

    Between two slices each label falls into parts, of which each is connected within a slice or by overlap with the
    other slice.

    - **Parts that stay in place** are interpolated by their signed distances (Raya and Udupa 1990): in each slice mm
      to the border, positive inside, mixed linearly; a label is where its mixed distance is positive. Where labels
      meet, the larger distance wins, so that no hole opens between labels that touch. A part that overlaps with nothing
      shrinks evenly from its border and vanishes in the other slice; likewise a label that fills the whole slice is
      filled from its border in the other.
    - **Parts that move**, which overlap clearly better once their centroids are aligned, are interpolated by ITK's
      morphological contour interpolation (Albu et al. 2008, Zukic et al. 2016): it shifts and reshapes them, where
      signed distances make them thin or tear them. ITK halves gaps, so a position that is not a multiple of 1/32 of a
      gap takes the nearest one; it measures in pixels, so pixels that are about n times as long as wide are repeated
      n times. Smaller parts are drawn over larger ones. A part that moves so far that it overlaps with nothing is not
      followed: it vanishes, and appears anew.

    A pixel with a label in both slices takes one of these two. Any other takes the label it has in one of them, that of
    a part which moves over it, or background. The reversed stack gives the reversed result.

    The gaps are computed one by one, and labels within their bounding boxes: 512 x 512 x 300 voxels with four labels
    that change in every slice take 80 s at twice the slices on one core of a CPU, and 75 MiB beside the result. ITK is
    imported at the first part that moves, which takes about ten seconds.

    References:
        S. P. Raya and J. K. Udupa, Shape-based interpolation of multidimensional objects, IEEE Trans. Med. Imaging
        9(1), 1990.
        A. B. Albu, T. Beugeling and D. Laurendeau, A morphology-based approach for interslice interpolation of
        anatomical slices from volumetric images, IEEE Trans. Biomed. Eng. 55(8), 2008.
        D. Zukic et al., ND morphological contour interpolation, Insight Journal, 2016.

    Args:
        labels: ``(H, W, N)`` integers, slices last, 0 for background; a tensor or an array.
        grid: the output grid.
        in_plane_spacing: distance of pixel neighbors along H and along W in mm.

    Returns:
        ``(H, W, M)`` of the same type; the observed slices are those of the input.

    Raises:
        ValueError: if the labels are not such a volume, or do not fit the grid.
        RuntimeError: if ITK fails.

    Example:
        >>> bar = torch.zeros(8, 1, 2, dtype=torch.uint8)
        >>> bar[:2, :, 0] = bar[:6, :, 1] = 1
        >>> interpolate_labels(bar, OutputGrid.from_factor(2, 2), (1.0, 1.0))[:, 0, 1].tolist()
        [1, 1, 1, 1, 0, 0, 0, 0]
    """
    if isinstance(labels, Tensor):
        array = interpolate_labels(labels.detach().cpu().numpy(), grid, in_plane_spacing)
        return torch.from_numpy(array).to(labels.device)
    if labels.ndim != 3 or labels.dtype.kind not in "iu":
        raise ValueError(f"expected integer labels (H, W, N), got {labels.dtype} of shape {labels.shape}.")
    if labels.shape[-1] != grid.num_slices:
        raise ValueError(f"{labels.shape[-1]} slices of labels do not fit a grid of {grid.num_slices} slices.")
    if not all(0 < length < np.inf for length in in_plane_spacing):
        raise ValueError(f"the in-plane spacing must be two positive numbers of mm, got {in_plane_spacing!r}.")
    result = np.empty((len(grid), *labels.shape[:2]), labels.dtype)
    observed = grid.is_observed.numpy()
    result[observed] = np.moveaxis(labels[..., grid.observed_source.numpy()], -1, 0)
    lower, alpha = grid.lower.numpy(), grid.alpha.numpy()
    for gap in np.unique(lower[~observed]).tolist():
        wanted = np.flatnonzero((lower == gap) & ~observed)
        result[wanted] = _between(labels[..., gap], labels[..., gap + 1], alpha[wanted], in_plane_spacing)
    return np.moveaxis(result, 0, -1)


def _between(first: NDArray[Any], second: NDArray[Any], alpha: NDArray[np.float64], spacing: _Spacing) -> NDArray[Any]:
    """Labels ``(K, H, W)`` at the fractions ``alpha`` ``(K,)`` of the way between two slices ``(H, W)``."""
    result = np.repeat(first[None], len(alpha), axis=0)
    changed = first != second
    before, after = first[changed], second[changed]
    values = np.unique([before, after])
    values = values[values != 0]
    both = np.stack([first, second])
    staying = both != 0
    moving = []
    # distances in both slices: of the label that a pixel has in the first slice, of that in the second, and of any
    leaving, coming, whole = maps = np.zeros((3, 2, *first.shape))
    codes = np.where(np.isin(both, values), np.searchsorted(values, both) + 1, 0)
    for value, (_, *extent) in zip(values, ndimage.find_objects(codes), strict=True):
        box = _wider(extent)
        start, end = both[box] == value
        rest = both[box] == value
        for part_box, part in _moving_parts(rest):
            rest[part_box] &= ~part
            staying[box][part_box] &= ~part
            moving.append((value, _inner(box, part_box), part))
        pair = _distances(rest, spacing)
        leaving[box][:, start] = pair[:, start]
        coming[box][:, end] = pair[:, end]
    if (staying & ~np.isin(both, values[:1])).any():  # several labels
        box = _wider(ndimage.find_objects(staying.any(axis=0).astype(np.uint8))[0])
        whole[box] = _distances(staying[box], spacing)
    maps = maps[..., changed]
    for k, fraction in enumerate(alpha.tolist()):
        old, new, any_label = (1 - fraction) * maps[:, 0] + fraction * maps[:, 1]
        # where both are labels; a tie is settled alike in either direction
        label = np.where(np.where(abs(old - new) < _TIE, before < after, old > new), before, after)
        appears = np.maximum(np.where(before == 0, new, old), any_label) > _TIE
        one = np.where(appears, np.where(before == 0, after, before), 0)
        result[k][changed] = np.where((before == 0) | (after == 0), one, label)
    for value, box, part in sorted(moving, key=_drawing_order):
        ends = both[box]
        shapes = _follow(part, alpha, spacing) & ((ends == 0) | (ends == value)).any(axis=0)
        result[box][shapes] = value
    return result


def _drawing_order(moving: tuple[Any, _Box, _Mask]) -> tuple[int, ...]:
    """Sort key of the parts that move: small ones are drawn last."""
    value, box, part = moving
    return (-int(part.sum()), int(value), *(side.start for side in box[1:]))


def _moving_parts(pair: _Mask) -> list[tuple[_Box, _Mask]]:
    """Parts of a label ``(2, H, W)`` that move from slice to slice: box and mask ``(2, h, w)`` of each."""
    parts, count = ndimage.label(pair, _PAIR)
    numbers = np.arange(count + 1)
    sizes = np.min([np.bincount(part.ravel(), minlength=count + 1) for part in parts], axis=0)
    shared = np.bincount(parts[0][pair.all(axis=0)], minlength=count + 1)
    boxes = ndimage.find_objects(parts)
    result = []
    for number in numbers[(shared > 0) & (shared < (1 - _GAIN) * sizes) & (numbers > 0)].tolist():
        box = _wider(boxes[number - 1][1:])
        part = parts[box] == number
        start, end = (np.argwhere(shape) for shape in part)
        shifted = start + np.rint(end.mean(axis=0) - start.mean(axis=0)).astype(int)
        inside = shifted[((shifted >= 0) & (shifted < part.shape[1:])).all(axis=1)]
        if part[1][tuple(inside.T)].sum() > shared[number] + _GAIN * sizes[number]:
            result.append((box, part))
    return result


def _follow(part: _Mask, alpha: NDArray[np.float64], spacing: _Spacing) -> _Mask:
    """Shapes ``(K, H, W)`` of a part ``(2, H, W)`` at the fractions ``alpha`` of its way, by ITK."""
    import itk  # takes seconds, which runs without labels do not pay

    repeats = [max(1, round(spacing[axis] / spacing[1 - axis])) for axis in (0, 1)]
    steps = next((number for number in _STEPS if not (alpha * number % 1).any()), _STEPS[-1])
    part = part.repeat(repeats[0], axis=1).repeat(repeats[1], axis=2)
    # the filter's way back is not quite its way there: a stack that is turned around gives the same
    forward = part[0].tobytes() <= part[1].tobytes()
    start, end = part if forward else part[::-1]
    stack = np.zeros((steps + 1, *start.shape), np.int16)  # of 8 bits, its distances would overflow
    stack[0], stack[-1] = start, end
    # one gap of one label: several would be spread over ITK's threads, which crash when the process ends
    interpolator = itk.MorphologicalContourInterpolator[itk.Image[itk.SS, 3]].New()
    interpolator.SetInput(itk.image_view_from_array(stack))
    interpolator.SetAxis(2)
    interpolator.SetLabel(1)
    interpolator.SetUseDistanceTransform(True)
    interpolator.SetUseCustomSlicePositions(True)
    interpolator.SetLabeledSliceIndices(2, 1, [0, steps])
    interpolator.SetNumberOfWorkUnits(1)
    try:
        interpolator.Update()
    except RuntimeError as error:
        raise RuntimeError(f"ITK cannot interpolate a label: {str(error).strip().splitlines()[-1]}") from None
    shapes = itk.array_from_image(interpolator.GetOutput())
    wanted = np.rint((alpha if forward else 1 - alpha) * steps).astype(int).clip(1, steps - 1)
    rows, columns = (slice(number // 2, None, number) for number in repeats)
    return shapes[wanted][:, rows, columns] != 0


def _distances(shapes: _Mask, spacing: _Spacing) -> NDArray[np.float64]:
    """Signed distances ``(2, H, W)`` in mm of a shape in two slices, for pixels that it has in one of them."""
    maps = np.stack([_signed_distance(shape, spacing) for shape in shapes])
    for k, other in ((0, 1), (1, 0)):
        if shapes[k].all() and shapes[other].any() and not shapes[other].all():  # what is left open closes evenly
            maps[k] = maps[other] - maps[other].min()
    result = maps.copy()
    for k, other in ((0, 1), (1, 0)):
        parts, count = ndimage.label(shapes[k], np.ones((3, 3)))
        overlaps = np.bincount(parts[shapes[other]], minlength=count + 1) > 0
        vanishes = ~overlaps[parts] & shapes[k]
        if vanishes.any():
            depth = ndimage.maximum(maps[k], parts, np.arange(count + 1))
            result[other][vanishes] = (maps[k] - depth[parts])[vanishes]
    return result


def _signed_distance(shape: _Mask, spacing: _Spacing) -> NDArray[np.float64]:
    """Distance to the border of a shape in mm, positive inside; the border is half way between pixels.

    Where there is no border, the distance is the size of the slice.
    """
    if shape.all() or not shape.any():
        size = float(np.hypot(*np.multiply(shape.shape, spacing)))
        return np.full(shape.shape, size if shape.any() else -size)
    half = min(spacing) / 2
    inside, outside = (ndimage.distance_transform_edt(part, spacing) for part in (shape, ~shape))
    return np.where(shape, inside - half, half - outside)


def _wider(extent: Sequence[slice]) -> _Box:
    """Box in pairs of slices, with a pixel more on each side: the nearest pixel outside of each pixel inside."""
    return (slice(None), *(slice(max(part.start - 1, 0), part.stop + 1) for part in extent))


def _inner(box: _Box, inner: _Box) -> _Box:
    """Box of the whole slice for a box within a box."""
    return (slice(None), *(slice(a.start + b.start, a.start + b.stop) for a, b in zip(box[1:], inner[1:], strict=True)))
