"""A damaged model folder is one line that names the file at fault and the cause, for `load` and `preflight` alike."""

import json
import logging
import random
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM
from transformers.models.llama import LlamaConfig

from actor_tune.engines.local import local_engine
from actor_tune.errors import UserError
from actor_tune.models.load import load
from actor_tune.models.patch import Patch
from actor_tune.models.placement import Placement
from actor_tune.models.speed import block_rates
from actor_tune.repair.preflight import preflight
from actor_tune.repair.settings import Settings
from actor_tune.storage.loading import loading
from conftest import SIZES, make_model, make_prompts, make_tokenizer
from test_cli import run

CPU = Placement("cpu", "float32")
CONFIG, INDEX, SHARD = "config.json", "model.safetensors.index.json", "model-00001-of-00001.safetensors"
TOKENIZER, SETTINGS, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
GENERATION, WEIGHTS = "generation_config.json", "model.safetensors"
UP = "model.layers.1.mlp.up_proj.weight"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A valid model of two blocks, which is only copied."""
    folder = tmp_path_factory.mktemp("whole") / "model"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(LlamaConfig(**{**SIZES, "num_hidden_layers": 2})).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "model")


def put(file, content):
    """The whole of `file` is `content`."""
    return lambda folder: (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())


def entry(file, **entries):
    def change(folder):
        said = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(said | entries))

    return change


def without(*files):
    return lambda folder: [(folder / file).unlink() for file in files]


def each(*changes):
    return lambda folder: [change(folder) for change in changes]


def header(change):
    """The header of the weight file, put through `change`; the numbers stay."""

    def rewrite(folder):
        content = (folder / WEIGHTS).read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        said = json.loads(content[8:end])
        change(said)
        text = json.dumps(said).encode()
        (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + content[end:])

    return rewrite


def tensors(**changed):
    def rewrite(folder):
        stored = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
        save_file(stored | changed, folder / WEIGHTS, {"format": "pt"})

    return rewrite


def index(content):
    """A checkpoint in shards, whose index is `content`."""

    def change(folder):
        (folder / WEIGHTS).rename(folder / SHARD)
        (folder / INDEX).write_text(content if isinstance(content, str) else json.dumps(content))

    return change


def named(file, cause):
    """What the message begins with: `file`, and then the cause."""
    return rf"/{re.escape(file)}: .*{cause}"


def rope(**parameters):
    return entry(CONFIG, rope_parameters={"rope_theta": 1e4} | parameters)


NO_OBJECT = {
    "a list": ("[]", "JSON, but of type list"),
    "a string": ('"x"', "JSON, but of type str"),
    "a number": ("5", "JSON, but of type int"),
    "null": ("null", "JSON, but of type NoneType"),
    "empty": ("", "an empty file"),
    "cut": ("{", "no JSON that can be read"),
    "not UTF-8": (b"\xff\xfe\x00", "no JSON that can be read .*utf-8"),
    "NUL": ("\0" * 50, "no JSON that can be read"),
    "nested": ('{"a":' * 100_000, "no JSON that can be read .*recursion"),
    "LFS": (LFS, "a pointer of Git LFS.*git lfs pull"),
}
GROUPS = {"group_size": 64, "bits": 4}

# What stops `preflight` too: config, tokenizer and chat template.
DESCRIPTION = {
    **{f"{file}: {what}": (put(file, content), named(file, cause)) for file in (CONFIG, SETTINGS, GENERATION)
       for what, (content, cause) in NO_OBJECT.items()},
    "model type": (entry(CONFIG, model_type="nope"), named(CONFIG, "model type `nope`.*that this version of transf")),
    "no model type": (put(CONFIG, "{}"), named(CONFIG, "Should have a `model_type`")),
    "model type, list": (entry(CONFIG, model_type=["llama"]), named(CONFIG, "unhashable")),
    "activation": (entry(CONFIG, hidden_act="nonsense"), named(CONFIG, "hidden_act is 'nonsense'")),
    "activation, number": (entry(CONFIG, hidden_act=5), named(CONFIG, "'hidden_act' expected str, got int")),
    "rope type": (rope(rope_type="odd"), named(CONFIG, "rope_parameters.rope_type is 'odd'")),
    "rope factor": (rope(rope_type="linear", factor="x"), named(CONFIG, "unsupported operand")),
    "rope, missing": (rope(rope_type="yarn"), named(CONFIG, "factor")),
    "rope, number": (entry(CONFIG, rope_parameters=5), named(CONFIG, "rope_parameters")),
    "rope theta": (rope(rope_type="default", rope_theta="x"), named(CONFIG, "unsupported operand")),
    "no heads": (entry(CONFIG, num_attention_heads=0), named(CONFIG, "num_attention_heads is 0")),
    "no key heads": (entry(CONFIG, num_key_value_heads=0), named(CONFIG, "num_key_value_heads is 0")),
    "no blocks": (entry(CONFIG, num_hidden_layers=0), named(CONFIG, "num_hidden_layers is 0")),
    "negative blocks": (entry(CONFIG, num_hidden_layers=-1), named(CONFIG, "num_hidden_layers is -1")),
    "a milliard of blocks": (entry(CONFIG, num_hidden_layers=10**9), named(CONFIG, "at most 2048")),
    "a milliard of labels": (entry(CONFIG, num_labels=10**9), named(CONFIG, "at most 2048")),
    "blocks, text": (entry(CONFIG, num_hidden_layers="4"), named(CONFIG, "'num_hidden_layers' expected int, got str")),
    "no vocabulary": (entry(CONFIG, vocab_size=0), named(CONFIG, "vocab_size is 0")),
    "negative vocabulary": (entry(CONFIG, vocab_size=-5), named(CONFIG, "vocab_size is -5")),
    "absurd vocabulary": (entry(CONFIG, vocab_size=10**12), named(CONFIG, "a model of 64,000,.* parameters")),
    "absurd width": (entry(CONFIG, hidden_size=10**12), named(CONFIG, "parameters, and the weight files have")),
    "absurd MLP": (entry(CONFIG, intermediate_size=10**15), named(CONFIG, "parameters, and the weight files have")),
    "overflowing": (entry(CONFIG, intermediate_size=10**18), named(CONFIG, "it cannot be loaded")),
    "negative width": (entry(CONFIG, hidden_size=-32), named(CONFIG, "hidden_size is -32")),
    "negative head": (entry(CONFIG, head_dim=-8), named(CONFIG, "head_dim is -8")),
    "heads do not divide": (entry(CONFIG, hidden_size=33), named(CONFIG, r"hidden size \(33\) is not a multiple")),
    "dtype": (entry(CONFIG, dtype="float7"), named(CONFIG, "dtype is 'float7'")),
    "dtype, number": (entry(CONFIG, dtype=5), named(CONFIG, "dtype is 5")),
    "dtype, list": (entry(CONFIG, dtype=[]), named(CONFIG, "it cannot be loaded")),
    "dtype, integers": (entry(CONFIG, dtype="int8"), named(CONFIG, "dtype is torch.int8")),
    "packed, list": (entry(CONFIG, quantization_config=[]), named(CONFIG, r"quantization_config is \[\]")),
    "packed, text": (entry(CONFIG, quantization_config="x"), named(CONFIG, "quantization_config is 'x'")),
    "MLX": (entry(CONFIG, quantization=GROUPS, quantization_config=GROUPS), named(CONFIG, "packed by MLX")),
    "architectures": (entry(CONFIG, architectures=5), named(CONFIG, "not iterable")),
    "padding": (entry(CONFIG, pad_token_id=10**9), named(CONFIG, "Padding_idx must be within")),
    "window": (entry(CONFIG, sliding_window="x"), named(CONFIG, "invalid data type")),
    "method": (entry(CONFIG, get_text_config=5), named(CONFIG, "not callable")),
    "end, text": (entry(GENERATION, eos_token_id="x"), named(GENERATION, "eos_token_id is 'x'")),
    "end, texts": (entry(GENERATION, eos_token_id=[5, "x"]), named(GENERATION, "eos_token_id is")),
    "cache": (entry(GENERATION, cache_implementation="x"), named(GENERATION, "cache_implementation")),
    "tokenizer, empty": (put(TOKENIZER, ""), named(TOKENIZER, "EOF")),
    "tokenizer, list": (put(TOKENIZER, "[]"), named(TOKENIZER, "invalid type: sequence")),
    "tokenizer, number": (put(TOKENIZER, "5"), named(TOKENIZER, "invalid type: integer")),
    "tokenizer, no model": (put(TOKENIZER, "{}"), named(TOKENIZER, "Model missing")),
    "tokenizer, cut": (put(TOKENIZER, "{"), named(TOKENIZER, "EOF")),
    "tokenizer, not UTF-8": (put(TOKENIZER, b"\xff"), named(TOKENIZER, "UTF-8")),
    "tokenizer, LFS": (put(TOKENIZER, LFS), named(TOKENIZER, "a pointer of Git LFS.*git lfs pull")),
    "tokenizer, model": (entry(TOKENIZER, model={"type": "Nope"}), named(TOKENIZER, "did not match any variant")),
    "tokenizer, no words": (entry(TOKENIZER, model={"type": "BPE", "vocab": {}, "merges": []}), "the same tokens"),
    "tokenizer, panic": (
        entry(TOKENIZER, normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        named(TOKENIZER, "Cannot parse precompiled_charsmap"),
    ),
    "tokenizer, late panic": (
        entry(TOKENIZER, pre_tokenizer={"type": "FixedLength", "length": 0}),
        "chunk size must be non-zero",
    ),
    "no tokenizer": (without(TOKENIZER, SETTINGS), "/model: no tokenizer.json"),
    "tokenizer class": (entry(SETTINGS, tokenizer_class=5), named(SETTINGS, "AttributeError")),
    "end token": (entry(SETTINGS, eos_token=5), named(SETTINGS, "Special token eos_token has to be")),
    "side": (entry(SETTINGS, padding_side="x"), named(SETTINGS, "Padding side should be")),
    "length": (entry(SETTINGS, model_max_length="x"), r"/model: .*tokenizer_config\.json again"),
    "special tokens": (put("special_tokens_map.json", "[]"), named("special_tokens_map.json", "JSON, but")),
    "added tokens": (put("added_tokens.json", "5"), named("added_tokens.json", "JSON, but of type int")),
    "template, function": (put(TEMPLATE, "{{ nope() }}"), named(TEMPLATE, "the chat template says: .*'nope' is undef")),
    "template, refusal": (put(TEMPLATE, "{{ raise_exception('no') }}"), named(TEMPLATE, "the chat template says: no")),
    "template, syntax": (put(TEMPLATE, "{% for %}"), named(TEMPLATE, "Expected an expression")),
    "template, division": (put(TEMPLATE, "{{ 1 / 0 }}"), named(TEMPLATE, "ZeroDivisionError")),
    "template, type": (put(TEMPLATE, "{{ messages + 1 }}"), named(TEMPLATE, "TypeError")),
    "template, include": (put(TEMPLATE, "{% include 'x' %}"), named(TEMPLATE, "no loader")),
    "template, recursion": (put(TEMPLATE, "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}"), named(TEMPLATE, "recur")),
    "template, nothing": (put(TEMPLATE, "{% if false %}x{% endif %}"), named(TEMPLATE, "says nothing")),
    "template, constant": (put(TEMPLATE, "x"), named(TEMPLATE, "the same tokens")),
    "template, not UTF-8": (put(TEMPLATE, b"\xff\xfe"), named(TEMPLATE, "utf-8")),
    "template, LFS": (put(TEMPLATE, LFS), named(TEMPLATE, "a pointer of Git LFS")),
    "template, number": (each(without(TEMPLATE), entry(SETTINGS, chat_template=5)), named(SETTINGS, "chat template")),
    "template, names": (
        each(without(TEMPLATE), entry(SETTINGS, chat_template={"a": "b"})),
        named(SETTINGS, "the chat template says: .*no default"),
    ),
    "no config": (without(CONFIG), "/model: no config.json"),
    "only GGUF": (each(without(CONFIG, WEIGHTS), put("m.gguf", "x")), r"only a GGUF file .*name the file.*/m\.gguf"),
}  # fmt: skip

WEIGHT_FILES = {
    "index without a map": (index({"metadata": {}}), named(INDEX, "no weight_map")),
    "index, list": (index("[]"), named(INDEX, "JSON, but of type list")),
    "index, map is a list": (index({"metadata": {}, "weight_map": []}), named(INDEX, r"weight_map is \[\]")),
    "index, empty map": (index({"metadata": {}, "weight_map": {}}), named(INDEX, "without names of files")),
    "index, number": (index({"metadata": {}, "weight_map": {"a": 5}}), named(INDEX, "without names of files")),
    "index, no metadata": (index({"weight_map": {"a": SHARD}}), named(INDEX, "no metadata")),
    "index, missing shard": (
        index({"metadata": {}, "weight_map": {"a": SHARD, "b": "model-00002-of-00002.safetensors"}}),
        named(INDEX, "model-00002-of-00002.safetensors named, and not there"),
    ),
    "index, elsewhere": (index({"metadata": {}, "weight_map": {"a": "../x"}}), named(INDEX, "../x named")),
    "index, LFS": (index(LFS), named(INDEX, "a pointer of Git LFS")),
    "shards without an index": (
        lambda folder: (folder / WEIGHTS).rename(folder / SHARD),
        "neither model.safetensors nor model.safetensors.index.json",
    ),
    "shape": (tensors(**{UP: torch.zeros(24, 32)}), re.escape(f"{UP} is [24, 32] in the weight files; expected [48")),
    "scalar": (tensors(**{UP: torch.tensor(1.0)}), re.escape(f"{UP} is [] in the weight files")),
    "integers": (tensors(**{UP: torch.zeros(48, 32).int()}), f"{UP} stored as I32, and no quantization_config"),
    "empty": (put(WEIGHTS, ""), named(WEIGHTS, "an empty file")),
    "LFS": (put(WEIGHTS, LFS), named(WEIGHTS, "a pointer of Git LFS.*git lfs pull")),
    "huge header": (put(WEIGHTS, b"\xff" * 8 + b"{}"), named(WEIGHTS, "header too large")),
    "header, list": (put(WEIGHTS, (2).to_bytes(8, "little") + b"[]"), named(WEIGHTS, "invalid JSON in header")),
    "overlap": (header(lambda said: said[UP].update(data_offsets=[0, 6144])), named(WEIGHTS, "invalid offset")),
    "dtype": (header(lambda said: said[UP].update(dtype="F7")), named(WEIGHTS, "unknown variant `F7`")),
    "wrong length": (header(lambda said: said[UP].update(shape=[48, 33])), named(WEIGHTS, "invalid shape")),
    "no metadata": (header(lambda said: said.update(__metadata__=5)), named(WEIGHTS, "invalid type")),
    "a folder": (each(without(WEIGHTS), lambda folder: (folder / WEIGHTS).mkdir()), "no weights"),
    "pickled": (each(without(WEIGHTS), put("pytorch_model.bin", "x")), r"pickled weights.*never loaded \(pytorch"),
    "GGUF": (each(without(WEIGHTS), put("m.gguf", "x")), "only a GGUF file .*name the file itself"),
    "NumPy": (each(without(WEIGHTS), put("weights.npz", "x")), "only weights of MLX .*that they were made from"),
    "an adapter beside": (
        each(put("adapter_config.json", "{}"), put("adapter_model.safetensors", "")),
        "a whole model and an adapter; .*move one of the two",
    ),
    "GPTQ": (entry(CONFIG, quantization_config={"quant_method": "gptq", "bits": 4}), "GPTQ.*optimum"),
    "AWQ": (entry(CONFIG, quantization_config={"quant_method": "awq", "bits": 4}), "AWQ.*gptqmodel"),
    "packing": (entry(CONFIG, quantization_config={"quant_method": "nope"}), named(CONFIG, "Unknown quantization")),
    "packing, none": (entry(CONFIG, quantization_config={}), named(CONFIG, "quant_method")),
    "code": (entry(CONFIG, model_type="own", auto_map={"AutoConfig": "own.C"}), "Python code of its own.*`trust"),
}  # fmt: skip


def assert_one_line(error, message):
    assert re.search(message, str(error)), str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("damage", [*DESCRIPTION, *(f"weights: {name}" for name in WEIGHT_FILES)])
def test_a_damaged_model_is_one_line_that_names_the_file_and_the_cause(folder, damage):
    change, message = DESCRIPTION[damage] if damage in DESCRIPTION else WEIGHT_FILES[damage.removeprefix("weights: ")]
    change(folder)
    with pytest.raises(UserError) as caught:
        load(str(folder), Placement("cpu"))
    assert_one_line(caught.value, message)


@pytest.mark.parametrize("damage", DESCRIPTION)
def test_an_estimate_says_the_same_of_config_tokenizer_and_template(folder, damage):
    change, message = DESCRIPTION[damage]
    change(folder)
    with pytest.raises(UserError) as caught:
        preflight(str(folder), make_prompts(8), Settings(layer=0), CPU)
    assert_one_line(caught.value, message)


def test_the_undamaged_model_loads_and_can_be_estimated(folder):
    assert len(load(str(folder), CPU).blocks) == 2
    assert preflight(str(folder), make_prompts(8), Settings(layer=0), CPU).cost.layer == 0


def test_the_command_line_says_it_in_one_line_with_status_2(folder, capfd):
    entry(CONFIG, hidden_act="nonsense")(folder)
    assert run("scan", folder, "--output-dir", folder.parent / "out") == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert "hidden_act is 'nonsense'" in error


def test_the_table_of_transformers_is_not_printed_before_the_line(folder):
    tensors(**{UP: torch.zeros(24, 32)})(folder)
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger("transformers.modeling_utils").addHandler(handler)
    try:
        with pytest.raises(UserError, match="in the weight files; expected"):
            load(str(folder), CPU)
    finally:
        logging.getLogger("transformers.modeling_utils").removeHandler(handler)
    assert records == []


def mutated_json(value, chance: random.Random):
    """`value` with one entry, somewhere in it, that is something else."""
    odd = [None, -1, 0, 3, 1e30, "", "x", [], {}, [0], {"a": 1}, True, 10**13]
    if isinstance(value, dict | list) and value and chance.random() < 0.9:
        keys = [*value] if isinstance(value, dict) else range(len(value))
        key = chance.choice([*keys])
        copy = value.copy()
        if chance.random() < 0.15:
            del copy[key]
        else:
            copy[key] = mutated_json(value[key], chance)
        return copy
    return chance.choice(odd)


def mutated_bytes(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    way = chance.randrange(4)
    if way == 0:
        return content[:at]
    if way == 1:
        return content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
    if way == 2:
        return content[:at] + content[at + chance.randrange(1, 20) :]
    return content[:at] + chance.randbytes(chance.randrange(1, 20)) + content[at:]


def mutate(folder: Path, chance: random.Random) -> str:
    file = chance.choice([CONFIG, TOKENIZER, SETTINGS, TEMPLATE, GENERATION, INDEX, WEIGHTS])
    if file == INDEX:
        names = load_file(folder / WEIGHTS)
        index({"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, SHARD)})(folder)
    content = (folder / file).read_bytes()
    if file == WEIGHTS:
        end = 8 + int.from_bytes(content[:8], "little")
        content = mutated_bytes(content[:end], chance) + content[end:]
    elif file.endswith(".json") and chance.random() < 0.7:
        content = json.dumps(mutated_json(json.loads(content), chance)).encode()
    else:
        content = mutated_bytes(content, chance)
    (folder / file).write_bytes(content)
    return file


@pytest.mark.parametrize("seed", range(10))
def test_whatever_is_changed_a_model_loads_and_answers_or_says_in_a_line_why_not(whole, tmp_path, seed):
    chance, prompts, refused = random.Random(seed), make_prompts(1), 0
    for number in range(16):
        folder = shutil.copytree(whole, tmp_path / str(number))
        mutate(folder, chance)
        said = None
        try:
            list(local_engine(load(str(folder), CPU))(prompts, 2))
        except UserError as error:
            said = str(error)
            refused += 1
        assert said is None or "\n" not in said
        shutil.rmtree(folder)
    assert 2 < refused < 16, "some mutations must matter, and some must not"


@pytest.mark.parametrize("raised", [KeyboardInterrupt, MemoryError, torch.OutOfMemoryError, SystemExit])
def test_lack_of_memory_and_what_ends_the_process_pass_as_they_are(raised):
    with pytest.raises(raised), loading("m", "a model", "try again"):
        raise raised("stop")
    with pytest.raises(RuntimeError, match="can't allocate"), loading("m", "a model", "try again"):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 5 bytes")


def test_what_rust_libraries_panic_with_is_no_exception_and_is_told_all_the_same(folder):
    entry(TOKENIZER, normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"})(folder)
    with pytest.raises(BaseException, match="precompiled_charsmap") as plain:
        Tokenizer.from_file(str(folder / TOKENIZER))
    assert not isinstance(plain.value, Exception)
    with pytest.raises(UserError) as caught, loading("here", "a tokenizer", "try again"):
        Tokenizer.from_file(str(folder / TOKENIZER))
    assert caught.value.where == "here"
    assert type(caught.value.__cause__) is type(plain.value)


def test_a_tokenizer_with_more_tokens_than_the_model_knows_is_refused_at_once(tmp_path):
    for rows in (200, 258):  # 256 bytes, and the marks of turns above
        model = AutoModelForCausalLM.from_config(LlamaConfig(**{**SIZES, "vocab_size": rows, "pad_token_id": None}))
        folder = tmp_path / str(rows)
        model.save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        with pytest.raises(UserError, match=rf"token.*, and a model that knows {rows}"):
            load(str(folder), CPU)
        with pytest.raises(UserError, match=rf"token.*, and a model that knows {rows}"):
            preflight(str(folder), make_prompts(8), placement=CPU)


def test_a_token_that_the_model_does_not_know_is_told_before_it_is_run():
    chat_model = make_model()
    chat_model.tokenizer.add_tokens(["<new>"])
    prompts = make_prompts(1)
    assert chat_model.encode(prompts)
    chat_model.tokenizer.chat_template += "<new>"
    with pytest.raises(UserError, match=r"token 261 \('<new>'\), and a model that knows 261"):
        chat_model.encode(prompts)


def test_without_a_padding_and_an_end_token_answers_are_those_with_them(folder):
    prompts = [*make_prompts(3), *make_prompts(1)]

    def answers(chat_model):
        return {answer.row: answer.text for answer in local_engine(chat_model)(prompts, 4)}

    with_them = answers(load(str(folder), CPU))
    entry(SETTINGS, pad_token=None, eos_token=None)(folder)
    chat_model = load(str(folder), CPU)
    assert chat_model.tokenizer.pad_token_id is None
    assert chat_model.tokenizer.eos_token_id is None
    assert answers(chat_model) == with_them


def test_a_padding_token_beyond_the_embeddings_is_not_used():
    chat_model = make_model()
    chat_model.tokenizer.pad_token = "<padding>"
    chat_model.tokenizer.add_special_tokens({"pad_token": "<padding>"})
    assert chat_model.tokenizer.pad_token_id == 261 == chat_model.known_tokens
    assert chat_model.pad_id == chat_model.tokenizer.eos_token_id


def test_a_template_that_takes_no_conversation_without_a_system_prompt_is_no_fault(folder):
    text = (folder / TEMPLATE).read_text()
    refusal = "{% if messages[0].role != 'system' %}{{ raise_exception('say who I am') }}{% endif %}"
    (folder / TEMPLATE).write_text(refusal + text)
    chat_model = load(str(folder), CPU)
    with pytest.raises(UserError, match="the chat template says: say who I am"):
        chat_model.encode(make_prompts(1))


def test_a_block_that_does_not_fit_is_not_made_to_measure_how_fast_it_is():
    config = LlamaConfig(**{**SIZES, "intermediate_size": 10**13})
    assert block_rates(config, "cpu", torch.float32, 2, 4).prompts > 0


def adapter(folder: Path, base: object, weights: bool = True) -> Path:
    folder.mkdir()
    about = {"base_model_name_or_path": base, "peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(about))
    if weights:
        name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
        save_file({name: torch.ones(2, 32)}, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (5, named("adapter_config.json", "no base_model_name_or_path")),
        ("nowhere/to be found", named("adapter_config.json", "for 'nowhere/to be found', which cannot be found")),
        ("itself", named("adapter_config.json", "an adapter itself")),
        ("whole", "Found missing adapter keys"),
    ],
)
def test_an_adapter_whose_base_cannot_be_had_or_that_lacks_weights_is_refused(whole, tmp_path, base, message):
    base = {"whole": str(whole), "itself": str(tmp_path / "adapter")}.get(base, base)
    folder = adapter(tmp_path / "adapter", base)
    with pytest.raises(UserError) as caught:
        load(str(folder), CPU)
    assert_one_line(caught.value, message)


def test_an_adapter_with_a_config_beside_it_is_an_adapter(whole, tmp_path):
    folder = adapter(tmp_path / "adapter", str(whole), weights=False)
    shutil.copy(whole / CONFIG, folder / CONFIG)
    with pytest.raises(UserError, match="an adapter without adapter_model"):
        load(str(folder), CPU)
    shapes = {"A": (2, 32), "B": (32, 2)}
    names = {f"base_model.model.model.layers.{n}.self_attn.q_proj.lora_{p}.weight": p for n in (0, 1) for p in shapes}
    save_file({name: torch.ones(shapes[part]) for name, part in names.items()}, folder / "adapter_model.safetensors")
    merged = load(str(folder), CPU)
    assert merged.folder is None
    plain = load(str(whole), CPU)
    name = "model.layers.1.self_attn.q_proj.weight"
    assert not torch.equal(merged.model.state_dict()[name], plain.model.state_dict()[name])


@pytest.mark.parametrize(
    ("content", "cause"),
    [("", "cannot mmap an empty file"), (LFS, "a pointer of Git LFS"), ("GGUF", "it cannot be loaded")],
)
def test_a_damaged_gguf_file_is_one_line(tmp_path, content, cause):
    put("m.gguf", content)(tmp_path)
    with pytest.raises(UserError) as caught:
        load(str(tmp_path / "m.gguf"), CPU)
    assert_one_line(caught.value, named("m.gguf", cause))


ABOUT = {"format": "actor-tune patch 1", "layer": "1", "base_model": "m", "base_sha256": "0", "safety": "It passed."}


@pytest.mark.parametrize(
    ("about", "tensor", "cause"),
    [
        (ABOUT | {"layer": "x"}, torch.zeros(1), "layer is 'x'"),
        (ABOUT | {"layer": "-1"}, torch.zeros(1), "layer is '-1'"),
        (ABOUT | {"layer": ""}, torch.zeros(1), "layer is ''"),
        ({key: value for key, value in ABOUT.items() if key != "layer"}, torch.zeros(1), "KeyError: 'layer'"),
        ({key: value for key, value in ABOUT.items() if key != "safety"}, torch.zeros(1), "KeyError: 'safety'"),
        (ABOUT, torch.zeros(1).int(), "w is torch.int32"),
        (ABOUT, torch.zeros(1).bool(), "w is torch.bool"),
        ({}, torch.zeros(1), "another safetensors file"),
    ],
)
def test_a_patch_with_damaged_metadata_is_one_line(tmp_path, about, tensor, cause):
    file = tmp_path / "patch.safetensors"
    save_file({"w": tensor}, file, about or None)
    with pytest.raises(UserError) as caught:
        Patch.load(file)
    assert_one_line(caught.value, named("patch.safetensors", rf"no patch that can be read \({re.escape(cause)}"))


@pytest.mark.parametrize("content", ["", LFS, b"\xff" * 100, (2).to_bytes(8, "little") + b"[]"])
def test_a_patch_that_is_no_safetensors_file_is_one_line(tmp_path, content):
    put("patch.safetensors", content)(tmp_path)
    with pytest.raises(UserError, match=r"/patch\.safetensors: (no patch that can be read|a pointer of Git LFS)"):
        Patch.load(tmp_path / "patch.safetensors")
    (tmp_path / "patch.safetensors").unlink()
    with pytest.raises(UserError, match=r"a folder without patch\.safetensors"):
        Patch.load(tmp_path)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "a/b/c"])
def test_what_can_be_no_model_is_refused(name):
    with pytest.raises(UserError, match=r"the Hub says|no such folder; expected a model folder or a Hub id"):
        load(name, CPU)
