//! The timeline as SVG: replies per second and p99 by rung, and what the log holds that the ledger
//! does not, over one axis of time with the outage shaded.
//!
//! Each chart is drawn twice, wide and narrow, with text of the same size, and the page shows the
//! one that fits. Colours are the page's, so that they follow the reader's light or dark choice.
//! Nothing is loaded and nothing runs.

#![allow(
    clippy::float_arithmetic,
    reason = "pixels; the figures themselves are integers or were computed elsewhere"
)]

use super::{Shade, Tick};

/// Rungs in the order in which they are stacked.
pub(super) const RUNGS: [&str; 6] = [
    "primary",
    "stand_in",
    "primary_only",
    "isolated",
    "bank",
    "refused",
];

/// Widths of the two drawings, in pixels.
const WIDTHS: [(&str, f64); 2] = [("wide", 960.0), ("narrow", 342.0)];
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 24.0;

/// A chart, drawn for wide and narrow pages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chart {
    /// What it shows.
    pub title: &'static str,
    /// The same in a sentence with numbers.
    pub caption: String,
    /// Class of each series and its name.
    pub legend: Vec<&'static str>,
    /// The drawings, one after the other; the page shows one.
    pub svg: String,
}

/// One line or area: a class and a value a tick.
struct Series {
    class: &'static str,
    /// Lower edge; a line has none.
    base: Option<Vec<f64>>,
    values: Vec<Option<f64>>,
}

struct Axis {
    tick_ms: f64,
    ticks: f64,
    /// Its end is now; else its begin is when something began.
    ends_now: bool,
}

/// The three charts of a timeline; none without ticks.
pub(super) fn charts(timeline: &[Tick], shades: &[Shade]) -> Vec<Chart> {
    let Some(axis) = Axis::of(timeline) else {
        return Vec::new();
    };
    vec![
        rate(timeline, shades, &axis),
        latency(timeline, shades, &axis),
        backlog(timeline, shades, &axis),
    ]
}

/// Rate and latency of a timeline that ends now, labelled in minutes before it.
pub fn recent(timeline: &[Tick], shades: &[Shade]) -> Vec<Chart> {
    let Some(axis) = Axis::of(timeline) else {
        return Vec::new();
    };
    let axis = Axis {
        ends_now: true,
        ..axis
    };
    vec![
        rate(timeline, shades, &axis),
        latency(timeline, shades, &axis),
    ]
}

/// Money approved without the primary: minor units at the end of each tick of the timeline.
pub(super) fn exposure(
    timeline: &[Tick],
    minor: &[i64],
    currency: &str,
    shades: &[Shade],
) -> Option<Chart> {
    let axis = Axis::of(timeline)?;
    let most = minor.iter().copied().max().unwrap_or(0);
    // In major units; a chart is read to three digits.
    let major = |minor: &i64| number(u64::try_from(*minor).unwrap_or(0)) / 100.0;
    let values: Vec<Option<f64>> = timeline
        .iter()
        .enumerate()
        .map(|(at, _)| minor.get(at).map(major))
        .collect();
    let series = Series {
        class: "backlog",
        base: Some(vec![0.0; timeline.len()]),
        values,
    };
    Some(Chart {
        title: "Money approved without the primary",
        caption: format!("At most {} {currency}.", short(major(&most))),
        legend: vec!["backlog"],
        svg: draw(
            "Money approved without the primary",
            &[series],
            shades,
            &axis,
        ),
    })
}

