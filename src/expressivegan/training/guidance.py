"""What the teacher says about the real images, computed once, and about made ones, in every step."""

import copy
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from expressivegan.atomic import replacing
from expressivegan.checkpoint import state_hash
from expressivegan.data import ImageSet
from expressivegan.errors import InputError
from expressivegan.teacher import CXR_CAM_Teacher


class Guide:
    """A teacher, asked about this set's classes.

    A teacher fitted on the set speaks for each class. One with other classes (torchxrayvision's named weights) has one
    merged map of findings, which then stands for every class but the reference, and no logits to flip.

    Args:
        teacher: is put into evaluation mode, and its parameters are frozen.
        classes: of the set.
        reference: label of the class without a lesion, or None.

    Attributes:
        whole: the teacher as it was given.
        teacher: a copy of it, with batch norms folded into convolutions.
    """

    def __init__(self, teacher: CXR_CAM_Teacher, classes: Sequence[str], reference: int | None) -> None:
        self.whole = teacher.eval().requires_grad_(False)
        self.teacher = copy.deepcopy(self.whole)
        fold_norms(self.teacher.backbone)
        self.classes = len(classes)
        self.reference = reference
        self.own = teacher.classes == tuple(classes)
        if not self.own and not teacher.multi_label:
            raise InputError(
                f"teacher's classes (={list(teacher.classes)}) are not the data's {list(classes)}; "
                "fit one on this set: expressivegan teach"
            )

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images (B, 1, H, W) → referenced maps (B, K, h, w), 1 where the teacher is sure, and logits (B, K) if any."""
        if self.own:
            return self.teacher.class_cams(images)
        merged = self.teacher.merge(*self.teacher.raw_cams(images)).expand(-1, self.classes, -1, -1).clone()
        if self.reference is not None:
            merged[:, self.reference] = 0
        return merged, None


class Told(NamedTuple):
    """What the teacher says of every real image.

    Attributes:
        cams: (N, K, h, w), signed, memory-mapped where it comes from a cache.
        logits: (N, K), or (N, 0) of a teacher that does not know the set's classes.
    """

    cams: npt.NDArray[np.float16]
    logits: npt.NDArray[np.float32]


def look_at_real(guide: Guide, images: ImageSet, cache_dir: Path | None = None, batch: int = 128) -> Told:
    """The teacher's maps and logits of every image.

    Those of *real* images never change: they are kept under a key of teacher, merge, data and resolution.
    """
    key = "-".join(
        (
            "told",
            state_hash(guide.teacher)[:16],
            guide.teacher.meth,
            images.data_hash[:16],
            str(images.resolution),
            images.fit,
        )
    )
    paths = () if cache_dir is None else tuple(cache_dir / f"{key}-{name}.npy" for name in Told._fields)
    if paths and all(path.exists() for path in paths):
        try:
            found = Told(*(np.load(path, mmap_mode="r") for path in paths))
            if len(found.cams) == len(found.logits) == len(images) and found.cams.shape[1] == guide.classes:
                return found
        except (OSError, ValueError, EOFError):
            pass  # a damaged cache is made anew
    like = next(guide.teacher.parameters())
    cams, logits = [], []
    with torch.no_grad():
        for start in range(0, len(images), batch):
            x, _ = images.batch(np.arange(start, min(start + batch, len(images))))
            maps, said = guide(x.to(like))
            cams.append(maps.clamp(-6, 6).half().cpu().numpy())
            logits.append(np.zeros((len(x), 0), np.float32) if said is None else said.float().cpu().numpy())
    made = Told(np.concatenate(cams), np.concatenate(logits))
    arrays: dict[Path, npt.NDArray[Any]] = dict(zip(paths, (made.cams, made.logits), strict=False))
    with suppress(OSError):  # a cache that cannot be kept is no reason to stop
        for path, array in arrays.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, array)
    return made


def fold_norms(network: nn.Module) -> nn.Module:
    """Folds batch norms into the convolutions before them, in place: the same function in evaluation mode, faster."""
    for child in network.children():
        if (
            isinstance(child, nn.Sequential)
            and len(child) == 2
            and isinstance(child[0], nn.Conv2d)
            and isinstance(child[1], nn.BatchNorm2d)
        ):
            child[0] = torch.nn.utils.fusion.fuse_conv_bn_eval(child[0], child[1])
            child[1] = nn.Identity()
        else:
            fold_norms(child)
    return network
