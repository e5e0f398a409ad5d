"""The doctor's page: it needs nothing but itself, and no file name can do anything in it."""

import base64
import hashlib
import io
import os
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import doctor_examples as examples
import numpy as np
import pytest
from PIL import Image

from expressivegan.data.doctor.finding import Diagnosis, Finding, Picture, Table
from expressivegan.errors import DataError
from expressivegan.report.doctor import write_html

VOID = {"meta", "img", "line", "circle", "br", "link"}


class Parsed(HTMLParser):
    """Elements in order, the text of each, and whether every element is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(data for tag, data in self.texts if tag != "style")


def made(diagnosis: Diagnosis, folder: Path) -> tuple[str, Parsed]:
    write_html(diagnosis, folder / "page.html")
    text = (folder / "page.html").read_bytes().decode("utf-8")
    return text, Parsed(text)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Parsed]:
    return made(examples.full(), tmp_path_factory.mktemp("page"))


def test_every_element_is_closed(full: tuple[str, Parsed]) -> None:
    assert full[1].open == []
    assert len(full[1].elements) > 500


def test_nothing_is_loaded_and_nothing_runs(full: tuple[str, Parsed]) -> None:
    text, parsed = full
    tags = {tag for tag, _ in parsed.elements}
    assert tags.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form", "video", "audio", "use"})
    assert all(attributes["src"].startswith("data:image/png;base64,") for attributes in parsed.all("img"))
    assert all(attributes["href"].startswith("#") for attributes in parsed.all("a"))
    used = {key for _, attributes in parsed.elements for key in attributes}
    assert not [key for key in used if key.startswith("on") or key in ("style", "srcset", "background", "action")]
    style = text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"url\(|@import|@font-face|https?:", style)


def test_the_policy_allows_its_own_style_alone(full: tuple[str, Parsed]) -> None:
    text, parsed = full
    (policy,) = [m["content"] for m in parsed.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    (style,) = re.findall("<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.split("; ")[:3] == ["default-src 'none'", f"style-src 'sha256-{digest}'", "img-src data:"]
    assert "script-src" not in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("name", examples.HOSTILE)
def test_a_hostile_name_is_text_wherever_it_stands(name: str, tmp_path: Path) -> None:
    plain = Diagnosis("s", "k", "h", "v", ("c",), Table(("h",), (("c",),)), (everything("name"),), {"check": 1.0})
    bad = Diagnosis(name, name, name, name, (name,), Table((name,), ((name,),)), (everything(name),), {name: 1.0})
    # As many elements of each kind, with the same attributes: nothing that a name says has become markup
    shapes = [
        [(tag, sorted(set(a) - {"class"})) for tag, a in made(d, tmp_path)[1].elements if tag != "span"]
        for d in (plain, bad)
    ]
    assert shapes[0] == shapes[1]
    text, parsed = made(bad, tmp_path)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\ud800-\udfff]", text)
    assert not [a for tag, a in parsed.elements if tag == "img" and a["src"] == "x"]
    assert "49.png" not in parsed.text


def everything(name: str) -> Finding:
    picture = Picture(name, np.zeros((8, 8), np.uint8))
    prose = name.replace("\n", "")  # else two paragraphs, rightly
    return Finding(name, "high", name, (), prose, prose, Table((name,), ((name,),)), (picture,),
                   ({"paths": [name], "said": name},))  # fmt: skip


def test_invisible_characters_are_shown(full: tuple[str, Parsed]) -> None:
    names = [data for _, data in full[1].texts]
    assert "scan\\u202egnp.exe" in names
    assert "caf\\xe9/\\xff.jpg" in names
    assert "bell\\x07\\x1b[2Jclear\\nline.png" in names
    assert "שלום/肺.png" in names


def test_headings_step_down_one_at_a_time(full: tuple[str, Parsed]) -> None:
    levels = [int(tag[1]) for tag, _ in full[1].elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_pictures_and_plots_say_what_they_show(full: tuple[str, Parsed]) -> None:
    assert len(full[1].all("img")) == 19
    assert all(attributes["alt"] for attributes in full[1].all("img"))
    labels = [a["aria-label"] for a in full[1].all("svg") if a.get("role") == "img"]
    assert "AUC, area: 0.920 [0.871, 0.956], expected 0.5" in labels


def test_links_lead_to_findings_that_are_there_once(full: tuple[str, Parsed]) -> None:
    ids = Counter(a["id"] for _, a in full[1].elements if "id" in a)
    assert set(ids.values()) == {1}
    links = {a["href"][1:] for a in full[1].all("a")}
    assert links <= set(ids)
    assert {a["id"] for a in full[1].all("article")} <= links


def test_findings_stand_by_severity_and_each_names_it(tmp_path: Path) -> None:
    diagnosis = examples.full()
    _, parsed = made(replace(diagnosis, findings=diagnosis.findings[::-1]), tmp_path)
    assert [a["class"] for a in parsed.all("article")] == ["high"] * 2 + ["medium"] * 3 + ["low"] * 2
    assert "Do not train on these data yet" in parsed.text


@pytest.mark.parametrize(
    ("severity", "verdict"), [("ok", "Nothing found"), ("skipped", "Nothing could be looked for"), ("low", "Usable")]
)
def test_the_verdict_follows_the_worst_finding(severity: str, verdict: str, tmp_path: Path) -> None:
    finding = replace(examples.clean().findings[0], severity=severity)
    _, parsed = made(replace(examples.clean(), findings=(finding,)), tmp_path)
    assert verdict in parsed.text


def test_long_lists_are_cut_and_counted(full: tuple[str, Parsed]) -> None:
    _, parsed = full
    assert "train/VIRUS/person49.jpeg" in parsed.text
    assert "train/VIRUS/person50.jpeg" not in parsed.text
    assert "The first 50 of 5,000; the JSON has all." in parsed.text
    assert "person49_bacteria" in parsed.text
    assert "person50_bacteria" not in parsed.text
    assert "and 130 more rows" in parsed.text
    assert "60 files in 30 groups" in parsed.text
    assert "the checks took 82 s" in parsed.text


def test_a_command_can_be_copied_whole(full: tuple[str, Parsed]) -> None:
    blocks = re.findall(r'<pre class="command"[^>]*><code>(.*?)</code></pre>', full[0], re.DOTALL)
    commands = [re.sub("<[^>]+>", "", block).replace("&#39;", "'") for block in blocks]
    assert "expressivegan data fix DIR --leaks train --out fixed.jsonl" in commands
    assert r"expressivegan data fix DIR --markers mask --patient-regex '(patient\d+)' --out m.jsonl" in commands


@pytest.mark.parametrize(
    "pixels",
    [np.arange(48, dtype=np.uint8).reshape(6, 8), np.arange(144, dtype=np.uint8).reshape(6, 8, 3)],
    ids=["grey", "RGB"],
)
def test_pictures_keep_their_pixels(pixels: np.ndarray, tmp_path: Path) -> None:
    finding = Finding("a", "low", "b", pictures=(Picture("c", pixels),))
    _, parsed = made(replace(examples.clean(), findings=(finding,)), tmp_path)
    (image,) = parsed.all("img")
    shown = Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))
    np.testing.assert_array_equal(np.asarray(shown), pixels)
    assert (int(image["width"]) / 8, int(image["height"]) / 6) == (32, 32)  # the same whole number both ways


def test_large_pictures_are_scaled_down(tmp_path: Path) -> None:
    finding = Finding("a", "low", "b", pictures=(Picture("c", np.zeros((500, 4000), np.uint8)),))
    _, parsed = made(replace(examples.clean(), findings=(finding,)), tmp_path)
    assert (parsed.all("img")[0]["width"], parsed.all("img")[0]["height"]) == ("1024", "128")


def test_the_same_diagnosis_gives_the_same_bytes(full: tuple[str, Parsed], tmp_path: Path) -> None:
    assert made(examples.full(), tmp_path)[0] == full[0]


def test_a_failing_write_leaves_nothing_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(DataError, match=r"page\.html.*No space left.*choose a writable folder"):
        write_html(examples.full(), tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []
