"""Failures that a user can act on. Each carries one sentence that names the argument, its value and the way out.

The command line turns every `ExpressiveGANError` into that sentence and exit code 2; anything else is our bug.
"""


class ExpressiveGANError(Exception):
    """Base of every failure that this package raises on purpose."""


class InputError(ExpressiveGANError, ValueError):
    """An argument, a tensor or a setting lies outside what is allowed."""


class DataError(ExpressiveGANError):
    """A data set, an image or a cache cannot be used as it is."""


class UnlabelledError(DataError):
    """Files lie there, and nothing says of which classes they are."""


class CheckpointError(ExpressiveGANError):
    """A checkpoint or a model directory is missing, damaged, or belongs to something else."""


class OfflineError(ExpressiveGANError):
    """Something must be downloaded and cannot be."""


class TrainingError(ExpressiveGANError):
    """Training cannot go on, for example because a loss term is not finite."""


class Stopped(Exception):  # noqa: N818
    """The user stopped a run that can go on; the message says how."""
