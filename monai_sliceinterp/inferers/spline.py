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

"""Classical interpolation of whole volumes along the slice axis: the baselines of every method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from monai_sliceinterp.checks import one_of
from monai_sliceinterp.inferers.base import SliceInterpolationInferer, SliceStack
from monai_sliceinterp.resampling import INTERPOLATION_MODES, apply_to_slices, interpolation_weights

__all__ = ["SplineSliceInferer"]

_SLICES_AT_ONCE = 32  # output slices per step: bounds the copies, keeps the matrix products large


class SplineSliceInferer(SliceInterpolationInferer):
    """Inferer that interpolates along the slice axis by a fixed kernel, aligned on slice centers.

    Args:
        factor: upsampling factor; or
        spacing: output slice spacing in mm. With neither the output is isotropic.
        mode: "linear", "cubic" (interpolating cubic B-spline with mirrored ends) or "lanczos" (three lobes). Unevenly
            spaced slices need one of the first two, see
            :func:`monai_sliceinterp.resampling.interpolation_weights`.
        keep_observed: copy the observed slices. The kernels reproduce them to rounding anyway.
        progress: show a progress bar, or "lines" of text.

    Raises:
        ValueError: if a parameter is out of range.

    Example:
        >>> import torch
        >>> ramp = torch.arange(3.0).expand(1, 1, 4, 4, 3)
        >>> SplineSliceInferer(factor=2, mode="linear")(ramp)[0, 0, 0, 0].tolist()
        [0.0, 0.5, 1.0, 1.5, 2.0]
    """

    def __init__(
        self,
        factor: int | None = None,
        spacing: float | None = None,
        mode: str = "cubic",
        keep_observed: bool = True,
        progress: bool | str = False,
    ) -> None:
        super().__init__(factor, spacing, keep_observed, None, progress)
        self.mode = one_of("interpolation mode", mode, INTERPOLATION_MODES)

    def synthesize(self, stack: SliceStack, network: Callable[..., Any] | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Compute the wanted slices of one channel; no network is needed."""
        positions = [stack.grid.positions[k] for k in stack.wanted.tolist()]
        weights = interpolation_weights(len(stack.slices), positions, self.mode, stack.grid.slice_positions)
        for begin in range(0, len(positions), _SLICES_AT_ONCE):
            part = slice(begin, begin + _SLICES_AT_ONCE)
            yield stack.wanted[part], apply_to_slices(stack.slices, weights[:, part])
