# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""The PACS node between pynetdicom's own nodes: what is taken, refused, done once, tried again, and told."""

import errno
import json
import os
import re
import threading
import time

import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association

from monai_sliceinterp.dicom_node import node as node_module
from monai_sliceinterp.dicom_node import queue as queue_module
from monai_sliceinterp.dicom_node.interpolating import Outcome
from monai_sliceinterp.dicom_node.journal import pseudonym
from monai_sliceinterp.dicom_node.queue import SeriesQueue
from monai_sliceinterp.dicom_node.sending import UnreachableError, send_series
from tests.dicom_node.conftest import Archive, copying, page, send, wait_until
from tests.dicom_series import SECRETS

FULL = 0xA700


def until(node, **counts):
    """Wait until the node has counted so many series in these states, and nothing is in work."""
    wanted = {"receiving": 0, "working": 0, "sending": 0, **counts}
    wait_until(lambda: {name: node.queue.counts()[name] for name in wanted} == wanted, wanted)


def lines(capsys, event="series"):
    return [line for line in map(json.loads, capsys.readouterr().out.splitlines()) if line["event"] == event]


def uids(files):
    return sorted(pydicom.dcmread(path).SOPInstanceUID for path in files)


def test_good_and_broken_series(start, series, archive, capsys):
    """Each is done on its own; one line each, which tells no patient; all files are gone."""
    good, broken = series("good"), series("broken", tags={"ImageComments": "broken"})
    node = start()
    assert send(node, broken) == send(node, good) == [0, 0, 0]
    until(node, done=1, failed=1)
    assert sorted(image.SOPInstanceUID for image in archive.images) == uids(good)
    status, content = page(node.health_port)
    assert (status, content["status"], content["destination"]) == (200, "ok", "ok")
    node.stop()
    out = capsys.readouterr().out
    told = {line["state"]: line for line in map(json.loads, out.splitlines()) if line["event"] == "series"}
    uid = pydicom.dcmread(good[0]).SeriesInstanceUID
    assert told["failed"]["reason"] == "is broken"
    assert {**told["done"], "time": "", "seconds": ""} == {
        **{"time": "", "event": "series", "series": pseudonym(uid), "state": "done", "seconds": ""},
        **{"slices_in": 3, "slices_out": 3},
    }
    records = [path.read_text() for path in node.queue.folder.rglob("*.json")]
    assert len(records) == 2 and not list(node.queue.folder.rglob("*.dcm"))
    for text in (out, *records):
        assert not any(secret in text for secret in (*SECRETS, uid, uid.rpartition(".")[0], *uids(good)))


@pytest.mark.parametrize(
    "options", [{"transfer_syntax": "1.2.840.10008.1.2.5"}, {"multi_frame": True}, {"modality": "MR"}]
)
def test_what_is_taken(start, series, options):
    node = start(lambda *_: Outcome("skipped", "is a test"))
    assert set(send(node, series("a", **options))) == {0}
    until(node, skipped=1)


def test_who_may_send(start, series, capsys):
    node = start()
    assert send(node, []) == [0]  # C-ECHO
    assert send(node, series("a"), calling="STRANGER") is None
    assert send(node, [], called="OTHER") is None
    assert [line["calling"] for line in lines(capsys, "rejected")] == ["STRANGER", "SCANNER"]
    assert sum(node.queue.counts().values()) == 0


@pytest.mark.parametrize("tag", ["SeriesInstanceUID", "StudyInstanceUID"])
def test_no_series(start, series, tag):
    assert send(start(), series("a", tags={tag: None})) == [0xC000] * 3


def test_full_queue(start, series, archive):
    """Further series are refused as out of resources, those begun are taken whole, and later there is room."""
    release = threading.Event()

    def slow(*args):
        wait_until(release.is_set)
        return copying(*args)

    node = start(slow, max_series=1)
    first, second = series("a"), series("b")
    assert send(node, first[:2], complete=False) + send(node, first[2:]) == [0, 0, 0]
    assert send(node, second) == [FULL] * 3
    assert page(node.health_port)[0] == 503 and page(node.health_port)[1]["status"] == "queue full"
    release.set()
    until(node, done=1)
    assert send(node, second) == [0, 0, 0]
    until(node, done=2)
    assert len(archive.images) == 6


