"""One reply from messages: normalise, truncate, render, detokenise. It knows neither HTTP nor tensors."""
