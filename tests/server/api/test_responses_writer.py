"""Whatever a turn says, the frames of its response tell a client exactly what the response holds in the end."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from support.responses import events_of
from turnwise_server.api.errors import engine_unavailable
from turnwise_server.api.responses.wire import InputTokensDetails, ModelResponse, ResponseUsage
from turnwise_server.api.responses.writer import ResponseWriter
from turnwise_server.chat.turn import ChoiceFinished, TextDelta, ToolCallDelta, TurnEvent

DRAFT = ModelResponse(
    id="resp_a1",
    created_at=1,
    status="in_progress",
    background=False,
    frequency_penalty=0,
    instructions=None,
    max_output_tokens=None,
    max_tool_calls=None,
    model="test",
    parallel_tool_calls=True,
    presence_penalty=0,
    previous_response_id=None,
    prompt_cache_key=None,
    prompt_cache_retention=None,
    reasoning={},
    safety_identifier=None,
    store=True,
    temperature=1,
    text={},
    tool_choice="auto",
    tools=[],
    top_logprobs=0,
    top_p=1,
    truncation="disabled",
    user=None,
    metadata={},
)
USAGE = ResponseUsage(
    input_tokens=1, input_tokens_details=InputTokensDetails(), output_tokens=1, total_tokens=2
)
TEXTS = st.lists(st.text(max_size=5), max_size=4)


@st.composite
def turns(draw: st.DrawFn) -> list[TurnEvent]:
    """The events of a turn: runs of text and calls in any order, then its end, or nothing if it broke off."""
    events: list[TurnEvent] = []
    calls = 0
    for is_call in draw(st.lists(st.booleans(), max_size=5)):
        pieces = draw(TEXTS)
        if is_call:
            events.append(ToolCallDelta(0, calls, "", f"call_{calls}", "f"))
            events += [ToolCallDelta(0, calls, piece) for piece in pieces]
            calls += 1
        else:
            events += [TextDelta(0, piece) for piece in pieces]
    return events


def told(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a client knows that believes nothing but announcements and deltas."""
    items: list[dict[str, Any]] = []
    for event in events:
        match event["type"]:
            case "response.output_item.added":
                assert event["output_index"] == len(items)
                items.append({"id": event["item"]["id"], "text": ""})
            case "response.output_text.delta" | "response.function_call_arguments.delta":
                item = items[event["output_index"]]
                assert item["id"] == event["item_id"]
                assert item is items[-1], "an item that has ended grows no more"
                item["text"] += event["delta"]
    return items


def held(response: dict[str, Any]) -> list[dict[str, Any]]:
    """The same of the items of a response."""
    return [
        {
            "id": item["id"],
            "text": item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"],
        }
        for item in response["output"]
    ]


def write(writer: ResponseWriter, turn: list[TurnEvent]) -> bytes:
    return writer.created() + writer.started() + b"".join(writer.event(event) for event in turn)


@given(turns(), st.sampled_from(["stop", "length", "tool_calls"]))
def test_a_finished_response_is_what_its_events_told(turn: list[TurnEvent], reason: Any) -> None:
    writer = ResponseWriter(DRAFT)
    frames = write(writer, [*turn, ChoiceFinished(0, reason)])
    writer.finish(USAGE)
    events = events_of((frames + writer.finished()).decode())
    final = events[-1]["response"]
    assert final == writer.response.model_dump()
    assert told(events) == held(final)
    assert final["output"], "there is always an item"
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == final["output"]
    said = "".join(event.text for event in turn if isinstance(event, TextDelta))
    assert "".join(item["text"] for item in held(final) if item["id"].startswith("msg_")) == said
    statuses = [item["status"] for item in final["output"]]
    assert statuses[:-1] == ["completed"] * (len(statuses) - 1)
    assert statuses[-1] == ("incomplete" if reason == "length" else "completed")


@given(turns(), st.booleans())
def test_a_response_that_breaks_off_holds_what_its_events_told(turn: list[TurnEvent], fails: bool) -> None:
    writer = ResponseWriter(DRAFT)
    frames = write(writer, turn)
    end = writer.failed(engine_unavailable()) if fails else writer.cancelled()
    events = events_of((frames + end).decode())
    final = events[-2 if fails else -1]["response"]
    assert final["status"] == ("failed" if fails else "cancelled")
    assert told(events) == held(final)
    assert all(item["status"] != "in_progress" for item in final["output"])
