"""The sockets we listen on."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import sys

from app.settings import BadSettings

BACKLOG = 2_048
_RETRY_SECONDS = 0.1


async def listen(host: str, port: int, patience_seconds: float = 5.0) -> socket.socket:
    """A listening TCP socket; port 0 takes any free one.

    Waits a while for a port in use: after a crash, workers of the process before need a moment to notice.

    Raises:
        BadSettings: the address is not ours, or the port stays in use.
    """
    deadline = asyncio.get_running_loop().time() + patience_seconds
    while True:
        try:
            return _bind(host, port)
        except OSError as error:
            late = asyncio.get_running_loop().time() >= deadline
            if error.errno != errno.EADDRINUSE or late:
                raise BadSettings(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        await asyncio.sleep(_RETRY_SECONDS)


def divided(listener: socket.socket, count: int) -> list[socket.socket]:
    """So many sockets on the listener's address, itself among them, among which connections are divided.

    One that nobody listens on yet gets none. Where the system does not divide them (elsewhere than on Linux),
    it is the listener itself each time.

    Raises:
        OSError: the system refuses another socket.
    """
    if count == 1 or sys.platform != "linux":
        return [listener] * count
    # The first was bound without this, so a port that somebody else has was refused.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return [listener, *(beside(listener) for _ in range(count - 1))]


def beside(listener: socket.socket) -> socket.socket:
    """Another socket on the address of a divided listener, on which nobody listens yet.

    Raises:
        OSError: the system refuses it.
    """
    another = socket.socket(listener.family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        another.bind(listener.getsockname())
        another.setblocking(False)
    except BaseException:
        another.close()
        raise
    return another


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on this host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def url_of(listener: socket.socket) -> str:
    """The URL under which a listener is reached from here."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _bind(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # only where the protocol is named does asyncio turn off Nagle's algorithm, which holds answers back
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
