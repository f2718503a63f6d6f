"""Findings as a table for a terminal; coloured where there is one."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import replace

from r1lite_bringup.preflight.verdict import Finding, Verdict, count, overrides

COLOURS = {Verdict.PASS: "32", Verdict.WARN: "33", Verdict.FAIL: "31;1", Verdict.SKIP: "2"}
LEAST_WIDTH = 24


def text(findings: Sequence[Finding], *, colour: bool, hints: bool, width: int | None = None) -> str:
    """One row a finding, then the parameters that this unit needs and a line that sums up.

    hints: what to do below each row that has something to do.
    """
    width = width or shutil.get_terminal_size((120, 24)).columns
    first = max((len(finding.name) for finding in findings), default=0)
    half = max((width - first - 10) // 2, LEAST_WIDTH)
    lines = []
    for finding in _gathered(findings):
        lines += _row(finding, first, half, colour)
        if hints and finding.todo:
            lines += [
                f"{'':6}{'->' if number == 0 else '  '} {part}"
                for number, part in enumerate(_wrap(finding.todo, max(width - 11, LEAST_WIDTH)))
            ]
    return "\n".join([*lines, "", *_parameters(findings), summary(findings)])


def summary(findings: Sequence[Finding]) -> str:
    counts = ", ".join(f"{number} {verdict.value}" for verdict, number in count(findings).items())
    failed = [finding.name for finding in findings if finding.verdict is Verdict.FAIL]
    return f"{counts}. " + (f"Not ready: {', '.join(failed)}" if failed else "Ready.")


def _gathered(findings: Sequence[Finding]) -> list[Finding]:
    """With one row for neighbours of the same subject that were skipped for the same reason."""
    gathered: list[Finding] = []
    for finding in findings:
        before = gathered[-1] if gathered else None
        subject, _, check = finding.name.partition(": ")
        same = before and before.verdict is finding.verdict is Verdict.SKIP and before.seen == finding.seen
        if same and before.name.startswith(f"{subject}: "):
            gathered[-1] = replace(before, name=f"{before.name}, {check}")
        else:
            gathered.append(finding)
    return gathered


def _row(finding: Finding, first: int, half: int, colour: bool) -> list[str]:
    seen, expected = _wrap(finding.seen, half) or [""], _wrap(finding.expected, half)
    word = finding.verdict.value
    if colour:
        word = f"\x1b[{COLOURS[finding.verdict]}m{word}\x1b[0m"
    rows = []
    for number in range(max(len(seen), len(expected))):
        head = f"{word}  {finding.name:{first}}" if number == 0 else " " * (first + 6)
        cells = [cell[number] if number < len(cell) else "" for cell in (seen, expected)]
        rows.append(f"{head}  {cells[0]:{half}}  {cells[1]}".rstrip())
    return rows


def _wrap(words: str, width: int) -> list[str]:
    """Topics and commands are to be copied, so they stay whole."""
    return textwrap.wrap(words, width, break_long_words=False, break_on_hyphens=False)


def _parameters(findings: Sequence[Finding]) -> list[str]:
    lines = []
    for node, values in overrides(findings).items():
        lines.append(f"{node}:")
        lines += [f"  {name}: {value}" for name, value in values.items()]
    return ["Parameters for this unit (--write-params DIR, then params_dir:=DIR):", *lines, ""] if lines else []
