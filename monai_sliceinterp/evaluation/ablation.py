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

"""Take SAINT apart: what each view, their mean, the fusion and the spacing contribute to the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_sliceinterp.geometry import OutputGrid, SliceGeometry, scaled_affine
from monai_sliceinterp.inferers import MultiViewSliceInferer, SliceInterpolationInferer
from monai_sliceinterp.networks.nets import SAINT

__all__ = ["ViewAblation"]


class _ViewKeeper(MultiViewSliceInferer):
    """Keeps what the views have synthesized."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.kept: list[Tensor] = []

    def look_at(self, indices: Tensor, views: Tensor) -> None:
        super().look_at(indices, views)
        self.kept.append(views)


class _Replay(SliceInterpolationInferer):
    """Gives slices that are known already the treatment of every other result."""

    def __init__(self, result: Tensor, **settings: Any) -> None:
        super().__init__(**settings)
        self.result = result

    def synthesize(
        self,
        slices: Tensor,
        grid: OutputGrid,
        geometry: SliceGeometry | None,
        wanted: Tensor,
        network: Callable[..., Any] | None,
        write: Callable[[Tensor, Tensor], None],
    ) -> None:
        write(wanted, self.result)


class ViewAblation:
    """Interpolate a volume by SAINT and by its parts, for :class:`monai_sliceinterp.evaluation.MethodComparison`.

    Args:
        factor: upsampling factor.
        method: name of the whole method in the results.
        misstated: also interpolate with the slice spacing told wrong by this factor, to see that spacing matters;
            None leaves it out.
        value_range: see :class:`monai_sliceinterp.inferers.SliceInterpolationInferer`.
        batch_size: see :class:`monai_sliceinterp.inferers.MultiViewSliceInferer`.

    Raises:
        ValueError: if the volume has several samples or channels.

    Example:
        >>> size = {"channels": 8, "num_blocks": 1, "num_layers": 2, "growth": 4}
        >>> network = SAINT(ami=size, rfn=size).eval()
        >>> list(ViewAblation(factor=2)(MetaTensor(torch.rand(1, 1, 12, 12, 3)), network))
        ['AMI rows', 'AMI columns', 'mean of views', 'spacing x0.25', 'saint']
    """

    def __init__(
        self,
        factor: int,
        method: str = "saint",
        misstated: float | None = 0.25,
        value_range: tuple[float, float] | None = None,
        batch_size: int = 0,
    ) -> None:
        self.method, self.misstated, self.batch_size = method, misstated, batch_size
        self.settings: dict[str, Any] = {"factor": factor, "value_range": value_range}

    @torch.no_grad()
    def __call__(self, volume: MetaTensor, network: SAINT) -> dict[str, Tensor]:
        """Interpolate ``volume`` ``(1, 1, H, W, N)``; results by name."""
        if volume.shape[:2] != (1, 1):
            raise ValueError(f"expected one volume of one channel (1, 1, H, W, N), got {tuple(volume.shape)}.")
        whole = _ViewKeeper(batch_size=self.batch_size, **self.settings)
        result = whole(volume, network)
        views = torch.cat(whole.kept, dim=1)
        parts = {f"AMI {direction}": view for direction, view in zip(network.directions, views, strict=True)}
        parts["mean of views"] = views.mean(dim=0)
        results = {name: _Replay(part, **self.settings)(volume) for name, part in parts.items()}
        if self.misstated is not None:
            told = volume.clone()
            told.affine = torch.as_tensor(scaled_affine(volume.affine, 2, self.misstated))
            inferer = MultiViewSliceInferer(batch_size=self.batch_size, **self.settings)
            results[f"spacing x{self.misstated:g}"] = inferer(told, network)
        return {**results, self.method: result}
