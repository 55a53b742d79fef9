use standin_core::authorization::{Merchant, Particulars};
use standin_core::clock::Timestamp;
use standin_core::money::Currency;

use super::*;

fn seen(merchant: &str) -> Seen {
    let asked = Authorization {
        bank: "first".parse().unwrap(),
        shopper: 7_u64.try_into().unwrap(),
        amount: Money::from_minor(1_230, Currency::USD),
        merchant: Merchant {
            name: merchant.to_owned(),
            address: "123 Main St".to_owned(),
        },
        bank_key: Some("k-1".to_owned()),
        received_at: Timestamp::from_millis(0),
        particulars: Particulars {
            card: Some("ic_1".to_owned()),
            partial: true,
            ..Particulars::default()
        },
    };
    Seen {
        path: Some("/v1/banks/first/authorizations".to_owned()),
        authentic: Some(Ok(())),
        asked: Some(Asked::Authorization(Box::new(asked))),
        told: Told::Nothing,
    }
}

#[test]
fn a_line_says_what_was_understood() {
    assert_eq!(
        in_words("now", &seen("Target")),
        "now  authentic  asks 12.30 USD by card \"ic_1\" at \"Target\", \"123 Main St\", \
         key \"k-1\", or less  -> nothing"
    );
}

#[test]
fn neither_card_numbers_nor_control_characters_are_shown() {
    let card = "4111 1111 1111 1111";
    let line = in_words("now", &seen(card));
    assert!(!line.contains("4111") && line.contains("reads as a card number"));
    assert!(!as_json("now", &seen(card)).to_string().contains("4111"));
    let line = in_words("now", &seen("a\u{1b}[2Jb"));
    assert!(!line.contains('\u{1b}'), "{line}");
}

#[test]
fn why_a_request_is_not_authentic_is_said() {
    let error = AuthenticationError::Signature(SignatureError::Old);
    let seen = Seen {
        authentic: Some(Err(error)),
        asked: None,
        told: Told::Problem(standin_edge::problem::Problem::Unauthorized),
        ..seen("Target")
    };
    let line = in_words("now", &seen);
    assert!(
        line.contains("NOT authentic: timestamp is too old"),
        "{line}"
    );
    assert!(line.ends_with("-> 401 unauthorized"), "{line}");
    assert_eq!(as_json("now", &seen)["why_not"], "old");
}
