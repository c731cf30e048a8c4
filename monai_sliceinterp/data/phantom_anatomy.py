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
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from monai_sliceinterp.data.phantom_shapes import (
    Field,
    Tubes,
    Waves,
    cover_fraction,
    ellipsoid,
    paint,
    random_pose,
    split_at,
)
from monai_sliceinterp.data.phantom_torso import torso_field


def heart_field(rng: np.random.Generator) -> Field:
    """Draw a beating heart; the field gives arbitrary MR units."""
    u = rng.uniform
    pose, grain, slow, rough = (
        random_pose(rng, 7, 4),
        Waves(rng, 9, 4, 16),
        Waves(rng, 3, 120, 240),
        Waves(rng, 6, 8, 16),
    )
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
        skin = ellipsoid(x * widen, y * widen, None, body_x, body_y)
        image = torch.zeros_like(x)
        paint(image, skin, 0.5 * fatty)
        paint(image, skin - 2.0, fatty)
        ribs = cover_fraction(5.0 * torch.sin(0.22 * z + 0.12 * x.abs() - 0.16 * y) - 1.5)
        paint(image, skin - 2.0 - fat, soft + (0.55 * fatty - soft) * ribs)
        chest = skin - 2.0 - fat - 8.0
        paint(image, chest, 0.55 * fatty)
        for side, lung_x, lung_y in ((1.0, 52.0, -2.0), (-1.0, -50.0, -10.0)):
            lung = torch.minimum(chest - 1.0, ellipsoid(x - lung_x - 0.06 * side * z, y - lung_y, z - 10, 38, 52, 120))
            paint(image, lung, 45.0 + 12.0 * rough(x, y, z))
        paint(image, torch.minimum(chest - 1.0, ellipsoid(x - 38, y + 44, z + 62, 58, 42, 56)), liver)
        paint(image, torch.minimum(chest - 1.0, ellipsoid(x + 40, y + 48, z + 66, 34, 30, 46)), 0.8 * soft)
        sx, sy = x - spine_x, y + body_y - 26.0
        paint(image, ellipsoid(sx, sy, None, 17, 14), 90.0)
        paint(image, ellipsoid(sx, sy, None, 15, 12), 330.0 + 60.0 * torch.cos(2 * math.pi / 26 * z))
        paint(image, ellipsoid(x - aorta_x + 0.10 * z, y + 38 - 0.04 * z, None, 11, 11), muscle)
        paint(image, ellipsoid(x - aorta_x + 0.10 * z, y + 38 - 0.04 * z, None, 9.5, 9.5), blood)

        dz = z - (base - 9.0 * beat)  # the base moves towards the apex
        down = -dz
        cx, cy = x0 + dx * down + bend * down * dz, y0 + dy * down + bend * down * down
        hx, hy = x - cx, y - cy
        c_out, c_in = split_at(dz, length, 26.0), split_at(dz, length - wall, 22.0)
        r_in = (lv - wall) * (1.0 - squeeze * beat)
        epi = ellipsoid(hx, hy, dz, lv * (1.0 - 0.06 * beat), lv * 0.97 * (1.0 - 0.06 * beat), c_out)
        ridge = 0.8 * rough(hx, hy, z)
        endo = ellipsoid(hx, hy, dz, r_in, r_in * 0.97, c_in) + strength * ridge
        ca, sa = math.cos(septum), math.sin(septum)
        along, across = hx * ca + hy * sa, hy * ca - hx * sa  # along: from the septum into the right ventricle
        rv_r = lv * rv_size * (1.0 - 0.14 * beat)
        rv = ellipsoid(
            along - 0.62 * lv, across - 0.06 * down, dz + 4.0, rv_r, 1.16 * lv, split_at(dz + 4.0, 0.84 * length, 24)
        )
        sac = torch.maximum(torch.maximum(epi, rv + 3.0) + 2.6, ellipsoid(hx - 10, hy, dz - 18, 38, 30, 34))
        paint(image, torch.minimum(sac, chest - 1.0), 0.72 * fatty)
        atria = torch.maximum(
            ellipsoid(hx - 4, hy + 8, dz - 24, la, 0.85 * la, 22), ellipsoid(hx - 40, hy - 2, dz - 22, 18, 21, 24)
        )
        vessel_a = 12.0 - torch.hypot(hx - 8 - 0.15 * dz, hy - 8 - 0.10 * dz) - (2.0 - dz).clamp_min(0.0)
        vessel_p = 11.0 - torch.hypot(hx - 14 + 0.30 * dz, hy - 28 + 0.08 * dz) - (-6.0 - dz).clamp_min(0.0)
        paint(image, torch.maximum(atria + 2.0, rv + 3.5), muscle)
        paint(image, torch.maximum(atria, rv + 1.2 * ridge - 0.4), blood)
        paint(image, epi, muscle)
        paint(image, endo, blood)
        paint(image, torch.maximum(vessel_a, vessel_p) + 1.5, muscle)
        paint(image, torch.maximum(vessel_a, vessel_p), blood)
        r_z = r_in * (1.0 - (dz / c_in).square()).clamp_min(0.02).sqrt()
        for k, (offset, size) in enumerate(((0.0, 4.6), (2.1, 5.2))):
            spiral = angle + offset + twist * down + 0.25 * beat
            center = 0.66 * r_z
            far = ((dz + 0.48 * length + 4.0 * k).abs() - 0.20 * length).clamp_min(0.0)
            gap = torch.hypot(hx - center * torch.cos(spiral), hy - center * torch.sin(spiral))
            paint(image, torch.minimum(size - gap - 0.5 * far, endo + 2.0), muscle)
        return image * (1.0 + bias * slow(x, y, z) + 0.016 * grain(x, y, z))

    return field


