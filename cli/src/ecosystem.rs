//! What a source tree is built with, as far as the names in its root tell, and a buildspec for it. Pure: it
//! is told what lies there.

mod known;

use std::{collections::BTreeMap, fmt::Write as _};

use self::known::{KNOWN, make};

/// What lies in the root of a source tree.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// By name; with the text where it counts, if it could be read.
    names: BTreeMap<String, Option<String>>,
}

/// The files whose text counts.
const READ: &[&str] = &[
    ".java-version",
    ".node-version",
    ".nvmrc",
    ".python-version",
    ".ruby-version",
    "Makefile",
    "go.mod",
    "package.json",
];

impl Tree {
    /// Whether the text of a file with this name counts.
    pub(crate) fn reads(name: &str) -> bool {
        READ.contains(&name)
    }

    /// Adds a name.
    pub(crate) fn add(&mut self, name: String, text: Option<String>) {
        self.names.insert(name, text);
    }

    fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.names.get(name)?.as_deref()
    }

    /// The first name that ends in `ending`.
    fn ending_in(&self, ending: &str) -> Option<&str> {
        let mut names = self.names.keys();
        names
            .find(|name| name.ends_with(ending))
            .map(String::as_str)
    }
}

/// How one kind of tree is built.
#[derive(Debug, Default, Eq, PartialEq)]
struct Recipe {
    /// What it is called, like `cargo`.
    name: &'static str,
    /// The runtime and its version, if the tree says one.
    runtime: Option<(&'static str, String)>,
    /// What gets its dependencies.
    install: Vec<String>,
    /// What builds it.
    build: Vec<String>,
    /// What tests it.
    test: Vec<String>,
    /// The files that say what its dependencies are.
    locks: Vec<String>,
    /// Where its dependencies lie.
    cached: &'static [&'static str],
}

/// A buildspec for a tree, and the names of what it is built with.
pub(crate) fn buildspec_for(tree: &Tree) -> (String, Vec<&'static str>) {
    let mut recipes: Vec<Recipe> = KNOWN.iter().filter_map(|of| of(tree)).collect();
    if recipes.is_empty() {
        recipes.extend(make(tree));
    }
    let mut text = "version: 0.2\n\nphases:\n".to_owned();
    let runtimes: Vec<String> = recipes
        .iter()
        .filter_map(|recipe| recipe.runtime.as_ref())
        .map(|(runtime, version)| format!("      {runtime}: {version}\n"))
        .collect();
    let install = commands(&recipes, |recipe| &recipe.install);
    if !runtimes.is_empty() || !install.is_empty() {
        text += "  install:\n";
        if !runtimes.is_empty() {
            text += "    runtime-versions:\n";
            text.extend(runtimes);
        }
        add_commands(&mut text, &install);
    }
    let mut build = commands(&recipes, |recipe| &recipe.build);
    build.extend(commands(&recipes, |recipe| &recipe.test));
    if build.is_empty() {
        build.push("echo \"put the commands here that build and test\"".to_owned());
    }
    text += "  build:\n";
    add_commands(&mut text, &build);
    add_cache(&mut text, &recipes);
    (text, recipes.iter().map(|recipe| recipe.name).collect())
}

fn commands(recipes: &[Recipe], of: impl Fn(&Recipe) -> &Vec<String>) -> Vec<String> {
    recipes
        .iter()
        .flat_map(|recipe| of(recipe).clone())
        .collect()
}

fn add_commands(text: &mut String, commands: &[String]) {
    if commands.is_empty() {
        return;
    }
    text.push_str("    commands:\n");
    for command in commands {
        let _infallible = writeln!(text, "      - {command}");
    }
}

