import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expressivegan.data import draw, load_images
from expressivegan.data.phantom import CLASSES, LEAST_CHANGE, draw_batch, manifest
from expressivegan.errors import InputError

SEEDS = list(range(120))


@pytest.fixture(scope="module")
def drawn() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {label: draw_batch(SEEDS, [label] * len(SEEDS)) for label in CLASSES}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**62), st.sampled_from(CLASSES), st.sampled_from([28, 64, 112]), st.integers(0, 3))
def test_the_mask_is_the_truth(seed: int, label: str, resolution: int, view: int) -> None:
    sick, well = draw(seed, label, resolution, view), draw(seed, "NORMAL", resolution, view)
    assert sick.image.shape == sick.mask.shape == (resolution, resolution)
    assert sick.image.dtype == sick.mask.dtype == np.uint8
    change = np.abs(sick.image.astype(int) - well.image)
    assert (change[sick.mask == 0] == 0).all()
    assert (change[sick.mask == 1] >= LEAST_CHANGE).all()
    assert not well.mask.any()
    assert sick.mask.any() == (label != "NORMAL")


def test_a_batch_is_its_pictures(drawn: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    for i in (0, 1, 17, 119):
        one = draw(SEEDS[i], "VIRUS")
        assert (one.image == drawn["VIRUS"][0][i]).all()
        assert (one.mask == drawn["VIRUS"][1][i]).all()
    mixed, _ = draw_batch([5, 3], ["BACTERIA", "NORMAL"])
    assert (mixed[0] == drawn["BACTERIA"][0][5]).all()
    assert (mixed[1] == drawn["NORMAL"][0][3]).all()


def test_bacteria_are_focal_and_viruses_diffuse(drawn: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    focal, diffuse = drawn["BACTERIA"][1], drawn["VIRUS"][1]
    assert focal.mean((1, 2)).min() > 0.01
    assert focal.mean((1, 2)).max() < 0.3
    assert diffuse.mean() > 3 * focal.mean()
    halves = np.stack([diffuse[:, :, :32].mean((1, 2)), diffuse[:, :, 32:].mean((1, 2))])
    assert (halves > 0.05).all()  # both lungs
    one_sided = [min(m[:, :32].sum(), m[:, 32:].sum()) < 0.1 * m.sum() for m in focal]
    assert np.mean(one_sided) > 0.5
    for mask in (focal, diffuse):
        assert mask[:, :3].mean() < 0.01  # the neck has no lung


def test_lesions_brighten(drawn: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    for label in ("BACTERIA", "VIRUS"):
        gain = drawn[label][0].astype(int) - drawn["NORMAL"][0]
        assert gain.min() >= 0
        strength = gain.sum((1, 2)) / drawn[label][1].sum((1, 2))
        assert np.median(strength) > 15  # grey levels, where there is a lesion


def test_the_heart_is_on_the_left(drawn: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    mean = drawn["NORMAL"][0].mean(0)
    assert mean[34:44, 36:42].mean() > mean[34:44, 22:28].mean() + 10  # as in the real set
    assert mean[20:30, 14:22].mean() < 0.75 * mean[20:30, 30:34].mean()  # lungs are darker than the spine
    assert mean[56:60, 20:44].mean() > mean[30:40, 14:22].mean()  # and than the belly


def test_children_differ(drawn: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    flat = drawn["NORMAL"][0].reshape(len(SEEDS), -1).astype(float)
    alike = np.corrcoef(flat)[~np.eye(len(SEEDS), dtype=bool)]
    assert alike.max() < 0.99
    assert flat.mean(1).std() > 12  # exposure
    sharpness = np.abs(np.diff(flat)).mean(1)
    assert sharpness.std() / sharpness.mean() > 0.1


def test_views_are_the_same_child_in_another_shot() -> None:
    first, second = draw(1, "BACTERIA"), draw(1, "BACTERIA", view=1)
    assert (first.image != second.image).mean() > 0.5
    assert abs(first.mask.mean() - second.mask.mean()) < 0.1
    overlap = (first.mask & second.mask).sum() / (first.mask | second.mask).sum()
    assert overlap > 0.2


def test_sizes_agree() -> None:
    for label in CLASSES:
        small = draw(11, label, 64).image.astype(float)
        large = draw(11, label, 256).image.astype(float).reshape(64, 4, 64, 4).mean((1, 3))
        assert np.corrcoef(small.ravel(), large.ravel())[0, 1] > 0.97
    assert draw(0, "VIRUS", 1024).mask.shape == (1024, 1024)


def test_the_frame_does_not_know_the_label() -> None:
    images = load_images("phantom:600", 32, progress=False)
    border = np.ones((32, 32), bool)
    border[3:-3, 3:-3] = False
    values = images.images[:, border].astype(float)
    values = np.concatenate([values, images.images.mean((1, 2), where=border)[:, None]], 1)
    order = values.argsort(0).argsort(0)
    for label in range(3):
        inside = order[images.labels == label].mean(0)
        n = (images.labels == label).sum()
        sigma = np.sqrt((600 - n) * 601 / 12 / n)
        assert np.abs(inside - 299.5).max() / sigma < 4.5  # rank test in every pixel of the border


def test_the_set() -> None:
    known = manifest(600, seed=3)
    assert known == manifest(600, seed=3)
    assert len(known.records) == len({r.sha256 for r in known.records}) == 600
    labels = [r.label for r in known.records]
    assert all(150 < labels.count(label) < 250 for label in CLASSES)
    groups: dict[str, set[str]] = {}
    for record in known.records:
        groups.setdefault(record.patient, set()).add(record.group)
    assert all(len(g) == 1 for g in groups.values())
    assert 450 < len(groups) < 560  # some children come two or three times
    assert known.counts()["test"]["NORMAL"] > 20


def test_wrong_arguments() -> None:
    with pytest.raises(InputError, match=r"label \(='COVID'\) must be one of NORMAL, BACTERIA, VIRUS"):
        draw(0, "COVID")
    for resolution in (27, 2048):
        with pytest.raises(InputError, match="resolution"):
            draw(0, "VIRUS", resolution)
    with pytest.raises(InputError, match="entries"):
        draw_batch([0, 1], ["VIRUS"])


def test_it_is_fast_enough() -> None:
    start = time.process_time()
    draw_batch(SEEDS[:60], ["BACTERIA"] * 60)
    assert 60 / (time.process_time() - start) > 50  # benchmarks/data.py measures; this guards against a disaster
