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

"""Virtual Thin Slice's Degrader: thick slices from thin ones, with everything a scanner does to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import RandomizableTransform, Transform
from monai.utils import TransformBackends, ensure_tuple
from torch import Tensor

from monai_sliceinterp.geometry import scaled_affine, slice_geometry
from monai_sliceinterp.resampling import (
    FWHM_PER_SIGMA,
    SLAB_PROFILES,
    apply_slice_weights,
    interpolation_weights,
    slab_weights,
)
from monai_sliceinterp.transforms.degradation import check_even

__all__ = [
    "PROFILES",
    "Degradation",
    "Degrader",
    "RandDegrader",
    "degrade",
    "thick_positions",
]

PROFILES = (*SLAB_PROFILES, "none")
"""Slab profiles of :class:`Degrader`; "none" takes slices as they are."""


class Degradation(NamedTuple):
    """What :class:`Degrader` returns.

    Attributes:
        thick: the degraded volume.
        thin: the part of the input that the thick slices span, from the first slice within them to the last.
        parameters: ``factor``, ``fwhm`` (mm), ``profile``, ``phase``, ``noise``, ``seed`` and ``axis``, which make a
            :class:`Degrader` that does the same again; ``sigma``, the slab's standard deviation in voxels, and
            ``slice_spacing``, the distance of the thick slices in mm.
    """

    thick: MetaTensor
    thin: MetaTensor
    parameters: dict[str, Any]


def thick_positions(num_slices: int, factor: float, phase: float = 0.0) -> list[float]:
    """Positions of the thick slices among the thin ones: ``phase + i * factor``, within [0, num_slices - 1].

    Raises:
        ValueError: if the factor is below one, the phase lies outside, or fewer than two slices remain.

    Example:
        >>> thick_positions(10, 2.5, phase=1)
        [1.0, 3.5, 6.0, 8.5]
    """
    _check_factor(factor)
    _check_not_negative(phase=phase)
    if not phase <= num_slices - 1:
        raise ValueError(f"the phase must be a position within [0, {num_slices - 1}], got {phase!r}.")
    count = math.floor((num_slices - 1 - float(phase)) / float(factor) + 1e-9) + 1
    if count < 2:
        raise ValueError(
            f"keeping one of {factor:g} slices of {num_slices} from {phase:g} on leaves fewer than two; expected a "
            f"factor of at most {num_slices - 1 - float(phase):g}."
        )
    return [min(float(phase) + index * float(factor), num_slices - 1.0) for index in range(count)]


def degrade(
    volume: Tensor,
    factor: float,
    fwhm: float = 0.0,
    profile: str = "gaussian",
    phase: float = 0.0,
    restore_grid: bool = False,
    extrapolate: bool = False,
) -> Tensor:
    """Average thin slices over slabs and keep one in ``factor``; only the kept slices are computed.

    Args:
        volume: ``(..., N)``, slices last, any value range, on any device.
        factor: distance of the thick slices in units of the input gap, 1 or more, not necessarily an integer.
        fwhm: full width at half maximum of the slab in units of the input gap.
        profile: "gaussian", "box" or "none", see :func:`monai_sliceinterp.resampling.slab_weights`.
        phase: position of the first thick slice.
        restore_grid: interpolate back to the thin slices within the thick ones, by a cubic B-spline aligned on slice
            centers.
        extrapolate: with ``restore_grid``, also give the thin slices outside, as copies of the first and last thick
            slice, so that the shape stays.

    Returns:
        The thick slices ``(..., M)``; with ``restore_grid`` one slice for every thin one from ``ceil(phase)`` to the
        last within the thick slices, and with ``extrapolate`` N slices.

    Raises:
        ValueError: if a parameter is out of range or fewer than two slices would remain.

    Example:
        >>> degrade(torch.arange(9.0), factor=4).tolist()
        [0.0, 4.0, 8.0]
        >>> degrade(torch.ones(9), factor=3, fwhm=2.0, restore_grid=True).shape
        torch.Size([7])
    """
    _check_profile(profile)
    positions = thick_positions(volume.shape[-1], factor, phase)
    if profile == "none":
        weights = slab_weights(volume.shape[-1], positions, 0.0)
    else:
        weights = slab_weights(volume.shape[-1], positions, fwhm, profile=profile)
    thick = apply_slice_weights(volume, weights)
    if not restore_grid:
        return thick
    begin, end = (0, volume.shape[-1]) if extrapolate else _thin_range(positions)
    wanted = (np.arange(begin, end) - positions[0]) / float(factor)
    wanted = np.clip(wanted, 0, len(positions) - 1)
    return apply_slice_weights(thick, interpolation_weights(len(positions), wanted, "cubic"))


def _thin_range(positions: Sequence[float]) -> tuple[int, int]:
    """First thin slice within the thick ones, and the one after the last."""
    return math.ceil(positions[0] - 1e-9), math.floor(positions[-1] + 1e-9) + 1


class Degrader(Transform):
    """Make thick slices from thin ones: slabs, fewer slices, noise, and on request the thin grid again.

    This is how Virtual Thin Slice makes its training pairs (section 3.3): Gaussian smoothing across the slices, one
    slice in 4 or 8, spline interpolation, noise. Affines are right at every step.

    The width of the slabs is told in one of three ways; with none of them it is the new slice spacing.

    Args:
        factor: distance of the thick slices in units of the input gap, 1 or more, not necessarily an integer.
        sigma: standard deviation of a Gaussian slab in voxels; or
        fwhm: full width at half maximum of the slab in mm (of a box: its width); or
        gap: gap between neighboring slabs in mm: their width is the new slice spacing less the gap.
        profile: "gaussian", "box", or "none", which takes slices as they are.
        phase: position of the first thick slice in voxels.
        noise: standard deviation of the Gaussian noise that is added at the end, in the image's units.
        seed: seed of the noise: the same input gives the same output.
        restore_grid: interpolate back to the thin slices within the thick ones, by a cubic B-spline aligned on slice
            centers.
        extrapolate: with ``restore_grid``, repeat the first and last thick slice outward so that the shape stays.
        axis: through-plane axis; the last one by convention.

    Raises:
        ValueError: if a parameter is out of range, several widths are given, or fewer than two slices would remain.

    Example:
        >>> thin = MetaTensor(torch.rand(1, 8, 8, 13), affine=torch.eye(4))
        >>> thick, truth, parameters = Degrader(factor=4, sigma=1.5)(thin)
        >>> tuple(thick.shape), thick.pixdim.tolist(), tuple(truth.shape)
        ((1, 8, 8, 4), [1.0, 1.0, 4.0], (1, 8, 8, 13))
        >>> Degrader(factor=4, sigma=1.5, restore_grid=True)(thin).thick.shape
        torch.Size([1, 8, 8, 13])
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        factor: float,
        sigma: float | None = None,
        fwhm: float | None = None,
        gap: float | None = None,
        profile: str = "gaussian",
        phase: float = 0.0,
        noise: float = 0.0,
        seed: int = 0,
        restore_grid: bool = False,
        extrapolate: bool = False,
        axis: int = -1,
    ) -> None:
        widths = {"sigma": sigma, "fwhm": fwhm, "gap": gap}
        _check_widths(profile, **widths)
        _check_not_negative(**{name: value for name, value in widths.items() if value is not None})
        _check_not_negative(noise=noise, phase=phase)
        _check_factor(factor)
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise ValueError(f"the seed must be an integer, got {seed!r}.")
        self.factor, self.sigma, self.fwhm, self.gap = factor, sigma, fwhm, gap
        self.profile, self.phase, self.noise, self.seed = profile, phase, noise, seed
        self.restore_grid, self.extrapolate, self.axis = restore_grid, extrapolate, axis

    def slab_width(self, slice_spacing: float) -> float:
        """Full width at half maximum of the slab in mm, for an input with a slice spacing in mm.

        Raises:
            ValueError: if the gap is not less than the new slice spacing.
        """
        step = float(self.factor) * slice_spacing
        if self.profile == "none":
            return 0.0
        if self.sigma is not None:
            return float(self.sigma) * FWHM_PER_SIGMA * slice_spacing
        if self.fwhm is not None:
            return float(self.fwhm)
        if self.gap is not None and self.gap >= step:
            raise ValueError(f"a gap of {self.gap:g} mm does not fit a slice spacing of {step:g} mm; expected less.")
        return step - float(self.gap or 0.0)

    def __call__(self, img: Tensor) -> Degradation:
        """Degrade ``img`` ``(C, X, Y, Z)``."""
        _check_volume(img)
        image = img if isinstance(img, MetaTensor) else MetaTensor(img)
        geometry = slice_geometry(image.affine, axis=self.axis)
        check_even(image, geometry.axis)
        spacing = geometry.slice_spacing
        width = self.slab_width(spacing)
        plain = image.as_tensor().movedim(geometry.axis + 1, -1)
        volume = degrade(
            plain, self.factor, width / spacing, self.profile, self.phase, self.restore_grid, self.extrapolate
        )
        if self.noise:
            generator = torch.Generator().manual_seed(self.seed)
            noise = torch.randn(volume.shape, generator=generator, dtype=torch.float32)
            volume = volume + self.noise * noise.to(volume)
        begin, end = _thin_range(thick_positions(plain.shape[-1], self.factor, self.phase))
        if self.restore_grid and self.extrapolate:
            begin, end = 0, plain.shape[-1]
        step, start = (1.0, float(begin)) if self.restore_grid else (float(self.factor), float(self.phase))
        thick = MetaTensor(volume.movedim(-1, geometry.axis + 1)).copy_meta_from(image)
        thick.affine = torch.as_tensor(scaled_affine(image.affine, geometry.axis, step, start))
        if width > 0:
            thick.meta["slice_thickness"] = width
        # a copy: what is done to it later must not reach the input, which may be cached
        thin = MetaTensor(plain[..., begin:end].movedim(-1, geometry.axis + 1).clone()).copy_meta_from(image)
        thin.affine = torch.as_tensor(scaled_affine(image.affine, geometry.axis, 1.0, float(begin)))
        parameters = {
            "factor": float(self.factor),
            "fwhm": width,
            "profile": self.profile,
            "phase": float(self.phase),
            "noise": float(self.noise),
            "seed": self.seed,
            "axis": geometry.axis,
            "sigma": width / spacing / FWHM_PER_SIGMA,
            "slice_spacing": float(self.factor) * spacing,
        }
        return Degradation(thick, thin, parameters)


