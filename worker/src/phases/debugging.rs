//! What a build gets that pauses at breakpoints: a place where its helper commands meet, and a way in for people.

use std::{path::PathBuf, sync::Arc};

use protocol::{job::Task, message::terminal::DEBUG_DIRECTORY, worker::Isolation};

use super::Work;
use crate::{sandbox::SandboxSpec, terminals::Meeting};

/// Where helper commands are about to meet.
#[derive(Debug)]
pub(super) struct Planned {
    /// The worker's own directory above; `None`: the root of the sandbox, which is not there yet.
    root: Option<PathBuf>,
    /// The directory below it.
    below: PathBuf,
}

impl Work<'_> {
    /// Tells the commands of a phase that is debugged where they meet, and gives that; `None`: it is not debugged.
    /// Words that phases without commands expand never wait for people.
    pub(super) fn meeting_of(&self, spec: &mut SandboxSpec) -> Option<Planned> {
        if !self.assignment.debug || !matches!(self.assignment.task, Task::Commands(_)) {
            spec.variables.remove(DEBUG_DIRECTORY);
            return None;
        }
        let seen = spec.state_directory();
        let value = seen.as_os_str().as_encoded_bytes().to_vec();
        spec.variables.insert(DEBUG_DIRECTORY.to_owned(), value);
        Some(match spec.isolation {
            Isolation::Namespace => Planned {
                root: None,
                below: seen,
            },
            // The way to the worker's own directories may be a link, and is the worker's.
            Isolation::Host => Planned {
                below: seen.strip_prefix(&spec.work).unwrap_or(&seen).to_owned(),
                root: Some(spec.work.clone()),
            },
        })
    }

    /// Lets people into the sandbox that has come up, if it is debugged. The door is closed again with the attempt.
    pub(super) fn open_door(&self, meeting: Option<Planned>) {
        if let (Some(root), Some(Planned { root: own, below })) = (self.scene.view(), meeting) {
            let root = own.unwrap_or_else(|| root.to_owned());
            let patterns = self.secrets.as_ref();
            let patterns = patterns.map(|secrets| Arc::clone(secrets.patterns()));
            let terminals = &self.site.terminals;
            terminals.open(self.assignment.lease, Meeting { root, below }, patterns);
        }
    }
}
