"""Figures on maps: by hand, by identity, against pytorch-grad-cam, scikit-learn and scikit-image, on cheats."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import spsolve
from skimage.measure import regionprops
from sklearn.metrics import jaccard_score, recall_score

from expressivegan.errors import InputError
from expressivegan.evaluation.faithfulness import (
    CONTROLS,
    Truth,
    captured,
    compare,
    controls,
    correlation,
    deletion,
    enlarge,
    faithfulness_report,
    impute,
    insertion,
    iou_at_area,
    pointing_game,
    rank_accuracy,
    relevance_mass,
    road,
    smallest_region,
)
from expressivegan.intervals import plain

Array = np.ndarray[Any, Any]


def blobs(n: int, size: int = 32, seed: int = 0) -> tuple[Array, Array, list[str]]:
    """Dark noisy images with one bright disc each off the centre, the discs, and a patient for every two images."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    angle = rng.uniform(0, 2 * np.pi, (n, 1, 1))
    masks = (y - 16 - 9 * np.sin(angle)) ** 2 + (x - 16 - 9 * np.cos(angle)) ** 2 < 16
    images = rng.normal(60, 8, masks.shape) + 120 * ndimage.gaussian_filter(masks.astype(float), (0, 1, 1))
    return images.clip(0, 255).astype(np.uint8), masks, [str(i // 2) for i in range(n)]


def brightest(images: Array) -> Array:
    """A network that sees nothing but the brightest spot."""
    return ndimage.gaussian_filter(images.astype(float), (0, 1.5, 1.5)).max((1, 2)) / 255


# --- known regions, by hand

MAP = np.array([[[4.0, 3, 0], [2, 1, 0], [0, -5, 0]]])
MASK = np.array([[[1, 0, 0], [1, 1, 0], [0, 0, 0]]])


def test_localisation_by_hand() -> None:
    assert pointing_game(MAP, MASK).tolist() == [1]
    assert relevance_mass(MAP, MASK)[0] == pytest.approx(0.7)  # 4 + 2 + 1 of 10; -5 counts as 0
    assert rank_accuracy(MAP, MASK)[0] == pytest.approx(2 / 3)  # 4 and 2 of 4, 3, 2
    assert iou_at_area(MAP, MASK)[0] == pytest.approx(0.5)  # 2 of 4 pixels
    assert pointing_game(-MAP, MASK).tolist() == [0]
    assert pointing_game(-MAP, MASK, tolerance=1).tolist() == [1]  # the middle of the last row is beside the region


def test_the_region_itself_is_perfect_and_what_is_equal_everywhere_is_chance() -> None:
    _, masks, _ = blobs(6)
    for figure in (pointing_game, iou_at_area, relevance_mass, rank_accuracy):
        assert figure(masks.astype(float), masks).tolist() == [1] * 6
        assert figure(1.0 - masks, masks).tolist() == [0] * 6
    area = masks.mean((1, 2))
    for value in (0.0, 0.3):
        flat = np.full(masks.shape, value)
        for figure in (pointing_game, relevance_mass, rank_accuracy):
            np.testing.assert_allclose(figure(flat, masks), area)


def test_ties_are_shared_whatever_the_order_of_pixels() -> None:
    maps = np.zeros((1, 4, 4))
    maps[0, 0, :2] = 1
    mask = np.zeros((1, 4, 4), bool)
    mask[0, 0, 1:] = True  # one of two peaks; of the third place, 2 of 14 tied pixels are inside
    assert pointing_game(maps, mask).tolist() == [0.5]
    assert rank_accuracy(maps, mask)[0] == pytest.approx((1 + 2 / 14) / 3)
    turned, turned_mask = maps[:, ::-1, ::-1], mask[:, ::-1, ::-1]
    np.testing.assert_allclose(rank_accuracy(turned, turned_mask), rank_accuracy(maps, mask))


@pytest.mark.parametrize(
    ("maps", "masks", "said"),
    [
        (np.full((2, 4, 4), np.nan), np.eye(4)[None].repeat(2, 0), r"maps\[0\] holds NaN or infinity \(2 of 2 do\)"),
        (np.ones((1, 4, 4)), np.zeros((1, 4, 4)), r"masks\[0\] is empty"),
        (np.ones((1, 4, 4)), np.ones((1, 4, 4)), r"masks\[0\] is the whole image"),
        (np.ones((1, 4, 4)), np.eye(8)[None], r"masks of shape \(1, 8, 8\) must have that of maps"),
        (np.ones((4, 4)), np.eye(4), r"must be \(N, h, w\)"),
        (np.ones((0, 4, 4)), np.ones((0, 4, 4)), "with one map at least"),
    ],
)
def test_what_says_nothing_is_refused(maps: Array, masks: Array, said: str) -> None:
    with pytest.raises(InputError, match=said):
        pointing_game(maps, masks)


# --- removal


def test_imputation_solves_the_equations() -> None:
    images, masks, _ = blobs(3, seed=1)
    masks[0, 0, :4] = masks[1, -3:, -3:] = True
    filled = impute(images, masks, noise=0, precision=1e-9)
    assert (filled[~masks] == images[~masks]).all()
    padded, known = np.pad(filled, ((0, 0), (1, 1), (1, 1))), np.pad(np.ones(masks.shape), ((0, 0), (1, 1), (1, 1)))
    kernel = np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]]) / 12
    total, weight = (ndimage.convolve(v, kernel[None])[:, 1:-1, 1:-1] for v in (padded, known))
    np.testing.assert_allclose(filled[masks], (total / weight)[masks], atol=1e-6)
    np.testing.assert_allclose(impute(images, masks, noise=0), filled, atol=0.6)


