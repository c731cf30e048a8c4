# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""The process of one series: its end, whatever it is, costs that series alone; its UIDs are the same each time."""

import subprocess
import sys
import threading

import numpy as np
import psutil
import pydicom
import pytest
from pydicom.uid import RLELossless

from monai_sliceinterp.cli import node_child
from monai_sliceinterp.dicom import derivation
from monai_sliceinterp.dicom_node import storage
from monai_sliceinterp.dicom_node.interpolating import interpolate_series
from tests.dicom_node.conftest import wait_until

UID = "1.2.826.0.1.3680043.8.498.1"


@pytest.mark.parametrize(
    ("code", "timeout", "state", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 600, "failed", "its process was ended by SIGSEGV"),
        ("import time; time.sleep(600)", 0.2, "failed", "took longer than 0.2 s; expected a larger --timeout"),
        ("import time; time.sleep(600)", 600, "stopped", None),
        ("import sys; sys.exit(3)", 600, "failed", "its process ended with status 3; MONAI_DEBUG=true "),
        (f"sys.exit(f'error: {{sys.argv[1]}}: {UID} is bad.')", 600, "failed", "(UID) is bad."),
        ("print(f'{sys.argv[1]}: nothing is written')", 600, "skipped", "nothing is written"),
        ("import pathlib; pathlib.Path(sys.argv[2], 'result').mkdir()", 600, "sending", None),
    ],
)
def test_ends(tmp_path, code, timeout, state, reason):
    command = (sys.executable, "-c", f"import sys; {code}")
    stop = threading.Event()
    if state == "stopped":
        stop.set()
    outcome = interpolate_series(tmp_path / "q" / "5f", tmp_path / "out", (), timeout, stop, command)
    assert outcome.state == state
    assert (outcome.reason or "").startswith(reason or "")


def test_ends_with_the_node():
    """Also where the node is killed: nobody works for nobody."""
    code = "from monai_sliceinterp.cli.node_child import _end_with_parent; import time; _end_with_parent(); "
    code += "print('begun', flush=True); time.sleep(3600)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"begun\n"
        process.stdin.close()
        wait_until(lambda: not psutil.pid_exists(process.pid) or process.poll() == 1)


def test_uids_follow_from_the_content(tmp_path, series):
    """The same each time, and of no other series: another factor, another source."""

    def derived(source, out, *options):
        assert node_child.main([str(source), str(tmp_path / out), "--method", "linear", *options]) == 0
        return [pydicom.dcmread(path) for path in sorted((tmp_path / out / "result").iterdir())]

    source = series("a")[0].parent
    other = series("b", multi_frame=True, transfer_syntax=RLELossless)[0].parent
    first, again = derived(source, "1", "--factor", "2"), derived(source, "2", "--factor", "2")
    rest = derived(source, "3", "--factor", "4") + derived(other, "4", "--factor", "2")
    for name in ("SeriesInstanceUID", "SOPInstanceUID"):
        values = [item[name].value for item in first]
        assert values == [item[name].value for item in again]
        assert not {*values} & {item[name].value for item in rest}
    assert len({item.SOPInstanceUID for item in first}) == 5 and len({item.SeriesInstanceUID for item in first}) == 1
    assert all(item.SOPInstanceUID == item.file_meta.MediaStorageSOPInstanceUID for item in first)
    np.testing.assert_allclose([item.ImagePositionPatient[2] for item in first], [0, 2, 4, 6, 8])


def test_result_that_cannot_be_written(tmp_path, series, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "part").touch()
    source = series("a")[0].parent
    assert node_child.main([str(source), str(tmp_path / "out"), "--method", "linear", "--factor", "2"]) == 1
    assert capsys.readouterr().err == f"error: [Errno 17] File exists: '{tmp_path / 'out' / 'part'}'\n"
    assert not (tmp_path / "out" / "result").exists()


def test_takes_what_can_be_derived_from():
    assert set(storage.SOP_CLASSES) == set(derivation._SINGLE_FRAME)
