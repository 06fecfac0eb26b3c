"""A store that fails is 503; anything else is not."""

import pytest
import sqlalchemy as sa

from keepless.errors import Problem
from keepless.http.failures import stores_may_fail
from keepless.vault.errors import LocationRedError, StoreFailedError


@pytest.mark.parametrize(
    "error",
    [
        sa.exc.OperationalError("SELECT MARKER", None, Exception("MARKER")),
        sa.exc.TimeoutError("MARKER"),
        StoreFailedError("MARKER"),
    ],
)
def test_a_failing_store_is_503_without_its_text(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Problem) as caught, stores_may_fail():
        raise error
    assert (caught.value.status, caught.value.headers) == (503, {"retry-after": "2"})
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert "MARKER" not in str(caught.value) + capsys.readouterr().err


@pytest.mark.parametrize("error", [LocationRedError("red"), sa.exc.CompileError("ours"), ValueError("ours")])
def test_other_failures_pass(error: Exception) -> None:
    with pytest.raises(type(error)), stores_may_fail():
        raise error
