"""The bad inputs of ``experiments.attacks.inputs`` that are written by hand: command lines and recipes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Input:
    """One bad input, and what its refusal must say."""

    name: str
    says: str
    """A pattern that the error must have: the key or the file, and the value or the place."""
    words: str = ""
    """A command line of ``python -m experiments.MODULE``, which begins with MODULE."""
    code: str = ""
    """Lines of Python before the command, or, where there is no command, that must raise a ValueError."""
    noted: bool = False
    """Whether going on is right too, where a warning or a note has ``says``."""


FEW = "run --model lr --clients 4 --rounds 1 --quiet"
PREAMBLE = """
import io, json, os, zipfile
from dataclasses import dataclass
from pathlib import Path
import numpy as np
import torch
from torch import nn
from experiments.run import run, from_arrays
from fl_sim import load
X, Y = np.random.default_rng(0).normal(size=(40, 3)).astype("float32"), np.arange(40) % 2
C = np.arange(40) % 4
def squared_error(outputs, y):
    return ((outputs - y) ** 2).mean(1)
def few(**own):
    return run(**{"task": from_arrays(X, Y, clients=C), "model": "lr", "rounds": 1, **own})
def data(**own):
    return few(task=from_arrays(**{"x": X, "y": Y, "clients": C, **own}))
def model(make, **own):
    return few(model=make, **own)
def text(name, lines):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(lines)
def picture(name, size=(8, 8), mode="RGB"):
    from PIL import Image
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(name)
def pictures():
    for half in ("train", "test"):
        for k in "ab":
            for n in range(4):
                picture(f"d/{half}/{k}/{n}.png")
def ran():
    return Path(run(model="lr", clients=4, rounds=1, out="old").summary["run_dir"])
def at(array, place, value):
    array = array.copy()
    array[place] = value
    return array
"""
"""What each input's code can use."""

