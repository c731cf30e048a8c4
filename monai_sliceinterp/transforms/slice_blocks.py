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

"""Draw slice blocks (cuboids) from volumes, with slices left out: training samples of networks across slices."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MultiSampleTrait, Randomizable, Transform
from monai.utils import CommonKeys, TransformBackends
from torch import Tensor

from monai_sliceinterp.checks import fraction, not_negative, positive, positive_integer, positive_integers, switch
from monai_sliceinterp.geometry import slice_geometry
from monai_sliceinterp.resampling import FWHM_PER_SIGMA, apply_weights, slab_weights
from monai_sliceinterp.transforms.mapping import RandApplyToKeys, name_in_errors

__all__ = [
    "RandSliceBlocks",
    "RandSliceBlocksD",
    "RandSliceBlocksDict",
    "RandSliceBlocksd",
    "slice_block",
]


def slice_block(volume: Tensor, axis: int, corner: Sequence[int], shape: Sequence[int], stride: int) -> Tensor:
    """Cut a slice block from a volume, with any array axis as the slice axis.

    Args:
        volume: ``(C, X, Y, Z)``.
        axis: spatial axis 0, 1 or 2 that becomes the slice axis.
        corner: first voxel of the block along the three axes of the volume.
        shape: height and width (along the two other axes, in their order) and number of slices of the block.
        stride: distance of the block's slices in voxels.

    Returns:
        ``(C, h, w, M)``, slices last.

    Example:
        >>> slice_block(torch.zeros(1, 30, 20, 10), axis=0, corner=(2, 0, 0), shape=(8, 6, 5), stride=3).shape
        torch.Size([1, 8, 6, 5])
    """
    lengths = [0, 0, 0]
    others = [k for k in range(3) if k != axis]
    lengths[others[0]], lengths[others[1]] = shape[0], shape[1]
    lengths[axis] = (shape[2] - 1) * stride + 1
    index = [slice(None)]
    for k, (begin, length) in enumerate(zip(corner, lengths, strict=True)):
        index.append(slice(begin, begin + length, stride if k == axis else 1))
    return volume[tuple(index)].movedim(axis + 1, -1)


class RandSliceBlocks(Randomizable, Transform, MultiSampleTrait):
    """Random transform that cuts slice blocks from a thin volume, each with all its slices and with every K-th one.

    All blocks of one call have the same factor, so that they make up a batch. For each block are drawn: which array
    axis serves as the slice axis, how much the slices are thinned out beforehand (SAINT, section 4: dense volumes are
    downsampled to enrich those of lesser resolution), the position, and flips. Blocks without contrast are drawn anew.
    Unlike most array transforms of MONAI it returns a list of dictionaries, one for each block.

    Args:
        num_samples: number of blocks.
        patch_size: height and width of the blocks. Where they differ, which in-plane axis is which is drawn too.
        num_slices: number of slices that are kept in each block.
        min_slices: of a volume that is too short for blocks of ``num_slices``, they have as many as there are, but not
            fewer than this. None: such a volume is refused.
        factors: upsampling factors, of which one is drawn; write one several times to draw it more often.
        max_spacing: extra thinning keeps the slice spacing at or below this, in mm. Its phase is random.
        max_thickness: slices are averaged over Gaussian slabs of a width drawn from 0 to this, in units of the block's
            slice spacing. Above 1 neighboring slabs overlap, as in many reconstructions, and slices vary more slowly
            than their spacing suggests. 0 leaves them as they are.
        thickness_prob: probability that slices are averaged over slabs at all.
        any_axis: also take in-plane axes as the slice axis, where no voxel spacing exceeds ``max_spacing``.
        draw_channel: draw one channel (one frame of a time series) for every block.
        min_contrast: standard deviation that a block's intensities need.
        max_tries: a block is drawn at most this often.
        axis: axis of the volume's slices; None: as the volume tells, see
            :func:`monai_sliceinterp.geometry.slice_geometry`.
        flip_prob: probability of a flip along each axis.
        min_remaining_slices: extra thinning leaves a volume at least as many slices (SAINT, section 4: 60).

    Raises:
        ValueError: if a parameter is out of range.

    Example:
        >>> sampler = RandSliceBlocks(num_samples=2, patch_size=(3, 24), num_slices=4, factors=[2]).set_random_state(0)
        >>> block = sampler(MetaTensor(torch.rand(1, 32, 32, 32)))[0]
        >>> {key: tuple(block[key].shape) for key in ("image", "label")}, block["factor"]
        ({'image': (1, 3, 24, 4), 'label': (1, 3, 24, 7)}, 2)
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        num_samples: int = 16,
        patch_size: Sequence[int] = (3, 56),
        num_slices: int = 7,
        factors: Sequence[int] = (4, 6),
        max_spacing: float = 3.0,
        max_thickness: float = 0.0,
        any_axis: bool = True,
        min_contrast: float = 0.01,
        max_tries: int = 10,
        axis: int | None = None,
        flip_prob: float = 0.5,
        min_remaining_slices: int = 0,
        min_slices: int | None = None,
        thickness_prob: float = 1.0,
        draw_channel: bool = False,
    ) -> None:
        self.num_samples = positive_integer("num_samples", num_samples)
        self.patch_size = positive_integers("patch_size", patch_size, count=2)
        self.num_slices = positive_integer("num_slices", num_slices, least=2)
        self.factors = positive_integers("factors", factors, least=2)
        self.max_spacing = positive("max_spacing", max_spacing, "mm")
        self.max_thickness = not_negative("max_thickness", max_thickness)
        self.any_axis, self.min_contrast = switch("any_axis", any_axis), min_contrast
        self.max_tries = positive_integer("max_tries", max_tries)
        self.axis, self.flip_prob = axis, fraction("flip_prob", flip_prob)
        self.min_remaining_slices = positive_integer("min_remaining_slices", min_remaining_slices, least=0)
        self.min_slices = positive_integer("min_slices", min_slices or self.num_slices, least=2)
        self.draw_channel = switch("draw_channel", draw_channel)
        self.thickness_prob = fraction("thickness_prob", thickness_prob)
        self.draws: list[dict[str, Any]] = []

    def choices(self, img: Tensor, factor: int, num_slices: int | None = None) -> list[tuple[int, int]]:
        """List the slice axes and strides (extra thinning) that a volume is large and fine enough for."""
        num_slices = num_slices or self.num_slices
        spacings = [slice_geometry(img, axis=axis).slice_spacing for axis in range(3)]
        through_plane = slice_geometry(img, axis=self.axis).axis
        fine = max(spacings) <= self.max_spacing
        result = []
        for axis in range(3):
            if axis != through_plane and not (self.any_axis and fine):
                continue
            others = sorted(img.shape[k + 1] for k in range(3) if k != axis)
            if any(size < wanted for size, wanted in zip(others, sorted(self.patch_size), strict=True)):
                continue
            for stride in range(1, max(int(self.max_spacing / spacings[axis] + 1e-6), 1) + 1):
                remaining = (img.shape[axis + 1] - 1) // stride + 1
                enough = stride == 1 or remaining >= self.min_remaining_slices
                if enough and factor * (num_slices - 1) + 1 <= remaining:
                    result.append((axis, stride))
        return result

    def randomize(self, data: Tensor) -> None:
        """Draw factor and positions of the blocks of the volume ``data`` ``(C, X, Y, Z)``."""
        counts = range(self.num_slices, min(self.min_slices, self.num_slices) - 1, -1)
        by_factor: dict[int, tuple[int, list[tuple[int, int]]]] = {}
        for factor in set(self.factors):
            fitting = ((count, self.choices(data, factor, count)) for count in counts)
            if found := next((pair for pair in fitting if pair[1]), None):
                by_factor[factor] = found
        factors = [factor for factor in self.factors if factor in by_factor]
        if not factors:
            raise ValueError(
                f"a volume of {'x'.join(str(size) for size in data.shape[1:])} voxels is too small for blocks of "
                f"{counts[-1]} slices at factor {min(self.factors)} and {'x'.join(map(str, self.patch_size))} pixels."
            )
        factor = factors[int(self.R.randint(len(factors)))]
        count, choices = by_factor[factor]
        axes = sorted({axis for axis, _ in choices})
        self.draws = [self._draw(data, factor, count, axes, choices) for _ in range(self.num_samples)]

    def _draw(
        self, data: Tensor, factor: int, num_slices: int, axes: list[int], choices: list[tuple[int, int]]
    ) -> dict[str, Any]:
        axis = axes[int(self.R.randint(len(axes)))]
        strides = [stride for candidate, stride in choices if candidate == axis]
        stride = strides[int(self.R.randint(len(strides)))]
        height, width = (data.shape[k + 1] for k in range(3) if k != axis)
        sizes = [self.patch_size, self.patch_size[::-1]]
        oriented = [size for size in sizes if size[0] <= height and size[1] <= width]
        size = oriented[int(self.R.randint(len(oriented)))]
        count = factor * (num_slices - 1) + 1
        shape = (*size, count)
        lengths = list(size)
        lengths.insert(axis, (count - 1) * stride + 1)
        channels = [int(self.R.randint(len(data)))] if self.draw_channel else list(range(len(data)))
        data = data[channels]
        cuboid: dict[str, Any] = {}
        for _ in range(self.max_tries):
            corner = [
                int(self.R.randint(full - length + 1)) for full, length in zip(data.shape[1:], lengths, strict=True)
            ]
            cuboid = {"axis": axis, "corner": corner, "shape": shape, "stride": stride}
            if float(slice_block(data, **cuboid).float().std()) >= self.min_contrast:
                break
        flips = [k + 1 for k in range(3) if self.R.random_sample() < self.flip_prob]
        thickness = float(self.R.uniform(0, self.max_thickness)) if self.max_thickness else 0.0
        if self.thickness_prob < 1 and self.R.random_sample() >= self.thickness_prob:
            thickness = 0.0
        return {**cuboid, "channels": channels, "factor": factor, "flips": flips, "thickness": thickness}

    def __call__(self, img: Tensor, randomize: bool = True) -> list[dict[str, Any]]:
        """Draw blocks from ``img`` ``(C, X, Y, Z)``, which needs its affine.

        Returns:
            For every block: ``label`` ``(C, h, w, K (n - 1) + 1)``, slices last; ``image`` ``(C, h, w, n)``, every
            K-th slice of it; ``factor`` K; ``slice_spacing`` of the image in mm; ``slice_thickness`` in mm, that of the
            slabs, 0 where nothing was averaged; ``in_plane_spacing`` ``(2,)`` in mm.
        """
        if randomize:
            self.randomize(img)
        plain = img.as_tensor() if isinstance(img, MetaTensor) else img
        blocks = []
        for draw in self.draws:
            label = _thick_block(plain[draw["channels"]], draw).flip(draw["flips"])
            geometry = slice_geometry(img, axis=draw["axis"])
            spacing = list(geometry.in_plane_spacing)
            if tuple(label.shape[1:3]) != self.patch_size:
                label, spacing = label.transpose(1, 2), spacing[::-1]
            fine = geometry.slice_spacing * draw["stride"]
            blocks.append(
                {
                    CommonKeys.IMAGE.value: label[..., :: draw["factor"]].contiguous(),
                    CommonKeys.LABEL.value: label.contiguous(),
                    "factor": draw["factor"],
                    "slice_spacing": torch.tensor(fine * draw["factor"], dtype=torch.float32),
                    "slice_thickness": torch.tensor(fine * draw["thickness"], dtype=torch.float32),
                    "in_plane_spacing": torch.tensor(spacing, dtype=torch.float32),
                }
            )
        return blocks


