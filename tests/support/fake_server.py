"""An HTTP application on the fake engine, in this process: real routes and chat layer, scripted tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import httpx2
from starlette.types import ASGIApp

from support.tiny_tokenizers import CHATML, tiny_tokenizer
from turnwise_server.api.models.served import ServedModel, ServedModels
from turnwise_server.api.models.swaps import ModelSwaps
from turnwise_server.api.services import Services
from turnwise_server.api.storage import Storage
from turnwise_server.app import create_app
from turnwise_server.auth import KeyRing
from turnwise_server.chat.checkpoint_files import GenerationDefaults
from turnwise_server.chat.model import ChatModel
from turnwise_server.chat.refusal.policy_file import DEFAULT_POLICY
from turnwise_server.chat.refusal.policy_holder import PolicyHolder
from turnwise_server.config import Settings
from turnwise_server.engine.fake_engine import FakeEngine, Script
from turnwise_server.limits.from_settings import make_limiter
from turnwise_server.load import load_model
from turnwise_server.moderation.enforcement import Enforcement
from turnwise_server.store.connect import memory_database
from turnwise_server.store.database import Database

TOKENIZER = tiny_tokenizer(CHATML)
END_OF_TURN = int(TOKENIZER.convert_tokens_to_ids("<|im_end|>"))
HELLO = [{"role": "user", "content": "hello"}]


def encode(text: str) -> list[int]:
    """Token ids of a scripted reply."""
    return list(TOKENIZER.encode(text, add_special_tokens=False, split_special_tokens=True))


@cache
def default_policy() -> PolicyHolder:
    """Return the policy that ships with the server; it is read once."""
    return PolicyHolder(DEFAULT_POLICY)


@dataclass(frozen=True, slots=True)
class FakeServer:
    """A client of the application, and the engine behind it."""

    client: httpx2.AsyncClient
    engine: FakeEngine
    services: Services
    app: ASGIApp

    async def chat(self, **body: Any) -> httpx2.Response:
        """POST a chat completion; by default "hello" to the model "test"."""
        return await self.client.post(
            "/v1/chat/completions", json={"model": "test", "messages": HELLO} | body
        )


@asynccontextmanager
async def fake_server(
    *replies: str,
    settings: dict[str, Any] | None = None,
    keys: KeyRing | None = None,
    headers: dict[str, str] | None = None,
    script: Script | Sequence[Sequence[int]] | None = None,
    database: Database | None = None,
    template: str = CHATML,
    policy: PolicyHolder | None = None,
    enforcement: Enforcement | None = None,
    **engine_options: Any,
) -> AsyncIterator[FakeServer]:
    """Serve the replies in order, then again from the first. Without a `database` things are stored in memory.

    Nothing is checked without an `enforcement`.
    """
    engine = FakeEngine(
        script or [encode(reply) for reply in replies or ("Hi!",)],
        vocab_size=len(TOKENIZER),
        stop_token_ids=frozenset({END_OF_TURN}),
        **({"context_length": 512} | engine_options),
    )
    info = await engine.start()
    tokenizer = TOKENIZER if template == CHATML else tiny_tokenizer(template)
    chat = ChatModel(tokenizer, engine, info, defaults=GenerationDefaults(), source="tiny")
    chosen = Settings(**({"model_name": "test"} | (settings or {})))
    served = ServedModel(chosen.served_model_name, chosen.model, engine, chat, created=1_760_000_000)
    models = ServedModels(served, allows_default=chosen.allow_default_model)
    storage = Storage(database or memory_database(), response_ttl_s=60, response_memory_bytes=10**7)
    swaps = ModelSwaps(models, partial(load_model, chosen))
    services = Services(
        chosen, models, swaps, storage, make_limiter(chosen), policy or default_policy(), enforcement
    )
    app = create_app(services, keys)
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=True)
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://127.0.0.1:8000", headers=headers
    ) as client:
        yield FakeServer(client, engine, services, app)
    await services.swaps.close()
    if enforcement is not None:
        await enforcement.close()
    await services.limiter.close()
    storage.close()
