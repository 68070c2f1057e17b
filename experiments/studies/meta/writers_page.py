"""The page of the study of writers: intervals by a bootstrap over unseen writers, settings, costs, the order of arms.

Legend: U unseen clients, W writers of theirs, R seeds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.provenance import origin
from experiments.studies import study_runs
from experiments.studies.meta.writers_arms import META, TOTAL, TRIALS, Arm
from experiments.studies.paired import markdown
from experiments.studies.study_runs import tried
from fl_sim import rng
from fl_sim.logs.reader import RunLog

Cells = Mapping[tuple[str, Arm], tuple[Path, Sequence[float | None]]]
"""(condition, arm) -> (the folder of its runs, the score of each trial, None where it was not made)."""
DRAWS, GLOBAL, TUNED = 10_000, "fedavg", "fedavg + fine-tuning"
EXPLANATION = f"""MNIST's 539 writers: 431 train, 54 are validation clients and 54 unseen ones, on one partition.
*Crossed*: the digits of a writer are divided among four clients of two or three labels each (2156 clients of some 28
digits); *alone*: a client is a writer (some 111 digits). Of a client that never trains .2 of its digits are support,
and the rest are the query set by which it is judged; clients that train use all of theirs. MLP 784-64-10, 20 clients a
round, batches of 10. Every arm has {TOTAL} gradient evaluations for each place in a round's cohort (rounds x passes a
round), and at most 20 fine-tuning steps. Each has {TRIALS} trials: a keyed sample of its settings, fine-tuning's steps
and rate among them, in one run of seed 100, chosen by the accuracy of validation clients; no choice reads an unseen
one.

