# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""``sliceinterp``: what it reads, chooses, says and writes, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_sliceinterp.cli import main
from monai_sliceinterp.interruption import Interrupted
from monai_sliceinterp.transforms import LoadVolume
from tests.dicom_series import write_series

AFFINE = np.diag([1.0, 1.0, 4.0, 1.0])
NAMES = ["1001.nii", "1e5.nii", "a,b.nii", "Case #3.nii", "$x.nii", "@y.nii", "%z.nii", "~t.nii", "a::b.nii", "s p.nii"]


def fails(capsys, *arguments, status=1):
    """The one line that is printed."""
    try:
        found = main([*map(str, arguments)])
    except SystemExit as end:
        found = end.code
    printed = capsys.readouterr().err
    assert found == status and printed.startswith("error: ") and printed.count("\n") == 1, printed
    return printed


def read(path):
    return np.asarray(nib.load(path).dataobj)


def test_help_imports_nothing_heavy():
    """Also where the words of options are joined by underscores, and with OpenMP set before torch is imported."""
    code = "import sys; from monai_sliceinterp.cli import main\ntry: main({})\nexcept SystemExit: pass\n"
    code += "import os; print(sorted({{'torch', 'monai', 'numpy'}} & {{*sys.modules}}), os.environ['OMP_WAIT_POLICY'])"
    for arguments in (["--help"], ["--version"], ["--max_gap", "1"], ["nowhere.nii"], ["bundles"]):
        environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
        run = subprocess.run(
            [sys.executable, "-c", code.format(arguments)], capture_output=True, text=True, env=environment
        )
        assert run.stdout.splitlines()[-1] == "[] PASSIVE", run.stderr


@pytest.mark.parametrize("name", NAMES)
def test_names_are_taken_literally(name, scan, image, capsys):
    """Input, output and label, and a name that begins with a hyphen."""
    nib.save(image, Path(name).absolute())
    assert main([name, "-o", f"{name} out", "-m", "linear", "-f", "2", "--label", name]) == 0
    found = read(Path(f"{name} out", name.replace(".nii", "_interp.nii.gz")).absolute())
    np.testing.assert_array_equal(found[..., ::2], np.asarray(image.dataobj))
    assert f"{name} -> {name} out/" in capsys.readouterr().out


