"""Does the label stand in the lungs alone, once the style is drawn apart from it?

    python benchmarks/shortcut_free.py --data DIR --model RUN [--downstream] [--out results.json]

Real reference patients, natural samples (style follows the label) and shortcut-free ones (style drawn apart), at equal
number and class mix: how well the outer 10% of the frame and the geometry tell the label; whether the independent
classifier (fitted on judge patients, frame masked) sees the label; and how well a linear probe of its features tells
the *style's* class from images with M = 0, where no disease was put. What real pictures can reach is the ceiling: the
lungs (two ellipses), or all but the frame, of a reference patient of the label put into the picture of one of the
style's class. `--downstream` also fits the compact classifier on real, natural and free images and says what occluding
the frame of real reference patients costs it.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from asked import data_of_model, results_file
from ending import leave
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score
from steering import LUNGS

from expressivegan.atomic import write_text
from expressivegan.config import UNPROTECTED
from expressivegan.data import ImageSet
from expressivegan.data.cache import cache_root
from expressivegan.data.doctor.crossval import told_label
from expressivegan.errors import InputError
from expressivegan.evaluation import JudgeClassifier
from expressivegan.evaluation.agreement import agreement_report
from expressivegan.evaluation.shortcuts import shortcut_report
from expressivegan.images import from_uint8, to_uint8
from expressivegan.models import GeneratorWithCAMGuidance
from expressivegan.models.generator import interior
from expressivegan.streams import generator
from expressivegan.synthesis import open_generator
from expressivegan.synthesis.generate import latent
from expressivegan.synthesis.steering import ellipse_maps
from expressivegan.teacher.fit import fit_teacher, predict

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@torch.no_grad()
def make(model: GeneratorWithCAMGuidance, labels: Labels, styles: Labels, seed: int) -> tuple[Pixels, Pixels]:
    """uint8 (N, H, W): images, and the same children without the lesion."""
    images, bases = [], []
    for start in range(0, len(labels), 128):
        part = slice(start, start + 128)
        z = torch.stack([latent(seed, i, model.z_dim) for i in range(len(labels))[part]])
        made = model.compose(z, torch.from_numpy(labels[part]), style_labels=torch.from_numpy(styles[part]))
        images.append(to_uint8(made.image)[:, 0].numpy())
        bases.append(to_uint8(made.base_image)[:, 0].numpy())
    return np.concatenate(images), np.concatenate(bases)


def grafted(real: Pixels, labels: Labels, styles: Labels, window: torch.Tensor) -> Pixels:
    """uint8 (N, H, W): each real picture under the window (1, 1, H, W), around it another one of the style's class."""
    rng = np.random.default_rng(0)
    around = np.array([rng.choice(np.flatnonzero(labels == s)) for s in styles])
    mixed = window * from_uint8(real[:, None]) + (1 - window) * from_uint8(real[around, None])
    found: Pixels = to_uint8(mixed)[:, 0].numpy()
    return found


def probe(judge: JudgeClassifier, images: Pixels, labels: Labels, patients: npt.NDArray[np.str_]) -> float:
    """Mean over classes of the AUC against the rest, by a linear probe, cross-validated over patients."""
    told = told_label(judge.features(images), labels, patients, judge.classes, strength=0.01)
    return float(np.mean([auc.value for auc in told.values()]))


