"""The ConvGRU against the usual form, six convolutions a step, and against cuDNN's GRU where there is a GPU.

    python benchmarks/convgru.py --json results/benchmarks/convgru.json

Ours convolves the input of all T frames and all three gates at once and leaves one small convolution to a step. The
usual form has six small convolutions in each step; here it gets the same weights and the same equations, and must give
the same states. Nothing in cuDNN convolves over time; two of its fused recurrences come near. `nn.GRU at each position`
is exactly a ConvGRU of 1 x 1 kernels, a ninth of the arithmetic and without a look at the neighbours. `nn.GRU on pooled
maps` has a state of as many numbers but no maps at its input. A large matrix product runs in turn with them: at its
rate our arithmetic would take the least time there is. In bf16 and fp16 our state stays float32, the others' state is
of the lower precision: that is how each is used.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from calls import graphed, lazily
from ceiling import MATRIX, matrix_product
from report import about, command, publish, table
from torch import Tensor, nn

from kinegru.measuring import Call, Side, interleave, ratio
from kinegru.models.convgru import ConvGRU
from kinegru.models.counting import count

OURS, SIX = "KineGRU", "six convolutions a step"
EACH, POOLED = "nn.GRU at each position", "nn.GRU on pooled maps"
PRODUCT = f"a matrix product of {MATRIX}²"
LEAST = 2.5  # times faster than six convolutions a step
MODES = ("eager", "compiled", "graphed", "compiled and graphed")
SIZES = {"xception-299": (2048, 10), "mobilenet-160": (1280, 5), "small-96": (160, 6)}  # channels, side
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class SixConvolutions(nn.Module):
    """The usual form, with the weights of a ConvGRU (kernels 3 x 3, reset after the convolution)."""

    def __init__(self, gru: ConvGRU) -> None:
        super().__init__()
        channels, hidden = gru.in_channels, gru.hidden_channels
        self.hidden = hidden
        self.inputs = nn.ModuleList(nn.Conv2d(channels, hidden, 3, padding=1) for _ in "zrn")
        self.states = nn.ModuleList(nn.Conv2d(hidden, hidden, 3, padding=1, bias=False) for _ in "zrn")
        assert gru.input_conv.bias is not None
        with torch.no_grad():
            for own, theirs, bias in zip(
                self.inputs, gru.input_conv.weight.chunk(3), gru.input_conv.bias.chunk(3), strict=True
            ):
                own.weight.copy_(theirs)
                own.bias.copy_(bias)
            for own, theirs in zip(self.states, gru.hidden_conv.weight.chunk(3), strict=True):
                own.weight.copy_(theirs)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        z = torch.sigmoid(self.inputs[0](x) + self.states[0](h))
        r = torch.sigmoid(self.inputs[1](x) + self.states[1](h))
        n = torch.tanh(self.inputs[2](x) + r * self.states[2](h))
        return (1 - z) * n + z * h

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = x.new_zeros(x.shape[0], self.hidden, *x.shape[3:])
        states = []
        for x_t in x.unbind(1):
            h = self.step(x_t, h)
            states.append(h)
        return torch.stack(states, dim=1), h


class EachPosition(nn.Module):
    """nn.GRU with every position of the maps as a sequence of its own."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(channels, hidden, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        states, last = self.gru(x.permute(0, 3, 4, 1, 2).flatten(0, 2))  # (N·h·w, T, C)
        return states, last


