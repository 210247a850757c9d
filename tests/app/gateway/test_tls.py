"""Claims about https arms: who they are is verified, and what cannot be verified is not called."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from app.gateway.pool import Pool
from app.gateway.tls import BadTls, client_context
from app.gateway.upstream import Failure
from routing.types import Tls
from tests.app.gateway.reach import Call, Listener, call, pool_at, target_at
from tests.app.gateway.stage import until

AUTHORITY = trustme.CA()
STRANGER = trustme.CA()
Serve = Callable[..., Coroutine[None, None, Listener]]


def context_of(certificate: trustme.LeafCert, clients: trustme.CA | None = None) -> ssl.SSLContext:
    """What an arm serves with; with `clients`, a caller must show a certificate of theirs."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["h2", "http/1.1"])
    certificate.configure_cert(context)
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts arms on loopback, which end with the test."""
    listeners: list[Listener] = []

    async def start(context: ssl.SSLContext | None = None) -> Listener:
        listeners.append(await Listener().start(context=context))
        return listeners[-1]

    yield start
    for listener in listeners:
        await listener.stop()


@pytest.fixture
def ca(tmp_path: Path) -> str:
    """The file of the authority that arms are verified by."""
    path = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(path))
    return str(path)


def pool_of(listener: Listener, host: str = "arm.test", **tls: str | None) -> Pool:
    """The connections to an arm of this name, which is on loopback."""
    url = f"https://{host}:{listener.port}/score"
    return pool_at(url, ask=lambda _: ["127.0.0.1"], tls=Tls(**tls) if tls else None)


async def test_an_arm_is_verified_by_its_own_authority(serve: Serve, ca: str) -> None:
    """It hears its name, HTTP/1.1 and nothing older than TLS 1.2; the connection is used again."""
    names: list[str | None] = []
    context = context_of(AUTHORITY.issue_cert("arm.test"))
    context.sni_callback = lambda _, name, __: names.append(name)
    listener = await serve(context)
    pool = pool_of(listener, ca=ca)
    assert [await call(pool) for _ in range(3)] == [200] * 3
    assert (names, pool.connects) == (["arm.test"], 1)
    (spoken,) = listener.tls
    assert spoken.selected_alpn_protocol() == "http/1.1"
    assert spoken.version() in ("TLSv1.2", "TLSv1.3")
    assert listener.heads[0] == b"GET /score HTTP/1.1\r\nHost: arm.test:%d\r\n\r\n" % listener.port
    pool.retire()


@pytest.mark.parametrize(
    ("certified", "host", "server_name"),
    [
        ("127.0.0.1", "127.0.0.1", None),
        ("*.models.test", "one.models.test", None),
        ("arm.test", "127.0.0.1", "arm.test"),
        ("arm.test", "other.test", "arm.test"),
    ],
)
async def test_names_are_verified_as_certificates_have_them(
    serve: Serve, ca: str, certified: str, host: str, server_name: str | None
) -> None:
    """An address by itself, a wildcard for one label, and a name that is declared instead of the host's."""
    listener = await serve(context_of(AUTHORITY.issue_cert(certified)))
    pool = pool_of(listener, host, ca=ca, server_name=server_name)
    assert await call(pool) == 200
    pool.retire()


async def test_the_root_dot_is_not_part_of_the_name(serve: Serve, ca: str) -> None:
    """No certificate has it."""
    listener = await serve(context_of(AUTHORITY.issue_cert("arm.test")))
    pool = pool_of(listener, "arm.test.", ca=ca)
    assert await call(pool) == 200
    pool.retire()


LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC), datetime(2002, 1, 1, tzinfo=UTC)
UNVERIFIED = {
    "another authority": (STRANGER.issue_cert("arm.test"), "unable to get local issuer certificate"),
    "another name": (AUTHORITY.issue_cert("other.test"), "certificate is not valid for 'arm.test'"),
    "another address": (AUTHORITY.issue_cert("127.0.0.1"), "certificate is not valid for 'arm.test'"),
    "expired": (
        AUTHORITY.issue_cert("arm.test", not_before=LONG_AGO[0], not_after=LONG_AGO[1]),
        "certificate has expired",
    ),
}


