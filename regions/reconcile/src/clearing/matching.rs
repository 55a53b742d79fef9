//! One shopper's payments and lines, matched and judged. Pure: facts in, states and discrepancies out.
//!
//! Passes, in order: the payment that a line names, by our id or by the bank's key; then, for a charge
//! that names none we know, the one payment of this shopper and bank that is approved, not charged by
//! any line, of the same currency and store, near in amount and before it in time (or, of several, the
//! one whose approval code it carries). A line that fits two equally is ambiguous: no guess is made.
//! A payment may be charged by several lines.

mod judge;
mod trips;

use std::collections::{BTreeMap, BTreeSet};

use standin_core::answer::Verdict;
use standin_core::clock::Timestamp;
use standin_core::entry::Settlement;
use standin_core::id::{BankId, ShopperId, StoreId, TransactionId, TripId};
use standin_core::ledger::clearing::{ClearingLine, LineKind, NamedBy, Receipt};
use standin_core::ledger::{AuthorizationRow, AuthorizationState};
use standin_core::money::{Currency, Money};
use uuid::Uuid;

use super::kind::{DiscrepancyKind, LineState, PaymentState};
use super::rules::Rules;

/// What a report is about.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The file.
    pub file: Uuid,
    /// Its hash: names a line without a reference.
    pub sha256: String,
    /// Whose payments.
    pub bank: BankId,
    /// Payments without a line are those from here on, …
    pub from: Timestamp,
    /// … up to here.
    pub until: Timestamp,
    /// Ages are counted up to here.
    pub as_of: Timestamp,
    /// How near is near enough.
    pub rules: Rules,
}

/// One shopper's payments and lines.
#[derive(Clone, Default, Debug)]
pub struct Group {
    /// Every payment in the ledger, of every bank, by id.
    pub payments: Vec<Payment>,
    /// Lines of these payments, and lines of this shopper whose payment the ledger does not know; in
    /// the order of their files and numbers.
    pub lines: Vec<Line>,
    /// Receipts of the payments' trips.
    pub receipts: BTreeMap<TripId, Receipt>,
}

/// A payment, and what the bank told us of it.
#[derive(Clone, Debug)]
pub struct Payment {
    /// The ledger's row.
    pub row: AuthorizationRow,
    /// What the bank told an edge of money that moved.
    pub movements: Vec<Settlement>,
    /// Whether it has an outcome that could not be booked.
    pub conflicted: bool,
}

/// A line, and the store its merchant is, where it was asked for and found.
#[derive(Clone, Debug)]
pub struct Line {
    /// The line.
    pub line: ClearingLine,
    /// The store.
    pub store: Option<StoreId>,
}

/// Where one payment stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing<S> {
    /// Nothing is wrong with it.
    Fits(S),
    /// The worst of what is.
    Off(DiscrepancyKind),
}

/// A payment of the report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PaymentOutcome {
    /// Which.
    pub transaction_id: TransactionId,
    /// Where it stands.
    pub standing: Standing<PaymentState>,
    /// What was approved, less what was reversed; zero of a decline.
    pub authorized: Money,
    /// What was charged, less what went back.
    pub cleared: Money,
}

/// A line of the report's file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LineOutcome {
    /// Its number.
    pub line: u64,
    /// Where it stands.
    pub standing: Standing<LineState>,
    /// What happened.
    pub kind: LineKind,
    /// How much.
    pub amount: Money,
}

/// Something that does not fit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Discrepancy {
    /// What sort.
    pub kind: DiscrepancyKind,
    /// What it is about, in a form that is the same in every run.
    pub subject: String,
    /// The payment.
    pub transaction_id: Option<TransactionId>,
    /// Whose card.
    pub shopper: Option<ShopperId>,
    /// The payment's row, where there is one.
    pub row: Option<AuthorizationRow>,
    /// Number of the line in the report's file, where it is about one.
    pub line: Option<u64>,
    /// Approved less reversed, minor units.
    pub authorized: Option<i64>,
    /// Charged less refunded.
    pub cleared: Option<i64>,
    /// What the cart came to.
    pub receipt: Option<i64>,
    /// Money at stake; never negative.
    pub at_stake: Money,
    /// When what it is about happened.
    pub at: Timestamp,
    /// What was found, in words.
    pub detail: String,
}

