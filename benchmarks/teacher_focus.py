"""What do a teacher's decisions and maps rest on: lungs, frame, or markers?

    python benchmarks/teacher_focus.py --data DIR --teacher T [T ...] [--group GROUP ...] [--markers] [--out FILE]

Decisions: AUC of disease and three-class accuracy of patients that the teacher has not seen, on the images as they are
and with the outer 10% filled (mean, noise, the frame of another class, of the same class), the markers painted over,
or nothing but the frame left. Maps: the share of |CAM| of the diseased in the frame, outside the thorax window, and
outside the lungs as measured. With phantoms (`--data phantom`): do the maps lie on the focal lesions? With
`--markers` the letters are searched at 224 px as `expressivegan data doctor` does, which takes minutes.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ending import leave
from sklearn.metrics import roc_auc_score

from expressivegan.data import ImageSet, load_images
from expressivegan.data.doctor import letters
from expressivegan.devices import bf16_where_fast
from expressivegan.evaluation.faithfulness.controls import controls
from expressivegan.evaluation.faithfulness.localisation import iou_at_area, pointing_game, relevance_mass
from expressivegan.evaluation.faithfulness.lungs import lung_masks
from expressivegan.images import from_uint8
from expressivegan.intervals import Interval, mean_interval
from expressivegan.teacher import CXR_CAM_Teacher, open_teacher
from expressivegan.teacher.focus import absolute_mass_in, donors, focus, frame_mask, look, with_frames_of

Pixels = npt.NDArray[np.uint8]
Chances = npt.NDArray[np.float64]


def spoiled(images: Pixels, labels: npt.NDArray[np.int64]) -> dict[str, Pixels]:
    """Name → the images with the frame, or all but the frame, taken from elsewhere."""
    rng = np.random.default_rng(0)
    mean = np.broadcast_to(images.mean((1, 2), keepdims=True).astype(np.uint8), images.shape)
    noise = rng.integers(0, 256, images.shape, dtype=np.uint8)
    return {
        "as they are": images,
        "frame: mean": with_frames_of(images, mean),
        "frame: noise": with_frames_of(images, noise),
        "frame: another class": with_frames_of(images, images[donors(labels, True)]),
        "frame: same class": with_frames_of(images, images[donors(labels, False)]),
        "frame only": np.where(frame_mask(images.shape[-1]), images, mean),
    }


def without_markers(images: Pixels, large: Pixels) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """Images with their markers filled with the median of what surrounds them, and which images have one."""
    found, marked = images.copy(), np.zeros(len(images), bool)
    side = images.shape[-1]
    for i, picture in enumerate(large):
        for mark in letters.marks(np.asarray(picture)):
            left, top, right, bottom = (v * side / letters.SIDE for v in mark.box)
            x, y = (
                slice(max(int(left) - 1, 0), int(np.ceil(right)) + 1),
                slice(max(int(top) - 1, 0), int(np.ceil(bottom)) + 1),
            )
            around = found[i, max(y.start - 2, 0) : y.stop + 2, max(x.start - 2, 0) : x.stop + 2]
            found[i, y, x] = np.median(around)
            marked[i] = True
    return found, marked


def figures(chances: Chances, labels: npt.NDArray[np.int64], reference: int) -> dict[str, float]:
    """AUC of disease, and three-class accuracy."""
    return {
        "auc": round(float(roc_auc_score(labels != reference, 1 - chances[:, reference])), 4),
        "accuracy": round(float((chances.argmax(1) == labels).mean()), 4),
    }


def lesions(teacher: CXR_CAM_Teacher, images: ImageSet, indices: npt.NDArray[np.int64]) -> dict[str, Any]:
    """How well maps lie on the focal lesions of phantoms, beside maps that know nothing of the network."""
    assert images.masks is not None
    focal = images.classes.index("BACTERIA")
    indices = indices[images.labels[indices] == focal]
    indices = indices[np.asarray(images.masks[indices]).any((1, 2))]
    pixels, masks = np.asarray(images.images[indices]), np.asarray(images.masks[indices])
    patients = [str(p) for p in np.asarray(images.patients)[indices]]
    maps = {"teacher": look(teacher, pixels)[0][:, focal]} | controls(pixels, cells=16)
    measures = {"pointing_game": pointing_game, "iou_at_area": iou_at_area, "relevance_mass": relevance_mass}
    return {"images": len(indices), "area": round(float(masks.mean()), 3)} | {
        name: {key: rounded(mean_interval(measure(m, masks), patients)) for key, measure in measures.items()}
        for name, m in maps.items()
    }


def rounded(interval: Interval) -> list[float]:
    """Value, low, high."""
    return [round(v, 4) for v in interval]


def guiding_cost(teacher: CXR_CAM_Teacher, batch: int = 32, repeats: int = 10) -> float:
    """Milliseconds of CPU that a pass with its gradient for the images takes: what guidance costs in a step."""
    x = from_uint8(
        np.random.default_rng(0).integers(0, 256, (batch, 1, teacher.resolution, teacher.resolution), np.uint8)
    )
    teacher.requires_grad_(False)
    times = []
    for _ in range(repeats):
        x = x.detach().requires_grad_(True)
        start = time.process_time()
        with bf16_where_fast("cpu"):
            maps, logits = teacher.class_cams(x)
        (maps.square().mean() + logits.square().mean()).backward()  # type: ignore[no-untyped-call]
        times.append(time.process_time() - start)
    return round(1000 * float(np.median(times)), 1)


def measure(
    teacher: CXR_CAM_Teacher, images: ImageSet, groups: list[str], source: str, markers: bool
) -> dict[str, Any]:
    """All figures of one teacher."""
    indices = np.concatenate([images.indices(group) for group in groups])
    pixels, labels = np.asarray(images.images[indices]), images.labels[indices]
    assert images.reference is not None
    seen = {name: look(teacher, x)[1] for name, x in spoiled(pixels, labels).items()}
    found: dict[str, Any] = {"decisions": {n: figures(c, labels, images.reference) for n, c in seen.items()}}
    plain = seen["as they are"].argmax(1)
    for name, chances in seen.items():
        found["decisions"][name]["changed"] = round(float((chances.argmax(1) != plain).mean()), 4)
    if markers:
        large = load_images(source, letters.SIDE, progress=False)
        masked, marked = without_markers(pixels, np.asarray(large.images[indices]))
        chances = look(teacher, masked)[1]
        found["decisions"]["markers painted over"] = figures(chances, labels, images.reference) | {
            "share_with_a_marker": round(float(marked.mean()), 3),
            "changed": round(float((chances.argmax(1) != plain)[marked].mean()), 4),
        }
    patients = [str(p) for p in np.asarray(images.patients)[indices]]
    found["focus"] = {
        k: rounded(interval) for k, interval in focus(teacher, pixels, labels, patients, rounds=200)._asdict().items()
    }
    if pixels.shape[-1] == 64:
        lungs, both = lung_masks(pixels)
        ill = both & (labels != images.reference)
        own = look(teacher, pixels[ill])[0][np.arange(ill.sum()), labels[ill]]
        shares = [absolute_mass_in(own[i : i + 1], (~lungs[ill][i]).astype(float))[0] for i in range(len(own))]
        found["mass_outside_lungs"] = {
            "value": round(float(np.mean(shares)), 4),
            "area": round(float((~lungs[ill]).mean()), 4),
        }
    if images.masks is not None:
        found["lesions"] = lesions(teacher, images, indices)
    found["guiding_ms"] = guiding_cost(teacher)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--teacher", nargs="+", required=True)
    parser.add_argument("--group", nargs="+", default=["reference"], choices=["judge", "reference"])
    parser.add_argument("--markers", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results = {}
    for name in arguments.teacher:
        teacher = open_teacher(name)
        images = load_images(arguments.data, teacher.resolution, progress=False)
        results[name] = measure(teacher, images, arguments.group, arguments.data, arguments.markers)
        print(name, json.dumps(results[name], indent=1), flush=True)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    leave(main)
