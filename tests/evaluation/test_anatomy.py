"""Landmarks against the geometry that phantoms were drawn from, and a report that planted faults cannot pass."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from sklearn.metrics import roc_auc_score

from benchmark_module import benchmark
from expressivegan.data import load_images, phantom
from expressivegan.errors import CheckpointError, InputError, OfflineError
from expressivegan.evaluation.anatomy import (
    MEASURES,
    QUANTILES,
    AnatomyReport,
    Landmarks,
    Masks,
    PSPNetMasks,
    anatomy_report,
    draw_landmarks,
    landmarks,
    pspnet,
)
from expressivegan.evaluation.anatomy import report as report_module
from expressivegan.evaluation.anatomy.cheats import spoil

Pixels = np.ndarray
CLASSES = phantom.CLASSES
N = 160


@pytest.fixture(scope="module")
def drawn() -> Pixels:
    """Healthy phantoms: their lungs are where the geometry says."""
    return phantom.draw_batch(range(N), ["NORMAL"] * N)[0]


@pytest.fixture(scope="module")
def measured(drawn: Pixels) -> Landmarks:
    return landmarks(drawn)


@pytest.fixture(scope="module")
def truth() -> dict[str, np.ndarray]:
    """Shares of the frame, from the phantom's own geometry."""
    found: dict[str, np.ndarray] = benchmark("anatomy").phantom_truth(N)
    return found


def halves(images: Pixels) -> tuple[Pixels, Pixels]:
    return images[: len(images) // 2], images[len(images) // 2 :]


def report(real: Pixels, fake: Pixels, **known: Landmarks) -> AnatomyReport:
    """One class, every image a patient of its own."""
    return anatomy_report(
        real,
        fake,
        real_labels=np.zeros(len(real), int),
        fake_labels=np.zeros(len(fake), int),
        classes=["NORMAL"],
        real_patients=np.arange(len(real)).astype(str),
        rounds=100,
        **known,
    )


# --- landmarks


@pytest.mark.parametrize(
    ("name", "least", "bias"),
    [
        ("right_lung", 0.95, 0.03),
        ("left_lung", 0.92, 0.03),
        ("ctr", 0.85, 0.04),
        ("thorax_width", 0.95, 0.05),
        ("midline", 0.85, 0.015),
    ],
)
def test_landmarks_follow_the_geometry(
    measured: Landmarks, truth: dict[str, np.ndarray], name: str, least: float, bias: float
) -> None:
    found = getattr(measured, name)
    known = np.isfinite(found)
    assert known.mean() > 0.97
    assert np.corrcoef(found[known], truth[name][known])[0, 1] > least
    assert abs((found - truth[name])[known].mean()) < bias


def test_flipped_phantoms_are_called_flipped(drawn: Pixels, measured: Landmarks) -> None:
    flipped = landmarks(drawn[:, :, ::-1])
    assert (measured.heart_shift > 0).mean() >= 0.95
    assert (flipped.heart_shift < 0).mean() >= 0.95
    np.testing.assert_allclose(flipped.right_lung, measured.left_lung, atol=1e-3)


def test_flipped_real_images_are_called_flipped(kermany_dir: Path) -> None:
    data = load_images(kermany_dir / "chest_xray", 64, progress=False)
    found = landmarks(data.images[data.indices("judge")[::6]])
    shift = found.heart_shift[np.isfinite(found.heart_shift)]
    assert found.found.mean() > 0.85
    assert (shift > 0).mean() > 0.9
    assert roc_auc_score(np.repeat([1, 0], len(shift)), np.concatenate([shift, -shift])) > 0.95


def test_size_and_exposure_do_not_matter(drawn: Pixels, measured: Landmarks) -> None:
    large = np.stack([ndimage.zoom(x, 2, order=1) for x in drawn[:30]])
    pale = (drawn[:30] * 0.6 + 50).astype(np.uint8)
    for changed in (landmarks(large), landmarks(pale)):
        assert np.nanmean(np.abs(changed.ctr - measured.ctr[:30])) < 0.03
        assert np.nanmean(np.abs(changed.right_lung - measured.right_lung[:30])) < 0.01


def test_an_image_is_measured_by_itself(drawn: Pixels, measured: Landmarks) -> None:
    alone = landmarks(drawn[70:71])
    for name in MEASURES:
        np.testing.assert_allclose(getattr(alone, name), getattr(measured, name)[70:71], rtol=1e-5, err_msg=name)


def test_tilt_and_upside_down_are_seen(drawn: Pixels, measured: Landmarks) -> None:
    turned = landmarks(spoil(drawn[:40], "rotated"))
    assert np.nanmean(turned.tilt) > np.nanmean(measured.tilt) + 10
    assert np.nanmin(landmarks(drawn[:40, ::-1]).taper) > np.nanmedian(measured.taper)


@pytest.mark.parametrize("fill", [0, 77, 255, "noise"])
def test_no_chest_no_number(fill: int | str) -> None:
    shape = (5, 64, 64)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = landmarks(noise if fill == "noise" else np.full(shape, fill, np.uint8))
    assert not (found.found_right | found.found_left).any()
    for name in set(MEASURES) - {"confidence", "body"}:
        assert np.isnan(getattr(found, name)).all(), name


def test_white_lung_is_missing_not_small(drawn: Pixels) -> None:
    found = landmarks(spoil(drawn[:40], "white lung"))
    assert found.found_left.mean() < 0.05
    assert found.found_right.mean() > 0.9
    assert np.isnan(found.ctr[~found.found]).all()


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 64, 64)),
        np.zeros((2, 64, 64, 3), np.uint8),
        np.zeros((0, 64, 64), np.uint8),
        np.zeros((2, 8, 8), np.uint8),
        [1],
    ],
)
def test_other_input_is_refused(images: Pixels) -> None:
    with pytest.raises(InputError, match="images"):
        landmarks(images)


