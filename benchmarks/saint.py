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

"""Speed and memory of SAINT's interpolation.

    python benchmarks/saint.py [--threads 4]

Prints, in one run:
- time of interpolating 64 x 64 x 16 voxels by a factor of 4, for both sizes of the network, and how much slower running
  the same network one view image at a time with unfolded features is, as the authors' code does;
- the fraction of the machine's own matrix-multiply rate that is reached;
- peak memory and time of interpolating 512 x 512 x 16 voxels by 4, for both sizes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from timing import matmul_rate, peak_memory_mb, reset_peak_memory, seconds
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from monai_sliceinterp.inferers import MultiViewSliceInferer
from monai_sliceinterp.networks.blocks.generated_filters import filter_distance_matrix
from monai_sliceinterp.networks.blocks.views import neighbor_triples, to_view
from monai_sliceinterp.networks.nets import SAINT

BUNDLE = Path(__file__).resolve().parent.parent / "bundles" / "saint"
FACTOR, SLICES = 4, 16


def network_of(*overlays: str) -> SAINT:
    """Build the network that the bundle's configs define, with random weights."""
    parser = ConfigParser()
    parser.read_config([BUNDLE / config for config in ("inference.json", *overlays)])
    return parser.get_parsed_content("network_def").eval()


@torch.no_grad()
def one_image_at_a_time(volume: MetaTensor, network: SAINT) -> torch.Tensor:
    """Run the network image by image; the generated filters multiply an unfolded copy of the features.

    Returns the slices that are fused, ``(views, N, H, W)``, of random numbers: the time is that of the authors' code.
    """
    slices = volume.as_tensor()[0, 0].movedim(-1, 0)
    spacing = volume.pixdim.tolist()
    ami = network.ami
    for direction in network.directions:
        images = to_view(slices, direction)
        for number in range(len(images)):
            image = neighbor_triples(images, number, number + 1)
            features = ami.feature_learning((image - ami.intensity_center) / ami.intensity_scale)
            offsets = [channel / FACTOR for channel in range(FACTOR)]
            filters = ami.filter_generation(filter_distance_matrix(offsets, spacing[2], spacing[0]))
            (filters[0].flatten(1) @ F.unfold(features, 3, padding=1)[0]).unflatten(-1, image.shape[2:])
    fine = torch.rand(len(network.directions), FACTOR * (slices.shape[0] - 1) + 1, *slices.shape[1:])
    for number in range(fine.shape[1]):
        network.rfn(fine[None, :, number])
    return fine


def benchmark_speed(name: str, network: SAINT) -> None:
    """Interpolate a small volume in batches and image by image."""
    volume = MetaTensor(torch.rand(1, 1, 64, 64, SLICES), affine=torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0])))
    inferer = MultiViewSliceInferer(factor=FACTOR)
    rate = matmul_rate()
    with FlopCounterMode(display=False) as counter:
        inferer(volume, network)
    batched, single = seconds(lambda: inferer(volume, network), lambda: one_image_at_a_time(volume, network), repeats=3)
    rate = max(rate, matmul_rate())
    operations = counter.get_total_flops()
    print(f"SAINT ({name}), 64 x 64 x {SLICES} by {FACTOR}: {batched:.2f} s")
    print(f"  one view image at a time with unfolded features: {single:.2f} s, {single / batched:.2f} times as long")
    print(
        f"  {operations / 1e9:.0f} GFLOP at {operations / batched / 1e9:.0f} GFLOP/s: "
        f"{operations / batched / rate:.2f} of the matrix-multiply rate ({rate / 1e9:.0f} GFLOP/s)",
        flush=True,
    )


def benchmark_memory(name: str, network: SAINT) -> None:
    """Interpolate a volume of clinical in-plane size."""
    volume = MetaTensor(torch.rand(1, 1, 512, 512, SLICES), affine=torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0])))
    reset_peak_memory()
    start = time.perf_counter()
    MultiViewSliceInferer(factor=FACTOR)(volume, network)
    taken = time.perf_counter() - start
    print(
        f"SAINT ({name}), 512 x 512 x {SLICES} by {FACTOR}: {taken:.0f} s, peak memory {peak_memory_mb():.0f} MB in all"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=0, help="number of CPU threads; 0: all")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    networks = {"full": network_of(), "small": network_of("small.json")}
    for name, network in networks.items():
        benchmark_speed(name, network)
    for name, network in reversed(networks.items()):
        benchmark_memory(name, network)
