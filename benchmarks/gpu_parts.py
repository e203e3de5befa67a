"""The parts of gpu.py, each run by it in a process of its own: gpu_parts.py PART --rows FILE ..."""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import time
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import convgru
import torch
from calls import graphed, lazily
from describe import describe
from torch import Tensor, nn
from torch.nn import functional as F

from kinegru.measuring import Call, Side, interleave, lap
from kinegru.models.counting import Work, count
from kinegru.models.recognizer import ActionRecognizer
from kinegru.models.zoo import create_model
from kinegru.recognition.fold import fold_batch_norms

CLASSES = 101
DTYPES = {"fp32 (tf32)": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
FRAMES_A_PASS = 320  # of the trunk, at most; a batch of one clip has 40
EAGER, GRAPHED, COMPILED, BOTH = "eager", "graphed", "compiled", "compiled and graphed"
AGAIN = "graphed, again"
SHIPPED = "Recognizer's own pass, 8 frames at a time"


class Part:
    """What a part needs: the device, the time left, the file that rows go to."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.cuda = arguments, arguments.device == "cuda"
        self.began = time.monotonic()
        self.card: dict[str, float] = arguments.card

    def left(self) -> float:
        return self.arguments.limit - (time.monotonic() - self.began)

    def write(self, row: dict[str, Any]) -> None:
        print({k: v for k, v in row.items() if k not in ("quartiles", "floor")}, flush=True)
        with self.arguments.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def measure(self, sides: dict[Any, Call], most: float) -> tuple[dict[Any, Side], dict[Any, float]]:
        """Warm up side by side and note each one's memory; then let them take turns.

        A side without time left for it is an error in the result.
        """
        memory: dict[Any, float] = {}
        watched = {name: self._watched(name, call, memory) for name, call in sides.items()}
        seconds = min(most, max(1.0, self.left()))
        return interleave(watched, self.arguments.rounds, seconds, warm_up=2, cuda=self.cuda), memory

    def _watched(self, name: Any, call: Call, memory: dict[Any, float]) -> Call:
        calls = itertools.count()
        needed = 30 if COMPILED in name else 4  # seconds, to begin with it

        def watched() -> Any:
            number = next(calls)
            if number > 1:
                return call()
            if number == 0 and self.left() < needed * self.arguments.limit / 120:
                raise TimeoutError("no time left for it in this run")
            if not self.cuda:
                return call()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            out = call()
            torch.cuda.synchronize()
            memory[name] = max(memory.get(name, 0.0), (torch.cuda.max_memory_allocated() - before) / 1e9)
            return out

        return watched

    def floor(self, work: Work, precision: str, clips: int) -> dict[str, Any]:
        """Seconds below which this card cannot do this much work, and whether arithmetic or memory sets them."""
        if not self.card:
            return {"seconds": 0.0, "by": "not measured"}
        rate = self.card["tf32 matmul, TFLOP/s" if "32" in precision else "bf16 matmul, TFLOP/s"] * 1e12
        size = 4 if "32" in precision else 2
        arithmetic = clips * work.flops / rate
        traffic = clips * work.values * size / (self.card["copy, GB/s read and written"] * 1e9)
        by = "arithmetic" if arithmetic > traffic else "memory"
        return {"seconds": max(arithmetic, traffic), "by": by, "arithmetic": arithmetic, "memory": traffic}

    def clean(self) -> None:
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()


# -- the card -----------------------------------------------------------------------------------------------------


def card(part: Part) -> None:
    """Copy bandwidth and matmul rates, the best of ten laps: ceilings, not averages."""
    cuda, device = part.cuda, part.arguments.device
    part.write({"part": "card", "result": {"machine": describe(device)}})
    source = torch.rand((2 << 30) // 4 if cuda else (64 << 20) // 4, device=device)
    target = torch.empty_like(source)
    seconds = _best(partial(target.copy_, source), cuda)
    rates = {"copy, GB/s read and written": 2 * source.nbytes / seconds / 1e9}
    del source, target
    n = 8192 if cuda else 512
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16), ("tf32", torch.float32)):
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        rates[f"{name} matmul, TFLOP/s"] = 2 * n**3 / _best(partial(torch.matmul, a, b), cuda) / 1e12
    part.write({"part": "card", "result": {"card": rates}})


def _best(call: Call, cuda: bool) -> float:
    for _ in range(3):
        lap(call, cuda)
    return min(lap(call, cuda)[0] for _ in range(10))


# -- inference ----------------------------------------------------------------------------------------------------


class Inference(nn.Module):
    """Frames (N, T, 3, S, S) -> logits and read-out; the trunk sees up to `FRAMES_A_PASS` frames at a time."""

    def __init__(self, model: ActionRecognizer) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        flat = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        maps = torch.cat([self.model.encoder.trunk(part) for part in flat.split(FRAMES_A_PASS)])
        state = self.model.temporal(self.model.neck(maps.unflatten(0, frames.shape[:2])))
        return self.model.classifier(state), state


class AsShipped(nn.Module):
    """The model's own `forward`, its read-out beside the logits."""

    def __init__(self, model: ActionRecognizer) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        state = self.model.temporal(self.model.neck(self.model.trunk(frames)))
        return self.model.classifier(state), state


def build(arguments: argparse.Namespace) -> ActionRecognizer:
    torch.manual_seed(0)
    return create_model(arguments.model, CLASSES, backbone=arguments.backbone, backbone_weights="none")


def prepared(model: ActionRecognizer, dtype: torch.dtype, device: str) -> Inference:
    """A copy for inference: batch norms folded, convolutions in `dtype` and channels_last."""
    size = min(96, model.preprocessing_defaults["size"])
    model = fold_batch_norms(model, torch.rand(1, 2, 3, size, size))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.encoder.to(dtype)
    model.temporal.to(dtype)  # its state stays float32, and so does the classifier
    return Inference(model).to(device)


def compiled(built: Inference) -> Inference:
    built = deepcopy(built)
    encoder, temporal = built.model.encoder, built.model.temporal
    encoder.trunk = torch.compile(encoder.trunk, dynamic=False)
    encoder.neck = torch.compile(encoder.neck, dynamic=False)
    temporal.convgru._advance = torch.compile(temporal.convgru._advance, dynamic=False)  # type: ignore[method-assign]
    return built


def inference(part: Part) -> None:
    a, cuda = part.arguments, part.cuda
    model = build(a).eval()
    still = deepcopy(model).to("meta")
    clip = torch.empty(1, a.frames, 3, a.size, a.size, device="meta")
    with torch.no_grad():
        work = count(lambda: still(clip))
    largest = torch.rand(max(a.batch), a.frames, 3, a.size, a.size)
    strict = reference(model, largest[:1].to(a.device), a.device)
    ready = {precision: prepared(model, dtype, a.device) for precision, dtype in DTYPES.items()}
    shipped = AsShipped(deepcopy(model)).to(a.device)
    plan = [(clips, False) for clips in a.batch] + [(clips, True) for clips in a.batch if not a.no_compile]
    built: list[Inference] = []
    for clips, compile in plan:
        if compile and not built:
            built.append(compiled(ready["bf16"]))
        frames = {p: largest[:clips].to(a.device, dtype) for p, dtype in DTYPES.items()}
        sides: dict[tuple[str, str], Call] = {}
        for p in DTYPES:
            if not compile:
                sides[p, EAGER] = forward(ready[p], frames[p])
            if cuda and (p == "bf16" or not compile):  # again beside what is compiled: they are to be compared
                sides[p, AGAIN if compile else GRAPHED] = captured(ready[p], frames[p])
        if compile:
            sides["bf16", COMPILED] = forward(built[0], frames["bf16"])
            if cuda:
                sides["bf16", BOTH] = captured(built[0], frames["bf16"])
        elif clips == a.batch[0]:
            sides["fp32 (tf32)", SHIPPED] = forward(shipped, frames["fp32 (tf32)"])
        found, memory = part.measure(sides, most=8)
        for (precision, mode), side in found.items():
            row: dict[str, Any] = {"part": "inference", "clips": clips, "precision": precision, "side": mode}
            row |= side.to_dict()
            if side.error is None:
                row["clips a second"] = clips / row["seconds"]
                row["frames a second"] = clips * a.frames / row["seconds"]
                row["TFLOP/s"] = clips * work.flops / row["seconds"] / 1e12
                row["floor"] = part.floor(work, precision, clips)
                row["memory, GB"] = memory.get((precision, mode), 0.0)
                row["relative error"] = off(sides[precision, mode], strict)
            part.write(row)
        del sides, found, frames
        part.clean()


def captured(model: nn.Module, frames: Tensor) -> Call:
    return lazily(lambda: graphed(forward(model, frames)))


def forward(model: nn.Module, frames: Tensor) -> Call:
    @torch.no_grad()
    def call() -> Any:
        return model(frames)

    return call


def reference(model: ActionRecognizer, frames: Tensor, device: str) -> Tensor:
    """Read-out of one clip in float32 without tf32, the model as it is built."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    _, state = forward(AsShipped(deepcopy(model)).to(device), frames)()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    return state.float()


def off(call: Call, strict: Tensor) -> float:
    """‖read-out - reference‖ / ‖reference‖ of the first clip."""
    return float(((call()[1][:1].float() - strict).norm() / strict.norm()).item())


# -- training -----------------------------------------------------------------------------------------------------


def training(part: Part) -> None:
    a, cuda = part.arguments, part.cuda
    model = build(a)
    model.encoder.keep_statistics = tuple(model.encoder.names)  # as with pretrained weights
    model.train()
    still = deepcopy(model).to("meta")
    with torch.no_grad():
        shape = still.cacheable(torch.empty(1, a.frames, 3, a.size, a.size, device="meta")).shape[1:]
    maps = torch.empty(1, *shape, device="meta")
    work = count(lambda: still.from_cache(maps).sum().backward())
    plan = [(clips, False) for clips in a.train_batch] + [(n, True) for n in a.train_batch if not a.no_compile]
    for clips, compile in plan:
        cached = torch.rand(clips, *shape, device=a.device, dtype=torch.float16)  # as the cache keeps them
        labels = torch.randint(CLASSES, (clips,), device=a.device)
        modes = [COMPILED] if compile else [EAGER]
        if cuda:
            modes += [AGAIN, BOTH] if compile else [GRAPHED]
        sides = {mode: lazily(partial(step, model, cached, labels, mode, a.device)) for mode in modes}
        found, memory = part.measure(sides, most=6)
        for mode, side in found.items():
            row: dict[str, Any] = {"part": "training", "clips": clips, "precision": "bf16 autocast", "side": mode}
            row |= side.to_dict()
            if side.error is None:
                row["clips a second"] = clips / row["seconds"]
                row["steps a second"] = 1 / row["seconds"]
                row["TFLOP/s"] = clips * work.flops / row["seconds"] / 1e12
                row["floor"] = part.floor(work, "bf16", clips)
                row["memory, GB"] = memory.get(mode, 0.0)
            part.write(row)
        del sides, found, cached
        part.clean()


def step(model: ActionRecognizer, cached: Tensor, labels: Tensor, mode: str, device: str) -> Call:
    """Forward, backward and Adam's step of a copy of the model."""
    model = deepcopy(model).to(device)
    if mode in (COMPILED, BOTH):
        gru = model.temporal.convgru
        model.encoder.neck = torch.compile(model.encoder.neck, dynamic=False)
        gru._advance = torch.compile(gru._advance, dynamic=False)  # type: ignore[method-assign]
    capturable = {"capturable": True} if mode in (GRAPHED, AGAIN, BOTH) else {}
    optimizer = torch.optim.Adam(model.trained_parameters(), lr=1e-6, **capturable)

    def call() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, cache_enabled=not capturable):
            logits = model.from_cache(cached)
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return graphed(call) if capturable else call


