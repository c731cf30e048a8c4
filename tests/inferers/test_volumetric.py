# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Whole volumes in blended windows: what comes out is the spline, restored by the network, without a seam."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage
from torch import nn
from torch.nn import functional as F

from monai_sliceinterp.geometry import OutputGrid, slice_geometry
from monai_sliceinterp.inferers import SliceStack, SplineSliceInferer, VolumetricSliceInferer
from monai_sliceinterp.networks.nets import VTSGenerator
from tests.inferers import common
from tests.inferers.common import check_error, make_scan, oblique, plain, rand, sheared, straight

WINDOW = (64, 64, 64)


@functools.cache
def make_network():
    """A generator far from its start, where it is the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = VTSGenerator(channels=(4, 8))
        nn.init.normal_(network.head.weight, std=2.0)
    return network.double().eval()


def infer(volume, network, **options):
    return plain(VolumetricSliceInferer(**{"roi_size": WINDOW, **options})(volume, network))


def spline(volume, **how):
    return plain(SplineSliceInferer(**how, mode="cubic", keep_observed=False)(volume))


def copy(x):
    return x.clone()


def close(found, expected, atol=1e-11):
    common.close(found, expected, atol)


def coded(height, width, count):
    """Every voxel tells where it is: h + 1000 w + 1e6 n."""
    h, w, n = (torch.arange(size, dtype=torch.float64) for size in (height, width, count))
    return (h[:, None, None] + 1e3 * w[:, None] + 1e6 * n)[None, None]


class Spy:
    """Notes the windows; answers with ``answer(x, number of the call)``."""

    def __init__(self, answer=lambda x, number: x.clone()):
        self.answer, self.seen = answer, []

    def __call__(self, x):
        self.seen.append(x.clone())
        return self.answer(x, len(self.seen) - 1)

    @property
    def begins(self):
        """Where the windows of a coded volume begin, ``(h, w, n)``."""
        codes = [round(float(x[0, 0, 0, 0, 0])) for x in self.seen]
        return [(code % 1000, code // 1000 % 1000, code // 1000000) for code in codes]

    @property
    def shapes(self):
        return [tuple(x.shape) for x in self.seen]


GEOMETRIES = [
    (1, 1, 2, {"factor": 1}),
    (5, 7, 2, {"factor": 2}),
    (16, 33, 2, {"factor": 70}),  # two windows between two slices
    (64, 64, 22, {"factor": 3}),  # 64 slices: one window
    (17, 31, 17, {"factor": 4}),  # 65 slices: a second one, of 17
    (20, 9, 38, {"factor": 3}),  # 112 slices
    (20, 9, 29, {"factor": 4}),  # 113
    (65, 20, 5, {"factor": 2}),
    (20, 129, 5, {"factor": 2}),
    (130, 99, 5, {"factor": 2}),
    (70, 81, 23, {"factor": 5}),  # 111 slices: larger than a window in each direction
    (66, 30, 21, {"spacing": 1.0}),
    (30, 66, 21, {"spacing": 1.6}),
    (30, 20, 21, {"spacing": 0.7}),
    (21, 18, 27, {"spacing": 1.5}),
]


class TestSpline:
    """With a network that does nothing, the result is the aligned cubic B-spline."""

    @pytest.mark.parametrize(
        ("network", "batch_size", "offset"),
        [
            (copy, 1, 0),
            (copy, 3, 0),
            (nn.Identity(), 0, 0),  # not a copy: what is done with a result must not change what other windows see
            (lambda x: x + 0.25, 0, 0.25),  # weights sum to one
        ],
    )
    @pytest.mark.parametrize(("height", "width", "num_slices", "how"), GEOMETRIES)
    def test_identity(self, height, width, num_slices, how, network, batch_size, offset):
        scan = make_scan(1, 1, height, width, num_slices)
        found, expected = infer(scan, network, **how, batch_size=batch_size), spline(scan, **how)
        assert found.shape == expected.shape and found.dtype == torch.float64
        close(found, expected + offset)

    @pytest.mark.parametrize(("dtype", "atol"), [(torch.float16, 2e-3), (torch.float32, 2e-6)])
    def test_types(self, dtype, atol):
        volume = rand(1, 1, 70, 18, 25, dtype=dtype)
        found = infer(volume, copy, factor=3)
        assert found.dtype == dtype
        close(found, spline(volume.double(), factor=3).to(dtype), atol=atol)

    @pytest.mark.parametrize("size", [(45, 64, 41), (64, 32, 64), (33, 17, 9)])
    def test_one_window_is_the_network(self, size):
        """Nothing is cut or blended; sizes in the plane that are no multiples of 16 are padded by their border."""
        scan = make_scan(1, 1, *size)
        network = make_network()
        fine = spline(scan, factor=1)
        padded = F.pad(fine, (0, 0, 0, -size[1] % 16, 0, -size[0] % 16), mode="replicate")
        with torch.no_grad():
            expected = network(padded)[..., : size[0], : size[1], :]
        found = infer(scan, network, factor=1)
        close(found, expected)
        assert abs(found - fine).mean() > 0.01


class TestWindows:
    @pytest.mark.parametrize(
        ("window", "count", "expected"),
        [
            (64, 2, [(0, 2)]),
            (64, 64, [(0, 64)]),
            (64, 65, [(0, 48), (32, 65)]),
            (64, 112, [(0, 64), (48, 112)]),
            (64, 113, [(0, 64), (48, 112), (96, 113)]),
            (64, 200, [(0, 64), (48, 112), (96, 160), (144, 200)]),
            (128, 128, [(0, 128)]),
            (128, 300, [(0, 128), (96, 224), (192, 300)]),
            (192, 193, [(0, 128), (96, 193)]),
        ],
    )
    def test_along_the_slices(self, window, count, expected):
        spy = Spy()
        infer(coded(16, 16, count), spy, factor=1, roi_size=(64, 64, window))
        assert [(x[2], x[2] + shape[4]) for x, shape in zip(spy.begins, spy.shapes, strict=True)] == expected
        assert {x[:2] for x in spy.begins} == {(0, 0)} and {shape[:4] for shape in spy.shapes} == {(1, 1, 16, 16)}

    @pytest.mark.parametrize(
        ("window", "size", "padded", "expected", "side"),
        [
            (64, 1, 16, [0], 16),
            (64, 33, 48, [0], 48),
            (64, 64, 64, [0], 64),
            (64, 65, 80, [0, 32], 48),
            (64, 100, 112, [0, 48], 64),
            (64, 112, 112, [0, 48], 64),
            (64, 113, 128, [0, 48, 64], 64),
            (64, 161, 176, [0, 48, 96, 112], 64),
            (128, 129, 144, [0, 48], 96),
            (128, 230, 240, [0, 80, 128], 112),
        ],
    )
    def test_in_the_plane(self, window, size, padded, expected, side):
        """Windows begin at multiples of 16; what is added at the far end repeats the border."""
        for axis in (0, 1):
            shape = [9, 9, 3]
            shape[axis] = size
            windows = [64, 64, 64]
            windows[axis] = window
            spy = Spy()
            found = infer(coded(*shape), spy, factor=1, roi_size=windows)
            assert [x[axis] for x in spy.begins] == expected
            assert all(x[1 - axis] == x[2] == 0 for x in spy.begins)
            sizes = [16, 16]
            sizes[axis] = side
            assert expected[-1] + side == padded
            assert set(spy.shapes) == {(1, 1, *sizes, 3)}
            last = spy.seen[-1][0, 0].movedim(axis, 0)
            rest = size - expected[-1]
            border = coded(*shape)[0, 0].movedim(axis, 0)[-1, :9]
            close(last[rest - 1 :, :9], border.expand(len(last) - rest + 1, -1, -1), atol=1e-6)
            close(found, coded(*shape), atol=1e-6)

    def test_in_all_directions(self):
        """Every window of the plane is seen for one window along the slices, then for the next one."""
        spy = Spy()
        infer(coded(100, 130, 120), spy, factor=1)
        expected = [(h, w, n) for n in (0, 48, 96) for h in (0, 48) for w in (0, 48, 80)]
        assert spy.begins == expected
        assert spy.shapes == [(1, 1, 64, 64, min(64, 120 - n)) for _, _, n in expected]

    def test_default_size(self):
        spy = Spy()
        VolumetricSliceInferer(factor=1)(coded(193, 16, 129), spy)
        assert spy.shapes == [(1, 1, 128, 16, 96)] * 2 + [(1, 1, 128, 16, 65)] * 2
        assert spy.begins == [(0, 0, 0), (80, 0, 0), (0, 0, 64), (80, 0, 64)]

    @pytest.mark.parametrize(("batch_size", "expected"), [(0, 6 * [1]), (1, 6 * [1]), (2, 3 * [2]), (4, [4, 2])])
    def test_batches(self, batch_size, expected):
        spy = Spy()
        infer(coded(100, 130, 5), spy, factor=1, batch_size=batch_size)
        assert [shape[0] for shape in spy.shapes] == expected
        assert spy.shapes[0][1:] == (1, 64, 64, 5)

    def test_samples_and_channels_are_apart(self):
        spy = Spy()
        infer(torch.arange(6.0).reshape(2, 3, 1, 1, 1).expand(2, 3, 16, 16, 70), spy, factor=1, batch_size=4)
        assert [(len(x), round(float(x.mean()))) for x in spy.seen] == [(1, k) for k in range(6) for _ in range(2)]


def ramp(overlap):
    """Weight of the later one of two windows, by hand: from -0.5 to 1.5 over the overlap, limited to [0, 1]."""
    return [min(max(-0.5 + 2 * (k + 1) / (overlap + 1), 0), 1) for k in range(overlap)]


class TestBlending:
    @pytest.mark.parametrize("length", [64, 128])
    def test_ramp_along_the_slices(self, length):
        """Each window answers with its number."""
        step, overlap = 3 * length // 4, length // 4
        count = 2 * step + length - 5
        spy = Spy(lambda x, number: torch.full_like(x, float(number)))
        found = infer(rand(1, 1, 16, 16, count), spy, factor=1, roi_size=(64, 64, length))
        steps = ramp(overlap)
        # a quarter of the overlap at either side is one window's alone
        assert steps[: overlap // 4] == [0] * (overlap // 4) and steps[-overlap // 4 :] == [1] * (overlap // 4)
        assert 0 < steps[overlap // 4] < steps[overlap // 4 + 1]
        assert steps == pytest.approx([1 - x for x in reversed(steps)])
        expected = [0] * step + steps + [1] * (step - overlap) + [1 + x for x in steps] + [2] * (step - 5)
        assert len(expected) == count
        close(found, torch.tensor(expected, dtype=torch.float64).expand_as(found), atol=1e-6)

    @pytest.mark.parametrize("num_slices", [2, 30, 64, 100])
    @pytest.mark.parametrize("axis", [0, 1])
    def test_in_the_plane(self, axis, num_slices):
        """Windows that differ by 1 fade into each other evenly, at the faces of the volume too.

        They do so in steps that are far from a cut (1), and begin to with a hundredth.
        """
        shape = [40, 40, num_slices]
        shape[axis] = 112
        spy = Spy(lambda x, number: torch.full_like(x, float(number % 2)))
        found = infer(rand(1, 1, *shape), spy, factor=1)[0, 0].movedim(axis, 0)
        assert len(spy.seen) == 2 * (1 + (num_slices > 64))
        close(found + found.flip(0), torch.ones_like(found))
        close(found[:48], torch.zeros_like(found[:48]))
        steps = found.diff(dim=0)
        assert steps.min() > -1e-9 and steps.max() < 0.25
        assert steps[47].max() < 0.02 and steps[63].max() < 0.02
        # the same fade everywhere
        close(found, found[:, 20:21, num_slices // 2, None].expand_as(found))

    def test_no_seam_at_corners(self):
        """Where four windows meet, too."""
        for number in range(4):
            only = Spy(lambda x, k, number=number: torch.full_like(x, float(k == number)))
            weight = infer(rand(1, 1, 112, 112, 20), only, factor=1)[0, 0]
            inside = torch.zeros(112, 112, 1, dtype=torch.float64)
            rows, columns = (slice(0, 64), slice(48, 112))[number // 2], (slice(0, 64), slice(48, 112))[number % 2]
            inside[rows, columns] = 1
            assert not (weight * (1 - inside)).any()
            for axis in (0, 1):  # it falls to nothing at its face
                steps = weight.diff(dim=axis).abs().movedim(axis, 0)
                assert steps.max() < 0.25 and steps[[47, 63]].max() < 0.02


def blur(x):
    """A convolution of 3 x 3 x 3 voxels that is not symmetric, borders replicated."""
    kernel = rand(1, 1, 3, 3, 3, seed=5, dtype=x.dtype)
    return F.conv3d(F.pad(x, (1,) * 6, mode="replicate"), kernel / kernel.sum())


class TestConvolution:
    @pytest.mark.parametrize(("num_slices", "factor"), [(170, 1), (65, 1), (40, 3), (9, 16)])
    def test_along_the_slices(self, num_slices, factor):
        """As of the whole volume: the faces of windows do not count."""
        volume = rand(1, 1, 32, 16, num_slices)
        fine = spline(volume, factor=factor)
        found = infer(volume, blur, factor=factor)
        close(found, blur(fine))
        assert abs(found - fine).mean() > 0.01

    @pytest.mark.parametrize(("num_slices", "factor"), [(3, 1), (65, 1), (100, 1), (40, 2)])
    def test_in_the_plane(self, num_slices, factor):
        """As of the whole volume, but for a trace where a window ends, which is no seam."""
        volume = rand(1, 1, 128, 112, num_slices)
        difference = (infer(volume, blur, factor=factor) - blur(spline(volume, factor=factor)))[0, 0].abs()
        ends = [48, 63]
        rows = [k for k in range(128) if k not in [*ends, 64, 111]]  # windows begin at 0, 48 and 64
        columns = [k for k in range(112) if k not in ends]
        assert difference[rows][:, columns].max() < 1e-11
        assert 1e-5 < difference.max() < 0.02


class TestStreaming:
    def test_every_slice_is_the_network_s_by_default(self):
        scan = make_scan(2, 1, 66, 18, 33)
        found = infer(scan, blur, factor=4)
        assert torch.equal(found, infer(scan, blur, factor=4, keep_observed=False))
        assert abs(found[..., ::4] - scan.as_tensor()).mean() > 0.01

    @pytest.mark.parametrize(
        "wanted", [range(130), [k for k in range(130) if k % 3], [0, 129], [50, 51, 52, 63, 64, 100], [7]]
    )
    def test_what_is_written(self, wanted):
        """Each wanted slice once, no other, those of a window before the next window is computed; they stay."""
        volume = rand(44, 17, 20)
        stack = SliceStack(volume, OutputGrid.from_factor(44, 3), None, torch.tensor(list(wanted)))
        events, written = [], []

        def network(x):
            events.append("network")
            return blur(x)

        for indices, images in VolumetricSliceInferer(factor=3, roi_size=WINDOW).synthesize(stack, network):
            assert images.shape == (len(indices), 17, 20)
            events.append(indices.tolist())
            written.append((images, images.clone()))
        expected = []
        for begin, end in ((0, 48), (48, 96), (96, 130)):
            expected += ["network", [k for k in wanted if begin <= k < end]]
        assert [event for event in events if event != []] == [event for event in expected if event != []]
        assert all(torch.equal(*pair) for pair in written)
        whole = infer(volume.permute(1, 2, 0)[None, None], blur, factor=3)[0, 0]
        close(torch.cat([images for images, _ in written]), whole.movedim(-1, 0)[list(wanted)])

    def test_network_that_works_in_place(self):
        scan = make_scan(1, 1, 70, 18, 70)
        before = scan.as_tensor().clone()
        for options in ({"factor": 1}, {"factor": 2, "value_range": (0.2, 0.5)}):
            infer(scan, lambda x: x.mul_(2), **options)
            assert torch.equal(scan.as_tensor(), before)


class TestNetwork:
    def test_batch_size(self):
        for network, shape in ((blur, (100, 70, 20)), (make_network(), (80, 20, 4))):
            scan, state = make_scan(1, 1, *shape), torch.get_rng_state()
            single, *others = (infer(scan, network, factor=4, batch_size=size) for size in (1, 1, 0, 2, 3))
            assert torch.equal(torch.get_rng_state(), state) and torch.equal(others[0], single)
            for other in others:
                close(other, single)

    @pytest.mark.parametrize("training", [True, False])
    def test_mode_is_left_alone(self, training):
        network = VTSGenerator(channels=(4, 8)).train(training)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        spy = Spy(lambda x, number: network(x))
        result = infer(rand(1, 1, 20, 18, 5, dtype=torch.float32).requires_grad_(), spy, factor=2)
        assert not result.requires_grad and not any(x.requires_grad for x in spy.seen)
        assert all(module.training == training for module in network.modules())
        for name, value in network.state_dict().items():
            # normalization counts what it sees in training, nothing else changes
            assert torch.equal(value, before[name]) or (training and ("running" in name or "num_batches" in name))


class TestGrid:
    @pytest.mark.parametrize(
        ("spacing", "positions"),
        [
            (5.0, [k / 5 for k in range(26)]),
            (2.5, [k / 2.5 for k in range(13)]),
            (1.25, [0.8 * k for k in range(7)]),
            (1.02, [k / 1.02 for k in range(6)]),
            (1.011, [k / 1.011 for k in range(6)]),
            (1.01, list(range(6))),
            (1.005, list(range(6))),
            (1.0, list(range(6))),
            (0.995, list(range(6))),
            (0.4, list(range(6))),
        ],
    )
    @pytest.mark.parametrize("make_affine", [straight, oblique, sheared])
    def test_default_is_one_mm(self, spacing, positions, make_affine):
        """A stack that is finer, or less than 1 % coarser, keeps its grid; the origin stays in any case.

        What counts is the distance of the slices along their normal.
        """
        scan = MetaTensor(rand(2, 1, 17, 9, 6), affine=make_affine((0.5, 0.6, spacing)))
        result = VolumetricSliceInferer()(scan, lambda x: x + 1)
        assert isinstance(result, MetaTensor) and result.shape == (2, 1, 17, 9, len(positions))
        assert slice_geometry(result, axis=-1).in_plane_spacing == (0.5, 0.6)
        for index, position in enumerate(positions):
            found = np.asarray(result.affine) @ [2, 5, index, 1]
            np.testing.assert_allclose(found, np.asarray(scan.affine) @ [2, 5, position, 1], rtol=0, atol=1e-5)
        step = 1.0 if spacing > 1.0101 else spacing
        assert slice_geometry(result, axis=-1).slice_spacing == pytest.approx(step, rel=1e-6)
        inside = [min(position, 5.0) for position in positions]
        expected = 1 + ndimage.map_coordinates(scan.as_tensor()[1, 0, 3, 4].numpy(), [inside], order=3, mode="mirror")
        np.testing.assert_allclose(result.as_tensor()[1, 0, 3, 4], expected, rtol=0, atol=1e-6)

    @pytest.mark.parametrize(
        ("how", "spacing", "count"),
        [
            *(({"factor": 2}, 4.0, 11), ({"spacing": 0.5}, 4.0, 41), ({"spacing": 4.0}, 4.0, 6)),
            *(({"factor": 3}, 0.8, 16), ({"spacing": 0.4}, 0.8, 11)),
        ],
    )
    def test_asked_for(self, how, spacing, count):
        scan = make_scan(1, 1, 17, 9, 6, spacing=(1.0, 1.0, spacing))
        assert VolumetricSliceInferer(**how)(scan, copy).shape[-1] == count


@pytest.mark.parametrize(
    "size",
    [
        *((64, 64), (64, 64, 64, 64), (), (64, 64, 0), (0, 64, 64), (64, -64, 64), (32, 64, 64), (64, 80, 64)),
        *((64, 64, 96), (160, 64, 64), (64, 64, 100), (64.5, 64, 64)),
    ],
)
@pytest.mark.parametrize("kind", [tuple, list])
def test_size(size, kind):
    assert VolumetricSliceInferer(roi_size=kind(np.array([64, 128, 192]))).roi_size == (64, 128, 192)
    named = r"roi_size must be three multiples of 64, got \(" + ", ".join(map(str, size))
    check_error(ValueError, named, VolumetricSliceInferer, factor=2, roi_size=kind(size))


def slabs_of(positions, count, fwhm):
    """Gaussian slabs around thin slices, the ends repeated."""
    sigma, reach = fwhm / np.sqrt(8 * np.log(2)), int(np.ceil(4 * fwhm / np.sqrt(8 * np.log(2))))
    matrix = np.zeros((len(positions), count))
    for row, center in zip(matrix, positions, strict=True):
        for offset in range(-reach, reach + 1):
            row[np.clip(center + offset, 0, count - 1)] += np.exp(-0.5 * (offset / sigma) ** 2)
    return matrix / matrix.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("told", ["metadata", "option"])
def test_data_consistency(told):
    """Steps of gradient descent along the slices, in NumPy; they bring slabs of the result closer to the input."""
    scan, thickness = make_scan(1, 1, 16, 16, 6, seed=3), 6.0
    step = slice_geometry(scan, axis=-1).slice_spacing / 4
    if told == "metadata":
        scan.meta["slice_thickness"] = thickness
    options = {"factor": 4, "slice_thickness": thickness if told == "option" else 0.0}
    average = slabs_of(range(0, 21, 4), 21, thickness / step)
    observed, thin = plain(scan)[0, 0].numpy(), spline(scan, factor=4)[0, 0].numpy()
    missed = [np.abs(observed - thin @ average.T).mean()]
    rate = 1 / np.linalg.eigvalsh(average @ average.T).max()
    for _ in range(5):
        thin = thin + rate * (observed - thin @ average.T) @ average
        missed.append(np.abs(observed - thin @ average.T).mean())
    close(infer(scan, copy, data_consistency=5, **options)[0, 0], torch.as_tensor(thin), atol=1e-8)
    assert missed[-1] < 0.7 * missed[0]


def test_data_consistency_needs_the_thickness():
    scan = make_scan(1, 1, 16, 16, 6)
    check_error(ValueError, "needs the slice thickness", infer, scan, copy, data_consistency=3, factor=2)
    check_error(ValueError, "take one", VolumetricSliceInferer, data_consistency=3, keep_observed=True)
    told = "^a plain tensor has no spacing, which data_consistency needs: give a MetaTensor\\.$"
    check_error(ValueError, told, infer, scan.as_tensor(), copy, data_consistency=3, factor=2)


@pytest.mark.parametrize(
    ("answer", "made"), [(lambda x: x[..., 1:], r"\(1, 1, 16, 16, 10\)"), (lambda x: (x, x), "tuple")]
)
def test_network_of_another_kind(answer, made):
    named = rf"^the network made {made} of windows \(1, 1, 16, 16, 11\); expected their shape\.$"
    check_error(ValueError, named, infer, make_scan(1, 1, 16, 16, 6), answer, factor=2)
