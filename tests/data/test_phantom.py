# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the embedded phantom."""

from __future__ import annotations

import math
import random
from itertools import combinations

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from monai_sliceinterp.data.phantom import PHANTOM_KINDS, make_phantom, phantom_intensity, write_phantoms
from tests.transforms.volumes import check_error

SMALL = {"shape": (40, 36, 9), "spacing": (4.0, 4.0, 9.0)}
SPAN = {"heart": 1000.0, "head": 1000.0, "torso": 2000.0}
kinds = pytest.mark.parametrize("kind", PHANTOM_KINDS)


def scatter(count: int = 4000, seed: int = 0) -> torch.Tensor:
    return (torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) - 0.5) * torch.tensor([170, 150, 90])


@kinds
def test_seeds_differ(kind: str) -> None:
    values = [phantom_intensity(scatter(), kind, seed) for seed in range(5)]
    for one, other in combinations(values, 2):
        assert (one - other).abs().mean() > 0.02 * SPAN[kind]


def test_kinds_differ_and_noise_depends_on_seed() -> None:
    noise = [make_phantom("head", s, **SMALL) - make_phantom("head", s, noise=0, **SMALL) for s in (0, 1)]
    assert abs(np.corrcoef(noise[0].numpy().ravel(), noise[1].numpy().ravel())[0, 1]) < 0.05
    assert not torch.equal(phantom_intensity(scatter(), "head"), phantom_intensity(scatter(), "heart"))


@kinds
def test_global_random_state_is_untouched_and_unused(kind: str) -> None:
    volumes = []
    for seed in (5, 99):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        volumes.append(make_phantom(kind, seed=11, slice_thickness=5, **SMALL))
        assert torch.equal(before[0], torch.get_rng_state())
        assert np.array_equal(before[1], np.random.get_state()[1]) and before[2] == random.getstate()
    volume, again = volumes
    assert torch.equal(volume, again) and torch.equal(volume.affine, again.affine)
    assert isinstance(volume, MetaTensor) and volume.dtype == torch.float32 and volume.shape == (1, 40, 36, 9)
    assert torch.isfinite(volume).all() and volume.is_contiguous()


@kinds
@pytest.mark.parametrize("axis", range(3))
def test_no_jump_along_fine_lines(kind: str, axis: int) -> None:
    step, seed = 0.02, axis
    lines = scatter(24, seed).unsqueeze(1).repeat(1, 4000, 1)
    lines[..., axis] = torch.arange(4000) * step - 40
    slope = phantom_intensity(lines, kind, seed, 0.3).diff(dim=1).abs() / step
    assert slope.max() < 1.5 * SPAN[kind]  # a full edge of 1.6 mm has a slope of 0.94 spans per mm


@kinds
def test_intensity_ignores_how_points_are_arranged(kind: str) -> None:
    points = scatter(100_000)  # more than one chunk
    whole = phantom_intensity(points, kind, 2)
    assert whole.shape == (100_000,) and whole.dtype == torch.float32
    torch.testing.assert_close(phantom_intensity(points[:7], kind, 2), whole[:7], rtol=0, atol=0.02)
    torch.testing.assert_close(phantom_intensity(points.flip(0), kind, 2).flip(0), whole, rtol=0, atol=0.02)
    torch.testing.assert_close(phantom_intensity(points.double().view(10, 100, 100, 3), kind, 2).flatten(), whole)
    assert torch.equal(points, scatter(100_000))  # not modified
    assert phantom_intensity(torch.zeros(0, 3), kind).shape == (0,)
    assert phantom_intensity(torch.zeros(3, dtype=torch.int64), kind).shape == ()


@kinds
def test_voxels_are_the_intensity_at_affine_times_index(kind: str) -> None:
    turn = math.radians(20)
    c, s = math.cos(turn), math.sin(turn)
    affine = np.array([[3 * c, 0, -7 * s, -40], [0, -3, 0, 50], [3 * s, 0, 7 * c, -5], [0, 0, 0, 1]])
    volume = make_phantom(kind, 2, shape=(20, 18, 5), noise=0, affine=affine)
    np.testing.assert_allclose(volume.affine.numpy(), affine)
    index = np.stack(np.meshgrid(range(20), range(18), range(5), indexing="ij"), -1)
    points = torch.from_numpy(index @ affine[:3, :3].T + affine[:3, 3])
    torch.testing.assert_close(volume[0].as_tensor(), phantom_intensity(points, kind, 2), rtol=0, atol=0.02)
    also = make_phantom(kind, 2, shape=(20, 18, 5), noise=0, affine=torch.from_numpy(affine), spacing=(-1, 0, 0))
    assert torch.equal(volume, also)


