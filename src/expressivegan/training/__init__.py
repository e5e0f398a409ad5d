"""Training: losses, augmentation and the loop. It gets an `evaluate` callback and never imports evaluation."""

from expressivegan.training.guidance import Guide
from expressivegan.training.loop import TrainResult, train
from expressivegan.training.rundir import RunDirectory

__all__ = ["Guide", "RunDirectory", "TrainResult", "train"]
