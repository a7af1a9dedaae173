"""``lit-transformer validate``: evaluate a checkpoint on the validation split."""

from lit_transformer.cli.split_metrics import print_metrics


def run(argv: list[str]) -> int:
    """Runs the verb."""
    return print_metrics("validate", "validation", argv)
