use super::*;

#[test]
fn amounts_are_minor_units() {
    let message = with(
        Mti::AuthorizationRequest,
        &[
            (4, "000000012345"),
            (5, "999999999999"),
            (6, "000000000000"),
            (11, "000007"),
        ],
    );
    assert_eq!(message.amount(4), Some(123_45));
    assert_eq!(message.amount(5), Some(999_999_999_999));
    assert_eq!(message.amount(6), Some(0));
    assert_eq!(message.amount(11), None);
    assert_eq!(Message::new(Mti::NetworkRequest).amount(4), None);
}

#[test]
fn replacement_amounts_are_read_in_each_networks_layout() {
    // Of the standard, of Mastercard, of Visa.
    for rest in [
        "000000000000C00000000D00000000",
        "000000000000000000000000000000",
        "                              ",
    ] {
        let value = format!("000000010000{rest}");
        let message = with(Mti::ReversalRequest, &[(95, &value)]);
        assert_eq!(message.replacement(), Some(100_00));
    }
    assert_eq!(Message::new(Mti::ReversalRequest).replacement(), None);
}

#[test]
fn currencies_are_three_digits() {
    assert_eq!(
        with(Mti::AuthorizationRequest, &[(49, "840")]).currency(),
        Some("840")
    );
    assert_eq!(Message::new(Mti::AuthorizationRequest).currency(), None);
}

#[test]
fn a_reversal_names_its_original() {
    let purchase = Golden::case("a purchase").message();
    let reversal = Golden::case("a reversal").message();
    let original = reversal.original().unwrap();
    assert_eq!(
        original,
        Original {
            mti: "0100".to_owned(),
            stan: "004711".to_owned(),
            transmitted: "1127221500".to_owned(),
            acquirer: "00000400123".to_owned(),
            forwarder: "00000000000".to_owned(),
        }
    );
    assert_eq!(Original::of(&purchase), Some(original.clone()));
    assert_eq!(Some(original.to_field().as_str()), reversal.text(90));
    assert_eq!(purchase.original(), None);
}

#[test]
fn original_data_needs_a_trace_number_and_a_time() {
    let mti = Mti::AuthorizationRequest;
    assert_eq!(Original::of(&with(mti, &[(7, "1127221500")])), None);
    assert_eq!(Original::of(&with(mti, &[(11, "004711")])), None);
    let whole = [
        (7, "1127221500"),
        (11, "004711"),
        (32, "12345678901"),
        (33, "7"),
    ];
    let original = Original::of(&with(mti, &whole)).unwrap();
    assert_eq!(
        original.to_field(),
        "010000471111272215001234567890100000000007"
    );
}

#[test]
fn card_acceptors_are_split_as_their_network_has_it() {
    let check = |text: &str, layout, expected: (&str, &str, &str)| {
        let message = with(Mti::AuthorizationRequest, &[(43, text)]);
        let acceptor = message.card_acceptor(layout).unwrap();
        assert_eq!((acceptor.name, acceptor.city, acceptor.country), expected);
    };
    let visa = "TARGET T-1234            MINNEAPOLIS  US";
    check(
        visa,
        CardAcceptorLayout::Visa,
        ("TARGET T-1234", "MINNEAPOLIS", "US"),
    );
    let full = "WHOLE FOODS MARKET NUM 12MINNEAPOLIS MUS";
    let parts = ("WHOLE FOODS MARKET NUM 12", "MINNEAPOLIS M", "US");
    check(full, CardAcceptorLayout::Visa, parts);
    let mastercard = "MICROSOFT   *XBOX      BILL.XBOX.COM IRL";
    let parts = ("MICROSOFT   *XBOX", "BILL.XBOX.COM", "IRL");
    check(mastercard, CardAcceptorLayout::Mastercard, parts);
    let state = "3600 LAS VEGAS BLVD SO LAS VEGAS      NV";
    let parts = ("3600 LAS VEGAS BLVD SO", "LAS VEGAS", "NV");
    check(state, CardAcceptorLayout::Mastercard, parts);
    check(&" ".repeat(40), CardAcceptorLayout::Visa, ("", "", ""));
    let none = Message::new(Mti::AuthorizationRequest);
    assert_eq!(none.card_acceptor(CardAcceptorLayout::Visa), None);
}

#[test]
fn secrets_are_shown_only_to_who_asks_for_them() {
    let message = Golden::case("every field").message();
    let secret = [2, 14, 34, 35, 36, 45, 46, 47, 48, 52, 53].into_iter();
    let secret: Vec<u8> = secret.chain(55..=64).chain([96]).chain(102..=128).collect();
    for (field, value) in message.values() {
        assert_eq!(
            message.text(field).is_none(),
            secret.contains(&field),
            "{field}"
        );
        assert_eq!(message.secret(field).unwrap().expose_secret(), value);
    }
    assert_eq!(message.text(4), Some("999999999999"));
    assert_eq!(message.text(65), None);
    assert!(Message::new(Mti::NetworkRequest).secret(2).is_none());
}
