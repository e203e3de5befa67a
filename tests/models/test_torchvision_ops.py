"""timm imports beside a torchvision whose compiled operators do not load, and a sound torchvision is left alone."""

import sys

import pytest
import torch

from kinegru.models import torchvision_ops


@pytest.fixture
def torchvision(tmp_path, monkeypatch):
    """Write a torchvision of our own and put it in the place of the installed one for one test."""
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torchvision_ops, "_declared", list(torchvision_ops._declared))
    yield (tmp_path / "torchvision.py").write_text
    sys.modules.pop("torchvision", None)


def test_missing_operators_are_declared_until_the_import_succeeds(torchvision):
    before = len(torchvision_ops._declared)
    torchvision(
        """
import torch
torch.library.register_fake("torchvision::missing_one", lambda x: x)
torch.library.register_fake("torchvision::missing_two", lambda x: x)
ready = True
"""
    )
    assert torchvision_ops.import_torchvision()
    assert sys.modules["torchvision"].ready
    assert len(torchvision_ops._declared) == before + 2
    with pytest.raises(NotImplementedError):  # declared, never implemented: a call cannot go wrong silently
        torch.ops.torchvision.missing_one(torch.ones(1))


def test_a_sound_torchvision_is_left_alone(torchvision):
    before = len(torchvision_ops._declared)
    torchvision("ready = True")
    assert torchvision_ops.import_torchvision() and len(torchvision_ops._declared) == before


@pytest.mark.parametrize("error", [RuntimeError("no such device"), ImportError("libcudart is missing")])
def test_other_failures_are_not_hidden(torchvision, error):
    torchvision(f"raise {error!r}")
    with pytest.raises(type(error), match=str(error)):
        torchvision_ops.import_torchvision()


def test_no_torchvision_is_no_failure(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(torchvision_ops.importlib, "import_module", absent)
    assert torchvision_ops.import_torchvision() is False


def test_timm_imports_here():
    from kinegru.models.backbones import import_timm

    assert import_timm().is_model("legacy_xception")
