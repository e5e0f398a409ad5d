"""Anatomy of chest X-rays: measured landmarks, and synthetic images against real ones."""

from expressivegan.evaluation.anatomy.curves import Masks, MaskSource
from expressivegan.evaluation.anatomy.draw import draw_landmarks
from expressivegan.evaluation.anatomy.landmarks import MEASURES, Landmarks, landmarks
from expressivegan.evaluation.anatomy.pspnet import PSPNetMasks
from expressivegan.evaluation.anatomy.report import (
    QUANTILES,
    VIOLATIONS,
    AnatomyReport,
    anatomy_report,
    compare_landmarks,
)

__all__ = [
    "MEASURES",
    "QUANTILES",
    "VIOLATIONS",
    "AnatomyReport",
    "Landmarks",
    "MaskSource",
    "Masks",
    "PSPNetMasks",
    "anatomy_report",
    "compare_landmarks",
    "draw_landmarks",
    "landmarks",
]
