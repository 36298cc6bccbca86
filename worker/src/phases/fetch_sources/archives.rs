//! Fetches an archive, and stores what is in it.

use std::path::Path;

use protocol::{
    archive::{ArchiveSource, is_sha256},
    job::FetchedSource,
};

use super::{PLACE, Work, capture_tree, make_room, said};
use crate::{
    archive::{self, Failure},
    fault::Fault,
    ground::Ground,
    site::Site,
};

/// Why an archive is not fetched at all; `None`: it may be.
pub(super) fn refused(site: &Site, archive: &ArchiveSource) -> Option<String> {
    let protocol = match archive.check().and_then(|_| archive.protocol()) {
        Ok(protocol) => protocol,
        Err(error) => return Some(error.to_string()),
    };
    let allowed = &site.archive_protocols;
    let is_allowed = allowed.iter().any(|allowed| allowed == protocol);
    (!is_allowed).then(|| {
        let why = format!(
            "worker's owner does not let it fetch over `{protocol}`, only over {}",
            allowed.join(", ")
        );
        archive::failed(&archive.url, &why)
    })
}

/// Fetches and unpacks an archive; or says why it cannot be had. `program` is this one, as the sandbox has it.
pub(super) async fn fetch(
    work: &mut Work<'_>,
    (ground, program): (&Ground, &Path),
    source: &ArchiveSource,
) -> Result<Result<FetchedSource, String>, Fault> {
    let failed = |why: &str| Ok(Err(archive::failed(&source.url, why)));
    let format = match source.check() {
        Ok(format) => format,
        Err(error) => return failed(&error.to_string()),
    };
    work.say(&format!("Fetching {}", source.url)).await?;
    let base = ground.root().join(PLACE);
    make_room(work, &base).await?;
    let [file, complaint, hashed, tree] =
        ["archive", "said-archive", "hash", "unpacked"].map(|name| base.join(name));
    let protocols = &work.site.archive_protocols;
    let download = archive::download(&source.url, (&file, &complaint), protocols);
    let status = work.scene.run(&download, work.log).await?.code;
    if status != 0 {
        let said = said(work, &complaint).await?;
        return told(source, "fetch", archive::not_downloaded(status, &said));
    }
    let hash = archive::hash(&file, (&hashed, &complaint));
    let status = work.scene.run(&hash, work.log).await?.code;
    let printed = said(work, &hashed).await?;
    let sum = printed.split_whitespace().next().unwrap_or_default();
    if status != 0 || !is_sha256(sum) {
        let reason = format!("`sha256sum` ended with status {status}");
        return Err(Fault::new("read the archive", reason));
    }
    if let Some(wanted) = source.sha256.as_ref().filter(|wanted| *wanted != sum) {
        return failed(&format!("its SHA-256 is {sum}, and not {wanted}"));
    }
    work.say(&format!("Fetched archive with SHA-256 {sum}"))
        .await?;
    let places = (file.as_path(), tree.as_path());
    let unpack = archive::unpacking(program, places, (format, &complaint));
    let status = work.scene.run(&unpack, work.log).await?.code;
    if status != 0 {
        let said = said(work, &complaint).await?;
        return told(source, "unpack", archive::not_unpacked(status, &said));
    }
    let tree = capture_tree(work, ground, &tree).await?;
    Ok(Ok(FetchedSource {
        tree,
        commit: String::new(),
    }))
}

/// Whose doing it is that an archive cannot be had.
fn told(
    source: &ArchiveSource,
    tried: &str,
    failure: Failure,
) -> Result<Result<FetchedSource, String>, Fault> {
    match failure {
        Failure::Refused(why) => Ok(Err(archive::failed(&source.url, &why))),
        Failure::Trouble(why) => Err(Fault::new(format!("{tried} the archive"), why)),
    }
}
