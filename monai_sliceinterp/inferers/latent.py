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

"""Interpolation of whole volumes by mixing latent codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from monai_sliceinterp.inferers.base import (
    SliceInterpolationInferer,
    SliceStack,
    check_batch_size,
    images_per_batch,
)
from monai_sliceinterp.inferers.in_plane import pixel_size, plane_grid
from monai_sliceinterp.inferers.static import STATIC_TOLERANCE
from monai_sliceinterp.networks.nets.latent import Codes, LatentInterpolator

__all__ = ["LatentSliceInferer"]

_PIXELS_PER_BATCH = {"cpu": 256 * 256, "cuda": 4096 * 1024}
"""Pixels decoded at once by default: more feature maps do not fit a CPU's cache and take longer, a GPU wants many."""


class LatentSliceInferer(SliceInterpolationInferer):
    """Inferer that encodes every slice once, mixes neighboring codes and decodes the mixtures in batches.

    The volume is streamed: only the codes of the slices at hand are kept, so that memory does not grow with the number
    of slices beyond the volume itself.

    A network that was trained on pixels of one size in mm, or on slices of one height and width (its attributes
    ``in_plane_spacing`` and ``in_plane_size``), sees such slices. What it makes of them differs from a linear mean of
    the two neighbors; this difference is brought back onto the scan's own pixels and added to the mean there.

    Args:
        factor: upsampling factor; or
        spacing: output slice spacing in mm. With neither the output is isotropic.
        batch_size: slices that are encoded or decoded at once; 0 chooses by their size.
        keep_observed: copy the observed slices instead of reconstructing them.
        value_range: intensities the network was trained on, see
            :class:`monai_sliceinterp.inferers.SliceInterpolationInferer`.
        progress: show a progress bar, or "lines" of text.
        amp: precision of the network, see :func:`monai_sliceinterp.precision.network_dtype`.
        in_plane_spacing: size in mm of the pixels that the network sees; 0: those of the scan. None: what the network
            says.

    Raises:
        ValueError: if a parameter is out of range.

    Example:
        >>> from monai.data import MetaTensor
        >>> from monai_sliceinterp.networks.nets import ASIAutoencoder
        >>> scan = MetaTensor(torch.rand(1, 1, 32, 32, 5), affine=torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0])))
        >>> thin = LatentSliceInferer(factor=4)(scan, ASIAutoencoder().eval())
        >>> tuple(thin.shape), thin.pixdim.tolist()
        ((1, 1, 32, 32, 17), [1.0, 1.0, 1.0])
    """

    static_tolerance = STATIC_TOLERANCE

    def __init__(
        self,
        factor: int | None = None,
        spacing: float | None = None,
        batch_size: int = 0,
        keep_observed: bool = True,
        value_range: tuple[float, float] | None = None,
        progress: bool | str = False,
        amp: bool | str = False,
        in_plane_spacing: float | None = None,
    ) -> None:
        super().__init__(factor, spacing, keep_observed, value_range, progress, amp)
        self.batch_size = check_batch_size(batch_size)
        self.in_plane_spacing = pixel_size(in_plane_spacing)

    @torch.no_grad()
    def synthesize(self, stack: SliceStack, network: Callable[..., Any] | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Compute the wanted slices of one channel."""
        latent = getattr(network, "module", network)  # the network may be wrapped for distributed training
        if not isinstance(latent, LatentInterpolator):
            raise TypeError(f"expected a network with encode, mix and decode, got {type(network).__name__}.")
        slices, wanted = stack.slices, stack.wanted
        plane = plane_grid(stack, latent, self.in_plane_spacing)
        size = slices.shape[-2:] if plane is None else tuple(matrix.shape[1] for matrix in plane.onto)
        count = images_per_batch(self.batch_size, size[0] * size[1], _PIXELS_PER_BATCH, slices.device)
        lower, alpha = stack.grid.lower[wanted], stack.grid.alpha[wanted].to(slices)
        codes: Codes | None = None
        seen = slices.new_empty(0, *size)  # the slices of the codes at hand, as the network sees them
        for begin in range(0, len(slices), count):
            part = slices[begin : begin + count]
            part = part if plane is None else plane.resample(part)
            with self.network_precision(slices.device):
                encoded = latent.encode(part[:, None].contiguous())
            encoded = tuple(code.to(slices) for code in encoded)
            # the last code of the batch before is the earlier end of the gap between the two batches
            codes = encoded if codes is None else tuple(torch.cat(pair) for pair in zip(codes, encoded, strict=True))
            seen = torch.cat([seen, part]) if plane is not None else seen
            offset = begin + len(encoded[0]) - len(codes[0])
            within = torch.nonzero((lower >= offset) & (lower < offset + len(codes[0]) - 1))[:, 0]
            for batch in within.split(count) if len(within) else ():
                gaps = (lower[batch] - offset).to(slices.device)
                earlier = tuple(code[gaps] for code in codes)
                later = tuple(code[gaps + 1] for code in codes)
                mixed = latent.mix(earlier, later, alpha[batch.to(alpha.device)])
                with self.network_precision(slices.device):
                    images = latent.decode(mixed, size)[:, 0]
                if plane is not None:
                    weight = alpha[batch.to(alpha.device)][:, None, None]
                    images = plane.restore(images.to(slices) - torch.lerp(seen[gaps], seen[gaps + 1], weight))
                    images += torch.lerp(slices[gaps + offset], slices[gaps + offset + 1], weight)
                yield wanted[batch], images
            codes, seen = tuple(code[-1:] for code in codes), seen[-1:]
