"""The form of tool calls is learnt from the chat template alone."""

import pytest
from jinja2 import TemplateError

from support.tiny_tokenizers import CHATML, NAMED, STRICT
from support.tool_templates import HERMES, LLAMA, MISTRAL, TEXT_ARGUMENTS, tool_tokenizer
from turnwise_server.chat.call_form import CallForm, CallSpelling, ToolTraits, learn_tools
from turnwise_server.chat.structured import CallWrapper


def learn(template: str) -> ToolTraits | None:
    tokenizer = tool_tokenizer(template)

    def render(messages: object, tools: object, is_prompt: bool) -> str | None:
        try:
            return str(
                tokenizer.apply_chat_template(
                    messages, tools=tools, tokenize=False, add_generation_prompt=is_prompt
                )
            )
        except (TemplateError, TypeError):
            return None

    return learn_tools(render)


FAMILIES = {
    "hermes": (
        HERMES,
        CallForm(CallWrapper("<tool_call>\n", "\n</tool_call>", "\n")),
        CallSpelling(has_text_arguments=False, has_short_ids=False, has_content=False),
    ),
    "llama": (
        LLAMA,
        CallForm(CallWrapper("", "", "", arguments_key="parameters"), can_be_many=False),
        CallSpelling(has_text_arguments=False, has_short_ids=False, has_content=False),
    ),
    "mistral": (
        MISTRAL,
        CallForm(CallWrapper("", "", ", ", list_begin="[TOOL_CALLS] [", list_end="]")),
        CallSpelling(has_text_arguments=False, has_short_ids=True, has_content=False),
    ),
    "text arguments": (
        TEXT_ARGUMENTS,
        CallForm(CallWrapper("<tool_call>\n", "\n</tool_call>", "\n")),
        CallSpelling(has_text_arguments=True, has_short_ids=False, has_content=False),
    ),
    "thoughts before replies": (
        HERMES.replace(
            "{{ '<|im_start|>assistant' }}", "{{ '<|im_start|>assistant\n<think>\n\n</think>\n' }}"
        ).replace(
            "{% elif message.role != 'system' %}",
            "{% elif message.role == 'assistant' %}"
            "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' + message.content + '<|im_end|>\n' }}"
            "{% elif message.role != 'system' %}",
        ),
        CallForm(CallWrapper("<tool_call>\n", "\n</tool_call>", "\n")),
        CallSpelling(has_text_arguments=False, has_short_ids=False, has_content=False),
    ),
    "a list of tagged calls": (
        HERMES.replace("{% for call in", "{{ '<calls>' }}{% for call in").replace(
            "</tool_call>' }}{% endfor %}", "</tool_call>' }}{% endfor %}{{ '</calls>' }}"
        ),
        CallForm(
            CallWrapper("\n<tool_call>\n", "\n</tool_call>", "", list_begin="<calls>", list_end="</calls>")
        ),
        CallSpelling(has_text_arguments=False, has_short_ids=False, has_content=False),
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_form_of_a_family_is_learnt(family: str) -> None:
    template, form, spelling = FAMILIES[family]
    traits = learn(template)
    assert traits is not None
    assert (traits.form, traits.spelling) == (form, spelling)


def test_markers_are_what_tells_calls_from_text() -> None:
    forms = {family: form for family, (_, form, _) in FAMILIES.items()}
    assert (forms["hermes"].marker, forms["hermes"].is_list) == ("<tool_call>", False)
    assert (forms["llama"].marker, forms["llama"].is_list) == ("", False)
    assert (forms["mistral"].marker, forms["mistral"].is_list) == ("[TOOL_CALLS]", True)


@pytest.mark.parametrize(
    "template",
    [
        CHATML,
        STRICT,
        NAMED,
        HERMES.replace("{% for tool in tools or [] %}", "{% for tool in [] %}"),
        HERMES.replace("message.role == 'tool'", "false").replace(
            "{% elif message.role != 'system' %}", "{% elif message.role in ['user', 'assistant'] %}"
        ),
        HERMES.replace('{"name": "', "<function=").replace('", "arguments": ', ">"),
    ],
    ids=["chatml", "strict", "named", "hides tools", "hides results", "no JSON objects"],
)
def test_a_template_that_does_not_do_all_of_it_does_not_know_tools(template: str) -> None:
    assert learn(template) is None
