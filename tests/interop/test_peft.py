"""Adapters alone: on the base model of the ecosystem they make what the merged model is there."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lit_transformer.checkpoints.adapters import without_adapters
from lit_transformer.errors import UserError
from lit_transformer.interop import write_folder
from lit_transformer.interop.peft import write_adapters
from lit_transformer.interop.section import built
from lit_transformer.training.adapters import adapt
from lit_transformer.vocabulary import Vocabulary

VOCABULARY = Vocabulary(11)
DIMS = {"d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 24, "max_len": 8}
LLAMA = {"class_path": "DecoderOnly", "dims": DIMS}
MLP = {"class_path": "MLP", "bias": True, "activation": {"class_path": "GELU", "approximate": "tanh"}}
LAYER = {"class_path": "Layer", "norm": "LayerNorm", "attention": {"class_path": "Attention", "bias": True}}
GPT2 = {"class_path": "DecoderOnly", "dims": DIMS, "position": "Learned", "layer": {**LAYER, "feed_forward": MLP}}
TOKENS = torch.arange(8).unsqueeze(0)


def adapted(section, parts, magnitude=False):
    torch.manual_seed(0)
    network = built(section, VOCABULARY, "test").eval()
    base = {name: value.clone() for name, value in network.state_dict().items()}
    adapt(network, 2, 6.0, parts, magnitude=magnitude)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if "lora_B" in name or "lora_magnitude" in name:
                value.add_(torch.randn(value.shape) * 0.1)
    return network, base


@pytest.mark.parametrize(("section", "parts"), [(LLAMA, ["query", "down"]), (GPT2, ["output", "up"])])
@pytest.mark.parametrize("magnitude", [False, True])
def test_adapters_on_the_base_are_the_merged_model(section, parts, magnitude, tmp_path):
    network, base = adapted(section, parts, magnitude)
    state = network.state_dict()
    write_folder(tmp_path / "base", section, VOCABULARY, base)
    write_folder(tmp_path / "merged", section, VOCABULARY, without_adapters(state))
    write_adapters(tmp_path / "adapters", section, VOCABULARY, {f"network.{n}": v for n, v in state.items()})
    about = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())
    tensors = load_file(tmp_path / "adapters" / "adapter_model.safetensors")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "merged"))
    changed = set()
    for module in about["target_modules"]:
        down, up = (tensors[f"base_model.model.{module}.lora_{x}.weight"] for x in "AB")
        weight = before[f"{module}.weight"]
        weight = weight.T if about["fan_in_fan_out"] else weight
        weight = weight + about["lora_alpha"] / about["r"] * up @ down
        if about["use_dora"]:
            size = tensors[f"base_model.model.{module}.lora_magnitude_vector"]
            weight = weight * (size / weight.norm(dim=1)).unsqueeze(1)
        wanted = after[f"{module}.weight"]
        torch.testing.assert_close(weight.T if about["fan_in_fan_out"] else weight, wanted)
        changed.add(f"{module}.weight")
    assert changed == {name for name in before if not torch.equal(before[name], after[name])}


def test_parts_of_a_fused_weight_cannot_stand_alone(tmp_path):
    network, base = adapted(GPT2, ["query"])
    with pytest.raises(UserError, match="only a part of a weight of gpt2"):
        write_adapters(tmp_path / "out", GPT2, VOCABULARY, network.state_dict())
    with pytest.raises(UserError, match="holds no adapters"):
        write_adapters(tmp_path / "out", GPT2, VOCABULARY, base)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("magnitude", [False, True])
def test_peft_loads_them(magnitude, tmp_path):
    peft, hf = pytest.importorskip("peft"), pytest.importorskip("transformers")
    network, base = adapted(LLAMA, ["query", "value", "gate"], magnitude)
    write_folder(tmp_path / "base", LLAMA, VOCABULARY, base)
    write_adapters(tmp_path / "adapters", LLAMA, VOCABULARY, network.state_dict())
    model = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = peft.PeftModel.from_pretrained(model, tmp_path / "adapters").eval()
    with torch.inference_mode():
        torch.testing.assert_close(model(TOKENS).logits, network(TOKENS).logits, rtol=1e-5, atol=1e-5)
