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

"""Residual dense network (RDN) with upsampling along the slices, with which SAINT is compared.

Zhang Y, Tian Y, Kong Y, Zhong B, Fu Y: Residual Dense Network for Image Super-Resolution. CVPR 2018.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from monai_sliceinterp.networks.blocks.residual_dense import ResidualDenseNetwork
from monai_sliceinterp.networks.blocks.slice_upsampling import SliceUpsampler
from monai_sliceinterp.networks.nets.super_resolution import SliceSuperResolution

__all__ = ["RDN"]


class RDN(SliceSuperResolution):
    """Residual dense network (RDN) with sub-pixel upsampling along the slices by one factor (SAINT, section 4).

    With the default sizes, those of AMI's features, it has 2,769,473 parameters in 2D at a factor of 4 (SAINT, table 1:
    2.77 M). In 3D with a growth rate of 16 and 32 channels in the upsampling it has 2,896,929 (table 2: 2.88 M).

    Args:
        spatial_dims: 2 for the images of a view with their neighbors, 3 for volumes.
        factors: the one upsampling factor that the network is made for. It also does those that divide it.
        channels: feature channels G0.
        num_blocks: residual dense blocks D.
        num_layers: layers C of a block.
        growth: growth rate G.
        upsampling_channels: channels of the upsampling; None: those of the features.
        residual: see :class:`SliceSuperResolution`.
        intensity_center: see :class:`SliceSuperResolution`.
        intensity_scale: see :class:`SliceSuperResolution`.

    Raises:
        ValueError: if a size is not positive, or there is not one factor.

    Example:
        >>> import torch
        >>> network = RDN(spatial_dims=3, channels=8, num_blocks=1, num_layers=2, growth=4)
        >>> network(torch.rand(1, 1, 12, 10, 3), factor=2).shape
        torch.Size([1, 1, 12, 10, 5])
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        factors: Sequence[int] = (4,),
        channels: int = 64,
        num_blocks: int = 6,
        num_layers: int = 8,
        growth: int = 32,
        upsampling_channels: int | None = None,
        residual: bool = True,
        intensity_center: float = 0.25,
        intensity_scale: float = 0.25,
    ) -> None:
        super().__init__(spatial_dims, factors, residual, intensity_center, intensity_scale)
        if len(self.factors) != 1:
            raise ValueError(f"factors must be the one factor that RDN is made for, such as [4], got {factors!r}.")
        self.feature_learning = ResidualDenseNetwork(
            spatial_dims, self.in_channels, None, channels, num_blocks, num_layers, growth
        )
        self.upsampler = SliceUpsampler(spatial_dims, channels, self.factors, upsampling_channels)
        self._prepare(self.upsampler.last)

    def upsample(self, image: Tensor, factor: int) -> Tensor:
        """Compute features, then upsample them, see :meth:`SliceSuperResolution.upsample`."""
        return self.upsampler(self.feature_learning(image), factor)
