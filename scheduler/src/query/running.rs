//! Which attempt somebody can look into who names a build.

use protocol::{build::BuildId, lease::LeaseId, name::WorkerName};

use crate::{assignment::is_debugged, state::State};

/// Why there is no attempt to look into.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RunningError {
    /// The build waits, or has ended: ask again when it runs.
    #[error("no phase of the build runs")]
    Nothing,
    /// Nobody said that it pauses: submit it again, saying so.
    #[error("the build does not pause at breakpoints; `grange build --debug` starts one that does")]
    NotDebugged,
    /// Several units run: say which.
    #[error("several tasks of the build run: {}; say which with `--unit`", units.join(", "))]
    Several {
        /// Their identifiers.
        units: Vec<String>,
    },
    /// The build has no such unit: name another.
    #[error("the build has no task `{unit}`")]
    NoUnit {
        /// What was asked for.
        unit: String,
    },
}

/// The attempt of a debugged build that runs, and who runs it: of the unit with that identifier, or of the only one.
///
/// # Errors
///
/// If there is not exactly one.
pub fn running_attempt(
    state: &State,
    build: BuildId,
    unit: Option<&str>,
) -> Result<(LeaseId, WorkerName), RunningError> {
    let build = state.ledger.builds.get(&build);
    let build = build.ok_or(RunningError::Nothing)?;
    let units = &build.submission.graph.units;
    let named = |at: u32| units[at as usize].identifier.as_deref();
    let mut indices = 0..u32::try_from(units.len()).unwrap_or(u32::MAX);
    if let Some(unit) = unit
        && !indices.clone().any(|at| named(at) == Some(unit))
    {
        let unit = unit.to_owned();
        return Err(RunningError::NoUnit { unit });
    }
    let is_meant = |at: u32| unit.is_none() || named(at) == unit;
    if !indices.any(|at| is_meant(at) && is_debugged(build, at)) {
        return Err(RunningError::NotDebugged);
    }
    let running: Vec<_> = build
        .running()
        .filter_map(|lease| Some((lease, state.ledger.leases.get(&lease)?)))
        .filter(|(_, of)| is_meant(build.node(of.job.index).unit))
        .filter(|(_, of)| is_debugged(build, build.node(of.job.index).unit))
        .collect();
    match &running[..] {
        [] => Err(RunningError::Nothing),
        [(lease, of)] => Ok((*lease, of.worker.clone())),
        several => {
            let units = several.iter();
            let units = units.filter_map(|(_, of)| named(build.node(of.job.index).unit));
            let units = units.map(str::to_owned).collect();
            Err(RunningError::Several { units })
        }
    }
}
