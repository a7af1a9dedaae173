"""With the same weights, greedy decoding and beam search write what transformers' ``generate`` writes."""

import pytest
import torch

pytest.importorskip("transformers")
models = pytest.importorskip("tests.interop.models")

from lit_transformer.generation import Certain, Eager, Likely, Sampler, beam_search, generate  # noqa: E402
from lit_transformer.interop import read_folder  # noqa: E402

CASES = {
    "gpt2": models.DECODERS["gpt2"],
    "llama": models.DECODERS["llama"],
    "llama-3": models.DECODERS["llama-3"],
    "bart": models.PAIRS["bart"],
    "marian": models.PAIRS["marian"],
}
PROMPTS = torch.randint(3, 35, (3, 6), generator=torch.Generator().manual_seed(1))
NEW = 25  # enough for the decoding form to be worth its while
END = 5


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_greedy_and_beams(name, tmp_path):
    theirs = models.made(CASES[name], tmp_path)
    ours = read_folder(tmp_path).network()
    config = theirs.generation_config
    config.forced_eos_token_id = config.forced_bos_token_id = None
    common = dict(attention_mask=torch.ones_like(PROMPTS), do_sample=False, max_new_tokens=NEW, pad_token_id=0,
                  bad_words_ids=None, eos_token_id=END)  # fmt: skip
    cut = 1 if ours.reads_apart else PROMPTS.shape[1]

    def texts(**options):
        rows = theirs.generate(PROMPTS, **common, **options)[:, cut:].tolist()
        return [row[: row.index(END)] if END in row else row for row in rows]

    rows = PROMPTS.tolist()
    greedy = generate(ours, rows, sampler=Sampler(), max_new_tokens=NEW, stop_ids=[END])
    assert [each.tokens for each in greedy] == texts(num_beams=1)
    for early_stopping, patience, penalty in ((True, Eager(), 1.0), (False, Likely(), 0.6), ("never", Certain(), 2.0)):
        found = beam_search(
            ours, rows, beams=4, samples=2, max_new_tokens=NEW, stop_ids=[END], length_penalty=penalty,
            patience=patience,
        )  # fmt: skip
        expected = texts(num_beams=4, num_return_sequences=2, early_stopping=early_stopping, length_penalty=penalty)
        assert [each.tokens for each in found] == expected
