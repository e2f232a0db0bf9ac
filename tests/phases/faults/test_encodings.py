"""Folders, files, names and users that no locale, shell or passwd file knows."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from quick import Quick, plan
from terminal_user import as_asked, at_terminal
from toy import GATE, Toy, toy_plan

from phases.base.paths import cache_dir, find_cache_dir
from phases.errors import EnvironmentFaultError
from phases.git.probe import probe_repository, work_trees
from phases.git.repo import Repo
from tests.soak import mark_soak

UNREADABLE = os.fsdecode(b"byte\xff")
NAMES = ["line\nbreak", UNREADABLE, "blank ", "$X", "%X%", "~x", "Größe 漢字", "'\"", "end\n"]

ASCII = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONIOENCODING": ""}


def run_phases(
    root: Path, *arguments: str, env: dict[str, str] | None = None, code: int = 0
) -> subprocess.CompletedProcess[bytes]:
    """Run the runner on a repository from the folder above it; its output stays bytes."""
    process = subprocess.run(
        [sys.executable, "-m", "phases", "--root", str(root), *arguments],
        cwd=root.parent,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[3]),
            "TMPDIR": f"{root}.tmp",
            "COVERAGE_PROCESS_START": "",
            **(env or {}),
        },
        capture_output=True,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        check=False,
    )
    printed = process.stdout + process.stderr
    assert process.returncode == code, printed.decode("utf-8", "backslashreplace")
    assert b"Traceback" not in printed
    return process


#### case I-63: names of folders


@pytest.mark.parametrize("name", mark_soak(NAMES, short=NAMES[:4]))
def test_i_63_a_repository_in_any_folder(waiting: Quick, tmp_path: Path, name: str) -> None:
    toy = waiting.copy(tmp_path / "in" / name)
    other = waiting.copy(tmp_path / "in" / "other")
    record = other.record_contents()
    # What a shell, GitPython or os.path would make of the name.
    variables = {"X": "other", "HOME": str(other.root)}
    env = {**variables, "TMPDIR": str(toy.temporary), "COVERAGE_PROCESS_START": ""}
    code, screen = at_terminal(toy.root, "approve", "1", answer=as_asked, env=env)
    assert code == 0, screen
    assert b"APPROVED" in (toy.root / "progress.txt").read_bytes()
    run_phases(toy.root, "audit", env=variables)
    status = run_phases(toy.root, "status", "--json", env=variables)
    assert json.loads(status.stdout)["phases"][0]["state"] == "approved"
    assert other.record_contents() == record


def test_i_63_a_run_in_a_folder_that_no_locale_can_name(quick: Quick, tmp_path: Path) -> None:
    toy = quick.copy(tmp_path / "in" / os.fsdecode(b"$X\n\xff "))
    run_phases(toy.root, "run", "--next", env={**ASCII, "X": "other"})
    run_phases(toy.root, "audit", env={**ASCII, "X": "other"})


@pytest.mark.parametrize("name", NAMES)
def test_i_63_git_folders_are_read_exactly(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    tree = tmp_path / f"tree {name}"
    identity = ("-c", "user.name=x", "-c", "user.email=x")
    for arguments in (
        ("init", "-q", "."),
        (*identity, "commit", "-q", "--allow-empty", "-m", "x"),
        ("worktree", "add", "-q", "--detach", str(tree)),
    ):
        root.mkdir(exist_ok=True)
        subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True)
    assert probe_repository(tree).common_dir == root / ".git"
    assert Repo(tree).git_dir.parent == root / ".git/worktrees"
    assert Repo(tree).head() == Repo(root).head()
    assert {path.resolve() for path in work_trees(tree)} == {root, tree}
    (root / "below").mkdir()
    for folder in (root / "below", root / ".git"):
        with pytest.raises(EnvironmentFaultError) as error:
            probe_repository(folder)
        assert "\n" not in str(error.value)


def test_i_63_tracked_files_with_such_names(quick: Quick) -> None:
    for name in (*NAMES, "carriage\r", "-option", ":(top)x"):
        (quick.root / name).write_text("x")
    (quick.root / "link").symlink_to(UNREADABLE)
    with (quick.root / ".git/config").open("ab") as config:
        config.write(b"[user]\n\tname = J\xfcrgen $X\n")
    subprocess.run(["git", "switch", "-qc", b"br\xfcnch"], cwd=quick.root, check=True)
    quick.commit("names")
    (quick.root / "line\nbreak").write_text("changed")
    (quick.root / os.fsdecode(b"untracked\xfe")).write_text("new")
    quick.run("run", "--next", env=ASCII)
    quick.run("audit", env=ASCII)
    quick.run("plan", env=ASCII)


def test_i_63_files_of_the_cache_with_such_names(make_quick: Any, tmp_path: Path) -> None:
    for name in ("w", *NAMES):
        (tmp_path / "cache/words").mkdir(parents=True, exist_ok=True)
        (tmp_path / "cache/words" / name).write_text("x")
    document = plan()
    digest = hashlib.sha256(b"x").hexdigest()
    document["inputs"] = [{"name": "words", "path": "$PHASES_CACHE/words", "sha256": {"w": digest}}]
    document["phases"][0]["features"][0]["inputs"] = ["words"]
    quick = make_quick(document)
    quick.run("run", "--next", env={"PHASES_CACHE": str(tmp_path / "cache"), **ASCII})
    quick.run("audit", env=ASCII)


def test_paths_with_line_ends_are_hashed_under_their_names(quick: Quick) -> None:
    names = ["a\nb", '"quoted"', '"\n\\', "end\r", "plain"]
    for name in names:
        (quick.root / name).write_text(name, newline="")
    ids = Repo(quick.root).stored_ids(names)
    expected = [quick.git("hash-object", "--no-filters", "--", name) for name in names]
    assert [ids[name] for name in names] == expected


#### case I-63: encodings


def chinese_plan() -> dict[str, Any]:
    """Return a plan with names that ASCII and ISO-8859-1 lack, with blanks inside."""
    document = plan()
    document |= {"project": "Zählwerk 漢字", "results": "meine ergebnisse/größe"}
    document["phases"][0]["name"] = "Größe messen 漢字"
    document["phases"][0]["features"][0] |= {
        "title": "Zähle 漢字",
        "command": "sh  worker.sh  ",
        "exempt": [{"files": "*.md", "reason": "für Menschen · 人"}],
        "publish": {"result.json": "docs/Größe 漢字/das Ergebnis.json"},
    }
    return document


@pytest.fixture(scope="module")
def _chinese(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    toy = Quick(tmp_path_factory.mktemp("chinese") / "Übung", chinese_plan())
    toy.git("config", "user.name", "Jürgen Müller")
    return toy


@pytest.fixture(scope="session")
def _latin_1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the variables of a real ISO-8859-1 locale."""
    folder = tmp_path_factory.mktemp("locales")
    command = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(folder / "de_DE")]
    if shutil.which("localedef") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("no localedef that makes de_DE in ISO-8859-1")
    return {"LOCPATH": str(folder), "LC_ALL": "de_DE", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}


