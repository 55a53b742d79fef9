//! `standin bank token`: what stands for a card's number in the table of cards.

use std::io::{BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use standin_core::card_number::holds_card_number;
use standin_core::id::BankId;
use standin_core::identity::DeploymentKey;
use standin_edge::adapter::Format;
use standin_edge::config::Config;

use crate::out::{say, say_json};
use crate::secret;

/// The edge's own variables.
const KEY: &str = "STANDIN_EDGE__DEPLOYMENT_KEY";
const KEY_FILE: &str = "STANDIN_EDGE__DEPLOYMENT_KEY_FILE";
/// Most that is read of standard input: a number and some blanks.
const INPUT_BYTES_MAX: u64 = 256;

/// Makes the token of a card number, for banks whose messages carry numbers (ISO 8583).
///
/// The number is read from standard input, so that no history of a shell and no list of processes has it; it
/// is printed nowhere. The token is what every edge with the same deployment key makes of that number when a
/// message of the bank comes: give it to the card's shopper with `standin trips card`. Another bank or
/// another key makes another token.
///
/// The deployment key is taken from the edge's configuration (--config, which also says whether the bank
/// speaks ISO 8583), from a file (--deployment-key-file), or as an edge takes it from the environment:
/// STANDIN_EDGE__DEPLOYMENT_KEY_FILE or STANDIN_EDGE__DEPLOYMENT_KEY. Whoever has it can try numbers
/// against tokens.
///
/// Exit code: 0 made, 2 not a card number, no such bank or no key, 1 something could not be read.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin bank token --bank acme --config edge.toml            type the number, then Enter
  standin bank token --bank acme --deployment-key-file deployment.key < number.txt
  standin trips card --bank acme --shopper 7 \\
    --token \"$(standin bank token --bank acme --config edge.toml)\"")]
pub struct Args {
    /// Slug of the bank whose messages carry the number.
    #[arg(long, value_name = "SLUG", env = "STANDIN_BANK")]
    bank: BankId,
    /// The edge's configuration; the environment is laid over it as the edge does.
    #[arg(long, value_name = "FILE", env = "STANDIN_EDGE_CONFIG")]
    config: Option<PathBuf>,
    /// A file with the deployment key, instead of the configuration's.
    #[arg(long, value_name = "FILE")]
    deployment_key_file: Option<PathBuf>,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Made<'a> {
    bank: &'a BankId,
    token: String,
}

/// Why there is no token. No digit of what was written is in it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
enum Unusable {
    #[error("no card number: write one to standard input")]
    Empty,
    #[error("more than one line: one card number at a time")]
    Lines,
    #[error("not a card number: only digits, in one piece or in groups with blanks or hyphens")]
    Characters,
    #[error("not a card number: it has 13 to 19 digits, these are {0}")]
    Length(usize),
    #[error("not a card number: its last digit does not check the others, so one of them is wrong")]
    CheckDigit,
    #[error(
        "no deployment key: give --config or --deployment-key-file, or set {KEY_FILE} or {KEY}"
    )]
    NoKey,
    #[error("{0} holds no deployment key: that is 16 bytes or more in base64")]
    Key(String),
    #[error("{0}")]
    Config(String),
    #[error("{file} knows no bank {bank}")]
    NoBank { file: String, bank: BankId },
    #[error("{bank} does not speak ISO 8583: its messages name cards by tokens of its own")]
    OtherFormat { bank: BankId },
}

// === impl Args ===

impl Args {
    /// Runs it.
    pub(super) fn run(self) -> anyhow::Result<u8> {
        match self.make() {
            Ok(made) if self.json => say_json(&made)?,
            Ok(made) => say(made.token),
            Err(error) => match error.downcast::<Unusable>() {
                Ok(unusable) => {
                    eprintln!("standin: {unusable}");
                    return Ok(2);
                }
                Err(error) => return Err(error),
            },
        }
        Ok(0)
    }

    fn make(&self) -> anyhow::Result<Made<'_>> {
        // Before anybody types.
        let key = self.key()?;
        let number = number(&input()?)?;
        Ok(Made {
            bank: &self.bank,
            token: key.card_token(&self.bank, &number),
        })
    }

    fn key(&self) -> anyhow::Result<DeploymentKey> {
        if let Some(file) = &self.deployment_key_file {
            return key_in(file);
        }
        if let Some(file) = &self.config {
            return self.key_of(file);
        }
        match (std::env::var_os(KEY_FILE), std::env::var(KEY)) {
            (Some(file), _) => key_in(Path::new(&file)),
            (None, Ok(text)) => Ok(key(&text, KEY)?),
            (None, Err(_)) => Err(Unusable::NoKey.into()),
        }
    }

    /// That of an edge with this configuration, which has to know the bank.
    fn key_of(&self, file: &Path) -> anyhow::Result<DeploymentKey> {
        let text = read(file)?;
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let environment = std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value)));
        let loaded = Config::load(Some(&text), environment);
        let (config, _settings) =
            loaded.map_err(|errors| Unusable::Config(format!("{}: {errors}", file.display())))?;
        let bank = config.bank(self.bank.as_str());
        let bank = bank.ok_or_else(|| Unusable::NoBank {
            file: file.display().to_string(),
            bank: self.bank.clone(),
        })?;
        if bank.format != Format::Iso8583 {
            let bank = self.bank.clone();
            return Err(Unusable::OtherFormat { bank }.into());
        }
        Ok(config.deployment_key)
    }
}

fn key_in(file: &Path) -> anyhow::Result<DeploymentKey> {
    Ok(key(&read(file)?, &file.display().to_string())?)
}

