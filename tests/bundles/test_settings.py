# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Settings of the bundles' trainings: data, devices, costs; those of the papers are in ``tests/papers``."""

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from monai_sliceinterp.transforms.conditioning import BODY_PARTS
from tests.bundles.bundle_cases import CASES
from tests.bundles.bundle_commands import BUNDLES, content, diagonal, parameters, parser_of, save
from tests.papers.common import part_of


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
