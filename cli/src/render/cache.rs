//! How directories in the cache are shown, and what the cache knows.

use std::time::Duration;

use anyhow::Context as _;
use cache::{progress::Transfer, put::Put, verify::Verified};
use protocol::{
    attributes::Attributes,
    blob::TreeRef,
    digest::hex,
    layout::Layout,
    message::cache::{Entry, EntrySummary, Stats, UseStats},
    tree::{EntryKind, Tree},
};
use serde_json::json;

use super::{json_line, line, note, out, table::Table, text};
use crate::{
    error::CommandError,
    render::text::{at, bytes},
};

/// `grange cache put`; `wire` is what the connection sent and received, in bytes.
pub(crate) fn was_put(
    put: &Put,
    (key, wire): (Option<&str>, (u64, u64)),
    json: bool,
) -> Result<(), CommandError> {
    let moved = &put.transfer;
    let digest = hex(put.tree.tree.digest.hash());
    if json {
        return json_line(&json!({
            "digest": digest,
            "key": key,
            "files": moved.files,
            "bytes": moved.bytes,
            "files_known": put.files_known,
            "chunks": moved.chunks,
            "chunks_sent": moved.chunks_moved,
            "bytes_sent": moved.bytes_moved,
            "wire_sent": wire.0,
            "wire_received": wire.1,
        }));
    }
    note(&format!(
        "{} files, {}; {} not read, because they have not changed; sent {} in {} chunks, the rest was there",
        moved.files,
        bytes(moved.bytes),
        put.files_known,
        bytes(moved.bytes_moved),
        moved.chunks_moved,
    ));
    line(&digest)
}

/// `grange cache get`; `wire` is what the connection sent and received, in bytes.
pub(crate) fn was_got(
    tree: &TreeRef,
    (moved, wire): (&Transfer, (u64, u64)),
    json: bool,
) -> Result<(), CommandError> {
    if json {
        return json_line(&json!({
            "digest": hex(tree.tree.digest.hash()),
            "files": moved.files,
            "bytes": moved.bytes,
            "chunks": moved.chunks,
            "bytes_received": moved.bytes_moved,
            "wire_sent": wire.0,
            "wire_received": wire.1,
        }));
    }
    note(&format!(
        "{} files, {}; received {} in {} chunks",
        moved.files,
        bytes(moved.bytes),
        bytes(moved.bytes_moved),
        moved.chunks_moved,
    ));
    Ok(())
}

/// `grange cache ls`.
pub(crate) fn listed(entries: &[(String, EntrySummary)], json: bool) -> Result<(), CommandError> {
    if json {
        return entries
            .iter()
            .try_for_each(|(key, of)| json_line(&json!({"key": key, "entry": of})));
    }
    let mut table = Table::new(["KEY", "SIZE", "CHUNKS", "WRITTEN", "USED"]);
    for (key, of) in entries {
        table.row([
            key.clone(),
            bytes(of.bytes),
            of.chunks.to_string(),
            at(of.written),
            at(of.used),
        ]);
    }
    out::print(&table.text())
}

/// What a kind of entry is called, and what else there is to say of it.
fn described(kind: &EntryKind) -> (&'static str, String) {
    match kind {
        EntryKind::Directory { .. } => ("directory", String::new()),
        EntryKind::File {
            digest,
            executable: false,
        } => ("file", digest.to_string()),
        EntryKind::File {
            digest,
            executable: true,
        } => ("program", digest.to_string()),
        EntryKind::Symlink { target } => ("link", String::from_utf8_lossy(target).into_owned()),
        EntryKind::Whiteout => ("whiteout", String::new()),
        EntryKind::Fifo => ("pipe", String::new()),
        EntryKind::Device { major, minor, .. } => ("device", format!("{major}:{minor}")),
    }
}

/// `grange cache ls DIGEST`.
pub(crate) fn entries_of(
    tree: &Tree,
    attributes: &Attributes,
    json: bool,
) -> Result<(), CommandError> {
    let mut text = String::new();
    for (index, entry) in tree.entries().iter().enumerate() {
        let (kind, what) = described(&entry.kind);
        let mode = attributes.get(index).and_then(|of| of.mode);
        if json {
            let path = entry.path.to_string();
            json_line(&json!({"path": path, "kind": kind, "what": what, "mode": mode}))?;
            continue;
        }
        let mode = mode.map_or_else(|| "-".to_owned(), |mode| format!("{mode:04o}"));
        let size = match entry.kind {
            EntryKind::File { digest, .. } => bytes(digest.size()),
            EntryKind::Symlink { .. } => format!("-> {what}"),
            _ => String::new(),
        };
        // A name may hold anything, also what moves the cursor.
        let path = entry.path.to_string().escape_debug().to_string();
        text += format!("{kind:<10}{mode:<6}{path}  {size}").trim_end();
        text.push('\n');
    }
    out::print(&text)
}

