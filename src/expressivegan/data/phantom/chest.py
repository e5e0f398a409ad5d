"""The child and its chest: body coordinates → density and air."""

from dataclasses import dataclass

import numpy as np

from expressivegan.data.phantom.curves import Array, Numbers, bump, ridge, rise, spread, wave


class Child:
    """Anatomy, as functions of the body's coordinates."""

    def __init__(self, u: Numbers) -> None:
        self.width = u(0.64, 0.76)  # half of the inner chest
        self.apex = u(-0.74, -0.62)
        self.floor = u(0.40, 0.60)  # top of the right dome
        self.barrel = u(2.0, 3.2)
        self.wall = u(0.05, 0.13)  # thickness of what lies outside the ribs
        self.lean, self.curve = u(-0.03, 0.03), u(-0.025, 0.025)
        self.spacing = u(0.118, 0.150)  # of the ribs
        self.first_rib = u(-0.05, 0.05)
        self.drop, self.lift = u(0.22, 0.42), u(0.02, 0.12)
        self.front_slope = u(0.30, 0.52)
        self.bone = u(0.7, 1.25)
        self.rib_width = u(0.24, 0.33)
        self.heart = u(0.20, 0.36)  # how far the left ventricle reaches beyond the mediastinum
        self.heart_y, self.heart_tall = u(0.16, 0.28), u(0.34, 0.50)
        self.atrium = u(0.02, 0.09)
        self.middle = u(0.10, 0.145)  # half of the mediastinum
        self.knob = u(0.01, 0.05)
        self.thymus = u.chance(0.25) * u(0.05, 0.13)
        self.thymus_side = np.where(u() < 0.5, -1, 1).astype(np.float32)
        self.dome_step = u(0.02, 0.08)  # the liver lifts the right dome
        self.dome = u(0.45, 1.0)
        self.spine = u(0.07, 0.095)
        self.vertebra = u(0.088, 0.108)
        self.collar_y, self.collar_rise, self.collar_bend = u(-0.66, -0.54), u(0.10, 0.40), u(-0.05, 0.05)
        self.bubble = u.chance(0.6) * u(0.5, 1)
        self.bubble_x, self.bubble_y = u(0.25, 0.48), u(0.13, 0.22)
        self.bubble_w, self.bubble_h = u(0.09, 0.2), u(0.06, 0.11)
        self.gas = u.chance(0.4) * u(0.1, 0.3)
        self.gas_phase = u(0, 6.28)
        self.air = u(0.50, 0.62)  # how much the lungs take away
        self.vessels = u(0.08, 0.20)
        self.vessel_phase = u(0, 6.28)
        self.shoulder = u(-0.98, -0.80)
        self.slope = u(0.16, 0.42)
        self.neck = u(0.20, 0.30)
        self.arm_angle = u(-0.9, 0.8)  # below 0 raised, above 0 hanging
        self.arm_thick = u(0.13, 0.2)
        self.head = u.chance(0.35) * u(0.0, 0.14)
        self.tissue = u.field(4)

    def midline(self, y: Array) -> Array:
        middle: Array = self.lean * y + self.curve * np.sin(3 * y)
        return middle

    def side(self, y: Array) -> Array:
        """Inner chest: half of its width at the height y."""
        t = np.clip((y - self.apex) * (1 / (0.62 - self.apex)), 0, 1)
        half: Array = self.width * np.sqrt(np.maximum(1 - (1 - t) ** self.barrel, 0)) * (1 + 0.03 * t)
        return half

    def heart_left(self, y: Array) -> Array:
        """Border of heart and vessels on the image's left, as a distance from the midline."""
        border: Array = self.middle * 0.85 + self.atrium * bump(y - 0.2, 0.36)
        border += self.thymus * (self.thymus_side < 0) * bump(y + 0.36, 0.26)
        return border

    def heart_right(self, y: Array) -> Array:
        """The same on the image's right, where the heart lies."""
        away = y - self.heart_y
        tall = np.where(away < 0, self.heart_tall, 0.46)
        border: Array = self.middle * 0.9 + self.heart * bump(away, tall) + self.knob * bump(y + 0.32, 0.12)
        border += self.thymus * (self.thymus_side > 0) * bump(y + 0.36, 0.26)
        return border

    def diaphragm(self, x: Array) -> Array:
        """Height of its top at x."""
        across = np.abs(x) - 0.30
        steep = np.maximum(np.abs(x) - 0.82 * self.width, 0)
        top: Array = self.floor + self.dome_step * rise(x, 0.15) + self.dome * across * across + 5 * steep * steep
        return top


