//! The real program, found beside the test binary.

use std::{env, path::PathBuf};

/// The `grange` program of the same build as the running test or benchmark.
///
/// # Panics
///
/// If it was not built: `make test` builds it first.
pub fn grange() -> PathBuf {
    let this = env::current_exe().expect("a running program has a file");
    let above = this.ancestors().skip(1).take(2);
    let found = above
        .map(|directory| directory.join("grange"))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "there is no `grange` near `{}`: build it with `cargo build --release`",
            this.display()
        )
    })
}
