//! What each kind of phase does, from its input to what is stored.

mod artifact;
mod blame;
mod cache_paths;
mod commands;
mod debugging;
mod download_source;
mod fetch_sources;
mod hard_links;
mod learn;
mod reports;
mod restore;
mod save;
mod scan;
mod sealed;
mod state;
mod upload_artifacts;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use cache::{
    capture::Dialect,
    client::CacheClient,
    download::fetch_tree,
    materialize::{Contents, Materialize, MaterializeError, Owner, RootMode, materialize_contents},
    progress::{Progress, Transfer},
};
use protocol::{
    access::Trust,
    agent_line,
    attributes::Attributes,
    blob::{Blob, TreeRef},
    job::{Artifact, CacheUse, FetchedSources, Shell, ShellState, Task},
    message::{
        cache::{Entry, EntryKey, PutOutcome},
        work::Assignment,
    },
    path::TreePath,
    report_group::ReportRef,
    snapshot::{Layer, Snapshot},
    time::{Time, WallTime},
};
use tokio::sync::watch;
use tracing::debug;
use transport::Connection;

use self::{blame::is_of_the_build, upload_artifacts::Wanted};
use crate::{
    attempt::Verdict,
    begin::Begin,
    cache_link::AttemptCache,
    fault::{Fault, OrFault as _, changing},
    ground::{Ground, SOURCE},
    layers::{LayerError, LayerFacts, LayerKey, LayerUse},
    log::Log,
    report::Chain,
    restoring::Restoring,
    scene::Scene,
    secrets::UnitSecrets,
    site::Site,
};

/// What came of a phase.
#[derive(Debug)]
pub(crate) struct PhaseEnd {
    /// How it ended, and why.
    pub(crate) verdict: Verdict,
    /// What the next phase starts from.
    pub(crate) snapshot: Option<Blob>,
    /// What was published.
    pub(crate) artifact: Option<Artifact>,
    /// What else was published, by identifier.
    pub(crate) secondary_artifacts: BTreeMap<String, Artifact>,
    /// What exported variables held then; `None`: it has nothing to do with them.
    pub(crate) exported: Option<BTreeMap<String, String>>,
    /// The reports that were collected.
    pub(crate) reports: Vec<ReportRef>,
    /// What dependency caches did.
    pub(crate) cache_uses: Vec<CacheUse>,
    /// When its commands had ended; `None`: it had none.
    pub(crate) ended: Option<WallTime>,
    /// Whether the cache has lost a part of what it starts from.
    pub(crate) state_lost: bool,
    /// The sources that were fetched.
    pub(crate) fetched: Option<Box<FetchedSources>>,
}

impl PhaseEnd {
    /// An end that leaves nothing behind.
    pub(crate) const fn new(verdict: Verdict) -> Self {
        Self {
            verdict,
            snapshot: None,
            artifact: None,
            secondary_artifacts: BTreeMap::new(),
            exported: None,
            reports: Vec::new(),
            cache_uses: Vec::new(),
            ended: None,
            state_lost: false,
            fetched: None,
        }
    }
}

/// A phase and everything that it works with.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    /// What all attempts share.
    pub(crate) site: &'a Arc<Site>,
    /// What to do.
    pub(crate) assignment: &'a Assignment,
    /// Where to say it.
    pub(crate) log: &'a Log,
    /// The attempt's own directory.
    pub(crate) directory: &'a Path,
    /// The way to the cache.
    pub(crate) cache: &'a AttemptCache,
    /// When everything that runs is dead, whatever happens to the worker.
    pub(crate) until: watch::Receiver<Time>,
    /// What runs.
    pub(crate) scene: &'a mut Scene,
    /// Whether its first command may start.
    pub(crate) begin: &'a Begin,
    /// Whom to tell how far restores are.
    pub(crate) restoring: &'a Restoring,
    /// Over which the coordinator is asked for secrets.
    pub(crate) connections: watch::Receiver<Option<Connection>>,
    /// The secrets of the unit, once they are known; `None`: it has none.
    pub(crate) secrets: Option<Arc<UnitSecrets>>,
}

/// Runs a phase and stores what it leaves.
///
/// # Errors
///
/// What the farm failed at. That the user's commands failed is a value.
pub(crate) async fn run(work: &mut Work<'_>) -> Result<PhaseEnd, Fault> {
    let ground = Ground::of(work.site, work.assignment);
    let ended = run_on(work, &ground).await;
    let task = &work.assignment.task;
    let commands_ran = !matches!(task, Task::DownloadSource { .. } | Task::FetchSources(_));
    match ended {
        Err(fault) if commands_ran && is_of_the_build(&fault) => Ok(PhaseEnd {
            snapshot: state::unchanged(work),
            ..PhaseEnd::new(Verdict::client_error(Chain(&fault).to_string()))
        }),
        ended => ended,
    }
}