FLAGS = {  # the words of a command -> what its error must say
    "--seed 0..1000000000000000000": "seed = '0\\.\\.1000000000000000000'",
    "--seed 0..99999999": "seed = '0\\.\\.99999999'",
    "--seed 5..1": "seed = '5\\.\\.1'",
    "--seed 1,1": "seed = '1,1'",
    "--seed 1,,2": "seed = ",
    "--seed -1": "seed = ",
    "--seed 9223372036854775808": "seed = ",
    "--threads 100000": "threads = '?100000",
    "--rounds 3 --rounds 4": "rounds = '4'",
    "--quiet --quiet": "quiet",
    "--strategy fedavg,fedavg": "strategy.* = '(fedavg,)?fedavg'",
    "--strategy fedavg,": "strategy",
    "--task os:getcwd": "task.name = 'os:getcwd'",
    "--task os:": "task.name = 'os:'",
    "--task :x": "task.name = ':x'",
    "--task no_module:x": "task.name = 'no_module:x'",
    "--task digit": "task.name = 'digit'.*'digits'",
    "--task mnist --data_dir /nowhere": "/nowhere",
    "--model shutil:rmtree": "model.name = 'shutil:rmtree'",
    "--model torch:load": "model.name = 'torch:load'",
    "--model builtins:eval": "model.name = 'builtins:eval'",
    "--model lenett": "model.name = 'lenett'.*'lenet'",
    "--model torch.nn:Module": "model.name = 'torch.nn:Module'",
    "--model torch.nn:Linear": "model.name = 'torch.nn:Linear'",
    "--strategy fedporx": "strategy.name = 'fedporx'.*'fedprox'",
    "--strategy flwr.serverapp.strategy:Strategy": "strategy.name = 'flwr.serverapp.strategy:Strategy'",
    "--strategy flwr.serverapp:Grid": "strategy.name = 'flwr.serverapp:Grid'",
    "--strategy collections.abc:Mapping": "strategy.name = 'collections.abc:Mapping'",
    "--strategy os:getcwd": "strategy.name = 'os:getcwd'",
    "--strategy os:path": "strategy.name = 'os:path'",
    "--strategy fedprox --strategy.muu 1": "strategy.muu = '1'.*mu",
    "--strategy fedavg --strategy.mu 1": "strategy.mu = '1'",
    "--strategy fedprox --strategy.mu -1": "strategy.mu = ",
    "--strategy fedprox --strategy.mu nan": "strategy.mu = ",
    "--strategy maml --strategy.order 3": "strategy.order = ",
    "--strategy fedavg,fedprox --strategy.maml.order 2": "strategy.maml.order = ",
    "--strategy flwr.serverapp.strategy:FedAvg --strategy.fraction_train nan": "strategy.fraction_train = ",
    "--strategy flwr.serverapp.strategy:FedTrimmedAvg --strategy.beta 0.9": "strategy.*beta",
    "--partition dirichlet --partition.alpha 0": "partition.alpha = ",
    "--partition dirichlet --partition.alpha -1": "partition.alpha = ",
    "--partition dirichlet --partition.alpha inf": "partition.alpha = ",
    "--partition os:getcwd": "partition.name = 'os:getcwd'",
    "--partition natural": "partition.name = 'natural'",
    "--partition shards --partition.per_client 0": "partition.per_client = ",
    "--partition shards --partition.per_client 1000000000000": "partition.per_client = ",
    "--partition.held_out 1": "partition.held_out = ",
    "--clients 1000000000000000000": "clients = 1000000000000000000",
    "--clients 5000": "clients = 5000",
    "--clients -4": "clients = ",
    "--clients 4 --cohort 5": "cohort = 5",
    "--clients 4 --holdout_clients 4": "holdout_clients = 4",
    "--clients 4 --holdout_clients 2 --cohort 3": "cohort = 3",
    "--validation 1": "validation = ",
    "--validation 0.99999": "validation = ",
    "--failures tolerate": "failures = 'tolerate'",
    "--failures tolerate:2": "failures = 'tolerate:2'",
    "--failures tolerate:nan": "failures = 'tolerate:nan'",
    "--failures ignore": "failures = 'ignore'",
    "--device gpu": "device = 'gpu'",
    "--device cuda:99": "device = 'cuda:99'",
    "--device cuda:-1": "device = 'cuda:-1'",
    "--precision tf32": "precision = 'tf32'",
    "--dtype float16": "dtype = 'float16'",
    "--local.epochs 2 --local.steps 2": "local.epochs",
    "--local.optimizer adam --local.momentum 0.9": "local.momentum = 0.9",
    "--local.optimizer sdg": "local.optimizer = 'sdg'.*'sgd'",
    "--strategy maml --local.lr 0.3": "local.lr = ",
    "--strategy maml --local.momentum 0.3": "local.momentum = ",
    "--local.last_batch drop --local.batch_size 0": "local.last_batch = 'drop'",
    "--personalize_lr 0.1": "personalize_lr = 0.1",
    "--personalize_steps 2": "personalize_steps = 2",
    "--engine loop --chunk 2": "chunk = 2",
    "--schedule_rounds 9": "schedule_rounds = 9",
    "--ray.num_workers 2": "ray.num_workers = 2",
    "--set_metrics f2": "set_metrics = 'f2'",
    "--set_metrics f1,f1": "set_metrics = 'f1,f1'",
    "--set_metrics ,": "set_metrics = ','",
    "--data_dir /nowhere": "data_dir = '/nowhere'",
    "--vmap_over local.lr": "vmap_over = 'local.lr'",
    "--vmap_over local.lr=": "vmap_over = 'local.lr='",
    "--vmap_over local.lr=nan": "local.lr = ",
    "--vmap_over local.lr=0.1,0.1": "vmap_over = 'local.lr=0.1,0.1'|local.lr",
    "--vmap_over rounds=1,2": "vmap_over = 'rounds=1,2'",
    "--resume nowhere": "resume = 'nowhere'",
    "--resume=": "resume = ''",
    "--fork nowhere@3": "fork = 'nowhere@3'|fork = 'nowhere'",
    "--fork=": "fork = ''",
    "--trust_pickle": "trust_pickle",
    "--app nowhere": "app = 'nowhere'|'nowhere'",
    "--run_config a=1": "run_config = 'a=1'",
    "--rounds": "rounds",
    "--rounds --json": "rounds",
    "--local 3": "local",
    "--local.lr=": "local.lr",
    "-r 3": "'-r'",
    "3": "'3'",
    "--rounds 3 4": "'4'",
    "-- --rounds 3": "--",
    "--": "--",
    "--=3": "= '3'",
    "--rounds 1e3": "rounds = '1e3'",
    "--rounds 0": "rounds = ",
    "--rounds 99999999999999999999": "rounds = ",
    "--local.batch_size 99999999999999999999": "local.batch_size = ",
    "--block_size 99999999999999999999": "block_size = ",
    "--local.steps 99999999999999999999": "local.steps = ",
    "--system.stragglers 1": "system.stragglers = ",
    "--system.max_examples 1": "system.max_examples = ",
    "--stop.target 2": "stop.target = ",
    "--target 85": "target = ",
    "--out /proc/nowhere": "/proc/nowhere",
    "--out /dev/null": "/dev/null",
    "no-such-recipe": "recipe = 'no-such-recipe'",
    "quickstar": "recipe = 'quickstar'.*'quickstart'",
    "nowhere.toml": "recipe = 'nowhere.toml'",
    "/": "recipe = '/'",
}
"""Command lines of ``experiments.run``."""

