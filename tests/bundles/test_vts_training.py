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

"""Training against the discriminator, evaluation and the overlays of the bundle vts, from the command line."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
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
    filled,
    moments,
    names,
    parameters,
    parser_of,
    run_forked,
    scores_of,
    state,
    statistics,
    table_rows,
)
from monai.bundle import ConfigParser
from torch import nn

from monai_sliceinterp.data import BODY_PARTS
from monai_sliceinterp.data.phantom import write_phantoms
from monai_sliceinterp.networks.nets import SRCNN3D, Pix2Pix3D, VTSGenerator

PROTOCOLS = ["random x4", "random x8"]
AUGMENTATION = ["RandAffined", "RandFlipd", "RandRotate90d"]
LOSSES = ["loss", "reconstruction", "adversarial", "discriminator"]
SHORT = {
    "validation_fraction": 0.34,
    "max_epochs": 1,
    "val_interval": 1,
    "batch_size": 2,
    "crops_per_volume": 2,
    "patch_size": 16,
}
PHANTOMS = {  # the embedded phantoms, smaller
    "phantoms__num_phantoms": 3,
    "phantoms__shape": "[32,32,25]",
    "phantoms__spacing": "[10,10,1]",
    "axis": 2,
}
AS_THEY_ARE = {"pixdim": "[0,0,0]"}  # else the phantoms of 8 mm become eight times larger
# two validations, after which the statistics are frozen and a checkpoint is written
FOUR_EPOCHS = {"max_epochs": 4, "val_interval": 2, "norm_warmup_epochs": 2, "train__lr_scheduler__T_max": 4}
NARROW = {"network_def__channels": "[4,8,16,32]", "discriminator_def__channels": "[4,8,16,32]"}
OVERLAYS: dict[str, dict[str, object]] = {
    "small": {},
    "paper": {**NARROW},
    "no_hf": {},
    "no_condition": {},
    "srcnn": {},
    "pix2pix": {"patch_size": content("vts", "train")["patch_size"]},
}


def methods(name: str) -> list[str]:
    return ["linear", "cubic", "lanczos", name if name in ("no_hf", "no_condition", "srcnn", "pix2pix") else "vts"]


def train(output_dir: Path | str, *overlays: str, **options: object) -> Command:
    """Training of an epoch on small crops of small phantoms."""
    return bundle_command("vts", "train", overlays, {"output_dir": output_dir, **SHORT, **options})


def config(*overlays: str, **options: object) -> ConfigParser:
    """The configuration of a training, to look at its parts."""
    return parser_of("vts", "train", *overlays, **options)


def network_of(*overlays: str, **options: object) -> nn.Module:
    return config(*overlays, **options).get_parsed_content("network_def")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    """Four epochs; the first two of them, and the others resumed from there; two with another seed; a scoring."""
    root = tmp_path_factory.mktemp("straight")
    given = {**PHANTOMS, **FOUR_EPOCHS}
    commands = {
        "four": train(root / "four", "small", **given),
        "first": train(root / "first", "small", **{**given, "max_epochs": 2}),
        "rest": train(root / "rest", "small", ckpt=root / "first" / "checkpoint.pt", **given),
        "other_seed": train(root / "other_seed", "small", **{**given, "max_epochs": 2, "seed": 5, "amp": "true"}),
        "evaluate": train(root / "evaluate", "evaluate", "small", ckpt=root / "four" / "model.pt", crop=0, **PHANTOMS),
        "frozen": train(
            root / "frozen",
            "small",
            pretrained=root / "four" / "model.pt",
            **{**given, "max_epochs": 1, "val_interval": 1, "learning_rate": 0, "norm_warmup_epochs": 0},
        ),
    }
    return root, run_forked(commands)


def test_training_writes_what_is_documented(straight: tuple[Path, dict[str, Result]]) -> None:
    root, results = straight
    results["four"].check_success()
    folder = root / "four"
    found = {name for name in names(folder) if not name.startswith("events.out.tfevents")}
    expected = {"checkpoint.pt", "checkpoint_epoch=2.pt", "checkpoint_epoch=4.pt", "model.pt", "scores.csv"}
    assert found == expected | {"scores.md", "phantoms"}
    assert names(folder / "phantoms") == [f"torso_{seed:03d}.nii.gz" for seed in range(3)]
    assert nib.load(folder / "phantoms" / "torso_000.nii.gz").shape == (32, 32, 25)
    network_of("small").load_state_dict(state(folder / "model.pt"), strict=True)
    check_scores(folder, results["four"], methods("small"), PROTOCOLS)
    assert " dB over " in table_rows(results["four"].stdout)[1][-3]


def test_tensorboard_has_every_loss(straight: tuple[Path, dict[str, Result]]) -> None:
    root, _ = straight
    scalars, images = events_of(root / "four")
    assert len(scalars["val_psnr"]) == len(scalars["val_ssim"]) == 2
    iterations = 4 * 2  # three phantoms, one of them for validation, two crops of each, two in a batch
    assert {name: len(scalars[name]) for name in LOSSES} == dict.fromkeys(LOSSES, iterations)
    total, reconstruction, adversarial, discriminator = (np.array(scalars[name]) for name in LOSSES)
    weights = [content("vts", "train")[f"{name}_weight"] for name in ("reconstruction", "adversarial")]
    np.testing.assert_allclose(total, weights[0] * reconstruction + weights[1] * adversarial, rtol=1e-4)
    assert (discriminator > 0).all() and (reconstruction > 0).all() and (adversarial > 0).all()
    assert images


def test_both_networks_are_trained(straight: tuple[Path, dict[str, Result]]) -> None:
    folder = straight[0] / "four"
    middle, end = state(folder / "checkpoint_epoch=2.pt"), state(folder / "checkpoint.pt")
    for name in ("network", "discriminator"):
        trained = end[name].keys() - statistics(end[name]).keys()
        assert trained <= set(different_keys(middle[name], end[name])), name
    for name, betas, rate in (("optimizer", (0.9, 0.999), 1e-3), ("discriminator_optimizer", (0.5, 0.999), 2e-4)):
        (group,) = middle[name]["param_groups"]
        assert tuple(group["betas"]) == betas and group.get("initial_lr", group["lr"]) == rate


def test_statistics_are_frozen_after_the_warmup(straight: tuple[Path, dict[str, Result]]) -> None:
    """Those of the generator; the discriminator, which is not used afterwards, goes on with its batches."""
    folder = straight[0] / "four"
    middle, end = state(folder / "checkpoint_epoch=2.pt"), state(folder / "checkpoint.pt")
    assert_identical(*(statistics(checkpoint["network"]) for checkpoint in (middle, end)))
    counted = [value for key, value in statistics(middle["network"]).items() if "num_batches" in key]
    assert counted and all(value == 2 * 2 for value in counted)
    assert different_keys(*(statistics(checkpoint["discriminator"]) for checkpoint in (middle, end)))


def test_same_seed_gives_identical_weights(straight: tuple[Path, dict[str, Result]]) -> None:
    """Another seed does not; on a CPU, mixed precision changes nothing."""
    root, results = straight
    for name in ("first", "other_seed"):
        results[name].check_success()
    expected, found, other = (
        state(root / file) for file in ("four/checkpoint_epoch=2.pt", "first/checkpoint.pt", "other_seed/checkpoint.pt")
    )
    for name in ("network", "discriminator"):
        assert_identical(found[name], expected[name])
        assert different_keys(other[name], expected[name])
    assert names(root / "other_seed" / "phantoms") == [f"torso_{seed:03d}.nii.gz" for seed in (5, 6, 7)]


def test_resumed_training_ends_with_the_same_weights(straight: tuple[Path, dict[str, Result]]) -> None:
    """Bit for bit: both networks, the optimizers' states, and the scores."""
    root, results = straight
    results["rest"].check_success()
    found, expected = (state(root / name / "checkpoint.pt") for name in ("rest", "four"))
    assert found.keys() == expected.keys()
    for name in ("network", "discriminator"):
        assert_identical(found[name], expected[name])
    for name in ("optimizer", "discriminator_optimizer"):
        assert found[name]["param_groups"] == expected[name]["param_groups"]
        assert_identical(moments(found[name]), moments(expected[name]))
    assert found["lr_scheduler"] == expected["lr_scheduler"]
    assert found["best_model"]["best_metric"] == expected["best_model"]["best_metric"]
    assert_identical(state(root / "rest" / "model.pt"), state(root / "four" / "model.pt"))
    assert (root / "rest" / "scores.csv").read_text() == (root / "four" / "scores.csv").read_text()
    assert table_rows(results["rest"].stdout) == table_rows(results["four"].stdout)