Accuracy: mean over unseen clients of each client's accuracy, itself a mean over seeds; intervals (95 %) by a bootstrap
of {DRAWS} draws over unseen writers, whose clients stay together. *Gain*: the same of the difference, client by client,
from FedAvg + fine-tuning."""


def written(cells: Cells, note: str, more: Sequence[str]) -> str:
    """Write the files of results; returns the page. Raises ValueError where there is no run."""
    logs = {key: reported(folder) for key, (folder, _) in cells.items()}
    every = [log for found in logs.values() for log in found]
    trials = [log for folder, _ in cells.values() for place in folder.glob("trial-*") if (log := tried(place))]
    if not [*every, *trials]:
        raise ValueError("out: holds no run of this study")
    file, clients = study_runs.RESULTS / "writers", pd.DataFrame()
    if every:
        runs = pd.DataFrame([numbers(key, log) for key, found in logs.items() for log in found])
        runs.to_csv(f"{file}.csv", index=False)
        clients = pd.concat([per_client(key, found) for key, found in logs.items() if found])
        clients.to_csv(f"{file}-clients.csv", index=False, float_format="%.5f")
    body: list[str] = []
    for condition in dict.fromkeys(condition for condition, _ in cells):
        own = {arm: (logs[condition, arm], cells[condition, arm][1]) for c, arm in cells if c == condition}
        body += [f"## Writers {condition.removeprefix('writers ')}", "", *section(condition, own, clients), ""]
    how = ["```", " ".join(["python -m experiments.studies.meta.writers", *more]), "```"]
    arms = dict.fromkeys(arm for _, arm in cells)
    of_unseen = [f"- {arm.name}: {arm.unseen}" for arm in arms]
    head = [
        "# writers",
        "",
        *how,
        "",
        EXPLANATION,
        "",
        "What a client that never trained is judged by:",
        "",
        *of_unseen,
    ]
    tuned = f"all settings below, {TRIALS} trials an arm, by validation writers"
    page = "\n".join([*head, "", *body, f"{origin([*every, *trials], tuned)} {note}".rstrip(), ""])
    Path(f"{file}.md").write_text(page, encoding="utf-8")
    return page


def reported(folder: Path) -> list[RunLog]:
    """The runs of reported seeds that completed."""
    found = [tried(place) for place in sorted(folder.glob("seed-*"))]
    return [log for log in found if log is not None and log.summary["status"] == "completed"]


def numbers(key: tuple[str, Arm], log: RunLog) -> dict[str, object]:
    """The line of a run."""
    last, (condition, arm) = log.rounds.iloc[-1], key
    mb = (log.rounds["bytes_up"].sum() + log.rounds["bytes_down"].sum()) / 1e6
    kinds = ("unseen_accuracy_before", "unseen_accuracy", "unseen_loss", "val_unseen_accuracy", "unseen_share_worse")
    facts = {"condition": condition, "arm": arm.name, "seed": log.config["seed"], "rounds": int(last["round"])}
    ends = {"mb": round(float(mb), 1), "seconds": round(float(log.summary["seconds"]), 1)}
    return {**facts, **{name: last.get(name) for name in kinds}, **ends}


def per_client(key: tuple[str, Arm], logs: Sequence[RunLog]) -> pd.DataFrame:
    """(U lines) condition, arm, client, and its accuracy before and after fine-tuning, means over seeds."""
    rows = pd.concat([log.clients[log.clients["unseen"].eq(True)] for log in logs])
    columns = ["accuracy_before", "accuracy"]
    means = rows.astype(dict.fromkeys(columns, float)).groupby("client")[columns].mean()
    return means.reset_index().assign(condition=key[0], arm=key[1].name)


def interval(values: pd.Series) -> tuple[float, float, float]:
    """(mean, low, high) of values by client: a bootstrap over writers, each of whom has ``cells`` clients in a row.

    The 54 last writers are unseen, so that a writer has a 54th of the clients; fewer clients are one each.
    """
    ids = values.index.to_numpy()
    width = max((int(ids.max()) - int(ids.min()) + 1) // 54, 1)
    writer = (ids - ids.min()) // width
    sums = np.bincount(writer, values.to_numpy(float))
    counts = np.bincount(writer)
    sums, counts = sums[counts > 0], counts[counts > 0]
    words = rng.keys(rng.key(0, "bootstrap"), DRAWS * len(sums)) % np.uint64(len(sums))
    drawn = words.reshape(DRAWS, len(sums)).astype(np.int64)
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def section(
    condition: str, own: Mapping[Arm, tuple[list[RunLog], Sequence[float | None]]], clients: pd.DataFrame
) -> list[str]:
    """The table of a condition, and whether its order is the one that was expected."""
    values, gains, lines = dict[str, pd.Series](), dict[str, tuple[float, float, float]](), []
    for arm, (logs, _) in own.items():
        if logs:
            mine = clients[(clients["condition"] == condition) & (clients["arm"] == arm.name)]
            values[arm.name] = mine.set_index("client")[arm.column]
    for arm, (logs, scores) in own.items():
        if not logs:
            continue
        mean, low, high = interval(values[arm.name])
        gain = "-"
        if TUNED in values and arm.name != TUNED:
            gains[arm.name] = interval((values[arm.name] - values[TUNED]).dropna())
            gain = "{:+.3f} ({:+.3f} to {:+.3f})".format(*gains[arm.name])
        known = [value for value in scores if value is not None]
        spread = f"{min(known):.3f} to {max(known):.3f}" if known else "-"
        table = numbers((condition, arm), logs[0])
        cost = f"{table['rounds']} | {table['mb']:.0f}"
        shown = f"{mean:.3f} ({low:.3f} to {high:.3f})"
        tenth = f"{np.percentile(values[arm.name], 10):.3f}"
        lines.append([arm.name, shown, gain, tenth, spread, cost, settings(arm, logs[0]), len(logs)])
    if not lines:
        return ["No run yet."]
    titles = ["arm", "accuracy", "gain", "10th percentile", "trials", "rounds", "MB", "chosen", "seeds"]
    return [*markdown(titles, lines), "", verdict(values, gains)]


def settings(arm: Arm, log: RunLog) -> str:
    """The settings that were chosen, as flags without dashes."""
    kept = [words for words in arm.trials() if _is_of(words, log)]
    pairs = kept[0] if kept else []
    found = [f"{k.removeprefix('--')} {v}" for k, v in zip(pairs[::2], pairs[1::2], strict=True) if k != "--rounds"]
    return ", ".join(text.removeprefix("strategy.") for text in found) or "-"


def _is_of(words: Sequence[str], log: RunLog) -> bool:
    def have(flag: str) -> object:
        table, _, name = flag.removeprefix("--").rpartition(".")
        return (log.config[table] if table else log.config).get(name)

    pairs = [(k, v) for k, v in zip(words[::2], words[1::2], strict=True) if k != "--rounds"]
    return all(float(v) == have(k) for k, v in pairs)


def verdict(values: Mapping[str, pd.Series], gains: Mapping[str, tuple[float, float, float]]) -> str:
    """Whether FedAvg < FedAvg + fine-tuning <= the best of the arms that train an initialisation."""
    means = sorted(((series.mean(), name) for name, series in values.items()), reverse=True)
    order = "By mean: " + " > ".join(f"{name} {mean:.3f}" for mean, name in means) + "."
    meta = [name for name in META if name in gains]
    if GLOBAL not in gains or not meta:
        return order
    best = max(meta, key=lambda name: gains[name][0])
    tuned = "holds" if gains[GLOBAL][2] < 0 else "is undecided" if gains[GLOBAL][1] < 0 else "does not hold"
    low, high = gains[best][1:]
    level = "above" if low > 0 else "below" if high < 0 else "level with"
    found = f"FedAvg < FedAvg + fine-tuning {tuned}; the best arm that trains an initialisation, {best}, is {level} it."
    return f"{order} {found}"
