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

"""Move the through-plane axis to the end and back; or a random thin axis, to train along it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, RandomizableTransform
from monai.utils import TraceKeys, TransformBackends
from torch import Tensor

from monai_sliceinterp.checks import not_negative
from monai_sliceinterp.formats import NIFTI_HEADER
from monai_sliceinterp.geometry import axis_spacing, slice_geometry, slice_positions, spatial_affine
from monai_sliceinterp.transforms.mapping import InvertiblyApplyToKeys, RandApplyToKeys

__all__ = [
    "RandThinAxisLast",
    "RandThinAxisLastD",
    "RandThinAxisLastDict",
    "RandThinAxisLastd",
    "ThroughPlaneLast",
    "ThroughPlaneLastD",
    "ThroughPlaneLastDict",
    "ThroughPlaneLastd",
    "move_axis_last",
    "reorient_like",
    "thin_axes",
]


def move_axis_last(image: Tensor, axis: int) -> tuple[Any, Tensor]:
    """Move a spatial axis to the end, keeping the order of the others.

    Args:
        image: ``(C, X, Y, Z)``.
        axis: spatial axis 0, 1 or 2.

    Returns:
        The permuted image (a view) and the 4x4 matrix that takes its indices to those of the input.

    Example:
        >>> moved, matrix = move_axis_last(torch.zeros(1, 4, 5, 6), axis=0)
        >>> tuple(moved.shape), (matrix @ torch.tensor([1.0, 2.0, 3.0, 1.0]).double()).tolist()
        ((1, 5, 6, 4), [3.0, 1.0, 2.0, 1.0])
    """
    order = [k for k in range(3) if k != axis] + [axis]
    matrix = torch.zeros(4, 4, dtype=torch.float64)
    matrix[order, range(3)] = 1.0
    matrix[3, 3] = 1.0
    return image.permute(0, *(k + 1 for k in order)), matrix


def reorient_like(image: MetaTensor, reference: MetaTensor) -> MetaTensor:
    """Permute and flip the axes of a volume so that they run as those of another one do.

    Args:
        image: ``(C, X, Y, Z)``; it is returned as it is where its axes run so already.
        reference: ``(C, X, Y, Z)``, whose affine tells how.

    Example:
        >>> scan = MetaTensor(torch.zeros(1, 4, 5, 6))
        >>> flipped = MetaTensor(torch.zeros(1, 6, 5, 4), affine=torch.eye(4)[[2, 1, 0, 3]])
        >>> tuple(reorient_like(flipped, scan).shape)
        (1, 4, 5, 6)
    """
    ours, theirs = (spatial_affine(one.affine)[:3, :3] for one in (reference, image))
    steps = np.linalg.solve(ours, theirs)  # column k: the step along the image's axis k in voxels of the reference
    axes = np.abs(steps).argmax(axis=0).tolist()
    if sorted(axes) != [0, 1, 2]:
        return image
    order = [axes.index(axis) for axis in range(3)]
    flipped = [axis for axis in range(3) if steps[axis, order[axis]] < 0]
    if order == [0, 1, 2] and not flipped:
        return image
    voxels = image.as_tensor().permute(0, *(axis + 1 for axis in order)).flip([axis + 1 for axis in flipped])
    matrix = np.zeros((4, 4))  # takes indices of the result to those of the image
    matrix[3, 3] = 1.0
    for axis in range(3):
        matrix[order[axis], axis] = -1.0 if axis in flipped else 1.0
        matrix[order[axis], 3] = voxels.shape[axis + 1] - 1 if axis in flipped else 0.0
    result = MetaTensor(voxels.contiguous()).copy_meta_from(image)
    result.affine = torch.as_tensor(spatial_affine(image.affine) @ matrix)
    result.meta.pop(NIFTI_HEADER, None)  # its slice dimension would be another
    return result


class ThroughPlaneLast(InvertibleTransform):
    """Transform that permutes a volume so that its slices are stacked along the last axis; the affine follows.

    The inverse moves the last axis back to where it came from, whatever its length by then, so that it also applies
    to a volume interpolated in between.

    Args:
        axis: through-plane axis 0, 1 or 2; None: the axis with the largest spacing, a tie meaning the last one.
        max_spacing: largest slice spacing in mm of a volume that is to teach thin slices; 0: any.

    Raises:
        ValueError: if ``max_spacing`` is negative.

    Example:
        >>> scan = MetaTensor(torch.zeros(1, 12, 256, 192), affine=torch.diag(torch.tensor([5.0, 1.0, 1.0, 1.0])))
        >>> to_last = ThroughPlaneLast()
        >>> moved = to_last(scan)
        >>> tuple(moved.shape), moved.pixdim.tolist()
        ((1, 256, 192, 12), [1.0, 1.0, 5.0])
        >>> tuple(to_last.inverse(moved).shape)
        (1, 12, 256, 192)
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, axis: int | None = None, max_spacing: float = 0.0) -> None:
        self.axis, self.max_spacing = axis, not_negative("max_spacing", max_spacing)

    def __call__(self, img: Tensor) -> MetaTensor:
        """Apply the transform to ``img`` ``(C, X, Y, Z)``.

        Raises:
            ValueError: if the volume is not three-dimensional, its affine is unusable, or its slices are unevenly
                spaced along another axis, or further apart than ``max_spacing``.
        """
        if img.ndim != 4:
            raise ValueError(f"expected a volume (C, X, Y, Z), got shape {tuple(img.shape)}.")
        image = img if isinstance(img, MetaTensor) else MetaTensor(img)
        geometry = slice_geometry(image, axis=self.axis)
        axis, apart = geometry.axis, geometry.slice_spacing
        if 0 < self.max_spacing < apart:
            raise ValueError(
                f"{image.meta.get('filename_or_obj', 'a volume')}: slices {apart:.4g} mm apart are too thick to teach "
                f"thin ones; expected at most {self.max_spacing:.4g} mm, or a coarser pixdim."
            )
        uneven = slice_positions(image, axis) is not None
        moved, matrix = move_axis_last(image, axis)
        moved.meta = deepcopy(image.meta)  # MONAI updates the entries in place, and those are the input's
        if uneven:
            moved.meta["slice_positions_axis"] = 2
        return self.push_transform(moved, affine=matrix, extra_info={"axis": axis}, orig_size=tuple(image.shape[1:]))

    def inverse(self, data: MetaTensor) -> MetaTensor:
        """Move the last axis of ``data`` ``(C, H, W, N)`` back."""
        axis = self.pop_transform(data)[TraceKeys.EXTRA_INFO]["axis"]
        _, matrix = move_axis_last(data, axis)
        order = [0, 1]
        order.insert(axis, 2)
        moved: Any = data.permute(0, *(k + 1 for k in order))
        moved.meta = deepcopy(data.meta)
        for entry in ("slice_positions_axis", "source_axis"):  # the latter only once it is interpolated
            if entry in moved.meta:
                moved.meta[entry] = axis
        with self.trace_transform(False):
            return self.push_transform(moved, affine=matrix.T)  # a permutation's inverse


