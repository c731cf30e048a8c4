# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Inputs and options that are wrong: each gives one line that names what is wrong, and leaves nothing behind."""

import contextlib
import gzip
import io
import os
import pickle
import resource
import struct
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigWorkflow
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLSLossless

from monai_sliceinterp.command_line import report
from tests.bundles.bundle_cases import CASES, options, save_weights
from tests.bundles.bundle_commands import BUNDLES, Result, bundle_command, filled, names, run_forked, save, save_scan
from tests.dicom_series import write_series

SPACING = np.diag([1.0, 1.0, 4.0, 1.0])
SHAPE = (12, 11, 4)
GRAY = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
PIXELS = GRAY.tobytes()


def attempt(weights, bundle="asi", overlays=(), **settings):
    """What ``python -m monai.bundle run`` does, in this process; two underscores stand for the # of a key.

    As in a notebook, it leaves the errors of other programs alone.
    """
    stdout, stderr, status, hook = io.StringIO(), io.StringIO(), 0, sys.excepthook
    config = [str(BUNDLES / bundle / f"{name}.json") for name in ("inference", *overlays)]
    given = {"ckpt": str(weights), "device": "$torch.device('cpu')", "progress": False, **settings}
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            workflow = ConfigWorkflow(config, logging_file=False, workflow_type="inference", **filled(given))
            for step in (workflow.initialize, workflow.run, workflow.finalize):
                step()
        except SystemExit as end:  # Python prints a text and ends with status 1
            print(end.code, file=sys.stderr)
            status = 1 if isinstance(end.code, str) else end.code
        except Exception as error:  # what the hook that the command line has installed does
            report(error)
            status = 1
    assert sys.excepthook is hook
    return Result(status, stdout.getvalue(), stderr.getvalue())


def last_line(result):
    return result.stderr.splitlines()[-1]


def check_error(result, *parts, failed=0):
    """The last line names what is wrong; there is one more for every scan that failed, and nothing else."""
    assert result.status == 1, result
    *before, last = result.stderr.splitlines()
    assert last.startswith("error: ") and "Traceback" not in result.stdout + result.stderr, result.stderr[-3000:]
    assert [line for line in before if line.startswith("error: ")] == []
    assert len([line for line in before if "failed: " in line]) == failed, result.stderr[-3000:]
    for part in parts:
        assert part in last, f"{part!r} is not in {last!r}"


def header_with(path, changes, values=GRAY):
    """Write a NIfTI file whose header has other bytes at some places."""
    whole = bytearray(save(path.with_name("whole.nii"), values, SPACING).read_bytes())
    path.with_name("whole.nii").unlink()
    for offset, value in changes.items():
        whole[offset : offset + len(value)] = value
    path.write_bytes(gzip.compress(bytes(whole)) if path.name.endswith(".gz") else bytes(whole))
    return path


def nifti(changes, values=GRAY):
    return lambda path: header_with(path, changes, values)


def cut(length):
    """A NIfTI file of which only the beginning is there; negative: without the end."""
    return lambda path: path.write_bytes(save_scan(path).read_bytes()[:length])


def flipped(place):
    """A NIfTI file with one bit that is wrong."""

    def write(path):
        whole = bytearray(save_scan(path).read_bytes())
        whole[place] ^= 16
        path.write_bytes(whole)

    return write


def voxels(values, affine=SPACING):
    return lambda path: save(path, values, affine)


def text(content):
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def meta_image(data=PIXELS, **fields):
    """A MetaImage; a field that is None is left out."""
    known = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "ElementSpacing": "1 1 4",
        "DimSize": "12 11 4",
        "ElementType": "MET_SHORT",
    }
    last = fields.pop("ElementDataFile", "LOCAL")
    lines = {**known, **fields, "ElementDataFile": last}
    head = "".join(f"{key} = {value}\n" for key, value in lines.items() if value is not None)
    return text(head.encode() + data)


def nrrd(data=PIXELS, magic="NRRD0004", **fields):
    """A NRRD file; underscores stand for blanks, a field that is None is left out."""
    known = {
        "type": "short",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "12 11 4",
        "space_directions": "(1,0,0) (0,1,0) (0,0,4)",
        "endian": "little",
        "encoding": "raw",
    }
    lines = "".join(f"{key.replace('_', ' ')}: {v}\n" for key, v in {**known, **fields}.items() if v is not None)
    return text(f"{magic}\n{lines}\n".encode() + data)


