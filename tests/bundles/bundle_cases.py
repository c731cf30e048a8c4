# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""What the tests have to know of each bundle: a new bundle needs an entry here, and no test of its own.

Options are written as on a command line.
"""

import ast
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from monai_sliceinterp.inferers import MixtureSliceInferer, MultiViewSliceInferer, VolumetricSliceInferer
from tests.bundles.bundle_commands import parser_of

Options = Mapping[str, object]


def options(text):
    """Options as on a command line."""
    return {name.removeprefix("--"): _value(value) for name, value in zip(*[iter(shlex.split(text))] * 2, strict=True)}


def _value(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return text


@dataclass(frozen=True)
class Stage:
    """A stage of a training."""

    folder: str  # where it writes its checkpoints and logs, "." for the output folder itself
    best: str  # the weights it has chosen
    networks: Mapping[str, str]  # networks in its checkpoints, and the names of their optimizers
    best_model: str  # name of the best score in its checkpoints
    losses: Mapping[str, int]  # what TensorBoard shows of its iterations, and how many of them there are in an epoch
    kept: str = "network"  # name in its checkpoints of the weights that it chooses among


def none():
    """A default of an attribute: no entries."""
    return field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A bundle."""

    reference: Callable[..., Tensor]  # ``(1, 1, H, W, M)`` by a network for a scaled scan, with all slices computed
    stages: Sequence[Stage]
    short: Options  # of a training of an epoch that takes seconds
    two_epochs: Options  # both with a checkpoint, the second with the only validation
    protocols: Sequence[str]  # degradations that a training is scored under
    evaluated: Sequence[str]  # those of ``evaluate.json``
    window: tuple[float, float] | None = (-1024.0, 2976.0)  # what becomes 0 and 1; None for percentiles of the scan
    overlays: tuple[str, ...] = ()  # those of a network that is quick
    keeps_observed: bool = True  # whether it copies the observed slices
    by_pairs: bool = False  # whether a slice is made of its two neighbors alone
    default_spacing: float | None = None  # of the output, where none is asked for; None: isotropic
    prepare: Callable = lambda network: None  # makes slices of a random network neither all alike nor cut off
    spacing_options: Options = none()  # more options of a run of inference
    own_commands: Mapping[str, tuple[tuple[str, ...], Options]] = none()  # overlays and options of more such runs
    body: bool = True  # whether scores inside the body are told
    onnx: bool = True  # whether its network can be exported to ONNX
    exact: bool = False  # whether it computes observed slices as they are
    narrow_network: Options = none()  # of a quick network, where no overlay has one
    narrow: Options = none()  # of a narrow network for a training with an overlay
    trained_overlays: Mapping[str, Options] = none()  # what trainings are run with, and their further options
    inferred: Mapping[str, Options] = none()  # of these, options of inference
    methods: Mapping[str, str] = none()  # in the scores of overlays whose method is not called like the bundle
    columns: Sequence[str] = ()  # of the method in the scores of ``evaluate.json``, where there are several
    # options that a training refuses, and parts of its message, " ... " between them; {root} and {done} are folders
    wrong: Mapping[str, str] = none()
    wrong_inference: Mapping[str, str] = none()  # likewise of inference
    # of the paper, with moments, by optimizer; none where there is no paper
    rates: Mapping[str, tuple[float, tuple[float, float]]] = none()


def by_pairs(network, scan, factor=0, spacing=0.0):
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


def by_views(network, scan, **grid):
    return MultiViewSliceInferer(**grid, value_range=(0.0, 1.0), keep_observed=False)(scan, network)


def by_windows(network, scan, **grid):
    return VolumetricSliceInferer(**grid, value_range=(0.0, 1.0))(scan, network)


def by_mixture(network, scan, **grid):
    return MixtureSliceInferer(**grid, keep_observed=False)(scan, network)


def prepare_mixture(network):
    """Weights of what is mixed differ, and a residual is added."""
    nn.init.normal_(network.last.weight, std=0.02)


def prepare_asi(network):
    """Decoded slices vary, so that a mixture of codes is not decoded to the mixture of slices."""
    nn.init.normal_(network.decoder[-1].weight, std=2.0)