@pytest.fixture(params=["ascii", "iso8859-1", "utf-8"])
def encoding(request: pytest.FixtureRequest) -> str:
    """Return the encoding of the locale."""
    name: str = request.param
    return name


@pytest.fixture
def locale_env(encoding: str, request: pytest.FixtureRequest) -> dict[str, str]:
    """Return the variables of a locale with this encoding, as Python itself sees it."""
    env: dict[str, str] = {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": ""}
    if encoding == "ascii":
        env = ASCII
    elif encoding == "iso8859-1":
        env = request.getfixturevalue("_latin_1")
    program = "import sys; print(sys.getfilesystemencoding(), sys.stdout.encoding)"
    seen = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **env}, capture_output=True, check=True
    )
    assert seen.stdout.decode().split() == [encoding, encoding]
    return env


def test_i_52_and_i_63_every_command_in_every_encoding(
    _chinese: Quick, tmp_path: Path, encoding: str, locale_env: dict[str, str]
) -> None:
    toy = _chinese.copy(tmp_path / "Übung")
    run_phases(toy.root, "run", "--next", env=locale_env)

    # 1. The output is in the terminal's encoding; what that lacks is escaped.
    status = run_phases(toy.root, "status", env=locale_env).stdout.decode(encoding)
    title = "Zähle 漢字".encode(encoding, "backslashreplace").decode(encoding)
    assert title in status
    assert ("Größe" in status) == (encoding != "ascii")
    document = json.loads(run_phases(toy.root, "status", "--json", env=locale_env).stdout)
    assert document["project"] == "Zählwerk 漢字"
    for command in (["plan"], ["log"], ["show", "Q-001"], ["why", "Q-001"]):
        run_phases(toy.root, *command, env=locale_env)

    # 2. The approver types what the terminal shows.
    env = {**locale_env, "TMPDIR": str(toy.temporary), "COVERAGE_PROCESS_START": ""}
    code, screen = at_terminal(
        toy.root, "approve", "1", answer=as_asked, env=env, encoding=encoding
    )
    assert code == 0, screen
    run_phases(toy.root, "audit", env=locale_env)

    # 3. The record is what a UTF-8 locale gives.
    progress = (toy.root / "progress.txt").read_text("utf-8")
    assert "· Q-001 Zähle 漢字\n" in progress
    assert "sh  worker.sh  , seed 0" in progress
    assert toy.git("show", "HEAD:docs/Größe 漢字/das Ergebnis.json")
    record = json.loads((toy.root / "prd/approvals/phase-1.1.json").read_bytes())
    assert record["predicate"]["phase"]["name"] == "Größe messen 漢字"
    assert record["predicate"]["by"]["gitIdentity"].startswith("Jürgen Müller <")
    assert (toy.root / "meine ergebnisse/größe/Q-001/receipt.json").is_file()
    run_phases(toy.root, "audit")


