# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Nodes on loopback: a sender and an archive of pynetdicom, and the PACS node with an interpolation that copies."""

from __future__ import annotations

import json
import math
import shutil
import time
import urllib.error
import urllib.request

import numpy as np
import pydicom
import pytest

pytest.importorskip("pynetdicom", reason="the PACS node needs the extra dicom-node")
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, Verification

from monai_sliceinterp.dicom_node.interpolating import Outcome
from monai_sliceinterp.dicom_node.node import Node
from monai_sliceinterp.dicom_node.settings import NodeSettings, Peer
from tests.dicom_series import write_series

LIMIT = 600  # seconds after which something hangs, however busy the machine is


def wait_until(true, what="it"):
    """Poll until a function returns something true, and return that."""
    end = time.monotonic() + LIMIT
    while not (result := true()):
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.02)
    return result


def page(port, path="/health"):
    """Status and content of a health page; without content where there is no such page."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error) if error.code != 404 else None


def send(node, files, calling="SCANNER", called="SLICEINTERP", complete=True):
    """Send files in one association, after which their series is complete.

    Returns the status of each, that of C-ECHO where there are none, or None where the association is rejected.
    """
    entity = AE(ae_title=calling)
    data = [pydicom.dcmread(path) for path in files]
    syntax = data[0].file_meta.TransferSyntaxUID if data else "1.2.840.10008.1.2.1"
    entity.add_requested_context(data[0].SOPClassUID if data else CTImageStorage, syntax)
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", node.port, ae_title=called)
    if not association.is_established:
        return None
    statuses = [int(association.send_c_store(item).Status) for item in data] or [int(association.send_c_echo().Status)]
    association.release()
    if complete:
        with node.queue._lock:  # however long the machine takes from one instance to the next
            node.queue._seen = dict.fromkeys(node.queue._seen, -math.inf)
    return statuses


class Archive:
    """A destination that keeps what it gets, and answers with ``status``; "abort" ends the association instead."""

    def __init__(self, syntax="1.2.840.10008.1.2.1"):
        self.images, self.status = [], 0
        self.entity = AE(ae_title="ARCHIVE")
        self.entity.add_supported_context(CTImageStorage, syntax)
        self.server = self.entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self)])
        self.peer = Peer("ARCHIVE", "127.0.0.1", self.server.server_address[1])

    def __call__(self, event):
        status = self.status
        if status == "abort":
            event.assoc.abort()
        if not status:
            self.images.append(event.dataset)
        return status


@pytest.fixture
def archive():
    archive = Archive()
    yield archive
    archive.entity.shutdown()


@pytest.fixture
def series(tmp_path):
    """Make series of three slices; the UID is that of the series."""

    def make(name, **options):
        values = np.zeros((6, 5, options.pop("slices", 3)), np.int16)
        return write_series(tmp_path / name, values, np.diag([1.0, 1.0, 4.0, 1.0]), **options)

    return make


def copying(source, out, options, timeout_seconds, stop):
    """An interpolation that makes nothing but a copy; a series of which an instance is called broken fails."""
    out.mkdir()
    files = sorted(source.glob("*.dcm"))
    if any(pydicom.dcmread(path).get("ImageComments") == "broken" for path in files):
        return Outcome("failed", "is broken")
    (out / "result").mkdir()
    for path in files:
        shutil.copy(path, out / "result")
    return Outcome("sending", result=out / "result")


@pytest.fixture
def start(tmp_path, archive):
    """Start nodes, which are stopped at the end."""
    nodes = []

    def start(interpolate=copying, **options):
        given = {"destination": archive.peer, "stable_seconds": 1e6, "retry_seconds": 0.05, "min_free_gib": 0.0}
        given |= {"callers": ("SCANNER",), "port": 0, "health": ("127.0.0.1", 0), **options}
        nodes.append(Node(NodeSettings(tmp_path / "queue", **given), interpolate))
        nodes[-1].start()
        return nodes[-1]

    yield start
    for node in nodes:
        if not node._stop.is_set():
            node.stop()
