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


"""Motion-compensated interpolation of whole volumes: neighboring slices are displaced along their optical flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from monai_sliceinterp.checks import positive
from monai_sliceinterp.inferers.base import SliceInterpolationInferer, SliceStack, check_batch_size, images_per_batch
from monai_sliceinterp.optical_flow import gap_motion, motion_compensated

__all__ = ["MotionSliceInferer"]

_PIXELS_PER_BATCH = {"cpu": 256 * 512, "cuda": 4096 * 1024}
"""Pixels of which the flow is computed at once by default."""

_SAMPLES = 1_000_000  # intensities from which the contrast of a volume is estimated


class MotionSliceInferer(SliceInterpolationInferer):
    """Inferer that displaces the neighboring slices along the optical flow between them, then mixes them.

    A contour that moves from one slice to the next is moved on its way instead of being faded out here and in there.
    Each gap has one flow for all positions in it, see :func:`monai_sliceinterp.optical_flow.symmetric_flow`; where it
    does not bring the slices closer to each other, they are interpolated linearly. No network is needed.

    Args:
        factor: upsampling factor; or
        spacing: output slice spacing in mm. With neither the output is isotropic.
        attachment: weight of the difference of the slices against the smoothness of the flow, for intensities scaled
            by the 1st to 99th percentile of the volume.
        tolerance: decrease of the difference of the slices that means certainty, in units of that range.
        batch_size: gaps that are computed at once; 0 chooses by the slices' size.
        keep_observed: copy the observed slices. The method reproduces them to rounding anyway.
        progress: show a progress bar, or "lines" of text.

    Raises:
        ValueError: if a parameter is out of range.

    Example:
        >>> rows = torch.arange(32.0)
        >>> bells = [torch.exp(-((rows - center) ** 2) / 10).expand(32, 32) for center in (14, 18)]
        >>> middle = MotionSliceInferer(factor=2)(torch.stack(bells, dim=-1)[None, None])[0, 0, 16, :, 1]
        >>> int(middle.argmax()), bool(middle.max() > 0.9)
        (16, True)
    """

    def __init__(
        self,
        factor: int | None = None,
        spacing: float | None = None,
        attachment: float = 5.0,
        tolerance: float = 0.05,
        batch_size: int = 0,
        keep_observed: bool = True,
        progress: bool | str = False,
    ) -> None:
        super().__init__(factor, spacing, keep_observed, None, progress)
        self.attachment = positive("attachment", attachment)
        self.tolerance = positive("tolerance", tolerance)
        self.batch_size = check_batch_size(batch_size)

    @torch.no_grad()
    def synthesize(self, stack: SliceStack, network: Callable[..., Any] | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Compute the wanted slices of one channel; no network is needed."""
        slices, wanted = stack.slices, stack.wanted
        count = images_per_batch(self.batch_size, slices[0].numel(), _PIXELS_PER_BATCH, slices.device)
        lower, alpha = stack.grid.lower[wanted], stack.grid.alpha[wanted]
        contrast = _contrast(slices)
        for begin in range(0, len(slices) - 1, count):
            block = slices[begin : begin + count + 1, None].contiguous()
            scaled = block.to(torch.promote_types(block.dtype, torch.float32)) / contrast
            block = block.to(scaled)
            flow, confidence = gap_motion(scaled[:-1], scaled[1:], self.attachment, self.tolerance)
            within = torch.nonzero((lower >= begin) & (lower < begin + len(flow)))[:, 0]
            for batch in within.split(count):
                gap = (lower[batch] - begin).to(slices.device)
                fraction = alpha[batch].to(scaled)
                images = motion_compensated(block[gap], block[gap + 1], flow[gap], confidence[gap], fraction)
                yield wanted[batch], images[:, 0]


def _contrast(slices: Tensor) -> float:
    """Compute the range from the 1st to the 99th percentile; where that is empty, the whole range, or 1."""
    values = slices.reshape(-1)[:: max(1, slices.numel() // _SAMPLES)]
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    low, high = torch.quantile(values, values.new_tensor([0.01, 0.99])).tolist()
    return (high - low) or float(values.max() - values.min()) or 1.0
