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

"""Inference of the bundle saint, from the command line."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_commands import (
    Command,
    Result,
    body,
    bundle_command,
    check_output,
    diagonal,
    filled,
    frames,
    names,
    parser_of,
    run,
    run_forked,
    save,
    save_piece,
    scaled,
    tilted,
    unscaled,
    voxels,
)

from monai_sliceinterp.inferers import MultiViewSliceInferer
from monai_sliceinterp.networks.nets import SAINT

WINDOW = (-1024.0, 2976.0)  # HU


# All have slices 5 mm apart. Name: shape, affine, slice axis.
GOOD = {
    "axial": ((20, 24, 5), tilted(0.75, 0.75, 5.0), 2),
    "flipped": ((17, 33, 4), diagonal(-0.75, -0.5, 5.0), 2),
    "downwards": ((14, 13, 4), diagonal(0.75, 0.75, -5.0), 2),
    "sagittal": ((4, 22, 19), diagonal(5.0, -0.75, 0.8), 0),
    "coronal": ((15, 4, 21), tilted(0.75, 5.0, 0.9), 1),
    "cine": ((14, 16, 3, 2), diagonal(1.0, 1.0, 5.0), 2),
    "two": ((31, 12, 2), diagonal(0.75, 0.75, 5.0), 2),
    "metal": ((16, 18, 4), diagonal(0.75, 0.75, 5.0), 2),
    "clipped": ((16, 18, 4), diagonal(0.75, 0.75, 5.0), 2),  # metal, limited to the window
}


def infer(weights: Path, source: object, output_dir: Path, *overlays: str, **options: object) -> Command:
    given = {"ckpt": weights, "input": source, "output_dir": output_dir, **options}
    return bundle_command("saint", "inference", overlays or ("small",), given)


@pytest.fixture(scope="module")
def network(saint_weights: Path) -> SAINT:
    network = parser_of("saint", "small").get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(saint_weights, weights_only=True))
    return network


@pytest.fixture(scope="module")
def outputs(saint_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    """Folder with the inputs, and what became of them."""
    root = tmp_path_factory.mktemp("inference")
    scans = root / "scans"
    for seed, (name, (shape, affine, _)) in enumerate(GOOD.items()):
        values = body(shape, seed)
        if name in ("metal", "clipped"):
            values = body(shape, seed=99)
            values[3:9, 4:9, 1:3] = 3071
            values[12:, :, :] = -2000
            values[:, 14:, 2] = -2000
            values = values.clip(-1024, 2976) if name == "clipped" else values
        save(scans / f"{name}.nii.gz", values, affine)
    (scans / "broken.nii.gz").write_text("this is no image")
    files = [str(scans / f"{name}.nii.gz") for name in GOOD]
    axial, flipped = files[0], files[1]
    commands = {
        "folder": infer(saint_weights, scans, root / "folder", factor=4),
        "spacing": infer(saint_weights, files, root / "spacing", spacing=1.25, disagreement="true"),
        "one_by_one": infer(
            saint_weights, [axial, flipped], root / "one_by_one", factor=4, batch_size=1, keep_observed="false"
        ),
        "mean": infer(saint_weights, axial, root / "mean", fuse="false", progress="False"),
    }
    return root, run_forked(commands)


def test_folder_with_a_broken_file(outputs: tuple[Path, dict[str, Result]]) -> None:
    """The others are done."""
    root, results = outputs
    results["folder"].check_error("1 of 10 inputs failed", str(root / "scans" / "broken.nii.gz"), failed=1)
    assert names(root / "folder") == sorted(f"{name}_interp.nii.gz" for name in GOOD)
    assert f"[10/10] {root / 'scans' / 'two.nii.gz'} -> " in results["folder"].stdout


@pytest.mark.parametrize("name", GOOD)
def test_type_axis_and_affine(name: str, outputs: tuple[Path, dict[str, Result]]) -> None:
    root, _ = outputs
    _, affine, axis = GOOD[name]
    values = voxels(root / "scans" / f"{name}.nii.gz")
    assert values.dtype == np.int16
    check_output(root / "folder" / f"{name}_interp.nii.gz", values, affine, 4, axis)
    found = np.moveaxis(voxels(root / "folder" / f"{name}_interp.nii.gz"), axis, 0)
    observed = np.moveaxis(values, axis, 0).astype(np.float64)
    between = np.repeat(observed[:-1], 4, axis=0), np.repeat(observed[1:], 4, axis=0)
    weight = np.tile(np.arange(4) / 4, len(observed) - 1).reshape(-1, *[1] * (found.ndim - 1))
    linear = (1 - weight) * between[0] + weight * between[1]
    # HU: untrained, the network stays near to what it refines
    assert np.sqrt(np.mean((found[:-1] - linear) ** 2)) < 150


@pytest.mark.parametrize("name", GOOD)
def test_factor_equals_spacing(name: str, outputs: tuple[Path, dict[str, Result]]) -> None:
    """Bit for bit; and to keep the views' disagreement changes nothing."""
    root, results = outputs
    results["spacing"].check_success()
    by_factor, by_spacing = (nib.load(root / how / f"{name}_interp.nii.gz") for how in ("folder", "spacing"))
    np.testing.assert_array_equal(np.asarray(by_factor.dataobj), np.asarray(by_spacing.dataobj))
    np.testing.assert_array_equal(by_factor.affine, by_spacing.affine)
    assert by_factor.header.get_zooms() == by_spacing.header.get_zooms()


