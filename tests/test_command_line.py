# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Errors in one line or, where they are bugs, with their traceback; options that are known, unknown and listed."""

from __future__ import annotations

import errno
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from torch import nn

from monai_sliceinterp.command_line import (
    check_writable,
    is_bug,
    one_line,
    prepare_run,
    report,
)
from monai_sliceinterp.files import typed_path
from monai_sliceinterp.option_values import check_values
from monai_sliceinterp.options import check_options, check_paths, options_of, options_text


def chain(*errors):
    """Raise each error from the one before; returns the last."""
    last = None
    for error in errors:
        try:
            raise error from last
        except Exception as caught:
            last = caught
    return last


def caught(function):
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def raise_value_error():
    raise ValueError("scan.nii.gz: expected something else.")


def fill_memory():
    torch.empty(2**44)


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
            (RuntimeError("applying transform nothing"), "applying transform nothing"),
        ],
    )
    def test_root_cause(self, error, line):
        assert one_line(error) == line


BUGS = {
    "operands": lambda: None + 1,
    "missing_argument": lambda: int.from_bytes(),
    "number": lambda: int("x"),
    "index": lambda: [][0],
    "key": lambda: {}["a"],
    "attribute": lambda: None.shape,
    "shapes": lambda: nn.Conv2d(1, 1, 3)(torch.zeros(1, 2, 8, 8)),
    "broadcast": lambda: np.zeros(2) + np.zeros(3),
    "in_a_transform": lambda: Compose([lambda data: data + None])(1),
    "assertion": lambda: chain(AssertionError()).missing,
}
INPUT_ERRORS = {
    "raised": raise_value_error,
    "in_a_transform": lambda: Compose([lambda data: raise_value_error()])(1),
    "file": lambda: open("/nowhere/at/all"),  # noqa: SIM115
    "memory": fill_memory,
    "numpy_memory": lambda: np.empty(2**50),
    "package": lambda: __import__("no_such_package"),
}


class TestBugs:
    @pytest.mark.parametrize("name", BUGS)
    def test_traceback(self, name, capsys):
        error = caught(BUGS[name])
        assert is_bug(error)
        report(error)
        printed = capsys.readouterr().err
        assert printed.startswith("Traceback") and "test_command_line.py" in printed
        assert printed.splitlines()[-1] == f"error: {one_line(error)}"

    @pytest.mark.parametrize("name", INPUT_ERRORS)
    def test_one_line(self, name, capsys, monkeypatch):
        error = caught(INPUT_ERRORS[name])
        assert not is_bug(error)
        report(error)
        assert capsys.readouterr().err == f"error: {one_line(error)}\n"
        monkeypatch.setenv("MONAI_DEBUG", "true")
        report(error, "[1/2] failed: it")
        printed = capsys.readouterr().err.splitlines()
        assert printed[0].startswith("Traceback") and printed[-1] == "[1/2] failed: it"

    def test_uncaught(self, monkeypatch, capsys):
        """What the hook prints; the interpreter then ends with status 1. Other programs have no hook."""
        hook = sys.excepthook
        prepare_run({})
        assert sys.excepthook is hook
        monkeypatch.setattr(sys.modules["__main__"], "__spec__", type("Spec", (), {"name": "monai.bundle.__main__"}))
        monkeypatch.setattr(sys, "argv", ["monai.bundle", "run"])
        monkeypatch.setattr(sys, "excepthook", hook)
        monkeypatch.setattr(threading, "excepthook", threading.excepthook)
        prepare_run({})
        error = caught(raise_value_error)
        sys.excepthook(type(error), error, error.__traceback__)
        assert capsys.readouterr().err == "error: scan.nii.gz: expected something else.\n"
        for name in ("operands", "key"):
            bug = caught(BUGS[name])
            sys.excepthook(type(bug), bug, bug.__traceback__)
            assert capsys.readouterr().err.startswith("Traceback")
        for function, told in ((BUGS["key"], ["KeyError: 'a'"]), (INPUT_ERRORS["file"], [])):
            (thread := threading.Thread(target=function)).start()
            thread.join()
            assert capsys.readouterr().err.splitlines()[-1:] == told


