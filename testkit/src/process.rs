//! The processes of this machine, as `/proc` shows them.

use std::fs;

/// Whether any process has `argument` as one of its arguments.
///
/// # Panics
///
/// If there is no `/proc`.
pub fn any_with_argument(argument: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("Linux has /proc").flatten();
    let mut lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| {
        line.split(|&byte| byte == 0)
            .any(|word| word == argument.as_bytes())
    })
}
