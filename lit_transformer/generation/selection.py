"""Which beams a search goes on with: patience, groups, phrases that must occur."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_transformer.errors import UserError


class Patience:
    """Base of the rules for when a prompt's search ends. All need as many finished beams as there are beams."""

    def hope(self, best: Tensor, length: int, longest: int, penalty: float) -> Tensor:
        """(B,): the best score that an open beam may still reach; the search ends where it is no better than the worst
        finished one.

        Args:
            best: (B,) log-probability of the best open beam.
            length: Its number of new tokens.
            longest: Most new tokens.
            penalty: Exponent of the length.
        """  # fmt: skip
        raise NotImplementedError


class Eager(Patience):
    """Ends as soon as enough beams are finished."""

    def hope(self, best: Tensor, length: int, longest: int, penalty: float) -> Tensor:
        """See the base class."""
        return torch.full_like(best, -torch.inf)


class Likely(Patience):
    """Ends when the open beams, as long as they are now, are no better than the finished ones."""

    def hope(self, best: Tensor, length: int, longest: int, penalty: float) -> Tensor:
        """See the base class."""
        return best.div(length**penalty)


class Certain(Patience):
    """Ends when no open beam can overtake the finished ones, whatever follows."""

    def hope(self, best: Tensor, length: int, longest: int, penalty: float) -> Tensor:
        """See the base class."""
        return best.div((longest if penalty > 0 else length) ** penalty)


