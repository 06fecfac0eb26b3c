"""Orders are checked where they arrive, and faults carry nothing but their code."""

import msgspec
import pytest

from keepless.training.order import Fault, Order, TrainingError

ORDER = Order(weights="w", sha256=None, base="b", context=64, n_epochs=1, batch_size=1)


@pytest.mark.parametrize("wrong", [{"n_epochs": 0}, {"r": 65}, {"learning_rate_multiplier": 0}, {"seed": -1}], ids=str)
def test_an_order_out_of_bounds_is_refused(wrong: dict) -> None:
    assert msgspec.json.decode(msgspec.json.encode(ORDER), type=Order) == ORDER
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(msgspec.structs.replace(ORDER, **wrong)), type=Order)


def test_an_error_is_its_code() -> None:
    assert str(TrainingError(Fault.DIVERGED)) == "training_diverged"
