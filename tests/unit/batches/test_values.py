"""The state machine as a value, and the texts."""

from keepless.batches.values import ACTIVE, NEXT, TERMINAL, TEXT_OF, BatchState, LineCode


def test_every_state_has_its_place_and_every_active_one_an_end() -> None:
    assert set(NEXT) == set(BatchState)
    assert {state.value for state in TERMINAL} == {"failed", "completed", "expired", "cancelled"}
    for state in ACTIVE:
        reached, found = {state}, set(NEXT[state])
        while found - reached:
            reached |= found
            found = {after for one in reached for after in NEXT[one]}
        assert reached & TERMINAL


def test_every_code_has_a_text() -> None:
    assert set(TEXT_OF) == set(LineCode)
