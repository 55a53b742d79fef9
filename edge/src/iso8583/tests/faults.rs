use super::*;

/// What is wrong with a message of one field: type 0100, its bitmap, and `tail`.
fn check(encoding: Encoding, field: u8, tail: &[u8], expected: DecodeError) {
    let bytes = [head(encoding, field).as_slice(), tail].concat();
    let undecoded = Message::decode(&bytes, encoding).unwrap_err();
    assert_eq!(undecoded.error, expected, "field {field} in {encoding:?}");
    assert_eq!(undecoded.to_string(), expected.to_string());
}

fn check_text(field: u8, tail: &str, expected: &DecodeError) {
    for encoding in ENCODINGS {
        check(encoding, field, tail.as_bytes(), expected.clone());
    }
}

fn head(encoding: Encoding, field: u8) -> Vec<u8> {
    let mut bits = 1_u128 << (128 - u32::from(field));
    if field > 64 {
        bits |= 1 << 127;
    }
    let bitmap = bits.to_be_bytes();
    let bitmap = if field > 64 {
        &bitmap[..]
    } else {
        &bitmap[..8]
    };
    let bitmap = match encoding {
        Encoding::AsciiBinary => bitmap.to_vec(),
        Encoding::Ascii => {
            let digits = bitmap.iter().map(|byte| format!("{byte:02X}"));
            digits.collect::<String>().into_bytes()
        }
    };
    [b"0100".as_slice(), &bitmap].concat()
}

fn length(field: u8, found: usize, expected: Length) -> DecodeError {
    DecodeError::Field(FieldError::Length {
        field,
        found,
        expected,
    })
}

fn characters(field: u8, expected: Class) -> DecodeError {
    DecodeError::Field(FieldError::Characters { field, expected })
}

#[test]
fn every_cut_says_where_the_message_ends() {
    for case in Golden::read().cases {
        for encoding in ENCODINGS {
            let bytes = case.bytes(encoding);
            for cut in 0..bytes.len() {
                let undecoded = Message::decode(&bytes[..cut], encoding).unwrap_err();
                let error = undecoded.error;
                assert!(matches!(error, DecodeError::Ended { .. }), "{cut}: {error}");
            }
        }
    }
    let ended = |inside| DecodeError::Ended { inside };
    let cut = |bytes: &[u8]| Message::decode(bytes, Encoding::Ascii).unwrap_err().error;
    assert_eq!(cut(b"010"), ended(Part::Mti));
    assert_eq!(cut(b"0100700000000000000"), ended(Part::Bitmap));
    assert_eq!(cut(b"0800800000000000000004"), ended(Part::Bitmap));
    check_text(2, "", &ended(Part::Field(2)));
    check_text(2, "1", &ended(Part::Field(2)));
    check_text(2, "16411111", &ended(Part::Field(2)));
    check_text(4, "00000000012", &ended(Part::Field(4)));
    check_text(52, "0123456", &ended(Part::Field(52)));
}

#[test]
fn bytes_after_the_last_field_are_refused() {
    check_text(3, "000000 ", &DecodeError::Trailing { bytes: 1 });
    check_text(3, "00000011", &DecodeError::Trailing { bytes: 2 });
}

#[test]
fn a_message_longer_than_any_is_refused_unread() {
    let bytes = vec![b'0'; MESSAGE_BYTES_MAX + 1];
    for encoding in ENCODINGS {
        let undecoded = Message::decode(&bytes, encoding).unwrap_err();
        let bytes = bytes.len();
        assert_eq!(undecoded.error, DecodeError::TooLarge { bytes });
        assert_eq!(undecoded.read, None);
    }
}

#[test]
fn types_that_are_none_are_told_from_types_that_are_not_ours() {
    let error = |bytes: &[u8]| Message::decode(bytes, Encoding::Ascii).unwrap_err().error;
    for digits in ["0200", "0111", "0122", "1100", "0000", "9999"] {
        let unknown = DecodeError::UnknownMti {
            digits: digits.to_owned(),
        };
        assert_eq!(
            error(format!("{digits}0000000000000000").as_bytes()),
            unknown
        );
        // It can be told before the rest is.
        assert_eq!(error(digits.as_bytes()), unknown);
    }
    for bytes in [
        b"01OO".as_slice(),
        b"\x01\x00\x72\x38",
        b" 100",
        b"+100",
        b"\xFF100",
    ] {
        assert_eq!(error(bytes), DecodeError::Mti);
    }
}

