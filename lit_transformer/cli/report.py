"""``lit-transformer report``: a study's report, written again from its results."""

import importlib.util

from lit_transformer.cli.options import OptionParser
from lit_transformer.errors import EXIT_DONE, UserError


def run(argv: list[str]) -> int:
    """Runs the verb."""
    parser = OptionParser(
        "report",
        "Write the report of a study again, from what its cells have written so far; nothing is trained.",
        "lit-transformer report --output runs/studies/positions",
    )
    add = parser.add_argument
    add("--output", required=True, metavar="FOLDER", help="the study's folder")
    add("--allow", action="append", default=[], metavar="PACKAGE",
        help="let the study name figures and claims of this package of yours; may be repeated")  # fmt: skip
    options = parser.parse_args(argv)
    if importlib.util.find_spec("scipy") is None:
        raise UserError("report: its intervals and tests need scipy; pip install 'lit-transformer[studies]'")
    from lit_transformer.studies.report import write_report

    print(write_report(options.output, options.allow))
    return EXIT_DONE
