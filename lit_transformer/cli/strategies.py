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
        return model.search(
            prompts,
            beams=self.options.beams,
            samples=sampling["samples"],
            max_new_tokens=sampling["max_new_tokens"],
            length_penalty=self.options.length_penalty,
            patience=patience[self.options.patience](),
            processors=sampling["sampler"].processors,
            context=sampling["context"],
        )


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
    add("--draft", metavar="PATH", help="a checkpoint file, or a run folder, of a smaller model with the same "
        "tokenizer: guesses tokens, which takes less time and changes nothing else")  # fmt: skip
    add("--prompt_lookup", action="store_true", help="guess what followed the last tokens when they occurred before")
    add("--proposals", type=int, default=4, metavar="N", help="tokens guessed at once (default: %(default)s)")


def strategy_of(options: argparse.Namespace, interactive: bool) -> Strategy:
    """The strategy that the options say.

    Raises:
        UserError: Options that exclude each other.
    """
    chosen = [name for name in ("beams", "draft", "prompt_lookup") if getattr(options, name) not in (None, False)]
    if len(chosen) > 1:
        raise UserError(f"--{chosen[0]} and --{chosen[1]}: only one of them says how the text is found")
    if options.beams is not None:
        if options.stop or interactive:
            raise UserError("--beams: takes --prompt or --prompts, and no --stop")
        strategy: Strategy = Search(options)
    elif chosen:
        if options.proposals < 1:
            raise UserError(f"--proposals: is {options.proposals}, must be at least 1")
        strategy = Speculation(options)
    else:
        return Strategy(options)
    if options.log_probabilities:
        raise UserError(f"--log_probabilities: not with --{chosen[0]}")
    return strategy
