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

"""Interpolation of whole volumes by networks that work in 3D on the fine grid, as Virtual Thin Slice does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from torch import Tensor
from torch.nn import functional as F

from monai_sliceinterp.checks import not_negative, positive_integer
from monai_sliceinterp.geometry import OutputGrid, slice_geometry, slice_thickness
from monai_sliceinterp.inferers.base import SliceInterpolationInferer, SliceStack, check_batch_size
from monai_sliceinterp.inferers.in_plane import pixel_size, plane_grid
from monai_sliceinterp.inferers.static import STATIC_TOLERANCE
from monai_sliceinterp.resampling import apply_to_slices, consistency_weights, interpolation_weights, slab_weights

__all__ = ["VolumetricSliceInferer", "make_consistent"]

_AT_ONCE = 16
"""Slices that are corrected at once."""

_STRIDE = 16
"""Windows begin at multiples of this: a network that halves the resolution four times treats them all alike."""

_OVERLAP = 32
"""Voxels that neighboring windows share at most: all that is shared is computed twice."""


class VolumetricSliceInferer(SliceInterpolationInferer):
    """Inferer that interpolates by a cubic B-spline, then restores the volume by a 3D network in overlapping windows.

    The windows divide the volume evenly, overlap by 32 voxels and are blended, so that no seam shows. Along the slices
    they are finished one after another: memory is bounded by one row of windows beside the input and the output.

    A network that was trained on pixels of one size (its attribute ``in_plane_spacing``, 1 mm in the paper) sees pixels
    of that size: the interpolated stack is resampled in the plane, and what the network adds there is brought back onto
    the stack's own pixels, so that no detail of the scan is lost.

    By default all output slices are the network's. It is made to undo the blur of thick slabs too, from which the
    observed slices suffer like the others: a stack that kept them would alternate between blurred and sharp slices.

    Args:
        factor: upsampling factor; or
        spacing: output slice spacing in mm. With neither it is 1 mm, as in the paper; a finer stack keeps its own.
        roi_size: largest height, width and slices of the windows, multiples of 64 (of which a quarter overlaps).
        batch_size: windows that are computed at once; 0 chooses it (one on a CPU, four on a GPU).
        keep_observed: copy the observed slices from the input.
        value_range: intensities the network was trained on, see
            :class:`monai_sliceinterp.inferers.SliceInterpolationInferer`.
        progress: show a progress bar, or "lines" of text.
        amp: precision of the network, see :func:`monai_sliceinterp.precision.network_dtype`.
        in_plane_spacing: size in mm of the pixels that the network sees; 0: those of the scan. None: what the network
            says.
        data_consistency: steps by which the result is made to average back to the observed slabs, see
            :func:`make_consistent`; 0: none.
        slice_thickness: thickness of the observed slices in mm (FWHM of a Gaussian), which that needs; 0: what the
            metadata say.

    Raises:
        ValueError: if a parameter is out of range, or observed slices are to be copied and averaged to; when called, if
            the thickness is needed and not known.

    Example:
        >>> from monai.data import MetaTensor
        >>> from monai_sliceinterp.networks.nets import VTSGenerator
        >>> network = VTSGenerator(channels=(4, 8)).eval()
        >>> scan = MetaTensor(torch.rand(1, 1, 32, 24, 5), affine=torch.diag(torch.tensor([0.8, 0.8, 4.0, 1.0])))
        >>> thin = VolumetricSliceInferer()(scan, network)
        >>> tuple(thin.shape), round(float(thin.pixdim[2]), 4)
        ((1, 1, 32, 24, 17), 1.0)
    """

    default_spacing = 1.0
    static_tolerance = STATIC_TOLERANCE

    def __init__(
        self,
        factor: int | None = None,
        spacing: float | None = None,
        roi_size: Sequence[int] = (192, 192, 128),
        batch_size: int = 0,
        keep_observed: bool = False,
        value_range: tuple[float, float] | None = None,
        progress: bool | str = False,
        amp: bool | str = False,
        in_plane_spacing: float | None = None,
        data_consistency: int = 0,
        slice_thickness: float = 0.0,
    ) -> None:
        super().__init__(factor, spacing, keep_observed, value_range, progress, amp)
        self.data_consistency = positive_integer("data_consistency", data_consistency, least=0, why=" (0: none)")
        self.slice_thickness = not_negative("slice_thickness", slice_thickness)
        if self.data_consistency and self.keep_observed:
            raise ValueError("data_consistency averages to the observed slices, keep_observed copies them: take one.")
        if len(roi_size) != 3 or any(size < 64 or size % 64 for size in roi_size):
            raise ValueError(f"roi_size must be three multiples of 64, got {tuple(roi_size)!r}.")
        self.roi_size, self.batch_size = tuple(int(size) for size in roi_size), check_batch_size(batch_size)
        self.in_plane_spacing = pixel_size(in_plane_spacing)

    def __call__(self, inputs: Tensor, network: Callable[..., Any] | None = None, *args: Any, **kwargs: Any) -> Tensor:
        """Interpolate ``inputs`` ``(B, C, H, W, N)``, see :class:`SliceInterpolationInferer`."""
        thickness = self._thickness(inputs) if self.data_consistency else 0.0
        result = super().__call__(inputs, network, *args, **kwargs)
        if self.data_consistency and inputs.shape[-1] > 1:
            grid = self.output_grid(inputs)
            fine = thickness / (slice_geometry(inputs, axis=-1).slice_spacing * grid.step)
            for thin, observed in zip(_stacks(result), _stacks(inputs), strict=True):
                make_consistent(thin, observed, grid, fine, self.data_consistency)
        return result

    def _thickness(self, inputs: Tensor) -> float:
        """Thickness of the slices in mm."""
        if not isinstance(inputs, MetaTensor):
            raise ValueError("a plain tensor has no spacing, which data_consistency needs: give a MetaTensor.")
        known = self.slice_thickness or slice_thickness(inputs.meta)
        if not known:
            raise ValueError(
                "data_consistency needs the slice thickness, which the file does not tell; expected it in mm, as "
                "--inferer#slice_thickness 5."
            )
        return known

    @torch.no_grad()
    def synthesize(self, stack: SliceStack, network: Callable[..., Any] | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Compute the wanted slices of one channel."""
        if network is None:
            raise ValueError("a volumetric inferer needs a network.")
        slices, grid = stack.slices, stack.grid
        plane = plane_grid(stack, getattr(network, "module", network), self.in_plane_spacing)
        count, overlap = len(grid), _overlap(self.roi_size[2])
        length = _window(count, self.roi_size[2])
        is_wanted = torch.zeros(count, dtype=torch.bool)
        is_wanted[stack.wanted] = True
        weights = interpolation_weights(len(slices), grid.positions, "cubic", grid.slice_positions)
        tail = slices.new_zeros(0, *slices.shape[1:])  # the last slices of the window before, to be blended
        begin = 0
        while True:
            end = min(begin + length, count)
            last = end == count
            fine = apply_to_slices(slices, weights[:, begin:end])
            if plane is None:
                result = self._restore(fine.movedim(0, -1), network).movedim(-1, 0)
            else:
                seen = plane.resample(fine).movedim(0, -1)
                result = fine + plane.restore((self._restore(seen, network) - seen).movedim(-1, 0))
            if len(tail):
                ramp = _ramp(len(tail)).to(result)[:, None, None]
                result[: len(tail)] = torch.lerp(tail, result[: len(tail)], ramp)
            done = len(result) if last else len(result) - overlap
            chosen = is_wanted[begin : begin + done]
            yield torch.arange(begin, begin + done)[chosen], result[:done][chosen.to(result.device)]
            if last:
                return
            tail = result[done:].clone()
            begin += done

    def _restore(self, fine: Tensor, network: Callable[..., Any]) -> Tensor:
        """Run the network over ``fine`` ``(H, W, n)`` in windows that lie side by side in the plane."""
        height, width, count = fine.shape
        padded = F.pad(fine[None, None], (0, 0, 0, -width % _STRIDE, 0, -height % _STRIDE), mode="replicate")
        padded = padded.to(torch.promote_types(fine.dtype, torch.float32))  # half precision cannot hold the weights
        sizes = [_window(size, most) for size, most in zip(padded.shape[2:4], self.roi_size[:2], strict=True)]
        overlaps = [min(_overlap(most), size // 2) for size, most in zip(sizes, self.roi_size[:2], strict=True)]
        # MONAI's own Gaussian weights have a floor that makes them a plain mean near the faces of a window: seams there
        weights = torch.outer(*map(_side_weights, sizes, overlaps))

        def predict(windows: Tensor) -> Tensor:
            # a copy: a network may return its input, and MONAI multiplies what it returns in place
            with self.network_precision(fine.device):
                output = network(windows.to(fine.dtype, copy=True))
            if not isinstance(output, Tensor) or output.shape != windows.shape:
                shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise ValueError(f"the network made {shape} of windows {tuple(windows.shape)}; expected their shape.")
            return output.to(windows)

        result = sliding_window_inference(
            padded,
            roi_size=(*sizes, count),
            sw_batch_size=self.batch_size or (4 if fine.device.type == "cuda" else 1),
            predictor=predict,
            # half a voxel less: MONAI rounds the distance of windows down
            overlap=[*((shared - 0.5) / size for shared, size in zip(overlaps, sizes, strict=True)), 0.0],
            roi_weight_map=weights[..., None].expand(-1, -1, count).to(padded),
        )
        return torch.as_tensor(result)[0, 0, :height, :width].to(fine.dtype)


def make_consistent(thin: Tensor, observed: Tensor, grid: OutputGrid, thickness: float, steps: int = 3) -> None:
    """Change thin slices in place so that slabs of them average to the observed slices.

    Args:
        thin: ``(M, H, W)``, changed.
        observed: ``(N, H, W)``.
        grid: positions of the thin slices.
        thickness: FWHM of the slabs, a Gaussian, in distances of the thin slices.
        steps: see :func:`monai_sliceinterp.resampling.consistency_weights`.

    Example:
        >>> thin, observed = torch.zeros(5, 1, 1), torch.ones(3, 1, 1)
        >>> make_consistent(thin, observed, OutputGrid.from_factor(3, 2), thickness=2.0, steps=20)
        >>> bool((thin.mean() - 1).abs() < 0.02)
        True
    """
    centers = np.interp(np.arange(len(observed)), grid.positions, np.arange(len(grid)))
    inside = np.arange(len(observed)) <= grid.positions[-1]
    slabs = slab_weights(len(grid), centers[inside], thickness)
    weights = consistency_weights(slabs, steps)
    missed = observed[: len(weights)] - apply_to_slices(thin, slabs)
    for begin in range(0, len(thin), _AT_ONCE):
        columns = slice(begin, begin + _AT_ONCE)
        thin[columns] += apply_to_slices(missed, weights[:, columns])


def _stacks(volumes: Tensor) -> Iterator[Tensor]:
    """Yield views ``(N, H, W)`` of all channels of volumes ``(B, C, H, W, N)``."""
    plain = volumes.as_tensor() if isinstance(volumes, MetaTensor) else volumes
    for volume in plain:
        yield from (channel.movedim(-1, 0) for channel in volume)


def _overlap(most: int) -> int:
    """Voxels that windows of at most this size share."""
    return min(most // 4, _OVERLAP)


def _window(length: int, most: int) -> int:
    """Size of windows that divide a length evenly, a multiple of the stride; the length itself if one holds it."""
    if length <= most:
        return length
    shared = _overlap(most)
    count = -(-(length - shared) // (most - shared))
    return -(-(length + (count - 1) * shared) // (count * _STRIDE)) * _STRIDE


def _ramp(length: int) -> Tensor:
    """Weights of the later one of two windows over their overlap.

    The faces of a window know least of what is around them: its outermost quarter of the overlap does not count.
    """
    return torch.linspace(-0.5, 1.5, length + 2, dtype=torch.float64)[1:-1].clamp(0.0, 1.0)


def _side_weights(size: int, overlap: int) -> Tensor:
    """Weights of a window along one side; not 0, as at the volume's sides it is alone."""
    ramp = _ramp(overlap)
    return torch.cat([ramp, ramp.new_ones(size - 2 * len(ramp)), ramp.flip(0)]).clamp(min=1e-3)
