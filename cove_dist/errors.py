"""Errors that a user can mend: shown as one message, without a traceback."""


class UserError(Exception):
    """Base of the errors below."""


class ConfigError(UserError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class CheckpointError(UserError):
    """A checkpoint is missing, incomplete, or belongs to another model."""


class TrainingError(UserError):
    """Training cannot go on: a loss that is not finite, or replicas that drifted apart."""
