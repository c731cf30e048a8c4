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

"""Resampling along the slice axis as multiplication with a banded matrix: interpolation kernels and slab profiles.

Every linear operation along the slices of a volume is a matrix of weights ``(N, M)``: output slice m is the sum of the
input slices weighted by column m. Columns sum to one, so a constant stays constant. Only the slices asked for are
computed, and only the input slices with a weight are read.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import interpolate, ndimage
from torch import Tensor

from monai_sliceinterp.checks import not_negative, one_of, positive_integer

__all__ = [
    "FWHM_PER_SIGMA",
    "INTERPOLATION_MODES",
    "SLAB_PROFILES",
    "apply_to_slices",
    "apply_weights",
    "consistency_weights",
    "interpolation_weights",
    "slab_weights",
]

INTERPOLATION_MODES = ("linear", "cubic", "lanczos")

SLAB_PROFILES = ("gaussian", "box")

FWHM_PER_SIGMA = float(np.sqrt(8.0 * np.log(2.0)))
"""Full width at half maximum of a Gaussian with standard deviation one."""

_NARROWEST = 0.02  # standard deviation in gaps; below it no slice may be left with a weight that is not 0 in float64

_NEGLIGIBLE = 1e-9  # the weights of a spline fall by 0.27 per slice: far slices need not be read

_SLICES_AT_ONCE = 16  # per matrix product: wide enough for BLAS, narrow enough to skip the zeros off the band


def apply_weights(volume: Tensor, weights: ArrayLike) -> Tensor:
    """Multiply the last axis of a volume with a banded matrix.

    Args:
        volume: ``(..., N)``, slices last, any value range; integers are computed in float32.
        weights: matrix ``(N, M)``.

    Returns:
        ``(..., M)`` in the volume's floating type, on its device.

    Raises:
        ValueError: if the matrix has not as many rows as the volume has slices.

    Example:
        >>> apply_weights(torch.tensor([[0.0, 4.0]]), [[1.0, 0.75], [0.0, 0.25]])
        tensor([[0., 1.]])
    """
    matrix = np.asarray(weights, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != volume.shape[-1]:
        raise ValueError(f"weights of shape {matrix.shape} do not fit a volume with {volume.shape[-1]} slices.")
    if not volume.is_floating_point():
        volume = volume.to(torch.float32)
    used = matrix != 0
    first, last = used.argmax(axis=0), matrix.shape[0] - used[::-1].argmax(axis=0)
    if not matrix.size:
        return volume.new_zeros((*volume.shape[:-1], matrix.shape[1]))
    # slices first: a view for either order in memory, and the products are wide instead of narrow
    planes = volume.movedim(-1, 0).reshape(matrix.shape[0], -1)
    parts = []
    # written where they belong, unless gradients have to find their way back
    result = None if planes.requires_grad else planes.new_empty((matrix.shape[1], planes.shape[1]))
    for begin in range(0, matrix.shape[1], _SLICES_AT_ONCE):
        columns = slice(begin, begin + _SLICES_AT_ONCE)
        rows = slice(int(first[columns].min()), int(last[columns].max()))
        part = torch.as_tensor(matrix[rows, columns].T.copy(), dtype=volume.dtype, device=volume.device)
        if result is None:
            parts.append(part @ planes[rows])
        else:
            torch.mm(part, planes[rows], out=result[columns])
    return (torch.cat(parts) if result is None else result).reshape(-1, *volume.shape[:-1]).movedim(0, -1)


def apply_to_slices(slices: Tensor, weights: ArrayLike) -> Tensor:
    """Multiply the first axis of a stack with a banded matrix; only the slices with a weight are read.

    Args:
        slices: ``(N, ...)`` in any order in memory, any value range.
        weights: matrix ``(N, M)``.

    Returns:
        ``(M, ...)``, see :func:`apply_weights`.

    Example:
        >>> apply_to_slices(torch.tensor([[0.0], [4.0]]), [[1.0, 0.75], [0.0, 0.25]])
        tensor([[0.],
                [1.]])
    """
    matrix = np.asarray(weights, dtype=np.float64)
    used = np.flatnonzero(matrix.any(axis=1))
    rows = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(None)
    # a copy of these slices alone, so that a volume with slices last is not copied as a whole
    return apply_weights(slices[rows].contiguous().movedim(0, -1), matrix[rows]).movedim(-1, 0)


def interpolation_weights(
    num_slices: int, positions: ArrayLike, mode: str = "cubic", slice_positions: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Compute the weights that interpolate slices at given positions, aligned on slice centers.

    Args:
        num_slices: number N of input slices, at positions 0, 1, ..., N - 1.
        positions: M output positions in units of the gap, within [0, N - 1].
        mode: "linear"; "cubic": interpolating cubic B-spline with mirrored ends; "lanczos": three-lobed windowed sinc
            with replicated ends, normalized.
        slice_positions: N ascending positions of unevenly spaced slices, in any unit. The output positions remain
            indices with fractions of the gaps. The cubic spline then has natural ends: a mirrored one has no slope
            there, so that a ramp would not remain one, and one with not-a-knot ends swings out after a wide gap.

    Returns:
        Matrix ``(N, M)``; every column sums to one.

    Raises:
        ValueError: for an unknown mode, positions outside the slices, or "lanczos" for unevenly spaced slices.

    Example:
        >>> interpolation_weights(3, [0.5], "linear").ravel().tolist()
        [0.5, 0.5, 0.0]
    """
    one_of("interpolation mode", mode, INTERPOLATION_MODES)
    wanted = np.asarray(positions, dtype=np.float64).reshape(-1)
    if wanted.size and not (wanted.min() >= 0 and wanted.max() <= num_slices - 1):
        raise ValueError(f"positions must lie within [0, {num_slices - 1}], got {wanted.min():g} to {wanted.max():g}.")
    if slice_positions is not None and mode == "cubic":
        return _uneven_spline_weights(np.asarray(slice_positions, dtype=np.float64), wanted)
    if slice_positions is not None and mode == "lanczos":
        raise ValueError("mode 'lanczos' needs evenly spaced slices, these are not; expected linear or cubic.")
    if mode == "linear":
        taps = np.arange(2)
        kernel, border = lambda x: np.maximum(1.0 - abs(x), 0.0), "replicate"
    elif mode == "cubic":
        taps = np.arange(-1, 3)
        kernel, border = _cubic_b_spline, "mirror"
    else:
        taps = np.arange(-2, 4)
        kernel, border = lambda x: np.sinc(x) * np.sinc(x / 3.0) * (abs(x) < 3), "replicate"
    nodes = np.floor(wanted).astype(int) + taps[:, None]
    weights = _scatter(nodes, kernel(nodes - wanted), num_slices, border)
    if mode == "cubic" and num_slices > 1:
        # the spline's coefficients are a recursive filter of the slices; its response falls by 0.27 per slice
        prefilter = ndimage.spline_filter1d(np.eye(num_slices), order=3, axis=0, mode="mirror")
        weights = prefilter.T @ weights
        weights[abs(weights) < _NEGLIGIBLE] = 0.0
    return weights / weights.sum(axis=0)


