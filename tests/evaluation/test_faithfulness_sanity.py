"""Sanity checks of maps, with networks that do, and do not, deserve to pass."""

import numpy as np
import pytest
import torch
from torch import nn

from expressivegan.errors import InputError
from expressivegan.evaluation.faithfulness import cascade, random_logit, random_pairs, repeatability, spearman, ssim
from expressivegan.evaluation.faithfulness.sanity import randomised, stages
from tiny import tiny_discriminator, tiny_teacher

WHO = [str(i // 2) for i in range(12)]


def smooth(n: int, seed: int, size: int = 16) -> np.ndarray:
    draw = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(draw, size, mode="bilinear")[:, 0].double().numpy()


# --- likeness


def test_likeness_by_hand() -> None:
    maps = smooth(3, 0)
    np.testing.assert_allclose(ssim(maps, 5 * maps - 2), 1)  # each is scaled to its own range
    np.testing.assert_allclose(spearman(maps, maps**3), 1)
    np.testing.assert_allclose(spearman(maps, -maps), -1)
    ranks = spearman(np.array([[[1.0, 2], [3, 4]]]), np.array([[[1.0, 3], [2, 4]]]))
    assert ranks[0] == pytest.approx(0.8)  # 1 - 6 * (1 + 1) / (4 * 15)
    flat = np.ones((3, 16, 16))
    assert np.isnan(spearman(maps, flat)).all()
    np.testing.assert_allclose(ssim(flat, 2 * flat), 1)


def test_likeness_against_torchmetrics() -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure

    maps = [smooth(4, seed, 32) for seed in (1, 2)]
    unit = [(m - m.min((1, 2), keepdims=True)) / np.ptp(m, axis=(1, 2), keepdims=True) for m in maps]
    pair = (torch.from_numpy(m)[:, None] for m in unit)
    _, full = structural_similarity_index_measure(*pair, data_range=1.0, reduction="none", return_full_image=True)
    inner = full[:, 0, 5:-5, 5:-5].mean((1, 2))  # its own mean counts a padded rim as well, unlike Wang et al.
    np.testing.assert_allclose(ssim(*maps), inner, atol=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (np.ones((1, 8, 8)), np.ones((1, 8, 8)), "11 pixels at least"),
        (np.ones((1, 16, 16)), np.ones((2, 16, 16)), "one shape"),
        (np.full((1, 16, 16), np.nan), np.ones((1, 16, 16)), r"a\[0\] holds NaN"),
    ],
)
def test_likeness_refuses(a: np.ndarray, b: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ssim(a, b)


def test_pairs_need_two_patients() -> None:
    with pytest.raises(InputError, match="hold 1 name"):
        random_pairs(smooth(3, 0), ["a", "a", "a"])


# --- parameters, classes, seeds


class Weights(nn.Module):
    """Two layers whose weights, taken together, are the map."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 16), nn.Linear(16, 16)
        self.blocks = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))


def test_parts_go_from_the_output_to_the_input_and_blocks_count_once() -> None:
    assert stages(Weights()) == ["blocks.0", "last", "first"]
    assert stages(tiny_teacher())[0] == "backbone.classifier"
    assert len(set(stages(tiny_discriminator()))) == len(stages(tiny_discriminator()))
    assert "" in stages(tiny_discriminator())  # the weights of places belong to the network itself


def test_randomising_changes_the_named_parts_alone_and_keeps_their_scale() -> None:
    network = Weights()
    made = randomised(network, ["last"])
    assert not torch.equal(made.last.weight, network.last.weight)
    assert torch.equal(made.first.weight, network.first.weight)
    assert float((made.last.weight.std() / network.last.weight.std()).detach()) == pytest.approx(1, abs=0.15)
    assert torch.equal(randomised(network, ["last"]).last.weight, made.last.weight)
    assert not torch.equal(randomised(network, ["last"], seed=1).last.weight, made.last.weight)


def test_an_edge_detector_fails_randomisation_and_a_map_of_the_weights_passes() -> None:
    images = smooth(12, 3)

    def learnt(network: Weights) -> np.ndarray:
        both = (network.first.weight @ network.last.weight).detach().double().numpy()
        return images * both + 0 * images

    torch.manual_seed(0)
    network = Weights()
    before = network.first.weight.clone()
    good = cascade(network, lambda w: np.roll(learnt(w), 1, 0), WHO, rounds=50)
    edges = cascade(network, lambda w: images, WHO, rounds=50)
    assert good["passes"]
    assert not edges["passes"]
    assert edges["stages"][-1]["ssim"].value == pytest.approx(1)
    assert good["stages"][0]["ssim"].value == pytest.approx(1)  # the first part has no say in the map
    assert good["stages"][-1]["ssim"].value < 0.5
    assert torch.equal(network.first.weight, before)
    assert [row["part"] for row in good["stages"]] == ["blocks.0", "last", "first"]


def test_random_logit_tells_maps_of_a_class_from_one_map_for_all() -> None:
    own = np.stack([smooth(12, seed) for seed in (4, 5, 6)], 1)
    one = np.repeat(own[:, :1], 3, 1)
    labels = np.arange(12) % 3
    good, bad = (random_logit(maps, labels, WHO, rounds=50) for maps in (own, one))
    assert bad["ssim"].value == pytest.approx(1)
    assert not bad["passes"]
    assert good["spearman"].value < 0.5
    cheat = np.stack([0 * own[:, 0], own[:, 0], own[:, 0]], 1)  # the reference's map is 0, one map for all others
    found = random_logit(cheat, 1 + np.arange(12) % 2, WHO, reference=0, rounds=50)
    assert found["ssim"].value == pytest.approx(1)
    assert not found["passes"]
    for reference in (0, 2):
        diseases = [k for k in range(3) if k != reference]
        kept = random_logit(own, np.array(diseases * 6), WHO, reference=reference, rounds=50)
        one, other = own[np.arange(12), diseases * 6], own[np.arange(12), diseases[::-1] * 6]
        assert kept["ssim"].value == pytest.approx(ssim(one, other).mean())  # of two there is one other
    with pytest.raises(InputError, match="besides the reference"):
        random_logit(own[:, :2], np.ones(12, int), WHO, reference=0)
    with pytest.raises(InputError, match="labels must not be the reference"):
        random_logit(own, labels, WHO, reference=0)
    with pytest.raises(InputError, match="two classes at least"):
        random_logit(own[:, :1], labels, WHO)
    with pytest.raises(InputError, match="labels must be 12 classes from 0 to 2"):
        random_logit(own, labels + 1, WHO)


def test_repeatability_is_the_mean_over_pairs_of_networks() -> None:
    a, b = smooth(12, 7), smooth(12, 8)
    found = repeatability([a, a, b], WHO, rounds=50)
    mixed = float(np.mean(spearman(a, b)))
    assert found["spearman"].value == pytest.approx((1 + 2 * mixed) / 3)
    assert found["networks"] == 3
    with pytest.raises(InputError, match="two seeds at least"):
        repeatability([a], WHO)
