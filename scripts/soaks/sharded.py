"""Checkpoints of networks that FSDP2 spreads over two processes: killed in the middle, damaged, of other numbers."""

import contextlib
import os
import random
import shutil
import signal
import socket
import time
from pathlib import Path

from soaks.killing import _trace
from soaks.table import Rows, command

FORMS = ("OneFile", "Parts")


@command
def shardedkills(folder: Path, scale: float) -> Rows:
    """FSDP2 on two ranks: one of them killed (SIGKILL) at random moments, then resumed, against the unbroken run."""
    _prepare(folder)
    return [row for form in FORMS for row in _kills(folder, scale, form)]


def _kills(folder: Path, scale: float, form: str) -> Rows:
    from lit_transformer.checkpoints import find_newest, read
    from tests.training.test_checkpointing import _differences

    wanted, chance = max(1, int(20 * scale)), random.Random(0)
    steps = max(60, 30 * wanted)
    folder = folder / form
    folder.mkdir()
    assert _fit(folder, "through", steps) == [0, 0]
    done = torn = lost = writing = 0
    while True:
        found = find_newest(folder / "killed") if (folder / "killed").exists() else None
        torn += bool(found and found.skipped)
        victim = chance.randrange(2) if done < wanted else None
        codes = _fit(folder, "killed", steps, resume=found is not None, victim=victim, after=chance.uniform(0.2, 1.0))
        if codes == [0, 0]:
            break
        done += -signal.SIGKILL in codes
        writing += any((folder / "killed/checkpoints").glob(".*.partial"))
        after = find_newest(folder / "killed") if (folder / "killed" / "checkpoints").exists() else None
        reached = max((line["step"] for line in _trace(folder / "killed-trace").values()), default=0)
        lost += reached - (after.step if after else 0) > 10
    one, other = _trace(folder / "through-trace"), _trace(folder / "killed-trace")
    same = sum(one[i] == other.get(i) for i in one)
    differ = _differences(*(read(folder / name / "checkpoints/last.ckpt") for name in ("through", "killed")))
    strays = [path.name for path in (folder / "killed/checkpoints").iterdir() if not _wanted(path)]
    return [
        (f"kills of a rank while training under FSDP2, {form}", done, wanted),
        ("  of them in the middle of a write", writing, ""),
        ("checkpoints that did not verify", torn, 0),
        ("stray files and folders at the end", len(strays), 0),
        ("kills that lost more than the last checkpoint's distance", lost, 0),
        ("batches equal bit for bit (loss, ids, rate)", f"{same} of {len(one)}", f"{len(one)} of {len(one)}"),
        ("values of the final checkpoint that differ", len(differ), 0),
    ]


