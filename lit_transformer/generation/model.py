"""A trained network and its tokenizer, with the verbs of the command line as methods."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, overload

from lit_transformer.errors import UserError
from lit_transformer.generation.beam import beam_search
from lit_transformer.generation.classification import Classifier, Label
from lit_transformer.generation.contrastive import contrastive_search
from lit_transformer.generation.decoding import Completion
from lit_transformer.generation.form import decoding_form
from lit_transformer.generation.samplers import sampler_of
from lit_transformer.generation.scoring import Score, score
from lit_transformer.generation.speculative import Acceptance, Draft, DraftNetwork, generate_speculatively
from lit_transformer.generation.text import Prompting, Tokenizer, complete, stream, text_behind
from lit_transformer.generation.translation import Translator
from lit_transformer.generation.weights import Weights
from lit_transformer.networks.base import Network

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "processors", "truncations")


class Model:
    """What ``lit_transformer.load`` gives: text in, text out.

    Options of the methods that write are those of ``sampler_of`` (temperature, top_k, top_p, min_p, ...) or a
    ``sampler`` of your own, and those of ``generate`` (max_new_tokens, stop_ids, seed, context) with ``stop``, a list
    of strings.

    Args:
        network: The network.
        tokenizer: The one that it was trained with.
        prompting: How prompts are encoded; left out: the new text continues them.
        translator: Translates, where it was trained to.
        classifier: Classifies, where it was trained to.
    """

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        prompting: Prompting | None = None,
        translator: Translator | None = None,
        classifier: Classifier | None = None,
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.prompting = prompting or Prompting(tokenizer, network.vocabulary)
        self._translator = translator
        self._classifier = classifier

    def __repr__(self) -> str:
        able = [type(part).__name__ for part in (self._translator, self._classifier) if part is not None]
        size = f"{self.network.parameter_count():,} parameters"
        return f"Model({', '.join([type(self.network).__name__, size, *able])})"

    def held_as(self, weights: Weights, rows: int = 1) -> "Model":
        """This model with its weights held in another way while it writes: ``held_as(Int8())``.

        Args:
            weights: How.
            rows: About how many texts are written together.

        Raises:
            UserError: The network is not one of plain float32 weights on the CPU.
        """
        network = decoding_form(self.network, weights, rows)
        if network is self.network:
            raise UserError(f"weights are held as {type(weights).__name__} only of networks in float32 on the CPU")
        same = copy.copy(self)
        same.network = network
        if same._translator is not None:
            same._translator = copy.copy(same._translator)
            same._translator.network = network
        return same

    @overload
    def generate(self, prompt: str, **options: Any) -> str: ...
    @overload
    def generate(self, prompt: Sequence[str], **options: Any) -> list[str]: ...
    def generate(self, prompt: str | Sequence[str], **options: Any) -> str | list[str]:
        """What follows a prompt, or each of several that are decoded together.

        Args:
            prompt: A text or several; an empty one starts a document.
            options: See the class.

        Raises:
            UserError: A prompt that cannot be encoded or is longer than the context, or an option out of range.
        """
        texts = [each.text for each in self.complete([prompt] if isinstance(prompt, str) else prompt, **options)]
        return texts[0] if isinstance(prompt, str) else texts

    def complete(self, prompts: Sequence[str], **options: Any) -> list[Completion]:
        """Completions with all that is known of them; also takes ``samples``, ``log_probabilities`` and ``on_text``.

        Args:
            prompts: Texts.
            options: See the class.
        """
        self.check_writes()
        options = _with_sampler(options)
        return complete(self.network, self.tokenizer, prompts, prompting=self.prompting, **options)

    def search(self, prompts: Sequence[str], **options: Any) -> list[Completion]:
        """The most probable completions of each prompt, best first, by beam search.

        Args:
            prompts: Texts.
            options: ``beam_search``'s: beams, samples, max_new_tokens, stop_ids, length_penalty, patience, processors,
                context, selection, rescoring.
        """
        self.check_writes()
        rows = [self.prompting(prompt) for prompt in prompts]
        return self._with_text(prompts, rows, beam_search(self.network, rows, **options))

    def contrast(self, prompts: Sequence[str], **options: Any) -> list[Completion]:
        """Completions of probable tokens that are unlike what was said, by contrastive search.

        Args:
            prompts: Texts.
            options: ``contrastive_search``'s: candidates, alpha, max_new_tokens, stop_ids, context.
        """
        self.check_writes()
        rows = [self.prompting(prompt) for prompt in prompts]
        return self._with_text(prompts, rows, contrastive_search(self.network, rows, **options))

    def speculate(
        self, prompts: Sequence[str], draft: "Model | Draft", **options: Any
    ) -> tuple[list[Completion], Acceptance]:
        """Completions as ``complete`` finds them, faster where a draft guesses well; and how well it did.

        Args:
            prompts: Texts.
            draft: A smaller model with the same tokenizer, or ``PromptLookup()``.
            options: See the class; ``stop`` is not among them, ``proposals`` is: tokens that the draft guesses at once.

        Raises:
            UserError: As ``complete``; also a draft with another tokenizer.
        """
        self.check_writes()
        if isinstance(draft, Model):
            ours, theirs = (getattr(each.tokenizer, "fingerprint", None) for each in (self, draft))
            if ours != theirs:
                raise UserError("the draft has another tokenizer: both must be trained with the same one")
            draft = DraftNetwork(draft.network)
        rows = [self.prompting(prompt) for prompt in prompts]
        completions, acceptance = generate_speculatively(self.network, draft, rows, **_with_sampler(options))
        return self._with_text(prompts, rows, completions), acceptance

    def stream(self, prompt: str, **options: Any) -> Iterator[str]:
        """What follows a prompt, piece by piece.

        Args:
            prompt: A text.
            options: See the class.
        """
        self.check_writes()
        options = {**_with_sampler(options), "prompting": self.prompting}
        for _, piece in stream(self.network, self.tokenizer, [prompt], completions=[], **options):
            yield piece

    def score(self, text: str, context: int | None = None) -> Score:
        """How probable a text is: log-likelihood, perplexity, bits per byte.

        Args:
            text: The text.
            context: Most tokens to look at; left out: the length that the network was built for.

        Raises:
            UserError: The network gives texts no probability, or the text cannot be encoded.
        """
        self.check_writes()
        if self.network.reads_apart:
            raise UserError(f"{type(self.network).__name__} writes answers to a source, and a text has none: "
                            "score texts with a decoder or a prefix-LM")  # fmt: skip
        return score(self.network, self.tokenizer, text, context)

    @overload
    def translate(self, text: str, **options: Any) -> str: ...
    @overload
    def translate(self, text: Sequence[str], **options: Any) -> list[str]: ...
    def translate(self, text: str | Sequence[str], *, truncate: bool = False, **options: Any) -> str | list[str]:
        """The translation of a text, or of each of several; that of an empty one is empty.

        Args:
            text: A text or several.
            truncate: Cuts texts that are too long, which are an error otherwise.
            options: beams, length_penalty, ratio, extra, max_new_tokens, batch_size; see ``Translator``.

        Raises:
            UserError: The model was not trained to translate, or a text is too long.
        """
        translator = self.translator
        texts = [text] if isinstance(text, str) else list(text)
        prompts = {i: translator.prompt(each, truncate)[0] for i, each in enumerate(texts) if each.strip()}
        numbers, found = list(prompts), [""] * len(texts)
        for i, completion in translator(list(prompts.values()), **{"beams": 5, **options}):
            found[numbers[i]] = completion.text
        return found[0] if isinstance(text, str) else found

    @overload
    def classify(self, text: str, *, truncate: bool = False, batch_size: int = 32) -> Label: ...  # type: ignore[overload-overlap]
    @overload
    def classify(
        self, text: Sequence[str | Sequence[str]], *, truncate: bool = False, batch_size: int = 32
    ) -> list[Label]: ...
    def classify(
        self, text: str | Sequence[str | Sequence[str]], *, truncate: bool = False, batch_size: int = 32
    ) -> Label | list[Label]:
        """The class of a text, or of each of several, with the probabilities of all classes.

        Args:
            text: A text or several; a row of several texts (premise and hypothesis) is a tuple of them.
            truncate: Cuts texts that are too long, which are an error otherwise (unless training cut them too).
            batch_size: Most texts read together.

        Raises:
            UserError: The model was not trained to classify, or a text is too long.
        """
        classifier = self.classifier
        rows = [text] if isinstance(text, str) else list(text)
        read = [classifier.row([row] if isinstance(row, str) else row, truncate)[:2] for row in rows]
        labels = dict(classifier(read, batch_size))
        found = [labels[i] for i in range(len(rows))]
        return found[0] if isinstance(text, str) else found

    @property
    def translator(self) -> Translator:
        """What translates.

        Raises:
            UserError: The model was not trained to.
        """
        if self._translator is None:
            raise UserError("the model was not trained to translate: it needs a checkpoint of the task Translation")
        return self._translator

    @property
    def classifier(self) -> Classifier:
        """What classifies.

        Raises:
            UserError: The model was not trained to.
        """
        if self._classifier is None:
            raise UserError("the model was not trained to classify: it needs a checkpoint of the task Classification")
        return self._classifier

    def check_writes(self) -> None:
        """Refuses a model that does not write text.

        Raises:
            UserError: It classifies, or its network is an encoder.
        """
        if self._classifier is not None:
            raise UserError("the model was trained to classify texts, not to write them: use classify")
        weight = next(self.network.parameters())
        self.network.new_cache(1, 1, weight.dtype, weight.device)

    def _with_text(
        self, prompts: Sequence[str], rows: Sequence[Sequence[int]], completions: list[Completion]
    ) -> list[Completion]:
        for completion in completions:
            continues = prompts[completion.prompt] and self.prompting.continues
            start = rows[completion.prompt] if continues else []
            completion.text = text_behind(self.tokenizer, start, completion.tokens)
        return completions


def _with_sampler(options: dict[str, Any]) -> dict[str, Any]:
    chosen = {name: options.pop(name) for name in SAMPLING if name in options}
    if chosen and "sampler" in options:
        raise TypeError(f"either sampler or {', '.join(chosen)}")
    return {"sampler": sampler_of(**chosen), **options}
