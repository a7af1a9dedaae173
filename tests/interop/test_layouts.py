"""Older ways to write the same model, as they are found on the hub."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lit_transformer.errors import UserError
from lit_transformer.interop import read_folder, write_folder
from lit_transformer.interop.section import built
from lit_transformer.vocabulary import Vocabulary

VOCABULARY = Vocabulary(11, pad_id=0)
DIMS = {"d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 24, "max_len": 8}
NORM = {"class_path": "LayerNorm", "eps": 1e-12}
BERT = {
    "class_path": "EncoderOnly",
    "dims": DIMS,
    "layer": {
        "class_path": "Layer",
        "attention": {"class_path": "Attention", "bias": True},
        "feed_forward": {"class_path": "MLP", "bias": True},
        "norm": NORM,
        "residual": "PostNorm",
    },
    "position": "Learned",
    "embedding": {"class_path": "Embedding", "types": 2, "norm": NORM},
    "head": {"class_path": "MaskedHead", "norm": NORM},
}
GPT2 = {
    "class_path": "DecoderOnly",
    "dims": DIMS,
    "layer": {
        "class_path": "Layer",
        "attention": {"class_path": "Attention", "bias": True},
        "feed_forward": {
            "class_path": "MLP", "bias": True, "activation": {"class_path": "GELU", "approximate": "tanh"},
        },
        "norm": "LayerNorm",
    },
    "position": "Learned",
}  # fmt: skip


def written(section, folder):
    network = built(section, VOCABULARY, "test").eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3)
    family = write_folder(folder, section, VOCABULARY, network.state_dict())
    return family, network


def rewritten(folder, change):
    found = load_file(folder / "model.safetensors")
    save_file(change(found), folder / "model.safetensors")


def same(folder, network):
    tokens = torch.arange(8).unsqueeze(0)
    with torch.inference_mode():
        assert torch.equal(read_folder(folder).network()(tokens).logits, network(tokens).logits)


def test_bert_as_it_was_published(tmp_path):
    family, network = written(BERT, tmp_path / "bert")
    assert family.model_type == "bert"

    def old(weights):
        renamed = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
            for name, value in weights.items()
        }
        renamed["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"].clone()
        renamed["cls.seq_relationship.weight"] = torch.zeros(2, 16)
        renamed["bert.pooler.dense.bias"] = torch.zeros(16)
        return renamed

    rewritten(tmp_path / "bert", old)
    same(tmp_path / "bert", network)
    assert "bert.pooler.dense.bias, cls.seq_relationship.weight" in read_folder(tmp_path / "bert").notes[0]
    rewritten(tmp_path / "bert", lambda w: {**w, "cls.predictions.decoder.weight": torch.zeros(11, 16)})
    with pytest.raises(UserError, match="cls.predictions.decoder.weight differs"):
        read_folder(tmp_path / "bert")


def test_gpt2_as_it_was_published(tmp_path):
    family, network = written(GPT2, tmp_path / "gpt2")
    assert family.model_type == "gpt2"

    def old(weights):
        bare = {name.removeprefix("transformer."): value for name, value in weights.items()}
        return {**bare, "h.0.attn.bias": torch.ones(1, 1, 8, 8), "h.1.attn.masked_bias": torch.tensor(-1e4)}

    rewritten(tmp_path / "gpt2", old)
    same(tmp_path / "gpt2", network)


def test_half_precision_comes_in_as_float32(tmp_path):
    _, network = written(GPT2, tmp_path / "gpt2")
    rewritten(tmp_path / "gpt2", lambda w: {name: value.bfloat16() for name, value in w.items()})
    weights = read_folder(tmp_path / "gpt2").weights
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert torch.equal(weights["embedding.weight"], network.embedding.weight.bfloat16().float())
    weights = read_folder(tmp_path / "gpt2", "bfloat16").weights
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}


def test_version_5_writes_rotary_parameters_in_one_place(tmp_path):
    section = {"class_path": "DecoderOnly", "dims": DIMS, "position": {"class_path": "RoPE", "base": 5e5}}
    written(section, tmp_path / "llama")
    file = tmp_path / "llama" / "config.json"
    values = json.loads(file.read_text())
    assert values.pop("rope_theta") == 5e5
    del values["rope_scaling"]
    values["rope_parameters"] = {"rope_type": "linear", "factor": 2.0, "rope_theta": 7e5}
    file.write_text(json.dumps(values))
    scaling = {"class_path": "LinearScaling", "factor": 2.0}
    assert read_folder(tmp_path / "llama").section["position"] == {
        "class_path": "RoPE",
        "base": 7e5,
        "scaling": scaling,
    }
