"""Makes the limiter that the settings ask for."""

from __future__ import annotations

from turnwise_server.config import Settings
from turnwise_server.errors import ConfigurationError
from turnwise_server.limits.limiter import RateLimiter
from turnwise_server.limits.memory_store import MemoryStore
from turnwise_server.limits.rates import RateLimits
from turnwise_server.limits.store import LimitStore


def make_limiter(settings: Settings) -> RateLimiter:
    """Return a limiter that counts in this process, or in Redis if its address is given.

    Raises:
        ConfigurationError: the address makes no sense, or the Redis client is not installed.
    """
    defaults = RateLimits(settings.rate_limit_rpm, settings.rate_limit_tpm, settings.rate_limit_concurrent)
    url = settings.redis_url
    return RateLimiter(_shared_store(url.get_secret_value()) if url else MemoryStore(), defaults)


def _shared_store(url: str) -> LimitStore:
    try:
        from turnwise_server.limits.fallback_store import FallbackStore
        from turnwise_server.limits.redis_store import RedisStore
    except ImportError as error:
        raise ConfigurationError(
            "counting limits in Redis needs the Redis client: pip install 'turnwise[redis]'"
        ) from error
    return FallbackStore(RedisStore(url))
