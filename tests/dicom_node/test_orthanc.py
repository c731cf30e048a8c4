# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""The PACS node beside a real Orthanc, as the documentation sets the two up; it is killed in the middle."""

import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
import pydicom
import pytest

from tests.dicom_node.conftest import page, wait_until
from tests.dicom_series import SECRETS, write_series

ROOT = Path(__file__).resolve().parents[2]
ORTHANC = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
AFFINE = np.diag([1.5, 1.25, 4.0, 1.0])
AFFINE[:3, 3] = (-20, 10, 100)

pytestmark = pytest.mark.skipif(ORTHANC is None, reason="Orthanc is not installed: apt install orthanc")


def free_ports(count):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [opened.getsockname()[1] for opened in sockets]


class Archive:
    """Orthanc's REST API."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path, content=None):
        with urllib.request.urlopen(self.url + path, content) as answer:
            body = answer.read()
        return body if path.endswith("/file") else json.loads(body)

    def is_up(self):
        try:
            return self.get("/system")
        except OSError:
            return None

    def files(self, uid):
        """SHA-256 by instance of the series with a UID, as Orthanc has stored it."""
        (series,) = [item for item in self.get("/series?expand") if item["MainDicomTags"]["SeriesInstanceUID"] == uid]
        contents = {name: self.get(f"/instances/{name}/file") for name in series["Instances"]}
        return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


@pytest.fixture
def ports():
    return dict(zip(("DicomPort", "HttpPort", "node", "health"), free_ports(4), strict=True))


@pytest.fixture
def archive(tmp_path, ports):
    config = json.loads((ROOT / "docs/pacs_node/orthanc.json").read_text())
    config |= {name: ports[name] for name in ("DicomPort", "HttpPort")}
    config |= dict.fromkeys(("StorageDirectory", "IndexDirectory"), str(tmp_path / "db"))
    config |= {"LuaScripts": [str(ROOT / "docs/pacs_node/route.lua")], "StableAge": 3}
    config |= dict.fromkeys(("RemoteAccessAllowed", "AuthenticationEnabled"), False)
    config["DicomModalities"]["sliceinterp"][1:] = ["127.0.0.1", ports["node"]]
    (tmp_path / "db").mkdir()
    (tmp_path / "orthanc.json").write_text(json.dumps(config))
    with (tmp_path / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([ORTHANC, tmp_path / "orthanc.json"], stdout=log, stderr=log)
    try:
        archive = Archive(ports["HttpPort"])
        wait_until(lambda: process.poll() is not None or archive.is_up())
        assert process.poll() is None, (tmp_path / "orthanc.log").read_text()
        yield archive
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def start(tmp_path, ports):
    """Start ``sliceinterp serve``; what it says goes to a file."""
    processes = []

    def start():
        command = [sys.executable, "-m", "monai_sliceinterp", "serve", "--folder", tmp_path / "queue"]
        command += ["--from", "ORTHANC", "--to", f"ORTHANC@127.0.0.1:{ports['DicomPort']}", "--port", ports["node"]]
        command += ["--health", f"127.0.0.1:{ports['health']}", "--stable-age", 5, "--retry-after", 1, "--min-free", 0]
        with (tmp_path / "node.log").open("ab") as log:
            arguments = [str(word) for word in (*command, "--method", "cubic", "--spacing", 2)]
            processes.append(subprocess.Popen(arguments, stdout=log, stderr=log, cwd=ROOT))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_series_go_to_the_node_and_come_back_once(tmp_path, archive, ports, start):
    """Two series, one with a hole; a kill while the first is interpolated; the originals stay as they are."""
    values = np.random.default_rng(0).integers(-900, 900, (8, 6, 4)).astype(np.int16)
    good = write_series(tmp_path / "good", values, AFFINE)
    holed = np.repeat(values[..., :1], 20, axis=2)
    broken = write_series(tmp_path / "broken", holed, AFFINE, drop=range(3, 19), description="broken")
    uids = [pydicom.dcmread(files[0]).SeriesInstanceUID for files in (good, broken)]

    node, queue = start(), tmp_path / "queue"
    wait_until(lambda: (tmp_path / "node.log").read_text())
    for path in (*good, *broken):
        archive.get("/instances", path.read_bytes())
    before = {uid: archive.files(uid) for uid in uids}
    wait_until(lambda: any((queue / name).iterdir() for name in ("working", "sending", "done", "failed")))
    children = wait_until(lambda: psutil.Process(node.pid).children())
    node.kill()
    node.wait()
    psutil.wait_procs(children)  # they end by themselves
    assert list((queue / "working").iterdir())

    node = start()
    wait_until(lambda: len(list((queue / "done").iterdir()) + list((queue / "failed").iterdir())) == 2)
    status, content = page(ports["health"])
    assert status == 200
    node.terminate()
    assert node.wait() == 0
    assert (content["done"], content["failed"]) == (1, 1)
    lines = [json.loads(line) for line in (tmp_path / "node.log").read_text().splitlines()]
    ended = {line["state"]: line for line in lines if line["event"] == "series"}
    assert len(ended) == sum(line["event"] == "series" for line in lines) == 2
    assert "slices are missing" in ended["failed"]["reason"] and ended["done"]["slices_out"] == 7
    assert not any(secret in (tmp_path / "node.log").read_text() for secret in (*SECRETS, *uids))

    assert {uid: archive.files(uid) for uid in uids} == before
    found = archive.get("/series?expand")
    (derived,) = [item for item in found if item["MainDicomTags"]["SeriesInstanceUID"] not in uids]
    assert len(found) == 3
    contents = [archive.get(f"/instances/{name}/file") for name in derived["Instances"]]
    slices = [pydicom.dcmread(io.BytesIO(content)) for content in contents]
    slices.sort(key=lambda item: item.ImagePositionPatient[2])
    source = pydicom.dcmread(good[0])
    assert {item.StudyInstanceUID for item in slices} == {source.StudyInstanceUID}
    np.testing.assert_allclose(
        [item.ImagePositionPatient for item in slices], [(20, -10, 100 + 2 * k) for k in range(7)]
    )
    assert {tuple(item.PixelSpacing) for item in slices} == {(1.25, 1.5)}
    assert [item.ImageType[3] for item in slices] == ["OBSERVED", "SYNTHESIZED"] * 3 + ["OBSERVED"]
    for item, expected in zip(slices[::2], np.moveaxis(values, 2, 0), strict=True):
        stored = item.pixel_array.T * float(item.RescaleSlope) + float(item.RescaleIntercept)
        np.testing.assert_array_equal(stored, expected)
