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

"""Cuts through volumes for the pictures of a report, and the files that keep them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_sliceinterp.files import atomic_path
from monai_sliceinterp.geometry import plane_names
from monai_sliceinterp.preview.planes import View, plane_view

__all__ = [
    "add_views",
    "holds_views",
    "panel_cuts",
    "panel_path",
    "read_views",
    "slice_view",
    "volume_cuts",
]

_FORMAT = 2  # counts up whenever files of older versions must not be used any more


def slice_view(image: Tensor, affine: Tensor) -> View:
    """Turn a slice ``(H, W)`` of a volume with slices last and this affine (RAS, mm) as readers know it."""
    return plane_view(image[..., None], affine, axis=2, index=0)


def volume_cuts(volume: Tensor, affine: Tensor, factor: int) -> dict[str, View]:
    """Cut a volume in three planes.

    Args:
        volume: ``(C, H, W, N)``, slices last; the first channel is shown.
        affine: its affine (RAS, mm).
        factor: upsampling factor by which it was or will be interpolated: the slice shown is one that is synthesized.

    Returns:
        Views by the anatomical name of their plane, see :func:`monai_sliceinterp.geometry.plane_names`: the synthesized
        slice nearest to the center first, then central cuts across the second and the first axis.
    """
    height, width, count = volume.shape[1:]
    middle = min((k for k in range(count) if k % factor), key=lambda k: abs(2 * k - count + 1))
    names, places = plane_names(affine), (height // 2, width // 2, middle)
    return {names[axis]: plane_view(volume[0], affine, axis, places[axis]) for axis in (2, 1, 0)}


def panel_cuts(pred: Tensor, thick: Tensor, truth: MetaTensor, factor: int) -> dict[str, dict[str, View]]:
    """Cut a result, its truth and its input in three planes.

    Args:
        pred: ``(C, H, W, M)`` in [0, 1].
        thick: ``(C, H, W, N)``, from which it was interpolated; shown on the fine grid by the nearest slice.
        truth: ``(C, H, W, M)`` or longer, with its affine.
        factor: upsampling factor.
    """
    count = pred.shape[-1]
    nearest = (2 * torch.arange(count) + factor - 1) // (2 * factor)  # of two as near the earlier one
    volumes = {"truth": truth[..., :count], "input": thick[..., nearest], "pred": pred}
    return {name: volume_cuts(volume, truth.affine, factor) for name, volume in volumes.items()}


def panel_path(output_dir: str | Path, volume: str, title: str) -> Path:
    """Return the file with the cuts of a volume under a protocol."""
    return Path(output_dir) / "panels" / f"{volume}_{title.replace(' ', '_')}.npz"


def holds_views(path: Path, method: str, key: Any) -> bool:
    """Check whether a file holds the views of a method, made with the weights and settings that ``key`` stands for."""
    return key is not None and _index(path)["keys"].get(method) == key


def add_views(path: Path, views: Mapping[str, Mapping[str, View]], method: str, key: Any) -> None:
    """Add the views of a method to a file; the older ones of other methods stay, unless their truth was another.

    Args:
        path: the file; its folder is made where it is missing.
        views: by plane or the like, of "pred", which goes under the method's name, and of what is shown beside methods.
        method: name of the method.
        key: from which weights and settings they are, as JSON can hold it.
    """
    others, keys = _read(path), _index(path)["keys"]
    if not _same(others.get("truth", {}), views.get("truth", {})):
        others, keys = {}, {}
    content = others | {method if name == "pred" else name: dict(part) for name, part in views.items()}
    listed = [(name, plane, view) for name, part in content.items() for plane, view in part.items()]
    index = {
        "format": _FORMAT,
        "keys": {**keys, method: key},
        "views": [[name, plane, float(view.aspect)] for name, plane, view in listed],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part, part.open("wb") as file:
        images = {str(k): view.image for k, (_, _, view) in enumerate(listed)}
        np.savez_compressed(file, index=np.array(json.dumps(index)), **images)  # type: ignore[arg-type]


def read_views(path: Path, methods: Iterable[str]) -> dict[str, dict[str, View]]:
    """Read the views of some methods that a file holds, in their order, between those of the input and the truth."""
    views = _read(path)
    return {name: views[name] for name in ("input", *methods, "truth") if name in views}


def _index(path: Path) -> dict[str, Any]:
    """Read which images a file holds, in order, and the keys of its methods."""
    if path.is_file():
        with np.load(path) as arrays:
            index = json.loads(str(arrays["index"])) if "index" in arrays else {}
            if index.get("format") == _FORMAT:  # else it was written by an older version
                return index
    return {"keys": {}, "views": []}


def _read(path: Path) -> dict[str, dict[str, View]]:
    """Read all views of a file, by what they show and plane."""
    views: dict[str, dict[str, View]] = {}
    listed = _index(path)["views"]
    if listed:
        with np.load(path) as arrays:
            for k, (name, plane, aspect) in enumerate(listed):
                views.setdefault(name, {})[plane] = View(arrays[str(k)], aspect)
    return views


def _same(first: Mapping[str, View], second: Mapping[str, View]) -> bool:
    """Check whether two truths are shown by the same views."""
    return set(first) == set(second) and all(
        first[plane].aspect == second[plane].aspect and np.array_equal(first[plane].image, second[plane].image)
        for plane in first
    )
