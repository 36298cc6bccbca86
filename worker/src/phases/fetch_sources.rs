//! The part of `DOWNLOAD_SOURCE` before the build is planned: fetches the sources that nobody uploaded, and
//! stores them as if somebody had.
//!
//! git runs in a sandbox of its own, so that it and all that it starts ends with the attempt, finds nothing
//! of the worker, and leaves nothing behind but what is captured.

mod archives;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use cache::{
    capture::{Dialect, capture},
    selection::Selection,
};
use protocol::{
    git::{GitSource, is_commit},
    job::{FetchSources, FetchedSource, FetchedSources, Shell, ShellState},
    message::cache::keys,
    snapshot::Snapshot,
};

use super::{PhaseEnd, Work, commands::upload, download_source::make_unit, save::root_of};
use crate::{
    attempt::Verdict,
    fault::{Fault, blocking},
    git::{self, Access, Places},
    ground::Ground,
    sandbox::Expansion,
};

/// Where sources are fetched, below the root.
const PLACE: &str = "codebuild/output/fetch";
/// The exit status of git when no reference is as it was asked for.
const NO_REFERENCE: i32 = 2;

/// Fetches the sources.
pub(super) async fn run(
    work: &mut Work<'_>,
    ground: &Ground,
    wanted: &FetchSources,
) -> Result<PhaseEnd, Fault> {
    if let Some(refused) = refused(work, wanted) {
        return Ok(PhaseEnd::new(Verdict::client_error(refused)));
    }
    let secrets = work.secrets.as_ref().map(|secrets| secrets.credentials());
    let access = match Access::to_fetch(wanted, &secrets.unwrap_or_default()) {
        Ok(access) => access,
        Err((identifier, git, why)) => {
            let why = git::failed(identifier, git, why);
            return Ok(PhaseEnd::new(Verdict::client_error(why)));
        }
    };
    let program = open(work, ground, &access).await?;
    let mut fetched = FetchedSources::default();
    if let Some(git) = &wanted.primary {
        match fetch(work, (ground, &access), (None, git)).await? {
            Ok(source) => fetched.primary = Some(source),
            Err(why) => return Ok(PhaseEnd::new(Verdict::client_error(why))),
        }
    }
    if let Some(archive) = &wanted.archive {
        match archives::fetch(work, (ground, &program), archive).await? {
            Ok(source) => fetched.primary = Some(source),
            Err(why) => return Ok(PhaseEnd::new(Verdict::client_error(why))),
        }
    }
    for (identifier, git) in &wanted.secondary {
        match fetch(work, (ground, &access), (Some(identifier), git)).await? {
            Ok(source) => drop(fetched.secondary.insert(identifier.clone(), source)),
            Err(why) => return Ok(PhaseEnd::new(Verdict::client_error(why))),
        }
    }
    work.scene.finish().await?;
    let all = fetched.primary.iter().chain(fetched.secondary.values());
    let trees = all.map(|source| source.tree.clone()).collect();
    let (job, attempt) = (work.assignment.job, work.assignment.attempt);
    // Until the coordinator holds them for the build.
    let key = keys::snapshot(job, attempt);
    work.put_entry(key, (Vec::new(), trees, Vec::new()), true)
        .await?;
    Ok(PhaseEnd {
        fetched: Some(Box::new(fetched)),
        ..PhaseEnd::new(Verdict::succeeded())
    })
}

/// Why something is not fetched at all; `None`: all of it may be.
fn refused(work: &Work<'_>, wanted: &FetchSources) -> Option<String> {
    let all = wanted.primary.iter().chain(wanted.secondary.values());
    let mistake = |git: &GitSource| {
        let protocol = match git.check().and_then(|()| git.protocol()) {
            Ok(protocol) => protocol,
            Err(error) => return Some(error.to_string()),
        };
        let allowed = &work.site.git_protocols;
        let is_allowed = allowed.iter().any(|allowed| allowed == protocol);
        (!is_allowed).then(|| {
            format!(
                "Git clone failed: {}: worker's owner does not let it fetch over `{protocol}`, only over {}",
                git.url,
                allowed.join(", ")
            )
        })
    };
    let archive = wanted.archive.as_ref();
    let of_archive = archive.and_then(|archive| archives::refused(work.site, archive));
    all.into_iter().find_map(mistake).or(of_archive)
}

/// Starts the sandbox that sources are fetched in; gives where this program is in it.
async fn open(work: &mut Work<'_>, ground: &Ground, access: &Access) -> Result<PathBuf, Fault> {
    if let Ground::Host { unit, .. } = ground {
        make_unit(work, unit).await?;
    }
    let mut snapshot = Snapshot {
        base: work.site.base,
        layers: Vec::new(),
        variables: BTreeMap::new(),
        directory: ground.home().as_os_str().as_encoded_bytes().to_vec(),
    };
    let how = (Shell::Sh, ShellState::Fresh);
    let mut spec = ground.sandbox(work.site, work.directory, &snapshot, how);
    snapshot.variables = ground.variables(work.site, &spec);
    let own = git::environment(&work.site.git_protocols);
    let own = own.map(|(name, value)| (name.to_owned(), value.into_bytes()));
    snapshot.variables.extend(own);
    snapshot.variables.extend(access.variables.clone());
    spec.variables = snapshot.variables;
    spec.source_directory = ground.home();
    spec.until = Some(*work.until.borrow());
    if work.secrets.is_some() {
        spec.wipe = ground.written(work.directory);
    }
    let program = spec.helpers_directory().join("grange");
    work.scene.start(spec, Vec::new(), work.log).await?;
    Ok(program)
}

