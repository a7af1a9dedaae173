"""A trained model behind the interface of EleutherAI's lm-evaluation-harness (extra ``evaluate``)."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM

from lit_transformer.errors import UserError
from lit_transformer.generation.model import Model
from lit_transformer.generation.runner import evaluating
from lit_transformer.generation.samplers import sampler_of
from lit_transformer.generation.text import Prompting, complete

Pair = tuple[tuple[str, str], list[int], list[int]]
"""A context and its continuation as texts, then as tokens."""

MAX_NEW_TOKENS = 256
"""Of a generation that says no other number: the harness's own default."""


class HarnessModel(TemplateLM):  # type: ignore[misc]
    """Scores continuations and writes answers for the harness's tasks.

    Contexts that are longer than the model reads lose their beginning, as with the harness's own models.

    Args:
        model: What ``lit_transformer.load`` gives: a decoder or a prefix-LM.
        batch_size: Most texts read together.

    Raises:
        UserError: The model writes no texts, or has no token to start one with.
    """

    def __init__(self, model: Model, batch_size: int = 8) -> None:
        super().__init__()
        model.check_writes()
        network = model.network
        if network.reads_apart:
            raise UserError(f"{type(network).__name__} writes answers to a source, and the tasks' texts have none: "
                            "evaluate a decoder or a prefix-LM")  # fmt: skip
        vocabulary = network.vocabulary
        start = vocabulary.eos_id if vocabulary.bos_id is None else vocabulary.bos_id
        if start is None:
            raise UserError("the model's tokenizer has no token that starts or ends a text; the tasks need one")
        self.model, self.batch_size, self._start = model, batch_size, start
        self._begin = [] if vocabulary.bos_id is None else [vocabulary.bos_id]
        self.max_length: int | None = network.dims.max_len

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text; where there is none, the one that starts it."""
        end = self.model.network.vocabulary.eos_id
        return self._start if end is None else end

    @property
    def prefix_token_id(self) -> int:
        """What stands before the first token."""
        return self._start

    @property
    def tokenizer_name(self) -> str:
        """Names the tokenizer in the harness's caches."""
        return str(getattr(self.model.tokenizer, "fingerprint", type(self.model.tokenizer).__name__))

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids, behind the token that begins a sequence where the vocabulary has one."""
        return [*(self._begin if add_special_tokens is not False else ()), *self.model.tokenizer.encode(string)]

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """As the harness does it; a continuation that melts into the context's last token is encoded by itself."""
        first, second = super()._encode_pair(context, continuation)
        return first, second or self.tok_encode(continuation, add_special_tokens=False)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihoods of whole texts, in windows that do not overlap."""
        pairs: list[Pair] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            (text,) = request.args
            windows = utils.get_rolling_token_windows(
                token_list=self.tok_encode(text, add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length or 2048,
                context_len=1,
            )
            for context, continuation in map(utils.make_disjoint_window, windows):
                pairs.append((("", ""), context, continuation))
                owners.append(number)
        totals = [0.0] * len(requests)
        for number, (value, _) in zip(owners, self._loglikelihood_tokens(pairs, disable_tqdm), strict=True):
            totals[number] += value
        return totals

    def _loglikelihood_tokens(
        self, requests: list[Pair], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Of each continuation its log-likelihood, and whether greedy decoding would write it."""
        found: dict[int, tuple[float, bool]] = {}
        order = sorted(range(len(requests)), key=lambda i: -len(requests[i][1]) - len(requests[i][2]))
        with evaluating(self.model.network):
            for start in range(0, len(order), self.batch_size):  # the longest first: trouble with memory shows at once
                chosen = order[start : start + self.batch_size]
                rows = [(requests[i][1], requests[i][2]) for i in chosen]
                found |= zip(chosen, self._scored(rows), strict=True)
        return [found[i] for i in range(len(requests))]

    @torch.inference_mode()
    def _scored(self, rows: Sequence[tuple[list[int], list[int]]]) -> Iterator[tuple[float, bool]]:
        network = self.model.network
        device = next(network.parameters()).device
        most = self.max_length or max(len(context) + len(answer) for context, answer in rows)
        whole = [(context + answer)[-(most + 1) :] for context, answer in rows]
        width = max(map(len, whole)) - 1
        tokens = torch.zeros(len(rows), width, dtype=torch.long)
        documents = torch.full((len(rows), width), -1)
        prefix = torch.zeros(len(rows), width, dtype=torch.bool)
        for i, (ids, (_, answer)) in enumerate(zip(whole, rows, strict=True)):
            count = len(ids) - 1
            tokens[i, :count] = torch.tensor(ids[:-1])
            documents[i, :count] = 0
            prefix[i, : len(ids) - len(answer)] = True
        inputs: dict[str, Any] = {"tokens": tokens, "documents": documents, "prefix": prefix}
        output = network(**{name: value.to(device) for name, value in inputs.items()})
        for i, (ids, (_, answer)) in enumerate(zip(whole, rows, strict=True)):
            count = min(len(answer), len(ids) - 1)
            states = output.hidden[i, len(ids) - 1 - count : len(ids) - 1]
            logits = output.head(states.unsqueeze(0))[0].float().log_softmax(-1)
            targets = torch.tensor(ids[len(ids) - count :], device=device)
            chosen = logits.gather(-1, targets.unsqueeze(-1))
            yield float(chosen.double().sum()), bool((logits.argmax(-1) == targets).all())

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers, each up to the first of its stop strings."""
        texts: dict[int, str] = {}
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(number)
        for numbers in groups.values():
            options = self._options(requests[numbers[0]].args[1])
            room = self._room(options["max_new_tokens"])
            prompting = _Cut(self.model, room)
            numbers = sorted(numbers, key=lambda i: -len(requests[i].args[0]))
            for start in range(0, len(numbers), self.batch_size):
                some = numbers[start : start + self.batch_size]
                prompts = [requests[i].args[0] for i in some]
                made = complete(self.model.network, self.model.tokenizer, prompts, prompting=prompting, **options)
                texts |= {some[each.prompt]: each.text for each in made}
        return [texts[i] for i in range(len(requests))]

    def _room(self, new: int) -> int | None:
        """Most tokens of a prompt."""
        if self.max_length is None:
            return None
        if new >= self.max_length:
            raise UserError(f"the task writes up to {new} tokens and the model reads {self.max_length}: "
                            "choose a model with a longer context")  # fmt: skip
        return self.max_length - new

    def _options(self, given: dict[str, Any]) -> dict[str, Any]:
        """The harness's options of a generation in our words."""
        until = given.get("until") or []
        temperature = float(given.get("temperature") or 0.0) if given.get("do_sample", True) else 0.0
        sampling = {name: given[name] for name in ("top_k", "top_p") if given.get(name)} if temperature else {}
        end = self.model.network.vocabulary.eos_id
        return {
            "stop": [until] if isinstance(until, str) else [each for each in until if each],
            "max_new_tokens": int(given.get("max_gen_toks") or given.get("max_new_tokens") or MAX_NEW_TOKENS),
            "sampler": sampler_of(temperature=temperature, **sampling),
            "stop_ids": [] if end is None else [end],
        }


class _Cut(Prompting):
    """Prompts lose their beginning where they are too long."""

    def __init__(self, model: Model, room: int | None) -> None:
        super().__init__(model.tokenizer, model.network.vocabulary)
        self._room = room

    def __call__(self, prompt: str) -> list[int]:
        ids = super().__call__(prompt)
        return ids if self._room is None else ids[-self._room :]
