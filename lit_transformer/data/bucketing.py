"""Batches of rows of unlike length: as many rows as a budget of tokens holds, of about one length, in a fixed order."""

import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lit_transformer.data.batch import PADDING, Batch
from lit_transformer.data.loaders import ALONE, EndlessLoader, Share, read_ahead
from lit_transformer.data.packing import seeded
from lit_transformer.data.token_file import Ints
from lit_transformer.errors import UserError


class RowBatches:
    """Base of what the loaders here read: rows of unlike length, and batches of some of them.

    A sample id is ``epoch * len(rows) + row``. Everything is a pure function of ids and epochs: what is drawn at random
    (sub-words, masks) is drawn from a generator seeded by the id or the epoch.
    """

    def __len__(self) -> int:
        raise NotImplementedError

    def lengths(self, epoch: int) -> Ints:
        """(N,) tokens of each row in an epoch, or (N, K) of its K sequences (source, target), before rounding."""
        raise NotImplementedError

    def target_counts(self, ids: Ints) -> Ints:
        """(B,) number of targets of each sample; 0 for rows of padding (id -1)."""
        raise NotImplementedError

    def batch(self, ids: Ints, window_tokens: int | None = None) -> Batch:
        """The samples as a batch; ``window_tokens`` is left out for the number of targets in the batch itself.

        A row of padding (id -1) has no target, and the document -1 everywhere. ``TokenBudget.padded`` says how wide.
        """
        raise NotImplementedError

    @property
    def identity(self) -> dict[str, int | str]:
        """What must be the same for the place in the order to mean the same, by the names of the recipe."""
        raise NotImplementedError


