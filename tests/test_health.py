"""What a run in training is asked: do its images repeat each other, and do images, labels and teacher agree?"""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from expressivegan.console import console
from expressivegan.data import ImageSet
from expressivegan.health import health_check
from expressivegan.training import Guide
from tiny import phantom_set


class ReadsTheCorner(torch.nn.Module):
    """A teacher that is always right about pictures whose first pixel is the label times 100."""

    resolution = 32

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.backbone = SimpleNamespace(
            features=lambda x: torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)[..., None, None]
        )

    def raw_cams(self, x: Tensor) -> tuple[Tensor, Tensor]:
        label = ((x[:, 0, 0, 0] + 1) * 127.5 / 100).round().long().clamp(0, 2)
        return x, torch.nn.functional.one_hot(label, 3).float()


@pytest.fixture(scope="module")
def marked() -> ImageSet:
    images = phantom_set(600)
    pixels = np.asarray(images.images).copy()
    pixels[:, 0, 0] = 100 * images.labels
    return replace(images, images=pixels)


def guide() -> Guide:
    return cast(Guide, SimpleNamespace(teacher=ReadsTheCorner(), own=True))


def made(images: ImageSet) -> tuple[Any, Any]:
    rows = images.indices("train")
    return np.asarray(images.images[rows]), images.labels[rows]


def test_real_images_of_other_patients_are_healthy(marked: ImageSet) -> None:
    with console.capture() as capture:
        check = health_check(marked, guide())
        assert check is not None
        figures, warning = check(*made(marked))
    assert capture.get() == ""
    assert warning is None
    assert figures["agreement"] == figures["agreement_real"] == 1.0
    assert figures["diversity_ratio_min"] > 0.7


def test_images_that_do_not_show_their_labels(marked: ImageSet) -> None:
    check = health_check(marked, guide())
    assert check is not None
    images, labels = made(marked)
    figures, warning = check(images, (labels + 1) % 3)
    assert figures["agreement"] == 0
    assert warning is not None
    assert "do not show their labels: the teacher sees them in 0%, in 100% of real images (chance: 33%)" in warning


def test_a_generator_that_repeats_itself(marked: ImageSet) -> None:
    check = health_check(marked, guide())
    assert check is not None
    images, labels = made(marked)
    for k in range(3):
        images[labels == k] = images[labels == k][0]
    figures, warning = check(images, labels)
    assert figures["collapsed"] == 1
    assert warning is not None
    assert warning.count("has collapsed") == 3


def test_a_class_that_begins_to_repeat_itself(marked: ImageSet) -> None:
    """A fifth of the images of one class twice: no collapse yet, so it is said where it stays."""
    check = health_check(marked, guide())
    assert check is not None
    images, labels = made(marked)
    whole = images.copy()
    rows = np.flatnonzero(labels == 1)
    tenth = len(rows) // 10
    images[rows[:tenth]] = images[rows[tenth : 2 * tenth]]
    assert check(images, labels)[1] is None
    warning = check(images, labels)[1]
    assert warning is not None
    assert warning.startswith(f"{marked.classes[1]} repeats itself: ")
    assert "collapsed" not in warning
    assert check(whole, labels)[1] is None
    assert check(images, labels)[1] is None


def test_shuffled_labels_are_told_before_training(marked: ImageSet) -> None:
    shuffled = replace(marked, labels=np.random.default_rng(0).permutation(marked.labels))
    with console.capture() as capture:
        assert health_check(shuffled, guide()) is not None
    said = " ".join(capture.get().split())
    assert "of validation patients (chance: 33%): are the labels right" in said


def test_without_a_teacher_images_alone_are_judged(marked: ImageSet) -> None:
    check = health_check(marked, None)
    assert check is not None
    figures, warning = check(*made(marked))
    assert warning is None
    assert "agreement" not in figures
    assert (
        health_check(replace(marked, groups=np.where(marked.groups == "judge", "train", marked.groups)), None) is None
    )
