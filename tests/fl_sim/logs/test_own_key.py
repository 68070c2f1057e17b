"""The key of this user: made once, for its owner only; what it did not sign does not fit."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fl_sim.logs import own_key


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a key."""
    monkeypatch.setenv("FL_SIM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_key_is_made_on_first_use_and_only_its_owner_can_read_it(home: Path) -> None:
    assert not own_key.fits("p", b"data", "") and not home.exists()  # to compare makes no key
    with ThreadPoolExecutor(4) as pool:
        signatures = set(pool.map(lambda _: own_key.sign("p", b"data"), range(8)))
    assert len(signatures) == 1 and own_key.fits("p", b"data", signatures.pop())
    assert [file.name for file in home.iterdir()] == ["key"] and own_key.key_file() == home / "key"
    assert stat.S_IMODE((home / "key").stat().st_mode) == 0o600 and (home / "key").stat().st_size == 32


def test_other_bytes_another_purpose_and_another_key_do_not_fit(home: Path) -> None:
    signature = own_key.sign("p", b"data")
    for purpose, data in (("p", b"date"), ("q", b"data")):
        assert not own_key.fits(purpose, data, signature)
    (home / "key").unlink()
    assert not own_key.fits("p", b"data", signature) and own_key.sign("p", b"data") != signature
    assert not own_key.fits("p", b"data", "ä")


def test_a_key_that_others_can_read_or_that_is_damaged_is_not_used(home: Path) -> None:
    signature = own_key.sign("p", b"data")
    (home / "key").chmod(0o640)
    assert own_key.sign("p", b"data") == ""
    with pytest.raises(ValueError, match="chmod 600"):
        own_key.fits("p", b"data", signature)
    (home / "key").chmod(0o600)
    (home / "key").write_bytes(b"short")
    with pytest.raises(ValueError, match="has 5 bytes, not 32"):
        own_key.fits("p", b"data", signature)


def test_without_a_place_for_the_key_nothing_is_signed(home: Path) -> None:
    home.write_text("a file")
    assert own_key.sign("p", b"data") == "" and not own_key.fits("p", b"data", "x")
    assert os.environ["FL_SIM_HOME"] == str(home)
