//! Through the ledger, shopper by shopper, with the lines beside; then the lines that nobody met.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use standin_core::authorization::Merchant;
use standin_core::id::{ShopperId, StoreId, TransactionId, TripId};
use standin_core::ledger::AuthorizationRow;
use standin_core::ledger::clearing::{
    Beside, BesideAsk, CLEARING_ROWS_MAX, ClearingFile, ClearingLine,
};
use standin_core::merchant::Resolution;
use uuid::Uuid;

use super::super::kind::DiscrepancyKind;
use super::super::matching::{Group, Line, Outcome, Payment, Scope, Standing, match_group};
use super::{Job, JobError, Progress, order_of};

/// Payments asked for at once.
const PAGE_ROWS: u32 = 4_000;
/// Most payments of one shopper that are matched together; one who has more is matched in parts.
const GROUP_ROWS_MAX: usize = 50_000;
/// Most references remembered of lines that nobody met, to tell those that were told again.
const REFERENCES_MAX: usize = 1_000_000;

/// A bit for each line of the file: whether it was accounted for.
struct Seen(Vec<u64>);

/// Whose a line is, among the shoppers of a page.
struct Owners<'a> {
    by_payment: BTreeMap<TransactionId, ShopperId>,
    shoppers: BTreeSet<ShopperId>,
    /// Payments that the ledger knows, of other pages.
    elsewhere: BTreeSet<TransactionId>,
    files: &'a BTreeMap<Uuid, usize>,
}

