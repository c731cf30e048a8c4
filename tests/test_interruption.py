# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Ctrl-C and SIGTERM: the last whole epoch is saved, one line says how to go on, and errors are told once."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing.pool
import os
import signal
import threading
import time

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import CheckpointLoader
from torch import nn

from monai_sliceinterp.command_line import _is_news, one_line
from monai_sliceinterp.engines import AtomicCheckpointSaver
from monai_sliceinterp.files import atomic_path
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.interruption import Interrupted, end_on_signals, end_thread_pools, when_interrupted
from monai_sliceinterp.transforms import saving
from tests.engines.test_interpolation import run, write_scan

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.fixture(autouse=True)
def handlers(monkeypatch):
    """Signals end the process by an exception, in this test alone."""
    monkeypatch.setattr("monai_sliceinterp.interruption._ACTIONS", [])
    before = {number: signal.getsignal(number) for number in SIGNALS}
    end_on_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def train(folder, stop=lambda: None, ckpt=None, epochs=5, options="", at=11):
    """Five epochs of three steps; ``stop`` is called in the second step of the fourth one, or in another one."""
    torch.manual_seed(0)
    network = nn.Linear(3, 3)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)

    def step(engine, batch):
        optimizer.zero_grad()
        loss = ((network(batch) - batch) ** 2).mean()
        loss.backward()
        optimizer.step()
        if engine.state.iteration == at:
            stop()

    engine = Engine(step)
    engine.add_event_handler(Events.EPOCH_STARTED, lambda: torch.manual_seed(engine.state.epoch))
    saved = {"network": network, "optimizer": optimizer, "trainer": engine}
    AtomicCheckpointSaver(str(folder), saved, save_interval=4, options=options).attach(engine)
    if ckpt:
        CheckpointLoader(str(ckpt), saved).attach(engine)
    engine.run([torch.rand(2, 3, generator=torch.Generator().manual_seed(k)) for k in range(3)], max_epochs=epochs)
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def assert_equal(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("number", SIGNALS)
def test_interrupted_training(tmp_path, capfd, number):
    whole = train(tmp_path / "whole")
    path = tmp_path / "stopped" / "checkpoint.pt"
    with pytest.raises(Interrupted) as caught:
        train(path.parent, lambda: os.kill(os.getpid(), number), options="--stages rfn")
    assert caught.value.code == SIGNALS[number]
    line = f"interrupted: 3 whole epochs are saved; the same command with --ckpt {path} --stages rfn goes on, to the"
    assert capfd.readouterr().err.startswith(line) and os.listdir(path.parent) == ["checkpoint.pt"]
    assert_equal(train(tmp_path / "resumed", ckpt=path), whole)


def killed(function):
    """Run something in a process of its own that SIGKILL ends."""
    if (child := os.fork()) == 0:
        with contextlib.suppress(BaseException):
            function()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_killed_training(tmp_path):
    """In the fifth epoch, or while a checkpoint is written: the last one is whole."""
    folder, whole = tmp_path / "stopped", train(tmp_path / "whole", epochs=6)
    killed(lambda: train(folder, lambda: os.kill(os.getpid(), signal.SIGKILL), epochs=6, at=14))
    assert os.listdir(folder) == ["checkpoint_epoch=4.pt"]
    assert_equal(train(tmp_path / "resumed", ckpt=folder / "checkpoint_epoch=4.pt", epochs=6), whole)
    killed(lambda: kill_while_writing(folder, "checkpoint_epoch=4.pt"))
    assert_equal(train(folder, ckpt=folder / "checkpoint_epoch=4.pt", epochs=6), whole)
    assert not [name for name in os.listdir(folder) if name.startswith(".")]


def kill_while_writing(folder, name):
    """As a run that is killed when half a checkpoint is on the disk."""
    with atomic_path(folder / name) as part:
        part.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_interrupted_after_a_training(tmp_path, capfd):
    """Before the next stage: what is done is complete."""
    engine = Engine(lambda engine, batch: None)
    AtomicCheckpointSaver(str(tmp_path), {"network": nn.Linear(1, 1)}, save_interval=1).attach(engine)
    engine.run([0])
    with pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)
    said = f"interrupted: {tmp_path / 'checkpoint.pt'} is complete; where stages are left, the same command with --ckpt"
    assert capfd.readouterr().err == f"{said} and it goes on.\n"


