# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Temporary files of dead processes are swept, those of live ones and everybody else's files are not."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import uuid
import zlib
from unittest.mock import Mock

import psutil
import pytest

from monai_sliceinterp import temporary
from monai_sliceinterp.command_line import check_writable
from monai_sliceinterp.files import atomic_folder, atomic_path
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
    (tmp_path / "file").touch()
    discard(tmp_path / "file" / "in it")  # which cannot be
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c", "file"]


def test_folder_that_is_not_replaced(tmp_path):
    """What was there comes back where its replacement is lost in the last moment."""
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "old.dcm").touch()
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "series") as part:
        part.rmdir()
    assert os.listdir(tmp_path) == ["series"] and os.listdir(tmp_path / "series") == ["old.dcm"]


def test_full_disk_is_told_with_the_name(tmp_path):
    with pytest.raises(OSError) as caught, atomic_path(tmp_path / "scan.nii"):
        raise OSError(28, "No space left on device")
    assert (caught.value.errno, caught.value.filename) == (28, str(tmp_path / "scan.nii")) and not os.listdir(tmp_path)


def test_where_little_can_be_known(tmp_path, monkeypatch):
    """A system without names of process spaces, and a process of somebody else: its file is left."""
    monkeypatch.setattr(temporary.os, "stat", Mock(side_effect=OSError))
    machine = temporary._machine.__wrapped__()
    monkeypatch.undo()
    assert machine == f"{zlib.crc32(f'{platform.node()} {uuid.getnode()} 0'.encode()):08x}" != temporary._machine()
    (tmp_path / f".a.part-{temporary._machine()}-1-1-01234567").touch()
    monkeypatch.setattr(temporary.psutil, "Process", Mock(side_effect=psutil.AccessDenied))
    assert sweep(tmp_path) == []
    monkeypatch.undo()
    assert len(sweep(tmp_path)) == 1


def test_long_names(tmp_path):
    """A name that a file system takes has a temporary one that it takes as well."""
    name = "é" * 120 + ".nii.gz"
    with atomic_path(tmp_path / name) as part:
        part.write_text("whole")
    assert os.listdir(tmp_path) == [name]
