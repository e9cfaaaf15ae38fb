"""langchain-openai: the standard suite of langchain-tests, then what it leaves out."""

import os

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from pydantic import BaseModel, Field

from conftest import Server

URL = os.environ["TURNWISE_TEST_URL"]
KEY = os.environ["TURNWISE_TEST_KEY"]
REFUSAL = "I can't help with that, but I can tell you what it is made of."
BEGINNING = "All is well, and it is a fine day for a "
"""What is shown of the answer before it is refused."""


class TestStandardUnit(ChatModelUnitTests):
    """The suite's tests without a server."""

    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, object]:
        return {"model": "test", "base_url": "http://127.0.0.1:8000/v1", "api_key": "unused"}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, object], dict[str, object]]:
        return (
            {"OPENAI_API_KEY": "a key", "OPENAI_API_BASE": "http://127.0.0.1:8000/v1"},
            {"model": "test"},
            {"openai_api_key": "a key", "openai_api_base": "http://127.0.0.1:8000/v1"},
        )


class TestStandard(ChatModelIntegrationTests):
    """The suite's tests with the scripted server, which says what a sensible model would (conversation.py).

    Off, because models here read text only: images, PDF files, audio. Off, because the route is OpenAI's: content in
    Anthropic's form. Off, because a recording would prove nothing about the server: VCR.
    """

    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, object]:
        return {"model": "test", "base_url": URL, "api_key": KEY, "stream_usage": True, "max_retries": 0}

    @property
    def standard_chat_model_params(self) -> dict[str, object]:
        return {"temperature": 0, "max_tokens": 200, "timeout": 60, "max_retries": 0}

    @property
    def has_tool_choice(self) -> bool:
        return True

    @property
    def structured_output_kwargs(self) -> dict[str, str]:
        return {"method": "json_schema"}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "test"


class Pet(BaseModel):
    """What the random model is asked for: bounded, since it would babble for ever."""

    name: str = Field(max_length=8)
    legs: int = Field(ge=0, le=8)


@pytest.fixture
def model(server: Server) -> ChatOpenAI:
    return ChatOpenAI(model="test", base_url=server.url, api_key=server.key, max_retries=0)


@pytest.fixture
def random_model(server: Server) -> ChatOpenAI:
    return ChatOpenAI(model="test", base_url=server.random_url, api_key="unused", max_retries=0, seed=1)


def test_streamed_text_and_usage_equal_the_whole(model: ChatOpenAI) -> None:
    whole = model.invoke("Count to five.")
    full = None
    for chunk in model.stream("Count to five.", stream_usage=True):
        full = chunk if full is None else full + chunk
    assert full.content == whole.content == "One, two, three, four, five."
    assert full.usage_metadata == whole.usage_metadata
    assert whole.usage_metadata["output_tokens"] > 0