def test_evaluate(straight: tuple[Path, dict[str, Result]]) -> None:
    """It scores weights as the training does that made them."""
    root, results = straight
    results["evaluate"].check_success()
    assert names(root / "evaluate") == ["phantoms", "scores.csv", "scores.md"]
    check_scores(root / "evaluate", results["evaluate"], methods("small"), PROTOCOLS)
    assert scores_of(root / "evaluate") == scores_of(root / "four")
    assert content("vts", "evaluate")["crop"] == 256


def test_pretrained_weights_are_the_start(straight: tuple[Path, dict[str, Result]]) -> None:
    """With a rate of 0 and statistics that are frozen from the start they are the end, too."""
    root, results = straight
    results["frozen"].check_success()
    assert_identical(state(root / "frozen" / "model.pt"), state(root / "four" / "model.pt"))
    assert scores_of(root / "frozen") == scores_of(root / "four")


@pytest.fixture(scope="module")
def overlays(thin_volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    """A training with every overlay, and what its weights then make of a scan; the default on chosen subjects."""
    root = tmp_path_factory.mktemp("overlays")
    given = {"dataset_dir": thin_volumes, **AS_THEY_ARE}
    subjects = {
        "training_subjects": "['torso_000','torso_000']",
        "validation_subjects": "['torso_001']",
        "test_subjects": "['torso_002']",
    }
    commands = {
        "subjects": train(root / "subjects", amp="false", body_parts="{'torso':'abdomen'}", **subjects, **given)
    }
    commands |= {name: train(root / name, name, **given, **own) for name, own in OVERLAYS.items()}
    scan = write_phantoms(root / "thick", "torso", 9, shape=(32, 30, 4), spacing=(4.0, 4.0, 5.0))[0]
    narrow = {"network_def__channels": NARROW["network_def__channels"]}
    for name in OVERLAYS:
        options = {"input": scan, "output_dir": root / name, "ckpt": root / name / "model.pt"}
        options |= narrow if name == "paper" else {}
        commands[f"infer_{name}"] = bundle_command("vts", "inference", [name], options)
    return root, run_forked(commands)


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_train(name: str, overlays: tuple[Path, dict[str, Result]]) -> None:
    root, results = overlays
    results[name].check_success()
    check_scores(root / name, results[name], methods(name), PROTOCOLS)
    own = {key: value for key, value in OVERLAYS[name].items() if key in ("patch_size", "network_def__channels")}
    if "network_def__channels" in own:
        own["network_def__channels"] = [4, 8, 16, 32]
    network_of(name, **own).load_state_dict(state(root / name / "model.pt"), strict=True)
    assert not (root / name / "phantoms").exists()


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_interpolate(name: str, overlays: tuple[Path, dict[str, Result]]) -> None:
    """The same overlay on ``inference.json``, without any other option of the training."""
    root, results = overlays
    results[f"infer_{name}"].check_success()
    image = nib.load(root / name / "torso_009_interp.nii.gz")
    assert image.shape == (32, 30, 16) and image.get_data_dtype() == np.int16
    np.testing.assert_allclose(image.header.get_zooms(), (4, 4, 1), rtol=1e-6)


def test_subjects(thin_volumes: Path, overlays: tuple[Path, dict[str, Result]]) -> None:
    """Scores are of the test subject; the training list has its subject as often as it is named."""
    root, results = overlays
    results["subjects"].check_success()
    assert {row["volume"] for row in scores_of(root / "subjects")} == {"torso_002"}
    network_of().load_state_dict(state(root / "subjects" / "model.pt"), strict=True)
    parser = config(
        dataset_dir=str(thin_volumes),
        training_subjects=["torso_000", "torso_000"],
        validation_subjects=["torso_001"],
        test_subjects=["torso_002"],
    )
    split = parser.get_parsed_content("split")
    found = {name: [Path(item["image"]).name[:9] for item in items] for name, items in split.items()}
    expected = {"training": ["torso_000"] * 2, "validation": ["torso_001"], "test": ["torso_002"]}
    assert found == expected


def test_no_adversarial_loss_leaves_the_discriminator_alone(overlays: tuple[Path, dict[str, Result]]) -> None:
    """It has not seen a batch, and its optimizer has not taken a step."""
    assert content("vts", "srcnn")["adversarial_weight"] == 0
    alone, against = (state(overlays[0] / name / "checkpoint.pt") for name in ("srcnn", "no_hf"))
    assert not moments(alone["discriminator_optimizer"]) and moments(against["discriminator_optimizer"])
    untouched = config("srcnn").get_parsed_content("discriminator_def").state_dict()
    assert_identical(statistics(alone["discriminator"]), statistics(untouched))
    assert different_keys(statistics(against["discriminator"]), statistics(untouched))
    assert moments(alone["optimizer"])


def test_networks_of_the_overlays() -> None:
    full = network_of("paper")
    assert type(full) is VTSGenerator and parameters(full) == 18_096_769
    assert full.residual_scale == 1 and full.high_frequency and type(full.stem) is nn.Identity
    default, small, whole = (network_of(*names_) for names_ in ((), ("small",), ("no_hf",)))
    assert type(default) is type(small) is type(whole) is VTSGenerator
    assert parameters(whole) == parameters(default) and not whole.high_frequency and default.high_frequency
    assert 3 < parameters(default) / parameters(small) < 4.2  # half as wide
    assert type(network_of("srcnn")) is SRCNN3D
    pix2pix = network_of("pix2pix")
    assert type(pix2pix) is Pix2Pix3D and pix2pix.multiple == content("vts", "train")["patch_size"]


@pytest.mark.parametrize("name", ["", "paper", "no_condition", "pix2pix", "srcnn"])
def test_discriminators_of_the_overlays(name: str) -> None:
    critic = config(*filter(None, [name])).get_parsed_content("discriminator_def")
    bare = name in ("no_condition", "pix2pix")
    assert critic.condition_channels == (0 if bare else 8)
    attention = any("SelfAttention" in type(module).__name__ for module in critic.modules())
    assert attention == (name != "pix2pix")
    image = torch.rand(1, 2, 16, 16, 16)
    assert critic.eval()(image, **({} if bare else {"condition": torch.zeros(1, 8)})).shape[:2] == (1, 1)


def test_settings_of_the_paper(overlays: tuple[Path, dict[str, Result]]) -> None:
    """Adam with its moments at a constant rate, crops of 160 mm, no frozen statistics."""
    checkpoint = state(overlays[0] / "paper" / "checkpoint.pt")
    for entry in ("optimizer", "discriminator_optimizer"):
        (group,) = checkpoint[entry]["param_groups"]
        assert group["lr"] == 2e-4 and tuple(group["betas"]) == (0.5, 0.999)
    paper, default = content("vts", "paper"), content("vts", "train")
    assert paper["patch_size"] == 160 and paper["pixdim"] == [1, 1, 1] and paper["norm_warmup_epochs"] is None
    steps = config("paper").get_parsed_content("train#preprocessing").transforms
    drawn = {type(step).__name__: step.prob for step in steps if type(step).__name__ in AUGMENTATION}
    assert drawn == {"RandAffined": 1}  # small affine transforms alone
    merged = {**default, **paper}
    assert merged["factors"] == [4, 8] and merged["sigma_range"] == [0, 3.2] and merged["window"] == [-2048, 2048]


def test_subjects_of_ct_are_apart() -> None:
    check_subjects_apart("vts")
    assert set(content("vts", "ct")["body_parts"].values()) <= set(BODY_PARTS)


def dataset(folder: Path, part: str, dataset_dir: Path | str, **options: object) -> Any:
    """A part of the configuration of a short training."""
    given = {"dataset_dir": str(dataset_dir), "output_dir": str(folder), **options}
    parser = config(**{**{key: value for key, value in SHORT.items() if key != "max_epochs"}, **given})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return parser.get_parsed_content(part)


def test_embedded_phantoms_are_thin_along_their_slices(tmp_path: Path) -> None:
    """By default it is their slices, 1 mm apart, that are made thick, not their rows or columns, 4.5 mm apart."""
    sizes = {"phantoms__num_phantoms": 2, "phantoms__shape": [72, 72, 9], "val_factor": 2}
    training = dataset(tmp_path, "training_volumes", "", **sizes)
    image = training[0]["image"]
    assert image.shape[3] == 9
    np.testing.assert_allclose(image.pixdim, (4.5, 4.5, 1.0))
    pair = dataset(tmp_path, "validate#dataset", "", **sizes)[0]
    np.testing.assert_allclose(pair["image"].pixdim, (4.5, 4.5, 2.0))
    assert pair["label"].shape == (1, 72, 72, 9)


@pytest.mark.parametrize("wanted", [4.0, 16.0])
@pytest.mark.parametrize("only", ["both", "validation"])
def test_volumes_are_resampled(wanted: float, only: str, thin_volumes: Path, tmp_path: Path) -> None:
    """``pixdim`` is for all volumes, unless ``training_pixdim`` says otherwise of those that are trained on."""
    options: dict[str, object] = {"pixdim": [0.0, 0.0, wanted], "body_threshold": -3000.0}
    if only == "validation":
        options["training_pixdim"] = [0.0, 0.0, 0.0]
    training = dataset(tmp_path, "training_volumes", thin_volumes, **options)
    assert len(training) == 2
    image = training[0]["image"]
    source = nib.load(image.meta["filename_or_obj"])
    unit = (np.asarray(source.dataobj, np.float64) + 2048) / 4096
    if only == "validation":
        expected = unit
    elif wanted > 8:
        expected = unit[..., ::2]
    else:
        expected = np.repeat(unit, 2, axis=2)[..., :-1]
        expected[..., 1::2] = (unit[..., 1:] + unit[..., :-1]) / 2
    np.testing.assert_allclose(image[0].numpy(), expected, atol=2e-5)
    np.testing.assert_allclose(image.pixdim, (8, 8, 8 if only == "validation" else wanted))
    pair = dataset(tmp_path, "validate#dataset", thin_volumes, **options)[0]
    np.testing.assert_allclose(pair["label"].pixdim, (8, 8, wanted))
    np.testing.assert_allclose(pair["image"].pixdim, (8, 8, 4 * wanted))
    assert pair["label"].shape == (1, 40, 40, 49 if wanted < 8 else 13)


def test_training_pairs(thin_volumes: Path, tmp_path: Path) -> None:
    """Crops of the foreground, thick on the thin grid, with the condition of their body part."""
    training = dataset(
        tmp_path,
        "train#dataset",
        thin_volumes,
        pixdim=[0.0, 0.0, 0.0],
        body_parts={"torso_00": "abdomen", "torso_001": "leg"},
        noise_range=[0.0, 0.0],
    )
    assert len(training) == 2 * 2
    conditions = []
    for pair in training:
        assert pair["image"].shape == pair["label"].shape == (1, 16, 16, 16)
        assert pair["label"].min() >= 0 and pair["label"].max() <= 1
        assert 0 < (pair["image"] - pair["label"]).abs().mean() < 0.1
        condition = pair["condition"].tolist()
        assert [sum(condition[:4]), sum(condition[4:6]), sum(condition[6:])] == [1, 1, 1]
        part = "leg" if "torso_001" in str(pair["image"].meta["filename_or_obj"]) else "abdomen"
        assert condition[BODY_PARTS.index(part)] == 1
        conditions.append(condition)
    assert (
        dataset(tmp_path, "train#dataset", thin_volumes, pixdim=[0, 0, 0], body_parts={})[0]["condition"][:4].sum() == 0
    )


WRONG_COMMANDS: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "never_validated": ({"max_epochs": 2, "val_interval": 3}, ("val_interval 3", "max_epochs 2", "expected 1 to 2")),
    "body_part_unknown": ({"body_parts": "{{'torso':'thorax'}}"}, ("unknown body part 'thorax'", "chest")),
    "factor_zero": ({"factors": "[0,4]"}, ("factor", "got 0")),
    "sigma_negative": ({"sigma_range": "[-1,2]"}, ("sigma_range", "[-1, 2]")),
    "noise_descending": ({"noise_range": "[0.1,0]"}, ("noise_range", "[0.1, 0]")),
    "val_sigma_negative": ({"val_sigma": -1}, ("sigma", "got -1")),
    "weight_negative": ({"adversarial_weight": -1}, ("weights of the losses", "-1")),
    "window_empty": ({"window": "[100,100]"}, ("window", "100")),
    "amp_unclear": ({"amp": "maybe"}, ("amp must be true or false, got 'maybe'",)),
    "factors_too_large": ({"factors": "[40,80]"}, ("torso_", "40", "25")),
    "val_factor_too_large": ({"val_factor": 40}, ("torso_", "40", "25")),
    "volume_too_small": (
        {"dataset_dir": "{root}/tiny", "validation_subjects": "['torso_000']"},
        ("{root}/tiny/torso_001.nii.gz", "factor of at most 2"),
    ),
    "validation_volume_too_small": (
        {"dataset_dir": "{root}/tiny", "validation_subjects": "['torso_001']"},
        ("{root}/tiny/torso_001.nii.gz", "factor of at most 2"),
    ),
    "volume_of_air": (
        {"dataset_dir": "{root}/air", "validation_subjects": "['torso_000']"},
        ("{root}/air/air.nii.gz",),
    ),
    "no_volume_to_validate": ({"validation_subjects": "['head_']"}, ("no volume is left for validation",)),
    "dataset_missing": ({"dataset_dir": "{root}/nowhere"}, ("{root}/nowhere", "no such file or folder")),
    "output_below_a_file": ({"output_dir": "{root}/file/out"}, ("{root}/file/out", "cannot be written")),
    "ckpt_without_discriminator": (
        {"ckpt": "{root}/no_discriminator.pt"},
        ("{root}/no_discriminator.pt", "lacks discriminator"),
    ),
    "ckpt_of_weights": ({"ckpt": "{done}/model.pt"}, ("{done}/model.pt", "lacks network, discriminator")),
    "ckpt_of_later_epoch": ({"ckpt": "{done}/checkpoint.pt", "max_epochs": 2}, ("epoch",)),
    "pretrained_of_another_size": (
        {"pretrained": "{done}/model.pt", "network_def__stem_channels": 4},
        ("{done}/model.pt", "not a checkpoint of VTSGenerator", "more differences"),
    ),
}


