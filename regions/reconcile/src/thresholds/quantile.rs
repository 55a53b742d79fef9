//! What a sample says of a quantile, whatever the distribution: order statistics and the binomial.
//!
//! The r-th smallest of n independent values is at or above the q-quantile with the probability that
//! at most r - 1 of n fall below it: P(Bin(n, q) <= r - 1). So the largest of 59 bounds the 95 % point
//! with 95 % confidence, the largest of 299 the 99 % point (Wilks 1941; Hahn & Meeker, *Statistical
//! Intervals*, chapter 5).

#![allow(
    clippy::float_arithmetic,
    reason = "probabilities; what comes out is a rank"
)]

use serde::Serialize;

use super::Share;

/// The 97.5 % point of the normal distribution.
const Z_975: f64 = 1.959_963_985;

/// A share that was seen, and where the true one is with 95 % confidence (Wilson), basis points.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Interval {
    /// Lower end.
    pub low_bp: i64,
    /// Upper end.
    pub high_bp: i64,
}

/// Fewest values whose largest bounds the quantile at `share` with this confidence.
pub fn needed(share: Share, confidence: Share) -> usize {
    let missed = (1.0 - confidence.fraction()).ln();
    let n = (missed / share.fraction().ln()).ceil();
    // Basis points: at most 9.3 / 0.0001.
    let mut n = whole(n);
    while n > 1 && bounds(n.saturating_sub(1), share, confidence) {
        n = n.saturating_sub(1);
    }
    while !bounds(n, share, confidence) {
        n = n.saturating_add(1);
    }
    n
}

fn bounds(n: usize, share: Share, confidence: Share) -> bool {
    (number(n) * share.fraction().ln()).exp() <= 1.0 - confidence.fraction()
}

/// The smallest rank (from 1) of `n` values in order that bounds the quantile at `share` from above
/// with this confidence; `None` when not even the largest does.
pub fn upper_rank(n: usize, share: Share, confidence: Share) -> Option<usize> {
    let (q, miss) = (share.fraction(), 1.0 - confidence.fraction());
    let step = ((1.0 - q) / q).ln();
    // ln P(Bin(n, q) = k), from k = n downwards; and their sum, P(Bin(n, q) >= k).
    let mut ln_exactly = number(n) * q.ln();
    let (mut at_least, mut rank) = (0.0, None);
    for k in (1..=n).rev() {
        at_least += ln_exactly.exp();
        if at_least > miss {
            break;
        }
        rank = Some(k);
        let others = n.saturating_sub(k).saturating_add(1);
        ln_exactly += (number(k) / number(others)).ln() + step;
    }
    rank
}

/// The rank of the quantile itself: the smallest one at or below which at least `share` of the sample
/// lies. Zero only of nothing.
pub fn rank(n: usize, share: Share) -> usize {
    let bp = usize::try_from(share.bp()).unwrap_or(usize::MAX);
    n.saturating_mul(bp).div_ceil(10_000)
}

/// The value of this rank (from 1), which becomes the last one if there are fewer; `None` of nothing.
pub fn value<T: Ord + Copy>(values: &mut [T], rank: usize) -> Option<T> {
    let last = values.len().checked_sub(1)?;
    let at = rank.saturating_sub(1).min(last);
    Some(*values.select_nth_unstable(at).1)
}

/// Where the true share is, of which `hits` of `n` were seen. The whole range of nothing.
pub fn interval(hits: usize, n: usize) -> Interval {
    if n == 0 {
        return Interval {
            low_bp: 0,
            high_bp: super::WHOLE,
        };
    }
    let (n, z) = (number(n), Z_975);
    let p = number(hits) / n;
    let middle = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let bp = |share: f64| (share.clamp(0.0, 1.0) * 10_000.0).round();
    Interval {
        low_bp: i64::try_from(whole(bp(middle - half))).unwrap_or(0),
        high_bp: i64::try_from(whole(bp(middle + half))).unwrap_or(super::WHOLE),
    }
}

#[allow(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "counts of trips: exact up to 2^53"
)]
fn number(count: usize) -> f64 {
    count as f64
}

#[allow(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small, whole and not negative; a cast saturates"
)]
fn whole(value: f64) -> usize {
    value as usize
}
