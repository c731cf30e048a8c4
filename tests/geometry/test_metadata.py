# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""The grid of an interpolated volume in its metadata: written by inferers, read by whatever comes after them."""

from __future__ import annotations

import pytest
import torch
from monai.data import Dataset, MetaTensor, decollate_batch, list_data_collate
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, Lambda

from monai_sliceinterp.geometry import GRID_KEYS, GridMetadata, OutputGrid, read_grid, write_grid
from monai_sliceinterp.inferers import MultiViewSliceInferer, SplineSliceInferer
from monai_sliceinterp.transforms import ThroughPlaneLastd
from tests.inferers.common import make_saint

UNEVEN = (0.0, 1.0, 2.5, 3.5)
GRIDS = {
    "factor": OutputGrid.from_factor(4, 3),
    "spacing": OutputGrid.from_spacing(4, 5.0, 2.0),
    "uneven": OutputGrid.from_factor(4, 2, UNEVEN),
}


def run_evaluator(images, inferer, network=None):
    """Outputs of a SupervisedEvaluator, one for each volume, for one batch of all of them."""
    results = []

    def record(data):
        results.append(data["pred"])
        return data

    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=[list_data_collate([{"image": image} for image in images])],
        network=network or torch.nn.Identity(),
        inferer=inferer,
        postprocessing=Compose([Lambda(record)]),
        amp=False,
    )
    evaluator.run()
    return results


def make_image(seed=0, **meta):
    values = torch.rand(2, 6, 7, 4, generator=torch.Generator().manual_seed(seed))
    return MetaTensor(values, affine=torch.diag(torch.tensor([1.0, 2.0, 5.0, 1.0])).double(), meta=meta)


@pytest.mark.parametrize("batch_size", [None, 1, 3])
@pytest.mark.parametrize("keep_observed", [True, False])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_what_is_written_is_read(grid, keep_observed, batch_size):
    record = GridMetadata(grid, keep_observed, source_spacing=5.0, axis=1, factor=3)
    meta = {"requested_spacing": 1.0, "source_slice_positions": "of another volume", "kept": "as it is"}
    write_grid(meta, record, batch_size)
    assert meta["kept"] == "as it is" and set(meta) <= {*GRID_KEYS, "kept"}
    assert ("source_slice_positions" in meta) == (grid.slice_positions is not None)
    shape = (len(grid),) if batch_size is None else (batch_size, len(grid))
    assert meta["source_positions"].shape == meta["observed_slices"].shape == shape
    assert read_grid(meta) == record


@pytest.mark.parametrize(
    "options", [{"factor": 3}, {"spacing": 2.0}, {"keep_observed": False}, {"factor": 2, "keep_observed": "false"}]
)
@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_through_an_evaluator(options, uneven, count):
    meta = {"slice_positions": UNEVEN, "slice_positions_axis": 2} if uneven else {}
    images = [make_image(seed, filename_or_obj=f"{seed}.nii", **meta) for seed in range(count)]
    inferer = SplineSliceInferer(**options, mode="linear")
    requested = options.get("factor"), options.get("spacing")
    expected = GridMetadata(inferer.output_grid(images[0][None]), inferer.keep_observed, 5.0, 2, *requested)
    for image, result in zip(images, run_evaluator(images, inferer), strict=True):
        assert read_grid(result.meta) == expected
        assert result.meta["source_positions"].shape == (result.shape[-1],)
        assert result.meta["observed_slices"].any() == inferer.keep_observed
        assert not {"slice_positions", "slice_positions_axis"} & set(result.meta)
        alone = inferer(image[None])
        assert torch.equal(alone[0].as_tensor(), result.as_tensor())
        assert read_grid(alone.meta) == read_grid(alone[0].meta) == expected


def test_disagreement_through_an_evaluator():
    network = make_saint(dtype=torch.float32)
    images = [make_image(seed) for seed in range(2)]
    inferer = MultiViewSliceInferer(factor=2, fuse=False, disagreement=True)
    for image, result in zip(images, run_evaluator(images, inferer, network), strict=True):
        found = result.meta["disagreement"]
        assert not isinstance(found, MetaTensor) and found.shape == result.shape
        assert torch.allclose(found, inferer(image[None], network).meta["disagreement"][0], atol=1e-6)
        assert (found[..., ::2] == 0).all() and (found[..., 1::2] > 0).any()


def test_interpolated_twice():
    first = SplineSliceInferer(factor=3)(make_image(disagreement="of an earlier run")[None])
    second = SplineSliceInferer(spacing=1.0, keep_observed=False)(first)
    assert "disagreement" not in first.meta and "requested_factor" not in second.meta
    record = read_grid(second.meta)
    assert (record.factor, record.spacing, record.keep_observed, record.grid.num_slices) == (None, 1.0, False, 10)
    assert record.source_spacing == pytest.approx(5 / 3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_axis_follows_the_way_back(axis):
    image = make_image(filename_or_obj="a.nii")
    load = ThroughPlaneLastd("image", axis=axis)
    items = Dataset([{"image": image}] * 2, load)
    batch = list_data_collate([items[0], items[1]])
    for item in decollate_batch({"image": SplineSliceInferer(factor=2)(batch["image"])}):
        assert read_grid(item["image"].meta).axis == 2
        assert read_grid(load.inverse(item)["image"].meta).axis == axis


@pytest.mark.parametrize("key", ["source_positions", "num_source_slices", "observed_slices", "source_axis"])
def test_missing_or_contradictory(key):
    meta = {"filename_or_obj": "a.nii"}
    write_grid(meta, GridMetadata(OutputGrid.from_factor(3, 2), True, 5.0), batch_size=2)
    rows = torch.as_tensor(meta[key])
    meta[key] = torch.stack([rows[0], ~rows[1] if rows.dtype == torch.bool else rows[1] + 1]) if rows.ndim else [1, 2]
    with pytest.raises(ValueError, match=f"the volumes of a batch differ in {key}; expected one volume at a time"):
        read_grid(meta)
    del meta[key]
    with pytest.raises(ValueError, match=f"a.nii: has no '{key}' in its metadata; expected a volume as an inferer"):
        read_grid(meta)
