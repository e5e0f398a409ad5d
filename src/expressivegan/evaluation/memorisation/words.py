"""What was found, in plain words."""

from collections.abc import Mapping

from expressivegan.evaluation.memorisation.calibration import Calibration
from expressivegan.evaluation.memorisation.distances import UInt8Array
from expressivegan.evaluation.memorisation.findings import ClassRow, Findings
from expressivegan.evaluation.memorisation.inputs import NAMES
from expressivegan.evaluation.memorisation.membership import Membership

_FEW = 1000  # generated images, below which replay of 2% may be missed
_FEW_PATIENTS = 100


def verdict(
    flagged: bool, found: Findings, blends: list[int], membership: Membership, rows: Mapping[str, ClassRow]
) -> str:
    """One to three sentences."""
    share = found.equal_pools.share
    figures = (
        f"{found.copies} of {found.generated} images are near-duplicates of training images ({found.copies_heldout} of "
        f"held-out ones), {blends[0]} are blends of two ({blends[1]}), and {share.value:.1%} "
        f"[{share.low:.1%}, {share.high:.1%}] are nearer to training than to held-out images at pools of one size "
        f"(p = {found.excess.p_value:.2g})"
    )
    if flagged and found.copies > found.copies_heldout:
        said = f"The generator copies training images: {figures}."
    elif flagged:
        said = f"The generator remembers its training images, though not whole ones: {figures}."
    elif any(row.flagged for row in rows.values()):
        said = f"The images of some class repeat training images, which all of them together do not show: {figures}."
    elif membership.leaks:
        said = f"The images give training patients away, though copies beyond chance are not among them: {figures}."
    else:
        said = f"No sign of memorisation: {figures}."
    for name, row in rows.items():
        if row.flagged and row.findings is not None:
            p, own = row.findings.excess.p_value, row.findings.copies
            said += f" {name} stands out: {own} of {row.generated} images are near-duplicates (p = {p:.2g})."
    if membership.leaks:
        auc = membership.auc
        figure = f"AUC {auc.value:.2f} [{auc.low:.2f}, {auc.high:.2f}]"
        if auc.low <= 0.5:
            figure = f"{membership.tpr.value:.0%} of the training images at 1% false positives"
        said += f" An attacker can tell training patients from others ({figure})."
    return said


def notes(
    images: list[UInt8Array], calibration: Calibration, heldout_patients: int, rows: Mapping[str, ClassRow]
) -> list[str]:
    """What limits the figures."""
    said = []
    if len(images[0]) < _FEW:
        said.append(f"With {len(images[0])} generated images rare copies may be missed; generate 2,000 or more.")
    if not len(calibration.repeats):
        said.append("No training patient has two exposures, so the threshold rests on strangers alone.")
    if heldout_patients < _FEW_PATIENTS:
        said.append(f"With {heldout_patients} held-out patients chance is hard to tell; 100 or more are better.")
    for i, name in zip(images, NAMES, strict=True):
        blank = int((i.reshape(len(i), -1).max(1) == i.reshape(len(i), -1).min(1)).sum())
        if blank:
            said.append(f"{blank} of {len(i)} {name} images are blank.")
    if calibration.same_file:
        said.append(f"{calibration.same_file} pairs of real images are one exposure stored twice.")
    few = [f"{name} ({row.generated})" for name, row in rows.items() if row.findings is None]
    if few:
        said.append(f"Too few generated images for a row of their own: {', '.join(few)}.")
    return said
