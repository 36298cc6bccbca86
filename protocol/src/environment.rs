//! What builds ask of the machine that runs them, and what workers say that they serve.
//!
//! Pure. A worker serves what its labels of these names say, several values with commas between. What no worker
//! says anything about cannot be selected, and builds run with what there is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde::{Deserialize, Serialize};

use crate::runtime::{Offered, Wanted, has_all};

/// Which size of machine.
pub const COMPUTE_TYPE: &str = "compute-type";
/// Which reserved machines.
pub const FLEET: &str = "fleet";
/// Which image.
pub const IMAGE: &str = "image";
/// Whether docker may be used: `true`, where it is asked for.
pub const PRIVILEGED_MODE: &str = "privileged-mode";
/// Which kind of system.
pub const SYSTEM: &str = "type";
/// What can be asked of a machine, by the names that buildspecs have for it; labels of other names are their
/// owners' own.
pub const KEYS: [&str; 5] = [COMPUTE_TYPE, FLEET, IMAGE, PRIVILEGED_MODE, SYSTEM];

/// How long a value may be, in bytes: as long as the name of an image with its digest gets.
pub const VALUE_BYTES_MAX: usize = 512;

/// What is asked of a machine: by key its value.
pub type Asked = BTreeMap<String, String>;

/// What an owner says of a worker.
pub type Labels = BTreeMap<String, String>;

/// What a project, or a task of a batch, asks of the machines of its builds; `None` everywhere: anything will do.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BuildEnvironment {
    /// How large a machine, like `BUILD_GENERAL1_SMALL`.
    #[serde(default)]
    pub compute_type: Option<String>,
    /// Which reserved machines, in the place of a size.
    #[serde(default)]
    pub fleet: Option<String>,
    /// Which image.
    #[serde(default)]
    pub image: Option<String>,
    /// Which system, like `LINUX_CONTAINER`.
    #[serde(default, rename = "type")]
    pub system: Option<String>,
    /// Whether it may use docker.
    #[serde(default)]
    pub privileged_mode: bool,
}

impl BuildEnvironment {
    /// What this asks for, and where it does not, `other`. A fleet and a size go over each other.
    pub fn over(&self, other: &Self) -> Self {
        let pick = |own: &Option<String>, of: &Option<String>| own.clone().or_else(|| of.clone());
        let is_sized = self.compute_type.is_some() || self.fleet.is_some();
        let sizes = if is_sized { self } else { other };
        Self {
            compute_type: sizes.compute_type.clone(),
            fleet: sizes.fleet.clone(),
            image: pick(&self.image, &other.image),
            system: pick(&self.system, &other.system),
            privileged_mode: self.privileged_mode || other.privileged_mode,
        }
    }

    /// What is asked, by key.
    pub fn asked(&self) -> Asked {
        let privileged = self.privileged_mode.then(|| "true".to_owned());
        let all = [
            (COMPUTE_TYPE, &self.compute_type),
            (FLEET, &self.fleet),
            (IMAGE, &self.image),
            (PRIVILEGED_MODE, &privileged),
            (SYSTEM, &self.system),
        ];
        let asked = all.into_iter();
        asked
            .filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)))
            .collect()
    }
}

/// What a unit needs of the worker that begins it.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Selection {
    /// The runtimes that it selects.
    pub runtimes: Wanted,
    /// What it asks of the machine.
    pub environment: Asked,
}

impl Selection {
    /// Whether a worker will do that offers these runtimes and has these labels.
    pub fn is_served(&self, offered: &Offered, labels: &Labels) -> bool {
        has_all(offered, &self.runtimes) && serves_all(labels, &self.environment)
    }
}

/// What of all that is asked selects among workers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Selected {
    /// What selects: some worker serves all of it.
    pub by: Asked,
    /// What no worker says anything about.
    pub not: Asked,
}

