"""Chat templates that know tools, in the manner of the families in use, and tokenizers for them."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from support.tiny_tokenizers import tiny_tokenizer

_TURN = "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
_REPLY = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

HERMES = (
    "{% if messages[0].role == 'system' or tools %}{{ '<|im_start|>system\n' }}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content + '\n' }}{% endif %}"
    "{% for tool in tools or [] %}{{ (tool | tojson) + '\n' }}{% endfor %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}"
    "{% if message.tool_calls %}{{ '<|im_start|>assistant' }}"
    "{% if message.content %}{{ '\n' + message.content }}{% endif %}"
    "{% for call in message.tool_calls %}"
    '{{ \'\n<tool_call>\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{ (call.function.arguments | tojson) + '}\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\n' }}"
    "{% elif message.role == 'tool' %}"
    "{{ '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}"
    "{% elif message.role != 'system' %}" + _TURN + "{% endif %}{% endfor %}" + _REPLY
)
"""Hermes and Qwen: calls between tags, one object each."""

LLAMA = (
    "{% for tool in tools or [] %}{{ (tool.function | tojson(indent=1)) + '\n' }}{% endfor %}"
    "{% for message in messages %}"
    "{% if message.tool_calls %}"
    "{% if message.tool_calls | length != 1 %}{{ raise_exception('one call at a time') }}{% endif %}"
    "{% set call = message.tool_calls[0].function %}"
    '{{ \'<|im_start|>assistant\n{"name": "\' + call.name + \'", "parameters": \' }}'
    "{{ (call.arguments | tojson) + '}<|im_end|>\n' }}"
    "{% elif message.role == 'tool' %}"
    "{{ '<|im_start|>ipython\n' + (message.content | tojson) + '<|im_end|>\n' }}"
    "{% else %}" + _TURN + "{% endif %}{% endfor %}" + _REPLY
)
"""Llama 3.1: nothing but the object, `parameters` for the arguments, one call a reply."""

MISTRAL = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% if tools %}{{ '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}"
    "{% for message in messages %}"
    "{% if message.role == 'user' %}{{ '[INST]' + message.content + '[/INST]' }}"
    "{% elif message.tool_calls %}{{ '[TOOL_CALLS] [' }}"
    "{% for call in message.tool_calls %}"
    "{% if call.id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}"
    "{{ (call.function | tojson)[:-1] + ', \"id\": \"' + call.id + '\"}' }}"
    "{% if not loop.last %}{{ ', ' }}{% endif %}{% endfor %}{{ ']<|im_end|>' }}"
    "{% elif message.role == 'assistant' %}{{ ' ' + message.content + '<|im_end|>' }}"
    "{% elif message.role == 'tool' %}"
    '{{ \'[TOOL_RESULTS]{"content": \' + (message.content | tojson) + \', "call_id": "\' }}'
    "{{ message.tool_call_id + '\"}[/TOOL_RESULTS]' }}{% endif %}{% endfor %}"
)
"""Mistral: a marker, then a list; ids of nine characters."""

MISTRAL_TOKENS = (
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_CALLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
)

TEXT_ARGUMENTS = HERMES.replace("(call.function.arguments | tojson)", "call.function.arguments")
"""Joins arguments to text, so that only text will do."""


def tool_tokenizer(template: str, *, control_tokens: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Return the tiny tokenizer with a template that knows tools, and more control tokens."""
    tokenizer = tiny_tokenizer(template)
    known = ["<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": [*known, *control_tokens]})
    return tokenizer
