"""The errors that end a command with one line, and the exit codes of ``lit-transformer``."""

EXIT_DONE = 0
EXIT_USER = 2
EXIT_ENVIRONMENT = 3
EXIT_DIVERGED = 4
EXIT_PREEMPTED = 75


class LitTransformerError(Exception):
    """An error with a one-line message that names file, key or row and the remedy."""

    exit_code = 1
    quiet = False
    """Whether another rank tells the user."""
    said_by = ""
    """The rank that it concerns."""


class UserError(LitTransformerError, ValueError):
    """The user's mistake: recipe, command line, data or checkpoint."""

    exit_code = EXIT_USER


class EnvironmentFault(LitTransformerError, OSError):
    """The machine's fault: a full disk, a missing permission."""

    exit_code = EXIT_ENVIRONMENT


class Diverged(LitTransformerError, ArithmeticError):
    """The loss is not finite and the run was told to stop."""

    exit_code = EXIT_DIVERGED


class Preempted(LitTransformerError):
    """Stopped by a signal after writing a checkpoint; ``--resume`` goes on."""

    exit_code = EXIT_PREEMPTED