def test_i_63_a_terminal_may_send_its_own_bytes(
    _chinese: Quick, tmp_path: Path, _latin_1: dict[str, str]
) -> None:
    from phases.decisions.terminal import _is_answer

    program = (
        "import sys; from phases.decisions.terminal import _is_answer;"
        "print(_is_answer(b'Gr\\xf6\\xdfe A2', 'Gr\\xf6\\xdfe A2'),"
        " _is_answer(b'Gr\\xf6\\xdfe A3', 'Gr\\xf6\\xdfe A2'))"
    )
    seen = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), **_latin_1},
        capture_output=True,
        check=True,
    )
    assert seen.stdout == b"True False\n"
    # Refused, but not for its reason: nothing is locked yet.
    toy = _chinese.copy(tmp_path / "toy")
    reason = os.fsdecode(b"gr\xf6\xdfer")
    refused = run_phases(toy.root, "reject", "1", "--reason", reason, env=_latin_1, code=2)
    assert b"--reason" not in refused.stderr
    refused = run_phases(toy.root, "reject", "1", "--reason", reason, code=2)
    assert b"--reason" in refused.stderr

    assert not _is_answer(b"Gr\xf6\xdfe A2", "Größe A2")  # in UTF-8 these bytes are no text
    assert _is_answer("Gro\u0308ße A2\n".encode(), "Größe A2")


def test_i_63_only_the_program_starts_itself_again(tmp_path: Path) -> None:
    program = "import sys, phases.__main__, phases.cli; print(sys.getfilesystemencoding())"
    path = str(Path(__file__).parents[3])
    seen = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path, **ASCII},
        capture_output=True,
        check=True,
        cwd=tmp_path,
    )
    assert seen.stdout == b"ascii\n"


@pytest.mark.parametrize("options", [[], ["-P"], ["-X", "utf8=0"], ["-I"]], ids=" ".join)
def test_i_63_options_of_python_survive(quick: Quick, tmp_path: Path, options: list[str]) -> None:
    path = str(Path(__file__).parents[3])
    script = (
        f"import sys; sys.path.insert(0, {path!r}); sys.argv = ['phases', *sys.argv[1:]];"
        "import phases.__main__; import atexit;"
        "atexit.register(lambda: sys.stdout.write("
        "f'{sys.getfilesystemencoding()} {sys.flags.isolated} {sys.flags.safe_path}'));"
        "phases.__main__.main()"
    )
    seen = subprocess.run(
        [sys.executable, *options, "-c", script, "--root", str(quick.root), "status"],
        env={**os.environ, **ASCII, "LC_ALL": "C"},
        capture_output=True,
        check=False,
        cwd=tmp_path,
    )
    assert seen.returncode == 0, seen.stderr
    last = seen.stdout.decode().splitlines()[-1]
    isolated = int(options == ["-I"])
    assert last == f"utf-8 {isolated} {options in (['-P'], ['-I'])}"


