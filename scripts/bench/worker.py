"""One contestant in its own process: reads ``{"steps": n}`` lines, answers each with times and peak memory."""

import ctypes
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """glibc: serve big tensors from the heap and never give it back, so that its pages are mapped once."""
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def status(key: str) -> int:
    """A size in bytes from the kernel's account of this process (VmRSS, VmHWM)."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def forget_peak() -> None:
    """Let the peak (VmHWM) begin again at the present size."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def warm_up() -> None:
    """A step of next to nothing, so that what PyTorch imports and starts on the way is in nobody's peak."""
    import torch

    layer = torch.nn.Linear(8, 8)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            layer(torch.randn(4, 8)).sum().backward()
        optimizer.step()


def main() -> None:
    """Build the contestant, then serve requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    order: dict[str, Any] = json.loads(sys.argv[1])
    name, options = order["name"], order["options"]
    plain = name.removesuffix("+malloc")
    if plain != name:
        keep_freed_memory()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    import torch

    torch.set_num_threads(options["threads"])
    torch.manual_seed(0)
    case: Any = None
    base = 0
    module = importlib.import_module(f"bench.{order['module']}")
    for line in sys.stdin:
        steps = json.loads(line)["steps"]
        try:
            if case is None:
                prepare = module.CONTESTANTS[plain](options)  # imports
                warm_up()
                forget_peak()
                base = status("VmRSS")
                case = prepare()
            loss = None
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(steps):
                loss = case.step()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if isinstance(loss, tuple):  # a case that holds its own clock: seconds of one step
                (wall, cpu), loss = (each * steps for each in loss), None
            answer = {
                "wall": wall,
                "cpu": cpu,
                "loss": loss,
                "tokens": case.tokens,
                "parameters": case.parameters,
                "note": case.note,
                "peak_bytes": max(0, status("VmHWM") - base),
            }
        except ImportError as error:
            answer = {"error": f"not installed: {error.name}"}
        except Exception as error:  # noqa: BLE001 - one contestant's failure is a row, not the end of the run
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
