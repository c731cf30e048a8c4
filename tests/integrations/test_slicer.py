# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""The module of 3D Slicer, with a stub of Slicer and the real command."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.integrations import slicer_stub
from tests.integrations.slicer_stub import Segmentation, Volume

ROOT = Path(__file__).resolve().parents[2]
EXTENSION = ROOT / "integrations" / "slicer"
MODULE = EXTENSION / "SliceInterpolation"
AFFINE = np.array([[0, 0, 4.0, 10], [-1.0, 0, 0, 20], [0, -1.5, 0, 30], [0, 0, 0, 1]])
REAL = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from monai_sliceinterp.cli import main; sys.exit(main())"

# What the command does, in no time: the scan as its own result, nothing of it synthesized.
COPIES = """
import gzip, json, os, pathlib, sys
scan, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[3])
out.mkdir()
print("progress: slices 1/2")
print(f"{scan} -> {out / 'scan_interp.nii.gz'}")
print(json.dumps(dict(os.environ)))
for name in ("interp", "interp_provenance"):
    (out / f"scan_{name}.nii.gz").write_bytes(gzip.compress(scan.read_bytes()))
"""
HANGS = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[3]).mkdir()
pathlib.Path(sys.argv[3], "scan_interp.nii.gz").write_bytes(b"half")
print(f"child {child.pid}", "progress: slices 1/9", sep="\\n", flush=True)
time.sleep(600)
"""
FAILS = "print('reading'); print('error: scan.nii: is flat.'); print('more'); raise SystemExit(1)"
NOTHING = "print('scan: its slices are 1 mm apart: nothing is written.')"


@pytest.fixture
def slicer(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(MODULE)
    for name in [name for name in sys.modules if name.startswith("SliceInterpolation")]:
        monkeypatch.delitem(sys.modules, name)
    yield slicer_stub.install(monkeypatch, tmp_path)
    for name in [name for name in sys.modules if name.startswith("SliceInterpolation")]:
        del sys.modules[name]


@pytest.fixture
def module(slicer):
    return importlib.import_module("SliceInterpolation")


@pytest.fixture
def volume(slicer):
    """A sagittal scan, 4 mm slices, under a transform."""
    values = np.random.default_rng(0).integers(0, 900, (4, 8, 9)).astype(np.int16)
    node = slicer.mrmlScene.add(Volume("T2", values, AFFINE))
    node.CreateDefaultDisplayNodes()
    node.display.SetWindowLevel(600, 300)
    node.transform = "vtkMRMLTransformNode1"
    return node


@pytest.fixture
def segmentation(slicer, volume):
    node = slicer.mrmlScene.add(Segmentation("organs"))
    for number, name in enumerate(("liver", "left kidney")):
        node.AddEmptySegment(f"Segment_{number}", name, (0.1, number, 0.9))
        mask = np.zeros(volume.array.shape, np.uint8)
        mask[:, 1:5, 1 + 4 * number : 4 + 4 * number] = 1
        node.segments[f"Segment_{number}"].mask = mask
    return node


def start(module, code, volume, segmentation=None, **settings):
    return module.SliceInterpolationLogic().start(
        [sys.executable, "-c", code], volume, module.Settings(**settings), segmentation
    )


def left(slicer):
    return os.listdir(slicer.app.temporaryPath)


def test_real_command(module, slicer, volume, segmentation):
    """Volume, segments and overlay on one grid, under the scan's transform; nothing else is left anywhere."""
    run = start(module, REAL, volume, segmentation, method="linear", factor=4)
    nodes = module.SliceInterpolationLogic().finish(run, volume, segmentation)
    result, overlay, labels = (nodes[name] for name in ("volume", "synthesized", "label"))
    assert [node.name for node in nodes.values()] == [
        "T2 interpolated", "T2 interpolated: synthesized", "organs interpolated"
    ]  # fmt: skip
    assert result.array.shape == (13, 8, 9) and result.array.dtype == np.int16
    np.testing.assert_array_equal(result.array[::4], volume.array)
    expected = volume.array[:-1] + 0.25 * np.diff(volume.array.astype(float), axis=0)
    np.testing.assert_allclose(result.array[1::4], expected, atol=0.5001)
    np.testing.assert_allclose(result.affine, AFFINE @ np.diag([1, 1, 0.25, 1]))
    synthesized = np.arange(13) % 4 > 0
    np.testing.assert_array_equal(
        overlay.segments["synthesized"].mask, np.broadcast_to(synthesized[:, None, None], (13, 8, 9))
    )
    for identifier, segment in segmentation.segments.items():
        made = labels.segments[identifier]
        assert (made.name, made.color) == (segment.name, segment.color)
        np.testing.assert_array_equal(made.mask, np.repeat(segment.mask[:1], 13, axis=0))
    assert slicer.mrmlScene.nodes == [volume, segmentation, *nodes.values()] and not left(slicer)
    assert {node.transform for node in nodes.values()} == {volume.transform} and result.storage is None
    assert result.display.shown["WindowLevel"] == (600, 300) and slicer.util.background is result
    assert run.lines[0].startswith("scan: ") and "scan -> scan_interp.nii.gz (9x8x13, 1 x 1.5 x 1 mm)" in run.lines


