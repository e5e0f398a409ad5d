"""Each metric: identity, a value worked out by hand, a peer, and sentences for degenerate input."""

import json
import warnings

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from expressivegan.errors import InputError
from expressivegan.evaluation import (
    Neighbours,
    Reference,
    fid,
    fid_interval,
    fidelity_report,
    frechet,
    kid,
    nearest_distances,
    pairwise_diversity,
    prdc,
)


def clouds(n: int, m: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    mixing = draw.normal(size=(d, d)) / np.sqrt(d)
    return draw.normal(size=(n, d)) @ mixing, draw.normal(size=(m, d)) @ mixing * 1.2 + 0.3


# --- identity


@pytest.mark.parametrize("shape", [(60, 8), (20, 50), (2, 5)])
def test_equal_sets_have_no_distance(shape: tuple[int, int]) -> None:
    real = clouds(*shape[:1], 2, shape[1])[0]
    assert fid(real, real[::-1]) == pytest.approx(0, abs=1e-9)


def test_two_halves_of_one_distribution_have_no_kid_on_average() -> None:
    draw = np.random.default_rng(0)
    values = [kid(draw.normal(size=(30, 4)), draw.normal(size=(40, 4))) for _ in range(300)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))


def test_equal_sets_are_fully_covered() -> None:
    real = clouds(40, 2, 6)[0]
    result = prdc(real, real.copy())
    assert (result.precision, result.recall, result.coverage) == (1, 1, 1)


# --- by hand


def test_fid_by_hand() -> None:
    # Means 0 and 3, unbiased variances 2 and 8: 9 + 2 + 8 - 2·sqrt(16) = 11.
    assert fid([[-1.0], [1.0]], [[1.0], [5.0]]) == pytest.approx(11)


def test_fid_of_singular_covariances_by_hand() -> None:
    # Variance 2 along x against 2 along y: nothing shared, so 2 + 2 with equal means.
    assert fid([[-1.0, 0.0], [1.0, 0.0]], [[0.0, -1.0], [0.0, 1.0]]) == pytest.approx(4)


@pytest.mark.parametrize("narrow", [1.0, 1e-2, 1e-4, 1e-6, 1e-8, 0.0])
def test_fid_of_two_dimensions_has_a_closed_form(narrow: float) -> None:
    # Of a 2x2 matrix with eigenvalues p and q, (√p + √q)² = p + q + 2 √pq = trace + 2 √determinant.
    real, fake = (x * [1, narrow] for x in clouds(50, 40, 2))
    means, covariances = zip(
        *((x.mean(0), np.cov(x.astype(np.longdouble), rowvar=False)) for x in (real, fake)), strict=True
    )
    (a, b, _, c), (e, f, _, g) = (m.ravel() for m in covariances)
    cross = np.sqrt(a * e + 2 * b * f + c * g + 2 * np.sqrt(max(a * c - b * b, 0) * max(e * g - f * f, 0)))
    expected = np.square(means[0] - means[1]).sum() + a + c + e + g - 2 * cross
    assert fid(real, fake) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize(("fall", "quick"), [(0.0, True), (0.75, True), (1.0, True), (4.0, False)])
def test_both_ways_to_fid_agree(fall: float, quick: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    spectrum = np.arange(1.0, 65) ** -fall
    real, fake = (x * spectrum for x in clouds(300, 200, 64))
    found = []
    monkeypatch.setattr(
        frechet, "_by_eigenvalues", lambda *a, way=frechet._by_eigenvalues: found.append(way(*a)) or found[-1]
    )
    value = fid(real, fake)
    assert (found[0] is not None) is quick
    monkeypatch.setattr(frechet, "_by_eigenvalues", lambda *_: None)
    assert value == pytest.approx(fid(real, fake), rel=1e-10)


def test_what_never_varies_does_not_matter_to_fid() -> None:
    # A dead unit makes both covariances singular however many images there are.
    real, fake = clouds(300, 200, 8)
    still = [np.column_stack([x, np.full(len(x), 3.0), np.zeros(len(x))]) for x in (real, fake)]
    assert fid(*still) == pytest.approx(fid(real, fake), rel=1e-10)


def test_kid_by_hand() -> None:
    # d = 1: k(0,1) = 1 within real, k(1,2) = 27 within fake; across 1, 1, 8, 27, mean 9.25: 1 + 27 - 18.5.
    assert kid([[0.0], [1.0]], [[1.0], [2.0]]) == pytest.approx(9.5)


def test_prdc_by_hand() -> None:
    # Real balls, k = 1: 0±1, 1±1, 3±2; fake balls: 0.5±3.5, 4±3.5, 9±5. Real balls per fake: 2, 1, 0.
    result = prdc([[0.0], [1.0], [3.0]], [[0.5], [4.0], [9.0]], k=1)
    assert result.precision == pytest.approx(2 / 3)
    assert result.recall == pytest.approx(1)
    assert result.density == pytest.approx(1)
    assert result.coverage == pytest.approx(1)


# --- peers


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 16), (40, 30, 64)])
def test_fid_agrees_with_torch_fidelity(n: int, m: int, d: int) -> None:
    peer = pytest.importorskip("torch_fidelity.metric_fid")
    real, fake = clouds(n, m, d)
    with warnings.catch_warnings():  # the peer's square root of a singular matrix complains
        warnings.simplefilter("ignore")
        expected = peer.fid_statistics_to_metric(
            *({"mu": x.mean(0), "sigma": np.cov(x, rowvar=False)} for x in (real, fake)), verbose=False
        )
    assert fid(real, fake) == pytest.approx(expected["frechet_inception_distance"], rel=1e-3)


