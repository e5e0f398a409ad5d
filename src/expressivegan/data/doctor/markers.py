"""Letters and words burnt into the pictures: where they stand, and whether they tell the label."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from expressivegan.data.doctor import crossval, letters
from expressivegan.data.doctor.case import Case
from expressivegan.data.doctor.finding import Figure, Finding, Picture, Severity, Table
from expressivegan.data.doctor.letters import SIDE, Mark
from expressivegan.data.manifest import Box, Record
from expressivegan.intervals import Interval, share_interval

UInt8Array = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

CHECK = "markers"
MOST = 5000
"""Images that are looked at; of a larger set, a random sample."""
HIGH, MEDIUM = 0.65, 0.55
"""Lower bounds of the AUC's interval from which on markers tell the label clearly, or somewhat."""
_MISTAKES = 0.05  # share of images in which the search sees letters where there are none (3.5% of bare phantoms)
_ROWS, _COLUMNS = 6, 10  # of the montage
_RED = (255, 60, 60)
_ONLY_SAMPLE = " (the report has the boxes of the sample; without --report all images are searched)"


def check(case: Case) -> Finding:
    """Looks for letters, words, dates and arrows in the pictures at 224 px, and asks whether they tell the label."""
    part = _sampled(case)
    images = part.images(SIDE)
    found = [letters.marks(np.asarray(picture)) for picture in images]
    marked = np.array([len(marks) > 0 for marks in found])
    share = share_interval(int(marked.sum()), len(marked))
    where = (
        f"a sample of {len(marked):,} images" if len(part.records) < len(case.records) else f"{len(marked):,} images"
    )
    told = _association(part, features(found))
    severity, verdict = _judge(told)
    if severity == "low" and share.value <= _MISTAKES:
        title = f"No more letters in {where} than the search sees by mistake ({int(marked.sum())})"
        return Finding(CHECK, "ok", title, figures=(Figure.of("share with a marker", share, 0.0),))
    figures = [Figure.of("share with a marker", share, 0.0)]
    figures += _shares(part, marked)
    figures += [
        Figure.of(f"AUC of {name} from number, place and size of markers", auc, 0.5) for name, auc in told.items()
    ]
    pictures = (_montage(part, images, found), _heat_map(part, images, found))
    contents = {r.path: r.sha256 for r in part.records}
    items = tuple(
        {"paths": [path], "sha256": [contents[path]], "boxes": [list(box) for box in boxes]}
        for path, boxes in _boxes(part, found)
    )
    return Finding(
        CHECK,
        severity,
        f"{share.value:.0%} of {where} carry letters or other marks; {verdict}",
        figures=tuple(figures),
        consequence=""
        if severity == "low"
        else "A network can learn the marker instead of the disease: it will do "
        "well on this set and fail on pictures from elsewhere, and its heat maps will point at the marker.",
        remedy="Paint them over: `expressivegan data fix DATA --out fixed.jsonl --report doctor.json --markers`"
        + ("" if len(part.records) == len(case.records) else _ONLY_SAMPLE),
        table=_table(part, marked),
        pictures=pictures,
        items=items,
    )


def search(case: Case) -> dict[str, list[Box]]:
    """Path → boxes of the markers of every image that has some, as in the finding's items; not of a sample, but all."""
    found = [letters.marks(np.asarray(picture)) for picture in case.images(SIDE)]
    return dict(_boxes(case, found))


def boxes_of(marks: list[Mark], record: Record) -> list[Box]:
    """Marks found in a record's picture at 224 px → boxes, one pixel wider, in shares of the uncropped picture."""
    left, top, right, bottom = record.crop or (0.0, 0.0, 1.0, 1.0)
    boxes = []
    for mark in marks:
        x0, y0, x1, y1 = (
            min(max(v + d, 0), SIDE) / SIDE for v, d in zip(mark.box, (-1, -1, 1, 1), strict=True)
        )  # fmt: skip
        across, down = right - left, bottom - top
        box = (left + x0 * across, top + y0 * down, left + x1 * across, top + y1 * down)
        boxes.append((round(box[0], 5), round(box[1], 5), round(box[2], 5), round(box[3], 5)))
    return boxes


def features(found: list[list[Mark]]) -> Floats:
    """Marks of N images → (N, 6): number of marks; of the surest: centre x and y, width, height (shares of the side),
    dark or bright. All 0 where there is none. Nothing of its contrast, which would tell the exposure of the picture."""
    rows = np.zeros((len(found), 6))
    for row, marks in zip(rows, found, strict=True):
        if marks:
            left, top, right, bottom = (v / SIDE for v in marks[0].box)
            centre = (left + right) / 2, (top + bottom) / 2
            row[:] = len(marks), *centre, right - left, bottom - top, marks[0].dark
    return rows


