"""What a disease adds to the density of a chest."""

from collections.abc import Sequence

import numpy as np

from expressivegan.data.phantom.chest import Child, Drawn
from expressivegan.data.phantom.curves import Array, Numbers, bump, ridge, rise


def lesion(c: Child, drawn: Drawn, seeds: Sequence[int], labels: Sequence[str]) -> Array:
    """Density that the disease adds, (B, size, size); 0 for NORMAL."""
    added = np.zeros_like(drawn.density)
    for label, paint in (("BACTERIA", _consolidation), ("VIRUS", _interstitial)):
        rows = np.flatnonzero([one == label for one in labels])
        if len(rows):
            part = Child.__new__(Child)
            part.__dict__.update({name: value[rows] for name, value in vars(c).items()})
            view = Drawn(drawn.x[rows], drawn.y[rows], drawn.air[rows], drawn.density[rows], drawn.size)
            added[rows] = paint(part, view, Numbers([(seeds[int(i)], label) for i in rows]))
    return added


def _consolidation(c: Child, d: Drawn, u: Numbers) -> Array:
    """Bacterial: one lobe, or a second smaller spot, filled with fluid so that heart and dome lose their border."""
    mid = d.x - c.midline(d.y)
    full = np.zeros_like(d.air)
    rough = 0.16 * np.sin(7 * d.x + u(0, 6.28)) + 0.14 * np.sin(9 * d.y + u(0, 6.28) + 4 * d.x)
    rough += 0.10 * np.sin(17 * d.x - 13 * d.y + u(0, 6.28))
    for number in range(2):
        side = np.where(u() < 0.55, -1, 1).astype(np.float32)  # the right lung is hit more often
        y0 = c.apex + (c.floor - c.apex) * u(0.28, 0.90)
        inner = np.where(side < 0, c.heart_left(y0), c.heart_right(y0))
        x0 = side * (inner + (c.side(y0) - inner) * u(0.20, 0.75))
        tall, wide = u(0.17, 0.34), u(0.15, 0.28)
        angle = u(-0.6, 0.6)
        px, py = mid - x0, d.y - y0
        a = (px * np.cos(angle) + py * np.sin(angle)) / wide
        b = (py * np.cos(angle) - px * np.sin(angle)) / tall
        spot = rise(1 - np.sqrt(a * a + b * b) + rough, u(0.28, 0.6))
        fissure = u.chance(0.4)  # a lobe ends sharply at the fissure
        cut = rise((py + 0.25 * px * side) * np.where(u() < 0.5, -1, 1) + 0.35 * tall, 0.03)
        spot = spot * (1 - fissure * (1 - cut)) * u(0.62, 0.98)
        present = 1.0 if number == 0 else u.chance(0.3) * 0.8
        same_lung = rise(mid * side, 0.03)
        full = np.maximum(full, present * spot * same_lung)
    hx, hy = np.abs(mid) - 0.14, d.y + 0.02
    tubes = ridge(4 * np.arctan2(hy, hx) + u(0, 6.28) + 1.8 * np.sin(9 * d.y + u(0, 6.28)))
    patchy = 1 + 0.12 * np.sin(31 * d.x + u(0, 6.28)) * np.sin(27 * d.y + u(0, 6.28))
    added: Array = 0.95 * c.air * d.air * full * patchy * (1 - 0.22 * tubes)
    return added


def _interstitial(c: Child, d: Drawn, u: Numbers) -> Array:
    """Viral: both lungs, thickened bronchi that fan out from the hila, a net of fine lines, a little haze."""
    mid = d.x - c.midline(d.y)
    hx, hy = np.abs(mid) - 0.15, d.y + u(-0.06, 0.10)
    r = np.sqrt(hx * hx + hy * hy)
    fan = np.arctan2(hy, hx)
    p, k = u(0, 6.28), u(0.85, 1.2)
    wobble = 0.9 * np.sin(13 * d.x + p) + 0.9 * np.sin(11 * d.y + 2 * p)
    cuffs = ridge(9 * fan + p + 2.4 * np.sin(7 * r + p) + np.sign(mid)) + 0.8 * ridge(14 * fan - p + wobble)
    net = ridge(k * (19 * d.x + 12 * d.y) + 1.5 * wobble) + ridge(k * (13 * d.x - 20 * d.y) + p - 1.3 * wobble)
    left, right = u(0.6, 1.15), u(0.6, 1.15)
    near = 0.35 + 0.65 * bump(r, u(0.45, 0.8))
    lobes = 1 + 0.3 * np.sin(4 * d.y + 3 * d.x + u(0, 6.28))
    strength = u(0.75, 1.25) * np.where(mid < 0, left, right) * near * lobes
    pattern = u(0.12, 0.26) + 0.30 * cuffs * np.maximum(1.1 - 1.2 * r, 0.25) + 0.20 * net
    added: Array = c.air * d.air * strength * pattern
    return added
