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

import warnings
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import CommonKeys

from monai_sliceinterp.dicom.segmentation import read_segmentation, segmentation_file
from monai_sliceinterp.files import IMAGE_SUFFIXES, file_stem, typed_path
from monai_sliceinterp.geometry import (
    SAME_PLACE,
    axis_spacing,
    corner_distance,
    read_grid,
    slice_geometry,
    spatial_affine,
)
from monai_sliceinterp.transforms.label_interpolation import interpolate_labels
from monai_sliceinterp.transforms.loading import LoadVolume
from monai_sliceinterp.transforms.orientation import reorient_like

__all__ = [
    "InterpolateLabelD",
    "InterpolateLabelDict",
    "InterpolateLabeld",
    "LoadLabelD",
    "LoadLabelDict",
    "LoadLabeld",
    "whole_numbers",
]

_ROUNDING = 1e-3
"""Values of labels may be this far off whole numbers."""


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
    before anything is computed. A label whose axes run another way, as they do if it was drawn on a file made by
    another converter, is turned onto the volume's; a DICOM segmentation is read as well. Values within 0.001 of whole
    numbers are rounded.

    Args:
        keys: volume as it was loaded by :class:`monai_sliceinterp.transforms.LoadVolumed`.
        label: the label's file, or a folder with one for each volume, with the volume's name (DICOM: the folder's);
            empty: no label is added.
        label_key: where the label ``(1, X, Y, Z)`` goes. Its ``filename_or_obj`` is that of the volume, so that
            :class:`monai_sliceinterp.transforms.SaveVolumed` names it alike.
        allow_missing_keys: do not raise for keys that are not there.

    Raises:
        ValueError: with one line that names the file, if there is none, or it cannot be read, is not 3D, has another
            grid than the volume, or voxels that are not whole numbers.

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
        self.label, self.label_key = typed_path(label), label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the label."""
        result = dict(data)
        for key in self.key_iterator(result) if self.label else ():
            volume = result[key]
            source = str(volume.meta["filename_or_obj"])
            path = _find_label(Path(self.label), source)
            label = _load_label(path, volume)
            label.meta["filename_or_obj"] = source
            result[self.label_key] = label
        return result


def _load_label(path: Path, volume: MetaTensor) -> MetaTensor:
    """Load a label and bring it onto the voxels of its volume."""
    source = str(volume.meta["filename_or_obj"])
    if segmentation := segmentation_file(path):
        voxels = read_segmentation(segmentation, spatial_affine(volume.affine), tuple(volume.shape[1:]))
        meta = {"original_ndim": 3, "original_channel_dim": 0, "stored_dtype": voxels.dtype.name}
        wide = voxels.astype(np.int32) if voxels.dtype == np.uint16 else voxels
        return MetaTensor(torch.from_numpy(wide[None]), affine=torch.as_tensor(volume.affine).clone(), meta=meta)
    label = LoadVolume()(path)
    if len(label) != 1:
        raise ValueError(f"{path}: has {len(label)} frames; expected a label of one.")
    label = reorient_like(label, volume)
    if label.shape[1:] != volume.shape[1:]:
        size, expected = (" x ".join(map(str, image.shape[1:])) for image in (label, volume))
        raise ValueError(f"{path}: is {size} voxels large; expected {expected} as {source}.")
    apart = corner_distance(label.affine, volume.affine, label.shape[1:])
    if not apart <= SAME_PLACE * axis_spacing(volume.affine).min():
        raise ValueError(f"{path}: lies {apart:.3g} mm away from {source}; expected the same grid.")
    return whole_numbers(label, path)


def whole_numbers(label: MetaTensor, path: Path) -> MetaTensor:
    """Round values that only rounding keeps from whole numbers, as get_fdata() and a scaled header leave them.

    Args:
        label: ``(C, X, Y, Z)`` as it was loaded.
        path: its file, for messages.

    Raises:
        ValueError: if values are more than 0.001 away from whole numbers.

    Example:
        >>> whole_numbers(MetaTensor(torch.tensor([[[[0.0, 2.5]]]])), Path("label.nii.gz"))
        Traceback (most recent call last):
        ...
        ValueError: label.nii.gz: has voxels that are not whole numbers; expected labels.
    """
    values = label.as_tensor()
    if not values.is_floating_point():
        return label
    whole = values.round()
    apart = float((values - whole).abs().max())
    if not apart <= _ROUNDING:
        raise ValueError(f"{path}: has voxels that are not whole numbers; expected labels.")
    if not apart and "packed_slope" not in label.meta:
        return label
    if apart:
        warnings.warn(f"{path}: values up to {apart:.1g} off a whole number are rounded.", stacklevel=2)
    result = MetaTensor(whole.to(torch.int32)).copy_meta_from(label)  # stored as the whole numbers they are
    low, high = int(whole.min()), int(whole.max())
    result.meta["stored_dtype"] = np.result_type(np.min_scalar_type(low), np.min_scalar_type(high)).name
    for key in ("packed_dtype", "packed_slope", "packed_offset"):
        result.meta.pop(key, None)
    return result


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