/// What became of a group.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Outcome {
    /// Payments that belong to the report.
    pub payments: Vec<PaymentOutcome>,
    /// Lines of the report's file, each once.
    pub lines: Vec<LineOutcome>,
    /// What does not fit.
    pub found: Vec<Discrepancy>,
}

/// Lines by what became of them.
#[derive(Default)]
struct Assigned {
    /// Of each payment, by its place in the group: places of lines, in order.
    of_payment: Vec<Vec<usize>>,
    /// How each line stands; `None` until it is known.
    standing: Vec<Option<Standing<LineState>>>,
}

/// What the lines of a payment come to, in the payment's currency.
#[derive(Default)]
struct Cleared {
    /// Single charges, in order.
    charges: Vec<i64>,
    charged: i64,
    refunded: i64,
    reversed: i64,
    declined: bool,
    first_charge: Option<Timestamp>,
    /// Charges in other currencies.
    foreign: Vec<Money>,
    /// A charge names another shopper.
    other_shopper: bool,
    /// Number of the first line in the report's file.
    line: Option<u64>,
    /// Any line at all, of any file.
    any: bool,
}

/// Matches and judges a group.
///
/// Every line of the scope's file in the group is in the outcome once; so is every payment of the
/// scope.
pub fn match_group(group: &Group, scope: &Scope) -> Outcome {
    let assigned = Assigned::of(group, scope);
    let mut outcome = Outcome::default();
    let mut books = Vec::new();
    for (place, payment) in group.payments.iter().enumerate() {
        let lines = assigned.of_payment.get(place).into_iter().flatten();
        let lines = lines.filter_map(|line| group.lines.get(*line));
        let cleared = Cleared::of(payment, lines, scope);
        let belongs = belongs(payment, &cleared, scope);
        if belongs {
            outcome
                .payments
                .push(judge::payment(payment, &cleared, scope, &mut outcome.found));
        }
        books.push((cleared, belongs));
    }
    trips::judge(group, &books, scope, &mut outcome);
    for (line, standing) in group.lines.iter().zip(&assigned.standing) {
        if line.line.file != scope.file {
            continue;
        }
        let standing = standing.unwrap_or_else(|| unmatched(line.line.kind));
        if let Standing::Off(kind) = standing {
            let found = judge::line(&line.line, kind, scope);
            outcome.found.push(found);
        }
        outcome.lines.push(LineOutcome {
            line: line.line.line,
            standing,
            kind: line.line.kind,
            amount: line.line.amount,
        });
    }
    outcome
}

/// Whether a payment belongs to the report: a line of the file is its, or no line is and its time is.
fn belongs(payment: &Payment, cleared: &Cleared, scope: &Scope) -> bool {
    if payment.row.answer.bank != scope.bank {
        return false;
    }
    if cleared.any {
        return cleared.line.is_some();
    }
    let answered = match payment.row.state {
        AuthorizationState::Final | AuthorizationState::Reversed => true,
        AuthorizationState::Held | AuthorizationState::Released => false,
    };
    let at = answered_at(&payment.row);
    if !answered || at >= scope.until {
        return false;
    }
    let back = Timestamp::from_millis(scope.from.as_millis().saturating_sub(scope.rules.back_ms()));
    at >= scope.from || (at >= back && approved(&payment.row) > 0)
}

/// What a row approved, less what was reversed of it.
fn approved(row: &AuthorizationRow) -> i64 {
    let counts = match row.state {
        AuthorizationState::Final | AuthorizationState::Reversed => {
            row.answer.verdict == Verdict::Approved
        }
        AuthorizationState::Held | AuthorizationState::Released => false,
    };
    if counts {
        row.answer.amount.minor().saturating_sub(row.reversed)
    } else {
        0
    }
}

