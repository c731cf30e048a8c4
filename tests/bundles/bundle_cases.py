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

"""What the tests have to know of each bundle: a new bundle needs an entry here, and no test of its own.

Options are written as on a command line.
"""

from __future__ import annotations

import ast
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from monai_sliceinterp.inferers import MixtureSliceInferer, MultiViewSliceInferer, VolumetricSliceInferer
from tests.bundles.bundle_commands import parser_of

Options = Mapping[str, object]


def options(text: str) -> dict[str, object]:
    """Options as on a command line."""
    return {name.removeprefix("--"): _value(value) for name, value in zip(*[iter(shlex.split(text))] * 2, strict=True)}


def _value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return text


@dataclass(frozen=True)
class Stage:
    """A stage of a training.

    Attributes:
        folder: where it writes its checkpoints and logs, "." for the output folder itself.
        best: the weights it has chosen.
        networks: networks in its checkpoints, and the names of their optimizers.
        best_model: name of the best score in its checkpoints.
        losses: what TensorBoard shows of its iterations, and how many of them there are in an epoch.
        kept: name in its checkpoints of the weights that it chooses among.
    """

    folder: str
    best: str
    networks: Mapping[str, str]
    best_model: str
    losses: Mapping[str, int]
    kept: str = "network"


@dataclass(frozen=True)
class Case:
    """A bundle.

    Attributes:
        reference: volume ``(1, 1, H, W, M)`` that a network gives for a scaled scan, with all slices computed.
        stages: the stages of its training.
        short: options of a training of an epoch that takes seconds.
        two_epochs: those of two epochs, both with a checkpoint, the second with the only validation.
        protocols: degradations that a training is scored under.
        evaluated: those of ``evaluate.json``.
        window: intensities that become 0 and 1; None for percentiles of the scan.
        overlays: those of a network that is quick.
        keeps_observed: whether it copies the observed slices.
        by_pairs: whether a slice is made of its two neighbors alone.
        default_spacing: of the output, where none is asked for; None: isotropic.
        prepare: changes a random network so that its slices are neither all alike nor cut off.
        spacing_options: more options of a run of inference.
        own_commands: overlays and options of more runs of inference.
        body: whether scores inside the body are told.
        onnx: whether its network can be exported to ONNX.
        exact: whether it computes observed slices as they are.
        narrow_network: options of a quick network, where no overlay has one.
        narrow: options of a narrow network for a training with an overlay.
        trained_overlays: overlays that a training is run with, and their further options.
        inferred: of these, options of inference.
        methods: names in the scores of overlays whose method is not called like the bundle.
        columns: of the method in the scores of ``evaluate.json``, where there are several.
        wrong: options that a training refuses, and parts of its message, with " ... " between them; {root} and {done}
            are folders.
        wrong_inference: likewise of inference.
        rates: of the paper, learning rate and moments by optimizer; empty where there is no paper.
    """

    reference: Callable[..., Tensor]
    stages: Sequence[Stage]
    short: Options
    two_epochs: Options
    protocols: Sequence[str]
    evaluated: Sequence[str]
    window: tuple[float, float] | None = (-1024.0, 2976.0)
    overlays: tuple[str, ...] = ()
    keeps_observed: bool = True
    by_pairs: bool = False
    default_spacing: float | None = None
    prepare: Callable[[Any], None] = lambda network: None
    spacing_options: Options = field(default_factory=dict)
    own_commands: Mapping[str, tuple[tuple[str, ...], Options]] = field(default_factory=dict)
    body: bool = True
    onnx: bool = True
    exact: bool = False
    narrow_network: Options = field(default_factory=dict)
    narrow: Options = field(default_factory=dict)
    trained_overlays: Mapping[str, Options] = field(default_factory=dict)
    inferred: Mapping[str, Options] = field(default_factory=dict)
    methods: Mapping[str, str] = field(default_factory=dict)
    columns: Sequence[str] = ()
    wrong: Mapping[str, str] = field(default_factory=dict)
    wrong_inference: Mapping[str, str] = field(default_factory=dict)
    rates: Mapping[str, tuple[float, tuple[float, float]]] = field(default_factory=dict)


