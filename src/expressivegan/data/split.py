"""Patients → groups. A patient never crosses groups, and neither does a file that exists twice."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence

from expressivegan.errors import InputError
from expressivegan.streams import derive_seed

TEST_FRACTION = 0.15  # of the patients, where the data set brings no test folder
GroupFractions = Mapping[str, float]


def group_fractions(fractions: Sequence[float], carve_test: bool) -> dict[str, float]:
    """(train, judge, reference) fractions → share of each group, with room for a test group if asked.

    Raises:
        InputError: not three shares that sum to 1, with a positive first.

    >>> {k: round(v, 4) for k, v in group_fractions((0.7, 0.15, 0.15), carve_test=True).items()}
    {'train': 0.595, 'test': 0.15, 'judge': 0.1275, 'reference': 0.1275}
    """
    shares = tuple(float(f) for f in fractions)
    if len(shares) != 3 or any(not 0 <= f <= 1 for f in shares) or abs(sum(shares) - 1) > 1e-6 or shares[0] == 0:
        raise InputError(
            f"fractions (={tuple(fractions)}) must be three shares (train, judge, reference) that sum to 1, the first "
            "above 0; try (0.7, 0.15, 0.15)"
        )
    left = 1 - TEST_FRACTION if carve_test else 1.0
    shared = {"train": shares[0] * left}
    if carve_test:
        shared["test"] = TEST_FRACTION
    return shared | {"judge": shares[1] * left, "reference": shares[2] * left}


def join(pairs: Iterable[tuple[str, Hashable]]) -> dict[str, str]:
    """Joins patients that share a file.

    Args:
        pairs: (patient, what identifies a file), one per image.

    Returns:
        patient → the smallest name among all patients that it is joined to, directly or through others.

    >>> join([("a", 1), ("b", 1), ("c", 2), ("b", 2), ("d", 3)])
    {'a': 'a', 'b': 'a', 'c': 'a', 'd': 'd'}
    """
    parent: dict[str, str] = {}

    def find(patient: str) -> str:
        while parent[patient] != patient:
            parent[patient] = parent[parent[patient]]
            patient = parent[patient]
        return patient

    first: dict[Hashable, str] = {}
    for patient, file in pairs:
        parent.setdefault(patient, patient)
        a, b = find(patient), find(first.setdefault(file, patient))
        parent[max(a, b)] = min(a, b)
    return {patient: find(patient) for patient in parent}


def assign(images: Mapping[str, Sequence[str]], shares: GroupFractions, seed: int) -> dict[str, str]:
    """Deals patients out to groups so that the share of *images* comes out right for every class.

    Patients of one class are dealt from the one with most images to the one with fewest, each to the group that lags
    most behind its share; among patients with equally many images a seeded hash decides the order. So every size of
    patient is spread over the groups, and neither the order of the files nor other classes matter.

    Args:
        images: patient → labels of its images.
        shares: group → share, summing to 1.
        seed: of the order.

    Returns:
        patient → group.
    """
    strata: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for patient, labels in images.items():
        strata[tuple(sorted(set(labels)))].append(patient)
    group_of: dict[str, str] = {}
    for patients in strata.values():
        patients.sort(key=lambda p: (-len(images[p]), derive_seed(seed, "split", p), p))
        dealt = dict.fromkeys(shares, 0)
        total = 0
        for patient in patients:
            size = len(images[patient])
            total += size
            group = max(shares, key=lambda g: shares[g] * total - dealt[g])
            dealt[group] += size
            group_of[patient] = group
    return group_of
