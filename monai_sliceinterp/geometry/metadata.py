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

"""The grid of an interpolated volume as its metadata carries it, from the inferer to whatever comes after it."""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_sliceinterp.geometry.grid import OutputGrid

__all__ = ["ADAPTATION", "DISAGREEMENT", "GRID_KEYS", "GridMetadata", "read_adaptation", "read_grid", "write_grid"]

GRID_KEYS = (
    "source_positions",
    "observed_slices",
    "num_source_slices",
    "source_step",
    "source_spacing",
    "source_slice_positions",
    "source_axis",
    "requested_factor",
    "requested_spacing",
)
"""Entries of the metadata of an interpolated volume, see :func:`write_grid`."""

DISAGREEMENT = "disagreement"
"""Entry with the disagreement of the views, ``(B, C, H, W, M)``, of a volume interpolated view by view on request."""


ADAPTATION = "adaptation"
"""Entry with what came of adapting the network to the volume, as the text of a JSON object: MONAI's batches keep it."""


def read_adaptation(meta: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read what came of adapting the network to a volume; None where it was not.

    Example:
        >>> read_adaptation({ADAPTATION: '{"steps": 100, "used": true}'}), read_adaptation({})
        ({'steps': 100, 'used': True}, None)
    """
    entry = meta.get(ADAPTATION)
    return None if entry is None else dict(json.loads(entry))


@dataclass(frozen=True)
class GridMetadata:
    """Output grid of an interpolated volume, and how it came about.

    Attributes:
        grid: the output grid.
        keep_observed: whether the observed slices are copies of the input's.
        source_spacing: slice spacing of the input in mm, the nominal one of unevenly spaced slices.
        axis: spatial axis along which the slices are stacked.
        factor: upsampling factor that was asked for.
        spacing: slice spacing in mm that was asked for. With neither it was the method's choice.
    """

    grid: OutputGrid
    keep_observed: bool
    source_spacing: float
    axis: int = 2
    factor: int | None = None
    spacing: float | None = None

    @property
    def observed(self) -> Tensor:
        """Which output slices are copies of input slices, ``(M,)`` bool."""
        observed = self.grid.is_observed
        return observed if self.keep_observed else torch.zeros_like(observed)


def write_grid(meta: MutableMapping[str, Any], record: GridMetadata, batch_size: int | None = None) -> None:
    """Write a grid into metadata, as numbers and tensors that MONAI can collate and decollate.

    The entries are ``source_positions`` (float64, position of every output slice in index units of the input slices),
    ``observed_slices`` (bool, which output slices are copies of input slices), ``num_source_slices``, ``source_step``
    (distance of the output slices in gaps), ``source_spacing`` (slice spacing of the input in mm), ``source_axis``
    (spatial axis along which the slices are stacked), ``source_slice_positions`` (float64, only where the input slices
    are unevenly spaced), and ``requested_factor`` or ``requested_spacing``, whichever was given. Entries that are
    there already are replaced.

    Args:
        meta: metadata of the interpolated volume.
        record: the grid and where it comes from.
        batch_size: number B of volumes of a batch, for each of which the tensors ``(B, M)`` get a row; None: one
            volume, and tensors ``(M,)``.

    Example:
        >>> meta = {}
        >>> write_grid(meta, GridMetadata(OutputGrid.from_factor(2, 2), keep_observed=True, source_spacing=5.0))
        >>> meta["source_positions"].tolist(), meta["observed_slices"].tolist()
        ([0.0, 0.5, 1.0], [True, False, True])
    """
    grid = record.grid
    entries: dict[str, Any] = {
        "source_positions": torch.tensor(grid.positions, dtype=torch.float64),
        "observed_slices": record.observed,
        "num_source_slices": grid.num_slices,
        "source_step": grid.step,
        "source_spacing": record.source_spacing,
        "source_axis": record.axis,
        "requested_factor": record.factor,
        "requested_spacing": record.spacing,
    }
    if grid.slice_positions is not None:
        entries["source_slice_positions"] = torch.tensor(grid.slice_positions, dtype=torch.float64)
    for key in GRID_KEYS:
        meta.pop(key, None)
    for key, value in entries.items():
        if isinstance(value, Tensor) and batch_size is not None:
            value = value.repeat(batch_size, 1)
        if value is not None:
            meta[key] = value


def read_grid(meta: Mapping[str, Any]) -> GridMetadata:
    """Read the grid that :func:`write_grid` has written, also after it has gone through a batch.

    Args:
        meta: metadata of an interpolated volume, or of a batch of volumes with one grid.

    Raises:
        ValueError: if an entry is missing, or differs within a batch.

    Example:
        >>> meta = {}
        >>> write_grid(meta, GridMetadata(OutputGrid.from_spacing(3, 5.0, 2.0), False, source_spacing=5.0, spacing=2.0))
        >>> record = read_grid(meta)
        >>> record.grid.positions, record.spacing, record.observed.any().item()
        ((0.0, 0.4, 0.8, 1.2, 1.6, 2.0), 2.0, False)
    """
    uneven = "source_slice_positions" in meta
    grid = OutputGrid(
        num_slices=int(_scalar(meta, "num_source_slices")),
        step=float(_scalar(meta, "source_step")),
        positions=_row(meta, "source_positions"),
        slice_positions=_row(meta, "source_slice_positions") if uneven else None,
    )
    return GridMetadata(
        grid=grid,
        keep_observed=any(_row(meta, "observed_slices")),
        source_spacing=float(_scalar(meta, "source_spacing")),
        axis=int(_scalar(meta, "source_axis")),
        factor=_scalar(meta, "requested_factor") if "requested_factor" in meta else None,
        spacing=_scalar(meta, "requested_spacing") if "requested_spacing" in meta else None,
    )


def _row(meta: Mapping[str, Any], key: str) -> tuple[Any, ...]:
    """Read an entry ``(M,)``, or ``(B, M)`` with equal rows."""
    values = np.asarray(_entry(meta, key))
    rows = values.reshape(-1, values.shape[-1])
    if not (rows == rows[0]).all():
        raise ValueError(f"the volumes of a batch differ in {key}; expected one volume at a time.")
    return tuple(rows[0].tolist())


def _scalar(meta: Mapping[str, Any], key: str) -> Any:
    """Read a number, or one for every volume of a batch."""
    values = np.unique(np.ravel(_entry(meta, key)))
    if len(values) != 1:
        raise ValueError(f"the volumes of a batch differ in {key}; expected one volume at a time.")
    return values[0].item()


def _entry(meta: Mapping[str, Any], key: str) -> Any:
    if key not in meta:
        name = meta.get("filename_or_obj", "the volume")
        raise ValueError(f"{name}: has no {key!r} in its metadata; expected a volume as an inferer makes it.")
    return meta[key]
