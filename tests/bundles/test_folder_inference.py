# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""A folder or a list of scans divided among processes: each scan once; killed runs leave whole files or none."""

import json
import os
import random
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
from tests.bundles.bundle_commands import BUNDLES, LIMIT, ROOT, bundle_command, content, names, run, save_scan

SCANS = 10
OUTPUTS = ("_interp.nii.gz", "_interp.json", "_interp_provenance.nii.gz")


def command(listed, out, weights, **options):
    given = {"input": listed, "output_dir": out, "ckpt": weights, "factor": 4, "provenance": "true", **options}
    return replace(bundle_command("asi", "inference", ["multi_gpu_inference"], given), processes=2)


def finished(out):
    """When the last file of each finished scan was written."""
    files = {f"{scan}": [out / f"{scan}{end}" for end in OUTPUTS] for scan in range(SCANS)}
    whole = {scan: parts for scan, parts in files.items() if all(file.exists() for file in parts)}
    return {scan: max(file.stat().st_mtime_ns for file in parts) for scan, parts in whole.items()}


def kill(pid):
    """Kill a launcher and its processes at once, so that none can say goodbye."""
    launcher = psutil.Process(pid)
    processes = [*launcher.children(recursive=True), launcher]
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=30)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """A list of scans, one of which is missing and one of which is no image."""
    folder = tmp_path_factory.mktemp("scans")
    files = [save_scan(folder / f"{seed}.nii.gz", (112, 112, 12), seed=seed) for seed in range(SCANS)]
    (folder / "text.nii.gz").write_text("no image")
    lines = ["# scans", *files[:3], folder / "nowhere.nii.gz", "", *files[3:], folder / "text.nii.gz"]
    listed = folder / "scans.txt"
    listed.write_text("\n".join(map(str, lines)))
    return listed, files


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def killed(scans, out, weights):
    """What a run had finished that was killed at some moment."""
    process = command(scans[0], out, weights).start()
    try:
        while len(finished(out)) < 2 and process.poll() is None:
            time.sleep(0.05)
    finally:
        kill(process.pid)
        process.communicate()
    (out / "9_interp.nii.gz").write_text("without the files beside it, this scan is not finished")
    return finished(out)


@pytest.fixture(scope="module")
def restarted(killed, scans, out, weights):
    return run(command(scans[0], out, weights, resume="true"))


def done_lines(lines):
    """Names of the scans that a run says it has done."""
    return sorted(Path(line.split()[1]).name.removesuffix(".nii.gz") for line in lines if " -> " in line)


def test_only_what_is_left_is_done(killed, restarted, out):
    assert 2 <= len(killed) < SCANS  # else nothing was tested
    assert f"{len(killed)} of {SCANS + 2} inputs are finished already" in restarted.stdout
    every = [str(scan) for scan in range(SCANS)]
    assert done_lines(restarted.stdout.splitlines()) == [scan for scan in every if scan not in killed]
    after = finished(out)
    assert sorted(after) == every
    assert {scan: after[scan] for scan in killed} == killed


def test_every_scan_is_right(restarted, scans, out):
    for file in scans[1]:
        observed, scan = nib.load(file), file.name.removesuffix(".nii.gz")
        image = nib.load(out / f"{scan}_interp.nii.gz")
        assert image.shape == (112, 112, 45)
        np.testing.assert_array_equal(np.asarray(image.dataobj)[..., ::4], np.asarray(observed.dataobj))
        told = json.loads((out / f"{scan}_interp.json").read_text())
        assert told["Sources"] == [file.name]
    expected = sorted(f"{scan}{end}" for scan in range(SCANS) for end in OUTPUTS)
    assert [name for name in names(out) if not name.startswith(".")] == expected


def test_failures_are_told_once(restarted, scans):
    """Each in a line when it happens, and all of all processes at the end."""
    folder = scans[0].parent
    assert restarted.status == 1
    (last,) = (line for line in restarted.error_lines if line.startswith("error: "))  # the launcher tells, too
    assert last.startswith(f"error: 2 of {SCANS + 2} inputs failed: {folder / 'nowhere.nii.gz'}: ")
    assert f" | {folder / 'text.nii.gz'}: " in last
    assert sorted(line.split("]")[0] for line in restarted.failed_lines if line.startswith("[")) == ["[12/12", "[4/12"]


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


def wait_for(path):
    end = time.monotonic() + LIMIT
    while not path.exists():
        assert time.monotonic() < end, f"{path} was not written"
        time.sleep(0.001)


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
    assert interrupted >= 2 and replaced > 0  # else nothing was tested
