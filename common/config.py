"""Typed configs: frozen dataclasses read from plain mappings; what does not fit is an error that names it."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

import yaml

from common.errors import DataError

T = TypeVar("T")
V = TypeVar("V")


def read_yaml(path: Path) -> Any:
    """The plain values of a YAML file. Raises DataError, with its place, where it is none or not of UTF-8."""
    try:
        return parse_yaml(path.read_bytes())
    except yaml.YAMLError as error:
        why = " ".join(str(error).replace('in "<byte string>", ', "").split())
        raise DataError("The file is no YAML.", where=str(path), why=why, do="Correct it; save it as UTF-8.") from error


def parse_yaml(text: str | bytes) -> Any:
    """The plain values of a YAML text. Raises yaml.YAMLError where it is none, or its bytes are not of UTF-8."""
    try:
        # As `yaml.safe_load`, by the parser in C that every wheel of PyYAML carries: ten times faster.
        values = yaml.load(text, Loader=yaml.CSafeLoader)
        json.dumps(values, default=str, skipkeys=True)  # an anchor within itself has no end
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        # PyYAML hands on what Python says of a date that there is not, or of a tag that the value does not fit.
        raise yaml.YAMLError(f"a value cannot be read: {error}") from error
    return values


def parse_config(cls: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """Build the dataclass `cls` from `values`, nested dataclasses included.

    Raises DataError for an unknown key, a missing value without default, or a value of another type.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(map(str, set(values) - set(fields)))
    if unknown:
        raise DataError(f"unknown config key {unknown[0]!r}", where=where, do=f"use one of: {', '.join(fields)}")
    required = {
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(values))
    if missing:
        raise DataError(f"config value {missing[0]!r} is missing", where=where, do="add it; it has no default")
    hints = typing.get_type_hints(cls)
    return cls(**{name: _convert(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def _convert(kind: object, value: object, where: str) -> object:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return parse_config(kind, _expect(dict, value, where), where)
    if kind is Any:
        return value
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        # The words of the union that hold the value, else its first kind.
        words = [one for one in arguments if get_origin(one) is Literal and value in get_args(one)]
        kinds = [one for one in arguments if one is not type(None)]
        return _convert((words or kinds)[0], value, where)
    if origin is Literal:
        if value not in arguments:
            raise DataError(f"config value {value!r} is not allowed", where=where, do=f"use one of: {arguments}")
        return value
    if origin is Mapping:
        pairs = _expect(dict, value, where).items()
        return {
            _convert(arguments[0], key, f"a key of {where}"): _convert(arguments[1], element, f"{where}.{key}")
            for key, element in pairs
        }
    if origin is tuple:
        elements = enumerate(_expect(list, value, where))
        return tuple(_convert(arguments[0], element, f"{where}.{place}") for place, element in elements)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return _expect(cast(type, kind), value, where)


def _expect(kind: type[V], value: object, where: str) -> V:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise DataError(
            f"config value {value!r} has the wrong type", where=where, do=f"give a value of type {kind.__name__}"
        )
    return value