def test_fid_agrees_with_torchmetrics() -> None:
    peer = pytest.importorskip("torchmetrics.image.fid")
    real, fake = (torch.from_numpy(x) for x in clouds(200, 150, 16))
    expected = peer._compute_fid(real.mean(0), real.T.cov(), fake.mean(0), fake.T.cov())
    assert fid(real.numpy(), fake.numpy()) == pytest.approx(float(expected), rel=1e-3)


@pytest.mark.parametrize("d", [4, 64])
def test_kid_agrees_with_torchmetrics_and_torch_fidelity(d: int) -> None:
    metrics = pytest.importorskip("torchmetrics.image.kid")
    fidelity = pytest.importorskip("torch_fidelity.metric_kid")
    real, fake = clouds(80, 80, d)
    ours = kid(real, fake)
    assert ours == pytest.approx(float(metrics.poly_mmd(torch.from_numpy(real), torch.from_numpy(fake))), rel=1e-6)
    settings = {"kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}
    kernels = [fidelity.kernel_poly(a, b, **settings) for a, b in ((real, real), (real, fake), (fake, fake))]
    assert ours == pytest.approx(float(fidelity.mmd2(*kernels)), rel=1e-6)


def test_kid_of_more_than_one_tile_is_that_of_all_pairs() -> None:
    real, fake = clouds(1100, 530, 4)
    kernels = [(a @ b.T / 4 + 1) ** 3 for a, b in ((real, real), (fake, fake), (real, fake))]
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in kernels[:2]]
    assert kid(real, fake) == pytest.approx(within[0] + within[1] - 2 * kernels[2].mean(), rel=1e-9)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_prdc_agrees_with_its_authors(k: int) -> None:
    peer = pytest.importorskip("prdc")
    real, fake = clouds(120, 90, 12, seed=k)
    expected = peer.compute_prdc(real, fake, nearest_k=k)
    for name, value in prdc(real, fake, k)._asdict().items():
        assert value == pytest.approx(float(expected[name]), rel=1e-6), name


# --- degenerate input


@pytest.mark.parametrize("metric", [fid, kid, prdc])
def test_unfit_pairs_are_named(metric) -> None:
    good = np.random.default_rng(0).normal(size=(10, 4))
    spoilt = good.copy()
    spoilt[3, 1] = np.nan
    with pytest.raises(InputError, match="fake features are not finite in 1 of 10 rows"):
        metric(good, spoilt)
    with pytest.raises(InputError, match="real features hold 1 rows; at least 2"):
        metric(good[:1], good)
    with pytest.raises(InputError, match="4 and 3 columns"):
        metric(good, good[:, :3])
    with pytest.raises(InputError, match=r"shape \(n, d\), not \(10,\)"):
        metric(good[:, 0], good)


@pytest.mark.parametrize("k", [0, 10, 11])
def test_k_out_of_range_is_named(k: int) -> None:
    real, fake = clouds(10, 12, 4)
    with pytest.raises(InputError, match=rf"k \(={k}\) must be at least 1 and less than"):
        prdc(real, fake, k)


# --- distances by matrix products