class ThroughPlaneLastd(InvertiblyApplyToKeys):
    """Dictionary version of :class:`ThroughPlaneLast`.

    Args:
        keys: volumes to permute.
        axis: see :class:`ThroughPlaneLast`.
        max_spacing: see :class:`ThroughPlaneLast`.
        allow_missing_keys: do not raise for keys that are not there.

    Example:
        >>> tuple(ThroughPlaneLastd("image", axis=1)({"image": torch.zeros(1, 4, 5, 6)})["image"].shape)
        (1, 4, 6, 5)
    """

    backend = ThroughPlaneLast.backend

    def __init__(
        self,
        keys: KeysCollection,
        axis: int | None = None,
        max_spacing: float = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, ThroughPlaneLast(axis, max_spacing), allow_missing_keys)


def thin_axes(image: MetaTensor, max_ratio: float = 2.0) -> list[int]:
    """Find the axes along which a volume is sampled finely, so that it can be made thick along them.

    Args:
        image: ``(C, X, Y, Z)`` with its affine in mm.
        max_ratio: largest spacing that counts as thin, in units of the smallest one.

    Returns:
        One to three of 0, 1, 2.

    Example:
        >>> thin_axes(MetaTensor(torch.zeros(1, 4, 4, 4), affine=torch.diag(torch.tensor([1.4, 1.4, 5.0, 1.0]))))
        [0, 1]
    """
    spacings = axis_spacing(image.affine).tolist()
    return [axis for axis, spacing in enumerate(spacings) if spacing <= max_ratio * min(spacings)]


