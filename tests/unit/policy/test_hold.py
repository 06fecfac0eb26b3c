"""Which objects a hold covers: every field that narrows it, over the full product."""

from itertools import product

from keepless.policy.data_class import DataClass
from keepless.policy.hold import Hold, covers

OBJECT = {
    "organization_id": "org_a",
    "project_id": "proj_a",
    "data_class": DataClass.BATCH_INPUT,
    "object_id": "obj_a",
    "created_at_ms": 100,
}


def test_the_whole_product() -> None:
    """Each field: not narrowed, narrowed to the object's value, narrowed to another."""
    covered = 0
    for organization, project, data_class, object_id, start, end in product(
        ("org_a", "org_b"),
        (None, "proj_a", "proj_b"),
        (None, DataClass.BATCH_INPUT, DataClass.BATCH_OUTPUT),
        (None, "obj_a", "obj_b"),
        (None, 99, 100, 101),
        (None, 100, 101),
    ):
        hold = Hold("hold_a", organization, project, data_class, object_id, start, end)
        inside = (
            organization == "org_a"
            and project != "proj_b"
            and data_class is not DataClass.BATCH_OUTPUT
            and object_id != "obj_b"
            and start != 101
            and end != 100
        )
        covered += inside
        assert covers(hold, **OBJECT) is inside, hold
    assert covered == 2 * 2 * 2 * 3 * 2