@dataclass
class Beams:
    """Beams of all prompts, best first.

    Args:
        scores: (B, K) log-probabilities of open beams, or penalised scores of finished ones.
        tokens: (B, K, N) new tokens.
        lengths: (B, K) number of them.
        ended: (B, K) whether a stop id, which is not among the tokens, ended the beam.
    """

    scores: Tensor
    tokens: Tensor
    lengths: Tensor
    ended: Tensor

    @classmethod
    def none(cls, prompts: int, beams: int, steps: int, device: torch.device) -> "Beams":
        """No beams: places to be filled."""
        whole = torch.zeros(prompts, beams, dtype=torch.long, device=device)
        scores = torch.full((prompts, beams), -torch.inf, device=device)
        return cls(scores, whole.unsqueeze(-1).repeat(1, 1, steps), whole, whole.bool())

    def best(self, others: "Beams", beams: int) -> "Beams":
        """The best of these and others."""
        scores, order = torch.cat((self.scores, others.scores), 1).topk(beams, dim=1)
        tokens = torch.cat((self.tokens, others.tokens), 1)
        tokens = tokens.gather(1, order.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
        lengths = torch.cat((self.lengths, others.lengths), 1).gather(1, order)
        return Beams(scores, tokens, lengths, torch.cat((self.ended, others.ended), 1).gather(1, order))

    def where(self, condition: Tensor, others: "Beams") -> "Beams":
        """These for the prompts (B,) where the condition holds, else the others."""
        one, two = condition.view(-1, 1), condition.view(-1, 1, 1)
        return Beams(
            torch.where(one, self.scores, others.scores),
            torch.where(two, self.tokens, others.tokens),
            torch.where(one, self.lengths, others.lengths),
            torch.where(one, self.ended, others.ended),
        )


@dataclass
class Rules:
    """What a search was asked for.

    Args:
        steps: Most new tokens.
        stops: Ids that end a beam.
        penalty: Exponent of the length.
        patience: When it ends.
    """

    steps: int
    stops: Tensor
    penalty: float
    patience: Patience


class Group:
    """Beams of each prompt that compete with each other.

    Args:
        prompts: Number of prompts.
        beams: Beams of each.
        rules: What the search was asked for.
    """

    def __init__(self, prompts: int, beams: int, rules: Rules) -> None:
        device = rules.stops.device
        self.rules, self.beams = rules, beams
        self.open, self.finished = (Beams.none(prompts, beams, rules.steps, device) for _ in range(2))
        self.open.scores[:, 0] = 0.0  # all beams start alike: only one of them counts
        self.searching = torch.ones(prompts, dtype=torch.bool, device=device)

    def choose(self, log_p: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Parents and tokens (B, K) of the beams to go on with.

        Args:
            log_p: (B, K, V) log-probabilities; may be written to.
            step: Number of tokens so far.
        """
        rules, beams, size = self.rules, self.beams, log_p.shape[-1]
        scores, order = self.candidates(log_p.add_(self.open.scores.unsqueeze(-1)).flatten(1))
        parents, tokens = order // size, order % size
        stopping = torch.isin(tokens, rules.stops)
        texts = self.open.tokens.gather(1, parents.unsqueeze(-1).expand(-1, -1, rules.steps))
        ranked = torch.arange(scores.shape[1], device=scores.device) < beams
        ending = scores.masked_fill(~(self.may_end(stopping, parents) & ranked), -torch.inf)
        ended = Beams(
            ending / (step + 1) ** rules.penalty, texts, torch.full_like(tokens, step), torch.ones_like(stopping)
        )
        self.finished = self.finished.best(ended, beams).where(self.searching, self.finished)
        scores, kept = self.keep(scores.masked_fill(stopping, -torch.inf), parents, tokens)
        parents, tokens = parents.gather(1, kept), tokens.gather(1, kept)
        texts = texts.gather(1, kept.unsqueeze(-1).expand(-1, -1, rules.steps))
        texts[:, :, step] = tokens
        self.open = Beams(scores, texts, torch.full_like(tokens, step + 1), torch.zeros_like(stopping[:, :beams]))
        hope = rules.patience.hope(scores.amax(1), step + 1, rules.steps, rules.penalty)
        worst = self.finished.scores[:, -1]
        self.searching = self.searching & (worst.isinf() | (worst < hope))
        return parents, tokens

    def candidates(self, totals: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and places of the best continuations among (B, K x V).

        Enough of them that some are left to go on with, even if all stop ids of all beams are among them.
        """
        beams = self.beams
        return totals.topk(min(beams * (1 + max(1, len(self.rules.stops))), totals.shape[1]), dim=1)

    def may_end(self, stopping: Tensor, parents: Tensor) -> Tensor:
        """Which of the candidates (B, C) that stop are finished beams."""
        return stopping

    def keep(self, scores: Tensor, parents: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and numbers of the candidates (B, C) to go on with; -inf: not to be kept."""
        return scores.topk(self.beams, dim=1)

    def result(self, step: int) -> Beams:
        """The finished beams, and the open ones where the search did not end before."""
        self.open.scores /= (step + 1) ** self.rules.penalty
        return self.finished.best(self.open, self.beams).where(self.searching, self.finished)


class Selection:
    """Base of the ways to select beams, and itself the plain one: the best of all."""

    def begin(self, prompts: int, beams: int, rules: Rules) -> Sequence[Group]:
        """The groups of beams that compete."""
        return [Group(prompts, beams, rules)]

    def step(self, groups: Sequence[Group], log_p: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Parents and tokens (B, K) from log-probabilities (B, K, V)."""
        return groups[0].choose(log_p, step)


class Diverse(Selection):
    """Groups of beams that search apart; a token loses score for each earlier group that took it in the same step
    (Vijayakumar et al., 2018, arXiv:1610.02424). The scores hold what was lost.

    Args:
        groups: How many groups the beams are divided into.
        strength: What a token loses each time.
    """  # fmt: skip

    def __init__(self, groups: int, strength: float = 0.5) -> None:
        if groups < 1:
            raise UserError(f"diverse beams: groups is {groups}, must be at least 1")
        self.groups, self.strength = groups, strength

    def begin(self, prompts: int, beams: int, rules: Rules) -> Sequence[Group]:
        """See the base class."""
        if beams % self.groups:
            raise UserError(f"diverse beams: {beams} beams cannot be divided into {self.groups} groups")
        return [Group(prompts, beams // self.groups, rules) for _ in range(self.groups)]

    def step(self, groups: Sequence[Group], log_p: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """See the base class."""
        taken = torch.zeros_like(log_p[:, 0])
        parents, tokens = [], []
        for i, (group, own) in enumerate(zip(groups, log_p.chunk(self.groups, 1), strict=True)):
            chosen = group.choose(own - self.strength * taken.unsqueeze(1), step)
            parents.append(chosen[0] + i * group.beams)
            tokens.append(chosen[1])
            taken.scatter_add_(1, chosen[1], torch.ones_like(chosen[1], dtype=taken.dtype))
        return torch.cat(parents, 1), torch.cat(tokens, 1)


class Containing(Selection):
    """Only beams that contain given phrases can finish; beams are shared out among those that have said more and fewer
    of their tokens (Post & Vilar, 2018, arXiv:1804.06609). Where fewer than asked for can be found, empty ones with a
    score of -inf fill up.

    Args:
        phrases: Token ids of each phrase.
    """  # fmt: skip

    def __init__(self, phrases: Sequence[Sequence[int]]) -> None:
        if not all(phrases):
            raise UserError("phrases: one is empty")
        self.phrases = [list(phrase) for phrase in phrases]

    def begin(self, prompts: int, beams: int, rules: Rules) -> Sequence[Group]:
        """See the base class."""
        if rules.steps < sum(map(len, self.phrases)):
            raise UserError(
                f"phrases: have {sum(map(len, self.phrases))} tokens, more than max_new_tokens {rules.steps}"
            )
        return [ContainingGroup(prompts, beams, rules, self.phrases)]


class ContainingGroup(Group):
    """Beams that know how much of each phrase they have said.

    Args:
        prompts: Number of prompts.
        beams: Beams of each.
        rules: What the search was asked for.
        phrases: What must be said.
    """

    def __init__(self, prompts: int, beams: int, rules: Rules, phrases: list[list[int]]) -> None:
        super().__init__(prompts, beams, rules)
        self.phrases = phrases
        self.whole = tuple(map(len, phrases))
        self.said = [[(0,) * len(phrases)] * beams for _ in range(prompts)]

    def candidates(self, totals: Tensor) -> tuple[Tensor, Tensor]:
        """The best ones, and for each beam the next token of each phrase."""
        scores, order = super().candidates(totals)
        size = totals.shape[1] // self.beams
        wanted = [
            [
                beam * size + (phrase[n] if n < len(phrase) else phrase[0])
                for beam, said in enumerate(row)
                for phrase, n in zip(self.phrases, said, strict=True)
            ]
            for row in self.said
        ]
        more = torch.tensor(wanted, device=order.device)
        known = (more.unsqueeze(-1) == order.unsqueeze(1)).any(-1)
        known |= (more.unsqueeze(-1) == more.unsqueeze(1)).tril(-1).any(-1)
        scores = torch.cat((scores, totals.gather(1, more).masked_fill(known, -torch.inf)), 1)
        return scores, torch.cat((order, more), 1)

    def may_end(self, stopping: Tensor, parents: Tensor) -> Tensor:
        """Those that have said everything."""
        met = torch.tensor([[said == self.whole for said in row] for row in self.said], device=parents.device)
        return stopping & met.gather(1, parents)

    def keep(self, scores: Tensor, parents: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """In turn the best of those that have said most, of those that have said one token less, ..."""
        chosen, said = [], []
        for b, (row, mothers, words) in enumerate(zip(scores.tolist(), parents.tolist(), tokens.tolist(), strict=True)):
            grown = [self._advance(self.said[b][mother], word) for mother, word in zip(mothers, words, strict=True)]
            banks: dict[int, list[int]] = {}
            for i in sorted(range(len(row)), key=lambda i: -row[i]):
                if row[i] > -torch.inf:
                    banks.setdefault(sum(grown[i]), []).append(i)
            picked: list[int] = []
            while len(picked) < self.beams and any(banks.values()):
                for bank in sorted(banks, reverse=True):
                    if banks[bank] and len(picked) < self.beams:
                        picked.append(banks[bank].pop(0))
            picked += [i for i in range(len(row)) if i not in picked][: self.beams - len(picked)]
            chosen.append(picked)
            said.append([grown[i] for i in picked])
        self.said = said
        kept = torch.tensor(chosen, device=scores.device)
        return scores.gather(1, kept), kept

    def result(self, step: int) -> Beams:
        """Beams that lack something count only where no beam has it all."""
        lacks = torch.tensor(
            [[said != self.whole for said in row] for row in self.said], device=self.open.scores.device
        )
        none = self.finished.scores.isinf().all(1) & lacks.all(1)
        self.searching = self.searching | self.finished.scores[:, -1].isinf()
        self.open.scores = self.open.scores.masked_fill(lacks & ~none.unsqueeze(1), -torch.inf)
        return super().result(step)

    def _advance(self, said: tuple[int, ...], word: int) -> tuple[int, ...]:
        return tuple(
            n if n == len(phrase) else _matched(phrase, n, word) for phrase, n in zip(self.phrases, said, strict=True)
        )


def _matched(phrase: list[int], n: int, word: int) -> int:
    """How much of the phrase a text ends with, whose end matched ``n`` tokens of it before ``word`` came."""
    text = [*phrase[:n], word]
    return next(m for m in range(n + 1, -1, -1) if phrase[:m] == text[len(text) - m :])
