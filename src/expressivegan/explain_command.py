"""What `expressivegan explain` does."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from expressivegan.checkpoint import new_directory
from expressivegan.console import console, progress_bar, say
from expressivegan.devices import Device
from expressivegan.errors import InputError
from expressivegan.explain import Method, open_explainer, write_explanations
from expressivegan.explain.api import explain_each
from expressivegan.explain.inputs import list_sources
from expressivegan.explain.write import FILE

_MOST_ROWS = 40


def explain(
    model: Path,
    images: Sequence[Path],
    out: Path,
    *,
    label: str | None,
    data: str | None,
    methods: Sequence[Method] | None,
    store: bool,
    device: Device,
) -> None:
    """Explains images; writes a folder for each and explanations.json, and says what was found."""
    if not images:
        raise InputError("IMAGE is missing: name at least one file, folder or archive to explain")
    sources, refused = list_sources(images)
    if not sources:
        raise InputError(f"IMAGE (={refused[0][0]}) {refused[0][1]}; name at least one file to explain")
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out (={out}) is not empty; choose another folder")
    with progress_bar("real images") as bar:
        explainer = open_explainer(
            model, data=data, methods=methods, device=device, store=store, label=label, progress=bar
        )
    with new_directory(out), progress_bar("explain") as bar:
        report = write_explanations(out, explainer, explain_each(explainer, images, label, bar), str(model))
    table = Table(title="explained", caption="discriminator: against the mean of real images, where that is known")
    for column in ("image", "likeliest", "probability", "discriminator", "familiar"):
        table.add_column(column, overflow="fold")
    for row in report["images"][:_MOST_ROWS]:
        judged = row["discriminator"] or {"referenced": None, "score": None}
        score = judged["score"] if judged["referenced"] is None else judged["referenced"]
        chance = row["teacher"]["probabilities"][row["likeliest"]]
        familiar = {None: "?", True: "NO", False: "yes"}[row["familiarity"] and row["familiarity"]["strange"]]
        cells = (row["name"], row["likeliest"], f"{chance:.2f}", "-" if score is None else f"{score:+.3g}", familiar)
        table.add_row(*(Text(cell) for cell in cells))  # a file may be called anything, [red] for example
    console.print(table)
    if len(report["images"]) > _MOST_ROWS:
        console.print(f"and {len(report['images']) - _MOST_ROWS} more, in {FILE}")
    warned = [(row["name"], sentence) for row in report["images"] for sentence in row["warnings"]]
    for name, sentence in warned[:_MOST_ROWS]:
        say(f"warning: {name}: {sentence}", "yellow")
    if len(warned) > _MOST_ROWS:
        console.print(f"and {len(warned) - _MOST_ROWS} more warnings, in {FILE}")
    for note in report["notes"]:
        console.print(f"note: {note}", highlight=False, markup=False, style="yellow")
    for entry in report["rejected"]:
        reason = f"{entry['name']}: {entry['reason']}"
        say(f"not explained: {reason}", "yellow")
    say(f"explanations: {out / FILE}")
