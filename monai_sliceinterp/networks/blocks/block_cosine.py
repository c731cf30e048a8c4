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

"""Linear shortcut through an autoencoder: a cosine transform of square pixel blocks, refined by training."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft
from torch import Tensor, nn
from torch.nn import functional as F

from monai_sliceinterp.precision import PreciseConv2d

__all__ = ["BlockCosineShortcut", "block_cosine_basis"]


def block_cosine_basis(size: int, count: int) -> NDArray[np.float64]:
    """Compute the lowest frequencies of the two-dimensional cosine transform (DCT-II) of square pixel blocks.

    Args:
        size: pixels of a block's side.
        count: number of frequencies, at most ``size ** 2``; ordered by radial frequency, of two equal ones the one that
            changes along the columns first.

    Returns:
        ``(count, size, size)``, orthonormal.

    Raises:
        ValueError: if the block has fewer frequencies.

    Example:
        >>> basis = block_cosine_basis(2, 3)
        >>> basis.reshape(3, 4).round(2).tolist()
        [[0.5, 0.5, 0.5, 0.5], [0.5, -0.5, 0.5, -0.5], [0.5, 0.5, -0.5, -0.5]]
    """
    if not 1 <= count <= size**2:
        raise ValueError(f"a block of {size} x {size} pixels has 1 to {size**2} frequencies, got count={count}.")
    waves = fft.idct(np.eye(size), norm="ortho", axis=1)  # row k: frequency k
    frequencies = sorted(np.ndindex(size, size), key=lambda pair: (pair[0] ** 2 + pair[1] ** 2, pair))[:count]
    return np.stack([np.outer(waves[row], waves[column]) for row, column in frequencies])


class BlockCosineShortcut(nn.Module):
    """Linear encoder and decoder of square pixel blocks, initialized with the lowest frequencies of each block.

    Beside the convolutions of an autoencoder with an equally small code, it reconstructs from the first step what a
    linear transform can; the convolutions learn the rest. Convolutions alone take thousands of steps to get there.

    Args:
        in_channels: channels of an image.
        size: pixels of a block's side; a code has one pixel per block.
        count: channels of the code. Several image channels share them in turns.

    Raises:
        ValueError: if a block has fewer frequencies than ``count`` needs.

    Example:
        >>> shortcut = BlockCosineShortcut(1, size=4, count=16)
        >>> image = torch.rand(2, 1, 8, 12)
        >>> code = shortcut.encode(image)
        >>> tuple(code.shape), torch.allclose(shortcut.decode(code), image, atol=1e-5)
        ((2, 16, 2, 3), True)
    """

    def __init__(self, in_channels: int, size: int, count: int) -> None:
        super().__init__()
        self.size = size
        self.analysis = PreciseConv2d(in_channels * size**2, count, 1)
        self.synthesis = PreciseConv2d(count, in_channels * size**2, 1)
        basis = torch.from_numpy(block_cosine_basis(size, -(-count // in_channels))).flatten(1)
        weight = torch.zeros(count, in_channels, size**2)
        for row in range(count):
            weight[row, row % in_channels] = basis[row // in_channels]
        weight = weight.flatten(1)[:, :, None, None]
        with torch.no_grad():
            # codes then have the magnitude of intensities rather than of sums over a block
            self.analysis.weight.copy_(weight / size**0.5)
            self.synthesis.weight.copy_(weight.transpose(0, 1) * size**0.5)
        for convolution in (self.analysis, self.synthesis):
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]

    def encode(self, image: Tensor) -> Tensor:
        """Encode images ``(B, C, H, W)``, H and W multiples of ``size``, to ``(B, count, H / size, W / size)``."""
        return self.analysis(F.pixel_unshuffle(image, self.size))

    def decode(self, code: Tensor) -> Tensor:
        """Decode codes of :meth:`encode` to images."""
        return F.pixel_shuffle(self.synthesis(code), self.size)
