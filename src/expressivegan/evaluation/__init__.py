"""Evidence: how close generated images are to real ones of other patients, in whose eyes, and how varied."""

from expressivegan.evaluation.collapse import CollapseReport, collapse_report
from expressivegan.evaluation.diversity import (
    distinct_images,
    diversity_report,
    duplicate_rate,
    duplicate_threshold,
    nearest_distances,
    pairwise_diversity,
)
from expressivegan.evaluation.draws import draw_mix
from expressivegan.evaluation.features import (
    FeatureSpace,
    JudgeClassifier,
    JudgeRecipe,
    SelfSupervisedFeatures,
    SelfSupervisedRecipe,
)
from expressivegan.evaluation.fidelity import Reference, fidelity_report
from expressivegan.evaluation.frechet import fid, fid_interval
from expressivegan.evaluation.kernel import kid
from expressivegan.evaluation.ladder import floor_draws, make_ladder, place_on_ladder
from expressivegan.evaluation.manifolds import PRDC, prdc
from expressivegan.evaluation.neighbours import Neighbours
from expressivegan.evaluation.ssim import ms_ssim, ssim_diversity

__all__ = [
    "PRDC",
    "CollapseReport",
    "FeatureSpace",
    "JudgeClassifier",
    "JudgeRecipe",
    "Neighbours",
    "Reference",
    "SelfSupervisedFeatures",
    "SelfSupervisedRecipe",
    "collapse_report",
    "distinct_images",
    "diversity_report",
    "draw_mix",
    "duplicate_rate",
    "duplicate_threshold",
    "fid",
    "fid_interval",
    "fidelity_report",
    "floor_draws",
    "kid",
    "make_ladder",
    "ms_ssim",
    "nearest_distances",
    "pairwise_diversity",
    "place_on_ladder",
    "prdc",
    "ssim_diversity",
]
