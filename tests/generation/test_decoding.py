"""The decoding loop: the cache, padding, batches and seeds change nothing that they must not change."""

import pytest
import torch

from lit_transformer.blocks.position import ALiBi, Learned, NoPosition, RoPE
from lit_transformer.errors import UserError
from lit_transformer.generation import Sampler, generate, sampler_of
from lit_transformer.generation.runner import Runner, left_padded

from .small import ATTENTIONS, KERNELS, POSITIONS, SIZE, build

GREEDY = Sampler()
PROMPTS = [[1, 2, 3, 4, 5], [7], [3, 1, 4, 1, 5, 9, 2, 6], [12, 11]]


def uncached(network, prompt, steps):
    """Greedy decoding that computes everything anew for each token, and the log-probabilities."""
    tokens, scores = list(prompt), []
    for _ in range(steps):
        with torch.no_grad():
            logits = network(torch.tensor([tokens])).logits[0, -1].float()
        tokens.append(int(logits.argmax()))
        scores.append(float(logits.log_softmax(-1)[tokens[-1]]))
    return tokens[len(prompt) :], scores


def tokens_of(completions):
    return [completion.tokens for completion in completions]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda each: each.__name__)
@pytest.mark.parametrize("position", POSITIONS, ids=lambda each: each.__name__)
def test_cached_and_batched_equal_uncached_and_single(position, kernel):
    assert_decodes_as_without_cache(build(position, kernel))


@pytest.mark.parametrize("attention", ATTENTIONS, ids=lambda each: each.__name__)
def test_every_attention_decodes_as_without_a_cache(attention):
    assert_decodes_as_without_cache(build(attention=attention))


def assert_decodes_as_without_cache(network):
    together = generate(network, PROMPTS, sampler=GREEDY, max_new_tokens=12, log_probabilities=True)
    for prompt, in_batch in zip(PROMPTS, together, strict=True):
        (alone,) = generate(network, [prompt], sampler=GREEDY, max_new_tokens=12, log_probabilities=True)
        with torch.no_grad():  # the whole text at once says what each of its tokens should have been
            logits = network(torch.tensor([prompt + alone.tokens[:-1]])).logits[0, len(prompt) - 1 :].float()
        assert alone.tokens == logits.argmax(-1).tolist()
        assert in_batch.tokens == alone.tokens
        scores = logits.log_softmax(-1).amax(-1).tolist()
        assert alone.log_probabilities == pytest.approx(scores, abs=2e-4)
        assert in_batch.log_probabilities == pytest.approx(scores, abs=2e-4)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda each: each.__name__)
@pytest.mark.parametrize("position", POSITIONS, ids=lambda each: each.__name__)
def test_left_padding_changes_no_score(position, kernel):
    network = build(position, kernel)
    tokens, documents, positions = left_padded(PROMPTS, torch.device("cpu"))
    with torch.no_grad():
        padded = network(tokens, documents=documents, positions=positions).logits
        for row, prompt in zip(padded, PROMPTS, strict=True):
            alone = network(torch.tensor([prompt])).logits[0]
            torch.testing.assert_close(row[-len(prompt) :], alone, atol=1e-4, rtol=1e-4)


def test_sampled_completions_do_not_depend_on_the_batch(network):
    sampler = sampler_of(0.8, top_k=9, top_p=0.95, min_p=0.01)
    together = generate(network, PROMPTS, sampler=sampler, max_new_tokens=12, seed=40, samples=3)
    assert [(each.prompt, each.sample) for each in together] == [(i, j) for i in range(4) for j in range(3)]
    for i, prompt in enumerate(PROMPTS):
        alone = generate(network, [prompt], sampler=sampler, max_new_tokens=12, seed=40 + i, samples=2)
        assert tokens_of(alone) == tokens_of(together[3 * i : 3 * i + 2])
        assert alone[0].tokens != alone[1].tokens


def test_fewer_tokens_are_the_start_of_more(network):
    long = generate(network, PROMPTS, max_new_tokens=12, seed=5)
    short = generate(network, PROMPTS, max_new_tokens=4, seed=5)
    assert tokens_of(short) == [tokens[:4] for tokens in tokens_of(long)]


def test_seeds(network):
    def run(seed):
        return tokens_of(generate(network, PROMPTS, max_new_tokens=12, seed=seed))

    assert run(1) == run(1)
    assert run(1) != run(2)
    torch.manual_seed(3)
    first = run(None)
    assert run(None) != first
    torch.manual_seed(3)
    assert run(None) == first


def test_a_seed_leaves_the_global_generator_alone(network):
    state = torch.get_rng_state()
    generate(network, PROMPTS, max_new_tokens=4, seed=1)
    assert torch.equal(state, torch.get_rng_state())


def test_stop_ids_end_a_row_and_leave_the_others(network):
    free = generate(network, PROMPTS, sampler=GREEDY, max_new_tokens=20, stop_ids=())
    stop = free[0].tokens[6]
    stopped = generate(network, PROMPTS, sampler=GREEDY, max_new_tokens=20, stop_ids=[stop])
    for with_stop, without in zip(stopped, free, strict=True):
        if stop in without.tokens:
            assert with_stop.tokens == without.tokens[: without.tokens.index(stop)]
            assert with_stop.reason == "stop id"
        else:
            assert with_stop.tokens == without.tokens
            assert with_stop.reason == "length"


