"""The fault matrix: what is done to the runner, its outcome, and the tests that do it.

A row names at least one test, or says why nothing is executed; some rows have both, where one part
of a fault cannot be had here. `test_matrix.py` checks that every name exists, and that
docs/reliability.md shows the same rows.
"""

from __future__ import annotations

from typing import NamedTuple

KILLS = "faults/test_kills.py"
GIT = "faults/test_git_faults.py"
TORN = "faults/test_torn.py"
ENVIRONMENT = "faults/test_environment.py"
RACES = "faults/test_two_runners.py"
HOSTILE = "faults/test_hostile_outputs.py"
STATES = "faults/test_repository_states.py"
MACHINE = "faults/test_machine.py"
SOAK = "faults/test_soak.py"
COMMIT = "faults/test_the_commit_runs.py"
HEAD = "faults/test_moved_head.py"
INDEX = "faults/test_index.py"
LIVING = "faults/test_living_locks.py"
PENDING = "faults/test_pending.py"
HINTS = "faults/test_hints.py"
LOST = "faults/test_lost_decisions.py"
LEFT_OUT = "faults/test_left_out.py"
HONEST = "faults/test_honest.py"
MANY = "faults/test_many_outputs.py"
RESISTING = "faults/test_resisting_folders.py"
MAIN = "test_main.py"
GATE = "test_gate.py"
CANNOT_FAIL = "test_gates_that_cannot_fail.py"
DURABLE = "test_durable.py"
PROCESS = "test_process.py"
RUN = "test_run.py"
PLAN = "test_plan.py"
NAMES = "test_names.py"
ENCODINGS = "faults/test_encodings.py"


class Row(NamedTuple):
    """One fault."""

    id: str
    fault: str
    cause: str
    """How it is caused."""
    outcome: str
    tests: tuple[str, ...] = ()
    """`FILE::FUNCTION` below tests/phases."""
    reason: str = ""
    """Why it, or a part of it, is not executed."""