def test_imputation_equals_a_direct_solution_and_continues_a_slope() -> None:
    slope = np.broadcast_to(np.arange(16) * 10, (1, 16, 16)).astype(np.uint8)
    hole = np.zeros((1, 16, 16), bool)
    hole[0, 4:12, 4:12] = True
    np.testing.assert_allclose(impute(slope, hole, noise=0, precision=1e-9), slope, atol=1e-6)
    images, _, _ = blobs(1, seed=2)
    gone = np.random.default_rng(0).random(images.shape) < 0.8
    number = -np.ones((34, 34), int)
    number[1:-1, 1:-1][gone[0]] = np.arange(gone.sum())
    inside = np.pad(np.ones((32, 32), bool), 1)
    grey = np.pad(images[0].astype(float), 1)
    a, b = np.zeros((gone.sum(), gone.sum())), np.zeros(gone.sum())
    for i, (y, x) in enumerate(np.argwhere(gone[0]) + 1):
        for dy, dx, w in [(j, k, (1 + (j * k == 0)) / 12) for j in (-1, 0, 1) for k in (-1, 0, 1) if j or k]:
            at = (y + dy, x + dx)
            if inside[at]:
                a[i, i] += w
                if number[at] >= 0:
                    a[i, number[at]] -= w
                else:
                    b[i] += w * grey[at]
    np.testing.assert_allclose(
        impute(images, gone, noise=0, precision=1e-9)[gone], spsolve(csc_matrix(a), b), atol=1e-5
    )


def test_noise_is_scaled_to_the_range_of_grey_levels() -> None:
    images, gone = np.full((4, 32, 32), 128, np.uint8), np.zeros((4, 32, 32), bool)
    gone[:, 4:28, 4:28] = True
    noise = impute(images, gone, noise=0.01)[gone] - 128
    assert abs(noise.std() / 2.55 - 1) < 0.05
    assert (impute(images, gone, seed=1) != impute(images, gone, seed=2)).any()


def test_deletion_and_insertion_by_hand() -> None:
    image = np.array([[[200, 0], [0, 0]]], np.uint8)  # mean 50
    maps = np.array([[[3.0, 2], [1, 0]]])

    def first(images: Array) -> Array:
        return images[:, 0, 0] / 200

    # deletion: 1, then 0.25 at each of the four steps; the trapezoids of width 1/4 sum to (1/2 + 0.25 * 3 + 0.125) / 4
    assert deletion(maps, image, first, steps=4)[0] == pytest.approx((0.5 + 0.75 + 0.125) / 4)
    assert deletion(-maps, image, first, steps=4)[0] == pytest.approx((0.5 + 3 + 0.125) / 4)

    point = np.zeros((1, 16, 16), np.uint8)
    point[0, 8, 8] = 200
    blurred = round(200 / (2 * np.pi * 2**2)) / 200  # what a Gaussian of σ 16/8 leaves of it
    area = insertion(point.astype(float), point, lambda x: x[:, 8, 8] / 200, steps=4)
    assert area[0] == pytest.approx((blurred / 2 + 3 + 0.5) / 4, abs=1e-3)
    last = insertion(-point.astype(float), point, lambda x: x[:, 8, 8] / 200, steps=4)
    assert last[0] == pytest.approx((blurred / 2 + 3 * blurred + 0.5) / 4, abs=1e-3)