/// When a payment was answered, or else held.
pub(super) fn answered_at(row: &AuthorizationRow) -> Timestamp {
    let at = row.final_at.or(row.held_at);
    at.unwrap_or(Timestamp::from_millis(0))
}

/// What a line without a payment is.
fn unmatched(kind: LineKind) -> Standing<LineState> {
    match kind {
        LineKind::Capture => Standing::Off(DiscrepancyKind::MissingAtUs),
        LineKind::ForcePost => Standing::Off(DiscrepancyKind::ForcePost),
        LineKind::Refund => Standing::Off(DiscrepancyKind::RefundUnmatched),
        LineKind::Reversal => Standing::Off(DiscrepancyKind::ReversalUnmatched),
        LineKind::Declined => Standing::Fits(LineState::DeclinedElsewhere),
    }
}

// === impl Assigned ===

impl Assigned {
    fn of(group: &Group, scope: &Scope) -> Self {
        let mut assigned = Self {
            of_payment: vec![Vec::new(); group.payments.len()],
            standing: vec![None; group.lines.len()],
        };
        assigned.set_repeated_apart(group);
        assigned.by_name(group, scope);
        assigned.by_nearness(group, scope);
        assigned
    }

    /// A line with the reference, kind and amount of one before it was told before.
    fn set_repeated_apart(&mut self, group: &Group) {
        let mut told = BTreeSet::new();
        for (line, standing) in group.lines.iter().zip(&mut self.standing) {
            let line = &line.line;
            let Some(reference) = line.reference else {
                continue;
            };
            let amount = (line.amount.minor(), line.amount.currency());
            if !told.insert((reference, line.kind, amount)) {
                *standing = Some(Standing::Off(DiscrepancyKind::RepeatedLine));
            }
        }
    }

    /// A line that names another bank's payment names none of this bank's.
    fn by_name(&mut self, group: &Group, scope: &Scope) {
        let places: BTreeMap<TransactionId, usize> = group
            .payments
            .iter()
            .enumerate()
            .filter(|(_, payment)| payment.row.answer.bank == scope.bank)
            .map(|(place, payment)| (payment.row.answer.transaction_id, place))
            .collect();
        for (number, line) in group.lines.iter().enumerate() {
            let place = line.line.transaction_id.and_then(|id| places.get(&id));
            let (Some(place), Some(None)) = (place, self.standing.get(number)) else {
                continue;
            };
            let how = match line.line.named_by {
                Some(NamedBy::Key) => LineState::MatchedByKey,
                Some(NamedBy::Id) | None => LineState::MatchedById,
            };
            self.assign(number, *place, how);
        }
    }

    /// Charges that name no payment of ours, the earliest first.
    fn by_nearness(&mut self, group: &Group, scope: &Scope) {
        let mut left: Vec<usize> = (0..group.lines.len())
            .filter(|number| matches!(self.standing.get(*number), Some(None)))
            .filter(|number| {
                let line = group.lines.get(*number);
                line.is_some_and(|line| line.line.kind == LineKind::Capture)
            })
            .collect();
        left.sort_by_key(|number| group.lines.get(*number).map(|line| (line.line.at, *number)));
        for number in left {
            let Some(line) = group.lines.get(number) else {
                continue;
            };
            let candidates: Vec<usize> = (0..group.payments.len())
                .filter(|place| self.of_payment.get(*place).is_some_and(Vec::is_empty))
                .filter(|place| {
                    let payment = group.payments.get(*place);
                    payment.is_some_and(|payment| is_near(line, payment, scope))
                })
                .collect();
            match nearest(line, &candidates, group) {
                Nearest::None => {}
                Nearest::One(place) => self.assign(number, place, LineState::MatchedNear),
                Nearest::Several => {
                    if let Some(standing) = self.standing.get_mut(number) {
                        *standing = Some(Standing::Off(DiscrepancyKind::Ambiguous));
                    }
                }
            }
        }
    }

