//! Cuts a Postgres connection at a byte of a COMMIT: the moment in which a client cannot know.
//!
//! The exchange of a COMMIT is the client's bytes, from the message that names it to the end of
//! the one that executes it (a Query, or a Bind and its Execute: Postgres commits at the Execute
//! and does not wait for the Sync), then the server's for its group, up to ReadyForQuery.
//! An offset below the length of the request cuts before the server has all of it: it does not
//! commit. From there on it cuts so many bytes into the reply, once the reply has begun: it has
//! committed, if it could. So the offsets of one exchange can be walked, with the outcome known
//! for each. A COMMIT that shares its group (one Sync) with other statements is cut in its request
//! rightly, but the first bytes of its reply are theirs.
//!
//! Deliberately absent: TLS (a tap cannot look inside; such a connection just passes) and
//! COMMIT PREPARED.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Direction, MakeTap, Tap, Verdict};

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
/// Statements and portals remembered of one connection; past it the oldest knowledge is dropped.
const NAMES_MAX: usize = 4_096;
/// A message longer than this is not looked into.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Cuts COMMITs of all connections of a proxy, one each time it is armed.
#[derive(Clone, Debug, Default)]
pub struct CommitCutter(Arc<Mutex<State>>);

/// The exchange of a COMMIT, as far as it went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Exchange {
    /// Bytes of the client.
    pub request: u64,
    /// Bytes of the server.
    pub reply: u64,
    /// Whether it was cut.
    pub cut: bool,
}

#[derive(Debug, Default)]
struct State {
    armed: Option<u64>,
    seen: u64,
    last: Option<Exchange>,
    /// The exchange that was cut since an offset was armed.
    cut: Option<Exchange>,
}

/// What one connection says, as far as it matters here.
struct Connection {
    shared: CommitCutter,
    client: Framer,
    server: Framer,
    /// Bytes the server sends outside of messages: answers to requests for encryption.
    raw_answers: u32,
    blind: bool,
    statements: HashMap<Vec<u8>, bool>,
    portals: HashSet<Vec<u8>>,
    /// Groups the client has ended, and ReadyForQuery the server has sent. The startup is one.
    groups_sent: u64,
    groups_done: u64,
    commit: Option<Commit>,
}

/// A COMMIT under way.
#[derive(Clone, Copy, Debug)]
struct Commit {
    /// The group it is in.
    group: u64,
    request_done: bool,
    /// Where to cut it, if this one was chosen.
    offset: Option<u64>,
    exchange: Exchange,
}

/// Cuts a stream into messages without keeping more than it needs.
struct Framer {
    /// Startup messages have no type byte.
    typed: bool,
    header: Vec<u8>,
    body: Vec<u8>,
    /// Bytes of the message not seen yet, once its header is complete.
    left: Option<usize>,
}

/// What a byte did.
enum Step {
    /// Inside a message.
    Inside,
    /// The message is complete.
    Message(u8, Vec<u8>),
}

// === impl CommitCutter ===

impl CommitCutter {
    /// Cuts nothing until it is armed.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next COMMIT that begins is cut after so many bytes of its exchange.
    pub fn arm(&self, offset: u64) {
        let mut state = self.lock();
        state.armed = Some(offset);
        state.cut = None;
    }

    /// Forgets an offset that no COMMIT has met.
    pub fn disarm(&self) {
        self.lock().armed = None;
    }

    /// How many COMMITs began.
    pub fn seen(&self) -> u64 {
        self.lock().seen
    }

    /// The exchange that ended last, or was cut.
    pub fn last(&self) -> Option<Exchange> {
        self.lock().last
    }

    /// The exchange that was cut since an offset was armed last; `None` while it passed whole.
    pub fn cut(&self) -> Option<Exchange> {
        self.lock().cut
    }

    /// What to give to [`super::Proxy::start_with`].
    pub fn taps(&self) -> MakeTap {
        let shared = self.clone();
        Box::new(move || Box::new(Connection::new(shared.clone())))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> Option<u64> {
        let mut state = self.lock();
        state.seen = state.seen.saturating_add(1);
        state.armed.take()
    }

    fn end(&self, exchange: Exchange) {
        let mut state = self.lock();
        state.last = Some(exchange);
        if exchange.cut {
            state.cut = Some(exchange);
        }
    }
}

// === impl Connection ===

impl Connection {
    fn new(shared: CommitCutter) -> Self {
        Self {
            shared,
            client: Framer::new(Startup::Expected),
            server: Framer::new(Startup::None),
            raw_answers: 0,
            blind: false,
            statements: HashMap::new(),
            portals: HashSet::new(),
            groups_sent: 0,
            groups_done: 0,
            commit: None,
        }
    }

    /// Looks at a chunk of the client. A COMMIT is recognised when its first message is complete,
    /// so the bytes of that message that this chunk holds are still ours to hold back.
    fn see_client(&mut self, bytes: &[u8]) -> Verdict {
        for (index, byte) in bytes.iter().enumerate() {
            let Step::Message(kind, body) = self.client.push(*byte) else {
                continue;
            };
            let names_it = self.message_of_client(kind, &body);
            if names_it && self.commit.is_none() {
                self.commit = Some(Commit {
                    group: self.groups_sent,
                    request_done: false,
                    offset: self.shared.begin(),
                    exchange: Exchange::default(),
                });
            }
            // The type byte and the length are part of it.
            let length = body.len().saturating_add(5);
            if let Some(commit) = &mut self.commit
                && !commit.request_done
            {
                let before = commit.exchange.request;
                let total = before.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
                if let Some(offset) = commit.offset
                    && offset < total
                {
                    commit.exchange.request = offset;
                    let into = usize::try_from(offset.saturating_sub(before)).unwrap_or(0);
                    // The message ends with this byte; its beginning may have gone before.
                    let end = index.saturating_add(1).saturating_add(into);
                    return self.cut(end.saturating_sub(length));
                }
                commit.exchange.request = total;
                commit.request_done = matches!(kind, b'Q' | b'E');
            }
            if matches!(kind, b'Q' | b'S' | b'F') {
                self.groups_sent = self.groups_sent.saturating_add(1);
            }
        }
        Verdict::Pass
    }

