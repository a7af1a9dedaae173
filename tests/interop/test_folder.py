"""What is wrong with a stranger's folder is said in one line that names it, before anything of it is allocated."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from lit_transformer.errors import UserError
from lit_transformer.interop import FAMILIES, Inexpressible, expressed, read_folder, write_folder
from lit_transformer.vocabulary import Vocabulary

SECTION = {
    "class_path": "DecoderOnly",
    "dims": {"d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 24, "max_len": 32},
    "layer": {"class_path": "Layer", "feed_forward": "SwiGLU"},
}


def built(section, vocabulary):
    from lit_transformer.interop.section import built as network_of

    return network_of(section, vocabulary, "test")


@pytest.fixture
def folder(tmp_path):
    """A Llama with a head of its own."""
    section = {**SECTION, "head": "LinearHead"}
    network = built(section, Vocabulary(11))
    write_folder(tmp_path / "model", section, Vocabulary(11), network.state_dict())
    return tmp_path / "model"


def edit(folder, **values):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def weights(folder, change):
    found = load_file(folder / "model.safetensors")
    change(found)
    save_file(found, folder / "model.safetensors")


def refused(folder, *words, **options):
    with pytest.raises(UserError) as caught:
        read_folder(folder, **options)
    said = str(caught.value)
    assert "\n" not in said
    for word in words:
        assert word in said, said


def test_unknown_family(folder):
    edit(folder, model_type="mamba")
    refused(folder, "mamba", "config.json", *FAMILIES)


def test_missing_extra_and_misshapen_weights(folder):
    name = "model.layers.1.mlp.up_proj.weight"
    weights(folder, lambda w: w.update({name: torch.zeros(25, 16)}))
    refused(folder, name, "(25, 16)", "(24, 16)")
    weights(folder, lambda w: w.pop(name))
    refused(folder, name, "has no weight")
    weights(folder, lambda w: w.update({name: torch.zeros(24, 16), "model.layers.0.adapter": torch.zeros(2)}))
    refused(folder, "model.layers.0.adapter", "has a weight")
    weights(
        folder, lambda w: w.update({name: torch.zeros(24, 16, dtype=torch.int8)}) or w.pop("model.layers.0.adapter")
    )
    refused(folder, name, "I8")


@pytest.mark.parametrize(("values", "word"), [
    ({"hidden_size": "16"}, "hidden_size"),
    ({"hidden_size": None}, "hidden_size"),
    ({"num_attention_heads": 3}, "n_heads"),
    ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
    ({"hidden_size": 1 << 30}, "model.embed_tokens.weight"),
    ({"hidden_act": "swish2"}, "hidden_act"),
    ({"rope_scaling": {"rope_type": "longrope", "factor": 2}}, "longrope"),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 2}}, "low_freq_factor"),
    ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ({"rms_norm_eps": float("inf")}, "rms_norm_eps"),
])  # fmt: skip
def test_configurations(folder, values, word):
    edit(folder, **values)
    refused(folder, word)


def test_a_missing_shard_and_a_name_outside(folder, tmp_path):
    found = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(found)
    parts = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for file, held in parts.items():
        save_file({name: found[name] for name in held}, folder / file)
    table = {name: file for file, held in parts.items() for name in held}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": table}))
    assert read_folder(folder).weights.keys() >= {"embedding.weight"}
    (folder / "b.safetensors").rename(tmp_path / "b.safetensors")
    refused(folder, "b.safetensors", "missing")
    index.write_text(json.dumps({"weight_map": {**table, names[-1]: "../b.safetensors"}}))
    refused(folder, "../b.safetensors", "outside")
    os.symlink(tmp_path / "b.safetensors", folder / "b.safetensors")
    index.write_text(json.dumps({"weight_map": table}))
    refused(folder, "b.safetensors", "link out of the folder")


def test_shards_are_written_and_read(tmp_path):
    network = built(SECTION, Vocabulary(11))
    state = network.state_dict()
    write_folder(tmp_path / "model", SECTION, Vocabulary(11), state, shard_bytes=4096)
    assert len(list((tmp_path / "model").glob("model-*-of-*.safetensors"))) > 2
    again = read_folder(tmp_path / "model").weights
    assert all(torch.equal(again[name], value) for name, value in state.items())


def test_damaged_and_pickled_weights(folder):
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    refused(folder, "model.safetensors", "no good safetensors file")
    found = load_file_of(whole, folder)
    file.unlink()
    refused(folder, "neither")
    torch.save(found, folder / "pytorch_model.bin")
    refused(folder, "pytorch_model.bin", "--allow_pickle")
    assert read_folder(folder, allow_pickle=True).weights.keys() >= {"embedding.weight"}
    with (folder / "pytorch_model.bin").open("wb") as out:
        pickle.dump({"x": os.getcwd}, out)
    refused(folder, "pytorch_model.bin", "more than tensors", allow_pickle=True)


def load_file_of(content, folder):
    (folder / "whole").write_bytes(content)
    found = load_file(folder / "whole")
    (folder / "whole").unlink()
    return found


def test_files_that_are_no_json(folder):
    (folder / "config.json").write_text("[1")
    refused(folder, "config.json", "JSON")
    (folder / "config.json").write_text("[" * 100_000)
    refused(folder, "config.json", "JSON")
    (folder / "config.json").unlink()
    refused(folder, "config.json")


def test_a_tokenizer_that_is_none_or_too_large(folder):
    from tokenizers import Tokenizer, models

    (folder / "tokenizer.json").write_text("{}")
    refused(folder, "tokenizer.json")
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(12)}, unk_token="w0"))
    (folder / "tokenizer.json").write_text(words.to_str())
    refused(folder, "12 tokens", "11 embeddings")


def test_more_rows_than_tokens(folder):
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(9)}, unk_token="w0"))
    (folder / "tokenizer.json").write_text(words.to_str())
    incoming = read_folder(folder)
    assert incoming.vocabulary.size == 9 and incoming.section["embedding"]["rows"] == 11
    assert incoming.network()(torch.zeros(1, 2, dtype=torch.long)).logits.shape == (1, 2, 11)


@pytest.mark.parametrize(("change", "words"), [
    ({"position": "FIRE"}, ["network.position", "FIRE"]),
    ({"layer": {"class_path": "Layer", "residual": "DeepNorm"}}, ["residual", "DeepNorm"]),
    ({"layer": {"class_path": "Layer", "attention": "DifferentialAttention"}}, ["attention", "DifferentialAttention"]),
    ({"layer": [{"class_path": "Layer", "norm": {"class_path": "RMSNorm", "eps": 1e-3}}, "Layer"]}, ["eps"]),
    ({"mask": {"class_path": "And", "masks": ["Causal", {"class_path": "Sinks", "count": 2}]}}, ["mask"]),
])  # fmt: skip
def test_what_the_layout_cannot_say_goes_out_as_our_own(change, words, tmp_path):
    section = {**SECTION, **change}
    network = built(section, Vocabulary(11, eos_id=3)).eval()
    with pytest.raises(Inexpressible) as caught:
        write_folder(tmp_path / "out", section, Vocabulary(11), network.state_dict())
    for word in (*words, "--layout native"):
        assert word in str(caught.value)
    assert not (tmp_path / "out").exists()
    write_folder(tmp_path / "out", section, Vocabulary(11, eos_id=3), network.state_dict(), layout="native")
    again = read_folder(tmp_path / "out")
    tokens = torch.arange(11).unsqueeze(0)
    assert torch.equal(again.network()(tokens).logits, network(tokens).logits)
    assert again.vocabulary == Vocabulary(11, eos_id=3)
    edit(tmp_path / "out", network={**section, "dims": {**section["dims"], "n_layers": 10**9}})
    refused(tmp_path / "out", "n_layers")


def test_equal_ways_to_say_a_network_are_one():
    vocabulary = Vocabulary(11, max_len=32)
    loose = {
        "class_path": "DecoderOnly",
        "dims": {"d_model": 16, "n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "head_dim": 8, "d_ff": 24},
        "layer": ["Layer", {"class_path": "Layer", "dropout": 0.1, "feed_forward": {"class_path": "Gated"}}],
        "mask": "Causal",
        "initialisation": "Normal",
        "kernel": "EagerKernel",
    }
    assert expressed(loose, vocabulary) == expressed(SECTION, vocabulary)
