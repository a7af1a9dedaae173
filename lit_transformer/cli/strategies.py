"""How ``generate`` finds its text: drawn token by token, searched for, or drafted and checked."""

import argparse
from typing import TYPE_CHECKING, Any

from lit_transformer.errors import UserError

if TYPE_CHECKING:
    from lit_transformer.generation import Acceptance, Completion, Draft, Model


class Strategy:
    """Base of the strategies: token by token, as the sampler says.

    Args:
        options: Of the command line.
    """

    streams = True
    """Whether text can be shown as it comes."""
    moves_window = True
    """Whether a text may be longer than the context."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options

    def prepare(self, model: "Model") -> None:
        """Called once with the model, before anything is decoded."""

    def complete(self, model: "Model", prompts: list[str], sampling: dict[str, Any]) -> list["Completion"]:
        """``samples`` completions for each prompt, in order."""
        return model.complete(prompts, log_probabilities=self.options.log_probabilities, **sampling)

    def report(self) -> str | None:
        """What is to be said at the end."""
        return None


class Search(Strategy):
    """Beam search: nothing is drawn, so only penalties and bans are left of the sampler."""

    streams = False
    moves_window = False

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        options.temperature = 0

    def complete(self, model: "Model", prompts: list[str], sampling: dict[str, Any]) -> list["Completion"]:
        """See the base class; the best first."""
        from lit_transformer import generation

        patience = {"eager": generation.Eager, "likely": generation.Likely, "certain": generation.Certain}
        more: dict[str, Any] = {}
        if self.options.diverse is not None:
            more["selection"] = generation.Diverse(self.options.diverse, self.options.diversity)
        if self.options.must_contain:
            # As they stand in the middle of a text, where some tokenizers write a word differently.
            start = len(model.tokenizer.encode(prompts[0])) if prompts and model.prompting.continues else 0
            phrases = [
                model.tokenizer.encode((prompts[0] if start else "") + phrase)[start:]
                for phrase in self.options.must_contain
            ]
            more["selection"] = generation.Containing(phrases)
        if self.options.coverage is not None:
            more["rescoring"] = generation.Coverage(self.options.coverage)
        return model.search(
            prompts,
            **more,
            beams=self.options.beams,
            samples=sampling["samples"],
            max_new_tokens=sampling["max_new_tokens"],
            length_penalty=self.options.length_penalty,
            patience=patience[self.options.patience](),
            processors=sampling["sampler"].processors,
            context=sampling["context"],
        )


class Contrast(Strategy):
    """Contrastive search: probable tokens that are unlike what was said; draws nothing."""

    streams = False
    moves_window = False

    def complete(self, model: "Model", prompts: list[str], sampling: dict[str, Any]) -> list["Completion"]:
        """See the base class."""
        return model.contrast(
            prompts,
            alpha=self.options.contrastive,
            candidates=self.options.candidates,
            max_new_tokens=sampling["max_new_tokens"],
            context=sampling["context"],
        )


class Agreement(Strategy):
    """Minimum Bayes risk: of several samples the one that the others agree with most."""

    streams = False

    def complete(self, model: "Model", prompts: list[str], sampling: dict[str, Any]) -> list["Completion"]:
        """See the base class; the score is the mean chrF against all samples."""
        from lit_transformer.generation import minimum_bayes_risk

        samples = sampling["samples"]
        drawn = model.complete(prompts, **sampling)
        found = []
        for start in range(0, len(drawn), samples):
            mine = drawn[start : start + samples]
            best, means = minimum_bayes_risk([each.text for each in mine])
            mine[best].score = means[best]
            found.append(mine[best])
        return found


class Speculation(Strategy):
    """A draft guesses some tokens at once, which the model checks in one pass."""

    streams = False
    moves_window = False

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.draft: Model | Draft | None = None
        self.acceptances: list[Acceptance] = []

    def prepare(self, model: "Model") -> None:
        """Reads the draft's checkpoint."""
        import lit_transformer
        from lit_transformer.generation import PromptLookup

        if self.options.draft is None:
            self.draft = PromptLookup()
        else:
            self.draft = lit_transformer.load(self.options.draft, self.options.device)

    def complete(self, model: "Model", prompts: list[str], sampling: dict[str, Any]) -> list["Completion"]:
        """See the base class."""
        assert self.draft is not None
        sampling = dict(sampling)
        samples, stop = sampling.pop("samples"), sampling.pop("stop")
        repeated = [prompt for prompt in prompts for _ in range(samples)]
        found, acceptance = model.speculate(repeated, self.draft, proposals=self.options.proposals, **sampling)
        self.acceptances.append(acceptance)
        for completion in found:
            completion.prompt, completion.sample = divmod(completion.prompt, samples)
            ends = [at for at in map(completion.text.find, stop) if at >= 0]
            if ends:
                completion.text, completion.reason = completion.text[: min(ends)], "stop string"
        return found

    def report(self) -> str | None:
        """How often the draft was right."""
        accepted, proposed, passes = (
            sum(getattr(each, name) for each in self.acceptances) for name in ("accepted", "proposed", "passes")
        )
        return f"{accepted:,} of {proposed:,} guessed tokens were right ({accepted / max(1, proposed):.1%}); " \
               f"{passes:,} passes of the model"  # fmt: skip