impl Job<'_> {
    /// Matches everything.
    pub(super) async fn scan(
        &mut self,
        scope: &Scope,
        files: &[ClearingFile],
        last_line: u64,
    ) -> Result<(), JobError> {
        let files = order_of(files);
        let mut seen = Seen::up_to(last_line);
        let mut matched = 0_u64;
        let mut rows: Vec<AuthorizationRow> = Vec::new();
        let mut after = None;
        loop {
            let page = self.inputs.books.authorizations(after, PAGE_ROWS);
            let page = self.call(page).await?;
            let ended = page.is_empty();
            matched = matched.saturating_add(u64::try_from(page.len()).unwrap_or(u64::MAX));
            rows.extend(page);
            after = rows
                .last()
                .map(|row| (row.answer.shopper, row.answer.transaction_id))
                .or(after);
            // The last shopper may go on in the next page.
            let last = rows.last().map(|row| row.answer.shopper);
            let whole = rows.partition_point(|row| Some(row.answer.shopper) < last);
            let rest = if ended || rows.len() > GROUP_ROWS_MAX {
                Vec::new()
            } else {
                rows.split_off(whole)
            };
            let now = std::mem::replace(&mut rows, rest);
            self.page(now, scope, &files, &mut seen).await?;
            (self.progress)(Progress::Matched(matched));
            if ended {
                break;
            }
        }
        self.unmet(scope, &seen).await?;
        self.flush(scope).await
    }

    /// Matches whole shoppers.
    async fn page(
        &mut self,
        rows: Vec<AuthorizationRow>,
        scope: &Scope,
        files: &BTreeMap<Uuid, usize>,
        seen: &mut Seen,
    ) -> Result<(), JobError> {
        if rows.is_empty() {
            return Ok(());
        }
        let beside = self.beside(&rows, scope).await?;
        let mut owners = Owners {
            by_payment: rows
                .iter()
                .filter(|row| row.answer.bank == scope.bank)
                .map(|row| (row.answer.transaction_id, row.answer.shopper))
                .collect(),
            shoppers: rows.iter().map(|row| row.answer.shopper).collect(),
            elsewhere: BTreeSet::new(),
            files,
        };
        owners.elsewhere = self.elsewhere(&beside.lines, &owners).await?;
        let mut groups = groups(rows, &beside);
        for line in beside.lines {
            let Some(owner) = owners.of(&line) else {
                continue;
            };
            let named = line.transaction_id;
            let named = named.is_some_and(|id| owners.by_payment.contains_key(&id));
            let store = if named { None } else { self.store(&line) };
            if let Some(group) = groups.get_mut(&owner) {
                group.lines.push(Line { line, store });
            }
        }
        for (_, mut group) in groups {
            let place = |line: &Line| files.get(&line.line.file).copied();
            group
                .lines
                .sort_by_key(|line| (place(line), line.line.line));
            let outcome = match_group(&group, scope);
            for line in &outcome.lines {
                seen.mark(line.line);
            }
            self.counting.outcome(&outcome);
            self.found(outcome.found, scope).await?;
        }
        Ok(())
    }

    /// What stands beside a page, asked in parts that are not too large.
    async fn beside(&self, rows: &[AuthorizationRow], scope: &Scope) -> Result<Beside, JobError> {
        let ours = rows.iter().filter(|row| row.answer.bank == scope.bank);
        let payments: Vec<TransactionId> = ours.map(|row| row.answer.transaction_id).collect();
        let shoppers: BTreeSet<ShopperId> = rows.iter().map(|row| row.answer.shopper).collect();
        let shoppers: Vec<ShopperId> = shoppers.into_iter().collect();
        let trips: BTreeSet<(ShopperId, TripId)> = rows
            .iter()
            .filter_map(|row| Some((row.answer.shopper, row.answer.trip?)))
            .collect();
        let trips: Vec<(ShopperId, TripId)> = trips.into_iter().collect();
        let (mut payments, mut shoppers, mut trips) = (
            payments.chunks(CLEARING_ROWS_MAX),
            shoppers.chunks(CLEARING_ROWS_MAX),
            trips.chunks(CLEARING_ROWS_MAX),
        );
        let mut all = Beside::default();
        let mut lines = BTreeMap::new();
        loop {
            let (payments, shoppers, trips) = (payments.next(), shoppers.next(), trips.next());
            if payments.is_none() && shoppers.is_none() && trips.is_none() {
                break;
            }
            let ask = BesideAsk {
                payments: payments.unwrap_or_default().to_vec(),
                shoppers: shoppers.unwrap_or_default().to_vec(),
                trips: trips.unwrap_or_default().to_vec(),
            };
            let part = self.call(self.inputs.books.beside(ask)).await?;
            let keyed = part.lines.into_iter();
            lines.extend(keyed.map(|line| ((line.file, line.line), line)));
            all.movements.extend(part.movements);
            all.conflicted.extend(part.conflicted);
            all.receipts.extend(part.receipts);
        }
        all.lines = lines.into_values().collect();
        Ok(all)
    }

    /// Of payments that lines name and this page does not have: those that the ledger knows.
    async fn elsewhere(
        &self,
        lines: &[ClearingLine],
        owners: &Owners<'_>,
    ) -> Result<BTreeSet<TransactionId>, JobError> {
        let named = lines.iter().filter_map(|line| line.transaction_id);
        let strangers: BTreeSet<TransactionId> = named
            .filter(|id| !owners.by_payment.contains_key(id))
            .collect();
        let strangers: Vec<TransactionId> = strangers.into_iter().collect();
        let mut known = BTreeSet::new();
        for part in strangers.chunks(CLEARING_ROWS_MAX) {
            let ask = self.inputs.books.known_payments(part.to_vec());
            known.extend(self.call(ask).await?);
        }
        Ok(known)
    }

    /// The store that a line's merchant is.
    fn store(&self, line: &ClearingLine) -> Option<StoreId> {
        let merchant = Merchant {
            name: line.merchant.clone().unwrap_or_default(),
            address: String::new(),
        };
        let (network, terminal) = (line.network_id.as_deref(), line.terminal.as_deref());
        let found = self
            .inputs
            .directory
            .resolve_ids(network, terminal, &merchant);
        match found {
            Resolution::Store(store) => Some(store),
            Resolution::Unknown | Resolution::Ambiguous => None,
        }
    }

    /// Lines of the file that no shopper's payments met.
    async fn unmet(&mut self, scope: &Scope, seen: &Seen) -> Result<(), JobError> {
        let mut references = HashSet::new();
        let mut unseen = seen.unseen().peekable();
        while unseen.peek().is_some() {
            let numbers: Vec<u64> = unseen.by_ref().take(CLEARING_ROWS_MAX).collect();
            let lines = self.inputs.books.lines_at(scope.file, numbers);
            for line in self.call(lines).await? {
                let again = told_again(&line, &mut references);
                let mut outcome = alone(line, scope);
                if again {
                    outcome = repeated(outcome, scope);
                }
                self.counting.outcome(&outcome);
                self.found(outcome.found, scope).await?;
            }
        }
        Ok(())
    }
}

