//! What an attempt has running: its sandbox, the log that comes out of it, the layers under it.
//!
//! The scene outlives the future that runs the phase. Whatever becomes of that, [`Scene::clear`] leaves
//! nothing running.

mod tap;

use std::{
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use protocol::time::Time;
use tokio::sync::watch;
use tracing::warn;

use self::tap::Tap;
use crate::{
    fault::{Fault, OrFault as _},
    layers::LayerUse,
    log::Log,
    report::Chain,
    sandbox::{
        Carried, Command, CommandExit, Expansion, Leash, Sandbox, SandboxError, SandboxSpec,
    },
};

/// How long the rest of the output may take to be kept when the sandbox has ended: the log may be held
/// up by a coordinator that is away.
const REST_TIME_LIMIT: Duration = Duration::from_secs(1);

/// What an attempt has running.
#[derive(Debug, Default)]
pub(crate) struct Scene {
    /// Here before its first process does anything, and until the last has ended.
    sandbox: Option<Sandbox>,
    tap: Tap,
    layers: Vec<LayerUse>,
    /// Of the sandbox that there is.
    leash: watch::Sender<Option<Leash>>,
}

impl Scene {
    /// Starts a sandbox over `layers`, which stay as long as it.
    ///
    /// # Errors
    ///
    /// If it does not start, or there is one.
    pub(crate) async fn start(
        &mut self,
        spec: SandboxSpec,
        layers: Vec<LayerUse>,
        log: &Log,
    ) -> Result<(), Fault> {
        if self.sandbox.is_some() {
            return Err(Fault::new("start a sandbox", "one is running already"));
        }
        self.layers = layers;
        let sandbox = Sandbox::spawn(&spec).or_fault("start a sandbox")?;
        let sandbox = self.sandbox.insert(sandbox);
        self.tap.open(sandbox.take_output());
        sandbox.set_up(spec).await.or_fault("start a sandbox")?;
        // Not before: what to start is the first thing that the keeper is told. The spec has a fence, too.
        self.leash.send_replace(sandbox.leash());
        for note in sandbox.notes() {
            log.say(note).await.or_fault("write the log")?;
        }
        Ok(())
    }

    /// Runs a command; its output goes to the log, all of it before this returns.
    ///
    /// # Errors
    ///
    /// If the farm could not run it.
    pub(crate) async fn run(&mut self, text: &str, log: &Log) -> Result<CommandExit, Fault> {
        let command = Command {
            text: text.to_owned(),
        };
        let (sandbox, tap) = self.parts()?;
        let ran = pumped(sandbox.run(&command), tap, log).await?;
        ran.or_fault("run a command")
    }

    /// Goes back to the variables and the directory of the sandbox's start.
    ///
    /// # Errors
    ///
    /// If the sandbox is gone.
    pub(crate) async fn rewind(&mut self) -> Result<(), Fault> {
        let (sandbox, _) = self.parts()?;
        let rewound = sandbox.rewind().await;
        rewound.or_fault("go back to the variables of the phase's start")
    }

    /// Expands a word as the shell does.
    ///
    /// # Errors
    ///
    /// If the farm could not try.
    pub(crate) async fn expand(&mut self, text: &str, log: &Log) -> Result<Expansion, Fault> {
        let (sandbox, tap) = self.parts()?;
        let expanded = pumped(sandbox.expand(text), tap, log).await?;
        expanded.or_fault("expand a word")
    }

    /// What carries over to the next phase.
    ///
    /// # Errors
    ///
    /// If the sandbox is gone.
    pub(crate) async fn carried(&mut self) -> Result<Carried, Fault> {
        let (sandbox, _) = self.parts()?;
        let carried = sandbox.variables_and_directory().await;
        carried.or_fault("read the variables")
    }

    /// Ends everything that commands started; the last of their output goes to the log.
    ///
    /// # Errors
    ///
    /// If that cannot be done.
    pub(crate) async fn quiesce(&mut self, log: &Log) -> Result<(), Fault> {
        let (sandbox, tap) = self.parts()?;
        let ended = pumped(sandbox.quiesce(), tap, log).await?;
        ended.or_fault("end the commands of the phase")?;
        tap.drain(log).await.or_fault(KEEPING)
    }

    /// Where the worker sees the sandbox's root directory; `None`: there is no sandbox.
    pub(crate) fn view(&self) -> Option<&Path> {
        self.sandbox.as_ref().map(Sandbox::view)
    }

    /// The directories of the layers under the sandbox.
    pub(crate) fn layers(&self) -> Vec<PathBuf> {
        let layers = self.layers.iter();
        layers.map(|layer| layer.path().to_owned()).collect()
    }

    /// Ends the sandbox, if there is one. What it wrote into its upper directory stays.
    ///
    /// # Errors
    ///
    /// If the sandbox did not end as it should.
    ///
    /// # Cancel safety
    ///
    /// A sandbox whose end was not waited for is still here.
    pub(crate) async fn finish(&mut self) -> Result<(), Fault> {
        let finished = match &mut self.sandbox {
            Some(sandbox) => sandbox.finish().await,
            None => Ok(()),
        };
        if let Ok(()) | Err(SandboxError::Ended { .. }) = finished {
            self.sandbox = None;
            self.layers.clear();
        }
        finished.or_fault("end the sandbox")
    }

    /// Ends everything there is. What can still be had of the output goes to the log.
    ///
    /// # Errors
    ///
    /// If something may run on: then nobody may be told that the attempt has ended.
    pub(crate) async fn clear(&mut self, log: &Log) -> Result<(), Fault> {
        if let Err(fault) = self.finish().await {
            warn!(error = %Chain(&fault), "a sandbox did not end as it should");
            if self.sandbox.is_some() {
                return Err(fault);
            }
        }
        // A log that takes no more is no reason to wait: everything is dead already.
        let _taken = tokio::time::timeout(REST_TIME_LIMIT, self.tap.drain(log)).await;
        self.tap = Tap::default();
        Ok(())
    }

    /// Has whatever sandbox there is killed at the moment that `end` names last, also if the worker does
    /// nothing any more then. Never ends by itself.
    pub(crate) fn fenced(
        &self,
        mut end: watch::Receiver<Time>,
    ) -> impl Future<Output = ()> + use<> {
        let mut leashes = self.leash.subscribe();
        async move {
            loop {
                let leash = leashes.borrow_and_update().clone();
                let until = *end.borrow_and_update();
                if let Some(leash) = leash {
                    leash.until(until).await;
                }
                tokio::select! {
                    biased;
                    Ok(()) = leashes.changed() => {}
                    Ok(()) = end.changed() => {}
                    // Nobody prolongs anything any more.
                    else => std::future::pending().await,
                }
            }
        }
    }

    fn parts(&mut self) -> Result<(&mut Sandbox, &mut Tap), Fault> {
        match &mut self.sandbox {
            Some(sandbox) => Ok((sandbox, &mut self.tap)),
            None => Err(Fault::new("use the sandbox", "there is none")),
        }
    }
}

/// Carries out `work` while its output goes to the log, up to the last byte written before it ended.
async fn pumped<T>(
    work: impl Future<Output = Result<T, SandboxError>>,
    tap: &mut Tap,
    log: &Log,
) -> Result<Result<T, SandboxError>, Fault> {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                tap.take_pending(log).await.or_fault(KEEPING)?;
                return Ok(done);
            }
            taken = tap.take_some(log) => taken.or_fault(KEEPING)?,
        }
    }
}

const KEEPING: &str = "keep the output of a command";
