"""What is kept for clients beyond a request: stored completions and responses. It knows neither HTTP nor models."""
