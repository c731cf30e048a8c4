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
"""The three anatomies behind :mod:`monai_sliceinterp.data.phantom`, as continuous functions of position in mm.

Every structure is a depth function (mm, positive inside) turned into a cover fraction by a cubic smoothstep that is
``EDGE_MM`` wide and exactly 0 or 1 outside that band; structures are painted over one another. Axes are RAS: +x is the
patient's right, +y anterior, +z superior (for the heart: from the apex to the base).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

EDGE_MM = 1.6  # full width of an edge; 10 % to 90 % takes 0.97 mm

Field = Callable[[Tensor, Tensor, Tensor, float], Tensor]
Number = float | Tensor


def _soft(depth: Tensor) -> Tensor:
    """Cover fraction in [0, 1] of a depth in mm."""
    t = (depth / EDGE_MM + 0.5).clamp_(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _paint(image: Tensor, depth: Tensor, value: Number, mask: Tensor | None = None) -> None:
    """Blend ``value`` into ``image`` in place where ``depth`` is positive (and ``mask`` is 1)."""
    cover = _soft(depth)
    image.add_((cover if mask is None else cover * mask) * (value - image))


def _ellipsoid(x: Tensor, y: Tensor, z: Tensor | None, a: float, b: float, c: Number = 1.0) -> Tensor:
    """First-order depth inside an ellipsoid (``z`` None: an elliptic cylinder) of semi-axes a, b, c in mm."""
    u, v = x / a, y / b
    norm2, grad2 = u * u + v * v, (u / a).square() + (v / b).square()
    if z is not None:
        w = z / c
        norm2, grad2 = norm2 + w * w, grad2 + (w / c).square()
    norm = (norm2 + 1e-6).sqrt()
    return (1.0 - norm) * norm / (grad2 + 1e-6 / min(a, b) ** 2).sqrt()


def _split(z: Tensor, below: float, above: float) -> Tensor:
    """Semi-axis that differs below and above zero: an egg instead of an ellipsoid."""
    return torch.where(z < 0, below, above)


def _fold(z: Tensor, period: float) -> Tensor:
    """Distance to the nearest multiple of ``period``: repeats a symmetric structure along an axis."""
    return (torch.remainder(z, period) - period / 2).abs().neg_().add_(period / 2)


def _pose(rng: np.random.Generator, degrees: float, shift: float) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """A small random rotation and shift of the whole anatomy."""
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


class _Waves:
    """A smooth random field of unit variance: a sum of plane waves with wavelengths in mm."""

    def __init__(self, rng: np.random.Generator, count: int, shortest: float, longest: float) -> None:
        direction = rng.normal(size=(count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        k = direction * (2 * math.pi / rng.uniform(shortest, longest, (count, 1)))
        self.waves = np.hstack([k, rng.uniform(0, 2 * math.pi, (count, 1))]).tolist()
        self.scale = math.sqrt(2.0 / count)

    def __call__(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for kx, ky, kz, phase in self.waves:
            total += (kx * x + ky * y + kz * z + phase).sin_()
        return total * self.scale

    def sheet(self, x: Tensor, y: Tensor, z: Tensor, normal: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Distance in mm to the zero surface, measured across the direction ``normal`` (unit vectors)."""
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
        """Mean wave number in rad/mm."""
        return float(np.mean([math.hypot(*w[:3]) for w in self.waves]))