class RandDegrader(RandomizableTransform):
    """:class:`Degrader` with every parameter drawn anew for each volume.

    The defaults are the paper's: a Gaussian of 0 to 3.2 voxels, one slice in 4 or 8 (Virtual Thin Slice, section 4.1).

    Args:
        factors: reduction factors, of which one is drawn; write one several times to draw it more often.
        factor_range: instead of ``factors``, a real factor drawn between these.
        sigma_range: the slab's standard deviation in voxels is drawn between these; or
        fwhm_range: its width in mm; or
        gap_range: the gap between slabs in mm. Only one of the three.
        profiles: slab profiles, of which one is drawn.
        noise_range: the noise's standard deviation is drawn between these.
        random_phase: draw the first thick slice; else it is the first slice.
        axes: through-plane axes, of which one is drawn.
        restore_grid: see :class:`Degrader`.
        extrapolate: see :class:`Degrader`.
        prob: probability to degrade at all; otherwise thick and thin are both the input.

    Raises:
        ValueError: if a range is not ascending, or a parameter is out of range.

    Example:
        >>> degrader = RandDegrader(restore_grid=True).set_random_state(seed=0)
        >>> thick, thin, parameters = degrader(torch.rand(1, 16, 16, 33))
        >>> thick.shape == thin.shape, parameters["factor"]
        (True, 8.0)
    """

    backend = Degrader.backend

    def __init__(
        self,
        factors: Sequence[float] = (4, 8),
        factor_range: Sequence[float] | None = None,
        sigma_range: Sequence[float] | None = None,
        fwhm_range: Sequence[float] | None = None,
        gap_range: Sequence[float] | None = None,
        profiles: Sequence[str] = ("gaussian",),
        noise_range: Sequence[float] = (0.0, 0.0),
        random_phase: bool = True,
        axes: Sequence[int] = (-1,),
        restore_grid: bool = False,
        extrapolate: bool = False,
        prob: float = 1.0,
    ) -> None:
        super().__init__(prob)
        widths = {"sigma": sigma_range, "fwhm": fwhm_range, "gap": gap_range}
        if all(limits is None for limits in widths.values()):
            widths["sigma"] = (0.0, 3.2)
        self.profiles, self.axes = ensure_tuple(profiles), ensure_tuple(axes)
        for profile in self.profiles:
            _check_widths(profile, **widths)
        given = {"factor_range": factor_range, "noise_range": noise_range}
        for name, limits in {**{f"{key}_range": value for key, value in widths.items()}, **given}.items():
            if limits is not None and not (len(limits) == 2 and 0 <= limits[0] <= limits[1] < math.inf):
                raise ValueError(f"{name} must be two ascending numbers that are not negative, got {limits!r}.")
        if not self.axes or not self.profiles or (not factors and factor_range is None):
            raise ValueError("expected at least one factor, one profile and one axis.")
        for axis in self.axes:
            slice_geometry(np.eye(4), axis=axis)
        for factor in factors if factor_range is None else factor_range:
            Degrader(factor)
        self.factors, self.factor_range, self.noise_range = tuple(factors), factor_range, tuple(noise_range)
        self.widths = {name: tuple(limits) for name, limits in widths.items() if limits is not None}
        self.random_phase, self.restore_grid, self.extrapolate = random_phase, restore_grid, extrapolate
        self.drawn: dict[str, Any] = {}

    def randomize(self, data: Tensor) -> None:
        """Draw the parameters for a volume ``data`` ``(C, X, Y, Z)``."""
        super().randomize(None)
        _check_volume(data)
        axis = self.axes[int(self.R.randint(len(self.axes)))]
        num_slices = data.shape[1:][axis]
        if self.factor_range is None:
            # of those that leave two slices; where none does, the first one tells so
            fitting = [factor for factor in self.factors if factor <= num_slices - 1] or list(self.factors[:1])
            factor = float(fitting[int(self.R.randint(len(fitting)))])
        else:
            low, high = self.factor_range
            factor = float(self.R.uniform(low, max(low, min(high, num_slices - 1))))
        phases = min(math.floor(factor), max(num_slices - math.ceil(factor), 1))
        phase = float(self.R.randint(phases)) if self.random_phase else 0.0
        self.drawn = {
            "factor": factor,
            "phase": phase,
            "profile": self.profiles[int(self.R.randint(len(self.profiles)))],
            "noise": float(self.R.uniform(self.noise_range[0], self.noise_range[1])),
            "seed": int(self.R.randint(2**31)),
            "axis": axis,
            **{name: float(self.R.uniform(limits[0], limits[1])) for name, limits in self.widths.items()},
        }
        if self.drawn["profile"] == "none":
            for name in self.widths:
                del self.drawn[name]

    def __call__(self, img: Tensor, randomize: bool = True) -> Degradation:
        """Degrade ``img`` ``(C, X, Y, Z)``."""
        if randomize or not self.drawn:
            self.randomize(img)
        drawn = self.drawn if self._do_transform else {"factor": 1, "profile": "none", "axis": self.drawn["axis"]}
        return Degrader(**drawn, restore_grid=self.restore_grid, extrapolate=self.extrapolate)(img)