UNREADABLE, UNKNOWN = "cannot be read as an image", "is none of the files that are read"
NO_FORM = {252: struct.pack("<2h", 0, 0)}


def dims(*sizes):
    return {40: struct.pack(f"<{len(sizes)}h", *sizes)}


def steps(*lengths):
    """Voxel sizes, with neither qform nor sform."""
    return {80: struct.pack("<3f", *lengths), **NO_FORM}


def rows(*values):
    """The sform."""
    return {252: struct.pack("<2h", 0, 1), 280: struct.pack("<12f", *values)}


# file: what writes it, and what has to be said beside its name; more are in tests/formats and test_loading.py
FILES = {
    "text.nii": (text("this is no image"), UNREADABLE),
    "compressed_text.nii.gz": (text(gzip.compress(b"this is no image")), UNREADABLE),
    "zeros.nii": (text(bytes(5000)), ""),
    "last_byte_cut.nii": (cut(-1), UNREADABLE),
    "gzip_cut_in_data.nii.gz": (cut(2500), UNREADABLE),
    "gzip_cut_at_end.nii.gz": (cut(-20), UNREADABLE),
    "magic.nii": (nifti({344: b"xx1\0"}), UNREADABLE),
    "no_dimension.nii": (nifti(dims(0)), ""),
    "nine_dimensions.nii": (nifti(dims(9)), ""),
    "minus_dimensions.nii": (nifti(dims(-3)), ""),
    "negative_size.nii": (nifti(dims(3, 12, -11, 4)), ""),
    "zero_size.nii": (nifti(dims(3, 12, 0, 4)), ""),
    "huge.nii": (nifti(dims(3, 32767, 32767, 32767)), UNREADABLE),
    "huge_gz.nii.gz": (nifti(dims(3, 32767, 32767, 32767)), UNREADABLE),
    "offset.nii": (nifti({108: struct.pack("<f", 1e6)}), UNREADABLE),
    "offset_nan.nii": (nifti({108: struct.pack("<f", np.nan)}), UNREADABLE),
    "unknown_type.nii": (nifti({70: struct.pack("<2h", 999, 16)}), UNREADABLE),
    "nan_spacing.nii": (nifti(steps(1, 1, np.nan)), "affine has NaN or infinite entries"),
    "infinite_spacing.nii": (nifti(steps(1, 1, np.inf)), "affine has NaN or infinite entries"),
    "infinite_affine.nii": (nifti(rows(1, 0, 0, np.inf, 0, 1, 0, 0, 0, 0, 4, 0)), "NaN or infinite entries"),
    "singular_affine.nii": (
        nifti(rows(1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 4, 0) | {80: struct.pack("<3f", 2**0.5, 2**0.5, 4)}),
        "affine is singular",
    ),
    "no_frames.nii": (nifti(dims(4, 12, 11, 4, 0)), "has no frame (12 x 11 x 4 x 0)"),
    "rgb.nii": (voxels(np.zeros(SHAPE, [(color, "u1") for color in "RGB"])), "not gray values"),
    "line.nii": (voxels(GRAY[:, 0, 0]), "1 dimensions"),
    "one_voxel.nii": (voxels(GRAY[:1, :1, :1]), "single slice"),
    "all_nan.nii": (voxels(np.full(SHAPE, np.nan, np.float32)), "NaN"),
    "infinite.nii": (voxels(np.where(GRAY == 9, np.inf, 1).astype(np.float32)), "infinite"),
    "coarse.nii": (voxels(GRAY, np.diag([1, 1, 0.5, 1.0])), "coarser than the input's 1 mm"),
    "cut.mha": (meta_image(PIXELS[:-100]), "holds 956 bytes of voxels and its header tells of 1056"),
    "no_raw.mhd": (meta_image(b"", ElementDataFile="nowhere.raw"), "nowhere.raw, which is missing"),
    "no_data_file.mhd": (meta_image(b"", ElementDataFile=None), "line ElementDataFile"),
    "zero_spacing.mha": (meta_image(ElementSpacing="1 1 0"), "spacing"),
    "text_spacing.mha": (meta_image(ElementSpacing="a b c"), "spacing"),
    "two_sizes.mha": (meta_image(DimSize="12 11"), ""),
    "no_size.mha": (meta_image(DimSize=None), ""),
    "huge_mha.mha": (meta_image(DimSize="99999 99999 99999"), "its header tells of 1999940000599998"),
    "magic_nrrd.nrrd": (nrrd(magic="NRRX0004"), "does not begin with NRRD000"),
    "encoding.nrrd": (nrrd(encoding="telepathy"), UNREADABLE),
    "no_sizes.nrrd": (nrrd(sizes=None), "its header has no sizes"),
    "no_raw_nhdr.nhdr": (nrrd(b"", data_file="nowhere.raw"), "nowhere.raw, which is missing"),
    "singular.nrrd": (nrrd(space_directions="(1,0,0) (1,0,0) (0,0,4)"), ""),
    "text_dcm.dcm": (text("this is no image"), UNKNOWN),
    "preamble.dcm": (text(bytes(128) + b"DICM"), ""),
    "preamble_and_garbage.dcm": (text(bytes(128) + b"DICM" + b"\x08\x00garbage" * 50), ""),
    "notes.md": (text("this is no image"), UNKNOWN),
    "array.npy": (lambda path: np.save(path, GRAY), UNKNOWN),
    "no_suffix": (text(b"\x89PNG\r\n\x1a\nrest"), UNKNOWN),
}