def test_progress_lines(scan, capsys):
    """Nothing on a stream that is no terminal, but where lines are asked for: one at the start, one at the end."""
    assert main([scan, "-m", "linear", "-f", "2", "-o", "silent"]) == 0
    assert "progress" not in capsys.readouterr().out
    assert main([scan, "-m", "linear", "-f", "2", "--progress-lines"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("progress: ")]
    assert lines[0] == "progress: slices 0/3" and lines[-1] == "progress: slices 3/3" and len(lines) == len({*lines})


def test_hyphen(scan):
    Path(scan).rename("-scan.nii.gz")
    for arguments in (["-o", "a", "--", "-scan.nii.gz"], ["--input=-scan.nii.gz", "-o", "b"]):
        assert main(["--method", "linear", *arguments]) == 0
    assert Path("a/-scan_interp.nii.gz").is_file() and Path("b/-scan_interp.nii.gz").is_file()


@pytest.mark.parametrize("options", [[], ["--preview"]])
def test_reads_once(options, scan, image, monkeypatch):
    """What was read to choose a method is what is interpolated and shown."""
    paths, read_volume = [], LoadVolume.__call__
    monkeypatch.setattr(LoadVolume, "__call__", lambda self, path: paths.append(str(path)) or read_volume(self, path))
    assert main([scan, "-m", "linear", "-f", "2", *options]) == 0
    assert paths.count(scan) == 1
    assert Path("scan_viewer.html").is_file() == bool(options)
    np.testing.assert_array_equal(read("scan_interp.nii.gz")[..., ::2], np.asarray(image.dataobj))


def test_precision(scan, capsys):
    """What the command tells about --amp, it takes."""
    for amp, dtype in (("true", "bfloat16"), ("false", None)):
        assert main([scan, "-m", "mixture", "-f", "2", "--amp", amp, "-o", amp]) == 0
        assert ("computes in bfloat16; --amp false" in capsys.readouterr().out) is (dtype is not None)
    assert "invalid choice: 'maybe'" in fails(capsys, scan, "--amp", "maybe", status=2)
    for thickness in ("0", "-1", "thick", "nan"):
        line = fails(capsys, scan, f"--slice-thickness={thickness}", status=2)
        assert f"--slice-thickness: {thickness!r}; expected a positive number of mm" in line


def test_adapted(scan, capsys):
    """Steps alone ask for it; auto then takes the network that can be adapted."""
    assert main([scan, "--adapt-steps", "1", "-f", "2"]) == 0
    printed = capsys.readouterr().out
    assert "method: mixture, which can be adapted\n" in printed
    assert f"{scan}: not adapted: slices of 3 x 10 pixels; SSIM needs 11 x 11.\n" in printed


def test_what_is_told_of_many_slices(scan, capsys):
    """How long they take, and how well the method does."""
    values = np.random.default_rng(0).integers(0, 900, (20, 16, 62)).astype(np.int16)
    for name, array in (("noise", values), ("ramp", np.broadcast_to(np.arange(62, dtype=np.int16), values.shape))):
        nib.save(nib.Nifti1Image(array, AFFINE), f"{name}.nii")
    assert main(["noise.nii", "ramp.nii", "-m", "motion", "-f", "2", "--quality", "--device", "cpu"]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("123 slices", "quality"))]
    scores = json.loads(Path("noise_interp_quality.json").read_text())
    psnr, linear = (f"{scores[name]:.2f} dB" for name in ("psnr", "linear_psnr"))
    where = "where its own slices were left out, linear interpolation"
    assert told[1::2] == [f"quality: {psnr} {where} {linear} (60 slices)", f"quality: exact {where} exact (60 slices)"]
    assert all(line.startswith("123 slices, ") and line.endswith(" on cpu") for line in told[::2]) and len(told) == 4


def test_a_preview_that_cannot_be_written_is_told_first(scan, monkeypatch, capsys):
    Path("scan_viewer.html").touch()
    assert "scan_viewer.html: exists already" in fails(capsys, scan, "-m", "linear", "-f", "2", "--preview")
    assert not Path("scan_interp.nii.gz").exists()
    assert main([scan, "-m", "linear", "-f", "2", "--preview", "--resume"]) == 0
    assert Path("scan_preview.png").stat().st_size and Path("scan_viewer.html").stat().st_size
    assert main([scan, "-m", "linear", "-f", "2", "--preview", "--resume"]) == 0
    assert "finished already" in capsys.readouterr().out
    Path("scan_preview.png").unlink()
    assert main([scan, "-m", "linear", "-f", "2", "--preview", "--resume"]) == 0 and Path("scan_preview.png").is_file()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    line = fails(capsys, scan, "-m", "linear", "-f", "2", "--preview", "-o", "other")
    assert line.endswith('a picture needs matplotlib; install it by: pip install "monai_sliceinterp[plot]"\n')
    assert not list(Path("other").glob("*"))


def test_everything_beside_it(scan, image, bundles, make_bundle, capsys):
    """One pipeline: what the bundle's own config writes; here in a folder whose name has # and @."""
    make_bundle(bundles / "tiny")
    assert main(["interpolate", scan, "-m", "tiny", "-s", "2", "--quality", "--provenance", "--axis", "2"]) == 0
    printed = capsys.readouterr().out
    assert "MR (no values below -200), 12 x 10 x 4 voxels of 1 x 1 x 4 mm, slices along axis 2 (as you say)" in printed
    assert "method: tiny, as you say" in printed and "quality: " in printed
    np.testing.assert_array_equal(read("scan_interp.nii.gz")[..., ::2], np.asarray(image.dataobj))
    content = json.loads(Path("scan_interp.json").read_text())
    assert content["GeneratedBy"][1]["Version"] == "0.1.0" and content["SliceInterpolation"]["Spacing"] == 2
    before = Path("scan_interp.nii.gz").stat().st_mtime_ns
    assert main([scan, "-m", "tiny", "--resume"]) == 0 and "finished already" in capsys.readouterr().out
    assert "expected another --output, or --overwrite" in fails(capsys, scan, "-m", "tiny")
    assert Path("scan_interp.nii.gz").stat().st_mtime_ns == before
    assert main([scan, "-m", "tiny", "--overwrite", "--modality", "ct"]) == 0
    assert "warning: tiny was trained on MR, this scan is CT" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["linear", "cubic", "lanczos", "motion"])
