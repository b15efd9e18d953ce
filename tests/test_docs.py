"""The documentation agrees with the code: links, commands, flags, Python blocks and messages."""
import argparse
import ast
import importlib.util
import re
import runpy
import shlex
import signal
import sys
from functools import cache
from itertools import dropwhile, groupby
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "model/weights/README.md",
         *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.py"), *ROOT.glob("scripts/*.py"))
                 if 'if __name__ == "__main__":' in path.read_text())
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


class Parsed(BaseException):
    """Raised instead of parsing; carries the parser."""


def raise_parser(parser, *_):
    raise Parsed(parser)


@cache
def flags_of(script):
    """The flags of a script's parser, each as a tuple of its names."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    patch, path = pytest.MonkeyPatch(), list(sys.path)
    patch.setattr(argparse.ArgumentParser, "parse_args", raise_parser)
    patch.setattr(sys, "argv", [script])
    try:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    except Parsed as parsed:
        parser, = parsed.args
        return [tuple(action.option_strings) for action in parser._actions
                if action.option_strings and action.help not in (argparse.SUPPRESS, None) and action.dest != "help"]
    finally:
        patch.undo()
        sys.path[:] = path
        for number, handler in before.items():
            signal.signal(number, handler)
    raise AssertionError(f"{script} has no parser")


def names_of(script):
    """The names of all flags of a script."""
    return {name for names in flags_of(script) for name in names}


def blocks(page, language):
    """The contents of the fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def anchors(page):
    """The anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text):
    """Yield the project's Python scripts that a shell text starts, with the arguments of each."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        for separator, words in groupby(lexer, lambda word: set(word) <= set(";&|")):
            words = [] if separator else list(dropwhile(lambda word: re.fullmatch(r"\w+=.*", word), words))
            if " ".join(words).startswith("python -m scripts."):
                yield words[2].replace(".", "/") + ".py", words[3:]
                continue
            script = next((position for position, word in enumerate(words) if word.endswith(".py")), None)
            if script is not None and words[0] in ("python", "torchrun"):
                yield words[script], words[script + 1:]


@by_page
def test_links_resolve(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    for link in links:
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}, anchors: {sorted(anchors(target))}"


def test_every_page_is_linked_in_the_readme():
    readme = PAGES[0].read_text()
    for page in PAGES[1:]:
        assert f"({page.relative_to(ROOT).as_posix()})" in readme


def test_images_are_shown_small_and_reproducible():
    shown = {name for page in PAGES for name in re.findall(r"!\[[^]]*\]\((?:\S*docs/)?([^)]+)\)", page.read_text())}
    gallery = (ROOT / "scripts/make_gallery.sh").read_text()
    images = list((ROOT / "docs").glob("*.jpg"))
    assert {image.name for image in images} == shown
    for image in images:
        assert image.stat().st_size < 150_000
        assert image.name in gallery


@by_page
def test_commands_exist_and_have_these_flags(page):
    inline = re.findall(r"`((?:python|torchrun) [^`]*)`", re.sub(r"\s+", " ", page.read_text()))
    for script, arguments in (found for text in (*blocks(page, "bash"), *inline) for found in commands(text)):
        if script == "X.py":
            continue
        assert script in SCRIPTS, f"{page.name}: {script}"
        known = names_of(script) | {"--help"}
        used = {word.partition("=")[0] for word in arguments if re.match(r"--?[a-zA-Z]", word)}
        assert used <= known, f"{page.name}: {script} has no {', '.join(sorted(used - known))}"


@by_page
def test_shell_scripts_exist(page):
    for text in blocks(page, "bash"):
        for script in re.findall(r"[\w/]+\.sh\b", text):
            assert (ROOT / script).is_file(), f"{page.name}: {script}"


def test_make_has_the_targets_that_pages_and_the_workflow_use():
    known = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    texts = [page.read_text() for page in PAGES] + [(ROOT / ".github/workflows/tests.yml").read_text()]
    used = {target for text in texts for target in re.findall(r"(?:^|`|run: )make (\w+)", text, re.MULTILINE)}
    assert {"demo", "check", "test"} <= used <= known


@by_page
def test_python_compiles_and_its_imports_resolve(page):
    for text in blocks(page, "python"):
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    known = hasattr(module, alias.name) or importlib.util.find_spec(f"{node.module}.{alias.name}")
                    assert known, f"{page.name}: {node.module} has no {alias.name}"


@cache
def tables_of_flags():
    """By script, the flags in the first columns of the tables below its headings in docs/flags.md."""
    tables, scripts = {}, []
    for line in (ROOT / "docs/flags.md").read_text().splitlines():
        if line.startswith("## "):
            scripts = re.findall(r"`([\w/]+\.py)`", line)
        elif line.startswith("|") and scripts:
            for script in scripts:
                tables.setdefault(script, []).extend(re.findall(r"`(--?\w+)", line.split("|")[1]))
    return tables


def test_flags_page_lists_existing_scripts():
    assert set(tables_of_flags()) <= set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_flags_page_lists_exactly_the_flags_of_a_script(script):
    listed = tables_of_flags().get(script, [])
    assert len(listed) == len(set(listed)), f"{script}: a flag is listed twice"
    assert set(listed) <= names_of(script), f"{script}: {sorted(set(listed) - names_of(script))} are not its flags"
    missing = [names for names in flags_of(script) if not set(names) & set(listed)]
    assert not missing, f"{script}: {missing} are not in docs/flags.md"


@cache
def texts_of_the_code():
    """All strings in the code, with \0 for each replacement field."""
    texts = []
    folders = ("annotation", "dataset", "inference", "model", "scripts", "util")
    for path in (*ROOT.glob("*.py"), *(path for name in folders for path in (ROOT / name).glob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def test_quoted_messages_exist_in_the_code():
    text = re.sub(r"\s+", " ", (ROOT / "docs/troubleshooting.md").read_text())
    quoted = [message for title in re.findall(r"\*\*(.*?)\*\*", text) for message in re.findall(r"`([^`]+)`", title)]
    messages = [message for message in quoted if " " in message and not message.startswith("libGL")]
    assert len(messages) > 50
    for message in messages:
        parts = [part for part in (piece.strip(" ()") for piece in message.split("...")) if part]
        pattern = re.compile(".*".join(map(re.escape, parts)), re.DOTALL)
        assert any(pattern.search(known) for known in texts_of_the_code()), message