# -- ConvGRU ------------------------------------------------------------------------------------------------------


def recurrence(part: Part) -> None:
    """The maps of SC-Xception, by the code of convgru.py."""
    a, cuda = part.arguments, part.cuda
    batch = max(a.train_batch)
    channels, size = convgru.SIZES["xception-299"] if cuda else (32, 4)
    about = f"{channels} channels of {size} × {size}, {a.frames} frames, {batch} clips. {' '.join(ABOUT.split())}"
    part.write({"part": "convgru", "result": {"convgru": about}})
    chosen = argparse.Namespace(
        device=a.device,
        precision=["bf16", "fp32", "fp16"] if cuda else ["fp32"],
        compile=[] if a.no_compile else ["bf16"],
        batch=batch,
        frames=a.frames,
        hidden=40,
        rounds=a.rounds,
        seconds=4.0,
        time_left=part.left,
        write=lambda row: part.write(row | {"part": f"convgru {row['part']}"}),
    )
    convgru.measure(channels, size, chosen)


ABOUT = """Medians of laps in turn; times our time in the same mode and precision. Relative error: of the states, to
ours in float32 without tf32. `nn.GRU at each position` is cuDNN's fused GRU with every position as a sequence: a
ConvGRU of 1 × 1 kernels. `nn.GRU on pooled maps` is cuDNN's with a state of as many numbers. Only the time of the two
compares. In bf16 and fp16 our state is float32 and that of the others is not. fp32 is tf32."""

RUN = {"card": card, "inference": inference, "training": training, "convgru": recurrence}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=list(RUN))
    parser.add_argument("--device", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--batch", type=int, nargs="+", required=True)
    parser.add_argument("--train-batch", type=int, nargs="+", required=True)
    parser.add_argument("--limit", type=float, required=True, help="seconds")
    parser.add_argument("--card", type=json.loads, required=True, help="the rates that the part `card` found")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = True, 4
    torch._dynamo.config.recompile_limit = 64
    RUN[arguments.part](Part(arguments))


if __name__ == "__main__":
    main()
