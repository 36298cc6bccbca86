//! `runtime-versions`: which of the versions that a worker offers is meant.
//!
//! Pure. A version is exact, its first numbers, `N.x`, `latest`, or of Java a flavour with a number. Of several
//! that are meant the newest is taken.

use std::{cmp::Ordering, collections::BTreeMap, fmt::Write as _};

/// The versions that a worker offers, by runtime.
pub type Offered = BTreeMap<String, Vec<String>>;

/// The versions that are asked for, by runtime.
pub type Wanted = BTreeMap<String, String>;

/// Flavours of Java that `CodeBuild` has: whose a runtime is does not matter here, its version does.
const FLAVOURS: [&str; 2] = ["corretto", "openjdk"];

/// The one runtime that has flavours.
const FLAVOURED: &str = "java";

/// What a runtime needs of another: `android` is built with `java`.
const NEEDS: [(&str, &str); 1] = [("android", "java")];

/// The runtimes that those which are wanted need besides, each with who needs it; none of them is wanted by name.
pub fn needed(wanted: &Wanted) -> impl Iterator<Item = (&'static str, &'static str)> {
    let needs = NEEDS.into_iter();
    needs.filter(|(runtime, needs)| wanted.contains_key(*runtime) && !wanted.contains_key(*needs))
}

/// The newest of the `versions` of a runtime that `wanted` means; `None`: there is none.
pub fn choose<'a>(runtime: &str, versions: &'a [String], wanted: &str) -> Option<&'a str> {
    let has_flavours = runtime == FLAVOURED;
    let meant = versions
        .iter()
        .filter(|version| is_meant(version, wanted, has_flavours));
    meant.map(String::as_str).max_by(|a, b| compare(a, b))
}

/// Whether all that is wanted is offered. Who offers nothing at all offers not this either.
pub fn has_all(offered: &Offered, wanted: &Wanted) -> bool {
    wanted.iter().all(|(runtime, version)| {
        let versions = offered.get(runtime);
        versions.is_some_and(|versions| choose(runtime, versions, version).is_some())
    })
}

/// What is wrong with what is wanted, in the words of `CodeBuild`, where no worker offers all of it together:
/// `None` if one does, or if none offers any runtime, so that nothing can be selected.
pub fn mistake<'a>(
    offers: impl Iterator<Item = &'a Offered> + Clone,
    wanted: &Wanted,
) -> Option<String> {
    let mut some = offers.clone().filter(|offered| !offered.is_empty());
    some.next()?;
    if offers.clone().any(|offered| has_all(offered, wanted)) {
        return None;
    }
    let mut all = Offered::new();
    for (runtime, versions) in offers.flatten() {
        all.entry(runtime.clone())
            .or_default()
            .extend(versions.iter().cloned());
    }
    let mut said = String::new();
    for (runtime, version) in wanted {
        let versions = all.get_mut(runtime);
        let Some(versions) = versions else {
            let _infallible = write!(said, "Unknown runtime named '{runtime}'. ");
            continue;
        };
        versions.sort_by(|a, b| compare(a, b));
        versions.dedup();
        if choose(runtime, versions, version).is_none() {
            let _infallible = write!(
                said,
                "Unknown runtime version named '{version}' of {runtime}. This build image has the following \
                 versions: {}. ",
                versions.join(", ")
            );
        }
    }
    if said.is_empty() {
        // Each by itself is there.
        return Some("no worker offers all of the runtimes together".to_owned());
    }
    if said.contains("Unknown runtime named") {
        let names: Vec<_> = all.keys().map(String::as_str).collect();
        let _infallible = write!(said, "There are: {}.", names.join(", "));
    }
    Some(said.trim_end().to_owned())
}

fn is_meant(version: &str, wanted: &str, has_flavours: bool) -> bool {
    let (wanted, version) = (
        wanted.trim().to_ascii_lowercase(),
        version.to_ascii_lowercase(),
    );
    let plain = |text: &str| match has_flavours {
        true => without_flavour(text).to_owned(),
        false => text.to_owned(),
    };
    let (wanted, version) = (plain(&wanted), plain(&version));
    if wanted == "latest" {
        return true;
    }
    let exact = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
    let mut parts = exact(&wanted);
    parts.pop_if(|last| matches!(last.as_str(), "x" | "*"));
    !parts.is_empty() && exact(&version).starts_with(&parts)
}

