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

"""Training in two stages, evaluation and the overlays of the bundle hrinet, from the command line."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_commands import (
    Command,
    Result,
    assert_identical,
    body,
    bundle_command,
    check_output,
    check_scores,
    check_subjects_apart,
    content,
    diagonal,
    different_keys,
    events_of,
    files_of,
    filled,
    mixed_by_pairs,
    moments,
    names,
    parameters,
    parser_of,
    run_forked,
    save,
    scan_of,
    scores_of,
    state,
    statistics,
    table_rows,
)
from monai.losses import PatchAdversarialLoss
from torch import nn

from monai_sliceinterp.losses import EncoderFeatureLoss
from monai_sliceinterp.networks.nets import HRINetAutoencoder, VariationalHRINetAutoencoder

PROTOCOLS = ["subsample x6"]
WINDOW = (-1024.0, 2976.0)  # HU
STAGE1 = ["loss", "content", "constraint", "constraint_critic"]
STAGE2 = [*STAGE1, "adversarial", "patch_critic", "supervised"]
SHORT = {
    "validation_fraction": 0.34,
    "max_epochs": 1,
    "stage2_epochs": 1,
    "val_interval": 1,
    "batch_size": 2,
    "samples_per_epoch": 1,
    "num_slices": 4,
    "patch_size": 24,
}
NARROW = {"channels": "[4,4]", "patch_critic_channels": 4}
TINY = {**NARROW, "latent_channels": "[2,2]"}
PHANTOMS = {"phantoms__num_phantoms": 3, "phantoms__shape": "[32,32,25]", "phantoms__spacing": "[10,10,3]"}
TWO_EPOCHS = {  # a checkpoint after each epoch, but one validation, so that the best epoch is the last
    "max_epochs": 2,
    "stage2_epochs": 2,
    "val_interval": 2,
    "train__checkpoint_saver__save_interval": 1,
    "refine__checkpoint_saver__save_interval": 1,
}
THREE_EPOCHS = {**TWO_EPOCHS, "stage2_epochs": 3}  # of which the second is validated
ONE_OF_TWO_EPOCHS = {"max_epochs": 1, "val_interval": 1, "train__lr_scheduler__T_max": 2}
SECOND = "['stage2']"
ALONE = ["ae", "acai", "vae"]  # overlays that have the first stage alone
OVERLAYS = ["mse", "perceptual", "patchgan_only", *ALONE, "paper"]
ITERATIONS = 2  # of an epoch: three volumes, one of them for validation, two samples of each, two in a batch


def train(output_dir: Path | str, *overlays: str, **options: object) -> Command:
    """Training of an epoch for each stage, on small patches of small volumes."""
    return bundle_command("hrinet", "train", overlays, {"output_dir": output_dir, **SHORT, **options})


def tiny(output_dir: Path | str, *overlays: str, **options: object) -> Command:
    """Training of a narrow network on the embedded phantoms, smaller."""
    return train(output_dir, *overlays, **{**TINY, **PHANTOMS, **options})


def part_of(name: str, *overlays: str, **options: object) -> Any:
    """A part of the configuration of a short training."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return parser_of("hrinet", "train", *overlays, **{**SHORT, **options}).get_parsed_content(name)


def tiny_network() -> HRINetAutoencoder:
    return part_of("network_def", channels=[4, 4], latent_channels=[2, 2])


def methods(name: str) -> list[str]:
    named = {"mse": "hrinet-mse", "perceptual": "hrinet-perceptual", "patchgan_only": "patchgan-only"}
    return ["linear", "cubic", "lanczos", named.get(name, name if name in ALONE else "hrinet")]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    """Both stages; the first epoch again, and with another seed; where stages start from; the second alone, scored."""
    root = tmp_path_factory.mktemp("straight")
    both, perceptual = root / "both", root / "perceptual"
    commands = {
        "both": tiny(both, **TWO_EPOCHS),
        "again": tiny(root / "again", stages="['stage1']", amp="true", **ONE_OF_TWO_EPOCHS),
        "other_seed": tiny(root / "other_seed", stages="stage1", seed=5, **ONE_OF_TWO_EPOCHS),
        # validated after the second of three epochs; then nothing is learned by the autoencoder and D1
        "handover": tiny(
            root / "handover",
            max_epochs=3,
            stage2_epochs=2,
            val_interval=2,
            refine__optimizer__lr=0,
            refine__lr_scheduler__eta_min=0,
            refine__constraint_optimizer__lr=0,
        ),
        "perceptual": tiny(
            perceptual, "perceptual", stages=SECOND, pretrained=both / "stage1" / "model.pt", **THREE_EPOCHS
        ),
        "evaluate": tiny(root / "evaluate", "evaluate", "perceptual", ckpt=perceptual / "model.pt", crop=0),
    }
    return root, run_forked(commands)


