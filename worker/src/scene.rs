//! What an attempt has running: its sandbox, the log that comes out of it, the layers under it.
//!
//! The scene outlives the future that runs the phase. Whatever becomes of that, [`Scene::clear`] leaves
//! nothing running.

use std::{io, path::Path, pin::pin, time::Duration};

use tokio::io::AsyncReadExt as _;
use tracing::warn;

use crate::{
    fault::{Fault, OrFault as _},
    layers::LayerUse,
    log::Log,
    report::Chain,
    sandbox::{
        Carried, Command, CommandExit, Expansion, Output, Sandbox, SandboxError, SandboxSpec,
    },
};

/// How much output is taken at once, in bytes: what a pipe holds.
const OUTPUT_BYTES: usize = 64 * 1024;

/// How long the rest of the output may take to be kept when the sandbox has ended: the log may be held
/// up by a coordinator that is away.
const REST_TIME_LIMIT: Duration = Duration::from_secs(1);

/// What an attempt has running.
#[derive(Debug, Default)]
pub(crate) struct Scene {
    sandbox: Option<Sandbox>,
    output: Option<Output>,
    layers: Vec<LayerUse>,
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
        let mut sandbox = Sandbox::start(spec).await.or_fault("start a sandbox")?;
        for note in sandbox.notes() {
            log.say(note).await.or_fault("write the log")?;
        }
        self.output = sandbox.take_output();
        self.sandbox = Some(sandbox);
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
        let (sandbox, output) = self.parts()?;
        let ran = pumped(sandbox.run(&command), output, log).await?;
        ran.or_fault("run a command")
    }

    /// Expands a word as the shell does.
    ///
    /// # Errors
    ///
    /// If the farm could not try.
    pub(crate) async fn expand(&mut self, text: &str, log: &Log) -> Result<Expansion, Fault> {
        let (sandbox, output) = self.parts()?;
        let expanded = pumped(sandbox.expand(text), output, log).await?;
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
        let (sandbox, output) = self.parts()?;
        let ended = pumped(sandbox.quiesce(), output, log).await?;
        ended.or_fault("end the commands of the phase")?;
        take_rest(output, log).await
    }

    /// Where the worker sees the sandbox's root directory; `None`: there is no sandbox.
    pub(crate) fn view(&self) -> Option<&Path> {
        self.sandbox.as_ref().map(Sandbox::view)
    }

    /// Ends the sandbox, if there is one. What it wrote into its upper directory stays.
    ///
    /// # Errors
    ///
    /// If processes may be left over.
    pub(crate) async fn finish(&mut self) -> Result<(), Fault> {
        let finished = match self.sandbox.take() {
            Some(sandbox) => sandbox.finish().await.or_fault("end the sandbox"),
            None => Ok(()),
        };
        self.layers.clear();
        finished
    }

    /// Ends everything there is. What can still be had of the output goes to the log.
    pub(crate) async fn clear(&mut self, log: &Log) {
        if let Err(fault) = self.finish().await {
            warn!(error = %Chain(&fault), "a sandbox did not end as it should");
        }
        let rest = take_rest(&mut self.output, log);
        // A log that takes no more is no reason to wait: everything is dead already.
        let _taken = tokio::time::timeout(REST_TIME_LIMIT, rest).await;
        self.output = None;
    }

    fn parts(&mut self) -> Result<(&mut Sandbox, &mut Option<Output>), Fault> {
        match &mut self.sandbox {
            Some(sandbox) => Ok((sandbox, &mut self.output)),
            None => Err(Fault::new("use the sandbox", "there is none")),
        }
    }
}

/// Carries out `work` while its output goes to the log, up to the last byte written before it ended.
async fn pumped<T>(
    work: impl Future<Output = Result<T, SandboxError>>,
    output: &mut Option<Output>,
    log: &Log,
) -> Result<Result<T, SandboxError>, Fault> {
    let mut work = pin!(work);
    let mut buffer = vec![0; OUTPUT_BYTES];
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                take_pending(output, log, &mut buffer).await.or_fault(KEEPING)?;
                return Ok(done);
            }
            read = read_some(output, &mut buffer) => {
                let read = read.or_fault(KEEPING)?;
                log.append(&buffer[..read]).await.or_fault(KEEPING)?;
            }
        }
    }
}

const KEEPING: &str = "keep the output of a command";

/// The next bytes; waits for ever when there will be none.
async fn read_some(output: &mut Option<Output>, buffer: &mut [u8]) -> io::Result<usize> {
    if let Some(from) = output {
        let read = from.read(buffer).await?;
        if read > 0 {
            return Ok(read);
        }
        *output = None;
    }
    std::future::pending().await
}

/// Takes what was written before now. Processes in the background may go on to write.
async fn take_pending(output: &mut Option<Output>, log: &Log, buffer: &mut [u8]) -> io::Result<()> {
    let Some(from) = output else { return Ok(()) };
    let mut left = usize::try_from(from.pending()?).unwrap_or(0);
    while left > 0 {
        let wanted = left.min(buffer.len());
        let read = from.read(&mut buffer[..wanted]).await?;
        if read == 0 {
            break;
        }
        log.append(&buffer[..read]).await?;
        left -= read;
    }
    Ok(())
}

/// Takes everything up to the end: whoever wrote is dead.
async fn take_rest(output: &mut Option<Output>, log: &Log) -> Result<(), Fault> {
    let Some(mut from) = output.take() else {
        return Ok(());
    };
    let mut buffer = vec![0; OUTPUT_BYTES];
    loop {
        let read = from.read(&mut buffer).await.or_fault(KEEPING)?;
        if read == 0 {
            return Ok(());
        }
        log.append(&buffer[..read]).await.or_fault(KEEPING)?;
    }
}
