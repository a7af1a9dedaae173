"""``translate``, ``classify`` and ``score`` as a user meets them, on checkpoints that tiny runs left."""

import io
import json
import math
import random
from dataclasses import asdict
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import lit_transformer
from lit_transformer.blocks.embedding import Embedding
from lit_transformer.blocks.pooling import FirstTokenTanh
from lit_transformer.checkpoints import read, write
from lit_transformer.cli.main import main
from lit_transformer.data.chat import ROLES_TEMPLATE
from lit_transformer.data.classification import ClassificationData
from lit_transformer.data.layouts import KeepEnds, TypedLayout
from lit_transformer.data.parallel import ParallelFiles
from lit_transformer.data.rows import FileRows
from lit_transformer.data.tokenizers import ByteLevelBPE, Character
from lit_transformer.data.translation import Sides, TranslationData
from lit_transformer.dims import Dims
from lit_transformer.errors import UserError
from lit_transformer.generation import Sampler, complete
from lit_transformer.networks import EncoderDecoder, EncoderOnly, PrefixLM
from lit_transformer.tasks import Classification, Translation
from lit_transformer.tasks.decoding import BeamSearch
from tests.cli.test_generate import save

SIZES = {"d_model": 16, "n_layers": 1, "n_heads": 2}


def leave(path, task, data, **arguments):
    """The checkpoint that a run of a task on some data leaves, without the run."""
    torch.manual_seed(0)
    task.configure_model()
    task._trainer = SimpleNamespace(datamodule=data)
    task.recipe = {"class_path": f"{type(task).__module__}.{type(task).__name__}", "init_args": arguments}
    payload = {"state_dict": task.state_dict(), "global_step": 1}
    task.on_save_checkpoint(payload)
    path.parent.mkdir(parents=True)
    write(path, payload, 1)
    return task.eval()


def network_of(name, **arguments):
    return {"class_path": f"lit_transformer.networks.{name}", "init_args": {"dims": SIZES, **arguments}}


def classifier(folder):
    """What a task says of each row of pairs.jsonl."""
    data = ClassificationData(
        FileRows(dict.fromkeys(("train", "validation", "test"), "pairs.jsonl"), str(folder)),
        Character(["<pad>", "<cls>", "<sep>", "<unk>"]),
        ["one", "two"],
        max_len=24,
        layout=TypedLayout(KeepEnds(0.5)),
        cache_dir=str(folder / "cache"),
    )
    make = partial(EncoderOnly, dims=Dims(**SIZES), embedding=partial(Embedding, types=2))
    task = Classification(make, data.vocabulary, data.classes, 1, pooling=FirstTokenTanh)
    embedding = {"class_path": "lit_transformer.blocks.embedding.Embedding", "init_args": {"types": 2}}
    path = folder / "classify" / "checkpoints" / "best.ckpt"
    task = leave(path, task, data, network=network_of("EncoderOnly", embedding=embedding), pooling="FirstTokenTanh")
    return task.predict_step(data.rows("test", False).batch(np.arange(24)), 0)


def translator(folder):
    """What a task says of each line of a.txt."""
    files = {split: ["a.txt", "b.txt"] for split in ("train", "validation", "test")}
    data = TranslationData(
        ParallelFiles(files, str(folder)),
        Character(["<eos>"]),
        Sides(source_tokenizer=Character(["<eos>"])),
        max_len=64,
        cache_dir=str(folder / "cache"),
    )
    task = Translation(partial(EncoderDecoder, dims=Dims(**SIZES)), data.vocabulary, 1, decoding=BeamSearch(3))
    task = leave(folder / "pair" / "checkpoints" / "best.ckpt", task, data, network=network_of("EncoderDecoder"))
    return task.predict_step(data.rows("test", False).batch(np.arange(20)), 0)


