"""OpenAI's /v1/chat/completions: made, streamed and stored."""