async fn run_on(work: &mut Work<'_>, ground: &Ground) -> Result<PhaseEnd, Fault> {
    let assignment = work.assignment;
    let is_first = matches!(assignment.task, Task::DownloadSource { .. });
    // The log begins with whatever comes first.
    let begins = match &assignment.task {
        Task::DownloadSource { preface, .. } => !preface.follows_fetch,
        Task::FetchSources(_) => true,
        _ => false,
    };
    if begins {
        for line in agent_line::OPENING {
            work.say(line).await?;
        }
    }
    if begins || !is_first {
        work.say(&agent_line::entering(assignment.phase)).await?;
    }
    // The first phase says before what it does.
    if !is_first && let Some(verdict) = work.learn_secrets().await? {
        return Ok(PhaseEnd {
            snapshot: state::unchanged(work),
            ..PhaseEnd::new(verdict)
        });
    }
    match &assignment.task {
        Task::DownloadSource {
            variables,
            cache,
            unasked,
            shell,
            preface,
            ..
        } => {
            let cached = (cache.as_ref(), *unasked, *shell);
            download_source::run(work, ground, (variables, preface), cached).await
        }
        Task::Commands(commands) => {
            if commands.is_named && commands.commands.is_empty() {
                work.say(&agent_line::no_commands(assignment.phase)).await?;
            }
            commands::run(work, ground, commands).await
        }
        Task::UploadArtifacts {
            artifacts,
            shell,
            reports,
            secondary,
        } => {
            let wanted = Wanted {
                artifact: artifacts.as_ref(),
                secondary,
                reports,
            };
            upload_artifacts::run(work, ground, wanted, *shell).await
        }
        Task::FetchSources(wanted) => fetch_sources::run(work, ground, wanted).await,
    }
}

