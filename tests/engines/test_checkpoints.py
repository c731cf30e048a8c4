# Copyright (c) monai_sliceinterp contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

from __future__ import annotations

import errno
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from monai.transforms import Compose
from torch import nn

from monai_sliceinterp.command_line import as_bool, as_choices, check_writable, exit_on_error, one_line
from monai_sliceinterp.engines import check_checkpoint, load_weights
from monai_sliceinterp.networks.nets import ASIAutoencoder


def chain(*errors):
    """Raise each error from the one before; returns the last."""
    last = None
    for error in errors:
        try:
            raise error from last
        except Exception as caught:
            last = caught
    return last


def fail_in_a_pipeline(*errors):
    """Raise errors inside of nested MONAI pipelines; returns what comes out."""

    def fail(data):
        raise chain(*errors)

    try:
        Compose([Compose([Compose([fail])]), nn.Identity()])(0)
    except RuntimeError as caught:
        return caught


class TestOneLine:
    @pytest.mark.parametrize(
        ("error", "line"),
        [
            (ValueError("one"), "one"),
            (ValueError("\n  one\ntwo"), "one"),
            (ValueError(), "ValueError"),
            (chain(ValueError("a.nii: bad"), RuntimeError("applying transform LoadVolumed")), "a.nii: bad"),
            (chain(ValueError("a.nii: bad"), RuntimeError("inner"), RuntimeError("outer")), "a.nii: bad"),
            # our own message says more than what raised it
            (chain(OSError("Errno 13"), ValueError("out: cannot be written to")), "out: cannot be written to"),
            (
                chain(EOFError("end"), ValueError("a.nii.gz: truncated"), RuntimeError("applying transform")),
                "a.nii.gz: truncated",
            ),
            (chain(ValueError(), RuntimeError("applying transform")), "ValueError"),
            (chain(RuntimeError("nms"), ImportError("needs lpips")), "needs lpips"),
            (
                chain(RuntimeError("CUDA out of memory"), RuntimeError("CUDA out of memory: 2 GB")),
                "CUDA out of memory: 2 GB",
            ),
        ],
    )
    def test_root_cause(self, error, line):
        assert one_line(error) == line

    @pytest.mark.parametrize(
        ("errors", "line"),
        [
            ((ValueError("out/a.nii: exists already"),), "out/a.nii: exists already"),
            ((EOFError("end"), ValueError("a.nii: truncated")), "a.nii: truncated"),
            ((RuntimeError("CUDA out of memory"),), "CUDA out of memory"),
            ((OSError("No space left on device"),), "No space left on device"),
            ((MemoryError(),), "MemoryError"),
        ],
    )
    def test_nested_pipelines(self, errors, line):
        error = fail_in_a_pipeline(*errors)
        assert str(error).startswith("applying transform <monai.transforms.compose.Compose object at")
        assert one_line(error) == line

    def test_pipeline_that_raises_itself(self):
        assert one_line(RuntimeError("applying transform nothing")) == "applying transform nothing"


class TestExitOnError:
    @pytest.mark.parametrize(
        "kind", [ValueError, TypeError, OSError, FileNotFoundError, RuntimeError, MemoryError, ImportError]
    )
    def test_user_errors_end_the_program(self, kind):
        def fail(number, name):
            raise kind(f"{name} {number}\nmore")

        with pytest.raises(SystemExit) as caught:
            exit_on_error(fail, 3, name="file")
        assert caught.value.code == "error: file 3"  # Python prints a string and exits with status 1
        assert caught.value.__cause__ is None and caught.value.__context__ is None  # and prints no traceback

    @pytest.mark.parametrize("kind", [KeyError, AssertionError, AttributeError, KeyboardInterrupt])
    def test_programming_errors_are_not_hidden(self, kind):
        def fail():
            raise kind("bug")

        with pytest.raises(kind):
            exit_on_error(fail)

    def test_result(self):
        assert exit_on_error(max, [1, 5, 3], key=lambda x: -x) == 1


class TestAsBool:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (True, True),
            (False, False),
            ("true", True),
            ("false", False),
            ("True", True),
            ("False", False),
            ("FALSE", False),
        ],
    )
    def test_switches(self, value, expected):
        assert as_bool(value) is expected

    @pytest.mark.parametrize("value", ["maybe", "", " true", "yes", "0", 0, 1, 1.0, None, [], [False]])
    def test_nothing_else(self, value):
        with pytest.raises(ValueError) as caught:
            as_bool(value, "disagreement")
        assert str(caught.value) == f"disagreement must be true or false, got {value!r}."


class TestCheckWritable:
    def test_makes_the_folder(self, tmp_path):
        folder = tmp_path / "a" / "b"
        assert check_writable(folder) == str(folder)
        assert folder.is_dir() and list(folder.iterdir()) == []
        assert check_writable(str(folder)) == str(folder)

    @pytest.mark.parametrize("below", ["", "below", "far/below"])
    def test_regular_file_in_the_way(self, tmp_path, below):
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / below
        with pytest.raises(ValueError, match="cannot be written to .*; expected a folder") as caught:
            check_writable(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)

    def test_no_permission(self, tmp_path, monkeypatch):
        def refuse(*args, **kwargs):
            assert kwargs["dir"] == tmp_path
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
        with pytest.raises(ValueError, match=r"cannot be written to \(Permission denied\); expected a folder"):
            check_writable(tmp_path)


def build(seed=0, **kwargs):
    torch.manual_seed(seed)
    return ASIAutoencoder(**{"channels": (2, 3), "latent_channels": 4, **kwargs})


def same(first, second):
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


