"""The audit: what the policy decided, in files whose records hold each other by their digests. It knows no detector."""