fn rate(timeline: &[Tick], shades: &[Shade], axis: &Axis) -> Chart {
    let per_second = 1_000.0 / axis.tick_ms;
    let mut base = vec![0.0; timeline.len()];
    let mut series = Vec::new();
    let mut legend = Vec::new();
    for rung in RUNGS {
        if !timeline.iter().any(|tick| tick.replies.contains_key(rung)) {
            continue;
        }
        let top: Vec<f64> = timeline
            .iter()
            .zip(&base)
            .map(|(tick, base)| {
                base + number(tick.replies.get(rung).copied().unwrap_or(0)) * per_second
            })
            .collect();
        series.push(Series {
            class: rung,
            base: Some(std::mem::replace(&mut base, top.clone())),
            values: top.into_iter().map(Some).collect(),
        });
        legend.push(rung);
    }
    let peak = base.iter().copied().fold(0.0, f64::max);
    let refused: u64 = timeline
        .iter()
        .filter_map(|tick| tick.replies.get("refused"))
        .fold(0, |sum, count| sum.saturating_add(*count));
    Chart {
        title: "Replies per second, by rung",
        caption: format!(
            "Up to {} a second; {refused} without an answer.",
            in_brief(peak)
        ),
        legend,
        svg: draw("Replies per second, by rung", &series, shades, axis),
    }
}

fn latency(timeline: &[Tick], shades: &[Shade], axis: &Axis) -> Chart {
    let mut series = Vec::new();
    let mut legend = Vec::new();
    let mut words = Vec::new();
    for rung in RUNGS {
        let values: Vec<Option<f64>> = timeline
            .iter()
            .map(|tick| tick.p99_ms.get(rung).copied())
            .collect();
        let Some(worst) = values.iter().flatten().copied().reduce(f64::max) else {
            continue;
        };
        words.push(format!("{rung} {worst:.1} ms"));
        legend.push(rung);
        series.push(Series {
            class: rung,
            base: None,
            values,
        });
    }
    Chart {
        title: "99th percentile of latency in ms, by rung",
        caption: format!("Worst step: {}.", words.join(", ")),
        legend,
        svg: draw(
            "99th percentile of latency in milliseconds, by rung",
            &series,
            shades,
            axis,
        ),
    }
}

fn backlog(timeline: &[Tick], shades: &[Shade], axis: &Axis) -> Chart {
    let most = timeline.iter().map(|tick| tick.backlog).max().unwrap_or(0);
    let last = timeline.last().map_or(0, |tick| tick.backlog);
    let peak_at = timeline.iter().rev().find(|tick| tick.backlog == most);
    let empty_at = timeline
        .iter()
        .skip_while(|tick| peak_at.is_some_and(|peak| tick.at_ms <= peak.at_ms))
        .find(|tick| tick.backlog == 0);
    let drained = match empty_at {
        Some(tick) if most > 0 => format!(", back to 0 at {:.0} s", seconds(tick.at_ms)),
        Some(_) | None => String::new(),
    };
    let series = Series {
        class: "backlog",
        base: Some(vec![0.0; timeline.len()]),
        values: timeline
            .iter()
            .map(|tick| Some(number(tick.backlog)))
            .collect(),
    };
    Chart {
        title: "Answers in the log that are not in the ledger",
        caption: format!("At most {most}{drained}; {last} at the end."),
        legend: vec!["backlog"],
        svg: draw(
            "Answers in the log that are not in the ledger",
            &[series],
            shades,
            axis,
        ),
    }
}

fn draw(label: &str, series: &[Series], shades: &[Shade], axis: &Axis) -> String {
    let most = series
        .iter()
        .flat_map(|series| series.values.iter().flatten())
        .copied()
        .fold(0.0, f64::max);
    let most = nice(most);
    WIDTHS
        .iter()
        .map(|(class, width)| {
            let mut svg = format!(
                r#"<svg class="chart {class}" viewBox="0 0 {width:.0} {HEIGHT:.0}" role="img" aria-label="{label}">"#
            );
            let plot = Plot {
                width: *width,
                most,
                axis,
            };
            plot.shades(&mut svg, shades);
            plot.grid(&mut svg);
            for series in series {
                plot.series(&mut svg, series);
            }
            svg.push_str("</svg>");
            svg
        })
        .collect()
}

/// Where values go on one drawing.
struct Plot<'a> {
    width: f64,
    most: f64,
    axis: &'a Axis,
}

// === impl Plot ===

