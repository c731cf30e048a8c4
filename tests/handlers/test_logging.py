# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""What trainings show and log."""

from __future__ import annotations

import logging

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from monai_sliceinterp.handlers import SynthesizedSliceScore, TrainingLogHandler, ValidationLogHandler
from monai_sliceinterp.inferers import MixedPrecisionInferer
from monai_sliceinterp.metrics import SynthesizedSliceMetric
from tests.bundles.bundle_commands import events_of


@pytest.mark.parametrize(
    ("losses", "tags"), [({"loss": 2.0}, ["train_loss"]), ({"loss": 2.0, "content": 1.5}, ["content", "loss"])]
)
def test_training(losses, tags, tmp_path, capsys):
    """One loss is called what it is, several have their names; images and numbers of Python are no losses."""
    output = {"image": torch.ones(2, 3), "count": 3, **{name: torch.tensor(value) for name, value in losses.items()}}
    trainer = Engine(lambda engine, batch: output)
    TrainingLogHandler(str(tmp_path), "AMI").attach(trainer)
    trainer.run([0, 1, 2], max_epochs=2)
    scalars, _ = events_of(tmp_path)
    assert sorted(scalars) == tags and all(len(values) == 6 for values in scalars.values())
    assert "AMI" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("amp", "told"), [(True, "networks compute in bfloat16; --amp false: in float32"), (False, "")]
)
@pytest.mark.parametrize("by_inferer", [False, True])
def test_precision(amp, told, by_inferer, tmp_path, caplog):
    trainer = Engine(lambda engine, batch: {"loss": torch.tensor(1.0)})
    trainer.network_amp = amp != by_inferer  # an inferer's counts, if it has one
    if by_inferer:
        trainer.inferer = MixedPrecisionInferer(amp)
    TrainingLogHandler(str(tmp_path)).attach(trainer)
    with caplog.at_level(logging.INFO):
        trainer.run([0])
    assert [line.message for line in caplog.records if "compute" in line.message] == ([told] if told else [])


def test_validation(tmp_path, capsys, caplog):
    """Scores go to the console under the name, and to TensorBoard with a strip of slices beside their truth."""
    thin = MetaTensor(0.5 * torch.rand(1, 16, 16, 5))
    evaluator = Engine(lambda engine, batch: [{"pred": thin + 0.1, "label": thin}])
    SynthesizedSliceScore("psnr", factor=2).attach(evaluator, "val_psnr")
    ValidationLogHandler(str(tmp_path), "validate AMI").attach(evaluator)
    with caplog.at_level(logging.INFO, "validate AMI"):
        evaluator.run([[{"image": thin[..., ::2], "label": thin}]])
    assert "val_psnr: 20.0" in capsys.readouterr().out + caplog.text  # where a logger of that name writes
    scalars, images = events_of(tmp_path)
    assert scalars["val_psnr"] == [pytest.approx(20.0, abs=1e-3)] and images


def test_error_in_a_validation(tmp_path, capsys, caplog):
    """It is raised, and logged by nobody but ignite."""
    evaluator = Engine(lambda engine, batch: 1 / 0)
    ValidationLogHandler(str(tmp_path), "validate AMI").attach(evaluator)
    with caplog.at_level(logging.DEBUG), pytest.raises(ZeroDivisionError, match="^division by zero$"):
        evaluator.run([0])
    assert "division" not in capsys.readouterr().out  # where a logger of that name writes
    assert {record.name for record in caplog.records if record.levelno >= logging.ERROR} <= {evaluator.logger.name}


@pytest.mark.parametrize("include", [False, True])
def test_score_of_slices(include):
    truth = torch.rand(1, 12, 12, 5)
    pred = truth + torch.tensor([0.0, 0.1, 0.0, 0.2, 0.0])
    engine = Engine(lambda engine, batch: [{"pred": pred, "label": truth}])
    SynthesizedSliceScore("psnr", factor=2, include_observed=include).attach(engine, "score")
    metric = SynthesizedSliceMetric("psnr", 2, include_observed=include)
    metric(pred[None], truth[None])
    assert engine.run([0]).metrics["score"] == pytest.approx(float(metric.aggregate()))
