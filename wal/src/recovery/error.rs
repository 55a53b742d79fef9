//! Why a log does not open.

use std::io;

use uuid::Uuid;

use crate::segment::Fault;

/// Why a log was not opened. Nothing in it was changed, except by `Io`, which may be retried.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration cannot work.
    #[error("configuration: {what}")]
    Config {
        /// Which rule it breaks.
        what: &'static str,
    },
    /// Another process has the log open.
    #[error("another process has this log open")]
    Locked,
    /// The disk failed.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The log belongs to another node or group, or was put together from several.
    #[error("{file} belongs to node {node} of group {group:?}, incarnation {incarnation}")]
    Foreign {
        /// The file that says so.
        file: String,
        /// Its node.
        node: u64,
        /// Its group.
        group: String,
        /// Its incarnation.
        incarnation: Uuid,
    },
    /// A group's log is not one keeper's own, nor the other way round.
    #[error("the directory holds a log of the other kind (replicated or not)")]
    OtherKind,
    /// The group's library refused what the log holds.
    #[error("joining the group: {0}")]
    Raft(String),
    /// The runtime is shutting down.
    #[error("opening was cancelled")]
    Cancelled,
    /// The directory holds no log; only a reader minds.
    #[error("the directory holds no log")]
    NoLog,
    /// There are segments but no identity: the disk was lost or put together by hand.
    #[error("the directory holds segments but no identity file")]
    IdentityMissing,
    /// Written by a program of another format version.
    #[error("{file} has format version {version}, which this program does not know")]
    UnknownFormat {
        /// The file.
        file: String,
        /// Its version.
        version: u16,
    },
    /// The identity or state file does not verify.
    #[error("the file {file} is damaged or missing")]
    StateDamaged {
        /// Its name.
        file: &'static str,
    },
    /// Bytes that were durable are not what was written. Nothing is ever cut because of it.
    #[error("segment {segment} is damaged at byte {offset}: {what}")]
    Damaged {
        /// Number of the segment.
        segment: u64,
        /// Offset in its file.
        offset: u64,
        /// What is wrong there.
        what: Fault,
    },
}

pub(crate) fn during(doing: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { doing, source }
}

pub(super) fn foreign(file: &str, node: u64, group: &str, incarnation: Uuid) -> OpenError {
    OpenError::Foreign {
        file: file.to_owned(),
        node,
        group: group.to_owned(),
        incarnation,
    }
}
