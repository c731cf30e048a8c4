# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""What a NIfTI header states: kept where it holds after interpolation, refused where it contradicts itself."""

from __future__ import annotations

import gzip
import os
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from monai_sliceinterp.formats.values import UnusableFile, whole_values
from monai_sliceinterp.geometry import slice_geometry
from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.transforms import InvertibleScaleIntensityRanged, LoadVolume, SaveVolumed
from monai_sliceinterp.transforms.saving import save_nifti
from tests.volumes import interpolate, itk_affine, oblique, preprocess, write_nifti

SHAPE = (7, 6, 4)
VALUES = np.random.default_rng(0).integers(-900, 900, SHAPE).astype(np.int16)
FACTS = {
    "descrip": b"TE=30",
    "aux_file": b"roi",
    "intent_code": 1006,
    "intent_name": b"liver",
    "cal_min": 10.0,
    "cal_max": 900.0,
    "toffset": 7.0,
    "dim_info": 0b111001,
}


@st.composite
def affines_in_space(draw):
    """An affine turned, mirrored, shifted and, at times, sheared at random, and by how much it is sheared."""
    angles, spacing, origin = (
        draw(st.tuples(*[st.floats(*ends)] * 3)) for ends in ((-180, 180), (0.3, 6), (-400, 400))
    )
    flip, shear = draw(st.sampled_from([1, -1])), draw(st.sampled_from([0, 0, 1e-5, 1e-3, 0.2]))
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    affine[:3, :3] = affine[:3, :3] @ np.array([[flip, 0, 0], [0, 1, shear], [0, 0, 1]])
    affine[:3, 3] = origin
    return affine, shear


AFFINES = affines_in_space()
AS_IT_IS = preprocess(InvertibleScaleIntensityRanged("image", -900, 900))


def write(path, values=VALUES, affine=None, codes=(1, 1), qform=None, extensions=(), **fields):
    affine = oblique() if affine is None else affine
    image = nib.Nifti1Image(values, affine)
    image.set_sform(affine, codes[1])
    image.set_qform(affine if qform is None else qform, codes[0])
    image.header.set_xyzt_units(*fields.pop("units", ("mm", "sec")))
    for field, value in fields.items():
        image.header[field] = value
    for code, content in extensions:
        image.header.extensions.append(nib.nifti1.Nifti1Extension(code, content))
    nib.save(image, path)
    return path


def saved(source, folder, factor=2):
    """The file that comes of a scan, as nibabel reads it."""
    result = interpolate(source, SplineSliceInferer(factor=factor), SaveVolumed("pred", folder))
    return nib.load(result["pred"].meta["saved_to"])