/// What of `asked` selects among workers with these labels.
///
/// # Errors
///
/// If no worker serves all of what does: what there is.
pub fn select<'a>(
    labels: impl Iterator<Item = &'a Labels> + Clone,
    asked: &Asked,
) -> Result<Selected, String> {
    let is_said = |key: &String| labels.clone().any(|of| of.contains_key(key));
    let (by, not) = asked
        .clone()
        .into_iter()
        .partition::<Asked, _>(|(key, _)| is_said(key));
    if by.is_empty() || labels.clone().any(|of| serves_all(of, &by)) {
        return Ok(Selected { by, not });
    }
    let mut said = String::new();
    for (key, value) in &by {
        let there: BTreeSet<&str> = labels.clone().flat_map(|of| values(of, key)).collect();
        if !there.contains(value.as_str()) {
            let there = there.into_iter().collect::<Vec<_>>().join(", ");
            let _infallible = write!(
                said,
                "No worker serves {key} `{value}`. There are: {there}. "
            );
        }
    }
    if said.is_empty() {
        let asked: Vec<_> = by.iter().map(|(key, of)| format!("{key} `{of}`")).collect();
        said = format!("No worker serves all of {} together", asked.join(", "));
    }
    Err(said.trim_end().to_owned())
}

fn serves_all(labels: &Labels, asked: &Asked) -> bool {
    let mut asked = asked.iter();
    asked.all(|(key, value)| values(labels, key).any(|served| served == value))
}

/// What a label says, piece by piece.
fn values<'a>(labels: &'a Labels, key: &str) -> impl Iterator<Item = &'a str> {
    let text = labels.get(key).map(String::as_str).unwrap_or_default();
    text.split(',')
        .map(str::trim)
        .filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        let of = of.iter();
        of.map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn what_workers_say_selects_and_what_none_says_does_not() {
        let small = map(&[(COMPUTE_TYPE, "SMALL, MEDIUM"), ("zone", "a")]);
        let large = map(&[(COMPUTE_TYPE, "LARGE"), (IMAGE, "standard:7.0")]);
        let workers = [small, large];
        let selected = |asked: &[(&str, &str)]| select(workers.iter(), &map(asked));
        let found = selected(&[(COMPUTE_TYPE, "MEDIUM"), (FLEET, "f")]).unwrap();
        assert_eq!(found.by, map(&[(COMPUTE_TYPE, "MEDIUM")]));
        assert_eq!(found.not, map(&[(FLEET, "f")]));
        assert_eq!(selected(&[]).unwrap(), Selected::default());
        let mistake = selected(&[(COMPUTE_TYPE, "HUGE")]).unwrap_err();
        assert_eq!(
            mistake,
            "No worker serves compute-type `HUGE`. There are: LARGE, MEDIUM, SMALL."
        );
        let apart = selected(&[(COMPUTE_TYPE, "SMALL"), (IMAGE, "standard:7.0")]).unwrap_err();
        assert!(apart.contains("together"), "{apart}");
    }

    #[test]
    fn a_worker_serves_a_unit_if_it_has_all_that_is_selected() {
        let selection = Selection {
            runtimes: map(&[("python", "3.12")]),
            environment: map(&[(IMAGE, "b")]),
        };
        let offered = Offered::from([("python".to_owned(), vec!["3.12.1".to_owned()])]);
        let labels = map(&[(IMAGE, "a,b")]);
        assert!(selection.is_served(&offered, &labels));
        assert!(!selection.is_served(&offered, &map(&[(IMAGE, "bb")])));
        assert!(!selection.is_served(&offered, &Labels::new()));
        assert!(!selection.is_served(&Offered::new(), &labels));
        assert!(Selection::default().is_served(&Offered::new(), &Labels::new()));
    }

    #[test]
    fn a_task_goes_over_its_project_and_a_fleet_over_a_size() {
        let text = |text: &str| Some(text.to_owned());
        let project = BuildEnvironment {
            compute_type: text("SMALL"),
            image: text("standard:7.0"),
            privileged_mode: true,
            ..BuildEnvironment::default()
        };
        let task = BuildEnvironment {
            fleet: text("f"),
            ..BuildEnvironment::default()
        };
        let asked = task.over(&project).asked();
        let expected = [
            (FLEET, "f"),
            (IMAGE, "standard:7.0"),
            (PRIVILEGED_MODE, "true"),
        ];
        assert_eq!(asked, map(&expected));
        let none = BuildEnvironment::default();
        assert_eq!(none.over(&project), project);
        assert!(none.asked().is_empty());
    }
}
