"""``python -m experiments.bench.table RESULTS.json ... [--check]``: writes measured figures into documents.

RESULTS.json is the bench.json of ``experiments.bench`` (sections ``bench`` and ``speed``; of ``--work S7`` alone, kept
as states.json, the section ``states``), the sweep.json of ``experiments.bench.sweep`` (``sweep``), the engines.json of
``experiments.bench.engines`` (``engines``; with ``--meta``, kept as engines_meta.json, ``meta``) or the gpu.json of
``experiments.bench.gpu`` (``gpu``). A section is written wherever a document has its marks, such as
``<!-- bench:start -->`` and ``<!-- bench:end -->``; other text stays.

Exit codes: 0; 1 with ``--check`` if a document is stale; 2 for invalid input.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.bench import ROOT
from experiments.bench.tables import cpu_table, engine_table, gpu_table, speed_table, sweep_table
from experiments.bench.tables.cpu_table import Results

MARKS = "<!-- {0}:start -->", "<!-- {0}:end -->"
"""Before and after a section; ``{0}`` stands for its name."""
DOCUMENTS = (ROOT / "docs" / "speed.md", ROOT / "README.md", ROOT / "docs" / "meta.md")
"""The documents that hold sections."""


def sections(results: Results) -> dict[str, str]:
    """The sections that a results file gives, by name. Its keys show which command wrote it."""
    if "works" in results and {about["group"] for about in results["works"]} == {"S7"}:
        return {"states": cpu_table.markdown(results, in_document=True)}
    if "works" in results:
        return {"bench": cpu_table.markdown(results, in_document=True), "speed": speed_table.markdown(results)}
    if "sweep" in results:
        return {"sweep": sweep_table.markdown(results)}
    if "recipes" in results:
        return {results.get("section", "engines"): engine_table.markdown(results)}
    return {"gpu": gpu_table.markdown(results)}


def replace_section(text: str, name: str, new: str) -> str:
    """``text`` with section ``name`` replaced; unchanged without its marks. Raises ValueError if only one is there."""
    start, end = (mark.format(name) for mark in MARKS)
    if start not in text and end not in text:
        return text
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise ValueError(f"a document must hold {start} and {end} once each, in this order")
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    return f"{before}{start}\n{new}{end}{after}"


def updated(texts: Mapping[Path, str], results: Results) -> dict[Path, str]:
    """The documents with the sections of a results file. Raises ValueError if they hold none of these sections."""
    new_sections = sections(results)
    new = dict(texts)
    for name, section in new_sections.items():
        new = {path: replace_section(text, name, section) for path, text in new.items()}
    starts = [MARKS[0].format(name) for name in new_sections]
    if not any(start in text for start in starts for text in texts.values()):
        documents = ", ".join(path.name for path in texts)
        raise ValueError(f"{documents}: must hold {' or '.join(starts)}; add the marks where the figures shall stand")
    return new


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.table", description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="bench.json, sweep.json or gpu.json of a run")
    parser.add_argument(
        "--document", "--readme", type=Path, action="append",
        help="a file that holds marks; may be given several times (default: docs/speed.md, README.md, docs/meta.md)",
    )  # fmt: skip
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a document is stale")
    options = parser.parse_args(argv)
    try:
        old = {path: path.read_text(encoding="utf-8") for path in options.document or DOCUMENTS}
        new = old
        for path in options.results:
            new = updated(new, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    stale = [path for path in old if new[path] != old[path]]
    if options.check:
        for path in stale:
            command = f"python -m experiments.bench.table {' '.join(map(str, options.results))}"
            print(f"{path.name} is stale: run {command}", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(new[path], encoding="utf-8")
    return 0
