"""The commands, their arguments and help texts.

Knows names, defaults and what a value may be; must not know how any command works.
"""

from __future__ import annotations

import argparse
from typing import Any

from .. import __version__
from ..options import BiEncoderOptions
from ..schema import options_of


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole program."""
    made = argparse.ArgumentParser(
        prog="pplx-embed",
        description="pplx-embed text embeddings: try them, index a folder, search it, measure them, check them.",
        epilog="`pplx-embed COMMAND --help` explains one command. Start with: pplx-embed demo",
    )
    made.add_argument("--version", action="version", version=f"pplx-embed {__version__}")
    commands = made.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add(commands, "models", "list the checkpoints that are known by name")
    _add_demo(commands)
    _add_index(commands)
    _add_search(commands)
    _add_forget(commands)
    _add_questions(commands)
    _add_evaluate(commands)
    _add_verify(commands)
    _add_serve(commands)
    return made


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.set_defaults(module=name)
    return command


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _add(
        commands, "demo", "show what context, int8 and bits are worth on articles that come along; needs no network"
    )
    command.add_argument("--report", metavar="FILE", help="write a page with figures and rankings to FILE (HTML)")
    command.add_argument("--json", metavar="FILE", dest="json_file", help="write the same to FILE (JSON)")


def _add_index(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _add(
        commands,
        "index",
        "index a folder's text and Markdown files, each chunk with its document's context; run it again after changes, "
        "or after an interruption, and only what is missing is embedded",
    )
    command.add_argument("directory", metavar="DIR", help="the folder; files are read below it at any depth")
    _add_store(command)
    command.add_argument(
        "--include",
        nargs="+",
        action="extend",
        metavar="PATTERN",
        help='other files to read, by name, as in --include "*.rst" "*.html" "*.log"; HTML is turned into its text',
    )
    command.add_argument(
        "--as",
        dest="name",
        metavar="NAME",
        help="what the collection calls the folder (default: its absolute path); after a move, the name it had before",
    )
    command.add_argument(
        "--allow-removal",
        action="store_true",
        help="remove chunks of files that are gone even if they are more than half of the folder's files, or were in a "
        "folder that is empty now",
    )
    _add_model(command, default="0.6b, or what the collection was made with")
    _add_option(command, "dimensions", type=int, metavar="N")
    command.add_argument(
        "--quantization",
        choices=["int8", "binary"],
        help="codes, and bits to find them by, or bits alone, in an eighth of the space (default: int8)",
    )
    command.add_argument("--chunk-tokens", type=_positive, metavar="N", help="longest chunk in tokens (default: 256)")


def _add_search(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _add(commands, "search", "search what `pplx-embed index` has indexed, with the model it recorded")
    command.add_argument("query", metavar="QUERY", help="what you look for, in plain words")
    _add_store(command)
    command.add_argument("--limit", type=_positive, default=5, metavar="N", help="how many chunks to show (default: 5)")


def _add_forget(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _add(commands, "forget", "delete a folder's chunks from a collection; the folder itself is not touched")
    command.add_argument("name", metavar="NAME", help="the folder, by the name that search shows or by its path")
    _add_store(command)


def _add_questions(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _add(
        commands,
        "questions",
        "make a collection for `evaluate` of a folder's text and Markdown files: passages are drawn, and you, or a "
        "chat model, write a question for each; stop at any time, the same command goes on",
    )
    command.add_argument("directory", metavar="DIR", help="the folder; files are read below it at any depth")
    command.add_argument("--to", required=True, metavar="FOLDER", help="where the collection is, or will be")
    command.add_argument(
        "--count", type=_positive, default=50, metavar="N", help="how many questions it should have (default: 50)"
    )
    command.add_argument(
        "--chat",
        metavar="CLASS",
        help="a LangChain chat model that writes them and is sent the passages, as in --chat "
        "'langchain_openai:ChatOpenAI(model=\"gpt-4o-mini\")'",
    )
    command.add_argument(
        "--passage-tokens", type=_positive, metavar="N", help="longest passage in tokens (default: 128)"
    )
    command.add_argument("--seed", type=int, metavar="N", help="of the order in which passages come (default: 0)")
    command.add_argument(
        "--include", nargs="+", action="extend", metavar="PATTERN", help='other files to read, as in --include "*.rst"'
    )


def _add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _add(
        commands,
        "evaluate",
        "measure plain and contextual indexing, the pairings of models, dimensions, quantisations and BM25 on your own "
        "judged queries, by document and by chunk",
    )
    command.add_argument(
        "directory",
        metavar="DIR",
        help="corpus.jsonl, queries.jsonl and qrels/test.tsv (BEIR layout), qrels/passages.tsv for chunks; or "
        "documents.jsonl and queries.jsonl (ConTEB's)",
    )
    _add_model(command, default="0.6b")
    command.add_argument("--split", default="test", help="which file of qrels/ to use (default: test)")
    command.add_argument(
        "--chunk-tokens",
        type=_positive,
        metavar="N",
        help="longest chunk in tokens (default: 128, or the chunks that the collection brings)",
    )
    command.add_argument(
        "--limit",
        type=_positive,
        metavar="N",
        help="use N queries only, with their judged documents and as many others again (quick, and easier than the "
        "whole collection)",
    )
    command.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="CLASS",
        help="a LangChain Embeddings to compare with, as in --against 'langchain_huggingface:HuggingFaceEmbeddings("
        'model_name="sentence-transformers/all-MiniLM-L6-v2")\'; may be given several times',
    )
    command.add_argument(
        "--json", metavar="FILE", dest="json_file", help="write everything to FILE as well, each question included"
    )
    command.add_argument(
        "--report", metavar="FILE", help="write a page to look at, won and lost questions included (HTML)"
    )
    command.add_argument(
        "--explain",
        action="store_true",
        help="have that page say what context lent to the passages it shows; their documents are embedded again, once "
        "for each passage",
    )


def _add_verify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _add(commands, "verify", "run a published checkpoint on this machine and compare with published figures")
    command.add_argument("model", metavar="MODEL", help="v1-0.6b or context-v1-0.6b; downloaded if not in the cache")
    command.add_argument("--folder", metavar="PATH", help="use this copy of MODEL instead of downloading it")


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _add(
        commands,
        "serve",
        "serve models to other programs over Perplexity's and OpenAI's embeddings APIs; clients written for either run "
        "after a change of the URL",
    )
    command.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="a pair (0.6b, 4b, miniature), a checkpoint, a folder, or NAME=MODEL (default: 0.6b)",
    )
    command.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (default: 127.0.0.1)")
    command.add_argument("--port", type=int, default=8080, metavar="N", help="which port, 0 for any (default: 8080)")
    command.add_argument(
        "--api-key",
        action="append",
        default=[],
        metavar="KEY",
        help="what clients must send; may be given several times. Others on this machine can read it: better, put it, "
        "or several separated by commas, into PPLX_EMBED_API_KEY",
    )
    command.add_argument("--no-key", action="store_true", help="listen for other machines though there is no key")
    _add_option(command, "device", metavar="NAME")
    _add_option(command, "dtype", metavar="NAME")
    _add_option(command, "weights", choices=["int8"])
    _add_option(command, "backend", metavar="NAME")
    _add_option(command, "max_tokens", type=_positive, metavar="N")
    _add_option(command, "batch_tokens", type=_positive, metavar="N")
    _add_option(command, "truncate", action="store_true")
    limits: list[tuple[str, int, str]] = [
        ("texts", 2048, "texts or documents in a request"),
        ("request-tokens", 300_000, "tokens in a request"),
        ("body-bytes", 8 * 1024 * 1024, "bytes of a request"),
        ("requests", 1024, "requests that are computed or wait; more are told to come again"),
    ]
    for name, default, text in limits:
        command.add_argument(
            f"--max-{name}", type=_positive, default=default, metavar="N", help=f"most {text} (default: {default})"
        )
    command.add_argument("--verbose", action="store_true", help="tell of each request; never what is in it")


def _add_store(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--store",
        required=True,
        metavar="PATH",
        help="a folder, or object storage such as s3://bucket/folder, whose keys are read from the environment",
    )
    command.add_argument(
        "--collection", default="documents", metavar="NAME", help="collection in the store (default: documents)"
    )


def _add_model(command: argparse.ArgumentParser, *, default: str) -> None:
    _add_option(command, "model", default, metavar="NAME")
    _add_option(command, "query_model", metavar="NAME")
    _add_option(command, "document_model", metavar="NAME")


def _add_option(command: argparse.ArgumentParser, name: str, default: str = "", **how: Any) -> None:
    option = options_of(BiEncoderOptions)[name]
    text = option.description.replace(", folder or `Embedder`", " or folder")  # objects are for Python
    if "action" not in how:
        text += f" (default: {default or option.shown_default})"
    plain = text.replace("`", "").replace('"', "").replace("None", "none")
    command.add_argument(f"--{name.replace('_', '-')}", help=plain[0].lower() + plain[1:], **how)


def _positive(text: str) -> int:
    number = int(text) if text.lstrip("+-").isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number
