# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Settings of the bundles' trainings: those of the papers, of the overlays' networks and losses, and of the data."""

import warnings

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.losses import PatchAdversarialLoss
from scipy.ndimage import map_coordinates
from torch import nn

from monai_sliceinterp.losses import EncoderFeatureLoss
from monai_sliceinterp.networks import nets
from monai_sliceinterp.transforms.conditioning import BODY_PARTS
from tests.bundles.bundle_cases import CASES
from tests.bundles.bundle_commands import BUNDLES, content, diagonal, parameters, parser_of, save, save_scan

ALONE = ("ae", "acai", "vae")  # overlays of hrinet that have the first stage alone


def part_of(bundle, name, *overlays, **options):
    """A part of the configuration of a training."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return parser_of(bundle, "train", *overlays, **options).get_parsed_content(name)


def merged(bundle, *overlays):
    """The settings of the paper, or of other overlays."""
    result = {}
    for name in ("train", *(overlays or ["paper"])):
        result |= content(bundle, name)
    return result


@pytest.mark.parametrize("bundle", [name for name in CASES if (BUNDLES / name / "ct.json").is_file()])
def test_subjects_of_ct_are_apart(bundle):
    """No subject of ``ct.json`` is in two of training, validation and test."""
    groups = {name: set(content(bundle, "ct")[f"{name}_subjects"]) for name in ("training", "validation", "test")}
    assert all(groups.values())
    for group, subjects in groups.items():
        others = [name for other, names in groups.items() if other != group for name in names]
        assert not [name for name in others for subject in subjects if name.startswith(subject)]
    assert set(content("vts", "ct")["body_parts"].values()) <= set(BODY_PARTS)


@pytest.mark.parametrize(
    ("names", "epochs", "pairs", "patch", "weight", "percentiles"),
    [(["paper"], 900, 12, 128, 0.05, [1.0, 99.0]), (["paper", "paper_brain"], 1300, 8, 64, 0.001, [0.0, 100.0])],
    ids=["asi", "brain"],
)
def test_asi_paper(names, epochs, pairs, patch, weight, percentiles, tmp_path):
    for seed in range(6):
        save_scan(tmp_path / "scans" / f"{seed}.nii.gz", (130, 128, 4), seed=seed)
    parser = parser_of("asi", "train", *names, loss__synthesis="mse", dataset_dir=str(tmp_path / "scans"))
    assert parser.get_parsed_content("train#trainer").state.max_epochs == parser["max_epochs"] == epochs
    optimizer, scheduler = parser.get_parsed_content("optimizer"), parser.get_parsed_content("lr_scheduler")
    assert type(optimizer) is torch.optim.Adam and optimizer.param_groups[0]["lr"] == 1e-5
    for _ in range(20):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 1e-5
    assert parser.get_parsed_content("loss").synthesis_weight == weight
    assert parser["norm_warmup_epochs"] is None and parser["percentiles"] == percentiles
    batch = next(iter(parser.get_parsed_content("train#dataloader")))
    assert batch["image"].shape == (pairs, 2, patch, patch)
    assert (batch["alpha"] == 0.5).all()  # the slice in the middle of three


def test_epochs_of_asis_paper(tmp_path):
    """Section IV: every slice between two others is provided once per epoch, of every frame."""
    for seed, shape in enumerate([(130, 128, 4, 3), (130, 128, 12), (130, 128, 9)]):
        save_scan(tmp_path / "scans" / f"{seed}.nii.gz", shape, seed=seed)
    own = {"loss__synthesis": "mse", "dataset_dir": str(tmp_path / "scans"), "validation_subjects": ["2"]}
    parser = parser_of("asi", "train", "paper", **own)
    assert parser.get_parsed_content("sampler#weights") == [2 * 3, 10]
    batches = list(parser.get_parsed_content("train#dataloader"))
    assert sum(len(batch["image"]) for batch in batches) == 2 * 3 + 10
    assert parser.get_parsed_content("train#trainer").state.epoch_length == len(batches)


def test_iterations_of_hrinets_paper(thin_volumes, tmp_path):
    """Section 4.2: 50,000 in each stage, whatever the number of volumes."""
    own = {"dataset_dir": str(thin_volumes), "output_dir": str(tmp_path), "patch_size": 24}
    parser = parser_of("hrinet", "train", "paper", **own)
    for stage in ("train", "refine"):
        state = parser.get_parsed_content(f"{stage}#trainer").state
        assert state.epoch_length * state.max_epochs == 50_000


def test_saint_paper():
    settings, network = merged("saint"), part_of("saint", "network_def", "paper")
    assert settings["factors"] == [4, 6] and settings["max_spacing"] == 5
    assert parameters(network.ami) == 2_787_712 and network.edge == "zero" and network.ami.residual is False


@pytest.mark.parametrize("paper", [(), ("paper",)])
def test_networks_of_comparison_overlays(paper):
    """They keep the form and the widths of what they are combined with, in any order."""
    for name in ("four_views", "rfn_3d"):
        network = part_of("saint", "network_def", *paper, name)
        assert network.ami.residual is not bool(paper) and parameters(network.ami) == 2_787_712
        assert network.edge == ("zero" if paper else "replicate")
        assert len(network.directions) == (4 if name == "four_views" else 2)
        assert network.rfn.spatial_dims == (3 if name == "rfn_3d" else 2)
    for name in ("rdn_2d", "mdsr_2d", "meta_sr", "rdn_3d", "mdsr_3d", "mdcsrn"):
        network = part_of("saint", "network_def", *paper, name)
        assert getattr(network, "ami", network).residual is not bool(paper)
        assert isinstance(network, nets.SAINT) == (not name.endswith(("3d", "mdcsrn")))
        assert getattr(network, "edge", "") in ("", "zero" if paper else "replicate")
        assert parameters(part_of("saint", "network_def", *paper, "small", name)) < 4e5 < 2e6 < parameters(network)
    width = 64 if paper else 16
    for overlays in ((*paper, "srcnn"), ("srcnn", *paper)):
        layers = part_of("vts", "network_def", *overlays).layers
        assert [layer.out_channels for layer in layers[::2]] == [width, width // 2, 1]
    network = part_of("vts", "network_def", *paper, "pix2pix")
    assert network.encoder[0](torch.zeros(1, 1, 4, 4, 4)).shape[1] == width
    assert merged("vts", "pix2pix", *paper)["patch_size"] % network.multiple == 0  # no padding


@pytest.mark.parametrize(
    ("bundle", "loss", "trainer", "argument"),
    [
        ("asi", "loss", "train#trainer", "loss_function"),
        ("saint", "loss", "train#trainer", "loss_function"),
        ("saint", "loss", "fusion#trainer", "loss_function"),
        ("vts", "loss", "train#trainer", "reconstruction_loss"),
        ("hrinet", "loss", "train#trainer", "content_loss"),
        ("hrinet", "stage2_loss", "refine#trainer", "content_loss"),
        ("mixture", "loss", "train#trainer", "loss_function"),
    ],
)
def test_losses_are_moved_to_the_device(bundle, loss, trainer, argument):
    """Some have weights, as LPIPS does."""
    weighted = {"_target_": "torch.nn.BCEWithLogitsLoss", "pos_weight": "$torch.ones(1)"}
    parser = parser_of(bundle, "train", device=torch.device("meta"), **{loss: weighted})
    assert parser.get_parsed_content(f"{trainer}#{argument}").pos_weight.device.type == "meta"


def test_small_saint_costs_a_tenth():
    """Convolutions on a pixel of a slice: of both stages, two views and one fusion."""
    costs = []
    for overlays in ((), ("small",)):
        network = part_of("saint", "network_def", *overlays)
        # features are learned once for four slices
        costs.append(2 * parameters(network.ami.feature_learning) / 4 + parameters(network.rfn))
    assert 6 < costs[0] / costs[1] < 15


def test_hrinet_paper():
    """Sections 3.3 and 4.2."""
    settings = merged("hrinet")
    assert settings["num_slices"] == 7 and settings["patch_size"] == 256 and settings["strides"] == 1
    assert settings["constraint_weight"] == 0.5 and settings["adversarial_weight"] == 5e-4
    assert settings["steps"] == ["unsupervised", "supervised"] and settings["stages"] == ["stage1", "stage2"]
    network = part_of("hrinet", "network_def", "paper")
    assert parameters(network) == 9_571_809
    codes = network.encode(torch.zeros(1, 1, 256, 256))
    assert [tuple(code.shape[1:]) for code in codes] == [(16, 16, 16), (8, 8, 8), (8, 4, 4)]  # Table 1
    assert parameters(part_of("hrinet", "constraint_critic_def", "paper")) == 2_388_720
    patch_critic = part_of("hrinet", "patch_critic_def", "paper")
    assert patch_critic(torch.zeros(1, 1, 256, 256))[-1].shape == (1, 1, 30, 30)  # of patches of 70 pixels
    loss = part_of("hrinet", "adversarial_loss", "paper")
    assert type(loss) is PatchAdversarialLoss
    logits = torch.tensor([[0.0, 3.0]])  # the form of eq. 8 that does not saturate: -log D2
    found = loss(logits, target_is_real=True, for_discriminator=False)
    torch.testing.assert_close(found, -torch.sigmoid(logits).log().mean())


def test_networks_and_losses_of_hrinets_overlays():
    """The comparison networks have one level, that of the highest of the three; a VAE draws its codes in training."""
    assert part_of("hrinet", "network_def").latent_channels == (16, 8, 8)
    for name in ALONE:
        network = part_of("hrinet", "network_def", name)
        assert network.latent_channels == (16,) and network.multiple == 16
        assert type(network) is (nets.VariationalHRINetAutoencoder if name == "vae" else nets.HRINetAutoencoder)
    pair = torch.rand(1, 2, 16, 16)
    assert not torch.equal(network.train()(pair), network(pair)) and torch.equal(network.eval()(pair), network(pair))
    for name, kind in (("mse", nn.MSELoss), ("perceptual", EncoderFeatureLoss), ("patchgan_only", nn.MSELoss)):
        assert type(part_of("hrinet", "stage2_loss", name)) is kind
        assert type(part_of("hrinet", "loss", name)) is nn.MSELoss


def test_hrinets_phantoms_are_taken_slice_by_slice(tmp_path):
    """By default it is their slices, 2 mm apart, that are mixed, not their rows or columns, 3.5 mm apart."""
    sizes = {"output_dir": str(tmp_path), "phantoms__num_phantoms": 2, "phantoms__shape": [24, 26, 13]}
    image = part_of("hrinet", "training_volumes", **sizes)[0]["image"]
    assert image.shape == part_of("hrinet", "comparison#volumes", **sizes)[0]["image"].shape == (1, 24, 26, 13)
    np.testing.assert_allclose(image.pixdim, (3.5, 3.5, 2.0))
    assert image.min() >= 0 and image.max() <= 1
    pair = part_of("hrinet", "validate#dataset", **sizes)[0]
    assert pair["label"].shape == (1, 24, 26, 13)
    assert torch.equal(pair["image"].as_tensor(), pair["label"][..., ::6].as_tensor())


def test_hrinets_groups(tmp_path):
    """Neighboring slices in order, or in reverse order; two samples of a volume as often as an epoch has it."""
    numbered = np.broadcast_to(np.arange(25, dtype=np.int16), (28, 26, 25))
    for name in ("a", "b", "c"):
        save(tmp_path / f"{name}.nii.gz", 100 * numbered - 1000, diagonal(1.0, 1.0, 1.0))
    own = {"dataset_dir": str(tmp_path), "output_dir": str(tmp_path), "samples_per_epoch": 3}
    dataset = part_of("hrinet", "train#dataset", **{**CASES["hrinet"].short, **own})
    assert len(dataset) == 2 * 3
    orders = set()
    for sample in (sample for samples in dataset for sample in samples):
        group = torch.cat([sample["image"][:1], sample["label"], sample["image"][1:]])
        assert group.shape == (4, 24, 24) and group.amax() <= 1
        torch.testing.assert_close(sample["alpha"], torch.tensor([1 / 3, 2 / 3]))
        assert torch.equal(group.amin(dim=(1, 2)), group.amax(dim=(1, 2)))
        orders.add(tuple(torch.diff(group[:, 0, 0] * 40).round().int().tolist()))  # 100 of 4000 HU a slice
    assert orders == {(1, 1, 1), (-1, -1, -1)}


def test_vts_paper():
    """Crops of 160 mm, small affine transforms alone, no frozen statistics."""
    settings = merged("vts")
    assert settings["patch_size"] == 160 and settings["pixdim"] == [1, 1, 1] and settings["norm_warmup_epochs"] is None
    assert settings["factors"] == [4, 8] and settings["sigma_range"] == [0, 3.2] and settings["window"] == [-2048, 2048]
    steps = part_of("vts", "train#preprocessing", "paper").transforms
    drawn = {type(step).__name__: step.prob for step in steps if type(step).__name__ in ("RandAffined", "RandFlipd")}
    assert drawn == {"RandAffined": 1}
    full = part_of("vts", "network_def", "paper")
    assert type(full) is nets.VTSGenerator and parameters(full) == 18_096_769
    assert full.residual_scale == 1 and full.high_frequency and type(full.stem) is nn.Identity


def test_networks_of_vts_overlays():
    default, small, whole = (part_of("vts", "network_def", *names) for names in ((), ("small",), ("no_hf",)))
    assert type(default) is type(small) is type(whole) is nets.VTSGenerator
    assert parameters(whole) == parameters(default) and not whole.high_frequency and default.high_frequency
    assert 3 < parameters(default) / parameters(small) < 4.2  # half as wide
    assert type(part_of("vts", "network_def", "srcnn")) is nets.SRCNN3D
    assert content("vts", "srcnn")["adversarial_weight"] == 0
    pix2pix = part_of("vts", "network_def", "pix2pix")
    assert type(pix2pix) is nets.Pix2Pix3D and pix2pix.multiple == content("vts", "train")["patch_size"]


@pytest.mark.parametrize("name", ["", "paper", "no_condition", "pix2pix", "srcnn"])
def test_discriminators_of_vts_overlays(name):
    critic, bare = part_of("vts", "discriminator_def", *filter(None, [name])), name in ("no_condition", "pix2pix")
    assert critic.condition_channels == (0 if bare else 8)
    attention = any("SelfAttention" in type(module).__name__ for module in critic.modules())
    assert attention == (name != "pix2pix")
    image = torch.rand(1, 2, 16, 16, 16)
    assert critic.eval()(image, **({} if bare else {"condition": torch.zeros(1, 8)})).shape[:2] == (1, 1)


def vts_part(folder, part, dataset_dir, **options):
    """A part of the configuration of a short training."""
    own = {"dataset_dir": str(dataset_dir), "output_dir": str(folder), "pixdim": [0.0, 0.0, 0.0], **options}
    return part_of("vts", part, **{**CASES["vts"].short, "validation_fraction": 0.34, **own})


def test_vts_phantoms_are_thin_along_their_slices(tmp_path):
    """By default it is their slices, 1 mm apart, that are made thick, not their rows or columns, 4.5 mm apart."""
    sizes = {"phantoms__num_phantoms": 2, "phantoms__shape": [72, 72, 9], "val_factor": 2}
    image = vts_part(tmp_path, "training_volumes", "", **sizes)[0]["image"]
    assert image.shape[3] == 9
    np.testing.assert_allclose(image.pixdim, (4.5, 4.5, 1.0))
    pair = vts_part(tmp_path, "validate#dataset", "", **sizes)[0]
    np.testing.assert_allclose(pair["image"].pixdim, (4.5, 4.5, 2.0))
    assert pair["label"].shape == (1, 72, 72, 9)


@pytest.mark.parametrize("wanted", [6.4, 16.0])
@pytest.mark.parametrize("only", ["both", "validation"])
def test_vts_volumes_are_resampled(wanted, only, thin_volumes, tmp_path):
    """``pixdim`` is for all volumes, unless ``training_pixdim`` says otherwise of those that are trained on."""
    options = {"pixdim": [0.0, 0.0, wanted], "body_threshold": -3000.0}
    options |= {"training_pixdim": [0.0, 0.0, 0.0]} if only == "validation" else {}
    training = vts_part(tmp_path, "training_volumes", thin_volumes, **options)
    assert len(training) == 2
    image = training[0]["image"]
    unit = (np.asarray(nib.load(image.meta["filename_or_obj"]).dataobj, np.float64) + 2048) / 4096
    expected = unit
    if only == "both" and wanted > 8:
        expected = unit[..., ::2]
    elif only == "both":
        expected = map_coordinates(unit, np.mgrid[:40, :40, :31] * np.reshape([1, 1, 0.8], (3, 1, 1, 1)), order=1)
    np.testing.assert_allclose(image[0].numpy(), expected, atol=2e-5)
    np.testing.assert_allclose(image.pixdim, (8, 8, 8 if only == "validation" else wanted))
    pair = vts_part(tmp_path, "validate#dataset", thin_volumes, **options)[0]
    np.testing.assert_allclose(pair["label"].pixdim, (8, 8, wanted))
    np.testing.assert_allclose(pair["image"].pixdim, (8, 8, 4 * wanted))
    assert pair["label"].shape == (1, 40, 40, 29 if wanted < 8 else 13)
    if only == "both":  # thick slices cannot teach thin ones
        with pytest.raises(RuntimeError) as caught:
            vts_part(tmp_path, "training_volumes", thin_volumes, pixdim=[0.0, 0.0, 6.3])
        assert "torso_00" in str(caught.value.__cause__.__cause__) and "8 mm" in str(caught.value.__cause__.__cause__)


def test_vts_pairs(thin_volumes, tmp_path):
    """Crops of the foreground, thick on the thin grid, with the condition of their body part."""
    body_parts = {"torso_00": "abdomen", "torso_001": "leg"}
    training = vts_part(tmp_path, "train#dataset", thin_volumes, body_parts=body_parts, noise_range=[0.0, 0.0])
    assert len(training) == 2 * 2
    for pair in training:
        assert pair["image"].shape == pair["label"].shape == (1, 16, 16, 16)
        assert pair["label"].min() >= 0 and pair["label"].max() <= 1
        assert 0 < (pair["image"] - pair["label"]).abs().mean() < 0.1
        condition = pair["condition"].tolist()
        assert [sum(condition[:4]), sum(condition[4:6]), sum(condition[6:])] == [1, 1, 1]
        part = "leg" if "torso_001" in str(pair["image"].meta["filename_or_obj"]) else "abdomen"
        assert condition[BODY_PARTS.index(part)] == 1
    unknown = vts_part(tmp_path, "train#dataset", thin_volumes, body_parts={})[0]
    assert unknown["condition"][:4].sum() == 0
