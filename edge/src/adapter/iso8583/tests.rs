use standin_core::id::TransactionId;
use standin_core::money::Currency;

use super::super::testing::{answer, bank, declined};
use super::*;

const PAN: &str = "4111111111111111";

fn key() -> DeploymentKey {
    DeploymentKey::new(vec![1; 32]).unwrap()
}

/// A purchase of 300 dollars.
fn purchase() -> Message {
    message(Mti::AuthorizationRequest)
}

fn message(mti: Mti) -> Message {
    let mut message = Message::new(mti);
    let place = format!("{:<25}{:<13}{:<2}", "TARGET T-1234", "SAN FRANCISCO", "US");
    for (field, value) in [
        (2, PAN),
        (3, "000000"),
        (4, "000000030000"),
        (7, "1130101112"),
        (11, "000123"),
        (32, "123456"),
        (37, "433510000123"),
        (41, "TERM0001"),
        (42, "123456789012345"),
        (43, place.as_str()),
        (49, "840"),
    ] {
        message.set(field, value).unwrap();
    }
    message
}

fn read(message: &Message) -> Result<Asked, &'static str> {
    understand(&bank(), &key(), message, Timestamp::from_millis(7))
}

fn authorized(message: &Message) -> Authorization {
    match read(message) {
        Ok(Asked::Authorization(asked) | Asked::Advice(asked)) => *asked,
        other => panic!("{other:?}"),
    }
}

fn taken_back(message: &Message) -> TakeBack {
    match read(message) {
        Ok(Asked::TakeBack(asked)) => asked,
        other => panic!("{other:?}"),
    }
}

fn with(mut message: Message, field: u8, value: &str) -> Message {
    message.set(field, value).unwrap();
    message
}

fn without(mut message: Message, field: u8) -> Message {
    message.remove(field);
    message
}

fn id(asked: &Authorization) -> TransactionId {
    of_key(
        &asked.bank,
        Operation::Authorize,
        asked.bank_key.as_deref().unwrap(),
    )
}

#[test]
fn a_purchase_is_understood_and_its_card_number_is_not_in_it() {
    let asked = authorized(&purchase());
    let token = key().card_token(&asked.bank, PAN);
    let expected = Authorization {
        bank: "first".parse().unwrap(),
        shopper: not_looked_up(&"first".parse().unwrap(), &token),
        amount: Money::from_minor(30_000, Currency::USD),
        merchant: Merchant {
            name: "TARGET T-1234".to_owned(),
            address: "SAN FRANCISCO".to_owned(),
        },
        bank_key: Some("123456|000123|1130101112|TERM0001|123456789012345".to_owned()),
        received_at: Timestamp::from_millis(7),
        particulars: Particulars {
            card: Some(token),
            network_id: Some("123456789012345".to_owned()),
            terminal: Some("TERM0001".to_owned()),
            adds_to: None,
            partial: true,
        },
    };
    assert_eq!(asked, expected);
    assert!(!format!("{asked:?}").contains(PAN));
}

#[test]
fn a_repeat_and_a_card_read_from_its_track_are_the_same_payment() {
    let asked = authorized(&purchase());
    assert_eq!(authorized(&message(Mti::AuthorizationRepeat)), asked);
    let track = format!("{PAN}=29122010000000000000");
    let swiped = with(without(purchase(), 2), 35, &track);
    assert_eq!(authorized(&swiped), asked);
    // Field 37 may differ between tries; what names the payment may not.
    assert_eq!(authorized(&without(purchase(), 37)), asked);
    for (field, value) in [(7, "1130101113"), (11, "000124"), (41, "TERM0002")] {
        assert_ne!(id(&authorized(&with(purchase(), field, value))), id(&asked));
    }
}