def test_full_disk(start, series, monkeypatch, capsys):
    """Nothing is taken, nothing of it stays, and it is told once."""
    node, files = start(), series("a")

    def full(path, content):
        path.write_bytes(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(queue_module, "write_durably", full)
        assert send(node, files) == [FULL] * 3
    assert not list(node.queue.folder.rglob("*.dcm")) and not list((node.queue.folder / "scratch").iterdir())
    (line,) = lines(capsys, "refused")
    assert line["reason"] == "cannot be written (No space left on device)"
    monkeypatch.setattr(node.queue, "min_free", 1 << 60)
    assert send(node, files) == [FULL] * 3
    assert page(node.health_port)[1]["status"] == "disk full"
    monkeypatch.undo()
    assert send(node, files) == [0, 0, 0]
    until(node, done=1)


@pytest.mark.parametrize("of_node", [False, True])
def test_full_disk_while_interpolating(start, series, capsys, of_node):
    """It is tried again, whoever finds it out."""
    attempts = []

    def third_time(*args):
        attempts.append(1)
        if of_node and len(attempts) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        reason = "out: no space is left on the disk to write it; expected more room."
        return copying(*args) if len(attempts) > 2 else Outcome("failed", reason)

    node = start(third_time)
    send(node, series("a"))
    until(node, done=1)
    told = ["No space left on device; tried again"] if of_node else ["no space is left on the disk; tried again"] * 2
    assert len(attempts) == 3 and [line["reason"] for line in lines(capsys, "disk")] == told


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_thread_that_has_ended(start, series):
    """The health page tells it, and has no other page."""

    def end(*_):
        raise SystemExit

    node = start(end)
    assert page(node.health_port, "/health/")[0] == 404
    send(node, series("a"))
    wait_until(lambda: page(node.health_port)[0] == 503)
    assert page(node.health_port, "/")[1]["status"] == "a thread has ended: start the node again"


def test_series_that_ends_every_node(tmp_path, start, capsys):
    """It has failed after three attempts; of what is no DICOM, nobody asks who wrote it."""
    queue = SeriesQueue(tmp_path / "queue", 2, 0)
    queue.add("1.2.3", "1.2.3.4", b"no DICOM")
    assert [queue.take(0).attempts for _ in range(3)] == [1, 2, 3]
    queue.close()
    until(node := start(), failed=1)
    node.stop()
    assert [line["reason"] for line in lines(capsys)] == ["its interpolation was interrupted 3 times"]


@pytest.mark.parametrize(
    ("damage", "status", "reason"),
    [
        ("cut off", 0xC000, "its data set cannot be read"),
        ("other", 0xA900, "its data set is of another instance than the request says"),
    ],
)
def test_damaged_on_the_way(start, series, monkeypatch, capsys, damage, status, reason):
    """The request is made from the header of a file, and its data set goes as it is."""
    path = series("a", transfer_syntax=DeflatedExplicitVRLittleEndian)[0]
    data = pydicom.dcmread(path)
    if damage == "other":
        data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        data.save_as(path)
    else:
        path.write_bytes(path.read_bytes()[:-9])
    monkeypatch.setattr("pynetdicom._config.STORE_SEND_CHUNKED_DATASET", True)
    node, entity = start(), AE(ae_title="SCANNER")
    entity.add_requested_context(data.SOPClassUID, DeflatedExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", node.port, ae_title="SLICEINTERP")
    assert association.send_c_store(path).Status == status
    association.release()
    told = [(line["status"], line["reason"]) for line in lines(capsys, "refused")]
    assert told == [(f"0x{status:04X}", reason)] and sum(node.queue.counts().values()) == 0


def test_nothing_is_done_twice(start, series, archive, capsys):
    """What is sent again is known, also by the next node; further instances alone are no series; a whole one is."""
    files = series("a", slices=5)
    node = start()
    for sent, state in ((files[:3], "done"), (files[:3], "known"), (files[1:2], "known"), (files[3:], "failed")):
        send(node, sent)
        (line,) = wait_until(lambda: lines(capsys), state)
        assert line["state"] == state
        node.stop()
        node = start()
    assert len(archive.images) == 3
    send(node, files)
    until(node, done=1, failed=0)
    assert len(archive.images) == 3 + 5


def test_its_own_series_does_not_come_back(start, series, archive):
    node = start()
    send(node, series("a", tags={"ImageType": ("DERIVED", "SECONDARY", "AXIAL", "OBSERVED")}))
    until(node, skipped=1)
    assert not archive.images


def test_destination_comes_back(start, series, archive, capsys, monkeypatch):
    """While it is away or has no room, series wait, others are interpolated, and it is told once."""
    monkeypatch.setattr(node_module, "_MAX_PAUSE", 0.1)
    archive.entity.require_calling_aet = ["OTHER"]
    node = start()
    for name in ("a", "b"):
        send(node, series(name))
    until(node, sending=2)
    where = f"ARCHIVE at 127.0.0.1:{archive.peer.port}"
    reasons = [f"{where} rejects the calling AE title SLICEINTERP, or is called otherwise"]
    wait_until(lambda: page(node.health_port)[1]["destination"] == reasons[-1])
    archive.status, archive.entity.require_calling_aet = FULL, []
    reasons.append(f"{where} has no room (status 0xA700)")
    wait_until(lambda: page(node.health_port)[1]["destination"] == reasons[-1])
    archive.status = "abort"
    reasons.append(f"{where} broke off at instance 1 of 3")
    wait_until(lambda: page(node.health_port)[1]["destination"] == reasons[-1])
    node.stop()
    archive.entity.shutdown()
    node = start()
    reasons.append(f"{where} cannot be reached")
    wait_until(lambda: page(node.health_port)[1]["destination"] == reasons[-1])
    assert [line["reason"] for line in lines(capsys, "destination")] == [f"{text}; tried again" for text in reasons]
    node.stop()
    other = Archive(syntax="1.2.840.10008.1.2")  # implicit VR, which every node takes
    node = start(destination=other.peer)
    until(node, done=2)
    other.entity.shutdown()
    assert len(other.images) == 6


@pytest.mark.parametrize(
    ("modality", "reason"),
    [("CT", "refuses instance 1 of 3 with status 0xC001"), ("MR", "takes no MR Image Storage")],
)
def test_destination_refuses(start, series, archive, capsys, modality, reason):
    archive.status = 0xC001
    node = start()
    send(node, series("a", modality=modality))
    (line,) = wait_until(lambda: lines(capsys))
    assert line["reason"] == f"ARCHIVE at 127.0.0.1:{archive.peer.port} {reason}"


def test_destination_ends_between_instances(series, archive):
    class Stop:
        def is_set(self):
            for association in archive.entity.active_associations if archive.images else ():
                association.abort()
                wait_until(lambda: not any(isinstance(thread, Association) for thread in threading.enumerate()))
            return False

    text = f"ARCHIVE at 127.0.0.1:{archive.peer.port} broke off at instance 2 of 3"
    with pytest.raises(UnreachableError, match=f"^{re.escape(text)}$"):
        send_series(series("a"), archive.peer, "SLICEINTERP", Stop())


@pytest.mark.parametrize(("images", "done"), [(1, 0), (3, 1)])
def test_stopped_while_sending(start, series, archive, capsys, monkeypatch, images, done):
    """Within a series, which is sent again, or behind one; the rest is for the next node, and it is no failure."""
    monkeypatch.setattr(node_module, "_MAX_PAUSE", 0.1)
    archive.status = FULL
    node = start()
    for name in ("a", "b"):
        send(node, series(name))
    until(node, sending=2)
    wait_until(lambda: "has no room" in page(node.health_port)[1]["destination"])

    class Images(list):
        def append(self, image):
            super().append(image)
            if len(self) == images:
                node._stop.set()

    archive.images, archive.status = Images(), 0
    wait_until(node._stop.is_set)
    node.stop()
    assert len(archive.images) == images and len(lines(capsys, "destination")) == 1
    assert {name: count for name, count in node.queue.counts().items() if count} == {
        **{"sending": 2 - done},
        **({"done": done} if done else {}),
    }
    node = start()
    until(node, done=2)
    assert len(archive.images) == images + 3 * (2 - done)


def test_stopped_in_the_middle(start, series, archive):
    """A series in work is done by the next node; that does not count as a failure of it."""
    begun = threading.Event()

    def until_stopped(source, out, options, timeout_seconds, stop):
        begun.set()
        stop.wait()
        return Outcome("stopped")

    node = start(until_stopped)
    send(node, series("a"))
    wait_until(begun.is_set)
    node.stop()
    assert node.queue.counts()["working"] == 1
    node = start()
    until(node, done=1)
    assert len(archive.images) == 3


def test_forgets(tmp_path):
    """Records of the days to keep stay."""
    queue = SeriesQueue(tmp_path, 2, 0)
    for name, days in (("1.2.3", 3), ("1.2.4", 1)):
        queue.add(name, f"{name}.1", b"instance")
        queue.finish(queue.take(0), "skipped", "is a test")
        moment = time.time() - days * 86400
        os.utime(tmp_path / "skipped" / f"{pseudonym(name)}.json", (moment, moment))
    queue.forget(2)
    assert os.listdir(tmp_path / "skipped") == [f"{pseudonym('1.2.4')}.json"]


STEPS = ("received", "taken", "interpolated", "moved", "recorded")


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_moment(tmp_path, monkeypatch, step):
    """A queue that ends between two changes of state: the next has the series once, in the right state."""
    queue = SeriesQueue(tmp_path, 2, 0)
    queue.add("1.2.3", "1.2.3.4", b"instance")
    monkeypatch.setattr(queue, "_discard", lambda folder: None)  # what a kill leaves
    (tmp_path / "scratch" / "part").mkdir()
    if step != "received":
        job = queue.take(0)
    if step in ("interpolated", "moved", "recorded"):
        result = tmp_path / "scratch" / "result"
        result.mkdir()
        (result / "0001.dcm").write_bytes(b"result")
    if step in ("moved", "recorded"):
        queue.to_sending(job, result)
    if step == "recorded":
        queue.finish(queue.sending()[0], "done", slices=1)
    queue.close()
    queue = SeriesQueue(tmp_path, 2, 0)
    state = dict(zip(STEPS, ("receiving", "working", "working", "sending", "done"), strict=True))[step]
    assert queue.counts() == {**dict.fromkeys(queue.counts(), 0), state: 1}
    assert not list((tmp_path / "scratch").iterdir())
    if state == "working":
        assert queue.take(60).attempts == 2
    with pytest.raises(ValueError, match="is the queue of a node that runs"):
        SeriesQueue(tmp_path, 2, 0)
