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

"""The torso of :mod:`monai_sliceinterp.data.phantom`, in HU."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from monai_sliceinterp.data.phantom_shapes import (
    Field,
    Tubes,
    Waves,
    cover_fraction,
    ellipsoid,
    fold_axis,
    paint,
    random_pose,
)


def _branches(rng: np.random.Generator, side: float, root: np.ndarray) -> list[tuple[float, ...]]:
    """Draw a branching tree of lung vessels on one side, from the hilum outwards."""
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


def torso_field(rng: np.random.Generator) -> Field:
    """Draw a torso; the field gives HU."""
    u = rng.uniform
    pose, grain, rough = random_pose(rng, 5, 5), Waves(rng, 8, 3, 11), Waves(rng, 6, 14, 40)
    body_x, body_y, fat, level = u(142, 154), u(98, 108), u(9, 20), u(-52, -38)
    period, start, drop, rib_start = u(25, 29), u(0, 29), u(0.42, 0.60), u(0, 29)
    blood, meat, liver, cortical, spongy = u(170, 240), u(38, 58), u(55, 70), u(620, 950), u(170, 260)
    curve, hx, hy, hz, lean = u(0.0008, 0.0016), u(-28, -18), u(16, 24), u(-22, -10), u(0.35, 0.60)
    spine_y, aorta = 54.0 - body_y, u(10.5, 13)
    wide, lung_air = u(0.94, 1.05), u(-880, -830)
    tree = Tubes([row for side in (1.0, -1.0) for row in _branches(rng, side, np.array([30 * side, -8.0, 12 * wide]))])
    arch, ay = 56 + u(-6, 6), spine_y + 24
    great = Tubes(
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
    airways = Tubes(
        [(3, -14, 400, 2, -16, 42, 8, 8), (2, -16, 42, 34, -14, 18, 6.5, 4.5), (2, -16, 42, -36, -16, 14, 6, 4)]
    )
    portal = Tubes(
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
        skin = ellipsoid(x * slim, y * slim, None, body_x, body_y)
        ring = skin - fat - 6.0 * (x / body_x).square() + 2.0 * rough(x, y, z)
        chest = ellipsoid(x * slim, y * slim, None, body_x - fat - 19.0, body_y - fat - 13.0)
        paint(image, skin, 20.0)
        paint(image, skin - 2.0, -105.0 + 6.0 * grain(x, y, z))
        paint(image, ring, soft)
        paint(image, 2.2 - (ring - 7.0 - 1.5 * rough(x, y, z)).abs(), -90.0)  # fat between the muscles
        paint(image, chest, -90.0 + 6.0 * grain(x, y, z))

        # lungs above the dome of the diaphragm, organs below it
        mx = x.abs()
        right = cover_fraction(x * 0.25)
        dome = level + 8.0 * right - 0.0060 * ((mx - 58).square() + (y - 8).square()) + 3.0 * rough(x, y, z)
        above = (z - dome) / torch.sqrt(1.0 + 0.000144 * ((mx - 58).square() + (y - 8).square()))
        belly = torch.minimum(chest - 1.0, -above)
        paint(image, belly, soft)
        organ = ellipsoid(x - 46, y - 8, z - level + 66, 84, 84, 88)
        paint(image, torch.minimum(belly - 3.0, organ), liver + 5.0 * grain(x, y, z))
        paint(image, portal(x, y, z - level - 48.0), 0.75 * blood, cover_fraction(torch.minimum(belly - 3.0, organ)))
        sac = torch.minimum(belly - 4.0, ellipsoid(x + 58, y - 18, z - level + 44, 40, 36, 44))
        paint(image, sac, meat)
        paint(image, sac - 4.0, -950.0 + 970.0 * cover_fraction((18.0 - y) * 0.6))  # stomach: gas over fluid
        paint(image, torch.minimum(belly - 3.0, ellipsoid(x + 88, y + 36, z - level + 44, 24, 34, 40)), 0.55 * blood)
        middle = ellipsoid(x + 6, y - 10, None, 34, 95) - 0.010 * (z - 20).square().clamp_max(1600.0)
        shape = ellipsoid(mx - 66 * wide, y, z + 10, 62 * wide, 88, 142)
        lung = torch.minimum(torch.minimum(chest - 1.5, above), torch.minimum(shape, -middle))
        air = lung_air - 0.35 * y + 9.0 * rough(x, y, z) + 10.0 * grain(x, y, z)
        paint(image, lung, air)
        paint(image, tree(x, y, z), 60.0, cover_fraction(lung))

        # heart, tilted to the left and forward
        px, py, pz = x - hx, y - hy, z - hz
        long = 0.70 * (-px) + 0.50 * py - lean * pz  # towards the apex
        flat, tall = 0.55 * px + 0.83 * py, pz + 0.45 * long
        paint(image, ellipsoid(long, flat, tall, 62, 44, 46), -80.0)
        paint(image, ellipsoid(long, flat, tall, 59, 41, 43), 0.25 * meat + 0.40 * blood)
        left = torch.maximum(
            ellipsoid(long - 12, flat + 14, tall + 2, 32, 15, 18),
            ellipsoid(long + 32, flat + 18, tall - 8, 17, 20, 20),
        )
        paint(image, left + 1.0 * rough(3 * x, 3 * y, 3 * z), blood)
        chamber = torch.maximum(
            ellipsoid(long - 4, flat - 24, tall + 8, 36, 12, 26),
            ellipsoid(long + 34, flat - 20, tall + 4, 18, 17, 24),
        )
        paint(image, chamber, 0.8 * blood)
        vessel = great(x, y, z)
        paint(image, vessel + 1.6, meat)
        paint(image, vessel, blood)
        tube = airways(x, y, z)
        paint(image, tube + 1.5, 40.0)
        paint(image, tube, -990.0)
        paint(image, ellipsoid(x + 6, y - ay - 4, None, 7, 5), meat)  # oesophagus

        # spine: bodies, discs, canal, arches and processes repeat along z
        sx, sy = x, y - spine_y - curve * (z - 10).square().clamp_max(8000.0)
        near = fold_axis(z + start + 0.12 * sy, period)
        paint(
            image, ellipsoid(sx, sy + 25, None, 50, 25) - 0.05 * near, soft, cover_fraction(ring)
        )  # muscles of the back
        waist = ellipsoid(sx, sy, None, 18, 14.5) - 0.1 * (0.42 * period - near).clamp_min(0.0)
        paint(image, waist, 85.0)
        bone = torch.minimum(waist, 0.40 * period - near)
        paint(image, bone, 0.7 * cortical)
        paint(image, bone - 2.0, spongy + 40.0 * grain(x, y, z))
        arch_near = fold_axis(z + start + 0.8 * sy, period)
        roof = torch.minimum(3.2 - (ellipsoid(sx, sy + 23, None, 13, 11)).abs(), 0.34 * period - arch_near)
        spike = torch.minimum(ellipsoid(sx, sy + 37, None, 3.4, 9), 0.26 * period - arch_near)
        out = sx.abs() - 24
        wing = torch.minimum(ellipsoid(out, sy + 22 + 0.35 * out, None, 15, 4.5), 0.17 * period - near)
        rear = torch.maximum(torch.maximum(roof, spike), wing)
        paint(image, rear, cortical)
        paint(image, rear - 2.0, 1.3 * spongy)
        paint(image, ellipsoid(sx, sy + 22, None, 9.5, 8.5), 0.0)
        paint(image, ellipsoid(sx, sy + 22, None, 5, 4.5), 40.0)

        # ribs: one bar repeated along z that sinks from back to front inside the chest wall
        across = (chest + 6.0).abs()
        up = fold_axis(z + rib_start + drop * y, period) / math.sqrt(1.0 + drop * drop)
        rib = 1.0 - ((across / 4.0).square() + (up / 6.2).square() + 1e-4).sqrt()
        rib = torch.minimum(rib * 4.2, torch.minimum(mx - 22.0, 62.0 + 0.15 * z - y))
        paint(image, rib, 1.05 * cortical)
        paint(image, rib - 1.6, spongy)
        gristle = torch.minimum(3.6 - torch.hypot(across, 0.6 * up), torch.minimum(y - 62.0 - 0.15 * z, mx - 14.0))
        paint(image, gristle, 110.0)
        sternum = torch.minimum(ellipsoid(x, chest + 5.0, None, 19, 6.0), torch.minimum(y - 30.0, z + 45.0))
        paint(image, sternum, 0.6 * cortical)
        paint(image, sternum - 1.8, 0.8 * spongy)
        return image

    return field
