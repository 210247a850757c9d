"""The control plane's API, as the demonstration's operator uses it."""

from __future__ import annotations

from typing import Any

import httpx

from app.control.views import ChampionView, Evaluations, EvaluationView, RolloutView, Timeline
from app.demo.errors import DemoFailed
from app.demo.route import ROUTE

_TIMEOUT_SECONDS = 20.0
_PAGE = 200


class Control:
    """The route of the demonstration at a control plane."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.AsyncClient(
            base_url=f"{url}/v1/routes/{ROUTE}",
            timeout=_TIMEOUT_SECONDS,
            trust_env=False,  # no proxy of the user's lies between this machine and itself
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def register(self, arm: str, url: str) -> None:
        """Register a challenger. It gets no traffic yet."""
        await self._ask("POST", "/arms", {"name": arm, "url": url})

    async def start(self, arm: str, share: int, reason: str) -> None:
        """Put a challenger on trial with a share in basis points."""
        await self._ask("POST", "/rollout/start", {"arm": arm, "share": share, "reason": reason})

    async def evaluations(self) -> list[EvaluationView]:
        """All evaluations, oldest first."""
        found = Evaluations.model_validate_json(await self._ask("GET", f"/evaluations?limit={_PAGE}"))
        return found.evaluations[::-1]

    async def rollout(self) -> RolloutView:
        """Where the traffic stands."""
        return RolloutView.model_validate_json(await self._ask("GET", "/rollout"))

    async def timeline(self) -> Timeline:
        """Everything that changed the route, newest first."""
        return Timeline.model_validate_json(await self._ask("GET", f"/timeline?limit={_PAGE}"))

    async def champion(self) -> ChampionView:
        """Who is champion now, and what made it so."""
        return ChampionView.model_validate_json(await self._ask("GET", "/champion"))

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        try:
            answer = await self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise DemoFailed(f"the control plane does not answer {method} {path}: {error!r}") from error
        if answer.is_error:
            raise DemoFailed(
                f"the control plane refused {method} {path}: {answer.status_code} {answer.text.strip()}"
            )
        return answer.content
