"""Memorisation: does a generator repeat the images that it learnt from?"""

from expressivegan.evaluation.memorisation.calibration import Calibration, calibrate
from expressivegan.evaluation.memorisation.distances import likeness
from expressivegan.evaluation.memorisation.findings import ClassRow, Findings
from expressivegan.evaluation.memorisation.gallery import ClosePair, draw_gallery
from expressivegan.evaluation.memorisation.membership import Membership, attack
from expressivegan.evaluation.memorisation.permutation import EqualPools, Evidence, Excess
from expressivegan.evaluation.memorisation.report import MemorisationReport, memorisation_report

__all__ = [
    "Calibration",
    "ClassRow",
    "ClosePair",
    "EqualPools",
    "Evidence",
    "Excess",
    "Findings",
    "Membership",
    "MemorisationReport",
    "attack",
    "calibrate",
    "draw_gallery",
    "likeness",
    "memorisation_report",
]
