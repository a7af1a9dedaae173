"""Induction heads come into being within a few steps (Olsson et al., 2022), and the metric sees it."""

import pytest
import torch
import torch.nn.functional as F

from lit_transformer.analysis.curve import curve_picture
from lit_transformer.analysis.head_metrics import head_metrics
from lit_transformer.analysis.record import record_attention
from lit_transformer.dims import Dims
from lit_transformer.networks import DecoderOnly
from lit_transformer.vocabulary import Vocabulary

WORDS, HALF = 24, 16


def repeated(rows: int, generator: torch.Generator) -> torch.Tensor:
    """Random tokens, and the same ones again: the second half can be told by looking back."""
    half = torch.randint(1, WORDS, (rows, HALF), generator=generator)
    return torch.cat((half, half), dim=1)


@pytest.mark.slow
def test_induction_comes_in_a_phase(tmp_path) -> None:
    torch.manual_seed(0)
    network = DecoderOnly(Vocabulary(WORDS, max_len=2 * HALF), Dims(64, 2, 4, d_ff=64))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(1)
    looked_at = repeated(32, torch.Generator().manual_seed(2))
    scores, losses = [], []
    for step in range(1, 601):
        tokens = repeated(32, generator)
        logits = network(tokens[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0 or step == 1:
            with torch.no_grad(), record_attention(network) as record:
                said = network(looked_at[:, :-1]).logits[:, HALF:]
            again = F.cross_entropy(said.flatten(0, 1), looked_at[:, HALF + 1 :].flatten())
            table = head_metrics(record, looked_at[:, :-1])
            first, second = table["induction"][:4], table["induction"][4:]
            scores.append((float(step), float(second.max())))
            losses.append((float(step), float(again)))
            assert first.max() < 0.6  # a layer alone cannot do it: it takes two
    _write(tmp_path / "induction.png", "most induction of a head, by optimizer step", scores)
    _write(tmp_path / "loss.png", "loss on the repeated half (nats per token), by optimizer step", losses)
    values = [value for _, value in scores]
    assert values[0] < 0.15 and values[-1] > 0.8
    assert table["previous"][:4].max() > 0.5  # the first layer says what stood before
    assert losses[-1][1] < 0.3 < 2.5 < losses[0][1]
    low = max(step for step, value in scores if value < 0.25)
    high = min(step for step, value in scores if value > 0.6)
    assert high - low < 300  # a phase of training, no slow growth


def _write(path, title, points) -> None:
    from PIL import Image

    Image.fromarray(curve_picture(title, points).permute(1, 2, 0).numpy()).save(path)
