//! Results of attempts, cut to what is kept of them: workers say what commands have printed, and the journal,
//! the memory and every answer hold it for as long as the build is known.

use std::collections::BTreeMap;

use protocol::{
    build::{Outcome, PhaseContext},
    cache_spec::FALLBACK_KEYS_MAX,
    job::{AttemptResult, EXPORTED_BYTES_MAX, SECONDARY_ARTIFACTS_MAX},
    message::work::LOG_BYTES_MAX,
    report_group::REPORTS_MAX,
};

/// How long the reason of an outcome may be, in bytes: a command line and what became of it.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// How long a code, a key and the name of an artifact may be, in bytes.
const NAME_BYTES_MAX: usize = 1024;
/// How many uses of dependency caches one phase has: it restores or saves one.
const CACHE_USES_MAX: usize = 16;
/// How many chunks each of the few blobs of a result may have: they describe trees, and the largest that a
/// cache takes has a fraction of this.
const CHUNKS_MAX: usize = 8 * 1024;
/// How large an artifact may say it is, in bytes: more than any disk of a worker holds.
const ARTIFACT_BYTES_MAX: u64 = 1 << 40;
/// How large what a report says may be, in bytes: the chunks that it may have, each of the largest size.
const REPORT_BYTES_MAX: u64 = CHUNKS_MAX as u64 * 2 * 1024 * 1024;

/// Why a result is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum NoResult {
    /// It names too many chunks.
    #[error("the worker's result names more than {CHUNKS_MAX} chunks")]
    TooManyChunks,
    /// It says of something that it is larger than any can be: what builds keep is counted by it.
    #[error(
        "the worker's result has an artifact, a report or a log that is larger than any can be"
    )]
    TooLarge,
}

/// Cuts the texts of a result; what is left out is marked.
///
/// # Errors
///
/// If it names more chunks than any result has, or larger things: without them it would mean something else.
pub(super) fn bounded(mut result: AttemptResult) -> Result<AttemptResult, NoResult> {
    while SECONDARY_ARTIFACTS_MAX < result.secondary_artifacts.len() {
        result.secondary_artifacts.pop_last();
    }
    let artifacts = result.artifact.iter();
    let artifacts = artifacts.chain(result.secondary_artifacts.values());
    let artifacts = artifacts.map(|artifact| &artifact.tree);
    let fetched = result.fetched.iter().flat_map(|fetched| {
        let all = fetched.primary.iter().chain(fetched.secondary.values());
        all.map(|source| &source.tree)
    });
    let trees = artifacts.chain(fetched);
    let of_tree = trees.map(|tree| [&tree.tree, &tree.attributes, &tree.layout]);
    let reports = result.reports.iter().map(|report| &report.content);
    let blobs = of_tree.flatten().chain(&result.snapshot);
    let blobs = blobs.chain(reports);
    let most = blobs.map(|blob| blob.chunks.len()).max();
    if most.is_some_and(|chunks| CHUNKS_MAX < chunks) {
        return Err(NoResult::TooManyChunks);
    }
    let artifacts = result.artifact.iter();
    let artifacts = artifacts.chain(result.secondary_artifacts.values());
    let artifact = artifacts.map(|artifact| artifact.bytes).max();
    let artifact = artifact.unwrap_or(0);
    let mut reports = result.reports.iter();
    let is_large = reports.any(|report| REPORT_BYTES_MAX < report.content.digest.size());
    if is_large || ARTIFACT_BYTES_MAX < artifact || LOG_BYTES_MAX < result.log_bytes {
        return Err(NoResult::TooLarge);
    }
    cut(&mut result.context.message, MESSAGE_BYTES_MAX);
    cut(&mut result.context.status_code, NAME_BYTES_MAX);
    result.cache_uses.truncate(CACHE_USES_MAX);
    for used in &mut result.cache_uses {
        cut(&mut used.key, NAME_BYTES_MAX);
        used.fallbacks.truncate(FALLBACK_KEYS_MAX);
        for fallback in &mut used.fallbacks {
            cut(fallback, NAME_BYTES_MAX);
        }
    }
    result.reports.truncate(REPORTS_MAX);
    for report in &mut result.reports {
        cut(&mut report.group, NAME_BYTES_MAX);
        cut(&mut report.format, NAME_BYTES_MAX);
        cut(&mut report.summary, NAME_BYTES_MAX);
    }
    let artifacts = result.artifact.iter_mut();
    for artifact in artifacts.chain(result.secondary_artifacts.values_mut()) {
        cut(&mut artifact.name, NAME_BYTES_MAX);
    }
    if let Some(exported) = &mut result.exported {
        let mut left = EXPORTED_BYTES_MAX;
        exported.retain(|name, value| {
            let fits = left.checked_sub(name.len() + value.len());
            left = fits.unwrap_or(0);
            fits.is_some()
        });
    }
    Ok(result)
}