impl Work<'_> {
    /// Writes a line of the farm's own into the log.
    async fn say(&self, text: &str) -> Result<(), Fault> {
        self.log.say(text).await.or_fault("write the log")
    }

    /// Starts a sandbox on what `snapshot` says.
    async fn open(
        &mut self,
        ground: &Ground,
        snapshot: &Snapshot,
        shell: (Shell, ShellState),
    ) -> Result<(), Fault> {
        self.open_as(ground, snapshot, shell, None).await
    }

    /// As [`open`](Self::open), for commands of another user.
    async fn open_as(
        &mut self,
        ground: &Ground,
        snapshot: &Snapshot,
        shell: (Shell, ShellState),
        user: Option<String>,
    ) -> Result<(), Fault> {
        let layers = self.layers(ground, snapshot).await?;
        let mut spec = ground.sandbox(self.site, self.directory, snapshot, shell);
        let topmost_first = layers.iter().rev();
        spec.lowers = topmost_first.map(|layer| layer.path().to_owned()).collect();
        spec.variables = self.variables(snapshot);
        spec.until = Some(*self.until.borrow());
        let Assignment { team, project, .. } = self.assignment;
        let socket = self.site.docker.socket_for(team, project);
        spec.docker_socket = socket.map(Path::to_owned);
        spec.user = user;
        if self.secrets.is_some() {
            spec.wipe = ground.written(self.directory);
        }
        let meeting = self.meeting_of(&mut spec);
        self.scene.start(spec, layers, self.log).await?;
        self.open_door(meeting);
        Ok(())
    }

    /// The variables of a phase on `snapshot`: those that it carries, and those of the occasion.
    fn variables(&self, snapshot: &Snapshot) -> BTreeMap<String, Vec<u8>> {
        let mut variables = snapshot.variables.clone();
        variables.extend(as_bytes(&self.assignment.variables));
        let succeeding = if self.assignment.succeeding { "1" } else { "0" };
        variables.insert(
            "CODEBUILD_BUILD_SUCCEEDING".to_owned(),
            succeeding.as_bytes().to_vec(),
        );
        variables
    }

    /// The layers of a snapshot, unpacked, oldest first; none where there are no overlays.
    async fn layers(&self, ground: &Ground, snapshot: &Snapshot) -> Result<Vec<LayerUse>, Fault> {
        let mut layers = Vec::with_capacity(snapshot.layers.len());
        if matches!(ground, Ground::Namespace) {
            for layer in &snapshot.layers {
                let opened = sealed::open(self, layer).await;
                let layer = match opened.map_err(Fault::of_the_state)? {
                    Some(opened) => opened,
                    None => {
                        let shared = self.layer(layer).await;
                        shared.map_err(Fault::of_the_state)?.0
                    }
                };
                layers.push(layer);
            }
        }
        Ok(layers)
    }

    /// A layer, unpacked, and what was moved for it.
    async fn layer(&self, layer: &Layer) -> Result<(LayerUse, Transfer), Fault> {
        let key = LayerKey::of(layer);
        let scratch = self.directory.join(format!("unpack-{key}"));
        let mut moved = Transfer::default();
        let unpacked = &mut moved;
        let fill = async |to: PathBuf| {
            let (transfer, facts) = self.unpack(layer, &to).await?;
            *unpacked = transfer;
            Ok::<_, Fault>(facts)
        };
        let obtained = self.site.layers.obtain(&key, scratch, fill).await;
        match obtained {
            Ok(layer) => {
                debug!(%key, was_there = layer.was_there(), "layer at hand");
                Ok((layer, moved))
            }
            Err(LayerError::Fill(fault)) => Err(fault),
            Err(error) => Err(Fault::new("keep a layer", error)),
        }
    }

    async fn unpack(&self, layer: &Layer, to: &Path) -> Result<(Transfer, LayerFacts), Fault> {
        let (at, options) = match &layer.at {
            None => (None, unpacked(Dialect::Overlay, Owner::Keep)),
            Some(at) => {
                let at = OsStr::from_bytes(at.as_bytes());
                (Some(at), unpacked(Dialect::Plain, Owner::Own))
            }
        };
        // A try that was given up may go on to write for a moment, and must not write into the layer.
        let tries = AtomicU32::new(0);
        let request = async |client: CacheClient| -> Result<_, MaterializeError> {
            let contents = Contents::from(fetch_tree(&client, &layer.tree).await?);
            let newest = newest(&contents.attributes);
            let number = tries.fetch_add(1, Ordering::Relaxed);
            let fresh = to.with_extension(number.to_string());
            let target = at.map_or_else(|| fresh.clone(), |at| fresh.join(at));
            if let Some(parent) = target.parent() {
                let (directory, making) = (parent.to_owned(), parent.to_owned());
                let made = changing(move || std::fs::create_dir_all(making)).await;
                made.map_err(|source| MaterializeError::Aside { directory, source })?;
            }
            let transfer =
                materialize_contents(&client, contents, &target, options.clone()).await?;
            let bytes = transfer.bytes;
            Ok((transfer, LayerFacts { bytes, newest }, fresh))
        };
        let unpacked = Box::pin(self.cache.with("unpack a layer", request));
        let unpacked = self.restoring.tell(&options.progress, unpacked).await;
        let (transfer, facts, fresh) = unpacked?;
        let named = to.to_owned();
        let named = changing(move || std::fs::rename(fresh, named)).await;
        named.or_fault("name an unpacked layer")?;
        Ok((transfer, facts))
    }

    /// Writes an entry at the cache, in the namespace of the build.
    async fn put_entry(
        &self,
        path: String,
        (blobs, trees, outlines): (Vec<Blob>, Vec<TreeRef>, Vec<TreeRef>),
        replace: bool,
    ) -> Result<PutOutcome, Fault> {
        self.put_made_entry(path, (blobs, trees, outlines), (replace, 0))
            .await
    }

    /// How long the unit's phases have run here so far, in milliseconds; zero: elsewhere.
    fn spent_millis(&self) -> u64 {
        let assignment = self.assignment;
        self.site
            .spent
            .so_far(assignment.job.build, assignment.unit)
    }

    /// As [`put_entry`](Self::put_entry); it took so many milliseconds to make what the entry names.
    async fn put_made_entry(
        &self,
        path: String,
        (blobs, trees, outlines): (Vec<Blob>, Vec<TreeRef>, Vec<TreeRef>),
        (replace, made_millis): (bool, u64),
    ) -> Result<PutOutcome, Fault> {
        let key = self.key(path);
        let entry = Entry {
            blobs,
            trees,
            outlines,
            // These three are the server's to say.
            trust: Trust::Untrusted,
            team: self.assignment.team.clone(),
            written: WallTime::default(),
        };
        let request = async |client: CacheClient| {
            let (key, entry) = (key.clone(), entry.clone());
            client
                .put_made_entry(key, entry, replace, made_millis)
                .await
        };
        self.cache
            .with("write an entry of the cache", request)
            .await
    }

    fn key(&self, path: String) -> EntryKey {
        EntryKey {
            namespace: self.assignment.namespace.clone(),
            path,
        }
    }
}

/// How trees are put back here.
fn unpacked(dialect: Dialect, owner: Owner) -> Materialize {
    Materialize {
        dialect,
        owner,
        default_modified: None,
        root: RootMode::Usual,
        progress: Progress::default(),
    }
}

/// The latest time of an entry, in nanoseconds since 1970; `i64::MIN` if none has one.
fn newest(attributes: &Attributes) -> i64 {
    let times = attributes
        .entries()
        .iter()
        .filter_map(|(_, of)| of.modified);
    times.max().unwrap_or(i64::MIN)
}

/// Where the source is, below the root.
fn source_path() -> TreePath {
    TreePath::new(SOURCE).expect("the source's place is a path")
}

/// Variables as they are set, as bytes.
fn as_bytes(variables: &BTreeMap<String, String>) -> BTreeMap<String, Vec<u8>> {
    let bytes = |(name, value): (&String, &String)| (name.clone(), value.as_bytes().to_vec());
    variables.iter().map(bytes).collect()
}

/// A length of time in whole milliseconds.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