# --- the report


def test_distances_are_scipys() -> None:
    draw = np.random.default_rng(0)
    values = np.concatenate([draw.normal(size=50), draw.normal(0.5, 2, 70)]).round(1)
    first, second = draw.random((2, 3, 120)) < [[[0.5]], [[0.3]]]
    wasserstein, gap = report_module.distances(values, first, second)
    for i in range(3):
        a, b = values[first[i]], values[second[i]]
        assert wasserstein[i] == pytest.approx(stats.wasserstein_distance(a, b), rel=1e-9)
        assert gap[i] == pytest.approx(stats.ks_2samp(a, b).statistic, rel=1e-9)
    np.testing.assert_allclose(report_module.distances(values, first, first), 0, atol=1e-12)


def test_ranges_are_numpys_percentiles() -> None:
    draw = np.random.default_rng(0)
    table, masks = draw.normal(size=(90, 3)).round(1), draw.random((4, 90)) < 0.4
    table[::7, 0], table[:, 1] = np.nan, np.nan
    masks[3] = False
    low, high = report_module._ranges(table, masks)
    for i in range(3):
        np.testing.assert_allclose((low[i, 0], high[i, 0]), np.nanpercentile(table[masks[i], 0], [0.5, 99.5]))
        np.testing.assert_allclose((low[i, 2], high[i, 2]), np.percentile(table[masks[i], 2], [0.5, 99.5]))
    assert (low[3] == -np.inf).all()
    assert (high[:, 1] == np.inf).all()


def test_other_children_pass(drawn: Pixels) -> None:
    found = report(*halves(drawn))
    assert found.warnings == ()
    shift = found.figures["all"]["landmarks"]["heart_shift"]
    assert shift["wasserstein"] < shift["wasserstein_limit"]
    assert shift["real"].low < shift["real"].value < shift["real"].high
    json.dumps(found.as_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("name", "violation", "landmark"),
    [
        ("flipped", "heart_wrong_side", "heart_shift"),
        ("rotated", "out_of_range", "tilt"),
        ("shifted", "out_of_range", "midline"),
        ("heartless", "out_of_range", "heart_shift"),
        ("white lung", "one_lung_missing", "confidence"),
        ("stretched", "out_of_range", "body"),
        ("upside down", "out_of_range", "taper"),
        ("noise", "not_found", "confidence"),
        ("averages", None, "confidence"),
    ],
)
def test_cheats_are_exposed(drawn: Pixels, name: str, violation: str | None, landmark: str) -> None:
    real, other = halves(drawn)
    found = report(real, spoil(other, name))
    figures = found.figures["all"]
    assert found.warnings
    assert figures["landmarks"][landmark]["differs"]
    if violation is not None:
        assert figures["violations"][violation]["differs"]
        assert any(found.reasons)


def test_known_landmarks_are_not_measured_again(drawn: Pixels, measured: Landmarks) -> None:
    real, other = halves(drawn)
    known = {"real_landmarks": measured.take(np.arange(80)), "fake_landmarks": measured.take(np.arange(80, 160))}
    found = report(np.zeros_like(real), np.zeros_like(other), **known)  # blank images: they are not looked at
    assert found.as_json() == report(real, other).as_json()
    row = found.figures["all"]["landmarks"]["ctr"]
    np.testing.assert_allclose(row["fake_quantiles"], np.nanquantile(measured.ctr[80:], QUANTILES))
    for name in known:
        with pytest.raises(InputError, match=f"{name} are of 160 images, .* holds 80"):
            report(real, other, **known | {name: measured})


