"""OpenAI's /v1/responses: made, streamed, run in the background, kept and continued."""
