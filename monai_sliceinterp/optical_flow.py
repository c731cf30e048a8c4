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


"""Symmetric optical flow between slices, in the plane, and motion-compensated interpolation along it.

All images of a batch are computed at once, on the device where they are.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_sliceinterp.checks import positive, positive_integer

__all__ = ["box_smoothed", "gap_motion", "motion_compensated", "symmetric_flow", "warp_confidence", "warp_images"]

_SMALLEST = 16  # pixels: no level is smaller

_STEP = 0.25  # of the dual variables


def warp_images(images: Tensor, flow: Tensor, mode: str = "bilinear") -> Tensor:
    """Sample images at displaced positions, with replicated borders.

    Args:
        images: ``(B, C, H, W)``, any value range.
        flow: displacement of rows and columns in pixels ``(B, 2, H, W)``.
        mode: "bilinear" or "bicubic".

    Returns:
        ``(B, C, H, W)``: at x the image at ``x + flow(x)``.

    Example:
        >>> image = torch.tensor([1.0, 2.0, 4.0]).expand(1, 1, 3, 3)
        >>> flow = torch.tensor([0.0, 0.5]).reshape(1, 2, 1, 1).expand(1, 2, 3, 3)
        >>> warp_images(image, flow)[0, 0, 0].tolist()
        [1.5, 3.0, 4.0]
    """
    height, width = (int(length) for length in images.shape[-2:])
    rows = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None] + flow[:, 0]
    columns = torch.arange(width, dtype=flow.dtype, device=flow.device) + flow[:, 1]
    # the centers of the first and the last pixel lie at -1 and 1
    grid = torch.stack([columns * (2 / max(width - 1, 1)) - 1, rows * (2 / max(height - 1, 1)) - 1], dim=-1)
    return F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=True)


def symmetric_flow(
    earlier: Tensor,
    later: Tensor,
    attachment: float = 5.0,
    tightness: float = 0.3,
    num_warps: int = 3,
    num_iterations: int = 10,
) -> Tensor:
    """Compute the optical flow from slices to those behind them, seen from the middle between them.

    The TV-L1 method (Zach, Pock and Bischof 2007), coarse to fine: the absolute difference of both slices, each
    displaced half of the way, plus the total variation of the displacement is minimized. Exchanging the slices changes
    the sign of the flow and nothing else. The finest level has half the resolution: a finer one takes four times as
    long and gains nothing.

    Args:
        earlier: ``(B, 1, H, W)`` floating point, with contrasts of about 1, slightly smoothed.
        later: likewise.
        attachment: weight of the difference of the slices; a smaller one gives a smoother flow.
        tightness: how far the displacement that fits the slices and the smooth one may differ.
        num_warps: how often the slices are displaced anew at every level.
        num_iterations: steps from one displacement of the slices to the next.

    Returns:
        Displacement of rows and columns ``(B, 2, H, W)`` in pixels: ``earlier(x - flow(x) / 2)`` resembles
        ``later(x + flow(x) / 2)``.

    Raises:
        ValueError: if a parameter is out of range.

    Example:
        >>> bell = torch.exp(-((torch.arange(32.0) - 16) ** 2) / 20)
        >>> image = torch.outer(bell, bell)[None, None]
        >>> symmetric_flow(image, image.roll(2, dims=2))[0, :, 17, 16].round().abs().tolist()
        [2.0, 0.0]
    """
    positive("attachment", attachment)
    positive("tightness", tightness)
    positive_integer("num_warps", num_warps)
    positive_integer("num_iterations", num_iterations)
    pyramid = [(_halved(earlier), _halved(later))]
    while min(pyramid[-1][0].shape[-2:]) >= 2 * _SMALLEST:
        pyramid.append((_halved(pyramid[-1][0]), _halved(pyramid[-1][1])))
    flow = earlier.new_zeros(len(earlier), 2, *pyramid[-1][0].shape[-2:])
    for pair in reversed(pyramid):
        flow = _resized(flow, pair[0].shape[-2:])
        dual = flow.new_zeros(2, *flow.shape)  # of the differences along rows and along columns
        for _ in range(num_warps):
            slope, rest = _linearized(*pair, flow)
            inverse = slope.square().sum(dim=1, keepdim=True).clamp_(min=1e-12).reciprocal_()
            for _ in range(num_iterations):
                difference = (slope * flow).sum(dim=1, keepdim=True).add_(rest)
                step = difference.mul_(inverse).clamp_(-attachment * tightness, attachment * tightness)
                flow = _denoised(flow - slope * step, dual, tightness)
    return _resized(flow, earlier.shape[-2:])


def _resized(flow: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize a flow, its pixels with it."""
    before, after = [int(length) for length in flow.shape[-2:]], [int(length) for length in size]
    if before == after:
        return flow
    scale = flow.new_tensor([new / old for new, old in zip(after, before, strict=True)])
    return F.interpolate(flow, size=after, mode="bilinear") * scale[:, None, None]


