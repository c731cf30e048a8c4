# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Preparation of batches: what networks and losses take."""

import pytest
import torch
from monai.data import MetaTensor, list_data_collate

from monai_sliceinterp.engines import PrepareConditionalPairs, PrepareSliceBlocks, PrepareSlicePairs, PrepareViewImages
from monai_sliceinterp.inferers import MultiViewSliceInferer
from monai_sliceinterp.losses import ASILoss
from monai_sliceinterp.networks.nets import SAINT, ASIAutoencoder
from monai_sliceinterp.transforms import RandSliceBlocksd
from tests.engines.helpers import rand


@pytest.mark.parametrize(
    ("prepare", "keywords"),
    [
        (PrepareSlicePairs(), {"alpha": "alpha", "reconstruct": None}),
        (PrepareConditionalPairs(), {"condition": "condition"}),
        (PrepareConditionalPairs("alpha"), {"condition": "alpha"}),
        (PrepareConditionalPairs(None), {}),
    ],
)
def test_tensors_are_moved(prepare, keywords):
    """Input, target and keyword arguments; they are plain tensors for a conditional GAN."""
    batch = {"image": MetaTensor(rand(4, 2, 8, 8), affine=torch.eye(4)), "label": MetaTensor(rand(4, 1, 8, 8, seed=1))}
    batch |= {"alpha": rand(4, seed=2), "condition": MetaTensor(rand(4, 8, seed=3)), "other": 1}
    image, target, args, kwargs = prepare(batch, "cpu", True, dtype=torch.float64)
    assert args == () and set(kwargs) == set(keywords)
    assert torch.equal(image, batch["image"].double()) and torch.equal(target[:, -1:], batch["label"].double())
    for name, key in keywords.items():
        assert key is None or torch.equal(kwargs[name], batch[key].double())
    if isinstance(prepare, PrepareConditionalPairs):
        assert {type(value) for value in (image, target, *kwargs.values())} == {torch.Tensor}
        assert type(batch["image"]) is MetaTensor  # not in place


def test_missing_condition():
    with pytest.raises(KeyError, match="condition"):
        PrepareConditionalPairs()({"image": rand(1, 1, 2, 2, 2), "label": rand(1, 1, 2, 2, 2)})


class TestPrepareSlicePairs:
    def test_with_network_and_loss(self):
        network = ASIAutoencoder(channels=(2,), latent_channels=3).eval()
        batch = {"image": rand(4, 2, 8, 8), "label": rand(4, 1, 8, 8, seed=1), "alpha": torch.full((4,), 0.5)}
        image, target, args, kwargs = PrepareSlicePairs()(batch)
        pred = network(image, *args, **kwargs)
        assert pred.shape == target.shape
        first, second, between = (network.decode(network.encode(batch["image"][:, k, None])) for k in (0, 1, 0))
        expected = ((torch.cat([first, second], 1) - batch["image"]) ** 2).mean()
        between = network(batch["image"], alpha=0.5)
        expected += ((between - batch["label"]) ** 2).mean()
        torch.testing.assert_close(ASILoss()(pred, target), expected)


SMALL = {"channels": 8, "num_blocks": 1, "num_layers": 2, "growth": 4}


def make_saint():
    """A small network that is far from an interpolation, so that its spacings matter."""
    torch.manual_seed(0)
    network = SAINT(SMALL, SMALL)
    with torch.no_grad():
        for parameter in network.ami.filter_generation.parameters():
            parameter.mul_(2)
    return network.eval()


def draw_blocks(patch=(3, 10), number=6, seed=0, spacing=(0.7, 0.9, 1.3)):
    """Batch of blocks whose spacings differ from block to block."""
    volume = MetaTensor(rand(1, 20, 24, 30), affine=torch.diag(torch.tensor([*spacing, 1.0])))
    sampler = RandSliceBlocksd("image", number, patch, 3, [3]).set_random_state(seed)
    return list_data_collate(sampler({"image": volume}))


