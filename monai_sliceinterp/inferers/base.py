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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor
from tqdm import tqdm

from monai_sliceinterp.checks import positive_integer, switch
from monai_sliceinterp.geometry import (
    DISAGREEMENT,
    SLICE_POSITION_KEYS,
    GridMetadata,
    OutputGrid,
    SliceGeometry,
    paste_observed,
    slice_geometry,
    slice_positions,
    write_grid,
)
from monai_sliceinterp.inferers.static import static_change, synthesize_changing
from monai_sliceinterp.memory import free_memory
from monai_sliceinterp.precision import amp_setting, autocast_to, network_dtype
from monai_sliceinterp.progress import progress_bar, progress_setting

__all__ = ["SliceInterpolationInferer", "SliceStack", "check_batch_size", "images_per_batch"]


@dataclass(frozen=True, eq=False)
class SliceStack:
    """One channel of one volume, and the slices to compute from it.

    Attributes:
        slices: ``(N, H, W)`` within the inferer's ``value_range``, in any order in memory: mostly a view of the input.
        grid: the output grid.
        geometry: spacings and slice thickness of the input, None for a plain tensor.
        wanted: output indices to compute, ``(K,)`` int64, ascending.
        maps: voxelwise maps ``(M, H, W)`` that the method fills beside its result, by name, zero at first.
    """

    slices: Tensor
    grid: OutputGrid
    geometry: SliceGeometry | None
    wanted: Tensor
    maps: dict[str, Tensor] = field(default_factory=dict)


