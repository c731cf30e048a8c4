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

"""Inference of the bundle hrinet, from the command line."""

from __future__ import annotations

import json
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
    check_grid,
    check_output,
    diagonal,
    filled,
    mixed_by_pairs,
    names,
    parser_of,
    run_forked,
    save,
    save_piece,
    scan_of,
    tilted,
)

from monai_sliceinterp.networks.nets import HRINetAutoencoder

WINDOW = (-1024.0, 2976.0)  # HU
# All have slices 5 mm apart. Name: shape, affine, slice axis.
GOOD = {
    "axial": ((20, 24, 5), tilted(0.75, 0.75, 5.0), 2),
    "odd": ((17, 33, 4), diagonal(-0.75, -0.5, 5.0), 2),
    "downwards": ((14, 13, 4), diagonal(0.75, 0.75, -5.0), 2),
    "sagittal": ((4, 22, 19), diagonal(5.0, -0.75, 0.8), 0),
    "coronal": ((15, 4, 21), tilted(0.75, 5.0, 0.9), 1),
    "cine": ((14, 16, 3, 2), diagonal(1.0, 1.0, 5.0), 2),
    "two": ((31, 12, 2), diagonal(0.75, 0.75, 5.0), 2),
    "wide": ((70, 66, 3), diagonal(0.75, 0.75, 5.0), 2),  # more than the 64 pixels that slices are padded to
    "long": ((12, 11, 23), diagonal(0.9, 0.9, 5.0), 2),
    "unsigned": ((16, 15, 4), diagonal(0.75, 0.75, 5.0), 2),  # uint16, 1024 above HU
    "metal": ((16, 18, 4), diagonal(0.75, 0.75, 5.0), 2),
}


def infer(weights: Path | str, source: object, output_dir: Path, **options: object) -> Command:
    given = {"ckpt": weights, "input": source, "output_dir": output_dir, **options}
    return bundle_command("hrinet", "inference", (), filled(given))


@pytest.fixture(scope="module")
def network(hrinet_weights: Path) -> HRINetAutoencoder:
    network = parser_of("hrinet", "train").get_parsed_content("network_def")
    network.load_state_dict(torch.load(hrinet_weights, weights_only=True))
    return network


