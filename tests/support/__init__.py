"""Things several tests need: running servers, tiny models, scripted conversations."""
