"""The official OpenAI SDK asks the detector that ships: what its users will meet."""

from __future__ import annotations

from openai import AsyncOpenAI, OpenAI
from openai.types import ModerationCreateResponse, ModerationMultiModalInputParam

from support.live_server import LiveServer

HARMLESS = "The bakery on the corner sells bread and cake until noon."


def client(server: LiveServer) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)


def test_a_harmless_text_is_not_flagged_and_scores_are_probabilities(server: LiveServer) -> None:
    with client(server) as made:
        reply = made.moderations.create(input=HARMLESS)
    (only,) = reply.results
    assert not only.flagged
    scores = only.category_scores.model_dump(by_alias=True)
    assert len(scores) == 13
    assert all(0 < score < 0.5 for score in scores.values()), scores


def test_a_form_of_input_has_as_many_results_as_it_has_texts(server: LiveServer) -> None:
    texts: list[ModerationMultiModalInputParam] = [
        {"type": "text", "text": HARMLESS},
        {"type": "text", "text": "Good morning!"},
    ]
    with client(server) as made:
        several = made.moderations.create(model="omni-moderation-latest", input=[HARMLESS, "Good morning!"])
        parts = made.moderations.create(input=texts)
    assert [result.flagged for result in several.results] == [False, False]
    assert [result.flagged for result in parts.results] == [False]


async def test_the_asynchronous_client_reads_the_same(server: LiveServer) -> None:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as made:
        reply = await made.moderations.create(input=HARMLESS)
    assert reply.model == "turnwise-safety-default"
    (only,) = reply.results
    kinds = only.category_applied_input_types.model_dump(by_alias=True)
    assert list(kinds.values()) == [["text"]] * 13
    # The SDK checks nothing by itself: every field that its types require has to be there.
    ModerationCreateResponse.model_validate_json(reply.model_dump_json(by_alias=True))
