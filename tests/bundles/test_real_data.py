# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Overlays that name real scans: their lists hold, and a training step and a validation item are made of the scans.

Not the whole data sets are loaded, but the smallest volume of the training and of the validation.
"""

import os
from pathlib import Path

import pytest
import torch
from ignite.engine import Events

from tests.bundles.bundle_commands import BUNDLES, parser_of

DATA = os.environ.get("SLICEINTERP_DATA", "")
MR = ("cardiac_mr", "clinical_mr", "brain_mr")
REAL = [
    (bundle.name, name, folders)
    for bundle in sorted(BUNDLES.iterdir())
    for name, folders in (("ct", ("ct",)), ("mr", MR), ("ct_mr", ("ct", *MR)))
    if (bundle / f"{name}.json").is_file()
]
TINY = {
    "patch_size": 16,
    "rfn_patch_size": 16,
    "num_slices": 3,
    "rfn_num_slices": 3,
    "channels": [2, 2, 2, 2],
    "network_def__channels": [2, 2],
    "network_def__ami__num_blocks": 1,
    "network_def__rfn__num_blocks": 1,
    "network_def__num_blocks": 1,
}
LARGER = {"hrinet": {"patch_size": 24}, "mixture": {"network_def__channels": 8}}


def smallest(items):
    return min(items, key=lambda item: Path(item["image"]).stat().st_size)


@pytest.mark.skipif(not DATA, reason="SLICEINTERP_DATA names no folder of real scans")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("bundle", "name", "folders"), REAL, ids=["+".join(case[:2]) for case in REAL])
def test_real_scans_train_and_validate(bundle, name, folders, tmp_path):
    own = {"dataset_dir": [str(Path(DATA) / folder) for folder in folders], "output_dir": str(tmp_path)}
    config = parser_of(bundle, "train", name)
    own |= {key: value for key, value in {**TINY, **LARGER.get(bundle, {})}.items() if key.replace("__", "#") in config}
    split = parser_of(bundle, "train", name, **own).get_parsed_content("split")
    named = {part: config.get(f"{part}_subjects") for part in ("training", "validation", "test")}
    for part, items in split.items():  # each name has a scan, and nothing that is not named is tested
        for subject in named[part] or ():
            assert any(Path(item["image"]).name.lower().startswith(subject.lower()) for item in items), subject
    # the same parts of the data sets, of one scan each
    small = {part: [smallest(items)] for part, items in split.items()}
    count = parser_of(bundle, "train", name, **own)
    count["split"] = small
    trainer = count.get_parsed_content("train#trainer")
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=1), trainer.terminate)
    trainer.run()
    assert trainer.state.iteration == 1
    pair = count.get_parsed_content("validate#dataset")[0]
    assert pair["image"].isfinite().all() and pair["label"].shape[-1] > pair["image"].shape[-1]
    inferer, network = count.get_parsed_content("validate#inferer"), count.get_parsed_content("network_def").eval()
    with torch.no_grad():
        result = inferer(pair["image"][None, :1, :24, :24, :3], network)
    assert result.isfinite().all() and result.shape[-1] > 3
