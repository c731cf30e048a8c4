# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Run bundles as their documentation says, from subprocesses; and check what all bundles share."""

import csv
import functools
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = ROOT / "bundles"
LIMIT = 3600  # seconds after which a process hangs, however busy the machine is


@dataclass(frozen=True)
class Command:
    """``python -m monai.bundle run --config_file <config> <options>`` in ``cwd``; several processes by torchrun."""

    config: str | Sequence[str]
    options: Mapping[str, object]
    cwd: Path = ROOT
    processes: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def arguments(self):
        """What follows ``python -m monai.bundle``."""
        config = self.config if isinstance(self.config, str) else repr(list(self.config))
        arguments = ["run", "--config_file", config]
        for name, value in self.options.items():
            arguments += [f"--{name}", str(value)]
        return arguments

    def start(self):
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(self.processes))
        arguments = [sys.executable, *(launcher if self.processes > 1 else ()), "-m", "monai.bundle", *self.arguments]
        environment = {**_environment(), **self.environment}
        pipe = subprocess.PIPE
        return subprocess.Popen(arguments, cwd=self.cwd, env=environment, stdout=pipe, stderr=pipe, encoding="utf-8")


def _environment():
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("PYTHONPATH", None)
    return environment


def bundle_command(bundle, config, overlays, options):
    """A command in the root of the repository; two underscores in an option stand for the # of a key."""
    paths = [f"bundles/{bundle}/{name}.json" for name in (config, *overlays)]
    given = {name.replace("__", "#"): value for name, value in options.items()}
    return Command(paths if overlays else paths[0], given)


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def error_lines(self):
        return [line for line in re.split(r"[\r\n]+", self.stderr) if "error:" in line.lower()]

    @property
    def failed_lines(self):
        return [line for line in re.split(r"[\r\n]+", self.stderr) if "failed:" in line and "error:" not in line]

    def check_success(self):
        assert self.status == 0, self.stdout[-2000:] + self.stderr[-4000:]
        assert "Traceback" not in self.stdout + self.stderr and not self.error_lines

    def check_error(self, *parts, failed=0):
        """One line that names what is wrong, beside one for every scan that failed."""
        shown = self.stdout[-1000:] + self.stderr[-3000:]
        assert self.status == 1, shown
        assert "Traceback" not in self.stdout + self.stderr, shown
        assert len(self.error_lines) == 1 and self.error_lines[0].startswith("error: "), shown
        assert len(self.failed_lines) == failed, shown
        for part in parts:
            assert part in self.error_lines[0], f"{part!r} is not in {self.error_lines[0]!r}"


def run(command):
    process = command.start()
    try:
        stdout, stderr = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    return Result(process.returncode, stdout, stderr)


# Imports what commands import, then becomes a process of its own for each command and runs it as ``python -m`` does. Of
# several processes of one command, the others end with the first that fails, as torchrun has it.
_FORKING = """
import gc, inspect, json, os, runpy, signal, socket, sys
import fire, monai.bundle, monai_sliceinterp.evaluation, torch._dynamo, torch.onnx, torch.utils.tensorboard
inspect.stack()  # Fire asks for it, and the first answer takes a second
gc.freeze()  # else every child copies all of it when it collects garbage
child = None
for line in sys.stdin:
    arguments, outputs, cwd, processes, environment = json.loads(line)
    if processes > 1:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    children = set()
    for rank in range(processes):
        child = os.fork()
        if not child:
            break
        children.add(child)
    if not child:
        break
    status = 0
    while children:
        ended, how = os.wait()
        children.remove(ended)
        if how and not status:
            status = os.waitstatus_to_exitcode(how)
            for other in children:
                os.kill(other, signal.SIGKILL)
    print(status, flush=True)
if child == 0:
    for number, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(cwd)
    os.environ.update(environment, **({"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}))
    signal.alarm(3600)
    sys.argv = ["monai.bundle", *arguments]
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
"""


@functools.cache
def _forking_process():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8", "bufsize": 1}
    return subprocess.Popen([sys.executable, "-c", _FORKING], cwd=ROOT, env=_environment(), **pipes)


def run_forked(commands):
    """Run commands in processes forked from one that has imported everything: seconds faster for each than :func:`run`.

    They share what it has imported, so that ``PYTHONPATH`` does nothing.
    """
    if not hasattr(os, "fork"):  # Windows
        return {name: run(command) for name, command in commands.items()}
    server, results = _forking_process(), {}
    for name, command in commands.items():
        assert "PYTHONPATH" not in command.environment
        with tempfile.TemporaryDirectory() as folder:
            outputs = [Path(folder) / "stdout", Path(folder) / "stderr"]
            how = [str(command.cwd), command.processes, dict(command.environment)]
            print(json.dumps([command.arguments, list(map(str, outputs)), *how]), file=server.stdin, flush=True)
            status = int(server.stdout.readline())
            results[name] = Result(status, *(path.read_bytes().decode() for path in outputs))
    return results


