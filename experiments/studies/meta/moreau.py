"""``python -m experiments.studies.meta.moreau``: pFedMe in the setting of its paper, with and without honest sampling.

Dinh, Tran, Nguyen, NeurIPS 2020, arXiv:2006.08848: MNIST, 20 users of two labels, multinomial logistic regression,
batches of 20, 20 local rounds, K = 5, 5 users a round, 800 rounds; rates as in the authors' commands. In their code all
users train in each round, and the models of 5 are averaged (row *all train*); with honest sampling only those 5 train.
FedAvg, whose rate is the authors' too, is the row to beat: by its global model, and after fine-tuning.

Runs lie in ``--out``; what it holds is not run again. Written are moreau.csv (a line a run) and moreau.md in
``experiments/results``. Other flags go to all runs.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.command_ends import ended
from experiments.config.values import seeds
from experiments.provenance import origin
from experiments.run import main as run
from experiments.studies import study_runs
from experiments.studies.paired import difference, markdown, signed, spread
from experiments.studies.study_runs import logs_of, run_once, seeded
from fl_sim.logs.reader import RunLog

COMMON = [
    *("--task", "mnist", "--partition", "labels", "--partition.labels_per_client", "2", "--clients", "20"),
    *("--partition.held_out", "0.25", "--model", "lr", "--local.batch_size", "20", "--local.steps", "20"),
    *("--rounds", "800", "--evaluate_every", "800", "--digest_every", "800", "--engine", "vmap"),
    *("--personalize_steps", "20", "--personalize_lr", "0.02", "--checkpoint_every", "800"),
]
PFEDME = "--local.lr 0.01 --strategy.personal_lr 0.1 --strategy.lam 15 --strategy.personal_steps 5 --server.lr 2"
ARMS = {
    "fedavg": "--strategy fedavg --weighting uniform --local.lr 0.02 --cohort 5",
    "pfedme, all train": f"--strategy experiments.studies.meta.all_train:AllTrain {PFEDME}",
    "pfedme, honest sampling": f"--strategy pfedme --cohort 5 {PFEDME}",
}
COLUMNS = {
    "personal_accuracy_before": "own model (FedAvg: global)",
    "personal_accuracy": "after 20 steps of fine-tuning",
    "accuracy": "global model, central test set",
}
EXPLANATION = """pFedMe's own setting: MNIST, 20 users of two labels each (NIID-Bench's partition; the authors' sizes
are log-normal), logistic regression, batches of 20, 20 local steps, 5 users a round; each user holds out a quarter.
Rates are those of the authors' commands (pFedMe: .01, personal .1, beta 2, lambda 15, K 5; FedAvg: .02), none was tuned
here. *All train*: as in their code, every user trains in each round, and the models of 5 are averaged; *honest
sampling*: 5 train. Accuracy: mean over users on their held-out digits; in brackets the lowest and the highest seed.
Gate: personal models above FedAvg's global one."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0; 2 for bad input; the exit code of an interruption."""
    parser = argparse.ArgumentParser(prog="python -m experiments.studies.meta.moreau", description=__doc__)
    parser.add_argument("--out", default="runs/moreau", help="folder of the runs")
    parser.add_argument("--seeds", default="0..2", help="seeds of runs and partitions; empty: run nothing")
    parser.add_argument("--note", default="", help="a sentence for readers of the page")
    options, more = parser.parse_known_args(argv)
    out = Path(options.out)
    try:
        for seed in seeds(options.seeds) if options.seeds else ():
            for name in ARMS:
                if code := run_once(run, place(out, name) / f"seed-{seed}", words(name, seed, more)):
                    return code
        print(written(out, options.note, more))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def place(out: Path, name: str) -> Path:
    """The folder of an arm's runs."""
    return out / name.replace(", ", "-").replace(" ", "-")


def words(name: str, seed: int, more: Sequence[str]) -> list[str]:
    """The flags of a run; ``more`` replaces the study's own."""
    given = [*COMMON, *ARMS[name].split(), *seeded(seed), *more]
    return [word for pair in dict(zip(given[::2], given[1::2], strict=True)).items() for word in pair]


def written(out: Path, note: str, more: Sequence[str]) -> str:
    """Write both files; returns the page. Raises ValueError where there is no completed run."""
    logs = {
        name: [log for f in sorted(place(out, name).glob("seed-*")) for log in logs_of(f, "completed")] for name in ARMS
    }
    every = [log for found in logs.values() for log in found]
    if not every:
        raise ValueError(f"out = {str(out)!r}: holds no completed run of this study")
    table = pd.DataFrame([numbers(name, log) for name, found in logs.items() for log in found])
    file = study_runs.RESULTS / "moreau"
    table.to_csv(f"{file}.csv", index=False)
    lines, gates = [], list[str]()
    for name in dict.fromkeys(table["arm"]):
        own = table[table["arm"] == name]
        shown = [spread(own[column]) for column in COLUMNS]
        gap = difference(table, name, "fedavg", "personal_accuracy_before") if name != "fedavg" else None
        if gap:
            met = "met" if gap.wins == gap.seeds else f"met in {gap.wins} of {gap.seeds} seeds"
            gates.append(f"{name}: {met}")
        lines.append([name, *shown, signed(gap) if gap else "-", f"{own['mb'].mean():.0f}", len(own)])
    titles = ["arm", *COLUMNS.values(), "own model - FedAvg's global (95 % interval)", "MB", "seeds"]
    how = ["```", " ".join(["python -m experiments.studies.meta.moreau", *more]), "```"]
    rounds = ", ".join(map(str, sorted(set(table["rounds"]))))
    head = ["# moreau", "", *how, "", f"{EXPLANATION} Rounds: {rounds}.", ""]
    tuned = "nothing; rates of the authors' commands"
    found = f"Gate, {'; '.join(gates)}." if gates else "Gate: no row to compare with FedAvg yet."
    page = "\n".join([*head, *markdown(titles, lines), "", found, "", f"{origin(every, tuned)} {note}".rstrip(), ""])
    Path(f"{file}.md").write_text(page, encoding="utf-8")
    return page


def numbers(name: str, log: RunLog) -> dict[str, object]:
    """The line of a run."""
    last = log.rounds.iloc[-1]
    mb = float(log.rounds["bytes_up"].sum() + log.rounds["bytes_down"].sum()) / 1e6
    facts = {"arm": name, "seed": log.config["seed"], "rounds": int(last["round"])}
    ends = {"mb": round(mb, 3), "seconds": round(float(log.summary["seconds"]), 1)}
    return {**facts, **{column: last.get(column) for column in COLUMNS}, **ends}


if __name__ == "__main__":
    sys.exit(ended(main))
