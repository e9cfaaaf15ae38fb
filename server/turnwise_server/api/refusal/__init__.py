"""The refusal layer on the wire: who is guarded how, what a refusal looks like, and what is written down of it."""
