"""Tables on the terminal fit 100 columns: what is the same in all rows goes below, the rest into a second table."""

import pandas as pd
import pytest

from experiments.analysis.text_table import format_table


def results(rows: int, numbers: int, **more: object) -> pd.DataFrame:
    """A table of runs over several seeds, with ``numbers`` numbers and their spread."""
    return pd.DataFrame(
        [
            {"strategy": "fedavg" if n % 2 else "fedprox", "alpha": n // 2, "seeds": 5}
            | {f"number_{k}{end}": n + k + 0.5 for k in range(numbers) for end in ("", "_std")}
            | more
            for n in range(rows)
        ]
    )


def test_a_narrow_table_keeps_its_columns() -> None:
    lines = format_table(results(4, 2)).splitlines()
    assert lines[0].split() == ["strategy", "alpha", "seeds", "number_0", "number_1"] and len(lines) == 6


@pytest.mark.parametrize("numbers", [5, 9, 20])
def test_a_wide_table_is_one_of_several_parts_that_hold_every_number(numbers: int) -> None:
    frame = results(4, numbers, task="digits")
    text = format_table(frame)
    assert max(map(len, text.splitlines())) <= 100
    *parts, same = text.replace("\nin every row: ", "\n\nin every row: ").split("\n\n")
    assert same == "in every row: seeds 5, task digits"
    heads = [part.splitlines()[0].split() for part in parts]
    assert all(head[:2] == ["strategy", "alpha"] for head in heads)  # together they tell rows apart
    assert [name for head in heads for name in head[2:]] == [f"number_{k}" for k in range(numbers)]
    assert all(len(part.splitlines()) == 6 for part in parts)
    assert max(map(len, format_table(frame, width=None).splitlines())) > 100


def test_rows_that_nothing_short_tells_apart_are_numbered() -> None:
    frame = results(4, 9).assign(strategy="x" * 60)
    first, *_ = format_table(frame).split("\n\n")
    assert first.splitlines()[0].split()[0] == "row" and first.splitlines()[5].split()[0] == "4"


def test_one_row_is_cut_too() -> None:
    text = format_table(results(1, 20))
    assert max(map(len, text.splitlines())) <= 100 and "in every row" not in text
    assert all(f"number_{k} " in text or f"number_{k}\n" in text for k in range(20))
