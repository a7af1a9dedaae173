"""``lit-transformer generate`` as a user meets it."""

import io
import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch

import lit_transformer
from lit_transformer import blocks
from lit_transformer.checkpoints import read, write
from lit_transformer.cli.main import main
from lit_transformer.data.tokenizers import ByteLevelBPE, Character
from lit_transformer.dims import Dims
from lit_transformer.errors import UserError
from lit_transformer.networks import DecoderOnly

TEXT = "the quick brown fox jumps over the lazy dog.\nPack my box: five dozen liquor jugs!\n"
DIMS = {"d_model": 32, "n_layers": 2, "n_heads": 2}


def save(path, kind, position="RoPE", max_len=64):
    """A checkpoint of a random network, as a run leaves it."""
    tokenizer = kind.build(iter([TEXT]))
    vocabulary = tokenizer.vocabulary(max_len)
    torch.manual_seed(0)
    network = DecoderOnly(vocabulary, Dims(**DIMS), position=getattr(blocks, position))
    path.parent.mkdir(parents=True, exist_ok=True)
    payload = {
        "state_dict": {f"network.{name}": value for name, value in network.state_dict().items()},
        "hyper_parameters": {
            "network": {
                "class_path": "lit_transformer.networks.DecoderOnly",
                "init_args": {"dims": DIMS, "position": {"class_path": f"lit_transformer.blocks.{position}"}},
            }
        },
        "vocabulary": asdict(vocabulary),
        "tokenizer": tokenizer.to_json(),
        "global_step": 3,
    }
    write(path, payload, 3)
    return path


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    save(folder / "checkpoints" / "best.ckpt", ByteLevelBPE(300))
    return folder


@pytest.fixture(scope="module")
def characters(tmp_path_factory):
    return save(tmp_path_factory.mktemp("run") / "char.ckpt", Character([]), "Learned", 16)


