//! `grange buildspec init`: a buildspec for a tree, from what lies in it.

use std::{fs, io::Write as _, path::Path};

use anyhow::Context as _;

use crate::{
    args::buildspec::InitArgs,
    command::source::read_bounded,
    ecosystem::{Tree, buildspec_for},
    error::CommandError,
    render,
};

/// Where a buildspec is looked for.
const FILE: &str = "buildspec.yml";
/// How many names of a tree's root are looked at: more than any root has that people look at.
const NAMES_MAX: usize = 10_000;
/// How much of a file is looked at, in bytes: those that count are short.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Writes a buildspec.
///
/// # Errors
///
/// If there is one, or the tree cannot be read or written.
pub(super) fn run(args: &InitArgs) -> Result<(), CommandError> {
    let tree = look(&args.directory)?;
    let (text, found) = buildspec_for(&tree);
    let path = args.directory.join(FILE);
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .open(&path)
        .with_context(|| format!("failed to make `{}`; nothing was written", path.display()))
        .map_err(|error| {
            CommandError::usage(error).hint("a buildspec that is there is never overwritten")
        })?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("failed to write `{}`", path.display()))
        .map_err(CommandError::farm)?;
    let found = match found.as_slice() {
        [] => "nothing known lies in the tree: put your commands in".to_owned(),
        found => format!("for {}", found.join(", ")),
    };
    render::line(&format!("wrote `{}` {found}", path.display()))
}

/// What lies in the root of a tree.
fn look(directory: &Path) -> Result<Tree, CommandError> {
    let shown = directory.display();
    let entries = fs::read_dir(directory)
        .with_context(|| format!("failed to look into `{shown}`"))
        .map_err(CommandError::usage)?;
    let mut tree = Tree::default();
    for entry in entries.take(NAMES_MAX).flatten() {
        if let Ok(name) = entry.file_name().into_string() {
            let text = Tree::reads(&name).then(|| read_bounded(&entry.path(), FILE_BYTES_MAX));
            let text = text
                .and_then(Result::ok)
                .and_then(|bytes| String::from_utf8(bytes).ok());
            tree.add(name, text);
        }
    }
    Ok(tree)
}
