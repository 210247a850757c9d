"""First arms in Redis, or what speaks its protocol, which the gateways of many machines share."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.stores.first_arms import Claim, StoreUnavailable

PREFIX = "kingmaker:first-arm:"
_SECONDS = 5.0
"""How long a connection may take to be made, or an answer to come; requests wait far less for it."""

_CONNECTIONS = 4
_CLAIM = """
local held = redis.call('GET', KEYS[1])
if held == false or held == ARGV[2] then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
  return ARGV[1]
end
return held
"""

Result = TypeVar("Result")


class RedisStore:
    """First arms in Redis. One that fails over may lose the last moments, whose units are drawn for anew."""

    def __init__(self, url: str) -> None:
        self._redis: Redis = Redis.from_url(
            url,
            socket_timeout=_SECONDS,
            socket_connect_timeout=_SECONDS,
            max_connections=_CONNECTIONS,
            retry=Retry(NoBackoff(), 1),  # an idle connection may have been closed, and claims are idempotent
        )

    async def claim(self, claims: Sequence[Claim]) -> list[bytes | None]:
        pipeline = self._redis.pipeline(transaction=False)
        for claim in claims:
            _ = pipeline.eval(_CLAIM, 1, PREFIX + claim.key, claim.value, claim.lapsed, claim.keep_ms)
        answers = await _asked(pipeline.execute(raise_on_error=False))
        return [answer if isinstance(answer, bytes) else None for answer in answers]

    async def find(self, key: str) -> bytes | None:
        return cast(bytes | None, await _asked(self._redis.get(PREFIX + key)))

    async def probe(self) -> None:
        await _asked(cast(Awaitable[None], self._redis.ping()))

    async def close(self) -> None:
        await self._redis.aclose()


async def _asked(answer: Awaitable[Result]) -> Result:
    try:
        return await answer
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"Redis cannot be asked: {error}") from error