@kinds
@pytest.mark.parametrize("profile", ["gaussian", "box"])
@pytest.mark.parametrize("thickness", [0.3, 3.0, 8.0])
def test_slab_is_the_dense_average_along_the_normal(kind: str, profile: str, thickness: float) -> None:
    turn = math.radians(15)
    affine = np.diag([9.0, 9.0, 5.0, 1.0])
    affine[:3, 1:3] = [[0, 0], [9 * math.cos(turn), -5 * math.sin(turn)], [9 * math.sin(turn), 5 * math.cos(turn)]]
    affine[:3, 3] = [-70, -60, -10]
    shape = (15, 13, 3)
    slab = make_phantom(kind, 0, shape=shape, slice_thickness=thickness, profile=profile, noise=0, affine=affine)[0]
    if profile == "gaussian":
        offset = np.linspace(-1.6, 1.6, 401) * thickness
        weight = np.exp(-4 * math.log(2) * (offset / thickness) ** 2)
    else:
        offset = (np.arange(300) + 0.5) / 300 * thickness - thickness / 2
        weight = np.ones(300)
    index = np.stack(np.meshgrid(*map(range, shape), indexing="ij"), -1).reshape(-1, 3)
    points = torch.from_numpy(index @ affine[:3, :3].T + affine[:3, 3])
    normal = torch.from_numpy(affine[:3, 2] / np.linalg.norm(affine[:3, 2]))
    dense = phantom_intensity(points + torch.from_numpy(offset).view(-1, 1, 1) * normal, kind, 0)
    truth = torch.from_numpy(weight / weight.sum()) @ dense.double()
    error = (slab.flatten().as_tensor() - truth).abs()
    assert error.max() < 0.005 * SPAN[kind]
    assert error.mean() < 0.0003 * SPAN[kind]


@pytest.mark.parametrize("seed", range(3))
def test_torso_is_plausible_ct(seed: int) -> None:
    volume = make_phantom("torso", seed, shape=(110, 90, 12), spacing=(3, 3, 8), noise=0.02)
    assert volume.min() >= -1024 and volume.max() <= 3071
    clean = make_phantom("torso", seed, shape=(110, 90, 12), spacing=(3, 3, 8), noise=0)
    share = {
        name: ((clean > low) & (clean < high)).float().mean().item()
        for name, low, high in (
            ("air", -1024.1, -985), ("lung", -930, -780), ("fat", -140, -70),
            ("tissue", 10, 90), ("vessel", 130, 260), ("bone", 300, 1200),
        )
    }  # fmt: skip
    least = {"air": 0.1, "lung": 0.08, "fat": 0.05, "tissue": 0.05, "vessel": 0.01, "bone": 0.008}
    assert all(share[name] > least[name] for name in least), share
    assert phantom_intensity(torch.tensor([400.0, 0.0, 0.0]), "torso", seed) == -1000


@pytest.mark.parametrize("kind", ["heart", "head"])
def test_mr_values_and_background(kind: str) -> None:
    volume = make_phantom(kind, 0, noise=0, shape=(60, 60, 12), spacing=(4, 4, 8))
    assert volume.min() >= 0 and 600 < volume.max() < 1500
    assert (volume[0, :3, :3] == 0).all()
    assert volume.std() > 100


def test_heart_beats_and_returns() -> None:
    volume = make_phantom("heart", 0, num_frames=8, noise=0, shape=(48, 48, 9), spacing=(4, 4, 10))
    assert volume.shape == (8, 48, 48, 9)
    change = (volume - volume[:1]).abs().flatten(1).mean(1)
    assert change[0] == 0 and (change[1:] > 1).all()
    assert int(change.argmax()) in (2, 3, 4) and change[7] < 0.5 * change.max()
    points = scatter()
    start = phantom_intensity(points, "heart", 0, 0.0)
    assert torch.equal(start, phantom_intensity(points, "heart", 0, 1.0))
    assert (start - phantom_intensity(points, "heart", 0, 0.999)).abs().mean() < 1
    assert torch.equal(phantom_intensity(points, "head", 0, 0.0), phantom_intensity(points, "head", 0, 0.4))


def test_ventricle_contracts() -> None:
    points = scatter(20000) * torch.tensor([0.25, 0.3, 0.4]) + torch.tensor([-18.0, -2.0, -8.0])
    blood = [(phantom_intensity(points, "heart", 0, t) > 600).float().mean().item() for t in (0.0, 0.42)]
    assert blood[0] > 0.15 and blood[1] < 0.75 * blood[0]


@kinds
def test_noise_level_and_frames(kind: str) -> None:
    grid = {"shape": (40, 40, 6), "spacing": (2.0, 2.0, 6.0), "slice_thickness": 6.0, "num_frames": 2}
    noisy, clean = make_phantom(kind, 0, noise=0.03, **grid), make_phantom(kind, 0, noise=0, **grid)
    inside = clean > -800  # not where CT is clipped
    residual = (noisy - clean)[inside]
    assert residual.std().item() == pytest.approx(0.03 * SPAN[kind], rel=0.05)
    assert abs(residual.mean().item()) < 0.003 * SPAN[kind]
    assert not torch.equal((noisy - clean)[0], (noisy - clean)[1])


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(PHANTOM_KINDS),
    seed=st.integers(0, 2**40),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    spacing=st.tuples(*[st.floats(0.2, 30)] * 3),
    thickness=st.one_of(st.just(0.0), st.floats(0.05, 12)),
    profile=st.sampled_from(["gaussian", "box"]),
    frames=st.integers(1, 2),
)
def test_shape_and_affine_for_any_grid(kind, seed, shape, spacing, thickness, profile, frames) -> None:
    volume = make_phantom(kind, seed, shape, spacing, thickness, profile, num_frames=frames)
    assert volume.shape == (frames, *shape) and torch.isfinite(volume).all()
    affine = volume.affine.numpy()
    np.testing.assert_allclose(affine[:3, :3], np.diag(spacing))
    center = affine @ [*((np.array(shape) - 1) / 2), 1]
    np.testing.assert_allclose(center[:3], 0, atol=1e-9)


