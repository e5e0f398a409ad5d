"""All evidence about a set of synthetic images, in one dictionary that can be written as results.json.

G and its teacher learnt from the training patients, the networks that judge from the judge group, and the images are
held against the reference group; test patients are not touched. Every section is kept as soon as it is done, so that an
interrupted evaluation goes on.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from expressivegan.atomic import write_text
from expressivegan.data import ImageSet
from expressivegan.data.cache import cache_root
from expressivegan.errors import DataError, InputError
from expressivegan.evaluation.agreement import agreement_report
from expressivegan.evaluation.anatomy import anatomy_report
from expressivegan.evaluation.collect import Generated
from expressivegan.evaluation.diversity import diversity_report
from expressivegan.evaluation.draws import draw_mix
from expressivegan.evaluation.features import (
    FeatureSpace,
    JudgeClassifier,
    JudgeRecipe,
    SelfSupervisedRecipe,
    cached_features,
    open_space,
)
from expressivegan.evaluation.fidelity import Reference
from expressivegan.evaluation.ladder import floor_draws, make_ladder, place_on_ladder
from expressivegan.evaluation.memorisation import memorisation_report
from expressivegan.evaluation.shortcuts import shortcut_report
from expressivegan.evaluation.ssim import ssim_diversity

FORMAT = "expressivegan-evaluation"
VERSION = 1
SECTIONS = ("fidelity", "diversity", "agreement", "anatomy", "shortcuts", "memorisation")
"""What can be evaluated. Without labels only fidelity and memorisation can."""
UNLABELLED = ("fidelity", "memorisation")
_BETTER_HIGH = ("precision", "recall", "density", "coverage")
_FLOOR_DRAWS = 3

Progress = Callable[[int, int, str], None]
Ints = npt.NDArray[np.int64]


@dataclass
class Evaluation:
    """One set of synthetic images beside one set of real ones."""

    data: ImageSet
    made: Generated
    spaces: Sequence[str] = ("judge", "selfsup")
    """Names of feature spaces, see `open_space`."""
    seed: int = 0
    k: int = 5
    cache: Path | None = None
    """Folder of fitted networks and computed features; default: within the data cache."""
    judge_recipe: JudgeRecipe | None = None
    selfsup_recipe: SelfSupervisedRecipe | None = None
    progress: Progress = lambda done, total, words: None
    _fitted: dict[str, FeatureSpace] = field(default_factory=dict)

    def __post_init__(self) -> None:
        side = self.data.resolution
        if self.made.images.shape[1:] != (side, side):
            raise InputError(f"images are {self.made.images.shape[1:]}, and the data were loaded at {side} px")
        groups = {name: set(self.data.patients[self.data.indices(name)]) for name in ("train", "judge", "reference")}
        for name, patients in groups.items():
            if not patients:
                raise DataError(f"the group {name} has no patient; deal the data anew: expressivegan data prepare")
        if groups["train"] & groups["reference"] or groups["judge"] & groups["reference"]:
            raise DataError("patients of the reference group stand in another group too: no figure would mean anything")

    # --- what the sections share --------------------------------------------------------------------------------------

    def pixels(self, group: str) -> npt.NDArray[np.uint8]:
        """uint8 (n, H, W) of a group."""
        return np.asarray(self.data.images[self.data.indices(group)])

    def labels(self, group: str) -> Ints:
        """(n,) of a group."""
        return self.data.labels[self.data.indices(group)]

    def patients(self, group: str) -> npt.NDArray[np.str_]:
        """(n,) of a group."""
        return np.asarray(self.data.patients[self.data.indices(group)])

    def space(self, name: str) -> FeatureSpace:
        """A feature space, fitted on the judge group on first use."""
        if name not in self._fitted:
            folder = self.cache or cache_root() / "features"
            images, labels = self.pixels("judge"), self.labels("judge")

            def fitting(done: int, total: int) -> None:
                self.progress(done, total, f"fitting {name}")

            self._fitted[name] = open_space(
                name,
                images=images,
                labels=labels,
                classes=self.data.classes,
                cache=folder,
                seed=self.seed,
                progress=fitting,
                judge_recipe=self.judge_recipe,
                selfsup_recipe=self.selfsup_recipe,
            )
        return self._fitted[name]

    def features(self, name: str, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """float32 (n, d), computed once for the same images."""
        return cached_features(self.space(name), images, self.cache or cache_root() / "features")

    def mix(self) -> tuple[Ints, Ints, list[int]]:
        """Rows of the reference group and of the synthetic set, at equal number and class mix, and the class counts."""
        reference = self.labels("reference")
        if self.made.labels is None:
            n = min(len(reference), len(self.made.images), len(self.labels("train")))
            counts = np.floor(np.bincount(reference) * (n / len(reference))).astype(int).tolist()
            rows = draw_mix(reference, counts, self.seed, "reference")
            drawn = np.random.default_rng(self.seed).permutation(len(self.made.images))[: len(rows)]
            return rows, drawn.astype(np.int64), counts
        classes = len(self.data.classes)
        full = np.bincount(reference, minlength=classes)
        pools = (np.bincount(p, minlength=classes) for p in (self.made.labels, self.labels("train")))
        shares = [float((pool[pool > 0] / np.maximum(full[pool > 0], 1)).min()) for pool in pools]
        share = min(1.0, *shares)
        present = np.bincount(self.made.labels, minlength=classes) > 0
        counts = [int(c * share + 1e-9) if p else 0 for c, p in zip(full, present, strict=True)]
        return (
            draw_mix(reference, counts, self.seed, "reference"),
            draw_mix(self.made.labels, counts, self.seed, "generated"),
            counts,
        )

    # --- sections -----------------------------------------------------------------------------------------------------

    def fidelity(self) -> dict[str, Any]:
        """FID, KID, precision, recall, density, coverage in every space, beside floor and ladder at equal n and mix."""
        ours, theirs, counts = self.mix()
        reference, train = self.pixels("reference")[ours], self.pixels("train")
        train_labels = self.labels("train")
        draws = list(floor_draws(train_labels, counts, _FLOOR_DRAWS, self.seed))
        rest = np.setdiff1d(np.arange(len(train)), draws[0])
        extra = {"extra_images": train[rest], "extra_labels": train_labels[rest]} if len(rest) else {}
        rungs = make_ladder(train[draws[0]], train_labels[draws[0]], self.data.classes, **extra, seed=self.seed)  # type: ignore[arg-type]
        labels = None if self.made.labels is None else self.made.labels[theirs]
        found: dict[str, Any] = {
            "n": len(ours),
            "counts": dict(zip(self.data.classes, counts, strict=True)),
            "spaces": {},
        }
        steps, done = len(self.spaces) * (1 + len(draws) + len(rungs)), 0

        def step(name: str) -> None:
            nonlocal done
            self.progress(done, steps, f"fidelity: {name}")
            done += 1

        for name in self.spaces:
            real = Reference(
                self.features(name, reference),
                self.patients("reference")[ours],
                self.labels("reference")[ours],
                self.data.classes,
                k=self.k,
                seed=self.seed,
            )
            step(name)
            made = real.report(self.features(name, self.made.images[theirs]), labels)
            floor = []
            for draw in draws:
                step(f"{name}, floor")
                floor.append(_values(real.report(self.features(name, train[draw]))))
            best = {figure: float(np.mean([f[figure] for f in floor])) for figure in floor[0]}
            ladder = {}
            for rung, (images, _) in rungs.items():
                step(f"{name}, {rung}")
                ladder[rung] = _values(real.report(self.features(name, images)))
            own = _values(made)
            known = {"real, other patients": best, **ladder}
            place = {
                figure: place_on_ladder(
                    value,
                    {rung: values[figure] for rung, values in known.items()},
                    higher_is_better=figure in _BETTER_HIGH,
                )
                for figure, value in own.items()
            }
            found["spaces"][name] = {
                "identity": self.space(name).identity,
                "generated": made,
                "floor": best,
                "ladder": ladder,
                "place": place,
                "over_floor": {f: own[f] / best[f] if best[f] > 0 else None for f in own},
            }
        return found

    def diversity(self) -> dict[str, Any]:
        """Distances, near-twins and MS-SSIM within each class, beside those of real images."""
        assert self.made.labels is not None
        real, labels, patients = self.pixels("reference"), self.labels("reference"), self.patients("reference")
        found: dict[str, Any] = {"spaces": {}}
        for done, name in enumerate(self.spaces):
            self.progress(done, len(self.spaces) + 1, f"diversity: {name}")
            ours, theirs = self.features(name, real), self.features(name, self.made.images)
            arguments = (ours, theirs, labels, self.made.labels, self.data.classes)
            found["spaces"][name] = diversity_report(*arguments, patients=patients, seed=self.seed)
        self.progress(len(self.spaces), len(self.spaces) + 1, "diversity: MS-SSIM")
        classes = self.data.classes
        found["ms_ssim"] = {
            "real": ssim_diversity(real, labels, classes, patients=patients, seed=self.seed),
            "generated": ssim_diversity(self.made.images, self.made.labels, classes, seed=self.seed),
        }
        return found

    def agreement(self) -> dict[str, Any]:
        """Whether an independent classifier sees the label that was asked for, beside its accuracy on real images."""
        assert self.made.labels is not None
        judge = self.space("judge")
        assert isinstance(judge, JudgeClassifier)
        real, made = self.pixels("reference"), self.made.images
        report = agreement_report(
            judge.classify(self.features("judge", real)).astype(np.float64),
            self.labels("reference"),
            self.patients("reference"),
            judge.classify(self.features("judge", made)).astype(np.float64),
            self.made.labels,
            self.data.classes,
            seed=self.seed,
        )
        return report.as_json()

    def anatomy(self) -> dict[str, Any]:
        """Landmarks of synthetic against real chests."""
        assert self.made.labels is not None
        report = anatomy_report(
            self.pixels("reference"),
            self.made.images,
            real_labels=self.labels("reference"),
            fake_labels=self.made.labels,
            classes=self.data.classes,
            real_patients=self.patients("reference"),
            seed=self.seed,
        )
        return report.as_json()

    def shortcuts(self) -> dict[str, Any]:
        """Whether frame and geometry tell the label more than they do in real images."""
        assert self.made.labels is not None
        report = shortcut_report(
            self.pixels("reference"),
            self.labels("reference"),
            self.patients("reference"),
            self.made.images,
            self.made.labels,
            self.data.classes,
            seed=self.seed,
        )
        return report.as_json()

    def memorisation(self) -> dict[str, Any]:
        """Whether training patients are nearer to the synthetic images than other patients of the same source are."""
        held = np.sort(np.concatenate([self.data.indices("judge"), self.data.indices("reference")]))
        report = memorisation_report(
            self.made.images,
            self.pixels("train"),
            np.asarray(self.data.images[held]),
            training_patients=self.patients("train").tolist(),
            heldout_patients=np.asarray(self.data.patients[held]).tolist(),
            labels=(self.labels("train"), self.data.labels[held]),
            seed=self.seed,
            progress=lambda done, of, what: self.progress(done, of, f"memorisation: {what}"),
        )
        return report.to_dict()

    # --- all of it ----------------------------------------------------------------------------------------------------

    def key(self) -> str:
        """What the results depend on."""
        parts = [VERSION, version("expressivegan"), self.data.data_hash, self.data.resolution, self.data.fit]
        parts += [self.made.content_hash, *self.spaces, self.seed, self.k]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def run(self, out: Path, sections: Sequence[str] | None = None) -> dict[str, Any]:
        """Evaluates, keeping each section in `out/parts` so that a second run goes on.

        Args:
            out: an existing folder.
            sections: of `SECTIONS`; default all that the images allow.

        Raises:
            InputError: an unknown section, or one that needs labels which the images lack.
        """
        able = SECTIONS if self.made.labels is not None else UNLABELLED
        chosen = list(able if sections is None else sections)
        for name in chosen:
            if name not in SECTIONS:
                raise InputError(f"sections (={name!r}) must be among {', '.join(SECTIONS)}")
            if name not in able:
                raise InputError(f"sections (={name!r}) needs labels, and the images have none; leave it out")
        found: dict[str, Any] = {}
        left_out: dict[str, str] = {}
        for name in chosen:
            part = self._kept(out, name)
            if part is None:
                try:
                    part = _plain(getattr(self, name)())
                except (InputError, DataError) as error:  # too few images for one section are enough for another
                    left_out[name] = str(error)
                    continue
                (out / "parts").mkdir(exist_ok=True)
                write_text(out / "parts" / f"{name}.json", json.dumps({"key": self.key(), "found": part}) + "\n")
            found[name] = part
        if not found:
            raise InputError("; ".join(f"{name}: {why}" for name, why in left_out.items()))
        labels = self.made.labels
        return {
            "format": FORMAT,
            "version": VERSION,
            "package_version": version("expressivegan"),
            "data": {
                "hash": self.data.data_hash,
                "resolution": self.data.resolution,
                "fit": self.data.fit,
                "classes": list(self.data.classes),
                "groups": {
                    g: {"images": len(self.data.indices(g)), "patients": len(set(self.patients(g)))}
                    for g in ("train", "judge", "reference")
                },
            },
            "generated": {
                "source": self.made.source,
                "hash": self.made.content_hash,
                "images": len(self.made.images),
                "by_class": None
                if labels is None
                else {c: int((labels == k).sum()) for k, c in enumerate(self.data.classes)},
            },
            "settings": {"seed": self.seed, "k": self.k, "spaces": list(self.spaces)},
            "sections": found,
            "left_out": left_out,
            "summary": summary(found),
        }

    def _kept(self, out: Path, name: str) -> dict[str, Any] | None:
        try:
            stored = json.loads((out / "parts" / f"{name}.json").read_text("utf-8"))
            return dict(stored["found"]) if stored["key"] == self.key() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def summary(found: Mapping[str, Any]) -> list[str]:
    """What the sections say, in plain words, the faults first."""
    good: list[str] = []
    bad: list[str] = []
    for name, space in found.get("fidelity", {}).get("spaces", {}).items():
        over, place = space["over_floor"], space["place"]
        said = f"In the features of {name}, FID is {over['fid']:.1f} times the floor, {place['fid']}"
        said += f"; recall is {place['recall']}."
        (bad if over["fid"] > 3 or (over["recall"] or 0) < 0.6 else good).append(said)
    for name, space in found.get("diversity", {}).get("spaces", {}).items():
        for label, row in space.items():
            if row["diversity_ratio"] < 0.85 or row["duplicate_rate"] > row["duplicate_rate_real"] + 0.05:
                bad.append(
                    f"{label} repeats itself in the features of {name}: diversity {row['diversity_ratio']:.2f} of "
                    f"real, {row['duplicate_rate']:.0%} near-twins ({row['duplicate_rate_real']:.0%} among real ones)."
                )
    for section in ("agreement", "anatomy", "shortcuts"):
        bad += list(found.get(section, {}).get("warnings", ()))
        if section in found and not found[section].get("warnings"):
            good.append(f"Nothing stands out in {section}.")
    if "memorisation" in found:
        (bad if found["memorisation"]["flagged"] else good).append(found["memorisation"]["verdict"])
    return bad + good


def _values(report: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(entry["value"]) if entry["value"] is not None else math.nan
        for name, entry in report["overall"]["figures"].items()
    }


def _plain(value: Any) -> Any:
    """Numbers, strings, lists and dicts that JSON knows; NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (bool, str)) or value is None:
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
