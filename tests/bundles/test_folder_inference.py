# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""A folder or a list of scans divided among processes: each scan once; killed runs leave whole files or none."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest

from monai_sliceinterp.data import find_volumes
from monai_sliceinterp.failures import FAILURES
from tests.bundles.bundle_commands import (
    BUNDLES,
    LIMIT,
    ROOT,
    bundle_command,
    content,
    names,
    run,
    save,
    save_scan,
)

PROCESSES, SCANS, SLOW = 4, 200, 66
"""The scan SLOW, which takes minutes at first, is one in the middle of those of the process 66 % 4."""
OUTPUTS = ("_interp.nii.gz", "_interp.json", "_interp_provenance.nii.gz")


def command(listed, out, weights, **options):
    given = {"input": listed, "output_dir": out, "ckpt": weights, "factor": 4, "provenance": "true", **options}
    return replace(bundle_command("asi", "inference", ["multi_gpu_inference"], given), processes=PROCESSES)


def finished(out):
    """When the last file of each finished scan was written."""
    files = {f"{scan}": [out / f"{scan}{end}" for end in OUTPUTS] for scan in range(SCANS)}
    whole = {scan: parts for scan, parts in files.items() if all(file.exists() for file in parts)}
    return {scan: max(file.stat().st_mtime_ns for file in parts) for scan, parts in whole.items()}


def wait_until(true, pause=0.001):
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(pause)


def process_of(launcher, rank):
    """The process of a rank, once it is there."""
    for process in psutil.Process(launcher.pid).children():
        if process.environ().get("RANK") == str(rank):
            return process
    return None


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """A list of scans, one of which is missing and one of which is no image."""
    folder = tmp_path_factory.mktemp("scans")
    save_scan(folder / "0.nii.gz", (12, 12, 3))
    files = [folder / f"{scan}.nii.gz" for scan in range(SCANS)]
    for file in files[1:]:
        shutil.copy(files[0], file)
    (folder / "text.nii.gz").write_text("no image")
    listed = folder / "scans.txt"
    listed.write_text("\n".join(map(str, ["# scans", *files, "", folder / "nowhere.nii.gz", folder / "text.nii.gz"])))
    return listed, files


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def killed(scans, out, weights):
    """What a run had finished of which one process was killed in the middle of a scan, while the others waited."""
    slow, rank = scans[1][SLOW], SLOW % PROCESSES
    tiny = slow.read_bytes()
    save(slow, np.zeros((1024, 1024, 20), np.int16), np.diag([1.0, 1.0, 4.0, 1.0]))
    process = command(scans[0], out, weights).start()
    try:
        expected = {str(scan) for scan in range(SCANS) if scan % PROCESSES != rank or scan < SLOW}
        wait_until(lambda: set(finished(out)) == expected or process.poll() is not None, pause=0.3)
        process_of(process, rank).kill()
        errors = process.communicate(timeout=LIMIT)[1]
        assert process.returncode == 1 and "the same command with --resume true goes on." in errors
        assert "gloo" not in errors  # which the others were told by
    finally:
        process.kill()
        process.communicate()
    slow.write_bytes(tiny)
    (out / f"{SLOW + PROCESSES}_interp.nii.gz").write_text("not finished without the files beside it")
    return finished(out)


@pytest.fixture(scope="module")
def restarted(killed, scans, out, weights):
    return run(command(scans[0], out, weights, resume="true"))


def test_only_what_is_left_is_done(killed, restarted, out):
    left = [str(scan) for scan in range(SLOW, SCANS, PROCESSES)]
    assert len(killed) == SCANS - len(left)
    assert f"{len(killed)} of {SCANS + 2} inputs are finished already" in restarted.stdout
    done = [
        Path(line.split()[1]).name.removesuffix(".nii.gz") for line in restarted.stdout.splitlines() if " -> " in line
    ]
    assert sorted(done) == sorted(left)
    after = finished(out)
    assert len(after) == SCANS and {scan: after[scan] for scan in killed} == killed


def test_every_scan_is_right(restarted, scans, out):
    observed = np.asarray(nib.load(scans[1][0]).dataobj)
    for scan in (0, SLOW, SCANS - 1):
        image = nib.load(out / f"{scan}_interp.nii.gz")
        assert image.shape == (12, 12, 9)
        np.testing.assert_array_equal(np.asarray(image.dataobj)[..., ::4], observed)
        assert json.loads((out / f"{scan}_interp.json").read_text())["Sources"] == [f"{scan}.nii.gz"]
    expected = {f"{scan}{end}" for scan in range(SCANS) for end in OUTPUTS} | {FAILURES}
    assert {name for name in names(out) if not name.startswith(".")} == expected


def test_failures_are_told_once(restarted, scans, out):
    """Each in a line when it happens, and all of all processes at the end, which are in a file, too."""
    folder, count = scans[0].parent, SCANS + 2
    assert restarted.status == 1
    (last,) = (line for line in restarted.error_lines if line.startswith("error: "))  # the launcher tells, too
    assert last.startswith(f"error: 2 of {count} inputs failed: {folder / 'nowhere.nii.gz'}: ")
    assert f" | {folder / 'text.nii.gz'}: " in last
    failed = sorted(line.split("]")[0] for line in restarted.failed_lines if line.startswith("["))
    assert failed == [f"[{number}/{count}" for number in (count - 1, count)]
    with (out / FAILURES).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["input"] for row in rows] == [str(folder / name) for name in ("nowhere.nii.gz", "text.nii.gz")]
    assert all(row["reason"] and row["reason"] in last for row in rows)


@pytest.mark.parametrize("bundle", sorted(path.name for path in BUNDLES.iterdir()))
def test_overlay_is_that_of_every_bundle(bundle):
    """It runs what the bundle's inference runs, after the processes have met."""
    overlay, inference = content(bundle, "multi_gpu_inference"), content(bundle, "inference")
    assert overlay == content("asi", "multi_gpu_inference")
    assert "run" not in overlay and set(inference["imports"]) <= set(overlay["imports"])


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


def check_whole(folder, values=None):
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


def is_stopped_while_writing(pid, folder, parts):
    """Stop a process; let it go on unless there are more temporary files than so many."""
    process = psutil.Process(pid)
    process.suspend()
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED)
    if len(check_whole(folder)[1]) > parts:
        return True
    process.resume()
    return False


def test_killed_while_saving(tmp_path):
    rng = random.Random(0)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8", "bufsize": 1}
    with subprocess.Popen([sys.executable, "-c", _WRITER], cwd=ROOT, **pipes) as writer:
        values, interrupted, replaced = None, 0, 0
        for k in range(KILLS):
            folder = tmp_path / str(k % 4)  # some with files of runs before
            old = {name: (folder / name).stat().st_mtime_ns for name in check_whole(folder)[0]}
            before = len(check_whole(folder)[1])
            print(folder, file=writer.stdin, flush=True)
            child = int(writer.stdout.readline())
            wait_until(folder.exists)
            if values is None:  # once it is given time for one file
                wait_until((folder / "0_interp.nii.gz").exists)
                values = np.asarray(nib.load(folder / "0_interp.nii.gz").dataobj)
            if k % 2:
                wait_until(lambda: is_stopped_while_writing(child, folder, before))  # noqa: B023
            else:
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
