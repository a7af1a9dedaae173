"""The report of a study: one page, a summary, CSV files; a pure function of what its cells have written."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from lit_transformer.analysis.chart import Chart
from lit_transformer.errors import EnvironmentFault
from lit_transformer.studies.costs import cost
from lit_transformer.studies.exports import curves_csv, results_csv
from lit_transformer.studies.figures import NothingToDraw
from lit_transformer.studies.results import Results
from lit_transformer.studies.tables import (
    Table,
    alone,
    arms,
    claims,
    compared,
    glossary,
    overview,
    split_measures,
    troubles,
)
from lit_transformer.studies.worker import write_whole


def write_report(folder: str | Path, allow: Sequence[str] = ()) -> Path:
    """Writes ``report/`` of a study's folder; nothing is trained, and the same results give the same bytes.

    Args:
        folder: The study's folder.
        allow: Packages of one's own whose figures and claims it may name.

    Returns:
        The page.

    Raises:
        UserError: There is no study in the folder, or it names what may not be named: it may come from anywhere.
    """
    results = Results(folder, allow)
    report = Report(results)
    texts = {
        "results.csv": results_csv(results),
        "curves.csv": curves_csv(results),
        "summary.md": report.markdown(),
        **{f"figures/{number:02}.svg": chart.svg + "\n" for number, chart in enumerate(report.charts, 1)},
        "report.html": report.html(),
    }
    # Only now, so that an older report stays where this one cannot be computed.
    target = results.folder / "report"
    try:
        (target / "figures").mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_whole(target / name, text)
        for old in (target / "figures").glob("*.svg"):
            if f"figures/{old.name}" not in texts:
                old.unlink()
    except OSError as error:
        raise EnvironmentFault(f"{target}: cannot be written: {error.strerror or error}") from error
    return target / "report.html"


def draw(folder: str | Path, allow: Sequence[str] = ()) -> list[Chart]:
    """The figures of a study's report, for a notebook, which shows each as it is: ``draw("runs/studies/positions")``.

    Args:
        folder: The study's folder.
        allow: Packages of one's own whose figures it may name.

    Raises:
        UserError: There is no study in the folder, or it names what may not be named.
    """
    charts, _ = _drawn(Results(folder, allow))
    return charts


def _drawn(results: Results) -> tuple[list[Chart], list[str]]:
    """All charts, and why some figures have none."""
    charts: list[Chart] = []
    absent = []
    for figure in results.figures:
        why, before = "nothing was measured for it", len(charts)
        try:
            charts += figure.charts(results)
        except NothingToDraw as error:
            why = str(error)
        if len(charts) == before:
            title = figure.title or figure.default_title
            absent.append(f"nothing is drawn for the figure {type(figure).__name__} ({title}): {why}")
    return charts, absent


class Report:
    """What the page and the summary say.

    Args:
        results: What the study found.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self.study = results.study
        several, single, nothing = split_measures(results)
        self.absent = [f"no cell has a number for the measure {each.name} ({each})" for each in nothing]
        self.charts, why = _drawn(results)
        self.absent += why
        self.claims = _once(claims(results))
        self.troubles = troubles(results)
        self.glossary = glossary(results)
        self.overview = [overview(results, setting, several) for setting in results.settings if len(several) > 1]
        self.compared = {
            str(measure.name): found for measure in several
            if (found := [table for setting in results.settings
                          if (table := compared(results, setting, measure)) is not None])
        }  # fmt: skip
        """The tables of each measure, one for each setting."""
        self.alone = [alone(results, arm, measures) for arm, measures in single.items()]
        *costs, last = [cost(results, setting) for setting in results.settings]
        self.costs = [*(replace(table, note="") for table in costs), last]  # what they say below, said once

    @property
    def state(self) -> str:
        """How much of the study there is."""
        outcomes = [outcome.status for outcome in self.results.outcomes]
        done, total = sum(status in ("done", "diverged") for status in outcomes), len(outcomes)
        settings = len(self.results.settings)
        text = f"{done} of {total} cells: {len(self.results.arms)} arms, "
        text += f"{settings} settings, " if settings > 1 else ""
        seeds = ", ".join(map(str, self.study["seeds"]))
        text += f"{len(self.study['seeds'])} seeds ({seeds})" if len(self.study["seeds"]) > 1 else f"one seed ({seeds})"
        if diverged := outcomes.count("diverged"):
            text += f"; {diverged} diverged"
        if self.study["dropped"]:
            text += f"; {self.study['dropped']} combinations of the grid are left out"
        return text

    @property
    def setup(self) -> list[str]:
        """How it was done, in lines."""
        recipe = " + ".join(self.study["recipe"])
        lines = [f"recipe: {recipe}", f"compared with: {self.study['baseline']}"]
        lines += [f"left out: {_said(pattern)}" for pattern in self.study["left_out"]]
        versions = {json.dumps(each.results["versions"], sort_keys=True) for each in self.results.outcomes
                    if each.results}  # fmt: skip
        for text in sorted(versions):
            lines.append("computed by: " + ", ".join(f"{k} {v}" for k, v in json.loads(text).items()))
        match = dict(self.study["match"])
        apart = match.pop("apart", {})
        allowed = {name: f"within {most:.1%}" for name, most in match.items() if most is not None}
        for name in allowed.keys() & apart.keys():
            allowed[name] += f" but for {', '.join(apart[name])}"
        lines.append("matched: " + (_said(allowed) or "nothing"))
        return lines

    @property
    def method(self) -> str:
        """What the numbers mean."""
        if len(self.study["seeds"]) < 2:
            return "With one seed there are no intervals and no tests: another seed may turn every difference round."
        return (
            "± is half of the 95 % confidence interval of the mean over seeds (Student's t). Differences are taken "
            "seed by seed; p is that of the two-sided paired t-test, p (Holm) the same corrected for all arms of its "
            "table. "
            "An interval says nothing about other data, sizes or budgets."
        )

    def markdown(self) -> str:
        """The summary."""
        lines = [f"# {self.study['question']}", "", self.state + ".", ""]
        lines += [f"- {line}" for line in self.setup] + [""]
        lines += [*(f"- {line}" for line in self.absent), ""] if self.absent else []
        details = [table for tables in self.compared.values() for table in tables]
        tables = [self.claims, *self.overview, *self.alone, *details, *self.costs, self.troubles]
        for table in [*tables, arms(self.results), *self.glossary]:
            if table is not None:
                lines += [f"## {table.title}", "", *_markdown(table), ""]
                lines += [table.note, ""] if table.note else []
        return "\n".join([*lines, self.method, ""])

    def html(self) -> str:
        """The page."""
        page = files("lit_transformer.studies").joinpath("page")
        shell, style, script = (
            page.joinpath(n).read_text(encoding="utf-8") for n in ("page.html", "page.css", "page.js")
        )
        return (
            shell.replace("{{digest}}", _digest(script))
            .replace("{{style_digest}}", _digest(style))
            .replace("{{title}}", escape(self.study["question"]))
            .replace("{{style}}", style)
            .replace("{{script}}", script)
            .replace("{{body}}", self._body())  # last: what a study says must not be looked through for names
        )

    def _body(self) -> str:
        parts = [
            f"<h1>{escape(self.study['question'])}</h1>",
            f'<p class="faint">study {escape(self.study["name"])}: {escape(self.state)}</p>',
        ]
        parts += [f'<p class="fails">{escape(line)}</p>' for line in self.absent]
        sections: list[tuple[str, str, list[str]]] = []
        if self.claims is not None:
            sections.append(("claims", "What was expected", [_html(self.claims, False)]))
        if self.charts:
            sections.append(("figures", "Figures", [f"<figure>{chart.svg}</figure>" for chart in self.charts]))
        sections.append(("arms", "Arms compared", self._arms()))
        measures, steps = map(_html, self.glossary)
        sections.append(("words", "What is measured", [measures, _folded("what is done after training", steps, False)]))
        sections.append(("cost", "What it took", list(map(_html, self.costs))))
        if self.troubles is not None:
            sections.append(("troubles", "What did not end as the rest", [_html(self.troubles, False)]))
        sections.append(("recipes", "Recipes, versions, seeds", self._recipes()))
        parts.append("<nav>" + "".join(f'<a href="#{key}">{name}</a>' for key, name, _ in sections) + "</nav>")
        for key, name, inner in sections:
            parts.append(f'<section id="{key}"><h2>{name}</h2>{"".join(inner)}</section>')
        return "\n".join(parts)

    def _arms(self) -> list[str]:
        """The means of all, then each measure by itself: open where there are few."""
        note = f'<p class="note">{self.method}</p>'
        parts = [*map(_html, self.overview), *map(_html, self.alone), note]
        notes = self.study.get("notes", {})
        for name, tables in self.compared.items():
            said = f'<p class="note">{escape(notes[name])}</p>' if name in notes else ""
            inner = said + "".join(map(_html, tables))
            measure = self.results.measure(name)
            parts.append(_folded(f"{name}: {measure}", inner, len(self.compared) <= 2))
        return parts

    def _recipes(self) -> list[str]:
        parts = ["<ul>" + "".join(f"<li>{escape(line)}</li>" for line in self.setup) + "</ul>"]
        parts.append(_html(arms(self.results)))
        said = {key: self.study[key] for key in ("recipe", "common", "arms", "grid", "seeds", "steps", "measures")}
        parts.append(_details("the study", yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=110)))
        first = self.study["seeds"][0]
        for outcome in self.results.outcomes:
            if outcome.seed == first and outcome.results.get("recipe"):
                parts.append(_details(f"{outcome.name}, every default filled in", outcome.results["recipe"]))
        return parts