fn key(text: &str, origin: &str) -> Result<DeploymentKey, Unusable> {
    secret::deployment_key(text).ok_or_else(|| Unusable::Key(origin.to_owned()))
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// What is written to standard input: of somebody who types one line, else all of it.
fn input() -> anyhow::Result<Vec<u8>> {
    let stdin = std::io::stdin();
    let is_typed = stdin.is_terminal();
    let mut from = stdin.lock().take(INPUT_BYTES_MAX);
    let mut bytes = Vec::new();
    let read = if is_typed {
        eprint!("Card number: ");
        from.read_until(b'\n', &mut bytes)
    } else {
        from.read_to_end(&mut bytes)
    };
    read.context("cannot read standard input")?;
    Ok(bytes)
}

/// The digits of a card number, as a message has them.
fn number(input: &[u8]) -> Result<String, Unusable> {
    let text = input.trim_ascii();
    if text.is_empty() {
        return Err(Unusable::Empty);
    }
    if text.contains(&b'\n') {
        return Err(Unusable::Lines);
    }
    let groups = text.iter().filter(|byte| !matches!(byte, b' ' | b'-'));
    let digits: Option<String> = groups
        .map(|byte| byte.is_ascii_digit().then_some(char::from(*byte)))
        .collect();
    let digits = digits.ok_or(Unusable::Characters)?;
    match digits.len() {
        13..=19 => {}
        found => return Err(Unusable::Length(found)),
    }
    if !holds_card_number(&digits) {
        return Err(Unusable::CheckDigit);
    }
    Ok(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `standin bank listen`.
    const NUMBER: &str = "4111111111111111";

    fn args(config: Option<PathBuf>, deployment_key_file: Option<PathBuf>) -> Args {
        Args {
            bank: "acme".parse().unwrap(),
            config,
            deployment_key_file,
            json: false,
        }
    }

    #[test]
    fn a_number_is_read_as_it_stands_on_a_card_or_in_a_file() {
        for written in [
            "4111111111111111",
            " 4111 1111 1111 1111\r\n",
            "4111-1111-1111-1111\n\n",
        ] {
            assert_eq!(number(written.as_bytes()), Ok(NUMBER.to_owned()));
        }
    }

    #[test]
    fn what_is_no_number_is_refused_without_a_digit_of_it() {
        for (written, expected) in [
            ("", Unusable::Empty),
            (" \n", Unusable::Empty),
            ("4111111111111111\n5555555555554444", Unusable::Lines),
            ("4111111111111111=3012", Unusable::Characters),
            ("4111111111111١11", Unusable::Characters),
            ("411111111111", Unusable::Length(12)),
            ("41111111111111111111", Unusable::Length(20)),
            ("4111111111111112", Unusable::CheckDigit),
            ("0000000000000000", Unusable::CheckDigit),
        ] {
            let error = number(written.as_bytes()).unwrap_err();
            assert_eq!(error, expected, "{written}");
            assert!(!error.to_string().contains("41111"), "{error}");
        }
    }

    #[test]
    fn the_token_is_the_edges_own_wherever_the_key_is_from() {
        let folder = tempfile::tempdir().unwrap();
        let (key_file, config) = (folder.path().join("key"), folder.path().join("edge.toml"));
        let text = crate::secret::fresh_key();
        std::fs::write(&key_file, format!("{text}\n")).unwrap();
        let edge = |format: &str| {
            let toml = format!(
                "deployment_key_file = {key_file:?}\n[wal]\ndir = \"w\"\n{format}\nslug = \"acme\"\n"
            );
            std::fs::write(&config, toml).unwrap();
            args(Some(config.clone()), None).key()
        };
        let speaks = "[iso8583]\nlisten = \"127.0.0.1:0\"\n[[banks]]\nadapter = \"iso8583\"";
        let of_config = edge(speaks).unwrap();
        let of_file = args(None, Some(key_file.clone())).key().unwrap();
        let bank = "acme".parse().unwrap();
        let token = crate::secret::deployment_key(&text).unwrap();
        let token = token.card_token(&bank, NUMBER);
        assert_eq!(of_config.card_token(&bank, NUMBER), token);
        assert_eq!(of_file.card_token(&bank, NUMBER), token);

        let usage = |error: anyhow::Error| error.downcast::<Unusable>().unwrap();
        let other = "[[banks]]\nadapter = \"marqeta\"\nsignature = \"stripe\"\nsecrets = [\"whsec_5PgFv1X0dC3hJ2kQm8rTyUzL\"]";
        assert_eq!(
            usage(edge(other).unwrap_err()),
            Unusable::OtherFormat { bank }
        );
        let nobody = Args {
            bank: "nobody".parse().unwrap(),
            ..args(Some(config.clone()), None)
        };
        assert!(matches!(
            usage(nobody.key().unwrap_err()),
            Unusable::NoBank { .. }
        ));
        std::fs::write(&config, "listen = 7").unwrap();
        let wrong = usage(nobody.key().unwrap_err());
        assert!(matches!(wrong, Unusable::Config(_)), "{wrong}");
        std::fs::write(&key_file, "c2hvcnQ=").unwrap();
        let short = usage(args(None, Some(key_file.clone())).key().unwrap_err());
        assert!(matches!(short, Unusable::Key(_)), "{short}");
        std::fs::remove_file(&key_file).unwrap();
        assert!(
            args(None, Some(key_file))
                .key()
                .unwrap_err()
                .downcast::<Unusable>()
                .is_err()
        );
    }
}