def filled(options, **places):
    """Options with ``{name}`` in their texts replaced, without those that are None."""
    given = {key: value for key, value in options.items() if value is not None}
    return {key: value.format(**places) if isinstance(value, str) else value for key, value in given.items()}


def save_scan(path, shape=(20, 24, 6), dtype=np.int16, spacing=(1.0, 1.0, 4.0), seed=0):
    """Write a smooth random volume, 4D where the shape is."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij", sparse=True)
    array = sum(np.sin(rng.uniform(2, 9) * axis + rng.uniform(0, 6)) for axis in grid)
    array = (array - array.min()) * 60.0 + rng.random(shape)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-31.5, 12.25, 7.0)
    return save(path, array.astype(dtype), affine)


def diagonal(*steps):
    """Affine of a stack along the axes of the scanner."""
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = (-31.5, 112.25, -640.0)
    return affine


def tilted(*steps):
    """Affine of a stack tilted twice."""
    affine = diagonal(*steps)
    affine[:3, :3] = Rotation.from_euler("ZX", [0.3, -0.2]).as_matrix() * steps
    return affine


def body(shape, seed):
    """Something like a scan in HU: air around, tissue, bone; different from slice to slice."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:3]), indexing="ij", sparse=True)
    radius = np.sqrt(sum(axis**2 for axis in grid))
    values = np.where(radius < 1.1, 40.0 + 400 * np.sin(5 * grid[0] + 3 * grid[1] + 2 * grid[2]), -1000.0)
    if len(shape) == 4:
        values = values[..., None] * np.linspace(1, 0.8, shape[3])
    return (values + rng.normal(0, 15, shape)).round().astype(np.int16)