class _Tubes:
    """Many round cones at once: rows of (start xyz, end xyz, start radius, end radius) in mm."""

    def __init__(self, rows: Sequence[tuple[float, ...]]) -> None:
        self.rows = torch.tensor(rows, dtype=torch.float32)
        reach = self.rows[:, 6:].amax(1, keepdim=True) + EDGE_MM
        self.low = torch.minimum(self.rows[:, :3], self.rows[:, 3:6]) - reach
        self.high = torch.maximum(self.rows[:, :3], self.rows[:, 3:6]) + reach

    def __call__(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Depth inside the union; -100 where no tube is near."""
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


def _heart(rng: np.random.Generator) -> Field:
    u = rng.uniform
    pose, grain, slow, rough = _pose(rng, 7, 4), _Waves(rng, 9, 4, 16), _Waves(rng, 3, 120, 240), _Waves(rng, 6, 8, 16)
    body_x, body_y, fat = u(86, 92), u(70, 76), u(6, 10)
    lv, wall, length, base = u(27, 32), u(8, 11), u(66, 74), u(24, 30)
    x0, y0, dx, dy, bend = u(-18, -10), u(-6, 0), u(-0.30, -0.20), u(0.08, 0.16), u(0.0010, 0.0022)
    septum, rv_size, twist, angle = u(0.35, 0.75), u(0.84, 0.98), u(0.012, 0.020), u(-2.2, -1.7)
    squeeze, strength, bias = u(0.28, 0.38), u(0.8, 1.1), u(0.10, 0.18)
    blood, muscle, fatty, soft, liver = u(760, 860), u(230, 310), u(800, 950), u(300, 380), u(380, 470)
    la, aorta_x, spine_x = u(20, 26), u(-20, -12), u(4, 12)

    def field(x: Tensor, y: Tensor, z: Tensor, time: float) -> Tensor:
        x, y, z = pose(x, y, z)
        beat = math.sin(math.pi * (time % 1.0) ** 0.8) ** 2  # 0 relaxed, 1 contracted
        widen = 1.0 + 0.0012 * z
        skin = _ellipsoid(x * widen, y * widen, None, body_x, body_y)
        image = torch.zeros_like(x)
        _paint(image, skin, 0.5 * fatty)
        _paint(image, skin - 2.0, fatty)
        ribs = _soft(5.0 * torch.sin(0.22 * z + 0.12 * x.abs() - 0.16 * y) - 1.5)
        _paint(image, skin - 2.0 - fat, soft + (0.55 * fatty - soft) * ribs)
        chest = skin - 2.0 - fat - 8.0
        _paint(image, chest, 0.55 * fatty)
        for side, lung_x, lung_y in ((1.0, 52.0, -2.0), (-1.0, -50.0, -10.0)):
            lung = torch.minimum(chest - 1.0, _ellipsoid(x - lung_x - 0.06 * side * z, y - lung_y, z - 10, 38, 52, 120))
            _paint(image, lung, 45.0 + 12.0 * rough(x, y, z))
        _paint(image, torch.minimum(chest - 1.0, _ellipsoid(x - 38, y + 44, z + 62, 58, 42, 56)), liver)
        _paint(image, torch.minimum(chest - 1.0, _ellipsoid(x + 40, y + 48, z + 66, 34, 30, 46)), 0.8 * soft)
        sx, sy = x - spine_x, y + body_y - 26.0
        _paint(image, _ellipsoid(sx, sy, None, 17, 14), 90.0)
        _paint(image, _ellipsoid(sx, sy, None, 15, 12), 330.0 + 60.0 * torch.cos(2 * math.pi / 26 * z))
        _paint(image, _ellipsoid(x - aorta_x + 0.10 * z, y + 38 - 0.04 * z, None, 11, 11), muscle)
        _paint(image, _ellipsoid(x - aorta_x + 0.10 * z, y + 38 - 0.04 * z, None, 9.5, 9.5), blood)

        dz = z - (base - 9.0 * beat)  # the base moves towards the apex
        down = -dz
        cx, cy = x0 + dx * down + bend * down * dz, y0 + dy * down + bend * down * down
        hx, hy = x - cx, y - cy
        c_out, c_in = _split(dz, length, 26.0), _split(dz, length - wall, 22.0)
        r_in = (lv - wall) * (1.0 - squeeze * beat)
        epi = _ellipsoid(hx, hy, dz, lv * (1.0 - 0.06 * beat), lv * 0.97 * (1.0 - 0.06 * beat), c_out)
        ridge = 0.8 * rough(hx, hy, z)
        endo = _ellipsoid(hx, hy, dz, r_in, r_in * 0.97, c_in) + strength * ridge
        ca, sa = math.cos(septum), math.sin(septum)
        along, across = hx * ca + hy * sa, hy * ca - hx * sa  # along: from the septum into the right ventricle
        rv_r = lv * rv_size * (1.0 - 0.14 * beat)
        rv = _ellipsoid(
            along - 0.62 * lv, across - 0.06 * down, dz + 4.0, rv_r, 1.16 * lv, _split(dz + 4.0, 0.84 * length, 24)
        )
        sac = torch.maximum(torch.maximum(epi, rv + 3.0) + 2.6, _ellipsoid(hx - 10, hy, dz - 18, 38, 30, 34))
        _paint(image, torch.minimum(sac, chest - 1.0), 0.72 * fatty)
        atria = torch.maximum(
            _ellipsoid(hx - 4, hy + 8, dz - 24, la, 0.85 * la, 22), _ellipsoid(hx - 40, hy - 2, dz - 22, 18, 21, 24)
        )
        vessel_a = 12.0 - torch.hypot(hx - 8 - 0.15 * dz, hy - 8 - 0.10 * dz) - (2.0 - dz).clamp_min(0.0)
        vessel_p = 11.0 - torch.hypot(hx - 14 + 0.30 * dz, hy - 28 + 0.08 * dz) - (-6.0 - dz).clamp_min(0.0)
        _paint(image, torch.maximum(atria + 2.0, rv + 3.5), muscle)
        _paint(image, torch.maximum(atria, rv + 1.2 * ridge - 0.4), blood)
        _paint(image, epi, muscle)
        _paint(image, endo, blood)
        _paint(image, torch.maximum(vessel_a, vessel_p) + 1.5, muscle)
        _paint(image, torch.maximum(vessel_a, vessel_p), blood)
        r_z = r_in * (1.0 - (dz / c_in).square()).clamp_min(0.02).sqrt()
        for k, (offset, size) in enumerate(((0.0, 4.6), (2.1, 5.2))):
            spiral = angle + offset + twist * down + 0.25 * beat
            centre = 0.66 * r_z
            far = ((dz + 0.48 * length + 4.0 * k).abs() - 0.20 * length).clamp_min(0.0)
            gap = torch.hypot(hx - centre * torch.cos(spiral), hy - centre * torch.sin(spiral))
            _paint(image, torch.minimum(size - gap - 0.5 * far, endo + 2.0), muscle)
        return image * (1.0 + bias * slow(x, y, z) + 0.016 * grain(x, y, z))

    return field


def _head(rng: np.random.Generator) -> Field:
    u = rng.uniform
    pose, grain, slow = _pose(rng, 8, 4), _Waves(rng, 9, 4, 14), _Waves(rng, 3, 150, 300)
    folds, depths, bend = _Waves(rng, 10, 17, 25), _Waves(rng, 4, 40, 70), [_Waves(rng, 3, 45, 90) for _ in range(3)]
    a, b, c = u(62, 68), u(77, 84), u(64, 70)
    cortex, reach, scalp, skull = u(2.6, 3.2), u(14, 18), u(4, 7), u(5, 7.5)
    white, grey, fluid, fatty = u(690, 780), u(450, 530), u(110, 170), u(820, 980)
    wide, lift, bias = u(0.8, 1.4), u(2, 9), u(0.05, 0.10)
    lateral = _Tubes(  # one lateral ventricle, for positive x: horns and body
        [
            (7, 32, 2 + lift, 7, 14, 14 + lift, 3.5 * wide, 5.0 * wide),
            (7, 14, 14 + lift, 9, -16, 17 + lift, 5.0 * wide, 5.0 * wide),
            (9, -16, 17 + lift, 20, -36, 6 + lift, 5.0 * wide, 6.5 * wide),
            (20, -36, 6 + lift, 19, -54, 2 + lift, 6.0 * wide, 2.0),
            (20, -36, 6 + lift, 32, -18, -18 + lift, 5.5 * wide, 2.5),
        ]
    )
    stem = _Tubes(
        [(0, -8, -8, 0, -22, -40, 11, 15), (0, -22, -40, 0, -30, -75, 12, 8), (0, -30, -75, 0, -34, -160, 7, 6)]
    )

    def field(x: Tensor, y: Tensor, z: Tensor, time: float) -> Tensor:
        x, y, z = pose(x, y, z)
        wx, wy, wz = (value + 2.6 * w(x, y, z) for value, w in zip((x, y, z), bend, strict=True))
        hz = z - 4.0
        hull = _ellipsoid(x, y, hz, a, b, _split(hz, 0.88 * c, c)) + 0.25 * (wx - x)
        out = 3.0 + skull + scalp
        head = _ellipsoid(x, y - 2.0, hz, a + out, b + out, _split(hz, 2.4 * c, c + out))
        cerebellum = _ellipsoid(x, y + 42, z + 42 + 0.25 * (wx - x), 50, 30, 24) + 0.3 * (wy - y)
        image = torch.zeros_like(x)
        _paint(image, head, 0.45 * fatty)
        _paint(image, head - 1.5, fatty)
        _paint(image, head - scalp, 330.0 + 90.0 * depths(x, y, z))
        vault = torch.maximum(hull, cerebellum - 1.0)
        _paint(image, vault + 3.0 + skull, 60.0)
        _paint(image, 0.5 * (skull - 3.0) - (vault + 3.0 + 0.5 * skull).abs(), 380.0)
        eye_x = x.abs() - 31.0
        _paint(image, torch.minimum(_ellipsoid(eye_x, y - b + 6, z + 44, 19, 24, 17), head - 3.0), 0.8 * fatty)
        _paint(image, _ellipsoid(eye_x, y - b - 2, z + 44, 12, 12, 12), 0.9 * fluid)
        _paint(image, vault + 3.0, fluid)

        # folded surface: sheets of fluid that run inwards along the rays of the hull
        norm = ((wx / a).square() + (wy / b).square() + ((wz - 4.0) / c).square()).sqrt().clamp_min(0.35)
        ray = (wx * wx + wy * wy + (wz - 4.0).square() + 1e-3).sqrt()
        normal = (wx / ray, wy / ray, (wz - 4.0) / ray)
        stretch = 0.75 / norm + 0.25
        sulcus = folds.sheet(wx * stretch, wy * stretch, (wz - 4.0) * stretch, normal) / stretch
        below = (hull - reach * (1.0 + 0.25 * depths(x, y, z))).clamp_min(0.0)
        pial = torch.minimum(hull, torch.hypot(sulcus, below) - 0.9)
        core = _ellipsoid(x, y + 4, z - 4, 60, 46, 28)
        fissure = torch.hypot(x + 0.35 * (wx - x), core.clamp_min(0.0)) - 1.3
        side = x.abs() - 40.0
        sylvian = torch.hypot(
            z + 4 - 0.45 * (y - 12) + (wz - z), (-side).clamp_min(0.0) + (y.abs() - 30).clamp_min(0.0)
        )
        pial = torch.minimum(torch.minimum(pial, fissure), sylvian - 1.5)
        brain = torch.minimum(pial, hull)
        brain = torch.minimum(brain, -(cerebellum + 1.4))  # the tentorium
        _paint(image, brain, grey)
        _paint(image, brain - cortex - 0.1 * (wz - z), white)
        mx = x.abs()
        tone = 0.85 * grey + 0.15 * white
        _paint(image, _ellipsoid(mx - 13, y + 8, z - 4 - lift * 0.5, 10, 15, 10), tone)  # thalamus
        lean = mx - 25 + 0.20 * (y - 4)
        _paint(image, _ellipsoid(lean, y - 6, z - 2 - lift * 0.5, 6.5, 20, 13), grey)  # putamen
        _paint(image, _ellipsoid(lean + 7, y - 4, z - 1 - lift * 0.5, 3.0, 12, 8), 0.5 * (grey + white))  # pallidum
        _paint(image, _ellipsoid(mx - 13.5, y - 24, z - 9 - lift, 6, 11, 11), grey)  # head of the caudate
        _paint(image, _ellipsoid(mx - 37, y - 5, z - lift * 0.5, 1.4, 22, 15), grey)  # claustrum and insula
        _paint(image, cerebellum, grey)
        layers = 1.3 * torch.sin(1.25 * cerebellum + 0.5 * (wx - x) + 0.4 * z) - 0.8 + 0.10 * cerebellum
        _paint(image, torch.minimum(layers, cerebellum - 1.5), 0.25 * grey + 0.75 * white)
        trunk = stem(x, y, z)
        _paint(image, trunk + 2.5, fluid, _soft(-14.0 - z))
        _paint(image, trunk, 0.2 * grey + 0.8 * white)
        _paint(image, torch.maximum(lateral(mx, y, z), _ellipsoid(x, y + 4, z - 2, 1.6 * wide, 14, 11)), fluid)
        _paint(image, _ellipsoid(x, y + 36, z + 38, 6, 4, 10), fluid)  # fourth ventricle
        return image * (1.0 + bias * slow(x, y, z) + 0.014 * grain(x, y, z))

    return field


def _branches(rng: np.random.Generator, side: float, root: np.ndarray) -> list[tuple[float, ...]]:
    """A branching tree of lung vessels on one side, from the hilum outwards."""
    rows: list[tuple[float, ...]] = []

    def grow(start: np.ndarray, heading: np.ndarray, length: float, radius: float, level: int) -> None:
        end = start + heading * length
        rows.append((*start.tolist(), *end.tolist(), radius, 0.8 * radius))
        if level == 0:
            return
        turn = rng.normal(size=3)
        turn -= turn @ heading * heading
        turn /= np.linalg.norm(turn)
        for sign in (1.0, -1.0):
            swing = math.radians(rng.uniform(22, 42)) * sign
            onward = heading * math.cos(swing) + turn * math.sin(swing)
            grow(end, onward, length * rng.uniform(0.72, 0.9), 0.76 * radius, level - 1)

    for tilt in np.linspace(-1.2, 1.3, 6) + rng.uniform(-0.12, 0.12, 6):
        spread = rng.uniform(-0.9, 0.9)
        heading = np.array(
            [side * math.cos(tilt) * math.cos(spread), math.cos(tilt) * math.sin(spread), math.sin(tilt)]
        )
        grow(root, heading, rng.uniform(22, 28), rng.uniform(3.4, 4.4), 4)
    return rows


def _torso(rng: np.random.Generator) -> Field:
    u = rng.uniform
    pose, grain, rough = _pose(rng, 5, 5), _Waves(rng, 8, 3, 11), _Waves(rng, 6, 14, 40)
    body_x, body_y, fat, level = u(142, 154), u(98, 108), u(9, 20), u(-52, -38)
    period, start, drop, rib_start = u(25, 29), u(0, 29), u(0.42, 0.60), u(0, 29)
    blood, meat, liver, cortical, spongy = u(170, 240), u(38, 58), u(55, 70), u(620, 950), u(170, 260)
    curve, hx, hy, hz, lean = u(0.0008, 0.0016), u(-28, -18), u(16, 24), u(-22, -10), u(0.35, 0.60)
    spine_y, aorta = 54.0 - body_y, u(10.5, 13)
    wide, lung_air = u(0.94, 1.05), u(-880, -830)
    tree = _Tubes([row for side in (1.0, -1.0) for row in _branches(rng, side, np.array([30 * side, -8.0, 12 * wide]))])
    arch, ay = 56 + u(-6, 6), spine_y + 24
    great = _Tubes(
        [
            (-18, ay, -400, -18, ay, arch, aorta, aorta),
            (-18, ay, arch, -10, 0.5 * ay, arch + 14, aorta, aorta),
            (-10, 0.5 * ay, arch + 14, 6, 12, arch + 8, aorta, aorta + 1),
            (6, 12, arch + 8, 12, 22, arch - 16, aorta + 1, aorta + 2),
            (12, 22, arch - 16, -4, 20, 8, aorta + 2, aorta + 1),
            (-20, 34, 10, -14, 16, 32, 13, 12),
            (-14, 16, 32, -34, -8, 24, 11, 7),
            (-14, 16, 32, 34, -8, 16, 10, 6),
            (28, 14, 400, 30, 8, 0, 9, 10),
            (22, -4, -400, 26, 2, -20, 11, 11),
            (2, 8, arch + 12, 10, 8, 400, 6, 5),
            (-10, 0, arch + 13, -22, 0, 400, 4.5, 4),
        ]
    )
    airways = _Tubes(
        [(3, -14, 400, 2, -16, 42, 8, 8), (2, -16, 42, 34, -14, 18, 6.5, 4.5), (2, -16, 42, -36, -16, 14, 6, 4)]
    )
    portal = _Tubes(
        [
            (30, -5, -110, 52, 0, -78, 6, 5),
            (52, 0, -78, 92, -12, -66, 4.5, 2),
            (52, 0, -78, 70, 38, -72, 4, 2),
            (26, -2, -46, 66, 22, -62, 4, 2),
            (26, -2, -46, 80, -26, -70, 4, 2),
            (26, -2, -46, 40, 50, -66, 3.5, 2),
        ]
    )

    def field(x: Tensor, y: Tensor, z: Tensor, time: float) -> Tensor:
        x, y, z = pose(x, y, z)
        soft = meat + 9.0 * grain(x, y, z)
        image = torch.full_like(x, -1000.0)
        slim = 1.0 + 0.0007 * z + 0.000006 * z * z
        skin = _ellipsoid(x * slim, y * slim, None, body_x, body_y)
        ring = skin - fat - 6.0 * (x / body_x).square() + 2.0 * rough(x, y, z)
        chest = _ellipsoid(x * slim, y * slim, None, body_x - fat - 19.0, body_y - fat - 13.0)
        _paint(image, skin, 20.0)
        _paint(image, skin - 2.0, -105.0 + 6.0 * grain(x, y, z))
        _paint(image, ring, soft)
        _paint(image, 2.2 - (ring - 7.0 - 1.5 * rough(x, y, z)).abs(), -90.0)  # fat between the muscles
        _paint(image, chest, -90.0 + 6.0 * grain(x, y, z))

        # lungs above the dome of the diaphragm, organs below it
        mx = x.abs()
        right = _soft(x * 0.25)
        dome = level + 8.0 * right - 0.0060 * ((mx - 58).square() + (y - 8).square()) + 3.0 * rough(x, y, z)
        above = (z - dome) / torch.sqrt(1.0 + 0.000144 * ((mx - 58).square() + (y - 8).square()))
        belly = torch.minimum(chest - 1.0, -above)
        _paint(image, belly, soft)
        organ = _ellipsoid(x - 46, y - 8, z - level + 66, 84, 84, 88)
        _paint(image, torch.minimum(belly - 3.0, organ), liver + 5.0 * grain(x, y, z))
        _paint(image, portal(x, y, z - level - 48.0), 0.75 * blood, _soft(torch.minimum(belly - 3.0, organ)))
        sac = torch.minimum(belly - 4.0, _ellipsoid(x + 58, y - 18, z - level + 44, 40, 36, 44))
        _paint(image, sac, meat)
        _paint(image, sac - 4.0, -950.0 + 970.0 * _soft((18.0 - y) * 0.6))  # stomach: gas over fluid
        _paint(image, torch.minimum(belly - 3.0, _ellipsoid(x + 88, y + 36, z - level + 44, 24, 34, 40)), 0.55 * blood)
        middle = _ellipsoid(x + 6, y - 10, None, 34, 95) - 0.010 * (z - 20).square().clamp_max(1600.0)
        shape = _ellipsoid(mx - 66 * wide, y, z + 10, 62 * wide, 88, 142)
        lung = torch.minimum(torch.minimum(chest - 1.5, above), torch.minimum(shape, -middle))
        air = lung_air - 0.35 * y + 9.0 * rough(x, y, z) + 10.0 * grain(x, y, z)
        _paint(image, lung, air)
        _paint(image, tree(x, y, z), 60.0, _soft(lung))

        # heart, tilted to the left and forward
        px, py, pz = x - hx, y - hy, z - hz
        long = 0.70 * (-px) + 0.50 * py - lean * pz  # towards the apex
        flat, tall = 0.55 * px + 0.83 * py, pz + 0.45 * long
        _paint(image, _ellipsoid(long, flat, tall, 62, 44, 46), -80.0)
        _paint(image, _ellipsoid(long, flat, tall, 59, 41, 43), 0.25 * meat + 0.40 * blood)
        left = torch.maximum(
            _ellipsoid(long - 12, flat + 14, tall + 2, 32, 15, 18),
            _ellipsoid(long + 32, flat + 18, tall - 8, 17, 20, 20),
        )
        _paint(image, left + 1.0 * rough(3 * x, 3 * y, 3 * z), blood)
        chamber = torch.maximum(
            _ellipsoid(long - 4, flat - 24, tall + 8, 36, 12, 26),
            _ellipsoid(long + 34, flat - 20, tall + 4, 18, 17, 24),
        )
        _paint(image, chamber, 0.8 * blood)
        vessel = great(x, y, z)
        _paint(image, vessel + 1.6, meat)
        _paint(image, vessel, blood)
        tube = airways(x, y, z)
        _paint(image, tube + 1.5, 40.0)
        _paint(image, tube, -990.0)
        _paint(image, _ellipsoid(x + 6, y - ay - 4, None, 7, 5), meat)  # oesophagus

        # spine: bodies, discs, canal, arches and processes repeat along z
        sx, sy = x, y - spine_y - curve * (z - 10).square().clamp_max(8000.0)
        near = _fold(z + start + 0.12 * sy, period)
        _paint(image, _ellipsoid(sx, sy + 25, None, 50, 25) - 0.05 * near, soft, _soft(ring))  # muscles of the back
        waist = _ellipsoid(sx, sy, None, 18, 14.5) - 0.1 * (0.42 * period - near).clamp_min(0.0)
        _paint(image, waist, 85.0)
        bone = torch.minimum(waist, 0.40 * period - near)
        _paint(image, bone, 0.7 * cortical)
        _paint(image, bone - 2.0, spongy + 40.0 * grain(x, y, z))
        arch_near = _fold(z + start + 0.8 * sy, period)
        roof = torch.minimum(3.2 - (_ellipsoid(sx, sy + 23, None, 13, 11)).abs(), 0.34 * period - arch_near)
        spike = torch.minimum(_ellipsoid(sx, sy + 37, None, 3.4, 9), 0.26 * period - arch_near)
        out = sx.abs() - 24
        wing = torch.minimum(_ellipsoid(out, sy + 22 + 0.35 * out, None, 15, 4.5), 0.17 * period - near)
        rear = torch.maximum(torch.maximum(roof, spike), wing)
        _paint(image, rear, cortical)
        _paint(image, rear - 2.0, 1.3 * spongy)
        _paint(image, _ellipsoid(sx, sy + 22, None, 9.5, 8.5), 0.0)
        _paint(image, _ellipsoid(sx, sy + 22, None, 5, 4.5), 40.0)

        # ribs: one bar repeated along z that sinks from back to front inside the chest wall
        across = (chest + 6.0).abs()
        up = _fold(z + rib_start + drop * y, period) / math.sqrt(1.0 + drop * drop)
        rib = 1.0 - ((across / 4.0).square() + (up / 6.2).square() + 1e-4).sqrt()
        rib = torch.minimum(rib * 4.2, torch.minimum(mx - 22.0, 62.0 + 0.15 * z - y))
        _paint(image, rib, 1.05 * cortical)
        _paint(image, rib - 1.6, spongy)
        gristle = torch.minimum(3.6 - torch.hypot(across, 0.6 * up), torch.minimum(y - 62.0 - 0.15 * z, mx - 14.0))
        _paint(image, gristle, 110.0)
        sternum = torch.minimum(_ellipsoid(x, chest + 5.0, None, 19, 6.0), torch.minimum(y - 30.0, z + 45.0))
        _paint(image, sternum, 0.6 * cortical)
        _paint(image, sternum - 1.8, 0.8 * spongy)
        return image

    return field


@lru_cache(maxsize=64)
def anatomy(kind: str, seed: int) -> Field:
    """Intensity function of one phantom.

    Args:
        kind: "heart", "head" or "torso".
        seed: which individual, a non-negative integer.

    Returns:
        A function (x, y, z, time) -> intensity of four equally shaped float32 tensors; x, y, z in mm.

    Example:
        >>> field = anatomy("head", 0)
        >>> field(torch.zeros(1), torch.zeros(1), torch.zeros(1), 0.0).shape
        torch.Size([1])
    """
    builders = {"heart": _heart, "head": _head, "torso": _torso}
    return builders[kind](np.random.default_rng((list(builders).index(kind), seed)))
