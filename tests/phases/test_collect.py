"""Outputs of a hostile or mistaken worker; and the rules on names, as laws."""

import hashlib
import os
import socket
import string
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from phases.base.text import is_printable
from phases.errors import PhasesError
from phases.execution import collect
from phases.execution.collect import OutputsError, collect_outputs

DECLARED = ("result.json", "report.md", "figures/*", "artifacts/**")


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    (folder / "figures").mkdir(parents=True)
    (folder / "artifacts" / "deep").mkdir(parents=True)
    (folder / "result.json").write_text('{"measurements": {}}')
    (folder / "report.md").write_text("# Report\n")
    (folder / "figures" / "loss.png").write_bytes(b"\x89PNG")
    (folder / "artifacts" / "deep" / "weights.safetensors").write_bytes(b"w" * 1000)
    return folder


def problems(out, declared=DECLARED) -> str:
    with pytest.raises(OutputsError) as excinfo:
        collect_outputs(out, declared)
    return "\n".join(excinfo.value.problems)


def test_good_outputs_are_digested(out):
    outputs = collect_outputs(out, DECLARED)
    assert list(outputs) == [
        "artifacts/deep/weights.safetensors",
        "figures/loss.png",
        "report.md",
        "result.json",
    ]
    for path, (digest, size) in outputs.items():
        data = (out / path).read_bytes()
        assert (digest, size) == (hashlib.sha256(data).hexdigest(), len(data))
    with pytest.raises(TypeError):
        outputs["result.json"] = ("0", 0)


def test_one_changed_byte_changes_the_digest(out):
    before = collect_outputs(out, DECLARED)
    (out / "report.md").write_text("# report\n")
    after = collect_outputs(out, DECLARED)
    assert {path for path in before if before[path] != after[path]} == {"report.md"}


def test_the_error_lists_every_problem(out):
    (out / "report.md").unlink()
    (out / "extra.txt").write_text("x")
    (out / "figures" / "link.png").symlink_to("/etc/passwd")
    with pytest.raises(PhasesError) as excinfo:
        collect_outputs(out, DECLARED)
    assert excinfo.value.exit_code == 1
    message = str(excinfo.value)
    assert "outputs: 3 problems" in message
    assert "report.md: declared in the plan and not written" in message
    assert "extra.txt: written and not declared" in message
    assert "figures/link.png: got a symbolic link; expected a regular file" in message


def test_many_problems_are_counted_not_listed(out):
    for index in range(200):
        (out / f"extra-{index}.txt").touch()
    with pytest.raises(OutputsError, match="200 problems") as excinfo:
        collect_outputs(out, DECLARED)
    assert len(excinfo.value.problems) == collect.MAX_PROBLEMS + 1
    assert excinfo.value.problems[-1] == "… and 150 more"


#### kinds of entries


