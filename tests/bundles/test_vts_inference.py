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

"""Inference of the bundle vts, from the command line."""

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
    check_grid,
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
    scan_of,
    tilted,
    unscaled,
    voxels,
)

from monai_sliceinterp.inferers import SplineSliceInferer, VolumetricSliceInferer
from monai_sliceinterp.networks.nets import VTSGenerator

WINDOW = (-2048.0, 2048.0)  # HU
SMALL = {"network_def__channels": "[8,16,32,64]", "network_def__stem_channels": 8}  # the network of small.json


# All have slices 5 mm apart, so that 1 mm is a factor of 5. Name: shape, affine, slice axis.
GOOD = {
    "axial": ((20, 24, 5), tilted(0.75, 0.75, 5.0), 2),
    "odd": ((17, 33, 4), diagonal(-0.75, -0.5, 5.0), 2),
    "downwards": ((14, 13, 4), diagonal(0.75, 0.75, -5.0), 2),
    "sagittal": ((4, 22, 19), diagonal(5.0, -0.75, 0.8), 0),
    "coronal": ((15, 4, 21), tilted(0.75, 5.0, 0.9), 1),
    "cine": ((14, 16, 3, 2), diagonal(1.0, 1.0, 5.0), 2),
    "two": ((31, 12, 2), diagonal(0.75, 0.75, 5.0), 2),
    "long": ((18, 16, 31), diagonal(0.9, 0.9, 5.0), 2),  # more slices than a window has
    "unsigned": ((16, 15, 4), diagonal(0.75, 0.75, 5.0), 2),  # uint16, 1024 above HU
    "metal": ((16, 18, 4), diagonal(0.75, 0.75, 5.0), 2),
    "clipped": ((16, 18, 4), diagonal(0.75, 0.75, 5.0), 2),  # metal, limited to the window
}
FINE = ((16, 17, 12), diagonal(0.7, 0.7, 0.8), 2)


def infer(weights: Path | str, source: object, output_dir: Path, **options: object) -> Command:
    given = {"ckpt": weights, "input": source, "output_dir": output_dir, **SMALL, **options}
    return bundle_command("vts", "inference", (), filled(given))


def expected_hu(values: np.ndarray, affine: np.ndarray, axis: int, factor: int, network: object) -> np.ndarray:
    """What an inferer makes of a scan, in HU, with all slices computed."""
    results = []
    for volume in frames(values):
        scan = scaled(volume, affine, axis, WINDOW)
        if network is None:
            fine = SplineSliceInferer(factor, mode="cubic", keep_observed=False)(scan)
        else:
            fine = VolumetricSliceInferer(factor, value_range=(0.0, 1.0))(scan, network)
        results.append(unscaled(fine, axis, WINDOW))
    return np.stack(results, axis=-1) if values.ndim == 4 else results[0]


@pytest.fixture(scope="module")
def network(vts_weights: Path) -> VTSGenerator:
    network = parser_of("vts", "train", "small").get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(vts_weights, weights_only=True))
    return network


