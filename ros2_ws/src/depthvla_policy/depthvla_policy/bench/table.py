"""The figures in words and as a table, for a terminal or a document."""

from __future__ import annotations

HEAD = ("", "eager p50", "p99", "engine p50", "p99", "roofline", "bound", "ratio")


def text(result: dict) -> str:
    """Everything that was measured, in lines."""
    lines = [
        f"{result['checkpoint']}, {result['parameters'] / 1e6:.1f} M parameters in {result['dtype']}",
        where(result),
        f"loaded in {result['load_s']} s, first chunk in {result['first_chunk_s']} s",
        f"peak memory {result['peak_memory_gb']} GB; {result['unmapped_memory_gb']} GB in memory without mapped files",
    ]
    if "engine_peak_memory_gb" in result:
        lines.append(f"peak memory with the engine {result['engine_peak_memory_gb']} GB")
    if roof := result.get("roofline"):
        rate, copy, large = (roof[key] / 1e9 for key in ("flops_per_s", "weights_bytes_per_s", "memory_bytes_per_s"))
        lines += [
            f"machine: {rate:.0f} GFLOP/s; {copy:.1f} GB/s in a copy of the weights' size, {large:.1f} in a large one",
            "p50 and p99 in ms; ratio: the quicker p50 over the roofline",
            *_aligned([HEAD, *map(cells, result["rows"])]),
        ]
    if warm := result.get("warm_up"):
        lines.append(
            f"engine: {warm['cold_ms']:.1f} ms for the very first chunk; after the warm-up {warm['first_ms']:.1f} ms"
            f" for the first and {warm['last_ms']:.1f} ms for the last"
        )
    for name, error in result["agreement"].items():
        what = {"engine": "engine against network", "float32": "against float32"}[name]
        lines.append(f"{what}: rms {error['rms']:.2g}, worst {error['max']:.2g} of the rms")
    for row in result.get("training", {}).get("rows", ()):
        lines.append(f"training, batch {row['batch']}: {row['samples_per_s']:.2f} samples/s, MFU {_share(row['mfu'])}")
    return "\n".join(lines)


def markdown(result: dict) -> str:
    """The rows of times, in milliseconds, as a table of docs/benchmarks.md, under what they were measured on."""
    head = ("[ms]", *HEAD[1:])
    rows = [head, ("---",) * len(head), *map(cells, result.get("rows", ()))]
    return "\n".join([where(result), "", *("| " + " | ".join(row) + " |" for row in rows)])


def where(result: dict) -> str:
    """Machine, load, date and revision."""
    machine = result["machine"]
    device = machine.get("gpu") or f"{machine['processor']} ({machine['instructions']}), {machine['threads']} thread(s)"
    load = "load average {before:.2f} before and {after:.2f} after".format(**result["load_average"])
    about = f"{machine['cores']} cores, PyTorch {machine['torch']}, {load}"
    return f"{device} on {about}; {result['date']}, {result['revision']}"


def cells(row: dict) -> tuple[str, ...]:
    """One row of the table. What was compiled stands where the engine's times are."""
    fast = row.get("engine_ms") or row.get("compiled_ms")
    limit, ratio = row.get("roofline_ms"), row.get("ratio")
    return (
        row["what"],
        *_percentiles(row.get("eager_ms")),
        *_percentiles(fast),
        _ms(limit) if limit else "",
        row.get("bound", ""),
        f"{ratio:.1f}" if ratio else "",
    )


def _percentiles(times: dict | None) -> tuple[str, str]:
    return (_ms(times["p50"]), _ms(times["p99"])) if times else ("", "")


def _ms(value: float) -> str:
    return f"{value:#.3g}" if value < 99.95 else f"{value:.0f}"


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    first, *others = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([name.ljust(first), *(cell.rjust(width) for cell, width in zip(rest, others, strict=True))]).rstrip()
        for name, *rest in rows
    ]
