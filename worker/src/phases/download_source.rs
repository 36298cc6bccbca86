//! `DOWNLOAD_SOURCE`: puts the source in place, restores the dependency cache, sets the first variables.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use cache::{
    capture::Dialect,
    client::CacheClient,
    download::{fetch_outline, fetch_tree},
    materialize::{Owner, materialize, materialize_contents_into},
    upload::upload_attributes,
};
use protocol::{
    agent_line,
    attributes::Attributes,
    blob::TreeRef,
    cache_spec::{CacheSpec, UnaskedCache},
    environment,
    job::{Preface, Shell, ShellState},
    message::work::JobInput,
    path::TreePath,
    snapshot::{Layer, Snapshot},
    tree::Tree,
};

use super::{
    PhaseEnd, Work, as_bytes,
    restore::{self, Held, Keyed, Restored},
    source_path, state, unpacked,
};
use crate::{
    attempt::Verdict,
    clock,
    fault::{Fault, blocking},
    git::Access,
    ground::{Ground, SOURCE},
    layers::remove,
    lock_files::select,
    report::Chain,
    runtimes,
    source_times::stamp,
    units,
};

/// Puts the source in place.
pub(super) async fn run(
    work: &mut Work<'_>,
    ground: &Ground,
    (variables, preface): (&BTreeMap<String, String>, &Preface),
    (cache, unasked, shell): (Option<&CacheSpec>, Option<UnaskedCache>, Shell),
) -> Result<PhaseEnd, Fault> {
    let JobInput::Source(source) = &work.assignment.input else {
        return Err(Fault::new("find the source", "the assignment names none"));
    };
    let directory = ground.source();
    let begun = begin(work, ground, (variables, preface), shell).await?;
    let mut snapshot = match begun {
        Ok(snapshot) => snapshot,
        Err(verdict) => return Ok(PhaseEnd::new(verdict)),
    };
    let request = async |client: CacheClient| fetch_outline(&client, source).await;
    let outline = work.cache.with("fetch the source", request).await?;
    let ground_layer = Source {
        reference: source,
        outline: &outline,
    };
    if let Err(mistake) = select_runtimes(work, preface, &mut snapshot.variables).await? {
        return Ok(PhaseEnd::new(Verdict::yaml_error(mistake)));
    }
    work.say(&format!("Moving to directory {}", directory.display()))
        .await?;
    let mut cache_uses = Vec::new();
    let keyed = match cache {
        None => {
            work.say("Cache is not defined in the buildspec").await?;
            let why = "Skip cache due to: no paths specified to be cached";
            work.say(why).await?;
            select_unasked(work, &outline.0, unasked).await?
        }
        Some(spec) => {
            for path in &spec.paths {
                work.say(&format!("Expanded cache path {path}")).await?;
            }
            find_keys(work, ground, (&snapshot, &ground_layer), (spec, shell)).await?
        }
    };
    let mut restored = None;
    if let Some(keyed) = keyed {
        work.say("Downloading cache...").await?;
        let (found, cache_use) = restore::run(work, ground, &keyed).await?;
        if found.is_some() {
            work.say("Unarchiving cache...").await?;
        }
        restored = found;
        cache_uses.push(cache_use);
    }
    ground_layer
        .put(work, ground, restored.as_ref(), &mut snapshot)
        .await?;
    put_secondary(work, ground, &mut snapshot).await?;
    if let Some(restored) = restored {
        lay_over(work, ground, restored, &mut snapshot).await?;
    }
    say_phases(work, preface).await?;
    Ok(PhaseEnd {
        snapshot: state::store(work, ground, &snapshot).await?,
        cache_uses,
        ..PhaseEnd::new(Verdict::succeeded())
    })
}

/// Says which phases the buildspec has.
async fn say_phases(work: &Work<'_>, preface: &Preface) -> Result<(), Fault> {
    work.say("Registering with agent").await?;
    for line in agent_line::found(&preface.phases) {
        work.say(&line).await?;
    }
    Ok(())
}

