"""Intervals stand where they should on axes that people can read, and prose falls into text and commands."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expressivegan.data.doctor.finding import Figure
from expressivegan.report.plot import axis, panels
from expressivegan.report.text import figure_text, spans, visible


def test_aucs_share_the_axis_from_a_half_to_one() -> None:
    (panel,) = panels([Figure("AUC, area", 0.75, 0.6, 0.9, 0.5), Figure("AUROC of all", 1.0, 0.95, 1.0, 0.5)])
    assert panel.ticks == ((0, "0.5"), (20, "0.6"), (40, "0.7"), (60, "0.8"), (80, "0.9"), (100, "1.0"))
    assert panel.rows[0][2:] == (50, 20, 80, 0)
    assert panel.rows[1][2:] == (100, 90, 100, 0)


def test_the_axis_of_an_auc_grows_to_hold_an_interval_below_a_half() -> None:
    (panel,) = panels([Figure("border AUC", 0.5, 0.43, 0.57, 0.5)])
    assert panel.ticks[0] == (0, "0.4")
    assert min(p for p in panel.rows[0][2:] if p is not None) == pytest.approx(5)
    (whole,) = panels([Figure("AUC", 0.1, 0.0, 0.3, 0.5)])
    assert [label for _, label in whole.ticks] == ["0.00", "0.25", "0.50", "0.75", "1.00"]


def test_figures_that_compare_share_an_axis_and_others_do_not() -> None:
    found = panels([Figure("a", 0.7, 0.6, 0.8), Figure("AUC", 0.9, 0.8, 1.0), Figure("b", 0.2, 0.1, 0.3),
                    Figure("mean grey", 122.0, 120.0, 124.0), Figure("files", 30, expected=0)])  # fmt: skip
    assert [[row.name for row in panel.rows] for panel in found] == [["a", "b"], ["AUC"], ["mean grey"], ["files"]]
    assert found[-1].ticks == ()


def test_an_undefined_figure_is_said_and_not_drawn() -> None:
    (panel,) = panels([Figure("AUC", math.nan, math.nan, math.nan, 0.5)])
    assert panel.ticks == ()
    assert panel.rows[0].text == "undefined, expected 0.5"
    (half,) = panels([Figure("AUC", 0.8, math.nan, math.inf, 0.5)])
    assert half.rows[0][2:] == (60, None, None, 0)


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_an_axis_holds_its_values_between_few_ticks(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    ticks = axis(low, high)
    slack = 1e-6 * (ticks[-1] - ticks[0])
    assert ticks[0] - slack - 1e-9 <= low <= high <= ticks[-1] + slack + 1e-9
    assert 3 <= len(ticks) <= 7
    steps = [after - before for before, after in pairwise(ticks)]
    assert min(steps) > 0
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)


@given(*[st.floats(allow_nan=True, allow_infinity=True)] * 4)
def test_any_figure_can_be_shown(value: float, low: float, high: float, expected: float) -> None:
    for panel in panels([Figure("x", value, low, high, expected)]):
        assert all(-1e-3 <= place <= 100 + 1e-3 for row in panel.rows for place in row[2:] if place is not None)


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (Figure("share", 0.00031, 0.0001, 0.0009, 0.0), "0.00031 [0.00010, 0.00090], expected 0"),
        (Figure("grey", 122.44, 121.0, 123.95), "122.4 [121.0, 124.0]"),
        (Figure("files", 4732), "4,732"),
        (Figure("AUC", 1.0, expected=0.5), "1.000, expected 0.5"),
        (Figure("x", math.inf), "undefined"),
    ],
)
def test_numbers_have_the_decimals_they_need(figure: Figure, text: str) -> None:
    assert figure_text(figure) == text


@pytest.mark.parametrize(
    ("prose", "expected"),
    [
        ("Look at it.", [("text", "Look at it.")]),
        ("Run `expressivegan data fix DIR`.", [("text", "Run"), ("command", "expressivegan data fix DIR")]),
        ("Set `--fit pad`; then", [("text", "Set "), ("code", "--fit pad"), ("text", "; then")]),
        (
            'expressivegan data fix D --classes "A, B" --out a.jsonl, then look',
            [("command", 'expressivegan data fix D --classes "A, B" --out a.jsonl'), ("text", "then look")],
        ),
        (
            "Paint over: expressivegan data fix --markers (it searches all images)",
            [
                ("text", "Paint over:"),
                ("command", "expressivegan data fix --markers"),
                ("text", "(it searches all images)"),
            ],
        ),
        (
            "Deal anew: expressivegan data prepare does so",
            [("text", "Deal anew:"), ("command", "expressivegan data prepare"), ("text", "does so")],
        ),
        (
            "expressivegan data fix DATA --out m.jsonl --border 0.1 --duplicates keeps one of each group",
            [
                ("command", "expressivegan data fix DATA --out m.jsonl --border 0.1 --duplicates"),
                ("text", "keeps one of each group"),
            ],
        ),
        (
            "expressivegan data fix ../a/b.zip --leaks train --out m.jsonl; DONE",
            [("command", "expressivegan data fix ../a/b.zip --leaks train --out m.jsonl"), ("text", "DONE")],
        ),
        ("expressivegan learns it", [("text", "expressivegan learns it")]),
        ("a ` alone", [("text", "a ` alone")]),
        ("", []),
    ],
)
def test_commands_are_told_from_prose(prose: str, expected: list[tuple[str, str]]) -> None:
    assert [tuple(span) for span in spans(prose)] == expected


def test_an_interval_of_no_width_has_an_axis() -> None:
    assert axis(0.0, 0.0)[0] == 0.0
    (panel,) = panels([Figure("share", 0.0, 0.0, 0.0, 0.0)])
    assert panel.rows[0].value == 0


@given(st.text())
def test_visible_text_can_be_written_and_is_stable(text: str) -> None:
    shown = visible(text)
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert visible(shown) == shown
    assert not set(shown) & set("\n\r\t\x1b\u202e\ufeff")
