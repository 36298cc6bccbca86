//! Where a unit stands: what is the same at every isolation level, and what is not.
//!
//! At level `namespace` the root is `/`. At level `host` each unit has a directory that is laid out like
//! such a root, with the source and the home directory at the same places below it. So a path below the
//! root means the same at both levels, and dependency caches and artifacts are the same trees.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use protocol::{
    arn,
    job::{Shell, ShellState},
    message::work::Assignment,
    snapshot::Snapshot,
    worker::Isolation,
};

use crate::{sandbox::SandboxSpec, site::Site};

/// Where the source is, below the root.
pub(crate) const SOURCE: &str = "codebuild/output/src/src";
/// Where the home directory is, below the root.
pub(crate) const HOME: &str = "root";

/// Where a unit stands.
#[derive(Clone, Debug)]
pub(crate) enum Ground {
    /// On the worker's own root, through an overlay.
    Namespace,
    /// In a directory that no other unit has meanwhile.
    Host {
        /// The directory.
        unit: PathBuf,
        /// The same as text: patterns are text.
        text: String,
        /// Its number.
        place: u32,
    },
}

impl Ground {
    /// Where the unit of an assignment stands.
    pub(crate) fn of(site: &Site, assignment: &Assignment) -> Self {
        match site.isolation {
            Isolation::Namespace => Self::Namespace,
            Isolation::Host => {
                let place = site.places.of(assignment.job.build, assignment.unit);
                let unit = site.directory.units().join(place.to_string());
                let text = unit.to_string_lossy().into_owned();
                Self::Host { unit, text, place }
            }
        }
    }

    /// The root as commands see it.
    pub(crate) fn root(&self) -> &Path {
        match self {
            Self::Namespace => Path::new("/"),
            Self::Host { unit, .. } => unit,
        }
    }

    /// Where commands find the source.
    pub(crate) fn source(&self) -> PathBuf {
        self.root().join(SOURCE)
    }

    /// Where commands find their home directory.
    pub(crate) fn home(&self) -> PathBuf {
        self.root().join(HOME)
    }

    /// The root as commands see it, as text.
    pub(crate) fn root_text(&self) -> &str {
        match self {
            Self::Namespace => "/",
            Self::Host { text, .. } => text,
        }
    }

    /// How the sandbox of an attempt is to be; its directory is `attempt`.
    pub(crate) fn sandbox(
        &self,
        site: &Site,
        attempt: &Path,
        snapshot: &Snapshot,
        (shell, state): (Shell, ShellState),
    ) -> SandboxSpec {
        SandboxSpec {
            isolation: site.isolation,
            upper: attempt.join("upper"),
            work: match self {
                Self::Namespace => attempt.join("work"),
                // The same for all phases, because `PATH` names a directory in it.
                Self::Host { unit, .. } => unit.join("work"),
            },
            lowers: Vec::new(),
            hidden: site.hidden.clone(),
            docker_socket: None,
            source_directory: self.source(),
            home: self.home(),
            variables: snapshot.variables.clone(),
            directory: snapshot.directory.clone(),
            shell,
            state,
            user: None,
            until: None,
            lock: Some(site.directory.keepers()),
            wipe: Vec::new(),
            program: site.program.clone(),
            helpers: site.commands.clone(),
        }
    }

    /// What an attempt whose directory is `attempt` has written, and its unit before: all that is of no use when the
    /// worker is gone.
    pub(crate) fn written(&self, attempt: &Path) -> Vec<PathBuf> {
        let unit = match self {
            Self::Namespace => None,
            Self::Host { unit, .. } => Some(unit.clone()),
        };
        unit.into_iter().chain([attempt.to_owned()]).collect()
    }

    /// The variables that every unit starts with, in front of those that the build sets.
    pub(crate) fn variables(&self, site: &Site, spec: &SandboxSpec) -> BTreeMap<String, Vec<u8>> {
        let bytes = |path: &Path| path.as_os_str().as_encoded_bytes().to_vec();
        let helpers = spec.helpers_directory();
        let path = [site.path.as_bytes(), &bytes(&helpers)].join(&b':');
        let given = site.environment.iter();
        let mut variables: BTreeMap<_, _> = given
            .map(|(name, value)| (name.clone(), value.clone().into_bytes()))
            .collect();
        let own = [
            ("PATH", path),
            ("HOME", bytes(&self.home())),
            ("CI", b"true".to_vec()),
            ("CODEBUILD_CI", b"true".to_vec()),
            ("CODEBUILD_BUILD_IMAGE", image(site).into_bytes()),
            ("CODEBUILD_SRC_DIR", bytes(&self.source())),
        ];
        variables.extend(own.map(|(name, value)| (name.to_owned(), value)));
        for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
            // The owner may pass one on.
            let region = variables.entry(name.to_owned());
            region.or_insert_with(|| arn::REGION.as_bytes().to_vec());
        }
        self.add_go_paths(&mut variables);
        if let Self::Host { unit, .. } = self {
            variables.insert("TMPDIR".to_owned(), bytes(&unit.join(TEMPORARY)));
        }
        variables
    }

    /// Sets where Go looks for packages: where it does by itself, and in the directory of sources.
    fn add_go_paths(&self, variables: &mut BTreeMap<String, Vec<u8>>) {
        let bytes = |path: &Path| path.as_os_str().as_encoded_bytes().to_vec();
        let source = self.source();
        let own = bytes(source.parent().unwrap_or(&source));
        let before = variables.remove("GOPATH");
        let before = before.unwrap_or_else(|| bytes(&self.home().join("go")));
        variables.insert("GOPATH".to_owned(), [&before[..], &own[..]].join(&b':'));
        variables.insert("CODEBUILD_GOPATH".to_owned(), own);
    }
}

/// What stands for the image of the environment: how builds are kept apart here, and for what processors.
fn image(site: &Site) -> String {
    let isolation = match site.isolation {
        Isolation::Namespace => "namespace",
        Isolation::Host => "host",
    };
    format!("grange/{isolation}:{}", std::env::consts::ARCH)
}

/// Where temporary files of a unit at level `host` are, below its directory.
pub(crate) const TEMPORARY: &str = "tmp";