def test_error_in_training(tmp_path):
    """It leaves the last whole epoch too; one in the first epoch leaves nothing."""
    with pytest.raises(ZeroDivisionError):
        train(tmp_path / "stopped", lambda: 1 / 0)
    assert_equal(train(tmp_path / "resumed", ckpt=tmp_path / "stopped" / "checkpoint.pt"), train(tmp_path / "whole"))
    engine = Engine(lambda engine, batch: 1 / 0)
    AtomicCheckpointSaver(str(tmp_path / "first"), {"network": nn.Linear(1, 1)}, save_interval=1).attach(engine)
    with pytest.raises(ZeroDivisionError):
        engine.run([0])
    assert os.listdir(tmp_path / "first") == []


def test_a_disk_that_is_full(tmp_path, capfd, monkeypatch):
    def fail():
        raise OSError(28, "No space left on device")

    with when_interrupted(lambda: "not this."), when_interrupted(fail), pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)
    assert capfd.readouterr().err == "interrupted: what was done is not saved (No space left on device).\n"


def test_nothing_to_say_and_other_processes(capfd, monkeypatch):
    for rank, said in (("0", "interrupted.\n"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        end_on_signals()
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
        assert capfd.readouterr().err == said
    end_on_signals()
    if (child := os.fork()) == 0:
        with contextlib.suppress(KeyboardInterrupt):  # as in a worker of a data loader
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7 and capfd.readouterr().err == ""


def test_threads_end_before_python(tmp_path):
    """Those of a pool that an error has closed, as of a cache of volumes of which one is refused."""
    done = []

    def load(number):
        if number == 0:
            raise ValueError("refused")
        time.sleep(0.2)
        done.append(number)

    before = set(threading.enumerate())
    with pytest.raises(ValueError), multiprocessing.pool.ThreadPool(2) as pool:
        list(pool.imap(load, range(50)))
    assert set(threading.enumerate()) > before  # one is at work
    end_thread_pools()
    assert set(threading.enumerate()) == before and len(done) < 5


def test_errors_are_told_once():
    """Not by ignite, nor by the handler that logs scores; the message of a worker is found in its traceback."""
    made = {"pathname": "", "lineno": 0, "args": (), "exc_info": None, "msg": ""}
    raised = {**made, "exc_info": (ValueError, ValueError(), None)}
    records = [("ignite.engine", made, 40), ("validate", raised, 40), ("ignite.engine", made, 20), ("other", made, 40)]
    told = [_is_news(logging.LogRecord(name, level, **values)) for name, values, level in records]
    assert told == [False, False, True, True]
    text = (
        "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File x\n"
        "ValueError: scan.nii: is too small.\n\nThe above exception was the direct cause of the following:\n\n"
        "Traceback (most recent call last):\n  File y\nRuntimeError: applying transform <X object>\n"
    )
    assert one_line(OSError(28, "No space left on device", "out/model.pt")).startswith("out/model.pt: no space is left")
    assert one_line(RuntimeError(text)) == "scan.nii: is too small."


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGKILL])
@pytest.mark.parametrize("part", ["computed", "written"])
def test_interrupted_inference(tmp_path, capfd, monkeypatch, number, part):
    """Nothing half is left: what is being written is completed. ``resume`` adds what would have come anyway."""
    (tmp_path / "scans").mkdir()
    for name in "abc":
        write_scan(tmp_path / "scans" / f"{name}.nii")
    options = {"inferer": SplineSliceInferer(factor=2), "resume": True}
    run(tmp_path / "scans", tmp_path / "whole", **options)
    where = {"computed": (SplineSliceInferer, "__call__"), "written": (saving, "write_nifti")}[part]
    original, calls = getattr(*where), []

    def stop(*args, **kwargs):
        calls.append(original(*args, **kwargs))
        if len(calls) == 2:
            os.kill(os.getpid(), number)
        return calls[-1]

    monkeypatch.setattr(*where, stop)
    capfd.readouterr()
    if number == signal.SIGKILL:
        killed(lambda: run(tmp_path / "scans", tmp_path / "out", **options))
        assert [name for name in os.listdir(tmp_path / "out") if name[0] != "."] == ["a_interp.nii.gz"]
    else:
        with pytest.raises(Interrupted) as caught:
            run(tmp_path / "scans", tmp_path / "out", **options)
        done = [f"{name}_interp.nii.gz" for name in ("a" if part == "computed" else "ab")]
        assert caught.value.code == SIGNALS[number] and sorted(os.listdir(tmp_path / "out")) == done
        line = f"interrupted: {len(done)} of 3 inputs are done; the same command with --resume true goes on.\n"
        assert capfd.readouterr().err == line
    monkeypatch.setattr(*where, original)
    run(tmp_path / "scans", tmp_path / "out", **options)
    for name in "abc":
        found, expected = (nib.load(tmp_path / kind / f"{name}_interp.nii.gz") for kind in ("out", "whole"))
        np.testing.assert_array_equal(found.dataobj, expected.dataobj)
