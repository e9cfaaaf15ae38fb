"""Training data from the policy file: demonstrations of its rules, preferences by them, and a model's own judgement."""
