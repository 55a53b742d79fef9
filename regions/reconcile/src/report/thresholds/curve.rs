//! The curve as SVG: the share of trips approved over what is tolerated for it, drawn wide and narrow as
//! the timelines are ([`super::super::chart`]).

#![allow(
    clippy::float_arithmetic,
    reason = "pixels; the figures themselves are integers"
)]

use crate::report::chart::{nice, put, short};
use crate::thresholds::judge::Judged;
use crate::thresholds::simulate::Point;

/// Classes of marks, one after the other.
pub(super) const MARKS: [&str; 4] = ["isolated", "stand_in", "backlog", "refused"];

const WIDTHS: [(&str, f64); 2] = [("wide", 960.0), ("narrow", 342.0)];
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
/// Where axes of shares begin, percent: a quarter of what is above is a whole number, whose label fits.
const FLOORS: [f64; 7] = [96.0, 92.0, 80.0, 60.0, 40.0, 20.0, 0.0];

struct Plot {
    width: f64,
    /// Percent at the bottom; the top is 100.
    low: f64,
    /// Percent of picked at the right.
    most: f64,
}

/// Both drawings, one after the other; nothing without points.
pub(super) fn draw(curve: &[Point], policies: &[Point]) -> String {
    let all = || curve.iter().chain(policies).map(|point| &point.judged);
    if all().next().is_none() {
        return String::new();
    }
    let most = all().map(tolerated).fold(0.0, f64::max);
    let least = all().map(approved).fold(100.0, f64::min);
    let low = FLOORS.into_iter().find(|floor| *floor <= least);
    let low = low.unwrap_or_default();
    WIDTHS
        .iter()
        .map(|(class, width)| {
            let plot = Plot {
                width: *width,
                low,
                most: nice(most),
            };
            plot.svg(class, curve, policies)
        })
        .collect()
}

// === impl Plot ===

impl Plot {
    fn svg(&self, class: &str, curve: &[Point], policies: &[Point]) -> String {
        let mut svg = format!(
            r#"<svg class="chart {class}" viewBox="0 0 {:.0} {HEIGHT:.0}" role="img" aria-label="Share of trips approved over what is tolerated above the cart">"#,
            self.width
        );
        self.grid(&mut svg);
        let mut path = String::new();
        for (at, point) in curve.iter().enumerate() {
            let order = if at == 0 { 'M' } else { 'L' };
            let (x, y) = self.place(&point.judged);
            put(&mut path, format_args!("{order}{x:.1} {y:.1}"));
        }
        put(
            &mut svg,
            format_args!(r#"<path class="line primary" d="{path}"/>"#),
        );
        for point in curve {
            let (x, y) = self.place(&point.judged);
            put(
                &mut svg,
                format_args!(r#"<circle class="area primary" cx="{x:.1}" cy="{y:.1}" r="3"/>"#),
            );
        }
        for ((letter, mark), point) in ('A'..='Z').zip(MARKS.iter().cycle()).zip(policies) {
            let (x, y) = self.place(&point.judged);
            // Below the mark and to its right, where the curve is not.
            put(
                &mut svg,
                format_args!(
                    r#"<circle class="area {mark}" cx="{x:.1}" cy="{y:.1}" r="6"/><text class="note" x="{:.1}" y="{:.1}">{letter}</text>"#,
                    x + 3.0,
                    y + 20.0
                ),
            );
        }
        svg.push_str("</svg>");
        svg
    }

    fn place(&self, judged: &Judged) -> (f64, f64) {
        (self.x(tolerated(judged)), self.y(approved(judged)))
    }

    fn x(&self, percent: f64) -> f64 {
        LEFT + (percent / self.most).clamp(0.0, 1.0) * (self.width - LEFT - RIGHT)
    }

    fn y(&self, percent: f64) -> f64 {
        let share = ((percent - self.low) / (100.0 - self.low)).clamp(0.0, 1.0);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }

    fn grid(&self, svg: &mut String) {
        for step in 0..=4_u32 {
            let value = self.low + (100.0 - self.low) * f64::from(step) / 4.0;
            let y = self.y(value);
            put(
                svg,
                format_args!(
                    r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}"/><text class="tick end" x="{:.1}" y="{:.1}">{} %</text>"#,
                    self.width - RIGHT,
                    LEFT - 6.0,
                    y + 4.0,
                    short(value)
                ),
            );
        }
        let steps = if self.width > 600.0 { 5_u32 } else { 2 };
        for step in 0..=steps {
            let value = self.most * f64::from(step) / f64::from(steps);
            // The last label would hang over the edge.
            let class = if step == steps { "tick end" } else { "tick" };
            put(
                svg,
                format_args!(
                    r#"<text class="{class}" x="{:.1}" y="{:.1}">{} %</text>"#,
                    self.x(value),
                    HEIGHT - BOTTOM + 16.0,
                    short(value)
                ),
            );
        }
        put(
            svg,
            format_args!(
                r#"<text class="note" x="{LEFT}" y="{:.1}">tolerated above the cart, of what was picked</text>"#,
                HEIGHT - 6.0
            ),
        );
    }
}

fn tolerated(judged: &Judged) -> f64 {
    percent(judged.tolerated_bp)
}

fn approved(judged: &Judged) -> f64 {
    percent(judged.covered_bp)
}

fn percent(bp: i64) -> f64 {
    f64::from(i32::try_from(bp).unwrap_or(i32::MAX)) / 100.0
}
