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

"""Training in two stages, evaluation and the overlays of the bundle saint, from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from bundle_commands import (
    Command,
    Result,
    assert_identical,
    bundle_command,
    check_scores,
    check_subjects_apart,
    content,
    different_keys,
    events_of,
    files_of,
    filled,
    moments,
    names,
    parameters,
    parser_of,
    run_forked,
    scores_of,
    state,
    table_rows,
)
from monai.data import MetaTensor
from torch import Tensor

from monai_sliceinterp.evaluation import score_volume
from monai_sliceinterp.inferers import MultiViewSliceInferer
from monai_sliceinterp.networks.nets import SAINT

METHODS = ["linear", "cubic", "lanczos", "saint"]
PROTOCOLS = ["subsample x4"]
PARTS = ["AMI rows", "AMI columns", "mean of views", "spacing x0.25", "saint"]
SHORT = {
    "validation_fraction": 0.34,
    "max_epochs": 1,
    "val_interval": 1,
    "rfn_epochs": 1,
    "rfn_val_interval": 1,
    "batch_size": 2,
    "rfn_batch_size": 1,
    "num_slices": 4,
    "rfn_num_slices": 3,
    "patch_size": 32,
    "rfn_patch_size": 24,
    "max_spacing": 8,
}
TINY = {f"network_def__{part}__{size}": 1 for part in ("ami", "rfn") for size in ("num_blocks", "num_layers")}
TWO_EPOCHS = {  # a checkpoint after each epoch, but one validation, so that the best epoch is the last
    "max_epochs": 2,
    "rfn_epochs": 2,
    "val_interval": 2,
    "rfn_val_interval": 2,
    "train__checkpoint_saver__save_interval": 1,
    "fusion__checkpoint_saver__save_interval": 1,
}
RFN = "['rfn']"
AMI = "['ami']"


def train(output_dir: Path | str, *overlays: str, **options: object) -> Command:
    """Training of an epoch for each stage, on small blocks of small phantoms."""
    return bundle_command("saint", "train", overlays, {"output_dir": output_dir, **SHORT, **options})


def part(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The weights of "ami" or "rfn"."""
    result = {key: value for key, value in weights.items() if key.startswith(f"{name}.")}
    assert result
    return result


def network_of(*overlays: str, **options: object) -> SAINT:
    return parser_of("saint", "train", *overlays, **options).get_parsed_content("network_def")


def expected_psnr(weights: Path, dataset: Path, output_dir: Path, factor: int, fuse: bool, crop: int = 0) -> float:
    """Score of the small network on the volume that is not trained on, computed by the inferer of inference.json."""
    network = network_of("small").eval()
    network.load_state_dict(state(weights))
    given = {**SHORT, "dataset_dir": str(dataset), "output_dir": str(output_dir), "crop": crop}
    (item,) = parser_of("saint", "train", **given).get_parsed_content("comparison#volumes")
    thin, size = item["image"], crop or 40
    assert thin.shape == (1, size, size, 25) and thin.min() >= 0 and thin.max() <= 1
    thick = MetaTensor(thin.as_tensor()[None, ..., ::factor], affine=thin.affine.clone())
    thick.affine[:3, 2] *= factor
    pred = MultiViewSliceInferer(factor, value_range=(0.0, 1.0), fuse=fuse)(thick, network)
    return score_volume(pred[0], thin, factor)["psnr"]


def found_psnr(folder: Path) -> dict[tuple[str, str], float]:
    """Scores by protocol and method."""
    return {(row["protocol"], row["method"]): float(row["psnr"]) for row in scores_of(folder)}


