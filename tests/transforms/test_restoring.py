# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Flipd, SpatialPadd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from monai_sliceinterp.inferers import LatentSliceInferer, MultiViewSliceInferer, SplineSliceInferer
from monai_sliceinterp.networks.nets import SAINT, ASIAutoencoder
from monai_sliceinterp.transforms import (
    DisagreementMapd,
    InvertibleScaleIntensityRanged,
    RestoreVolumed,
    SaveVolumed,
    ThroughPlaneLastd,
    cast_to,
)
from monai_sliceinterp.transforms.missing import FillMissingd
from tests.volumes import oblique, preprocess, write_nifti

NAN = float("nan")
WINDOW = (-1024.0, 2976.0)


def make_scan(axis=2, dtype=torch.int16, channels=1, num_slices=9, size=(5, 6), seed=0, **meta):
    shape, spacing = list(size), [0.7, 0.9]
    shape.insert(axis, num_slices)
    spacing.insert(axis, 4.0)
    values = torch.randn(channels, *shape, generator=torch.Generator().manual_seed(seed)) * 300
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    return MetaTensor(cast_to(values, dtype), affine=affine, meta=meta)


def prepare(scan, inferer, network=None, axis=None, extra=()):
    """Data as they reach the postprocessing, and the preprocessing they have gone through."""
    steps = [*extra, ThroughPlaneLastd("image", axis=axis), InvertibleScaleIntensityRanged("image", -400, 500)]
    preprocessing = Compose([FillMissingd("image"), *steps])
    data = preprocessing({"image": scan.clone(), "original": scan.clone()})
    data["pred"] = inferer(data["image"][None], network)[0]
    return data, preprocessing


def by_whole(data, preprocessing, dtype):
    """The volume restored in one piece."""
    pred = MetaTensor(data["pred"].as_tensor().clone()).copy_meta_from(data["pred"])
    restored = preprocessing.inverse({"image": pred})["image"]
    return cast_to(restored.as_tensor(), dtype), restored.affine