def by_pairs(network: Any, scan: MetaTensor, factor: int = 0, spacing: float = 0.0) -> Tensor:
    """What a network of latent codes makes of each pair of slices alone; beyond [0, 1] is interpolated linearly."""
    whole = scan.as_tensor()[0, 0]
    step = 1 / factor if factor else spacing / float(scan.pixdim[2])
    inside, slices = whole.clamp(0, 1), []
    for index in range(int((whole.shape[-1] - 1) / step + 1e-6) + 1):
        position = index * step
        lower = min(int(position + 1e-9), whole.shape[-1] - 2)
        weight = position - lower
        pair, excess = (part[..., lower : lower + 2].movedim(-1, 0) for part in (inside, whole - inside))
        with torch.no_grad():
            codes = network.encode(pair[:, None])
            mixed = tuple((1 - weight) * code[:1] + weight * code[1:] for code in codes)
            synthesized = network.decode(mixed, pair.shape[1:])[0, 0].clamp(0, 1)
        slices.append(synthesized + (1 - weight) * excess[0] + weight * excess[1])
    return torch.stack(slices, dim=-1)[None, None]


def by_views(network: nn.Module, scan: MetaTensor, **grid: Any) -> Tensor:
    return MultiViewSliceInferer(**grid, value_range=(0.0, 1.0), keep_observed=False)(scan, network)


def by_windows(network: nn.Module, scan: MetaTensor, **grid: Any) -> Tensor:
    return VolumetricSliceInferer(**grid, value_range=(0.0, 1.0))(scan, network)


def by_mixture(network: nn.Module, scan: MetaTensor, **grid: Any) -> Tensor:
    return MixtureSliceInferer(**grid, keep_observed=False)(scan, network)


def prepare_mixture(network: Any) -> None:
    """Weights of what is mixed differ, and a residual is added."""
    nn.init.normal_(network.last.weight, std=0.02)


def prepare_hrinet(network: Any) -> None:
    """Slices of some 600 HU, well inside the window."""
    last = [layer for layer in network.decoder if isinstance(layer, nn.Conv2d)][-1]
    nn.init.normal_(last.weight, std=0.1)
    nn.init.constant_(last.bias, 0.1)


def prepare_vts(network: Any) -> None:
    """Something of 50 HU is added to the image."""
    if hasattr(network, "head"):
        nn.init.normal_(network.head.weight, std=0.1)


