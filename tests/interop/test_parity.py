"""Every family against ``transformers``: in, computed, decoded, out again, and loaded there."""

import pytest
import torch

hf = pytest.importorskip("transformers")
models = pytest.importorskip("tests.interop.models")

from lit_transformer.generation import Greedy, Sampler, generate  # noqa: E402
from lit_transformer.interop import read_folder, write_folder  # noqa: E402
from lit_transformer.interop.section import canonical  # noqa: E402

TOKENS = torch.randint(3, 35, (2, 11), generator=torch.Generator().manual_seed(2))
REAL = torch.arange(11) < torch.tensor([[11], [7]])
DOCUMENTS = REAL.long() - 1
TARGET = torch.randint(3, 35, (2, 6), generator=torch.Generator().manual_seed(3))
NEW = 5


def close(found, wanted):
    assert found.shape == wanted.shape
    scale = max(1.0, float(wanted.abs().max()))
    assert float((found - wanted).abs().max()) <= 1e-5 * scale


@torch.inference_mode()
def check_decoder(model, network):
    wanted = model(TOKENS, attention_mask=REAL.long()).logits
    close(network(TOKENS, documents=DOCUMENTS).logits[REAL], wanted[REAL])
    cache, found = network.new_cache(2, 11), []
    for start, end in ((0, 6), (6, 7), (7, 11)):
        output = network(TOKENS[:, start:end], documents=DOCUMENTS[:, start:end], cache=cache)
        cache = output.cache
        found.append(output.logits)
    close(torch.cat(found, 1)[REAL], wanted[REAL])
    rows = [TOKENS[0].tolist(), TOKENS[1, :7].tolist()]
    left = torch.tensor([rows[0], [0] * 4 + rows[1]])
    mask = REAL.flip(-1).long()
    theirs = model.generate(left, attention_mask=mask, do_sample=False, max_new_tokens=NEW, eos_token_id=None,
                            pad_token_id=0)[:, 11:]  # fmt: skip
    ours = generate(network, rows, sampler=Sampler((), Greedy()), max_new_tokens=NEW, stop_ids=())
    assert [each.tokens for each in ours] == theirs.tolist()


@torch.inference_mode()
def check_encoder(model, network):
    inputs = {"input_ids": TOKENS, "attention_mask": REAL.long()}
    more = {}
    if network.embedding.types is not None and network.embedding.types.shape[0] > 1:
        more = {"types": (torch.arange(11) > 4).long().expand(2, -1)}
        inputs["token_type_ids"] = more["types"]
    wanted = model(**inputs, output_hidden_states=True)
    ours = network(TOKENS, documents=DOCUMENTS, **more)
    last = wanted.hidden_states[-1] if model.config.model_type != "modernbert" else model.model(**inputs)[0]
    close(ours.hidden[REAL], last[REAL])
    if hasattr(wanted, "logits"):
        close(ours.logits[REAL], wanted.logits[REAL])


@torch.inference_mode()
def check_pair(model, network):
    mask = REAL.long()
    wanted = model(input_ids=TOKENS, attention_mask=mask, decoder_input_ids=TARGET).logits
    close(network(TARGET, source=TOKENS, source_documents=DOCUMENTS).logits, wanted)
    cache = network.new_cache(2, 6)
    output = network(TARGET[:, :4], source=TOKENS, source_documents=DOCUMENTS, cache=cache)
    close(output.logits, wanted[:, :4])
    for i in (4, 5):
        output = network(TARGET[:, i : i + 1], cache=output.cache)
        close(output.logits, wanted[:, i : i + 1])
    rows = [TOKENS[0].tolist(), TOKENS[1, :7].tolist()]
    model.generation_config.forced_eos_token_id = model.generation_config.forced_bos_token_id = None
    theirs = model.generate(TOKENS, attention_mask=mask, do_sample=False, num_beams=1, max_new_tokens=NEW,
                            eos_token_id=None, bad_words_ids=None)[:, 1:]  # fmt: skip
    ours = generate(network, rows, sampler=Sampler((), Greedy()), max_new_tokens=NEW, stop_ids=())
    assert [each.tokens for each in ours] == theirs.tolist()


KINDS = ((models.DECODERS, check_decoder, hf.AutoModelForCausalLM), (models.ENCODERS, check_encoder, hf.AutoModelForMaskedLM),
         (models.PAIRS, check_pair, hf.AutoModelForSeq2SeqLM))  # fmt: skip
CASES = [pytest.param(make, check, auto, id=name) for kind, check, auto in KINDS for name, make in kind.items()]


FOLDS = ("gemma2", "gpt2", "deepseek_v2", "deepseek_v3")
"""Families whose configuration may hold a factor that goes out as part of the queries."""


@pytest.mark.parametrize(("make", "check", "auto"), CASES)
def test_parity(make, check, auto, tmp_path):
    model = models.made(make, tmp_path / "theirs")
    incoming = read_folder(tmp_path / "theirs")
    check(model, incoming.network())

    family = write_folder(tmp_path / "ours", incoming.section, incoming.vocabulary, incoming.weights)
    assert family.model_type == incoming.family
    auto = hf.AutoModel if hasattr(model, "pooler") else auto
    back, loading = auto.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not {key: value for key, value in loading.items() if value and "pooler" not in str(value)}
    check(back.eval(), incoming.network())

    again = read_folder(tmp_path / "ours")
    assert canonical(again.section) == canonical(incoming.section)
    for name, value in incoming.weights.items():
        torch.testing.assert_close(again.weights[name], value, rtol=1e-5, atol=1e-6)
    found = back.state_dict()
    for name, value in model.state_dict().items():
        if incoming.family in FOLDS and any(each in name for each in ("q_proj", "q_b_proj", "c_attn")):
            continue
        # rows of positions that no token stands on go out as zeros
        start = 2 if incoming.family in ("bart", "roberta") and "position" in name else 0
        torch.testing.assert_close(found[name][start:], value[start:], rtol=1e-5, atol=1e-6)
