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

"""Training, evaluation and the overlays of the bundle asi, from the command line."""

from __future__ import annotations

import csv
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_commands import (
    BUNDLES,
    Command,
    Result,
    assert_identical,
    bundle_command,
    check_table,
    content,
    different_keys,
    filled,
    run,
    run_all,
    run_forked,
    run_named,
    save_scan,
    state,
    table_rows,
)
from monai.bundle import ConfigParser
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_sliceinterp.networks.nets import ASIAutoencoder, ResidualASIAutoencoder

PHANTOMS = {
    "phantoms#phantom_kinds": "['heart','head']",
    "phantoms#num_phantoms": 3,
    "phantoms#shape": "[32,32,9]",
    "patch_size": 32,
}
MR = content("asi", "mr")
METHODS = ["linear", "cubic", "lanczos", "asi"]


def train(output_dir: Path | str, *overlays: str, **options: object) -> Command:
    """Training on tiny phantoms."""
    return bundle_command("asi", "train", overlays, {"output_dir": output_dir, **PHANTOMS, **options})


def save_dataset(folder: Path, names: Sequence[str], frames: Sequence[str] = ()) -> Path:
    for seed, name in enumerate(names):
        shape = (32, 34, 9, 2) if name in frames else (32, 34, 9)
        save_scan(folder / ("below" if seed % 2 else ".") / f"{name}.nii.gz", shape, spacing=(1, 1, 1.2), seed=seed)
    return folder


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[Result]]:
    """The same training twice, and once with another seed."""
    root = tmp_path_factory.mktemp("straight")
    folders = [root / "one", root / "two", root / "other_seed"]
    options = {"max_epochs": 4, "val_interval": 1, "norm_warmup_epochs": 2}
    commands = [train(folder, seed=seed, **options) for folder, seed in zip(folders, (0, 0, 1), strict=True)]
    return folders, run_all(commands)


def test_training_writes_what_is_documented(straight: tuple[list[Path], list[Result]]) -> None:
    folders, results = straight
    for result in results:
        result.check_success()
    found = {path.name for path in folders[0].iterdir()}
    # a checkpoint for each of the last two validations and the final one
    expected = {
        "model.pt",
        "checkpoint.pt",
        "checkpoint_epoch=3.pt",
        "checkpoint_epoch=4.pt",
        "scores.csv",
        "scores.md",
    }
    assert found - {name for name in found if name.startswith("events.out.tfevents")} == expected | {"phantoms"}
    ASIAutoencoder().load_state_dict(state(folders[0] / "model.pt"), strict=True)
    assert len(list((folders[0] / "phantoms").iterdir())) == 6
    check_table(results[0], METHODS, ["subsample x2"], 1)
    assert " dB over " in table_rows(results[0].stdout)[1][-3]
    with (folders[0] / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == METHODS and all(float(row["psnr"]) > 0 for row in rows)


def test_tensorboard_events(straight: tuple[list[Path], list[Result]]) -> None:
    folders, _ = straight
    scalars: dict[str, int] = {}
    images: set[str] = set()
    for path in folders[0].glob("events.out.tfevents*"):
        events = EventAccumulator(str(path)).Reload()
        scalars.update({tag: len(events.Scalars(tag)) for tag in events.Tags()["scalars"]})
        images.update(events.Tags()["images"])
    assert scalars["val_psnr"] == scalars["val_ssim"] == 4
    assert scalars["train_loss"] == 4 * 5  # six phantoms, one of them for validation, each a batch
    assert images


def test_same_seed_gives_identical_weights(straight: tuple[list[Path], list[Result]]) -> None:
    one, two, other = straight[0]
    assert_identical(state(one / "model.pt"), state(two / "model.pt"))
    assert_identical(state(one / "checkpoint.pt", "network"), state(two / "checkpoint.pt", "network"))
    assert different_keys(*(state(folder / "model.pt") for folder in (one, other)))
    assert (one / "scores.csv").read_text() == (two / "scores.csv").read_text()


def test_killed_training_resumes_to_the_same_result(straight: tuple[list[Path], list[Result]], tmp_path: Path) -> None:
    options = {"max_epochs": 4, "val_interval": 1, "norm_warmup_epochs": 2}
    checkpoint = tmp_path / "checkpoint_epoch=2.pt"
    process = train(tmp_path, **options).start()
    end = time.monotonic() + 100
    try:
        while not checkpoint.exists():
            assert process.poll() is None and time.monotonic() < end, process.stderr and process.stderr.read()
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "checkpoint.pt").exists()
    result = run(train(tmp_path, ckpt=checkpoint, **options))
    result.check_success()
    one, results = straight[0][0], straight[1]
    found, expected = (state(folder / "checkpoint.pt") for folder in (tmp_path, one))
    assert_identical(found["network"], expected["network"])
    assert_identical(found["best_model"].pop("weights"), expected["best_model"].pop("weights"))
    assert found["best_model"] == expected["best_model"]
    assert_identical(state(tmp_path / "model.pt"), state(one / "model.pt"))
    assert (tmp_path / "scores.csv").read_text() == (one / "scores.csv").read_text()
    assert table_rows(result.stdout) == table_rows(results[0].stdout)


