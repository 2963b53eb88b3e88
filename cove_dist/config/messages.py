"""Errors of pydantic as lines about settings: the key, the value, what is allowed.

pydantic names the member of a union in the location of an error, as ``min_count.dict[str,int].city``, and reports the
errors of all members. Here a location holds keys and positions only, and of a union only the members whose form the
value has are reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import ValidationError

_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
_MISSING = ("missing", "missing_argument", "missing_keyword_only_argument")
_EMPTY = ("too_short", "string_too_short")
_LIST, _SECTION = "input should be a list, such as [a,b]", "input should be a section of keys, such as {key:value}"
_MESSAGES = {
    "tuple_type": _LIST,
    "list_type": _LIST,
    "dict_type": _SECTION,
    "dataclass_type": _SECTION,
    "string_type": "input should be text",
}
_OTHER_FORM = (*_MESSAGES, "number", "literal_error", "int_type", "int_parsing", "int_from_float", "float_type",
               "float_parsing", "finite_number", "bool_type", "bool_parsing", "none_required")  # fmt: skip


class _Problem(NamedTuple):
    """One error of pydantic.

    Attributes:
        path: Keys and positions of the value.
        union, member: Path of the outermost union around it, and the member; None outside of unions.
        item: The error as pydantic describes it.
    """

    path: tuple[str | int, ...]
    union: tuple[str | int, ...] | None
    member: str | None
    item: Any

    @property
    def has_other_form(self) -> bool:
        """Whether the value of the union does not have the form of the member at all."""
        return self.path == self.union and self.item["type"] in _OTHER_FORM


def describe(error: ValidationError, values: Any, hints: Any, prefix: tuple[str, ...] = ()) -> str:
    """Describe all wrong settings, one per line.

    Args:
        error: What pydantic found.
        values: The checked values.
        hints: Their class, or types by key, for the list of allowed keys.
        prefix: Key of their section.
    """
    problems = [_located(item, values) for item in error.errors()]
    lines: dict[str, None] = {}
    for problem in problems:
        members = [each for each in problems if each.union is not None and each.union == problem.union]
        fitting = _members_of_its_form(members)
        if fitting and problem.member not in fitting:
            continue
        if problem.has_other_form and not fitting:
            lines[_of_no_form(members, prefix)] = None
        else:
            lines[_line(problem, hints, prefix)] = None
    return "\n".join(lines)


def _located(item: Any, values: Any) -> _Problem:
    """Separate keys and positions of a location from pydantic's names of union members."""
    path: list[str | int] = []
    union, member, parts = None, None, item["loc"]
    for place, part in enumerate(parts):
        last = place == len(parts) - 1
        if isinstance(values, Mapping) and part in values:
            values = values[part]
        elif isinstance(values, Sequence) and isinstance(part, int):
            values = values[part] if part < len(values) else None
        elif not (last and item["type"] in (*_MISSING, *_UNKNOWN)):
            if union is None:
                union, member = tuple(path), str(part)
            continue
        path.append(part)
    return _Problem(tuple(path), union, member, item)


def _members_of_its_form(members: Sequence[_Problem]) -> set[str | None]:
    """Return the members of a union whose form the value has."""
    return {each.member for each in members} - {each.member for each in members if each.has_other_form}


def _of_no_form(members: Sequence[_Problem], prefix: tuple[str, ...]) -> str:
    """Describe a value that has the form of no member of a union."""
    first, *others = dict.fromkeys(_message(each.item) for each in members)
    allowed = ", or ".join([first, *(each.removeprefix("input should be ") for each in others)])
    return f"{_dotted(prefix, members[0].path)} = {shown(members[0].item['input'])}: {allowed}"


def _line(problem: _Problem, hints: Any, prefix: tuple[str, ...]) -> str:
    item, path = problem.item, _dotted(prefix, problem.path)
    if item["type"] in _UNKNOWN:
        known = allowed_keys(hints, problem.path[:-1])
        return f"{path}: unknown key" + (f"; allowed: {', '.join(known)}" if known else "")
    if item["type"] in _MISSING:
        return f"{path}: missing"
    if item["type"] in _EMPTY:
        return f"{path} = {shown(item['input'])}: must not be empty"
    if item["type"] == "value_error":
        message = item["msg"].removeprefix("Value error, ")
        return f"{path}.{message}" if path else message
    return f"{path} = {shown(item['input'])}: {_message(item)}"


def _message(item: Any) -> str:
    message = _MESSAGES.get(item["type"]) or item["msg"].partition(", unable to parse")[0]
    return f"{message[0].lower()}{message[1:]}"


def _dotted(prefix: tuple[str, ...], path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, (*prefix, *path)))


def allowed_keys(hints: Any, path: Sequence[str | int]) -> list[str]:
    """Return the keys of a section by the types of the settings around it; empty where any key is allowed.

    Args:
        hints: A class of settings, types by key, or the type of a setting.
        path: Keys and positions that lead to the section.

    Example:
        >>> from data_pipeline.preparation.dense import DenseSettings
        >>> allowed_keys({"dense_transforms": dict[str, DenseSettings]}, ("dense_transforms", "price"))
        ['fill', 'clip', 'log', 'quantiles', 'bins', 'scale']
    """
    if is_dataclass(hints):
        hints = {name: hint for name, hint in get_type_hints(hints, include_extras=True).items()
                 if name in hints.__dataclass_fields__}  # fmt: skip
    if isinstance(hints, Mapping):
        if not path:
            return list(hints)
        return allowed_keys(hints[path[0]], path[1:]) if path[0] in hints else []
    origin, arguments = get_origin(hints), get_args(hints)
    if origin is Annotated:
        return allowed_keys(arguments[0], path)
    if origin in (Union, UnionType):
        return next((found for each in arguments if (found := allowed_keys(each, path))), [])
    if arguments and path and isinstance(origin, type):
        return allowed_keys(arguments[1 if issubclass(origin, Mapping) else 0], path[1:])
    return []


def shown(value: Any) -> str:
    """Return a value as a command line has it: lists in brackets, an empty text in quotes.

    Example:
        >>> shown([None, "a"]), shown({"fill": True}), shown("")
        ('[null, a]', '{fill: true}', "''")
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {shown(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(shown, value)) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return repr(value) if value == "" else str(value)