/// The cache of all recipes: one key of all lock files, so that it is restored as long as none changes.
fn add_cache(text: &mut String, recipes: &[Recipe]) {
    let paths: Vec<&str> = recipes
        .iter()
        .flat_map(|recipe| recipe.cached)
        .copied()
        .collect();
    if paths.is_empty() {
        return;
    }
    text.push_str("\ncache:\n");
    let locks: Vec<&str> = recipes
        .iter()
        .flat_map(|recipe| &recipe.locks)
        .map(String::as_str)
        .collect();
    if recipes
        .iter()
        .all(|recipe| recipe.cached.is_empty() || !recipe.locks.is_empty())
    {
        let _infallible = writeln!(
            text,
            "  key: dependencies-$(codebuild-hash-files {})",
            locks.join(" ")
        );
    }
    text.push_str("  paths:\n");
    for path in paths {
        let _infallible = writeln!(text, "    - '{path}'");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (name, text) in files {
            tree.add((*name).to_owned(), Some((*text).to_owned()));
        }
        tree
    }

    /// The buildspec for these files, about which nothing may be said.
    #[track_caller]
    fn written(files: &[(&str, &str)]) -> String {
        let (text, _) = buildspec_for(&tree(files));
        let parsed = buildspec::parse(&text);
        let said = parsed.diagnostics.first();
        assert!(said.is_none(), "{parsed:#?}\n{text}");
        text
    }

    #[test]
    fn a_tree_of_two_kinds_is_built_with_both() {
        let text = written(&[
            ("Cargo.toml", ""),
            ("Cargo.lock", ""),
            (
                "package.json",
                r#"{"scripts": {"build": "x", "test": "echo \"Error: no test specified\" && exit 1"}}"#,
            ),
            ("package-lock.json", ""),
            (".nvmrc", "v20.11.0\n"),
        ]);
        assert_eq!(
            text,
            "\
version: 0.2

phases:
  install:
    runtime-versions:
      nodejs: 20.11.0
    commands:
      - cargo fetch --locked
      - npm ci
  build:
    commands:
      - cargo build --release --locked
      - npm run build
      - cargo test --release --locked

cache:
  key: dependencies-$(codebuild-hash-files Cargo.lock package-lock.json)
  paths:
    - '/root/.cargo/registry/**/*'
    - '/root/.cargo/git/**/*'
    - 'target/**/*'
    - '/root/.npm/**/*'
"
        );
    }

    #[test]
    fn every_kind_of_tree_gets_a_buildspec_without_mistakes() {
        let trees: &[(&[(&str, &str)], &str)] = &[
            (&[("Cargo.toml", "")], "cargo build"),
            (
                &[("package.json", "{}"), ("yarn.lock", "")],
                "yarn install --frozen-lockfile",
            ),
            (
                &[("package.json", "{}"), ("pnpm-lock.yaml", "")],
                "pnpm install --frozen-lockfile",
            ),
            (&[("package.json", "no json")], "npm install"),
            (
                &[("requirements.txt", ""), ("tests", "")],
                "python3 -m pytest",
            ),
            (
                &[("pyproject.toml", ""), ("poetry.lock", "")],
                "poetry install",
            ),
            (
                &[("pyproject.toml", ""), ("uv.lock", "")],
                "uv sync --frozen",
            ),
            (&[("Pipfile", ""), ("Pipfile.lock", "")], "pipenv sync"),
            (&[("pyproject.toml", "")], "pip install ."),
            (
                &[("go.mod", "module m\n\ngo 1.22\n"), ("go.sum", "")],
                "golang: 1.22",
            ),
            (&[("pom.xml", ""), ("mvnw", "")], "./mvnw -B verify"),
            (&[("build.gradle.kts", "")], "gradle build"),
            (
                &[("composer.json", ""), ("composer.lock", "")],
                "composer install",
            ),
            (
                &[
                    ("Gemfile", ""),
                    ("Gemfile.lock", ""),
                    (".ruby-version", "ruby-3.3.0"),
                ],
                "ruby: 3.3.0",
            ),
            (&[("App.sln", "")], "dotnet build"),
            (
                &[("Makefile", "all:\n\ttrue\ntest: all\n\ttrue\n")],
                "make test",
            ),
            (&[("README", "")], "put the commands here"),
        ];
        for (files, expected) in trees {
            let text = written(files);
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
    }

    #[test]
    fn a_version_that_could_be_anything_is_left_out() {
        let text = written(&[
            ("package.json", "{}"),
            (".nvmrc", "lts/*\n"),
            ("package-lock.json", ""),
        ]);
        assert!(!text.contains("runtime-versions"), "{text}");
        let text = written(&[("package.json", "{}"), (".nvmrc", "18: {a: b}\n")]);
        assert!(!text.contains("runtime-versions"), "{text}");
    }

    #[test]
    fn without_a_lock_file_the_cache_has_no_key() {
        let text = written(&[
            ("Cargo.toml", ""),
            ("package.json", "{}"),
            ("package-lock.json", ""),
        ]);
        assert!(text.contains("paths:") && !text.contains("key:"), "{text}");
    }
}