#[test]
fn bitmaps_are_upper_case_hex_and_needed() {
    let error = |bytes: &[u8]| Message::decode(bytes, Encoding::Ascii).unwrap_err().error;
    for bitmap in [
        "72384481o8E08000",
        "72384481 8E08000",
        "7238448108e08000",
        "7238448108E0800\u{7f}",
    ] {
        assert_eq!(
            error(format!("0100{bitmap}").as_bytes()),
            DecodeError::Bitmap
        );
    }
    let second = "08008000000000000000040000000000000g301";
    assert_eq!(error(second.as_bytes()), DecodeError::Bitmap);
    let empty = "080080000000000000000000000000000000";
    assert_eq!(error(empty.as_bytes()), DecodeError::EmptyBitmap);
    let empty = [b"0800\x80".as_slice(), &[0; 15]].concat();
    let undecoded = Message::decode(&empty, Encoding::AsciiBinary).unwrap_err();
    assert_eq!(undecoded.error, DecodeError::EmptyBitmap);
}

#[test]
fn a_bit_of_an_unknown_field_is_refused() {
    for field in [65, 66, 69, 71, 89, 91, 98] {
        check_text(field, "0000", &FieldError::Unknown { field }.into());
    }
}

#[test]
fn lengths_are_digits_and_in_bounds() {
    for prefix in ["1 ", " 6", "+6", "-6", "0x", "1_", "\u{7f}6"] {
        check_text(
            32,
            &format!("{prefix}123456"),
            &DecodeError::Prefix { field: 32 },
        );
    }
    check_text(48, "00A", &DecodeError::Prefix { field: 48 });
    check_text(55, "  4ABCD", &DecodeError::Prefix { field: 55 });
    check_text(2, "00", &length(2, 0, Length::UpTo99(19)));
    check_text(
        2,
        "2012345678901234567890",
        &length(2, 20, Length::UpTo99(19)),
    );
    check_text(32, "12123456789012", &length(32, 12, Length::UpTo99(11)));
    check_text(48, "000", &length(48, 0, Length::UpTo999(999)));
    check_text(54, "241", &length(54, 241, Length::UpTo999(240)));
    check_text(55, "000", &length(55, 0, Length::UpTo999(255)));
    check(
        Encoding::AsciiBinary,
        55,
        b"256",
        length(55, 256, Length::UpTo999(255)),
    );
    check(
        Encoding::Ascii,
        55,
        b"511",
        length(55, 256, Length::UpTo999(255)),
    );
}

#[test]
fn binary_fields_in_ascii_are_pairs_of_upper_case_hex_digits() {
    for digits in ["0123456789abcdef", "0123456789ABCDEG", "0123456789ABCDE "] {
        check(
            Encoding::Ascii,
            52,
            digits.as_bytes(),
            DecodeError::Hex { field: 52 },
        );
        check(
            Encoding::Ascii,
            128,
            digits.as_bytes(),
            DecodeError::Hex { field: 128 },
        );
    }
    check(
        Encoding::Ascii,
        55,
        b"003ABC",
        DecodeError::Hex { field: 55 },
    );
    check(
        Encoding::Ascii,
        55,
        b"004ABCd",
        DecodeError::Hex { field: 55 },
    );
}

#[test]
fn characters_are_those_of_the_class() {
    let cases: [(u8, &str, Class); 19] = [
        (2, "16411111111111111A", Class::Digits),
        (3, "00000 ", Class::Digits),
        (4, "-00000000001", Class::Digits),
        (4, "00000000 100", Class::Digits),
        (4, "000000001.00", Class::Digits),
        (28, "X00000001", Class::SignedDigits),
        (28, "000000001", Class::SignedDigits),
        (28, "C0000000 ", Class::SignedDigits),
        (35, "154111=30122010?x", Class::Track),
        (35, "044 11", Class::Track),
        (37, " 12345678901", Class::Alphanumeric),
        (37, "12345 789012", Class::Alphanumeric),
        (38, "A1B2C\n", Class::Alphanumeric),
        (39, "0-", Class::Alphanumeric),
        (41, "TERM\u{0}001", Class::Printable),
        (41, "TERM001\u{7f}", Class::Printable),
        (49, "USD", Class::Digits),
        (
            95,
            "00000000 000000000000000000C00000000D00000",
            Class::Replacement,
        ),
        (
            95,
            "000000000000000000000000C00000000-00000000",
            Class::Replacement,
        ),
    ];
    for (field, tail, class) in cases {
        check_text(field, tail, &characters(field, class));
    }
    for encoding in ENCODINGS {
        check(
            encoding,
            41,
            b"CAF\xC3\x89 01",
            characters(41, Class::Printable),
        );
    }
}

