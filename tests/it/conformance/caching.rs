//! Which builds share a dependency cache.

use testkit::{
    farm::{Farm, FarmPlan},
    project,
};

/// A farm, and builds that say whether they found what an earlier one kept.
struct Builds {
    farm: Farm,
}

impl Builds {
    fn new() -> Self {
        Self {
            farm: Farm::start(FarmPlan::default()),
        }
    }

    /// Builds for `project` with a file in `deps` and these lines of the cache section; what it found.
    fn run(&self, project: &str, cache: &str) -> String {
        let source = tempfile::tempdir().unwrap();
        project::write_buildspec(
            source.path(),
            &format!(
                "
version: 0.2
env:
  variables: {{WHERE: deps}}
phases:
  build:
    commands:
      - cat deps/file 2> /dev/null || echo nothing
      - mkdir -p deps; echo {project} > deps/file
cache:
{cache}"
            ),
        );
        let built = self.farm.build(source.path(), &["--project", project]);
        assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
        built.printed()[0].to_owned()
    }
}

#[test]
fn a_cache_belongs_to_its_project() {
    let builds = Builds::new();
    for cache in [
        "  paths: ['deps/**/*']\n",
        "  key: k\n  paths: ['deps/**/*']\n",
    ] {
        assert_eq!(builds.run("one", cache), "nothing");
        assert_eq!(builds.run("other", cache), "nothing");
        assert_eq!(builds.run("one", cache), "one");
    }
}

#[test]
fn other_paths_are_another_cache() {
    let builds = Builds::new();
    let cache = |paths: &str| format!("  key: k\n  paths: [{paths}]\n");
    assert_eq!(builds.run("one", &cache("'deps/**/*'")), "nothing");
    assert_eq!(builds.run("one", &cache("'deps/**/*', more/*")), "nothing");
    assert_eq!(builds.run("one", &cache("'deps/**/*'")), "one");
}

#[test]
fn paths_may_have_variables() {
    let builds = Builds::new();
    let cache = "  paths: ['$WHERE/**/*']\n";
    assert_eq!(builds.run("one", cache), "nothing");
    assert_eq!(builds.run("one", cache), "one");
}

#[test]
fn fallback_keys_are_ignored_without_a_key() {
    let builds = Builds::new();
    builds.run("one", "  key: k-1\n  paths: ['deps/**/*']\n");
    let cache = "  fallback-keys: [k-]\n  paths: ['deps/**/*']\n";
    assert_eq!(builds.run("one", cache), "nothing");
}

#[test]
fn cached_content_overrides_the_source() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write(source.path(), "=== deps/file\nof the source\n");
    project::write_buildspec(
        source.path(),
        "
version: 0.2
phases:
  build:
    commands:
      - cat deps/file
      - echo of the cache > deps/file
cache:
  paths: ['deps/**/*']
",
    );
    let run = || farm.build(source.path(), &["--project", "one"]);
    assert_eq!(run().printed(), ["of the source"]);
    assert_eq!(run().printed(), ["of the cache"]);
}
