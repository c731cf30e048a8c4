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
- how much slower re-encoding both neighbors for every synthesized slice is;
- the fraction of the machine's own matrix-multiply rate that is reached (floating point operations of the network,
  each slice encoded and each synthesized slice decoded once, divided by time).
"""

from __future__ import annotations

import argparse

import torch
from latent import benchmark_latent

from monai_sliceinterp.networks.nets import HRINetAutoencoder

BUNDLE = {"channels": (32, 64, 64), "stem": 2, "shortcut": True}
PAPER = {"channels": (32, 64, 128, 256)}


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
    setting = PAPER if arguments.paper else BUNDLE
    network = HRINetAutoencoder(**setting)
    name = f"HRINet {setting['channels']}"
    benchmark_latent(name, network, arguments.size, arguments.slices, arguments.factor, repeats=3)
