"""Moderation: detectors that score texts, the panel that asks them, and the verdicts that the policy makes of it."""