/// `grange cache stat`.
pub(crate) fn stat(
    key: &str,
    entry: &Entry,
    (tree, attributes, layout): &(Tree, Attributes, Layout),
    json: bool,
) -> Result<(), CommandError> {
    let of = entry.trees.first();
    let count = |wanted: &str| {
        let kinds = tree.entries().iter().map(|entry| described(&entry.kind).0);
        kinds.filter(|kind| *kind == wanted).count()
    };
    let hard_links = attributes.entries().iter();
    let hard_links = hard_links.filter(|(_, of)| of.hard_link_to.is_some());
    let distinct: u64 = layout
        .chunks
        .iter()
        .map(protocol::digest::Digest::size)
        .sum();
    let outline = of.map_or(0, |of| {
        of.tree.digest.size() + of.attributes.digest.size() + of.layout.digest.size()
    });
    let facts = json!({
        "digest": of.map(|of| hex(of.tree.digest.hash())),
        "key": key,
        "team": entry.team,
        "trust": entry.trust,
        "written": at(entry.written),
        "entries": tree.entries().len(),
        "files": count("file") + count("program"),
        "directories": count("directory"),
        "links": count("link"),
        "hard_links": hard_links.count(),
        "bytes": tree.bytes(),
        "distinct_bytes": distinct,
        "chunks": layout.chunks.len(),
        "tree_bytes": outline,
    });
    if json {
        return json_line(&facts);
    }
    let mut text = String::new();
    for (name, value) in facts.as_object().into_iter().flatten() {
        let shown = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        text += &format!("{:<16}{shown}\n", name.replace('_', " "));
    }
    out::print(&text)
}

/// One line of `grange cache verify`.
pub(crate) fn verified(
    what: &str,
    checked: &Result<Verified, CommandError>,
    json: bool,
) -> Result<(), CommandError> {
    match checked {
        Ok(verified) if json => json_line(&json!({
            "key": what, "whole": true, "files": verified.files, "bytes": verified.bytes,
        })),
        Ok(verified) => line(&format!(
            "whole    {what}: {} files, {}",
            verified.files,
            bytes(verified.bytes)
        )),
        Err(error) if json => json_line(&json!({
            "key": what, "whole": false, "error": error.in_one_line(),
        })),
        Err(error) => line(&format!("damaged  {what}: {}", error.in_one_line())),
    }
}

/// `grange cache gc`.
pub(crate) fn collected(entries: u64, chunks: u64, stored: u64) {
    note(&format!(
        "{entries} entries and {chunks} chunks went, which took {}",
        bytes(stored)
    ));
}

/// `grange cache stats`.
pub(crate) fn stats(stats: &Stats, json: bool) -> Result<(), CommandError> {
    if json {
        let mut facts = serde_json::to_value(stats)
            .context("failed to write JSON")
            .map_err(CommandError::farm)?;
        for (facts, of) in facts["uses"]
            .as_array_mut()
            .into_iter()
            .flatten()
            .zip(&stats.uses)
        {
            facts["saved_millis"] = saved_millis(of).into();
        }
        return json_line(&facts);
    }
    let mut text = format!(
        "{} chunks, {} in {} on disk, {} free\n",
        stats.chunks,
        bytes(stats.bytes),
        bytes(stats.bytes_stored),
        bytes(stats.bytes_free),
    );
    text += &uses(&stats.uses);
    out::print(&text)
}

/// How much time restores under one key have saved: what it took to make what was restored, less the time that
/// restoring took.
const fn saved_millis(of: &UseStats) -> u64 {
    of.made_millis.saturating_sub(of.restore_millis)
}

/// The same for people, who are told where a part of it is an estimate.
fn time_saved(of: &UseStats) -> String {
    let saved = text::span(Duration::from_millis(saved_millis(of)));
    match of.estimated {
        0 => saved,
        _ => format!("about {saved}"),
    }
}

/// What dependency caches did, as a table.
pub(super) fn uses(uses: &[UseStats]) -> String {
    let mut table = Table::new([
        "TEAM",
        "PROJECT",
        "KEY",
        "HITS",
        "MISSES",
        "SAVED",
        "RESTORED",
        "IN",
        "TIME SAVED",
    ]);
    for used in uses {
        table.row([
            used.team.to_string(),
            used.project.to_string(),
            used.key.clone(),
            used.restored.to_string(),
            used.missed.to_string(),
            used.saved.to_string(),
            bytes(used.bytes_restored),
            text::span(Duration::from_millis(used.restore_millis)),
            time_saved(used),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_saved_is_what_it_took_to_make_less_the_restores_and_an_estimate_says_so() {
        let of = |made_millis, estimated| UseStats {
            team: "red".parse().unwrap(),
            project: "app".parse().unwrap(),
            key: "npm-1".to_owned(),
            restored: 2,
            missed: 1,
            saved: 1,
            bytes_restored: 1 << 30,
            restore_millis: 2_000,
            made_millis,
            estimated,
        };
        assert_eq!(time_saved(&of(62_000, 0)), "1m");
        assert_eq!(time_saved(&of(14_000, 1)), "about 12.0 s");
        assert_eq!(time_saved(&of(1_000, 0)), "0.00 s");
    }
}
