"""Compares two source trees: does the same list of short runs give the same numbers in both? For refactorings.

    python -m experiments.check.same_digests OLD_TREE [NEW_TREE] [--only PATTERN] [--old-from FILE]
    python -m experiments.check.same_digests OLD_TREE --save FILE

A tree is a checkout (see ``git worktree add``); NEW_TREE is by default the one this file is in. Each tree runs the list
in a process of its own. A run counts as the same if its digest (SHA-256 of the final model), the numbers of its summary
and its round log without times are equal. Prints a Markdown table; exit code 0 if all runs are the same, 1 otherwise.
``--save`` runs only OLD_TREE and writes its results to a file; ``--old-from`` reads them instead of running OLD_TREE.
Use such a file only on the machine that wrote it: another processor may round differently.

Runs on CIFAR-10 and MNIST need FL_SIM_DATA and are left out where it is not set.
"""

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from fl_sim.logs.round_columns import MEASURED

Found = dict[str, Any]
"""What is compared of one run: its digest, the numbers of its summary, a hash of its round log."""
Results = dict[str, list[Found]]
"""By case, its runs in order; none if the case failed."""

SIX = "--strategy fedavg,fedprox,maxpool,reptile,maml,perfedavg"
FEW = "--clients 6 --cohort 4 --rounds 2 --local.batch_size 16 --block_size 2"
SMALL = f"--model mlp --model.hidden 16 {FEW}"
SKEWED = f"{SMALL} --partition dirichlet --partition.alpha 0.5 --partition.min_samples 5"
PERSONAL = "--partition.held_out 0.2 --personalize_steps 2 --personalize_every 1 --holdout_clients 1"
KEPT = f"{SKEWED} --checkpoint_every 1 --checkpoint_keep 0"

