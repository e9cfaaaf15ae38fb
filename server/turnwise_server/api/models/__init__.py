"""The served models: what clients see of them, and how checkpoints are swapped."""
