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

"""Speed and memory of Virtual Thin Slice.

    python benchmarks/vts.py [--threads 4]

Prints, in one run, for the shipped networks:
- time of making 512 x 512 x 305 voxels at 1 mm from 39 slices at 8 mm, and the peak memory of the process;
- the fraction of the machine's own matrix-multiply rate that is reached, overlaps of windows counted as computed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from timing import matmul_rate, peak_memory_mb, reset_peak_memory
from torch.utils.flop_counter import FlopCounterMode

from monai_sliceinterp.engines import load_weights
from monai_sliceinterp.inferers import VolumetricSliceInferer
from monai_sliceinterp.networks.nets import VTSGenerator

BUNDLE = Path(__file__).resolve().parent.parent / "bundles" / "vts"
PIXELS, SLICES, SPACING = 512, 39, 8.0


def network_of(*configs: str) -> VTSGenerator:
    """Build the network that configs of the bundle define, with its weights where they are shipped."""
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / config) for config in configs])
    network = parser.get_parsed_content("network_def")
    path = BUNDLE / "models" / parser["weights"]
    return (load_weights(network, path) if path.exists() else network).eval()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=0, help="number of CPU threads; 0: all")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    rate = matmul_rate()
    generator = torch.Generator().manual_seed(0)
    thick = torch.rand(1, 1, PIXELS, PIXELS, SLICES, generator=generator)
    scan = MetaTensor(thick, affine=torch.diag(torch.tensor([0.7, 0.7, SPACING, 1.0])))
    inferer = VolumetricSliceInferer(value_range=(0.0, 1.0))
    for name, configs in (("vts", ("inference.json",)), ("vts, small", ("inference.json", "small.json"))):
        network = network_of(*configs)
        reset_peak_memory()
        start = time.perf_counter()
        thin = inferer(scan, network)
        taken = time.perf_counter() - start
        memory = peak_memory_mb()
        size = " x ".join(str(length) for length in thin.shape[2:])
        del thin
        with FlopCounterMode(display=False) as counter:
            inferer(scan, network)
        operations = counter.get_total_flops()
        rate = max(rate, matmul_rate())
        print(f"{name}: {size} voxels at 1 mm in {taken:.0f} s, peak memory {memory:.0f} MB in all")
        print(
            f"  {operations / 1e9:.0f} GFLOP at {operations / taken / 1e9:.0f} GFLOP/s: "
            f"{operations / taken / rate:.2f} of the matrix-multiply rate ({rate / 1e9:.0f} GFLOP/s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
