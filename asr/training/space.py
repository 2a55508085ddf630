"""The search space of `asr tune`: settings with several values, such as `key=[a,b]` or `key=uniform(low,high)`."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from asr.config import apply_overrides, as_number, nearest
from asr.training.config import TrainConfig, parse_config, read_extended
from asr.types import ConfigError

_CALL = re.compile(r"\s*([A-Za-z_]+)\((.*)\)\s*")
_ARGUMENTS = {"uniform": "(low, high)", "loguniform": "(low, high)", "int": "(low, high) or (low, high, step)"}
_RESERVED = ("output", "name", "data.train", "data.dev", "trainer.devices", "trainer.num_nodes")


@dataclass(frozen=True)
class Dimension:
    """A setting and its values: `choices`, or numbers from `low` to `high`."""

    key: str
    kind: str  # "list", "uniform", "loguniform" or "int"
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: int = 1

    def __str__(self) -> str:
        if self.kind == "list":
            return json.dumps(self.choices)
        step = f", {self.step}" if self.step != 1 else ""
        return f"{self.kind}({self.low:.12g}, {self.high:.12g}{step})"

    @property
    def labels(self) -> tuple[Any, ...]:
        """The choices as Optuna stores them: scalars as they are, lists and mappings as JSON."""
        return tuple(c if c is None or isinstance(c, str | int | float) else json.dumps(c) for c in self.choices)

    def value(self, parameter: Any) -> Any:
        """The value of the setting that Optuna stores as `parameter`."""
        return self.choices[self.labels.index(parameter)] if self.kind == "list" else parameter

    def cells(self) -> list[Any] | None:
        """The parameters of a grid, None if there are infinitely many."""
        if self.kind == "list":
            return list(self.labels)
        return list(range(int(self.low), int(self.high) + 1, self.step)) if self.kind == "int" else None

    def extremes(self) -> list[Any]:
        """Parameters to check for whether all values are allowed."""
        return list(self.labels) if self.kind == "list" else [self.low, self.high]


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[Dimension]]:
    """The plain `key=value` overrides and the dimensions among the arguments. A list of one value is an override.

    Raises ConfigError for malformed arguments and for settings that cannot be searched.
    """
    plain: list[str] = []
    space: dict[str, Dimension] = {}
    for argument in arguments:
        key, sign, text = (part.strip() for part in argument.partition("="))
        dimension = _dimension(key, text, argument) if sign else None
        if dimension is None:
            plain.append(argument)
        elif len(dimension.choices) == 1:
            plain.append(override(key, dimension.choices[0]))
        elif key in space:
            raise ConfigError(f"'{key}' has two lists or ranges of values: give one")
        elif key in _RESERVED:
            raise ConfigError(f"'{key}' cannot be searched: it must be the same in all trials")
        else:
            space[key] = dimension
    return plain, list(space.values())


def with_parameters(
    values: Mapping[str, Any], space: Sequence[Dimension], parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """The recipe `values` with the parameters of a trial. Raises ConfigError for keys below a plain value."""
    return apply_overrides(dict(values), [override(d.key, d.value(parameters[d.key])) for d in space])


def check_space(path: str, overrides: Sequence[str], space: Sequence[Dimension]) -> tuple[dict[str, Any], TrainConfig]:
    """The recipe at `path` with `overrides` as nested values, and its configuration at the first value of each setting.

    Every choice and both ends of every range are checked, with the other settings at their first value. Raises
    ConfigError naming an unknown key and the nearest valid one, or a value that is not allowed.
    """
    values = apply_overrides(read_extended(path), overrides)
    first = {d.key: d.extremes()[0] for d in space}
    for dimension in space:
        for parameter in dimension.extremes():
            parse_config(with_parameters(values, space, first | {dimension.key: parameter}))
    return values, parse_config(with_parameters(values, space, first))


def grid(space: Sequence[Dimension]) -> list[dict[str, Any]] | None:
    """The parameters of every cell, the last dimension fastest; None if a dimension has infinitely many values."""
    columns = [cells for d in space if (cells := d.cells()) is not None]
    if len(columns) < len(space):
        return None
    return [dict(zip((d.key for d in space), cell, strict=True)) for cell in itertools.product(*columns)]


def described(space: Sequence[Dimension], parameters: Mapping[str, Any]) -> str:
    """The parameters of a trial in one line."""
    return "  ".join(f"{d.key}={shown(parameters[d.key])}" for d in space)


def shown(value: Any) -> str:
    """A value of a setting, for people."""
    return f"{value:.4g}" if isinstance(value, float) else "null" if value is None else str(value)


def override(key: str, value: Any) -> str:
    """The override `key=value` that sets a value of any kind."""
    return f"{key}={yaml.safe_dump(value, default_flow_style=True, width=10**6)}"


def _dimension(key: str, text: str, argument: str) -> Dimension | None:
    """The dimension that an argument describes, None if it is a plain override."""
    if text.startswith("["):
        try:
            choices = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"'{argument}': the list is not valid YAML") from error
        if not choices:
            raise ConfigError(f"'{argument}': the list of values is empty")
        numbers = [number if isinstance(c, str) and (number := as_number(c)) is not None else c for c in choices]
        if any(a == b and type(a) is type(b) for a, b in itertools.combinations(numbers, 2)):
            raise ConfigError(f"'{argument}': the list has a value twice")
        return Dimension(key, "list", tuple(numbers))
    called = _CALL.fullmatch(text)
    numbers = [as_number(part.strip()) for part in called[2].split(",")] if called else []
    if not called or (called[1] not in _ARGUMENTS and None in numbers):
        return None
    kind = called[1]
    if kind not in _ARGUMENTS:
        raise ConfigError(f"'{argument}': there is no range '{kind}'{nearest(kind, _ARGUMENTS)}")
    usage = f"'{argument}': {kind} takes {_ARGUMENTS[kind]}"
    if None in numbers or not 2 <= len(numbers) <= (3 if kind == "int" else 2) or not all(map(math.isfinite, numbers)):
        raise ConfigError(f"{usage}, all of them numbers")
    low, high, *rest = numbers
    if low >= high:
        raise ConfigError(f"{usage}: low must be less than high")
    if kind == "loguniform" and low <= 0:
        raise ConfigError(f"{usage}: low must be above 0")
    if kind != "int":
        return Dimension(key, kind, low=float(low), high=float(high))
    if any(number != int(number) for number in numbers) or (rest and rest[0] < 1):
        raise ConfigError(f"{usage}: whole numbers, and a step of at least 1")
    step = int(rest[0]) if rest else 1
    return Dimension(key, kind, low=int(low), high=int(low) + (int(high) - int(low)) // step * step, step=step)
