"""A run with adapters, as a user runs it."""

from pathlib import Path

import torch

from lit_transformer.checkpoints.loading import load_network


def test_a_run_with_adapters_goes_on_exactly_and_loads_as_an_ordinary_network(folder, command):
    lora = "trainer: {callbacks: [{class_path: LoRA, rank: 2, parts: [query, down]}]}\nmodel: {schedule: Constant}\n"
    Path("lora.yaml").write_text(lora)
    options = ("fit", "--config", "tiny.yaml", "--config", "lora.yaml")
    assert command("fit", "--config", "tiny.yaml", "--output", "base")[0] == 0
    started = (*options, "--init_from", "base")
    code, _, err = command(*started, "--output", "whole")
    assert code == 0, err
    whole = torch.load("whole/checkpoints/last.ckpt", weights_only=True)
    adapters = [name for name in whole["state_dict"] if "lora_" in name]
    assert len(adapters) == 6
    assert len(whole["optimizer_states"][0]["state"]) == 4

    code, _, err = command(*started, "--output", "half", "--trainer.max_steps", 2)
    assert code == 0, err
    code, _, err = command(*options, "--resume=half")
    assert code == 0, err
    again = torch.load("half/checkpoints/last.ckpt", weights_only=True)
    for name, value in again["state_dict"].items():
        assert torch.equal(value, whole["state_dict"][name]), name

    loaded = load_network("whole/checkpoints/last.ckpt")
    assert not [name for name in loaded.network.state_dict() if "lora_" in name]
    change = loaded.network.stack.layers[0].attention.query.weight
    assert not torch.equal(change, whole["state_dict"]["network.stack.layers.0.attention.query.weight"])
    code, out, err = command("validate", "--checkpoint", "whole")
    assert code == 0 and "val/loss" in out, err
