"""Diagnoses as real data sets give them, with hostile names among them."""

from functools import cache

import numpy as np
import numpy.typing as npt

from expressivegan.data.doctor.finding import Diagnosis, Figure, Finding, Picture, Table
from expressivegan.data.phantom import draw

SCRIPT = "<script>alert(1)</script>.png"
QUOTES = "\"'><img src=x onerror=alert(1)>.png"
TURNED = "scan\u202egnp.exe"
BYTES = "caf\udce9/\udcff.jpg"
MARKUP = "[bold red]person[/bold red][link=file:///etc/passwd].jpeg"
CONTROL = "bell\x07\x1b[2Jclear\nline.png"
HOSTILE = (SCRIPT, QUOTES, TURNED, BYTES, MARKUP, CONTROL, "{{ 7 * 7 }}.png", "שלום/肺.png", "n" * 200 + ".png")


def phantom(seed: int, size: int = 96) -> npt.NDArray[np.uint8]:
    """(size, size) grey."""
    return draw(seed, "BACTERIA", size).image


@cache
def full() -> Diagnosis:
    """Every severity, and every field in use."""
    rng = np.random.default_rng(0)
    pair = np.hstack([phantom(1), np.full((96, 4), 255, np.uint8), phantom(1)])
    grey = phantom(2, 224)
    red = np.stack([grey, grey // 2, grey // 2], axis=-1)
    wide = np.vstack([phantom(i, 32).repeat(2, 0).repeat(2, 1) for i in range(3)])
    findings = (
        Finding(
            "geometry-shortcut",
            "high",
            "The shape of the file tells NORMAL from PNEUMONIA: area alone reaches an AUC of 0.920.",
            (
                Figure("AUC, area", 0.920, 0.871, 0.956, 0.5),
                Figure("AUC, aspect ratio", 0.883, 0.802, 0.941, 0.5),
                Figure("AUC, colour mode", 0.563, 0.531, 0.602, 0.5),
                Figure("AUC, JPEG quality", 0.512, 0.402, 0.621, 0.5),
                Figure("AUC, all together", 0.947, 0.905, 0.978, 0.5),
            ),
            "A network learns how the picture was cropped instead of what the lungs show, and its test score counts it "
            "as skill. Stretching to a square writes the aspect ratio into the anatomy.",
            "Cut every picture to the common field of view: `expressivegan data fix shared/data/originals --equalise "
            "geometry --out fixed.jsonl`. Then run the doctor on `fixed.jsonl` again.",
            Table(
                ("class", "images", "median width", "median height", "RGB"),
                (("NORMAL", "20", "1,654", "1,357", "0"), ("PNEUMONIA", "52", "1,200", "780", "5")),
            ),
            (Picture("Median outline of NORMAL (left) and PNEUMONIA (right)", pair),),
        ),
        Finding(
            "patients-across-splits",
            "high",
            f"14 patients stand in train and in test, the first with {SCRIPT}.",
            (
                Figure("patients in two splits", 14, expected=0),
                Figure("share of test images", 0.0627, 0.0431, 0.0902, 0.0),
            ),
            "The test score counts children that the network has seen.",
            "Move all images of a patient to train: expressivegan data fix DIR --leaks train --out fixed.jsonl.",
            Table(("patient", "train", "test"), tuple((f"person{i}_bacteria", str(i % 7), "1") for i in range(180))),
            items=tuple({"paths": [name, f"test/{i}.png"], "patient": f"p{i}"} for i, name in enumerate(HOSTILE)),
        ),
        Finding(
            "exact-duplicates",
            "medium",
            "30 groups of files (62 files) are byte for byte the same; one stands under two patients.",
            (
                Figure("groups", 30, expected=0),
                Figure("files", 62),
                Figure("groups across splits", 0, expected=0),
                Figure("across patients", 1, expected=0),
            ),
            "Twice the weight for the same picture; across patients, a leak that no patient key shows.",
            "Keep one of each group: `expressivegan data fix DIR --duplicates drop --out fixed.jsonl`",
            None,
            (Picture("NORMAL2-IM-0095 and NORMAL2-IM-0096: one file, two patients", pair),),
            tuple(
                {"paths": [f"train/a{i}.jpeg", f"train/b{i}.jpeg"], "distance": np.float32(i / 4)} for i in range(30)
            ),
        ),
        Finding(
            "label-noise",
            "medium",
            "5,000 labels disagree with the images at a cross-validated confidence below 5%.",
            (Figure("share of doubtful labels", 0.0031, 0.0022, 0.0043, 0.0),),
            "The network learns the mistakes, and the test set scores them as truth.",
            "Have a radiologist look at the list, worst first.\nThe page shows 50, the JSON all.",
            items=tuple(
                {"paths": [f"train/VIRUS/person{i}.jpeg"], "label": "VIRUS", "confidence": float(c)}
                for i, c in enumerate(rng.random(5000) / 20)
            ),
            pictures=tuple(
                Picture(f"person{i}: labelled NORMAL, like BACTERIA (0.97)", phantom(i, 64)) for i in range(15)
            ),
        ),
        Finding(
            "covariate-shift",
            "medium",
            "A classifier tells train from test with an AUC of 0.683.",
            (
                Figure("AUC, train against test", 0.683, 0.641, 0.722, 0.5),
                Figure("prevalence, train", 0.744, 0.731, 0.757),
                Figure("prevalence, test", 0.621, 0.566, 0.673, 0.744),
                Figure("mean grey, train", 122.4, 121.6, 123.1),
                Figure("mean grey, test", 131.0, 128.2, 133.9, 122.4),
            ),
            "Thresholds and calibration found on train do not hold on test.",
            "Report AUC beside accuracy, and calibrate on a part of the test patients.",
        ),
        Finding(
            "markers",
            "low",
            "812 images carry a burnt-in letter, most often at the upper left.",
            (Figure("AUC, marker", float("nan"), float("nan"), float("nan"), 0.5), Figure("images", 812)),
            remedy=r"Mask: `expressivegan data fix DIR --markers mask --patient-regex '(patient\d+)' --out m.jsonl`.",
            pictures=(Picture(f"Found in {QUOTES}", red), Picture("Heat map", wide)),
        ),
        Finding(
            "odd-files",
            "low",
            "3 files are odd.",
            table=Table(("file", "why"), (("a.png",), (TURNED, "16 bit", "more"))),
        ),
        Finding("unreadable-files", "ok", "All files can be read.", (Figure("unreadable", 0, expected=0),)),
        Finding("near-duplicates", "ok", "No near-duplicates across patients.", (Figure("pairs", 0.0, 0.0, 1.5, 0),)),
        Finding(
            "border-shortcut",
            "ok",
            "The outer frame does not tell the label.",
            (Figure("border AUC", 0.508, 0.471, 0.546, 0.5),),
            table=Table(("fold", "AUC"), (("1", "0.51"), ("2", "0.50"))),
        ),
        Finding("exposure", "ok", "No exposure outliers.", table=Table(("file", "grey"), ())),
        Finding("sex-and-age", "skipped", "The data set names neither sex nor age."),
        Finding("laterality", "skipped", "Fewer than 30 images carry a marker.", remedy="Give more images."),
    )
    overview = Table(
        ("class", "train images", "train patients", "test images", "test patients"),
        (
            ("NORMAL", "1,130", "823", "121", "95"),
            ("BACTERIA", "2,111", "1,204", "130", "88"),
            ("VIRUS", "1,172", "1,012", "68", "60"),
            ("all", "4,413", "3,039", "319", "243"),
        ),
    )
    return Diagnosis("shared/data/chest_xray", "kermany", "3f" * 32, "0.1.0", ("NORMAL", "BACTERIA", "VIRUS"), overview,
                     findings, {"geometry-shortcut": 1.25, "label-noise": 81.0, "markers": float("nan")})  # fmt: skip


def clean() -> Diagnosis:
    """Nothing found."""
    findings = (Finding("patients-across-splits", "ok", "No patient stands in two splits."),)
    return Diagnosis("phantom:600", "phantom", "00" * 32, "0.1.0", ("NORMAL",), Table((), ()), findings)
