"""Tests. What support modules assert says as much when it fails as what tests assert."""

import pytest

pytest.register_assert_rewrite("tests.support")
