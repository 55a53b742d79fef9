use standin_core::policy::Policy;

use super::*;
use crate::thresholds::Split;
use crate::thresholds::advise::advise;
use crate::thresholds::tests::{aim, trips};

fn made() -> Advice {
    let trips = trips(4_000, &[("GROCERY", 0.02), ("A<B & CO", 0.15)], 8);
    let other = ("steady <b>".to_owned(), Policy::example());
    advise(
        &trips,
        &Policy::example(),
        aim(9_500, Split::Category),
        &[other],
    )
    .unwrap()
}

/// For looking at in a browser: `STANDIN_HTML_OUT=dir cargo test …`.
fn keep(name: &str, html: &str) {
    if let Some(dir) = std::env::var_os("STANDIN_HTML_OUT") {
        std::fs::write(std::path::Path::new(&dir).join(name), html).unwrap();
    }
}

#[test]
fn the_page_says_in_text_what_the_curve_shows() {
    let made = made();
    let html = super::advice(&made).unwrap();
    keep("advice.html", &html);
    assert!(holds(&made));
    for words in [
        "Held: of ",
        "stated were 95 %",
        "active (version 1)",
        "A: active (version 1)",
        "B: advised",
        "fitted to 95 %",
        "Kept as they are",
        "category MEAT",
        "and more",
        "store 7",
    ] {
        assert!(html.contains(words), "{words}");
    }
    for point in made.curve.iter().chain(&made.policies) {
        assert!(html.contains(&percent(point.judged.covered_bp)));
        assert!(html.contains(&percent(point.judged.tolerated_bp)));
    }
    // Names are text, whoever made them up.
    assert!(!html.contains("A<B") && !html.contains("<b>\"") && !html.contains("steady <b>"));
    // Self-contained: nothing is loaded and nothing runs.
    for outside in ["http://", "https://", "<script", "<link", "@import", "url("] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert_eq!(html.matches("<svg").count(), 2);
    assert!(!html.contains("NaN") && !html.contains("inf\""));
}

#[test]
fn the_labels_of_shares_are_whole_numbers_which_fit_beside_the_axis() {
    let html = super::advice(&made()).unwrap();
    let beside_the_axis = r#"<text class="tick end" x="40.0""#;
    let labels = html.split(beside_the_axis).skip(1).map(|rest| {
        let text = rest.split_once('>').unwrap().1;
        text.split_once(" %</text>").unwrap().0
    });
    let shares: Vec<u32> = labels.map(|label| label.parse().unwrap()).collect();
    assert_eq!(shares.len(), 10, "five on each of two drawings");
    assert!(shares.iter().all(|share| *share <= 100), "{shares:?}");
}

#[test]
fn advice_that_missed_by_more_than_chance_says_so() {
    let mut made = made();
    made.judged.covered_bp = 9_000;
    made.judged.covered_95.low_bp = 8_900;
    made.judged.covered_95.high_bp = 9_100;
    assert!(!holds(&made));
    assert!(super::advice(&made).unwrap().contains("Not held: of "));
}

#[test]
fn a_simulation_shows_the_curve_and_the_policies_on_it() {
    let made = made();
    let about = vec![("Trips", "4,000".to_owned())];
    let html = simulation(about, &made.curve, &made.policies, made.currency).unwrap();
    keep("simulation.html", &html);
    assert!(html.contains("C: steady") && html.contains("fitted to 99.5 %"));
    assert!(!html.contains("Advised rules") && !html.contains("class=\"verdict"));
    // With nothing to draw there is no drawing.
    let html = simulation(Vec::new(), &[], &[], made.currency).unwrap();
    assert!(!html.contains("<svg"));
}