def _once(table: Table | None) -> Table | None:
    """The table without names that stand in the row above already: a claim is said once for all settings."""
    if table is None:
        return None
    above = ["", *(row[0] for row in table.rows)]
    rows = [["" if row[0] == before else row[0], *row[1:]] for before, row in zip(above, table.rows, strict=False)]
    return replace(table, rows=rows)


def _details(title: str, text: str) -> str:
    return f'<details class="recipe"><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>'


def _folded(title: str, inner: str, unfolded: bool) -> str:
    """HTML that a click unfolds."""
    return f"<details{' open' if unfolded else ''}><summary>{escape(title)}</summary>{inner}</details>"


def _said(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _markdown(table: Table) -> list[str]:
    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    kinds = table.classes.get(0, ["text", *[""] * (len(table.columns) - 1)])
    rule = ["---" if _text(kind) else "---:" for kind in kinds]
    return [row(table.columns), "|" + "|".join(rule) + "|", *map(row, table.rows)]


def _html(table: Table, titled: bool = True) -> str:
    usual = ["text", *[""] * (len(table.columns) - 1)]
    kinds = table.classes.get(0, usual)
    head = "".join(
        f'<th class="{_text(kind)}">{escape(name)}</th>' for name, kind in zip(table.columns, kinds, strict=True)
    )
    rows = []
    for number, row in enumerate(table.rows):
        kinds = table.classes.get(number, usual)
        cells = "".join(f'<td class="{kind}">{escape(cell)}</td>' for cell, kind in zip(row, kinds, strict=True))
        rows.append(f'<tr class="base">{cells}</tr>' if number == table.marked else f"<tr>{cells}</tr>")
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    title = f"<h3>{escape(table.title)}</h3>" if titled else ""
    return (f'{title}<div class="scroll"><table><thead><tr>{head}</tr></thead>'
            f'<tbody>{"".join(rows)}</tbody></table></div>{note}')  # fmt: skip


def _text(kind: str) -> str:
    return "text" if "text" in kind.split() else ""


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
