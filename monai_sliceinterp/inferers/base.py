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

"""Interpolation of whole volumes: what every method shares."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor
from tqdm import tqdm

from monai_sliceinterp.geometry import SLICE_POSITION_KEYS, OutputGrid, SliceGeometry, slice_geometry, slice_positions

__all__ = ["SliceInterpolationInferer", "check_batch_size", "images_per_batch", "paste_observed"]

_BLOCK = 16  # observed slices that are copied at once: bounds the memory, and reads volumes with slices last in runs


def paste_observed(output: Tensor, image: Tensor, grid: OutputGrid) -> Tensor:
    """Copy the observed slices into an interpolated volume, in place and bit for bit.

    Args:
        output: ``(..., M)``, slices last.
        image: ``(..., N)`` the input slices, of the output's type.
        grid: the output grid.

    Returns:
        ``output``.

    Raises:
        ValueError: if types or slice counts do not fit, so that the copy would not be exact.

    Example:
        >>> grid = OutputGrid.from_factor(2, 2)
        >>> paste_observed(torch.zeros(3), torch.tensor([7.0, 9.0]), grid).tolist()
        [7.0, 0.0, 9.0]
    """
    if output.dtype != image.dtype or output.shape[-1] != len(grid) or image.shape[-1] != grid.num_slices:
        raise ValueError(
            f"{image.shape[-1]} observed slices of {image.dtype} do not fit an output of {output.shape[-1]} slices of "
            f"{output.dtype}; expected {grid.num_slices} and {len(grid)} slices of one type."
        )
    places, sources = grid.is_observed.nonzero()[:, 0], grid.observed_source
    for place, source in zip(places.split(_BLOCK), sources.split(_BLOCK), strict=True):
        output[..., place.to(output.device)] = image[..., source.to(image.device)]
    return output


class SliceInterpolationInferer(Inferer):
    """Base of the inferers that turn a volume ``(B, C, H, W, N)`` into one with more slices.

    It owns the output grid, the loop over samples and channels, the copying of observed slices and the progress bar.
    A subclass defines :meth:`synthesize`, which fills one channel. Spacing is read from the input's affine, and the
    places of unevenly spaced slices from its metadata; the output, which is evenly spaced, carries the new affine.
    Frames of a time series are channels and are interpolated one by one.

    Beside the input and the output, memory holds what the method needs, and one limited copy of a channel of the input
    where that exceeds ``value_range``.

    Args:
        factor: upsampling factor; or
        spacing: output slice spacing in mm. With neither the output is isotropic (the smaller in-plane spacing).
        keep_observed: copy the observed slices from the input instead of computing them.
        value_range: intensities the method was made for, to which its results are limited. Where the input exceeds
            it, the excess is interpolated linearly and added to the method's result, so that nothing is cut off.
            None: no limit.
        progress: show a progress bar that counts synthesized slices.

    Raises:
        ValueError: if both a factor and a spacing are given, or ``value_range`` is empty.
    """

    default_spacing: float | None = None
    """Output slice spacing in mm where neither a factor nor a spacing is given; None: isotropic."""

    def __init__(
        self,
        factor: int | None = None,
        spacing: float | None = None,
        keep_observed: bool = True,
        value_range: tuple[float, float] | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__()
        if factor is not None and spacing is not None:
            raise ValueError(f"give a factor or a spacing, not both (got factor {factor!r}, spacing {spacing!r} mm).")
        if factor is not None:
            OutputGrid.from_factor(2, factor)
        if spacing is not None:
            OutputGrid.from_spacing(2, spacing, spacing)
        if value_range is not None and not value_range[0] < value_range[1]:
            raise ValueError(f"value_range must be ascending, got {value_range!r}.")
        self.factor, self.spacing, self.keep_observed = factor, spacing, keep_observed
        self.value_range, self.progress = value_range, progress

    def output_grid(self, inputs: Tensor) -> OutputGrid:
        """Return the output grid of a volume ``(B, C, H, W, N)`` with slices last."""
        num_slices = inputs.shape[-1]
        if not isinstance(inputs, MetaTensor):
            if self.factor is None:
                raise ValueError("a plain tensor has no spacing: give a factor, or a MetaTensor with its affine.")
            return OutputGrid.from_factor(num_slices, self.factor)
        geometry = slice_geometry(inputs.affine, axis=-1)
        places = slice_positions(inputs, axis=2)
        return OutputGrid.create(num_slices, geometry, self.factor, self.spacing, self.default_spacing, places)

    @abstractmethod
    def synthesize(
        self,
        slices: Tensor,
        grid: OutputGrid,
        geometry: SliceGeometry | None,
        wanted: Tensor,
        network: Callable[..., Any] | None,
        write: Callable[[Tensor, Tensor], None],
    ) -> None:
        """Compute the wanted slices of one channel.

        Args:
            slices: ``(N, H, W)`` within ``value_range``, in any order in memory: mostly a view of the input.
            grid: the output grid.
            geometry: spacings of the input, None for a plain tensor.
            wanted: output indices to compute, ``(K,)`` int64, ascending.
            network: the network, where the method has one.
            write: ``write(indices, images)`` takes results ``(k, H, W)``, in any order and any number of calls.
        """

    def __call__(self, inputs: Tensor, network: Callable[..., Any] | None = None, *args: Any, **kwargs: Any) -> Tensor:
        """Interpolate ``inputs`` ``(B, C, H, W, N)``.

        Returns:
            ``(B, C, H, W, M)``; a MetaTensor with the new affine if the input is one.

        Raises:
            ValueError: if the input is not such a volume, is not floating point, or the grid does not fit it.
        """
        if inputs.ndim != 5 or 0 in inputs.shape[2:]:
            raise ValueError(f"expected volumes (B, C, H, W, N), got shape {tuple(inputs.shape)}.")
        if not inputs.is_floating_point():
            raise ValueError(f"expected floating point volumes, got {inputs.dtype}.")
        grid = self.output_grid(inputs)
        geometry = slice_geometry(inputs.affine, axis=-1) if isinstance(inputs, MetaTensor) else None
        plain = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        batch, channels, height, width, _ = plain.shape
        wanted = torch.arange(len(grid)) if not self.keep_observed else torch.nonzero(~grid.is_observed)[:, 0]
        # slices are computed and written one after another: in memory they come first
        output = plain.new_empty(batch, channels, len(grid), height, width)
        with tqdm(
            total=batch * channels * len(wanted), unit="slice", desc="slices", disable=not self.progress, leave=False
        ) as bar:
            for sample in range(batch):
                for channel in range(channels):
                    slices = plain[sample, channel].permute(2, 0, 1)
                    self._fill(slices, output[sample, channel], grid, geometry, wanted, network, bar)
        result = output.permute(0, 1, 3, 4, 2)
        if self.keep_observed:
            paste_observed(result, plain, grid)
        return _with_affine(result, inputs, grid) if isinstance(inputs, MetaTensor) else result

    def _fill(
        self,
        slices: Tensor,
        output: Tensor,
        grid: OutputGrid,
        geometry: SliceGeometry | None,
        wanted: Tensor,
        network: Callable[..., Any] | None,
        bar: tqdm,
    ) -> None:
        """Fill the slices ``output`` ``(M, H, W)`` of one channel."""

        def write(indices: Tensor, images: Tensor) -> None:
            if self.value_range is not None:  # a network may overshoot: below air, or above the densest bone
                images = images.clamp(*self.value_range)
            output[indices.to(output.device)] = images.to(output.dtype)
            bar.update(len(indices))

        inside = slices if self.value_range is None else _limited(slices, *self.value_range)
        if len(wanted):
            self.synthesize(inside, grid, geometry, wanted, network, write)
        if inside is not slices:
            _add_excess(output, slices, inside, grid, wanted)


def _limited(slices: Tensor, low: float, high: float) -> Tensor:
    """Limit intensities: ``slices`` itself where they are within the range, else a contiguous copy."""
    if slices.amin() >= low and slices.amax() <= high:
        return slices
    return slices.clone(memory_format=torch.contiguous_format).clamp_(low, high)


def _add_excess(output: Tensor, slices: Tensor, inside: Tensor, grid: OutputGrid, wanted: Tensor) -> None:
    """Interpolate ``slices - inside`` linearly and add it to the wanted slices of ``output`` ``(M, H, W)``."""
    lower, alpha = grid.lower[wanted], grid.alpha[wanted].to(slices.dtype)
    at, before, after = -2, slices[0], slices[0]
    for index, first, weight in zip(wanted.tolist(), lower.tolist(), alpha.tolist(), strict=True):
        if first != at:  # each slice's excess is computed once, as positions ascend
            before = after if first == at + 1 else slices[first] - inside[first]
            at, after = first, slices[first + 1] - inside[first + 1]
        output[index] += torch.lerp(before, after, weight)


def check_batch_size(batch_size: int) -> int:
    """Return a batch size of an inferer if it is a positive integer, or 0 for one that is chosen by the images' size.

    Raises:
        ValueError: if it is neither.

    Example:
        >>> check_batch_size(0)
        0
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 0:
        raise ValueError(f"batch_size must be a positive integer, or 0 to choose it, got {batch_size!r}.")
    return batch_size


def images_per_batch(batch_size: int, pixels: int, budget: Mapping[str, int], device: torch.device) -> int:
    """Number of images that are computed at once.

    Args:
        batch_size: the number the user wants; 0 chooses it.
        pixels: pixels of an image.
        budget: pixels computed at once by default, by type of device; other types are treated as "cpu".
        device: where it is computed.

    Example:
        >>> images_per_batch(0, 32 * 32, {"cpu": 4096}, torch.device("cpu"))
        4
    """
    return batch_size or max(1, budget.get(device.type, budget["cpu"]) // pixels)


def _with_affine(result: Tensor, inputs: MetaTensor, grid: OutputGrid) -> MetaTensor:
    """Give the output the input's metadata, with the new affine."""
    output = MetaTensor(result).copy_meta_from(inputs, copy_attr=True)
    for key in SLICE_POSITION_KEYS:
        output.meta.pop(key, None)
    affine = torch.as_tensor(grid.affine(inputs.affine), dtype=torch.float64)
    output.affine = affine.expand(inputs.affine.shape).clone() if inputs.affine.ndim == 3 else affine
    return output
