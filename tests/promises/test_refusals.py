"""The promise about refusals: every client shows them, and takes them back in the history."""

from pathlib import Path
from typing import Any

from openai.types.chat import ChatCompletion

from support.fake_server import HELLO, TOKENIZER, FakeServer, fake_server
from support.generating_routes import ROUTES, frames
from support.guarded_server import guarded_server
from support.refusals import CHAT, CUT, QUESTION, Said, policy_in_style, words
from support.refusals import ROUTES as REFUSING


def message(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content} | more


def prompt_of(server: FakeServer) -> str:
    """The prompt that the engine got last, control tokens written out."""
    return str(TOKENIZER.decode(server.engine.requests[-1].prompt_ids, skip_special_tokens=False))


async def prompt_for(server: FakeServer, *messages: dict[str, Any]) -> str:
    reply = await server.chat(messages=messages)
    assert reply.status_code == 200, reply.text
    return prompt_of(server)


async def test_promise_23_a_refusal_can_neither_be_dropped_nor_tripped_over(tmp_path: Path) -> None:
    """What clients need for it; tests/foreign_clients shows that none of those does either."""
    async with guarded_server("Hi!") as server:
        whole = await CHAT.post(server, QUESTION)
        choice = whole.json()["choices"][0]
        assert (choice["message"]["content"], choice["message"]["refusal"]) == (words(), None)
        assert (choice["finish_reason"], whole.headers["x-refusal"]) == ("stop", "input/weapons")
        for route in REFUSING:
            said = Said(words(), "input/weapons", route.complete)
            assert await route.said(server, QUESTION) == await route.said_in_stream(server, QUESTION) == said
        in_form = await CHAT.post(server, QUESTION, response_format={"type": "json_object"})
        message_in_form = in_form.json()["choices"][0]["message"]
        assert (message_in_form["content"], message_in_form["refusal"]) == (None, words())
        asked, *_ = CHAT.ask(QUESTION)["messages"]
        for refused in (message("assistant", words()), message("assistant", None, refusal=words())):
            reply = await server.chat(messages=[asked, refused, *HELLO])
            assert reply.json()["choices"][0]["message"]["content"] == "Hi!"
    for style, fields in (("field", (None, words())), ("both", (words(), words()))):
        async with guarded_server(policy=policy_in_style(tmp_path, style)) as server:
            styled = (await CHAT.post(server, QUESTION)).json()["choices"][0]["message"]
            assert (styled["content"], styled["refusal"]) == fields
    async with guarded_server(CUT) as server:
        for route in REFUSING:
            cut = await route.said_in_stream(server)
            assert cut == Said(words(), "output/weapons", route.cut, is_taken_back=True)


async def test_a_refusal_has_its_place_on_the_wire_and_comes_back_in_history() -> None:
    async with fake_server() as server:
        whole = (await server.chat()).json()
        assert whole["choices"][0]["message"]["refusal"] is None
        assert ChatCompletion.model_validate(whole).choices[0].message.refusal is None
        first, *rest = frames((await server.chat(stream=True)).text)
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
        assert not any("refusal" in choice["delta"] for frame in rest for choice in frame["choices"])
        logprobs = (await server.chat(logprobs=True)).json()["choices"][0]["logprobs"]
        assert logprobs["refusal"] is None
        prompts = {
            await prompt_for(server, *HELLO, refused, *HELLO)
            for refused in (
                message("assistant", None, refusal="I cannot."),
                message("assistant", "", refusal="I cannot."),
                {"role": "assistant", "refusal": "I cannot."},
                message("assistant", [{"type": "refusal", "refusal": "I cannot."}]),
                message("assistant", "I cannot.", refusal=None),
            )
        }
        assert len(prompts) == 1
        assert "<|im_start|>assistant\nI cannot.<|im_end|>" in prompts.pop()
        item = message("assistant", [{"type": "refusal", "refusal": "I cannot."}])
        asked = ROUTES["responses"]
        body = asked.body(input=[message("user", "hello"), item, message("user", "hello")])
        assert (await server.client.post(asked.path, json=body)).status_code == 200
        assert "<|im_start|>assistant\nI cannot.<|im_end|>" in prompt_of(server)
        for role in ("user", "system"):
            misplaced = message(role, [{"type": "refusal", "refusal": "I cannot."}])
            assert (await server.chat(messages=[misplaced])).status_code == 400