@command
def shardedcorrupt(folder: Path, scale: float) -> Rows:
    """What FSDP2 wrote, as files and as folders of parts: flipped bits, cuts and losses, each noticed in one line."""
    from lit_transformer.checkpoints import find_newest, read, verify
    from lit_transformer.checkpoints.sharded import read_sharded
    from lit_transformer.cli.main import main
    from lit_transformer.errors import LitTransformerError
    from tests.checkpoints.files import flipped, truncated

    _prepare(folder)
    rows: Rows = []
    count = int(200 * scale)
    for form in FORMS:
        (folder / form).mkdir()
        assert _fit(folder / form, "run", 12) == [0, 0]
        path = folder / form / "run/checkpoints/last.ckpt"
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        for kind, damage in (("flipped bits", flipped), ("truncations", truncated), ("losses", _lost)):
            noticed = fell_back = total = 0
            for file in files:
                data = file.read_bytes()
                for _, content in damage(data, max(1, count // len(files))):
                    total += 1
                    file.unlink() if content is None else file.write_bytes(content)
                    try:
                        verify(path)
                    except LitTransformerError as error:
                        named = file == path or file.name in str(error)
                        noticed += "\n" not in str(error) and error.exit_code == 2 and named
                    found = find_newest(folder / form / "run")
                    older = found is not None and found.path.name == "best.ckpt"
                    fell_back += older and (not path.exists() or "last.ckpt" in found.skipped[0])
                file.write_bytes(data)
            rows += [(f"{form}, {kind}: noticed in one line that names the file", noticed, total),
                     (f"{form}, {kind}: the older one found", fell_back, total)]  # fmt: skip
        assert read(path)["global_step"] == 12
    assert main(["checkpoint", "convert", str(path), "--output", str(folder / "parts")]) == 0
    noticed = total = 0
    for part in sorted((folder / "parts").iterdir()):
        whole = part.read_bytes()
        for _, content in [*flipped(whole, count // 8), *truncated(whole, count // 8)]:
            total += 1
            part.write_bytes(content)
            try:
                read_sharded(folder / "parts")
            except LitTransformerError as error:
                noticed += "\n" not in str(error) and error.exit_code == 2
        part.write_bytes(whole)
    return [*rows, ("folder of parts, each file damaged: noticed in one line", noticed, total)]


def _lost(data: bytes, count: int) -> list[tuple[int, None]]:
    return [(0, None)]


def _wanted(path: Path) -> bool:
    return path.name in ("last.ckpt", "best.ckpt") or path in [link.resolve() for link in path.parent.glob("*.ckpt")]


def _prepare(folder: Path) -> None:
    import lit_transformer.cli.training  # noqa: F401 here, so that the processes need not import it anew
    from tests.cli.conftest import RECIPE

    draw = random.Random(0)
    words = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "and", "runs", "home", "to", "sleep"]
    for name, lines in (("train", 400), ("validation", 8), ("test", 8)):
        text = "\n".join(" ".join(draw.choice(words) for _ in range(12)) for _ in range(lines))
        (folder / f"{name}.txt").write_text(text)
    (folder / "tiny.yaml").write_text(RECIPE)
    os.chdir(folder)


def _fit(
    folder: Path, name: str, steps: int, resume: bool = False, victim: int | None = None, after: float = 0.0
) -> list[int]:
    """``fit`` on two ranks, one of which may be killed ``after`` seconds of training; the exit codes."""
    from lit_transformer.cli.main import main
    from tests.checkpoints.kills import forked, wait

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / f"{name}-trace").mkdir(exist_ok=True)
    if not resume:
        shutil.rmtree(folder / name, ignore_errors=True)  # killed before it had saved anything
    words = ["fit", "--config", "tiny.yaml", "--config", "overlays/strategy/fsdp2", "--data.batch_size", "4",
             "--trainer.strategy.checkpoints", folder.name,
             "--trainer.max_steps", str(steps), "--trainer.validate_every", "50", "--trainer.limit_val_batches", "1",
             "--trainer.callbacks+", "{class_path: EMA, decay: 0.99}", "--trainer.logger", "false",
             "--trainer.callbacks+", "{class_path: Checkpointing, every_n_steps: 10}",
             "--trainer.callbacks+", f"{{class_path: Trace, path: {folder / name}-trace/trace}}",
             "--trainer.enable_progress_bar", "false", "--output", str(folder / name)]  # fmt: skip
    words += ["--resume"] if resume else []

    def one(rank: int) -> int:
        import torch

        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", GROUP_RANK="0",
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="t",
        )  # fmt: skip
        torch.set_num_threads(1)
        with open(folder / f"{name}.said", "a") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            return main(words)

    before = _lines(folder / f"{name}-trace")
    children = [forked(lambda rank=rank: one(rank)) for rank in range(2)]
    if victim is not None:
        deadline = time.monotonic() + 120
        while _lines(folder / f"{name}-trace") == before and time.monotonic() < deadline:
            time.sleep(0.02)  # until it trains
        time.sleep(after)
        with contextlib.suppress(ProcessLookupError):
            os.kill(children[victim], signal.SIGKILL)
    return [wait(child) for child in children]


def _lines(folder: Path) -> int:
    path = folder / "trace"
    return path.read_bytes().count(b"\n") if path.exists() else 0