IMPORT_OF_THE_REPOSITORY = """

def test_import_block():
    import sys
    sys.path.insert(0, os.fsdecode({root!r}))
    with pytest.raises(ImportError, match="is in the repository"):
        import code_of_the_repository
"""


@pytest.mark.soak
@pytest.mark.parametrize("name", ["Übung", os.fsdecode(b"$X \n\xff")])
def test_i_63_a_pytest_gate_in_another_encoding(
    tmp_path: Path, name: str, locale_env: dict[str, str]
) -> None:
    root = tmp_path / "in" / name
    root.parent.mkdir()
    toy = Toy(root, toy_plan(features=1))
    Path(f"{root}.tmp").mkdir()
    gate = GATE + IMPORT_OF_THE_REPOSITORY.format(root=os.fsencode(root))
    toy.write("gates/test_count.py", gate)
    toy.write("code_of_the_repository.py", "")
    toy.commit("a gate that asks for the code")
    run_phases(root, "run", "--next", env=locale_env)
    assert b"test_import_block" in (root / "results/TOY-001/verdict.json").read_bytes()
    run_phases(root, "verify", env=locale_env)


#### case I-53: messages of any bytes

MESSAGES = [
    b"a\x1fb\x1ec\x1d\x1c",
    b"not utf-8: \xff\xfe\x80",
    b"lines\r\nof\x0b\x0cany\xc2\x85kind\xe2\x80\xa8",
    b"\x1b[2J\xe2\x80\xaeterminal",
    b"trailers\n\nPhases-Entry\x1f: 0001\nkey\x1e: value\x1f\n",
    b"",
    b"\n\n\n",
]


def commit_raw(quick: Quick, message: bytes, encoding: str = "") -> str:
    """Make a commit of exactly these bytes, which `git commit` would change."""
    tree, parent = quick.git("rev-parse", "HEAD^{tree}"), quick.git("rev-parse", "HEAD")
    header = f"tree {tree}\nparent {parent}\n".encode()
    for role in (b"author", b"committer"):
        header += role + b" J\xfcrgen <j@example.org> 1700000000 +0000\n"
    if encoding:
        header += f"encoding {encoding}\n".encode()
    process = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin", "--literally"],
        cwd=quick.root,
        input=header + b"\n" + message,
        capture_output=True,
        check=True,
    )
    sha = process.stdout.decode().strip()
    quick.git("update-ref", "HEAD", sha)
    return sha


def test_i_53_history_with_messages_of_any_bytes(waiting: Quick) -> None:
    runners = waiting.git("rev-parse", "HEAD")
    shas = [commit_raw(waiting, message) for message in (*MESSAGES, b"cut\0after")]
    for encoding in ("ISO-8859-1", "UTF-16", "UTF-7", "nonsense"):
        shas.append(commit_raw(waiting, b"Gr\xf6\xdfe +AAA- \x1e", encoding))
    waiting.git("config", "i18n.commitEncoding", "ISO-8859-1")
    waiting.git("config", "i18n.logOutputEncoding", "UTF-16")

    repo = Repo(waiting.root)
    history = list(repo.history())
    assert [commit.sha for commit in history[: len(shas)]] == shas[::-1]
    assert all(len(commit.parents) == 1 for commit in history[:-1])
    assert history[len(shas)].sha == runners
    assert history[len(shas)].trailers["Phases-Phase"] == "1"
    assert history[len(shas) - 1].message == MESSAGES[0].decode()
    assert [commit.sha for commit in repo.history(since=runners)] == shas[::-1]

    # The approver reads one printable line for each.
    lines = repo.commits_since(runners)
    assert len(lines) == len(shas)
    assert all(line.isprintable() for line in lines)


