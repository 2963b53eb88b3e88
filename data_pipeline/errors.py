"""The one exception that this package raises for bad input."""


class DataError(ValueError):
    """Bad input data. The message names the file, the column, the value, and what to do."""
