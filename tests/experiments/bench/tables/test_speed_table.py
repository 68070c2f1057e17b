"""The small speed table: which engine and system it shows, and its ratios."""

from typing import Any

from experiments.bench.tables import speed_table


def row(system: str, seconds: list[float], work: str = "S1", status: str = "ok") -> dict[str, Any]:
    median = sorted(seconds)[len(seconds) // 2]
    return {"work": work, "system": system, "status": status, "seconds": {"median": median}, "each": seconds}


def table(*rows: dict[str, Any]) -> list[list[str]]:
    """The cells of the table's body, line by line."""
    results = {"rows": rows, "machine": {"cpu": "a processor", "cores": 2}, "commit": "abc", "date": "2026-01-01"}
    text = speed_table.markdown(results)
    assert text.endswith("\n\na processor, 2 cores; commit abc, 2026-01-01; seed 0.\n")
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:-2]]


def test_the_fastest_engine_and_the_faster_client_are_shown() -> None:
    """Ratios turn by turn to the fastest engine: 2/1, 4/2 and 9/3 have the median 2."""
    [cells] = table(
        row("ours-loop", [3.0, 4.0, 5.0]),
        row("ours-ray", [1.0, 2.0, 3.0]),
        row("flower", [5.0, 6.0, 7.0]),
        row("flower-careful", [2.0, 4.0, 9.0]),
    )
    assert cells == [speed_table.WORKLOADS["S1"], "2.00 (ray)", "-", "-", "4.00 (2.00 x)", "-"]


def test_what_failed_is_not_shown() -> None:
    [cells] = table(
        row("ours-loop", [1.0]), row("ours-vmap", [0.1], status="failed"), row("pfl", [0.5], status="failed")
    )
    assert cells[1:] == ["1.00 (loop)", "-", "-", "-", "-"]
    assert table(row("bare-careful", [1.0]), row("ours-loop", [1.0], work="S4-1M")) == []


def test_large_ratios_have_no_decimals() -> None:
    [cells] = table(row("ours-vmap", [0.01], "S3-100-of-100"), row("flower", [16.92], "S3-100-of-100"))
    assert cells[4] == "16.92 (1692 x)"
