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

from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_sliceinterp.geometry import scaled_affine
from monai_sliceinterp.inferers import MultiViewSliceInferer
from monai_sliceinterp.networks.nets import SAINT

__all__ = ["ViewAblation"]


class ViewAblation:
    """Interpolate a volume by SAINT and by its parts, for :class:`monai_sliceinterp.evaluation.MethodComparison`.

    Args:
        factor: upsampling factor.
        method: name of the whole method in the results.
        misstated: also interpolate with the slice spacing told wrong by this factor, to see that spacing matters;
            None leaves it out.
        **settings: further arguments of :class:`monai_sliceinterp.inferers.MultiViewSliceInferer`.

    Example:
        >>> size = {"channels": 8, "num_blocks": 1, "num_layers": 2, "growth": 4}
        >>> network = SAINT(ami=size, rfn=size).eval()
        >>> sorted(ViewAblation(factor=2)(MetaTensor(torch.rand(1, 1, 12, 12, 3)), network))
        ['AMI columns', 'AMI rows', 'mean of views', 'saint', 'spacing x4']
    """

    def __init__(self, factor: int, method: str = "saint", misstated: float | None = 4.0, **settings: Any) -> None:
        self.method, self.misstated = method, misstated
        self.settings = {"factor": factor, **settings}

    @torch.no_grad()
    def __call__(self, volume: MetaTensor, network: SAINT) -> dict[str, Tensor]:
        """Interpolate ``volume`` ``(1, 1, H, W, N)``; results by name."""
        whole = MultiViewSliceInferer(**self.settings)
        views = {
            f"AMI {direction}": MultiViewSliceInferer(fuse=False, views=(direction,), **self.settings)(volume, network)
            for direction in network.directions
        }
        stack = torch.stack([torch.as_tensor(view)[0, 0].movedim(-1, 0) for view in views.values()])
        mean = stack.mean(dim=0)
        together = stack.shape[1] if network.rfn.spatial_dims == 3 else 1
        fused = torch.cat([network.fuse(part[None])[0] for part in stack.split(together, dim=1)])
        observed = whole.output_grid(volume).is_observed.to(fused.device)
        fused[observed] = mean[observed]
        mean, fused = (slices.movedim(0, -1)[None, None] for slices in (mean, fused))
        results: dict[str, Tensor] = {**views, "mean of views": mean}
        if self.misstated is not None:
            told = volume.clone()
            told.affine = torch.as_tensor(scaled_affine(volume.affine, 2, self.misstated))
            results[f"spacing x{self.misstated:g}"] = whole(told, network)
        return {**results, self.method: fused}