/// Whether a line was told before, among those that nobody met.
fn told_again(line: &ClearingLine, references: &mut HashSet<(Uuid, i64)>) -> bool {
    let Some(reference) = line.reference else {
        return false;
    };
    let key = (reference, line.amount.minor());
    if references.len() >= REFERENCES_MAX {
        return references.contains(&key);
    }
    !references.insert(key)
}

/// A line without anybody's payments.
fn alone(line: ClearingLine, scope: &Scope) -> Outcome {
    let group = Group {
        lines: vec![Line { line, store: None }],
        ..Group::default()
    };
    match_group(&group, scope)
}

/// The outcome of a line alone, which was told before.
fn repeated(mut outcome: Outcome, scope: &Scope) -> Outcome {
    for line in &mut outcome.lines {
        line.standing = Standing::Off(DiscrepancyKind::RepeatedLine);
    }
    for found in &mut outcome.found {
        found.kind = DiscrepancyKind::RepeatedLine;
        found.subject = format!("line {} of {}", found.line.unwrap_or(0), scope.sha256);
        found.detail = format!("{} that was told before", found.at_stake);
    }
    outcome
}

/// A page's payments by shopper.
fn groups(rows: Vec<AuthorizationRow>, beside: &Beside) -> BTreeMap<ShopperId, Group> {
    let mut movements: BTreeMap<TransactionId, Vec<_>> = BTreeMap::new();
    for movement in &beside.movements {
        if let Some(id) = movement.transaction_id {
            movements.entry(id).or_default().push(movement.clone());
        }
    }
    let receipts: BTreeMap<TripId, _> = beside
        .receipts
        .iter()
        .map(|receipt| (receipt.trip, *receipt))
        .collect();
    let mut groups: BTreeMap<ShopperId, Group> = BTreeMap::new();
    for row in rows {
        let id = row.answer.transaction_id;
        let group = groups.entry(row.answer.shopper).or_default();
        if let Some(trip) = row.answer.trip
            && let Some(receipt) = receipts.get(&trip)
        {
            group.receipts.insert(trip, *receipt);
        }
        group.payments.push(Payment {
            movements: movements.remove(&id).unwrap_or_default(),
            conflicted: beside.conflicted.contains(&id),
            row,
        });
    }
    groups
}

// === impl Owners ===

impl Owners<'_> {
    /// Whose a line is; `None` of one that is not this page's, or of a file that does not count.
    fn of(&self, line: &ClearingLine) -> Option<ShopperId> {
        if !self.files.contains_key(&line.file) {
            return None;
        }
        if let Some(id) = line.transaction_id {
            if let Some(owner) = self.by_payment.get(&id) {
                return Some(*owner);
            }
            if self.elsewhere.contains(&id) {
                return None;
            }
        }
        line.shopper
            .filter(|shopper| self.shoppers.contains(shopper))
    }
}

// === impl Seen ===

impl Seen {
    fn up_to(last: u64) -> Self {
        let words = last.div_euclid(64).saturating_add(1);
        Self(vec![0; usize::try_from(words).unwrap_or(0)])
    }

    fn place(line: u64) -> (usize, u64) {
        let word = usize::try_from(line.div_euclid(64)).unwrap_or(usize::MAX);
        (
            word,
            1_u64.rotate_left(u32::try_from(line.rem_euclid(64)).unwrap_or(0)),
        )
    }

    fn mark(&mut self, line: u64) {
        let (word, bit) = Self::place(line);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    /// Lines from 1 that were not marked; some past the last are among them.
    fn unseen(&self) -> impl Iterator<Item = u64> + '_ {
        let last = u64::try_from(self.0.len()).unwrap_or(0).saturating_mul(64);
        (1..last).filter(|line| {
            let (word, bit) = Self::place(*line);
            self.0.get(word).is_some_and(|word| word & bit == 0)
        })
    }
}
