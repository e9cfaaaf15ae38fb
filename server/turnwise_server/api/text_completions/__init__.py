"""OpenAI's /v1/completions: texts continued without a chat template."""