class RandThinAxisLast(RandomizableTransform):
    """Random transform that moves one of a volume's thin axes to the end, where the slice axis is.

    A scan has thin "slices" along its rows and columns as well, thick-slice scans too. All of them can teach what is
    lost when slices are thick.

    Args:
        max_ratio: largest spacing that counts as thin, in units of the volume's smallest one.
        prob: probability to draw an axis, every thin one as likely as the others; otherwise the last axis stays, if it
            is thin.

    Raises:
        ValueError: if ``max_ratio`` is below 1, or ``prob`` not a probability.

    Example:
        >>> scan = MetaTensor(torch.zeros(1, 8, 9, 3), affine=torch.diag(torch.tensor([1.0, 1.0, 5.0, 1.0])))
        >>> RandThinAxisLast().set_random_state(0)(scan).shape[-1] in (8, 9)
        True
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, max_ratio: float = 2.0, prob: float = 1.0) -> None:
        super().__init__(prob)
        if not max_ratio >= 1:
            raise ValueError(f"max_ratio must be 1 or more, got {max_ratio!r}.")
        self.max_ratio, self.axis = max_ratio, 2

    def randomize(self, data: MetaTensor) -> None:
        """Draw the axis for a volume ``data`` ``(C, X, Y, Z)``."""
        super().randomize(None)
        axes = thin_axes(data, self.max_ratio)
        axis = axes[int(self.R.randint(len(axes)))]
        self.axis = axis if self._do_transform or 2 not in axes else 2

    def __call__(self, img: Tensor, randomize: bool = True) -> MetaTensor:
        """Apply the transform to ``img`` ``(C, X, Y, Z)``; the affine follows."""
        if img.ndim != 4:
            raise ValueError(f"expected a volume (C, X, Y, Z), got shape {tuple(img.shape)}.")
        image = img if isinstance(img, MetaTensor) else MetaTensor(img)
        if randomize:
            self.randomize(image)
        moved, matrix = move_axis_last(image.as_tensor(), self.axis)
        return MetaTensor(moved, affine=torch.as_tensor(image.affine) @ matrix.to(image.affine), meta=dict(image.meta))


class RandThinAxisLastd(RandApplyToKeys):
    """Dictionary version of :class:`RandThinAxisLast`: the axis is chosen for the first key, the others follow.

    Args:
        keys: volumes of one grid.
        max_ratio: see :class:`RandThinAxisLast`.
        prob: see :class:`RandThinAxisLast`.
        allow_missing_keys: do not raise for keys that are not there.

    Example:
        >>> scan = MetaTensor(torch.zeros(1, 8, 8, 3), affine=torch.diag(torch.tensor([1.0, 1.0, 5.0, 1.0])))
        >>> RandThinAxisLastd("image")({"image": scan})["image"].shape
        torch.Size([1, 8, 3, 8])
    """

    backend = RandThinAxisLast.backend

    def __init__(
        self, keys: KeysCollection, max_ratio: float = 2.0, prob: float = 1.0, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, RandThinAxisLast(max_ratio, prob), allow_missing_keys)


RandThinAxisLastD = RandThinAxisLastDict = RandThinAxisLastd
ThroughPlaneLastD = ThroughPlaneLastDict = ThroughPlaneLastd
