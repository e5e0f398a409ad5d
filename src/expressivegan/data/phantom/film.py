"""The film: density → grey levels, marker and frame included."""

import numpy as np
from scipy.ndimage import gaussian_filter

from expressivegan.data.phantom.curves import Array, Numbers, UInt8Array, average

_GLYPHS = {
    "R": ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
    "L": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
}


class Developer:
    """Density → grey levels, with everything that belongs to the shot: exposure, blur, noise, frame, marker."""

    def __init__(self, shot: Numbers, noise: Array, frame: Array) -> None:
        self.gain, self.centre = shot(2.6, 5.0), shot(0.40, 0.60)
        self.black, self.white = shot(0.0, 0.10), shot(0.86, 1.0)
        self.fog = shot.chance(0.35) * shot(0.04, 0.22)
        self.tilt_x, self.tilt_y = shot(-0.05, 0.05), shot(-0.05, 0.05)
        self.frame_grey = shot.chance(0.15) * shot(0.0, 0.12)
        self.resolution = noise.shape[-1]
        self.frame = shrink(frame, self.resolution)
        self.blur = shot(0.2, 1.1)[:, 0, 0] * frame.shape[-1] / 128  # pixels of the drawing
        self.noise = noise * shot(0.004, 0.020)
        self.stamp = stamps(shot, self.resolution)

    def __call__(self, density: Array) -> UInt8Array:
        # Not one product with a matrix per picture, which wakes the threads of BLAS in a crowd of threads.
        soft = [gaussian_filter(one, sigma, mode="nearest") for one, sigma in zip(density, self.blur, strict=True)]
        density = shrink(np.stack(soft), self.resolution)
        line = np.linspace(-1, 1, density.shape[1], dtype=np.float32)
        density = density + self.tilt_x * line[None, None, :] + self.tilt_y * line[None, :, None]
        light = 1 / (1 + np.exp(-self.gain * (density - self.centre)))
        dark = 1 / (1 + np.exp(self.gain * self.centre))
        grey = self.black + self.fog * (1 - light) + (self.white - self.black) * (light - dark) / (1 - dark)
        grey = grey + self.noise * (0.5 + np.sqrt(np.maximum(grey, 0)))
        grey = self.frame_grey + (grey - self.frame_grey) * self.frame
        grey = grey + (0.97 - grey) * self.stamp
        levels: UInt8Array = np.clip(np.rint(grey * 255), 0, 255).astype(np.uint8)
        return levels


def shrink(pictures: Array, resolution: int) -> Array:
    """(B, size, size) → (B, resolution, resolution), by averaging."""
    if pictures.shape[-1] == resolution:
        return pictures
    weights = average(pictures.shape[-1], resolution)
    small: Array = weights @ pictures @ weights.T
    return small


def stamps(shot: Numbers, size: int) -> Array:
    """(B, size, size) of 0..1: an R on the image's left or, rarely, an L on its right."""
    kind, present, tall, low, away = shot(), shot.chance(0.9), shot(0.05, 0.12), shot(0.03, 0.30), shot(0.01, 0.10)
    stamps = np.zeros((len(kind), size, size), np.float32)
    for i in range(len(kind)):
        if not present[i, 0, 0]:
            continue
        letter = "R" if kind[i, 0, 0] < 0.85 else "L"
        glyph = np.array([[float(c) for c in row] for row in _GLYPHS[letter]], np.float32)
        height = max(3, round(float(tall[i, 0, 0]) * size))
        width = max(2, round(height * 0.65))
        top, gap = round(float(low[i, 0, 0]) * size), round(float(away[i, 0, 0]) * size)
        left = gap if letter == "R" else size - width - gap
        stamps[i, top : top + height, left : left + width] = average(7, height) @ glyph @ average(5, width).T
    return stamps