def _check_volume(volume: Tensor) -> None:
    if volume.ndim != 4 or 0 in volume.shape:
        raise ValueError(f"expected a volume (C, X, Y, Z) with voxels, got shape {tuple(volume.shape)}.")


def _check_profile(profile: str) -> None:
    if profile not in PROFILES:
        raise ValueError(f"unknown slab profile {profile!r}; expected one of {', '.join(PROFILES)}.")


def _check_factor(factor: Any) -> None:
    if isinstance(factor, bool) or not isinstance(factor, Real) or not 1 <= float(factor) < math.inf:
        raise ValueError(f"the reduction factor must be a number of 1 or more, got {factor!r}.")


def _check_not_negative(**values: Any) -> None:
    for name, value in values.items():
        known = isinstance(value, Real) and not isinstance(value, bool)
        if not known or not 0 <= float(value) < math.inf:
            raise ValueError(f"{name} must be zero or a positive number, got {value!r}.")


def _check_widths(profile: str, **widths: Any) -> None:
    """Check that the profile is known and at most one width is told that it has."""
    _check_profile(profile)
    given = [name for name, value in widths.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"give one of sigma, fwhm and gap, got {' and '.join(given)}.")
    if profile == "box" and "sigma" in given:
        raise ValueError("a box has no sigma: give its width as fwhm in mm, or the gap.")
