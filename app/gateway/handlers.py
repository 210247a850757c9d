"""What does a caller's connection need of others? Somebody who answers, and a worker who knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from app.gateway.requests import Request
from app.gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from app.gateway.http1 import ClientConnection


class Handler(Protocol):
    """What answers one request: an exchange with an arm, or one of the gateway's own endpoints."""

    def start(self) -> None: ...
    def on_body(self) -> None: ...
    def abandon(self, status: int | None = None) -> None: ...
    def pause_answer(self) -> None: ...
    def resume_answer(self) -> None: ...


class Tunnel(Protocol):
    """What takes a connection over once it speaks another protocol."""

    used_at: float

    def on_caller_data(self, data: bytes) -> None: ...
    def on_caller_end(self) -> None: ...
    def pause_arm(self) -> None: ...
    def resume_arm(self) -> None: ...


class Front(Protocol):
    """What a connection needs of its worker."""

    parting: bool
    draining: bool
    held: int
    settings: GatewaySettings

    def open(self, connection: ClientConnection, request: Request) -> Handler: ...
    def on_connected(self, connection: ClientConnection) -> bool: ...
    def on_lost(self, connection: ClientConnection) -> None: ...
    def on_refused(self, status: int) -> None: ...
    def is_trusted(self, peer: str) -> bool: ...
