"""What happens once caller and arm speak another protocol? Bytes are relayed until one side ends."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1
from time import monotonic
from typing import TYPE_CHECKING

from app.gateway.answers import Answer
from app.gateway.requests import Request

if TYPE_CHECKING:
    from app.gateway.http1 import ClientConnection
    from app.gateway.upstream import UpstreamConnection

_ACCEPT = b"sec-websocket-accept"
_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Tunnel:
    """A caller and an arm that speak WebSocket. Each is read only as fast as the other one takes it.

    `used_at`: when something was said last (monotonic seconds).
    """

    def __init__(self, caller: ClientConnection, arm: UpstreamConnection) -> None:
        self.used_at = monotonic()
        self._caller = caller
        self._arm = arm

    def start(self, first: bytes) -> None:
        """Relays from now on; `first` is what the arm has said already."""
        self._arm.tunnel(self)
        self._caller.tunnel(self)
        if first:
            self.on_arm_data(first)

    def on_arm_data(self, data: bytes) -> None:
        self.used_at = monotonic()
        self._caller.write(data)

    def on_arm_end(self) -> None:
        self._caller.close()

    def on_caller_data(self, data: bytes) -> None:
        self.used_at = monotonic()
        self._arm.send(data, last=False)

    def on_caller_end(self) -> None:
        self._arm.end()

    def pause_arm(self) -> None:
        """The caller does not keep up."""
        self._arm.pause()

    def resume_arm(self) -> None:
        """The caller has caught up."""
        self._arm.resume()

    def pause_caller(self) -> None:
        """The arm does not keep up."""
        self._caller.pause_caller()

    def resume_caller(self) -> None:
        """The arm has caught up."""
        self._caller.resume_caller()


def switches(request: Request, answer: Answer) -> bool:
    """Whether an answer is the handshake (RFC 6455, 4.2.2) to just this request."""
    if request.upgrade is None or answer.upgrade != request.upgrade or b"upgrade" not in answer.named:
        return False
    key = request.field(b"sec-websocket-key") or b""
    proof = b64encode(sha1(key + _WEBSOCKET_GUID, usedforsecurity=False).digest())
    fields = [line.partition(b": ") for line in answer.lines]
    return [value.rstrip() for name, _, value in fields if name.lower() == _ACCEPT] == [proof]
