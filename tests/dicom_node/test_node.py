# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""The PACS node between pynetdicom's own nodes: what is taken, refused, done once, tried again, and told."""

import errno
import json
import threading

import pydicom
import pytest

from monai_sliceinterp.dicom_node import queue as queue_module
from monai_sliceinterp.dicom_node.interpolating import Outcome
from monai_sliceinterp.dicom_node.journal import pseudonym
from monai_sliceinterp.dicom_node.queue import SeriesQueue
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


def test_full_disk_while_interpolating(start, series, capsys):
    """It is tried again."""
    attempts = []

    def second_time(*args):
        attempts.append(1)
        reason = "out: no space is left on the disk to write it; expected more room."
        return copying(*args) if len(attempts) > 1 else Outcome("failed", reason)

    node = start(second_time)
    send(node, series("a"))
    until(node, done=1)
    assert len(attempts) == 2 and len(lines(capsys, "disk")) == 1


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


def test_destination_comes_back(start, series, archive, capsys):
    """While it is away or has no room, series wait, others are interpolated, and it is told once."""
    archive.status = FULL
    node = start()
    for name in ("a", "b"):
        send(node, series(name))
    until(node, sending=2)
    wait_until(lambda: "has no room (status 0xA700)" in page(node.health_port)[1]["destination"])
    node.stop()
    archive.entity.shutdown()
    node = start()
    wait_until(lambda: "cannot be reached" in page(node.health_port)[1]["destination"])
    assert len(lines(capsys, "destination")) == 2
    node.stop()
    other = Archive(syntax="1.2.840.10008.1.2")  # implicit VR, which every node takes
    node = start(destination=other.peer)
    until(node, done=2)
    other.entity.shutdown()
    assert len(other.images) == 6


def test_destination_refuses(start, series, archive, capsys):
    archive.status = 0xC001
    node = start()
    send(node, series("a"))
    (line,) = wait_until(lambda: lines(capsys))
    assert line["reason"].endswith("refuses instance 1 of 3 with status 0xC001")


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
