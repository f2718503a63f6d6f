"""What a training says: lines of `train.jsonl` and the same numbers for TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path

from tensorboardX import SummaryWriter

JSONL, TENSORBOARD = "train.jsonl", "tensorboard"


class Log:
    """Appends to the log in `out`. `start` is the step that a resumed run goes on from: what was logged behind it, by
    the run that was interrupted, is dropped.
    """

    def __init__(self, out: Path, start: int) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / JSONL
        rows = read(self.path) if start else []
        self.path.write_text("".join(json.dumps(row) + "\n" for row in rows if row["step"] <= start))
        self._writer = SummaryWriter(str(out / TENSORBOARD), purge_step=start + 1 if start else None)

    def write(self, row: dict[str, float]) -> None:
        with open(self.path, "a") as file:
            file.write(json.dumps({name: round(value, 6) for name, value in row.items()}) + "\n")
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        self._writer.close()


def read(path: Path) -> list[dict[str, float]]:
    """The lines of a log, less a last one that was cut off; none where there is no log."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