# The constants above are flags that several cases share.
CASES: dict[str, tuple[str, ...]] = {
    "recipe quickstart": ("quickstart --rounds 2",),
    "recipe digits-deploy": ("digits-deploy --rounds 3",),
    "recipe fedprox-synthetic": ("fedprox-synthetic --rounds 2 --cohort 5",),
    "engine loop": (f"{SIX} --engine loop {SKEWED}",),
    "engine vmap": (f"{SIX} --engine vmap {SKEWED}",),
    "engine ray": (f"{SIX} --engine ray --ray.num_workers 2 {SKEWED}",),
    "engine flower": ("--engine flower --model lr --clients 2 --rounds 1",),
    "vmap_over": (f"--engine vmap --vmap_over local.lr=.01,.1 --seed 0,1 {SKEWED}",),
    "vmap_over maml": (f"--strategy maml --engine vmap --vmap_over strategy.inner_lr=.01,.1 --seed 0 {SKEWED}",),
    "maxpool deltas": (f"--strategy maxpool --strategy.of deltas {SKEWED}",),
    "reptile linear": (f"--strategy reptile --strategy.anneal linear {SKEWED}",),
    "maml order 2, adam": (f"--strategy maml --strategy.order 2 --strategy.optimizer adam {SKEWED}",),
    "perfedavg hf": (f"--strategy perfedavg --strategy.order hf --engine loop {SKEWED}",),
    "perfedavg exact": (f"--strategy perfedavg --strategy.order exact --engine vmap {SKEWED}",),
    "flower FedAdam": (f"--strategy flwr.serverapp.strategy:FedAdam {SMALL} --cohort 0",),
    "flower FedTrimmedAvg": (f"--strategy flwr.serverapp.strategy:FedTrimmedAvg --engine loop {SMALL} --cohort 0",),
    "flower app": ("--app {tree}/tests/apps/plain --rounds 2",),
    "flower app talk": ("--app {tree}/tests/apps/talk --clients 10",),
    "resume": (f"{KEPT}", "--resume {run} --rounds 4"),
    "resume maml, adam": (f"--strategy maml --strategy.optimizer adam {KEPT}", "--resume {run} --rounds 4"),
    "resume FedAdam": (f"--strategy flwr.serverapp.strategy:FedAdam {KEPT} --cohort 0", "--resume {run} --rounds 4"),
    "fork": (f"{KEPT}", "--fork {run}@1 --rounds 3 --strategy fedprox"),
    "fork, same strategy": (f"--strategy reptile {KEPT}", "--fork {run}@1 --rounds 3"),
    "repeat of a config": (f"--strategy fedprox {SKEWED}", "{run}/config.toml"),
    "stragglers": (f"{SIX} --system.stragglers 0.5 {SKEWED}",),
    "personal, loop": (f"{SIX} --engine loop {SKEWED} {PERSONAL}",),
    "personal, vmap": (f"{SIX} --engine vmap {SKEWED} {PERSONAL}",),
    "float64": (f"{SIX} --dtype float64 {SKEWED}",),
    "bf16": (f"--precision bf16 {SKEWED}",),
    "momentum, clip_norm": (f"--local.momentum 0.9 --local.clip_norm 0.5 {SKEWED}",),
    "adam, weight_decay": (f"--local.optimizer adam --local.weight_decay 0.01 --engine loop {SKEWED}",),
    "adamw, vmap": (f"--local.optimizer adamw --local.weight_decay 0.01 --local.clip_norm 1 --engine vmap {SKEWED}",),
    "cosine, server.lr": (f"--local.lr_schedule cosine --server.lr 0.5 --weighting uniform {SKEWED} --rounds 3",),
    "steps, step schedule": (f"--local.lr_schedule step --local.steps 5 {SKEWED} --rounds 4",),
    "validation, standardize": (f"--validation 0.1 --standardize true --evaluate_every 2 {SKEWED} --rounds 3",),
    "stop.target": (f"--stop.target 0.2 --stop.on test {SKEWED} --local.epochs 3 --rounds 9",),
    "chunk, odd blocks": (f"--engine vmap --chunk 2 {SKEWED} --block_size 3",),
    "partition iid": (f"--partition iid {SMALL}",),
    "partition labels": (f"--partition labels --partition.labels_per_client 10 {SMALL}",),
    "partition labels-equal": (f"--partition labels-equal {SMALL}",),
    "partition quantity": (f"--partition quantity --partition.seed 1 {SMALL}",),
    "partition shards": (f"--partition shards {SMALL}",),
    "partition dirichlet-client": (f"--partition dirichlet-client {SMALL}",),
    "partition resample": (f"--partition resample {SMALL}",),
    "task sinusoid": ("--task sinusoid --strategy maml,reptile --clients 6 --rounds 2",),
    "task synthetic": ("--task synthetic --clients 6 --rounds 2",),
    "model cnn-gn": ("--model cnn-gn --model.width 4 --clients 6 --cohort 2 --rounds 2",),
    "model 2nn": ("--model 2nn --clients 6 --cohort 2 --rounds 2",),
    "model with dropout, loop": (f"--engine loop --model own_models:dropout {FEW}",),
    "model with dropout, vmap": (f"--engine vmap --model own_models:dropout {FEW}",),
    "model with BatchNorm, loop": (f"--engine loop --model own_models:batch_norm {FEW} --local.batch_size 0",),
    "model with BatchNorm, vmap": (f"--engine vmap --model own_models:batch_norm {FEW} --local.batch_size 0",),
}
"""By case, its command lines, run in order; ``{run}`` is the run folder of the one before. The last is compared."""

CIFAR = "--task cifar10 --model lenet --clients 500 --cohort 3"
IMAGES: dict[str, tuple[str, ...]] = {
    "recipe mcmahan-2nn": ("mcmahan-2nn --rounds 2 --cohort 2",),
    "recipe million-clients": ("million-clients --rounds 2 --cohort 40",),
    "recipe cifar10-noniid": ("cifar10-noniid --rounds 1 --cohort 2",),
    "recipe cifar10-strategies": ("cifar10-strategies --rounds 1 --cohort 2 --personalize_clients 2",),
    "recipe pfl-cifar10": ("pfl-cifar10 --rounds 1 --cohort 2",),
    "augment, standardize, loop": (f"{CIFAR} --augment true --standardize true --engine loop --rounds 2",),
    "augment, vmap": (f"{CIFAR} --augment true --engine vmap --rounds 1",),
}
"""Further cases in the same form, which need the data sets in FL_SIM_DATA."""