class Pooled(nn.Module):
    """nn.GRU on the means of the maps, with a state of as many numbers as the ConvGRU's maps have."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(channels, hidden, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        states, last = self.gru(x.mean(dim=(3, 4)))
        return states, last


def compiled(module: nn.Module) -> nn.Module:
    """A copy whose step is compiled; the loop over the frames stays Python, or every frame would be compiled."""
    module = deepcopy(module)
    step = "_advance" if isinstance(module, ConvGRU) else "step"
    setattr(module, step, torch.compile(getattr(module, step), dynamic=False))
    return module


def forward(module: nn.Module, x: Tensor) -> Call:
    @torch.no_grad()
    def call() -> Tensor:
        return module(x)[0]

    return call


def training(module: nn.Module, x: Tensor) -> Call:
    """Forward, and the gradients of all weights and of the maps."""
    x = x.detach().requires_grad_()
    wanted = [*module.parameters(), x]
    given: list[Tensor] = []

    def call() -> Tensor:
        states = module(x)[0]
        if not given:
            given.append(torch.randn_like(states))
        for tensor in wanted:
            tensor.grad = None
        states.backward(given[0])
        return states

    return call


def make(kind: Callable[[nn.Module, Tensor], Call], module: nn.Module, x: Tensor, mode: str) -> Call:
    """A call made at its first use."""

    def build() -> Call:
        call = kind(compiled(module) if mode.startswith("compiled") else deepcopy(module), x)
        return graphed(call) if mode.endswith("graphed") else call

    return lazily(build)


def measure(channels: int, size: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Every side in every mode and precision: rows."""
    cuda, frames, batch, hidden = arguments.device == "cuda", arguments.frames, arguments.batch, arguments.hidden
    torch.manual_seed(0)
    gru = ConvGRU(channels, hidden)
    modules = {OURS: gru, SIX: SixConvolutions(gru), EACH: EachPosition(channels, hidden)}
    if cuda:
        modules[POOLED] = Pooled(channels, hidden * size * size)
    x = torch.rand(batch, frames, channels, size, size)
    work = {name: count_both(module, x.shape) for name, module in modules.items()}
    work[PRODUCT] = (count(matrix_product(x.to("meta"))),) * 2
    rows = []
    for precision in arguments.precision:
        if arguments.time_left() < 5:
            arguments.write({"part": precision, "side": "all", "error": "no time left for it in this run"})
            continue
        dtype = DTYPES[precision]
        here = {name: deepcopy(module).to(arguments.device, dtype) for name, module in modules.items()}
        x_here = x.to(arguments.device, dtype)
        modes = [mode for mode in MODES if cuda or not mode.endswith("graphed")]
        modes = [m for m in modes if not m.startswith("compiled") or precision in arguments.compile]
        for part, kind in (("forward", forward), ("forward and backward", training)):
            sides = {(name, mode): make(kind, here[name], x_here, mode) for mode in modes for name in (OURS, SIX)}
            plain = [mode for mode in modes if not mode.startswith("compiled")]
            sides |= {
                (name, mode): make(kind, module, x_here, mode)
                for mode in plain
                for name, module in here.items()
                if name not in (OURS, SIX)
            }
            sides[PRODUCT, "eager"] = matrix_product(x_here)
            named = {f"{name}/{mode}": call for (name, mode), call in sides.items()}
            found = interleave(named, arguments.rounds, arguments.seconds, warm_up=2, cuda=cuda)
            expected = reference(here[OURS], x_here)
            for name, mode in sides:
                side = found[f"{name}/{mode}"]
                row: dict[str, Any] = {"part": part, "side": name, "mode": mode, "precision": precision}
                row |= side.to_dict() | {"GMAC": float(f"{work[name][kind is training].gmac:.4g}")}
                if name in (OURS, SIX) and side.error is None:
                    row["relative error"] = error_of(named[f"{name}/{mode}"], expected)
                row |= compare(side, found[f"{OURS}/{mode}"], name)
                rows.append(row)
                arguments.write(row)
            del sides, named
        del here, x_here
        if cuda:
            torch.cuda.empty_cache()
    return rows


def count_both(module: nn.Module, shape: torch.Size) -> tuple[Any, Any]:
    """Work of a forward pass, and of one with its backward pass; for nn.GRU by its equations, torch counts none."""
    if not isinstance(module, (EachPosition, Pooled)):
        still, x = deepcopy(module).to("meta"), torch.empty(shape, device="meta")
        return count(forward(still, x)), count(training(still, x))
    gru, (n, t, _, h, w) = module.gru, shape
    sequences = n * h * w if isinstance(module, EachPosition) else n
    x = torch.empty(sequences * t, gru.input_size, device="meta")
    states = torch.empty(sequences * t, gru.hidden_size, device="meta")
    one = count(lambda: (x @ gru.weight_ih_l0.to("meta").T, states @ gru.weight_hh_l0.to("meta").T))
    return one, type(one)(3 * one.flops, 3 * one.values)


def compare(side: Side, ours: Side, name: str) -> dict[str, Any]:
    """How many times our time, in the same mode."""
    if name in (OURS, PRODUCT) or side.error or ours.error or len(side.seconds) != len(ours.seconds):
        return {}
    found = ratio(side.seconds, ours.seconds)
    return {"ratio": round(found.median, 3), "ratio quartiles": [round(found.low, 3), round(found.high, 3)]}


