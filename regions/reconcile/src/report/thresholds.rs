//! `advice.html`: advice on thresholds as one file with everything in it, made from the same struct as
//! `advice.json`.

mod curve;

use askama::Template;
use standin_core::money::{Currency, Money};

use crate::thresholds::advise::{Advice, Advised};
use crate::thresholds::judge::{Judged, Row};
use crate::thresholds::percent;
use crate::thresholds::simulate::Point;
use crate::totals::grouped;

/// Stores in the page; the JSON has all.
const STORES_SHOWN: usize = 20;
/// The advice is as good as its word when it is off by no more, basis points.
const OFF_MAX_BP: u64 = 50;

/// Everything the page shows.
#[derive(Template)]
#[template(path = "thresholds.html")]
struct Page<'a> {
    title: &'a str,
    verdict: Option<(bool, String)>,
    about: Vec<(&'static str, String)>,
    tiles: Vec<(String, &'static str)>,
    svg: String,
    policies: Vec<(char, usize, String)>,
    points: Vec<PointRow>,
    rules: Vec<[String; 7]>,
    kept: &'a [String],
    tables: Vec<(&'static str, Vec<[String; 7]>)>,
    stores_unlisted: usize,
}

/// A row of the table under the curve.
struct PointRow {
    name: String,
    is_policy: bool,
    cells: [String; 5],
}

const POINT_COLUMNS: [&str; 5] = [
    "approved",
    "declined trips",
    "tolerated, of picked",
    "tolerated, a trip",
    "charged beyond caps",
];

const RULE_COLUMNS: [&str; 6] = [
    "percent",
    "absolute",
    "ceiling",
    "trips",
    "as wide as all",
    "bound",
];

const ROW_COLUMNS: [&str; 6] = [
    "trips learnt",
    "quantile",
    "its bound",
    "bound, of picked",
    "judged",
    "covered",
];

/// Whether advice did what it said on trips it had not seen: it is off by half a point at most, or by no
/// more than so many trips can tell.
pub fn holds(advice: &Advice) -> bool {
    let stated = i64::from(advice.aim.cover.bp());
    let judged = &advice.judged;
    let known = judged.covered_95.low_bp..=judged.covered_95.high_bp;
    judged.covered_bp.abs_diff(stated) <= OFF_MAX_BP || known.contains(&stated)
}

/// The page of an advice.
///
/// # Errors
/// When the template cannot be rendered, which a test rules out for every part of it.
pub fn advice(advice: &Advice) -> Result<String, askama::Error> {
    let currency = advice.currency;
    let stores = advice.stores.get(..STORES_SHOWN).unwrap_or(&advice.stores);
    let rows = |rows: &[Row]| rows.iter().map(|row| row_cells(row, currency)).collect();
    Page {
        title: "Standin threshold advice",
        verdict: Some((holds(advice), verdict(advice))),
        about: about(advice),
        tiles: tiles(advice),
        rules: advice
            .rules
            .iter()
            .map(|rule| rule_cells(rule, currency))
            .collect(),
        kept: &advice.kept,
        tables: vec![
            ("by what was picked", rows(&advice.bands)),
            ("by what most of the cart is of", rows(&advice.categories)),
            ("by store", rows(stores)),
        ],
        stores_unlisted: advice.stores.len().saturating_sub(stores.len()),
        ..page(&advice.curve, &advice.policies, currency)
    }
    .render()
}

/// The page of a simulation: the curve alone, and where policies are on it.
///
/// # Errors
/// As [`advice`].
pub fn simulation(
    about: Vec<(&'static str, String)>,
    curve: &[Point],
    policies: &[Point],
    currency: Currency,
) -> Result<String, askama::Error> {
    Page {
        about,
        ..page(curve, policies, currency)
    }
    .render()
}

fn page<'a>(curve: &[Point], policies: &[Point], currency: Currency) -> Page<'a> {
    let marks = ('A'..='Z').zip(0..).zip(policies);
    let named = |point: &Point| point.name.clone().unwrap_or_default();
    let fitted = |point: &Point| {
        point
            .cover
            .map_or_else(String::new, |cover| cover.to_string())
    };
    let row = |name: String, is_policy, point: &Point| PointRow {
        name,
        is_policy,
        cells: point_cells(&point.judged, currency),
    };
    let of_policies = marks
        .clone()
        .map(|((letter, _), point)| row(format!("{letter}: {}", named(point)), true, point));
    let of_curve = curve
        .iter()
        .map(|point| row(format!("fitted to {}", fitted(point)), false, point));
    Page {
        title: "Standin threshold simulation",
        verdict: None,
        about: Vec::new(),
        tiles: Vec::new(),
        svg: curve::draw(curve, policies),
        policies: marks
            .map(|((letter, at), point)| (letter, at, named(point)))
            .collect(),
        points: of_policies.chain(of_curve).collect(),
        rules: Vec::new(),
        kept: &[],
        tables: Vec::new(),
        stores_unlisted: 0,
    }
}

/// What an advice came to, in a sentence.
pub fn verdict(advice: &Advice) -> String {
    let Judged {
        trips,
        covered_bp,
        covered_95,
        ..
    } = advice.judged;
    let word = if holds(advice) { "Held" } else { "Not held" };
    format!(
        "{word}: of {} trips of the last quarter, which it had not seen, the advice covers {} ({} to {} with \
         95 % confidence); stated were {}.",
        grouped(&trips.to_string()),
        percent(covered_bp),
        percent(covered_95.low_bp),
        percent(covered_95.high_bp),
        advice.aim.cover
    )
}

fn about(advice: &Advice) -> Vec<(&'static str, String)> {
    let span = |span: &crate::thresholds::advise::Span| {
        let trips = grouped(&span.trips.to_string());
        format!("{trips} trips, {} to {}", span.from, span.until)
    };
    vec![
        ("Learnt from", span(&advice.learnt)),
        ("Judged on", span(&advice.last)),
        ("Confidence", advice.aim.confidence.to_string()),
        (
            "Made from",
            format!("version {} in {}", advice.base_version, advice.currency),
        ),
        ("All rules scaled to", percent(advice.level_bp)),
    ]
}

fn tiles(advice: &Advice) -> Vec<(String, &'static str)> {
    let money = |minor| in_major(minor, advice.currency);
    vec![
        (percent(advice.judged.covered_bp), "covered by the advice"),
        (advice.aim.cover.to_string(), "stated"),
        (money(advice.judged.tolerated_mean), "tolerated a trip"),
        (
            percent(advice.base.covered_bp),
            "covered by the active version",
        ),
        (
            money(advice.base.tolerated_mean),
            "tolerated a trip by the active version",
        ),
        (
            percent(advice.stand_in.covered_bp),
            "covered while standing in",
        ),
    ]
}

fn in_major(minor: i64, currency: Currency) -> String {
    Money::from_minor(minor, currency).to_decimal()
}

fn point_cells(judged: &Judged, currency: Currency) -> [String; 5] {
    let declined = judged.trips.saturating_sub(judged.covered);
    [
        percent(judged.covered_bp),
        grouped(&declined.to_string()),
        percent(judged.tolerated_bp),
        in_major(judged.tolerated_mean, currency),
        in_major(judged.beyond, currency),
    ]
}

fn rule_cells(rule: &Advised, currency: Currency) -> [String; 7] {
    [
        rule.name.clone(),
        percent(i64::from(rule.percent_bp)),
        in_major(rule.absolute, currency),
        in_major(rule.ceiling, currency),
        grouped(&rule.trips.to_string()),
        percent(rule.factor_bp),
        if rule.bounded {
            "yes"
        } else {
            "too few trips: it only widens"
        }
        .to_owned(),
    ]
}

fn row_cells(row: &Row, currency: Currency) -> [String; 7] {
    let too_few = || "too few".to_owned();
    let covered = match row.judged.trips {
        0 => "none".to_owned(),
        _ => percent(row.judged.covered_bp),
    };
    [
        row.name.clone(),
        grouped(&row.trips.to_string()),
        in_major(row.quantile, currency),
        row.bound
            .map_or_else(too_few, |bound| in_major(bound, currency)),
        row.bound_bp.map_or_else(too_few, percent),
        grouped(&row.judged.trips.to_string()),
        covered,
    ]
}

/// A row's cells after its name, with their heads.
fn cells<'a, const N: usize>(
    heads: [&'static str; N],
    row: &'a [String],
) -> impl Iterator<Item = (&'static str, &'a String)> {
    heads.into_iter().zip(row)
}

#[cfg(test)]
mod tests;
