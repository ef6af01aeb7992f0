"""Command-line flags onto settings: one clear line for a misspelt flag or a value of the wrong kind, then tyro."""

from __future__ import annotations

import contextlib
import difflib
import io
import typing
from pathlib import Path
from typing import Any, TypeVar

from rl_gns.chaos import ChaosConfig
from rl_gns.config import ConfigError
from rl_gns.config_file import coerce, keys, shown, unknown_key

Options = TypeVar("Options")


def value_of(arguments: list[str], flag: str) -> str | None:
    """The value of `--flag value` or `--flag=value`; None where it is not given."""
    for i, token in enumerate(arguments):
        if token == f"--{flag}":
            if i + 1 == len(arguments):
                raise ConfigError(f"--{flag}: a value is missing")
            return arguments[i + 1]
        if token.startswith(f"--{flag}="):
            return token.split("=", 1)[1]
    return None


def taken(arguments: list[str], flag: str) -> tuple[list[str], str | None]:
    """(the other arguments, the value of `--flag`): for verbs whose other flags have no values."""
    value = value_of(arguments, flag)
    kept = list(arguments)
    if value is not None:
        at = next(i for i, token in enumerate(kept) if token == f"--{flag}" or token.startswith(f"--{flag}="))
        del kept[at : at + (1 if "=" in kept[at] else 2)]
    return kept, value


def given_flags(arguments: list[str]) -> list[str]:
    """The flags on a command line, without their dashes and values."""
    return [token.partition("=")[0].removeprefix("--").replace("_", "-") for token in arguments if token[:2] == "--"]


def directories(arguments: list[str], known: tuple[str, ...], program: str) -> tuple[list[Path], set[str]]:
    """(directories, flags given) of a verb that takes directories and the `known` flags, which have no values."""
    flags_given = {token for token in arguments if token.startswith("-")}
    for flag in sorted(flags_given - set(known)):
        near = difflib.get_close_matches(flag, known, n=1, cutoff=0.5)
        takes = " and ".join(["directories", *known]) if known else "directories alone"
        raise ConfigError(f"{flag}: {program} takes {takes}" + (f"; the nearest is {near[0]}" if near else ""))
    return [Path(token) for token in arguments if not token.startswith("-")], flags_given


def parse(options: type[Options], default: Options, arguments: list[str], program: str) -> Options:
    """`default` with the flags applied. `run`, where the options have it, gives its flags without a prefix.

    Raises ConfigError for the user's mistakes; --help prints and exits with 0.
    """
    arguments = chaos_in_full(arguments)
    if {"-h", "--help"} & set(arguments):
        return _tyro(options, default, arguments, program)
    check(default, arguments)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return _tyro(options, default, arguments, program)
    except SystemExit:
        raise ConfigError(_unboxed(said.getvalue())) from None


def chaos_in_full(arguments: list[str]) -> list[str]:
    """`--chaos kill=0.01,nan=0.001` as `--chaos.kill=0.01 --chaos.nan=0.001`; ConfigError where it is no such list."""
    if (text := value_of(arguments, "chaos")) is None:
        return arguments
    at = next(i for i, token in enumerate(arguments) if token.partition("=")[0] == "--chaos")
    after = at + (1 if "=" in arguments[at] else 2)
    return [*arguments[:at], *_faults_in_full(text), *chaos_in_full(arguments[after:])]


def _faults_in_full(text: str) -> list[str]:
    known, found = list(vars(ChaosConfig())), {}
    for item in text.split(","):
        name, given, value = item.strip().partition("=")
        if name not in known:
            near = (difflib.get_close_matches(name, known, n=1, cutoff=0.0) or known)[0]
            raise ConfigError(f"--chaos: {shown(name)} is none of {', '.join(known)}; the nearest is {near}")
        if name in found:
            raise ConfigError(f"--chaos: {name} is given twice; once is enough")
        try:
            found[name] = float(value)
        except ValueError:
            raise ConfigError(
                f"--chaos: {name}{given}{shown(value)[1:-1]} is no probability; {name}=0.01 is one"
            ) from None
    try:
        ChaosConfig(**found)
    except ValueError as error:
        raise ConfigError(f"--chaos: {error}") from None
    return [f"--chaos.{name}={value!r}" for name, value in found.items()]


def _tyro(options: type[Options], default: Options, arguments: list[str], program: str) -> Options:
    import tyro

    return tyro.cli(options, prog=program, args=arguments, default=default)


def _unboxed(text: str) -> str:
    """What tyro said, without the box around it and its pointer to the help."""
    lines = [line.strip(" │╭╮╰╯─-+|") for line in text.splitlines()]
    return " ".join(line for line in lines[1:] if line and not line.startswith("For full helptext"))


def check(default: Any, arguments: list[str]) -> None:
    """Raise ConfigError for the first flag that does not exist or whose value is of the wrong kind."""
    hints = flags(default)
    for i, token in enumerate(arguments):
        if not token.startswith("--"):
            if i == 0 or (not arguments[i - 1].startswith("-") and "=" in token and token[0] != "-"):
                raise ConfigError(f"{token}: a flag begins with --")
            continue
        flag, given, value = token[2:].partition("=")
        flag = flag.replace("_", "-")
        if flag not in hints and flag.removeprefix("no-") not in hints:
            raise ConfigError(f"--{unknown_key(flag, list(hints)).replace('nearest is ', 'nearest is --')}")
        hint = hints.get(flag, bool)
        if not given and hint is not bool and typing.get_origin(hint) is not tuple:
            if i + 1 == len(arguments):
                raise ConfigError(f"--{flag}: a value is missing")
            value = arguments[i + 1]
        if value:
            _check_value(flag, value, hint)


def flags(default: Any) -> dict[str, Any]:
    """Flag name -> type, for the options and for the run inside them."""
    found = {}
    for name, hint in typing.get_type_hints(type(default)).items():
        value = getattr(default, name)
        if name == "run":
            found |= {key.replace("_", "-"): _hint(value, key) for key in keys(value)}
        else:
            found[name.replace("_", "-")] = hint
    return found


def _hint(config: Any, key: str) -> Any:
    *path, leaf = key.split(".")
    for name in path:
        config = getattr(config, name)
    return typing.get_type_hints(type(config))[leaf]


def _check_value(flag: str, text: str, hint: Any) -> None:
    if hint is bool or hint in (str, Path) or typing.get_origin(hint) is tuple:
        return
    value: Any = text
    for number in (int, float) if hint in (int, float) else ():
        try:
            value = number(text)
            break
        except ValueError:
            continue
    coerce(f"--{flag}", value, hint)
