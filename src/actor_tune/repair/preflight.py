"""Preflight: whether a fit of a model fits into this machine, and if not, what would.

Nothing but the model's config and tokenizer is read. What a phase needs is said beside it: `cost` in its module.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..engines.engine import REASONING_TOKENS
from ..engines.local import AUTO_BATCH_SIZE
from ..engines.reasoning import marks_of
from ..errors import UserError
from ..models.batches import is_out_of_memory
from ..models.chat import encode
from ..models.kv_cache import common_opening
from ..models.load import described, weights_size
from ..models.machine import Memory, free_memory
from ..models.model import DEFAULT_PLACEMENT, ChatModel
from ..models.origin import origin_of
from ..models.placement import Placement, resolve_dtype
from ..models.size import model_size
from ..models.structure import check_count, stored_dtype
from ..models.tokenizer import check_chat
from ..progress import Stages
from ..prompts.prompt import KINDS, MINIMUM_PROMPTS, Prompt
from ..records.results import MARGIN
from . import gate, method, paths, refusals, scan, strength, train
from .cost import Cost, Phase, Texts, texts_of
from .forecast import measured_speed
from .settings import DEFAULTS, Settings

log = logging.getLogger(__name__)

FEWEST_ANSWERS = 4  # at a time: below this, a shortage of memory is not mended by answering fewer


@dataclass(frozen=True)
class Preflight:
    """What a fit of the model `name` will need, and what is free.

    - `spread`: over devices by transformers, so that what is free on one says nothing.
    - `yours`: how many of the prompts asked at the end are the user's own.
    """

    name: str
    cost: Cost
    free: Memory
    spread: bool = False
    yours: int = 0

    @property
    def phases(self) -> list[Phase]:
        """Every phase in order, with its peak memory and its work."""
        scanning = [scan] if self.cost.scanned else []
        return [phase.cost(self.cost) for phase in (refusals, *scanning, method, train, strength, paths, gate)]

    @property
    def most(self) -> int:
        """Bytes that the heaviest phase needs where the model computes."""
        return max(phase.memory.device for phase in self.phases)

    @property
    def answer_batch(self) -> int:
        """Prompts that the gate answers at a time."""
        return self.cost.answer_batch

    @property
    def sentence(self) -> str:
        """The heaviest phase, and what is free."""
        return sentence(self.phases, self.free)

    @property
    def gate_sentence(self) -> str:
        """How many prompts are asked at the end."""
        own, held_out = f", beside {self.yours} of yours" if self.yours else "", self.cost.gate.prompts - self.yours
        return f"The safety gate at the end asks {held_out} held-out prompts before and after{own}"

    @property
    def lack(self) -> str | None:
        """Which phase does not fit, in words."""
        for where, kind in (("device", ""), ("ram", " of RAM")):
            needs = {phase.name: getattr(phase.memory, where) for phase in self.phases}
            heavy, free = max(needs, key=needs.__getitem__), getattr(self.free, where)
            if needs[heavy] > free:
                return f"{heavy} needs about {_gib(needs[heavy])}{kind} and {_gib(free)} are free"
        return None

    def with_fewer_answers(self) -> "Preflight":
        """The same with as many prompts answered at a time as fit, halved to at least `FEWEST_ANSWERS`."""
        need = self
        while need.answer_batch > FEWEST_ANSWERS and need.lack:
            need = replace(need, cost=replace(need.cost, answer_batch=need.answer_batch // 2))
        return need

    def check(self) -> None:
        """Stop where the fit does not fit into what is free.

        **Raises:** `UserError` whose advice is the first change that does fit, by the same estimate.
        """
        if self.lack and not self.spread:
            raise UserError(self.name, self.lack, "enough memory", self._advice())

    def _advice(self) -> str:
        """The first change after which the fit fits; those that leave the method as it is come first."""
        cost, place, small = self.cost, self.cost.placement, min(2, self.cost.value)
        streamed = replace(cost, placement=replace(place, offload="stream", quantization="none"))
        alone = "" if place.quantization == "none" else " without `quantization=`"
        changes = {
            f"use `offload=stream`{alone}": streamed,
            "use `dtype=bfloat16`": replace(cost, value=small),
            f"use `offload=stream` `dtype=bfloat16`{alone}": replace(streamed, value=small),
        }
        fewer = cost
        while (fewer := _half(fewer)).given.prompts >= len(KINDS) * MINIMUM_PROMPTS:
            changes[f"give fewer prompts, {fewer.given.prompts} in all"] = fewer
        if not cost.streamed:  # one excludes the other
            changes["use `quantization=bnb_4bit`"] = replace(cost, placement=replace(place, quantization="bnb_4bit"))
        for change, changed in changes.items():
            need = replace(self, cost=changed)
            if need.lack is None:
                return f"{change} (needs about {_gib(need.most)})"
        return "choose a smaller model"

    def seconds(
        self, chat_model: ChatModel, prompts: Sequence[Prompt], max_reasoning_tokens: int = REASONING_TOKENS
    ) -> dict[str, float]:
        """What each phase will take, by name, from batches of `prompts` that the loaded model runs now.

        Of a model that reasons, what it takes at most, which is logged. Nothing where memory is too short to try.
        """
        need = self
        if marks_of(chat_model.tokenizer):
            log.info("the model reasons: what is said of time is the most that it may take")
            own, gates = self.cost.own_tokens + REASONING_TOKENS, self.cost.answer_tokens + max_reasoning_tokens
            need = replace(self, cost=replace(self.cost, own_tokens=own, answer_tokens=gates))
        try:
            speed = measured_speed(chat_model, prompts, self.cost)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return {}  # what follows takes less at a time
        return {phase.name: speed.seconds(phase.work) for phase in need.phases}

    def stages(self) -> Stages:
        """What says how far the fit is, loading counted too; `expected` of it may be what `seconds` finds."""
        return Stages(["load", *(phase.name for phase in self.phases)])


def preflight(
    name: str,
    prompts: Sequence[Prompt],
    settings: Settings = DEFAULTS,
    placement: Placement = DEFAULT_PLACEMENT,
    margin: float = MARGIN,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> Preflight:
    """What fitting the model `name` on `prompts` will need, with as many gate prompts at a time as there is room for.

    ```python
    at.preflight("MODEL", prompts).sentence
    ```

    **Raises:** `UserError` when prompts or settings are wrong, or its config or tokenizer cannot be had.
    """
    prompts = method.completed(prompts, settings)
    of_gate = gate.gate_prompts(prompts, margin, settings.system_prompt, settings.gate_prompts, settings.aims)
    own = gate.asked_of_users_own(prompts, settings.system_prompt, settings.aims)
    split, placement = method.prepare(prompts, settings), placement.checked()
    trust_remote_code = placement.trust_remote_code
    origin, device = origin_of(name, weights=False, code=trust_remote_code), placement.device
    config, tokenizer = described(name, origin, trust_remote_code, weights=False)
    size, dtype = model_size(config, trust_remote_code), resolve_dtype(placement.dtype, stored_dtype(config), device)
    count = len(size.blocks)
    if stored := weights_size(origin):
        check_count(config, size.parameters, stored, origin.gguf is not None)
    check_chat(tokenizer, name, size.vocabulary, chat_template_kwargs)

    def texts(prompts: Sequence[Prompt]) -> Texts:
        token_ids = encode(tokenizer, prompts, chat_template_kwargs, size.vocabulary)
        return texts_of(token_ids, common_opening(config, token_ids))

    given = texts(split.train + split.validation)
    groups = refusals.groups_asked(split.validation, settings.aims)
    cost = Cost(
        size=size,
        rule=settings.foreseen,
        given=given,
        validation_prompts=len(split.validation),
        own_answers=sum(min(refusals.ASKED, len(group)) for group in groups),
        own_tokens=refusals.ANSWER_TOKENS,
        gate=texts([*of_gate, *own]),
        answer_tokens=gate.ANSWER_TOKENS,
        answer_batch=AUTO_BATCH_SIZE,
        layer=settings.layer % count if isinstance(settings.layer, int) else scan.candidate_layers(count)[-1],
        scanned=isinstance(settings.layer, str),
        placement=placement,
        value=dtype.itemsize,
    )
    return Preflight(name, cost, free_memory(device), placement.device_map is not None, len(own)).with_fewer_answers()


def sentence(phases: Sequence[Phase], free: Memory) -> str:
    """The heaviest phase, and what is free."""
    heavy = max(phases, key=lambda phase: phase.memory.device)
    return f"Heaviest phase: {heavy.name}, about {_gib(heavy.memory.device)}; {_gib(free.device)} free"


def _half(cost: Cost) -> Cost:
    """Half the prompts, with the longest still among them."""
    given = Texts(cost.given.prompts // 2, cost.given.tokens // 2, cost.given.longest)
    return replace(cost, given=given, validation_prompts=cost.validation_prompts // 2)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
