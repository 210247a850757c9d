"""How is an https arm verified, and what is it shown? By contexts, built once for what their files hold."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache

from routing.types import Tls

_Stamp = tuple[int, int, int]
_PLAIN = Tls()


class BadTls(Exception):
    """An arm cannot be verified, or shown a certificate, as it is described: says which file, and why."""


def client_context(tls: Tls | None, server_name: str) -> ssl.SSLContext:
    """The context for connections to an arm: the same one as long as its files are the same.

    Without a CA of its own the arm is verified by the system's. The certificate it shows must be valid, for
    `server_name`; TLS is 1.2 or later.

    Raises:
        BadTls: a file cannot be used, or the name is none that a certificate can be for.
    """
    tls = tls or _PLAIN
    files = (tls.ca, tls.certificate, tls.key)
    stamps = tuple(_stamp(name, path) for name, path in zip(("ca", "certificate", "key"), files, strict=True))
    context = _context(*files, (*stamps, *_system_stamps(tls)))
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=server_name)
    except (ssl.SSLError, TypeError, ValueError) as error:
        raise BadTls(f"server name {server_name!r} cannot be verified: {error}") from error
    return context


@lru_cache(maxsize=1024)
def _context(
    ca: str | None, certificate: str | None, key: str | None, stamps: tuple[_Stamp | None, ...]
) -> ssl.SSLContext:
    """`stamps` stand for what is in the files, so that other contents make another context."""
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as error:
        raise BadTls(f"tls.ca must be a file of PEM certificates, got {ca!r}: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if certificate is not None:
        try:
            # an empty password, because the library would ask for one on the terminal
            context.load_cert_chain(certificate, key, password="")
        except (OSError, ValueError) as error:
            files = f"{certificate!r} and {key!r}" if key is not None else repr(certificate)
            bound = "tls.certificate and tls.key must be a PEM chain and its key without a password"
            raise BadTls(f"{bound}, got {files}: {error}") from error
    return context


def _stamp(name: str, path: str | None) -> _Stamp | None:
    """What changes when a file does."""
    if path is None:
        return None
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise BadTls(f"tls.{name} cannot be read: {error}") from error
    return status.st_ino, status.st_mtime_ns, status.st_size


def _system_stamps(tls: Tls) -> list[_Stamp | None]:
    """Those of the system's CAs, where it is they who are asked."""
    if tls.ca is not None:
        return []
    paths = ssl.get_default_verify_paths()
    return [_stamp("ca", path) for path in (paths.cafile, paths.capath)]
