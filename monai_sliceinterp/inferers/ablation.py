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

"""Ablation of SAINT: what each view, their mean, the fusion and the spacing contribute to the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_sliceinterp.geometry import scaled_affine
from monai_sliceinterp.inferers.base import SliceInterpolationInferer, SliceStack
from monai_sliceinterp.inferers.multi_view import MultiViewSliceInferer
from monai_sliceinterp.networks.nets import SAINT, AnisotropicMetaInterpolation

__all__ = ["ViewAblation"]


class _ViewRecorder(MultiViewSliceInferer):
    """Inferer that also records the views, as voxelwise maps."""

    static_tolerance = 0.0  # views are recorded as wide as the slices

    def __init__(self, maps: tuple[str, ...], **settings: Any) -> None:
        super().__init__(**settings)
        self.maps = maps

    def interpolate_views(self, stack: SliceStack, saint: SAINT) -> Iterator[tuple[Tensor, Tensor]]:
        for indices, views in super().interpolate_views(stack, saint):
            for name, view in zip(self.maps, views, strict=True):
                stack.maps[name][indices.to(view.device)] = view
            yield indices, views


class _Replay(SliceInterpolationInferer):
    """Inferer that gives slices that are known already the treatment of every other result."""

    def __init__(self, result: Tensor, **settings: Any) -> None:
        super().__init__(**settings)
        self.result = result

    def synthesize(self, stack: SliceStack, network: Callable[..., Any] | None) -> Iterator[tuple[Tensor, Tensor]]:
        yield stack.wanted, self.result[stack.wanted.to(self.result.device)]


class ViewAblation:
    """Interpolator by SAINT and by its parts, for :class:`monai_sliceinterp.evaluation.MethodComparison`.

    Args:
        factor: upsampling factor.
        method: name of the whole method in the results.
        misstated: also interpolate with a slice spacing that is wrong by this factor, to see that spacing matters;
            None leaves it out.
        value_range: see :class:`monai_sliceinterp.inferers.SliceInterpolationInferer`.
        batch_size: see :class:`monai_sliceinterp.inferers.MultiViewSliceInferer`.
        amp: precision of the networks, see :func:`monai_sliceinterp.precision.network_dtype`.

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
        amp: bool | str = False,
    ) -> None:
        self.method, self.misstated, self.batch_size = method, misstated, batch_size
        self.settings: dict[str, Any] = {"factor": factor, "value_range": value_range, "amp": amp}

    @torch.no_grad()
    def __call__(self, volume: MetaTensor, network: SAINT) -> dict[str, Tensor]:
        """Interpolate ``volume`` ``(1, 1, H, W, N)``; results by name."""
        if volume.shape[:2] != (1, 1):
            raise ValueError(f"expected one volume of one channel (1, 1, H, W, N), got {tuple(volume.shape)}.")
        views = "AMI" if type(network.ami) is AnisotropicMetaInterpolation else type(network.ami).__name__
        names = tuple(f"{views} {direction}" for direction in network.directions)
        recorder = _ViewRecorder(names, batch_size=self.batch_size, **self.settings)
        result = cast(MetaTensor, recorder(volume, network))
        parts = {name: result.meta.pop(name)[0, 0].movedim(-1, 0) for name in names}
        parts["mean of views"] = torch.stack(list(parts.values())).mean(dim=0)
        results = {name: _Replay(part, **self.settings)(volume) for name, part in parts.items()}
        if self.misstated is not None and views == "AMI":  # others do not know the spacing
            misstated = volume.clone()
            misstated.affine = torch.as_tensor(scaled_affine(volume.affine, 2, self.misstated))
            inferer = MultiViewSliceInferer(batch_size=self.batch_size, **self.settings)
            results[f"spacing x{self.misstated:g}"] = inferer(misstated, network)
        return {**results, self.method: result}
