"""The fault matrix: what is done to the runner, its expected outcome, and which tests do it.

A row names at least one test, or says why nothing is executed; some rows have both, where one part of a fault cannot
be had here. `test_matrix.py` checks that every name exists, and that docs/reliability.md shows the same rows.
"""

from __future__ import annotations

from typing import NamedTuple

KILLS = "faults/test_kills.py"
GIT = "faults/test_git_faults.py"
TORN = "faults/test_torn.py"
DISK = "faults/test_environment.py"
RACES = "faults/test_two_runners.py"
HOSTILE = "faults/test_hostile_outputs.py"
STATES = "faults/test_repository_states.py"


class Row(NamedTuple):
    """One fault."""

    id: str
    fault: str
    by: str
    """What causes it."""
    outcome: str
    tests: tuple[str, ...] = ()
    """`FILE::FUNCTION` below tests/phases."""
    reason: str = ""
    """Why it, or a part of it, is not executed."""


def _in(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{file}::{name}" for name in names)


ONCE = _in(KILLS, "test_killed_once_the_next_run_converges")
TURN = _in(KILLS, "test_killed_at_every_place_in_turn")
IN_COMMIT = _in(GIT, "test_runner_and_git_killed_inside_a_commit")

ROWS = (
    Row("F1", "runner killed with the lock taken and nothing written", "failpoint `recover`",
        "the kernel frees the lock; the next run begins as usual", ONCE + TURN),
    Row("F2", "runner killed after STARTED, before the worker", "failpoint `started`",
        "INTERRUPTED, then a new attempt; not counted", ONCE),
    Row("F3", "runner killed while a worker works", "SIGKILL",
        "the supervisor ends the worker; INTERRUPTED, then a new attempt",
        _in(KILLS, "test_a_killed_runner_takes_its_worker_along")
        + _in("test_process.py", "test_a_killed_runner_takes_its_job_with_it"),
        "an experiment's own checkpoints are not resumed: each attempt has a fresh folder"),
    Row("F4", "worker killed", "SIGKILL to its group", "ERRORED `the experiment was killed by signal 9`, never judged, exit 1",
        _in(KILLS, "test_a_killed_worker_is_errored_and_never_judged")),
    Row("F5", "Ctrl-C, SIGTERM, SIGHUP, once and twice", "signals to the group",
        "forwarded, grace, kill; INTERRUPTED, exit 130, nothing left",
        _in(DISK, "test_a_stop_signal_is_recorded_and_leaves_nothing")
        + _in("test_process.py", "test_a_second_signal_kills_at_once", "test_a_deaf_job_is_killed_after_the_grace")),
    Row("F6", "runner stopped for any length of time while a second one comes", "SIGSTOP",
        "the second exits 6; a lock is never taken over", _in(DISK, "test_a_stopped_runner_keeps_its_lock")),
    Row("F7", "killed between a temporary file and its rename", "strace",
        "nothing at the final place; the temporary file is swept",
        _in(DISK, "test_killed_inside_a_durable_write")
        + _in(TORN, "test_temporary_files_of_a_killed_runner_are_swept")),
    Row("F8", "killed between a rename and the folder's fsync", "strace",
        "the step sees that it was done", _in(DISK, "test_killed_inside_a_durable_write")),
    Row("F9", "killed after the judgement, before it is recorded", "failpoint `judged`",
        "INTERRUPTED; the new attempt is judged; one verdict", ONCE),
    Row("F10", "killed with the outcome prepared, before its entry", "failpoint `prepared`",
        "completed by the next run; nothing runs again", ONCE),
    Row("F11", "killed after the entry, before git", "failpoints `entered`, `files`",
        "committed by the next run with the same transaction", ONCE),
    Row("F12", "killed inside `git commit`", "strace at link, rename and unlink; runner alive and dead",
        "git's locks are removed where they are proved the runner's; any other is named, exit 7",
        IN_COMMIT + _in(GIT, "test_git_alone_killed_leaves_no_lock", "test_a_lock_that_existed_before_is_not_the_runners",
                        "test_a_killed_runners_lock_stays_while_a_git_process_runs",
                        "test_a_git_process_that_outlives_its_runner_is_waited_for")),
    Row("F13", "killed after the commit, before the ref moved", "failpoint `committed`",
        "found by its transaction; no second commit; the index is brought to HEAD", ONCE),
    Row("F14", "killed while the review request is recorded", "failpoints in the second record",
        "completed before anything is asked; `approve` refuses until then",
        ONCE + _in(KILLS, "test_an_approval_is_not_asked_for_over_a_half_recorded_checkpoint")),
    Row("F15", "killed between a decision and its commit", "failpoints in `approve`",
        "before the record is prepared nothing is recorded; after it exactly one APPROVED",
        _in(KILLS, "test_killed_while_an_approval_is_recorded")),
    Row("F16", "a tail truncated in the middle of an entry", "bytes appended or cut off",
        "set aside, REPAIRED, or restored, RECOVERED; a waiting phase halts anew; earlier damage is exit 3",
        _in(TORN, "test_a_torn_journal_is_set_aside_and_told",
            "test_a_progress_txt_that_lacks_its_uncommitted_end_gets_it_back",
            "test_a_torn_journal_at_a_checkpoint_blocks_nobody", "test_damage_before_the_end_changes_nothing")),
    Row("F17", "a tail of NUL bytes, as after a power loss", "NULs appended", "as F16",
        _in(TORN, "test_a_torn_journal_is_set_aside_and_told",
            "test_a_progress_txt_that_ends_in_nul_bytes_is_repaired")),
    Row("F18", "disk full", "small file system, strace, failpoints",
        "exit 7 with the path; HEAD unmoved; the next run converges",
        _in("test_durable.py", "test_a_full_disk_leaves_the_old_file", "test_a_full_disk_leaves_no_half_entry")
        + _in(DISK, "test_too_little_disk_space_is_found_before_any_work", "test_an_error_of_the_disk_is_named",
              "test_a_full_folder_for_temporary_files_is_named")
        + _in(KILLS, "test_an_error_at_a_place_is_the_environments")
        + _in(GIT, "test_an_error_inside_git_moves_nothing")),
    Row("F19", "I/O error on write, fsync, rename", "strace",
        "exit 7; a failed fsync is never tried again; no ref moves",
        _in(DISK, "test_an_error_of_the_disk_is_named") + _in(GIT, "test_an_error_inside_git_moves_nothing")
        + _in("test_durable.py", "test_a_failed_fsync_is_fatal_and_not_tried_again")),
    Row("F20", "I/O error on git's link()", "strace", "git renames instead; the result verifies",
        _in(GIT, "test_git_works_around_a_failing_link")),
    Row("F21", "limits on file size, open files, memory", "ulimit", "exit 7 without a traceback",
        _in(DISK, "test_limits_are_named"),
        "a quota (EDQUOT) needs a file system with quotas; a limit on the runner's own memory ends in an error of Python's"),
    Row("F22", "short writes, interrupted calls", "a write that takes part; strace",
        "continued; half an entry is undone",
        _in("test_durable.py", "test_short_writes_are_continued", "test_a_short_append_is_undone")
        + _in(DISK, "test_an_interrupted_call_is_repeated")),
    Row("F23", "read-only repository, results or .git", "read-only mounts", "refused before any work, exit 7",
        _in(STATES, "test_a_read_only_folder_is_refused_before_any_work")),
    Row("F24", "2 to 8 runners at once", "processes", "one proceeds, the others exit 6 and name it",
        _in(RACES, "test_of_several_runners_one_proceeds", "test_the_others_name_the_runner_within_a_second",
            "test_two_hundred_races")),
    Row("F25", "two runners in two worktrees", "git worktree", "one lock for both",
        _in(RACES, "test_two_worktrees_of_one_repository_share_the_lock")),
    Row("F26", "two runners on a network file system", "", "`doctor` names one",
        reason="a test machine has no network file system; whether flock excludes there depends on the server"),
    Row("F27", "a lock file of a dead runner", "a file", "information only; the kernel decides",
        _in(STATES, "test_a_lock_file_left_by_a_dead_runner_is_only_information")),
    Row("F28", "index.lock of a user's git", "a file; a sleeping git", "named, never deleted, exit 7",
        _in(STATES, "test_a_lock_of_a_users_git_is_named_and_never_deleted")),
    Row("F29", "the clock goes back", "a changed clock", "order is by number, never by time",
        _in(STATES, "test_a_clock_that_went_back_changes_no_order")),
    Row("F30", "stopped during a time-out", "SIGSTOP", "what ended in time is not timed out",
        _in(STATES, "test_a_runner_stopped_for_longer_than_the_time_out_loses_nothing")),
    Row("F31", "detached HEAD", "git checkout --detach", "refused, exit 2",
        _in(STATES, "test_a_detached_head_is_refused")),
    Row("F32", "staged, changed and untracked files of the user", "files", "byte-identical afterwards, index too",
        _in(STATES, "test_what_a_user_changed_or_staged_stays_as_it_was")),
    Row("F33", "merge, rebase, cherry-pick or bisect in progress", "git", "refused and named, exit 7",
        _in(STATES, "test_an_unfinished_operation_is_named")),
    Row("F34", "two clones that both went on", "git merge", "not merged, exit 3",
        _in(STATES, "test_two_clones_that_both_went_on_are_not_merged")),
    Row("F35", "submodules, repositories inside", "git", "left alone, or refused",
        _in(STATES, "test_submodules_and_nested_repositories_are_left_alone",
            "test_results_inside_another_repository_are_refused")),
    Row("F36", "hooks that fail, hang or flood", "hooks", "they do not run",
        _in(STATES, "test_hooks_of_the_user_do_not_run")),
    Row("F37", "commit.gpgsign with a key that does not work", "configuration",
        "exit 7 before the work; never unsigned",
        _in(STATES, "test_a_signature_that_cannot_be_made_is_found_before_the_work")),
    Row("F38", "no git identity", "an empty environment", "exit 7 before the work",
        _in(STATES, "test_no_identity_is_found_before_the_work")),
    Row("F39", "a repository of another user; git missing or too old", "chown; PATH", "exit 7 with a message",
        _in(STATES, "test_a_repository_of_another_user_is_refused", "test_git_missing_or_too_old_is_reported")),
    Row("F40", "shallow, sparse, packed, sha256, linked worktree", "git options", "works, or is refused with a message",
        _in(STATES, "test_a_shallow_clone_is_refused", "test_kinds_of_repositories_that_work"),
        "reftable needs a newer git than the tests may count on"),
    Row("F41", "autocrlf, filters, text attributes", "configuration", "what was hashed is what is committed",
        _in(STATES, "test_line_ends_and_filters_cannot_change_what_was_hashed")),
    Row("F42", "a gate that hangs, ignores SIGTERM, leaves a daemon", "scripts",
        "ERRORED after its time; no process survives",
        _in(HOSTILE, "test_a_gate_that_hangs_and_leaves_a_daemon_is_ended")
        + _in("test_process.py", "test_a_time_out_kills_who_does_not_listen",
              "test_no_descendant_outlives_a_time_out")),
    Row("F43", "a flood of output, without lines, not UTF-8", "300 MB from /dev/zero",
        "both ends are kept; memory stays flat",
        _in(HOSTILE, "test_300_megabytes_of_log_leave_memory_flat")
        + _in("test_process.py", "test_200_megabytes_of_output_leave_memory_flat_and_both_ends")),
    Row("F44", "no results, half results, undeclared, linked, special, huge, growing or misnamed files, NaN, bombs, "
        "pickles", "workers", "refused with a clear message, recorded, never verified",
        _in(HOSTILE, "test_it_is_refused_in_clear_words")),
    Row("F45", "a worker without memory", "ulimit", "ERRORED; the runner lives",
        _in(HOSTILE, "test_it_is_refused_in_clear_words"),
        "a kill by the kernel when memory runs out looks like any SIGKILL (F4): control groups are not read"),
    Row("F46", "the disk fills up under a worker", "a full file system", "ERRORED or exit 7; never verified",
        _in(DISK, "test_a_full_folder_for_temporary_files_is_named"),
        "an experiment's own checkpoints are not resumed: each attempt has a fresh folder"),
    Row("F47", "a stored artifact is damaged", "one byte", "found by its digest, exit 3",
        _in("test_run.py", "test_verify_judges_again_what_is_stored")),
    Row("F48", "the plan edited while a feature runs; an invalid plan", "files",
        "INTERRUPTED, exit 7; a committed change inside a phase is exit 3; every problem is named",
        _in(HOSTILE, "test_a_plan_that_is_edited_while_a_feature_runs_stops_it")
        + _in("test_run.py", "test_a_plan_that_changes_inside_a_phase_stops_the_run")
        + _in("test_plan.py", "test_a_problem_names_its_location_the_value_got_and_the_value_expected")),
    Row("F49", "another Python or other packages between attempts", "", "each receipt names them",
        _in("test_run.py", "test_the_receipt_says_what_ran_on_what"),
        "nothing is refused for it, and nothing is resumed, so there is no end to compare"),
    Row("F50", "killed again while it recovers", "a chain of failpoints; random times",
        "recovery can be repeated at every step",
        TURN + _in(TORN, "test_a_kill_between_repair_and_its_entry_is_made_good",
                   "test_a_torn_journal_is_set_aside_and_told")
        + _in(GIT, "test_a_killed_runners_lock_stays_while_a_git_process_runs")),
    Row("F51", "random kills of runner and git, approvals included", "`make soak`; a state machine",
        "no violation", _in("faults/test_machine.py", "test_a_few_lives", "test_many_lives")
        + _in("faults/test_soak.py", "test_a_short_soak_finds_nothing")),
)  # fmt: skip


def table() -> str:
    """The rows as docs/reliability.md shows them."""
    lines = [
        "| | fault | caused by | outcome | not executed |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.id} | {row.fault} | {row.by} | {row.outcome} | {row.reason} |" for row in ROWS
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
