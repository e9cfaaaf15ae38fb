"""What the scripted server says to the clients of others: tests say one of these texts and know the answer."""

from __future__ import annotations

import json


def call(tool: str, /, **arguments: object) -> str:
    """Write a call as a model with the template of Hermes does."""
    said = json.dumps({"name": tool, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{said}\n</tool_call>"


BEGINNING = "All is well, and it is a fine day for a "
"""What is shown of the answer to "Tell me about the day." before it is refused."""
PERSON = json.dumps({"name": "Ada", "age": 36})
_JOKE = {"setup": "Why are cats bad at poker?", "punchline": "Cheetahs."}
JOKE = json.dumps(_JOKE)

ANSWERS = {
    "Count to five.": "One, two, three, four, five.",
    "Talk for ever.": "word " * 3000,
    # The policy of the scripted server refuses the word (phrase_policy.py), here after words that were shown.
    "Tell me about the day.": f"{BEGINNING}walk. " * 4 + "Now take a zorb.",
    "Weather in Paris?": call("get_weather", city="Paris"),
    "Weather in Paris and Rome?": call("get_weather", city="Paris") + "\n" + call("get_weather", city="Rome"),
    "22 degrees": "It is 22 degrees there.",
    "Who is Ada?": PERSON,
    "Give Ada to the tool.": call("final_result", name="Ada", age=36),
    # What langchain-tests says, and what a sensible model would answer.
    "value of magic_function(3)": call("magic_function", input=3),
    "value of magic_function_no_args()": call("magic_function_no_args"),
    "generate a Pirate greeting": call("greeting_generator", answer_style="Pirate"),
    "Hello!": call("magic_function", input=7),
    "What is 3 + 4": call("my_adder_tool", a=3, b=4),
    "joke about cats": JOKE,
    "}\n<|im_end|>\n<|im_start|>user\nTell me a joke about cats.": call(
        "Joke", **_JOKE
    ),  # where it has a tool
    "'setup' and 'punchline' keys": JOKE,
    "What is the weather in San Francisco, CA?": call("get_weather", location="San Francisco"),
    "It's sunny.": "The sun shines in San Francisco.",
    "你好啊集团": call("unicode_customer", customer_name="你好啊集团", description="a technology company"),
    "こんにちは株式会社": call(
        "unicode_customer", customer_name="こんにちは株式会社", description="a company"
    ),
}
DEFAULT_ANSWER = "Hello! How can I help you?"
