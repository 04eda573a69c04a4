"""Command-line flags made from a frozen dataclass, and the sentences for bad ones.

A `Config` states each field once, with its type, default, help and allowed values:

    @dataclasses.dataclass(frozen=True)
    class Config:
        dim: int = flag(10, "embedding dimension", at_least=1)
        loss: str = flag("vicreg", "what is minimised", choices=("vicreg", "barlow_twins"))

        def __post_init__(self):
            check(self)

so that the command line, a notebook and a test are held to the same rules. Types: int, float, str,
bool, and any of them `| None` (not given: the experiment decides). A list is a string with commas
between its parts, which `listed` and `numbers` read.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags as absl_flags

from rlkit.errors import UsageError


def flag(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] | None = None,
    at_least: int | float | None = None,
    above: int | float | None = None,
    at_most: int | float | None = None,
) -> Any:
    """A dataclass field that is also a command-line flag."""
    limits = {"choices": choices, "at_least": at_least, "above": above, "at_most": at_most}
    return dataclasses.field(default=default, metadata={"help": help, **limits})


def check(config: Any) -> None:
    """Holds every field to its type and limits.

    Raises:
        UsageError: one sentence that names the flag, the value and what is allowed.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        kind, optional = _kind(config, field)
        if value is None and optional:
            continue
        if not _is(value, kind):
            raise UsageError(f"--{field.name}={value!r} is not of type {kind.__name__}")
        limits = field.metadata
        if kind is float and not np.isfinite(value):
            raise UsageError(f"--{field.name}={value} must be a finite number")
        if limits["choices"] is not None and value not in limits["choices"]:
            guess = difflib.get_close_matches(str(value), limits["choices"], 1)
            hint = f"; did you mean {guess[0]}?" if guess else ""
            allowed = ", ".join(limits["choices"])
            raise UsageError(f"--{field.name}={value} is none of {allowed}{hint}")
        for limit, broken, word in (
            ("at_least", lambda x, bound: x < bound, "at least"),
            ("above", lambda x, bound: x <= bound, "above"),
            ("at_most", lambda x, bound: x > bound, "at most"),
        ):
            bound = limits[limit]
            if bound is not None and broken(value, bound):
                raise UsageError(f"--{field.name}={value} must be {word} {bound}")


def listed(config: Any, name: str, *, choices: Sequence[str] | None = None) -> tuple[str, ...]:
    """The parts of a field with commas between, in their order and each once.

    Raises:
        UsageError: one is none of `choices`.
    """
    parts = dict.fromkeys(part.strip() for part in getattr(config, name).split(","))
    for part in parts:
        if choices is not None and part not in choices:
            raise UsageError(f"--{name} has no {part!r}; there are {', '.join(choices)}")
    return tuple(parts)


def numbers(
    config: Any,
    name: str,
    kind: type[int] | type[float] = float,
    *,
    at_least: int | float | None = None,
    above: int | float | None = None,
    at_most: int | float | None = None,
) -> tuple:
    """The numbers of a field with commas between, in their order and each once.

    Raises:
        UsageError: one is not finite, not of this kind or beyond a limit.
    """
    limits = {" of at least": at_least, " above": above, " of at most": at_most}
    words = " and".join(f"{word} {bound:g}" for word, bound in limits.items() if bound is not None)
    found = []
    for part in listed(config, name):
        try:
            value = kind(part)
        except ValueError:
            value = float("nan")
        if (
            not np.isfinite(value)
            or (at_least is not None and value < at_least)
            or (above is not None and value <= above)
            or (at_most is not None and value > at_most)
        ):
            called = "whole" if kind is int else "finite"
            text = getattr(config, name)
            raise UsageError(f"--{name}={text}: {part!r} must be a {called} number{words}")
        found.append(value)
    return tuple(dict.fromkeys(found))


class HelpRequested(Exception):
    """`--help` was among the arguments; the text is the exception's."""