/// Says where things are, and makes what the first phase starts from, still without the source. Gives how the
/// phase has failed if a secret cannot be had.
async fn begin(
    work: &mut Work<'_>,
    ground: &Ground,
    (variables, preface): (&BTreeMap<String, String>, &Preface),
    shell: Shell,
) -> Result<Result<Snapshot, Verdict>, Fault> {
    let directory = ground.source();
    work.say(&format!("CODEBUILD_SRC_DIR={}", directory.display()))
        .await?;
    if !preface.buildspec.is_empty() {
        let at = directory.join(&preface.buildspec);
        work.say(&format!("YAML location is {}", at.display()))
            .await?;
    }
    work.say("Processing environment variables").await?;
    if let Some(verdict) = work.learn_secrets().await? {
        return Ok(Err(verdict));
    }
    if let Ground::Host { unit, .. } = ground {
        make_unit(work, unit).await?;
    }
    let mut snapshot = Snapshot {
        base: work.site.base,
        layers: Vec::new(),
        variables: BTreeMap::new(),
        directory: directory.as_os_str().as_encoded_bytes().to_vec(),
    };
    let how = (shell, ShellState::Carried);
    let spec = ground.sandbox(work.site, work.directory, &snapshot, how);
    snapshot.variables = ground.variables(work.site, &spec);
    for (key, value) in &preface.not_served {
        work.say(&format!(
            "No worker says which {key} it serves, so `{value}` was not looked for"
        ))
        .await?;
    }
    if let Some(image) = preface.environment.get(environment::IMAGE) {
        let image = image.clone().into_bytes();
        let name = "CODEBUILD_BUILD_IMAGE".to_owned();
        snapshot.variables.insert(name, image);
    }
    snapshot.variables.extend(as_bytes(variables));
    for identifier in work.assignment.secondary_sources.keys() {
        let place = ground.root().join(secondary_place(identifier));
        let name = format!("CODEBUILD_SRC_DIR_{identifier}");
        work.say(&format!("{name}={}", place.display())).await?;
        let value = place.as_os_str().as_encoded_bytes().to_vec();
        snapshot.variables.insert(name, value);
    }
    if let Some(secrets) = &work.secrets {
        snapshot.variables.extend(secrets.variables());
        let before = snapshot.variables.get("GIT_CONFIG_COUNT");
        let before = before.and_then(|count| std::str::from_utf8(count).ok()?.parse().ok());
        let credentials = secrets.credentials();
        let access = Access::of_build(&preface.git_credentials, &credentials, before.unwrap_or(0));
        snapshot.variables.extend(access.variables);
    }
    Ok(Ok(snapshot))
}

/// Selects the runtimes that the buildspec asks for; the log says which. What the user has to mend is a message.
async fn select_runtimes(
    work: &Work<'_>,
    preface: &Preface,
    variables: &mut BTreeMap<String, Vec<u8>>,
) -> Result<Result<(), String>, Fault> {
    let selected = match runtimes::select(&work.site.runtimes, &preface.runtimes) {
        Ok(selected) => selected,
        Err(mistake) => return Ok(Err(mistake)),
    };
    for line in &selected.said {
        work.say(line).await?;
    }
    let before = variables.get("PATH").cloned().unwrap_or_default();
    let path = runtimes::path(&selected.directories, &before);
    variables.insert("PATH".to_owned(), path);
    let home = selected.java_home.map(PathBuf::into_os_string);
    let home = home.map(|home| home.into_encoded_bytes());
    variables.extend(home.map(|home| ("JAVA_HOME".to_owned(), home)));
    Ok(Ok(()))
}

/// The source as it was uploaded.
struct Source<'a> {
    reference: &'a TreeRef,
    outline: &'a (Tree, Attributes),
}

impl Source<'_> {
    /// Puts the source in place, with the times that what was restored asks for, and into the snapshot.
    async fn put(
        &self,
        work: &Work<'_>,
        ground: &Ground,
        restored: Option<&Restored>,
        snapshot: &mut Snapshot,
    ) -> Result<(), Fault> {
        let (tree, attributes) = self.outline;
        let digest = self.reference.tree.digest;
        let now = clock::wall_nanos();
        let stamped = match restored {
            Some(restored) => {
                let fresh = now.max(restored.newest.saturating_add(1));
                stamp(tree, attributes, &restored.made_from, fresh)
            }
            None => {
                // Nothing is older than the source, so a time that it had here before does as well, and
                // the layer that was unpacked then is found again.
                let fresh = work.site.layers.source_time(&digest).unwrap_or(now);
                work.site.layers.remember_source_time(digest, fresh);
                stamp(tree, attributes, &[], fresh)
            }
        };
        let request =
            async |client: CacheClient| upload_attributes(&client, self.reference, &stamped).await;
        let tree = work.cache.with("store the source's times", request).await?;
        let layer = Layer {
            at: Some(source_path()),
            tree,
        };
        match ground {
            // Unpacked before the first command wants it; the next phase finds it.
            Ground::Namespace => drop(work.layer(&layer).await?),
            Ground::Host { unit, .. } => {
                put_into_unit(work, &layer.tree, &unit.join(SOURCE)).await?;
            }
        }
        snapshot.layers = vec![layer];
        Ok(())
    }
}

/// Where a secondary source is, below the root.
fn secondary_place(identifier: &str) -> String {
    format!("{SECONDARY}{identifier}/src")
}

