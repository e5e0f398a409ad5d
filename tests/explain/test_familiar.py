"""Warnings for what is no chest X-ray: real ones pass, planted ones do not, and the threshold is what it says."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_images

from expressivegan.data import ImageSet, load_images
from expressivegan.explain import familiar
from expressivegan.explain.baseline import make_baseline
from expressivegan.explain.familiar import Familiarity, conformal, fit_familiarity, views
from expressivegan.teacher import CXR_CAM_Teacher
from tiny import noise, pictures, tiny_teacher


@pytest.fixture(scope="module")
def data() -> ImageSet:
    return load_images("phantom:600", 32, progress=False)


@pytest.fixture(scope="module")
def seer() -> CXR_CAM_Teacher:
    return tiny_teacher()


@pytest.fixture(scope="module")
def known(data: ImageSet, seer: CXR_CAM_Teacher) -> Familiarity:
    found = make_baseline(data, seer, None).familiarity
    assert found is not None
    return found


def warned(known: Familiarity, seer: CXR_CAM_Teacher, images: torch.Tensor) -> float:
    return float(np.mean([v.strange for v in known.judge(seer, images)]))


def photographs(side: int) -> torch.Tensor:
    crops = []
    for picture in load_sample_images().images:
        grey = torch.from_numpy(picture.copy()).float().mean(2)[None, None] / 127.5 - 1
        crops += [F.interpolate(grey[..., y : y + 300, x : x + 300], (side, side), mode="area")
                  for y in (0, 120) for x in (0, 170, 340)]  # fmt: skip
    return torch.cat(crops)


def planted(side: int) -> dict[str, torch.Tensor]:
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    lines = torch.where((y * 14).floor() % 2 == 0, 1.0, torch.sign(noise(8, 1, side, side)))
    return {
        "noise": pictures(8, side),
        "gradients": torch.stack([x, y, (x + y) / 2, -x])[:, None],
        "checkerboards": torch.stack([torch.sign(torch.sin(k * x) * torch.sin(k * y)) for k in (6.0, 13.0, 25.0)])[
            :, None
        ],
        "lines as of text": lines.clamp(-1, 1),
        "a bright disc": torch.where(x**2 + y**2 < 0.4, 0.8, -1.0)[None, None],
        "photographs": photographs(side),
    }


def test_held_out_phantoms_pass(data: ImageSet, seer: CXR_CAM_Teacher, known: Familiarity) -> None:
    # Sixty patients set the threshold: the share that they let pass is itself uncertain by a few percent.
    assert warned(known, seer, data.batch(data.indices("reference"))[0]) <= 0.05


@pytest.mark.parametrize("name", list(planted(32)))
def test_pictures_that_are_no_xrays(seer: CXR_CAM_Teacher, known: Familiarity, name: str) -> None:
    assert warned(known, seer, planted(32)[name]) == 1


def test_turned_and_inverted_ones_are_named(data: ImageSet, seer: CXR_CAM_Teacher, known: Familiarity) -> None:
    x = data.batch(data.indices("reference")[:60])[0]
    for turned, words in (
        (x.rot90(2, (2, 3)), "rotated by 180"),
        (x.rot90(1, (2, 3)), "turned counter-clockwise"),
        (-x, "inverted"),
    ):
        verdicts = known.judge(seer, turned)
        assert np.mean([v.strange for v in verdicts]) >= 0.9, words
        hints = [v.hint for v in verdicts if v.strange]
        assert np.mean([h is not None and words in h for h in hints]) >= 0.8, hints


def test_a_reason_is_a_sentence_about_the_worst_view(seer: CXR_CAM_Teacher, known: Familiarity) -> None:
    strange = known.judge(seer, pictures(1, 32))[0]
    assert strange.reason is not None
    assert f"{strange.distance:.2f} times the threshold" in strange.reason
    assert max(strange.views.values()) == pytest.approx(strange.distance * known.threshold, rel=1e-3)


def test_conformal_by_hand() -> None:
    values = np.arange(99.0, 0, -1)  # 99 of them: the rank is ceil(100 * 0.9)
    assert conformal(values, 0.1) == 90
    assert conformal(values, 0.001) == 99 * 1.25  # too few to promise that
    assert conformal(np.ones(5), 0.2) == 1


def test_the_threshold_keeps_its_promise_whatever_the_distribution() -> None:
    r = np.random.default_rng(0)
    above = [np.mean(r.pareto(1.5, 400) > conformal(r.pareto(1.5, 300), 0.05)) for _ in range(200)]
    assert np.mean(above) == pytest.approx(0.05, abs=0.01)


def test_views_and_threshold_from_the_same_patients_keep_it_nearly() -> None:
    """Of the whole procedure, on laws whose tails differ: what is promised is at most twice `RISK`."""
    r = np.random.default_rng(0)

    def drawn(n: int) -> dict[str, np.ndarray]:
        layout = r.standard_normal((n, 256)) + np.linspace(-1, 1, 256)
        return {"features": r.standard_t(4, (n, 6)), "layout": layout, "statistics": r.standard_normal((n, 14))}

    above = []
    for _ in range(12):
        people = np.arange(300).astype(str)
        known = fit_familiarity(drawn(400), np.zeros(400, np.int64), drawn(300), people)
        assert known is not None
        found = familiar._distances(known.known, known.upright, drawn(400))
        above.append(np.mean(familiar._largest(found) > known.threshold))
    assert 0.001 < np.mean(above) < 2 * familiar.RISK


def test_few_patients_say_nothing(seer: CXR_CAM_Teacher, data: ImageSet) -> None:
    seen = views(seer, data.batch(np.arange(40))[0])
    patients = np.array([f"p{i % 19}" for i in range(40)])
    assert fit_familiarity(seen, data.labels[:40], seen, patients) is None


def test_a_patient_counts_once_by_the_strangest_image(seer: CXR_CAM_Teacher, data: ImageSet) -> None:
    learnt = views(seer, data.batch(data.indices("train"))[0])
    labels = data.labels[data.indices("train")]
    chosen = data.indices("judge")[:60]
    held = views(seer, data.batch(chosen)[0])
    many = {name: np.concatenate([x, np.repeat(x[:1], 500, 0)]) for name, x in held.items()}
    who = np.array([f"p{i}" for i in range(60)] + ["p0"] * 500)
    once, often = fit_familiarity(learnt, labels, held, who[:60]), fit_familiarity(learnt, labels, many, who)
    assert once is not None
    assert often is not None
    assert once.threshold == pytest.approx(often.threshold)


def test_state_round_trip(seer: CXR_CAM_Teacher, known: Familiarity, data: ImageSet) -> None:
    again = Familiarity.from_state(known.to_state())
    x = data.batch(data.indices("reference")[:5])[0]
    assert again.judge(seer, x) == known.judge(seer, x)


@pytest.mark.slow
def test_real_chests_pass_and_planted_ones_do_not(kermany_dir: Path) -> None:
    """The features are an unfitted teacher's: the figures of a fitted one stand in docs/explain.md."""
    real = load_images(kermany_dir / "chest_xray", 64, progress=False)
    seer = tiny_teacher(resolution=64)
    known = make_baseline(real, seer, None).familiarity
    assert known is not None
    chosen = real.indices("reference")
    x = real.batch(chosen)[0]
    strange = np.array([v.strange for v in known.judge(seer, x)])
    people = real.patients[chosen]
    assert np.mean([strange[people == p].any() for p in np.unique(people)]) <= 0.02
    for name, images in planted(64).items():
        assert warned(known, seer, images) == 1, name
    for turned in (x.rot90(1, (2, 3)), x.rot90(2, (2, 3)), -x):
        assert warned(known, seer, turned[:200]) >= 0.95
