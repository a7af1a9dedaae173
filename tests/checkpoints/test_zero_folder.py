"""A folder that DeepSpeed itself wrote, on two ranks, becomes one file with the same float32 weights."""

import os
import socket
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lit_transformer.cli.main import main
from tests.checkpoints import kills


def write(folder: Path, stage: int, rank: int, port: int) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        DS_ACCELERATOR="cpu",
    )  # fmt: skip
    import deepspeed

    torch.set_num_threads(1)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))
    config = {
        "train_micro_batch_size_per_gpu": 2,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    engine, *_ = deepspeed.initialize(
        args=Namespace(device_rank=rank), model=model, optimizer=optimizer, config=config, dist_init_required=False
    )
    for _ in range(2):
        engine.backward(engine(torch.ones(2, 7)).square().sum())
        engine.step()
    engine.save_checkpoint(str(folder / "zero"), tag="checkpoint")
    whole = {}
    for name, parameter in model.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], enabled=stage == 3):
            whole[name] = parameter.detach().clone()
    if rank == 0:
        torch.save(whole, folder / "weights.pt")


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_weights_are_those_of_the_run(stage: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("deepspeed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [kills.forked(lambda rank=rank: write(tmp_path, stage, rank, port)) for rank in (0, 1)]
    assert [kills.wait(child) for child in children] == [0, 0]
    source, target = str(tmp_path / "zero"), str(tmp_path / "weights.safetensors")
    assert main(["checkpoint", "convert", source, "--output", target]) == 2  # pickles: only where they are trusted
    assert "--trust" in capsys.readouterr().err
    assert main(["checkpoint", "convert", source, "--output", target, "--trust"]) == 0
    wanted, found = torch.load(tmp_path / "weights.pt"), load_file(target)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
