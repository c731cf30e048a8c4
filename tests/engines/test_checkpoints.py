# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from monai_sliceinterp.engines import check_checkpoint, load_weights
from monai_sliceinterp.networks.nets import ASIAutoencoder


def build(seed=0, **kwargs):
    torch.manual_seed(seed)
    return ASIAutoencoder(**{"channels": (2, 3), "latent_channels": 4, **kwargs})


STATE = build().state_dict()
FIRST, *_, LAST = STATE


def same(first, second):
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


class TestLoadWeights:
    @pytest.mark.parametrize("wrap", [None, "network", "network_def", "model"])
    def test_loads(self, tmp_path, wrap):
        source, target = build(0), build(1)
        assert not same(source, target)
        state = source.state_dict()
        extra = {"optimizer": {"lr": 0.1}, "trainer": {"epoch": 3}}
        torch.save(state if wrap is None else {wrap: state, **extra}, tmp_path / "model.pt")
        for path in (tmp_path / "model.pt", str(tmp_path / "model.pt")):
            assert load_weights(target, path, torch.device("cpu")) is target
        assert same(source, target)

    def check(self, path, named):
        network = build(1)
        before = {key: value.clone() for key, value in network.state_dict().items()}
        with pytest.raises(ValueError) as caught:
            load_weights(network, path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and "\n" not in message and named in message
        assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())

    def test_missing(self, tmp_path):
        self.check(tmp_path / "no.pt", "no such checkpoint file")
        self.check(tmp_path, "no such checkpoint file")

    @pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
    def test_truncated(self, tmp_path, kept):
        path = tmp_path / "model.pt"
        torch.save(build().state_dict(), path)
        content = path.read_bytes()
        path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
        self.check(path, "not a readable checkpoint")

    def test_flipped_bit(self, tmp_path):
        """torch checks no sums; the weights would be others."""
        torch.save(STATE, tmp_path / "model.pt")
        content = bytearray((tmp_path / "model.pt").read_bytes())
        content[content.index(STATE[FIRST].numpy().tobytes()[:64])] ^= 16
        (tmp_path / "model.pt").write_bytes(content)
        self.check(tmp_path / "model.pt", "not a readable checkpoint")

    @pytest.mark.parametrize("how", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
    def test_malicious_code_is_not_run(self, tmp_path, how):
        class Malicious:
            def __reduce__(self):
                return Path.touch, (tmp_path / "run",)

        how({"network": Malicious()}, tmp_path / "model.pt")
        self.check(tmp_path / "model.pt", "not a readable checkpoint")
        assert not (tmp_path / "run").exists()
        pickle.loads(pickle.dumps(Malicious()))
        assert (tmp_path / "run").exists()  # it would have done harm

    @pytest.mark.parametrize(
        ("content", "named"),
        [
            *(
                (content, "holds no weights of a network; expected a state dict")
                for content in ([1, 2], torch.zeros(3), {"epoch": 3}, {"network": None}, 7)
            ),
            (nn.Linear(2, 2).state_dict(), f"it lacks {FIRST} and {len(STATE) + 1} more differences"),
            (build(latent_channels=5).state_dict(), "of shape (5, 3, 3, 3) instead of (4, 3, 3, 3)"),
            ({**STATE, "head.bias": torch.zeros(1)}, "it has the unknown head.bias."),
            ({key: value for key, value in STATE.items() if key != LAST}, f"it lacks {LAST}."),
            ({**STATE, FIRST: STATE[FIRST].long()}, f"it has {FIRST} of type torch.int64 instead of torch.float32."),
            ({**STATE, FIRST: STATE[FIRST].cfloat()}, f"it has {FIRST} of type torch.complex64"),
            ({**STATE, FIRST: STATE[FIRST] * np.nan}, f"it has {FIRST} with values that are not finite."),
        ],
    )
    def test_other_content(self, tmp_path, content, named):
        torch.save(content, tmp_path / "model.pt")
        self.check(tmp_path / "model.pt", named)


class TestCheckCheckpoint:
    ENTRIES = ("network", "optimizer")

    def test_fits(self, tmp_path):
        network = build(0)
        path = tmp_path / "checkpoint.pt"
        torch.save({"network": network.state_dict(), "optimizer": {}, "trainer": {}}, path)
        assert check_checkpoint(path, build(1), self.ENTRIES) == str(path)
        assert check_checkpoint(str(path), build(1)) == str(path)

    @pytest.mark.parametrize(
        ("content", "named"),
        [
            (None, "no such checkpoint file"),
            (b"text", "not a readable checkpoint"),
            ({"network": {}}, "lacks optimizer; expected a checkpoint that a training has saved"),
            ({"weight": torch.zeros(1)}, "lacks network, optimizer"),
            ([1, 2], "lacks network, optimizer"),
            ({"network": nn.Linear(1, 1).state_dict(), "optimizer": {}}, "is not a checkpoint of ASIAutoencoder"),
        ],
    )
    def test_does_not_fit(self, tmp_path, content, named):
        path = tmp_path / "checkpoint.pt"
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            torch.save(content, path)
        with pytest.raises(ValueError, match=named) as caught:
            check_checkpoint(path, build(), self.ENTRIES)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
