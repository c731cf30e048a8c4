# Copyright (c) monai_sliceinterp contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Rotate digits by mixing latent codes: ASI against VAE and ACAI (ASI, section VI-A).

    python benchmarks/rotation_toy.py [--epochs 60] [--output rotation_toy.png]

Of a digit and the same digit rotated by 40 degrees, the rotations by 10, 20 and 30 degrees are synthesized with
alpha = 0.25, 0.5, 0.75 and compared with the digit rotated in image space. As in the paper ASI alone sees an image
between two others while training, 15 degrees away from both; VAE and ACAI see rotated digits one by one. All three have
ASI's autoencoder with a code of 16 channels; the VAE has two linear layers more, ACAI a critic. The digits are
scikit-learn's (1,797 of 8 x 8 pixels, scans of real handwriting), enlarged to 32 x 32 pixels; four fifths train. The
weights of the losses (``ASI_WEIGHT``, ``DIVERGENCE_WEIGHT``) are for mean squared errors; the paper's lambda = 10 goes
with LPIPS.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from matplotlib.figure import Figure
from monai.engines import SupervisedTrainer, Trainer
from monai.utils import set_determinism
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam

from monai_sliceinterp.engines import AlternatingSupervisionTrainer, PrepareSlicePairs
from monai_sliceinterp.losses import ASILoss
from monai_sliceinterp.metrics import slice_score
from monai_sliceinterp.networks.nets import (
    ASIAutoencoder,
    InterpolationCritic,
    VariationalASIAutoencoder,
)
from monai_sliceinterp.networks.nets.latent import LatentInterpolator

SIZE, TURN, NEIGHBOR = 32, 40.0, 15.0
ALPHAS = (0.25, 0.5, 0.75)
CHANNELS, LATENT_CHANNELS = (32, 64), 16
BATCH_SIZE, LEARNING_RATE = 32, 1e-3
ASI_WEIGHT, DIVERGENCE_WEIGHT = 10.0, 1e-3


