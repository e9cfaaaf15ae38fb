"""The promise about tools: what is called is called rightly, what was cut says so, and what cannot be is refused."""

import json
from typing import Any

import jsonschema

from support.fake_server import HELLO, FakeServer, encode, fake_server
from support.generating_routes import error_of, frames
from support.live_server import LiveServer
from support.tool_templates import HERMES

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Oslo", "Rome"]},
        "days": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo", "days": 3}}\n</tool_call>'
BROKEN = CALL.replace("3}", "3]")


async def asked(server: FakeServer, **body: Any) -> tuple[str, list[str], str]:
    """Content, arguments of the calls and finish reason of a reply, which is the same whole and streamed."""
    whole = (await server.chat(tools=[WEATHER], **body)).json()["choices"][0]
    made = [call["function"]["arguments"] for call in whole["message"].get("tool_calls") or []]
    content, arguments, reason = "", [], None
    for frame in frames((await server.chat(tools=[WEATHER], stream=True, **body)).text):
        for choice in frame["choices"]:
            content += choice["delta"].get("content") or ""
            reason = choice["finish_reason"] or reason
            for call in choice["delta"].get("tool_calls", []):
                arguments += [""] * ("id" in call)
                arguments[call["index"]] += call["function"]["arguments"]
    assert (content, arguments, reason) == (whole["message"]["content"] or "", made, whole["finish_reason"])
    return content, arguments, str(reason)


async def test_promise_08_calls_are_valid_or_cut_by_length_or_text_or_refused(server: LiveServer) -> None:
    """On scripted replies of every length, on a random model that must call, and on a template without tools."""
    length = len(encode(CALL)) + 1
    async with fake_server(CALL, template=HERMES, context_length=4096) as fake:
        for max_tokens in range(1, length + 2):
            content, arguments, reason = await asked(fake, max_tokens=max_tokens)
            assert reason == ("tool_calls" if max_tokens >= length else "length")
            if reason == "tool_calls":
                assert [json.loads(text) for text in arguments] == [{"city": "Oslo", "days": 3}]
                assert content == ""
    async with fake_server(BROKEN, template=HERMES, context_length=4096) as fake:
        assert await asked(fake) == (BROKEN, [], "stop")
    forced = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}
    reasons = set()
    for seed in range(8):
        reply = server.chat(seed=seed, max_tokens=(8, 200)[seed % 2], **forced)
        choice = reply.json()["choices"][0]
        reasons.add(choice["finish_reason"])
        if choice["finish_reason"] == "tool_calls":
            (call,) = choice["message"]["tool_calls"]
            jsonschema.validate(json.loads(call["function"]["arguments"]), PARAMETERS)
    assert reasons == {"tool_calls", "length"}
    async with fake_server() as fake:
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        history = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [call]}]
        refused = {
            "tools": await fake.chat(tools=[WEATHER]),
            "messages[1].tool_calls": await fake.chat(messages=history),
            "messages[0].role": await fake.chat(
                messages=[{"role": "tool", "content": "x", "tool_call_id": "c"}]
            ),
        }
    for param, reply in refused.items():
        assert (reply.status_code, error_of(reply)["param"]) == (400, param)
