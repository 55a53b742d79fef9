use super::*;

#[test]
fn messages_are_the_bytes_that_pyiso8583_writes() {
    for case in Golden::read().cases {
        let message = case.message();
        for encoding in ENCODINGS {
            let bytes = case.bytes(encoding);
            assert_eq!(message.encode(encoding), bytes, "{}", case.name);
            let read = Message::decode(&bytes, encoding);
            assert_eq!(read.as_ref(), Ok(&message), "{}", case.name);
        }
    }
}

#[test]
fn every_message_type_has_a_golden_message() {
    let cases = Golden::read().cases;
    for mti in Mti::ALL {
        assert!(cases.iter().any(|case| case.mti == mti.digits()), "{mti}");
    }
}

#[test]
fn the_table_is_that_of_pyiso8583_where_it_has_a_field() {
    for (field, digits, max, is_binary) in Golden::read().table {
        let Some(spec) = spec(field) else { continue };
        assert_eq!(spec.length.digits(), digits, "{field}");
        assert_eq!(spec.length.max(), max, "{field}");
        assert_eq!(spec.class == Class::Binary, is_binary, "{field}");
    }
}

#[test]
fn fields_of_other_messages_are_not_in_the_table() {
    let unknown: Vec<u8> = (0..=255).filter(|field| spec(*field).is_none()).collect();
    let expected = [0, 1].into_iter().chain(65..=69).chain(71..=89);
    let expected = expected.chain([91, 92, 93, 97, 98]).chain(129..=255);
    assert_eq!(unknown, expected.collect::<Vec<u8>>());
}

#[test]
fn the_longest_message_fits_its_bound_and_a_frame() {
    let mut message = Message::new(Mti::AuthorizationRequest);
    for field in 0..=255 {
        if let Some(spec) = spec(field) {
            let filler = if spec.class == Class::SignedDigits {
                "C00000000"
            } else {
                "0"
            };
            message
                .set(field, filler.repeat(spec.length.max() / filler.len()))
                .unwrap();
        }
    }
    let bytes = message.encode(Encoding::Ascii);
    assert_eq!(bytes.len(), MESSAGE_BYTES_MAX);
    assert_eq!(Message::decode(&bytes, Encoding::Ascii), Ok(message));
    assert!(frame::frame(&bytes).is_some());
}

#[test]
fn types_have_their_digits_and_their_answers() {
    let answers = [
        ("0100", Some("0110")),
        ("0101", Some("0110")),
        ("0110", None),
        ("0120", Some("0130")),
        ("0121", Some("0130")),
        ("0130", None),
        ("0400", Some("0410")),
        ("0401", Some("0410")),
        ("0410", None),
        ("0420", Some("0430")),
        ("0421", Some("0430")),
        ("0430", None),
        ("0800", Some("0810")),
        ("0810", None),
    ];
    for ((digits, answer), mti) in answers.into_iter().zip(Mti::ALL) {
        assert_eq!(Mti::of(digits), Some(mti));
        assert_eq!(mti.to_string(), digits);
        assert_eq!(mti.response().map(Mti::digits), answer);
        assert_eq!(mti.is_repeat(), digits.ends_with('1'));
    }
    assert_eq!(Mti::of("0200"), None);
}