/// What is left of a result that cannot be taken: a fault of the worker's, with the reason. So the phase runs
/// again elsewhere, and the worker is told that it has said it; if it was sent away, it would come back and say the
/// same.
pub(super) fn fault(result: AttemptResult, why: String) -> AttemptResult {
    let context = match result.outcome {
        Outcome::Fault => result.context,
        _ => PhaseContext {
            status_code: "WORKER_FAULT".to_owned(),
            message: why,
        },
    };
    AttemptResult {
        outcome: Outcome::Fault,
        context,
        snapshot: None,
        artifact: None,
        secondary_artifacts: BTreeMap::new(),
        exported: None,
        reports: Vec::new(),
        cache_uses: Vec::new(),
        log_bytes: 0,
        fetched: None,
        ..result
    }
}

/// Cuts a text to `max` bytes at most, the mark included.
fn cut(text: &mut String, max: usize) {
    const MARK: char = '…';
    if text.len() <= max {
        return;
    }
    let room = max - MARK.len_utf8();
    let end = (0..=room).rev().find(|&at| text.is_char_boundary(at));
    text.truncate(end.unwrap_or(0));
    text.push(MARK);
}

#[cfg(test)]
mod tests {
    use protocol::{
        blob::{Blob, TreeRef},
        digest::Digest,
        job::{Artifact, CacheUse, CacheUseKind},
        time::WallTime,
    };

    use super::*;

    fn result(message: &str, uses: usize, chunks: usize) -> AttemptResult {
        let used = CacheUse {
            key: message.to_owned(),
            fallbacks: vec![message.to_owned()],
            what: CacheUseKind::Missed,
            bytes: 1,
            bytes_moved: 1,
            millis: 1,
        };
        AttemptResult {
            outcome: Outcome::Failed,
            context: PhaseContext {
                status_code: "X".to_owned(),
                message: message.to_owned(),
            },
            snapshot: Some(Blob {
                digest: Digest::of(b""),
                chunks: vec![Digest::of(b""); chunks],
            }),
            artifact: None,
            secondary_artifacts: Default::default(),
            exported: None,
            reports: Vec::new(),
            cache_uses: vec![used; uses],
            log_bytes: 0,
            started: WallTime(1),
            ended: WallTime(2),
            state_lost: false,
            fetched: None,
        }
    }

    #[test]
    fn an_ordinary_result_is_left_as_it_is_and_a_huge_one_is_cut_at_a_character() {
        let ordinary = result("make: error 2", 2, 3);
        assert_eq!(bounded(ordinary.clone()), Ok(ordinary));
        let mut huge = result(&"ä".repeat(1 << 12), 1_000, 3);
        huge.cache_uses[0].fallbacks = vec!["ä".repeat(1 << 12); 100];
        let huge = bounded(huge).unwrap();
        let message = &huge.context.message;
        assert!(
            message.len() <= MESSAGE_BYTES_MAX && message.ends_with("ä…"),
            "{message}"
        );
        assert_eq!(huge.cache_uses.len(), CACHE_USES_MAX);
        assert!(huge.cache_uses[0].key.len() <= NAME_BYTES_MAX);
        let fallbacks = &huge.cache_uses[0].fallbacks;
        assert_eq!(fallbacks.len(), FALLBACK_KEYS_MAX);
        assert!(fallbacks.iter().all(|key| key.len() <= NAME_BYTES_MAX));
        let many = bounded(result("", 0, CHUNKS_MAX + 1));
        assert_eq!(many, Err(NoResult::TooManyChunks));
    }

    #[test]
    fn a_result_that_says_it_is_larger_than_any_can_be_is_refused() {
        let largest = AttemptResult {
            log_bytes: LOG_BYTES_MAX,
            artifact: Some(artifact(ARTIFACT_BYTES_MAX)),
            ..result("", 0, 0)
        };
        assert_eq!(bounded(largest.clone()), Ok(largest.clone()));
        for too_large in [
            AttemptResult {
                log_bytes: LOG_BYTES_MAX + 1,
                ..largest.clone()
            },
            AttemptResult {
                artifact: Some(artifact(u64::MAX)),
                ..largest
            },
        ] {
            assert_eq!(bounded(too_large), Err(NoResult::TooLarge));
        }
    }

    fn artifact(bytes: u64) -> Artifact {
        let blob = || Blob {
            digest: Digest::of(b""),
            chunks: Vec::new(),
        };
        Artifact {
            name: "app".to_owned(),
            tree: TreeRef {
                tree: blob(),
                attributes: blob(),
                layout: blob(),
            },
            files: 1,
            bytes,
        }
    }
}
