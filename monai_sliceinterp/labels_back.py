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

"""Bring a segmentation that was made on the interpolated volume back onto the slices of the scan.

As a command: ``python -m monai_sliceinterp.labels_back --label thin.nii.gz --like scan.nii.gz --output label.nii.gz``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from monai_sliceinterp.arguments import OneLineParser
from monai_sliceinterp.checks import positive
from monai_sliceinterp.command_line import INPUT_ERRORS, report
from monai_sliceinterp.files import check_free
from monai_sliceinterp.geometry import SLICE_POSITION_KEYS, slice_geometry, slice_indices, stack_axis
from monai_sliceinterp.transforms import LoadVolume, reorient_like
from monai_sliceinterp.transforms.labels import whole_numbers
from monai_sliceinterp.transforms.saving import save_like

__all__ = ["label_on_slices", "main", "make_parser", "write_label_back"]

_SUFFIXES = (".nii", ".nii.gz", ".mha", ".nrrd")
_NEAR = 1e-3  # of a thin slice; headers are rounded


def label_on_slices(
    label: MetaTensor, like: MetaTensor, slice_thickness: float | Literal["auto"] | None = None
) -> MetaTensor:
    """Bring a label of an interpolated volume onto the slices of the scan it was interpolated from.

    Every slice gets the label of the thin slice whose center is nearest in mm: that of the slice itself where it was
    observed. Where the thickness of the slices is given, a voxel gets the label that takes most of its slab instead;
    of labels that take as much, that of the nearest slice, if it is one of them.

    Args:
        label: ``(1, X, Y, Z)`` whole numbers, on the grid of the interpolated volume; its axes may run another way.
        like: ``(C, X, Y, Z)`` the scan, as it was loaded.
        slice_thickness: thickness of the scan's slices in mm; "auto": as its metadata tell; None: nearest slices.

    Returns:
        ``(1, X, Y, Z)`` on the grid of the scan, in the label's type and with its other metadata.

    Raises:
        ValueError: if the two do not lie in the same planes, the label does not reach as far as the scan, or no
            thickness is known.

    Example:
        >>> scan = MetaTensor(torch.zeros(1, 4, 4, 3), affine=torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0])))
        >>> affine = torch.diag(torch.tensor([1.0, 1.0, 2.0, 1.0]))
        >>> thin = MetaTensor(torch.tensor([1, 2, 1, 2, 3]).expand(1, 4, 4, 5), affine=affine)
        >>> label_on_slices(thin, scan)[0, 0, 0].tolist()
        [1, 1, 3]
        >>> label_on_slices(thin, scan, slice_thickness=6.0)[0, 0, 0].tolist()
        [1, 2, 3]
    """
    if label.shape[0] != 1:
        raise ValueError(f"has {label.shape[0]} frames; expected a label of one.")
    turned = reorient_like(label, like)
    axis = stack_axis(like, turned)
    indices = slice_indices(like, turned, axis)
    stack = turned.as_tensor()[0].movedim(axis, -1).numpy()
    nearest = np.clip(np.ceil(indices - 0.5 - _NEAR), 0, stack.shape[-1] - 1).astype(int)  # of two the earlier
    spacing = slice_geometry(turned.affine, axis=axis).slice_spacing
    beyond = np.abs(indices - nearest)
    if beyond.max() > 1 - _NEAR:  # interpolation ends at most one thin slice before the scan does
        worst = int(beyond.argmax())
        raise ValueError(
            f"slice {worst + 1} of the scan lies {beyond[worst] * spacing:.3g} mm from its nearest slice; expected a "
            "label of the whole interpolated volume."
        )
    thickness = slice_geometry(like, axis=axis).thickness if slice_thickness == "auto" else slice_thickness
    if slice_thickness == "auto" and thickness is None:
        raise ValueError("the scan tells no slice thickness; expected it in mm, or none for the nearest slices.")
    if thickness is None:
        chosen = stack[..., nearest]
    else:
        half = positive("the slice thickness", thickness, "mm") / spacing / 2
        chosen = np.stack([_majority(stack, *pair, half) for pair in zip(indices, nearest, strict=True)], axis=-1)
    result = MetaTensor(torch.from_numpy(chosen).movedim(-1, axis)[None].contiguous()).copy_meta_from(turned)
    result.affine = torch.as_tensor(like.affine).clone()
    result.applied_operations = []
    for key in SLICE_POSITION_KEYS:
        if key in like.meta:
            result.meta[key] = like.meta[key]
    return result


def _majority(stack: NDArray[np.integer], index: float, nearest: int, half: float) -> NDArray[np.integer]:
    """Find the label that takes most of a slab, from ``index - half`` to ``index + half`` in thin slices."""
    places = np.arange(stack.shape[-1])
    overlap = np.minimum(places + 0.5, index + half) - np.maximum(places - 0.5, index - half)
    weights = np.where(overlap > _NEAR, overlap, 0.0)
    weights[nearest] += _NEAR  # decides between labels that take as much
    inside = np.flatnonzero(weights)
    values = np.unique(stack[..., inside])
    best, most = stack[..., nearest].copy(), np.full(stack.shape[:-1], -1.0)
    for value in values:
        votes = sum(weights[k] * (stack[..., k] == value) for k in inside)
        better = votes > most
        best[better], most[better] = value, votes[better]
    return best


def write_label_back(
    label_path: str | Path,
    like_path: str | Path,
    output_path: str | Path,
    slice_thickness: float | Literal["auto"] | None = None,
    *,
    load: Callable[[str | Path], MetaTensor] | None = None,
    overwrite: bool = False,
) -> Path:
    """Bring the file of a label of the interpolated volume onto the slices of the scan, see :func:`label_on_slices`.

    Args:
        label_path: NIfTI, MetaImage or NRRD file.
        like_path: the scan: image file or DICOM folder.
        output_path: file to write: .nii, .nii.gz, .mha or .nrrd; its folder must exist.
        slice_thickness: thickness of the scan's slices in mm; "auto": as the scan tells, which DICOM does; None: each
            slice gets the label of the nearest thin one.
        load: how the scan is loaded, where that takes options; None: by
            :class:`monai_sliceinterp.transforms.LoadVolume`.
        overwrite: replace a file that exists.

    Returns:
        The file.

    Raises:
        ValueError: with one line that names the file, if one cannot be read or written, or they do not fit together.

    Example:
        >>> write_label_back("missing_seg.nii.gz", "missing.nii.gz", "back.nii.gz")
        Traceback (most recent call last):
        ...
        ValueError: missing.nii.gz: no such file or folder.
    """
    path = Path(output_path)
    if not path.name.lower().endswith(_SUFFIXES):
        raise ValueError(f"{path}: cannot be written as that; expected a name that ends with {', '.join(_SUFFIXES)}.")
    check_free(path, overwrite)
    like = (load or LoadVolume(allow_nan=True))(like_path)
    label = whole_numbers(LoadVolume()(label_path), Path(label_path))
    if SLICE_POSITION_KEYS[0] in like.meta:
        raise ValueError(
            f"{like_path}: its slices are unevenly spaced, which {path.suffix} cannot hold; expected even ones (in "
            "Python, label_on_slices returns them)."
        )
    try:
        result = label_on_slices(label, like, slice_thickness)
    except ValueError as error:
        raise ValueError(f"{label_path}: {error}") from error
    result.meta["original_ndim"] = 3
    save_like(result, path)
    return path


def make_parser(prog: str = "python -m monai_sliceinterp.labels_back") -> OneLineParser:
    """Make the parser of the command's options.

    Example:
        >>> make_parser().parse_args("--label s.nii.gz --like scan.nii.gz --output back.nii.gz".split()).slice_thickness
    """
    parser = OneLineParser(
        prog=prog,
        description="Bring a segmentation that was made on the interpolated volume back onto the slices of the scan.",
    )
    parser.add_argument("--label", required=True, metavar="FILE", help="segmentation of the interpolated volume")
    parser.add_argument("--like", required=True, metavar="PATH", help="the scan: image file or DICOM folder")
    parser.add_argument("--output", required=True, metavar="FILE", help=f"file to write ({', '.join(_SUFFIXES)})")
    parser.add_argument(
        "--slice_thickness",
        type=_thickness,
        metavar="MM",
        help="take what most of a slab of this thickness is labeled; auto: as the scan tells (default: nearest slice)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    return parser


def _thickness(text: str) -> float | Literal["auto"]:
    return "auto" if text == "auto" else float(text)


def main(argv: Sequence[str] | None = None, prog: str = "python -m monai_sliceinterp.labels_back") -> int:
    """Run the command.

    Args:
        argv: the options; those of the command line where None.
        prog: name of the command in messages.

    Returns:
        The exit status: 0, or 1 if something failed, 2 if an option is wrong.

    Example:
        >>> main("--label seg.nii.gz --like missing.nii.gz --output back.nii.gz".split())
        1
    """
    options = make_parser(prog).parse_args(argv)
    how = {"slice_thickness": options.slice_thickness, "overwrite": options.overwrite}
    try:
        print(write_label_back(options.label, options.like, options.output, **how))
    except INPUT_ERRORS as error:
        report(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