def _boxes(case: Case, found: list[list[Mark]]) -> list[tuple[str, list[Box]]]:
    return [(r.path, boxes_of(marks, r)) for r, marks in zip(case.records, found, strict=True) if marks]


def _sampled(case: Case) -> Case:
    """The case, or one of a random sample: a picture at 224 px costs more than all that is done with it here."""
    if len(case.records) <= MOST:
        return case
    records = tuple(case.records[i] for i in case.sample(MOST))
    return replace(case, manifest=replace(case.manifest, records=records))


def _association(case: Case, values: Floats) -> dict[str, Interval]:
    """ "A against the rest" → AUC from the features of the marks, cross-validated; empty for too few patients."""
    return crossval.told_label(values, case.labels, case.patients, case.manifest.classes, "trees", seed=case.seed)


def _judge(told: dict[str, Interval]) -> tuple[Severity, str]:
    if not told:
        return "low", "whether they tell the label cannot be said of so few patients"
    name, auc = max(told.items(), key=lambda item: item[1].low)
    numbers = f"{name} from them alone: AUC {auc}"
    sure = crossval.certain(list(told.values()))
    if sure > HIGH:
        return "high", f"they tell the label ({numbers})"
    if sure > MEDIUM:
        return "medium", f"they tell something of the label ({numbers})"
    return "low", f"they tell little of the label ({numbers})"


def _groups(case: Case) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Name and members of each class and each split."""
    groups = [(name, case.labels == k) for k, name in enumerate(case.manifest.classes)]
    return groups + [(str(name), case.splits == name) for name in np.unique(case.splits)]


def _shares(case: Case, marked: npt.NDArray[np.bool_]) -> list[Figure]:
    return [
        Figure.of(f"share with a marker, {name}", share_interval(int(marked[of].sum()), int(of.sum())))
        for name, of in _groups(case)
        if of.any()
    ]


def _table(case: Case, marked: npt.NDArray[np.bool_]) -> Table:
    rows = []
    for k, name in enumerate(case.manifest.classes):
        for split in np.unique(case.splits):
            of = (case.labels == k) & (case.splits == split)
            if of.any():
                share = share_interval(int(marked[of].sum()), int(of.sum()))
                rows.append((name, str(split), str(of.sum()), str(marked[of].sum()), str(share)))
    return Table(("class", "split", "images", "with a marker", "share"), tuple(rows))


def _montage(case: Case, images: UInt8Array, found: list[list[Mark]]) -> Picture:
    """Marked examples, a row per class."""
    rng = np.random.default_rng(case.seed)
    marked = np.array([len(marks) > 0 for marks in found])
    rows: list[UInt8Array] = []
    names = []
    for k, name in enumerate(case.manifest.classes):
        those = np.flatnonzero(marked & (case.labels == k))
        if not len(those) or len(rows) == _ROWS:
            continue
        row = np.zeros((SIDE // 2, _COLUMNS * SIDE // 2, 3), np.uint8)
        for column, i in enumerate(rng.permutation(those)[:_COLUMNS]):
            picture = Image.fromarray(np.asarray(images[i])).convert("RGB").resize((SIDE // 2, SIDE // 2))
            pen = ImageDraw.Draw(picture)
            for mark in found[i]:
                left, top, right, bottom = (v / 2 for v in mark.box)
                pen.rectangle((left - 2, top - 2, right + 1, bottom + 1), outline=_RED)
            row[:, column * SIDE // 2 : (column + 1) * SIDE // 2] = np.asarray(picture)
        rows.append(row)
        names.append(name)
    return Picture(f"Marks that were found, in red; rows: {', '.join(names)}", np.concatenate(rows))


def _heat_map(case: Case, images: UInt8Array, found: list[list[Mark]]) -> Picture:
    """A panel per class: the mean picture, the redder the more pictures have a mark there."""
    panels: list[UInt8Array] = []
    names = []
    for k, name in enumerate(case.manifest.classes):
        those = np.flatnonzero(case.labels == k)
        if not len(those) or len(panels) == _ROWS:
            continue
        hits, mean = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
        for i in those:
            mean += images[i]
            for mark in found[i]:
                left, top, right, bottom = mark.box
                hits[top:bottom, left:right] += 1
        grey = mean / len(those)
        heat = np.sqrt(hits / max(hits.max(), 1))  # the rare places shall be seen too
        colour = np.stack([grey + (255 - grey) * heat, grey * (1 - heat), grey * (1 - heat)], -1)
        panels.append(np.rint(colour).astype(np.uint8))
        names.append(f"{name} (at most {hits.max() / len(those):.0%} in one place)")
    return Picture(f"Where the marks stand; left to right: {', '.join(names)}", np.concatenate(panels, 1))