@pytest.fixture(scope="module")
def straight(thin_volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    """Training through both stages, and the first stage alone."""
    root = tmp_path_factory.mktemp("straight")
    options = {"dataset_dir": thin_volumes, **TWO_EPOCHS}
    commands = {
        "both": train(root / "both", "small", **options),
        "ami": train(root / "ami", "small", stages=AMI, **options),
    }
    return root, run_forked(commands)


def test_training_writes_what_is_documented(straight: tuple[Path, dict[str, Result]]) -> None:
    root, results = straight
    results["both"].check_success()
    folder = root / "both"
    expected = {f"{stage}/checkpoint{end}.pt" for stage in ("ami", "rfn") for end in ("", "_epoch=1", "_epoch=2")}
    assert files_of(folder) == expected | {"ami/model.pt", "model.pt", "scores.csv", "scores.md"}
    for path in ("ami/model.pt", "model.pt"):
        network_of("small").load_state_dict(state(folder / path), strict=True)
    check_scores(folder, results["both"], METHODS, PROTOCOLS)
    assert " dB over " in table_rows(results["both"].stdout)[1][-3]


def test_tensorboard_events(straight: tuple[Path, dict[str, Result]]) -> None:
    root, _ = straight
    for stage in ("ami", "rfn"):
        scalars, images = events_of(root / "both" / stage)
        assert len(scalars["val_psnr"]) == len(scalars["val_ssim"]) == 1
        assert len(scalars["train_loss"]) == 2 * 2  # three phantoms, one of them for validation, each a batch
        assert images


def test_each_stage_trains_its_part(straight: tuple[Path, dict[str, Result]]) -> None:
    folder = straight[0] / "both"
    first, after_ami = (state(folder / "ami" / f"checkpoint{end}.pt", "network") for end in ("_epoch=1", ""))
    assert_identical(part(first, "rfn"), part(after_ami, "rfn"))
    assert len(different_keys(part(first, "ami"), part(after_ami, "ami"))) == len(part(first, "ami"))
    assert_identical(state(folder / "ami" / "model.pt"), after_ami)
    for weights in (state(folder / "model.pt"), state(folder / "rfn" / "checkpoint_epoch=1.pt", "network")):
        assert_identical(part(weights, "ami"), part(after_ami, "ami"))
        assert len(different_keys(part(weights, "rfn"), part(after_ami, "rfn"))) == len(part(weights, "rfn"))


def test_first_stage_alone(thin_volumes: Path, straight: tuple[Path, dict[str, Result]]) -> None:
    """It is what the first of two stages is: the same seed gives the same weights. The views' mean is scored."""
    root, results = straight
    results["ami"].check_success()
    assert {path.parent.name for path in (root / "ami").rglob("*.pt")} == {"ami"}
    for file, entry in (("model.pt", ""), ("checkpoint.pt", "network")):
        assert_identical(*(state(root / run / "ami" / file, entry) for run in ("both", "ami")))
    check_scores(root / "ami", results["ami"], METHODS, PROTOCOLS)
    for name, file, fuse in (("both", "model.pt", True), ("ami", "ami/model.pt", False)):
        expected = expected_psnr(root / name / file, thin_volumes, root / name, 4, fuse)
        assert found_psnr(root / name)["subsample x4", "saint"] == pytest.approx(expected, abs=1e-3)


@pytest.fixture(scope="module")
def continued(
    straight: tuple[Path, dict[str, Result]], thin_volumes: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Result]]:
    """Both stages resumed after their first epoch, the second stage alone, and a finished first stage resumed."""
    root, done = tmp_path_factory.mktemp("continued"), straight[0] / "both"
    options = {"dataset_dir": thin_volumes, **TWO_EPOCHS}
    first = "checkpoint_epoch=1.pt"
    commands = {
        "ami_resumed": train(root / "ami_resumed", "small", ckpt=done / "ami" / first, **options),
        "rfn_resumed": train(root / "rfn_resumed", "small", ckpt=done / "rfn" / first, stages=RFN, **options),
        "rfn_alone": train(root / "rfn_alone", "small", pretrained=done / "ami" / "model.pt", stages=RFN, **options),
        "ami_done": train(root / "ami_done", "small", ckpt=done / "ami" / "checkpoint.pt", **options),
    }
    return root, run_forked(commands)


