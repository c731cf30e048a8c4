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


"""Interpolation of whole volumes by a network that mixes classical interpolations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from monai_sliceinterp.checks import not_negative
from monai_sliceinterp.geometry import SliceGeometry
from monai_sliceinterp.inferers.base import SliceInterpolationInferer, SliceStack, check_batch_size, images_per_batch
from monai_sliceinterp.inferers.static import STATIC_TOLERANCE
from monai_sliceinterp.networks.nets import MixtureNetwork
from monai_sliceinterp.resampling import apply_to_slices, interpolation_weights

__all__ = ["MixtureSliceInferer"]

_PIXELS_PER_BATCH = {"cpu": 512 * 512, "cuda": 4096 * 1024}
"""Pixels synthesized at once by default."""


class MixtureSliceInferer(SliceInterpolationInferer):
    """Inferer that computes features of every slice once and, at each position, mixes classical interpolations by them.

    The volume is streamed gap by gap: the features of a few slices are in memory, whatever the length of the stack.

    Args:
        factor: upsampling factor; or
        spacing: output slice spacing in mm. With neither the output is isotropic.
        slice_thickness: thickness of the slices in mm; 0: what the metadata tell, which DICOM does, if anything.
        batch_size: slices that are synthesized at once; 0 chooses by their size.
        keep_observed: copy the observed slices. The method reproduces them to rounding anyway.
        value_range: see :class:`monai_sliceinterp.inferers.SliceInterpolationInferer`.
        progress: show a progress bar, or "lines" of text.
        amp: precision of the network, see :func:`monai_sliceinterp.precision.network_dtype`.

    Raises:
        ValueError: if a parameter is out of range.

    Example:
        >>> from monai.data import MetaTensor
        >>> scan = MetaTensor(torch.rand(1, 1, 32, 32, 5), affine=torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0])))
        >>> thin = MixtureSliceInferer(factor=4)(scan, MixtureNetwork(channels=8, num_blocks=2).eval())
        >>> tuple(thin.shape), thin.pixdim.tolist()
        ((1, 1, 32, 32, 17), [1.0, 1.0, 1.0])
    """

    static_tolerance = STATIC_TOLERANCE

    def __init__(
        self,
        factor: int | None = None,
        spacing: float | None = None,
        slice_thickness: float = 0.0,
        batch_size: int = 0,
        keep_observed: bool = True,
        value_range: tuple[float, float] | None = None,
        progress: bool | str = False,
        amp: bool | str = False,
    ) -> None:
        super().__init__(factor, spacing, keep_observed, value_range, progress, amp)
        self.slice_thickness = not_negative("slice_thickness", slice_thickness)
        self.batch_size = check_batch_size(batch_size)

    @torch.no_grad()
    def synthesize(self, stack: SliceStack, network: Callable[..., Any] | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Compute the wanted slices of one channel."""
        mixture = getattr(network, "module", network)  # the network may be wrapped for distributed training
        if not isinstance(mixture, MixtureNetwork):
            raise TypeError(f"expected a MixtureNetwork, got {type(network).__name__}.")
        if stack.geometry is None:
            raise ValueError("a plain tensor has no spacing, which the network needs: give a MetaTensor.")
        slices, grid, wanted = stack.slices, stack.grid, stack.wanted
        lower, alpha = grid.lower[wanted], grid.alpha[wanted].to(slices.dtype)
        weights = interpolation_weights(
            len(slices), [grid.positions[k] for k in wanted.tolist()], "cubic", grid.slice_positions
        )
        filters = self._filters(mixture, stack.geometry, grid.gap_width[wanted], alpha.to(slices.device))
        count = images_per_batch(self.batch_size, slices[0].numel(), _PIXELS_PER_BATCH, slices.device)
        windows = _windows(mixture.stream(iter(slices)))
        for gap in range(len(slices) - 1):
            with self.network_precision(slices.device):
                around = next(windows)
            chosen = torch.nonzero(lower == gap)[:, 0]
            if not len(chosen):
                continue
            pair = slices[gap : gap + 2, None].contiguous()
            flow, confidence = mixture.motion(pair[:1], pair[1:])
            contrast = mixture.contrast(pair[:1], pair[1:])
            for batch in chosen.split(count):
                cubic = apply_to_slices(slices, weights[:, batch.numpy()])[:, None]
                shape = (len(batch), -1, -1, -1)
                fractions = alpha[batch].to(slices.device)
                mixed = mixture.interpolations(
                    pair[:1].expand(shape),
                    pair[1:].expand(shape),
                    cubic,
                    flow.expand(shape),
                    confidence.expand(shape),
                    fractions,
                )
                with self.network_precision(slices.device):
                    joined = mixture.join_features(around, filters[batch.to(filters.device)])
                    images = mixture.decode(joined, mixed, contrast.expand(shape), fractions)[:, 0]
                yield wanted[batch], images

    def _filters(self, network: MixtureNetwork, geometry: SliceGeometry, widths: Tensor, alpha: Tensor) -> Tensor:
        """Generate the weights of the features at all positions."""
        rows, columns = geometry.in_plane_spacing
        across = geometry.slice_spacing * widths.to(alpha)
        thickness = self.slice_thickness or geometry.thickness or 0.0
        return network.filters(alpha, across, (rows * columns) ** 0.5, thickness)


def _windows(features: Iterator[Tensor]) -> Iterator[Tensor]:
    """Yield, for one gap after another, the features ``(C, 4, h, w)`` of the four slices around it, ends repeated."""
    window: list[Tensor] = []
    for following in features:
        window = [*window[-3:], following] if window else [following, following]
        if len(window) == 4:
            yield torch.stack(window, dim=1)
    yield torch.stack([*window[-3:], window[-1]], dim=1)
