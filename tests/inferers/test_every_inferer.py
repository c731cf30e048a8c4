# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Promises that every inferer keeps, whatever it does between the slices."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from torch import nn

from monai_sliceinterp.geometry import read_grid
from monai_sliceinterp.inferers import (
    LatentSliceInferer,
    MixtureSliceInferer,
    MotionSliceInferer,
    MultiViewSliceInferer,
    SplineSliceInferer,
    VolumetricSliceInferer,
)
from monai_sliceinterp.networks.nets import ASIAutoencoder, MixtureNetwork, VTSGenerator
from tests.inferers.common import Wrapper, check_error, close, make_saint, make_scan, oblique, plain, rand, record_bars


def make_generator():
    network = VTSGenerator(channels=(4, 8))
    nn.init.normal_(network.head.weight, std=2.0)
    return network


def make_mixture():
    network = MixtureNetwork(channels=8, num_blocks=2)
    nn.init.normal_(network.last.weight, std=0.1)
    return network


CASES = {
    "linear": (SplineSliceInferer, {"mode": "linear"}, lambda: None),
    "cubic": (SplineSliceInferer, {}, lambda: None),
    "lanczos": (SplineSliceInferer, {"mode": "lanczos"}, lambda: None),
    "motion": (MotionSliceInferer, {}, lambda: None),
    "latent": (LatentSliceInferer, {"value_range": (0.2, 0.8)}, lambda: ASIAutoencoder(1, (2,), 3)),
    "mixture": (MixtureSliceInferer, {"value_range": (0.2, 0.8)}, make_mixture),
    "multi_view": (MultiViewSliceInferer, {}, make_saint),
    "volumetric": (VolumetricSliceInferer, {"roi_size": (64, 64, 64), "value_range": (0.2, 0.8)}, make_generator),
}
WITH_NETWORK = ["latent", "mixture", "multi_view", "volumetric"]
NETWORKS: dict[str, nn.Module | None] = {}


def find_network(name):
    """The network of a case, always the same."""
    if name not in NETWORKS:
        torch.manual_seed(0)
        network = CASES[name][2]()
        NETWORKS[name] = None if network is None else network.double().eval()
    return NETWORKS[name]


def make_inferer(name, **options):
    kind, settings, _ = CASES[name]
    return kind(**{**settings, **options})


def infer(name, scan, **options):
    return make_inferer(name, **options)(scan, find_network(name))


@pytest.mark.parametrize("name", CASES)
class TestVolumes:
    def test_samples_and_channels_one_by_one(self, name):
        scan = make_scan(2, 3, 9, 8, 4)
        found = infer(name, scan, factor=3)
        assert found.shape == (2, 3, 9, 8, 10)
        for b in range(2):
            for c in range(3):
                close(found[b, c], infer(name, scan[b : b + 1, c : c + 1], factor=3)[0, 0])

    def test_collated_batch(self, name):
        items = [{"image": make_scan(1, 6, 7, 4, seed=k, filename_or_obj=f"{k}.nii", protocol="x")} for k in range(3)]
        for item in items:
            item["image"].affine = oblique()
        parts = decollate_batch(infer(name, list_data_collate(items)["image"], spacing=2.0))
        for number, (part, item) in enumerate(zip(parts, items, strict=True)):
            close(part, infer(name, item["image"][None], spacing=2.0)[0])
            assert part.meta["filename_or_obj"] == f"{number}.nii" and part.meta["protocol"] == "x"
            assert part.affine.shape == (4, 4) and part.pixdim.tolist() == pytest.approx([0.7, 1.1, 2.0])
            close(part.affine[:, [0, 1, 3]], item["image"].affine[:, [0, 1, 3]])

    def test_factor_equals_spacing(self, name):
        scan = make_scan(1, 1, 7, 6, 5)
        by_factor, by_spacing = infer(name, scan, factor=4), infer(name, scan, spacing=1.0)
        assert torch.equal(by_factor.as_tensor(), by_spacing.as_tensor())
        assert torch.equal(by_factor.affine, by_spacing.affine)
        assert read_grid(by_factor.meta).grid == read_grid(by_spacing.meta).grid

    @pytest.mark.parametrize("how", [{"factor": 4}, {"spacing": 1.6}, {"factor": 1}])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_observed_slices(self, name, how, dtype):
        """Copied bit for bit, also beyond the range that the network knows; the others do not depend on it."""
        scan = 3.7 * make_scan(2, 1, 11, 9, 7, dtype=dtype) - 1.3
        network = None if find_network(name) is None else find_network(name).to(dtype)
        every, some = (make_inferer(name, **how, keep_observed=keep)(scan, network) for keep in (False, "true"))
        if network is not None:
            network.double()
        grid = make_inferer(name, **how).output_grid(scan)
        assert some.dtype == dtype and read_grid(some.meta).observed.equal(grid.is_observed)
        assert torch.equal(some[..., grid.is_observed].as_tensor(), scan.as_tensor()[..., grid.observed_source])
        assert torch.equal(some[..., ~grid.is_observed].as_tensor(), every[..., ~grid.is_observed].as_tensor())

    @pytest.mark.parametrize("positions", [tuple(map(float, range(5))), (0.0, 1.0004, 1.9996, 3.0, 4.0003)])
    def test_even_positions_change_nothing(self, name, positions):
        """A list of even positions, or one that only rounding makes uneven, gives exactly what no list gives."""
        listed = make_scan(1, 1, 8, 7, 5, slice_positions=positions, slice_positions_axis=2)
        for how in ({"factor": 3}, {"spacing": 1.7}):
            with_list, without = (infer(name, scan, **how) for scan in (listed, make_scan(1, 1, 8, 7, 5)))
            assert torch.equal(with_list.as_tensor(), without.as_tensor())
            assert torch.equal(with_list.affine, without.affine)

    def test_input_and_network_are_left_alone(self, name):
        scan, network = (3 * make_scan(1, 1, 20, 18, 6) - 1), find_network(name)
        values, affine = scan.as_tensor().clone(), scan.affine.clone()
        weights = [] if network is None else [weight.clone() for weight in network.parameters()]
        result = infer(name, scan, factor=2)
        assert not result.requires_grad and torch.is_grad_enabled()
        result += 1
        result.meta["new"] = 1
        result.affine[0, 0] = 9
        assert torch.equal(scan.as_tensor(), values) and torch.equal(scan.affine, affine) and "new" not in scan.meta
        for before, after in zip(weights, network.parameters() if network else [], strict=True):
            assert torch.equal(before, after) and after.grad is None

    @pytest.mark.parametrize(
        ("options", "count"), [({"keep_observed": True}, 2 * 4), ({"keep_observed": False, "progress": "true"}, 13)]
    )
    def test_progress_counts_synthesized_slices(self, monkeypatch, name, options, count):
        bars = record_bars(monkeypatch)
        for progress in (True, False):
            infer(name, make_scan(2, 3, 9, 8, 5), factor=3, **{**options, "progress": progress})
            assert ("slice" in bars[-1].screen.getvalue()) == progress
        assert bars[0].n == bars[0].total == 2 * 3 * count


