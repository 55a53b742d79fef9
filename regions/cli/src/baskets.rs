//! Real grocery baskets, as CSV or CSV.gz, and the sample that is built in.
//!
//! Columns: `basket_id, shopper_id, store_id, at, product_id, department, category, quantity,
//! est_cents, actual_cents`; one row is one line of a till receipt, and the rows of a basket are
//! neighbours. What the data calls a shopper is the household that bought: our customer.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;

/// The built-in sample: every 25th basket of eight weeks (`tests/data/README.md` names the source).
pub const SAMPLE: &[u8] = include_bytes!("../../../tests/data/baskets-sample.csv.gz");
/// Most lines read from one file.
pub const LINES_MAX: usize = 2_000_000;
/// Most text read from one file, unpacked.
const BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// One till receipt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Basket {
    /// The receipt.
    pub id: i64,
    /// The household that bought.
    pub household: i64,
    /// Where.
    pub store: i64,
    /// When, RFC 3339.
    pub at: String,
    /// What.
    pub lines: Vec<Line>,
}

/// One line of a receipt. Amounts are US cents for the whole line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Product.
    pub product: i64,
    /// Department: `PRODUCE`, `GROCERY`, …; thresholds go by it.
    pub department: String,
    /// Units.
    pub quantity: u32,
    /// Listed price.
    pub listed: i64,
    /// What the till charged.
    pub actual: i64,
}

/// Why a file holds no baskets.
#[derive(Debug, thiserror::Error)]
pub enum BasketsError {
    /// Cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not the CSV that is wanted.
    #[error("line {line}: {detail}")]
    Row {
        /// Counted from 1, the header included.
        line: u64,
        /// What is wrong.
        detail: String,
    },
    /// No rows.
    #[error("no baskets in it")]
    Empty,
}

#[derive(Deserialize)]
struct Row {
    basket_id: i64,
    shopper_id: i64,
    store_id: i64,
    at: String,
    product_id: i64,
    department: String,
    quantity: u32,
    est_cents: i64,
    actual_cents: i64,
}

// === impl Basket ===

impl Basket {
    /// What the till charged in all, US cents.
    pub fn total(&self) -> i64 {
        self.lines
            .iter()
            .fold(0, |sum, line| sum.saturating_add(line.actual))
    }

    /// What the system listed in all, US cents.
    pub fn listed(&self) -> i64 {
        self.lines
            .iter()
            .fold(0, |sum, line| sum.saturating_add(line.listed))
    }
}

/// The built-in sample.
///
/// # Errors
/// Never, unless the build put another file in its place.
pub fn sample() -> Result<Vec<Basket>, BasketsError> {
    read(SAMPLE)
}

/// Reads a file, packed or not.
///
/// # Errors
/// When it cannot be read or is not what is wanted; the first fault is named.
pub fn open(path: &Path) -> Result<Vec<Basket>, BasketsError> {
    let file = File::open(path).map_err(|source| BasketsError::Io {
        path: path.to_owned(),
        source,
    })?;
    read(BufReader::new(file))
}

/// Reads baskets from CSV, or from gzip of it (told by its first two bytes).
///
/// # Errors
/// As [`open`].
pub fn read(mut input: impl Read) -> Result<Vec<Basket>, BasketsError> {
    let mut head = [0_u8; 2];
    let got = fill(&mut input, &mut head).map_err(|source| BasketsError::Io {
        path: PathBuf::from("baskets"),
        source,
    })?;
    let whole = std::io::Cursor::new(head).take(got).chain(input);
    if head == [0x1f, 0x8b] {
        rows(MultiGzDecoder::new(whole))
    } else {
        rows(whole)
    }
}

fn fill(input: &mut impl Read, head: &mut [u8; 2]) -> std::io::Result<u64> {
    let mut got = 0_usize;
    while let Some(rest) = head.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match input.read(rest)? {
            0 => break,
            more => got = got.saturating_add(more),
        }
    }
    Ok(u64::try_from(got).unwrap_or(0))
}

