"""A bar inside a bar joins it on the terminal instead of fighting for the line."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kinegru import console


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    text = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=text, force_terminal=True, width=120))
    return text


def test_bars_within_a_bar_are_shown_with_it_and_go(terminal):
    with console.progress_bar("all rows") as outer:
        outer(1, 4, "first row", left=3700)
        with console.progress_bar("training") as inner:
            inner(1, 2)
            group = console._shown[0]
            assert [task.description for task in group.tasks] == ["all rows", "training"]
        assert [task.description for task in group.tasks] == ["all rows"]
        with pytest.raises(KeyError), console.progress_bar("testing"):
            raise KeyError
    assert not console._shown
    assert "1 h 1 min" in terminal.getvalue() and "first row" in terminal.getvalue()


def test_a_bar_after_a_failed_one_is_a_new_one(terminal):
    with pytest.raises(KeyError), console.progress_bar("one"):
        raise KeyError
    with console.progress_bar("two") as track:
        track(2, 2)
        assert [task.description for task in console._shown[0].tasks] == ["two"]


def test_lines_tell_no_time_left_before_anything_is_done(monkeypatch, capsys):
    seconds = iter([0.0, 30.0, 60.0, 90.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(console, "console", Console(force_terminal=False, stderr=True, soft_wrap=True))
    with console.progress_bar("folds") as track:
        for done in (0, 0, 1):
            track(done, 3)
    assert capsys.readouterr().err.splitlines() == ["folds: 0/3", "folds: 0/3", "folds: 1/3, 3 min 0 s left"]
