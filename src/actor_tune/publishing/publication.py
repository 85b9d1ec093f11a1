"""What of a run is published, put together before anything is sent, and sent as one commit: all of it or nothing."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id

from ..errors import UserError
from ..models.checkpoint import WEIGHT_SUFFIXES
from ..records import recipe
from ..records.file import row_json
from ..records.lineage import Lineage, check_safe
from ..records.recipe import Recipe
from ..records.response import prompt_row
from ..records.run import GIVEN_FILE, MODEL_FOLDER, PATCH_FILE
from ..repair.card import inherited
from ..storage.files import link_or_copy, storing
from ..storage.folders import building
from ..storage.loading import loading, reason_of
from ..storage.model_folder import INDEX_FILE, model_folder
from .card import card
from .contents import Content, check_private, contents, left_out, size, sums
from .fitted import Fitted, read_fitted
from .text import Needs, command, filled

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Publication:
    """What is to be published in the repository `repo`, and what the gate said of it.

    - `files`: content by name; what is not made for the repository is the file of the run itself.
    - `left_out`: files that lie beside the model and stay there.
    - `reasons`: why the model should not be used, in sentences; empty where it passed.
    - `sentence`: the gate's.
    """

    repo: str
    files: Mapping[str, Content]
    left_out: list[str]
    reasons: list[str]
    sentence: str

    @property
    def passed(self) -> bool:
        """Whether the model is within its limits and passed the gate."""
        return not self.reasons

    @property
    def card(self) -> str:
        """README.md."""
        content = self.files["README.md"]
        return content.decode() if isinstance(content, bytes) else content.read_text(encoding="utf-8")

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {name: size(content) for name, content in self.files.items()}

    def save(self, folder: str | Path, allow_unsafe: bool = False) -> None:
        """Write what would be published into the new or empty `folder`, and send nothing.

        **Raises:** `UnsafeError` when the model failed and `allow_unsafe` is not set; `UserError` when `folder` cannot
        be written.
        """
        check_safe(self.repo, self.reasons, allow_unsafe)
        with building(Path(folder)) as new, storing(folder):
            for name, content in self.files.items():
                (new / name).parent.mkdir(exist_ok=True)
                if isinstance(content, bytes):
                    (new / name).write_bytes(content)
                else:
                    link_or_copy(content, new / name)

    def push(self, private: bool = False, allow_unsafe: bool = False) -> str:
        """Upload it to the Hub, as one commit, and return the repository's address.

        The token is that of the user's own login. Weights of an earlier push that have no place in this one are
        removed by the same commit, as loaders might read them; the repository's history keeps them.

        **Arguments:**

        - `private`: make a private repository, and publish in no public one; else a new one is as its namespace has it,
          which is public for most.

        **Raises:** `UnsafeError` when the model failed and `allow_unsafe` is not set; `UserError` when the Hub does not
        take it. Then nothing is published, and the same call goes on.
        """
        check_safe(self.repo, self.reasons, allow_unsafe)
        api = HfApi()
        with _asking(self.repo):
            made = api.create_repo(self.repo, private=private or None, exist_ok=True)
            there = api.model_info(made.repo_id)
            if private and not there.private:
                fix = "make it private on the Hub, publish it under another name, or leave `private=` out"
                raise UserError(self.repo, "a public repository", "a private one", fix)
            old = [each.rfilename for each in there.siblings or []]
            operations: list[CommitOperationAdd | CommitOperationDelete] = [
                *(CommitOperationAdd(name, content) for name, content in self.files.items()),
                *(CommitOperationDelete(name) for name in old if name not in self.files and _is_ours(name)),
            ]
            api.create_commit(made.repo_id, operations, commit_message="Trained with actor-tune")
        return str(made)


def publication(
    run: str | Path,
    repo: str,
    patch_only: bool = False,
    with_prompts: bool = False,
    measured: str | Path | None = None,
) -> Publication:
    """Put together what of a run is published. Nothing is written or sent.

    ```python
    what = at.publication("run", "me/my-model")
    print(what.card)
    what.save("published", allow_unsafe=not what.passed)
    ```

    **Arguments:**

    - `run`: the folder that a fit was saved in.
    - `repo`: on the Hub, as `me/my-model`.
    - `patch_only`: publish the patch alone. A run that has no model publishes that in any case.
    - `with_prompts`: publish the prompts that were given, and the system prompt, too.
    - `measured`: the folder of a measurement of the run's model, for the card. Where its gate failed, the model failed.

    **Raises:** `UserError` when the run has nothing to publish, a file is damaged or tells of this machine, the prompts
    were not kept, or `repo` is no name.
    """
    run = Path(run)
    fitted = read_fitted(run, Path(measured) if measured else None)
    _check_repo(repo, fitted)
    model = contents(run, patch_only, fitted.base_model is not None)
    patch = PATCH_FILE in model
    data = inherited(run / MODEL_FOLDER if (run / MODEL_FOLDER).is_dir() else _base_folder(fitted))
    needs, said = _needs(fitted, with_prompts)
    files: dict[str, Content] = {"README.md": card(fitted, data, repo, patch, with_prompts, needs).encode()}
    files |= model
    files[Lineage.FILE] = _json(fitted.carried.json())
    made = fitted.recipe("patch" if patch else "merged", with_prompts)
    added = {recipe.SUMS_FILE: sums(model), recipe.REQUIREMENTS_FILE: _requirements(made.versions)}
    about = {"python": made.versions.get("python", "of unknown version"), "command": command(repo, needs)}
    added["README.md"] = filled("README.md.jinja", about | {"prompts": said})
    if with_prompts and fitted.own_prompts:
        rows = [json.dumps(row_json(prompt_row(prompt)), ensure_ascii=False) for prompt in fitted.own_prompts]
        added[GIVEN_FILE] = "".join(f"{row}\n" for row in rows)
    files[f"{recipe.FOLDER}/{Recipe.FILE}"] = _json(made.json())
    files |= {f"{recipe.FOLDER}/{name}": text.encode() for name, text in added.items()}
    check_private(files, run, None if fitted.base_model else fitted.run.model.name)
    return Publication(repo, files, left_out(run, files), fitted.reasons, fitted.sentence)


def _check_repo(repo: str, fitted: Fitted) -> None:
    try:
        validate_repo_id(repo)
    except ValueError as error:
        raise UserError(f"`repo={repo}`", reason_of(error), "OWNER/NAME", "correct it") from None
    if repo == fitted.base_model:
        raise UserError(f"`repo={repo}`", "the base's own repository", "another one", "choose another name")


def _base_folder(fitted: Fitted) -> Path | None:
    """Where the base's card is, for its licence; None, with one line, where it cannot be had."""
    if fitted.base_model is None:
        return Path(fitted.run.model.name)
    try:
        return model_folder(fitted.run.model.name, weights=False)
    except UserError as error:
        log.warning("The card has no licence, as that of the base cannot be read: %s", error)
        return None


