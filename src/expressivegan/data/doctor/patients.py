"""Whether a patient stands in two splits, and whether the patients' keys can be believed."""

import re
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from expressivegan.data.doctor.case import Case
from expressivegan.data.doctor.finding import Figure, Finding, Table
from expressivegan.intervals import Interval, auc_interval

_PAIRS = 4000
_MANY = 50  # images of one patient that look rather like a key that many share
_SPLIT_LIST = 100
_ALIKE = 0.6  # lower end of the AUC from which images that share a key are taken for one child's


def across_splits(case: Case) -> Finding:
    """Patients who stand in more than one split."""
    check = "patients-across-splits"
    if not case.manifest.patients_known:
        return Finding(
            check,
            "medium",
            f"Nothing says which patient an image shows: all {len(case.records)} count as patients",
            consequence="If some show the same one, training and test share patients, and every result is too good.",
            remedy="Give --patient-regex with one group that finds the patient in a file's path, or a table with a "
            "patient column",
        )
    splits: dict[str, set[str]] = defaultdict(set)
    for patient, split in zip(case.patients.tolist(), case.splits.tolist(), strict=True):
        splits[patient].add(split)
    leaking = sorted(p for p, s in splits.items() if len(s) > 1)
    brought = sorted(set(case.splits.tolist()))
    if len(brought) < 2:
        return Finding(check, "skipped", "The data set brings no splits; expressivegan deals patients itself")
    figures = (Figure("patients", len(splits)), Figure("patients in several splits", len(leaking), expected=0))
    if not leaking:
        return Finding(check, "ok", f"None of {len(splits)} patients is in two splits ({', '.join(brought)})", figures)
    where = {p: np.flatnonzero(case.patients == p) for p in leaking[: 10 * _SPLIT_LIST]}
    rows = tuple(
        (p, *(str(int((case.splits[i] == s).sum())) for s in brought)) for p, i in list(where.items())[:_SPLIT_LIST]
    )
    return Finding(
        check,
        "high",
        f"{len(leaking)} of {len(splits)} patients stand in more than one split",
        figures,
        "The test set then asks about children whom the network has seen: it measures memory.",
        "Move each wholly into one split: `expressivegan data fix DATA --out fixed.jsonl --leaks`",
        Table(("patient", *(f"images in {s}" for s in brought)), rows),
        items=tuple({"paths": [case.records[i].path for i in w], "patient": p} for p, w in where.items()),
    )


def keys(case: Case) -> Finding:
    """Both readings of keys that hold numbers, labels that contradict each other, patients with very many images."""
    check = "patient-keys"
    if not case.manifest.patients_known:
        return Finding(check, "skipped", "The patients are not known")
    images_of: dict[str, list[int]] = defaultdict(list)
    for i, patient in enumerate(case.patients.tolist()):
        images_of[patient].append(i)
    sizes = {p: len(i) for p, i in images_of.items()}
    largest = max(sizes, key=lambda p: (sizes[p], p))
    mixed = sorted(p for p, i in images_of.items() if len(set(case.labels[i])) > 1)
    figures = [
        Figure("patients", len(sizes)),
        Figure("patients with several images", sum(n > 1 for n in sizes.values())),
        Figure("most images of one patient", sizes[largest]),
        Figure("patients with two labels", len(mixed)),
    ]
    rows = []
    same = _resemblance(case, case.patients)
    if same is not None:
        figures.append(Figure.of("AUC of resemblance: two images of a patient against any two of the class", same, 0.5))
    doubts = []
    for name, reading in _readings(case).items():
        seen = _other_reading(case, reading)
        rows.append((name, *(str(n) for n in seen[:3]), "" if seen[3] is None else str(seen[3])))
        figures += [
            Figure(f"{name}: numbers with several keys", seen[0]),
            Figure(f"{name}: that seem to be in two splits", seen[1]),
            Figure(f"{name}: training numbers with several keys", seen[2]),
        ]
        if seen[3] is not None:
            figures.append(Figure.of(f"AUC of resemblance: same {name}, another key", seen[3], 0.5))
            if seen[3].low > _ALIKE:
                doubts.append(f"images that share the {name} but not the key resemble each other (AUC {seen[3]})")
    if sizes[largest] > _MANY and sizes[largest] > 0.02 * len(case.records):
        doubts.append(f"{largest!r} alone has {sizes[largest]} images")
    if same is not None and same.high < 0.55:
        doubts.append(f"two images of one key resemble each other no more than any two (AUC {same})")
    table = Table(
        ("read as", "numbers with several keys", "seem in two splits", "of them in train", "resemblance (AUC)"),
        tuple(rows),
    )
    told = f"{len(sizes)} patients, {figures[1].value:.0f} with several images, up to {sizes[largest]}"
    read = "; ".join(
        f"read by {row[0]}, {row[1]} numbers would have several keys and {row[2]} seem to be in two splits"
        for row in rows
    )
    both = ""
    if rows and same is not None:
        child = ", so the key is a child" if same.low > _ALIKE and not doubts else ""
        both = f" Two images under one key resemble each other with AUC {same}{child}."
    return Finding(
        check,
        "medium" if doubts else "low" if rows or mixed else "ok",
        "; ".join(doubts) if doubts else told + (f"; {read}" if read else ""),
        tuple(figures),
        "Keyed too coarsely, children are thrown together and splits seem to leak; keyed too finely, one child is "
        "dealt to training and test." + both,
        "Compare the resemblance of the readings: at 0.5 a shared number means nothing. --patient-regex sets the key",
        table if rows else None,
        items=tuple({"paths": [case.records[i].path for i in images_of[p]], "patient": p} for p in mixed),
    )