def test_an_unknown_cheat_is_refused(drawn: Pixels) -> None:
    with pytest.raises(InputError, match="one of flipped, rotated"):
        spoil(drawn[:2], "stolen")


def test_a_few_bad_ones_come_first(drawn: Pixels) -> None:
    real, other = halves(drawn)
    fake = other.copy()
    fake[[3, 40]] = spoil(other[:2], "noise")
    fake[7] = other[7, :, ::-1]
    found = report(real, fake)
    assert set(found.worst[:2]) == {3, 40}
    assert 7 in found.worst[:6]
    assert found.reasons[0] == "not found"


def test_class_mix_alone_is_no_fault(drawn: Pixels) -> None:
    real, other = halves(drawn)
    turned = [spoil(x, "flipped") for x in (real, other)]
    found = anatomy_report(
        np.concatenate([real, turned[0]]),
        np.concatenate([other, turned[1][:30]]),
        real_labels=np.repeat([0, 1], 80),
        fake_labels=np.repeat([0, 1], [80, 30]),
        classes=["A", "B"],
        real_patients=np.arange(160).astype(str),
        rounds=50,
    )
    assert not any("heart" in w for w in found.warnings)
    turns = found.figures["all"]["landmarks"]["heart_shift"]
    assert turns["spread_ratio"] == pytest.approx(1, abs=0.06)  # 0.89 if each image counted as much
    assert set(found.figures) == {"all", "A", "B"}


def test_too_few_and_wrong_labels_are_refused(drawn: Pixels) -> None:
    with pytest.raises(InputError, match="class NORMAL has 5 real images"):
        report(drawn[:5], drawn)
    for change in ({"fake_labels": [7] * 40}, {"real_labels": [0]}, {"real_patients": ["a"]}, {"rounds": 0}):
        given = {
            "real_labels": np.zeros(40, int),
            "fake_labels": np.zeros(40, int),
            "classes": ["NORMAL"],
            "real_patients": np.arange(40),
        } | change
        with pytest.raises(InputError, match=next(iter(change))):
            anatomy_report(drawn[:40], drawn[40:80], **given)


# --- drawing and another source of masks


def test_drawing(drawn: Pixels) -> None:
    picture = draw_landmarks(drawn[:4], ["a"] * 4, columns=2)
    assert picture.shape == (386, 386, 3)
    assert (picture[..., 0] != picture[..., 1]).any()


def test_masks_of_another_source_are_measured() -> None:
    y, x = np.mgrid[:64, :64]
    right, left = (x >= 8) & (x < 26) & (y >= 10) & (y < 50), (x >= 42) & (x < 56) & (y >= 10) & (y < 50)
    heart = (x >= 26) & (x < 42) & (y >= 20) & (y < 50)
    image = np.where(right | left, 60, 200).astype(np.uint8)
    found = landmarks(image[None], lambda images: Masks(*(np.stack([m] * len(images)) for m in (right, left, heart))))
    assert found.right_lung[0] == pytest.approx(18 * 40 / 4096, abs=0.02)
    assert found.thorax_width[0] == pytest.approx(48 / 64, abs=0.03)
    assert found.ctr[0] == pytest.approx(16 / 48, abs=0.05)


def test_pspnet_offline_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchxrayvision.utils.download", fail)
    with pytest.raises(OfflineError, match=r"save https://.*pspnet.*pth as .*pspnet_chestxray_best_model_4\.pth"):
        PSPNetMasks(tmp_path / "new")


def test_pspnet_reads_the_official_format_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(torch.nn.Module):  # the real network has 68 million weights
        def __init__(self, outputs: int) -> None:
            super().__init__()
            self.head = torch.nn.Conv2d(3, outputs, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x)

    xrv, _ = pspnet._library()
    monkeypatch.setattr(pspnet, "_library", lambda: (xrv, Small))
    network = Small(14)
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.constant_(network.head.bias, -1)
    network.head.bias.data[pspnet.TARGETS.index("Heart")] = 1
    file = tmp_path / "pspnet_chestxray_best_model_4.pth"
    torch.save({f"module.{k}": v for k, v in network.state_dict().items()}, file)
    masks = PSPNetMasks(tmp_path)(np.zeros((2, 40, 40), np.uint8))
    assert masks.heart.all()
    assert not masks.right_lung.any()
    file.with_suffix(".safetensors").unlink()
    torch.save({"module.head.weight": Path}, file)  # a class: the restricted unpickler refuses
    with pytest.raises(CheckpointError, match="not torchxrayvision's PSPNet file"):
        PSPNetMasks(tmp_path)
