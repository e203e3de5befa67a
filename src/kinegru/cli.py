"""The command line of a verb, derived from its function: parameters become options, docstrings their help.

* A parameter without a default is positional, one with a default may be left out, `*videos` takes many; keyword-only
  parameters are options; a dataclass parameter is laid out flat.
* `--group-pattern` and `--group_pattern` are the same; a switch needs no value, and `--no-augment` turns one off.
* `--config FILE` reads a YAML recipe; options after it win. `--json` prints the result for machines, `--debug` lets a
  traceback through.
* A verb with a parameter `json` prints for machines itself, as it goes on; of its result `show` is told either way.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import io
import json
import os
import signal
import sys
import threading
import typing
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import docstring_parser
from jsonargparse import set_parsing_settings

from kinegru.console import quieten
from kinegru.errors import KineGRUError
from kinegru.parsing import VerbParser

set_parsing_settings(docstring_parse_attribute_docstrings=True)


def run(verb: str, arguments: list[str]) -> int:
    """Parse, call the verb, print its result; returns the exit status (0 all done, 1 a failure, 2 wrong use)."""
    _print_any_name()
    try:
        module = importlib.import_module(f"kinegru.verbs.{verb}")
    except KeyboardInterrupt:
        return _interrupted(verb)
    function = getattr(module, verb)
    parser = make_parser(verb, function)
    try:
        values = parser.parse_arguments(_join_lists(_complete_switches(arguments, function), function))
    except SystemExit as stop:  # help, or wrong use
        return int(stop.code or 0)
    as_json = "json" not in _types(function) and values.pop("json")
    debug = values.pop("debug")
    quieten(debug)
    try:
        with _terminated_like_interrupted():
            return _call(module, function, values, as_json)
    except KeyboardInterrupt:
        return _interrupted(verb)
    except BrokenPipeError:
        raise  # to main, which knows
    except Exception as error:
        if debug:
            raise
        print(f"kinegru {verb}: {' '.join(_explain(error).split())}", file=sys.stderr)
        return error.exit_status if isinstance(error, KineGRUError) else 1


def make_parser(verb: str, function: Callable[..., Any]) -> VerbParser:
    """The parser of a verb's function.

    >>> def greet(name: str, *, times: int = 1) -> None:
    ...     '''Greet somebody.
    ...
    ...     Args:
    ...         name: Whom.
    ...         times: How often.
    ...     '''
    >>> parser = make_parser("greet", greet)
    >>> parser.parse_args(["Ann", "--times", "2"]).times, parser.description
    (2, 'Greet somebody.')
    """
    text = docstring_parser.parse(inspect.getdoc(function) or "")
    helps = {parameter.arg_name: parameter.description for parameter in text.params}
    types = _types(function)
    many = _parameters(function, inspect.Parameter.VAR_POSITIONAL)
    optional = [
        name
        for name in _parameters(function, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if inspect.signature(function).parameters[name].default is not inspect.Parameter.empty
    ]
    flat = {name: kind for name, kind in types.items() if dataclasses.is_dataclass(kind)}
    description = "\n\n".join(part for part in (text.short_description, text.long_description) if part)
    parser = VerbParser(prog=f"kinegru {verb}", description=description, default_env=False)
    skip: set[str | int] = {*flat, *many, *optional}
    parser.add_function_arguments(function, as_group=False, as_positional=True, skip=skip)
    for name in optional:
        parser.add_argument(name, nargs="?", type=types[name], help=helps.get(name))
    for name in many:
        parser.add_argument(name, nargs="+", type=str, help=helps.get(name))
    for kind in flat.values():
        parser.add_class_arguments(kind)
    parser.add_argument("--config", action="config", help="YAML recipe to start from; options given here win.")
    if "json" not in types:
        parser.add_argument(
            "--json", type=bool, default=False, help="Print the result as JSON, nothing else, on stdout."
        )
    parser.add_argument("--debug", type=bool, default=False, help="Show tracebacks and the libraries' messages.")
    return parser


def _call(module: ModuleType, function: Callable[..., Any], values: dict[str, Any], as_json: bool) -> int:
    values.pop("config", None)
    for name, kind in _types(function).items():
        if dataclasses.is_dataclass(kind):
            fields = {field.name for field in dataclasses.fields(kind)}
            values[name] = kind(**{key: values.pop(key) for key in list(values) if key in fields})  # type: ignore[operator]
    positional: list[Any] = []
    many = _parameters(function, inspect.Parameter.VAR_POSITIONAL)
    if many:
        positional = [values.pop(name) for name in _parameters(function, inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        positional += values.pop(many[0])
    result = function(*positional, **values)
    if os.environ.get("RANK", "0") != "0":  # of several processes under a launcher the first one prints
        return getattr(result, "exit_status", 0)
    if as_json:
        unicode = (sys.stdout.encoding or "").lower().startswith("utf")
        print(json.dumps(result.to_dict(), ensure_ascii=not unicode, indent=2))
    else:
        module.show(result)
    return getattr(result, "exit_status", 0)


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM (`timeout`, `systemctl stop`, a cluster) ends a verb as Ctrl-C does: what is half written is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _explain(error: Exception) -> str:
    """One line for people; what is no failure that a user can meet is called a bug."""
    if isinstance(error, KineGRUError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:  # a full disk, a folder that may not be written
        return f"{error.filename}: {(error.strerror or type(error).__name__).lower()}"
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's, unimported here
    if memory or "can't allocate memory" in str(error):
        reason = str(error).split(". ")[0] or "no memory left"
        return f"{reason}; a smaller --micro-batch, --size or --frames takes less"
    return f"{type(error).__name__}: {error} (a bug; --debug shows where)"


def _interrupted(verb: str) -> int:
    print(f"kinegru {verb}: interrupted", file=sys.stderr)
    return 1


def _types(function: Callable[..., Any]) -> dict[str, Any]:
    hints = {name: kind for name, kind in typing.get_type_hints(function).items() if name != "return"}
    return {name: _settings_class(kind) or kind for name, kind in hints.items()}


def _settings_class(kind: Any) -> Any:
    """The dataclass in `Settings` or `Settings | None`, None where there is none."""
    return next((part for part in (kind, *typing.get_args(kind)) if dataclasses.is_dataclass(part)), None)


def _parameters(function: Callable[..., Any], kind: Any) -> list[str]:
    return [name for name, p in inspect.signature(function).parameters.items() if p.kind is kind]


def _complete_switches(arguments: list[str], function: Callable[..., Any]) -> list[str]:
    """`--json` -> `--json=true`, `--no-augment` -> `--augment=false`; what follows a switch stays what it is."""
    switches = {"json", "debug"}
    for name, kind in _types(function).items():
        fields = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {name: kind}
        switches |= {field for field, type_ in fields.items() if type_ is bool}
    done = []
    for place, argument in enumerate(arguments):
        name = argument[2:].replace("-", "_") if argument.startswith("--") else ""
        value = arguments[place + 1] if place + 1 < len(arguments) else ""
        if name in switches and value not in ("true", "false"):
            argument += "=true"
        elif name.startswith("no_") and name[3:] in switches:
            argument = f"--{name[3:]}=false"
        done.append(argument)
    return done


def _join_lists(arguments: list[str], function: Callable[..., Any]) -> list[str]:
    """`--seeds 0 1 2` -> `--seeds=["0","1","2"]`, for parameters that are lists; up to the next option."""
    lists = {f"--{name.replace('_', '-')}": kind for name, kind in _types(function).items() if _is_list(kind)}
    done: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word in lists:
            values: list[str] = []
            while words and not words[0].startswith("--"):
                values.append(words.pop(0))
            of_numbers = int in typing.get_args(lists[word])
            plain = [int(v) if of_numbers and v.lstrip("-").isdecimal() else v for v in values]
            word += f"={json.dumps(plain)}" if values else ""
        done.append(word)
    return done


def _is_list(kind: Any) -> bool:
    return any(typing.get_origin(part) is list for part in (kind, *typing.get_args(kind)))


def _print_any_name() -> None:
    """A file name that is no text in the terminal's encoding is shown with escapes instead of ending the verb."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