#[test]
fn what_cannot_be_read_cannot_be_set_either() {
    let mut message = Message::new(Mti::AuthorizationRequest);
    let unknown = |field| Err(FieldError::Unknown { field });
    for field in [0, 1, 65, 66, 129, 255] {
        assert_eq!(message.set(field, "0"), unknown(field));
    }
    let expected = Length::Fixed(12);
    let found = FieldError::Length {
        field: 4,
        found: 3,
        expected,
    };
    assert_eq!(message.set(4, "100"), Err(found));
    let found = FieldError::Characters {
        field: 4,
        expected: Class::Digits,
    };
    assert_eq!(message.set(4, "        1.00"), Err(found));
    assert_eq!(message.fields().count(), 0);
    // The one that was there stays.
    message.set(3, "000000").unwrap();
    assert!(message.set(3, "x").is_err());
    assert_eq!(message.text(3), Some("000000"));
    message.remove(3);
    assert_eq!(message, Message::new(Mti::AuthorizationRequest));
}

#[test]
fn what_was_read_before_a_fault_can_be_answered() {
    let case = Golden::case("a purchase");
    for encoding in ENCODINGS {
        let mut bytes = case.bytes(encoding);
        *bytes.last_mut().unwrap() = b'x';
        let undecoded = Message::decode(&bytes, encoding).unwrap_err();
        assert_eq!(undecoded.error, characters(49, Class::Digits));
        let mut expected = case.message();
        expected.remove(49);
        assert_eq!(undecoded.read.as_deref(), Some(&expected));
    }
}

#[test]
fn errors_say_where_and_what_was_expected() {
    let says = |error: DecodeError, text: &str| assert_eq!(error.to_string(), text);
    says(
        length(2, 20, Length::UpTo99(19)),
        "field 2 has a length of 20, it should be 1 to 19",
    );
    says(
        length(48, 0, Length::UpTo999(999)),
        "field 48 has a length of 0, it should be 1 to 999",
    );
    says(
        length(4, 3, Length::Fixed(12)),
        "field 4 has a length of 3, it should be 12",
    );
    let classes = [
        (Class::Digits, "digits"),
        (Class::SignedDigits, "C or D, and digits"),
        (
            Class::Alphanumeric,
            "letters and digits, with blanks at the end only",
        ),
        (Class::Printable, "printable ASCII"),
        (Class::Track, "track characters"),
        (
            Class::Replacement,
            "twelve digits, and letters, digits or blanks",
        ),
        (Class::Binary, "bytes"),
    ];
    for (class, text) in classes {
        says(characters(35, class), &format!("field 35 should be {text}"));
    }
    says(
        FieldError::Unknown { field: 65 }.into(),
        "field 65 is not known",
    );
    let inside = [
        (Part::Mti, "the message type"),
        (Part::Bitmap, "a bitmap"),
        (Part::Field(2), "field 2"),
    ];
    for (inside, text) in inside {
        says(
            DecodeError::Ended { inside },
            &format!("the message ends inside {text}"),
        );
    }
    says(DecodeError::Mti, "the message type is not four digits");
    let unknown = DecodeError::UnknownMti {
        digits: "0200".to_owned(),
    };
    says(unknown, "message type 0200 is not known");
    says(DecodeError::Bitmap, "a bitmap is not upper-case hex");
    says(DecodeError::EmptyBitmap, "the second bitmap is empty");
    says(
        DecodeError::Prefix { field: 2 },
        "the length of field 2 is not digits",
    );
    says(
        DecodeError::Hex { field: 55 },
        "field 55 is not pairs of upper-case hex digits",
    );
    says(
        DecodeError::Trailing { bytes: 3 },
        "3 bytes follow the last field",
    );
    let large = format!("70000 bytes, a message has {MESSAGE_BYTES_MAX} at most");
    says(DecodeError::TooLarge { bytes: 70_000 }, &large);
}

#[test]
fn neither_messages_nor_errors_show_a_value() {
    let message = Golden::case("every field").message();
    let shown = format!("{message:?} {message:#?}");
    assert!(shown.contains("AuthorizationRequest"), "{shown}");
    for (field, value) in message.values() {
        // Shorter ones occur by chance.
        if let Ok(text) = std::str::from_utf8(value)
            && text.len() > 3
        {
            assert!(!shown.contains(text), "field {field} in {shown}");
        }
    }
    // A card number with each of its characters spoilt, and behind each kind of length.
    let number = "4111111111111111";
    for at in 0..number.len() {
        let mut spoilt = number.to_owned();
        spoilt.replace_range(at..=at, "x");
        for prefix in ["16", "99", "15", "1x"] {
            for encoding in ENCODINGS {
                let bytes = [&head(encoding, 2), format!("{prefix}{spoilt}").as_bytes()].concat();
                let undecoded = Message::decode(&bytes, encoding).unwrap_err();
                let shown = format!("{undecoded} {undecoded:?}");
                assert!(!shown.contains("11"), "{shown}");
            }
        }
    }
}
