"""Evidence: how close generated images are to real ones of other patients, in whose eyes, and how varied."""

from expressivegan.evaluation.features import (
    FeatureSpace,
    JudgeClassifier,
    JudgeRecipe,
    SelfSupervisedFeatures,
    SelfSupervisedRecipe,
)
from expressivegan.evaluation.fidelity import (
    PRDC,
    CollapseReport,
    collapse_report,
    distinct_images,
    diversity_report,
    draw_mix,
    duplicate_rate,
    duplicate_threshold,
    fid,
    kid,
    nearest_distances,
    pairwise_diversity,
    prdc,
)

__all__ = [
    "PRDC",
    "CollapseReport",
    "FeatureSpace",
    "JudgeClassifier",
    "JudgeRecipe",
    "SelfSupervisedFeatures",
    "SelfSupervisedRecipe",
    "collapse_report",
    "distinct_images",
    "diversity_report",
    "draw_mix",
    "duplicate_rate",
    "duplicate_threshold",
    "fid",
    "kid",
    "nearest_distances",
    "pairwise_diversity",
    "prdc",
]