@torch.no_grad()
def reference(module: nn.Module, x: Tensor) -> Tensor:
    """The states in float32 without tf32."""
    cudnn = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        return deepcopy(module).float()(x.float())[0]
    finally:
        torch.backends.cudnn.allow_tf32 = cudnn


def error_of(call: Call, expected: Tensor) -> float | None:
    """‖states - expected‖ / ‖expected‖."""
    try:
        found = call().detach().float()
        return float(f"{((found - expected).norm() / expected.norm()).item():.2g}")
    except Exception:  # what failed is in its row already
        return None


def bounds(rows: list[dict[str, Any]]) -> list[str]:
    """What was aimed at, what it came to, and what the rate of a matrix product would give; of eager rows."""
    lines = []
    eager = {(row["part"], row["precision"], row["side"]): row for row in rows if row.get("mode") == "eager"}
    for (part, precision, side), best in eager.items():
        ours, six = (eager[part, precision, name] for name in (OURS, SIX))
        if side == PRODUCT and "seconds" in best and "ratio" in six:
            held = "holds" if six["ratio"] >= LEAST else "is missed"
            peak, rate, usual = (row["GMAC"] / row["seconds"] for row in (best, ours, six))
            lines.append(
                f"{part}, {precision}: at least {LEAST}x {held}: {six['ratio']:.3g}x. At the matrix product's rate it "
                f"would be {six['seconds'] * peak / ours['GMAC']:.3g}x; ours runs at {rate / peak:.0%} of that rate, "
                f"six convolutions a step at {usual / peak:.0%}."
            )
    return lines


def print_row(row: dict[str, Any]) -> None:
    time = row["error"] if "error" in row else f"{1e3 * row['seconds']:.2f} ms, {row['laps']} laps"
    print(f"{row['part']}, {row['side']}, {row['mode']}, {row['precision']}: {time}", file=sys.stderr, flush=True)


def as_markdown(result: dict[str, Any]) -> str:
    lines = ["# ConvGRU: all input convolutions at once against six convolutions a step", "", f"`{result['command']}`"]
    lines += ["", about(result["machine"]), ""]
    lines += [
        f"Batch {result['batch']}, {result['frames']} frames, {result['hidden']} hidden channels, "
        f"{result['threads']} threads. Medians of laps in turn (quartiles); ratio: times our time in the same mode, "
        "the median over rounds. Relative error: of the states, against ours in float32."
    ]
    for name, rows in result["sizes"].items():
        lines += ["", f"## {name}", ""]
        cells = []
        for row in rows:
            if "error" in row:
                time, rest = row["error"], ["", "", ""]
            else:
                low, high = row["quartiles"]
                time = f"{1e3 * row['seconds']:.2f} ({1e3 * low:.2f} to {1e3 * high:.2f})"
                low, high = row.get("ratio quartiles", (0, 0))
                rest = [
                    f"**{row['ratio']}** ({low} to {high})" if "ratio" in row else "",
                    f"{2 * row['GMAC'] / 1e3 / row['seconds']:.3g}",
                    row.get("relative error", ""),
                ]
            cells.append([row["part"], row["side"], row["mode"], row["precision"], time, *rest])
        header = ["part", "side", "mode", "precision", "ms", "ratio", "TFLOP/s", "relative error"]
        lines += [table(header, cells), "", *(f"* {line}" for line in bounds(rows))]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", nargs="+", choices=list(DTYPES), default=["fp32"], help="fp32 on a GPU is tf32")
    parser.add_argument("--compile", nargs="*", choices=list(DTYPES), default=[], help="precisions compiled as well")
    parser.add_argument("--maps", nargs="+", choices=list(SIZES), default=list(SIZES), help="whose maps")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--hidden", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=60, help="at most so long a comparison")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the result here, and a table beside it as .md")
    arguments = parser.parse_args()
    arguments.write, arguments.time_left = print_row, lambda: float("inf")
    torch.set_num_threads(arguments.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch._dynamo.config.recompile_limit = 64
    from describe import describe

    result: dict[str, Any] = {
        "command": command(),
        "machine": describe(arguments.device),
        **{name: getattr(arguments, name) for name in ("batch", "frames", "hidden", "threads")},
        "sizes": {name: measure(*SIZES[name], arguments) for name in arguments.maps},
    }
    publish(result, as_markdown(result), arguments.json)


if __name__ == "__main__":
    main()
