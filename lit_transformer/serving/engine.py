"""The thread that decodes: requests wait in a bounded queue, enter free slots, and leave when they are done."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_transformer.errors import LitTransformerError, UserError
from lit_transformer.generation.decoding import stops_of
from lit_transformer.generation.form import decoding_form
from lit_transformer.generation.model import Model
from lit_transformer.generation.runner import evaluating
from lit_transformer.serving.requests import Event, Job, Likelihood, Row, Want
from lit_transformer.serving.slots import Slots

logger = logging.getLogger("lit_transformer.serving")

PREFILLED = 4096
"""Tokens, padding included, of prompts that are read together: those who are being written for wait meanwhile."""


class Busy(LitTransformerError):
    """The queue is full, or the server is going down.

    Args:
        message: What is said.
        status: What HTTP calls it.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """What the engine takes on.

    Args:
        slots: Texts that are written at the same time.
        waiting: Texts that wait for a slot.
        context: Most tokens of a prompt and its text; of an encoder-decoder, of each.
        max_new_tokens: Most tokens of a text.
        rows: Most texts of one request.
        seconds: Longest time of a request.
    """

    slots: int = 16
    waiting: int = 128
    context: int = 1024
    max_new_tokens: int = 1024
    rows: int = 16
    seconds: float = 120.0


