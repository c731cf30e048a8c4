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

"""Runs that are killed or interrupted at a random moment, and what they become when they go on, counted.

    python benchmarks/interruptions.py [--count 5] [--seed 0]

Run from the root of the repository, on Linux. A training of bundle ASI on small phantoms and an inference of three
volumes run through once. Then they are ended ``count`` times by each of SIGKILL, SIGINT and SIGTERM and go on: with
``--ckpt`` and the newest checkpoint, or with ``--resume true``. Prints for each how many signals came while the run was
at it, how many runs left only whole files, and how many ended bit-equal to the one that ran through, without a
temporary file. The status is 1 if one did not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from monai_sliceinterp.data import write_phantoms  # noqa: E402

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)

# Imports what commands import, then becomes a process of its own for each and runs it as ``python -m`` does.
_SERVER = """
import gc, json, os, runpy, sys
import fire, monai.bundle, monai_sliceinterp.transforms, torch._dynamo, torch.utils.tensorboard
gc.freeze()
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        break
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
if child == 0:
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    sys.argv = ["monai.bundle", "run", *json.loads(line)]
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
"""


class Runner:
    """Starts commands and ends them."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        pipe = subprocess.PIPE
        self.server = subprocess.Popen(
            [sys.executable, "-c", _SERVER], stdin=pipe, stdout=pipe, encoding="utf-8", cwd=ROOT, env=environment
        )
        assert self.server.stdout is not None
        self.server.stdout.readline()

    def run(self, options: dict[str, object], number: int = 0, after: float = 0.0) -> tuple[int, float]:
        """Run a command, and send it a signal after some seconds; its exit status, and its duration."""
        assert self.server.stdin is not None and self.server.stdout is not None
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        start = time.perf_counter()
        print(json.dumps(words), file=self.server.stdin, flush=True)
        child = int(self.server.stdout.readline())
        if number:
            time.sleep(after)
            with contextlib.suppress(ProcessLookupError):  # it was through
                os.kill(child, number)
        return int(self.server.stdout.readline()), time.perf_counter() - start


def whole(path: Path) -> bool:
    """Whether a file can be read to its end."""
    try:
        if path.suffix == ".pt":
            torch.load(path, weights_only=True)
        elif path.name.endswith(".nii.gz"):
            np.asarray(nib.load(path).dataobj)
    except Exception:  # what must not be
        return False
    return True


def content(path: Path) -> list[np.ndarray]:
    """The numbers of weights or of a volume."""
    if path.suffix == ".pt":
        return [value.numpy() for value in torch.load(path, weights_only=True).values()]
    return [np.asarray(nib.load(path).dataobj)]


def shown(folder: Path) -> list[Path]:
    """Files of a folder but hidden ones and those of TensorBoard."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [file for file in files if file.name[0] != "." and "tfevents" not in file.name]


def newest(folder: Path) -> dict[str, object]:
    """The option with the newest checkpoint, if there is one."""
    files = [file for file in shown(folder) if file.name.startswith("checkpoint")]
    return {"ckpt": max(files, key=lambda file: file.stat().st_mtime_ns)} if files else {}


def count(runner: Runner, kind: str, options: dict[str, object], root: Path, times: int) -> bool:
    """End and continue runs of a kind; whether all went on to the same end."""
    reference = root / f"{kind}_whole"
    status, seconds = runner.run({**options, "output_dir": reference})
    if status:
        raise SystemExit(f"error: the {kind} that runs through ended with status {status}.")
    results = [file for file in shown(reference) if file.name == "model.pt" or file.name.endswith(".nii.gz")]
    good = True
    for number in SIGNALS:
        hits = unbroken = equal = 0
        for trial in range(times):
            folder = root / f"{kind}_{number}_{trial}"
            status, _ = runner.run(
                {**options, "output_dir": folder}, number, max(seconds, 0.1) * random.uniform(0.05, 0.95)
            )
            hits += status in (-number, 128 + number)
            unbroken += all(map(whole, shown(folder)))
            more = newest(folder) if kind == "training" else {"resume": True}
            status, _ = runner.run({**options, "output_dir": folder, **more})
            hidden = [file for file in folder.iterdir() if file.name[0] == "." or file.name.startswith("tmp")]
            same = all(
                np.array_equal(a, b)
                for file in results
                for a, b in zip(content(file), content(folder / file.name), strict=True)
            )
            equal += status == 0 and same and not hidden
        print(f"| {kind} | {signal.Signals(number).name} | {times} | {hits} | {unbroken} | {equal} |", flush=True)
        good &= unbroken == equal == times
    return good


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5, help="runs for each kind and signal")
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    random.seed(settings.seed)
    network: dict[str, object] = {"network_def#channels": [4, 8], "network_def#latent_channels": 8}
    with tempfile.TemporaryDirectory() as folder:
        root, runner = Path(folder), Runner()
        write_phantoms(root / "thin", "head", range(3), shape=(40, 40, 15), spacing=(6.0, 6.0, 6.0))
        training = {
            "config_file": "bundles/asi/train.json",
            "dataset_dir": root / "thin",
            "max_epochs": 20,
            "val_interval": 2,
            "patch_size": 32,
            "device": "cpu",
            **network,
        }
        print("| run | signal | tried | hit | files whole | equal in the end |\n| --- | --- | --- | --- | --- | --- |")
        good = count(runner, "training", training, root, settings.count)
        inference = {
            "config_file": "bundles/asi/inference.json",
            "input": root / "thin",
            "factor": 4,
            "ckpt": root / "training_whole" / "model.pt",
            "device": "cpu",
            "progress": False,
            **network,
        }
        good &= count(runner, "inference", inference, root, settings.count)
        runner.server.kill()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
