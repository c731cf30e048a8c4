# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Inference of every bundle, from the command line: what it writes is what its network gives, on the right grid."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from monai_sliceinterp.inferers import MultiViewSliceInferer, SplineSliceInferer
from monai_sliceinterp.networks.nets import VTSGenerator
from tests.bundles.bundle_cases import CASES, Case, save_weights
from tests.bundles.bundle_commands import (
    Result,
    body,
    bundle_command,
    check_grid,
    check_output,
    diagonal,
    filled,
    frames,
    names,
    run_forked,
    save,
    save_piece,
    scaled,
    scan_of,
    tilted,
    unscaled,
    voxels,
)

GOOD = {
    "axial": ((20, 24, 5), tilted(0.75, 0.75, 5.0), 2),
    "odd": ((17, 33, 4), diagonal(-0.75, -0.5, 5.0), 2),
    "downwards": ((14, 13, 4), diagonal(0.75, 0.75, -5.0), 2),
    "sagittal": ((4, 22, 19), diagonal(5.0, -0.75, 0.8), 0),
    "coronal": ((15, 4, 21), tilted(0.75, 5.0, 0.9), 1),
    "cine": ((14, 16, 3, 2), diagonal(1.0, 1.0, 5.0), 2),
    "two": ((31, 12, 2), diagonal(0.75, 0.75, 5.0), 2),
    "wide": ((70, 66, 3), diagonal(0.75, 0.75, 5.0), 2),  # more than the 64 pixels that slices are padded to
    "long": ((18, 16, 31), diagonal(0.9, 0.9, 5.0), 2),  # more slices than a window has
    "unsigned": ((16, 15, 4), diagonal(0.75, 0.75, 5.0), 2),  # uint16, 1024 above HU
    "floats": ((24, 5, 21), diagonal(0.9, 5.0, 0.9), 1),  # float32
    "doubles": ((20, 23, 4), diagonal(1.0, 1.0, 5.0), 2),  # float64
    "metal": ((16, 18, 4), diagonal(0.75, 0.75, 5.0), 2),
    "clipped": ((16, 18, 4), diagonal(0.75, 0.75, 5.0), 2),  # metal, limited to the window
}
TYPES = {"unsigned": np.uint16, "floats": np.float32, "doubles": np.float64}
FACTOR = 4


@dataclass(frozen=True)
class Inference:
    """A bundle, its network, the folder with scans and outputs, and how the commands ended."""

    bundle: str
    case: Case
    network: Any
    root: Path
    results: dict[str, Result]

    def scan(self, name):
        """Voxels and affine of a scan."""
        return scan_of(self.root / "scans" / f"{name}.nii.gz")

    def output(self, command, name):
        return self.root / command / f"{name}_interp.nii.gz"

    def expected(self, values, affine, axis, **grid):
        """What the network gives at every position of the output, the observed ones too, in HU."""
        window = self.case.window or tuple(np.percentile(values, [1, 99]))
        results = [self.case.reference(self.network, scaled(v, affine, axis, window), **grid) for v in frames(values)]
        results = [unscaled(volume, axis, window) for volume in results]
        volume = np.stack(results, axis=-1) if values.ndim == 4 else results[0]
        return volume.clip(0) if values.dtype.kind == "u" else volume

    def check(self, found, values, affine, axis, **grid):
        """The synthesized slices are the network's, rounded where voxels are integers."""
        step = 1 / grid["factor"] if "factor" in grid else grid["spacing"] / np.linalg.norm(affine[:3, axis])
        positions = np.arange(found.shape[axis]) * step
        whole = np.isclose(positions, np.rint(positions)) & self.case.keeps_observed
        limit = 0.51 if values.dtype.kind in "iu" else 5e-3
        expected = self.expected(values, affine, axis, **grid)
        between = np.abs(np.moveaxis(found - expected, axis, 0)[~whole])
        assert between.max() <= limit
        kept = np.moveaxis(found, axis, 0)[whole]
        np.testing.assert_array_equal(kept, np.moveaxis(values, axis, 0)[np.rint(positions[whole]).astype(int)])


