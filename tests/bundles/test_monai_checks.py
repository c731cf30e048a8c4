# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""What every bundle in ``bundles/`` holds, checked by MONAI's public calls where there are any.

Their exports are in ``test_export.py``, their options in ``test_options.py``.
"""

import ast
import inspect
import json
import os
import pydoc
import re
import shlex
import warnings
from configparser import ConfigParser as IniParser
from pathlib import Path

import monai.bundle
import nibabel as nib
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_sliceinterp.zoo import bundle_files, check_bundle
from monai_sliceinterp.zoo.metadata import REQUIRED_KEYS
from tests.bundles.bundle_cases import CASES
from tests.bundles.bundle_commands import BUNDLES, ROOT, content, names, overlays_of, parameters, parser_of, save_scan

NAMES = sorted(path.name for path in BUNDLES.iterdir() if path.is_dir())
EVERY = pytest.mark.parametrize("bundle", NAMES)
OVERLAYS = [(bundle, name) for bundle in NAMES for name in overlays_of(bundle)]
OWN_WEIGHTS = [pair for pair in OVERLAYS if content(*pair).get("weights", "model.pt") != "model.pt"]
OPTIONS_OF_TRAINING = "dataset_dir output_dir max_epochs learning_rate batch_size val_interval device amp seed ckpt"
OPTIONS_OF_INFERENCE = "input output_dir factor spacing ckpt device amp batch_size"
DOCUMENTED = {"train", "inference", "evaluate", "multi_gpu_train", "multi_gpu_inference", "paper", "metadata"}
SCHEMA = "SLICEINTERP_SCHEMA"
JSON_TYPES = {str: "string", dict: "object"}


def card(bundle):
    return (BUNDLES / bundle / "docs" / "README.md").read_text()


def documented_commands(bundle):
    return re.findall(r"^(?:python|torchrun) .*monai\.bundle.*$", card(bundle), re.M)


COMMANDS = [(bundle, command) for bundle in NAMES for command in documented_commands(bundle)]


def start_workflow(bundle, configs, kind, **options):
    """Initialize the workflow as MONAI's API does, and check that it has the properties MONAI expects."""
    meta, *files = (str(BUNDLES / bundle / f"{name}.json") for name in ("metadata", *configs))
    options |= {"logging_file": False, "device": "$torch.device('cpu')"}
    workflow = ConfigWorkflow(files, meta_file=meta, workflow_type=kind, **options)
    workflow.initialize()
    assert workflow.check_properties() == []
    return workflow


def test_every_bundle_has_a_case():
    assert sorted(CASES) == NAMES


@EVERY
def test_files_and_links(bundle):
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
def test_keys_that_all_bundles_share(bundle):
    assert set(OPTIONS_OF_TRAINING.split()) <= set(content(bundle, "train"))
    assert set(OPTIONS_OF_INFERENCE.split()) <= set(content(bundle, "inference"))


def key_paths(value, prefix=""):
    """Every path ``a#b#0`` into a config."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    result = []
    for key, inner in items:
        result += [f"{prefix}{key}", *key_paths(inner, f"{prefix}{key}#")]
    return result


def is_argument(config, key):
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
def test_overlays_change_what_exists(bundle, overlay):
    training, own = content(bundle, "train"), content(bundle, overlay)
    # overlays are laid over inference, too, where the file below models/ is chosen
    known = {*key_paths(training), *content(bundle, "inference")}
    added = {key for key in own if key not in known}
    if overlay == "multi_gpu_train":  # each stage, and the validation, get samplers of their own
        parts = [key for key, value in training.items() if isinstance(value, dict) and "dataloader" in value]
        assert {"train", "validate"} <= set(parts)
        samplers = {f"{part}#dataloader#sampler" for part in parts}
        more = {key for key in added - samplers if re.fullmatch(rf"({'|'.join(parts)})#(data_)?sampler", key)}
        assert len(more) == len(parts) and samplers <= set(own)
        assert added == samplers - known | more | {"backend", "initialize", "finalize"}
        assert set(training["imports"]) <= set(own["imports"])
    else:
        assert not [key for key in added if not is_argument(training, key)]


def test_adaptation_overlay():
    """It adds a last step to the preprocessing of inference, with the loss of the training, and sets nothing else."""
    parser, training = parser_of("mixture", "inference", "adapt"), content("mixture", "train")
    *before, last = parser["preprocessing#transforms"]
    assert before == content("mixture", "inference")["preprocessing"]["transforms"]
    assert last["loss"] == training["loss"] and last["_target_"].endswith("AdaptNetworkd")
    steps = parser.get_parsed_content("preprocessing").transforms
    assert steps[-1].network is parser.get_parsed_content("network_def")
    own = set(content("mixture", "adapt"))
    assert own == {"adapt_steps", "adapt_seed", "adapt_learning_rate", "+preprocessing#transforms"}


@pytest.mark.parametrize(("bundle", "overlay"), OVERLAYS)
def test_overlays_with_a_network_have_its_weights(bundle, overlay):
    """And the others have none, or those of another training."""
    if overlay.startswith(("multi_gpu", "evaluate")):
        pytest.skip("it trains nothing")
    usual, changed = (parser_of(bundle, "train", *more).get_parsed_content("network_def") for more in ((), (overlay,)))
    weights = content(bundle, overlay).get("weights")
    if type(changed) is not type(usual) or [*map(str, changed.modules())] != [*map(str, usual.modules())]:
        assert weights == f"model_{overlay}.pt"
    assert weights in (None, "model.pt", f"model_{overlay}.pt")


@EVERY
def test_metadata(bundle):
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
def test_verify_metadata(bundle, tmp_path):
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
def test_versions_agree(bundle):
    """Metadata, setup.cfg and constraints.txt name the same versions."""
    metadata = content(bundle, "metadata")
    setup = IniParser()
    setup.read(ROOT / "setup.cfg")
    own = {setup["metadata"]["name"]: setup["metadata"]["version"]}
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    found = {name: metadata[f"{name}_version"] for name in ("monai", "numpy")}
    found |= {"torch": metadata["pytorch_version"], **metadata["required_packages_version"]}
    assert found == {name: {**pinned, **own}[name] for name in found}
    wanted = setup["options"]["install_requires"] + setup["options.extras_require"]["train"]  # bundles train, too
    needed = re.findall(r"^([\w.-]+)[<>=]", wanted, re.MULTILINE)
    assert set(own) <= set(found) <= {*needed, *own}


@EVERY
def test_weights_card_configs_and_metadata_are_in_step(bundle):
    """As packing demands; larger weights would have no place in the repository."""
    assert check_bundle(bundle, bundle_files(BUNDLES / bundle)) == content(bundle, "metadata")["version"]
    assert all(path.stat().st_size < 25e6 for path in (BUNDLES / bundle / "models").iterdir())
    for name in ("inference", "evaluate"):
        assert content(bundle, name)["weights"] == "model.pt"


@EVERY
def test_training_and_inference_have_the_same_network(bundle):
    training, inference = content(bundle, "train"), content(bundle, "inference")
    assert training["network_def"] == inference["network_def"]
    for key in re.findall(r"@(\w+)", json.dumps(training["network_def"])):
        assert training[key] == inference[key]
    assert training.get("window") == inference.get("window")


@pytest.mark.parametrize("sizes", [{}, {"n": 2}, {"any": 6, "n": 3}], ids=str)
@pytest.mark.parametrize("config", ["inference", "train"])
@EVERY
def test_verify_net_in_out(bundle, config, sizes):
    """Also with the sizes that MONAI takes by itself, as the model zoo's checks do."""
    check_net_in_out(bundle, config, **sizes)