/// How the places of secondary sources start: beside that of the primary one.
const SECONDARY: &str = "codebuild/output/src-";

/// Puts the secondary sources in place, and into the snapshot. Nothing that was restored was made from them,
/// so they are as old as what is fetched.
async fn put_secondary(
    work: &Work<'_>,
    ground: &Ground,
    snapshot: &mut Snapshot,
) -> Result<(), Fault> {
    for (identifier, source) in &work.assignment.secondary_sources {
        let place = secondary_place(identifier);
        match ground {
            Ground::Host { unit, .. } => put_into_unit(work, source, &unit.join(place)).await?,
            Ground::Namespace => {
                let at = TreePath::new(place);
                let layer = Layer {
                    at: Some(at.map_err(|error| Fault::new("place a secondary source", error))?),
                    tree: source.clone(),
                };
                drop(work.layer(&layer).await?);
                snapshot.layers.push(layer);
            }
        }
    }
    Ok(())
}

/// The dependency cache that the lock files of the source select, if it is wanted; the log says what they
/// select.
async fn select_unasked(
    work: &Work<'_>,
    source: &Tree,
    unasked: Option<UnaskedCache>,
) -> Result<Option<Keyed>, Fault> {
    let selected = unasked.and_then(|how| select(source, &work.site.base, how));
    let Some(selected) = selected else {
        return Ok(None);
    };
    for line in &selected.said {
        work.say(&format!("Cached unasked, by lock file {line}"))
            .await?;
    }
    Ok(Some(selected.into()))
}

/// The keys of the dependency cache that the buildspec asks for; `None`: they cannot be used.
async fn find_keys(
    work: &mut Work<'_>,
    ground: &Ground,
    (snapshot, source): (&Snapshot, &Source<'_>),
    (spec, shell): (&CacheSpec, Shell),
) -> Result<Option<Keyed>, Fault> {
    if restore::needs_shell(spec) {
        // A key may ask the source, which is there without its final times for that.
        let mut snapshot = snapshot.clone();
        source.put(work, ground, None, &mut snapshot).await?;
        work.open(ground, &snapshot, (shell, ShellState::Carried))
            .await?;
    }
    let keyed = restore::expand_keys(work, spec).await;
    work.scene.finish().await?;
    clear(work).await?;
    keyed
}

/// Removes what the sandbox that expanded the key has written.
async fn clear(work: &Work<'_>) -> Result<(), Fault> {
    let used = ["upper", "work"].map(|name| work.directory.join(name));
    blocking("clean up after the expansion of the key", move || {
        used.iter().try_for_each(|path| remove(path))
    })
    .await
}

/// Lays what was restored over the source.
async fn lay_over(
    work: &Work<'_>,
    ground: &Ground,
    restored: Restored,
    snapshot: &mut Snapshot,
) -> Result<(), Fault> {
    match restored.held {
        Held::Layer(layer) => snapshot.layers.push(layer),
        Held::Contents { tree, contents } => {
            let root = ground.root();
            let options = unpacked(Dialect::Plain, Owner::Own);
            let contents = Mutex::new(Some(*contents));
            let request = async |client: CacheClient| {
                let first = contents.lock().ok().and_then(|mut first| first.take());
                let contents = match first {
                    Some(contents) => contents,
                    None => fetch_tree(&client, &tree).await?.into(),
                };
                materialize_contents_into(&client, contents, root, options.clone()).await
            };
            let put = Box::pin(work.cache.with("unpack the cache", request));
            let put = work.restoring.tell(&options.progress, put).await;
            if let Err(fault) = put {
                let text = format!("The cache was restored in part only: {}", Chain(&fault));
                work.say(&text).await?;
            }
        }
    }
    Ok(())
}

/// Makes the directory of a unit anew.
pub(super) async fn make_unit(work: &Work<'_>, unit: &Path) -> Result<(), Fault> {
    let expires = clock::wall() + work.assignment.time_left;
    let unit = unit.to_owned();
    let made = move || units::make(&unit, expires);
    blocking("make the directory of the unit", made).await
}

async fn put_into_unit(work: &Work<'_>, tree: &TreeRef, target: &Path) -> Result<(), Fault> {
    let target = target.to_owned();
    let place = target.clone();
    blocking("make room for the source", move || {
        remove(&place)?;
        fs::create_dir_all(place.parent().unwrap_or(&place))
    })
    .await?;
    let options = unpacked(Dialect::Plain, Owner::Own);
    let request =
        async |client: CacheClient| materialize(&client, tree, &target, options.clone()).await;
    let put = Box::pin(work.cache.with("unpack the source", request));
    work.restoring.tell(&options.progress, put).await?;
    Ok(())
}
