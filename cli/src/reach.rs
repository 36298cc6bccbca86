//! The farm of a command: the one that is named, one that runs on the same data already, or one in this
//! process, which is brought to its end whatever becomes of the command.

use std::time::Duration;

use anyhow::anyhow;
use tokio::time::sleep;

use crate::{
    args::FarmArgs,
    beacon::{self, Beacon, Lifetime},
    command::Context,
    embedded::EmbeddedFarm,
    error::CommandError,
    farm::Farm,
    farm_plan::FarmPlan,
    render,
};

/// How often a farm that has the data, and is not to be reached, is looked for again: with the pause below
/// for ten seconds, longer than one takes to come up or to end.
const TRIES_MAX: u32 = 40;
/// How long to wait between tries.
const PAUSE: Duration = Duration::from_millis(250);

/// How often a farm that was lost is asked again: with the pause below for about ten minutes, which is longer
/// than a coordinator or a cache takes to start again.
pub(crate) const RECONNECTS_MAX: u32 = 300;
/// How long to wait between tries.
pub(crate) const RECONNECT_PAUSE: Duration = Duration::from_secs(2);

/// A farm that a command talks to.
#[derive(Debug)]
pub(crate) struct Reached {
    /// The farm.
    pub(crate) farm: Farm,
    /// How long it lasts: an embedded one ends with the command that started it.
    pub(crate) lifetime: Lifetime,
}

impl Reached {
    /// Has `work` done, which may be done more than once, over new connections if one is lost on the way.
    ///
    /// # Errors
    ///
    /// Those of `work` that are of no connection; or if the farm cannot be reached for a long time.
    pub(crate) async fn persist<T>(
        &mut self,
        work: impl AsyncFn(&Farm) -> Result<T, CommandError>,
    ) -> Result<T, CommandError> {
        let mut tries = 0;
        loop {
            let error = match work(&self.farm).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            // A farm that starts again has its cache last.
            let may_pass = error.is_lost_connection() || 0 < tries && error.is_without_cache();
            let is_last = self.lifetime == Lifetime::OneCommand || RECONNECTS_MAX <= tries;
            if !may_pass || is_last {
                return Err(error);
            }
            if tries == 0 {
                render::note("lost the farm; trying to reach it again");
            }
            tries += 1;
            sleep(RECONNECT_PAUSE).await;
            // Whether that worked shows when the work is tried again.
            let _tried = self.farm.reconnect().await;
        }
    }

    /// Says whether a build can go on by itself.
    ///
    /// # Errors
    ///
    /// If the farm would end under it.
    pub(crate) fn check_detached(&self) -> Result<(), CommandError> {
        match self.lifetime {
            Lifetime::Service => Ok(()),
            Lifetime::OneCommand => {
                let error =
                    anyhow!("an embedded farm ends with this command, and cannot build on its own");
                Err(CommandError::usage(error)
                    .hint("start one with `grange up`, and name it with `--farm`"))
            }
        }
    }
}

/// What a command wants of a farm.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// To ask something.
    Ask,
    /// To have something built, so the farm must last.
    Build,
}

impl Context {
    /// Has `work` done on the farm that is named, or one on the user's own data; one that is started for it
    /// ends after it. Somebody who leaves at once ends both.
    ///
    /// # Errors
    ///
    /// Those of `work`; or if the farm cannot be reached, joined, started or ended.
    pub(crate) async fn with_farm<T>(
        &self,
        args: &FarmArgs,
        purpose: Purpose,
        work: impl AsyncFnOnce(&mut Reached) -> Result<T, CommandError>,
    ) -> Result<T, CommandError> {
        let mut parts = EmbeddedFarm::default();
        let done = tokio::select! {
            biased;
            () = self.signals.left() => None,
            done = Box::pin(self.reach_and_work(args, (purpose, &mut parts), work)) => Some(done),
        };
        let Some(done) = done else {
            // Leaving is what was wanted, so what ends badly now is not told.
            let _ended = parts.stop_at_once().await;
            return Err(CommandError::left());
        };
        let stopped = match done {
            Ok(done) => tokio::select! {
                biased;
                () = self.signals.left() => Err(CommandError::left()),
                stopped = parts.stop() => return stopped.map(|()| done),
            },
            Err(error) => Err(error),
        };
        let _ended = parts.stop_at_once().await;
        stopped
    }

    async fn reach_and_work<T>(
        &self,
        args: &FarmArgs,
        (purpose, parts): (Purpose, &mut EmbeddedFarm),
        work: impl AsyncFnOnce(&mut Reached) -> Result<T, CommandError>,
    ) -> Result<T, CommandError> {
        let named = Farm::named(args, &self.settings.client, &self.places).await?;
        if let Some(farm) = named {
            let lifetime = Lifetime::Service;
            return work(&mut Reached { farm, lifetime }).await;
        }
        let plan = FarmPlan::for_one_command(&self.settings, &self.places);
        let mut tries = 0;
        let running = loop {
            let in_use = match parts.start(&plan, &self.settings).await {
                Ok(running) => break running,
                Err(error) if error.is_in_use() => error,
                Err(error) => return Err(error),
            };
            match beacon::follow(&plan.directory).await {
                Ok((_, Lifetime::OneCommand)) if purpose == Purpose::Build => {
                    return Err(in_use.hint(
                        "another command runs a farm on it, and ends it; `grange up` starts one for many",
                    ));
                }
                Ok((farm, lifetime)) => return work(&mut Reached { farm, lifetime }).await,
                Err(_) if tries < TRIES_MAX => tries += 1,
                Err(_) => {
                    return Err(in_use.hint("name the farm that runs there with `--farm ADDR`"));
                }
            }
            sleep(PAUSE).await;
        };
        let lifetime = Lifetime::OneCommand;
        let _beacon = Beacon::light(&plan.directory, &running, lifetime)?;
        let farm = Farm::connect(running.address, &running.admin).await?;
        let mut reached = Reached { farm, lifetime };
        tokio::select! {
            biased;
            error = parts.failed() => Err(error),
            done = work(&mut reached) => done,
        }
    }
}
