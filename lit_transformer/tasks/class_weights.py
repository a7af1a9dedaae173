"""How much a row counts in the loss, by its class."""

from lit_transformer.data.classification import Classes
from lit_transformer.errors import UserError


class ClassWeights:
    """Base of the weightings: a factor for each class.

    The task scales them so that a train row counts 1 on average: then the loss is a sum over rows divided by their
    number, which does not depend on how an accumulation window is cut.
    """

    def factors(self, classes: Classes) -> list[float]:
        """One factor a class, in the order of the classes."""
        raise NotImplementedError

    def weights(self, classes: Classes) -> list[float]:
        """The factors, scaled to a mean of 1 over the train rows."""
        factors = self.factors(classes)
        total = sum(factor * count for factor, count in zip(factors, classes.counts, strict=True))
        return [factor * sum(classes.counts) / total for factor in factors]


class Balanced(ClassWeights):
    """Rare classes count more: all classes weigh the same in sum at ``power`` 1, half-way there at 0.5.

    Args:
        power: How far to go, from 0 (nowhere) to 1.
    """

    def __init__(self, power: float = 1.0) -> None:
        if not 0 <= power <= 1:
            raise UserError(f"model.class_weights.power: is {power}, must lie between 0 and 1")
        self.power = power

    def factors(self, classes: Classes) -> list[float]:
        """See the base class."""
        return [count**-self.power for count in classes.counts]


class Given(ClassWeights):
    """Factors by the names of the classes.

    Args:
        factors: A number above 0 for each class; those not named count 1.
    """

    def __init__(self, factors: dict[str, float]) -> None:
        self.given = factors
        for name, factor in factors.items():
            if factor <= 0:
                raise UserError(f"model.class_weights.factors: {name} is {factor}, must be above 0")

    def factors(self, classes: Classes) -> list[float]:
        """See the base class.

        Raises:
            UserError: There is no such class.
        """
        for name in self.given:
            if name not in classes.names:
                there = ", ".join(classes.names)
                raise UserError(f"model.class_weights.factors: there is no class {name!r}; the classes are {there}")
        return [float(self.given.get(name, 1.0)) for name in classes.names]
