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

"""What every bundle in ``bundles/`` holds, checked by MONAI's public calls where there are any.

Their exports are in ``test_export.py``, what only one bundle has is in the modules named after it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from configparser import ConfigParser as IniParser
from pathlib import Path

import monai.bundle
import nibabel as nib
import pytest
import torch
from bundle_commands import (
    BUNDLES,
    ROOT,
    card,
    check_documented_command,
    check_files,
    check_net_in_out,
    check_overlay,
    content,
    documented_commands,
    files_of,
    names,
    overlays_of,
    parser_of,
    save_scan,
    start_workflow,
)
from torch import nn

from monai_sliceinterp.zoo import bundle_files, check_bundle
from monai_sliceinterp.zoo.metadata import REQUIRED_KEYS

NAMES = sorted(path.name for path in BUNDLES.iterdir() if path.is_dir())
EVERY = pytest.mark.parametrize("bundle", NAMES)
OVERLAYS = [(bundle, name) for bundle in NAMES for name in overlays_of(bundle)]
OWN_WEIGHTS = [pair for pair in OVERLAYS if content(*pair).get("weights", "model.pt") != "model.pt"]
COMMANDS = [(bundle, command) for bundle in NAMES for command in documented_commands(bundle)]
COMMON_KEYS = {
    "train": "dataset_dir output_dir max_epochs learning_rate batch_size val_interval device amp seed ckpt",
    "inference": "input output_dir factor spacing ckpt device amp batch_size",
}
SCHEMA = "SLICEINTERP_SCHEMA"
JSON_TYPES = {str: "string", dict: "object"}


def small(bundle: str) -> list[str]:
    """The overlay of a network that is quick to train, where there is one."""
    return ["small"] if "small" in overlays_of(bundle) else []


@EVERY
def test_files_and_links(bundle: str) -> None:
    check_files(bundle)


@EVERY
def test_keys_that_all_bundles_share(bundle: str) -> None:
    for name, keys in COMMON_KEYS.items():
        assert set(keys.split()) <= set(content(bundle, name))


@pytest.mark.parametrize(("bundle", "overlay"), OVERLAYS)
def test_overlays_change_what_exists(bundle: str, overlay: str) -> None:
    training = content(bundle, "train")
    parts = [key for key, value in training.items() if isinstance(value, dict) and "dataloader" in value]
    assert {"train", "validate"} <= set(parts)
    check_overlay(bundle, overlay, parts)


@EVERY
def test_metadata(bundle: str) -> None:
    """What the zoo's schema leaves open; the rest is checked where bundles are packed, too."""
    metadata = content(bundle, "metadata")
    for direction, name in (("inputs", "image"), ("outputs", "pred")):
        tensors = metadata["network_data_format"][direction]
        assert list(tensors) == [name]
        assert set(tensors[name]["channel_def"]) == {str(k) for k in range(tensors[name]["num_channels"])}
    assert re.fullmatch(r"https://github\.com/Project-MONAI/.*/meta_schema_\d{8}\.json", metadata["schema"])
    assert all(re.fullmatch(r"\d\.\d\.\d", version) for version in metadata["changelog"])  # compared as strings
    scores = metadata["eval_metrics"]
    assert scores and all(type(value) is float and value > 0 for value in scores.values())


@EVERY
def test_verify_metadata(bundle: str, tmp_path: Path) -> None:
    """MONAI's schema is the file that $SLICEINTERP_SCHEMA names, or lies where MONAI keeps what it downloads."""
    url = content(bundle, "metadata")["schema"]
    name = url.rsplit("/", 1)[-1]
    schema = Path(os.environ.get(SCHEMA) or Path(torch.hub.get_dir()) / "bundle" / name)
    if not schema.is_file():
        assert SCHEMA not in os.environ, f"{SCHEMA} names {schema}, which is not there; download {url} to it"
        warnings.warn(f"{name} is not on this machine: only the keys and types it requires are checked", stacklevel=1)
        schema = tmp_path / name  # what is there is not downloaded
        properties = {key: {"type": JSON_TYPES[kind], "minLength": 1} for key, kind in REQUIRED_KEYS.items()}
        schema.write_text(json.dumps({"type": "object", "required": list(REQUIRED_KEYS), "properties": properties}))
    monai.bundle.verify_metadata(meta_file=str(BUNDLES / bundle / "metadata.json"), filepath=str(schema))


@EVERY
def test_versions_agree(bundle: str) -> None:
    """Metadata, setup.cfg and constraints.txt name the same versions."""
    metadata = content(bundle, "metadata")
    setup = IniParser()
    setup.read(ROOT / "setup.cfg")
    own = {setup["metadata"]["name"]: setup["metadata"]["version"]}
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    found = {
        "torch": metadata["pytorch_version"],
        "monai": metadata["monai_version"],
        "numpy": metadata["numpy_version"],
        **metadata["required_packages_version"],
    }
    assert found == {name: {**pinned, **own}[name] for name in found}
    needed = re.findall(r"^([\w.-]+)[<>=]", setup["options"]["install_requires"], re.MULTILINE)
    assert set(own) <= set(found) <= {*needed, *own}


