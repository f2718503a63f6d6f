"""What the checks find, and what all of it together means: a table, exit code, JSON and parameters for this unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from rich.console import Console
from rich.table import Table
from rich.text import Text


class Verdict(Enum):
    PASS = "PASS"
    WARN = "WARN"  # works, but somebody should know
    FAIL = "FAIL"  # the nodes would refuse this, or the arms would be commanded by two
    SKIP = "SKIP"  # not looked at; `seen` says why


STYLES = {Verdict.PASS: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red", Verdict.SKIP: "dim"}


@dataclass(frozen=True)
class Override:
    """A parameter that makes a node fit this unit."""

    node: str
    name: str
    value: str | bool | list[str]


@dataclass(frozen=True)
class Finding:
    """`name` is "<what>: <which of its properties>". `todo` may also come with a PASS, as a note."""

    name: str
    verdict: Verdict
    seen: str
    expected: str = ""
    todo: str = ""
    overrides: tuple[Override, ...] = ()


@dataclass(frozen=True)
class Check:
    """One property of something, and what is expected of it; makes the finding."""

    name: str
    expected: str = ""

    def passed(self, seen: str, note: str = "") -> Finding:
        return self.finding(Verdict.PASS, seen, note)

    def warn(self, seen: str, todo: str = "") -> Finding:
        return self.finding(Verdict.WARN, seen, todo)

    def fail(self, seen: str, todo: str = "", *overrides: Override) -> Finding:
        return self.finding(Verdict.FAIL, seen, todo, *overrides)

    def skip(self, why: str) -> Finding:
        return Finding(self.name, Verdict.SKIP, why)

    def finding(self, verdict: Verdict, seen: str, todo: str = "", *overrides: Override) -> Finding:
        return Finding(self.name, verdict, seen, self.expected, todo, overrides)


def overrides(findings: Sequence[Finding]) -> dict[str, dict[str, str | bool | list[str]]]:
    """Node -> parameter -> value, of all findings; lists that were asked for apart are one."""
    nodes: dict[str, dict] = {}
    for finding in findings:
        for item in finding.overrides:
            values, value = nodes.setdefault(item.node, {}), item.value
            values[item.name] = sorted({*values.get(item.name, ()), *value}) if isinstance(value, list) else value
    return nodes


def exit_code(findings: Sequence[Finding]) -> int:
    """1 when anything failed, else 0."""
    return int(any(finding.verdict is Verdict.FAIL for finding in findings))


def as_json(robot: str, findings: Sequence[Finding]) -> dict:
    keys = ("name", "seen", "expected", "todo")
    return {
        "robot": robot,
        "exit_code": exit_code(findings),
        "counts": _counts(findings),
        "findings": [
            {"verdict": finding.verdict.value, **{key: getattr(finding, key) for key in keys}} for finding in findings
        ],
        "parameters": overrides(findings),
    }


def show(findings: Sequence[Finding], console: Console, *, hints: bool) -> None:
    """One row a finding, then the parameters that this unit needs and a line that sums up.

    hints: what to do below each row that has something to do.
    """
    gathered = _gathered(findings)
    cells = [(finding.seen + (f"\n-> {finding.todo}" if hints and finding.todo else "")) for finding in gathered]
    name = max((len(finding.name) for finding in gathered), default=0)
    half = (console.width - name - 10) // 2
    # Topics and commands are to be copied: in a narrow terminal lines wrap, words do not.
    widths = [4, name, max(half, _longest_word(cells)), max(half, _longest_word([f.expected for f in gathered]))]
    rows = Table.grid(padding=(0, 2, 0, 0))
    for width in widths:
        rows.add_column(width=width)
    for finding, cell in zip(gathered, cells, strict=True):
        rows.add_row(Text(finding.verdict.value, STYLES[finding.verdict]), finding.name, cell, finding.expected)
    console.width = max(console.width, sum(widths) + 8)
    console.print(rows, highlight=False, markup=False)
    lines = []
    for node, values in overrides(findings).items():
        lines += [f"{node}:", *(f"  {name}: {value}" for name, value in values.items())]
    if lines:
        lines = ["Parameters for this unit (--write-params DIR, then params_dir:=DIR):", *lines, ""]
    console.print("\n".join(["", *lines, _summary(findings)]), highlight=False, markup=False, soft_wrap=True)


def _longest_word(texts: Sequence[str]) -> int:
    return max((len(word) for text in texts for word in text.split()), default=0)


def _summary(findings: Sequence[Finding]) -> str:
    counts = ", ".join(f"{number} {verdict}" for verdict, number in _counts(findings).items())
    failed = [finding.name for finding in findings if finding.verdict is Verdict.FAIL]
    return f"{counts}. " + (f"Not ready: {', '.join(failed)}" if failed else "Ready.")


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    counter = Counter(finding.verdict for finding in findings)
    return {verdict.value: counter[verdict] for verdict in Verdict}


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
