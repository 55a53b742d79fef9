//! What an error of Postgres means: one table from SQLSTATE and phase to fate, retry and cause.
//!
//! Pure; the adapter asks it for every error it meets. Unknown codes are ruled by their class, and
//! unknown classes like an internal error: nothing was done unless COMMIT was in flight.

use super::{Fate, Retry};
use crate::answer::Why;

/// How far a call had come when the error arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// No COMMIT was sent: without one nothing lasts.
    Before,
    /// COMMIT (or a statement that commits by itself) was in flight.
    Commit,
}

/// What to make of an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ruling {
    /// Whether the call may have taken effect.
    pub fate: Fate,
    /// What the caller should do.
    pub retry: Retry,
    /// The cause, as answers given without the primary name it.
    pub why: Why,
    /// What the adapter does with the connection.
    pub connection: Keep,
}

/// Whether a connection may serve again after an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// The session is sound.
    Keep,
    /// It is gone, or its server is on its way out.
    Drop,
    /// Its server is not the primary (any more): no other connection to it serves either.
    DropAll,
    /// Sound, but every prepared statement must be forgotten.
    ForgetPlans,
}

/// One row: a code of five characters or a class of two.
struct Row {
    code: &'static str,
    retry: Retry,
    why: Why,
    connection: Keep,
    /// What the code says about a COMMIT in flight.
    commit: Fate,
}

const fn row(code: &'static str, retry: Retry, why: Why, connection: Keep, commit: Fate) -> Row {
    Row {
        code,
        retry,
        why,
        connection,
        commit,
    }
}

use Fate::{NotDone, Unknown};
use Keep::{Drop, DropAll, ForgetPlans, Keep as Kept};
use Retry::{Later, Never, Now};
use Why::{ApplicationError, Connection, Timeout};

/// Codes first, classes after: the first match rules.
const TABLE: &[Row] = &[
    // The server refused the statement before doing anything: an error at COMMIT rolls back.
    row("25006", Later, ApplicationError, DropAll, NotDone), // read-only: a standby, or an old primary
    row("22012", Later, ApplicationError, DropAll, NotDone), // our guard: an epoch of the past
    row("25P02", Later, ApplicationError, Kept, NotDone), // follows another error of the transaction
    row("40001", Now, ApplicationError, Kept, NotDone),   // serialization failure
    row("40P01", Now, ApplicationError, Kept, NotDone),   // deadlock
    row("40003", Later, ApplicationError, Drop, Unknown), // statement completion unknown
    row("55P03", Now, Timeout, Kept, NotDone),            // lock_timeout
    row("55006", Later, ApplicationError, Kept, NotDone), // object in use
    row("57014", Later, Timeout, Kept, NotDone),          // statement_timeout or a cancel
    row("57P01", Later, Connection, Drop, Unknown),       // administrator's shutdown
    row("57P02", Later, Connection, Drop, Unknown),       // another backend crashed
    row("57P03", Later, Connection, Drop, NotDone), // starting up or shutting down: not let in
    row("57P04", Never, Connection, Drop, NotDone), // the database was dropped
    row("57P05", Later, Connection, Drop, NotDone), // idle session timeout
    row("53100", Later, ApplicationError, Kept, NotDone), // disk full
    row("53200", Later, ApplicationError, Kept, NotDone), // out of memory
    row("53300", Later, Connection, Drop, NotDone), // too many connections: not let in
    row("08P01", Never, ApplicationError, Drop, Unknown), // protocol violation
    row("0A000", Now, ApplicationError, ForgetPlans, NotDone), // a plan cached before a migration
    row("26000", Now, ApplicationError, ForgetPlans, NotDone), // the statement is gone (a pooler)
    row("23505", Now, ApplicationError, Kept, NotDone), // unique: another call was first
    row("42P01", Later, ApplicationError, Kept, NotDone), // no such table: migrations have not run
    row("42703", Later, ApplicationError, ForgetPlans, NotDone), // no such column: likewise
    // Classes.
    row("08", Later, Connection, Drop, Unknown), // connection exception
    row("0A", Never, ApplicationError, Kept, NotDone), // not supported
    row("21", Never, ApplicationError, Kept, NotDone), // cardinality
    row("22", Never, ApplicationError, Kept, NotDone), // data exception: NUL in a text, overflow
    row("23", Never, ApplicationError, Kept, NotDone), // integrity constraint
    row("25", Later, ApplicationError, Drop, NotDone), // invalid transaction state
    row("28", Later, Connection, Drop, NotDone), // not authorized
    row("3D", Later, Connection, Drop, NotDone), // no such database
    row("40", Now, ApplicationError, Kept, NotDone), // rolled back
    row("42", Never, ApplicationError, Kept, NotDone), // syntax or access rule
    row("53", Later, ApplicationError, Kept, NotDone), // insufficient resources
    row("54", Never, ApplicationError, Kept, NotDone), // a limit of the program
    row("55", Later, ApplicationError, Kept, NotDone), // not in the state needed
    row("57", Later, ApplicationError, Drop, Unknown), // operator intervention
    row("58", Later, ApplicationError, Drop, Unknown), // system error: I/O
    row("XX", Later, ApplicationError, Drop, Unknown), // internal error, damaged data
];

/// Rules on an error by its SQLSTATE.
pub fn ruling(code: &str, phase: Phase) -> Ruling {
    let found = TABLE.iter().find(|row| code.starts_with(row.code));
    let (retry, why, connection, commit) = found
        .map_or((Later, ApplicationError, Drop, Unknown), |row| {
            (row.retry, row.why, row.connection, row.commit)
        });
    Ruling {
        fate: match phase {
            Phase::Before => NotDone,
            Phase::Commit => commit,
        },
        retry,
        why,
        connection,
    }
}

/// Rules on a connection that broke without a word of the server.
pub fn broken(phase: Phase) -> Ruling {
    Ruling {
        fate: match phase {
            Phase::Before => NotDone,
            Phase::Commit => Unknown,
        },
        retry: Later,
        why: Connection,
        connection: Drop,
    }
}

#[cfg(test)]
mod tests;
