"""Results in plain words, and the few figures that stand for all of them."""

from collections.abc import Mapping
from typing import Any

from expressivegan.evaluation import agreement, shortcuts
from expressivegan.evaluation.diversity import LEAST_MADE, LEAST_PATIENTS, LEAST_REAL
from expressivegan.evaluation.testlog import ordinal

FORMAT = "expressivegan-evaluation"
VERSION = 4
"""Rises with every change of the fields, and with it results.schema.json."""
SCHEMA = f"urn:expressivegan:evaluation:{VERSION}"

_FAR_FROM_FLOOR = 3.0  # times
_LOW_RECALL = 0.6  # of the floor
_LOW_DIVERSITY = 0.85  # of real
_MORE_TWINS = 0.05  # share
_QUIET = {"agreement": agreement.QUIET, "shortcuts": shortcuts.QUIET}
"""What it takes to be named as a fault, said where nothing is: small differences stand in the figures all the same."""


def summary(sections: Mapping[str, Any], times: int | None = None, unusable: int = 0) -> list[str]:
    """What the sections say, in plain words, the faults first.

    Args:
        sections: as in the results.
        times: how often the same model has been held against test patients; None where it was not.
        unusable: pictures that were left out.
    """
    good: list[str] = []
    bad: list[str] = []
    if unusable:
        bad.append(
            f"{unusable} synthetic pictures were left out, because they are damaged, one grey everywhere, or the same "
            "under two labels: every figure flatters what made them."
        )
    absent = [label for label, count in sections.get("fidelity", {}).get("counts", {}).items() if count == 0]
    if absent:
        bad.append(
            f"Fidelity knows nothing of {', '.join(absent)}: there is no real image, no synthetic one, or hardly one."
        )
    diversity = sections.get("diversity", {"spaces": {}})
    told = {label for space in diversity["spaces"].values() for label in space}
    untold = [label for label in diversity.get("ms_ssim", {}).get("real", {}) if label not in told]
    if untold:
        bad.append(
            f"Diversity knows nothing of {', '.join(untold)}: that takes {LEAST_MADE} synthetic images, and "
            f"{LEAST_REAL} real ones of {LEAST_PATIENTS} patients."
        )
    for name, space in sections.get("fidelity", {}).get("spaces", {}).items():
        over, place = space["over_floor"], space["place"]
        ratio = "has a floor of 0" if over["fid"] is None else f"is {over['fid']:.1f} times the floor"
        said = f"In the features of {name}, FID {ratio}, {place['fid']}; recall is {place['recall']}."
        faulty = over["fid"] is None or over["fid"] > _FAR_FROM_FLOOR or (over["recall"] or 0) < _LOW_RECALL
        (bad if faulty else good).append(said)
    for name, space in diversity["spaces"].items():
        twins_more = {label: row["duplicate_rate"] - row["duplicate_rate_real"] for label, row in space.items()}
        for label, row in space.items():
            if twins_more[label] > _MORE_TWINS:
                bad.append(
                    f"{label} repeats itself in the features of {name}: {row['duplicate_rate']:.1%} near-twins "
                    f"({row['duplicate_rate_real']:.1%} among real ones); its spread is {row['diversity_ratio']:.2f} "
                    "of real."
                )
            elif row["diversity_ratio"] < _LOW_DIVERSITY:
                bad.append(
                    f"{label} varies too little in the features of {name}: its spread is {row['diversity_ratio']:.2f} "
                    f"of real (below {_LOW_DIVERSITY} is a fault)."
                )
        where = max(twins_more, key=lambda label: twins_more[label], default="")
        if where and 0 < twins_more[where] <= _MORE_TWINS:
            good.append(
                f"{where} has the most near-twins in the features of {name}, {100 * twins_more[where]:.1f} points more "
                f"than real images have ({100 * _MORE_TWINS:.0f} would be named as a fault)."
            )
    for section in ("agreement", "anatomy", "shortcuts", "faithfulness"):
        warnings = [_sentence(w) for w in sections.get(section, {}).get("warnings", ())]
        bad += warnings
        if section in sections and not warnings:
            good.append(f"Nothing stands out in {section}" + (f": {_QUIET[section]}." if section in _QUIET else "."))
    if "memorisation" in sections:
        found = sections["memorisation"]
        (bad if found["suspect"] else good).append(found["verdict"])
    return ([] if times is None else [_looks(times)]) + bad + good


def of_data(trained_on: str | None, data: str) -> list[str]:
    """What must be said of a model's data before any figure; nothing where they are those of the training.

    Args:
        trained_on: hash of the data that the model was trained on, if it is known.
        data: hash of those that it is judged by.
    """
    if trained_on == data:
        return []
    if trained_on is None:
        return [
            "The model does not say which data it was trained on: if on others than these, or on another deal of them, "
            "its training patients stand in every group, and neither memorisation nor any distance can be believed."
        ]
    return [
        f"Held against other data (hash {data[:12]}) than the model was trained on ({trained_on[:12]}): memorisation "
        "cannot be told, and if patients stand in both, the distances flatter."
    ]


def _looks(times: int) -> str:
    if times == 1:
        return "Held against the test patients for the 1st time; further looks make the figures optimistic."
    return (
        f"Held against the test patients for the {ordinal(times)} time: figures of a model, or of settings, that was "
        "chosen by looking are optimistic."
    )


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}" + ("" if words[-1:] in ".?!" else ".")


def main_figures(sections: Mapping[str, Any]) -> dict[str, float | bool | None]:
    """The figures that go into the log of test evaluations, by name."""
    figures: dict[str, float | bool | None] = {}
    for name, space in sections.get("fidelity", {}).get("spaces", {}).items():
        for figure in ("fid", "kid", "recall", "coverage"):
            figures[f"{figure} ({name})"] = space["generated"]["overall"]["figures"][figure]["value"]
        figures[f"fid over floor ({name})"] = space["over_floor"]["fid"]
    if "agreement" in sections:
        whole = sections["agreement"]["figures"]["all"]
        figures["agreement"] = whole["accuracy_fake"]["value"]
        figures["agreement of real images"] = whole["accuracy_real"]["value"]
    if "memorisation" in sections:
        figures["memorisation suspect"] = sections["memorisation"]["suspect"]
        figures["memorisation p"] = sections["memorisation"]["p_value"]
    for name, row in sections.get("faithfulness", {}).get("removal", {}).get("maps", {}).items():
        figures[f"ROAD ({name})"] = row["figures"]["road_combined"]["map"]["value"]
    return figures