    fn assign(&mut self, line: usize, payment: usize, how: LineState) {
        if let (Some(lines), Some(standing)) = (
            self.of_payment.get_mut(payment),
            self.standing.get_mut(line),
        ) {
            lines.push(line);
            *standing = Some(Standing::Fits(how));
        }
    }
}

/// Which payment a line is nearest to.
enum Nearest {
    None,
    One(usize),
    Several,
}

/// Whether a charge without an id may be a payment's.
fn is_near(line: &Line, payment: &Payment, scope: &Scope) -> bool {
    let row = &payment.row;
    let approved = approved(row);
    let off = line
        .line
        .amount
        .minor()
        .saturating_sub(approved)
        .saturating_abs();
    let since = line
        .line
        .at
        .as_millis()
        .saturating_sub(answered_at(row).as_millis());
    row.answer.bank == scope.bank
        && approved > 0
        && line.line.amount.currency() == row.answer.amount.currency()
        && line.store.is_some()
        && line.store == row.store
        && off <= scope.rules.near(approved)
        && (0..=scope.rules.near_ms()).contains(&since)
}

/// The one that carries the line's code, else the one nearest in amount.
fn nearest(line: &Line, candidates: &[usize], group: &Group) -> Nearest {
    let payment = |place: &usize| group.payments.get(*place);
    if let Some(code) = &line.line.code {
        let coded = |place: &&usize| {
            payment(place).is_some_and(|payment| payment.row.answer.code.as_str() == code)
        };
        let mut coded = candidates.iter().filter(coded);
        if let (Some(one), None) = (coded.next(), coded.next()) {
            return Nearest::One(*one);
        }
    }
    let off = |place: &usize| {
        let approved = payment(place).map_or(i64::MAX, |payment| approved(&payment.row));
        line.line
            .amount
            .minor()
            .saturating_sub(approved)
            .saturating_abs()
    };
    let Some(best) = candidates.iter().map(off).min() else {
        return Nearest::None;
    };
    let mut best = candidates.iter().filter(|place| off(place) == best);
    match (best.next(), best.next()) {
        (Some(one), None) => Nearest::One(*one),
        (Some(_), Some(_)) => Nearest::Several,
        (None, _) => Nearest::None,
    }
}

// === impl Cleared ===

impl Cleared {
    fn of<'a>(payment: &Payment, lines: impl Iterator<Item = &'a Line>, scope: &Scope) -> Self {
        let answer = &payment.row.answer;
        let currency = answer.amount.currency();
        let mut cleared = Self::default();
        for Line { line, .. } in lines {
            cleared.any = true;
            if line.file == scope.file && cleared.line.is_none() {
                cleared.line = Some(line.line);
            }
            cleared.take(line, answer.shopper, currency);
        }
        cleared
    }

    fn take(&mut self, line: &ClearingLine, shopper: ShopperId, currency: Currency) {
        let minor = line.amount.minor();
        let alike = line.amount.currency() == currency;
        match line.kind {
            LineKind::Capture | LineKind::ForcePost => {
                let first = self.first_charge.get_or_insert(line.at);
                *first = (*first).min(line.at);
                self.other_shopper |= line.shopper.is_some_and(|other| other != shopper);
                if alike {
                    self.charges.push(minor);
                    self.charged = self.charged.saturating_add(minor);
                } else {
                    self.foreign.push(line.amount);
                }
            }
            LineKind::Refund if alike => self.refunded = self.refunded.saturating_add(minor),
            LineKind::Reversal if alike => self.reversed = self.reversed.saturating_add(minor),
            LineKind::Refund | LineKind::Reversal => self.foreign.push(line.amount),
            LineKind::Declined => self.declined = true,
        }
    }

    /// Charged less refunded.
    fn net(&self) -> i64 {
        self.charged.saturating_sub(self.refunded)
    }

    /// Whether one of its charges is there twice.
    fn has_twins(&self) -> bool {
        let mut seen = BTreeSet::new();
        !self.charges.iter().all(|charge| seen.insert(*charge))
    }
}