@pytest.fixture(scope="module")
def outputs(hrinet_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    """Folder with the inputs, and what became of them."""
    root = tmp_path_factory.mktemp("inference")
    scans = root / "scans"
    for seed, (name, (shape, affine, _)) in enumerate(GOOD.items()):
        values = body(shape, seed)
        if name == "metal":
            values[3:9, 4:9, 1:3] = 3071
            values[12:, :, :] = -2000
            values[:, 14:, 2] = -2000
        elif name == "unsigned":
            values = (values + 1024).clip(0, 4095).astype(np.uint16)
        save(scans / f"{name}.nii.gz", values, affine)
    (scans / "broken.nii.gz").write_text("this is no image")
    files = [str(scans / f"{name}.nii.gz") for name in GOOD]
    axial, odd = files[0], files[1]
    commands = {
        "folder": infer(hrinet_weights, scans, root / "folder", factor=4),
        "spacing": infer(hrinet_weights, files, root / "spacing", spacing=1.25, progress="false"),
        "restored": infer(
            hrinet_weights, [axial, odd], root / "restored", factor=4, keep_observed="false", batch_size=1
        ),
        "isotropic": infer(hrinet_weights, [axial, odd], root / "isotropic", quality="true"),
        "uneven": infer(hrinet_weights, axial, root / "uneven", spacing=2),
        "axis": infer(hrinet_weights, odd, root / "axis", axis=1, factor=3),
    }
    return root, run_forked(commands)


def test_folder_with_a_broken_file(outputs: tuple[Path, dict[str, Result]]) -> None:
    """The others are done."""
    root, results = outputs
    count = len(GOOD) + 1
    results["folder"].check_error(f"1 of {count} inputs failed", str(root / "scans" / "broken.nii.gz"), failed=1)
    assert names(root / "folder") == sorted(f"{name}_interp.nii.gz" for name in GOOD)
    assert f"[{count}/{count}] {root / 'scans' / 'wide.nii.gz'} -> " in results["folder"].stdout


@pytest.mark.parametrize("name", GOOD)
def test_slices_between(name: str, network: HRINetAutoencoder, outputs: tuple[Path, dict[str, Result]]) -> None:
    """They are what the network makes of each pair, in the input's units, type and axes; the observed ones are kept."""
    root, _ = outputs
    axis = GOOD[name][2]
    values, affine = scan_of(root / "scans" / f"{name}.nii.gz")
    path = root / "folder" / f"{name}_interp.nii.gz"
    found = check_output(path, values, affine, 4, axis)
    assert values.dtype == (np.uint16 if name == "unsigned" else np.int16)
    if values.ndim == 4:
        assert nib.load(path).header.get_zooms()[3] == pytest.approx(0.04)
    positions = np.arange(found.shape[axis]) / 4
    expected = mixed_by_pairs(network, values, affine, axis, positions.tolist(), WINDOW)
    expected = expected.clip(0) if name == "unsigned" else expected
    between = np.moveaxis(expected, axis, 0)[positions % 1 > 0]
    assert np.abs(np.moveaxis(found, axis, 0)[positions % 1 > 0] - between).max() <= 0.51
    assert np.abs(np.diff(between[:3], axis=0)).max() > 1
    if name == "metal":  # what lies outside of the window is not lost
        assert found.max() == 3071 and found.min() == -2000
    else:
        assert between.std() > 10 and np.isin(between, WINDOW).mean() < 0.05  # the network decides, not the window


@pytest.mark.parametrize("name", GOOD)
def test_factor_equals_spacing(name: str, outputs: tuple[Path, dict[str, Result]]) -> None:
    """Bit for bit."""
    root, results = outputs
    results["spacing"].check_success()
    by_factor, by_spacing = (nib.load(root / how / f"{name}_interp.nii.gz") for how in ("folder", "spacing"))
    np.testing.assert_array_equal(np.asarray(by_factor.dataobj), np.asarray(by_spacing.dataobj))
    np.testing.assert_array_equal(by_factor.affine, by_spacing.affine)
    assert by_factor.header.get_zooms() == by_spacing.header.get_zooms()


@pytest.mark.parametrize("name", ["axial", "odd"])
def test_observed_slices_need_not_be_kept(
    name: str, network: HRINetAutoencoder, outputs: tuple[Path, dict[str, Result]]
) -> None:
    """Then they are the network's reconstructions; the number of slices at once matters only for rounding."""
    root, results = outputs
    results["restored"].check_success()
    assert names(root / "restored") == ["axial_interp.nii.gz", "odd_interp.nii.gz"]
    values, affine = scan_of(root / "scans" / f"{name}.nii.gz")
    found = check_grid(root / "restored" / f"{name}_interp.nii.gz", values, affine, 4, 2)
    positions = (np.arange(found.shape[2]) / 4).tolist()
    assert np.abs(found - mixed_by_pairs(network, values, affine, 2, positions, WINDOW)).max() <= 0.51
    assert (found[..., ::4] != values).mean() > 0.5


@pytest.mark.parametrize(("name", "spacing", "count"), [("axial", 0.75, 27), ("odd", 0.5, 31)])
def test_neither_factor_nor_spacing_is_isotropic(
    name: str, spacing: float, count: int, network: HRINetAutoencoder, outputs: tuple[Path, dict[str, Result]]
) -> None:
    """The spacing is the smaller one of the plane; slices that happen to be observed ones are kept."""
    root, results = outputs
    results["isotropic"].check_success()
    values, affine = scan_of(root / "scans" / f"{name}.nii.gz")
    image = nib.load(root / "isotropic" / f"{name}_interp.nii.gz")
    found = np.asarray(image.dataobj)
    assert found.shape == (*values.shape[:2], count) and found.dtype == np.int16
    np.testing.assert_allclose(image.header.get_zooms(), (*nib.affines.voxel_sizes(affine)[:2], spacing), rtol=1e-6)
    np.testing.assert_array_equal(image.affine[:3, 3], affine[:3, 3].astype(np.float32))
    positions = np.arange(count) * spacing / 5.0
    whole = np.isclose(positions % 1, 0) | np.isclose(positions % 1, 1)
    assert whole.sum() == (2 if name == "axial" else 4)
    np.testing.assert_array_equal(found[..., whole], values[..., np.rint(positions[whole]).astype(int)])
    expected = mixed_by_pairs(network, values, affine, 2, positions[~whole].tolist(), WINDOW)
    assert np.abs(found[..., ~whole] - expected).max() <= 0.51


def test_spacing_that_does_not_divide(network: HRINetAutoencoder, outputs: tuple[Path, dict[str, Result]]) -> None:
    """0, 2, ..., 20 mm of 5 slices 5 mm apart; nothing is extrapolated."""
    root, results = outputs
    results["uneven"].check_success()
    values, affine = scan_of(root / "scans" / "axial.nii.gz")
    image = nib.load(root / "uneven" / "axial_interp.nii.gz")
    found, thin = np.asarray(image.dataobj), affine.copy()
    thin[:3, 2] *= 2.0 / 5.0
    assert found.shape == (20, 24, 11) and found.dtype == np.int16
    np.testing.assert_allclose(image.affine, thin, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found[..., ::5], values[..., ::2])  # 0, 10 and 20 mm
    between = [k for k in range(11) if k % 5]
    expected = mixed_by_pairs(network, values, affine, 2, [k * 2 / 5 for k in between], WINDOW)
    assert np.abs(found[..., between] - expected).max() <= 0.51


def test_chosen_axis(network: HRINetAutoencoder, outputs: tuple[Path, dict[str, Result]]) -> None:
    """Another one than that of the largest spacing."""
    root, results = outputs
    results["axis"].check_success()
    values, affine = scan_of(root / "scans" / "odd.nii.gz")
    found = check_output(root / "axis" / "odd_interp.nii.gz", values, affine, 3, 1)
    assert found.shape == (17, 97, 4)
    expected = mixed_by_pairs(network, values, affine, 1, (np.arange(97) / 3).tolist(), WINDOW)
    between = np.arange(97) % 3 > 0
    assert np.abs(found - expected)[:, between].max() <= 0.51


@pytest.mark.parametrize(("name", "count"), [("axial", 3), ("odd", 2)])
def test_quality_of_a_scan(
    name: str, count: int, network: HRINetAutoencoder, outputs: tuple[Path, dict[str, Result]]
) -> None:
    """Each slice but the first and the last is compared with what the network makes of its neighbors; on request."""
    root, _ = outputs
    files = [f"{name}_interp{end}" for name in ("axial", "odd") for end in (".nii.gz", "_quality.json")]
    assert names(root / "isotropic") == files and len(list(root.rglob("*.json"))) == 2
    written = json.loads((root / "isotropic" / f"{name}_interp_quality.json").read_text())
    values, affine = scan_of(root / "scans" / f"{name}.nii.gz")
    errors = []
    for k in range(1, count + 1):
        halfway = mixed_by_pairs(network, values[..., k - 1 : k + 2 : 2], affine, 2, [0.5], WINDOW)
        errors.append(halfway[..., 0].clip(*WINDOW) - values[..., k].clip(*WINDOW))
    assert written["psnr"] == pytest.approx(10 * np.log10(4000.0**2 / np.mean(np.square(errors))), abs=1e-3)
    assert written["slices"] == count and written["method"] == "hrinet"
    assert written["gain"] == pytest.approx(written["psnr"] - written["linear_psnr"])


WRONG_COMMANDS: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "factor_zero": ({"factor": 0}, ("factor", "got 0")),
    "factor_and_spacing": ({"factor": 2, "spacing": 1}, ("not both", "factor 2", "spacing 1 mm")),
    "spacing_coarse": ({"spacing": 9}, ("{root}/scan.nii.gz", "9 mm", "5 mm")),
    "axis_unknown": ({"axis": 3}, ("axis", "3")),
    "single_slice": ({"input": "{root}/single.nii.gz"}, ("{root}/single.nii.gz", "single slice")),
    "input_missing": ({"input": "{root}/nowhere.nii.gz"}, ("{root}/nowhere.nii.gz", "no such file")),
    "ckpt_missing": ({"ckpt": "{root}/nowhere.pt"}, ("{root}/nowhere.pt", "no such checkpoint")),
    "ckpt_truncated": ({"ckpt": "{root}/truncated.pt"}, ("{root}/truncated.pt", "not a readable checkpoint")),
    "ckpt_of_acai": ({"ckpt": "{root}/acai.pt"}, ("{root}/acai.pt", "not a checkpoint of HRINetAutoencoder")),
    "keep_observed_unclear": ({"keep_observed": "maybe"}, ("keep_observed must be true or false, got 'maybe'",)),
    "window_empty": ({"window": "[100,100]"}, ("window", "100")),
    "output_below_a_file": ({"output_dir": "{root}/scan.nii.gz/out"}, ("{root}/scan.nii.gz/out", "cannot be written")),
}
SCAN_FAILS = ("spacing_coarse", "axis_unknown", "single_slice")  # these are only known when the scan is read


