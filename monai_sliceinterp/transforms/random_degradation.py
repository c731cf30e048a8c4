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

"""Degrade volumes at random: training pairs of thick and thin slices, as an augmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import RandomizableTransform
from monai.utils import ensure_tuple
from torch import Tensor

from monai_sliceinterp.checks import positive, switch
from monai_sliceinterp.geometry import slice_geometry
from monai_sliceinterp.transforms.degradation import (
    Degradation,
    DegradeKeys,
    Degrader,
    as_volume,
    check_factor,
    check_widths,
)
from monai_sliceinterp.transforms.mapping import RandApplyToKeys

__all__ = ["RandDegrader", "RandDegraderD", "RandDegraderDict", "RandDegraderd"]


_WHOLE = 1e-4
"""Factors that differ from whole numbers by less than this fraction are whole."""


class RandDegrader(RandomizableTransform):
    """Random transform that applies a :class:`Degrader` with parameters drawn anew for each volume.

    The defaults are the paper's: a Gaussian of 0 to 3.2 voxels, one slice in 4 or 8 (Virtual Thin Slice, section 4.1).
    The paper's voxels are 1 mm: with ``unit=1.0`` the slabs have these widths and distances in mm on any grid.

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
        unit: length in mm that factors and ``sigma_range`` count in; None: the slice spacing of the input.

    Raises:
        ValueError: if a range is not ascending, or a parameter is out of range.

    Example:
        >>> import torch
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
        unit: float | None = None,
    ) -> None:
        super().__init__(prob)
        self.unit = None if unit is None else positive("unit", unit, "mm")
        widths = {"sigma": sigma_range, "fwhm": fwhm_range, "gap": gap_range}
        if all(limits is None for limits in widths.values()):
            widths["sigma"] = (0.0, 3.2)
        self.profiles, self.axes = ensure_tuple(profiles), ensure_tuple(axes)
        for profile in self.profiles:
            check_widths(profile, widths)
        for name, limits in {**widths, "factor": factor_range, "noise": noise_range}.items():
            if limits is not None and not (len(limits) == 2 and 0 <= limits[0] <= limits[1] < math.inf):
                raise ValueError(f"{name}_range must be two ascending numbers that are not negative, got {limits!r}.")
        if not self.axes or not self.profiles or (not factors and factor_range is None):
            raise ValueError("expected at least one factor, one profile and one axis.")
        for axis in self.axes:
            slice_geometry(np.eye(4), axis=axis)
        for factor in factors if factor_range is None else factor_range:
            check_factor(factor)
        self.factors, self.factor_range, self.noise_range = tuple(factors), factor_range, tuple(noise_range)
        self.widths = {name: tuple(limits) for name, limits in widths.items() if limits is not None}
        self.random_phase = switch("random_phase", random_phase)
        self.restore_grid, self.extrapolate = restore_grid, extrapolate
        self.draw: dict[str, Any] = {}

    def randomize(self, data: Tensor) -> None:
        """Draw the parameters for a volume ``data`` ``(C, X, Y, Z)``."""
        super().randomize(None)
        axis = self.axes[int(self.R.randint(len(self.axes)))]
        image = as_volume(data)
        num_slices = image.shape[1:][axis]
        # voxels in a unit
        scale = 1.0 if self.unit is None else self.unit / slice_geometry(image.affine, axis=axis).slice_spacing
        if self.factor_range is None:
            # of those that leave two slices; where none does, the first one raises the error
            factors = [scale * factor for factor in self.factors]
            fitting = [factor for factor in factors if factor <= num_slices - 1 + 1e-9] or factors[:1]
            factor = float(fitting[int(self.R.randint(len(fitting)))])
        else:
            low, high = (scale * limit for limit in self.factor_range)
            factor = float(self.R.uniform(low, max(low, min(high, num_slices - 1))))
        if math.isclose(factor, round(factor), rel_tol=_WHOLE):  # headers are rounded
            factor = float(round(factor))
        phases = min(math.floor(factor), max(num_slices - math.ceil(factor), 1))
        phase = float(self.R.randint(phases)) if self.random_phase else 0.0
        self.draw = {
            "factor": factor,
            "phase": phase,
            "profile": self.profiles[int(self.R.randint(len(self.profiles)))],
            "noise": float(self.R.uniform(self.noise_range[0], self.noise_range[1])),
            "seed": int(self.R.randint(2**31)),
            "axis": axis,
            **{name: float(self.R.uniform(limits[0], limits[1])) for name, limits in self.widths.items()},
        }
        if "sigma" in self.draw:
            self.draw["sigma"] *= scale

    def __call__(self, img: Tensor, randomize: bool = True) -> Degradation:
        """Degrade ``img`` ``(C, X, Y, Z)``."""
        if randomize or not self.draw:
            self.randomize(img)
        draw = self.draw if self._do_transform else {"factor": 1, "profile": "none", "axis": self.draw["axis"]}
        return Degrader(**draw, restore_grid=self.restore_grid, extrapolate=self.extrapolate)(img)


class RandDegraderd(DegradeKeys, RandApplyToKeys):
    """Dictionary version of :class:`RandDegrader`; all keys are degraded alike, each with noise of its own.

    Args:
        keys: volumes to degrade.
        thin_keys: see :class:`Degraderd`.
        parameters_key: see :class:`Degraderd`.
        allow_missing_keys: do not raise for keys that are not there.

    The other arguments are those of :class:`RandDegrader`, by keyword.

    Example:
        >>> import torch
        >>> degrader = RandDegraderd("image", thin_keys="label", restore_grid=True).set_random_state(seed=0)
        >>> pair = degrader({"image": torch.rand(1, 8, 8, 33)})
        >>> pair["image"].shape == pair["label"].shape
        True
    """

    def __init__(
        self,
        keys: KeysCollection,
        thin_keys: KeysCollection | None = None,
        parameters_key: str | None = "degradation",
        allow_missing_keys: bool = False,
        *,
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
        unit: float | None = None,
    ) -> None:
        degrader = RandDegrader(
            factors, factor_range, sigma_range, fwhm_range, gap_range, profiles, noise_range, random_phase, axes,
            restore_grid, extrapolate, prob, unit,
        )  # fmt: skip
        super().__init__(keys, degrader, thin_keys, parameters_key, allow_missing_keys)

    def _degrade(self, image: Tensor, number: int) -> Degradation:
        if number > 0:  # the same slabs, but noise of its own
            self.transform.draw["seed"] += 1
        return self.transform(image, randomize=number == 0)


RandDegraderD = RandDegraderDict = RandDegraderd