def generate(capsys, *argv):
    code = main(["generate", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_run_folder_and_a_prompt(run_folder, capsys):
    argv = ("--checkpoint", run_folder, "--prompt", "the quick", "--max_new_tokens", 12, "--seed", 1)
    code, out, err = generate(capsys, *argv)
    assert code == 0 and err == ""
    assert out.startswith("the quick") and out.endswith("\n") and len(out) > 10
    assert generate(capsys, *argv)[1] == out
    assert generate(capsys, *argv[:-1], 2)[1] != out
    model = lit_transformer.load(run_folder)
    assert out == "the quick" + model.generate("the quick", temperature=0.8, max_new_tokens=12, seed=1) + "\n"


def test_options_reach_the_sampler(run_folder, capsys):
    model = lit_transformer.load(run_folder / "checkpoints" / "best.ckpt", "cpu")
    argv = ("--checkpoint", run_folder, "--prompt", "fox", "--max_new_tokens", 20, "--seed", 7, "--device", "cpu")
    _, greedy, _ = generate(capsys, *argv, "--temperature", 0)
    assert greedy == "fox" + model.generate("fox", temperature=0, max_new_tokens=20) + "\n"
    _, chain, _ = generate(capsys, *argv, "--temperature", 1.5, "--top_k", 20, "--top_p", 0.9, "--min_p", 0.01)
    options = dict(temperature=1.5, top_k=20, top_p=0.9, min_p=0.01, max_new_tokens=20, seed=7)
    assert chain == "fox" + model.generate("fox", **options) + "\n"
    _, stopped, _ = generate(capsys, *argv, "--temperature", 0, "--stop", greedy[8:10])
    assert stopped == greedy[: greedy.index(greedy[8:10], 3)] + "\n"


def test_more_ways_to_choose_tokens(run_folder, capsys):
    argv = ("--checkpoint", run_folder, "--prompt", "fox", "--max_new_tokens", 40, "--temperature", 0)
    _, plain, _ = generate(capsys, *argv)
    _, varied, _ = generate(capsys, *argv, "--no_repeat_ngram", 2, "--repetition_penalty", 1.2)
    assert varied != plain
    _, banned, _ = generate(capsys, *argv, "--ban", plain[3:6])
    assert plain[3:6] not in banned
    many = ("--typical_p", 0.9, "--epsilon", 0.001, "--eta", 0.001, "--mirostat", 4, "--frequency_penalty", 0.5,
            "--presence_penalty", 0.5, "--min_new_tokens", 5, "--temperature", 1)  # fmt: skip
    assert generate(capsys, *argv, *many)[0] == 0


def test_beams(run_folder, capsys):
    argv = ("--checkpoint", run_folder, "--prompt", "fox", "--max_new_tokens", 10)
    _, greedy, _ = generate(capsys, *argv, "--temperature", 0)
    assert generate(capsys, *argv, "--beams", 1) == (0, greedy, "")
    code, several, _ = generate(capsys, *argv, "--beams", 3, "--num_samples", 3, "--no_repeat_ngram", 2)
    assert code == 0 and several.count("==> prompt 0, sample") == 3
    for wrong, message in (
        (("--beams", 0), "beams 0"),
        (("--beams", 2, "--num_samples", 3), "samples at most beams"),
        (("--beams", 2, "--stop", "x"), "no --stop"),
        (("--beams", 2, "--max_new_tokens", 99), "leaves room for"),
    ):
        code, out, err = generate(capsys, *argv, *wrong)
        assert (code, out) == (2, "") and message in err and err.count("\n") == 1


def test_json_lines_and_log_probabilities(run_folder, capsys):
    argv = ("--checkpoint", run_folder, "--prompt", "fox", "--max_new_tokens", 6, "--temperature", 0)
    code, out, _ = generate(capsys, *argv, "--log_probabilities")
    said = json.loads(out)
    assert code == 0 and "".join(said["token_texts"]) == said["text"] and said["reason"] == "length"
    (expected,) = lit_transformer.load(run_folder).complete(
        ["fox"], temperature=0, max_new_tokens=6, log_probabilities=True
    )
    assert said["log_probabilities"] == pytest.approx(expected.log_probabilities, abs=1e-4)
    code, out, _ = generate(capsys, *argv, "--json", "--num_samples", 2)
    assert [json.loads(line)["sample"] for line in out.splitlines()] == [0, 1]
    assert "log_probabilities" not in json.loads(out.splitlines()[0])


def test_drafts_change_nothing_but_the_time(run_folder, tmp_path, capsys):
    argv = ("--checkpoint", run_folder, "--prompt", "fox the fox the", "--max_new_tokens", 12, "--temperature", 0)
    _, plain, _ = generate(capsys, *argv)
    for draft in (("--draft", run_folder), ("--prompt_lookup", "--proposals", 3)):
        code, out, err = generate(capsys, *argv, *draft)
        assert (code, out) == (0, plain) and "guessed tokens were right" in err, draft
    code, out, _ = generate(capsys, *argv, "--prompt_lookup", "--num_samples", 2, "--stop", plain[17:19], "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["text"] for row in rows] == [plain[15 : plain.index(plain[17:19], 15)]] * 2
    save(tmp_path / "other.ckpt", Character([]))
    for wrong, message in (
        (("--draft", tmp_path / "other.ckpt"), "the draft has another tokenizer"),
        (("--draft", tmp_path / "none.ckpt"), "none.ckpt: no such"),
        (("--draft", run_folder, "--beams", 2), "only one of them"),
        (("--prompt_lookup", "--log_probabilities"), "--log_probabilities: not with --prompt_lookup"),
        (("--prompt_lookup", "--proposals", 0), "--proposals: is 0"),
    ):
        code, out, err = generate(capsys, *argv, *wrong)
        assert (code, out) == (2, "") and message in err and err.count("\n") == 1, err


def test_every_strategy_is_reachable(run_folder, tmp_path, capsys):
    pytest.importorskip("outlines_core")
    argv = ("--checkpoint", run_folder, "--prompt", "fox", "--max_new_tokens", 8, "--seed", 1)
    model = lit_transformer.load(run_folder)

    def texts(*more):
        code, out, err = generate(capsys, *argv, "--json", *more)
        assert code == 0, err
        return [json.loads(line)["text"] for line in out.splitlines()]

    assert all("own" in text for text in texts("--beams", 4, "--must_contain", "own"))
    assert len(set(texts("--beams", 4, "--num_samples", 4, "--diverse", 4, "--diversity", 9))) >= 3
    assert texts("--contrastive", 0.6) == [each.text for each in model.contrast(["fox"], alpha=0.6, max_new_tokens=8)]
    (agreed,) = texts("--mbr", "--num_samples", 4)
    assert agreed in texts("--num_samples", 4)
    assert re.fullmatch("[0-9]{2} (cats|dogs)", texts("--regex", "[0-9]{2} (cats|dogs)", "--max_new_tokens", 20)[0])
    (tmp_path / "schema.json").write_text('{"type": "boolean"}')
    assert texts("--json_schema", tmp_path / "schema.json", "--max_new_tokens", 20)[0] in ("true", "false")
    assert texts("--negative_prompt", "dog", "--guidance", 1) == texts()
    assert texts("--negative_prompt", "dog", "--guidance", 9) != texts()
    assert texts("--cache", "int8", "--temperature", 0)
    assert texts("--cache", "fixed", "--temperature", 0) == texts("--temperature", 0)
    code, out, err = generate(capsys, *argv, "--cache", "streaming", "--max_new_tokens", 90, "--json")
    assert (code, err) == (0, "") and json.loads(out)["tokens"] <= 90
    for wrong, message in (
        (("--diverse", 2), "--diverse: belongs to --beams"),
        (("--coverage", 1), "--coverage: belongs to --beams"),
        (("--beams", 2, "--coverage", 1), "coverage: needs an encoder-decoder"),
        (("--mbr",), "--mbr: needs --num_samples"),
        (("--contrastive", 0.5, "--stop", "a"), "--contrastive: draws nothing"),
        (("--regex", "("), "pattern: "),
        (("--regex", "a", "--json_schema", "x"), "only one of them"),
        (("--json_schema", tmp_path), "is a folder"),
        (("--beams", 2, "--cache", "int8"), "--cache: only where"),
    ):
        code, out, err = generate(capsys, *argv, *wrong)
        assert (code, out) == (2, "") and message in err and err.count("\n") == 1, (wrong, err)


def test_weights_held_otherwise_and_raw_weights(run_folder, capsys):
    argv = ("--checkpoint", run_folder, "--prompt", "fox", "--max_new_tokens", 4, "--temperature", 0)
    assert generate(capsys, *argv, "--hold", "int8")[0] == generate(capsys, *argv, "--hold", "bfloat16")[0] == 0
    assert generate(capsys, *argv, "--weights", "raw") == generate(capsys, *argv)
    code, _, err = generate(capsys, *argv, "--weights", "ema")
    assert code == 2 and "holds no averaged weights" in err


def test_only_a_line_feed_ends_a_prompt(run_folder, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_bytes("a\u2028b\u0085c\x0bd\r\nfox\n".encode())
    argv = ("--checkpoint", run_folder, "--max_new_tokens", 1, "--prompts", tmp_path / "prompts.txt", "--json")
    rows = [json.loads(line) for line in generate(capsys, *argv)[1].split("\n")[:-1]]
    assert [row["prompt"] for row in rows] == ["a\u2028b\u0085c\x0bd", "fox"]


def test_files_of_prompts(run_folder, tmp_path, capsys):
    prompts = ["the quick", "Pack", "five dozen liquor", "dog."]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts) + "\n")
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    argv = ("--checkpoint", run_folder, "--max_new_tokens", 8, "--seed", 3, "--num_samples", 2)
    code, text, _ = generate(capsys, *argv, "--prompts", tmp_path / "prompts.txt")
    assert code == 0
    assert all(f"==> prompt {i}, sample {j} <==\n{prompts[i]}" in text for i in range(4) for j in range(2))
    lines = {}
    for batch_size in (1, 4, 16):  # how many are decoded together changes nothing
        out = tmp_path / f"out{batch_size}.jsonl"
        generate(capsys, *argv, "--prompts", tmp_path / "prompts.jsonl", "--output", out, "--batch_size", batch_size)
        lines[batch_size] = [json.loads(line) for line in out.read_text().splitlines()]
    assert lines[1] == lines[4] == lines[16]
    assert [(line["id"], line["sample"], line["prompt"]) for line in lines[1]] == [
        (i, j, prompts[i]) for i in range(4) for j in range(2)
    ]
    assert all(f"{line['prompt']}{line['text']}\n" in text for line in lines[1])
    assert not list(tmp_path.glob("*.part"))


def test_standard_input_is_the_prompt(run_folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"the lazy")))
    code, out, _ = generate(capsys, "--checkpoint", run_folder, "--max_new_tokens", 3)
    assert code == 0 and out.startswith("the lazy")


