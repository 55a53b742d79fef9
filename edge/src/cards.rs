//! Which shopper carries a card: this edge's copy of the ledger's table of cards, kept on disk for
//! starting while the ledger is away.
//!
//! A card that the copy does not hold is asked for in the ledger, where that answers: a new card works
//! at once. A card that was given to somebody else is noticed with the next refresh. The copy holds
//! [`CARDS_MAX`] cards; those beyond are asked for each time.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sha2::{Digest, Sha256};
use standin_core::id::{BankId, ShopperId};
use standin_core::ledger::{CARD_ROWS_MAX, Card, CardHolder, Ledger, LedgerError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::kept;

/// Most cards in the copy; about 40 bytes each.
pub const CARDS_MAX: usize = 1_000_000;
/// How long one page may take.
const PAGE_MAX: Duration = Duration::from_secs(5);
/// A refresh may take one part in so many of the time.
const SHARE: u32 = 20;

/// The copy.
pub struct Cards {
    holders: RwLock<HashMap<CardKey, ShopperId>>,
    ledger: Arc<dyn Ledger>,
    file: PathBuf,
    every: Duration,
}

/// The kept copy cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct CardsError {
    path: PathBuf,
    source: io::Error,
}

/// A card by its hash: tokens are longer than this, and no one table's cards share one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct CardKey([u8; 16]);

/// A whole read of the ledger's table.
struct Read {
    holders: HashMap<CardKey, ShopperId>,
    /// Every row in order, as the kept copy has it.
    lines: Vec<u8>,
}

// === impl Cards ===

impl Cards {
    /// A copy that holds nothing yet and is kept nowhere.
    pub fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self {
            holders: RwLock::default(),
            ledger,
            file: PathBuf::new(),
            every: Duration::MAX,
        }
    }

    /// Starts from the copy kept at `file`, if there is one.
    pub fn open(
        ledger: Arc<dyn Ledger>,
        file: PathBuf,
        every: Duration,
    ) -> Result<Self, CardsError> {
        let holders = read(&file).map_err(|source| CardsError {
            path: file.clone(),
            source,
        })?;
        Ok(Self {
            holders: RwLock::new(holders),
            ledger,
            file,
            every,
        })
    }

    /// Who carries a card, as far as the copy knows.
    pub fn holder(&self, card: &Card) -> Option<ShopperId> {
        let holders = self.holders.read().unwrap_or_else(PoisonError::into_inner);
        holders.get(&CardKey::of(card)).copied()
    }

    /// Asks the ledger who carries a card, and remembers it. The caller bounds the wait.
    pub async fn ask(&self, card: Card) -> Result<Option<ShopperId>, LedgerError> {
        let found = self.ledger.card_holder(card.clone()).await?;
        if let Some(shopper) = found {
            let mut holders = self.holders.write().unwrap_or_else(PoisonError::into_inner);
            if holders.len() < CARDS_MAX {
                holders.insert(CardKey::of(&card), shopper);
            }
        }
        Ok(found)
    }

    /// Refreshes until `stop` is cancelled.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut last = [0; 32];
        loop {
            let began = Instant::now();
            if let Some(read) = self.whole().await {
                self.take(read, &mut last).await;
            }
            // A large table is read less often: it must not take the ledger's time.
            let pause = self.every.max(began.elapsed().saturating_mul(SHARE));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Puts what was read in the place of the copy, unless it is the same as `last` time.
    async fn take(&self, read: Read, last: &mut [u8; 32]) {
        let Read { holders, lines } = read;
        let digest = Sha256::digest(&lines).into();
        if digest == *last {
            return;
        }
        *last = digest;
        // A disk may be slow: not on a thread that serves.
        let file = self.file.clone();
        let keep = move || kept::replace(&file, |file| file.write_all(&lines));
        let kept = tokio::task::spawn_blocking(keep).await;
        if let Err(error) = kept.unwrap_or_else(|gone| Err(io::Error::other(gone))) {
            tracing::warn!(%error, "the copy of the table of cards was not kept");
        }
        tracing::info!(cards = holders.len(), "table of cards refreshed");
        *self.holders.write().unwrap_or_else(PoisonError::into_inner) = holders;
    }

    /// Reads the whole table, page by page; `None` if the ledger did not answer.
    async fn whole(&self) -> Option<Read> {
        let mut read = Read {
            holders: HashMap::new(),
            lines: Vec::new(),
        };
        let mut after = None;
        loop {
            let page = self.ledger.cards(after.take(), CARD_ROWS_MAX);
            let page = match tokio::time::timeout(PAGE_MAX, page).await {
                Ok(Ok(page)) => page,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "the table of cards was not refreshed");
                    return None;
                }
                Err(_elapsed) => return None,
            };
            for row in &page {
                line(&mut read.lines, row).ok()?;
                read.holders.insert(CardKey::of(&row.card), row.shopper);
            }
            let full = page.len() == usize::try_from(CARD_ROWS_MAX).unwrap_or(usize::MAX);
            after = page.into_iter().next_back().map(|row| row.card);
            if !full || read.holders.len() >= CARDS_MAX {
                return Some(read);
            }
        }
    }
}

fn line(into: &mut Vec<u8>, row: &CardHolder) -> io::Result<()> {
    serde_json::to_writer(&mut *into, row)?;
    into.push(b'\n');
    Ok(())
}

fn read(path: &Path) -> io::Result<HashMap<CardKey, ShopperId>> {
    let mut holders = HashMap::new();
    let Some(file) = kept::open(path)? else {
        return Ok(holders);
    };
    for line in file.lines() {
        let row: CardHolder = serde_json::from_str(&line?)?;
        if holders.len() >= CARDS_MAX {
            break;
        }
        holders.insert(CardKey::of(&row.card), row.shopper);
    }
    Ok(holders)
}

// === impl CardKey ===

impl CardKey {
    fn of(card: &Card) -> Self {
        let digest = digest(&card.bank, &card.token);
        Self(digest.first_chunk::<16>().copied().unwrap_or_default())
    }
}

/// Of a bank's card.
pub(crate) fn digest(bank: &BankId, token: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(bank.as_str());
    // No slug holds it.
    hash.update([0]);
    hash.update(token);
    hash.finalize().into()
}
