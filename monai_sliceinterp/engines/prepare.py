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

"""Preparation of batches: inputs, targets and keyword arguments as networks and trainers take them."""

from __future__ import annotations

from typing import Any

import torch
from monai.data import MetaTensor
from monai.engines import PrepareBatchExtraInput
from torch import Tensor

from monai_sliceinterp.checks import switch

__all__ = ["PrepareConditionalPairs", "PrepareSliceBlocks", "PrepareSlicePairs", "PrepareViewImages"]

Batch = tuple[Tensor, Tensor, tuple[Any, ...], dict[str, Any]]
"""Inputs, targets, positional and keyword arguments of the network."""


class PrepareSlicePairs(PrepareBatchExtraInput):
    """Preparation of slice pairs for networks that return reconstructions and the synthesized slice together.

    For batches as :class:`monai_sliceinterp.transforms.RandSlicePairsd` draws them and networks derived from
    :class:`monai_sliceinterp.networks.nets.LatentInterpolator`.

    Example:
        >>> batch = {"image": torch.rand(4, 2, 8, 8), "label": torch.rand(4, 1, 8, 8), "alpha": torch.full((4,), 0.5)}
        >>> inputs, targets, _, keywords = PrepareSlicePairs()(batch)
        >>> tuple(inputs.shape), tuple(targets.shape), sorted(keywords)
        ((4, 2, 8, 8), (4, 3, 8, 8), ['alpha', 'reconstruct'])
    """

    def __init__(self) -> None:
        super().__init__({"alpha": "alpha"})

    def __call__(
        self,
        batchdata: dict[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> Batch:
        """Return the pairs ``(B, 2 C, H, W)``, the targets ``(B, 3 C, H, W)`` and the network's keyword arguments."""
        image, label, _, keywords = super().__call__(batchdata, device, non_blocking, **kwargs)
        return image, torch.cat([image, label], dim=1), (), {**keywords, "reconstruct": True}


class PrepareConditionalPairs(PrepareBatchExtraInput):
    """Preparation of pairs of volumes for a conditional GAN: image, label, and the condition if there is one.

    Args:
        condition_key: key of the condition ``(B, K)`` in the batch; None: there is no condition.

    Example:
        >>> volume = torch.rand(2, 1, 8, 8, 8)
        >>> batch = {"image": volume, "label": volume, "condition": torch.zeros(2, 8)}
        >>> inputs, targets, _, keywords = PrepareConditionalPairs()(batch)
        >>> tuple(inputs.shape), tuple(keywords["condition"].shape)
        ((2, 1, 8, 8, 8), (2, 8))
    """

    def __init__(self, condition_key: str | None = "condition") -> None:
        super().__init__({} if condition_key is None else {"condition": condition_key})

    def __call__(
        self,
        batchdata: dict[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> Batch:
        """Return image, label and keyword arguments of the discriminator as plain tensors.

        With MetaTensors every loss would become one, and each operation of both networks would take longer.
        """
        plain = {key: value.as_tensor() if isinstance(value, MetaTensor) else value for key, value in batchdata.items()}
        return super().__call__(plain, device, non_blocking, **kwargs)


class PrepareSliceBlocks(PrepareBatchExtraInput):
    """Preparation of slice blocks for networks that interpolate volumes by a factor, given the spacings.

    For batches as :class:`monai_sliceinterp.transforms.RandSliceBlocksd` draws them, all blocks with one factor.

    Args:
        thickness: also give the slice thickness, and that of every second block only: 0 means that it is not known, as
            it is for most scans.

    Example:
        >>> batch = {
        ...     "image": torch.rand(2, 1, 8, 6, 3),
        ...     "label": torch.rand(2, 1, 8, 6, 5),
        ...     "factor": torch.tensor([2, 2]),
        ... }
        >>> batch.update(slice_spacing=torch.full((2,), 4.0), in_plane_spacing=torch.ones(2, 2))
        >>> inputs, targets, _, keywords = PrepareSliceBlocks()(batch)
        >>> tuple(inputs.shape), tuple(targets.shape), keywords["factor"]
        ((2, 1, 8, 6, 3), (2, 1, 8, 6, 5), 2)
    """

    def __init__(self, thickness: bool = False) -> None:
        names = ("slice_spacing", "in_plane_spacing", "slice_thickness")
        super().__init__({name: name for name in names[: 3 if switch("thickness", thickness) else 2]})

    def __call__(
        self,
        batchdata: dict[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> Batch:
        """Return the blocks ``(B, 1, H, W, N)``, their truth, and factor and spacings as keyword arguments.

        Raises:
            ValueError: if the blocks have different factors.
        """
        factors = set(torch.as_tensor(batchdata["factor"]).tolist())
        if len(factors) != 1:
            raise ValueError(f"a batch has blocks of factors {sorted(factors)}; expected one factor for all.")
        image, label, _, keywords = super().__call__(batchdata, device, non_blocking, **kwargs)
        keywords["factor"] = int(factors.pop())
        keywords["in_plane_spacing"] = tuple(keywords["in_plane_spacing"].unbind(dim=1))
        if "slice_thickness" in keywords:
            known = torch.arange(len(image), device=image.device) % 2
            keywords["slice_thickness"] = keywords["slice_thickness"] * known
        return image, label, (), keywords


class PrepareViewImages(PrepareSliceBlocks):
    """Preparation of slice blocks three pixels high as images of a view with their neighbors.

    For :class:`monai_sliceinterp.networks.nets.AnisotropicMetaInterpolation` and blocks of
    :class:`monai_sliceinterp.transforms.RandSliceBlocksd` with a patch size of (3, L).

    Example:
        >>> batch = {
        ...     "image": torch.rand(2, 1, 3, 6, 3),
        ...     "label": torch.rand(2, 1, 3, 6, 5),
        ...     "factor": torch.tensor([2, 2]),
        ... }
        >>> batch.update(slice_spacing=torch.full((2,), 4.0), in_plane_spacing=torch.ones(2, 2))
        >>> inputs, targets, _, keywords = PrepareViewImages()(batch)
        >>> tuple(inputs.shape), tuple(targets.shape), sorted(keywords)
        ((2, 3, 3, 6), (2, 1, 5, 6), ['factor', 'in_plane_spacing', 'slice_spacing'])
    """

    def __call__(
        self,
        batchdata: dict[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> Batch:
        """Return the images ``(B, 3, N, L)``, the true middle ones ``(B, 1, M, L)``, and factor and spacings."""
        image, label, _, keywords = super().__call__(batchdata, device, non_blocking, **kwargs)
        keywords["in_plane_spacing"] = keywords["in_plane_spacing"][1]
        return image[:, 0].movedim(-1, 2), label[:, 0, 1:2].movedim(-1, 2), (), keywords