def parse(
    argv: Sequence[str],
    *groups: type,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    usage: str = "",
) -> tuple[Any, ...]:
    """One instance of each dataclass in `groups`, from command-line arguments.

    Args:
        argv: the arguments, without the program's name.
        groups: frozen dataclasses whose fields are flags; a name stands in one of them only.
        presets: what `--preset=NAME` sets; flags that are given win. The first is the default.
        usage: what stands above the flags in `--help`.

    Raises:
        HelpRequested: for `--help`.
        UsageError: an unknown flag, a value that does not parse or is not allowed, or arguments
            left over.
    """
    values = absl_flags.FlagValues()
    if presets:
        absl_flags.DEFINE_string("preset", next(iter(presets)), "", flag_values=values)
    for group in groups:
        for field in dataclasses.fields(group):
            _define(values, group, field)
    if any(arg in ("--help", "-h", "-help", "--helpfull") for arg in argv):
        raise HelpRequested(_help(groups, presets, usage))
    _check_values_follow(argv, values)
    try:
        for arg in argv:  # absl's own two flags, which would let unknown ones pass
            if (name := arg.lstrip("-").partition("=")[0]) in ("flagfile", "undefok"):
                raise absl_flags.UnrecognizedFlagError(name)
        left_over = values(["", *argv])[1:]
    except absl_flags.UnrecognizedFlagError as error:
        guess = difflib.get_close_matches(error.flagname, list(values), 1)
        hint = f"did you mean --{guess[0]}?" if guess else "--help lists those there are"
        raise UsageError(f"there is no flag --{error.flagname}; {hint}") from None
    except absl_flags.IllegalFlagValueError as error:  # only a bool is converted by absl
        given = str(error).removeprefix("flag ").partition(": ")[0]
        raise UsageError(f"{given} is not of type bool") from None
    except (absl_flags.Error, ValueError) as error:
        raise UsageError(str(error)) from None
    if left_over:
        raise UsageError(f"unexpected argument {left_over[0]!r}; flags are written --name=value")
    given = {name for name in values if values[name].present}
    preset: Mapping[str, Any] = {}
    if presets:
        if values.preset not in presets:
            raise UsageError(f"--preset={values.preset} is none of {', '.join(presets)}")
        preset = presets[values.preset]
        if unknown := sorted(set(preset) - set(values)):
            raise UsageError(f"--preset={values.preset} sets {unknown[0]}, which is no flag")
    made = []
    for group in groups:
        fields = dataclasses.fields(group)
        arguments = {f.name: preset[f.name] for f in fields if f.name in preset}
        arguments |= {f.name: _read(values, group, f) for f in fields if f.name in given}
        made.append(group(**arguments))
    return tuple(made)


def _check_values_follow(argv: Sequence[str], values: absl_flags.FlagValues) -> None:
    """Refuses `--dim --seeds=3`, where absl would take `--seeds=3` for the value of --dim."""
    follows_as_value = False
    for arg, following in zip(argv, [*argv[1:], None], strict=False):
        name = arg.lstrip("-")
        if follows_as_value or not arg.startswith("-") or name not in values:
            follows_as_value = False
            continue
        follows_as_value = not values[name].boolean
        if follows_as_value and (following is None or following.startswith("--")):
            raise UsageError(f"--{name} lacks its value; flags are written --name=value")


def _define(values: absl_flags.FlagValues, group: type, field: dataclasses.Field) -> None:
    kind, _ = _kind(group, field)
    define = absl_flags.DEFINE_boolean if kind is bool else absl_flags.DEFINE_string
    define(field.name, None, field.metadata["help"], flag_values=values)


def _read(values: absl_flags.FlagValues, group: type, field: dataclasses.Field) -> Any:
    kind, _ = _kind(group, field)
    text = values[field.name].value
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"--{field.name}={text} is not of type {kind.__name__}") from None


def _kind(config: Any, field: dataclasses.Field) -> tuple[type, bool]:
    """The type of a field's values, and whether None is one of them."""
    group = config if isinstance(config, type) else type(config)
    hint = typing.get_type_hints(group)[field.name]
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        kinds = [arm for arm in typing.get_args(hint) if arm is not types.NoneType]
        return kinds[0], True
    return hint, False


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _help(groups: Sequence[type], presets, usage: str) -> str:
    lines = [usage.strip(), ""]
    rows = []
    if presets:
        rows.append(("preset", next(iter(presets)), f"a set of values: {', '.join(presets)}"))
    for i, group in enumerate(groups):
        if i:
            rows.append((None, None, (group.__doc__ or "").strip().splitlines()[0]))
        for field in dataclasses.fields(group):
            text = field.metadata["help"]
            if field.metadata["choices"] is not None:
                text += f" ({', '.join(field.metadata['choices'])})"
            if field.default is True:
                text += " (yes)"
            rows.append((field.name, field.default, text))
    width = max(len(_left(name, default)) for name, default, _ in rows if name)
    for name, default, text in rows:
        lines.append(f"  {_left(name, default):<{width}}  {text}" if name else f"\n{text}")
    return "\n".join(lines)


def _left(name: str, default: Any) -> str:
    if isinstance(default, bool):
        return f"--[no]{name}" if default else f"--{name}"
    return f"--{name}={'' if default is None else default}"
