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

"""Filters generated from distances in mm: filter-distance matrix, filter generator, application (SAINT, 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_sliceinterp import checks
from monai_sliceinterp.precision import PreciseConv2d

__all__ = ["FilterGenerator", "apply_generated_filters", "filter_distance_matrix", "odd_kernel_size"]


def odd_kernel_size(kernel_size: int) -> int:
    """Check the size of a generated filter, which must have a center.

    Raises:
        ValueError: if the size is not a positive odd integer.

    Example:
        >>> odd_kernel_size(3)
        3
    """
    if checks.positive_integer("kernel_size", kernel_size) % 2 == 0:
        raise ValueError(f"kernel_size must be odd, got {kernel_size!r}.")
    return int(kernel_size)


def filter_distance_matrix(
    offsets: Tensor | Sequence[float],
    slice_spacing: Tensor | float,
    in_plane_spacing: Tensor | float,
    kernel_size: int = 3,
) -> Tensor:
    """Compute the distances in mm from the voxels under a filter to the synthesized voxel (SAINT, Algorithm 1).

    The filter is centered on an observed voxel; rows run along the slice axis and columns in-plane. The synthesized
    voxel lies ``offset`` gaps past the center. With c = ``kernel_size // 2``, entry (i, j) is
    ``hypot((i - c - offset) * slice_spacing, (j - c) * in_plane_spacing)``.

    Args:
        offsets: fractions of the gap in [0, 1), ``(R,)``; c / K for channel c of an integer factor K.
        slice_spacing: distance of the observed slices in mm, one number or one per sample ``(B,)``.
        in_plane_spacing: distance of the pixels along the filter's columns in mm, one number or one per sample.
        kernel_size: odd filter size k.

    Returns:
        ``(B, R, k, k)`` in mm; B is 1 where both spacings are single numbers.

    Raises:
        ValueError: if the size is even, an offset lies outside [0, 1) or a spacing is not positive.

    Example:
        >>> filter_distance_matrix([0.5], slice_spacing=4.0, in_plane_spacing=1.5)[0, 0, :, 1].tolist()
        [6.0, 2.0, 2.0]
    """
    odd_kernel_size(kernel_size)
    fractions = torch.as_tensor(offsets, dtype=torch.float32).reshape(-1)
    exporting = torch.compiler.is_compiling()  # tensors have no values then
    if not exporting and len(fractions) and not (fractions.min() >= 0 and fractions.max() < 1):
        lowest, highest = float(fractions.min()), float(fractions.max())
        raise ValueError(f"offsets must lie within [0, 1), got {lowest:g} to {highest:g}.")
    across, along = (
        torch.as_tensor(value, dtype=torch.float32).reshape(-1, 1, 1, 1) for value in (slice_spacing, in_plane_spacing)
    )
    for name, value in (("slice", across), ("in-plane", along)):
        if not exporting and not (value.min() > 0 and value.max() < torch.inf):
            raise ValueError(f"the {name} spacing must be a positive number of mm, got {value.flatten().tolist()}.")
    device = across.device if across.device.type != "cpu" else along.device
    steps = torch.arange(kernel_size, dtype=torch.float32, device=device) - kernel_size // 2
    rows = (steps[:, None] - fractions.to(device)[:, None, None]) * across.to(device)
    columns = steps * along.to(device)
    if exporting:  # ONNX has no hypot
        return (rows.square() + columns.square()).sqrt()
    return torch.hypot(*torch.broadcast_tensors(rows, columns))


class FilterGenerator(nn.Module):
    """Convolutional network that generates filters from filter-distance matrices (SAINT, eq. 8).

    It has 3x3 convolutions with ReLU between them; the output, one k x k plane for each feature channel, is the filter.
    With the default sizes it has 129,600 parameters.

    Args:
        out_channels: channels of the features that the filters are applied to.
        hidden_channels: channels between the layers.
        gain: factor on the last layer's initial weights. With a small one, a network that adds its output to an
            interpolation is close to that interpolation at first.

    Example:
        >>> FilterGenerator()(torch.ones(2, 3, 3, 3)).shape
        torch.Size([2, 3, 64, 3, 3])
    """

    def __init__(
        self, out_channels: int = 64, hidden_channels: Sequence[int] = (32, 64, 64, 64), gain: float = 1.0
    ) -> None:
        super().__init__()
        sizes = (1, *hidden_channels, out_channels)
        layers: list[nn.Module] = []
        for before, after in zip(sizes, sizes[1:], strict=False):
            layers += [PreciseConv2d(before, after, 3, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])
        with torch.no_grad():
            for parameter in layers[-2].parameters():
                parameter.mul_(gain)

    def forward(self, distances: Tensor) -> Tensor:
        """Generate filters ``(B, R, out_channels, k, k)`` from distances in mm ``(B, R, k, k)``."""
        size = distances.shape
        return self.layers(distances.reshape(-1, 1, *size[2:])).reshape(*size[:2], -1, *size[2:])


def apply_generated_filters(features: Tensor, filters: Tensor) -> Tensor:
    """Convolve features with generated filters (SAINT, eq. 5), without unfolding a copy of the features.

    Columns are padded with zeros; rows are not: the caller chooses their padding.

    Args:
        features: ``(B, C, N + k - 1, L)``.
        filters: ``(B, R, C, k, k)``, one filter bank per sample, or ``(1, R, C, k, k)``, one for all of them.

    Returns:
        ``(B, R, N, L)``.

    Raises:
        ValueError: if there are neither one nor B filter banks.

    Example:
        >>> apply_generated_filters(torch.ones(2, 4, 5, 6), torch.ones(1, 3, 4, 3, 3))[0, 0, 0, :2].tolist()
        [24.0, 36.0]
    """
    if filters.shape[0] not in (1, features.shape[0]):
        raise ValueError(f"{filters.shape[0]} filter banks for {len(features)} samples; expected one, or one for each.")
    padding = (0, filters.shape[-1] // 2)
    if filters.shape[0] == 1:
        if filters.shape[1] == 1:  # PyTorch cannot derive a single filter's gradient with channels innermost
            features = features.contiguous()
        return F.conv2d(features, filters[0], padding=padding)
    batch, channels, _, columns = features.shape
    grouped = F.conv2d(
        features.reshape(1, batch * channels, -1, columns), filters.flatten(0, 1), None, 1, padding, 1, batch
    )
    return grouped.reshape(batch, filters.shape[1], -1, columns)
