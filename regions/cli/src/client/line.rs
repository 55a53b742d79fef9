//! Messages over TCP, plain or over TLS, each with its length before it.
//!
//! Every message has a connection of its own, so that none is lost on one that its server has closed
//! meanwhile, and nothing is sent twice. Deliberately absent: several messages under way on one
//! connection, and repeats; both are the caller's to want.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use standin_edge::iso8583::MESSAGE_BYTES_MAX;
use standin_edge::iso8583::frame::{self, LENGTH_BYTES};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{ClientTls, Server, TargetError, host_of};

/// The port where a URL names none.
const PORT: u16 = 8583;

/// Where messages are spoken: `iso8583://HOST:PORT`, over TLS `iso8583s://HOST:PORT`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LineTarget {
    authority: String,
    secure: bool,
}

/// Sends messages to one server.
#[derive(Clone, Debug)]
pub struct Lines {
    target: LineTarget,
    tls: Option<ClientTls>,
}

/// Why no answer came. The message may have been acted on, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// No connection; surely nothing was sent.
    #[error("cannot connect to {target}: {source}")]
    Connect {
        /// The server.
        target: String,
        /// Why.
        source: io::Error,
    },
    /// One of the two ends refused the other's certificate, or did not speak TLS; nothing was sent.
    #[error("no TLS with {target}: {source}")]
    Handshake {
        /// The server.
        target: String,
        /// Why.
        source: io::Error,
    },
    /// The server closed the connection without an answer.
    #[error("the connection was closed without an answer")]
    Closed,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// No message is as long as that.
    #[error("a message of {0} bytes, which none has")]
    Length(usize),
    /// The time was up.
    #[error("no reply in time")]
    Timeout,
}

/// A connection, plain or over TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

// === impl LineTarget ===

impl LineTarget {
    /// Whether it is spoken to over TLS.
    pub const fn is_secure(&self) -> bool {
        self.secure
    }
}

impl FromStr for LineTarget {
    type Err = TargetError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Server { authority, secure } = Server::read(text, "iso8583", [PORT, PORT])?;
        Ok(Self { authority, secure })
    }
}

impl From<SocketAddr> for LineTarget {
    fn from(address: SocketAddr) -> Self {
        Self {
            authority: address.to_string(),
            secure: false,
        }
    }
}

impl fmt::Display for LineTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "iso8583s" } else { "iso8583" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

// === impl LineError ===

impl LineError {
    /// Whether the server ended the connection rather than answer.
    pub const fn is_cut(&self) -> bool {
        matches!(
            self,
            Self::Closed | Self::Broken(_) | Self::Handshake { .. }
        )
    }
}

// === impl Lines ===

impl Lines {
    /// To a server at iso8583://.
    pub const fn new(target: LineTarget) -> Self {
        Self { target, tls: None }
    }

    /// To a server at iso8583s://.
    pub const fn over_tls(target: LineTarget, tls: ClientTls) -> Self {
        Self {
            target,
            tls: Some(tls),
        }
    }

    /// Sends a message and waits for the one that comes back, all of it within `patience`.
    ///
    /// # Errors
    /// When none came.
    pub async fn ask(&self, message: &[u8], patience: Duration) -> Result<Vec<u8>, LineError> {
        let asking = async {
            let mut stream = self.connect().await?;
            send(&mut stream, &framed(message)?).await?;
            receive(&mut stream).await
        };
        timeout(patience, asking)
            .await
            .unwrap_or(Err(LineError::Timeout))
    }

    /// Sends the length and half of the message, and no more; waits for an answer all the same.
    ///
    /// # Errors
    /// As [`Lines::ask`].
    pub async fn stall(&self, message: &[u8], patience: Duration) -> Result<Vec<u8>, LineError> {
        let stalling = async {
            let mut stream = self.connect().await?;
            let whole = framed(message)?;
            let (half, _never) = whole.split_at(whole.len().div_ceil(2));
            send(&mut stream, half).await?;
            receive(&mut stream).await
        };
        timeout(patience, stalling)
            .await
            .unwrap_or(Err(LineError::Timeout))
    }

