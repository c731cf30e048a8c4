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

"""Speed and memory of ASI and of slab averaging, as ratios that do not depend on the machine.

    python benchmarks/asi.py [--threads 4]

Prints, in one run:
- time and peak memory of interpolating 256 x 256 x 16 voxels by a factor of 4;
- how much slower re-encoding both neighbors for every synthesized slice is;
- the fraction of the machine's own matrix-multiply rate that is reached (floating point operations of the network as
  the paper defines it, divided by time);
- the cost of FWHMDownsample by K in units of blurring every slice with the same kernel.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from latent import benchmark_latent
from monai.networks.layers import gaussian_1d, separable_filtering
from scipy import ndimage
from timing import seconds

from monai_sliceinterp.networks.nets import ASIAutoencoder
from monai_sliceinterp.resampling import FWHM_PER_SIGMA
from monai_sliceinterp.transforms import degrade

SIZE, SLICES, FACTOR = 256, 16, 4


def benchmark_downsample() -> None:
    """Average slabs only where slices are kept, against blurring every slice and throwing most away."""
    volume = torch.rand(1, 160, 160, 160)
    for factor in (2, 3, 4, 6, 8):
        sigma = factor / FWHM_PER_SIGMA
        kernels = [torch.ones(1), torch.ones(1), gaussian_1d(torch.tensor(sigma), truncated=4.0, approx="sampled")]

        def kept(factor: int = factor) -> torch.Tensor:
            return degrade(volume, factor, float(factor))

        def by_monai(kernels: list[torch.Tensor] = kernels, factor: int = factor) -> torch.Tensor:
            return separable_filtering(volume[None], kernels, mode="replicate")[0, ..., ::factor]

        def by_scipy(sigma: float = sigma, factor: int = factor) -> np.ndarray:
            return ndimage.gaussian_filter1d(volume.numpy(), sigma, axis=-1, mode="nearest")[..., ::factor]

        torch.testing.assert_close(kept(), by_monai(), rtol=0, atol=1e-4)  # kernels cut off alike
        ours, monai, scipy = seconds(kept, by_monai, by_scipy)
        print(
            f"FWHMDownsample by {factor}: {ours * 1e3:.1f} ms; blurring every slice with the same kernel takes "
            f"{monai * 1e3:.0f} ms (MONAI), {scipy * 1e3:.0f} ms (SciPy): {ours / monai * factor:.2f}/K and "
            f"{ours / scipy * factor:.2f}/K of that"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=0, help="number of CPU threads; 0: all")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    benchmark_latent("ASI", ASIAutoencoder(), SIZE, SLICES, FACTOR)
    benchmark_downsample()
