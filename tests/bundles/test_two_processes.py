# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Two processes train as one does with the same global batch: same losses, validation, weights and files.

Nothing that is drawn may make a difference: volumes hold one patch, look the same from either end of each axis, which
flips and reversed groups leave as they are, are not shuffled, and all else is set to a single value. The two processes
see different volumes in each step. Statistics of batch normalization, which are those of half a batch in each process,
are frozen or not there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.bundles.bundle_cases import SAINT_TINY
from tests.bundles.bundle_cases import options as typed
from tests.bundles.bundle_commands import (
    Result,
    assert_identical,
    bundle_command,
    events_of,
    files_of,
    moments,
    run,
    run_forked,
    save,
    scores_of,
    state,
    table_rows,
    writers_of,
)

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
EPOCHS = 3
STEPS = 2 * EPOCHS  # of each stage
VALIDATION = 3  # volumes: one process has two of them, the other one


@dataclass(frozen=True)
class Bundle:
    """How a bundle is trained."""

    training: int  # number of volumes that are trained on
    size: tuple[int, int, int]  # voxels of each, which are those of one patch
    options: Mapping[str, object]  # of both runs
    alone: Mapping[str, object]  # of the run of one process
    shared: Mapping[str, object]  # of each of two processes
    stages: Mapping[str, str]  # by folder, the part of the config with what is resumable
    losses: Mapping[str, Sequence[str]]  # what TensorBoard shows of each stage
    overlays: Sequence[str] = ()
    random: frozenset[str] = frozenset()  # entries of checkpoints and losses that hang on random numbers


Trained = tuple[Bundle, Path, Mapping[str, Result]]

BUNDLES = {
    "asi": Bundle(
        training=8,
        size=(16, 16, 3),
        options=typed(
            f"--max_epochs {EPOCHS} --val_interval 1 --samples_per_volume 1 --patch_size 16 --norm_warmup_epochs 0 "
            "--train#random_transforms#2#prob 0 "  # contrast
            "--network_def#channels [4,8] --network_def#latent_channels 8"
        ),
        alone=typed("--batch_size 4 --train#dataloader#shuffle False"),
        shared=typed("--batch_size 2 --train#sampler#shuffle False"),
        stages={".": "resumable"},
        losses={".": ["train_loss"]},
        overlays=["plain"],  # the residual form gives slices that are alike exactly, and learns nothing of them
    ),
    # a batch is made of batch_size blocks of a volume: two processes take those of two volumes
    "saint": Bundle(
        training=4,
        size=(3, 16, 9),
        options=typed(
            f"--max_epochs {EPOCHS} --val_interval 1 --rfn_epochs {EPOCHS} --rfn_val_interval 1 --batch_size 2 "
            "--patch_size 16 --num_slices 3 --factors [4] --max_thickness 0 --any_axis False "
            "--fusion#preprocessing '$@slice_blocks(num_samples=2, patch_size=(3, 16), num_slices=3)'"
        )
        | SAINT_TINY,
        alone=typed(
            "--train#dataloader#batch_size 2 --fusion#dataloader#batch_size 2 "
            "--train#dataloader#shuffle False --fusion#dataloader#shuffle False"
        ),
        shared=typed("--train#data_sampler#shuffle False --fusion#data_sampler#shuffle False"),
        stages={"ami": "train#resumable", "rfn": "fusion#resumable"},
        losses={"ami": ["train_loss"], "rfn": ["train_loss"]},
    ),
    "vts": Bundle(
        training=8,
        size=(24, 24, 24),
        options=typed(
            f"--max_epochs {EPOCHS} --val_interval 1 --crops_per_volume 1 --patch_size 16 --pixdim [0,0,0] "
            "--factors [4] --sigma_range [1.6,1.6] --noise_range [0,0] --train#degradation#0#random_phase False "
            "--thin_sigma_range [0,0] --thin_noise_prob 0 --smooth_prob 0 --norm_warmup_epochs 0 "
            "--discriminator_channels [8] "  # the first layer of a discriminator has no normalization
            "--adversarial_weight 10"
        ),
        alone=typed("--batch_size 4 --train#dataloader#shuffle False"),
        shared=typed("--batch_size 2 --train#data_sampler#shuffle False"),
        stages={".": "train#resumable"},
        losses={".": ["loss", "reconstruction", "adversarial", "discriminator"]},
        overlays=["small"],
    ),
    # A pair is made of the ends of a group, which look the same. Every second sample is of the same volume, so that
    # slices are paired with those of the same volume in one process and in two, and it does not matter how they are
    # mixed; but to the critic that is to tell how, and therefore has next to no say.
    "hrinet": Bundle(
        training=2,
        size=(24, 24, 5),
        options=typed(
            f"--max_epochs {EPOCHS} --stage2_epochs {EPOCHS} --val_interval 1 --samples_per_volume 1 "
            "--samples_per_epoch 4 --num_slices 5 --patch_size 24 --val_factor 4 --channels [4,4] "
            "--latent_channels [2,2] --patch_critic_channels 4 --patch_critic_def#norm INSTANCE "
            "--shortcut False "  # beside it the gradients of all else are as small as rounding errors
            "--constraint_weight 1e-9 --adversarial_weight 0.01"
        ),
        alone=typed("--batch_size 4 --train#dataloader#shuffle False"),
        shared=typed("--batch_size 2 --train#data_sampler#shuffle False"),
        stages={"stage1": "train#resumable", "stage2": "refine#resumable"},
        losses={"stage1": ["loss", "content"], "stage2": ["loss", "content", "adversarial", "patch_critic"]},
        overlays=["perceptual"],
        random=frozenset({"constraint_critic", "constraint", "constraint_optimizer", "stage2_constraint_optimizer"}),
    ),
}


