//! Selecting versions of runtimes: which directories come first in `PATH`, and what the log says.
//!
//! Pure. A worker offers what its owner names, each version with the directory of its programs.

use std::{collections::BTreeMap, path::PathBuf};

use protocol::{
    environment::{self, Labels},
    runtime::{Offered, Wanted, choose, mistake, needed},
};

/// The directories of programs, by runtime and version.
pub(crate) type Runtimes = BTreeMap<String, BTreeMap<String, PathBuf>>;

/// What becomes of the wanted versions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Selected {
    /// Directories that come before all others in `PATH`.
    pub(crate) directories: Vec<PathBuf>,
    /// Where Java is, if it was selected: what `JAVA_HOME` is to be.
    pub(crate) java_home: Option<PathBuf>,
    /// What the log says.
    pub(crate) said: Vec<String>,
}

impl Selected {
    /// Takes the version of a runtime that is meant, if there is one, and says so.
    fn add(&mut self, runtimes: &Runtimes, (runtime, version): (&str, &str), said: String) {
        let Some(versions) = runtimes.get(runtime) else {
            return;
        };
        let names: Vec<_> = versions.keys().cloned().collect();
        let chosen = choose(runtime, &names, version);
        let Some(directory) = chosen.and_then(|chosen| versions.get(chosen)) else {
            return;
        };
        self.said.push(said);
        if runtime == "java" {
            self.java_home = directory.parent().map(PathBuf::from);
        }
        self.directories.push(directory.clone());
    }
}

/// What `runtimes` offers, without its places.
pub(crate) fn offered(runtimes: &Runtimes) -> Offered {
    let runtimes = runtimes.iter();
    runtimes
        .map(|(runtime, versions)| (runtime.clone(), versions.keys().cloned().collect()))
        .collect()
}

/// The owner's salt of the base, with what is offered: a unit goes on only where the same directories are in
/// `PATH`, and where the same is served of what it can ask for.
pub(crate) fn salted(salt: &str, runtimes: &Runtimes, labels: &Labels) -> String {
    let mut salted = salt.to_owned();
    for key in environment::KEYS {
        if let Some(served) = labels.get(key) {
            salted.push_str(&format!("\0{key}={served}"));
        }
    }
    for (runtime, versions) in runtimes {
        for (version, directory) in versions {
            for part in [runtime, version, &directory.display().to_string()] {
                salted.push('\0');
                salted.push_str(part);
            }
        }
    }
    salted
}

/// Selects what is wanted.
///
/// # Errors
///
/// If some of it is not offered, in CodeBuild's words.
pub(crate) fn select(runtimes: &Runtimes, wanted: &Wanted) -> Result<Selected, String> {
    let mut selected = Selected::default();
    if wanted.is_empty() {
        selected
            .said
            .push("No runtime version selected in buildspec.".to_owned());
        return Ok(selected);
    }
    if runtimes.is_empty() {
        let why = "Skipping install of runtimes. Runtime version selection is not supported by this build image";
        selected.said.push(why.to_owned());
        return Ok(selected);
    }
    let offered = offered(runtimes);
    if let Some(mistake) = mistake(std::iter::once(&offered), wanted) {
        return Err(mistake);
    }
    for (runtime, version) in wanted {
        let said = format!(
            "Selecting '{runtime}' runtime version '{version}' based on manual selections..."
        );
        selected.add(runtimes, (runtime, version), said);
    }
    for (runtime, needs) in needed(wanted) {
        // A machine that offers none of its own to select may have it all the same.
        let said =
            format!("Selecting 'latest' runtime version of '{needs}', which '{runtime}' needs...");
        selected.add(runtimes, (needs, "latest"), said);
    }
    Ok(selected)
}