    /// Sends a message, within `patience`, and leaves after `wait` without a look at what came.
    ///
    /// # Errors
    /// When it could not be sent.
    pub async fn abandon(
        &self,
        message: &[u8],
        wait: Duration,
        patience: Duration,
    ) -> Result<(), LineError> {
        let sending = async {
            let mut stream = self.connect().await?;
            send(&mut stream, &framed(message)?).await?;
            Ok(stream)
        };
        let sent = timeout(patience, sending).await;
        let mut stream = sent.unwrap_or(Err(LineError::Timeout))?;
        // What lies unread when a connection is closed resets it, and the message may go with that.
        let reading = async {
            let mut unread = [0; 512];
            while matches!(stream.read(&mut unread).await, Ok(bytes) if bytes > 0) {}
            std::future::pending::<()>().await;
        };
        // Only the time ends it.
        drop(timeout(wait, reading).await);
        Ok(())
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, LineError> {
        let target = || self.target.to_string();
        let failed = |source| LineError::Connect {
            target: target(),
            source,
        };
        let stream = TcpStream::connect(&self.target.authority)
            .await
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let Some(tls) = &self.tls else {
            return match self.target.secure {
                true => Err(failed(io::Error::other("no authority to trust"))),
                false => Ok(Box::new(stream)),
            };
        };
        let secured = tls.connect(host_of(&self.target.authority), stream).await;
        let secured = secured.map_err(|source| LineError::Handshake {
            target: target(),
            source,
        })?;
        Ok(Box::new(secured))
    }
}

fn framed(message: &[u8]) -> Result<Vec<u8>, LineError> {
    frame::frame(message).ok_or(LineError::Length(message.len()))
}

async fn send(stream: &mut dyn Stream, bytes: &[u8]) -> Result<(), LineError> {
    stream.write_all(bytes).await.map_err(broken)?;
    stream.flush().await.map_err(broken)
}

/// The next message. A length of zero only keeps the connection open.
async fn receive(stream: &mut dyn Stream) -> Result<Vec<u8>, LineError> {
    let length = loop {
        let mut bytes = [0; LENGTH_BYTES];
        stream.read_exact(&mut bytes).await.map_err(broken)?;
        match frame::length(bytes) {
            0 => {}
            length => break length,
        }
    };
    if length > MESSAGE_BYTES_MAX {
        return Err(LineError::Length(length));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await.map_err(broken)?;
    Ok(message)
}

fn broken(error: io::Error) -> LineError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => LineError::Closed,
        _ => LineError::Broken(error),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A server that takes so many bytes, says `answer` and closes; and what it was sent.
    async fn server(
        takes: usize,
        answer: &'static [u8],
    ) -> (Lines, tokio::task::JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; takes];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(answer).await.unwrap();
            bytes
        });
        let target = format!("iso8583://{address}").parse().unwrap();
        (Lines::new(target), serving)
    }

    #[test]
    fn a_target_is_a_server_without_a_path() {
        let check = |text: &str, expected: Result<&str, TargetError>| {
            let got = text.parse::<LineTarget>().map(|target| target.to_string());
            assert_eq!(got, expected.map(str::to_owned), "{text}");
        };
        check("iso8583://127.0.0.1:1", Ok("iso8583://127.0.0.1:1"));
        check(
            "iso8583s://edge.example",
            Ok("iso8583s://edge.example:8583"),
        );
        check("iso8583://[::1]", Ok("iso8583://[::1]:8583"));
        check("iso8583://a:1/x", Err(TargetError::Path("iso8583")));
        let http = TargetError::Scheme("iso8583", "http".to_owned());
        check("http://a:1", Err(http));
        check("a:1", Err(TargetError::Syntax("iso8583")));
    }

    #[tokio::test]
    async fn a_message_goes_out_behind_its_length_and_so_does_the_answer() {
        // A length of zero comes first: it is no answer.
        let (lines, serving) = server(6, b"\0\0\0\x040810").await;
        assert_eq!(lines.ask(b"0800", PATIENCE).await.unwrap(), b"0810");
        assert_eq!(serving.await.unwrap(), b"\0\x040800");
    }

    #[tokio::test]
    async fn half_of_a_message_is_half_of_what_was_announced() {
        let (lines, serving) = server(3, b"").await;
        let stalled = lines.stall(b"0800", PATIENCE).await;
        assert!(matches!(stalled, Err(LineError::Closed)), "{stalled:?}");
        assert_eq!(serving.await.unwrap(), b"\0\x040");
    }

    #[tokio::test]
    async fn what_ends_early_or_is_too_long_is_no_answer() {
        for (answer, expected) in [
            (b"".as_slice(), "closed"),
            (b"\0\x040", "closed"),
            (b"\xff\xff", "65535 bytes"),
        ] {
            let (lines, _serving) = server(6, answer).await;
            let error = lines.ask(b"0800", PATIENCE).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_was_said() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let lines = Lines::new(format!("iso8583://{address}").parse().unwrap());
        let waited = lines.ask(b"0800", Duration::from_millis(50)).await;
        assert!(matches!(waited, Err(LineError::Timeout)), "{waited:?}");
        let wait = Duration::from_millis(50);
        assert!(lines.abandon(b"0800", wait, PATIENCE).await.is_ok());
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_told_from_one_that_is_silent() {
        let lines = Lines::new("iso8583://127.0.0.1:1".parse().unwrap());
        let error = lines.ask(b"0800", PATIENCE).await.unwrap_err();
        assert!(matches!(error, LineError::Connect { .. }), "{error}");
        assert!(!error.is_cut());
    }
}
