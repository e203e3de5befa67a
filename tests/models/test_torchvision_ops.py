"""timm imports beside a torchvision whose compiled operators do not load, and a sound torchvision is left alone."""

import subprocess
import sys
import textwrap

import pytest

BROKEN = """
import torch

@torch.library.register_fake("torchvision::nms")
def fake(dets, scores, iou_threshold): ...

@torch.library.register_fake("torchvision::another")
def another(x): ...

ready = True
"""


def run(code: str, folder) -> str:
    """In a fresh interpreter that finds `folder` first."""
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


IMPORT = "import kinegru.models.torchvision_ops as ops\n"


def test_missing_operators_are_declared_until_the_import_succeeds(tmp_path):
    (tmp_path / "torchvision.py").write_text(BROKEN)
    out = run(IMPORT + "import torchvision; print(torchvision.ready, len(ops._declared))", tmp_path)
    assert out == "True 2"


def test_a_sound_torchvision_is_left_alone(tmp_path):
    (tmp_path / "torchvision.py").write_text("ready = True")
    assert run(IMPORT + "import torchvision; print(torchvision.ready, len(ops._declared))", tmp_path) == "True 0"


@pytest.mark.parametrize("error", ["RuntimeError('no such device')", "ImportError('libcudart is missing')"])
def test_other_failures_are_not_hidden(tmp_path, error):
    (tmp_path / "torchvision.py").write_text(f"raise {error}")
    code = f"""
    try:
        import kinegru.models.torchvision_ops
    except {error.split("(")[0]} as error:
        print(error)
    """
    assert run(code, tmp_path) in error and run(code, tmp_path)


def test_timm_imports_here():
    from kinegru.models.backbones import import_timm

    assert import_timm().is_model("legacy_xception")