def _readings(case: Case) -> dict[str, npt.NDArray[np.str_]]:
    """Coarser keys that somebody may take for the patient: the number alone, where keys hold a number and more."""
    found: dict[str, npt.NDArray[np.str_]] = {}
    if case.manifest.source == "kermany":
        person: Callable[[str], str | None] = lambda p: _group(r"person(\d+)", p)  # noqa: E731
        normal: Callable[[str], str | None] = lambda p: _group(r"IM-(\d+)", p)  # noqa: E731
        rules = {"person number": person, "IM number": normal}
    else:
        rules = {"number in the key": lambda p: _group(r"(\d+)", p)}
    for name, rule in rules.items():
        numbers = [rule(p) for p in case.patients.tolist()]
        by_number: dict[str, set[str]] = defaultdict(set)
        for number, patient in zip(numbers, case.patients.tolist(), strict=True):
            if number is not None:
                by_number[number].add(patient)
        if sum(len(p) > 1 for p in by_number.values()) > 0.01 * max(1, len(by_number)):
            found[name] = np.array(["" if n is None else n for n in numbers])
    return found


def _group(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match and match[1]


def _other_reading(case: Case, numbers: npt.NDArray[np.str_]) -> tuple[int, int, int, Interval | None]:
    """Numbers that carry several keys, that stand in two splits, that carry several in train; and the resemblance."""
    keys_of: dict[str, set[str]] = defaultdict(set)
    splits_of: dict[str, set[str]] = defaultdict(set)
    trained: dict[str, set[str]] = defaultdict(set)
    published = [r.official or r.group for r in case.records]  # our own deal knows the keys, and splits the numbers
    rows = zip(numbers.tolist(), case.patients.tolist(), published, strict=True)
    for number, patient, split in rows:
        if not number:
            continue
        keys_of[number].add(patient)
        splits_of[number].add(split)
        if split == "train":
            trained[number].add(patient)
    several = sum(len(k) > 1 for k in keys_of.values())
    leaking = sum(len(s) > 1 for s in splits_of.values())
    return several, leaking, sum(len(k) > 1 for k in trained.values()), _resemblance(case, numbers, case.patients)


def _resemblance(case: Case, keys: npt.NDArray[np.str_], apart: npt.NDArray[np.str_] | None = None) -> Interval | None:
    """AUC with which the likeness of two images tells that they share a key.

    Pairs that share one, of different `apart` where that is given, are compared with pairs of strangers drawn from the
    very same classes, so that a common disease counts for nothing. None with fewer than 20 pairs.
    """
    rng = np.random.default_rng(case.seed)
    members: dict[str, list[int]] = defaultdict(list)
    for i, key in enumerate(keys.tolist()):
        if key:
            members[key].append(i)
    pairs, owners = [], []
    for key, group in sorted(members.items()):
        chosen = [(a, b) for n, a in enumerate(group) for b in group[n + 1 :] if apart is None or apart[a] != apart[b]]
        if chosen:  # one pair a key, so that a patient with thirty images does not speak for all
            pairs.append(chosen[rng.integers(len(chosen))])
            owners.append(key)
    if len(pairs) < 20:
        return None
    if len(pairs) > _PAIRS:
        kept = np.sort(rng.choice(len(pairs), _PAIRS, replace=False))
        pairs, owners = [pairs[k] for k in kept], [owners[k] for k in kept]
    strangers = []
    of_class = [np.flatnonzero(case.labels == k) for k in range(len(case.manifest.classes))]
    for (a, b), key in zip(pairs, owners, strict=True):
        drawn = int(rng.choice(of_class[case.labels[b]]))
        for _ in range(100):
            if keys[drawn] != key and case.patients[drawn] != case.patients[a]:
                break
            drawn = int(rng.choice(of_class[case.labels[b]]))
        strangers.append((a, drawn))
    vectors = case.features - case.features.mean(0)
    vectors = vectors / (vectors.std(0) + 1e-6)
    both = np.array(pairs + strangers)
    u, v = vectors[both[:, 0]], vectors[both[:, 1]]
    cosine = (u * v).sum(1) / (np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1) + 1e-9)
    truth = np.arange(len(both)) < len(pairs)
    return auc_interval(truth, cosine, owners + owners, 300)
