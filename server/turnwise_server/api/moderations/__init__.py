"""OpenAI's moderations: what the policy's detectors say of texts, under OpenAI's names."""
