"""Files on a rig: the service with the vault, a sweeper and the policy of the database."""

from dataclasses import dataclass

from keepless.accounts.store import policy_in_force
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.expiry.sweep import Sweeper
from keepless.files.service import FileLimits, Files, Intended
from keepless.files.values import UPLOADED, File, FilePurpose
from keepless.ids import Id
from tests.support.vault import Rig

LIMITS = FileLimits(file_bytes=5_000_000, files=20, files_bytes=50_000_000)


@dataclass
class Shelf:
    """Files and who sweeps them."""

    rig: Rig
    sweeper: Sweeper
    files: Files

    def keep(
        self,
        owner: tuple[Id, Id],
        data: bytes = b"a line\n",
        name: str = "name.jsonl",
        purpose: FilePurpose = FilePurpose.BATCH,
        **more: int,
    ) -> File:
        with self.files.writing(*owner) as writer:
            writer.write(Content(data))
            return writer.commit(intended(name, purpose, **more))[0]

    def content(self, one: File) -> bytes:
        reader = self.files.open(one.id, one.organization_id, one.project_id, Purpose.CUSTOMER)
        return b"".join(part.reveal(Purpose.CUSTOMER) for part in reader.stream())


def intended(name: str = "name.jsonl", purpose: FilePurpose = FilePurpose.BATCH, **more: int) -> Intended:
    return Intended(purpose=purpose, data_class=UPLOADED[purpose], name=Content(name.encode()), **more)


def make_shelf(database: Database, rig: Rig, limits: FileLimits = LIMITS) -> Shelf:
    sweeper = Sweeper(database, rig.clock, rig.clock, rig.vault, rig.log)

    def policy_now(organization_id: Id, project_id: Id) -> object:
        with database.read() as tx:
            return policy_in_force(tx, organization_id, project_id)

    files = Files(database, rig.clock, rig.vault, deleter=sweeper, policy_now=policy_now, limits=limits)
    return Shelf(rig, sweeper, files)
