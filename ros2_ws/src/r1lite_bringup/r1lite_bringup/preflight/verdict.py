"""What one check found, and what all of them together mean: exit code and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    PASS = "PASS"
    WARN = "WARN"  # works, but somebody should know
    FAIL = "FAIL"  # the nodes would refuse this, or the arms would be commanded by two
    SKIP = "SKIP"  # not looked at; `seen` says why


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


def skipped(name: str, why: str) -> Finding:
    return Finding(name, Verdict.SKIP, why)


def overrides(findings: Sequence[Finding]) -> dict[str, dict[str, str | bool | list[str]]]:
    """Node -> parameter -> value, of all findings; lists that were asked for apart are one."""
    nodes: dict[str, dict] = {}
    for finding in findings:
        for item in finding.overrides:
            values, value = nodes.setdefault(item.node, {}), item.value
            values[item.name] = sorted({*values.get(item.name, ()), *value}) if isinstance(value, list) else value
    return nodes


def count(findings: Sequence[Finding]) -> dict[Verdict, int]:
    counter = Counter(finding.verdict for finding in findings)
    return {verdict: counter[verdict] for verdict in Verdict}


def exit_code(findings: Sequence[Finding]) -> int:
    """1 when anything failed, else 0."""
    return int(count(findings)[Verdict.FAIL] > 0)


def as_json(robot: str, findings: Sequence[Finding]) -> dict:
    return {
        "robot": robot,
        "exit_code": exit_code(findings),
        "counts": {verdict.value: number for verdict, number in count(findings).items()},
        "findings": [
            {
                "name": finding.name,
                "verdict": finding.verdict.value,
                "seen": finding.seen,
                "expected": finding.expected,
                "todo": finding.todo,
            }
            for finding in findings
        ],
        "parameters": overrides(findings),
    }