/// `PATH` with the selected directories before it.
pub(crate) fn path(directories: &[PathBuf], path: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for directory in directories {
        bytes.extend_from_slice(directory.as_os_str().as_encoded_bytes());
        bytes.push(b':');
    }
    bytes.extend_from_slice(path);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtimes() -> Runtimes {
        let of = |versions: &[(&str, &str)]| {
            let versions = versions.iter();
            let versions = versions.map(|(version, at)| ((*version).to_owned(), PathBuf::from(at)));
            versions.collect()
        };
        BTreeMap::from([
            ("java".to_owned(), of(&[("17", "/opt/jdk-17/bin")])),
            (
                "python".to_owned(),
                of(&[("3.9", "/opt/py39/bin"), ("3.12", "/opt/py312/bin")]),
            ),
        ])
    }

    fn wanted(runtimes: &[(&str, &str)]) -> Wanted {
        let runtimes = runtimes.iter();
        runtimes
            .map(|&(a, b)| (a.to_owned(), b.to_owned()))
            .collect()
    }

    #[test]
    fn who_offers_and_serves_the_same_has_the_same_base() {
        let labels = |of: &[(&str, &str)]| {
            let of = of.iter();
            of.map(|&(key, value)| (key.to_owned(), value.to_owned()))
                .collect::<Labels>()
        };
        let none = Runtimes::new();
        assert_eq!(salted("x", &none, &labels(&[("zone", "a")])), "x");
        let image = salted("x", &none, &labels(&[("image", "a")]));
        assert_ne!(image, "x");
        assert_ne!(image, salted("x", &none, &labels(&[("image", "b")])));
        assert_ne!(salted("x", &runtimes(), &Labels::new()), "x");
    }

    #[test]
    fn only_named_runtimes_are_selected() {
        let selected = select(&runtimes(), &wanted(&[("python", "3.x")])).unwrap();
        assert_eq!(selected.directories, [PathBuf::from("/opt/py312/bin")]);
        assert_eq!(selected.java_home, None);
        assert_eq!(
            selected.said,
            ["Selecting 'python' runtime version '3.x' based on manual selections..."]
        );
        assert_eq!(path(&selected.directories, b"/bin"), b"/opt/py312/bin:/bin");
    }

    #[test]
    fn what_a_named_runtime_needs_is_selected_without_being_named() {
        let mut runtimes = runtimes();
        runtimes.insert(
            "android".to_owned(),
            BTreeMap::from([("29".to_owned(), PathBuf::from("/opt/android/bin"))]),
        );
        let selected = select(&runtimes, &wanted(&[("android", "29")])).unwrap();
        let directories = ["/opt/android/bin", "/opt/jdk-17/bin"].map(PathBuf::from);
        assert_eq!(selected.directories, directories);
        assert_eq!(selected.java_home, Some(PathBuf::from("/opt/jdk-17")));
        assert_eq!(
            selected.said[1],
            "Selecting 'latest' runtime version of 'java', which 'android' needs..."
        );
        runtimes.remove("java");
        let selected = select(&runtimes, &wanted(&[("android", "29")])).unwrap();
        assert_eq!(selected.said.len(), 1, "a machine may have it all the same");
    }

    #[test]
    fn java_has_its_home() {
        let selected = select(&runtimes(), &wanted(&[("java", "corretto17")])).unwrap();
        assert_eq!(selected.java_home, Some(PathBuf::from("/opt/jdk-17")));
    }

    #[test]
    fn what_is_not_offered_is_an_error_and_who_offers_nothing_cannot_select() {
        let error = select(&runtimes(), &wanted(&[("python", "2.7")])).unwrap_err();
        assert!(error.ends_with("versions: 3.9, 3.12."), "{error}");
        let selected = select(&Runtimes::new(), &wanted(&[("python", "2.7")])).unwrap();
        assert!(selected.said[0].starts_with("Skipping install of runtimes."));
        let selected = select(&runtimes(), &Wanted::new()).unwrap();
        assert_eq!(selected.said, ["No runtime version selected in buildspec."]);
    }
}