def test_intensities_beyond_the_window(outputs: tuple[Path, dict[str, Result]]) -> None:
    """Their excess is interpolated linearly and added to what the clipped scan gives."""
    root, _ = outputs
    metal, clipped = (voxels(root / "scans" / f"{name}.nii.gz").astype(np.float64) for name in ("metal", "clipped"))
    excess = metal - clipped
    assert excess.max() == 95 and excess.min() == -976
    expected = voxels(root / "folder" / "clipped_interp.nii.gz").astype(np.float64)
    for index in range(13):
        lower = min(index // 4, 2)
        weight = index / 4 - lower
        expected[..., index] += (1 - weight) * excess[..., lower] + weight * excess[..., lower + 1]
    found = voxels(root / "folder" / "metal_interp.nii.gz")
    assert np.abs(found - expected).max() <= 1  # rounded once, and twice
    assert found.max() == 3071 and found.min() == -2000


@pytest.mark.parametrize("name", GOOD)
def test_disagreement(name: str, network: SAINT, outputs: tuple[Path, dict[str, Result]]) -> None:
    """Half the difference of the two views in HU, in the axis order and at the places of the output."""
    root, _ = outputs
    _, affine, axis = GOOD[name]
    image, interpolated = (nib.load(root / "spacing" / f"{name}_{end}.nii.gz") for end in ("disagreement", "interp"))
    found = np.asarray(image.dataobj)
    assert found.dtype == np.float32 and found.shape == interpolated.shape
    np.testing.assert_array_equal(image.affine, interpolated.affine)
    assert image.header.get_zooms() == interpolated.header.get_zooms()
    values = voxels(root / "scans" / f"{name}.nii.gz").clip(*WINDOW)
    for frame, volume in zip(frames(found), frames(values), strict=True):
        scan = scaled(volume, affine, axis, WINDOW)
        rows, columns = (
            unscaled(MultiViewSliceInferer(4, fuse=False, views=(view,))(scan, network), axis, WINDOW)
            for view in ("rows", "columns")
        )
        np.testing.assert_allclose(frame, 0.5 * np.abs(rows - columns), rtol=0, atol=5e-3)
    along = np.moveaxis(found, axis, 0)
    assert (along[::4] == 0).all()
    assert np.delete(along, np.s_[::4], axis=0).mean() > 0.1


def test_only_what_was_asked_for_is_written(outputs: tuple[Path, dict[str, Result]]) -> None:
    root, _ = outputs
    ends = ("disagreement", "interp")
    assert names(root / "spacing") == sorted(f"{name}_{end}.nii.gz" for name in GOOD for end in ends)
    assert not [name for run in ("folder", "one_by_one", "mean") for name in names(root / run) if ends[0] in name]


@pytest.mark.parametrize("name", ["axial", "flipped"])
def test_batch_size_and_observed_slices(name: str, outputs: tuple[Path, dict[str, Result]]) -> None:
    """The batch does not matter but for rounding; observed slices are not kept where the switch says so in words."""
    root, results = outputs
    results["one_by_one"].check_success()
    assert names(root / "one_by_one") == ["axial_interp.nii.gz", "flipped_interp.nii.gz"]
    kept, found = (nib.load(root / run / f"{name}_interp.nii.gz") for run in ("folder", "one_by_one"))
    np.testing.assert_array_equal(kept.affine, found.affine)
    kept, found = (np.asarray(image.dataobj).astype(int) for image in (kept, found))
    between = np.arange(kept.shape[2]) % 4 != 0
    assert np.abs(kept - found)[..., between].max() <= 1
    assert (kept != found)[..., between].mean() < 0.01
    assert (kept != found)[..., ~between].mean() > 0.5


def test_mean_of_views_and_isotropic(network: SAINT, outputs: tuple[Path, dict[str, Result]]) -> None:
    """Without the fusion; neither factor nor spacing means isotropic."""
    root, results = outputs
    results["mean"].check_success()
    image = nib.load(root / "mean" / "axial_interp.nii.gz")
    found, values = np.asarray(image.dataobj), voxels(root / "scans" / "axial.nii.gz")
    affine = GOOD["axial"][1]
    assert found.shape == (20, 24, 27) and found.dtype == np.int16
    np.testing.assert_allclose(image.header.get_zooms(), 0.75, rtol=1e-6)
    scan = scaled(values, affine, 2, WINDOW)
    mean, fused = (
        unscaled(MultiViewSliceInferer(fuse=fuse, value_range=(0.0, 1.0))(scan, network), 2, WINDOW)
        for fuse in (False, True)
    )
    assert np.abs(found - mean).max() <= 0.51
    assert np.abs(found - fused).max() > 5
    np.testing.assert_array_equal(found[..., [0, 20]], values[..., [0, 3]])  # 0 and 15 mm


WRONG_COMMANDS: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "ckpt_of_another_size": ({"ckpt": "{full}"}, ("{full}", "not a checkpoint of SAINT", "more differences")),
    "disagreement_unclear": ({"disagreement": "maybe"}, ("disagreement must be true or false, got 'maybe'",)),
    "batch_size_negative": ({"batch_size": -1}, ("batch_size", "got -1")),
    "window_empty": ({"window": "[100,100]"}, ("window", "100")),
}


