"""An export runs as torch does, is written only if it does, and is tied to its model file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinegru.data.catalog import Catalog, load_catalog
from kinegru.errors import KineGRUError, ModelFileError, UsageError
from kinegru.models.modelfile import save_model
from kinegru.models.zoo import create_model
from kinegru.recognition import export as export_module
from kinegru.recognition.engines import TorchEngine
from kinegru.recognition.export import compare, export_model, require_packages
from kinegru.recognition.exported import ExportedEngine, export_folder, fingerprint, read_manifest
from kinegru.recognition.openvino_engine import FIXED, OFTEN
from kinegru.recognition.recognizer import Recognizer
from kinegru.recognition.stream import Stream
from kinegru.verbs import export as export_verb
from kinegru.verbs.export import export
from kinegru.video.loading import load_clip
from kinegru.video.reader import iter_frames
from kinegru.video.synthetic import example_clip
from kinegru.video.transforms import Preprocessing

PREPROCESSING = Preprocessing(frames=4, size=64)
SMALL = {"backbone": "xception_small", "hidden_channels": 4, "width": 8}
EXACT = ("onnx", "openvino", "torch-export")
TOLERANCE = 1e-4


def lively(model):
    """Masks that differ from one half, states that differ from zero, batch norms that do something."""
    for module in model.modules():
        if getattr(module, "running_mean", None) is not None:
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    return model.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file with every export beside it."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    model = lively(create_model("sc_xception_convgru_mcam_aff", 3, readout="mean", differences=True, **SMALL))
    path = tmp_path_factory.mktemp("run") / "model.safetensors"
    save_model(path, model, ["a", "b", "c"], PREPROCESSING.to_dict())
    recognizer = Recognizer.load(path, "cpu", "torch")
    clip = load_clip(example_clip(), PREPROCESSING)
    for form in ("onnx", "openvino", "onnx-int8", "openvino-int8", "torch-export"):
        export_model(recognizer, path, form, export_folder(path, form), [clip])
    return path


def frames_of(count: int) -> list[np.ndarray]:
    return [frame for frame, _ in zip(iter_frames(example_clip()), range(count), strict=False)]


@pytest.mark.parametrize("form", EXACT)
def test_an_exact_export_gives_torchs_numbers(form: str, exported: Path) -> None:
    recognizer = Recognizer.load(exported, "cpu", "torch")
    engine = ExportedEngine(export_folder(exported, form), exported)
    clips = torch.rand(2, 7, 3, 64, 64) * 2 - 1  # another batch and another length than it was traced with
    found = compare(TorchEngine(recognizer.model, torch.device("cpu"), fold=False), engine, list(clips))
    assert found.greatest <= TOLERANCE and set(found.parts) == {"trunk", "neck", "logits"}
    together = engine.clip(clips)
    expected = recognizer.engine.clip(clips)
    assert float((together - expected).abs().max() / expected.abs().max()) <= TOLERANCE
    assert expected.std() > 1e-3  # there is something to compare


@pytest.mark.parametrize("window", [1, 2, 5, None])
@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_a_stream_runs_on_every_engine(form: str, window: int | None, exported: Path) -> None:
    sides = [Recognizer.load(exported, "cpu", name).stream(window=window) for name in ("torch", form)]
    for frame in frames_of(9):
        expected, found = (stream.step(frame) for stream in sides)
        assert (expected is None) == (found is None)
        if expected is not None and found is not None:
            np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


@pytest.mark.parametrize("name", ["torch", "onnx", "openvino"])
def test_threads_that_share_a_recogniser_get_their_own_results(name: str, exported: Path) -> None:
    engine = Recognizer.load(exported, "cpu", name).engine
    images = torch.rand(3, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = [engine.trunk(image) for image in images]

    def worst(number: int) -> float:
        return max(float((engine.trunk(images[number]) - expected[number]).abs().max()) for _ in range(100))

    with ThreadPoolExecutor(len(images)) as pool:
        assert max(pool.map(worst, range(len(images)))) < 1e-4 < float((expected[0] - expected[1]).abs().max())


def test_openvino_compiles_what_comes_often_for_its_shapes_and_no_more(exported: Path) -> None:
    runtime = ExportedEngine(export_folder(exported, "openvino")).runtime
    for length in range(1, FIXED + 3):
        images = np.random.default_rng(0).random((length, 3, 64, 64), np.float32)
        first, *others = (runtime.run("trunk", [images])[0] for _ in range(OFTEN + 1))
        assert first.std() > 0.1
        for other in others:
            np.testing.assert_allclose(other, first, rtol=1e-4, atol=1e-4)
    assert [shapes[0][0] for shapes in runtime.fixed["trunk"]] == list(range(1, FIXED + 1))


@pytest.mark.parametrize("form", ["onnx-int8", "openvino-int8"])
def test_eight_bits_are_near(form: str, exported: Path) -> None:
    recognizer = Recognizer.load(exported, "cpu", "torch")
    engine = ExportedEngine(export_folder(exported, form), exported)
    clip = load_clip(example_clip(), PREPROCESSING)
    maps, found = recognizer.engine.trunk(clip), engine.trunk(clip)
    noise = float((maps - found).square().mean() / maps.square().mean())
    assert 1e-6 < noise < 0.03  # 15 dB
    stream = Stream(engine, PREPROCESSING, ["a", "b", "c"], 3)
    assert [stream.step(frame) is None for frame in frames_of(4)] == [True, True, False, False]


def test_eight_bits_are_where_the_arithmetic_is(exported: Path) -> None:
    import onnx

    for name in ("trunk", "neck"):
        graph = onnx.load(export_folder(exported, "onnx-int8") / f"{name}.onnx").graph
        weights = {value.name: value.data_type for value in graph.initializer}
        assert onnx.TensorProto.INT8 in weights.values()
    steps = onnx.load(export_folder(exported, "onnx-int8") / "step.onnx").graph
    assert not any(node.op_type == "QuantizeLinear" for node in steps.node)


def test_auto_takes_an_exact_export_and_torch_where_there_is_none(exported: Path, tmp_path: Path) -> None:
    assert Recognizer.load(exported, "cpu").engine.name == "onnx"
    alone = shutil.copy(exported, tmp_path / "model.safetensors")
    assert Recognizer.load(alone, "cpu").engine.name == "torch"
    shutil.copytree(export_folder(exported, "onnx-int8"), tmp_path / "model.onnx-int8")
    assert Recognizer.load(alone, "cpu").engine.name == "torch"  # eight bits only where they are asked for
    assert Recognizer.load(alone, engine="onnx-int8").engine.name == "onnx-int8"
    with pytest.raises(ModelFileError, match=r"kinegru export .* --format onnx"):
        Recognizer.load(alone, engine="onnx")
    with pytest.raises(ModelFileError, match=r"kinegru export .* --format openvino-int8 --data CLIPS"):
        Recognizer.load(alone, engine="openvino-int8")
    with pytest.raises(UsageError, match="engine 'onxn' is unknown: give one of auto, torch, onnx"):
        Recognizer.load(alone, engine="onxn")  # type: ignore[arg-type]


def test_weights_of_a_later_model_file_are_never_taken_for_those_of_the_export(exported: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(exported, tmp_path / "model.safetensors"))
    shutil.copytree(export_folder(exported, "onnx"), tmp_path / "model.onnx")
    recognizer = Recognizer.load(path, "cpu", "onnx")
    save_model(path, create_model("sc_xception_convgru_mcam_aff", 3, **SMALL), ["a", "b", "c"], {"size": 64})
    with pytest.raises(ModelFileError, match="was written anew since it was opened"):
        recognizer.model.eval()


@pytest.mark.parametrize(("engine", "builds"), [("auto", False), ("onnx", False), ("torch", True)])
def test_a_model_that_runs_exported_is_never_built_in_torch(engine: str, builds: bool, exported: Path) -> None:
    program = (
        "import sys; from kinegru import Recognizer; "
        f"recognizer = Recognizer.load({str(exported)!r}, engine={engine!r}); "
        f"recognizer.predict({str(example_clip())!r}); next(recognizer.timeline({str(example_clip())!r}).__iter__()); "
        "print('timm' in sys.modules); print(recognizer.model.num_classes)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [str(builds), "3"]  # and it is built when it is asked for


def test_an_export_of_another_model_file_is_refused(exported: Path, tmp_path: Path, caplog) -> None:
    other = tmp_path / "model.safetensors"
    save_model(other, create_model("sc_xception_convgru_mcam_aff", 3, **SMALL), ["a", "b", "c"], {"size": 64})
    shutil.copytree(export_folder(exported, "onnx"), tmp_path / "model.onnx")
    with pytest.raises(ModelFileError, match="another model file"):
        Recognizer.load(other, engine="onnx")
    assert Recognizer.load(other, "cpu").engine.name == "torch"
    assert "another model file" in caplog.text


def test_what_differs_from_torch_is_not_written(exported: Path, tmp_path: Path, monkeypatch) -> None:
    path = Path(shutil.copy(exported, tmp_path / "model.safetensors"))
    monkeypatch.setattr(export_module, "_traced_before", lambda path: export_folder(exported, "onnx"))
    recognizer = Recognizer.load(path, "cpu", "torch")
    clip = load_clip(example_clip(), PREPROCESSING)
    with torch.no_grad():
        recognizer.model.classifier.output.bias += 0.01  # the graphs are of what it was before
    with pytest.raises(KineGRUError, match="differs from torch"):
        export_model(recognizer, path, "openvino", tmp_path / "model.openvino", [clip])
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_check_that_fails_keeps_the_export_from_being_written(exported: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(export_module, "_traced_before", lambda path: export_folder(exported, "onnx"))
    recognizer = Recognizer.load(exported, "cpu", "torch")

    def refuse(engine) -> dict:
        raise KineGRUError("too dear")

    with pytest.raises(KineGRUError, match="too dear"):
        export_model(
            recognizer, exported, "openvino", tmp_path / "out", [load_clip(example_clip(), PREPROCESSING)], refuse
        )
    assert not list(tmp_path.iterdir())


def test_the_manifest_holds_what_another_program_needs(exported: Path) -> None:
    found = json.loads((export_folder(exported, "onnx") / "export.json").read_text())
    assert found["labels"] == ["a", "b", "c"] and found["preprocessing"]["size"] == 64
    assert found["model"]["fingerprint"] == fingerprint(exported) and found["radius"] == 1
    assert list(found["graphs"]) == ["trunk", "neck", "start", "step", "read"]
    assert found["graphs"]["step"]["inputs"] == ["parts", "kept", "last_0", "previous"]
    assert max(found["differences"].values()) <= TOLERANCE


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "export.json").write_text("{"), "damaged"),
        (lambda folder: (folder / "step.onnx").unlink(), "is missing"),
        (lambda folder: (folder / "trunk.onnx").write_bytes(b"nothing"), "cannot read it"),
    ],
)
def test_a_damaged_export_is_named_in_one_line(damage, words: str, exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(export_folder(exported, "onnx"), tmp_path / "model.onnx")
    damage(folder)
    with pytest.raises(ModelFileError, match=words) as caught:
        ExportedEngine(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named_with_its_extra(monkeypatch) -> None:
    monkeypatch.setitem(export_module.PACKAGES, "openvino", ("no_such_package",))
    with pytest.raises(UsageError, match=r"kinegru\[openvino\]"):
        require_packages("openvino")


def test_a_model_without_parts_has_one_graph_and_no_eight_bits(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    model, preprocessing = create_model("stc_resnet18", 2).eval(), Preprocessing(frames=2, size=32)
    path = tmp_path / "model.safetensors"
    save_model(path, model, ["a", "b"], preprocessing.to_dict())
    recognizer = Recognizer.load(path, "cpu", "torch")
    clip = load_clip(example_clip(), preprocessing)
    with pytest.raises(UsageError, match="one graph of whole clips"):
        export_model(recognizer, path, "onnx-int8", tmp_path / "model.onnx-int8", [clip])
    export_model(recognizer, path, "onnx", tmp_path / "model.onnx", [clip])
    assert list(read_manifest(tmp_path / "model.onnx", path)["graphs"]) == ["clip"]
    onnx, torch_ = (Recognizer.load(path, "cpu", name).predict(example_clip()).scores for name in ("onnx", "torch"))
    np.testing.assert_allclose(onnx, torch_, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "members"), [("two_stream", 1), ("sc_xception_convgru_mcam_aff", 1), ("xception_lstm", 3)]
)
def test_a_model_that_sees_motion_is_exported_in_parts_and_streams_on_them(name, members, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model = lively(create_model(name, 2, streams="rgb+flow", backbone="xception_small", members=members))
    preprocessing = Preprocessing(frames=4, size=32, modalities=("rgb", "flow"))
    path = tmp_path / "model.safetensors"
    save_model(path, model, ["a", "b"], preprocessing.to_dict())
    recognizer = Recognizer.load(path, "cpu", "torch")
    export_model(recognizer, path, "onnx", tmp_path / "model.onnx", [load_clip(example_clip(), preprocessing)])
    assert list(read_manifest(tmp_path / "model.onnx", path)["graphs"]) == ["trunk", "neck", "start", "step", "read"]
    both = [Recognizer.load(path, "cpu", engine) for engine in ("onnx", "torch")]
    np.testing.assert_allclose(*(side.predict(example_clip()).scores for side in both), atol=1e-5)
    streams = [side.stream(window=12) for side in both]
    ours, torchs = ([p.scores for f in frames_of(20) if (p := stream.step(f)) is not None] for stream in streams)
    assert len(ours) == 3
    np.testing.assert_allclose(ours, torchs, atol=1e-5)


def test_windows_that_an_export_does_not_take_are_left_to_torch(tmp_path: Path, caplog) -> None:
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model = lively(create_model("stc_resnet18", 2))
    path = tmp_path / "model.safetensors"
    preprocessing = Preprocessing(frames=8, size=48)
    save_model(path, model, ["a", "b"], preprocessing.to_dict())
    recognizer = Recognizer.load(path, "cpu", "torch")
    export_model(recognizer, path, "onnx", tmp_path / "model.onnx", [load_clip(example_clip(), preprocessing)])
    for window, words in ((6, "takes windows of 8 frames only"), (8, "")):
        caplog.clear()
        both = [Recognizer.load(path, "cpu", name).stream(window, stride=5) for name in ("auto", "torch")]
        assert words in caplog.text and (both[0].engine.name == "onnx") == (window == 8)
        ours, torchs = ([p.scores for f in frames_of(16) if (p := stream.step(f)) is not None] for stream in both)
        np.testing.assert_allclose(ours, torchs, atol=1e-5)


def test_an_export_does_not_take_the_place_of_the_working_folder(exported: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is the working folder"):
        export(str(exported), format="torch-export", out=".")


@pytest.mark.parametrize("there", ["a folder of other things", "the run", "a file"])
def test_an_export_takes_no_place_but_its_own(there: str, exported: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    model = Path(shutil.copy(exported, run))
    (run / "mine").mkdir()
    (run / "mine" / "thesis.txt").write_text("important")
    out = {"a folder of other things": run / "mine", "the run": run, "a file": model}[there]
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with pytest.raises(UsageError, match="is there and no export"):
        export(str(model), format="torch-export", out=str(out))
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def people(folder: Path) -> Catalog:
    """Two clips of each of five people, one a class."""
    for person in ("ann", "bob", "cyd", "dan", "eve"):
        for label in ("a", "b"):
            (folder / label).mkdir(parents=True, exist_ok=True)
            shutil.copy(example_clip(), folder / label / f"{person}_{label}.mp4")
    return load_catalog(folder, r"/([a-z]+)_")


@pytest.mark.parametrize("split", ["model", "leave-one-group-out:cyd", None])
def test_eight_bits_are_fitted_and_measured_on_other_people_and_never_on_test_clips(
    split: str | None, exported: Path, tmp_path: Path
) -> None:
    recognizer = Recognizer.load(exported, "cpu", "torch")
    recognizer.provenance = {"split": "leave-one-group-out:cyd", "seed": 0, "settings": {"validation": 0.3}}
    catalog = people(tmp_path / "clips")
    fit, held = ({clip.group for clip in part} for part in export_verb._divide(catalog, recognizer, split))
    assert fit and held and not fit & held
    assert fit | held == set(catalog.groups) - ({"cyd"} if split else set())


def test_clips_of_one_person_are_fitted_and_measured_on_and_it_is_said(exported: Path, tmp_path: Path, capsys) -> None:
    recognizer = Recognizer.load(exported, "cpu", "torch")
    catalog = people(tmp_path / "clips")
    alone = Catalog(catalog.root, tuple(c for c in catalog.clips if c.group == "ann"), catalog.labels, "folder")
    fit, held = export_verb._divide(alone, recognizer, None)
    assert fit == held and "those it is calibrated on" in capsys.readouterr().err


def test_an_export_that_changes_too_many_labels_is_refused(exported: Path, tmp_path: Path) -> None:
    class Contrary(TorchEngine):
        def clip(self, frames):
            return -super().clip(frames)

    recognizer = Recognizer.load(exported, "cpu", "torch")
    engine = Contrary(recognizer.model, torch.device("cpu"))
    clips = people(tmp_path / "clips").clips
    costs: list[Any] = []
    check = export_verb._costing(recognizer, clips, tmp_path / "out", 0.9, costs)
    with pytest.raises(KineGRUError, match=r"out: not written, 0 of 10 clips have the same label"):
        check(engine)
    assert not costs
    assert check(recognizer.engine)["cost"]["same"] == 10 and len(costs) == 1


def test_an_export_is_made_anew_in_its_place(exported: Path, tmp_path: Path) -> None:
    model = Path(shutil.copy(exported, tmp_path))
    for _ in range(2):
        assert export(str(model), format="torch-export").folder == tmp_path / "model.torch-export"
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "model.torch-export"}