def test_write_round_trip(tmp_path) -> None:
    grid = {"shape": (14, 12, 5), "spacing": (9.0, 8.0, 12.5), "slice_thickness": 10.0, "noise": 0.02}
    folder = tmp_path / "new" / "folder"
    paths = write_phantoms(folder, ("torso", "head"), (12, 3), **grid)
    assert [p.name for p in paths] == ["head_003.nii.gz", "head_012.nii.gz", "torso_003.nii.gz", "torso_012.nii.gz"]
    assert sorted(folder.iterdir()) == paths  # nothing temporary is left
    image = nib.load(paths[2])
    expected = make_phantom("torso", 3, **grid)
    assert image.get_data_dtype() == np.int16 and image.shape == (14, 12, 5)
    np.testing.assert_allclose(image.affine, expected.affine.numpy())
    np.testing.assert_allclose(image.header.get_zooms(), (9, 8, 12.5))
    assert image.header.get_xyzt_units() == ("mm", "sec")
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.rint(expected[0].numpy()))


def test_write_is_deterministic_replaces_and_makes_4d(tmp_path) -> None:
    (path,) = write_phantoms(tmp_path, "heart", 7, shape=(8, 8, 3), spacing=(20, 20, 30))
    first = path.read_bytes()
    path.write_bytes(b"broken")
    write_phantoms(tmp_path, ["heart"], [7, 7], shape=(8, 8, 3), spacing=(20, 20, 30))
    assert path.read_bytes() == first
    write_phantoms(tmp_path, "heart", 7, shape=(8, 8, 3), spacing=(20, 20, 30), num_frames=3)
    image = nib.load(path)
    assert image.shape == (8, 8, 3, 3)
    expected = make_phantom("heart", 7, shape=(8, 8, 3), spacing=(20, 20, 30), num_frames=3)
    np.testing.assert_array_equal(np.moveaxis(np.asarray(image.dataobj), -1, 0), np.rint(expected.numpy()))


def test_write_leaves_nothing_when_it_fails(tmp_path, monkeypatch) -> None:
    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_phantoms(tmp_path, "head", 0, shape=(4, 4, 2), spacing=(40, 40, 40))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ({"kind": "knee"}, "unknown kind 'knee'; expected one of heart, head, torso"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"shape": (4, 4)}, r"shape must be 3 positive integers, got \(4, 4\)"),
        ({"shape": (4, 0, 4)}, "shape must be"),
        ({"shape": 4}, "shape must be"),
        ({"spacing": (1, 1, 0)}, "spacing must be a positive number of mm, got"),
        ({"spacing": 2.0}, "spacing must be three numbers in mm, got 2.0"),
        ({"slice_thickness": -1}, "slice_thickness must be zero or a positive number of mm, got -1"),
        ({"noise": -0.1}, "noise must be zero or a positive number, got -0.1"),
        ({"profile": "sinc"}, "unknown profile 'sinc'; expected one of gaussian, box"),
        ({"num_frames": 0}, "num_frames must be a positive integer, got 0"),
        ({"affine": np.eye(3)}, r"affine must be one 4x4 matrix, got shape \(3, 3\)"),
        ({"affine": np.full((4, 4), np.nan)}, "affine has NaN or infinite entries"),
        ({"affine": "eye"}, "could not convert string to float: 'eye'"),
        ({"affine": np.diag([1, 1, 0, 1])}, "spacing is zero or missing"),
        ({"affine": np.ones((4, 4))}, "affine is singular"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: dict, pattern: str) -> None:
    check_error(pattern, make_phantom, **{"kind": "heart", **SMALL, **arguments})


def test_bad_input_to_the_other_functions(tmp_path) -> None:
    check_error(r"points must be real, of shape \(..., 3\), got", phantom_intensity, torch.zeros(4, 2), "heart")
    check_error("unknown kind 'knee'", phantom_intensity, torch.zeros(4, 3), "knee")
    check_error("time must be a finite fraction", phantom_intensity, torch.zeros(4, 3), "heart", time=math.nan)
    check_error("unknown kind 'knee'", write_phantoms, tmp_path / "out", ("head", "knee"), 0)
    check_error("seed must be an integer of at least 0, got -2", write_phantoms, tmp_path / "out", "head", (0, -2))
    assert not (tmp_path / "out").exists()