def test_a_true_map_beats_its_opposite_in_every_removal() -> None:
    images, masks, _ = blobs(8)
    true = ndimage.gaussian_filter(masks.astype(float), (0, 2, 2))
    found, wrong = (road(m, images, brightest, percentages=(5, 20)) for m in (true, -true))
    assert (found["morf"] < wrong["morf"] - 0.1).all()
    assert (found["lerf"] > wrong["lerf"] + 0.1).all()
    np.testing.assert_allclose(found["combined"], (found["lerf"] - found["morf"]) / 2)
    np.testing.assert_allclose(wrong["combined"], -found["combined"], atol=0.02)  # the other order, up to ties
    assert (deletion(true, images, brightest) < deletion(-true, images, brightest)).all()
    assert (insertion(true, images, brightest) > insertion(-true, images, brightest)).all()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m, i: road(m, i, brightest, percentages=(0, 50)), r"percentages \(=\[0, 50\]\)"),
        (lambda m, i: deletion(m, i, brightest, steps=0), r"steps \(=0\)"),
        (lambda m, i: insertion(m[:, :8], i, brightest), "must have that of images"),
        (lambda m, i: deletion(m, i / 255, brightest), "images must be uint8"),
        (lambda m, i: impute(i, np.ones(i.shape, bool)), "nothing is left to fill from"),
        (lambda m, i: impute(i, np.ones((1, 2, 2), bool)), "removed of shape"),
    ],
)
def test_removal_refuses(call: Callable[[Array, Array], Any], said: str) -> None:
    images, masks, _ = blobs(2)
    with pytest.raises(InputError, match=said):
        call(masks.astype(float), images)


# --- peers


