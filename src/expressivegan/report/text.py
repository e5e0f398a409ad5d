"""Words and numbers as a reader should see them. File names come from anywhere, so nothing in them is trusted."""

import math
import re
from typing import Literal, NamedTuple

from expressivegan.data.doctor.finding import Figure

# Control characters, invisible ones, those that turn the direction of the text, and halves of pairs: the bytes of a
# file name that are no UTF-8. The two joiners stay, Persian and emoji need them.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escape(found: re.Match[str]) -> str:
    char = found.group()
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # Python's stand-in for the byte 0x80..0xff of a file name
        return f"\\x{code - 0xDC00:02x}"
    return _SHORT.get(char) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def visible(text: str) -> str:
    r"""The text with every character that cannot be seen, or that hides others, written as an escape.

    >>> visible("a\u202egnp.exe")
    'a\\u202egnp.exe'
    >>> visible("caf\udce9")  # a Latin-1 file name on a UTF-8 system
    'caf\\xe9'
    """
    return _UNSEEN.sub(_escape, text)


class Span(NamedTuple):
    """A piece of prose."""

    kind: Literal["text", "code", "command"]
    """command: a line to be run, shown on a line of its own."""
    text: str


_MARKED = re.compile(r"`([^`]+)`")
# A bare command takes only what cannot be prose: options, CAPITALS, quotes, paths and numbers; a plain word where
# another option follows. All else needs backticks: a command with a word of the sentence in it must not be copied
_ARGUMENT = r"(?:\"[^\"]*\"|'[^']*'|[A-Z][A-Z_]*\b|[\w-]*[./\d][^\s\"']*?(?=[.,;:)]*(?:\s|$))|[\w-]+(?= --))"
_BARE = re.compile(rf"\bexpressivegan data [a-z]+(?: --[\w-]+(?:=\S*[^\s.,;:)])?| {_ARGUMENT})*")


def spans(prose: str) -> list[Span]:
    """Splits prose into text, `code` in backticks, and commands, in backticks or where they cannot be mistaken.

    Punctuation that would be left behind a command, which stands on a line of its own, goes.

    >>> [tuple(s) for s in spans("Keep one: expressivegan data fix DIR --out m.jsonl. Then look.")]
    [('text', 'Keep one:'), ('command', 'expressivegan data fix DIR --out m.jsonl'), ('text', 'Then look.')]
    """
    found: list[Span] = []
    for i, part in enumerate(_MARKED.split(prose)):
        if i % 2:
            found.append(Span("command" if part.startswith("expressivegan ") else "code", part))
            continue
        at = 0
        for match in _BARE.finditer(part):
            found += [Span("text", part[at : match.start()]), Span("command", match.group().rstrip())]
            at = match.end()
        found.append(Span("text", part[at:]))
    tidy: list[Span] = []
    for i, span in enumerate(found):
        text = span.text
        if span.kind == "text":
            if tidy and tidy[-1].kind == "command":
                text = re.sub(r"^[\s.,;:]+", "", text)
            if i + 1 < len(found) and found[i + 1].kind == "command":
                text = text.rstrip()
        if text:
            tidy.append(Span(span.kind, text))
    return tidy


def is_auc(figure: Figure) -> bool:
    """Whether the name says that it is an area under a ROC curve."""
    return re.search(r"\bAUC\b|\bAUROC\b", figure.name, re.IGNORECASE) is not None


def finite(*values: float | None) -> list[float]:
    """Those that are numbers."""
    return [float(v) for v in values if v is not None and math.isfinite(v)]


def _number(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}" if decimals < 7 and abs(value) < 1e12 else f"{value:.4g}"


def _expected(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e12 else f"{value:.4g}"


def figure_text(figure: Figure) -> str:
    """Value, interval and what was expected, with as many decimals as they need.

    >>> figure_text(Figure("AUC of area", 0.92, 0.9, 0.94, 0.5))
    '0.920 [0.900, 0.940], expected 0.5'
    >>> figure_text(Figure("groups", 30.0, expected=0.0))
    '30, expected 0'
    """
    numbers = finite(figure.value, figure.low, figure.high)
    if all(v == round(v) for v in numbers) and not is_auc(figure):
        decimals = 0
    else:
        smallest = min((abs(v) for v in numbers if v), default=1.0)
        largest = max((abs(v) for v in numbers), default=1.0)
        decimals = 1 if largest >= 100 else 2 if largest >= 10 else 3
        decimals = max(decimals, min(7, 1 - math.floor(math.log10(smallest)))) if largest < 0.1 else decimals

    def show(value: float | None) -> str:
        return _number(value, decimals) if value is not None and math.isfinite(value) else "undefined"

    text = show(figure.value)
    if finite(figure.low) and finite(figure.high):
        text += f" [{show(figure.low)}, {show(figure.high)}]"
    expected = finite(figure.expected)
    return f"{text}, expected {_expected(expected[0])}" if expected else text


def files_text(paths: int, entries: int) -> str:
    """How many files a finding concerns.

    >>> files_text(62, 30), files_text(1, 1)
    ('62 files in 30 groups', '1 file')
    """
    files = f"{paths:,} file{'' if paths == 1 else 's'}"
    return files if paths == entries else f"{files} in {entries:,} group{'' if entries == 1 else 's'}"
