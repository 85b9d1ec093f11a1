"""Scan, fit, reload and answers of 80 architectures, each number redone with plain forward passes of transformers."""

import re

import pytest
import torch
from safetensors import safe_open

from actor_tune.engines.local import local_engine
from actor_tune.errors import UserError
from actor_tune.models.chat import encode
from actor_tune.models.load import load, model_class
from actor_tune.models.patch import Patch, base_hash
from actor_tune.models.placement import Placement
from actor_tune.models.state import interpolate, state_of
from actor_tune.prompts.prompt import of_kind
from actor_tune.repair.direction import refusal_direction
from actor_tune.repair.method import fit_block
from actor_tune.repair.scan import MOVED, SHIFT, scan_layers
from actor_tune.repair.settings import Settings
from conftest import make_prompts, make_tokenizer
from families import FAMILIES, QUICK, make_family

# What cannot be trained, and the line that says why.
REFUSED = {"gemma3n_text": r"it returns \[2, 1, \d+, 32\], not one hidden state \(prompt, token, d_model\)"}

TOKENS = torch.arange(0, 261, 3)  # said to begin a refusal: a random model has no refusals of its own
NEW_TOKENS = 6


@pytest.fixture(params=[pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in FAMILIES])
def family(request, tmp_path, monkeypatch):
    """A saved model of the family, loaded."""
    monkeypatch.setattr("actor_tune.repair.refusals.refusal_token_ids", lambda *_: TOKENS)
    make_family(request.param).save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    return load(str(tmp_path / "base"), Placement(device="cpu"))


@torch.no_grad()
def last_states(chat_model, token_ids, layer):
    """What the block returns at the last token, (prompt, d_model), and logits there, of prompts alone."""
    seen = []
    hook = chat_model.blocks[layer].register_forward_hook(
        lambda _m, _a, output: seen.append((output if isinstance(output, torch.Tensor) else output[0])[0, -1])
    )
    logits = [chat_model.model(torch.tensor([ids])).logits[0, -1] for ids in token_ids]
    hook.remove()
    return torch.stack(seen).float(), torch.stack(logits).float()


@torch.no_grad()
def refusal(chat_model, token_ids, layer=None, shift=None):
    """Mean probability of TOKENS, prompt by prompt; with `shift` (d_model) at what the block returns last."""

    def move(_module, _arguments, output):
        hidden = (output if isinstance(output, torch.Tensor) else output[0]).clone()
        hidden[:, -1] += shift
        return hidden if isinstance(output, torch.Tensor) else (hidden, *output[1:])

    hook = chat_model.blocks[layer].register_forward_hook(move) if shift is not None else None
    logits = torch.stack([chat_model.model(torch.tensor([ids])).logits[0, -1] for ids in token_ids])
    if hook:
        hook.remove()
    return float(logits.float().softmax(dim=-1)[:, TOKENS].sum(dim=-1).mean())


def check_scan(chat_model, prompts):
    layers = range(len(chat_model.blocks) - 1)
    found = scan_layers(chat_model, prompts, layers, silhouettes=False, seed=0, tokens=TOKENS)
    ids = {kind: encode(chat_model.tokenizer, of_kind(prompts, kind)) for kind in ("harmful", "harmless", *MOVED)}
    for effect in found.blocks:
        harmful, harmless = (last_states(chat_model, ids[kind], effect.layer)[0] for kind in ("harmful", "harmless"))
        shift = SHIFT * refusal_direction(harmful, harmless).vector
        moved = [refusal(chat_model, ids["pseudo_harmful"], effect.layer, sign * shift) for sign in (-1, 1)]
        assert effect.refusal == pytest.approx(refusal(chat_model, ids["pseudo_harmful"]), abs=5e-4)
        assert [effect.toward_harmless, effect.toward_harmful] == pytest.approx(moved, abs=5e-4)
    return found.layer


def tensors_of(folder):
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as reader:
            found |= {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118
    return found


def check_fit(chat_model, prompts, layer, folder):
    """Exactly one block differs, on disk and in memory, and it is the trained one."""
    fitted = fit_block(chat_model, prompts, Settings(layer=layer, starter=False, allow_unsafe=True))
    state = interpolate(state_of(chat_model.blocks[layer]), fitted.trained, 1.0, fitted.stored.dtypes)
    patch = Patch(layer, fitted.stored.on_disk(state), chat_model.name, base_hash(chat_model), "")
    patch.save_merged(chat_model, folder / "merged")
    before, after = tensors_of(folder / "base"), tensors_of(folder / "merged")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert changed <= patch.tensors.keys()
    assert all(re.search(rf"\.{layer}\.", name) for name in changed)

    ids = encode(chat_model.tokenizer, prompts[:3])
    plain = last_states(chat_model, ids, 0)[1]
    merged = model_class(chat_model.model.config).from_pretrained(folder / "merged", dtype=torch.float32)
    own = dict(chat_model.model.named_parameters())
    differs = {name for name, tensor in merged.named_parameters() if not torch.equal(tensor, own[name])}
    inside = {name for name, module in chat_model.model.named_modules() if module is chat_model.blocks[layer]}
    assert differs
    assert all(name.startswith(f"{next(iter(inside))}.") for name in differs)
    again = load(str(folder / "merged"))
    changed_logits = last_states(again, ids, 0)[1]
    assert not torch.allclose(plain, changed_logits, atol=1e-4)
    with patch.applied(chat_model):
        torch.testing.assert_close(last_states(chat_model, ids, 0)[1], changed_logits)
    assert torch.equal(last_states(chat_model, ids, 0)[1], plain)

    # Positions along the direction, redone with plain forward passes.
    everything = encode(chat_model.tokenizer, fitted.prompts)
    position = fitted.direction.position
    redone = position(last_states(chat_model, everything, layer)[0])
    torch.testing.assert_close(torch.tensor(fitted.before), redone, atol=5e-3, rtol=0)


def check_answers(chat_model, prompts):
    """Each answer is what transformers generates for the prompt alone."""
    answers = {answer.row: answer.text for answer in local_engine(chat_model)(prompts, NEW_TOKENS)}
    ends = chat_model.model.generation_config.eos_token_id
    for row, ids in enumerate(encode(chat_model.tokenizer, prompts)):
        alone = chat_model.model.generate(
            input_ids=torch.tensor([ids]),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            pad_token_id=256,
            eos_token_id=ends,
        )
        text = chat_model.tokenizer.decode(alone[0, len(ids) :], skip_special_tokens=True)
        assert answers[row] == text


def test_scan_fit_and_answers_are_those_of_plain_forward_passes(family, tmp_path, request):
    prompts = make_prompts(10)
    check_answers(family, prompts[::2])
    if reason := REFUSED.get(request.node.callspec.params["family"]):
        with pytest.raises(UserError, match=reason):
            scan_layers(family, prompts, [1], silhouettes=False, seed=0, tokens=TOKENS)
        with pytest.raises(UserError, match=reason):
            fit_block(family, prompts, Settings(layer=1, starter=False))
        return
    layer = check_scan(family, prompts)
    check_fit(family, prompts, layer, tmp_path)
