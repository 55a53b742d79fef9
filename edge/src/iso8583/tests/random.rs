use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

fn known() -> Vec<u8> {
    (0..=255).filter(|field| spec(*field).is_some()).collect()
}

/// A value of this class and length.
fn value(class: Class, length: usize) -> BoxedStrategy<Vec<u8>> {
    let of = |characters: Vec<u8>, length| vec(select(characters), length);
    let digits = || (b'0'..=b'9').collect::<Vec<u8>>();
    let letters = || [digits(), (b'A'..=b'Z').collect(), (b'a'..=b'z').collect()].concat();
    match class {
        Class::Digits => of(digits(), length).boxed(),
        Class::SignedDigits => (select(b"CD".to_vec()), of(digits(), length - 1))
            .prop_map(|(sign, digits)| [vec![sign], digits].concat())
            .boxed(),
        Class::Alphanumeric => (of(letters(), length), 0..=length)
            .prop_map(|(mut text, kept)| {
                text[kept..].fill(b' ');
                text
            })
            .boxed(),
        Class::Printable => of((b' '..=b'~').collect(), length).boxed(),
        Class::Track => of([(b'0'..=b'?').collect(), vec![b'D']].concat(), length).boxed(),
        Class::Replacement => {
            let rest = of([letters(), vec![b' ']].concat(), length - 12);
            (of(digits(), 12), rest)
                .prop_map(|(amount, rest)| [amount, rest].concat())
                .boxed()
        }
        Class::Binary => vec(any::<u8>(), length).boxed(),
    }
}

fn field() -> impl Strategy<Value = (u8, Vec<u8>)> {
    select(known()).prop_flat_map(|field| {
        let spec = spec(field).unwrap();
        let lengths = match spec.length {
            Length::Fixed(length) => length..=length,
            Length::UpTo99(max) | Length::UpTo999(max) => 1..=max,
        };
        let values = lengths.prop_flat_map(move |length| value(spec.class, length));
        values.prop_map(move |value| (field, value))
    })
}

fn message() -> impl Strategy<Value = Message> {
    let fields = vec(field(), 0..24);
    (select(Mti::ALL.to_vec()), fields).prop_map(|(mti, fields)| {
        let mut message = Message::new(mti);
        for (field, value) in fields {
            message.set(field, value).unwrap();
        }
        message
    })
}

/// What is read must be written again as it was.
fn check(bytes: &[u8], encoding: Encoding) -> Result<(), TestCaseError> {
    match Message::decode(bytes, encoding) {
        Ok(message) => prop_assert_eq!(message.encode(encoding), bytes),
        Err(undecoded) => drop(undecoded.to_string()),
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(message in message(), encoding in select(ENCODINGS.to_vec())) {
        let bytes = message.encode(encoding);
        prop_assert!(bytes.len() <= MESSAGE_BYTES_MAX);
        prop_assert_eq!(Message::decode(&bytes, encoding), Ok(message));
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..256), encoding in select(ENCODINGS.to_vec())) {
        check(&bytes, encoding)?;
        // Past the type, so that bitmaps and fields are met.
        check(&[b"0100".as_slice(), &bytes].concat(), encoding)?;
    }

    #[test]
    fn changed_messages_are_refused_or_written_as_they_came(
        message in message(),
        encoding in select(ENCODINGS.to_vec()),
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
        end in any::<Index>(),
    ) {
        let mut bytes = message.encode(encoding);
        for (at, byte) in changes {
            *at.get_mut(&mut bytes) = byte;
        }
        check(&bytes, encoding)?;
        bytes.truncate(end.index(bytes.len()));
        check(&bytes, encoding)?;
    }
}

#[test]
fn every_flipped_bit_is_refused_or_written_as_it_came() {
    for case in Golden::read().cases {
        for encoding in ENCODINGS {
            let bytes = case.bytes(encoding);
            // The longest is long for all of its bits.
            let step = (bytes.len() / 256).max(1);
            for bit in (0..bytes.len() * 8).step_by(step) {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                check(&flipped, encoding).unwrap();
            }
        }
    }
}