def test_cancel_ends_all_processes_and_leaves_nothing(module, slicer, volume):
    run = start(module, HANGS, volume)
    while run.progress is None:
        assert not run.poll()
        time.sleep(0.01)
    child, parent = int(run.lines[0].split()[1]), run.process._process.pid
    assert psutil.pid_exists(child) and left(slicer) and (run.progress.done, run.progress.total) == (1, 9)
    run.close()
    gone = [pid for pid in (child, parent) if psutil.pid_exists(pid)]
    assert all(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE for pid in gone)
    assert not left(slicer) and slicer.mrmlScene.nodes == [volume]
    run.close()  # again does nothing


def test_environment_is_not_that_of_slicer(module, slicer, volume):
    library = os.pathsep.join([str(Path(slicer.app.slicerHome, "lib")), "/opt/cuda/lib"])
    environment = {**slicer.util.startupEnvironment(), "LD_LIBRARY_PATH": library, "PYTHONPATH": "/slicer"}
    slicer.util.startupEnvironment = lambda: environment
    run = start(module, COPIES, volume)
    run.process.wait()
    assert run.poll()
    found = json.loads(run.lines[-1])
    assert not {"PYTHONHOME", "PYTHONPATH", "ITK_AUTOLOAD_PATH"} & {*found} and found["PATH"] == environment["PATH"]
    assert found["LD_LIBRARY_PATH"] == "/opt/cuda/lib" and found["TMPDIR"].startswith(run.folder)
    run.close()


def test_failures_leave_nothing(module, slicer, volume, segmentation, monkeypatch):
    logic, before = module.SliceInterpolationLogic(), [*slicer.mrmlScene.nodes]
    with pytest.raises(RuntimeError, match=r"^error: scan\.nii: is flat\.$"):
        logic.finish(start(module, FAILS, volume), volume)
    assert logic.finish(start(module, NOTHING, volume), volume) == {}
    with pytest.raises(KeyError):  # a label was asked for and not written
        logic.finish(start(module, COPIES, volume), volume, segmentation)
    segmentation.segments["Segment_1"].mask[:, 1, 1] = 1
    with pytest.raises(ValueError, match="organs: liver and left kidney overlap; expected"):
        start(module, COPIES, volume, segmentation)
    segmentation.segments.clear()
    with pytest.raises(ValueError, match="organs: has no segment; expected"):
        start(module, COPIES, volume, segmentation)
    monkeypatch.setattr(slicer.util, "exportNode", lambda node, path: False)
    with pytest.raises(ValueError, match="T2: cannot be written to"):
        start(module, COPIES, volume)
    assert slicer.mrmlScene.nodes == before and not left(slicer)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"method": " "}, "no method is given; expected auto"),
        ({"factor": 1}, "the factor is 1; expected 2 or more."),
        ({"spacing": -1.0}, "the spacing is -1 mm; expected"),
        ({"factor": 2, "spacing": 1.0}, "a factor (2) and a spacing (1 mm) are given; expected one."),
    ],
)
def test_wrong_settings(module, settings, line):
    with pytest.raises(ValueError, match=re.escape(line)):
        module.Settings(**settings)