/// Fetches one source; or says why it cannot be had.
async fn fetch(
    work: &mut Work<'_>,
    (ground, access): (&Ground, &Access),
    (identifier, git): (Option<&String>, &GitSource),
) -> Result<Result<FetchedSource, String>, Fault> {
    let identifier = identifier.map(String::as_str);
    let version = git.version.as_deref();
    let base = ground.root().join(PLACE);
    let name = identifier.map_or_else(|| "primary".to_owned(), |name| format!("of-{name}"));
    let (tree, listed, complaint) = (
        base.join(&name),
        base.join(format!("list-{name}")),
        base.join(format!("said-{name}")),
    );
    let places = Places {
        tree: &tree,
        listed: &listed,
        complaint: &complaint,
        has_key: access.has_key(identifier),
    };
    let place = places.complaint_word();
    let with_key = |command: String| access.with_key(identifier, (command, &place));
    let shown = version
        .map(|version| format!(" at {version}"))
        .unwrap_or_default();
    work.say(&format!("Fetching {}{shown}", git.url)).await?;
    make_room(work, &base).await?;
    let meaning = git::meaning(version);
    let mut reference = None;
    if !meaning.references.is_empty() {
        let list = with_key(places.list(git, &meaning.references));
        let ended = work.scene.run(&list, work.log).await?.code;
        if ended != 0 && ended != NO_REFERENCE {
            let said = said(work, &complaint).await?;
            return Ok(Err(git::failed(identifier, git, &said)));
        }
        let found = said(work, &listed).await?;
        reference = git::chosen(&meaning.references, &found).map(str::to_owned);
    }
    let command = match (&reference, &meaning.commit) {
        (Some(reference), commit) => places.fetch(git, reference, commit.as_deref()),
        (None, Some(commit)) if meaning.may_be_commit => places.fetch_commit(git, commit),
        (None, _) if meaning.may_be_commit => places.fetch_commit(git, version.unwrap_or_default()),
        (None, _) => return Ok(Err(git::not_found(identifier, version))),
    };
    if work.scene.run(&with_key(command), work.log).await?.code != 0 {
        let said = said(work, &complaint).await?;
        // Everything was fetched and the commit is not in it.
        let is_unknown = reference.is_none()
            && [
                "unable to read tree",
                "not a commit",
                "did not match",
                "not our ref",
                "find remote ref",
            ]
            .iter()
            .any(|sign| said.contains(sign));
        return Ok(Err(if is_unknown {
            git::not_found(identifier, version)
        } else {
            git::failed(identifier, git, &said)
        }));
    }
    let commit = expanded(work, &places.commit()).await?;
    if !is_commit(&commit) {
        let reason = format!("it says that `{commit}` is checked out");
        return Err(Fault::new("read what git has fetched", reason));
    }
    work.say(&format!("Fetched commit {commit}")).await?;
    let tree = capture_tree(work, ground, &tree).await?;
    Ok(Ok(FetchedSource { tree, commit }))
}

/// Makes the directory in which sources are fetched.
async fn make_room(work: &mut Work<'_>, base: &Path) -> Result<(), Fault> {
    let made = format!("mkdir -p -- '{}'", base.display());
    let made = work.scene.run(&made, work.log).await?;
    if made.code != 0 {
        let reason = format!("`mkdir` ended with status {}", made.code);
        return Err(Fault::new("make room for the source", reason));
    }
    Ok(())
}

/// Stores what was checked out.
async fn capture_tree(
    work: &Work<'_>,
    ground: &Ground,
    tree: &Path,
) -> Result<protocol::blob::TreeRef, Fault> {
    let root = root_of(work, ground)?;
    let below = tree.strip_prefix(ground.root()).unwrap_or(tree);
    let from: PathBuf = root.join(below);
    let again = move || capture(&from, &Selection::All, Dialect::Plain);
    let captured = blocking("read the source that was fetched", again.clone()).await?;
    let (tree, _) = upload(work, captured, again).await?;
    Ok(tree)
}

/// What git has printed. A server can have it print what it was let in with; that is not told on.
async fn said(work: &mut Work<'_>, file: &Path) -> Result<String, Fault> {
    let said = expanded(work, &git::content(file)).await?;
    if work.holds_secret(&said) {
        return Ok("what git says of it holds a secret".to_owned());
    }
    Ok(said)
}

async fn expanded(work: &mut Work<'_>, word: &str) -> Result<String, Fault> {
    match work.scene.expand(word, work.log).await? {
        Expansion::Word(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Expansion::Failed(status) => {
            let reason = format!("it ended with status {status}");
            Err(Fault::new("read what git said", reason))
        }
        Expansion::TooLong => Err(Fault::new("read what git said", "it is too long")),
        Expansion::TimedOut => Err(Fault::new("read what git said", "it took too long")),
    }
}