class TestOptions:
    CONFIG = {
        "factor": None,
        "spacing": 1.0,
        "progress": True,
        "max_epochs": "@epochs",
        "phantoms": {"shape": [1, 2]},
        "inferer": {"_target_": "monai_sliceinterp.inferers.LatentSliceInferer", "factor": "@factor"},
        "loader": {"_target_": "DataLoader", "dataset": []},
        "steps": [{"_target_": "RandFlipd", "keys": "image"}],
        "own": {"_target_": "scripts.of_a_user.Loss"},
    }

    @pytest.mark.parametrize(
        "options",
        [
            "--factor 4 --spacing=2 --noprogress --epochs 3",
            "--phantoms#shape [1,2] --phantoms::shape::0 3 --steps#0#prob 1 --loader#batch_size 3",
            "--inferer#batch_size 3 --inferer#_disabled_ true --_meta_#version 1 --run_id evaluating",
            "-factor -1 -- --trace",
            "--own#weight 3",  # nobody here knows what it takes
        ],
    )
    def test_known(self, options):
        check_options(options_of(["run", "--config_file", "a.json", *options.split()]), self.CONFIG)

    @pytest.mark.parametrize(
        ("option", "hint"),
        [
            ("--facter 4", "--facter; did you mean --factor?"),
            ("--spaicng=1", "--spaicng; did you mean --spacing?"),
            ("--max_epoch 3", "--max_epoch; did you mean --max_epochs?"),
            ("--noprogres", "--noprogres; did you mean --progress?"),
            ("--zzzz 1", "--zzzz"),
            ("--inferer#batch_sise 3", "--inferer#batch_sise; did you mean --inferer#batch_size?"),
            ("--phantoms#shap 3", "--phantoms#shap; did you mean --phantoms#shape?"),
            ("--steps#0#prop 1", "--steps#0#prop; did you mean --steps#0#prob?"),
        ],
    )
    def test_unknown(self, option, hint):
        with pytest.raises(ValueError) as error:
            check_options(options_of(option.split()), self.CONFIG)
        assert str(error.value) == f"unknown option {hint} (--help lists the options)"

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ("--learning_rate nan", "learning_rate must be a positive number, got 'nan'"),
            ("--learning_rate 0", "learning_rate must be a positive number, got 0"),
            ("--rfn_learning_rate=-1", "rfn_learning_rate must be a positive number, got -1"),
            ("--max_epochs 1e400", "max_epochs must be a positive integer, got inf"),
            ("--rfn_epochs 1.5", "rfn_epochs must be a positive integer, got 1.5"),
            ("--norm_warmup_epochs -4", "norm_warmup_epochs must be an integer of at least 0, got -4"),
            ("--patch_size [32,0]", "patch_size must be one or more positive integers, got [32, 0]"),
            ("--gap x", "gap must be one or more positive integers, got 'x'"),
            ("--num_workers -1", "num_workers must be an integer of at least 0, got -1"),
            ("--seed 0.5", "seed must be an integer of at least 0, got 0.5"),
            ("--percentiles [99,1]", "percentiles must be two numbers from 0 to 100, the smaller first, got [99, 1]"),
            ("--window [0,inf]", "window must be two numbers, the smaller first, got '[0,inf]'"),
            ("--sigma_range -1", "sigma_range must be two numbers of at least 0, got -1"),
            ("--betas [0.9,2]", "betas must be two numbers from 0 to 1, got [0.9, 2]"),
            ("--smooth_prob 2", "smooth_prob must be a number from 0 to 1, got 2"),
            ("--adversarial_weight -1", "adversarial_weight must be zero or a positive number, got -1"),
        ],
    )
    def test_numbers_of_trainings(self, option, message):
        """On the command line or in a config file; expressions are left to what uses them."""
        options = options_of(option.split())
        with pytest.raises(ValueError) as error:
            check_values(options, {})
        assert str(error.value) == f"{message}."
        ((name, value),) = options.items()
        check_values({name: "$@other"}, {name: None})
        if "[0,inf]" not in value and "nan" not in value:
            with pytest.raises(ValueError):
                check_values({}, {name: "x" if value == "x" else eval(value)})

    @pytest.mark.parametrize("default", ["auto", True, False])
    def test_precision(self, default):
        """A text and switches, whatever the config has."""
        for value in ("auto", "true", "False", True):
            check_values({"amp": value}, {"amp": default})
        with pytest.raises(ValueError, match=r"^amp must be auto, true or false, got 'maybe'\.$"):
            check_values({"amp": "maybe"}, {"amp": default})

    def test_values_and_files(self, tmp_path):
        """Several config files, also from an ``args_file``, whose other keys are options too."""
        (tmp_path / "args.json").write_text('{"config_file": ["a.json", "b.json"], "facter": 3}')
        found = options_of(["run", "--args_file", str(tmp_path / "args.json"), "--amp", "--seed", "-3"])
        assert found["config_file"] == ["a.json", "b.json"] and found["amp"] == "True" and found["seed"] == "-3"
        with pytest.raises(ValueError, match="--facter"):
            check_options(found, self.CONFIG)
        assert options_of(["--config_file", "['a.json','b.json']"])["config_file"] == ["a.json", "b.json"]
        assert options_of(["--config_file=bundles/a.json"])["config_file"] == "bundles/a.json"

    def test_text(self):
        """A line for each, with values that are plain."""
        text = options_text({"factor": "upsampling", "spacing": "in mm", "max_epochs": "epochs"}, self.CONFIG)
        assert text.splitlines()[1:-1] == [
            "  factor      upsampling",
            "  spacing     in mm (1.0)",
            "  max_epochs  epochs",
        ]

    def test_weights_of_another_folder(self, tmp_path):
        (tmp_path / "metadata.json").write_text("{}")
        prepare_run({}, str(tmp_path), str(tmp_path / "models" / "model.pt"))  # who reads it says what is missing
        prepare_run({}, ".", str(tmp_path / "model.pt"))
        with pytest.raises(
            ValueError, match=r"^nowhere: is not the folder of the bundle; expected it as --bundle_root"
        ):
            prepare_run({}, "nowhere", "nowhere/models/model.pt")