def test_classical(method, scan):
    assert main([scan, "-m", method, "-f", "4", "--quality"]) == 0
    assert read("scan_interp.nii.gz").shape == (12, 10, 13)


@pytest.mark.usefixtures("bundles")
def test_auto(scan, capsys):
    """Without any bundle the best classical method; an isotropic scan is left alone, unless more is asked for."""
    assert main([scan]) == 0
    assert "method: motion, the best that is here on thick MR: +1.04 dB" in (printed := capsys.readouterr().out)
    assert "sliceinterp bundles download mixture asi\n" in printed and read("scan_interp.nii.gz").shape == (12, 10, 13)
    nib.save(nib.Nifti1Image(np.full((8, 8, 8), -900, np.int16), np.eye(4)), "cube.nii")
    assert main(["cube.nii"]) == 0 and main(["cube.nii", "-m", "cubic"]) == 0
    assert capsys.readouterr().out.count("nothing is written; --factor or --spacing asks for more") == 2
    assert not Path("cube_interp.nii.gz").exists()
    assert main(["cube.nii", "-f", "2"]) == 0 and "method: cubic, " in capsys.readouterr().out


def test_failures_do_not_stop_the_others(scan, capsys):
    Path("bad.nii").write_bytes(bytes(range(256)) * 4)  # of which nibabel logs
    assert main(["bad.nii", scan, "-m", "linear", "-o", "out"]) == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 2 and "bad.nii" in error[0] and error[1] == "error: 1 of 2 scans failed, see above."
    assert Path("out/scan_interp.nii.gz").is_file()


def test_interruption_stops_the_others(scan, capsys, monkeypatch):
    paths = []

    def interrupted(self, path):
        paths.append(path)
        raise end

    monkeypatch.setattr(LoadVolume, "__call__", interrupted)
    end = KeyboardInterrupt()
    assert main([scan, scan, "-m", "linear"]) == 130 and capsys.readouterr().err == "interrupted\n"
    end = Interrupted(143)  # which a signal handler has told
    with pytest.raises(Interrupted):
        main([scan, scan, "-m", "linear"])
    assert paths == [scan, scan] and capsys.readouterr().err == ""


def test_warnings_are_lines(tmp_path, capsys):
    write_series(tmp_path / "scan", np.zeros((6, 5, 3), np.int16), AFFINE, positions=[0, 4, 9])
    assert main([str(tmp_path / "scan"), "-m", "linear", "-f", "2", "-o", str(tmp_path)]) == 0
    line = f"warning: {tmp_path / 'scan'}: the slices are 4 to 5 mm apart; each is taken at its own position.\n"
    assert capsys.readouterr().err == line


