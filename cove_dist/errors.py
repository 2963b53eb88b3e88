"""Errors of training and of programs that a user can correct; those of data are `data_pipeline.errors.DataError`."""

from data_pipeline.errors import UserError


class ConfigError(UserError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class CheckpointError(UserError):
    """A checkpoint is missing, incomplete, or belongs to another model."""


class TrainingError(UserError):
    """Training cannot continue: a loss is not finite, or data-parallel parameters drifted apart."""


class DivergedError(TrainingError):
    """A loss or a state is not finite.

    Attributes:
        step: Step at which it was first detected.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class LoggerError(UserError):
    """A logger failed, and errors of loggers stop the run."""


class LostRankError(UserError):
    """Another rank did not take part in a collective in time."""


class DiskFullError(UserError):
    """A file of a run could not be written: its disk is full."""
