"""The cases of ``experiments.bench.engines``: flags by name, at least one for each file of ``experiments/recipes``.

Recipes are shortened where they take long: the numbers of clients a round are those of the recipe or 16, the most that
a block of few clients has, so that ``auto`` decides as it does for the recipe.
"""

WAVES = "--clients 2010 --holdout_clients 10 --personalize_clients 10"
FEW = "--clients 110 --holdout_clients 10 --personalize_clients 10"
EPISODES = f"--model.norm group {FEW} --personalize_queries together"
CASES = {
    "quickstart": "quickstart",
    "fedprox-synthetic, 4 epochs": "fedprox-synthetic --local.epochs 4",
    "digits-deploy": "digits-deploy",
    "mcmahan-2nn": "mcmahan-2nn",
    "million-clients, 200 a round": "million-clients --cohort 200",
    "cifar10-strategies": "cifar10-strategies --strategy fedavg,maml,perfedavg",
    "cifar10-noniid": "cifar10-noniid",
    "pfl-cifar10, 16 a round": "pfl-cifar10 --cohort 16",
    "founding-pooling, 10 steps": "founding-pooling --local.steps 10",
    "founding-pooling-l2, 10 steps": "founding-pooling-l2 --local.steps 10",
    "founding-pooling-mean, 10 steps": "founding-pooling-mean --local.steps 10",
    "founding-meta": "founding-meta",
    "adaptive-digits": "adaptive-digits",
    "collaborative-attacked": "collaborative-attacked",
    "hierarchical-mnist": "hierarchical-mnist",
    "founding-vision, 10 steps, no silo": "founding-vision --local.steps 10",
    "silo-mnist, 100 steps, no silo": "silo-mnist --local.steps 100",
    "shakespeare, 5 steps": "shakespeare --local.steps 5",
    "fedbn-mnist": "fedbn-mnist",
    "sinusoid-reptile": f"sinusoid-reptile {WAVES}",
    "sinusoid-fedreptile": f"sinusoid-fedreptile {WAVES}",
    "sinusoid-fomaml": f"sinusoid-fomaml {WAVES}",
    "sinusoid-maml": f"sinusoid-maml {WAVES}",
    "sinusoid-joint": f"sinusoid-joint {WAVES}",
    "omniglot-reptile": f"omniglot-reptile {FEW}",
    "omniglot-fomaml, 16 a round": f"omniglot-fomaml --cohort 16 {FEW}",
    "omniglot-maml, 16 a round": f"omniglot-maml --cohort 16 {FEW}",
    "omniglot-anil, 16 a round": f"omniglot-anil --cohort 16 {FEW}",
    "omniglot-r2d2, 16 a round": f"omniglot-r2d2 --cohort 16 {FEW}",
    "omniglot-metaoptnet, 16 a round": f"omniglot-metaoptnet --cohort 16 {FEW}",
}
"""Flags of each case by its name. Silos train on the loop alone: their recipes are measured without."""
META = {
    "sinusoid-fedreptile, 10 waves a round": f"sinusoid-fedreptile {WAVES}",
    "sinusoid-fedreptile, 100 waves a round": f"sinusoid-fedreptile --cohort 100 --block_size 100 {WAVES}",
    "sinusoid-fomaml, 25 waves a round": f"sinusoid-fomaml --cohort 25 {WAVES}",
    "sinusoid-maml, 25 waves a round": f"sinusoid-maml --cohort 25 {WAVES}",
    "omniglot-fomaml, GroupNorm, 16 episodes": f"omniglot-fomaml --cohort 16 {EPISODES}",
    "omniglot-maml, GroupNorm, 16 episodes": f"omniglot-maml --cohort 16 {EPISODES}",
    "omniglot-maml, GroupNorm, 8 filters, 32 episodes": f"omniglot-maml --model.width 8 --cohort 32 {EPISODES}",
}
"""The same of meta-learning (``--meta``); Omniglot's network has GroupNorm, since BatchNorm runs on the loop alone."""