@pytest.fixture(scope="module")
def wrong_commands(hrinet_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    root = tmp_path_factory.mktemp("wrong")
    scan = save(root / "scan.nii.gz", body((12, 12, 3), 0), diagonal(1, 1, 5))
    save(root / "single.nii.gz", body((12, 12, 1), 0), diagonal(1, 1, 5))
    (root / "truncated.pt").write_bytes(hrinet_weights.read_bytes()[:50_000])
    torch.save(
        parser_of("hrinet", "inference", "acai").get_parsed_content("network_def").state_dict(), root / "acai.pt"
    )
    commands = {}
    for name, (options, _) in WRONG_COMMANDS.items():
        given = {"ckpt": hrinet_weights, "input": scan, "output_dir": root / "out" / name, **options}
        commands[name] = bundle_command("hrinet", "inference", (), filled(given, root=root))
    return root, run_forked(commands)


@pytest.mark.parametrize("name", WRONG_COMMANDS)
def test_wrong_commands(name: str, wrong_commands: tuple[Path, dict[str, Result]]) -> None:
    root, results = wrong_commands
    parts = [text.format(root=root) for text in WRONG_COMMANDS[name][1]]
    results[name].check_error(*parts, failed=int(name in SCAN_FAILS))
    assert not list(root.rglob("*_interp.nii.gz"))


@pytest.mark.skipif(not os.environ.get("SLICEINTERP_DATA"), reason="real scans: set SLICEINTERP_DATA")
def test_documented_command_on_a_real_scan(hrinet_weights: Path, network: HRINetAutoencoder, tmp_path: Path) -> None:
    """On a piece of a thick scan."""
    values, affine, axis = save_piece(tmp_path / "piece.nii.gz", "tcga_lihc_bc_a3kf", 6)
    command = infer(hrinet_weights, tmp_path / "piece.nii.gz", tmp_path / "out", factor=4)
    run_forked({"piece": command})["piece"].check_success()
    found = check_output(tmp_path / "out" / "piece_interp.nii.gz", values, affine, 4, axis)
    positions = np.arange(found.shape[axis]) / 4
    expected = mixed_by_pairs(network, values, affine, axis, positions.tolist(), WINDOW)
    assert np.abs(np.moveaxis(found - expected, axis, 0)[positions % 1 > 0]).max() <= 0.51
