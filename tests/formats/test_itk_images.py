# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Text headers of MetaImage and NRRD files: units, series of volumes, and what native readers must not see."""

from __future__ import annotations

import gzip
import re
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor

from monai_sliceinterp.inferers import SplineSliceInferer
from monai_sliceinterp.transforms import LoadVolume, SaveVolumed
from monai_sliceinterp.transforms.saving import save_like
from tests.volumes import interpolate

VALUES = np.random.default_rng(0).integers(-900, 900, (7, 6, 4)).astype("<i2")
META = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "ElementSpacing": "0.8 0.9 5",
    "DimSize": "7 6 4",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}
NRRD = {
    "type": "short",
    "dimension": "3",
    "sizes": "7 6 4",
    "endian": "little",
    "space": "RAS",
    "space directions": "(0.8,0,0) (0,0.9,0) (0,0,5)",
    "space origin": "(1,2,3)",
    "encoding": "raw",
}


def meta_image(path, data=None, **changes):
    fields = {key: value for key, value in {**META, **changes}.items() if value is not None}
    fields["ElementDataFile"] = fields.pop("ElementDataFile")  # it comes last
    text = "".join(f"{key} = {value}\n" for key, value in fields.items())
    path.write_bytes(text.encode() + (VALUES.T.tobytes() if data is None else data))
    return path


def nrrd(path, data=None, **changes):
    fields = {key: value for key, value in {**NRRD, **changes}.items() if value is not None}
    text = "NRRD0005\n" + "".join(f"{key.replace('_', ' ')}: {value}\n" for key, value in fields.items())
    path.write_bytes(text.encode() + b"\n" + (VALUES.T.tobytes() if data is None else data))
    return path


def refused(path, text):
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        LoadVolume()(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [meta_image, nrrd])
def test_plain(tmp_path, make):
    volume = LoadVolume()(make(tmp_path / ("a.mha" if make is meta_image else "a.nrrd")))
    np.testing.assert_array_equal(volume.numpy()[0], VALUES)
    np.testing.assert_allclose(volume.pixdim, (0.8, 0.9, 5))


@pytest.mark.parametrize(("unit", "mm"), [("um", 1e-3), ("µm", 1e-3), ("micron", 1e-3), ("cm", 10), ("mm", 1), ("", 1)])
def test_units(tmp_path, unit, mm):
    volume = LoadVolume()(nrrd(tmp_path / "a.nrrd", space_units=" ".join([f'"{unit}"'] * 3)))
    np.testing.assert_allclose(volume.pixdim, np.multiply((0.8, 0.9, 5), mm))
    np.testing.assert_allclose(volume.affine[:3, 3], np.multiply((1, 2, 3), mm))


def test_sequence(tmp_path):
    """A series of volumes as 3D Slicer writes it: frames first."""
    frames = np.stack([VALUES, VALUES + 3])
    path = nrrd(
        tmp_path / "a.seq.nrrd",
        frames.T.tobytes(),
        dimension=4,
        sizes="2 7 6 4",
        kinds="list domain domain domain",
        **{"space directions": f"none {NRRD['space directions']}"},
    )
    np.testing.assert_array_equal(LoadVolume()(path).numpy(), frames)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".gipl", ".vtk", ".hdr", ".jpg", ".npy"])
def test_not_listed(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"something")
    refused(path, "the spacing is zero or missing" if suffix == ".tif" else "is none of the files that are read")


