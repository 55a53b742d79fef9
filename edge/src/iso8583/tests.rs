#![allow(
    clippy::arithmetic_side_effects,
    clippy::inconsistent_digit_grouping,
    reason = "test code; amounts are written in cents"
)]

use std::collections::BTreeMap;

use serde::Deserialize;

use super::table::spec;
use super::*;

mod faults;
mod golden;
mod parts;
mod random;
mod replies;

const ENCODINGS: [Encoding; 2] = [Encoding::Ascii, Encoding::AsciiBinary];

/// Messages that pyiso8583 wrote; how is said in `golden/make.py`.
#[derive(Deserialize)]
struct Golden {
    /// Field, digits of its length, longest value in characters or bytes, whether it is binary.
    table: Vec<(u8, usize, usize, bool)>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    mti: String,
    fields: BTreeMap<u8, String>,
    ascii: String,
    ascii_binary: String,
}

impl Golden {
    fn read() -> Self {
        serde_json::from_str(include_str!("golden/golden.json")).unwrap()
    }

    fn case(name: &str) -> Case {
        let case = Self::read()
            .cases
            .into_iter()
            .find(|case| case.name == name);
        case.unwrap()
    }
}

impl Case {
    fn message(&self) -> Message {
        let mut message = Message::new(Mti::of(&self.mti).unwrap());
        for (field, text) in &self.fields {
            let value = match spec(*field).unwrap().class {
                Class::Binary => of_hex(text),
                _ => text.clone().into_bytes(),
            };
            message.set(*field, value).unwrap();
        }
        message
    }

    fn bytes(&self, encoding: Encoding) -> Vec<u8> {
        match encoding {
            Encoding::Ascii => self.ascii.clone().into_bytes(),
            Encoding::AsciiBinary => of_hex(&self.ascii_binary),
        }
    }
}

fn of_hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().collect();
    let pairs = digits.chunks(2).map(String::from_iter);
    pairs
        .map(|pair| u8::from_str_radix(&pair, 16).unwrap())
        .collect()
}

fn with(mti: Mti, fields: &[(u8, &str)]) -> Message {
    let mut message = Message::new(mti);
    for (field, value) in fields {
        message.set(*field, value).unwrap();
    }
    message
}
