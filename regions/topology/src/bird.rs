//! BIRD's control socket, as `birdc` speaks to it: a command a line, replies of numbered lines.
//!
//! A reply is lines `NNNN-text`, lines that begin with a space (they belong to the number before),
//! and at the end one `NNNN text`. 0xxx says done, 1xxx and 2xxx bring data, 8xxx and 9xxx refuse.
//! (BIRD's programmer's documentation, "Library functions: CLI"; read off BIRD 2.0.12.)
//!
//! Every command has a time limit and every reply a size limit. A connection is made for each order:
//! BIRD may be started again at any time, and orders are rare.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::BoxFuture;
use crate::announcer::{AnnounceError, Announcer, InForce};

/// Bytes of one reply.
pub const REPLY_BYTES_MAX: u64 = 256 * 1024;
/// The kind of protocols that speak to routers.
const BGP: &str = "BGP";
/// The greeting.
const READY: u16 = 1;
/// `show protocols`: a line a protocol.
const PROTOCOL: u16 = 1_002;
const ALREADY_DISABLED: u16 = 8;
const DISABLED: u16 = 9;
const ALREADY_ENABLED: u16 = 10;
const ENABLED: u16 = 11;

/// Why BIRD did not do it.
#[derive(Debug, thiserror::Error)]
pub enum BirdError {
    /// Its socket cannot be spoken with.
    #[error("bird at {socket}: {source}")]
    Io {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It did not reply in time.
    #[error("bird at {socket} did not reply within {within:?}")]
    TimedOut {
        /// The socket.
        socket: PathBuf,
        /// The limit.
        within: Duration,
    },
    /// It refused.
    #[error("bird refused {command:?}: {code:04} {words}")]
    Refused {
        /// What it was asked.
        command: String,
        /// Its number for that.
        code: u16,
        /// Its words.
        words: String,
    },
    /// It said something that this does not understand.
    #[error("bird replied to {command:?} with {line:?}")]
    Reply {
        /// What it was asked.
        command: String,
        /// The line, cut.
        line: String,
    },
    /// No protocol has the name.
    #[error("bird has no protocol {0:?}")]
    NoProtocol(String),
    /// The name is none that BIRD takes.
    #[error("{0:?} is no protocol's name: letters, digits and '_' are")]
    Name(String),
}

/// A name of BIRD's for one of its protocols.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProtocolName(String);

/// The control socket of one BIRD.
#[derive(Clone, Debug)]
pub struct Control {
    socket: PathBuf,
    within: Duration,
}

/// One line of a reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Its number, or the number of the line it belongs to.
    pub code: u16,
    /// Its text.
    pub text: String,
}

/// A protocol, as BIRD shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Protocol {
    /// Its name.
    pub name: String,
    /// Its kind: `Static`, `BGP`, ….
    pub kind: String,
    /// `up`, `down`, `start`, ….
    pub state: String,
    /// What else it says: of BGP, `Established`.
    pub info: String,
}

/// Static protocols that hold the announced prefixes: on, they are announced.
#[derive(Clone, Debug)]
pub struct Bird {
    control: Control,
    protocols: Vec<ProtocolName>,
}

// === impl ProtocolName ===

impl ProtocolName {
    /// Takes a name that BIRD's language takes, so that it cannot say anything else there.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(name: impl Into<String>) -> Result<Self, BirdError> {
        let name = name.into();
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let digit_first = name.bytes().next().is_none_or(|byte| byte.is_ascii_digit());
        if digit_first || name.len() > 64 || !name.bytes().all(letter) {
            return Err(BirdError::Name(name));
        }
        Ok(Self(name))
    }
}

// === impl Control ===

