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

"""Shapes that the phantom is painted with, as continuous functions of position in mm.

A depth function gives how many mm a position lies inside a structure; :func:`cover_fraction` makes a fraction of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

EDGE_MM = 1.6  # full width of an edge; 10 % to 90 % takes 0.97 mm

Field = Callable[[Tensor, Tensor, Tensor, float], Tensor]
Number = float | Tensor


def cover_fraction(depth: Tensor) -> Tensor:
    """Compute the cover fraction in [0, 1] of a depth in mm."""
    t = (depth / EDGE_MM + 0.5).clamp_(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def paint(image: Tensor, depth: Tensor, value: Number, mask: Tensor | None = None) -> None:
    """Blend ``value`` into ``image`` in place where ``depth`` is positive (and ``mask`` is 1)."""
    cover = cover_fraction(depth)
    image.add_((cover if mask is None else cover * mask) * (value - image))


def ellipsoid(x: Tensor, y: Tensor, z: Tensor | None, a: float, b: float, c: Number = 1.0) -> Tensor:
    """Compute the first-order depth in an ellipsoid (``z`` None: an elliptic cylinder) of semi-axes a, b, c in mm."""
    u, v = x / a, y / b
    norm2, grad2 = u * u + v * v, (u / a).square() + (v / b).square()
    if z is not None:
        w = z / c
        norm2, grad2 = norm2 + w * w, grad2 + (w / c).square()
    norm = (norm2 + 1e-6).sqrt()
    return (1.0 - norm) * norm / (grad2 + 1e-6 / min(a, b) ** 2).sqrt()


def split_at(z: Tensor, below: float, above: float) -> Tensor:
    """Choose a semi-axis that differs below and above zero: an egg instead of an ellipsoid."""
    return torch.where(z < 0, below, above)


def fold_axis(z: Tensor, period: float) -> Tensor:
    """Compute the distance to the nearest multiple of ``period``: repeats a symmetric structure along an axis."""
    return (torch.remainder(z, period) - period / 2).abs().neg_().add_(period / 2)


def random_pose(rng: np.random.Generator, degrees: float, shift: float) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Draw a small rotation and shift of the whole anatomy."""
    ca, cb, cc = np.cos(angles := np.deg2rad(rng.uniform(-degrees, degrees, 3)))
    sa, sb, sc = np.sin(angles)
    turn = (
        np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
        @ np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
        @ np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    ).tolist()
    move = rng.uniform(-shift, shift, 3).tolist()

    def apply(x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, b, c = (r[0] * x + r[1] * y + r[2] * z + m for r, m in zip(turn, move, strict=True))
        return a, b, c

    return apply


class Waves:
    """Smooth random field of unit variance: a sum of plane waves with wavelengths in mm."""

    def __init__(self, rng: np.random.Generator, count: int, shortest: float, longest: float) -> None:
        direction = rng.normal(size=(count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        k = direction * (2 * math.pi / rng.uniform(shortest, longest, (count, 1)))
        self.waves = np.hstack([k, rng.uniform(0, 2 * math.pi, (count, 1))]).tolist()
        self.scale = math.sqrt(2.0 / count)

    def __call__(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Compute the field at positions in mm."""
        total = torch.zeros_like(x)
        for kx, ky, kz, phase in self.waves:
            total += (kx * x + ky * y + kz * z + phase).sin_()
        return total * self.scale

    def sheet(self, x: Tensor, y: Tensor, z: Tensor, normal: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Compute the distance in mm to the zero surface, measured across the direction ``normal`` (unit vectors)."""
        total, gx, gy, gz = (torch.zeros_like(x) for _ in range(4))
        for kx, ky, kz, phase in self.waves:
            angle = kx * x + ky * y + kz * z + phase
            slope = angle.cos()
            total += angle.sin_()
            gx.add_(slope, alpha=kx)
            gy.add_(slope, alpha=ky)
            gz.add_(slope, alpha=kz)
        along = gx * normal[0] + gy * normal[1] + gz * normal[2]
        grad2 = (gx * gx + gy * gy + gz * gz - along * along).clamp_min_(0.0)
        return total.abs() / (grad2 + (0.4 * self.mean_k()) ** 2).sqrt()

    def mean_k(self) -> float:
        """Compute the mean wave number in rad/mm."""
        return float(np.mean([math.hypot(*w[:3]) for w in self.waves]))


class Tubes:
    """Union of round cones: rows of (start xyz, end xyz, start radius, end radius) in mm."""

    def __init__(self, rows: Sequence[tuple[float, ...]]) -> None:
        self.rows = torch.tensor(rows, dtype=torch.float32)
        reach = self.rows[:, 6:].amax(1, keepdim=True) + EDGE_MM
        self.low = torch.minimum(self.rows[:, :3], self.rows[:, 3:6]) - reach
        self.high = torch.maximum(self.rows[:, :3], self.rows[:, 3:6]) + reach

    def __call__(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Compute the depth inside the union; -100 where no tube is near."""
        low = torch.stack([x.amin(), y.amin(), z.amin()]).cpu()
        high = torch.stack([x.amax(), y.amax(), z.amax()]).cpu()
        rows = self.rows[((self.low <= high) & (self.high >= low)).all(1)].tolist()
        depth = torch.full_like(x, -100.0)
        for ax, ay, az, bx, by, bz, r0, r1 in rows:
            ex, ey, ez = bx - ax, by - ay, bz - az
            dx, dy, dz = x - ax, y - ay, z - az
            t = (dx * ex).add_(dy, alpha=ey).add_(dz, alpha=ez).mul_(1.0 / (ex * ex + ey * ey + ez * ez))
            t.clamp_(0.0, 1.0)
            dx.sub_(t, alpha=ex).square_().add_(dy.sub_(t, alpha=ey).square_()).add_(dz.sub_(t, alpha=ez).square_())
            torch.maximum(depth, t.mul_(r1 - r0).add_(r0).sub_(dx.sqrt_()), out=depth)
        return depth
