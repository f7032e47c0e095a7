"""How Hypothesis searches: the same examples every time in `make test`, new ones in `make soak`."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "test", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("soak", deadline=None, max_examples=3_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))
