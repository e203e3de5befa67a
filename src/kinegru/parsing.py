"""jsonargparse with this project's manners: options with dashes, help that fits a screen, errors of one line."""

from __future__ import annotations

import difflib
import re
import sys
import typing
from argparse import SUPPRESS, Action
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
            return f"--no-{name[2:]}" if action.default is True else name
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
        if not action.option_strings or default is None or isinstance(default, bool | dict) or default in ("", SUPPRESS):
            return text
        return f"{text} [%(default)s]"


class VerbParser(ArgumentParser):
    """An argument parser whose options are written with dashes and whose errors are one line and exit status 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=VerbHelp, allow_abbrev=False, **options)

    def add_argument(self, *names: str, **options: Any) -> Any:
        """As in argparse; `--a_b` can also be written `--a-b`."""
        if len(names) == 1 and names[0].startswith("--") and "_" in names[0]:
            names = ("--" + names[0][2:].replace("_", "-"), names[0])
        return super().add_argument(*names, **options)

    def format_usage(self) -> str:
        """The positional arguments; the options are listed below them."""
        places = [action for action in self._actions if not action.option_strings]
        return f"usage: {self.prog} {''.join(_place(action) + ' ' for action in places)}[options]\n"

    def format_help(self) -> str:
        """Usage, what the verb does, its arguments."""
        return self._without_usage(super().format_help())

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # type: ignore[override]
        """Say in one line what was wrong with the call; exit status 2."""
        print(f"{self.prog}: {self._plain(str(message))} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(2)

    def _without_usage(self, text: str) -> str:
        _, _, rest = text.partition("\n\n")
        return f"{self.format_usage()}\n{rest}"

    def _plain(self, message: str) -> str:
        """The library's message as a user would say it."""
        text = " ".join(message.split())
        text = re.sub(r'^Parser key "([\w.]+)": ?', lambda match: f"{self._shown(match[1])}: ", text)
        text = re.sub(r"^argument (--[\w-]+)(/--\w+)?: ", r"\1: ", text)
        text = re.sub(r"<class '(\w+)'>", r"\1", text)
        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", text)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings if "_" not in name]
            close = difflib.get_close_matches(unknown[1], known, n=1, cutoff=0.7)
            text += f"; did you mean {close[0]}?" if close else ""
        return text

    def _shown(self, key: str) -> str:
        positional = any(action.dest == key and not action.option_strings for action in self._actions)
        return key if positional else "--" + key.replace("_", "-")


def _kind(action: Action) -> Any:
    return getattr(action, "_typehint", None) or action.type


def _placeholder(action: Action) -> str:
    kinds = (_kind(action), *typing.get_args(_kind(action)))  # a type, or the parts of `int | None`
    for kind in kinds:
        if typing.get_origin(kind) is typing.Literal:
            return "|".join(map(str, typing.get_args(kind)))
    if int in kinds:
        return "N"
    if float in kinds:
        return "X"
    return {"config": "FILE", "out": "FOLDER", "cache": "FOLDER", "lists": "FOLDER"}.get(action.dest, "TEXT")


def _place(action: Action) -> str:
    name = action.dest.upper()
    if action.nargs == "?":
        return f"[{name}]"
    return f"{name} ..." if action.nargs == "+" else name