def patched(path, offset, *numbers):
    """Other float32 numbers in a header."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[offset : offset + 4 * len(numbers)] = np.array(numbers, "<f4").tobytes()
    path.write_bytes(gzip.compress(content))
    return path


class TestFacts:
    @pytest.mark.parametrize("codes", [(1, 1), (0, 4), (4, 0), (2, 3), (1, 4)])
    def test_codes(self, tmp_path, codes):
        out = saved(write(tmp_path / "scan.nii.gz", codes=codes), tmp_path / "out")
        assert (int(out.header["qform_code"]), int(out.header["sform_code"])) == codes
        np.testing.assert_allclose(out.affine, oblique() @ np.diag([1, 1, 0.5, 1]), rtol=0, atol=1e-4)

    def test_unknown_position(self, tmp_path):
        out = saved(write(tmp_path / "scan.nii.gz", codes=(0, 0)), tmp_path / "out")
        assert int(out.header["qform_code"]) == int(out.header["sform_code"]) == 0
        np.testing.assert_allclose(out.header.get_zooms(), (0.7, 0.9, 2.0), rtol=1e-6)

    @pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
    def test_fields(self, tmp_path, kind):
        image = kind(np.stack([VALUES, VALUES + 3], -1), oblique())
        image.header.set_xyzt_units("mm", "hz")
        for field, value in FACTS.items():
            image.header[field] = value
        image.header["pixdim"][4] = 63.0
        nib.save(image, tmp_path / "scan.nii.gz")
        out = saved(tmp_path / "scan.nii.gz", tmp_path / "out")
        assert {field: out.header[field].item() for field in FACTS} == FACTS
        assert out.header.get_xyzt_units() == ("mm", "hz") and float(out.header["pixdim"][4]) == 63.0
        assert type(out) is kind

    def test_extensions(self, tmp_path):
        """Comments hold; what describes the grid of the input does not."""
        extensions = [(6, b"a comment"), (4, b"<AFNI_attributes/>"), (0, b'{"dcmmeta_shape": [7, 6, 4]}')]
        out = saved(write(tmp_path / "scan.nii.gz", extensions=extensions), tmp_path / "out")
        assert [extension.get_code() for extension in out.header.extensions] == [6]
        assert b"a comment" in bytes(str(out.header.extensions[0].get_content()), "utf-8")
        np.testing.assert_array_equal(np.asarray(out.dataobj)[..., ::2], VALUES)

    def test_slice_dimension_is_the_axis(self, tmp_path):
        volume = LoadVolume()(write(tmp_path / "scan.nii.gz", affine=oblique((4.0, 0.7, 0.9)), dim_info=0b100000))
        assert slice_geometry(volume).axis == 1

    def test_trailing_axes(self, tmp_path):
        out = saved(write(tmp_path / "scan.nii.gz", VALUES[..., None, None]), tmp_path / "out")
        assert out.shape == (7, 6, 7, 1, 1)
        np.testing.assert_array_equal(np.asarray(out.dataobj)[..., ::2, 0, 0], VALUES)


class TestGeometry:
    def test_shear(self, tmp_path):
        """A qform cannot hold it: none is written, and a warning says so."""
        affine = np.array([[0.8, 0, 0, 1], [0, 0.8, 1.2, 2], [0, 0, 5, 3], [0, 0, 0, 1.0]])
        with pytest.warns(UserWarning, match="scan.nii.gz: a volume whose slices are sheared"):
            out = saved(write(tmp_path / "scan.nii.gz", affine=affine, codes=(0, 1), qform=np.eye(4)), tmp_path / "out")
        assert int(out.header["qform_code"]) == 0 and int(out.header["sform_code"]) == 1
        np.testing.assert_allclose(out.affine, affine @ np.diag([1, 1, 0.5, 1]), atol=1e-5)
        with pytest.raises(RuntimeError, match="orthonormal"):
            sitk.ReadImage(out.get_filename())

    def test_two_places(self, tmp_path):
        path = write(tmp_path / "scan.nii.gz", codes=(1, 4), qform=np.diag([0.7, 0.9, 4.0, 1.0]))
        with pytest.warns(UserWarning, match="qform puts it at another place"):
            out = saved(path, tmp_path / "out")
        assert int(out.header["qform_code"]) == 0 and int(out.header["sform_code"]) == 4
        np.testing.assert_allclose(itk_affine(sitk.ReadImage(out.get_filename())), out.affine, atol=1e-3)

    @settings(max_examples=60, deadline=None)
    @given(affines=st.lists(AFFINES, min_size=10, max_size=10))
    def test_readers_agree(self, tmp_path_factory, affines):
        """nibabel and SimpleITK put each voxel at one place, or SimpleITK refuses a sheared volume: 600 affines."""
        folder = tmp_path_factory.getbasetemp()
        source, target = folder / "scan.nii", folder / "out.nii"  # one of each, over and over: it saves seconds
        for affine, sheared in affines:
            write_nifti(source, VALUES[:3, :4], affine)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                save_nifti(interpolate(source, SplineSliceInferer(factor=2), preprocessing=AS_IT_IS)["pred"], target)
            out, shape = nib.load(target), (3, 4, 4)
            corner, end = ([*np.subtract(size, 1), 1.0] for size in (shape, out.shape))
            np.testing.assert_allclose(out.affine @ end, nib.load(source).affine @ corner, atol=1e-3)
            assert sorted(np.subtract(out.shape, shape)) in ([0, 0, 2], [0, 0, 3])
            try:
                found = itk_affine(sitk.ReadImage(target))
            except RuntimeError:
                assert sheared
            else:
                assert np.abs((found - out.affine) @ end).max() < 0.01

    @pytest.mark.skipif("SLICEINTERP_DATA" not in os.environ, reason="SLICEINTERP_DATA is not set")
    def test_real_headers(self, tmp_path):
        """Every real file is read, and what its header states is written again."""
        files = sorted(Path(os.environ["SLICEINTERP_DATA"]).rglob("*.nii.gz"))
        assert len(files) > 50
        for file in files:
            image = nib.load(file)
            part = image.slicer[:12, :12, :4] if image.ndim == 3 else image.slicer[:12, :12, :4, :2]
            nib.save(part, tmp_path / file.name)
            source, out = nib.load(tmp_path / file.name), saved(tmp_path / file.name, tmp_path / "out")
            for field in (*FACTS, "qform_code", "sform_code", "scl_slope", "scl_inter", "xyzt_units", "datatype"):
                if field == "qform_code" and int(out.header[field]) == 0:
                    continue  # it contradicted the sform
                np.testing.assert_array_equal(out.header[field], source.header[field], err_msg=f"{file.name}: {field}")
            np.testing.assert_allclose(out.affine[:3, 3], source.affine[:3, 3], atol=1e-4)


class TestSpacing:
    def test_contradiction(self, tmp_path):
        path = write(tmp_path / "scan.nii.gz", affine=np.diag([-1.0, -1, 1, 1]), qform=np.diag([0.8, 0.8, 5.0, 1.0]))
        patched(path, 80, 0.8, 0.8, 5.0)
        with pytest.raises(
            ValueError, match="sform tells a spacing of 1 x 1 x 1 mm and its pixdim one of 0.8 x 0.8 x 5"
        ):
            LoadVolume()(path)

    @pytest.mark.parametrize("spacing", [(1e-30, 1, 1), (1, 1e30, 1), (1, 1, 2e4)])
    def test_absurd(self, tmp_path, spacing):
        path = write(tmp_path / "scan.nii.gz", codes=(0, 0), affine=np.eye(4))
        with pytest.raises(ValueError, match=r"scan.nii.gz: (the spacing is|.*NaN or infinite)"):
            LoadVolume()(patched(path, 80, *spacing))

    def test_rounded_quaternion(self, tmp_path):
        path = patched(write(tmp_path / "scan.nii.gz", codes=(1, 0), affine=np.eye(4)), 256, 0.0, 0.0, 1.0000002)
        np.testing.assert_allclose(LoadVolume()(path).affine[:3, :3], np.diag([-1, -1, 1]), atol=1e-6)


class TestStoredType:
    @pytest.mark.parametrize(("slope", "offset"), [(1.0, -1024.0), (0.5, 10.0), (2.37, -31.4), (1e-3, 0.0)])
    @pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.uint16])
    def test_slope_and_offset(self, tmp_path, slope, offset, dtype):
        """The same integers at observed slices, with the same slope and offset."""
        stored = (VALUES + 1000).astype(dtype)
        path = write(tmp_path / "scan.nii.gz", stored)
        patched(path, 112, slope, offset)
        values = LoadVolume()(path)
        np.testing.assert_allclose(values.numpy()[0], nib.load(path).get_fdata(), rtol=1e-6)
        out = saved(path, tmp_path / "out")
        assert out.get_data_dtype() == dtype
        np.testing.assert_allclose((out.dataobj.slope, out.dataobj.inter), (slope, offset), rtol=1e-6)
        np.testing.assert_array_equal(out.dataobj.get_unscaled()[..., ::2], stored)

    @pytest.mark.parametrize(
        ("values", "kind"), [([-3, 4], "int8"), ([0, 255], "uint8"), ([-3, 400], "int16"), ([0, 70000], "uint32")]
    )
    @pytest.mark.parametrize("dtype", [np.int64, np.uint64])
    def test_64_bits(self, tmp_path, values, kind, dtype):
        if min(values) < 0 and dtype == np.uint64:
            values, kind = np.abs(values), {"int8": "uint8", "int16": "uint16"}[kind]
        stored = np.resize(np.array(values, dtype), SHAPE)
        nib.save(nib.Nifti1Image(stored, oblique(), dtype=dtype), tmp_path / "scan.nii.gz")
        out = saved(tmp_path / "scan.nii.gz", tmp_path / "out")
        assert out.get_data_dtype() == kind
        np.testing.assert_array_equal(np.asarray(out.dataobj)[..., ::2], stored)

    def test_too_large(self, tmp_path):
        nib.save(nib.Nifti1Image(np.full(SHAPE, 2**40), oblique(), dtype=np.int64), tmp_path / "scan.nii")
        with pytest.raises(
            ValueError, match="has integers from 1099511627776 to .* expected some that fit into 32 bits"
        ):
            LoadVolume()(tmp_path / "scan.nii")

    def test_float(self, tmp_path):
        out = saved(write(tmp_path / "scan.nii", VALUES / np.float32(3)), tmp_path / "out")
        assert out.get_data_dtype() == np.float32

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_slope_of_floats(self, tmp_path, dtype):
        """It is applied, and not written again."""
        path = patched(write(tmp_path / "scan.nii.gz", (VALUES / 3).astype(dtype)), 112, 0.5, 10.0)
        out = saved(path, tmp_path / "out")
        assert out.get_data_dtype() == dtype and (out.dataobj.slope, out.dataobj.inter) == (1, 0)
        np.testing.assert_array_equal(
            out.get_fdata()[..., ::2], ((VALUES / 3).astype(dtype) * 0.5 + 10.0).astype(dtype)
        )

    @pytest.mark.parametrize(("slope", "offset"), [(0.0, 0.0), (np.nan, 0.0), (1.0, np.inf)])
    def test_no_slope(self, slope, offset):
        told = (
            f"its values have the slope {slope:g} and the offset {offset:g}; expected finite numbers, and a slope other"
        )
        with pytest.raises(UnusableFile, match=f"^{told} than 0\\.$"):
            whole_values(VALUES, slope, offset)
