# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Scans are interpolated one by one: what fails is told, what is finished is left, the rest is done."""

import json
import threading
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import Dataset
from monai.engines import SupervisedEvaluator
from torch import nn

from monai_sliceinterp.data import find_volumes
from monai_sliceinterp.engines import interpolate_volumes
from monai_sliceinterp.engines import interpolation as module
from monai_sliceinterp.engines.background import BackgroundWork
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.networks.blocks.onnx_network import OnnxNetwork
from monai_sliceinterp.transforms import SaveInterpolatedd, saving
from tests.volumes import preprocess


def write_scan(path, spacing=4.0, seed=0, dtype=np.int16, shape=(16, 15, 5)):
    values = np.random.default_rng(seed).integers(0, 1000, shape).astype(dtype)
    nib.save(nib.Nifti1Image(values, np.diag([1, 1, spacing, 1.0])), path)
    return values


def run(folder, output_dir, inferer, network=None, check=True, asked=None, **options):
    """Interpolate scans; without ``check`` nothing is asked before it is computed."""
    preprocessing = preprocess()
    saver = SaveInterpolatedd("pred", preprocessing, inferer, network, output_dir, **options)
    parts = {"network": network or nn.Identity(), "inferer": inferer, "postprocessing": saver}
    evaluator = SupervisedEvaluator(device=torch.device("cpu"), val_data_loader=[], **parts)
    files = folder if isinstance(folder, list) else find_volumes(folder)
    dataset = Dataset([{"image": file} for file in files], preprocessing)
    return interpolate_volumes(evaluator, dataset, asked or (saver if check else None))