@pytest.mark.parametrize(("certificate", "reason"), UNVERIFIED.values(), ids=UNVERIFIED)
async def test_an_arm_that_is_not_who_it_should_be_is_unreachable(
    serve: Serve, ca: str, caplog: pytest.LogCaptureFixture, certificate: trustme.LeafCert, reason: str
) -> None:
    """It is sent nothing, and the log says why, once."""
    listener = await serve(context_of(certificate))
    pool = pool_of(listener, ca=ca)
    with caplog.at_level(logging.WARNING, "app.gateway"):
        assert [await call(pool) for _ in range(3)] == [Failure.UNREACHABLE] * 3
    assert listener.heads == []
    (record,) = (record for record in caplog.records if record.name == "app.gateway.pool")
    assert reason in record.__dict__["fields"]["error"]
    assert (pool.open, pool.refusals) == (0, 3)


async def test_without_an_authority_of_its_own_the_systems_are_asked(
    serve: Serve, tmp_path: Path, ca: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They do not know the arm's; once they do, another snapshot reaches it."""
    listener = await serve(context_of(AUTHORITY.issue_cert("arm.test")))
    assert await call(pool_of(listener)) is Failure.UNREACHABLE
    monkeypatch.setenv("SSL_CERT_FILE", ca)
    pool = pool_of(listener)
    assert await call(pool) == 200
    pool.retire()


async def test_an_arm_may_ask_who_calls(serve: Serve, ca: str, tmp_path: Path) -> None:
    """It gets the declared certificate; a stranger's, or none, gets no answer."""
    listener = await serve(context_of(AUTHORITY.issue_cert("arm.test"), clients=AUTHORITY))
    files = {}
    for name, authority in (("good", AUTHORITY), ("bad", STRANGER)):
        leaf = authority.issue_cert("gateway.test")
        leaf.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / f"{name}.pem"))
        leaf.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        files[name] = str(tmp_path / f"{name}.pem"), str(tmp_path / f"{name}.key")
    both = pool_of(listener, ca=ca, certificate=files["good"][0], key=files["good"][1])
    in_one = pool_of(listener, ca=ca, certificate=files["good"][0])
    for pool in (both, in_one):
        assert await call(pool) == 200
        pool.retire()
    listener.heads.clear()
    for pool in (pool_of(listener, ca=ca, certificate=files["bad"][0]), pool_of(listener, ca=ca)):
        # a caller of TLS 1.3 has its connection before the arm has looked at its certificate
        assert await call(pool) in (Failure.UNREACHABLE, Failure.CUT_OFF)
    assert listener.heads == []


async def test_an_arm_that_speaks_plainly_is_unreachable(ca: str) -> None:
    """What it says is no handshake."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        pool = pool_at(f"https://127.0.0.1:{port}/", tls=Tls(ca=ca))
        assert await call(pool) is Failure.UNREACHABLE


async def test_a_handshake_that_hangs_is_given_up(ca: str) -> None:
    """Within the time for connecting; nothing is left open."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        pool = pool_at(f"https://127.0.0.1:{port}/", tls=Tls(ca=ca), connect_timeout_ms=50)
        assert await call(pool) is Failure.UNREACHABLE
        peer, _ = silent.accept()
        with peer:
            peer.setblocking(False)
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(10):
                while await loop.sock_recv(peer, 4096):
                    pass
        assert pool.open == 0


async def test_an_answer_that_is_cut_off_has_no_end(serve: Serve, ca: str) -> None:
    """One that ends with its connection is whole only where the arm says over TLS that it ends."""
    listener = await serve(context_of(AUTHORITY.issue_cert("arm.test")))
    listener.answer = b"HTTP/1.1 200 OK\r\n\r\nhalf"
    pool = pool_of(listener, ca=ca)
    one = Call(pool).start()
    await until(lambda: one.body == b"half")
    (writer,) = listener.writers
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as wire:
        wire.shutdown(socket.SHUT_WR)
    assert await asyncio.wait_for(one.outcome, 20) is Failure.CUT_OFF
    other = Call(pool).start()
    await until(lambda: other.body == b"half")
    for writer in list(listener.writers):
        writer.close()
    assert await asyncio.wait_for(other.outcome, 20) == 200