def scan_values(name, seed, window):
    values = body(GOOD[name][0], 99 if name in ("metal", "clipped") else seed)
    if name in ("metal", "clipped"):
        values[3:9, 4:9, 1:3] = 3071
        values[12:, :, :] = -3024
        values[:, 14:, 2] = -3024
        values = values.clip(*map(int, window)) if name == "clipped" else values
    elif name == "unsigned":
        values = (values + 1024).clip(0, 4095)
    return values.astype(TYPES.get(name, np.int16))


@pytest.fixture(scope="module", params=CASES)
def inference(request, tmp_path_factory):
    bundle, case = request.param, CASES[request.param]
    root = tmp_path_factory.mktemp(bundle)
    for seed, (name, (_, affine, _)) in enumerate(GOOD.items()):
        save(root / "scans" / f"{name}.nii.gz", scan_values(name, seed, case.window or (-1024.0, 2976.0)), affine)
    for name in ("meta.mha", "nrrd.nrrd"):
        sitk.WriteImage(sitk.ReadImage(str(root / "scans" / "axial.nii.gz")), str(root / "scans" / name))
    (root / "scans" / "broken.nii.gz").write_text("this is no image")
    save(root / "constant.nii", np.full((16, 16, 4), 7.3, np.float32), diagonal(1.0, 1.0, 3.0))
    save(root / "fine.nii.gz", body((16, 17, 12), 50), diagonal(0.7, 0.7, 0.8))
    weights, network = save_weights(bundle, root / "weights.pt")
    files = [str(root / "scans" / f"{name}.nii.gz") for name in GOOD]
    axial, odd = files[:2]
    opposite = str(not case.keeps_observed).lower()
    commands = {
        "folder": {"input": root / "scans", "factor": FACTOR},
        "spacing": {"input": files, "spacing": 5.0 / FACTOR, "progress": "false", **case.spacing_options},
        "opposite": {"input": [axial, odd], "factor": FACTOR, "keep_observed": opposite, "inferer#batch_size": 1},
        "default": {"input": [axial, odd], "quality": "true"},
        "uneven": {"input": axial, "spacing": 2},
        "axis": {"input": odd, "axis": 1, "factor": 3},
    }
    commands = {name: (case.overlays, own) for name, own in commands.items()} | case.own_commands
    for name, (overlays, own) in commands.items():
        path = weights
        if "untrained" in name or overlays != case.overlays:
            path = save_weights(bundle, root / f"{name}.pt", *overlays, trained="untrained" not in name)[0]
        own = {"ckpt": path, "output_dir": root / name, "amp": "false", **filled(own, root=root, files=files)}
        commands[name] = bundle_command(bundle, "inference", overlays, own)
    return Inference(bundle, case, network, root, run_forked(commands))


def only(bundle):
    """For tests of what one bundle alone offers."""
    return pytest.mark.parametrize("inference", [bundle], indirect=True)


def test_folder_with_a_broken_file(inference):
    """The others are done."""
    count = len(GOOD) + 3
    broken = str(inference.root / "scans" / "broken.nii.gz")
    inference.results["folder"].check_error(f"1 of {count} inputs failed", broken, failed=1)
    files = [*(f"{name}_interp.nii.gz" for name in (*GOOD, "meta", "nrrd")), "interp_failures.csv"]
    assert names(inference.root / "folder") == sorted(files)
    assert f"[{count}/{count}] {inference.root / 'scans' / 'wide.nii.gz'} -> " in inference.results["folder"].stdout


@pytest.mark.parametrize("name", GOOD)
def test_slices_are_those_of_the_network(name, inference):
    """In the input's units, type and axes; affine and origin are exact."""
    (values, affine), axis = inference.scan(name), GOOD[name][2]
    path = inference.output("folder", name)
    found = check_grid(path, values, affine, FACTOR, axis)
    if values.ndim == 4:
        header = nib.load(path).header
        assert header.get_zooms()[3] == pytest.approx(0.04) and header.get_xyzt_units() == ("mm", "sec")
    inference.check(found, values, affine, axis, factor=FACTOR)
    observed = np.moveaxis(found, axis, 0)[::FACTOR]
    if inference.case.keeps_observed:
        assert observed.tobytes() == np.moveaxis(values, axis, 0).tobytes()
    elif name != "unsigned":
        assert (observed != np.moveaxis(values, axis, 0)).mean() > 0.3
    # it matters that the network was run
    between = SplineSliceInferer(FACTOR, mode="linear", keep_observed=False)
    linear = np.stack([unscaled(between(scaled(v, affine, axis, (0, 1))), axis, (0, 1)) for v in frames(values)], -1)
    assert np.sqrt(np.mean((found - (linear if values.ndim == 4 else linear[..., 0])) ** 2)) > 0.5


