# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Exported networks give what the networks themselves give: TorchScript, and ONNX where its packages are installed.

A network is traced: what it is told by keywords beside the image stays as it is by default.
"""

import functools
from dataclasses import dataclass

import monai.bundle
import numpy as np
import pytest
import torch
from monai.data import load_net_with_metadata

from tests.bundles.bundle_commands import BUNDLES, content, names, parser_of

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Export:
    """What is exported, for an image of which shape."""

    bundle: str
    overlay: str
    shape: tuple[int, ...]

    @property
    def configs(self):
        return ["inference", self.overlay] if self.overlay else ["inference"]

    @property
    def weights(self):
        return BUNDLES / self.bundle / "models" / content(self.bundle, self.configs[-1])["weights"]

    def options(self, path):
        """Arguments that MONAI's exports share."""
        meta, *configs = (str(BUNDLES / self.bundle / f"{name}.json") for name in ("metadata", *self.configs))
        files = {"filepath": str(path), "ckpt_file": str(self.weights), "meta_file": meta, "config_file": configs}
        return {"net_id": "network_def", "input_shape": self.shape, "use_trace": True, **files}

    def eager(self, image, **keywords):
        network = parser_of(self.bundle, *self.configs).get_parsed_content("network_def").eval()
        network.load_state_dict(torch.load(self.weights, weights_only=True))
        with torch.no_grad():
            return network(image, **keywords)


EXPORTS = {
    "asi": Export("asi", "", (1, 2, 32, 40)),
    "plain": Export("asi", "plain", (1, 2, 32, 40)),
    "hrinet": Export("hrinet", "", (1, 2, 48, 56)),
    "saint": Export("saint", "small", (1, 1, 12, 16, 4)),
    "vts": Export("vts", "small", (1, 1, 16, 32, 48)),
    "mixture": Export("mixture", "", (1, 1, 18, 16, 4)),
}
SHAPES = {
    "asi": [(1, 2, 32, 40), (1, 2, 24, 44), (2, 2, 37, 29)],
    "plain": [(1, 2, 24, 44), (2, 2, 37, 29)],
    "hrinet": [(1, 2, 48, 56), (2, 2, 37, 53)],
    "saint": [(1, 1, 12, 16, 4), (1, 1, 19, 9, 7)],
    "mixture": [(1, 1, 18, 16, 4)],
    "vts": [(2, 1, 32, 16, 48), (1, 1, 17, 19, 21)],
}
SIZES = [(name, shape) for name, shapes in SHAPES.items() for shape in shapes]
LATENT = {"input_names": ["image"], "output_names": ["pred"], "dynamic_axes": {"image": {0: "b", 2: "h", 3: "w"}}}
VOLUME = {"input_names": ["image"], "output_names": ["pred"], "dynamic_axes": {"image": {2: "h", 3: "w", 4: "n"}}}
# the older exporter makes the place of the slice an input
ONNX = {name: {**LATENT, "dynamo": False} for name in ("asi", "hrinet")}
ONNX |= {name: {**VOLUME, "dynamo": True} for name in ("saint", "vts")}
ONNX_SIZES = [(name, shape) for name, shape in SIZES if name in ONNX and (shape[0] == 1 or not ONNX[name]["dynamo"])]


def test_every_bundle_is_exported():
    assert {export.bundle for export in EXPORTS.values()} == set(names(BUNDLES))


def image_of(shape):
    """A smooth image in [0, 1] with some noise: what networks make of it is not constant."""
    generator = torch.Generator().manual_seed(sum(shape))
    grid = torch.meshgrid(*(torch.linspace(0, 3, size) for size in shape), indexing="ij")
    return 0.5 + 0.4 * torch.sin(sum(grid)) + 0.1 * torch.rand(shape, generator=generator)


def assert_same(found, expected):
    assert found.shape == expected.shape and expected.std() > 100 * TOLERANCE
    assert (found - expected).abs().max() < TOLERANCE


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The exported files."""
    paths = {name: tmp_path_factory.mktemp("ts") / f"{name}.ts" for name in EXPORTS}
    for name, export in EXPORTS.items():
        monai.bundle.ckpt_export(**export.options(paths[name]))
    return paths


@pytest.mark.parametrize(("name", "shape"), SIZES, ids=str)
def test_torchscript_equals_eager(scripts, name, shape):
    image = image_of(shape)
    with torch.no_grad():
        found = torch.jit.load(scripts[name], map_location="cpu")(image)
    assert_same(found, EXPORTS[name].eager(image))


@pytest.mark.parametrize("name", EXPORTS)
def test_torchscript_tells_what_it_is(scripts, name):
    """It holds metadata and configs."""
    bundle = EXPORTS[name].bundle
    _, metadata, more = load_net_with_metadata(str(scripts[name]), more_extra_files=("inference.json",))
    assert metadata["version"] == content(bundle, "metadata")["version"]
    assert metadata["network_data_format"] == content(bundle, "metadata")["network_data_format"]
    assert b"network_def" in more["inference.json"]


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """What runs the exported networks, each exported when it is first asked for."""
    runtime = pytest.importorskip("onnxruntime")
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)

    @functools.cache
    def session(name):
        path = tmp_path_factory.mktemp("onnx") / f"{name}.onnx"
        monai.bundle.onnx_export(**EXPORTS[name].options(path), converter_kwargs=dict(ONNX[name]))
        return runtime.InferenceSession(path, providers=["CPUExecutionProvider"])

    return session


@pytest.mark.parametrize(("name", "shape"), ONNX_SIZES, ids=str)
def test_onnx_equals_eager(sessions, name, shape):
    """For images of any size, and slices at any place where the network mixes two."""
    session, image = sessions(name), image_of(shape)
    inputs = [value.name for value in session.get_inputs()]
    assert inputs == (["image"] if ONNX[name]["dynamo"] else ["image", "alpha"])
    for keywords in [{"alpha": 0.25}, {"alpha": 0.5}] if "alpha" in inputs else [{}]:
        given = {key: np.array(value) for key, value in keywords.items()}
        (found,) = session.run(None, {"image": image.numpy(), **given})
        assert_same(torch.tensor(found), EXPORTS[name].eager(image, **keywords))
