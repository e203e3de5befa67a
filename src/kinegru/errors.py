"""The failures a user can meet, each a single line that says which file, what is wrong and what to do.

A verb prints the message without a traceback and exits with `exit_status`; anything else that is raised is a bug
and is shown as one.
"""


class KineGRUError(Exception):
    """A failure that is explained by its message alone.

    >>> str(KineGRUError("clip.mp4: holds no video stream"))
    'clip.mp4: holds no video stream'
    """

    exit_status = 1


class UsageError(KineGRUError):
    """The command or the call was wrong: an unknown option value, settings that contradict each other."""

    exit_status = 2


class VideoError(KineGRUError):
    """A file that cannot be read as video: missing, empty, truncated, without a video stream."""


class DataError(KineGRUError):
    """A data set or a split that cannot be used: no clips, an unknown column, one group only."""


class ModelFileError(KineGRUError):
    """A model file that cannot be used: not one of ours, truncated, of a newer format, without labels."""


def first_line(error: BaseException) -> str:
    """The reason that another library gave, in one line.

    >>> first_line(ValueError("no such host\\n  at all")), first_line(ValueError())
    ('no such host', 'no reason given')
    """
    return (str(error).strip().splitlines() or ["no reason given"])[0]
