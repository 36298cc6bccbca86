//! Hit rates for documents: a table as Markdown, curves as SVG.

use std::fmt::Write as _;

use super::{AtSize, Counts, Rates, percent};
use crate::eviction::Measure;

/// The size of the chart, and of its margins, in pixels.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
const MARGIN: f64 = 48.0;
/// How far apart the lines of the legend are, in pixels.
const LINE: f64 = 16.0;
/// The colours of curves: of the bound, and of what chooses the victims, in turn.
const BOUND_COLOR: &str = "#c0a000";
const COLORS: [&str; 4] = ["#0050b0", "#b02020", "#208040", "#806090"];
/// How the levels of a curve are drawn: as SVG's dashes.
const DASHES: [&str; 3] = ["none", "6 3", "2 3"];

/// Caches of several sizes, and what they are called.
#[derive(Clone, Copy, Debug)]
pub struct Chart<'a> {
    /// The smallest first.
    pub sizes: &'a [AtSize],
    /// What a cache of so many bytes is called.
    pub name: fn(u64) -> String,
}

/// A curve, in percent by size.
struct Curve {
    /// What the legend calls it; of several with one name the first is in it.
    name: &'static str,
    color: &'static str,
    dashes: &'static str,
    values: Vec<f64>,
}

impl Chart<'_> {
    /// A table of all measures, in percent of all lookups.
    pub fn table(&self) -> String {
        let mut text = "| cache | eviction | requests, exact | with fallback | with any chunk | bytes, exact | with fallback | with chunks | seconds, exact | with fallback | with chunks |\n\
             |--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
            .to_owned();
        for size in self.sizes {
            let name = (self.name)(size.bytes);
            for (eviction, rates) in &size.rates {
                text += &row(&name, eviction, |measure| levels(rates, measure).to_vec());
            }
            let all = size.rates.first().map(|(_, rates)| rates.all);
            let all = all.unwrap_or_default();
            text += &row(&name, "bound", |measure| {
                vec![percent(size.bound.of(measure), all.of(measure))]
            });
        }
        text
    }

    /// Curves of one measure, for the evictions of these names: exact hits in full, with fallback keys
    /// dashed, with chunks dotted, the last two where they are others.
    pub fn curves(&self, measure: Measure, evictions: &[&'static str]) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        svg += &self.axes();
        let curves = self.drawn(measure, evictions);
        let mut legend = Vec::new();
        for curve in &curves {
            let points = curve.values.iter().enumerate();
            let points = points.map(|(at, &value)| format!("{:.0},{:.0}", self.x(at), y(value)));
            let points: Vec<String> = points.collect();
            let line = format!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\" stroke-dasharray=\"{}\"/>\n",
                points.join(" "),
                curve.color,
                curve.dashes
            );
            svg += &line;
            if !legend.contains(&(curve.name, curve.color)) {
                legend.push((curve.name, curve.color));
            }
        }
        legend.push((
            "exact; dashed: with fallback keys; dotted: with chunks",
            "black",
        ));
        for (number, (name, color)) in legend.iter().enumerate() {
            let y = LINE * as_float(number + 1);
            // Writing to a text does not fail.
            let _written = writeln!(
                svg,
                "<text x=\"{:.0}\" y=\"{y:.0}\" fill=\"{color}\" text-anchor=\"end\">{name}</text>",
                WIDTH - 8.0
            );
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn axes(&self) -> String {
        let mut svg = String::new();
        for percent in [0.0, 20.0, 40.0, 60.0, 80.0, 100.0] {
            let y = y(percent);
            let _written = writeln!(
                svg,
                "<path d=\"M{MARGIN} {y:.0}H{:.0}\" stroke=\"#dddddd\"/><text x=\"8\" y=\"{y:.0}\">{percent} %</text>",
                WIDTH - MARGIN
            );
        }
        for (at, size) in self.sizes.iter().enumerate() {
            let _written = writeln!(
                svg,
                "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
                self.x(at),
                HEIGHT - MARGIN / 3.0,
                (self.name)(size.bytes)
            );
        }
        svg
    }

    fn drawn(&self, measure: Measure, evictions: &[&'static str]) -> Vec<Curve> {
        let bound = |size: &AtSize| {
            let all = size.rates.first().map(|(_, rates)| rates.all);
            percent(size.bound.of(measure), all.unwrap_or_default().of(measure))
        };
        let mut curves = vec![Curve {
            name: "bound",
            color: BOUND_COLOR,
            dashes: DASHES[0],
            values: self.sizes.iter().map(bound).collect(),
        }];
        for (&name, color) in evictions.iter().zip(COLORS.into_iter().cycle()) {
            let rates = self.sizes.iter().filter_map(|size| size.of(name));
            let rates: Vec<[f64; 3]> = rates.map(|rates| levels(rates, measure)).collect();
            let mut before: Vec<f64> = Vec::new();
            for (level, dashes) in DASHES.into_iter().enumerate() {
                let values: Vec<f64> = rates.iter().map(|levels| levels[level]).collect();
                if values != before {
                    before.clone_from(&values);
                    curves.push(Curve {
                        name,
                        color,
                        dashes,
                        values,
                    });
                }
            }
        }
        curves
    }

    fn x(&self, at: usize) -> f64 {
        let steps = as_float(self.sizes.len().saturating_sub(1)).max(1.0);
        MARGIN + (WIDTH - 2.0 * MARGIN) * as_float(at) / steps
    }
}

/// Exact, with fallback keys, with chunks: in percent of all.
fn levels(rates: &Rates, measure: Measure) -> [f64; 3] {
    let share = |counts: Counts| percent(counts.of(measure), rates.all.of(measure));
    [rates.exact, rates.with_fallbacks, rates.with_chunks].map(share)
}

/// A row of the table: what there is of each measure; what there is not stays empty.
fn row(name: &str, eviction: &str, figures: impl Fn(Measure) -> Vec<f64>) -> String {
    let mut text = format!("| {name} | {eviction}");
    for measure in Measure::ALL {
        let figures = figures(measure);
        for level in 0..DASHES.len() {
            let figure = figures.get(level);
            let figure = figure.map_or_else(String::new, |figure| format!("{figure:.1}"));
            let _written = write!(text, " | {figure}");
        }
    }
    text.push_str(" |\n");
    text
}

/// The legend is above the curves.
fn y(percent: f64) -> f64 {
    HEIGHT - MARGIN - (HEIGHT - 3.0 * MARGIN) * percent / 100.0
}

fn as_float(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