MODELS = """
from torch import nn

def dropout(inputs, outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, outputs))

def batch_norm(inputs, outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, outputs))
"""
"""The module ``own_models``: layers that the models in ``clients/models`` do not combine or do not have."""

SERVER = """
import atexit, json, os, sys
import sklearn.datasets  # slow to import, so once for all children
from experiments import run

assert os.path.realpath(run.__file__).startswith(os.path.realpath(sys.argv[1]) + os.sep), run.__file__
for line in sys.stdin:
    words, out, err = json.loads(line)
    child = os.fork()
    if child == 0:
        for path, descriptor in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        code = run.main(words)
        sys.stdout.flush()
        atexit._run_exitfuncs()
        os._exit(code)  # a full exit of the interpreter takes longer than most of these runs
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""The program of a tree's process: it imports the code once, then forks one child for each command line."""

NUMBERS = ["status", "rounds", "accuracy", "loss", "val_accuracy", "personal_accuracy", "personal_accuracy_before"]
NUMBERS += ["personal_loss", "unseen_accuracy", "unseen_loss", "bytes_up", "bytes_down", "clients_failed", "moved"]
"""Keys of summary.json that are compared."""


class TreeProcess:
    """A process that runs the code of one tree, in a temporary folder."""

    def __init__(self, tree: Path, folder: Path, process: "subprocess.Popen[str]") -> None:
        self.tree, self.folder, self.process = tree, folder, process

    def command(self, words: Sequence[str]) -> list[dict[str, Any]]:
        """The summaries of one command's runs. Raises RuntimeError if it fails."""
        assert self.process.stdin is not None and self.process.stdout is not None
        out, err = self.folder / "stdout", self.folder / "stderr"
        self.process.stdin.write(json.dumps([list(words), str(out), str(err)]) + "\n")
        self.process.stdin.flush()
        code = self.process.stdout.readline().strip()
        if code != "0":
            tail = err.read_text(encoding="utf-8")[-600:] if err.exists() else ""
            raise RuntimeError(f"exit code {code or '(the process has ended)'}: {tail}")
        last = json.loads(out.read_text(encoding="utf-8").splitlines()[-1])
        summaries: list[dict[str, object]] = last.get("runs", [last])
        return summaries

    def case(self, lines: Sequence[str]) -> list[Found]:
        """The runs of a case's last command. Raises RuntimeError if a command fails."""
        summaries: list[dict[str, Any]] = [{"run_dir": ""}]
        for line in lines:
            words = last_of_each(shlex.split(line.format(tree=self.tree, run=summaries[-1]["run_dir"])))
            summaries = self.command([*words, "--quiet", "--json", "--out", "runs"])
        return [found(summary, self.folder / summary["run_dir"]) for summary in summaries]


def last_of_each(words: Sequence[str]) -> list[str]:
    """A command line of flags with values, in which a flag that is repeated has its last value."""
    starts = [n for n, word in enumerate(words) if word.startswith("--")]
    ends = [*starts, len(words)]
    last = {words[n]: words[n:end] for n, end in pairwise(ends)}
    return [*words[: ends[0]], *(word for flag in last.values() for word in flag)]


def found(summary: Mapping[str, object], run: Path) -> Found:
    """What is compared of one run."""
    hashed = hashlib.sha256()
    for name in ("rounds", "clients"):
        path = run / f"{name}.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            columns = json.loads(line)  # a null and a missing column mean the same: a newer tree may have more columns
            row = {k: v for k, v in columns.items() if "seconds" not in k and k not in MEASURED and v is not None}
            hashed.update(json.dumps(row, sort_keys=True).encode())
    who = f"{summary.get('strategy')} seed {summary.get('seed')}"
    return {"who": who, "digest": summary["digest"], **{k: summary.get(k) for k in NUMBERS}, "log": hashed.hexdigest()}


