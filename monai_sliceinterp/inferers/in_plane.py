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

"""Pixels of another size in the plane of slices, for networks that were trained on one size, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from monai_sliceinterp.checks import not_negative
from monai_sliceinterp.inferers.base import SliceStack
from monai_sliceinterp.resampling import apply_weights, interpolation_weights

__all__ = ["PlaneGrid", "pixel_size", "plane_grid"]

_SAME = 1e-3  # spacings that differ by less than this fraction are the same: headers are rounded


@dataclass(frozen=True, eq=False)
class PlaneGrid:
    """Linear maps of slices ``(..., H, W)`` onto a grid of other pixels ``(..., h, w)``, and back.

    Attributes:
        onto: weights ``(H, h)`` and ``(W, w)``, linear between the pixels, as the training resamples.
        back: weights ``(h, H)`` and ``(w, W)``, a cubic B-spline.

    Example:
        >>> import torch
        >>> grid = PlaneGrid.of_spacing((5, 9), (0.5, 0.5), 1.0)
        >>> coarse = grid.resample(torch.arange(9.0).expand(5, 9))
        >>> coarse[0].tolist(), tuple(grid.restore(coarse).shape)
        ([0.0, 2.0, 4.0, 6.0, 8.0], (5, 9))
    """

    onto: tuple[NDArray[np.float64], NDArray[np.float64]]
    back: tuple[NDArray[np.float64], NDArray[np.float64]]

    @classmethod
    def of_spacing(cls, size: Sequence[int], spacing: Sequence[float], wanted: float) -> PlaneGrid:
        """Make the grid of pixels of a size in mm, as MONAI's ``Spacing`` does: the first pixel stays where it is.

        Args:
            size: height and width in pixels.
            spacing: of the pixels in mm.
            wanted: of the new ones in mm, in both directions.
        """
        maps: list[tuple[int, NDArray, NDArray]] = []
        for length, step in zip(size, (wanted / value for value in spacing), strict=True):
            count = math.ceil((length - 1) / step - 1e-6) + 1  # the last pixel is covered
            maps.append((length, step * np.arange(count), np.arange(length) / step))
        return cls._of_positions(maps)

    @classmethod
    def of_size(cls, size: Sequence[int], wanted: int) -> PlaneGrid:
        """Make the grid of ``wanted`` x ``wanted`` pixels, as MONAI's ``Resize`` does: the outer edges stay in place.

        Args:
            size: height and width in pixels.
            wanted: the new ones.
        """
        maps: list[tuple[int, NDArray, NDArray]] = []
        for length in size:
            step = length / wanted
            onto, back = (np.arange(wanted) + 0.5) * step - 0.5, (np.arange(length) + 0.5) / step - 0.5
            maps.append((length, onto, back))
        return cls._of_positions(maps)

    @classmethod
    def _of_positions(cls, maps: Sequence[tuple[int, NDArray, NDArray]]) -> PlaneGrid:
        """Make the grid from lengths, positions of the new pixels among the old ones, and of the old among the new."""
        onto, back = zip(
            *(
                (
                    interpolation_weights(length, np.clip(new, 0, length - 1), "linear"),
                    interpolation_weights(len(new), np.clip(old, 0, len(new) - 1), "cubic"),
                )
                for length, new, old in maps
            ),
            strict=True,
        )
        return cls(onto, back)

    def resample(self, slices: Tensor) -> Tensor:
        """Resample slices ``(..., H, W)`` onto the grid: ``(..., h, w)``."""
        return _apply(slices, self.onto)

    def restore(self, slices: Tensor) -> Tensor:
        """Bring slices ``(..., h, w)`` back: ``(..., H, W)``."""
        return _apply(slices, self.back)


def _apply(slices: Tensor, weights: tuple[NDArray[np.float64], NDArray[np.float64]]) -> Tensor:
    """Multiply the last two axes with a matrix each."""
    rows = apply_weights(slices.transpose(-1, -2), weights[0])
    return apply_weights(rows.transpose(-1, -2), weights[1])


def plane_grid(stack: SliceStack, network: Any, in_plane_spacing: float | None) -> PlaneGrid | None:
    """Make the grid of the pixels that a network knows.

    Args:
        stack: slices of a scan.
        network: the network, whose attributes ``in_plane_spacing`` and ``in_plane_size`` say what it was trained on.
        in_plane_spacing: size of the pixels in mm, whatever the network says; 0: as they come. None: as it says.

    Returns:
        The grid; None where the slices are on it already, or any grid will do.

    Raises:
        ValueError: if the size in mm of the stack's pixels is not known, and is needed.
    """
    size = stack.slices.shape[-2:]
    pixels = int(getattr(network, "in_plane_size", 0))
    if pixels and in_plane_spacing is None:
        return None if tuple(size) == (pixels, pixels) else PlaneGrid.of_size(size, pixels)
    wanted = float(getattr(network, "in_plane_spacing", 0.0)) if in_plane_spacing is None else in_plane_spacing
    if not wanted:
        return None
    if stack.geometry is None:
        raise ValueError(
            f"a plain tensor has no pixel size, and the network knows pixels of {wanted:g} mm: expected a MetaTensor "
            "with its affine."
        )
    spacing = stack.geometry.in_plane_spacing
    if all(math.isclose(value, wanted, rel_tol=_SAME) for value in spacing):
        return None
    return PlaneGrid.of_spacing(size, spacing, wanted)


def pixel_size(in_plane_spacing: float | None) -> float | None:
    """Check the size of the pixels that a network shall see, in mm; 0 for those of the scan, None for what it says.

    Raises:
        ValueError: if it is negative, or no number.

    Example:
        >>> pixel_size(1), pixel_size(None)
        (1.0, None)
    """
    return None if in_plane_spacing is None else not_negative("in_plane_spacing", in_plane_spacing, "mm")
