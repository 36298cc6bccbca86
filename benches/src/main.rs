//! The benchmarks: each prints a table for people or, with `--json`, one object per line.
//!
//! Figures are medians; a figure with a ceiling is measured in alternation with its floor, and judged by
//! the median of the pairs' ratios, because the machine may be shared (see `docs/benchmarks.md`).

mod batch;
mod buildspec;
mod cache;
mod clock;
mod entries;
mod farm;
mod hits;
mod noise;
mod report;
mod scheduler;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Benchmarks of Grange.
#[derive(Debug, Parser)]
#[command(name = "benches")]
struct Cli {
    /// What to measure.
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// The overhead of a build, and the upload of a tree
    Farm {
        /// Print one JSON object per line.
        #[arg(long)]
        json: bool,
        /// How many pairs to measure.
        #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(2..))]
        pairs: u32,
    },
    /// A batch on one worker and on three
    Batch {
        /// Print one JSON object per line.
        #[arg(long)]
        json: bool,
        /// How many pairs to measure; one takes half a minute.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        pairs: u32,
    },
    /// The cache: reads, writes, presence, paths, memory
    Cache {
        /// Print one JSON object per line.
        #[arg(long)]
        json: bool,
        /// Measure only this.
        #[arg(long, value_enum)]
        part: Option<cache::Part>,
        /// Of reads, writes and paths, measure only what has this in its name.
        #[arg(long, default_value = "", hide_default_value = true)]
        only: String,
        /// How much is stored to see what memory that takes, in GiB.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
        stored_gib: u64,
        /// How many pairs to measure for each figure.
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(2..))]
        pairs: u32,
    },
    /// How often the cache has what a build looks up, by the size of the cache
    Hits {
        /// Print one JSON object per line.
        #[arg(long)]
        json: bool,
        /// How many commits the history has.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(50..))]
        commits: u32,
        /// Write `hits.md` and `hits.svg` to this directory.
        #[arg(long)]
        documents: Option<PathBuf>,
    },
    /// A process of a benchmark: plays a role, in JSON
    #[command(hide = true)]
    Role {
        /// Which.
        role: String,
    },
    /// Reading and planning buildspecs, beside the YAML library alone
    Buildspec {
        /// Print one JSON object per line.
        #[arg(long)]
        json: bool,
        /// How many pairs to measure.
        #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u32).range(2..))]
        pairs: u32,
        /// A directory of real buildspecs, of which the largest is measured; without it a stand-in is.
        #[arg(long, env = "GRANGE_CORPUS")]
        corpus: Option<PathBuf>,
    },
    /// Decisions of the scheduler: 100,000 queued jobs of 50 teams on 1,000 workers
    Scheduler {
        /// Print one JSON object per line.
        #[arg(long)]
        json: bool,
        /// How often to measure what takes no more than seconds.
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(2..))]
        runs: u32,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().benchmark {
        Benchmark::Farm { json, pairs } => report::print(&farm::measure(pairs)?, json),
        Benchmark::Buildspec {
            json,
            pairs,
            corpus,
        } => report::print(&buildspec::measure(pairs, corpus.as_deref())?, json),
        Benchmark::Scheduler { json, runs } => {
            let rows = scheduler::measure(runs)?;
            report::print(&rows, json)?;
            report::enforce(&rows)
        }
        Benchmark::Cache {
            json,
            part,
            only,
            pairs,
            stored_gib,
        } => {
            let rows = cache::measure(part, (pairs, &only), stored_gib << 30)?;
            report::print(&rows, json)
        }
        Benchmark::Hits {
            json,
            commits,
            documents,
        } => {
            let measured = hits::measure(usize::try_from(commits)?, documents.as_deref())?;
            if json {
                return report::print(&measured.rows, json);
            }
            report::print_text(&measured.table);
            Ok(())
        }
        Benchmark::Role { role } => cache::play(&role),
        Benchmark::Batch { json, pairs } => report::print(&batch::measure(pairs)?, json),
    }
}