@pytest.mark.parametrize("name", ["meta", "nrrd"])
def test_other_formats(name, inference):
    """What they give is what NIfTI gives."""
    expected, found = (nib.load(inference.output("folder", which)) for which in ("axial", name))
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-5)


@pytest.mark.parametrize("name", GOOD)
def test_factor_equals_spacing(name, inference):
    """Bit for bit."""
    inference.results["spacing"].check_success()
    by_factor, by_spacing = (nib.load(inference.output(how, name)) for how in ("folder", "spacing"))
    np.testing.assert_array_equal(np.asarray(by_factor.dataobj), np.asarray(by_spacing.dataobj))
    np.testing.assert_array_equal(by_factor.affine, by_spacing.affine)
    assert by_factor.header.get_zooms() == by_spacing.header.get_zooms()


@pytest.mark.parametrize("name", ["axial", "odd"])
def test_observed_slices_are_kept_or_not(name, inference):
    """As the switch says in words; how many images are computed at once matters only for rounding."""
    inference.results["opposite"].check_success()
    assert names(inference.root / "opposite") == ["axial_interp.nii.gz", "odd_interp.nii.gz"]
    values, affine = inference.scan(name)
    usual, found = (inference.output(how, name) for how in ("folder", "opposite"))
    check_output(usual if inference.case.keeps_observed else found, values, affine, FACTOR, 2)
    check_grid(found, values, affine, FACTOR, 2)
    usual_voxels, found_voxels = (voxels(path).astype(int) for path in (usual, found))
    observed = np.arange(found_voxels.shape[2]) % FACTOR == 0
    different = usual_voxels != found_voxels
    assert np.abs(usual_voxels - found_voxels)[..., ~observed].max() <= 1 and different[..., ~observed].mean() < 0.01
    assert inference.case.exact or different[..., observed].mean() > 0.3
    if inference.case.keeps_observed:
        assert np.abs(found_voxels - inference.expected(values, affine, 2, factor=FACTOR)).max() <= 1.01


@pytest.mark.parametrize("name", ["axial", "odd"])
def test_neither_factor_nor_spacing(name, inference):
    """Isotropic, or the spacing the method was made for; slices that happen to be observed ones are kept."""
    inference.results["default"].check_success()
    values, affine = inference.scan(name)
    image = nib.load(inference.output("default", name))
    in_plane = np.linalg.norm(affine[:3, :2], axis=0)
    spacing = inference.case.default_spacing or float(in_plane.min())
    count = int((values.shape[2] - 1) * 5.0 / spacing + 1e-6) + 1
    assert image.shape == (*values.shape[:2], count) and image.get_data_dtype() == np.int16
    np.testing.assert_allclose(image.header.get_zooms(), (*in_plane, spacing), rtol=1e-6)
    np.testing.assert_array_equal(image.affine[:3, 3], affine[:3, 3].astype(np.float32))
    inference.check(np.asarray(image.dataobj), values, affine, 2, spacing=spacing)


def test_spacing_that_does_not_divide(inference):
    """0, 2, ..., 20 mm of 5 slices 5 mm apart; nothing is extrapolated."""
    inference.results["uneven"].check_success()
    values, affine = inference.scan("axial")
    image, thin = nib.load(inference.output("uneven", "axial")), affine.copy()
    thin[:3, 2] *= 2.0 / 5.0
    assert image.shape == (20, 24, 11) and image.get_data_dtype() == np.int16
    np.testing.assert_allclose(image.affine, thin, rtol=0, atol=1e-5)
    inference.check(np.asarray(image.dataobj), values, affine, 2, spacing=2.0)


def test_chosen_axis(inference):
    """Another one than that of the largest spacing."""
    inference.results["axis"].check_success()
    values, affine = inference.scan("odd")
    found = check_grid(inference.output("axis", "odd"), values, affine, 3, 1)
    assert found.shape == (17, 97, 4)
    inference.check(found, values, affine, 1, factor=3)


