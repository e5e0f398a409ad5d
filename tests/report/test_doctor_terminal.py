"""The doctor in the terminal."""

import io
from dataclasses import replace

import doctor_examples as examples
import pytest
from rich.console import Console

from expressivegan.data.doctor.finding import Diagnosis, Finding, Table
from expressivegan.report.doctor import print_diagnosis


def printed(diagnosis: Diagnosis, width: int = 80, encoding: str = "utf-8", terminal: bool = False) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict", write_through=True, newline="")
    print_diagnosis(diagnosis, Console(file=stream, width=width, force_terminal=terminal))
    return raw.getvalue().decode(encoding)


def spoken(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("width", [20, 60, 80, 200])
def test_lines_fit_the_console_but_for_commands(width: int) -> None:
    for line in printed(examples.full(), width).splitlines():
        assert len(line.rstrip()) <= width or line.startswith("    expressivegan data fix")


def test_commands_stay_in_one_line() -> None:
    lines = [line.strip() for line in printed(examples.full(), 60).splitlines()]
    assert "expressivegan data fix shared/data/originals --equalise geometry --out fixed.jsonl" in lines


@pytest.mark.parametrize("width", [60, 100])
def test_what_was_found_is_said_and_advice_follows_where_it_matters(width: int) -> None:
    text = spoken(printed(examples.full(), width))
    for finding in examples.full().findings:
        assert finding.check in text
        if finding.severity in ("high", "medium"):
            assert spoken(finding.consequence) in text
    assert "Mask:" not in text  # of low severity
    assert "2 high, 3 medium, 2 low, 4 ok, 2 skipped" in text
    assert "nothing found by: unreadable-files, near-duplicates" in text
    assert "1,130" in text


def test_high_stands_before_low() -> None:
    diagnosis = examples.full()
    text = printed(replace(diagnosis, findings=diagnosis.findings[::-1]))
    assert text.index("patients-across-splits") < text.index("label-noise") < text.index("odd-files")


def test_without_a_terminal_there_are_no_control_sequences() -> None:
    assert "\x1b" not in printed(examples.full())
    assert "\x1b[" in printed(examples.full(), terminal=True)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@pytest.mark.parametrize("name", examples.HOSTILE)
def test_a_name_is_neither_markup_nor_a_control_sequence(name: str, encoding: str) -> None:
    finding = Finding(name, "high", name, (), name, name, items=({"paths": [name]},))
    text = printed(Diagnosis(name, name, name, name, (name,), Table((name,), ((name,),)), (finding,)), 400, encoding)
    assert not set("\x07\x1b\u202e\x00") & set(text)
    if name == examples.MARKUP:
        assert text.count(name) == 9  # all that was given


def test_nothing_at_all_is_printed_too() -> None:
    assert "0 high" in printed(replace(examples.clean(), findings=(), classes=()), 60)
