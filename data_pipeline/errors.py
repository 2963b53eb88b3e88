"""Errors that a user can correct."""


class UserError(Exception):
    """Base of the errors that a user can correct. Programs print its message without a traceback and exit with 2."""


class DataError(UserError):
    """Data are missing or invalid, or a setting of a data set (``data.*``) is.

    Raised by everything that reads or prepares data. Settings of training have `cove_dist.errors.ConfigError`. The
    message names the file, the column, the value, what is allowed and what to do.
    """


class OutputError(UserError):
    """A file or folder could not be written; the message names it and states the reason."""