def add_strategy_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    group = parser.add_argument_group("other ways to find the text")
    add = group.add_argument
    add("--beams", type=int, metavar="N", help="search for the most probable text, keeping N open; draws nothing")
    add("--length_penalty", type=float, default=1.0, metavar="X", help="beams are compared by log-probability / "
        "length^X (default: %(default)s)")  # fmt: skip
    add("--patience", default="likely", choices=("eager", "likely", "certain"), help="end the search with the first N "
        "texts, when better ones are not likely (default), or when there are none for certain")  # fmt: skip
    add("--diverse", type=int, metavar="G", help="let the beams search in G groups, which avoid each other's tokens")
    add("--diversity", type=float, default=0.5, metavar="X", help="what a token loses for each group that took it "
        "(default: %(default)s)")  # fmt: skip
    add("--must_contain", action="append", default=[], metavar="TEXT", help="only beams that contain this; may be "
        "repeated")  # fmt: skip
    add("--coverage", type=float, metavar="X", help="prefer beams of an encoder-decoder that look at the whole source")
    add("--contrastive", type=float, metavar="ALPHA", help="take probable tokens that are unlike what was said, by so "
        "much (0.6, say); draws nothing")  # fmt: skip
    add("--candidates", type=int, default=4, metavar="N", help="tokens that --contrastive looks at (default: 4)")
    add("--mbr", action="store_true", help="of --num_samples texts, the one that the others agree with most (chrF)")
    add("--draft", metavar="PATH", help="a checkpoint file, or a run folder, of a smaller model with the same "
        "tokenizer: guesses tokens, which takes less time and changes nothing else")  # fmt: skip
    add("--prompt_lookup", action="store_true", help="guess what followed the last tokens when they occurred before")
    add("--proposals", type=int, default=4, metavar="N", help="tokens guessed at once (default: %(default)s)")


def strategy_of(options: argparse.Namespace, interactive: bool) -> Strategy:
    """The strategy that the options say.

    Raises:
        UserError: Options that exclude each other.
    """
    names = ("beams", "contrastive", "mbr", "draft", "prompt_lookup")
    chosen = [name for name in names if getattr(options, name) not in (None, False)]
    if len(chosen) > 1:
        raise UserError(f"--{chosen[0]} and --{chosen[1]}: only one of them says how the text is found")
    if options.beams is None:
        for name in ("diverse", "coverage", "must_contain"):
            if getattr(options, name) not in (None, []):
                raise UserError(f"--{name}: belongs to --beams, which is not given")
    if options.beams is not None:
        if options.stop or interactive:
            raise UserError("--beams: takes --prompt or --prompts, and no --stop")
        if options.diverse is not None and options.must_contain:
            raise UserError("--diverse and --must_contain: only one of them says which beams go on")
        strategy: Strategy = Search(options)
    elif options.contrastive is not None:
        if options.stop or options.num_samples > 1:
            raise UserError("--contrastive: draws nothing, and takes neither --num_samples nor --stop")
        strategy = Contrast(options)
    elif options.mbr:
        if options.num_samples < 2:
            raise UserError("--mbr: needs --num_samples of 2 at least, to choose from")
        strategy = Agreement(options)
    elif chosen:
        if options.proposals < 1:
            raise UserError(f"--proposals: is {options.proposals}, must be at least 1")
        strategy = Speculation(options)
    else:
        return Strategy(options)
    if options.log_probabilities:
        raise UserError(f"--log_probabilities: not with --{chosen[0]}")
    return strategy
