"""What goes wrong at the door is one of a few fixed texts, and a reason of the policy's."""

import pytest
import sqlalchemy as sa

from keepless.policy.decision import DiscardReason
from keepless.vault.errors import (
    LocationRedError,
    PutRefusedError,
    StaleEpochError,
    StoreFailedError,
    store_failures,
)


def test_every_refusal_to_keep_has_its_reason() -> None:
    reasons = {kind: kind("text").reason for kind in PutRefusedError.__subclasses__()}
    assert reasons == {
        StaleEpochError: DiscardReason.STALE_EPOCH,
        LocationRedError: DiscardReason.LOCATION_RED,
        StoreFailedError: DiscardReason.STORE_FAILED,
    }


def test_the_text_of_a_database_stays_inside() -> None:
    with pytest.raises(StoreFailedError) as caught, store_failures():
        raise sa.exc.OperationalError("SELECT secret", {}, ValueError("secret"))
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="own"), store_failures():
        raise ValueError("own")
