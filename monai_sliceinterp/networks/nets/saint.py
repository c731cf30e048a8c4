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

"""SAINT: views of a volume are interpolated by filters generated from the voxel spacing, then fused.

Peng C, Lin WA, Liao H, Chellappa R, Zhou SK: SAINT: Spatially Aware Interpolation NeTwork for Medical Slice Synthesis.
CVPR 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from monai_sliceinterp import checks
from monai_sliceinterp.networks.blocks.residual_dense import ResidualDenseNetwork
from monai_sliceinterp.networks.blocks.views import (
    EDGES,
    VIEW_DIRECTIONS,
    from_view,
    neighbor_triples,
    to_view,
    view_spacing,
)
from monai_sliceinterp.networks.nets.ami import AnisotropicMetaInterpolation

__all__ = ["SAINT", "ResidualFusionNetwork"]


class ResidualFusionNetwork(nn.Module):
    """Residual fusion network (RFN) that refines the mean of the views slice by slice (SAINT, section 3.3, eq. 10).

    With the default sizes, which are those of the authors' code, it has 371,105 parameters.

    Args:
        num_views: number of views.
        spatial_dims: 2 refines every slice on its own, 3 (the paper's alternative) the volume.
        channels: feature channels G0.
        num_blocks: residual dense blocks D.
        num_layers: layers C of a block.
        growth: growth rate G.
        intensity_center: see :class:`AnisotropicMetaInterpolation`.
        intensity_scale: see :class:`AnisotropicMetaInterpolation`.

    Example:
        >>> network = ResidualFusionNetwork(num_blocks=1, num_layers=2)
        >>> network(torch.rand(4, 2, 30, 20)).shape
        torch.Size([4, 1, 30, 20])
    """

    def __init__(
        self,
        num_views: int = 2,
        spatial_dims: int = 2,
        channels: int = 64,
        num_blocks: int = 4,
        num_layers: int = 6,
        growth: int = 12,
        intensity_center: float = 0.25,
        intensity_scale: float = 0.25,
    ) -> None:
        super().__init__()
        self.num_views, self.spatial_dims = num_views, spatial_dims
        self.intensity_center = intensity_center
        self.intensity_scale = checks.positive("intensity_scale", intensity_scale)
        self.network = ResidualDenseNetwork(spatial_dims, num_views, 1, channels, num_blocks, num_layers, growth)
        last = self.network.last
        assert last is not None
        with torch.no_grad():  # the untrained network is close to the mean of the views
            last.weight.mul_(0.1)
            last.bias.zero_()
        memory_format = torch.channels_last if spatial_dims == 2 else torch.channels_last_3d
        self.to(memory_format=memory_format)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        """Fuse the slices of all views ``(B, num_views, H, W)`` (volumes in 3D), in [0, 1], into ``(B, 1, H, W)``."""
        memory_format = torch.channels_last if self.spatial_dims == 2 else torch.channels_last_3d
        scaled = ((image - self.intensity_center) / self.intensity_scale).contiguous(memory_format=memory_format)
        return image.mean(dim=1, keepdim=True) + self.intensity_scale * self.network(scaled)


class SAINT(nn.Module):
    """Spatially aware interpolation network (SAINT): AMI on two or four views of a volume, then RFN to fuse them.

    :meth:`forward` interpolates small volumes at once, for training, export and checks; whole scans are interpolated by
    :class:`monai_sliceinterp.inferers.MultiViewSliceInferer`, which needs little memory.

    With another network in the place of AMI, and without RFN, it is a method that SAINT is compared with (section 4.1).

    Args:
        ami: settings of :class:`AnisotropicMetaInterpolation`, or another network that interpolates the images of a
            view: :class:`monai_sliceinterp.networks.nets.MetaSR`, or :class:`monai_sliceinterp.networks.nets.RDN` and
            :class:`monai_sliceinterp.networks.nets.MDSR` in 2D.
        rfn: settings of :class:`ResidualFusionNetwork`; its number of views is set here. False: the views are averaged.
        num_views: 2 (rows and columns) or 4 (diagonals too, the paper's variant).
        edge: substitute for the missing neighbor of the first and last image of a view, "replicate" or "zero".

    Raises:
        ValueError: if a size is not positive, ``num_views`` or ``edge`` is unknown, or ``ami`` is for volumes.

    Example:
        >>> small = {"channels": 8, "num_blocks": 1, "num_layers": 2, "growth": 4}
        >>> network = SAINT(ami=small, rfn=small)
        >>> network(torch.rand(1, 1, 20, 16, 3), factor=2, slice_spacing=5.0, in_plane_spacing=(0.8, 0.8)).shape
        torch.Size([1, 1, 20, 16, 5])
    """

    def __init__(
        self,
        ami: dict | nn.Module | None = None,
        rfn: dict | bool | None = None,
        num_views: int = 2,
        edge: str = "replicate",
    ) -> None:
        super().__init__()
        if num_views not in (2, 4):
            raise ValueError(f"num_views must be 2 or 4, got {num_views!r}.")
        self.directions = VIEW_DIRECTIONS[:num_views]
        self.edge = checks.one_of("edge", edge, EDGES)
        self.ami = ami if isinstance(ami, nn.Module) else AnisotropicMetaInterpolation(**(ami or {}))
        if getattr(self.ami, "spatial_dims", 2) != 2:
            raise ValueError(f"ami must be a network with spatial_dims 2, got {type(self.ami).__name__} with 3.")
        settings = rfn if isinstance(rfn, dict) else {}
        self.rfn = None if rfn is False else ResidualFusionNetwork(num_views=num_views, **settings)

    def forward(
        self,
        image: Tensor,
        factor: int = 4,
        slice_spacing: float | Tensor = 4.0,
        in_plane_spacing: Sequence[float | Tensor] = (1.0, 1.0),
        fuse: bool = True,
    ) -> Tensor:
        """Interpolate volumes by an integer factor.

        Args:
            image: ``(B, 1, H, W, N)``, slices last, intensities in [0, 1].
            factor: upsampling factor K.
            slice_spacing: distance of the slices in mm, a number or ``(B,)``.
            in_plane_spacing: distances of the pixels along H and W in mm, numbers or ``(B,)``.
            fuse: refine the mean of the views by RFN, if there is one; if false, the mean is returned.

        Returns:
            ``(B, 1, H, W, K (N - 1) + 1)``; the observed slices are copied.

        Raises:
            ValueError: if the image is not a batch of such volumes, or the spacings do not fit it.
        """
        for value in (slice_spacing, *in_plane_spacing):
            if torch.as_tensor(value).numel() not in (1, len(image)):
                raise ValueError(f"spacings must be one number or one for each of {len(image)} volumes, got {value!r}.")
        if image.ndim != 5 or image.shape[1] != 1:
            raise ValueError(f"expected volumes (B, 1, H, W, N), got shape {tuple(image.shape)}.")
        if image.shape[-1] < 2:
            raise ValueError(f"interpolation needs at least 2 slices, got {image.shape[-1]}.")
        slices = image[:, 0].movedim(-1, 1)
        batch, _, *size = slices.shape
        views = []
        for direction in self.directions:
            images = to_view(slices, direction)
            count = images.shape[1]
            triples = torch.cat([neighbor_triples(sample, edge=self.edge) for sample in images])
            across, along = (
                value.repeat_interleave(count) if value.numel() == batch > 1 else value
                for value in (torch.as_tensor(slice_spacing), view_spacing(direction, in_plane_spacing))
            )
            between = self.ami(triples, factor, across, along)[:, 0]
            views.append(from_view(between.unflatten(0, (batch, count)), direction, size))
        stack = torch.stack(views, dim=1)  # (B, views, M, H, W)
        result = self.fuse(stack) if fuse else stack.mean(dim=1)
        observed = (torch.arange(result.shape[1], device=image.device) % factor == 0)[:, None, None]
        exact = stack[:, 0]  # observed rows are copies in every view
        return torch.where(observed, exact, result).movedim(1, -1)[:, None]

    def fuse(self, views: Tensor) -> Tensor:
        """Fuse the synthesized slices of all views, ``(B, num_views, M, H, W)``, into ``(B, M, H, W)``."""
        if self.rfn is None:
            return views.mean(dim=1)
        if self.rfn.spatial_dims == 3:
            return self.rfn(views)[:, 0]
        batch = views.shape[0]
        return self.rfn(views.transpose(1, 2).flatten(0, 1))[:, 0].unflatten(0, (batch, -1))