def prefix_lm(path, task="Translation"):
    """A random prefix-LM that was trained to answer, as a run leaves it."""
    tokenizer = Character(["<eos>"]).build(iter(["abcdwxyz \nAUaeginrstU:"]))
    if task == "SupervisedFineTuning":
        tokenizer = tokenizer.with_chat_template(ROLES_TEMPLATE)
    if task == "Denoising":
        tokenizer = tokenizer.with_special_tokens(["<extra_id_0>"])
    vocabulary = tokenizer.vocabulary(64)
    torch.manual_seed(0)
    network = PrefixLM(vocabulary, Dims(**SIZES))
    arguments = {"network": network_of("PrefixLM")}
    payload = {
        "state_dict": {f"network.{name}": value for name, value in network.state_dict().items()},
        "hyper_parameters": {"class_path": f"lit_transformer.tasks.{task}", "init_args": arguments},
        "vocabulary": asdict(vocabulary),
        "tokenizer": tokenizer.to_json(),
        "global_step": 1,
    }
    path.parent.mkdir(parents=True)
    write(path, payload, 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with four runs' checkpoints, and what their tasks say of some rows."""
    folder = tmp_path_factory.mktemp("verbs")
    draw = random.Random(1)
    word = lambda letters: "".join(draw.choice(letters) for _ in range(draw.randint(2, 9)))  # noqa: E731
    rows = [{"one": word("abcd"), "two": word("efgh") * draw.randint(1, 3), "label": draw.choice(["no", "yes"])}
            for _ in range(24)]  # fmt: skip
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "a.txt").write_text("".join(f"{word('abcd ')}x\n" for _ in range(20)))
    (folder / "b.txt").write_text("".join(f"{word('wxyz ')}y\n" for _ in range(20)))
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 9)
    save(folder / "text" / "checkpoints" / "best.ckpt", ByteLevelBPE(300))
    prefix_lm(folder / "prefix" / "checkpoints" / "best.ckpt")
    prefix_lm(folder / "chat" / "checkpoints" / "best.ckpt", "SupervisedFineTuning")
    (folder / "classify.predicted").write_text(json.dumps(classifier(folder)))
    (folder / "pair.predicted").write_text(json.dumps(translator(folder)))
    return folder


