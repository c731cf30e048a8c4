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

"""A run that is killed leaves whole files or none."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from monai_sliceinterp.data import find_volumes
from tests.bundles.bundle_commands import LIMIT, ROOT, bundle_command, names, save_scan

SHAPE = (80, 80, 30)
KILLS = 20

# For every line, a process that writes volumes into that folder, again and again; of the k-th, all voxels are k off.
_WRITER = f"""
import os, sys
import torch
from monai.data import MetaTensor
from monai_sliceinterp.transforms import SaveVolumed
torch.manual_seed(0)
values = torch.randint(0, 1000, (1, *{SHAPE}), dtype=torch.int16)
for line in sys.stdin:
    child = os.fork()
    if not child:
        break
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
else:
    sys.exit()
save = SaveVolumed("pred", line.strip(), overwrite=True)
for k in range(100_000):
    save({{"pred": MetaTensor(values + k, meta={{"filename_or_obj": f"{{k % 3}}.nii.gz"}})}})
"""


def wait_for(path: Path) -> None:
    end = time.monotonic() + LIMIT
    while not path.exists():
        assert time.monotonic() < end, f"{path} was not written"
        time.sleep(0.001)


def check_whole(folder: Path, values: np.ndarray | None = None) -> tuple[list[str], list[str]]:
    """Files with a final name are whole, others are hidden and no images to anyone; returns the names of both."""
    final = [name for name in names(folder) if name.endswith("_interp.nii.gz")]
    parts = [name for name in names(folder) if name not in final]
    assert all(name.startswith(".") and ".part-" in name for name in parts)
    if final:
        assert find_volumes(folder) == [str(folder / name) for name in final]
    for name in final:
        found = np.asarray(nib.load(folder / name).dataobj)  # fails for a file that ends early
        if values is not None:
            assert found.shape == values.shape and np.ptp(found - values) == 0
    return final, parts


def test_killed_while_saving(tmp_path: Path) -> None:
    rng = random.Random(0)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER], cwd=ROOT, stdin=pipe, stdout=pipe, encoding="utf-8", bufsize=1
    ) as writer:
        assert writer.stdin and writer.stdout
        values, interrupted, replaced = None, 0, 0
        for k in range(KILLS):
            folder = tmp_path / str(k % 4)  # some with files of runs before
            old = {name: (folder / name).stat().st_mtime_ns for name in check_whole(folder)[0]}
            before = len(check_whole(folder)[1])
            print(folder, file=writer.stdin, flush=True)
            child = int(writer.stdout.readline())
            wait_for(folder)
            if values is None:  # once it is given time for one file
                wait_for(folder / "0_interp.nii.gz")
                values = np.asarray(nib.load(folder / "0_interp.nii.gz").dataobj)
            time.sleep(rng.uniform(0, 0.25))
            os.kill(child, signal.SIGKILL)
            assert writer.stdout.readline() == "ended\n"
            final, parts = check_whole(folder, values)
            interrupted += len(parts) - before
            replaced += sum((folder / name).stat().st_mtime_ns != time for name, time in old.items())
            assert len(parts) - before <= 1 and set(old) <= set(final)
        writer.stdin.close()
    assert writer.returncode == 0
    assert interrupted >= KILLS // 2 and replaced > 0  # else nothing was tested


def test_killed_near_the_end(weights: Path, tmp_path: Path) -> None:
    for seed in range(3):
        save_scan(tmp_path / "scans" / f"{seed}.nii.gz", (96, 96, 12), seed=seed)
    out = tmp_path / "out"
    given = {"ckpt": weights, "input": tmp_path / "scans", "output_dir": out, "factor": 6}
    process = bundle_command("asi", "inference", (), given).start()
    try:
        wait_for(out / "1_interp.nii.gz")
        time.sleep(random.Random(1).uniform(0, 0.5))
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert process.returncode in (-signal.SIGKILL, 0)
    final, parts = check_whole(out)
    assert {"0_interp.nii.gz", "1_interp.nii.gz"} <= set(final) and len(parts) <= 1
    for name in final:
        assert nib.load(out / name).shape == (96, 96, 67)
