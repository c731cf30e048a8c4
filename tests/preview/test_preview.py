# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""What is shown of a scan before and after interpolation, and the picture of it."""

import base64
import gzip
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from monai.data import MetaTensor
from PIL import Image

from monai_sliceinterp.geometry import OutputGrid, plane_names
from monai_sliceinterp.preview import display_windows, load_pair, plane_view, write_preview
from monai_sliceinterp.preview.__main__ import main
from monai_sliceinterp.preview.embedding import embed_map, embed_pair
from monai_sliceinterp.preview.picture import _mark_observed
from monai_sliceinterp.transforms import LoadVolume
from tests.dicom_series import write_series
from tests.preview.conftest import FACTOR
from tests.volumes import oblique, write_nifti

NOT_TOLD = r"tells no observed slices.*; expected the provenance of \S+scan_interp\.nii\.gz"


class TestPair:
    def test_grid_and_observed(self, scan):
        pair = load_pair(*scan)
        thick, thin = (nib.load(path).get_fdata() for path in scan)
        np.testing.assert_array_equal(pair.thin.numpy(), thin)
        assert pair.observed.nonzero()[:, 0].tolist() == list(range(0, 19, FACTOR))
        assert pair.spacing == pytest.approx((4.0, 4.0 / FACTOR))
        places = np.arange(19) / FACTOR
        expected = np.apply_along_axis(lambda line: np.interp(places, range(7), line), 2, thick)
        np.testing.assert_allclose(pair.linear().numpy(), expected, atol=1e-3)

    def test_provenance_goes_first(self, scan, with_provenance):
        pair = load_pair(scan[0], with_provenance)
        assert pair.observed.nonzero()[:, 0].tolist() == [0, 3] and pair.method == "saint"

    def test_restored_slices_are_not_observed(self, scan, tmp_path):
        """Slices that lie on the input's but differ from them, as VTS makes them."""
        image = nib.load(scan[1])
        path = write_nifti(tmp_path / "thin.nii.gz", (image.get_fdata() + 1).astype(np.int16), image.affine)
        assert not load_pair(scan[0], path).observed.any()

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
    def test_turned_output(self, scan, tmp_path, order):
        image = nib.load(scan[1])
        turned = image.as_reoriented(np.array([[place, -1 if place == 2 else 1] for place in order]))
        nib.save(turned, tmp_path / "thin.nii.gz")
        pair = load_pair(scan[0], tmp_path / "thin.nii.gz")
        np.testing.assert_array_equal(pair.thin.numpy(), image.get_fdata())
        assert pair.observed.sum() == 7

    def test_missing_slices_of_a_series(self, tmp_path):
        """Uneven slices keep their places in mm."""
        volume = np.stack([np.full((16, 12), 100.0 * k) for k in range(6)], axis=-1).astype(np.int16)
        write_series(tmp_path / "series", volume, np.diag([1.0, 1.0, 2.0, 1.0]), drop=[3])
        affine = LoadVolume()(tmp_path / "series").affine.numpy()
        pair = load_pair(tmp_path / "series", write_nifti(tmp_path / "thin.nii.gz", volume, affine))
        assert pair.linear()[4, 4].tolist() == pytest.approx([0, 100, 200, 300, 400, 500])
        assert pair.observed.tolist() == [k != 3 for k in range(6)]

    @pytest.mark.parametrize(
        ("shape", "spacing", "message"),
        [
            ((40, 36, 19), (0.7, 0.9, 2.0), "do not lie on those of"),
            ((40, 36, 20), (0.7, 0.9, 4 / 3), "20 slices, 1.33333 mm apart, do not lie"),
            ((40, 35, 19), (0.7, 0.9, 4 / 3), "is 40 x 35 x 19 voxels large"),
            ((40, 36, 5), (0.7, 0.9, 8.0), "coarser than the input's"),
        ],
    )
    def test_of_another_scan(self, scan, tmp_path, shape, spacing, message):
        path = write_nifti(tmp_path / "other.nii.gz", np.zeros(shape, np.int16), oblique(spacing))
        with pytest.raises(ValueError, match=f"other.nii.gz: .*{message}"):
            load_pair(scan[0], path)

    @pytest.mark.parametrize(
        ("told", "message"),
        [
            ({"ObservedSlices": [99]}, NOT_TOLD),
            ({"ObservedSlices": [0, 19], "NumberOfSlices": {"Output": 19}}, NOT_TOLD),
            (
                {"ObservedSlices": [0], "NumberOfSlices": {"Output": 20}},
                r"is about another number of slices than \S+scan_interp\.nii\.gz has",
            ),
        ],
    )
    def test_broken_provenance(self, scan, with_provenance, told, message):
        path = with_provenance.with_name("scan_interp.json")
        path.write_text(json.dumps({"SliceInterpolation": told}))
        with pytest.raises(ValueError, match=rf"^{path}: {message}\.$"):
            load_pair(scan[0], with_provenance)


def test_views_are_those_of_nibabel():
    """Whatever the order of axes: the plane of the canonical image, turned to the reader."""
    volume, affine = np.random.default_rng(0).random((4, 5, 6)), oblique()[:, [1, 2, 0, 3]]
    affine[:3, 0] *= -1
    canonical = nib.as_closest_canonical(nib.Nifti1Image(volume, affine)).get_fdata()
    names = plane_names(affine)
    for world, (name, size) in enumerate(zip(("sagittal", "coronal", "axial"), canonical.shape, strict=True)):
        axis = [part.split()[-1] for part in names].index(name)
        index = nib.io_orientation(affine)[axis, 1]
        view = plane_view(volume, affine, axis, 1 if index > 0 else size - 2)
        expected = np.flip(np.take(canonical, 1, axis=world).T)
        np.testing.assert_allclose(view.image, expected, rtol=1e-6)
    assert plane_names(oblique()) == ("oblique sagittal", "oblique coronal", "oblique axial")
    assert plane_names(np.diag([-1.0, 1, 3, 1])[[0, 2, 1, 3]]) == ("sagittal", "axial", "coronal")