def downstream(data: ImageSet, sets: dict[str, tuple[Pixels, Labels]], epochs: int) -> dict[str, dict[str, float]]:
    """AUC of disease on real reference patients, with and without their frame, of classifiers fitted on each set."""
    chosen = data.indices("reference")
    whole = np.asarray(data.images[chosen])
    edge = round(0.1 * whole.shape[1])
    masked = np.full_like(whole, round(float(whole.mean())))
    masked[:, edge:-edge, edge:-edge] = whole[:, edge:-edge, edge:-edge]
    ill = data.labels[chosen] != data.reference
    found = {}
    for name, (images, labels) in sets.items():
        who = np.arange(len(images)).astype(str)
        own = replace(data, images=images, labels=labels, patients=who, groups=np.full(len(images), "train"))
        network = fit_teacher(own, replace(UNPROTECTED, epochs=epochs))
        a, b = (float(roc_auc_score(ill, 1 - predict(network, x)[:, data.reference])) for x in (whole, masked))
        found[name] = {"auc": a, "auc_frame_occluded": b, "lost": a - b}
    return found


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    model = open_generator(arguments.model)
    if not isinstance(model, GeneratorWithCAMGuidance) or model.class_set.reference is None:
        raise InputError(f"--model (={arguments.model}) must be a CAM-guided generator with a reference class")
    data = data_of_model(arguments.model, model.classes, model.resolution, arguments.data, arguments.other_data)
    judged, chosen = data.indices("judge"), data.indices("reference")
    judge = JudgeClassifier.fit(
        np.asarray(data.images[judged]), data.labels[judged], data.classes, cache=cache_root() / "features"
    )
    real, labels, patients = np.asarray(data.images[chosen]), data.labels[chosen], np.asarray(data.patients[chosen])
    own = np.arange(len(labels)).astype(str)
    styles = torch.randint(len(data.classes), (len(labels),), generator=generator(0, "free styles")).numpy()
    natural, _ = make(model, labels, labels, 0)
    free, bases = make(model, labels, styles, 0)

    windows = {
        "lungs grafted": ellipse_maps(torch.tensor(LUNGS), model.resolution).amax(0, keepdim=True),
        "all but the frame grafted": interior(model.resolution, 0.1),
    }
    sets = {"natural": natural, "free": free}
    sets |= {name: grafted(real, labels, styles, window) for name, window in windows.items()}
    results: dict[str, Any] = {"real": {"probe_of_label": probe(judge, real, labels, patients)}}
    seen = {"real": judge.predict(real)} | {name: judge.predict(images) for name, images in sets.items()}
    for name, images in sets.items():
        shortcuts = shortcut_report(real, labels, patients, images, labels, data.classes).figures
        agreed = agreement_report(seen["real"], labels, patients, seen[name], labels, data.classes).as_json()
        results[name] = {
            "frame_auc": shortcuts["frame"]["fake"].value,
            "geometry_auc": shortcuts["geometry"]["fake"].value,
            "probe_of_label": probe(judge, images, labels, own),
            "agreement": agreed,
        }
        results["real"] |= {f"{k}_auc": shortcuts[k]["real"].value for k in ("frame", "geometry")}
    for name, guess in seen.items():
        right = guess.argmax(1) == labels
        results[name]["agrees"] = {c: float(right[labels == k].mean()) for k, c in enumerate(data.classes)}
    results["free"]["style_seen_with_M_0"] = probe(judge, bases, styles, own)
    base_ill = judge.predict(bases).argmax(1) != data.reference
    results["free"]["disease_seen_with_M_0"] = {
        c: float(base_ill[styles == k].mean()) for k, c in enumerate(data.classes)
    }
    if arguments.downstream:
        train = data.indices("train")
        mix = data.labels[train]
        drawn = torch.randint(len(data.classes), (len(mix),), generator=generator(1, "free styles")).numpy()
        learnt = {"real": (np.asarray(data.images[train]), mix)}
        learnt |= {"natural": (make(model, mix, mix, 1)[0], mix), "free": (make(model, mix, drawn, 1)[0], mix)}
        results["downstream"] = downstream(data, learnt, arguments.epochs)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--other-data", action="store_true", help="the model was trained on others, as in evaluate")
    parser.add_argument("--downstream", action="store_true", help="fit classifiers too (minutes each)")
    parser.add_argument("--epochs", type=int, default=12, help="of each such classifier")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.out is not None:
        results_file(arguments.out)
    results = run(arguments)
    names = list(results["real"]["agrees"])
    table = Table("set", "frame AUC", "geometry AUC", "probe AUC", *names, title="columns of classes: agreement")
    for name in ("real", "natural", "free", "lungs grafted", "all but the frame grafted"):
        row = results[name]
        figures = [row["frame_auc"], row["geometry_auc"], row["probe_of_label"], *row["agrees"].values()]
        table.add_row(name, *(f"{f:.3f}" for f in figures))
    console = Console(width=110)
    console.print(table)
    console.print("with M = 0: probe of the style's class", f"{results['free']['style_seen_with_M_0']:.3f},",
                  "disease seen by style", results["free"]["disease_seen_with_M_0"])  # fmt: skip
    for name, row in results.get("downstream", {}).items():
        console.print(f"fitted on {name}:", {k: round(v, 3) for k, v in row.items()})
    if arguments.out is not None:
        write_text(arguments.out, json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    leave(main)
