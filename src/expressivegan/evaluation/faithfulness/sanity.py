"""How alike maps are, and whether they depend on what the network has learnt, on the class, and on the seed."""

import copy
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from skimage.metrics import structural_similarity
from torch import nn

from expressivegan.errors import InputError
from expressivegan.evaluation.faithfulness.arrays import Floats, check_array, constant
from expressivegan.intervals import Interval, mean_interval
from expressivegan.streams import derive_seed, generator

Network = TypeVar("Network", bound=nn.Module)
_ssim: Callable[..., Any] = structural_similarity  # scikit-image leaves it untyped


class Likeness(NamedTuple):
    """How alike maps are, each with its interval over patients."""

    ssim: Interval
    spearman: Interval


def _unit(maps: Floats) -> Floats:
    """Each map to its own 0..1; a constant one becomes 0."""
    low = maps.min((1, 2), keepdims=True)
    spread = np.ptp(maps, axis=(1, 2), keepdims=True)
    flat = constant(maps)[:, None, None]
    scaled: Floats = np.where(flat, 0.0, (maps - low) / np.where(flat, 1.0, spread))
    return scaled


def ssim(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """Structural similarity of pairs of maps (N, H, W), each scaled to its own 0..1 (Adebayo et al. 2018, section 3).

    Gaussian window of 11 pixels, σ 1.5 (Wang et al. 2004); maps of less than 11 pixels a side must be enlarged first.

    Returns:
        (N,) in [-1, 1]; 1 for equal maps.

    Raises:
        InputError: shapes that differ, NaN, or maps that are too small.
    """
    one, other = _pair(a, b)
    if min(one.shape[1:]) < 11:
        raise InputError(f"maps of {one.shape[1:]} must have sides of 11 pixels at least for SSIM; see `enlarge`")
    options: dict[str, Any] = {"data_range": 1.0, "gaussian_weights": True, "use_sample_covariance": False}
    pairs = zip(_unit(one), _unit(other), strict=True)
    return np.array([_ssim(x, y, **options) for x, y in pairs], np.float64)


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """Spearman's rank correlation of pairs of maps (N, h, w), signed.

    Returns:
        (N,) in [-1, 1]; NaN where a map is constant.

    Raises:
        InputError: shapes that differ, or NaN.
    """
    one, other = _pair(a, b)
    x, y = (rankdata(m.reshape(len(m), -1), axis=1) for m in (one, other))
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    size = np.sqrt((x * x).sum(1) * (y * y).sum(1))
    flat = constant(one) | constant(other)
    found: Floats = np.where(flat, np.nan, (x * y).sum(1) / np.where(flat, 1.0, size))
    return found


def _pair(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Floats, Floats]:
    one, other = check_array(a, "a"), check_array(b, "b")
    if one.shape != other.shape:
        raise InputError(f"a and b must have one shape, not {one.shape} and {other.shape}")
    return one, other


def likeness(a: npt.ArrayLike, b: npt.ArrayLike, patients: Sequence[str], rounds: int = 500) -> Likeness:
    """Mean SSIM and Spearman's correlation of pairs of maps (N, H, W)."""
    who = np.asarray(patients)
    ranks = spearman(a, b)
    known = np.isfinite(ranks)
    return Likeness(
        mean_interval(ssim(a, b), who.tolist(), rounds), mean_interval(ranks[known], who[known].tolist(), rounds)
    )


def random_pairs(maps: npt.ArrayLike, patients: Sequence[str], seed: int = 0, rounds: int = 500) -> Likeness:
    """How alike maps of *different* patients are: what two maps share without showing the same thing.

    Maps that are smooth, or always bright in the middle, are alike whatever they show, so no fixed threshold will do.

    Args:
        maps: (N, H, W).
        patients: N names.
        seed: of the pairs: each map with one of another patient.
        rounds: of the bootstrap.

    Raises:
        InputError: fewer than two patients.
    """
    found, who = check_array(maps), np.asarray(patients)
    if len(set(who.tolist())) < 2:
        raise InputError(f"patients hold {len(set(who.tolist()))} name; maps of two patients at least are needed")
    rng = np.random.default_rng(derive_seed(seed, "faithfulness.pairs"))
    partner = np.array([rng.choice(np.flatnonzero(who != name)) for name in who])
    return likeness(found, found[partner], who.tolist(), rounds)


# --- parameter randomisation


def stages(network: nn.Module) -> list[str]:
    """Names of the parts of a network that hold parameters, from its output to its input; a block counts as one."""
    found: dict[str, None] = {}
    for name, _ in network.named_parameters():
        path = name.rpartition(".")[0]
        block = re.match(r"(?:[^.\d]+\.)*[^.\d]+\.\d+(?=\.)", path)
        found[block.group() if block else path] = None
    return list(found)[::-1]


def randomised(network: Network, parts: Sequence[str], seed: int = 0) -> Network:
    """A copy whose parameters in these parts are drawn anew, from a normal law of the same mean and spread per tensor.

    The scale of what flows through stays, so that what changes is what was learnt.
    """
    made = copy.deepcopy(network)
    draw = generator(seed, "faithfulness.randomise")
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if any(name.startswith(f"{part}.") if part else "." not in name for part in parts):
                spread = parameter.std() if parameter.numel() > 1 else parameter.abs()
                drawn = torch.randn(parameter.shape, generator=draw)
                parameter.copy_(parameter.mean() * (parameter.numel() > 1) + spread * drawn)
    return made


def cascade(
    network: Network,
    explain: Callable[[Network], npt.ArrayLike],
    patients: Sequence[str],
    *,
    steps: int | None = 6,
    seed: int = 0,
    rounds: int = 500,
) -> dict[str, Any]:
    """Cascading parameter randomisation (Adebayo et al., *Sanity Checks for Saliency Maps*, NeurIPS 2018, section 3.1).

    Parts are drawn anew from the output downwards, each step with all before it. A map that stays as it was shows the
    image rather than what the network learnt. It passes when, with everything drawn anew, the mean SSIM to the true map
    is below that of random pairs of maps.

    Args:
        network: left as it is.
        explain: network → maps (N, H, W) of the same N images, best enlarged to the images' size.
        patients: of the N images.
        steps: how many steps are shown, evenly spaced; None for each part.
        seed: of the parameters and of the pairs.
        rounds: of the bootstrap.

    Returns:
        `stages` ({"part", "ssim", "spearman"} each), `random_pairs`, and `passes`.

    Raises:
        InputError: NaN in maps, or fewer than two patients.
    """
    maps = check_array(explain(network))
    pairs = random_pairs(maps, patients, seed, rounds)
    parts = stages(network)
    shown = range(1, len(parts) + 1)
    if steps is not None and steps < len(parts):
        shown = sorted({round(v) for v in np.linspace(1, len(parts), steps)})  # type: ignore[assignment]
    rows = []
    for count in shown:
        found = likeness(maps, explain(randomised(network, parts[:count], seed)), patients, rounds)
        rows.append({"part": parts[count - 1] or "(own)", **found._asdict()})
    passes = bool(rows[-1]["ssim"].value < pairs.ssim.value)
    return {"stages": rows, "random_pairs": pairs._asdict(), "passes": passes}


# --- classes and seeds


def random_logit(
    class_maps: npt.ArrayLike,
    labels: npt.ArrayLike,
    patients: Sequence[str],
    *,
    reference: int | None = None,
    seed: int = 0,
    rounds: int = 500,
) -> dict[str, Any]:
    """Is the map of another class another map? (Sixt, Granz and Landgraf, *When Explanations Lie*, ICML 2020)

    Args:
        class_maps: (N, K, H, W), one map for each class.
        labels: (N,) the class explained.
        patients: N names.
        reference: the class whose referenced map is 0, and so unlike every other: it is never drawn, or one map for all
            other classes would pass.
        seed: of the other class and of the pairs.
        rounds: of the bootstrap.

    Returns:
        `ssim` and `spearman` between the map of the label and that of another class, drawn at random (lower is better),
        `random_pairs` beside them, and `passes`: SSIM below that of random pairs.

    Raises:
        InputError: wrong shapes or labels, or fewer than two classes besides the reference.
    """
    maps, own = np.asarray(class_maps, np.float64), np.asarray(labels)
    kept = np.array([k for k in range(maps.shape[1] if maps.ndim == 4 else 0) if k != reference])
    if len(kept) < 2:
        raise InputError(
            f"class_maps of shape {maps.shape} must be (N, K, H, W) with two classes at least besides the reference"
        )
    if own.shape != (len(maps),) or own.min() < 0 or own.max() >= maps.shape[1]:
        raise InputError(f"labels must be {len(maps)} classes from 0 to {maps.shape[1] - 1}, not {own}")
    if (own == reference).any():
        raise InputError(f"labels must not be the reference ({reference}), whose map is 0; leave such images out")
    rng = np.random.default_rng(derive_seed(seed, "faithfulness.classes"))
    other = kept[(np.searchsorted(kept, own) + rng.integers(1, len(kept), len(own))) % len(kept)]
    rows = np.arange(len(maps))
    found = likeness(maps[rows, own], maps[rows, other], patients, rounds)
    pairs = random_pairs(maps[rows, own], patients, seed, rounds)
    passes = bool(found.ssim.value < pairs.ssim.value)
    return {**found._asdict(), "random_pairs": pairs._asdict(), "passes": passes}


def repeatability(
    maps: Sequence[npt.ArrayLike], patients: Sequence[str], *, seed: int = 0, rounds: int = 500
) -> dict[str, Any]:
    """Do networks of different seeds show the same? Mean over pairs of networks of the likeness of their maps.

    Args:
        maps: of two networks or more, each (N, H, W) of the same images.
        patients: N names.
        seed: of the pairs.
        rounds: of the bootstrap.

    Returns:
        `ssim` and `spearman` (higher is better), `random_pairs` of the first network beside them, and `networks`.

    Raises:
        InputError: fewer than two networks.
    """
    if len(maps) < 2:
        raise InputError(f"maps are of {len(maps)} network; two seeds at least are needed to see what repeats")
    pairs = [(a, b) for i, a in enumerate(maps) for b in maps[i + 1 :]]
    first, second = (np.concatenate([check_array(pair[k]) for pair in pairs]) for k in (0, 1))
    found = likeness(first, second, list(patients) * len(pairs), rounds)
    return {
        **found._asdict(),
        "random_pairs": random_pairs(maps[0], patients, seed, rounds)._asdict(),
        "networks": len(maps),
    }