def test_tiff_with_spacing(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(VALUES.T.astype(np.uint16)), str(tmp_path / "a.tif"))
    volume = LoadVolume(spacing=(0.8, 0.9, 5))(tmp_path / "a.tif")
    np.testing.assert_array_equal(volume.numpy()[0], VALUES.astype(np.uint16))
    np.testing.assert_allclose(volume.pixdim, (0.8, 0.9, 5))


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("frames", [1, 2])
def test_same_format(tmp_path, suffix, frames):
    """Written back in the format they came in, at the places they had."""
    image = sitk.GetImageFromArray(np.stack([VALUES.T] * frames) if frames > 1 else VALUES.T, isVector=False)
    image.SetSpacing((0.8, 0.9, 5.0, 2.0)[: 3 + (frames > 1)])
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    save = SaveVolumed("pred", tmp_path / "out", same_format=True)
    path = interpolate(tmp_path / f"a{suffix}", SplineSliceInferer(factor=2), save)["pred"].meta["saved_to"]
    assert path.endswith(f"a_interp{suffix}")
    out = sitk.ReadImage(path)
    assert out.GetPixelID() == sitk.sitkInt16
    np.testing.assert_allclose(out.GetSpacing()[:3], (0.8, 0.9, 2.5))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(out).reshape(frames, 7, 6, 7)[0, ::2], VALUES.T)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_what_only_nifti_holds(tmp_path, suffix):
    """Sheared slices, and stored integers with a slope."""
    sheared = MetaTensor(torch.zeros(1, 7, 6, 4), affine=torch.eye(4) + 0.2 * torch.eye(4)[[3, 2, 3, 3]].T)
    scaled = MetaTensor(
        torch.zeros(1, 7, 6, 4), meta={"packed_dtype": "int16", "packed_slope": 0.5, "packed_offset": 0.0}
    )
    for volume, fault in (
        (sheared, "the slices are sheared (a tilted gantry)"),
        (scaled, "values with a slope of 0.5"),
    ):
        with pytest.raises(ValueError) as caught:
            save_like(volume, tmp_path / f"a{suffix}")
        message = str(caught.value)
        assert message.startswith(str(tmp_path)) and "\n" not in message
        assert message.endswith(f"{suffix}: {fault}; expected NIfTI for them.")
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"NDims": "-1"}, "its NDims is -1 and it has 3 sizes"),
        ({"NDims": "9999999999"}, "its NDims is 9999999999"),
        ({"NDims": None}, "its header has no NDims"),
        ({"DimSize": "7 6 x"}, "its DimSize is '7 6 x'; expected whole numbers"),
        ({"DimSize": "7 6 -4"}, "its size is 7 x 6 x -4 voxels"),
        ({"DimSize": "7 6 400"}, "its header tells of 33600"),
        ({"ElementType": "MET_STRING"}, "its ElementType is MET_STRING"),
        ({"ElementType": None}, "its ElementType is missing"),
        ({"ElementSpacing": None}, "the spacing is zero or missing"),
        ({"ElementSpacing": "nan 1 1"}, "its spacing is nan x 1 x 1"),
        ({"ElementSpacing": "0.8"}, "its spacing is 0.8; expected three"),
        (
            {"ElementDataFile": "../secret.raw"},
            "said to be in '../secret.raw'; expected the name of one file beside it",
        ),
        ({"ElementDataFile": "/etc/passwd"}, "expected the name of one file beside it"),
        ({"ElementDataFile": "s%s%s%n%n.raw 1 4 1"}, "expected the name of one file beside it"),
        ({"ElementDataFile": "LIST"}, "expected the name of one file beside it"),
        ({"ElementDataFile": "gone.raw"}, "gone.raw, which is missing"),
        ({"CompressedData": "True"}, "compressed voxels without CompressedDataSize"),
    ],
)
def test_meta_image_refused(tmp_path, changes, text):
    refused(meta_image(tmp_path / "a.mha", **changes), text)


@pytest.mark.parametrize(
    ("data", "size", "text"),
    [
        (zlib.compress(bytes(100)), 0, "are 100 bytes and its header tells of 336"),
        (zlib.compress(bytes(10**7)), 0, "are more bytes and its header tells of 336"),
        (zlib.compress(VALUES.tobytes())[:-9], 0, "end early"),
        (zlib.compress(VALUES.tobytes()), -40, "end early"),
        (zlib.compress(VALUES.tobytes()), 40, "end early"),
        (b"\x78\x9c" + bytes(60), 0, "damaged"),
    ],
)
def test_compressed_refused(tmp_path, data, size, text):
    """ITK would return memory that was never written."""
    size += len(data)
    refused(meta_image(tmp_path / "a.mha", data, CompressedData="True", CompressedDataSize=size), text)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"space units": '"furlong" "furlong" "furlong"'}, "its units of length are furlong"),
        ({"space units": '"mm" "mm" "um"'}, "its units of length are mm, um"),
        ({"space directions": "none none none"}, "its spacing is nan"),
        ({"space directions": "(nan,0,0) (0,1,0) (0,0,1)"}, "its spacing is nan"),
        ({"space directions": None, "spacings": "nan nan nan"}, "its spacing is nan x nan x nan"),
        ({"space directions": None}, "the spacing is zero or missing"),
        ({"sizes": "7 6"}, "its dimension is 3 and it has 2 sizes"),
        ({"sizes": "7 6 9"}, "holds 336 bytes of voxels and its header tells of 756"),
        ({"data file": "/etc/passwd"}, "expected the name of one file beside it"),
        ({"data file": "../../x.raw"}, "expected the name of one file beside it"),
        ({"data file": "a%03d.raw 1 4 1"}, "expected the name of one file beside it"),
        ({"encoding": "gzip"}, "damaged"),
    ],
)
def test_nrrd_refused(tmp_path, changes, text):
    refused(nrrd(tmp_path / "a.nrrd", **changes), text)


def test_nrrd_compressed(tmp_path):
    volume = LoadVolume()(nrrd(tmp_path / "a.nrrd", gzip.compress(VALUES.T.tobytes()), encoding="gzip"))
    np.testing.assert_array_equal(volume.numpy()[0], VALUES)
    refused(nrrd(tmp_path / "b.nrrd", gzip.compress(bytes(50)), encoding="gzip"), "are 50 bytes")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd"])
def test_empty(tmp_path, suffix):
    (tmp_path / f"a{suffix}").touch()
    refused(tmp_path / f"a{suffix}", "is empty")