def _thick_block(volume: Tensor, draw: Mapping[str, Any]) -> Tensor:
    """Cut a block in float32, its slices averaged over slabs where a thickness is drawn."""
    cuboid = {key: draw[key] for key in ("axis", "corner", "shape", "stride")}
    if not draw["thickness"]:
        return slice_block(volume, **cuboid).to(torch.float32)
    axis, stride, (*size, count) = draw["axis"], draw["stride"], draw["shape"]
    width = draw["thickness"] * stride  # in voxels
    # slabs reach past the block where the volume goes on
    reach = math.ceil(4.0 * width / FWHM_PER_SIGMA)
    first, last = draw["corner"][axis], draw["corner"][axis] + (count - 1) * stride
    begin, end = max(first - reach, 0), min(last + reach, volume.shape[axis + 1] - 1)
    corner = [*draw["corner"]]
    corner[axis] = begin
    fine = slice_block(volume, axis, corner, (*size, end - begin + 1), stride=1)
    weights = slab_weights(end - begin + 1, range(first - begin, last - begin + 1, stride), width)
    return apply_weights(fine.to(torch.float32), weights)


class RandSliceBlocksd(RandApplyToKeys, MultiSampleTrait):
    """Dictionary version of :class:`RandSliceBlocks`, with its arguments after ``keys``, which is one key.

    Every item of the list has the entries of a block beside those of the data; the thick block also takes the place of
    the volume.

    Raises:
        ValueError: if a parameter is out of range, or there are several keys.

    Example:
        >>> volume = MetaTensor(torch.rand(1, 32, 32, 32))
        >>> len(RandSliceBlocksd("image", num_samples=3, patch_size=(3, 16), num_slices=3)({"image": volume}))
        3
    """

    backend = RandSliceBlocks.backend

    def __init__(
        self,
        keys: KeysCollection,
        num_samples: int = 16,
        patch_size: Sequence[int] = (3, 56),
        num_slices: int = 7,
        factors: Sequence[int] = (4, 6),
        max_spacing: float = 3.0,
        max_thickness: float = 0.0,
        any_axis: bool = True,
        min_contrast: float = 0.01,
        max_tries: int = 10,
        axis: int | None = None,
        flip_prob: float = 0.5,
        min_remaining_slices: int = 0,
        min_slices: int | None = None,
        thickness_prob: float = 1.0,
        draw_channel: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        settings = (num_samples, patch_size, num_slices, factors, max_spacing, max_thickness, any_axis, min_contrast)
        more = (axis, flip_prob, min_remaining_slices, min_slices, thickness_prob, draw_channel)
        sampler = RandSliceBlocks(*settings, max_tries, *more)
        super().__init__(keys, sampler, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"expected one key, got {self.keys}.")

    def __call__(  # type: ignore[override]
        self, data: Mapping[Hashable, Any]
    ) -> list[dict[Hashable, Any]]:
        """Draw the blocks."""
        for key in self.key_iterator(dict(data)):
            with name_in_errors(data[key], key):
                blocks = self.transform(data[key])
            return [{**data, **block, key: block[CommonKeys.IMAGE.value]} for block in blocks]
        return [dict(data)]


RandSliceBlocksD = RandSliceBlocksDict = RandSliceBlocksd
