"""Where a teacher looks: figures by hand, and a planted shortcut that only an unprotected teacher follows."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from expressivegan.config import UNPROTECTED, TeachConfig
from expressivegan.data import ImageSet
from expressivegan.teacher import CXR_CAM_Teacher
from expressivegan.teacher.fit import fit_teacher
from expressivegan.teacher.focus import (
    Focus,
    absolute_mass_in,
    donors,
    focus,
    frame_mask,
    stray,
    thorax_window,
    with_frames_of,
)
from tiny import phantom_set


def test_the_frame() -> None:
    assert frame_mask(10).sum() == 36
    assert frame_mask(64).mean() == pytest.approx(1 - (52 / 64) ** 2)
    images, sources = np.zeros((2, 10, 10), np.uint8), np.full((2, 10, 10), 9, np.uint8)
    pasted = with_frames_of(images, sources)
    assert (pasted == np.where(frame_mask(10), 9, 0)).all()


def test_the_window_means_the_same_on_every_grid() -> None:
    fine = thorax_window(64)
    assert fine.min() == 0
    assert fine[32, 32] == fine[32, 10] == 1
    assert fine[0, 0] == 0
    assert fine[0, 32] == 0
    for side in (8, 16):
        coarse = torch.nn.functional.avg_pool2d(fine[None, None], 64 // side)[0, 0]
        assert torch.allclose(thorax_window(side), coarse, atol=0.02)  # sampled at 16 points per cell and axis


def test_mass_by_hand() -> None:
    maps = np.array([[[3.0, -1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]], np.float32)
    share = absolute_mass_in(maps, np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert share[0] == 0.25  # a map's dark places count as well
    assert np.isnan(share[1])


def test_donors() -> None:
    labels = np.array([0] * 90 + [1] * 9 + [2])
    other = donors(labels, True)
    assert (labels[other] != labels).all()
    assert 25 < (other[:90] == 99).sum() < 65  # a rare class gives its frame as often as a frequent one
    same = donors(labels, False)
    assert same[99] == -1  # alone in its class
    assert (labels[same[:99]] == labels[:99]).all()
    assert (same != np.arange(100)).all()
    assert (donors(labels, True) == other).all()


def test_stray_by_hand() -> None:
    still = torch.eye(2, 3).expand(2, 2, 3)
    cams = torch.zeros(2, 2, 16, 16)
    cams[0, 0, 8, 8] = 1.0  # inside
    cams[1, 0, 0, 0] = 1.0  # in the corner
    assert stray(cams[:1], still[:1]).item() == pytest.approx(0, abs=1e-6)
    assert stray(cams[1:], still[1:]).item() == pytest.approx(1, abs=0.002)
    assert stray(cams, still).item() == pytest.approx(0.5, abs=0.002)
    # softmax ignores a map that is added to all classes, and so does this
    assert stray(cams + 7 * torch.rand(2, 1, 16, 16), still).item() == pytest.approx(0.5, abs=0.002)
    moved = still.clone()
    moved[:, 0, 2] = 1.0  # the image has moved to the left by half a side, and the window with it
    assert stray(torch.roll(cams, -8, 3), moved).item() == pytest.approx(0.5, abs=0.002)
    cams.requires_grad_(True)
    stray(cams + 0.1 * torch.rand(2, 2, 16, 16), still).backward()
    assert cams.grad is not None
    assert torch.isfinite(cams.grad).all()


class _FrameReader:
    """Knows the label by the grey of the first pixel alone, and paints its map there or in the middle."""

    reference = 0

    def __init__(self, corner: bool) -> None:
        self.at = (0, 0) if corner else (8, 8)

    def raw_cams(self, images: Tensor) -> tuple[Tensor, Tensor]:
        told = ((images[:, 0, 0, 0] + 1) * 127.5 / 100).round().long()
        cams = torch.zeros(len(images), 3, 16, 16)
        cams[torch.arange(len(images)), told, self.at[0], self.at[1]] = 1.0
        return cams, 10 * torch.nn.functional.one_hot(told, 3).float()

    def referenced(self, cams: Tensor) -> Tensor:
        return cams - cams[:, :1]


def test_a_reader_of_the_frame_is_caught() -> None:
    labels = np.arange(30) % 3
    images = np.zeros((30, 16, 16), np.uint8)
    images[:, 0, 0] = labels * 100
    patients: Sequence[str] = [str(i) for i in range(30)]
    for corner in (True, False):
        found = focus(cast(CXR_CAM_Teacher, _FrameReader(corner)), images, labels, list(patients), rounds=10)
        assert found.follows_frame.value == 1
        assert found.upset_by_frame.value == 0
        assert found.frame_mass.value == float(corner)
        assert found.outside_mass.value == pytest.approx(float(corner), abs=0.002)


# --- a planted shortcut -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def marked(_own_cache: None) -> ImageSet:
    """Phantoms whose uppermost three lines tell the label."""
    images = phantom_set(240)
    pixels = np.asarray(images.images).copy()
    for k in range(3):
        pixels[images.labels == k, :3] = (0, 127, 255)[k]
    return replace(images, images=pixels)


def _fitted(images: ImageSet, config: TeachConfig) -> Focus:
    unseen = np.flatnonzero(images.groups != "train")
    teacher = fit_teacher(images, config, device="cpu", precision="32-true")
    patients = [str(p) for p in images.patients[unseen]]
    return focus(teacher, np.asarray(images.images[unseen]), images.labels[unseen], patients, rounds=10)


def test_a_shortcut_in_the_frame_is_followed_without_remedies_and_not_with_them(marked: ImageSet) -> None:
    quick = replace(UNPROTECTED, epochs=6, batch=16)
    without = _fitted(marked, quick)
    assert without.follows_frame.value > 0.9
    assert without.frame_mass.value > 0.2
    found = _fitted(marked, replace(quick, border=1.0, border_width=0.15, focus_weight=0.5))
    assert found.follows_frame.value < 0.35
    assert found.frame_mass.value < 0.6 * without.frame_mass.value
