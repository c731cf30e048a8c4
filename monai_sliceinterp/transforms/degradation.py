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

"""Make thick or widely spaced slices from thin ones."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import TransformBackends, ensure_tuple
from torch import Tensor

from monai_sliceinterp.checks import not_negative, one_of, positive_integer, switch
from monai_sliceinterp.geometry import scaled_affine, slice_geometry, slice_positions
from monai_sliceinterp.resampling import (
    FWHM_PER_SIGMA,
    SLAB_PROFILES,
    apply_weights,
    interpolation_weights,
    slab_weights,
)
from monai_sliceinterp.transforms.mapping import ApplyToKeys, name_in_errors

__all__ = [
    "PROFILES",
    "Degradation",
    "Degrader",
    "DegraderD",
    "DegraderDict",
    "Degraderd",
    "FWHMDownsample",
    "FWHMDownsampleD",
    "FWHMDownsampleDict",
    "FWHMDownsampled",
    "degrade",
    "thick_positions",
]

PROFILES = (*SLAB_PROFILES, "none")
"""Slab profiles of :class:`Degrader`; "none" takes slices as they are."""


class Degradation(NamedTuple):
    """Result of a :class:`Degrader`: a thick volume, the thin one that it should be turned into, and the parameters.

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
    """Compute the positions of thick slices among thin ones: ``phase + i * factor``, within [0, num_slices - 1].

    Raises:
        ValueError: if the factor is below one, the phase lies outside, or fewer than two slices remain.

    Example:
        >>> thick_positions(10, 2.5, phase=1)
        [1.0, 3.5, 6.0, 8.5]
    """
    factor, phase, last = check_factor(factor), not_negative("phase", phase), num_slices - 1
    if not phase <= last:
        raise ValueError(f"the phase must be a position within [0, {last}], got {phase!r}.")
    count = math.floor((last - phase) / factor + 1e-9) + 1
    if count < 2:
        raise ValueError(
            f"keeping one of {factor:g} slices of {num_slices} from {phase:g} on leaves fewer than two; expected a "
            f"factor of at most {last - phase:g}."
        )
    return [min(phase + index * factor, float(last)) for index in range(count)]


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
        extrapolate: with ``restore_grid``, also make the thin slices outside, as copies of the first and last thick
            slice, so that the shape stays.

    Returns:
        The thick slices ``(..., M)``; with ``restore_grid`` one slice for every thin one from ``ceil(phase)`` to the
        last within the thick slices, and with ``extrapolate`` N slices. Slices that are only selected keep their
        type; integers that are averaged become float32.

    Raises:
        ValueError: if a parameter is out of range or fewer than two slices would remain.

    Example:
        >>> degrade(torch.arange(9.0), factor=4).tolist()
        [0.0, 4.0, 8.0]
        >>> degrade(torch.ones(9), factor=3, fwhm=2.0, restore_grid=True).shape
        torch.Size([7])
    """
    one_of("slab profile", profile, PROFILES)
    num_slices = volume.shape[-1]
    positions = thick_positions(num_slices, factor, phase)
    width = 0.0 if profile == "none" else not_negative("fwhm", fwhm)
    if width == 0 and all(position.is_integer() for position in positions):
        thick = volume[..., [int(position) for position in positions]]
    else:
        slabs = slab_weights(num_slices, positions, width, profile="gaussian" if profile == "none" else profile)
        thick = apply_weights(volume, slabs)
    if not restore_grid:
        return thick
    begin, end = _thin_range(num_slices, positions, extrapolate)
    wanted = np.clip((np.arange(begin, end) - positions[0]) / float(factor), 0, len(positions) - 1)
    return apply_weights(thick, interpolation_weights(len(positions), wanted, "cubic"))


class Degrader(Transform):
    """Transform that makes thick slices from thin ones: slabs, fewer slices, noise, the thin grid again on request.

    This is how Virtual Thin Slice makes its training pairs (section 3.3): Gaussian smoothing across the slices, one
    slice in 4 or 8, spline interpolation, noise. Affines are right at every step. Unlike most array transforms of
    MONAI it returns several things, a :class:`Degradation`; :class:`FWHMDownsample` returns the thick volume alone.

    The width of the slabs is stated in one of three ways; with none of them it is the new slice spacing.

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
        check_widths(profile, widths)
        for name, value in widths.items():
            if value is not None:
                not_negative(name, value, "" if name == "sigma" else "mm")
        self.factor, self.phase = check_factor(factor), not_negative("phase", phase)
        self.sigma, self.fwhm, self.gap, self.profile = sigma, fwhm, gap, profile
        self.noise, self.seed = not_negative("noise", noise), positive_integer("seed", seed, least=0)
        self.restore_grid, self.extrapolate = switch("restore_grid", restore_grid), switch("extrapolate", extrapolate)
        self.axis = axis

    def slab_width(self, slice_spacing: float) -> float:
        """Compute the full width at half maximum of the slab in mm, for an input with a slice spacing in mm.

        Raises:
            ValueError: if the gap is not less than the new slice spacing.
        """
        step = self.factor * slice_spacing
        if self.profile == "none":
            return 0.0
        if self.sigma is not None:
            return float(self.sigma) * FWHM_PER_SIGMA * slice_spacing
        if self.fwhm is not None:
            return float(self.fwhm)
        if self.gap is not None and self.gap >= step:
            raise ValueError(f"a gap of {self.gap:g} mm does not fit a slice spacing of {step:g} mm; expected less.")
        return step - float(self.gap or 0.0)

    def thicken(self, img: Tensor) -> MetaTensor:
        """Make the thick volume alone, without noise, from ``img`` ``(C, X, Y, Z)``.

        Slices that are taken as they are keep their type.
        """
        image = as_volume(img)
        geometry = slice_geometry(image.affine, axis=self.axis)
        if slice_positions(image, geometry.axis) is not None:
            raise ValueError("the slices are unevenly spaced or some are missing; expected even gaps to thin out.")
        width = self.slab_width(geometry.slice_spacing)
        slices = image.as_tensor().movedim(geometry.axis + 1, -1)
        volume = degrade(
            slices,
            self.factor,
            width / geometry.slice_spacing,
            self.profile,
            self.phase,
            self.restore_grid,
            self.extrapolate,
        )
        step, start = (1, self._thin_range(slices.shape[-1])[0]) if self.restore_grid else (self.factor, self.phase)
        thick = _on_grid(volume.movedim(-1, geometry.axis + 1), image, geometry.axis, step, start)
        if width > 0:
            thick.meta["slice_thickness"] = width
        return thick

    def __call__(self, img: Tensor) -> Degradation:
        """Degrade ``img`` ``(C, X, Y, Z)``; integers become float32."""
        image = as_volume(img)
        thick = self.thicken(image)
        if not thick.is_floating_point():
            thick = cast(MetaTensor, thick.to(torch.float32))
        geometry = slice_geometry(image.affine, axis=self.axis)
        axis, spacing = geometry.axis, geometry.slice_spacing
        width = self.slab_width(spacing)
        if self.noise:  # drawn slices last, whatever the axis
            shape = thick.as_tensor().movedim(axis + 1, -1).shape
            noise = torch.randn(shape, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float32)
            noise = noise.to(thick.device, thick.dtype).movedim(-1, axis + 1)
            thick = cast(MetaTensor, thick + self.noise * noise)
        begin, end = self._thin_range(image.shape[axis + 1])
        # a copy: what is done to it later must not reach the input, which may be cached
        thin = image.as_tensor().narrow(axis + 1, begin, end - begin).clone()
        parameters = {
            "factor": self.factor,
            "fwhm": width,
            "profile": self.profile,
            "phase": self.phase,
            "noise": self.noise,
            "seed": self.seed,
            "axis": axis,
            "sigma": width / spacing / FWHM_PER_SIGMA,
            "slice_spacing": self.factor * spacing,
        }
        return Degradation(thick, _on_grid(thin, image, axis, 1, begin), parameters)

    def _thin_range(self, num_slices: int) -> tuple[int, int]:
        positions = thick_positions(num_slices, self.factor, self.phase)
        return _thin_range(num_slices, positions, self.restore_grid and self.extrapolate)


