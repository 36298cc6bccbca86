//! Which files patterns choose.

use std::{fs, os::unix::fs::symlink};

use super::*;

/// A view with `root/...` files; everything relative is relative to `src`.
struct Example {
    dir: tempfile::TempDir,
    directory: TreePath,
}

impl Example {
    fn new(files: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for path in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if path.to_string_lossy().ends_with('/') {
                fs::create_dir_all(&path).unwrap();
            } else {
                fs::write(&path, "").unwrap();
            }
        }
        let directory = TreePath::new("src").unwrap();
        Self { dir, directory }
    }

    fn link(self, target: &str, path: &str) -> Self {
        symlink(target, self.dir.path().join(path)).unwrap();
        self
    }

    fn view(&self) -> View<'_> {
        View {
            root: self.dir.path(),
            directory: Some(&self.directory),
        }
    }

    /// Checks that `to=from` are the files of an artifact, `to` where both agree below `src`.
    #[track_caller]
    fn artifacts(&self, spec: &ArtifactsSpec, expected: &[&str]) {
        let found = find_artifacts(self.view(), spec).unwrap();
        let shown: Vec<_> = found
            .files
            .iter()
            .map(|(to, from)| {
                if from.to_string() == format!("src/{to}") {
                    to.to_string()
                } else {
                    format!("{to}={from}")
                }
            })
            .collect();
        assert_eq!(shown, expected);
    }
}

fn files(patterns: &[&str]) -> ArtifactsSpec {
    ArtifactsSpec {
        files: patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
        ..Default::default()
    }
}

fn based(base: &str, spec: ArtifactsSpec) -> ArtifactsSpec {
    ArtifactsSpec {
        base_directory: Some(base.to_owned()),
        ..spec
    }
}

#[test]
fn patterns_find_files_and_hidden_ones_too() {
    let example = Example::new(&["src/a", "src/d/b.js", "src/d/e/.c", "src/empty/", "other/x"]);
    example.artifacts(&files(&["**/*"]), &["a", "d/b.js", "d/e/.c"]);
    example.artifacts(&files(&["d/*"]), &["d/b.js"]);
    example.artifacts(&files(&["'", "d/**/*"]), &["d/b.js", "d/e/.c"]);
    example.artifacts(&files(&["**.*"]), &["d/b.js", "d/e/.c"]);
    example.artifacts(&files(&["a", "/other/*"]), &["a", "other/x=other/x"]);
    let spec = ArtifactsSpec {
        exclude_paths: vec!["**/.*".to_owned(), "a".to_owned()],
        ..files(&["**/*"])
    };
    example.artifacts(&spec, &["d/b.js"]);
    let spec = ArtifactsSpec {
        discard_paths: true,
        ..files(&["d/**/*"])
    };
    example.artifacts(&spec, &[".c=src/d/e/.c", "b.js=src/d/b.js"]);
}

#[test]
fn patterns_that_match_nothing_are_named_and_nothing_at_all_is_an_error() {
    let example = Example::new(&["src/a", "src/d/"]);
    let found = find_artifacts(example.view(), &files(&["b", "a", "c/**/*"])).unwrap();
    assert_eq!(found.unmatched, ["b", "c/**/*"]);
    let refused = find_artifacts(example.view(), &files(&["b", "d"])).unwrap_err();
    assert!(matches!(refused, GlobError::NoArtifacts), "{refused}");
}

#[test]
fn a_base_directory_is_left_out_of_paths_and_may_be_a_pattern_or_a_link() {
    let example = Example::new(&["src/out-1/a", "src/out-2/sub/b", "src/out-3", "elsewhere/c"])
        .link("/elsewhere", "src/link");
    example.artifacts(&based("out-1", files(&["**/*"])), &["a=src/out-1/a"]);
    let both = ["a=src/out-1/a", "sub/b=src/out-2/sub/b"];
    example.artifacts(&based("out-*", files(&["**/*"])), &both);
    example.artifacts(&based("/src/out-1/", files(&["*"])), &both[..1]);
    example.artifacts(&based("link", files(&["*"])), &["c=elsewhere/c"]);
    for missing in ["nowhere", "out-3", "x*"] {
        let refused = find_artifacts(example.view(), &based(missing, files(&["*"]))).unwrap_err();
        let expected = format!("no matching base directory path found for {missing}");
        assert_eq!(refused.to_string(), expected);
    }
}