def test_training_writes_what_is_documented(straight: tuple[Path, dict[str, Result]]) -> None:
    root, results = straight
    results["both"].check_success()
    folder = root / "both"
    expected = {f"{stage}/checkpoint{end}.pt" for stage in ("stage1", "stage2") for end in ("", "_epoch=1", "_epoch=2")}
    expected |= {f"phantoms/torso_{seed:03d}.nii.gz" for seed in range(3)}
    assert files_of(folder) == expected | {"stage1/model.pt", "model.pt", "scores.csv", "scores.md"}
    for stage, file in (("stage1", "stage1/model.pt"), ("stage2", "model.pt")):
        tiny_network().load_state_dict(state(folder / file), strict=True)
        assert_identical(state(folder / file), state(folder / stage / "checkpoint.pt", "network"))
    check_scores(folder, results["both"], methods(""), PROTOCOLS)
    assert " dB over " in table_rows(results["both"].stdout)[1][-3]


def test_tensorboard_has_every_loss(straight: tuple[Path, dict[str, Result]]) -> None:
    root, _ = straight
    settings = content("hrinet", "train")
    for stage, expected in (("stage1", STAGE1), ("stage2", STAGE2)):
        scalars, images = events_of(root / "both" / stage)
        steps = 2 * ITERATIONS
        # in stage II the steps alternate, beginning with the unsupervised one
        counts = {name: steps if stage == "stage1" or name == "loss" else steps // 2 for name in expected}
        known = {*STAGE2, "divergence"}
        assert {name: len(values) for name, values in scalars.items() if name in known} == counts
        assert len(scalars["val_psnr"]) == len(scalars["val_ssim"]) == 1
        assert images
        found = {name: np.array(values) for name, values in scalars.items()}
        first = found["loss"] if stage == "stage1" else found["loss"][::2]
        total = found["content"] + settings["constraint_weight"] * found["constraint"]
        if stage == "stage2":
            total += settings["adversarial_weight"] * found["adversarial"]
            np.testing.assert_array_equal(found["loss"][1::2], found["supervised"])
        np.testing.assert_allclose(first, total, rtol=1e-5)
        assert all((found[name] > 0).all() for name in expected)


def test_every_network_is_trained(straight: tuple[Path, dict[str, Result]]) -> None:
    """The autoencoder and D1 in both stages, D2 only in the second."""
    folder, settings = straight[0] / "both", content("hrinet", "train")
    optimizers = {"network": "optimizer", "constraint_critic": "constraint_optimizer"}
    for stage, prefix in (("stage1", ""), ("stage2", "stage2_")):
        middle, end = (state(folder / stage / f"checkpoint{name}.pt") for name in ("_epoch=1", ""))
        trained = {name: f"{prefix}{optimizer}" for name, optimizer in optimizers.items()}
        if stage == "stage2":
            trained["patch_critic"] = "patch_optimizer"
        assert {name for name in end if "optimizer" in name} == set(trained.values())
        assert ("patch_critic" in end) == (stage == "stage2")
        for name, optimizer in trained.items():
            assert set(different_keys(middle[name], end[name])) == end[name].keys(), name
            (group,) = end[optimizer]["param_groups"]
            rate = settings["learning_rate" if name == "network" else "critic_learning_rate"]
            assert group.get("initial_lr", group["lr"]) == rate
            count = 2 * ITERATIONS if stage == "stage1" or name == "network" else ITERATIONS  # critics learn in Step I
            assert {int(entry["step"]) for entry in end[optimizer]["state"].values()} == {count}


def test_second_stage_starts_from_the_best_of_the_first(straight: tuple[Path, dict[str, Result]]) -> None:
    """The autoencoder from its best epoch, D1 from its last one; D2 and the encoder of the perceptual loss begin."""
    root, results = straight
    results["handover"].check_success()
    folder = root / "handover"
    best, last = state(folder / "stage1" / "model.pt"), state(folder / "stage1" / "checkpoint.pt")
    assert_identical(best, state(folder / "stage1" / "checkpoint_epoch=2.pt", "network"))
    assert different_keys(best, last["network"])
    end = state(folder / "stage2" / "checkpoint.pt")
    for name in ("network", "feature_network"):
        assert_identical(end[name], best)
    assert_identical(state(folder / "model.pt"), best)
    assert_identical(end["constraint_critic"], last["constraint_critic"])
    # two unsupervised steps, in each of which D2 sees a batch to learn from and one to judge
    counted = [value for key, value in statistics(end["patch_critic"]).items() if "num_batches" in key]
    assert counted and all(value == 4 for value in counted)
    assert moments(end["patch_optimizer"])


def test_same_seed_gives_identical_weights(straight: tuple[Path, dict[str, Result]]) -> None:
    """Another seed does not; on a CPU, mixed precision changes nothing. The first stage alone is scored, too."""
    root, results = straight
    expected = state(root / "both" / "stage1" / "checkpoint_epoch=1.pt")
    for name in ("again", "other_seed"):
        results[name].check_success()
        check_scores(root / name, results[name], methods(""), PROTOCOLS)
        assert {path.split("/")[0] for path in files_of(root / name)} == {
            "phantoms",
            "scores.csv",
            "scores.md",
            "stage1",
        }
        found = state(root / name / "stage1" / "checkpoint.pt")
        for network in ("network", "constraint_critic"):
            assert bool(different_keys(found[network], expected[network])) == (name == "other_seed")
    assert names(root / "other_seed" / "phantoms") == [f"torso_{seed:03d}.nii.gz" for seed in (5, 6, 7)]


def test_evaluate(straight: tuple[Path, dict[str, Result]]) -> None:
    """It scores weights as the training does that made them, by its own protocols."""
    root, results = straight
    results["evaluate"].check_success()
    assert names(root / "evaluate") == ["phantoms", "scores.csv", "scores.md"]
    protocols = [f"subsample x{factor}" for factor in (2, 4, 6)]
    check_scores(root / "evaluate", results["evaluate"], methods("perceptual"), protocols)
    found = [row for row in scores_of(root / "evaluate") if row["protocol"] == PROTOCOLS[0]]
    assert found == scores_of(root / "perceptual")
    assert content("hrinet", "evaluate")["crop"] == 256


@pytest.fixture(scope="module")
def continued(
    straight: tuple[Path, dict[str, Result]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Result]]:
    """Both stages resumed after their first epoch; a finished first one; the perceptual loss after its best epoch."""
    root, done = tmp_path_factory.mktemp("continued"), straight[0]
    first = "checkpoint_epoch=1.pt"
    commands = {
        "stage1": tiny(root / "stage1", ckpt=done / "both" / "stage1" / first, **TWO_EPOCHS),
        "stage2": tiny(root / "stage2", ckpt=done / "both" / "stage2" / first, stages=SECOND, **TWO_EPOCHS),
        "stage1_done": tiny(root / "stage1_done", ckpt=done / "both" / "stage1" / "checkpoint.pt", **TWO_EPOCHS),
        "perceptual": tiny(
            root / "perceptual",
            "perceptual",
            ckpt=done / "perceptual" / "stage2" / "checkpoint_epoch=2.pt",
            stages=SECOND,
            **THREE_EPOCHS,
        ),
    }
    return root, run_forked(commands)


@pytest.mark.parametrize("name", ["stage1", "stage1_done", "stage2", "perceptual"])
def test_resumed_training_ends_with_the_same_weights(
    name: str, straight: tuple[Path, dict[str, Result]], continued: tuple[Path, dict[str, Result]]
) -> None:
    """Bit for bit: the networks, the optimizers' states, and the scores."""
    (root, results), source = continued, "perceptual" if name == "perceptual" else "both"
    results[name].check_success()
    done = straight[0] / source
    stages = ["stage1", "stage2"] if name == "stage1" else ["stage2"]
    for stage in stages:
        found, expected = (state(folder / stage / "checkpoint.pt") for folder in (root / name, done))
        assert found.keys() == expected.keys()
        for entry in found:
            if "optimizer" in entry:
                assert found[entry]["param_groups"] == expected[entry]["param_groups"]
                assert moments(found[entry])
                assert_identical(moments(found[entry]), moments(expected[entry]))
            elif entry in ("network", "constraint_critic", "patch_critic", "feature_network"):
                assert_identical(found[entry], expected[entry])
        best = "best_model" if stage == "stage1" else "stage2_best_model"
        assert found[best]["best_metric"] == expected[best]["best_metric"]
    assert_identical(state(root / name / "model.pt"), state(done / "model.pt"))
    assert (root / name / "scores.csv").read_text() == (done / "scores.csv").read_text()
    assert table_rows(results[name].stdout) == table_rows(straight[1][source].stdout)


def test_second_stage_alone_with_the_perceptual_loss(straight: tuple[Path, dict[str, Result]]) -> None:
    """Its frozen encoder is that of the weights it starts from, also when the autoencoder has moved on."""
    root, results = straight
    results["perceptual"].check_success()
    start, folder = state(root / "both" / "stage1" / "model.pt"), root / "perceptual"
    best, last = (state(folder / "stage2" / f"checkpoint{end}.pt") for end in ("_epoch=2", ""))
    for checkpoint in (best, last):
        assert_identical(checkpoint["feature_network"], start)
        assert set(different_keys(checkpoint["network"], start)) == start.keys()
    assert_identical(state(folder / "model.pt"), best["network"])
    assert different_keys(last["network"], best["network"])
    assert not files_of(folder / "stage1")
    check_scores(folder, results["perceptual"], methods("perceptual"), PROTOCOLS)


@pytest.fixture(scope="module")
def overlays(thin_volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    """A training with every overlay, and what its weights then make of a scan."""
    root = tmp_path_factory.mktemp("overlays")
    scan = save(root / "scan.nii.gz", body((20, 22, 3), 0), diagonal(1.0, 1.0, 4.0))
    commands = {}
    for name in OVERLAYS:
        file = root / name / ("stage1/model.pt" if name in ALONE else "model.pt")
        commands[name] = train(root / name, name, dataset_dir=thin_volumes, **NARROW)
        options = {"input": scan, "output_dir": root / name, "ckpt": file, "channels": NARROW["channels"]}
        commands[f"infer_{name}"] = bundle_command("hrinet", "inference", [name], options)
    subjects = {
        "training_subjects": "['torso_000','torso_000']",
        "validation_subjects": "['torso_001']",
        "test_subjects": "['torso_002']",
    }
    commands["subjects"] = train(root / "subjects", dataset_dir=thin_volumes, stages="stage1", **TINY, **subjects)
    return root, run_forked(commands)


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_train(name: str, overlays: tuple[Path, dict[str, Result]]) -> None:
    """The networks that have no second stage are trained as long as the others in both."""
    root, results = overlays
    results[name].check_success()
    check_scores(root / name, results[name], methods(name), PROTOCOLS)
    checkpoints = {"checkpoint.pt", "checkpoint_epoch=1.pt"}
    alone = {"model.pt", "checkpoint_epoch=2.pt"} if name in ALONE else {"model.pt"}
    assert files_of(root / name / "stage1") == checkpoints | alone
    assert files_of(root / name / "stage2") == (set() if name in ALONE else checkpoints)
    assert (root / name / "model.pt").is_file() == (name not in ALONE)


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_interpolate(name: str, overlays: tuple[Path, dict[str, Result]]) -> None:
    """The same overlay on ``inference.json`` runs what was trained; a VAE does not draw its codes then."""
    root, results = overlays
    results[f"infer_{name}"].check_success()
    network = parser_of("hrinet", "inference", name, channels=[4, 4]).get_parsed_content("network_def")
    assert type(network) is (VariationalHRINetAutoencoder if name == "vae" else HRINetAutoencoder)
    network.load_state_dict(state(root / name / ("stage1/model.pt" if name in ALONE else "model.pt")), strict=True)
    values, affine = scan_of(root / "scan.nii.gz")
    found = check_output(root / name / "scan_interp.nii.gz", values, affine, 4, 2)
    positions = np.arange(9) / 4
    expected = mixed_by_pairs(network, values, affine, 2, positions.tolist(), WINDOW)
    assert np.abs(found - expected)[..., positions % 1 > 0].max() <= 0.51
    if name == "vae":
        network.train()
        pair = torch.rand(1, 2, 16, 16)
        assert not torch.equal(network(pair), network(pair))


@pytest.mark.parametrize("name", OVERLAYS)
def test_losses_of_the_overlays(name: str, overlays: tuple[Path, dict[str, Result]]) -> None:
    root, _ = overlays
    expected = {"ae": ["loss", "content"], "vae": ["loss", "content", "divergence"]}.get(name, STAGE1)
    scalars, _ = events_of(root / name / "stage1")
    known = {*STAGE2, "divergence"}
    assert known & set(scalars) == set(expected)
    if name == "vae":
        weight = content("hrinet", "vae")["divergence_weight"]
        content_loss, divergence, total = (np.array(scalars[key]) for key in ("content", "divergence", "loss"))
        np.testing.assert_allclose(total - content_loss, weight * divergence, rtol=0.02, atol=1.5e-7)
    if name not in ALONE:
        scalars, _ = events_of(root / name / "stage2")
        assert known & set(scalars) == set(STAGE2) - ({"supervised"} if name == "patchgan_only" else set())
        count = ITERATIONS if name == "patchgan_only" else ITERATIONS // 2
        assert len(scalars["content"]) == len(scalars["adversarial"]) == count
        assert len(scalars["loss"]) == ITERATIONS


@pytest.mark.parametrize("name", OVERLAYS)
def test_critics_of_the_overlays(name: str, overlays: tuple[Path, dict[str, Result]]) -> None:
    """AE and VAE use neither of them, ACAI only D1."""
    root, _ = overlays
    first = state(root / name / "stage1" / "checkpoint.pt")
    assert bool(moments(first["constraint_optimizer"])) == (name not in ("ae", "vae"))
    assert "patch_critic" not in first
    if name in ALONE:
        before = state(root / name / "stage1" / "checkpoint_epoch=1.pt", "constraint_critic")
        assert bool(different_keys(first["constraint_critic"], before)) == (name == "acai")
    else:
        second = state(root / name / "stage2" / "checkpoint.pt")
        assert moments(second["patch_optimizer"]) and moments(second["stage2_constraint_optimizer"])


def test_variants_differ_in_the_second_stage(overlays: tuple[Path, dict[str, Result]]) -> None:
    """Content loss and steps of the first stage are the same for all."""
    root, _ = overlays
    variants = ("mse", "perceptual", "patchgan_only")
    for name in variants[1:]:
        assert_identical(*(state(root / other / "stage1" / "model.pt") for other in ("mse", name)))
    ends = [state(root / name / "stage2" / "checkpoint.pt", "network") for name in variants]
    for k in range(3):
        assert different_keys(ends[k], ends[k - 1])


def test_subjects(thin_volumes: Path, overlays: tuple[Path, dict[str, Result]]) -> None:
    """Scores are of the test subject; the training list has its subject as often as it is named."""
    root, results = overlays
    results["subjects"].check_success()
    assert {row["volume"] for row in scores_of(root / "subjects")} == {"torso_002"}
    split = part_of(
        "split",
        dataset_dir=str(thin_volumes),
        training_subjects=["torso_000", "torso_000"],
        validation_subjects=["torso_001"],
        test_subjects=["torso_002"],
    )
    found = {name: [Path(item["image"]).name[:9] for item in items] for name, items in split.items()}
    assert found == {"training": ["torso_000"] * 2, "validation": ["torso_001"], "test": ["torso_002"]}


def test_subjects_of_ct_are_apart() -> None:
    check_subjects_apart("hrinet")


def test_networks_of_the_overlays() -> None:
    """The comparison networks have one level, that of the highest of the three."""
    assert part_of("network_def").latent_channels == (16, 8, 8)
    for name in ALONE:
        network = part_of("network_def", name)
        assert network.latent_channels == (16,)
        assert type(network) is (VariationalHRINetAutoencoder if name == "vae" else HRINetAutoencoder)
        assert network.multiple == 16
    codes = part_of("network_def", "paper").encode(torch.zeros(1, 1, 256, 256))
    assert [tuple(code.shape[1:]) for code in codes] == [(16, 16, 16), (8, 8, 8), (8, 4, 4)]  # Table 1


def test_losses_of_the_second_stage() -> None:
    for name, kind in (("mse", nn.MSELoss), ("perceptual", EncoderFeatureLoss), ("patchgan_only", nn.MSELoss)):
        assert type(part_of("stage2_loss", name)) is kind and type(part_of("loss", name)) is nn.MSELoss
    assert content("hrinet", "mse")["stage2_loss"] == content("hrinet", "train")["stage2_loss"]


def test_settings_of_the_paper(overlays: tuple[Path, dict[str, Result]], tmp_path: Path) -> None:
    """Sections 3.3 and 4.2, with a constant rate."""
    stages = [state(overlays[0] / "paper" / stage / "checkpoint.pt") for stage in ("stage1", "stage2")]
    for checkpoint, names_ in zip(
        stages,
        (["optimizer", "constraint_optimizer"], ["stage2_optimizer", "stage2_constraint_optimizer", "patch_optimizer"]),
        strict=True,
    ):
        for name in names_:
            (group,) = checkpoint[name]["param_groups"]
            assert group["lr"] == 1e-4 == group.get("initial_lr", 1e-4)
    merged = {**content("hrinet", "train"), **content("hrinet", "paper")}
    assert merged["num_slices"] == 7 and merged["patch_size"] == 256 and merged["strides"] == [1]
    assert merged["constraint_weight"] == 0.5 and merged["adversarial_weight"] == 5e-4
    assert merged["steps"] == ["unsupervised", "supervised"] and merged["stages"] == ["stage1", "stage2"]
    assert parameters(part_of("network_def", "paper")) == 9_571_809
    assert parameters(part_of("constraint_critic_def", "paper")) == 2_388_720
    patch_critic = part_of("patch_critic_def", "paper")
    assert patch_critic(torch.zeros(1, 1, 256, 256))[-1].shape == (1, 1, 30, 30)  # of patches of 70 pixels
    loss = part_of("adversarial_loss", "paper")
    assert type(loss) is PatchAdversarialLoss
    logits = torch.tensor([[0.0, 3.0]])  # the form of eq. 8 that does not saturate: -log D2
    found = loss(logits, target_is_real=True, for_discriminator=False)
    torch.testing.assert_close(found, -torch.sigmoid(logits).log().mean())


def test_embedded_phantoms_are_taken_slice_by_slice(tmp_path: Path) -> None:
    """By default it is their slices, 2 mm apart, that are mixed, not their rows or columns, 3.5 mm apart."""
    sizes = {"output_dir": str(tmp_path), "phantoms__num_phantoms": 2, "phantoms__shape": [24, 26, 13]}
    image = part_of("training_volumes", **sizes)[0]["image"]
    assert image.shape == (1, 24, 26, 13)
    np.testing.assert_allclose(image.pixdim, (3.5, 3.5, 2.0))
    assert image.min() >= 0 and image.max() <= 1
    thin = part_of("comparison#volumes", **sizes)[0]["image"]
    assert thin.shape == (1, 24, 26, 13)
    pair = part_of("validate#dataset", **sizes)[0]
    assert pair["label"].shape == (1, 24, 26, 13) and pair["image"].shape == (1, 24, 26, 3)
    assert_identical({"": pair["image"].as_tensor()}, {"": pair["label"][..., ::6].as_tensor()})


def test_training_groups(tmp_path: Path) -> None:
    """Neighboring slices in order, or in reverse order; two samples of a volume as often as an epoch has it."""
    numbered = np.broadcast_to(np.arange(25, dtype=np.int16), (28, 26, 25))
    for name in ("a", "b", "c"):
        save(tmp_path / f"{name}.nii.gz", 100 * numbered - 1000, diagonal(1.0, 1.0, 1.0))
    options = {"dataset_dir": str(tmp_path), "output_dir": str(tmp_path), "samples_per_epoch": 3}
    dataset = part_of("train#dataset", **options)
    assert len(dataset) == 2 * 3
    orders = set()
    for samples in dataset:
        assert len(samples) == 2
        for sample in samples:
            group = torch.cat([sample["image"][:1], sample["label"], sample["image"][1:]])
            assert group.shape == (4, 24, 24) and group.amax() <= 1
            torch.testing.assert_close(sample["alpha"], torch.tensor([1 / 3, 2 / 3]))
            assert torch.equal(group.amin(dim=(1, 2)), group.amax(dim=(1, 2)))
            orders.add(tuple(torch.diff(group[:, 0, 0] * 40).round().int().tolist()))  # 100 of 4000 HU a slice
    assert orders == {(1, 1, 1), (-1, -1, -1)}


WRONG_COMMANDS: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "never_validated": ({"stage2_epochs": 1, "val_interval": 2, "max_epochs": 2}, ("val_interval 2", "stage2_epochs")),
    "stages_unknown": ({"stages": "['one']"}, ("stages must be one or more of stage1, stage2", "'one'")),
    "steps_unknown": ({"steps": "['third']"}, ("steps must be one or more of unsupervised, supervised", "'third'")),
    "second_stage_untrained": ({"stages": SECOND}, ("stage2 needs what stage stage1", "pretrained")),
    "weight_negative": ({"constraint_weight": -1}, ("weights of the losses", "-1")),
    "batch_uneven": ({"batch_size": 3}, ("batch_size 3", "samples_per_volume 2")),
    "two_slices": ({"num_slices": 2}, ("3 slices or more", "got 2")),
    "groups_too_long": ({"num_slices": 26}, ("torso_", "26 slices", "25")),
    "val_factor_zero": ({"val_factor": 0}, ("factor", "got 0")),
    "window_empty": ({"window": "[100,100]"}, ("window", "100")),
    "output_below_a_file": ({"output_dir": "{root}/file/out"}, ("{root}/file/out", "cannot be written")),
    "ckpt_of_stage1_for_stage2": (
        {"ckpt": "{done}/stage1/checkpoint.pt", "stages": SECOND},
        ("{done}/stage1/checkpoint.pt", "lacks patch_critic, stage2_optimizer"),
    ),
    "ckpt_of_stage2_for_stage1": (
        {"ckpt": "{done}/stage2/checkpoint.pt"},
        ("{done}/stage2/checkpoint.pt", "lacks optimizer"),
    ),
    "pretrained_of_another_size": (
        {"pretrained": "{done}/model.pt", "latent_channels": "[2]"},
        ("{done}/model.pt", "not a checkpoint of HRINetAutoencoder", "more differences"),
    ),
}


@pytest.fixture(scope="module")
def wrong_commands(
    straight: tuple[Path, dict[str, Result]], thin_volumes: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Result]]:
    root, done = tmp_path_factory.mktemp("wrong"), straight[0] / "both"
    (root / "file").write_text("a file")
    commands = {}
    for name, (own, _) in WRONG_COMMANDS.items():
        given = {"output_dir": root / "out" / name, "dataset_dir": thin_volumes, **SHORT, **TINY, **own}
        commands[name] = bundle_command("hrinet", "train", [], filled(given, root=root, done=done))
    return root, run_forked(commands)


@pytest.mark.parametrize("name", WRONG_COMMANDS)
def test_wrong_commands(
    name: str, straight: tuple[Path, dict[str, Result]], wrong_commands: tuple[Path, dict[str, Result]]
) -> None:
    root, results = wrong_commands
    places = {"root": root, "done": straight[0] / "both"}
    results[name].check_error(*(text.format(**places) for text in WRONG_COMMANDS[name][1]))
    assert not list(root.rglob("model.pt"))