def rotate(images: Tensor, degrees: Tensor | float) -> Tensor:
    """Rotate images ``(B, 1, H, W)`` counterclockwise about their center, each by its own angle; outside is 0."""
    angle = torch.as_tensor(degrees, dtype=images.dtype).expand(len(images)) * math.pi / 180
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    matrix = torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1).reshape(-1, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bicubic", align_corners=False).clamp(0, 1)


def load_images() -> tuple[Tensor, Tensor]:
    """Give the digits for training and for the test, ``(B, 1, 32, 32)`` in [0, 1]."""
    digits = torch.from_numpy(load_digits().images).float()[:, None] / 16
    # a margin, so that nothing is turned out of the image
    images = F.pad(F.interpolate(digits, (24, 24), mode="bicubic", align_corners=False).clamp(0, 1), [4] * 4)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    count = len(images) * 4 // 5
    return images[order[:count]], images[order[count:]]


class RotatedBatches:
    """Batches of rotated digits with their neighbors 15 degrees to both sides.

    Args:
        images: digits ``(B, 1, H, W)``.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images) // BATCH_SIZE

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for index in torch.randperm(len(self.images))[: len(self) * BATCH_SIZE].split(BATCH_SIZE):
            angle = 360 * torch.rand(len(index))
            first, middle, last = (rotate(self.images[index], angle + offset) for offset in (NEIGHBOR, 0.0, -NEIGHBOR))
            yield {"image": torch.cat([first, last], dim=1), "label": middle, "alpha": torch.full((len(index), 1), 0.5)}


def make_trainers(images: Tensor, epochs: int) -> dict[str, tuple[LatentInterpolator, Trainer]]:
    """Give every method's network and the engine that trains it."""
    vae = VariationalASIAutoencoder(channels=CHANNELS, latent_channels=LATENT_CHANNELS)
    asi, acai = (ASIAutoencoder(channels=CHANNELS, latent_channels=LATENT_CHANNELS) for _ in range(2))
    critic = InterpolationCritic(channels=CHANNELS, latent_channels=LATENT_CHANNELS)
    batches = RotatedBatches(images)
    unsupervised = {"content_loss": F.mse_loss, "adversarial_weight": 0.0, "steps": ("unsupervised",)}
    trainers = {
        "VAE": AlternatingSupervisionTrainer(
            "cpu",
            epochs,
            batches,
            vae,
            Adam(vae.parameters(), LEARNING_RATE),
            constraint_weight=0.0,
            divergence_weight=DIVERGENCE_WEIGHT,
            **unsupervised,
        ),
        "ACAI": AlternatingSupervisionTrainer(
            "cpu",
            epochs,
            batches,
            acai,
            Adam(acai.parameters(), LEARNING_RATE),
            constraint_critic=critic,
            constraint_optimizer=Adam(critic.parameters(), LEARNING_RATE),
            **unsupervised,
        ),
        "ASI": SupervisedTrainer(
            device="cpu",
            max_epochs=epochs,
            train_data_loader=batches,
            network=asi,
            optimizer=Adam(asi.parameters(), LEARNING_RATE),
            loss_function=ASILoss(synthesis_weight=ASI_WEIGHT),
            prepare_batch=PrepareSlicePairs(),
            decollate=False,
        ),
    }
    return {name: (network, trainers[name]) for name, network in (("VAE", vae), ("ACAI", acai), ("ASI", asi))}


@torch.no_grad()
def turn(network: LatentInterpolator, images: Tensor) -> Tensor:
    """Give reconstructions and rotations between, ``(B, 5, H, W)`` in the order of their angles."""
    pairs = torch.cat([images, rotate(images, TURN)], dim=1)
    alphas = torch.tensor((0.0, *ALPHAS, 1.0)).expand(len(images), -1)
    return network.eval()(pairs, alphas).clamp(0, 1)


def picture(rows: dict[str, Tensor], path: Path) -> None:
    """Draw the rotations ``(3, 5, H, W)`` of three digits, one row for each method."""
    figure = Figure(figsize=(11, 0.95 * len(rows) + 0.5))
    axes = figure.subplots(len(rows), 15)
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for place, (axis, image) in enumerate(zip(line, images.flatten(0, 1), strict=True)):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            if line is axes[0]:
                axis.set_title(f"{place % 5 * 10}°", fontsize=9)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
    figure.subplots_adjust(
        left=0.09, right=0.995, top=1 - 0.35 / figure.get_figheight(), bottom=0.01, wspace=0.04, hspace=0.04
    )
    figure.savefig(path, dpi=130)


def main(epochs: int, output: Path) -> None:
    """Train, score and draw."""
    training, test = load_images()
    truth = torch.cat([rotate(test, TURN * alpha) for alpha in (0.0, *ALPHAS, 1.0)], dim=1)
    pixels = torch.lerp(truth[:, :1], truth[:, -1:], torch.tensor(ALPHAS).reshape(1, -1, 1, 1))
    results = {"image space": truth, "pixel blend": torch.cat([truth[:, :1], pixels, truth[:, -1:]], dim=1)}
    for name in ("VAE", "ACAI", "ASI"):
        set_determinism(0)
        network, trainer = make_trainers(training, epochs)[name]
        start = time.perf_counter()
        trainer.run()
        print(f"{name}: {epochs} epochs of {len(training)} digits in {time.perf_counter() - start:.0f} s")
        results[name] = turn(network, test)
    print("| method | reconstruction | 10° | 20° | 30° |\n| --- | --- | --- | --- | --- |")
    for name, images in list(results.items())[1:]:
        ends = slice_score(images[:, ::4], truth[:, ::4], "psnr")
        between = [
            f"{slice_score(images[:, [k]], truth[:, [k]], 'psnr'):.2f} / "
            f"{slice_score(images[:, [k]], truth[:, [k]], 'ssim'):.3f}"
            for k in (1, 2, 3)
        ]
        print(f"| {name} | {ends:.2f} | " + " | ".join(between) + " |")
    picture({name: images[[3, 8, 24]] for name, images in results.items()}, output)
    print(f"picture: {output}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--output", type=Path, default=Path("rotation_toy.png"))
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.output)
