"""What every request passes before a route sees it: origins, sizes, hosts, keys and limits."""
