"""Feature spaces in which generated and real images are compared.

Several, because published chest X-ray generators swap ranks between feature spaces. Two are fitted here, on the judge
patients alone: a classifier of the labels (`judge`) stretches the class axis and is blind to what the labels do not
need; a self-supervised network (`selfsup`) has never seen a label. Neither shares patients with the generator (train
group) nor with the images that serve as reference, nor an architecture with the teacher. Fitting takes minutes on two
CPU cores and is cached on disk. The others come with published weights or from the user: `open_space`.
"""

from expressivegan.evaluation.features.cache import cached_features
from expressivegan.evaluation.features.frame import Frame, mask_border
from expressivegan.evaluation.features.judge import JudgeClassifier, JudgeRecipe
from expressivegan.evaluation.features.opening import open_space
from expressivegan.evaluation.features.selfsup import SelfSupervisedFeatures, SelfSupervisedRecipe
from expressivegan.evaluation.features.space import SPACES, FeatureSpace, FloatArray

__all__ = [
    "SPACES",
    "FeatureSpace",
    "FloatArray",
    "Frame",
    "JudgeClassifier",
    "JudgeRecipe",
    "SelfSupervisedFeatures",
    "SelfSupervisedRecipe",
    "cached_features",
    "mask_border",
    "open_space",
]