TOML = {  # lines of a recipe -> what its error must say, besides the name of the file
    "rounds = ": "bad.toml",
    "rounds = 3\nrounds = 4": "bad.toml",
    "rounds 3": "bad.toml",
    "[local": "bad.toml",
    "rounds = 'three'": "rounds = 'three'",
    "rounds = 3.0": "rounds = 3.0",
    "rounds = true": "rounds = True",
    "rounds = [3]": "rounds = \\[3\\]",
    "round = 3": "round = 3.*'rounds'",
    "lr = 0.1": "lr = 0.1.*'local.lr'",
    "local = 3": "local",
    "local.lr = nan": "local.lr = nan",
    "local.lr = inf": "local.lr = inf",
    "local.lr = '0.1'": "local.lr = '0.1'",
    "local.lr = 1979-05-27": "local.lr = ",
    "strategy = 3": "strategy.* = 3",
    "strategy = ['fedavg', 3]": "strategy.* = .*3",
    "strategy = []": "strategy.* = \\[\\]",
    "[strategy]\nmu = 0.1": "strategy.mu = 0.1",
    "[strategy]\nname = 'fedprox'\nmu = 'x'": "strategy.mu = 'x'",
    "[strategy.name]\na = 1": "strategy.name",
    "seed = '0..1000000000000000000'": "seed = '0\\.\\.1000000000000000000'",
    "seed = []": "seed = \\[\\]",
    "seed = [0, 0]": "seed = \\[0, 0\\]",
    "seed = 1.5": "seed = 1.5",
    "[local]\nepochs = 2\nsteps = 3": "local.epochs = 2, local.steps = 3|local.epochs",
    "[nonsense]\na = 1": "nonsense",
    "rounds = 0x": "bad.toml",
    "rounds = " + "[" * 5000 + "]" * 5000: "bad.toml",
    "[" + "a." * 5000 + "a]\nb = 1": "bad.toml",
    "\udcff": "bad.toml",
    "\0": "bad.toml",
    "resume = 'x'": "resume",
    "dry_run = true": "dry_run",
    "app = 3": "app = 3",
    "clients = 99999999999999999999999": "clients = 9+",
    "fork = 'nowhere@1'": "nowhere",
}
"""Recipes."""
