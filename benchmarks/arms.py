"""The arms of search.py: what each changes in the settings of a preset."""

from dataclasses import replace
from typing import Any

from expressivegan.config import UNGUIDED, TrainConfig, preset

Settings = dict[str, Any]

# What a search of the recipe varies, one or two things at a time. Without guidance: the default has none in its first
# six tenths either, and what begins late would make short arms hard to compare.
_RECIPE: dict[str, Settings] = {
    name: {"preset": "unguided"} | changes
    for name, changes in {
        "unguided": {},
        "gamma 3 throughout": {"gamma_end": 3.0},
        "gamma 3 to 0.05": {"gamma_end": 0.05},
        "gamma 1 to 0.2": {"gamma": 1.0},
        "gamma 10 to 0.7": {"gamma": 10.0, "gamma_end": 0.7},
        "penalty every 2": {"penalty_every": 2},
        "penalty every 4": {"penalty_every": 4},
        "rate 2e-4": {"rate": 2e-4},
        "rate 8e-4": {"rate": 8e-4},
        "rate to 0": {"rate_end": 0.0},
        "beta1 0.5": {"beta1": 0.5},
        "augment 0": {"augment": 0.0},
        "augment 0.3": {"augment": 0.3},
        "width 64": {"width": 64},
        "width 128": {"width": 128},
        "width 128, penalty every 4": {"width": 128, "penalty_every": 4},
        "width 160": {"width": 160},
        "finest width 24": {"min_width": 24},
        "class head 0.3": {"class_weight": 0.3},
        "diversity 0": {"diversity_weight": 0.0},
        "diversity 0.3": {"diversity_weight": 0.3},
        "uniform classes": {"classes": "uniform"},
        "batch 8": {"batch": 8},
        "batch 32": {"batch": 32},
        "batch 32, rate 8e-4": {"batch": 32, "rate": 8e-4},
        "EMA half as long": {"ema_kimg": 10.0, "ema_share": 0.025},
        "EMA twice as long": {"ema_kimg": 40.0, "ema_share": 0.1},
    }.items()
}

# How strongly the teacher's terms weigh, and when free pairs come; guided from the start, since arms are short.
_WEIGHTS: dict[str, Settings] = {
    name: {"guided_after": 0.0} | changes
    for name, changes in {
        "default": {},
        "guidance x 0.3": {"cam_weight_d": 0.1, "cam_weight_g": 0.1, "logit_weight": 0.01, "flip_weight": 0.015},
        "guidance x 3": {"cam_weight_d": 1.0, "cam_weight_g": 1.0, "logit_weight": 0.1, "flip_weight": 0.15},
        "logits x 0.3": {"logit_weight": 0.01},
        "logits x 3": {"logit_weight": 0.1},
        "no steering": {"steer_share": 0.0, "steer_weight": 0.0, "steer_drawn": 0.0},
        "no free pairs": {"free_share": 0.0, "steer_drawn": 0.0},
        "an eighth free, from 0.5": {"free_share": 0.125, "free_after": 0.5},
    }.items()
}


def _only(*names: str) -> Settings:
    return {name: value for name, value in UNGUIDED.items() if name not in names}


_GUIDANCE: dict[str, Settings] = {
    # arms are short, and late guidance would hardly have begun
    name: {"guided_after": 0.0} | changes
    for name, changes in {
        "all": {},
        "none": UNGUIDED,
        "D matching": _only("cam_weight_d"),
        # M needs a limit of its area, or the map that costs least is the one that is everywhere
        "G matching": _only("cam_weight_g", "area_weight", "delta_weight"),
        "acting maps": _only(
            "flip_weight", "area_weight", "delta_weight", "steer_weight", "steer_share", "steer_drawn", "free_share"
        ),
        "logits": _only("logit_weight"),
        "D matching and logits": _only("cam_weight_d", "logit_weight"),
        "all but free pairs": {"free_share": 0.0, "steer_drawn": 0.0},
    }.items()
}

# The original's loop, tuned: a baseline deserves the same care.
_DCGAN: dict[str, Settings] = {
    name: {"preset": "dcgan"} | changes
    for name, changes in {
        "original": {},
        "augment 0.3": {"augment": 0.3},
        "rate 1e-4": {"rate": 1e-4, "rate_end": 1e-4},
        "rate 4e-4, falling to 1e-4": {"rate": 4e-4, "rate_end": 1e-4},
        "batch 16": {"batch": 16},
        "batch 64": {"batch": 64},
        "uniform classes": {"classes": "uniform"},
        "a tenth of the maps' weight": {"cam_weight_d": 0.1, "cam_weight_g": 0.1},
        "EMA twice as long": {"ema_kimg": 40.0, "ema_share": 0.1},
    }.items()
}

ARMS = {"recipe": _RECIPE, "weights": _WEIGHTS, "guidance": _GUIDANCE, "dcgan": _DCGAN}
"""Name of a table → name of an arm → what it changes in `preset`, or in cpu-64."""


def arm(changes: Settings, **more: Any) -> TrainConfig:
    """The settings of an arm."""
    settings = {name: value for name, value in changes.items() if name != "preset"}
    return replace(preset(changes.get("preset", "cpu-64")).config, **(settings | more))