def _needs(fitted: Fitted, with_prompts: bool) -> tuple[Needs, str]:
    """What making it again needs besides, and what is said of the prompts.

    **Raises:** `UserError` when prompts are to be published that the run did not keep.
    """
    own = fitted.own_prompts
    if with_prompts and own is None:
        fix = "leave `with_prompts=` out, or fit again"
        raise UserError("`with_prompts=True`", f"no {GIVEN_FILE} in {fitted.folder}", "the prompts given", fix)
    needs = [] if fitted.base_model else [("model", "FOLDER")]
    if own == []:
        said = "All prompts come with actor-tune."
    elif with_prompts:
        said = f"The prompts that were given are in `{GIVEN_FILE}`."
    else:
        needs.append(("prompts", "FILE"))
        said = "The prompts that were given are not published. Who has them gives them; they are known by their hashes."
    if fitted.run.settings.get("system_prompt") and not with_prompts:
        needs.append(("system-prompt", "TEXT"))
        said += " Neither is the system prompt."
    if fitted.run.settings.get("allow_unsafe"):
        needs.append(("allow-unsafe", ""))
        said += " It was made with `allow_unsafe`, and can be made again only with that."
    return needs, said


def _requirements(versions: Mapping[str, str]) -> str:
    """Versions as pip takes them. A build's own suffix, as in 2.6.0+cpu, is no version of a package index."""
    lines = []
    for name, version in versions.items():
        if name != "python":
            public, plus, _ = version.partition("+")
            lines.append(f"{name}=={public}{f'  # ran as {version}' if plus else ''}\n")
    return "".join(lines)


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _is_ours(name: str) -> bool:
    """Whether a file of an earlier push would be taken for a part of this one."""
    weights = "/" not in name and (name.endswith(WEIGHT_SUFFIXES) or name == INDEX_FILE)
    return weights or name.startswith(f"{recipe.FOLDER}/")


@contextmanager
def _asking(repo: str) -> Iterator[None]:
    """What goes wrong on the way to the Hub, in one line."""

    def blame(error: BaseException) -> tuple[object, str]:
        return repo, f"it was not published ({_reason(error)})"

    with loading(repo, "a Hub that takes it", "look at what it says, and do the same again: it goes on", blame):
        yield


def _reason(error: BaseException) -> str:
    """What the Hub said, without the addresses it names, which may be signed."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, HfHubHTTPError | LocalTokenNotFoundError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, LocalTokenNotFoundError):
        return "you are not logged in; run `hf auth login` first"
    if isinstance(cause, HfHubHTTPError):
        status = cause.response.status_code
        said = cause.server_message or cause.response.reason_phrase
        more = {401: "; run `hf auth login`", 403: "; the token of your login may not write there"}.get(status, "")
        return f"{status}: {said}{more}"
    while error.__cause__:  # the library says of an upload only that it failed
        error = error.__cause__
    return re.sub(r"\?\S+", "", reason_of(error))