@pytest.fixture(scope="module")
def overlays(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    """A run of every overlay, and of training on a folder of volumes."""
    root = tmp_path_factory.mktemp("overlays")
    own = save_dataset(root / "own", ["a_1", "a_2", "b_1", "b_2", "c_1", "d_1"], frames=["a_2", "b_2"])
    subjects = [f"{subject}_scan" for subject in MR["validation_subjects"][:2] + MR["test_subjects"][:3]]
    mr = save_dataset(root / "mr", [*subjects, "own_1", "own_2", "own_3", "own_4"], frames=["own_2", subjects[2]])
    (root / "without").mkdir()
    (root / "without" / "lpips.py").write_text("raise ImportError('No module named lpips')\n")
    short = {"max_epochs": 1, "val_interval": 1}
    own_options = {"validation_subjects": "['b_']", "test_subjects": "['c_','a_2']", "dataset_dir": own, **short}
    paper = {**short, "patch_size": 32, "batch_size": 4}

    def lacking(command: Command) -> Command:
        return Command(command.config, command.options, python_path=str(root / "without"))

    commands = {
        "dataset": train(root / "dataset", **own_options),
        "evaluate": train(root / "evaluate", "evaluate", ckpt=weights),
        "residual": train(root / "residual", "residual", **short),
        "mr": train(root / "mr_out", "mr", dataset_dir=mr, **short),
        "paper": lacking(train(root / "paper", "paper", **paper)),
        "paper_brain": lacking(train(root / "paper_brain", "paper", "paper_brain", **paper)),
        "paper_mse": train(root / "paper_mse", "paper", loss__synthesis="mse", **paper),
        "pretrained": train(root / "pretrained", pretrained=weights, **{**short, "learning_rate": 0}),
    }
    without = {name: command for name, command in commands.items() if command.python_path}
    with_all = {name: command for name, command in commands.items() if not command.python_path}
    return root, {**run_named(without), **run_forked(with_all)}


def test_own_dataset_is_split_by_subject(overlays: tuple[Path, dict[str, Result]]) -> None:
    root, results = overlays
    results["dataset"].check_success()
    assert not (root / "dataset" / "phantoms").exists()
    with (root / "dataset" / "scores.csv").open() as file:
        assert {row["volume"] for row in csv.DictReader(file)} == {"c_1", "a_2"}
    ASIAutoencoder().load_state_dict(state(root / "dataset" / "model.pt"), strict=True)


def test_evaluate(overlays: tuple[Path, dict[str, Result]]) -> None:
    root, results = overlays
    results["evaluate"].check_success()
    check_table(results["evaluate"], METHODS, ["subsample x2", "subsample x4", "fwhm x3"], 1)
    assert {path.name for path in (root / "evaluate").iterdir()} == {"phantoms", "scores.csv", "scores.md"}


def test_residual(overlays: tuple[Path, dict[str, Result]]) -> None:
    root, results = overlays
    results["residual"].check_success()
    ResidualASIAutoencoder().load_state_dict(state(root / "residual" / "model.pt"), strict=True)


def test_mr_uses_its_subjects(overlays: tuple[Path, dict[str, Result]]) -> None:
    root, results = overlays
    results["mr"].check_success()
    with (root / "mr_out" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["volume"] for row in rows} == {f"{subject}_scan" for subject in MR["test_subjects"][:3]}
    assert {row["protocol"] for row in rows} == {"subsample x2", "subsample x4", "fwhm x3"}
    assert [row[1] for row in table_rows(results["mr"].stdout)[1:]].count("fwhm x3") == 2  # one for each folder


@pytest.mark.parametrize("name", ["paper", "paper_brain"])
def test_paper_without_lpips_says_what_to_install(name: str, overlays: tuple[Path, dict[str, Result]]) -> None:
    root, results = overlays
    results[name].check_error("lpips", 'pip install "monai_sliceinterp[perceptual]"')
    assert not list((root / name).glob("*.pt"))


def test_paper_with_another_distance_trains(overlays: tuple[Path, dict[str, Result]]) -> None:
    root, results = overlays
    results["paper_mse"].check_success()
    check_table(results["paper_mse"], METHODS, ["subsample x2"], 1)
    optimizer = state(root / "paper_mse" / "checkpoint.pt", "optimizer")
    assert optimizer["param_groups"][0]["lr"] == 1e-5


def test_pretrained_weights_are_the_start(weights: Path, overlays: tuple[Path, dict[str, Result]]) -> None:
    root, results = overlays
    results["pretrained"].check_success()
    found, expected = state(root / "pretrained" / "model.pt"), state(weights)
    for name, _ in ASIAutoencoder().named_parameters():  # the learning rate is 0; statistics change
        assert torch.equal(found[name], expected[name])


PAPER = {
    ("paper",): {"max_epochs": 900, "pairs": 12, "patch": 128, "weight": 0.05, "percentiles": [1.0, 99.0]},
    ("paper", "paper_brain"): {
        "max_epochs": 1300,
        "pairs": 8,
        "patch": 64,
        "weight": 0.001,
        "percentiles": [0.0, 100.0],
    },
}


@pytest.mark.parametrize("names", PAPER, ids="+".join)
def test_settings_of_the_paper(names: tuple[str, ...], tmp_path: Path) -> None:
    expected = PAPER[names]
    parser = ConfigParser()
    parser.read_config([BUNDLES / "asi" / f"{name}.json" for name in ("train", *names)])
    parser["loss#synthesis"] = "mse"
    parser["output_dir"], parser["device"] = str(tmp_path), torch.device("cpu")
    for seed in range(6):
        save_scan(tmp_path / "scans" / f"{seed}.nii.gz", (130, 128, 4), seed=seed)
    parser["dataset_dir"] = str(tmp_path / "scans")
    assert parser.get_parsed_content("train#trainer").state.max_epochs == parser["max_epochs"] == expected["max_epochs"]
    optimizer = parser.get_parsed_content("optimizer")
    assert type(optimizer) is torch.optim.Adam and optimizer.param_groups[0]["lr"] == 1e-5
    scheduler = parser.get_parsed_content("lr_scheduler")
    for _ in range(20):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 1e-5
    loss = parser.get_parsed_content("loss")
    assert loss.synthesis_weight == expected["weight"] and parser["norm_warmup_epochs"] is None
    assert parser.get_parsed_content("percentiles") == expected["percentiles"]
    batch = next(iter(parser.get_parsed_content("train#dataloader")))
    assert batch["image"].shape == (expected["pairs"], 2, expected["patch"], expected["patch"])
    assert (batch["alpha"] == 0.5).all()  # the slice in the middle of three


WRONG_COMMANDS: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "never_validated": ({"max_epochs": 4, "val_interval": 5}, ("val_interval 5", "max_epochs 4", "expected 1 to 4")),
    "batch_size": ({"batch_size": 12}, ("batch_size 12", "samples_per_volume 8")),
    "dataset_missing": ({"dataset_dir": "{root}/nowhere"}, ("{root}/nowhere", "no such file or folder")),
    "dataset_with_nan": ({"dataset_dir": "{root}/nan"}, ("nan_", "NaN or infinite")),
    "output_below_a_file": ({"output_dir": "{root}/file/out"}, ("{root}/file/out", "cannot be written")),
    "ckpt_missing": ({"ckpt": "{root}/nowhere.pt"}, ("{root}/nowhere.pt", "no such checkpoint")),
    "ckpt_of_weights": ({"ckpt": "{weights}"}, ("{weights}", "lacks network, optimizer")),
}


@pytest.fixture(scope="module")
def wrong_commands(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    root = tmp_path_factory.mktemp("wrong")
    (root / "file").write_text("a file")
    for seed in range(3):
        save_scan(root / "nan" / f"nan_{seed}.nii.gz", (32, 32, 5), float, seed=seed)
        nan = nib.load(root / "nan" / f"nan_{seed}.nii.gz")
        nib.save(nib.Nifti1Image(nan.get_fdata() * np.nan, nan.affine), root / "nan" / f"nan_{seed}.nii.gz")
    commands = {}
    for name, (options, _) in WRONG_COMMANDS.items():
        given = {"output_dir": root / "out" / name, "max_epochs": 1, "val_interval": 1}
        commands[name] = train(**{**given, **filled(options, root=root, weights=weights)})
    return root, run_forked(commands)


@pytest.mark.parametrize("name", WRONG_COMMANDS)
def test_wrong_commands(name: str, weights: Path, wrong_commands: tuple[Path, dict[str, Result]]) -> None:
    root, results = wrong_commands
    results[name].check_error(*(part.format(root=root, weights=weights) for part in WRONG_COMMANDS[name][1]))
    assert not list(root.rglob("model.pt"))