def test_intensities_beyond_the_window(inference):
    """Their excess is interpolated linearly and added to what the clipped scan gives."""
    if inference.case.window is None:
        pytest.skip("the window is that of each scan")
    metal, clipped = (inference.scan(name)[0].astype(np.float64) for name in ("metal", "clipped"))
    excess = metal - clipped
    assert excess.max() == 3071 - inference.case.window[1] and excess.min() == -3024 - inference.case.window[0]
    expected = voxels(inference.output("folder", "clipped")).astype(np.float64)
    assert expected.max() <= inference.case.window[1] and expected.min() >= inference.case.window[0]
    for index in range(expected.shape[2]):
        lower = min(index // FACTOR, 2)
        weight = index / FACTOR - lower
        expected[..., index] += (1 - weight) * excess[..., lower] + weight * excess[..., lower + 1]
    found = voxels(inference.output("folder", "metal"))
    assert np.abs(found - expected).max() <= 1  # rounded once, and twice
    assert found.max() > 2700 and found.min() < -2700


@pytest.mark.parametrize("name", ["axial", "odd"])
def test_quality_of_a_scan(name, inference):
    """Each slice but the first and the last is compared with what the network makes of its neighbors; on request."""
    files = [f"{stem}_interp{end}" for stem in ("axial", "odd") for end in (".nii.gz", "_quality.json")]
    assert names(inference.root / "default") == files and len(list(inference.root.rglob("*_quality.json"))) == 2
    written = json.loads((inference.root / "default" / files[1].replace("axial", name)).read_text())
    values, affine = inference.scan(name)
    count = values.shape[2] - 2
    assert written["slices"] == count and written["method"] == inference.bundle
    assert written["gain"] == pytest.approx(written["psnr"] - written["linear_psnr"], abs=1e-9)
    if not inference.case.by_pairs:
        return  # what is left out changes what slices further away give
    window = inference.case.window or tuple(np.percentile(values, [1, 99]))
    errors = []
    for k in range(1, count + 1):
        pair = scaled(values[..., k - 1 : k + 2 : 2], affine, 2, window)
        halfway = unscaled(inference.case.reference(inference.network, pair, factor=2), 2, window)[..., 1]
        errors.append(halfway.clip(*window) - values[..., k].clip(*window))
    expected = 10 * np.log10((window[1] - window[0]) ** 2 / np.mean(np.square(errors)))
    assert written["psnr"] == pytest.approx(expected, abs=1e-3)


@only("asi")
def test_constant_image_stays_constant(inference):
    inference.results["constant"].check_success()
    found = voxels(inference.output("constant", "constant"))
    assert found.shape == (16, 16, 10) and (found == np.float32(7.3)).all()


@only("asi")
def test_plain_network(inference):
    inference.results["plain"].check_success()
    assert nib.load(inference.output("plain", "axial")).shape == (20, 24, 9)


@only("saint")
@pytest.mark.parametrize("name", GOOD)
def test_disagreement(name, inference):
    """Half the difference of the two views in HU, in the axis order and at the places of the output."""
    (values, affine), axis, window = inference.scan(name), GOOD[name][2], inference.case.window
    image = nib.load(inference.root / "spacing" / f"{name}_disagreement.nii.gz")
    interpolated, found = nib.load(inference.output("spacing", name)), np.asarray(image.dataobj)
    assert found.dtype == np.float32 and found.shape == interpolated.shape
    np.testing.assert_array_equal(image.affine, interpolated.affine)
    assert image.header.get_zooms() == interpolated.header.get_zooms()
    for frame, volume in zip(frames(found), frames(values.clip(*window)), strict=True):
        scan = scaled(volume, affine, axis, window)
        inferers = (MultiViewSliceInferer(FACTOR, fuse=False, views=(view,)) for view in ("rows", "columns"))
        rows, columns = (unscaled(inferer(scan, inference.network), axis, window) for inferer in inferers)
        np.testing.assert_allclose(frame, 0.5 * np.abs(rows - columns), rtol=0, atol=5e-3)
    along = np.moveaxis(found, axis, 0)
    assert (along[::FACTOR] == 0).all() and np.delete(along, np.s_[::FACTOR], axis=0).mean() > 0.1
    assert not list(inference.root.glob("[!s]*/*_disagreement.nii.gz"))  # only what was asked for


@only("saint")
def test_mean_of_views(inference):
    """Without the fusion."""
    inference.results["mean"].check_success()
    (values, affine), window = inference.scan("axial"), (-1024.0, 2976.0)
    found, scan = voxels(inference.output("mean", "axial")), scaled(values, affine, 2, window)
    inferers = (MultiViewSliceInferer(fuse=fuse, value_range=(0.0, 1.0)) for fuse in (False, True))
    mean, fused = (unscaled(inferer(scan, inference.network), 2, window) for inferer in inferers)
    assert np.abs(found - mean).max() <= 0.51 and np.abs(found - fused).max() > 5


@only("vts")
@pytest.mark.parametrize("name", GOOD)
def test_untrained_network_leaves_the_spline(name, inference):
    """It adds nothing, so that the slices at observed positions are those of the input."""
    inference.results["untrained"].check_success()
    (values, affine), axis, window = inference.scan(name), GOOD[name][2], inference.case.window
    found = voxels(inference.output("untrained", name))
    observed = np.moveaxis(found, axis, 0)[::FACTOR].astype(float) - np.moveaxis(values, axis, 0)
    assert np.abs(observed).max() <= 1
    if name not in ("metal", "clipped"):  # there the spline would leave the window
        spline = SplineSliceInferer(FACTOR, mode="cubic", keep_observed=False)
        expected = [unscaled(spline(scaled(v, affine, axis, window)), axis, window) for v in frames(values)]
        volume = np.stack(expected, axis=-1) if values.ndim == 4 else expected[0]
        assert np.abs(found - volume.clip(0 if values.dtype == np.uint16 else -np.inf)).max() <= 0.51


@only("vts")
def test_stack_finer_than_1_mm_keeps_its_spacing(inference):
    """But is restored."""
    inference.results["fine"].check_success()
    values, affine = scan_of(inference.root / "fine.nii.gz")
    found = check_grid(inference.output("fine", "fine"), values, affine, 1, 2)
    assert isinstance(inference.network, VTSGenerator) and (found != values).mean() > 0.3
    inference.check(found, values, affine, 2, factor=1)


@pytest.mark.skipif(not os.environ.get("SLICEINTERP_DATA"), reason="real scans: set SLICEINTERP_DATA")
@pytest.mark.parametrize("bundle", CASES)
def test_documented_command_on_a_real_scan(bundle, tmp_path):
    """With the shipped weights, on a piece of a thick scan."""
    values, affine, axis = save_piece(tmp_path / "piece.nii.gz", "tcga_lihc_bc_a3kf", 6)
    options = {"input": tmp_path / "piece.nii.gz", "factor": FACTOR, "output_dir": tmp_path / "out"}
    run_forked({"": bundle_command(bundle, "inference", CASES[bundle].overlays, options)})[""].check_success()
    path = tmp_path / "out" / "piece_interp.nii.gz"
    check = check_output if CASES[bundle].keeps_observed else check_grid
    found = np.moveaxis(check(path, values, affine, FACTOR, axis), axis, 0)
    assert np.sqrt(np.mean((found[::FACTOR].astype(float) - np.moveaxis(values, axis, 0)) ** 2)) < 300


@pytest.mark.skipif(not os.environ.get("SLICEINTERP_DATA"), reason="real scans: set SLICEINTERP_DATA")
def test_documented_command_on_a_real_cine(tmp_path):
    scan = Path(os.environ["SLICEINTERP_DATA"]) / "cardiac_mr" / "sunnybrook_sc_hf_i_01_cine.nii.gz"
    options = {"input": scan, "factor": 5, "output_dir": tmp_path / "out"}
    run_forked({"": bundle_command("asi", "inference", (), options)})[""].check_success()
    image, source = nib.load(tmp_path / "out" / "sunnybrook_sc_hf_i_01_cine_interp.nii.gz"), nib.load(scan)
    assert image.shape == (176, 176, 56, 5) and image.get_data_dtype() == source.get_data_dtype()
    assert image.header.get_zooms()[2] == pytest.approx(2.0, abs=1e-4)
    np.testing.assert_array_equal(np.asarray(image.dataobj)[:, :, ::5], np.asarray(source.dataobj))
