"""All evidence about a set of synthetic images, in one dictionary that can be written as results.json.

G and its teacher learnt from the training patients, the networks that judge from the judge group, and the images are
held against the reference group; against test patients only if asked, and that is logged. Every section is kept as
soon as it is done, so that an interrupted evaluation goes on.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from expressivegan.atomic import write_text
from expressivegan.data.manifest import GROUPS
from expressivegan.errors import DataError, InputError
from expressivegan.evaluation.plan import Plan, Progress
from expressivegan.evaluation.results import FORMAT, SCHEMA, VERSION, main_figures, of_data, summary
from expressivegan.evaluation.sections import SECTIONS, SUITES, Subject
from expressivegan.evaluation.testlog import NAME, Look, begin_look, check_log, end_look
from expressivegan.intervals import plain
from expressivegan.weights import is_shipped

__all__ = ["SECTIONS", "SUITES", "Evaluation"]

_FITTED = ("judge", "selfsup")


@dataclass
class Evaluation(Subject):
    """One set of synthetic images beside one set of real ones, and all that is measured of them."""

    progress: Progress = lambda done, total, words: None
    """Told (done, total, doing what), of all sections together."""

    def run(self, out: Path, sections: Sequence[str] | None = None) -> dict[str, Any]:
        """Evaluates, keeping each section in `out/parts` so that a second run goes on.

        An evaluation on the test group is appended to `test-evaluations.jsonl` beside the model, or beside `out` where
        the images are none of our models', or of one that comes with the package: before the first section is measured,
        and its figures after the last.

        Args:
            out: an existing folder.
            sections: of `SECTIONS`; default all of the standard suite that the images allow.

        Returns:
            What results.schema.json describes.

        Raises:
            InputError: an unknown section or feature space, a section that needs labels or networks which are
                not there, memorisation on other data than the training's, or test evaluations that could not be
                logged.
            DataError: no section can be measured.
        """
        chosen = self._chosen(sections)
        log = None if self.group != "test" else self._log(out)
        if log is not None:
            check_log(log)
        spaces = list(dict.fromkeys(s for name in chosen for s in SECTIONS[name].spaces(self)))
        costs = {f"fitting {s}": self._fitting_cost(s) for s in spaces}
        plan = Plan(costs | {name: SECTIONS[name].cost(self) for name in chosen}, self.progress)
        self._open(spaces, plan)
        look = None if log is None else self._begin(log)
        found: dict[str, Any] = {}
        left_out: dict[str, str] = {}
        for name in chosen:
            try:
                key = self.key(name)
                part = _kept(out, name, key)
                if part is None:
                    progress = plan.step(name)
                    progress(0, 1, "")
                    part = plain(SECTIONS[name].measure(self, progress))
                    _keep(out, name, key, part)
                    plan.done(name)
                else:
                    plan.skip(name)
            except (InputError, DataError) as error:  # too few images for one section are enough for another
                left_out[name] = str(error)
                plan.skip(name)
                continue
            found[name] = part
        if not found:
            raise DataError("nothing can be measured: " + "; ".join(f"{name}: {why}" for name, why in left_out.items()))
        if look is not None:
            end_look(look, main_figures(found))
        return self._results(found, left_out, look)

    def key(self, section: str) -> str | None:
        """What a section's figures depend on; None where that cannot be known, as of a user's own Python module."""
        identities = {space: self.space(space).identity for space in SECTIONS[section].spaces(self)}
        if None in identities.values():
            return None
        parts = [VERSION, version("expressivegan"), section, self.group, self.seed, self.k, identities]
        parts += [self.data.data_hash, self.data.resolution, self.data.fit, self.made.content_hash]
        if SECTIONS[section].needs_networks and self.networks is not None:
            parts.append(self.networks.hash)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _chosen(self, sections: Sequence[str] | None) -> list[str]:
        lacks = {
            name: "labels, and the images have none"
            if section.needs_labels and self.made.labels is None
            else "networks, and only images are given"
            if section.needs_networks and self.networks is None
            else ""
            for name, section in SECTIONS.items()
        }
        if self.trained_on not in (None, self.data.data_hash):
            lacks["memorisation"] = "the training images, and the data are others (--other-data)"
        if sections is None:
            return [name for name in SUITES["standard"] if not lacks[name]]
        for name in sections:
            if name not in SECTIONS:
                raise InputError(f"sections (={name!r}) must be among {', '.join(SECTIONS)}")
            if lacks[name]:
                raise InputError(f"sections (={name!r}) needs {lacks[name]}; leave it out")
        return [name for name in SECTIONS if name in sections]

    def _fitting_cost(self, space: str) -> float:
        """Half a second an image, roughly, with the recipes that are shipped."""
        return len(self.labels("judge")) / 2 if space in _FITTED else 1.0

    def _open(self, spaces: Sequence[str], plan: Plan) -> None:
        """Opens all feature spaces; whatever is wrong with one that was asked for is said before any is measured."""
        for name in spaces:
            fitted = False
            told = plan.step(f"fitting {name}")

            def fitting(done: int, total: int, words: str, told: Progress = told) -> None:
                nonlocal fitted
                fitted = True
                told(done, total, words)

            try:
                self.space(name, fitting)
            except (InputError, DataError):
                if name in self.spaces:
                    raise  # else a section's own, which will be left out with the reason
            (plan.done if fitted else plan.skip)(f"fitting {name}")

    # --- test evaluations ---------------------------------------------------------------------------------------------

    def _log(self, out: Path) -> Path:
        home = None if self.made.model is None else self.made.model.home
        return (out.absolute().parent if home is None or is_shipped(home) else home) / NAME

    def _begin(self, log: Path) -> Look:
        model = self.made.model
        entry = {
            "hash": self.made.content_hash if model is None else model.hash,
            "kind": "images" if model is None else "model",
            "source": self.made.source,
            "package_version": version("expressivegan"),
            "data_hash": self.data.data_hash,
            "resolution": self.data.resolution,
            "images": len(self.made.images),
            "test": self._count("test"),
            "seed": self.seed,
        }
        return begin_look(log, entry)

    # --- results ------------------------------------------------------------------------------------------------------

    def _count(self, group: str) -> dict[str, int]:
        return {"images": len(self.labels(group)), "patients": len(set(self.patients(group)))}

    def _results(self, found: dict[str, Any], left_out: dict[str, str], look: Look | None) -> dict[str, Any]:
        labels, model = self.made.labels, self.made.model
        counts = None if labels is None else np.bincount(labels, minlength=len(self.data.classes)).tolist()
        return {
            "$schema": SCHEMA,
            "format": FORMAT,
            "version": VERSION,
            "package_version": version("expressivegan"),
            "data": {
                "hash": self.data.data_hash,
                "resolution": self.data.resolution,
                "feature_resolution": self.feature_resolution,
                "fit": self.data.fit,
                "classes": list(self.data.classes),
                "held_against": self.group,
                "groups": {group: self._count(group) for group in GROUPS},
            },
            "generated": {
                "source": self.made.source,
                "hash": self.made.content_hash,
                "model_hash": None if model is None else model.hash,
                "trained_on": self.trained_on,
                "images": len(self.made.images),
                "unusable": {
                    "images": len(self.made.unusable),
                    "examples": [f"{r.path}: {r.reason}" for r in self.made.unusable[:5]],
                },
                "by_class": None if counts is None else dict(zip(self.data.classes, counts, strict=True)),
            },
            "settings": {"seed": self.seed, "k": self.k, "spaces": list(self.spaces)},
            "test_log": None if look is None else {"file": str(look.file), "times": look.times},
            "sections": found,
            "left_out": left_out,
            "summary": [
                *([] if model is None else of_data(model.origin.data_hash, self.data.data_hash)),
                *summary(found, None if look is None else look.times, len(self.made.unusable)),
            ],
        }


def _kept(out: Path, name: str, key: str | None) -> dict[str, Any] | None:
    """A section of an earlier run of the same evaluation; None where there is none that is whole."""
    try:
        stored = json.loads((out / "parts" / f"{name}.json").read_text("utf-8"))
        return dict(stored["found"]) if key is not None and stored["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(out: Path, name: str, key: str | None, part: dict[str, Any]) -> None:
    (out / "parts").mkdir(exist_ok=True)
    write_text(out / "parts" / f"{name}.json", json.dumps({"key": key, "found": part}) + "\n")
