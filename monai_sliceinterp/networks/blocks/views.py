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

"""Views of a stack of slices: images across the slices, from which SAINT (section 3) interpolates a volume."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from monai_sliceinterp import checks

__all__ = ["EDGES", "VIEW_DIRECTIONS", "from_view", "neighbor_triples", "to_view", "view_spacing"]

VIEW_DIRECTIONS = ("rows", "columns", "diagonal", "antidiagonal")
"""In-plane direction along which a view's images run. Rows and columns are the two views of the paper (coronal and
sagittal ones of an axial scan), all four its variant with diagonal views."""

EDGES = ("replicate", "zero")


def to_view(slices: Tensor, direction: str = "rows") -> Tensor:
    """Rearrange a stack of slices into the images of a view, which run across the slices (SAINT, section 3).

    Args:
        slices: ``(..., N, H, W)``.
        direction: one of ``VIEW_DIRECTIONS``. Lines of a diagonal view that leave the slice repeat its border.

    Returns:
        ``(..., V, N, L)``: V images, their rows along the slice axis and their L columns along the direction.
        "rows": V = H, L = W; "columns": V = W, L = H; the diagonals: V = H + W - 1, L = H.

    Raises:
        ValueError: for an unknown direction.

    Example:
        >>> tuple(to_view(torch.zeros(5, 16, 12), "columns").shape)
        (12, 5, 16)
    """
    if direction == "rows":
        return slices.movedim(-2, -3)
    if direction == "columns":
        return slices.movedim(-1, -3)
    checks.one_of("view direction", direction, VIEW_DIRECTIONS)
    height, width = slices.shape[-2:]
    if direction == "antidiagonal":
        slices = slices.flip(-1)
    rows = torch.arange(height, device=slices.device)
    shifts = torch.arange(1 - height, width, device=slices.device)
    index = rows * width + (rows + shifts[:, None]).clamp(0, width - 1)
    return slices.flatten(-2)[..., index].movedim(-2, -3)


def from_view(images: Tensor, direction: str, size: Sequence[int]) -> Tensor:
    """Rearrange the images of a view into a stack of slices: the inverse of :func:`to_view`.

    Args:
        images: ``(..., V, M, L)``.
        direction: the view's direction.
        size: height and width of the slices.

    Returns:
        ``(..., M, H, W)``.

    Example:
        >>> stack = torch.rand(5, 16, 12)
        >>> bool((from_view(to_view(stack, "diagonal"), "diagonal", (16, 12)) == stack).all())
        True
    """
    if direction == "rows":
        return images.movedim(-3, -2)
    if direction == "columns":
        return images.movedim(-3, -1)
    checks.one_of("view direction", direction, VIEW_DIRECTIONS)
    height, width = size
    rows = torch.arange(height, device=images.device)[:, None]
    index = (torch.arange(width, device=images.device) - rows + height - 1) * height + rows
    slices = images.movedim(-3, -2).flatten(-2)[..., index]
    return slices.flip(-1) if direction == "antidiagonal" else slices


def view_spacing(direction: str, spacing: Sequence[Tensor | float]) -> Tensor:
    """Compute the distance in mm of the columns of a view's images.

    Args:
        direction: the view's direction.
        spacing: in-plane spacing along H and along W in mm, numbers or tensors ``(B,)``.

    Example:
        >>> view_spacing("diagonal", (3.0, 4.0)).item()
        5.0
    """
    checks.one_of("view direction", direction, VIEW_DIRECTIONS)
    first, second = (torch.as_tensor(value, dtype=torch.float32) for value in spacing)
    if direction == "rows":
        return second
    return first if direction == "columns" else torch.hypot(first, second)


def neighbor_triples(images: Tensor, begin: int = 0, end: int | None = None, edge: str = "replicate") -> Tensor:
    """Stack each image of a view with the one before and the one after it.

    Args:
        images: ``(V, N, L)``, intensities in [0, 1].
        begin: first image that is returned.
        end: image after the last one that is returned; None for all.
        edge: substitute for the missing neighbor at either end: "replicate" repeats the image, "zero" (as in the public
            code) is the lowest intensity, air in CT.

    Returns:
        ``(end - begin, 3, N, L)``.

    Raises:
        ValueError: for an unknown edge.

    Example:
        >>> neighbor_triples(torch.tensor([1.0, 2.0]).reshape(2, 1, 1), edge="zero").flatten(1).tolist()
        [[0.0, 1.0, 2.0], [1.0, 2.0, 0.0]]
    """
    checks.one_of("edge", edge, EDGES)
    count = images.shape[0]
    center = torch.arange(begin, count if end is None else end, device=images.device)
    index = torch.stack([center - 1, center, center + 1], dim=1)
    triples = images[index.clamp(0, count - 1)]
    if edge == "zero":
        triples[(index < 0) | (index >= count)] = 0
    return triples