def verb(capsys, *argv):
    capsys.readouterr()
    code = main([*map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, err


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_classify_says_what_predict_said(place, capsys):
    argv = ("classify", "--checkpoint", place / "classify", "--input", place / "pairs.jsonl")
    code, out, err = verb(capsys, *argv)
    assert code == 0 and "lines were cut" in err
    found = [json.loads(line) for line in out.splitlines()]
    expected = json.loads((place / "classify.predicted").read_text())
    assert [each["id"] for each in found] == list(range(24)) and {each["label"] for each in found} <= {"no", "yes"}
    for mine, theirs in zip(found, sorted(expected, key=lambda each: each["id"]), strict=True):
        assert mine["label"] == theirs["label"]
        assert mine["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-5)
    assert verb(capsys, *argv, "--batch_size", 1, "--output", place / "one.jsonl")[0] == 0
    for mine, theirs in zip(lines(place / "one.jsonl"), found, strict=True):
        assert mine["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-5)
    model = lit_transformer.load(place / "classify")
    rows = [(each["one"], each["two"]) for each in lines(place / "pairs.jsonl")]
    assert [each.label for each in model.classify(rows)] == [each["label"] for each in found]
    with pytest.raises(UserError, match="has 1 texts, and the model reads 2: one, two"):
        model.classify("abc")


def test_translate_says_what_predict_said(place, capsys):
    argv = ("translate", "--checkpoint", place / "pair", "--input", place / "a.txt", "--beams", 3)
    code, out, err = verb(capsys, *argv)
    assert code == 0 and err == ""
    expected = json.loads((place / "pair.predicted").read_text())
    sources = (place / "a.txt").read_text().splitlines()
    assert [expected[i]["source"] for i in range(20)] == sources
    found = out.split("\n")[:-1]
    for i, text in enumerate(found):  # predict lets all run on as long as the longest may; here a line stands alone
        assert expected[i]["translation"].startswith(text[:5])
    for batch_size in (1, 7):
        assert verb(capsys, *argv, "--batch_size", batch_size)[1] == out


@pytest.mark.parametrize("name", ["pair", "prefix"])
def test_in_python_it_is_the_same(place, capsys, name):
    model = lit_transformer.load(place / name)
    sources = (place / "a.txt").read_text().splitlines()
    found = verb(capsys, "translate", "--checkpoint", place / name, "--input", place / "a.txt")[1].split("\n")[:-1]
    assert len(found) == 20 and model.translate([*sources, ""]) == [*found, ""]
    one = model.translate(sources[0], beams=1, max_new_tokens=6)
    (greedy,) = model.complete([sources[0]], temperature=0, max_new_tokens=6)
    assert one == greedy.text
    assert verb(capsys, "generate", "--checkpoint", place / name, "--prompt", sources[0], "--max_new_tokens", 6,
                "--temperature", 0)[1] == one + "\n"  # fmt: skip


def test_a_model_of_conversations_answers_by_its_template(place, capsys):
    model = lit_transformer.load(place / "chat")
    argv = ("generate", "--checkpoint", place / "chat", "--max_new_tokens", 9, "--temperature", 0)
    code, out, _ = verb(capsys, *argv, "--prompt", "abc")
    said = "User: abc\nAssistant: "
    (expected,) = complete(model.network, model.tokenizer, [said], sampler=Sampler(), max_new_tokens=9)
    assert (code, out) == (0, expected.text + "\n")
    assert verb(capsys, *argv, "--prompt", said, "--raw")[1] == said + out
    assert "".join(model.stream("abc", temperature=0, max_new_tokens=9)) == expected.text
    assert model.generate("", max_new_tokens=1) is not None
    with pytest.raises(UserError, match="does not know: 'é'"):
        model.generate("é")


def test_a_model_that_fills_gaps_knows_their_names(tmp_path, capsys):
    prefix_lm(tmp_path / "gaps" / "last.ckpt", "Denoising")
    model = lit_transformer.load(tmp_path / "gaps" / "last.ckpt")
    one = model.tokenizer.encode
    assert model.prompting("ab<extra_id_0>c") == [*one("ab"), model.tokenizer.size - 1, *one("c"), 0]
    code, _, err = verb(capsys, "translate", "--checkpoint", tmp_path / "gaps" / "last.ckpt", "--text", "a")
    assert code == 2 and "not trained to translate" in err


def test_translations_are_scored_against_references(place, capsys):
    import sacrebleu

    argv = ("translate", "--checkpoint", place / "prefix", "--input", place / "a.txt", "--beams", 1)
    code, out, err = verb(capsys, *argv, "--reference", place / "b.txt")
    assert code == 0
    references = (place / "b.txt").read_text().splitlines()
    chrf = sacrebleu.corpus_chrf(out.split("\n")[:-1], [references]).score
    assert f"chrF {chrf:.2f}  nrefs:1" in err and "BLEU " in err and "|tok:13a|" in err
    (place / "short.txt").write_text("one\n")
    code, out, err = verb(capsys, *argv, "--reference", place / "short.txt")
    assert (code, out) == (2, "") and "short.txt: has 1 lines and" in err and "has 20" in err


def test_lines_of_all_kinds(place, capsys, monkeypatch):
    argv = ("translate", "--checkpoint", place / "pair", "--beams", 1, "--max_new_tokens", 4)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfab\r\n\n  \nba\x0bab\na")))
    code, out, err = verb(capsys, *argv)
    assert (
        code == 2 and "standard input, line 4: the text has characters that the tokenizer does not know: '\\x0b'" in err
    )
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfab\r\n\n  \nba\na")))
    code, out, _ = verb(capsys, *argv)
    one = {text: verb(capsys, *argv, "--text", text)[1] for text in ("ab", "ba", "a")}
    assert code == 0 and out == one["ab"] + "\n\n" + one["ba"] + one["a"]
    code, out, _ = verb(capsys, *argv, "--text", "", "--json")
    assert json.loads(out) == {"id": 0, "source": "", "translation": "", "score": None}
    (place / "bad.txt").write_bytes(b"ab\nb\xff\n")
    code, _, err = verb(capsys, *argv, "--input", place / "bad.txt", "--output", place / "never.txt")
    assert code == 2 and "bad.txt, line 2: is not UTF-8 text (byte 1 of the line)" in err
    assert not list(place.glob("never.txt*"))
    (place / "long.txt").write_text("ab\n" + "ab" * 40 + "\n")
    code, _, err = verb(capsys, *argv, "--input", place / "long.txt")
    assert code == 2 and "long.txt, line 2: the text has 80 tokens and the model reads 63: shorten it, or cut" in err
    code, out, err = verb(capsys, *argv, "--input", place / "long.txt", "--truncate")
    assert code == 0 and out.count("\n") == 2 and err == "lit-transformer: 1 of 2 lines were cut, by 17 tokens\n"
    (place / "none.txt").write_text("")
    assert verb(capsys, *argv, "--input", place / "none.txt") == (0, "", "")


def test_score_is_the_models(place, capsys):
    model = lit_transformer.load(place / "text")
    text = "the quick brown fox\njumps over the lazy dog\n"
    expected = model.score(text)
    argv = ("score", "--checkpoint", place / "text")
    code, out, err = verb(capsys, *argv, "--text", text, "--json")
    said = json.loads(out)
    assert code == 0 and err == "" and said["log_likelihood"] == pytest.approx(expected.log_likelihood)
    assert said["perplexity"] == pytest.approx(expected.perplexity) and said["bytes"] == expected.bytes
    code, out, _ = verb(capsys, *argv, "--text", text)
    assert f"bits per byte   {expected.bits_per_byte:,.4f}" in out
    (place / "two.txt").write_text(text + "\n")
    code, out, err = verb(capsys, *argv, "--input", place / "two.txt", "--lines")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [row["id"] for row in rows] == [0, 1, 2]
    assert rows[2]["perplexity"] is None and rows[2]["bits_per_byte"] is None
    assert rows[0]["log_likelihood"] == pytest.approx(model.score("the quick brown fox").log_likelihood)
    total = sum(row["log_likelihood"] for row in rows)
    assert f"perplexity {math.exp(-total / sum(row['tokens'] for row in rows)):.4f}" in err


def test_the_wrong_verb_for_a_checkpoint_is_one_line(place, capsys):
    for argv, message in [
        (("translate", "--checkpoint", place / "text", "--text", "a"), "not trained to translate"),
        (("classify", "--checkpoint", place / "pair", "--text", "a"), "not trained to classify"),
        (("score", "--checkpoint", place / "classify", "--text", "a"), "to classify texts, not to write them"),
        (("score", "--checkpoint", place / "pair", "--text", "a"), "EncoderDecoder writes answers to a source"),
        (("generate", "--checkpoint", place / "classify", "--prompt", "a"), "use classify"),
        (("serve", "--checkpoint", place / "classify", "--check", "--port", 0), "use classify"),
        (("serve", "--checkpoint", place / "text", "--check", "--host", "0.0.0.0"), "--allow_remote"),
        (("translate", "--checkpoint", place / "pair", "--input", place / "absent"), "absent: no such file"),
        (("translate", "--checkpoint", place / "pair", "--input", place), "is a folder"),
        (("translate", "--checkpoint", place / "pair", "--text", "\udce9"), "--text: is not UTF-8 text"),
        (("translate", "--checkpoint", place / "pair", "--text", "a", "--beams", 0), "--beams: is 0"),
        (("classify", "--checkpoint", place / "classify", "--text", "abc"), "--text: is not JSON"),
        (("classify", "--checkpoint", place / "classify", "--text", '{"one": 1}'), "--text: has no text 'one'"),
        (("classify", "--checkpoint", place / "classify", "--text", '{"one": "a", "two": "\\ud800"}'), "is not UTF-8"),
        (("generate", "--checkpoint", place / "pair", "--prompt", "é"), "characters that the tokenizer does not know"),
        (("score", "--checkpoint", place / "text", "--text", "a", "--context", 1), "--context: is 1"),
    ]:
        code, out, err = verb(capsys, *argv)
        assert (code, out) == (2, ""), (argv, out, err)
        assert message in err and err.startswith("lit-transformer: ") and err.count("\n") == 1, (argv, err)
    code, _, err = verb(capsys, "score", "--checkpoint", place / "text", "--text", "a", "--output", place / "no" / "x")
    assert code == 3 and "cannot be written" in err


def test_a_checkpoint_whose_parts_do_not_fit_is_refused(place, tmp_path):
    good = read(place / "classify" / "checkpoints" / "best.ckpt")
    for change, message in [
        ({"classes": ["one"]}, "classes: is 1"),
        ({"classes": ["a", "b", "c"]}, "the shape of bias is"),
        ({"classes": [1, 2]}, "holds no classes"),
        ({"layout": {"class_path": "os.system"}}, "os.system"),
        ({"layout": "KeepStart"}, "KeepStart"),
        ({"text_fields": "one"}, "names of fields"),
    ]:
        path = tmp_path / "changed.ckpt"
        write(path, {**good, **change}, good["global_step"])
        with pytest.raises(UserError, match=message):
            lit_transformer.load(path)
    pair = read(place / "pair" / "checkpoints" / "best.ckpt")
    del pair["source_tokenizer"]
    write(path, pair, pair["global_step"])
    with pytest.raises(UserError, match="holds no tokenizer of them"):
        lit_transformer.load(path)


def test_serve_says_what_it_would_serve(place, capsys):
    pytest.importorskip("fastapi")
    for name in ("text", "pair", "prefix"):
        code, out, _ = verb(capsys, "serve", "--checkpoint", place / name, "--check", "--port", 0)
        assert code == 0 and out.startswith(f"would serve {name} at http://127.0.0.1:")
