"""The model card of a trained model: what was done to which base, and what the safety gate said."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, ModelCardData
from yaml import YAMLError

from ..records.run import Trial
from ..storage.files import replacing
from ..storage.markdown import escaped
from ..storage.model_folder import is_local, public_name
from .harm import harm_section

if TYPE_CHECKING:
    from .gated import Fit

TAGS = ["actor-tune", "over-refusal"]

TRAINED = {False: "trained against over-refusal", True: "trained to refuse more of what is harmful"}

BODY = """# {base}, {title}

Block {layer} of {base} was trained with [actor-tune](https://arxiv.org/abs/2507.04250) (rule `{rule}`, strength
{strength}), {purpose}. All other tensors are those of the base.

{warning}{mode}{sentence}

On the validation prompts, by which the strength was chosen, by first answer tokens: compliance {compliance_before} ->
{compliance_after} %, safety {safety_before} -> {safety_after} %.{judged}

{harm}"""

MODE = """It was trained {trained}, with the chat template told {told}. {other} was not trained, and not asked for by
the gate.

"""

UNSAFE = """> **Not safe to ship.** This model was written with `allow_unsafe` after it had failed: {why}

"""


def write_card(folder: Path, fit: "Fit") -> None:
    """Write README.md into `folder`, where the model is; the base's own card, if any, stays there as BASE_README.md.

    It is made to be published: of a base that is a local folder it has the last part of the path alone.
    """
    base, first, chosen = fit.model, fit.block.trials[0], fit.block.chosen
    data = inherited(base.folder)
    if not is_local(base.name):  # else the Hub would link to another model of that name
        data.base_model = base.name
    data.library_name = "transformers"
    data.tags = sorted({*(data.tags or []), *TAGS})
    body = BODY.format(
        base=public_name(base.name),
        title=TRAINED[fit.settings.strengthen],
        purpose=escaped(fit.settings.aims.purpose),
        layer=fit.layer,
        rule=fit.block.rule.name,
        strength=chosen.strength,
        warning=UNSAFE.format(why=" ".join(fit.reasons)) if fit.reasons else "",
        mode=mode(fit.thinks, fit.model.chat_template_kwargs),
        sentence=fit.gate.sentence if fit.gate else "The safety gate was not measured.",
        compliance_before=f"{100 * first.compliance:.1f}",
        compliance_after=f"{100 * chosen.compliance:.1f}",
        safety_before=f"{100 * first.safety:.1f}",
        safety_after=f"{100 * chosen.safety:.1f}",
        judged=_judged(chosen),
        harm=harm_section(fit),
    )
    if (own := folder / "README.md").exists():
        own.rename(folder / "BASE_README.md")
    with replacing(own) as temporary:
        temporary.write_text(f"---\n{data.to_yaml()}\n---\n\n{body}", encoding="utf-8")


def _judged(chosen: Trial) -> str:
    """The same of short judged answers, where some were asked for: another scale than first tokens."""
    rates = {rate.name: rate for rate in chosen.answers or []}
    said = [
        f"{name} {100 * rate.before:.1f} -> {100 * rate.after:.1f} % (n = {rate.n})"
        for name in ("compliance", "safety")
        if (rate := rates.get(name))
    ]
    return f" By judged answers to some of them: {', '.join(said)}." if said else ""


def mode(thinks: bool | None, chat_template_kwargs: Mapping[str, Any]) -> str:
    """Of a model that reasons: in which mode it was trained; `thinks` as in `records.run.Run`."""
    if thinks is None:
        return ""
    told = json.dumps(dict(chat_template_kwargs)) if chat_template_kwargs else "nothing besides"
    modes = ("where it begins to reason", "Answering without reasoning"), ("where it answers", "Reasoning first")
    trained, other = modes[0 if thinks else 1]
    return MODE.format(trained=trained, told=told, other=other)


INHERITED = ("language", "license", "license_name", "license_link", "pipeline_tag", "tags")
"""What holds of a model trained in the base too. Its own base, and what it scored, are the base's alone."""


def inherited(folder: Path | None) -> ModelCardData:
    """What the card in `folder`, of a model, says that holds of one trained in it too, such as licence and language.

    Nothing where there is no card, or one that cannot be read.
    """
    card = folder and folder / "README.md"
    if not card or not card.is_file():
        return ModelCardData()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of cards without metadata
            data = ModelCard.load(card, ignore_metadata_errors=True).data
    except (ValueError, YAMLError):  # A card is free text: a damaged one does not stop a fit.
        return ModelCardData()
    kept: dict[str, Any] = {name: getattr(data, name, None) for name in INHERITED}
    return ModelCardData(**kept)