def save_weights(bundle: str, path: Path, *overlays: str, trained: bool = True) -> tuple[Path, nn.Module]:
    """Write random weights of a network; without overlays of the quick one."""
    names = ["inference", *(overlays or CASES[bundle].overlays)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = parser_of(bundle, *names).get_parsed_content("network_def").eval()
        if trained:
            CASES[bundle].prepare(network)
    torch.save(network.state_dict(), path)
    return path, network


# what every training refuses, and what its message says
WRONG = {
    "--dataset_dir {root}/nowhere": "{root}/nowhere ... no such file or folder",
    "--dataset_dir {root}/nan": "nan_ ... NaN or infinite",
    "--validation_subjects \"['head_']\"": "no volume is left for validation",
    "--output_dir {root}/file/out": "{root}/file/out ... cannot be written",
    "--ckpt {root}/nowhere.pt": "{root}/nowhere.pt ... no such checkpoint",
    "--ckpt {done}/model.pt": "{done}/model.pt ... lacks network, ",
    "--val_factor 0": "factor ... got 0",
    "--amp maybe": "amp must be true or false, got 'maybe'",
    "--max_epoch 3": "unknown option --max_epoch; did you mean --max_epochs",
}
MIXTURE_TINY = options("--network_def#channels 8 --network_def#num_blocks 1")
SAINT_TINY = {f"network_def#{part}#{size}": 1 for part in ("ami", "rfn") for size in ("num_blocks", "num_layers")}
HRINET_OVERLAYS = ("mse", "perceptual", "patchgan_only", "ae", "acai", "vae", "paper")
HRINET_LOSSES = {"loss": 2, "content": 2, "constraint": 2, "constraint_critic": 2}
# in stage II the steps alternate, beginning with the unsupervised one
HRINET_LOSSES_2 = dict.fromkeys((*HRINET_LOSSES, "adversarial", "patch_critic", "supervised"), 1) | {"loss": 2}

CASES: dict[str, Case] = {
    "asi": Case(
        reference=by_pairs,
        by_pairs=True,
        window=None,
        body=False,
        stages=[
            Stage(".", "model.pt", {"network": "optimizer"}, "best_model", {"train_loss": 2}),
        ],
        short=options("--max_epochs 1 --val_interval 1 --patch_size 32"),
        two_epochs=options(
            "--max_epochs 2 --val_interval 2 --train#checkpoint_saver#save_interval 1 --norm_warmup_epochs 1"
        ),
        protocols=["subsample x2"],
        evaluated=["subsample x2", "subsample x4", "fwhm x3"],
        own_commands={
            "constant": ((), options("--input {root}/constant.nii --factor 3")),
            "residual": (("residual",), options("--input {root}/scans/axial.nii.gz --factor 2")),
        },
        narrow_network=options("--network_def#channels [8,16] --network_def#latent_channels 16"),
        trained_overlays={
            "residual": {},
            "mr": options("--dataset_dir {root}/mr"),
            "paper": options("--loss#synthesis mse"),
        },
        wrong={
            "--max_epochs 4 --val_interval 5": "val_interval 5 ... max_epochs 4 ... expected 1 to 4",
            "--batch_size 12": "batch_size 12 ... samples_per_volume 8",
        },
        rates={"optimizer": (1e-05, (0.9, 0.999))},
    ),
    "saint": Case(
        reference=by_views,
        overlays=("small",),
        stages=[
            Stage("ami", "ami/model.pt", {"network": "optimizer"}, "best_model", {"train_loss": 2}),
            Stage("rfn", "model.pt", {"network": "rfn_optimizer"}, "rfn_best_model", {"train_loss": 2}),
        ],
        short=options(
            "--max_epochs 1 --val_interval 1 --rfn_epochs 1 --rfn_val_interval 1 --batch_size 2 "
            "--rfn_batch_size 1 --num_slices 4 --rfn_num_slices 3 --patch_size 32 --rfn_patch_size 24 "
            "--max_spacing 8"
        ),
        two_epochs=options(
            "--max_epochs 2 --rfn_epochs 2 --val_interval 2 --rfn_val_interval 2 "
            "--train#checkpoint_saver#save_interval 1 --fusion#checkpoint_saver#save_interval 1"
        ),
        protocols=["subsample x4"],
        evaluated=["subsample x2", "subsample x4", "subsample x6"],
        columns=["AMI rows", "AMI columns", "mean of views", "spacing x0.25", "saint"],
        spacing_options=options("--disagreement true"),
        own_commands={
            "mean": (("small",), options("--input {root}/scans/axial.nii.gz --fuse false --progress False")),
        },
        narrow=SAINT_TINY,
        trained_overlays={"four_views": {}, "rfn_3d": {}, "paper": {}},
        inferred=dict.fromkeys(["four_views", "rfn_3d", "paper"], SAINT_TINY),
        wrong={
            "--rfn_epochs 1 --rfn_val_interval 2": "rfn_val_interval 2 ... rfn_epochs 1 ... expected 1 to 1",
            "--stages \"['one']\"": "stages must be one or more of ami, rfn ... 'one'",
            "--stages \"['rfn']\"": "rfn needs what stage ami ... pretrained",
            "--ckpt {done}/ami/checkpoint.pt --stages \"['rfn']\"": "{done}/ami/checkpoint.pt ... lacks rfn_optimizer",
            "--ckpt {done}/rfn/checkpoint.pt": "{done}/rfn/checkpoint.pt ... lacks optimizer",
            "--pretrained {done}/model.pt --network_def#ami#growth 8": (
                "{done}/model.pt ... not a checkpoint of SAINT ... more differences"
            ),
            "--patch_size 41": "torso_ ... 40x40x25 voxels is too small ... 3x41 pixels",
            "--rfn_patch_size 41 --stages \"['rfn']\" --pretrained {done}/ami/model.pt": (
                "torso_ ... 40x40x25 voxels is too small ... 41x41 pixels"
            ),
            "--window [100,100]": "window ... 100",
        },
        wrong_inference={
            "--ckpt {paper}": "{paper} ... not a checkpoint of SAINT ... more differences",
            "--disagreement maybe": "disagreement must be true or false, got 'maybe'",
            "--fuse maybe": "fuse must be true or false, got 'maybe'",
            "--batch_size -1": "batch_size ... got -1",
            "--window [100,100]": "window ... 100",
        },
        rates={"optimizer": (0.0001, (0.5, 0.999)), "rfn_optimizer": (0.0001, (0.5, 0.999))},
    ),
    "mixture": Case(
        reference=by_mixture,
        window=None,
        body=False,
        onnx=False,
        exact=True,
        prepare=prepare_mixture,
        stages=[
            Stage(".", "model.pt", {"network": "optimizer"}, "best_model", {"train_loss": 2}, "averaged"),
        ],
        short=options(
            "--max_epochs 1 --val_interval 1 --batch_size 2 --patch_size 16 --num_slices 3 --max_spacing 8 "
            "--factors [2,4]"
        ),
        two_epochs=options("--max_epochs 2 --val_interval 2 --train#checkpoint_saver#save_interval 1"),
        protocols=["subsample x4"],
        evaluated=["subsample x2", "subsample x4", "subsample x6"],
        own_commands={
            "constant": ((), options("--input {root}/constant.nii --factor 3")),
            "thickness": ((), options("--input {root}/scans/axial.nii.gz --factor 2 --slice_thickness 4")),
        },
        narrow_network=MIXTURE_TINY,
        narrow=MIXTURE_TINY,
        trained_overlays={"ct_mr": options("--dataset_dir {root}/mr --training_subjects []")},
        inferred={"ct_mr": MIXTURE_TINY},
        wrong={
            "--max_epochs 4 --val_interval 5": "val_interval 5 ... max_epochs 4 ... expected 1 to 4",
            "--patch_size 41": "torso_ ... 40x40x25 voxels is too small ... 41x41 pixels",
            "--thickness_prob 2": "thickness_prob ... 2",
        },
        wrong_inference={
            "--batch_size -1": "batch_size ... got -1",
            "--slice_thickness -1": "slice_thickness ... got -1",
        },
    ),
    "vts": Case(
        reference=by_windows,
        window=(-2048.0, 2048.0),
        keeps_observed=False,
        default_spacing=1.0,
        prepare=prepare_vts,
        overlays=("small",),
        stages=[
            Stage(
                ".",
                "model.pt",
                {"network": "optimizer", "discriminator": "discriminator_optimizer"},
                "best_model",
                {"loss": 2, "reconstruction": 2, "adversarial": 2, "discriminator": 2},
            ),
        ],
        short=options(
            "--max_epochs 1 --val_interval 1 --batch_size 2 --crops_per_volume 2 --patch_size 16 --pixdim [0,0,0]"
        ),
        two_epochs=options(
            "--max_epochs 2 --val_interval 2 --train#checkpoint_saver#save_interval 1 --norm_warmup_epochs 1"
        ),
        protocols=["random x4", "random x8"],
        evaluated=["random x4", "random x8"],
        own_commands={
            "untrained": (("small",), options("--input {files} --factor 4")),
            "fine": (("small",), options("--input {root}/fine.nii.gz")),
        },
        narrow=options("--channels [4,8,16,32]"),
        trained_overlays={
            "paper": {},
            "no_hf": {},
            "no_condition": {},
            "srcnn": {},
            "pix2pix": options("--patch_size 32"),
        },
        inferred=dict.fromkeys(["paper", "no_hf", "no_condition"], options("--channels [4,8,16,32]")),
        methods={"no_hf": "no_hf", "no_condition": "no_condition", "srcnn": "srcnn", "pix2pix": "pix2pix"},
        wrong={
            "--max_epochs 2 --val_interval 3": "val_interval 3 ... max_epochs 2 ... expected 1 to 2",
            "--body_parts \"{{'torso':'thorax'}}\"": "unknown body part 'thorax' ... chest",
            "--factors [0,4]": "factor ... got 0",
            "--sigma_range [-1,2]": "sigma_range ... [-1, 2]",
            "--noise_range [0.1,0]": "noise_range ... [0.1, 0]",
            "--val_sigma -1": "sigma ... got -1",
            "--adversarial_weight -1": "adversarial_weight must be zero or a positive number, got -1",
            "--factors [40,80]": "torso_ ... 40 ... 25",
            "--val_factor 40": "torso_ ... 40 ... 25",
            "--dataset_dir {root}/tiny --validation_subjects \"['torso_000']\"": (
                "{root}/tiny/torso_001.nii.gz ... factor of at most 2"
            ),
            "--dataset_dir {root}/tiny --validation_subjects \"['torso_001']\"": (
                "{root}/tiny/torso_001.nii.gz ... factor of at most 2"
            ),
            "--dataset_dir {root}/air --validation_subjects \"['torso_000']\"": "{root}/air/air.nii.gz",
            "--ckpt {root}/no_discriminator.pt": "{root}/no_discriminator.pt ... lacks discriminator",
            "--ckpt {done}/checkpoint.pt": "epoch",
            "--pretrained {done}/model.pt --stem_channels 4": (
                "{done}/model.pt ... not a checkpoint of VTSGenerator ... more differences"
            ),
            "--window [100,100]": "window ... 100",
        },
        wrong_inference={
            "--ckpt {paper}": "{paper} ... not a checkpoint of VTSGenerator ... more differences",
            "--batch_size -1": "batch_size ... got -1",
            "--keep_observed maybe": "keep_observed must be true or false, got 'maybe'",
            "--window [100,100]": "window ... 100",
        },
        rates={"optimizer": (0.0002, (0.5, 0.999)), "discriminator_optimizer": (0.0002, (0.5, 0.999))},
    ),
    "hrinet": Case(
        reference=by_pairs,
        by_pairs=True,
        prepare=prepare_hrinet,
        stages=[
            Stage(
                "stage1",
                "stage1/model.pt",
                {"network": "optimizer", "constraint_critic": "constraint_optimizer"},
                "best_model",
                HRINET_LOSSES,
            ),
            Stage(
                "stage2",
                "model.pt",
                {
                    "network": "stage2_optimizer",
                    "constraint_critic": "stage2_constraint_optimizer",
                    "patch_critic": "patch_optimizer",
                },
                "stage2_best_model",
                HRINET_LOSSES_2,
            ),
        ],
        short=options(
            "--max_epochs 1 --stage2_epochs 1 --val_interval 1 --batch_size 2 --samples_per_epoch 1 "
            "--num_slices 4 --patch_size 24"
        ),
        two_epochs=options(
            "--max_epochs 2 --stage2_epochs 2 --val_interval 2 --train#checkpoint_saver#save_interval 1 "
            "--refine#checkpoint_saver#save_interval 1"
        ),
        protocols=["subsample x6"],
        evaluated=["subsample x2", "subsample x4", "subsample x6"],
        narrow_network=options("--latent_channels [2,2] --channels [4,4] --patch_critic_channels 4"),
        narrow=options("--channels [4,4] --patch_critic_channels 4"),
        trained_overlays=dict.fromkeys(HRINET_OVERLAYS, options("")),
        inferred=dict.fromkeys(HRINET_OVERLAYS, options("--channels [4,4]")),
        methods={"mse": "hrinet-mse", "perceptual": "hrinet-perceptual", "patchgan_only": "patchgan-only"}
        | {name: name for name in ("ae", "acai", "vae")},
        wrong={
            "--stage2_epochs 1 --val_interval 2 --max_epochs 2": "val_interval 2 ... stage2_epochs ... expected 1 to 1",
            "--stages \"['one']\"": "stages must be one or more of stage1, stage2 ... 'one'",
            "--steps \"['third']\"": "steps must be one or more of unsupervised, supervised ... 'third'",
            "--stages \"['stage2']\"": "stage2 needs what stage stage1 ... pretrained",
            "--constraint_weight -1": "constraint_weight must be zero or a positive number, got -1",
            "--batch_size 3": "batch_size 3 ... samples_per_volume 2",
            "--num_slices 2": "num_slices ... 3 ... got 2",
            "--num_slices 26": "torso_ ... 26 slices ... 25",
            "--ckpt {done}/stage1/checkpoint.pt --stages \"['stage2']\"": (
                "{done}/stage1/checkpoint.pt ... lacks patch_critic, stage2_optimizer"
            ),
            "--ckpt {done}/stage2/checkpoint.pt": "{done}/stage2/checkpoint.pt ... lacks optimizer",
            "--pretrained {done}/model.pt --latent_channels [2]": (
                "{done}/model.pt ... not a checkpoint of HRINetAutoencoder ... more differences"
            ),
            "--window [100,100]": "window ... 100",
        },
        wrong_inference={
            "--ckpt {acai}": "{acai} ... not a checkpoint of HRINetAutoencoder",
            "--window [100,100]": "window ... 100",
        },
        rates=dict.fromkeys(
            ("optimizer", "constraint_optimizer", "stage2_optimizer", "stage2_constraint_optimizer", "patch_optimizer"),
            (1e-4, (0.9, 0.999)),
        ),
    ),
}
