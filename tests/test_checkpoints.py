"""Names, hub ids, folders and pairs: what resolves to what, and what an error says of the rest."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from pplx_embed_integrations.checkpoints import list_checkpoints, resolve, resolve_pair
from pplx_embed_integrations.errors import CheckpointError, InputTypeError

PUBLISHED = [
    # name, dimension, contextual, known-good revision
    ("v1-0.6b", 1024, False, "2c4d510dd4a732063c31a0f70193e35067b51fd8"),
    ("v1-4b", 2560, False, "06456497a00540a582918fe8dcd3a5eabb207772"),
    ("context-v1-0.6b", 1024, True, "b42df969d4d78d1840769e45c68c4e4ce763768b"),
    ("context-v1-4b", 2560, True, "main"),
]


@pytest.mark.parametrize(("name", "dimension", "contextual", "revision"), PUBLISHED)
@pytest.mark.parametrize(
    "form", ["{}", "pplx-embed-{}", "perplexity-ai/pplx-embed-{}", " {} ", "Perplexity-AI/PPLX-Embed-{}"]
)
def test_every_spelling_of_a_published_checkpoint(
    form: str, name: str, dimension: int, contextual: bool, revision: str
) -> None:
    for spelling in (form.format(name), form.format(name.upper())):
        spec = resolve(spelling)
        assert spec.source == f"perplexity-ai/pplx-embed-{name}"  # in lower case, which alone the hub knows
        assert (spec.name, spec.dimension, spec.contextual, spec.revision) == (name, dimension, contextual, revision)
        assert (spec.min_dimension, spec.max_tokens, spec.local) == (128, 32768, False)


def test_the_list_has_the_published_ones_first_and_each_resolves_to_itself() -> None:
    listed = list_checkpoints()
    assert [spec.name for spec in listed[:4]] == [name for name, *_ in PUBLISHED]
    assert [resolve(spec.name) for spec in listed] == listed


def test_a_revision_replaces_the_pinned_one() -> None:
    assert resolve("v1-0.6b", revision="main").revision == "main"
    with pytest.raises(InputTypeError, match="revision must be a commit, tag or branch"):
        resolve("v1-0.6b", revision=7)  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="revision must be"):
        resolve("v1-0.6b", revision="")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("v1-0.6", "v1-0.6b"),
        ("contxt-v1-4b", "context-v1-4b"),
        ("pplx-embed-v1-06b", "v1-0.6b"),
        ("minature", "miniature"),
    ],
)
def test_an_unknown_name_lists_the_known_and_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        resolve(name)
    message = str(caught.value)
    assert f"did you mean {nearest!r}?" in message
    assert repr(name) in message
    assert all(known in message for known, *_ in PUBLISHED)
    assert "0.6b, 4b, miniature" in message


@pytest.mark.parametrize(
    "name", ["", "  ", "no/such/folder", "~nobody-has-this-name/x", "a\0b", "x" * 5000, "bert-base-uncased"]
)
def test_names_that_cannot_be_anything(name: str) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint or folder"):
        resolve(name)
    with pytest.raises(CheckpointError, match="there is no checkpoint or folder"):
        resolve_pair(name)


@pytest.mark.parametrize("name", ["0.6b", "4B", "miniature"])
def test_a_pair_is_no_single_checkpoint(name: str) -> None:
    with pytest.raises(CheckpointError, match=r"names a pair of checkpoints; one is wanted here: '.*' or '.*'"):
        resolve(name)


@pytest.mark.parametrize("name", [None, 1, b"v1-0.6b", ["v1-0.6b"]])
def test_a_name_is_a_string_or_a_path(name: object) -> None:
    with pytest.raises(InputTypeError, match=r"the model must be a name .* or a folder's path"):
        resolve(name)  # type: ignore[arg-type]


def test_pairs() -> None:
    assert resolve_pair("0.6b") == resolve_pair(" 0.6B ") == ("v1-0.6b", "context-v1-0.6b")
    assert resolve_pair("4b") == ("v1-4b", "context-v1-4b")
    assert resolve_pair("context-v1-4b") == ("context-v1-4b", "context-v1-4b")


def test_a_folder_is_judged_by_its_own_files(replica_v1: Path, replica_context_v1: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "my fine-tuned modèle"
    shutil.copytree(replica_context_v1, renamed)
    for folder, contextual in ((replica_v1, False), (replica_context_v1, True), (renamed, True)):
        for given in (folder, str(folder)):
            spec = resolve(given)
            assert (spec.name, spec.source, spec.local) == (folder.name, str(folder.resolve()), True)
            assert (spec.dimension, spec.min_dimension, spec.contextual, spec.revision) == (32, 4, contextual, None)
            assert spec.max_tokens == 32768


def test_a_folder_may_be_relative_or_in_the_home_directory(
    replica_v1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(replica_v1, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for given in ("model", "./model", "~/model", Path("model"), Path("~/model")):
        # Absolute, so that a change of directory before the first vector does no harm.
        assert resolve(given).source == str(tmp_path.resolve() / "model")


def test_a_path_is_a_folder_even_where_its_name_is_a_checkpoints(
    replica_v1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(replica_v1, tmp_path / "v1-0.6b")
    monkeypatch.chdir(tmp_path)
    assert not resolve("v1-0.6b").local
    assert resolve(Path("v1-0.6b")).local
    query, document = resolve_pair(Path("v1-0.6b"))
    assert query == document
    assert resolve(query).local


def test_a_revision_of_a_folder_is_refused(replica_v1: Path) -> None:
    with pytest.raises(CheckpointError, match=r"revision='main' was given for the local folder .* leave it out"):
        resolve(replica_v1, revision="main")


def edited(folder: Path, target: Path, **changes: object) -> Path:
    shutil.copytree(folder, target)
    config = json.loads((folder / "config.json").read_text()) | changes
    (target / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value != "DROP"}))
    return target


@pytest.mark.parametrize(
    ("changes", "contextual"),
    [
        ({"auto_map": {"AutoModel": "modeling.PPLXQwen3ContextualModel"}}, True),
        ({"auto_map": "DROP", "architectures": ["PplxQwen3ContextualModel"]}, True),
        ({"auto_map": "DROP", "architectures": ["PplxQwen3Model"]}, False),
        ({"auto_map": "DROP", "architectures": "DROP"}, False),
        ({"auto_map": None, "architectures": None}, False),
        ({"auto_map": {"AutoModel": None}, "architectures": 5}, False),
        ({"auto_map": ["x"], "architectures": [None]}, False),
    ],
)
def test_contextual_or_not_is_read_from_the_configuration(
    replica_v1: Path, tmp_path: Path, changes: dict[str, object], contextual: bool
) -> None:
    assert resolve(edited(replica_v1, tmp_path / "m", **changes)).contextual is contextual


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen3"}, "has model_type 'qwen3'; a pplx-embed checkpoint has 'bidirectional_pplx_qwen3'"),
        ({"model_type": "DROP"}, "has model_type None"),
        ({"hidden_size": 0}, "has hidden_size=0; a positive integer is needed"),
        ({"hidden_size": "32"}, "has hidden_size='32'"),
        ({"hidden_size": True}, "has hidden_size=True"),
        ({"max_position_embeddings": "DROP"}, "has max_position_embeddings=None"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(
    replica_v1: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        resolve(edited(replica_v1, tmp_path / "m", **changes))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "\xff\xfe"])
def test_a_configuration_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        resolve(tmp_path)


def test_a_folder_without_configuration_says_which_files_are_needed(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"has no config\.json; give the folder that holds config\.json, tokenizer"
    ):
        resolve(tmp_path)


@pytest.mark.skipif(sys.platform == "win32" or (hasattr(os, "getuid") and os.getuid() == 0), reason="root reads all")
def test_a_configuration_that_may_not_be_read(replica_v1: Path, tmp_path: Path) -> None:
    folder = edited(replica_v1, tmp_path / "m")
    (folder / "config.json").chmod(0)
    with pytest.raises(CheckpointError, match="cannot be read"):
        resolve(folder)
