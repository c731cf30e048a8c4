# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""``python -m monai_sliceinterp.evaluation``, and that its scores are those of the bundles' own evaluation."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from monai_sliceinterp.data import write_phantoms
from monai_sliceinterp.evaluation import BASELINES
from monai_sliceinterp.evaluation import __main__ as command
from monai_sliceinterp.evaluation.__main__ import main, make_parser
from monai_sliceinterp.evaluation.harness import Evaluation
from monai_sliceinterp.evaluation.settings import EvaluationSettings
from tests.bundles.bundle_commands import BUNDLES, ROOT, parser_of
from tests.evaluation.helpers import read_csv

SMALL = ["--panels", "0", "--sweep", "0", "--device", "cpu"]


@pytest.fixture
def settings_of(monkeypatch):
    """What is asked of the evaluation by options."""
    asked = []

    def run(settings):
        asked.append(settings)
        return Evaluation([], [], Path("report.html"))

    monkeypatch.setattr(command, "run_evaluation", run)

    def read(*options):
        assert main(options) == 0
        return asked[-1]

    return read


def read(path):
    return {(row["volume"], row["protocol"], row["method"]): row for row in read_csv(path)}


class TestOptions:
    def test_defaults(self, settings_of):
        """Those of the settings, but for the places of things."""
        found = settings_of("--data", "a", "b", "--methods", "linear", "asi")
        assert found == EvaluationSettings(["a", "b"], ["linear", "asi"], "evaluation")

    def test_all(self, settings_of):
        options = (
            "--data d --methods linear x=asi,small --factor 4 6 --protocol random leave_one_out --output_dir o "
            "--subjects s t --axis 1 --window -100 300.5 --crop 128 --body -400 --quick --perceptual lpips "
            "--baselines cubic --workers 3 --panels 1 --sweep 4 --curve lambda --device cpu --seed 9"
        )
        assert settings_of(*options.split()) == EvaluationSettings(
            ["d"],
            ["linear", "x=asi,small"],
            "o",
            factors=[4, 6],
            protocols=["random", "leave_one_out"],
            subjects=["s", "t"],
            axis=1,
            window=(-100.0, 300.5),
            crop=128,
            body=-400.0,
            quick=True,
            perceptual=["lpips"],
            baselines=["cubic"],
            workers=3,
            panels=1,
            sweep=4,
            curve="lambda",
            device="cpu",
            seed=9,
        )

    def test_body_without_a_threshold(self, settings_of):
        assert settings_of("--data", "d", "--methods", "linear", "--body").body == -500
        assert settings_of("--data", "d", "--body", "--methods", "linear").body == -500

    def test_help(self, capsys):
        with pytest.raises(SystemExit) as end:
            main(["--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert end.value.code == 0
        for words in ("small=saint,small", "leave_one_out", "only bundles you trust", "(default: 2 4)", "lpips, niqe"):
            assert words in text
        assert "%" not in text and "None" not in text
        for action in make_parser()._actions:
            assert action.help


class TestStatus:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("--methods linear", "the following arguments are required: --data"),
            ("--data d --methods linear --factor two", "argument --factor/--factors: invalid int value: 'two'"),
            ("--data d --methods linear --window 1", "argument --window: expected 2 arguments"),
            ("--data d --methods linear --color", "unknown option --color"),
        ],
    )
    def test_option(self, capsys, options, message):
        with pytest.raises(SystemExit) as end:
            main(options.split())
        assert end.value.code == 2
        assert capsys.readouterr().err == f"error: {message} (--help lists the options)\n"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("--data {data} --methods cubik", "unknown method 'cubik': expected .*did you mean 'cubic'"),
            ("--data {data} --methods linear --protocol fwmh", "unknown protocol 'fwmh'.*did you mean 'fwhm'"),
            ("--data {data} --methods linear --factor 1", "factor must be an integer of at least 2, got 1"),
            ("--data {data}/none --methods linear", "none: no such file or folder"),
            ("--data {data} --methods linear --device tpu9", "there is no device 'tpu9' here"),
        ],
    )
    def test_setting(self, heads, tmp_path, capsys, options, message):
        assert main([*options.format(data=heads).split(), "--output_dir", str(tmp_path / "out")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and not (tmp_path / "out").exists()
        assert re.search(message, line)

    def test_all_volumes_fail(self, heads, tmp_path, capsys):
        options = ["--data", str(heads), "--methods", "linear", "--factor", "16", "--output_dir", str(tmp_path)]
        assert main([*options, *SMALL]) == 1
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and "nothing could be scored on 3 volumes" in lines[0]
        assert "head_000.nii.gz: has 9 slices, too few for subsample x16" in lines[0]

    def test_interrupted(self, monkeypatch, capsys):
        def run(settings):
            raise KeyboardInterrupt

        monkeypatch.setattr(command, "run_evaluation", run)
        assert main(["--data", "d", "--methods", "linear"]) == 130
        assert capsys.readouterr().err == "interrupted; the same command goes on where it was.\n"


class TestRun:
    def test_as_a_user_starts_it(self, tmp_path):
        command = [sys.executable, "-m", "monai_sliceinterp.evaluation", "--data", str(tmp_path / "none")]
        run = {"cwd": ROOT, "capture_output": True, "encoding": "utf-8", "timeout": 200}
        result = subprocess.run([*command, "--methods", "linear"], **run)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr == f"error: {tmp_path}/none: no such file or folder.\n"

    def test_a_volume_that_fails(self, monkeypatch, capsys):
        result = Evaluation([], ["broken.nii: no image"], Path("report.html"))
        monkeypatch.setattr(command, "run_evaluation", lambda settings: result)
        assert main(["--data", "d", "--methods", "linear"]) == 1
        assert tuple(capsys.readouterr()) == ("report.html\n", "error: 1 failures, see above and in the report\n")


def evaluate_bundle(bundle, overlays, data, out, **settings):
    """Run a bundle's own evaluation, as its documentation says."""
    folder = BUNDLES / bundle
    settings |= {"bundle_root": str(folder), "dataset_dir": str(data), "output_dir": str(out)}
    parser = parser_of(bundle, "train", "evaluate", *overlays, **settings)
    parser.read_meta(folder / "metadata.json")
    parser.get_parsed_content("run")
    return read(out / "scores.csv")


class TestSameScoresAsBundles:
    """The command runs the inference of a bundle, its own evaluation only the network and the inferer."""

    @pytest.fixture(scope="class")
    def torsos(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("data") / "ct"
        write_phantoms(folder, "torso", range(3), shape=(24, 22, 11), spacing=(14.0, 14.0, 14.0))
        return folder

    def compare(self, bundle, overlays, method, data, tmp_path, options, **settings):
        stems = sorted(path.name.split(".")[0] for path in data.iterdir())
        settings |= {"test_subjects": [stems[0]], "validation_subjects": [stems[1]]}
        own = evaluate_bundle(bundle, overlays, data, tmp_path / "own", **settings)
        texts = ["linear", "cubic", "lanczos", f"{bundle}={BUNDLES}/{bundle}{method}"]
        places = ["--data", str(data), "--subjects", stems[0], "--output_dir", str(tmp_path / "command")]
        assert main([*places, "--methods", *texts, *options.split(), *SMALL, "--quick"]) == 0
        found = read(tmp_path / "command" / "scores.csv")
        assert set(found) <= set(own) and len(found) == 4 * len({protocol for _, protocol, _ in own})
        return found, own

    def assert_same(self, found, own):
        for key, row in found.items():
            for name in ("psnr", "ssim", "psnr_volume", "psnr_body", "ssim_body"):
                value, expected = float(row[name]), float(own[key][name])
                # the command computes networks as users get them, in bfloat16 where the processor has it
                limit = 1e-4 if key[2] in BASELINES else 1e-2
                assert value == pytest.approx(expected, abs=limit, nan_ok=True), (key, name)

    def test_saint(self, torsos, tmp_path, no_pictures):
        protocols = [{"factor": 3, "fwhm": 0}, {"factor": 3}]
        options = "--factor 3 --protocol subsample fwhm --crop 20 --body --axis 2"
        settings = {"crop": 20, "axis": 2, "protocols": protocols}
        found, own = self.compare("saint", ["small"], ",small", torsos, tmp_path, options, **settings)
        self.assert_same(found, own)
        values = {float(row["psnr_body"]) for row in found.values()}
        assert len(values) == len(found) and np.isfinite(list(values)).all()

    def test_vts(self, torsos, tmp_path, no_pictures):
        """What is drawn at random is the same, too."""
        options = "--factor 4 8 --protocol random --window -2048 2048 --body"
        settings = {"crop": 0, "pixdim": [0, 0, 0]}
        found, own = self.compare("vts", ["small"], ",small", torsos, tmp_path, options, **settings)
        self.assert_same(found, own)

    def test_asi_scales_by_the_thick_volume(self, heads, tmp_path, no_pictures):
        """The one difference: inference knows the thick volume's percentiles, the evaluation those of the thin one.

        Slabs average the extremes away, so that the network sees another contrast.
        """
        options = "--factor 3 --protocol fwhm"
        found, own = self.compare("asi", [], "", heads, tmp_path, options, protocols=[{"factor": 3}])
        difference = {key[2]: abs(float(row["psnr"]) - float(own[key]["psnr"])) for key, row in found.items()}
        assert max(difference[name] for name in ("linear", "cubic", "lanczos")) < 1e-4 < difference["asi"] < 0.5