@pytest.mark.parametrize("name", ["latent", "multi_view"])
def test_wrapper_of_distributed_training_is_taken_off(name):
    scan = make_scan(1, 1, 6, 5, 3)
    for wrapped in (Wrapper(find_network(name)), nn.DataParallel(find_network(name))):
        result = make_inferer(name, factor=2)(scan, wrapped)
        assert torch.equal(result.as_tensor(), infer(name, scan, factor=2).as_tensor())


@pytest.mark.parametrize("name", CASES)
class TestErrors:
    @pytest.mark.parametrize("shape", [(4, 5, 6), (1, 4, 5, 6), (1, 1, 1, 4, 5, 6), (1, 1, 0, 5, 6)])
    def test_not_a_batch_of_volumes(self, name, shape):
        named = r"expected volumes \(B, C, H, W, N\), got shape \(" + ", ".join(map(str, shape))
        check_error(ValueError, named, infer, name, MetaTensor(torch.zeros(shape)), factor=2)

    @pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.bool, torch.complex64])
    def test_not_floating_point(self, name, dtype):
        scan = MetaTensor(torch.zeros(1, 1, 4, 4, 3, dtype=dtype))
        check_error(ValueError, f"expected floating point volumes, got {dtype}", infer, name, scan, factor=2)

    @pytest.mark.parametrize("options", [{"spacing": 1.0}, {}])
    def test_plain_tensor_without_a_factor(self, name, options):
        named = "a plain tensor has no spacing: give a factor, or a MetaTensor"
        check_error(ValueError, named, infer, name, rand(1, 1, 5, 4, 3), **options)

    def test_unfit_for_the_volume(self, name):
        scan = make_scan(1, 1, 5, 4, 3)
        check_error(ValueError, "4.5 mm is coarser than the input's 4 mm", infer, name, scan, spacing=4.5)
        for options in ({"factor": 2}, {"spacing": 1.0}, {}):
            check_error(ValueError, "at least 2 slices, got 1", infer, name, scan[..., :1], **options)

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"factor": 2, "spacing": 1.0}, "not both"),
            ({"factor": 0}, "factor must be a positive integer such as 2 or 4, got 0"),
            ({"factor": 1.5}, "got 1.5"),
            ({"factor": "4"}, "got '4'"),
            ({"spacing": 0}, "target spacing must be a positive number of mm, got 0"),
            ({"spacing": float("nan")}, "got nan"),
            ({"spacing": True}, "got True"),
            ({"keep_observed": "maybe"}, "keep_observed must be true or false, got 'maybe'"),
            ({"progress": 1}, "progress must be true or false, got 1"),
        ],
    )
    def test_parameters(self, name, options, named):
        check_error(ValueError, named, make_inferer, name, **options)


@pytest.mark.parametrize("name", WITH_NETWORK)
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"value_range": (1.0, 1.0)}, r"value_range must be ascending, got \(1.0, 1.0\)"),
        ({"value_range": (1.0, float("nan"))}, "value_range must be ascending"),
        *(
            ({"batch_size": size}, rf"batch_size must be an integer of at least 0 \(0 chooses it\), got {size!r}")
            for size in (-1, 1.5, True, "2", None)
        ),
    ],
)
def test_parameters_of_networks(name, options, named):
    check_error(ValueError, named, make_inferer, name, **options)


@pytest.mark.parametrize(
    ("name", "network", "kind", "named"),
    [
        *(
            ("latent", network, TypeError, f"encode, mix and decode, got {type(network).__name__}")
            for network in (None, nn.Identity(), plain)
        ),
        *(
            ("multi_view", network, TypeError, f"expected a SAINT network, got {type(network).__name__}")
            for network in (None, nn.Identity(), plain, Wrapper(nn.Identity()), make_saint().ami, make_saint().rfn)
        ),
        ("volumetric", None, ValueError, "needs a network"),
    ],
)
def test_unfit_network(name, network, kind, named):
    check_error(kind, named, make_inferer(name, factor=2), make_scan(1, 1, 5, 4, 3), network)
