"""Tuned models for tests, made by hand (prover.adapter): whatever one is asked, it says one word again and again."""

from functools import lru_cache

from keepless.accounts.store import policy_in_force, touch
from keepless.app.compose import Deployment
from keepless.content import Content
from keepless.ids import Id, Prefix, mint
from keepless.inference.embedded.adapter import Base, base_of
from keepless.inference.embedded.engine import weights_of
from keepless.inference.embedded.gguf import open_gguf
from keepless.policy.data_class import DataClass
from keepless.policy.decide import Query, decide
from keepless.policy.decision import Reason, Retain, Trigger
from keepless.prover.adapter import memorised
from keepless.tuning.names import name_of
from keepless.tuning.tables import tuned_model
from tests.support.engine import MODEL

__all__ = ["base", "keep", "saying"]

_DIGITS = str.maketrans("ghijklmnopqrstuvwxyz", "0123456789abcdef0123")


@lru_cache(1)
def base() -> Base:
    """What the embedded weights want of an adapter."""
    return base_of(open_gguf(weights_of(MODEL)[0]))


@lru_cache(8)
def saying(word: str) -> bytes:
    """The kept form of an adapter that says `word`, whatever it is asked."""
    return memorised(weights_of(MODEL)[0], word, MODEL.id)


def keep(
    deployment: Deployment,
    organization_id: Id,
    project_id: Id,
    word: str,
    name: str = "walrus",
    *,
    weights: bytes | None = None,
) -> str:
    """A tuned model that says `word` (or has these weights), kept as a training would leave it; its name."""
    digits = mint(Prefix.OBJECT)[-12:].translate(_DIGITS)
    with deployment.db.read() as tx:
        policy = policy_in_force(tx, organization_id, project_id)
    assert policy is not None
    now = deployment.clock.now_ms()
    permit = decide(
        Query(
            organization_id=organization_id,
            project_id=project_id,
            data_class=DataClass.MODEL_WEIGHTS,
            trigger=Trigger.FEATURE,
            reason=Reason.FEATURE_RESULT,
            effective=policy.effective,
            epoch=policy.epoch,
            created_at_ms=now,
        )
    )
    assert isinstance(permit, Retain)

    def within(tx, kept) -> None:
        tx.execute(
            tuned_model.insert().values(
                hexadecimal=digits,
                organization_id=organization_id,
                project_id=project_id,
                job_id=mint(Prefix.TUNED_MODEL),
                base_model=MODEL.id,
                object_id=kept.id,
                rank=8,
                created_at=now,
            )
        )
        touch(tx)

    with deployment.vault.writing(organization_id) as writer:
        writer.write(Content(weights or saying(word)))
        writer.commit(permit, label=Content(name.encode()), within=within)
    return name_of(MODEL.id, organization_id, name, digits)
