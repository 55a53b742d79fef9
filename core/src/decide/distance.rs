//! Whether two places are near each other, in integers: the same answer on every machine.
//!
//! Equirectangular projection at the middle latitude, its cosine by Bhaskara's approximation. Within
//! 100 km and 65 degrees of latitude the error stays below one percent (a test compares it with the
//! haversine formula); a geofence is a few hundred metres wide. No distance is ever handed out.

/// Nanometres of one millionth of a degree along a meridian of a sphere of 6,371,008.8 m.
const NM_PER_E6: i128 = 111_195_080;
/// Millionths of a degree in a full circle.
const CIRCLE_E6: i64 = 360_000_000;

/// Whether `a` and `b` (latitude and longitude in millionths of a degree) are at most `radius_m`
/// metres apart.
pub(super) fn within_metres(a: (i32, i32), b: (i32, i32), radius_m: u32) -> bool {
    let north = i64::from(a.0).saturating_sub(i64::from(b.0));
    let east = i64::from(a.1)
        .saturating_sub(i64::from(b.1))
        .rem_euclid(CIRCLE_E6);
    let east = east.min(CIRCLE_E6.saturating_sub(east));
    // Sum of both latitudes: twice the middle one, in millionths of a degree.
    let twice_middle = i128::from(a.0).saturating_add(i128::from(b.0));
    let north_nm = i128::from(north).saturating_mul(NM_PER_E6);
    let east_nm = scale_by_cosine(i128::from(east).saturating_mul(NM_PER_E6), twice_middle);
    let radius_nm = i128::from(radius_m).saturating_mul(1_000_000_000);
    let squared = |nm: i128| nm.saturating_mul(nm);
    squared(north_nm).saturating_add(squared(east_nm)) <= squared(radius_nm)
}

/// `length` times the cosine of half of `twice_e6`: (180² - 4x²) / (180² + x²) for x in degrees.
fn scale_by_cosine(length: i128, twice_e6: i128) -> i128 {
    let half_circle_squared = 180_000_000_i128.saturating_mul(180_000_000);
    let twice_squared = twice_e6.saturating_mul(twice_e6);
    let x_squared = twice_squared.checked_div(4).unwrap_or(0);
    let above = half_circle_squared.saturating_sub(twice_squared).max(0);
    let below = half_circle_squared.saturating_add(x_squared);
    // Millionths keep the product within 127 bits.
    let cosine_e9 = above
        .saturating_mul(1_000_000_000)
        .checked_div(below)
        .unwrap_or(0);
    length
        .saturating_mul(cosine_e9)
        .checked_div(1_000_000_000)
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::as_conversions,
        clippy::arithmetic_side_effects,
        clippy::float_arithmetic,
        reason = "test code, and the formula it compares with"
    )]
    use proptest::prelude::*;

    use super::*;

    fn haversine_m(a: (i32, i32), b: (i32, i32)) -> f64 {
        let radians = |e6: i32| (f64::from(e6) / 1e6).to_radians();
        let (lat_a, lat_b) = (radians(a.0), radians(b.0));
        let half_north = (lat_b - lat_a) / 2.0;
        let half_east = (radians(b.1) - radians(a.1)) / 2.0;
        let h = half_north.sin().powi(2) + lat_a.cos() * lat_b.cos() * half_east.sin().powi(2);
        2.0 * 6_371_008.8 * h.sqrt().min(1.0).asin()
    }

    #[test]
    fn a_radius_reaches_over_the_antimeridian() {
        assert!(within_metres((0, 179_999_000), (0, -179_999_000), 300));
        assert!(!within_metres((0, 179_999_000), (0, -179_999_000), 200));
        assert!(within_metres((0, 0), (0, 0), 1));
        assert!(!within_metres((0, 0), (0, 180_000_000), 100_000));
    }

    proptest! {
        #[test]
        fn it_agrees_with_haversine_within_a_percent(
            lat in -65_000_000_i32..65_000_000, lon in -179_000_000_i32..179_000_000,
            north in -400_000_i32..400_000, east in -400_000_i32..400_000,
        ) {
            let (a, b) = ((lat, lon), (lat + north, lon + east));
            let metres = haversine_m(a, b);
            prop_assume!(metres > 200.0);
            prop_assert!(within_metres(a, b, (metres * 1.01) as u32 + 1));
            prop_assert!(!within_metres(a, b, (metres * 0.99) as u32));
            prop_assert_eq!(within_metres(a, b, 800), within_metres(b, a, 800));
        }

        #[test]
        fn no_place_panics(
            a in any::<(i32, i32)>(), b in any::<(i32, i32)>(), radius in any::<u32>(),
        ) {
            prop_assert_eq!(within_metres(a, b, radius), within_metres(b, a, radius));
            prop_assert!(within_metres(a, a, radius));
        }
    }
}