def save(path, values, affine):
    """Write voxels as they are, with a spacing in mm, and frames 0.04 s apart."""
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm", "sec")
    if values.ndim == 4:
        image.header["pixdim"][4] = 0.04
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def save_piece(path, name, count):
    """Write ``count`` slices of 41 x 36 pixels of a thick open scan; returns voxels, affine and slice axis."""
    source = nib.load(Path(os.environ["SLICEINTERP_DATA"]) / "ct" / f"{name}.nii.gz")
    zooms = source.header.get_zooms()
    axis = int(np.argmax(zooms))
    sizes = [count if k == axis else 41 if k == (axis + 1) % 3 else 36 for k in range(3)]
    piece = source.slicer[tuple(slice(n // 2, n // 2 + size) for n, size in zip(source.shape, sizes, strict=True))]
    values = np.asarray(piece.dataobj)
    assert values.dtype == np.int16 and values.shape == tuple(sizes) and zooms[axis] > 2
    save(path, values, piece.affine)
    return values, piece.affine, axis


def voxels(path):
    """Voxels in the type in which they are stored."""
    return np.asarray(nib.load(path).dataobj)


def scan_of(path):
    """Voxels and affine of a file."""
    return voxels(path), nib.load(path).affine


def scaled(values, affine, axis, window):
    """A scan ``(1, 1, H, W, N)`` with its slices last, as a bundle hands it to the inferer."""
    order = [k for k in range(3) if k != axis] + [axis]
    lowest, highest = window
    unit = (np.asarray(values, np.float64).transpose(order) - lowest) / (highest - lowest)
    return MetaTensor(torch.tensor(unit, dtype=torch.float32)[None, None], affine=torch.tensor(affine[:, [*order, 3]]))


def unscaled(volume, axis, window):
    """The inverse of :func:`scaled`: what an inferer gives, in HU and in the axis order of the file."""
    lowest, highest = window
    return np.moveaxis(volume[0, 0].numpy().astype(np.float64) * (highest - lowest) + lowest, -1, axis)


def frames(values):
    """The volumes of a 4D scan; else the scan."""
    return [values[..., k] for k in range(values.shape[3])] if values.ndim == 4 else [values]


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def check_grid(path, values, affine, factor, axis):
    """Type, size, affine and origin are right for a scan; returns the voxels."""
    image = nib.load(path)
    found = np.asarray(image.dataobj)
    expected = affine.copy()
    expected[:3, axis] /= factor
    shape = list(values.shape)
    shape[axis] = factor * (shape[axis] - 1) + 1
    assert found.shape == tuple(shape) and found.dtype == values.dtype
    assert image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_array_equal(image.affine, expected.astype(np.float32))
    np.testing.assert_allclose(image.header.get_zooms()[:3], np.linalg.norm(expected[:3, :3], axis=0), rtol=1e-6)
    assert np.isfinite(found).all() and found.std() > 0
    return found


def check_output(path, values, affine, factor, axis):
    """Type, size and geometry are right, and the observed slices are the scan's, bit for bit; returns the voxels."""
    found = check_grid(path, values, affine, factor, axis)
    observed = np.moveaxis(found, axis, 0)[::factor]
    assert observed.tobytes() == np.moveaxis(values, axis, 0).tobytes()
    return found


def state(path, entry=""):
    """What a checkpoint holds."""
    loaded = torch.load(path, weights_only=True)
    return loaded[entry] if entry else loaded


def different_keys(first, second):
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


def assert_identical(first, second):
    assert not different_keys(first, second)


def moments(optimizer):
    """What an optimizer remembers of every weight."""
    return {f"{k} {name}": value for k, entry in optimizer["state"].items() for name, value in entry.items()}


def statistics(weights):
    """What batch normalization remembers."""
    result = {key: value for key, value in weights.items() if "running_" in key or "num_batches" in key}
    assert result
    return result


def parameters(network):
    return sum(value.numel() for value in network.parameters())


def events_of(folder):
    """Every scalar that TensorBoard shows, and the names of its images."""
    scalars = {}
    images = set()
    for path in folder.glob("events.out.tfevents*"):
        events = EventAccumulator(str(path)).Reload()
        scalars.update({tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]})
        images.update(events.Tags()["images"])
    return scalars, images


def writers_of(folder, tag):
    """How many processes tell TensorBoard of a scalar."""
    files = [EventAccumulator(str(path)).Reload() for path in folder.glob("events.out.tfevents*")]
    return sum(tag in file.Tags()["scalars"] for file in files)


def files_of(folder):
    """Files below a folder, without those of TensorBoard."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("events.out.tfevents")]
    return {path.relative_to(folder).as_posix() for path in found}


def table_rows(text):
    """Cells of the tables that end a run, heads first."""
    lines = [line for line in text.splitlines() if line.startswith("|") and " --- " not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def check_table(result, methods, protocols, count, tables=1):
    """The run ends with tables of every method on every protocol, on ``count`` volumes."""
    rows = table_rows(result.stdout)
    assert len(rows) == tables * (1 + len(protocols))
    for begin in range(0, len(rows), 1 + len(protocols)):
        head, *body = rows[begin : begin + 1 + len(protocols)]
        assert head == ["group", "protocol", "n", *methods, "gain", "wins", "p"]
        assert [row[1] for row in body] == list(protocols)
        for row in body:
            assert row[2] == str(count)
            for cell in row[3 : 3 + len(methods)]:
                psnr, ssim = (float(number) for number in cell.split(" / "))
                assert 0 < psnr < 100 and -1 <= ssim <= 1


def scores_of(folder):
    with (folder / "scores.csv").open() as file:
        return list(csv.DictReader(file))


def check_scores(folder, result, columns, protocols, count=1):
    """The tables on the screen are those in the file, and their numbers the means of the rows of ``scores.csv``."""
    check_table(result, columns, protocols, count, tables=2)
    assert (folder / "scores.md").read_text().strip() in result.stdout
    assert "inside the body:" in result.stdout
    scores = scores_of(folder)
    assert len(scores) == len(columns) * len(protocols) * count
    assert all(row[key] != row[f"{key}_body"] for row in scores for key in ("psnr", "ssim"))
    tables = table_rows(result.stdout)
    size = 1 + len(protocols)
    for suffix, table in (("", tables[:size]), ("_body", tables[size:])):
        for line in table[1:]:
            for method, cell in zip(columns, line[3:], strict=False):
                rows = [row for row in scores if row["protocol"] == line[1] and row["method"] == method]
                assert len(rows) == count and all(row["group"] == line[0] for row in rows)
                means = [float(np.mean([float(row[key + suffix]) for row in rows])) for key in ("psnr", "ssim")]
                assert all(math.isfinite(mean) for mean in means)
                assert cell == f"{means[0]:.2f} / {means[1]:.4f}"


def content(bundle, name):
    return json.loads((BUNDLES / bundle / f"{name}.json").read_text())


def parser_of(bundle, *configs, **options):
    """The configuration of a command on a CPU, to look at its parts; see :func:`bundle_command` for the options."""
    parser = ConfigParser()
    parser.read_config([BUNDLES / bundle / f"{name}.json" for name in configs])
    for name, value in {"device": torch.device("cpu"), **options}.items():
        parser[name.replace("__", "#")] = value
    return parser


INFERENCE_OVERLAYS = ("adapt", "quantize")


def overlays_of(bundle):
    """Those over a training; those in ``INFERENCE_OVERLAYS`` lie over inference."""
    own = {"train", "inference", "multi_gpu_inference", "metadata", *INFERENCE_OVERLAYS}
    return sorted(path.stem for path in (BUNDLES / bundle).glob("*.json") if path.stem not in own)
