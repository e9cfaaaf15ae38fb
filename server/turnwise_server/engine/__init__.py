"""Runs the model. It knows token ids only: neither text, nor HTTP, nor SQL."""
