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

"""Interpolation of a scan in one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_sliceinterp.bundles import find_bundles, parse_method
from monai_sliceinterp.bundles.download import opened_bundle
from monai_sliceinterp.checks import chosen_device, positive
from monai_sliceinterp.formats.itk_images import itk_volume
from monai_sliceinterp.interpolation.choice import choose_method
from monai_sliceinterp.interpolation.configs import ADAPTABLE, adapted_method
from monai_sliceinterp.interpolation.pipeline import BundlePipeline
from monai_sliceinterp.interpolation.scan import scan_facts
from monai_sliceinterp.transforms import InterpolateLabeld, LoadVolume

__all__ = ["interpolate"]


def interpolate(
    image: Any,
    method: str = "auto",
    spacing: float | None = None,
    factor: int | None = None,
    axis: int | None = None,
    label: Any = None,
    adapt: bool | int = False,
    device: str | torch.device | None = None,
    slice_thickness: float | None = None,
) -> Any:
    """Interpolate the slices of a scan.

    Args:
        image: path of a file or a DICOM folder; a volume ``(X, Y, Z)`` or ``(C, X, Y, Z)`` with its affine in mm (RAS)
            as a MetaTensor; an image of nibabel or SimpleITK.
        method: "auto" takes what scored best on scans of the kind, see
            :func:`monai_sliceinterp.interpolation.choose_method`; else "linear", "cubic", "lanczos", "motion", or a
            bundle, with overlays or weights on request: "asi", "saint,small", "asi,ckpt=runs/model.pt". A bundle that
            is named and not here is downloaded.
        spacing: slice spacing of the result in mm; or
        factor: upsampling factor. With neither the result is isotropic.
        axis: slice axis 0, 1 or 2; None: what the image says, or the axis of the largest spacing.
        label: a segmentation on the image's grid, of the same forms, to bring onto the result's.
        adapt: fine-tune the network on the scan first, which takes about a minute, and keep that if it helps there on
            slices left out; a number: its steps. For the bundle "mixture", which "auto" then takes.
        device: where it is computed; None: a GPU if there is one.
        slice_thickness: thickness of the slices in mm; None: what the image says, which DICOM does.

    Returns:
        ``(C, X, Y, Z)`` in the units and the type of the image. Its metadata have the affine, ``observed_slices``
        (which slices are the image's own) and the other entries of :func:`monai_sliceinterp.geometry.write_grid`. With
        a label, this and the label ``(1, X, Y, Z)``.

    Raises:
        ValueError: with one line, if the image, the method or an option is unusable.

    Example:
        >>> import monai_sliceinterp
        >>> scan = MetaTensor(torch.rand(1, 16, 16, 3), affine=torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0])))
        >>> thin = monai_sliceinterp.interpolate(scan, method="cubic", spacing=2.0)
        >>> tuple(thin.shape), thin.pixdim.tolist(), thin.meta["observed_slices"].tolist()
        ((1, 16, 16, 5), [1.0, 1.0, 2.0], [True, False, True, False, True])
    """
    if factor is not None and spacing is not None:
        raise ValueError(f"give a factor or a spacing, not both (got factor {factor!r}, spacing {spacing!r} mm).")
    where = chosen_device(device)
    volume = as_volume(image)
    if slice_thickness is not None:
        known = {"slice_thickness": positive("slice_thickness", slice_thickness, "mm")}
        volume = MetaTensor(volume.as_tensor(), affine=volume.affine, meta={**volume.meta, **known})
    if method == "auto" and adapt:
        method = ADAPTABLE
    if method == "auto":
        facts = scan_facts(volume, axis)
        method = choose_method(facts, find_bundles(), where.type != "cpu", facts.ratio(factor, spacing)).method
    parts = adapted_method(parse_method(method)) if adapt else parse_method(method)
    given = {} if label is None or _in_memory(label) else {"label": str(label)}
    steps = {} if isinstance(adapt, bool) else {"adapt_steps": adapt}
    options = {"axis": axis, **given, **steps}
    with opened_bundle(parts.source) as bundle:
        pipeline = BundlePipeline(parts, bundle, where, options)
        data: dict[Any, Any] = {"image": volume}
        if label is not None and _in_memory(label):
            data["segmentation"] = _label_of(volume, as_volume(label))
        result = pipeline.restored(data, factor, spacing)
    if label is None:
        return result["pred"]
    result = InterpolateLabeld("segmentation")(result)
    return result["pred"], result["segmentation"]


def _in_memory(image: Any) -> bool:
    return not isinstance(image, str | Path)


def _label_of(volume: MetaTensor, label: MetaTensor) -> MetaTensor:
    """Check that a label in memory lies on the voxels of its volume."""
    if label.shape[1:] != volume.shape[1:] or len(label) != 1:
        raise ValueError(f"the label has shape {tuple(label.shape)}; expected {(1, *volume.shape[1:])} as the image.")
    return label


def as_volume(image: Any) -> MetaTensor:
    """Take an image of any form as a volume ``(C, X, Y, Z)`` with its affine and what is known of it.

    Args:
        image: see :func:`interpolate`.

    Raises:
        ValueError: if it is unreadable, or of another form.

    Example:
        >>> import nibabel as nib
        >>> as_volume(nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4))).shape
        torch.Size([1, 4, 5, 6])
    """
    if isinstance(image, str | Path):
        return LoadVolume(allow_nan=True)(image)
    if isinstance(image, MetaTensor):
        volume = image.clone()[None] if image.ndim == 3 else image.clone()
        volume.meta.setdefault("filename_or_obj", "the image")
    elif hasattr(image, "dataobj") and hasattr(image, "affine"):  # nibabel
        volume = _from_array(np.asanyarray(image.dataobj), {"affine": np.asarray(image.affine)})
    elif hasattr(image, "GetDirection"):  # SimpleITK
        volume = _from_array(*itk_volume(image))
    elif isinstance(image, Tensor | np.ndarray):
        raise ValueError("an array has no spacing; expected a MetaTensor with its affine, or a file.")
    else:
        raise ValueError(f"cannot take a {type(image).__name__} for an image; expected a path or a MetaTensor.")
    if volume.ndim != 4:
        raise ValueError(f"the image has shape {tuple(image.shape)}; expected (X, Y, Z) or (C, X, Y, Z).")
    if volume.is_floating_point() and volume.dtype != torch.float64:
        volume = volume.float()
    volume.meta.setdefault("stored_dtype", str(volume.dtype).removeprefix("torch."))
    return volume


def _from_array(array: np.ndarray, meta: dict[str, Any]) -> MetaTensor:
    """Make a volume of an array ``(X, Y, Z[, frames])`` and its metadata."""
    frames = np.moveaxis(array, 3, 0) if array.ndim == 4 else array[None]
    meta = {**meta, "original_channel_dim": 0, "filename_or_obj": "the image"}
    return MetaTensor.ensure_torch_and_prune_meta(np.array(frames), meta)