class Allocations(TorchDispatchMode):
    """Sizes in bytes of the memory that torch's operations ask for."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        known = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if torch.is_tensor(x)}
        for x in tree_leaves(result):
            if torch.is_tensor(x) and x.untyped_storage().data_ptr() not in known:
                self.sizes.append(x.untyped_storage().nbytes())
        return result

    def larger_than(self, size):
        return [one for one in self.sizes if one > size]


def restore(data, preprocessing, release=False):
    return RestoreVolumed("pred", preprocessing, release=release)(data)["pred"]


DTYPES = [torch.uint8, torch.int16, torch.int64, torch.float16, torch.float32, torch.float64]


@pytest.mark.parametrize("release", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
class TestSlabs:
    @pytest.mark.parametrize(
        ("axis", "dtype", "extra", "count"),
        [
            *((axis, dtype, (), 33) for axis in range(3) for dtype in DTYPES),
            # a flip along the slices or slices that were added cannot be undone a few at a time, padding in-plane can
            (2, torch.int16, [Flipd("image", 2)], 33),
            (2, torch.int16, [SpatialPadd("image", (-1, -1, 11))], 39),
            (2, torch.int16, [SpatialPadd("image", (9, 8, -1))], 33),
        ],
    )
    def test_as_in_one_piece(self, axis, dtype, extra, count, channels, release):
        """33 slices, twice and a bit what is restored at once; nothing pasted."""
        scan = make_scan(axis, dtype, channels, note="kept")
        data, preprocessing = prepare(scan, SplineSliceInferer(factor=4, keep_observed=False), extra=extra)
        expected, affine = by_whole(data, preprocessing, dtype)
        before = data["pred"].as_tensor().clone()
        result = restore(data, preprocessing, release)
        assert result.dtype == dtype and torch.equal(result.as_tensor(), expected)
        assert result.shape[axis + 1] == count and result.numel() == channels * 5 * 6 * count
        assert torch.equal(result.affine, affine) and result.meta["note"] == "kept"
        assert extra or (data["pred"].numel() == 0 if release else torch.equal(data["pred"].as_tensor(), before))
        assert torch.equal(data["original"].as_tensor(), scan.as_tensor())

    @pytest.mark.parametrize("axis", [0, 2])
    def test_observed_slices(self, axis, channels, release):
        scan = make_scan(axis, torch.int32, channels)
        data, preprocessing = prepare(scan, SplineSliceInferer(spacing=1.6))
        expected, _ = by_whole(data, preprocessing, torch.int32)
        expected.movedim(axis + 1, -1)[..., ::5] = scan.as_tensor().movedim(axis + 1, -1)[..., ::2]  # at 0, 8, ... mm
        assert torch.equal(restore(data, preprocessing, release).as_tensor(), expected)

    def test_stored_type(self, channels, release):
        """What was read from uint16 into int32 stays within uint16."""
        scan = make_scan(2, torch.int32, channels, stored_dtype="uint16")
        data, preprocessing = prepare(scan, SplineSliceInferer(factor=2, keep_observed=False))
        expected, _ = by_whole(data, preprocessing, torch.int32)
        assert expected.min() < 0
        assert torch.equal(restore(data, preprocessing, release).as_tensor(), expected.clamp(0, 65535))


class TestMemory:
    @pytest.mark.parametrize("axis", [0, 2])
    @pytest.mark.parametrize("release", [False, True])
    def test_restoring(self, axis, release):
        """Only the result is as large as a tenth of a volume; with `release` it takes the memory that is there."""
        inferer = SplineSliceInferer(factor=4, mode="linear")
        data, preprocessing = prepare(make_scan(axis, num_slices=200, size=(20, 24)), inferer)
        pred = data["pred"].as_tensor()
        place, size = pred.untyped_storage().data_ptr(), 20 * 24 * 797
        with Allocations() as allocations:
            result = restore(data, preprocessing, release)
        assert allocations.larger_than(size * 2 // 10) == ([] if release else [size * 2])
        assert (result.untyped_storage().data_ptr() == place) == release

    @pytest.mark.parametrize("axis", [0, 2])
    @pytest.mark.parametrize("keep", [True, False])
    def test_spline(self, axis, keep):
        """Beside the output, one copy of the input, slices first, where they are not."""
        inferer = SplineSliceInferer(factor=4, mode="linear", keep_observed=keep)
        data, _ = prepare(make_scan(axis, num_slices=1000, size=(20, 24)), inferer)
        with Allocations() as allocations:
            inferer(data["image"][None])
        copies = [20 * 24 * 1000 * 4] if axis == 2 else []
        assert sorted(allocations.larger_than(20 * 24 * 1000 * 4 // 4)) == [*copies, 20 * 24 * 3997 * 4]

    @pytest.mark.parametrize("value_range", [(-9.0, 9.0), (0.2, 0.6)])
    def test_latent(self, value_range):
        """One copy of the input, and a limited one if it exceeds the range at all."""
        inferer = LatentSliceInferer(factor=4, batch_size=8, value_range=value_range)
        image = prepare(make_scan(num_slices=300), SplineSliceInferer(factor=1))[0]["image"][None]
        with Allocations() as allocations, torch.no_grad():
            inferer(image, ASIAutoencoder(1, (2,), 2).eval())
        size = 5 * 6 * 4
        copies = [size * 300] * (1 if value_range[0] < -1 else 2)
        assert sorted(allocations.larger_than(size * 299)) == [*copies, size * 1197]


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("release", [False, True])
def test_missing(axis, keep, release):
    scan = make_scan(axis, torch.float32, num_slices=4)
    slices = scan.as_tensor()[0].movedim(axis, -1)  # a view
    slices[0, 0] = NAN  # outside of the field of view
    slices[3, 1, 2] = NAN
    payload = torch.tensor([0x7FC12345], dtype=torch.int32).view(torch.float32)  # a NaN with bits of its own
    slices[4, 2, 1:2] = payload
    data, preprocessing = prepare(scan, SplineSliceInferer(factor=3, mode="linear", keep_observed=keep))
    assert not data["pred"].isnan().any()
    plain, _ = by_whole(data, preprocessing, torch.float32)
    found = restore(data, preprocessing, release).as_tensor()[0].movedim(axis, -1)
    plain = plain[0].movedim(axis, -1)
    expected = torch.zeros(5, 6, 10, dtype=torch.bool)
    expected[0, 0] = True
    expected[3, 1, 4:9] = True  # observed are 0, 3, 6, 9
    expected[4, 2, 1:6] = True
    assert torch.equal(found.isnan(), expected)
    if keep:
        bits = found[..., ::3].contiguous().view(torch.int32)
        assert torch.equal(bits, slices.contiguous().view(torch.int32))
        plain[..., ::3] = slices
    assert torch.equal(found[~expected], plain[~expected])


def test_missing_in_one_frame():
    scan = make_scan(2, torch.float64, channels=3, num_slices=3)
    scan[1, 2, 3, 0] = NAN
    data, preprocessing = prepare(scan, SplineSliceInferer(factor=2))
    assert restore(data, preprocessing).isnan().nonzero().tolist() == [[1, 2, 3, 0], [1, 2, 3, 1]]


def saint(num_views=2):
    torch.manual_seed(0)
    size = {"channels": 4, "num_blocks": 1, "num_layers": 2, "growth": 4}
    return SAINT(ami=size, rfn=size, num_views=num_views).eval()


class TestDisagreement:
    def run(self, source, output_dir, network, **settings):
        """The way of a volume through the bundle; returns the written images by key, and the inferer's input."""
        preprocessing = preprocess(InvertibleScaleIntensityRanged("image", *WINDOW))
        data = preprocessing({"image": str(source)})
        data["pred"] = MultiViewSliceInferer(disagreement=True, **settings)(data["image"][None], network)[0]
        before = data["pred"].as_tensor().clone()
        mapped = DisagreementMapd("pred", preprocessing)(data)
        assert torch.equal(mapped["pred"].as_tensor(), before) and "disagreement" not in data
        save = SaveVolumed(["pred", "disagreement"], output_dir, ["interp", "disagreement"])
        result = save(RestoreVolumed("pred", preprocessing, release=True)(mapped))
        assert "disagreement" not in result["pred"].meta and "disagreement" not in data["pred"].meta
        return {key: nib.load(result[key].meta["saved_to"]) for key in ("pred", "disagreement")}, data["image"]

    @pytest.mark.parametrize("views", [2, 4])
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_standard_deviation_of_the_views(self, tmp_path, axis, views):
        """In HU, without the window's offset, in the axis order of the input, at the places of the output."""
        spacing, shape = np.array([0.7, 0.9, 0.8]), np.array([7, 8, 6])
        spacing[axis], shape[axis] = 4.0, 4
        values = np.random.default_rng(0).integers(-900, 2000, shape).astype(np.int16)
        write_nifti(tmp_path / "scan.nii.gz", values, oblique(spacing))
        network = saint(views)
        saved, image = self.run(tmp_path / "scan.nii.gz", tmp_path / "out", network, factor=3)
        names = {path.name for path in (tmp_path / "out").iterdir()}
        assert names == {"scan_disagreement.nii.gz", "scan_interp.nii.gz"}
        found = np.asarray(saved["disagreement"].dataobj)
        assert found.dtype == np.float32 and found.shape == saved["pred"].shape
        np.testing.assert_array_equal(saved["disagreement"].affine, saved["pred"].affine)
        inferers = [MultiViewSliceInferer(3, fuse=False, views=(view,)) for view in network.directions]
        each = [inferer(image[None], network)[0, 0].numpy() for inferer in inferers]
        expected = np.moveaxis(4000 * np.std(each, axis=0), -1, axis)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3)
        found = np.moveaxis(found, axis, 0)
        assert (found[::3] == 0).all() and (found >= 0).all()
        assert (np.delete(found, np.s_[::3], axis=0) > 0).mean() > 0.99

    @pytest.mark.parametrize("dtype", ["int16", "float32", "float64", "uint8"])
    @pytest.mark.parametrize("frames", [1, 3])
    def test_frames_and_types(self, tmp_path, frames, dtype):
        values = np.random.default_rng(0).integers(0, 200, (6, 7, 3, frames)).astype(dtype)
        write_nifti(tmp_path / "scan.nii", values, oblique((0.7, 0.9, 4.0)), frame_spacing=0.04)
        saved, image = self.run(tmp_path / "scan.nii", tmp_path, saint(), spacing=2.0)
        assert saved["pred"].get_data_dtype() == dtype and saved["disagreement"].get_data_dtype() == np.float32
        assert saved["pred"].shape == saved["disagreement"].shape == (6, 7, 5, frames)
        for frame in range(frames):
            inferers = [MultiViewSliceInferer(2, fuse=False, views=(view,)) for view in ("rows", "columns")]
            views = [inferer(image[None, frame : frame + 1], saint()) for inferer in inferers]
            expected = 2000 * (views[0] - views[1]).abs()[0, 0].numpy()
            found = np.asarray(saved["disagreement"].dataobj)[..., frame]
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3)
            assert (found[..., ::2] == 0).all() and found[..., 1::2].max() > 0

    def test_interpolated_volume_is_the_same(self, tmp_path):
        """With and without the map, and with intensities far outside the window."""
        values = np.random.default_rng(0).integers(-3000, 4000, (6, 7, 4)).astype(np.int16)
        write_nifti(tmp_path / "scan.nii", values, oblique((0.7, 0.9, 4.0)))
        saved, image = self.run(tmp_path / "scan.nii", tmp_path, saint(), factor=2, value_range=(0.0, 1.0))
        without = MultiViewSliceInferer(2, value_range=(0.0, 1.0))(image[None], saint())[0, 0].numpy()
        found = np.asarray(saved["pred"].dataobj)
        np.testing.assert_allclose(found, without * 4000 - 1024, rtol=0, atol=0.51)
        np.testing.assert_array_equal(found[..., ::2], values)
        # the views see the window: what lies outside is interpolated linearly and no cause to disagree
        write_nifti(tmp_path / "clipped.nii", values.clip(-1024, 2976), oblique((0.7, 0.9, 4.0)))
        clipped, _ = self.run(tmp_path / "clipped.nii", tmp_path, saint(), factor=2, value_range=(0.0, 1.0))
        maps = [np.asarray(images["disagreement"].dataobj) for images in (saved, clipped)]
        np.testing.assert_array_equal(*maps)

    def test_arguments(self):
        preprocessing = Compose([InvertibleScaleIntensityRanged("scan", *WINDOW)])
        data = preprocessing({"scan": make_scan(dtype=torch.float32, num_slices=4, filename_or_obj="in/scan.nii.gz")})
        data["thin"] = MultiViewSliceInferer(factor=2, disagreement=True)(data["scan"][None], saint())[0]
        result = DisagreementMapd("thin", preprocessing, image_key="scan", map_key="doubt")(data)
        assert set(result) == {"scan", "thin", "doubt"} and result["doubt"].shape == (1, 5, 6, 7)
        assert torch.equal(result["doubt"].affine, result["thin"].affine)
        assert result["doubt"].meta["filename_or_obj"] == "in/scan.nii.gz"
        lenient = DisagreementMapd(["thin", "no"], preprocessing, "scan", allow_missing_keys=True)
        assert "disagreement" in lenient(data)
        with pytest.raises(KeyError, match="no"):
            DisagreementMapd(["thin", "no"], preprocessing, "scan")(data)
        with pytest.raises(ValueError, match="no disagreement of the views; expected disagreement=True"):
            DisagreementMapd("scan", preprocessing, "scan")(data)
