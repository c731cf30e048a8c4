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

"""The bundle saint as a bundle: metadata, layout, overlays, and MONAI's own checks."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bundle_commands import (
    Command,
    check_common_keys,
    check_files,
    check_metadata,
    check_net_in_out,
    check_output,
    check_overlay,
    check_versions,
    check_weights,
    check_weights_untouched,
    content,
    download,
    names,
    overlays_of,
    run_named,
    save_scan,
    start_workflow,
)

from monai_sliceinterp.networks.nets import SAINT

OWN_NETWORK = ["small", "four_views", "rfn_3d", "paper"]


def test_files_and_links() -> None:
    check_files("saint")
    assert {"ct", *OWN_NETWORK} <= set(overlays_of("saint"))


@pytest.mark.parametrize(("overlay", "file"), [("", "model.pt"), ("small", "model_small.pt")])
def test_shipped_weights_fit_the_network(overlay: str, file: str) -> None:
    network = check_weights("saint", [overlay] if overlay else [], file)
    assert type(network) is SAINT


def test_metadata_has_what_the_zoo_requires(tmp_path: Path) -> None:
    check_metadata("saint", tmp_path / "schema.json")


def test_versions_agree() -> None:
    check_versions("saint")


@pytest.mark.parametrize("sizes", [{}, {"n": 2}, {"any": 6, "n": 3}], ids=str)
@pytest.mark.parametrize("config", ["inference", "train"])
def test_verify_net_in_out(config: str, sizes: dict[str, int]) -> None:
    """Also with the sizes that MONAI takes by itself, as the model zoo's checks do."""
    check_net_in_out("saint", config, "small", **sizes)


def test_properties_of_training(thin_volumes: Path, tmp_path: Path) -> None:
    options = {"dataset_dir": str(thin_volumes), "output_dir": str(tmp_path), "val_interval": 1}
    workflow = start_workflow("saint", ["train", "small"], "train", **options)
    assert workflow.version == content("saint", "metadata")["version"] and workflow.val_interval == 1


def test_properties_of_inference(saint_weights: Path, tmp_path: Path) -> None:
    scan, out = save_scan(tmp_path / "scan.nii.gz", (14, 13, 4)), tmp_path / "out"
    options = {"input": str(scan), "output_dir": str(out), "ckpt": str(saint_weights), "factor": 2, "progress": False}
    workflow = start_workflow("saint", ["inference", "small"], "infer", **options)
    workflow.run()
    workflow.finalize()
    assert nib.load(out / "scan_interp.nii.gz").shape == (14, 13, 7)


@pytest.mark.parametrize("name", overlays_of("saint"))
def test_overlays_change_what_exists(name: str) -> None:
    check_overlay("saint", name, ["train", "fusion", "validate"])


def test_keys_that_all_bundles_share() -> None:
    check_common_keys("saint")


def test_configs_have_the_same_network() -> None:
    """Inference builds what training trained, alone and with an overlay, and finds its file."""
    assert content("saint", "inference")["network_def"] == content("saint", "train")["network_def"]
    for name in OWN_NETWORK:
        overlay = content("saint", name)
        assert overlay["network_def"]["_target_"] == "monai_sliceinterp.networks.nets.SAINT"
        assert overlay["weights"] == f"model_{name}.pt"
    files = [content("saint", name)["weights"] for name in ("inference", "evaluate")]
    assert files == ["model.pt", "model.pt"]


def test_downloaded_bundle(full_saint_weights: Path, thin_volumes: Path, tmp_path: Path) -> None:
    """A copy runs in its own folder, as a download would: paths, links turned files, output beside the weights."""
    copy = download("saint", tmp_path / "downloaded", full_saint_weights)
    scan = save_scan(tmp_path / "scan.nii.gz", (14, 13, 3), spacing=(1.0, 1.0, 5.0))
    python_path = str(Path(__file__).resolve().parents[2])
    short = {"num_slices": 3, "rfn_num_slices": 3, "patch_size": 16, "max_epochs": 1, "val_interval": 1}
    tiny = {**short, "dataset_dir": thin_volumes, "stages": "['ami']", "max_spacing": 8, "batch_size": 2}
    results = run_named(
        {
            "train": Command(["configs/train.json", "configs/small.json"], tiny, copy, python_path=python_path),
            "infer": Command("configs/inference.json", {"input": scan, "factor": 2}, copy, python_path=python_path),
        }
    )
    for result in results.values():
        result.check_success()
        assert " ERROR " not in result.stdout
    check_weights_untouched(copy, full_saint_weights)
    assert {"ami", "scores.csv", "scores.md", "scan_interp.nii.gz"} <= set(names(copy / "output"))
    image = nib.load(scan)
    check_output(copy / "output" / "scan_interp.nii.gz", np.asarray(image.dataobj), image.affine, 2, 2)
