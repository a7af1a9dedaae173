"""``import`` and ``export``: what a user does with a pre-trained model."""

import json
from pathlib import Path

import pytest
import torch

from lit_transformer.cli.import_ import folder_of
from lit_transformer.errors import UserError

SECTION = {
    "class_path": "DecoderOnly",
    "dims": {"d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 24, "max_len": 32},
    "head": "LinearHead",
}
MORE = """\
data:
  corpus: {class_path: FilesCorpus, data_files: {train: train.txt, validation: validation.txt}}
  block_size: 16
  cache_dir: cache
trainer: {max_steps: 2, validate_every: 2, accelerator: cpu, num_sanity_val_steps: 0}
model: {schedule: Constant}
"""


@pytest.fixture
def model(folder):
    """A tiny Llama in the Hugging Face layout, whose table has more rows than its tokenizer tokens."""
    from lit_transformer.data.tokenizers import Character
    from lit_transformer.interop import write_folder
    from lit_transformer.interop.section import built

    tokenizer = Character().build(iter([(folder / "train.txt").read_text()]))
    vocabulary = tokenizer.vocabulary()
    section = {**SECTION, "embedding": {"class_path": "Embedding", "rows": 64}}
    network = built(section, vocabulary, "test")
    write_folder(folder / "model", section, vocabulary, network.state_dict(), tokenizer.to_json())
    return folder / "model", network.eval()


def test_a_model_comes_in_is_used_and_tuned_and_goes_out(model, folder, command):
    code, _, err = command("import", "--from", "model", "--to", "runs/mine")
    assert code == 0, err
    assert {path.name for path in Path("runs/mine").iterdir()} == {"recipe.yaml", "tokenizer.json", "checkpoints"}
    code, out, err = command("generate", "--checkpoint", "runs/mine", "--prompt", "the quick", "--seed", 1,
                             "--max_new_tokens", 4)  # fmt: skip
    assert code == 0 and len(out) >= 4, err
    code, out, _ = command("checkpoint", "inspect", "runs/mine")
    assert code == 0 and "DecoderOnly" in out

    Path("more.yaml").write_text(MORE)
    code, _, err = command("validate", "--config", "runs/mine/recipe.yaml", "--config", "more.yaml",
                           "--checkpoint", "runs/mine")  # fmt: skip
    assert code == 0, err
    code, _, err = command("fit", "--config", "runs/mine/recipe.yaml", "--config", "more.yaml",
                           "--init_from", "runs/mine", "--output", "runs/tuned")  # fmt: skip
    assert code == 0, err
    code, _, err = command("export", "--checkpoint", "runs/tuned", "--to", "out", "--layout", "native", "--verify")
    assert code == 0 and "verified" in err
    code, _, err = command("import", "--from", "out", "--to", "runs/again")
    assert code == 0, err

    pytest.importorskip("transformers")
    code, _, err = command("export", "--checkpoint", "runs/tuned", "--to", "theirs", "--verify")
    assert code == 0 and "written as llama" in err and "verified" in err
    assert json.loads(Path("theirs/config.json").read_text())["vocab_size"] == 64
    code, _, err = command("import", "--from", "theirs", "--to", "runs/last", "--verify", "--dtype", "bfloat16")
    assert code == 0 and "verified" in err, err


def test_verify_finds_a_wrong_weight(model, folder):
    pytest.importorskip("transformers")
    from lit_transformer.interop.verifying import compare

    path, network = model
    assert compare(path, network).difference < 1e-6
    with torch.no_grad():
        network.stack.layers[1].attention.value.weight[3, 5] += 0.5
    with pytest.raises(UserError, match="differ from the checkpoint's"):
        compare(path, network)


def test_what_is_refused(model, folder, command):
    for argv, words in (
        (("import", "--from", "nowhere/at/all", "--to", "x"), ["nowhere/at/all", "owner/name"]),
        (("import", "--from", "https://hub/x", "--to", "x"), ["https://hub/x"]),
        (("import", "--from", "model", "--to", "model"), ["--to model", "exists"]),
        (("import", "--from", "model", "--to", "x", "--revision", "main"), ["--revision"]),
        (("export", "--checkpoint", "nowhere", "--to", "x"), ["nowhere"]),
    ):
        code, _, err = command(*argv)
        assert code == 2 and err.count("\n") == 1, err
        assert all(word in err for word in words), err
    assert not Path("x").exists()


def test_a_network_that_the_layout_cannot_say(model, folder, command):
    command("import", "--from", "model", "--to", "runs/mine")
    code, _, err = command("export", "--checkpoint", "runs/mine", "--to", "x", "--family", "gpt2")
    assert code == 2 and "gpt2" in err and "--layout native" in err
    code, _, err = command("export", "--checkpoint", "runs/mine", "--to", "x", "--family", "gpt3")
    assert code == 2 and "supported" in err


def test_places(tmp_path):
    assert folder_of(str(tmp_path)) == tmp_path
    with pytest.raises(UserError, match="owner/name"):
        folder_of("./missing")