class TestLoadWeights:
    @pytest.mark.parametrize("wrap", [None, "network", "network_def", "model"])
    def test_loads(self, tmp_path, wrap):
        source, target = build(0), build(1)
        assert not same(source, target)
        state = source.state_dict()
        extra = {"optimizer": {"lr": 0.1}, "trainer": {"epoch": 3}}
        torch.save(state if wrap is None else {wrap: state, **extra}, tmp_path / "model.pt")
        for path in (tmp_path / "model.pt", str(tmp_path / "model.pt")):
            assert load_weights(target, path, torch.device("cpu")) is target
        assert same(source, target)

    def check(self, path, *named, network=None):
        network = network or build(1)
        before = {key: value.clone() for key, value in network.state_dict().items()}
        with pytest.raises(ValueError) as caught:
            load_weights(network, path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and "\n" not in message
        for text in named:
            assert text in message
        assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())

    def test_missing(self, tmp_path):
        self.check(tmp_path / "no.pt", "no such checkpoint file")
        self.check(tmp_path, "no such checkpoint file")

    @pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
    def test_truncated(self, tmp_path, kept):
        path = tmp_path / "model.pt"
        torch.save(build().state_dict(), path)
        content = path.read_bytes()
        path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
        self.check(path, "not a readable checkpoint")

    @pytest.mark.parametrize("content", [b"hello\n", b"{}", bytes(range(256))])
    def test_not_a_checkpoint(self, tmp_path, content):
        (tmp_path / "model.pt").write_bytes(content)
        self.check(tmp_path / "model.pt", "not a readable checkpoint")

    def test_code_is_not_run(self, tmp_path):
        torch.save(build(), tmp_path / "model.pt")  # a pickled network
        self.check(tmp_path / "model.pt", "not a readable checkpoint")

    @pytest.mark.parametrize("how", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
    def test_malicious_code_is_not_run(self, tmp_path, how):
        class Malicious:
            def __reduce__(self):
                return Path.touch, (tmp_path / "run",)

        how({"network": Malicious()}, tmp_path / "model.pt")
        self.check(tmp_path / "model.pt", "not a readable checkpoint")
        assert not (tmp_path / "run").exists()
        pickle.loads(pickle.dumps(Malicious()))
        assert (tmp_path / "run").exists()  # it would have done harm

    @pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"epoch": 3}, {"network": None}, 7])
    def test_no_weights(self, tmp_path, content):
        torch.save(content, tmp_path / "model.pt")
        self.check(tmp_path / "model.pt", "holds no weights of a network; expected a state dict")

    def test_other_network(self, tmp_path):
        path = tmp_path / "model.pt"
        torch.save(nn.Linear(2, 2).state_dict(), path)
        count = len(build().state_dict()) + 2
        self.check(path, "is not a checkpoint of ASIAutoencoder: it lacks ", f"and {count - 1} more differences")
        torch.save(build(latent_channels=5).state_dict(), path)
        self.check(path, "of shape (5, 3, 3, 3) instead of (4, 3, 3, 3)", "more differences")

    def test_one_key_too_few_or_many(self, tmp_path):
        state = build().state_dict()
        torch.save({**state, "head.bias": torch.zeros(1)}, tmp_path / "more.pt")
        self.check(tmp_path / "more.pt", "it has the unknown head.bias.")
        last = list(state)[-1]
        del state[last]
        torch.save(state, tmp_path / "fewer.pt")
        self.check(tmp_path / "fewer.pt", f"it lacks {last}.")


class TestCheckCheckpoint:
    ENTRIES = ("network", "optimizer")

    def test_fits(self, tmp_path):
        network = build(0)
        path = tmp_path / "checkpoint.pt"
        torch.save({"network": network.state_dict(), "optimizer": {}, "trainer": {}}, path)
        assert check_checkpoint(path, build(1), self.ENTRIES) == str(path)
        assert check_checkpoint(str(path), build(1)) == str(path)

    @pytest.mark.parametrize(
        ("content", "named"),
        [
            (None, "no such checkpoint file"),
            (b"text", "not a readable checkpoint"),
            ({"network": {}}, "lacks optimizer; expected a checkpoint that a training has saved"),
            ({"weight": torch.zeros(1)}, "lacks network, optimizer"),
            ([1, 2], "lacks network, optimizer"),
            ({"network": nn.Linear(1, 1).state_dict(), "optimizer": {}}, "is not a checkpoint of ASIAutoencoder"),
        ],
    )
    def test_does_not_fit(self, tmp_path, content, named):
        path = tmp_path / "checkpoint.pt"
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            torch.save(content, path)
        with pytest.raises(ValueError, match=named) as caught:
            check_checkpoint(path, build(), self.ENTRIES)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


class TestExit:
    def test_exit_status(self, tmp_path):
        """A string as SystemExit's code is status 1 to the shell."""
        code = (
            "from monai_sliceinterp.command_line import check_writable, exit_on_error\n"
            f"exit_on_error(check_writable, {str(tmp_path / 'file' / 'out')!r})"
        )
        (tmp_path / "file").write_text("")
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, encoding="utf-8")
        assert done.returncode == 1
        lines = [line for line in done.stderr.splitlines() if "rror" in line]
        assert len(lines) == 1 and lines[0].startswith(f"error: {tmp_path}") and "Traceback" not in done.stderr


class TestAsChoices:
    def test_values(self):
        assert as_choices("ami", ["ami", "rfn"], "stages") == ["ami"]
        assert as_choices(("rfn", "ami", "rfn"), ["ami", "rfn"], "stages") == ["ami", "rfn"]

    @pytest.mark.parametrize("value", ["", "foo", [], ["ami", "foo"]])
    def test_errors(self, value):
        with pytest.raises(ValueError, match="stages must be one or more of ami, rfn, got "):
            as_choices(value, ["ami", "rfn"], "stages")