@dataclass
class Drawn:
    """What the lesion must know about the drawing."""

    x: Array
    y: Array
    air: Array
    density: Array
    size: int


def pose(shot: Numbers, size: int) -> tuple[Array, Array, Array]:
    """Body coordinates of every pixel, and the light that the collimator lets through (0..1); each (B, size, size)."""
    line = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    across, down = line[None, None, :], line[None, :, None]
    angle = shot(-0.09, 0.09)
    zoom = shot(0.96, 1.22)
    wide = zoom * shot(0.94, 1.06)
    right, low = across - shot(-0.07, 0.07), down - shot(-0.09, 0.07)
    x = (right * np.cos(angle) + low * np.sin(angle)) / wide
    y = (low * np.cos(angle) - right * np.sin(angle)) / zoom
    frame = np.ones((len(angle), 1, 1), np.float32)
    for distance in (across + 1, 1 - across, down + 1, 1 - down):
        slant = across if distance.shape[1] > 1 else down
        shut = shot.chance(0.22) * shot(0.01, 0.13) - 0.02 + shot(-0.03, 0.03) * slant
        frame = frame * rise(distance - shut, 2 / size)
    return x, y, np.broadcast_to(frame, x.shape)


def anatomy(c: Child, x: Array, y: Array, size: int) -> Drawn:
    edge = max(0.012, 1.5 / size)  # softness of outlines
    mid = x - c.midline(y)
    out = np.abs(mid)
    inner = c.side(y)
    # The body: torso, shoulders that fall away from the neck, arms, neck, jaw.
    torso = c.width * (0.98 + 0.06 * rise(y, 0.6)) + c.wall
    top = c.shoulder + c.slope * out * out + 0.5 * np.maximum(0.3 - out, 0)
    trunk = rise(torso + 0.25 * bump(y + 0.72, 0.42) - out, 3 * edge) * rise(y - top, 2 * edge)
    reach = c.width + 0.13
    ax, ay = out - reach, y + 0.60
    ux, uy = np.cos(c.arm_angle) * 0.75, np.sin(c.arm_angle)
    along = np.clip((ax * ux + ay * uy) / (ux * ux + uy * uy), 0, 1.5)
    off = np.sqrt((ax - along * ux) ** 2 + (ay - along * uy) ** 2)
    arm = rise(c.arm_thick - off, 3 * edge)
    neck = rise(c.neck + 0.25 * np.maximum(-0.85 - y, 0) - out, 3 * edge) * rise(-0.5 - y, 0.1)
    body = np.maximum(np.maximum(trunk, neck), 0.8 * arm)
    depth = np.sqrt(np.maximum(1 - (out / (torso + 0.12)) ** 2, 0))
    density = body * (0.27 + 0.49 * depth + 0.06 * spread(c.tissue, size))
    jaw = (mid / 0.42) ** 2 + ((y + 1.12 - c.head) / 0.26) ** 2
    density += 0.35 * (c.head > 0) * rise(1 - jaw, 0.15)

    # The lungs, less heart and great vessels.
    left, right = c.heart_left(y), c.heart_right(y)
    dome = c.diaphragm(mid)
    above = rise(dome - y, edge)
    apex = 0.13 * np.maximum(1 - (y - c.apex) * 8, 0)  # rounds the medial corner of the apex
    cavity = rise(inner - out, edge)
    lung = cavity * above * rise(out - c.spine * 0.9 - apex, 2 * edge)
    heart = rise(np.minimum(mid + left, right - mid), 2.5 * edge)
    air = lung * (1 - heart)
    deep = np.sqrt(np.clip((inner - out) / (0.35 * inner + 1e-3), 0, 1))  # thin near the wall
    density -= c.air * air * (0.55 + 0.45 * deep)
    density -= 0.10 * lung * heart * c.air  # lung behind and before the heart
    density += 0.10 * heart * above * rise(y + 0.55, 0.3)

    # Vessels: branches that fan out from each hilum and thin out.
    hx, hy = out - 0.16, y + 0.02
    r = np.sqrt(hx * hx + hy * hy) + 0.02
    fan = np.arctan2(hy, hx)
    bend = np.sin(8 * x + c.vessel_phase) + np.sin(9 * y + 2 * c.vessel_phase)
    lines = ridge(3.5 * fan + c.vessel_phase + 0.9 * bend)
    lines += 0.7 * ridge(6 * fan - c.vessel_phase - 1.4 * bend + 5 * r)
    density += air * c.vessels * (lines * np.maximum(0.9 - r * 1.3, 0.10) + 0.9 * bump(r, 0.24))

    # Bones. Ribs at the back leave the spine almost level and drop at the side; at the front they fall to the middle.
    q = out / (inner + 0.02)
    inside = rise(inner + 0.02 - out, 2 * edge)
    start = c.apex + 0.04 + c.first_rib
    arch = c.drop * q * q * q - c.lift * q
    phase = (y - start - arch * (0.8 + 0.5 * rise(-y, 0.6))) / (c.spacing * (1 + 0.10 * y))
    belt = wave(phase, c.rib_width) * rise(phase + 0.5, 0.2) * rise(10.5 - phase, 0.3)
    rim = wave(phase, c.rib_width * 0.45)
    rib = (belt - 0.35 * rim) * inside * rise(out - c.spine, 0.03)
    front_phase = (y - start - 0.10 - c.front_slope * (1 - q)) / (c.spacing * 1.08)
    front = wave(front_phase, c.rib_width * 1.15) * inside * rise(q - 0.50, 0.12)
    front = front * rise(front_phase - 0.5, 0.2) * rise(7.5 - front_phase, 0.3)
    beads = bump(out - inner - 0.005, 0.042) * (0.35 + 0.9 * wave(phase + 0.12, 0.42))
    beads = beads * rise(y - c.apex - 0.03, 0.05) * rise(0.75 - y, 0.15)
    fade = 0.45 + 0.55 * above  # less to be seen through the belly
    density += c.bone * fade * (0.21 * rib * (0.6 + 0.5 * q) + 0.07 * front + 0.15 * beads)
    column = rise(c.spine - out, 1.5 * edge)
    cell = y / (c.vertebra * (1 + 0.15 * y))
    density += c.bone * column * (0.15 + 0.06 * wave(cell, 0.42)) * (0.75 + 0.25 * above)
    density += c.bone * 0.06 * wave(cell, 0.25) * bump(out - 0.6 * c.spine, 0.025)
    collar = c.collar_y - c.collar_rise * out + c.collar_bend * np.sin(7 * out)
    band = bump(y - collar, 0.036 + 0.02 * bump(out, 0.2)) * rise(out - 0.07, 0.03)
    density += c.bone * 0.16 * band * rise(c.width + 0.06 - out, 0.05)
    density += c.bone * 0.22 * bump(off, c.arm_thick * 0.42) * rise(ax + 0.02, 0.04)
    blade = ((out - c.width * 0.93) / 0.16) ** 2 + ((y + 0.36) / 0.30) ** 2
    density += c.bone * 0.05 * rise(1 - blade, 0.12) * trunk

    # Airways, belly, gas.
    windpipe = bump(mid + 0.015, 0.052) * rise(-0.22 - y, 0.08)
    bronchus = bump(y + 0.22 - 0.75 * np.maximum(out - 0.01, 0), 0.04) * rise(0.16 - out, 0.06)
    density -= 0.10 * windpipe + 0.06 * bronchus
    belly = trunk * (1 - above) * cavity
    density += 0.10 * belly + 0.06 * belly * rise(-mid, 0.3)
    bubble = ((mid - c.bubble_x) / c.bubble_w) ** 2 + ((y - c.floor - c.bubble_y) / c.bubble_h) ** 2
    density -= 0.30 * c.bubble * rise(1 - bubble, 0.35) * (1 - above)
    loops = np.sin(9 * x + c.gas_phase) * np.sin(11 * y + 2 * c.gas_phase + 2 * x)
    density -= c.gas * np.maximum(loops, 0) * (1 - above) * rise(y - c.floor - 0.22, 0.1) * body
    return Drawn(x, y, air, density, size)
