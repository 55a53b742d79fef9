//! Clearing files and cases in memory.
//!
//! Bounds: [`LINES_MAX`] lines, [`CASES_MAX`] cases; past them a call is refused.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::super::clearing::{
    Acted, CASE_ROWS_MAX, CLEARING_ROWS_MAX, Case, CaseAction, CaseEvent, CaseFilter, CaseStanding,
    CaseState, CaseTrail, ClearingFile, ClearingLine, FileState, FoundCase, Kept, RECONCILE,
    StageStep,
};
use super::super::rows::{without_nul, wrong};
use super::super::{AuditRow, LedgerError};
use super::full;
use crate::clock::Timestamp;
use crate::id::{BankId, ShopperId, TransactionId};
use crate::ledger::Card;

/// Most lines kept.
const LINES_MAX: usize = 4_000_000;
/// Most cases kept.
const CASES_MAX: usize = 1_000_000;

/// Files, lines and cases.
#[derive(Clone, Default)]
pub(super) struct Clearing {
    files: BTreeMap<Uuid, ClearingFile>,
    lines: BTreeMap<(Uuid, u64), ClearingLine>,
    by_payment: BTreeSet<(TransactionId, Uuid, u64)>,
    by_shopper: BTreeSet<(ShopperId, Uuid, u64)>,
    cases: BTreeMap<Uuid, CaseTrail>,
}

// === impl Clearing ===

impl Clearing {
    pub(super) fn open_file(&mut self, file: ClearingFile) -> ClearingFile {
        let opened = || ClearingFile {
            staged_to: 0,
            state: FileState::Staging,
            name: without_nul(&file.name),
            ..file.clone()
        };
        self.files.entry(file.id).or_insert_with(opened).clone()
    }

    pub(super) fn stage(
        &mut self,
        step: StageStep,
        holder: impl Fn(&Card) -> Option<ShopperId>,
    ) -> Result<u64, LedgerError> {
        if step.lines.len() > CLEARING_ROWS_MAX {
            return Err(wrong("too many lines in one step"));
        }
        if self.lines.len().saturating_add(step.lines.len()) > LINES_MAX {
            return Err(full("clearing lines"));
        }
        let file = self.files.get_mut(&step.file);
        let file = file.ok_or_else(|| wrong("no such file"))?;
        if file.staged_to != step.from {
            return Ok(file.staged_to);
        }
        file.staged_to = step.to;
        for staged in step.lines {
            let mut line = staged.line;
            line.file = step.file;
            line.shopper = line.shopper.or_else(|| holder(staged.card.as_ref()?));
            let key = (line.file, line.line);
            if let Some(payment) = line.transaction_id {
                self.by_payment.insert((payment, key.0, key.1));
            }
            if let Some(shopper) = line.shopper {
                self.by_shopper.insert((shopper, key.0, key.1));
            }
            self.lines.insert(key, line);
        }
        Ok(step.to)
    }

    pub(super) fn complete_file(&mut self, id: Uuid) -> Result<(), LedgerError> {
        let file = self.files.get(&id).ok_or_else(|| wrong("no such file"))?;
        if file.staged_to < file.last_line {
            return Err(wrong("the file is not staged to its end"));
        }
        if file.state == FileState::Complete {
            return Ok(());
        }
        let (bank, sha256) = (file.bank.clone(), file.sha256.clone());
        for other in self.files.values_mut() {
            if other.id == id {
                other.state = FileState::Complete;
            } else if other.state == FileState::Complete
                && other.bank == bank
                && other.sha256 == sha256
            {
                other.state = FileState::Replaced;
            }
        }
        Ok(())
    }

    pub(super) fn files(&self, bank: &BankId) -> Vec<ClearingFile> {
        let complete =
            |file: &&ClearingFile| file.bank == *bank && file.state == FileState::Complete;
        let mut files: Vec<_> = self.files.values().filter(complete).cloned().collect();
        files.sort_by_key(|file| (file.opened_at, file.id));
        files
    }

    /// Lines of the payments or of the shoppers, each once, by file and number.
    pub(super) fn lines_beside(
        &self,
        payments: &[TransactionId],
        shoppers: &[ShopperId],
    ) -> Vec<ClearingLine> {
        let mut keys = BTreeSet::new();
        for payment in payments {
            let of = (*payment, Uuid::nil(), 0)..=(*payment, Uuid::max(), u64::MAX);
            keys.extend(
                self.by_payment
                    .range(of)
                    .map(|(_, file, line)| (*file, *line)),
            );
        }
        for shopper in shoppers {
            let of = (*shopper, Uuid::nil(), 0)..=(*shopper, Uuid::max(), u64::MAX);
            keys.extend(
                self.by_shopper
                    .range(of)
                    .map(|(_, file, line)| (*file, *line)),
            );
        }
        keys.iter()
            .filter_map(|key| self.lines.get(key).cloned())
            .collect()
    }