@pytest.fixture(scope="module")
def outputs(vts_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    """Folder with the inputs, and what became of them."""
    root = tmp_path_factory.mktemp("inference")
    scans = root / "scans"
    for seed, (name, (shape, affine, _)) in enumerate(GOOD.items()):
        values = body(shape, seed)
        if name in ("metal", "clipped"):
            values = body(shape, seed=99)
            values[3:9, 4:9, 1:3] = 3071
            values[12:, :, :] = -3024
            values[:, 14:, 2] = -3024
            values = values.clip(-2048, 2048) if name == "clipped" else values
        elif name == "unsigned":
            values = (values + 1024).clip(0, 4095).astype(np.uint16)
        save(scans / f"{name}.nii.gz", values, affine)
    (scans / "broken.nii.gz").write_text("this is no image")
    save(root / "fine.nii.gz", body(FINE[0], 50), FINE[1])
    torch.save(VTSGenerator((8, 16, 32, 64), stem_channels=8).state_dict(), root / "untrained.pt")
    files = [str(scans / f"{name}.nii.gz") for name in GOOD]
    axial, odd = files[0], files[1]
    commands = {
        "default": infer(vts_weights, scans, root / "default"),
        "spacing": infer(vts_weights, [axial, odd], root / "spacing", spacing=1.25),
        "factor": infer(vts_weights, [axial, odd], root / "factor", factor=4, keep_observed="false", batch_size=3),
        "uneven": infer(vts_weights, axial, root / "uneven", spacing=2),
        "kept": infer(vts_weights, files, root / "kept", keep_observed="true", progress="false"),
        "axis": infer(vts_weights, odd, root / "axis", axis=1, factor=3),
        "fine": infer(vts_weights, root / "fine.nii.gz", root / "fine"),
        "untrained": infer(root / "untrained.pt", files, root / "untrained"),
    }
    return root, run_forked(commands)


def test_folder_with_a_broken_file(outputs: tuple[Path, dict[str, Result]]) -> None:
    """The others are done."""
    root, results = outputs
    count = len(GOOD) + 1
    results["default"].check_error(f"1 of {count} inputs failed", str(root / "scans" / "broken.nii.gz"), failed=1)
    assert names(root / "default") == sorted(f"{name}_interp.nii.gz" for name in GOOD)
    assert f"[{count}/{count}] {root / 'scans' / 'unsigned.nii.gz'} -> " in results["default"].stdout


@pytest.mark.parametrize("name", GOOD)
def test_one_mm_by_default(name: str, network: VTSGenerator, outputs: tuple[Path, dict[str, Result]]) -> None:
    """All slices are the network's, in the input's units, type and axes; affine and origin are exact."""
    root, _ = outputs
    _, affine, axis = GOOD[name]
    source, path = root / "scans" / f"{name}.nii.gz", root / "default" / f"{name}_interp.nii.gz"
    values, stored = scan_of(source)
    found = check_grid(path, values, stored, 5, axis)
    np.testing.assert_allclose(nib.load(path).header.get_zooms()[axis], 1.0, rtol=1e-6)
    if values.ndim == 4:
        assert nib.load(path).header.get_zooms()[3] == pytest.approx(0.04)
    expected = expected_hu(values, affine, axis, 5, network)
    if name == "unsigned":
        expected = expected.clip(0)
    assert np.abs(found - expected).max() <= 0.51
    spline = expected_hu(values, affine, axis, 5, None)
    assert np.sqrt(np.mean((expected - spline) ** 2)) > 2  # it matters that the network was run
    observed = np.moveaxis(found, axis, 0)[::5]
    assert (observed != np.moveaxis(values, axis, 0)).mean() > 0.3


@pytest.mark.parametrize("name", GOOD)
def test_untrained_network_leaves_the_spline(name: str, outputs: tuple[Path, dict[str, Result]]) -> None:
    """It adds nothing, so that the slices at observed positions are those of the input."""
    root, results = outputs
    results["untrained"].check_success()
    _, affine, axis = GOOD[name]
    values, found = voxels(root / "scans" / f"{name}.nii.gz"), voxels(root / "untrained" / f"{name}_interp.nii.gz")
    observed = np.moveaxis(values, axis, 0).astype(int)
    assert np.abs(np.moveaxis(found, axis, 0)[::5].astype(int) - observed).max() <= 1
    if name not in ("metal", "clipped"):  # there the spline would leave the window
        expected = expected_hu(values, affine, axis, 5, None)
        limit = 0 if values.dtype == np.uint16 else -np.inf
        assert np.abs(found - expected.clip(limit)).max() <= 0.51


@pytest.mark.parametrize("name", GOOD)
def test_observed_slices_are_kept_on_demand(name: str, outputs: tuple[Path, dict[str, Result]]) -> None:
    """Bit for bit; the others are those of the default."""
    root, results = outputs
    results["kept"].check_success()
    axis, scan = GOOD[name][2], scan_of(root / "scans" / f"{name}.nii.gz")
    found = check_output(root / "kept" / f"{name}_interp.nii.gz", *scan, 5, axis)
    kept, default = (np.moveaxis(v, axis, 0) for v in (found, voxels(root / "default" / f"{name}_interp.nii.gz")))
    np.testing.assert_array_equal(np.delete(kept, np.s_[::5], axis=0), np.delete(default, np.s_[::5], axis=0))


@pytest.mark.parametrize("name", ["axial", "odd"])
def test_factor_equals_spacing(name: str, outputs: tuple[Path, dict[str, Result]]) -> None:
    """The number of windows at once changes nothing but rounding."""
    root, results = outputs
    found = {}
    for run_name in ("factor", "spacing"):
        results[run_name].check_success()
        assert names(root / run_name) == ["axial_interp.nii.gz", "odd_interp.nii.gz"]
        path = root / run_name / f"{name}_interp.nii.gz"
        found[run_name] = check_grid(path, *scan_of(root / "scans" / f"{name}.nii.gz"), 4, 2).astype(int)
    assert np.abs(found["factor"] - found["spacing"]).max() <= 1
    assert (found["factor"] != found["spacing"]).mean() < 0.01


def test_spacing_that_does_not_divide(outputs: tuple[Path, dict[str, Result]]) -> None:
    """0, 2, ..., 20 mm of 5 slices 5 mm apart; nothing is extrapolated."""
    root, results = outputs
    results["uneven"].check_success()
    image, affine = nib.load(root / "uneven" / "axial_interp.nii.gz"), GOOD["axial"][1].copy()
    affine[:3, 2] *= 2.0 / 5.0
    assert image.shape == (20, 24, 11) and image.get_data_dtype() == np.int16
    np.testing.assert_allclose(image.affine, affine, rtol=0, atol=1e-5)


def test_chosen_axis(network: VTSGenerator, outputs: tuple[Path, dict[str, Result]]) -> None:
    """Another one than that of the largest spacing."""
    root, results = outputs
    results["axis"].check_success()
    values, affine = scan_of(root / "scans" / "odd.nii.gz")
    found = check_grid(root / "axis" / "odd_interp.nii.gz", values, affine, 3, 1)
    assert found.shape == (17, 97, 4)
    assert np.abs(found - expected_hu(values, affine, 1, 3, network)).max() <= 0.51


def test_stack_finer_than_1_mm_keeps_its_spacing(
    network: VTSGenerator, outputs: tuple[Path, dict[str, Result]]
) -> None:
    """But is restored."""
    root, results = outputs
    results["fine"].check_success()
    values, affine = scan_of(root / "fine.nii.gz")
    found = check_grid(root / "fine" / "fine_interp.nii.gz", values, affine, 1, 2)
    assert (found != values).mean() > 0.3
    assert np.abs(found - expected_hu(values, affine, 2, 1, network)).max() <= 0.51


def test_intensities_beyond_the_window(outputs: tuple[Path, dict[str, Result]]) -> None:
    """Their excess is interpolated linearly and added to what the clipped scan gives."""
    root, _ = outputs
    metal, clipped = (voxels(root / "scans" / f"{name}.nii.gz").astype(np.float64) for name in ("metal", "clipped"))
    excess = metal - clipped
    assert excess.max() == 1023 and excess.min() == -976
    expected = voxels(root / "default" / "clipped_interp.nii.gz").astype(np.float64)
    assert expected.max() <= 2048 and expected.min() >= -2048
    for index in range(16):
        lower = min(index // 5, 2)
        weight = index / 5 - lower
        expected[..., index] += (1 - weight) * excess[..., lower] + weight * excess[..., lower + 1]
    found = voxels(root / "default" / "metal_interp.nii.gz")
    assert np.abs(found - expected).max() <= 1  # rounded once, and twice
    assert 2700 < found.max() <= 3071 and -3024 <= found.min() < -2700


WRONG_COMMANDS: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "factor_zero": ({"factor": 0}, ("factor", "got 0")),
    "factor_fraction": ({"factor": 1.5}, ("factor", "got 1.5")),
    "factor_and_spacing": ({"factor": 2, "spacing": 1}, ("not both", "factor 2", "spacing 1 mm")),
    "spacing_negative": ({"spacing": -1.5}, ("spacing", "got -1.5")),
    "spacing_coarse": ({"spacing": 9}, ("{root}/scan.nii.gz", "9 mm", "5 mm")),
    "axis_unknown": ({"axis": 3}, ("axis", "3")),
    "single_slice": ({"input": "{root}/single.nii.gz"}, ("{root}/single.nii.gz", "single slice")),
    "input_missing": ({"input": "{root}/nowhere.nii.gz"}, ("{root}/nowhere.nii.gz", "no such file")),
    "input_not_given": ({"input": None}, ("no input is given",)),
    "ckpt_missing": ({"ckpt": "{root}/nowhere.pt"}, ("{root}/nowhere.pt", "no such checkpoint")),
    "ckpt_truncated": ({"ckpt": "{root}/truncated.pt"}, ("{root}/truncated.pt", "not a readable checkpoint")),
    "ckpt_of_another_size": ({"ckpt": "{default}"}, ("{default}", "not a checkpoint of VTSGenerator", "more diff")),
    "ckpt_of_another_network": ({"ckpt": "{root}/other.pt"}, ("{root}/other.pt", "not a checkpoint of VTSGenerator")),
    "keep_observed_unclear": ({"keep_observed": "maybe"}, ("keep_observed must be true or false, got 'maybe'",)),
    "batch_size_negative": ({"batch_size": -1}, ("batch_size", "got -1")),
    "window_empty": ({"window": "[100,100]"}, ("window", "100")),
    "output_below_a_file": ({"output_dir": "{root}/scan.nii.gz/out"}, ("{root}/scan.nii.gz/out", "cannot be written")),
}
SCAN_FAILS = ("spacing_coarse", "axis_unknown", "single_slice")  # these are only known when the scan is read


@pytest.fixture(scope="module")
def wrong_commands(
    vts_weights: Path, default_vts_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, object], dict[str, Result]]:
    root = tmp_path_factory.mktemp("wrong")
    scan = save(root / "scan.nii.gz", body((12, 12, 3), 0), diagonal(1, 1, 5))
    save(root / "single.nii.gz", body((12, 12, 1), 0), diagonal(1, 1, 5))
    (root / "truncated.pt").write_bytes(vts_weights.read_bytes()[:50_000])
    torch.save(torch.nn.Conv3d(1, 4, 3).state_dict(), root / "other.pt")
    places = {"root": root, "default": default_vts_weights}
    commands = {}
    for name, (options, _) in WRONG_COMMANDS.items():
        given = {"ckpt": vts_weights, "input": scan, "output_dir": root / "out" / name, **SMALL, **options}
        commands[name] = bundle_command("vts", "inference", (), filled(given, **places))
    return places, run_forked(commands)