class TestCheckWritable:
    def test_makes_the_folder(self, tmp_path):
        folder = tmp_path / "a" / "b"
        assert check_writable(folder) == check_writable(str(folder)) == str(folder)
        assert folder.is_dir() and list(folder.iterdir()) == []

    @pytest.mark.parametrize("folder", ["", " "])
    def test_none(self, folder):
        with pytest.raises(ValueError, match=r"^no output_dir is given; expected a folder, such as out\.$"):
            check_writable(folder)

    @pytest.mark.parametrize("below", ["", "below", "far/below"])
    def test_regular_file_in_the_way(self, tmp_path, below):
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / below
        with pytest.raises(ValueError, match="cannot be written to .*; expected a folder") as error:
            check_writable(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)

    def test_no_permission(self, tmp_path, monkeypatch):
        def refuse(*args, **kwargs):
            assert kwargs["dir"] == str(tmp_path)
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
        with pytest.raises(ValueError, match=r"cannot be written to \(Permission denied\); expected a folder"):
            check_writable(tmp_path)


class TestPaths:
    @pytest.mark.parametrize(
        ("typed", "value"),
        [
            ("1001", 1001),
            ("3.0", 3.0),
            ("1e5", 1e5),
            ("a,2", ("a", 2)),
            ("1,2", (1, 2)),
            ("True", True),
            ("Case #3/a", "Case ::3/a"),
        ],
    )
    @pytest.mark.parametrize("form", ["--input {}", "--input={}"])
    def test_as_typed(self, monkeypatch, typed, value, form):
        words = ["--input", typed] if form == "--input {}" else [f"--input={typed}"]
        monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", *words])
        assert typed_path(value) == typed

    def test_not_typed(self):
        assert typed_path("a::b") == "a::b" and typed_path(7) == "7" and typed_path(Path("x")) == "x"

    @pytest.mark.parametrize("name", ["$x.nii", "@x.nii", "%x.nii"])
    def test_expressions(self, monkeypatch, tmp_path, name):
        monkeypatch.chdir(tmp_path)
        check_paths({"input": name})  # may be meant as one
        (tmp_path / name).touch()
        with pytest.raises(ValueError, match=r"taken for an expression; expected it as \./.x\.nii, or in a text file"):
            check_paths({"input": name})

    @pytest.mark.parametrize("device", ["nonsense", "cuda:99", "meta", 7.5, "cpu:x"])
    def test_no_such_device(self, device):
        with pytest.raises(ValueError, match=f"device {device}: cannot be computed on .* expected one of cpu"):
            prepare_run({}, device=device)
