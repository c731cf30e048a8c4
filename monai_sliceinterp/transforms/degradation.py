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

from numbers import Real
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import TransformBackends
from torch import Tensor

from monai_sliceinterp.geometry import scaled_affine, slice_geometry, slice_positions
from monai_sliceinterp.resampling import apply_slice_weights, slab_weights
from monai_sliceinterp.transforms.mapping import ApplyToKeys

__all__ = [
    "FWHMDownsample",
    "FWHMDownsampleD",
    "FWHMDownsampleDict",
    "FWHMDownsampled",
    "check_even",
    "fwhm_downsample",
]


def fwhm_downsample(volume: Tensor, factor: int, fwhm: float, phase: int = 0) -> Tensor:
    """Average slices over a Gaussian slab and keep every ``factor``-th one; only the kept slices are computed.

    Args:
        volume: ``(..., N)``, slices last, any value range.
        factor: distance of the kept slices in units of the input gap.
        fwhm: full width at half maximum of the slab in units of the input gap; 0 takes the slices as they are.
        phase: index of the first kept slice.

    Returns:
        ``(..., M)`` with ``M = (N - 1 - phase) // factor + 1`` slices, centered on the kept ones.

    Raises:
        ValueError: if the factor is not a positive integer, the phase lies outside, or fewer than two slices remain.

    Example:
        >>> import torch
        >>> fwhm_downsample(torch.arange(9.0), factor=4, fwhm=0.0).tolist()
        [0.0, 4.0, 8.0]
    """
    _check_factor(factor)
    num_slices = volume.shape[-1]
    if not 0 <= phase < num_slices:
        raise ValueError(f"the phase must be a slice index below {num_slices}, got {phase!r}.")
    positions = np.arange(phase, num_slices, int(factor))
    if len(positions) < 2:
        raise ValueError(f"keeping every {factor}. of {num_slices} slices leaves fewer than two.")
    if fwhm == 0:
        return volume[..., phase :: int(factor)].clone()
    return apply_slice_weights(volume, slab_weights(num_slices, positions, fwhm))


def check_even(image: Tensor, axis: int) -> None:
    """Check that the slices of a volume are evenly spaced, so that every K-th of them is so, too.

    Args:
        image: ``(C, X, Y, Z)``.
        axis: through-plane axis 0, 1 or 2.

    Raises:
        ValueError: if its metadata tells uneven positions, see :func:`monai_sliceinterp.geometry.slice_positions`.

    Example:
        >>> check_even(MetaTensor(np.zeros((1, 4, 4, 3))), axis=2)
    """
    if slice_positions(image, axis) is not None:
        raise ValueError("the slices are unevenly spaced or some are missing; expected even gaps to thin out.")


class FWHMDownsample(Transform):
    """Make a thick-slice volume: Gaussian slabs of a given width in mm, every ``factor``-th slice kept.

    The border is replicated. The affine follows; the origin moves only with ``phase``. The width becomes the slice
    thickness in the metadata.

    Args:
        factor: distance of the kept slices in units of the input gap.
        fwhm: full width at half maximum of the slab in mm. None: the target slice spacing. 0: no averaging, only
            every ``factor``-th slice (the ``subsample`` protocol).
        phase: index of the first kept slice.
        axis: through-plane axis; the last one by convention.

    Raises:
        ValueError: if a parameter is out of range or fewer than two slices would remain.

    Example:
        >>> import torch
        >>> thin = MetaTensor(torch.rand(1, 8, 8, 13), affine=torch.eye(4))
        >>> thick = FWHMDownsample(factor=4)(thin)  # slabs of 4 mm every 4 mm
        >>> tuple(thick.shape), thick.pixdim.tolist()
        ((1, 8, 8, 4), [1.0, 1.0, 4.0])
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, factor: int, fwhm: float | None = None, phase: int = 0, axis: int = -1) -> None:
        _check_factor(factor)
        if fwhm is not None and not 0 <= fwhm < np.inf:
            raise ValueError(f"the FWHM must be zero or a positive number of mm, got {fwhm!r}.")
        self.factor, self.fwhm, self.phase, self.axis = factor, fwhm, phase, axis

    def __call__(self, img: Tensor) -> MetaTensor:
        """Apply the transform to ``img`` ``(C, H, W, N)``."""
        image = img if isinstance(img, MetaTensor) else MetaTensor(img)
        geometry = slice_geometry(image.affine, axis=self.axis)
        check_even(image, geometry.axis)
        fwhm = self.factor * geometry.slice_spacing if self.fwhm is None else self.fwhm
        slices_last = image.as_tensor().movedim(geometry.axis + 1, -1)
        kept = fwhm_downsample(slices_last, self.factor, fwhm / geometry.slice_spacing, self.phase)
        result = MetaTensor(kept.movedim(-1, geometry.axis + 1)).copy_meta_from(image)
        result.affine = scaled_affine(image.affine, geometry.axis, self.factor, start=self.phase)
        if fwhm > 0:
            result.meta["slice_thickness"] = float(fwhm)
        return result


class FWHMDownsampled(ApplyToKeys):
    """Dictionary version of :class:`FWHMDownsample`, with its arguments after ``keys``.

    Args:
        keys: volumes to degrade.
        factor: distance of the kept slices in units of the input gap.
        fwhm: slab width in mm, see :class:`FWHMDownsample`.
        phase: index of the first kept slice.
        axis: through-plane axis; the last one by convention.
        allow_missing_keys: do not raise for keys that are not there.

    Example:
        >>> import torch
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


def _check_factor(factor: Any) -> None:
    if not isinstance(factor, Real) or isinstance(factor, bool) or not 1 <= float(factor) < np.inf or factor % 1:
        raise ValueError(f"the reduction factor must be a positive integer, got {factor!r}.")


FWHMDownsampleD = FWHMDownsampleDict = FWHMDownsampled