@pytest.mark.parametrize(("bundle", "overlay"), OWN_WEIGHTS)
def test_verify_net_in_out_of_overlays(bundle, overlay):
    check_net_in_out(bundle, "train", overlay, n=2)


def check_net_in_out(bundle, *configs, **sizes):
    """MONAI finds the network to take and give what metadata says."""
    meta, *files = (str(BUNDLES / bundle / f"{name}.json") for name in ("metadata", *configs))
    monai.bundle.verify_net_in_out("network_def", meta_file=meta, config_file=files, device="cpu", **sizes)


@pytest.mark.parametrize(
    ("bundle", "overlays"),
    [*((bundle, case.overlays) for bundle, case in CASES.items()), ("hrinet", ["perceptual"]), ("hrinet", ["vae"])],
)
def test_properties_of_training(bundle, overlays, thin_volumes, tmp_path):
    given = {"dataset_dir": str(thin_volumes), "output_dir": str(tmp_path), "val_interval": 1, "pixdim": [0, 0, 0]}
    options = {key: value for key, value in given.items() if key in content(bundle, "train")}
    workflow = start_workflow(bundle, ["train", *overlays], "train", **options)
    assert workflow.version == content(bundle, "metadata")["version"] and workflow.val_interval == 1


@EVERY
def test_properties_of_inference(bundle, tmp_path):
    """And the workflow runs, with the weights that are shipped."""
    scan, out = save_scan(tmp_path / "scan.nii.gz", (14, 13, 4)), tmp_path / "out"
    options = {"input": str(scan), "output_dir": str(out), "bundle_root": str(BUNDLES / bundle), "progress": False}
    workflow = start_workflow(bundle, ["inference"], "infer", **options)
    workflow.run()
    workflow.finalize()
    image = nib.load(out / "scan_interp.nii.gz")
    assert image.shape == (14, 13, 13) and image.header.get_zooms() == (1, 1, 1)  # 4 mm to 1 mm


@EVERY
def test_card_has_commands(bundle):
    """And no gap that was left to fill in."""
    commands = " ".join(documented_commands(bundle))
    paper = ["paper"] if CASES[bundle].rates else []
    for name in ("inference", "train", "evaluate", "multi_gpu_train", *paper, *CASES[bundle].overlays):
        assert f"bundles/{bundle}/{name}.json" in commands
    for function in ("ckpt_export", "onnx_export") if CASES[bundle].onnx else ("ckpt_export",):
        assert f"monai.bundle {function}" in commands
    assert not re.search(r"\b[A-Z]{4,}_[A-Z]{4,}\b|^@?[A-Z]+@?$", card(bundle), re.M)


@pytest.mark.parametrize("bundle", ["hrinet", "vts"])
def test_card_tells_the_size_of_the_papers_network(bundle):
    network = parser_of(bundle, "inference", "paper").get_parsed_content("network_def")
    assert f"{parameters(network):,} parameters" in card(bundle)


@pytest.mark.parametrize(("bundle", "command"), COMMANDS)
def test_commands_of_the_card(bundle, command):
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
    assert {key.partition("#")[0] for key in given} <= set(known)
    assert all((ROOT / given[key]).is_file() for key in ("ckpt_file", "meta_file") if key in given)