# where the readers notice nothing
UNNOTICED = {"claims_300_mb.nii.gz": nifti(dims(3, 1000, 1000, 150)), "wrong_checksum.nii.gz": flipped(-6)}


@pytest.fixture(scope="module")
def files_run(weights, tmp_path_factory):
    """All files in one run, between two good ones; and how much more memory was needed, in bytes."""
    root = tmp_path_factory.mktemp("files")
    scans = root / "scans"
    for name in ("a_good.nii.gz", "z_good.nii.gz"):
        save_scan(scans / name, SHAPE)
    for name, (write, _) in FILES.items():
        write(scans / name)
    paths = [str(scans / name) for name in ("a_good.nii.gz", *FILES, "z_good.nii.gz")]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = attempt(weights, input=paths, output_dir=str(root / "out"), spacing=2)
    return root, result, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def test_files_in_one_run(files_run):
    """The good ones are done, all others are told, and nothing else is written."""
    root, result, _ = files_run
    check_error(result, f"{len(FILES)} of {len(FILES) + 2} inputs failed", failed=len(FILES))
    assert names(root / "out") == ["a_good_interp.nii.gz", "interp_failures.csv", "z_good_interp.nii.gz"]
    for name in ("a_good_interp.nii.gz", "z_good_interp.nii.gz"):
        assert nib.load(root / "out" / name).shape == (12, 11, 7)


@pytest.mark.parametrize("name", FILES)
def test_file(name, files_run):
    root, result, _ = files_run
    path = str(root / "scans" / name)
    (line,) = [line for line in result.failed_lines if f"failed: {path}: " in line]
    said = line.split(f"failed: {path}: ")[1]
    assert FILES[name][1] in said and len(said.split()) > 2, line
    assert line.split("failed: ")[1] in last_line(result)
    assert len(line) < 2 * len(path) + 300


def test_claimed_sizes_are_not_allocated(files_run):
    """Headers claim up to 64 TiB, where no file is larger than 20 KiB."""
    assert files_run[2] < 5e8


