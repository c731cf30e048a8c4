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

"""Resample sheared volumes, as those of a tilted gantry, onto grids with right angles."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple_rep
from numpy.typing import NDArray
from scipy import ndimage

from monai_sliceinterp.checks import one_of
from monai_sliceinterp.geometry import UprightGrid, read_grid, slice_geometry
from monai_sliceinterp.memory import free_memory
from monai_sliceinterp.transforms.restoring import cast_to

__all__ = ["DESHEARED", "DeshearD", "DeshearDict", "Desheard", "deshear"]

DESHEARED = "desheared"
"""Entry of the metadata of a volume that has been resampled onto an upright grid: true."""

_AT_EDGE = 1e-3
"""Places this close to a pixel, in pixels, are on it: affines are rounded."""

_ORDERS = {"cubic": 3, "linear": 1, "nearest": 0}


def deshear(image: MetaTensor, axis: int | None = None, mode: str = "cubic") -> MetaTensor:
    """Resample a sheared volume in the planes of its slices, onto the grid with right angles that holds all of it.

    Slices stay where they are; in their planes they are shifted back by what the tilt has shifted them. The first one
    stays as it is where only slices are shifted. Voxels outside of the input get its smallest value.

    Args:
        image: ``(C, X, Y, Z)`` with its affine in mm (RAS), any type; NaN stays NaN, as do voxels interpolated with it.
        axis: array axis along which the slices are stacked: 0, 1 or 2; None: as
            :func:`monai_sliceinterp.geometry.slice_geometry` finds it.
        mode: "cubic": cubic B-spline, limited to the range of the slice; "linear"; "nearest", for labels, with 0
            outside.

    Returns:
        The volume in its type on a :class:`monai_sliceinterp.geometry.UprightGrid`, with ``desheared`` in its metadata;
        the input itself where it is not sheared.

    Raises:
        ValueError: if the mode is unknown, or the upright volume does not fit into memory.

    Example:
        >>> tilted = torch.tensor([[1.0, 0, 0, 0], [0, 1, 2, 0], [0, 0, 5, 0], [0, 0, 0, 1]])
        >>> volume = deshear(MetaTensor(torch.rand(1, 8, 8, 4), affine=tilted))
        >>> tuple(volume.shape), volume.affine[1].tolist()
        ((1, 8, 14, 4), [0.0, 1.0, 0.0, 0.0])
    """
    one_of("mode of resampling", mode, _ORDERS)
    axis = slice_geometry(image).axis if axis is None else axis
    grid = UprightGrid.create(image.affine, axis, image.shape[1:])
    if grid is None:
        return image
    shape, plain = (len(image), *grid.shape), image.as_tensor().cpu()
    size = int(np.prod(shape, dtype=float)) * plain.element_size()
    if size > free_memory():
        raise ValueError(
            f"an upright grid of {' x '.join(map(str, shape[1:]))} voxels takes {size / 2**30:.3g} GiB; "
            f"{free_memory() / 2**30:.3g} GiB are free."
        )
    outside = 0 if mode == "nearest" else np.nanmin(plain.numpy())
    output = torch.empty(shape, dtype=plain.dtype)
    in_plane = [k for k in range(3) if k != axis]
    pixels = np.stack(np.meshgrid(*(np.arange(grid.shape[k]) for k in in_plane), indexing="ij"))
    turned = np.einsum("ij,jxy->ixy", grid.to_source[np.ix_(in_plane, in_plane)], pixels)
    for index in range(grid.shape[axis]):
        places = turned + (grid.to_source[in_plane, axis] * index + grid.to_source[in_plane, 3])[:, None, None]
        for channel, result in zip(plain, output, strict=True):
            values = torch.from_numpy(_sampled(channel.select(axis, index).numpy(), places, mode, outside))
            result.select(axis, index).copy_(cast_to(values, plain.dtype))
    volume = MetaTensor(output).copy_meta_from(image)
    volume.affine = torch.as_tensor(grid.affine)
    volume.meta[DESHEARED] = True
    return volume


def _sampled(plane: NDArray[Any], places: NDArray[np.float64], mode: str, outside: float) -> NDArray[np.float64]:
    """Sample a slice, which may have NaN, at places ``(2, ...)`` in pixels."""
    missing = np.isnan(plane) if plane.dtype.kind == "f" else np.zeros(0, dtype=bool)
    values = np.where(missing, outside, plane) if missing.any() else plane
    result = ndimage.map_coordinates(values.astype(np.float64), places, order=_ORDERS[mode], mode="nearest")
    result = result.clip(values.min(), values.max())
    if missing.any():
        beside = ndimage.map_coordinates(
            missing.astype(np.float64), places, order=min(_ORDERS[mode], 1), mode="nearest"
        )
        result[beside > _AT_EDGE] = np.nan
    last = np.subtract(plane.shape, 1)[:, None, None]
    result[((places < -_AT_EDGE) | (places > last + _AT_EDGE)).any(axis=0)] = outside
    return result


class Desheard(MapTransform):
    """Dictionary version of :func:`deshear`, for volumes from :class:`monai_sliceinterp.transforms.RestoreVolumed`.

    Args:
        keys: volumes ``(C, X, Y, Z)`` on one grid.
        ref_key: the one whose metadata tells the axis of the slices.
        mode: "cubic", "linear" or "nearest", one for all keys or one for each.
        allow_missing_keys: do not raise for keys that are not there.

    Raises:
        ValueError: see :func:`deshear`, and if the metadata has no grid.

    Example:
        >>> from monai_sliceinterp.inferers import SplineSliceInferer
        >>> tilted = torch.tensor([[1.0, 0, 0, 0], [0, 1, 2, 0], [0, 0, 5, 0], [0, 0, 0, 1]])
        >>> thin = SplineSliceInferer(factor=2)(MetaTensor(torch.rand(1, 1, 8, 8, 4), affine=tilted[None]))[0]
        >>> tuple(Desheard("pred", "pred")({"pred": thin})["pred"].shape)
        (1, 8, 14, 7)
    """

    def __init__(
        self,
        keys: KeysCollection,
        ref_key: Hashable,
        mode: str | Sequence[str] = "cubic",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.ref_key = ref_key
        self.mode = ensure_tuple_rep(mode, len(self.keys))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample every key."""
        result = dict(data)
        axis = read_grid(result[self.ref_key].meta).axis
        for key, mode in self.key_iterator(result, self.mode):
            result[key] = deshear(result[key], axis, mode)
        return result


DeshearD = DeshearDict = Desheard