    /// Follows a message; true when it names a COMMIT to execute.
    fn message_of_client(&mut self, kind: u8, body: &[u8]) -> bool {
        if kind == 0 {
            self.startup(body);
            return false;
        }
        let mut names = body.split(|byte| *byte == 0);
        let first = names.next().unwrap_or_default();
        let second = names.next().unwrap_or_default();
        match kind {
            b'Q' => is_commit(first),
            b'P' => {
                if self.statements.len() >= NAMES_MAX {
                    self.statements.clear();
                }
                self.statements.insert(first.to_owned(), is_commit(second));
                false
            }
            b'B' => {
                let commits = self.statements.get(second).copied().unwrap_or(false);
                self.portals.remove(first);
                if commits && self.portals.len() < NAMES_MAX {
                    self.portals.insert(first.to_owned());
                }
                // A portal of a COMMIT is bound to be executed.
                commits
            }
            b'E' => self.portals.contains(first),
            _ => false,
        }
    }

    fn startup(&mut self, body: &[u8]) {
        let code = body.first_chunk().map(|code| u32::from_be_bytes(*code));
        if matches!(code, Some(SSL_REQUEST | GSS_REQUEST)) {
            self.raw_answers = self.raw_answers.saturating_add(1);
        } else {
            self.client.typed = true;
            self.groups_sent = self.groups_sent.saturating_add(1);
        }
    }

    fn see_server(&mut self, bytes: &[u8]) -> Verdict {
        for (index, byte) in bytes.iter().enumerate() {
            if self.raw_answers > 0 {
                self.raw_answers = self.raw_answers.saturating_sub(1);
                // Anything but a refusal begins an encrypted stream.
                if *byte != b'N' {
                    self.blind = true;
                    return Verdict::Pass;
                }
                continue;
            }
            if let Some(commit) = &mut self.commit
                && commit.group == self.groups_done
                && commit.request_done
            {
                let done = commit
                    .exchange
                    .request
                    .saturating_add(commit.exchange.reply);
                if commit.offset.is_some_and(|offset| offset <= done) {
                    return self.cut(index);
                }
                commit.exchange.reply = commit.exchange.reply.saturating_add(1);
            }
            let Step::Message(kind, _) = self.server.push(*byte) else {
                continue;
            };
            if kind == b'Z' {
                if let Some(commit) = self.commit
                    && commit.group == self.groups_done
                {
                    self.shared.end(commit.exchange);
                    self.commit = None;
                }
                self.groups_done = self.groups_done.saturating_add(1);
            }
        }
        Verdict::Pass
    }

    fn cut(&mut self, bytes: usize) -> Verdict {
        if let Some(commit) = self.commit.take() {
            self.shared.end(Exchange {
                cut: true,
                ..commit.exchange
            });
        }
        self.blind = true;
        Verdict::CutAfter(bytes)
    }
}

impl Tap for Connection {
    fn pass(&mut self, direction: Direction, bytes: &[u8]) -> Verdict {
        match direction {
            _ if self.blind => Verdict::Pass,
            Direction::ToServer => self.see_client(bytes),
            Direction::ToClient => self.see_server(bytes),
        }
    }
}

// === impl Framer ===

/// Whether a stream begins with messages without a type.
enum Startup {
    Expected,
    None,
}

impl Framer {
    fn new(startup: Startup) -> Self {
        Self {
            typed: matches!(startup, Startup::None),
            header: Vec::new(),
            body: Vec::new(),
            left: None,
        }
    }

    fn push(&mut self, byte: u8) -> Step {
        let header_bytes = if self.typed { 5 } else { 4 };
        match &mut self.left {
            None => {
                self.header.push(byte);
                if self.header.len() < header_bytes {
                    return Step::Inside;
                }
                let length = self
                    .header
                    .last_chunk()
                    .map_or(4, |raw| u32::from_be_bytes(*raw));
                // The length counts itself.
                let left = usize::try_from(length)
                    .unwrap_or(usize::MAX)
                    .saturating_sub(4);
                self.left = Some(left);
                if left > 0 {
                    return Step::Inside;
                }
            }
            Some(left) => {
                *left = left.saturating_sub(1);
                if self.body.len() < TEXT_BYTES_MAX {
                    self.body.push(byte);
                }
                if *left > 0 {
                    return Step::Inside;
                }
            }
        }
        self.left = None;
        let kind = match self.header.first() {
            Some(kind) if self.typed => *kind,
            Some(_) | None => 0,
        };
        self.header.clear();
        Step::Message(kind, std::mem::take(&mut self.body))
    }
}

/// Whether a query's last statement is a COMMIT (or END, its other name).
fn is_commit(query: &[u8]) -> bool {
    let text = String::from_utf8_lossy(query);
    let last = text
        .split(';')
        .map(str::trim)
        .rfind(|part| !part.is_empty());
    let word = last.and_then(|last| last.split_whitespace().next());
    word.is_some_and(|word| word.eq_ignore_ascii_case("commit") || word.eq_ignore_ascii_case("end"))
}
