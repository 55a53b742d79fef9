use super::*;

fn payment(amount: &str) -> Payment {
    Payment {
        charged: Charged {
            shopper: 123,
            merchant_name: "Target, of a name that is far too long".to_owned(),
            merchant_address: "123 Main St".to_owned(),
            merchant_city: "Cincinnati".to_owned(),
            merchant_state: "OH".to_owned(),
            ..Charged::default()
        },
        amount: amount.to_owned(),
        ..Payment::default()
    }
}

fn name() -> Name {
    "1130101112-000001".parse().unwrap()
}

fn asking(amount: &str, layout: CardAcceptorLayout) -> Message {
    let mti = Mti::AuthorizationRequest;
    authorization(mti, &payment(amount), &name(), layout).unwrap()
}

/// What an edge would answer.
fn reply(asked: &Message, code: &str, amount: Option<i64>) -> Message {
    let outcome = standin_edge::iso8583::Outcome {
        response_code: code,
        approval_code: matches!(code, APPROVED | APPROVED_IN_PART).then_some("ABC123"),
        amount,
        additional_amounts: None,
    };
    asked.reply(&outcome).unwrap()
}

#[test]
fn a_payment_says_card_amount_place_and_its_name() {
    let asked = asking("12.30", CardAcceptorLayout::Visa);
    for (field, expected) in [
        (3, "000000"),
        (4, "000000001230"),
        (7, "1130101112"),
        (11, "000001"),
        (32, "123456"),
        (37, "113010000001"),
        (41, "TERM0001"),
        (42, "GROCER-0042    "),
        (43, "Target, of a name that isCincinnati   US"),
        (49, "840"),
    ] {
        assert_eq!(asked.text(field), Some(expected), "{field}");
    }
    assert!(asked.secret(2).is_some());
    let mastercard = asking("12.30", CardAcceptorLayout::Mastercard);
    let expected = "Target, of a name that Cincinnati    OH ";
    assert_eq!(mastercard.text(43), Some(expected));
    let verifies = asking("0", CardAcceptorLayout::Visa);
    assert_eq!(verifies.text(3), Some("380000"));
}

#[test]
fn every_message_is_read_as_it_was_written() {
    let (payment, layout) = (payment("12.30"), CardAcceptorLayout::Visa);
    let half = Money::from_minor(615, Currency::USD);
    let (asked, own) = (name(), Name::fresh());
    let reversed = reversal(
        Mti::ReversalRequest,
        &payment,
        &asked,
        &own,
        Some(half),
        layout,
    );
    let whole = reversal(Mti::ReversalAdvice, &payment, &asked, &own, None, layout);
    for message in [
        asking("12.30", layout),
        reversed.unwrap(),
        whole.unwrap(),
        echo(&own).unwrap(),
    ] {
        for encoding in [Encoding::Ascii, Encoding::AsciiBinary] {
            let bytes = message.encode(encoding);
            assert_eq!(Message::decode(&bytes, encoding), Ok(message.clone()));
        }
    }
}

#[test]
fn a_reversal_names_its_payment_and_what_is_left_of_it() {
    let (payment, layout) = (payment("12.30"), CardAcceptorLayout::Visa);
    let own: Name = "1130101213-000002".parse().unwrap();
    let left = Some(Money::from_minor(615, Currency::USD));
    let told = reversal(Mti::ReversalRepeat, &payment, &name(), &own, left, layout).unwrap();
    let asked = asking("12.30", layout);
    assert_eq!(told.original(), Original::of(&asked));
    assert_eq!(
        (told.text(7), told.text(11)),
        (Some("1130101213"), Some("000002"))
    );
    assert_eq!(told.replacement(), Some(615));
    assert_eq!(
        (told.text(4), told.text(37)),
        (asked.text(4), asked.text(37))
    );
}

#[test]
fn a_name_is_written_as_it_is_read_and_a_fresh_one_is_one() {
    for text in ["1130101112-000001", "0101000000-999999"] {
        assert_eq!(text.parse::<Name>().unwrap().to_string(), text);
    }
    for wrong in ["", "1130101112", "113010111-000001", "1130101112-00001x"] {
        assert!(wrong.parse::<Name>().is_err(), "{wrong}");
    }
    for _ in 0..1_000 {
        let fresh = Name::fresh();
        assert_eq!(fresh.to_string().parse::<Name>().unwrap(), fresh);
        assert_ne!(fresh.stan, "000000");
    }
}

