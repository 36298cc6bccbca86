//! How hit rates are shown.

use std::collections::BTreeSet;

use ::cache::{
    eviction::Measure,
    hits::{AtSize, Chart, Counts, Eviction, Rates, distinct_bytes, percent},
};
use serde_json::{Value, json};

use super::{bytes, json_line, out, table::Table};
use crate::{
    error::CommandError,
    history::{History, Simulated, Supposed},
};

/// What lookups are of, in JSON.
const DEPENDENCIES: &str = "dependencies";
const SOURCES: &str = "sources";
/// The measures, as JSON calls them.
const MEASURES: [(&str, Measure); 3] = [
    ("requests", Measure::Requests),
    ("bytes", Measure::Bytes),
    ("millis", Measure::Millis),
];
/// Whose curves are drawn.
const DRAWN: [&str; 3] = [
    Eviction::Chosen.name(),
    Eviction::Lru.name(),
    Eviction::Clairvoyant.name(),
];

/// `grange bench hits`.
pub(crate) fn hits(history: &History, supposed: Supposed, json: bool) -> Result<(), CommandError> {
    let parts = [
        (DEPENDENCIES, &history.dependencies),
        (SOURCES, &history.sources),
    ];
    if json {
        for (of, part) in parts {
            json_line(&head_json(of, part, history, supposed))?;
            for size in &part.sizes {
                rows_json(of, size).iter().try_for_each(json_line)?;
            }
        }
        return Ok(());
    }
    out::print(&format!("{}\n\n", about_dependencies(history, supposed)))?;
    out::print(&table(&history.dependencies))?;
    out::print(&format!("\n{}\n\n", about_sources(history)))?;
    out::print(&table(&history.sources))
}

fn head_json(of: &str, part: &Simulated, history: &History, supposed: Supposed) -> Value {
    let mut head = json!({
        "of": of,
        "commits": history.commits,
        "lookups": part.lookups.len(),
        "entries": entries(part),
        "bytes": distinct_bytes(&part.lookups),
        "is_supposed": of == DEPENDENCIES,
    });
    if of == DEPENDENCIES {
        head["unusable"] = history.unusable.into();
        head["unread"] = json!(history.unread);
        head["unhashed"] = history.unhashed.into();
        head["entry_bytes"] = supposed.bytes.into();
        head["entry_millis"] = supposed.made_millis.into();
    }
    head
}

/// How many different entries are looked up.
fn entries(part: &Simulated) -> usize {
    let keys = part.lookups.iter().map(|lookup| lookup.key.as_str());
    keys.collect::<BTreeSet<_>>().len()
}

/// An object for each of what chooses the victims, and one for the bound.
fn rows_json(of: &str, size: &AtSize) -> Vec<Value> {
    let row = |eviction: &str| json!({"of": of, "cache_bytes": size.bytes, "eviction": eviction});
    let figures = |rates: &Rates, measure| {
        json!({
            "all": rates.all.of(measure),
            "exact": rates.exact.of(measure),
            "with_fallbacks": rates.with_fallbacks.of(measure),
            "with_chunks": rates.with_chunks.of(measure),
        })
    };
    let mut rows = Vec::new();
    for (eviction, rates) in &size.rates {
        let mut simulated = row(eviction);
        for (name, measure) in MEASURES {
            simulated[name] = figures(rates, measure);
        }
        rows.push(simulated);
    }
    let mut bound = row("bound");
    for (name, measure) in MEASURES {
        bound[name] = json!({"exact": size.bound.of(measure)});
    }
    rows.push(bound);
    rows
}

fn table(part: &Simulated) -> String {
    let mut table = Table::new([
        "CACHE",
        "EVICTION",
        "REQUESTS",
        "+FALLBACK",
        "+ANY CHUNK",
        "BYTES",
        "+FALLBACK",
        "+CHUNKS",
        "SECONDS",
        "+FALLBACK",
        "+CHUNKS",
    ]);
    for size in &part.sizes {
        for (eviction, rates) in &size.rates {
            let figures = MEASURES.map(|(_, measure)| {
                let share = |counts: Counts| share(counts, rates.all, measure);
                [rates.exact, rates.with_fallbacks, rates.with_chunks].map(share)
            });
            table.row(cells(size, eviction, figures));
        }
        let all = size.rates.first().map(|(_, rates)| rates.all);
        let bound = MEASURES.map(|(_, measure)| {
            let exact = share(size.bound, all.unwrap_or_default(), measure);
            [exact, "-".to_owned(), "-".to_owned()]
        });
        table.row(cells(size, "bound", bound));
    }
    table.text()
}