/// The number behind the flavour of a Java, or what is there.
fn without_flavour(version: &str) -> &str {
    let number = FLAVOURS.iter().find_map(|name| version.strip_prefix(name));
    number.unwrap_or(version)
}

/// The order of versions: by numbers, part by part.
fn compare(a: &str, b: &str) -> Ordering {
    let parts = |text: &str| {
        let parts = without_flavour(text).split(['.', '-', '_', '+']);
        let parts = parts.map(|part| (part.parse::<u64>().unwrap_or(0), part.to_owned()));
        parts.collect::<Vec<_>>()
    };
    parts(a).cmp(&parts(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn a_version_is_exact_or_n_x_or_latest_or_a_flavour() {
        let python = owned(&["3.9.20", "3.12.1", "3.10.4", "2.7"]);
        for (wanted, chosen) in [
            ("3.12", Some("3.12.1")),
            ("3.12.1", Some("3.12.1")),
            ("3", Some("3.12.1")),
            ("3.x", Some("3.12.1")),
            ("2.x", Some("2.7")),
            ("latest", Some("3.12.1")),
            ("3.1", None),
            ("3.12.10", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(choose("python", &python, wanted), chosen, "{wanted}");
        }
        let java = owned(&["11.0.2", "17.0.9"]);
        assert_eq!(choose("java", &java, "corretto17"), Some("17.0.9"));
        assert_eq!(choose("java", &java, "openjdk11"), Some("11.0.2"));
        assert_eq!(choose("java", &java, "corretto21"), None);
        let named = owned(&["corretto11", "corretto17"]);
        assert_eq!(choose("java", &named, "corretto11"), Some("corretto11"));
        assert_eq!(choose("java", &named, "openjdk17"), Some("corretto17"));
        assert_eq!(choose("java", &named, "latest"), Some("corretto17"));
        assert_eq!(choose("python", &python, "openjdk3.9"), None);
    }

    fn offer(runtimes: &[(&str, &[&str])]) -> Offered {
        let runtimes = runtimes.iter();
        runtimes
            .map(|&(name, of)| (name.to_owned(), owned(of)))
            .collect()
    }

    fn wanted(runtimes: &[(&str, &str)]) -> Wanted {
        let runtimes = runtimes.iter();
        runtimes
            .map(|&(a, b)| (a.to_owned(), b.to_owned()))
            .collect()
    }

    #[test]
    fn what_nobody_offers_is_said_with_what_is_offered() {
        let offers = [
            offer(&[("python", &["3.12.1", "3.9.1"])]),
            offer(&[("nodejs", &["20.1.0"]), ("python", &["3.9.1"])]),
            offer(&[]),
        ];
        let said = |runtimes: &[(&str, &str)]| mistake(offers.iter(), &wanted(runtimes));
        assert_eq!(said(&[("python", "3.12")]), None);
        assert_eq!(said(&[("python", "3.9"), ("nodejs", "20")]), None);
        assert_eq!(
            said(&[("python", "3.13")]).unwrap(),
            "Unknown runtime version named '3.13' of python. This build image has the following versions: \
             3.9.1, 3.12.1."
        );
        assert_eq!(
            said(&[("ruby", "3.3")]).unwrap(),
            "Unknown runtime named 'ruby'. There are: nodejs, python."
        );
        assert_eq!(
            said(&[("python", "3.12"), ("nodejs", "20")]).unwrap(),
            "no worker offers all of the runtimes together"
        );
    }

    #[test]
    fn where_nobody_offers_runtimes_nothing_can_be_selected_and_nothing_is_wrong() {
        let offers = [offer(&[]), offer(&[])];
        assert_eq!(mistake(offers.iter(), &wanted(&[("python", "3.12")])), None);
        assert_eq!(mistake([].iter(), &wanted(&[("python", "3.12")])), None);
        assert!(!has_all(&offers[0], &wanted(&[("python", "3.12")])));
    }
}