#[test]
fn what_names_the_card_is_not_shown() {
    let asked = asking("12.30", CardAcceptorLayout::Visa);
    let shown = Shown::of(&asked);
    let (words, json) = (shown.to_string(), serde_json::to_string(&shown).unwrap());
    for text in [&words, &json] {
        assert!(!text.contains(TEST_NUMBER), "{text}");
    }
    assert!(words.starts_with("0100 2=… 3=000000 4="), "{words}");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["t"], "0100");
    assert_eq!(json["2"], "…");
    let debug = format!("{asked:?}");
    assert!(!debug.contains("4111"), "{debug}");
}

#[test]
fn answers_are_read_in_words() {
    let asked = asking("12.30", CardAcceptorLayout::Visa);
    for (code, amount, expected) in [
        ("00", None, "approved: 00 approved, 12.30"),
        ("10", Some(500), "approved: 10 approved in part, 5.00"),
        ("61", None, "declined: 61 more than may be"),
        ("94", None, "declined: 94 duplicate"),
        ("91", None, "91 no answer now"),
        ("30", None, "30 format error"),
        ("ZZ", None, "declined: ZZ"),
    ] {
        let heard = heard(&reply(&asked, code, amount));
        assert_eq!(words(&heard), expected);
    }
    let echoed = reply(&echo(&name()).unwrap(), "00", None);
    assert_eq!(words(&heard(&echoed)), "00 done");
}

#[test]
fn an_answer_is_to_what_was_asked() {
    let agreed = Agreed {
        encoding: Encoding::Ascii,
        card_acceptor: CardAcceptorLayout::Visa,
    };
    let asked = asking("12.30", CardAcceptorLayout::Visa);
    let bytes = |reply: &Message| reply.encode(agreed.encoding);
    let good = reply(&asked, APPROVED, None);
    assert_eq!(answer(&asked, &bytes(&good), agreed).unwrap(), good);
    let mut other = good.clone();
    other.set(11, "000002").unwrap();
    let echoed = reply(&echo(&name()).unwrap(), APPROVED, None);
    for wrong in [
        bytes(&other),
        bytes(&echoed),
        bytes(&asked),
        b"HTTP/1.1 400".to_vec(),
    ] {
        let error = answer(&asked, &wrong, agreed).unwrap_err().to_string();
        assert!(!error.contains("4111"), "{error}");
    }
}

#[test]
fn test_numbers_are_card_numbers_of_no_issuer() {
    assert_eq!(test_number(123), TEST_NUMBER);
    assert!(holds_card_number(TEST_NUMBER));
    for shopper in [1, 124, 223, 99_999_999_999] {
        let number = test_number(shopper);
        assert!(
            holds_card_number(&number) && number.starts_with(SHOPPERS),
            "{number}"
        );
    }
    let nobodys = nobodys_number();
    assert!(holds_card_number(&nobodys) && nobodys.starts_with(NOBODYS));
    assert_ne!(nobodys, nobodys_number());
}

#[test]
fn a_message_is_read_from_json_as_its_fields_are() {
    let text = r#"{"t":"0800","7":"1130101112","11":"000001","70":"301"}"#;
    assert_eq!(of_json(text).unwrap(), echo(&name()).unwrap());
    let secured = of_json(r#"{"t":"0100","52":"0123456789abcdef"}"#).unwrap();
    assert!(secured.secret(52).is_some());
    for wrong in [
        "4111111111111111",
        r#"{"2":"4111111111111111"}"#,
        r#"{"t":"0999"}"#,
        r#"{"t":"0100","4111111111111111":"x"}"#,
        r#"{"t":"0100","2":4111111111111111}"#,
        r#"{"t":"0100","2":"4111111111111111x"}"#,
        r#"{"t":"0100","52":"0"}"#,
        r#"{"t":"0100","65":"0"}"#,
    ] {
        let error = format!("{:#}", of_json(wrong).unwrap_err());
        assert!(!error.contains("4111"), "{error}");
    }
}
