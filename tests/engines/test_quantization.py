# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Networks in 8-bit integers: close to float32, made and read by one rule, refused in one line where they cannot be."""

import sys

import pytest
import torch
from torch import nn

from monai_sliceinterp.engines import load_weights, quantization, quantize, quantized
from monai_sliceinterp.inferers import MultiViewSliceInferer
from tests.inferers.common import make_saint, make_scan, plain

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")


def network():
    return make_saint(dtype=torch.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights with their quantized parts beside them."""
    folder = tmp_path_factory.mktemp("bundle") / "models"
    folder.mkdir()
    torch.save(network().state_dict(), folder / "model.pt")
    torch.save(make_saint(size={"channels": 8, "num_blocks": 1, "num_layers": 1}).state_dict(), folder / "other.pt")
    scans = [[{"image": make_scan(1, 16, 16, 4, seed=seed, dtype=torch.float32)} for seed in range(2)]]
    files = quantize(network(), scans, MultiViewSliceInferer(2, value_range=(0, 1)), folder / "model.pt", folder)
    assert [file.name for file in files] == ["model_int8_ami.onnx", "model_int8_rfn.onnx"]
    return folder


def test_few_voxels_do_not_make_all_others_coarse(tmp_path, monkeypatch):
    """The range of what layers hand on holds a share of it, not the largest number that there ever was."""
    scans = [{"image": make_scan(1, 16, 16, 4, dtype=torch.float32)}]
    torch.save(network().state_dict(), tmp_path / "model.pt")
    scales = []
    for share in (90.0, 100.0):
        monkeypatch.setattr(quantization, "_PERCENTILE", share)
        part, _ = quantize(network(), scans, MultiViewSliceInferer(2), tmp_path / "model.pt", tmp_path)
        graph = onnx.load(part).graph
        scales.append(
            sum(float(onnx.numpy_helper.to_array(item)) for item in graph.initializer if is_scale_of_layer(item))
        )
    assert 0 < scales[0] < 0.9 * scales[1]


def test_features_of_a_block_share_a_range(folder):
    """All of them but those that ReLU has made, whose integers begin at 0, where they clip."""
    graph = onnx.load(folder / "model_int8_ami.onnx").graph
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    used_by = {name: node for node in graph.node for name in node.input}

    def integers(node):
        return float(constants[node.input[1]]), int(constants[node.input[2]])

    joined = [node for node in graph.node if node.op_type == "Concat" and node.name.startswith("/blocks")]
    copied = 0
    for node in joined:
        first, last = (integers(made_by[name]) for name in node.input)
        assert integers(used_by[node.output[0]]) == first and first[1] > 0
        assert last[1] == 0 and last[0] != first[0]
        copied += made_by[made_by[node.input[0]].input[0]].input[0] in {other.output[0] for other in joined}
    assert copied == len(joined) - len({node.name.split("/")[1] for node in joined}) > 0


def is_scale_of_layer(item):
    return item.name.endswith("_scale") and not item.dims


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(quantized, "_multiplies_exactly", lambda: True)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("amp", [False, True])
def test_close_to_float32(folder, amp):
    scan = make_scan(1, 1, 21, 18, 5, seed=9, dtype=torch.float32)
    inferer = MultiViewSliceInferer(3, value_range=(0, 1), amp=amp)
    exact, reduced = (
        plain(inferer(scan, load_weights(network(), folder / "model.pt", engine=engine).eval()))
        for engine in quantized.ENGINES
    )
    assert torch.equal(reduced[..., ::3], plain(scan))
    assert 0 < (reduced - exact).square().mean().sqrt() < 0.05 * (exact - exact.mean()).square().mean().sqrt()


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"engine": "onnx"}, "engine.*'onnx'.*onnx-int8"),
        ({"device": "cuda"}, "computes on the CPU, not on cuda; expected --device cpu"),
        ({"network": nn.Linear(1, 1)}, "not made for Linear; expected SAINT, or engine torch"),
        ({"weights": "other.pt"}, r"other_int8_ami\.onnx: no such file; .*quantize\.json makes it of .*other\.pt"),
        ({"shipped": {"model_int8_ami.onnx": {"sha256": "0" * 64}}}, r"model_int8_ami\.onnx: is not the file that"),
    ],
)
def test_refused(folder, change, match):
    options = {"network": network(), "engine": "onnx-int8", "weights": "model.pt", **change}
    options["weights"] = folder / options["weights"]
    with pytest.raises(ValueError, match=match):
        quantized.use_engine(**options)


@pytest.mark.usefixtures("fast")
def test_parts_of_other_weights_and_damaged_ones(folder, tmp_path):
    (tmp_path / "model.pt").write_bytes((folder / "other.pt").read_bytes())
    part = tmp_path / "model_int8_ami.onnx"
    part.write_bytes((folder / part.name).read_bytes())
    with pytest.raises(ValueError, match=r"model_int8_ami\.onnx: was not made from .*model\.pt"):
        quantized.use_engine(network(), "onnx-int8", tmp_path / "model.pt")
    part.write_bytes(b"\x08\x08" * 99)
    with pytest.raises(ValueError, match=r"model_int8_ami\.onnx: is not a graph that ONNX Runtime can run"):
        quantized.use_engine(network(), "onnx-int8", tmp_path / "model.pt")


def test_what_is_missing_is_told(folder, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "avx2": True})
    with pytest.raises(ValueError, match="needs a processor with VNNI instructions"):
        quantized.use_engine(network(), "onnx-int8", folder / "model.pt")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "aarch64"})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r'pip install "monai_sliceinterp\[onnx\]"'):
        quantized.use_engine(network(), "onnx-int8", folder / "model.pt")


def test_fusion_in_3d(tmp_path):
    with pytest.raises(ValueError, match=r"fusion in 3D are not quantized; expected one of two-dimensional layers\.$"):
        quantize(make_saint(spatial_dims=3), [], MultiViewSliceInferer(2), tmp_path / "model.pt", tmp_path)


def test_nothing_to_calibrate_on(tmp_path):
    with pytest.raises(ValueError, match="nothing to calibrate on"):
        quantize(network(), [], MultiViewSliceInferer(2), tmp_path / "model.pt", tmp_path)