def test_windows():
    rng = np.random.default_rng(0)
    chest = np.concatenate([np.full(100, -1000.0), rng.normal(-800, 30, 50), rng.normal(40, 30, 200)])
    assert [window.name for window in display_windows(chest)] == ["body window", "lung window"]
    assert [window.name for window in display_windows(np.delete(chest, range(100, 150)))] == ["body window"]
    values = rng.gamma(2, 100, (50, 50))
    (window,) = display_windows(values)
    assert (window.low, window.high) == pytest.approx(tuple(np.percentile(values, [0.5, 99.5])))
    values = np.zeros(10_000)
    values[5] = 7.0  # bright pixels too few for the percentiles
    assert display_windows(values)[0][1:] == (0.0, 7.0) and display_windows(0 * values)[0][1:] == (0.0, 1.0)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (0, 2, 1)])
@pytest.mark.parametrize("sign", [1, -1])
def test_marks_are_at_observed_slices(scan, order, sign):
    """Beside the rows or columns that are those slices, wherever they are counted from; not where all is one slice."""
    affine, observed = (
        np.diag([0.7, 0.9, sign * 4 / 3, 1.0])[[*order, 3]],
        torch.isin(torch.arange(19), torch.tensor([0, 1, 5])),
    )
    thin = MetaTensor(observed.float().repeat(40, 36, 1), affine=affine)
    for axis in range(3):
        axes, image = Figure().subplots(), plane_view(thin, affine, axis, 0).image
        _mark_observed(axes, replace(load_pair(*scan), thin=thin, observed=observed), axis, (100.0, 100.0))
        marks = [segment for lines in axes.collections for segment in lines.get_segments()]
        places = [
            sorted(np.unique(segment[:, k])[0] for segment in marks if np.ptp(segment[:, k]) == 0) for k in (1, 0)
        ]
        expected = [np.flatnonzero(image.all(axis=across)).tolist() for across in (1, 0)]
        assert places == (expected if axis != 2 else [[], []])


def unpacked(text):
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


class TestEmbedding:
    @pytest.mark.parametrize(
        ("kind", "largest", "reduction"), [("int16", 10**9, 1), ("float32", 10**9, 1), ("int16", 20_000, 2)]
    )
    def test_what_the_page_adds_up(self, kind, largest, reduction):
        """Linear interpolation of what is stored, plus what is stored beside it, is the output."""
        thick = np.random.default_rng(0).normal(0, 500, (64, 66, 4))
        thin = np.random.default_rng(1).normal(0, 500, (64, 66, 7))
        thick, thin = (array.astype(kind) for array in (thick, thin))
        pair = [MetaTensor(array, affine=oblique()) for array in (thick, thin)]
        embedded = embed_pair(*pair, OutputGrid.from_factor(4, 2), largest)
        assert embedded.reduction == reduction
        files = {name: unpacked(text) for name, text in embedded.texts.items()}
        stored = {name: np.asanyarray(file.dataobj.get_unscaled()).astype(int) for name, file in files.items()}
        between = np.floor((stored["input"][..., :-1] + stored["input"][..., 1:]) / 2 + 0.5)
        linear = np.insert(stored["input"], (1, 2, 3), between, axis=-1)
        result = (stored["output"] + linear + 2**15) % 2**16 - 2**15
        slope, offset = files["output"].dataobj.slope, files["output"].dataobj.inter
        blocks = thin.reshape(64 // reduction, reduction, 66 // reduction, reduction, 7).mean(axis=(1, 3))
        assert abs(result * slope + offset - blocks).max() <= (embedded.rounded or 0.5 * (reduction > 1)) * 1.01
        first = nib.affines.apply_affine(files["output"].affine, (0, 0, 0))
        np.testing.assert_allclose(
            first, nib.affines.apply_affine(oblique(), ((reduction - 1) / 2, (reduction - 1) / 2, 0)), atol=1e-4
        )

    def test_map(self):
        volume = torch.linspace(0, 8, 64 * 64 * 3).reshape(64, 64, 3)
        shown = unpacked(embed_map(MetaTensor(volume), limit=4.0)).get_fdata()
        assert abs(shown - volume.clamp(max=4).numpy()).max() <= 4 / 63 / 2 * 1.01
        assert unpacked(embed_map(MetaTensor(torch.rand(128, 128, 3)), 1.0, largest=4000)).shape == (42, 42, 3)


def test_picture_and_command(scan, tmp_path, capsys):
    path = write_preview(*scan, tmp_path / "scan_preview.png")
    assert Image.open(path).size[0] == pytest.approx(12 * 130, abs=20)
    with pytest.raises(ValueError, match="scan_preview.png: exists already"):
        write_preview(*scan, path)
    assert main([*map(str, scan), "--output_dir", str(tmp_path / "new"), "--method", "cubic"]) == 0
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["scan_preview.png", "scan_viewer.html"]
    assert main([*map(str, scan), "--output_dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: ") and not (tmp_path / "scan_viewer.html").exists()