def prepare_hrinet(network):
    """Slices of some 600 HU, well inside the window."""
    last = [layer for layer in network.decoder if isinstance(layer, nn.Conv2d)][-1]
    nn.init.normal_(last.weight, std=0.1)
    nn.init.constant_(last.bias, 0.1)


def prepare_vts(network):
    """Something of 50 HU is added to the image."""
    if hasattr(network, "head"):
        nn.init.normal_(network.head.weight, std=0.1)


def save_weights(bundle, path, *overlays, trained=True):
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
    "--amp maybe": "amp must be auto, true or false, got 'maybe'",
    "--max_epoch 3": "unknown option --max_epoch; did you mean --max_epochs",
}
MIXTURE_TINY = options("--network_def#channels 8 --network_def#num_blocks 1")
SAINT_TINY = {f"network_def#{part}#{size}": 1 for part in ("ami", "rfn") for size in ("num_blocks", "num_layers")}
# of the networks that SAINT is compared with, and nothing of SAINT's own
COMPARED = {name: {**dict.fromkeys(SAINT_TINY), "small": True} for name in ("rdn_2d", "mdsr_2d", "meta_sr")}
for name in ("rdn_2d", "mdsr_2d", "meta_sr"):
    COMPARED[name]["network_def#ami#num_blocks"] = 1
for name in ("rdn_3d", "mdsr_3d", "mdcsrn"):
    COMPARED[name] = {**dict.fromkeys(SAINT_TINY), "small": True, "network_def#num_blocks": 1}
HRINET_OVERLAYS = ("mse", "perceptual", "patchgan_only", "ae", "acai", "vae", "paper")
HRINET_LOSSES = {"loss": 2, "content": 2, "constraint": 2, "constraint_critic": 2}
# in stage II the steps alternate, beginning with the unsupervised one
HRINET_LOSSES_2 = dict.fromkeys((*HRINET_LOSSES, "adversarial", "patch_critic", "supervised"), 1) | {"loss": 2}
TWO_EPOCHS = options("--max_epochs 2 --val_interval 2 --train#checkpoint_saver#save_interval 1")
TOO_THIN = "{root}/tiny/torso_001.nii.gz ... factor of at most 2"