@pytest.mark.parametrize("name", UNNOTICED)
def test_unnoticed_damage(name, weights, tmp_path):
    path = tmp_path / name
    UNNOTICED[name](path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = attempt(weights, input=str(path), output_dir=str(tmp_path / "out"))
    check_error(result, f"1 of 1 inputs failed: {path}: ", failed=1)
    assert names(tmp_path / "out") == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1e5  # KiB


def series(**settings):
    return lambda folder: write_series(folder, GRAY, SPACING, **settings)


def edited(edit, **settings):
    """A series whose files, in the order of the slices, are changed."""
    return lambda folder: edit(write_series(folder, GRAY, SPACING, **settings))


def shorten(paths, count, length):
    for path in paths[:count]:
        path.write_bytes(path.read_bytes()[:length])


def garble(paths):
    """Compressed pixels that no decoder understands."""
    for path in paths:
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = JPEGLSLossless
        data.PixelData = encapsulate([b"garbage!" * 9])
        data["PixelData"].is_undefined_length = True
        data.save_as(path)


def two_series(folder):
    for uid, prefix in (("1.2.3.11", "A"), ("1.2.3.22", "B")):
        write_series(folder, GRAY, SPACING, series_uid=uid, prefix=prefix)


# folder of a DICOM series: what writes it, and what has to be said; more are in tests/dicom/test_reading.py
DICOM = {
    "cut_in_header": (edited(lambda paths: shorten(paths, 1, 300)), ""),
    "all_cut_in_header": (edited(lambda paths: shorten(paths, 4, 300)), ""),
    "cut_in_pixels": (edited(lambda paths: shorten(paths, 1, -50)), "pixels cannot be decoded"),
    "no_position": (series(tags={"ImagePositionPatient": None}), "without position"),
    "no_rows": (series(tags={"Rows": None}), ""),
    "garbage_pixels": (edited(garble), "pixels cannot be decoded"),
    "single_slice": (edited(lambda paths: [path.unlink() for path in paths[1:]]), "single slice"),
    "two_times": (series(duplicates=range(4), duplicate_offset=5), "several images at one position"),
    "two_series": (two_series, "found 2: 1: phantom (CT, 12 x 11 x 4 voxels of 1 x 1 x 4 mm); 2: phantom (CT, 12"),
    "text": (lambda folder: (folder.mkdir(), (folder / "a.dcm").write_text("text")), "no image in this folder"),
    "frames_without_place": (series(multi_frame=True, tags={"PerFrameFunctionalGroupsSequence": None}), "position"),
}


@pytest.mark.parametrize("name", DICOM)
def test_dicom(name, weights, tmp_path):
    folder = tmp_path / name
    DICOM[name][0](folder)
    result = attempt(weights, input=str(folder), output_dir=str(tmp_path / "out"))
    failed = int("inputs failed" in last_line(result))
    check_error(result, str(folder), DICOM[name][1], failed=failed)
    assert names(tmp_path / "out") == []
    assert "Test" not in last_line(result) and "PHANTOM" not in last_line(result)  # the patient's name


OPTIONS = {
    "factor_0": ({"factor": 0}, ("factor", "got 0")),
    "factor_negative": ({"factor": -1}, ("factor", "got -1")),
    "factor_fraction": ({"factor": 1.5}, ("factor", "got 1.5")),
    "factor_text": ({"factor": "x"}, ("factor", "got 'x'")),
    "factor_list": ({"factor": [2, 2]}, ("factor", "got [2, 2]")),
    "factor_infinite": ({"factor": float("inf")}, ("factor", "got inf")),
    "factor_true": ({"factor": True}, ("factor", "got True")),
    "spacing_0": ({"spacing": 0}, ("spacing", "got 0")),
    "spacing_negative": ({"spacing": -1}, ("spacing", "got -1")),
    "spacing_nan": ({"spacing": float("nan")}, ("spacing", "got nan")),
    "spacing_text": ({"spacing": "fine"}, ("spacing", "got 'fine'")),
    "spacing_coarse": ({"spacing": 4.5}, ("{scan}: ", "4.5 mm", "4 mm")),
    "factor_and_spacing": ({"factor": 2, "spacing": 1}, ("not both", "factor 2", "spacing 1 mm")),
    "axis_3": ({"axis": 3}, ("axis 3 is not a spatial axis",)),
    "axis_text": ({"axis": "z"}, ("axis 'z' is not a spatial axis",)),
    "batch_size": ({"batch_size": -1}, ("batch_size", "got -1")),
    "keep_observed": ({"keep_observed": "maybe"}, ("keep_observed must be true or false, got 'maybe'",)),
    "amp": ({"amp": "maybe"}, ("amp must be auto, true or false, got 'maybe'",)),
    "progress": ({"progress": 2}, ("progress must be true or false, got 2",)),
    "quality": ({"quality": "good"}, ("quality must be true or false, got 'good'",)),
    "input_missing": ({"input": "{root}/nowhere.nii.gz"}, ("{root}/nowhere.nii.gz: no such file",)),
    "input_empty": ({"input": ""}, ("no input is given",)),
    "input_none": ({"input": []}, ("no input is given",)),
    "input_broken_link": ({"input": "{root}/link.nii.gz"}, ("{root}/link.nii.gz: no such file",)),
    "input_empty_folder": ({"input": "{root}/nothing"}, ("{root}/nothing: no image in this folder",)),
    "input_no_image": ({"input": "{root}/documents"}, ("{root}/documents: no image in this folder",)),
    "input_folder_like_a_file": ({"input": "{root}/folder.nii.gz"}, ("{root}/folder.nii.gz: no image in this folder",)),
    "input_of_a_killed_run": ({"input": "{root}/killed"}, ("{root}/killed: no image in this folder",)),
    "input_same_names": ({"input": ["{scan}", "{root}/again/scan.nii"]}, ("again/scan.nii: would get the same",)),
    "input_one_is_missing": ({"input": ["{scan}", "{root}/no.nii"]}, ("{root}/no.nii: no such file",)),
    "ckpt_missing": ({"ckpt": "{root}/nowhere.pt"}, ("{root}/nowhere.pt: no such checkpoint",)),
    "ckpt_folder": ({"ckpt": "{root}"}, ("{root}: no such checkpoint",)),
    "ckpt_empty": ({"ckpt": "{root}/empty.pt"}, ("{root}/empty.pt: not a readable checkpoint",)),
    "ckpt_cut": ({"ckpt": "{root}/cut.pt"}, ("{root}/cut.pt: not a readable checkpoint",)),
    "ckpt_text": ({"ckpt": "{root}/text.pt"}, ("{root}/text.pt: not a readable checkpoint",)),
    "ckpt_with_code": ({"ckpt": "{root}/code.pt"}, ("{root}/code.pt: not a readable checkpoint",)),
    "ckpt_of_another": (
        {"ckpt": "{root}/other.pt"},
        ("{root}/other.pt: is not a checkpoint of ResidualASIAutoencoder",),
    ),
    "ckpt_no_weights": ({"ckpt": "{root}/number.pt"}, ("{root}/number.pt: holds no weights",)),
    "output_is_a_file": ({"output_dir": "{scan}"}, ("{scan}: cannot be written to",)),
    "output_below_a_file": ({"output_dir": "{scan}/out"}, ("{scan}/out: cannot be written to",)),
    "label_missing": ({"label": "{root}/nowhere.nii"}, ("{root}/nowhere.nii: no such file",)),
    "label_for_another_scan": ({"label": "{root}/nothing"}, ("{scan}: expected one label {root}/nothing/scan.nii.gz",)),
    "label_shape": ({"label": "{root}/labels/shape.nii"}, ("{root}/labels/shape.nii: is 12 x 11 x 5 voxels large",)),
    "label_place": ({"label": "{root}/labels/place.nii"}, ("place.nii: lies 12 mm away from {scan}",)),
    "label_fractions": ({"label": "{root}/labels/fractions.nii"}, ("fractions.nii: has voxels that are not whole",)),
    "label_frames": ({"label": "{root}/labels/frames.nii"}, ("frames.nii: has 2 frames",)),
    "label_is_no_image": ({"label": "{root}/text.pt"}, ("{root}/text.pt: is none of the files that are read",)),
    "overwrite": ({"overwrite": "maybe"}, ("overwrite must be true or false, got 'maybe'",)),
}


@pytest.fixture(scope="module")
def places(weights, tmp_path_factory):
    """Files that the options name."""
    root = tmp_path_factory.mktemp("options")
    scan = save(root / "scan.nii.gz", GRAY, SPACING)
    save(root / "again" / "scan.nii", GRAY, SPACING)
    for name in ("nothing", "documents", "folder.nii.gz", "killed"):
        (root / name).mkdir()
    (root / "documents" / "notes.txt").write_text("text")
    (root / "killed" / ".scan_interp.part-x1.nii.gz").write_bytes(scan.read_bytes())
    (root / "link.nii.gz").symlink_to(root / "gone.nii.gz")
    (root / "empty.pt").write_bytes(b"")
    (root / "text.pt").write_text("text")
    (root / "cut.pt").write_bytes(weights.read_bytes()[:100_000])
    (root / "code.pt").write_bytes(pickle.dumps({"weight": Malicious(root / "harm")}))
    torch.save(torch.nn.Conv2d(1, 4, 3).state_dict(), root / "other.pt")
    torch.save(7, root / "number.pt")
    ones = np.ones(SHAPE, np.uint8)
    save(root / "labels" / "shape.nii", np.ones((12, 11, 5), np.uint8), SPACING)
    save(root / "labels" / "place.nii", ones, SPACING + 12 * np.outer(*np.eye(4)[2:]))
    save(root / "labels" / "fractions.nii", ones * np.float32(0.5), SPACING)
    save(root / "labels" / "frames.nii", np.stack([ones] * 2, -1), SPACING)
    return {"root": str(root), "scan": str(scan)}


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", OPTIONS)
def test_option(name, weights, places, tmp_path):
    options, parts = OPTIONS[name]
    given = {"input": "{scan}", "output_dir": str(tmp_path / "out"), **options}
    if isinstance(given["input"], list):
        given["input"] = [path.format(**places) for path in given["input"]]
    result = attempt(weights, **filled(given, **places))
    failed = int("inputs failed" in last_line(result))
    check_error(result, *(part.format(**places) for part in parts), failed=failed)
    assert names(tmp_path / "out") == []
    assert not Path(places["root"], "harm").exists()


OTHERS = [(bundle, text) for bundle, case in CASES.items() for text in case.wrong_inference]


@pytest.mark.parametrize(("bundle", "text"), OTHERS)
def test_option_of_other_bundles(bundle, text, places, tmp_path):
    """What they have beside what all have."""
    case, weights = CASES[bundle], save_weights(bundle, tmp_path / "model.pt")[0]
    others = {key: save_weights(bundle, tmp_path / f"{key}.pt", key)[0] for key in ("paper", "acai") if key in text}
    given = {"input": places["scan"], "output_dir": str(tmp_path / "out"), **filled(options(text), **others)}
    result = attempt(weights, bundle, case.overlays, **given)
    check_error(result, *case.wrong_inference[text].format(**others).split(" ... "))
    assert names(tmp_path / "out") == []


def test_existing_output(weights, places, tmp_path):
    """It is refused before anything is computed, and replaced on request."""
    output = tmp_path / "out" / "scan_interp.nii.gz"
    output.parent.mkdir()
    output.write_text("old")
    result = attempt(weights, input=places["scan"], output_dir=str(output.parent))
    check_error(result, f"{output}: exists already; expected another output_dir, or --overwrite true.", failed=1)
    assert output.read_text() == "old"
    done = attempt(weights, input=places["scan"], output_dir=str(output.parent), factor=2, overwrite="true")
    assert done.status == 0
    assert nib.load(output).shape == (12, 11, 7) and names(output.parent) == [output.name]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
def test_unreadable_folder(weights, tmp_path):
    folder = tmp_path / "secret"
    folder.mkdir(mode=0)
    check_error(attempt(weights, input=str(folder), output_dir=str(tmp_path / "out")), str(folder))


@pytest.fixture(scope="module")
def subprocesses(weights, places, tmp_path_factory):
    """A few of these from the command line, where libraries may print what Python does not see."""
    root = tmp_path_factory.mktemp("subprocesses")
    for name in ("cut.mha", "no_raw.mhd", "encoding.nrrd", "huge.nii", "gzip_cut_in_data.nii.gz"):
        (root / "files").mkdir(exist_ok=True)
        FILES[name][0](root / "files" / name)
    DICOM["garbage_pixels"][0](root / "dicom")
    commands = {"files": {"input": root / "files"}, "dicom": {"input": root / "dicom"}}
    for name in ("factor_text", "input_missing", "ckpt_with_code"):
        commands[name] = filled(OPTIONS[name][0], **places)
    given = {"ckpt": weights, "input": places["scan"], "output_dir": root / "out", "factor": 2}
    given = {name: {**given, **options} for name, options in commands.items()}
    return run_forked({name: bundle_command("asi", "inference", (), options) for name, options in given.items()})


@pytest.mark.parametrize(
    ("name", "part", "failed"),
    [
        ("files", "5 of 5 inputs failed", 5),
        ("dicom", "pixels cannot be decoded", 1),
        ("factor_text", "got 'x'", 0),
        ("input_missing", "no such file", 0),
        ("ckpt_with_code", "not a readable checkpoint", 0),
    ],
)
def test_command(name, part, failed, subprocesses):
    check_error(subprocesses[name], part, failed=failed)
