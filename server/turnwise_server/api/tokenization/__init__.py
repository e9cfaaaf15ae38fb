"""Token ids of texts and conversations, and back."""
