"""A diagnosis in the terminal."""

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from expressivegan.data.doctor.finding import NOT_ASKED, SEVERITIES, Diagnosis, Finding, Table
from expressivegan.report.text import files_text, spans, visible

STYLES = {"high": "bold red", "medium": "bold yellow", "low": "cyan", "ok": "green", "skipped": "dim"}
NARROW = 72
"""In fewer columns the name of the check stands under what was found."""
WIDE = 100
"""In fewer the columns of the overview stand closer."""
OVERVIEW_ROWS = 12


def print_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """Prints what was found, then why it matters and what to do for what is of high or medium severity.

    Commands stand on lines of their own, unbroken, to be copied. Nothing in a name is taken for markup or for a
    control sequence; what the console's encoding cannot show is escaped.
    """
    order = sorted(diagnosis.findings, key=lambda f: SEVERITIES.index(f.severity))
    _line(console, f"{diagnosis.source}: {diagnosis.kind}, data hash {diagnosis.data_hash[:12]}", "bold")
    _overview(diagnosis.overview, console)
    unasked = [f for f in order if f.title == NOT_ASKED]
    listed = [f for f in order if f.severity != "ok" and f not in unasked]
    if listed:
        console.print(_findings(listed, console))
    for finding in order:
        if finding.severity in ("high", "medium"):
            _advice(finding, console)
    quiet = [f.check for f in order if f.severity == "ok"]
    if quiet:
        label = Text("nothing found by: ", STYLES["ok"])
        console.print(label.append(_safe(", ".join(quiet), console), style="not green"), highlight=False)
    if unasked:
        _line(console, f"{len(unasked)} other checks were not asked for", STYLES["skipped"])
    counts = [f"{sum(f.severity == s for f in order)} {s}" for s in SEVERITIES]
    _line(console, ", ".join(counts), STYLES[diagnosis.worst()])


def _safe(text: str, console: Console) -> str:
    return visible(text).encode(console.encoding, "backslashreplace").decode(console.encoding)


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(_safe(text, console), style, overflow="fold"), highlight=False)


def _overview(overview: Table, console: Console) -> None:
    table = RichTable(box=box.SIMPLE, padding=(0, 1) if console.width >= WIDE else 0, pad_edge=False)
    for i, name in enumerate(overview.header):
        table.add_column(Text(_safe(name, console)), justify="left" if i == 0 else "right", overflow="fold")
    for row in overview.rows[:OVERVIEW_ROWS]:
        table.add_row(*(Text(_safe(cell, console)) for cell in row))
    if overview.rows:
        console.print(table)
    if len(overview.rows) > OVERVIEW_ROWS:
        _line(console, f"and {len(overview.rows) - OVERVIEW_ROWS} more rows")


def _findings(findings: Iterable[Finding], console: Console) -> RichTable:
    narrow = console.width < NARROW
    table = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("severity", no_wrap=True)
    if not narrow:
        table.add_column("check", overflow="fold", max_width=max(16, console.width // 3))
    table.add_column("found", overflow="fold", ratio=1)
    for finding in findings:
        severity = Text(finding.severity, STYLES[finding.severity])
        check, title = _safe(finding.check, console), _safe(finding.title, console)
        if narrow:
            table.add_row(severity, Text(f"{title}\n").append(check, "dim"))
        else:
            table.add_row(severity, Text(check), Text(title))
    return table


def _advice(finding: Finding, console: Console) -> None:
    if not (finding.consequence or finding.remedy):
        return
    head = Text(f"{finding.severity} ", STYLES[finding.severity]).append(_safe(finding.check, console), "bold")
    if finding.items:
        paths = sum(len(item.get("paths", ())) for item in finding.items)
        head.append(f" ({files_text(paths, len(finding.items))})", "not bold")
    console.print(head, highlight=False)
    for label, prose in (("Why it matters: ", finding.consequence), ("What to do: ", finding.remedy)):
        for line in prose.splitlines():
            _prose(label, line, console)
            label = ""
    console.print()


def _prose(label: str, prose: str, console: Console) -> None:
    text = Text(label, "dim")

    def flush() -> None:
        if text.plain.strip():
            for line in text.wrap(console, max(10, console.width - 2)):
                line.rstrip()
                console.print(Text("  ").append_text(line), highlight=False)
        text.truncate(0)

    for span in spans(prose):
        if span.kind == "command":
            flush()
            console.print(Text("    ").append(_safe(span.text, console), "bold"), soft_wrap=True, highlight=False)
        else:
            text.append(_safe(span.text, console), "bold" if span.kind == "code" else "not dim")
    flush()
