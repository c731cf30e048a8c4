# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Memory that is left: of the machine, or below the limits of control groups."""

from unittest.mock import Mock

import pytest

from monai_sliceinterp import memory

VERSION_1 = {
    "memory.limit_in_bytes": 500,
    "memory.usage_in_bytes": 450,
    "memory.stat": "inactive_file 20\ntotal_inactive_file 30\n",
}


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"memory.max": 1000, "memory.current": 700, "memory.stat": "anon 600\ninactive_file 100\nfile 100\n"}, [400]),
        ({"memory.max": 1000, "memory.current": 1100, "memory.stat": "anon 1100\n"}, [0]),
        ({"memory.max": "max", "memory.current": 700, "memory.stat": ""}, []),
        ({"memory.max": 1000, "memory.current": 700}, []),
        (VERSION_1, [70]),
        ({}, []),
    ],
)
def test_limits(files, left, tmp_path, monkeypatch):
    """Pages of files that nobody uses are free; the group of the process lies below that of its container."""
    own = tmp_path / "jobs" / "mine"
    own.mkdir(parents=True)
    for name, value in files.items():
        (own / name).write_text(f"{value}\n")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_own_groups", lambda: ["0::/jobs/mine\n"])
    assert memory._limits(tmp_path) == left
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: Mock(available=5000))
    assert memory.free_memory() == min([*left, 5000])


def test_system_without_control_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "Path", Mock(return_value=tmp_path / "cgroup"))
    assert memory._own_groups() == [] == memory._limits(tmp_path)
