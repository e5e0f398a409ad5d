"""Evidence: how close generated images are to real ones of other patients, in whose eyes, and how varied."""

from expressivegan.evaluation.agreement import agreement_report
from expressivegan.evaluation.anatomy import anatomy_report, landmarks
from expressivegan.evaluation.collapse import CollapseReport, collapse_report
from expressivegan.evaluation.collect import Generated, Model, from_model, open_for_evaluation, read_generated
from expressivegan.evaluation.comparison import Comparison
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
from expressivegan.evaluation.memorisation import memorisation_report
from expressivegan.evaluation.neighbours import Neighbours
from expressivegan.evaluation.run import SECTIONS, SUITES, Evaluation
from expressivegan.evaluation.shortcuts import shortcut_report
from expressivegan.evaluation.ssim import ms_ssim, ssim_diversity

__all__ = [
    "PRDC",
    "SECTIONS",
    "SUITES",
    "CollapseReport",
    "Comparison",
    "Evaluation",
    "FeatureSpace",
    "Generated",
    "JudgeClassifier",
    "JudgeRecipe",
    "Model",
    "Neighbours",
    "Reference",
    "SelfSupervisedFeatures",
    "SelfSupervisedRecipe",
    "agreement_report",
    "anatomy_report",
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
    "from_model",
    "kid",
    "landmarks",
    "make_ladder",
    "memorisation_report",
    "ms_ssim",
    "nearest_distances",
    "open_for_evaluation",
    "pairwise_diversity",
    "place_on_ladder",
    "prdc",
    "read_generated",
    "shortcut_report",
    "ssim_diversity",
]
