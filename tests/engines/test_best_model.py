# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""The saver of the best weights, BestModelSaver."""

import pytest
import torch
from ignite.engine import Engine
from ignite.metrics import Metric
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine
from torch import nn

from monai_sliceinterp.engines import BestModelSaver
from tests.engines.helpers import Wrapper


class Validation:
    """A validation engine whose key metric follows a list, with the saver attached."""

    def __init__(self, path, state=None):
        self.network = nn.Linear(1, 1)
        self.saver = BestModelSaver(self.network, path)
        if state is not None:
            self.saver.load_state_dict(state)
        self.score = 0.0
        self.path = path
        outer = self

        class Score(Metric):
            def reset(self):
                pass

            def update(self, output):
                pass

            def compute(self):
                return outer.score

        self.engine = SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=[{"image": torch.zeros(1, 1), "label": torch.zeros(1, 1)}],
            network=self.network,
            key_val_metric={"score": Score(from_engine(["pred", "label"]))},
            val_handlers=[self.saver],
        )

    def run(self, epoch, score):
        """Validate weights that hold the number of the epoch; returns the epoch of the file."""
        nn.init.constant_(self.network.weight, epoch)
        self.score = score
        self.engine.run(epoch)
        if not self.path.exists():
            return None
        assert [p.name for p in self.path.parent.iterdir()] == [self.path.name]  # no half file beside it
        return torch.load(self.path, weights_only=True)["weight"].item()


class TestBestModelSaver:
    @pytest.mark.parametrize("offset", [0.0, -100.0])  # the first counts whatever it is
    def test_saves_only_improvements(self, tmp_path, offset):
        validation = Validation(tmp_path / "new" / "model.pt")
        scores = [20.0, 19.0, 21.0, 21.0, 20.5, 22.0]
        assert [validation.run(k, score + offset) for k, score in enumerate(scores, 1)] == [1, 1, 3, 3, 3, 6]
        state = validation.saver.state_dict()
        assert state.pop("weights")["weight"].item() == 6
        assert state == {"best_metric": 22.0 + offset, "best_metric_epoch": 6}

    def test_best_weights_go_along_to_another_folder(self, tmp_path):
        validation = Validation(tmp_path / "model.pt")
        validation.run(1, 20.0)
        other = BestModelSaver(nn.Linear(1, 1), tmp_path / "other" / "model.pt")
        other.load_state_dict(validation.saver.state_dict())
        assert torch.load(other.path, weights_only=True)["weight"].item() == 1
        # a file that is there already belongs to the training that is resumed
        torch.save({}, other.path)
        other.load_state_dict(validation.saver.state_dict())
        assert torch.load(other.path, weights_only=True) == {}

    def test_resume_keeps_the_best(self, tmp_path):
        first = Validation(tmp_path / "model.pt")
        assert [first.run(1, 20.0), first.run(2, 25.0), first.run(3, 22.0)] == [1, 2, 2]
        state = first.saver.state_dict()
        resumed = Validation(tmp_path / "model.pt", state)
        assert [resumed.run(4, 24.0), resumed.run(5, 24.5), resumed.run(6, 26.0)] == [2, 2, 6]
        # without its state a worse model would replace it
        assert Validation(tmp_path / "model.pt").run(7, 10.0) == 7

    def test_wrapper_is_taken_off(self, tmp_path):
        network = nn.Linear(2, 1)
        saver = BestModelSaver(Wrapper(network), tmp_path / "model.pt")
        engine = Engine(lambda engine, batch: None)
        engine.state.best_metric, engine.state.best_metric_epoch = 1.0, 1
        saver(engine)
        assert set(torch.load(tmp_path / "model.pt", weights_only=True)) == {"weight", "bias"}

    def test_failure_leaves_the_old_file(self, tmp_path, monkeypatch):
        validation = Validation(tmp_path / "model.pt")
        validation.run(1, 1.0)
        before = (tmp_path / "model.pt").read_bytes()

        def fail(state, file):
            file.write(b"half")
            raise OSError("no space left")

        monkeypatch.setattr(torch, "save", fail)
        with pytest.raises(OSError, match="no space"):
            validation.run(2, 2.0)
        assert (tmp_path / "model.pt").read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]