#[test]
fn links_are_what_they_lead_to_and_those_to_nothing_stay_links() {
    let example = Example::new(&["src/real/f", "outside/x"])
        .link("real/f", "src/latest")
        .link("/outside/x", "src/absolute")
        .link("real", "src/directory")
        .link("missing", "src/dangling")
        .link("loop", "src/loop")
        .link("../../../../../../etc/passwd", "src/escape");
    let expected = [
        "absolute=outside/x",
        "dangling",
        "directory/f=src/real/f",
        "escape",
        "latest=src/real/f",
        "loop",
        "real/f",
    ];
    example.artifacts(&files(&["**/*"]), &expected);
}

#[test]
fn links_that_are_kept_lead_to_the_same_wherever_the_artifact_is() {
    let example = Example::new(&["src/out/a", "src/out/sub/b"])
        .link("a", "src/out/near")
        .link("../a", "src/out/sub/up")
        .link("../out/a", "src/out/around")
        .link("/src/out/a", "src/out/absolute");
    let kept = ArtifactsSpec {
        enable_symlinks: true,
        ..based("out", files(&["**/*"]))
    };
    let expected = [
        "a=src/out/a",
        "absolute=src/out/a",
        "around=src/out/a",
        "near=src/out/near",
        "sub/b=src/out/sub/b",
        "sub/up=src/out/sub/up",
    ];
    example.artifacts(&kept, &expected);
    let flat = ArtifactsSpec {
        discard_paths: true,
        ..kept
    };
    let expected = [
        "a=src/out/a",
        "absolute=src/out/a",
        "around=src/out/a",
        "b=src/out/sub/b",
        "near=src/out/a",
        "up=src/out/a",
    ];
    example.artifacts(&flat, &expected);
}

#[test]
fn links_to_each_other_end_and_too_much_behind_them_is_an_error_and_never_left_out() {
    let names = ["a", "b", "c", "d", "e"];
    let mut example = Example::new(
        &names
            .map(|name| format!("src/{name}/f"))
            .each_ref()
            .map(|s| &**s),
    );
    for from in names {
        for to in names {
            example = example.link(&format!("../{to}"), &format!("src/{from}/{to}"));
        }
    }
    let spec = files(&["a/**/*"]);
    let all = find_artifacts(example.view(), &spec).unwrap().files.len();
    // Each order of the others, from none of them to all four.
    assert_eq!(all, 1 + 4 + 4 * 3 + 4 * 3 * 2 + 4 * 3 * 2);
    let search = |max| {
        Search::new(example.dir.path())
            .unwrap()
            .with_linked_entries_max(max)
    };
    let found = artifacts_of(&search(1_000), example.view(), &spec).unwrap();
    assert_eq!(found.files.len(), all);
    let refused = artifacts_of(&search(100), example.view(), &spec).unwrap_err();
    assert!(
        matches!(refused, GlobError::TooManyLinked { limit: 100, .. }),
        "{refused}"
    );
}

#[test]
fn what_would_lie_below_a_file_is_dropped() {
    let example = Example::new(&["src/o1/a", "src/o2/a/b"]);
    example.artifacts(&based("o?", files(&["**/*"])), &["a=src/o1/a"]);
}

#[test]
fn caches_keep_directories_and_whole_directories_that_are_named() {
    let example = Example::new(&["src/t/d/x", "src/t/empty/", "root/.m2/r/y", "root/.m2/s"])
        .link("d", "src/t/link");
    let patterns =
        |texts: &[&str]| -> Vec<String> { texts.iter().map(|&text| text.to_owned()).collect() };
    let found = find_cached(
        example.view(),
        &patterns(&["t/**/*", "/root/.m2", "/none/**/*"]),
    )
    .unwrap();
    let shown = |paths: &BTreeSet<TreePath>| -> Vec<String> {
        paths.iter().map(ToString::to_string).collect()
    };
    let expected = ["src/t/d", "src/t/d/x", "src/t/empty", "src/t/link"];
    assert_eq!(shown(&found.paths), expected);
    assert_eq!(shown(&found.whole), ["root/.m2"]);
    assert_eq!(found.unmatched, ["/none/**/*"]);

    let example = example.link("../root", "src/home");
    let found = find_cached(example.view(), &patterns(&["home/.m2/*"])).unwrap();
    assert_eq!(
        shown(&found.paths),
        ["root/.m2/r", "root/.m2/s", "src/home"]
    );
}
