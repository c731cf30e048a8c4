# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Inputs that are wrong, of every group: one table, which a test and ``benchmarks/reliability.py`` go through.

A case is what is done in a folder and what has to be named; doing it gives the exit status and what was printed to the
standard error stream. Headers of files have a table of their own in ``tests/transforms/test_bad_headers.py``.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser

from monai_sliceinterp.cli import main
from monai_sliceinterp.command_line import one_line
from monai_sliceinterp.networks.nets import ASIAutoencoder
from monai_sliceinterp.option_values import check_values
from monai_sliceinterp.options import check_options, options_of
from tests.dicom_series import write_series

ROOT = Path(__file__).resolve().parents[1]
SCAN = "scan.nii.gz"
VOXELS = np.random.default_rng(0).integers(0, 900, (12, 10, 4)).astype(np.int16)
AFFINE = np.diag([1.0, 1.0, 4.0, 1.0])
Case = tuple[Callable[[], tuple[int, str]], str]


def command(text: str) -> Case | tuple:
    """Run ``sliceinterp``; what follows " -> " has to be named."""
    words, _, named = text.partition(" -> ")

    def run() -> tuple[int, str]:
        stderr = io.StringIO()
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
            try:
                status = main(words.split(" "))
            except SystemExit as end:
                status = int(end.code or 0)
        return status, stderr.getvalue()

    return run, named


@functools.cache
def config_of(bundle: str, kind: str) -> dict:
    """The content of a bundle's config."""
    return ConfigParser.load_config_files(str(ROOT / "bundles" / bundle / f"{kind}.json"))


def option(bundle: str, kind: str, text: str) -> Case:
    """Give an option to a bundle's config, as ``python -m monai.bundle run`` does before anything else."""

    def run() -> tuple[int, str]:
        config = config_of(bundle, kind)
        options = options_of(["run", *text.split(" ", 1)])
        try:
            check_options(options, config)
            check_values(options, config)
        except ValueError as error:
            return 1, f"error: {one_line(error)}\n"
        return 0, ""

    return run, text.split(" ")[0].lstrip("-").replace("-", "_")


