"""The Turnwise chat server: the OpenAI API in front of a causal language model."""

from importlib.metadata import version

__version__ = version("turnwise")
