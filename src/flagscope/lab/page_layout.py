"""Writes the text of a laboratory page, and of the table of verdicts, from results.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flagscope.lab.digits import rounded

Findings = Sequence[Mapping[str, Any]]

BEGIN, END = "<!-- verdicts: written by flagscope.lab.pages -->", "<!-- end of verdicts -->"
_PAPER, _BEYOND = "The paper's claim", "Beyond the paper"
_INDEX_PAPER = "### What the paper claims"
_INDEX_BEYOND = "### What goes beyond the paper"
_VERDICTS = ("confirmed", "refuted", "open")
_WORDS = {
    "confirmed": "The paper's claim is confirmed: the measurement agrees with the prediction.",
    "refuted": "The paper's claim is refuted, in part at least: see which below.",
    "open": "The paper's claim is open: the intervals do not decide.",
    None: "The paper makes no such claim: every part goes beyond it.",
}


def page_text(content: Mapping[str, Any], *, table: str | None) -> str:
    """The page of one experiment: the paper's claim, what goes beyond it, figures, method.

    Parameters
    ----------
    content
        Content of results.json.
    table
        Name of the table next to the page, for a link; None without a table.
    """
    papers, further = _sections(content["findings"])
    parts = [
        f"# {_text(content['title'])}",
        f"**Claim.** {_text(content['claim'])} ({_text(content['source'])})",
        f"**{_WORDS[content['verdict']]}**"
        + (f" Beyond the paper: {_counts(further)}." if further else ""),
    ]
    for heading, findings in ((_PAPER, papers), (_BEYOND, further)):
        if findings:
            parts += [f"## {heading}", _tally(findings), *map(_finding, findings)]
    parts += [
        "## Figures",
        *(
            f"![{_text(caption)}]({content['name']}/{name}.png)\n\n*{_text(caption)}*"
            for name, caption in content["figures"].items()
        ),
    ]
    if content["background"]:
        parts += ["## Why", content["background"]]
    parts += ["## How it was measured", _method(content, table=table)]
    return "\n\n".join(parts) + "\n"


def renewed_index(text: str, results: Sequence[Mapping[str, Any]]) -> str:
    """The index with updated tables of verdicts.

    Examples
    --------
    >>> empty = f"# Lab\\n\\n{BEGIN}\\n{END}\\n"
    >>> content = {"name": "toy", "title": "A coin", "verdict": "open", "findings": []}
    >>> "[toy](toy.md)" in renewed_index(empty, [content])
    True
    """
    before, begin, rest = text.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not begin or not end:
        return text
    first, _, second = old.partition(_INDEX_BEYOND)
    papers, further = _rows(first), _rows(second)
    for content in results:
        name, title = content["name"], _cell(content["title"])
        own, beyond = _sections(content["findings"])
        for rows in (papers, further):
            rows.pop(name, None)
        start = f"| [{name}]({name}.md) | {title} |"
        if own or not beyond:
            papers[name] = f"{start} {content['verdict']} | {_counts(own)} |"
        if beyond:
            further[name] = f"{start} {_counts(beyond)} |"
    parts = [_INDEX_PAPER, _table(("experiment", "what", "verdict", "of its parts"), papers)]
    if further:
        parts += [_INDEX_BEYOND, _table(("experiment", "what", "of its parts"), further)]
    tables = "\n\n".join(parts)
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def _sections(findings: Findings) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Findings on the paper's claim, and those beyond it; unmarked ones are the paper's."""
    further = [finding for finding in findings if finding.get("beyond", False)]
    return [finding for finding in findings if not finding.get("beyond", False)], further


def _counts(findings: Findings) -> str:
    verdicts = [finding["verdict"] for finding in findings]
    return ", ".join(f"{verdicts.count(v)} {v}" for v in _VERDICTS if v in verdicts)


def _rows(table: str) -> dict[str, str]:
    """Rows of a table of the index, by the experiment to which they link."""
    return {line.split("](")[0].strip("| ["): line for line in table.splitlines() if "](" in line}


def _table(columns: Sequence[str], rows: Mapping[str, str]) -> str:
    head = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join([*head, *(rows[name] for name in sorted(rows))])


def _tally(findings: Findings) -> str:
    lines = ["| part of the claim | verdict |", "|---|---|"]
    lines += [f"| {_cell(f['claim'])} | {f['verdict']} |" for f in findings]
    return "\n".join(lines)


def _finding(finding: Mapping[str, Any]) -> str:
    predicted = finding["prediction"]
    source = f" ({_text(predicted['source'])})" if predicted["source"] else ""
    lines = [
        f"### {_text(finding['claim'])}",
        "",
        f"**{finding['verdict'].capitalize()}.** Predicted: {_text(predicted['text'])}{source}.",
        "",
    ]
    if finding["estimates"]:
        lines += ["| measured | value | 95 % interval | n |", "|---|---:|---:|---:|"]
        lines += [_estimate(estimate) for estimate in finding["estimates"]]
        lines.append("")
    return "\n".join([*lines, _text(finding["words"])])


def _estimate(e: Mapping[str, Any]) -> str:
    value, low, high = rounded(e["value"], e["low"], e["high"])
    ends = f"{low} … {high}" if low else "none"
    return f"| {_cell(e['name'])} | {value} | {ends} | {e['n']} |"


def _method(content: Mapping[str, Any], *, table: str | None) -> str:
    settings = content["settings"]
    command = ["flagscope lab", content["name"]]
    if settings["seeds"] is not None:
        command.append(f"--seeds {settings['seeds']}")
    if settings["quick"]:
        command.append("--quick")
    if settings["data"] is not None:
        command.append(f"--data {Path(settings['data']).name}")
    run = content["run"]
    where = (
        f"Every number is in [{table}]({content['name']}/{table})."
        if table
        else "The command writes every number to table.csv."
    )
    rule = content.get("rank_rule")
    return (
        f"```sh\n{' '.join(command)}\n```\n\n"
        f"{len(content['cells'])} cells, {run['core_seconds'] / 60:.1f} core-minutes of a budget "
        f"of {run['budget_minutes']:g}, flagscope {content['version']}{_made_with(run)}. "
        + (f"Dominant spaces have the dimensions of the rank rule `{rule}`. " if rule else "")
        + f"Prediction and rule of each verdict stand in the code of the experiment. {where}"
    )


def _made_with(run: Mapping[str, Any]) -> str:
    """Text with the versions of Python and PyTorch, which results of earlier releases lack."""
    return f", Python {run['python']}, PyTorch {run['torch']}" if "python" in run else ""


def _text(text: str) -> str:
    """Text with the characters of Markdown's syntax escaped."""
    for character in ("\\", "*", "`", "[", "]"):
        text = text.replace(character, f"\\{character}")
    return text.replace("<", "&lt;")


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|")