class SliceInterpolationInferer(Inferer):
    """Base of the inferers that turn a volume ``(B, C, H, W, N)`` into one with more slices.

    It owns the output grid, the loop over samples and channels, the copying of observed slices and the progress bar.
    A subclass defines :meth:`synthesize`, a generator of the slices of one channel. Spacing is read from the input's
    affine, and the positions of unevenly spaced slices from its metadata. The output, which is evenly spaced, carries
    the new affine, and in its metadata the output grid, see :func:`monai_sliceinterp.geometry.read_grid`. Frames of a
    time series are channels and are interpolated one by one.

    Beside input and output, memory holds what the method needs, a copy of a channel with its slices first, unless it is
    large, and a limited one where that exceeds ``value_range``.

    Args:
        factor: upsampling factor; or
        spacing: output slice spacing in mm. With neither the output is isotropic (the smaller in-plane spacing).
        keep_observed: copy the observed slices from the input instead of computing them.
        value_range: intensities the method was made for, to which its results are limited. Where the input exceeds
            it, the excess is interpolated linearly and added to the method's result, so that nothing is cut off.
            None: no limit.
        progress: show a progress bar that counts synthesized slices; "lines": print lines of text for programs, see
            :class:`monai_sliceinterp.progress.ProgressLines`.
        amp: precision of the network, see :func:`monai_sliceinterp.precision.network_dtype`. All else (splines,
            blending, sums) stays as precise as the input, and observed slices are copies in any case.

    Attributes:
        maps: names of voxelwise maps that :meth:`synthesize` fills in ``stack.maps``; the output's metadata has each of
            them as a tensor of its shape.

    Raises:
        ValueError: if both a factor and a spacing are given, or ``value_range`` is empty.
    """

    static_tolerance = 0.0
    """Change from slice to slice, as a fraction of ``value_range``, up to which intensities are static and left out
    around all others, see :mod:`monai_sliceinterp.inferers.static`; 0 computes everything."""

    default_spacing: float | None = None
    """Output slice spacing in mm where neither a factor nor a spacing is given; None: isotropic."""

    def __init__(
        self,
        factor: int | None = None,
        spacing: float | None = None,
        keep_observed: bool = True,
        value_range: tuple[float, float] | None = None,
        progress: bool | str = False,
        amp: bool | str = False,
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
        self.factor, self.spacing, self.value_range = factor, spacing, value_range
        self.keep_observed, self.progress = switch("keep_observed", keep_observed), progress_setting(progress)
        self.amp = amp_setting(amp)
        self.maps: tuple[str, ...] = ()

    def network_precision(self, device: torch.device) -> torch.autocast:
        """Make the context for calls of the network. Nothing may be yielded within it: it would go on outside."""
        return autocast_to(network_dtype(self.amp, device), device)

    def output_grid(self, inputs: Tensor) -> OutputGrid:
        """Compute the output grid of a volume ``(B, C, H, W, N)`` with slices last."""
        num_slices = inputs.shape[-1]
        if not isinstance(inputs, MetaTensor):
            if self.factor is None:
                raise ValueError("a plain tensor has no spacing: give a factor, or a MetaTensor with its affine.")
            return OutputGrid.from_factor(num_slices, self.factor)
        geometry = slice_geometry(inputs.affine, axis=-1)
        positions = slice_positions(inputs, axis=2)
        return OutputGrid.create(num_slices, geometry, self.factor, self.spacing, self.default_spacing, positions)

    @abstractmethod
    def synthesize(self, stack: SliceStack, network: Callable[..., Any] | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Compute the wanted slices of one channel.

        Args:
            stack: the channel's slices and what is wanted of them.
            network: the network, where the method has one.

        Yields:
            Output indices ``(k,)`` and the images ``(k, H, W)`` for them, in any order and any number of times.
        """

    def __call__(self, inputs: Tensor, network: Callable[..., Any] | None = None, *args: Any, **kwargs: Any) -> Tensor:
        """Interpolate ``inputs`` ``(B, C, H, W, N)``.

        Returns:
            ``(B, C, H, W, M)``; a MetaTensor with the new affine and the output grid if the input is one.

        Raises:
            ValueError: if the input is not such a volume, is not floating point, or the grid does not fit it.
        """
        if inputs.ndim != 5 or 0 in inputs.shape[2:]:
            raise ValueError(f"expected volumes (B, C, H, W, N), got shape {tuple(inputs.shape)}.")
        if not inputs.is_floating_point():
            raise ValueError(f"expected floating point volumes, got {inputs.dtype}.")
        grid = self.output_grid(inputs)
        geometry = slice_geometry(inputs, axis=-1) if isinstance(inputs, MetaTensor) else None
        plain = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        batch, channels, height, width, _ = plain.shape
        wanted = torch.arange(len(grid)) if not self.keep_observed else torch.nonzero(~grid.is_observed)[:, 0]
        _check_memory(grid, plain, 1 + len(self.maps))
        # slices are computed and written one after another: in memory they come first
        output = plain.new_empty(batch, channels, len(grid), height, width)
        maps = {name: torch.zeros_like(output) for name in self.maps}
        with progress_bar(self.progress, total=batch * channels * len(wanted), unit="slice", desc="slices") as bar:
            for sample in range(batch):
                for channel in range(channels):
                    slices = _slices_first(plain[sample, channel])
                    inside = slices if self.value_range is None else _limited(slices, *self.value_range)
                    part = {name: values[sample, channel] for name, values in maps.items()}
                    stack = SliceStack(inside, grid, geometry, wanted, part)
                    self._fill(output[sample, channel], stack, network, bar)
                    if inside is not slices:
                        _add_excess(output[sample, channel], slices, inside, grid, wanted)
                    if self.keep_observed:
                        paste_observed(output[sample, channel].movedim(0, -1), slices.movedim(0, -1), grid)
        result = output.permute(0, 1, 3, 4, 2)
        if not isinstance(inputs, MetaTensor) or geometry is None:
            return result
        record = GridMetadata(grid, self.keep_observed, geometry.slice_spacing, 2, self.factor, self.spacing)
        return _with_metadata(
            result, inputs, record, {name: map_.permute(0, 1, 3, 4, 2) for name, map_ in maps.items()}
        )

    def _fill(self, output: Tensor, stack: SliceStack, network: Callable[..., Any] | None, bar: tqdm) -> None:
        """Fill the slices ``output`` ``(M, H, W)`` of one channel."""
        if not len(stack.wanted):
            return
        tolerance = static_change(self.static_tolerance, self.value_range)
        for indices, images in synthesize_changing(self.synthesize, stack, network, tolerance):
            if self.value_range is not None:  # a network may overshoot: below air, or above the densest bone
                images = images.clamp(*self.value_range)
            output.index_copy_(0, indices.to(output.device), images.to(output))
            bar.update(len(indices))
            del indices, images  # not kept in memory while the next ones are computed


_COPIED = 2**26
"""Voxels of a channel up to which its slices are put first in memory, which is faster; beyond, memory is short."""


def _slices_first(volume: Tensor) -> Tensor:
    """Copy a channel ``(H, W, N)`` to ``(N, H, W)``, once for all that reads its slices; a large one is viewed so."""
    slices = volume.permute(2, 0, 1)
    if slices.is_contiguous() or volume.numel() > _COPIED:
        return slices
    height, width, count = volume.shape
    if volume.stride(2) >= max(volume.stride()):  # apart already: each is transposed, as a matrix
        result = slices.new_empty(slices.shape)
        for to, slice_ in zip(result, slices, strict=True):
            to.copy_(slice_)
        return result
    # as a matrix it is transposed block by block, many times as fast as axis by axis
    return volume.reshape(height * width, count).t().contiguous().view(count, height, width)


def _check_memory(grid: OutputGrid, volume: Tensor, copies: int) -> None:
    """Check that memory holds the output of a volume ``(B, C, H, W, N)``, before any is taken."""
    if volume.device.type != "cpu":
        return
    batch, channels, height, width, _ = volume.shape
    one_slice = batch * channels * height * width * volume.element_size() * copies
    needed, free = one_slice * len(grid), free_memory()
    if needed > free:
        raise ValueError(
            f"{len(grid)} slices of {height} x {width} take {needed / 2**30:.3g} GiB and {free / 2**30:.3g} GiB of "
            f"memory are free, enough for {free // one_slice}; expected a smaller factor, or a larger spacing."
        )


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
    """Check a batch size of an inferer: a positive integer, or 0 for one that is chosen by the images' size.

    Raises:
        ValueError: if it is neither.

    Example:
        >>> check_batch_size(0)
        0
    """
    return positive_integer("batch_size", batch_size, least=0, why=" (0 chooses it)")


def images_per_batch(batch_size: int, pixels: int, budget: Mapping[str, int], device: torch.device) -> int:
    """Compute the number of images of a batch.

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


def _with_metadata(result: Tensor, inputs: MetaTensor, record: GridMetadata, maps: Mapping[str, Tensor]) -> MetaTensor:
    """Give the output the input's metadata, with the new affine, the output grid and the voxelwise maps."""
    output = MetaTensor(result).copy_meta_from(inputs, copy_attr=True)
    for key in (*SLICE_POSITION_KEYS, DISAGREEMENT):
        output.meta.pop(key, None)
    write_grid(output.meta, record, len(result))
    output.meta.update(maps)
    affine = torch.as_tensor(record.grid.affine(inputs.affine), dtype=torch.float64)
    output.affine = affine.expand(inputs.affine.shape).clone() if inputs.affine.ndim == 3 else affine
    return output
