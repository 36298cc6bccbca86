//! The processes of this machine, as `/proc` shows them.

use std::fs;

/// Whether any process has `argument` as one of its arguments.
///
/// # Panics
///
/// If there is no `/proc`.
pub fn any_with_argument(argument: &str) -> bool {
    !with_argument(argument).is_empty()
}

/// The ids of the processes that have `argument` as one of their arguments.
///
/// # Panics
///
/// If there is no `/proc`.
pub fn with_argument(argument: &str) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("Linux has /proc").flatten();
    let has_argument = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|&byte| byte == 0);
        words.any(|word| word == argument.as_bytes())
    };
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(has_argument)
        .collect()
}
