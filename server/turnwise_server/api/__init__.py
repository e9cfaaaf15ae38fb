"""The HTTP surface: wire types, routes, errors and event streams. It never touches tensors."""