    pub(super) fn lines_at(
        &self,
        file: Uuid,
        lines: &[u64],
    ) -> Result<Vec<ClearingLine>, LedgerError> {
        if lines.len() > CLEARING_ROWS_MAX {
            return Err(wrong("too many lines asked for at once"));
        }
        let numbers: BTreeSet<u64> = lines.iter().copied().collect();
        let found = numbers
            .iter()
            .filter_map(|line| self.lines.get(&(file, *line)));
        Ok(found.cloned().collect())
    }

    pub(super) fn keep_cases(
        &mut self,
        found: &[FoundCase],
        at: Timestamp,
    ) -> Result<Vec<CaseStanding>, LedgerError> {
        if found.len() > CASE_ROWS_MAX {
            return Err(wrong("too many findings at once"));
        }
        if self.cases.len().saturating_add(found.len()) > CASES_MAX {
            return Err(full("cases"));
        }
        let mut seen = BTreeSet::new();
        let keep = |case: &FoundCase| {
            let again = !seen.insert(case.id);
            self.keep_case(case, again, at)
        };
        Ok(found.iter().map(keep).collect())
    }

    fn keep_case(&mut self, found: &FoundCase, again: bool, at: Timestamp) -> CaseStanding {
        let (kept, case, trail) = match self.cases.get_mut(&found.id) {
            Some((case, trail)) => {
                // Of two under one id in one call the first says how it stands.
                let kept = case.state.kept(again || case.found.facts == found.facts);
                if kept != Kept::Known {
                    case.found.detail.clone_from(&found.detail);
                    case.found.amount = found.amount;
                    case.found.currency = found.currency;
                    case.found.facts.clone_from(&found.facts);
                }
                if kept == Kept::Reopened {
                    case.state = CaseState::Open;
                }
                (kept, case, trail)
            }
            None => {
                let case = Case {
                    found: found.clone(),
                    state: CaseState::Open,
                    owner: None,
                    found_at: at,
                };
                let entry = self.cases.entry(found.id);
                let (case, trail) = entry.or_insert_with(|| (case, Vec::new()));
                (Kept::New, case, trail)
            }
        };
        if let Some(word) = kept.word() {
            trail.push(CaseEvent {
                at,
                actor: RECONCILE.to_owned(),
                action: word.to_owned(),
                owner: case.owner.clone(),
                reason: String::new(),
            });
        }
        CaseStanding {
            state: case.state,
            owner: case.owner.clone(),
            kept,
        }
    }

    pub(super) fn cases(&self, filter: &CaseFilter, after: Option<Uuid>, limit: u32) -> Vec<Case> {
        use std::ops::Bound::{Excluded, Unbounded};
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let from = after.map_or(Unbounded, Excluded);
        let fits = |case: &&Case| {
            let CaseFilter {
                bank,
                kind,
                state,
                owner,
            } = filter;
            bank.as_ref()
                .is_none_or(|bank| case.found.bank.as_ref() == Some(bank))
                && kind.as_ref().is_none_or(|kind| case.found.kind == *kind)
                && state.is_none_or(|state| case.state == state)
                && owner
                    .as_ref()
                    .is_none_or(|owner| case.owner.as_ref() == Some(owner))
        };
        let cases = self
            .cases
            .range((from, Unbounded))
            .map(|(_, (case, _))| case);
        let fitting = cases.filter(fits).take(limit.min(CASE_ROWS_MAX));
        fitting.cloned().collect()
    }

    pub(super) fn case(&self, id: Uuid) -> Option<CaseTrail> {
        self.cases.get(&id).cloned()
    }

    /// What became of the action, and its audit row when something did.
    pub(super) fn act(
        &mut self,
        action: &CaseAction,
    ) -> Result<(Acted, Option<AuditRow>), LedgerError> {
        action.check()?;
        let Some((case, trail)) = self.cases.get_mut(&action.case) else {
            return Ok((Acted::Unknown, None));
        };
        let Some((state, owner)) = action.on(case.state, case.owner.as_deref()) else {
            return Ok((Acted::Already(case.state), None));
        };
        case.state = state;
        case.owner = owner;
        trail.push(CaseEvent {
            at: action.at,
            actor: action.actor.clone(),
            action: action.word().to_owned(),
            owner: case.owner.clone(),
            reason: action.reason.clone(),
        });
        let audit = AuditRow {
            at: action.at,
            operator: action.actor.clone(),
            action: format!("finding.{} {}", action.word(), action.case),
            reason: action.reason.clone(),
        };
        Ok((Acted::Done(Box::new(case.clone())), Some(audit)))
    }
}
