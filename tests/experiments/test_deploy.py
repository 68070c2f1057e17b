"""``experiments.deploy`` without a deployment: input, keys, commands, and processes that leave nothing behind."""

import contextlib
import os
import shlex
import signal
import ssl
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from experiments.deploy import keys
from experiments.deploy.__main__ import main, without
from experiments.deploy.bundle import APP, PROJECT, write_bundle
from experiments.deploy.commands import ENVIRONMENT, Link, run
from experiments.deploy.local import free_ports
from experiments.deploy.processes import PROC, Processes, marked

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["up", "--auth"], "add --tls"),
        (["up", "--nodes", "x"], "nodes = 'x'"),
        (["up", "--nodes"], "nodes: has no value"),
        (["up", "--nodes", "-1"], "nodes = -1"),
        (["up", "--recipe", "nosuch"], "recipe = 'nosuch'"),
        (["up", "--rounds", "0"], "rounds = "),
        (["up", "--strategy", "fedprx"], "fedprox"),
        (["up", "--nodes", "3", "--clients", "4"], "one node is one client"),
        (["up", "--nodes", "2", "--cohort", "3"], "cohort = 3"),
        (["plan"], "hosts = ''"),
        (["plan", "--hosts", "a,b", "--no_tls"], "add --no_auth"),
        (["keys", "--hosts", "a,a"], "hosts = 'a,a'"),
        (["down"], "'down': unknown"),
    ],
)
def test_bad_input_exits_2_before_anything_starts(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_the_plan_has_all_that_is_typed_and_every_command_parses(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            [
                "plan",
                "--hosts",
                "server.lan,laptop,pi",
                "--recipe",
                "digits-deploy",
                "--strategy",
                "fedprox",
                "--strategy.mu",
                "0.01",
            ]
        )
        == 0
    )
    text = capsys.readouterr().out
    for part in (
        "flower-superlink",
        "--enable-supernode-auth",
        "--superlink server.lan:8000",
        "keys/pi.key",
        "register keys/laptop.pub",
    ):
        assert part in text
    nodes = [shlex.split(line) for line in text.splitlines() if line.startswith("python -m clients.node")]
    assert [line[-1] for line in nodes] == ["partition-id=0 num-partitions=2", "partition-id=1 num-partitions=2"]
    [typed] = [shlex.split(line) for line in text.splitlines() if line.startswith("flwr run")]
    run_config = tomllib.loads(typed[-1].replace('" ', '"\n'))
    assert run_config == {"args": "digits-deploy --strategy fedprox --strategy.mu 0.01 --clients 2"}
    assert set(run_config) <= set(PYPROJECT["tool"]["flwr"]["app"]["config"])


def test_keys_are_ones_that_tls_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "keys"
    assert (
        main(["keys", "--hosts", "server.lan,10.0.0.7", "--out", str(folder)]) == 0
        and "server.key to server.lan" in capsys.readouterr().out
    )
    server = x509.load_pem_x509_certificate((folder / "server.crt").read_bytes())
    ca = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    server.verify_directly_issued_by(ca)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["server.lan", "localhost"]
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder / "server.crt", folder / "server.key")
    private = load_ssh_private_key((folder / "10.0.0.7.key").read_bytes(), None)
    public = load_ssh_public_key((folder / "10.0.0.7.pub").read_bytes())
    assert (
        isinstance(private, ec.EllipticCurvePrivateKey)
        and private.public_key() == public
        and private.curve.name == "secp384r1"
    )
    modes = {file.name: oct(file.stat().st_mode & 0o077) for file in folder.iterdir()}
    assert {name for name, mode in modes.items() if mode == "0o0"} == {"ca.key", "server.key", "10.0.0.7.key"}
    with pytest.raises(FileExistsError):
        keys.certificates(folder, ["server.lan"])


def test_run_config_can_say_what_a_shell_can() -> None:
    words = run("digits-deploy --out '/a b'", report="x")
    assert tomllib.loads(words[-1].replace('" ', '"\n'))["args"] == "digits-deploy --out '/a b'"
    with pytest.raises(ValueError, match="both kinds of quotes"):
        run("""a'b"c""")
    assert without(["a", "--out", "x", "--rounds", "1", "--out=y"], "--out") == ["a", "--rounds", "1"]


def test_the_connection_is_what_flower_reads() -> None:
    connection = tomllib.loads(Link("server", 8000, tls=True).connection())["superlink"]
    assert connection[connection["default"]] == {"address": "server:8000", "root-certificates": "keys/ca.crt"}
    assert tomllib.loads(Link("server").connection())["superlink"]["deployment"]["insecure"] is True


def test_ports_are_different() -> None:
    assert len(set(free_ports(5))) == 5


SLEEP = "import time; print('up', flush=True); time.sleep(600)"
CHILD = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True); {SLEEP}"


