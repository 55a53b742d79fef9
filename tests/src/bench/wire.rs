//! A lean HTTP client: prepared bytes out, status and body back, over one kept connection; plain, over
//! TLS, or as one stream of several on an HTTP/2 connection.
//!
//! The generator shares its cores with what it measures, so that it does as little as it can.
//! Understands what our servers send: `Content-Length` bodies. Anything else is an error.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longest response read.
const RESPONSE_BYTES_MAX: usize = 1 << 20;

/// One connection, or one share of a connection.
pub struct Wire {
    line: Line,
    buffer: Vec<u8>,
}

/// Where a server is, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Dial {
    /// Where.
    pub address: SocketAddr,
    /// How.
    pub speech: Speech,
}

/// How a server is spoken to.
#[derive(Clone)]
pub enum Speech {
    /// HTTP/1.1.
    Plain,
    /// HTTP/1.1 over TLS.
    Tls(Arc<ClientConfig>),
    /// HTTP/2 over TLS.
    Streams(Arc<Streams>),
}

/// Connections that several share.
pub struct Streams {
    config: Arc<ClientConfig>,
    each: usize,
    /// The newest one, and how many share it.
    open: Mutex<Option<(SendRequest<Full<Bytes>>, usize)>>,
}

enum Line {
    Bytes(Box<dyn Stream>),
    Requests(SendRequest<Full<Bytes>>),
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

// === impl Dial ===

impl Dial {
    /// A TLS connection to the server.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn secured(
        address: SocketAddr,
        config: &Arc<ClientConfig>,
    ) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        secure(stream, config).await
    }
}

/// Shakes hands over a connection.
///
/// # Errors
/// When the handshake fails.
pub async fn secure(
    stream: TcpStream,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::from(stream.peer_addr()?.ip());
    TlsConnector::from(Arc::clone(config))
        .connect(name, stream)
        .await
}

// === impl Streams ===

impl Streams {
    /// So many requests at once share a connection.
    pub fn new(config: Arc<ClientConfig>, each: usize) -> Self {
        Self {
            config,
            each,
            open: Mutex::new(None),
        }
    }

    async fn share(&self, address: SocketAddr) -> io::Result<SendRequest<Full<Bytes>>> {
        let mut open = self.open.lock().await;
        if let Some((sender, shares)) = open.as_mut()
            && *shares < self.each
            && !sender.is_closed()
        {
            *shares += 1;
            return Ok(sender.clone());
        }
        let stream = TokioIo::new(Dial::secured(address, &self.config).await?);
        let shaken = http2::handshake(TokioExecutor::new(), stream).await;
        let (sender, driver) = shaken.map_err(io::Error::other)?;
        // It ends with its last share; what breaks it is told to whoever waits on it.
        tokio::spawn(async move { drop(driver.await) });
        *open = Some((sender.clone(), 1));
        Ok(sender)
    }
}

impl fmt::Debug for Speech {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Tls(_) => "TLS",
            Self::Streams(_) => "TLS, HTTP/2",
        })
    }
}

// === impl Wire ===

impl Wire {
    /// Connects, plain.
    pub async fn connect(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }

    /// Connects as the server is spoken to.
    pub async fn dial(to: &Dial) -> io::Result<Self> {
        match &to.speech {
            Speech::Plain => Self::connect(to.address).await,
            Speech::Tls(config) => Ok(Self::over(Dial::secured(to.address, config).await?)),
            Speech::Streams(streams) => Ok(Self {
                line: Line::Requests(streams.share(to.address).await?),
                buffer: Vec::with_capacity(1_024),
            }),
        }
    }

    fn over(stream: impl Stream + 'static) -> Self {
        Self {
            line: Line::Bytes(Box::new(stream)),
            buffer: Vec::with_capacity(4_096),
        }
    }

