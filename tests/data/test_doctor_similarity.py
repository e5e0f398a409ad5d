"""Copies are told from other children's pictures, whatever was done to them."""

import numpy as np
import pytest
from PIL import Image

from expressivegan.data.doctor.similarity import COPY, SIDE, candidates, compare, fine
from expressivegan.data.phantom import CLASSES, draw_batch

N = 150


@pytest.fixture(scope="module")
def children() -> np.ndarray:
    return draw_batch(range(N), [CLASSES[i % 3] for i in range(N)], SIDE)[0]


def shifted(picture: np.ndarray) -> np.ndarray:
    line = np.clip(np.arange(SIDE) - 8, 0, SIDE - 1)
    return picture[np.ix_(line, np.clip(np.arange(SIDE) + 6, 0, SIDE - 1))]


def smaller(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((56, 56)).resize((SIDE, SIDE)))


CHANGES = {
    "shifted": shifted,
    "mirrored": lambda p: p[:, ::-1],
    "shifted and mirrored": lambda p: shifted(p)[:, ::-1],
    "smaller": smaller,
    "paler": lambda p: (0.7 * p + 40).astype(np.uint8),
    "noisy": lambda p: np.clip(p + np.random.default_rng(0).normal(0, 3, p.shape), 0, 255).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_among_other_children(children: np.ndarray, change: str) -> None:
    copied = [3, 40, 77, 110]
    copies = np.stack([CHANGES[change](children[i]) for i in copied])
    found = compare(np.concatenate([children, copies]))
    told = {(int(i), int(j)) for i, j in zip(found.first, found.second, strict=True)}
    copy = found.likeness >= COPY
    truth = {(i, N + k) for k, i in enumerate(copied)}
    assert truth <= told
    assert {(int(i), int(j)) for i, j in zip(found.first[copy], found.second[copy], strict=True)} == truth
    assert (found.mirrored[copy] == ("mirrored" in change)).all()
    assert (np.diff(found.likeness) <= 0).all()


def test_no_child_is_another_childs_copy(children: np.ndarray) -> None:
    assert compare(children).likeness.max() < COPY


def test_candidates_are_few_and_the_same_each_time(children: np.ndarray) -> None:
    pairs = candidates(children)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(pairs) < 12 * N
    np.testing.assert_array_equal(pairs, candidates(children))


def test_fine_detail_ignores_exposure(children: np.ndarray) -> None:
    part = children[:4].astype(np.float32)
    np.testing.assert_allclose(fine(part), fine(part * 0.5 + 30), atol=0.6)
    assert np.corrcoef(fine(part).ravel(), fine(part * 0.5 + 30).ravel())[0, 1] > 0.99


def test_two_pictures_alone() -> None:
    pair = draw_batch([1, 2], ["NORMAL", "NORMAL"], SIDE)[0]
    assert len(compare(pair).first) <= 1
    same = compare(np.stack([pair[0], pair[0]]))
    assert same.likeness.tolist() == pytest.approx([1.0], abs=1e-4)
