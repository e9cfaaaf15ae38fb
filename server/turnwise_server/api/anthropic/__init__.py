"""Anthropic's /v1/messages, with errors and streams in its own form."""