    /// Sends one request and reads its response. After an error, or when dropped half way, the
    /// connection must not be used again.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<(u16, &[u8])> {
        self.buffer.clear();
        let stream = match &mut self.line {
            Line::Bytes(stream) => stream,
            Line::Requests(sender) => {
                let status = stream_of(sender, request, &mut self.buffer).await?;
                return Ok((status, &self.buffer));
            }
        };
        stream.write_all(request).await?;
        stream.flush().await?;
        let (status, head, length) = loop {
            if let Some(found) = head(&self.buffer)? {
                break found;
            }
            self.fill().await?;
        };
        let end = head.saturating_add(length);
        while self.buffer.len() < end {
            self.fill().await?;
        }
        Ok((status, self.buffer.get(head..end).unwrap_or_default()))
    }

    /// A GET of `path`, for counters and status pages.
    pub async fn get(&mut self, path: &str) -> io::Result<(u16, &[u8])> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        self.exchange(request.as_bytes()).await
    }

    /// A POST of unsigned JSON, for operators' orders.
    pub async fn post(&mut self, path: &str, body: &str) -> io::Result<(u16, &[u8])> {
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        self.exchange(request.as_bytes()).await
    }

    async fn fill(&mut self) -> io::Result<()> {
        if self.buffer.len() > RESPONSE_BYTES_MAX {
            return Err(io::Error::other("the response is too long"));
        }
        let Line::Bytes(stream) = &mut self.line else {
            return Err(io::Error::other("no bytes of its own"));
        };
        match stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// One request of prepared bytes as a stream; its body goes into `into`.
async fn stream_of(
    sender: &mut SendRequest<Full<Bytes>>,
    request: &[u8],
    into: &mut Vec<u8>,
) -> io::Result<u16> {
    let request = request_of(request).ok_or_else(|| io::Error::other("not a request of ours"))?;
    sender.ready().await.map_err(io::Error::other)?;
    let response = sender.send_request(request).await;
    let (parts, mut body) = response.map_err(io::Error::other)?.into_parts();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
            into.extend_from_slice(&data);
        }
        if into.len() > RESPONSE_BYTES_MAX {
            return Err(io::Error::other("the response is too long"));
        }
    }
    Ok(parts.status.as_u16())
}

/// The request that prepared bytes are, without what HTTP/2 says otherwise.
fn request_of(bytes: &[u8]) -> Option<Request<Full<Bytes>>> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    let mut request = Request::builder()
        .method(method)
        .uri(format!("https://localhost{path}"));
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        if !matches!(name, "host" | "content-length") {
            request = request.header(name, value);
        }
    }
    let body = bytes.get(end.checked_add(4)?..)?;
    request.body(Full::new(Bytes::copy_from_slice(body))).ok()
}

/// Status, length of the head, length of the body; `None` while the head is not complete.
fn head(bytes: &[u8]) -> io::Result<Option<(u16, usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let wrong = || io::Error::other("not a response we understand");
    let text = bytes
        .get(..end)
        .and_then(|head| std::str::from_utf8(head).ok());
    let mut lines = text.ok_or_else(wrong)?.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status
        .and_then(|code| code.parse().ok())
        .ok_or_else(wrong)?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or_else(wrong)?;
    Ok(Some((status, end.saturating_add(4), length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepared_bytes_are_a_request_of_http_2_too() {
        let bytes = b"POST /v1/x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nx-y: z\r\n\r\n{}";
        let request = request_of(bytes).unwrap();
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri().path(), "/v1/x");
        assert_eq!(request.headers().len(), 1);
        assert_eq!(request.headers()["x-y"], "z");
        assert!(request_of(b"POST /").is_none());
    }

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        let response = b"HTTP/1.1 402 Payment Required\r\nContent-Length: 2\r\nx: y\r\n\r\n{}";
        let read = head(response).unwrap();
        assert_eq!(read, Some((402, response.len() - 2, 2)));
        assert_eq!(head(&response[..40]).unwrap(), None);
        assert!(head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(head(b"nonsense\r\n\r\n").is_err());
    }
}