def test_an_empty_prompt_starts_a_document(run_folder, characters, capsys):
    assert generate(capsys, "--checkpoint", run_folder, "--prompt", "", "--max_new_tokens", 3)[0] == 0
    assert generate(capsys, "--checkpoint", characters, "--prompt", "", "--max_new_tokens", 3)[0] == 0


def test_a_text_longer_than_the_context_goes_on_and_says_so(characters, capsys):
    code, out, err = generate(capsys, "--checkpoint", characters, "--prompt", "the", "--max_new_tokens", 40)
    assert code == 0 and len(out) == 44
    assert err == "lit-transformer: the context holds 16 tokens; when it is full, its older half is forgotten\n"


def test_mistakes_are_one_line(run_folder, characters, tmp_path, capsys):
    (tmp_path / "latin1.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n{"text": "b"}\n')
    (tmp_path / "cut.ckpt").write_bytes((run_folder / "checkpoints" / "best.ckpt").read_bytes()[:-100])
    good = ("--checkpoint", characters)
    for argv, message in [
        ((), "the following arguments are required: --checkpoint"),
        (("--checkpoint", tmp_path / "none.ckpt", "--prompt", "a"), "none.ckpt: no such"),
        (("--checkpoint", tmp_path / "cut.ckpt", "--prompt", "a"), "cut.ckpt:"),
        ((*good, "--prompt", "the naïve café"), "characters that the tokenizer does not know: 'é', 'ï'"),
        ((*good, "--prompt", "the quick brown fox"), "the prompt has 19 tokens and the context holds 16"),
        ((*good, "--prompt", "a", "--context", "64", "--max_new_tokens", "30"), "Learned positions end at 16"),
        ((*good, "--prompt", "a", "--temperature", "-1"), "temperature: is -1.0"),
        ((*good, "--prompt", "a", "--top_k", "0"), "top_k: is 0"),
        ((*good, "--prompt", "a", "--top_p", "2"), "top_p: is 2.0"),
        ((*good, "--prompt", "a", "--max_new_tokens", "-2"), "--max_new_tokens: is -2"),
        ((*good, "--prompt", "a", "--num_samples", "0"), "--num_samples: is 0"),
        ((*good, "--prompt", "a", "--batch_size", "0"), "--batch_size: is 0"),
        ((*good, "--prompt", "a", "--typical_p", "1.5"), "typical_p: is 1.5"),
        ((*good, "--prompt", "a", "--mirostat", "0"), "mirostat: target 0.0"),
        ((*good, "--prompt", "a", "--ban", ""), "--ban: is empty"),
        ((*good, "--prompt", "a", "--stop", ""), "a stop string is empty"),
        ((*good, "--prompt", "a", "--device", "tpu9"), "device: 'tpu9' is not in this machine; there is: cpu"),
        ((*good, "--prompt", "a", "--promt", "b"), "unknown option '--promt'"),
        ((*good, "--prompt", "a", "--prompts", "b"), "not allowed with"),
        ((*good, "--prompt", "\udce9"), "--prompt: is not UTF-8 text"),
        ((*good, "--prompts", tmp_path / "none.txt"), "none.txt: no such file"),
        ((*good, "--prompts", tmp_path), "is a folder"),
        ((*good, "--prompts", tmp_path / "latin1.txt"), "latin1.txt: is not UTF-8 text (byte 3)"),
        ((*good, "--prompts", tmp_path / "empty.txt"), "empty.txt: is empty"),
        ((*good, "--prompts", tmp_path / "bad.jsonl"), "bad.jsonl, line 2: has no text 'prompt' (there is: text)"),
    ]:
        code, out, err = generate(capsys, *argv)
        assert (code, out) == (2, ""), (argv, err)
        assert message in err and err.startswith("lit-transformer: ") and err.count("\n") == 1, (argv, err)


def test_an_output_that_cannot_be_written_is_the_machines_fault(characters, tmp_path, capsys):
    target = tmp_path / "no" / "folder.txt"
    code, _, err = generate(capsys, "--checkpoint", characters, "--prompt", "a", "--output", target)
    assert code == 3 and "folder.txt: cannot be written" in err


def test_a_failure_leaves_an_earlier_output_alone(characters, tmp_path, capsys):
    (tmp_path / "out.txt").write_text("earlier")
    argv = ("--checkpoint", characters, "--prompt", "é", "--output", tmp_path / "out.txt")
    assert generate(capsys, *argv)[0] == 2
    assert (tmp_path / "out.txt").read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


def test_help_is_quick_and_needs_no_torch():
    script = (
        "import sys; from lit_transformer.cli.main import main; code = main(['generate', '--help']);"
        "assert code == 0 and 'torch' not in sys.modules and 'lightning' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "example:" in done.stdout


def test_on_a_terminal_it_asks_and_characters_stay_whole(tmp_path):
    save(tmp_path / "bytes.ckpt", ByteLevelBPE(258))
    primary, secondary = pty.openpty()
    argv = ["generate", "--checkpoint", str(tmp_path / "bytes.ckpt"), "--max_new_tokens", "40", "--seed", "1"]
    with subprocess.Popen(
        [sys.executable, "-m", "lit_transformer.cli.main", *argv, "--temperature", "1.5"],
        stdin=secondary, stdout=secondary, stderr=subprocess.PIPE, close_fds=True, env={**os.environ, "TERM": "dumb"},
    ) as process:  # fmt: skip
        os.close(secondary)
        os.write(primary, b"the quick\n\x04")
        shown = b""
        while True:
            try:
                data = os.read(primary, 4096)
            except OSError:
                break
            if not data:
                break
            shown += data
        assert process.wait(timeout=60) == 0
    text = shown.decode()  # whole characters only, else this fails
    assert text.count("the quick") == 2
    answer = text.rsplit("the quick", 1)[1].replace("> ", "")
    assert not any(ord(character) < 32 and character not in "\r\n\t" for character in answer)


def test_load_refuses_a_checkpoint_without_a_tokenizer(tmp_path):
    path = save(tmp_path / "a.ckpt", Character([]))
    payload = read(path)
    del payload["tokenizer"]
    write(path, payload, 3)
    with pytest.raises(UserError, match="holds no tokenizer"):
        lit_transformer.load(path)
