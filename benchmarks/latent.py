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

"""Speed and memory of the networks that mix latent codes, for the benchmarks."""

from __future__ import annotations

import torch
from timing import matmul_rate, peak_memory_mb, reset_peak_memory, seconds
from torch.utils.flop_counter import FlopCounterMode

from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.inferers import LatentSliceInferer
from monai_sliceinterp.networks.nets.latent import LatentInterpolator


def benchmark_latent(
    name: str, network: LatentInterpolator, size: int, num_slices: int, factor: int, repeats: int = 5
) -> None:
    """Interpolate a volume with and without encoding every slice once, and print what it takes."""
    network.eval()
    inferer = LatentSliceInferer(factor=factor)
    volume = torch.rand(1, 1, size, size, num_slices)
    grid = OutputGrid.from_factor(num_slices, factor)
    slices = volume[0, 0].permute(2, 0, 1).contiguous()

    def reencode() -> None:
        with torch.no_grad():
            for index in torch.nonzero(~grid.is_observed)[:, 0].split(2):
                lower = grid.lower[index]
                network(torch.stack([slices[lower], slices[lower + 1]], dim=1), grid.alpha[index])

    rate = matmul_rate()
    with FlopCounterMode(display=False) as counter:
        inferer(volume, network)
    reset_peak_memory()
    once, twice = seconds(lambda: inferer(volume, network), reencode, repeats=repeats)
    rate = max(rate, matmul_rate())
    operations = counter.get_total_flops()
    memory = peak_memory_mb()
    print(f"{name}, {size} x {size} x {num_slices} by {factor}: {once:.2f} s, peak memory {memory:.0f} MB in all")
    print(f"  re-encoding both neighbors for every slice: {twice:.2f} s, {twice / once:.2f} times as long")
    print(
        f"  {operations / 1e9:.0f} GFLOP at {operations / once / 1e9:.0f} GFLOP/s: "
        f"{operations / once / rate:.2f} of the matrix-multiply rate ({rate / 1e9:.0f} GFLOP/s)"
    )