def test_localisation_against_scikit_learn_and_scikit_image() -> None:
    _, masks, _ = blobs(5, seed=4)
    maps = np.random.default_rng(5).random(masks.shape) + 0.3 * masks
    for i, (one, mask) in enumerate(zip(maps, masks, strict=True)):
        chosen = one >= np.sort(one, axis=None)[-mask.sum()]  # as many pixels as the region has; no ties here
        assert rank_accuracy(maps, masks)[i] == pytest.approx(recall_score(mask.ravel(), chosen.ravel()))
        assert iou_at_area(maps, masks)[i] == pytest.approx(jaccard_score(mask.ravel(), chosen.ravel()))
        (whole,) = regionprops(np.ones(mask.shape, int), one * mask)
        (every,) = regionprops(np.ones(mask.shape, int), one)
        assert relevance_mass(maps, masks)[i] == pytest.approx(whole.intensity_mean / every.intensity_mean)
        assert pointing_game(maps, masks)[i] == mask[np.unravel_index(one.argmax(), one.shape)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of NumPy, about how it fills a matrix
def test_imputation_and_road_against_pytorch_grad_cam() -> None:
    """Its imputation is the authors' own; its noise is absolute and drawn within, so it is turned off on both sides."""
    from pytorch_grad_cam.metrics import road as theirs

    images, masks, _ = blobs(4, seed=4)
    maps = enlarge(np.random.default_rng(1).random((4, 8, 8)), (32, 32)) + 0.3 * masks
    fill = theirs.NoisyLinearImputer(noise=0.0)
    gone = maps > 0.55
    ours = impute(images, gone, noise=0, precision=1e-9)
    for image, hole, mine in zip(images, gone, ours, strict=True):
        filled = fill(torch.from_numpy(image.astype(np.float32))[None], torch.from_numpy((~hole).astype(np.float32)))
        np.testing.assert_allclose(mine, filled[0], atol=1e-3)

    shares = (25, 50)  # whole numbers of pixels
    mean = lambda x: x.astype(float)[:, 4:20, 4:20].mean((1, 2))  # noqa: E731
    found = road(maps, images, mean, percentages=shares, noise=0)
    for i in range(4):
        x, expected = torch.from_numpy(images[i].astype(np.float32)), {}
        for name, keep in (("morf", lambda m, p: m < np.percentile(m, 100 - p)),
                           ("lerf", lambda m, p: m > np.percentile(m, p))):  # fmt: skip
            made = [fill(x[None], torch.from_numpy(keep(maps[i], p).astype(np.float32))) for p in shares]
            expected[name] = np.mean([float(m[0, 4:20, 4:20].mean()) for m in made])
        assert found["morf"][i] == pytest.approx(expected["morf"], abs=0.5)  # ours are rounded to grey levels
        assert found["lerf"][i] == pytest.approx(expected["lerf"], abs=0.5)


# --- how much changed, by hand

CHANGE = np.array([[[6.0, 2, 0], [1, 1, 0], [0, 0, 0]]])


def test_change_by_hand() -> None:
    assert smallest_region(CHANGE).tolist() == [[[True, True, False], [False, False, False], [False, False, False]]]
    assert smallest_region(CHANGE, 0.85).sum() == 3
    maps = np.array([[[5.0, 0, 0], [4, 0, 0], [0, 0, 0]]])
    assert captured(maps, CHANGE)[0] == pytest.approx(7 / 8)  # 6 + 1 under its two highest; 6 + 2 were to be had
    assert captured(CHANGE, CHANGE)[0] == captured(CHANGE**2, CHANGE)[0] == 1
    assert captured(-CHANGE, CHANGE)[0] == 0
    assert captured(np.ones((1, 3, 3)), CHANGE)[0] == pytest.approx(2 / 9 * 10 / 8)
    assert correlation(3 * CHANGE - 1, CHANGE)[0] == pytest.approx(1)
    assert correlation(maps, CHANGE)[0] == pytest.approx(np.corrcoef(maps.ravel(), CHANGE.ravel())[0, 1])
    assert correlation(np.ones((1, 3, 3)), CHANGE)[0] == 0
    assert relevance_mass(CHANGE, smallest_region(CHANGE))[0] == pytest.approx(0.8)


def test_a_map_of_all_that_changes_a_little_is_found_out() -> None:
    """The picture changes by 3 levels over most of it, and by 240 in one disc: only one of the maps says where."""
    _, masks, _ = blobs(20)
    y, x = np.mgrid[:32, :32]
    wide = ((y - 16) ** 2 + (x - 16) ** 2 < 15**2) | masks
    change = 3.0 * wide + 240 * ndimage.gaussian_filter(masks.astype(float), (0, 1, 1))
    assert relevance_mass(wide.astype(float), change >= 3).min() > 0.95  # the region alone is fooled
    core = smallest_region(change)
    assert relevance_mass(wide.astype(float), core).max() < 0.35
    assert captured(wide.astype(float), change).max() < 0.45
    assert correlation(wide.astype(float), change).max() < 0.35
    true = ndimage.gaussian_filter(masks.astype(float), (0, 2, 2))
    assert captured(true, change).min() > 0.7
    assert correlation(true, change).min() > 0.8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (np.zeros((2, 4, 4)), r"changes\[0\] is 0 everywhere \(2 of 2 are\)"),
        (-np.ones((2, 4, 4)), "changes hold -1; give their absolute value"),
        (np.full((2, 4, 4), np.nan), r"changes\[0\] holds NaN"),
        (np.ones((2, 8, 8)), r"changes of shape \(2, 8, 8\) must have that of maps"),
    ],
)
def test_changes_that_say_nothing_are_refused(changes: Array, said: str) -> None:
    for figure in (captured, correlation):
        with pytest.raises(InputError, match=said):
            figure(np.ones((2, 4, 4)), changes)
    with pytest.raises(InputError, match=r"share \(=1\)"):
        smallest_region(np.ones((1, 4, 4)), 1)


# --- controls and the report