needs_proc = pytest.mark.skipif(not PROC.exists(), reason="there is no /proc to look into")


@needs_proc
def test_processes_end_with_all_their_children_whatever_happens(tmp_path: Path) -> None:
    """Children in other sessions, one that ignores SIGTERM, and a parent that was killed before them."""
    stubborn = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
    with pytest.raises(RuntimeError), Processes(tmp_path, os.environ) as processes:  # noqa: PT012
        started = [
            processes.start(name, [sys.executable, "-c", code], tmp_path)
            for name, code in (("a", CHILD), ("b", stubborn))
        ]
        wait_for(lambda: processes.tail("a").count("up") == 2 and "up" in processes.tail("b"))
        started[0].kill()
        wait_for(lambda: len(marked(processes.mark)) == 2)
        processes.stop(patience_s=1.0)
        assert not marked(processes.mark)
        processes.start("c", [sys.executable, "-c", CHILD], tmp_path)
        raise RuntimeError
    assert not marked(processes.mark)


@needs_proc
def test_a_killed_owner_takes_its_processes_along(tmp_path: Path) -> None:
    owner = (
        "import os, sys, time; from pathlib import Path; from experiments.deploy.processes import Processes\n"
        "with Processes(Path(sys.argv[1]), os.environ) as p:\n"
        f"    p.start('a', [sys.executable, '-c', {CHILD!r}], Path('.')); print(p.mark, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", owner, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    mark = process.stdout.readline().strip()
    wait_for(lambda: len(marked(mark)) == 2)
    process.kill()
    process.wait()
    wait_for(lambda: not marked(mark))


def wait_for(true: "object", seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


def test_commands_and_services_in_the_document_work(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/deployment.md: its commands are accepted, its services have ENVIRONMENT, its config keys exist."""
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    commands = [line for line in text.splitlines() if line.startswith("python -m experiments.deploy plan")]
    assert commands
    for line in commands:
        assert main(shlex.split(line)[3:]) == 0
    planned = capsys.readouterr().out
    services = [shlex.split(line.partition("=")[2])[1:] for line in text.splitlines() if line.startswith("ExecStart")]
    typed = [
        shlex.split(line)[1:]
        for line in planned.splitlines()
        if line.startswith(("flower-superlink", "python -m clients.node"))
    ]
    assert len(services) == 2 and all(service in typed for service in services)
    environment = [
        line.partition("=")[2].split() for line in text.splitlines() if line.startswith("Environment=FLWR_D")
    ]
    assert environment == [[f"{k}={v}" for k, v in ENVIRONMENT.items()]] * 2
    assert all(f"`{key}`" in text for key in ("node-timeout-s",)) and set(
        PYPROJECT["tool"]["flwr"]["app"]["config"]
    ) >= {
        "args",
        "node-timeout-s",
    }


def test_the_app_of_a_bundle_is_the_app_of_a_checkout() -> None:
    """``flwr run .`` in a checkout and ``experiments.deploy up`` start the same app with the same defaults."""
    assert {key: PYPROJECT["tool"]["flwr"]["app"][key] for key in APP} == APP
    assert {key: PYPROJECT["project"][key] for key in PROJECT} == PROJECT


@pytest.mark.slow
def test_the_bundle_holds_the_code_and_nothing_else(tmp_path: Path) -> None:
    write_bundle(tmp_path / "app")
    env = os.environ | ENVIRONMENT | {"FLWR_HOME": str(tmp_path / "home")}
    command = [str(Path(sys.executable).parent / "flwr"), "build", "--app", str(tmp_path / "app")]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [bundle] = tmp_path.glob("*.fab")
    names = zipfile.ZipFile(bundle).namelist()
    packages = {name.partition("/")[0] for name in names}
    assert packages == {"fl_sim", "strategies", "clients", "experiments", "pyproject.toml", ".info"}
    assert "experiments/recipes/digits-deploy.toml" in names and not [
        n for n in names if "bench/" in n or "results/" in n or "studies/" in n or "test" in n
    ]
    assert bundle.stat().st_size < 3 * 2**20


@pytest.mark.slow
def test_an_interrupted_deployment_leaves_nothing_behind(tmp_path: Path) -> None:
    """Ctrl-C while the nodes are coming up: exit code 130, and no process whose environment names its folder."""
    command = [sys.executable, "-m", "experiments.deploy", "up", "--nodes", "1", "--out", str(tmp_path / "runs")]
    env = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "flwr run" in line:
            break
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and "all processes of this deployment have ended" in rest
    assert not list(tmp_path.glob("fl-sim-deploy-*"))
    if Path("/proc/self/environ").exists():
        assert not [pid for pid in processes_of(str(tmp_path)) if pid not in (os.getpid(), process.pid)]


def processes_of(folder: str) -> list[int]:
    """Processes that were started with ``folder`` in their FLWR_HOME."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if f"FLWR_HOME={folder}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found
