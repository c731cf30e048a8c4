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

"""Speed of all bundles in one table, to compare two states of the program.

    python benchmarks/all.py [--threads 1] [--rounds 3] [--only saint] [--json now.json] [--against before.json]

Every case interpolates a volume of noise, in which nothing can be left out, through a bundle's own inference config: in
float32, as it is by default (bfloat16 where the processor has it), and in 8-bit integers where there is a quantized
network. One case has constant air around the noise. Cases and products of matrices take turns, and what is printed is
processor time, the smallest of all rounds: other work on the machine then matters little.

- work: floating point operations of the network in float32, all that windows overlap included;
- share: of the rate at which the machine multiplies float32 matrices, reached with that work. It hardly depends on the
  machine, so that shares are what two runs are compared by;
- memory: by which the process grows at most beyond what it had before the first call.

``--against`` compares with the table of an earlier run and ends with exit status 1 where a share fell by a third. It
names them. Cases in reduced precision are compared where both processors have the same instructions.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from saint import network_of, one_image_at_a_time
from timing import peak_memory_mb, reset_peak_memory
from torch.utils.flop_counter import FlopCounterMode

from monai_sliceinterp.engines import load_weights

BUNDLES = Path(__file__).resolve().parent.parent / "bundles"
LEAST = 2 / 3
"""Part of an earlier share that has to be left."""

SIZES = {
    "asi": (128, 6),
    "hrinet": (128, 6),
    "mixture": (96, 6),
    "vts": (96, 13),
    "vts+small": (96, 13),
    "saint": (40, 7),
    "saint+small": (64, 7),
}
"""Pixels on a side and slices of the volumes, all interpolated by 4."""

AUTHORS = "saint, as its authors' code"
"""Case of the same network, one image at a time with unfolded features."""

PRECISIONS = {"float32": {"amp": False}, "auto": {"amp": "auto"}, "int8": {"amp": "auto", "engine": "onnx-int8"}}


@dataclass
class Row:
    """A line of the table."""

    gflop: float
    seconds: float
    voxels_per_second: float
    share: float
    memory_mb: float


def make(name: str, options: dict[str, Any]) -> Callable[[MetaTensor], torch.Tensor]:
    """Make the interpolation of a bundle, ``bundle`` or ``bundle+overlay``; KeyError where it lacks an option."""
    bundle, *overlays = name.split("+")
    folder = BUNDLES / bundle
    parser = ConfigParser()
    parser.read_config([folder / f"{config}.json" for config in ("inference", *overlays)])
    for key, value in {"bundle_root": str(folder), "factor": 4, "progress": False, "device": "cpu", **options}.items():
        if key not in parser:
            raise KeyError(key)
        parser[key] = value
    network = parser.get_parsed_content("network_def")
    engine = {"engine": options["engine"]} if "engine" in options else {}
    load_weights(network, folder / "models" / parser["weights"], **engine)
    inferer = parser.get_parsed_content("inferer")
    return lambda volume: inferer(volume, network.eval())


def make_like_authors() -> Callable[[MetaTensor], torch.Tensor]:
    """Make the interpolation by SAINT's network as its authors' code computes it."""
    network = network_of()
    return lambda volume: one_image_at_a_time(volume, network)


def noise(pixels: int, slices: int, air: int = 0) -> MetaTensor:
    """Make a volume of noise with constant air around it, slices of 4 mm."""
    volume = torch.zeros(1, 1, pixels + 2 * air, pixels + 2 * air, slices)
    volume[:, :, air : air + pixels, air : air + pixels] = torch.rand(1, 1, pixels, pixels, slices)
    return MetaTensor(volume, affine=torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0])))


def find_cases(only: str) -> dict[str, tuple[Callable[[MetaTensor], torch.Tensor], MetaTensor]]:
    """Make all cases whose names contain a text."""
    cases = {}
    for bundle, (pixels, slices) in SIZES.items():
        for precision, options in PRECISIONS.items():
            label = f"{bundle}, {precision}"
            if only not in label or ("engine" in options and not bundle.startswith("saint")):
                continue
            try:
                cases[label] = make(bundle, options), noise(pixels, slices)
            except (
                KeyError,
                ImportError,
                OSError,
                TypeError,
                ValueError,
            ) as error:  # as an earlier state
                print(f"left out: {label}: {error}")
    if only in AUTHORS:
        cases[AUTHORS] = make_like_authors(), noise(*SIZES["saint"])
    if "saint+small, auto" in cases:
        cases["saint+small, auto, air around"] = cases["saint+small, auto"][0], noise(64, 7, air=64)
    return cases


def cpu_seconds(call: Callable[[], object]) -> float:
    """Processor time of a call, of all threads together."""
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(cases: dict[str, tuple[Callable[[MetaTensor], torch.Tensor], MetaTensor]], rounds: int) -> dict[str, Row]:
    """Measure all cases, which take turns with products of matrices."""
    first, second = torch.rand(2048, 2048), torch.rand(2048, 2048)
    product, taken, work, memory, voxels = [], {label: [] for label in cases}, {}, {}, {}
    for label, (run, volume) in cases.items():
        reset_peak_memory()
        before = peak_memory_mb()
        with FlopCounterMode(display=False) as counter:
            voxels[label] = run(volume).numel()
        memory[label] = peak_memory_mb() - before
        exact = f"{label.split(', ')[0]}, float32"  # what ONNX Runtime computes is not counted
        work[label] = work[exact] if "int8" in label and exact in work else counter.get_total_flops()
    for _ in range(rounds):
        for label, (run, volume) in cases.items():
            product.append(cpu_seconds(lambda: first @ second))
            taken[label].append(cpu_seconds(lambda run=run, volume=volume: run(volume)))
    rate = 2 * 2048**3 / min(product)
    print(f"products of matrices: {rate / 1e9:.0f} GFLOP/s of processor time")
    rows = {}
    for label in cases:
        seconds = min(taken[label])
        share = work[label] / seconds / rate
        rows[label] = Row(work[label] / 1e9, seconds, voxels[label] / seconds, share, memory[label])
    return rows


def instructions() -> list[str]:
    """Instructions of the processor for reduced precision."""
    found = torch.cpu.get_capabilities()
    return [name for name in ("avx512_bf16", "amx_bf16", "avx512_vnni", "avx_vnni", "amx_int8") if found.get(name)]


def compare(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """List the shares that fell by a third."""
    alike = now["instructions"] == before["instructions"]
    fallen = []
    for label, old in before["rows"].items():
        if label not in now["rows"] or not (alike or label.endswith("float32")):
            continue
        ratio = now["rows"][label]["share"] / old["share"]
        print(f"{label}: {ratio:.2f} times the share of before")
        if ratio < LEAST:
            fallen.append(f"{label}: its share fell from {old['share']:.2f} to {now['rows'][label]['share']:.2f}")
    return fallen


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="number of threads")
    parser.add_argument("--rounds", type=int, default=3, help="calls of every case")
    parser.add_argument("--only", default="", help="text that the names of cases contain")
    parser.add_argument("--json", default="", help="file for the table")
    parser.add_argument("--against", default="", help="table of an earlier run to compare with")
    arguments = parser.parse_args()
    before = json.loads(Path(arguments.against).read_text()) if arguments.against else None
    torch.set_num_threads(arguments.threads)
    rows = measure(find_cases(arguments.only), arguments.rounds)
    print(f"{'case':34}{'GFLOP':>8}{'s':>8}{'Mvoxel/s':>10}{'share':>7}{'MB':>6}")
    for label, row in rows.items():
        rate = row.voxels_per_second / 1e6
        print(f"{label:34}{row.gflop:8.1f}{row.seconds:8.3f}{rate:10.3f}{row.share:7.2f}{row.memory_mb:6.0f}")
    table = {
        "torch": torch.__version__,
        "threads": arguments.threads,
        "instructions": instructions(),
        "rows": {label: asdict(row) for label, row in rows.items()},
    }
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(table, indent=4) + "\n")
    fallen = [] if before is None else compare(table, before)
    if fallen:
        sys.exit("error: " + " | ".join(fallen))


if __name__ == "__main__":
    main()