class TestInterpolateVolumes:
    def test_good_and_bad_volumes(self, tmp_path, capsys):
        """Good volumes are done, whatever fails before them and wherever; the bad ones are listed."""
        scans, out = tmp_path / "scans", tmp_path / "out"
        scans.mkdir()
        good = {name: write_scan(scans / f"{name}.nii.gz", seed=k) for k, name in enumerate("bdfhj")}
        (scans / "a.nii").write_text("not an image")
        values = np.zeros((8, 8, 3), np.float32)
        values[0, 0, 0] = np.nan
        nib.save(nib.Nifti1Image(values, np.diag([1, 1, 4, 1.0])), scans / "c.nii.gz")
        write_scan(scans / "e.nii.gz", spacing=1.2)  # finer than what is asked for: the inferer refuses it
        write_scan(scans / "g.nii.gz", spacing=1.5)
        write_scan(scans / "i.nii.gz")  # something is in the way of its result
        (out / "i_interp.nii.gz" / "full").mkdir(parents=True)
        with pytest.raises(SystemExit) as caught:
            run(scans, out, SplineSliceInferer(spacing=2.0), check=False)
        message = caught.value.code
        assert isinstance(message, str) and "\n" not in message  # printed; the exit status is 1
        assert message.startswith("error: 5 of 10 inputs failed: ")
        parts = message.removeprefix("error: 5 of 10 inputs failed: ").split(" | ")
        named = {"a.nii": "cannot be read", "c.nii.gz": "NaN", "e.nii.gz": "coarser", "g.nii.gz": "coarser"}
        for part, (name, reason) in zip(parts, {**named, "i.nii.gz": ""}.items(), strict=True):
            assert part.startswith(str(scans / name)) and reason in part
            assert part.count(str(scans / name)) == 1
        # what is there is whole and right, and nothing else is there
        names = sorted(path.name for path in out.iterdir())
        assert names == sorted([f"{name}_interp.nii.gz" for name in good] + ["i_interp.nii.gz"])
        for name, observed in good.items():
            image = nib.load(out / f"{name}_interp.nii.gz")
            assert image.shape == (16, 15, 9) and image.get_data_dtype() == np.int16
            np.testing.assert_array_equal(np.asarray(image.dataobj)[..., ::2], observed)
        captured = capsys.readouterr()
        done, failed = captured.out.splitlines(), captured.err.splitlines()
        assert [line.split("]")[0] for line in done] == [f"[{k}/10" for k in (2, 4, 6, 8, 10)]
        assert [line.split(":")[0] for line in failed] == [f"[{k}/10] failed" for k in (1, 3, 5, 7, 9)]
        assert "b.nii.gz -> " in done[0] and "b_interp.nii.gz (16x15x9, 1 x 1 x 2 mm)" in done[0]

    def test_reports_frames(self, tmp_path, capsys):
        write_scan(tmp_path / "cine.nii", shape=(12, 12, 4, 5))
        (path,) = run(tmp_path, tmp_path / "out", SplineSliceInferer(factor=2))
        assert nib.load(path).shape == (12, 12, 7, 5)
        assert "(12x12x7x5, 1 x 1 x 2 mm)" in capsys.readouterr().out

    def test_list_of_failures_that_cannot_be_written(self, tmp_path, capsys):
        """It hides no failure: something is in its way."""
        (tmp_path / "out" / "interp_failures.csv" / "full").mkdir(parents=True)
        for name in "ab":
            (tmp_path / f"{name}.nii").write_text("no image")
        with pytest.raises(SystemExit, match=r"2 of 2 inputs failed: .*a\.nii: .* \| .*b\.nii: "):
            run(tmp_path, tmp_path / "out", SplineSliceInferer(factor=2))
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert "interp_failures.csv" in line and "directory" in line.lower()

    def test_out_of_memory_is_one_failure(self, tmp_path, capsys):
        class Hungry(SplineSliceInferer):
            def __call__(self, inputs, network=None, *args, **kwargs):
                if inputs.shape[-1] > 4:
                    raise MemoryError
                return super().__call__(inputs, network)

        write_scan(tmp_path / "a.nii", shape=(12, 12, 9))
        write_scan(tmp_path / "b.nii", shape=(12, 12, 3))
        with pytest.raises(SystemExit, match=r"1 of 2 inputs failed: .*a\.nii: MemoryError"):
            run(tmp_path, tmp_path / "out", Hungry(factor=2))
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"b_interp.nii.gz", "interp_failures.csv"}
        assert capsys.readouterr().err.count("\n") == 1

    def test_check_comes_first(self, tmp_path, capsys):
        """What cannot be written is refused before anything is computed; the rest is done."""
        scans, out = tmp_path / "scans", tmp_path / "out"
        for folder in (scans, out):
            folder.mkdir()
        for name in "abcd":
            write_scan(scans / f"{name}.nii")
        (scans / "c.nii").write_text("no image")
        for name in "bd":
            (out / f"{name}_interp.nii.gz").write_text("old")
        computed = []

        class Recorder(SplineSliceInferer):
            def __call__(self, inputs, network=None, *args, **kwargs):
                computed.append(capsys.readouterr().err)
                return super().__call__(inputs, network)

        with pytest.raises(SystemExit) as caught:
            run(scans, out, Recorder(factor=2))
        (refusals,) = computed  # of a alone, and both were told by then
        lines = refusals.splitlines()
        assert [line.split(":")[0] for line in lines] == ["[2/4] failed", "[4/4] failed"]
        assert f"{scans / 'b.nii'}: {out / 'b_interp.nii.gz'}: exists already" in lines[0]
        after = capsys.readouterr()
        assert after.err.startswith("[3/4] failed: ") and after.err.count("\n") == 1
        assert after.out.startswith("[1/4] ") and after.out.count("\n") == 2
        assert after.out.endswith(f"3 failures are listed in {out / 'interp_failures.csv'}\n")
        parts = caught.value.code.removeprefix("error: 3 of 4 inputs failed: ").split(" | ")
        assert [part.split(":")[0] for part in parts] == [str(scans / f"{name}.nii") for name in "bcd"]
        assert [(out / f"{name}_interp.nii.gz").read_text() for name in "bd"] == ["old", "old"]
        assert nib.load(out / "a_interp.nii.gz").shape == (16, 15, 9)

    def test_errors_of_the_check_that_are_no_refusals(self, tmp_path):
        write_scan(tmp_path / "a.nii")

        class Broken(nn.Identity):
            resume = False

            def check(self, name):
                raise KeyError("bug")

        with pytest.raises(KeyError, match="bug"):
            run(tmp_path, tmp_path / "out", SplineSliceInferer(factor=2), asked=Broken())

    def test_bug_in_an_inferer_shows_where_it_is(self, tmp_path, capsys, caplog):
        """A contributor's mistake is reported with its traceback; the others are done, and the last line is as ever."""

        class Mistaken(SplineSliceInferer):
            def __call__(self, inputs, network=None, *args, **kwargs):
                return super().__call__(inputs, network) if inputs.shape[-1] > 4 else None + 1

        write_scan(tmp_path / "a.nii", shape=(12, 12, 3))
        write_scan(tmp_path / "b.nii", shape=(12, 12, 9))
        with caplog.at_level("DEBUG", "monai_sliceinterp"), pytest.raises(SystemExit, match="1 of 2 inputs failed"):
            run(tmp_path, tmp_path / "out", Mistaken(factor=2))
        lines = capsys.readouterr().err.splitlines()
        assert lines[0].startswith("Traceback") and any("None + 1" in line for line in lines)
        assert lines[-1].startswith("[1/2] failed: ") and "unsupported operand" in lines[-1]
        (record,) = caplog.records
        assert isinstance(record.exc_info[1], TypeError)


