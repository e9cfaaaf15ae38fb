"""Trains the models that Turnwise serves: tokenizer, pretraining and supervised fine-tuning."""
