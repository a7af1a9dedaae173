"""Files that are damaged, disks that are full, losses that are not finite."""

import os
import random
from pathlib import Path

from soaks.table import Rows, command


@command
def nan(folder: Path, scale: float) -> Rows:
    """NaN and infinite losses injected, against a plain loop that passes over those windows."""
    import torch

    from lit_transformer.checkpoints import read
    from tests.training.test_nonfinite import without_windows
    from tests.training.tiny_run import Loader, train

    count = max(2, int(50 * scale))
    steps = 8 * count
    poison = sorted(random.Random(0).sample(range(2 * steps), count))
    task, _, _ = train(folder, steps, loader=Loader(poison=tuple(poison)), max_skipped=count, accumulate_grad_batches=2,
                       limit_val_batches=0)  # fmt: skip
    bad = {i // 2 for i in poison}
    expected = without_windows(Loader(), bad, steps, 2)
    equal = all(torch.equal(a, b) for a, b in zip(task.parameters(), expected.parameters(), strict=True))
    content = read(folder / "checkpoints/last.ckpt")
    finite = all(v.isfinite().all() for v in content["state_dict"].values())
    clock = content["run_state"]["clock"]
    return [
        ("bad micro-batches injected", count, count),
        ("updates applied", clock["applied"], steps - len(bad)),
        ("weights equal to the run without those windows", equal, True),
        ("saved weights are finite", bool(finite), True),
    ]


@command
def diskfull(folder: Path, scale: float) -> Rows:
    """A tmpfs with too little left, at random remainders; then a whole training run on a disk that fills up."""
    from lit_transformer.checkpoints import find_newest
    from lit_transformer.errors import LitTransformerError
    from tests.checkpoints import kills as k
    from tests.training.tiny_run import train

    with k.small_disk(folder / "disk", 2000) as disk:
        if disk is None:
            return [("tmpfs", "cannot be mounted here", "root")]
        result = k.fill_disk(disk, max(1, int(20 * scale)))
    rows: Rows = [(name, value, result["full disks"]) for name, value in result.items()]
    good = tried = 0
    for kilobytes in range(44, 44 + 4 * max(1, int(20 * scale)), 4):
        with k.small_disk(folder / f"run{kilobytes}", kilobytes) as disk:
            assert disk is not None
            tried += 1
            try:
                train(disk, every_n_steps=3)
                code = 0
            except LitTransformerError as error:
                code = error.exit_code
            kept = {name for name in os.listdir(disk / "checkpoints")} <= {"last.ckpt", "best.ckpt"}
            try:
                newest = find_newest(disk)
            except LitTransformerError:
                newest, kept = None, False
            good += kept and (code == 0 and newest is not None and newest.step == 40 or code == 3)
    rows.append(("training on disks of 44 kB and more: whole file or none, code 3", good, tried))
    return rows


@command
def corrupt(folder: Path, scale: float) -> Rows:
    """Flipped bits, cuts, wrong kinds of file; each beside an older good one that must be found."""
    from lit_transformer.checkpoints import find_newest, verify
    from lit_transformer.errors import LitTransformerError
    from tests.checkpoints.files import flipped, good, truncated, wrong_kinds

    good(folder / "best.ckpt", 5)
    path = folder / "last.ckpt"
    data = good(path, 9, 20_000).read_bytes()
    rows: Rows = []
    for name, damaged in (
        ("flipped bits", flipped(data, int(1000 * scale))),
        ("truncations", truncated(data, int(200 * scale))),
    ):
        noticed = fell_back = total = 0
        for _, content in damaged:
            total += 1
            path.write_bytes(content)
            try:
                verify(path)
            except LitTransformerError as error:
                noticed += "\n" not in str(error) and error.exit_code == 2
            found = find_newest(folder)
            fell_back += found is not None and found.step == 5 and "last.ckpt" in found.skipped[0]
        rows += [(f"{name} noticed in one line", noticed, total), (f"{name}: the older one found", fell_back, total)]
    kinds = folder / "kinds"
    kinds.mkdir()
    noticed = total = 0
    for _, wrong in wrong_kinds(kinds):
        total += 1
        try:
            verify(wrong)
        except LitTransformerError as error:
            noticed += "\n" not in str(error)
    return [*rows, ("wrong kinds of file, one line each", noticed, total)]
