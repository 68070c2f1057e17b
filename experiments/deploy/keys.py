"""Certificates and node keys of a deployment.

A certificate authority of the deployment (EC P-256) signs the SuperLink's certificate, which names its hosts. Each
device has an EC P-384 key, whose public half is registered with the SuperLink. Private files can be read by their owner
only.
"""

import ipaddress
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAYS = 825
"""Validity of certificates, in days."""
LOCAL = ("localhost", "127.0.0.1")
"""Names by which every server can be reached from itself."""
HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?")
"""A name of a machine: it becomes a part of a file's name, so that it has no slash and is not ``..``."""
RESERVED = ("ca", "server")
"""Names of files that a device's key must not have."""


def check_names(server: str, devices: Sequence[str]) -> None:
    """Raise ValueError for what is no name or address of a machine, and for a device whose key would overwrite another.

    Every file name of a deployment is made from such a name: none leaves its folder.
    """
    for name in (server, *devices):
        if not HOST.fullmatch(name) and not _is_address(name):
            allowed = "letters, digits, dots, dashes and underscores"
            raise ValueError(f"hosts: {name!r} is no name or address of a machine; it must have {allowed}")
    for name in devices:
        if name.lower() in RESERVED:
            raise ValueError(f"hosts: a device must not be called {name!r}, because {name}.key is the deployment's own")


def check_free(folder: Path, devices: Sequence[str]) -> None:
    """Raise FileExistsError where the folder has one of a deployment's files already, before any is written."""
    names = [f"{name}.{end}" for name in RESERVED for end in ("crt", "key")]
    for name in (*names, *(f"{device}.{end}" for device in devices for end in ("key", "pub"))):
        if (folder / name).exists():
            raise FileExistsError(f"{folder / name} exists already; name another folder with --out, or delete it")


def certificates(folder: Path, hosts: Sequence[str]) -> None:
    """Write the certificates of a deployment into ``folder``.

    ``ca.crt`` is for every machine, ``server.crt`` and ``server.key`` are for the SuperLink, and ``ca.key`` stays where
    it is.

    Parameters
    ----------
    folder : Path
        Where to write; it is created if it is missing.
    hosts : sequence of str
        Names and addresses by which devices reach the SuperLink.

    Raises
    ------
    FileExistsError
        Where the folder has such a file already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ca_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = _name("fl-sim certificate authority")
    ca = _builder(ca_name, ca_name, ca_key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    ca = ca.add_extension(_usage(signs=True), critical=True)
    server = _builder(_name(hosts[0]), ca_name, server_key.public_key()).add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    )
    names = [_general(host) for host in dict.fromkeys((*hosts, *LOCAL))]
    server = server.add_extension(x509.SubjectAlternativeName(names), critical=False).add_extension(
        _usage(signs=False), critical=True
    )
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    server = server.add_extension(authority, critical=False)
    ca = ca.add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
    for name, certificate in (
        ("ca", ca.sign(ca_key, hashes.SHA256())),
        ("server", server.sign(ca_key, hashes.SHA256())),
    ):
        _write(folder / f"{name}.crt", certificate.public_bytes(serialization.Encoding.PEM), private=False)
    _write(folder / "ca.key", _pem(ca_key), private=True)
    _write(folder / "server.key", _pem(server_key), private=True)


def node_key(folder: Path, name: str) -> None:
    """Write ``NAME.key`` for the device and ``NAME.pub`` to be registered.

    Raises FileExistsError where one exists, and ValueError for a name that is none of a machine.
    """
    check_names(name, [name])
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    _write(folder / f"{name}.key", private, private=True)
    _write(folder / f"{name}.pub", public + b"\n", private=False)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host  # the zone of an IPv6 address may hold any characters


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # the clock of a small device may be slow
        .not_valid_after(now + timedelta(days=DAYS))
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(file: Path, data: bytes, private: bool) -> None:
    """Write a new file. Raises FileExistsError where it exists."""
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644), "wb") as opened:
        opened.write(data)