def test_the_vocabularys_end_stops_unless_told_otherwise():
    network = build(eos_id=3)
    free = generate(network, PROMPTS, max_new_tokens=30, stop_ids=(), seed=1)
    stopped = generate(network, PROMPTS, max_new_tokens=30, seed=1)
    assert any(3 in each.tokens for each in free)
    assert not any(3 in each.tokens for each in stopped)


def test_the_callback_sees_every_token_and_may_stop(network):
    seen = {}

    def callback(grown):
        for completion in grown:
            seen.setdefault(completion.prompt, []).append(completion.tokens[-1])
            if completion.prompt == 2 and len(completion.tokens) == 3:
                completion.reason = "enough"

    completions = generate(network, PROMPTS, sampler=GREEDY, max_new_tokens=8, callback=callback)
    assert [seen[i] for i in range(4)] == tokens_of(completions)
    assert [len(each.tokens) for each in completions] == [8, 8, 3, 8]
    assert completions[2].reason == "enough"


@pytest.mark.parametrize("position", [Learned, RoPE, ALiBi, NoPosition])
def test_a_full_window_goes_on_with_its_newer_half_whatever_is_in_the_batch(position):
    network = build(position, max_len=12)
    completions = generate(network, PROMPTS, sampler=GREEDY, max_new_tokens=40)
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        assert generate(network, [prompt], sampler=GREEDY, max_new_tokens=40)[0].tokens == completion.tokens
        window, tokens = list(prompt), []
        for _ in range(40):
            if len(window) > 12:
                window = window[-6:]
            tokens += uncached(network, window, 1)[0]
            window.append(tokens[-1])
        assert completion.tokens == tokens


def test_a_longer_context_can_be_asked_for_where_the_position_extrapolates():
    network = build(RoPE, max_len=12)
    (completion,) = generate(network, [PROMPTS[0]], sampler=GREEDY, max_new_tokens=30, context=64)
    assert completion.tokens == uncached(network, PROMPTS[0], 30)[0]
    with pytest.raises(UserError, match="Learned positions end at 12"):
        generate(build(Learned, max_len=12), [PROMPTS[0]], max_new_tokens=30, context=64)


def test_a_window_of_finished_rows_does_not_matter():
    network = build(Learned, max_len=12)
    long = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]

    def callback(grown):
        for completion in grown:
            if completion.prompt == 0 and len(completion.tokens) == 1:
                completion.reason = "enough"

    together = generate(network, [long, [3]], sampler=GREEDY, max_new_tokens=30, callback=callback)
    assert together[1].tokens == generate(network, [[3]], sampler=GREEDY, max_new_tokens=30)[0].tokens


def test_modes_of_all_modules_come_back(network):
    network.train()
    network.stack.layers[0].eval()
    before = [module.training for module in network.modules()]
    seen = []
    generate(network, [[1]], max_new_tokens=2, callback=lambda _: seen.append(network.training))
    assert [module.training for module in network.modules()] == before
    assert seen == [False, False]
    with pytest.raises(RuntimeError):
        generate(network, [[1]], max_new_tokens=2, callback=lambda _: (_ for _ in ()).throw(RuntimeError()))
    assert [module.training for module in network.modules()] == before
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_under_autocast_the_cache_has_the_products_type(network):
    with torch.autocast("cpu", torch.bfloat16):
        runner = Runner(network)
        with torch.inference_mode():
            runner.prefill([[1, 2, 3]], 8)
            runner.step(torch.tensor([4]))
        assert runner.cache.layers[0].keys.dtype == torch.bfloat16
        assert len(generate(network, PROMPTS, max_new_tokens=3)[0].tokens) == 3


def test_prompts_as_a_tensor_and_nothing_to_do(network):
    assert tokens_of(generate(network, torch.tensor(PROMPTS[:1]), sampler=GREEDY, max_new_tokens=5)) == tokens_of(
        generate(network, PROMPTS[:1], sampler=GREEDY, max_new_tokens=5)
    )
    assert generate(network, [], max_new_tokens=5) == []
    (none,) = generate(network, [[1]], max_new_tokens=0)
    assert none.tokens == [] and none.reason == "length"


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([[]], {}, "the prompt is empty"),
        ([[1], []], {}, "prompt 1 is empty"),
        ([[1], [1] * 65], {}, "prompt 1 has 65 tokens and the context holds 64"),
        ([[1] * 9], {"context": 8}, "has 9 tokens and the context holds 8"),
        ([[1, SIZE]], {}, f"token {SIZE} and the vocabulary ends at {SIZE - 1}"),
        ([[1, -1]], {}, "token -1"),
        ([[1]], {"max_new_tokens": -1}, "max_new_tokens: is -1"),
        ([[1]], {"samples": 0}, "samples: is 0"),
        ([[1]], {"context": 1}, "context: is 1"),
    ],
)
def test_what_cannot_be_decoded_is_said_in_one_line(network, prompts, options, message):
    with pytest.raises(UserError, match=message) as error:
        generate(network, prompts, **options)
    assert "\n" not in str(error.value)