class Malicious:
    """Makes a file when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("harm"),)


NETWORK = {"channels": (2,), "latent_channels": 2}


def state(**changes):
    torch.manual_seed(0)
    return {**ASIAutoencoder(**NETWORK).state_dict(), **changes}


def changed(function):
    """Weights of which the first are changed."""
    name, value = next(iter(state().items()))
    return state(**{name: function(value.clone())})


def bytes_of(value) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def flipped(content: bytes) -> bytes:
    """One bit in the middle, which torch does not notice."""
    return content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 16]) + content[len(content) // 2 + 1 :]


WEIGHTS = {
    "empty": b"",
    "text": b"text",
    "zip": b"PK\3\4",
    "cut": bytes_of(state())[:2000],
    "flipped": flipped(bytes_of(state())),
    "pickle": pickle.dumps({"weight": Malicious()}),
    "code": bytes_of({"weight": Malicious()}),
    "number": bytes_of(7),
    "list": bytes_of([torch.zeros(1)]),
    "nothing": bytes_of({}),
    "other": bytes_of(torch.nn.Conv2d(1, 4, 3).state_dict()),
    "more": bytes_of(state(more=torch.zeros(1))),
    "nan": bytes_of(changed(lambda value: value * torch.nan)),
    "infinite": bytes_of(changed(lambda value: value / 0)),
    "integers": bytes_of(changed(torch.Tensor.long)),
    "complex": bytes_of(changed(lambda value: value.to(torch.complex64))),
    "shape": bytes_of(changed(lambda value: value[..., :1])),
}

INFERER = "monai_sliceinterp.inferers.LatentSliceInferer"
OVERLAYS = {
    "list": "[1, 2]",
    "list_of_objects": '[{"factor": 2}]',
    "text": '"text"',
    "number": "5",
    "null": "null",
    "empty": "",
    "syntax": '{"factor": 2,',
    "binary": "\0\xff\xfe".encode("latin-1"),
    "utf16": '{"factor": 2}'.encode("utf-16"),
    "deep": '{"a":' * 5000 + "1" + "}" * 5000,
    "no_module": {"inferer": {"_target_": "no.such.Module"}},
    "no_class": {"inferer": {"_target_": "monai_sliceinterp.inferers.Nothing"}},
    "no_name": {"inferer": {"_target_": "Nothing"}},
    "target_is_a_number": {"inferer": {"_target_": 5}},
    "another_class": {"inferer": {"_target_": "torch.nn.ReLU"}},
    "argument": {"inferer": {"_target_": INFERER, "facter": 2}},
    "no_component": {"inferer": 5},
    "cycle": {"keep_observed": "@percentiles", "percentiles": "@keep_observed"},
    "self": {"keep_observed": "@keep_observed"},
    "macro": {"keep_observed": "%nothing"},
    "macro_of_a_file": {"keep_observed": "%nowhere.json::a"},
    "expression": {"keep_observed": "$1 +"},
    "division": {"keep_observed": "$1 / 0"},
    "undefined": {"keep_observed": "$nothing"},
    "switch": {"keep_observed": "maybe"},
    "no_network": {"network": None},
    "run_is_a_number": {"run": 5},
    "run_is_empty": {"run": []},
    "no_dataset": {"dataset": []},
}

OBJECTS = {"no_network": "expected a network"}

COMMANDS = """
--facter 4 -> unknown option --facter; did you mean --factor?
scan.nii.gz --factor 2.5 -> invalid int value: '2.5'
scan.nii.gz --factor x -> invalid int value: 'x'
scan.nii.gz --factor 0 -> factor
scan.nii.gz --factor -3 -> factor
scan.nii.gz --factor 999999999999999999999 -> slices
scan.nii.gz --factor 1000000 -> 100,000
scan.nii.gz --factor 2 --spacing 1 -> not allowed with argument
scan.nii.gz --spacing 0 -> spacing
scan.nii.gz --spacing -1 -> spacing
scan.nii.gz --spacing nan -> spacing
scan.nii.gz --spacing inf -> spacing
scan.nii.gz --spacing 1e-9 -> 100,000
scan.nii.gz --spacing 1e-300 -> slices
scan.nii.gz --spacing 9 -> coarser than the input's 4 mm
scan.nii.gz --spacing_in 2 -> has a spacing of its own
scan.nii.gz --axis 3 -> axis
scan.nii.gz --axis z -> axis
scan.nii.gz --max_gap_mm -1 -> max_gap_mm
scan.nii.gz --max_gap_mm nan -> max_gap_mm
scan.nii.gz --format nift -> expected one of nifti, same, dicom; did you mean 'nifti'?
scan.nii.gz -o thin.nii.gz -> is a file; expected a folder
scan.nii.gz -o text.txt -> text.txt
scan.nii.gz -o text.txt/out -> text.txt
--quality -> no input is given
evalute -> no such file or folder; did you mean 'evaluate'?
scan.nii -> scan.nii: no such file or folder; did you mean 'scan.nii.gz'
nowhere -> nowhere: no such file or folder
nothing -> nothing: no image in this folder
text.txt -> this is no image: no such file or folder
text.nii -> text.nii
link.nii.gz -> link.nii.gz
scan.nii.gz --overwrite true -> true: no such file or folder; options such as --overwrite take no value
scan.nii.gz --label nowhere.nii -> nowhere.nii: no such file
scan.nii.gz --label text.nii -> text.nii
scan.nii.gz --label shape.nii -> shape.nii: is 12 x 10 x 5 voxels large
scan.nii.gz --label place.nii -> place.nii: lies 12 mm away
scan.nii.gz --label fractions.nii -> fractions.nii: has voxels that are not whole
scan.nii.gz --label frames.nii -> frames.nii: has 2 frames
scan.nii.gz --method sant -> unknown method 'sant'
scan.nii.gz --method= -> empty part
scan.nii.gz --method asi,,x -> empty part
scan.nii.gz --method linear,small -> takes neither configs nor weights
scan.nii.gz --method asi,smal -> has no config 'smal'
scan.nii.gz --method asi,config=no.json -> no.json
scan.nii.gz --method asi,ckpt=no.pt -> no.pt: no such checkpoint
scan.nii.gz --method asi,ckpt=nothing -> nothing: no such checkpoint
scan.nii.gz --method text.txt -> text.txt: is not a zip file
scan.nii.gz --method text.zip -> text.zip
scan.nii.gz --method readme.zip -> readme.zip: contains no bundle
scan.nii.gz --method nothing -> nothing: is not a bundle
scan.nii.gz --device gpu -> device gpu: cannot be computed on
scan.nii.gz --device cuda:99 -> device cuda:99: cannot be computed on
scan.nii.gz --device meta -> device meta: cannot be computed on
scan.nii.gz --series 2 -> is not DICOM; expected DICOM inputs with --series
scan.nii.gz --modality PET -> modality
text.zip -> text.zip
outside.zip -> would be written outside
absolute.zip -> would be written outside
link.zip -> is a link
bomb.zip -> GiB
locked.zip -> locked.zip
readme.zip -> readme
study --series 9 -> has no series 9
study -> has 2 DICOM series, see above; expected --series NUMBER, UID or all
cut_series -> cut_series
one_slice -> single slice
bundles download -> expected list, or download with names
bundles downlod asi -> invalid choice
bundles download asi --ur x -> unknown option --ur; did you mean --url?
bundles download asi --url file:///nowhere -> asi
bundles download ../asi --url file:///nowhere -> asi
pack -> required
pack nowhere -> nowhere
pack scan.nii.gz -> scan.nii.gz
pack nothing -> nothing
pack x --output-dir -> expected one argument
pack x --sauce y -> unknown option --sauce
preview -> required
preview scan.nii.gz -> required
preview scan.nii.gz nowhere.nii -> nowhere.nii: no such file
preview nowhere.nii scan.nii.gz -> nowhere.nii: no such file
preview scan.nii.gz text.nii -> text.nii
preview scan.nii.gz shape.nii -> shape.nii
preview scan.nii.gz scan.nii.gz --outpt_dir x -> unknown option --outpt_dir; did you mean --output-dir?
back -> required
back --label nowhere.nii --like scan.nii.gz --output x.nii -> nowhere.nii: no such file
back --label shape.nii --like nowhere.nii --output x.nii -> nowhere.nii: no such file
back --label text.nii --like scan.nii.gz --output x.nii -> text.nii
back --label place.nii --like scan.nii.gz --output x.nii -> place.nii
back --label shape.nii --like scan.nii.gz --output x.png -> x.png: cannot be written as that
back --label shape.nii --like scan.nii.gz --slice_thickness -1 --output x.nii -> thickness
evaluate -> required
evaluate --data scan.nii.gz -> required: --methods
evaluate --methods linear -> the following arguments are required: --data
evaluate --data scan.nii.gz --methods linear --factor two -> invalid int value: 'two'
evaluate --data scan.nii.gz --methods linear --factor 1 -> factor must be an integer of at least 2, got 1
evaluate --data scan.nii.gz --methods linear --factor 0 -> factor
evaluate --data scan.nii.gz --methods linear --window 1 -> argument --window: expected 2 arguments
evaluate --data scan.nii.gz --methods linear --window 9 1 -> window
evaluate --data scan.nii.gz --methods linear --window nan 1 -> window
evaluate --data scan.nii.gz --methods linear --color -> unknown option --color
evaluate --data scan.nii.gz --methods cubik -> unknown method 'cubik'
evaluate --data scan.nii.gz --methods linear linear -> two methods are called 'linear'
evaluate --data scan.nii.gz --methods a/b=linear -> cannot be the name of a method
evaluate --data scan.nii.gz --methods truth=linear -> cannot be the name of a method
evaluate --data scan.nii.gz --methods asi,ckpt=text.txt -> text.txt: not a readable checkpoint
evaluate --data scan.nii.gz --methods linear --protocol fwmh -> unknown protocol 'fwmh'
evaluate --data scan.nii.gz --methods linear --axis 3 -> axis must be 0, 1 or 2, got 3
evaluate --data scan.nii.gz --methods linear --crop 2 -> crop
evaluate --data scan.nii.gz --methods linear --crop -1 -> crop
evaluate --data scan.nii.gz --methods linear --workers 0 -> workers
evaluate --data scan.nii.gz --methods linear --panels -1 -> panels
evaluate --data scan.nii.gz --methods linear --sweep 1 -> sweep
evaluate --data scan.nii.gz --methods linear --perceptual lpip -> lpip
evaluate --data scan.nii.gz --methods linear --subjects zz -> zz
evaluate --data scan.nii.gz --methods linear --baselines nope -> unknown baseline 'nope'
evaluate --data scan.nii.gz --methods linear --body nan -> body must be a finite number
evaluate --data scan.nii.gz --methods linear --device tpu9 -> there is no device 'tpu9' here
evaluate --data scan.nii.gz --methods linear --output_dir text.txt -> text.txt
evaluate --data nowhere --methods linear -> nowhere: no such file or folder
evaluate --data nothing --methods linear -> nothing
""".strip().splitlines()

BUNDLES = ("asi", "saint", "hrinet", "vts", "mixture")
MISSPELT = {
    "inference": ("facter 4", "spaicng 1", "output-dirr x", "ckptt x"),
    "train": ("max_epoch 3", "lerning_rate 1"),
}


def wrong_values(name: str, value) -> list[str]:
    """What an option cannot take, judged by the value that the config has."""
    if isinstance(value, dict):
        return ["5", "[]", "x"] if "_target_" not in value else []
    if isinstance(value, bool):
        return ["maybe", "2", "nan", "[]"]
    if isinstance(value, list) and value and isinstance(value[0], int | float):
        return ["x", "nan", "[]", "{}"]
    if isinstance(value, list):
        return ["{}", "1.5"]
    if isinstance(value, int | float) and name not in ("axis", "val_axis", "batch_size"):
        return ["x", "nan", "1e30", "[]", "{}"]
    return ["{}"] if isinstance(value, str) and not value.startswith(("$", "@")) else []


def cases() -> dict[str, dict[str, Case]]:
    """All groups, each with its cases by name."""
    options = {}
    for bundle in BUNDLES:
        listed = json.loads((ROOT / "bundles" / bundle / "metadata.json").read_text())["options"]
        for kind, misspelt in MISSPELT.items():
            config = json.loads((ROOT / "bundles" / bundle / f"{kind}.json").read_text())
            texts = [f"--{text}" for text in misspelt]
            texts += [f"--{name} {v}" for name in listed[kind] for v in wrong_values(name, config.get(name))]
            options |= {f"{bundle} {kind} {text}": option(bundle, kind, text) for text in texts}
    configs = {}
    for name, content in OVERLAYS.items():
        named = f"{name}.json" if isinstance(content, str | bytes) else OBJECTS.get(name, "tiny: ")
        configs[name] = command(f"scan.nii.gz --device cpu --method tiny,config={name}.json -> {named}")
    weights = {n: command(f"scan.nii.gz --device cpu --method tiny,ckpt={n}.pt -> {n}.pt") for n in WEIGHTS}
    commands = {text.split(" -> ")[0]: command(text) for text in COMMANDS}
    return {"commands": commands, "weights": weights, "config files": configs, "options of bundles": options}


def write_files(folder: Path) -> None:
    """Write what the cases name, and a bundle "tiny" of random weights, into a folder."""
    nib.save(nib.Nifti1Image(VOXELS, AFFINE), folder / SCAN)
    ones = np.ones(VOXELS.shape, np.uint8)
    labels = {
        "shape": (np.ones((12, 10, 5), np.uint8), AFFINE),
        "place": (ones, AFFINE + 12 * np.outer(*np.eye(4)[2:])),
        "fractions": (ones * np.float32(0.5), AFFINE),
        "frames": (np.stack([ones] * 2, -1), AFFINE),
    }
    for name, (values, affine) in labels.items():
        nib.save(nib.Nifti1Image(values, affine), folder / f"{name}.nii")
    (folder / "nothing").mkdir()
    for name in ("text.txt", "text.nii", "text.zip"):
        (folder / name).write_text("this is no image")
    (folder / "link.nii.gz").symlink_to(folder / "gone.nii.gz")
    for name, content in WEIGHTS.items():
        (folder / f"{name}.pt").write_bytes(content)
    for name, content in OVERLAYS.items():
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        (folder / f"{name}.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    config = json.loads((ROOT / "bundles" / "asi" / "inference.json").read_text())
    config["network_def"].update(
        {key: list(value) if isinstance(value, tuple) else value for key, value in NETWORK.items()}
    )
    (folder / "bundles" / "tiny" / "models").mkdir(parents=True)
    (folder / "bundles" / "tiny" / "inference.json").write_text(json.dumps(config))
    (folder / "bundles" / "tiny" / "metadata.json").write_text('{"options": {"inference": {}}, "weights": {}}')
    torch.save(state(), folder / "bundles" / "tiny" / "models" / "model.pt")
    for name, member, mode in (
        ("readme", "readme/readme.txt", 0o100644), ("outside", "../evil.dcm", 0o100644),
        ("absolute", "/evil.dcm", 0o100644), ("link", "link.dcm", 0o120777), ("bomb", "zeros", 0o100644),
        ("locked", "a.dcm", 0o100644),
    ):  # fmt: skip
        info = zipfile.ZipInfo(member)
        info.external_attr = mode << 16
        with zipfile.ZipFile(folder / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            with archive.open(info, "w", force_zip64=True) as file:
                file.write(b"hello")
            if name == "bomb":  # announces what it would become
                archive.filelist[0].file_size = 2**41
        if name == "locked":
            content = bytearray((folder / "locked.zip").read_bytes())
            content[6] |= 1
            content[content.rindex(b"PK\1\2") + 8] |= 1
            (folder / "locked.zip").write_bytes(content)
    for number, count in ((1, 3), (2, 4)):
        write_series(folder / "study" / f"S{number}", VOXELS[..., :count], AFFINE, series_uid=f"1.2.{number}")
    first, *_ = write_series(folder / "cut_series", VOXELS, AFFINE)
    first.write_bytes(first.read_bytes()[:-50])
    for path in write_series(folder / "one_slice", VOXELS, AFFINE)[1:]:
        os.remove(path)
