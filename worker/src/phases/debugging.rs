//! What a build gets that pauses at breakpoints: a place where its helper commands meet, and a way in for people.

use std::{path::PathBuf, sync::Arc};

use protocol::{job::Task, message::terminal::DEBUG_DIRECTORY};

use super::Work;
use crate::sandbox::SandboxSpec;

impl Work<'_> {
    /// Tells the commands of a phase that is debugged where they meet, and gives that; `None`: it is not debugged.
    /// Words that phases without commands expand never wait for people.
    pub(super) fn meeting_of(&self, spec: &mut SandboxSpec) -> Option<PathBuf> {
        if !self.assignment.debug || !matches!(self.assignment.task, Task::Commands(_)) {
            spec.variables.remove(DEBUG_DIRECTORY);
            return None;
        }
        let meeting = spec.state_directory();
        let value = meeting.as_os_str().as_encoded_bytes().to_vec();
        spec.variables.insert(DEBUG_DIRECTORY.to_owned(), value);
        Some(meeting)
    }

    /// Lets people into the sandbox that has come up, if it is debugged. The door is closed again with the attempt.
    pub(super) fn open_door(&self, meeting: Option<PathBuf>) {
        if let (Some(root), Some(meeting)) = (self.scene.view(), meeting) {
            let patterns = self.secrets.as_ref();
            let patterns = patterns.map(|secrets| Arc::clone(secrets.patterns()));
            let places = (root.to_owned(), meeting);
            let terminals = &self.site.terminals;
            terminals.open(self.assignment.lease, places, patterns);
        }
    }
}
