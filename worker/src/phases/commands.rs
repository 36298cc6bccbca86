//! The phases that run commands: `INSTALL`, `PRE_BUILD`, `BUILD` and `POST_BUILD`.
//!
//! What the commands changed becomes a layer, whether they succeeded or not.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use cache::{
    capture::{CaptureError, Captured, Dialect, capture, capture_layer},
    client::CacheClient,
    progress::{Progress, Transfer},
    selection::Selection,
    upload::upload_tree,
};
use protocol::{
    agent_line,
    blob::TreeRef,
    build::Outcome,
    job::{EXPORTED_BYTES_MAX, PhaseCommands},
    retry::RetryRule,
    snapshot::{Layer, Snapshot},
};
use tracing::warn;

use super::{PhaseEnd, Work, hard_links, newest, restore, save, scan, sealed, state};
use crate::{
    attempt::{Attempt, Exit, Step, Verdict},
    clock,
    exports::{self, Exported},
    fault::{Fault, OrFault as _, blocking},
    ground::Ground,
    layers::{LayerFacts, LayerKey},
};

/// Where an overlay notes the files that have several names, below the directory of the attempt.
const INDEX: &str = "work/overlay/index";

/// Runs the commands of a phase and stores what they leave.
pub(super) async fn run(
    work: &mut Work<'_>,
    ground: &Ground,
    phase: &PhaseCommands,
) -> Result<PhaseEnd, Fault> {
    let nothing_to_run = phase.commands.is_empty() && phase.finally.is_empty();
    let succeeding = work.assignment.succeeding;
    let asked = phase.save_cache.as_ref().filter(|_| succeeding);
    let how = phase.save_unasked.filter(|_| succeeding);
    if nothing_to_run && asked.is_none() && how.is_none() && phase.exported.is_empty() {
        return Ok(unchanged(work));
    }
    let mut snapshot = state::load(work, ground).await?;
    let unasked = match how {
        Some(how) => save::unasked(work, &snapshot, how).await?,
        None => None,
    };
    if nothing_to_run && asked.is_none() && unasked.is_none() {
        let exported = exports::of(&phase.exported, &work.variables(&snapshot));
        return Ok(PhaseEnd {
            exported: told(work, phase, exported).await?,
            ..unchanged(work)
        });
    }
    let user = user_of(work, phase).await?;
    work.open_as(ground, &snapshot, (phase.shell, phase.state), user)
        .await?;
    let verdict = run_commands(work, phase).await?;
    let ended = clock::wall();
    let carried = work.scene.carried().await?;
    let exported = exports::of(&phase.exported, &carried.variables);
    state::carry(&mut snapshot, carried);

    let saving = match asked {
        _ if verdict.outcome != Outcome::Succeeded => None,
        Some(spec) => restore::expand_keys(work, spec).await?,
        None => unasked,
    };
    work.scene.quiesce(work.log).await?;
    let mut cache_uses = Vec::new();
    if let Some(saving) = saving {
        cache_uses.extend(save::run(work, ground, &snapshot, saving).await?);
    }
    if matches!(ground, Ground::Namespace) {
        store_changes(work, &mut snapshot).await?;
    } else {
        work.scene.finish().await?;
    }
    Ok(PhaseEnd {
        snapshot: state::store(work, ground, &snapshot).await?,
        cache_uses,
        ended: Some(ended),
        exported: told(work, phase, exported).await?,
        ..PhaseEnd::new(verdict)
    })
}

/// Who runs the commands of a phase; `None`: whoever runs the sandbox, and the log says so if the phase wants
/// somebody else.
async fn user_of(work: &Work<'_>, phase: &PhaseCommands) -> Result<Option<String>, Fault> {
    let Some(user) = &phase.run_as else {
        return Ok(None);
    };
    if rustix::process::geteuid().is_root() {
        return Ok(Some(user.clone()));
    }
    let text = format!(
        "This worker does not run as root, so commands run as its own user and not as {user}"
    );
    work.say(&text).await?;
    Ok(None)
}

/// The values of exported variables, if the phase has any; the log names those that are too long to be told, and
/// those that hold a secret.
async fn told(
    work: &Work<'_>,
    phase: &PhaseCommands,
    mut exported: Exported,
) -> Result<Option<BTreeMap<String, String>>, Fault> {
    if phase.exported.is_empty() {
        return Ok(None);
    }
    for name in exported.too_long {
        let text = format!(
            "Variable {name} is not exported: at most {EXPORTED_BYTES_MAX} bytes are, of all together"
        );
        work.say(&text).await?;
    }
    for name in &phase.exported {
        let value = exported.values.get(name);
        let Some(variable) = value.and_then(|value| work.secret_in(value)) else {
            continue;
        };
        let text = format!("Variable {name} is not exported: {}", scan::holds(variable));
        work.say(&text).await?;
        exported.values.remove(name);
    }
    Ok(Some(exported.values))
}

/// The end of a phase in which there was nothing to do.
fn unchanged(work: &Work<'_>) -> PhaseEnd {
    PhaseEnd {
        snapshot: state::unchanged(work),
        ..PhaseEnd::new(Verdict::succeeded())
    }
}