def test_i_53_every_command_after_such_messages(waiting: Quick) -> None:
    for message in MESSAGES:
        commit_raw(waiting, message)
    waiting.run("status")
    waiting.run("run", "--next", code=4)
    code, screen = at_terminal(waiting.root, "approve", "1", answer=as_asked)
    assert code == 0, screen
    assert "since then" in screen
    assert "\x1b[2J" not in screen
    waiting.run("run", "--next")
    waiting.run("audit")


def test_attributes_of_any_bytes(quick: Quick) -> None:
    (quick.root / ".gitattributes").write_bytes(b"results/** filter=\xff\n")
    values = [value for _, name, value in Repo(quick.root).attributes(["results/x"]) if value]
    assert "\\xff" in values


#### case I-62: users without a name or a home

USER = ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME", "PHASES_CACHE")


@functools.cache
def nameless() -> tuple[str, ...]:
    """Return the command that runs another one under a user id that passwd does not have."""
    command = ("unshare", "--user", "--map-user=54321", "--")
    program = "import os, pwd; os.getuid() == 54321 and pwd.getpwuid(54321)"
    if shutil.which("unshare"):
        seen = subprocess.run(
            [*command, sys.executable, "-c", program], capture_output=True, check=False
        )
        if b"KeyError" in seen.stderr:
            return command
    pytest.skip("no user namespaces here")


def nameless_env(quick: Quick) -> dict[str, str]:
    """Return the environment of a user of whom nothing is known."""
    env = {name: value for name, value in quick.environment().items() if name not in USER}
    return {**env, "COVERAGE_PROCESS_START": ""}


def run_nameless(quick: Quick, *arguments: str, code: int = 0) -> str:
    """Run a command as that user; return what it printed."""
    process = subprocess.run(
        [*nameless(), sys.executable, "-m", "phases", *arguments],
        cwd=quick.root,
        env=nameless_env(quick),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        check=False,
    )
    printed = process.stdout + process.stderr
    assert process.returncode == code, printed
    assert "Traceback" not in printed
    return printed


def test_i_62_a_user_id_without_a_name_runs_and_approves(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pexpect

    run_nameless(quick, "run", "--next")
    run_nameless(quick, "status")
    run_nameless(quick, "doctor", code=0)
    command, *words = nameless()
    child = pexpect.spawn(
        command,
        [*words, sys.executable, "-m", "phases", "approve", "1"],
        cwd=str(quick.root),
        env=nameless_env(quick),
        encoding="utf-8",
        timeout=60,
    )
    child.expect(r"type exactly:  ([^\r\n]+)\r?\n> ")
    child.sendline(child.match[1])
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0, child.before
    assert "- by 54321 at /dev/" in quick.progress
    run_nameless(quick, "audit")


def test_i_62_the_cache_is_named_where_it_is_needed(make_quick: Any) -> None:
    document = plan()
    document["inputs"] = [
        {"name": "words", "path": "$PHASES_CACHE/words", "sha256": {"w": "0" * 64}}
    ]
    document["phases"][0]["features"][0]["inputs"] = ["words"]
    assert "PHASES_CACHE" in run_nameless(make_quick(document, "input"), "run", "--next", code=7)
    document = plan()
    document["phases"][0]["setup"] = ["true"]
    assert "PHASES_CACHE" in run_nameless(make_quick(document, "setup"), "run", "--next", code=7)


def test_i_62_without_home_the_passwd_entry_has_one(waiting: Quick) -> None:
    env = {name: value for name, value in waiting.environment().items() if name not in USER}
    for command in ("status", "audit", "doctor"):
        subprocess.run(
            [sys.executable, "-m", "phases", command],
            cwd=waiting.root,
            env=env,
            capture_output=True,
            check=True,
        )


@pytest.mark.parametrize("name", ["", "relative"])
def test_the_cache_is_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("PHASES_CACHE", name)
    folder = find_cache_dir()
    assert folder == cache_dir()
    assert folder is not None
    assert folder.is_absolute()