def test_metadata_that_are_none(scan, bundles, make_bundle, capsys):
    file = make_bundle(bundles / "tiny") / "configs" / "metadata.json"
    file.write_text("{")
    line = fails(capsys, scan, "-m", "tiny")
    assert line.startswith(f"error: {scan}: {file}: is not JSON (Expecting ")
    assert line.endswith("); expected the metadata of a bundle.\n")
    file.write_text("[1]")
    told = "is not the metadata of a bundle; expected a JSON object."
    assert fails(capsys, scan, "-m", "tiny") == f"error: {scan}: {file}: {told}\n"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("--facter 4", 2, "unknown option --facter; did you mean --factor?"),
        ("scan.nii.gz --factor 2.5", 2, "invalid int value: '2.5'"),
        ("scan.nii.gz --factor 2 --spacing 1", 2, "not allowed with argument"),
        ("scan.nii.gz --format nift", 2, "expected one of nifti, same, dicom; did you mean 'nifti'?"),
        ("scan.nii.gz -o thin.nii.gz", 2, "is a file; expected a folder"),
        ("--quality", 2, "no input is given"),
        ("scan.nii.gz --adapt-steps 0", 2, "--adapt-steps 0: expected a positive number of steps ("),
        ("evalute", 1, "no such file or folder; did you mean 'evaluate'?"),
        ("scan.nii", 1, "scan.nii: no such file or folder; did you mean 'scan.nii.gz'?"),
        ("scan.nii.gz --overwrite true", 1, "true: no such file or folder; options such as --overwrite take no value"),
        ("scan.nii.gz --method sant", 1, "unknown method 'sant'"),
        ("scan.nii.gz --method linear,small", 1, "takes neither configs nor weights"),
        ("scan.nii.gz --device gpu", 1, "device gpu: cannot be computed on"),
        ("scan.nii.gz --series 2", 1, "is not DICOM; expected DICOM inputs with --series"),
        ("scan.nii.gz --spacing 9", 1, "coarser than the input's 4 mm"),
        ("scan.nii.gz --modality PET", 1, "modality"),
        ("bundles download", 2, "expected list, or download with names"),
    ],
)
def test_misuse(arguments, status, message, scan, capsys):
    assert message in fails(capsys, *arguments.split(), status=status)
    assert os.listdir() == [scan]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two series of a study in folders of their own, and a zip file of it."""
    root = tmp_path_factory.mktemp("archive")
    values = np.random.default_rng(0).integers(0, 900, (12, 10, 6)).astype(np.int16)
    for number, count in ((1, 4), (2, 6)):
        folder = root / "study" / "patient" / f"S{number}"
        write_series(folder, values[..., :count], AFFINE, series_uid=f"1.2.{number}", description=f"chest {number}")
    (root / "study" / "DICOMDIR").write_bytes(b"not read")
    with zipfile.ZipFile(root / "study.zip", "w") as archive:
        for file in (root / "study").rglob("*.dcm"):
            archive.write(file, file.relative_to(root / "study"))
    return root


@pytest.mark.parametrize("name", ["study", "study.zip", "study/DICOMDIR"])
def test_series_of_a_study(name, study, tmp_path, capsys):
    where = (str(study / name), "-o", str(tmp_path), "-m", "linear", "-f", "2")
    assert main([*where]) == 1
    printed = capsys.readouterr()
    assert "has 2 DICOM series, see above; expected --series NUMBER, UID or all" in printed.err
    assert "  1  CT  12 x 10 x 4 voxels of 1 x 1 x 4 mm  chest 1\n  2  CT  12 x 10 x 6 voxels" in printed.out
    assert main([*where, "--series", "2"]) == 0
    assert read(tmp_path / "study_interp.nii.gz").shape == (12, 10, 11)
    assert "CT (DICOM), 12 x 10 x 6 voxels of 1 x 1 x 4 mm, slices along axis 2 (as DICOM says), 4 mm thick" in (
        capsys.readouterr().out
    )
    assert main([*where, "--series", "all"]) == 0
    shapes = [read(tmp_path / f"series_{number}" / "study_interp.nii.gz").shape for number in (1, 2)]
    assert shapes == [(12, 10, 7), (12, 10, 11)]


@pytest.mark.parametrize(
    ("member", "link", "message"),
    [
        ("../evil.dcm", False, "would be written outside"),
        ("link.dcm", True, "is a link"),
        ("zeros", False, "GiB"),
        ("many", False, "bad.zip: has 2 files; expected at most 1; not unpacked.\n"),
    ],
)
def test_zip_files_that_are_refused(member, link, message, tmp_path, capsys, monkeypatch):
    info = zipfile.ZipInfo(member)
    info.external_attr = (0o120777 if link else 0o100644) << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(info, bytes(2**20), zipfile.ZIP_DEFLATED)
        if member == "many":
            archive.writestr("other", b"")
    monkeypatch.setattr("monai_sliceinterp.archives._MOST_FILES", 1)
    monkeypatch.setattr("monai_sliceinterp.archives._SMALL", 2**10)
    assert message in fails(capsys, tmp_path / "bad.zip", "-o", tmp_path)
    assert os.listdir(tmp_path) == ["bad.zip"]
