# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Options of every bundle's configs: listed, with a text, and no others taken; errors from wherever they are run."""

from dataclasses import replace

import pytest

from monai_sliceinterp.options import check_options
from tests.bundles.bundle_cases import CASES
from tests.bundles.bundle_commands import (
    BUNDLES,
    Command,
    bundle_command,
    content,
    overlays_of,
    parser_of,
    run_forked,
    save_scan,
)

KINDS = ("inference", "train", "evaluate")
OF_INFERENCE = ("multi_gpu_inference", "quantize")
OVERLAYS = [(bundle, name) for bundle in CASES for name in (*overlays_of(bundle), "multi_gpu_inference")]
OVERLAYS.append(("saint", "quantize"))


def is_part(value):
    """Whether a value at the top of a config is a part of the pipeline, not an option."""
    if isinstance(value, str):
        return value.startswith("$")
    if isinstance(value, dict):
        return "_target_" in value or any(map(is_part, value.values())) or "network" in value
    return isinstance(value, list) and any(map(is_part, value))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bundle", CASES)
def test_options_and_their_texts(bundle, kind):
    """Every option that is listed is there; every key at the top that is a plain value is listed."""
    options, keys = content(bundle, "metadata")["options"][kind], content(bundle, kind)
    assert set(options) <= set(content(bundle, "train") | keys if kind == "evaluate" else keys)
    plain = {key for key, value in keys.items() if not is_part(value) and key not in ("imports", "dataset_dir")}
    assert {key for key in plain if "#" not in key} <= set(options)
    assert {"output_dir", "device", "ckpt", "bundle_root"} <= set(options)


@pytest.mark.parametrize(("bundle", "overlay"), OVERLAYS)
def test_misspelt_options_with_every_overlay(bundle, overlay):
    base = "inference" if overlay in OF_INFERENCE else "train"
    config = parser_of(bundle, base, overlay).config
    option, hint = ("facter", "factor") if base == "inference" else ("max_epoch", "max_epochs")
    check_options({hint: 1, **dict.fromkeys(content(bundle, overlay), 1)}, config)
    with pytest.raises(ValueError, match=f"unknown option --{option}; did you mean --{hint}"):
        check_options({option: 1}, config)


@pytest.mark.parametrize("bundle", CASES)
def test_commands(bundle, tmp_path):
    """Misspelt options are refused with a hint; ``--help`` lists what there is; a debug switch shows tracebacks."""
    options = content(bundle, "metadata")["options"]
    commands = {
        "facter": bundle_command(bundle, "inference", (), {"facter": 4}),
        "spaicng": bundle_command(bundle, "inference", CASES[bundle].overlays, {"spaicng": 1.0}),
        "max_epoch": bundle_command(bundle, "train", (), {"max_epoch": 3, "output_dir": tmp_path}),
        "evaluate": bundle_command(bundle, "train", ("evaluate",), {"facter": 4, "output_dir": tmp_path}),
        **{f"help_{kind}": bundle_command(bundle, kind, (), {"help": True}) for kind in ("inference", "train")},
        "help_evaluate": bundle_command(bundle, "train", ("evaluate",), {"help": True}),
    }
    results = run_forked(commands)
    for name, hint in (("facter", "factor"), ("spaicng", "spacing"), ("max_epoch", "max_epochs"), ("evaluate", "")):
        results[name].check_error(f"unknown option --{'facter' if name == 'evaluate' else name}", f"--{hint}")
    for kind in KINDS:
        results[f"help_{kind}"].check_success()
        lines = [line for line in results[f"help_{kind}"].stdout.splitlines() if line.startswith("  ")]
        assert [line.split()[0] for line in lines] == list(options[kind])
        assert all(text in line for line, text in zip(lines, options[kind].values(), strict=True))
    assert not list(tmp_path.iterdir())


def test_debugging(tmp_path):
    """The traceback, of what is reported at once and of a scan that fails; else one line."""
    (tmp_path / "scan.nii").write_text("no image")
    options = {"input": tmp_path / "scan.nii", "output_dir": tmp_path / "out"}
    plain = bundle_command("asi", "inference", (), {**options, "factor": 0})
    scan = bundle_command("asi", "inference", (), {**options, "factor": 2})
    run_forked({"": plain})[""].check_error("factor must be a positive integer", "got 0.")
    for command, last in ((plain, "error: "), (scan, "error: 1 of 1 inputs failed")):
        result = run_forked({"": replace(command, environment={"MONAI_DEBUG": "true"})})[""]
        assert result.status == 1 and "Traceback (most recent call last)" in result.stderr
        assert result.stderr.splitlines()[-1].startswith(last)


@pytest.mark.parametrize("bundle", CASES)
def test_from_another_folder(bundle, tmp_path):
    """Where the bundle is not found by itself, it is said how to name it; then it works."""
    scan = save_scan(tmp_path / "scan.nii.gz", (14, 13, 3))
    config, options = str(BUNDLES / bundle / "inference.json"), {"input": scan, "factor": 2, "output_dir": "out"}
    command = Command(config, options, tmp_path)
    run_forked({"": command})[""].check_error(
        f".: is not the folder of the bundle; expected it as --bundle_root {BUNDLES / bundle}."
    )
    assert not (tmp_path / "out").exists()
    if bundle == "asi":
        run_forked({"": replace(command, options={**options, "bundle_root": BUNDLES / bundle})})[""].check_success()
        assert (tmp_path / "out" / "scan_interp.nii.gz").is_file()


def test_two_processes(tmp_path):
    for config, option, hint in (("inference", "facter", "factor"), ("train", "max_epoch", "max_epochs")):
        command = bundle_command("asi", config, [f"multi_gpu_{config}"], {option: 3, "output_dir": tmp_path / "out"})
        result = run_forked({"": replace(command, processes=2)})[""]
        assert result.status != 0 and f"unknown option --{option}; did you mean --{hint}?" in result.stderr
    assert not (tmp_path / "out").exists()
