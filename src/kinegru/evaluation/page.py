"""What all pages share: the template environment, the style, and text that can stand in HTML.

A page is one file: style, script, figures and thumbnails inside, every value escaped, nothing asked from any server.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup


def render(template: str, **view: Any) -> str:
    """A page from a template of this package; `css`, `script` and `script_hash` are added to the view's variables."""
    script = page_part("report.js").strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    shared = {
        "css": Markup(page_part("report.css").strip()),
        "script": Markup(script),
        "script_hash": f"sha256-{digest}",
    }
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=readable, keep_trailing_newline=True
    )
    return environment.from_string(page_part(template)).render(**shared, **view)


def readable(value: Any) -> Any:
    """Text that can stand in a page: lone surrogates and control characters become a replacement sign.

    >>> readable("a\\x07b")
    'a\ufffdb'
    """
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "".join("\ufffd" if "\ud800" <= c <= "\udfff" or (c < " " and c not in "\n\t") else c for c in value)


def page_part(name: str) -> str:
    """The text of a template, a style or a script of this package."""
    return resources.files("kinegru.evaluation").joinpath(name).read_text(encoding="utf-8")
