"""What the figures of a faithfulness report say, in sentences: only what is wrong."""

from collections.abc import Iterator, Mapping
from typing import Any

Json = Mapping[str, Any]
_KEY_FIGURES = {
    "truth": ("pointing_game", "whether its peak lies in a known lesion"),
    "removal": ("road_combined", "what an independent classifier needs (ROAD)"),
}
_LEAST_MASS = 0.8
"""Of M in the region that it changed."""
_LEAST_RATIO = 3.0
"""How many times as far covering the highest evidence must move the score as covering random cells."""
_LARGEST_ERROR = 1e-5


def warnings_of(found: Json) -> list[str]:
    """One sentence for each map that shows no more than maps which know nothing, or that fails a check.

    Args:
        found: what `faithfulness_section` returns, as JSON.
    """
    return [*_beside_controls(found), *_sanity(found), *_evidence(found), *_generator(found)]


def better(row: Json) -> bool:
    """Whether a map is better than the best control beyond chance: the interval of the difference is above 0."""
    low = row["difference"]["low"]
    return low is not None and low > 0


def _beside_controls(found: Json) -> Iterator[str]:
    for part, (figure, words) in _KEY_FIGURES.items():
        for name, report in found.get(part, {}).get("maps", {}).items():
            row = report["figures"][figure]
            if not better(row):
                yield (
                    f"The map of {name} is not better than {row['best_control']} at {words}: "
                    f"{row['map']['value']:.2f} against {row['controls'][row['best_control']]['value']:.2f}."
                )


def _sanity(found: Json) -> Iterator[str]:
    """What fails beyond chance: where maps of two patients are as unlike as any, no map can be far below them."""
    checks = {
        "parameter_randomisation": "with all of the teacher's weights drawn anew, its map",
        "random_logit": "the teacher's map of another class",
        "class_cam": "with all of the discriminator's weights drawn anew, its class map",
        "evidence": "with all of the discriminator's weights drawn anew, its evidence",
    }
    for network in found.get("sanity", {}).values():
        for check, row in network.items():
            own, pairs = row.get("stages", [row])[-1]["ssim"], row["random_pairs"]["ssim"]["value"]
            if row.get("passes") is False and own["low"] > pairs:
                words = checks[check]
                yield (
                    f"{words[0].upper()}{words[1:]} is as like the true one (SSIM {own['value']:.2f}) as maps of "
                    f"different patients are ({pairs:.2f}), or more."
                )


def _evidence(found: Json) -> Iterator[str]:
    row = found.get("evidence")
    if row is None:
        return
    if row["decomposition_error"] > _LARGEST_ERROR:
        yield f"The discriminator's evidence is not its score: they differ by up to {row['decomposition_error']:.1e}."
    if row["ratio"]["value"] < _LEAST_RATIO:
        yield (
            f"Covering the highest evidence moves the discriminator's score {row['ratio']['value']:.1f} times as far "
            f"as covering random cells; at least {_LEAST_RATIO:g} times is wanted."
        )


def _generator(found: Json) -> Iterator[str]:
    for name, row in found.get("generator", {}).items():
        if "left_out" in row:
            yield f"Of {name} the change could not be measured: {row['left_out']}."
            continue
        mass = row["region"]["maps"]["M"]["figures"]["relevance_mass"]["map"]["value"]
        if mass < _LEAST_MASS:
            yield (
                f"Of the map M of {name}, {mass:.0%} lies where the picture changes; at least {_LEAST_MASS:.0%} is "
                "wanted."
            )
        held = row["energy"]["maps"]["M"]["figures"]["change_captured"]
        if not better(held):
            yield (
                f"M of {name} does not find the largest change better than {held['best_control']} does: it captures "
                f"{held['map']['value']:.0%} of it, {held['best_control']} "
                f"{held['controls'][held['best_control']]['value']:.0%}."
            )