def head_field(rng: np.random.Generator) -> Field:
    """Draw a head; the field gives arbitrary MR units."""
    u = rng.uniform
    pose, grain, slow = random_pose(rng, 8, 4), Waves(rng, 9, 4, 14), Waves(rng, 3, 150, 300)
    folds, depths, bend = Waves(rng, 10, 17, 25), Waves(rng, 4, 40, 70), [Waves(rng, 3, 45, 90) for _ in range(3)]
    a, b, c = u(62, 68), u(77, 84), u(64, 70)
    cortex, reach, scalp, skull = u(2.6, 3.2), u(14, 18), u(4, 7), u(5, 7.5)
    white, gray, fluid, fatty = u(690, 780), u(450, 530), u(110, 170), u(820, 980)
    wide, lift, bias = u(0.8, 1.4), u(2, 9), u(0.05, 0.10)
    lateral = Tubes(  # one lateral ventricle, for positive x: horns and body
        [
            (7, 32, 2 + lift, 7, 14, 14 + lift, 3.5 * wide, 5.0 * wide),
            (7, 14, 14 + lift, 9, -16, 17 + lift, 5.0 * wide, 5.0 * wide),
            (9, -16, 17 + lift, 20, -36, 6 + lift, 5.0 * wide, 6.5 * wide),
            (20, -36, 6 + lift, 19, -54, 2 + lift, 6.0 * wide, 2.0),
            (20, -36, 6 + lift, 32, -18, -18 + lift, 5.5 * wide, 2.5),
        ]
    )
    stem = Tubes(
        [(0, -8, -8, 0, -22, -40, 11, 15), (0, -22, -40, 0, -30, -75, 12, 8), (0, -30, -75, 0, -34, -160, 7, 6)]
    )

    def field(x: Tensor, y: Tensor, z: Tensor, time: float) -> Tensor:
        x, y, z = pose(x, y, z)
        wx, wy, wz = (value + 2.6 * w(x, y, z) for value, w in zip((x, y, z), bend, strict=True))
        hz = z - 4.0
        hull = ellipsoid(x, y, hz, a, b, split_at(hz, 0.88 * c, c)) + 0.25 * (wx - x)
        out = 3.0 + skull + scalp
        head = ellipsoid(x, y - 2.0, hz, a + out, b + out, split_at(hz, 2.4 * c, c + out))
        cerebellum = ellipsoid(x, y + 42, z + 42 + 0.25 * (wx - x), 50, 30, 24) + 0.3 * (wy - y)
        image = torch.zeros_like(x)
        paint(image, head, 0.45 * fatty)
        paint(image, head - 1.5, fatty)
        paint(image, head - scalp, 330.0 + 90.0 * depths(x, y, z))
        vault = torch.maximum(hull, cerebellum - 1.0)
        paint(image, vault + 3.0 + skull, 60.0)
        paint(image, 0.5 * (skull - 3.0) - (vault + 3.0 + 0.5 * skull).abs(), 380.0)
        eye_x = x.abs() - 31.0
        paint(image, torch.minimum(ellipsoid(eye_x, y - b + 6, z + 44, 19, 24, 17), head - 3.0), 0.8 * fatty)
        paint(image, ellipsoid(eye_x, y - b - 2, z + 44, 12, 12, 12), 0.9 * fluid)
        paint(image, vault + 3.0, fluid)

        # folded surface: sheets of fluid that run inwards along the rays of the hull
        norm = ((wx / a).square() + (wy / b).square() + ((wz - 4.0) / c).square()).sqrt().clamp_min(0.35)
        ray = (wx * wx + wy * wy + (wz - 4.0).square() + 1e-3).sqrt()
        normal = (wx / ray, wy / ray, (wz - 4.0) / ray)
        stretch = 0.75 / norm + 0.25
        sulcus = folds.sheet(wx * stretch, wy * stretch, (wz - 4.0) * stretch, normal) / stretch
        below = (hull - reach * (1.0 + 0.25 * depths(x, y, z))).clamp_min(0.0)
        pial = torch.minimum(hull, torch.hypot(sulcus, below) - 0.9)
        core = ellipsoid(x, y + 4, z - 4, 60, 46, 28)
        fissure = torch.hypot(x + 0.35 * (wx - x), core.clamp_min(0.0)) - 1.3
        side = x.abs() - 40.0
        sylvian = torch.hypot(
            z + 4 - 0.45 * (y - 12) + (wz - z), (-side).clamp_min(0.0) + (y.abs() - 30).clamp_min(0.0)
        )
        pial = torch.minimum(torch.minimum(pial, fissure), sylvian - 1.5)
        brain = torch.minimum(pial, hull)
        brain = torch.minimum(brain, -(cerebellum + 1.4))  # the tentorium
        paint(image, brain, gray)
        paint(image, brain - cortex - 0.1 * (wz - z), white)
        mx = x.abs()
        tone = 0.85 * gray + 0.15 * white
        paint(image, ellipsoid(mx - 13, y + 8, z - 4 - lift * 0.5, 10, 15, 10), tone)  # thalamus
        lean = mx - 25 + 0.20 * (y - 4)
        paint(image, ellipsoid(lean, y - 6, z - 2 - lift * 0.5, 6.5, 20, 13), gray)  # putamen
        paint(image, ellipsoid(lean + 7, y - 4, z - 1 - lift * 0.5, 3.0, 12, 8), 0.5 * (gray + white))  # pallidum
        paint(image, ellipsoid(mx - 13.5, y - 24, z - 9 - lift, 6, 11, 11), gray)  # head of the caudate
        paint(image, ellipsoid(mx - 37, y - 5, z - lift * 0.5, 1.4, 22, 15), gray)  # claustrum and insula
        paint(image, cerebellum, gray)
        layers = 1.3 * torch.sin(1.25 * cerebellum + 0.5 * (wx - x) + 0.4 * z) - 0.8 + 0.10 * cerebellum
        paint(image, torch.minimum(layers, cerebellum - 1.5), 0.25 * gray + 0.75 * white)
        trunk = stem(x, y, z)
        paint(image, trunk + 2.5, fluid, cover_fraction(-14.0 - z))
        paint(image, trunk, 0.2 * gray + 0.8 * white)
        paint(image, torch.maximum(lateral(mx, y, z), ellipsoid(x, y + 4, z - 2, 1.6 * wide, 14, 11)), fluid)
        paint(image, ellipsoid(x, y + 36, z + 38, 6, 4, 10), fluid)  # fourth ventricle
        return image * (1.0 + bias * slow(x, y, z) + 0.014 * grain(x, y, z))

    return field


@lru_cache(maxsize=64)
def anatomy(kind: str, seed: int) -> Field:
    """Build the intensity function of one phantom.

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
    builders = {"heart": heart_field, "head": head_field, "torso": torso_field}
    return builders[kind](np.random.default_rng((list(builders).index(kind), seed)))
