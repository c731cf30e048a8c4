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

"""Interpolate segmentations by their shape, onto the grid of the interpolated image."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import CommonKeys
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from monai_sliceinterp.files import IMAGE_SUFFIXES, file_stem
from monai_sliceinterp.geometry import OutputGrid, read_grid, slice_geometry
from monai_sliceinterp.transforms.loading import LoadVolume

__all__ = [
    "InterpolateLabelD",
    "InterpolateLabelDict",
    "InterpolateLabeld",
    "LoadLabelD",
    "LoadLabelDict",
    "LoadLabeld",
    "interpolate_labels",
]

Labels = TypeVar("Labels", Tensor, NDArray[Any])
_Spacing = tuple[float, float]

_SAME_PLACE = 0.05
"""Corners of a label and of its image may be apart by this fraction of the smallest voxel edge: headers are rounded."""

_TIE = 1e-6
"""Distances in mm that differ by less are equal: fractions such as 1/3 are rounded."""


def interpolate_labels(labels: Labels, grid: OutputGrid, in_plane_spacing: _Spacing) -> Labels:
    """Interpolate a segmentation by the distances to the borders of its labels (Raya and Udupa 1990).

    In each slice every label has a signed distance map: mm to its border, positive inside. Between two slices the maps
    are mixed linearly, and a label is where its mixed distance is positive. A pixel that has the same label in both
    slices keeps it; one with two labels takes the one with the larger mixed distance, so that no hole opens between
    labels that touch; one that is background in one slice takes the label of the other also where the mixed distance
    of all labels together is positive. So each pixel takes a label of its own two slices or background, and
    on the way from slice to slice it never goes back to what it was before.

    A part of a label that overlaps with nothing of that label in the other slice shrinks evenly from its border and
    vanishes in the other slice; likewise a label that fills the whole slice is filled from its border in the other.

    Slices are taken two at a time and labels within their bounding boxes, so that little memory is used beside the
    result.

    Reference:
        S. P. Raya and J. K. Udupa, Shape-based interpolation of multidimensional objects, IEEE Trans. Med. Imaging
        9(1), 1990.

    Args:
        labels: ``(H, W, N)`` integers, slices last, 0 for background; a tensor or an array.
        grid: the output grid.
        in_plane_spacing: distance of pixel neighbors along H and along W in mm.

    Returns:
        ``(H, W, M)`` of the same type; the observed slices are those of the input.

    Raises:
        ValueError: if the labels are not such a volume, or do not fit the grid.

    Example:
        >>> bar = torch.zeros(8, 1, 2, dtype=torch.uint8)
        >>> bar[:2, :, 0] = bar[:6, :, 1] = 1
        >>> interpolate_labels(bar, OutputGrid.from_factor(2, 2), (1.0, 1.0))[:, 0, 1].tolist()
        [1, 1, 1, 1, 0, 0, 0, 0]
    """
    if isinstance(labels, Tensor):
        array = interpolate_labels(labels.detach().cpu().numpy(), grid, in_plane_spacing)
        return torch.from_numpy(array).to(labels.device)
    if labels.ndim != 3 or labels.dtype.kind not in "iu":
        raise ValueError(f"expected integer labels (H, W, N), got {labels.dtype} of shape {labels.shape}.")
    if labels.shape[-1] != grid.num_slices:
        raise ValueError(f"{labels.shape[-1]} slices of labels do not fit a grid of {grid.num_slices} slices.")
    if not all(0 < length < np.inf for length in in_plane_spacing):
        raise ValueError(f"the in-plane spacing must be two positive numbers of mm, got {in_plane_spacing!r}.")
    result = np.empty((len(grid), *labels.shape[:2]), labels.dtype)
    observed = grid.is_observed.numpy()
    result[observed] = np.moveaxis(labels[..., grid.observed_source.numpy()], -1, 0)
    lower, alpha = grid.lower.numpy(), grid.alpha.numpy()
    for gap in np.unique(lower[~observed]).tolist():
        wanted = np.flatnonzero((lower == gap) & ~observed)
        result[wanted] = _between(labels[..., gap], labels[..., gap + 1], alpha[wanted], in_plane_spacing)
    return np.moveaxis(result, 0, -1)


def _between(first: NDArray[Any], second: NDArray[Any], alpha: NDArray[np.float64], spacing: _Spacing) -> NDArray[Any]:
    """Labels ``(K, H, W)`` at the fractions ``alpha`` ``(K,)`` of the way between two slices ``(H, W)``."""
    result = np.repeat(first[None], len(alpha), axis=0)
    changed = first != second
    before, after = first[changed], second[changed]
    values = np.unique([before, after])
    values = values[values != 0]
    both = np.stack([first, second])
    # distances in both slices: of the label that a pixel has in the first slice, of that in the second, and of any
    leaving, coming, whole = maps = np.zeros((3, 2, *first.shape))
    codes = np.where(np.isin(both, values), np.searchsorted(values, both) + 1, 0)
    for value, (_, *extent) in zip(values, ndimage.find_objects(codes), strict=True):
        box = (slice(None), *_wider(extent))
        start, end = both[box] == value
        pair = _distances(start, end, spacing)
        leaving[box][:, start] = pair[:, start]
        coming[box][:, end] = pair[:, end]
    if ((both != 0) & ~np.isin(both, values[:1])).any():  # several labels
        box = (slice(None), *_wider(ndimage.find_objects((both != 0).any(axis=0).astype(np.uint8))[0]))
        start, end = both[box] != 0
        whole[box] = _distances(start, end, spacing)
    maps = maps[..., changed]
    for k, fraction in enumerate(alpha.tolist()):
        old, new, any_label = (1 - fraction) * maps[:, 0] + fraction * maps[:, 1]
        # where both are labels; a tie is settled alike in either direction
        label = np.where(np.where(abs(old - new) < _TIE, before < after, old > new), before, after)
        appears = np.maximum(np.where(before == 0, new, old), any_label) > _TIE
        one = np.where(appears, np.where(before == 0, after, before), 0)
        result[k][changed] = np.where((before == 0) | (after == 0), one, label)
    return result


def _distances(start: NDArray[np.bool_], end: NDArray[np.bool_], spacing: _Spacing) -> NDArray[np.float64]:
    """Signed distances ``(2, H, W)`` in mm of a shape in two slices, for pixels that it has in at least one of them."""
    shapes = (start, end)
    maps = np.stack([_signed_distance(shape, spacing) for shape in shapes])
    for k, other in ((0, 1), (1, 0)):
        if shapes[k].all() and shapes[other].any() and not shapes[other].all():  # what is left open closes evenly
            maps[k] = maps[other] - maps[other].min()
    result = maps.copy()
    for k, other in ((0, 1), (1, 0)):
        parts, count = ndimage.label(shapes[k], np.ones((3, 3)))
        overlaps = np.bincount(parts[shapes[other]], minlength=count + 1) > 0
        vanishes = ~overlaps[parts] & shapes[k]
        if vanishes.any():
            depth = ndimage.maximum(maps[k], parts, np.arange(count + 1))
            result[other][vanishes] = (maps[k] - depth[parts])[vanishes]
    return result


def _signed_distance(shape: NDArray[np.bool_], spacing: _Spacing) -> NDArray[np.float64]:
    """Distance to the border of a shape in mm, positive inside; the border is half way between pixels.

    Where there is no border, the distance is the size of the slice.
    """
    if shape.all() or not shape.any():
        size = float(np.hypot(*np.multiply(shape.shape, spacing)))
        return np.full(shape.shape, size if shape.any() else -size)
    half = min(spacing) / 2
    inside, outside = (ndimage.distance_transform_edt(part, spacing) for part in (shape, ~shape))
    return np.where(shape, inside - half, half - outside)


def _wider(box: Sequence[slice]) -> list[slice]:
    """A bounding box with a pixel more on each side, which holds the nearest pixel outside of each pixel inside."""
    return [slice(max(part.start - 1, 0), part.stop + 1) for part in box]


def _find_label(label: Path, image: str) -> Path:
    """The label file of an image: ``label`` itself, or the file of the image's name in the folder ``label``."""
    if not label.is_dir():
        return label
    stem = file_stem(image)
    files = [path for suffix in IMAGE_SUFFIXES if (path := label / f"{stem}{suffix}").is_file()]
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise ValueError(f"{image}: expected one label {label / stem}.nii.gz (or of another type), found {names}.")
    return files[0]