@pytest.mark.parametrize("name", WRONG_COMMANDS)
def test_wrong_commands(name: str, wrong_commands: tuple[dict[str, object], dict[str, Result]]) -> None:
    places, results = wrong_commands
    parts = [text.format(**places) for text in WRONG_COMMANDS[name][1]]
    results[name].check_error(*parts, failed=int(name in SCAN_FAILS))
    assert not list(Path(str(places["root"])).rglob("*_interp.nii.gz"))


@pytest.mark.skipif(not os.environ.get("SLICEINTERP_DATA"), reason="real scans: set SLICEINTERP_DATA")
def test_documented_command_on_a_real_scan(vts_weights: Path, tmp_path: Path) -> None:
    """On a piece of a thick scan."""
    values, affine, axis = save_piece(tmp_path / "piece.nii.gz", "tcga_lihc_bc_a10x", 6)
    run(infer(vts_weights, tmp_path / "piece.nii.gz", tmp_path / "out")).check_success()
    image = nib.load(tmp_path / "out" / "piece_interp.nii.gz")
    found, sizes = np.asarray(image.dataobj), list(values.shape)
    sizes[axis] = int(np.floor(5 * np.linalg.norm(affine[:3, axis]) + 1e-3)) + 1
    assert found.shape == tuple(sizes) and found.dtype == np.int16
    assert image.header.get_zooms()[axis] == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_array_equal(image.affine[:3, 3], affine[:3, 3].astype(np.float32))
    # on the whole still the scan
    first = np.moveaxis(found, axis, 0)[0].astype(float) - np.moveaxis(values, axis, 0)[0]
    assert np.sqrt((first**2).mean()) < 300