fn cells(size: &AtSize, eviction: &str, figures: [[String; 3]; 3]) -> [String; 11] {
    let names = [bytes(size.bytes), eviction.to_owned()].into_iter();
    let mut cells = names.chain(figures.into_iter().flatten());
    std::array::from_fn(|_| cells.next().unwrap_or_default())
}

fn share(counts: Counts, all: Counts, measure: Measure) -> String {
    format!("{:.1} %", percent(counts.of(measure), all.of(measure)))
}

fn about_dependencies(history: &History, supposed: Supposed) -> String {
    let part = &history.dependencies;
    let mut text = "Dependency caches: ".to_owned();
    if part.lookups.is_empty() {
        text += "no commit looks one up.";
    } else {
        text += &format!(
            "{} of {} commits look one up, {} entries in all, which share what they can and have {} together. Nothing \
             was built, so this is supposed: the newest entry has {} and saves {} s; others are in proportion to the \
             lines of the files that their keys are made of, and share the lines that they have in common.",
            part.lookups.len(),
            history.commits,
            entries(part),
            bytes(distinct_bytes(&part.lookups)),
            bytes(supposed.bytes),
            supposed.made_millis / 1000,
        );
    }
    if 0 < history.unusable {
        text += &format!(
            " {} could use none: no file matches what their key is made of.",
            history.unusable
        );
    }
    if 0 < history.unhashed {
        text += &format!(
            " {} look up a key that is made of no files: what changes in its entry is not known, and counts as the same.",
            history.unhashed
        );
    }
    for key in &history.unread {
        text += &format!(
            " Only a shell can expand all of the key `{key}`: what it would do counts as it is written."
        );
    }
    text
}

fn about_sources(history: &History) -> String {
    let part = &history.sources;
    format!(
        "Source trees: {} of {} commits, whose files have {} together, each counted once. This is measured; the \
         seconds are those that it takes to send at 10 MB/s what is not there.",
        entries(part),
        history.commits,
        bytes(distinct_bytes(&part.lookups)),
    )
}

fn chart(part: &Simulated) -> Chart<'_> {
    Chart {
        sizes: &part.sizes,
        name: bytes,
    }
}

/// The section of the documents, and its charts, by file names.
pub(crate) fn hits_documents(history: &History, supposed: Supposed) -> [(&'static str, String); 3] {
    let (dependencies, sources) = (chart(&history.dependencies), chart(&history.sources));
    let head = history.head.get(..12).unwrap_or(&history.head);
    let text = format!(
        "# Hit rates of a repository\n\n\
        Written by `grange bench hits --repo {} --commits {} --buildspec FILE --entry-bytes {} --entry-seconds {}\n\
        --documents docs`, up to the commit `{head}`, the oldest first. Nothing was built: keys and fallback keys are\n\
        what the buildspec's `cache` section (or, without one, the lock files) says for the tree of each commit,\n\
        replayed through simulated caches.\n\n\
        In percent of all lookups. *With fallback*: another entry did, which a fallback key begins; it counts for what\n\
        both have. *With chunks*: what was there at all, in whatever entries; a request counts as soon as anything of it\n\
        was (*any chunk*), and of the seconds it is what a build would save that made only what is new. Caches have room\n\
        for a quarter of the largest entry to everything. The offline optimum is between the clairvoyant (for each figure\n\
        by itself Belady's rule with sizes and costs, or what did better of the others) and the bound (PFOO-L, of exact\n\
        hits; of the rest no such bound is known).\n\n\
        ## Dependency caches\n\n{}\n\n{}\n![Seconds saved against the size of the cache](hits-repository.svg)\n\n\
        ## Source trees\n\n{}\n\n{}\n![Bytes that were there against the size of the cache](hits-repository-sources.svg)\n",
        history.repository,
        history.commits,
        supposed.bytes,
        supposed.made_millis / 1000,
        about_dependencies(history, supposed),
        dependencies.table(),
        about_sources(history),
        sources.table(),
    );
    [
        ("hits-repository.md", text),
        (
            "hits-repository.svg",
            dependencies.curves(Measure::Millis, &DRAWN),
        ),
        (
            "hits-repository-sources.svg",
            sources.curves(Measure::Bytes, &DRAWN),
        ),
    ]
}