#[test]
fn a_reversal_finds_its_payment_by_field_90_and_without_it_by_its_own() {
    let payment = id(&authorized(&purchase()));
    let whole = message(Mti::ReversalRequest);
    assert_eq!(
        (taken_back(&whole).payment, taken_back(&whole).amount),
        (payment, None)
    );
    let later = with(with(whole, 11, "000999"), 7, "1130101500");
    assert_ne!(taken_back(&later).payment, payment);
    let original = "0100000123113010111200000123456".to_owned() + "00000000000";
    let named = with(later, 90, &original);
    let asked = taken_back(&named);
    assert_eq!(asked.payment, payment);
    assert_ne!(
        asked.key,
        "123456|000123|1130101112|TERM0001|123456789012345"
    );
    let replaced = format!("{:012}{:0>30}", 10_000, "");
    let part = taken_back(&with(named.clone(), 95, &replaced));
    assert_eq!(part.amount, Some(Money::from_minor(20_000, Currency::USD)));
    // An advice of a reversal is the same, and so is its repeat.
    for mti in [
        Mti::ReversalRepeat,
        Mti::ReversalAdvice,
        Mti::ReversalAdviceRepeat,
    ] {
        assert_eq!(
            taken_back(&with(message(mti), 90, &original)).payment,
            payment
        );
    }
    let all = format!("{:012}{:0>30}", 30_000, "");
    assert_eq!(read(&with(named, 95, &all)), Err(INVALID_AMOUNT));
}

#[test]
fn advices_of_approvals_are_taken_and_those_of_declines_noted() {
    let advice = message(Mti::AuthorizationAdvice);
    assert!(matches!(read(&advice), Ok(Asked::Advice(_))));
    assert!(matches!(
        read(&with(advice.clone(), 39, "00")),
        Ok(Asked::Advice(_))
    ));
    assert_eq!(read(&with(advice, 39, "51")), Ok(Asked::Notice));
    assert_eq!(read(&Message::new(Mti::NetworkRequest)), Ok(Asked::Notice));
    assert_eq!(
        read(&message(Mti::AuthorizationResponse)),
        Ok(Asked::Answer)
    );
}

#[test]
fn what_cannot_be_asked_is_answered_with_a_code() {
    for (wrong, code) in [
        (without(purchase(), 2), INVALID_CARD),
        (with(purchase(), 2, "411111111"), INVALID_CARD),
        (without(purchase(), 3), FORMAT_ERROR),
        (with(purchase(), 3, "010000"), INVALID_TRANSACTION),
        (with(purchase(), 3, "200000"), INVALID_TRANSACTION),
        (without(purchase(), 4), INVALID_AMOUNT),
        (without(purchase(), 7), FORMAT_ERROR),
        (without(purchase(), 11), FORMAT_ERROR),
        (without(purchase(), 49), FORMAT_ERROR),
        (with(purchase(), 49, "000"), INVALID_AMOUNT),
    ] {
        assert_eq!(
            read(&wrong),
            Err(code),
            "{:?}",
            wrong.fields().collect::<Vec<_>>()
        );
    }
    // Who sends neither acquirer, terminal nor merchant is understood all the same.
    let bare = [32, 41, 42, 43].into_iter().fold(purchase(), without);
    assert_eq!(
        authorized(&bare).bank_key.as_deref(),
        Some("|000123|1130101112||")
    );
}

#[test]
fn answers_read_like_this() {
    let asked = authorized(&purchase());
    let said = |answer: &Answer| render(&purchase(), answer, asked.amount).unwrap();
    let approved = said(&answer());
    assert_eq!(approved.mti(), Mti::AuthorizationResponse);
    assert_eq!(approved.text(39), Some("00"));
    assert_eq!(approved.text(38), Some("AAAAAA"));
    assert_eq!(approved.text(41), Some("TERM0001"));
    let part = Answer {
        amount: Money::from_minor(12_345, Currency::USD),
        ..answer()
    };
    assert_eq!(said(&part).text(39), Some("10"));
    assert_eq!(said(&part).amount(4), Some(12_345));
    for reason in Reason::ALL {
        let approves = reason.verdict() == Verdict::Approved;
        assert_eq!(response_code(reason) == APPROVED, approves, "{reason}");
        if !approves {
            let refused = said(&declined(reason));
            assert_eq!(refused.text(39), Some(response_code(reason)));
            assert_eq!(refused.text(38), None);
        }
    }
}

#[test]
fn an_inquiry_is_told_what_is_left() {
    let inquiry = with(purchase(), 3, "312000");
    let asked = authorized(&inquiry);
    assert_eq!(asked.amount.minor(), 0);
    let left = Answer {
        amount: Money::from_minor(0, Currency::USD),
        approved_before: 10_000,
        ..answer()
    };
    let told = render(&inquiry, &left, asked.amount).unwrap();
    assert_eq!(told.text(54), Some("2002840C000000024550"));
    assert_eq!(told.text(39), Some("00"));
}
