//! The shell's state in version 0.2, and what becomes of processes in the background.

use std::fs;

use crate::sandbox::check;

#[test]
fn without_env_shell_commands_run_in_bin_sh() {
    let sh = fs::canonicalize("/bin/sh").unwrap();
    check(&["readlink /proc/$$/exe"], &format!("{}\n", sh.display()));
}

#[test]
fn a_block_of_lines_is_one_script() {
    check(&["a=1\nb() {\n  echo $a$1\n}\nb 2\n"], "12\n");
}

#[test]
fn a_script_has_the_status_of_its_last_statement() {
    check(
        &["false\necho went on", "echo $CODEBUILD_LAST_EXIT"],
        "went on\n0\n",
    );
    check(&["set -e\nfalse\necho never", "echo next"], "next\n");
}

#[test]
fn a_background_process_survives_its_command() {
    let wait_for = |file: &str| format!("while [ ! -e {file} ]; do sleep 0.01; done");
    let waits = format!(
        "({}; echo there > came.new; mv came.new came) &",
        wait_for("go")
    );
    let looks = format!("touch go; {}; cat came", wait_for("came"));
    check(&[&waits, &looks], "there\n");
}

#[test]
fn a_phase_does_not_wait_for_background_processes() {
    check(&["nohup sleep 1000 > /dev/null 2>&1 &", "echo on"], "on\n");
}

#[test]
fn file_descriptors_do_not_persist() {
    check(
        &[
            "exec 7> /dev/null; echo x >&7",
            "(echo x >&7) 2> /dev/null || echo closed",
        ],
        "closed\n",
    );
}

#[test]
fn the_table_of_jobs_does_not_persist() {
    check(
        &[
            "sleep 1000 & CHILD=$!; kill -0 $CHILD",
            "wait $CHILD 2> /dev/null || echo no child",
        ],
        "no child\n",
    );
}
