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

"""Speed and memory of HRINet, as ratios that do not depend on the machine.

    python benchmarks/hrinet.py [--threads 4] [--size 512] [--slices 16] [--factor 6] [--paper]

Prints, in one run:
- time and peak memory of interpolating 512 x 512 x 16 voxels by a factor of 6;
- how much slower re-encoding both neighbours for every synthesised slice is;
- the fraction of the machine's own matrix-multiply rate that is reached (floating point operations of the network,
  each slice encoded and each synthesised slice decoded once, divided by time).
"""

from __future__ import annotations

import argparse

import torch
from timing import matmul_rate, peak_memory_mb, reset_peak_memory, seconds
from torch.utils.flop_counter import FlopCounterMode

from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.inferers import LatentSliceInferer
from monai_sliceinterp.networks.nets import HRINetAutoencoder

BUNDLE_CHANNELS, PAPER_CHANNELS = (16, 32, 64, 64), (32, 64, 128, 256)


def benchmark_hrinet(size: int, num_slices: int, factor: int, channels: tuple[int, ...]) -> None:
    """Interpolate a volume with and without encoding every slice once."""
    network = HRINetAutoencoder(channels=channels).eval()
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
    once, twice = seconds(lambda: inferer(volume, network), reencode, repeats=3)
    rate = max(rate, matmul_rate())
    operations = counter.get_total_flops()
    print(
        f"HRINet {channels}, {size} x {size} x {num_slices} by {factor}: {once:.2f} s, peak memory "
        f"{peak_memory_mb():.0f} MB in all"
    )
    print(f"  re-encoding both neighbours for every slice: {twice:.2f} s, {twice / once:.2f} times as long")
    print(
        f"  {operations / 1e9:.0f} GFLOP at {operations / once / 1e9:.0f} GFLOP/s: "
        f"{operations / once / rate:.2f} of the matrix-multiply rate ({rate / 1e9:.0f} GFLOP/s)"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=0, help="number of CPU threads; 0: all")
    parser.add_argument("--size", type=int, default=512, help="rows and columns of the volume")
    parser.add_argument("--slices", type=int, default=16)
    parser.add_argument("--factor", type=int, default=6)
    parser.add_argument("--paper", action="store_true", help="the widths of paper.json instead of the bundle's")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    widths = PAPER_CHANNELS if arguments.paper else BUNDLE_CHANNELS
    benchmark_hrinet(arguments.size, arguments.slices, arguments.factor, widths)
