"""The Turnwise terminal client: talks to any server that speaks the OpenAI chat API."""