impl Plot<'_> {
    fn x(&self, at_ms: f64) -> f64 {
        let share = at_ms / (self.axis.ticks * self.axis.tick_ms);
        LEFT + share.clamp(0.0, 1.0) * (self.width - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value / self.most).clamp(0.0, 1.0);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }

    fn shades(&self, svg: &mut String, shades: &[Shade]) {
        for shade in shades {
            let (from, until) = (
                self.x(number(shade.from_ms)),
                self.x(number(shade.until_ms)),
            );
            put(
                svg,
                format_args!(
                    r#"<rect class="shade" x="{from:.1}" y="0" width="{:.1}" height="{:.1}"/>"#,
                    (until - from).max(1.0),
                    HEIGHT - BOTTOM
                ),
            );
        }
        // Over all of them, or the next would lie on this one's label.
        for shade in shades {
            let (from, until) = (
                self.x(number(shade.from_ms)),
                self.x(number(shade.until_ms)),
            );
            // About six pixels a letter; a label that does not fit is left to the text below.
            let letters = number(u64::try_from(shade.label.chars().count()).unwrap_or(0));
            if until - from > letters * 6.2 + 6.0 {
                put(
                    svg,
                    format_args!(
                        r#"<text class="note" x="{:.1}" y="13">{}</text>"#,
                        from + 4.0,
                        escaped(&shade.label)
                    ),
                );
            }
        }
    }

    fn grid(&self, svg: &mut String) {
        for share in [0.0, 0.5, 1.0] {
            let value = self.most * share;
            let y = self.y(value);
            put(
                svg,
                format_args!(
                    r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}"/><text class="tick end" x="{:.1}" y="{:.1}">{}</text>"#,
                    self.width - RIGHT,
                    LEFT - 6.0,
                    y + 4.0,
                    short(value)
                ),
            );
        }
        let whole = self.axis.ticks * self.axis.tick_ms / 1_000.0;
        if self.axis.ends_now {
            self.minutes_before(svg, whole);
            return;
        }
        let steps = if self.width > 600.0 { 6.0 } else { 3.0 };
        let step = nice(whole / steps);
        let mut at = 0.0;
        while at <= whole {
            // The last label would hang over the edge.
            let class = if at > whole * 0.97 {
                "tick end"
            } else {
                "tick"
            };
            put(
                svg,
                format_args!(
                    r#"<text class="{class}" x="{:.1}" y="{:.1}">{} s</text>"#,
                    self.x(at * 1_000.0),
                    HEIGHT - 7.0,
                    short(at)
                ),
            );
            at += step;
        }
    }

    /// Labels an axis of so many seconds that ends now.
    fn minutes_before(&self, svg: &mut String, whole: f64) {
        let step = if self.width > 600.0 { 2.0 } else { 5.0 };
        let mut before = 0.0;
        while before * 60.0 <= whole {
            let (class, label) = if before > 0.0 {
                ("tick", format!("−{before:.0} min"))
            } else {
                ("tick end", "now".to_owned())
            };
            let x = self.x((whole - before * 60.0) * 1_000.0);
            let y = HEIGHT - 7.0;
            put(
                svg,
                format_args!(r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{label}</text>"#),
            );
            before += step;
        }
    }

    /// Steps, not slopes: a value belongs to its whole tick.
    fn series(&self, svg: &mut String, series: &Series) {
        let mut path = String::new();
        let mut pen_down = false;
        for (at, value) in (0_u32..).zip(&series.values) {
            let Some(value) = value else {
                pen_down = false;
                continue;
            };
            let (from, until) = (
                self.x(f64::from(at) * self.axis.tick_ms),
                self.x((f64::from(at) + 1.0) * self.axis.tick_ms),
            );
            let order = if pen_down { 'L' } else { 'M' };
            let y = self.y(*value);
            put(
                &mut path,
                format_args!("{order}{from:.1} {y:.1}L{until:.1} {y:.1}"),
            );
            pen_down = true;
        }
        let Some(base) = &series.base else {
            let class = series.class;
            put(
                svg,
                format_args!(r#"<path class="line {class}" d="{path}"/>"#),
            );
            return;
        };
        let edges: Vec<(u32, &f64)> = (0_u32..).zip(base).collect();
        for (at, value) in edges.into_iter().rev() {
            let (from, until) = (
                self.x(f64::from(at) * self.axis.tick_ms),
                self.x((f64::from(at) + 1.0) * self.axis.tick_ms),
            );
            let y = self.y(*value);
            put(
                &mut path,
                format_args!("L{until:.1} {y:.1}L{from:.1} {y:.1}"),
            );
        }
        let class = series.class;
        put(
            svg,
            format_args!(r#"<path class="area {class}" d="{path}Z"/>"#),
        );
    }
}

// === impl Axis ===

impl Axis {
    fn of(timeline: &[Tick]) -> Option<Self> {
        let first = timeline.first()?;
        let tick_ms = timeline
            .get(1)
            .map_or(1_000, |second| second.at_ms.saturating_sub(first.at_ms));
        Some(Self {
            tick_ms: number(tick_ms.max(1)),
            ticks: number(u64::try_from(timeline.len()).unwrap_or(u64::MAX)),
            ends_now: false,
        })
    }
}

/// The next of 1, 2, 2.5, 5 or 10 times a power of ten that is not less; 1 for nothing.
pub(super) fn nice(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 2.5, 5.0]
        .into_iter()
        .map(|step| step * power)
        .find(|bound| *bound >= value)
        .unwrap_or(10.0 * power)
}

/// A number in few letters: `0.5`, `12`, `2.5k`, `3M`.
pub(super) fn short(value: f64) -> String {
    let (scaled, unit) = if value >= 1e6 {
        (value / 1e6, "M")
    } else if value >= 1e4 {
        (value / 1e3, "k")
    } else {
        (value, "")
    };
    let text = format!("{scaled:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

/// Without decimals, unless it would be little else.
fn in_brief(value: f64) -> String {
    if value < 10.0 {
        short(value)
    } else {
        format!("{value:.0}")
    }
}

fn seconds(ms: u64) -> f64 {
    number(ms) / 1_000.0
}

/// Exact up to 2^32, which no count or time of a chart passes.
fn number(value: u64) -> f64 {
    f64::from(u32::try_from(value).unwrap_or(u32::MAX))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

pub(super) fn put(text: &mut String, words: std::fmt::Arguments<'_>) {
    text.push_str(&std::fmt::format(words));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, expected) in [
            (0.0, 1.0),
            (1.0, 1.0),
            (1.1, 2.0),
            (203.0, 250.0),
            (501.0, 1_000.0),
            (0.03, 0.05),
        ] {
            assert!((nice(value) - expected).abs() < 1e-9, "{value}");
        }
        assert_eq!(
            [short(2_500.0), short(12_500.0), short(0.5)],
            ["2500", "12.5k", "0.5"]
        );
    }

    #[test]
    fn a_timeline_without_ticks_has_no_charts() {
        assert_eq!(charts(&[], &[]), []);
        assert_eq!(recent(&[], &[]), []);
    }

    #[test]
    fn a_timeline_that_ends_now_is_labelled_in_minutes_before() {
        let timeline: Vec<Tick> = (0_u64..120)
            .map(|n| Tick {
                at_ms: n.saturating_mul(5_000),
                replies: [("primary_only".to_owned(), 5)].into(),
                p99_ms: [("primary_only".to_owned(), 7.5)].into(),
                backlog: 0,
            })
            .collect();
        let charts = recent(&timeline, &[]);
        for chart in &charts {
            assert_eq!(chart.legend, ["primary_only"]);
            for label in [">−10 min<", ">−5 min<", ">−2 min<", ">now<"] {
                assert!(chart.svg.contains(label), "{label}");
            }
        }
        assert!(charts[0].caption.starts_with("Up to 1 a second"));
    }
}
