"""Tables of files and uploads: numbers, instants, enums and ids of ours. Names are in the vault.

A row of `file` is dead as soon as its object is not kept any more: it is not served, and the next round removes it.
"""

import sqlalchemy as sa

from keepless.db import EnumText, Holds, IdText, Instant, partial_index, table
from keepless.files.values import FilePurpose, UploadState
from keepless.policy.data_class import DataClass

__all__ = ["file", "upload", "upload_part"]

_QUIET = sa.text("downloaded_at IS NULL AND warned_at IS NULL")

file = table(
    "file",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("object_id", IdText, nullable=False, unique=True),
    sa.Column("organization_id", IdText, nullable=False, index=True),
    sa.Column("project_id", IdText, nullable=False),
    sa.Column("purpose", EnumText(FilePurpose), nullable=False),
    sa.Column("data_class", EnumText(DataClass), nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),  # plaintext
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("downloaded_at", Instant),  # of results: the first time that their last byte was handed out
    sa.Column("warned_at", Instant),  # of results: when it was announced that they end, once
    sa.Index("file_by_project", "project_id", "created_at", "id"),
    # Results of which their owners may have to hear that they end (batches.expiring).
    partial_index("file_quiet", "data_class", "id", where=_QUIET),
    holds=Holds.CATALOGUE,
)

upload = table(
    "upload",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("name_object_id", IdText, nullable=False),
    sa.Column("organization_id", IdText, nullable=False),
    sa.Column("project_id", IdText, nullable=False),
    sa.Column("purpose", EnumText(FilePurpose), nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),  # that the client has announced
    sa.Column("ends_after_s", sa.Integer),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False, index=True),
    sa.Column("state", EnumText(UploadState), nullable=False),
    sa.Column("file_id", IdText),
    holds=Holds.CATALOGUE,
)

upload_part = table(
    "upload_part",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("upload_id", IdText, nullable=False, index=True),
    sa.Column("object_id", IdText, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    holds=Holds.CATALOGUE,
)
