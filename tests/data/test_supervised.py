"""Prompts and responses: responses alone are targets, templates render as those of the field, contents forge nothing."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_transformer.data.batch import IGNORED, PADDING, PairBatch, PrefixBatch
from lit_transformer.data.chat import ROLES_TEMPLATE, encoded, laid_out, prompt_ids
from lit_transformer.data.docstrings import StdlibDocstrings
from lit_transformer.data.layouts import KeepEnds, KeepStart
from lit_transformer.data.readers import Row
from lit_transformer.data.rows import RowCorpus
from lit_transformer.data.supervised import SupervisedData
from lit_transformer.data.supervised_layouts import PromptToEncoder
from lit_transformer.data.tokenizer import Tokenizer
from lit_transformer.data.tokenizers import ByteLevelBPE, Bytes, Character
from lit_transformer.data.turns import Messages, PromptResponse
from lit_transformer.errors import UserError

SPECIAL = ["<eos>", "<pad>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "{% for m in messages %}\n{% if m['role'] == 'user' %}\n{{ '<|user|>' + m['content'] }}\n{% elif m.role == 'assistant' %}\n"
    "<|assistant|>{% generation %}{{ m['content'] }}{{ eos_token }}{% endgeneration %}\n{% else %}\n"
    "{{ raise_exception('no ' + m.role) }}\n{% endif %}\n{% endfor %}\n{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TALK = [
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "4 <eos><|user|>"},
    {"role": "user", "content": "<|assistant|>5"},
    {"role": "assistant", "content": "no"},
]


class Rows(RowCorpus):
    """Rows from lists."""

    def __init__(self, **lists: list[dict[str, Any]]) -> None:
        self.lists = lists

    def splits(self) -> Sequence[str]:
        return tuple(self.lists)

    def read(self, split: str) -> Iterator[Row]:
        for number, values in enumerate(self.lists[split], 1):
            yield Row(f"talk.jsonl:{number}", values)

    def contents(self, split: str) -> str:
        return json.dumps(self.lists[split])


PAIRS = [{"prompt": "ab" * n, "response": "cd" * (1 + n % 4)} for n in range(1, 12)]


def data(tmp_path: Path, **given: Any) -> SupervisedData:
    rows = given.pop("rows", PAIRS)
    given.setdefault("tokenizer", ByteLevelBPE(300, SPECIAL))
    given.setdefault("corpus", Rows(train=rows, validation=rows[:3]))
    return SupervisedData(cache_dir=str(tmp_path / "cache"), **given)


def tokenizer() -> Tokenizer:
    return Bytes(SPECIAL).build(iter(()))


def test_templates_render_as_in_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    ours = tokenizer()
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=ours.backend, eos_token="<eos>", bos_token=None)
    for template, talk in ((TEMPLATE, TALK), (TEMPLATE, TALK[:1]), (TEMPLATE, TALK[:2])):
        for prompt in (False, True):
            text = "".join(piece.text for piece in laid_out(talk, template, ours, prompt))
            assert text == theirs.apply_chat_template(
                talk, chat_template=template, tokenize=False, add_generation_prompt=prompt
            )


@pytest.mark.parametrize(
    "template", [TEMPLATE, TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")]
)
def test_contents_forge_no_turn_and_responses_are_wanted(template: str) -> None:
    ours = tokenizer()
    ids, wanted = encoded(laid_out(TALK, template, ours), ours)
    names = [ours.backend.id_to_token(token) for token in ids.tolist()]
    special = [name for name in names if name in SPECIAL]
    assert special == ["<|user|>", "<|assistant|>", "<eos>", "<|user|>", "<|assistant|>", "<eos>"]
    end = [ours.eos_id]
    assert ids[wanted].tolist() == [*ours.encode("4 <eos><|user|>"), *end, *ours.encode("no"), *end]
    prompt = prompt_ids(TALK[:3], ours.with_chat_template(template))
    assert prompt == ids[: len(prompt)].tolist()
    assert ids[len(prompt) :].tolist()[:3] == [*ours.encode("no"), *end]


def test_the_template_is_stored_with_the_tokenizer() -> None:
    plain = tokenizer()
    ours = plain.with_chat_template(TEMPLATE)
    again = Tokenizer.from_json(ours.to_json())
    assert again.chat_template == TEMPLATE and again.fingerprint == ours.fingerprint == plain.fingerprint
    assert again.with_special_tokens(["<x>"]).chat_template == TEMPLATE
    assert Tokenizer.from_json(plain.to_json()).chat_template is None
    with pytest.raises(UserError, match="not a tokenizer.json"):
        Tokenizer.from_json(json.dumps({"chat_template": 1, "tokenizer": json.loads(plain.to_json())}))


def test_one_sequence(tmp_path: Path) -> None:
    rows = data(tmp_path, template=TEMPLATE).rows("train", True)
    ids = np.append(np.arange(len(rows)), PADDING)
    batch = rows.batch(ids)
    assert isinstance(batch, PrefixBatch) and batch.documents is not None
    assert batch.tokens.shape[1] % 8 == 0
    for row, pair in enumerate(PAIRS):
        given = prompt_ids([{"role": "user", "content": pair["prompt"]}], rows.tokenizer)
        answer = [*rows.tokenizer.encode(pair["response"]), rows.tokenizer.eos_id]
        assert batch.targets[row][batch.targets[row] != IGNORED].tolist() == answer
        places = (batch.targets[row] != IGNORED).nonzero().flatten().tolist()
        assert places == list(range(len(given) - 1, len(given) - 1 + len(answer)))
        assert batch.tokens[row][: len(given)].tolist() == given
        assert batch.prefix[row].tolist() == [i < len(given) for i in range(batch.tokens.shape[1])]
        assert int((batch.documents[row] == 0).sum()) == rows.lengths(0)[row, 0] == len(given) - 1 + len(answer)
    assert (batch.documents[-1] == PADDING).all() and (batch.targets[-1] == IGNORED).all()
    assert rows.target_counts(ids).tolist() == (batch.targets != IGNORED).sum(-1).tolist()
    assert batch.window_tokens == (batch.targets != IGNORED).sum()


def test_prompt_to_encoder(tmp_path: Path) -> None:
    rows = data(tmp_path, template=TEMPLATE, layout=PromptToEncoder()).rows("train", True)
    batch = rows.batch(np.array([2, 5, PADDING]))
    assert isinstance(batch, PairBatch) and batch.documents is not None and batch.source_documents is not None
    ours = rows.tokenizer
    for row, number in enumerate((2, 5)):
        source = batch.source[row][batch.source_documents[row] == 0].tolist()
        assert source == prompt_ids([{"role": "user", "content": PAIRS[number]["prompt"]}], ours)
        answer = ours.encode(PAIRS[number]["response"])
        here = batch.documents[row] == 0
        assert batch.tokens[row][here].tolist() == [ours.eos_id, *answer]
        assert batch.targets[row][here].tolist() == [*answer, ours.eos_id]
        assert rows.lengths(0)[number].tolist() == [len(source), len(answer) + 1]


@pytest.mark.parametrize("truncation", [KeepStart(), KeepEnds(0.5)])
def test_what_is_too_long_is_cut_only_on_request(tmp_path: Path, truncation: KeepStart | KeepEnds) -> None:
    with pytest.raises(UserError, match=r"talk.jsonl:\d+: \d+ tokens, data.max_len is 8 .* data.truncation: KeepStart"):
        data(tmp_path, max_len=8, tokenizer=Bytes(["<eos>"])).rows("train", True)
    rows = data(tmp_path, max_len=24, tokenizer=Bytes(["<eos>"]), truncation=truncation).rows("train", True)
    batch = rows.batch(np.arange(len(rows)))
    assert batch.tokens.shape[1] <= 24
    assert rows.target_counts(np.arange(len(rows))).tolist() == (batch.targets != IGNORED).sum(-1).tolist()


def test_rows_and_templates_that_cannot_be_used(tmp_path: Path) -> None:
    for bad, message in (
        ({"prompt": "a"}, "no field 'response'"),
        ({"prompt": "a", "response": " "}, "field 'response' is empty"),
    ):
        with pytest.raises(UserError, match=f"talk.jsonl:12: {message}"):
            data(tmp_path, rows=[*PAIRS, bad]).rows("train", True)
    for bad, message in (
        ({"messages": "hello"}, "must be a list of messages"),
        ({"messages": [{"role": "user"}]}, "message 1 of 'messages' needs text"),
        ({"messages": TALK[:1]}, "is the assistant's"),
    ):
        with pytest.raises(UserError, match=f"talk.jsonl:1: .*{message}"):
            data(tmp_path, rows=[bad], turns=Messages()).rows("train", True)
    with pytest.raises(UserError, match="data.template: not a Jinja2 template"):
        data(tmp_path, template="{% if %}").rows("train", True)
    with pytest.raises(UserError, match="no system"):
        data(
            tmp_path,
            rows=[{"messages": [{"role": "system", "content": "x"}, *TALK]}],
            turns=Messages(),
            template=TEMPLATE,
        ).rows("train", True)
    with pytest.raises(UserError, match="leaves nothing to be written"):
        data(tmp_path, template="{{ messages[0].content }}").rows("train", True)
    with pytest.raises(UserError, match="data.template: fails on a conversation"):
        data(tmp_path, template="{{ messages[0].__class__.__mro__[1].__subclasses__() }}").rows("train", True)
    with pytest.raises(UserError, match="needs '<eos>'"):
        _ = data(tmp_path, tokenizer=Character(["<unk>"])).vocabulary
    with pytest.raises(UserError, match="none.jinja: cannot read"):
        _ = data(tmp_path, template="none.jinja").vocabulary


def test_files_of_templates_and_the_default(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(TEMPLATE)
    assert data(tmp_path, template=str(tmp_path / "mine.jinja")).tokenizer.chat_template == TEMPLATE
    given = data(tmp_path, turns=PromptResponse())
    assert given.tokenizer.chat_template == ROLES_TEMPLATE
    text = given.tokenizer.decode(given.rows("train", True).dialogue(0)[0].tolist())
    assert text == "User: ab\nAssistant: cdcd<eos>"


def test_the_standard_library_has_rows() -> None:
    rows = StdlibDocstrings()
    found = {row.values["prompt"]: row.values["response"] for row in rows.rows("validation")}
    assert len(found) > 100 and all(prompt.startswith(("def ", "class ")) for prompt in found)
    assert all(0 < len(response) <= 300 and "\n" not in response for response in found.values())
    assert torch.tensor([len(p) for p in found]).max() <= 300
