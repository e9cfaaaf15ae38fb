"""Settings for every test: no time limits on single examples, since a loaded machine is not a fault."""

from hypothesis import settings

settings.register_profile("turnwise", deadline=None)
settings.load_profile("turnwise")