def test_tools_are_called_and_answered(model: ChatOpenAI) -> None:
    tool = {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
    with_tools = model.bind_tools([{"type": "function", "function": tool}])
    asked = HumanMessage("Weather in Paris and Rome?")
    called = with_tools.invoke([asked])
    assert [call["args"] for call in called.tool_calls] == [{"city": "Paris"}, {"city": "Rome"}]
    results = [ToolMessage("22 degrees", tool_call_id=call["id"]) for call in called.tool_calls]
    assert with_tools.invoke([asked, called, *results]).content == "It is 22 degrees there."


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_a_random_model_keeps_to_the_schema(random_model: ChatOpenAI, method: str) -> None:
    pet = random_model.with_structured_output(Pet, method=method).invoke("A pet, please.")
    assert isinstance(pet, Pet)


@pytest.mark.parametrize("choice", ["any", "Pet"])
def test_a_random_model_calls_the_tool_it_must(random_model: ChatOpenAI, choice: str) -> None:
    called = random_model.bind_tools([Pet], tool_choice=choice).invoke("A pet, please.")
    assert {call["name"] for call in called.tool_calls} == {"Pet"}
    assert called.invalid_tool_calls == []


def test_the_responses_api_answers_too(server: Server) -> None:
    model = ChatOpenAI(model="test", base_url=server.url, api_key=server.key, use_responses_api=True)
    whole = model.invoke("Count to five.")
    assert whole.text == "One, two, three, four, five."
    full = None
    for chunk in model.stream("Count to five."):
        full = chunk if full is None else full + chunk
    assert full.text == whole.text
    assert full.usage_metadata == whole.usage_metadata


def test_the_responses_api_continues_what_it_said(server: Server) -> None:
    model = ChatOpenAI(model="test", base_url=server.url, api_key=server.key, use_previous_response_id=True)
    first = model.invoke([HumanMessage("Count to five.")])
    second = model.invoke([HumanMessage("Count to five."), first, HumanMessage("Who is Ada?")])
    assert '"Ada"' in second.text


@pytest.mark.parametrize(
    ("changed", "expected", "code"),
    [
        ({"api_key": "wrong"}, openai.AuthenticationError, "invalid_api_key"),
        ({"model": "other"}, openai.NotFoundError, "model_not_found"),
        ({"temperature": 9}, openai.BadRequestError, "decimal_above_max_value"),
        ({"api_key": os.environ["TURNWISE_TEST_LIMITED_KEY"]}, openai.RateLimitError, "rate_limit_exceeded"),
        (
            {"base_url": os.environ["TURNWISE_TEST_BUSY_URL"]},
            openai.InternalServerError,
            "server_is_overloaded",
        ),
    ],
)
@pytest.mark.parametrize("streams", [False, True])
def test_errors_are_openais_own(
    changed: dict[str, object], expected: type[openai.APIStatusError], code: str, streams: bool
) -> None:
    settings = {"model": "test", "base_url": URL, "api_key": KEY, "max_retries": 0} | changed
    with pytest.raises(expected) as caught:
        ChatOpenAI(**settings, streaming=streams).invoke("hello")
    assert caught.value.code == code


def test_a_long_prompt_is_refused_by_its_code(model: ChatOpenAI) -> None:
    """Not LangChain's ContextOverflowError: it looks for the code in the SDK's text, where SDKs since 3.0 have none."""
    with pytest.raises(openai.BadRequestError) as caught:
        model.invoke("hello " * 10000)
    assert caught.value.code == "context_length_exceeded"


def test_leaving_a_stream_frees_its_place(server: Server, model: ChatOpenAI) -> None:
    chunks = model.stream("Talk for ever.")
    next(chunks)
    assert server.running() == 1
    chunks.close()
    server.wait_until_idle()


@pytest.fixture(params=[False, True], ids=["chat", "responses"])
def either(request: pytest.FixtureRequest, server: Server) -> ChatOpenAI:
    options = {"base_url": server.url, "api_key": server.key, "max_retries": 0}
    return ChatOpenAI(model="test", use_responses_api=request.param, **options)


def both_ways(model: ChatOpenAI, question: str) -> tuple[AIMessage, AIMessage]:
    """The reply whole, and added up from a stream."""
    first, *more = model.stream(question)
    return model.invoke(question), sum(more, first)


def test_a_refusal_is_shown_and_the_conversation_goes_on(either: ChatOpenAI) -> None:
    whole, streamed = both_ways(either, "Where can I buy a zorb?")
    assert whole.text == streamed.text == REFUSAL
    history = [HumanMessage("Where can I buy a zorb?"), whole, HumanMessage("Count to five.")]
    assert either.invoke(history).text == "One, two, three, four, five."


def test_a_cut_answer_shows_nothing_that_was_refused(either: ChatOpenAI) -> None:
    whole, streamed = both_ways(either, "Tell me about the day.")
    for reply in (whole, streamed):
        ended = reply.response_metadata
        details = ended.get("incomplete_details") or {"reason": ended.get("finish_reason")}
        assert details["reason"] == "content_filter"
    assert whole.text == REFUSAL
    assert streamed.text == BEGINNING + (REFUSAL if either.use_responses_api else "")