def test_where_the_command_is(module, slicer, tmp_path, monkeypatch):
    from SliceInterpolationLib.command import find_command

    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    with pytest.raises(ValueError, match=r"^sliceinterp is not installed; expected what this makes: .*pip install"):
        find_command(search=str(tmp_path))
    program = "Scripts/sliceinterp.exe" if os.name == "nt" else "bin/sliceinterp"
    for folder in (tmp_path / "venv", tmp_path / "home" / ".sliceinterp", Path(slicer.app.slicerHome)):
        for name in (program, "bin/python3"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("")
    assert find_command() == [str(tmp_path / "home" / ".sliceinterp" / program)]
    assert find_command(str(tmp_path / "venv")) == find_command(str(tmp_path / "venv" / program))
    python = str(tmp_path / "venv" / "bin/python3")
    assert find_command(python) == [python, "-m", "monai_sliceinterp"]
    with pytest.raises(ValueError, match="nowhere: is neither the program sliceinterp nor"):
        find_command("nowhere")
    for path in ("", "bin/python3"):
        with pytest.raises(ValueError, match="belongs to Slicer, whose packages stay as they are"):
            find_command(str(Path(slicer.app.slicerHome, path)), slicer.app.slicerHome)


@pytest.fixture
def panel(module, volume, monkeypatch):
    panel = module.SliceInterpolationWidget()
    panel.setup()
    panel.volumeBox.node = volume
    monkeypatch.setattr(panel.logic, "command", lambda path="": [sys.executable, "-c", COPIES])
    return panel


def test_panel(panel, slicer, volume):
    assert panel.applyButton.enabled and not panel.cancelButton.enabled and not panel.factorBox.enabled
    panel.finerBox.currentIndex = 1
    panel.finerBox.currentIndexChanged.emit(1)
    volume.attributes["DICOM.instanceUIDs"] = "1.2 1.4"
    panel.factorBox.value = 3
    assert panel.factorBox.enabled and not panel.spacingBox.enabled
    assert (panel.settings().factor, panel.settings().spacing, panel.settings().modality) == (3, None, "MR")
    panel.applyButton.clicked.emit(False)
    assert panel.cancelButton.enabled and panel.timer.active and not panel.applyButton.enabled
    panel.run.process.wait()
    panel.timer.timeout.emit()
    assert panel.statusLabel.text == "T2 interpolated: done" and not panel.timer.active and not left(slicer)
    assert panel.logView.lines[0] == "scan -> scan_interp.nii.gz" and not slicer.util.errors
    assert panel.applyButton.enabled and len(slicer.mrmlScene.nodes) == 3


def test_panel_cancels_and_tells_errors(panel, slicer, volume):
    panel.logic.command = lambda path="": [sys.executable, "-c", HANGS]
    panel.applyButton.clicked.emit(False)
    panel.cleanup()  # as when Slicer is closed
    assert panel.statusLabel.text == "canceled: nothing was loaded" and panel.run is None and not left(slicer)
    panel.logic.command = lambda path="": [sys.executable, "-c", FAILS]
    panel.applyButton.clicked.emit(False)
    panel.run.process.wait()
    panel.timer.timeout.emit()
    assert slicer.util.errors == ["error: scan.nii: is flat."] and panel.applyButton.enabled
    panel.volumeBox.node = None
    panel.applyButton.clicked.emit(False)
    assert panel.statusLabel.text == "no volume is chosen; expected a scan." and slicer.mrmlScene.nodes == [volume]


def test_panel_lists_methods(panel, slicer, monkeypatch):
    code = "import sys; print('sliceinterp 0.1.0' if '--version' in sys.argv else 'saint      0.1.0   CT  /saint')"
    panel.logic.command = lambda path="": [sys.executable, "-c", code]
    panel.commandEdit.currentPath = "/venv"
    panel.checkButton.clicked.emit(False)
    assert panel.methodBox.items == ["auto", "cubic", "linear", "lanczos", "motion", "saint"]
    assert panel.statusLabel.text == f"sliceinterp 0.1.0: {sys.executable}"
    assert slicer_stub.Settings.kept == {"SliceInterpolation/Command": "/venv"}


def test_files_of_the_extension(slicer):
    """What CMake installs is what is there; Python 3.9 reads it; the entry is one of the extensions index."""
    listed = (MODULE / "CMakeLists.txt").read_text().replace("${MODULE_NAME}", "SliceInterpolation")
    scripts = {path.relative_to(MODULE).as_posix() for path in MODULE.rglob("*.py")}
    assert scripts == {*re.findall(r"^  (\S+\.py)$", listed, re.MULTILINE)}
    for path in MODULE.rglob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    for icon in ("SliceInterpolation.png", "SliceInterpolation/Resources/Icons/SliceInterpolation.png"):
        content = (EXTENSION / icon).read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n" and content[16:24] == (128).to_bytes(4, "big") * 2
    assert "Resources/Icons/SliceInterpolation.png" in listed
    entry = json.loads((EXTENSION / "SliceInterpolation.json").read_text())
    known = {"$schema", "build_dependencies", "build_subdirectory", "category", "scm_revision", "scm_url", "tier"}
    assert {*entry} == known and f'CATEGORY "{entry["category"]}"' in (EXTENSION / "CMakeLists.txt").read_text()
    assert (EXTENSION / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert doctest.testmod(importlib.import_module("SliceInterpolationLib.command")).failed == 0
