"""The contract's assertions say what they compared, as those of test modules do."""

import pytest

pytest.register_assert_rewrite("tests.stores.contract", "tests.stores.story")