@pytest.mark.parametrize("name", ["ami_resumed", "rfn_resumed", "rfn_alone"])
def test_resumed_training_ends_with_the_same_weights(
    name: str, straight: tuple[Path, dict[str, Result]], continued: tuple[Path, dict[str, Result]]
) -> None:
    """Bit for bit, the optimizers' states and the scores too."""
    (root, results), done = continued, straight[0] / "both"
    results[name].check_success()
    stages = ["ami", "rfn"] if name == "ami_resumed" else ["rfn"]
    assert_identical(state(root / name / "model.pt"), state(done / "model.pt"))
    for stage in stages:
        found, expected = (state(folder / stage / "checkpoint.pt") for folder in (root / name, done))
        assert found.keys() == expected.keys()
        assert_identical(found["network"], expected["network"])
        optimizer = "optimizer" if stage == "ami" else "rfn_optimizer"
        assert found[optimizer]["param_groups"] == expected[optimizer]["param_groups"]
        assert_identical(*(moments(checkpoint[optimizer]) for checkpoint in (found, expected)))
    assert {path.parent.name for path in (root / name).rglob("*.pt")} == {*stages, name}
    assert (root / name / "scores.csv").read_text() == (done / "scores.csv").read_text()
    assert table_rows(results[name].stdout) == table_rows(straight[1]["both"].stdout)


def test_finished_first_stage_resumed_in_another_folder(
    straight: tuple[Path, dict[str, Result]], continued: tuple[Path, dict[str, Result]]
) -> None:
    """Nothing is left to train there, so it goes on with the second stage."""
    root, results = continued
    results["ami_done"].check_success()
    assert_identical(state(root / "ami_done" / "model.pt"), state(straight[0] / "both" / "model.pt"))


@pytest.fixture(scope="module")
def overlays(
    saint_weights: Path, thin_volumes: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Result]]:
    """The plain configuration on the embedded phantoms, and every overlay."""
    root = tmp_path_factory.mktemp("overlays")
    phantoms = {"phantoms__num_phantoms": 3, "phantoms__shape": "[40,40,25]", "phantoms__spacing": "[8,8,8]"}
    given = {"dataset_dir": thin_volumes, **TINY}
    commands = {
        "plain": train(root / "plain", **TINY, **phantoms, seed=3),
        "four_views": train(root / "four_views", "four_views", **given),
        "rfn_3d": train(root / "rfn_3d", "rfn_3d", **given),
        "paper": train(root / "paper", "paper", **given),
        "evaluate": train(
            root / "evaluate", "small", "evaluate", dataset_dir=thin_volumes, ckpt=saint_weights, crop=32
        ),
    }
    return root, run_forked(commands)


@pytest.mark.parametrize("name", ["plain", "four_views", "rfn_3d", "paper"])
def test_overlays_train(name: str, overlays: tuple[Path, dict[str, Result]]) -> None:
    root, results = overlays
    results[name].check_success()
    check_scores(root / name, results[name], METHODS, PROTOCOLS)
    tiny = network_of(*([] if name == "plain" else [name]), **TINY)
    tiny.load_state_dict(state(root / name / "model.pt"), strict=True)
    assert len(tiny.directions) == (4 if name == "four_views" else 2)
    assert tiny.rfn.spatial_dims == (3 if name == "rfn_3d" else 2)


def test_embedded_phantoms(overlays: tuple[Path, dict[str, Result]]) -> None:
    root, _ = overlays
    assert names(root / "plain" / "phantoms") == [f"torso_{seed:03d}.nii.gz" for seed in (3, 4, 5)]
    assert not (root / "four_views" / "phantoms").exists()


def test_paper(overlays: tuple[Path, dict[str, Result]]) -> None:
    """Optimizers as in the paper: Adam with its own moments, at a constant rate."""
    root, _ = overlays
    for stage, entry in (("ami", "optimizer"), ("rfn", "rfn_optimizer")):
        (group,) = state(root / "paper" / stage / "checkpoint.pt")[entry]["param_groups"]
        assert group["lr"] == 1e-4 and tuple(group["betas"]) == (0.5, 0.999)
    paper = content("saint", "paper")
    assert paper["factors"] == [4, 6] and paper["max_spacing"] == 5 and paper["network_def"]["ami"]["residual"] is False
    network = network_of("paper")
    assert parameters(network.ami) == 2_787_712
    assert network.edge == "zero"


