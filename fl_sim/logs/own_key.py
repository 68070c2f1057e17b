"""The key of this user, by which a file shows that this user's programs wrote it.

Unpickling runs whatever code a file names. So what only pickle can hold is written with an HMAC, and read again where
the HMAC is that of this user's key. The key is in the file ``key`` of the folder FL_SIM_HOME (default: ``~/.fl-sim``).
It is made when it is first used, and only its owner can read it.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

NUM_BYTES = 32
"""Length of the key."""


def key_file() -> Path:
    """The file of the key; it need not exist."""
    return Path(os.environ.get("FL_SIM_HOME") or "~/.fl-sim").expanduser() / "key"


def sign(purpose: str, data: bytes) -> str:
    """The HMAC-SHA256 (hex) of ``data`` for a purpose; makes the key where there is none.

    Returns an empty text, which fits no key, where the key can be neither made nor read.
    """
    try:
        key = _read() or _make()
    except (OSError, ValueError):
        return ""
    return _hmac(key, purpose, data)


def fits(purpose: str, data: bytes, signature: str) -> bool:
    """Whether ``signature`` is what ``sign`` returned for this purpose and these bytes, with this user's key.

    Raises ValueError that names the key's file where others can read it, or it is damaged.
    """
    try:
        key = _read()
    except OSError:
        return False
    return bool(key) and hmac.compare_digest(_hmac(key, purpose, data).encode(), signature.encode())


def _hmac(key: bytes, purpose: str, data: bytes) -> str:
    return hmac.new(key, f"{purpose}\0".encode() + data, hashlib.sha256).hexdigest()


def _read() -> bytes:
    """The key; empty where there is none. Raises ValueError for one that is not to be used."""
    file = key_file()
    try:
        mode, key = file.stat().st_mode, file.read_bytes()
    except FileNotFoundError:
        return b""
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise ValueError(f"FL_SIM_HOME: others can read or write {file}, so it proves nothing; delete it, or chmod 600")
    if len(key) != NUM_BYTES:
        raise ValueError(f"FL_SIM_HOME: {file} has {len(key)} bytes, not {NUM_BYTES}; delete it, and a new one is made")
    return key


def _make() -> bytes:
    """A new key in its file; that of another process where that was faster."""
    file = key_file()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = file.with_name(f".key.{secrets.token_hex(8)}")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(secrets.token_bytes(NUM_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(new, file)  # unlike a rename, it never replaces the key of another process
    finally:
        new.unlink(missing_ok=True)
    return _read()