impl Control {
    /// The socket, and how long one order may take.
    pub fn new(socket: impl Into<PathBuf>, within: Duration) -> Self {
        Self {
            socket: socket.into(),
            within,
        }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Switches a protocol on. It may be on already.
    ///
    /// # Errors
    /// When BIRD is not reached or does not know it.
    pub async fn enable(&self, protocol: &ProtocolName) -> Result<(), BirdError> {
        self.switch("enable", protocol, [ENABLED, ALREADY_ENABLED])
            .await
    }

    /// Switches a protocol off. It may be off already.
    ///
    /// # Errors
    /// When BIRD is not reached or does not know it.
    pub async fn disable(&self, protocol: &ProtocolName) -> Result<(), BirdError> {
        self.switch("disable", protocol, [DISABLED, ALREADY_DISABLED])
            .await
    }

    /// Every protocol.
    ///
    /// # Errors
    /// When BIRD is not reached or its reply does not read.
    pub async fn protocols(&self) -> Result<Vec<Protocol>, BirdError> {
        let command = "show protocols";
        let lines = self.ask(command).await?;
        let shown = lines.iter().filter(|line| line.code == PROTOCOL);
        shown.map(|line| Protocol::read(command, line)).collect()
    }

    async fn switch(
        &self,
        verb: &str,
        protocol: &ProtocolName,
        done: [u16; 2],
    ) -> Result<(), BirdError> {
        let command = format!("{verb} {}", protocol.0);
        let lines = self.ask(&command).await?;
        if lines.iter().any(|line| done.contains(&line.code)) {
            return Ok(());
        }
        let line = lines.last().map_or("", |line| &line.text);
        Err(reply(&command, line))
    }

    /// Sends one command; gives its reply.
    ///
    /// # Errors
    /// When there is none in time, or BIRD refuses.
    pub async fn ask(&self, command: &str) -> Result<Vec<Line>, BirdError> {
        match timeout(self.within, self.converse(command)).await {
            Ok(reply) => reply,
            Err(_elapsed) => Err(BirdError::TimedOut {
                socket: self.socket.clone(),
                within: self.within,
            }),
        }
    }

    async fn converse(&self, command: &str) -> Result<Vec<Line>, BirdError> {
        let failed = |source| BirdError::Io {
            socket: self.socket.clone(),
            source,
        };
        let mut stream = UnixStream::connect(&self.socket).await.map_err(failed)?;
        let (from, mut to) = stream.split();
        let mut from = BufReader::new(from).take(REPLY_BYTES_MAX);
        let greeting = read_reply(&mut from, "")
            .await
            .map_err(|error| self.told(error))?;
        if greeting.first().map(|line| line.code) != Some(READY) {
            let line = greeting.first().map_or("", |line| &line.text);
            return Err(reply("", line));
        }
        to.write_all(format!("{command}\n").as_bytes())
            .await
            .map_err(failed)?;
        let lines = read_reply(&mut from, command).await;
        let lines = lines.map_err(|error| self.told(error))?;
        match lines.iter().find(|line| line.code >= 8_000) {
            None => Ok(lines),
            Some(Line { code, text }) => Err(BirdError::Refused {
                command: command.to_owned(),
                code: *code,
                words: text.clone(),
            }),
        }
    }

    fn told(&self, error: Unread) -> BirdError {
        match error {
            Unread::Io(source) => BirdError::Io {
                socket: self.socket.clone(),
                source,
            },
            Unread::Line { command, line } => reply(&command, &line),
        }
    }
}

enum Unread {
    Io(io::Error),
    Line { command: String, line: String },
}

/// Lines up to the one that ends a reply.
async fn read_reply(
    from: &mut (impl tokio::io::AsyncBufRead + Unpin),
    command: &str,
) -> Result<Vec<Line>, Unread> {
    let mut lines: Vec<Line> = Vec::new();
    loop {
        let mut bytes = Vec::new();
        from.read_until(b'\n', &mut bytes)
            .await
            .map_err(Unread::Io)?;
        if bytes.pop() != Some(b'\n') {
            // The end of the stream, or of what one reply may have.
            return Err(Unread::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        let raw = String::from_utf8_lossy(&bytes);
        let before = lines.last().map(|line| line.code);
        let Some((line, is_last)) = parse(&raw, before) else {
            return Err(Unread::Line {
                command: command.to_owned(),
                line: raw.into_owned(),
            });
        };
        lines.push(line);
        if is_last {
            return Ok(lines);
        }
    }
}

/// One line and whether it ends its reply; `before` is the number of the line before it.
fn parse(raw: &str, before: Option<u16>) -> Option<(Line, bool)> {
    if let Some(text) = raw.strip_prefix(' ') {
        let line = Line {
            code: before?,
            text: text.to_owned(),
        };
        return Some((line, false));
    }
    let (code, rest) = raw.split_at_checked(4)?;
    if !code.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (mark, text) = rest.split_at_checked(1)?;
    let line = Line {
        code: code.parse().ok()?,
        text: text.to_owned(),
    };
    match mark {
        "-" => Some((line, false)),
        " " => Some((line, true)),
        _ => None,
    }
}

fn reply(command: &str, line: &str) -> BirdError {
    BirdError::Reply {
        command: command.to_owned(),
        line: line.chars().take(200).collect(),
    }
}

// === impl Protocol ===

impl Protocol {
    fn read(command: &str, line: &Line) -> Result<Self, BirdError> {
        let mut words = line.text.split_whitespace();
        let mut next = || words.next().map(str::to_owned);
        let (name, kind, _table, state) = (next(), next(), next(), next());
        let (Some(name), Some(kind), Some(state)) = (name, kind, state) else {
            return Err(reply(command, &line.text));
        };
        // Since when: a date too, once it is long enough ago.
        let info: Vec<&str> = words
            .filter(|word| !word.starts_with(|first: char| first.is_ascii_digit()))
            .collect();
        Ok(Self {
            name,
            kind,
            state,
            info: info.join(" "),
        })
    }

    /// Whether a session of it stands.
    fn is_established(&self) -> bool {
        self.info.starts_with("Established")
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.state == "up"
    }
}

// === impl Bird ===

impl Bird {
    /// The protocols that are switched.
    pub const fn new(control: Control, protocols: Vec<ProtocolName>) -> Self {
        Self { control, protocols }
    }

    async fn look(&self) -> Result<InForce, BirdError> {
        let all = self.control.protocols().await?;
        let mut up = 0_usize;
        for ProtocolName(name) in &self.protocols {
            let found = all.iter().find(|protocol| protocol.name == *name);
            let found = found.ok_or_else(|| BirdError::NoProtocol(name.clone()))?;
            up = up.saturating_add(usize::from(found.is_up()));
        }
        let mut sessions = all.iter().filter(|protocol| protocol.kind == BGP);
        let heard = sessions.clone().next().is_none() || sessions.any(Protocol::is_established);
        Ok(match up {
            0 => InForce::Withdrawn,
            up if up < self.protocols.len() => InForce::Mixed,
            _ if heard => InForce::Announced,
            _ => InForce::Unheard,
        })
    }
}

impl Announcer for Bird {
    fn in_force(&mut self) -> BoxFuture<'_, Result<InForce, AnnounceError>> {
        Box::pin(async { Ok(self.look().await?) })
    }

    fn announce(&mut self) -> BoxFuture<'_, Result<(), AnnounceError>> {
        Box::pin(async {
            for protocol in &self.protocols {
                self.control.enable(protocol).await?;
            }
            Ok(())
        })
    }

    fn withdraw(&mut self) -> BoxFuture<'_, Result<(), AnnounceError>> {
        Box::pin(async {
            for protocol in &self.protocols {
                self.control.disable(protocol).await?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
