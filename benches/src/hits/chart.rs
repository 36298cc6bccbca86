//! The table and the curves of hit rates, for the documents.

use std::fmt::Write as _;

use super::{CHUNK_BYTES, Replayed, history::Step, size_name};
use crate::entries::percent;

/// The size of the chart, and of its margins, in pixels.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const MARGIN: f64 = 48.0;

/// The table, as Markdown.
pub(crate) fn table(steps: &[Step], all: &[Replayed]) -> String {
    let bytes: u64 = steps.iter().map(|step| step.chunks.len() as u64).sum();
    let mut text = format!(
        "# Hit rates\n\nWritten by `cargo run --release -p benches -- hits --documents docs`.\n\n\
        A history from a seed: {} lookups of {} MiB in all, by builds of nine projects of three teams with\n\
        branches, lock files that change in 5 % of commits, builds of what was built, and entries that nobody\n\
        asks for again; each looks up its dependencies by the lock file and its objects by the tree, and puts\n\
        what was not there. A real cache server of each size; `all` has room for everything. *Fallback*: another\n\
        entry of the same project did, which counts for the part of its chunks that are the same. *Chunks*: the\n\
        entry was not there, but those of its chunks were.\n\n",
        steps.len(),
        (bytes * CHUNK_BYTES) >> 20,
    );
    text.push_str(
        "| cache | requests, exact | with fallback | bytes, exact | with chunks | seconds, exact | with fallback |\n\
         |--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for one in all {
        let exact = &one.exact;
        let figures = [
            percent(exact.hits, exact.requests),
            percent(exact.hits + one.fallbacks, exact.requests),
            percent(exact.hit_bytes, exact.bytes),
            percent(exact.hit_bytes + one.chunks_there, exact.bytes),
            percent(exact.saved_millis, exact.millis),
            percent(exact.saved_millis + one.fallback_millis, exact.millis),
        ];
        line(&mut text, &size_name(one.budget), &figures);
    }
    text.push_str(
        "\nSeconds saved by exact hits, in percent of all, by what chooses the victims. The others are simulated with\n\
         as many bytes of entries as the server had of them; that it keeps chunks once which several entries have is\n\
         in that number for all. The optimum is between the clairvoyant (Belady's rule with sizes and costs) and the\n\
         bound (PFOO-L).\n\n\
         | cache | entries, MiB | server | LRU | S3-FIFO | greedy dual | chosen | clairvoyant | bound |\n\
         |--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for one in all {
        let name = format!("{} | {}", size_name(one.budget), one.entries_bytes >> 20);
        let mut figures = vec![percent(one.exact.saved_millis, one.exact.millis)];
        figures.extend(one.simulated);
        line(&mut text, &name, &figures);
    }
    text.push_str("\n![Seconds saved against the size of the cache](hits.svg)\n");
    text
}

fn line(text: &mut String, name: &str, figures: &[f64]) {
    text.push_str("| ");
    text.push_str(name);
    for figure in figures {
        // Writing to a text does not fail.
        let _written = write!(text, " | {figure:.1}");
    }
    text.push_str(" |\n");
}

/// The curves of seconds saved, as SVG.
pub(crate) fn curves(all: &[Replayed]) -> String {
    let served = |one: &Replayed| percent(one.exact.saved_millis, one.exact.millis);
    let with_fallback = |one: &Replayed| {
        percent(
            one.exact.saved_millis + one.fallback_millis,
            one.exact.millis,
        )
    };
    let curves: [(&str, &str, Vec<f64>); 5] = [
        (
            "with fallback keys",
            "#888888",
            all.iter().map(with_fallback).collect(),
        ),
        (
            "bound",
            "#c0a000",
            all.iter().map(|one| one.simulated[5]).collect(),
        ),
        (
            "clairvoyant",
            "#d06000",
            all.iter().map(|one| one.simulated[4]).collect(),
        ),
        ("served", "#0050b0", all.iter().map(served).collect()),
        (
            "LRU",
            "#b02020",
            all.iter().map(|one| one.simulated[0]).collect(),
        ),
    ];
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    for percent in [0, 20, 40, 60, 80, 100] {
        let y = y_of(f64::from(percent));
        let _written = writeln!(
            svg,
            "<path d=\"M{MARGIN} {y:.0}H{:.0}\" stroke=\"#dddddd\"/><text x=\"8\" y=\"{y:.0}\">{percent} %</text>",
            WIDTH - MARGIN
        );
    }
    for (at, one) in all.iter().enumerate() {
        let _written = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            x_of(at, all.len()),
            HEIGHT - MARGIN / 3.0,
            size_name(one.budget)
        );
    }
    for (number, (name, color, values)) in curves.iter().enumerate() {
        let points = values.iter().enumerate();
        let points =
            points.map(|(at, &value)| format!("{:.0},{:.0}", x_of(at, all.len()), y_of(value)));
        let points: Vec<String> = points.collect();
        let y = HEIGHT - 2.0 * MARGIN - 16.0 * x_number(number);
        let _written = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>\n\
             <text x=\"{:.0}\" y=\"{y:.0}\" fill=\"{color}\" text-anchor=\"end\">{name}</text>",
            points.join(" "),
            WIDTH - MARGIN - 8.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn x_of(at: usize, count: usize) -> f64 {
    let steps = x_number(count.saturating_sub(1)).max(1.0);
    MARGIN + (WIDTH - 2.0 * MARGIN) * x_number(at) / steps
}

fn y_of(percent: f64) -> f64 {
    HEIGHT - MARGIN - (HEIGHT - 2.0 * MARGIN) * percent / 100.0
}

fn x_number(number: usize) -> f64 {
    f64::from(u32::try_from(number).expect("there are few"))
}