/// Runs the commands, and again as often as `on-failure` says.
async fn run_commands(work: &mut Work<'_>, phase: &PhaseCommands) -> Result<Verdict, Fault> {
    if Attempt::new(phase).next() != Step::End {
        work.begin.wait().await?;
    }
    // A pattern that is none was refused before anything ran.
    let rule = phase.retry.as_ref().map(RetryRule::new);
    let mut rule = rule.and_then(Result::ok);
    loop {
        let verdict = run_once(work, phase).await?;
        let Some(rule) = rule.as_mut().filter(|_| verdict.outcome == Outcome::Failed) else {
            return Ok(verdict);
        };
        if !rule.runs_again(&verdict.context.message) {
            return Ok(verdict);
        }
        let (used, count) = rule.used_of();
        let tries = (used.saturating_add(1), count.saturating_add(1));
        work.say(&agent_line::retrying(work.assignment.phase, tries))
            .await?;
        // The phase runs again from where it started, on the files that it has left.
        work.scene.rewind().await?;
    }
}

async fn run_once(work: &mut Work<'_>, phase: &PhaseCommands) -> Result<Verdict, Fault> {
    let mut attempt = Attempt::new(phase);
    while let Step::Run(command) = attempt.next() {
        work.say(&agent_line::running(command)).await?;
        let ended = work.scene.run(command, work.log).await?;
        if let Some(why) = ended.not_started {
            work.say(&agent_line::failed(command, &why)).await?;
            attempt.refused(&why);
            continue;
        }
        let exit = Exit(ended.code);
        if !exit.is_success() {
            work.say(&agent_line::failed(command, exit)).await?;
            let whose = (&work.assignment.team, &work.assignment.project);
            if let Some(hint) = work.site.docker.hint(command, whose) {
                work.say(&hint).await?;
            }
        }
        if let Some(why) = ended.state_lost {
            let text = format!("Variables and directory of the last command are lost: {why}");
            work.say(&text).await?;
        }
        attempt.exited(exit);
    }
    Ok(attempt.verdict())
}

/// Captures what the commands changed, ends the sandbox, and adds the change to the snapshot.
async fn store_changes(work: &mut Work<'_>, snapshot: &mut Snapshot) -> Result<(), Fault> {
    let upper = work.directory.join("upper");
    let view = work.scene.view().map(PathBuf::from);
    let view = view.ok_or_else(|| Fault::new("capture what changed", "there is no sandbox"))?;
    let index = work.directory.join(INDEX);
    let mut layers = work.scene.layers();
    layers.push(upper.clone());
    let capture = {
        let upper = upper.clone();
        move || capture_upper(&upper, &view, (&index, &layers))
    };
    let (captured, is_plain) = blocking("capture what changed", capture.clone()).await?;
    if captured.tree.entries().is_empty() {
        return work.scene.finish().await;
    }
    let facts = LayerFacts {
        bytes: captured.tree.bytes(),
        newest: newest(&captured.attributes),
    };
    let tree = match work.secrets.clone() {
        None => {
            let again = move || capture().map(|(captured, _)| captured);
            upload(work, captured, again).await?.0
        }
        Some(secrets) => {
            let to = work.directory.join("sealed");
            let seal = {
                let (secrets, to) = (Arc::clone(&secrets), to.clone());
                move || sealed::seal(&captured, &secrets, &to)
            };
            let sealed = blocking("seal what changed", seal).await?;
            let again = move || {
                let (captured, _) = capture()?;
                sealed::seal(&captured, &secrets, &to)
            };
            upload(work, sealed, again).await?.0
        }
    };
    work.scene.finish().await?;
    let layer = Layer { at: None, tree };
    if is_plain && work.secrets.is_none() {
        // What is there is what unpacking would give; the next phase finds it.
        let key = LayerKey::of(&layer);
        if let Err(error) = work.site.layers.adopt(&key, upper, facts).await {
            // It is stored, so the next phase can fetch it.
            warn!(%key, error = %error, "a captured layer cannot be kept unpacked");
        }
    }
    snapshot.layers.push(layer);
    Ok(())
}

/// What is in an upper directory, and whether it can stand as a layer itself: nothing in it refers to
/// what is elsewhere. `index` is where the overlay notes the files that have several names, and `layers`
/// are where the names may be.
fn capture_upper(
    upper: &Path,
    view: &Path,
    (index, layers): (&Path, &[PathBuf]),
) -> Result<(Captured, bool), CaptureError> {
    let links = hard_links::of_changed(index, view, layers)
        .map_err(|source| CaptureError::List { source })?;
    if !links.is_empty() {
        return Ok((capture_layer(upper, view, &links)?, false));
    }
    match capture(upper, &Selection::All, Dialect::Overlay) {
        Ok(captured) => Ok((captured, true)),
        Err(CaptureError::Redirected { .. }) => Ok((capture_layer(upper, view, &[])?, false)),
        Err(error) => Err(error),
    }
}

/// Uploads what was captured; if that has to be tried again, captures it `again` first.
pub(super) async fn upload(
    work: &Work<'_>,
    captured: Captured,
    again: impl Fn() -> Result<Captured, CaptureError> + Clone + Send + Sync + 'static,
) -> Result<(TreeRef, Transfer), Fault> {
    let first = Mutex::new(Some(captured));
    let tried = "store what was captured";
    let request = async |client: CacheClient| {
        let captured = first.lock().ok().and_then(|mut first| first.take());
        let captured = match captured {
            Some(captured) => captured,
            None => blocking("capture it again", again.clone()).await?,
        };
        let uploaded = upload_tree(&client, captured, &Progress::default()).await;
        uploaded.or_fault(tried)
    };
    work.cache.with(tried, request).await
}