def brute(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(cdist(x.astype(np.float64), y.astype(np.float64)))


def planted(kind: str, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Sets in which rounding would decide if it could: copies, near copies, ties, and far from the origin."""
    real, fake = clouds(150, 200, d, seed=d)
    draw = np.random.default_rng(1)
    copies = real[np.arange(200) % 5]
    return {
        "plain": (real, fake),
        "repeated": (real, fake[np.arange(200) % 7]),
        "copied from the reference": (real, copies),
        "copied with noise": (real, copies + 1e-7 * draw.normal(size=copies.shape)),
        "copied in float32": (
            real.astype(np.float32),
            (copies + 1e-6 * draw.normal(size=copies.shape)).astype(np.float32),
        ),
        "constant": (real * 0 + 3.1, fake * 0 + 3.1),
        "ties": (np.round(real * 2), np.round(fake * 2)),
        "far from the origin": (real + 1e6, fake + 1e6),
        "huge": (real * 1e30, fake * 1e30),
        "far apart": (real, fake + 1e5),
    }[kind]


KINDS = ("plain", "repeated", "copied from the reference", "copied with noise", "copied in float32", "constant", "ties",
         "far from the origin", "huge", "far apart")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 16, 130])
def test_rounding_decides_nothing(kind: str, d: int) -> None:
    real, fake = planted(kind, d)
    within, own, across = brute(real, real), brute(fake, fake), brute(real, fake)
    real_radius, fake_radius = (np.sort(x, 1)[:, 5] for x in (within, own))
    inside = across < real_radius[:, None]
    expected = (
        inside.any(0).mean(),
        (across < fake_radius).any(1).mean(),
        inside.sum() / (5 * len(fake)),
        inside.any(1).mean(),
    )
    assert tuple(prdc(real, fake)) == pytest.approx(expected, rel=1e-12)
    off = ~np.eye(len(fake), dtype=bool)
    assert pairwise_diversity(fake) == pytest.approx(own[off].mean(), rel=1e-6, abs=1e-300)
    patients = np.arange(150) // 3
    within[patients[:, None] == patients] = np.inf
    np.testing.assert_allclose(nearest_distances(real, patients), within.min(1), rtol=1e-12)
    precise = Neighbours(fake, depth=5)
    np.testing.assert_allclose(precise.distance, np.sort(own + 0 * own, 1)[:, 1:6], rtol=1e-12)


def test_many_columns_take_the_short_cut_to_the_nearest() -> None:
    rows = clouds(900, 2, 20)[0]
    expected = np.sort(brute(rows, rows), 1)
    for precise in (True, False):
        found = Neighbours(rows, depth=12, precise=precise)
        np.testing.assert_allclose(found.distance, expected[:, 1:13], rtol=1e-12)
        np.testing.assert_allclose(brute(rows, rows)[np.arange(900)[:, None], found.index], found.distance, rtol=1e-12)
    with pytest.raises(InputError, match=r"k \(=13\) must be at least 1 and at most depth \(=12\)"):
        found.radius(13)


# --- the report and its intervals


def population(n: int, d: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Images of patients with one to four images each, alike among themselves."""
    patients = np.repeat(np.arange(n), draw.integers(1, 5, n))[:n]
    rows = np.sqrt(0.6) * draw.normal(size=(n, d))[patients] + np.sqrt(0.4) * draw.normal(size=(n, d))
    return rows * np.arange(1, d + 1) ** -0.75, patients


def test_the_report_holds_the_figures_themselves() -> None:
    draw = np.random.default_rng(0)
    real, patients = population(300, 8, draw)
    fake = population(240, 8, draw)[0] + 0.1
    labels, given = np.arange(300) % 3 % 2, np.arange(240) % 2
    report = fidelity_report(
        real, fake, real_patients=patients, real_labels=labels, fake_labels=given, classes=("A", "B"), rounds=50
    )
    for part, a, b in (
        (report["overall"], real, fake),
        *((report["classes"][name], real[labels == c], fake[given == c]) for c, name in enumerate("AB")),
    ):
        assert (part["n_real"], part["n_generated"]) == (len(a), len(b))
        expected = {"fid": fid(a, b), "kid": kid(a, b), **prdc(a, b)._asdict()}
        for name, value in expected.items():
            entry = part["figures"][name]
            assert entry["value"] == pytest.approx(value, rel=1e-8), name
            assert entry["low"] <= value <= entry["high"], name
            assert entry["low"] < entry["high"]
            assert entry["note"] is None
    again = fidelity_report(
        real, fake, real_patients=patients, real_labels=labels, fake_labels=given, classes=("A", "B"), rounds=50
    )
    assert report == again
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert fidelity_report(real, fake, real_patients=patients, rounds=50)["classes"] == {}


def test_a_cached_reference_answers_as_a_fresh_one() -> None:
    draw = np.random.default_rng(1)
    real, first, second = (population(n, 6, draw)[0] for n in (120, 100, 80))
    kept = Reference(real, rounds=40)
    kept.report(first)
    assert kept.report(second) == Reference(real, rounds=40).report(second)


def test_intervals_cover_and_are_not_absurdly_wide() -> None:
    draw = np.random.default_rng(3)
    figures: dict[str, list[list[float]]] = {}
    for repeat in range(40):
        real, patients = population(120, 6, draw)
        report = Reference(real, patients, rounds=60, seed=repeat).report(draw.normal(size=(120, 6)) * 0.5 + 0.2)
        for name, entry in report["overall"]["figures"].items():
            figures.setdefault(name, []).append([entry["value"], entry["low"], entry["high"]])
    for name, rows in figures.items():
        value, low, high = np.array(rows).T
        truth = value.mean()
        assert ((low <= truth) & (truth <= high)).mean() >= 0.85, name
        assert (high - low).mean() / 3.92 < 2.6 * value.std(ddof=1), name


def test_patients_with_many_images_make_wide_intervals() -> None:
    draw = np.random.default_rng(0)
    real = np.repeat(draw.normal(size=(40, 4)), 8, 0) + 0.05 * draw.normal(size=(320, 4))
    fake = draw.normal(size=(300, 4)) + 0.5
    wide = Reference(real, np.arange(320) // 8).report(fake)["overall"]["figures"]
    narrow = Reference(real).report(fake)["overall"]["figures"]
    for name in ("fid", "kid"):
        width = [entry[name]["high"] - entry[name]["low"] for entry in (wide, narrow)]
        assert width[0] > 1.4 * width[1], name


def test_what_is_too_small_to_say_is_not_said() -> None:
    real, fake = clouds(100, 90, 60)
    labels, given = (np.arange(100) < 30).astype(int), (np.arange(90) < 2).astype(int)
    report = fidelity_report(real, fake, real_labels=labels, fake_labels=given, classes=("A", "B", "C"))
    entry = report["overall"]["figures"]["fid"]
    assert entry["note"].startswith("too small to say on its own: 90 images in 60 dimensions, at least 120 are needed")
    assert entry["low"] < entry["value"] < entry["high"]
    assert report["overall"]["figures"]["kid"]["note"] is None
    for name, number in (("B", 30), ("C", 0)):
        entry = report["classes"][name]["figures"]["kid"]
        assert entry["value"] is None, name
        assert f"{number} real and " in entry["note"]
    few = fidelity_report(real[:40], fake)["overall"]["figures"]["coverage"]
    assert few["note"] == "too small to say: 40 images, at least 50 are needed"
    assert few["value"] is not None
    assert few["low"] is None
    one = fidelity_report(real, fake, real_patients=["a"] * 100)["overall"]["figures"]["recall"]
    assert one["note"] == "too small to say: 1 patients, at least 25 are needed"


def test_constant_features_have_figures_without_nan() -> None:
    report = fidelity_report(np.ones((60, 4)), np.ones((60, 4)))["overall"]["figures"]
    assert report["fid"]["value"] == pytest.approx(0, abs=1e-12)
    assert report["kid"]["value"] == pytest.approx(0, abs=1e-9)
    assert (report["precision"]["value"], report["coverage"]["value"]) == (0, 0)  # nothing is nearer than a copy


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rounds": 10}, r"rounds \(=10\) must be at least 40"),
        ({"k": 90}, r"k \(=90\) must be at least 1 and less than"),
        ({"fake_labels": np.zeros(90, int)}, "fake_labels are given but real_labels are not"),
        ({"real_labels": np.zeros(90, int), "classes": ("A",)}, "real_labels must be 100 integers"),
        ({"real_patients": ["a"]}, "patients must be one name a row"),
    ],
)
def test_unfit_reports_are_named(change: dict, sentence: str) -> None:
    real, fake = clouds(100, 90, 4)
    with pytest.raises(InputError, match=sentence):
        fidelity_report(real, fake, **change)


def test_fid_interval_shrinks_with_n_and_agrees_with_fid() -> None:
    widths = []
    for n in (100, 1600):
        real, fake = clouds(n, n, 5)
        value, low, high = fid_interval(real, fake)
        assert value == pytest.approx(fid(real, fake))
        assert low <= value <= high
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.5)
