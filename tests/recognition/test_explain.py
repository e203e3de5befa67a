"""Heat maps say where a model looked: right by the definition, in the right place, and about what was learnt."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinegru.errors import UsageError, VideoError
from kinegru.models.convgru import ConvGRU
from kinegru.models.excitation import Excitation
from kinegru.models.modelfile import LoadedModel
from kinegru.models.recognizer import ActionRecognizer
from kinegru.models.temporal import MapRecurrence
from kinegru.models.zoo import create_model
from kinegru.recognition.attribution import Look, deletion, look
from kinegru.recognition.explain import Explanation, explain
from kinegru.recognition.grid import Grid, grids
from kinegru.recognition.heat import Placement, heated, masked
from kinegru.recognition.recognizer import Recognizer
from kinegru.recognition.sanity import CASCADE, cascade, randomised, rank_correlation
from kinegru.video.reader import iter_frames
from kinegru.video.synthetic import example_clip
from kinegru.video.transforms import Preprocessing
from kinegru.video.writer import write_video

SMALL = {"backbone": "xception_small", "hidden_channels": 4, "width": 8}
MOBILE = {"backbone": "mobilenetv2_050", "tail_end": "blocks.3"}
SHALLOW = {"tail_start": "block2", "tail_end": "block2"}  # maps of S/8, whose cells see a part of the frame only
FITS = ("stretch", "crop", "pad")


def small_model(name: str = "sc_xception_convgru_mcam_aff", **options) -> ActionRecognizer:
    torch.manual_seed(0)
    model = create_model(name, 3, **(SMALL | options))
    for parameter in model.parameters():  # masks that differ from one half, states that differ from zero
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    return model.eval()


def trunk_maps(model: ActionRecognizer, count: int, size: int = 64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.rand(1, count, model.encoder.in_channels, size, size, generator=generator)
    with torch.no_grad():
        return model.trunk(2 * frames - 1)


def recognizer_of(model: ActionRecognizer, **preprocessing) -> Recognizer:
    chosen = Preprocessing(**({"frames": 4, "size": 64} | preprocessing))
    return Recognizer(LoadedModel(model, ["a", "b", "c"], chosen.to_dict()), "cpu")


# --- by the definition


@pytest.mark.parametrize("readout", ["last", "mean", "max"])
@pytest.mark.parametrize(("differences", "members"), [(False, 1), (True, 1), (False, 2)])
def test_heat_is_grad_cam_on_the_states(readout, differences, members):
    """α by finite differences: one channel of one state is raised everywhere, and the recurrence goes on from there."""
    model = small_model(readout=readout, differences=differences, classifier="linear", members=members)
    maps, index, step = trunk_maps(model, 3).double(), 1, 1e-5
    temporal = model.double().temporal
    with torch.no_grad():
        for module in temporal.modules():
            if isinstance(module, ConvGRU):
                module.input_conv.weight *= 0.002  # states that are not at their bounds, where maxima are equal
        parts = temporal.per_frame(model.neck(maps))
        expected = []
        for t in range(3):
            after = temporal.advance(parts[:, : t + 1])
            before = temporal.advance(parts[:, :t]) if t else None
            h = torch.cat(after.last, dim=1)  # of all members
            weights = torch.stack(
                [
                    (logit(model, parts, t, before, h, k, step) - logit(model, parts, t, before, h, k, -step))[index]
                    / (2 * step)
                    for k in range(h.shape[1])
                ]
            )
            weights /= h[0, 0].numel()  # mean over h, w of the gradient
            level = h[0].flatten(1).median(dim=1).values
            expected.append(((h[0] - level[:, None, None]) * weights[:, None, None]).sum(0).relu())
    np.testing.assert_allclose(look(model, maps, index).heat, torch.stack(expected), rtol=1e-3, atol=1e-7)


def logit(model, parts, t, before, h, channel, step) -> torch.Tensor:
    """Logits where state t is `h` with one channel raised by `step`, and the frames after t follow."""
    raised = h.clone()
    raised[:, channel] += step
    readout = model.options["readout"]
    kept = raised
    if before is not None and readout != "last":
        kept = before.kept + raised if readout == "mean" else torch.maximum(before.kept, raised)
    last = raised.chunk(model.options["members"], dim=1)
    state = model.temporal.advance(parts[:, : t + 1])._replace(kept=kept, last=last)
    if t + 1 < parts.shape[1]:
        state = model.temporal.advance(parts[:, t + 1 :], state)
    return model.classifier(model.temporal.read(state))[0]


@pytest.mark.parametrize(
    ("name", "options", "steps"),
    [
        ("xception_lstm", {}, 5),
        ("xception_gru", {}, 5),
        ("tsn_xception", {}, 5),
        ("stam", {}, 5),
        ("two_stream", {}, 5),
        ("stc_resnet18", {"backbone": "stc_resnet18"}, 1),
    ],
)
def test_a_model_without_map_recurrence_has_heat_on_its_last_maps(name, options, steps):
    model = small_model(name, **options)
    found = look(model, trunk_maps(model, 5), 1)
    assert (found.method, len(found.heat), found.gates) == ("maps", steps, None)
    assert found.heat.min() >= 0 and np.ptp(found.heat) > 0


def test_the_maps_of_a_convgru_model_can_be_asked_for():
    model = small_model()
    maps = trunk_maps(model, 3)
    on_states, on_maps = look(model, maps, 0), look(model, maps, 0, "maps")
    assert (on_states.method, on_maps.method) == ("states", "maps")
    assert abs(rank_correlation(on_states.heat, on_maps.heat)) < 0.99
    assert on_maps.gates is not None and np.array_equal(on_states.scores, on_maps.scores)


@pytest.mark.parametrize("readout", ["last", "mean", "max"])
def test_the_score_over_time_is_what_the_model_says_of_the_frames_so_far(readout):
    model = small_model(readout=readout, excitation="none", differences=True)
    maps = trunk_maps(model, 5)
    found = look(model, maps, 0).scores
    with torch.no_grad():
        for t in range(5):
            expected = model.head(model.neck(maps[:, : t + 1]))[0].softmax(0)
            np.testing.assert_allclose(found[t], expected, atol=1e-6)


def test_gates_tell_what_the_recurrence_does():
    model = small_model()
    with torch.no_grad():
        model.temporal.convgru.input_conv.weight *= 0.01
        model.temporal.convgru.input_conv.bias[:4] = 40.0  # z = 1: the state is kept, and it began as zero
    closed = look(model, trunk_maps(model, 4), 0)
    assert closed.gates.update.min() > 0.99 and closed.gates.change.max() < 0.01
    with torch.no_grad():
        model.temporal.convgru.input_conv.bias[:4] = -40.0
        model.temporal.convgru.input_conv.bias[4:8] = 40.0
    opened = look(model, trunk_maps(model, 4), 0).gates
    assert opened.update.max() < 0.01 and opened.reset.min() > 0.99 and opened.change[0] > 0.1
    assert all(len(values) == 4 for values in (opened.update, opened.reset, opened.change))


@pytest.mark.parametrize("variant", ["reset_after", "reset_before"])
@pytest.mark.parametrize("differences", [False, True])
def test_the_gates_told_are_those_that_make_the_next_state(variant, differences):
    torch.manual_seed(0)
    temporal = MapRecurrence(6, 4, variant=variant, differences=differences)
    parts = temporal.per_frame(torch.randn(2, 3, 6, 5, 5))
    state = temporal.advance(parts[:, :2])
    z, r = temporal.gates(parts[:, 2:], state)
    gx, _ = temporal._inputs(parts[:, 2:], state)
    _, _, n, h = temporal.convgru.gates(gx[:, 0], state.last[0])
    torch.testing.assert_close((1 - z) * n + z * h, temporal.advance(parts[:, 2:], state).last[0])
    assert z.shape == r.shape == (2, 4, 5, 5) and r.min() > 0 and r.max() < 1


@pytest.mark.parametrize("mode", ["parallel", "serial", "ste", "ce", "none"])
def test_masks_are_those_that_the_excitation_applies(mode):
    torch.manual_seed(0)
    excitation, x = Excitation(16, mode), torch.randn(1, 4, 16, 3, 3)
    for parameter in excitation.parameters():
        torch.nn.init.normal_(parameter)
    spatial, channels = excitation.masks(x)
    assert (spatial is None, channels is None) == (mode in ("ce", "none"), mode in ("ste", "none"))
    if mode == "serial":
        factor = (1 + spatial) * (1 + channels)
    else:
        given = [mask for mask in (spatial, channels) if mask is not None]
        factor = max(1, len(given)) + sum(given)
    torch.testing.assert_close(excitation(x), x * factor * excitation.scale)


def test_masks_of_one_half_are_shown_as_nothing():
    model = small_model()
    for part in (model.encoder.neck.excitation.ste, model.encoder.neck.excitation.ce):
        for parameter in part.parameters():
            torch.nn.init.zeros_(parameter)
    found = look(model, trunk_maps(model, 3), 0)
    assert found.spatial.shape == (3, 8, 8) and not found.spatial.any() and not found.channels.any()


# --- in its place

MODELS = {"states": small_model(**SHALLOW), "maps": small_model("xception_lstm", **SHALLOW)}


@settings(max_examples=25, deadline=None)
@given(
    on=st.sampled_from(["states", "maps"]),
    count=st.integers(1, 5),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    fit=st.sampled_from(FITS),
    seed=st.integers(0, 1000),
)
def test_heat_lies_in_0_to_1_and_has_the_frames_size(on, count, height, width, fit, seed):
    preprocessing = Preprocessing(frames=count, size=32, fit=fit)
    frames = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    model = MODELS[on]
    with torch.no_grad():
        found = look(model, model.trunk(preprocessing(frames)[None]), seed % 3)
    assert found.heat.shape == (count, 4, 4) and np.isfinite(found.heat).all()
    made = explanation(found, count)
    placement = Placement(preprocessing, height, width, (4, 4), grids(model, 32)[4])
    for scale in ("clip", "frame"):
        heat = made.heat(scale)
        assert heat.max() == (1 if found.heat.any() else 0)
        for frame, cells in zip(frames, heat, strict=True):
            placed = placement(cells)
            assert placed.shape == (height, width) and placed.min() >= 0 and placed.max() <= 1
            assert not placed[~placement.seen].any()
            drawn = heated(frame, placed, placement.seen)
            assert drawn.shape == frame.shape and drawn.dtype == np.uint8
    top, left, kept_height, kept_width = preprocessing.region(height, width)
    seen = np.zeros((height, width), bool)
    seen[top : top + kept_height, left : left + kept_width] = True
    assert np.array_equal(placement.seen, seen)


def explanation(found: Look, length: int, fps: float = 10.0, **changes) -> Explanation:
    values = {
        "source": "clip.mp4", "labels": ("a", "b", "c"), "label": "b", "predicted": "a", "score": 0.25, "look": found,
        "deletion": None, "numbers": np.arange(length), "stamps": np.arange(length) / fps, "fps": fps,
        "heat_grid": Grid.even(4), "mask_grid": None, "rate": None,
    }  # fmt: skip
    return Explanation(**(values | changes))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 48), (40, 120), (33, 33), (101, 50)])
def test_placement_undoes_the_preprocessing(fit, height, width):
    """A smooth picture goes through the resize that the network sees, and comes back to where it was."""
    y, x = np.mgrid[:height, :width]
    picture = (40 + 60 * np.sin(3 * x / width) + 60 * np.cos(4 * y / height) ** 2).round().astype(np.uint8)
    preprocessing = Preprocessing(size=64, fit=fit)
    square = preprocessing.resize(np.repeat(picture[None, ..., None], 3, axis=3))[0, ..., 0].numpy()
    placement = Placement(preprocessing, height, width, (64, 64), Grid.even(64))
    back, inner = placement(square), placement.seen.copy()
    edge = 1 + round(1.5 * max(height, width) / 64)  # there the resize has mixed in the border
    inner[:edge], inner[-edge:], inner[:, :edge], inner[:, -edge:] = False, False, False, False
    if fit == "crop":
        top, left, side, _ = preprocessing.region(height, width)
        inner[: top + edge], inner[top + side - edge :] = False, False
        inner[:, : left + edge], inner[:, left + side - edge :] = False, False
    assert inner.any() and np.abs(back - picture)[inner].max() < 3


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("sc_xception_convgru_mcam_aff", {"backbone": "xception_small", **SHALLOW}, 160),
        (
            "mobilenet_convgru_mcam_aff",
            MOBILE | {"pad_type": "same"},
            256,
        ),
        ("mobilenet_convgru_mcam_aff", MOBILE | {"pad_type": ""}, 256),
        ("xception_convgru", {"tail_start": "block2", "tail_end": "block2"}, 299),
        ("stc_resnet18", {}, 160),
    ],
)
def test_cells_lie_where_their_gradient_lies(name, options, size):
    """With weights that are all alike, the middle of what a cell sees is the centre of mass of its gradient."""
    model = create_model(name, 2, **options).set_profile("full").eval()
    for module in model.encoder.modules():
        if hasattr(module, "running_mean"):
            module.reset_running_stats()
        elif isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)):
            torch.nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    told = grids(model, size)
    for module in list(model.encoder.modules()):  # whose gradient would lie on one pixel
        for name, child in module.named_children():
            if isinstance(child, torch.nn.MaxPool2d):
                setattr(module, name, torch.nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
    frame = torch.full((1, 1, 3, size, size), 1e-3, requires_grad=True)
    maps = model.neck(model.trunk(frame))
    cells = maps.shape[-1]
    grid = told[cells]
    for i in range(cells // 2 - 1, cells // 2 + 2):  # those that see no border
        (gradient,) = torch.autograd.grad(maps[0, 0, :, i, i].sum(), frame, retain_graph=True)
        for axis in (0, 1):
            mass = gradient[0, 0].sum(0).sum(1 - axis)
            middle = (mass * (torch.arange(size) + 0.5)).sum() / mass.sum()
            assert float(middle) == pytest.approx(size * (grid.start + i * grid.step), abs=0.6)


def test_between_sampled_frames_heat_is_interpolated():
    found = Look("maps", np.zeros((3, 2, 2), np.float32), np.eye(3, dtype=np.float32), None, None, None)
    made = explanation(found, 41, numbers=np.array([10, 20, 30]))
    steps = np.array([0.0, 1.0, 0.5])
    told = [made.at(number, steps) for number in (0, 10, 15, 20, 25, 30, 40)]
    assert told == pytest.approx([0, 0, 0.5, 1, 0.75, 0.5, 0.5])
    repeated = explanation(found, 2, numbers=np.array([0, 0, 1]))
    assert [repeated.at(number, steps) for number in (0, 1)] == [1.0, 0.5]  # what is known at the end of a frame
    assert explanation(found, 1, numbers=np.array([0, 0, 0])).at(0, steps) == 0.5
    assert made.saw(0) and made.saw(40)
    part = explanation(found, 41, numbers=np.array([10, 20, 30]), rate=1.0)  # of 10 a second
    assert [part.saw(number) for number in (4, 5, 35, 36)] == [False, True, True, False]


def test_steps_of_a_3d_network_lie_in_the_middle_of_their_frames():
    found = Look("maps", np.zeros((2, 2, 2), np.float32), np.zeros((2, 3), np.float32), None, None, None)
    made = explanation(found, 80, numbers=np.arange(0, 80, 10))
    assert made.places.tolist() == [15, 55] and made.times.tolist() == [1.5, 5.5]


def test_colours_keep_the_frame_where_nothing_is_and_rise_in_lightness():
    grey = np.full((1, 6, 3), 90, np.uint8)
    heat = np.linspace(0, 1, 6)[None]
    drawn = heated(grey, heat)
    assert (drawn[0, 0] == 90).all()
    lightness = drawn[0].astype(float) @ [0.299, 0.587, 0.114]
    assert lightness[-1] > 190 and (np.diff(lightness[2:]) > 0).all()
    both = masked(grey, np.array([[-1.0, -0.5, 0, 0, 0.5, 1.0]]))
    assert (both[0, 2] == 90).all() and both[0, 0, 2] > both[0, 0, 0] and both[0, -1, 0] > both[0, -1, 2]


# --- of a file


@pytest.mark.parametrize("background", ["keep", "remove"])
def test_a_file_is_explained_as_predict_sees_it(background):
    recognizer = recognizer_of(small_model(), background=background)
    found, said = explain(recognizer, example_clip()), recognizer.predict(example_clip())
    assert (found.label, found.predicted) == (said.label, said.label)
    assert found.score == pytest.approx(said.score, abs=1e-5)
    np.testing.assert_allclose(found.look.scores[-1], said.scores, atol=1e-5)
    assert found.numbers.tolist() == [3, 11, 18, 26] and found.length == 30 and found.fps == 25
    assert found.times.tolist() == pytest.approx([0.12, 0.44, 0.72, 1.04])
    other = explain(recognizer, example_clip(), label=said.top(2)[1][0])
    assert other.label != other.predicted == said.label and other.score == pytest.approx(said.top(2)[1][1], abs=1e-5)


def test_of_several_windows_the_one_where_the_label_scores_highest_is_explained():
    recognizer = recognizer_of(small_model(), frames=3, rate=12.5, windows=3)
    said = recognizer.predict(example_clip())
    tops = []
    for label in recognizer.labels:
        found = explain(recognizer, example_clip(), label)
        assert found.score == pytest.approx(dict(said.top(3))[label], abs=1e-5)  # of all windows
        assert np.diff(found.numbers).tolist() == [2, 2]
        assert found.saw(found.numbers[0]) and not (found.saw(0) and found.saw(29))
        tops.append((found.window, found.over_time[-1]))
    assert all(score >= said.scores[k] - 1e-6 for k, (_, score) in enumerate(tops))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_clips_of_few_frames_are_explained(count, tmp_path):
    write_video(tmp_path / "short.mp4", list(iter_frames(example_clip()))[:count])
    found = explain(recognizer_of(small_model()), tmp_path / "short.mp4")
    assert len(found.look.heat) == 4 and found.numbers.max() == count - 1
    assert np.isfinite([found.at(number, found.over_time) for number in range(count)]).all()


def test_what_cannot_be_explained_is_told_in_one_line(tmp_path):
    recognizer = recognizer_of(small_model())
    with pytest.raises(UsageError, match="'walk' is none of the model's: a, b, c"):
        explain(recognizer, example_clip(), "walk")
    with pytest.raises(UsageError, match="are a single cell; train with a larger --size"):
        explain(recognizer_of(small_model(), size=16), example_clip())
    with pytest.raises(UsageError, match="--on is 'map': give one of auto, states, maps"):
        explain(recognizer, example_clip(), on="map")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="has no ConvGRU"):
        explain(recognizer_of(small_model("xception_lstm")), example_clip(), on="states")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match=r"text\.mp4"):
        explain(recognizer, tmp_path / "text.mp4")


def test_explaining_leaves_the_model_as_it_was():
    recognizer = recognizer_of(small_model())
    before = {name: tensor.clone() for name, tensor in recognizer.model.state_dict().items()}
    explain(recognizer, example_clip())
    assert all(torch.equal(tensor, before[name]) for name, tensor in recognizer.model.state_dict().items())
    assert all(parameter.grad is None for parameter in recognizer.model.parameters())
    assert not any(module._forward_hooks for module in recognizer.model.modules())


# --- the checks


def test_deletion_replaces_the_frames_with_most_heat_first():
    model = small_model(excitation="none", readout="mean")
    maps = trunk_maps(model, 4)
    heat = np.zeros((4, 4, 4), np.float32)
    heat[2], heat[0] = 1, 0.5
    found = deletion(model, maps, 1, heat)
    assert found.shares == (0, 0.25, 0.5, 0.75)
    mean = maps.mean(dim=1)
    for number, replaced in ((0, []), (1, [2]), (2, [2, 0])):
        changed = maps.clone()
        for frame in replaced:
            changed[:, frame] = mean
        with torch.no_grad():
            expected = float(model.head(model.neck(changed))[0].softmax(0)[1])
        assert found.hottest[number] == pytest.approx(expected, abs=1e-6)
    assert deletion(model, maps[:, :1], 1, heat[:1]).shares == (0,)


def test_deletion_of_a_clip_that_stands_still_changes_nothing():
    model = small_model()
    maps = trunk_maps(model, 1).repeat(1, 6, 1, 1, 1)
    found = deletion(model, maps, 0, look(model, maps, 0).heat)
    assert found.hottest == pytest.approx([found.hottest[0]] * len(found.shares), abs=1e-5)


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 50))
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    assert rank_correlation(one, other) == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-4)
    assert rank_correlation(one, np.exp(one)) == 1 and rank_correlation(one, np.ones(50)) == 0


# --- of a trained model

SIZE, FRAMES, PATCH = 64, 4, 20
SQUARE = Preprocessing(frames=FRAMES, size=SIZE)


def drifting_stripes(kind: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, H, W, 3) of noise over which a patch of upright (0) or lying (1) stripes drifts; where it is."""
    frames = rng.integers(60, 140, (FRAMES, SIZE, SIZE, 3)).astype(np.uint8)
    where = np.zeros((FRAMES, SIZE, SIZE), bool)
    stripes = (np.arange(PATCH) // 4 % 2 * 255).astype(np.uint8)
    patch = np.broadcast_to(stripes if kind == 0 else stripes[:, None], (PATCH, PATCH))
    corner, drift = rng.integers(0, SIZE - PATCH, 2), rng.integers(-4, 5, 2)
    for t in range(FRAMES):
        top, left = np.clip(corner + t * drift, 0, SIZE - PATCH)
        frames[t, top : top + PATCH, left : left + PATCH] = patch[..., None]
        where[t, max(0, top - 4) : top + PATCH + 4, max(0, left - 4) : left + PATCH + 4] = True
    return frames, where


@pytest.fixture(scope="module")
def trained() -> ActionRecognizer:
    """A model that tells upright from lying stripes."""
    torch.manual_seed(2)
    rng = np.random.default_rng(2)
    options = SHALLOW | {"dropout": 0.0, "hidden_channels": 8, "width": 16, "readout": "mean"}
    model = create_model("sc_xception_convgru_mcam_aff", 2, backbone="xception_small", **options)
    model.set_profile("full").train()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(40):
        kinds = rng.integers(0, 2, 8)
        clips = torch.stack([SQUARE(drifting_stripes(kind, rng)[0]) for kind in kinds])
        loss = torch.nn.functional.cross_entropy(model(clips), torch.from_numpy(kinds))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def test_heat_lies_on_the_moving_thing_that_tells_the_classes_apart(trained):
    rng = np.random.default_rng(99)
    lie = grids(trained, SIZE)
    right, shares = [], {"states": [], "maps": []}
    for number in range(16):
        kind = number % 2
        frames, where = drifting_stripes(kind, rng)
        with torch.no_grad():
            maps = trained.trunk(SQUARE(frames)[None])
        for on, ratios in shares.items():
            found = look(trained, maps, kind, on)
            placement = Placement(SQUARE, SIZE, SIZE, found.heat.shape[1:], lie[found.heat.shape[-1]])
            heat = np.stack([placement(cells) for cells in found.heat])
            assert np.ptp(heat) > 0
            ratios.append(heat[where].sum() / heat.sum() / where.mean())
        right.append(found.scores[-1].argmax() == kind)
    assert np.mean(right) > 0.9
    assert np.mean(shares["maps"]) > 1.6 and np.mean(shares["states"]) > 1.3  # 1 is chance


@pytest.mark.parametrize("on", ["states", "maps"])
def test_random_weights_change_the_map_and_a_breath_of_noise_does_not(trained, on):
    """The cascading randomisation of Adebayo et al. (NeurIPS 2018), and the control that they miss."""
    rng = np.random.default_rng(7)
    changed: dict[str, list[float]] = {part: [] for part in CASCADE}
    kept = []
    disturbed = randomised(trained, ())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in disturbed.parameters():
            parameter.add_(0.002 * parameter.std() * torch.randn(parameter.shape, generator=generator))
    for number in range(6):
        frames = SQUARE(drifting_stripes(number % 2, rng)[0])[None]
        for part, correlation in cascade(trained, frames, number % 2, on).items():
            changed[part].append(correlation)
        heat = [look(model, model.trunk(frames).detach(), number % 2, on).heat for model in (trained, disturbed)]
        kept.append(rank_correlation(*heat))
    assert np.mean(kept) > 0.9
    for part in CASCADE[1:]:  # the classifier alone decides only the signs and sizes of α
        assert abs(np.mean(changed[part])) < 0.5, changed
    assert abs(np.mean(changed["trunk"])) < np.mean(kept) - 0.4


def test_a_cascade_leaves_the_model_as_it_was_and_is_the_same_every_time(trained):
    before = [parameter.clone() for parameter in trained.parameters()]
    frames = SQUARE(drifting_stripes(0, np.random.default_rng(0))[0])[None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cascade(trained, frames, 0) == cascade(trained, frames, 0)
    assert all(torch.equal(a, b) for a, b in zip(before, trained.parameters(), strict=True))


def test_real_clips_are_explained(shared, tmp_path):
    """A small real video through the whole way, on an encoder with ImageNet weights."""
    weights = shared / "weights" / "mobilenetv2_050_imagenet.safetensors"
    model = create_model("mobilenet_convgru_mcam_aff", 3, backbone="mobilenetv2_050", backbone_weights=str(weights))
    clip: Path = shared / "data" / "weizmann" / "walk" / "daria_walk.avi"
    found = explain(recognizer_of(model.eval(), size=96, frames=6), clip, "c")
    assert found.look.method == "states" and found.heat().shape == (6, 3, 3) and found.heat().max() == 1
    assert found.mask_grid is not None and found.look.spatial.shape == (6, 6, 6)