def test_small_network_costs_a_tenth() -> None:
    """Convolutions on a pixel of a slice: of both stages, two views and one fusion."""
    costs = []
    for overlays in ((), ("small",)):
        network = network_of(*overlays)
        ami, rfn = parameters(network.ami.feature_learning), parameters(network.rfn)
        costs.append(2 * ami / 4 + rfn)  # features are learned once for four slices
    assert 6 < costs[0] / costs[1] < 15


def test_subjects_of_ct_are_apart() -> None:
    check_subjects_apart("saint")


def test_evaluate(saint_weights: Path, thin_volumes: Path, overlays: tuple[Path, dict[str, Result]]) -> None:
    """A column for each part; that of the whole is what the inferer of inference.json scores."""
    root, results = overlays
    results["evaluate"].check_success()
    folder = root / "evaluate"
    assert names(folder) == ["scores.csv", "scores.md"]
    protocols = [f"subsample x{factor}" for factor in (2, 4, 6)]
    check_scores(folder, results["evaluate"], [*METHODS[:-1], *PARTS], protocols)
    found = found_psnr(folder)
    assert list(found) == [(protocol, method) for protocol in protocols for method in (*METHODS[:-1], *PARTS)]
    for factor in (2, 4, 6):
        for method, fuse in (("mean of views", False), ("saint", True)):
            expected = expected_psnr(saint_weights, thin_volumes, folder, factor, fuse, crop=32)
            assert found[f"subsample x{factor}", method] == pytest.approx(expected, abs=1e-3), (method, factor)


WRONG_COMMANDS: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "never_validated": ({"rfn_epochs": 1, "rfn_val_interval": 2}, ("rfn_val_interval 2", "rfn_epochs 1")),
    "dataset_missing": ({"dataset_dir": "{root}/nowhere"}, ("{root}/nowhere", "no such file or folder")),
    "output_below_a_file": ({"output_dir": "{root}/file/out"}, ("{root}/file/out", "cannot be written")),
    "ckpt_of_ami_for_rfn": (
        {"ckpt": "{done}/ami/checkpoint.pt", "stages": RFN},
        ("{done}/ami/checkpoint.pt", "lacks rfn_optimizer"),
    ),
    "ckpt_of_rfn_for_ami": ({"ckpt": "{done}/rfn/checkpoint.pt"}, ("{done}/rfn/checkpoint.pt", "lacks optimizer")),
    "pretrained_of_another_size": (
        {"pretrained": "{done}/model.pt", "network_def__ami__growth": 8},
        ("{done}/model.pt", "not a checkpoint of SAINT", "more differences"),
    ),
    "volumes_too_small_for_ami": ({"patch_size": 41}, ("torso_", "40x40x25 voxels is too small", "3x41 pixels")),
    "volumes_too_small_for_rfn": (
        {"rfn_patch_size": 41, "stages": RFN, "pretrained": "{done}/ami/model.pt"},
        ("torso_", "40x40x25 voxels is too small", "41x41 pixels"),
    ),
    "window_empty": ({"window": "[100,100]"}, ("window", "100")),
}


@pytest.fixture(scope="module")
def wrong_commands(
    straight: tuple[Path, dict[str, Result]], thin_volumes: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Result]]:
    root, done = tmp_path_factory.mktemp("wrong"), straight[0] / "both"
    (root / "file").write_text("a file")
    commands = {
        name: bundle_command(
            "saint",
            "train",
            ["small"],
            {
                **SHORT,
                "output_dir": root / "out" / name,
                "dataset_dir": thin_volumes,
                **filled(given, root=root, done=done),
            },
        )
        for name, (given, _) in WRONG_COMMANDS.items()
    }
    return root, run_forked(commands)


@pytest.mark.parametrize("name", WRONG_COMMANDS)
def test_wrong_commands(
    name: str, straight: tuple[Path, dict[str, Result]], wrong_commands: tuple[Path, dict[str, Result]]
) -> None:
    root, results = wrong_commands
    places = {"root": root, "done": straight[0] / "both"}
    results[name].check_error(*(text.format(**places) for text in WRONG_COMMANDS[name][1]))
    assert not list(root.rglob("model.pt"))