@contextmanager
def started(tree: Path) -> Iterator[TreeProcess]:
    """Start a tree's process; on exit it ends and its files are deleted."""
    with tempfile.TemporaryDirectory(prefix="same-digests-") as name:
        folder = Path(name)
        (folder / "own_models.py").write_text(MODELS, encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{folder}", "FL_SIM_CACHE": str(folder / "cache")}
        command = [sys.executable, "-c", SERVER, str(tree)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=folder, env=environment) as process:
            yield TreeProcess(tree, folder, process)
            assert process.stdin is not None
            process.stdin.close()


def run_tree(tree: Path, cases: Mapping[str, Sequence[str]]) -> Results:
    """Run all cases in one tree, with progress on stderr."""
    results: Results = {}
    with started(tree) as process:
        for name, lines in cases.items():
            start = time.perf_counter()
            try:
                results[name], failure = process.case(lines), ""
            except (RuntimeError, OSError, ValueError, IndexError) as error:
                results[name], failure = [], f"  FAILED: {error}"
            print(f"{tree}  {name}  {time.perf_counter() - start:.1f} s{failure}", file=sys.stderr, flush=True)
    return results


def compare(old: Results, new: Results, cases: Sequence[str]) -> tuple[list[str], bool]:
    """The lines of the table, and whether all runs are the same."""
    lines = ["| case | old | new | same |", "|---|---|---|---|"]
    all_same = True
    for name in cases:
        olds, news = old.get(name, []), new.get(name, [])
        for number in range(max(len(olds), len(news), 1)):
            a = olds[number] if number < len(olds) else {}
            b = news[number] if number < len(news) else {}
            differ = [key for key in ("digest", *NUMBERS, "log") if a.get(key) != b.get(key)]
            same = bool(a and b) and not differ
            all_same = all_same and same
            label = f"{name}: {(a or b).get('who', '')}" if max(len(olds), len(news)) > 1 else name
            shown = [(one.get("digest") or "failed")[:12] for one in (a, b)]
            verdict = "yes" if same else f"no: {', '.join(differ) if a and b else 'failed'}"
            lines.append(f"| {label} | {shown[0]} | {shown[1]} | {verdict} |")
    return lines, all_same


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    about = str(__doc__).split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m experiments.check.same_digests", description=about)
    parser.add_argument("old", metavar="OLD_TREE", type=Path, help="checkout of the code before the change")
    parser.add_argument("new", metavar="NEW_TREE", type=Path, nargs="?", default=Path(__file__).resolve().parents[2])
    parser.add_argument("--only", metavar="PATTERN", default="", help="only the cases whose name contains this text")
    parser.add_argument("--save", metavar="FILE", type=Path, help="run only OLD_TREE and write its results")
    parser.add_argument("--old-from", metavar="FILE", type=Path, help="results that --save wrote")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    options = parse(argv)
    images = IMAGES if os.environ.get("FL_SIM_DATA") else {}
    if not images:
        print(f"FL_SIM_DATA is not set: {len(IMAGES)} cases on images are left out", file=sys.stderr)
    cases = {name: lines for name, lines in {**CASES, **images}.items() if options.only in name}
    if options.old_from is not None:
        old: Results = json.loads(options.old_from.read_text(encoding="utf-8"))
    else:
        old = run_tree(options.old.resolve(), cases)
    if options.save is not None:
        options.save.write_text(json.dumps(old, indent=1) + "\n", encoding="utf-8")
        return 0 if all(old.values()) else 1
    lines, same = compare(old, run_tree(options.new.resolve(), cases), list(cases))
    print("\n".join(lines))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
