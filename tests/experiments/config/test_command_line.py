"""The command line: recipes, flags, several runs, help, and errors in one line."""

from pathlib import Path

import pytest

from experiments.config import recipe_files
from experiments.config.choices import PACKAGES, offered
from experiments.config.command_line import parse
from experiments.config.recipe_files import make
from experiments.config.schema import known_keys
from fl_sim.errors import ConfigError


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the only recipe beside a quickstart of two strategies."""
    (tmp_path / "prox.toml").write_text(
        "# A recipe\nrounds = 7\naugment = true\n[strategy]\nname = 'fedprox'\nmu = 0.5\n[local]\nsteps = 9\n"
    )
    (tmp_path / "quickstart.toml").write_text("rounds = 3\n[strategy]\nname = ['fedavg', 'maxpool']\n")
    monkeypatch.setattr(recipe_files, "RECIPES", tmp_path)
    return "prox"


def test_flags_give_what_python_gives() -> None:
    line = "--strategy fedprox --strategy.mu 0.3 --local.lr=1e-2 --partition dirichlet --partition.balance false"
    line += " --clients 20 --cohort 4"
    called = parse(
        [
            *line.split(),
            "--weighting",
            "uniform",
            "--target",
            "0.9",
            "--seed",
            "5",
            "--system.stragglers",
            "0.9",
            "--augment",
        ]
    )
    assert called.configs == [
        make(
            strategy={"name": "fedprox", "mu": 0.3},
            partition={"name": "dirichlet", "balance": False},
            local={"lr": 0.01},
            system={"stragglers": 0.9},
            clients=20,
            cohort=4,
            weighting="uniform",
            target=0.9,
            seed=5,
            augment=True,
        )
    ]
    assert (called.recipe, called.dry_run, called.quiet, called.json, called.app) == ("", False, False, False, "")


def test_dashes_and_underscores_are_the_same_and_names_keep_theirs() -> None:
    dashed = parse(
        [
            "--evaluate-every",
            "2",
            "--local.batch-size",
            "8",
            "--partition.held-out=0.1",
            "--partition=dirichlet-client",
            "--dry-run",
        ]
    )
    under = parse(
        [
            "--evaluate_every",
            "2",
            "--local.batch_size",
            "8",
            "--partition.held_out=0.1",
            "--partition",
            "dirichlet-client",
            "--dry_run",
        ]
    )
    assert dashed == under and dashed.dry_run
    common = {"seed": 0, "held_out": 0.1, "unseen_held_out": None, "feature_shift": 0.0}
    assert dashed.configs[0].partition.params == {"alpha": 0.5, **common}


def test_a_recipe_gives_the_defaults_and_flags_override_them(recipe: str) -> None:
    [config] = parse([recipe, "--rounds", "2", "--augment", "false"]).configs
    assert (config.rounds, config.augment, config.strategy.params, config.local.steps) == (2, False, {"mu": 0.5}, 9)
    [config] = parse(["--quiet", recipe, "--local.epochs", "2"]).configs
    assert (config.local.epochs, config.local.steps, config.rounds) == (2, 0, 7)
    [config] = parse(
        [recipe, "--strategy", "maml"]
    ).configs  # which refuses steps: the recipe's are of another strategy
    assert config.local.steps == 0 and config.rounds == 7


def test_only_a_call_without_recipe_and_settings_is_the_quickstart(recipe: str) -> None:
    for argv in ([], ["--quiet", "--json"], ["--dry-run"], ["--out", "elsewhere"], ["--out", "elsewhere", "--quiet"]):
        called = parse(argv)
        assert called.recipe == "quickstart" and [c.strategy.name for c in called.configs] == ["fedavg", "maxpool"]
        assert called.configs[0].out == ("elsewhere" if "--out" in argv else "runs")
    for argv in (["--seed", "0"], ["--seed", "0", "--out", "elsewhere"], ["--app", "folder"]):
        called = parse(argv)
        assert (
            called.recipe == ""
            and [c.strategy.name for c in called.configs] == ["fedavg"]
            and called.configs[0].rounds == 10
        )
    assert called.app == "folder"


def test_the_config_of_a_run_runs_again(tmp_path: Path) -> None:
    for config in parse(
        ["--strategy", "maml,fedprox", "--seed", "1,2", "--local.steps", "3", "--task", "synthetic"]
    ).configs:
        path = tmp_path / "config.toml"
        path.write_text(config.to_toml())
        assert parse([str(path)]).configs == [config]


def test_several_runs_are_strategies_times_seeds() -> None:
    called = parse(["--strategy", "reptile,fedprox", "--seed", "1..2", "--strategy.mu", "0.2"])
    order = [("reptile", 1), ("reptile", 2), ("fedprox", 1), ("fedprox", 2)]
    assert [(c.strategy.name, c.seed) for c in called.configs] == order
    assert called.configs[2].strategy.params == {"mu": 0.2} and called.configs[0].strategy.params["epsilon"] == 0.5


def test_a_parameter_of_two_strategies_is_read_by_the_type_of_either() -> None:
    assert parse(["--strategy", "maml", "--strategy.order", "2"]).configs[0].strategy.params["order"] == 2
    assert parse(["--strategy", "perfedavg", "--strategy.order", "hf"]).configs[0].strategy.params["order"] == "hf"
    with pytest.raises(ConfigError, match="strategy.order = 'hf': must be 1 or 2"):
        parse(["--strategy", "perfedavg,maml", "--strategy.order", "hf"])


def test_a_parameter_for_one_of_several_strategies() -> None:
    line = (
        "--strategy maml,perfedavg,fedprox --strategy.inner_lr 0.3 --strategy.maml.order 2 --strategy.maml.inner_lr .1"
    )
    maml, perfedavg, fedprox = parse(line.split()).configs
    assert (maml.strategy.params["order"], maml.strategy.params["inner_lr"]) == (2, 0.1)
    assert (perfedavg.strategy.params["order"], perfedavg.strategy.params["inner_lr"]) == ("fo", 0.3)
    assert maml.to_dict()["strategy"]["order"] == 2 and fedprox.strategy.params == {"mu": 0.01}
    assert maml == make(strategy={"name": "maml", "maml": {"order": 2, "inner_lr": 0.1}})
    assert maml == make(strategy="maml", **{"strategy.order": 2, "strategy.maml.inner_lr": 0.1})


def test_a_parameter_for_one_strategy_and_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "both.toml"
    path.write_text("[strategy]\nname = ['maml', 'perfedavg']\ninner_lr = 0.3\n[strategy.maml]\norder = 2\n")
    own = ["--strategy.maml.inner_lr", ".1"]
    calls = [[], own, ["--strategy", "maml", *own], ["--strategy", "maml", "--strategy.order", "1"]]
    expected = [[(2, 0.3), ("fo", 0.3)], [(2, 0.1), ("fo", 0.3)], [(2, 0.1)], [(1, 0.3)]]
    for flags, numbers in zip([*calls, ["--strategy", "perfedavg"]], [*expected, [("fo", 0.3)]], strict=True):
        chosen = [config.strategy.params for config in parse([str(path), *flags]).configs]
        assert [(params["order"], params["inner_lr"]) for params in chosen] == numbers


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--vmap_over local.lr=.1,.2", "leave '--vmap_over' out"),
        ("--seed 0,1", "the strategies and seeds given make 2; leave them out"),
        ("--strategy reptile,fedavg", "the strategies and seeds given make 2"),
        ("--fork runs/x", "leave '--fork' out"),
        ("quickstart", "leave 'quickstart' out"),
    ],
)
def test_one_run_is_resumed(flags: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(make().to_toml())
    assert len(parse(["--resume", str(tmp_path)]).configs) == 1
    with pytest.raises(ConfigError, match=f"^resume = .*{message}"):
        parse([*flags.split(), "--resume", str(tmp_path)])
    (tmp_path / "config.toml").write_text("app = 'an/app'\n")
    with pytest.raises(ConfigError, match="it is the run of a Flower app"):
        parse(["--resume", str(tmp_path)])


def test_a_batch_means_nothing_to_an_app(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('app = "here"\n')
    with pytest.raises(ConfigError, match="vmap_over = 'local.lr=.1,.2': means nothing to a Flower app"):
        parse([str(path), "--vmap_over", "local.lr=.1,.2"])


def test_an_empty_word_is_no_recipe() -> None:
    for argv in ([""], ["--resume", ""], ["--fork", " ", "--rounds", "3"], ["--app", ""]):
        with pytest.raises(ConfigError, match="an unset variable of the shell"):
            parse(argv)
    assert parse(["--seed", "0", "--set_metrics", ""]).configs[0].set_metrics == ""


@pytest.mark.parametrize(
    "line, message",
    [
        ("--rounds abc", "rounds = 'abc': must be a whole number, such as 3"),
        ("--rounds 1.5", "rounds = '1.5': must be a whole number, such as 3"),
        (
            "--time_limit 1h",
            "time_limit = '1h': must be a number, such as 0.1 or 1e-3; leave the unit out (--",
        ),
        ("--cohort 10%", "cohort = '10%': must be a whole number, such as 3; leave the unit out (--help"),
        (
            "--validation 20%",
            "validation = '20%': must be a number, such as 0.1 or 1e-3; leave the unit out, such",
        ),
        ("--seed a", "seed = 'a': must be a whole number, such as 3, or several as 0,1,2 or 0..4"),
        ("-rounds 3", "'-rounds': unexpected; a call is [RECIPE] [--key value ...] (did you mean --rounds?)"),
        ("--rounds -1", "rounds = -1: must be greater than or equal to 1"),
        ("--rounds", "rounds: has no value"),
        ("--rounds --quiet", "rounds: has no value"),
        ("--strategy", "strategy.name: has no value"),
        ("--rouns 3", "rouns = '3': unknown key (did you mean 'rounds'?)"),
        ("--lr 0.1", "lr = '0.1': unknown key (did you mean 'local.lr'?)"),
        ("--recipe digits", "recipe = 'digits': unknown key"),
        ("--strategy fedprx", "strategy.name = 'fedprx': unknown (did you mean 'fedprox'?)"),
        ("--strategy.mu 0.1", "strategy.mu = '0.1': strategy fedavg takes no such parameter"),
        (
            "--strategy fedprox --strategy.mo 0.1",
            "strategy.mo = '0.1': strategy fedprox takes no such parameter (did you mean 'mu'?)",
        ),
        ("--local.lr nan", "local.lr = nan: must be a finite number"),
        ("--local.lr=inf", "local.lr = inf: must be a finite number"),
        ("--local.optimizer sdg", "local.optimizer = 'sdg': must be 'sgd', 'adam' or 'adamw' (did you mean 'sgd'?)"),
        ("--local.lr 0.1 --quiet --engine rays", "engine = 'rays': must be 'auto', 'loop', 'vmap', 'ray' or 'flower'"),
        ("--augment=maybe", "augment = 'maybe': must be a valid boolean"),
        ("--local.epochs 2 --local.steps 3", "local.epochs = 2, local.steps = 3: both at once"),
        ("--strategy maml --local.epochs 2", "local.epochs = 2: means nothing to maml"),
        ("--cohort 100", "cohort = 100: only 10 clients train"),
        ("--seed 0..x", "seed = '0..x': must be a whole number, such as 3, or several as 0,1,2 or 0..4"),
        ("nosuchrecipe", "recipe = 'nosuchrecipe': unknown"),
        ("no/such.toml", "recipe = 'no/such.toml': no such file"),
        ("--rounds 3 --rounds 5", "rounds = '5': is given twice (first '3'); give it once"),
        ("--quiet --local.lr=.1 --quiet", "quiet = 'true': is given twice; give it once"),
        ("--strategy maml --strategy.name fedavg", "strategy.name = 'fedavg': is given twice (first 'maml')"),
        ("--strategy fedavg,fedavg", "strategy.name = 'fedavg': is named twice"),
        ("--resume=", "resume = '': is empty; an unset variable of the shell?"),
        ("--fork=", "fork = '': is empty"),
        ("--trust_pickle", "trust_pickle = true: is for a checkpoint"),
        ("--run_config x=1", "run_config = 'x=1': is the config of a Flower app; give it with --app"),
        ("--out= --rounds 3", "out = '': is empty"),
        ("--seed 0..1000000000000000000", "seed = '0..1000000000000000000': names 1000000000000000001 seeds"),
        ("--vmap_over seed=0..1000000000000000000", "seed = '0..1000000000000000000': names 100"),
        ("--seed 3 --vmap_over seed=0,1", "vmap_over = 'seed=0,1': seed has a value of its own"),
        ("--vmap_over local.lr=.1;local.lr=.2", "vmap_over = 'local.lr=.1;local.lr=.2': names local.lr twice"),
        ("--vmap_over local.lr=.1,0.10", "vmap_over = 'local.lr=.1,0.10': names a value twice"),
        ("--strategy maml,fedavg --strategy.fedprox.mu 1", "strategy.fedprox.mu = '1': fedprox is no strategy of this"),
        ("--strategy maml --strategy.maml.mu 1", "strategy.mu = '1': strategy maml takes no such parameter"),
        ("--strategy maml --strategy.maml.order 3", "strategy.maml.order = '3': must be 1 or 2"),
        ("--strategy maml --strategy.maml.order", "strategy.maml.order: has no value"),
        ("--strategy maml,reptile --strategy.order 1 --strategy.maml.order 2", "strategy.order = 1: maml has a value"),
        ("a b", "'b': unexpected; a call is [RECIPE] [--key value ...], RECIPE is 'a'"),
        ("-r 5", "'-r': unexpected"),
    ],
)
def test_errors_are_one_line_with_key_value_and_the_nearest_name(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(line.split())
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")  # tyro's own boxes are not shown beside it


def test_help_lists_every_flag_its_default_and_the_names(
    capsys: pytest.CaptureFixture[str], recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")  # wide terminals get two columns
    with pytest.raises(SystemExit) as caught:
        parse([recipe, "--strategy", "fedprox,reptile", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert [key for key in [*known_keys(), "dry_run", "quiet", "json", "app"] if f"--{key} " not in text] == []
    words = " ".join(text.replace("│", " ").split())
    assert all(name in words for kind in PACKAGES for name in offered(kind))
    assert (
        "Strength of the pull toward the global model. (default: 0.5)" in words
    )  # the recipe's mu, not the signature's
    assert (
        "--strategy.epsilon" in words
        and "settings that count rounds. (default: 7)" in words
        and "prox, quickstart" in words
    )


@pytest.mark.parametrize(("text", "value"), [("false", False), ("true", True), ("None", None)])
def test_a_switch_that_may_be_left_open_is_read_as_others_are(text: str, value: bool | None) -> None:
    [config] = parse(["--codec", "topk", "--codec.feedback", text]).configs
    assert config.codec.params["feedback"] is value
