//! What is told of the end of a phase: nothing that may not be in its log.

use std::collections::BTreeMap;

use protocol::{
    job::{AttemptResult, FetchedSources},
    time::WallTime,
};

use super::Ending;
use crate::{attempt::Verdict, log::Log, phases::PhaseEnd};

/// What is reported is kept and shown as logs are, so nothing may be in it that may not be in the log.
pub(super) fn masked(mut end: PhaseEnd, log: &Log) -> PhaseEnd {
    let mask = |text: &mut String| *text = log.masked(text);
    // All fields are named, so that a new one is thought of here.
    let PhaseEnd {
        verdict,
        snapshot: _,
        artifact,
        secondary_artifacts,
        exported,
        reports,
        cache_uses,
        ended: _,
        state_lost: _,
        fetched,
    } = &mut end;
    let Verdict {
        outcome: _,
        context,
    } = verdict;
    mask(&mut context.message);
    for of in cache_uses {
        mask(&mut of.key);
        of.fallbacks.iter_mut().for_each(mask);
    }
    for artifact in artifact.iter_mut().chain(secondary_artifacts.values_mut()) {
        mask(&mut artifact.name);
    }
    for value in exported.iter_mut().flat_map(BTreeMap::values_mut) {
        mask(value);
    }
    for report in reports {
        mask(&mut report.group);
        mask(&mut report.summary);
    }
    if let Some(fetched) = fetched {
        let FetchedSources { primary, secondary } = &mut **fetched;
        for source in primary.iter_mut().chain(secondary.values_mut()) {
            mask(&mut source.commit);
        }
    }
    end
}

/// The end of a phase as the coordinator is told it.
pub(super) fn reported(
    end: PhaseEnd,
    log_bytes: u64,
    started: WallTime,
    ended: WallTime,
) -> Ending {
    Ending::Reported(Box::new(AttemptResult {
        outcome: end.verdict.outcome,
        context: end.verdict.context,
        snapshot: end.snapshot,
        artifact: end.artifact,
        secondary_artifacts: end.secondary_artifacts,
        exported: end.exported,
        reports: end.reports,
        cache_uses: end.cache_uses,
        log_bytes,
        started,
        ended,
        state_lost: end.state_lost,
        fetched: end.fetched,
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use protocol::{
        blob::{Blob, TreeRef},
        digest::Digest,
        job::{Artifact, CacheUse, CacheUseKind},
    };

    use super::*;
    use crate::secrets::Patterns;

    #[tokio::test]
    async fn what_is_reported_is_masked_whatever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::create(&folder.path().join("log")).await.unwrap();
        let secrets = [("TOKEN", &b"hunter2"[..])].into_iter();
        log.mask(&Arc::new(Patterns::new(secrets, 4).unwrap()))
            .await;
        let text = || "a hunter2".to_owned();
        let blob = || Blob {
            digest: Digest::of(b""),
            chunks: Vec::new(),
        };
        let artifact = || Artifact {
            name: text(),
            tree: TreeRef {
                tree: blob(),
                attributes: blob(),
                layout: blob(),
            },
            files: 1,
            bytes: 1,
        };
        let end = PhaseEnd {
            artifact: Some(artifact()),
            secondary_artifacts: [("other".to_owned(), artifact())].into(),
            exported: Some([("URL".to_owned(), text())].into()),
            cache_uses: vec![CacheUse {
                key: text(),
                fallbacks: vec![text()],
                what: CacheUseKind::Missed,
                bytes: 0,
                bytes_moved: 0,
                millis: 0,
            }],
            ..PhaseEnd::new(Verdict::client_error(text()))
        };
        let shown = format!("{:?}", masked(end, &log));
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(shown.matches("a ***").count(), 6, "{shown}");
    }
}