class FWHMDownsample(Transform):
    """Transform that makes a thick-slice volume: Gaussian slabs of a width in mm, every ``factor``-th slice kept.

    This is :class:`Degrader` without noise, for integer factors. The border is replicated. The affine follows; the
    origin moves only with ``phase``. The width becomes the slice thickness in the metadata.

    Args:
        factor: distance of the kept slices in units of the input gap.
        fwhm: full width at half maximum of the slab in mm. None: the target slice spacing. 0: no averaging, only
            every ``factor``-th slice (the ``subsample`` protocol).
        phase: index of the first kept slice.
        axis: through-plane axis; the last one by convention.

    Raises:
        ValueError: if a parameter is out of range or fewer than two slices would remain.

    Example:
        >>> thin = MetaTensor(torch.rand(1, 8, 8, 13), affine=torch.eye(4))
        >>> thick = FWHMDownsample(factor=4)(thin)  # slabs of 4 mm every 4 mm
        >>> tuple(thick.shape), thick.pixdim.tolist()
        ((1, 8, 8, 4), [1.0, 1.0, 4.0])
    """

    backend = Degrader.backend

    def __init__(self, factor: int, fwhm: float | None = None, phase: int = 0, axis: int = -1) -> None:
        self.factor, self.fwhm = positive_integer("factor", factor), fwhm
        self.phase = positive_integer("phase", phase, least=0)
        self.degrader = Degrader(self.factor, fwhm=fwhm, phase=self.phase, axis=axis)

    def __call__(self, img: Tensor) -> MetaTensor:
        """Apply the transform to ``img`` ``(C, X, Y, Z)``."""
        return self.degrader.thicken(img)


