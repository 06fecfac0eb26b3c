"""How fine-tunings are composed: who writes them down, who ends them, which models can be trained.

Holds: `book_of`, `ending_of`, `file_deleted`, `trainable_of`. Leaves out: training (jobs), answering with
tuned models (inference).
"""

from collections.abc import Callable, Mapping
from typing import Any

from keepless.accounts.fence import Fence
from keepless.accounts.principal import PolicyInForce
from keepless.accounts.store import policy_in_force
from keepless.app.batches import input_deleted
from keepless.app.compose import Deployment
from keepless.config import Engine, Settings
from keepless.ids import Id
from keepless.inference.embedded.tunable import can_import, can_train
from keepless.tuning.book import Book
from keepless.tuning.ending import Ending
from keepless.tuning.values import LONGEST_BASE, TuningKind

__all__ = ["book_of", "ending_of", "file_deleted", "policy_reader", "trainable_of"]


def book_of(deployment: Deployment, fence: Fence | None = None) -> Book:
    """The book of a deployment; workers find a new job by themselves, within half a second.

    `fence`: of a process that serves; what it says has succeeded can be asked.
    """
    return Book(
        deployment.db,
        deployment.clock,
        deployment.vault,
        policy_reader(deployment),
        trainable_of(deployment.settings),
        fits=_fits(deployment.settings),
        fence=fence,
    )


def ending_of(deployment: Deployment, fence: Fence | None = None) -> Ending:
    """Who deletes fine-tunings. `fence`: with the lease of a process that serves, so that it need not wait for it."""
    db, clock = deployment.db, deployment.clock
    return Ending(db, clock, deployment.vault, deployment.sweeper, fence or Fence(db, clock))


def file_deleted(deployment: Deployment, book: Book) -> Callable[[Id], Mapping[str, Any]]:
    """What else happens when a file is deleted: jobs that need it end; the answer names the models that stay."""

    def act(file_id: Id) -> Mapping[str, Any]:
        input_deleted(deployment.db, deployment.clock, file_id)
        book.input_deleted(file_id)
        names = book.models_of_file(file_id)
        return {"fine_tuned_models_kept": names} if names else {}

    return act


def trainable_of(settings: Settings) -> list[str]:
    """The ids of the models whose weights are here and can be trained."""
    return [model.id for model in settings.models if model.engine is Engine.LLAMA and len(model.id) <= LONGEST_BASE]


def _fits(settings: Settings) -> Callable[[str, TuningKind], bool]:
    # The embedded one is known; of an operator's own file the header is read.
    own = {model.id: model.path for model in settings.models if model.path is not None}

    def fits(base_model: str, kind: TuningKind) -> bool:
        path = own.get(base_model)
        return path is None or (can_train(path) if kind is TuningKind.TRAIN else can_import(path))

    return fits


def policy_reader(deployment: Deployment) -> Callable[[Id, Id], PolicyInForce | None]:
    """What is in force for a project, as the database says now."""

    def read(organization_id: Id, project_id: Id) -> PolicyInForce | None:
        with deployment.db.read() as tx:
            return policy_in_force(tx, organization_id, project_id)

    return read
