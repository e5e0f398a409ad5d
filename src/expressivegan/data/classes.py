"""Which findings become classes: one rule for every layout, and one class for every image."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from expressivegan.data.layout.plan import Found, Layout
from expressivegan.data.manifest import Rejected
from expressivegan.errors import InputError

NONE_SHOWN = "shows none of the chosen classes"
AMBIGUOUS = "ambiguous"
_SYNONYMS = (("normal", "no finding"),)
_LISTED = 40  # findings that a message names


def choose(layout: Layout, rule: str | None, name: str) -> Layout:
    """Gives every image of a layout the one class that it shows.

    Args:
        layout: what was found, with all findings of every image.
        rule: class names in order, separated by commas: "NORMAL,Pneumonia". A class may gather several findings:
            "NORMAL,Opacity=Pneumonia|Consolidation". A name with a comma stands in double quotes. Case matters only
            where two findings differ by nothing else; NORMAL also means "No Finding". None: every finding is a class.
        name: of the data set, for messages.

    Returns:
        The layout with these classes. Images that show several of them, or none, stand in `rejected`.

    Raises:
        InputError: a rule that cannot be read or names what does not exist, or none though images show several
            findings.
    """
    counts = Counter(finding for f in layout.found for finding in f.findings)
    if rule is None:
        several = next((f for f in layout.found if len(f.findings) > 1), None)
        if several is not None:
            first = next((c for c in layout.classes if c in counts), several.findings[0])
            others = (c for c, _ in counts.most_common() if c != first)
            raise InputError(
                f"classes (=None) must say which findings to tell apart, since images of {name} show several "
                f"({several.path}: {' and '.join(several.findings)}); there are {_listed(counts)}; try "
                f"classes={_quoted(first) + ',' + _quoted(next(others))!r}"
            )
        return replace(layout, found=[f if f.label else replace(f, label=f.findings[0]) for f in layout.found])
    groups = parse(rule, counts, layout.aliases)
    class_of = {finding: label for label, findings in groups.items() for finding in findings}
    chosen = replace(layout, classes=tuple(groups), found=[], rejected=list(layout.rejected))
    for found in layout.found:
        outcome = _one(found, class_of, tuple(groups))
        if isinstance(outcome, Found):
            chosen.found.append(outcome)
        else:
            chosen.rejected.append(outcome)
    return chosen


def _one(found: Found, class_of: Mapping[str, str], order: Sequence[str]) -> Found | Rejected:
    shown = {class_of[finding] for finding in found.findings if finding in class_of}
    if len(shown) == 1:
        return replace(found, label=shown.pop())
    if not shown:
        return Rejected(found.path, NONE_SHOWN)
    return Rejected(found.path, f"{AMBIGUOUS}: shows {' and '.join(c for c in order if c in shown)}")


def parse(rule: str, findings: Mapping[str, int], aliases: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """A rule → class → its findings, in the order of the rule.

    >>> parse("NORMAL,Opacity=Mass|nodule", {"No Finding": 9, "Mass": 2, "Nodule": 3}, {})
    {'NORMAL': ('No Finding',), 'Opacity': ('Mass', 'Nodule')}

    Raises:
        InputError: see `choose`.
    """
    try:
        parts = next(csv.reader([rule], skipinitialspace=True), [])
    except csv.Error as error:
        raise InputError(f"classes (={rule!r}) cannot be read: {error}") from error
    groups: dict[str, tuple[str, ...]] = {}
    owner: dict[str, str] = {}
    for part in (p.strip() for p in parts):
        # A finding may hold "=" or "|" itself: the whole text is tried first.
        label, equals, members = part.partition("=")
        names = [m.strip() for m in members.split("|")] if equals and part not in findings else [part]
        label = label.strip() if equals and part not in findings else part
        if not label or not all(names):
            raise InputError(f"classes (={rule!r}) has an empty name; write it like 'NORMAL,Opacity=Pneumonia|Edema'")
        if label in groups:
            raise InputError(f"classes (={rule!r}) names {label} twice; name each class once")
        groups[label] = tuple(dict.fromkeys(f for n in names for f in _meant(n, rule, findings, aliases)))
        for finding in groups[label]:
            if finding in owner:
                raise InputError(
                    f"classes (={rule!r}) puts {finding} into both {owner[finding]} and {label}; put it into one"
                )
            owner[finding] = label
    if not groups:
        raise InputError(f"classes (={rule!r}) names no class; there are {_listed(findings)}")
    return groups


def _meant(
    name: str, rule: str, findings: Mapping[str, int], aliases: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    if name in findings:
        return (name,)
    same = [f for f in findings if f.lower() == name.lower()]
    if len(same) > 1:
        raise InputError(f"classes (={rule!r}): {name} may mean {' or '.join(sorted(same))}; write it exactly")
    if same:
        return (same[0],)
    alias = next((a for key, a in aliases.items() if key.lower() == name.lower()), ())
    members = tuple(f for f in alias if f in findings)
    if members:
        return members
    for synonyms in _SYNONYMS:
        if name.lower() in synonyms:
            members = tuple(f for f in findings if f.lower() in synonyms)
            if members:
                return members
    raise InputError(f"classes (={rule!r}): nothing shows {name}; there are {_listed(findings)}")


def _listed(findings: Mapping[str, int]) -> str:
    most = sorted(findings.items(), key=lambda item: (-item[1], item[0]))
    text = ", ".join(f"{name} ({count})" for name, count in most[:_LISTED])
    return text + (f" and {len(most) - _LISTED} more" if len(most) > _LISTED else "") if most else "no findings"


def _quoted(name: str) -> str:
    return f'"{name}"' if "," in name else name
