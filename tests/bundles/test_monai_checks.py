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

Their exports are in ``test_export.py``, their options in ``test_options.py``.
"""

from __future__ import annotations

import ast
import inspect
import json
import logging
import os
import pydoc
import re
import shlex
import shutil
import warnings
from collections.abc import Iterator
from configparser import ConfigParser as IniParser
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from torch import nn

from monai_sliceinterp.zoo import bundle_files, check_bundle
from monai_sliceinterp.zoo.metadata import REQUIRED_KEYS
from tests.bundles.bundle_cases import CASES
from tests.bundles.bundle_commands import (
    BUNDLES,
    ROOT,
    Command,
    content,
    files_of,
    names,
    overlays_of,
    parameters,
    parser_of,
    run_named,
    save_scan,
)

NAMES = sorted(path.name for path in BUNDLES.iterdir() if path.is_dir())
EVERY = pytest.mark.parametrize("bundle", NAMES)
OVERLAYS = [(bundle, name) for bundle in NAMES for name in overlays_of(bundle)]
OWN_WEIGHTS = [pair for pair in OVERLAYS if content(*pair).get("weights", "model.pt") != "model.pt"]
COMMON_KEYS = {
    "train": "dataset_dir output_dir max_epochs learning_rate batch_size val_interval device amp seed ckpt",
    "inference": "input output_dir factor spacing ckpt device amp batch_size",
}
DOCUMENTED = {"train", "inference", "evaluate", "multi_gpu_train", "multi_gpu_inference", "paper", "metadata"}
SCHEMA = "SLICEINTERP_SCHEMA"
JSON_TYPES = {str: "string", dict: "object"}


def card(bundle: str) -> str:
    return (BUNDLES / bundle / "docs" / "README.md").read_text()


def documented_commands(bundle: str) -> list[str]:
    return re.findall(r"^(?:python|torchrun) .*monai\.bundle.*$", card(bundle), re.M)


COMMANDS = [(bundle, command) for bundle in NAMES for command in documented_commands(bundle)]


def start_workflow(bundle: str, configs: list[str], kind: str, **options: object) -> ConfigWorkflow:
    """Initialize the workflow as MONAI's API does, and check that it has the properties MONAI expects."""
    workflow = ConfigWorkflow(
        config_file=[str(BUNDLES / bundle / f"{name}.json") for name in configs],
        meta_file=str(BUNDLES / bundle / "metadata.json"),
        logging_file=False,
        workflow_type=kind,
        device="$torch.device('cpu')",
        **options,
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    return workflow


def test_every_bundle_has_a_case() -> None:
    assert sorted(CASES) == NAMES


@EVERY
def test_files_and_links(bundle: str) -> None:
    """Everything documented is there; configs/ holds links to the files above it."""
    folder = BUNDLES / bundle
    configs = sorted(path.name for path in folder.glob("*.json"))
    documented = DOCUMENTED if CASES[bundle].rates else DOCUMENTED - {"paper"}
    assert {f"{name}.json" for name in documented} <= set(configs)
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert names(folder / "configs") == sorted([*configs, "logging.conf"])
    for path in (folder / "configs").iterdir():
        assert path.is_symlink() and path.readlink() == Path("..") / path.name
        assert path.resolve(strict=True) == (folder / path.name).resolve()


@EVERY
def test_keys_that_all_bundles_share(bundle: str) -> None:
    for name, keys in COMMON_KEYS.items():
        assert set(keys.split()) <= set(content(bundle, name))


def key_paths(value: object, prefix: str = "") -> list[str]:
    """Every path ``a#b#0`` into a config."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    result = []
    for key, inner in items:
        result += [f"{prefix}{key}", *key_paths(inner, f"{prefix}{key}#")]
    return result


def is_argument(config: dict[str, Any], key: str) -> bool:
    """Whether a key that a config does not have names an argument of one of its components, or of a part of it."""
    *parents, last = key.split("#")
    target = None
    for parent in parents:
        target = pydoc.locate(str(config["_target_"])) if "_target_" in config else target
        config = config.get(parent, {})
    target = pydoc.locate(str(config["_target_"])) if "_target_" in config else target
    if not callable(target):
        return False
    # SAINT's parts are given as settings of their own classes
    known = [target, *(value for value in vars(inspect.getmodule(target)).values() if inspect.isclass(value))]
    return any(last in inspect.signature(value).parameters for value in known if value.__module__ == target.__module__)


@pytest.mark.parametrize(("bundle", "overlay"), OVERLAYS)
def test_overlays_change_what_exists(bundle: str, overlay: str) -> None:
    training, own = content(bundle, "train"), content(bundle, overlay)
    known = {*key_paths(training), "weights"}  # the file below models/ is chosen where weights are read
    added = {key for key in own if key not in known}
    if overlay == "multi_gpu_train":  # each stage, and the validation, get samplers of their own
        parts = [key for key, value in training.items() if isinstance(value, dict) and "dataloader" in value]
        assert {"train", "validate"} <= set(parts)
        samplers = {f"{part}#dataloader#sampler" for part in parts}
        more = {key for key in added - samplers if re.fullmatch(rf"({'|'.join(parts)})#(data_)?sampler", key)}
        assert len(more) == len(parts) and added == samplers | more | {"backend", "initialize", "finalize"}
        assert set(training["imports"]) <= set(own["imports"])
    else:
        assert not [key for key in added if not is_argument(training, key)]


@pytest.mark.parametrize(("bundle", "overlay"), OVERLAYS)
def test_overlays_with_a_network_have_its_weights(bundle: str, overlay: str) -> None:
    """And the others have none, or those of another training."""
    if overlay.startswith(("multi_gpu", "evaluate")):
        pytest.skip("it trains nothing")
    usual, changed = (parser_of(bundle, "train", *more).get_parsed_content("network_def") for more in ((), (overlay,)))
    weights = content(bundle, overlay).get("weights")
    if type(changed) is not type(usual) or [*map(str, changed.modules())] != [*map(str, usual.modules())]:
        assert weights == f"model_{overlay}.pt"
    assert weights in (None, "model.pt", f"model_{overlay}.pt")


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


def check_net_in_out(bundle: str, *configs: str, **sizes: int) -> None:
    """MONAI finds the network to take and give what metadata says."""
    monai.bundle.verify_net_in_out(
        net_id="network_def",
        meta_file=str(BUNDLES / bundle / "metadata.json"),
        config_file=[str(BUNDLES / bundle / f"{name}.json") for name in configs],
        device="cpu",
        **sizes,
    )


@pytest.mark.parametrize(
    ("bundle", "overlays"),
    [*((bundle, case.overlays) for bundle, case in CASES.items()), ("hrinet", ["perceptual"]), ("hrinet", ["vae"])],
)
def test_properties_of_training(bundle: str, overlays: list[str], thin_volumes: Path, tmp_path: Path) -> None:
    given = {"dataset_dir": str(thin_volumes), "output_dir": str(tmp_path), "val_interval": 1, "pixdim": [0, 0, 0]}
    options = {key: value for key, value in given.items() if key in content(bundle, "train")}
    workflow = start_workflow(bundle, ["train", *overlays], "train", **options)
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


def test_other_places_in_a_checkout(weights: Path, tmp_path: Path) -> None:
    """Training inside the bundle's folder, and a config in the folder of links."""
    phantoms = {"phantoms#num_phantoms": 3, "phantoms#shape": "[32,32,9]"}
    tiny = {**phantoms, "patch_size": 32, "max_epochs": 1, "val_interval": 1, "output_dir": tmp_path / "inside"}
    given = {"input": save_scan(tmp_path / "scan.nii.gz"), "factor": 2, "ckpt": weights, "output_dir": tmp_path}
    commands = {
        "inside": Command("train.json", tiny, BUNDLES / "asi", python_path=str(ROOT)),
        "configs": Command("bundles/asi/configs/inference.json", given),
    }
    for result in run_named(commands).values():
        result.check_success()
        assert " ERROR " not in result.stdout
    assert (tmp_path / "inside" / "model.pt").is_file()
    assert nib.load(tmp_path / "scan_interp.nii.gz").shape == (20, 24, 11)


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
    paper = ["paper"] if CASES[bundle].rates else []
    for name in ("inference", "train", "evaluate", "multi_gpu_train", *paper, *CASES[bundle].overlays):
        assert f"bundles/{bundle}/{name}.json" in commands
    for function in ("ckpt_export", "onnx_export") if CASES[bundle].onnx else ("ckpt_export",):
        assert f"monai.bundle {function}" in commands
    assert not re.search(r"\b[A-Z]{4,}_[A-Z]{4,}\b|^@?[A-Z]+@?$", card(bundle), re.M)


@pytest.mark.parametrize("bundle", ["hrinet", "vts"])
def test_card_tells_the_size_of_the_papers_network(bundle: str) -> None:
    network = parser_of(bundle, "inference", "paper").get_parsed_content("network_def")
    assert f"{parameters(network):,} parameters" in card(bundle)


@pytest.mark.parametrize(("bundle", "command"), COMMANDS)
def test_commands_of_the_card(bundle: str, command: str) -> None:
    """Their files are there, and have the keys that are set."""
    function, *words = shlex.split(command.partition("monai.bundle ")[2])
    assert all(option.startswith("--") for option in words[::2])
    given = dict(zip((option[2:] for option in words[::2]), words[1::2], strict=True))
    file = given.pop("config_file")
    files = ast.literal_eval(file) if file.startswith("[") else [file]
    assert all(file.startswith(f"bundles/{bundle}/") and file.endswith(".json") for file in files)
    parser = ConfigParser()
    parser.read_config([ROOT / file for file in files])
    known = parser.config if function == "run" else inspect.signature(getattr(monai.bundle, function)).parameters
    assert set(given) <= set(known)
    assert all((ROOT / given[key]).is_file() for key in ("ckpt_file", "meta_file") if key in given)
