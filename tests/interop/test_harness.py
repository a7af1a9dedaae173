"""The harness of EleutherAI on a model of ours (needs the extra ``evaluate``)."""

import json
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("lm_eval")

from lit_transformer.cli.evaluate import tasks_of
from lit_transformer.data.tokenizers import Character
from lit_transformer.dims import Dims
from lit_transformer.errors import UserError
from lit_transformer.generation import Model
from lit_transformer.generation.scoring import log_probabilities
from lit_transformer.interop.harness import HarnessModel
from lit_transformer.networks import DecoderOnly, EncoderDecoder, PrefixLM

TEXT = "the quick brown fox jumps over the lazy dog"


def tiny(network=DecoderOnly, max_len=32):
    tokenizer = Character(["<bos>", "<eos>"]).build(iter([TEXT]))
    vocabulary = tokenizer.vocabulary(max_len)
    torch.manual_seed(0)
    made = network(vocabulary, Dims(d_model=16, n_layers=2, n_heads=2, max_len=max_len)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(4.0)
    return Model(made, tokenizer)


def asked(*pairs):
    return [SimpleNamespace(args=pair) for pair in pairs]


def test_continuations_are_scored_as_by_themselves():
    model = tiny()
    pairs = [("the ", "fox"), ("", "quick"), ("a brown dog over the ", "lazy dog"), ("o", "v")]
    results = HarnessModel(model, batch_size=3).loglikelihood(asked(*pairs), disable_tqdm=True)
    for (context, answer), (value, greedy) in zip(pairs, results, strict=True):
        ids = [0, *model.tokenizer.encode(context + answer)]
        alone = log_probabilities(model.network, ids)[-len(answer.strip()) - (context != context.rstrip()) :]
        assert value == pytest.approx(sum(alone), abs=1e-4)
        best = model.generate(context, temperature=0, max_new_tokens=len(answer)) if context else None
        assert best is None or greedy == (best == answer)


def test_rolling_sums_windows_and_long_contexts_lose_their_beginning():
    model = tiny(max_len=16)
    harness = HarnessModel(model, batch_size=2)
    ids = model.tokenizer.encode(TEXT)
    windows = [[0, *ids[:16]], *([ids[i - 1], *ids[i : i + 16]] for i in range(16, len(ids) - 15, 16))]
    new = len(ids) % 16  # the last window reaches back to be full, and counts its new tokens only
    expected = sum(sum(log_probabilities(model.network, window)) for window in windows)
    (value,) = harness.loglikelihood_rolling(asked((TEXT,)), disable_tqdm=True)
    rest = log_probabilities(model.network, ids[-17:])[-new:]
    assert value == pytest.approx(expected + sum(rest), abs=1e-3)
    long = harness.loglikelihood(asked((TEXT, "x")), disable_tqdm=True)
    cut = log_probabilities(model.network, [*ids, *model.tokenizer.encode("x")][-17:])
    assert long[0][0] == pytest.approx(cut[-1], abs=1e-4)


def test_a_prefix_lm_reads_the_context_both_ways():
    model = tiny(PrefixLM)
    ((value, _),) = HarnessModel(model).loglikelihood(asked(("the fox", " jumps")), disable_tqdm=True)
    ids = torch.tensor([[0, *model.tokenizer.encode("the fox jumps")]])
    prefix = torch.arange(ids.shape[1] - 1).unsqueeze(0) < 8
    with torch.no_grad():
        logs = model.network(ids[:, :-1], prefix=prefix).logits.log_softmax(-1)
    expected = logs[0].gather(-1, ids[0, 1:].unsqueeze(-1))[-6:].sum()
    assert value == pytest.approx(float(expected), abs=1e-4)


def test_answers_end_before_their_stop_strings():
    model = tiny()
    prompts = ["the ", "fox", "lazy dog "]
    free = model.generate(prompts, temperature=0, max_new_tokens=6)
    stop = free[0][2]
    given = {"until": [stop], "max_gen_toks": 6, "do_sample": False}
    made = HarnessModel(model, batch_size=2).generate_until(asked(*((p, given) for p in prompts)))
    assert made == [text.partition(stop)[0] for text in free]


def test_tasks_of_a_folder_from_the_command_line(tmp_path, capsys, monkeypatch):
    import lit_transformer
    from lit_transformer.cli.main import main

    rows = [{"question": "the ", "choices": ["quick", "lazy"], "answer": 0}] * 3
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "choice.yaml").write_text(
        f"task: fox_choice\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/rows.jsonl}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{question}}'\n"
        "doc_to_choice: '{{choices}}'\ndoc_to_target: '{{answer}}'\nmetric_list: [{metric: acc}]\n"
    )
    monkeypatch.setattr(lit_transformer, "load", lambda *_: tiny())
    output = tmp_path / "results.json"
    words = ["--checkpoint", "x", "--tasks_folder", str(tmp_path), "--output", str(output)]
    assert main(["evaluate", *words, "--tasks", "fox_*"]) == 0, capsys.readouterr().err
    assert "fox_choice" in capsys.readouterr().out
    found = json.loads(output.read_text())["results"]["fox_choice"]["acc,none"]
    values = HarnessModel(tiny()).loglikelihood(asked(("the ", "quick"), ("the ", "lazy")), disable_tqdm=True)
    assert found == float(values[0][0] > values[1][0])


def test_what_cannot_be_evaluated_is_said():
    with pytest.raises(UserError, match="needs|evaluate a decoder or a prefix-LM"):
        HarnessModel(tiny(EncoderDecoder))
    with pytest.raises(UserError, match="knows no task 'helaswag'; did you mean hellaswag"):
        tasks_of("helaswag", ["hellaswag", "lambada"])
    given = {"until": [], "max_gen_toks": 32}
    with pytest.raises(UserError, match="writes up to 32 tokens and the model reads 32"):
        HarnessModel(tiny()).generate_until(asked(("a", given)))
