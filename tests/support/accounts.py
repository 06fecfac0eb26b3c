"""Rows of accounts for tests that need an organization and a project but not the code that makes them."""

from keepless.accounts.tables import change, organization, project
from keepless.db import Database
from keepless.ids import Id, Prefix, mint


def make_organization(database: Database, *, epoch: int = 1, **controls: bool) -> tuple[Id, Id]:
    """One organization with one project; returns their ids."""
    organization_id, project_id = mint(Prefix.ORGANIZATION), mint(Prefix.PROJECT)
    with database.write() as tx:
        if tx.execute(change.select()).first() is None:
            tx.execute(change.insert().values(id=1, generation=0, schema_version=1, clock_floor=0))
        tx.execute(
            organization.insert().values(
                id=organization_id, name="Example", created_at=0, epoch=epoch, generation=0, **controls
            )
        )
        tx.execute(
            project.insert().values(
                id=project_id, organization_id=organization_id, name="Default", created_at=0, generation=0
            )
        )
    return organization_id, project_id
