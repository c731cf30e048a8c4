# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Headers with a wrong value in each field: one line that names the file, and no voxels; and headers at random.

``SLICEINTERP_FUZZ`` in the environment is the number of random headers of each format, for a run at night.
"""

import gzip
import os
import zlib

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_sliceinterp.transforms import LoadVolume
from tests.dicom_series import write_series

SHAPE = (7, 6, 5)
VOXELS = np.random.default_rng(0).integers(-999, 999, SHAPE).astype(np.int16)
AFFINE = np.diag([1.0, 1.0, 4.0, 1.0])
STORED = VOXELS.tobytes(order="F")
FUZZ = settings(
    max_examples=int(os.environ.get("SLICEINTERP_FUZZ", 60)),
    deadline=None,
    derandomize="SLICEINTERP_FUZZ" not in os.environ,
    suppress_health_check=list(HealthCheck),
    database=None,
)


def nifti(kind, compress=False, **fields):
    image = kind(VOXELS, AFFINE)
    image.header.set_xyzt_units("mm")
    header = image.header.structarr
    content = bytearray(image.to_bytes())
    for name, value in fields.items():
        dtype, offset = header.dtype.fields[name][:2]
        content[offset : offset + dtype.itemsize] = (
            np.resize(np.asarray(value), dtype.shape).astype(dtype.base).tobytes()
        )
    return gzip.compress(bytes(content)) if compress else bytes(content)


def lines(first, fields, changes, separator, last=()):
    known = {**fields, **changes}
    order = [*(key for key in known if key not in last), *(key for key in last if key in known)]
    return (first + "".join(f"{key}{separator}{known[key]}\n" for key in order if known[key] is not None)).encode()


META = {
    "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False", "DimSize": "7 6 5",
    "ElementSpacing": "1 1 4", "ElementType": "MET_SHORT", "ElementDataFile": "LOCAL",
}  # fmt: skip
NRRD = {
    "type": "short", "dimension": "3", "space": "left-posterior-superior", "sizes": "7 6 5", "endian": "little",
    "space directions": "(1,0,0) (0,1,0) (0,0,4)", "encoding": "raw",
}  # fmt: skip


def meta_image(data=STORED, **changes):
    return lines("", META, changes, " = ", last=("ElementDataFile",)) + data


def nrrd(data=STORED, **changes):
    return (
        lines("NRRD0004\n", NRRD, {key.replace("_", " "): value for key, value in changes.items()}, ": ") + b"\n" + data
    )


NUMBERS = (
    "",
    "x",
    "nan",
    "inf",
    "-1 6 5",
    "0 6 5",
    "7 6",
    "7 6 5 1",
    "1e9",
    "99999999999 6 5",
    "7.5 6 5",
    "-7 -6 5",
    "7,6,5",
)
LENGTHS = ("0 1 4", "nan nan nan", "inf 1 4", "x y z", "1e-30 1 4", "1e30 1 4", "1 1")
PACKED = zlib.compress(STORED)
NAN, INF = float("nan"), float("inf")

FIELDS = [  # a field of a format, and what is wrong in it; None: it is missing
    (meta_image, "mha", "NDims", ("-1", "0", "1", "2", "6", "x", "", None, "3 3", "1e9")),
    (meta_image, "mha", "DimSize", (*NUMBERS, None)),
    (meta_image, "mha", "ElementSpacing", (*LENGTHS, None)),
    (meta_image, "mha", "ElementType", ("MET_", "SHRT", "MET_STRING", "", None, "MET_DOUBLE")),
    (meta_image, "mha", "ElementNumberOfChannels", ("x", "2", "-1", "99999999")),
    (meta_image, "mhd", "ElementDataFile", ("s%s%n.raw 1 4 1", "%d.raw 1 4 1", "/etc/passwd", "LIST", "", "no.raw")),
    (meta_image, "mhd", "ElementDataFile", ("a\\b.raw", "LIST 2", "../a.raw")),
    (nrrd, "nrrd", "dimension", ("-1", "0", "1", "2", "9", "x", "", None)),
    (nrrd, "nrrd", "sizes", (*NUMBERS, None)),
    (nrrd, "nrrd", "space_directions", ("none none none", "(1,0,0) none (0,0,4)", "(1,0,0)", "", "x", None)),
    (nrrd, "nrrd", "space_directions", tuple(f"({x},0,0) (0,1,0) (0,0,4)" for x in ("nan", "inf", "0", "1e30"))),
    (nrrd, "nrrd", "encoding", ("gzip", "bzip2", "hex", "", "x")),
    (nrrd, "nrrd", "type", ("double", "block", "x", "", None, "int64")),
    (nrrd, "nrrd", "space_units", ('"mm" "mm" "cm"', '"pixel" "pixel" "pixel"')),
    (nrrd, "nhdr", "data_file", ("../a.raw", "/etc/passwd", "LIST", "no.raw", "s%03d.raw 1 5 1")),
]
STEPS = ((0, 1, 4), (NAN, 1, 4), (INF, 1, 4), (1e30, 1, 4), (1e-30, 1, 4))
BAD_SIZES = ((0, 6, 5), (-7, 6, 5), (7, 6, 1), (7, 6, 32767), (30000, 30000, 30000))
NIFTI = [
    *({"dim": (count, 7, 6, 5, 1, 1, 1, 1)} for count in (0, 1, 2, 9, -3)),
    *({"dim": (3, *sizes, 1, 1, 1, 1)} for sizes in BAD_SIZES),
    *({"datatype": code} for code in (0, 1, 32, 128, 999, -4)),
    *({"vox_offset": offset} for offset in (10**6, -(10**6))),
    *({"sform_code": 0, "qform_code": 0, "pixdim": (1, *steps, 1, 1, 1, 1)} for steps in STEPS),
    *({row: values} for row in ("srow_x", "srow_y", "srow_z") for values in (0, NAN, INF)),
    {"scl_slope": 1, "scl_inter": INF},
    {"magic": b"xxxx"},
]


def packed(data, **changes):
    """A MetaImage with compressed voxels."""
    return meta_image(data, **{"CompressedData": "True", "CompressedDataSize": len(data), **changes})


# what is written, by the file's name
CASES = {
    f"{number}_{field}_{k}.{suffix}": make(b"" if suffix in ("mhd", "nhdr") else STORED, **{field: value})
    for number, (make, suffix, field, values) in enumerate(FIELDS)
    for k, value in enumerate(values)
}
CASES |= {f"spacings_{k}.nrrd": nrrd(space_directions=None, space=None, spacings=x) for k, x in enumerate(LENGTHS)}
CASES |= {
    f"cut_{n}.{suffix}": make(STORED[:n]) for n in (0, 1, 100, 419) for make, suffix, *_ in (FIELDS[0], FIELDS[7])
}
CASES |= {f"packed_{n}.mha": packed(zlib.compress(STORED[:n])) for n in (0, 100, 419)}
CASES |= {f"packed_cut_{n}.mha": packed(PACKED[:n]) for n in (0, 20, len(PACKED) - 5)}
CASES |= {f"packed_size_{x}.mha": packed(PACKED, CompressedDataSize=x) for x in (None, "x", "3", "99999999", "")}
CASES |= {"packed_more.mha": packed(zlib.compress(STORED * 2)), "packed_no.mha": packed(b"x" * len(PACKED))}
CASES |= {
    f"{kind.__name__}_{k}.{suffix}": nifti(kind, suffix == "nii.gz", **fields)
    for kind in (nib.Nifti1Image, nib.Nifti2Image)
    for suffix in ("nii", "nii.gz")
    for k, fields in enumerate(NIFTI)
}


def load(path, content):
    path.write_bytes(content)
    return LoadVolume()(path)


@pytest.mark.parametrize("name", CASES)
def test_wrong_field(name, tmp_path):
    path = tmp_path / name
    with pytest.raises(ValueError) as caught:
        load(path, CASES[name])
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path)) and list(tmp_path.iterdir()) == [path]


@st.composite
def damaged(draw, content, header):
    """The file with some bytes of its header changed, perhaps cut."""
    byte = st.sampled_from([0, 1, 32, 45, 48, 57, 127, 128, 255]) | st.integers(0, 255)
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        content[draw(st.integers(0, header - 1))] = draw(byte)
    return bytes(content[: draw(st.sampled_from([None, None, None, len(content) // 2, len(content) - 7]))])


def check_fuzzed(path, content, num_bytes):
    """No more voxels than the file has bytes for, or an error in one line."""
    try:
        found = load(path, content)
    except ValueError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        item = min(
            np.dtype(found.meta["stored_dtype"]).itemsize, np.dtype(found.meta.get("packed_dtype", "f8")).itemsize
        )
        assert found.numel() * (1 if item == 8 else item) <= num_bytes


FORMATS = {  # a file, and how much of it is the header
    "a.nii": (nifti(nib.Nifti1Image), 352),
    "b.nii": (nifti(nib.Nifti2Image), 544),
    "c.mha": (meta_image(), len(meta_image(b""))),
    "d.nrrd": (nrrd(), len(nrrd(b""))),
    "e.mha": (packed(PACKED), len(packed(PACKED))),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FORMATS)
def test_random_damage(name, tmp_path):
    whole, header = FORMATS[name]
    np.testing.assert_array_equal(load(tmp_path / name, whole)[0].numpy(), VOXELS)

    @FUZZ
    @given(damaged(whole, header))
    def check(content):
        check_fuzzed(tmp_path / name, content, len(content) + len(STORED))

    check()


@pytest.mark.filterwarnings("ignore")
def test_random_damage_of_dicom(tmp_path):
    """Of one file of a series."""
    paths = write_series(tmp_path / "series", VOXELS, AFFINE)
    whole = paths[2].read_bytes()

    @FUZZ
    @given(damaged(whole, len(whole) - len(STORED) // SHAPE[2]))
    def check(content):
        paths[2].write_bytes(content)
        try:
            assert LoadVolume()(tmp_path / "series").shape[1:3] == SHAPE[:2]
        except ValueError as error:
            assert str(tmp_path / "series") in str(error) and "\n" not in str(error)

    check()
