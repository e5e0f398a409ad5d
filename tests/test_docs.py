"""What the documents say of the package is so."""

import re
from pathlib import Path

import pytest

from expressivegan.config import PRESETS, preset

DOCS = Path(__file__).parents[1] / "docs"
NOT_A_RECIPE = {"method", "resolution", "fit", "beta2", "classes", "sample_every", "checkpoint_every", "keep", "seed",
                "precision"}  # fmt: skip


def test_the_recipe_lists_the_settings_of_the_default() -> None:
    said = dict(
        re.findall(r"^\| `(\w+)` \| ([\w.]+) \|", (DOCS / "recipe.md").read_text(encoding="utf-8"), re.MULTILINE)
    )
    settings = preset("cpu-64").config.to_json()
    assert said == {name: str(value) for name, value in settings.items() if name not in NOT_A_RECIPE}


def test_every_preset_is_described() -> None:
    text = (DOCS / "training.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([\w-]+)` \|", text.split("## Presets")[1].split("\n## ")[0], re.MULTILINE)) == set(
        PRESETS
    )


@pytest.mark.parametrize("page", [*sorted(DOCS.glob("*.md")), DOCS.parent / "README.md", DOCS.parent / "CHANGELOG.md"],
                         ids=lambda path: path.name)  # fmt: skip
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page if not path else page.parent / path
        assert file.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {_anchor(head) for head in heads}, target


def _anchor(head: str) -> str:
    """As GitHub makes them: lower case, no punctuation, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-")