@EVERY
def test_weights_card_configs_and_metadata_are_in_step(bundle: str) -> None:
    """As packing demands; larger weights would have no place in the repository."""
    assert check_bundle(bundle, bundle_files(BUNDLES / bundle)) == content(bundle, "metadata")["version"]
    assert all(path.stat().st_size < 25e6 for path in (BUNDLES / bundle / "models").iterdir())
    for name in ("inference", "evaluate"):
        assert content(bundle, name)["weights"] == "model.pt"


@EVERY
def test_training_and_inference_have_the_same_network(bundle: str) -> None:
    training, inference = content(bundle, "train"), content(bundle, "inference")
    assert training["network_def"] == inference["network_def"]
    for key in re.findall(r"@(\w+)", json.dumps(training["network_def"])):
        assert training[key] == inference[key]
    assert training.get("window") == inference.get("window")


@pytest.mark.parametrize("sizes", [{}, {"n": 2}, {"any": 6, "n": 3}], ids=str)
@pytest.mark.parametrize("config", ["inference", "train"])
@EVERY
def test_verify_net_in_out(bundle: str, config: str, sizes: dict[str, int]) -> None:
    """Also with the sizes that MONAI takes by itself, as the model zoo's checks do."""
    check_net_in_out(bundle, config, **sizes)


@pytest.mark.parametrize(("bundle", "overlay"), OWN_WEIGHTS)
def test_verify_net_in_out_of_overlays(bundle: str, overlay: str) -> None:
    check_net_in_out(bundle, "train", overlay, n=2)


@EVERY
def test_properties_of_training(bundle: str, thin_volumes: Path, tmp_path: Path) -> None:
    given = {"dataset_dir": str(thin_volumes), "output_dir": str(tmp_path), "val_interval": 1, "pixdim": [0, 0, 0]}
    options = {key: value for key, value in given.items() if key in content(bundle, "train")}
    workflow = start_workflow(bundle, ["train", *small(bundle)], "train", **options)
    assert workflow.version == content(bundle, "metadata")["version"] and workflow.val_interval == 1


@EVERY
def test_properties_of_inference(bundle: str, tmp_path: Path) -> None:
    """And the workflow runs, with the weights that are shipped."""
    scan, out = save_scan(tmp_path / "scan.nii.gz", (14, 13, 4)), tmp_path / "out"
    options = {"input": str(scan), "output_dir": str(out), "bundle_root": str(BUNDLES / bundle), "progress": False}
    workflow = start_workflow(bundle, ["inference"], "infer", **options)
    workflow.run()
    workflow.finalize()
    image = nib.load(out / "scan_interp.nii.gz")
    assert image.shape == (14, 13, 13) and image.header.get_zooms() == (1, 1, 1)  # 4 mm to 1 mm


@pytest.fixture
def keep_logging() -> Iterator[None]:
    """A bundle's logging.conf replaces the handlers of the process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundles in another folder, as downloads would be: real files, and nothing beside configs/ and models/."""
    folder = tmp_path_factory.mktemp("copies")
    for bundle in NAMES:
        for part in ("configs", "models"):
            shutil.copytree(BUNDLES / bundle / part, folder / bundle / part)
    return folder


@pytest.mark.usefixtures("keep_logging")
@pytest.mark.parametrize("options", [{}, {"workflow_type": "inference"}], ids=["default", "inference"])
@EVERY
def test_load(
    bundle: str,
    options: dict[str, str],
    copies: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """From any folder, started in any other: the network with the shipped weights; nothing is written, no error."""
    before = files_of(copies)
    monkeypatch.chdir(tmp_path)
    network = monai.bundle.load(bundle, bundle_dir=copies, device="cpu", progress=False, **options)
    expected = torch.load(BUNDLES / bundle / "models" / "model.pt", weights_only=True)
    assert isinstance(network, nn.Module)
    assert type(network) is type(parser_of(bundle, "inference").get_parsed_content("network_def"))
    assert network.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())
    assert files_of(copies) == before and not names(tmp_path)
    printed = "".join(capfd.readouterr())
    assert "Traceback" not in printed and "ERROR" not in printed


@EVERY
def test_card_has_commands(bundle: str) -> None:
    """And no gap that was left to fill in."""
    commands = " ".join(documented_commands(bundle))
    for name in ("inference", "train", "evaluate", "multi_gpu_train", "paper", *small(bundle)):
        assert f"bundles/{bundle}/{name}.json" in commands
    for function in ("ckpt_export", "onnx_export"):
        assert f"monai.bundle {function}" in commands
    assert not re.search(r"\b[A-Z]{4,}_[A-Z]{4,}\b|^@?[A-Z]+@?$", card(bundle), re.M)


@pytest.mark.parametrize(("bundle", "command"), COMMANDS)
def test_commands_of_the_card(bundle: str, command: str) -> None:
    """Their files are there, and have the keys that are set."""
    check_documented_command(bundle, command)