def save_volume(path, size, seed):
    """Write a volume in HU that looks the same from either end of each axis, and along both axes of its slices."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij", sparse=True)
    waves = [(rng.uniform(50, 200), *rng.uniform(0.5, 5, 2)) for _ in range(4)]
    values = sum(height * np.cos(u * x) * np.cos(u * y) * np.cos(v * z) for height, u, v in waves)
    rounded = np.round(values).astype(np.int16)
    for axis in range(3):
        assert np.array_equal(rounded, np.flip(rounded, axis))
    save(path, rounded, np.diag([1.0, 1.0, 4.0, 1.0]))


def keep_of_each_process(bundle, root):
    """Expressions that end a run: each process writes the seeds and optimizers of its stages."""
    stages = ", ".join(
        f"{stage!r}: {{'seed': @epoch_seed, 'optimizers': "
        f"{{key: value.state_dict() for key, value in @{resumable}.items() if 'optimizer' in key}}}}"
        for stage, resumable in bundle.stages.items()
    )
    path = f"'{root.as_posix()}/rank' + os.environ['RANK'] + '.pt'"
    return [f"$torch.save({{{stages}}}, {path})", "$dist.destroy_process_group()"]


@pytest.fixture(scope="module", params=BUNDLES)
def trained(request, tmp_path_factory):
    """A bundle, the folder of both runs, and how they ended."""
    name, bundle = request.param, BUNDLES[request.param]
    root = tmp_path_factory.mktemp(name)
    for number in range(bundle.training):
        save_volume(root / "scans" / f"training_{number}.nii.gz", bundle.size, number)
    for number in range(VALIDATION):
        save_volume(root / "scans" / f"validation_{number}.nii.gz", (24, 24, 17), 100 + number)
    options = {"dataset_dir": root / "scans", "validation_subjects": "['validation']", "amp": "false"}
    options |= bundle.options
    one = {**options, **bundle.alone, "output_dir": root / "one"}
    two = {**options, **bundle.shared, "output_dir": root / "two", "finalize": keep_of_each_process(bundle, root)}
    results = run_forked({"one": bundle_command(name, "train", bundle.overlays, one)})
    results["one"].check_success()
    command = bundle_command(name, "train", ["multi_gpu_train", *bundle.overlays], two)
    command = replace(command, processes=2)
    results["two"] = run(command) if name == "asi" else run_forked({"": command})[""]  # torchrun itself, once
    assert results["two"].status == 0, results["two"].stderr[-4000:]
    return bundle, root, results


def flat(value, name=""):
    """Leaves of nested mappings and sequences, by path."""
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    else:
        return {name: value}
    return {path: leaf for key, inner in items for path, leaf in flat(inner, f"{name}/{key}").items()}


def check_same(first, second):
    """Same structure, and same numbers but for rounding."""
    leaves, others = flat(first), flat(second)
    assert leaves and leaves.keys() == others.keys()
    for path, leaf in leaves.items():
        if isinstance(leaf, Tensor | float):
            torch.testing.assert_close(leaf, others[path], **TOLERANCE, msg=lambda text, path=path: f"{path}: {text}")
        else:
            assert leaf == others[path], path


def without(bundle, entries):
    return {key: value for key, value in entries.items() if key not in bundle.random}


def test_same_curves(trained):
    """TensorBoard shows the losses of the global batch, and the scores of all volumes, once."""
    bundle, root, _ = trained
    for stage, names in bundle.losses.items():
        (one, images), (two, other_images) = (events_of(root / name / stage) for name in ("one", "two"))
        assert set(names) | {"val_psnr", "val_ssim"} <= set(one)
        assert len(one[names[0]]) == STEPS and len(one["val_psnr"]) == EPOCHS
        for name in names:
            assert len(set(one[name])) == len(one[name]), name  # there is something to compare
        check_same(without(bundle, one), without(bundle, two))
        assert images == other_images
        assert writers_of(root / "two" / stage, names[0]) == writers_of(root / "two" / stage, "val_psnr") == 1


def test_same_files(trained):
    _, root, _ = trained
    assert files_of(root / "one") == files_of(root / "two")


def test_same_weights(trained):
    """Checkpoints hold networks and optimizers under the same names, with the same numbers."""
    bundle, root, _ = trained
    paths = sorted(path for path in files_of(root / "one") if path.endswith(".pt"))
    assert len([path for path in paths if path.endswith("model.pt")]) == len(bundle.stages)
    for path in paths:
        one, two = (state(root / name / path) for name in ("one", "two"))
        assert flat(one).keys() == flat(two).keys()
        check_same(without(bundle, one), without(bundle, two))


def test_both_processes(trained):
    """They agree on the gradients of all networks, those that hang on random numbers too, but draw different ones."""
    bundle, root, _ = trained
    first, second = (state(root / f"rank{rank}.pt") for rank in range(2))
    for stage in bundle.stages:
        assert first[stage]["seed"] == 0 and second[stage]["seed"] != 0
        optimizers = first[stage]["optimizers"]
        assert optimizers and optimizers.keys() <= state(root / "two" / stage / "checkpoint.pt").keys()
        for name, optimizer in optimizers.items():
            assert moments(optimizer)
            assert_identical(moments(optimizer), moments(second[stage]["optimizers"][name]))


def test_same_scores(trained):
    """The first process alone computes and shows them."""
    _, root, results = trained
    rows = {name: table_rows(result.stdout) for name, result in results.items()}
    assert [row[:3] for row in rows["one"]] == [row[:3] for row in rows["two"]]
    assert rows["two"][1][2] == str(VALIDATION)
    for result in results.values():
        assert result.stdout.count("volumes of the ") == 1
    for one, two in zip(scores_of(root / "one"), scores_of(root / "two"), strict=True):
        assert one.keys() == two.keys()
        for key in ("psnr", "ssim"):
            assert float(one[key]) == pytest.approx(float(two[key]), rel=1e-4)