class DegradeKeys(ApplyToKeys):
    """Base of dictionary transforms that replace thin volumes by thick ones; the thin ones go to other keys."""

    backend = Degrader.backend

    def __init__(
        self,
        keys: KeysCollection,
        transform: Transform,
        thin_keys: KeysCollection | None,
        parameters_key: str | None,
        allow_missing_keys: bool,
    ) -> None:
        super().__init__(keys, transform, allow_missing_keys)
        self.thin_keys = (None,) * len(self.keys) if thin_keys is None else ensure_tuple(thin_keys)
        if len(self.thin_keys) != len(self.keys):
            raise ValueError(
                f"expected one name of thin_keys for each of {len(self.keys)} keys, got {len(self.thin_keys)}."
            )
        self.parameters_key = parameters_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Degrade every key."""
        result = dict(data)
        for number, (key, thin_key) in enumerate(self.key_iterator(result, self.thin_keys)):
            with name_in_errors(result[key], key):
                result[key], thin, parameters = self._degrade(result[key], number)
            if thin_key is not None:
                result[thin_key] = thin
            if number == 0 and self.parameters_key is not None:
                result[self.parameters_key] = parameters
        return result

    def _degrade(self, image: Tensor, number: int) -> Degradation:
        return self.transform(image)


class Degraderd(DegradeKeys):
    """Dictionary version of :class:`Degrader`: the volumes under ``keys`` become thick.

    Args:
        keys: volumes to degrade.
        thin_keys: where the matching thin volumes go, one name for each key; None: they are not kept.
        parameters_key: where the parameters used go (for the first key); None: they are not kept.
        allow_missing_keys: do not raise for keys that are not there.

    The other arguments are those of :class:`Degrader`, by keyword.

    Example:
        >>> pair = Degraderd("image", thin_keys="label", factor=2, sigma=0)({"image": torch.rand(1, 4, 4, 5)})
        >>> tuple(pair["image"].shape), tuple(pair["label"].shape), pair["degradation"]["slice_spacing"]
        ((1, 4, 4, 3), (1, 4, 4, 5), 2.0)
    """

    def __init__(
        self,
        keys: KeysCollection,
        thin_keys: KeysCollection | None = None,
        parameters_key: str | None = "degradation",
        allow_missing_keys: bool = False,
        *,
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
        degrader = Degrader(
            factor, sigma, fwhm, gap, profile, phase, noise, seed, restore_grid, extrapolate, axis
        )  # fmt: skip
        super().__init__(keys, degrader, thin_keys, parameters_key, allow_missing_keys)


class FWHMDownsampled(ApplyToKeys):
    """Dictionary version of :class:`FWHMDownsample`, with its arguments after ``keys``.

    Example:
        >>> FWHMDownsampled("image", factor=2, fwhm=0)({"image": torch.rand(1, 4, 4, 5)})["image"].shape[-1]
        3
    """

    backend = FWHMDownsample.backend

    def __init__(
        self,
        keys: KeysCollection,
        factor: int,
        fwhm: float | None = None,
        phase: int = 0,
        axis: int = -1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, FWHMDownsample(factor, fwhm, phase, axis), allow_missing_keys)


def as_volume(img: Tensor) -> MetaTensor:
    """Check that a tensor is a volume, and make it a MetaTensor."""
    if img.ndim != 4 or 0 in img.shape:
        raise ValueError(f"expected a volume (C, X, Y, Z) with voxels, got shape {tuple(img.shape)}.")
    return img if isinstance(img, MetaTensor) else MetaTensor(img)


def _on_grid(voxels: Tensor, image: MetaTensor, axis: int, step: float, start: float) -> MetaTensor:
    """Give voxels the metadata of an image, and its affine with other steps along an axis."""
    result = MetaTensor(voxels).copy_meta_from(image)
    result.affine = torch.as_tensor(scaled_affine(image.affine, axis, step, start))
    return result


def _thin_range(num_slices: int, positions: Sequence[float], extrapolate: bool) -> tuple[int, int]:
    """First thin slice within the thick ones, and the one after the last."""
    if extrapolate:
        return 0, num_slices
    return math.ceil(positions[0] - 1e-9), math.floor(positions[-1] + 1e-9) + 1


def check_factor(factor: Any) -> float:
    """Check that a reduction factor is 1 or more."""
    if isinstance(factor, bool) or not isinstance(factor, Real) or not 1 <= float(factor) < math.inf:
        raise ValueError(f"the reduction factor must be a number of 1 or more, got {factor!r}.")
    return float(factor)


def check_widths(profile: str, widths: Mapping[str, Any]) -> None:
    """Check that the profile is known, and that at most one width is stated, one that the profile has."""
    one_of("slab profile", profile, PROFILES)
    names = [name for name, value in widths.items() if value is not None]
    if len(names) > 1:
        raise ValueError(f"give one of sigma, fwhm and gap, got {' and '.join(names)}.")
    if profile == "box" and "sigma" in names:
        raise ValueError("a box has no sigma: give its width as fwhm in mm, or the gap.")


DegraderD = DegraderDict = Degraderd
FWHMDownsampleD = FWHMDownsampleDict = FWHMDownsampled