CASES = {
    "asi": Case(
        reference=by_pairs,
        by_pairs=True,
        window=None,
        body=False,
        exact=True,
        prepare=prepare_asi,
        stages=[Stage(".", "model.pt", {"network": "optimizer"}, "best_model", {"train_loss": 2})],
        short=options("--max_epochs 1 --val_interval 1 --patch_size 32"),
        two_epochs=TWO_EPOCHS | options("--norm_warmup_epochs 1"),
        protocols=["subsample x2"],
        evaluated=["subsample x2", "subsample x4", "fwhm x3"],
        own_commands={
            "constant": ((), options("--input {root}/constant.nii --factor 3")),
            "plain": (("plain",), options("--input {root}/scans/axial.nii.gz --factor 2")),
        },
        narrow_network=options("--network_def#channels [8,16] --network_def#latent_channels 16"),
        trained_overlays={
            "plain": {},
            "mr": {"dataset_dir": "{root}/mr"},
            "paper": {"loss#synthesis": "mse", **options("--in_plane_spacing 0")},  # pixels of 8 mm
        },
        inferred={"paper": options("--in_plane_spacing 0")},
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
        two_epochs=TWO_EPOCHS
        | options("--rfn_epochs 2 --rfn_val_interval 2 --fusion#checkpoint_saver#save_interval 1"),
        protocols=["subsample x4"],
        evaluated=["subsample x2", "subsample x4", "subsample x6"],
        columns=["AMI rows", "AMI columns", "mean of views", "spacing x0.25", "saint"],
        spacing_options=options("--disagreement true"),
        own_commands={"mean": (("small",), options("--input {root}/scans/axial.nii.gz --fuse false --progress False"))},
        narrow=SAINT_TINY,
        trained_overlays={"four_views": {}, "rfn_3d": {}, "paper": {}}
        | {name: {**sizes, "protocols": [{"factor": 4, "fwhm": 0}]} for name, sizes in COMPARED.items()},
        inferred=dict.fromkeys(["four_views", "rfn_3d", "paper"], SAINT_TINY) | COMPARED,
        methods={name: name for name in COMPARED},
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
        trained_overlays={
            "ct_mr": options("--dataset_dir {root}/mr --training_subjects []"),
            "no_motion": {},
            "no_residual": {},
        },
        inferred=dict.fromkeys(["ct_mr", "no_motion", "no_residual"], MIXTURE_TINY),
        methods={name: name for name in ("no_motion", "no_residual")},
        wrong={
            "--max_epochs 4 --val_interval 5": "val_interval 5 ... max_epochs 4 ... expected 1 to 4",
            "--patch_size 41": "torso_ ... 40x40x25 voxels is too small ... 41x41 pixels",
            "--thickness_prob 2": "thickness_prob ... 2",
            "--mixed \"['linear','spline']\"": "mixed must be one or more of linear, cubic, motion, got",
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
            )
        ],
        short=options(
            "--max_epochs 1 --val_interval 1 --batch_size 2 --crops_per_volume 2 --patch_size 16 --pixdim [0,0,0]"
        ),
        two_epochs=TWO_EPOCHS | options("--norm_warmup_epochs 1"),
        protocols=["random x4", "random x8"],
        evaluated=["random x4", "random x8"],
        own_commands={
            "untrained": (("small",), options("--input {files} --factor 4")),
            "fine": (("small",), options("--input {root}/fine.nii.gz")),
        },
        narrow=options("--channels [4,8,16,32]"),
        trained_overlays={
            # volumes of 8 mm
            "paper": options("--training_pixdim [0,0,0] --in_plane_spacing 0 --degradation_unit 8"),
            "pix2pix": {"patch_size": 32},
        }
        | dict.fromkeys(["no_hf", "no_condition", "srcnn"], {}),
        inferred={
            "paper": options("--channels [4,8,16,32] --in_plane_spacing 0"),
            **dict.fromkeys(["no_hf", "no_condition", "srcnn", "pix2pix"], options("--channels [4,8,16,32]")),
        },
        methods={name: name for name in ("no_hf", "no_condition", "srcnn", "pix2pix")},
        wrong={
            "--max_epochs 2 --val_interval 3": "val_interval 3 ... max_epochs 2 ... expected 1 to 2",
            "--body_parts \"{{'torso':'thorax'}}\"": "unknown body part 'thorax' ... chest",
            "--factors [0,4]": "factors ... got [0, 4]",
            "--sigma_range [-1,2]": "sigma_range ... [-1, 2]",
            "--noise_range [0.1,0]": "noise_range ... [0.1, 0]",
            "--val_sigma -1": "sigma ... got -1",
            "--adversarial_weight -1": "adversarial_weight must be zero or a positive number, got -1",
            "--factors [40,80]": "torso_ ... 40 ... 25",
            "--val_factor 40": "torso_ ... 40 ... 25",
            "--dataset_dir {root}/tiny --validation_subjects \"['torso_000']\"": TOO_THIN,
            "--dataset_dir {root}/tiny --validation_subjects \"['torso_001']\"": TOO_THIN,
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
            "--data_consistency -1": "data_consistency ... got -1",
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
        two_epochs=TWO_EPOCHS | options("--stage2_epochs 2 --refine#checkpoint_saver#save_interval 1"),
        protocols=["subsample x6"],
        evaluated=["subsample x2", "subsample x4", "subsample x6"],
        narrow_network=options("--latent_channels [2,2] --channels [4,4] --patch_critic_channels 4"),
        narrow=options("--channels [4,4] --patch_critic_channels 4"),
        trained_overlays=dict.fromkeys(HRINET_OVERLAYS, {}) | {"paper": {"sampler#num_samples": 2}},
        inferred=dict.fromkeys(HRINET_OVERLAYS, options("--channels [4,4]"))
        | {"paper": options("--channels [4,4] --in_plane_size 24")},
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