@pytest.fixture(scope="module")
def wrong_commands(
    saint_weights: Path, full_saint_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, object], dict[str, Result]]:
    root = tmp_path_factory.mktemp("wrong")
    save(root / "scan.nii.gz", body((12, 12, 3), 0), diagonal(1, 1, 5))
    places = {"root": root, "full": full_saint_weights}
    commands = {
        name: bundle_command(
            "saint",
            "inference",
            ["small"],
            {
                "ckpt": saint_weights,
                "input": root / "scan.nii.gz",
                "output_dir": root / "out" / name,
                **filled(options, **places),
            },
        )
        for name, (options, _) in WRONG_COMMANDS.items()
    }
    return places, run_forked(commands)


@pytest.mark.parametrize("name", WRONG_COMMANDS)
def test_wrong_commands(name: str, wrong_commands: tuple[dict[str, object], dict[str, Result]]) -> None:
    places, results = wrong_commands
    results[name].check_error(*(text.format(**places) for text in WRONG_COMMANDS[name][1]))
    assert not list(Path(str(places["root"])).rglob("*_interp.nii.gz"))


@pytest.mark.skipif(not os.environ.get("SLICEINTERP_DATA"), reason="real scans: set SLICEINTERP_DATA")
def test_documented_command_on_a_real_scan(tmp_path: Path) -> None:
    """With the shipped weights of the small network, on a piece of a thick scan."""
    scan = save_piece(tmp_path / "piece.nii.gz", "tcga_lihc_bc_a3kf", 8)
    options = {"input": tmp_path / "piece.nii.gz", "factor": 4, "output_dir": tmp_path / "out"}
    run(bundle_command("saint", "inference", ["small"], options)).check_success()
    check_output(tmp_path / "out" / "piece_interp.nii.gz", *scan[:2], 4, scan[2])