class Engine(threading.Thread):
    """Decodes what is in the slots, one token for all of them at a time.

    Args:
        model: The model.
        limits: What it takes on.
    """

    def __init__(self, model: Model, limits: Limits) -> None:
        super().__init__(name="lit-transformer engine", daemon=True)
        model.check_writes()
        self.model = model
        self.limits = limits
        # Equal parts with fewer operations, where the network has such.
        self.slots = Slots(decoding_form(model.network, None, limits.slots), limits.slots, limits.context)
        self.stops = stops_of(model.network, None)
        self.active: list[Row] = []
        self.waiting: deque[Row] = deque()
        self._inputs: list[int] = []
        self._changed = threading.Condition()
        self._closed = False

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """Token ids of a prompt, checked against the limits.

        Raises:
            UserError: It cannot be encoded, or is too long.
        """
        network = self.model.network
        own = network.vocabulary.source_size if network.reads_apart else None
        size = network.vocabulary.size if own is None else own
        tokens = self.model.prompting(prompt) if isinstance(prompt, str) else list(prompt)
        if not tokens:
            raise UserError("the prompt is empty: give it one token at least")
        if wrong := [token for token in tokens if not 0 <= token < size]:
            raise UserError(f"the prompt has token {wrong[0]} and the vocabulary ends at {size - 1}")
        room = self.limits.context - (0 if network.reads_apart else 1)
        if len(tokens) > room:
            raise UserError(f"the prompt has {len(tokens)} tokens and the model reads at most {room}")
        return tokens

    def submit(
        self, prompts: Sequence[str | Sequence[int]], want: Want, deliver: Callable[[Event], None]
    ) -> tuple[Job, int]:
        """Queues a request.

        Args:
            prompts: Texts or token ids.
            want: How texts are to be written.
            deliver: Called with each event in the engine's thread.

        Returns:
            The job, and the number of tokens in its prompts.

        Raises:
            UserError: It is over a limit or cannot be encoded.
            Busy: The queue is full.
        """
        if len(prompts) * want.samples > self.limits.rows:
            raise UserError(f"{len(prompts) * want.samples} texts are asked for; a request may have {self.limits.rows}")
        if want.max_new_tokens > self.limits.max_new_tokens:
            raise UserError(f"max_tokens: is {want.max_new_tokens}, may be at most {self.limits.max_new_tokens}")
        self._check_room(len(prompts) * want.samples)  # before anything is worked on
        encoded = [self.encode(prompt) for prompt in prompts]
        for tokens in encoded:
            taken = want.max_new_tokens + (0 if self.model.network.reads_apart else len(tokens))
            if taken > self.limits.context:
                raise UserError(
                    f"the prompt has {len(tokens)} tokens and max_tokens is {want.max_new_tokens}, together more than "
                    f"the {self.limits.context} that the model's context holds"
                )
        texts = [prompt if isinstance(prompt, str) else "tokens" for prompt in prompts]
        job = Job.of(self.model, encoded, texts, want, deliver, time.monotonic() + self.limits.seconds)
        if not want.max_new_tokens:
            for row in job.rows:
                self._deliver(row, Event(row.index, reason="length"))
            return job, sum(map(len, encoded))
        with self._changed:
            self._check_room(len(job.rows))
            self.waiting.extend(job.rows)
            self._changed.notify()
        return job, sum(map(len, encoded))

    def cancel(self, job: Job) -> None:
        """Frees what the job holds, before the next step."""
        job.cancelled = True
        with self._changed:
            self._changed.notify()

    def close(self) -> None:
        """Ends the thread after the step under way; what is not done is told so."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Decodes until closed."""
        with evaluating(self.model.network):
            while True:
                with self._changed:
                    while not (self.waiting or self.active or self._closed):
                        self._changed.wait()
                    if self._closed:
                        break
                    joining = self._joining()
                try:
                    self._turn(joining)
                except Exception as error:  # one step's fault must not end the server
                    logger.exception("a decoding step failed")
                    out_of_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
                    self._fail([*self.active, *joining], "out of memory" if out_of_memory else "internal error", 500)
                    self.active, self._inputs = [], []
                    self.slots.clear()
        self._fail([*self.active, *self.waiting], "the server is shutting down", 503)
        self.active, self._inputs = [], []
        self.waiting.clear()
        self.slots.clear()

    def _check_room(self, rows: int) -> None:
        if self._closed:
            raise Busy("the server is shutting down", 503)
        if len(self.waiting) + rows > self.limits.waiting + max(0, self.slots.free):
            raise Busy(f"the server is busy: {len(self.waiting)} texts wait already; try again later", 429)

    def _joining(self) -> list[Row]:
        """The rows that enter next: the first ones waiting, as far as slots and patience go."""
        wanted = [row for row in self.waiting if self._alive(row)]
        width = 0
        joining: list[Row] = []
        for row in wanted[: self.slots.free + sum(not self._wanted(row) for row in self.active)]:
            width = max(width, len(row.prompt))
            if joining and width * (len(joining) + 1) > PREFILLED:
                break
            joining.append(row)
        self.waiting = deque(wanted[len(joining) :])
        return joining

    def _wanted(self, row: Row) -> bool:
        return not row.job.cancelled and time.monotonic() < row.job.deadline

    def _alive(self, row: Row) -> bool:
        """Whether somebody still wants it; who waits too long is told so."""
        if self._wanted(row):
            return True
        self._fail([row], f"not done within {self.limits.seconds:g} seconds", 503)
        return False

    def _turn(self, joining: list[Row]) -> None:
        """Rows leave and enter, and every row gets one more token."""
        for place in reversed(range(len(self.active))):
            if not self._alive(self.active[place]):
                self._leave(place)
        if self.active:
            self._write(list(self.active), self.slots.step(self._inputs))
        for place in reversed(range(len(self.active))):
            if self.active[place].completion.reason is not None:
                self._leave(place)
        if joining:
            logits = self.slots.enter([row.prompt for row in joining])
            self.active += joining
            self._inputs += [0] * len(joining)
            self._write(joining, logits)
            for place in reversed(range(len(self.active))):
                if self.active[place].completion.reason is not None:
                    self._leave(place)

    def _leave(self, place: int) -> None:
        self.slots.leave(place)
        row, token = self.active.pop(), self._inputs.pop()
        if place < len(self.active):
            self.active[place], self._inputs[place] = row, token

    @torch.inference_mode()
    def _write(self, rows: list[Row], logits: Tensor) -> None:
        """Chooses the next token of these rows, the last ones of those in use, and tells their clients."""
        first = len(self.active) - len(rows)
        best = logits.argmax(-1).tolist()
        for i, row in enumerate(rows):
            completion = row.completion
            try:
                token = best[i] if row.greedy else row.choose(logits[i])
            except Exception:  # its own sampler's fault, and nobody else's
                logger.exception("a sampler failed")
                self._fail([row], "internal error", 500)
                continue
            if not 0 <= token < logits.shape[-1]:
                self._fail([row], "the options leave no token to choose: its scores are not finite numbers", 400)
                continue
            self._inputs[first + i] = token
            if token in self.stops:
                completion.reason = "stop id"
                self._tell(row, row.watch.finish(completion), None)
                continue
            likelihood = self._likelihood(row, logits[i], token)
            text = row.take(token)
            if completion.reason is None and len(completion.tokens) == row.job.want.max_new_tokens:
                completion.reason = "length"
                text += row.watch.finish(completion)
            self._tell(row, text, likelihood)

    def _likelihood(self, row: Row, logits: Tensor, token: int) -> Likelihood | None:
        count = row.job.want.log_probabilities
        if count is None:
            return None
        decode = self.model.tokenizer.decode
        log_p = logits.log_softmax(-1)
        values, tokens = log_p.topk(min(count, len(log_p)))
        others = {decode([t]): p for t, p in zip(tokens.tolist(), values.tolist(), strict=True)}
        return Likelihood(decode([token]), float(log_p[token]), others)

    def _tell(self, row: Row, text: str, likelihood: Likelihood | None) -> None:
        ended = row.completion.reason
        if not (text or likelihood or ended):
            return
        reason = None if ended is None else "length" if ended == "length" else "stop"
        self._deliver(row, Event(row.index, text, likelihood, reason, len(row.completion.tokens)))

    def _fail(self, rows: Sequence[Row], message: str, status: int) -> None:
        for row in dict.fromkeys(rows):
            row.completion.reason = "error"
            self._deliver(row, Event(row.index, reason="error", error=message, status=status))

    def _deliver(self, row: Row, event: Event) -> None:
        if row.job.cancelled:
            return
        try:
            row.job.deliver(event)
        except Exception:  # a client whose loop is gone must not take the others along
            row.job.cancelled = True
