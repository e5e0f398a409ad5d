"""Do maps show what they claim to? Figures on arrays, controls, sanity checks, and the report on a run."""

from expressivegan.evaluation.faithfulness.arrays import Score, enlarge
from expressivegan.evaluation.faithfulness.change import captured, correlation, smallest_region
from expressivegan.evaluation.faithfulness.controls import CONTROLS, controls
from expressivegan.evaluation.faithfulness.evidence import evidence_report
from expressivegan.evaluation.faithfulness.explainers import (
    class_cam_maps,
    evidence_maps,
    generator_maps,
    teacher_class_maps,
    teacher_maps,
)
from expressivegan.evaluation.faithfulness.imputation import impute
from expressivegan.evaluation.faithfulness.localisation import (
    iou_at_area,
    mass_in,
    pointing_game,
    rank_accuracy,
    relevance_mass,
)
from expressivegan.evaluation.faithfulness.lungs import lung_masks
from expressivegan.evaluation.faithfulness.perturbation import deletion, insertion, road
from expressivegan.evaluation.faithfulness.report import FIGURES, Truth, compare, faithfulness_report, score_maps
from expressivegan.evaluation.faithfulness.sanity import (
    cascade,
    likeness,
    random_logit,
    random_pairs,
    repeatability,
    spearman,
    ssim,
)
from expressivegan.evaluation.faithfulness.section import Networks, faithfulness_section

__all__ = [
    "CONTROLS",
    "FIGURES",
    "Networks",
    "Score",
    "Truth",
    "captured",
    "cascade",
    "class_cam_maps",
    "compare",
    "controls",
    "correlation",
    "deletion",
    "enlarge",
    "evidence_maps",
    "evidence_report",
    "faithfulness_report",
    "faithfulness_section",
    "generator_maps",
    "impute",
    "insertion",
    "iou_at_area",
    "likeness",
    "lung_masks",
    "mass_in",
    "pointing_game",
    "random_logit",
    "random_pairs",
    "rank_accuracy",
    "relevance_mass",
    "repeatability",
    "road",
    "score_maps",
    "smallest_region",
    "spearman",
    "ssim",
    "teacher_class_maps",
    "teacher_maps",
]
