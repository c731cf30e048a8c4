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

"""Cuts through volumes for the pictures of a report, and the files they are kept in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from monai_sliceinterp.files import atomic_path

__all__ = ["add_arrays", "holds_arrays", "panel_cuts", "panel_path", "read_panel", "slice_view", "volume_cuts"]

_KEY = "key"
"""Entry of a file that says from which weights and settings a method's cuts are."""


def slice_view(image: Tensor, affine: Tensor) -> tuple[NDArray[np.float32], float]:
    """Turn a slice as readers know it: rows from anterior or superior, columns from the patient's right or anterior.

    Args:
        image: ``(H, W)``, a slice of a volume whose slices are last.
        affine: the volume's affine (RAS, mm).

    Returns:
        The image, and the height of its pixels over their width.

    Example:
        >>> image, aspect = slice_view(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.diag(torch.tensor([1, 2, 5, 1.0])))
        >>> image.tolist(), aspect
        ([[4.0, 2.0], [3.0, 1.0]], 2.0)
    """
    world = [int(affine[:3, axis].abs().argmax()) for axis in (0, 1)]
    if world[0] <= world[1]:
        return _turned(image.T, affine, rows=1, columns=0)
    return _turned(image, affine, rows=0, columns=1)


def volume_cuts(volume: Tensor, affine: Tensor, factor: int) -> dict[str, tuple[NDArray[np.float32], float]]:
    """Cut a volume in three planes.

    Args:
        volume: ``(C, H, W, N)``, slices last; the first channel is shown.
        affine: its affine (RAS, mm).
        factor: upsampling factor by which it was or will be interpolated: the slice shown is one that is synthesized.

    Returns:
        Image and height of its pixels over their width, by plane: "axial", the synthesized slice nearest to the center,
        see :func:`slice_view`; "coronal" and "sagittal", central cuts along the first and the second axis in the plane.
        Their rows are the slices, from inferior or posterior on.

    Example:
        >>> cuts = volume_cuts(torch.rand(1, 8, 6, 5), torch.diag(torch.tensor([1.0, 1, 2, 1])), factor=2)
        >>> {plane: (image.shape, aspect) for plane, (image, aspect) in cuts.items()}
        {'axial': ((6, 8), 1.0), 'coronal': ((5, 8), 2.0), 'sagittal': ((5, 6), 2.0)}
    """
    image = volume[0]
    height, width, count = image.shape
    middle = min((k for k in range(count) if k % factor), key=lambda k: abs(2 * k - count + 1))
    return {
        "axial": slice_view(image[..., middle], affine),
        "coronal": _turned(image[:, width // 2].T, affine, rows=2, columns=0, upward=True),
        "sagittal": _turned(image[height // 2].T, affine, rows=2, columns=1, upward=True),
    }


def panel_cuts(pred: Tensor, thick: Tensor, truth: MetaTensor, factor: int) -> dict[str, NDArray[np.float32]]:
    """Cut a result, its truth and its input in three planes.

    Args:
        pred: ``(C, H, W, M)`` in [0, 1].
        thick: ``(C, H, W, N)``, from which it was interpolated; shown on the fine grid by the nearest slice.
        truth: ``(C, H, W, M)`` or longer, with its affine.
        factor: upsampling factor.

    Returns:
        Arrays under "<what>|<plane>", what being "truth", "input" or "pred", and under "aspect|<plane>" the height of a
        pixel over its width.

    Example:
        >>> truth = MetaTensor(torch.rand(1, 8, 6, 5), affine=torch.diag(torch.tensor([1.0, 1, 2, 1])))
        >>> cuts = panel_cuts(truth, truth[..., ::2], truth, factor=2)
        >>> cuts["input|coronal"].shape, float(cuts["aspect|coronal"])
        ((5, 8), 2.0)
    """
    count = pred.shape[-1]
    nearest = (2 * torch.arange(count) + factor - 1) // (2 * factor)  # of two as near the earlier one
    arrays: dict[str, NDArray[np.float32]] = {}
    for what, volume in (("truth", truth[..., :count]), ("input", thick[..., nearest]), ("pred", pred)):
        for plane, (image, aspect) in volume_cuts(volume, truth.affine, factor).items():
            arrays[f"{what}|{plane}"] = image
            arrays[f"aspect|{plane}"] = np.array(aspect, dtype=np.float32)
    return arrays


def panel_path(output_dir: str | Path, volume: str, title: str) -> Path:
    """Return the file with the cuts of a volume under a protocol.

    Example:
        >>> panel_path("out", "scan", "subsample x2").name
        'scan_subsample_x2.npz'
    """
    return Path(output_dir) / "panels" / f"{volume}_{title.replace(' ', '_')}.npz"


def holds_arrays(path: Path, method: str, key: str) -> bool:
    """Whether a file holds the arrays of a method, made with the weights and settings that ``key`` stands for."""
    if not path.is_file():
        return False
    with np.load(path) as arrays:
        return f"{_KEY}|{method}" in arrays and str(arrays[f"{_KEY}|{method}"]) == key


def add_arrays(path: Path, arrays: Mapping[str, NDArray[np.float32]], method: str, key: str) -> None:
    """Add the arrays of a method to a file, ``pred|...`` under its name; the older ones of other methods stay.

    What was made with another truth is dropped.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "panel.npz"
        >>> add_arrays(file, {"pred|axial": np.ones((2, 2), np.float32)}, "linear", "v1")
        >>> holds_arrays(file, "linear", "v1"), holds_arrays(file, "linear", "v2"), list(read_panel(file, ["linear"]))
        (True, False, ['linear|axial'])
    """
    kept: dict[str, NDArray] = {}
    if path.is_file():
        with np.load(path) as old:
            shared = [name for name in arrays if name.startswith(("truth|", "aspect|"))]
            if all(name in old and np.array_equal(old[name], arrays[name]) for name in shared):
                kept = {name: old[name] for name in old if name.split("|")[0] != method}
    for name, array in arrays.items():
        kept[name.replace("pred|", f"{method}|", 1) if name.startswith("pred|") else name] = array
    kept[f"{_KEY}|{method}"] = np.array(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **kept)  # type: ignore[arg-type]


def read_panel(path: Path, methods: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Read what a file holds of some methods, in their order, and of what is shown beside them."""
    with np.load(path) as arrays:
        names = [name for name in arrays if not name.startswith(f"{_KEY}|")]
        ordered = [
            name for what in ("aspect", "input", *methods, "truth") for name in names if name.split("|")[0] == what
        ]
        return {name: arrays[name] for name in ordered}


def _turned(
    image: Tensor, affine: Tensor, rows: int, columns: int, upward: bool = False
) -> tuple[NDArray[np.float32], float]:
    """Flip an image so that its axes run to the left, posterior or inferior, its rows on request the other way."""
    flipped = []
    for dimension, axis in enumerate((rows, columns)):
        direction = affine[:3, axis]
        if (direction[direction.abs().argmax()] > 0) != (upward and dimension == 0):
            flipped.append(dimension)
    spacing = affine[:3, :3].norm(dim=0)
    return image.flip(flipped).float().numpy(), float(spacing[rows] / spacing[columns])
