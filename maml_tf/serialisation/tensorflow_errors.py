"""TensorFlow's errors in words for a user, who knows neither its operations nor its devices.

Imports no TensorFlow.
"""

import re

FOR_DEVELOPERS = (
    r'\{\{.*?\}\}\s*',  # name of a graph's node
    r'\s*\[Op:.*',
    r'^TensorBundle at .* shard \d+ \(.*?\): ',
    r'^Unable to read file .* format changes \(.*?\): ',
)


def reason(error: BaseException) -> str:
    """Returns what went wrong on one line, such as 'No space left on device'.

    What names the file is left out, for it is often a scratch file: a caller names the one that is
    meant.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(getattr(error, 'message', error)).splitlines() or [type(error).__name__]
    text = lines[0]
    for pattern in FOR_DEVELOPERS:
        text = re.sub(pattern, '', text)
    return text.rsplit('; ', 1)[-1].strip()


def is_of_files(error: BaseException) -> bool:
    """Says whether TensorFlow raised it since a file could not be read or written."""
    if not type(error).__module__.startswith('tensorflow.'):
        return False
    from tensorflow import errors

    return isinstance(
        error,
        (
            *(errors.NotFoundError, errors.PermissionDeniedError, errors.ResourceExhaustedError),
            *(errors.AlreadyExistsError, errors.FailedPreconditionError, errors.UnknownError),
            *(errors.DataLossError, errors.OutOfRangeError),  # the latter: a file that is too large
        ),
    )


def cause_of_files(error: BaseException | None) -> BaseException | None:
    """Returns the error of files, Python's or TensorFlow's, that an exception was raised for."""
    while error and not (isinstance(error, OSError) or is_of_files(error)):
        error = error.__cause__
    return error
