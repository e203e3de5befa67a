"""The command line of a verb, derived from its function: parameters become options, docstrings their help.

* A parameter without a default is positional, `*videos` takes many, a dataclass parameter is laid out flat.
* `--group-pattern` and `--group_pattern` are the same; a switch needs no value, and `--no-augment` turns one off.
* `--config FILE` reads a YAML recipe; options after it win. `--json` prints the result for machines, `--debug` lets a
  traceback through.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import logging
import os
import sys
import typing
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, set_parsing_settings

from kinegru.errors import KineGRUError

set_parsing_settings(docstring_parse_attribute_docstrings=True)


class VerbParser(ArgumentParser):
    """An argument parser whose options are written with dashes and whose errors are one line."""

    def add_argument(self, *names: str, **options: Any) -> Any:
        """As in argparse; `--a_b` can also be written `--a-b`."""
        if len(names) == 1 and names[0].startswith("--") and "_" in names[0]:
            names = ("--" + names[0][2:].replace("_", "-"), names[0])
        return super().add_argument(*names, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # type: ignore[override]
        """Say in one line what was wrong with the call; exit status 2."""
        print(f"{self.prog}: {' '.join(str(message).split())} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(2)


def run(verb: str, arguments: list[str]) -> int:
    """Parse, call the verb, print its result; returns the exit status."""
    module = importlib.import_module(f"kinegru.verbs.{verb}")
    function = getattr(module, verb)
    parser = make_parser(verb, function)
    values = parser.parse_args(_complete_switches(arguments, function)).as_dict()
    as_json, debug = values.pop("json"), values.pop("debug")
    _quieten(debug)
    try:
        return _call(module, function, values, as_json)
    except KeyboardInterrupt:
        print(f"kinegru {verb}: interrupted", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            raise
        known = isinstance(error, KineGRUError)
        text = str(error) if known else f"{type(error).__name__}: {error} (a bug; --debug shows where)"
        print(f"kinegru {verb}: {' '.join(text.split())}", file=sys.stderr)
        return error.exit_status if isinstance(error, KineGRUError) else 1


def make_parser(verb: str, function: Callable[..., Any]) -> VerbParser:
    """The parser of a verb's function."""
    parser = VerbParser(prog=f"kinegru {verb}", description=inspect.getdoc(function), default_env=False)
    parser.add_argument("--config", action="config", help="YAML recipe to start from.")
    many = _parameters(function, inspect.Parameter.VAR_POSITIONAL)
    flat = {name: kind for name, kind in _types(function).items() if dataclasses.is_dataclass(kind)}
    parser.add_function_arguments(function, as_positional=True, skip={*flat, *many})
    for name in many:
        parser.add_argument(name, nargs="+", type=str, help="one or more files")
    for kind in flat.values():
        parser.add_class_arguments(kind)
    parser.add_argument("--json", type=bool, default=False, help="Print the result as JSON on stdout.")
    parser.add_argument("--debug", type=bool, default=False, help="Show tracebacks and libraries' messages.")
    return parser


def _call(module: ModuleType, function: Callable[..., Any], values: dict[str, Any], as_json: bool) -> int:
    values.pop("config", None)
    positional: list[Any] = []
    for name, kind in _types(function).items():
        if dataclasses.is_dataclass(kind):
            fields = {field.name for field in dataclasses.fields(kind)}
            values[name] = kind(**{key: values.pop(key) for key in list(values) if key in fields})  # type: ignore[operator]
    many = _parameters(function, inspect.Parameter.VAR_POSITIONAL)
    if many:
        positional = [values.pop(name) for name in _parameters(function, inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        positional += values.pop(many[0])
    result = function(*positional, **values)
    if as_json:
        print(json.dumps(result.to_dict(), ensure_ascii=False, indent=2))
    else:
        module.show(result)
    return getattr(result, "exit_status", 0)


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


def _quieten(debug: bool) -> None:
    logging.basicConfig(level=logging.INFO if debug else logging.WARNING, format="%(name)s: %(message)s")
    logging.getLogger("kinegru").setLevel(logging.INFO)
    if not debug:
        warnings.filterwarnings("ignore")
        for name in ("accelerate", "torch.distributed", "matplotlib", "timm"):
            logging.getLogger(name).setLevel(logging.ERROR)
