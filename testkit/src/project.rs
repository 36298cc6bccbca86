//! Source trees from text.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

/// Writes the files that `text` describes below `directory`.
///
/// A line `=== path` starts a file, `=== path *` an executable one; what follows up to the next such line
/// is its content.
///
/// # Panics
///
/// If a file cannot be written, or text stands before the first file.
pub fn write(directory: &Path, text: &str) {
    let mut files: Vec<(&str, String)> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("=== ") {
            files.push((name, String::new()));
        } else if let Some((_, content)) = files.last_mut() {
            content.push_str(line);
            content.push('\n');
        } else {
            assert!(
                line.trim().is_empty(),
                "`{line}` stands before the first file"
            );
        }
    }
    for (name, content) in files {
        let (name, executable) = name
            .strip_suffix(" *")
            .map_or((name, false), |name| (name, true));
        let path = directory.join(name);
        fs::create_dir_all(path.parent().expect("a file lies in a directory")).unwrap();
        fs::write(&path, content).unwrap();
        if executable {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

/// Writes a source tree that has nothing but a buildspec.
///
/// # Panics
///
/// As [`write()`].
pub fn write_buildspec(directory: &Path, buildspec: &str) {
    write(directory, &format!("=== buildspec.yml\n{buildspec}"));
}
