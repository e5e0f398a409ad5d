"""What `memorisation_report` refuses, each in one sentence."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from expressivegan.errors import InputError
from expressivegan.evaluation.memorisation.distances import Ints, UInt8Array

NAMES = ("generated", "training", "heldout")
LEAST_IMAGES = 20
LEAST_PATIENTS = 10
_LEAST_SIDE = 16


def checked_images(images: Sequence[UInt8Array]) -> list[UInt8Array]:
    """Generated, training and held-out images, of one size.

    Raises:
        InputError: not uint8 (N, H, W), N < 20, sides under 16 pixels, unequal sizes, or pools of the same pictures.
    """
    found = [_checked(i, name) for i, name in zip(images, NAMES, strict=True)]
    if len({i.shape[1:] for i in found}) > 1:
        sizes = ", ".join(f"{name} {i.shape[1]}x{i.shape[2]}" for i, name in zip(found, NAMES, strict=True))
        raise InputError(f"images must have one size, not {sizes}; resize them alike")
    known = {hash(i.tobytes()) for i in found[1]}
    same = sum(hash(i.tobytes()) in known for i in found[2])
    if same > len(found[2]) / 10:
        raise InputError(
            f"heldout holds {same} of {len(found[2])} pictures that training holds as well; "
            "give patients that the generator has not seen"
        )
    return found


def checked_patients(
    names: Sequence[Sequence[str] | npt.NDArray[np.str_]], images: Sequence[UInt8Array]
) -> list[npt.NDArray[np.str_]]:
    """Names of the training and of the held-out patients.

    Raises:
        InputError: another number than images, fewer than 10 patients, or a patient in both pools.
    """
    found = []
    for given, pool, name in zip(names, images, NAMES[1:], strict=True):
        said = np.asarray(given).astype(str)
        if said.shape != (len(pool),):
            raise InputError(f"{name}_patients must be {len(pool)} names, one an image, not of shape {said.shape}")
        different = len(np.unique(said))
        if different < LEAST_PATIENTS:
            raise InputError(f"{name}_patients names {different} patients, at least {LEAST_PATIENTS} are needed")
        found.append(said)
    shared = np.intersect1d(found[0], found[1])
    if len(shared):
        raise InputError(f"heldout_patients holds {len(shared)} patients of training_patients, such as '{shared[0]}'")
    return found


def checked_labels(labels: tuple[npt.ArrayLike, npt.ArrayLike] | None, pools: Sequence[UInt8Array]) -> Ints:
    """Classes of training followed by held-out images; 0 without labels.

    Raises:
        InputError: not two arrays, or not an integer for each image.
    """
    if labels is None:
        return np.zeros(sum(map(len, pools)), np.int64)
    if len(labels) != 2:
        raise InputError(f"labels must be those of training and of heldout, not {len(labels)} arrays")
    return np.concatenate(
        [_integers(p, len(i), f"labels of {n}") for p, i, n in zip(labels, pools, NAMES[1:], strict=True)]
    )


def checked_generated_labels(
    generated_labels: npt.ArrayLike | None, count: int, real: Ints | None, classes: Sequence[str] | None
) -> tuple[Ints | None, dict[int, str]]:
    """Classes of the generated images, and the name of each class that occurs among them.

    Args:
        generated_labels: (N,) integers.
        count: N.
        real: classes of the real images; None where they were not given.
        classes: names by label; None takes the numbers.

    Raises:
        InputError: not an integer for each image, no labels of the real images, or a label without a name.
    """
    if generated_labels is None:
        return None, {}
    found = _integers(generated_labels, count, "generated_labels")
    if real is None:
        raise InputError("generated_labels (given) need labels of the training and held-out images as well; pass them")
    every = np.unique(found).tolist()
    if classes is not None and (every[0] < 0 or every[-1] >= len(classes)):
        raise InputError(
            f"generated_labels span {every[0]}..{every[-1]}, allowed is 0..{len(classes) - 1} ({len(classes)} classes)"
        )
    return found, {k: str(k) if classes is None else classes[k] for k in every}


def _integers(values: npt.ArrayLike, count: int, name: str) -> Ints:
    given = np.asarray(values)
    if given.shape != (count,) or given.dtype.kind not in "iu":
        raise InputError(f"{name} must be {count} integers, not {given.dtype} {given.shape}")
    return given.astype(np.int64)


def _checked(images: UInt8Array, name: str) -> UInt8Array:
    given = np.asarray(images)
    if given.ndim != 3 or given.dtype != np.uint8:
        raise InputError(
            f"{name} must be uint8 (N, H, W), not {given.dtype} {given.shape}; convert to grey levels 0..255"
        )
    if len(given) < LEAST_IMAGES:
        raise InputError(f"{name} holds {len(given)} images, at least {LEAST_IMAGES} are needed")
    if min(given.shape[1:]) < _LEAST_SIDE:
        raise InputError(
            f"{name} are {given.shape[1]}x{given.shape[2]}, at least {_LEAST_SIDE} pixels a side are needed"
        )
    return given