def test_a_link_to_a_folder_is_not_followed(out, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret.txt").write_text("secret")
    (out / "artifacts" / "folder").symlink_to(tmp_path / "elsewhere")
    report = problems(out)
    assert "artifacts/folder: got a symbolic link" in report
    assert "secret" not in report


def test_the_output_folder_itself_may_be_no_link(out, tmp_path):
    out.rename(tmp_path / "moved")
    out.symlink_to(tmp_path / "moved")
    assert "output folder itself cannot be read" in problems(out)
    out.unlink()
    assert "output folder itself cannot be read: No such file" in problems(out)


def test_a_hard_link_is_refused(out, tmp_path):
    (tmp_path / "ledger.txt").write_text("precious")
    os.link(tmp_path / "ledger.txt", out / "artifacts" / "copy.txt")
    assert (
        "artifacts/copy.txt: got a file with 2 hard links; expected a file of its own"
        in problems(out)
    )


def test_a_fifo_and_a_socket_are_refused_without_hanging(out):
    os.mkfifo(out / "artifacts" / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as server:
        cwd = Path.cwd()
        os.chdir(out / "artifacts")  # the path of a socket is short
        try:
            server.bind("socket.txt")
        finally:
            os.chdir(cwd)
        report = problems(out)
    assert "artifacts/pipe.txt: got a FIFO" in report
    assert "artifacts/socket.txt: got a socket" in report


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_a_device_is_refused(out):
    try:
        os.mknod(out / "artifacts" / "zero.txt", 0o020666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this container makes no device nodes")
    assert "artifacts/zero.txt: got a character device" in problems(out)


@pytest.mark.parametrize("name", [".git", ".GIT", ".gitattributes", ".hidden.json"])
def test_hidden_names_are_refused(out, name):
    if name.lower() == ".git":
        (out / "artifacts" / name).mkdir()
        (out / "artifacts" / name / "config").write_text("[core]\nfsmonitor = /tmp/x\n")
    else:
        (out / "artifacts" / name).write_text("{}")
    assert f"artifacts/{name}: hidden files and folders" in problems(out)


@pytest.mark.parametrize(
    "name", ["model.pt", "model.pkl", "model.bin", "array.npy", "run.sh", "README", "a.json.exe"]
)
def test_kinds_of_files_that_are_refused(out, name):
    (out / "artifacts" / name).write_bytes(b"\x80")
    assert f"artifacts/{name}: not an allowed kind of file" in problems(out)


@pytest.mark.parametrize(
    "name", ["receipt.json", "verdict.json", "Receipt.json", "attempts/1.json"]
)
def test_the_runners_own_names_are_reserved(out, name):
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("{}")
    assert "the runner writes this name itself" in problems(out, ["**"])


def test_names_that_mislead(out):
    (out / "artifacts" / "two\nlines.txt").touch()
    (out / "artifacts" / "evil\u202etxt.md").touch()
    (out / "artifacts" / "back\\slash.txt").touch()
    (out / "artifacts" / "e\u0301.txt").touch()
    (out / "artifacts" / "-rf.txt").touch()
    (out / "artifacts" / "end.txt ").touch()
    (out / "artifacts" / os.fsdecode(b"\xff.txt")).touch()
    report = problems(out)
    assert r"artifacts/two\x0alines.txt: the name contains control" in report
    assert r"artifacts/evil\u202etxt.md: the name contains control, invisible" in report
    assert "artifacts/back\\slash.txt: the name contains control, invisible or backslash" in report
    assert "composed form (NFC)" in report
    assert "artifacts/-rf.txt: the name begins or ends with a space, or begins with" in report
    assert "artifacts/end.txt : the name begins or ends" in report
    assert r"artifacts/\udcff.txt: the name is not UTF-8" in report
    # One for each name, and "end.txt " has no allowed suffix; none breaks its line.
    assert len(report.splitlines()) == 8


def test_names_that_are_equal_on_other_systems(out):
    (out / "figures" / "Loss.png").touch()
    assert (
        "figures/Loss.png, figures/loss.png: names that differ only in upper and lower case"
        in problems(out)
    )


def test_folders_collide_too(out):
    (out / "artifacts" / "Deep").mkdir()
    (out / "artifacts" / "Deep" / "other.txt").touch()
    assert "artifacts/Deep, artifacts/deep: names that differ" in problems(out)


#### sizes


def test_what_is_committed_is_limited_and_artifacts_are_not(out):
    (out / "artifacts" / "big.safetensors").write_bytes(bytes(collect.MAX_COMMITTED + 1))
    small = sum(
        path.stat().st_size
        for path in (out / "result.json", out / "report.md", out / "figures" / "loss.png")
    )
    (out / "figures" / "big.png").write_bytes(bytes(collect.MAX_COMMITTED - small))
    assert "figures/big.png" in collect_outputs(out, DECLARED)  # exactly at the limit
    (out / "figures" / "big.png").write_bytes(bytes(collect.MAX_COMMITTED - small + 1))
    assert f"{collect.MAX_COMMITTED + 1} bytes outside artifacts/ would be committed" in problems(
        out
    )
    assert "largest: figures/big.png" in problems(out)


def test_a_sparse_file_is_refused_before_it_is_read(out):
    with (out / "artifacts" / "sparse.safetensors").open("wb") as file:
        file.truncate(collect.MAX_STORED + 1)
    assert "bytes in all; expected at most" in problems(out)


def test_too_many_files_and_too_deep_folders(out, monkeypatch):
    folder = out / "artifacts"
    for _ in range(collect.MAX_DEPTH + 2):
        folder /= "d"
        folder.mkdir()
    assert "folders nested deeper than" in problems(out)
    monkeypatch.setattr(collect, "MAX_ENTRIES", 5)
    # Of what was not looked at nothing is said.
    assert problems(out) == (
        "more than 5 files and folders; expected at most 10000 files; nothing else was checked"
    )


def test_as_many_outputs_as_the_limit_says_and_not_one_more_i_58(out, monkeypatch):
    assert (collect.MAX_FILES, collect.MAX_ENTRIES) == (10_000, 20_000)
    monkeypatch.setattr(collect, "MAX_FILES", 40)
    files = sum(path.is_file() for path in out.rglob("*"))
    for number in range(files, collect.MAX_FILES):
        (out / "artifacts" / f"{number}").mkdir()  # folders do not count
        (out / "artifacts" / f"{number}/a.txt").touch()
    assert len(collect_outputs(out, DECLARED)) == 40
    (out / "artifacts/one-more.txt").touch()
    assert problems(out) == "41 files; expected at most 40"


#### result.json


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": 1, "a": 2}', "duplicate key"),
        ('{"a": NaN}', "NaN"),
        ('{"a": Infinity}', "Infinity"),
        ('{"a": 1e999}', "too large"),
        ("[]", "got a list; expected an object"),
        ("{", "line 1"),
        ("", "line 1"),
        ('{"a": ' + "[" * 5000 + "]" * 5000 + "}", "nested deeper"),
        ("\ufeff{}", "BOM"),
    ],
)
def test_result_json_is_strict(out, text, problem):
    (out / "result.json").write_text(text)
    report = problems(out)
    assert report.startswith("result.json: ")
    assert problem in report


#### patterns and names, as laws


def reference_match(pattern: list[str], path: list[str]) -> bool:
    """Match by the rule, written a second time, as a recursion over parts."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        if len(pattern) == 1:
            return len(path) >= 1
        return any(reference_match(pattern[1:], path[index:]) for index in range(len(path)))
    return bool(path) and part_match(pattern[0], path[0]) and reference_match(pattern[1:], path[1:])


def part_match(pattern: str, name: str) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(part_match(pattern[1:], name[index:]) for index in range(len(name) + 1))
    return bool(name) and pattern[0] in ("?", name[0]) and part_match(pattern[1:], name[1:])


PART = st.text("ab.", min_size=1, max_size=3)
PATTERN = st.lists(
    st.one_of(
        st.text("ab.*?", min_size=1, max_size=3).filter(lambda p: "**" not in p), st.just("**")
    ),
    min_size=1,
    max_size=4,
)


@given(PATTERN, st.lists(PART, min_size=1, max_size=4))
@example(["artifacts", "**"], ["artifacts", "a", "b"])
@example(["**", "a"], ["a"])
def test_the_matcher_follows_the_rule(pattern, path):
    assert collect.matches("/".join(pattern), "/".join(path)) == reference_match(pattern, path)


@given(st.lists(PART, min_size=1, max_size=4))
def test_a_path_matches_itself_and_everything_matches_all(path):
    joined = "/".join(path)
    assert collect.matches(joined, joined)
    assert collect.matches("**", joined)
    assert not collect.matches(joined, joined + "x")


@given(st.text(string.printable, min_size=1, max_size=20))
def test_special_characters_of_regular_expressions_mean_themselves(text):
    literal = text.replace("*", "").replace("?", "")
    assert collect.matches(literal, literal)
    assert not collect.matches(literal, literal + "z")


@pytest.mark.parametrize(
    "pattern", ["../up.json", "/etc/passwd", "a//b", "", "a/./b", "figures/**.png", "a/"]
)
def test_patterns_that_cannot_be_used(out, pattern):
    assert "declared output" in problems(out, [*DECLARED, pattern])


@given(st.text(max_size=30))
def test_the_rules_on_names_never_crash_and_report_in_one_printable_line(name):
    for problem in collect.name_problems(f"artifacts/{name}"):
        assert is_printable(problem)


@given(
    st.text(string.ascii_letters + string.digits + "_.", min_size=1, max_size=20).filter(
        lambda t: t[0] != "."
    )
)
def test_ordinary_names_pass(name):
    assert list(collect.name_problems(f"artifacts/{name}")) == []