@pytest.mark.parametrize("name", ["ca", "certificate", "key"])
@pytest.mark.parametrize("fault", ["missing", "empty", "a folder", "no PEM"])
async def test_a_file_that_cannot_be_used_costs_its_arm_alone(
    tmp_path: Path, ca: str, caplog: pytest.LogCaptureFixture, name: str, fault: str
) -> None:
    """The snapshot is taken, the log names the file, and the arm is unreachable without a connection."""
    AUTHORITY.issue_cert("gateway.test").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "good"))
    path = tmp_path / "bad.pem"
    if fault == "a folder":
        path.mkdir()
    elif fault != "missing":
        path.write_text("" if fault == "empty" else "hello")
    files = {"ca": ca, "certificate": str(tmp_path / "good"), name: str(path)}
    with caplog.at_level(logging.ERROR, "app.gateway.targets"):
        target = target_at("https://arm.test/", tls=Tls(**files))
    (record,) = caplog.records
    assert f"tls.{name}" in record.__dict__["fields"]["error"]
    assert str(path) in record.__dict__["fields"]["error"]
    assert (target.ssl, target.fault) == (None, record.__dict__["fields"]["error"])
    pool = pool_at("https://arm.test/", tls=Tls(**files), ask=lambda _: ["127.0.0.1"])
    assert await call(pool) is Failure.UNREACHABLE


def test_a_key_with_a_password_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    """There is no terminal to ask on, and a worker must not wait for one."""
    leaf = AUTHORITY.issue_cert("gateway.test")
    key = ssl_key_with_password(leaf)
    (tmp_path / "key.pem").write_bytes(key)
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "chain.pem"))
    tls = Tls(certificate=str(tmp_path / "chain.pem"), key=str(tmp_path / "key.pem"))
    with pytest.raises(BadTls, match="without a password"):
        client_context(tls, "arm.test")


def ssl_key_with_password(leaf: trustme.LeafCert) -> bytes:
    """The certificate's key, locked."""
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def test_a_context_is_built_once_for_what_its_files_hold(tmp_path: Path, ca: str) -> None:
    """Many arms share it; when a file is replaced, the next snapshot has another one."""
    first = target_at("https://a.test/", tls=Tls(ca=ca))
    again = target_at("https://b.test/", tls=Tls(ca=ca, server_name="c.test"))
    assert first.ssl is again.ssl
    assert first.place == target_at("https://a.test/other", tls=Tls(ca=ca)).place
    assert first.place != again.place
    STRANGER.cert_pem.write_to_path(ca)
    after = target_at("https://a.test/", tls=Tls(ca=ca))
    assert after.ssl is not first.ssl
    assert after.place != first.place
    assert target_at("https://a.test/").ssl is target_at("https://d.test/").ssl


def test_a_context_verifies(ca: str) -> None:
    """Names and chains, from TLS 1.2 on."""
    for tls in (None, Tls(ca=ca)):
        context = client_context(tls, "arm.test")
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("name", ["", ".", ".test", "a\0b", "a" * 70 + ".test"])
def test_a_name_that_no_certificate_can_have_is_refused(ca: str, name: str) -> None:
    """Above all the empty one, for which nothing would be verified."""
    with pytest.raises(BadTls, match="cannot be verified"):
        client_context(Tls(ca=ca), name)


def test_ports_and_names_have_defaults(ca: str) -> None:
    """443 for https, 80 for http; the name is the host's, without brackets."""
    assert (target_at("https://a.test/").port, target_at("http://a.test/").port) == (443, 80)
    assert target_at("https://[::1]:8443/").server_name == "::1"
    assert target_at("https://a.test/", tls=Tls(ca=ca, server_name="[::1]")).server_name == "::1"
    assert target_at("http://a.test/").server_name is None
