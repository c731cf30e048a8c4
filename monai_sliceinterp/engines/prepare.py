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


"""Batches as networks take them: inputs, targets and keyword arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.engines import PrepareBatch
from monai.utils import CommonKeys
from torch import Tensor

__all__ = ["PrepareSliceBlocks", "PrepareSliceGroups", "PrepareSlicePairs", "PrepareViewImages"]


class PrepareSlicePairs(PrepareBatch):
    """Prepare batches of slice pairs for networks that return reconstructions and the synthesized slice together.

    For batches as :class:`monai_sliceinterp.transforms.RandSlicePairsd` draws them and networks derived from
    :class:`monai_sliceinterp.networks.nets.LatentInterpolator`.

    Example:
        >>> batch = {"image": torch.rand(4, 2, 8, 8), "label": torch.rand(4, 1, 8, 8), "alpha": torch.full((4,), 0.5)}
        >>> inputs, targets, _, keywords = PrepareSlicePairs()(batch)
        >>> tuple(inputs.shape), tuple(targets.shape), sorted(keywords)
        ((4, 2, 8, 8), (4, 3, 8, 8), ['alpha', 'reconstruct'])
    """

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple[()], dict[str, Any]]:
        """Return the pairs ``(B, 2 C, H, W)``, the targets ``(B, 3 C, H, W)`` and the network's keyword arguments."""

        def move(key: str) -> Tensor:
            return batchdata[key].to(device=device, non_blocking=non_blocking, **kwargs)

        image = move(CommonKeys.IMAGE)
        target = torch.cat([image, move(CommonKeys.LABEL)], dim=1)
        return image, target, (), {"alpha": move("alpha"), "reconstruct": True}


class PrepareSliceGroups(PrepareBatch):
    """Prepare batches of slice groups: the pair of ends, the slices between, and their places.

    For batches as :class:`monai_sliceinterp.transforms.RandSliceGroupsd` draws them.

    Example:
        >>> batch = {"image": torch.rand(4, 2, 8, 8), "label": torch.rand(4, 5, 8, 8), "alpha": torch.rand(4, 5)}
        >>> inputs, targets, _, keywords = PrepareSliceGroups()(batch)
        >>> tuple(inputs.shape), tuple(targets.shape), sorted(keywords)
        ((4, 2, 8, 8), (4, 5, 8, 8), ['alpha'])
    """

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple[()], dict[str, Any]]:
        """Return the pairs ``(B, 2 C, H, W)``, the slices between ``(B, T C, H, W)`` and alpha ``(B, T)``."""
        image, label, alpha = (
            batchdata[key].to(device=device, non_blocking=non_blocking, **kwargs)
            for key in (CommonKeys.IMAGE, CommonKeys.LABEL, "alpha")
        )
        return image, label, (), {"alpha": alpha}


class PrepareSliceBlocks(PrepareBatch):
    """Prepare batches of blocks for networks that interpolate volumes by a factor, given the spacings.

    For batches as :class:`monai_sliceinterp.transforms.RandSliceBlocksd` draws them, all blocks by one factor.

    Example:
        >>> block = {
        ...     "image": torch.rand(2, 1, 8, 6, 3),
        ...     "label": torch.rand(2, 1, 8, 6, 5),
        ...     "factor": torch.tensor([2, 2]),
        ... }
        >>> block.update(slice_spacing=torch.full((2,), 4.0), in_plane_spacing=torch.ones(2, 2))
        >>> inputs, targets, _, keywords = PrepareSliceBlocks()(block)
        >>> tuple(inputs.shape), tuple(targets.shape), keywords["factor"]
        ((2, 1, 8, 6, 3), (2, 1, 8, 6, 5), 2)
    """

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple[()], dict[str, Any]]:
        """Return the blocks ``(B, 1, H, W, N)``, their truth, and factor and spacings as keyword arguments.

        Raises:
            ValueError: if the blocks have different factors.
        """

        def move(key: str) -> Tensor:
            return batchdata[key].to(device=device, non_blocking=non_blocking, **kwargs)

        factors = set(torch.as_tensor(batchdata["factor"]).tolist())
        if len(factors) != 1:
            raise ValueError(f"a batch has blocks of factors {sorted(factors)}; expected one factor for all.")
        keywords = {
            "factor": int(factors.pop()),
            "slice_spacing": move("slice_spacing"),
            "in_plane_spacing": tuple(move("in_plane_spacing").unbind(dim=1)),
        }
        return move(CommonKeys.IMAGE), move(CommonKeys.LABEL), (), keywords


class PrepareViewImages(PrepareSliceBlocks):
    """Prepare batches of blocks three pixels high as images of a view with their neighbors.

    For :class:`monai_sliceinterp.networks.nets.AnisotropicMetaInterpolation` and blocks of
    :class:`monai_sliceinterp.transforms.RandSliceBlocksd` with a patch size of (3, L).

    Example:
        >>> block = {
        ...     "image": torch.rand(2, 1, 3, 6, 3),
        ...     "label": torch.rand(2, 1, 3, 6, 5),
        ...     "factor": torch.tensor([2, 2]),
        ... }
        >>> block.update(slice_spacing=torch.full((2,), 4.0), in_plane_spacing=torch.ones(2, 2))
        >>> inputs, targets, _, keywords = PrepareViewImages()(block)
        >>> tuple(inputs.shape), tuple(targets.shape), sorted(keywords)
        ((2, 3, 3, 6), (2, 1, 5, 6), ['factor', 'in_plane_spacing', 'slice_spacing'])
    """

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple[()], dict[str, Any]]:
        """Return the images ``(B, 3, N, L)``, the true middle ones ``(B, 1, M, L)``, and factor and spacings."""
        image, label, _, keywords = super().__call__(batchdata, device, non_blocking, **kwargs)
        keywords["in_plane_spacing"] = keywords["in_plane_spacing"][1]
        return image[:, 0].movedim(-1, 2), label[:, 0, 1:2].movedim(-1, 2), (), keywords
