//! Approval rate against exposure: what a share costs, as a curve, and where policies are on it.
//!
//! Each point of the curve is a whole fit on the first part of the time, judged on the last one.

use serde::Serialize;
use standin_core::policy::Policy;

use super::advise::{ceiling, with_thresholds};
use super::fit::{Aim, fit};
use super::judge::{Judged, judge};
use super::{AdviseError, Share, Trip};

/// Shares that the curve is drawn of, basis points.
const LEVELS_BP: [u32; 14] = [
    5_000, 6_000, 7_000, 8_000, 8_500, 9_000, 9_300, 9_500, 9_700, 9_800, 9_850, 9_900, 9_950,
    9_980,
];

/// One candidate: what it approves, and what it tolerates for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Point {
    /// A policy by name; the curve's points have none.
    pub name: Option<String>,
    /// The share it was fitted to.
    pub cover: Option<Share>,
    /// How it did.
    pub judged: Judged,
}

/// The curve, from the least exposure to the most. Shares that the trips are too few for are left out.
///
/// # Errors
/// [`AdviseError::Policy`] when a fit contradicts the policy.
pub fn curve(
    learnt: &[&Trip],
    last: &[&Trip],
    base: &Policy,
    aim: Aim,
) -> Result<Vec<Point>, AdviseError> {
    let top = ceiling(learnt, base);
    let mut points = Vec::new();
    for cover in LEVELS_BP.into_iter().filter_map(Share::from_bp) {
        let fitted = match fit(learnt, Aim { cover, ..aim }) {
            Ok(fitted) => fitted,
            Err(AdviseError::TooFew { .. }) => continue,
            Err(other) => return Err(other),
        };
        let policy = with_thresholds(base, &fitted, learnt, top)?;
        points.push(Point {
            name: None,
            cover: Some(cover),
            judged: judge(&policy.thresholds, last.iter().copied()),
        });
    }
    points.sort_by_key(|point| (point.judged.tolerated, point.judged.covered));
    Ok(points)
}

/// Where a policy is.
pub fn candidate(name: impl Into<String>, policy: &Policy, last: &[&Trip]) -> Point {
    Point {
        name: Some(name.into()),
        cover: None,
        judged: judge(&policy.thresholds, last.iter().copied()),
    }
}
