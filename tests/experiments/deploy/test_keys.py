"""Names of machines become names of files, which stay in their folder."""

from pathlib import Path

import pytest

from experiments.deploy import __main__ as deploy
from experiments.deploy import keys


@pytest.mark.parametrize(
    "hosts, message",
    [
        ("a,../../evil", "'../../evil' is no name or address"),
        ("../a,b", "'../a' is no name or address"),
        ("a,b/c", "'b/c' is no name"),
        ("a,b\\c", "is no name"),
        ("a,..", "'..' is no name"),
        ("a,.", "'.' is no name"),
        ("a,-rf", "'-rf' is no name"),
        ("a,fe80::1%../x", "is no name"),
        ("a,b\n", "different names"),
        ("a,ca", "must not be called 'ca'"),
        ("a,Server", "must not be called 'Server'"),
    ],
)
def test_keys_never_leave_their_folder(
    hosts: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in" / "it").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "in" / "it")
    hosts = "a,a" if hosts == "a,b\n" else hosts
    assert deploy.main(["keys", "--hosts", hosts]) == 2
    assert message in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [] and not Path("keys").exists()


def test_usual_names_get_keys_and_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["keys", "--hosts", "my-server.lan,pi_2,192.168.0.7,::1", "--out", str(tmp_path / "k")]
    assert deploy.main(call) == 0
    made = {file.name: file.read_bytes() for file in (tmp_path / "k").iterdir()}
    assert {"ca.crt", "server.key", "pi_2.key", "pi_2.pub", "192.168.0.7.key", "::1.key"} <= set(made)
    (tmp_path / "k" / "ca.crt").unlink()
    assert deploy.main(call) == 2 and "exists already; name another folder" in capsys.readouterr().err
    assert not (tmp_path / "k" / "ca.crt").exists()
    with pytest.raises(ValueError, match="no name or address"):
        keys.node_key(tmp_path, "../x")