def test_controls_know_nothing_of_the_network() -> None:
    images, _, _ = blobs(4)
    found = controls(images, seed=0)
    assert tuple(found) == CONTROLS
    assert all(m.shape == images.shape for m in found.values())
    assert np.unravel_index(found["centre"][0].argmax(), (32, 32)) in [(15, 15), (15, 16), (16, 15), (16, 16)]
    np.testing.assert_allclose(found["centre"][0], found["centre"][0].T[::-1, ::-1])
    step = np.zeros((1, 16, 16), np.uint8)
    step[:, :, 8:] = 100
    assert set(np.argwhere(controls(step)["edges"][0] > 0)[:, 1].tolist()) == {7, 8}
    assert not np.array_equal(found["random"], controls(images, seed=1)["random"])


def test_a_true_map_is_above_all_controls_and_a_cheat_is_not() -> None:
    images, _, patients = blobs(24, seed=9)  # what is bright lies elsewhere, so no control finds the region
    _, masks, _ = blobs(24)
    true = ndimage.gaussian_filter(masks.astype(float), (0, 1.5, 1.5))
    cheats = {
        "true": true,
        "another image's": np.roll(true, 7, 0),
        "the same for all": true.mean(0, keepdims=True).repeat(24, 0),
    }
    cheats["nothing"] = np.zeros(masks.shape)
    report = faithfulness_report(cheats, images, patients, Truth(masks=masks), rounds=100)
    assert (report["n"], report["patients"]) == (24, 12)
    figures = {name: row["figures"] for name, row in report["maps"].items()}
    for name in ("pointing_game", "iou_at_area", "relevance_mass", "rank_accuracy"):
        assert figures["true"][name]["difference"].low > 0.1, name
        for cheat in ("another image's", "the same for all", "nothing"):
            assert figures[cheat][name]["difference"].low < 0.05, (name, cheat)
    assert report["maps"]["nothing"]["constant"] == 24
    assert figures["nothing"]["pointing_game"]["map"].value == pytest.approx(masks.mean())
    json.dumps(plain(report), allow_nan=False)


def test_lower_is_better_for_deletion_and_the_difference_says_so() -> None:
    images, masks, patients = blobs(16)
    true = ndimage.gaussian_filter(masks.astype(float), (0, 2, 2))
    found = faithfulness_report(
        {"true": true, "opposite": -true}, images, patients, Truth(score=brightest, lungs=masks),
        percentages=(10, 50), steps=4, rounds=50,
    )["maps"]  # fmt: skip
    for name in ("deletion", "road_morf"):
        row = found["opposite"]["figures"][name]
        assert (row["better"], row["difference"].value < -0.1) == ("lower", True)
        assert found["true"]["figures"][name]["map"].value < row["map"].value
    assert found["true"]["figures"]["road_combined"]["map"].value > 0.1
    assert found["true"]["figures"]["in_lungs"]["map"].value > found["opposite"]["figures"]["in_lungs"]["map"].value


def test_compare_by_hand_pays_for_choosing_the_best_control() -> None:
    ours, even = np.array([1.0, 0, 1, 0]), np.array([0.0, 1, 0, 1])
    found = compare(ours, {"a": ours * 0.5, "b": even}, list("wxyz"), 1, rounds=400)
    assert (found["map"].value, found["best_control"], found["difference"].value) == (0.5, "b", 0.0)
    assert found["difference"].low == -1  # draws in which b alone is right
    lower = compare(ours, {"a": ours * 0.5}, list("wxyz"), -1, rounds=50)
    assert (lower["better"], lower["difference"].value) == ("lower", -0.25)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"explanations": {}}, "explanations are empty"),
        ({"truth": Truth()}, "truth is empty"),
        ({"patients": ["a"]}, "must go in pairs"),
        ({"rounds": 0}, r"rounds \(=0\)"),
        ({"explanations": {"edges": np.ones((4, 8, 8))}}, "has the name of a control"),
        ({"explanations": {"cam": np.full((4, 8, 8), np.inf)}}, r"explanations\['cam'\]\[0\] holds NaN"),
    ],
)
def test_the_report_refuses(change: dict[str, Any], said: str) -> None:
    images, masks, patients = blobs(4)
    given = {"explanations": {"cam": masks.astype(float)}, "images": images, "patients": patients}
    with pytest.raises(InputError, match=said):
        faithfulness_report(**(given | {"truth": Truth(masks=masks)} | change))