class TestPrepareSliceBlocks:
    def test_batch(self):
        batch = draw_blocks((5, 8))
        image, target, args, kwargs = PrepareSliceBlocks()(batch, "cpu", True, dtype=torch.float64)
        assert image.shape == (6, 1, 5, 8, 3) and target.shape == (6, 1, 5, 8, 7) and args == ()
        assert torch.equal(image, batch["image"].double()) and torch.equal(target, batch["label"].double())
        assert set(kwargs) == {"factor", "slice_spacing", "in_plane_spacing"}
        assert kwargs["factor"] == 3 and type(kwargs["factor"]) is int
        assert torch.equal(kwargs["slice_spacing"], batch["slice_spacing"].double())
        first, second = kwargs["in_plane_spacing"]
        assert torch.equal(first, batch["in_plane_spacing"][:, 0].double())
        assert torch.equal(second, batch["in_plane_spacing"][:, 1].double())
        assert not torch.equal(first, second) and len(kwargs["slice_spacing"].unique()) > 1

    def test_thickness_of_every_second_block(self):
        batch = {**draw_blocks((5, 8)), "slice_thickness": torch.arange(1.0, 7.0)}
        found = PrepareSliceBlocks(thickness=True)(batch)[3]
        assert found["slice_thickness"].tolist() == [0, 2, 0, 4, 0, 6]

    def test_network_sees_each_block_with_its_spacings(self):
        """A batch gives what each block gives on its own, with the spacings that are in its affine."""
        batch, network = draw_blocks((6, 9)), make_saint()
        image, _, args, kwargs = PrepareSliceBlocks()(batch)
        with torch.no_grad():
            pred = network(image, *args, **kwargs)
        assert pred.shape == batch["label"].shape
        for k in range(6):
            spacing = [*batch["in_plane_spacing"][k], batch["slice_spacing"][k], torch.tensor(1.0)]
            scan = MetaTensor(batch["image"][k : k + 1], affine=torch.diag(torch.stack(spacing)))
            expected = MultiViewSliceInferer(factor=3)(scan, network).as_tensor()
            torch.testing.assert_close(pred[k : k + 1], expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("prepare", [PrepareSliceBlocks, PrepareViewImages])
    def test_mixed_factors(self, prepare):
        batch = draw_blocks()
        batch["factor"] = torch.tensor([4, 2, 4, 4, 2, 2])
        with pytest.raises(ValueError, match=r"blocks of factors \[2, 4\]; expected one factor for all") as caught:
            prepare()(batch)
        assert "\n" not in str(caught.value)

    def test_factors_as_a_list(self):
        batch = draw_blocks()
        batch["factor"] = [3] * 6
        assert PrepareSliceBlocks()(batch)[3]["factor"] == 3


class TestPrepareViewImages:
    def test_by_hand(self):
        """Row n of an image of the view is a line of slice n of the block."""
        blocks = torch.arange(2 * 3 * 4 * 3).reshape(2, 1, 3, 4, 3).float()
        truth = torch.arange(2 * 3 * 4 * 5).reshape(2, 1, 3, 4, 5).float()
        batch = {"image": blocks, "label": truth, "factor": torch.tensor([2, 2])}
        batch |= {"slice_spacing": torch.tensor([4.0, 5.0]), "in_plane_spacing": torch.tensor([[0.5, 0.6], [0.7, 0.8]])}
        image, target, args, kwargs = PrepareViewImages()(batch)
        assert image.shape == (2, 3, 3, 4) and target.shape == (2, 1, 5, 4) and args == ()
        for b in range(2):
            for n in range(3):
                for line in range(3):  # the previous line, the line itself, the next one
                    assert torch.equal(image[b, line, n], blocks[b, 0, line, :, n])
            for m in range(5):
                assert torch.equal(target[b, 0, m], truth[b, 0, 1, :, m])
        assert kwargs["factor"] == 2 and set(kwargs) == {"factor", "slice_spacing", "in_plane_spacing"}
        # the images' columns run along the block's width
        assert torch.equal(kwargs["in_plane_spacing"], torch.tensor([0.6, 0.8]))
        assert torch.equal(kwargs["slice_spacing"], torch.tensor([4.0, 5.0]))

    def test_trained_as_used(self):
        """AMI sees in training what the inferer shows it of a scan: images, neighbors and spacings."""
        batch, network = draw_blocks(number=8), make_saint()
        image, target, args, kwargs = PrepareViewImages()(batch)
        with torch.no_grad():
            pred = network.ami(image, *args, **kwargs)
        assert pred.shape == target.shape
        # observed rows are copies of the truth
        assert torch.equal(pred[:, :, ::3], target[:, :, ::3])
        for k in range(8):
            spacing = [*batch["in_plane_spacing"][k], batch["slice_spacing"][k], torch.tensor(1.0)]
            scan = MetaTensor(batch["image"][k : k + 1], affine=torch.diag(torch.stack(spacing)))
            thin = MultiViewSliceInferer(factor=3, fuse=False, views=("rows",))(scan, network).as_tensor()
            torch.testing.assert_close(pred[k, 0], thin[0, 0, 1].T, rtol=0, atol=1e-5)
        # other spacings would be noticed
        with torch.no_grad():
            wrong = network.ami(image, 3, kwargs["slice_spacing"], batch["in_plane_spacing"][:, 0])
        assert abs(wrong - pred).max() > 1e-3
