"""Errors meant for people: one line that says what is wrong, where, and what to do. The command line prints it bare."""

from __future__ import annotations


class AsrError(Exception):
    """Base of every error whose message alone is enough for the user; the command line shows no traceback for it."""


class AudioError(AsrError):
    """A recording is missing, empty, unreadable or holds no usable samples. The message names the file."""


class ManifestError(AsrError):
    """A manifest row is malformed. The message names file and line."""


class TextError(AsrError):
    """A transcript cannot be normalized or spelled with the model's alphabet."""


class ModelFileError(AsrError):
    """A file is not a model of ours, is damaged, or was written by a newer version."""


class ConfigError(AsrError):
    """A configuration key or value is not valid. The message names the key and the nearest valid one."""


class UsageError(AsrError):
    """The command was called in a way that cannot work; the command line exits with status 2."""


def in_words(error: BaseException) -> str:
    """One line for an error that nobody expected, where one input's trouble must not end the work on others."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    return " ".join(f"unexpected {type(error).__name__}: {error}".split()).rstrip(": ")
