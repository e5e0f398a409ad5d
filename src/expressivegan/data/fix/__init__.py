"""A manifest → a repaired manifest. Images are never touched, and every change can be undone."""

from expressivegan.data.fix.edit import KINDS
from expressivegan.data.fix.plan import Plan, Row, describe, plan_from_report, read_report
from expressivegan.data.fix.remedies import (
    area_kept,
    best_aspect,
    crop_border,
    drop_duplicates,
    equalise_geometry,
    keep_patients_together,
    mask_markers,
    same_files,
    within,
)
from expressivegan.data.fix.repair import fix
from expressivegan.data.fix.undo import undo

__all__ = [
    "KINDS",
    "Plan",
    "Row",
    "area_kept",
    "best_aspect",
    "crop_border",
    "describe",
    "drop_duplicates",
    "equalise_geometry",
    "fix",
    "keep_patients_together",
    "mask_markers",
    "plan_from_report",
    "read_report",
    "same_files",
    "undo",
    "within",
]
