# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Every bad input of the table: one line that names it, an exit status, nothing written, no absurd time or memory."""

import os
import resource
import time
from pathlib import Path

import pytest

from monai_sliceinterp.bundles import BUNDLES_VARIABLE
from tests.bad_inputs import cases, write_files

GROUPS = cases()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder that all cases are tried in, and what it holds."""
    folder = tmp_path_factory.mktemp("bad")
    write_files(folder)
    return folder, sorted(folder.rglob("*"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("group", "name"), [(group, name) for group, names in GROUPS.items() for name in names])
def test_bad_input(group, name, place, monkeypatch):
    folder, before = place
    monkeypatch.chdir(folder)
    monkeypatch.setenv(BUNDLES_VARIABLE, str(folder / "bundles"))
    run, named = GROUPS[group][name]
    seconds, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status, printed = run()
    assert status in (1, 2) and printed.startswith(("error: ", "failed: ")) and printed.count("\n") == 1, printed
    assert named in printed and len(printed.split()) > 4 and len(printed) < 700, printed
    assert sorted(folder.rglob("*")) == before and not Path(os.sep, "evil.dcm").exists()
    assert time.process_time() - seconds < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 3e6  # KiB


def test_size_of_the_table():
    assert sum(map(len, GROUPS.values())) >= 250 and all(len(names) > 15 for names in GROUPS.values())
