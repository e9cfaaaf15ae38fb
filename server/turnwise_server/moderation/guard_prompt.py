"""What a causal guard reads: an exchange, written by the guard's own chat template. It knows nothing of weights.

Text from people never becomes a control token, as in `chat.template`. Unlike there, content may have to be a list
of parts: the template of Llama Guard 3 1B renders nothing at all of a plain string.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from transformers import PreTrainedTokenizerFast

from turnwise_server.chat.template import TEMPLATE_FAULTS
from turnwise_server.errors import DetectorFileError
from turnwise_server.moderation.detector import DetectorError, Sample

MAX_QUESTION_CHARS: Final = 4000
"""Most of a question, from its end, that a reply is judged with."""

_Content = Callable[[str], Any]
_CONTENTS: tuple[_Content, ...] = (lambda text: text, lambda text: [{"type": "text", "text": text}])
_PROBE = Sample("zq7f3x reply", "output", "zq7f3x question")
_CODE = re.compile(r"\bS(?:[1-9]|1[0-4])\b")
_SELF_HARM = re.compile(r"^S11\b.*harm", re.IGNORECASE | re.MULTILINE)


class GuardPrompt:
    """Writes prompts for one guard."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, *, max_tokens: int, source: Path) -> None:
        """Try the template of the model directory `source`; prompts will have at most `max_tokens`.

        Raises:
            DetectorFileError: it does not render an exchange, or does not know the hazards of Llama Guard 3.
        """
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        text = self._choose_content()
        if text is None:
            raise DetectorFileError(
                f"{source} has no chat template that renders a question and a reply. Take the guard's "
                "tokenizer_config.json and chat_template.jinja from where the model came from."
            )
        self.codes: Final = frozenset(_CODE.findall(text))
        """The hazard codes that the template lists, of S1 to S14."""
        if "S11" not in self.codes or not _SELF_HARM.search(text):
            raise DetectorFileError(
                f"the chat template of {source} does not list the hazards of Llama Guard 3, where S11 is self-harm; "
                "the policy's codes would mean others. Choose Llama Guard 3 or a model with its codes."
            )

    def write(self, sample: Sample) -> list[int]:
        """Return the prompt's token ids. A question that leaves no room for the text gives way, from its beginning.

        Raises:
            DetectorError: the text does not fit by itself.
        """
        question = sample.question[-MAX_QUESTION_CHARS:]
        while len(ids := self._ids(sample, question)) > self._max_tokens:
            if sample.stage == "input" or not question:
                raise DetectorError(
                    f"a text makes a prompt of {len(ids)} tokens where the guard takes {self._max_tokens}: "
                    "make the policy's input.window_chars and output.context_chars smaller"
                )
            question = question[len(question) // 2 + 1 :]
        return ids

    def _choose_content(self) -> str | None:
        """Find out in which form the template renders content, and return such a rendering."""
        for self._content in _CONTENTS:
            try:
                text = self._tokenizer.apply_chat_template(
                    self._messages(_PROBE, _PROBE.question), tokenize=False, add_generation_prompt=True
                )
            except TEMPLATE_FAULTS:
                continue
            if _PROBE.question in text and _PROBE.text in text:
                return str(text)
        return None

    def _ids(self, sample: Sample, question: str) -> list[int]:
        return list(
            self._tokenizer.apply_chat_template(
                self._messages(sample, question),
                add_generation_prompt=True,
                return_dict=False,
                sanitize_control_tokens=True,
            )
        )

    def _messages(self, sample: Sample, question: str) -> list[dict[str, Any]]:
        turns = [("user", sample.text)]
        if sample.stage == "output":
            turns = [("user", question), ("assistant", sample.text)]
        return [{"role": role, "content": self._content(text)} for role, text in turns]
