"""Decides what the assistant refuses and how it says so. It knows neither HTTP nor models that generate."""