def _in(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{file}::{name}" for name in names)


KILLED_ONCE = _in(KILLS, "test_killed_once_the_next_run_converges")
KILLED_IN_TURN = _in(KILLS, "test_killed_at_every_failpoint_in_turn")
IN_COMMIT = _in(GIT, "test_runner_and_git_killed_inside_a_commit")

ROWS = (
    Row(
        id="F1",
        fault="runner killed with the lock taken and nothing written",
        cause="failpoint `recover`",
        outcome="the kernel frees the lock; the next run begins as usual",
        tests=KILLED_ONCE + KILLED_IN_TURN,
    ),
    Row(
        id="F2",
        fault="runner killed after STARTED, before the worker",
        cause="failpoint `started`",
        outcome="INTERRUPTED, then a new attempt; not counted",
        tests=KILLED_ONCE,
    ),
    Row(
        id="F3",
        fault="runner killed while a worker works",
        cause="SIGKILL",
        outcome="the supervisor ends the worker; INTERRUPTED, then a new attempt",
        tests=_in(KILLS, "test_a_killed_runner_takes_its_worker_along")
        + _in(PROCESS, "test_a_killed_runner_takes_its_job_with_it"),
        reason="an experiment's own checkpoints are not resumed: each attempt has a fresh folder",
    ),
    Row(
        id="F4",
        fault="worker killed",
        cause="SIGKILL to its group",
        outcome="ERRORED `the experiment was killed by signal 9`, never judged, exit 1",
        tests=_in(KILLS, "test_a_killed_worker_is_errored_and_never_judged"),
    ),
    Row(
        id="F5",
        fault="Ctrl-C, SIGTERM, SIGHUP, once and twice",
        cause="signals to the group",
        outcome="forwarded, grace, kill; INTERRUPTED, exit 130, nothing left",
        tests=_in(ENVIRONMENT, "test_a_stop_signal_is_recorded_and_leaves_nothing")
        + _in(
            PROCESS,
            "test_a_second_signal_kills_at_once",
            "test_a_deaf_job_is_killed_after_the_grace",
        ),
    ),
    Row(
        id="F6",
        fault="runner stopped for any length of time while a second one comes",
        cause="SIGSTOP",
        outcome="the second exits 6; a lock is never taken over",
        tests=_in(ENVIRONMENT, "test_a_stopped_runner_keeps_its_lock"),
    ),
    Row(
        id="F7",
        fault="killed between a temporary file and its rename",
        cause="strace",
        outcome="nothing at the final path; the temporary file is swept",
        tests=_in(ENVIRONMENT, "test_killed_inside_a_durable_write")
        + _in(TORN, "test_temporary_files_of_a_killed_runner_are_swept"),
    ),
    Row(
        id="F8",
        fault="killed between a rename and the folder's fsync",
        cause="strace",
        outcome="the step sees that it was done",
        tests=_in(ENVIRONMENT, "test_killed_inside_a_durable_write"),
    ),
    Row(
        id="F9",
        fault="killed after the judgement, before it is recorded",
        cause="failpoint `judged`",
        outcome="INTERRUPTED; the new attempt is judged; one verdict",
        tests=KILLED_ONCE,
    ),
    Row(
        id="F10",
        fault="killed with the outcome prepared, before its entry",
        cause="failpoint `prepared`",
        outcome="completed by the next run; nothing runs again",
        tests=KILLED_ONCE,
    ),
    Row(
        id="F11",
        fault="killed after the entry, before git",
        cause="failpoints `entered`, `files`",
        outcome="committed by the next run with the same transaction",
        tests=KILLED_ONCE,
    ),
    Row(
        id="F12",
        fault="killed inside `git commit`",
        cause="strace at link, rename and unlink; runner alive and dead",
        outcome=(
            "git's locks are removed where they are proved the runner's; any other is named, exit 7"
        ),
        tests=IN_COMMIT
        + _in(
            GIT,
            "test_git_alone_killed_leaves_no_lock",
            "test_a_lock_that_existed_before_is_not_the_runners",
            "test_a_killed_runners_lock_stays_while_a_git_process_runs",
            "test_a_git_process_that_outlives_its_runner_is_waited_for",
        ),
    ),
    Row(
        id="F13",
        fault="killed after the commit, before the ref moved",
        cause="failpoint `committed`",
        outcome="found by its transaction; no second commit; the index is brought to HEAD",
        tests=KILLED_ONCE,
    ),
    Row(
        id="F14",
        fault="killed while the review request is recorded",
        cause="failpoints in the second record",
        outcome="completed before anything is asked; `approve` refuses until then",
        tests=KILLED_ONCE
        + _in(KILLS, "test_an_approval_is_not_asked_for_over_a_half_recorded_checkpoint"),
    ),
    Row(
        id="F15",
        fault="killed between a decision and its commit",
        cause="failpoints in `approve`",
        outcome="before the record is prepared nothing is recorded; after it exactly one APPROVED",
        tests=_in(KILLS, "test_killed_while_an_approval_is_recorded"),
    ),
    Row(
        id="F16",
        fault="a tail truncated in the middle of an entry",
        cause="bytes appended or cut off",
        outcome=(
            "set aside, REPAIRED, or restored, RECOVERED; a waiting phase halts anew; "
            "earlier damage is exit 3"
        ),
        tests=_in(
            TORN,
            "test_a_torn_journal_is_set_aside_and_recorded",
            "test_a_progress_txt_that_lacks_its_uncommitted_end_is_restored",
            "test_a_torn_journal_at_a_checkpoint_blocks_no_approval",
            "test_damage_before_the_end_changes_nothing",
        ),
    ),
    Row(
        id="F17",
        fault="a tail of NUL bytes, as after a power loss",
        cause="NULs appended",
        outcome="as F16",
        tests=_in(
            TORN,
            "test_a_torn_journal_is_set_aside_and_recorded",
            "test_a_progress_txt_that_ends_in_nul_bytes_is_repaired",
        ),
    ),
    Row(
        id="F18",
        fault="disk full",
        cause="small file system, strace, failpoints",
        outcome="exit 7 with the path; HEAD unmoved; the next run converges",
        tests=_in(
            DURABLE, "test_a_full_disk_leaves_the_old_file", "test_a_full_disk_leaves_no_half_entry"
        )
        + _in(
            ENVIRONMENT,
            "test_too_little_disk_space_is_found_before_any_work",
            "test_an_error_of_the_disk_is_named",
            "test_a_full_folder_for_temporary_files_is_named",
        )
        + _in(KILLS, "test_an_error_at_a_failpoint_is_the_environments")
        + _in(GIT, "test_an_error_inside_git_moves_nothing"),
    ),
    Row(
        id="F19",
        fault="I/O error on write, fsync, rename",
        cause="strace",
        outcome="exit 7; a failed fsync is never tried again; no ref moves",
        tests=_in(ENVIRONMENT, "test_an_error_of_the_disk_is_named")
        + _in(GIT, "test_an_error_inside_git_moves_nothing")
        + _in(DURABLE, "test_a_failed_fsync_is_fatal_and_not_tried_again"),
    ),
    Row(
        id="F20",
        fault="I/O error on git's link()",
        cause="strace",
        outcome="git renames instead; the result verifies",
        tests=_in(GIT, "test_git_works_around_a_failing_link"),
    ),
    Row(
        id="F21",
        fault="limits on file size, open files, memory",
        cause="ulimit",
        outcome="exit 7 without a traceback",
        tests=_in(ENVIRONMENT, "test_limits_are_named"),
        reason=(
            "a quota (EDQUOT) needs a file system with quotas; a limit on the runner's own "
            "memory ends in an error of Python's"
        ),
    ),
    Row(
        id="F22",
        fault="short writes, interrupted calls",
        cause="a write that takes part; strace",
        outcome="continued; half an entry is undone",
        tests=_in(DURABLE, "test_short_writes_are_continued", "test_a_short_append_is_undone")
        + _in(ENVIRONMENT, "test_an_interrupted_call_is_repeated"),
    ),
    Row(
        id="F23",
        fault="read-only repository, results or .git",
        cause="read-only mounts",
        outcome="refused before any work, exit 7",
        tests=_in(STATES, "test_a_read_only_folder_is_refused_before_any_work"),
    ),
    Row(
        id="F24",
        fault="2 to 8 runners at once",
        cause="processes",
        outcome="one proceeds, the others exit 6 and name it",
        tests=_in(
            RACES,
            "test_of_several_runners_one_proceeds",
            "test_the_others_name_the_runner_within_a_second",
            "test_two_hundred_races",
        ),
    ),
    Row(
        id="F25",
        fault="two runners in two worktrees",
        cause="git worktree",
        outcome="one lock for both",
        tests=_in(RACES, "test_two_worktrees_of_one_repository_share_the_lock"),
    ),
    Row(
        id="F26",
        fault="two runners on a network file system",
        cause="",
        outcome="`doctor` names one",
        reason=(
            "a test machine has no network file system; whether flock excludes there "
            "depends on the server"
        ),
    ),
    Row(
        id="F27",
        fault="a lock file of a dead runner",
        cause="a file",
        outcome="information only; the kernel decides",
        tests=_in(STATES, "test_a_lock_file_left_by_a_dead_runner_is_only_information"),
    ),
    Row(
        id="F28",
        fault=(
            "index.lock of a user's git, also in a linked worktree, a submodule, with a separate "
            "git directory"
        ),
        cause="a file; a sleeping git; an open editor after a kill",
        outcome="named, never deleted, exit 7",
        tests=_in(STATES, "test_a_lock_of_a_users_git_is_named_and_never_deleted")
        + _in(
            LIVING,
            "test_a_users_commit_with_its_editor_open_keeps_its_lock_i_60",
            "test_a_git_process_of_our_repository_owns_what_worktrees_share_i_60",
        ),
    ),
    Row(
        id="F29",
        fault="the clock goes back",
        cause="a changed clock",
        outcome="order is by number, never by time",
        tests=_in(STATES, "test_a_clock_that_went_back_changes_no_order"),
    ),
    Row(
        id="F30",
        fault="stopped during a time-out",
        cause="SIGSTOP",
        outcome="what ended in time is not timed out",
        tests=_in(STATES, "test_a_runner_stopped_for_longer_than_the_time_out_loses_nothing"),
    ),
    Row(
        id="F31",
        fault="detached HEAD",
        cause="git checkout --detach",
        outcome="refused, exit 2",
        tests=_in(STATES, "test_a_detached_head_is_refused"),
    ),
    Row(
        id="F32",
        fault="staged, changed and untracked files of the user",
        cause="files",
        outcome="byte-identical afterwards, index too",
        tests=_in(STATES, "test_what_a_user_changed_or_staged_stays_as_it_was"),
    ),
    Row(
        id="F33",
        fault="merge, rebase, cherry-pick or bisect in progress",
        cause="git",
        outcome="refused and named, exit 7",
        tests=_in(STATES, "test_an_unfinished_operation_is_named"),
    ),
    Row(
        id="F34",
        fault="two clones that both went on",
        cause="git merge",
        outcome="not merged, exit 3",
        tests=_in(STATES, "test_two_clones_that_both_went_on_are_not_merged"),
    ),
    Row(
        id="F35",
        fault="submodules, repositories inside",
        cause="git",
        outcome="left alone, or refused",
        tests=_in(
            STATES,
            "test_submodules_and_nested_repositories_are_left_alone",
            "test_results_inside_another_repository_are_refused",
        ),
    ),
    Row(
        id="F36",
        fault="hooks that fail, hang or flood",
        cause="hooks",
        outcome="they do not run",
        tests=_in(STATES, "test_hooks_of_the_user_do_not_run"),
    ),
    Row(
        id="F37",
        fault="commit.gpgsign with a key that does not work",
        cause="configuration",
        outcome="exit 7 before the work; never unsigned",
        tests=_in(STATES, "test_a_signature_that_cannot_be_made_is_found_before_the_work"),
    ),
    Row(
        id="F38",
        fault="no git identity",
        cause="an empty environment",
        outcome="exit 7 before the work",
        tests=_in(STATES, "test_no_identity_is_found_before_the_work"),
    ),
    Row(
        id="F39",
        fault="a repository of another user; git missing or too old",
        cause="chown; PATH",
        outcome="exit 7 with a message",
        tests=_in(
            STATES,
            "test_a_repository_of_another_user_is_refused",
            "test_git_missing_or_too_old_is_reported",
        ),
    ),
    Row(
        id="F40",
        fault="shallow, sparse, packed, sha256, linked worktree",
        cause="git options",
        outcome="works, or is refused with a message",
        tests=_in(
            STATES, "test_a_shallow_clone_is_refused", "test_kinds_of_repositories_that_work"
        ),
        reason="reftable needs a newer git than the tests may count on",
    ),
    Row(
        id="F41",
        fault="autocrlf, filters, text attributes",
        cause="configuration",
        outcome="what was hashed is what is committed",
        tests=_in(STATES, "test_line_ends_and_filters_cannot_change_what_was_hashed"),
    ),
    Row(
        id="F42",
        fault="a gate that hangs, ignores SIGTERM, leaves a daemon",
        cause="scripts",
        outcome="ERRORED after its time; no process survives",
        tests=_in(HOSTILE, "test_a_gate_that_hangs_and_leaves_a_daemon_is_ended")
        + _in(
            PROCESS,
            "test_a_time_out_kills_who_does_not_listen",
            "test_no_descendant_outlives_a_time_out",
        ),
    ),
    Row(
        id="F43",
        fault="a flood of output, without lines, not UTF-8",
        cause="300 MB from /dev/zero",
        outcome="both ends are kept; memory stays flat",
        tests=_in(HOSTILE, "test_300_megabytes_of_log_leave_memory_flat")
        + _in(PROCESS, "test_200_megabytes_of_output_leave_memory_flat_and_both_ends"),
    ),
    Row(
        id="F44",
        fault=(
            "no results, half results, undeclared, linked, special, huge, growing or "
            "misnamed files, NaN, bombs, pickles"
        ),
        cause="workers",
        outcome="refused with a clear message, recorded, never verified",
        tests=_in(HOSTILE, "test_it_is_refused_in_clear_words"),
    ),
    Row(
        id="F45",
        fault="a worker without memory",
        cause="ulimit",
        outcome="ERRORED; the runner lives",
        tests=_in(HOSTILE, "test_it_is_refused_in_clear_words"),
        reason=(
            "a kill by the kernel when memory runs out looks like any SIGKILL (F4): control "
            "groups are not read"
        ),
    ),
    Row(
        id="F46",
        fault="the disk fills up under a worker",
        cause="a full file system",
        outcome="ERRORED or exit 7; never verified",
        tests=_in(ENVIRONMENT, "test_a_full_folder_for_temporary_files_is_named"),
        reason="an experiment's own checkpoints are not resumed: each attempt has a fresh folder",
    ),
    Row(
        id="F47",
        fault="a stored artifact is damaged",
        cause="one byte",
        outcome="found by its digest, exit 3",
        tests=_in(RUN, "test_verify_judges_again_what_is_stored"),
    ),
    Row(
        id="F48",
        fault="the plan edited while a feature runs; an invalid plan",
        cause="files",
        outcome=(
            "the outcome is recorded by the plan of its commit; then exit 7, or 3 where the "
            "change is committed and inside the phase; every problem is named"
        ),
        tests=_in(HOSTILE, "test_a_plan_that_is_edited_while_a_feature_runs_stops_the_next_step")
        + _in(RUN, "test_a_plan_that_changes_inside_a_phase_stops_the_run")
        + _in(PLAN, "test_a_problem_names_its_location_the_value_got_and_the_value_expected"),
    ),
    Row(
        id="F49",
        fault="another Python or other packages between attempts",
        cause="",
        outcome="each receipt names them",
        tests=_in(RUN, "test_the_receipt_says_what_ran_on_what"),
        reason="nothing is refused for it, and nothing is resumed, so there is no end to compare",
    ),
    Row(
        id="F50",
        fault="killed again while it recovers",
        cause="a chain of failpoints; random times",
        outcome="recovery can be repeated at every step",
        tests=KILLED_IN_TURN
        + _in(
            TORN,
            "test_a_kill_between_a_repair_and_its_entry_is_recovered",
            "test_a_torn_journal_is_set_aside_and_recorded",
        )
        + _in(GIT, "test_a_killed_runners_lock_stays_while_a_git_process_runs"),
    ),
    Row(
        id="F51",
        fault="random kills of runner and git; decisions, commits and a second machine between",
        cause="`make soak`; a state machine; honest repositories at random",
        outcome="no violation, no false alarm",
        tests=_in(MACHINE, "test_a_few_lives", "test_many_lives")
        + _in(SOAK, "test_a_short_soak_finds_nothing")
        + _in(HONEST, "test_no_honest_repository_meets_a_false_alarm"),
    ),
    Row(
        id="F52",
        fault="the runner is killed, then HEAD advances, is switched, set back or amended",
        cause="every failpoint with each move",
        outcome="the next run converges, or refuses and names the git command that helps",
        tests=_in(HEAD, "test_killed_and_then_head_moves"),
    ),
    Row(
        id="F53",
        fault="HEAD moves, or files are stashed or cleaned away, while a feature runs",
        cause="git, by the experiment itself",
        outcome=(
            "on top of its commit the outcome is recorded; else outputs in quarantine, "
            "INTERRUPTED, exit 3"
        ),
        tests=_in(
            HEAD,
            "test_a_plan_that_changes_meanwhile_stops_before_the_next_start_i_51",
            "test_a_later_phase_that_changes_meanwhile_does_not_matter",
            "test_a_commit_that_leaves_the_history_is_interrupted",
            "test_what_a_stash_takes_away_is_restored_i_54",
            "test_the_runners_own_commit_is_taken_away_meanwhile",
        )
        + _in(COMMIT, "test_code_that_is_committed_during_the_run_does_not_run_i_03"),
    ),
    Row(
        id="F54",
        fault=(
            "the work tree is not what the commit has: edits, forgotten files, index flags, filters"
        ),
        cause="files, git",
        outcome="the commit runs, or exit 7 with the file's name",
        tests=_in(
            COMMIT,
            "test_an_edit_never_runs",
            "test_a_forgotten_git_add_is_named_i_02",
            "test_no_flag_of_the_index_hides_an_edit_i_06",
            "test_bytes_of_the_blob_run_and_not_a_filters_i_07",
            "test_planted_bytecode_does_not_run_i_09",
        ),
    ),
    Row(
        id="F55",
        fault="a commit that cannot be laid out: links that lead out, submodules, Git LFS",
        cause="git",
        outcome="refused by name before any entry, exit 7",
        tests=_in(
            COMMIT,
            "test_a_link_out_of_the_commit_is_refused_i_08",
            "test_a_submodule_is_refused_where_it_is_needed",
            "test_a_git_lfs_file_is_refused_where_it_is_needed",
        ),
    ),
    Row(
        id="F56",
        fault="an experiment that edits its copy, uses git, or writes where its gate will be",
        cause="workers",
        outcome="edits are discarded and listed; there is no repository; it cannot reach its judge",
        tests=_in(
            COMMIT,
            "test_edits_of_the_copy_are_discarded_and_said_i_10",
            "test_an_experiment_has_no_repository_i_11",
            "test_nothing_of_the_judgement_exists_while_the_experiment_runs_i_15_i_16",
        ),
    ),
    Row(
        id="F57",
        fault="flags and states of git's index on the runner's own files; thousands of them",
        cause="git, a worker",
        outcome="the commit holds what its trailers name",
        tests=_in(
            INDEX,
            "test_i_12_flags_of_the_index_do_not_keep_a_file_out_of_a_commit",
            "test_i_12_states_of_the_index_do_not_change_a_commit",
        )
        + _in(MANY, "test_i_58_many_outputs_with_long_names"),
    ),
    Row(
        id="F58",
        fault="files that shadow a library, planted bytecode of the runner, a gate that imports it",
        cause="files",
        outcome="the libraries, the sources; the import fails",
        tests=_in(
            MAIN,
            "test_i_13_no_command_loads_a_file_of_the_current_directory",
            "test_i_14_the_runner_is_its_sources",
        )
        + _in(GATE, "test_i_18_a_gate_that_imports_the_repository_is_errored"),
    ),
    Row(
        id="F59",
        fault="an object of git that the commit needs is cut, changed, forged or missing",
        cause="files of `.git/objects`",
        outcome="refused by name before any entry, exit 3",
        tests=_in(COMMIT, "test_a_damaged_object_is_named"),
    ),
    Row(
        id="F60",
        fault="installs that offer other code than the commit's: submodules, old versions, `.pth`",
        cause="environments, sitecustomize.py",
        outcome="the copy is imported, or the module is not found",
        tests=_in(
            COMMIT,
            "test_a_submodule_that_is_not_committed_is_not_imported",
            "test_a_package_that_a_pth_file_has_imported_is_imported_anew",
            "test_an_old_install_of_the_project_is_not_imported",
        ),
    ),
    Row(
        id="F61",
        fault="the process that all jobs are forked from is killed, or a supervisor, or both",
        cause="a gate, an experiment",
        outcome="the next job is forked from a new one; what the supervisor watched dies",
        tests=_in(GATE, "test_a_gate_that_kills_what_it_is_forked_from_gets_a_new_one")
        + _in(
            PROCESS,
            "test_a_job_whose_server_is_killed_goes_on",
            "test_what_a_killed_supervisor_leaves_dies_too",
            "test_a_job_that_kills_supervisor_and_server_is_killed_with_them",
        ),
    ),
    Row(
        id="F62",
        fault="a gate changes what it judges, or goes by something else than its content",
        cause="gates",
        outcome="ERRORED",
        tests=_in(GATE, "test_a_write_to_a_mutant_is_detected")
        + _in(
            CANNOT_FAIL,
            "test_i_45_controls_find_a_gate_that_fails_on_the_outputs_when_it_sees_them_again",
        ),
    ),
    Row(
        id="F63",
        fault="names of the plan that no entry holds, no human can type, or that the runner uses",
        cause="plans",
        outcome="refused at load with the field and the character, exit 2",
        tests=_in(
            NAMES,
            "test_i_52_every_name_is_one_line_that_reads_as_it_is_stored",
            "test_i_52_names_of_the_runner_are_refused",
            "test_i_52_any_plan_that_loads_gives_entries_that_seal",
        ),
    ),
    Row(
        id="F64",
        fault="a locale without UTF-8, folders and files of any bytes, messages of any bytes",
        cause="`localedef`, git",
        outcome="the record of a UTF-8 locale; output in the terminal's encoding, escaped",
        tests=_in(
            ENCODINGS,
            "test_i_52_and_i_63_every_command_in_every_encoding",
            "test_i_63_a_repository_in_any_folder",
            "test_i_63_tracked_files_with_such_names",
            "test_i_53_every_command_after_such_messages",
        ),
    ),
    Row(
        id="F65",
        fault="a user id without a name, or without a home",
        cause="a user namespace",
        outcome="the id is the name; exit 7 where the cache is needed and nobody named it",
        tests=_in(
            ENCODINGS,
            "test_i_62_a_user_id_without_a_name_runs_and_approves",
            "test_i_62_the_cache_is_named_where_it_is_needed",
        ),
    ),
    Row(
        id="F66",
        fault=(
            "folders that cannot be read or removed: of another user, immutable, mounted, "
            "thousands of levels deep"
        ),
        cause="workers, gates",
        outcome=(
            "as outputs refused in clear words; elsewhere removed as far as possible, the rest "
            "named in a warning and tried again by later runs"
        ),
        tests=_in(
            RESISTING,
            "test_deep_and_foreign_folders_beside_the_outputs_are_removed_i_61",
            "test_such_outputs_are_refused_in_clear_words_i_61",
            "test_a_gate_that_leaves_deep_folders_is_judged_i_61",
            "test_what_cannot_be_removed_is_named_and_tried_again_i_61",
        ),
    ),
    Row(
        id="F67",
        fault="a prepared record that nobody prepared, or that was changed, copied or linked",
        cause="files of `.phases/pending`; an experiment",
        outcome="refused by name, exit 3, nothing is changed; the hint sets it aside",
        tests=_in(
            PENDING,
            "test_a_planted_record_is_refused_i_20",
            "test_a_planted_approval_opens_nothing_i_21",
            "test_a_prepared_record_that_was_changed_is_refused_i_20",
            "test_an_experiment_that_plants_a_record_gets_nothing_i_20",
        ),
    ),
    Row(
        id="F68",
        fault="killed while an outcome or a decision of any kind is recorded",
        cause="failpoint `prepared`",
        outcome="the next run completes it",
        tests=_in(
            PENDING,
            "test_every_outcome_is_completed_after_a_kill",
            "test_every_decision_is_completed_after_a_kill",
        ),
    ),
    Row(
        id="F69",
        fault="the history is reset, amended, rebased, squashed or rewritten, or HEAD is elsewhere",
        cause="git, with a user's commits and changes before, between and after the runner's",
        outcome="exit 3; the hint's command brings the record back; no file and no commit is lost",
        tests=_in(
            HINTS,
            "test_a_history_that_was_rewritten_i_55",
            "test_a_history_that_was_moved_i_55",
            "test_a_history_that_was_rewritten_whole_begins_anew",
        ),
    ),
    Row(
        id="F70",
        fault="progress.txt or the journal edited, cut, merged or converted",
        cause="files, git merge, git rebase, git stash pop, core.autocrlf",
        outcome="exit 3; the hint's command restores it, or goes on in a clone",
        tests=_in(
            HINTS,
            "test_a_ledger_that_was_changed",
            "test_conflict_markers_in_the_ledger",
            "test_a_damaged_journal_goes_on_in_a_clone",
        ),
    ),
    Row(
        id="F71",
        fault="a lock, a ledger or results are cleaned, stashed, reset or edited away",
        cause="git clean, stash, reset, rm; files; killed runs and phases that wait",
        outcome="restored or composed again by the next run, or by the hint's command",
        tests=_in(
            HINTS,
            "test_what_a_killed_run_left_is_lost_i_54",
            "test_what_a_phase_that_waits_has_is_lost_i_54",
            "test_a_lock_that_was_edited_i_54",
            "test_a_lock_is_lost_and_the_runner_is_a_newer_one_i_54",
        ),
    ),
    Row(
        id="F72",
        fault="a decision is killed, then what it had prepared is cleaned away, or the next run is "
        "in another work tree",
        cause="failpoints `entered`, `files`, `committed`; git clean, stash, rm; git worktree",
        outcome="LOST: it counts for nothing and is asked for again; in another work tree exit 3 "
        "names the folder where it waits",
        tests=_in(
            LOST,
            "test_a_lost_decision_counts_for_nothing_and_is_asked_for_again",
            "test_a_lost_waiver_waives_nothing",
            "test_what_waits_in_another_work_tree_is_completed_there",
            "test_a_main_work_tree_that_git_does_not_list_is_found",
            "test_a_decision_waits_until_a_run_gave_a_lost_one_up",
        ),
    ),
    Row(
        id="F73",
        fault="a merge keeps the progress.txt of before a commit of the runner's that it joins",
        cause="git merge -s ours, git commit-tree; one machine or two, with and without a journal",
        outcome="exit 3 names the entry and the commit; the hint's command goes back to before "
        "the merge",
        tests=_in(
            LEFT_OUT,
            "test_a_rejection_is_not_undone_by_a_merge",
            "test_a_failed_attempt_is_not_forgotten_by_a_merge",
            "test_a_rejection_of_another_machine_is_not_merged_away",
            "test_a_whole_record_is_not_left_out",
        ),
    ),
    Row(
        id="F74",
        fault="killed before the runner's first commit, then the repository's first commit is "
        "amended, or another history checked out",
        cause="failpoints `lock_written`, `judged`, `prepared`, `entered`; git commit --amend, "
        "checkout --orphan, gc",
        outcome="exit 3 (`genesis-foreign`); the hint's command goes back, or begins anew in a "
        "clone",
        tests=_in(
            HEAD,
            "test_a_record_goes_on_only_after_the_first_commit_that_it_names",
            "test_a_record_whose_first_commit_is_gone_begins_anew_in_a_clone",
        ),
    ),
)


def table() -> str:
    """Return the rows as docs/reliability.md shows them."""
    lines = [
        "| | fault | caused by | outcome | not executed |",
        "|---|---|---|---|---|",
    ]
    for row in ROWS:
        cells = (row.id, row.fault, row.cause, row.outcome, row.reason)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
