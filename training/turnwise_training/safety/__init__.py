"""Trains and judges the detector of harmful messages; the server loads what it writes without importing it."""
