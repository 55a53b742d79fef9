use super::testing::{bank, understand_text};
use super::*;

#[test]
fn only_json_is_taken_for_json() {
    let with = |value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, value.parse().unwrap());
        require_json(&headers)
    };
    for good in [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
    ] {
        assert_eq!(with(good), Ok(()), "{good}");
    }
    for bad in [
        "text/json",
        "application/jsonx",
        "application/json, text/html",
        "",
        "text/plain; application/json",
    ] {
        assert_eq!(with(bad), Err(Problem::UnsupportedMediaType), "{bad}");
    }
    assert_eq!(
        require_json(&HeaderMap::new()),
        Err(Problem::UnsupportedMediaType)
    );
    let mut twice = HeaderMap::new();
    twice.append(CONTENT_TYPE, "application/json".parse().unwrap());
    twice.append(CONTENT_TYPE, "application/json".parse().unwrap());
    assert_eq!(require_json(&twice), Err(Problem::UnsupportedMediaType));
}

#[test]
fn no_format_reads_what_is_not_json_or_too_deep() {
    let spoken = |format: &Format| *format != Format::Iso8583;
    for format in Format::ALL.into_iter().filter(spoken) {
        for body in ["", "[]", "{", "{}", "null", "{\"a\":1,\"a\":2}"] {
            assert!(understand_text(format, body).is_err(), "{body}");
        }
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        let deep = format!("{{\"x\":{deep}}}");
        let refused = understand_text(format, &deep).unwrap_err();
        assert_eq!(refused.slug(), "malformed");
    }
}

#[test]
fn a_card_stands_for_one_reserved_shopper_of_its_bank() {
    let bank = bank().slug;
    let one = not_looked_up(&bank, "ic_1");
    assert_eq!(one, not_looked_up(&bank, "ic_1"));
    assert_ne!(one, not_looked_up(&bank, "ic_2"));
    assert_ne!(one, not_looked_up(&"other".parse().unwrap(), "ic_1"));
    assert!(one.is_of_unknown_card());
    assert!(!ShopperId::try_from(123_i64).unwrap().is_of_unknown_card());
}
