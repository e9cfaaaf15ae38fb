"""Judges checkpoints: held-out loss, a judge's preferences, refusals and the texts themselves."""

from turnwise_training.evaluate.held_out import held_out_losses

__all__ = ["held_out_losses"]