class TokenBudget:
    """Fills a batch with rows of about one length up to a number of tokens, padding included.

    Rows are sorted by length, in a random order among equal ones, and cut into batches from the longest down; so all
    but the last batch come close to the budget, which balances the ranks, and shapes repeat.

    Args:
        tokens: Most tokens of a batch on each rank; of pairs, sources and targets together.
        multiple: Lengths are rounded up to a multiple of this many tokens.
        rows: Most rows of a batch; left out: no limit.
    """

    def __init__(self, tokens: int = 4096, multiple: int = 8, rows: int | None = None) -> None:
        for name, value in (("tokens", tokens), ("multiple", multiple), ("rows", rows)):
            if value is not None and value < 1:
                raise UserError(f"data.batches.{name}: is {value}, must be at least 1")
        self.tokens = tokens
        self.multiple = multiple
        self.rows = rows

    def together(self, ranks: int) -> int:
        """How many training batches so many ranks read at a time."""
        return ranks

    def own(self, batches: list[Ints], share: Share) -> Ints:
        """What a rank reads of the batches that are read at a time."""
        return batches[share.rank]

    def dealt(self, lengths: Ints, ranks: int) -> list[Ints]:
        """The batches that so many ranks share in evaluation; see ``cut``."""
        return self.cut(lengths, seeded(0), ranks)

    def padded(self, lengths: Ints) -> Ints:
        """Lengths as they stand in a batch."""
        return -(-lengths // self.multiple) * self.multiple

    def widths(self, lengths: Ints) -> Ints:
        """(K,) padded lengths of a batch of rows with these lengths (B, K)."""
        return np.asarray(self.padded(lengths.max(axis=0)))

    def cut(self, lengths: Ints, draw: np.random.RandomState, ranks: int = 1) -> list[Ints]:
        """Numbers of the rows of each batch, longest first.

        Args:
            lengths: (N,) or (N, K) tokens of each row.
            draw: Decides who stands beside whom among rows of one length.
            ranks: Number of ranks that will share each batch.

        Raises:
            UserError: A row alone is more than the budget.
        """
        lengths = lengths.reshape(len(lengths), -1)
        shuffled = draw.permutation(len(lengths))
        # The sum first: it is what the budget counts. Within it, sources of one length stand together.
        keys = self.padded(lengths[shuffled])
        order = shuffled[np.lexsort((keys[:, 0], keys.sum(axis=1)))[::-1]]
        batches, start = [], 0
        while start < len(order):
            size, widths = 1, self.widths(lengths[order[start : start + 1]])
            if (needed := int(widths.sum())) > self.tokens:
                raise UserError(
                    f"data.batches.tokens: is {self.tokens}, and the longest row takes {needed} tokens; raise it, or "
                    "cut rows by data.max_len"
                )
            # Widths grow with the rows where there are several sequences, so the size that fits is searched for.
            limit = self.rows or len(order)
            high = min(limit * ranks, self.tokens // needed * ranks, len(order) - start)
            while size < high:
                middle = (size + high + 1) // 2
                widths = self.widths(lengths[order[start : start + middle]])
                fits = int(widths.sum()) * -(-middle // ranks) <= self.tokens
                size, high = (middle, high) if fits else (size, middle - 1)
            batches.append(order[start : start + size])
            start += size
        return batches

    def padding(self, lengths: Ints, batches: list[Ints]) -> float:
        """Share of the places of these batches that hold no token."""
        lengths = lengths.reshape(len(lengths), -1)
        places = sum(len(batch) * int(self.widths(lengths[batch]).sum()) for batch in batches)
        return 1 - int(lengths.sum()) / max(1, places)


class BudgetAcrossDevices(TokenBudget):
    """A budget of all devices that see different data together: each batch is cut as for one device and its rows are
    dealt out, the first to the first device, the second to the second, ...

    The same updates on any number of devices, where a ``TokenBudget`` is of each device. Where rows do not come out
    even, some devices get a row of padding: keep the budget at many rows for each.

    Args:
        tokens: Most tokens of a batch on all ranks, padding included; of pairs, sources and targets together.
        multiple: Lengths are rounded up to a multiple of this many tokens.
        rows: Most rows of a batch on all ranks; left out: no limit.
    """

    def together(self, ranks: int) -> int:
        """See the base class."""
        return 1

    def own(self, batches: list[Ints], share: Share) -> Ints:
        """See the base class."""
        return dealt_out(batches[0], share)

    def dealt(self, lengths: Ints, ranks: int) -> list[Ints]:
        """See the base class."""
        return self.cut(lengths, seeded(0))


def dealt_out(batch: Ints, share: Share) -> Ints:
    """This rank's rows of a batch, as many as every other's; the last may be padding (-1)."""
    ranks = share.world_size
    even = np.concatenate([batch, np.full(-len(batch) % ranks, PADDING, dtype=np.int64)])
    return even[share.rank :: ranks]


class BucketedLoader(EndlessLoader):
    """Training batches of rows of unlike length, without end.

    A pass over the rows is cut into batches, which come in a random order; the very first batch of a run is its
    largest, so that memory trouble shows at once. Which rows are in the batch at an index of a pass is a pure function
    of (seed, pass, index): ranks deal the batches out among themselves, or the rows of each (``budget.own``). An epoch
    of the Trainer is as many whole windows as the first pass holds.

    What the base class calls a sample is a batch here; ``rows_seen`` counts as the run's clock does.

    Args:
        rows: What the batches are made of.
        budget: How rows are put together.
        seed: Decides the order.
        share: The part of this process.
        num_workers: Number of worker processes; 0 reads in this one.
    """

    def __init__(
        self, rows: RowBatches, budget: TokenBudget, seed: int, share: Share = ALONE, num_workers: int = 0
    ) -> None:
        super().__init__(1, share)
        self.rows = rows
        self.budget = budget
        self.seed = seed
        self.num_workers = num_workers
        self.rows_seen = 0
        self._passes = [(0, 0)]  # numbers of passes, each with that of its first batch, as far as planned
        self._planned: tuple[int, list[Ints]] = (-1, [])
        first = self.plan(0)
        self.batches = len(first)
        """Number of batches in the first pass; random sub-words make it differ a little between passes."""
        self.padding = budget.padding(rows.lengths(0), first)
        """Share of the places of the first pass that hold no token."""

    def plan(self, number: int) -> list[Ints]:
        """The batches of a pass, as row numbers, in their order."""
        if self._planned[0] != number:
            draw = seeded(self.seed, number, 3)
            lengths = self.rows.lengths(number)
            batches = self.budget.cut(lengths, draw)
            order = draw.permutation(len(batches)).tolist()
            if number == 0:
                longest = lengths.reshape(len(lengths), -1)
                sizes = [
                    (len(b) * int(w.sum()), int(w.max())) for b in batches for w in [self.budget.widths(longest[b])]
                ]
                order.remove(largest := sizes.index(max(sizes)))
                order.insert(0, largest)
            self._planned = number, [batches[i] for i in order]
        return self._planned[1]

    def describe(self) -> None:
        """Tells the user, and the log of the run, what the batches are like."""
        batches = f"{self.batches:,} batches of at most {self.budget.tokens:,} tokens"
        message = f"{len(self.rows):,} rows in {batches}, {self.padding:.1%} of them padding"
        print(message, file=sys.stderr)
        logging.getLogger("lit_transformer.run").info(message)

    @property
    def global_batch(self) -> int:
        """Number of batches that all ranks read at a time."""
        return self.budget.together(self.share.world_size)

    @property
    def epoch_windows(self) -> int:
        """The first pass, rounded down."""
        return max(1, self.batches // self.window)

    @property
    def identity(self) -> dict[str, int | str]:
        """The rows, how they are put together, and the seed."""
        limit = {} if self.budget.rows is None else {"batches.rows": self.budget.rows}
        budget = {"batches.tokens": self.budget.tokens, "batches.multiple": self.budget.multiple}
        return {**self.rows.identity, **budget, **limit, "seed": self.seed}

    def read(self, first: int, end: int) -> Iterator[Batch]:
        """Makes the batches, in worker processes or here."""
        for batch in read_ahead(self.rows, self._wanted(first, end), self.num_workers):
            self.rows_seen += len(batch) * self.share.world_size
            yield batch

    def ids(self, batch: int) -> Ints:
        """The samples of the batch of this number, counted through all passes."""
        number, first = next(known for known in reversed(self._passes) if known[1] <= batch)
        while batch >= first + len(self.plan(number)):
            number, first = number + 1, first + len(self.plan(number))
            if number > self._passes[-1][0]:
                self._passes.append((number, first))
        return number * len(self.rows) + self.plan(number)[batch - first]

    def own(self, batches: list[Ints]) -> Ints:
        """What this rank reads of the batches that are read at a time."""
        return self.budget.own(batches, self.share)

    def _wanted(self, first: int, end: int) -> Iterator[tuple[Ints, int | None]]:
        start = self._epoch_start + (first - self._epoch_start) // self.window * self.window
        for window_start in range(start, end, self.window):
            window = [self.ids(batch) for batch in range(window_start, window_start + self.window)]
            tokens = sum(int(self.rows.target_counts(ids).sum()) for ids in window)
            for at in range(0, self.window, self.global_batch):
                if window_start + at >= first:
                    yield self.own(window[at : at + self.global_batch]), tokens

    def state_dict(self) -> dict[str, Any]:
        """The number of batches, and the pass that the window under way begins in."""
        window_start = self._epoch_start + (self.samples - self._epoch_start) // self.window * self.window
        while len(self._passes) > 1 and self._passes[1][1] <= window_start:
            del self._passes[0]
        place = {"samples": self.rows_seen, "batches": self.samples, "pass": list(self._passes[0])}
        return {**super().state_dict(), **place}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on after the batches delivered before."""
        super().load_state_dict({**state, "samples": state["batches"]})
        self.rows_seen = state["samples"]
        number, first = state["pass"]
        self._passes = [(number, first)]


class RowEvaluationLoader:
    """Each row once, the longest first, dealt out to the ranks; all ranks get batches of equally many rows.

    Where the rows do not come out even, the last row of some ranks is padding: no target, no document, id -1.

    Args:
        rows: What the batches are made of.
        budget: How rows are put together.
        share: The part of this process.
        num_workers: Number of worker processes; 0 reads in this one.
    """

    def __init__(self, rows: RowBatches, budget: TokenBudget, share: Share = ALONE, num_workers: int = 0) -> None:
        self.rows = rows
        self.num_workers = num_workers
        self.ids = [dealt_out(batch, share) for batch in budget.dealt(rows.lengths(0), share.world_size)]
        """The rows of each batch of this rank."""

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Batch]:
        yield from read_ahead(self.rows, ((ids, None) for ids in self.ids), self.num_workers)
