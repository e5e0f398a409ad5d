from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expressivegan.data import split
from expressivegan.errors import InputError

SHARES = {"train": 0.7, "judge": 0.15, "reference": 0.15}
patients = st.dictionaries(
    st.text("abcdefgh0123", min_size=1, max_size=6),
    st.tuples(st.sampled_from(["NORMAL", "VIRUS"]), st.integers(1, 9)).map(lambda t: [t[0]] * t[1]),
    max_size=80,
)


@given(patients, st.integers(0, 5), st.randoms())
def test_order_does_not_matter(images: dict[str, list[str]], seed: int, random: object) -> None:
    shuffled = list(images.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert split.assign(dict(shuffled), SHARES, seed) == split.assign(images, SHARES, seed)


@given(patients, st.integers(0, 5))
def test_image_shares_are_right_for_every_class(images: dict[str, list[str]], seed: int) -> None:
    group_of = split.assign(images, SHARES, seed)
    assert group_of.keys() == images.keys()
    for label in ("NORMAL", "VIRUS"):
        sizes = {p: len(of) for p, of in images.items() if of[0] == label}
        got: Counter[str] = Counter()
        for patient, size in sizes.items():
            got[group_of[patient]] += size
        for group, share in SHARES.items():
            assert abs(got[group] - share * sum(sizes.values())) <= max(sizes.values(), default=0)


@given(patients, st.integers(0, 5))
def test_a_class_is_dealt_without_regard_to_the_others(images: dict[str, list[str]], seed: int) -> None:
    normal = {p: of for p, of in images.items() if of[0] == "NORMAL"}
    everything = split.assign(images, SHARES, seed)
    assert split.assign(normal, SHARES, seed) == {p: everything[p] for p in normal}


def test_seed_matters_and_a_share_of_nothing_gets_nothing() -> None:
    images = {f"p{i}": ["NORMAL"] for i in range(100)}
    assert split.assign(images, SHARES, 0) != split.assign(images, SHARES, 1)
    assert Counter(split.assign(images, SHARES, 3).values()) == {"train": 70, "judge": 15, "reference": 15}
    assert set(split.assign(images, {"train": 1.0, "judge": 0.0, "reference": 0.0}, 0).values()) == {"train"}


@given(st.lists(st.tuples(st.text("abcde", min_size=1, max_size=2), st.integers(0, 12)), max_size=40), st.randoms())
def test_sharing_a_file_joins(pairs: list[tuple[str, int]], random: object) -> None:
    joined = split.join(pairs)
    by_file: dict[int, set[str]] = {}
    for patient, file in pairs:
        by_file.setdefault(file, set()).add(joined[patient])
    assert all(len(names) == 1 for names in by_file.values())
    assert all(name <= patient and joined[name] == name for patient, name in joined.items())
    random.shuffle(pairs)  # type: ignore[attr-defined]
    assert split.join(pairs) == joined


def test_who_shares_nothing_stays_alone() -> None:
    assert split.join([("a", 1), ("b", 2), ("a", 3)]) == {"a": "a", "b": "b"}


@pytest.mark.parametrize("wrong", [(0.7, 0.3), (0.7, 0.2, 0.2), (0, 0.5, 0.5), (1.2, -0.1, -0.1), (float("nan"), 0, 1)])
def test_fractions_must_make_sense(wrong: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="fractions"):
        split.group_fractions(wrong, carve_test=False)
