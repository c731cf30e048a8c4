# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""The rotation toy of benchmarks/, with few digits and one epoch."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

FILE = Path(__file__).parents[1] / "benchmarks" / "rotation_toy.py"


@pytest.fixture(scope="module")
def toy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rotation_toy", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_rotation(toy: ModuleType) -> None:
    images = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(toy.rotate(images, 90.0), torch.rot90(images, 1, (2, 3)), atol=1e-4, rtol=0)
    each = toy.rotate(images, torch.tensor([0.0, 180.0, -90.0]))
    expected = torch.stack([torch.rot90(image, turns, (1, 2)) for image, turns in zip(images, (0, 2, 3), strict=True)])
    torch.testing.assert_close(each, expected, atol=1e-4, rtol=0)


def test_digits(toy: ModuleType) -> None:
    training, test = toy.load_images()
    assert (training.shape, test.shape) == ((1437, 1, 32, 32), (360, 1, 32, 32))
    assert training.min() >= 0 and training.max() <= 1
    assert (training[..., :4].max(), training[..., -4:].max()) == (0, 0), "a margin for what is turned"
    assert not {image.numpy().tobytes() for image in test} <= {image.numpy().tobytes() for image in training}


def test_batches(toy: ModuleType) -> None:
    digits = toy.load_images()[0][:40]
    torch.manual_seed(0)
    (batch,) = toy.RotatedBatches(digits)
    assert batch["image"].shape == (32, 2, 32, 32) and batch["label"].shape == (32, 1, 32, 32)
    turned = toy.rotate(batch["label"], torch.full((32,), toy.NEIGHBOR))
    # turned twice by bicubic interpolation, or once: nearly the same
    assert (turned - batch["image"][:, :1]).abs().mean() < 0.25 * (turned - batch["image"][:, 1:]).abs().mean()


def test_the_whole(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training, test = toy.load_images()
    monkeypatch.setattr(toy, "load_images", lambda: (training[:32], test[:25]))
    monkeypatch.setattr(toy, "CHANNELS", (4, 4))
    toy.main(epochs=1, output=tmp_path / "toy.png")
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in table] == ["method", "---", "pixel blend", "VAE", "ACAI", "ASI"]
    assert (tmp_path / "toy.png").stat().st_size > 10_000
