"""The chat loop: read a message or a command, act on it, say how it ended. It knows no keys and no colours."""

from __future__ import annotations

from turnwise_client.commands import is_command, run_command
from turnwise_client.errors import ClientError, ExitStatus, ServerError
from turnwise_client.notices import reply_notices
from turnwise_client.output import Output
from turnwise_client.prompt import LineSource
from turnwise_client.replies import Outcome
from turnwise_client.session import ChatSession

QUIT_HINT = "Ctrl-C again, or Ctrl-D, quits"


class ChatLoop:
    """One run of `turnwise chat`."""

    def __init__(
        self, session: ChatSession, lines: LineSource, output: Output, *, is_interactive: bool
    ) -> None:
        self._session = session
        self._lines = lines
        self._output = output
        self._is_interactive = is_interactive
        self._prefill = ""
        self._status = ExitStatus.OK

    def run(self) -> ExitStatus:
        """Go on until the user quits or the input ends. A person's session ends well; a script's tells of failures."""
        was_hinted = False
        while True:
            prefill, self._prefill = self._prefill, ""
            try:
                text = self._lines.read(prefill)
            except EOFError:
                return self._status
            except KeyboardInterrupt:
                if was_hinted or not self._is_interactive:
                    return self._status if self._is_interactive else ExitStatus.INTERRUPTED
                was_hinted = True
                self._output.notice(QUIT_HINT)
                continue
            was_hinted = False
            if not text.strip():
                continue
            if self._take(text):
                return self._status

    def greet(self) -> None:
        """Say who will answer; without a server, say so and go on: it may come up later."""
        try:
            self._session.refresh_models()
        except ServerError as error:
            self._output.error(str(error))
        else:
            self._output.say(
                [f"{self._session.model} at {self._session.api.server}, /help lists commands and keys"]
            )

    def _take(self, text: str) -> bool:
        """Act on one message or command; return whether the session is over."""
        if not is_command(text):
            self._session.ask(text)
            return self._answer()
        try:
            action = run_command(self._session, text)
        except ClientError as error:
            self._fail(error)
            self._prefill = text
            return False
        self._output.say(action.says)
        self._prefill = action.prefill
        return action.quits or (action.asks_again and self._answer())

    def _answer(self) -> bool:
        outcome = self._session.reply(self._output.display())
        self._tell(outcome)
        last_turn = self._session.conversation.turns[-1]
        if last_turn.reply is None:
            self._prefill = last_turn.prompt
        if outcome.was_interrupted and not self._is_interactive:
            self._status = ExitStatus.INTERRUPTED
            return True
        return False

    def _tell(self, outcome: Outcome) -> None:
        for notice in reply_notices(outcome.reply) if outcome.reply else ():
            self._output.notice(notice)
        if outcome.error:
            self._fail(outcome.error)
        elif outcome.was_interrupted and outcome.reply is None:
            self._output.notice("interrupted before the reply began")
        if self._is_interactive:
            self._output.say([""])

    def _fail(self, error: ClientError) -> None:
        self._output.error(str(error))
        if not self._is_interactive and self._status is ExitStatus.OK:
            self._status = error.exit_status
