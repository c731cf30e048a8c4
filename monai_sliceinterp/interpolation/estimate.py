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

"""How long a scan will take: a small part of the work is done and timed."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor
from monai.networks.utils import eval_mode

from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.inferers.base import SliceInterpolationInferer
from monai_sliceinterp.interpolation.scan import ScanFacts

__all__ = ["duration", "estimate_seconds"]

_PIXELS = 64  # height and width of the part
_SLICES = 3
_WORTH = 30  # parts below which the work itself takes hardly longer than the estimate


def estimate_seconds(
    inferer: SliceInterpolationInferer,
    network: Callable[..., Any] | None,
    scan: ScanFacts,
    device: torch.device | str = "cpu",
) -> float | None:
    """Estimate the time that an inferer takes for a scan.

    Args:
        inferer: the inferer.
        network: its network; its weights do not matter.
        scan: the scan.
        device: where it is computed.

    Returns:
        Seconds without reading and writing; None where the scan is small.

    Example:
        >>> from monai_sliceinterp.geometry import SliceGeometry
        >>> from monai_sliceinterp.inferers import SplineSliceInferer
        >>> scan = ScanFacts("CT", "", (512, 512, 90), 1, SliceGeometry(2, (0.7, 0.7), 5.0), "")
        >>> estimate_seconds(SplineSliceInferer(factor=4), None, scan) > 0
        True
    """
    trial: Any = copy.copy(inferer)
    trial.progress = False
    in_plane = [length for axis, length in enumerate(scan.shape) if axis != scan.geometry.axis]
    height, width = (min(length, _PIXELS) for length in in_plane)
    affine = torch.diag(torch.tensor([*scan.geometry.in_plane_spacing, scan.geometry.slice_spacing, 1.0]).double())
    part = MetaTensor(torch.rand(1, 1, height, width, min(_SLICES, scan.num_slices)), affine=affine).to(device)
    grid = scan.grid(inferer.factor, inferer.spacing, inferer.default_spacing)
    work = in_plane[0] * in_plane[1] * _computed(grid, inferer) * scan.frames
    share = height * width * _computed(trial.output_grid(part), inferer)
    if not share or work < _WORTH * share:
        return None
    modules = [network] if isinstance(network, torch.nn.Module) else []
    seconds = 0.0
    with torch.no_grad(), eval_mode(*modules):
        for _ in range(2):  # the first time, libraries are set up
            begin = time.perf_counter()
            trial(part, network).cpu()
            seconds = time.perf_counter() - begin
    return seconds * work / share


def _computed(grid: OutputGrid, inferer: SliceInterpolationInferer) -> int:
    """Count the slices that are not copied."""
    return int((~grid.is_observed).sum()) if inferer.keep_observed else len(grid)


def duration(seconds: float) -> str:
    """Write a time in words.

    Example:
        >>> duration(3.2), duration(50), duration(400), duration(9000)
        ('some seconds', 'about 50 s', 'about 7 min', 'about 2.5 h')
    """
    if seconds < 10:
        return "some seconds"
    if seconds < 100:
        return f"about {10 * round(seconds / 10)} s"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
