"""The training itself: low-rank adapters (LoRA, by peft) on every projection of the base model, AdamW, one device.

Holds: `Trainer`. Leaves out: examples (examples, tokens), what is said of it and to whom (work), the base (base).

A step: the batch that the seed says (batches), in parts within a bound of tokens; the loss is the mean over all tokens
of the batch that are learned, so the parts do not show in it. Logits are computed only where something is learned, in
pieces that are computed again for the gradient: the memory of a step does not grow with the vocabulary times the text.
Nothing is random but the beginning, which the seed sets. On one kind of machine with the same number of threads a run
gives the same bits each time, and so does one that goes on from a `state`.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from keepless.inference.embedded.adapter import MODULES, Array
from keepless.training.batches import batch_at, parts_of, steps_in
from keepless.training.order import Order
from keepless.training.tokens import Text

__all__ = ["LEARNING_RATE", "DivergedError", "Measured", "Trainer"]

LEARNING_RATE: Final = 1e-3  # times the order's multiplier
_LEAST_RATE: Final = 0.05  # of the learning rate, at the end
_WARM_UP: Final = 10  # at most; a tenth of the steps
_MOST_NORM: Final = 1.0
_LOGITS: Final = 512  # positions at once
_LONG: Final = 1024  # tokens of a text, from which on layers are computed again instead of kept

Measured = tuple[float, float]  # mean loss, share of tokens that would have been said


class DivergedError(ArithmeticError):
    """The loss is not a number any more."""


class Trainer:
    """A base model with an adapter that is being made. `alive` is called every few seconds at least."""

    def __init__(self, base: Any, pad: int, order: Order, texts: Sequence[Text], alive: Callable[[], None]) -> None:
        torch.set_num_threads(order.threads)
        torch.use_deterministic_algorithms(mode=True)
        torch.manual_seed(order.seed)
        self._device: Final = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._order: Final = order
        self._texts: Final = texts
        self._pad: Final = pad
        self._alive: Final = alive
        config = LoraConfig(
            r=order.r,
            lora_alpha=order.alpha,
            lora_dropout=0.0,
            bias="none",
            task_type="CAUSAL_LM",
            target_modules=[name.split(".")[1] for name in MODULES],
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for names of before
            self._model: Final = get_peft_model(base, config).to(self._device)
        self._inner: Final = self._model.get_base_model()
        if max(len(text.tokens) for text in texts) > _LONG:
            self._inner.activation_checkpointing_enable()
        self._learned: Final = [(n, p) for n, p in self._model.named_parameters() if p.requires_grad]
        self._optimizer: Final = torch.optim.AdamW([p for _, p in self._learned], lr=0.0, weight_decay=0.0)
        self.total: Final = order.n_epochs * steps_in(len(texts), order.batch_size)
        self.step = 0  # done
        self.tokens = 0  # trained on

    @property
    def epoch_ends(self) -> bool:
        """Whether the step that was done last was the last of its epoch."""
        return self.step % steps_in(len(self._texts), self._order.batch_size) == 0

    def advance(self) -> Measured:
        """Do one step. Raises `DivergedError`."""
        chosen = batch_at(self.step, len(self._texts), self._order.batch_size, self._order.seed)
        texts = [self._texts[place] for place in chosen]
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate()
        self._model.train()
        self._optimizer.zero_grad(set_to_none=True)
        found = self._measure(texts, backward=True)
        norm = torch.nn.utils.clip_grad_norm_([p for _, p in self._learned], _MOST_NORM)
        if not (math.isfinite(found[0]) and bool(torch.isfinite(norm))):
            raise DivergedError
        self._optimizer.step()
        self.step += 1
        self.tokens += sum(len(text.tokens) for text in texts)
        return found

    def measure(self, texts: Sequence[Text]) -> Measured:
        """How well texts are known that are not learned from."""
        self._model.eval()
        with torch.no_grad():
            return self._measure(texts, backward=False)

    def adapter(self) -> dict[str, Array]:
        """What has been learned so far, by peft's names."""
        found = get_peft_model_state_dict(self._model)
        return {name: tensor.detach().float().cpu().numpy() for name, tensor in found.items()}

    def state(self) -> dict[str, torch.Tensor]:
        """All that is needed to go on from here."""
        found = {}
        for name, parameter in self._learned:
            found[f"value.{name}"] = parameter.detach()
            for part, tensor in self._optimizer.state[parameter].items():
                found[f"{part}.{name}"] = tensor
        return {name: tensor.cpu().contiguous() for name, tensor in found.items()}

    def go_on(self, state: dict[str, torch.Tensor], step: int, tokens: int) -> None:
        """Be where another trainer was after `step` steps. Raises `KeyError`, `RuntimeError` when it does not fit."""
        moments = {}
        with torch.no_grad():
            for place, (name, parameter) in enumerate(self._learned):
                parameter.copy_(state[f"value.{name}"])
                moments[place] = {part: state[f"{part}.{name}"] for part in ("step", "exp_avg", "exp_avg_sq")}
        self._optimizer.load_state_dict(self._optimizer.state_dict() | {"state": moments})
        self.step, self.tokens = step, tokens

    # -- ours ---------------------------------------------------------------------------------------------------------

    def _rate(self) -> float:
        """Up to its height, then down in a straight line."""
        warm = max(1, min(_WARM_UP, self.total // 10))
        height = LEARNING_RATE * self._order.learning_rate_multiplier
        return height * min(1.0, (self.step + 1) / warm) * max(_LEAST_RATE, 1 - self.step / self.total)

    def _measure(self, texts: Sequence[Text], *, backward: bool) -> Measured:
        # The first token of a text is said by nobody.
        count = sum(int(text.learned[1:].sum()) for text in texts)
        loss, right = 0.0, 0
        for part in parts_of([len(text.tokens) for text in texts]):
            self._alive()
            part_loss, part_right = self._part([texts[place] for place in part])
            if backward:
                (part_loss / count).backward()
            loss += float(part_loss.detach())
            right += part_right
        return loss / count, right / count

    def _part(self, texts: Sequence[Text]) -> tuple[torch.Tensor, int]:
        """The sum of the losses of all learned tokens, and how many of them would have been said."""
        width = max(len(text.tokens) for text in texts)
        ids = np.full((len(texts), width), self._pad, np.int64)
        there = np.zeros((len(texts), width), np.int64)
        learned = np.zeros((len(texts), width), np.bool_)
        for row, text in enumerate(texts):
            ids[row, : len(text.tokens)] = text.tokens
            there[row, : len(text.tokens)] = 1
            learned[row, : len(text.tokens)] = text.learned
        tokens = torch.from_numpy(ids).to(self._device)
        mask = torch.from_numpy(there).to(self._device)
        wanted = torch.from_numpy(learned[:, 1:]).to(self._device)
        hidden = self._inner.model(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
        said, told = hidden[:, :-1][wanted], tokens[:, 1:][wanted]
        loss, right = said.new_zeros(()), 0
        for at in range(0, len(told), _LOGITS):
            piece = (said[at : at + _LOGITS], told[at : at + _LOGITS])
            piece_loss, piece_right = checkpoint(self._losses, *piece, use_reentrant=False)
            loss = loss + piece_loss
            right += int(piece_right)
        return loss, right

    def _losses(self, said: torch.Tensor, told: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self._inner.lm_head(said).float()
        return functional.cross_entropy(logits, told, reduction="sum"), (logits.argmax(-1) == told).sum()