class LoadLabeld(MapTransform):
    """Transform that adds the label of a volume, loaded from a file and checked to be one of that volume.

    It belongs into the preprocessing, before the volume's axes are moved, so that a label that does not fit is refused
    before anything is computed.

    Args:
        keys: volume as it was loaded by :class:`monai_sliceinterp.transforms.LoadVolumed`.
        label: the label's file, or a folder with one for each volume, with the volume's name (DICOM: the folder's).
        label_key: where the label ``(1, X, Y, Z)`` goes. Its ``filename_or_obj`` is that of the volume, so that
            :class:`monai_sliceinterp.transforms.SaveVolumed` names it alike.
        allow_missing_keys: do not raise for keys that are not there.

    Raises:
        ValueError: with one line that names the file, if there is none, or it cannot be read, is not 3D, has another
            size or position than the volume, or voxels that are not whole numbers.

    Example:
        >>> import tempfile
        >>> from monai_sliceinterp.transforms import save_nifti
        >>> file = Path(tempfile.mkdtemp()) / "organs.nii.gz"
        >>> save_nifti(MetaTensor(torch.ones(1, 8, 9, 4, dtype=torch.uint8)), file)
        >>> scan = MetaTensor(torch.rand(1, 8, 9, 4), meta={"filename_or_obj": "scan.nii.gz"})
        >>> label = LoadLabeld("image", file)({"image": scan})["segmentation"]
        >>> tuple(label.shape), label.meta["filename_or_obj"]
        ((1, 8, 9, 4), 'scan.nii.gz')
    """

    def __init__(
        self,
        keys: KeysCollection,
        label: str | Path,
        label_key: str = "segmentation",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label, self.label_key = Path(label), label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the label."""
        result = dict(data)
        for key in self.key_iterator(result):
            volume = result[key]
            source = str(volume.meta["filename_or_obj"])
            path = _find_label(self.label, source)
            label = LoadVolume()(path)
            _check_label(label, volume, path, source)
            label.meta["filename_or_obj"] = source
            result[self.label_key] = label
        return result


def _check_label(label: MetaTensor, volume: MetaTensor, path: Path, source: str) -> None:
    if int(label.meta["original_ndim"]) != 3:
        raise ValueError(f"{path}: has {label.meta['original_ndim']} dimensions; expected a label of 3.")
    if label.shape[1:] != volume.shape[1:]:
        size, expected = (" x ".join(map(str, image.shape[1:])) for image in (label, volume))
        raise ValueError(f"{path}: is {size} voxels large; expected {expected} as {source}.")
    corners = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)]) * [*np.array(label.shape[1:]) - 1, 1]
    first, second = (np.asarray(image.affine, dtype=np.float64)[:3] for image in (label, volume))
    apart = float(np.linalg.norm((first - second) @ corners.T, axis=0).max())
    if not apart <= _SAME_PLACE * np.linalg.norm(second[:, :3], axis=0).min():
        raise ValueError(f"{path}: lies {apart:.3g} mm away from {source}; expected the same affine.")
    values = label.as_tensor()
    if values.is_floating_point() and not torch.equal(values, values.round()):
        raise ValueError(f"{path}: has voxels that are not whole numbers; expected labels.")


class InterpolateLabeld(MapTransform):
    """Transform that interpolates labels onto the output grid of their volume, see :func:`interpolate_labels`.

    It belongs into the postprocessing, after :class:`monai_sliceinterp.transforms.RestoreVolumed`.

    Args:
        keys: labels ``(1, X, Y, Z)`` from :class:`LoadLabeld`; they keep their type.
        ref_key: the restored volume, whose metadata has the output grid.
        allow_missing_keys: do not raise for keys that are not there.

    Raises:
        ValueError: if the metadata has no grid, or the labels do not fit it.

    Example:
        >>> from monai_sliceinterp.inferers import SplineSliceInferer
        >>> thin = SplineSliceInferer(factor=2)(MetaTensor(torch.rand(1, 1, 8, 1, 2)))[0]
        >>> label = MetaTensor(torch.zeros(1, 8, 1, 2, dtype=torch.uint8))
        >>> label[0, :2, :, 0] = label[0, :6, :, 1] = 1
        >>> InterpolateLabeld("label")({"label": label, "pred": thin})["label"][0, :, 0, 1].tolist()
        [1, 1, 1, 1, 0, 0, 0, 0]
    """

    def __init__(self, keys: KeysCollection, ref_key: str = CommonKeys.PRED, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.ref_key = ref_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Interpolate every key."""
        result = dict(data)
        volume = result[self.ref_key]
        record = read_grid(volume.meta)
        axis, grid = record.axis, record.grid
        spacing = slice_geometry(volume.affine, axis=axis).in_plane_spacing
        for key in self.key_iterator(result):
            label = result[key]
            stack = label.as_tensor()[0].movedim(axis, -1)
            whole = stack.to(torch.int64) if stack.is_floating_point() else stack
            voxels = interpolate_labels(whole, grid, spacing).to(stack.dtype).movedim(-1, axis)
            output = MetaTensor(voxels[None]).copy_meta_from(label)
            output.affine = torch.as_tensor(grid.affine(label.affine, axis))
            result[key] = output
        return result


InterpolateLabelD = InterpolateLabelDict = InterpolateLabeld
LoadLabelD = LoadLabelDict = LoadLabeld
