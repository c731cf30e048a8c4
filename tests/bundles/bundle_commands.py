"""Run bundles as their documentation says: from a subprocess, two at a time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Command:
    """``python -m monai.bundle run --config_file <config> <options>``, started in ``cwd``."""

    config: str | Sequence[str]
    options: Mapping[str, object]
    cwd: Path = ROOT
    launcher: tuple[str, ...] = ()
    python_path: str = ""

    def start(self) -> subprocess.Popen[str]:
        config = self.config if isinstance(self.config, str) else repr(list(self.config))
        arguments = [sys.executable, *self.launcher, "-m", "monai.bundle", "run", "--config_file", config]
        for name, value in self.options.items():
            arguments += [f"--{name}", str(value)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        environment.pop("PYTHONPATH", None)
        if self.python_path:
            environment["PYTHONPATH"] = self.python_path
        pipe = subprocess.PIPE
        return subprocess.Popen(arguments, cwd=self.cwd, env=environment, stdout=pipe, stderr=pipe, text=True)


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def error_lines(self) -> list[str]:
        return [line for line in re.split(r"[\r\n]+", self.stderr) if "error:" in line.lower()]

    @property
    def failed_lines(self) -> list[str]:
        return [line for line in re.split(r"[\r\n]+", self.stderr) if "failed:" in line and "error:" not in line]

    def check_success(self) -> None:
        assert self.status == 0, self.stdout[-2000:] + self.stderr[-4000:]
        assert "Traceback" not in self.stdout + self.stderr and not self.error_lines

    def check_error(self, *parts: str, failed: int = 0) -> None:
        """One line that names what is wrong, beside one for every scan that failed."""
        shown = self.stdout[-1000:] + self.stderr[-3000:]
        assert self.status == 1, shown
        assert "Traceback" not in self.stdout + self.stderr, shown
        assert len(self.error_lines) == 1 and self.error_lines[0].startswith("error: "), shown
        assert len(self.failed_lines) == failed, shown
        for part in parts:
            assert part in self.error_lines[0], f"{part!r} is not in {self.error_lines[0]!r}"


def run(command: Command) -> Result:
    process = command.start()
    try:
        stdout, stderr = process.communicate(timeout=200)
    finally:
        process.kill()
    return Result(process.returncode, stdout, stderr)


def run_all(commands: Sequence[Command]) -> list[Result]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, commands))


def save_scan(
    path: Path,
    shape: Sequence[int] = (20, 24, 6),
    dtype: type = np.int16,
    spacing: Sequence[float] = (1.0, 1.0, 4.0),
    seed: int = 0,
) -> Path:
    """Write a smooth random volume, 4D where the shape is."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij", sparse=True)
    array = sum(np.sin(rng.uniform(2, 9) * axis + rng.uniform(0, 6)) for axis in grid)
    array = (array - array.min()) * 60.0 + rng.random(shape)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-31.5, 12.25, 7.0)
    image = nib.Nifti1Image(array.astype(dtype), affine)
    image.header.set_xyzt_units("mm", "sec")
    if len(shape) == 4:
        image.header["pixdim"][4] = 0.04
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path
