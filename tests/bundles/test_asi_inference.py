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

"""Inference of the bundle asi, from the command line."""

from __future__ import annotations

import json
import os
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from bundle_commands import (
    Command,
    Result,
    bundle_command,
    check_output,
    filled,
    names,
    oblique,
    run,
    run_forked,
    save_scan,
)
from pydicom.uid import MRImageStorage, generate_uid

from monai_sliceinterp.networks.nets import ResidualASIAutoencoder

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # LPS to RAS
GOOD = {  # name: shape, type, spacing
    "last": ((20, 24, 6), np.int16, (1.0, 1.0, 4.5)),
    "first": ((6, 20, 24), np.uint8, (4.5, 1.0, 1.0)),
    "middle": ((24, 5, 21), np.float32, (0.9, 4.5, 0.9)),
    "double": ((20, 23, 4), np.float64, (1.0, 1.0, 3.0)),
    "cine": ((20, 24, 5, 3), np.int16, (1.2, 1.2, 8.0)),
}


def infer(weights: Path | str, source: object, output_dir: Path | str, *overlays: str, **options: object) -> Command:
    return bundle_command(
        "asi", "inference", overlays, {"ckpt": weights, "input": source, "output_dir": output_dir, **options}
    )


def save_itk(path: Path, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Write a scan with SimpleITK; returns voxels (X, Y, Z) and the affine in RAS."""
    array = np.random.default_rng(1).integers(0, 200, (5, 22, 20)).astype(dtype)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.25, 1.25, 6.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    image.SetDirection(oblique().ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    affine = np.eye(4)
    affine[:3, :3] = oblique() * [1.25, 1.25, 6.0]
    affine[:3, 3] = (10.0, -20.0, 30.0)
    return array.T, FLIP @ affine


def save_dicom(folder: Path, uid: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Write a DICOM series; returns voxels (X, Y, Z) and the affine in RAS."""
    array = np.random.default_rng(seed).integers(-50, 900, (20, 18, 5)).astype(np.int16)
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(array.shape[2]):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, generate_uid()
        data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = "1.2.3", uid, "MR"
        data.FrameOfReferenceUID, data.InstanceNumber, data.SeriesDescription = "1.2.4", k + 1, f"series {seed}"
        data.ImagePositionPatient = [-12.0, 8.0, 3.0 + 5.0 * k]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness = [1.25, 1.25], 4.0
        data.Rows, data.Columns, data.SamplesPerPixel = array.shape[1], array.shape[0], 1
        data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 1
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.PixelData = np.ascontiguousarray(array[:, :, k].T).tobytes()
        # in an order that is not that of the slices
        data.save_as(folder / f"{seed}_{(3 * k) % 5}.dcm", enforce_file_format=True)
    affine = np.diag([1.25, 1.25, 5.0, 1.0])
    affine[:3, 3] = (-12.0, 8.0, 3.0)
    return array, FLIP @ affine


@pytest.fixture(scope="module")
def outputs(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    """Folder with the inputs, and what became of them."""
    root = tmp_path_factory.mktemp("inference")
    folder = root / "scans"
    for seed, (name, (shape, dtype, spacing)) in enumerate(GOOD.items()):
        save_scan(folder / f"{name}.nii.gz", shape, dtype, spacing, seed)
    for name, dtype in (("constant", np.int16), ("constant_float", np.float32)):
        nib.save(nib.Nifti1Image(np.full((16, 16, 4), 7.3, dtype), np.diag([1, 1, 3, 1.0])), folder / f"{name}.nii")
    arrays = {"itk.mha": save_itk(folder / "itk.mha", np.int16), "itk2.nrrd": save_itk(folder / "itk2.nrrd", np.uint8)}
    arrays["series.1"] = save_dicom(root / "series.1", "1.2.3.77")
    for name, (voxels, affine) in arrays.items():
        np.savez(root / f"{name}.npz", voxels=voxels, affine=affine)
    one = folder / "last.nii.gz"
    residual = root / "residual.pt"
    torch.save(ResidualASIAutoencoder().state_dict(), residual)
    commands = {
        "folder": infer(weights, folder, root / "folder", factor=3),
        "spacing": infer(weights, one, root / "spacing", spacing=2, keep_observed=True),
        "isotropic": infer(weights, [str(one), str(folder / "itk.mha")], root / "isotropic"),
        "residual": infer(residual, one, root / "residual", "residual"),
        "dicom": infer(weights, root / "series.1", root / "dicom", factor=2, batch_size=3),
        "not_kept": infer(weights, one, root / "not_kept", factor=3, keep_observed="false"),
        "quality": infer(weights, [str(one), str(folder / "itk.mha")], root / "quality", factor=3, quality="true"),
    }
    return root, run_forked(commands)


def test_folder_of_files(outputs: tuple[Path, dict[str, Result]]) -> None:
    root, results = outputs
    results["folder"].check_success()
    stems = [*GOOD, "constant", "constant_float", "itk", "itk2"]
    assert names(root / "folder") == sorted(f"{stem}_interp.nii.gz" for stem in stems)
    assert f"[9/9] {root / 'scans' / 'middle.nii.gz'} -> " in results["folder"].stdout


@pytest.mark.parametrize("name", GOOD)
def test_types_axes_and_frames(name: str, outputs: tuple[Path, dict[str, Result]]) -> None:
    root, _ = outputs
    image = nib.load(root / "scans" / f"{name}.nii.gz")
    axis = int(np.argmax(GOOD[name][2]))
    path = root / "folder" / f"{name}_interp.nii.gz"
    check_output(path, np.asarray(image.dataobj), image.affine, 3, axis)
    if image.ndim == 4:
        header = nib.load(path).header
        assert header.get_zooms()[3] == pytest.approx(0.04) and header.get_xyzt_units() == ("mm", "sec")


@pytest.mark.parametrize("file", ["itk.mha", "itk2.nrrd"])
def test_other_formats(file: str, outputs: tuple[Path, dict[str, Result]]) -> None:
    root, _ = outputs
    data = np.load(root / f"{file}.npz")
    check_output(root / "folder" / f"{Path(file).stem}_interp.nii.gz", data["voxels"], data["affine"], 3, 2)


@pytest.mark.parametrize("name", ["constant", "constant_float"])
def test_constant_image_stays_constant(name: str, outputs: tuple[Path, dict[str, Result]]) -> None:
    root, _ = outputs
    value = np.asarray(nib.load(root / "scans" / f"{name}.nii").dataobj).flat[0]
    found = np.asarray(nib.load(root / "folder" / f"{name}_interp.nii.gz").dataobj)
    assert found.shape == (16, 16, 10) and (found == value).all()


def test_target_spacing(outputs: tuple[Path, dict[str, Result]]) -> None:
    root, results = outputs
    results["spacing"].check_success()
    image, scan = nib.load(root / "spacing" / "last_interp.nii.gz"), nib.load(root / "scans" / "last.nii.gz")
    found, voxels = np.asarray(image.dataobj), np.asarray(scan.dataobj)
    # 0, 2, ..., 22 mm of the 22.5 mm; slices at 18 mm are the observed ones 0 and 4
    assert found.shape == (20, 24, 12) and found.dtype == np.int16
    expected = scan.affine.copy()
    expected[2, 2] = 2.0
    np.testing.assert_array_equal(image.affine, expected)
    np.testing.assert_array_equal(found[..., [0, 9]], voxels[..., [0, 4]])


def test_observed_slices_need_not_be_kept(outputs: tuple[Path, dict[str, Result]]) -> None:
    """The switch is off, as a text on the command line says."""
    root, results = outputs
    results["not_kept"].check_success()
    kept, found = (nib.load(root / run / "last_interp.nii.gz") for run in ("folder", "not_kept"))
    np.testing.assert_array_equal(kept.affine, found.affine)
    kept, found = (np.asarray(image.dataobj) for image in (kept, found))
    assert (kept[..., ::3] != found[..., ::3]).mean() > 0.5
    np.testing.assert_array_equal(np.delete(kept, np.s_[::3], axis=2), np.delete(found, np.s_[::3], axis=2))


def test_neither_factor_nor_spacing_is_isotropic(outputs: tuple[Path, dict[str, Result]]) -> None:
    root, results = outputs
    results["isotropic"].check_success()
    assert names(root / "isotropic") == ["itk_interp.nii.gz", "last_interp.nii.gz"]
    for file, shape, zoom in (("last", (20, 24, 23), 1.0), ("itk", (20, 22, 20), 1.25)):
        image = nib.load(root / "isotropic" / f"{file}_interp.nii.gz")
        assert image.shape == shape
        np.testing.assert_allclose(image.header.get_zooms(), zoom, rtol=1e-6)


def test_residual_network(outputs: tuple[Path, dict[str, Result]]) -> None:
    root, results = outputs
    results["residual"].check_success()
    assert names(root / "residual") == ["last_interp.nii.gz"]


def test_quality_beside_the_output(outputs: tuple[Path, dict[str, Result]]) -> None:
    """The network's running statistics are left alone: the second volume comes out as without the score."""
    root, results = outputs
    results["quality"].check_success()
    for name in ("last", "itk"):
        quality = json.loads((root / "quality" / f"{name}_interp_quality.json").read_text())
        assert quality["method"] == "asi" and quality["slices"] > 0
        assert quality["gain"] == pytest.approx(quality["psnr"] - quality["linear_psnr"], abs=1e-9)
        scored, plain = (nib.load(root / run / f"{name}_interp.nii.gz").dataobj for run in ("quality", "folder"))
        np.testing.assert_array_equal(np.asarray(scored), np.asarray(plain))


def test_dicom_series(outputs: tuple[Path, dict[str, Result]]) -> None:
    root, results = outputs
    results["dicom"].check_success()
    data = np.load(root / "series.1.npz")
    assert names(root / "dicom") == ["series.1_interp.nii.gz"]
    check_output(root / "dicom" / "series.1_interp.nii.gz", data["voxels"], data["affine"], 2, 2)


def save_bad_scans(folder: Path) -> dict[str, str]:
    """Write scans that cannot be interpolated; returns what the message has to say, by file name."""
    (folder / "not_an_image.nii.gz").write_text("this is no image")
    (folder / "empty.nii").write_bytes(b"")
    (folder / "not_an_image.mha").write_text("this is no image")
    (folder / "not_an_image.nrrd").write_text("this is no image")
    whole = save_scan(folder / "truncated.nii.gz").read_bytes()
    (folder / "truncated.nii.gz").write_bytes(whole[: len(whole) // 2])
    save_scan(folder / "flat.nii.gz", (20, 24), spacing=(1, 1, 4))
    save_scan(folder / "single_slice.nii.gz", (20, 24, 1))
    array = np.zeros((6, 6, 4, 2, 3), np.float32)
    nib.save(nib.Nifti1Image(array, np.diag([1, 1, 4, 1.0])), folder / "five.nii.gz")
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        array = np.full((6, 6, 4), value, np.float32)  # NaN in places is no data there; here there are none at all
        nib.save(nib.Nifti1Image(array, np.diag([1, 1, 4, 1.0])), folder / f"{name}.nii.gz")
    header = bytearray(save_scan(folder / "zero_spacing.nii").read_bytes())
    header[76 + 4 : 76 + 16] = struct.pack("<3f", 1.0, 1.0, 0.0)  # pixdim
    header[252:256] = struct.pack("<2h", 0, 0)  # qform_code, sform_code
    (folder / "zero_spacing.nii").write_bytes(header)
    save_scan(folder / "thin.nii.gz", spacing=(1.0, 1.0, 2.0))
    return {
        "not_an_image.nii.gz": "cannot be read as an image",
        "empty.nii": "cannot be read as an image",
        "not_an_image.mha": "",
        "not_an_image.nrrd": "",
        "truncated.nii.gz": "cannot be read as an image",
        "flat.nii.gz": "2 dimensions (20 x 24)",
        "single_slice.nii.gz": "single slice",
        "five.nii.gz": "5 dimensions",
        "nan.nii.gz": "no finite voxel",
        "inf.nii.gz": "144 infinite voxels",
        "zero_spacing.nii": "spacing is zero",
        "thin.nii.gz": "the target spacing 3 mm is coarser than the input's 2 mm",
    }


def test_bad_scans_in_a_folder(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    save_scan(folder / "a_good.nii.gz")
    save_scan(folder / "z_good.nii.gz")
    reasons = save_bad_scans(folder)
    for other in ("not_an_image.mha", "not_an_image.nrrd"):  # distinct names of the outputs
        (folder / other).rename(folder / f"{Path(other).suffix[1:]}_{other}")
        reasons[f"{Path(other).suffix[1:]}_{other}"] = reasons.pop(other)
    result = run(infer(weights, folder, tmp_path / "out", spacing=3))
    result.check_error(f"{len(reasons)} of {len(reasons) + 2} inputs failed", failed=len(reasons))
    for name, reason in reasons.items():
        (line,) = (line for line in result.failed_lines if f"failed: {folder / name}: " in line)
        assert reason in line
        assert line.split("failed: ")[1] in result.error_lines[0]
    # the others are done, and nothing else is written
    assert names(tmp_path / "out") == ["a_good_interp.nii.gz", "z_good_interp.nii.gz"]
    assert nib.load(tmp_path / "out" / "z_good_interp.nii.gz").shape == (20, 24, 7)


WRONG_COMMANDS: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "factor_zero": ({"factor": 0}, ("factor", "got 0")),
    "factor_negative": ({"factor": -2}, ("factor", "got -2")),
    "factor_fraction": ({"factor": 1.5}, ("factor", "got 1.5")),
    "factor_text": ({"factor": "abc"}, ("factor", "got 'abc'")),
    "factor_and_spacing": ({"factor": 2, "spacing": 1}, ("not both", "factor 2", "spacing 1 mm")),
    "spacing_zero": ({"spacing": 0}, ("spacing", "got 0")),
    "spacing_negative": ({"spacing": -1.5}, ("spacing", "got -1.5")),
    "spacing_coarse": ({"spacing": 9}, ("{scan}", "9 mm", "4 mm")),
    "input_missing": ({"input": "{root}/nowhere.nii.gz"}, ("{root}/nowhere.nii.gz", "no such file")),
    "input_not_given": ({"input": None}, ("no input is given",)),
    "input_empty_folder": ({"input": "{root}/nothing"}, ("{root}/nothing", "no image in this folder")),
    "input_two_series": ({"input": "{root}/series"}, ("{root}/series", "2: ", "1.2.3.11 (", "1.2.3.22 (")),
    "ckpt_missing": ({"ckpt": "{root}/nowhere.pt"}, ("{root}/nowhere.pt", "no such checkpoint")),
    "ckpt_truncated": ({"ckpt": "{root}/truncated.pt"}, ("{root}/truncated.pt", "not a readable checkpoint")),
    "ckpt_of_another_network": ({"ckpt": "{root}/other.pt"}, ("{root}/other.pt", "not a checkpoint of ASIAuto")),
    "output_below_a_file": ({"output_dir": "{scan}/out"}, ("{scan}/out", "cannot be written")),
}
SCAN_FAILS = ("spacing_coarse", "input_two_series")  # these are only known when the scan is read


@pytest.fixture(scope="module")
def wrong_commands(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    root = tmp_path_factory.mktemp("wrong")
    scan = save_scan(root / "scan.nii.gz")
    (root / "nothing").mkdir()
    for seed, uid in enumerate(("1.2.3.11", "1.2.3.22")):
        save_dicom(root / "series", uid, seed)
    (root / "truncated.pt").write_bytes(weights.read_bytes()[:100_000])
    torch.save(torch.nn.Conv2d(1, 4, 3).state_dict(), root / "other.pt")
    commands = {}
    for name, (options, _) in WRONG_COMMANDS.items():
        given = {"ckpt": weights, "input": scan, "output_dir": root / "out" / name, **options}
        commands[name] = bundle_command("asi", "inference", (), filled(given, root=root, scan=scan))
    return root, run_forked(commands)


@pytest.mark.parametrize("name", WRONG_COMMANDS)
def test_wrong_commands(name: str, wrong_commands: tuple[Path, dict[str, Result]]) -> None:
    root, results = wrong_commands
    parts = [part.format(root=root, scan=root / "scan.nii.gz") for part in WRONG_COMMANDS[name][1]]
    results[name].check_error(*parts, failed=int(name in SCAN_FAILS))
    assert names(root / "out" / name) == []


def wait_for(condition: Callable[[], bool], timeout: float = 100.0) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.001)


@pytest.mark.parametrize("moment", ["while_writing", "after_the_first_file"])
def test_killed_run_leaves_no_incomplete_output(moment: str, weights: Path, tmp_path: Path) -> None:
    for seed in range(4):
        save_scan(tmp_path / "scans" / f"{seed}.nii.gz", (96, 96, 14), seed=seed)
    out = tmp_path / "out"
    process = infer(weights, tmp_path / "scans", out, factor=6).start()
    try:
        if moment == "while_writing":
            wait_for(lambda: any(".part-" in name and (out / name).stat().st_size > 0 for name in names(out)))
        else:
            wait_for(lambda: (out / "0_interp.nii.gz").exists())
            time.sleep(0.1)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    complete = [name for name in names(out) if name.endswith("_interp.nii.gz")]
    assert len(complete) < 4 and (moment == "while_writing" or complete)
    for name in complete:
        assert np.asarray(nib.load(out / name).dataobj).shape == (96, 96, 79)


@pytest.mark.skipif(not os.environ.get("SLICEINTERP_DATA"), reason="real scans: set SLICEINTERP_DATA")
def test_documented_command_on_a_real_cine(tmp_path: Path) -> None:
    scan = Path(os.environ["SLICEINTERP_DATA"]) / "cardiac_mr" / "sunnybrook_sc_hf_i_01_cine.nii.gz"
    options = {"input": scan, "factor": 5, "output_dir": tmp_path / "out"}
    run(bundle_command("asi", "inference", (), options)).check_success()
    image, source = nib.load(tmp_path / "out" / "sunnybrook_sc_hf_i_01_cine_interp.nii.gz"), nib.load(scan)
    assert image.shape == (176, 176, 56, 5) and image.get_data_dtype() == source.get_data_dtype()
    assert image.header.get_zooms()[2] == pytest.approx(2.0, abs=1e-4)
    np.testing.assert_array_equal(np.asarray(image.dataobj)[:, :, ::5], np.asarray(source.dataobj))
