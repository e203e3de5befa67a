"""jsonargparse with this project's manners: options with dashes, help that fits a screen, errors of one line."""

from __future__ import annotations

import difflib
import itertools
import re
import sys
import types
import typing
from argparse import SUPPRESS, Action, HelpFormatter
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter


class VerbHelp(DefaultHelpFormatter):
    """Help that shows one spelling of an option, `N` for whole numbers, and a default only where it says something."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, max_help_position=30, **options)

    def _format_action_invocation(self, action: Action) -> str:
        names = [name for name in action.option_strings if name.startswith("--")]
        if not names:
            return super()._format_action_invocation(action)
        name = names[0]
        if action.dest in ("help", "print_config"):
            return f"-h, {name}" if action.dest == "help" else name
        if _kind(action) is bool:
            return f"--[no-]{name[2:]}" if action.default is True else name
        if action.dest == "options":
            return f"{name}.NAME VALUE"
        return f"{name} {_placeholder(action)}"

    def _get_help_string(self, action: Action) -> str:
        text = (action.help or "").replace("\n", " ")
        if action.dest == "help":
            return "Show this help."
        if action.dest == "print_config":
            return "Print all settings as a recipe and stop."
        default = action.default
        says_nothing = default is None or isinstance(default, bool | dict) or default in ("", SUPPRESS)
        if says_nothing or not action.option_strings:
            return text
        return f"{text} [%(default)s]"


class VerbParser(ArgumentParser):
    """An argument parser whose options are written with dashes and whose errors are one line and exit status 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=VerbHelp, allow_abbrev=False, print_config="--print-config", **options)
        self.recipes: list[str] = []  # the files given with --config

    def add_argument(self, *names: str, **options: Any) -> Any:
        """As in argparse; `--a_b` can also be written `--a-b`."""
        if len(names) == 1 and names[0].startswith("--") and "_" in names[0]:
            names = ("--" + names[0][2:].replace("_", "-"), names[0])
        return super().add_argument(*names, **options)

    def parse_arguments(self, arguments: list[str]) -> dict[str, Any]:
        """The value of every parameter. Prints help, or in one line what is wrong, and exits, as argparse does."""
        self.recipes = [value for name, value in itertools.pairwise(arguments) if name == "--config"]
        self.recipes += [name.partition("=")[2] for name in arguments if name.startswith("--config=")]
        return self.parse_args(arguments).as_dict()

    def format_usage(self) -> str:
        """The positional arguments; the options are listed below them."""
        places = [action for action in self._actions if not action.option_strings]
        return f"usage: {self.prog} {''.join(_place(action) + ' ' for action in places)}[options]\n"

    def format_help(self, formatter: HelpFormatter | None = None) -> str:
        """Usage, what the verb does, its arguments."""
        _, _, body = super().format_help().partition("\n\n")  # the library's usage lists every option
        return f"{self.format_usage()}\n{body}"

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # type: ignore[override]
        """Say in one line what was wrong with the call; exit status 2."""
        print(f"{self.prog}: {self._plain(' '.join(str(message).split()))} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(2)

    def _plain(self, message: str) -> str:
        """The library's message as a user would say it, with the right spelling where a name comes close to one."""
        if found := re.match(r'Parser key "([\w.]+)": .*(?:Got|Given) value: (.*)', message):
            return f"{self._shown(found[1])} is {found[2]!r}; it must be {self._wanted(found[1])}"
        if found := re.match(r"Parser key \"config\": File does not exist: '(.*)'", message):
            return f"--config: no such file {found[1]}"
        if found := re.match(r"Option '([\w.]+)' is not accepted", message):
            return f"{self._recipe()}no such setting {found[1]!r}{self._meant('--' + found[1].replace('_', '-'))}"
        if found := re.match(r"Problems parsing config: (.*)", message):
            return f"{self._recipe()}is no YAML: {found[1]}"
        if found := re.match(r"unrecognized arguments: (--[\w-]+)", message):
            return f"{message}{self._meant(found[1])}"
        return re.sub(r"^argument (--[\w-]+)(/--\w+)?: ", r"\1: ", message)

    def _meant(self, name: str) -> str:
        known = [name for action in self._actions for name in action.option_strings if "_" not in name]
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
        return f"; did you mean {close[0]}?" if close else ""

    def _recipe(self) -> str:
        return f"{' or '.join(self.recipes)}: " if self.recipes else ""

    def _action(self, key: str) -> Action | None:
        return next((action for action in self._actions if action.dest == key), None)

    def _shown(self, key: str) -> str:
        action = self._action(key)
        return key if action is not None and not action.option_strings else "--" + key.replace("_", "-")

    def _wanted(self, key: str) -> str:
        action = self._action(key)
        kinds = _kinds(action) if action is not None else []
        choices = [str(choice) for kind in kinds for choice in typing.get_args(kind)]
        if choices and typing.get_origin(kinds[0]) is typing.Literal:
            return " or ".join([", ".join(choices[:-1]), choices[-1]] if len(choices) > 1 else choices)
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        return next((names[kind] for kind in kinds if kind in names), "a table of names and values")


def _kind(action: Action) -> Any:
    return getattr(action, "_typehint", None) or action.type


def _kinds(action: Action) -> list[Any]:
    """The type of an argument, or the parts of `int | None` without None."""
    kind = _kind(action)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [part for part in typing.get_args(kind) if part is not type(None)]
    return [kind]


def _placeholder(action: Action) -> str:
    kinds = _kinds(action)
    if typing.get_origin(kinds[0]) is typing.Literal:
        return "|".join(map(str, typing.get_args(kinds[0])))
    if int in kinds:
        return "N"
    if float in kinds:
        return "X"
    names = {"config": "FILE", "video": "FILE", "record": "FILE", "out": "FOLDER", "cache": "FOLDER", "lists": "FOLDER"}
    return names.get(action.dest, "TEXT")


def _place(action: Action) -> str:
    name = action.dest.upper()
    if action.nargs == "?":
        return f"[{name}]"
    return f"{name} ..." if action.nargs == "+" else name