def test_integers_are_told(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    torch.onnx.export(nn.ReLU(), (torch.ones(2),), tmp_path / "relu.onnx", dynamo=False)
    network = nn.Sequential(OnnxNetwork(tmp_path / "relu.onnx"))
    write_scan(tmp_path / "a.nii")
    (path,) = run(tmp_path, tmp_path / "out", SplineSliceInferer(factor=2), network, provenance=True)
    told = "the network computes in 8-bit integers by ONNX Runtime; --engine torch: in PyTorch"
    assert capsys.readouterr().out.splitlines()[0] == told
    assert json.loads(Path(path.replace(".nii.gz", ".json")).read_text())["SliceInterpolation"]["Precision"] == "int8"


class TestWritingBeside:
    """Volumes are written while the next one is computed, as long as that holds little memory and no network."""

    def threads(self, tmp_path, monkeypatch, **options):
        """Whether each of four volumes was written in the main thread, and where computing was when it was."""
        inferer, events = SplineSliceInferer(factor=2), []
        for name in "abcd":
            if not (path := tmp_path / f"{name}.nii").exists():
                write_scan(path, seed=ord(name))
        original = saving.write_nifti

        def write(*args, **kwargs):
            events.append(threading.current_thread() is threading.main_thread())
            return original(*args, **kwargs)

        monkeypatch.setattr(saving, "write_nifti", write)
        written = run(tmp_path, tmp_path / "out", inferer, **options)
        assert [Path(path).name for path in written] == [f"{name}_interp.nii.gz" for name in "abcd"]
        return events

    def test_all_but_the_last(self, tmp_path, monkeypatch, capsys):
        assert self.threads(tmp_path, monkeypatch) == [False, False, False, True]
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
        for name in "abcd":
            observed, result = (nib.load(tmp_path / part) for part in (f"{name}.nii", f"out/{name}_interp.nii.gz"))
            np.testing.assert_array_equal(np.asarray(result.dataobj)[..., ::2], observed.dataobj)

    def test_large_volumes(self, tmp_path, monkeypatch):
        monkeypatch.setattr(module, "_LARGEST_BESIDE", 1000)
        assert self.threads(tmp_path, monkeypatch) == [True] * 4

    def test_quality_needs_the_network(self, tmp_path, monkeypatch):
        assert self.threads(tmp_path, monkeypatch, quality=True) == [True] * 4

    def test_errors(self, tmp_path, monkeypatch, capsys):
        """They are told as those of the computation are, in the order of the inputs, a bug with its place."""
        original = saving.write_nifti

        def fail(file, path):
            if "b_interp" in path.name:
                raise OSError(28, "No space left on device", str(path))
            if "c_interp" in path.name:
                raise KeyError("bug")
            return original(file, path)

        for name in "abcd":
            write_scan(tmp_path / f"{name}.nii")
        monkeypatch.setattr(saving, "write_nifti", fail)
        with pytest.raises(SystemExit, match=r"2 of 4 inputs failed: .*b\.nii.*no space is left.*c\.nii.*bug"):
            run(tmp_path, tmp_path / "out", SplineSliceInferer(factor=2))
        printed = capsys.readouterr()
        assert [line[:5] for line in printed.out.splitlines()[:2]] == ["[1/4]", "[4/4]"]
        assert [line.split(": ")[0] for line in printed.err.splitlines() if "failed" in line][:2] == [
            "[2/4] failed",
            "[3/4] failed",
        ]
        assert 'raise KeyError("bug")' in printed.err

    def test_one_piece_at_a_time(self):
        """What a piece of work raises comes where it is waited for, once; leaving the block waits."""
        done, free = [], threading.Event()

        def work(number):
            assert free.wait(10) and len(done) == number
            done.append(number)

        def fail():
            raise ValueError("refused")

        with BackgroundWork() as background:
            background.start(lambda: work(0))
            assert done == []
            free.set()
            background.start(lambda: work(1))
            assert done[:1] == [0]
            background.start(fail)
            with pytest.raises(ValueError, match="refused"):
                background.start(lambda: work(2))
            background.wait()
            background.start(lambda: work(2))
        assert done == [0, 1, 2]
        with pytest.raises(ValueError, match="refused"), BackgroundWork() as background:
            background.start(fail)


class TestResume:
    def test_finished_inputs_are_left(self, tmp_path, capsys):
        """What is there stays; what is not, or is not all there, is made."""
        scans, out = tmp_path / "scans", tmp_path / "out"
        for folder in (scans, out):
            folder.mkdir()
        for name in "abc":
            write_scan(scans / f"{name}.nii")
        for name in ("a_interp.nii.gz", "a_interp.json", "a_interp_provenance.nii.gz", "b_interp.nii.gz"):
            (out / name).write_text("old")
        written = run(scans, out, SplineSliceInferer(factor=2), provenance=True, resume="true")
        assert [Path(path).name for path in written] == ["b_interp.nii.gz", "c_interp.nii.gz"]
        assert (out / "a_interp.nii.gz").read_text() == "old"
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "1 of 3 inputs are finished already"
        assert [line.split()[0] for line in lines[1:]] == ["[2/3]", "[3/3]"]