fn rows(input: impl Read) -> Result<Vec<Basket>, BasketsError> {
    let mut baskets: Vec<Basket> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut reader = csv::Reader::from_reader(input.take(BYTES_MAX));
    for (index, row) in reader.deserialize::<Row>().enumerate() {
        let line = u64::try_from(index).unwrap_or(u64::MAX).saturating_add(2);
        let fault = |detail: String| BasketsError::Row { line, detail };
        let row = row.map_err(|error| fault(error.to_string()))?;
        if index >= LINES_MAX {
            return Err(fault(format!("more than {LINES_MAX} lines")));
        }
        check(&row).map_err(fault)?;
        let started = baskets.last().map(|basket| basket.id) == Some(row.basket_id);
        if !started {
            if !seen.insert(row.basket_id) {
                return Err(fault("the rows of a basket are not neighbours".to_owned()));
            }
            baskets.push(Basket {
                id: row.basket_id,
                household: row.shopper_id,
                store: row.store_id,
                at: row.at,
                lines: Vec::new(),
            });
        }
        if let Some(basket) = baskets.last_mut() {
            basket.lines.push(Line {
                product: row.product_id,
                department: row.department,
                quantity: row.quantity,
                listed: row.est_cents,
                actual: row.actual_cents,
            });
        }
    }
    if baskets.is_empty() {
        return Err(BasketsError::Empty);
    }
    Ok(baskets)
}

fn check(row: &Row) -> Result<(), String> {
    let positive = |name: &str, value: i64| {
        if value > 0 {
            Ok(())
        } else {
            Err(format!("{name} = {value}: must be positive"))
        }
    };
    positive("basket_id", row.basket_id)?;
    positive("shopper_id", row.shopper_id)?;
    positive("store_id", row.store_id)?;
    positive("product_id", row.product_id)?;
    positive("quantity", i64::from(row.quantity))?;
    positive("est_cents", row.est_cents)?;
    positive("actual_cents", row.actual_cents)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "basket_id,shopper_id,store_id,at,product_id,department,category,quantity,est_cents,actual_cents\n";

    #[test]
    fn the_sample_spans_all_eight_weeks() {
        let baskets = sample().unwrap();
        assert_eq!(baskets.len(), 808);
        let weeks: BTreeSet<i64> = baskets
            .iter()
            .map(|basket| {
                let at: jiff::Timestamp = basket.at.parse().unwrap();
                let start: jiff::Timestamp = "2017-03-05T00:00:00Z".parse().unwrap();
                at.duration_since(start).as_hours().div_euclid(24 * 7)
            })
            .collect();
        assert_eq!(weeks, (0..8).collect());
        assert!(baskets.iter().all(|basket| !basket.lines.is_empty()));
    }

    #[test]
    fn plain_and_packed_text_read_the_same() {
        let text = format!("{HEADER}7,1,2,2017-03-05T00:00:09Z,9,PRODUCE,APPLES,1,250,262\n");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, text.as_bytes()).unwrap();
        let plain = read(text.as_bytes()).unwrap();
        assert_eq!(plain, read(packed.finish().unwrap().as_slice()).unwrap());
        assert_eq!((plain[0].total(), plain[0].listed()), (262, 250));
    }

    #[test]
    fn a_fault_names_its_line() {
        let row = |actual: &str| format!("7,1,2,2017-03-05T00:00:09Z,9,PRODUCE,A,1,250,{actual}\n");
        let check = |text: String, expected: &str| {
            let error = read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(
            format!("{HEADER}{}{}", row("1"), row("0")),
            "line 3: actual_cents",
        );
        check(format!("{HEADER}{}", row("x")), "line 2");
        check(HEADER.to_owned(), "no baskets");
        check("a,b\n1,2\n".to_owned(), "line 2");
        let split = format!("{HEADER}{}8{}{}", row("1"), &row("1")[1..], row("1"));
        check(split, "not neighbours");
    }
}