def _linearized(earlier: Tensor, later: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Slope ``(B, 2, H, W)`` and offset ``(B, 1, H, W)`` of the difference of the displaced slices around ``flow``."""
    before, after = warp_images(earlier, -flow / 2), warp_images(later, flow / 2)
    padded = F.pad((before + after) / 4, (1, 1, 1, 1), mode="replicate")
    slope = torch.cat(
        [padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1], padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]], dim=1
    )
    return slope, after - before - (slope * flow).sum(dim=1, keepdim=True)


def _denoised(target: Tensor, dual: Tensor, tightness: float) -> Tensor:
    """Return the flow of small total variation near ``target``, after two dual steps; ``dual`` is updated in place."""
    flow = target
    for _ in range(2):
        slope = torch.zeros_like(dual)
        torch.sub(flow[:, :, 1:], flow[:, :, :-1], out=slope[0, :, :, :-1])
        torch.sub(flow[..., 1:], flow[..., :-1], out=slope[1, ..., :-1])
        norm = slope.square().sum(dim=0).sqrt_().mul_(_STEP / tightness).add_(1.0)
        dual.add_(slope, alpha=-_STEP).div_(norm)
        flow = target - dual[0] - dual[1]
        flow[:, :, 1:] += dual[0, :, :, :-1]
        flow[..., 1:] += dual[1, ..., :-1]
    return flow


def _halved(images: Tensor) -> Tensor:
    """Halve height and width, rounded up."""
    size = [(int(length) + 1) // 2 for length in images.shape[-2:]]
    return F.interpolate(box_smoothed(images, 3), size=size, mode="bilinear")


def box_smoothed(images: Tensor, width: int) -> Tensor:
    """Average images ``(B, C, H, W)`` over squares of an odd width in pixels, with replicated borders.

    Example:
        >>> box_smoothed(torch.tensor([[0.0, 3.0, 6.0]]).expand(1, 1, 1, 3), 3).flatten().tolist()
        [1.0, 3.0, 5.0]
    """
    reach = width // 2
    return F.avg_pool2d(F.pad(images, (reach,) * 4, mode="replicate"), width, stride=1)


def warp_confidence(earlier: Tensor, later: Tensor, flow: Tensor, tolerance: float = 0.05) -> Tensor:
    """Compute how far a flow is to be trusted: by how much it brings the slices closer to each other.

    Args:
        earlier: ``(B, 1, H, W)``, as the flow was computed from.
        later: likewise.
        flow: see :func:`symmetric_flow`.
        tolerance: decrease of the mean difference of the slices, in a square of seven pixels, that means certainty.

    Returns:
        ``(B, 1, H, W)`` in [0, 1]: 0 where the displaced slices differ as much as the slices themselves or more, 1
        where they differ less by the tolerance.

    Example:
        >>> image = torch.rand(1, 1, 8, 8)
        >>> warp_confidence(image, image, torch.zeros(1, 2, 8, 8)).unique().tolist()
        [0.0]
    """
    displaced = (warp_images(earlier, -flow / 2) - warp_images(later, flow / 2)).abs()
    return (box_smoothed((earlier - later).abs() - displaced, 7) / tolerance).clamp_(0.0, 1.0)


def gap_motion(
    earlier: Tensor, later: Tensor, attachment: float = 5.0, tolerance: float = 0.05
) -> tuple[Tensor, Tensor]:
    """Compute the flow between slices, from slightly smoothed ones, and how far it is to be trusted.

    Args:
        earlier: ``(B, 1, H, W)``, with contrasts of about 1.
        later: likewise.
        attachment: see :func:`symmetric_flow`.
        tolerance: see :func:`warp_confidence`.

    Returns:
        The flow ``(B, 2, H, W)`` in pixels and its confidence ``(B, 1, H, W)``, see :func:`motion_compensated`.

    Example:
        >>> [tuple(part.shape) for part in gap_motion(torch.rand(3, 1, 16, 16), torch.rand(3, 1, 16, 16))]
        [(3, 2, 16, 16), (3, 1, 16, 16)]
    """
    # a standard deviation of about a pixel
    earlier, later = (box_smoothed(box_smoothed(images, 3), 3) for images in (earlier, later))
    flow = symmetric_flow(earlier, later, attachment)
    return flow, warp_confidence(earlier, later, flow, tolerance)


def motion_compensated(earlier: Tensor, later: Tensor, flow: Tensor, confidence: Tensor, alpha: Tensor) -> Tensor:
    """Interpolate between slices along their flow, and linearly where the flow is not to be trusted.

    Args:
        earlier: ``(B, 1, H, W)``, any value range.
        later: likewise.
        flow: see :func:`symmetric_flow`; it serves every position in the gap.
        confidence: weight of the flow in [0, 1], see :func:`warp_confidence`.
        alpha: fraction of the gap from the earlier slice, ``(B,)``, in [0, 1].

    Returns:
        ``(B, 1, H, W)``: ``c [(1 - a) earlier(x - a u) + a later(x + (1 - a) u)] + (1 - c) [(1 - a) earlier(x) + a
        later(x)]`` with the flow u, its confidence c and the fraction a.

    Example:
        >>> earlier, later, flow = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4), torch.zeros(1, 2, 4, 4)
        >>> motion_compensated(earlier, later, flow, torch.ones(1, 1, 4, 4), torch.tensor([0.25])).unique().tolist()
        [0.25]
    """
    weight = alpha.reshape(-1, 1, 1, 1).to(earlier)
    before = warp_images(earlier, -weight * flow, "bicubic")
    after = warp_images(later, (1 - weight) * flow, "bicubic")
    linear = torch.lerp(earlier, later, weight)
    return torch.lerp(linear, torch.lerp(before, after, weight), confidence)
