"""Settings for every test: no time limits on single examples, since a loaded machine is not a fault."""

import os

from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: threads that wait for each other would cost more than they do.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("turnwise", deadline=None)
settings.load_profile("turnwise")