@pytest.fixture(scope="module")
def wrong_commands(
    straight: tuple[Path, dict[str, Result]], thin_volumes: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Result]]:
    root, done = tmp_path_factory.mktemp("wrong"), straight[0] / "four"
    (root / "file").write_text("a file")
    whole = nib.load(thin_volumes / "torso_000.nii.gz")
    for folder in ("tiny", "air"):
        (root / folder).mkdir()
        nib.save(whole, root / folder / "torso_000.nii.gz")
    nib.save(whole.slicer[:, :, 10:13], root / "tiny" / "torso_001.nii.gz")
    nib.save(nib.Nifti1Image(np.full((20, 20, 20), -1000, np.int16), whole.affine), root / "air" / "air.nii.gz")
    checkpoint = torch.load(done / "checkpoint.pt", weights_only=True)
    del checkpoint["discriminator"]
    torch.save(checkpoint, root / "no_discriminator.pt")
    commands = {}
    for name, (own, _) in WRONG_COMMANDS.items():
        given = {"output_dir": root / "out" / name, "dataset_dir": thin_volumes, **AS_THEY_ARE, **own}
        commands[name] = bundle_command("vts", "train", ["small"], {**SHORT, **filled(given, root=root, done=done)})
    return root, run_forked(commands)


@pytest.mark.parametrize("name", WRONG_COMMANDS)
def test_wrong_commands(
    name: str, straight: tuple[Path, dict[str, Result]], wrong_commands: tuple[Path, dict[str, Result]]
) -> None:
    root, results = wrong_commands
    places = {"root": root, "done": straight[0] / "four"}
    results[name].check_error(*(text.format(**places) for text in WRONG_COMMANDS[name][1]))
    # a checkpoint that cannot be gone on with has brought the best weights so far
    assert not list((root / "out" / name).rglob("model.pt")) or name == "ckpt_of_later_epoch"
