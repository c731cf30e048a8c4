# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Temporary files of dead processes are swept, those of live ones and everybody else's files are not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from monai_sliceinterp.command_line import check_writable
from monai_sliceinterp.files import atomic_path
from monai_sliceinterp.temporary import discard, sweep, temporary_name

WRITER = """
import sys
from pathlib import Path
from monai_sliceinterp.files import atomic_path
with atomic_path(Path(sys.argv[1]) / "scan_interp.nii.gz") as part:
    part.write_text("half")
    print(part.name, flush=True)
    sys.stdin.read()
"""


@pytest.fixture()
def writer(tmp_path):
    """A process in the middle of writing, and the name of its file."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], **pipes)
    yield process, process.stdout.readline().strip()
    process.kill()
    process.communicate()


def test_of_a_process(tmp_path, writer):
    """Kept while it lives, gone when it is dead; its number may have another process by then."""
    process, name = writer
    assert name.startswith(".scan_interp.part-") and name.endswith(".nii.gz")
    check_writable(tmp_path)
    assert os.listdir(tmp_path) == [name]
    process.kill()
    process.wait()
    assert sweep(tmp_path) == [name] and not os.listdir(tmp_path)


def test_other_process_of_the_same_number(tmp_path):
    own = temporary_name(tmp_path / "scan.nii.gz", "scan").name
    machine, pid, start, rest = own.split("part-")[1].split("-")
    earlier = f".scan.part-{machine}-{pid}-{int(start) - 1000}-{rest}"
    elsewhere = f".scan.part-00000000-{pid}-{int(start) - 1000}-{rest}"
    others = [elsewhere, own, ".scan.part-x1.nii.gz", "scan.nii.gz", ".notes"]
    for name in (earlier, *others):
        (tmp_path / name).touch()
    assert sweep(tmp_path) == [earlier] and sorted(os.listdir(tmp_path)) == sorted(others)


def test_folders(tmp_path):
    """A half one goes; one that was moved aside comes back if its replacement never came; links are not followed."""
    for name in ("a", "b"):
        (tmp_path / "elsewhere" / name).mkdir(parents=True)
    dead = "-".join(temporary_name(tmp_path / "a", "a").name.split("-")[1:2]) + "-1-1-01234567"
    for name in (f".a.part-{dead}", f".a.old-{dead}", f".b.old-{dead}", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0001.dcm").touch()
    (tmp_path / f".c.old-{dead}").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "c").mkdir()
    assert len(sweep(tmp_path)) == 4
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c", "elsewhere"] and os.listdir(tmp_path / "a") == ["0001.dcm"]
    assert len(os.listdir(tmp_path / "elsewhere")) == 2
    discard(tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_long_names(tmp_path):
    """A name that a file system takes has a temporary one that it takes as well."""
    name = "é" * 120 + ".nii.gz"
    with atomic_path(tmp_path / name) as part:
        part.write_text("whole")
    assert os.listdir(tmp_path) == [name]
