"""Typed configuration: YAML and `key=value` overrides checked against dataclasses; a typo is an error."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from asr.files import read_text
from asr.types import ConfigError

T = TypeVar("T")

# The type of a setting that names a file or a folder: `~` and environment variables in it are expanded here, once.
FilePath = Annotated[str, "path"]


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build the dataclass `cls` from a nested mapping, checking every key and value type.

    `where` is the dotted path so far, for messages. Raises ConfigError naming an unknown key and the nearest valid one,
    or a value that does not have the declared type. A dataclass may have class methods `chosen(values, where)`, which
    returns the subclass to build, and `renamed(values, where)`, which updates the keys of older versions.
    """
    kind: Any = cls
    if hasattr(kind, "chosen"):
        kind = kind.chosen(values, where)
    if hasattr(kind, "renamed"):
        values = kind.renamed(values, where)
    hints = typing.get_type_hints(kind, include_extras=True)
    known = {f.name: hints[f.name] for f in dataclasses.fields(kind)}
    built: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in known:
            raise ConfigError(f"unknown configuration key '{path}'{nearest(str(key), known)}")
        built[key] = _coerce(value, known[key], path)
    try:
        return kind(**built)
    except TypeError as error:  # a required field is missing
        raise ConfigError(f"{where or kind.__name__}: {error}") from error
    except ValueError as error:  # a field's value was refused by __post_init__
        raise ConfigError(f"{where + ': ' if where else ''}{error}") from error


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as nested plain dicts, lists, strings and numbers (for YAML, JSON and checkpoints).

    Settings that are None, which is then their default, are left out.
    """
    return _plain(dataclasses.asdict(config, dict_factory=lambda items: {k: v for k, v in items if v is not None}))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises ConfigError with file and line if it is missing or malformed."""
    import yaml

    text = read_text(path, ConfigError)
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: a configuration is a mapping of keys to values, found {type(loaded).__name__}")
    return loaded


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply `a.b=value` overrides (values parsed as YAML) to a nested mapping and return a new one."""
    import copy

    import yaml

    result = copy.deepcopy(values)
    for override in overrides:
        path, sign, text = override.partition("=")
        keys = path.strip().split(".")
        if not sign or not all(keys):
            raise ConfigError(f"override '{override}' is not of the form key=value")
        try:
            value = yaml.safe_load(text) if text.strip() else ""
        except yaml.YAMLError as error:
            raise ConfigError(f"override '{override}': the value is not valid YAML") from error
        node = result
        for key in keys[:-1]:
            child = node.setdefault(key, {})
            if not isinstance(child, dict):
                raise ConfigError(f"override '{override}': '{key}' is a value, it has no keys below it")
            node = child
        node[keys[-1]] = value
    return result


def expand_path(path: str, where: str) -> str:
    """`path` with `~` and `$VARIABLES` expanded. Raises ConfigError, naming the setting `where`, for unknown ones."""
    try:
        expanded = os.path.expandvars(Path(path).expanduser()) if path.startswith("~") else os.path.expandvars(path)
    except RuntimeError as error:
        raise ConfigError(f"{where}: there is no home directory {path.partition('/')[0]} ({path})") from error
    if unset := re.search(r"\$([A-Za-z_]\w*|\{[^}]*\})", expanded):
        raise ConfigError(f"{where}: the environment variable {unset[1].strip('{}')} is not set ({path})")
    return expanded


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """' (did you mean ...?)' with the closest of `known`, or the list of valid names if none is close."""
    names = sorted(known)
    if close := difflib.get_close_matches(name, names, n=1, cutoff=0.5):
        return f" (did you mean '{close[0]}'?)"
    return f" (valid: {', '.join(names)})"


def _coerce(value: Any, hint: Any, path: str) -> Any:
    """Check `value` against the type `hint`, with lossless conversions only (1e2 to int, list to tuple)."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        text = _coerce(value, args[0], path)
        return expand_path(text, path) if hint is FilePath else text
    if origin in (typing.Union, types.UnionType):
        return _coerce_union(value, args, path)
    if origin is typing.Literal:
        if value not in args:
            known = [str(a) for a in args]
            raise ConfigError(f"{path}: '{value}' is not one of {', '.join(known)}{nearest(str(value), known)}")
        return value
    if origin in (list, tuple):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(f"{path}: expected a list, found {value!r}")
        if origin is tuple and args[-1] is not Ellipsis:
            if len(value) != len(args):
                raise ConfigError(f"{path}: expected {len(args)} values, found {len(value)}")
            return tuple(_coerce(v, a, f"{path}[{i}]") for i, (v, a) in enumerate(zip(value, args, strict=True)))
        return origin(_coerce(v, args[0], f"{path}[{i}]") for i, v in enumerate(value))
    if dataclasses.is_dataclass(hint) and isinstance(value, hint):  # type: ignore[arg-type]
        return value
    if dataclasses.is_dataclass(hint) or origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path}: expected a mapping, found {value!r}")
        if origin is dict:
            return {str(k): _coerce(v, args[1], f"{path}.{k}") for k, v in value.items()}
        return from_dict(hint, value, path)
    return _coerce_scalar(value, hint, path)


def _coerce_union(value: Any, args: tuple[Any, ...], path: str) -> Any:
    if value is None and type(None) in args:
        return None
    failure: ConfigError | None = None  # that of the alternative whose shape is the value's, or else the first
    for arg in (a for a in args if a is not type(None)):
        try:
            return _coerce(value, arg, path)
        except ConfigError as error:
            is_list, is_dict = typing.get_origin(arg) in (list, tuple), dataclasses.is_dataclass(arg)
            fits = (is_list, is_dict) == (isinstance(value, list | tuple), isinstance(value, Mapping))
            failure = error if fits else failure or error
    raise failure or ConfigError(f"{path}: {value!r} is not allowed")


def _coerce_scalar(value: Any, hint: Any, path: str) -> Any:
    if hint in (int, float) and (number := as_number(value)) is not None:
        if hint is float and not math.isnan(number):
            return float(number)
        if hint is int and math.isfinite(number) and number == int(number):
            return int(number)
    if hint is str and isinstance(value, Path):
        return str(value)
    if hint not in (int, float) and isinstance(hint, type) and isinstance(value, hint):
        return value
    remedy = f"; put it in quotes: '\"{value}\"'" if hint is str and isinstance(value, int | float) else ""
    raise ConfigError(f"{path}: expected {TYPE_NAMES.get(hint, hint)}, found {value!r}{remedy}")


TYPE_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
    type(None): "null",
}


def as_number(value: Any) -> int | float | None:
    """A YAML value as a number, including those that YAML 1.1 reads as text (1e2, 1e-3); None for other values."""
    if isinstance(value, str):
        try:
            return int(value) if value.strip().lstrip("+-").isdecimal() else float(value)
        except ValueError:
            return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def shard(text: str) -> tuple[int, int]:
    """(I, N) for an argument I/N, the I-th of N parts. Raises argparse.ArgumentTypeError."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"'{text}' is not I/N: 1/8 is the first of eight parts, 8/8 the last")
    return int(number), int(count)