def _uneven_spline_weights(slices: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights ``(N, M)`` of the natural cubic spline through slices at ``slices``, at positions in index units."""
    lower = np.clip(np.floor(positions).astype(int), 0, len(slices) - 2)
    wanted = slices[lower] + (positions - lower) * np.diff(slices)[lower]
    spline = interpolate.make_interp_spline(slices, np.eye(len(slices)), k=3, bc_type="natural")
    weights = spline(wanted).T
    weights[abs(weights) < _NEGLIGIBLE] = 0.0
    return weights / weights.sum(axis=0)


def slab_weights(
    num_slices: int, positions: ArrayLike, fwhm: float, truncated: float = 4.0, profile: str = "gaussian"
) -> NDArray[np.float64]:
    """Compute the weights of slabs centered at given positions, with replicated ends.

    At a position between slices the slabs at the slices around it are interpolated by a cubic B-spline.

    Args:
        num_slices: number N of input slices.
        positions: M centers in units of the gap, within [0, N - 1].
        fwhm: full width at half maximum of the slab profile in units of the gap; 0 takes the slice at the position.
        truncated: a Gaussian profile is cut off at this many standard deviations.
        profile: "gaussian"; "box": the mean of the thin slices within the width, those at its ends in part.

    Returns:
        Matrix ``(N, M)``; every column sums to one.

    Raises:
        ValueError: if the width is negative, the profile is unknown or a position lies outside the slices.

    Example:
        >>> slab_weights(5, [2.0], fwhm=0.0).ravel().tolist()
        [0.0, 0.0, 1.0, 0.0, 0.0]
        >>> slab_weights(5, [2.0], fwhm=2.0, profile="box").ravel().tolist()
        [0.0, 0.25, 0.5, 0.25, 0.0]
    """
    not_negative("the FWHM of the slab", fwhm)
    one_of("slab profile", profile, SLAB_PROFILES)
    centers = np.asarray(positions, dtype=np.float64).reshape(-1)
    between = centers != np.round(centers)
    if between.any():
        cubic = interpolation_weights(num_slices, centers, "cubic")
        slabs = slab_weights(num_slices, np.arange(num_slices), fwhm, truncated, profile) @ cubic
        slabs[abs(slabs) < _NEGLIGIBLE] = 0.0
        return slabs / slabs.sum(axis=0)
    exact = interpolation_weights(num_slices, centers, "linear")
    if fwhm == 0:
        return exact
    if profile == "box":
        reach = int(np.ceil((fwhm - 1.0) / 2.0)) if fwhm > 1 else 0
        kernel = _overlap_with_box(fwhm)
    else:
        sigma = max(fwhm / FWHM_PER_SIGMA, _NARROWEST)
        reach = int(np.ceil(truncated * sigma))
        kernel = lambda x: np.exp(-0.5 * (x / sigma) ** 2)  # noqa: E731
    nodes = centers.astype(int) + np.arange(-reach, reach + 1)[:, None]
    weights = _scatter(nodes, kernel(nodes - centers), num_slices, "replicate")
    return weights / weights.sum(axis=0)


def consistency_weights(slabs: ArrayLike, steps: int) -> NDArray[np.float64]:
    """Compute the weights of what thin slices miss of observed slabs, to be added to the thin slices.

    Adding ``A^T (y - A x) / s`` to thin slices x, with slabs A, observed slices y and s the largest eigenvalue of
    ``A A^T``, is a step of gradient descent on ``|A x - y|^2`` (Landweber's iteration). Several steps are linear in the
    first difference too; these are the weights of all of them together. Few steps correct what slabs show well and
    leave alone what they hardly do, where noise would be amplified.

    Args:
        slabs: weights ``(M, N)`` of M thin slices in N observed slabs, see :func:`slab_weights`.
        steps: number of steps.

    Returns:
        Matrix ``(N, M)``: the thin slices are to be increased by ``apply_weights(observed - averaged, matrix)``.

    Raises:
        ValueError: if the number of steps is not positive.

    Example:
        >>> slabs = slab_weights(4, [0.5, 2.5], fwhm=2.0, profile="box")
        >>> thin = torch.zeros(4)
        >>> missed = torch.tensor([1.0, 3.0]) - apply_weights(thin, slabs)
        >>> thin = thin + apply_weights(missed, consistency_weights(slabs, 50))
        >>> (apply_weights(thin, slabs) * 100).round().tolist()
        [100.0, 300.0]
    """
    positive_integer("steps", steps)
    average = np.asarray(slabs, dtype=np.float64).T
    gram = average @ average.T
    step = 1.0 / np.linalg.eigvalsh(gram)[-1]
    left = np.eye(len(gram)) - step * gram
    total = sum(step * np.linalg.matrix_power(left, power) for power in range(steps))
    weights: NDArray[np.float64] = total @ average
    weights[abs(weights) < _NEGLIGIBLE] = 0.0
    return weights


def _overlap_with_box(width: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Create the function of how much of the cell of a slice, one gap wide, lies in a box centered at 0."""
    half = width / 2.0
    return lambda x: np.clip(np.minimum(x + 0.5, half) - np.maximum(x - 0.5, -half), 0.0, None)


def _cubic_b_spline(x: NDArray[np.float64]) -> NDArray[np.float64]:
    distance = abs(x)
    inner = 2.0 / 3.0 - distance**2 * (1.0 - distance / 2.0)
    return np.where(distance < 1, inner, np.maximum(2.0 - distance, 0.0) ** 3 / 6.0)


def _scatter(nodes: NDArray[np.int_], values: NDArray[np.float64], num_slices: int, border: str) -> NDArray[np.float64]:
    """Sum kernel values ``(taps, M)`` into a matrix ``(N, M)``, nodes past the ends folded back onto the slices."""
    if border == "mirror" and num_slices > 1:
        period = 2 * (num_slices - 1)
        nodes = abs((nodes + num_slices - 1) % period - (num_slices - 1))
    nodes = np.clip(nodes, 0, num_slices - 1)
    weights = np.zeros((num_slices, nodes.shape[1]))
    np.add.at(weights, (nodes, np.arange(nodes.shape[1])), values)
    return weights
